//! What a request led to is exported by the binary and checked by it, with no server.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use desist_core::calendar::parse_time_zone;
use desist_core::fact::{Actor, Channel, RequestKind};
use desist_core::identifier::{Identifier, Kind};
use desist_core::lane::{Assurance, Config, Level, Outcome};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Answered, Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{Class, Destination};
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_engine::intake::{self, NewRequest};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_store::Store;
use desist_store::sqlite::SqliteStore;
use serde_json::{Value, json};

use crate::proof::verify;
use crate::support::DESIST;

/// A destination that does what it is told.
struct Obeys;

impl Transport for Obeys {
    fn start(&self, _: Errand, _: Duration, done: Done) {
        done(Ended { answer: Some(Answered { status: 204, sha256: [0xab; 32] }), ..Ended::all(Outcome::Ok(Level::Applied)) });
    }

    fn reaches(&self, _: &Message) -> bool {
        true
    }
}

fn destination(id: &str, transport: Result<Arc<dyn Transport>, String>) -> Destination {
    Destination {
        id: id.to_owned(),
        connector: "test".to_owned(),
        class: Class::ThirdParty,
        purposes: PurposeSet::GPC,
        digest: [1; 32],
        lane: Config { floor: Level::Applied, ..Config::plain(1) },
        required: Level::Applied,
        ceiling: Level::Applied,
        resend_ms: None,
        through: None,
        owner: None,
        transport,
    }
}

/// A store in which one person opted out, one destination was told and another could not be. Returns the receipt code and the key.
fn told(data: &std::path::Path) -> (String, String) {
    let directory = data.to_owned();
    let policy = Policy {
        searched: Searched { sealed: Vec::new(), clear: Vec::new() },
        api_opt_in_own: true,
        time_zone: parse_time_zone("America/Los_Angeles").unwrap(),
        witnesses: Vec::new(),
        alerts: None,
        purposes: Vec::new(),
        kinds_told: BTreeSet::from([Kind::Email]),
    };
    let options = Options {
        business: Some("acme".to_owned()),
        keys: data.join("keys"),
        snapshot: None,
        policy,
        env: Arc::new(System),
        outbound: None,
        open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&directory)?) as Box<dyn Store>)),
    };
    let (engine, _) = Engine::open(options).unwrap();
    engine.deliver(vec![destination("crm", Ok(Arc::new(Obeys))), destination("ads", Err("no secret".to_owned()))]).unwrap();
    let (identifier, text) = Identifier::from_value(Kind::Email, "rosa@example.org").unwrap();
    let new = NewRequest {
        kind: RequestKind::OptOut,
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        named: vec![engine.named(&identifier)],
        channel: Channel::Form,
        acted_at: None,
        by: Actor::Consumer,
        evidence: b"{\"said\":\"stop\"}".to_vec(),
        given: engine.given(identifier, Some(text)).into_iter().collect(),
    };
    let accepted = engine.submit_blocking(Lane::Interactive, move |ctx| intake::request(ctx, &new)).unwrap();
    let row = engine.read(|read| read.request(accepted.id)).unwrap().unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let is_told =
        || engine.enforcement(&row).unwrap().1.iter().any(|one| one.id == "crm" && one.assurance == Assurance::At(Level::Applied));
    while !is_told() {
        assert!(std::time::Instant::now() < patience, "nobody was told");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let code = engine.shared().secrets.receipt_code(accepted.id);
    let key = engine.shared().notary.verifier().to_string();
    engine.close();
    (code, key)
}

#[test]
fn what_a_request_led_to_is_exported_and_checked_offline() {
    let directory = tempfile::tempdir().unwrap();
    let (data, here) = (directory.path().join("data"), directory.path());
    let (code, key) = told(&data);
    let export = |code: &str, more: &[&str]| {
        let data = data.to_str().unwrap();
        Command::new(DESIST).args(["export", "request", code, "--data", data]).args(more).current_dir(here).output().unwrap()
    };
    let written = export(&code, &["-o", "rosa.json"]);
    assert!(written.status.success(), "{written:?}");
    assert_eq!(export(&code, &["-o", "rosa.json"]).status.code(), Some(2), "nothing is written over");
    assert_eq!(export(&"0".repeat(26), &[]).status.code(), Some(1));
    let file = std::fs::read_to_string(here.join("rosa.json")).unwrap();
    let shown: Value = serde_json::from_slice(&export(&code, &[]).stdout).unwrap();
    assert_eq!(shown["deliveries"][0]["record"], serde_json::from_str::<Value>(&file).unwrap()["deliveries"][0]["record"]);

    let judge = |name: &str| {
        let output = verify(here, &[name, "--key", &key, "--json"]);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (status, report) = judge("rosa.json");
    assert_eq!((status, &report["result"], &report["type"]), (Some(0), &json!("good"), &json!("opted_out")), "{report}");
    let told = &report["deliveries"][0];
    assert_eq!(
        (&told["destination"], &told["level"], &told["status"], &told["version"]),
        (&json!("crm"), &json!("applied"), &json!(204), &report["seq"])
    );
    assert_eq!((&told["answer"], &told["named"], &told["since"]), (&json!("ab".repeat(16)), &json!(true), &json!(true)));
    assert_eq!(report["unproven"], json!([{ "destination": { "no": 2, "id": "ads" }, "state": "no record" }]));
    let words = String::from_utf8(verify(here, &["rosa.json", "--key", &key]).stdout).unwrap();
    for part in ["rosa.json: good", "\"crm\"", "applied", "status 204", "does not prove", "\"ads\": not proven"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!words.contains("rosa@"), "{words}");

    for (from, to, link, code) in [
        ("\"level\":\"applied\"", "\"level\":\"verified\"", "delivery record", 1),
        ("\"id\":\"crm\"", "\"id\":\"ads\"", "delivery destination", 1),
        ("\"place\":0", "\"place\":1", "delivery record", 1),
        ("\"status\":204", "\"status\":200", "delivery record", 1),
        ("\"status\":204", "\"status\":\"204\"", "format", 2),
    ] {
        assert!(file.contains(from), "{from}: {file}");
        std::fs::write(here.join("changed.json"), file.replacen(from, to, 1)).unwrap();
        let (status, report) = judge("changed.json");
        assert_eq!((status, report["link"].as_str()), (Some(code), Some(link)), "{from}: {report}");
    }

    // The page checks the receipt in it, and says that it does no more.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/verify.mjs");
    let page =
        Command::new("node").args([script, &key, "rosa.json"]).current_dir(here).output().expect("node is missing; run scripts/test");
    let page: Value = serde_json::from_slice(&page.stdout).unwrap();
    assert_eq!((&page["result"], &page["unchecked"]), (&json!("good"), &json!("deliveries")), "{page}");
}
