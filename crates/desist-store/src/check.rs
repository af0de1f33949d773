//! `desist check`: the tables against the log, which is the only truth about what was done.
//!
//! The whole log is folded in memory, so a check needs as much memory as the state it checks.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::decision::Verdict;
use desist_core::fact::{Acknowledgement, Digest, Entry, Fact, RequestId, Role};
use desist_core::graph::{Graph, IdentifierRow, Memory, Party, SubjectRow};
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::{Model, PurposeSet};
use desist_core::rules::Counters;
use desist_proof::tile::Appender;
use desist_proof::{Frontier, Hash, leaf_hash};
use sha2::{Digest as _, Sha256};

use crate::{ChangeRow, ImportRow, Owner, Read, RequestRow, Status, StoreError, TAIL_CHUNK};
use crate::{evidence, tiles};

/// A row as [`Read::scan`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Something that cannot be read, or that the database finds wrong: table, number and cause.
    Broken(String),
    /// An identifier with its stored verdict.
    Identifier(IdentifierNo, IdentifierRow, Verdict),
    /// A subject.
    Subject(SubjectNo, SubjectRow),
    /// A hold.
    Hold(SubjectNo, IdentifierNo),
    /// The latest change of a party.
    Change(ChangeRow),
    /// A request.
    Request(Box<RequestRow>),
    /// A Campaign profile.
    Profile(SubjectNo),
    /// A subscription: its number, whose it is, and whether there is the service.
    Subscription(u64, SubjectNo, bool),
    /// A privacy request.
    PrivacyRequest(u64),
    /// A vault item.
    Vault(Owner),
}

/// Problems listed in full; a store with more has one cause for many.
const PROBLEMS_MAX: usize = 1000;

/// Segments of evidence read at a time: some MiB.
const EVIDENCE_CHUNK: usize = 64;

#[derive(Default)]
struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, problem: String) {
        if self.listed.len() < PROBLEMS_MAX { self.listed.push(problem) } else { self.more += 1 }
    }

    /// Damage that reading itself found is one more problem; other errors end the check.
    fn keep<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Damaged(what)) => {
                self.add(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn done(mut self) -> Vec<String> {
        if self.more > 0 {
            self.listed.push(format!("and {} more", self.more));
        }
        self.listed
    }
}

/// What the log says the other tables hold.
#[derive(Default)]
struct Fold {
    memory: Memory,
    requests: BTreeMap<RequestId, (u64, Status, PurposeSet)>,
    profiles: BTreeSet<SubjectNo>,
    keys: BTreeMap<u32, (Role, bool)>,
    purposes: BTreeMap<u32, (Digest, Model)>,
    imports: Vec<(u64, Digest, ImportRow)>,
    by_hand: BTreeSet<u64>,
    /// By entry: what each destination was told, how many records there are, and their root.
    acknowledged: BTreeMap<u64, (Vec<Acknowledgement>, u64, Digest)>,
}

impl Fold {
    fn apply(&mut self, entry: &Entry) {
        self.memory.apply(entry);
        match &entry.fact {
            Fact::OptedOut { request, purposes, .. } => drop(self.requests.insert(*request, (entry.seq, Status::Received, *purposes))),
            Fact::OptInAsked { request, purposes, .. } => {
                self.requests.insert(*request, (entry.seq, Status::AwaitingConfirmation, *purposes));
            }
            Fact::OptedIn { request, purposes, .. } => drop(self.requests.insert(*request, (entry.seq, Status::Confirmed, *purposes))),
            Fact::ProfileCreated { subject, .. } => drop(self.profiles.insert(*subject)),
            Fact::ProfileDeleted { subject, .. } => drop(self.profiles.remove(subject)),
            Fact::KeyCreated { key, role, .. } => drop(self.keys.insert(*key, (*role, false))),
            Fact::KeyRevoked { key, .. } => {
                if let Some((_, revoked)) = self.keys.get_mut(key) {
                    *revoked = true;
                }
            }
            Fact::PurposeDeclared { bit, name, model } => drop(self.purposes.insert(*bit, (*name, *model))),
            Fact::ToldByHand { .. } => drop(self.by_hand.insert(entry.seq)),
            Fact::Acknowledged { ranges, records, evidence } => {
                self.acknowledged.insert(entry.seq, (ranges.clone(), *records, *evidence));
            }
            Fact::ImportFinished { import, rows, accepted, refused, .. } => {
                let row = ImportRow { rows: *rows, accepted: *accepted, refused: *refused, finished: true };
                self.imports.push((entry.seq, *import, row));
            }
            _ => {}
        }
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every table.
    All,
    /// Entries, tiles and frontier.
    Log,
}

/// Compares every table with the log, or the log with itself. Returns what does not fit, each a sentence that names table and
/// row and never a person. `progress` is told how many entries of how many were read.
pub fn check(read: &mut dyn Read, scope: Scope, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<String>, StoreError> {
    let mut problems = Problems::default();
    let Some(coordinator) = problems.keep(read.coordinator())? else { return Ok(problems.done()) };
    let counters = coordinator.counters;
    let (mut fold, mut frontier, mut readable, mut seq) = (Fold::default(), Frontier::default(), true, 1);
    let mut leaves = Vec::new();
    while seq <= counters.entries {
        let to = (seq + TAIL_CHUNK).min(counters.entries + 1);
        for (found, bytes) in read.entries(seq..to)? {
            while seq < found {
                problems.add(format!("entry {seq} is missing"));
                (readable, seq) = (false, seq + 1);
            }
            frontier.append(leaf_hash(&bytes));
            leaves.push(leaf_hash(&bytes));
            match Entry::decode(&bytes) {
                Ok(entry) if entry.seq == seq && readable && scope == Scope::All => fold.apply(&entry),
                Ok(entry) if entry.seq == seq => {}
                Ok(entry) => {
                    problems.add(format!("entry {seq} says that it is entry {}", entry.seq));
                    readable = false;
                }
                // The cause may quote what stands there, which is not an entry and may be anything.
                Err(_) => {
                    problems.add(format!("entry {seq} is not what desist writes"));
                    readable = false;
                }
            }
            seq += 1;
        }
        while seq < to {
            problems.add(format!("entry {seq} is missing"));
            (readable, seq) = (false, seq + 1);
        }
        progress(to - 1, counters.entries);
    }
    if !read.entries(counters.entries + 1..counters.entries + 2)?.is_empty() {
        problems.add(format!("coordinator: there are entries after its last, {}", counters.entries));
    }
    check_tiles(read, &leaves, &mut problems)?;
    if frontier.to_bytes() != coordinator.frontier {
        problems.add("coordinator: the Merkle frontier is not that of the entries".to_owned());
    }
    if scope == Scope::Log {
        return Ok(problems.done());
    }
    if readable {
        compare_tables(read, &mut fold, counters, &mut problems)?;
        compare_lists(read, &fold, &mut problems)?;
        compare_evidence(read, &fold, &mut problems)?;
    } else {
        problems.add("the other tables were not compared, since the log cannot be read whole".to_owned());
    }
    Ok(problems.done())
}

/// Compares the tiles that are stored with the hashes of the entries.
fn check_tiles(read: &mut dyn Read, leaves: &[Hash], problems: &mut Problems) -> Result<(), StoreError> {
    let mut appender = Appender::open(0, &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
    for leaf in leaves {
        appender.append(*leaf);
    }
    for (id, bytes) in appender.take() {
        if read.tile(id.level(), id.index())?.as_ref() != Some(&bytes) {
            problems.add(format!("{} is not that of the entries", id.path()));
        }
    }
    Ok(())
}

fn compare_tables(read: &mut dyn Read, fold: &mut Fold, counters: Counters, problems: &mut Problems) -> Result<(), StoreError> {
    let Fold { memory, requests, profiles, by_hand, .. } = fold;
    let known = |last: Option<u64>, counted: u64, table: &str| {
        (last.unwrap_or(0) > counted).then(|| format!("coordinator: the log names {table} above {counted}, its last"))
    };
    let over = [
        known(memory.identifiers.last_key_value().map(|(no, _)| no.0), counters.identifiers, "identifiers"),
        known(memory.subjects.last_key_value().map(|(no, _)| no.0), counters.subjects, "subjects"),
    ];
    over.into_iter().flatten().for_each(|problem| problems.add(problem));
    let mut next_identifier = 1;
    // What the log knows and the scan has not met yet.
    let mut subjects: BTreeSet<_> = memory.subjects.keys().copied().collect();
    let mut holds = memory.holds.clone();
    let mut profiles_left = profiles.clone();
    let mut subjects_told: BTreeSet<_> = memory.subjects.keys().copied().collect();
    let is_bare = |row: &IdentifierRow| row.holders == 0 || row.shared;
    let mut bare: BTreeSet<_> = memory.identifiers.iter().filter(|(_, row)| is_bare(row)).map(|(no, _)| *no).collect();
    let (mut request_rows, mut profile_rows, mut profile_items) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut privacy_requests = BTreeSet::new();
    read.scan(&mut |row| match row {
        Row::Broken(problem) => problems.add(problem),
        Row::Identifier(no, row, verdict) => {
            for missing in next_identifier..no.0 {
                problems.add(format!("identifier {missing} is missing or cannot be read"));
            }
            next_identifier = no.0 + 1;
            if no.0 > counters.identifiers {
                problems.add(format!("identifier {} is above {}, the last that was given", no.0, counters.identifiers));
            }
            // One that was only named in an opt-in's first step is in no entry that concerns it.
            let same = memory.identifiers.get(&no).map_or(row.line.is_empty() && row.holders == 0 && !row.shared, |folded| *folded == row);
            if !same {
                problems.add(format!("identifier {} differs from the log", no.0));
            }
            let Ok(recomputed) = Graph::default().verdict(memory, no);
            if recomputed != verdict {
                problems.add(format!("identifier {}: the stored verdict is not what follows from the log", no.0));
            }
        }
        Row::Subject(no, row) => {
            subjects.remove(&no);
            if memory.subjects.get(&no) != Some(&row) {
                problems.add(format!("subject {} differs from the log", no.0));
            }
        }
        Row::Hold(subject, identifier) => {
            if !holds.remove(&(subject, identifier)) {
                problems.add(format!("hold of subject {} on identifier {} is not in the log", subject.0, identifier.0));
            }
        }
        Row::Change(row) => {
            // Changes are numbered in batches, which the log does not show; what can be told is that nobody is missing.
            let known = match row.party {
                Party::Subject(no) => subjects_told.remove(&no),
                Party::Identifier(no) => bare.remove(&no) || memory.identifiers.contains_key(&no),
            };
            if !known || row.no > counters.changes || row.seq > counters.entries {
                problems.add(format!("change {} is of nobody in the log, or above the last", row.no));
            }
        }
        Row::Request(row) => {
            request_rows.insert(row.id);
            match requests.get(&row.id) {
                Some(recorded) if *recorded == (row.seq, row.status, row.purposes) => {}
                Some((seq, ..)) => problems.add(format!("request {} differs from entry {seq}, which recorded it last", row.id)),
                None => problems.add(format!("request {} is in no entry", row.id)),
            }
        }
        Row::Profile(no) => {
            profile_rows.insert(no);
            if !profiles_left.remove(&no) {
                problems.add(format!("profile of subject {} is not in the log, or was deleted there", no.0));
            }
        }
        Row::Vault(Owner::Profile(no)) => {
            profile_items.insert(no);
            if !profile_rows.contains(&no) {
                problems.add(format!("vault: the item of profile {} has no profile", no.0));
            }
        }
        Row::Subscription(no, subject, to_a_service) => {
            if !to_a_service || !profile_rows.contains(&subject) {
                problems.add(format!("subscription {no} has no profile or no service"));
            }
        }
        Row::PrivacyRequest(no) => drop(privacy_requests.insert(no)),
        Row::Vault(Owner::PrivacyRequest(no)) => {
            if !privacy_requests.remove(&no) {
                problems.add(format!("vault: the item of privacy request {no} has no request"));
            }
        }
        Row::Vault(Owner::ByHand(seq)) => {
            if !by_hand.remove(&seq) {
                problems.add(format!("vault: the item of entry {seq}, about a destination told by hand, is of no such entry"));
            }
        }
        Row::Vault(Owner::Identifier(no)) => {
            // All of them were met before: the vault is scanned last.
            if no.0 == 0 || no.0 >= next_identifier {
                problems.add(format!("vault: the item of identifier {} has no identifier", no.0));
            }
        }
        Row::Vault(Owner::Request(id)) => {
            if !request_rows.contains(&id) {
                problems.add(format!("vault: the item of request {id} has no request"));
            }
        }
    })?;
    for missing in next_identifier..=counters.identifiers {
        problems.add(format!("identifier {missing} is missing or cannot be read"));
    }
    for no in subjects {
        problems.add(format!("subject {} is missing or cannot be read", no.0));
    }
    for no in subjects_told {
        problems.add(format!("change of subject {} is missing", no.0));
    }
    for no in bare {
        problems.add(format!("change of identifier {} is missing", no.0));
    }
    for (subject, identifier) in holds {
        problems.add(format!("hold of subject {} on identifier {} is missing", subject.0, identifier.0));
    }
    for no in profiles_left {
        problems.add(format!("profile of subject {} is missing", no.0));
    }
    for no in privacy_requests {
        problems.add(format!("vault: the item of privacy request {no} is missing"));
    }
    for no in profile_rows.difference(&profile_items) {
        problems.add(format!("vault: the item of profile {} is missing", no.0));
    }
    Ok(())
}

fn compare_lists(read: &mut dyn Read, fold: &Fold, problems: &mut Problems) -> Result<(), StoreError> {
    if let Some(rows) = problems.keep(read.keys())? {
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.no, (row.role, row.revoked_at.is_some()))).collect();
        for no in differing(&rows, &fold.keys) {
            problems.add(format!("api_key {no} differs from the log"));
        }
    }
    if let Some(rows) = problems.keep(read.purposes())? {
        let rows = rows.into_iter().map(|(bit, name, model)| (bit, (Digest(Sha256::digest(name).into()), model))).collect();
        for bit in differing(&rows, &fold.purposes) {
            problems.add(format!("purpose {bit} differs from the log"));
        }
    }
    for (seq, import, finished) in &fold.imports {
        let row = problems.keep(read.import(&import.0))?;
        if row.is_some_and(|row| row != Some(*finished)) {
            problems.add(format!("import {import} differs from entry {seq}, which finished it"));
        }
    }
    Ok(())
}

/// Each entry that speaks of deliveries has its records, and there are no others.
fn compare_evidence(read: &mut dyn Read, fold: &Fold, problems: &mut Problems) -> Result<(), StoreError> {
    let (mut missing, mut from) = (fold.acknowledged.clone(), 0);
    loop {
        let Some(rows) = problems.keep(read.evidence(from..u64::MAX, EVIDENCE_CHUNK))? else { return Ok(()) };
        let Some((last, _)) = rows.last() else { break };
        from = last + 1;
        for (seq, segment) in rows {
            let Some((ranges, count, root)) = missing.remove(&seq) else {
                problems.add(format!("evidence of entry {seq}: the log has no such entry"));
                continue;
            };
            let Some(records) = problems.keep(evidence::unpack(seq, &segment))? else { continue };
            if !evidence::fits(&records, &ranges, count, root) {
                problems.add(format!("evidence of entry {seq} is not what the entry says"));
            }
        }
    }
    for seq in missing.into_keys() {
        problems.add(format!("evidence of entry {seq} is missing"));
    }
    Ok(())
}

/// The keys under which two maps do not hold the same.
fn differing<V: PartialEq>(one: &BTreeMap<u32, V>, other: &BTreeMap<u32, V>) -> BTreeSet<u32> {
    one.keys().chain(other.keys()).copied().filter(|key| one.get(key) != other.get(key)).collect()
}
