//! What a request led to, as a file that others can check: its receipt, and for each destination the latest record of a delivery
//! with the way from it to the same signed checkpoint.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use desist_core::fact::Entry;
use desist_core::graph::Party;
use desist_core::lane::{Assurance, Level};
use desist_proof::delivery::{Deliveries, Delivery, Named, Proven, Reached, Record, Unproven, inclusion};
use desist_proof::proof;
use desist_store::evidence::unpack;
use desist_store::{Read, RequestRow, StoreError, tiles};

use super::{AskError, Standing, declared_by, parties_of};
use crate::engine::{Engine, Failure, Shared};
use crate::intake::Outcome;
use crate::notary::{Published, receipt_under};

/// Segments of evidence read at a time: some MiB.
const CHUNK: usize = 64;

/// The latest record of each destination and party, each with its entry.
type Latest = BTreeMap<(u32, u64), (Record, u64)>;

impl Engine {
    /// The receipt of a request with the deliveries that are proven; none if no checkpoint covers the request yet.
    pub fn deliveries(&self, row: &RequestRow) -> Result<Option<Deliveries>, AskError> {
        // What is known beyond records, if this process delivers.
        let standings = match self.enforcement(row) {
            Ok((_, standings)) => Some(standings),
            Err(AskError::NotServing) => None,
            Err(error) => return Err(error),
        };
        let found = self.read(|read| deliveries(read, self.shared(), row, standings.as_deref()))?;
        Ok(found.map_err(Failure::Refused)?)
    }
}

/// As whom destinations are told of a request.
pub(super) fn parties(read: &mut dyn Read, row: &RequestRow) -> Result<BTreeSet<Party>, StoreError> {
    let mut parties: BTreeSet<Party> = row.subject.map(Party::Subject).into_iter().collect();
    for named in &row.identifiers {
        parties.extend(parties_of(read, named.0)?);
    }
    Ok(parties)
}

fn deliveries(read: &mut dyn Read, shared: &Shared, row: &RequestRow, standings: Option<&[Standing]>) -> Outcome<Option<Deliveries>> {
    let Some(newest) = shared.notary.published().filter(|published| published.size() >= row.seq) else { return Ok(Ok(None)) };
    // A request that changed nothing is proven by what said the same before.
    let mut wanted = BTreeMap::new();
    for party in parties(read, row)? {
        let changed = read.change_of(party)?.map_or(row.seq, |change| change.seq);
        wanted.insert(party.code(), changed.min(row.seq));
    }
    let latest = latest(read, &wanted, newest.size())?;
    let last = latest.values().map(|(_, seq)| *seq).max().unwrap_or(0).max(row.seq);
    let witnessed = shared.notary.witnessed().filter(|published| published.size() >= last);
    let published = witnessed.unwrap_or(newest);
    let receipt = match receipt_under(read, shared, row, &published)? {
        Ok(receipt) => receipt,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let names: BTreeMap<u32, String> = read.destinations()?.into_iter().collect();
    let mut proven = Vec::with_capacity(latest.len());
    for ((no, _), (record, seq)) in &latest {
        let id = names.get(no).ok_or_else(|| StoreError::Damaged(format!("destination {no} has no row")))?;
        proven.push(delivery(read, &published, Named { no: *no, id: id.clone() }, *record, *seq)?);
    }
    let is_proven = |no: u32| latest.keys().any(|(proven, _)| *proven == no);
    let unproven = match standings {
        Some(standings) => standings.iter().filter(|standing| !is_proven(standing.no)).map(unproven).collect(),
        None => names
            .iter()
            .filter(|(no, _)| !is_proven(**no))
            .map(|(no, id)| Unproven { destination: Named { no: *no, id: id.clone() }, state: "no record".to_owned() })
            .collect(),
    };
    Ok(Ok(Some(Deliveries { receipt, deliveries: proven, unproven })))
}

/// Looks through the evidence of the entries up to `upto` for the latest records about these parties, from these versions on.
fn latest(read: &mut dyn Read, wanted: &BTreeMap<u64, u64>, upto: u64) -> Result<Latest, StoreError> {
    let mut latest = Latest::new();
    // What is delivered was recorded before.
    let Some(mut from) = wanted.values().min().map(|version| version + 1) else { return Ok(latest) };
    loop {
        let rows = read.evidence(from..upto + 1, CHUNK)?;
        let Some((last, _)) = rows.last() else { return Ok(latest) };
        from = last + 1;
        for (seq, segment) in &rows {
            for record in unpack(*seq, segment)? {
                if wanted.get(&record.target).is_none_or(|least| record.version < *least) {
                    continue;
                }
                let known = latest.entry((record.destination, record.target)).or_insert((record, *seq));
                if says_more(&record, &known.0) {
                    *known = (record, *seq);
                }
            }
        }
    }
}

/// What was seen of a version stays seen, unless the destination said later that it does not have the person any more, or has again.
fn says_more(record: &Record, known: &Record) -> bool {
    let is_absent = |record: &Record| record.level == Reached::Absent;
    match record.version.cmp(&known.version) {
        Ordering::Equal if is_absent(record) != is_absent(known) => record.at >= known.at,
        Ordering::Equal => (record.level, record.at) > (known.level, known.at),
        order => order == Ordering::Greater,
    }
}

fn delivery(read: &mut dyn Read, published: &Published, destination: Named, record: Record, seq: u64) -> Result<Delivery, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("{what} of entry {seq}"));
    let (_, segment) = read.evidence(seq..seq + 1, 1)?.pop().ok_or_else(|| damaged("evidence"))?;
    let records = unpack(seq, &segment)?;
    let place = records.binary_search(&record).map_err(|_| damaged("evidence"))?;
    let proof = inclusion(&records, place).ok_or_else(|| damaged("evidence"))?;
    let declared = read.meta(&declared_by(destination.no))?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let declared = declared.ok_or_else(|| StoreError::Damaged(declared_by(destination.no)))?;
    Ok(Delivery {
        declared: proven(read, published, declared)?,
        destination,
        record,
        place: place as u64,
        proof,
        acknowledged: proven(read, published, seq)?,
    })
}

fn proven(read: &mut dyn Read, published: &Published, seq: u64) -> Result<Proven, StoreError> {
    let damaged = || StoreError::Damaged(format!("entry {seq}"));
    let (_, bytes) = read.entries(seq..seq + 1)?.pop().ok_or_else(damaged)?;
    Entry::decode(&bytes).map_err(|_| damaged())?;
    let entry = String::from_utf8(bytes).map_err(|_| damaged())?;
    let inclusion = proof::inclusion(published.size(), seq - 1, &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
    Ok(Proven { entry, index: seq - 1, inclusion })
}

fn unproven(standing: &Standing) -> Unproven {
    let state = match standing.assurance {
        Assurance::NotNeeded => "nothing to tell",
        Assurance::Unreachable => "unreachable",
        Assurance::Absent => "absent, without a record",
        Assurance::At(Level::Queued) => "none yet",
        Assurance::At(Level::Sent) => "none yet: sent, and not accepted",
        // As after a crash, or by hand.
        Assurance::At(Level::Accepted | Level::Applied | Level::Verified) => "told, without a record",
    };
    Unproven { destination: Named { no: standing.no, id: standing.id.clone() }, state: state.to_owned() }
}
