//! One destination: what it knows, how it behaves today, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desist_core::identifier::Kind;
use desist_core::lane::{Config, Failure, Jobs, Level, Outcome, Patrol, PatrolKind, Rate, Report, Target};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{Class, Destination};

use super::{MINUTE, Rng};

/// One round of any patrol.
pub const PERIOD: u64 = 10 * MINUTE;

pub type Digest = [u8; 32];

/// What it does with whatever it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Fine,
    /// Any of the others, now and then.
    Flaky,
    /// Answers late, and some not at all.
    Slow,
    Silent,
    Away,
    Broken,
    Throttling,
    NoCredentials,
    /// Says that it did what it did not.
    Lying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Names each target that failed.
    Items,
    /// Says that some failed.
    Count,
    /// Says later.
    Job,
}

/// How it refuses one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apple {
    /// Until it is cured.
    Refused,
    /// For good.
    Rotten,
    /// Fails whenever it is named.
    Explodes,
}

/// What a message asks for, as far as this destination takes it.
#[derive(Clone, Debug)]
pub struct Item {
    pub target: Target,
    pub version: u64,
    pub denied: PurposeSet,
    pub allowed: PurposeSet,
    pub digests: Vec<Digest>,
}

#[derive(Clone, Debug)]
pub struct PlaceJob {
    /// When it is over.
    pub done: u64,
    pub fails: bool,
    /// Whom it does not do.
    pub bad: Vec<(Target, Apple)>,
}

/// A call that reached the transport.
pub struct Request {
    pub node: u64,
    pub place: usize,
    pub errand: Errand,
    pub within: u64,
    pub done: Done,
}

/// Calls that were begun and that the world has not looked at yet.
pub type Net = Arc<Mutex<Vec<Request>>>;

/// The way from one node to one destination.
pub struct Wire {
    pub node: u64,
    pub place: usize,
    pub kinds: BTreeSet<Kind>,
    pub net: Net,
}

impl Transport for Wire {
    fn start(&self, errand: Errand, within: Duration, done: Done) {
        let within = within.as_millis() as u64;
        self.net.lock().expect("whole").push(Request { node: self.node, place: self.place, errand, within, done });
    }

    fn reaches(&self, message: &Message) -> bool {
        message.identifiers.iter().any(|known| self.kinds.contains(&known.kind))
    }
}

/// How a call ends, and what of it takes effect when.
pub struct Answer {
    pub after: u64,
    pub outcome: Outcome,
    pub reports: Vec<(Target, Report)>,
    pub effects: Vec<(u64, Vec<Item>)>,
    /// Until when something of it may take effect, as far as anybody can know; none: as long as its job runs.
    pub clear: Option<u64>,
}

#[expect(clippy::struct_excessive_bools, reason = "the dials of a destination")]
pub struct Place {
    pub no: u32,
    pub id: String,
    pub kinds: BTreeSet<Kind>,
    pub purposes: PurposeSet,
    pub config: Config,
    pub revision: u8,
    pub dialect: Dialect,
    /// What it says of whatever it did.
    pub level: Level,
    /// Whether it keeps the highest version of each thing that it was told.
    pub is_versioned: bool,
    pub is_angel: bool,
    pub has_way: bool,
    pub is_configured: bool,
    pub mood: Mood,
    pub apples: BTreeMap<Digest, Apple>,
    /// Of each person and purpose: the version, and whether it is denied.
    pub truth: BTreeMap<(Digest, u64), (u64, bool)>,
    /// The highest version that it took, that took effect, and that was read back, of each target.
    pub reached: BTreeMap<(Level, Target), u64>,
    /// Whom it lied about, or forgot.
    pub wronged: BTreeSet<Target>,
    pub jobs: BTreeMap<String, PlaceJob>,
    pub calls: Vec<u64>,
    pub last_ok: Option<u64>,
    rng: Rng,
    next_job: u64,
}

impl Place {
    pub fn new(number: usize, rng: &mut Rng, is_angel: bool) -> Self {
        let timeout = rng.of(&[3_000, 10_000]);
        let dialect = if is_angel { Dialect::Items } else { rng.of(&[Dialect::Items, Dialect::Items, Dialect::Count, Dialect::Job]) };
        let level = if dialect == Dialect::Job { Level::Applied } else { rng.of(&[Level::Accepted, Level::Applied, Level::Verified]) };
        let read = Patrol { kind: PatrolKind::Read, period_ms: PERIOD };
        let send = Patrol { kind: PatrolKind::Send, period_ms: PERIOD };
        let patrols = match rng.below(4) {
            0 => Vec::new(),
            1 => vec![send],
            2 => vec![read],
            _ => vec![read, send],
        };
        let rates = match rng.below(4) {
            _ if is_angel => Vec::new(),
            0 => vec![Rate { calls: 10, window_ms: 10_000 }],
            1 => vec![Rate { calls: 5, window_ms: 5_000 }, Rate { calls: 150, window_ms: 5 * MINUTE }],
            _ => Vec::new(),
        };
        let config = Config {
            floor: rng.of(&[Level::Accepted, level]),
            batch_items: rng.of(&[1, 1, 2, 5, 20]),
            linger_ms: rng.of(&[0, 0, 200, 1_000]),
            concurrency: rng.of(&[1, 2, 4]),
            rates,
            request_timeout_ms: timeout,
            lease_ms: timeout * 2 + 1 + rng.of(&[5_000, 40_000]),
            attempts_max: rng.of(&[2, 4, 16]),
            retry_delay_ms: rng.of(&[30_000, 3 * MINUTE]),
            probe: rng.one_in(2),
            jobs: Jobs { every_ms: 15_000, give_up_ms: 5 * MINUTE },
            patrols,
            ..Config::plain(rng.next())
        };
        let kinds = if is_angel || !rng.one_in(3) { vec![Kind::Email] } else { vec![Kind::Email, Kind::CustomerId] };
        Self {
            no: number as u32 + 1,
            id: format!("place-{number}"),
            kinds: kinds.into_iter().collect(),
            purposes: rng.of(&[PurposeSet::GPC, PurposeSet::GPC, PurposeSet::SALE]),
            config,
            revision: 0,
            dialect,
            level,
            is_versioned: rng.one_in(3),
            is_angel,
            has_way: true,
            is_configured: true,
            mood: Mood::Fine,
            apples: BTreeMap::new(),
            truth: BTreeMap::new(),
            reached: BTreeMap::new(),
            wronged: BTreeSet::new(),
            jobs: BTreeMap::new(),
            calls: Vec::new(),
            last_ok: None,
            rng: Rng(rng.next()),
            next_job: 0,
        }
    }

    pub fn destination(&self, node: u64, place: usize, net: &Net) -> Destination {
        let wire = Wire { node, place, kinds: self.kinds.clone(), net: Arc::clone(net) };
        let mut digest = [0; 32];
        (digest[0], digest[1]) = (self.revision, u8::from(self.has_way));
        Destination {
            id: self.id.clone(),
            connector: "test".to_owned(),
            class: Class::ThirdParty,
            purposes: self.purposes,
            digest,
            lane: self.config.clone(),
            required: self.level,
            ceiling: Level::Verified,
            resend_ms: None,
            through: None,
            owner: None,
            transport: if self.has_way { Ok(Arc::new(wire)) } else { Err("no secret".to_owned()) },
        }
    }

    pub fn reads(&self) -> bool {
        self.config.patrols.iter().any(|patrol| patrol.kind == PatrolKind::Read)
    }

    /// Whether what comes too late is put right by something.
    fn is_forgiving(&self) -> bool {
        self.is_versioned || !self.config.patrols.is_empty()
    }

    pub fn item(&self, message: &Message) -> Item {
        let taken = message.identifiers.iter().filter(|known| self.kinds.contains(&known.kind));
        Item {
            target: message.target,
            version: message.version,
            denied: message.denied,
            allowed: message.allowed,
            digests: taken.map(|known| known.sha256).collect(),
        }
    }

    pub fn is_denied(&self, digest: Digest, purpose: PurposeSet) -> Option<bool> {
        self.truth.get(&(digest, purpose.0)).map(|(_, denied)| *denied)
    }

    /// Whether all of it is as the message says.
    pub fn holds(&self, item: &Item) -> bool {
        let is = |purposes: PurposeSet, denied: bool| {
            let of = |purpose| move |digest: &Digest| self.is_denied(*digest, purpose).unwrap_or(false) == denied;
            purposes.iter().all(|purpose| item.digests.iter().all(of(purpose)))
        };
        is(item.denied, true) && is(item.allowed, false)
    }

    /// A part of a message arrives.
    pub fn take_effect(&mut self, items: &[Item]) {
        for item in items {
            for digest in &item.digests {
                for (purposes, denied) in [(item.allowed, false), (item.denied, true)] {
                    for purpose in purposes.iter() {
                        let known = self.truth.entry((*digest, purpose.0)).or_default();
                        if !self.is_versioned || item.version >= known.0 {
                            *known = (item.version, denied);
                        }
                    }
                }
            }
            self.reach(Level::Applied, item);
        }
    }

    pub fn reach(&mut self, level: Level, item: &Item) {
        let reached = self.reached.entry((level, item.target)).or_default();
        *reached = (*reached).max(item.version);
    }

    /// A sync on the other side brings somebody back.
    pub fn forget(&mut self) -> Option<(Digest, PurposeSet)> {
        let told: Vec<_> = self.truth.iter().filter(|(_, (_, denied))| *denied).map(|(key, _)| *key).collect();
        let key = *told.get(self.rng.below(told.len().max(1) as u64) as usize)?;
        self.truth.insert(key, (0, false));
        Some((key.0, PurposeSet(key.1)))
    }

    fn mood_now(&mut self) -> Mood {
        match self.mood {
            Mood::Flaky => self.rng.of(&[Mood::Fine, Mood::Fine, Mood::Fine, Mood::Slow, Mood::Away, Mood::Broken, Mood::Throttling]),
            mood => mood,
        }
    }

    /// How it answers any call that it does not do.
    fn refusal(&mut self, mood: Mood) -> Option<Outcome> {
        let (failure, retry_after_ms) = match mood {
            Mood::Away => (Failure::Connect, None),
            Mood::Broken => (Failure::Server, None),
            Mood::Throttling => (Failure::Throttled, Some(self.rng.of(&[0, 2_000, MINUTE]))),
            Mood::NoCredentials => (Failure::Credentials, None),
            Mood::Silent => (Failure::Ambiguous, None),
            _ => return None,
        };
        Some(Outcome::Failed { failure, retry_after_ms })
    }

    fn pause(&mut self, within: u64) -> u64 {
        let most = if self.mood == Mood::Slow { within } else { 400 };
        1 + self.rng.below(most)
    }

    /// Answers one call at `now`. Whatever takes effect does so by the answer, or for a time-out longer if there is none.
    pub fn answer(&mut self, now: u64, errand: &Errand, within: u64, is_hostile: bool) -> Answer {
        let mood = self.mood_now();
        let after = if mood == Mood::Silent { within } else { self.pause(within) };
        let plain = |outcome| Answer { after, outcome, reports: Vec::new(), effects: Vec::new(), clear: Some(after) };
        match errand {
            Errand::Send(messages) => {
                let items = messages.iter().map(|message| self.item(message));
                let (strangers, items): (Vec<_>, Vec<_>) = items.partition(|item| item.digests.is_empty());
                let strangers = strangers.into_iter().map(|item| (item.target, Report::Unreachable));
                if items.is_empty() {
                    return Answer { reports: strangers.collect(), after: 1, clear: Some(1), ..plain(Outcome::NotSent) };
                }
                let mut answer = self.send(now, items, (mood, after, within), is_hostile);
                answer.reports.extend(strangers);
                answer
            }
            Errand::Check(messages) => {
                if let Some(outcome) = self.refusal(mood) {
                    return plain(outcome);
                }
                let items: Vec<_> = messages.iter().map(|message| self.item(message)).collect();
                let drifted = items.iter().filter(|item| !self.holds(item)).map(|item| (item.target, Report::Drift)).collect();
                Answer { reports: drifted, ..plain(Outcome::Ok(Level::Verified)) }
            }
            Errand::Probe => plain(self.refusal(mood).unwrap_or(Outcome::Ok(Level::Accepted))),
            Errand::Poll(handle) => match self.refusal(mood) {
                Some(outcome) => plain(outcome),
                None => self.poll(now, handle, after),
            },
        }
    }

    fn poll(&mut self, now: u64, handle: &str, after: u64) -> Answer {
        let mut reports = Vec::new();
        let outcome = match self.jobs.get(handle) {
            Some(job) if job.done > now => Outcome::Pending,
            Some(PlaceJob { fails: true, .. }) | None => Outcome::Rejected { is_retryable: true, code: 9 },
            Some(job) => {
                reports.extend(job.bad.iter().map(|(target, apple)| (*target, refuse(*apple))));
                Outcome::Ok(Level::Applied)
            }
        };
        Answer { after, outcome, reports, effects: Vec::new(), clear: Some(after) }
    }

    fn apple(&self, item: &Item) -> Option<Apple> {
        item.digests.iter().find_map(|digest| self.apples.get(digest).copied())
    }

    pub fn has_apple(&self, item: &Item) -> bool {
        self.apple(item).is_some()
    }

    fn send(&mut self, now: u64, items: Vec<Item>, (mood, after, within): (Mood, u64, u64), is_hostile: bool) -> Answer {
        let nothing = |outcome, after, clear| Answer { after, outcome, reports: Vec::new(), effects: Vec::new(), clear: Some(clear) };
        let is_lost = mood == Mood::Silent || (mood == Mood::Slow && self.rng.one_in(3));
        if is_lost {
            // A connection that breaks, or nobody who answers; it may have been heard all the same, or is heard later.
            let after = if self.rng.one_in(3) { after } else { within };
            let late = if self.is_forgiving() { 4 * within } else { after + within };
            let mut effects = Vec::new();
            for _ in 0..self.rng.below(3) {
                effects.push((self.rng.below(late), items.clone()));
            }
            let outcome = Outcome::Failed { failure: Failure::Ambiguous, retry_after_ms: None };
            return Answer { effects, ..nothing(outcome, after, after + within) };
        }
        if let Some(outcome) = self.refusal(mood) {
            let failed_late = mood == Mood::Broken && self.rng.one_in(3);
            let effects = if failed_late { vec![(self.rng.below(after), items)] } else { Vec::new() };
            return Answer { effects, ..nothing(outcome, after, after) };
        }
        let apples: Vec<_> = items.iter().map(|item| self.apple(item)).collect();
        if apples.contains(&Some(Apple::Explodes)) {
            return nothing(Outcome::Failed { failure: Failure::Server, retry_after_ms: None }, after, after);
        }
        self.last_ok = Some(now);
        let unlucky = |place: &mut Self| (place.mood == Mood::Flaky && place.rng.one_in(6)).then_some(Apple::Refused);
        let apples: Vec<_> = apples.into_iter().map(|apple| apple.or_else(|| unlucky(self))).collect();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (item, apple) in items.iter().zip(apples) {
            match apple {
                Some(apple) => bad.push((item.target, apple)),
                None => good.push(item.clone()),
            }
        }
        if self.dialect == Dialect::Job {
            return self.begin_job(now, (items, good, bad), after, is_hostile);
        }
        let lies = mood == Mood::Lying && self.rng.one_in(2);
        if lies {
            self.wronged.extend(good.iter().map(|item| item.target));
        }
        let mut effects = vec![(self.rng.below(after), if lies { Vec::new() } else { good.clone() })];
        if self.rng.one_in(8) && !lies {
            let again = if self.is_forgiving() && is_hostile && !self.is_angel { 3 * within } else { after };
            effects.push((self.rng.below(again), good.clone()));
        }
        if self.dialect == Dialect::Count && !bad.is_empty() {
            let is_retryable = bad.iter().all(|(_, apple)| *apple == Apple::Refused);
            return Answer { effects, ..nothing(Outcome::SomeFailed { is_retryable, code: 1 }, after, after) };
        }
        for item in &good {
            let most = self.level;
            for level in [Level::Accepted, Level::Verified].into_iter().filter(|level| *level <= most) {
                self.reach(level, item);
            }
        }
        let reports = bad.into_iter().map(|(target, apple)| (target, refuse(apple))).collect();
        Answer { reports, effects, ..nothing(Outcome::Ok(self.level), after, after) }
    }

    fn begin_job(&mut self, now: u64, parts: (Vec<Item>, Vec<Item>, Vec<(Target, Apple)>), after: u64, is_hostile: bool) -> Answer {
        let (items, good, bad) = parts;
        for item in &items {
            self.reach(Level::Accepted, item);
        }
        let takes = if is_hostile { self.rng.of(&[1_000, 40_000, 2 * MINUTE, u64::MAX / 4]) } else { 4_000 };
        let fails = is_hostile && self.rng.one_in(5);
        self.next_job += 1;
        let handle = format!("job {}", self.next_job);
        let effects = if fails || takes > PERIOD { Vec::new() } else { vec![(after + takes - 1, good)] };
        self.jobs.insert(handle.clone(), PlaceJob { done: now + after + takes, fails, bad });
        Answer { after, outcome: Outcome::Job(handle), reports: Vec::new(), effects, clear: None }
    }
}

fn refuse(apple: Apple) -> Report {
    Report::Failed { is_retryable: apple == Apple::Refused, code: 2 }
}

/// How an answer is told to a driver.
pub fn ended(answer: &Answer) -> Ended {
    Ended { left: answer.outcome != Outcome::NotSent, outcome: answer.outcome.clone(), reports: answer.reports.clone(), answer: None }
}
