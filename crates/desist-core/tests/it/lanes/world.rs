//! A world for one lane: the truth about some people, a store, a destination with moods, a network that
//! delays and loses, and drivers that crash, freeze and take over from each other. Time is virtual.
//!
//! The world keeps its own books, and compares with them whatever the lane does and claims.

mod destination;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use desist_core::lane::{
    Action, Alarm, Assurance, Change, Config, Input, Jobs, Lane, Level, Need, News, Now, Outcome, Page, Patrol, PatrolKind, Rate, Replay,
    Saved, Target,
};
use desist_core::limits::PARKED_MAX;

use crate::model::Rng;

pub const MINUTE: u64 = 60_000;
/// When the world becomes friendly for good.
pub const HEAL: u64 = 30 * MINUTE;
const END: u64 = HEAL + 75 * MINUTE;
const UNIX: i64 = 1_900_000_000_000;
const TIMEOUT: u64 = 5_000;
const LEASE: u64 = 15_000;
const PERIOD: u64 = 20 * MINUTE;
/// More events than any story needs: a lane that acts without end is found.
const EVENTS_MAX: u64 = 400_000;

pub fn at(ms: u64) -> Now {
    Now { unix_ms: UNIX + ms as i64, mono_ms: ms }
}

/// One person.
#[derive(Clone, Debug)]
pub struct Truth {
    pub seq: u64,
    pub deny: bool,
    pub need: Need,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Fine,
    Unreachable,
    Error,
    Throttling,
    NoCredentials,
    /// Any of these, now and then, and time-outs.
    Flaky,
    /// Says that it did what it did not.
    Lying,
    /// Takes few at once.
    Small,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Status,
    Items,
    Count,
    Job,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poison {
    Error,
    Timeout,
    Refused,
    Dead,
    Rejected,
}

#[derive(Clone, Debug)]
struct Request {
    life: u64,
    sent: u64,
    /// When it ended for the driver.
    ended: Option<u64>,
    /// When nothing of it can take effect any more, as far as the driver can know.
    clear: Option<u64>,
    /// Its process was killed, so its connection is no more.
    cut: bool,
    /// Whom it allows.
    allows: BTreeSet<Target>,
}

#[derive(Clone, Debug)]
struct WorldJob {
    items: Vec<(Target, u64, bool)>,
    done: u64,
    request: usize,
    fails: bool,
    bad: Vec<Target>,
}

enum Event {
    Act(u64, Action),
    Give(u64, Input),
    Wake(u64),
    Arrive(usize, Vec<(Target, u64, bool)>),
    Truth,
    Regret(u64),
    LastWord(u64),
    Renew(u64),
    Lead,
    Watch,
    Crash,
    Freeze,
    Weather,
    Meddle,
    Operator,
    Heal,
    Check,
}

struct Node {
    life: u64,
    lane: Lane,
    epoch: u64,
    frozen: u64,
    /// The earliest wake-up that is on its way.
    wake: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "the dials of a world")]
pub struct World {
    rng: Rng,
    /// What the people do does not depend on what the destination does.
    people: Rng,
    pub now: u64,
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
    pub truths: Vec<Truth>,
    /// Who said the last word.
    silent: BTreeSet<u64>,
    seq: u64,
    config: Config,
    dialect: Dialect,
    versioned: bool,
    fast: bool,
    is_hostile: bool,
    mood: Mood,
    poison: BTreeMap<Target, Poison>,
    store: Saved,
    lease: (u64, u64),
    nodes: Vec<Node>,
    lives: u64,
    requests: Vec<Request>,
    open: BTreeMap<Target, BTreeSet<usize>>,
    starts: Vec<u64>,
    jobs: BTreeMap<String, WorldJob>,
    shown: BTreeMap<Target, (u64, bool)>,
    applied: BTreeMap<Target, u64>,
    sent: BTreeMap<Target, u64>,
    said: BTreeMap<(Target, Level), u64>,
    /// The last version of which the destination said that it does not have the target.
    absent: BTreeMap<Target, u64>,
    lied: bool,
    stale: BTreeMap<Target, u64>,
    caught_up: u64,
    freezing: bool,
    /// Until then the driver that leads cannot reach the store.
    without_store: u64,
    pub alarms: BTreeSet<Alarm>,
    pub seen: BTreeSet<&'static str>,
    /// Everything the lane asked for.
    pub actions: u64,
    pub digest: u64,
    /// Prints all that happens.
    pub trace: bool,
}

impl World {
    pub fn new(seed: u64, is_hostile: bool) -> Self {
        let mut rng = Rng(seed ^ 0x1a2e);
        let dialect = rng.of(&[Dialect::Status, Dialect::Items, Dialect::Items, Dialect::Count, Dialect::Job]);
        let versioned = rng.one_in(2);
        let kind = rng.of(&[PatrolKind::Read, PatrolKind::Send]);
        // Nobody asks after a job whose number was lost, so only a patrol can find what it did.
        let has_patrol = rng.one_in(2) || (dialect == Dialect::Job && !versioned);
        let rates: &[&str] = rng.of(&[&[], &[], &["5/10s"], &["2/1s", "60/1m"], &["40/5m"], &["3/1s", "100/10m"]]);
        let floor = if dialect == Dialect::Job { Level::Applied } else { rng.of(&[Level::Accepted, Level::Applied]) };
        let config = Config {
            floor,
            batch_items: rng.of(&[1, 1, 3, 10]),
            linger_ms: rng.of(&[0, 0, 2_000]),
            concurrency: rng.of(&[1, 2, 4]),
            rates: rates.iter().map(|text| text.parse::<Rate>().unwrap()).collect(),
            request_timeout_ms: TIMEOUT,
            lease_ms: LEASE,
            attempts_max: rng.of(&[3, 8, 16]),
            retry_delay_ms: 10 * MINUTE,
            probe: rng.one_in(2),
            jobs: Jobs { every_ms: 20_000, give_up_ms: 5 * MINUTE },
            patrols: if has_patrol { vec![Patrol { kind, period_ms: PERIOD }] } else { Vec::new() },
            ..Config::plain(seed)
        };
        let people = 3 + rng.below(20);
        let unknown = |target| Truth {
            seq: 0,
            deny: false,
            need: Need::Nothing,
            change: Change { seq: 0, target: Target(target), since_unix_ms: 0, due_unix_ms: 0, rank: 0 },
        };
        let mut world = Self {
            people: Rng(seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            truths: (0..people).map(unknown).collect(),
            silent: BTreeSet::new(),
            seq: 0,
            config,
            dialect,
            versioned,
            fast: rng.one_in(2),
            is_hostile,
            mood: Mood::Fine,
            poison: BTreeMap::new(),
            store: Saved::default(),
            lease: (0, 0),
            nodes: Vec::new(),
            lives: 0,
            requests: Vec::new(),
            open: BTreeMap::new(),
            starts: Vec::new(),
            jobs: BTreeMap::new(),
            shown: BTreeMap::new(),
            applied: BTreeMap::new(),
            sent: BTreeMap::new(),
            said: BTreeMap::new(),
            absent: BTreeMap::new(),
            lied: false,
            stale: BTreeMap::new(),
            caught_up: 0,
            freezing: false,
            without_store: 0,
            alarms: BTreeSet::new(),
            seen: BTreeSet::new(),
            actions: 0,
            digest: 0,
            trace: false,
            rng,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        // Some changed before there was a lane.
        for _ in 0..self.people.below(20) {
            self.somebody_acts();
        }
        for _ in 0..20 + self.people.below(60) {
            let at = self.people.below(HEAL);
            self.at(at, Event::Truth);
        }
        for target in 0..self.truths.len() as u64 {
            // An allow and, before it can have arrived for sure, a deny: nothing later hides what becomes of them.
            let at = MINUTE + self.people.below(HEAL - 2 * MINUTE);
            if self.people.one_in(2) {
                self.at(at, Event::LastWord(target));
            }
        }
        self.at(0, Event::Watch);
        self.at(HEAL, Event::Heal);
        if !self.is_hostile {
            return;
        }
        for target in 0..self.truths.len() as u64 {
            if self.rng.one_in(6) {
                let poison = self.rng.of(&[Poison::Error, Poison::Timeout, Poison::Refused, Poison::Dead, Poison::Rejected]);
                self.poison.insert(Target(target), poison);
            }
        }
        self.at(0, Event::Weather);
        for (event, most) in [(0, 8), (1, 6), (2, 6), (3, 4)] {
            for _ in 0..self.rng.below(most) {
                let at = self.rng.below(HEAL);
                let event = match event {
                    0 => Event::Crash,
                    1 => Event::Freeze,
                    2 => Event::Meddle,
                    _ => Event::Operator,
                };
                self.at(at, event);
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
        self.queue.push(std::cmp::Reverse((at, self.next)));
    }

    fn soon(&mut self, event: Event) {
        let delay = if self.rng.one_in(20) { 2_000 } else { self.rng.of(&[0, 1, 5, 20, 50]) };
        self.at(self.now + delay, event);
    }

    /// Lets time pass up to `until`.
    pub fn run(&mut self, until: u64) -> Result<(), String> {
        while let Some(std::cmp::Reverse(key)) = self.queue.peek().copied()
            && key.0 <= until
        {
            self.queue.pop();
            if key.1 > EVENTS_MAX {
                return Err("it acts without end".into());
            }
            self.now = key.0;
            let event = self.events.remove(&key).unwrap();
            self.happen(event).map_err(|why| format!("at {} ms: {why}", self.now))?;
        }
        self.now = until;
        Ok(())
    }

    /// What is stored.
    pub fn store(&self) -> &Saved {
        &self.store
    }

    /// The whole story, with its end.
    pub fn tell(&mut self) -> Result<(), String> {
        self.run(END)?;
        // A patrol may be at it just now.
        for _ in 0..20 {
            let now = at(self.now);
            if self.nodes.iter_mut().map(|node| node.lane.status(now)).all(|status| status.unresolved + status.pending == 0) {
                break;
            }
            self.run(self.now + 10_000)?;
        }
        self.finale()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Act(life, action) => {
                if let Some(at) = self.thawed(life) {
                    self.at(at, Event::Act(life, action));
                } else if self.lives(life) {
                    self.act(life, action)?;
                }
            }
            Event::Give(life, input) => {
                if let Some(at) = self.thawed(life) {
                    self.at(at, Event::Give(life, input));
                } else {
                    self.give(life, input)?;
                }
            }
            Event::Wake(life) => {
                if let Some(at) = self.thawed(life) {
                    self.at(at, Event::Wake(life));
                } else if let Some(node) = self.nodes.iter_mut().find(|node| node.life == life)
                    && node.wake <= self.now
                {
                    node.wake = u64::MAX;
                    self.give(life, Input::Tick)?;
                }
            }
            Event::Arrive(request, items) => {
                let request = &self.requests[request];
                if !(request.cut && self.now > request.sent + TIMEOUT) {
                    self.arrive(&items);
                }
            }
            Event::Truth | Event::Regret(_) | Event::LastWord(_) => {
                match event {
                    Event::Regret(target) => self.somebody_denies(target, true),
                    Event::LastWord(target) => {
                        self.silent.insert(target);
                        self.somebody_denies(target, false);
                        let soon = self.now + self.people.below(8_000);
                        self.at(soon, Event::Regret(target));
                    }
                    _ => self.somebody_acts(),
                }
                for life in self.nodes.iter().map(|node| node.life).collect::<Vec<_>>() {
                    self.soon(Event::Give(life, Input::Changed));
                }
            }
            Event::Renew(life) => self.renew(life)?,
            Event::Lead => self.lead()?,
            Event::Watch => {
                self.at(self.now + MINUTE, Event::Watch);
                self.lead()?;
            }
            Event::Crash => {
                if !self.nodes.is_empty() {
                    self.seen.insert("crash");
                    let gone = self.rng.below(self.nodes.len() as u64) as usize;
                    let node = self.nodes.remove(gone);
                    self.orphan(node.life);
                    let back = self.now + self.rng.of(&[100, 2_000, 20_000]);
                    self.at(back, Event::Lead);
                }
            }
            Event::Freeze => {
                // Often just when it is about to do something.
                match self.rng.below(3) {
                    0 => self.freeze(),
                    1 if !self.fast => {
                        self.seen.insert("partition");
                        self.without_store = self.now + 5_000 + self.rng.below(30_000);
                    }
                    _ => self.freezing = true,
                }
            }
            Event::Weather => {
                if self.now < HEAL {
                    self.weather();
                }
            }
            Event::Meddle => {
                let target = Target(self.rng.below(self.truths.len() as u64));
                if !self.config.patrols.is_empty() && self.shown.contains_key(&target) {
                    // A sync on the other side brings somebody back.
                    self.shown.insert(target, (0, false));
                }
            }
            Event::Operator => {
                let input = self.rng.of(&[0, 1, 2, 3]);
                let input = match input {
                    0 => Input::Replay(Replay::All),
                    1 => Input::TryNow,
                    2 => Input::Replay(Replay::Range(1, self.seq)),
                    _ => {
                        let on = self.now + 2 * MINUTE;
                        if let Some(life) = self.nodes.last().map(|node| node.life) {
                            self.at(on, Event::Give(life, Input::Resume));
                        }
                        Input::Pause
                    }
                };
                self.tell_lane(&input)?;
            }
            Event::Heal => {
                self.mood = Mood::Fine;
                self.poison.clear();
                for life in self.nodes.iter().map(|node| node.life).collect::<Vec<_>>() {
                    if self.lives(life) {
                        self.give(life, Input::Resume)?;
                    }
                }
                self.at(self.now, Event::Check);
            }
            Event::Check => {
                for input in [Input::Resume, Input::Replay(Replay::All), Input::TryNow] {
                    self.tell_lane(&input)?;
                }
                if self.now < HEAL + 20 * MINUTE {
                    self.at(self.now + 2 * MINUTE, Event::Check);
                }
            }
        }
        if self.rng.one_in(8) {
            self.audit()?;
        }
        Ok(())
    }

    fn lives(&self, life: u64) -> bool {
        self.nodes.iter().any(|node| node.life == life)
    }

    fn thawed(&self, life: u64) -> Option<u64> {
        self.nodes.iter().find(|node| node.life == life && node.frozen > self.now).map(|node| node.frozen)
    }

    fn tell_lane(&mut self, input: &Input) -> Result<(), String> {
        for life in self.nodes.iter().filter(|node| node.frozen <= self.now).map(|node| node.life).collect::<Vec<_>>() {
            self.give(life, input.clone())?;
        }
        Ok(())
    }

    // People.

    fn somebody_acts(&mut self) {
        let count = self.truths.len() as u64;
        let target = self.people.below(count);
        let deny = !self.people.one_in(3);
        if self.silent.contains(&target) {
            return;
        }
        self.somebody_denies(target, deny);
        if !deny && self.now > 0 && self.now + 12_000 < HEAL && !self.people.one_in(3) {
            // Not what they wanted.
            let soon = self.now + self.people.below(12_000);
            self.at(soon, Event::Regret(target));
        }
    }

    fn somebody_denies(&mut self, target: u64, deny: bool) {
        self.seq += 1 + self.people.below(3);
        let truth = &mut self.truths[target as usize];
        let was_told = truth.need == Need::Message;
        truth.deny = deny;
        truth.seq = self.seq;
        truth.need = match self.people.below(12) {
            0 => Need::Unreachable,
            _ if truth.deny || was_told => Need::Message,
            _ => Need::Nothing,
        };
        let since_unix_ms = UNIX + self.now as i64;
        let due_unix_ms = since_unix_ms + 60_000 * (1 + self.people.below(600) as i64);
        let rank = self.people.below(2) as u8;
        let before = truth.change;
        truth.change = Change { seq: self.seq, target: Target(target), since_unix_ms, due_unix_ms, rank };
        let is_met = !was_told || self.applied.get(&Target(target)).is_some_and(|done| *done >= before.seq);
        if !is_met && before.due_unix_ms < due_unix_ms {
            (truth.change.since_unix_ms, truth.change.due_unix_ms) = (before.since_unix_ms, before.due_unix_ms);
        }
    }

    fn page(&self, after: u64, limit: usize) -> Page {
        let mut changes: Vec<_> = self.truths.iter().map(|truth| truth.change).filter(|change| change.seq > after).collect();
        changes.sort_by_key(|change| change.seq);
        let is_end = changes.len() <= limit;
        changes.truncate(limit);
        let upto = if is_end { self.seq } else { changes.last().map_or(after, |change| change.seq) };
        Page { changes, upto, is_end }
    }

    // Drivers.

    fn lead(&mut self) -> Result<(), String> {
        let is_led = self.nodes.iter().any(|node| node.frozen <= self.now);
        if is_led && self.now < self.lease.1 {
            return Ok(());
        }
        if !self.fast && self.now < self.lease.1 {
            let at = self.lease.1;
            self.at(at, Event::Lead);
            return Ok(());
        }
        if self.fast && !self.nodes.is_empty() {
            return Ok(());
        }
        self.lives += 1;
        let life = self.lives;
        self.without_store = 0;
        self.lease = (self.lease.0 + 1, self.now + LEASE);
        if self.nodes.iter().any(|node| node.frozen > self.now) {
            self.seen.insert("take-over");
        }
        for node in self.nodes.iter().map(|node| node.life).collect::<Vec<_>>() {
            self.orphan(node);
        }
        let lane = Lane::restore(self.config.clone(), self.store.clone(), at(self.now)).map_err(|error| error.to_string())?;
        self.nodes.push(Node { life, lane, epoch: self.lease.0, frozen: 0, wake: u64::MAX });
        let (epoch, until_mono_ms) = self.lease;
        self.at(self.now + 4_000, Event::Renew(life));
        self.give(life, Input::Lease { epoch, until_mono_ms })
    }

    fn renew(&mut self, life: u64) -> Result<(), String> {
        if let Some(at) = self.thawed(life) {
            self.at(at, Event::Renew(life));
            return Ok(());
        }
        let Some(node) = self.nodes.iter().find(|node| node.life == life) else { return Ok(()) };
        if self.now < self.without_store {
            self.at(self.now + 1_000, Event::Renew(life));
            self.at(self.lease.1.max(self.now), Event::Lead);
            return Ok(());
        }
        if node.epoch != self.lease.0 {
            self.give(life, Input::LeaseLost)?;
            self.nodes.retain(|node| node.life != life);
            return Ok(());
        }
        self.lease.1 = self.now + LEASE;
        let (epoch, until_mono_ms) = self.lease;
        self.at(self.now + 4_000, Event::Renew(life));
        self.give(life, Input::Lease { epoch, until_mono_ms })
    }

    fn freeze(&mut self) {
        let Some(node) = self.nodes.last_mut() else { return };
        self.seen.insert("freeze");
        node.frozen = self.now + self.rng.of(&[2_000, 9_000, 14_000, 40_000]);
        if !self.fast {
            // Another node looks after the lease.
            for wait in [5_000, 12_000, 16_000, 25_000] {
                self.at(self.now + wait, Event::Lead);
            }
        }
    }

    /// What a driver had under way when it died: nobody hears how it ends.
    fn orphan(&mut self, life: u64) {
        // A machine that was frozen comes back by itself only after its lease, a process that was killed at once.
        let rest = if self.fast { TIMEOUT } else { 2 * TIMEOUT };
        for request in self.requests.iter_mut().filter(|one| one.life == life && one.ended.is_none_or(|ended| ended > self.now)) {
            request.cut = self.fast;
            request.ended = Some(request.sent + TIMEOUT);
            request.clear = request.clear.map(|clear| clear.min(request.sent + rest));
        }
    }

    fn give(&mut self, life: u64, input: Input) -> Result<(), String> {
        let Some(index) = self.nodes.iter().position(|node| node.life == life) else { return Ok(()) };
        let mut out = Vec::new();
        let now = at(self.now);
        let node = &mut self.nodes[index];
        if self.trace && input != Input::Tick {
            println!("{} {life} <- {input:?}", self.now);
        }
        node.lane.step(now, input, &mut out);
        if self.trace {
            for action in &out {
                println!("{} {life} -> {action:?}", self.now);
            }
        }
        if let Some(wake) = node.lane.next_ms(now) {
            if wake <= self.now {
                return Err(format!("it wants to act at {wake}, which is over"));
            }
            if wake < node.wake {
                node.wake = wake;
                self.at(wake, Event::Wake(life));
            }
        }
        if self.config.patrols.is_empty() || self.rng.one_in(8) {
            self.bounds(index)?;
        }
        if self.freezing && out.iter().any(|action| matches!(action, Action::Save(_) | Action::Send { .. })) {
            self.freezing = false;
            self.freeze();
        }
        for action in out {
            self.actions += 1;
            if !self.is_hostile {
                self.note(&action);
            }
            self.soon(Event::Act(life, action));
        }
        Ok(())
    }

    fn bounds(&mut self, index: usize) -> Result<(), String> {
        let status = self.nodes[index].lane.status(at(self.now));
        if status.parked > PARKED_MAX || status.in_flight > self.config.concurrency {
            return Err(format!("over a bound: {status:?}"));
        }
        Ok(())
    }

    fn note(&mut self, action: &Action) {
        let text = format!("{} {action:?}", self.now);
        self.digest = text.bytes().fold(self.digest, |digest, byte| digest.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    }

    fn act(&mut self, life: u64, action: Action) -> Result<(), String> {
        match action {
            Action::Fetch { after, limit } => {
                let page = self.page(after, limit.min(5));
                self.soon(Event::Give(life, Input::Fetched(page)));
            }
            Action::Patrol { patrol, after, limit } => {
                let page = self.page(after, limit.min(5));
                self.soon(Event::Give(life, Input::Patrolled { patrol, page }));
            }
            Action::Save(delta) => {
                let chance = if self.now < HEAL { self.rng.below(20) } else { 9 };
                if self.now < self.without_store {
                    return self.give(life, Input::NotStored);
                }
                let is_current = delta.epoch == self.lease.0;
                if !is_current {
                    self.seen.insert("fenced");
                } else if chance != 0 {
                    for news in self.store.apply(*delta) {
                        self.hear(news);
                    }
                }
                let input = if is_current && chance > 1 { Input::Stored } else { Input::NotStored };
                self.soon(Event::Give(life, input));
            }
            Action::Send { call, targets, start_before_ms } => self.send(life, call, &targets, start_before_ms)?,
            Action::Check { call, targets, start_before_ms } => self.check(life, call, &targets, start_before_ms),
            Action::Poll { call, start_before_ms, .. } | Action::Probe { call, start_before_ms } if self.now >= start_before_ms => {
                self.not_sent(life, call);
            }
            Action::Poll { call, handle, .. } => self.poll(life, call, &handle),
            Action::Probe { call, .. } => {
                self.seen.insert("probe");
                let outcome = self.refusal().unwrap_or(Outcome::Ok(Level::Accepted));
                self.end(life, call, outcome, Vec::new(), 20);
            }
            Action::Replayed(_) | Action::Drained => {}
        }
        Ok(())
    }

    fn hear(&mut self, news: News) {
        match news {
            News::CaughtUp(_) => self.caught_up += 1,
            News::AlarmRaised(alarm) => {
                self.alarms.insert(alarm);
                match alarm {
                    Alarm::Drift => self.seen.insert("drift"),
                    Alarm::DeadLetter => self.seen.insert("dead letter"),
                    Alarm::Deadline90 => self.seen.insert("deadline"),
                    _ => false,
                };
            }
            News::AlarmCleared(alarm) => drop(self.alarms.remove(&alarm)),
        }
    }

    // Checks.

    /// No level is above what the world knows to be so, in memory and in the store.
    fn audit(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.truths.len() as u64) as usize;
        let truth = self.truths[at].clone();
        let target = Target(at as u64);
        let books = self.nodes.iter().filter(|node| node.epoch == self.lease.0).map(|node| node.lane.books());
        for level in books.chain([&self.store]).map(|books| books.level(target, truth.seq, truth.need)) {
            let level = match level {
                Assurance::At(level) => level,
                Assurance::Absent if self.absent.get(&target).is_none_or(|said| *said < truth.seq) => {
                    return Err(format!("{target:?} at {} is said to be absent, which nobody observed", truth.seq));
                }
                _ => continue,
            };
            let known = match level {
                Level::Queued => true,
                Level::Sent => self.sent.get(&target).is_some_and(|sent| *sent >= truth.seq),
                level => self.said.get(&(target, level)).is_some_and(|said| *said >= truth.seq),
            };
            // A destination that does not lie did what it says.
            let is_done = level < Level::Applied || self.lied || self.applied.get(&target).is_some_and(|done| *done >= truth.seq);
            let may_be_undone = |request: &Request| request.allows.contains(&target) && request.clear.is_some_and(|clear| clear > self.now);
            let mut open = self.open.get(&target).into_iter().flatten();
            if level >= Level::Accepted && truth.deny && open.any(|request| may_be_undone(&self.requests[*request])) {
                return Err(format!("{target:?} is said to be {level:?} while an older allow may land"));
            }
            if truth.seq > 0 && !(known && is_done) {
                return Err(format!("{target:?} at {} is said to be {level:?}, which nobody observed", truth.seq));
            }
        }
        let bound = HEAL + 2 * TIMEOUT + 10 * MINUTE + if self.config.patrols.is_empty() { 0 } else { 2 * PERIOD };
        for (target, since) in &self.stale {
            if self.truths[target.0 as usize].deny && self.truths[target.0 as usize].need == Need::Message && self.now > bound.max(*since) {
                return Err(format!("{target:?} shows an older allow since {since} ms"));
            }
        }
        Ok(())
    }

    fn rates(&self) -> Result<(), String> {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        for rate in &self.config.rates {
            for window in starts.windows(rate.calls as usize + 1) {
                if window[window.len() - 1] - window[0] < rate.window_ms {
                    return Err(format!("more than {rate} from {} ms on", window[0]));
                }
            }
        }
        Ok(())
    }

    fn finale(&mut self) -> Result<(), String> {
        self.rates()?;
        let Some(node) = self.nodes.iter_mut().find(|node| node.epoch == self.lease.0) else { return Err("nobody leads".into()) };
        let status = node.lane.status(at(self.now));
        let books = node.lane.books().clone();
        for truth in &self.truths {
            let target = truth.change.target;
            if truth.seq == 0 || truth.need != Need::Message {
                continue;
            }
            let shown = self.shown.get(&target);
            if shown
                .is_none_or(|(version, deny)| *deny != truth.deny || (self.versioned && !self.lied && ![0, truth.seq].contains(version)))
            {
                return Err(format!("{truth:?} was lost: the destination has {shown:?}; {status:?}"));
            }
            let is_known = match books.level(target, truth.seq, truth.need) {
                Assurance::At(level) => level >= Level::Accepted,
                other => other == Assurance::Absent,
            };
            if !is_known {
                return Err(format!("{truth:?} is delivered and nobody knows: {status:?}"));
            }
        }
        if status.parked + status.dead + status.unresolved + status.pending > 0 || books.head.cursor != self.seq || !books.allows.is_empty()
        {
            return Err(format!("not at rest: {status:?}, {books:?}"));
        }
        if !self.alarms.is_empty() || !books.head.alarms.is_empty() {
            return Err(format!("alarms stand: {:?} and {:?}", self.alarms, books.head.alarms));
        }
        if self.caught_up != 1 {
            return Err(format!("it caught up {} times", self.caught_up));
        }
        Ok(())
    }
}
