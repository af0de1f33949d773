//! `desist connector`, as somebody at a terminal uses it, and a shipped connector against an API that really answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use desist_connector::{
    Answer, Approvals, Auth, Call, Found, Given, Identifier, Instance, Manifest, Person, Secret, UnitOutcome, Verified, Whole,
};
use desist_core::identifier::Kind;
use serde_json::{Value, json};

use crate::support::{DESIST, Server, send};

fn connector(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(DESIST).arg("connector").args(arguments).current_dir(directory).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_manifest_is_started_checked_and_shown() {
    let temporary = tempfile::tempdir().unwrap();
    let here = temporary.path();
    let (code, said, _) = connector(here, &["new", "my-crm"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("my-crm.toml"), "{said}");
    let (code, _, error) = connector(here, &["new", "my-crm"]);
    assert!(code == Some(2) && error.contains("my-crm.toml"), "never over a file that is there: {error}");
    let (code, _, error) = connector(here, &["new", "../My"]);
    assert!(code == Some(2) && error.contains("a-z 0-9"), "{error}");
    assert_eq!(connector(here, &["lint", "my-crm.toml"]), (Some(0), "my-crm.toml: ok: my-crm\n".to_owned(), String::new()));
    let (code, said, _) = connector(here, &["show", "my-crm.toml"]);
    assert_eq!(code, Some(0));
    for part in ["my-crm version 1", "api.example.com", "PATCH /v1/contacts/{{id.email}}", "applied at most", "token (secret, required)"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    assert!(!said.contains("UNVERIFIED"), "what is not shipped is the reader's own");
    // Two mistakes, each on its line, and a file that is not there.
    let text = std::fs::read_to_string(here.join("my-crm.toml")).unwrap();
    let broken = text.replace("effect = \"flag\"", "effect = \"flags\"").replace("version = 1", "version = 0");
    std::fs::write(here.join("broken.toml"), broken).unwrap();
    let (code, said, error) = connector(here, &["lint", "broken.toml", "my-crm.toml"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((code, lines.len(), error.as_str()), (Some(1), 3, ""), "{said}");
    assert!(lines.iter().any(|line| line.starts_with("broken.toml:6:11: connector.version: ")), "{said}");
    assert!(lines.iter().any(|line| line.contains("op.0.effect") && line.contains("did you mean \"flag\"?")), "{said}");
    let (code, said, _) = connector(here, &["lint", "--json", "broken.toml", "my-crm.toml"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, report["files"][0]["problems"][0]["line"].as_u64(), report["files"][1]["id"].as_str()),
        (Some(1), Some(6), Some("my-crm"))
    );
    let (code, said, error) = connector(here, &["lint", "none.toml", "my-crm.toml"]);
    assert!(code == Some(2) && said.contains("ok: my-crm") && error.contains("none.toml"), "{said} {error}");
    std::fs::write(here.join("latin.toml"), b"title = \"\xe9\"").unwrap();
    assert_eq!(connector(here, &["lint", "latin.toml"]).0, Some(2));
    let (code, said, _) = connector(here, &["show", "broken.toml"]);
    assert!(code == Some(1) && said.contains("broken.toml:6:11"), "{said}");
    let (code, _, error) = connector(here, &["show", "sales"]);
    assert!(code == Some(2) && error.contains("adobe-campaign-standard, adobe-privacy-service"), "{error}");
}

#[test]
fn every_shipped_connector_is_shown() {
    let temporary = tempfile::tempdir().unwrap();
    for shipped in desist_connector::SHIPPED {
        let (code, said, error) = connector(temporary.path(), &["show", shipped.id]);
        assert_eq!(code, Some(0), "{error}");
        assert!(said.contains(shipped.id) && said.contains("op 0: opt_out") && said.contains("UNVERIFIED") != shipped.verified, "{said}");
        let (code, said, _) = connector(temporary.path(), &["show", shipped.id, "--json"]);
        let shown: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (code, &shown["manifest"]["connector"]["id"], &shown["unverified"]),
            (Some(0), &shipped.id.into(), &(!shipped.verified).into())
        );
        assert!(!said.contains("null"), "what was not written is not shown: {said}");
    }
}

/// The Campaign API of desist is Adobe's as its documentation and clients have it. The connector finds both profiles of an address,
/// opts them out, and reads that back.
#[test]
fn the_campaign_connector_opts_out_over_a_real_socket() {
    let server = Server::start();
    let host = server.private.strip_prefix("http://").expect("plain HTTP");
    let shipped = desist_connector::SHIPPED.iter().find(|shipped| shipped.id == "adobe-campaign-standard").unwrap();
    let manifest = Manifest::parse(shipped.text, shipped.id).unwrap();
    let given = BTreeMap::from([
        ("host".to_owned(), Given::Value(json!(host))),
        ("organization".to_owned(), Given::Value(json!("acme"))),
        ("api_key".to_owned(), Given::Secret(Secret::new(server.api_key.as_str()))),
        ("token".to_owned(), Given::Secret(Secret::new(server.token.as_str()))),
    ]);
    let instance = Instance::new(&manifest, &given, Approvals { http_loopback: true, ..Approvals::default() }).unwrap();
    let ask = |call: &Call| {
        let Auth::Bearer { token } = instance.auth() else { panic!("bearer") };
        let token = format!("Bearer {}", token.expose());
        let mut headers: Vec<_> = call.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        headers.push(("authorization", &token));
        let answer = send(call.method.name(), &call.url, &call.body, &headers);
        let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Answer { status: answer.status, headers: headers.collect(), body: answer.text.into_bytes() }
    };
    assert_eq!(instance.probe_result(&ask(&instance.probe_call().unwrap())), Whole::Done);
    let person = |email: &str, lookup: Vec<Value>| Person {
        token: 1,
        version: 1,
        at: 0,
        purposes: vec!["sale".to_owned()],
        status: "opt_out".to_owned(),
        identifiers: vec![Identifier { kind: Kind::Email, text: Some(email.to_owned()), sha256: None }],
        lookup,
    };
    let find = |email: &str| instance.lookup_result(&ask(&instance.lookup_calls(&person(email, Vec::new())).unwrap().0[0]));
    assert_eq!(find("rosa+1@example.org"), Found::Absent);
    for name in ["Rosa", "Rosita"] {
        let profile = json!({ "email": "rosa+1@example.org", "firstName": name });
        assert_eq!(server.post("/acme/campaign/profileAndServices/profile/", &profile).status, 201);
    }
    let Found::Rows(rows) = find("rosa+1@example.org") else { panic!("both profiles are found") };
    assert_eq!(rows.len(), 2);
    let rosa = person("rosa+1@example.org", rows);
    let read_back =
        || -> Vec<_> { instance.verify_calls(&rosa).unwrap().0.iter().map(|call| instance.verify_result(&ask(call))).collect() };
    assert_eq!(read_back(), [Verified::Dirty, Verified::Dirty]);
    let (calls, left) = instance.calls(0, std::slice::from_ref(&rosa)).unwrap();
    assert_eq!((calls.len(), left.len()), (2, 0));
    for call in &calls {
        let verdict = instance.judge(call, &ask(call));
        assert_eq!((verdict.whole, verdict.units), (Whole::Done, vec![UnitOutcome::Applied]));
    }
    assert_eq!(read_back(), [Verified::Clean, Verified::Clean]);
    let gone = person("rosa+1@example.org", vec![json!("@nobody")]);
    let call = &instance.calls(0, &[gone]).unwrap().0[0];
    assert_eq!(instance.judge(call, &ask(call)).units, [UnitOutcome::Absent]);
}
