use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use desist_proof::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use desist_proof::entry::{ENTRY_BYTES_MAX, Entry, EntryError};
use desist_proof::leaf_hash;
use desist_proof::note::{NoteError, Verifier};
use desist_proof::proof::{ProofError, inclusion, root};
use desist_proof::receipt::{
    FormatError, INCLUSION_HASHES_MAX, OpeningError, RECEIPT_BYTES_MAX, Receipt, ReceiptError, SALT_BYTES, Trust, Verified, commit,
    fuzz_receipt, verify,
};
use desist_proof::tile::Appender;
use proptest::prelude::*;
use serde_json::Value;

use crate::world::{ORIGIN, Table, leaf, log_key, mutations, witness_key};

const EVIDENCE: &[u8] = br#"{"kind":"opt_out","email":"ada@example.org"}"#;
/// Another number than a power of two, so that the paths are of different lengths.
const SIZE: u64 = 300;

fn opening() -> Vec<u8> {
    [&[7; SALT_BYTES][..], EVIDENCE].concat()
}

/// An entry with a commitment, like those of `docs/entry-format.md`.
fn entry_at(index: u64, evidence: Option<&[u8]>) -> String {
    let evidence = evidence.map_or(String::new(), |opening| format!(r#","evidence":"{}""#, URL_SAFE_NO_PAD.encode(commit(opening))));
    format!(r#"{{"v":1,"seq":{},"at":"2026-01-01T00:00:15Z","type":"opted_out","subject":2,"purposes":[0,16]{evidence}}}"#, index + 1)
}

/// A receipt for an entry in a log of `size`, cosigned by witnesses with these numbers.
fn receipt_at(entry: &str, index: u64, size: u64, opening: Option<Vec<u8>>, witnesses: &[u8]) -> Receipt {
    let mut table = Table::default();
    let mut appender = Appender::open(0, &mut table.reader()).expect("empty");
    (0..size).for_each(|at| appender.append(if at == index { leaf_hash(entry.as_bytes()) } else { leaf(at) }));
    table.write(appender.take());
    let checkpoint = Checkpoint::new(ORIGIN, size, root(size, &mut table.reader()).expect("tiles")).expect("an origin");
    let mut signed = SignedCheckpoint::sign(checkpoint, &log_key()).expect("the log's key");
    for number in witnesses {
        let key = witness_key(*number);
        let line = key.sign(&signed.unverified().to_string(), 1_700_000_000).expect("text").to_string();
        signed.add(&line, key.verifier()).expect("good");
    }
    let inclusion = inclusion(size, index, &mut table.reader()).expect("tiles");
    Receipt { entry: entry.to_owned(), opening, index, inclusion, checkpoint: signed.to_string() }
}

fn receipt(witnesses: &[u8]) -> Receipt {
    receipt_at(&entry_at(257, Some(&opening())), 257, SIZE, Some(opening()), witnesses)
}

fn check(receipt: &Receipt) -> Result<Verified, ReceiptError> {
    let witnesses: Vec<Verifier> = [1, 2].map(|number| witness_key(number).verifier().clone()).to_vec();
    verify(receipt.to_json().as_bytes(), log_key().verifier(), &witnesses)
}

#[test]
fn a_receipt_says_what_was_recorded_and_who_vouches() {
    let verified = check(&receipt(&[])).expect("good");
    assert_eq!((verified.entry.seq, verified.entry.at.as_str(), verified.entry.kind.as_str()), (258, "2026-01-01T00:00:15Z", "opted_out"));
    assert_eq!(verified.evidence.as_deref(), Some(EVIDENCE));
    assert_eq!((verified.checkpoint.checkpoint().origin(), verified.checkpoint.checkpoint().size()), (ORIGIN, SIZE));
    assert_eq!(verified.trust(), Trust::SelfAttested);
    let by = |number| (format!("witness.example/{number}"), 1_700_000_000);
    assert_eq!(check(&receipt(&[2])).expect("good").trust(), Trust::Witnessed { by: vec![by(2)] });
    assert_eq!(check(&receipt(&[1, 2, 3])).expect("good").trust(), Trust::Witnessed { by: vec![by(1), by(2)] });
    // A witness that the verifier does not know vouches for nothing.
    assert_eq!(check(&receipt(&[3])).expect("good").trust(), Trust::SelfAttested);
}

#[test]
fn every_place_of_a_log_has_a_receipt() {
    for size in [1, 2, 3, 255, 256, 257, 300] {
        for index in BTreeSet::from([0, size / 2, size - 1]) {
            let receipt = receipt_at(&entry_at(index, None), index, size, None, &[1]);
            let verified = check(&receipt).expect("good");
            assert_eq!((verified.entry.seq, verified.evidence), (index + 1, None), "{index} of {size}");
        }
    }
}

#[test]
fn the_first_broken_link_is_named() {
    let good = receipt(&[1]);
    let with = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        check(&receipt).expect_err("broken")
    };
    let other = witness_key(1).verifier().to_string();
    let cases: Vec<(&str, ReceiptError, ReceiptError)> = vec![
        ("inclusion", with(&|receipt| receipt.entry.push(' ')), ReceiptError::Inclusion(ProofError::Root)),
        ("entry", with(&|receipt| receipt.entry = other.clone()), ReceiptError::Entry(EntryError::Json)),
        ("entry", with(&|receipt| receipt.index = 256), ReceiptError::Entry(EntryError::Place)),
        ("entry", with(&|receipt| receipt.entry = receipt.entry.replace("\"v\":1", "\"v\":2")), ReceiptError::Entry(EntryError::Version)),
        ("opening", with(&|receipt| receipt.opening = None), ReceiptError::Opening(OpeningError::Missing)),
        ("opening", with(&|receipt| receipt.opening = Some(Vec::new())), ReceiptError::Opening(OpeningError::Differs)),
        ("opening", with(&|receipt| receipt.opening.as_mut().expect("evidence")[0] ^= 1), ReceiptError::Opening(OpeningError::Differs)),
        ("opening", with(&|receipt| receipt.opening.as_mut().expect("evidence")[40] ^= 1), ReceiptError::Opening(OpeningError::Differs)),
        (
            "checkpoint signature",
            with(&|receipt| receipt.checkpoint = receipt.checkpoint.replace("\n300\n", "\n301\n")),
            ReceiptError::Checkpoint(CheckpointError::Note(NoteError::WrongSignature)),
        ),
        (
            "checkpoint signature",
            with(&|receipt| receipt.checkpoint = receipt.checkpoint.replace(ORIGIN, "other.example")),
            ReceiptError::Checkpoint(CheckpointError::OtherLog),
        ),
        ("inclusion", with(&|receipt| receipt.inclusion[3][31] ^= 1), ReceiptError::Inclusion(ProofError::Root)),
        ("inclusion", with(&|receipt| receipt.inclusion.truncate(3)), ReceiptError::Inclusion(ProofError::Length)),
        (
            "inclusion",
            with(&|receipt| receipt.checkpoint = receipt_at("{}", 0, 257, None, &[]).checkpoint),
            ReceiptError::Inclusion(ProofError::Index),
        ),
    ];
    for (link, found, expected) in cases {
        assert_eq!(found, expected);
        assert_eq!(found.link(), link);
        assert!(found.to_string().starts_with(&format!("{}: ", found.link())));
    }
    // Two broken links: the first one counts.
    assert_eq!(with(&|receipt| (receipt.opening, receipt.inclusion) = (None, Vec::new())).link(), "opening");
    let mut extra = receipt_at(&entry_at(0, None), 0, 2, None, &[]);
    extra.opening = Some(opening());
    assert_eq!(check(&extra), Err(ReceiptError::Opening(OpeningError::NothingToOpen)));
    let short = receipt_at(&entry_at(0, Some(b"short")), 0, 2, Some(b"short".to_vec()), &[]);
    assert_eq!(check(&short), Err(ReceiptError::Opening(OpeningError::TooShort)));
    let salt_alone = receipt_at(&entry_at(0, Some(&[1; SALT_BYTES])), 0, 2, Some(vec![1; SALT_BYTES]), &[]);
    assert_eq!(check(&salt_alone).expect("good").evidence.as_deref(), Some(&[][..]));
}

#[test]
fn a_receipt_of_another_form_is_refused() {
    let good = receipt(&[1]);
    let json: Value = serde_json::from_str(&good.to_json()).expect("JSON");
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut members = json.as_object().expect("an object").clone();
        change(&mut members);
        Receipt::parse(Value::Object(members).to_string().as_bytes()).err()
    };
    let put = |name: &'static str, value: Value| with(&move |members| drop(members.insert(name.to_owned(), value.clone())));
    assert_eq!(with(&|_| ()), None);
    assert_eq!(put("format", "desist-receipt/v2".into()), Some(FormatError::Version));
    let hash = json["inclusion"][0].clone();
    for (name, value) in [
        ("inclusion", serde_json::json!(["AAAA"])),
        ("inclusion", serde_json::json!([hash.as_str().expect("text").trim_end_matches('=')])),
        ("inclusion", serde_json::json!([hash.as_str().expect("text").replace('=', "\n=")])),
        ("inclusion", vec![hash.clone(); INCLUSION_HASHES_MAX + 1].into()),
        ("opening", Value::from("AAAA=")),
        ("opening", "AAB=".into()),
        ("opening", "AA A".into()),
        ("opening", "-_-_".into()),
    ] {
        assert_eq!(put(name, value), Some(FormatError::Member(name)));
    }
    assert_eq!(put("inclusion", vec![hash; INCLUSION_HASHES_MAX].into()), None);
    let wrong: Vec<(&str, Value)> = vec![
        ("opening", Value::Null),
        ("opening", vec![Value::from(1)].into()),
        ("format", serde_json::json!({ "desist-receipt/v1": null })),
        ("entry", serde_json::json!({ "v": 1 })),
        ("index", (-1).into()),
        ("index", 1.5.into()),
        ("index", "257".into()),
        ("inclusion", "".into()),
        ("inclusion", vec![Value::Null].into()),
        ("checkpoint", Value::Null),
        ("more", 1.into()),
    ];
    for (name, value) in wrong {
        assert!(matches!(put(name, value.clone()), Some(FormatError::Json { .. })), "{name}: {value}");
    }
    for name in ["format", "entry", "index", "inclusion", "checkpoint"] {
        assert!(matches!(with(&|members| drop(members.remove(name))), Some(FormatError::Json { .. })), "{name}");
    }
    let text = good.to_json();
    let twice = |member: &str| format!("{{{member},{}", &text[1..]);
    let array = Value::Array(["format", "entry", "opening", "index", "inclusion", "checkpoint"].map(|name| json[name].clone()).to_vec())
        .to_string();
    for wrong in [
        &twice("\"index\":257"),
        &twice("\"opening\":\"AAAA\""),
        &array,
        &text.repeat(2),
        "",
        "null",
        "{",
        "{}",
        &text.replace("257", "257.0"),
    ] {
        let error = Receipt::parse(wrong.as_bytes()).expect_err("another form");
        assert!(matches!(error, FormatError::Json { .. }), "{wrong}");
        assert!(!error.to_string().contains("ada@example.org"));
    }
    // White space and the order of members are free.
    let pretty = serde_json::to_string_pretty(&json).expect("JSON");
    assert_eq!(Receipt::parse(format!("\n {pretty}\n").as_bytes()), Ok(good));
    let long = |bytes: usize| format!("{text}{}", " ".repeat(bytes - text.len()));
    assert!(Receipt::parse(long(RECEIPT_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(Receipt::parse(long(RECEIPT_BYTES_MAX + 1).as_bytes()), Err(FormatError::TooLong));
}

#[test]
fn an_entry_says_one_thing_to_every_reader() {
    let digest = URL_SAFE_NO_PAD.encode([4; 32]);
    let good = format!(r#"{{"v":1,"seq":8,"at":"2026-01-01T00:00:15Z","type":"a_1","evidence":"{digest}","x":[[1,"a"],{{"y":null}}]}}"#);
    let parsed = Entry::parse(good.as_bytes(), 7).expect("an entry");
    assert_eq!((parsed.seq, parsed.kind.as_str(), parsed.evidence), (8, "a_1", Some([4; 32])));
    let cases = [
        (good.clone(), 8, EntryError::Place),
        (good.replace("\"seq\":8", "\"seq\":0"), u64::MAX, EntryError::Place),
        (good.replace("\"seq\":8", "\"seq\":8.0"), 7, EntryError::Json),
        (good.replace("\"y\":null", "\"y\":1.5"), 7, EntryError::Json),
        (good.replace("\"seq\":8,", ""), 7, EntryError::Member("seq")),
        (good.replace("\"v\":1", "\"v\":\"1\""), 7, EntryError::Version),
        (good.replace("00:00:15Z", "00:00:15+00:00"), 7, EntryError::Member("at")),
        (good.replace("00:00:15Z", "00:00:15z"), 7, EntryError::Member("at")),
        (good.replace("a_1", ""), 7, EntryError::Member("type")),
        (good.replace("a_1", "\\u001b[31m"), 7, EntryError::Member("type")),
        (good.replace(&digest, &digest[1..]), 7, EntryError::Member("evidence")),
        (good.replace(&digest, &format!("{digest}=")), 7, EntryError::Member("evidence")),
        (good.replace(&digest, &format!("{}R", &digest[..42])), 7, EntryError::Member("evidence")),
        (good.replace(&format!("\"{digest}\""), "null"), 7, EntryError::Member("evidence")),
        (good.replace("\"v\":1", "\"v\":1,\"v\":1"), 7, EntryError::Json),
        (good.replace("\"y\":null", "\"y\":1,\"\\u0079\":2"), 7, EntryError::Json),
        (format!("{good}{good}"), 7, EntryError::Json),
        (format!("[{good}]"), 7, EntryError::Json),
        ("[".repeat(10_000), 7, EntryError::Json),
        (format!("{good}{}", " ".repeat(ENTRY_BYTES_MAX)), 7, EntryError::TooLong),
    ];
    for (entry, index, error) in cases {
        assert_eq!(Entry::parse(entry.as_bytes(), index), Err(error), "{entry}");
        assert!(!error.to_string().is_empty());
    }
    assert!(Entry::parse(b"{\"v\":1,\"seq\":8,\"\xff\":1}", 7).is_err());
    // The longest list that the core writes fits many times.
    let golden = include_str!("../../../desist-core/golden/entries.ndjson");
    assert!(golden.lines().all(|line| line.len() < ENTRY_BYTES_MAX / 10));
}

#[test]
fn every_entry_that_desist_writes_is_read() {
    for line in include_str!("../../../desist-core/golden/entries.ndjson").lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let seq = entry["seq"].as_u64().expect("a number");
        let parsed = Entry::parse(line.as_bytes(), seq - 1).expect(line);
        assert_eq!(
            (parsed.seq, parsed.at.as_str(), parsed.kind.as_str()),
            (seq, entry["at"].as_str().expect("text"), entry["type"].as_str().expect("text"))
        );
        assert_eq!(parsed.evidence.is_some(), entry.get("evidence").is_some());
    }
}

#[test]
fn one_changed_character_is_never_good() {
    let good = receipt_at(&entry_at(2, Some(&opening())), 2, 5, Some(opening()), &[1]);
    let (json, full) = (good.to_json(), check(&good).expect("good"));
    let witnesses = [witness_key(1).verifier().clone()];
    let mut passed = 0;
    for changed in mutations(&json) {
        if Receipt::parse(changed.as_bytes()).as_ref() == Ok(&good) {
            // White space between members.
            continue;
        }
        if let Ok(verified) = verify(changed.as_bytes(), log_key().verifier(), &witnesses) {
            // A change can make the witness unknown, and nothing else.
            assert_eq!(
                (&verified.entry, &verified.evidence, verified.trust()),
                (&full.entry, &full.evidence, Trust::SelfAttested),
                "{changed}"
            );
            assert_eq!(verified.checkpoint.checkpoint(), full.checkpoint.checkpoint());
            passed += 1;
        }
    }
    assert!(passed > 0, "the name of the witness is somewhere");
}

#[test]
fn nothing_shows_the_evidence() {
    let (receipt, evidence) = (receipt(&[]), "ada@example.org");
    let verified = check(&receipt).expect("good");
    assert!(String::from_utf8_lossy(verified.evidence.as_deref().expect("evidence")).contains(evidence));
    let shown = format!("{receipt:?} {verified:?}");
    assert!(!shown.contains(evidence) && !shown.contains(&format!("{EVIDENCE:?}")) && !shown.contains(&STANDARD.encode(opening())));
}

#[test]
fn the_page_has_the_members_of_a_receipt_and_a_good_example() {
    let page = include_str!("../../../../docs/receipt.md");
    let blocks: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    let [example, schema] = blocks[..] else { panic!("an example and a schema") };
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let written: Value = serde_json::from_str(&receipt(&[1]).to_json()).expect("JSON");
    assert_eq!(names(&schema["properties"]), names(&written));
    let written: Value = serde_json::from_str(&receipt_at(&entry_at(0, None), 0, 1, None, &[]).to_json()).expect("JSON");
    let required: BTreeSet<_> =
        schema["required"].as_array().expect("a list").iter().map(|name| name.as_str().expect("text").to_owned()).collect();
    assert_eq!(required, names(&written));
    assert_eq!(schema["additionalProperties"], Value::Bool(false));
    assert_eq!(schema["properties"]["format"]["const"], written["format"]);
    assert_eq!(schema["properties"]["inclusion"]["maxItems"], INCLUSION_HASHES_MAX);
    assert!(page.contains(&RECEIPT_BYTES_MAX.to_string()) && page.contains(&ENTRY_BYTES_MAX.to_string()));
    // The example is whole: the keys beside it open it.
    let key = |seed: &str| page.split('`').find(|span| span.starts_with(seed)).expect("a key").parse::<Verifier>().expect("a key");
    let (log, witness) = (key("log.example/desist+"), key("witness.example/1+"));
    let parsed = Receipt::parse(example.as_bytes()).expect("a receipt");
    assert_eq!(parsed, receipt_at(&entry_at(2, Some(&opening())), 2, 5, Some(opening()), &[1]), "{}", parsed.to_json());
    let verified = verify(example.as_bytes(), &log, &[witness]).expect("good");
    assert_eq!(verified.trust(), Trust::Witnessed { by: vec![("witness.example/1".to_owned(), 1_700_000_000)] });
}

proptest! {
    #[test]
    fn damaged_receipts_never_panic(at in any::<prop::sample::Index>(), new in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = receipt_at(&entry_at(2, Some(&opening())), 2, 5, Some(opening()), &[]).to_json().into_bytes();
        let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
        bytes[at] = new;
        fuzz_receipt(&bytes);
        fuzz_receipt(&bytes[..cut]);
    }

    #[test]
    fn any_bytes_are_a_receipt_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_receipt(&bytes);
    }
}
