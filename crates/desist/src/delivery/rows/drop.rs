//! Files of rows: a delta for each batch, and now and then a snapshot of everything. A receiver takes a file when its manifest is there,
//! which is written last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use desist_connector::declared::Transport as Carrier;
use desist_connector::{Instance, Row};
use desist_core::lane::{Failure, Level, Outcome, Report};
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::local::Local;
use super::s3::Bucket;
use super::sftp::Sftp;
use super::{Fault, Left, Options, Problem, Rendered, aside, reaches, render, run};
use crate::limits::{FILE_TIMEOUT, SNAPSHOT_PAGE_MAX, SNAPSHOT_PART_BYTES_MAX};

const MANIFEST: &str = ".manifest.json";
const DELTA: &str = "desist-delta-";
const SNAPSHOT: &str = "desist-snapshot-";
const DAY_MS: u64 = 86_400_000;

/// The way to one place for files.
pub struct FileDrop {
    inner: Arc<Inner>,
}

struct Inner {
    instance: Instance,
    options: Options,
    place: Place,
    is_csv: bool,
    is_clear: bool,
    keep_days: u64,
    /// The number of the last file; none before the place was looked at.
    last: Mutex<Option<u64>>,
    // One at a time, so that they do not delete each other's files.
    snapshot: Mutex<()>,
    problem: Problem,
    /// The same of snapshots, which no file between them clears.
    snapshot_problem: Problem,
}

/// Where files go.
enum Place {
    Local(Local),
    Bucket(Bucket),
    Sftp(Box<Sftp>),
}

impl Place {
    /// Puts a file under its name, whole and durable, or not at all. [`Failure::Ambiguous`]: it may be there.
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let put = async {
            match self {
                Self::Local(local) => local.put(name, bytes).await,
                Self::Bucket(bucket) => bucket.put(name, bytes).await,
                Self::Sftp(sftp) => sftp.put(name, bytes).await,
            }
        };
        in_time(Failure::Ambiguous, put).await
    }

    /// The names of what is there; of a bucket nothing is asked.
    async fn list(&self) -> Result<Vec<String>, Fault> {
        let list = async {
            match self {
                Self::Local(local) => local.list().await,
                Self::Bucket(_) => Ok(Vec::new()),
                Self::Sftp(sftp) => sftp.list().await,
            }
        };
        in_time(Failure::Connect, list).await
    }

    /// Removes a file, if it is still there.
    async fn remove(&self, name: &str) -> Result<(), Fault> {
        let remove = async {
            match self {
                Self::Local(local) => local.remove(name).await,
                Self::Bucket(_) => Ok(()),
                Self::Sftp(sftp) => sftp.remove(name).await,
            }
        };
        in_time(Failure::Connect, remove).await
    }

    async fn probe(&self) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.probe().await,
            Self::Bucket(bucket) => bucket.probe().await,
            Self::Sftp(sftp) => sftp.probe().await,
        }
    }
}

/// A snapshot has no end of its own, and a place that says nothing would hold up all that come after it.
async fn in_time<T>(late: Failure, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(FILE_TIMEOUT, work).await.unwrap_or_else(|_| Err(Fault::new(late, "the time for one file was up")))
}

/// What a receiver reads first.
#[derive(Serialize)]
struct Manifest {
    kind: &'static str,
    format: &'static str,
    made_at: String,
    from_version: u64,
    to_version: u64,
    rows: u64,
    files: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    file: String,
    rows: u64,
    bytes: u64,
    sha256: String,
}

/// Rows as bytes, and which versions are among them.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    rows: u64,
    versions: Option<(u64, u64)>,
}

/// What a snapshot became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its manifest's name.
    pub manifest: String,
    /// Rows in all of its files.
    pub rows: u64,
    /// How many files that is.
    pub files: usize,
    /// Files that were deleted because they are old and nobody needs them.
    pub deleted: usize,
}

impl FileDrop {
    /// By the connector's transport and settings. The error is for the operator, and names no secret.
    pub fn new(instance: Instance, options: Options) -> Result<Self, String> {
        let place = match instance.manifest().declared().connector.transport {
            Carrier::File => Place::Local(Local::new(&instance)?),
            Carrier::S3 => Place::Bucket(Bucket::new(&instance, &options)?),
            Carrier::Sftp => Place::Sftp(Box::new(Sftp::new(&instance, &options)?)),
            Carrier::Http | Carrier::Sql | Carrier::Manual => return Err("the connector has no files".to_owned()),
        };
        let (is_csv, is_clear) = (instance.text("format") == Some("csv"), instance.text("values") == Some("clear"));
        let keep_days = instance.number("keep_days").map_or(0, |days| u64::try_from(days).unwrap_or(0));
        let (last, snapshot) = (Mutex::new(None), Mutex::new(()));
        let (problem, snapshot_problem) = Default::default();
        let inner = Inner { instance, options, place, is_csv, is_clear, keep_days, last, snapshot, problem, snapshot_problem };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How often the operator wants a snapshot.
    pub fn snapshot_every(&self) -> Option<Duration> {
        let text = self.inner.instance.text("snapshot_every")?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit = match unit {
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        Some(Duration::from_secs(number.parse::<u64>().ok()?.saturating_mul(unit)))
    }

    /// Writes everything that holds, in files of at most 64 MiB with one manifest, and deletes what nobody needs any more: files that
    /// are older than `keep_days` and than the snapshot before this one. The error is for the operator.
    pub async fn write_snapshot(&self) -> Result<Snapshot, String> {
        self.write_snapshot_in(SNAPSHOT_PART_BYTES_MAX).await
    }

    /// The same in files of at most so many bytes, unless one row is longer.
    pub async fn write_snapshot_in(&self, part_bytes_max: usize) -> Result<Snapshot, String> {
        let inner = &self.inner;
        let written = inner.write_snapshot(part_bytes_max).await;
        inner.snapshot_problem.set(inner.instance.manifest().id(), written.as_ref().err().map(|fault| fault.problem.clone()));
        written.map_err(|fault| fault.problem)
    }
}

impl Transport for FileDrop {
    fn problem(&self) -> Option<String> {
        self.inner
            .problem
            .get()
            .or_else(|| self.inner.snapshot_problem.get().map(|problem| format!("the last snapshot was not written: {problem}")))
    }

    fn start(&self, errand: Errand, within: Duration, done: Done) {
        let inner = Arc::clone(&self.inner);
        run(&self.inner.options.runtime, within, done, |left| async move { inner.errand(errand, &left).await });
    }

    fn reaches(&self, message: &Message) -> bool {
        reaches(&self.inner.instance, &self.inner.options.purposes, message)
    }
}

impl Inner {
    async fn errand(self: &Arc<Self>, errand: Errand, left: &Left) -> Ended {
        let quiet = |outcome| Ended { left: false, ..Ended::all(outcome) };
        let ended = match errand {
            Errand::Send(messages) => self.send(messages, left).await,
            Errand::Probe => self.place.probe().await.map(|()| Ended::all(Outcome::Ok(Level::Accepted))),
            // A receiver may have taken the files away, so that there is nothing to compare.
            Errand::Check(_) => Ok(quiet(Outcome::Ok(Level::Accepted))),
            Errand::Poll(_) => Ok(quiet(Outcome::NotSent)),
        };
        let id = self.instance.manifest().id();
        match ended {
            Ok(ended) => {
                // What asked nobody does not show that it works.
                if ended.left {
                    self.problem.set(id, None);
                }
                ended
            }
            Err(fault) => {
                self.problem.set(id, Some(fault.problem.clone()));
                fault.ended(left)
            }
        }
    }

    async fn send(self: &Arc<Self>, messages: Vec<Arc<Message>>, left: &Left) -> Result<Ended, Fault> {
        let inner = Arc::clone(self);
        let rendered = aside(move || {
            let Rendered { rows, reports, ceilings } = render(&inner.instance, &inner.options.purposes, &messages)?;
            let mut written = inner.begun();
            inner.write(&rows, &mut written, usize::MAX)?;
            Ok((written, reports, ceilings))
        });
        let (written, mut reports, ceilings) = rendered.await?;
        if written.rows == 0 {
            return Ok(Ended { left: false, reports, ..Ended::all(Outcome::Ok(Level::Accepted)) });
        }
        let number = self.number().await?;
        let versions = written.versions.unwrap_or_default();
        let part = self.put(DELTA, number, written).await?;
        let name = format!("{}{MANIFEST}", part.file);
        let manifest = self.manifest("delta", versions, vec![part]);
        // A file without its manifest is none.
        left.now();
        self.place.put(&name, manifest).await?;
        let told = ceilings.into_keys().filter(|target| !reports.iter().any(|(reported, _)| reported == target)).collect::<Vec<_>>();
        reports.extend(told.into_iter().map(|target| (target, Report::Reached(Level::Accepted))));
        Ok(Ended { reports, ..Ended::all(Outcome::Ok(Level::Accepted)) })
    }

    async fn write_snapshot(self: &Arc<Self>, part_bytes_max: usize) -> Result<Snapshot, Fault> {
        let wrong = |problem: String| Fault::new(Failure::Server, problem);
        let present = self.options.present.clone().ok_or_else(|| wrong("there is nothing to make a snapshot of".to_owned()))?;
        let _one = self.snapshot.lock().await;
        let number = self.number().await?;
        let (mut parts, mut versions, mut written) = (Vec::new(), None, self.begun());
        let mut after = Some(0);
        while let Some(place) = after {
            let (inner, present) = (Arc::clone(self), Arc::clone(&present));
            let page = aside(move || {
                let (messages, next) = present.page(place, SNAPSHOT_PAGE_MAX).map_err(wrong)?;
                let Rendered { rows, .. } = render(&inner.instance, &inner.options.purposes, &messages)?;
                let full = inner.write(&rows, &mut written, part_bytes_max)?;
                Ok((full, written, next))
            });
            let (full, begun, next) = page.await?;
            written = begun;
            for full in full {
                versions = spanned(versions, full.versions);
                parts.push(self.put(SNAPSHOT, number, full).await?);
            }
            // It would never end, and what ends too early is not everything.
            if next.is_some_and(|next| next <= place) {
                return Err(wrong("what holds for everybody cannot be read to its end".to_owned()));
            }
            after = next;
        }
        versions = spanned(versions, written.versions);
        if written.rows > 0 || parts.is_empty() {
            parts.push(self.put(SNAPSHOT, number, written).await?);
        }
        let (rows, files) = (parts.iter().map(|part| part.rows).sum(), parts.len());
        let manifest = format!("{SNAPSHOT}{number:020}{MANIFEST}");
        self.place.put(&manifest, self.manifest("snapshot", versions.unwrap_or_default(), parts)).await?;
        // The snapshot is there, whatever becomes of files that nobody needs any more: the next one deletes them.
        let deleted = self.clean(number).await.unwrap_or_else(|fault| {
            tracing::warn!(connector = self.instance.manifest().id(), problem = fault.problem, "old files were not deleted");
            0
        });
        Ok(Snapshot { manifest, rows, files, deleted })
    }

    /// Deletes files that are older than the snapshot before the last and than the operator wants them kept.
    async fn clean(&self, number: u64) -> Result<usize, Fault> {
        if self.keep_days == 0 {
            return Ok(0);
        }
        let names = self.names().await?;
        let is_manifest = |name: &str| name.ends_with(MANIFEST);
        let snapshots = names.iter().filter(|name| name.starts_with(SNAPSHOT) && is_manifest(name)).filter_map(|name| number_of(name));
        let Some(before) = snapshots.filter(|found| *found < number).max() else { return Ok(0) };
        let now_ms = u64::try_from(self.options.env.now_ms()).unwrap_or(0);
        let oldest = before.min(now_ms.saturating_sub(self.keep_days.saturating_mul(DAY_MS)));
        let mut old: Vec<_> = names.iter().filter(|name| number_of(name).is_some_and(|number| number < oldest)).collect();
        // What has no file must not have a manifest.
        old.sort_by_key(|name| !is_manifest(name));
        for name in &old {
            self.place.remove(name).await?;
        }
        Ok(old.len())
    }

    /// What is there, without what was begun a day ago: nobody goes on with that. What is younger may be another's that is at it.
    async fn names(&self) -> Result<Vec<String>, Fault> {
        let now_ms = u64::try_from(self.options.env.now_ms()).unwrap_or(0);
        let (mut names, mut left_behind) = (self.place.list().await?, Vec::new());
        names.retain(|name| {
            let Some(begun) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) else { return true };
            if number_of(begun).is_some_and(|number| number < now_ms.saturating_sub(DAY_MS)) {
                left_behind.push(name.clone());
            }
            false
        });
        for name in &left_behind {
            self.place.remove(name).await?;
        }
        Ok(names)
    }

    /// The next number: the time, unless the clock went back.
    async fn number(&self) -> Result<u64, Fault> {
        let mut last = self.last.lock().await;
        let known = match *last {
            Some(known) => known,
            None => self.names().await?.iter().filter_map(|name| number_of(name)).max().unwrap_or(0),
        };
        let number = u64::try_from(self.options.env.now_ms()).unwrap_or(0).max(known + 1);
        *last = Some(number);
        Ok(number)
    }

    async fn put(&self, kind: &str, number: u64, written: Written) -> Result<Part, Fault> {
        let digested = aside(move || Ok((hex(&Sha256::digest(&written.bytes)), written)));
        let (sha256, written) = digested.await?;
        let file = format!("{kind}{number:020}-{}.{}", &sha256[..16], self.format());
        let part = Part { file, rows: written.rows, bytes: written.bytes.len() as u64, sha256 };
        self.place.put(&part.file, written.bytes).await.map_err(|fault| {
            // Whether it is there or not, nobody takes it without its manifest.
            if fault.is(Failure::Ambiguous) { Fault::new(Failure::Connect, fault.problem) } else { fault }
        })?;
        Ok(part)
    }

    fn manifest(&self, kind: &'static str, (from_version, to_version): (u64, u64), files: Vec<Part>) -> Vec<u8> {
        let made_at = Timestamp::from_millisecond(self.options.env.now_ms()).unwrap_or_default().to_string();
        let rows = files.iter().map(|part| part.rows).sum();
        let manifest = Manifest { kind, format: self.format(), made_at, from_version, to_version, rows, files };
        serde_json::to_vec_pretty(&manifest).expect("texts and numbers are JSON")
    }

    fn format(&self) -> &'static str {
        if self.is_csv { "csv" } else { "ndjson" }
    }

    fn columns(&self) -> impl Iterator<Item = &'static str> {
        let is_clear = self.is_clear;
        ["kind", "value", "sha256", "purposes", "status", "version", "at"].into_iter().filter(move |name| is_clear || *name != "value")
    }

    fn begun(&self) -> Written {
        let mut bytes = Vec::new();
        if self.is_csv {
            bytes.extend(self.columns().collect::<Vec<_>>().join(",").into_bytes());
            bytes.push(b'\n');
        }
        Written { bytes, ..Written::default() }
    }

    /// Adds rows, and gives back what is full.
    fn write(&self, rows: &[Row], written: &mut Written, bytes_max: usize) -> Result<Vec<Written>, Fault> {
        let bad = || Fault::new(Failure::Server, "the connector's item must have kind, id, purposes, status, version and at");
        let mut full = Vec::new();
        for row in rows {
            let mut row = row.value.as_object().cloned().ok_or_else(bad)?;
            // What the identifier is written as stands among the other columns.
            if let Some(Value::Object(id)) = row.remove("id") {
                row.extend(id);
            }
            let version = row.get("version").and_then(Value::as_u64).ok_or_else(bad)?;
            if !["kind", "sha256", "purposes", "status", "at"].iter().all(|name| row.contains_key(*name)) {
                return Err(bad());
            }
            let line = if self.is_csv {
                let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
                line.write_record(self.columns().map(|name| row.get(name).map(cell).unwrap_or_default())).map_err(|_| bad())?;
                line.into_inner().map_err(|_| bad())?
            } else {
                let ordered: Map<String, Value> =
                    self.columns().filter_map(|name| row.remove(name).map(|value| (name.to_owned(), value))).collect();
                let mut line = serde_json::to_vec(&ordered).map_err(|_| bad())?;
                line.push(b'\n');
                line
            };
            if written.rows > 0 && written.bytes.len() + line.len() > bytes_max {
                full.push(std::mem::replace(written, self.begun()));
            }
            written.bytes.extend(line);
            written.rows += 1;
            written.versions = spanned(written.versions, Some((version, version)));
        }
        Ok(full)
    }
}

/// Both spans in one.
fn spanned(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((from, to)), Some((other_from, other_to))) => Some((from.min(other_from), to.max(other_to))),
        (one, other) => one.or(other),
    }
}

/// A value in CSV: a list has spaces between its words, which names of purposes have none of.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The number of a file of ours.
fn number_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix(DELTA).or_else(|| name.strip_prefix(SNAPSHOT))?;
    let (number, rest) = rest.split_at_checked(20)?;
    if rest.starts_with(['-', '.']) { number.parse().ok() } else { None }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
