use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_proof::note::{
    Algorithm, KeyError, NOTE_BYTES_MAX, Note, NoteError, SIGNATURES_MAX, Signature, Signer, TIME_S_MAX, Verifier, fuzz_note,
};
use proptest::prelude::*;

use crate::world::{log_key, mutations, witness_key};

/// C2SP signed-note, section "Example".
const C2SP_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const C2SP_NOTE: &str = "This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
";
/// The keys and the note in the documentation of the Go implementation.
const GO_SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
";
/// The checksum database of Go, once.
const SUM_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const SUM_NOTE: &str = "go.sum database tree
15067302
gJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI=

— sum.golang.org Az3grp1rvWOs5NKlr/xR4GLN/CDyzzakmt1o61uSxYKpK1SerqOP2ClbX/peKUZjYnyomH5Xz7GZG3TpB7OeKn4E2ww=
— test.example.com qTGhC/xIPQ0AXKHK6Y+9ypRfuvMZWPjRXM8NiOg5M1WREn07VQXyuIXM3NRNav3ieVFLUqDRK77PWDmL6w8w84UqeAw=
";

fn verify(note: &str, keys: &[&Verifier]) -> Result<usize, NoteError> {
    Ok(Note::parse(note)?.verify(keys)?.len())
}

#[test]
fn notes_of_others_are_good() {
    for (key, note) in [(C2SP_KEY, C2SP_NOTE), (GO_KEY, GO_NOTE), (SUM_KEY, SUM_NOTE)] {
        let verifier: Verifier = key.parse().expect("a key");
        assert_eq!(verifier.to_string(), key);
        assert_eq!(Note::parse(note).expect("a note").to_string(), note);
        assert_eq!(verify(note, &[&verifier]), Ok(1), "{key}");
        let forged = note.replacen(['i', '1'], "j", 1);
        assert_eq!(verify(&forged, &[&verifier]), Err(NoteError::WrongSignature), "{key}");
    }
    // A witness's key that others use; its id is over the type 0x04.
    let witness = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
    let verifier: Verifier = witness.parse().expect("a key");
    assert_eq!((verifier.to_string().as_str(), verifier.algorithm()), (witness, Algorithm::Cosignature));
}

#[test]
fn a_note_that_others_signed_comes_out_byte_for_byte() {
    let signer: Signer = GO_SECRET.parse().expect("a key");
    assert_eq!((signer.secret_text().as_str(), signer.verifier().to_string().as_str()), (GO_SECRET, GO_KEY));
    let mut note = Note::new(Note::parse(GO_NOTE).expect("a note").text()).expect("text");
    note.push(signer.sign(note.text(), 0).expect("text")).expect("the first");
    assert_eq!(note.to_string(), GO_NOTE);
    assert!(!format!("{signer:?}").contains("gQoUAtUUbI2E"), "the secret");
}

#[test]
fn a_text_may_have_empty_lines() {
    // C2SP signed-note, its first example.
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n";
    let line =
        "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = Note::parse(&format!("{text}\n{line}")).expect("a note");
    assert_eq!(note.text(), text);
    let [signature] = note.signatures() else { panic!("one signature") };
    assert_eq!(
        (signature.name(), signature.key_id(), signature.bytes().len()),
        ("quasimodo.example/salvatore", [0x36, 0x7b, 0xa0, 0x4b], 64)
    );
    for text in ["\n", "\n\n", "a\n\n\n"] {
        let note = format!("{text}\n{line}");
        assert_eq!(Note::parse(&note).map(|note| note.text().to_owned()).as_deref(), Ok(text));
    }
}

#[test]
fn what_is_not_a_note_is_refused() {
    let line = "— a AAAAAAA=\n";
    assert_eq!(Note::parse(&format!("text\n\n{line}")).map(|note| note.signatures().len()), Ok(1));
    let cases = [
        ("", NoteError::NoSignatures),
        ("text\n", NoteError::NoSignatures),
        ("text\n\n", NoteError::SignatureLine),
        ("\n\n— a AAAAAAA=", NoteError::SignatureLine),
        ("text\n— a AAAAAAA=\n", NoteError::NoSignatures),
        ("te\txt\n\n— a AAAAAAA=\n", NoteError::Text),
        ("text\r\n\n— a AAAAAAA=\n", NoteError::Text),
        ("te\0xt\n\n— a AAAAAAA=\n", NoteError::Text),
        ("text\n\n- a AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n–  a AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n—  AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a\u{a0}b AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a\tb AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a+b AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a b AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAA==\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAB=\n", NoteError::SignatureLine),
        ("text\n\n— a AAAA-_A=\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA= \n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA=\r\n", NoteError::SignatureLine),
        ("text\n\n— a \n", NoteError::SignatureLine),
        ("text\n\n— a\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA=\ntext\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA=\n\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA=\n— a AAAAAAA=\n", NoteError::Duplicate),
    ];
    for (note, error) in cases {
        assert_eq!(Note::parse(note), Err(error), "{note:?}");
        fuzz_note(note.as_bytes());
    }
}

#[test]
fn the_limits_are_reached_and_not_passed() {
    let lines = |count: usize| {
        (0..count).fold(String::from("text\n\n"), |mut note, number| {
            writeln!(note, "— a{number} AAAAAAA=").expect("a String takes all writes");
            note
        })
    };
    assert_eq!(Note::parse(&lines(SIGNATURES_MAX)).map(|note| note.signatures().len()), Ok(SIGNATURES_MAX));
    assert_eq!(Note::parse(&lines(SIGNATURES_MAX + 1)), Err(NoteError::TooManySignatures));
    let mut full = Note::parse(&lines(SIGNATURES_MAX)).expect("a note");
    assert_eq!(full.push(log_key().sign("text\n", 0).expect("text")), Err(NoteError::TooManySignatures));
    let long = |bytes: usize| {
        let line = "\n\n— a AAAAAAA=\n";
        format!("{}{line}", "x".repeat(bytes - line.len()))
    };
    assert!(Note::parse(&long(NOTE_BYTES_MAX)).is_ok());
    assert_eq!(Note::parse(&long(NOTE_BYTES_MAX + 1)), Err(NoteError::TooLong));
}

#[test]
fn unknown_signatures_are_kept_and_count_for_nothing() {
    let (log, witness, text) = (log_key(), witness_key(1), "text\n");
    let stranger = Signer::new("stranger.example", Algorithm::Ed25519, &[9; 32]).expect("a key");
    // The log's name over another key has another id.
    let namesake = Signer::new(log.verifier().name(), Algorithm::Ed25519, &[9; 32]).expect("a key");
    let mut note = Note::new(text).expect("text");
    for signature in [&stranger, &namesake, &log, &witness].map(|signer| signer.sign(text, 1_700_000_000).expect("text")) {
        note.push(signature).expect("another");
    }
    let note = Note::parse(&note.to_string()).expect("as written");
    assert_eq!(note.signatures().len(), 4);
    let verified = note.verify(&[log.verifier(), witness.verifier()]).expect("good");
    let by: Vec<_> = verified.iter().map(|one| (one.by.name(), one.time_s)).collect();
    assert_eq!(by, [("log.example/desist", None), ("witness.example/1", Some(1_700_000_000))]);
    assert_eq!(note.verify(&[witness_key(2).verifier()]), Err(NoteError::NoKnownKey));
    assert_eq!(note.verify(&[]), Err(NoteError::NoKnownKey));
    assert_eq!(note.verify(&[log.verifier(), log.verifier()]), Err(NoteError::AmbiguousKey));
}

#[test]
fn one_bad_signature_of_a_known_key_is_enough_to_refuse() {
    let (log, witness) = (log_key(), witness_key(1));
    let mut note = Note::new("text\n").expect("text");
    note.push(log.sign("text\n", 0).expect("text")).expect("the first");
    note.push(witness.sign("other\n", 5).expect("text")).expect("another");
    assert_eq!(note.verify(&[log.verifier()]).map(|verified| verified.len()), Ok(1));
    assert_eq!(note.verify(&[log.verifier(), witness.verifier()]), Err(NoteError::WrongSignature));
    // Two times by one witness.
    let mut note = Note::new("text\n").expect("text");
    for time_s in [5, 6] {
        note.push(witness.sign("text\n", time_s).expect("text")).expect("another");
    }
    assert_eq!(note.verify(&[witness.verifier()]), Err(NoteError::Duplicate));
}

#[test]
fn a_cosignature_states_a_time_and_only_one() {
    let witness = witness_key(1);
    for time_s in [0, TIME_S_MAX + 1, u64::MAX] {
        assert_eq!(witness.sign("text\n", time_s), Err(NoteError::Time));
    }
    assert_eq!(witness.sign("text", 1), Err(NoteError::Text));
    for time_s in [1, 1_700_000_000, TIME_S_MAX] {
        let mut note = Note::new("text\n").expect("text");
        note.push(witness.sign("text\n", time_s).expect("text")).expect("the first");
        assert_eq!(note.verify(&[witness.verifier()]).expect("good")[0].time_s, Some(time_s));
    }
    // The same bytes of a key sign the message of another time all the same, and it is not taken.
    let plain = Signer::new(witness.verifier().name(), Algorithm::Ed25519, &[101; 32]).expect("a key");
    for (time_s, expected) in [(1, Ok(1)), (0, Err(NoteError::WrongSignature)), (TIME_S_MAX + 1, Err(NoteError::WrongSignature))] {
        let signature = plain.sign(&format!("cosignature/v1\ntime {time_s}\ntext\n"), 0).expect("text");
        let bytes = [&witness.verifier().key_id()[..], &time_s.to_be_bytes(), signature.bytes()].concat();
        let note = format!("text\n\n— {} {}\n", witness.verifier().name(), STANDARD.encode(bytes));
        assert_eq!(verify(&note, &[witness.verifier()]), expected, "{time_s}");
    }
}

#[test]
fn one_changed_character_is_never_good() {
    let (log, witness, text) = (log_key(), witness_key(1), "text\nof two lines\n");
    let mut note = Note::new(text).expect("text");
    for signature in [&log, &witness].map(|signer| signer.sign(text, 1_700_000_000).expect("text")) {
        note.push(signature).expect("another");
    }
    let (text, keys) = (note.to_string(), [log.verifier(), witness.verifier()]);
    let full = note.verify(&keys).expect("good");
    for changed in mutations(&text) {
        // The change can make a known name or id unknown; then that signature is missing, and the rest
        // says what it said.
        if let Ok(parsed) = Note::parse(&changed)
            && let Ok(verified) = parsed.verify(&keys)
        {
            assert_eq!(parsed.text(), note.text());
            assert!(verified.len() < full.len() && verified.iter().all(|one| full.contains(one)), "{changed}");
        }
    }
}

#[test]
fn a_key_has_one_form() {
    for key in [C2SP_KEY.to_owned(), log_key().verifier().to_string(), witness_key(1).verifier().to_string()] {
        for changed in mutations(&key) {
            assert!(changed.parse::<Verifier>().is_err(), "{changed}");
        }
    }
    for changed in mutations(GO_SECRET) {
        assert!(changed.parse::<Signer>().is_err(), "{changed}");
    }
    let cases = [
        ("", KeyError::Form),
        ("a+b", KeyError::Form),
        ("+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Name),
        ("a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Name),
        ("example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/foo+530d903a+BukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Algorithm),
        ("example.com/foo+530d903a+Aeky", KeyError::Key),
        ("example.com/foo+530d903a+", KeyError::Form),
        // Points of small order: 0, and one whose last bytes are not below the prime.
        ("a+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", KeyError::Key),
        ("a+00000000+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", KeyError::Key),
        ("a+00000000+Ae3///////////////////////////////////////9/", KeyError::Key),
    ];
    for (key, error) in cases {
        assert_eq!(key.parse::<Verifier>(), Err(error), "{key}");
        assert!(!error.to_string().is_empty());
    }
    assert!(matches!(GO_KEY.parse::<Signer>(), Err(KeyError::Form)));
}

#[test]
fn the_lines_of_a_witness_are_read_alone() {
    // C2SP tlog-witness, section "add-checkpoint".
    let answer =
        "— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
";
    let signatures = Signature::parse_lines(answer).expect("three lines");
    assert_eq!(signatures.iter().map(ToString::to_string).collect::<String>(), answer);
    assert!(signatures.iter().all(|signature| signature.bytes().len() == 72));
    assert_eq!(Signature::parse_lines(""), Err(NoteError::SignatureLine));
}

proptest! {
    #[test]
    fn any_bytes_are_a_note_in_one_way_or_none(text in "[a\n—]{0,9}\n\n(— [a+ é]{1,3} [A-Da/=]{4,12}\n?){0,3}|\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_note(text.as_bytes());
        fuzz_note(&bytes);
    }

    #[test]
    fn damaged_notes_and_keys_never_panic(which in 0..4_usize, at in any::<prop::sample::Index>(), new in any::<u8>()) {
        let mut bytes = [C2SP_NOTE, C2SP_KEY, GO_SECRET, SUM_NOTE][which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = new;
        fuzz_note(&bytes);
    }
}
