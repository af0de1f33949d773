//! What holds now for one party, and the message about it that a destination needs.

use std::collections::HashMap;
use std::sync::Arc;

use desist_core::calendar::{CCPA_BUSINESS_DAYS, deadlines};
use desist_core::fact::{Entry, Fact};
use desist_core::graph::{Graph, IdentifierRow, Party};
use desist_core::lane::Target;
use desist_core::mark::{IdentifierNo, Line, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_store::{ChangeRow, Read, StoreError};

use super::transport::{Known, Message};
use crate::clear;
use crate::engine::Shared;

/// Parties whose present state is kept in memory at least, since most destinations ask for the same at about the same time; twice as many at
/// most.
const STATES_MIN: usize = 8_192;

const EVERY: PurposeSet = PurposeSet(u64::MAX);

/// What a destination needs to hear about a party.
#[derive(Clone, Debug)]
pub(super) enum Needed {
    /// Nothing.
    Nothing,
    /// Something, but nothing is known that would tell it who.
    Unreachable,
    /// This.
    Message(Arc<Message>),
}

/// A denial that stands.
#[derive(Clone, Copy)]
struct Denial {
    purposes: PurposeSet,
    at: i64,
    seq: u64,
}

/// The present state of a party, for all purposes.
pub(super) struct State {
    /// The party's latest change.
    pub change: ChangeRow,
    denied: PurposeSet,
    /// What is denied about identifiers of a subject beyond what is denied about the subject.
    beyond: PurposeSet,
    allowed: PurposeSet,
    /// Who is known to the business goes before identifiers that anybody may have typed.
    pub rank: u8,
    denials: Vec<Denial>,
    allowed_at: i64,
    /// Each with what is denied about it, maybe through another subject.
    identifiers: Vec<(Known, PurposeSet)>,
    /// Identifiers that are told of with this subject, and no more by themselves.
    pub held: Vec<IdentifierNo>,
}

impl State {
    /// Reads a party's present state; none if nothing ever concerned it.
    pub fn read(read: &mut dyn Read, shared: &Shared, party: Party) -> Result<Option<Self>, StoreError> {
        let change = read.change_of(party)?;
        change.map(|change| Self::at(read, shared, change)).transpose()
    }

    /// The same for whoever has read the party's latest change.
    pub fn at(read: &mut dyn Read, shared: &Shared, change: ChangeRow) -> Result<Self, StoreError> {
        let mut state = Self {
            change,
            denied: PurposeSet::EMPTY,
            beyond: PurposeSet::EMPTY,
            allowed: PurposeSet::EMPTY,
            rank: 0,
            denials: Vec::new(),
            allowed_at: 0,
            identifiers: Vec::new(),
            held: Vec::new(),
        };
        match change.party {
            Party::Subject(subject) => state.subject(read, shared, subject)?,
            Party::Identifier(no) => state.identifier(read, shared, no)?,
        }
        if state.denied.union(state.beyond).union(state.allowed).is_empty() {
            state.ended(read, change.party)?;
        }
        Ok(state)
    }

    fn subject(&mut self, read: &mut dyn Read, shared: &Shared, subject: SubjectNo) -> Result<(), StoreError> {
        let mut graph = Graph::default();
        self.denied = graph.subject_denied(read, subject)?;
        let line = graph.subject(read, subject)?.line.clone();
        self.allow(&line);
        self.deny(&line);
        for no in graph.held(read, subject)? {
            let Some(IdentifierRow { kind, shared: is_shared, line, .. }) = graph.identifier(read, no)?.cloned() else { continue };
            // Through one of too many holders nothing passes: what is said about it is its own.
            if is_shared {
                continue;
            }
            self.held.push(no);
            if kind.is_person_level() {
                self.deny(&line);
            }
            let Some((key, _, verdict)) = read.verdict_of(no)? else { continue };
            // What is denied about it beyond the subject is said with the subject, unless another holder is denied that.
            let mut beyond = verdict.all_denied().without(self.denied);
            if !beyond.is_empty() {
                for other in graph.holders(read, no)?.into_iter().filter(|other| *other != subject) {
                    let denied = graph.subject_denied(read, other)?;
                    if verdict.all_denied().contains(denied) {
                        beyond = beyond.without(denied);
                    }
                }
                if !kind.is_person_level() {
                    self.deny(&line);
                }
            }
            self.beyond = self.beyond.union(beyond);
            if let Some(known) = clear::known_as(read, shared, no, kind, &key)? {
                self.identifiers.push((known, verdict.all_denied()));
            }
        }
        Ok(())
    }

    /// One that nobody holds, or too many.
    fn identifier(&mut self, read: &mut dyn Read, shared: &Shared, no: IdentifierNo) -> Result<(), StoreError> {
        let mut graph = Graph::default();
        let (Some(row), Some((key, kind, verdict))) = (graph.identifier(read, no)?.cloned(), read.verdict_of(no)?) else { return Ok(()) };
        // Its holders are told of with it.
        if row.holders > 0 && !row.shared {
            return Ok(());
        }
        self.denied = verdict.all_denied();
        self.rank = 1;
        self.deny(&row.line);
        self.allow(&row.line);
        if let Some(known) = clear::known_as(read, shared, no, kind, &key)? {
            self.identifiers.push((known, self.denied));
        }
        Ok(())
    }

    fn deny(&mut self, line: &Line) {
        let denials = line.denials(EVERY).into_iter();
        self.denials.extend(denials.map(|held| Denial { purposes: held.purposes, at: held.mark.at, seq: held.mark.seq }));
    }

    fn allow(&mut self, line: &Line) {
        self.allowed = line.opted_in().without(self.denied);
        self.allowed_at = line.marks().iter().filter(|held| !held.mark.deny).map(|held| held.mark.at).max().unwrap_or_default();
    }

    /// An API client that ended its own opt-out leaves no mark, so its entry is asked while it is the latest.
    fn ended(&mut self, read: &mut dyn Read, party: Party) -> Result<(), StoreError> {
        let seq = self.change.seq;
        let Some((_, bytes)) = read.entries(seq..seq + 1)?.pop() else { return Ok(()) };
        let entry = Entry::decode(&bytes).map_err(|_| StoreError::Damaged(format!("entry {seq}")))?;
        if let Fact::ApiOptOutEnded { subject, purposes, .. } = entry.fact
            && party == Party::Subject(subject)
        {
            (self.allowed, self.allowed_at) = (purposes, entry.at);
        }
        Ok(())
    }

    /// Whether any of these purposes is denied.
    pub fn denies(&self, purposes: PurposeSet) -> bool {
        self.denied.union(self.beyond).intersects(purposes)
    }

    /// What a destination that is bound to `purposes` needs to hear.
    pub fn needed(&self, purposes: PurposeSet) -> Needed {
        let denied = self.denied.union(self.beyond).intersection(purposes);
        let mut allowed = self.allowed.intersection(purposes).without(denied);
        if denied.is_empty() && allowed.is_empty() {
            return Needed::Nothing;
        }
        // Where identifiers of one subject differ, the message denies for all that it names what is denied for any: never too little.
        let is_meant = |one: PurposeSet| {
            if denied.is_empty() { !one.intersects(allowed) } else { one.intersects(denied) }
        };
        let meant: Vec<_> = self.identifiers.iter().filter(|(_, one)| is_meant(*one)).collect();
        if meant.is_empty() {
            // Nobody is harmed by an *allow* that cannot be said, and there may be nothing to be allowed.
            return if denied.is_empty() { Needed::Nothing } else { Needed::Unreachable };
        }
        // Somebody else's word can deny one of them still.
        allowed = meant.iter().fold(allowed, |allowed, (_, one)| allowed.without(*one));
        let of = |(known, one): &(Known, PurposeSet)| Known { denied: one.intersection(purposes), ..known.clone() };
        let identifiers = meant.into_iter().map(of).collect();
        let beyond = self.denied.union(self.beyond).without(purposes);
        let at = if denied.is_empty() { self.allowed_at } else { self.since(denied).max().unwrap_or_default() };
        let target = Target(self.change.party.code());
        Needed::Message(Arc::new(Message { target, version: self.change.seq, at, denied, allowed, beyond, identifiers }))
    }

    fn since(&self, purposes: PurposeSet) -> impl Iterator<Item = i64> {
        self.denials.iter().filter(move |denial| denial.purposes.intersects(purposes)).map(|denial| denial.at)
    }

    /// Beginning and end of the earliest deadline among the denials that entries from `from_seq` on recorded, in Unix
    /// milliseconds; none if there is no such denial.
    pub fn deadline(&self, purposes: PurposeSet, from_seq: u64, shared: &Shared) -> Option<(i64, i64)> {
        let standing = self.denied.union(self.beyond).intersection(purposes);
        let unmet = self.denials.iter().filter(|denial| denial.seq >= from_seq && denial.purposes.intersects(standing));
        let at = unmet.map(|denial| denial.at).min()?;
        let zone = shared.policy.load().time_zone.clone();
        let due = deadlines(at, &zone, CCPA_BUSINESS_DAYS).strict;
        // The whole last day counts.
        let end = due.tomorrow().ok().and_then(|next| next.to_zoned(zone).ok())?;
        Some((at * 1000, end.timestamp().as_millisecond()))
    }
}

/// The present state of a party, and what was rendered from it.
pub(super) struct Cached {
    pub state: State,
    needed: Vec<(PurposeSet, Needed)>,
}

impl Cached {
    /// What a destination that is bound to `purposes` needs to hear.
    pub fn needed(&mut self, purposes: PurposeSet) -> Needed {
        if let Some((_, needed)) = self.needed.iter().find(|(known, _)| *known == purposes) {
            return needed.clone();
        }
        let needed = self.state.needed(purposes);
        self.needed.push((purposes, needed.clone()));
        needed
    }
}

/// Present states that were read lately. What was not asked for while so many others were read is forgotten.
#[derive(Default)]
pub(super) struct States {
    young: HashMap<Party, Cached>,
    old: HashMap<Party, Cached>,
}

impl States {
    pub fn get(&mut self, party: Party) -> Option<&mut Cached> {
        if let Some(cached) = self.old.remove(&party) {
            self.insert(party, cached);
        }
        self.young.get_mut(&party)
    }

    /// Keeps what was read, instead of what was known before.
    pub fn put(&mut self, mut state: State) {
        // An identifier that somebody holds now is no party any more, and no change says so.
        for no in std::mem::take(&mut state.held) {
            self.remove(Party::Identifier(no));
        }
        let party = state.change.party;
        self.old.remove(&party);
        self.insert(party, Cached { state, needed: Vec::new() });
    }

    pub fn remove(&mut self, party: Party) {
        self.young.remove(&party);
        self.old.remove(&party);
    }

    pub fn clear(&mut self) {
        (self.young, self.old) = Default::default();
    }

    fn insert(&mut self, party: Party, cached: Cached) {
        if self.young.len() >= STATES_MIN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(party, cached);
    }
}
