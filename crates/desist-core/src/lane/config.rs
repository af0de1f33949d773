//! What a lane has to know about its destination.

use super::Rate;
use super::books::Level;
use crate::limits::{
    ATTEMPTS_MAX, BATCH_ITEMS_MAX, CONCURRENCY_MAX, PATROLS_MAX, RATES_MAX, RETRY_DELAY_MS_MAX, WINDOW_LARGE_MAX, WINDOW_MAX, WINDOW_MIN,
};

/// How one destination is to be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Any number, another one for each lane: delays are derived from it.
    pub seed: u64,
    /// Digest of whatever decides which targets need a message and which can be reached (purposes, kinds of
    /// identifiers, operations). Another one means a new scan of present state.
    pub generation: u64,
    /// What every target reaches whose message simply arrives.
    pub floor: Level,
    /// Changes that it holds in memory behind its cursor if its calls carry few; a driver of many lanes gives each less.
    pub window: usize,
    /// Most targets in one call.
    pub batch_items: usize,
    /// How long the first of a batch waits for others, in milliseconds.
    pub linger_ms: u64,
    /// Most calls in flight.
    pub concurrency: usize,
    /// Never more calls than this, polls and patrols included.
    pub rates: Vec<Rate>,
    /// When a request is given up, in milliseconds; less than half of the lease.
    pub request_timeout_ms: u64,
    /// How long a lease lasts from its last renewal, in milliseconds.
    pub lease_ms: u64,
    /// Attempts before a target is a dead letter.
    pub attempts_max: u32,
    /// Longest delay between two attempts of a parked target, in milliseconds.
    pub retry_delay_ms: u64,
    /// Whether there is a call that only shows whether the destination works.
    pub probe: bool,
    /// How jobs are asked after.
    pub jobs: Jobs,
    /// Slow rounds over what was delivered.
    pub patrols: Vec<Patrol>,
}

/// How jobs at a destination are asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Time between two questions, in milliseconds.
    pub every_ms: u64,
    /// When a job that is not over has failed, in milliseconds.
    pub give_up_ms: u64,
}

/// A slow round over every target, since what was delivered does not always last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patrol {
    /// How.
    pub kind: PatrolKind,
    /// Time for one round, in milliseconds; longer if rate windows leave no room.
    pub period_ms: u64,
}

/// What a patrol does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatrolKind {
    /// Reads back, and sends again what differs.
    Read,
    /// Sends again: for destinations that cannot be read, and for effects that do not last (a removal from an
    /// audience, a deletion).
    Send,
}

/// Why a configuration cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The batch is empty or too large.
    #[error("a batch has 1 to {BATCH_ITEMS_MAX} targets")]
    Batch,
    /// No room for changes, or too much.
    #[error("a lane holds {WINDOW_MIN} to {WINDOW_MAX} changes in memory")]
    Window,
    /// No calls in flight, or too many.
    #[error("1 to {CONCURRENCY_MAX} calls may be in flight")]
    Concurrency,
    /// Too many rate windows.
    #[error("a destination has at most {RATES_MAX} rates")]
    Rates,
    /// A request could outlive the lease.
    #[error("the request time-out is above 0 and below half of the lease")]
    Timeout,
    /// No attempt, or too many.
    #[error("1 to {ATTEMPTS_MAX} attempts, at most {RETRY_DELAY_MS_MAX} ms apart")]
    Attempts,
    /// Too many patrols, or one without a time.
    #[error("at most {PATROLS_MAX} patrols, each with a period")]
    Patrols,
    /// Questions without a pause, or no time to be answered.
    #[error("jobs are asked after with a pause, and given up later than that")]
    Jobs,
}

impl Config {
    /// One target a call, one call at a time, no rates, no jobs, no patrols.
    pub fn plain(seed: u64) -> Self {
        Self {
            seed,
            generation: 0,
            floor: Level::Accepted,
            window: WINDOW_MAX,
            batch_items: 1,
            linger_ms: 0,
            concurrency: 1,
            rates: Vec::new(),
            request_timeout_ms: 10_000,
            lease_ms: 30_000,
            attempts_max: ATTEMPTS_MAX,
            retry_delay_ms: RETRY_DELAY_MS_MAX,
            probe: false,
            // As the slowest known: asked four times a day, given up after two weeks.
            jobs: Jobs { every_ms: 6 * 3_600_000, give_up_ms: 15 * 86_400_000 },
            patrols: Vec::new(),
        }
    }

    /// Whether it can be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_in = |least: u64, value: u64, most: u64| (least..=most).contains(&value);
        let rules = [
            (is_in(1, self.batch_items as u64, BATCH_ITEMS_MAX as u64), ConfigError::Batch),
            (is_in(WINDOW_MIN as u64, self.window as u64, WINDOW_MAX as u64), ConfigError::Window),
            (is_in(1, self.concurrency as u64, CONCURRENCY_MAX as u64), ConfigError::Concurrency),
            (self.rates.len() <= RATES_MAX, ConfigError::Rates),
            (self.request_timeout_ms > 0 && self.request_timeout_ms < self.lease_ms / 2, ConfigError::Timeout),
            (is_in(1, self.attempts_max.into(), ATTEMPTS_MAX.into()), ConfigError::Attempts),
            (is_in(1, self.retry_delay_ms, RETRY_DELAY_MS_MAX), ConfigError::Attempts),
            (self.patrols.len() <= PATROLS_MAX && self.patrols.iter().all(|patrol| patrol.period_ms > 0), ConfigError::Patrols),
            (self.jobs.every_ms > 0 && self.jobs.give_up_ms > self.jobs.every_ms, ConfigError::Jobs),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Changes that the lane holds behind its cursor: two rounds of all calls at least.
    pub(super) fn window(&self) -> usize {
        (2 * self.batch_items * self.concurrency).clamp(self.window, WINDOW_LARGE_MAX)
    }
}
