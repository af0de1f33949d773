//! The bytes of the log, as they were ever written.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::fact::{
    Actor, AlarmKind, Channel, Digest, ENTRY_VERSION, Entry, EntryError, Fact, IdRef, Refusal, RequestId, RequestKind, Role,
};
use desist_core::identifier::Kind;
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::{Model, PurposeSet};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("../../golden/entries.ndjson");
const FORMAT: &str = include_str!("../../../../docs/entry-format.md");

/// Every type of fact. A new one fails to compile here until the list, the golden file and the
/// description have it.
const TYPES: [&str; 25] = [
    "log_opened",
    "purpose_declared",
    "key_created",
    "key_revoked",
    "profile_created",
    "profile_deleted",
    "linked",
    "unlinked",
    "opted_out",
    "opt_in_asked",
    "opted_in",
    "api_opt_out_ended",
    "opt_in_refused",
    "signals_honoured",
    "import_finished",
    "alarm_raised",
    "alarm_cleared",
    "key_rotated",
    "destination_declared",
    "caught_up",
    "destination_paused",
    "destination_resumed",
    "dead_letters_replayed",
    "told_by_hand",
    "acknowledged",
];

fn type_of(fact: &Fact) -> &'static str {
    TYPES[match fact {
        Fact::LogOpened { .. } => 0,
        Fact::PurposeDeclared { .. } => 1,
        Fact::KeyCreated { .. } => 2,
        Fact::KeyRevoked { .. } => 3,
        Fact::ProfileCreated { .. } => 4,
        Fact::ProfileDeleted { .. } => 5,
        Fact::Linked { .. } => 6,
        Fact::Unlinked { .. } => 7,
        Fact::OptedOut { .. } => 8,
        Fact::OptInAsked { .. } => 9,
        Fact::OptedIn { .. } => 10,
        Fact::ApiOptOutEnded { .. } => 11,
        Fact::OptInRefused { .. } => 12,
        Fact::SignalsHonoured { .. } => 13,
        Fact::ImportFinished { .. } => 14,
        Fact::AlarmRaised { .. } => 15,
        Fact::AlarmCleared { .. } => 16,
        Fact::KeyRotated { .. } => 17,
        Fact::DestinationDeclared { .. } => 18,
        Fact::CaughtUp { .. } => 19,
        Fact::DestinationPaused { .. } => 20,
        Fact::DestinationResumed { .. } => 21,
        Fact::DeadLettersReplayed { .. } => 22,
        Fact::ToldByHand { .. } => 23,
        Fact::Acknowledged { .. } => 24,
    }]
}

fn lines() -> impl Iterator<Item = &'static str> {
    GOLDEN.lines()
}

#[test]
fn every_line_ever_written_reads_back_to_the_same_bytes() {
    let mut seen = BTreeSet::new();
    for line in lines() {
        let entry = Entry::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(String::from_utf8(entry.encode()).expect("UTF-8"), line);
        let name = type_of(&entry.fact);
        assert!(line.contains(&format!("\"type\":\"{name}\"")), "{line}");
        seen.insert(name);
    }
    assert_eq!(seen, BTreeSet::from(TYPES));
    let numbers: Vec<u64> = lines().map(|line| Entry::decode(line.as_bytes()).expect("checked above").seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "the file is a log: dense, from 1");
}

#[test]
fn every_word_of_every_enum_is_in_the_file() {
    let words = |values: Vec<serde_json::Value>| values.into_iter().map(|value| value.to_string());
    let json = |value: &dyn erased::Json| value.json();
    let mut all = Vec::new();
    all.extend(words(Channel::ALL.iter().map(|one| json(one)).collect()));
    all.extend(words(Kind::ALL.iter().map(|one| json(one)).collect()));
    all.extend(words([RequestKind::OptOut, RequestKind::Limit].iter().map(|one| json(one)).collect()));
    all.extend(words([Role::Admin, Role::Writer, Role::Reader, Role::Auditor].iter().map(|one| json(one)).collect()));
    all.extend(words([Refusal::WholeRecord, Refusal::NotOwn, Refusal::Policy].iter().map(|one| json(one)).collect()));
    all.extend(words(AlarmKind::ALL.iter().map(|one| json(one)).collect()));
    all.extend(words([Model::OptOut, Model::OptIn].iter().map(|one| json(one)).collect()));
    all.extend(words([Actor::Local, Actor::Consumer, Actor::Key(7)].iter().map(|one| json(one)).collect()));
    for word in all {
        assert!(GOLDEN.contains(&word), "{word}");
        let plain = word.trim_matches('"').replace("key:7", "key:N");
        assert!(FORMAT.contains(&format!("`{plain}`")), "{plain} is not described");
    }
}

/// `Serialize` as an object, for the lists above.
mod erased {
    pub trait Json {
        fn json(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).expect("an enum is a word")
        }
    }
}

#[test]
fn optional_members_are_there_and_not_there() {
    for member in ["\"subject\"", "\"acted_at\"", "\"evidence\""] {
        let opted_out = || lines().filter(|line| line.contains("\"opted_out\""));
        assert!(opted_out().any(|line| line.contains(member)), "{member}");
        assert!(opted_out().any(|line| !line.contains(member)), "{member}");
    }
    let opted_in = || lines().filter(|line| line.contains("\"type\":\"opted_in\""));
    assert!(opted_in().any(|line| line.contains("\"subject\"")) && opted_in().any(|line| !line.contains("\"subject\"")));
}

#[test]
fn the_description_has_every_type_and_every_member() {
    for name in TYPES {
        let section = FORMAT.split(&format!("### `{name}`\n")).nth(1).unwrap_or_else(|| panic!("{name} is not described"));
        let section = section.split("\n### ").next().expect("a first part").split("\n## ").next().expect("a first part");
        let mut members = BTreeMap::new();
        for line in lines().filter(|line| line.contains(&format!("\"type\":\"{name}\""))) {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("an object");
            members.extend(object);
        }
        for common in ["v", "seq", "at", "type"] {
            members.remove(common);
        }
        for member in members.keys() {
            assert!(section.contains(&format!("| `{member}` |")), "{name}: {member} is not described");
        }
        let rows = section.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, members.len(), "{name}: described members that no golden line has");
        let example = section.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{name} has no example"));
        assert!(lines().any(|line| line == example), "{name}: the example is not in the golden file");
    }
    assert!(FORMAT.contains(&format!("This is version {ENTRY_VERSION}.")));
}

fn opted_out() -> Entry {
    Entry {
        v: ENTRY_VERSION,
        seq: 12,
        at: 1_767_225_600,
        fact: Fact::OptedOut {
            request: RequestId([3; 16]),
            kind: RequestKind::OptOut,
            subject: Some(SubjectNo(5)),
            identifiers: vec![IdRef(IdentifierNo(9), Kind::Email)],
            purposes: PurposeSet(1 << 63 | 3),
            channel: Channel::Form,
            acted_at: Some(1_767_225_599),
            by: Actor::Consumer,
            evidence: Some(Digest([4; 32])),
        },
    }
}

#[test]
fn anything_but_the_canonical_bytes_is_refused() {
    let good = String::from_utf8(opted_out().encode()).expect("UTF-8");
    assert_eq!(Entry::decode(good.as_bytes()).expect("its own bytes"), opted_out());
    let table = [
        ("unknown member", "\"v\":1,", "\"v\":1,\"note\":1,"),
        ("unknown member of the fact", "\"kind\":\"opt_out\"", "\"kind\":\"opt_out\",\"name\":\"Rosa\""),
        ("the same member twice", "\"seq\":12,", "\"seq\":12,\"seq\":12,"),
        ("missing member", "\"channel\":\"form\",", ""),
        ("a space", "\"v\":1,", "\"v\": 1,"),
        ("a line feed", "}", "}\n"),
        ("another order", "\"v\":1,\"seq\":12", "\"seq\":12,\"v\":1"),
        ("a null for an absent member", "\"subject\":5", "\"subject\":null"),
        ("a number as text", "\"seq\":12", "\"seq\":\"12\""),
        ("a negative number", "\"seq\":12", "\"seq\":-12"),
        ("a fraction", "\"seq\":12", "\"seq\":12.0"),
        ("an escape for a plain letter", "\"form\"", "\"\\u0066orm\""),
        ("an unknown channel", "\"form\"", "\"fax\""),
        ("an unknown kind", "[9,\"email\"]", "[9,\"e-mail\"]"),
        ("a third element", "[9,\"email\"]", "[9,\"email\",1]"),
        ("a bit that is none", "[0,1,63]", "[0,1,64]"),
        ("a bit far out", "[0,1,63]", "[0,1,4294967296]"),
        ("a bit twice", "[0,1,63]", "[0,1,1,63]"),
        ("bits out of order", "[0,1,63]", "[1,0,63]"),
        ("not base64url", "\"AwMDAwMDAwMDAwMDAwMDAw\"", "\"AwMDAwMDAwMDAwMDAwMDA!\""),
        ("padding", "\"AwMDAwMDAwMDAwMDAwMDAw\"", "\"AwMDAwMDAwMDAwMDAwMDAw==\""),
        ("set trailing bits", "\"AwMDAwMDAwMDAwMDAwMDAw\"", "\"AwMDAwMDAwMDAwMDAwMDAx\""),
        ("too few bytes", "\"AwMDAwMDAwMDAwMDAwMDAw\"", "\"AwMDAwMDAwMDAwMDAwMD\""),
        ("a fraction of a second", "00:00:00Z", "00:00:00.5Z"),
        ("another zone", "00:00:00Z", "00:00:00+00:00"),
        ("a time that is none", "2026-01-01T", "2026-02-30T"),
        ("an unknown actor", "\"consumer\"", "\"rosa\""),
        ("a number with a sign", "\"consumer\"", "\"key:+1\""),
        ("an unknown type", "\"opted_out\"", "\"opted_up\""),
    ];
    for (what, from, to) in table {
        assert!(good.contains(from), "{what}: {from} is not in {good}");
        let bad = good.replacen(from, to, 1);
        assert!(Entry::decode(bad.as_bytes()).is_err(), "{what}: {bad}");
    }
    for version in [0, 2, u32::MAX] {
        let bad = good.replacen("\"v\":1", &format!("\"v\":{version}"), 1);
        assert!(matches!(Entry::decode(bad.as_bytes()), Err(EntryError::Version(found)) if found == version), "{bad}");
    }
    assert!(Entry::decode(b"").is_err());
    assert!(Entry::decode(format!("{good}{good}").as_bytes()).is_err());
    assert!(Entry::decode(format!("\u{feff}{good}").as_bytes()).is_err());
}

#[test]
fn a_later_version_says_so_even_if_its_facts_are_not_known() {
    let later = br#"{"v":2,"seq":1,"at":"2026-01-01T00:00:00Z","type":"moon_landed"}"#;
    assert!(matches!(Entry::decode(later), Err(EntryError::Version(2))));
}

proptest! {
    #[test]
    fn changed_bytes_are_refused_or_another_canonical_entry(line in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4)) {
        let all: Vec<_> = lines().collect();
        let mut bytes = line.get(&all).as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                // Digits and letters stay well-formed most often.
                _ => bytes[at] = b"0123456789abcZ-\"{}[],:"[usize::from(byte) % 22],
            }
        }
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Entry::decode(&bytes).is_err());
    }
}
