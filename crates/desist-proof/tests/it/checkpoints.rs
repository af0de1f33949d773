use desist_proof::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, fuzz_checkpoint, open, verify_pair};
use desist_proof::note::{Algorithm, Note, NoteError, Signer, Verifier};
use desist_proof::proof::{ProofError, consistency, empty_root, root};
use proptest::prelude::*;

use crate::world::{ORIGIN, Table, leaf, log_key, mutations, witness_key};

/// C2SP tlog-cosignature, its first example.
const C2SP: &str = "example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
";

fn of_size(table: &Table, size: u64) -> Checkpoint {
    Checkpoint::new(ORIGIN, size, root(size, &mut table.reader()).expect("tiles")).expect("an origin")
}

/// Signed by the log and by witnesses with these numbers.
fn signed(checkpoint: Checkpoint, witnesses: &[u8]) -> SignedCheckpoint {
    let mut signed = SignedCheckpoint::sign(checkpoint, &log_key()).expect("the log's key");
    for number in witnesses {
        let key = witness_key(*number);
        let line = key.sign(&signed.unverified().to_string(), 1_700_000_000 + u64::from(*number)).expect("text").to_string();
        signed.add(&line, key.verifier()).expect("good");
    }
    signed
}

fn keys(numbers: &[u8]) -> Vec<Verifier> {
    numbers.iter().map(|number| witness_key(*number).verifier().clone()).collect()
}

#[test]
fn the_example_of_the_source_reads_back() {
    let signed = SignedCheckpoint::parse(C2SP).expect("a checkpoint");
    assert_eq!(signed.to_string(), C2SP);
    let checkpoint = signed.unverified();
    assert_eq!((checkpoint.origin(), checkpoint.size(), checkpoint.extensions().len()), ("example.com/behind-the-sofa", 20_852_163, 0));
    assert_eq!(checkpoint.root()[..4], [0x0a, 0xc5, 0x18, 0x6a]);
    let note = Note::parse(C2SP).expect("a note");
    assert_eq!(note.signatures()[1].bytes()[..8], 1_679_315_147_u64.to_be_bytes());
}

#[test]
fn a_checkpoint_has_one_form() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for text in [format!("o\n1\n{root}\n"), format!("an origin with spaces +\n18446744073709551615\n{root}\nextension\nmore\n")] {
        assert_eq!(Checkpoint::parse(&text).expect("a checkpoint").to_string(), text);
    }
    let cases = [
        (String::new(), CheckpointError::Note(NoteError::Text)),
        (format!("o\n1\n{root}"), CheckpointError::Note(NoteError::Text)),
        (format!("o\r\n1\n{root}\n"), CheckpointError::Note(NoteError::Text)),
        (format!("\n1\n{root}\n"), CheckpointError::Origin),
        ("o\n".to_owned(), CheckpointError::Size),
        (format!("o\n\n{root}\n"), CheckpointError::Size),
        (format!("o\n01\n{root}\n"), CheckpointError::Size),
        (format!("o\n00\n{root}\n"), CheckpointError::Size),
        (format!("o\n+1\n{root}\n"), CheckpointError::Size),
        (format!("o\n-1\n{root}\n"), CheckpointError::Size),
        (format!("o\n1 \n{root}\n"), CheckpointError::Size),
        (format!("o\n0x1\n{root}\n"), CheckpointError::Size),
        (format!("o\n1e3\n{root}\n"), CheckpointError::Size),
        (format!("o\n18446744073709551616\n{root}\n"), CheckpointError::Size),
        (format!("o\n٣\n{root}\n"), CheckpointError::Size),
        ("o\n1\n".to_owned(), CheckpointError::Root),
        (format!("o\n1\n{root} \n"), CheckpointError::Root),
        (format!("o\n1\n{}\n", root.trim_end_matches('=')), CheckpointError::Root),
        (format!("o\n1\n{}\n", root.replace("2I=", "2J=")), CheckpointError::Root),
        (format!("o\n1\n{}\n", root.replace('+', "-").replace('/', "_")), CheckpointError::Root),
        ("o\n1\nAAAA\n".to_owned(), CheckpointError::Root),
        // An empty log has the root of the empty tree.
        (format!("o\n0\n{root}\n"), CheckpointError::Root),
        (format!("o\n1\n{root}\n\n"), CheckpointError::Extension),
        (format!("o\n1\n{root}\nx\n\ny\n"), CheckpointError::Extension),
    ];
    for (text, error) in cases {
        assert_eq!(Checkpoint::parse(&text), Err(error), "{text:?}");
        assert!(!error.to_string().is_empty());
        fuzz_checkpoint(text.as_bytes());
    }
    assert!(Checkpoint::new("o", 0, empty_root()).is_ok());
    for origin in ["", "a\nb", "a\tb"] {
        assert!(Checkpoint::new(origin, 1, [0; 32]).is_err(), "{origin:?}");
    }
}

#[test]
fn who_signed_is_what_open_says() {
    let (table, log) = (Table::of(10), log_key());
    let text = signed(of_size(&table, 10), &[1, 2]).to_string();
    let by = |known: &[u8]| open(&text, log.verifier(), &keys(known)).map(|opened| opened.cosigned_by().to_vec());
    let (one, two) = (("witness.example/1".to_owned(), 1_700_000_001), ("witness.example/2".to_owned(), 1_700_000_002));
    assert_eq!(by(&[]), Ok(Vec::new()));
    assert_eq!(by(&[3]), Ok(Vec::new()));
    assert_eq!(by(&[1]), Ok(vec![one.clone()]));
    assert_eq!(by(&[3, 2, 1]), Ok(vec![one, two]));
    assert_eq!(open(&text, log.verifier(), &[]).expect("good").checkpoint(), &of_size(&table, 10));
}

#[test]
fn keys_are_for_one_use() {
    let (table, log) = (Table::of(10), log_key());
    let signed = signed(of_size(&table, 10), &[1]);
    let key = |name: &str, algorithm, seed: u8| Signer::new(name, algorithm, &[seed; 32]).expect("a key").verifier().clone();
    let witnesses = keys(&[1]);
    let cases = [
        // A witness in the place of the log, and the other way round.
        (key(ORIGIN, Algorithm::Cosignature, 1), witnesses.clone(), CheckpointError::LogKeyType),
        (log.verifier().clone(), vec![key("witness.example/1", Algorithm::Ed25519, 101)], CheckpointError::WitnessKeyType),
        // Another log's key.
        (key("other.example", Algorithm::Ed25519, 1), witnesses.clone(), CheckpointError::OtherLog),
        (key(ORIGIN, Algorithm::Ed25519, 2), witnesses.clone(), CheckpointError::Note(NoteError::NoKnownKey)),
        // One witness under two names, and the log as its own witness.
        (log.verifier().clone(), vec![witnesses[0].clone(), key("other.example", Algorithm::Cosignature, 101)], CheckpointError::SharedKey),
        (log.verifier().clone(), vec![witnesses[0].clone(), witnesses[0].clone()], CheckpointError::SharedKey),
        (log.verifier().clone(), vec![key("other.example", Algorithm::Cosignature, 1)], CheckpointError::SharedKey),
    ];
    for (log, witnesses, error) in cases {
        assert_eq!(signed.open(&log, &witnesses), Err(error));
        assert!(!error.to_string().is_empty());
    }
    // A witness alone is not the log.
    let body = of_size(&table, 10).to_string();
    let text = format!("{body}\n{}", witness_key(1).sign(&body, 5).expect("text"));
    assert_eq!(open(&text, log.verifier(), &witnesses), Err(CheckpointError::Note(NoteError::NoKnownKey)));
    // A log signs its own checkpoints alone, and with the right key.
    let other = Checkpoint::new("other.example", 1, leaf(0)).expect("an origin");
    assert_eq!(SignedCheckpoint::sign(other, &log), Err(CheckpointError::OtherLog));
    assert_eq!(SignedCheckpoint::sign(of_size(&table, 1), &witness_key(1)), Err(CheckpointError::LogKeyType));
    // Nor when the log has several keys, of which another one is good.
    let (second, twin) = (key(ORIGIN, Algorithm::Ed25519, 77), key("other.example", Algorithm::Cosignature, 77));
    let several = [second, log.verifier().clone()];
    assert!(signed.open(&several, &[]).is_ok());
    assert_eq!(signed.open(&several, &[twin]), Err(CheckpointError::SharedKey));
}

#[test]
fn an_answer_of_a_witness_is_taken_only_if_it_is_good() {
    let (table, log, witness) = (Table::of(10), log_key(), witness_key(1));
    let mut signed = signed(of_size(&table, 10), &[]);
    let (body, alone) = (signed.unverified().to_string(), signed.to_string());
    let line = |text: &str, time_s| witness.sign(text, time_s).expect("text").to_string();
    let stranger = witness_key(2).sign(&body, 5).expect("text").to_string();
    let bad = [
        (String::new(), NoteError::SignatureLine),
        ("nothing\n".to_owned(), NoteError::SignatureLine),
        (stranger.clone(), NoteError::NoKnownKey),
        (line("other\n", 5), NoteError::WrongSignature),
        (line(&body, 5) + &line(&body, 6), NoteError::Duplicate),
    ];
    for (lines, error) in bad {
        assert_eq!(signed.add(&lines, witness.verifier()), Err(CheckpointError::Note(error)));
        assert_eq!(signed.to_string(), alone);
    }
    assert_eq!(signed.add(&line(&body, 5), log.verifier()), Err(CheckpointError::WitnessKeyType));
    // Lines of strangers in an answer are left out, and a newer cosignature replaces the older one.
    signed.add(&(stranger + &line(&body, 5)), witness.verifier()).expect("good");
    assert_eq!(signed.to_string(), format!("{alone}{}", line(&body, 5)));
    signed.add(&line(&body, 6), witness.verifier()).expect("good");
    assert_eq!(signed.to_string(), format!("{alone}{}", line(&body, 6)));
}

#[test]
fn one_changed_character_is_never_good() {
    let (table, log, witnesses) = (Table::of(10), log_key(), keys(&[1]));
    let signed = signed(of_size(&table, 10), &[1]);
    let full = signed.open(log.verifier(), &witnesses).expect("good");
    for changed in mutations(&signed.to_string()) {
        // What may be lost is the witness, if the change made its name or id unknown.
        if let Ok(opened) = open(&changed, log.verifier(), &witnesses) {
            assert_eq!((opened.checkpoint(), opened.cosigned_by().len()), (full.checkpoint(), 0), "{changed}");
        }
    }
}

#[test]
fn two_histories_are_found() {
    let (table, log) = (Table::of(300), log_key());
    let opened = |checkpoint: Checkpoint| signed(checkpoint, &[]).open(log.verifier(), &[]).expect("good");
    let (older, newer) = (opened(of_size(&table, 200)), opened(of_size(&table, 300)));
    let proof = consistency(200, 300, &mut table.reader()).expect("tiles");
    assert_eq!(verify_pair(&older, &newer, &proof), Ok(()));
    assert_eq!(verify_pair(&older, &older, &[]), Ok(()));
    let pair = |older, newer, proof: &[_]| verify_pair(older, newer, proof);
    assert_eq!(pair(&newer, &older, &proof), Err(CheckpointError::Consistency(ProofError::Order)));
    assert_eq!(pair(&older, &newer, &proof[1..]), Err(CheckpointError::Consistency(ProofError::Length)));
    let forked = opened(Checkpoint::new(ORIGIN, 200, leaf(1)).expect("an origin"));
    assert_eq!(pair(&forked, &older, &[]), Err(CheckpointError::Consistency(ProofError::Forked)));
    assert_eq!(pair(&forked, &newer, &proof), Err(CheckpointError::Consistency(ProofError::OlderRoot)));
    let key = Signer::new("other.example", Algorithm::Ed25519, &[3; 32]).expect("a key");
    let other = Checkpoint::new("other.example", 300, *newer.checkpoint().root()).expect("an origin");
    let other = SignedCheckpoint::sign(other, &key).and_then(|signed| signed.open(key.verifier(), &[])).expect("good");
    assert_eq!(pair(&older, &other, &proof), Err(CheckpointError::OtherLog));
}

proptest! {
    #[test]
    fn any_bytes_are_a_checkpoint_in_one_way_or_none(text in "[a\n]{0,3}\n[0-9]{0,21}\n[A-Da/=]{42,44}\n([a\n]{0,3}\n)?|\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_checkpoint(text.as_bytes());
        fuzz_checkpoint(&bytes);
    }

    #[test]
    fn damaged_checkpoints_never_panic(at in any::<prop::sample::Index>(), new in any::<u8>()) {
        let mut bytes = C2SP.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = new;
        fuzz_checkpoint(&bytes);
    }
}
