//! `desist connector`, as somebody at a terminal uses it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::DESIST;

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
