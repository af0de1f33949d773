//! What is kept of identifiers, and the changes that come with it.

use std::collections::BTreeMap;

use desist_core::fact::{Actor, Channel};
use desist_core::graph::Party;
use desist_core::identifier::Kind;
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_core::rules::{Batch, OptInAsk};

use super::{Make, NOW, Rng, named, opt_out, problems, read, scale, sealed};
use crate::{ChangeRow, Owner, StoreError, commit};

/// Random writes: each identifier has its own item, which no other owner of the same number has, and all are listed in pages.
pub fn values_are_kept_by_identifier(make: Make<'_>) {
    for seed in 0..4 * scale() {
        let (mut harness, mut rng) = (make(), Rng(seed));
        let mut store = harness.open().expect("opens");
        let mut model = BTreeMap::new();
        for round in 0..40 {
            let before = model.clone();
            let commits = rng.below(4) > 0;
            let done = store.transact(&mut |write| {
                model.clone_from(&before);
                for _ in 0..=rng.below(5) {
                    // Near the end of what a number can be, too.
                    let no = [rng.below(12), u64::from(u32::MAX) + rng.below(3)][rng.below(2) as usize];
                    let owner = Owner::Identifier(IdentifierNo(no));
                    if rng.below(3) == 0 {
                        model.remove(&no);
                        write.vault_shred(owner)?;
                    } else {
                        let text = format!("{round} {no}");
                        write.vault_put(owner, &sealed(&text))?;
                        model.insert(no, text);
                    }
                    assert_eq!(write.vault_get(owner)?, model.get(&no).map(|text| sealed(text)), "seed {seed}");
                }
                if commits { Ok(()) } else { Err(StoreError::Busy) }
            });
            assert_eq!(done.is_ok(), commits);
            if !commits {
                model = before;
            }
            if rng.below(8) == 0 {
                drop(store);
                store = harness.open().expect("opens");
            }
            let (after, limit) = (rng.below(12), rng.below(6) as usize);
            read(&*store.readers(), |read| {
                for no in (0..12).chain(u64::from(u32::MAX)..u64::from(u32::MAX) + 3) {
                    assert_eq!(
                        read.vault_get(Owner::Identifier(IdentifierNo(no)))?,
                        model.get(&no).map(|text| sealed(text)),
                        "seed {seed}"
                    );
                    assert_eq!(read.vault_get(Owner::Profile(SubjectNo(no)))?, None);
                    assert_eq!(read.vault_get(Owner::PrivacyRequest(no))?, None);
                }
                let listed = read.vault_identifiers(IdentifierNo(after), limit)?;
                assert!(listed.iter().map(|no| &no.0).eq(model.keys().filter(|no| **no > after).take(limit)), "seed {seed}");
                assert_eq!(read.vault_identifiers(IdentifierNo(0), 1000)?.len(), model.keys().filter(|no| **no > 0).count());
                Ok(())
            });
        }
    }
}

/// A batch without entries that touches an identifier gives its parties new places, as of the last entry; nobody else moves, and the
/// store still fits its log.
pub fn a_touch_alone_moves_its_parties(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let (held, bare, asked) = (named(Kind::Email, 1), named(Kind::Email, 2), named(Kind::Email, 3));
    let mut numbers = Vec::new();
    let filled = store.transact(&mut |write| {
        let mut batch = Batch::new(write.coordinator()?.counters, NOW);
        batch.link(write, &[held, named(Kind::CookieId, 1)], Actor::Local)?.expect("allowed");
        batch.link(write, &[held, named(Kind::CustomerId, 1)], Actor::Local)?.expect("allowed");
        batch.opt_out(write, opt_out(vec![bare], Channel::Form, 1))?.expect("allowed");
        // Named in an opt-in's first step alone: it is in no entry.
        let (request, purposes) = (super::request_id(2), PurposeSet::SALE);
        let ask = OptInAsk { request, named: &[asked], purposes, channel: Channel::Form, by: Actor::Local, evidence: None };
        batch.ask_opt_in(write, &ask)?.expect("allowed");
        commit(write, &mut batch).map(drop)
    });
    filled.expect("commits");
    let changes = |store: &dyn crate::Store| read(&*store.readers(), |read| read.changes(0, 1000));
    let before = changes(&*store);
    let last = read(&*store.readers(), |read| read.coordinator()).counters;
    let touched = store.transact(&mut |write| {
        let mut batch = Batch::new(write.coordinator()?.counters, NOW + 1);
        numbers.clear();
        for one in [held, bare, asked] {
            let no = batch.find(write, &one.key)?.expect("known");
            numbers.push(no);
            batch.touch(no);
        }
        commit(write, &mut batch).map(drop)
    });
    touched.expect("commits");
    let parties = [Party::Subject(SubjectNo(1)), Party::Subject(SubjectNo(2)), Party::Identifier(numbers[1])];
    let mut moved: Vec<_> =
        parties.into_iter().zip(last.changes + 1..).map(|(party, no)| ChangeRow { no, party, seq: last.entries }).collect();
    let mut expected: Vec<_> = before.into_iter().filter(|row| !parties.contains(&row.party)).collect();
    expected.append(&mut moved);
    assert_eq!(changes(&*store), expected);
    let now = read(&*store.readers(), |read| read.coordinator()).counters;
    assert_eq!((now.entries, now.changes), (last.entries, last.changes + 3));
    assert!(problems(&*store).iter().all(|problem| problem.starts_with("request ")), "{:?}", problems(&*store));
}
