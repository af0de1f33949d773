//! Does what the lanes say: reads the feed, renders, hands messages to transports, writes the books. It owns all lanes and is
//! told everything by events, one after another; nothing in it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use desist_core::fact::{Actor, AlarmKind, Fact};
use desist_core::graph::Party;
use desist_core::lane::{
    Action, Assurance, Call, Change, Delta, Failure, Input, Lane, Level, Need, News, Now, Outcome, Page, Replay, Report, Sending, Target,
};
use desist_core::limits::{WINDOW_MAX, WINDOW_MIN};
use desist_core::purpose::PurposeSet;
use desist_store::{ChangeRow, Read, StoreError};

use super::evidence::{Asked, Evidence};
use super::people::{Needed, State, States};
use super::transport::{Ended, Errand, Message};
use super::{Destination, DestinationStatus, ParkedTarget};
use crate::alerts::About;
use crate::engine::{Ctx, Failure as CommandFailure, Job, Shared};
use crate::queue::Lane as QueueLane;

/// Changes that all lanes together hold in memory, but for the least that each needs: some tens of megabytes.
const WINDOWS_MAX: usize = 65_536;
/// How long a store that refused a lease is left alone, in milliseconds.
const CLAIM_EVERY_MS: u64 = 1_000;
/// Time between two looks at the deadlines of what the lanes have no room for, in milliseconds.
const BEYOND_EVERY_MS: u64 = 60_000;
/// Most changes that one such look reads.
const BEYOND_MAX: usize = 1_000;

/// What a driver is told.
pub enum Event {
    /// The feed may have more.
    Changed,
    /// An errand ended.
    Ended {
        /// Of which destination.
        no: u32,
        /// In which life of its lane.
        life: u64,
        /// Which call.
        call: Call,
        /// When it began by the monotonic clock.
        started_ms: u64,
        /// What it was to say.
        asked: Asked,
        /// What became of it.
        ended: Ended,
    },
    /// Evidence of deliveries is written, or is not.
    Kept {
        /// Whether it is.
        stored: bool,
    },
    /// A step of the books is written, is not written, or may not be by whoever lost the lease.
    Saved {
        /// Of which destination.
        no: u32,
        /// In which life of its lane.
        life: u64,
        /// Whether it was written; none: the lease is another's.
        stored: Option<bool>,
        /// What is new in the books.
        news: Vec<News>,
    },
    /// A lease was taken, or not.
    Claimed {
        /// Of which destination.
        no: u32,
        /// In which life of its lane.
        life: u64,
        /// Its number.
        epoch: Option<u64>,
    },
    /// Somebody has a question or a wish.
    Ask(Question),
    /// Nothing more is to be sent.
    Stop,
}

/// What somebody asks of the driver, in its thread.
pub type Question = Box<dyn FnOnce(&mut Driver, Now) + Send>;

/// Where events go.
pub type Post = Arc<dyn Fn(Event) + Send + Sync>;

/// One destination with its lane.
struct Run {
    destination: Destination,
    /// The lane; none while there is no lease.
    lane: Option<Lane>,
    /// Counts the lanes that this destination had: what was asked by an earlier one is not answered to this one.
    life: u64,
    lease: Option<u64>,
    claim_at_ms: u64,
    claiming: bool,
    renew_at_ms: u64,
    lease_until_ms: u64,
    next_ms: Option<u64>,
    /// The entries up to this one were read from the feed.
    read_seq: u64,
    /// Since when alarms stand, in Unix seconds.
    alarms: BTreeMap<AlarmKind, i64>,
    drained: bool,
    /// What the store could not answer yet.
    unread: Vec<Action>,
    /// What an operator said while there was no lane to hear it.
    pause: Option<bool>,
}

/// Owns the lanes.
pub struct Driver {
    shared: Arc<Shared>,
    post: Post,
    runs: BTreeMap<u32, Run>,
    states: States,
    saves: Vec<Step>,
    evidence: Evidence,
    lives: u64,
    beyond_at_ms: u64,
    stopping: bool,
}

impl Driver {
    /// A driver without destinations.
    pub fn new(shared: Arc<Shared>, post: Post) -> Self {
        let (runs, states, saves, evidence) = (BTreeMap::new(), States::default(), Vec::new(), Evidence::default());
        Self { shared, post, runs, states, saves, evidence, lives: 0, beyond_at_ms: 0, stopping: false }
    }

    /// Takes one event, and does all that follows from it.
    pub fn step(&mut self, now: Now, event: Event) {
        match event {
            Event::Changed => self.changed(now),
            Event::Kept { stored } => self.evidence.kept(now, stored),
            Event::Ended { no, life, call, started_ms, asked, ended } => {
                // It happened, also if this lane knows nothing of it any more.
                self.evidence.ended(no, asked, &ended, now.unix_ms);
                if self.is_alive(no, life) {
                    let Ended { left, outcome, reports, answer: _ } = ended;
                    let started_ms = left.then_some(started_ms);
                    self.input(now, no, Input::Ended { call, started_ms, outcome, reports });
                }
            }
            Event::Saved { no, life, stored, news } => {
                if self.is_alive(no, life) {
                    for one in news {
                        if let News::CaughtUp(upto) = one {
                            tracing::info!(destination = no, upto, "caught up");
                        }
                    }
                    match stored {
                        Some(true) => {
                            self.input(now, no, Input::Stored);
                            self.show_alarms(no);
                        }
                        Some(false) => self.input(now, no, Input::NotStored),
                        None => self.restart(now, no),
                    }
                }
            }
            Event::Claimed { no, life, epoch } => {
                if self.is_alive(no, life) {
                    self.claimed(now, no, epoch);
                }
            }
            Event::Ask(question) => question(self, now),
            Event::Stop => {
                self.stopping = true;
                for no in self.numbers() {
                    self.input(now, no, Input::Drain);
                }
            }
        }
        self.flush();
        self.keep_evidence(now);
    }

    /// Does what is due by the time. Call it again at [`Driver::next_ms`].
    pub fn tick(&mut self, now: Now) {
        for no in self.numbers() {
            let Some(run) = self.runs.get_mut(&no) else { continue };
            if run.lane.is_none() {
                if !run.claiming && now.mono_ms >= run.claim_at_ms && !self.stopping {
                    run.claiming = true;
                    let (life, post) = (run.life, Arc::clone(&self.post));
                    enqueue(&self.shared, Box::new(Claim { no, life, post, epoch: None }));
                }
                continue;
            }
            if now.mono_ms >= run.lease_until_ms {
                // Nobody renewed it in time, so another driver may have had it, and what this one remembers may be old.
                self.restart(now, no);
                continue;
            }
            let is_due = run.next_ms.is_some_and(|at| at <= now.mono_ms);
            if now.mono_ms >= run.renew_at_ms {
                self.renew(now, no);
            } else if is_due {
                self.input(now, no, Input::Tick);
            }
        }
        if now.mono_ms >= self.beyond_at_ms && !self.stopping {
            self.beyond_at_ms = now.mono_ms + BEYOND_EVERY_MS;
            self.look_beyond(now);
        }
        self.flush();
        self.keep_evidence(now);
    }

    fn keep_evidence(&mut self, now: Now) {
        let is_last = self.stopping && self.lanes_are_drained();
        let parked = || {
            let lanes = self.runs.iter().filter_map(|(no, run)| run.lane.as_ref().map(|lane| (*no, lane.books().parked.len() as u64)));
            lanes.collect()
        };
        let after = *self.shared.applied.borrow();
        if let Some(job) = self.evidence.due(now, is_last, parked, after, &self.post) {
            enqueue(&self.shared, job);
        }
    }

    /// When [`Driver::tick`] has something to do, by the monotonic clock.
    pub fn next_ms(&self) -> u64 {
        let of = |run: &Run| match &run.lane {
            Some(_) => run.next_ms.unwrap_or(u64::MAX).min(run.renew_at_ms),
            None if run.claiming => u64::MAX,
            None => run.claim_at_ms,
        };
        self.runs.values().map(of).min().unwrap_or(u64::MAX).min(self.beyond_at_ms).min(self.evidence.next_ms())
    }

    /// Whether the writer was asked for something whose end was not told yet: a simulator waits for it before it goes on.
    pub fn is_storing(&self) -> bool {
        self.evidence.is_under_way() || self.runs.values().any(|run| run.claiming || run.lane.as_ref().is_some_and(Lane::is_saving))
    }

    /// Whether a stop has nothing left to wait for.
    pub fn is_drained(&self) -> bool {
        self.lanes_are_drained() && self.evidence.is_closed()
    }

    fn lanes_are_drained(&self) -> bool {
        self.runs.values().all(|run| run.drained || run.lane.is_none())
    }

    /// Takes these destinations over, by their numbers. One that did not change goes on; one that did begins anew from its books.
    pub fn configure(&mut self, now: Now, destinations: Vec<(u32, Destination)>) {
        let given: BTreeSet<_> = destinations.iter().map(|(no, _)| *no).collect();
        let gone: Vec<u32> = self.runs.keys().copied().filter(|no| !given.contains(no)).collect();
        for no in gone {
            self.forget(no);
        }
        // A party that could not be told may be known to a transport that is new.
        self.states.clear();
        let window = (WINDOWS_MAX / destinations.len().max(1)).clamp(WINDOW_MIN, WINDOW_MAX);
        for (no, mut destination) in destinations {
            destination.lane.window = window;
            if let Some(run) = self.runs.get_mut(&no)
                && run.destination.digest == destination.digest
            {
                run.destination = destination;
                self.input(now, no, Input::TryNow);
                continue;
            }
            // A pause that is not in the books yet goes on.
            let old = self.runs.get(&no);
            let is_paused = |lane: &Lane| lane.books().head.paused_unix_ms.is_some();
            let pause = old.and_then(|run| run.lane.as_ref().map_or(run.pause, |lane| Some(is_paused(lane))));
            self.forget(no);
            self.lives += 1;
            let run = Run {
                destination,
                lane: None,
                life: self.lives,
                lease: None,
                claim_at_ms: now.mono_ms,
                claiming: false,
                renew_at_ms: 0,
                lease_until_ms: 0,
                next_ms: None,
                read_seq: 0,
                alarms: BTreeMap::new(),
                drained: false,
                unread: Vec::new(),
                pause,
            };
            self.runs.insert(no, run);
        }
        self.tick(now);
    }

    fn numbers(&self) -> Vec<u32> {
        self.runs.keys().copied().collect()
    }

    fn is_alive(&self, no: u32, life: u64) -> bool {
        self.runs.get(&no).is_some_and(|run| run.life == life)
    }

    /// Who is not a destination any more has no alarms.
    fn forget(&mut self, no: u32) {
        self.evidence.forget(no);
        if let Some(run) = self.runs.remove(&no) {
            for kind in run.alarms.into_keys() {
                self.shared.alerts.cleared(self.shared.env.as_ref(), About { kind, destination: Some(run.destination.id.as_str().into()) });
            }
        }
    }

    /// Begins anew from the books, as after a crash.
    fn restart(&mut self, now: Now, no: u32) {
        self.lives += 1;
        if let Some(run) = self.runs.get_mut(&no) {
            tracing::warn!(destination = no, "the lease of this destination was lost or not renewed in time; it is asked for again");
            let claim_at_ms = now.mono_ms + CLAIM_EVERY_MS;
            (run.lane, run.life, run.lease, run.claim_at_ms, run.claiming) = (None, self.lives, None, claim_at_ms, false);
        }
    }

    fn claimed(&mut self, now: Now, no: u32, epoch: Option<u64>) {
        let Some(run) = self.runs.get_mut(&no) else { return };
        run.claiming = false;
        run.claim_at_ms = now.mono_ms + CLAIM_EVERY_MS;
        let Some(epoch) = epoch else { return };
        let mut books = None;
        let read = self.shared.readers.read(&mut |read| {
            books = read.lane(no)?;
            Ok(())
        });
        let books = match (read, books) {
            (Ok(()), Some((stored, books))) if stored == epoch => books,
            (Ok(()), _) => return,
            (Err(error), _) => {
                tracing::error!(%error, destination = no, "the books of a destination cannot be read yet");
                return;
            }
        };
        match Lane::restore(run.destination.lane.clone(), books, now) {
            Ok(lane) => run.lane = Some(lane),
            // The configuration was checked when it was read.
            Err(error) => {
                tracing::error!(%error, destination = no, "the lane of a destination cannot start");
                return;
            }
        }
        (run.lease, run.read_seq) = (Some(epoch), 0);
        run.unread.clear();
        self.show_alarms(no);
        let pause = self.runs.get_mut(&no).and_then(|run| run.pause.take());
        self.renew(now, no);
        if let Some(pause) = pause {
            self.input(now, no, if pause { Input::Pause } else { Input::Resume });
        }
        if self.stopping {
            self.input(now, no, Input::Drain);
        }
    }

    /// The lock on the directory keeps every other process out, so a lease is renewed without asking the store; each step
    /// of the books carries its number all the same.
    fn renew(&mut self, now: Now, no: u32) {
        let Some(run) = self.runs.get_mut(&no) else { return };
        let lease_ms = run.destination.lane.lease_ms;
        (run.renew_at_ms, run.lease_until_ms) = (now.mono_ms + lease_ms / 3, now.mono_ms + lease_ms);
        let unread = std::mem::take(&mut run.unread);
        if let Some(epoch) = run.lease {
            let mut inputs = Vec::new();
            for action in unread {
                self.act(now, no, action, &mut inputs);
            }
            for input in inputs {
                self.input(now, no, input);
            }
            self.input(now, no, Input::Lease { epoch, until_mono_ms: now.mono_ms + lease_ms });
        }
    }

    fn changed(&mut self, now: Now) {
        for no in self.numbers() {
            self.input(now, no, Input::Changed);
        }
    }

    /// Gives a lane an input, and does what it says, until it says nothing more.
    fn input(&mut self, now: Now, no: u32, input: Input) {
        let mut inputs = vec![input];
        let mut out = Vec::new();
        while let Some(input) = inputs.pop() {
            let Some(Run { lane: Some(lane), .. }) = self.runs.get_mut(&no) else { return };
            lane.step(now, input, &mut out);
            for action in out.drain(..) {
                self.act(now, no, action, &mut inputs);
            }
        }
        if let Some(run) = self.runs.get_mut(&no)
            && let Some(lane) = &mut run.lane
        {
            run.next_ms = lane.next_ms(now);
        }
    }

    fn act(&mut self, now: Now, no: u32, action: Action, inputs: &mut Vec<Input>) {
        match action {
            Action::Fetch { after, limit } => match self.page(no, after, limit, false) {
                Ok(page) => inputs.push(Input::Fetched(page)),
                Err(error) => self.unread(no, Action::Fetch { after, limit }, &error),
            },
            Action::Patrol { patrol, after, limit } => match self.page(no, after, limit, true) {
                Ok(page) => inputs.push(Input::Patrolled { patrol, page }),
                Err(error) => self.unread(no, Action::Patrol { patrol, after, limit }, &error),
            },
            Action::Send { call, targets, start_before_ms } => self.send(now, no, call, &targets, start_before_ms, inputs),
            Action::Check { call, targets, start_before_ms } => {
                let (messages, reports) = self.messages(no, targets.iter().map(|target| (*target, true)));
                self.start(now, no, call, Errand::Check(messages), reports, start_before_ms, inputs);
            }
            Action::Poll { call, handle, start_before_ms } => {
                self.start(now, no, call, Errand::Poll(handle), Vec::new(), start_before_ms, inputs);
            }
            Action::Probe { call, start_before_ms } => self.start(now, no, call, Errand::Probe, Vec::new(), start_before_ms, inputs),
            Action::Save(delta) => {
                if let Some(run) = self.runs.get(&no) {
                    self.saves.push(Step { no, life: run.life, delta: *delta, stored: None, news: Vec::new() });
                }
            }
            Action::Replayed(_) => {}
            Action::Drained => {
                if let Some(run) = self.runs.get_mut(&no) {
                    run.drained = true;
                }
            }
        }
    }

    /// What could not be read is read again when the lease is renewed.
    fn unread(&mut self, no: u32, action: Action, error: &StoreError) {
        tracing::error!(%error, destination = no, "the changes cannot be read yet");
        if let Some(run) = self.runs.get_mut(&no) {
            run.unread.push(action);
        }
    }

    /// A part of the feed. Whoever needs no message, and is no exception in the books either, is left out.
    fn page(&mut self, no: u32, after: u64, limit: usize, is_patrol: bool) -> Result<Page, StoreError> {
        let Some(run) = self.runs.get(&no) else { return Ok(Page { changes: Vec::new(), upto: after, is_end: true }) };
        let (purposes, from_seq, through) = (run.destination.purposes, run.read_seq, run.destination.through);
        let shared = Arc::clone(&self.shared);
        let mut page = Page::default();
        let (mut last_seq, mut from_seq) = (None, from_seq);
        shared.readers.read(&mut |read| {
            let mut rows = read.changes(after, limit)?;
            let head = read.coordinator()?.counters.changes;
            let mut is_end = rows.len() < limit;
            // What nobody has told by hand yet stays ahead of the cursor.
            if let Some(through) = through {
                let told = rows.iter().take_while(|row| row.seq <= through).count();
                is_end |= told < rows.len();
                rows.truncate(told);
            }
            let is_held_back = through.is_some();
            page = Page { changes: Vec::with_capacity(rows.len()), upto: rows.last().map_or(after, |row| row.no), is_end };
            if is_end && !is_held_back {
                page.upto = head.max(after);
            }
            // A lane that begins anew saw what is behind its place.
            if from_seq == 0 {
                from_seq = read.change_upto(after)?.map_or(0, |row| row.seq);
            }
            // What changes again before it is read keeps its earlier deadline, so what was seen counts from the end of the feed alone.
            last_seq = if page.is_end { rows.last().map(|row| row.seq) } else { None };
            for row in rows {
                self.look(read, row)?;
                if let Some(change) = self.change(no, row, purposes, if is_patrol { 0 } else { from_seq }) {
                    page.changes.push(change);
                }
            }
            Ok(())
        })?;
        if let (Some(run), false) = (self.runs.get_mut(&no), is_patrol) {
            run.read_seq = run.read_seq.max(last_seq.unwrap_or(0)).max(from_seq);
        }
        Ok(page)
    }

    /// Makes sure that what is kept of a party is not older than this change.
    fn look(&mut self, read: &mut dyn Read, row: ChangeRow) -> Result<(), StoreError> {
        if self.states.get(row.party).is_some_and(|cached| cached.state.change.no >= row.no) {
            return Ok(());
        }
        let state = State::at(read, &self.shared, row)?;
        self.states.put(state);
        Ok(())
    }

    fn fill(&mut self, read: &mut dyn Read, party: Party) -> Result<(), StoreError> {
        match State::read(read, &self.shared, party)? {
            Some(state) => self.states.put(state),
            None => self.states.remove(party),
        }
        Ok(())
    }

    fn change(&mut self, no: u32, row: ChangeRow, purposes: PurposeSet, from_seq: u64) -> Option<Change> {
        let target = Target(row.party.code());
        let cached = self.states.get(row.party)?;
        let is_needed = !matches!(cached.needed(purposes), Needed::Nothing);
        let is_exception =
            || self.runs.get(&no).and_then(|run| run.lane.as_ref()).is_some_and(|lane| lane.books().parked.contains_key(&target));
        if !is_needed && !is_exception() {
            return None;
        }
        let (since_unix_ms, due_unix_ms) = cached.state.deadline(purposes, from_seq, &self.shared).unwrap_or_default();
        Some(Change { seq: row.no, target, since_unix_ms, due_unix_ms, rank: cached.state.rank })
    }

    /// What each target needs to hear now; who is not to be told is reported.
    fn messages(&mut self, no: u32, targets: impl Iterator<Item = (Target, bool)>) -> (Vec<Arc<Message>>, Vec<(Target, Report)>) {
        let Some(purposes) = self.runs.get(&no).map(|run| run.destination.purposes) else { return Default::default() };
        let (mut messages, mut reports) = (Vec::new(), Vec::new());
        let targets: Vec<_> = targets.collect();
        let party = |target: Target| Party::from_code(target.0);
        let mut found: Vec<_> = targets.iter().map(|(target, _)| Some(self.states.get(party(*target))?.needed(purposes))).collect();
        if found.iter().any(Option::is_none) {
            let shared = Arc::clone(&self.shared);
            // Each is taken as soon as it is read: there may be more than are kept.
            let read = shared.readers.read(&mut |read| {
                for ((target, _), found) in targets.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                    self.fill(read, party(*target))?;
                    *found = self.states.get(party(*target)).map(|cached| cached.needed(purposes));
                }
                Ok(())
            });
            if let Err(error) = read {
                tracing::error!(%error, destination = no, "present state cannot be read yet");
            }
        }
        for ((target, may_allow), found) in targets.into_iter().zip(found) {
            let report = match found {
                // It could not be read: nothing is said about it, and it is tried again.
                None => Report::Failed { is_retryable: true, code: 0 },
                Some(Needed::Nothing) => Report::Nothing,
                Some(Needed::Unreachable) => Report::Unreachable,
                Some(Needed::Message(message)) if message.denied.is_empty() && !may_allow => Report::Held,
                Some(Needed::Message(message)) => {
                    messages.push(message);
                    continue;
                }
            };
            reports.push((target, report));
        }
        (messages, reports)
    }

    fn send(&mut self, now: Now, no: u32, call: Call, targets: &[Sending], start_before_ms: u64, inputs: &mut Vec<Input>) {
        let (messages, reports) = self.messages(no, targets.iter().map(|sending| (sending.target, sending.may_allow)));
        self.start(now, no, call, Errand::Send(messages), reports, start_before_ms, inputs);
    }

    #[expect(clippy::too_many_arguments, reason = "one call, as the lane describes it")]
    fn start(
        &mut self,
        now: Now,
        no: u32,
        call: Call,
        errand: Errand,
        mut reports: Vec<(Target, Report)>,
        start_before_ms: u64,
        inputs: &mut Vec<Input>,
    ) {
        let is_empty = matches!(&errand, Errand::Send(messages) | Errand::Check(messages) if messages.is_empty());
        let Some(run) = self.runs.get(&no) else { return };
        if is_empty || now.mono_ms >= start_before_ms {
            inputs.push(Input::Ended { call, started_ms: None, outcome: Outcome::NotSent, reports });
            return;
        }
        let (life, started_ms, post) = (run.life, now.mono_ms, Arc::clone(&self.post));
        let within = Duration::from_millis(run.destination.lane.request_timeout_ms);
        // What people say that they did, and what only checked, is no delivery that a destination acknowledged.
        let is_shown = run.destination.through.is_none() && run.destination.lane.floor >= Level::Accepted;
        let about = Asked::of(&errand);
        let asked = if is_shown { about.clone() } else { Asked::default() };
        let sent = if let (Errand::Send(messages), Ok(transport)) = (&errand, &run.destination.transport) {
            Some((messages.clone(), Arc::clone(transport)))
        } else {
            None
        };
        let done: super::transport::Done = Box::new(move |mut ended: Ended| {
            // A transport speaks of those it was given.
            ended.reports.retain(|(target, _)| about.is_about(*target));
            if let Some((messages, transport)) = sent {
                hold_to_its_word(&mut ended.reports, &messages, transport.as_ref());
            }
            reports.append(&mut ended.reports);
            ended.reports = reports;
            post(Event::Ended { no, life, call, started_ms, asked, ended });
        });
        match &run.destination.transport {
            Ok(transport) => transport.start(errand, within, done),
            Err(_) => done(Ended::failed(Failure::Credentials)),
        }
    }

    /// One command writes what all lanes have to write.
    fn flush(&mut self) {
        if !self.saves.is_empty() {
            enqueue(&self.shared, Box::new(Save { steps: std::mem::take(&mut self.saves), post: Arc::clone(&self.post) }));
        }
    }

    /// Shows the alarms that the books have, and no others: a step may be written although its writer heard of an error, so what a step
    /// says is new is not all that is.
    fn show_alarms(&mut self, no: u32) {
        let Some(run) = self.runs.get_mut(&no) else { return };
        let Some(lane) = &run.lane else { return };
        let (env, alerts) = (self.shared.env.as_ref(), &self.shared.alerts);
        let about = |kind| About { kind, destination: Some(run.destination.id.as_str().into()) };
        let stored: BTreeSet<AlarmKind> = lane.alarms_stored().iter().map(|alarm| (*alarm).into()).collect();
        let since = env.now_ms().div_euclid(1000);
        for kind in stored.iter().filter(|kind| !run.alarms.contains_key(kind)) {
            alerts.raised(env, about(*kind), since);
        }
        for kind in run.alarms.keys().filter(|kind| !stored.contains(kind)) {
            alerts.cleared(env, about(*kind));
        }
        run.alarms = stored.into_iter().map(|kind| (kind, run.alarms.get(&kind).copied().unwrap_or(since))).collect();
    }

    /// The earliest deadline of what a lane has no room for, or may not read yet, so that its alarms count that too.
    fn look_beyond(&mut self, now: Now) {
        for no in self.numbers() {
            let Some(run) = self.runs.get(&no) else { continue };
            let Some(lane) = &run.lane else { continue };
            let (fetched, purposes, from_seq) = (lane.read_upto(), run.destination.purposes, run.read_seq);
            let shared = Arc::clone(&self.shared);
            let mut earliest: Option<(i64, i64)> = None;
            let read = shared.readers.read(&mut |read| {
                let rows = read.changes(fetched, BEYOND_MAX)?;
                for row in rows {
                    self.look(read, row)?;
                    let Some(cached) = self.states.get(row.party) else { continue };
                    if matches!(cached.needed(purposes), Needed::Message(_))
                        && let Some(deadline) = cached.state.deadline(purposes, from_seq, &self.shared)
                    {
                        earliest = Some(earliest.map_or(deadline, |known| if deadline.1 < known.1 { deadline } else { known }));
                    }
                }
                Ok(())
            });
            match read {
                Ok(()) => self.input(now, no, Input::Beyond(earliest)),
                Err(error) => tracing::error!(%error, destination = no, "deadlines cannot be read yet"),
            }
        }
    }

    // What is asked.

    /// Every destination in words and numbers.
    pub fn status(&mut self, now: Now) -> Vec<DestinationStatus> {
        let status = |(no, run): (&u32, &mut Run)| {
            let lane = run.lane.as_mut().map(|lane| lane.status(now));
            let why = run.destination.transport.as_ref().err().cloned();
            DestinationStatus {
                no: *no,
                id: run.destination.id.clone(),
                connector: run.destination.connector.clone(),
                class: run.destination.class,
                purposes: run.destination.purposes,
                required: run.destination.required,
                ceiling: run.destination.ceiling,
                lane,
                missing: why,
                problem: run.destination.transport.as_ref().ok().and_then(|transport| transport.problem()),
                alarms: run.alarms.iter().map(|(kind, since)| (*kind, *since)).collect(),
                through: run.destination.through,
                owner: run.destination.owner.clone(),
            }
        };
        self.runs.iter_mut().map(status).collect()
    }

    /// Parked targets and dead letters of a destination from a place in their order on, at most `limit`; none if there is no such
    /// destination.
    pub fn parked(&self, no: u32, after: Option<Target>, limit: usize) -> Option<Vec<ParkedTarget>> {
        let lane = self.runs.get(&no)?.lane.as_ref()?;
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rows = lane.books().parked.range((from, std::ops::Bound::Unbounded)).take(limit);
        let reasons = self.runs.get(&no)?.destination.transport.as_ref().ok();
        let code = |parked: &desist_core::lane::Parked| parked.reason.code().and_then(|code| reasons?.reason(code));
        Some(rows.map(|(target, parked)| ParkedTarget { target: *target, parked: *parked, code: code(parked) }).collect())
    }

    /// Whether there is such a destination.
    pub fn has(&self, no: u32) -> bool {
        self.runs.contains_key(&no)
    }

    /// The number of a destination by its id.
    pub fn number(&self, id: &str) -> Option<u32> {
        self.runs.iter().find(|(_, run)| run.destination.id == id).map(|(no, _)| *no)
    }

    /// An operator stops a destination or lets it go on.
    pub fn pause(&mut self, now: Now, no: u32, pause: bool) {
        if let Some(run) = self.runs.get_mut(&no)
            && run.lane.is_none()
        {
            run.pause = Some(pause);
        }
        self.input(now, no, if pause { Input::Pause } else { Input::Resume });
    }

    /// An operator wants a destination tried at once.
    pub fn try_now(&mut self, now: Now, no: u32) {
        self.input(now, no, Input::TryNow);
    }

    /// An operator has dead letters tried again: how many.
    pub fn replay(&mut self, now: Now, no: u32, which: Replay) -> usize {
        let Some(Run { lane: Some(lane), .. }) = self.runs.get_mut(&no) else { return 0 };
        let mut out = Vec::new();
        lane.step(now, Input::Replay(which), &mut out);
        let count = out.iter().map(|action| if let Action::Replayed(count) = action { *count } else { 0 }).sum();
        let mut inputs = Vec::new();
        for action in out {
            self.act(now, no, action, &mut inputs);
        }
        inputs.push(Input::Tick);
        for input in inputs.into_iter().rev() {
            self.input(now, no, input);
        }
        count
    }

    /// What decides of whom a destination is told that people tell by hand; none if they do not.
    pub(super) fn by_hand(&self, no: u32) -> Option<u64> {
        self.runs.get(&no).filter(|run| run.destination.through.is_some()).map(|run| run.destination.lane.generation)
    }

    /// Everything up to this entry was told by hand.
    pub fn told_by_hand(&mut self, now: Now, no: u32, through: u64) {
        if let Some(run) = self.runs.get_mut(&no)
            && let Some(known) = &mut run.destination.through
        {
            *known = (*known).max(through);
            self.input(now, no, Input::Changed);
        }
    }

    /// What is known about a party at every destination.
    pub fn assurances(&mut self, now: Now, party: Party) -> Result<Vec<(u32, Assurance)>, StoreError> {
        self.known(now, party, None)
    }

    /// Where a party stands as to what is denied for these purposes, at every destination: with its id, and the level that it needs.
    pub fn standings(&mut self, now: Now, party: Party, denied: PurposeSet) -> Result<Vec<super::Standing>, StoreError> {
        let known = self.known(now, party, Some(denied))?;
        let standing = |(no, assurance): (u32, Assurance)| {
            let destination = &self.runs.get(&no)?.destination;
            Some(super::Standing { no, id: destination.id.clone(), assurance, required: destination.required })
        };
        Ok(known.into_iter().filter_map(standing).collect())
    }

    fn known(&mut self, now: Now, party: Party, about: Option<PurposeSet>) -> Result<Vec<(u32, Assurance)>, StoreError> {
        let mut assurances = Vec::new();
        let shared = Arc::clone(&self.shared);
        let mut change = None;
        shared.readers.read(&mut |read| {
            change = read.change_of(party)?;
            match change {
                Some(row) => self.look(read, row),
                None => Ok(()),
            }
        })?;
        for (no, run) in &self.runs {
            let purposes = run.destination.purposes;
            let is_about = |state: &State| about.is_none_or(|about| state.denies(about.intersection(purposes)));
            let (needed, last) = match (change, self.states.get(party)) {
                (Some(row), Some(cached)) if is_about(&cached.state) => (cached.needed(purposes), row.no),
                _ => (Needed::Nothing, 0),
            };
            let need = match &needed {
                Needed::Nothing => Need::Nothing,
                Needed::Unreachable => Need::Unreachable,
                // While it cannot be called nobody knows what it takes.
                Needed::Message(message) if run.destination.transport.as_ref().is_ok_and(|transport| !transport.reaches(message)) => {
                    Need::Unreachable
                }
                Needed::Message(_) => Need::Message,
            };
            let assurance = match &run.lane {
                Some(lane) => lane.books().level(Target(party.code()), last, need),
                None => Assurance::without_books(need),
            };
            // What does not last counts only while it is said again in time.
            let lapsed = run.destination.resend_ms.is_some_and(|every| {
                let books = run.lane.as_ref().map(Lane::books);
                books.is_none_or(|books| books.is_overdue(run.destination.lane.patrols.len(), every, now.unix_ms))
            });
            let assurance = match assurance {
                // Who was found unreachable cannot be told from who was told while nobody knows what the destination takes.
                Assurance::At(_) | Assurance::Absent if run.destination.transport.is_err() => Assurance::At(Level::Queued),
                Assurance::At(level) if lapsed => Assurance::At(level.min(Level::Sent)),
                Assurance::Absent if lapsed => Assurance::At(Level::Sent),
                other => other,
            };
            assurances.push((*no, assurance));
        }
        Ok(assurances)
    }

    /// Present state for one destination in the order of the feed: messages about at most `limit` parties after a change, and the
    /// change to go on from, if there is more.
    pub fn present(&mut self, no: u32, after: u64, limit: usize) -> Result<(Vec<Arc<Message>>, Option<u64>), StoreError> {
        let gone = || StoreError::Database("the destination is none any more".into());
        let purposes = self.runs.get(&no).map(|run| run.destination.purposes).ok_or_else(gone)?;
        let shared = Arc::clone(&self.shared);
        let (mut messages, mut next) = (Vec::new(), None);
        shared.readers.read(&mut |read| {
            messages.clear();
            let rows = read.changes(after, limit)?;
            next = if rows.len() == limit { rows.last().map(|row| row.no) } else { None };
            for row in rows {
                self.look(read, row)?;
                if let Some(Needed::Message(message)) = self.states.get(row.party).map(|cached| cached.needed(purposes)) {
                    messages.push(message);
                }
            }
            Ok(())
        })?;
        Ok((messages, next))
    }
}

/// Of somebody whom it can be told of nothing may be said to be unreachable: that would count as told.
fn hold_to_its_word(reports: &mut [(Target, Report)], messages: &[Arc<Message>], transport: &dyn super::transport::Transport) {
    for (target, report) in reports.iter_mut().filter(|(_, report)| *report == Report::Unreachable) {
        if messages.iter().any(|message| message.target == *target && transport.reaches(message)) {
            *report = Report::Failed { is_retryable: false, code: 0 };
        }
    }
}

/// Queues a command of the driver. It is small and rare, and a lane that cannot store stops, so people do wait behind it; a queue that
/// is full says so at once.
fn enqueue(shared: &Shared, job: Box<dyn Job>) {
    if let Err(job) = shared.queue.push(QueueLane::Interactive, job) {
        job.finish(Some(CommandFailure::Busy));
    }
}

/// One step of one lane's books.
struct Step {
    no: u32,
    life: u64,
    delta: Delta,
    stored: Option<bool>,
    news: Vec<News>,
}

/// Writes steps of the books, with the facts in them.
struct Save {
    steps: Vec<Step>,
    post: Post,
}

impl Job for Save {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
        for step in &mut self.steps {
            let news = ctx.write.save_lane(step.no, &step.delta)?;
            step.stored = news.is_some().then_some(true);
            step.news = news.unwrap_or_default();
            let destination = step.no;
            for one in &step.news {
                let fact = match one {
                    News::CaughtUp(upto) => Fact::CaughtUp { destination, upto: *upto },
                    News::AlarmRaised(alarm) => Fact::AlarmRaised { kind: (*alarm).into(), destination: Some(destination) },
                    News::AlarmCleared(alarm) => Fact::AlarmCleared { kind: (*alarm).into(), destination: Some(destination) },
                };
                ctx.batch.emit(ctx.write, fact)?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<CommandFailure>) {
        for Step { no, life, stored, news, .. } in self.steps {
            let (stored, news) = if failed.is_some() { (Some(false), Vec::new()) } else { (stored, news) };
            (self.post)(Event::Saved { no, life, stored, news });
        }
    }
}

/// Takes a lease.
struct Claim {
    no: u32,
    life: u64,
    post: Post,
    epoch: Option<u64>,
}

impl Job for Claim {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
        self.epoch = Some(ctx.write.claim_lane(self.no)?);
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<CommandFailure>) {
        let epoch = if failed.is_some() { None } else { self.epoch };
        (self.post)(Event::Claimed { no: self.no, life: self.life, epoch });
    }
}

/// The facts of what an operator did.
pub(super) fn act_of(no: u32, act: super::Act, by: Actor) -> Option<Fact> {
    match act {
        super::Act::Pause => Some(Fact::DestinationPaused { destination: no, by }),
        super::Act::Resume => Some(Fact::DestinationResumed { destination: no, by }),
        super::Act::Replayed(count) => Some(Fact::DeadLettersReplayed { destination: no, count, by }),
        super::Act::TryNow => None,
    }
}
