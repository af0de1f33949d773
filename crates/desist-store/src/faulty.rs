//! A store that fails when a test wants it to.

use std::ops::Range;

use desist_core::decision::Verdict;
use desist_core::fact::{IdRef, RequestId};
use desist_core::graph::{Changes, IdentifierRow, Party, Records, SubjectRow};
use desist_core::identifier::Kind;
use desist_core::lane::{Delta, News, Saved};
use desist_core::lookup::LookupKey;
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::Model;

use crate::{
    ChangeRow, Coordinator, ImportRow, KeyRow, Owner, Page, PrivacyRow, ProfileRow, Read, Readers, Remembered, RequestRow, Row, Sealed,
    ServiceRow, Store, StoreError, SubscriptionRow, Subscriptions, TimeColumn, Totals, Work, Write,
};

/// When a [`FaultyStore`] fails, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// At this call of an operation inside transactions, counted from 1; it is not carried out.
    Call(u64),
    /// After the work of this transaction, counted from 1, and before its commit.
    BeforeCommit(u64),
    /// After the commit of this transaction: it is durable, and the caller hears of an error.
    AfterCommit(u64),
}

/// A store that passes everything on until its fault comes.
pub struct FaultyStore {
    inner: Box<dyn Store>,
    fault: Option<Fault>,
    /// Operations that were called so far.
    pub calls: u64,
    /// Transactions that were begun so far.
    pub transactions: u64,
}

impl FaultyStore {
    /// Wraps a store; without a fault it only counts.
    pub fn new(inner: Box<dyn Store>, fault: Option<Fault>) -> Self {
        Self { inner, fault, calls: 0, transactions: 0 }
    }
}

fn injected() -> StoreError {
    StoreError::Database("injected failure".to_owned())
}

impl Store for FaultyStore {
    fn transact(&mut self, work: Work<'_>) -> Result<(), StoreError> {
        self.transactions += 1;
        let (fault, calls, transaction) = (self.fault, &mut self.calls, self.transactions);
        self.inner.transact(&mut |write| {
            work(&mut FaultyWrite { inner: write, calls, fault })?;
            if fault == Some(Fault::BeforeCommit(transaction)) { Err(injected()) } else { Ok(()) }
        })?;
        if fault == Some(Fault::AfterCommit(transaction)) { Err(injected()) } else { Ok(()) }
    }

    fn readers(&self) -> Box<dyn Readers> {
        self.inner.readers()
    }
}

/// One transaction of a [`FaultyStore`].
struct FaultyWrite<'a> {
    inner: &'a mut dyn Write,
    calls: &'a mut u64,
    fault: Option<Fault>,
}

impl FaultyWrite<'_> {
    fn call(&mut self) -> Result<&mut dyn Write, StoreError> {
        *self.calls += 1;
        if self.fault == Some(Fault::Call(*self.calls)) { Err(injected()) } else { Ok(self.inner) }
    }
}

/// Each operation counts, then goes to the store inside.
macro_rules! pass_on {
    ($(fn $name:ident(&mut self $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&mut self $(, $arg: $type)*) -> Result<$result, StoreError> { self.call()?.$name($($arg),*) })*
    };
}

impl Records for FaultyWrite<'_> {
    type Error = StoreError;
    pass_on! {
        fn find(&mut self, key: &LookupKey) -> Option<IdentifierNo>;
        fn identifier(&mut self, no: IdentifierNo) -> Option<IdentifierRow>;
        fn subject(&mut self, no: SubjectNo) -> Option<SubjectRow>;
        fn holders(&mut self, no: IdentifierNo) -> Vec<SubjectNo>;
        fn held(&mut self, no: SubjectNo) -> Vec<IdentifierNo>;
        fn holds(&mut self, subject: SubjectNo, identifier: IdentifierNo) -> bool;
    }
}

impl Read for FaultyWrite<'_> {
    pass_on! {
        fn coordinator(&mut self) -> Coordinator;
        fn meta(&mut self, name: &str) -> Option<Vec<u8>>;
        fn changes(&mut self, after: u64, limit: usize) -> Vec<ChangeRow>;
        fn change_of(&mut self, party: Party) -> Option<ChangeRow>;
        fn change_upto(&mut self, no: u64) -> Option<ChangeRow>;
        fn entries(&mut self, seqs: Range<u64>) -> Vec<(u64, Vec<u8>)>;
        fn evidence(&mut self, seqs: Range<u64>, limit: usize) -> Vec<(u64, Vec<u8>)>;
        fn tile(&mut self, level: u8, no: u64) -> Option<Vec<u8>>;
        fn each_verdict(&mut self, each: &mut dyn FnMut(LookupKey, Kind, Verdict)) -> ();
        fn verdict_of(&mut self, no: IdentifierNo) -> Option<(LookupKey, Kind, Verdict)>;
        fn destinations(&mut self) -> Vec<(u32, String)>;
        fn lane(&mut self, destination: u32) -> Option<(u64, Saved)>;
        fn purposes(&mut self) -> Vec<(u32, String, Model)>;
        fn keys(&mut self) -> Vec<KeyRow>;
        fn request(&mut self, id: RequestId) -> Option<RequestRow>;
        fn request_by_receipt(&mut self, receipt_hash: &[u8; 32]) -> Option<RequestRow>;
        fn unreached(&mut self, limit: usize) -> Vec<RequestRow>;
        fn vault_get(&mut self, owner: Owner) -> Option<Sealed>;
        fn vault_identifiers(&mut self, after: IdentifierNo, limit: usize) -> Vec<IdentifierNo>;
        fn profile(&mut self, subject: SubjectNo) -> Option<ProfileRow>;
        fn profiles(&mut self, after: SubjectNo, limit: usize) -> Vec<SubjectNo>;
        fn profile_count(&mut self) -> u64;
        fn profiles_by_time(&mut self, column: TimeColumn, page: Page<i64>) -> Vec<(i64, SubjectNo)>;
        fn denied_profiles(&mut self, after: IdentifierNo, limit: usize) -> Vec<(IdentifierNo, SubjectNo)>;
        fn profile_texts(&mut self, field: &str, prefix: &str, page: Page<&str>) -> Vec<(String, SubjectNo)>;
        fn profile_text_count(&mut self, field: &str, prefix: &str) -> u64;
        fn services(&mut self) -> Vec<ServiceRow>;
        fn subscription(&mut self, pkey: &str) -> Option<SubscriptionRow>;
        fn subscribed(&mut self, subject: SubjectNo, service: u64) -> Option<SubscriptionRow>;
        fn subscriptions(&mut self, which: Subscriptions, after: u64, limit: usize) -> Vec<SubscriptionRow>;
        fn subscription_count(&mut self, which: Subscriptions) -> u64;
        fn privacy_request(&mut self, pkey: &str) -> Option<PrivacyRow>;
        fn privacy_request_named(&mut self, name_hash: &[u8; 32]) -> bool;
        fn privacy_requests(&mut self, after: u64, limit: usize) -> Vec<PrivacyRow>;
        fn privacy_request_count(&mut self) -> u64;
        fn import(&mut self, import: &[u8; 32]) -> Option<ImportRow>;
        fn remembered(&mut self, scope: &[u8; 32], since: i64) -> Option<Remembered>;
        fn totals(&mut self) -> Totals;
        fn scan(&mut self, each: &mut dyn FnMut(Row)) -> ();
    }
}

impl Write for FaultyWrite<'_> {
    pass_on! {
        fn append(&mut self, entries: &[(u64, Vec<u8>)], coordinator: &Coordinator) -> ();
        fn put_evidence(&mut self, seq: u64, segment: &[u8]) -> ();
        fn put_tile(&mut self, level: u8, no: u64, hashes: &[u8]) -> ();
        fn write(&mut self, new: &[(LookupKey, IdRef)], changes: &Changes, first_change: u64) -> ();
        fn put_meta(&mut self, name: &str, value: &[u8]) -> ();
        fn put_destination(&mut self, no: u32, id: &str) -> ();
        fn claim_lane(&mut self, destination: u32) -> u64;
        fn save_lane(&mut self, destination: u32, delta: &Delta) -> Option<Vec<News>>;
        fn put_purpose(&mut self, bit: u32, name: &str, model: Model) -> ();
        fn put_key(&mut self, key: &KeyRow) -> ();
        fn put_request(&mut self, request: &RequestRow) -> ();
        fn vault_put(&mut self, owner: Owner, sealed: &Sealed) -> ();
        fn vault_shred(&mut self, owner: Owner) -> ();
        fn put_profile(&mut self, subject: SubjectNo, profile: &ProfileRow) -> ();
        fn delete_profile(&mut self, subject: SubjectNo) -> ();
        fn put_profile_text(&mut self, subject: SubjectNo, field: &str, old: Option<&str>, new: Option<&str>) -> ();
        fn remove_profile_texts(&mut self, field: &str, limit: usize) -> usize;
        fn put_service(&mut self, service: &ServiceRow) -> ();
        fn put_subscription(&mut self, subscription: &SubscriptionRow) -> u64;
        fn delete_subscription(&mut self, no: u64) -> ();
        fn delete_subscriptions(&mut self, subject: SubjectNo) -> ();
        fn put_privacy_request(&mut self, request: &PrivacyRow) -> u64;
        fn put_import(&mut self, import: &[u8; 32], row: &ImportRow) -> ();
        fn remember(&mut self, scope: &[u8; 32], remembered: &Remembered, now: i64) -> ();
        fn scratch(&mut self, now: i64) -> ();
    }
}
