//! The index as a file, so that a start need not read the store.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `desistIX` |
//! | 4 | format version |
//! | 4 | V, how many distinct verdicts |
//! | 8 | N, how many entries |
//! | 8 | O, how many verdicts without a number |
//! | 8 | the log position that the entries stand for |
//! | 32 | root hash of the log there |
//! | 24 V | the verdicts: denied, linked, opted in |
//! | 16 N | the entries by key: 14 bytes of the key, number of the verdict or `0xffff`, highest byte first |
//! | 38 O | for each `0xffff` above, in the same order: 14 bytes of the key, verdict |
//! | 32 | SHA-256 of all the above, the first six rows last |
//!
//! The first rows are hashed last because N is known only when all entries are written. A file that
//! is not exactly this is refused whole, and the index is then built from the store.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use desist_core::decision::Verdict;
use desist_core::lookup::LookupKey;
use desist_core::purpose::PurposeSet;
use sha2::{Digest, Sha256};

use super::{Contents, DecisionIndex, Entry, Key, MAX_VERDICTS, OVERFLOW, POISONED, Table, add};

const MAGIC: [u8; 8] = *b"desistIX";
const VERSION: u32 = 1;
const HEADER: usize = 72;
const VERDICT: usize = 24;
const ENTRY: usize = 16;
const OVERFLOWN: usize = 14 + VERDICT;
const DIGEST: usize = 32;

/// How much is read or written at once; a multiple of an entry.
const BLOCK: usize = 1 << 20;
/// Blocks read ahead of the hash, and shards read ahead of the tables.
const AHEAD: usize = 4;
/// More threads than this are not needed to keep up with the hash of the file.
const MAX_FILLERS: usize = 4;

/// What a snapshot stands for. The caller compares it with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The log position: everything before it is in the index.
    pub upto: u64,
    /// The root hash of the log at that position.
    pub root: [u8; 32],
}

/// Why there is no index from a file. Whatever it is, the index can be built from the store.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error("index snapshot: {0}")]
    Io(#[from] io::Error),
    /// The file was written by another version of desist.
    #[error("index snapshot: format version {found}, this program reads {VERSION}")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file is not what was written.
    #[error("index snapshot: damaged: {0}")]
    Damaged(&'static str),
}

struct Header {
    verdicts: u32,
    entries: u64,
    overflown: u64,
    snapshot: Snapshot,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.verdicts.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.overflown.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.snapshot.upto.to_le_bytes());
        bytes[40..].copy_from_slice(&self.snapshot.root);
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Self, SnapshotError> {
        if bytes[..8] != MAGIC {
            return Err(SnapshotError::Damaged("not an index snapshot, or not complete"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("in the header"));
        let found = u32_at(8);
        if found != VERSION {
            return Err(SnapshotError::Version { found });
        }
        Ok(Self {
            verdicts: u32_at(12),
            entries: u64_at(bytes, 16),
            overflown: u64_at(bytes, 24),
            snapshot: Snapshot { upto: u64_at(bytes, 32), root: *bytes.last_chunk().expect("32 is less than the header") },
        })
    }

    /// The length of the file, if such a file can be.
    fn file_len(&self) -> Option<u64> {
        let verdicts = u64::from(self.verdicts) * VERDICT as u64;
        let entries = self.entries.checked_mul(ENTRY as u64)?;
        let overflown = self.overflown.checked_mul(OVERFLOWN as u64)?;
        let ends = (HEADER + DIGEST) as u64;
        ends.checked_add(verdicts)?.checked_add(entries)?.checked_add(overflown)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within a record of fixed length"))
}

fn encode_verdict(verdict: Verdict) -> [u8; VERDICT] {
    let mut bytes = [0; VERDICT];
    for (place, set) in bytes.chunks_exact_mut(8).zip([verdict.denied, verdict.linked, verdict.opted_in]) {
        place.copy_from_slice(&set.0.to_le_bytes());
    }
    bytes
}

fn decode_verdict(bytes: &[u8]) -> Result<Verdict, SnapshotError> {
    let verdict =
        Verdict { denied: PurposeSet(u64_at(bytes, 0)), linked: PurposeSet(u64_at(bytes, 8)), opted_in: PurposeSet(u64_at(bytes, 16)) };
    if verdict == Verdict::default() {
        return Err(SnapshotError::Damaged("an empty verdict"));
    }
    Ok(verdict)
}

fn decode_key(bytes: &[u8; 14]) -> Key {
    let mut key = [0; 16];
    key[..14].copy_from_slice(bytes);
    Key::new(&LookupKey(key))
}

fn encode_entry(entry: Entry) -> [u8; ENTRY] {
    ((u128::from(entry.high) << 64) | u128::from(entry.low)).to_be_bytes()
}

fn decode_entry(bytes: &[u8; ENTRY]) -> Entry {
    let bits = u128::from_be_bytes(*bytes);
    Entry { high: (bits >> 64) as u64, low: bits as u64 }
}

/// Writes and hashes.
struct Hashed<W> {
    to: W,
    sha: Sha256,
}

impl<W: Write> Hashed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha.update(bytes);
        self.to.write_all(bytes)
    }
}

impl DecisionIndex {
    /// Every entry with its verdict, in the order of the keys, of which an entry keeps 14 bytes. A
    /// shard is copied when the iterator comes to it: what is set meanwhile may or may not appear.
    pub fn iter(&self) -> impl Iterator<Item = ([u8; 14], Verdict)> {
        (0..self.route.shards).flat_map(|shard| {
            self.sorted(shard, |contents, entry| (entry.key(), contents.verdict(entry)))
                .into_iter()
                .map(|(key, verdict)| (key.to_bytes(), verdict))
        })
    }

    /// What `of` makes of each entry of a shard, by key. `of` is called under the lock.
    fn sorted<T>(&self, shard: usize, of: impl Fn(&Contents, &Entry) -> (Key, T)) -> Vec<(Key, T)> {
        let mut entries: Vec<_> = {
            let contents = self.read();
            contents.shards[shard].iter().map(|entry| of(&contents, entry)).collect()
        };
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }

    /// Writes the index to a file that stands for the first `upto` lines of the log, whose root
    /// hash there is `root`. The file is complete and durable, or not there.
    ///
    /// The index may change meanwhile. A change may or may not be in the file: since it is of a
    /// line at or after `upto`, going through the log from `upto` makes it good after a start.
    pub fn write_snapshot(&self, path: &Path, upto: u64, root: &[u8; 32]) -> Result<(), SnapshotError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let written = self.write_file(temporary, Snapshot { upto, root: *root }).and_then(|()| std::fs::rename(temporary, path));
        if let Err(error) = written {
            // What is left over is replaced next time, and is never read.
            let _ = std::fs::remove_file(temporary);
            return Err(error.into());
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    fn write_file(&self, path: &Path, snapshot: Snapshot) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let mut out = Hashed { to: BufWriter::with_capacity(BLOCK, file), sha: Sha256::new() };
        out.to.write_all(&[0; HEADER])?;

        // Verdicts that no entry has any more are left out. One that comes into use from here on is
        // written as if it had no number.
        let mut numbers = vec![OVERFLOW; MAX_VERDICTS + 1];
        for shard in 0..self.route.shards {
            for entry in &self.read().shards[shard] {
                numbers[usize::from(entry.number())] = 0;
            }
        }
        numbers[MAX_VERDICTS] = OVERFLOW;
        let mut verdicts = 0;
        for (number, new) in numbers.iter_mut().enumerate().filter(|(_, new)| **new == 0) {
            *new = verdicts;
            verdicts += 1;
            let verdict = self.read().verdicts[number];
            out.put(&encode_verdict(verdict))?;
        }

        let mut entries = 0;
        let mut overflown = Vec::new();
        for shard in 0..self.route.shards {
            let sorted = self.sorted(shard, |contents, entry| {
                let number = numbers[usize::from(entry.number())];
                (entry.key(), (number, (number == OVERFLOW).then(|| contents.verdict(entry))))
            });
            for (key, (number, verdict)) in sorted {
                out.put(&encode_entry(Entry::new(key, number)))?;
                entries += 1;
                overflown.extend(verdict.map(|verdict| (key, verdict)));
            }
        }
        for (key, verdict) in &overflown {
            out.put(&key.to_bytes())?;
            out.put(&encode_verdict(*verdict))?;
        }

        let header = Header { verdicts: verdicts.into(), entries, overflown: overflown.len() as u64, snapshot }.encode();
        out.sha.update(header);
        out.to.write_all(&out.sha.finalize())?;
        let mut file = out.to.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)?;
        file.sync_all()
    }

    /// The index of a file and what it stands for; `None` if there is no file. After any error the
    /// caller builds the index from the store.
    pub fn load_snapshot(path: &Path) -> Result<Option<(Self, Snapshot)>, SnapshotError> {
        Self::load_with_limit(path, MAX_VERDICTS)
    }

    pub(super) fn load_with_limit(path: &Path, limit: usize) -> Result<Option<(Self, Snapshot)>, SnapshotError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let len = file.metadata()?.len();
        if len < (HEADER + DIGEST) as u64 {
            return Err(SnapshotError::Damaged("shorter than any snapshot"));
        }
        let mut first = [0; HEADER];
        file.read_exact(&mut first)?;
        let header = Header::decode(&first)?;
        // From here on no count can ask for more memory than the file's length allows.
        if header.file_len() != Some(len) || header.overflown > header.entries {
            return Err(SnapshotError::Damaged("not as long as its counts say"));
        }
        if header.verdicts as usize > limit {
            return Err(SnapshotError::Damaged("more verdicts than numbers"));
        }

        let mut index = Self::with_limit(header.entries as usize, limit);
        let mut sha = Sha256::new();
        index.load_verdicts(&mut file, &header, &mut sha)?;
        let shards = index.load_entries(&mut file, &header, &mut sha)?;
        index.contents_mut().shards = shards;
        index.load_overflown(&mut file, &header, &mut sha)?;
        sha.update(first);
        let mut digest = [0; DIGEST];
        file.read_exact(&mut digest)?;
        if sha.finalize().as_slice() != digest {
            return Err(SnapshotError::Damaged("its digest is another"));
        }
        index.contents_mut().len = header.entries as usize;
        Ok(Some((index, header.snapshot)))
    }

    fn contents_mut(&mut self) -> &mut Contents {
        self.contents.get_mut().expect(POISONED)
    }

    fn load_verdicts(&mut self, file: &mut File, header: &Header, sha: &mut Sha256) -> Result<(), SnapshotError> {
        let mut bytes = vec![0; header.verdicts as usize * VERDICT];
        file.read_exact(&mut bytes)?;
        sha.update(&bytes);
        let numbers = self.numbers.get_mut().expect(POISONED);
        let contents = self.contents.get_mut().expect(POISONED);
        for (number, bytes) in bytes.chunks_exact(VERDICT).enumerate() {
            let given = numbers.of(decode_verdict(bytes)?, &mut contents.verdicts);
            if given.map(usize::from) != Some(number) {
                return Err(SnapshotError::Damaged("a verdict is there twice"));
            }
        }
        Ok(())
    }

    /// The file is in the order of the shards, so each is filled when all its entries have been
    /// read, at its final size. One thread reads, this one hashes, the others fill.
    fn load_entries(&self, file: &mut File, header: &Header, sha: &mut Sha256) -> Result<Box<[Table]>, SnapshotError> {
        let (full, blocks) = mpsc::sync_channel::<io::Result<Vec<u8>>>(AHEAD);
        let (used, empty) = mpsc::channel::<Vec<u8>>();
        let (give, take) = mpsc::sync_channel::<(usize, Vec<u8>)>(1);
        let take = Mutex::new(take);
        let spare = Mutex::new(Vec::new());
        let failed = AtomicBool::new(false);
        let shards: Box<[_]> = (0..self.route.shards).map(|_| OnceLock::new()).collect();
        let work = || {
            let mut overflown = 0;
            let mut result = Ok(());
            loop {
                let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((shard, mut bytes)) = next else {
                    return result.map(|()| overflown);
                };
                // After an error the rest is taken and dropped, until the sender has seen it.
                if result.is_ok() {
                    match self.fill(shard, &bytes, header.verdicts) {
                        Ok((table, more)) => {
                            let twice = shards[shard].set(table);
                            debug_assert!(twice.is_ok(), "each shard is given once");
                            overflown += more;
                        }
                        Err(error) => {
                            failed.store(true, Ordering::Relaxed);
                            result = Err(error);
                        }
                    }
                }
                bytes.clear();
                spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
            }
        };
        let overflown = std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let fillers: Vec<_> = (0..threads.min(MAX_FILLERS)).map(|_| scope.spawn(work)).collect();
            scope.spawn(move || {
                let mut left = header.entries * ENTRY as u64;
                while left > 0 {
                    let mut block = empty.try_recv().unwrap_or_default();
                    block.resize(left.min(BLOCK as u64) as usize, 0);
                    left -= block.len() as u64;
                    let read = file.read_exact(&mut block).map(|()| block);
                    let over = read.is_err();
                    if full.send(read).is_err() || over {
                        return;
                    }
                }
            });

            let mut shard = 0;
            let mut bytes = Vec::new();
            for block in blocks {
                let block = block?;
                sha.update(&block);
                let (entries, _) = block.as_chunks::<ENTRY>();
                let mut rest = entries;
                while let Some(last) = rest.last() {
                    // Keys in order come in the order of the shards; `fill` sees to it that they do.
                    let of = |entry: &[u8; ENTRY]| self.route.shard(decode_entry(entry).key());
                    let here = if of(last) == shard { rest.len() } else { rest.partition_point(|entry| of(entry) <= shard) };
                    bytes.extend_from_slice(rest[..here].as_flattened());
                    rest = &rest[here..];
                    if !rest.is_empty() {
                        let next = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
                        let whole = std::mem::replace(&mut bytes, next.unwrap_or_default());
                        give.send((shard, whole)).expect("fillers wait for the end");
                        shard += 1;
                        if shard == self.route.shards || failed.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
                if shard == self.route.shards || failed.load(Ordering::Relaxed) {
                    break;
                }
                let _ = used.send(block); // the reader may be done
            }
            if shard < self.route.shards {
                give.send((shard, bytes)).expect("fillers wait for the end");
            }
            drop(give);
            let mut overflown = 0;
            for filler in fillers {
                overflown += filler.join().expect("a filler does not panic")?;
            }
            if shard == self.route.shards {
                return Err(SnapshotError::Damaged("keys are out of order"));
            }
            Ok(overflown)
        })?;
        if overflown != header.overflown {
            return Err(SnapshotError::Damaged("verdicts without a number are missing"));
        }
        Ok(shards.into_iter().map(|shard| shard.into_inner().unwrap_or_else(|| self.table(0))).collect())
    }

    /// The table of a shard, and how many of its entries have a verdict without a number.
    fn fill(&self, shard: usize, bytes: &[u8], verdicts: u32) -> Result<(Table, u64), SnapshotError> {
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        let mut table = self.table(entries.len());
        let mut overflown = 0;
        let mut before = None;
        for bytes in entries {
            let entry = decode_entry(bytes);
            let key = entry.key();
            if before.is_some_and(|before: Key| before >= key) || self.route.shard(key) != shard {
                return Err(SnapshotError::Damaged("keys are out of order"));
            }
            before = Some(key);
            if entry.number() == OVERFLOW {
                overflown += 1;
            } else if u32::from(entry.number()) >= verdicts {
                return Err(SnapshotError::Damaged("an entry without a verdict"));
            }
            add(&mut table, entry);
        }
        Ok((table, overflown))
    }

    /// Gives each entry that has none its verdict; with a number, if there is one by now.
    fn load_overflown(&mut self, file: &mut File, header: &Header, sha: &mut Sha256) -> Result<(), SnapshotError> {
        let numbers = self.numbers.get_mut().expect(POISONED);
        let contents = self.contents.get_mut().expect(POISONED);
        let mut before = None;
        let mut left = header.overflown as usize;
        while left > 0 {
            let mut bytes = vec![0; left.min(BLOCK / OVERFLOWN) * OVERFLOWN];
            file.read_exact(&mut bytes)?;
            sha.update(&bytes);
            for bytes in bytes.chunks_exact(OVERFLOWN) {
                left -= 1;
                let (key, verdict) = bytes.split_first_chunk().expect("14 + 24");
                let key = decode_key(key);
                let verdict = decode_verdict(verdict)?;
                let entry = contents.shards[self.route.shard(key)]
                    .find_mut(key.hash(), |entry| entry.is(key))
                    .filter(|entry| entry.number() == OVERFLOW);
                let (Some(entry), true) = (entry, before < Some(key)) else {
                    return Err(SnapshotError::Damaged("a verdict without an entry"));
                };
                before = Some(key);
                match numbers.of(verdict, &mut contents.verdicts) {
                    Some(number) => *entry = Entry::new(key, number),
                    None => _ = contents.overflow.insert(key, verdict),
                }
            }
        }
        Ok(())
    }
}
