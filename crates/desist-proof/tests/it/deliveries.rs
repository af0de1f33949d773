//! Files with deliveries.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use desist_proof::delivery::{
    Deliveries, DeliveriesError, Delivery, DeliveryError, Named, Proven, RECORD_BYTES, Reached, Record, Told, Unproven, fuzz_deliveries,
    inclusion, root,
};
use desist_proof::entry::EntryError;
use desist_proof::proof::{ProofError, verify_inclusion};
use desist_proof::receipt::{FormatError, Receipt, ReceiptError, Trust, Verified};
use desist_proof::tile::Appender;
use desist_proof::{leaf_hash, proof};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::world::{ORIGIN, Table, leaf, log_key, mutations, witness_key};

/// Leaves of the entries in the log of the tests.
const DECLARED: u64 = 2;
const ASKED: u64 = 5;
const ACKNOWLEDGED: u64 = 9;
const SIZE: u64 = 13;

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn entry(index: u64, rest: &str) -> String {
    format!(r#"{{"v":1,"seq":{},"at":"2026-01-01T00:00:15Z",{rest}}}"#, index + 1)
}

fn record(target: u64, version: u64) -> Record {
    Record { destination: 7, target, version, at: 1_767_225_600, level: Reached::Applied, status: 204, answer: [target as u8; 16] }
}

/// The records of the minute, in order; that of the person is the fourth.
fn records() -> Vec<Record> {
    [2, 4, 8, 10, 11, 14, 20].map(|target| record(target, ASKED + 1)).to_vec()
}

/// A log with these entries at their leaves, and what a file needs of it.
fn file_of(entries: &BTreeMap<u64, String>, records: &[Record], place: usize, id: &str) -> Deliveries {
    let mut table = Table::default();
    let mut appender = Appender::open(0, &mut table.reader()).expect("empty");
    (0..SIZE).for_each(|at| appender.append(entries.get(&at).map_or_else(|| leaf(at), |entry| leaf_hash(entry.as_bytes()))));
    table.write(appender.take());
    let checkpoint = Checkpoint::new(ORIGIN, SIZE, proof::root(SIZE, &mut table.reader()).expect("tiles")).expect("an origin");
    let mut signed = SignedCheckpoint::sign(checkpoint, &log_key()).expect("the log's key");
    let witness = witness_key(1);
    let line = witness.sign(&signed.unverified().to_string(), 1_700_000_000).expect("text").to_string();
    signed.add(&line, witness.verifier()).expect("good");
    let proven = |index: u64| Proven {
        entry: entries[&index].clone(),
        index,
        inclusion: proof::inclusion(SIZE, index, &mut table.reader()).expect("tiles"),
    };
    let Proven { entry, index, inclusion: path } = proven(ASKED);
    let receipt = Receipt { entry, opening: None, index, inclusion: path, checkpoint: signed.to_string() };
    let delivery = Delivery {
        destination: Named { no: 7, id: id.to_owned() },
        declared: proven(DECLARED),
        record: records[place],
        place: place as u64,
        proof: inclusion(records, place).expect("there"),
        acknowledged: proven(ACKNOWLEDGED),
    };
    Deliveries { receipt, deliveries: vec![delivery], unproven: Vec::new() }
}

fn entries(records: &[Record]) -> BTreeMap<u64, String> {
    let declared = format!(r#""type":"destination_declared","destination":7,"id":"{}""#, base64url(&Sha256::digest("crm")));
    let acknowledged =
        format!(r#""type":"acknowledged","ranges":[[7,6,6,7,0]],"records":{},"evidence":"{}""#, records.len(), base64url(&root(records)));
    let asked = r#""type":"opted_out","subject":5,"identifiers":[[5,"email"],[6,"phone"]]"#;
    [(DECLARED, entry(DECLARED, &declared)), (ASKED, entry(ASKED, asked)), (ACKNOWLEDGED, entry(ACKNOWLEDGED, &acknowledged))].into()
}

fn file() -> Deliveries {
    file_of(&entries(&records()), &records(), 3, "crm")
}

fn check(file: &Deliveries) -> Result<(Verified, Vec<Told>), DeliveriesError> {
    let read = Deliveries::parse(file.to_json().as_bytes()).map_err(DeliveriesError::Format)?;
    assert_eq!(&read, file);
    read.verify(log_key().verifier(), &[witness_key(1).verifier().clone()])
}

#[test]
fn a_file_says_what_was_told_and_of_whom() {
    let (receipt, told) = check(&file()).expect("good");
    assert!(matches!(receipt.trust(), Trust::Witnessed { .. }));
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.destination.id.as_str(), told.seq, told.is_named, told.is_since), ("crm", ACKNOWLEDGED + 1, true, true));
    assert_eq!((told.record, told.record.level.name()), (record(10, ASKED + 1), "applied"));
    // By an identifier of the entry, by a subject and an identifier that it does not name, and about an earlier state.
    for (target, version, is_named, is_since) in
        [(11, 6, true, true), (13, 6, true, true), (15, 6, false, true), (8, 6, false, true), (10, 3, true, false)]
    {
        let records = vec![record(target, version)];
        let (_, told) = check(&file_of(&entries(&records), &records, 0, "crm")).expect("good");
        assert_eq!((told[0].is_named, told[0].is_since), (is_named, is_since), "{target} {version}");
    }
    let none = Deliveries { deliveries: Vec::new(), ..file() };
    assert_eq!(check(&none).expect("a receipt alone").1, []);
}

#[test]
fn every_record_of_a_minute_is_proven_and_no_other() {
    for count in [1, 2, 3, 5, 8, 200] {
        let records: Vec<_> = (0..count).map(|n| record(n, 6)).collect();
        for place in 0..count as usize {
            let path = inclusion(&records, place).expect("there");
            let holds = |at: usize| verify_inclusion(&leaf_hash(&records[at].to_bytes()), place as u64, count, &path, &root(&records));
            assert_eq!(holds(place), Ok(()), "{place} of {count}");
            assert!(count == 1 || holds((place + 1) % count as usize).is_err());
        }
        assert_eq!(inclusion(&records, count as usize), None);
    }
}

#[test]
fn the_first_broken_link_is_named() {
    let with = |change: &dyn Fn(&mut Deliveries)| {
        let mut file = file();
        change(&mut file);
        check(&file).expect_err("broken")
    };
    let delivery = |change: &dyn Fn(&mut Delivery)| with(&|file| change(&mut file.deliveries[0]));
    let at = |error| DeliveriesError::Delivery { place: 1, error };
    let cases = [
        ("checkpoint signature", with(&|file| file.receipt.checkpoint = file.receipt.checkpoint.replace("\n13\n", "\n14\n")), None),
        (
            "inclusion",
            with(&|file| file.receipt.inclusion[0][0] ^= 1),
            Some(DeliveriesError::Receipt(ReceiptError::Inclusion(ProofError::Root))),
        ),
        (
            "delivery entry",
            delivery(&|one| one.declared = one.acknowledged.clone()),
            Some(at(DeliveryError::Entry(EntryError::Member("type")))),
        ),
        ("delivery entry", delivery(&|one| one.acknowledged.index += 1), Some(at(DeliveryError::Entry(EntryError::Place)))),
        ("delivery inclusion", delivery(&|one| one.declared.inclusion[0][0] ^= 1), Some(at(DeliveryError::Inclusion(ProofError::Root)))),
        (
            "delivery inclusion",
            delivery(&|one| one.acknowledged.entry = one.acknowledged.entry.replace("\"records\":7", "\"records\":8")),
            Some(at(DeliveryError::Inclusion(ProofError::Root))),
        ),
        ("delivery destination", delivery(&|one| one.destination.id.push('2')), Some(at(DeliveryError::Destination))),
        (
            "delivery destination",
            delivery(&|one| (one.destination.no, one.record.destination) = (8, 8)),
            Some(at(DeliveryError::Destination)),
        ),
        ("delivery record", delivery(&|one| one.record.version = 7), Some(at(DeliveryError::Record(ProofError::Root)))),
        ("delivery record", delivery(&|one| one.record.level = Reached::Verified), Some(at(DeliveryError::Record(ProofError::Root)))),
        ("delivery record", delivery(&|one| one.record.answer[15] ^= 1), Some(at(DeliveryError::Record(ProofError::Root)))),
        ("delivery record", delivery(&|one| one.place = 4), Some(at(DeliveryError::Record(ProofError::Root)))),
        ("delivery record", delivery(&|one| one.place = 7), Some(at(DeliveryError::Record(ProofError::Index)))),
        ("delivery record", delivery(&|one| one.proof.truncate(2)), Some(at(DeliveryError::Record(ProofError::Length)))),
    ];
    for (link, found, expected) in cases {
        assert_eq!(found.link(), link);
        assert!(expected.is_none_or(|expected| expected == found), "{found:?}");
        assert!(found.to_string().starts_with(link), "{found}");
    }
    let later = vec![record(10, ACKNOWLEDGED + 1)];
    assert_eq!(check(&file_of(&entries(&later), &later, 0, "crm")), Err(at(DeliveryError::Version)));
    let mut empty = entries(&records());
    *empty.get_mut(&ACKNOWLEDGED).expect("there") = entry(ACKNOWLEDGED, r#""type":"acknowledged""#);
    assert_eq!(check(&file_of(&empty, &records(), 3, "crm")), Err(at(DeliveryError::Entry(EntryError::Member("records")))));
}

#[test]
fn a_file_of_another_form_is_refused() {
    let good = file();
    let json: Value = serde_json::from_str(&good.to_json()).expect("JSON");
    let with = |pointer: &str, value: Option<Value>| {
        let mut changed = json.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a member");
        let members = changed.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        match value {
            Some(value) => drop(members.insert(name.to_owned(), value)),
            None => drop(members.remove(name)),
        }
        Deliveries::parse(changed.to_string().as_bytes()).err()
    };
    for object in ["", "/receipt", "/deliveries/0", "/deliveries/0/record", "/deliveries/0/declared", "/deliveries/0/destination"] {
        assert!(with(&format!("{object}/more"), Some(1.into())).is_some(), "{object}");
        for name in json.pointer(object).and_then(Value::as_object).expect("an object").keys() {
            assert!(with(&format!("{object}/{name}"), None).is_some(), "{object}/{name}");
            assert!(with(&format!("{object}/{name}"), Some(Value::Null)).is_some(), "{object}/{name}");
        }
        // As the list of its members' values, which some readers take for the object.
        let mut changed = json.clone();
        let place = changed.pointer_mut(object).expect("there");
        *place = place.as_object().expect("an object").values().cloned().collect();
        assert!(Deliveries::parse(changed.to_string().as_bytes()).is_err(), "{object}");
    }
    assert_eq!(with("/format", Some("desist-receipt/v1".into())), Some(FormatError::Version));
    assert_eq!(with("/deliveries/0/record/answer", Some("AAAA".into())), Some(FormatError::Member("answer")));
    assert_eq!(with("/deliveries/0/record/level", Some("sent".into())), Some(FormatError::Deliveries));
    assert_eq!(with("/receipt/inclusion", Some(serde_json::json!(["AAAA"]))), Some(FormatError::Member("inclusion")));
    let text = good.to_json();
    for wrong in [
        "",
        "[]",
        "{",
        &text[1..],
        &text.replacen("\"place\":3", "\"place\":3,\"place\":3", 1),
        &text.replacen("\"place\":3", "\"place\":3.0", 1),
    ] {
        assert_eq!(Deliveries::parse(wrong.as_bytes()), Err(FormatError::Deliveries), "{wrong}");
        assert!(!Deliveries::is_meant(wrong.as_bytes()), "{wrong}");
    }
    assert!(Deliveries::is_meant(text.as_bytes()) && !Deliveries::is_meant(good.receipt.to_json().as_bytes()));
    let words = Unproven { destination: Named { no: 8, id: "ads".to_owned() }, state: "none yet".to_owned() };
    let file = Deliveries { unproven: vec![words], ..good };
    assert_eq!(Deliveries::parse(file.to_json().as_bytes()), Ok(file));
}

#[test]
fn one_changed_character_is_never_good() {
    let (good, witnesses) = (file(), [witness_key(1).verifier().clone()]);
    let (json, (receipt, told)) = (good.to_json(), check(&good).expect("good"));
    let mut passed = 0;
    for changed in mutations(&json) {
        let Ok(read) = Deliveries::parse(changed.as_bytes()) else { continue };
        if read == good {
            continue;
        }
        if let Ok((verified, still)) = read.verify(log_key().verifier(), &witnesses) {
            // A change can make the witness unknown, and nothing else.
            assert_eq!((&verified.entry, verified.trust(), &still), (&receipt.entry, Trust::SelfAttested, &told), "{changed}");
            passed += 1;
        }
    }
    assert!(passed > 0, "the name of the witness is somewhere");
}

proptest! {
    #[test]
    fn records_read_back(bytes in any::<[u8; RECORD_BYTES]>(), level in 0..6_u8) {
        let mut bytes = bytes;
        bytes[28] = level;
        let read = Record::from_bytes(&bytes);
        prop_assert_eq!(read.is_some(), (1..=4).contains(&level));
        prop_assert!(read.is_none_or(|read| read.to_bytes() == bytes));
    }

    #[test]
    fn records_are_in_the_order_of_their_bytes(one in any::<[u8; RECORD_BYTES]>(), other in any::<[u8; RECORD_BYTES]>(), same in 0..RECORD_BYTES) {
        let (mut one, mut other) = (one, other);
        other[..same].copy_from_slice(&one[..same]);
        (one[28], other[28]) = (1 + one[28] % 4, 1 + other[28] % 4);
        let (first, second) = (Record::from_bytes(&one).expect("a level"), Record::from_bytes(&other).expect("a level"));
        prop_assert_eq!(first.cmp(&second), one.cmp(&other));
    }

    #[test]
    fn any_bytes_are_a_file_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_deliveries(&bytes);
    }

    #[test]
    fn cut_and_changed_files_do_not_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = file().to_json().into_bytes();
        let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
        bytes[at] = byte;
        fuzz_deliveries(&bytes);
        fuzz_deliveries(&bytes[..cut]);
    }
}
