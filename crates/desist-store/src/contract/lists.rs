//! Lists of profiles, services, subscriptions and privacy requests, against a model in memory.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::decision::Verdict;
use desist_core::fact::{Actor, Fact, IdRef};
use desist_core::graph::{Changes, IdentifierRow};
use desist_core::identifier::Kind;
use desist_core::mark::{IdentifierNo, Line, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Batch;

use super::{Make, NOW, Rng, named, problems, read, scale, sealed};
use crate::{
    Owner, Page, PrivacyKind, PrivacyRow, PrivacyStatus, ProfileRow, Read, ServiceRow, Store, StoreError, SubscriptionRow, Subscriptions,
    TimeColumn, Write, commit,
};

/// Prefixes of each other, ends of blocks of code points, a character of each length, a zero byte and nothing.
const TEXTS: [&str; 22] = [
    "",
    "\0",
    "a",
    "a\0",
    "aa",
    "ab",
    "b",
    "A",
    "é",
    "éa",
    "ê",
    "日",
    "日本",
    "\u{d7ff}",
    "\u{d7ff}x",
    "\u{e000}",
    "a\u{d7ff}",
    "a\u{d7ff}b",
    "a\u{e000}",
    "\u{10ffff}",
    "\u{10ffff}\u{10ffff}x",
    "a\u{10ffff}",
];
const FIELDS: [&str; 3] = ["email", "lastName", ""];

/// What the tables hold.
#[derive(Clone, Default)]
struct Model {
    profiles: BTreeMap<u64, ProfileRow>,
    texts: BTreeSet<(&'static str, &'static str, u64)>,
    services: BTreeMap<u64, ServiceRow>,
    subscriptions: BTreeMap<u64, SubscriptionRow>,
    privacy_requests: BTreeMap<u64, PrivacyRow>,
    items: BTreeMap<u64, &'static str>,
    /// How many keys were given.
    keys: u64,
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

/// A page of a list that is in order.
fn page<V: Clone + Ord>(all: impl Iterator<Item = (V, u64)>, after: Option<&(V, u64)>, descending: bool, limit: usize) -> Vec<(V, u64)> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    if descending {
        all.reverse();
    }
    all.retain(|entry| after.is_none_or(|after| if descending { entry < after } else { entry > after }));
    all.truncate(limit);
    all
}

fn hash(n: u64) -> [u8; 32] {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    hash
}

impl Model {
    fn key(&mut self) -> String {
        self.keys += 1;
        format!("key{}", self.keys)
    }

    /// One operation on the store and on the model.
    fn act(&mut self, rng: &mut Rng, write: &mut dyn Write) -> Result<(), StoreError> {
        let (subject, time) = (1 + rng.below(12), |rng: &mut Rng| pick(rng, &[i64::MIN, -1, 0, 1, NOW * 1000, i64::MAX]));
        match rng.below(16) {
            0..=2 => {
                let row = ProfileRow { created_ms: time(rng), modified_ms: time(rng), opt_out_ended_ms: None };
                self.profiles.insert(subject, row);
                write.put_profile(SubjectNo(subject), &row)?;
            }
            3 => {
                self.profiles.remove(&subject);
                write.delete_profile(SubjectNo(subject))?;
            }
            4..=8 => {
                let (field, new) = (pick(rng, &FIELDS), (rng.below(4) > 0).then(|| pick(rng, &TEXTS)));
                let present: Vec<_> = self.texts.iter().filter(|(of, _, no)| (*of, *no) == (field, subject)).map(|text| text.1).collect();
                // An old value that is not there is no error, nor is a new one that is.
                let old = if rng.below(8) == 0 { Some(pick(rng, &TEXTS)) } else { present.first().copied() };
                if let Some(old) = old {
                    self.texts.remove(&(field, old, subject));
                }
                self.texts.extend(new.map(|new| (field, new, subject)));
                write.put_profile_text(SubjectNo(subject), field, old, new)?;
            }
            9 if rng.below(4) == 0 => {
                let (field, limit) = (pick(rng, &FIELDS), rng.below(6) as usize);
                let before = self.texts.iter().filter(|text| text.0 == field).count();
                let removed = write.remove_profile_texts(field, limit)?;
                assert_eq!(removed, limit.min(before));
                // Any of them: what is left is read.
                let left = write.profile_texts(field, "", Page { after: None, descending: false, limit: 1000 })?;
                assert_eq!(left.len(), before - removed);
                let left: BTreeSet<_> = left.into_iter().collect();
                self.texts.retain(|(of, value, no)| *of != field || left.contains(&((*value).to_owned(), SubjectNo(*no))));
                assert_eq!(self.texts.iter().filter(|text| text.0 == field).count(), left.len(), "nothing else came");
            }
            9 | 10 => {
                let (given, pkey) = (rng.below(self.services.len() as u64 + 2), self.key());
                let next = self.services.keys().last().map_or(1, |last| last + 1);
                // Number 0 stands for the next free one; a number that is there is changed, and keeps its key and its beginning.
                let no = if given == 0 { next } else { given };
                let (name, attributes) = (format!("SVC{}", self.keys), pick(rng, &TEXTS).to_owned());
                let (created_ms, modified_ms) = (time(rng), time(rng));
                let row = ServiceRow {
                    no: given,
                    pkey: pkey.clone(),
                    name: name.clone(),
                    attributes: attributes.clone(),
                    created_ms,
                    modified_ms,
                };
                write.put_service(&row)?;
                let stored = self.services.entry(no).or_insert(ServiceRow { no, ..row });
                (stored.name, stored.attributes, stored.modified_ms) = (name, attributes, modified_ms);
            }
            11..=12 => {
                let (service, pkey) = (1 + rng.below(3), self.key());
                let row = SubscriptionRow { no: 0, pkey, subject: SubjectNo(subject), service, created_ms: time(rng) };
                let taken = self.subscriptions.values().any(|other| (other.subject, other.service) == (row.subject, row.service));
                if !taken {
                    let no = write.put_subscription(&row)?;
                    assert!(self.subscriptions.keys().all(|other| *other < no), "{no} is not the next one");
                    self.subscriptions.insert(no, SubscriptionRow { no, ..row });
                }
            }
            13 if rng.below(3) == 0 => {
                self.subscriptions.retain(|_, row| row.subject != SubjectNo(subject));
                write.delete_subscriptions(SubjectNo(subject))?;
            }
            13 => {
                let no = 1 + rng.below(self.subscriptions.keys().last().map_or(1, |last| last + 1));
                self.subscriptions.remove(&no);
                write.delete_subscription(no)?;
            }
            14 => {
                let (kind, status) = [
                    (PrivacyKind::Access, PrivacyStatus::Complete),
                    (PrivacyKind::Delete, PrivacyStatus::Complete),
                    (PrivacyKind::Delete, PrivacyStatus::ErrorDataNotFound),
                ][rng.below(3) as usize];
                let (pkey, regulation) = (self.key(), pick(rng, &TEXTS).to_owned());
                let (created_ms, modified_ms, name_hash) = (time(rng), time(rng), hash(self.keys));
                let row = PrivacyRow { no: 99, pkey, name_hash, kind, regulation, status, created_ms, modified_ms };
                let no = write.put_privacy_request(&row)?;
                assert_eq!(no, self.privacy_requests.len() as u64 + 1);
                self.privacy_requests.insert(no, PrivacyRow { no, ..row });
            }
            _ => {
                let (no, text) = (1 + rng.below(3), pick(rng, &TEXTS));
                if rng.below(4) == 0 {
                    self.items.remove(&no);
                    write.vault_shred(Owner::PrivacyRequest(no))?;
                } else {
                    self.items.insert(no, text);
                    write.vault_put(Owner::PrivacyRequest(no), &sealed(text))?;
                }
            }
        }
        Ok(())
    }

    /// Every question, with random pages.
    fn compare(&self, rng: &mut Rng, read: &mut dyn Read) -> Result<(), StoreError> {
        let limit = rng.below(8) as usize;
        let after = rng.below(14);
        let expected: Vec<_> = self.profiles.keys().copied().filter(|no| *no > after).take(limit).map(SubjectNo).collect();
        assert_eq!(read.profiles(SubjectNo(after), limit)?, expected);
        assert_eq!((read.profile_count()?, read.totals()?.profiles), (self.profiles.len() as u64, self.profiles.len() as u64));
        for descending in [false, true] {
            for column in [TimeColumn::Created, TimeColumn::Modified] {
                let time = |row: &ProfileRow| if column == TimeColumn::Created { row.created_ms } else { row.modified_ms };
                let after = (rng.below(3) > 0).then(|| (pick(rng, &[i64::MIN, -1, 0, 1, 2, NOW * 1000, i64::MAX]), rng.below(14)));
                let expected = page(self.profiles.iter().map(|(no, row)| (time(row), *no)), after.as_ref(), descending, limit);
                let found = read.profiles_by_time(column, Page { after, descending, limit })?;
                assert_eq!(found.iter().map(|(ms, no)| (*ms, no.0)).collect::<Vec<_>>(), expected, "{column:?} {after:?} {descending}");
            }
            for field in FIELDS {
                let prefix = pick(rng, &TEXTS);
                let matching = || self.texts.iter().filter(|(of, value, _)| *of == field && value.starts_with(prefix));
                // An entry of this list, there or not.
                let candidates: Vec<_> = TEXTS.iter().copied().filter(|text| text.starts_with(prefix)).collect();
                let after = (rng.below(3) > 0).then(|| (pick(rng, &candidates), rng.below(14)));
                let expected = page(matching().map(|(_, value, no)| (*value, *no)), after.as_ref(), descending, limit);
                let found = read.profile_texts(field, prefix, Page { after, descending, limit })?;
                let at = format!("{field:?} {prefix:?} after {after:?}, descending: {descending}");
                assert_eq!(found.iter().map(|(value, no)| (&value[..], no.0)).collect::<Vec<_>>(), expected, "{at}");
                assert_eq!(read.profile_text_count(field, prefix)?, matching().count() as u64, "{at}");
            }
        }
        assert_eq!(read.services()?, self.services.values().cloned().collect::<Vec<_>>());
        let after = rng.below(20);
        let rows = self.subscriptions.values();
        for (which, belongs) in [
            (Subscriptions::Of(SubjectNo(after)), &(|row: &&SubscriptionRow| row.subject.0 == after) as &dyn Fn(&&SubscriptionRow) -> bool),
            (Subscriptions::To(limit as u64), &|row| row.service == limit as u64),
        ] {
            let expected: Vec<_> = rows.clone().filter(belongs).collect();
            assert_eq!(read.subscription_count(which)?, expected.len() as u64);
            for after in [0, after] {
                let expected = expected.iter().filter(|row| row.no > after).take(limit).map(|row| (*row).clone());
                assert_eq!(read.subscriptions(which, after, limit)?, expected.collect::<Vec<_>>(), "{which:?}");
            }
        }
        for row in rows {
            assert_eq!(read.subscription(&row.pkey)?.as_ref(), Some(row));
            assert_eq!(read.subscribed(row.subject, row.service)?.as_ref(), Some(row));
        }
        let is_there = self.subscriptions.values().any(|row| (row.subject.0, row.service) == (after, 1));
        assert_eq!((read.subscription("x")?, read.subscribed(SubjectNo(after), 1)?.is_some()), (None, is_there));
        for row in self.privacy_requests.values() {
            assert_eq!(read.privacy_request(&row.pkey)?.as_ref(), Some(row));
            assert!(read.privacy_request_named(&row.name_hash)?);
        }
        assert_eq!((read.privacy_request("x")?, read.privacy_request_named(&[1; 32])?), (None, false));
        assert_eq!(read.privacy_request_count()?, self.privacy_requests.len() as u64);
        let expected = self.privacy_requests.values().filter(|row| row.no > after).take(limit).cloned();
        assert_eq!(read.privacy_requests(after, limit)?, expected.collect::<Vec<_>>());
        for no in 1..4 {
            assert_eq!(read.vault_get(Owner::PrivacyRequest(no))?, self.items.get(&no).map(|text| sealed(text)));
            // The same number is another's among other owners.
            assert_eq!(read.vault_get(Owner::Profile(SubjectNo(no)))?, None);
        }
        Ok(())
    }
}

/// Random operations: what is listed is what the model lists, on the writer's side before the commit and on a reader's after it.
pub fn lists_do_what_the_model_does(make: Make<'_>) {
    for seed in 0..6 * scale() {
        let mut harness = make();
        let mut store = harness.open().expect("opens");
        let (mut model, mut rng) = (Model::default(), Rng(seed));
        for round in 0..60 {
            let (count, before) = (1 + rng.below(12), (model.clone(), rng.clone()));
            let undone = rng.below(6) == 0;
            let done = store.transact(&mut |write| {
                // The work may be run again.
                (model, rng) = before.clone();
                for _ in 0..count {
                    model.act(&mut rng, write)?;
                }
                model.compare(&mut rng, write)?;
                if undone { Err(StoreError::Full) } else { Ok(()) }
            });
            assert_eq!(done.is_err(), undone, "seed {seed} round {round}");
            if undone {
                model = before.0;
            }
            if rng.below(10) == 0 {
                drop(store);
                store = harness.open().expect("opens");
            }
            for _ in 0..3 {
                read(&*store.readers(), |read| model.compare(&mut rng, read));
            }
        }
        assert!(model.texts.len() > 5 && model.subscriptions.len() > 2 && model.services.len() > 2, "seed {seed}: there is something");
        unique(&mut *store, &model);
    }
}

/// What is unique is refused the second time, whole.
fn unique(store: &mut dyn Store, model: &Model) {
    type Twice<'a> = Box<dyn Fn(&mut dyn Write) -> Result<(), StoreError> + 'a>;
    let subscription = model.subscriptions.values().next().expect("there is one").clone();
    let service = model.services.values().next().expect("there is one").clone();
    let privacy = model.privacy_requests.values().next().expect("there is one").clone();
    let new = || "new".to_owned();
    let twice: [Twice<'_>; 6] = [
        Box::new(|write| write.put_subscription(&SubscriptionRow { pkey: new(), ..subscription.clone() }).map(drop)),
        Box::new(|write| write.put_subscription(&SubscriptionRow { subject: SubjectNo(77), ..subscription.clone() }).map(drop)),
        Box::new(|write| write.put_service(&ServiceRow { no: 0, pkey: new(), ..service.clone() })),
        Box::new(|write| write.put_service(&ServiceRow { no: 0, name: new(), ..service.clone() })),
        Box::new(|write| write.put_privacy_request(&PrivacyRow { pkey: new(), ..privacy.clone() }).map(drop)),
        Box::new(|write| write.put_privacy_request(&PrivacyRow { name_hash: [0; 32], ..privacy.clone() }).map(drop)),
    ];
    for (place, twice) in twice.iter().enumerate() {
        assert!(matches!(store.transact(&mut |write| twice(write)), Err(StoreError::Database(_))), "{place}");
    }
    read(&*store.readers(), |read| model.compare(&mut Rng(1), read));
}

/// Every prefix of every text, in both directions and from every entry on, also one that is gone.
pub fn prefixes_end_where_they_should(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let all: Vec<_> = TEXTS.iter().zip(1_u64..).flat_map(|(text, no)| [(*text, no), (*text, no + 100)]).collect();
    let put = store.transact(&mut |write| {
        for (text, no) in &all {
            write.put_profile_text(SubjectNo(*no), "f", None, Some(text))?;
            // Neighbours that must not be seen.
            write.put_profile_text(SubjectNo(*no), "e", None, Some(text))?;
            write.put_profile_text(SubjectNo(*no), "ff", None, Some(text))?;
        }
        Ok(())
    });
    put.expect("commits");
    for gone in [false, true] {
        let there = |no: u64| !gone || no.is_multiple_of(2);
        if gone {
            let removed = store.transact(&mut |write| {
                all.iter()
                    .filter(|(_, no)| !there(*no))
                    .try_for_each(|(text, no)| write.put_profile_text(SubjectNo(*no), "f", Some(text), None))
            });
            removed.expect("commits");
        }
        read(&*store.readers(), |read| {
            let mut prefixes: BTreeSet<_> = TEXTS.iter().flat_map(|text| text.char_indices().map(|(at, _)| &text[..at])).collect();
            prefixes.extend(TEXTS);
            for prefix in prefixes {
                let matching = || all.iter().copied().filter(|(text, no)| text.starts_with(prefix) && there(*no));
                assert_eq!(read.profile_text_count("f", prefix)?, matching().count() as u64, "{prefix:?}");
                let begins = all.iter().copied().filter(|(text, _)| text.starts_with(prefix)).map(Some);
                for after in begins.chain([None]) {
                    for (descending, limit) in [(false, 1000), (true, 1000), (false, 1), (true, 2)] {
                        let expected = page(matching(), after.as_ref(), descending, limit);
                        let found = read.profile_texts("f", prefix, Page { after, descending, limit })?;
                        let found: Vec<_> = found.iter().map(|(value, no)| (&value[..], no.0)).collect();
                        assert_eq!(found, expected, "{prefix:?} after {after:?}, descending: {descending}");
                    }
                }
            }
            assert_eq!(read.profile_text_count("g", "")?, 0);
            Ok(())
        });
    }
}

/// Equal times are in the order of the number, in both directions, and pages put together are all.
pub fn times_are_listed_both_ways(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let mut rng = Rng(1);
    let rows: Vec<_> = (1..=60)
        .map(|no| (no, ProfileRow { created_ms: rng.below(4) as i64, modified_ms: no as i64 / 20, opt_out_ended_ms: None }))
        .collect();
    store.transact(&mut |write| rows.iter().try_for_each(|(no, row)| write.put_profile(SubjectNo(*no), row))).expect("commits");
    for column in [TimeColumn::Created, TimeColumn::Modified] {
        let time = |row: &ProfileRow| if column == TimeColumn::Created { row.created_ms } else { row.modified_ms };
        for descending in [false, true] {
            let expected = page(rows.iter().map(|(no, row)| (time(row), *no)), None, descending, usize::MAX);
            for limit in [1, 7, 20, 60, 61] {
                let (mut all, mut after) = (Vec::new(), None);
                loop {
                    let found = read(&*store.readers(), |read| read.profiles_by_time(column, Page { after, descending, limit }));
                    all.extend(found.iter().map(|(ms, no)| (*ms, no.0)));
                    let Some((ms, no)) = found.last().filter(|_| found.len() == limit) else { break };
                    after = Some((*ms, no.0));
                }
                assert_eq!(all, expected, "{column:?} descending: {descending} by {limit}");
            }
        }
    }
}

/// Campaign keys that may not be sold, each with all its holders, and no others.
pub fn denied_keys_are_listed_with_all_who_hold_them(make: Make<'_>) {
    for seed in 0..3 * scale() {
        let mut harness = make();
        let mut store = harness.open().expect("opens");
        let mut rng = Rng(seed);
        let kinds = [Kind::CampaignPkey, Kind::CampaignPkey, Kind::Email, Kind::CustomerId];
        let sale = PurposeSet::SALE;
        let (mut verdicts, mut kinds_of, mut held) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for round in 0..12 {
            let mut changes = Changes::default();
            let mut new = Vec::new();
            for no in (1..=round * 10 + 10).map(IdentifierNo) {
                let other = pick(&mut rng, &[PurposeSet::EMPTY, PurposeSet::SHARING, PurposeSet(1 << 63)]);
                let verdict = match rng.below(4) {
                    0 => Verdict { denied: sale.union(other), ..Verdict::default() },
                    1 => Verdict { linked: sale.union(other), ..Verdict::default() },
                    2 => Verdict { denied: other, opted_in: sale, ..Verdict::default() },
                    _ => Verdict { linked: other, ..Verdict::default() },
                };
                if no.0 > round * 10 {
                    let kind = pick(&mut rng, &kinds);
                    kinds_of.insert(no, kind);
                    new.push((named(kind, no.0).key, IdRef(no, kind)));
                    changes.identifiers.push((no, IdentifierRow { kind, holders: 0, shared: false, line: Line::default() }, verdict));
                } else if rng.below(3) == 0 {
                    changes.verdicts.push((no, verdict));
                } else {
                    continue;
                }
                verdicts.insert(no, verdict);
                for subject in (1..6).map(SubjectNo) {
                    let pair = (subject, no);
                    let begins = rng.below(2) == 0;
                    let is_new = if begins { held.insert(pair) } else { held.remove(&pair) };
                    if is_new {
                        changes.holds.push((subject, no, begins));
                    }
                }
            }
            store.transact(&mut |write| write.write(&new, &changes, 1)).expect("commits");
            let denied: Vec<_> = verdicts
                .iter()
                .filter(|(no, verdict)| kinds_of[no] == Kind::CampaignPkey && verdict.denied.union(verdict.linked).contains(sale))
                .map(|(no, _)| *no)
                .collect();
            read(&*store.readers(), |read| {
                let holders = |no: &IdentifierNo| held.iter().filter(|hold| hold.1 == *no).map(|hold| (hold.1, hold.0)).collect::<Vec<_>>();
                let expected: Vec<_> = denied.iter().flat_map(holders).collect();
                assert_eq!(read.denied_profiles(IdentifierNo(0), 1000)?, expected, "seed {seed} round {round}");
                // The last key may have nobody: a list that has keys left is never empty.
                for limit in [1, 2, 5] {
                    let (mut together, mut after) = (Vec::new(), IdentifierNo(0));
                    loop {
                        let found = read.denied_profiles(after, limit)?;
                        let keys: BTreeSet<_> = found.iter().map(|(no, _)| *no).collect();
                        assert!(keys.len() <= limit && keys.first().is_none_or(|no| *no > after));
                        let Some(last) = keys.last() else { break };
                        after = *last;
                        together.extend(found);
                    }
                    assert_eq!(together, expected, "seed {seed} round {round}: pages of {limit} keys");
                }
                Ok(())
            });
        }
    }
}

/// A subscription of nobody or to nothing, and a privacy request whose item is missing or that is missing itself, are named.
pub fn subscriptions_and_privacy_requests_are_checked(make: Make<'_>) {
    type Damage = fn(&mut dyn Write) -> Result<(), StoreError>;
    let subscribe = |write: &mut dyn Write, subject: u64, service: u64| {
        let row = SubscriptionRow { no: 0, pkey: format!("{subject}-{service}"), subject: SubjectNo(subject), service, created_ms: NOW };
        write.put_subscription(&row).map(drop)
    };
    let request = |n: u64| PrivacyRow {
        no: 0,
        pkey: format!("r{n}"),
        name_hash: hash(n),
        kind: PrivacyKind::Access,
        regulation: "CCPA".to_owned(),
        status: PrivacyStatus::Complete,
        created_ms: NOW,
        modified_ms: NOW,
    };
    let cases: [(Damage, &[&str]); 9] = [
        (|_| Ok(()), &[]),
        // Everything that hangs on the profile goes with it.
        (
            |write| {
                let mut batch = Batch::new(write.coordinator()?.counters, NOW);
                batch.delete_profile(write, SubjectNo(1), Actor::Local)?;
                write.vault_shred(Owner::Profile(SubjectNo(1)))?;
                write.delete_subscriptions(SubjectNo(1))?;
                write.delete_profile(SubjectNo(1))?;
                commit(write, &mut batch).map(drop)
            },
            &[],
        ),
        (
            |write| {
                let mut batch = Batch::new(write.coordinator()?.counters, NOW);
                batch.delete_profile(write, SubjectNo(1), Actor::Local)?;
                write.vault_shred(Owner::Profile(SubjectNo(1)))?;
                write.delete_profile(SubjectNo(1))?;
                commit(write, &mut batch).map(drop)
            },
            &["subscription 1 has no profile or no service", "subscription 2 has no profile or no service"],
        ),
        (
            |write| {
                let row = SubscriptionRow { no: 0, pkey: "x".to_owned(), subject: SubjectNo(2), service: 9, created_ms: NOW };
                write.put_subscription(&row).map(drop)
            },
            &["subscription 4 has no profile or no service"],
        ),
        (
            |write| {
                let row = SubscriptionRow { no: 0, pkey: "x".to_owned(), subject: SubjectNo(9), service: 1, created_ms: NOW };
                write.put_subscription(&row).map(drop)
            },
            &["subscription 4 has no profile or no service"],
        ),
        (|write| write.vault_shred(Owner::PrivacyRequest(2)), &["vault: the item of privacy request 2 is missing"]),
        (|write| write.vault_put(Owner::PrivacyRequest(3), &sealed("x")), &["vault: the item of privacy request 3 has no request"]),
        (|write| write.vault_put(Owner::Identifier(IdentifierNo(1)), &sealed("x")), &["vault: the item of identifier 1 has no identifier"]),
        (
            |write| write.put_profile_text(SubjectNo(9), "email", None, Some("rosa@example.com")),
            &["profile_text: email of subject 9 has no profile"],
        ),
    ];
    for (place, (damage, expected)) in cases.iter().enumerate() {
        let mut harness = make();
        let mut store = harness.open().expect("opens");
        let filled = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, NOW);
            for _ in 0..2 {
                let subject = batch.new_subject();
                batch.emit(write, Fact::ProfileCreated { subject, by: Actor::Local })?;
                write.put_profile(subject, &ProfileRow::default())?;
                write.vault_put(Owner::Profile(subject), &sealed("profile"))?;
            }
            for n in 1..=2 {
                let row = ServiceRow {
                    no: 0,
                    pkey: format!("s{n}"),
                    name: format!("SVC{n}"),
                    attributes: "{}".to_owned(),
                    created_ms: NOW,
                    modified_ms: NOW,
                };
                write.put_service(&row)?;
                let no = write.put_privacy_request(&request(n))?;
                write.vault_put(Owner::PrivacyRequest(no), &sealed("privacy request"))?;
            }
            [(1, 1), (1, 2), (2, 1)].into_iter().try_for_each(|(subject, service)| subscribe(write, subject, service))?;
            write.put_profile_text(SubjectNo(2), "email", None, Some("vera@example.com"))?;
            commit(write, &mut batch).map(drop)
        });
        filled.expect("commits");
        store.transact(&mut |write| damage(write)).expect("commits");
        assert_eq!(problems(&*store), *expected, "{place}");
    }
}
