use std::convert::Infallible;

use desist_proof::Frontier;
use desist_proof::proof::{ProofError, consistency, empty_root, inclusion, root, verify_consistency, verify_inclusion};
use desist_proof::tile::{TileError, TileId};
use proptest::prelude::*;

use crate::world::{Definition, Table, leaf};

#[test]
fn proofs_from_tiles_are_those_of_the_definition() {
    let (mut definition, mut table) = (Definition::default(), Table::default());
    for size in 0..=600 {
        // Rows hold the newest tiles; the proofs of every older size come from them too.
        if size > 0 {
            table.extend(size - 1, size);
        }
        let to_root = definition.root(0, size);
        assert_eq!(root(size, &mut table.reader()), Ok(to_root), "{size}");
        // All places around the joints of tiles, and a spread of others.
        for index in (0..size).filter(|index| size < 40 || index % 73 == 0 || index % 256 < 2 || index % 256 > 253 || index + 2 > size) {
            let proof = inclusion(size, index, &mut table.reader()).expect("all tiles are there");
            assert_eq!(proof, definition.path(index, 0, size), "{index} of {size}");
            assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &to_root), Ok(()));
            let (from, from_root) = (index, definition.root(0, index));
            let proof = consistency(from, size, &mut table.reader()).expect("all tiles are there");
            assert_eq!(proof, if from == 0 { Vec::new() } else { definition.subproof(from, 0, size, true) }, "{from} to {size}");
            assert_eq!(verify_consistency(from, &from_root, size, &to_root, &proof), Ok(()));
        }
        assert_eq!(consistency(size, size, &mut table.reader()), Ok(Vec::new()));
        assert_eq!(verify_consistency(size, &to_root, size, &to_root, &[]), Ok(()));
    }
    let grown = Table::of(600);
    for size in 0..=600 {
        assert_eq!(root(size, &mut grown.reader()), Ok(definition.root(0, size)), "{size} from the tiles of 600");
    }
}

#[test]
fn large_logs_are_proved_too() {
    const SIZE: u64 = 200_000;
    let table = Table::of(SIZE);
    let mut definition = Definition::default();
    for size in [65_535, 65_536, 65_537, 131_072, 199_999, SIZE] {
        let to_root = definition.root(0, size);
        assert_eq!(root(size, &mut table.reader()), Ok(to_root));
        for index in [0, 1, 255, 256, 65_279, 65_280, 65_534, size / 2, size / 3, size - 2, size - 1] {
            let proof = inclusion(size, index, &mut table.reader()).expect("all tiles are there");
            assert_eq!(proof, definition.path(index, 0, size), "{index} of {size}");
            assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &to_root), Ok(()));
            let proof = consistency(index + 1, size, &mut table.reader()).expect("all tiles are there");
            assert_eq!(proof, definition.subproof(index + 1, 0, size, true));
            assert_eq!(verify_consistency(index + 1, &definition.root(0, index + 1), size, &to_root, &proof), Ok(()));
        }
    }
}

#[test]
fn each_tile_is_read_once_and_only_if_the_log_has_it() {
    let table = Table::of(70_000);
    let mut asked = Vec::new();
    let mut read = |id: TileId| {
        asked.push(id);
        table.reader()(id)
    };
    inclusion(70_000, 69_999, &mut read).expect("all tiles are there");
    let mut unique = asked.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), asked.len());
    assert!(asked.iter().all(|id| TileId::of(70_000, id.level(), id.index()) == Some(*id)));
    assert!(asked.len() <= 5, "{} tiles", asked.len());
}

#[test]
fn what_the_log_does_not_have_is_an_error() {
    let table = Table::of(10);
    assert_eq!(inclusion(10, 10, &mut table.reader()), Err(TileError::Range));
    assert_eq!(inclusion(0, 0, &mut table.reader()), Err(TileError::Range));
    assert_eq!(consistency(11, 10, &mut table.reader()), Err(TileError::Range));
    let mut short = |_| Ok::<_, Infallible>(vec![0; 32]);
    assert!(matches!(root(10, &mut short), Err(TileError::Length { actual: 32, .. })));
    assert_eq!(root(10, &mut |_| Err("disk")), Err(TileError::Read("disk")));
}

#[test]
fn the_checks_know_every_way_to_be_wrong() {
    let mut definition = Definition::default();
    let (five, seven, four, empty) = (definition.root(0, 5), definition.root(0, 7), definition.root(0, 4), empty_root());
    let path = definition.path(2, 0, 7);
    let check = |index, size, proof: &[_], root| verify_inclusion(&leaf(2), index, size, proof, root);
    assert_eq!(check(2, 7, &path, &seven), Ok(()));
    assert_eq!(check(7, 7, &path, &seven), Err(ProofError::Index));
    assert_eq!(check(0, 0, &[], &empty), Err(ProofError::Index));
    assert_eq!(check(3, 7, &path, &seven), Err(ProofError::Root));
    assert_eq!(check(2, 7, &path, &five), Err(ProofError::Root));
    assert_eq!(check(2, 7, &path[1..], &seven), Err(ProofError::Length));
    assert_eq!(check(2, 7, &[&path[..], &path[..1]].concat(), &seven), Err(ProofError::Length));
    assert_eq!(verify_inclusion(&leaf(0), 0, 1, &[], &leaf(0)), Ok(()));
    assert_eq!(verify_inclusion(&leaf(0), 0, 1, &path[..1], &leaf(0)), Err(ProofError::Length));

    let proof = definition.subproof(5, 0, 7, true);
    let check = |from, from_root, to, to_root, proof: &[_]| verify_consistency(from, from_root, to, to_root, proof);
    assert_eq!(check(5, &five, 7, &seven, &proof), Ok(()));
    assert_eq!(check(7, &seven, 5, &five, &proof), Err(ProofError::Order));
    assert_eq!(check(5, &five, 7, &seven, &[]), Err(ProofError::Length));
    assert_eq!(check(5, &five, 7, &seven, &proof[..proof.len() - 1]), Err(ProofError::Length));
    assert_eq!(check(5, &five, 7, &seven, &[&proof[..], &proof[..1]].concat()), Err(ProofError::Length));
    assert_eq!(check(5, &four, 7, &seven, &proof), Err(ProofError::OlderRoot));
    assert_eq!(check(5, &five, 7, &four, &proof), Err(ProofError::Root));
    assert_eq!(check(7, &seven, 7, &five, &[]), Err(ProofError::Forked));
    assert_eq!(check(7, &seven, 7, &seven, &proof), Err(ProofError::Length));
    assert_eq!(check(0, &empty, 7, &seven, &[]), Ok(()));
    assert_eq!(check(0, &empty, 7, &seven, &proof), Err(ProofError::Length));
    assert_eq!(check(0, &five, 7, &seven, &[]), Err(ProofError::OlderRoot));
    assert_eq!(check(0, &five, 0, &five, &[]), Err(ProofError::OlderRoot));
    assert_eq!(check(4, &four, 7, &seven, &definition.subproof(4, 0, 7, true)), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_proof_with_anything_changed_is_refused(size in 1..2000_u64, a in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..256_usize, kind in 0..5) {
        let (index, table) = (a.index(size as usize) as u64, Table::of(size));
        let (size_root, from) = (root(size, &mut table.reader()).expect("tiles"), index + 1);
        let from_root = root(from, &mut table.reader()).expect("tiles");
        for is_inclusion in [true, false] {
            let mut proof = if is_inclusion { inclusion(size, index, &mut table.reader()) } else { consistency(from, size, &mut table.reader()) }.expect("tiles");
            let (mut place, mut to_root) = (index, size_root);
            match kind {
                0 if !proof.is_empty() => { let at = at.index(proof.len()); proof[at][bit / 8] ^= 1 << (bit % 8); }
                1 if !proof.is_empty() => { proof.remove(at.index(proof.len())); }
                2 => proof.insert(at.index(proof.len() + 1), leaf(7)),
                3 => to_root[bit / 8] ^= 1 << (bit % 8),
                // Another place: some turn of the path is another one. (A size may be exchanged for one whose
                // path has the same turns; the checkpoint binds it to the root.)
                _ => place = (place + 1) % size,
            }
            if is_inclusion {
                let is_changed = place != index || to_root != size_root || proof != inclusion(size, index, &mut table.reader()).expect("tiles");
                prop_assert_eq!(verify_inclusion(&leaf(index), place, size, &proof, &to_root).is_ok(), !is_changed);
            } else {
                let is_changed = to_root != size_root || proof != consistency(from, size, &mut table.reader()).expect("tiles");
                prop_assert_eq!(verify_consistency(from, &from_root, size, &to_root, &proof).is_ok(), !is_changed);
            }
        }
    }

    #[test]
    fn any_steps_keep_every_proof(size in 1..3000_u64, a in any::<prop::sample::Index>()) {
        let (table, from) = (Table::of(size), a.index(size as usize) as u64);
        let mut frontier = Frontier::default();
        (0..from).for_each(|index| frontier.append(leaf(index)));
        let (size_root, from_root) = (root(size, &mut table.reader()).expect("tiles"), frontier.root());
        prop_assert_eq!(root(from, &mut table.reader()), Ok(from_root));
        let proof = consistency(from, size, &mut table.reader()).expect("tiles");
        prop_assert_eq!(verify_consistency(from, &from_root, size, &size_root, &proof), Ok(()));
        let proof = inclusion(size, from, &mut table.reader()).expect("tiles");
        prop_assert_eq!(verify_inclusion(&leaf(from), from, size, &proof, &size_root), Ok(()));
    }

    #[test]
    fn sizes_of_any_magnitude_end(from in any::<u64>(), to in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let hash = [7; 32];
        prop_assert!(verify_inclusion(&hash, from, to, &proof, &hash).is_err() || (from, to, proof.len()) == (0, 1, 0));
        prop_assert!(verify_consistency(from, &hash, to, &hash, &proof).is_err() || (from == to && proof.is_empty()));
    }
}
