//! What every back end must do, as tests that each runs: see [`contract!`](crate::contract!).
//!
//! Written against the traits alone. Seeds are fixed; `DESIST_SCALE` multiplies how much is tried.

mod evidence;
mod lanes;
mod lists;
mod values;

pub use evidence::{evidence_is_kept_beside_its_entries, segments_are_read_as_they_were_written};
pub use lanes::lanes_keep_their_books_and_one_lease;
pub use lists::{
    denied_keys_are_listed_with_all_who_hold_them, lists_do_what_the_model_does, prefixes_end_where_they_should,
    subscriptions_and_privacy_requests_are_checked, times_are_listed_both_ways,
};
pub use values::{a_touch_alone_moves_its_parties, values_are_kept_by_identifier};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use desist_core::decision::Verdict;
use desist_core::fact::{Actor, Channel, Digest, Fact, IdRef, RequestId, RequestKind, Role};
use desist_core::graph::{Changes, Graph, IdentifierRow, Memory, Party, Records, SubjectRow};
use desist_core::identifier::Kind;
use desist_core::limits::HOLDERS_MAX;
use desist_core::lookup::LookupKey;
use desist_core::mark::{Class, IdentifierNo, Line, Mark, SubjectNo};
use desist_core::purpose::{Model, PurposeSet};
use desist_core::rules::{Batch, Counters, Named, OptInAsk, OptInTarget, OptOut};
use sha2::{Digest as _, Sha256};

use crate::faulty::{Fault, FaultyStore};
use crate::{
    ChangeRow, Coordinator, ImportRow, KeyRow, Owner, ProfileRow, REMEMBER_SECONDS, Read, Readers, Remembered, RequestRow, Row,
    SCHEMA_VERSION, Sealed, Status, Store, StoreError, Totals, Write, check, commit,
};

/// Where a test keeps one store.
pub trait Harness {
    /// Opens the store, the same one each time, made when it is not there.
    fn open(&mut self) -> Result<Box<dyn Store>, StoreError>;
    /// A path where there is no file yet.
    fn new_file(&mut self) -> PathBuf;
    /// Opens a backup as the store that it is a copy of.
    fn open_backup(&mut self, backup: &Path) -> Result<Box<dyn Store>, StoreError>;
    /// All that the store has on disk.
    fn bytes(&mut self) -> Vec<u8>;
    /// Writes another schema version into the closed store.
    fn set_version(&mut self, version: u32);
}

/// Makes the place for a new store.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn Harness>;

/// Makes a `#[test]` of each part of the contract; the argument is a function that makes a
/// [`Harness`](contract::Harness).
#[macro_export]
macro_rules! contract {
    ($make:path) => {
        $crate::contract! { $make =>
            every_operation_round_trips reopening_gives_the_same refusals_write_nothing an_error_inside_the_work_rolls_all_back
            entries_are_dense readers_see_snapshots readers_run_beside_the_writer tail_is_the_difference tail_names_all_that_sharing_changed answers_are_remembered_for_two_days
            shredded_data_is_gone backups_are_stores_of_one_moment one_process_at_a_time newer_schemas_are_refused
            random_commands_do_what_the_model_does failures_leave_before_or_after
            lists_do_what_the_model_does prefixes_end_where_they_should times_are_listed_both_ways denied_keys_are_listed_with_all_who_hold_them
            subscriptions_and_privacy_requests_are_checked lanes_keep_their_books_and_one_lease
            values_are_kept_by_identifier a_touch_alone_moves_its_parties
            evidence_is_kept_beside_its_entries segments_are_read_as_they_were_written
        }
    };
    ($make:path => $($name:ident)*) => {
        $(#[test] fn $name() { $crate::contract::$name(&|| Box::new($make())); })*
    };
}

/// How much to try.
fn scale() -> u64 {
    std::env::var("DESIST_SCALE").map_or(1, |scale| scale.parse().expect("DESIST_SCALE is a number"))
}

/// Good enough to choose by, and the same everywhere (`SplitMix64`).
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

const NOW: i64 = 1_700_000_000;

fn named(kind: Kind, value: u64) -> Named {
    let key = Sha256::digest([&[kind.code()][..], &value.to_be_bytes()].concat());
    Named { kind, key: LookupKey(*key.first_chunk().expect("16 of 32 bytes")) }
}

fn opt_out(named: Vec<Named>, channel: Channel, number: u64) -> OptOut {
    let (request, purposes) = (request_id(number), PurposeSet::OPT_OUT_DEFAULT);
    OptOut { request, kind: RequestKind::OptOut, subject: None, named, purposes, channel, acted_at: None, by: Actor::Local, evidence: None }
}

fn request_id(number: u64) -> RequestId {
    RequestId(u128::from(number).to_be_bytes())
}

fn request_row(number: u64, status: Status, seq: u64) -> RequestRow {
    RequestRow {
        id: request_id(number),
        receipt_hash: [number as u8; 32],
        kind: RequestKind::OptOut,
        status,
        channel: Channel::Form,
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        seq,
        acted_at: NOW,
        recorded_at: NOW + 1,
        deadline: "2023-12-06".to_owned(),
        deadline_conventional: "2023-12-07".to_owned(),
        subject: None,
        identifiers: Vec::new(),
        confirm_hash: None,
        unreached: Vec::new(),
    }
}

fn sealed(text: &str) -> Sealed {
    Sealed { wrapped_key: format!("key of {text}").into_bytes(), ciphertext: text.as_bytes().to_vec() }
}

fn remembered(answer: &str) -> Remembered {
    Remembered { request_digest: [8; 32], answer: answer.to_owned() }
}

fn api_key(revoked_at: Option<i64>) -> KeyRow {
    KeyRow { no: 1, name: "crm".to_owned(), role: Role::Writer, key_hash: [1; 32], token_hash: [2; 32], created_at: NOW, revoked_at }
}

/// Transactions that [`step`] has.
pub const STEPS: u64 = 4;

/// A small store with something in every table, as the engine would write it, in [`STEPS`]
/// transactions numbered from 1.
pub fn step(number: u64, write: &mut dyn Write) -> Result<(), StoreError> {
    let now = NOW + number as i64 * 20 * 3600;
    let by = Actor::Key(1);
    let (pkey, email, cookie) = (named(Kind::CampaignPkey, 1), named(Kind::Email, 1), named(Kind::CookieId, 1));
    let import = [9; 32];
    let mut batch = Batch::new(write.coordinator()?.counters, now);
    match number {
        1 => {
            batch.emit(write, Fact::LogOpened { origin: Digest([7; 32]) })?;
            batch.emit(write, Fact::KeyCreated { key: 1, role: Role::Writer, by: Actor::Local })?;
            batch.emit(write, Fact::PurposeDeclared { bit: 16, name: Digest(Sha256::digest("newsletter").into()), model: Model::OptIn })?;
            write.put_key(&api_key(None))?;
            write.put_purpose(16, "newsletter", Model::OptIn)?;
            write.put_meta("fingerprint", &[1, 2, 3])?;
        }
        2 => {
            for other in [1, 2] {
                let subject = batch.new_subject();
                batch.emit(write, Fact::ProfileCreated { subject, by })?;
                batch.hold_exactly(write, subject, &[], &[named(Kind::CampaignPkey, other), named(Kind::Email, other)], by)?;
                write.put_profile(subject, &ProfileRow { created_ms: now * 1000, modified_ms: now * 1000, opt_out_ended_ms: None })?;
                write.vault_put(Owner::Profile(subject), &sealed(&format!("profile {other}")))?;
            }
            let recorded = batch.opt_out(write, opt_out(vec![cookie, email, pkey], Channel::Form, 1))?.expect("allowed");
            let row = RequestRow {
                subject: recorded.subject,
                unreached: vec![IdentifierNo(1)],
                ..request_row(1, Status::Received, recorded.seq)
            };
            write.put_request(&row)?;
            write.vault_put(Owner::Request(row.id), &sealed("evidence"))?;
            write.remember(&[5; 32], &remembered("first"), now)?;
        }
        3 => {
            let target = batch
                .ask_opt_in(
                    write,
                    &OptInAsk {
                        request: request_id(2),
                        named: &[pkey],
                        purposes: PurposeSet::OPT_OUT_DEFAULT,
                        channel: Channel::Form,
                        by,
                        evidence: None,
                    },
                )?
                .expect("allowed");
            let row = request_row(2, Status::AwaitingConfirmation, batch.counters.entries);
            write.put_request(&RequestRow {
                kind: RequestKind::OptIn,
                subject: target.subject,
                identifiers: target.named,
                confirm_hash: Some([4; 32]),
                ..row
            })?;
            batch.opt_out(write, opt_out(vec![named(Kind::Email, 3)], Channel::Import, 3))?.expect("allowed");
            write.put_import(&import, &ImportRow { rows: 2, accepted: 1, refused: 1, finished: false })?;
            write.scratch(now)?;
        }
        _ => {
            let mut row = write.request(request_id(2))?.expect("written in step 3");
            let target = OptInTarget { subject: row.subject, named: row.identifiers.clone() };
            row.seq = batch.confirm_opt_in(write, row.id, &target, row.purposes, Channel::Form, by)?;
            (row.status, row.confirm_hash) = (Status::Confirmed, None);
            write.put_request(&row)?;
            batch.delete_profile(write, SubjectNo(2), by)?;
            write.delete_profile(SubjectNo(2))?;
            write.vault_shred(Owner::Profile(SubjectNo(2)))?;
            batch.emit(write, Fact::ImportFinished { import: Digest(import), rows: 2, accepted: 1, refused: 1, by })?;
            write.put_import(&import, &ImportRow { rows: 2, accepted: 1, refused: 1, finished: true })?;
            batch.emit(write, Fact::KeyRevoked { key: 1, by: Actor::Local })?;
            write.put_key(&api_key(Some(now)))?;
            write.remember(&[6; 32], &remembered("last"), now)?;
            evidence::acknowledge(&mut batch, write, 3)?;
        }
    }
    commit(write, &mut batch).map(drop)
}

/// A store with all steps done.
pub fn filled(harness: &mut dyn Harness) -> Box<dyn Store> {
    let mut store = harness.open().expect("opens");
    for number in 1..=STEPS {
        store.transact(&mut |write| step(number, write)).expect("commits");
    }
    store
}

/// Reads one thing in a snapshot of its own.
fn read<T>(readers: &dyn Readers, mut work: impl FnMut(&mut dyn Read) -> Result<T, StoreError>) -> T {
    let mut found = None;
    readers.read(&mut |read| work(read).map(|read| found = Some(read))).expect("reads");
    found.expect("work ran")
}

fn coordinator(readers: &dyn Readers) -> Coordinator {
    read(readers, |read| read.coordinator())
}

/// Everything that can be read, as text to compare.
fn dump(store: &dyn Store) -> Vec<String> {
    read(&*store.readers(), |read| {
        let mut all = vec![format!("{:?}", read.coordinator()?), format!("{:?}", read.purposes()?), format!("{:?}", read.keys()?)];
        all.extend(read.entries(1..u64::MAX)?.iter().map(|(seq, bytes)| format!("{seq} {}", String::from_utf8_lossy(bytes))));
        let mut rows = Vec::new();
        read.scan(&mut |row| rows.push(row))?;
        for row in rows {
            all.push(match &row {
                Row::Identifier(no, ..) => format!("{row:?} {:?} {:?}", read.verdict_of(*no)?.map(|(key, ..)| key.0), read.holders(*no)?),
                Row::Subject(no, _) => format!("{row:?} {:?}", read.held(*no)?),
                Row::Profile(no) => format!("{row:?} {:?}", read.profile(*no)?),
                Row::Vault(owner) => format!("{row:?} {:?}", read.vault_get(*owner)?),
                _ => format!("{row:?}"),
            });
        }
        all.push(format!("{:?} {:?} {:?}", read.meta("fingerprint")?, read.import(&[9; 32])?, read.evidence(0..u64::MAX, 9)?));
        all.push(format!("{:?}", read.totals()?));
        for scope in [[5; 32], [6; 32]] {
            all.push(format!("{:?}", read.remembered(&scope, 0)?));
        }
        Ok(all)
    })
}

fn problems(store: &dyn Store) -> Vec<String> {
    read(&*store.readers(), |read| check(read, crate::Scope::All, &mut |_, _| {}))
}

/// What is written is read, and what was not is not.
pub fn every_operation_round_trips(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let readers = store.readers();
    let fresh = coordinator(&*readers);
    assert_eq!((fresh.counters, fresh.frontier), (Counters::default(), desist_proof::Frontier::default().to_bytes()));
    read(&*readers, |read| {
        assert_eq!(read.request(request_id(1))?, None);
        assert_eq!(read.request_by_receipt(&[1; 32])?, None);
        assert_eq!(read.vault_get(Owner::Request(request_id(1)))?, None);
        assert_eq!((read.profile(SubjectNo(1))?, read.import(&[1; 32])?, read.meta("x")?), (None, None, None));
        assert_eq!((read.identifier(IdentifierNo(1))?, read.subject(SubjectNo(1))?, read.verdict_of(IdentifierNo(1))?), (None, None, None));
        assert_eq!((read.find(&LookupKey([1; 16]))?, read.remembered(&[1; 32], 0)?), (None, None));
        assert_eq!(read.totals()?, Totals::default());
        Ok(())
    });
    // Rows with every bit and every name, written and replaced.
    let every = PurposeSet(u64::MAX);
    let mut line = Line::default();
    line.join(Class::Consumer, Mark { deny: true, at: -1, server_timed: false, seq: 7 }, every);
    line.join(Class::Api(SubjectNo(3)), Mark { deny: true, at: NOW, server_timed: true, seq: 8 }, PurposeSet(1 << 63));
    let row = |kind| IdentifierRow { kind, holders: 2, shared: true, line: line.clone() };
    let verdict = Verdict { denied: every, linked: PurposeSet(1 << 63), opted_in: PurposeSet(5) };
    let new: Vec<_> = (1_u64..).zip(Kind::ALL).map(|(no, kind)| (named(kind, no).key, IdRef(IdentifierNo(no), kind))).collect();
    let changes = Changes {
        identifiers: new[1..].iter().map(|(_, IdRef(no, kind))| (*no, row(*kind), verdict)).collect(),
        subjects: vec![(SubjectNo(4), SubjectRow { line: line.clone(), held: 2 }), (SubjectNo(5), SubjectRow::default())],
        holds: [(4, 2), (4, 3), (5, 2)].map(|(subject, no)| (SubjectNo(subject), IdentifierNo(no), true)).to_vec(),
        ..Changes::default()
    };
    let later = Changes {
        identifiers: vec![(IdentifierNo(2), IdentifierRow { holders: 1, shared: false, ..row(Kind::Phone) }, Verdict::default())],
        verdicts: vec![(IdentifierNo(3), Verdict { opted_in: every, ..Verdict::default() })],
        subjects: vec![(SubjectNo(4), SubjectRow { held: 1, ..SubjectRow::default() })],
        holds: vec![(SubjectNo(4), IdentifierNo(2), false), (SubjectNo(4), IdentifierNo(3), true), (SubjectNo(9), IdentifierNo(9), false)],
        ..Changes::default()
    };
    store.transact(&mut |write| write.write(&new, &changes, 1)).expect("commits");
    store.transact(&mut |write| write.write(&[], &later, 1)).expect("commits");
    read(&*readers, |read| {
        for (key, IdRef(no, kind)) in &new {
            assert_eq!(read.find(key)?, Some(*no));
            let (expected, verdict) = match no.0 {
                1 => (IdentifierRow { kind: *kind, holders: 0, shared: false, line: Line::default() }, Verdict::default()),
                2 => (later.identifiers[0].1.clone(), Verdict::default()),
                3 => (row(*kind), later.verdicts[0].1),
                _ => (row(*kind), verdict),
            };
            assert_eq!(read.identifier(*no)?, Some(expected));
            assert_eq!(read.verdict_of(*no)?, Some((*key, *kind, verdict)));
        }
        let mut loud = Vec::new();
        read.each_verdict(&mut |key, kind, verdict| loud.push((key, kind, verdict)))?;
        loud.sort_by_key(|(_, kind, _)| *kind);
        let expected: Vec<_> =
            new[2..].iter().map(|(key, IdRef(no, kind))| (*key, *kind, if no.0 == 3 { later.verdicts[0].1 } else { verdict })).collect();
        assert_eq!(loud, expected);
        assert_eq!(read.subject(SubjectNo(4))?, Some(SubjectRow { held: 1, ..SubjectRow::default() }));
        assert_eq!(read.subject(SubjectNo(5))?, Some(SubjectRow::default()));
        assert_eq!(read.held(SubjectNo(4))?, [IdentifierNo(3)]);
        assert_eq!(read.holders(IdentifierNo(2))?, [SubjectNo(5)]);
        assert!(read.holds(SubjectNo(5), IdentifierNo(2))? && !read.holds(SubjectNo(4), IdentifierNo(2))?);
        assert_eq!(read.totals()?.denied_identifiers, 6);
        Ok(())
    });
    let missing = Changes { verdicts: vec![(IdentifierNo(99), verdict)], ..Changes::default() };
    assert!(matches!(store.transact(&mut |write| write.write(&[], &missing, 1)), Err(StoreError::Damaged(_))));
    let mut requests = Vec::new();
    for (number, channel) in (1_u64..).zip(Channel::ALL) {
        for (kind, status) in [
            (RequestKind::OptOut, Status::Received),
            (RequestKind::OptIn, Status::AwaitingConfirmation),
            (RequestKind::Limit, Status::Confirmed),
        ] {
            let mut row =
                RequestRow { kind, channel, purposes: every, acted_at: -5, ..request_row(requests.len() as u64, status, 100 - number) };
            if status == Status::AwaitingConfirmation {
                row.subject = Some(SubjectNo(number));
                row.identifiers = vec![IdRef(IdentifierNo(number), Kind::Maid), IdRef(IdentifierNo(2), Kind::Email)];
                row.confirm_hash = Some([number as u8; 32]);
                row.unreached = vec![IdentifierNo(number), IdentifierNo(7)];
            }
            requests.push(row);
        }
    }
    store.transact(&mut |write| requests.iter().try_for_each(|row| write.put_request(row))).expect("commits");
    requests[0].status = Status::Confirmed;
    requests[0].receipt_hash = [255; 32];
    store.transact(&mut |write| write.put_request(&requests[0])).expect("commits");
    read(&*readers, |read| {
        for row in &requests {
            assert_eq!(read.request(row.id)?.as_ref(), Some(row));
            assert_eq!(read.request_by_receipt(&row.receipt_hash)?.as_ref(), Some(row));
        }
        assert_eq!(read.request_by_receipt(&[0; 32])?, None);
        let unreached = read.unreached(3)?;
        assert_eq!(unreached.iter().map(|row| row.seq).collect::<Vec<_>>(), [89, 90, 91]);
        assert_eq!(read.unreached(usize::MAX)?.len(), 11);
        assert_eq!((read.totals()?.requests, read.totals()?.unreached), ([10, 11, 12], 11));
        Ok(())
    });
    let owners = [Owner::Profile(SubjectNo(1)), Owner::Profile(SubjectNo(2)), Owner::Request(request_id(1))];
    let profile = ProfileRow { created_ms: 1, modified_ms: 2, opt_out_ended_ms: Some(3) };
    let row = ImportRow { rows: 3, accepted: 2, refused: 1, finished: true };
    store
        .transact(&mut |write| {
            for (n, owner) in owners.iter().enumerate() {
                write.vault_put(*owner, &sealed("old"))?;
                write.vault_put(*owner, &sealed(&n.to_string()))?;
            }
            write.put_meta("name", b"old")?;
            write.put_meta("name", &[0, 255])?;
            write.put_purpose(63, "b", Model::OptIn)?;
            write.put_purpose(16, "a", Model::OptOut)?;
            write.put_key(&api_key(None))?;
            write.put_key(&KeyRow { no: 2, role: Role::Auditor, ..api_key(None) })?;
            write.put_key(&api_key(Some(4)))?;
            write.put_profile(SubjectNo(1), &ProfileRow::default())?;
            write.put_profile(SubjectNo(1), &profile)?;
            write.put_profile(SubjectNo(2), &profile)?;
            write.delete_profile(SubjectNo(2))?;
            write.put_import(&[3; 32], &ImportRow::default())?;
            write.put_import(&[3; 32], &row)?;
            write.scratch(NOW)?;
            write.scratch(NOW)?;
            write.vault_shred(owners[1])
        })
        .expect("commits");
    read(&*readers, |read| {
        assert_eq!(owners.map(|owner| read.vault_get(owner).expect("reads")), [Some(sealed("0")), None, Some(sealed("2"))]);
        assert_eq!(read.meta("name")?, Some(vec![0, 255]));
        assert_eq!(read.purposes()?, [(16, "a".to_owned(), Model::OptOut), (63, "b".to_owned(), Model::OptIn)]);
        assert_eq!(read.keys()?, [api_key(Some(4)), KeyRow { no: 2, role: Role::Auditor, ..api_key(None) }]);
        assert_eq!((read.profile(SubjectNo(1))?, read.profile(SubjectNo(2))?), (Some(profile), None));
        assert_eq!((read.import(&[3; 32])?, read.totals()?.profiles), (Some(row), 1));
        Ok(())
    });
}

/// Closing changes nothing, and what the engine writes is consistent.
pub fn reopening_gives_the_same(make: Make<'_>) {
    let mut harness = make();
    let store = filled(&mut *harness);
    assert_eq!(problems(&*store), [""; 0]);
    let before = dump(&*store);
    drop(store);
    assert_eq!(dump(&*harness.open().expect("opens")), before);
}

/// A refused command leaves no trace.
pub fn refusals_write_nothing(make: Make<'_>) {
    let mut harness = make();
    let mut store = filled(&mut *harness);
    let before = dump(&*store);
    let committed = store.transact(&mut |write| {
        let mut batch = Batch::new(write.coordinator()?.counters, NOW);
        let (known, unknown) = (named(Kind::Email, 1), named(Kind::Email, 99));
        let by = Actor::Local;
        batch.opt_out(write, opt_out(vec![], Channel::Form, 9))?.expect_err("nobody named");
        batch.opt_out(write, OptOut { acted_at: Some(NOW * 2), ..opt_out(vec![unknown], Channel::Form, 9) })?.expect_err("in the future");
        batch.opt_out(write, OptOut { purposes: PurposeSet::EMPTY, ..opt_out(vec![unknown], Channel::Form, 9) })?.expect_err("no purpose");
        batch
            .ask_opt_in(
                write,
                &OptInAsk {
                    request: request_id(9),
                    named: &[unknown],
                    purposes: PurposeSet::SALE,
                    channel: Channel::Api,
                    by,
                    evidence: None,
                },
            )?
            .expect_err("not the consumer");
        batch
            .ask_opt_in(
                write,
                &OptInAsk {
                    request: request_id(9),
                    named: &[known, unknown],
                    purposes: PurposeSet::SALE,
                    channel: Channel::Form,
                    by,
                    evidence: None,
                },
            )?
            .expect_err("not one subject");
        batch.link(write, &[unknown], by)?.expect_err("nothing to link");
        batch.unlink(write, &[unknown], by)?.expect_err("nothing to unlink");
        commit(write, &mut batch).map(drop)
    });
    committed.expect("commits");
    assert_eq!(dump(&*store), before);
}

/// All or nothing, and the store can be used on.
pub fn an_error_inside_the_work_rolls_all_back(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    for number in 1..=STEPS {
        let before = dump(&*store);
        let failed = store.transact(&mut |write| {
            step(number, write)?;
            Err(StoreError::Database("by the test".to_owned()))
        });
        assert!(matches!(failed, Err(StoreError::Database(text)) if text == "by the test"));
        assert_eq!(dump(&*store), before);
        store.transact(&mut |write| step(number, write)).expect("commits");
    }
    let after = dump(&*store);
    assert_eq!(after, dump(&*filled(&mut *make())));
}

/// Entries follow each other without a gap, whatever the caller says.
pub fn entries_are_dense(make: Make<'_>) {
    let mut harness = make();
    let mut store = filled(&mut *harness);
    let before = dump(&*store);
    let stored = coordinator(&*store.readers());
    let last = stored.counters.entries;
    let next = |entries| Coordinator { counters: Counters { entries, ..stored.counters }, ..stored.clone() };
    let text = b"{}".to_vec();
    for (seqs, entries) in
        [(vec![last], last), (vec![last + 2], last + 2), (vec![last + 1, last + 3], last + 3), (vec![last + 1], last), (vec![], last + 1)]
    {
        let rows: Vec<_> = seqs.iter().map(|seq| (*seq, text.clone())).collect();
        let appended = store.transact(&mut |write| write.append(&rows, &next(entries)));
        assert!(matches!(appended, Err(StoreError::Damaged(_))), "{seqs:?} {entries}: {appended:?}");
        assert_eq!(dump(&*store), before);
    }
    let rows = [(last + 1, text.clone()), (last + 2, text.clone())];
    store.transact(&mut |write| write.append(&rows, &next(last + 2))).expect("commits");
    read(&*store.readers(), |read| {
        assert_eq!(read.entries(last + 1..last + 2)?, rows[..1]);
        assert_eq!(read.entries(last + 1..u64::MAX)?, rows);
        assert_eq!(read.coordinator()?, next(last + 2));
        Ok(())
    });
}

/// A commit shows to readers that begin after it and to no other.
pub fn readers_see_snapshots(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let readers = store.readers();
    for number in 1..=STEPS {
        let before = coordinator(&*readers);
        read(&*readers, |read| {
            assert_eq!(read.coordinator()?, before);
            store.transact(&mut |write| step(number, write))?;
            assert_eq!(read.coordinator()?, before);
            assert_eq!(read.entries(1..u64::MAX)?.len() as u64, before.counters.entries);
            Ok(())
        });
        assert_ne!(coordinator(&*readers), before);
    }
}

/// More readers than connections, while the writer writes; an error or a panic in one costs no other.
pub fn readers_run_beside_the_writer(make: Make<'_>) {
    let mut harness = make();
    let mut store = filled(&mut *harness);
    let readers = store.readers();
    for _ in 0..20 {
        assert!(matches!(readers.read(&mut |_| Err(StoreError::Full)), Err(StoreError::Full)));
    }
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    read(&*readers, |read| {
                        let size = read.coordinator()?.counters.entries;
                        std::thread::yield_now();
                        assert_eq!(read.entries(1..u64::MAX)?.len() as u64, size);
                        Ok(())
                    });
                }
            });
        }
        for number in 0..50 {
            random_batch(&mut *store, &mut Rng(number), 3);
        }
    });
}

/// One command of any sort.
fn random_command<R: Records + ?Sized>(rng: &mut Rng, batch: &mut Batch, records: &mut R) -> Result<(), R::Error> {
    let kinds = [Kind::Email, Kind::Email, Kind::Phone, Kind::CustomerId, Kind::CampaignPkey, Kind::CookieId, Kind::Maid];
    let some = |rng: &mut Rng| {
        let count = 1 + rng.below(3);
        (0..count).map(|_| named(kinds[rng.below(kinds.len() as u64) as usize], rng.below(5))).collect::<Vec<_>>()
    };
    let one = (some(rng), some(rng), PurposeSet(1 + rng.below(7)), Channel::ALL[rng.below(11) as usize]);
    let (first, second, purposes, channel) = one;
    let subject = SubjectNo(1 + rng.below(batch.counters.subjects.max(1)));
    let by = Actor::Key(1);
    batch.now += rng.below(3) as i64;
    match rng.below(13) {
        0..=4 => {
            let act = OptOut {
                acted_at: (rng.below(3) == 0).then(|| batch.now - rng.below(9) as i64),
                purposes,
                ..opt_out(first, channel, batch.counters.entries)
            };
            let subject = (channel == Channel::Api && batch.counters.subjects > 0).then_some(subject);
            // A profile's own opt-out need not name anything.
            let named = if subject.is_some() && rng.below(2) == 0 { Vec::new() } else { act.named.clone() };
            drop(batch.opt_out(records, OptOut { subject, named, ..act })?);
        }
        5 | 6 => drop(batch.link(records, &first, by)?),
        7 => drop(batch.unlink(records, &first, by)?),
        8 | 9 => {
            let asked = batch
                .ask_opt_in(records, &OptInAsk { request: request_id(1), named: &first[..1], purposes, channel, by, evidence: None })?;
            if let (Ok(target), true) = (asked, rng.below(4) > 0) {
                batch.confirm_opt_in(records, request_id(1), &target, purposes, channel, by)?;
            }
        }
        12 => batch.find(records, &first[0].key)?.into_iter().for_each(|no| batch.touch(no)),
        10 if batch.counters.subjects > 0 => drop(batch.api_opt_in(records, subject, purposes, rng.below(4) > 0, true, by)?),
        11 if batch.counters.subjects > 0 && rng.below(3) == 0 => drop(batch.delete_profile(records, subject, by)?),
        _ if batch.counters.subjects > 0 => batch.hold_exactly(records, subject, &first, &second, by)?,
        _ => {}
    }
    Ok(())
}

/// So many links to one e-mail address that with a few more nothing passes through it.
fn crowd<R: Records + ?Sized>(batch: &mut Batch, records: &mut R) -> Result<(), R::Error> {
    for account in 0..62 {
        let _ = batch.link(records, &[named(Kind::Email, 0), named(Kind::CustomerId, 1000 + account)], Actor::Local)?;
    }
    Ok(())
}

fn random_batch(store: &mut dyn Store, rng: &mut Rng, commands: u64) {
    let committed = store.transact(&mut |write| {
        let mut batch = Batch::new(write.coordinator()?.counters, NOW);
        for _ in 0..commands {
            random_command(rng, &mut batch, write)?;
        }
        commit(write, &mut batch).map(drop)
    });
    committed.expect("commits");
}

/// Every identifier's verdict that is not the default.
fn verdicts(store: &dyn Store) -> BTreeMap<LookupKey, Verdict> {
    read(&*store.readers(), |read| {
        let mut all = BTreeMap::new();
        read.each_verdict(&mut |key, _, verdict| {
            all.insert(key, verdict);
        })?;
        Ok(all)
    })
}

/// The tail, put over what was there before, is what is there now.
pub fn tail_is_the_difference(make: Make<'_>) {
    for seed in 0..4 * scale() {
        let mut harness = make();
        let mut store = harness.open().expect("opens");
        let mut rng = Rng(seed);
        let crowded = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, NOW);
            crowd(&mut batch, write)?;
            commit(write, &mut batch).map(drop)
        });
        crowded.expect("commits");
        for _ in 0..30 {
            let (mut known, after) = (verdicts(&*store), coordinator(&*store.readers()).counters.entries);
            for _ in 0..=rng.below(2) {
                let commands = 1 + rng.below(4);
                random_batch(&mut *store, &mut rng, commands);
            }
            for (key, verdict) in read(&*store.readers(), |read| read.tail(after)) {
                known.insert(key, verdict);
            }
            known.retain(|_, verdict| *verdict != Verdict::default());
            assert_eq!(known, verdicts(&*store), "seed {seed} after {after}");
        }
    }
}

/// The link that makes an identifier shared writes on the lines of those who held it before: the
/// tail names them, and does not walk the holders of what was shared long ago.
pub fn tail_names_all_that_sharing_changed(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let by = Actor::Local;
    let account = |n| named(Kind::CustomerId, n);
    let (email, purposes) = (named(Kind::Email, 0), PurposeSet::OPT_OUT_DEFAULT);
    let mut after = 0;
    for round in 0..3 {
        let committed = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, NOW + round);
            match round {
                0 => {
                    for n in 0..HOLDERS_MAX {
                        batch.link(write, &[email, account(n)], by)?.expect("allowed");
                    }
                    drop(batch.opt_out(write, opt_out(vec![email], Channel::Form, 1))?.expect("allowed"));
                }
                // The account's own line allows; what denies it is the e-mail address, one hop away.
                1 => {
                    let target = batch
                        .ask_opt_in(
                            write,
                            &OptInAsk {
                                request: request_id(2),
                                named: &[account(0)],
                                purposes,
                                channel: Channel::Form,
                                by,
                                evidence: None,
                            },
                        )?
                        .expect("allowed");
                    batch.confirm_opt_in(write, request_id(2), &target, purposes, Channel::Form, by)?;
                    after = batch.counters.entries;
                }
                _ => drop(batch.link(write, &[email, account(HOLDERS_MAX)], by)?.expect("allowed")),
            }
            commit(write, &mut batch).map(drop)
        });
        committed.expect("commits");
    }
    let tail = |after| read(&*store.readers(), |read| read.tail(after)).into_iter().collect::<BTreeMap<_, _>>();
    let changed = tail(after)[&account(0).key];
    assert_eq!((changed.denied, changed), (purposes, verdicts(&*store)[&account(0).key]), "written on the line of the account");
    let last = coordinator(&*store.readers()).counters.entries;
    store
        .transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, NOW + 3);
            (0..9).try_for_each(|n| batch.link(write, &[email, account(1000 + n)], by).map(drop))?;
            commit(write, &mut batch).map(drop)
        })
        .expect("commits");
    let tail = |after| read(&*store.readers(), |read| read.tail(after)).len();
    assert_eq!((tail(last + 9), tail(last + 8)), (0, 2), "one more account, and what it is linked to");
}

/// Answers come back for as long as was promised and are then forgotten by the hour.
pub fn answers_are_remembered_for_two_days(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let scope = |hour: i64| [hour as u8; 32];
    let at = |hour: i64| NOW + hour * 3600;
    for hour in 0..100 {
        if hour % 10 == 0 {
            drop(store);
            store = harness.open().expect("opens");
        }
        // A roll-back must not leave a wrong idea of what there is.
        let failed = store.transact(&mut |write| {
            write.remember(&scope(hour), &remembered("undone"), at(hour))?;
            Err(StoreError::Full)
        });
        assert!(matches!(failed, Err(StoreError::Full)));
        store
            .transact(&mut |write| {
                assert_eq!(write.remembered(&scope(hour), 0)?, None);
                write.remember(&scope(hour), &remembered("replaced"), at(hour))?;
                write.remember(&scope(hour), &remembered(&hour.to_string()), at(hour))?;
                assert_eq!(write.remembered(&scope(hour), 0)?, Some(remembered(&hour.to_string())));
                Ok(())
            })
            .expect("commits");
    }
    read(&*store.readers(), |read| {
        for hour in 0..100 {
            let found = read.remembered(&scope(hour), at(99) - REMEMBER_SECONDS)?;
            assert_eq!(found, (hour >= 99 - 48).then(|| remembered(&hour.to_string())), "{hour}");
            assert_eq!(read.remembered(&scope(hour), at(hour) + 1)?, None, "since counts by the second");
            if hour < 99 - 49 {
                assert_eq!(read.remembered(&scope(hour), 0)?, None, "forgotten");
            }
        }
        Ok(())
    });
}

/// What was shredded is in no byte of the store.
pub fn shredded_data_is_gone(make: Make<'_>) {
    let mut harness = make();
    let mut store = filled(&mut *harness);
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let owners = [Owner::Profile(SubjectNo(1)), Owner::Request(request_id(1))];
    // One in the middle of a page, and one that needs pages of its own.
    let canaries = ["canary-in-a-cell".to_owned(), "canary-on-pages-".repeat(2000)];
    let put =
        store.transact(&mut |write| owners.iter().zip(&canaries).try_for_each(|(owner, text)| write.vault_put(*owner, &sealed(text))));
    put.expect("commits");
    assert!(canaries.iter().all(|text| contains(&harness.bytes(), &text[..16])), "the search finds what is there");
    store.transact(&mut |write| owners.iter().try_for_each(|owner| write.vault_shred(*owner))).expect("commits");
    assert!(owners.iter().all(|owner| read(&*store.readers(), |read| read.vault_get(*owner)).is_none()));
    drop(store);
    let bytes = harness.bytes();
    assert!(
        !bytes.is_empty()
            && canaries.iter().all(|text| !contains(&bytes, &text[..16]) && !contains(&bytes, &format!("key of {}", &text[..10])))
    );
}

/// A backup is the whole store as of one commit, however much is written meanwhile.
pub fn backups_are_stores_of_one_moment(make: Make<'_>) {
    let mut harness = make();
    let mut store = filled(&mut *harness);
    let (readers, quiet, busy) = (store.readers(), harness.new_file(), harness.new_file());
    let before = dump(&*store);
    readers.backup(&quiet).expect("backs up");
    assert!(readers.backup(&quiet).is_err(), "an existing file is not touched");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..200).for_each(|number| random_batch(&mut *store, &mut Rng(number), 5)));
        while coordinator(&*readers).counters.entries < 100 {
            std::thread::yield_now();
        }
        readers.backup(&busy).expect("backs up");
        writer.join().expect("writes");
    });
    let all = read(&*readers, |read| read.entries(1..u64::MAX));
    assert_eq!(dump(&*harness.open_backup(&quiet).expect("opens")), before);
    let mut copy = harness.open_backup(&busy).expect("opens");
    // Random commands ask for opt-ins under the id of a request that is there.
    assert!(
        problems(&*copy)
            .iter()
            .all(|problem| problem.starts_with("request ") || problem.starts_with("profile ") || problem.starts_with("vault"))
    );
    let copied = read(&*copy.readers(), |read| read.entries(1..u64::MAX));
    assert!(copied.len() >= 100 && all.starts_with(&copied));
    random_batch(&mut *copy, &mut Rng(1), 5);
}

/// A directory has one writer.
pub fn one_process_at_a_time(make: Make<'_>) {
    let mut harness = make();
    let store = harness.open().expect("opens");
    assert!(matches!(harness.open(), Err(StoreError::InUse(_))));
    drop(store);
    drop(harness.open().expect("free again"));
}

/// An older program does not touch what a newer one wrote.
pub fn newer_schemas_are_refused(make: Make<'_>) {
    let mut harness = make();
    drop(filled(&mut *harness));
    harness.set_version(SCHEMA_VERSION + 1);
    let bytes = harness.bytes();
    for _ in 0..2 {
        let refused = harness.open().err().expect("refused");
        assert!(
            matches!(refused, StoreError::Version { found, known, .. } if (found, known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)),
            "{refused}"
        );
    }
    assert!(harness.bytes() == bytes, "nothing was written");
    harness.set_version(SCHEMA_VERSION);
    assert_eq!(dump(&*harness.open().expect("opens")), dump(&*filled(&mut *make())));
}

fn assert_same_state(store: &dyn Store, model: &mut Memory, counters: Counters) {
    read(&*store.readers(), |read| {
        assert_eq!(read.coordinator()?.counters, counters);
        for no in (1..=counters.identifiers).map(IdentifierNo) {
            let Ok(verdict) = Graph::default().verdict(model, no);
            let row = &model.identifiers[&no];
            assert_eq!(read.identifier(no)?.as_ref(), Some(row));
            let (key, kind, stored) = read.verdict_of(no)?.expect("has a row");
            assert_eq!((model.keys.get(&key), kind, stored), (Some(&no), row.kind, verdict));
            assert_eq!(read.find(&key)?, Some(no));
            let Ok(holders) = model.holders(no);
            assert_eq!(read.holders(no)?, holders);
        }
        for no in (1..=counters.subjects + 1).map(SubjectNo) {
            assert_eq!(read.subject(no)?.as_ref(), model.subjects.get(&no));
            let Ok(held) = model.held(no);
            assert_eq!(read.held(no)?, held);
        }
        Ok(())
    });
}

/// What a destination has to know of each party: its identifiers with their verdicts.
fn views(model: &mut Memory) -> BTreeMap<Party, Vec<(IdentifierNo, Verdict)>> {
    let mut views = BTreeMap::<Party, Vec<_>>::new();
    for subject in model.subjects.keys() {
        views.insert(Party::Subject(*subject), Vec::new());
    }
    for (no, row) in model.identifiers.clone() {
        let Ok(verdict) = Graph::default().verdict(model, no);
        if row.holders == 0 || row.shared {
            views.insert(Party::Identifier(no), vec![(no, verdict)]);
            continue;
        }
        let Ok(holders) = model.holders(no);
        for holder in holders {
            views.entry(Party::Subject(holder)).or_default().push((no, verdict));
        }
    }
    views
}

fn assert_same_changes(store: &dyn Store, told: &BTreeMap<Party, (u64, u64)>) {
    let mut expected: Vec<_> = told.iter().map(|(party, (no, seq))| ChangeRow { no: *no, party: *party, seq: *seq }).collect();
    expected.sort_by_key(|row| row.no);
    read(&*store.readers(), |read| {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = read.changes(after, 7)?;
            let Some(last) = page.last() else { break };
            after = last.no;
            found.extend(page);
        }
        assert_eq!(found, expected);
        for row in &expected {
            assert_eq!((read.change_of(row.party)?, read.change_upto(row.no)?), (Some(*row), Some(*row)));
        }
        assert_eq!(read.change_of(Party::Subject(SubjectNo(999_999)))?, None);
        Ok(())
    });
}

/// Random commands on the store and on the model in memory: the same entries, changes and rows.
pub fn random_commands_do_what_the_model_does(make: Make<'_>) {
    for seed in 0..6 * scale() {
        let mut harness = make();
        let mut store = harness.open().expect("opens");
        let (mut model, mut counters, mut rng) = (Memory::default(), Counters::default(), Rng(seed));
        let mut told = BTreeMap::new();
        for round in 0..40 {
            let now = NOW + round * 5;
            let (commands, batch_rng) = (1 + rng.below(6), rng.clone());
            let play = |records: &mut dyn FnMut(&mut Rng, &mut Batch)| {
                let (mut rng, mut batch) = (batch_rng.clone(), Batch::new(counters, now));
                records(&mut rng, &mut batch);
                batch
            };
            let mut expected = play(&mut |rng, batch| {
                if round == 0 && seed % 2 == 0 {
                    let Ok(()) = crowd(batch, &mut model);
                }
                for _ in 0..commands {
                    let Ok(()) = random_command(rng, batch, &mut model);
                }
            });
            let before = views(&mut model);
            let Ok(changes) = expected.changes(&mut model);
            model.write(&changes);
            for (party, seq) in &changes.parties {
                expected.counters.changes += 1;
                told.insert(*party, (expected.counters.changes, *seq));
            }
            // Nobody is at a destination what nobody told it.
            for (party, view) in views(&mut model) {
                let is_told = changes.parties.iter().any(|(changed, _)| *changed == party);
                assert!(is_told || before.get(&party) == Some(&view), "seed {seed} round {round}: {party:?} changed and is not told");
            }
            for (key, IdRef(no, kind)) in &expected.new_identifiers {
                model.keys.insert(*key, *no);
                model.identifiers.entry(*no).or_insert(IdentifierRow { kind: *kind, holders: 0, shared: false, line: Line::default() });
            }
            let mut after = rng.clone();
            let committed = store.transact(&mut |write| {
                let (mut failed, mut rng) = (Ok(()), None);
                let mut batch = play(&mut |own, batch| {
                    failed = (|| {
                        if round == 0 && seed % 2 == 0 {
                            crowd(batch, write)?;
                        }
                        (0..commands).try_for_each(|_| random_command(own, batch, write))
                    })();
                    rng = Some(own.clone());
                });
                failed?;
                after = rng.expect("played");
                let stored = commit(write, &mut batch)?;
                assert_eq!((&batch.entries, batch.counters), (&expected.entries, expected.counters), "seed {seed} round {round}");
                assert_eq!((stored.identifiers, stored.verdicts), (changes.identifiers.clone(), changes.verdicts.clone()));
                assert_eq!((stored.subjects, stored.holds), (changes.subjects.clone(), changes.holds.clone()));
                Ok(())
            });
            committed.expect("commits");
            (counters, rng) = (expected.counters, after);
            if rng.below(5) == 0 {
                drop(store);
                store = harness.open().expect("opens");
            }
            assert_same_state(&*store, &mut model, counters);
            assert_same_changes(&*store, &told);
        }
        assert_eq!(problems(&*store), [""; 0], "seed {seed}");
    }
}

/// Whatever fails, wherever: the store is as before the transaction or as after it, and goes on.
pub fn failures_leave_before_or_after(make: Make<'_>) {
    let mut harness = make();
    let mut store = FaultyStore::new(harness.open().expect("opens"), None);
    let mut states = vec![dump(&store)];
    for number in 1..=STEPS {
        store.transact(&mut |write| step(number, write)).expect("commits");
        states.push(dump(&store));
    }
    let calls = (1..=store.calls).map(Fault::Call);
    let commits = (1..=STEPS).flat_map(|number| [Fault::BeforeCommit(number), Fault::AfterCommit(number)]);
    for fault in calls.chain(commits) {
        let mut harness = make();
        let mut store = FaultyStore::new(harness.open().expect("opens"), Some(fault));
        let mut number = 1;
        while store.transact(&mut |write| step(number, write)).is_ok() {
            number += 1;
            assert!(number <= STEPS, "{fault:?} did not come");
        }
        drop(store);
        let mut store = harness.open().expect("opens");
        let done = if matches!(fault, Fault::AfterCommit(_)) { number } else { number - 1 };
        assert_eq!(dump(&*store), states[done as usize], "{fault:?}");
        for number in done + 1..=STEPS {
            store.transact(&mut |write| step(number, write)).expect("commits");
        }
        assert_eq!(dump(&*store), states[STEPS as usize], "{fault:?}");
    }
}
