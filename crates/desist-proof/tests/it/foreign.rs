//! Programs of others agree: `tlog_tiles` and `signed_note` (C2SP, written for Certificate Transparency)
//! and `ct-merkle` (RFC 6962).

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use desist_proof::checkpoint::Checkpoint;
use desist_proof::note::{Algorithm, Note, Signer};
use desist_proof::proof::{consistency, inclusion, root, verify_consistency, verify_inclusion};
use desist_proof::tile::{TileId, changed_tiles};
use desist_proof::{Hash, leaf_hash};
use proptest::prelude::*;
use sha2::Sha256;
use signed_note::{StandardSigner, StandardVerifier, Verifier as _, VerifierList};
use tlog_tiles::{HashReader, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree, tree_hash};

use crate::world::{Table, leaf, log_key, witness_key};

const SIZES: [u64; 7] = [0, 1, 2, 255, 256, 257, 65_537];

/// Our tiles, read by the other implementation, which checks each against the root.
struct Served<'a>(&'a Table);

impl TileReader for Served<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let of = |tile: &Tile| self.0.0[&(tile.level(), tile.level_index())][..tile.width() as usize * 32].to_vec();
        Ok(tiles.iter().map(of).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn theirs(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(|hash| tlog_tiles::Hash(*hash)).collect()
}

/// Roots, and the proofs about each leaf of `places` and the log up to it, are the same in all three.
fn all_agree(size: u64, places: &[u64]) {
    let table = Table::of(size);
    let our_root = root(size, &mut table.reader()).expect("tiles");
    let served = Served(&table);
    let reader = TileHashReader::new(size, tlog_tiles::Hash(our_root), &served);
    assert_eq!(tree_hash(size, &reader).expect("tiles").0, our_root, "root of {size}");
    let mut memory = MemoryBackedTree::<Sha256, [u8; 8]>::new();
    (0..size).for_each(|index| memory.push(index.to_be_bytes()));
    assert_eq!(memory.root().as_bytes()[..], our_root, "root of {size}");
    for at in places.iter().copied().filter(|at| *at < size) {
        let ours = inclusion(size, at, &mut table.reader()).expect("tiles");
        assert_eq!(theirs(&ours), prove_record(size, at, &reader).expect("tiles"), "{at} of {size}");
        assert_eq!(ours.as_flattened(), memory.prove_inclusion(at as usize).as_bytes(), "{at} of {size}");
        check_record(&theirs(&ours), size, tlog_tiles::Hash(our_root), at, tlog_tiles::Hash(leaf(at))).expect("good");
        assert_eq!(verify_inclusion(&leaf(at), at, size, &ours, &our_root), Ok(()));
        if at == 0 {
            continue;
        }
        let ours = consistency(at, size, &mut table.reader()).expect("tiles");
        let older = root(at, &mut table.reader()).expect("tiles");
        assert_eq!(theirs(&ours), prove_tree(size, at, &reader).expect("tiles"), "{at} to {size}");
        assert_eq!(ours.as_flattened(), memory.prove_consistency((size - at) as usize).as_bytes(), "{at} to {size}");
        check_tree(&theirs(&ours), size, tlog_tiles::Hash(our_root), at, tlog_tiles::Hash(older)).expect("good");
        assert_eq!(verify_consistency(at, &older, size, &our_root, &ours), Ok(()));
    }
}

#[test]
fn trees_and_proofs_are_those_of_others() {
    for size in SIZES {
        all_agree(size, &[0, 1, 254, 255, 256, size / 2, size.saturating_sub(1)]);
    }
}

#[test]
fn tiles_are_those_of_others() {
    let table = Table::of(65_537);
    let served = Served(&table);
    let root = root(65_537, &mut table.reader()).expect("tiles");
    let reader = TileHashReader::new(65_537, tlog_tiles::Hash(root), &served);
    for id in desist_proof::tile::tiles_of(65_537) {
        let tile = Tile::new(8, id.level(), id.index(), u32::from(id.width()), false);
        assert_eq!(tile.path(), id.path().replacen("tile/", "tile/8/", 1));
        assert_eq!(tile.read_data(&reader).expect("checked against the root"), table.0[&(id.level(), id.index())]);
    }
    let all: Vec<_> = (0..300).map(|index| tlog_tiles::stored_hash_index(0, index)).collect();
    let leaves: Vec<_> = reader.read_hashes(&all).expect("tiles").iter().map(|hash| hash.0).collect();
    assert!(leaves.into_iter().eq((0..300).map(leaf)));
    assert_eq!(tlog_tiles::record_hash(b"entry").0, leaf_hash(b"entry"));
}

#[test]
fn checkpoints_are_those_of_others() {
    for (size, hash) in [(0, desist_proof::proof::empty_root()), (1, leaf(1)), (u64::MAX, leaf(2))] {
        let ours = Checkpoint::new("log.example/desist", size, hash).expect("an origin").to_string();
        let other = tlog_tiles::Checkpoint::from_bytes(ours.as_bytes()).expect("a checkpoint");
        assert_eq!((other.origin(), other.size(), other.hash().0, other.extension()), ("log.example/desist", size, hash, ""));
        assert_eq!(other.to_bytes(), ours.as_bytes());
        let other = tlog_tiles::Checkpoint::new("an origin", 7, tlog_tiles::Hash(hash), "extension\nmore\n").expect("a checkpoint");
        let text = String::from_utf8(other.to_bytes()).expect("UTF-8");
        assert_eq!(Checkpoint::parse(&text).expect("a checkpoint").extensions(), ["extension", "more"]);
    }
}

#[test]
fn notes_and_keys_are_those_of_others() {
    let (ours, text) = (log_key(), "text\n\nof three lines\n");
    let other = StandardSigner::new(&ours.secret_text()).expect("a key");
    let verifier = StandardVerifier::new(&ours.verifier().to_string()).expect("a key");
    assert_eq!(verifier.key_id().to_be_bytes(), ours.verifier().key_id());
    let mut theirs = signed_note::Note::new(text.as_bytes(), &[]).expect("text");
    theirs.add_sigs(&[&other]).expect("a key");
    let mut note = Note::new(text).expect("text");
    note.push(ours.sign(text, 0).expect("text")).expect("the first");
    assert_eq!(theirs.to_bytes(), note.to_string().as_bytes());
    let (good, _) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).expect("good");
    assert_eq!(good.len(), 1);
    assert_eq!(note.verify(&[ours.verifier()]).map(|verified| verified.len()), Ok(1));
}

#[test]
fn a_cosignature_is_a_signature_of_the_message_in_the_source() {
    // No other implementation at hand knows the type 0x04, but its message is a text that they can check.
    let (witness, body) = (witness_key(1), "log.example/desist\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    let signature = witness.sign(body, 1_679_315_147).expect("text");
    let (time, bytes) = signature.bytes().split_at(8);
    assert_eq!(time, 1_679_315_147_u64.to_be_bytes());
    let plain = Signer::new(witness.verifier().name(), Algorithm::Ed25519, &[101; 32]).expect("a key");
    assert_eq!(plain.verifier().public_key(), witness.verifier().public_key());
    assert_ne!(plain.verifier().key_id(), witness.verifier().key_id());
    let verifier = StandardVerifier::new(&plain.verifier().to_string()).expect("a key");
    assert!(verifier.verify(format!("cosignature/v1\ntime 1679315147\n{body}").as_bytes(), bytes));
    assert!(!verifier.verify(body.as_bytes(), bytes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_logs_agree(size in 1..3000_u64, at in any::<prop::sample::Index>()) {
        all_agree(size, &[at.index(size as usize) as u64]);
    }

    #[test]
    fn what_changed_is_the_same_for_others(from in 0..300_000_u64, more in prop_oneof![0..300_u64, 0..300_000_u64]) {
        let theirs: Vec<_> = Tile::new_tiles(8, from, from + more).into_iter().map(|tile| TileId::new(tile.level(), tile.level_index(), tile.width() as u16)).collect();
        prop_assert!(changed_tiles(from, from + more).map(Some).eq(theirs));
    }

    #[test]
    fn paths_are_read_as_others_read_them(path in "tile/[0-7]/(x[0-9]{3}/){0,3}[0-9]{3}(\\.p/[1-9][0-9]{0,2})?") {
        let theirs = Tile::from_path(&path.replacen("tile/", "tile/8/", 1)).ok();
        let ours = TileId::parse_path(&path);
        // Only the places that no log has are refused here alone; they begin at level 3.
        if let Some(tile) = theirs.filter(|tile| tile.level() < 3) {
            prop_assert_eq!(ours.map(|id| (id.level(), id.index(), u32::from(id.width()))), Some((tile.level(), tile.level_index(), tile.width())));
        } else if theirs.is_none() {
            prop_assert_eq!(ours, None);
        }
    }
}
