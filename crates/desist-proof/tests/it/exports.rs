use std::convert::Infallible;

use desist_proof::checkpoint::{Checkpoint, Opened, SignedCheckpoint};
use desist_proof::entry::EntryError;
use desist_proof::export::{LogCheck, LogError, verify_log};
use desist_proof::tile::{Appender, TileId};
use desist_proof::{Frontier, leaf_hash};

use crate::world::{ORIGIN, Table, log_key};

/// More than two tiles of level 0, the last one partial.
const SIZE: u64 = 600;

fn line(index: u64) -> Vec<u8> {
    format!(r#"{{"v":1,"seq":{},"at":"2026-01-01T00:00:01Z","type":"signals_honoured","day":20454,"count":1}}"#, index + 1).into_bytes()
}

fn log() -> (Vec<Vec<u8>>, Table, Opened) {
    let lines: Vec<_> = (0..SIZE).map(line).collect();
    let (mut table, mut frontier) = (Table::default(), Frontier::default());
    let mut appender = Appender::open(0, &mut table.reader()).expect("empty");
    for line in &lines {
        appender.append(leaf_hash(line));
        frontier.append(leaf_hash(line));
    }
    table.write(appender.take());
    let checkpoint = Checkpoint::new(ORIGIN, SIZE, frontier.root()).expect("an origin");
    let opened = SignedCheckpoint::sign(checkpoint, &log_key()).and_then(|signed| signed.open(log_key().verifier(), &[]));
    (lines, table, opened.expect("good"))
}

/// The whole check, with tiles.
fn check(lines: &[Vec<u8>], table: &Table, checkpoint: &Opened) -> Result<(), LogError<Infallible>> {
    let mut read = table.reader();
    let mut check = LogCheck::with_tiles(checkpoint, &mut read)?;
    for line in lines {
        check.push(line)?;
    }
    check.finish()
}

fn blind(lines: &[Vec<u8>], checkpoint: &Opened) -> Result<(), LogError<Infallible>> {
    verify_log(lines.iter().map(Vec::as_slice), checkpoint)
}

#[test]
fn the_log_is_the_log() {
    let (lines, table, checkpoint) = log();
    assert_eq!(blind(&lines, &checkpoint), Ok(()));
    assert_eq!(check(&lines, &table, &checkpoint), Ok(()));
}

#[test]
fn the_first_changed_entry_is_named_if_there_are_tiles() {
    let (lines, table, checkpoint) = log();
    for index in [0, 1, 255, 256, 511, 512, 599] {
        let mut lines = lines.clone();
        for changed in [index, 599] {
            lines[changed] = String::from_utf8(lines[changed].clone()).expect("JSON").replace("\"count\":1", "\"count\":2").into_bytes();
        }
        assert_eq!(blind(&lines, &checkpoint), Err(LogError::Root), "{index}");
        assert_eq!(check(&lines, &table, &checkpoint), Err(LogError::Changed { index: index as u64 }));
    }
}

#[test]
fn missing_extra_and_moved_entries_are_found() {
    let (mut lines, table, checkpoint) = log();
    assert_eq!(blind(&lines[..10], &checkpoint), Err(LogError::TooFew { entries: 10 }));
    assert_eq!(check(&lines[..10], &table, &checkpoint), Err(LogError::TooFew { entries: 10 }));
    lines.push(line(SIZE));
    assert_eq!(blind(&lines, &checkpoint), Err(LogError::TooMany));
    lines.pop();
    lines.swap(3, 4);
    assert_eq!(blind(&lines, &checkpoint), Err(LogError::Entry { index: 3, error: EntryError::Place }));
    assert_eq!(check(&lines, &table, &checkpoint), Err(LogError::Changed { index: 3 }));
    lines[3] = b"not JSON".to_vec();
    assert_eq!(blind(&lines, &checkpoint), Err(LogError::Entry { index: 3, error: EntryError::Json }));
    assert_eq!(
        blind(&lines, &checkpoint).expect_err("found").to_string(),
        "line 4: the entry is not a JSON object whose members each come once"
    );
}

#[test]
fn a_wrong_tile_is_not_taken_for_a_wrong_entry() {
    let (lines, table, checkpoint) = log();
    for (key, bytes) in &table.0 {
        for at in [0, bytes.len() - 1] {
            let mut table = table.clone();
            table.0.get_mut(key).expect("a row")[at] ^= 1;
            let error = check(&lines, &table, &checkpoint).expect_err("found");
            let id = TileId::of(SIZE, key.0, key.1).expect("a tile");
            assert_eq!(error, if id.width() < 256 { LogError::TilesRoot } else { LogError::WrongTile(id) });
        }
        let mut short = table.clone();
        short.0.get_mut(key).expect("a row").pop();
        assert!(matches!(check(&lines, &short, &checkpoint), Err(LogError::Tile(_))));
    }
    let mut fails = |_| Err("disk");
    assert_eq!(
        LogCheck::with_tiles(&checkpoint, &mut fails).err().map(|error| error.to_string()).as_deref(),
        Some("a tile could not be read: disk")
    );
}

#[test]
fn an_empty_log_has_no_entries() {
    let checkpoint = Checkpoint::new(ORIGIN, 0, Frontier::default().root()).expect("an origin");
    let opened = SignedCheckpoint::sign(checkpoint, &log_key()).and_then(|signed| signed.open(log_key().verifier(), &[])).expect("good");
    assert_eq!(blind(&[], &opened), Ok(()));
    assert_eq!(blind(&[line(0)], &opened), Err(LogError::TooMany));
}
