//! A world: an engine, drivers over it that crash, freeze and take over from each other, destinations, and people who choose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use desist_core::fact::{Actor, Digest as FactDigest, Fact};
use desist_core::identifier::{Identifier, Kind};
use desist_core::lane::{Now, Outcome, Replay, Target};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::clear::Given;
use desist_engine::delivery::transport::{Done, Errand};
use desist_engine::delivery::{Driver, Event, Post};
use desist_engine::engine::Engine;
use desist_engine::intake::{self, ImportChunk, NewRequest};
use desist_engine::profiles::{self, NewProfile};
use desist_engine::queue::Lane;
use desist_store::StoreError;

use super::checks::Known;
use super::place::{Apple, Digest, Item, Mood, Net, Place, Request, ended};
use super::{DAY, HEAL, MINUTE, Rng, UNIX};
use crate::support::{Home, confirmed, given, hang, named, opt_out, submit};

/// More events than any story needs: a driver that acts without end is found.
const EVENTS_MAX: u64 = 200_000;

pub type Failed = Result<(), String>;

/// What happens at a time.
enum Happening {
    /// Somebody chooses.
    Choice,
    /// The driver hears of it.
    Changed,
    Wake(u64),
    Give(u64, Event),
    Effect(usize, u64, Vec<Item>),
    Answer(u64),
    Weather,
    Crash,
    Freeze,
    Start,
    TakeOver(u64),
    Thaw(u64),
    /// A driver that is not wanted any more ends.
    Retire(u64),
    Trouble,
    Operator,
    Configure,
    Suspend,
    Forget,
    Heal,
    Nurse,
    Calm,
    Watch,
    PowerCut,
}

/// A driver with its own monotonic clock.
pub struct Node {
    pub id: u64,
    pub driver: Driver,
    posted: Arc<Mutex<Vec<Event>>>,
    base: u64,
    pub frozen: bool,
    /// Events that came while it was frozen.
    kept: Vec<Event>,
    wake: u64,
    /// Another one has its leases.
    pub is_superseded: bool,
    /// When the last answer of the store reaches it.
    store_at: u64,
}

impl Node {
    /// What its monotonic clock showed when the world began.
    pub fn base(&self) -> u64 {
        self.base
    }
}

/// A call that was begun.
pub struct Open {
    pub node: u64,
    pub life: u64,
    pub place: usize,
    pub targets: BTreeSet<Target>,
    pub is_send: bool,
    /// When it ended for its driver.
    pub ended: Option<u64>,
    /// When nothing of it can take effect any more, as far as anybody can know.
    pub clear: Option<u64>,
}

#[expect(clippy::struct_excessive_bools, reason = "the dials of a world")]
pub struct World {
    pub seed: u64,
    pub rng: Rng,
    people: Rng,
    pub now: u64,
    /// By how much the wall clock is ahead, since the machine slept.
    skew: i64,
    queue: BTreeMap<(u64, u64), Happening>,
    next: u64,
    pub home: Home,
    pub engine: Engine,
    pub nodes: Vec<Node>,
    next_node: u64,
    pub places: Vec<Place>,
    net: Net,
    pub open: BTreeMap<u64, Open>,
    answers: BTreeMap<u64, (Done, super::place::Answer)>,
    /// Counts the lanes of a node at a place.
    lives: BTreeMap<(u64, usize), u64>,
    pub is_tame: bool,
    has_patience: bool,
    fail_next_store: bool,
    /// When anything last happened to a driver or the store that makes it late.
    pub trouble: u64,
    pub known: Known,
    pub seen: BTreeSet<&'static str>,
    pub trace: bool,
    /// A digest of everything that left.
    pub history: u64,
    /// Since when an operator has places paused, by the wall clock.
    pub paused: BTreeMap<usize, i64>,
    identifiers: Vec<(Kind, String)>,
    imports: u8,
}

fn sha(text: &str) -> Digest {
    sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), text)).into()
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut home = Home::new(seed);
        home.policy.kinds_told = [Kind::Email, Kind::CustomerId].into();
        home.env.set_ms(UNIX);
        let engine = home.open();
        let is_tame = rng.one_in(4);
        let count = 2 + rng.below(5) as usize;
        let places: Vec<_> = (0..count).map(|number| Place::new(number, &mut rng, number == 0)).collect();
        let emails = (0..8).map(|one| (Kind::Email, format!("p{one}@example.org")));
        let customers = (0..4).map(|one| (Kind::CustomerId, format!("c-{one}")));
        let cookies = (0..2).map(|one| (Kind::CookieId, format!("k-{one}")));
        let mut world = Self {
            seed,
            people: Rng(rng.next()),
            now: 0,
            skew: 0,
            queue: BTreeMap::new(),
            next: 0,
            home,
            engine,
            nodes: Vec::new(),
            next_node: 0,
            places,
            net: Net::default(),
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            lives: BTreeMap::new(),
            is_tame,
            has_patience: rng.one_in(3),
            fail_next_store: false,
            trouble: 0,
            known: Known::default(),
            seen: BTreeSet::new(),
            trace: false,
            history: 0,
            paused: BTreeMap::new(),
            identifiers: emails.chain(customers).chain(cookies).collect(),
            imports: 0,
            rng,
        };
        world.declare();
        world.plan();
        world
    }

    /// Gives the destinations their numbers, as the engine does when they are first configured.
    fn declare(&self) {
        let new: Vec<_> = self.places.iter().map(|place| (place.no, place.id.clone())).collect();
        self.engine
            .submit_blocking(Lane::Interactive, move |ctx| {
                for (no, id) in &new {
                    ctx.batch.emit(ctx.write, Fact::DestinationDeclared { destination: *no, id: FactDigest(sha(id)) })?;
                    ctx.write.put_destination(*no, id)?;
                }
                Ok(Ok(()))
            })
            .expect("declared");
    }

    fn plan(&mut self) {
        for place in 0..self.places.len() {
            let digests: Vec<_> = self.identifiers.iter().map(|(_, text)| sha(text)).collect();
            for digest in digests {
                if !self.places[place].is_angel && self.rng.one_in(14) {
                    let apple = self.rng.of(&[Apple::Refused, Apple::Rotten, Apple::Explodes]);
                    self.places[place].apples.insert(digest, apple);
                }
            }
        }
        let scatter = |world: &mut Self, many: u64, from: u64, to: u64, make: fn() -> Happening| {
            for _ in 0..many {
                let at = from + world.rng.below(to - from);
                world.at(at, make());
            }
        };
        self.at(0, Happening::Start);
        let choices = 15 + self.rng.below(25);
        scatter(self, choices, 0, HEAL - 2 * MINUTE, || Happening::Choice);
        scatter(self, 3, HEAL + MINUTE, HEAL + 10 * MINUTE, || Happening::Choice);
        scatter(self, 12, 0, HEAL, || Happening::Weather);
        if !self.is_tame {
            let (crashes, freezes, troubles) = (self.rng.below(4), self.rng.below(4), self.rng.below(6));
            scatter(self, crashes, 0, HEAL, || Happening::Crash);
            scatter(self, freezes, 0, HEAL, || Happening::Freeze);
            scatter(self, troubles, 0, HEAL, || Happening::Trouble);
            let changes = self.rng.below(3);
            scatter(self, changes, MINUTE, HEAL, || Happening::Configure);
            if self.rng.one_in(6) {
                scatter(self, 1, MINUTE, HEAL, || Happening::PowerCut);
            }
        }
        scatter(self, 3, 0, HEAL, || Happening::Operator);
        scatter(self, 2, 5 * MINUTE, HEAL, || Happening::Forget);
        if self.has_patience {
            for minute in [16, 12, 8, 4] {
                self.at(HEAL - minute * MINUTE, Happening::Suspend);
            }
        }
        self.at(HEAL, Happening::Heal);
        self.at(super::CALM, Happening::Calm);
        self.at(MINUTE, Happening::Watch);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), happening);
    }

    pub fn unix_ms(&self) -> i64 {
        UNIX + self.skew + self.now as i64
    }

    pub fn is_hostile(&self) -> bool {
        self.now < HEAL
    }

    /// Everything up to a time.
    pub fn run(&mut self, until: u64) -> Failed {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= until
        {
            if entry.key().1 > EVENTS_MAX {
                return Err("it acts without end".into());
            }
            let (key, happening) = entry.remove_entry();
            self.now = key.0;
            self.home.env.set_ms(self.unix_ms());
            self.happen(happening).map_err(|why| format!("at {} ms: {why}", self.now))?;
        }
        self.now = until;
        self.home.env.set_ms(self.unix_ms());
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Failed {
        match happening {
            Happening::Choice => self.choose(),
            Happening::Changed => self.each_node(|driver, now| driver.step(now, Event::Changed)),
            Happening::Wake(id) => {
                let Some(node) = self.nodes.iter_mut().find(|node| node.id == id && node.wake <= self.now) else { return Ok(()) };
                node.wake = u64::MAX;
                if node.frozen { Ok(()) } else { self.drive(id, Driver::tick) }
            }
            Happening::Give(id, event) => self.give(id, event),
            Happening::Effect(place, _, items) => {
                self.note(format_args!(
                    "effect at {place}: {:?}",
                    items.iter().map(|item| (item.target, item.version)).collect::<Vec<_>>()
                ));
                self.places[place].take_effect(&items);
                Ok(())
            }
            Happening::Answer(call) => {
                self.answered(call);
                Ok(())
            }
            Happening::Weather => {
                self.weather();
                Ok(())
            }
            Happening::Crash => {
                if let Some(id) = self.some_node() {
                    self.seen.insert("crash");
                    self.end_node(id);
                    let back = self.now + self.rng.of(&[50, 2_000, 20_000]);
                    self.at(back, Happening::Start);
                }
                Ok(())
            }
            Happening::Freeze => {
                if let Some(id) = self.some_node().filter(|id| !self.is_frozen(*id)) {
                    self.freeze(id);
                }
                Ok(())
            }
            Happening::Start => self.start(),
            Happening::TakeOver(id) => self.take_over(id),
            Happening::Thaw(id) => self.thaw(id),
            Happening::Retire(id) => {
                self.end_node(id);
                Ok(())
            }
            Happening::Trouble => {
                self.fail_next_store = true;
                Ok(())
            }
            Happening::Operator => self.operate(),
            Happening::Configure => self.configure(),
            Happening::Suspend => {
                self.seen.insert("suspend");
                self.skew += 7 * DAY;
                self.home.env.set_ms(self.unix_ms());
                self.trouble = self.trouble.max(self.now);
                Ok(())
            }
            Happening::Forget => {
                let place = self.rng.below(self.places.len() as u64) as usize;
                if !self.places[place].config.patrols.is_empty()
                    && !self.places[place].is_angel
                    && let Some((digest, _)) = self.places[place].forget()
                {
                    self.wrong(place, digest)?;
                }
                Ok(())
            }
            Happening::Heal => {
                for place in 0..self.places.len() {
                    let one = &mut self.places[place];
                    one.mood = Mood::Fine;
                    one.apples.retain(|_, apple| *apple == Apple::Rotten);
                    if !one.is_configured || !one.has_way {
                        (one.is_configured, one.has_way) = (true, true);
                    }
                }
                self.fail_next_store = false;
                // Who begins again needs a moment before alarms can be expected.
                self.trouble = self.trouble.max(self.now);
                self.reconfigure()?;
                self.nurse()
            }
            Happening::Nurse => self.nurse(),
            Happening::Calm => self.calm(),
            Happening::Watch => {
                self.at(self.now + MINUTE, Happening::Watch);
                self.watch()
            }
            Happening::PowerCut => {
                self.power_cut();
                Ok(())
            }
        }
    }

    // Nodes.

    fn some_node(&mut self) -> Option<u64> {
        let awake: Vec<_> = self.nodes.iter().filter(|node| !node.is_superseded).map(|node| node.id).collect();
        (!awake.is_empty()).then(|| self.rng.of(&awake))
    }

    fn is_frozen(&self, id: u64) -> bool {
        self.nodes.iter().any(|node| node.id == id && node.frozen)
    }

    fn start(&mut self) -> Failed {
        if self.nodes.iter().any(|node| !node.is_superseded) {
            return Ok(());
        }
        let _ = self.new_node()?;
        Ok(())
    }

    fn new_node(&mut self) -> Result<u64, String> {
        self.next_node += 1;
        self.trouble = self.trouble.max(self.now);
        let (id, posted) = (self.next_node, Arc::new(Mutex::new(Vec::new())));
        let to = Arc::clone(&posted);
        let post: Post = Arc::new(move |event| to.lock().unwrap_or_else(PoisonError::into_inner).push(event));
        let base = self.rng.below(1 << 40);
        let driver = self.engine.driver(post);
        let (kept, wake, store_at) = (Vec::new(), u64::MAX, 0);
        self.nodes.push(Node { id, driver, posted, base, frozen: false, kept, wake, is_superseded: false, store_at });
        self.note(format_args!("node {id} starts"));
        self.configure_node(id)?;
        Ok(id)
    }

    fn end_node(&mut self, id: u64) {
        self.note(format_args!("node {id} ends"));
        // A pause that was not stored yet is gone with it.
        self.paused.clear();
        self.trouble = self.trouble.max(self.now);
        self.nodes.retain(|node| node.id != id);
        // Nobody hears any more how its calls end, and what was under way arrives within a time-out or not at all.
        let calls: BTreeSet<_> = self.open.iter().filter(|(_, open)| open.node == id).map(|(call, _)| *call).collect();
        let running: BTreeSet<_> = calls.iter().filter(|call| self.answers.remove(call).is_some()).copied().collect();
        self.open.retain(|call, _| !calls.contains(call));
        let cut: Vec<_> = self
            .queue
            .iter()
            .filter(|(key, one)| match one {
                Happening::Effect(place, call, _) => {
                    let place = &self.places[*place];
                    running.contains(call)
                        && place.config.patrols.is_empty()
                        && !place.is_versioned
                        && key.0 > self.now + place.config.request_timeout_ms
                }
                _ => false,
            })
            .map(|(key, _)| *key)
            .collect();
        for key in cut {
            self.queue.remove(&key);
        }
    }

    fn configure_node(&mut self, id: u64) -> Failed {
        let destinations = self.places.iter().enumerate().filter(|(_, place)| place.is_configured);
        let destinations: Vec<_> = destinations.map(|(at, place)| (place.no, place.destination(id, at, &self.net))).collect();
        self.drive(id, |driver, now| driver.configure(now, destinations))?;
        self.settle();
        Ok(())
    }

    fn reconfigure(&mut self) -> Failed {
        let ids: Vec<_> = self.nodes.iter().filter(|node| !node.is_superseded && !node.frozen).map(|node| node.id).collect();
        ids.into_iter().try_for_each(|id| self.configure_node(id))
    }

    fn each_node(&mut self, act: impl Fn(&mut Driver, Now)) -> Failed {
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for id in ids {
            if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id && node.frozen) {
                node.kept.push(Event::Changed);
            } else {
                self.drive(id, &act)?;
            }
        }
        Ok(())
    }

    fn give(&mut self, id: u64, event: Event) -> Failed {
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else { return Ok(()) };
        if node.frozen {
            node.kept.push(event);
            return Ok(());
        }
        if let Event::Saved { no, stored: None, .. } = &event {
            self.seen.insert("fenced");
            *self.lives.entry((id, *no as usize - 1)).or_default() += 1;
        }
        self.drive(id, |driver, now| driver.step(now, event))
    }

    /// Waits until the writer has done what it was asked for.
    fn settle(&self) {
        while self.engine.submit_blocking(Lane::Interactive, |_| Ok(Ok(()))).is_err() {}
    }

    /// Lets a driver do something, and all that follows from it at once.
    fn drive(&mut self, id: u64, act: impl FnOnce(&mut Driver, Now)) -> Failed {
        let Some(at) = self.nodes.iter().position(|node| node.id == id) else { return Ok(()) };
        let now = Now { unix_ms: self.unix_ms(), mono_ms: self.nodes[at].base + self.now };
        let (fails, is_written) = (self.fail_next_store, self.rng.one_in(2));
        let gate = (fails && !is_written).then(|| hang(&self.engine));
        let node = &mut self.nodes[at];
        act(&mut node.driver, now);
        node.driver.tick(now);
        let is_storing = node.driver.is_storing();
        if let Some(gate) = gate {
            if is_storing {
                self.fail_store(gate);
            }
        } else if is_storing {
            self.settle();
        }
        let node = &mut self.nodes[at];
        let posted = std::mem::take(&mut *node.posted.lock().unwrap_or_else(PoisonError::into_inner));
        let (asked, stored): (Vec<_>, Vec<_>) = posted.into_iter().partition(|event| matches!(event, Event::Ended { .. }));
        let next = node.driver.next_ms().max(now.mono_ms + 1).saturating_sub(node.base);
        let wakes = next < node.wake;
        node.wake = node.wake.min(next);
        if wakes && next < u64::MAX / 2 {
            self.at(next, Happening::Wake(id));
        }
        for event in asked {
            self.at(self.now, Happening::Give(id, event));
        }
        for mut event in stored {
            if fails && is_written {
                // It is durable, and the caller hears of an error.
                self.fail_next_store = false;
                self.trouble = self.trouble.max(self.now);
                self.seen.insert("store errs");
                match &mut event {
                    Event::Saved { stored: stored @ Some(true), news, .. } => (*stored, *news) = (Some(false), Vec::new()),
                    Event::Claimed { epoch, .. } => *epoch = None,
                    _ => {}
                }
            }
            let takes = if self.is_tame || !self.is_hostile() { 1 } else { self.rng.of(&[0, 1, 1, 5, 1_500]) };
            let node = &mut self.nodes[at];
            node.store_at = node.store_at.max(self.now + takes);
            let at = node.store_at;
            self.at(at, Happening::Give(id, event));
        }
        let requests = std::mem::take(&mut *self.net.lock().unwrap_or_else(PoisonError::into_inner));
        requests.into_iter().try_for_each(|request| self.begin(request))
    }

    /// What the driver just asked the store for is not written.
    fn fail_store(&mut self, gate: std::sync::mpsc::Sender<()>) {
        self.fail_next_store = false;
        self.trouble = self.trouble.max(self.now);
        self.seen.insert("store fails");
        let fail = |_: &mut desist_engine::engine::Ctx<'_>| Err(StoreError::Database("it fails".into()));
        assert!(self.engine.submit_and_forget(Lane::Interactive, fail));
        drop(gate);
        self.settle();
    }

    /// The machine loses what was not on disk.
    fn power_cut(&mut self) {
        self.seen.insert("power cut");
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for id in ids {
            self.end_node(id);
        }
        self.settle();
        let image = Home::image(&self.home, self.seed);
        self.engine.close();
        self.home = image;
        self.home.env.set_ms(self.unix_ms());
        self.engine = self.home.open();
        self.settle();
        self.at(self.now + 1_000, Happening::Start);
    }

    fn lease_ms(&self) -> u64 {
        self.places.iter().map(|place| place.config.lease_ms).max().unwrap_or(0)
    }

    fn freeze(&mut self, id: u64) {
        let lease = self.lease_ms();
        let takes = self.rng.of(&[2_000, 9_000, lease + 3_000, lease + 60_000]);
        self.note(format_args!("node {id} freezes for {takes} ms"));
        self.seen.insert("freeze");
        self.trouble = self.trouble.max(self.now + takes);
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.frozen = true;
        }
        self.at(self.now + takes, Happening::Thaw(id));
        if takes > lease && self.rng.one_in(2) {
            self.at(self.now + lease + 1, Happening::TakeOver(id));
        }
    }

    fn take_over(&mut self, id: u64) -> Failed {
        if !self.is_frozen(id) || self.nodes.len() > 1 {
            return Ok(());
        }
        self.seen.insert("take-over");
        self.new_node()?;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.is_superseded = true;
        }
        Ok(())
    }

    fn thaw(&mut self, id: u64) -> Failed {
        let unix_ms = self.unix_ms();
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else { return Ok(()) };
        node.frozen = false;
        let now = Now { unix_ms, mono_ms: node.base() + self.now };
        if node.is_superseded && node.driver.status(now).iter().any(|status| status.lane.is_none()) {
            // It would ask for that lease again at once, and have it.
            self.end_node(id);
            return Ok(());
        }
        let (kept, is_superseded) = (std::mem::take(&mut node.kept), node.is_superseded);
        self.note(format_args!("node {id} thaws"));
        self.trouble = self.trouble.max(self.now);
        if is_superseded {
            // It would ask for the leases again.
            self.at(self.now + 900, Happening::Retire(id));
        }
        // What it did before it was frozen may be forgotten with its leases.
        self.paused.clear();
        for place in 0..self.places.len() {
            *self.lives.entry((id, place)).or_default() += 1;
        }
        for event in kept {
            self.give(id, event)?;
        }
        self.drive(id, Driver::tick)?;
        if is_superseded { Ok(()) } else { self.configure_node(id) }
    }

    // Calls.

    fn begin(&mut self, request: Request) -> Failed {
        let Request { node, place, errand, within, done } = request;
        let (mut targets, is_send) = (BTreeSet::new(), matches!(errand, Errand::Send(_)));
        if let Errand::Send(messages) | Errand::Check(messages) = &errand {
            targets.extend(messages.iter().map(|message| message.target));
        }
        self.note(format_args!("node {node} calls {place}: {errand:?}"));
        if self.trace
            && let Errand::Send(messages) | Errand::Check(messages) = &errand
        {
            for message in messages {
                let who: Vec<_> = message.identifiers.iter().map(|known| self.who(known.sha256)).collect();
                println!("    {:?} {who:?}: denied {:?}, allowed {:?}", message.target, message.denied, message.allowed);
            }
        }
        self.check_call(node, place, &errand)?;
        let (is_hostile, unix_ms) = (self.is_hostile(), self.unix_ms() as u64);
        let answer = self.places[place].answer(self.now, &errand, within, is_hostile);
        self.note(format_args!("  {place} answers {:?} {:?} after {} ms", answer.outcome, answer.reports, answer.after));
        if answer.outcome != Outcome::NotSent {
            self.places[place].calls.push(unix_ms);
        }
        self.next += 1;
        let call = self.next;
        let life = self.lives.get(&(node, place)).copied().unwrap_or_default();
        let clear = answer.clear.map(|after| self.now + after);
        self.open.insert(call, Open { node, life, place, targets, is_send, ended: None, clear });
        for (after, items) in &answer.effects {
            self.at(self.now + after, Happening::Effect(place, call, items.clone()));
        }
        self.at(self.now + answer.after, Happening::Answer(call));
        self.answers.insert(call, (done, answer));
        Ok(())
    }

    fn answered(&mut self, call: u64) {
        let Some((done, answer)) = self.answers.remove(&call) else { return };
        done(ended(&answer));
        let now = self.now;
        let Some(open) = self.open.get_mut(&call) else { return };
        open.ended = Some(now);
        let id = open.node;
        self.open.retain(|_, open| open.ended.is_none() || open.clear.is_some_and(|clear| clear > now));
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else { return };
        let posted = std::mem::take(&mut *node.posted.lock().unwrap_or_else(PoisonError::into_inner));
        for event in posted {
            self.at(now, Happening::Give(id, event));
        }
    }

    pub fn life(&self, node: u64, place: usize) -> u64 {
        self.lives.get(&(node, place)).copied().unwrap_or_default()
    }

    // Destinations.

    fn weather(&mut self) {
        let place = self.rng.below(self.places.len() as u64) as usize;
        if self.places[place].is_angel {
            return;
        }
        let fair = [Mood::Fine, Mood::Flaky, Mood::Slow, Mood::Silent, Mood::Away, Mood::Broken, Mood::Throttling, Mood::NoCredentials];
        let mut mood = self.rng.of(&fair);
        if self.places[place].reads() && self.rng.one_in(4) {
            mood = Mood::Lying;
        }
        self.note(format_args!("place {place} is {mood:?}"));
        self.places[place].mood = mood;
    }

    fn operate(&mut self) -> Failed {
        let place = self.rng.below(self.places.len() as u64) as usize;
        let no = self.places[place].no;
        if self.places[place].is_angel {
            return Ok(());
        }
        let Some(id) = self.nodes.iter().find(|node| !node.frozen && !node.is_superseded).map(|node| node.id) else { return Ok(()) };
        let act = self.rng.below(4);
        // What is tried again is no dead letter for a moment.
        self.trouble = self.trouble.max(self.now);
        self.note(format_args!("operator does {act} to {place}"));
        match act {
            0 => {
                let unix_ms = self.unix_ms();
                self.paused.entry(place).or_insert(unix_ms);
                self.drive(id, |driver, now| driver.pause(now, no, true))
            }
            1 => {
                self.paused.remove(&place);
                self.drive(id, |driver, now| driver.pause(now, no, false))
            }
            2 => self.drive(id, |driver, now| driver.try_now(now, no)),
            _ => self.drive(id, |driver, now| {
                driver.replay(now, no, Replay::All);
            }),
        }
    }

    fn configure(&mut self) -> Failed {
        let place = self.rng.below(self.places.len() as u64) as usize;
        if self.places[place].is_angel {
            return Ok(());
        }
        self.seen.insert("configured");
        let act = self.rng.below(5);
        self.note(format_args!("place {place} is configured: {act}"));
        let one = &mut self.places[place];
        match act {
            // Nothing that counts.
            0 => {}
            1 => {
                one.revision += 1;
                one.config.generation += 1;
                one.purposes = self.rng.of(&[PurposeSet::GPC, PurposeSet::SALE, PurposeSet::SHARING]);
            }
            2 => {
                one.revision += 1;
                one.config.concurrency = self.rng.of(&[1, 3]);
            }
            3 => one.has_way = !one.has_way,
            _ => one.is_configured = !one.is_configured,
        }
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for id in ids {
            *self.lives.entry((id, place)).or_default() += 1;
        }
        self.trouble = self.trouble.max(self.now);
        self.paused.remove(&place);
        self.reconfigure()
    }

    /// An operator cares for whatever does not come right by itself.
    fn nurse(&mut self) -> Failed {
        if self.now < HEAL + 15 * MINUTE {
            self.at(self.now + 90_000, Happening::Nurse);
        }
        self.start()?;
        let ids: Vec<_> = self.nodes.iter().filter(|node| !node.frozen && !node.is_superseded).map(|node| node.id).collect();
        let numbers: Vec<_> = self.places.iter().map(|place| place.no).collect();
        for id in ids {
            for no in &numbers {
                self.paused.clear();
                self.drive(id, |driver, now| {
                    driver.pause(now, *no, false);
                    driver.replay(now, *no, Replay::All);
                    driver.try_now(now, *no);
                })?;
            }
        }
        Ok(())
    }

    // People.

    /// Which identifier that is.
    pub fn who(&self, digest: Digest) -> usize {
        self.identifiers.iter().position(|(_, text)| sha(text) == digest).unwrap_or(usize::MAX)
    }

    fn named(&self, who: usize) -> Named {
        let (kind, text) = &self.identifiers[who];
        named(&self.engine, *kind, text)
    }

    fn given(&self, who: usize) -> Vec<Given> {
        let (kind, text) = &self.identifiers[who];
        given(&self.engine, *kind, text)
    }

    /// The identifiers of this world that destinations can be told of.
    pub fn people(&self) -> impl Iterator<Item = (Kind, Digest, Named)> {
        let told = self.identifiers.iter().enumerate().filter(|(_, (kind, _))| *kind != Kind::CookieId);
        told.map(|(at, (kind, text))| (*kind, sha(text), self.named(at)))
    }

    fn choose(&mut self) -> Failed {
        // What was owed and is met is not part of what will be owed now.
        self.settle_debts()?;
        let (emails, all) = (8, self.identifiers.len() as u64);
        let email = self.people.below(emails) as usize;
        let customer = 8 + self.people.below(4) as usize;
        let any = self.people.below(all) as usize;
        let purposes = self.people.of(&[PurposeSet::OPT_OUT_DEFAULT, PurposeSet::OPT_OUT_DEFAULT, PurposeSet::SALE, PurposeSet::SHARING]);
        let by = Actor::Key(1);
        let act = self.people.below(14);
        self.note(format_args!("choice {act}: {email} {customer} {any} {purposes:?}"));
        let person = |world: &Self, who: &[usize]| -> (Vec<Named>, Vec<Given>) {
            (who.iter().map(|one| world.named(*one)).collect(), who.iter().flat_map(|one| world.given(*one)).collect())
        };
        match act {
            0..4 => {
                let (named, given) = person(self, &[email]);
                submit(&self.engine, NewRequest { given, purposes, ..opt_out(named) }).map_err(|why| why.to_string())?;
            }
            4 | 5 => {
                self.seen.insert("several");
                let (named, given) = person(self, &[customer, email]);
                submit(&self.engine, NewRequest { given, purposes, ..opt_out(named) }).map_err(|why| why.to_string())?;
            }
            6 => {
                // By a name that nobody knows in clear.
                submit(&self.engine, NewRequest { purposes, ..opt_out(vec![self.named(any)]) }).map_err(|why| why.to_string())?;
            }
            7..10 => {
                let who = if self.people.one_in(3) { customer } else { email };
                confirmed(&self.engine, vec![self.named(who)], purposes);
            }
            10 | 11 => {
                let (named, given) = person(self, &[customer, email]);
                let link = move |ctx: &mut desist_engine::engine::Ctx<'_>| intake::link(ctx, &named, &given, by);
                let _ = self.engine.submit_blocking(Lane::Interactive, link);
            }
            12 => {
                let (named, _) = person(self, &[customer, email]);
                let _ = self.engine.submit_blocking(Lane::Interactive, move |ctx| intake::unlink(ctx, &named, by));
            }
            _ if self.people.one_in(2) => self.import(email, any, purposes),
            _ => self.profile(email),
        }
        self.look_at_verdicts();
        let soon = self.now + if self.is_tame { 0 } else { self.people.below(50) };
        self.at(soon, Happening::Changed);
        if self.people.one_in(4) && self.is_hostile() {
            // Not what they wanted.
            let soon = self.now + self.people.below(15_000);
            self.at(soon, Happening::Choice);
        }
        Ok(())
    }

    fn import(&mut self, email: usize, any: usize, purposes: PurposeSet) {
        self.imports += 1;
        let chunk = ImportChunk {
            import: [self.imports; 32],
            first_row: 0,
            rows: 2,
            people: vec![vec![self.named(email)], vec![self.named(any)]],
            given: self.given(email),
            purposes,
            acted_at: None,
            last: true,
            by: Actor::Local,
        };
        self.engine.submit_blocking(Lane::Bulk, move |ctx| intake::import(ctx, &chunk)).expect("taken");
    }

    fn profile(&mut self, email: usize) {
        let pkey = format!("p{}", email % 2);
        let engine = self.engine.clone();
        if self.people.one_in(3) {
            let pkey = Identifier::from_value(Kind::CampaignPkey, &pkey).expect("valid").0;
            let _ = engine.submit_blocking(Lane::Interactive, move |ctx| profiles::delete(ctx, &pkey, Actor::Key(1)));
            return;
        }
        let (named, given) = (self.named(email), self.given(email));
        let new = NewProfile {
            pkey,
            attributes: b"{}".to_vec(),
            identifiers: vec![named],
            email: Some(named),
            opt_out: self.people.one_in(2),
            evidence: b"{}".to_vec(),
            given,
            by: Actor::Key(1),
        };
        let _ = engine.submit_blocking(Lane::Interactive, move |ctx| profiles::create(ctx, &new));
    }

    /// Writes down what happens, for the digest of the history and for people who look for a reason.
    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let text = format!("{} {what}", self.now);
        if self.trace {
            println!("{text}");
        }
        self.history = text.bytes().fold(self.history, |all, byte| all.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    }
}
