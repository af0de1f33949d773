//! The identity graph: lines, the holds between them, and what passes along.
//!
//! Links are edges, never merges. An opt-out on an identifier is also written on every subject that
//! holds it then or later; a decision about an identifier also reads the subjects that hold it; one
//! hop, no further. [`Graph::apply`] is the only code that changes state, for the writer, for the
//! replay of the log and for the model in the tests alike, so state = fold(log) by construction.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use crate::decision::Verdict;
use crate::fact::{Channel, Entry, Fact, IdRef};
use crate::identifier::Kind;
use crate::limits::{HELD_MAX, HOLDERS_MAX};
use crate::lookup::LookupKey;
use crate::mark::{Class, IdentifierNo, Line, Mark, SubjectNo};
use crate::purpose::PurposeSet;

const EVERY_PURPOSE: PurposeSet = PurposeSet(u64::MAX);

/// An identifier as the graph sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifierRow {
    /// What kind of identifier it is.
    pub kind: Kind,
    /// How many subjects hold it.
    pub holders: u64,
    /// Held by more than [`HOLDERS_MAX`] subjects at some time: nothing passes through it any more.
    pub shared: bool,
    /// What was said on the identifier itself.
    pub line: Line,
}

/// A subject as the graph sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectRow {
    /// What was said on the subject itself.
    pub line: Line,
    /// How many identifiers it holds.
    pub held: u64,
}

/// The stored state that the rules read. Rows that were never written do not exist.
pub trait Records {
    /// What reading can fail with.
    type Error;
    /// The identifier under a lookup key.
    fn find(&mut self, key: &LookupKey) -> Result<Option<IdentifierNo>, Self::Error>;
    /// An identifier by its row number.
    fn identifier(&mut self, no: IdentifierNo) -> Result<Option<IdentifierRow>, Self::Error>;
    /// A subject by its row number.
    fn subject(&mut self, no: SubjectNo) -> Result<Option<SubjectRow>, Self::Error>;
    /// The subjects that hold an identifier; asked only for identifiers that are not shared.
    fn holders(&mut self, no: IdentifierNo) -> Result<Vec<SubjectNo>, Self::Error>;
    /// The identifiers that a subject holds.
    fn held(&mut self, no: SubjectNo) -> Result<Vec<IdentifierNo>, Self::Error>;
    /// Whether the subject holds the identifier.
    fn holds(&mut self, subject: SubjectNo, identifier: IdentifierNo) -> Result<bool, Self::Error>;
}

/// The state touched by a batch of entries, over what is stored.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    identifiers: BTreeMap<IdentifierNo, IdentifierRow>,
    subjects: BTreeMap<SubjectNo, SubjectRow>,
    /// Holds added (`true`) and ended (`false`) over the stored ones.
    holds: BTreeMap<(SubjectNo, IdentifierNo), bool>,
    holds_by_identifier: BTreeMap<(IdentifierNo, SubjectNo), bool>,
    /// Changed rows, each with the last entry that changed it.
    dirty_identifiers: BTreeMap<IdentifierNo, u64>,
    dirty_subjects: BTreeMap<SubjectNo, u64>,
    /// Identifiers whose parties are among the changes although no entry changed them.
    touched: BTreeMap<IdentifierNo, u64>,
    /// The entry that is being applied.
    seq: u64,
}

/// Whom a destination is told about: what is one person there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A subject with the identifiers that it holds.
    Subject(SubjectNo),
    /// An identifier that nobody holds, or too many.
    Identifier(IdentifierNo),
}

impl Party {
    /// Both kinds in one number.
    pub fn code(self) -> u64 {
        match self {
            Self::Subject(SubjectNo(no)) => no << 1,
            Self::Identifier(IdentifierNo(no)) => no << 1 | 1,
        }
    }

    /// The party of a number that [`Party::code`] made.
    pub fn from_code(code: u64) -> Self {
        if code & 1 == 0 { Self::Subject(SubjectNo(code >> 1)) } else { Self::Identifier(IdentifierNo(code >> 1)) }
    }
}

/// What a batch changed, for the store to write.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Changed identifiers with their verdict as of now.
    pub identifiers: Vec<(IdentifierNo, IdentifierRow, Verdict)>,
    /// Identifiers whose own row did not change but whose verdict may have.
    pub verdicts: Vec<(IdentifierNo, Verdict)>,
    /// Changed subjects.
    pub subjects: Vec<(SubjectNo, SubjectRow)>,
    /// Holds that began (`true`) or ended (`false`).
    pub holds: Vec<(SubjectNo, IdentifierNo, bool)>,
    /// Everybody about whom a destination may have to be told something else, each with the last entry that made it so, in
    /// the order of these entries.
    pub parties: Vec<(Party, u64)>,
}

impl Graph {
    /// The identifier, as touched by this batch or as stored.
    pub fn identifier<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<Option<&IdentifierRow>, R::Error> {
        if !self.identifiers.contains_key(&no)
            && let Some(stored) = records.identifier(no)?
        {
            self.identifiers.insert(no, stored);
        }
        Ok(self.identifiers.get(&no))
    }

    /// The subject, as touched by this batch or as stored.
    pub fn subject<R: Records + ?Sized>(&mut self, records: &mut R, no: SubjectNo) -> Result<&SubjectRow, R::Error> {
        match self.subjects.entry(no) {
            btree_map::Entry::Occupied(touched) => Ok(touched.into_mut()),
            btree_map::Entry::Vacant(place) => Ok(place.insert(records.subject(no)?.unwrap_or_default())),
        }
    }

    /// The subjects that hold an identifier: none if it is shared, since nothing passes through it.
    pub fn holders<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<Vec<SubjectNo>, R::Error> {
        match self.identifier(records, no)? {
            Some(identifier) if !identifier.shared && identifier.holders > 0 => self.all_holders(records, no),
            _ => Ok(Vec::new()),
        }
    }

    /// The same, also where nothing passes through the identifier.
    pub fn all_holders<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<Vec<SubjectNo>, R::Error> {
        let mut holders: BTreeSet<_> = records.holders(no)?.into_iter().collect();
        for ((_, subject), holds) in self.holds_by_identifier.range((no, SubjectNo(0))..=(no, SubjectNo(u64::MAX))) {
            if *holds {
                holders.insert(*subject)
            } else {
                holders.remove(subject)
            };
        }
        Ok(holders.into_iter().collect())
    }

    /// The identifiers that a subject holds.
    pub fn held<R: Records + ?Sized>(&mut self, records: &mut R, no: SubjectNo) -> Result<Vec<IdentifierNo>, R::Error> {
        let mut held: BTreeSet<_> = records.held(no)?.into_iter().collect();
        for ((_, identifier), holds) in self.holds.range((no, IdentifierNo(0))..=(no, IdentifierNo(u64::MAX))) {
            if *holds {
                held.insert(*identifier)
            } else {
                held.remove(identifier)
            };
        }
        Ok(held.into_iter().collect())
    }

    /// Whether the subject holds the identifier.
    pub fn holds<R: Records + ?Sized>(&self, records: &mut R, subject: SubjectNo, identifier: IdentifierNo) -> Result<bool, R::Error> {
        match self.holds.get(&(subject, identifier)) {
            Some(holds) => Ok(*holds),
            None => records.holds(subject, identifier),
        }
    }

    /// Purposes denied to a subject: by its own line or by the own line of any person-level
    /// identifier it holds.
    pub fn subject_denied<R: Records + ?Sized>(&mut self, records: &mut R, no: SubjectNo) -> Result<PurposeSet, R::Error> {
        let mut denied = self.subject(records, no)?.line.denied();
        for identifier in self.held(records, no)? {
            if let Some(row) = self.identifier(records, identifier)?
                && row.kind.is_person_level()
                && !row.shared
            {
                denied = denied.union(row.line.denied());
            }
        }
        Ok(denied)
    }

    /// What every decision that names this identifier has to know.
    pub fn verdict<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<Verdict, R::Error> {
        let Some(row) = self.identifier(records, no)? else { return Ok(Verdict::default()) };
        let (names_subject, mut denied, opted_in) = (row.kind.names_subject(), row.line.denied(), row.line.opted_in());
        let mut linked = PurposeSet::EMPTY;
        for holder in self.holders(records, no)? {
            let line = &self.subject(records, holder)?.line;
            if names_subject {
                denied = denied.union(line.denied());
                linked = linked.union(self.subject_denied(records, holder)?);
            } else {
                linked = linked.union(line.denied());
            }
        }
        let linked = linked.without(denied);
        Ok(Verdict { denied, linked, opted_in: opted_in.without(denied).without(linked) })
    }

    /// Writes an entry into the state. Entries are applied in the order of their `seq`.
    pub fn apply<R: Records + ?Sized>(&mut self, records: &mut R, entry: &Entry) -> Result<(), R::Error> {
        self.seq = entry.seq;
        match &entry.fact {
            Fact::Linked { subject, identifiers, .. } => {
                for IdRef(identifier, kind) in identifiers {
                    self.link(records, *subject, *identifier, *kind, entry)?;
                }
            }
            Fact::Unlinked { subject, identifiers, .. } => {
                self.unlink(records, *subject, identifiers, entry)?;
            }
            Fact::OptedOut { subject, identifiers, purposes, channel, acted_at, .. } => {
                let mark = Mark { deny: true, at: acted_at.unwrap_or(entry.at), server_timed: acted_at.is_none(), seq: entry.seq };
                let class = match (channel, subject) {
                    (Channel::Api, Some(subject)) => Class::Api(*subject),
                    _ if channel.is_consumers() => Class::Consumer,
                    _ => Class::Business,
                };
                if let Some(subject) = subject {
                    self.join_subject(records, *subject, class, mark, *purposes)?;
                }
                for IdRef(identifier, kind) in identifiers {
                    self.touch(records, *identifier, *kind)?;
                    self.join_identifier(*identifier, class, mark, *purposes);
                    for holder in self.holders(records, *identifier)? {
                        self.join_subject(records, holder, class, mark, *purposes)?;
                    }
                }
            }
            Fact::OptedIn { subject, identifiers, purposes, .. } => {
                let mark = Mark { deny: false, at: entry.at, server_timed: true, seq: entry.seq };
                if let Some(subject) = subject {
                    self.join_subject(records, *subject, Class::Consumer, mark, *purposes)?;
                }
                for IdRef(identifier, kind) in identifiers {
                    self.touch(records, *identifier, *kind)?;
                    if kind.is_person_level() {
                        // Others who read this line keep what it denied them.
                        let line = self.identifiers[identifier].line.clone();
                        for holder in self.holders(records, *identifier)?.into_iter().filter(|holder| Some(*holder) != *subject) {
                            self.subject(records, holder)?;
                            let reader = self.subjects.get_mut(&holder).expect("just loaded");
                            if copy_denials(&line, &mut reader.line, *purposes, entry) {
                                self.dirty_subjects.insert(holder, self.seq);
                            }
                        }
                    }
                    self.join_identifier(*identifier, Class::Consumer, mark, *purposes);
                }
            }
            Fact::ApiOptOutEnded { subject, identifiers, purposes, .. } => {
                self.subject(records, *subject)?;
                if self.subjects.get_mut(subject).expect("just loaded").line.end_api(*subject, *purposes) {
                    self.dirty_subjects.insert(*subject, self.seq);
                }
                for IdRef(identifier, kind) in identifiers {
                    self.touch(records, *identifier, *kind)?;
                    if self.identifiers.get_mut(identifier).expect("just touched").line.end_api(*subject, *purposes) {
                        self.dirty_identifiers.insert(*identifier, self.seq);
                    }
                }
            }
            Fact::LogOpened { .. }
            | Fact::PurposeDeclared { .. }
            | Fact::KeyCreated { .. }
            | Fact::KeyRevoked { .. }
            | Fact::ProfileCreated { .. }
            | Fact::ProfileDeleted { .. }
            | Fact::OptInAsked { .. }
            | Fact::OptInRefused { .. }
            | Fact::SignalsHonoured { .. }
            | Fact::ImportFinished { .. }
            | Fact::KeyRotated { .. }
            | Fact::DestinationDeclared { .. }
            | Fact::CaughtUp { .. }
            | Fact::DestinationPaused { .. }
            | Fact::DestinationResumed { .. }
            | Fact::DeadLettersReplayed { .. }
            | Fact::ToldByHand { .. }
            | Fact::Acknowledged { .. }
            | Fact::AlarmRaised { .. }
            | Fact::AlarmCleared { .. } => {}
        }
        Ok(())
    }

    /// Loads an identifier, or makes its row.
    fn touch<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo, kind: Kind) -> Result<(), R::Error> {
        if self.identifier(records, no)?.is_none() {
            self.identifiers.insert(no, IdentifierRow { kind, holders: 0, shared: false, line: Line::default() });
            self.dirty_identifiers.insert(no, self.seq);
        }
        Ok(())
    }

    fn join_subject<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        no: SubjectNo,
        class: Class,
        mark: Mark,
        purposes: PurposeSet,
    ) -> Result<(), R::Error> {
        self.subject(records, no)?;
        if self.subjects.get_mut(&no).expect("just loaded").line.join(class, mark, purposes) {
            self.dirty_subjects.insert(no, self.seq);
        }
        Ok(())
    }

    fn join_identifier(&mut self, no: IdentifierNo, class: Class, mark: Mark, purposes: PurposeSet) {
        if self.identifiers.get_mut(&no).expect("touched before").line.join(class, mark, purposes) {
            self.dirty_identifiers.insert(no, self.seq);
        }
    }

    fn link<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        no: IdentifierNo,
        kind: Kind,
        entry: &Entry,
    ) -> Result<(), R::Error> {
        self.touch(records, no, kind)?;
        if self.holds(records, subject, no)? {
            return Ok(());
        }
        self.subject(records, subject)?;
        let identifier = &self.identifiers[&no];
        if !identifier.shared && identifier.holders >= HOLDERS_MAX {
            self.stop_passing(records, no, entry)?;
        }
        let identifier = self.identifiers.get_mut(&no).expect("touched above");
        identifier.holders += 1;
        let carried = if identifier.shared { Vec::new() } else { identifier.line.denials(identifier.line.denied()) };
        self.subjects.get_mut(&subject).expect("loaded above").held += 1;
        self.set_hold(subject, no, true);
        for held in carried {
            self.join_subject(records, subject, held.class, held.mark, held.purposes)?;
        }
        Ok(())
    }

    fn unlink<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        identifiers: &[IdRef],
        entry: &Entry,
    ) -> Result<(), R::Error> {
        let mut ended = BTreeSet::new();
        let mut passing = Vec::new();
        for IdRef(no, _) in identifiers {
            if self.holds(records, subject, *no)?
                && let Some(row) = self.identifier(records, *no)?
                && ended.insert(*no)
                && !row.shared
            {
                passing.push((*no, row.line.clone()));
            }
        }
        self.subject(records, subject)?;
        self.keep_denials(records, subject, &passing, entry)?;
        for no in ended {
            self.identifiers.get_mut(&no).expect("loaded above").holders -= 1;
            self.subjects.get_mut(&subject).expect("loaded above").held -= 1;
            self.set_hold(subject, no, false);
        }
        Ok(())
    }

    fn set_hold(&mut self, subject: SubjectNo, no: IdentifierNo, holds: bool) {
        self.holds.insert((subject, no), holds);
        self.holds_by_identifier.insert((no, subject), holds);
        self.dirty_identifiers.insert(no, self.seq);
        self.dirty_subjects.insert(subject, self.seq);
    }

    /// One more holder than [`HOLDERS_MAX`]: what is denied through the identifier is written onto
    /// each line concerned, and from now on nothing passes.
    fn stop_passing<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo, entry: &Entry) -> Result<(), R::Error> {
        // As it was before: what one holder denies must not reach the next one through it.
        let before = [(no, self.identifiers[&no].line.clone())];
        for holder in self.holders(records, no)? {
            self.keep_denials(records, holder, &before, entry)?;
            // The decisions that name the holder's account read its identifiers, this one no more.
            self.dirty_subjects.insert(holder, self.seq);
        }
        self.identifiers.get_mut(&no).expect("loaded by the caller").shared = true;
        self.dirty_identifiers.insert(no, self.seq);
        Ok(())
    }

    /// Writes what each side of a subject's holds denies through the other onto its own line.
    /// `ending` are the loaded identifiers that pass no more, each with its own line as it was.
    fn keep_denials<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        ending: &[(IdentifierNo, Line)],
        entry: &Entry,
    ) -> Result<(), R::Error> {
        let own = self.subject(records, subject)?.line.clone();
        let mut person_level = Vec::new();
        if ending.iter().any(|(no, _)| self.identifiers[no].kind.names_subject()) {
            // Decisions that name an account read all of the account, not only its own line.
            for other in self.held(records, subject)? {
                let row = self.identifier(records, other)?.expect("held identifiers have rows");
                if row.kind.is_person_level() && !row.shared {
                    person_level.push((other, row.line.clone()));
                }
            }
        }
        for (no, before) in ending {
            let identifier = self.identifiers.get_mut(no).expect("loaded by the caller");
            let holder = self.subjects.get_mut(&subject).expect("loaded above");
            let mut changed = copy_denials(&own, &mut identifier.line, EVERY_PURPOSE, entry);
            if identifier.kind.names_subject() {
                for (_, line) in person_level.iter().filter(|(other, _)| other != no) {
                    changed |= copy_denials(line, &mut identifier.line, EVERY_PURPOSE, entry);
                }
            }
            if changed {
                self.dirty_identifiers.insert(*no, self.seq);
            }
            // A subject is never denied by reading a device: what a device said was written when it was said.
            if identifier.kind.is_person_level() && copy_denials(before, &mut holder.line, EVERY_PURPOSE, entry) {
                self.dirty_subjects.insert(subject, self.seq);
            }
        }
        Ok(())
    }

    /// Puts whoever is told of an identifier among the changes, as of entry `seq`, although nothing was said of them.
    pub fn touch_parties(&mut self, no: IdentifierNo, seq: u64) {
        keep_last(&mut self.touched, no, seq);
    }

    /// Whom destinations are told about when it is about this identifier.
    fn parties<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<Vec<Party>, R::Error> {
        Ok(match self.identifier(records, no)? {
            Some(row) if row.holders > 0 && !row.shared => self.holders(records, no)?.into_iter().map(Party::Subject).collect(),
            _ => vec![Party::Identifier(no)],
        })
    }

    /// What the batch changed, with every verdict that it may have changed. Empties the graph's
    /// memory of changes but keeps the rows.
    pub fn changes<R: Records + ?Sized>(&mut self, records: &mut R) -> Result<Changes, R::Error> {
        let dirty_identifiers = std::mem::take(&mut self.dirty_identifiers);
        let dirty_subjects = std::mem::take(&mut self.dirty_subjects);
        let (mut affected, mut through) = (dirty_identifiers.clone(), dirty_subjects.clone());
        for (no, seq) in &dirty_identifiers {
            if self.identifiers[no].kind.is_person_level() {
                for holder in self.holders(records, *no)? {
                    keep_last(&mut through, holder, *seq);
                }
            }
        }
        for (subject, seq) in through {
            let every = dirty_subjects.contains_key(&subject);
            for identifier in self.held(records, subject)? {
                let row = self.identifier(records, identifier)?.expect("held identifiers have rows");
                if !row.shared && (every || row.kind.names_subject()) {
                    keep_last(&mut affected, identifier, seq);
                }
            }
        }
        let mut changes = Changes::default();
        let mut parties: BTreeMap<Party, u64> = dirty_subjects.iter().map(|(no, seq)| (Party::Subject(*no), *seq)).collect();
        for (no, seq) in affected {
            let verdict = self.verdict(records, no)?;
            for party in self.parties(records, no)? {
                keep_last(&mut parties, party, seq);
            }
            if dirty_identifiers.contains_key(&no) {
                changes.identifiers.push((no, self.identifiers[&no].clone(), verdict));
            } else {
                changes.verdicts.push((no, verdict));
            }
        }
        for (no, seq) in std::mem::take(&mut self.touched) {
            // One that was only named in an opt-in's first step is nobody yet, and not in the log.
            if self.identifier(records, no)?.is_some_and(|row| row.holders > 0 || !row.line.is_empty()) {
                for party in self.parties(records, no)? {
                    keep_last(&mut parties, party, seq);
                }
            }
        }
        changes.parties = parties.into_iter().collect();
        changes.parties.sort_by_key(|(party, seq)| (*seq, *party));
        changes.subjects = dirty_subjects.keys().map(|no| (*no, self.subjects[no].clone())).collect();
        changes.holds = std::mem::take(&mut self.holds).into_iter().map(|((subject, no), holds)| (subject, no, holds)).collect();
        self.holds_by_identifier.clear();
        Ok(changes)
    }

    /// Whether one more identifier may be linked to the subject.
    pub fn has_room<R: Records + ?Sized>(&mut self, records: &mut R, subject: SubjectNo, more: u64) -> Result<bool, R::Error> {
        Ok(self.subject(records, subject)?.held + more <= HELD_MAX)
    }
}

fn keep_last<K: Ord>(seqs: &mut BTreeMap<K, u64>, key: K, seq: u64) {
    let known = seqs.entry(key).or_insert(seq);
    *known = seq.max(*known);
}

/// Makes `to` deny whatever of `purposes` `from` denies, by a word that is at least as hard to end.
/// An act keeps its time and place; where an opt-in on `to` is later than it, the denial that stood
/// through the link is kept as of `entry`. Returns whether `to` changed.
fn copy_denials(from: &Line, to: &mut Line, purposes: PurposeSet, entry: &Entry) -> bool {
    let mut changed = false;
    for held in from.denials(purposes) {
        changed |= to.join(held.class, held.mark, held.purposes);
        let missing = held.purposes.without(to.without_api_but(held.class).denied());
        if !missing.is_empty() {
            // Later than every opt-in there, even if the clock was set back since.
            let opted_in = to.marks().iter().filter(|held| !held.mark.deny).map(|held| held.mark.at).max();
            let at = opted_in.map_or(entry.at, |at| at.max(entry.at));
            changed |= to.join(held.class, Mark { deny: true, at, server_timed: true, seq: entry.seq }, missing);
        }
    }
    changed
}

/// State in memory: the model of the tests, and the fold that `desist check` compares with the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Identifiers by row number.
    pub identifiers: BTreeMap<IdentifierNo, IdentifierRow>,
    /// Subjects by row number.
    pub subjects: BTreeMap<SubjectNo, SubjectRow>,
    /// Row numbers by lookup key.
    pub keys: BTreeMap<LookupKey, IdentifierNo>,
    /// Which subject holds which identifier.
    pub holds: BTreeSet<(SubjectNo, IdentifierNo)>,
    /// The same holds by identifier.
    pub holds_by_identifier: BTreeSet<(IdentifierNo, SubjectNo)>,
}

impl Memory {
    /// Writes what a batch changed.
    pub fn write(&mut self, changes: &Changes) {
        for (no, identifier, _) in &changes.identifiers {
            self.identifiers.insert(*no, identifier.clone());
        }
        for (no, subject) in &changes.subjects {
            self.subjects.insert(*no, subject.clone());
        }
        for (subject, no, holds) in &changes.holds {
            if *holds {
                self.holds.insert((*subject, *no));
                self.holds_by_identifier.insert((*no, *subject));
            } else {
                self.holds.remove(&(*subject, *no));
                self.holds_by_identifier.remove(&(*no, *subject));
            }
        }
    }

    /// Applies one entry and writes what it changed.
    pub fn apply(&mut self, entry: &Entry) -> Changes {
        let mut graph = Graph::default();
        let Ok(()) = graph.apply(self, entry);
        let Ok(changes) = graph.changes(self);
        self.write(&changes);
        changes
    }
}

impl Records for Memory {
    type Error = std::convert::Infallible;

    fn find(&mut self, key: &LookupKey) -> Result<Option<IdentifierNo>, Self::Error> {
        Ok(self.keys.get(key).copied())
    }
    fn identifier(&mut self, no: IdentifierNo) -> Result<Option<IdentifierRow>, Self::Error> {
        Ok(self.identifiers.get(&no).cloned())
    }
    fn subject(&mut self, no: SubjectNo) -> Result<Option<SubjectRow>, Self::Error> {
        Ok(self.subjects.get(&no).cloned())
    }
    fn holders(&mut self, no: IdentifierNo) -> Result<Vec<SubjectNo>, Self::Error> {
        Ok(self.holds_by_identifier.range((no, SubjectNo(0))..=(no, SubjectNo(u64::MAX))).map(|(_, subject)| *subject).collect())
    }
    fn held(&mut self, no: SubjectNo) -> Result<Vec<IdentifierNo>, Self::Error> {
        Ok(self.holds.range((no, IdentifierNo(0))..=(no, IdentifierNo(u64::MAX))).map(|(_, identifier)| *identifier).collect())
    }
    fn holds(&mut self, subject: SubjectNo, identifier: IdentifierNo) -> Result<bool, Self::Error> {
        Ok(self.holds.contains(&(subject, identifier)))
    }
}
