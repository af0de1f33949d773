//! The JSON API from outside.

use serde_json::json;

use crate::support::Server;

#[test]
fn an_opt_out_denies_at_once_and_through_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(directory.path(), &[]);
    assert_eq!(server.decide("email", "rosa@example.org"), ("allow".into(), "no_record".into()));
    let body = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "Rosa@Example.org" }] });
    let answer = server.post("/v1/requests", &body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(server.decide("email", "rosa@example.org"), ("deny".into(), "opted_out".into()));
    assert!(server.stop().success());
    let server = Server::start_in(directory.path(), &[]);
    assert_eq!(server.decide("email", "rosa@example.org"), ("deny".into(), "opted_out".into()));
    let check = server.run(&["check"]);
    assert!(check.status.success(), "{check:?}");
}
