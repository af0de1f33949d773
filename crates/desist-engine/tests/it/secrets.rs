//! The secret files: made once, never made anew for a store that has others.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use desist_engine::engine::OpenError;
use desist_engine::secrets::SecretError;
use desist_store::sqlite::SqliteStore;

use crate::support::{Home, audit, email, facts_after, opt_out, submit};

const FILES: [&str; 3] = ["pepper.key", "master.key", "log.key"];

/// Every file with what is in it, but for the database, which gets its own WAL's pages whenever it is
/// opened; of that the log is compared at the end.
fn contents(home: &Home) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for dir in [home.path().to_owned(), home.keys(), home.store_dir()] {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.to_string_lossy();
            if path.is_file() && !name.contains("desist.db") {
                files.insert(path.clone(), std::fs::read(&path).expect("reads"));
            }
        }
    }
    files
}

fn filled(seed: u64) -> Home {
    let home = Home::new(seed);
    let engine = home.open();
    submit(&engine, opt_out(vec![email(&engine, "rosa@example.com")])).expect("taken");
    engine.close();
    home
}

#[test]
fn the_first_start_makes_files_that_only_their_owner_reads() {
    let home = Home::new(1);
    let (engine, first) = home.try_open().expect("opens");
    assert!(first);
    assert_eq!(engine.business(), "acme");
    engine.close();
    let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(home.keys()), 0o700);
    for name in FILES {
        assert_eq!(mode(home.keys().join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(home.keys()).expect("there").count(), FILES.len() + 1, "and the high-water mark");
    let [pepper, master, log] = FILES.map(|name| std::fs::read(home.keys().join(name)).expect("reads"));
    assert!(pepper != master && master != log && log != pepper);
    let (engine, first) = home.try_open().expect("opens");
    assert!(!first);
    engine.close();
}

#[test]
fn with_other_secrets_nothing_starts_and_nothing_is_written() {
    let (home, other) = (filled(1), filled(2));
    for name in FILES {
        let path = home.keys().join(name);
        let good = std::fs::read(&path).expect("reads");
        let wrong = std::fs::read(other.keys().join(name)).expect("reads");
        let is = |found: &PathBuf| *found == path;
        let check = |refused: &dyn Fn(&SecretError) -> bool| {
            let before = contents(&home);
            match home.try_open().map(|(engine, _)| engine.close()) {
                Err(OpenError::Secrets(error)) => assert!(refused(&error), "{name}: {error}"),
                Err(error) => panic!("{name}: {error}"),
                Ok(()) => panic!("{name}: it starts"),
            }
            assert_eq!(contents(&home), before, "{name}: something was written");
        };
        std::fs::remove_file(&path).expect("removed");
        check(&|error| matches!(error, SecretError::Missing(found) if is(found)));
        for garbled in [&b""[..], b"\xff\xfe", b"AAAA", &good[..good.len() - 2], &[&good[..], b"A"].concat()] {
            std::fs::write(&path, garbled).expect("written");
            check(&|error| matches!(error, SecretError::Malformed(found) if is(found)));
        }
        std::fs::write(&path, &wrong).expect("written");
        check(&|error| matches!(error, SecretError::Wrong(found) if is(found)));
        std::fs::write(&path, &good).expect("written");
    }
    let engine = home.open();
    assert_eq!(facts_after(&engine, 0), ["log_opened", "opted_out"]);
    audit(&engine);
    engine.close();
}

#[test]
fn the_store_of_another_business_does_not_start() {
    let mut home = filled(1);
    home.business = Some("other".to_owned());
    let before = contents(&home);
    match home.try_open().map(|(engine, _)| engine.close()) {
        Err(OpenError::OtherBusiness { stored, given }) => assert_eq!((stored.as_str(), given.as_str()), ("acme", "other")),
        other => panic!("{other:?}"),
    }
    assert_eq!(contents(&home), before);
    home.business = Some("acme".to_owned());
    let engine = home.open();
    assert_eq!(facts_after(&engine, 0), ["log_opened", "opted_out"]);
    audit(&engine);
    engine.close();
}

#[test]
fn a_first_start_that_was_cut_off_while_it_made_a_file_goes_on() {
    for (seed, name) in (1..).zip(FILES) {
        let home = Home::new(seed);
        std::fs::create_dir(home.keys()).expect("made");
        std::fs::write(home.keys().join(name), "").expect("written");
        let engine = home.open();
        engine.close();
        assert_eq!(std::fs::metadata(home.keys().join(name)).expect("there").permissions().mode() & 0o777, 0o600);
        // What says something is never written over: it may be all that is left of another store.
        let home = Home::new(seed);
        std::fs::create_dir(home.keys()).expect("made");
        std::fs::write(home.keys().join(name), "x").expect("written");
        assert!(matches!(home.try_open(), Err(OpenError::Secrets(SecretError::Malformed(_)))));
        assert_eq!(std::fs::read(home.keys().join(name)).expect("reads"), b"x");
    }
}

#[test]
fn a_first_start_that_was_cut_off_goes_on() {
    // After how many of the files; the last time also with a store that has tables and no entries.
    for done in 1..=4 {
        let made = filled(done);
        let home = Home::new(100 + done);
        std::fs::create_dir(home.keys()).expect("made");
        for name in FILES.iter().take(done as usize) {
            std::fs::copy(made.keys().join(name), home.keys().join(name)).expect("copied");
        }
        if done == 4 {
            drop(SqliteStore::open(&home.store_dir()).expect("opens"));
        }
        let (engine, first) = home.try_open().expect("opens");
        assert!(first);
        assert_eq!(facts_after(&engine, 0), ["log_opened"]);
        engine.close();
        let same = FILES
            .map(|name| std::fs::read(home.keys().join(name)).expect("reads") == std::fs::read(made.keys().join(name)).expect("reads"));
        assert_eq!(same, [true, done > 1, done > 2], "the files that were there are used");
    }
}
