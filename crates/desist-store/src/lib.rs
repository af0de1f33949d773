//! The store: log, state and vault as tables of one database, written in one transaction.
//!
//! [`Store`] says what the engine needs in the words of the domain, in about thirty atomic
//! operations; SQL lives in the back ends and nowhere else. Each back end passes the same suite,
//! `contract.rs`, under injected failures. Everything hangs on dense row numbers; lookup keys and
//! random ids are inserted once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use desist_core::decision::Verdict;
use desist_core::fact::{Channel, Entry, Fact, IdRef, RequestId, RequestKind, Role};
use desist_core::graph::{Changes, Party, Records};
use desist_core::identifier::Kind;
use desist_core::lane::{Delta, News, Saved};
use desist_core::limits::HOLDERS_MAX;
use desist_core::lookup::LookupKey;
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::{Model, PurposeSet};
use desist_core::rules::{Batch, Counters};
use desist_proof::{Frontier, leaf_hash};
use serde::{Deserialize, Serialize};

mod check;
pub mod contract;
pub mod evidence;
pub mod faulty;
pub mod sqlite;
pub mod tiles;

pub use check::{Row, Scope, check};

/// The version of the tables that this build reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("{0} is in use by another desist process; stop that one, or give --data another directory")]
    InUse(String),
    /// The database was written by another version.
    #[error("the store has schema version {found}, this build knows {known}; {fix}")]
    Version {
        /// What the store says.
        found: u32,
        /// What this build knows.
        known: u32,
        /// What to do.
        fix: &'static str,
    },
    /// Somebody holds a lock; the same transaction may pass later.
    #[error("the database is busy")]
    Busy,
    /// There is no room on the disk: nothing was written.
    #[error("the disk is full")]
    Full,
    /// What is stored cannot be.
    #[error("the store is damaged: {0}; run `desist check`")]
    Damaged(String),
    /// Anything else the database said, without values.
    #[error("the database failed: {0}")]
    Database(String),
}

/// The coordinator row: what the next transaction builds on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coordinator {
    /// The highest numbers given.
    pub counters: Counters,
    /// The Merkle frontier over all entries, as `desist_proof::Frontier::to_bytes` writes it.
    pub frontier: Vec<u8>,
}

/// An API key. The key's and the token's hashes alone are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its number, from 1.
    pub no: u32,
    /// What the operator calls it; never in the log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the API key.
    pub key_hash: [u8; 32],
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds, once it ended.
    pub revoked_at: Option<i64>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Recorded and denied in every decision; destinations come later.
    Received,
    /// The first step of an opt-in, waiting for the second.
    AwaitingConfirmation,
    /// An opt-in that was confirmed.
    Confirmed,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Its id.
    pub id: RequestId,
    /// SHA-256 of its receipt code.
    pub receipt_hash: [u8; 32],
    /// What was asked.
    pub kind: RequestKind,
    /// Where it stands.
    pub status: Status,
    /// Where it came in.
    pub channel: Channel,
    /// For what.
    pub purposes: PurposeSet,
    /// The entry that recorded it last.
    pub seq: u64,
    /// When the consumer acted, in Unix seconds.
    pub acted_at: i64,
    /// When it was recorded, in Unix seconds.
    pub recorded_at: i64,
    /// Last day under the strict calendar, `YYYY-MM-DD`.
    pub deadline: String,
    /// Last day under the conventional calendar, `YYYY-MM-DD`.
    pub deadline_conventional: String,
    /// The subject it was recorded on.
    pub subject: Option<SubjectNo>,
    /// The identifiers it named.
    pub identifiers: Vec<IdRef>,
    /// SHA-256 of the token that confirms it, while it waits.
    pub confirm_hash: Option<[u8; 32]>,
    /// Identifiers whose holders it did not reach, for an operator.
    pub unreached: Vec<IdentifierNo>,
}

/// Whose data a vault item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A Campaign profile.
    Profile(SubjectNo),
    /// The evidence of one request.
    Request(RequestId),
    /// What one privacy request of the Campaign API is about.
    PrivacyRequest(u64),
    /// Who told a destination by hand, and the evidence of it: the entry that recorded it.
    ByHand(u64),
    /// What an identifier is, for the destinations that are told of it.
    Identifier(IdentifierNo),
}

/// Sealed data: useless without the master key, gone with its data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The owner's random data key, wrapped by the master key.
    pub wrapped_key: Vec<u8>,
    /// The data under that key.
    pub ciphertext: Vec<u8>,
}

/// A Campaign profile's part in clear: no personal data. Times in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileRow {
    /// When it was created.
    pub created_ms: i64,
    /// When an attribute changed last.
    pub modified_ms: i64,
    /// When its opt-out was ended by an API client, if ever.
    pub opt_out_ended_ms: Option<i64>,
}

/// A time of a profile, by which profiles are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeColumn {
    /// [`ProfileRow::created_ms`].
    Created,
    /// [`ProfileRow::modified_ms`].
    Modified,
}

/// Where a page of an ordered list begins and how it goes on: strictly after an entry, which need not
/// exist any more, in the order of (value, number) or its exact reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<V> {
    /// The entry before the page; none for the first page.
    pub after: Option<(V, u64)>,
    /// From the greatest to the least.
    pub descending: bool,
    /// Most entries.
    pub limit: usize,
}

/// A service that profiles can subscribe to. No personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// Its number, from 1.
    pub no: u64,
    /// Its generated key.
    pub pkey: String,
    /// Its unique name.
    pub name: String,
    /// Its fields as JSON.
    pub attributes: String,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Unix milliseconds.
    pub modified_ms: i64,
}

/// That a profile subscribed to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Its number, from 1.
    pub no: u64,
    /// Its generated key.
    pub pkey: String,
    /// Who.
    pub subject: SubjectNo,
    /// To what.
    pub service: u64,
    /// Unix milliseconds.
    pub created_ms: i64,
}

/// Which subscriptions are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscriptions {
    /// Those of a profile.
    Of(SubjectNo),
    /// Those to a service.
    To(u64),
}

/// What a privacy request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivacyKind {
    /// To see the data.
    Access,
    /// To have it deleted.
    Delete,
}

/// Where a privacy request stands, by Adobe's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PrivacyStatus {
    /// Done.
    Complete,
    /// Nobody was found.
    ErrorDataNotFound,
}

/// A privacy request of the Campaign API; whom it is about is in the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivacyRow {
    /// Its number, from 1.
    pub no: u64,
    /// Its generated key.
    pub pkey: String,
    /// Keyed hash of its unique name.
    pub name_hash: [u8; 32],
    /// What it asks for.
    pub kind: PrivacyKind,
    /// Under which law.
    pub regulation: String,
    /// Where it stands.
    pub status: PrivacyStatus,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Unix milliseconds.
    pub modified_ms: i64,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportRow {
    /// Rows of the file that are done, refused ones included.
    pub rows: u64,
    /// Rows that became opt-outs or already were.
    pub accepted: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// Whether the end of the file was reached.
    pub finished: bool,
}

/// A stored answer to a request that carried an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Keyed digest of the request's body.
    pub request_digest: [u8; 32],
    /// What is needed to give the same answer again: ids and numbers, no personal data.
    pub answer: String,
}

/// Counts for `desist status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests by status: received, awaiting confirmation, confirmed.
    pub requests: [u64; 3],
    /// Identifiers with a denial.
    pub denied_identifiers: u64,
    /// Campaign profiles.
    pub profiles: u64,
    /// Requests with lines that the act did not reach.
    pub unreached: u64,
}

/// The latest change of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its place among all changes, from 1. No number is given twice.
    pub no: u64,
    /// Who.
    pub party: Party,
    /// The entry that made it.
    pub seq: u64,
}

/// Reading, in one snapshot.
pub trait Read: Records<Error = StoreError> {
    /// The coordinator row.
    fn coordinator(&mut self) -> Result<Coordinator, StoreError>;
    /// A value of the `meta` table.
    fn meta(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Parties by their latest change, after the change `after`, at most `limit`.
    fn changes(&mut self, after: u64, limit: usize) -> Result<Vec<ChangeRow>, StoreError>;
    /// The latest change of a party; none if nothing ever concerned it.
    fn change_of(&mut self, party: Party) -> Result<Option<ChangeRow>, StoreError>;
    /// The last change that is not after the one with this number.
    fn change_upto(&mut self, no: u64) -> Result<Option<ChangeRow>, StoreError>;
    /// The stored bytes of the entries with these numbers (`from..to`, from 1), in order.
    fn entries(&mut self, seqs: Range<u64>) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
    /// The stored evidence of the entries with these numbers (`from..to`), in order, at most `limit`; see [`evidence`].
    fn evidence(&mut self, seqs: Range<u64>, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
    /// The stored hashes of a tile of the log, see [`tiles`]; none if it is not stored.
    fn tile(&mut self, level: u8, no: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// Calls `each` with every identifier's key, kind and verdict that is not the default.
    fn each_verdict(&mut self, each: &mut dyn FnMut(LookupKey, Kind, Verdict)) -> Result<(), StoreError>;
    /// The stored key, kind and verdict of an identifier.
    fn verdict_of(&mut self, no: IdentifierNo) -> Result<Option<(LookupKey, Kind, Verdict)>, StoreError>;
    /// Every destination that was ever declared: number and id.
    fn destinations(&mut self) -> Result<Vec<(u32, String)>, StoreError>;
    /// The books of a destination's lane, and the number of its last lease; none before the first.
    fn lane(&mut self, destination: u32) -> Result<Option<(u64, Saved)>, StoreError>;
    /// The declared purposes: bit, name, model.
    fn purposes(&mut self) -> Result<Vec<(u32, String, Model)>, StoreError>;
    /// Every API key, revoked ones included.
    fn keys(&mut self) -> Result<Vec<KeyRow>, StoreError>;
    /// A request by its id.
    fn request(&mut self, id: RequestId) -> Result<Option<RequestRow>, StoreError>;
    /// A request by the hash of its receipt code.
    fn request_by_receipt(&mut self, receipt_hash: &[u8; 32]) -> Result<Option<RequestRow>, StoreError>;
    /// Requests with unreached lines, oldest first, at most `limit`.
    fn unreached(&mut self, limit: usize) -> Result<Vec<RequestRow>, StoreError>;
    /// A vault item.
    fn vault_get(&mut self, owner: Owner) -> Result<Option<Sealed>, StoreError>;
    /// Identifiers that the vault holds an item of, by number, after `after`, at most `limit`.
    fn vault_identifiers(&mut self, after: IdentifierNo, limit: usize) -> Result<Vec<IdentifierNo>, StoreError>;
    /// A Campaign profile.
    fn profile(&mut self, subject: SubjectNo) -> Result<Option<ProfileRow>, StoreError>;
    /// Campaign profiles by number, after `after`, at most `limit`.
    fn profiles(&mut self, after: SubjectNo, limit: usize) -> Result<Vec<SubjectNo>, StoreError>;
    /// How many Campaign profiles there are.
    fn profile_count(&mut self) -> Result<u64, StoreError>;
    /// Campaign profiles by a time.
    fn profiles_by_time(&mut self, column: TimeColumn, page: Page<i64>) -> Result<Vec<(i64, SubjectNo)>, StoreError>;
    /// Campaign keys whose verdict denies `sale`, and shared ones, through which nothing passes, each with
    /// the subjects that hold it, by number of the key, after `after`; at most `limit` keys that somebody
    /// holds. A subject among them need not be a profile, nor the key's own, nor denied.
    fn denied_profiles(&mut self, after: IdentifierNo, limit: usize) -> Result<Vec<(IdentifierNo, SubjectNo)>, StoreError>;
    /// Profiles by a field that is kept in clear, those whose value begins with `prefix`.
    fn profile_texts(&mut self, field: &str, prefix: &str, page: Page<&str>) -> Result<Vec<(String, SubjectNo)>, StoreError>;
    /// How many values of such a field begin with `prefix`.
    fn profile_text_count(&mut self, field: &str, prefix: &str) -> Result<u64, StoreError>;
    /// Every service, by number.
    fn services(&mut self) -> Result<Vec<ServiceRow>, StoreError>;
    /// A subscription by its key.
    fn subscription(&mut self, pkey: &str) -> Result<Option<SubscriptionRow>, StoreError>;
    /// The subscription of a profile to a service.
    fn subscribed(&mut self, subject: SubjectNo, service: u64) -> Result<Option<SubscriptionRow>, StoreError>;
    /// Subscriptions by number, after `after`, at most `limit`.
    fn subscriptions(&mut self, which: Subscriptions, after: u64, limit: usize) -> Result<Vec<SubscriptionRow>, StoreError>;
    /// How many subscriptions.
    fn subscription_count(&mut self, which: Subscriptions) -> Result<u64, StoreError>;
    /// A privacy request by its key.
    fn privacy_request(&mut self, pkey: &str) -> Result<Option<PrivacyRow>, StoreError>;
    /// Whether a privacy request has this name.
    fn privacy_request_named(&mut self, name_hash: &[u8; 32]) -> Result<bool, StoreError>;
    /// Privacy requests by number, after `after`, at most `limit`.
    fn privacy_requests(&mut self, after: u64, limit: usize) -> Result<Vec<PrivacyRow>, StoreError>;
    /// How many privacy requests there are.
    fn privacy_request_count(&mut self) -> Result<u64, StoreError>;
    /// How far an import is.
    fn import(&mut self, import: &[u8; 32]) -> Result<Option<ImportRow>, StoreError>;
    /// The answer remembered under a scope (keyed hash of key, route and caller) since `since`
    /// (Unix seconds).
    fn remembered(&mut self, scope: &[u8; 32], since: i64) -> Result<Option<Remembered>, StoreError>;
    /// Counts for the operator.
    fn totals(&mut self) -> Result<Totals, StoreError>;
    /// Calls `each` with every row that [`check()`] compares, by table in the order of [`Row`] and by
    /// number within it, and with what the database itself finds wrong.
    fn scan(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError>;

    /// Every identifier whose verdict an entry after `after` may have changed, with its present
    /// verdict: what a decision index that knows everything up to `after` must apply to be current.
    fn tail(&mut self, after: u64) -> Result<Vec<(LookupKey, Verdict)>, StoreError> {
        let upto = self.coordinator()?.counters.entries;
        // Identifiers with the number of entries that may have given them one more holder.
        let (mut named_with_links, mut subjects) = (BTreeMap::new(), BTreeSet::new());
        let mut from = after + 1;
        while from <= upto {
            let to = (from + TAIL_CHUNK).min(upto + 1);
            for (seq, bytes) in self.entries(from..to)? {
                let entry = Entry::decode(&bytes).map_err(|error| StoreError::Damaged(format!("entry {seq}: {error}")))?;
                let links = u64::from(matches!(entry.fact, Fact::Linked { .. }));
                let (subject, named) = match entry.fact {
                    Fact::Linked { subject, identifiers, .. }
                    | Fact::Unlinked { subject, identifiers, .. }
                    | Fact::ApiOptOutEnded { subject, identifiers, .. } => (Some(subject), identifiers),
                    Fact::OptedOut { subject, identifiers, .. } | Fact::OptedIn { subject, identifiers, .. } => (subject, identifiers),
                    _ => (None, Vec::new()),
                };
                subjects.extend(subject);
                for IdRef(no, _) in named {
                    *named_with_links.entry(no).or_insert(0) += links;
                }
            }
            from = to;
        }
        for (no, links) in &named_with_links {
            // One that was shared before `after` let nothing pass, and may have millions of holders.
            let passed = self.identifier(*no)?.is_some_and(|row| !row.shared || row.holders <= HOLDERS_MAX + links);
            if passed {
                subjects.extend(self.holders(*no)?);
            }
        }
        let mut identifiers: BTreeSet<_> = named_with_links.into_keys().collect();
        for subject in subjects {
            identifiers.extend(self.held(subject)?);
        }
        let mut verdicts = Vec::with_capacity(identifiers.len());
        for no in identifiers {
            if let Some((key, _, verdict)) = self.verdict_of(no)? {
                verdicts.push((key, verdict));
            }
        }
        Ok(verdicts)
    }
}

/// Entries read at a time while catching up: a few MiB.
const TAIL_CHUNK: u64 = 10_000;

/// Writing, inside one transaction.
pub trait Write: Read {
    /// Appends the encoded entries, dense after what is stored, and sets the coordinator row.
    fn append(&mut self, entries: &[(u64, Vec<u8>)], coordinator: &Coordinator) -> Result<(), StoreError>;
    /// Stores the evidence of an entry, once.
    fn put_evidence(&mut self, seq: u64, segment: &[u8]) -> Result<(), StoreError>;
    /// Inserts or replaces the hashes of a tile.
    fn put_tile(&mut self, level: u8, no: u64, hashes: &[u8]) -> Result<(), StoreError>;
    /// Inserts new identifiers and writes what the batch changed. Its parties get change numbers from `first_change` on, in
    /// place of those that they had.
    fn write(&mut self, new: &[(LookupKey, IdRef)], changes: &Changes, first_change: u64) -> Result<(), StoreError>;
    /// Sets a value of the `meta` table.
    fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError>;
    /// Stores a declared destination.
    fn put_destination(&mut self, no: u32, id: &str) -> Result<(), StoreError>;
    /// Begins a lease on a destination's lane, and ends the one before: its number.
    fn claim_lane(&mut self, destination: u32) -> Result<u64, StoreError>;
    /// Writes one step of a lane, and says what is new in it; none, and nothing is written, if its lease is not the last one.
    fn save_lane(&mut self, destination: u32, delta: &Delta) -> Result<Option<Vec<News>>, StoreError>;
    /// Stores a declared purpose.
    fn put_purpose(&mut self, bit: u32, name: &str, model: Model) -> Result<(), StoreError>;
    /// Inserts or replaces an API key.
    fn put_key(&mut self, key: &KeyRow) -> Result<(), StoreError>;
    /// Inserts or replaces a request.
    fn put_request(&mut self, request: &RequestRow) -> Result<(), StoreError>;
    /// Inserts or replaces a vault item.
    fn vault_put(&mut self, owner: Owner, sealed: &Sealed) -> Result<(), StoreError>;
    /// Removes a vault item with its data key, overwriting the bytes.
    fn vault_shred(&mut self, owner: Owner) -> Result<(), StoreError>;
    /// Inserts or replaces a profile row.
    fn put_profile(&mut self, subject: SubjectNo, profile: &ProfileRow) -> Result<(), StoreError>;
    /// Removes a profile row.
    fn delete_profile(&mut self, subject: SubjectNo) -> Result<(), StoreError>;
    /// Moves a profile in the list of a field that is kept in clear: out of its old value, into the new one.
    fn put_profile_text(&mut self, subject: SubjectNo, field: &str, old: Option<&str>, new: Option<&str>) -> Result<(), StoreError>;
    /// Removes up to `limit` values of a field from clear; returns how many.
    fn remove_profile_texts(&mut self, field: &str, limit: usize) -> Result<usize, StoreError>;
    /// Inserts or replaces a service; number 0 stands for the next free one.
    fn put_service(&mut self, service: &ServiceRow) -> Result<(), StoreError>;
    /// Inserts a subscription under the next free number, which it returns.
    fn put_subscription(&mut self, subscription: &SubscriptionRow) -> Result<u64, StoreError>;
    /// Removes a subscription.
    fn delete_subscription(&mut self, no: u64) -> Result<(), StoreError>;
    /// Removes every subscription of a profile.
    fn delete_subscriptions(&mut self, subject: SubjectNo) -> Result<(), StoreError>;
    /// Inserts a privacy request under the next free number, which it returns.
    fn put_privacy_request(&mut self, request: &PrivacyRow) -> Result<u64, StoreError>;
    /// Inserts or replaces an import's progress.
    fn put_import(&mut self, import: &[u8; 32], row: &ImportRow) -> Result<(), StoreError>;
    /// Remembers an answer given at `now` (Unix seconds), and forgets those older than
    /// [`REMEMBER_SECONDS`] by whole hours.
    fn remember(&mut self, scope: &[u8; 32], remembered: &Remembered, now: i64) -> Result<(), StoreError>;
    /// Writes one row that means nothing, to see that writing works.
    fn scratch(&mut self, now: i64) -> Result<(), StoreError>;
}

/// How long an `Idempotency-Key` is remembered, in seconds.
pub const REMEMBER_SECONDS: i64 = 48 * 3600;

/// The work of one transaction. It may be run more than once and must start anew each time.
pub type Work<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), StoreError>;

/// A database that holds one business.
pub trait Store: Send {
    /// Runs `work` in one transaction and commits it durably. On any error nothing is written; on
    /// an error other than [`StoreError::Busy`] the caller closes the store and opens it anew.
    fn transact(&mut self, work: Work<'_>) -> Result<(), StoreError>;
    /// A source of snapshots to read from, beside the writer.
    fn readers(&self) -> Box<dyn Readers>;
}

/// Snapshots for reading; a few at a time, callers wait for a free one.
pub trait Readers: Send + Sync {
    /// Runs `work` in one snapshot.
    fn read(&self, work: &mut dyn FnMut(&mut dyn Read) -> Result<(), StoreError>) -> Result<(), StoreError>;
    /// Copies the whole database, as of one moment, into a new file.
    fn backup(&self, to: &std::path::Path) -> Result<(), StoreError>;
}

/// Writes what a batch did, whole: entries, Merkle frontier, identifiers, subjects and holds. Returns
/// the changes, for the decision index.
pub fn commit(write: &mut dyn Write, batch: &mut Batch) -> Result<Changes, StoreError> {
    let changes = batch.changes(write)?;
    let first_change = batch.counters.changes + 1;
    batch.counters.changes += changes.parties.len() as u64;
    let mut frontier = frontier(&write.coordinator()?)?;
    let entries: Vec<_> = batch.entries.iter().map(|entry| (entry.seq, entry.encode())).collect();
    let (size, leaves) = (frontier.size(), entries.iter().map(|(_, bytes)| leaf_hash(bytes)).collect::<Vec<_>>());
    for leaf in &leaves {
        frontier.append(*leaf);
    }
    tiles::extend(write, size, &leaves)?;
    write.append(&entries, &Coordinator { counters: batch.counters, frontier: frontier.to_bytes() })?;
    let new: Vec<_> = batch.new_identifiers.iter().map(|(key, reference)| (*key, *reference)).collect();
    write.write(&new, &changes, first_change)?;
    Ok(changes)
}

/// The frontier over the entries that the coordinator row counts.
fn frontier(coordinator: &Coordinator) -> Result<Frontier, StoreError> {
    let frontier = Frontier::from_bytes(&coordinator.frontier).map_err(|error| StoreError::Damaged(format!("coordinator: {error}")))?;
    if frontier.size() != coordinator.counters.entries {
        return Err(StoreError::Damaged(format!(
            "coordinator: the frontier has {} leaves for {} entries",
            frontier.size(),
            coordinator.counters.entries
        )));
    }
    Ok(frontier)
}
