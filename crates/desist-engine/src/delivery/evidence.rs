//! Evidence of deliveries. What destinations took is collected in memory and written once a minute: the records as a segment of
//! the store, and one entry with their root. A crash loses the records of the last minute at most: what has no record is not
//! proven, and nothing is ever proven that did not happen. What a job that ended after a restart says has no record either: its messages
//! have one as accepted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use desist_core::fact::{Acknowledgement, Digest, Fact};
use desist_core::lane::{Level, Now, Outcome, Report, Target};
use desist_core::limits::JOB_HANDLE_BYTES_MAX;
use desist_proof::delivery::{Reached, Record, root};
use desist_store::StoreError;
use desist_store::evidence::{RECORDS_MAX, pack};

use super::driver::{Event, Post};
use super::transport::{Ended, Errand};
use crate::engine::{Ctx, Failure, Job};

/// Time between two entries, in milliseconds: an entry costs some hundred bytes, and whoever asks waits no longer.
const EVERY_MS: u64 = 60_000;
/// Time after which what could not be written is tried again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Most records that wait while nothing can be written, about 8 MiB; what comes then has no record.
const WAITING_MAX: usize = 8 * RECORDS_MAX;
/// Most destinations of one entry, so that it stays far below 64 KiB whatever the numbers are.
const RANGES_MAX: usize = 500;
/// Most segments among which an earlier attempt is looked for: it is the last one, or the one before.
const SEEN_MAX: usize = 8;
/// Most targets of jobs that are remembered until their jobs end.
const JOB_TARGETS_MAX: usize = 65_536;

/// What an errand asked for, for when it ends.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    what: What,
    /// The version that went out about each target.
    versions: BTreeMap<Target, u64>,
}

#[derive(Clone, Debug, Default)]
enum What {
    Send,
    Check,
    Poll(String),
    #[default]
    Probe,
}

impl Asked {
    pub(super) fn of(errand: &Errand) -> Self {
        let (what, messages) = match errand {
            Errand::Send(messages) => (What::Send, messages.as_slice()),
            Errand::Check(messages) => (What::Check, messages.as_slice()),
            Errand::Poll(handle) => (What::Poll(handle.clone()), [].as_slice()),
            Errand::Probe => (What::Probe, [].as_slice()),
        };
        Self { what, versions: messages.iter().map(|message| (message.target, message.version)).collect() }
    }

    /// Whether a transport may speak of this target: one that it was given, or of a job, which it knows itself.
    pub(super) fn is_about(&self, target: Target) -> bool {
        matches!(self.what, What::Poll(_)) || self.versions.contains_key(&target)
    }
}

/// What is written together, unchanged until it is.
struct Batch {
    ranges: Vec<Acknowledgement>,
    records: u64,
    root: Digest,
    segment: Vec<u8>,
    /// The last entry before: an attempt that was written after all is after it.
    after: u64,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Evidence {
    records: Vec<Record>,
    /// How many targets of each destination were parked at its last entry.
    parked: BTreeMap<u32, u64>,
    /// Targets and versions of jobs that run, by destination and the destination's name for the job.
    jobs: HashMap<(u32, String), BTreeMap<Target, u64>>,
    job_targets: usize,
    batch: Option<Arc<Batch>>,
    is_under_way: bool,
    due_ms: Option<u64>,
    is_closed: bool,
    lost: u64,
}

impl Evidence {
    /// Notes what an errand's end shows about each of its targets: what was neither accepted nor found to be absent leaves no record.
    pub fn ended(&mut self, no: u32, asked: Asked, ended: &Ended, unix_ms: i64) {
        let Asked { what, mut versions } = asked;
        let reports: BTreeMap<Target, Report> = ended.reports.iter().copied().collect();
        let of_all = match (&what, &ended.outcome) {
            (What::Send | What::Check, Outcome::Ok(level)) => reached(*level),
            // Nobody can ask after it, so the lane does not count it as taken either.
            (What::Send, Outcome::Job(handle)) if handle.is_empty() || handle.len() > JOB_HANDLE_BYTES_MAX => return,
            (What::Send, Outcome::Job(handle)) => {
                self.begin_job(no, handle, &reports, &versions);
                Some(Reached::Accepted)
            }
            (What::Poll(handle), Outcome::Ok(level)) => {
                versions = self.end_job(no, handle);
                reached(*level)
            }
            (What::Poll(handle), Outcome::Rejected { .. } | Outcome::SomeFailed { .. }) => {
                versions = self.end_job(no, handle);
                None
            }
            _ => return,
        };
        let (status, answer) = ended.answer.map_or((0, [0; 16]), |answer| (answer.status, *answer.sha256.first_chunk().expect("16 of 32")));
        for (target, version) in versions {
            let level = match reports.get(&target) {
                None => of_all,
                Some(Report::Reached(level)) => reached(*level),
                Some(Report::Absent) => Some(Reached::Absent),
                Some(Report::Duplicate) => Some(Reached::Accepted),
                Some(_) => None,
            };
            let Some(level) = level else { continue };
            if self.records.len() >= WAITING_MAX {
                self.lost += 1;
                continue;
            }
            let at = u64::try_from(unix_ms / 1000).unwrap_or(0);
            self.records.push(Record { destination: no, target: target.0, version, at, level, status, answer });
        }
    }

    fn begin_job(&mut self, no: u32, handle: &str, reports: &BTreeMap<Target, Report>, versions: &BTreeMap<Target, u64>) {
        let waiting: BTreeMap<_, _> =
            versions.iter().filter(|(target, _)| !reports.contains_key(target)).map(|(target, version)| (*target, *version)).collect();
        // That its messages were accepted is recorded in any case.
        if !waiting.is_empty() && self.job_targets + waiting.len() <= JOB_TARGETS_MAX {
            self.job_targets += waiting.len();
            let before = self.jobs.insert((no, handle.to_owned()), waiting);
            self.job_targets -= before.map_or(0, |before| before.len());
        }
    }

    /// Nobody asks after the jobs of this destination any more.
    pub fn forget(&mut self, no: u32) {
        self.jobs.retain(|(of, _), _| *of != no);
        self.job_targets = self.jobs.values().map(BTreeMap::len).sum();
    }

    fn end_job(&mut self, no: u32, handle: &str) -> BTreeMap<Target, u64> {
        let versions = self.jobs.remove(&(no, handle.to_owned())).unwrap_or_default();
        self.job_targets -= versions.len();
        versions
    }

    /// What is to be written now, if anything: every minute, when there is much, and all of it at the end. `parked` says how many
    /// targets of each destination are parked, `after` is the last entry.
    pub fn due(
        &mut self,
        now: Now,
        is_last: bool,
        parked: impl FnOnce() -> BTreeMap<u32, u64>,
        after: u64,
        post: &Post,
    ) -> Option<Box<dyn Job>> {
        let due_ms = *self.due_ms.get_or_insert(now.mono_ms + EVERY_MS);
        let is_full = self.batch.is_none() && self.records.len() >= RECORDS_MAX;
        if self.is_under_way || !(is_last || is_full || now.mono_ms >= due_ms) {
            return None;
        }
        if self.batch.is_none() {
            self.batch = self.take(&parked(), after).map(Arc::new);
        } else if now.mono_ms < due_ms {
            // It failed a moment ago.
            return None;
        }
        self.due_ms = Some(now.mono_ms + EVERY_MS);
        self.is_closed = is_last && self.batch.is_none();
        let batch = Arc::clone(self.batch.as_ref()?);
        self.is_under_way = true;
        Some(Box::new(Keep { batch, post: Arc::clone(post) }))
    }

    /// The oldest records, at most as many as one entry has.
    fn take(&mut self, parked: &BTreeMap<u32, u64>, after: u64) -> Option<Batch> {
        if self.lost > 0 {
            tracing::error!(
                lost = self.lost,
                "deliveries were not recorded, since nothing could be written for too long; they happened, and cannot be proven"
            );
            self.lost = 0;
        }
        let rest = self.records.split_off(self.records.len().min(RECORDS_MAX));
        let mut records = std::mem::replace(&mut self.records, rest);
        records.sort_unstable();
        records.dedup();
        let mut ranges = BTreeMap::new();
        for (no, count) in parked {
            if self.parked.get(no).copied().unwrap_or(0) != *count {
                ranges.insert(*no, Acknowledgement { destination: *no, from: 0, to: 0, delivered: 0, parked: *count });
            }
        }
        for of in records.chunk_by(|one, next| one.destination == next.destination) {
            let (no, versions) = (of[0].destination, || of.iter().map(|record| record.version));
            let (from, to) = (versions().min().unwrap_or(0), versions().max().unwrap_or(0));
            let parked = parked.get(&no).or(self.parked.get(&no)).copied().unwrap_or(0);
            ranges.insert(no, Acknowledgement { destination: no, from, to, delivered: of.len() as u64, parked });
        }
        // The others are in the next one.
        if let Some(first_left) = ranges.keys().nth(RANGES_MAX).copied() {
            ranges.split_off(&first_left);
            self.records.extend(records.split_off(records.partition_point(|record| record.destination < first_left)));
        }
        if ranges.is_empty() {
            return None;
        }
        let ranges: Vec<_> = ranges.into_values().collect();
        Some(Batch { records: records.len() as u64, root: Digest(root(&records)), segment: pack(&records), ranges, after })
    }

    /// A batch was written, or was not and is tried again.
    pub fn kept(&mut self, now: Now, stored: bool) {
        self.is_under_way = false;
        if !stored {
            self.due_ms = Some(now.mono_ms + RETRY_MS);
        } else if let Some(batch) = self.batch.take() {
            self.parked.extend(batch.ranges.iter().map(|range| (range.destination, range.parked)));
        }
    }

    /// Whether a batch was handed over and its end is not known yet.
    pub fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// When something is due, by the monotonic clock.
    pub fn next_ms(&self) -> u64 {
        if self.is_under_way { u64::MAX } else { self.due_ms.unwrap_or(0) }
    }

    /// Whether all is written after the last delivery.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

fn reached(level: Level) -> Option<Reached> {
    match level {
        Level::Queued | Level::Sent => None,
        Level::Accepted => Some(Reached::Accepted),
        Level::Applied => Some(Reached::Applied),
        Level::Verified => Some(Reached::Verified),
    }
}

/// Writes a batch: the entry and its records in one step.
struct Keep {
    batch: Arc<Batch>,
    post: Post,
}

impl Job for Keep {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
        let Batch { ranges, records, root, segment, after } = &*self.batch;
        // A commit that seemed to fail may have happened; then it is not said twice.
        if ctx.write.evidence(after + 1..u64::MAX, SEEN_MAX)?.iter().any(|(_, stored)| stored == segment) {
            return Ok(());
        }
        let seq = ctx.batch.emit(ctx.write, Fact::Acknowledged { ranges: ranges.clone(), records: *records, evidence: *root })?;
        ctx.write.put_evidence(seq, segment)
    }

    fn finish(self: Box<Self>, failed: Option<Failure>) {
        (self.post)(Event::Kept { stored: failed.is_none() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { unix_ms: 1_700_000_000_000, mono_ms: 5_000 };

    fn later(ms: u64) -> Now {
        Now { unix_ms: START.unix_ms + ms as i64, mono_ms: START.mono_ms + ms }
    }

    fn post() -> Post {
        Arc::new(|_| {})
    }

    fn ended(outcome: Outcome) -> Ended {
        Ended { left: true, outcome, reports: Vec::new(), answer: None }
    }

    fn take(evidence: &mut Evidence, no: u32, targets: std::ops::Range<u64>) {
        let versions = targets.map(|target| (Target(target), 1 + target)).collect();
        evidence.ended(no, Asked { what: What::Send, versions }, &ended(Outcome::Ok(Level::Applied)), START.unix_ms);
    }

    /// What is written now: how many records, and how many destinations.
    fn written(evidence: &mut Evidence, now: Now, is_last: bool) -> Option<(u64, usize)> {
        evidence.due(now, is_last, BTreeMap::new, 0, &post())?;
        let batch = Arc::clone(evidence.batch.as_ref().expect("under way"));
        assert!(evidence.due(now, is_last, BTreeMap::new, 0, &post()).is_none(), "one at a time");
        evidence.kept(now, true);
        Some((batch.records, batch.ranges.len()))
    }

    #[test]
    fn much_is_written_at_once_and_what_is_too_much_has_no_record() {
        let mut evidence = Evidence::default();
        assert_eq!(written(&mut evidence, START, false), None);
        take(&mut evidence, 1, 0..10);
        assert_eq!(written(&mut evidence, later(EVERY_MS - 1), false), None, "not before the minute is over");
        take(&mut evidence, 1, 10..20_000);
        assert_eq!(written(&mut evidence, later(10), false), Some((RECORDS_MAX as u64, 1)));
        assert_eq!(written(&mut evidence, later(20), false), None);
        assert_eq!(written(&mut evidence, later(10 + EVERY_MS), false), Some((20_000 - RECORDS_MAX as u64, 1)));
        take(&mut evidence, 1, 0..WAITING_MAX as u64 + 7);
        assert_eq!((evidence.records.len(), evidence.lost), (WAITING_MAX, 7));
        let mut all = 0;
        while let Some((records, _)) = written(&mut evidence, later(EVERY_MS), true) {
            all += records;
        }
        assert_eq!((all, evidence.is_closed()), (WAITING_MAX as u64, true));
    }

    #[test]
    fn an_entry_names_so_many_destinations_and_the_next_one_the_others() {
        let mut evidence = Evidence::default();
        (1..=1_200).for_each(|no| take(&mut evidence, no, 0..2));
        let mut found = Vec::new();
        while let Some(one) = written(&mut evidence, START, true) {
            found.push(one);
        }
        assert_eq!(found, [(1_000, 500), (1_000, 500), (400, 200)]);
        let most = Acknowledgement { destination: u32::MAX, from: u64::MAX, to: u64::MAX, delivered: u64::MAX, parked: u64::MAX };
        let fact = Fact::Acknowledged { ranges: vec![most; RANGES_MAX], records: u64::MAX, evidence: Digest([0; 32]) };
        let entry = desist_core::fact::Entry { v: 1, seq: u64::MAX, at: 0, fact };
        assert!(entry.encode().len() < desist_proof::entry::ENTRY_BYTES_MAX);
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_as_it_was() {
        let mut evidence = Evidence::default();
        take(&mut evidence, 1, 0..5);
        assert!(evidence.due(START, true, BTreeMap::new, 3, &post()).is_some());
        let first = Arc::clone(evidence.batch.as_ref().expect("under way"));
        evidence.kept(later(100), false);
        take(&mut evidence, 1, 5..9);
        assert!(evidence.due(later(200), true, BTreeMap::new, 4, &post()).is_none(), "not at once");
        assert!(!evidence.is_closed());
        assert!(evidence.due(later(100 + RETRY_MS), true, BTreeMap::new, 4, &post()).is_some());
        assert!(Arc::ptr_eq(&first, evidence.batch.as_ref().expect("under way")));
        evidence.kept(later(2 * RETRY_MS), true);
        assert_eq!(written(&mut evidence, later(3 * RETRY_MS), true), Some((4, 1)));
        assert_eq!(written(&mut evidence, later(3 * RETRY_MS), true), None);
        assert!(evidence.is_closed());
    }

    #[test]
    fn jobs_are_remembered_until_they_end_and_no_longer() {
        let mut evidence = Evidence::default();
        let send =
            |targets: std::ops::Range<u64>| Asked { what: What::Send, versions: targets.map(|target| (Target(target), 9)).collect() };
        let poll = |handle: &str| Asked { what: What::Poll(handle.to_owned()), versions: BTreeMap::new() };
        let job = |handle: &str| ended(Outcome::Job(handle.to_owned()));
        evidence.ended(1, send(0..3), &job("a"), START.unix_ms);
        evidence.ended(2, send(0..3), &job("a"), START.unix_ms);
        evidence.ended(1, poll("a"), &ended(Outcome::Pending), START.unix_ms);
        evidence.ended(1, poll("b"), &ended(Outcome::Ok(Level::Applied)), START.unix_ms);
        assert_eq!((evidence.records.len(), evidence.job_targets), (6, 6));
        let failed = Report::Failed { is_retryable: true, code: 1 };
        let mixed = Ended {
            reports: vec![(Target(1), failed), (Target(77), Report::Reached(Level::Applied))],
            ..ended(Outcome::Ok(Level::Applied))
        };
        evidence.ended(1, poll("a"), &mixed, START.unix_ms);
        let applied: Vec<_> = evidence.records[6..].iter().map(|record| (record.destination, record.target, record.level)).collect();
        assert_eq!(applied, [(1, 0, Reached::Applied), (1, 2, Reached::Applied)]);
        evidence.ended(2, poll("a"), &ended(Outcome::Rejected { is_retryable: true, code: 1 }), START.unix_ms);
        assert_eq!((evidence.records.len(), evidence.job_targets, evidence.jobs.len()), (8, 0, 0));
        evidence.ended(1, send(0..3), &job(""), START.unix_ms);
        assert_eq!(evidence.records.len(), 8, "a job without a name");
        evidence.ended(1, send(0..JOB_TARGETS_MAX as u64 + 1), &job("large"), START.unix_ms);
        assert_eq!(evidence.job_targets, 0);
    }

    #[test]
    fn a_read_back_proves_what_it_says() {
        let mut evidence = Evidence::default();
        let asked = || Asked { what: What::Check, versions: (0..4).map(|target| (Target(target), 9)).collect() };
        let reports = vec![(Target(1), Report::Drift), (Target(2), Report::Absent), (Target(3), Report::Reached(Level::Applied))];
        evidence.ended(1, asked(), &Ended { reports, ..ended(Outcome::Ok(Level::Verified)) }, START.unix_ms);
        assert_eq!(
            evidence.records.iter().map(|record| (record.target, record.level)).collect::<Vec<_>>(),
            [(0, Reached::Verified), (2, Reached::Absent), (3, Reached::Applied)]
        );
        evidence.ended(1, asked(), &ended(Outcome::Rejected { is_retryable: true, code: 1 }), START.unix_ms);
        evidence.ended(1, Asked::default(), &ended(Outcome::Ok(Level::Verified)), START.unix_ms);
        assert_eq!(evidence.records.len(), 3);
    }
}
