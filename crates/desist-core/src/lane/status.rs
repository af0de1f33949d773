//! What a lane says about itself, and its alarms.

use serde::{Deserialize, Serialize};

use super::{Change, Failure, Lane, Now, Observed};

/// Time between two looks at all deadlines, in milliseconds: they are days, and a look reads all that is
/// unresolved.
const DEADLINES_EVERY_MS: u64 = 60_000;
/// A pause that is longer than this was probably forgotten, in milliseconds.
const PAUSE_MS: i64 = 3_600_000;

/// What needs a person. Each stands until its cause is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// Half of the time until somebody's deadline is over.
    Deadline50,
    /// Three quarters are.
    Deadline75,
    /// Nine tenths are.
    Deadline90,
    /// A deadline is over.
    Late,
    /// A patrol found another state than was sent, and it is not put right yet.
    Drift,
    /// There are dead letters.
    DeadLetter,
    /// Paused for more than an hour.
    Paused,
    /// Too much is parked to go on.
    Stopped,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does what comes.
    Running,
    /// The first scan of present state is not over.
    CatchingUp,
    /// The destination failed.
    BackingOff {
        /// When it is tried again, in Unix milliseconds.
        until_unix_ms: i64,
    },
    /// The destination does not accept the credentials.
    WaitingForCredentials {
        /// When it is tried again, in Unix milliseconds.
        until_unix_ms: i64,
    },
    /// An operator stopped it.
    Paused,
    /// Too much is parked; what is parked is tried, nothing else.
    StoppedTooManyParked,
    /// It ends what is under way.
    Draining,
    /// It has no lease, or lost it.
    WithoutLease,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |unix_ms: &i64| jiff::Timestamp::from_second(unix_ms.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        match self {
            Self::Running => f.write_str("running"),
            Self::CatchingUp => f.write_str("catching up"),
            Self::BackingOff { until_unix_ms } => write!(f, "backing off until {}", seconds(until_unix_ms)),
            Self::WaitingForCredentials { until_unix_ms } => write!(f, "waiting for credentials, tries at {}", seconds(until_unix_ms)),
            Self::Paused => f.write_str("paused"),
            Self::StoppedTooManyParked => f.write_str("stopped: too many parked"),
            Self::Draining => f.write_str("draining"),
            Self::WithoutLease => f.write_str("without lease"),
        }
    }
}

/// A lane in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Every change up to this one is resolved.
    pub cursor: u64,
    /// Targets that are tried again later.
    pub parked: usize,
    /// Dead letters.
    pub dead: usize,
    /// Targets that were found unreachable since the start; the exact number comes from the rule that renders.
    pub unreachable_seen: u64,
    /// Targets that the destination said it does not have, when it was told or looked at last.
    pub absent: u64,
    /// Calls in flight.
    pub in_flight: usize,
    /// Unresolved targets in memory; the feed may have more.
    pub unresolved: usize,
    /// Targets that wait for a job.
    pub pending: usize,
    /// Pages that patrols could not read.
    pub unread: u64,
    /// When a message last arrived, in Unix milliseconds.
    pub last_success_unix_ms: Option<i64>,
    /// The earliest deadline of whatever is not delivered, in Unix milliseconds.
    pub oldest_due_unix_ms: Option<i64>,
    /// When it acts next by itself, in Unix milliseconds.
    pub next_unix_ms: Option<i64>,
}

impl Lane {
    /// The lane in numbers. Reads all that is unresolved.
    pub fn status(&mut self, now: Now) -> Status {
        Status {
            state: self.state(now),
            cursor: self.books.head.cursor,
            parked: self.books.parked.len() - self.dead,
            dead: self.dead,
            unreachable_seen: self.unreachable,
            absent: self.books.levels.count(Observed::Absent),
            in_flight: self.calls.len(),
            unresolved: self.work.len(),
            pending: self.pending.len(),
            unread: self.unread,
            last_success_unix_ms: self.last_success_unix_ms,
            oldest_due_unix_ms: self.deadlines().map(|(_, due)| due).min(),
            next_unix_ms: self.next_ms(now).map(|at| now.unix_at(at)),
        }
    }

    fn state(&self, now: Now) -> State {
        if self.is_lost || self.lease.is_none_or(|(_, until)| until <= now.mono_ms) {
            return State::WithoutLease;
        }
        if self.draining {
            return State::Draining;
        }
        if self.books.head.paused_unix_ms.is_some() {
            return State::Paused;
        }
        if let Some(breaker) = self.breaker {
            let until_unix_ms = now.unix_at(breaker.until_ms);
            return match breaker.failure {
                Failure::Credentials => State::WaitingForCredentials { until_unix_ms },
                _ => State::BackingOff { until_unix_ms },
            };
        }
        match (self.is_stopped(), !self.books.head.scanned) {
            (true, _) => State::StoppedTooManyParked,
            (_, true) => State::CatchingUp,
            _ => State::Running,
        }
    }

    /// Beginning and end of each deadline that runs: of what is queued, under way, parked, dead or in a job.
    fn deadlines<'a>(&'a self) -> impl Iterator<Item = (i64, i64)> + use<'a> {
        let of = |change: &Change| (change.since_unix_ms, change.due_unix_ms);
        let delivered = |kind| matches!(kind, super::Kind::Patrol(_));
        let working = self.work.values().filter(move |work| !delivered(work.kind)).map(move |work| of(&work.change));
        let parked = self.books.parked.values().map(|parked| (parked.since_unix_ms, parked.due_unix_ms));
        // A later message has the deadline of one that it stands for.
        let waiting = |job: &'a super::Job| job.targets.iter().filter(|(target, _)| !job.superseded.contains(target));
        let jobs = self.books.jobs.values().flat_map(waiting).map(|(_, waiting)| (waiting.since_unix_ms, waiting.due_unix_ms));
        working.chain(parked).chain(jobs).chain(self.beyond).filter(|(since, due)| due > since)
    }

    pub(super) fn alarms(&mut self, now: Now) {
        if now.mono_ms >= self.deadlines_at_ms {
            self.deadlines_at_ms = now.mono_ms + DEADLINES_EVERY_MS;
            let passed = |(since, due): (i64, i64)| {
                let share = i128::from(now.unix_ms.saturating_sub(since)) * 100 / i128::from(due - since);
                share.clamp(0, 101) as u64
            };
            // At 100 the deadline is not over yet; a day late and a year late are the same here.
            self.overdue_share = self.deadlines().map(passed).max().unwrap_or(0);
        }
        let is_paused_long = self.books.head.paused_unix_ms.is_some_and(|since| now.unix_ms - since > PAUSE_MS);
        let causes = [
            (Alarm::Deadline50, self.overdue_share >= 50),
            (Alarm::Deadline75, self.overdue_share >= 75),
            (Alarm::Deadline90, self.overdue_share >= 90),
            (Alarm::Late, self.overdue_share > 100),
            (Alarm::Drift, self.drifted > 0),
            (Alarm::DeadLetter, self.dead > 0),
            (Alarm::Paused, is_paused_long),
            (Alarm::Stopped, self.is_stopped()),
        ];
        for (alarm, is_there) in causes {
            // What was raised is stored before it is cleared: else a cause that ends soon would leave no trace.
            let may_clear = self.alarms_stored.contains(&alarm);
            let alarms = &mut self.books.head.alarms;
            self.dirty.head |= if is_there { alarms.insert(alarm) } else { may_clear && alarms.remove(&alarm) };
        }
    }
}
