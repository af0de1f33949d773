//! What identifiers are: kept when a destination has to be told, read back, and shredded with the last reason to keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use desist_core::decision::Context;
use desist_core::fact::{Fact, IdRef};
use desist_core::graph::Party;
use desist_core::identifier::{Identifier, Kind};
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::clear::{self, Given};
use desist_engine::delivery::transport::Known;
use desist_engine::engine::Engine;
use desist_engine::intake::{self, ImportChunk, NewRequest};
use desist_engine::profiles::{self, Merged, NewProfile, Wish};
use desist_engine::queue::Lane;
use desist_engine::vault;
use desist_store::faulty::FaultyStore;
use desist_store::sqlite::SqliteStore;
use desist_store::{ChangeRow, Owner, Sealed, Store as _};
use proptest::prelude::*;
use serde_json::json;

use crate::people::{KEY, delete, link};
use crate::story::pkey;
use crate::support::{Home, audit, confirm, confirmed, email, log, named, opt_in, opt_out, settle, submit};

const ROSA: &str = "rosa@example.com";

fn told(kinds: impl IntoIterator<Item = Kind>) -> Home {
    let mut home = Home::new(1);
    home.policy.kinds_told = kinds.into_iter().collect();
    home
}

/// What kinds are told from now on.
fn tell(engine: &Engine, kinds: &[Kind]) {
    let mut policy = engine.shared().policy.load().as_ref().clone();
    policy.kinds_told = kinds.iter().copied().collect();
    engine.declare(&policy).expect("declared");
}

fn text(kind: Kind, value: &str) -> Given {
    Identifier::from_value(kind, value).expect("valid").into()
}

fn digest(kind: Kind, value: &str) -> Given {
    Identifier::from_value(kind, value).expect("valid").0.into()
}

fn number(engine: &Engine, one: Named) -> Option<IdentifierNo> {
    engine.read(|read| read.find(&one.key)).expect("reads")
}

fn known(engine: &Engine, kind: Kind, value: &str) -> Option<Known> {
    let no = number(engine, named(engine, kind, value))?;
    let known = engine.read(|read| clear::known(read, engine.shared(), no)).expect("reads")?;
    let (identifier, normal) = Identifier::from_value(kind, value).expect("valid");
    assert_eq!((known.kind, known.sha256), (kind, identifier.digest), "a wrong value");
    assert!(known.text.as_ref().is_none_or(|text| text.as_str() == normal.as_str()), "a wrong value");
    Some(known)
}

/// Whether it is known at all, and if so whether in clear.
fn form(engine: &Engine, kind: Kind, value: &str) -> Option<bool> {
    known(engine, kind, value).map(|known| known.text.is_some())
}

fn sealed(engine: &Engine, kind: Kind, value: &str) -> Option<Sealed> {
    let no = number(engine, named(engine, kind, value))?;
    engine.read(|read| read.vault_get(Owner::Identifier(no))).expect("reads")
}

fn kept(engine: &Engine) -> usize {
    engine.read(|read| read.vault_identifiers(IdentifierNo(0), 1000)).expect("reads").len()
}

fn feed(engine: &Engine) -> Vec<ChangeRow> {
    engine.read(|read| read.changes(0, 1000)).expect("reads")
}

fn parties_after(engine: &Engine, no: u64) -> Vec<Party> {
    feed(engine).into_iter().filter(|row| row.no > no).map(|row| row.party).collect()
}

fn last_change(engine: &Engine) -> u64 {
    engine.read(|read| read.coordinator()).expect("reads").counters.changes
}

fn link_given(engine: &Engine, named: Vec<Named>, given: Vec<Given>) {
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::link(ctx, &named, &given, KEY)).expect("linked");
}

fn import(engine: &Engine, number: u8, people: Vec<Vec<Named>>, given: Vec<Given>) {
    let (rows, purposes) = (people.len() as u64, PurposeSet::OPT_OUT_DEFAULT);
    let chunk = ImportChunk { import: [number; 32], first_row: 0, rows, people, given, purposes, acted_at: None, last: true, by: KEY };
    engine.submit_blocking(Lane::Bulk, move |ctx| intake::import(ctx, &chunk)).expect("imported");
}

fn profile(engine: &Engine, key: &str, email_of: &str, given: Vec<Given>, opt_out: bool) {
    let one = email(engine, email_of);
    let new = NewProfile {
        pkey: key.to_owned(),
        attributes: b"{}".to_vec(),
        identifiers: vec![one],
        email: Some(one),
        opt_out,
        evidence: b"{}".to_vec(),
        given,
        by: KEY,
    };
    engine.submit_blocking(Lane::Interactive, move |ctx| profiles::create(ctx, &new)).expect("created");
}

fn change(engine: &Engine, key: &str, old: &str, new: Option<&str>, given: &[Given]) {
    let (old, new): (Vec<_>, Vec<_>) = (vec![email(engine, old)], new.map(|new| email(engine, new)).into_iter().collect());
    let (key, given) = (pkey(key), given.to_vec());
    let wish = Wish { opt_out: None, alone: false, all_or_nothing: false, evidence: Vec::new(), by: KEY };
    let changed = engine.submit_blocking(Lane::Interactive, move |ctx| {
        let mut merge = |present: &[u8]| {
            let (attributes, changed) = (present.to_vec(), old != new);
            Some(Merged { attributes, old: old.clone(), new: new.clone(), email: None, changed, given: given.clone() })
        };
        profiles::change(ctx, &key, &wish, &mut merge, true)
    });
    changed.expect("changed");
}

#[test]
fn every_path_keeps_what_destinations_are_told_of_and_nothing_else() {
    let every = Kind::ALL.to_vec();
    for kinds in [every, vec![], vec![Kind::Email], vec![Kind::CookieId, Kind::CampaignPkey]] {
        let home = told(kinds.clone());
        let engine = home.open();
        let mut all = Vec::new();
        let mut both = |values: &[(Kind, &str)]| -> (Vec<Named>, Vec<Given>) {
            all.extend(values.iter().map(|(kind, value)| (*kind, (*value).to_owned())));
            values.iter().map(|(kind, value)| (named(&engine, *kind, value), text(*kind, value))).unzip()
        };
        let (people, given) = both(&[(Kind::Email, "Request@Example.com"), (Kind::Phone, "(202) 555-0143"), (Kind::Maid, MAID)]);
        submit(&engine, NewRequest { given, ..opt_out(people) }).expect("taken");
        let (people, given) = both(&[(Kind::Email, "opt-in@example.com")]);
        submit(&engine, NewRequest { given, ..opt_in(people, PurposeSet::SALE) }).expect("taken");
        let (people, given) = both(&[(Kind::CustomerId, "c1"), (Kind::Email, "link@example.com"), (Kind::Uid2, "uid")]);
        link_given(&engine, people, given);
        let (people, given) = both(&[(Kind::Email, "import@example.com"), (Kind::Rampid, "ramp")]);
        import(&engine, 1, vec![people], given);
        let (people, given) = both(&[(Kind::CookieId, "k1"), (Kind::DeviceId, "d1")]);
        engine.note_signal(&people, &given, Context { gpc: true, age_band: None }, KEY);
        settle(&engine);
        let (_, given) = both(&[(Kind::Email, "created@example.com"), (Kind::CampaignPkey, "p1")]);
        profile(&engine, "p1", "created@example.com", given[..1].to_vec(), false);
        profile(&engine, "p2", "before@example.com", Vec::new(), true);
        let (_, given) = both(&[(Kind::Email, "changed@example.com"), (Kind::CampaignPkey, "p2")]);
        change(&engine, "p2", "before@example.com", Some("changed@example.com"), &given[..1]);
        let mut expected = 0;
        for (kind, value) in &all {
            let is_told = kinds.contains(kind);
            expected += usize::from(is_told);
            assert_eq!(form(&engine, *kind, value), is_told.then_some(true), "{kind} {value}, told: {kinds:?}");
        }
        assert_eq!(kept(&engine), expected);
        // What was not given in the change is not known, told or not.
        assert_eq!(form(&engine, Kind::Email, "before@example.com"), None);
        // Of what is not in the store nothing is kept.
        engine
            .submit_blocking(Lane::Interactive, |ctx| clear::keep(ctx, &[text(Kind::Email, "nobody@example.com")]).map(Ok))
            .expect("done");
        assert_eq!(kept(&engine), expected);
        audit(&engine);
        engine.close();
        drop(engine);
        let engine = home.open();
        assert!(all.iter().all(|(kind, value)| form(&engine, *kind, value) == kinds.contains(kind).then_some(true)), "opened again");
        engine.close();
    }
}

const MAID: &str = "AEBE52E7-03EE-455A-B3C4-E57283966239";

#[test]
fn whoever_is_newly_known_is_among_the_changes_and_nobody_else() {
    let home = told([Kind::Email]);
    let engine = home.open();
    let (rosa, account, other) = (email(&engine, ROSA), named(&engine, Kind::CustomerId, "c1"), named(&engine, Kind::CustomerId, "c2"));
    let bare = email(&engine, "bare@example.com");
    assert!(link(&engine, vec![account, rosa]) && link(&engine, vec![other, rosa]));
    submit(&engine, opt_out(vec![bare])).expect("taken");
    let subjects = [Party::Subject(SubjectNo(1)), Party::Subject(SubjectNo(2))];
    // A link that is known already makes no entry, so that nothing else moves anybody.
    let steps: [(&str, Vec<Given>, &[Party]); 7] = [
        ("nothing given", vec![], &[]),
        ("a kind that nobody is told", vec![text(Kind::CustomerId, "c1")], &[]),
        ("a digest", vec![digest(Kind::Email, ROSA)], &subjects),
        ("the digest again", vec![digest(Kind::Email, ROSA)], &[]),
        ("in clear", vec![text(Kind::Email, "Rosa@Example.com ")], &subjects),
        ("in clear again", vec![text(Kind::Email, ROSA)], &[]),
        ("the digest after it", vec![digest(Kind::Email, ROSA)], &[]),
    ];
    for (what, given, expected) in steps {
        let (entries, before) = (log(&engine).len() as u64, last_change(&engine));
        link_given(&engine, vec![account, rosa], given);
        assert_eq!(parties_after(&engine, before), expected, "{what}");
        assert!(feed(&engine).iter().all(|row| row.no <= before || row.seq == entries), "{what}");
        assert_eq!((log(&engine).len() as u64, last_change(&engine)), (entries, before + expected.len() as u64), "{what}");
    }
    assert_eq!(form(&engine, Kind::Email, ROSA), Some(true));
    // Somebody whom nobody holds, named in a file that says nothing new.
    for (number, expected) in [(1, true), (2, false)] {
        let before = last_change(&engine);
        import(&engine, number, vec![vec![bare]], vec![text(Kind::Email, "bare@example.com")]);
        let bare = Party::Identifier(number_of(&engine, bare));
        assert_eq!(parties_after(&engine, before).contains(&bare), expected, "import {number}");
    }
    audit(&engine);
    engine.close();
}

fn number_of(engine: &Engine, one: Named) -> IdentifierNo {
    number(engine, one).expect("known")
}

#[test]
fn a_signal_whose_device_is_newly_given_is_looked_at_again() {
    let home = told([]);
    let engine = home.open();
    let device = named(&engine, Kind::DeviceId, "d1");
    let signal = |given: &[Given]| {
        let (entries, commands) = (log(&engine).len(), engine.shared().counts.commands.load(std::sync::atomic::Ordering::Relaxed));
        engine.note_signal(&[device], given, Context { gpc: true, age_band: None }, KEY);
        let looked = engine.shared().counts.commands.load(std::sync::atomic::Ordering::Relaxed) - commands;
        settle(&engine);
        (log(&engine).len() - entries, looked, form(&engine, Kind::DeviceId, "d1"))
    };
    assert_eq!(signal(&[]), (1, 1, None));
    assert_eq!(signal(&[]), (0, 0, None));
    // A destination is added while the server runs.
    tell(&engine, &[Kind::DeviceId]);
    assert_eq!(signal(&[digest(Kind::DeviceId, "d1")]), (0, 1, Some(false)));
    assert_eq!(signal(&[digest(Kind::DeviceId, "d1")]), (0, 0, Some(false)));
    assert_eq!(signal(&[text(Kind::DeviceId, "d1")]), (0, 1, Some(true)));
    assert_eq!(signal(&[text(Kind::DeviceId, "d1")]), (0, 0, Some(true)));
    assert_eq!(signal(&[digest(Kind::DeviceId, "d1")]), (0, 0, Some(true)));
    // Of an e-mail no signal is recorded, and nothing kept.
    tell(&engine, &[Kind::DeviceId, Kind::Email]);
    engine.note_signal(&[device], &[text(Kind::Email, ROSA)], Context { gpc: true, age_band: None }, KEY);
    settle(&engine);
    assert_eq!(kept(&engine), 1);
    engine.close();
}

#[test]
fn a_row_that_does_not_fit_is_unknown_until_it_is_given_again() {
    let home = told([Kind::Email]);
    let engine = home.open();
    for value in [ROSA, "vera@example.com"] {
        submit(&engine, NewRequest { given: vec![text(Kind::Email, value)], ..opt_out(vec![email(&engine, value)]) }).expect("taken");
    }
    let no = number_of(&engine, email(&engine, ROSA));
    let owner = Owner::Identifier(no);
    let own = sealed(&engine, Kind::Email, ROSA).expect("kept");
    let seal = |plain: &[u8]| engine.shared().vault.seal(owner, plain, home.env.as_ref());
    let mut damaged = own.clone();
    damaged.ciphertext[20] ^= 1;
    let half = [Identifier::from_value(Kind::Email, ROSA).expect("valid").0.digest[..16].to_vec(), vec![0; 15]].concat();
    let rows: [(Sealed, bool); 10] = [
        (damaged, false),
        (Sealed { wrapped_key: Vec::new(), ciphertext: Vec::new() }, false),
        (sealed(&engine, Kind::Email, "vera@example.com").expect("kept"), false),
        (seal(b""), false),
        (seal(b"x"), false),
        (seal(b"t\xff"), false),
        (seal(&[b"d", &half[..]].concat()), false),
        // These open, and are somebody else's.
        (seal(b"tvera@example.com"), true),
        (seal(b"tRosa@example.com"), true),
        (seal(&[&b"d"[..], &[7; 32]].concat()), true),
    ];
    for (place, (row, opens)) in rows.into_iter().enumerate() {
        let put = row.clone();
        engine.submit_blocking(Lane::Interactive, move |ctx| ctx.write.vault_put(owner, &put).map(Ok)).expect("written");
        assert_eq!(form(&engine, Kind::Email, ROSA), None, "{place}");
        let problems = engine.read(|read| vault::check(read, &engine.shared().vault)).expect("reads");
        let expected = if opens { vec![] } else { vec![format!("vault: the item of identifier {} does not open", no.0)] };
        assert_eq!(problems, expected, "{place}");
        // Also by its digest, which is better than nothing.
        let given = if place % 2 == 0 { digest(Kind::Email, ROSA) } else { text(Kind::Email, ROSA) };
        let before = last_change(&engine);
        engine.submit_blocking(Lane::Interactive, move |ctx| clear::keep(ctx, std::slice::from_ref(&given)).map(Ok)).expect("kept");
        assert_eq!(form(&engine, Kind::Email, ROSA), Some(place % 2 == 1), "{place}");
        assert_eq!(parties_after(&engine, before), [Party::Identifier(no)], "{place}");
    }
    audit(&engine);
    engine.close();
}

#[test]
fn what_was_said_before_a_destination_came_is_read_from_the_evidence() {
    let home = told([]);
    let engine = home.open();
    let hex = |value: &str| {
        let digest = Identifier::from_value(Kind::Email, value).expect("valid").0.digest;
        hex_of(&digest).to_uppercase()
    };
    let value = |value: &str| json!({ "kind": "email", "value": value });
    let hash = |value: &str| json!({ "kind": "email", "sha256": hex(value) });
    let cases = [
        (json!({ "kind": "opt_out", "channel": "form", "identifiers": [value(" ROSA@Example.com")] }), Some(true)),
        (json!({ "identifiers": [hash(ROSA)] }), Some(false)),
        (json!({ "identifiers": [hash(ROSA), value("vera@example.com"), value(ROSA)] }), Some(true)),
        (json!({ "identifiers": [value(ROSA), hash(ROSA)] }), Some(true)),
        // What is not understood hides nothing.
        (
            json!({ "identifiers": [7, null, {}, { "kind": "fax", "value": "1" }, { "kind": "email" }, value("no e-mail"), { "kind": "email", "sha256": "7" }, { "kind": "email", "value": ROSA, "more": [] }], "agent": { "name": "x" } }),
            Some(true),
        ),
        (json!({ "identifiers": [value("vera@example.com"), { "kind": "customer_id", "value": ROSA }] }), None),
        (json!({ "identifiers": { "kind": "email", "value": ROSA } }), None),
        (json!({ "identifiers": [] }), None),
        (json!({ "said": ROSA }), None),
        (json!([value(ROSA)]), None),
        (json!(ROSA), None),
    ];
    for (place, (evidence, expected)) in cases.into_iter().enumerate() {
        home.env.advance(1);
        submit(&engine, NewRequest { evidence: evidence.to_string().into_bytes(), ..opt_out(vec![email(&engine, ROSA)]) }).expect("taken");
        assert_eq!(form(&engine, Kind::Email, ROSA), expected, "{place}");
    }
    let evidence = json!({ "identifiers": [value(ROSA)] }).to_string().into_bytes();
    for not_json in [&b"\xff"[..], b"", b"{", b"{\"identifiers\":[{\"kind\":\"email\",\"value\":\"rosa@example.com\"}]}trailing"] {
        home.env.advance(1);
        submit(&engine, NewRequest { evidence: not_json.to_vec(), ..opt_out(vec![email(&engine, ROSA)]) }).expect("taken");
        assert_eq!(form(&engine, Kind::Email, ROSA), None);
    }
    // The last word counts, also if it allows.
    home.env.advance(1);
    let asked =
        submit(&engine, NewRequest { evidence: evidence.clone(), ..opt_in(vec![email(&engine, ROSA)], PurposeSet::OPT_OUT_DEFAULT) });
    confirm(&engine, &asked.expect("asked")).expect("confirmed");
    assert_eq!(form(&engine, Kind::Email, ROSA), Some(true), "an opt-in");
    // What is kept goes before, even if it is less.
    tell(&engine, &[Kind::Email]);
    home.env.advance(1);
    let again = NewRequest { evidence: evidence.clone(), given: vec![digest(Kind::Email, ROSA)], ..opt_out(vec![email(&engine, ROSA)]) };
    let id = submit(&engine, again).expect("taken").id;
    assert_eq!(form(&engine, Kind::Email, ROSA), Some(false));
    // Without what was kept, then without the evidence, then with another's.
    let no = number_of(&engine, email(&engine, ROSA));
    engine.submit_blocking(Lane::Interactive, move |ctx| ctx.write.vault_shred(Owner::Identifier(no)).map(Ok)).expect("done");
    assert_eq!(form(&engine, Kind::Email, ROSA), Some(true));
    let broken = Sealed { wrapped_key: vec![1; 60], ciphertext: vec![2; 99] };
    engine.submit_blocking(Lane::Interactive, move |ctx| ctx.write.vault_put(Owner::Request(id), &broken).map(Ok)).expect("done");
    assert_eq!(form(&engine, Kind::Email, ROSA), None);
    engine.submit_blocking(Lane::Interactive, move |ctx| ctx.write.vault_shred(Owner::Request(id)).map(Ok)).expect("done");
    assert_eq!(form(&engine, Kind::Email, ROSA), None);
    // Nothing was said on its own line; and there is no such number.
    assert!(link(&engine, vec![named(&engine, Kind::CustomerId, "c1"), email(&engine, "linked@example.com")]));
    assert_eq!(form(&engine, Kind::Email, "linked@example.com"), None);
    assert!(engine.read(|read| clear::known(read, engine.shared(), IdentifierNo(99))).expect("reads").is_none());
    engine.close();
}

#[test]
fn reading_what_is_not_there_costs_no_more_than_five_reads() {
    let home = told([]);
    let engine = home.open();
    let evidence = json!({ "identifiers": [{ "kind": "email", "value": ROSA }] }).to_string().into_bytes();
    submit(&engine, NewRequest { evidence, ..opt_out(vec![email(&engine, ROSA)]) }).expect("taken");
    submit(&engine, opt_out(vec![email(&engine, "silent@example.com")])).expect("taken");
    import(&engine, 1, vec![vec![email(&engine, "file@example.com")]], vec![]);
    assert!(link(&engine, vec![named(&engine, Kind::CustomerId, "c1"), email(&engine, "linked@example.com")]));
    tell(&engine, &[Kind::Email]);
    submit(&engine, NewRequest { given: vec![text(Kind::Email, "kept@example.com")], ..opt_out(vec![email(&engine, "kept@example.com")]) })
        .expect("taken");
    let numbers = [
        ("kept@example.com", 2, true),
        (ROSA, 5, true),
        ("silent@example.com", 5, false),
        ("file@example.com", 4, false),
        ("linked@example.com", 3, false),
    ]
    .map(|(value, most, is_known)| (number_of(&engine, email(&engine, value)), value, most, is_known));
    engine.close();
    drop(engine);
    // The secrets are those of a copy, whose engine leaves the store itself alone.
    let copy = Home::image(&home, 2);
    let engine = copy.open();
    let mut store = FaultyStore::new(Box::new(SqliteStore::open(&home.store_dir()).expect("opens")), None);
    for (no, value, most, is_known) in numbers {
        let before = store.calls;
        let mut found = None;
        store.transact(&mut |write| clear::known(write, engine.shared(), no).map(|known| found = known)).expect("reads");
        assert_eq!((found.is_some(), store.calls - before), (is_known, most), "{value}");
    }
    engine.close();
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// All bytes of all files below a directory.
fn bytes(dir: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        all.extend(if entry.is_dir() { bytes(&entry) } else { std::fs::read(&entry).expect("reads") });
    }
    all
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    assert!(!needle.is_empty());
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn what_nobody_holds_and_nothing_denies_is_gone_from_every_file() {
    let home = told([Kind::Email, Kind::CampaignPkey]);
    let engine = home.open();
    let person = |key: &str, value: &str, out: bool| profile(&engine, key, value, vec![text(Kind::Email, value)], out);
    let is_kept = |value: &str| sealed(&engine, Kind::Email, value).is_some();
    person("gone", "gone.canary@example.com", false);
    person("out", "out.canary@example.com", true);
    person("one", "both.canary@example.com", false);
    person("two", "both.canary@example.com", false);
    person("moves", "old.canary@example.com", false);
    person("clears", "cleared.canary@example.com", false);
    let linked = vec![named(&engine, Kind::CustomerId, "c1"), email(&engine, "linked.canary@example.com")];
    link_given(&engine, linked.clone(), vec![text(Kind::Email, "linked.canary@example.com")]);
    let values = ["gone", "out", "both", "old", "cleared", "linked"].map(|name| format!("{name}.canary@example.com"));
    let rows: Vec<_> = values.iter().map(|value| sealed(&engine, Kind::Email, value).expect("kept")).collect();
    let keys = ["gone", "out"].map(|key| sealed(&engine, Kind::CampaignPkey, key).expect("kept"));
    for row in rows.iter().chain(&keys) {
        assert!(
            holds(&bytes(home.path()), &row.ciphertext) && holds(&bytes(home.path()), &row.wrapped_key),
            "the search finds what is there"
        );
    }

    // Nothing is told any more, and what was kept must go all the same.
    tell(&engine, &[]);
    delete(&engine, "gone").expect("deleted");
    delete(&engine, "out").expect("deleted");
    delete(&engine, "one").expect("deleted");
    assert!(is_kept(&values[2]), "another holds it");
    delete(&engine, "two").expect("deleted");
    change(&engine, "moves", &values[3], Some("new.canary@example.com"), &[]);
    change(&engine, "clears", &values[4], None, &[]);
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::unlink(ctx, &linked, KEY)).expect("unlinked");
    assert_eq!(values.each_ref().map(|value| is_kept(value)), [false, true, false, false, false, false]);
    assert_eq!(
        [sealed(&engine, Kind::CampaignPkey, "gone").is_some(), sealed(&engine, Kind::CampaignPkey, "out").is_some()],
        [false, true]
    );
    assert_eq!(form(&engine, Kind::Email, &values[1]), Some(true), "each destination has to be told, and told again");
    audit(&engine);
    engine.close();
    drop(engine);
    let files = bytes(home.path());
    for (value, row) in values.iter().zip(&rows) {
        let is_out = value == &values[1];
        assert_eq!([holds(&files, &row.ciphertext), holds(&files, &row.wrapped_key)], [is_out; 2], "{value}");
        let digest = Identifier::from_value(Kind::Email, value).expect("valid").0.digest;
        let hex = hex_of(&digest);
        for trace in [value.as_bytes(), value.split('@').next().expect("a name").as_bytes(), &digest, &digest[..16], hex.as_bytes()] {
            assert!(!holds(&files, trace), "{value} is somewhere in clear");
        }
    }
}

#[test]
fn an_allow_that_has_to_be_told_keeps_what_was_denied_known() {
    let home = told([Kind::Email]);
    let engine = home.open();
    submit(&engine, NewRequest { given: vec![text(Kind::Email, ROSA)], ..opt_out(vec![email(&engine, ROSA)]) }).expect("taken");
    home.env.advance(1);
    confirmed(&engine, vec![email(&engine, ROSA)], PurposeSet::OPT_OUT_DEFAULT);
    assert_eq!(form(&engine, Kind::Email, ROSA), Some(true));
    engine.close();
}

#[test]
fn one_transaction_that_keeps_and_ends_leaves_nothing() {
    let home = told([Kind::Email, Kind::CampaignPkey]);
    let engine = home.open();
    let one = email(&engine, ROSA);
    let new = NewProfile {
        pkey: "p1".to_owned(),
        attributes: b"{}".to_vec(),
        identifiers: vec![one],
        email: Some(one),
        opt_out: false,
        evidence: Vec::new(),
        given: vec![text(Kind::Email, ROSA)],
        by: KEY,
    };
    let done = engine.submit_blocking(Lane::Interactive, move |ctx| {
        if let Err(refusal) = profiles::create(ctx, &new)? {
            return Ok(Err(refusal));
        }
        profiles::delete(ctx, &pkey("p1"), KEY)
    });
    done.expect("done");
    assert_eq!((kept(&engine), form(&engine, Kind::Email, ROSA)), (0, None));
    audit(&engine);
    engine.close();
}

const POOL: [(Kind, &str); 9] = [
    (Kind::Email, "a@example.com"),
    (Kind::Email, "b@example.com"),
    (Kind::Phone, "+12025550143"),
    (Kind::CustomerId, "c1"),
    (Kind::CustomerId, "c2"),
    (Kind::CampaignPkey, "p0"),
    (Kind::CampaignPkey, "p1"),
    (Kind::CookieId, "k1"),
    (Kind::DeviceId, "d1"),
];

/// How somebody is named: who, and whether in clear.
type Who = Vec<(usize, bool)>;

#[derive(Clone, Debug)]
enum Doing {
    OptOut(Who),
    Import(Who),
    Link(Who),
    Unlink(Who),
    OptIn(usize, bool),
    Create(usize, (usize, bool), bool),
    Change(usize, usize, (usize, bool)),
    Delete(usize),
    Signal(Who),
    Tell(bool),
    Restart,
}

fn doing() -> impl Strategy<Value = Doing> {
    let one = || (0..POOL.len(), prop::bool::weighted(0.7));
    let some = move || prop::collection::vec(one(), 1..4);
    let mail = || (0..2_usize, any::<bool>());
    prop_oneof![
        3 => some().prop_map(Doing::OptOut),
        2 => some().prop_map(Doing::Import),
        4 => some().prop_map(Doing::Link),
        4 => some().prop_map(Doing::Unlink),
        1 => one().prop_map(|(who, clear)| Doing::OptIn(who, clear)),
        4 => (0..2_usize, mail(), prop::bool::weighted(0.3)).prop_map(|(key, mail, out)| Doing::Create(key, mail, out)),
        3 => (0..2_usize, 0..2_usize, mail()).prop_map(|(key, old, mail)| Doing::Change(key, old, mail)),
        4 => (0..2_usize).prop_map(Doing::Delete),
        1 => some().prop_map(Doing::Signal),
        1 => prop::bool::weighted(0.8).prop_map(Doing::Tell),
        1 => Just(Doing::Restart),
    ]
}

fn give((who, in_clear): (usize, bool)) -> Given {
    let (kind, value) = POOL[who];
    if in_clear { text(kind, value) } else { digest(kind, value) }
}

/// Does one thing. Returns what was given with it, if it was done: an account's own key is always given.
fn act(engine: &Engine, doing: &Doing, round: u8) -> Who {
    let people = |who: &Who| who.iter().map(|(who, _)| named(engine, POOL[*who].0, POOL[*who].1)).collect::<Vec<_>>();
    let given = |who: &Who| who.iter().copied().map(give).collect::<Vec<_>>();
    match doing {
        Doing::OptOut(who) => {
            submit(engine, NewRequest { given: given(who), ..opt_out(people(who)) }).expect("taken");
            who.clone()
        }
        Doing::Import(who) => {
            import(engine, round, vec![people(who)], given(who));
            who.clone()
        }
        Doing::Link(who) => {
            let (people, given) = (people(who), given(who));
            let linked = engine.submit_blocking(Lane::Interactive, move |ctx| intake::link(ctx, &people, &given, KEY));
            if linked.is_ok() { who.clone() } else { Vec::new() }
        }
        Doing::Unlink(who) => {
            let people = people(who);
            let _ = engine.submit_blocking(Lane::Interactive, move |ctx| intake::unlink(ctx, &people, KEY));
            Vec::new()
        }
        Doing::OptIn(who, in_clear) => {
            let who = vec![(*who, *in_clear)];
            let Ok(asked) = submit(engine, NewRequest { given: given(&who), ..opt_in(people(&who), PurposeSet::OPT_OUT_DEFAULT) }) else {
                return Vec::new();
            };
            confirm(engine, &asked).expect("confirmed");
            who
        }
        Doing::Create(key, mail, out) => {
            profile(engine, POOL[5 + key].1, POOL[mail.0].1, vec![give(*mail)], *out);
            vec![*mail, (5 + key, true)]
        }
        Doing::Change(key, old, mail) => {
            let exists = engine.read(|read| profiles::get(read, engine.shared(), &pkey(POOL[5 + key].1))).expect("reads").is_ok();
            if !exists {
                return Vec::new();
            }
            change(engine, POOL[5 + key].1, POOL[*old].1, Some(POOL[mail.0].1), &[give(*mail)]);
            vec![*mail, (5 + key, true)]
        }
        Doing::Delete(key) => {
            let _ = delete(engine, POOL[5 + key].1);
            Vec::new()
        }
        Doing::Signal(who) => {
            engine.note_signal(&people(who), &given(who), Context { gpc: true, age_band: None }, KEY);
            settle(engine);
            who.iter().copied().filter(|(who, _)| desist_engine::engine::is_recorded_for_signals(POOL[*who].0)).collect()
        }
        Doing::Tell(_) | Doing::Restart => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48 * crate::support::scale(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whoever_is_denied_and_was_ever_given_is_known(doings in prop::collection::vec(doing(), 1..40), seed in any::<u64>()) {
        let mut home = Home::new(seed);
        home.policy.kinds_told = Kind::ALL.into_iter().collect();
        let mut engine = home.open();
        // What must be known, by place in the pool: in clear or not.
        let mut expected = BTreeMap::<usize, bool>::new();
        for (round, doing) in (0_u8..).zip(&doings) {
            home.env.advance(1);
            match doing {
                Doing::Tell(on) => {
                    tell(&engine, if *on { &Kind::ALL } else { &[] });
                    home.policy.kinds_told = engine.shared().policy.load().kinds_told.clone();
                }
                Doing::Restart => {
                    engine.close();
                    drop(engine);
                    engine = home.open();
                }
                _ => {}
            }
            let (entries, changes, before) = (log(&engine).len() as u64, last_change(&engine), expected.clone());
            let given = act(&engine, doing, round);
            let row = |who: usize| {
                let no = number(&engine, named(&engine, POOL[who].0, POOL[who].1))?;
                engine.read(|read| read.identifier(no)).expect("reads").map(|row| (no, row))
            };
            if !home.policy.kinds_told.is_empty() {
                for (who, in_clear) in given {
                    if row(who).is_some() {
                        *expected.entry(who).or_insert(false) |= in_clear;
                    }
                }
            }
            // What an entry of this round took from somebody may be forgotten, if there is no reason to know it.
            let mut ended = BTreeSet::new();
            for entry in log(&engine).into_iter().filter(|entry| entry.seq > entries) {
                if let Fact::Unlinked { identifiers, .. } = entry.fact {
                    ended.extend(identifiers.into_iter().map(|IdRef(no, _)| no));
                }
            }
            expected.retain(|who, _| row(*who).is_some_and(|(no, row)| !ended.contains(&no) || row.holders > 0 || !row.line.denied().is_empty()));
            for (who, (kind, value)) in POOL.into_iter().enumerate() {
                prop_assert_eq!(form(&engine, kind, value), expected.get(&who).copied(), "{} {} after {:?}", kind, value, doing);
                // Whoever can be told with what is new is among the changes.
                if let Some((no, row)) = row(who)
                    && expected.get(&who) > before.get(&who)
                    && (row.holders > 0 || !row.line.is_empty())
                {
                    let parties = parties_after(&engine, changes);
                    let holders = engine.read(|read| read.holders(no)).expect("reads");
                    let told: Vec<_> = holders.into_iter().map(Party::Subject).collect();
                    let told = if told.is_empty() { vec![Party::Identifier(no)] } else { told };
                    prop_assert!(told.iter().all(|party| parties.contains(party)), "{} {} after {:?}", kind, value, doing);
                }
            }
        }
        audit(&engine);
        engine.close();
    }
}
