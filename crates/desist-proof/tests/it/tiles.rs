use std::collections::BTreeSet;
use std::convert::Infallible;

use desist_proof::tile::{Appender, TileError, TileId, changed_tiles, fuzz_tile_path, tiles_of};
use proptest::prelude::*;

use crate::world::{Table, leaf, mutations};

fn paths(ids: impl IntoIterator<Item = TileId>) -> Vec<String> {
    ids.into_iter().map(TileId::path).collect()
}

#[test]
fn the_examples_of_the_source_hold() {
    let id = TileId::new(0, 1_234_067, 256).expect("a tile");
    assert_eq!(id.path(), "tile/0/x001/x234/067");
    let mut of_70_000 = tiles_of(70_000).collect::<Vec<_>>();
    assert_eq!(of_70_000.len(), 273 + 1 + 1 + 1 + 1);
    let others = paths(of_70_000.drain(273..));
    assert_eq!(others, ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert!(of_70_000.iter().all(|id| id.width() == 256));
    assert_eq!(paths(tiles_of(256)), ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(paths(tiles_of(0)), [""; 0]);
}

#[test]
fn a_path_has_one_form() {
    let good = ["tile/0/000", "tile/0/000.p/1", "tile/0/000.p/255", "tile/7/000.p/255", "tile/0/x001/234", "tile/3/x001/x234/067.p/9"];
    for path in good {
        assert_eq!(TileId::parse_path(path).map(TileId::path).as_deref(), Some(path));
    }
    let bad = [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/00/000",
        "tile/+0/000",
        "tile/8/000",
        "tile/63/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/X001/234",
        "tile/0/xx01/234",
        "tile/0/+01",
        "tile/0/000/",
        "tile/0//000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/000 ",
        "tile/7/000",
        "tile/7/001.p/1",
        "tile/entries/000",
        "tile/data/000",
        "tile/8/0/000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x072/x057/x594/x037/x927/936",
    ];
    for path in bad {
        assert_eq!(TileId::parse_path(path), None, "{path}");
    }
    // The last place of level 0 that a log of fewer than 2^64 leaves can have.
    assert_eq!(TileId::of(u64::MAX, 0, u64::MAX / 256).map(TileId::path).as_deref(), Some("tile/0/x072/x057/x594/x037/x927/935.p/255"));
}

#[test]
fn a_changed_path_is_another_tile_or_none() {
    for path in ["tile/0/x001/x234/067.p/99", "tile/2/005", "tile/1/x999/999.p/255"] {
        let id = TileId::parse_path(path);
        for changed in mutations(path) {
            assert_ne!(TileId::parse_path(&changed), id, "{changed}");
            fuzz_tile_path(changed.as_bytes());
        }
    }
}

#[test]
fn a_tile_that_no_log_has_has_no_name() {
    assert_eq!(TileId::of(255, 0, 1), None);
    assert_eq!(TileId::of(256, 0, 1), None);
    assert_eq!(TileId::of(255, 1, 0), None);
    assert_eq!(TileId::of(u64::MAX, 8, 0), None);
    assert_eq!(TileId::of(u64::MAX, 0, u64::MAX), None);
    for (level, index, width) in [(0, 0, 0), (0, 0, 257), (8, 0, 1), (255, 0, 1), (7, 0, 256), (7, 1, 1), (6, 256, 1), (0, 1 << 56, 1)] {
        assert_eq!(TileId::new(level, index, width), None, "{level} {index} {width}");
    }
}

#[test]
fn the_largest_log_has_a_right_edge_on_every_level() {
    let all = changed_tiles(u64::MAX - 1, u64::MAX);
    assert_eq!(paths(all), ["tile/0/x072/x057/x594/x037/x927/935.p/255"]);
    assert_eq!(changed_tiles((1 << 56) - 1, 1 << 56).count(), 8);
    assert_eq!(changed_tiles(5, 4).count(), 0);
}

#[test]
fn a_row_that_is_damaged_is_named() {
    let table = Table::of(300);
    let id = TileId::of(300, 0, 1).expect("a tile");
    for wrong in [0, 31, 33, 43 * 32, 44 * 32 + 1, 257 * 32] {
        let mut read = |asked: TileId| {
            Ok::<_, Infallible>(if asked == id { vec![0; wrong] } else { table.0[&(asked.level(), asked.index())].clone() })
        };
        let error = Appender::open(300, &mut read).expect_err("not the length");
        assert_eq!(error, TileError::Length { tile: id, actual: wrong });
        assert_eq!(error.to_string(), format!("tile/0/001.p/44: 1408 bytes are needed and {wrong} were read"));
    }
    let mut fails = |_| Err("disk");
    assert_eq!(Appender::open(300, &mut fails).expect_err("disk").to_string(), "a tile could not be read: disk");
    assert!(Appender::open(0, &mut fails).is_ok(), "an empty log has nothing to read");
}

#[test]
fn an_appender_goes_on_without_being_opened_again() {
    let mut appender = Appender::open(0, &mut Table::default().reader()).expect("empty");
    let mut table = Table::default();
    let mut size = 0;
    for step in [0, 1, 254, 1, 1, 255, 70_000, 0, 300] {
        (size..size + step).for_each(|index| appender.append(leaf(index)));
        let changed = table.write(appender.take());
        assert_eq!(changed, changed_tiles(size, size + step).collect::<Vec<_>>(), "{size} and {step}");
        size += step;
    }
    assert_eq!(table.0, Table::of(size).0);
    assert!(appender.take().is_empty());
}

#[test]
fn an_older_size_is_read_from_grown_tiles() {
    let grown = Table::of(1000);
    let mut again = grown.clone();
    // As if a transaction after 700 had been lost and its rows had not.
    again.extend(700, 1000);
    assert_eq!(again.0, grown.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn replaying_what_changed_gives_the_tiles_of_the_log(steps in prop::collection::vec(prop_oneof![0..4_u64, 200..600_u64, 60_000..140_000_u64], 1..6)) {
        let (mut have, mut size) = (BTreeSet::new(), 0);
        for step in steps {
            for id in changed_tiles(size, size + step) {
                have.retain(|old: &TileId| (old.level(), old.index()) != (id.level(), id.index()));
                prop_assert!(have.insert(id));
            }
            size += step;
            prop_assert!(have.iter().copied().eq(tiles_of(size)));
            prop_assert!(tiles_of(size).all(|id| TileId::of(size, id.level(), id.index()) == Some(id)));
            prop_assert!(tiles_of(size).all(|id| TileId::parse_path(&id.path()) == Some(id)));
        }
    }

    #[test]
    fn any_steps_make_the_same_rows(steps in prop::collection::vec(prop_oneof![0..4_u64, 200..600_u64], 1..6)) {
        let (mut table, mut size) = (Table::default(), 0);
        for step in steps {
            let changed = table.extend(size, size + step);
            prop_assert!(changed.into_iter().eq(changed_tiles(size, size + step)));
            size += step;
        }
        prop_assert_eq!(table.0, Table::of(size).0);
    }

    #[test]
    fn any_bytes_are_a_path_in_one_way_or_none(text in "(tile/)?[0-9]{0,2}/(x[0-9]{3}/){0,7}[0-9]{3}(\\.p/[0-9]{0,3})?|\\PC*") {
        fuzz_tile_path(text.as_bytes());
    }
}
