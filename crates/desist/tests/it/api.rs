//! The JSON API from outside.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{self, Answer, Server, pointers, until};

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

/// The four roles, least first.
const ROLES: [&str; 4] = ["auditor", "reader", "writer", "admin"];

/// Every endpoint of the JSON API and the least role that may use it; the document must list these and
/// no others.
const ENDPOINTS: [(&str, &str, &str); 19] = [
    ("POST", "/v1/requests", "writer"),
    ("GET", "/v1/requests/{id}", "auditor"),
    ("POST", "/v1/requests/{id}/confirm", "writer"),
    ("POST", "/v1/decisions", "reader"),
    ("POST", "/v1/identifiers/link", "writer"),
    ("POST", "/v1/identifiers/unlink", "writer"),
    ("POST", "/v1/subjects/lookup", "reader"),
    ("POST", "/v1/subjects/assurance", "auditor"),
    ("GET", "/v1/destinations", "auditor"),
    ("GET", "/v1/destinations/{id}", "auditor"),
    ("GET", "/v1/destinations/{id}/parked", "auditor"),
    ("POST", "/v1/destinations/{id}/replay", "admin"),
    ("POST", "/v1/destinations/{id}/pause", "admin"),
    ("POST", "/v1/destinations/{id}/resume", "admin"),
    ("POST", "/v1/destinations/{id}/try", "admin"),
    ("POST", "/v1/destinations/{id}/done", "admin"),
    ("POST", "/v1/keys", "admin"),
    ("GET", "/v1/keys", "admin"),
    ("DELETE", "/v1/keys/{no}", "admin"),
];
const OPEN: [&str; 6] = ["/livez", "/readyz", "/healthz", "/metrics", "/connection", "/openapi.json"];

const CONFIG: &str = r#"
[[sites]]
id = "shop"
url = "https://shop.example.com"

[[purposes]]
name = "email_marketing"
model = "opt_in"

[[destinations]]
id = "crm"
connector = "webhook"
class = "internal"
settings = { host = "crm.invalid", secret = { env = "DESIST_TEST_NOT_SET" } }
"#;

/// The address of an endpoint, about this request or the destination of the configuration.
fn address(path: &str, request: &Value) -> String {
    let id = if path.starts_with("/v1/destinations") { "crm" } else { request["id"].as_str().unwrap() };
    path.replace("{id}", id)
}

fn configured(toml: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("desist.toml"), toml).unwrap();
    let server = Server::start_in(directory.path(), &[]);
    (directory, server)
}

fn entries(server: &Server) -> u64 {
    let text = server.send("GET", "/metrics", b"", &[]).text;
    let line = text.lines().find_map(|line| line.strip_prefix("desist_log_entries ")).unwrap_or_else(|| panic!("no log size: {text}"));
    line.parse().expect("a number")
}

fn id(kind: &str, value: &str) -> Value {
    json!({ "kind": kind, "value": value })
}

fn opt_out(identifiers: &[Value]) -> Value {
    json!({ "kind": "opt_out", "channel": "form", "identifiers": identifiers })
}

fn taken(server: &Server, body: &Value) -> Value {
    let answer = server.post("/v1/requests", body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn ask(server: &Server, purpose: &str, identifiers: &[Value], headers: &[(&str, &str)]) -> (String, String) {
    let body = json!({ "purpose": purpose, "identifiers": identifiers });
    let answer = server.send("POST", "/v1/decisions", body.to_string().as_bytes(), headers);
    assert_eq!(answer.status, 200, "{}", answer.text);
    verdict(&answer.json())
}

fn verdict(answer: &Value) -> (String, String) {
    (answer["decision"].as_str().expect("a word").to_owned(), answer["reason"].as_str().expect("a word").to_owned())
}

fn says(decision: &str, reason: &str) -> (String, String) {
    (decision.to_owned(), reason.to_owned())
}

/// Checks that an answer is a problem document, and returns its code and pointer.
fn problem(answer: &Answer) -> (u16, String, Option<String>) {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["status"], answer.status);
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{body}");
    (answer.status, body["code"].as_str().expect("a code").to_owned(), body["pointer"].as_str().map(str::to_owned))
}

#[test]
fn every_problem_has_its_code() {
    let (_directory, server) = configured(CONFIG);
    let rosa = [id("email", "rosa@example.org")];
    let opt_in = json!({ "kind": "opt_in", "channel": "form", "identifiers": rosa });
    let with = |base: &Value, name: &str, value: Value| {
        let mut body = base.clone();
        body[name] = value;
        body
    };
    let base = opt_out(&rosa);
    let two = json!([id("email", "a@example.org"), id("email", "b@example.org")]);
    let waiting = taken(&server, &opt_in);
    let confirm = format!("/v1/requests/{}/confirm", waiting["id"].as_str().unwrap());
    let before = entries(&server);
    let ident = |value: Value| with(&base, "identifiers", json!([value]));
    for (path, body, status, code, pointer) in [
        ("/v1/requests", with(&base, "kind", json!("opt-out")), 422, "invalid", Some("/kind")),
        ("/v1/requests", with(&base, "purpose", json!("sale")), 422, "unknown_member", Some("/purpose")),
        ("/v1/requests", json!({ "kind": "opt_out", "channel": "form" }), 422, "missing_member", Some("/identifiers")),
        ("/v1/requests", with(&base, "identifiers", json!([])), 422, "invalid", Some("/identifiers")),
        ("/v1/requests", with(&base, "identifiers", json!(vec![id("email", "a@b.co"); 33])), 422, "invalid", Some("/identifiers")),
        ("/v1/requests", ident(id("email", "no address")), 422, "invalid", Some("/identifiers/0/value")),
        ("/v1/requests", ident(id("phone", "911")), 422, "invalid", Some("/identifiers/0/value")),
        ("/v1/requests", ident(id("maid", "00000000-0000-0000-0000-000000000000")), 422, "invalid", Some("/identifiers/0/value")),
        ("/v1/requests", ident(id("cookie_id", " ")), 422, "invalid", Some("/identifiers/0/value")),
        ("/v1/requests", ident(json!({ "kind": "email", "sha256": "beef" })), 422, "invalid", Some("/identifiers/0/sha256")),
        ("/v1/requests", ident(json!({ "kind": "email" })), 422, "invalid", Some("/identifiers/0")),
        (
            "/v1/requests",
            ident(json!({ "kind": "email", "value": "a@b.co", "sha256": "0".repeat(64) })),
            422,
            "invalid",
            Some("/identifiers/0"),
        ),
        ("/v1/requests", with(&base, "purposes", json!([])), 422, "invalid", Some("/purposes")),
        ("/v1/requests", with(&base, "purposes", json!(["sale", "resale"])), 422, "invalid", Some("/purposes/1")),
        ("/v1/requests", with(&base, "received_at", json!("2999-01-01T00:00:00Z")), 422, "future", Some("/received_at")),
        ("/v1/requests", with(&base, "received_at", json!("yesterday")), 422, "invalid", Some("/received_at")),
        ("/v1/requests", with(&base, "jurisdiction", json!("California")), 422, "invalid", Some("/jurisdiction")),
        ("/v1/requests", with(&base, "site", json!("nowhere")), 422, "invalid", Some("/site")),
        ("/v1/requests", with(&base, "channel", json!("agent")), 422, "missing_member", Some("/agent")),
        ("/v1/requests", with(&base, "agent", json!({ "name": "x" })), 422, "invalid", Some("/agent")),
        ("/v1/requests", with(&opt_in, "received_at", json!("2026-01-01T00:00:00Z")), 422, "invalid", Some("/received_at")),
        ("/v1/requests", with(&opt_in, "channel", json!("api")), 422, "not_the_consumer", Some("/channel")),
        ("/v1/requests", with(&opt_in, "channel", json!("import")), 422, "not_the_consumer", Some("/channel")),
        ("/v1/requests", with(&opt_in, "channel", json!("operator")), 422, "not_the_consumer", Some("/channel")),
        ("/v1/requests", with(&opt_in, "identifiers", two.clone()), 422, "not_one_subject", Some("/identifiers")),
        ("/v1/identifiers/link", json!({ "identifiers": rosa }), 422, "nothing_to_link", Some("/identifiers")),
        ("/v1/identifiers/unlink", json!({ "identifiers": rosa }), 422, "nothing_to_link", Some("/identifiers")),
        ("/v1/decisions", json!({ "purpose": "resale", "identifiers": rosa }), 422, "invalid", Some("/purpose")),
        ("/v1/decisions", json!({ "purpose": "sale" }), 422, "invalid", Some("/identifiers")),
        ("/v1/decisions", json!({ "purpose": "sale", "identifiers": rosa, "subjects": [] }), 422, "invalid", Some("/identifiers")),
        ("/v1/decisions", json!({ "purpose": "sale", "subjects": [], "context": {} }), 422, "invalid", Some("/context")),
        (
            "/v1/decisions",
            json!({ "purpose": "sale", "identifiers": rosa, "context": { "destination": "x" } }),
            422,
            "invalid",
            Some("/context/destination"),
        ),
        (
            "/v1/decisions",
            json!({ "purpose": "sale", "subjects": [{ "identifiers": rosa }, { "identifiers": [] }] }),
            422,
            "invalid",
            Some("/subjects/1/identifiers"),
        ),
        ("/v1/keys", json!({ "name": "\n", "role": "reader" }), 422, "invalid", Some("/name")),
        ("/v1/keys", json!({ "name": "x", "role": "root" }), 422, "invalid", Some("/role")),
        (&confirm, json!({ "confirm_token": "x" }), 422, "wrong_token", Some("/confirm_token")),
        ("/v1/requests/00000000000000000000000000/confirm", json!({ "confirm_token": "x" }), 404, "not_found", None),
        ("/v1/requests/../x/confirm", json!({ "confirm_token": "x" }), 404, "not_found", None),
        ("/v1/nothing", json!({}), 404, "not_found", None),
        ("/v1/keys/1", json!({}), 405, "method_not_allowed", None),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(problem(&answer), (status, code.to_owned(), pointer.map(str::to_owned)), "{path} {body}: {}", answer.text);
    }
    for (body, code) in [
        (&b""[..], "malformed_json"),
        (b"{", "malformed_json"),
        (b"{} {}", "missing_member"),
        (b"\xff", "malformed_json"),
        (b"[]", "invalid"),
        (b"null", "invalid"),
    ] {
        let answer = server.send("POST", "/v1/requests", body, &[]);
        let (status, found, _) = problem(&answer);
        assert_eq!((status, &*found), (if code == "malformed_json" { 400 } else { 422 }, code), "{body:?}");
    }
    for (method, path, headers, status, code) in [
        ("GET", "/v1/keys", [("authorization", "Bearer wrong")], 401, "token_invalid"),
        ("GET", "/v1/keys", [("authorization", "Basic eA==")], 401, "token_missing"),
        ("GET", "/v1/requests/no-id", [("x", "y")], 404, "not_found"),
        ("GET", "/v1/requests/%ff", [("x", "y")], 404, "not_found"),
        ("POST", "/v1/requests/%ff/confirm", [("x", "y")], 404, "not_found"),
        ("DELETE", "/v1/keys/99", [("x", "y")], 404, "not_found"),
        ("DELETE", "/v1/keys/-1", [("x", "y")], 404, "not_found"),
        ("DELETE", "/v1/keys/%ff", [("x", "y")], 404, "not_found"),
        ("GET", "/", [("x", "y")], 404, "not_found"),
        ("POST", "/livez", [("x", "y")], 405, "method_not_allowed"),
        ("POST", "/v1/requests", [("idempotency-key", "")], 400, "idempotency_key_invalid"),
    ] {
        let body: &[u8] = if path.ends_with("confirm") { br#"{"confirm_token":"x"}"# } else { b"" };
        let body = if code == "idempotency_key_invalid" { base.to_string().into_bytes() } else { body.to_vec() };
        let answer = server.send(method, path, &body, &headers);
        assert_eq!(problem(&answer), (status, code.to_owned(), None), "{method} {path}");
        assert_eq!(answer.headers.get("www-authenticate").is_some(), status == 401);
    }
    let long = "k".repeat(256);
    let answer = server.send("POST", "/v1/requests", base.to_string().as_bytes(), &[("idempotency-key", &long)]);
    assert_eq!(problem(&answer).1, "idempotency_key_invalid");
    let answer = server.send("POST", "/v1/decisions", &vec![b' '; (8 << 20) + 1], &[]);
    assert_eq!(problem(&answer), (413, "body_too_large".to_owned(), None));
    assert_eq!(entries(&server), before, "no refusal leaves anything in the log");

    // Of as many identifiers as one person can have, the next is one too many.
    let many = |from: usize| json!({ "identifiers": std::iter::once(id("customer_id", "C-1")).chain((from..from + 31).map(|n| id("cookie_id", &format!("c{n}")))).collect::<Vec<_>>() });
    for at in 0..8 {
        assert_eq!(server.post("/v1/identifiers/link", &many(at * 31)).status, 200);
    }
    let answer = server.post("/v1/identifiers/link", &many(8 * 31));
    assert_eq!(problem(&answer), (422, "holds_too_many".to_owned(), Some("/identifiers".to_owned())));
}

#[test]
fn every_role_may_do_what_its_name_says() {
    let (_directory, server) = configured(CONFIG);
    let rosa = [id("email", "rosa@example.org")];
    let request = taken(&server, &opt_out(&rosa));
    let mut tokens = Vec::new();
    for role in ROLES {
        let answer = server.post("/v1/keys", &json!({ "name": role, "role": role }));
        assert_eq!(answer.status, 201);
        tokens.push((role, format!("Bearer {}", answer.json()["token"].as_str().unwrap())));
    }
    let two = json!({ "identifiers": [rosa[0], id("cookie_id", "c-1")] });
    let mut checked = 0;
    for (place, (role, token)) in tokens.iter().enumerate() {
        for (method, path, least) in ENDPOINTS {
            let body = match path {
                "/v1/requests" => opt_out(&rosa),
                "/v1/requests/{id}/confirm" => json!({ "confirm_token": "x" }),
                "/v1/decisions" => json!({ "purpose": "sale", "identifiers": rosa }),
                "/v1/keys" => json!({ "name": "new", "role": "auditor" }),
                "/v1/destinations/{id}/replay" => json!({ "all": true }),
                "/v1/destinations/{id}/done" => json!({ "through": 1, "by": "Ada" }),
                _ if path.starts_with("/v1/destinations") => json!({}),
                _ => two.clone(),
            };
            // Key 99 is nobody's: what is asked here is whether the role may ask.
            let url = address(path, &request).replace("{no}", "99");
            let body = if method == "POST" { body.to_string().into_bytes() } else { Vec::new() };
            let (entries_before, answer) = (entries(&server), server.send(method, &url, &body, &[("authorization", token)]));
            let may = place >= ROLES.iter().position(|role| *role == least).unwrap();
            if may {
                let expected: &[u16] = match (method, path) {
                    // It waits for no confirmation; it is told by its connector, and not by hand.
                    ("POST", "/v1/requests/{id}/confirm" | "/v1/destinations/{id}/done") => &[409],
                    ("DELETE", _) => &[404],
                    ("POST", path) if path.starts_with("/v1/destinations") => &[200, 204, 409],
                    _ => &[200, 201],
                };
                assert!(expected.contains(&answer.status), "{role} {method} {path}: {}", answer.text);
            } else {
                assert_eq!(problem(&answer), (403, "forbidden".to_owned(), None), "{role} {method} {path}");
                assert!(answer.text.contains(least), "it says which role is needed: {}", answer.text);
                assert_eq!(entries(&server), entries_before);
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 76);
}

#[test]
fn keys_are_made_listed_and_ended() {
    let server = Server::start();
    let made = server.post("/v1/keys", &json!({ "name": "crm", "role": "reader" }));
    assert_eq!(made.status, 201);
    let made = made.json();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let question = json!({ "purpose": "sale", "identifiers": [id("email", "rosa@example.org")] }).to_string();
    let ask = || server.send("POST", "/v1/decisions", question.as_bytes(), &[("authorization", &token)]);
    assert_eq!(ask().status, 200, "in effect at once");
    let list = server.send("GET", "/v1/keys", b"", &[]);
    assert!(!list.text.contains(made["token"].as_str().unwrap()) && !list.text.contains(made["api_key"].as_str().unwrap()), "shown once");
    let keys = list.json();
    let names: Vec<_> =
        keys["keys"].as_array().unwrap().iter().map(|key| (key["name"].as_str().unwrap(), key["role"].as_str().unwrap())).collect();
    assert_eq!(names, [("first admin", "admin"), ("crm", "reader")]);
    assert_eq!(keys["keys"][1]["no"], made["no"]);
    let url = format!("/v1/keys/{}", made["no"]);
    let before = entries(&server);
    assert_eq!(server.send("DELETE", &url, b"", &[]).status, 204);
    assert_eq!(problem(&ask()).1, "token_invalid", "ended at once");
    assert_eq!((server.send("DELETE", &url, b"", &[]).status, entries(&server) - before), (204, 1), "twice is once");
    assert!(server.send("GET", "/v1/keys", b"", &[]).json()["keys"][1]["revoked_at"].is_string());
    // The same request again gives the same key, not a second one.
    let body = json!({ "name": "etl", "role": "writer" }).to_string();
    let again = || server.send("POST", "/v1/keys", body.as_bytes(), &[("idempotency-key", "k-1")]);
    let (first, second) = (again(), again());
    assert_eq!((first.status, &first.text), (second.status, &second.text));
    assert_eq!(server.send("GET", "/v1/keys", b"", &[]).json()["keys"].as_array().unwrap().len(), 3);
}

#[test]
fn requests_are_answered_and_shown_with_their_deadlines() {
    let (_directory, server) = configured(CONFIG);
    let mut body = opt_out(&[id("email", "rosa@example.org")]);
    body["channel"] = json!("agent");
    body["received_at"] = json!("2026-03-02T18:00:00Z");
    body["jurisdiction"] = json!("us-ca");
    body["site"] = json!("shop");
    body["agent"] = json!({ "name": "Agents Inc", "permission": "signed" });
    let made = taken(&server, &body);
    assert_eq!((&made["status"], &made["deadline_conventional"]), (&json!("received"), &json!("2026-03-23")), "fifteen business days");
    assert!(made["deadline"].as_str() <= made["deadline_conventional"].as_str(), "{made}");
    assert_eq!(made["receipt_code"].as_str().map(str::len), Some(26));
    assert!(made.get("confirm_token").is_none());
    let shown = server.send("GET", &format!("/v1/requests/{}", made["id"].as_str().unwrap()), b"", &[]);
    assert_eq!(shown.status, 200);
    let shown = shown.json();
    for name in ["id", "status", "deadline", "deadline_conventional", "seq"] {
        assert_eq!(shown[name], made[name], "{name}");
    }
    assert_eq!(
        (&shown["kind"], &shown["channel"], &shown["received_at"], &shown["unreached"]),
        (&json!("opt_out"), &json!("agent"), &json!("2026-03-02T18:00:00Z"), &json!(0))
    );
    assert_eq!(shown["purposes"], json!(["sale", "sharing", "targeted_advertising"]));
    // The digest of the normal form is the same person.
    let digest = "d0c1b3c3ac6f0dfb7ea1e8e2ac4d0b1cd0f2fbd3a8a5d8a8c4f6d5f0a3a6c1b2";
    assert_eq!(ask(&server, "sale", &[json!({ "kind": "email", "sha256": digest })], &[]), says("allow", "no_record"));
    let digest = hex(&Sha256::digest("rosa@example.org"));
    assert_eq!(ask(&server, "sale", &[json!({ "kind": "email", "sha256": digest })], &[]), says("deny", "opted_out"));
    assert_eq!(
        ask(&server, "sale", &[json!({ "kind": "customer_id", "sha256": digest })], &[]),
        says("allow", "no_record"),
        "with its kind"
    );
    // A limit is about sensitive information, and nothing else.
    let limit = taken(&server, &json!({ "kind": "limit", "channel": "toggle", "identifiers": [id("email", "ivo@example.org")] }));
    assert_eq!(limit["status"], "received");
    assert_eq!(ask(&server, "limit_sensitive", &[id("email", "ivo@example.org")], &[]).0, "deny");
    assert_eq!(ask(&server, "sale", &[id("email", "ivo@example.org")], &[]).0, "allow");
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_signal_denies_at_once_and_is_recorded_once_for_a_device() {
    let server = Server::start();
    let gpc = [("sec-gpc", "1")];
    let cookie = [id("cookie_id", "browser-1")];
    let start = entries(&server);
    // Without a device or account it is honoured and not kept.
    assert_eq!(ask(&server, "sale", &[id("email", "rosa@example.org")], &gpc), says("deny", "gpc"));
    for purpose in ["profiling", "limit_sensitive", "admt"] {
        assert_eq!(ask(&server, purpose, &cookie, &[("sec-gpc", "0")]), says("allow", "no_record"), "{purpose}");
    }
    assert_eq!(ask(&server, "sale", &cookie, &[("sec-gpc", "0")]), says("allow", "no_record"), "0 is no signal");
    // A list has its signals in its items.
    let list = json!({ "purpose": "sale", "subjects": [
        { "identifiers": [id("cookie_id", "browser-8")] },
        { "identifiers": [id("email", "gpc@example.org")], "context": { "gpc": true } },
        { "identifiers": [id("cookie_id", "browser-9")], "context": { "gpc": false } },
    ]});
    let decisions = server.send("POST", "/v1/decisions", list.to_string().as_bytes(), &gpc).json();
    let decisions: Vec<_> = decisions["decisions"].as_array().unwrap().iter().map(verdict).collect();
    assert_eq!(decisions, [says("allow", "no_record"), says("deny", "gpc"), says("allow", "no_record")]);

    for purpose in ["sale", "sharing", "targeted_advertising"] {
        assert_eq!(ask(&server, purpose, &cookie, &gpc), says("deny", "gpc"), "{purpose}");
    }
    until("the signal is recorded", || ask(&server, "sale", &cookie, &[]) == says("deny", "device"));
    for purpose in ["sharing", "targeted_advertising"] {
        assert_eq!(ask(&server, purpose, &cookie, &[]), says("deny", "device"), "{purpose}");
    }
    for purpose in ["profiling", "limit_sensitive", "admt"] {
        assert_eq!(ask(&server, purpose, &cookie, &gpc), says("allow", "no_record"), "{purpose}");
    }
    assert_eq!(entries(&server) - start, 1, "one entry, however many signals");
    for _ in 0..20 {
        assert_eq!(ask(&server, "sale", &cookie, &gpc), says("deny", "gpc"));
    }
    // Notes are worked off in order: when the next one is there, the twenty would be too.
    assert_eq!(ask(&server, "sale", &[id("device_id", "fence")], &gpc), says("deny", "gpc"));
    until("the fence is recorded", || ask(&server, "sale", &[id("device_id", "fence")], &[]).0 == "deny");
    assert_eq!(entries(&server) - start, 2);
    for unrecorded in
        [id("email", "rosa@example.org"), id("email", "gpc@example.org"), id("cookie_id", "browser-8"), id("cookie_id", "browser-9")]
    {
        assert_eq!(ask(&server, "sale", &[unrecorded], &[]), says("allow", "no_record"));
    }

    // The device's word follows to the account that logs in, and to the account's other devices.
    let link = |identifiers: Value| assert_eq!(server.post("/v1/identifiers/link", &json!({ "identifiers": identifiers })).status, 200);
    link(json!([id("customer_id", "A"), id("cookie_id", "browser-2")]));
    assert_eq!(ask(&server, "sale", &[id("customer_id", "A")], &[]).0, "allow");
    link(json!([id("customer_id", "A"), id("cookie_id", "browser-1")]));
    assert_eq!(ask(&server, "sale", &[id("customer_id", "A")], &[]), says("deny", "opted_out"));
    assert_eq!(ask(&server, "sale", &[id("cookie_id", "browser-2")], &[]), says("deny", "linked"));
    assert_eq!(ask(&server, "profiling", &[id("customer_id", "A")], &[]).0, "allow");
    // One hop: an account that shares one of the other devices is not itself denied.
    link(json!([id("customer_id", "B"), id("cookie_id", "browser-2")]));
    assert_eq!(ask(&server, "sale", &[id("customer_id", "B")], &[]), says("allow", "no_record"));
    assert_eq!(
        ask(&server, "sale", &[id("customer_id", "B"), id("cookie_id", "browser-2")], &[]),
        says("deny", "linked"),
        "decisions that name that device are"
    );
    // An account that shares the device itself is.
    link(json!([id("customer_id", "C"), id("cookie_id", "browser-1")]));
    assert_eq!(ask(&server, "sale", &[id("customer_id", "C")], &[]).0, "deny");
    // Unlinking allows nobody again.
    let unlink = server.post(
        "/v1/identifiers/unlink",
        &json!({ "identifiers": [id("customer_id", "A"), id("cookie_id", "browser-1"), id("cookie_id", "browser-2")] }),
    );
    assert_eq!((unlink.status, &unlink.json()["changed"]), (200, &json!(true)));
    for (kind, value) in [("customer_id", "A"), ("cookie_id", "browser-1"), ("cookie_id", "browser-2")] {
        assert_eq!(ask(&server, "sale", &[id(kind, value)], &[]).0, "deny", "{value}");
    }
    let known =
        server.post("/v1/subjects/lookup", &json!({ "identifiers": [id("cookie_id", "browser-1"), id("cookie_id", "nobody's")] })).json();
    assert_eq!(
        (&known["identifiers"][0]["known"], &known["identifiers"][0]["denied"]),
        (&json!(true), &json!(["sale", "sharing", "targeted_advertising"]))
    );
    assert_eq!(known["identifiers"][1]["known"], false);
    assert!(server.run(&["check"]).status.success());
}

#[test]
fn an_opt_in_takes_two_steps() {
    let (_directory, server) = configured(CONFIG);
    let rosa = [id("email", "rosa@example.org")];
    assert_eq!(ask(&server, "email_marketing", &rosa, &[]), says("deny", "not_opted_in"));
    taken(&server, &opt_out(&rosa));
    let asked =
        taken(&server, &json!({ "kind": "opt_in", "channel": "form", "identifiers": rosa, "purposes": ["sale", "email_marketing"] }));
    assert_eq!(asked["status"], "awaiting_confirmation");
    let url = format!("/v1/requests/{}/confirm", asked["id"].as_str().unwrap());
    let unchanged = || {
        assert_eq!(ask(&server, "sale", &rosa, &[]), says("deny", "opted_out"));
        assert_eq!(ask(&server, "email_marketing", &rosa, &[]), says("deny", "not_opted_in"));
    };
    unchanged();
    let other = taken(&server, &json!({ "kind": "opt_in", "channel": "form", "identifiers": [id("email", "ivo@example.org")] }));
    for token in ["", "x", other["confirm_token"].as_str().unwrap(), asked["receipt_code"].as_str().unwrap()] {
        assert_eq!(problem(&server.post(&url, &json!({ "confirm_token": token }))).1, "wrong_token", "{token}");
        unchanged();
    }
    let confirmed = server.post(&url, &json!({ "confirm_token": asked["confirm_token"] }));
    assert_eq!((confirmed.status, &confirmed.json()["status"]), (200, &json!("confirmed")));
    assert_eq!(ask(&server, "sale", &rosa, &[]), says("allow", "opted_in"));
    assert_eq!(ask(&server, "email_marketing", &rosa, &[]), says("allow", "opted_in"));
    assert_eq!(ask(&server, "sharing", &rosa, &[]), says("deny", "opted_out"), "only what was asked");
    let before = entries(&server);
    assert_eq!(problem(&server.post(&url, &json!({ "confirm_token": asked["confirm_token"] }))), (409, "not_waiting".to_owned(), None));
    assert_eq!(entries(&server), before);
    // A signal in the request wins over stored consent.
    assert_eq!(ask(&server, "sale", &rosa, &[("sec-gpc", "1")]), says("deny", "gpc"));
    // And a later opt-out over both.
    taken(&server, &opt_out(&rosa));
    assert_eq!(ask(&server, "sale", &rosa, &[]), says("deny", "opted_out"));
    // The confirmation of an opt-out is no thing.
    let plain = taken(&server, &opt_out(&rosa));
    let url = format!("/v1/requests/{}/confirm", plain["id"].as_str().unwrap());
    assert_eq!(problem(&server.post(&url, &json!({ "confirm_token": "x" }))).1, "not_waiting");
}

#[test]
fn a_repeated_request_is_one_request() {
    let server = Server::start();
    let body = opt_out(&[id("email", "rosa@example.org")]);
    let send = |key: &str, body: &Value, headers: &[(&str, &str)]| {
        let all: Vec<_> = [("idempotency-key", key)].iter().chain(headers).copied().collect();
        server.send("POST", "/v1/requests", body.to_string().as_bytes(), &all)
    };
    let before = entries(&server);
    let first = send("k-1", &body, &[]);
    assert_eq!(first.status, 201);
    let again = send("k-1", &body, &[]);
    assert_eq!((again.status, again.text), (201, first.text.clone()), "receipt code and all");
    assert_eq!(entries(&server) - before, 1);
    let other = opt_out(&[id("email", "ivo@example.org")]);
    assert_eq!(problem(&send("k-1", &other, &[])), (422, "idempotency_key_reused".to_owned(), None));
    assert_eq!(server.decide("email", "ivo@example.org").0, "allow");
    // Another caller's keys, and another route's, are others.
    let caller = server.post("/v1/keys", &json!({ "name": "other", "role": "writer" })).json();
    let token = format!("Bearer {}", caller["token"].as_str().unwrap());
    let theirs = send("k-1", &other, &[("authorization", &token)]);
    assert_eq!(theirs.status, 201);
    assert_ne!(theirs.json()["id"], first.json()["id"]);
    let link = json!({ "identifiers": [id("email", "rosa@example.org"), id("cookie_id", "c")] }).to_string();
    let link = |path: &str| server.send("POST", path, link.as_bytes(), &[("idempotency-key", "k-1")]);
    let (linked, unlinked) = (link("/v1/identifiers/link"), link("/v1/identifiers/unlink"));
    assert_eq!(
        (linked.status, &linked.json()["changed"], unlinked.status, &unlinked.json()["changed"]),
        (200, &json!(true), 200, &json!(true))
    );
    assert_eq!(link("/v1/identifiers/link").text, linked.text, "the first answer, though it would change something now");
    // What failed is not kept.
    let mut future = body.clone();
    future["received_at"] = json!("2999-01-01T00:00:00Z");
    assert_eq!(problem(&send("k-2", &future, &[])).1, "future");
    assert_eq!(send("k-2", &body, &[]).status, 201);
    // Confirmations too.
    let asked = send("k-3", &json!({ "kind": "opt_in", "channel": "form", "identifiers": [id("email", "ivo@example.org")] }), &[]).json();
    let url = format!("/v1/requests/{}/confirm", asked["id"].as_str().unwrap());
    let confirm = json!({ "confirm_token": asked["confirm_token"] }).to_string();
    let confirm = || server.send("POST", &url, confirm.as_bytes(), &[("idempotency-key", "k-4")]);
    let (first, second) = (confirm(), confirm());
    assert_eq!((first.status, &first.text), (200, &second.text));
    // At the same moment: one entry, one answer.
    let body = opt_out(&[id("email", "busy@example.org")]);
    let before = entries(&server);
    let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| send("k-5", &body, &[]))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).map(|answer| (answer.status, answer.text)).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 201), "{answers:?}");
    assert_eq!(entries(&server) - before, 1);
}

#[test]
fn a_decision_can_ask_for_what_it_must_know() {
    let server = Server::start();
    let rosa = [id("email", "rosa@example.org")];
    let seq = taken(&server, &opt_out(&rosa))["seq"].as_u64().unwrap();
    let ask =
        |min_seq: u64| server.post("/v1/decisions", &json!({ "purpose": "profiling", "identifiers": rosa, "min_seq": min_seq })).json();
    let known = ask(seq);
    assert_eq!(verdict(&known), says("allow", "no_record"));
    assert!(known["as_of"].as_u64() >= Some(seq));
    assert_eq!(verdict(&ask(seq + 1000)), says("deny", "stale"), "what cannot be known is denied");
    let list = server
        .post("/v1/decisions", &json!({ "purpose": "profiling", "subjects": [{ "identifiers": rosa }], "min_seq": seq + 1000 }))
        .json();
    assert_eq!(verdict(&list["decisions"][0]), says("deny", "stale"));
}

#[test]
fn a_list_of_ten_thousand_is_decided_in_order() {
    let server = Server::start();
    taken(&server, &opt_out(&[id("customer_id", "C-7777")]));
    let subjects: Vec<Value> = (0..10_001).map(|n| json!({ "identifiers": [id("customer_id", &format!("C-{n}"))] })).collect();
    let answer = server.post("/v1/decisions", &json!({ "purpose": "sale", "subjects": subjects[..10_000] }));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let decisions = answer.json();
    let decisions = decisions["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 10_000);
    let denied: Vec<usize> = decisions.iter().enumerate().filter(|(_, decision)| decision["decision"] == "deny").map(|(n, _)| n).collect();
    assert_eq!(denied, [7777]);
    let answer = server.post("/v1/decisions", &json!({ "purpose": "sale", "subjects": subjects }));
    assert_eq!(problem(&answer), (422, "invalid".to_owned(), Some("/subjects".to_owned())));
    let answer = server.post("/v1/decisions", &json!({ "purpose": "sale", "subjects": [] }));
    assert_eq!((answer.status, answer.json()), (200, json!({ "decisions": [] })));
}

#[test]
fn minors_are_denied_until_they_opt_in() {
    let server = Server::start();
    let ask = |purpose: &str, band: &str, who: &Value| {
        verdict(
            &server
                .post(
                    "/v1/decisions",
                    &json!({ "purpose": purpose, "identifiers": [who], "context": { "age_band": band, "jurisdiction": "us-ca" } }),
                )
                .json(),
        )
    };
    let minor = id("customer_id", "minor");
    for (band, closed) in [("under_13", true), ("13_15", true), ("16_17", false), ("18_plus", false)] {
        for purpose in ["sale", "sharing", "targeted_advertising"] {
            assert_eq!(
                ask(purpose, band, &minor),
                if closed { says("deny", "minor") } else { says("allow", "no_record") },
                "{band} {purpose}"
            );
        }
        assert_eq!(ask("profiling", band, &minor), says("allow", "no_record"));
    }
    let asked = taken(&server, &json!({ "kind": "opt_in", "channel": "form", "identifiers": [minor] }));
    let url = format!("/v1/requests/{}/confirm", asked["id"].as_str().unwrap());
    assert_eq!(server.post(&url, &json!({ "confirm_token": asked["confirm_token"] })).status, 200);
    assert_eq!(ask("sale", "13_15", &minor), says("allow", "opted_in"));
    taken(&server, &opt_out(std::slice::from_ref(&minor)));
    assert_eq!(ask("sale", "13_15", &minor), says("deny", "opted_out"));
}

#[test]
fn the_document_is_the_router() {
    let (_directory, server) = configured(CONFIG);
    let document = server.send("GET", "/openapi.json", b"", &[("authorization", "")]).json();
    let mut documented: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            documented.push((method.to_uppercase(), path.clone()));
        }
    }
    let mut expected: Vec<(String, String)> =
        ENDPOINTS.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    expected.extend(OPEN.iter().map(|path| ("GET".to_owned(), (*path).to_owned())));
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);

    let rosa = id("email", "rosa@example.org");
    let request = taken(&server, &opt_out(std::slice::from_ref(&rosa)));
    let key = server.post("/v1/keys", &json!({ "name": "end", "role": "auditor" })).json()["no"].to_string();
    for (method, path) in &documented {
        let url = address(path, &request).replace("{no}", &key);
        let answer = server.send(method, &url, b"", &[]);
        assert!(![404, 405].contains(&answer.status) && answer.status < 500, "{method} {path}: {} {}", answer.status, answer.text);
        for other in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if !documented.contains(&(other.to_owned(), path.clone())) {
                assert_eq!(problem(&server.send(other, &url, b"", &[])), (405, "method_not_allowed".to_owned(), None), "{other} {path}");
            }
        }
        // What needs a key says so, in the document and at the door.
        let keyed = document["paths"][path][method.to_lowercase()]["security"].is_array();
        assert_eq!(keyed, path.starts_with("/v1/"));
        let stranger = support::send(method, &format!("{}{url}", server.private), b"", &[]);
        assert_eq!(stranger.status == 401, keyed, "{method} {path}");
    }

    let named = |name: &str, body: Value| (name.to_owned(), body);
    for (path, body) in [
        named("/v1/requests", full_request()),
        named("/v1/requests/{id}/confirm", json!({ "confirm_token": "x" })),
        named("/v1/decisions", full_decision()),
        named("/v1/decisions", full_list()),
        named("/v1/identifiers/link", json!({ "identifiers": [rosa] })),
        named("/v1/identifiers/unlink", json!({ "identifiers": [rosa] })),
        named("/v1/subjects/lookup", json!({ "identifiers": [rosa] })),
        named("/v1/subjects/assurance", json!({ "identifiers": [rosa] })),
        named("/v1/destinations/{id}/replay", json!({ "target": "s12", "from": 1, "to": 2, "all": true })),
        named("/v1/destinations/{id}/done", json!({ "through": 1, "by": "Ada", "evidence": "a letter" })),
        named("/v1/keys", json!({ "name": "x", "role": "reader" })),
    ] {
        let schema = &document["paths"][&path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has no schema");
        accepts(&document, schema, &body, &path);
    }
    let accepted = std::panic::catch_unwind(|| {
        accepts(&document, &json!({ "$ref": "#/components/schemas/NewKey" }), &json!({ "name": "x", "role": "root" }), "");
    });
    assert!(accepted.is_err(), "the check can fail");
}

/// As much of JSON Schema as our document uses.
fn accepts(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{at}: {reference} leads nowhere"));
        return accepts(document, target, value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = |choice: &Value| std::panic::catch_unwind(|| accepts(document, choice, value, at)).is_ok();
        assert!(choices.iter().any(fits), "{at}: no choice takes {value}");
        return;
    }
    if let Some(names) = schema["enum"].as_array() {
        assert!(names.contains(value), "{at}: {value} is none of {names:?}");
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(constant, value, "{at}");
    }
    let is = |name: &str| match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => true,
    };
    match value {
        Value::Object(members) => {
            assert!(is("object"), "{at}");
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(name.as_str().unwrap()), "{at}: {name} is required");
            }
            for (name, value) in members {
                let property = &schema["properties"][name];
                assert!(!property.is_null(), "{at}: {name} is not documented");
                accepts(document, property, value, &format!("{at}/{name}"));
            }
            assert_eq!(schema["additionalProperties"], false, "{at}: unknown members are refused");
        }
        Value::Array(items) => {
            assert!(is("array"), "{at}");
            for item in items {
                accepts(document, &schema["items"], item, at);
            }
        }
        Value::String(_) => assert!(is("string"), "{at}"),
        Value::Bool(_) => assert!(is("boolean"), "{at}"),
        Value::Number(_) => assert!(is("integer"), "{at}"),
        Value::Null => panic!("{at}: no member may be null"),
    }
}

/// Bodies with every member that there is.
fn full_request() -> Value {
    json!({
        "kind": "opt_out", "channel": "agent", "purposes": ["sale"], "identifiers": [id("email", "table@example.org")],
        "received_at": "2026-01-01T00:00:00Z", "jurisdiction": "us-ca", "site": "shop", "agent": { "name": "A", "permission": "p" },
    })
}

fn full_decision() -> Value {
    json!({
        "purpose": "sale", "identifiers": [id("email", "table@example.org")], "min_seq": 1,
        "context": { "gpc": false, "jurisdiction": "us-ca", "age_band": "18_plus", "destination": "x" },
    })
}

fn full_list() -> Value {
    json!({
        "purpose": "sale", "min_seq": 1,
        "subjects": [{ "identifiers": [{ "kind": "email", "sha256": "0".repeat(64) }], "context": { "gpc": false, "jurisdiction": "us-ca", "age_band": "18_plus", "destination": "x" } }],
    })
}

#[test]
fn every_member_of_every_body_is_checked_and_named() {
    let (_directory, server) = configured(CONFIG);
    let waiting = taken(&server, &json!({ "kind": "opt_in", "channel": "form", "identifiers": [id("email", "wait@example.org")] }));
    let confirm = format!("/v1/requests/{}/confirm", waiting["id"].as_str().unwrap());
    let people = json!({ "identifiers": [id("email", "table@example.org"), { "kind": "cookie_id", "sha256": "0".repeat(64) }] });
    let before = entries(&server);
    let mut checked = 0;
    for (path, base) in [
        ("/v1/requests", full_request()),
        (&confirm, json!({ "confirm_token": "x" })),
        ("/v1/decisions", full_decision()),
        ("/v1/decisions", full_list()),
        ("/v1/identifiers/link", people.clone()),
        ("/v1/identifiers/unlink", people.clone()),
        ("/v1/subjects/lookup", people.clone()),
        ("/v1/subjects/assurance", people),
        ("/v1/destinations/crm/replay", json!({ "target": "s12" })),
        ("/v1/destinations/crm/replay", json!({ "from": 1, "to": 2 })),
        ("/v1/destinations/crm/done", json!({ "through": 1, "by": "Ada", "evidence": "a letter" })),
        ("/v1/keys", json!({ "name": "x", "role": "reader" })),
    ] {
        let mut members = Vec::new();
        pointers(&base, "", &mut members);
        for pointer in members {
            let value = base.pointer(&pointer).unwrap().clone();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let is_item = name.parse::<usize>().is_ok();
            let put = |with: &str| {
                let mut body = base.clone();
                *body.pointer_mut(&pointer).unwrap() = json!("MARK");
                body.to_string().replacen("\"MARK\"", with, 1).into_bytes()
            };
            let mut cases = vec![
                ("null", put("null"), 422, pointer.clone()),
                ("wrong type", put(if value.is_string() { "7" } else { "\"7\"" }), 422, pointer.clone()),
                ("bad UTF-8", put("\"a\u{1}\""), 400, pointer.clone()),
            ];
            // Put in after serialising: a Rust string cannot hold it.
            for byte in &mut cases[2].1 {
                if *byte == 1 {
                    *byte = 0xff;
                }
            }
            let long = match (&value, name) {
                (Value::String(_), _) => Some(json!("x".repeat(70_000)).to_string()),
                (Value::Array(items), "identifiers") => Some(json!(vec![&items[0]; 33]).to_string()),
                (Value::Number(_), _) => Some("99999999999999999999999".to_owned()),
                _ => None,
            };
            if let Some(long) = long {
                cases.push(("too long", put(&long), 422, pointer.clone()));
            }
            if !is_item {
                let mut twice = String::from_utf8(put("\"MARK\"")).unwrap();
                twice = twice.replacen("\"MARK\"", &format!("{value},\"{name}\":{value}"), 1);
                cases.push(("duplicate", twice.into_bytes(), 422, pointer.clone()));
                let mut body = base.clone();
                let siblings = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                siblings.insert("x_unknown".to_owned(), json!(1));
                cases.push(("unknown sibling", body.to_string().into_bytes(), 422, format!("{parent}/x_unknown")));
                let required = matches!(name, "kind" | "channel" | "identifiers" | "name" | "role" | "purpose" | "confirm_token" | "agent");
                // One of the two must be there; which is missing nobody can say.
                let one_of_two = matches!(name, "value" | "sha256");
                if required || one_of_two {
                    let mut body = base.clone();
                    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
                    cases.push((
                        "missing",
                        body.to_string().into_bytes(),
                        422,
                        if one_of_two { parent.to_owned() } else { pointer.clone() },
                    ));
                }
            }
            for (what, body, status, expected) in cases {
                let answer = server.send("POST", path, &body, &[]);
                let (found, _, at) = problem(&answer);
                assert_eq!((found, at.as_deref()), (status, Some(&*expected)), "{path} {pointer}, {what}: {}", answer.text);
                assert!(!answer.text.contains("table@example.org"), "{}", answer.text);
                checked += 1;
            }
        }
    }
    assert!(checked > 250, "{checked}");
    assert_eq!(entries(&server), before);
    let status: Value = serde_json::from_slice(&server.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["entries"], before);
    assert_eq!(server.send("GET", "/v1/keys", b"", &[]).json()["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn a_health_check_writes_at_most_once_a_second_and_never_into_the_log() {
    let server = Server::start();
    let commits = || {
        let text = support::send("GET", &format!("{}/metrics", server.private), b"", &[]).text;
        let line = text.lines().find(|line| line.starts_with("desist_commits_total ")).expect("the counter is there").to_owned();
        line.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    let log = entries(&server);
    let (before, started) = (commits(), std::time::Instant::now());
    for _ in 0..20 {
        assert_eq!(support::send("GET", &format!("{}/healthz", server.private), b"", &[]).status, 200);
    }
    let seconds = started.elapsed().as_secs();
    let written = commits() - before;
    assert!((1..=seconds + 2).contains(&written), "{written} commits in {seconds} s");
    assert_eq!(entries(&server), log);
}
