//! Lanes: each keeps one destination up to date with the present state of everybody.
//!
//! A lane delivers state, not events. The feed says *that* a target changed (at its latest change
//! only); what to say is rendered when the message is built, from present state. So a lane needs a cursor and
//! the exceptions from it, and whatever is doubtful (after a time-out, a crash, a take-over) is simply sent
//! again. [`Lane::step`] is a function of the lane, the time and one input; a driver does what the actions say.
//!
//! * [`Change`]s behind the cursor are resolved. Those in memory are the *window*.
//! * A failing *destination* opens the breaker. A failing *target* is parked, tried again and in the end a
//!   dead letter. Which of the two it is shows when the breaker half-opens: the failing targets go out
//!   together with another one, and if that passes the failing ones are halved until one fails alone.
//! * An *allow* is stored before it is sent ([`Report::Held`]), so that after any crash it is known about whom
//!   an old *allow* may still arrive; a *deny* sent in that time is sent again after it.
//! * A lane sends only under a lease that outlasts the request. A lane that lost its lease does nothing more:
//!   build another one from the books, which treats everything behind the cursor as doubtful.
//!
//! Targets are opaque. A destination that wants events rather than state gets a feed whose targets are
//! events: each changes once, its present state is the event, and all else stays as it is.

mod books;
mod breaker;
mod config;
mod io;
mod levels;
mod parked;
mod rate;
mod send;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::books::{Assurance, Delta, Head, Job, Level, Need, News, Parked, Reason, Saved, SavedBreaker, SavedPatrol, Waiting};
pub use self::config::{Config, ConfigError, Jobs, Patrol, PatrolKind};
pub use self::io::{Action, Call, Change, Failure, Input, Now, Outcome, Page, Replay, Report, Sending, Target};
pub use self::levels::{LevelPage, Levels, Observed};
pub use self::rate::{Limiter, Rate, RateError, SavedWindow};
pub use self::status::{Alarm, State, Status};
use crate::limits::{AHEAD_MAX, FETCH_MAX, RETRY_AFTER_MS_MAX};

/// Time between two stores of the books while nothing waits for them, in milliseconds. What a crash sends
/// again grows with it, what the books cost shrinks.
const SAVE_EVERY_MS: u64 = 1_000;
/// Time before a target is looked at again that waits for something without a time of its own, in
/// milliseconds: a job about an earlier message, room for one more *allow*, a lease.
const RECHECK_MS: u64 = 10_000;
/// The first delay of a parked target, in milliseconds; it doubles, up to [`RETRY_DELAY_MS_MAX`].
const RETRY_BASE_MS: u64 = 30_000;
/// The first delay of a breaker, and of a target that fails alone, in milliseconds; it doubles, up to
/// [`BREAKER_DELAY_MS_MAX`].
const BREAKER_BASE_MS: u64 = 1_000;

/// Where an unresolved target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the queue of its kind.
    Ready,
    /// Waits for a time of the monotonic clock.
    Later(u64),
    /// Waits until it is stored that an *allow* may be sent.
    Storing,
    /// In a group that is sent as one call.
    Group,
    /// In a call.
    Flight,
}

/// Why a target is unresolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It changed, or has to be said again.
    Fresh,
    /// It was parked and its time has come.
    Retry,
    /// A patrol looks at it.
    Patrol(usize),
}

/// Something to do for one target; there is one per target at most.
#[derive(Clone, Copy, Debug)]
struct Work {
    kind: Kind,
    place: Place,
    /// The latest known change, whether or not it is in the window.
    change: Change,
    attempts: u32,
    /// Whether a request about this change left.
    sent: bool,
    /// It changed while it was in a call.
    again: bool,
}

impl Work {
    /// The earliest deadline first, strangers last among equals, then in the order of the feed; whoever has no deadline
    /// comes last, except for what is said again: it has no change of its own, and the present time as its place.
    fn urgency(&self) -> Urgency {
        let Change { seq, target, since_unix_ms, due_unix_ms, rank } = self.change;
        let has_place = due_unix_ms > since_unix_ms || seq == 0;
        (if has_place { due_unix_ms } else { i64::MAX }, rank, seq, target)
    }
}

type Urgency = (i64, u8, u64, Target);

/// Targets that are sent as one call of their own: after a split, or because the destination failed for them.
#[derive(Clone, Debug, Default)]
struct Group {
    targets: Vec<Target>,
    /// The destination failed for it, and nobody passed since.
    unjudged: bool,
    /// It failed while others passed.
    suspect: bool,
    /// How often that was so with one target alone.
    alone: u32,
    tries: u32,
}

/// What a call is.
#[derive(Clone, Debug)]
enum Errand {
    Send,
    Check(usize),
    Poll(u64),
    Probe,
}

/// A call that has not ended.
#[derive(Clone, Debug)]
struct Flight {
    errand: Errand,
    targets: Vec<Target>,
    group: Option<Group>,
    /// Which of the two calls of a half-open breaker it is.
    trial: Option<usize>,
}

/// Time until which an earlier request about a target may take effect.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    until_ms: u64,
    /// The change that was known when it was sent; a message about a later one is said again after the doubt.
    seq: u64,
    redo: bool,
}

#[derive(Clone, Copy, Debug)]
struct Breaker {
    until_ms: u64,
    failure: Failure,
}

/// One patrol's round.
#[derive(Clone, Debug, Default)]
struct Round {
    /// Everything up to this change was looked at.
    upto: u64,
    began_ms: u64,
    fetching: bool,
    page_upto: u64,
    /// Targets of the present page that are not done.
    open: BTreeSet<Target>,
    /// Reading the page failed at least for some.
    failed: bool,
    tries: u32,
}

/// Keys of what changed in the books.
#[derive(Clone, Debug, Default)]
struct Dirty {
    head: bool,
    parked: BTreeSet<Target>,
    jobs: BTreeSet<u64>,
    allows: BTreeSet<Target>,
    levels: BTreeSet<u64>,
    caught_up: Option<u64>,
    /// Alarms as they are being stored.
    alarms: BTreeSet<Alarm>,
}

impl Dirty {
    fn any(&self) -> bool {
        self.head
            || self.caught_up.is_some()
            || !(self.parked.is_empty() && self.jobs.is_empty() && self.allows.is_empty() && self.levels.is_empty())
    }

    fn merge(&mut self, other: Self) {
        self.head |= other.head;
        self.parked.extend(other.parked);
        self.jobs.extend(other.jobs);
        self.allows.extend(other.allows);
        self.levels.extend(other.levels);
        self.caught_up = self.caught_up.or(other.caught_up);
    }
}

/// Keeps one destination up to date.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one lane, not states of one thing")]
pub struct Lane {
    config: Config,
    books: Saved,
    dirty: Dirty,
    saving: Option<Dirty>,
    save_at_ms: u64,
    save_failed: bool,
    /// Whether the books were stored in this life: nothing is sent before.
    stored: bool,
    lease: Option<(u64, u64)>,
    is_lost: bool,
    draining: bool,
    drained: bool,

    /// The window: changes behind the cursor, `None` once resolved.
    entries: BTreeMap<u64, Option<Target>>,
    /// Resolved before a restart, beyond the cursor.
    ahead: Vec<(u64, u64)>,
    fetched: u64,
    fetching: bool,
    more: bool,
    /// Where present state ended when the scan reached its end.
    scan_upto: Option<u64>,
    gaps: usize,

    work: BTreeMap<Target, Work>,
    fresh: BTreeSet<Urgency>,
    /// Since when the first of a batch waits for others.
    lingering_ms: Option<u64>,
    retries: BTreeSet<Urgency>,
    patrolling: BTreeSet<(usize, Target)>,
    later: BTreeSet<(u64, Target)>,
    storing: Vec<Target>,
    groups: BTreeMap<(u64, u64), Group>,
    next_group: u64,

    calls: BTreeMap<Call, Flight>,
    next_call: u64,
    turn: u64,
    batch: usize,
    full_batches: u32,
    limiter: Limiter,
    breaker: Option<Breaker>,
    fails: u32,
    trials: [bool; 2],

    doubts: BTreeMap<Target, Doubt>,
    doubts_by_end: VecDeque<(u64, Target)>,
    /// Before this nobody knows what an earlier life left under way.
    quiet_until_ms: u64,
    allows_stored: BTreeSet<Target>,

    parked_by_retry: BTreeSet<(u64, Target)>,
    retry_times: BTreeMap<Target, u64>,
    dead: usize,
    drifted: usize,
    polls: BTreeSet<(u64, u64)>,
    /// Jobs that failed, some of whose targets wait for room to be parked.
    failed_jobs: BTreeSet<u64>,
    pending: BTreeMap<Target, BTreeSet<u64>>,
    rounds: Vec<Round>,
    unread: u64,
    unreachable: u64,
    last_success_unix_ms: Option<i64>,
    deadlines_at_ms: u64,
    overdue_share: u64,
    /// Alarms that were stored last.
    alarms_stored: BTreeSet<Alarm>,
    /// The earliest deadline of what is not in the window.
    beyond: Option<(i64, i64)>,
}

impl Lane {
    /// A lane that goes on where the books are; with empty books it starts with a scan of present state. What an
    /// earlier life had under way is doubtful for one request time-out.
    pub fn restore(config: Config, books: Saved, now: Now) -> Result<Self, ConfigError> {
        config.check()?;
        let is_new = books.head.saves == 0;
        let limiter = Limiter::restore(&config.rates, (!is_new).then_some(&books.head.rates[..]), now);
        let quiet_until_ms = if is_new { now.mono_ms } else { now.mono_ms + config.request_timeout_ms };
        let mut lane = Self {
            stored: false,
            lease: None,
            is_lost: false,
            draining: false,
            drained: false,
            dirty: Dirty { head: true, ..Dirty::default() },
            saving: None,
            save_at_ms: now.mono_ms,
            save_failed: false,
            entries: BTreeMap::new(),
            ahead: Vec::new(),
            fetched: 0,
            fetching: false,
            more: true,
            scan_upto: None,
            gaps: 0,
            work: BTreeMap::new(),
            fresh: BTreeSet::new(),
            lingering_ms: None,
            retries: BTreeSet::new(),
            patrolling: BTreeSet::new(),
            later: BTreeSet::new(),
            storing: Vec::new(),
            groups: BTreeMap::new(),
            next_group: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            turn: 0,
            batch: config.batch_items,
            full_batches: 0,
            limiter,
            breaker: None,
            fails: 0,
            trials: [false; 2],
            doubts: BTreeMap::new(),
            doubts_by_end: VecDeque::new(),
            quiet_until_ms,
            allows_stored: BTreeSet::new(),
            parked_by_retry: BTreeSet::new(),
            retry_times: BTreeMap::new(),
            dead: 0,
            drifted: 0,
            polls: BTreeSet::new(),
            failed_jobs: BTreeSet::new(),
            pending: BTreeMap::new(),
            rounds: Vec::new(),
            unread: 0,
            unreachable: 0,
            last_success_unix_ms: None,
            deadlines_at_ms: now.mono_ms,
            overdue_share: 0,
            alarms_stored: books.head.alarms.clone(),
            beyond: None,
            books,
            config,
        };
        lane.take_over(now, is_new);
        Ok(lane)
    }

    /// Fills memory from the books.
    fn take_over(&mut self, now: Now, is_new: bool) {
        let head = &mut self.books.head;
        if is_new || head.generation != self.config.generation {
            // Other messages may be needed than the ones that were sent: look at everybody.
            let (saves, alarms, jobs, rates) = (head.saves, std::mem::take(&mut head.alarms), head.jobs, std::mem::take(&mut head.rates));
            let paused_unix_ms = head.paused_unix_ms;
            let (generation, floor) = (self.config.generation, self.config.floor);
            *head = Head { saves, generation, floor, paused_unix_ms, rates, alarms, jobs, ..Head::default() };
            self.dirty.levels.extend(self.books.levels.clear());
        }
        let head = &self.books.head;
        self.ahead.clone_from(&head.ahead);
        self.fetched = head.cursor;
        if let Some(open) = head.breaker {
            let until_ms = now.mono_at(open.until_unix_ms, RETRY_AFTER_MS_MAX);
            (self.breaker, self.fails) = (Some(Breaker { until_ms, failure: open.failure }), open.fails);
        }
        for (at, patrol) in self.config.patrols.iter().enumerate() {
            let saved = head.patrols.get(at).copied().unwrap_or_default();
            let passed = now.unix_ms.saturating_sub(saved.began_unix_ms).clamp(0, patrol.period_ms as i64) as u64;
            let passed = if head.patrols.len() > at { passed } else { 0 };
            self.rounds.push(Round { upto: saved.upto, began_ms: now.mono_ms.saturating_sub(passed), ..Round::default() });
        }
        let parked: Vec<_> = self.books.parked.keys().copied().collect();
        for target in parked {
            self.index_parked(now, target);
        }
        for (number, job) in &self.books.jobs {
            if job.failed.is_some() {
                self.failed_jobs.insert(*number);
            } else {
                self.polls.insert((now.mono_ms, *number));
            }
            for target in job.targets.keys() {
                self.pending.entry(*target).or_default().insert(*number);
            }
        }
        self.allows_stored.clone_from(&self.books.allows);
        for target in self.books.allows.clone() {
            // It may arrive late, and a message about a later state may have been sent meanwhile.
            self.doubts.insert(target, Doubt { until_ms: self.quiet_until_ms, seq: 0, redo: true });
            self.doubts_by_end.push_back((self.quiet_until_ms, target));
        }
    }

    /// What the lane would store now: for the level of a target and for lists.
    pub fn books(&self) -> &Saved {
        &self.books
    }

    /// Alarms that stand by what was stored.
    pub fn alarms_stored(&self) -> &BTreeSet<Alarm> {
        &self.alarms_stored
    }

    /// The change up to which the feed was read.
    pub fn read_upto(&self) -> u64 {
        self.fetched
    }

    /// Whether a step of the books was asked for and its end is not known yet.
    pub fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    /// Takes one input, and appends what is to be done. Call it again at [`Lane::next_ms`] at the latest.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        if self.is_lost {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Changed => self.more = true,
            Input::Fetched(page) => self.fetched(now, page),
            Input::Patrolled { patrol, page } => self.patrolled(now, patrol, page),
            Input::Ended { call, started_ms, outcome, reports } => self.ended(now, call, started_ms, outcome, &reports),
            Input::Stored => self.saved(now, true),
            Input::NotStored => self.saved(now, false),
            Input::Lease { epoch, until_mono_ms } => match self.lease {
                Some((mine, _)) if mine != epoch => self.is_lost = true,
                _ => self.lease = Some((epoch, until_mono_ms)),
            },
            Input::LeaseLost => self.is_lost = true,
            Input::Pause => {
                self.books.head.paused_unix_ms.get_or_insert(now.unix_ms);
                (self.dirty.head, self.save_at_ms) = (true, now.mono_ms);
            }
            Input::Resume => {
                self.books.head.paused_unix_ms = None;
                (self.dirty.head, self.save_at_ms) = (true, now.mono_ms);
            }
            Input::Drain => self.draining = true,
            Input::TryNow => {
                if let Some(breaker) = &mut self.breaker {
                    breaker.until_ms = now.mono_ms;
                }
                let groups = std::mem::take(&mut self.groups);
                self.groups = groups.into_iter().map(|((_, number), group)| ((now.mono_ms, number), group)).collect();
            }
            Input::Replay(which) => out.push(Action::Replayed(self.replay(now, which))),
            Input::Beyond(deadline) => {
                self.beyond = deadline;
                self.deadlines_at_ms = now.mono_ms;
            }
        }
        if self.is_lost {
            return;
        }
        self.wake(now);
        self.advance();
        self.fetch(out);
        self.send(now, out);
        self.round(now, out);
        self.alarms(now);
        self.save(now, out);
        if self.draining && !self.drained && self.calls.is_empty() && !self.dirty.any() && self.saving.is_none() {
            self.drained = true;
            out.push(Action::Drained);
        }
    }

    /// When to call [`Lane::step`] again if nothing happens before, by the monotonic clock.
    pub fn next_ms(&mut self, now: Now) -> Option<u64> {
        if self.is_lost {
            return None;
        }
        let breaker = self.breaker.map(|breaker| breaker.until_ms);
        let rate = self.limiter.ready_at(now.mono_ms, false);
        let times = [
            (self.dirty.any() && self.saving.is_none()).then_some(self.save_at_ms),
            self.later.first().map(|(at, _)| *at),
            self.parked_by_retry.first().map(|(at, _)| *at),
            self.groups.first_key_value().map(|((at, _), _)| *at),
            self.polls.first().map(|(at, _)| *at),
            self.doubts_by_end.front().map(|(at, _)| *at),
            self.lingering_ms.map(|since| since + self.config.linger_ms),
            Some(self.deadlines_at_ms),
            breaker,
            rate,
        ];
        let half = if self.patrolling.is_empty() { None } else { self.limiter.ready_at(now.mono_ms, true) };
        let rounds = (0..self.rounds.len()).filter_map(|patrol| self.round_at(patrol));
        times.into_iter().flatten().chain(rounds).chain(half).filter(|at| *at > now.mono_ms).min()
    }

    // The feed.

    fn fetch(&mut self, out: &mut Vec<Action>) {
        let window = self.config.window();
        let room = window.saturating_sub(self.entries.len());
        // One read for many, not one for each that is resolved; and not for so many that calls wait for it.
        let is_worth_it = room > window / 32;
        if self.fetching || !self.more || !is_worth_it || self.draining || !self.stored {
            return;
        }
        self.fetching = true;
        // What changes while the page is read is seen by the next one.
        self.more = false;
        out.push(Action::Fetch { after: self.fetched, limit: room.min(FETCH_MAX) });
    }

    fn fetched(&mut self, now: Now, page: Page) {
        self.fetching = false;
        self.more |= !page.is_end;
        let fetched = self.fetched;
        for change in page.changes.into_iter().filter(|change| change.seq > fetched) {
            self.changed(now, change);
        }
        self.fetched = self.fetched.max(page.upto);
        if page.is_end && !self.books.head.scanned {
            self.scan_upto.get_or_insert(self.fetched);
        }
    }

    fn changed(&mut self, now: Now, mut change: Change) {
        let target = change.target;
        let after = self.ahead.partition_point(|(from, _)| *from <= change.seq);
        if after > 0 && change.seq <= self.ahead[after - 1].1 {
            self.entries.insert(change.seq, None);
            return;
        }
        self.entries.insert(change.seq, Some(target));
        // Present state wins, but an earlier deadline still runs.
        if let Some(parked) = self.unpark(target) {
            keep_earlier(&mut change, parked.since_unix_ms, parked.due_unix_ms);
        }
        for number in self.pending.get(&target).into_iter().flatten() {
            // What is not said to be done may still fail.
            if let Some(job) = self.books.jobs.get(number).filter(|job| !job.superseded.contains(&target))
                && let Some(waiting) = job.targets.get(&target)
            {
                keep_earlier(&mut change, waiting.since_unix_ms, waiting.due_unix_ms);
            }
        }
        let Some(work) = self.work.get(&target).copied() else {
            self.add(now, Work { kind: Kind::Fresh, place: Place::Ready, change, attempts: 0, sent: false, again: false });
            return;
        };
        if work.change.seq != change.seq {
            // The later change stands for this one.
            self.close(work.change.seq);
        }
        if !matches!(work.kind, Kind::Patrol(_)) {
            keep_earlier(&mut change, work.change.since_unix_ms, work.change.due_unix_ms);
        }
        self.leave_rounds(target);
        match work.place {
            Place::Flight => {
                let again = Work { again: true, sent: false, kind: Kind::Fresh, change, ..work };
                self.work.insert(target, again);
            }
            Place::Group => {
                self.work.insert(target, Work { kind: Kind::Fresh, change, attempts: 0, sent: false, ..work });
            }
            Place::Ready | Place::Later(_) | Place::Storing => {
                self.unqueue(target);
                self.add(now, Work { kind: Kind::Fresh, place: Place::Ready, change, attempts: 0, sent: false, again: false });
            }
        }
    }

    /// The change is resolved, or another one stands for it.
    fn close(&mut self, seq: u64) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            *entry = None;
            self.dirty.head = true;
        }
    }

    /// Moves the cursor over what is resolved.
    fn advance(&mut self) {
        while let Some(entry) = self.entries.first_entry()
            && entry.get().is_none()
        {
            entry.remove();
        }
        let cursor = self.entries.first_key_value().map_or(self.fetched, |(seq, _)| seq - 1);
        if cursor > self.books.head.cursor {
            self.books.head.cursor = cursor;
            self.dirty.head = true;
            self.ahead.retain(|(_, to)| *to > cursor);
        }
        if self.scan_upto.is_some_and(|upto| cursor >= upto) {
            self.dirty.caught_up = self.scan_upto.take();
            self.books.head.scanned = true;
        }
    }

    // Queues.

    fn add(&mut self, now: Now, work: Work) {
        let target = work.change.target;
        match work.place {
            Place::Ready => {
                match work.kind {
                    Kind::Fresh => drop(self.fresh.insert(work.urgency())),
                    Kind::Retry => drop(self.retries.insert(work.urgency())),
                    Kind::Patrol(patrol) => drop(self.patrolling.insert((patrol, target))),
                }
                if work.kind == Kind::Fresh {
                    self.lingering_ms.get_or_insert(now.mono_ms);
                }
            }
            Place::Later(at) => drop(self.later.insert((at, target))),
            Place::Storing => self.storing.push(target),
            Place::Group | Place::Flight => {}
        }
        self.work.insert(target, work);
    }

    fn unqueue(&mut self, target: Target) {
        let Some(work) = self.work.get(&target) else { return };
        match (work.place, work.kind) {
            (Place::Ready, Kind::Fresh) => drop(self.fresh.remove(&work.urgency())),
            (Place::Ready, Kind::Retry) => drop(self.retries.remove(&work.urgency())),
            (Place::Ready, Kind::Patrol(patrol)) => drop(self.patrolling.remove(&(patrol, target))),
            (Place::Later(at), _) => drop(self.later.remove(&(at, target))),
            (Place::Storing, _) => self.storing.retain(|one| *one != target),
            (Place::Group | Place::Flight, _) => {}
        }
    }

    fn put(&mut self, now: Now, target: Target, place: Place) {
        self.unqueue(target);
        if let Some(work) = self.work.get(&target).copied() {
            self.add(now, Work { place, ..work });
        }
    }

    /// Moves whatever waited for a time that has come.
    fn wake(&mut self, now: Now) {
        self.settle(now);
        while let Some(&(at, target)) = self.later.first()
            && at <= now.mono_ms
        {
            self.put(now, target, Place::Ready);
        }
        while let Some(&(at, target)) = self.parked_by_retry.first()
            && at <= now.mono_ms
        {
            self.parked_by_retry.pop_first();
            let parked = self.books.parked[&target];
            let Parked { seq, since_unix_ms, due_unix_ms, rank, attempts, sent, .. } = parked;
            let change = Change { seq, target, since_unix_ms, due_unix_ms, rank };
            if !self.work.contains_key(&target) {
                self.add(now, Work { kind: Kind::Retry, place: Place::Ready, change, attempts, sent, again: false });
            }
        }
        while let Some(&(until_ms, target)) = self.doubts_by_end.front()
            && until_ms <= now.mono_ms
        {
            self.doubts_by_end.pop_front();
            // A later doubt about the same target has its own place in the queue.
            if let Some(doubt) = self.doubts.get(&target).copied()
                && doubt.until_ms <= now.mono_ms
            {
                self.doubts.remove(&target);
                self.certain(now, target, doubt.redo);
            }
        }
    }

    /// Nothing earlier about the target can take effect any more; what was sent meanwhile is said again.
    fn certain(&mut self, now: Now, target: Target, redo: bool) {
        if self.pending.contains_key(&target) {
            // The end of the job decides.
            if redo {
                self.supersede(target);
            }
        } else if let Some(work) = self.work.get_mut(&target) {
            if redo && work.place == Place::Flight {
                work.again = true;
            } else if redo && matches!(work.kind, Kind::Patrol(_)) {
                // A patrol may only read.
                self.unqueue(target);
                self.work.remove(&target);
                self.leave_rounds(target);
                self.say_again(now, target);
            }
        } else if redo {
            self.say_again(now, target);
        } else {
            self.allow_is_over(target);
        }
    }

    fn say_again(&mut self, now: Now, target: Target) {
        if self.books.parked.contains_key(&target) {
            // Its own attempts say it.
            return;
        }
        // The present time as a deadline that does not run: it goes first, and no alarm counts it.
        let change = Change { seq: 0, target, since_unix_ms: now.unix_ms, due_unix_ms: now.unix_ms, rank: 0 };
        self.add(now, Work { kind: Kind::Fresh, place: Place::Ready, change, attempts: 0, sent: false, again: false });
    }

    fn allow_is_over(&mut self, target: Target) {
        if self.books.allows.remove(&target) {
            self.allows_stored.remove(&target);
            self.dirty.allows.insert(target);
        }
    }

    // The books.

    fn save(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some((epoch, _)) = self.lease else { return };
        // A store that just failed is not asked again at once.
        let is_urgent = !self.save_failed && (self.limiter.needs_save() || self.draining || !self.stored);
        let is_due = now.mono_ms >= self.save_at_ms || is_urgent;
        if self.saving.is_some() || !is_due || !(self.dirty.any() || self.limiter.needs_save() && self.has_work()) {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.alarms.clone_from(&self.books.head.alarms);
        self.fill_head(now);
        let books = &self.books;
        out.push(Action::Save(Box::new(Delta {
            epoch,
            head: books.head.clone(),
            parked: dirty.parked.iter().map(|target| (*target, books.parked.get(target).copied())).collect(),
            jobs: dirty.jobs.iter().map(|number| (*number, books.jobs.get(number).cloned())).collect(),
            allows: dirty.allows.iter().map(|target| (*target, books.allows.contains(target))).collect(),
            levels: dirty.levels.iter().map(|number| (*number, books.levels.page(*number).cloned())).collect(),
            caught_up: dirty.caught_up,
        })));
        self.saving = Some(dirty);
        self.save_at_ms = now.mono_ms + SAVE_EVERY_MS;
    }

    fn fill_head(&mut self, now: Now) {
        let mut ahead = Vec::new();
        let mut run: Option<(u64, u64)> = None;
        for (seq, entry) in &self.entries {
            run = match (entry, run) {
                (None, Some((from, _))) => Some((from, *seq)),
                (None, None) => Some((*seq, *seq)),
                (Some(_), run) => {
                    ahead.extend(run);
                    None
                }
            };
        }
        ahead.extend(run);
        // What an earlier life resolved and was not read again yet.
        ahead.extend(self.ahead.iter().map(|(from, to)| ((*from).max(self.fetched + 1), *to)).filter(|(from, to)| from <= to));
        self.gaps = ahead.len();
        // What does not fit is sent again after a crash.
        ahead.truncate(AHEAD_MAX);
        let head = &mut self.books.head;
        head.ahead = ahead;
        head.saves += 1;
        head.rates = self.limiter.save(now);
        head.breaker = self.breaker.map(|Breaker { until_ms, failure }| SavedBreaker {
            until_unix_ms: now.unix_at(until_ms),
            fails: self.fails,
            failure,
        });
        head.patrols =
            self.rounds.iter().map(|round| SavedPatrol { upto: round.upto, began_unix_ms: now.unix_at(round.began_ms) }).collect();
    }

    fn saved(&mut self, now: Now, is_stored: bool) {
        let Some(dirty) = self.saving.take() else { return };
        self.limiter.stored(is_stored);
        self.save_failed = !is_stored;
        if !is_stored {
            self.dirty.merge(dirty);
            self.dirty.head = true;
            self.save_at_ms = now.mono_ms + SAVE_EVERY_MS;
            return;
        }
        self.stored = true;
        self.alarms_stored = dirty.alarms;
        for target in dirty.allows {
            if self.books.allows.contains(&target) && !self.dirty.allows.contains(&target) {
                self.allows_stored.insert(target);
            }
        }
        let (ready, waiting) = std::mem::take(&mut self.storing).into_iter().partition(|target| self.allows_stored.contains(target));
        self.storing = waiting;
        let ready: Vec<_> = ready;
        for target in ready {
            self.put(now, target, Place::Ready);
        }
        if !self.storing.is_empty() {
            self.save_at_ms = now.mono_ms;
        }
    }

    fn has_work(&self) -> bool {
        !(self.work.is_empty() && self.polls.is_empty())
    }
}

fn keep_earlier(change: &mut Change, since_unix_ms: i64, due_unix_ms: i64) {
    if due_unix_ms > since_unix_ms && (due_unix_ms < change.due_unix_ms || change.due_unix_ms <= change.since_unix_ms) {
        (change.since_unix_ms, change.due_unix_ms) = (since_unix_ms, due_unix_ms);
    }
}
