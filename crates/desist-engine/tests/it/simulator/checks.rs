//! What must hold, told from what the destinations know themselves.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::calendar::{CCPA_BUSINESS_DAYS, deadlines};
use desist_core::fact::{AlarmKind, Entry, Fact};
use desist_core::graph::Party;
use desist_core::lane::{Assurance, Level, Now, Patrol, PatrolKind, State, Target};
use desist_core::purpose::PurposeSet;
use desist_engine::clear;
use desist_engine::delivery::DestinationStatus;
use desist_engine::delivery::transport::Errand;

use super::place::{Digest, Item};
use super::world::{Failed, World};
use super::{CALM, END, MINUTE};

/// Within so many milliseconds a destination is up to date that always behaves, whatever happens at the others.
const PROMPT: u64 = 12_000;
/// After what happened to a driver or the store alarms may be so late.
const SLACK: u64 = 4 * MINUTE;

/// A denial that a destination does not have yet.
#[derive(Clone, Copy)]
struct Owed {
    since: u64,
    due_unix_ms: i64,
}

/// What the checks remember.
#[derive(Default)]
pub struct Known {
    verdicts: BTreeMap<Digest, PurposeSet>,
    owed: BTreeMap<(usize, Digest), Owed>,
    log_upto: u64,
    /// Alarms that stand by the log.
    standing: BTreeSet<(u32, AlarmKind)>,
    raised: BTreeMap<(u32, AlarmKind), u64>,
    caught_up: BTreeMap<u32, u64>,
    /// Dead letters of a minute ago, with the change at which they died.
    dead: BTreeSet<(u32, Target, u64)>,
    /// How often drift was an alarm when somebody was forgotten in calm weather.
    forgotten: BTreeMap<usize, u64>,
}

impl World {
    /// Whatever leaves a node.
    pub fn check_call(&mut self, node: u64, place: usize, errand: &Errand) -> Failed {
        if self.nodes.iter().any(|one| one.id == node && one.is_superseded) {
            return Err(format!("node {node} calls place {place} after it lost its lease"));
        }
        let (life, now, unix_ms) = (self.life(node, place), self.now, self.unix_ms() as u64);
        let one = &self.places[place];
        let mine = || self.open.values().filter(|open| open.node == node && open.life == life && open.place == place);
        if mine().filter(|open| open.ended.is_none()).count() >= one.config.concurrency {
            return Err(format!("more calls to place {place} than {}", one.config.concurrency));
        }
        for rate in &one.config.rates {
            let recent = one.calls.iter().rev().take_while(|at| **at + rate.window_ms > unix_ms).count();
            if recent >= rate.calls as usize {
                return Err(format!("more calls to place {place} than {rate}"));
            }
        }
        let Errand::Send(messages) = errand else { return Ok(()) };
        for message in messages {
            for open in mine().filter(|open| open.is_send && open.targets.contains(&message.target)) {
                if open.ended.is_none() {
                    return Err(format!("two requests about {:?} at place {place} at one time", message.target));
                }
                if message.denied.is_empty() && open.clear.is_some_and(|clear| clear > now) {
                    return Err(format!(
                        "an allow about {:?} leaves for place {place} while an earlier request may arrive",
                        message.target
                    ));
                }
            }
        }
        Ok(())
    }

    /// After somebody chose: whose denial is new, and must be told from now on.
    pub fn look_at_verdicts(&mut self) {
        let zone = self.home.policy.time_zone.clone();
        let (people, told): (Vec<_>, _) = (self.people().collect(), self.told());
        for (kind, digest, _) in people {
            // Nobody is told of whom nobody can name.
            let denied = told.get(&digest).copied().unwrap_or_default();
            let before = self.known.verdicts.insert(digest, denied).unwrap_or_default();
            for place in 0..self.places.len() {
                let one = &self.places[place];
                let owes = !denied.without(before).intersection(one.purposes).is_empty() && one.kinds.contains(&kind);
                if denied.intersection(one.purposes).is_empty() {
                    self.known.owed.remove(&(place, digest));
                } else if owes {
                    let due = deadlines(self.unix_ms() / 1000, &zone, CCPA_BUSINESS_DAYS).strict;
                    let end = due.tomorrow().and_then(|next| next.to_zoned(zone.clone())).expect("a day");
                    let due_unix_ms = end.timestamp().as_millisecond();
                    self.known.owed.entry((place, digest)).or_insert(Owed { since: self.now, due_unix_ms });
                }
            }
        }
    }

    /// Of the identifiers that are denied something those that can be told to anybody, with what is denied.
    fn told(&self) -> BTreeMap<Digest, PurposeSet> {
        let mut told = BTreeMap::new();
        for (_, digest, named) in self.people() {
            let is_known = self.engine.read(|read| match read.find(&named.key)? {
                Some(no) => Ok(clear::known(read, self.engine.shared(), no)?.is_some()),
                None => Ok(false),
            });
            if is_known.expect("reads") {
                told.insert(digest, self.engine.verdict(&named).all_denied());
            }
        }
        told
    }

    fn has(&self, place: usize, digest: Digest, denied: PurposeSet) -> bool {
        let one = &self.places[place];
        denied.intersection(one.purposes).iter().all(|purpose| one.is_denied(digest, purpose) == Some(true))
    }

    /// Whoever has what was owed is owed nothing more.
    pub fn settle_debts(&mut self) -> Failed {
        let told = self.told();
        let met: Vec<_> = self
            .known
            .owed
            .keys()
            .filter(|(place, digest)| told.get(digest).is_none_or(|denied| self.has(*place, *digest, *denied)))
            .copied()
            .collect();
        for key in met {
            self.known.owed.remove(&key);
        }
        if !self.is_tame {
            return Ok(());
        }
        for ((place, digest), owed) in &self.known.owed {
            if self.places[*place].is_angel && self.now > owed.since + PROMPT {
                let who = self.who(*digest);
                return Err(format!("place {place} always behaves, and was not told of {who} for {} ms", self.now - owed.since));
            }
        }
        Ok(())
    }

    /// New entries of the log: each alarm is raised and cleared in turn.
    fn read_log(&mut self) -> Failed {
        let after = self.known.log_upto;
        let entries = self.engine.read(|read| {
            let upto = read.coordinator()?.counters.entries;
            read.entries(after + 1..upto + 1)
        });
        for (seq, bytes) in entries.expect("reads") {
            self.known.log_upto = seq;
            let (is_right, what) = match Entry::decode(&bytes).expect("an entry").fact {
                Fact::AlarmRaised { kind, destination: Some(no) } => {
                    *self.known.raised.entry((no, kind)).or_default() += 1;
                    self.seen.insert(name(kind));
                    (self.known.standing.insert((no, kind)), "raised twice")
                }
                Fact::AlarmCleared { kind, destination: Some(no) } => (self.known.standing.remove(&(no, kind)), "cleared twice"),
                Fact::CaughtUp { destination, .. } => {
                    *self.known.caught_up.entry(destination).or_default() += 1;
                    continue;
                }
                _ => continue,
            };
            if !is_right {
                return Err(format!("entry {seq}: an alarm was {what}"));
            }
        }
        for place in &self.places {
            let generations = place.config.generation + 1;
            if self.known.caught_up.get(&place.no).is_some_and(|count| *count > generations) {
                return Err(format!("{} caught up more often than it had generations", place.id));
            }
        }
        Ok(())
    }

    /// What a driver says of itself, and of every party.
    fn ask<T>(&mut self, mut question: impl FnMut(&mut desist_engine::delivery::Driver, Now) -> T) -> Option<T> {
        let now = Now { unix_ms: self.unix_ms(), mono_ms: self.now };
        let node = self.nodes.iter_mut().find(|node| !node.frozen && !node.is_superseded)?;
        let now = Now { mono_ms: node.base() + now.mono_ms, ..now };
        Some(question(&mut node.driver, now))
    }

    fn parties(&self) -> Vec<(Party, u64)> {
        let rows = self.engine.read(|read| read.changes(0, 10_000)).expect("reads");
        rows.into_iter().map(|row| (row.party, row.seq)).collect()
    }

    /// No level is above what the destination itself knows.
    fn check_levels(&mut self, is_end: bool) -> Failed {
        for (party, version) in self.parties() {
            let Some(assurances) = self.ask(|driver, now| driver.assurances(now, party).expect("reads")) else { return Ok(()) };
            for (no, assurance) in assurances {
                let place = &self.places[no as usize - 1];
                let target = Target(party.code());
                let Assurance::At(level) = assurance else { continue };
                if place.wronged.contains(&target) {
                    continue;
                }
                let claimed = [Level::Accepted, Level::Applied, Level::Verified].into_iter().filter(|one| *one <= level);
                for one in claimed {
                    if place.reached.get(&(one, target)).is_none_or(|reached| *reached < version) {
                        return Err(format!("{party:?} at version {version} is said to be {level:?} at {} and is not {one:?}", place.id));
                    }
                }
                let is_refused = self.ask(|driver, _| driver.parked(no, None, 1_000)).flatten().unwrap_or_default();
                if is_end && level < Level::Accepted && !is_refused.iter().any(|parked| parked.target == target) {
                    return Err(format!("{party:?} is at the end only {level:?} at place {no}"));
                }
            }
        }
        Ok(())
    }

    pub fn status(&mut self) -> Vec<DestinationStatus> {
        self.ask(desist_engine::delivery::Driver::status).unwrap_or_default()
    }

    /// Every minute.
    pub fn watch(&mut self) -> Failed {
        self.settle_debts()?;
        self.read_log()?;
        self.check_levels(false)?;
        self.check_bounds()?;
        if self.now < self.trouble + SLACK {
            self.known.dead.clear();
            return Ok(());
        }
        for ((place, _), owed) in &self.known.owed {
            let one = &self.places[*place];
            let is_unheard = one.last_ok.is_none_or(|at| at < owed.since);
            let is_late = self.unix_ms() > owed.due_unix_ms && self.now > owed.since + SLACK;
            if one.is_configured && is_unheard && is_late && !self.known.standing.contains(&(one.no, AlarmKind::Late)) {
                return Err(format!("place {place} is late, and nobody says so"));
            }
        }
        for status in self.status() {
            let is_long = self.paused.get(&(status.no as usize - 1)).is_some_and(|since| self.unix_ms() > since + 70 * MINUTE as i64);
            let is_paused = status.lane.is_some_and(|lane| lane.state == State::Paused);
            if is_long && is_paused && !self.known.standing.contains(&(status.no, AlarmKind::Paused)) {
                return Err(format!("{} is paused for long, and nobody says so", status.id));
            }
            let dead = self.ask(|driver, _| driver.parked(status.no, None, 1_000)).flatten().unwrap_or_default();
            let dead = dead.iter().filter(|one| one.parked.retry_unix_ms.is_none());
            let dead: BTreeSet<_> = dead.map(|one| (status.no, one.target, one.parked.seq)).collect();
            let was_dead = dead.iter().any(|one| self.known.dead.contains(one));
            if was_dead && !self.known.standing.contains(&(status.no, AlarmKind::DeadLetter)) {
                return Err(format!("{} has dead letters, and nobody says so", status.id));
            }
            self.known.dead.retain(|(no, ..)| *no != status.no);
            self.known.dead.extend(dead);
        }
        Ok(())
    }

    fn check_bounds(&mut self) -> Failed {
        let parties = self.parties().len();
        for status in self.status() {
            let Some(lane) = status.lane else { continue };
            let concurrency = self.places[status.no as usize - 1].config.concurrency;
            if lane.parked + lane.dead > parties || lane.unresolved > parties || lane.in_flight > concurrency {
                return Err(format!("{} is over a bound: {lane:?}", status.id));
            }
        }
        Ok(())
    }

    /// Whom a digest belongs to is not known any more to be right at a place.
    pub fn wrong(&mut self, place: usize, digest: Digest) -> Failed {
        let messages = self.messages(place)?;
        let targets: Vec<_> = messages.iter().filter(|item| item.digests.contains(&digest)).map(|item| item.target).collect();
        self.places[place].wronged.extend(targets);
        Ok(())
    }

    /// In calm weather somebody is forgotten: the patrol must say so and put it right.
    pub fn calm(&mut self) -> Failed {
        self.read_log()?;
        for place in 0..self.places.len() {
            if !matches!(self.places[place].config.patrols[..], [Patrol { kind: PatrolKind::Read, .. }]) {
                continue;
            }
            let messages = self.messages(place)?;
            let good = messages.iter().filter(|item| !self.places[place].has_apple(item) && self.places[place].holds(item));
            let Some(item) = good.rev().find(|item| !item.denied.is_empty() && !item.digests.is_empty()).cloned() else { continue };
            for purpose in item.denied.iter() {
                self.places[place].truth.insert((item.digests[0], purpose.0), (0, false));
            }
            self.wrong(place, item.digests[0])?;
            let no = self.places[place].no;
            let raised = self.known.raised.get(&(no, AlarmKind::Drift)).copied().unwrap_or_default();
            // An alarm that stands already is not raised again.
            if !self.known.standing.contains(&(no, AlarmKind::Drift)) {
                self.known.forgotten.insert(place, raised);
            }
        }
        Ok(())
    }

    /// What holds for everybody a place has to hear of.
    fn messages(&mut self, place: usize) -> Result<Vec<Item>, String> {
        let no = self.places[place].no;
        let Some(present) = self.ask(|driver, _| driver.has(no).then(|| driver.present(no, 0, 10_000))).flatten() else {
            return Ok(Vec::new());
        };
        let (messages, _) = present.map_err(|error| error.to_string())?;
        Ok(messages.iter().map(|message| self.places[place].item(message)).collect())
    }

    /// The whole story, with its end.
    pub fn tell(&mut self) -> Failed {
        self.run(END)?;
        for _ in 0..40 {
            let is_quiet = |status: &DestinationStatus| status.lane.is_some_and(|lane| lane.unresolved + lane.pending + lane.parked == 0);
            if self.status().iter().all(is_quiet) {
                break;
            }
            self.run(self.now + 5_000)?;
        }
        self.finish().map_err(|why| format!("at the end: {why}"))
    }

    fn finish(&mut self) -> Failed {
        assert!(self.now > CALM);
        self.watch()?;
        let told = self.told();
        let kinds: BTreeMap<Digest, _> = self.people().map(|(kind, digest, _)| (digest, kind)).collect();
        let status = self.status();
        if status.len() != self.places.len() {
            return Err(format!("there are {} destinations of {}", status.len(), self.places.len()));
        }
        let mut causes = BTreeSet::new();
        for (place, status) in status.iter().enumerate() {
            let lane = status.lane.ok_or("a destination without a lane")?;
            let known: BTreeSet<_> = status.alarms.iter().map(|(kind, _)| (status.no, *kind)).collect();
            let logged: BTreeSet<_> = self.known.standing.iter().filter(|(no, _)| *no == status.no).copied().collect();
            if known != logged {
                return Err(format!("place {place} shows {known:?}, and the log says {logged:?}"));
            }
            if lane.parked + lane.unresolved + lane.pending > 0 {
                return Err(format!("place {place} is not done: {lane:?}"));
            }
            if self.known.caught_up.get(&status.no).copied().unwrap_or_default() == 0 {
                return Err(format!("place {place} never caught up"));
            }
            let messages = self.messages(place)?;
            let dead = self.ask(|driver, _| driver.parked(status.no, None, 1_000)).flatten().unwrap_or_default();
            if !dead.is_empty() {
                causes.insert((status.no, AlarmKind::DeadLetter));
                self.seen.insert("dead letter");
            }
            let mut refused = BTreeSet::new();
            let mut named = BTreeMap::<Digest, u64>::new();
            for item in &messages {
                item.digests.iter().for_each(|digest| *named.entry(*digest).or_default() += 1);
                if self.places[place].has_apple(item) {
                    refused.extend(item.digests.iter().copied());
                    if !dead.iter().any(|one| one.target == item.target) {
                        return Err(format!("place {place} refuses {:?}, and it is no dead letter", item.target));
                    }
                } else if dead.iter().any(|one| one.target == item.target) {
                    return Err(format!("place {place} refuses {:?} no more, and it is a dead letter", item.target));
                }
            }
            for item in messages.iter().filter(|item| item.digests.iter().all(|one| named[one] == 1 && !refused.contains(one))) {
                if !self.places[place].holds(item) {
                    let who: Vec<_> = item.digests.iter().map(|digest| self.who(*digest)).collect();
                    return Err(format!("lost: place {place} does not have {who:?} as {:?} and {:?}", item.denied, item.allowed));
                }
            }
            for (digest, denied) in &told {
                let counts = self.places[place].kinds.contains(&kinds[digest]) && !refused.contains(digest);
                if counts && !self.has(place, *digest, *denied) {
                    return Err(format!("lost: place {place} allows what is denied to {}, {denied:?}", self.who(*digest)));
                }
            }
        }
        // Whoever is a dead letter may be late too.
        let is_late = |kind| matches!(kind, AlarmKind::Deadline50 | AlarmKind::Deadline75 | AlarmKind::Deadline90 | AlarmKind::Late);
        let dead = |no| causes.contains(&(no, AlarmKind::DeadLetter));
        let stale: Vec<_> = self.known.standing.difference(&causes).filter(|(no, kind)| !(is_late(*kind) && dead(*no))).collect();
        let silent: Vec<_> = causes.difference(&self.known.standing).collect();
        if !(stale.is_empty() && silent.is_empty()) {
            return Err(format!("alarms without a cause: {stale:?}; causes without an alarm: {silent:?}"));
        }
        for (place, before) in &self.known.forgotten {
            let no = self.places[*place].no;
            if self.known.raised.get(&(no, AlarmKind::Drift)).copied().unwrap_or_default() <= *before {
                return Err(format!("place {place} forgot somebody, and no patrol says so"));
            }
        }
        self.check_levels(true)?;
        let problems = self.engine.read(|read| desist_store::check(read, desist_store::Scope::All, &mut |_, _| {})).expect("reads");
        if problems.is_empty() { Ok(()) } else { Err(format!("the check of the store: {problems:?}")) }
    }
}

fn name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::Deadline50 => "half of the time is over",
        AlarmKind::Late => "late",
        AlarmKind::Drift => "drift",
        AlarmKind::DeadLetter => "dead letters",
        AlarmKind::Paused => "paused",
        _ => "an alarm",
    }
}
