//! What a lane and its driver say to each other.

use serde::{Deserialize, Serialize};

use super::books::{Delta, Level};

/// Two clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970. It can be set, so it only dates what is stored.
    pub unix_ms: i64,
    /// Milliseconds of a clock that only goes forward, from any beginning.
    pub mono_ms: u64,
}

impl Now {
    pub(super) fn unix_at(self, mono_ms: u64) -> i64 {
        self.unix_ms + (mono_ms as i64 - self.mono_ms as i64)
    }

    /// A stored time by the monotonic clock, at most `wait_ms_max` from now: whatever happened to the clock.
    pub(super) fn mono_at(self, unix_ms: i64, wait_ms_max: u64) -> u64 {
        self.mono_ms + (unix_ms.saturating_sub(self.unix_ms).max(0) as u64).min(wait_ms_max)
    }
}

/// Whom or what a message is about: a subject or a bare identifier, by row number. A lane never looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Target(pub u64);

/// A call, numbered by its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call(pub u64);

/// The latest change of a target, with the earliest deadline that is not met yet: a target that changes again before it
/// was delivered has no more time than before. (Of what it holds itself a lane keeps the earlier deadline in any case; it
/// knows nothing of a change that the feed replaced before it was read.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the feed, from 1.
    pub seq: u64,
    /// What changed.
    pub target: Target,
    /// When that deadline began to run, in Unix milliseconds.
    pub since_unix_ms: i64,
    /// That legal deadline in Unix milliseconds; not after `since_unix_ms`: it has none.
    pub due_unix_ms: i64,
    /// Who goes first among equal deadlines, lower first: identifiers that strangers gave in public come last.
    pub rank: u8,
}

/// A part of the feed: changes in order of `seq`, each target once, at its latest change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The changes.
    pub changes: Vec<Change>,
    /// No other target has its latest change after the place that was asked for and up to here.
    pub upto: u64,
    /// Whether there was nothing after `upto`.
    pub is_end: bool,
}

/// How a destination fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection, or no TLS.
    Connect,
    /// It answered with an error of its own (500, 503...).
    Server,
    /// It asked for less (429).
    Throttled,
    /// It does not accept the credentials (401, 403), or there are none.
    Credentials,
    /// The request left and no answer came, or a gateway's (502, 504): it may take effect later.
    Ambiguous,
}

/// How a call ended. What it says counts for each target that no [`Report`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing left: no message was needed, or the time to start was over.
    NotSent,
    /// The destination took it, and this is what it says about each target. For [`Action::Check`]: each target
    /// is there as it was sent, and the level is what that proves. For [`Action::Poll`]: the job is done.
    Ok(Level),
    /// The destination took it and will say later. For [`Action::Send`] alone.
    Job(String),
    /// The job is not over. For [`Action::Poll`] alone.
    Pending,
    /// Some failed, and nobody says which: the batch is split. Of one target: it failed. For [`Action::Poll`]: the job is
    /// over, and those of its targets that no report names go out again in two halves.
    SomeFailed {
        /// Whether the same message may pass later.
        is_retryable: bool,
        /// The connector's code.
        code: u16,
    },
    /// The whole call was refused (another 4xx). For [`Action::Poll`]: the job failed, and its targets go out again as after
    /// [`Outcome::SomeFailed`].
    Rejected {
        /// Whether the same message may pass later.
        is_retryable: bool,
        /// The connector's code.
        code: u16,
    },
    /// More bytes than the destination takes, before or after sending (413).
    TooLarge,
    /// The destination failed.
    Failed {
        /// How.
        failure: Failure,
        /// How long it asked to wait, in milliseconds.
        retry_after_ms: Option<u64>,
    },
}

/// What happened to one target of a call, where it differs from the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Present state needs no message here; it was not sent.
    Nothing,
    /// There is no identifier that the destination knows; it was not sent.
    Unreachable,
    /// Present state is an *allow*, which may not be sent yet ([`Sending::may_allow`]); it was not sent.
    Held,
    /// It got this far.
    Reached(Level),
    /// The destination does not have the target.
    Absent,
    /// The destination had the same request before.
    Duplicate,
    /// A patrol found another state than was sent.
    Drift,
    /// The destination refused it.
    Failed {
        /// Whether the same message may pass later.
        is_retryable: bool,
        /// The connector's code.
        code: u16,
    },
}

/// Which dead letters to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// One target's.
    One(Target),
    /// Those that died at a change from the first to the second number.
    Range(u64, u64),
    /// All.
    All,
}

/// What a driver tells a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The feed may have more.
    Changed,
    /// The answer to [`Action::Fetch`].
    Fetched(Page),
    /// The answer to [`Action::Patrol`].
    Patrolled {
        /// Which patrol.
        patrol: usize,
        /// What it is to look at.
        page: Page,
    },
    /// A call ended: exactly once for each [`Action::Send`], [`Action::Check`], [`Action::Poll`] and [`Action::Probe`].
    Ended {
        /// Which.
        call: Call,
        /// When the request left by the monotonic clock, in milliseconds; `None`: it did not.
        started_ms: Option<u64>,
        /// How it ended.
        outcome: Outcome,
        /// Targets for which it ended differently.
        reports: Vec<(Target, Report)>,
    },
    /// [`Action::Save`] is durable.
    Stored,
    /// It is not, and the lane will ask again.
    NotStored,
    /// The lease was taken or renewed. Another epoch than before: somebody else may have had it.
    Lease {
        /// Its number, which each store step carries.
        epoch: u64,
        /// Its end by the monotonic clock, in milliseconds.
        until_mono_ms: u64,
    },
    /// The lease is somebody else's.
    LeaseLost,
    /// An operator stops it.
    Pause,
    /// An operator lets it go on.
    Resume,
    /// Send nothing more, end what is under way, store.
    Drain,
    /// There are other credentials, or an operator wants it tried now.
    TryNow,
    /// An operator wants dead letters tried again, as many as may be parked.
    Replay(Replay),
    /// Beginning and end of the earliest deadline of whatever is behind the feed's page that was read last, in Unix milliseconds: the
    /// alarms count it too.
    Beyond(Option<(i64, i64)>),
}

/// One target of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Whom to render.
    pub target: Target,
    /// Whether the message may be an *allow*; if not and it would be: [`Report::Held`].
    pub may_allow: bool,
}

/// What a driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the feed, and answer [`Input::Fetched`].
    Fetch {
        /// From the change after this one.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Read present state in the order of the feed for a patrol, and answer [`Input::Patrolled`].
    Patrol {
        /// Which patrol.
        patrol: usize,
        /// From the change after this one.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Render each target's present state and send it.
    Send {
        /// The call.
        call: Call,
        /// Its targets.
        targets: Vec<Sending>,
        /// Start before this time of the monotonic clock or not at all, in milliseconds.
        start_before_ms: u64,
    },
    /// Read back whether the targets are there as present state has them.
    Check {
        /// The call.
        call: Call,
        /// Its targets.
        targets: Vec<Target>,
        /// Start before this time of the monotonic clock or not at all, in milliseconds.
        start_before_ms: u64,
    },
    /// Ask what became of a job.
    Poll {
        /// The call.
        call: Call,
        /// The destination's name for the job.
        handle: String,
        /// Start before this time of the monotonic clock or not at all, in milliseconds.
        start_before_ms: u64,
    },
    /// Make the cheapest call that shows whether the destination works.
    Probe {
        /// The call.
        call: Call,
        /// Start before this time of the monotonic clock or not at all, in milliseconds.
        start_before_ms: u64,
    },
    /// Write this and the [`News`] of [`Saved::apply`] in one store step, and answer [`Input::Stored`] or [`Input::NotStored`].
    Save(Box<Delta>),
    /// So many dead letters are tried again.
    Replayed(usize),
    /// A drained lane has nothing under way and nothing to store.
    Drained,
}
