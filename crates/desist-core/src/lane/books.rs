//! What a lane keeps on disk, and what follows from it about a target.
//!
//! The books are a cursor and exceptions from it: nothing is stored about a target whose messages simply
//! arrive. Whoever can read the books (another node, the status page) knows the level of every target.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rate::SavedWindow;
use super::{Alarm, Failure, LevelPage, Levels, Observed, Target};

/// How much is known about what a destination did with the present state of a target. Each is what was
/// observed, never what is hoped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It will be sent.
    #[default]
    Queued,
    /// A request was sent and not accepted, or no longer holds.
    Sent,
    /// The destination took it.
    Accepted,
    /// The destination said that it is done.
    Applied,
    /// It was read back.
    Verified,
}

/// What the present state of a target needs at a destination: the answer of the same rule that renders
/// messages. It is a function of present state and configuration, so the books need no row for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// A message.
    Message,
    /// No message, as for somebody who never opted out.
    Nothing,
    /// A message, but the target has no identifier that this destination knows.
    Unreachable,
}

/// The assurance about a target at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assurance {
    /// There is nothing to enforce; this is not "enforced".
    NotNeeded,
    /// The destination cannot be told about this target; neither enforced nor late.
    Unreachable,
    /// The destination said that it does not have the target. There is nothing to enforce there now, and it may have the target tomorrow,
    /// or under another name: neither enforced nor late.
    Absent,
    /// What was observed.
    At(Level),
}

/// Why a target is parked. Codes are the connector's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The answer named the target.
    Item(u16),
    /// A call with this target alone was refused.
    Rejected(u16),
    /// The destination fails for this target, while others pass.
    FailsAlone,
    /// A message about this target alone is too large.
    TooLarge,
    /// Its job failed. (If the job had other targets too, this one may not be why: it is sent again in a smaller one.)
    Job(u16),
    /// Its job did not end in time.
    GaveUp,
    /// A job about an earlier state ended after it was sent, and may have undone it.
    Undone,
    /// A patrol found another state there than was sent.
    Drift,
    /// Nobody refused it: it is an *allow* that may not be sent while a job about an earlier state runs.
    Waiting,
}

/// A target that is an exception from the cursor: refused, to be tried again or a dead letter, or an *allow* that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The change at which it was parked; a later one revives it.
    pub seq: u64,
    /// When its deadline began to run, in Unix milliseconds.
    pub since_unix_ms: i64,
    /// Its legal deadline in Unix milliseconds; not after `since_unix_ms`: it has none.
    pub due_unix_ms: i64,
    /// Who goes first among equal deadlines; lower first.
    pub rank: u8,
    /// Attempts so far.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Reason,
    /// When it is tried again, in Unix milliseconds; `None`: a dead letter.
    pub retry_unix_ms: Option<i64>,
    /// Whether a request about it was sent at all.
    pub sent: bool,
    /// Whether a patrol found it changed, until it is put right.
    pub drift: bool,
}

/// A job at the destination that will say later what became of its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The destination's name for it.
    pub handle: String,
    /// Its targets; of a job that failed those that are not parked yet.
    pub targets: BTreeMap<Target, Waiting>,
    /// Those about which something later was sent since.
    pub superseded: BTreeSet<Target>,
    /// When nobody believes in it any more, in Unix milliseconds.
    pub give_up_unix_ms: i64,
    /// Why it failed. It is not asked after any more, and here until each of its targets is parked: too many
    /// others were.
    pub failed: Option<Reason>,
}

/// A target of a job: what it was before, should the job fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The change that was sent; 0: none of its own.
    pub seq: u64,
    /// When its deadline began to run, in Unix milliseconds.
    pub since_unix_ms: i64,
    /// Its legal deadline in Unix milliseconds; not after `since_unix_ms`: it has none.
    pub due_unix_ms: i64,
    /// Who goes first among equal deadlines; lower first.
    pub rank: u8,
    /// Attempts that failed before.
    pub attempts: u32,
}

/// An open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBreaker {
    /// When the destination is tried again, in Unix milliseconds.
    pub until_unix_ms: i64,
    /// Failures in a row.
    pub fails: u32,
    /// The last one.
    pub failure: Failure,
}

/// Where a patrol is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPatrol {
    /// Everything up to this change was looked at in this round.
    pub upto: u64,
    /// When the round began, in Unix milliseconds.
    pub began_unix_ms: i64,
}

/// The part of the books that is written whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How often the books were written; 0: this lane never sent anything.
    pub saves: u64,
    /// Digest of what decides which messages a target needs; another one means a new scan.
    pub generation: u64,
    /// Every change up to this one is resolved: delivered, not needed, unreachable, or an exception below.
    pub cursor: u64,
    /// Runs of resolved changes beyond the cursor, both ends included.
    pub ahead: Vec<(u64, u64)>,
    /// Whether the first scan of present state is over.
    pub scanned: bool,
    /// What every resolved target reached that is no exception.
    pub floor: Level,
    /// Since when an operator has it paused, in Unix milliseconds.
    pub paused_unix_ms: Option<i64>,
    /// The breaker, if it is open.
    pub breaker: Option<SavedBreaker>,
    /// Patrols, in the order of the configuration.
    pub patrols: Vec<SavedPatrol>,
    /// Counts of long rate windows.
    pub rates: Vec<SavedWindow>,
    /// Alarms that stand.
    pub alarms: BTreeSet<Alarm>,
    /// The number of the last job.
    pub jobs: u64,
}

/// The books of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Cursor, breaker, pause, counts.
    pub head: Head,
    /// Parked targets and dead letters.
    pub parked: BTreeMap<Target, Parked>,
    /// Jobs that are not over, by number.
    pub jobs: BTreeMap<u64, Job>,
    /// Targets about which an *allow* may be under way.
    pub allows: BTreeSet<Target>,
    /// Targets that reached less than the floor, or are not there.
    pub levels: Levels,
}

/// What one store step writes: the head whole, and the exceptions that changed (`None`: it is gone).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Whose lease this is; a store refuses any but the present one.
    pub epoch: u64,
    /// The new head.
    pub head: Head,
    /// Parked targets that changed.
    pub parked: Vec<(Target, Option<Parked>)>,
    /// Jobs that changed.
    pub jobs: Vec<(u64, Option<Job>)>,
    /// Whether an *allow* may be under way.
    pub allows: Vec<(Target, bool)>,
    /// Pages of [`Saved::levels`] that changed.
    pub levels: Vec<(u64, Option<LevelPage>)>,
    /// The scan of present state is over, up to this change.
    pub caught_up: Option<u64>,
}

/// What a store step says for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The scan of present state is over, up to this change.
    CaughtUp(u64),
    /// Something needs a person.
    AlarmRaised(Alarm),
    /// Its cause is gone.
    AlarmCleared(Alarm),
}

impl Assurance {
    /// What is known where there are no books yet.
    pub fn without_books(need: Need) -> Self {
        match need {
            Need::Nothing => Self::NotNeeded,
            Need::Unreachable => Self::Unreachable,
            Need::Message => Self::At(Level::Queued),
        }
    }
}

impl Reason {
    /// The connector's code.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Item(code) | Self::Rejected(code) | Self::Job(code) => Some(code),
            _ => None,
        }
    }
}

impl Saved {
    /// Whether any of so many patrols has a round under way for more than `every_ms`: what it is to say again was not said in that time.
    pub fn is_overdue(&self, patrols: usize, every_ms: u64, now_unix_ms: i64) -> bool {
        let is_late = |patrol: &SavedPatrol| now_unix_ms.saturating_sub(patrol.began_unix_ms) > every_ms.try_into().unwrap_or(i64::MAX);
        self.head.patrols.len() < patrols || self.head.patrols.iter().any(is_late)
    }

    /// The books after a store step, and what is new in them. The news are facts of the same store step, so each is
    /// there exactly once, even if the step is tried again or the driver dies after it.
    pub fn apply(&mut self, delta: Delta) -> Vec<News> {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: Vec<(K, Option<V>)>) {
            for (key, value) in changes {
                match value {
                    Some(value) => drop(map.insert(key, value)),
                    None => drop(map.remove(&key)),
                }
            }
        }
        let (old, new) = (&self.head, &delta.head);
        let is_scanned = old.scanned && old.generation == new.generation;
        let mut news: Vec<_> = delta.caught_up.filter(|_| !is_scanned).map(News::CaughtUp).into_iter().collect();
        news.extend(new.alarms.difference(&old.alarms).copied().map(News::AlarmRaised));
        news.extend(old.alarms.difference(&new.alarms).copied().map(News::AlarmCleared));
        self.head = delta.head;
        put(&mut self.parked, delta.parked);
        put(&mut self.jobs, delta.jobs);
        for (number, page) in delta.levels {
            self.levels.put(number, page);
        }
        for (target, is_under_way) in delta.allows {
            if is_under_way {
                self.allows.insert(target)
            } else {
                self.allows.remove(&target)
            };
        }
        news
    }

    /// Whether the change with this number is resolved, maybe as an exception.
    pub fn is_resolved(&self, seq: u64) -> bool {
        let after = self.head.ahead.partition_point(|(from, _)| *from <= seq);
        seq <= self.head.cursor || (after > 0 && seq <= self.head.ahead[after - 1].1)
    }

    /// What is known about the present state of a target, whose last change is `last_changed` and which
    /// needs what `need` says. Never more than was observed, and while an *allow* may be under way never more
    /// than [`Level::Sent`]: if present state is a *deny*, that *allow* is older and may undo it. (If present
    /// state is the *allow* itself, as in a job that runs, this says too little, which harms nobody.)
    pub fn level(&self, target: Target, last_changed: u64, need: Need) -> Assurance {
        match need {
            Need::Nothing => return Assurance::NotNeeded,
            Need::Unreachable => return Assurance::Unreachable,
            Need::Message => {}
        }
        if !self.is_resolved(last_changed) {
            return Assurance::At(Level::Queued);
        }
        if let Some(parked) = self.parked.get(&target) {
            // A message about an earlier state says nothing about this one.
            let is_present = parked.sent && parked.seq >= last_changed;
            return Assurance::At(if is_present { Level::Sent } else { Level::Queued });
        }
        let known = self.levels.get(target).unwrap_or(Observed::At(self.head.floor));
        let jobs = self.jobs.values().filter(|job| job.targets.contains_key(&target));
        // After a job that failed it will be said again.
        let most = jobs.map(|job| if job.failed.is_some() { Level::Sent } else { Level::Accepted }).min();
        let most = if self.allows.contains(&target) { Some(Level::Sent) } else { most };
        match (known, most) {
            (Observed::Absent, None) => Assurance::Absent,
            (Observed::Absent, Some(most)) => Assurance::At(most),
            (Observed::At(level), most) => Assurance::At(most.map_or(level, |most| level.min(most))),
        }
    }
}
