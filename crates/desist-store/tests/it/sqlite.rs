//! Files, permissions, sizes: what the contract cannot say.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use desist_core::fact::{Actor, Channel, RequestId, RequestKind};
use desist_core::identifier::Kind;
use desist_core::lookup::LookupKey;
use desist_core::mark::IdentifierNo;
use desist_core::purpose::PurposeSet;
use desist_core::rules::{Batch, Named, OptOut};
use desist_store::contract::{Harness, filled, step};
use desist_store::sqlite::{DirLock, SqliteReaders, SqliteStore};
use desist_store::{Owner, Readers, SCHEMA_VERSION, Sealed, Store, StoreError, commit};
use sha2::{Digest, Sha256};

use crate::Temporary;

#[test]
fn nobody_else_can_read_the_files() {
    let mut harness = Temporary::new();
    let store = filled(&mut harness);
    let mode = |path: &std::path::Path| path.metadata().expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&harness.home()), 0o700);
    let mut names: Vec<_> = std::fs::read_dir(harness.home()).expect("lists").map(|file| file.expect("lists").path()).collect();
    names.sort();
    let found: Vec<_> = names.iter().map(|path| (path.file_name().and_then(|name| name.to_str()).expect("text"), mode(path))).collect();
    assert_eq!(found, [("desist.db", 0o600), ("desist.db-shm", 0o600), ("desist.db-wal", 0o600), ("lock", 0o600)]);
    let backup = harness.new_file();
    store.readers().backup(&backup).expect("backs up");
    assert_eq!(mode(&backup), 0o600);
}

#[test]
fn shredding_empties_the_wal_of_an_open_store() {
    let mut harness = Temporary::new();
    let mut store = harness.open().expect("opens");
    for number in 1..=3 {
        store.transact(&mut |write| step(number, write)).expect("commits");
    }
    let holds = |harness: &mut Temporary| harness.bytes().windows(16).any(|window| window == b"key of profile 2");
    assert!(holds(&mut harness));
    store.transact(&mut |write| step(4, write)).expect("commits");
    assert!(!holds(&mut harness));
}

#[test]
fn reading_needs_no_lock() {
    let mut harness = Temporary::new();
    let size = |readers: &SqliteReaders| {
        let mut size = 0;
        readers.read(&mut |read| read.coordinator().map(|row| size = row.counters.entries)).expect("reads");
        size
    };
    assert!(matches!(SqliteReaders::open_read_only(&harness.home()), Err(StoreError::Database(_))));
    let mut store = filled(&mut harness);
    let readers = SqliteReaders::open_read_only(&harness.home()).expect("opens");
    let before = size(&readers);
    store.transact(&mut |write| write.scratch(0)).expect("commits");
    assert_eq!(size(&readers), before);
    drop((store, readers));
    assert_eq!(size(&SqliteReaders::open_read_only(&harness.home()).expect("opens without a server")), before);
    for (version, fix) in [(SCHEMA_VERSION + 1, "run the version"), (SCHEMA_VERSION - 1, "start the server")] {
        harness.set_version(version);
        let refused = SqliteReaders::open_read_only(&harness.home()).expect_err("refused").to_string();
        assert!(refused.contains(fix), "{refused}");
    }
}

#[test]
fn a_command_can_take_the_lock_without_the_store() {
    let mut harness = Temporary::new();
    let lock = DirLock::acquire(&harness.home()).expect("locks");
    let refused = harness.open().err().expect("refused").to_string();
    assert!(refused.starts_with(&harness.home().display().to_string()), "{refused}");
    drop(lock);
    harness.open().expect("opens");
}

#[test]
fn a_child_process_does_not_keep_the_lock() {
    let harness = Temporary::new();
    std::thread::scope(|scope| {
        let children = scope.spawn(|| (0..200).all(|_| std::process::Command::new("true").status().expect("runs").success()));
        while !children.is_finished() {
            drop(DirLock::acquire(&harness.home()).expect("free again"));
        }
    });
}

#[test]
fn a_foreign_lock_is_busy_and_damage_is_damage() {
    let mut harness = Temporary::new();
    let mut store = filled(&mut harness);
    let raw = harness.raw();
    raw.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let began = Instant::now();
    assert!(matches!(store.transact(&mut |write| write.scratch(0)), Err(StoreError::Busy)));
    assert!(began.elapsed().as_secs() < 5);
    raw.execute_batch("ROLLBACK").expect("unlocks");
    store.transact(&mut |write| write.scratch(0)).expect("commits");
    drop((raw, store));
    std::fs::write(harness.home().join("desist.db"), [1; 8192]).expect("writes");
    assert!(matches!(harness.open(), Err(StoreError::Damaged(_))));
}

#[test]
fn another_programs_database_is_left_alone() {
    let mut harness = Temporary::new();
    std::fs::create_dir(harness.home()).expect("makes a directory");
    harness.raw().execute_batch("CREATE TABLE theirs (x)").expect("writes");
    assert!(matches!(harness.open(), Err(StoreError::Damaged(_))));
}

#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let mut harness = Temporary::new();
    drop(filled(&mut harness));
    let raw = harness.raw();
    let mut statement = raw.prepare("SELECT code, name FROM kind ORDER BY code").expect("prepares");
    let rows: Vec<(u8, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads").collect::<Result<_, _>>().expect("reads");
    assert_eq!(rows, Kind::ALL.map(|kind| (kind.code(), kind.name().to_owned())));
}

#[test]
fn a_suppressed_identifier_costs_less_than_128_bytes() {
    const COUNT: u64 = 100_000;
    let harness = Temporary::new();
    let mut store = SqliteStore::open(&harness.home()).expect("opens");
    for chunk in 0..COUNT / 1000 {
        let committed = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, 1_800_000_000);
            for n in chunk * 1000..(chunk + 1) * 1000 {
                let digest = Sha256::digest(n.to_be_bytes());
                let named = vec![Named { kind: Kind::Email, key: LookupKey(*digest.first_chunk().expect("16 of 32 bytes")) }];
                let (request, purposes) = (RequestId(u128::from(n).to_be_bytes()), PurposeSet::OPT_OUT_DEFAULT);
                let act = OptOut {
                    request,
                    kind: RequestKind::OptOut,
                    subject: None,
                    named,
                    purposes,
                    channel: Channel::Drop,
                    acted_at: None,
                    by: Actor::Local,
                    evidence: None,
                };
                batch.opt_out(write, act)?.expect("allowed");
            }
            commit(write, &mut batch).map(drop)
        });
        committed.expect("commits");
    }
    drop(store);
    let sql = "SELECT sum(pgsize) FROM dbstat WHERE name IN ('identifier', 'sqlite_autoindex_identifier_1', 'change')";
    let bytes: u64 = harness.raw().query_row(sql, [], |row| row.get(0)).expect("reads");
    println!("{bytes} bytes for {COUNT} identifiers");
    assert!(bytes < 128 * COUNT, "{bytes}");
}

/// With what an identifier is: an e-mail address of 24 characters, under the tag, nonce and data key that the engine adds.
#[test]
fn a_kept_value_costs_less_than_192_bytes() {
    const COUNT: u64 = 100_000;
    let harness = Temporary::new();
    let mut store = SqliteStore::open(&harness.home()).expect("opens");
    for chunk in 0..COUNT / 1000 {
        let committed = store.transact(&mut |write| {
            (chunk * 1000 + 1..=(chunk + 1) * 1000).try_for_each(|no| {
                let sealed = Sealed { wrapped_key: vec![7; 12 + 32 + 16], ciphertext: vec![7; 12 + 1 + 24 + 16] };
                write.vault_put(Owner::Identifier(IdentifierNo(no)), &sealed)
            })
        });
        committed.expect("commits");
    }
    drop(store);
    let sql = "SELECT sum(pgsize) FROM dbstat WHERE name IN ('vault', 'sqlite_autoindex_vault_1')";
    let bytes: u64 = harness.raw().query_row(sql, [], |row| row.get(0)).expect("reads");
    println!("{bytes} bytes for {COUNT} values");
    assert!(bytes < 192 * COUNT, "{bytes}");
}

/// Every statement behind a list, as `session.rs` has it: first the text, then what is put into its places.
const LISTS: [(&str, &[(&str, &str)]); 23] = [
    ("SELECT subject FROM profile WHERE subject > ? ORDER BY subject LIMIT ?", &[]),
    (BY_TIME, &[("{column}", "created_ms"), ("{above}", ">"), ("{order}", "ASC")]),
    (BY_TIME, &[("{column}", "created_ms"), ("{above}", "<"), ("{order}", "DESC")]),
    (BY_TIME, &[("{column}", "modified_ms"), ("{above}", ">"), ("{order}", "ASC")]),
    (BY_TIME, &[("{column}", "modified_ms"), ("{above}", "<"), ("{order}", "DESC")]),
    (DENIED, &[]),
    ("{select} AND (value, subject) > (?, ?) AND value < ? ORDER BY value, subject LIMIT ?", TEXTS),
    ("{select} AND value >= ? AND value < ? ORDER BY value, subject LIMIT ?", TEXTS),
    ("{select} AND value >= ? AND (value, subject) < (?, ?) ORDER BY value DESC, subject DESC LIMIT ?", TEXTS),
    ("{select} AND value >= ? AND value < ? ORDER BY value DESC, subject DESC LIMIT ?", TEXTS),
    ("SELECT count(*) FROM profile_text WHERE field = ? AND value >= ? AND value < ?", &[]),
    ("SELECT {SUBSCRIPTION} FROM subscription WHERE pkey = ?", SUBSCRIPTION),
    ("SELECT {SUBSCRIPTION} FROM subscription WHERE subject = ? AND service = ?", SUBSCRIPTION),
    (SUBSCRIPTIONS, &[("{SUBSCRIPTION}", "no, pkey, subject, service, created_ms"), ("{column}", "subject")]),
    (SUBSCRIPTIONS, &[("{SUBSCRIPTION}", "no, pkey, subject, service, created_ms"), ("{column}", "service")]),
    ("SELECT count(*) FROM subscription WHERE {column} = ?", &[("{column}", "subject")]),
    ("SELECT count(*) FROM subscription WHERE {column} = ?", &[("{column}", "service")]),
    ("SELECT {PRIVACY_REQUEST} FROM privacy_request WHERE pkey = ?", PRIVACY_REQUEST),
    ("SELECT 1 FROM privacy_request WHERE name_hash = ?", &[]),
    ("SELECT {PRIVACY_REQUEST} FROM privacy_request WHERE no > ? ORDER BY no LIMIT ?", PRIVACY_REQUEST),
    ("DELETE FROM profile_text WHERE field = ? AND value = ? AND subject = ?", &[]),
    (REMOVE, &[]),
    ("DELETE FROM subscription WHERE subject = ?", &[]),
];
const BY_TIME: &str =
    "SELECT {column}, subject FROM profile WHERE ({column}, subject) {above} (?, ?) ORDER BY {column} {order}, subject {order} LIMIT ?";
const DENIED: &str =
    "SELECT key.no, subject FROM (SELECT no FROM identifier WHERE kind = 4 AND ((denied | linked) & 1 <> 0 OR shared <> 0) AND no > ?
                   AND EXISTS (SELECT 1 FROM hold WHERE identifier = identifier.no) ORDER BY no LIMIT ?) AS key
                   JOIN hold ON hold.identifier = key.no ORDER BY key.no, subject";
const REMOVE: &str =
    "DELETE FROM profile_text WHERE (field, value, subject) IN (SELECT field, value, subject FROM profile_text WHERE field = ? LIMIT ?)";
const SUBSCRIPTIONS: &str = "SELECT {SUBSCRIPTION} FROM subscription WHERE {column} = ? AND no > ? ORDER BY no LIMIT ?";
const TEXTS: &[(&str, &str)] = &[("{select}", "SELECT value, subject FROM profile_text WHERE field = ?")];
const SUBSCRIPTION: &[(&str, &str)] = &[("{SUBSCRIPTION}", "no, pkey, subject, service, created_ms")];
const PRIVACY_REQUEST: &[(&str, &str)] = &[("{PRIVACY_REQUEST}", "no, pkey, name_hash, type, regulation, status, created_ms, modified_ms")];

/// A page costs what is on it, however many rows there are.
#[test]
fn every_list_seeks_an_index_and_sorts_nothing() {
    let mut harness = Temporary::new();
    drop(filled(&mut harness));
    let raw = harness.raw();
    // A statement that is changed there has to be looked at here.
    let source = include_str!("../../src/sqlite/session.rs");
    let mut wrong = Vec::new();
    for (text, places) in LISTS {
        assert!(source.contains(&format!("\"{text}")) && source.contains(&format!("{text}\"")), "session.rs has no {text}");
        let sql = places.iter().fold(text.to_owned(), |sql, (place, by)| sql.replace(place, by));
        let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
        let steps = statement.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>(3)).expect("plans");
        let steps: Vec<_> = steps.collect::<Result<_, _>>().expect("plans");
        // The keys of a page are read from the first to the last, and the few who hold one of them are sorted.
        let page_of_keys = ["SCAN key", "USE TEMP B-TREE FOR LAST TERM OF ORDER BY"];
        let allowed = |step: &str| text == DENIED && page_of_keys.contains(&step);
        let is_wrong = |step: &String| (step.starts_with("SCAN") || step.contains("TEMP B-TREE")) && !allowed(step);
        if !steps.iter().any(|step| step.starts_with("SEARCH")) || steps.iter().any(is_wrong) {
            wrong.push(format!("{sql}: {steps:?}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}
