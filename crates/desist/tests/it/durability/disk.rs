//! A disk that keeps only what was synced, rebuilt from a trace of system calls.
//!
//! The model is stricter than common file systems: a write is durable once an fsync of its file has
//! ended that began after the write, and a name (made, renamed, removed) once its directory was
//! synced. An fsync whose success strace made up counts for nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What is traced: all that changes files, and the answers.
pub const CALLS: &str = "trace=openat,open,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,\
                         fsync,fdatasync,sync_file_range,sendto,sendmsg,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,mkdir,mkdirat,io_uring_setup";

/// What a trace tells, in its order. Paths are below the data directory.
#[derive(Debug)]
pub enum Event {
    /// A file was opened; made, if it was not there and `create`.
    Opened {
        path: PathBuf,
        create: bool,
        truncate: bool,
    },
    MadeDirectory(PathBuf),
    Wrote {
        path: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncated {
        path: PathBuf,
        to: u64,
    },
    Removed(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    /// A sync began.
    Syncing(usize),
    /// It ended well; the number is that of its beginning.
    Synced {
        path: PathBuf,
        id: usize,
    },
    /// The answer with this entry number was handed to the kernel.
    Answered(u64),
}

/// Whether the traced process has ended and all of the trace is there.
pub fn is_whole(trace: &Path) -> bool {
    let Ok(mut file) = File::open(trace) else { return false };
    let size = file.metadata().expect("a size").len();
    file.seek(SeekFrom::Start(size.saturating_sub(100))).expect("seeks");
    let mut tail = String::new();
    file.read_to_string(&mut tail).expect("text");
    tail.ends_with("+++\n") && tail.contains("+++ exited with")
}

/// Reads a trace.
pub fn events(trace: &Path, data: &Path) -> impl Iterator<Item = Event> {
    let mut reader = Reader { data: data.to_owned(), unfinished: HashMap::new(), positions: HashMap::new(), calls: 0 };
    BufReader::new(File::open(trace).expect("the trace is there")).split(b'\n').flat_map(move |line| reader.line(&line.expect("readable")))
}

struct Reader {
    data: PathBuf,
    /// The first half of a call that others came between, by thread, with its number.
    unfinished: HashMap<String, (String, usize)>,
    /// Where `write` goes on, by descriptor.
    positions: HashMap<String, u64>,
    calls: usize,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Vec<Event> {
        let line = std::str::from_utf8(line).expect("strace writes ASCII");
        let (thread, call) = line.split_once(' ').expect("a thread, a call");
        let call = call.trim_start();
        if call.starts_with("+++") || call.starts_with("---") {
            return Vec::new();
        }
        self.calls += 1;
        let (whole, id, mut events) = if let Some((first, _)) = call.split_once(" <unfinished ...>") {
            self.unfinished.insert(thread.to_owned(), (first.to_owned(), self.calls));
            return self.begun(first, self.calls);
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let (first, id) = self.unfinished.remove(thread).expect("what is resumed was begun");
            let (_, last) = rest.split_once(" resumed>").expect("resumed");
            (first + last, id, Vec::new())
        } else {
            (call.to_owned(), self.calls, self.begun(call, self.calls))
        };
        events.extend(self.ended(&whole, id));
        events
    }

    /// What a call does as soon as it begins.
    fn begun(&self, call: &str, id: usize) -> Vec<Event> {
        let (name, arguments) = call.split_once('(').expect("a call");
        match name {
            "fsync" | "fdatasync" => self.path_of(arguments).map(|_| Event::Syncing(id)).into_iter().collect(),
            "write" | "writev" | "sendto" | "sendmsg" if descriptor(arguments).is_some_and(|(_, file)| file.starts_with(b"socket:")) => {
                let bytes: Vec<u8> = quoted(arguments).concat();
                answers(&bytes).into_iter().map(Event::Answered).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What it has done when it ends.
    fn ended(&mut self, call: &str, id: usize) -> Option<Event> {
        let (name, arguments) = call.split_once('(').expect("a call");
        let (arguments, result) = arguments.rsplit_once(") ").unwrap_or_else(|| panic!("no result: {}", &call[..call.len().min(200)]));
        let result = result.trim_start().trim_start_matches("= ");
        if result.starts_with('-') || result.starts_with('?') {
            return None;
        }
        let path = match name {
            "openat" | "mkdir" | "mkdirat" | "unlink" | "unlinkat" | "rename" | "renameat" | "renameat2" => {
                quoted(arguments).first().and_then(|path| self.ours(path))
            }
            _ => self.path_of(arguments),
        };
        let moved_here = || quoted(arguments).get(1).and_then(|path| self.ours(path));
        let path = path.or_else(moved_here)?;
        let number = |place: usize| -> u64 {
            arguments.rsplit(", ").nth(place).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name}: no number"))
        };
        let done = || -> usize {
            result.split([' ', '<']).next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name}: {result}"))
        };
        match name {
            "lseek" => {
                self.positions.insert(descriptor(arguments)?.0.to_owned(), done() as u64);
                None
            }
            "openat" => {
                assert!(!arguments.contains("O_APPEND") && !arguments.contains("O_TMPFILE"), "not in the model: {name} with {arguments}");
                self.positions.insert(result.split('<').next().expect("a descriptor").to_owned(), 0);
                Some(Event::Opened { path, create: arguments.contains("O_CREAT"), truncate: arguments.contains("O_TRUNC") })
            }
            "mkdir" | "mkdirat" => Some(Event::MadeDirectory(path)),
            "write" => {
                let mut bytes = quoted(arguments).concat();
                bytes.truncate(done());
                let position = self.positions.get_mut(descriptor(arguments)?.0).expect("it was opened");
                let at = *position;
                *position += bytes.len() as u64;
                Some(Event::Wrote { path, at, bytes })
            }
            "pwrite64" => {
                let mut bytes = quoted(arguments).concat();
                bytes.truncate(done());
                assert_eq!(bytes.len(), done(), "strace cut a write short");
                Some(Event::Wrote { path, at: number(0), bytes })
            }
            "ftruncate" => Some(Event::Truncated { path, to: number(0) }),
            "unlink" | "unlinkat" => Some(Event::Removed(path)),
            "rename" | "renameat" | "renameat2" => {
                Some(Event::Renamed { from: path, to: moved_here().expect("renamed within the directory") })
            }
            "fsync" | "fdatasync" => (!result.contains("INJECTED")).then_some(Event::Synced { path, id }),
            _ => panic!("not in the model: {name} on {}", path.display()),
        }
    }

    fn path_of(&self, arguments: &str) -> Option<PathBuf> {
        self.ours(&descriptor(arguments)?.1)
    }

    /// A path below the data directory, if it is one that a loss of power could take something from.
    fn ours(&self, path: &[u8]) -> Option<PathBuf> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path)).strip_prefix(&self.data).ok()?;
        let name = path.to_str().expect("we name our files in ASCII");
        // SQLite rebuilds the index of the WAL; locks and sockets hold nothing.
        (!matches!(name, "desist.db-shm" | "lock" | "control.sock")).then(|| path.to_owned())
    }
}

/// The descriptor that a call works on and the file behind it, unless that has no name any more.
fn descriptor(arguments: &str) -> Option<(&str, Vec<u8>)> {
    let (number, rest) = arguments.split_once('<')?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (path, after) = rest.split_once('>')?;
    (!after.starts_with("(deleted)")).then(|| (number, unescape(path)))
}

/// Every string among the arguments.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    let mut parts = arguments.split('"');
    let mut found = Vec::new();
    while let (Some(_), Some(text)) = (parts.next(), parts.next()) {
        found.push(unescape(text));
    }
    assert!(!arguments.contains("\"..."), "strace cut a string short");
    found
}

fn unescape(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    let digit = |b: u8| char::from(b).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(4).map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}

/// The entry numbers in answers that a client takes as acknowledgements.
fn answers(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    for answer in text.split("HTTP/1.1 ").filter(|answer| answer.starts_with("201")) {
        let (_, number) = answer.split_once("\"seq\":").expect("the answer is sent in one piece");
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        found.push(digits.parse().expect("a number"));
    }
    found
}

#[derive(Debug, Default)]
struct Inode {
    /// What a restart finds.
    synced: Vec<u8>,
    /// What may be lost, with the number of each.
    pending: Vec<(usize, Change)>,
    /// Since the last time that the image was written out: the first byte that differs, if any.
    dirty_from: Option<u64>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// What would be left.
pub struct Image {
    inodes: Vec<Inode>,
    /// What the running process sees. Directories have no inode.
    live: BTreeMap<PathBuf, Option<usize>>,
    durable: BTreeMap<PathBuf, Option<usize>>,
    /// How many changes there were when a sync began.
    begun: HashMap<usize, usize>,
    changes: usize,
    out: PathBuf,
    /// The names and inodes that are in `out`.
    written: BTreeMap<PathBuf, Option<usize>>,
}

impl Image {
    /// An empty directory, to be rebuilt in `out`.
    pub fn new(data: &Path, out: &Path) -> Self {
        assert_ne!(data, out);
        std::fs::create_dir(out).expect("a directory");
        Self {
            inodes: Vec::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            begun: HashMap::new(),
            changes: 0,
            out: out.to_owned(),
            written: BTreeMap::new(),
        }
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        let no = self.live.get(path).copied().flatten().unwrap_or_else(|| panic!("{} is no file", path.display()));
        &mut self.inodes[no]
    }

    fn change(&mut self, path: &Path, change: Change) {
        self.changes += 1;
        let number = self.changes;
        self.inode(path).pending.push((number, change));
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Opened { path, create, truncate } => {
                if create && !self.live.contains_key(&path) {
                    self.inodes.push(Inode::default());
                    self.live.insert(path.clone(), Some(self.inodes.len() - 1));
                }
                if truncate {
                    self.change(&path, Change::Truncate(0));
                }
            }
            Event::MadeDirectory(path) => {
                self.live.insert(path, None);
            }
            Event::Wrote { path, at, bytes } => self.change(&path, Change::Write(at, bytes)),
            Event::Truncated { path, to } => self.change(&path, Change::Truncate(to)),
            Event::Removed(path) => {
                self.live.remove(&path);
            }
            Event::Renamed { from, to } => {
                let inode = self.live.remove(&from).expect("it was there");
                self.live.insert(to, inode);
            }
            Event::Syncing(id) => {
                self.begun.insert(id, self.changes);
            }
            Event::Synced { path, id } => {
                let upto = self.begun.remove(&id).expect("it began");
                if path.as_os_str().is_empty() || self.live.get(&path) == Some(&None) {
                    let below = |name: &PathBuf| name.parent() == Some(&path);
                    self.durable.retain(|name, _| !below(name));
                    self.durable.extend(self.live.iter().filter(|(name, _)| below(name)).map(|(name, inode)| (name.clone(), *inode)));
                } else {
                    self.inode(&path).sync(upto);
                }
            }
            Event::Answered(_) => {}
        }
    }

    /// Brings the files in the image's directory up to date, with nothing else in it.
    pub fn write(&mut self) -> PathBuf {
        // What a look at the last image may have left.
        for name in ["desist.db-shm", "desist.db-wal", "lock"] {
            if !self.written.contains_key(Path::new(name)) {
                let _ = std::fs::remove_file(self.out.join(name));
            }
        }
        // A name counts only below directories whose names are durable too.
        let reached = |name: &Path| name.ancestors().skip(1).all(|above| above.as_os_str().is_empty() || self.durable.contains_key(above));
        let names: BTreeMap<_, _> =
            self.durable.iter().filter(|(name, _)| reached(name)).map(|(name, inode)| (name.clone(), *inode)).collect();
        for (name, inode) in &self.written {
            if inode.is_some() && names.get(name) != Some(inode) {
                std::fs::remove_file(self.out.join(name)).expect("it was written");
            }
        }
        for (name, inode) in &names {
            let path = self.out.join(name);
            let Some(no) = inode else {
                std::fs::create_dir_all(path).expect("a directory");
                continue;
            };
            let inode = &mut self.inodes[*no];
            if self.written.get(name) != Some(&Some(*no)) {
                std::fs::write(path, &inode.synced).expect("room on the disk");
            } else if let Some(from) = inode.dirty_from {
                use std::os::unix::fs::FileExt as _;
                let file = File::options().write(true).open(path).expect("it was written");
                file.set_len(inode.synced.len() as u64).expect("it can be cut");
                let from = from.min(inode.synced.len() as u64);
                file.write_all_at(&inode.synced[from as usize..], from).expect("room on the disk");
            }
            inode.dirty_from = None;
        }
        self.written = names;
        self.out.clone()
    }

    /// Copies the image as last written, for what would change it.
    pub fn copy_to(&self, to: &Path) {
        for (name, inode) in &self.written {
            let target = to.join(name);
            match inode {
                Some(no) => std::fs::write(target, &self.inodes[*no].synced).expect("room on the disk"),
                None => std::fs::create_dir_all(target).expect("a directory"),
            }
        }
    }
}

impl Inode {
    /// Makes durable what was done up to change number `upto`.
    fn sync(&mut self, upto: usize) {
        let count = self.pending.iter().take_while(|(number, _)| *number <= upto).count();
        for (_, change) in self.pending.drain(..count) {
            let from = match change {
                Change::Write(at, bytes) => {
                    let end = at as usize + bytes.len();
                    if self.synced.len() < end {
                        self.synced.resize(end, 0);
                    }
                    self.synced[at as usize..end].copy_from_slice(&bytes);
                    at
                }
                Change::Truncate(to) => {
                    self.synced.resize(to as usize, 0);
                    to
                }
            };
            self.dirty_from = Some(self.dirty_from.map_or(from, |known| known.min(from)));
        }
    }
}
