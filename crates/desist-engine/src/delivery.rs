//! Delivery: every destination is told what holds, and what is known about that.

mod driver;
mod evidence;
mod people;
mod shown;
pub mod transport;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use desist_core::fact::{Actor, AlarmKind, Digest, Fact};
use desist_core::graph::{Graph, Party};
use desist_core::lane::{Assurance, Config, Level, Now, Parked, Replay, Status, Target};
use desist_core::mark::IdentifierNo;
use desist_core::purpose::PurposeSet;
use desist_store::{Owner, Read, RequestRow, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::driver::{Driver, Event, Post};
pub use self::evidence::Asked;
use self::transport::{Message, Transport};
use crate::alerts::About;
use crate::engine::{Ctx, Engine, Failure, Refusal, Shared};
use crate::intake::Outcome;
use crate::queue::Lane;
use crate::vault;

/// Most destinations of a business.
pub const DESTINATIONS_MAX: usize = 1_000;
/// How long a stop waits for calls that are under way.
const DRAIN: Duration = Duration::from_secs(12);
/// Most events between two looks at the clock.
const EVENTS_MAX: usize = 256;

/// What the recipient of personal data is under the law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It gets data for purposes of its own.
    ThirdParty,
    /// It works for the business under a contract (CCPA 1798.140(ag)).
    ServiceProvider,
    /// The business makes data available to it under a contract (CCPA 1798.140(j)).
    Contractor,
    /// A system of the business itself.
    Internal,
}

/// A system that must be told.
#[derive(Clone)]
pub struct Destination {
    /// Its id in the configuration.
    pub id: String,
    /// Its connector's id.
    pub connector: String,
    /// What it is under the law.
    pub class: Class,
    /// The purposes that it is bound to.
    pub purposes: PurposeSet,
    /// Digest of all of its configuration; another one begins a new life of its lane.
    pub digest: [u8; 32],
    /// How it is to be told.
    pub lane: Config,
    /// The level at which it counts as enforced.
    pub required: Level,
    /// The highest level that its connector can reach.
    pub ceiling: Level,
    /// What it was told does not last: it counts only while it is told again within so many milliseconds.
    pub resend_ms: Option<u64>,
    /// People tell it by hand: up to this entry it was done. The lane goes no further.
    pub through: Option<u64>,
    /// Who does that.
    pub owner: Option<String>,
    /// The way to it, or why there is none.
    pub transport: Result<Arc<dyn Transport>, String>,
}

/// A destination in words and numbers.
#[derive(Clone, Debug)]
pub struct DestinationStatus {
    /// Its number in the log.
    pub no: u32,
    /// Its id.
    pub id: String,
    /// Its connector's id.
    pub connector: String,
    /// What it is under the law.
    pub class: Class,
    /// The purposes that it is bound to.
    pub purposes: PurposeSet,
    /// The level at which it counts as enforced.
    pub required: Level,
    /// The highest level that its connector can reach.
    pub ceiling: Level,
    /// Its lane; none before it has a lease.
    pub lane: Option<Status>,
    /// Why it cannot be called.
    pub missing: Option<String>,
    /// What went wrong last, if nothing worked since.
    pub problem: Option<String>,
    /// Its alarms, each with the Unix second since when this process knows it.
    pub alarms: Vec<(AlarmKind, i64)>,
    /// Told by hand up to this entry.
    pub through: Option<u64>,
    /// Who tells it by hand.
    pub owner: Option<String>,
}

/// A parked target or a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedTarget {
    /// Whom it is about.
    pub target: Target,
    /// Since when, how often, why.
    pub parked: Parked,
    /// The destination's own code, if this process knows it.
    pub code: Option<String>,
}

/// What an operator does to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Stops it.
    Pause,
    /// Lets it go on.
    Resume,
    /// Has so many dead letters tried again.
    Replayed(u64),
    /// Has it tried at once.
    TryNow,
}

/// Where a party stands at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The destination's number.
    pub no: u32,
    /// Its id.
    pub id: String,
    /// What is known.
    pub assurance: Assurance,
    /// The level at which it counts as enforced.
    pub required: Level,
}

/// Where a request stands at all destinations together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// It is recorded, and every decision denies; not every destination is there yet, or there is none.
    Received,
    /// Every destination in scope is at its level, and there is at least one.
    Enforced,
    /// No destination in scope can be told, since none knows whom it is about.
    Unreachable,
    /// Every destination in scope that can be asked said that it does not have the person.
    Absent,
}

/// Why a question about destinations has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing is delivered by this process.
    #[error("nothing is delivered by this process; ask the server")]
    NotServing,
    /// There is no such destination.
    #[error("there is no such destination")]
    NotFound,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The command.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Delivery, as the rest of the engine sees it.
#[derive(Default)]
pub struct Delivery {
    events: Mutex<Option<Sender<Event>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// A change was announced that the driver has not looked at yet.
    announced: Arc<AtomicBool>,
}

impl Delivery {
    /// Something was committed that a destination may have to hear.
    pub(crate) fn changed(&self) {
        if !self.announced.swap(true, Ordering::AcqRel) && !self.post(Event::Changed) {
            // Lanes that begin later read all there is.
            self.announced.store(false, Ordering::Release);
        }
    }

    fn post(&self, event: Event) -> bool {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.as_ref().is_some_and(|events| events.send(event).is_ok())
    }

    /// Ends what is under way, writes the books, and ends the thread.
    pub(crate) fn stop(&self) {
        self.post(Event::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the destinations ended with a panic");
        }
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn start(&self, shared: &Arc<Shared>) -> std::io::Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.is_some() {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let posted = sender.clone();
        // Nobody listens after a stop; what ends then is doubtful at the next start.
        let post: Post = Arc::new(move |event| drop(posted.send(event)));
        let (shared, announced) = (Arc::clone(shared), Arc::clone(&self.announced));
        let thread = std::thread::Builder::new().name("delivery".into()).spawn(move || {
            let run = || drive(&shared, &receiver, post, &announced);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                // Nobody would be told any more, and nobody would hear of it. What was acknowledged is on disk, and a restart begins there.
                tracing::error!("the thread of the destinations ended with a panic: stopping");
                std::process::abort();
            }
        })?;
        // Nobody listened to what was announced before; what comes from here on is announced again.
        self.announced.store(false, Ordering::Release);
        *events = Some(sender);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }
}

/// Runs a driver until it is told to stop.
fn drive(shared: &Arc<Shared>, receiver: &mpsc::Receiver<Event>, post: Post, announced: &AtomicBool) {
    let begin = Instant::now();
    let now = || Now { unix_ms: shared.env.now_ms(), mono_ms: begin.elapsed().as_millis() as u64 };
    let mut driver = Driver::new(Arc::clone(shared), post);
    let mut stop_at: Option<Instant> = None;
    loop {
        driver.tick(now());
        if stop_at.is_some_and(|at| driver.is_drained() || at <= Instant::now()) {
            return;
        }
        let mut wait = Duration::from_millis(driver.next_ms().saturating_sub(now().mono_ms).max(1));
        if let Some(at) = stop_at {
            wait = wait.min(at.saturating_duration_since(Instant::now()));
        }
        for _ in 0..EVENTS_MAX {
            let event = match receiver.recv_timeout(wait) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            wait = Duration::ZERO;
            match event {
                Event::Changed => announced.store(false, Ordering::Release),
                Event::Stop => stop_at = Some(Instant::now() + DRAIN),
                _ => {}
            }
            driver.step(now(), event);
        }
    }
}

/// The name under which the entry that declared a destination is kept.
fn declared_by(no: u32) -> String {
    format!("declared_by/{no}")
}

/// The name under which it is kept up to where a destination was told by hand.
fn by_hand(no: u32) -> String {
    format!("by_hand/{no}")
}

impl Engine {
    /// Keeps these destinations up to date from now on, and no others. Those that are new get their numbers.
    pub fn deliver(&self, mut destinations: Vec<Destination>) -> Result<(), AskError> {
        let ids: Vec<String> = destinations.iter().map(|destination| destination.id.clone()).collect();
        let known = self.read(|read| read.destinations())?;
        if ids.iter().any(|id| known.iter().all(|(_, known)| known != id)) {
            let ids = ids.clone();
            self.submit_blocking(Lane::Interactive, move |ctx| {
                let known = ctx.write.destinations()?;
                let next = known.iter().map(|(no, _)| no + 1).max().unwrap_or(1);
                let new = ids.iter().filter(|id| known.iter().all(|(_, known)| known != *id));
                for (next, id) in (next..).zip(new) {
                    let seq = ctx
                        .batch
                        .emit(ctx.write, Fact::DestinationDeclared { destination: next, id: Digest(Sha256::digest(id).into()) })?;
                    ctx.write.put_meta(&declared_by(next), &seq.to_be_bytes())?;
                    ctx.write.put_destination(next, id)?;
                }
                Ok(Ok(()))
            })?;
        }
        let generations: Vec<u64> = destinations.iter().map(|destination| destination.lane.generation).collect();
        let numbered = self.read(|read| {
            let known = read.destinations()?;
            let no = |id: &String| known.iter().find(|(_, known)| known == id).map(|(no, _)| *no);
            let mut numbered = Vec::new();
            for (place, id) in ids.iter().enumerate() {
                let no = no(id).ok_or_else(|| StoreError::Damaged("a destination has no number".into()))?;
                numbered.push((place, no, told_through(read, no, generations[place])?));
            }
            Ok(numbered)
        })?;
        let mut given = Vec::with_capacity(numbered.len());
        for (place, no, through) in numbered.into_iter().rev() {
            let mut destination = destinations.remove(place);
            destination.through = destination.through.map(|_| through);
            given.push((no, destination));
        }
        self.shared().delivery.start(self.shared_arc()).map_err(|error| StoreError::Database(format!("cannot start a thread: {error}")))?;
        self.ask(move |driver, now| driver.configure(now, given))
    }

    /// A driver over this engine's store that nothing runs yet: for a simulator, which brings its own time.
    pub fn driver(&self, post: Post) -> Driver {
        Driver::new(Arc::clone(self.shared_arc()), post)
    }

    /// Runs a question in the thread that owns the lanes, and waits for the answer.
    pub fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Driver, Now) -> T + Send + 'static) -> Result<T, AskError> {
        let (reply, answer) = mpsc::channel();
        let ask = Event::Ask(Box::new(move |driver, now| drop(reply.send(question(driver, now)))));
        if !self.shared().delivery.post(ask) {
            return Err(AskError::NotServing);
        }
        answer.recv().map_err(|_| AskError::NotServing)
    }

    /// Every destination in words and numbers.
    pub fn destinations(&self) -> Result<Vec<DestinationStatus>, AskError> {
        self.ask(Driver::status)
    }

    /// Parked targets and dead letters of a destination after a place in their order, at most `limit`.
    pub fn parked(&self, id: &str, after: Option<Target>, limit: usize) -> Result<Vec<ParkedTarget>, AskError> {
        let id = id.to_owned();
        self.ask(move |driver, _| driver.number(&id).and_then(|no| driver.parked(no, after, limit)))?.ok_or(AskError::NotFound)
    }

    /// Stops a destination, lets it go on, or has it tried at once.
    pub fn act(&self, id: &str, act: Act, by: Actor) -> Result<(), AskError> {
        let no = self.number(id)?;
        if let Some(fact) = driver::act_of(no, act, by) {
            self.submit_blocking(Lane::Interactive, move |ctx| ctx.batch.emit(ctx.write, fact.clone()).map(|_| Ok(())))?;
        }
        self.ask(move |driver, now| match act {
            Act::Pause => driver.pause(now, no, true),
            Act::Resume => driver.pause(now, no, false),
            Act::TryNow => driver.try_now(now, no),
            Act::Replayed(_) => {}
        })
    }

    /// Has dead letters tried again: how many.
    pub fn replay(&self, id: &str, which: Replay, by: Actor) -> Result<usize, AskError> {
        let no = self.number(id)?;
        let count = self.ask(move |driver, now| driver.replay(now, no, which))?;
        if count > 0 {
            self.act(id, Act::Replayed(count as u64), by)?;
        }
        Ok(count)
    }

    /// Records that a destination was told by hand of everything up to an entry. Name and evidence go into the vault.
    pub fn told_by_hand(&self, id: &str, through: u64, evidence: &[u8], by: Actor) -> Result<(), AskError> {
        let no = self.number(id)?;
        let generation = self.ask(move |driver, _| driver.by_hand(no))?.ok_or(AskError::NotFound)?;
        let evidence = evidence.to_vec();
        self.submit_blocking(Lane::Interactive, move |ctx| tell_by_hand(ctx, no, through, generation, &evidence, by))?;
        self.ask(move |driver, now| driver.told_by_hand(now, no, through))
    }

    /// Where a party stands at every destination, as to what is denied for any of these purposes.
    pub fn standings(&self, party: Party, denied: PurposeSet) -> Result<Vec<Standing>, AskError> {
        Ok(self.ask(move |driver, now| driver.standings(now, party, denied))??)
    }

    /// Where a request stands at all destinations together, and at each.
    pub fn enforcement(&self, row: &RequestRow) -> Result<(Enforcement, Vec<Standing>), AskError> {
        let mut all: Vec<Standing> = Vec::new();
        for party in self.read(|read| shown::parties(read, row))? {
            merge(&mut all, self.standings(party, row.purposes)?);
        }
        Ok((enforcement(&all), all))
    }

    fn number(&self, id: &str) -> Result<u32, AskError> {
        let id = id.to_owned();
        self.ask(move |driver, _| driver.number(&id))?.ok_or(AskError::NotFound)
    }

    /// The alarms of destinations that stand now.
    pub(crate) fn destination_alarms(&self) -> Vec<(About, i64)> {
        let Ok(status) = self.destinations() else { return Vec::new() };
        let of = |status: DestinationStatus| {
            let id: Arc<str> = status.id.into();
            status.alarms.into_iter().map(move |(kind, since)| (About { kind, destination: Some(Arc::clone(&id)) }, since))
        };
        status.into_iter().flat_map(of).collect()
    }
}

/// Of two assurances about one person at one destination the one that says less; what is not needed says nothing.
fn worse(one: Assurance, other: Assurance) -> Assurance {
    match (one, other) {
        (Assurance::At(one), Assurance::At(other)) => Assurance::At(one.min(other)),
        // Whoever is reached under another name is reached.
        (known @ Assurance::At(_), _) | (_, known @ Assurance::At(_)) => known,
        (Assurance::NotNeeded, other) | (other, Assurance::NotNeeded) => other,
        // Under the other name it may be there.
        (Assurance::Unreachable, _) | (_, Assurance::Unreachable) => Assurance::Unreachable,
        (Assurance::Absent, Assurance::Absent) => Assurance::Absent,
    }
}

/// What follows from where a person stands at each destination.
pub fn enforcement(standings: &[Standing]) -> Enforcement {
    let mut reached = standings.iter().filter_map(|standing| match standing.assurance {
        Assurance::At(level) => Some(level >= standing.required),
        Assurance::NotNeeded | Assurance::Unreachable | Assurance::Absent => None,
    });
    let any = |assurance| standings.iter().any(|standing| standing.assurance == assurance);
    match reached.next() {
        Some(first) if first && reached.all(|one| one) => Enforcement::Enforced,
        None if any(Assurance::Absent) => Enforcement::Absent,
        None if any(Assurance::Unreachable) => Enforcement::Unreachable,
        _ => Enforcement::Received,
    }
}

/// Up to where a destination was told by hand, of what it is told of now: whoever was told of less has to be told again.
fn told_through(read: &mut dyn Read, no: u32, generation: u64) -> Result<u64, StoreError> {
    let Some(stored) = read.meta(&by_hand(no))? else { return Ok(0) };
    let stored: [u8; 16] = stored.try_into().map_err(|_| StoreError::Damaged(by_hand(no)))?;
    let (through, of) = (&stored[..8], &stored[8..]);
    Ok(if of == generation.to_be_bytes() { u64::from_be_bytes(through.try_into().expect("8 bytes")) } else { 0 })
}

fn tell_by_hand(ctx: &mut Ctx<'_>, no: u32, through: u64, generation: u64, evidence: &[u8], by: Actor) -> Outcome<()> {
    if through > ctx.batch.counters.entries || through <= told_through(ctx.write, no, generation)? {
        return Ok(Err(Refusal::NotFound));
    }
    let env = ctx.shared.env.as_ref();
    let (salted, digest) = vault::commit(evidence, env);
    let seq = ctx.batch.emit(ctx.write, Fact::ToldByHand { destination: no, through, evidence: digest, by })?;
    let owner = Owner::ByHand(seq);
    ctx.write.vault_put(owner, &ctx.shared.vault.seal(owner, &salted, env))?;
    ctx.write.put_meta(&by_hand(no), &[through.to_be_bytes(), generation.to_be_bytes()].concat())?;
    Ok(Ok(()))
}

/// A page of present state for one destination.
pub type PresentPage = (Vec<Arc<Message>>, Option<u64>);

impl Engine {
    /// What holds now for everybody a destination has to hear of, in the order of the feed: at most `limit` parties after a change.
    pub fn present(&self, id: &str, after: u64, limit: usize) -> Result<PresentPage, AskError> {
        let no = self.number(id)?;
        Ok(self.ask(move |driver, _| driver.present(no, after, limit))??)
    }
}

/// As whom destinations are told of an identifier: its holders, or itself where there are none or too many.
pub fn parties_of(read: &mut dyn Read, no: IdentifierNo) -> Result<Vec<Party>, StoreError> {
    let holders = Graph::default().holders(read, no)?;
    Ok(if holders.is_empty() { vec![Party::Identifier(no)] } else { holders.into_iter().map(Party::Subject).collect() })
}

/// Adds what is known about one more party of a person.
pub fn merge(all: &mut Vec<Standing>, more: Vec<Standing>) {
    for standing in more {
        match all.iter_mut().find(|known| known.no == standing.no) {
            Some(known) => known.assurance = worse(known.assurance, standing.assurance),
            None => all.push(standing),
        }
    }
}
