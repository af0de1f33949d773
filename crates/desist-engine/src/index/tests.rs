use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use desist_core::purpose::PurposeSet;
use proptest::prelude::*;

use super::*;

fn verdict(number: u64) -> Verdict {
    Verdict { denied: PurposeSet(number), linked: PurposeSet(number << 7), opted_in: PurposeSet(0) }
}

/// A key that looks like cipher output, and always the same for a number.
fn key(number: u64) -> LookupKey {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let a = mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let b = mix(a ^ number);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes());
    LookupKey(bytes)
}

fn contents(index: &DecisionIndex) -> Vec<([u8; 14], Verdict)> {
    index.iter().collect()
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("index")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_like_a_map(
        limit in 1_usize..40,
        steps in prop::collection::vec((0_u64..300, 0_u64..60), 1..2000),
    ) {
        let index = DecisionIndex::with_limit(0, limit);
        let mut model = HashMap::new();
        for (number, value) in steps {
            index.set(&key(number), verdict(value));
            if value == 0 { model.remove(&number) } else { model.insert(number, verdict(value)) };
            prop_assert_eq!(index.get(&key(number)), verdict(value));
            prop_assert_eq!(index.len(), model.len());
        }
        for number in 0..300 {
            let expected = model.get(&number).copied().unwrap_or_default();
            prop_assert_eq!(index.get(&key(number)), expected);
        }
        let sorted: BTreeMap<_, _> = model.iter().map(|(n, v)| (Key::new(&key(*n)).to_bytes(), *v)).collect();
        prop_assert_eq!(contents(&index), sorted.into_iter().collect::<Vec<_>>());
        let overflown = index.read().overflow.len();
        prop_assert!(overflown <= index.len());

        let place = Place::new();
        index.write_snapshot(&place.file(), 7, &[9; 32]).unwrap();
        for limit in [limit, MAX_VERDICTS] {
            let (loaded, snapshot) =
                DecisionIndex::load_with_limit(&place.file(), limit).unwrap().unwrap();
            prop_assert_eq!(snapshot, Snapshot { upto: 7, root: [9; 32] });
            prop_assert_eq!(loaded.len(), index.len());
            prop_assert_eq!(contents(&loaded), contents(&index));
            // It goes on as an index.
            loaded.set(&key(1000), verdict(1000));
            prop_assert_eq!(loaded.get(&key(1000)), verdict(1000));
            loaded.set(&key(1000), Verdict::default());
            prop_assert_eq!(loaded.len(), index.len());
        }
    }

    #[test]
    fn shards_divide_the_keys_in_order(shards in 1_usize..5000, a: u64, b: u64) {
        let route = Route::new(shards);
        let shard = |high| route.shard(Key { high, low: 0 });
        prop_assert!(shard(a.max(b)) < shards);
        prop_assert!(shard(a.min(b)) <= shard(a.max(b)));
        prop_assert_eq!(shard(0), 0);
        prop_assert_eq!(shard(u64::MAX), shards - 1);
    }
}

#[test]
fn every_verdict_beyond_the_numbers_is_kept() {
    let index = DecisionIndex::with_expected(0);
    let many = MAX_VERDICTS as u64 + 500;
    for number in 1..=many {
        index.set(&key(number), verdict(number));
    }
    assert_eq!(index.read().overflow.len(), 500);
    let place = Place::new();
    index.write_snapshot(&place.file(), 0, &[0; 32]).unwrap();
    let (loaded, _) = DecisionIndex::load_snapshot(&place.file()).unwrap().unwrap();
    for number in 1..=many {
        assert_eq!(index.get(&key(number)), verdict(number));
        assert_eq!(loaded.get(&key(number)), verdict(number));
    }
    // Verdicts that went out of use make room at the next start.
    for number in 1..=1000 {
        index.set(&key(number), Verdict::default());
    }
    index.write_snapshot(&place.file(), 0, &[0; 32]).unwrap();
    let (loaded, _) = DecisionIndex::load_snapshot(&place.file()).unwrap().unwrap();
    assert_eq!(loaded.read().overflow.len(), 0);
    assert_eq!(contents(&loaded), contents(&index));
}

#[test]
fn readers_see_old_or_new_while_one_writes() {
    const KEYS: u64 = 20_000;
    let index = DecisionIndex::with_limit(0, 50);
    let stop = AtomicBool::new(false);
    let place = Place::new();
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (index, stop) = (&index, &stop);
            scope.spawn(move || {
                let mut number = reader;
                while !stop.load(Ordering::Relaxed) {
                    number = (number + 1) % KEYS;
                    let found = index.get(&key(number)).denied.0;
                    // Each key only ever has verdicts congruent to its number.
                    assert!(found == 0 || found % 100 == number % 100, "{number}: {found}");
                }
            });
        }
        for round in 1..=6 {
            for number in 0..KEYS {
                let value = if (number + round).is_multiple_of(5) { 0 } else { round * 100 + number % 100 };
                index.set(&key(number), verdict(value));
                assert_eq!(index.get(&key(number)), verdict(value));
            }
            if round == 3 {
                let (index, path) = (&index, place.file());
                scope.spawn(move || index.write_snapshot(&path, 0, &[0; 32]).unwrap());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mixed = DecisionIndex::load_snapshot(&place.file()).unwrap().unwrap().0;
    assert!(!mixed.is_empty());
    for number in 0..KEYS {
        let found = mixed.get(&key(number)).denied.0;
        assert!(found == 0 || found % 100 == number % 100);
    }
}

#[test]
fn a_damaged_snapshot_is_an_error() {
    let index = DecisionIndex::with_limit(0, 5);
    for number in 1..=40 {
        index.set(&key(number), verdict(number % 8 + 1));
    }
    assert!(!index.read().overflow.is_empty());
    let place = Place::new();
    let path = place.file();
    index.write_snapshot(&path, 3, &[4; 32]).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        DecisionIndex::load_snapshot(&path).unwrap_err()
    };
    for at in 0..good.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= change;
            let error = refused(&bad);
            assert_eq!(matches!(error, SnapshotError::Version { .. }), (8..12).contains(&at), "{at}");
        }
        refused(&good[..at]);
    }
    refused(&[&good[..], &[0]].concat());
    refused(&[]);
    std::fs::write(&path, &good).unwrap();
    assert_eq!(contents(&DecisionIndex::load_snapshot(&path).unwrap().unwrap().0), contents(&index));
    std::fs::remove_file(&path).unwrap();
    assert!(DecisionIndex::load_snapshot(&path).unwrap().is_none());
}

/// A file whose digest is right and whose content is not: the checks do not lean on the digest.
#[test]
fn a_forged_snapshot_is_an_error() {
    use sha2::{Digest, Sha256};
    let index = DecisionIndex::with_limit(0, 1);
    for number in 1..=4 {
        index.set(&key(number), verdict(number.div_ceil(2)));
    }
    let place = Place::new();
    let path = place.file();
    index.write_snapshot(&path, 3, &[4; 32]).unwrap();
    let good = std::fs::read(&path).unwrap();
    let load = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good[..good.len() - 32].to_vec();
        change(&mut bytes);
        let digest = Sha256::new().chain_update(&bytes[72..]).chain_update(&bytes[..72]).finalize();
        bytes.extend_from_slice(&digest);
        std::fs::write(&path, bytes).unwrap();
        DecisionIndex::load_snapshot(&path).map(|found| found.unwrap().0.len())
    };
    let entries = 72 + 24;
    let overflown = entries + 4 * 16;
    assert_eq!(load(&|_| {}).unwrap(), 4);
    let message = |change: &dyn Fn(&mut Vec<u8>)| load(change).unwrap_err().to_string();
    assert!(message(&|b| b[entries..overflown].rotate_left(16)).contains("out of order"));
    assert!(message(&|b| b.copy_within(entries..entries + 16, entries + 16)).contains("out of order"));
    assert!(message(&|b| b[72..96].fill(0)).contains("empty verdict"));
    assert!(message(&|b| b[overflown..].rotate_left(38)).contains("without an entry"));
    assert!(message(&|b| b[overflown] ^= 1).contains("without an entry"));
    let first = |b: &mut Vec<u8>| b[entries + 14..entries + 16].copy_from_slice(&[0, 1]);
    assert!(message(&|b| first(b)).contains("without a verdict"));
    let no_key = |b: &mut Vec<u8>| (0..4).for_each(|i| b[entries + 16 * i + 14..][..2].fill(0));
    assert!(message(&|b| no_key(b)).contains("missing"));
    let huge = |b: &mut Vec<u8>| b[16..24].fill(0xff);
    assert!(message(&|b| huge(b)).contains("counts"));
}

#[test]
fn memory_stays_within_32_bytes_an_identifier() {
    assert!(DecisionIndex::with_expected(0).memory_bytes() < 16 << 10);
    // An index made for nothing that grows, and one from a file, at sizes between the doublings.
    let index = DecisionIndex::with_expected(0);
    let place = Place::new();
    for number in 0..3_000_000_u64 {
        index.set(&key(number), verdict(number % 50 + 1));
        let len = index.len();
        if len >= 1_000_000 && len.is_multiple_of(50_000) {
            let bytes = index.memory_bytes();
            assert!(bytes <= 32 * len, "{len} identifiers take {bytes} bytes");
        }
        if [1_000_000, 3_000_000].contains(&len) {
            index.write_snapshot(&place.file(), 0, &[0; 32]).unwrap();
            let (loaded, _) = DecisionIndex::load_snapshot(&place.file()).unwrap().unwrap();
            assert!(loaded.memory_bytes() <= 32 * len);
            assert!((0..=number).step_by(7).all(|n| loaded.get(&key(n)) == verdict(n % 50 + 1)));
        }
    }
}

#[test]
fn memory_of_the_removed_is_used_again() {
    let index = DecisionIndex::with_expected(0);
    let mut most = 0;
    for number in 0..400_000_u64 {
        index.set(&key(number), verdict(1));
        if number >= 10_000 {
            index.set(&key(number - 10_000), Verdict::default());
        }
        most = most.max(index.memory_bytes());
    }
    assert_eq!(index.len(), 10_000);
    assert!(most < 100 * 10_000, "{most}");
}
