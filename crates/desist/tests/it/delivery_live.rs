//! An opt-out reaches other systems, over real sockets and through kills: another desist by its Campaign API, and a receiver of signed
//! messages.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::campaign_http::{service, subscribed};
use crate::support::{Seeded, Server, scale, until};

const PROFILES: &str = "/acme/campaign/profileAndServices/profile/";

pub fn opt_out(server: &Server, email: &str) -> Value {
    let body = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": email }] });
    let answer = server.post("/v1/requests", &body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

pub fn request(server: &Server, id: &Value) -> Value {
    let answer = server.send("GET", &format!("/v1/requests/{}", id.as_str().unwrap()), b"", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// Where a request stands at a destination.
pub fn level(server: &Server, id: &Value, destination: &str) -> String {
    let request = request(server, id);
    let standings = request["destinations"].as_array().expect("a list").clone();
    let standing = standings.iter().find(|standing| standing["id"] == destination).expect("the destination is there");
    standing["level"].as_str().expect("a word").to_owned()
}

pub fn write_secret(data: &Path, name: &str, secret: &str) {
    std::fs::write(data.join(name), secret).unwrap();
}

#[test]
fn another_desist_is_told_read_back_and_patrolled() {
    let there = Server::start();
    let profile = json!({ "email": "rosa@example.org", "firstName": "Rosa", "blackListEmail": false });
    let made = there.post(PROFILES, &profile);
    assert_eq!(made.status, 201, "{}", made.text);
    let pkey = made.json()["PKey"].as_str().unwrap().to_owned();
    let read = || there.send("GET", &format!("{PROFILES}{pkey}"), b"", &[]).json();
    assert_eq!(read()["ccpaOptOut"], false);
    // A newsletter is none of an opt-out's business.
    let newsletter = service(&there, &json!({ "name": "newsletter", "label": "News" }));
    subscribed(&there, &pkey, &newsletter);
    let subscriptions = || there.send("GET", &format!("{PROFILES}{pkey}/subscriptions"), b"", &[]).json();
    let before = subscriptions();
    assert_eq!(before["content"].as_array().map(Vec::len), Some(1), "{before}");

    let directory = tempfile::tempdir().unwrap();
    let host = there.private.strip_prefix("http://").unwrap();
    let table = format!(
        "[[destinations]]\nid = \"campaign\"\nconnector = \"adobe-campaign-standard\"\nclass = \"service_provider\"\nallow_private = true\npatrol = \"3s\"\n\
         [destinations.settings]\nhost = \"{host}\"\norganization = \"acme\"\napi_key = {{ file = \"api_key\" }}\ntoken = {{ file = \"token\" }}\n"
    );
    std::fs::write(directory.path().join("desist.toml"), table).unwrap();
    write_secret(directory.path(), "api_key", &there.api_key);
    write_secret(directory.path(), "token", &there.token);
    let here = Server::start_in(directory.path(), &[]);
    let taken = opt_out(&here, "Rosa@Example.org");
    until("verified", || level(&here, &taken["id"], "campaign") == "verified");
    assert_eq!(request(&here, &taken["id"])["status"], "enforced");
    let told = read();
    assert_eq!((&told["ccpaOptOut"], &told["blackListEmail"], &told["firstName"]), (&json!(true), &json!(false), &json!("Rosa")));
    assert_eq!(subscriptions(), before);
    // Nobody is there under this address, so there is nothing to enforce; until somebody is uploaded, whom the patrol finds.
    let nobody = opt_out(&here, "vega@example.org");
    until("absent", || level(&here, &nobody["id"], "campaign") == "absent");
    let view = request(&here, &nobody["id"]);
    assert_eq!((&view["status"], &view["reason"]), (&json!("exception"), &json!("absent")), "{view}");
    let listed = here.run(&["destination", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(", 1 not there"), "{listed:?}");
    let uploaded = there.post(PROFILES, &json!({ "email": "vega@example.org", "ccpaOptOut": false })).json();
    let vega = || there.send("GET", &format!("{PROFILES}{}", uploaded["PKey"].as_str().unwrap()), b"", &[]).json();
    until("found by the patrol", || vega()["ccpaOptOut"] == true);
    until("enforced", || request(&here, &nobody["id"])["status"] == "enforced");
    assert_eq!(level(&here, &nobody["id"], "campaign"), "verified");

    // Cleared behind our back: the patrol finds it, says so, and puts it right.
    let cleared = there.send("PATCH", &format!("{PROFILES}{pkey}"), br#"{"ccpaOptOut":false}"#, &[("content-type", "application/json")]);
    assert_eq!((cleared.status, &read()["ccpaOptOut"]), (200, &json!(false)), "{}", cleared.text);
    until("told again", || read()["ccpaOptOut"] == true);
    until("verified again", || level(&here, &taken["id"], "campaign") == "verified");
    assert_eq!(subscriptions(), before);
    let drifts = |kind: &str| {
        let to = tempfile::tempdir().unwrap();
        let exported = here.run(&["export", "log", to.path().join("log").to_str().unwrap()]);
        assert!(exported.status.success(), "{exported:?}");
        let entries = std::fs::read_to_string(to.path().join("log/entries.ndjson")).unwrap();
        let entries = entries.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.filter(|entry| entry["type"] == kind && entry["kind"] == "drift" && entry["destination"] == 1).count()
    };
    // Once for who came, once for who was changed; each stands until it is put right.
    until("both alarms are over", || drifts("alarm_cleared") == 2);
    assert_eq!(drifts("alarm_raised"), 2);
    let said = here.run(&["status"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("campaign"), "{said:?}");
    let exported = here.run(&["check"]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
}

/// A receiver of signed messages that keeps the highest version of each address.
struct Receiver {
    port: u16,
    told: Arc<Mutex<BTreeMap<String, (u64, String)>>>,
    refuses: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Self { port, told: Arc::default(), refuses: Arc::default(), count: Arc::default() };
        let (told, refuses, count) = (Arc::clone(&receiver.told), Arc::clone(&receiver.refuses), Arc::clone(&receiver.count));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, refuses, count) = (Arc::clone(&told), Arc::clone(&refuses), Arc::clone(&count));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(body) = read_body(&mut reader) {
                        count.fetch_add(1, Ordering::SeqCst);
                        let answer: &[u8] = if refuses.load(Ordering::SeqCst) {
                            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
                        } else {
                            let message: Value = serde_json::from_slice(&body).expect("JSON");
                            let data = &message["data"];
                            let version = data["version"].as_u64().expect("a version");
                            for identifier in data["identifiers"].as_array().expect("a list") {
                                let mut told = told.lock().unwrap();
                                let last = told.entry(identifier["value"].as_str().expect("in clear").to_owned()).or_default();
                                if version >= last.0 {
                                    *last = (version, data["status"].as_str().expect("a word").to_owned());
                                }
                            }
                            b"HTTP/1.1 204 No Content\r\n\r\n"
                        };
                        if reader.get_mut().write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        receiver
    }

    fn knows(&self, address: &str) -> bool {
        self.told.lock().unwrap().get(address).is_some_and(|(_, status)| status == "opt_out")
    }
}

/// The body of the next request; none at the end of the connection.
fn read_body(reader: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn webhook(id: &str, port: u16) -> String {
    format!(
        "[[destinations]]\nid = \"{id}\"\nconnector = \"webhook\"\nclass = \"third_party\"\nallow_private = true\n\
         [destinations.settings]\nhost = \"127.0.0.1:{port}\"\npath = \"/in\"\nsecret = {{ file = \"secret\" }}\n"
    )
}

const SECRET: &str = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

#[test]
fn kills_lose_nobody_and_never_say_more_than_is_true() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("desist.toml"), webhook("hook", receiver.port)).unwrap();
    write_secret(directory.path(), "secret", SECRET);
    let mut random = Seeded::new(0);
    let (kills, mut taken) = (3 * scale(), Vec::new());
    for kill in 0..kills {
        let mut server = Server::start_in(directory.path(), &[]);
        for n in 0..20 {
            let address = format!("p{kill}-{n}@example.org");
            taken.push((opt_out(&server, &address)["id"].clone(), address));
            if n % 4 == 0 {
                let (id, address) = &taken[random.below(taken.len())];
                // What is said is looked at before what is true, which only grows.
                let said = level(&server, id, "hook");
                assert!(said == "queued" || said == "sent" || receiver.knows(address), "{said} and not told");
            }
        }
        std::thread::park_timeout(std::time::Duration::from_millis(random.below(60) as u64));
        server.kill();
    }
    let server = Server::start_in(directory.path(), &[]);
    for (id, address) in &taken {
        until("accepted", || level(&server, id, "hook") == "accepted");
        assert!(receiver.knows(address), "{address}");
    }
    assert_eq!(request(&server, &taken[0].0)["status"], "enforced");
    assert_eq!(server.run(&["check"]).status.code(), Some(0));
}

#[test]
fn a_receiver_that_fails_is_waited_for_and_a_missing_secret_stops_it_alone() {
    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.refuses.store(true, Ordering::SeqCst);
    let directory = tempfile::tempdir().unwrap();
    let without = webhook("later", good.port).replace("file = \"secret\"", "file = \"not-there\"");
    let tables = [webhook("good", good.port), webhook("bad", bad.port), without].concat();
    std::fs::write(directory.path().join("desist.toml"), tables).unwrap();
    write_secret(directory.path(), "secret", SECRET);
    let server = Server::start_in(directory.path(), &[]);
    let taken = opt_out(&server, "rosa@example.org");
    until("the good one is told", || level(&server, &taken["id"], "good") == "accepted");
    until("the bad one was tried", || bad.count.load(Ordering::SeqCst) > 0);
    let request = request(&server, &taken["id"]);
    assert_eq!(request["status"], "received", "{request}");
    assert!(["queued", "sent"].contains(&level(&server, &taken["id"], "bad").as_str()), "{request}");
    assert_eq!(level(&server, &taken["id"], "later"), "queued");
    let said = server.run(&["status"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("not-there"), "{said}");
    bad.refuses.store(false, Ordering::SeqCst);
    write_secret(directory.path(), "not-there", SECRET);
    let reloaded = server.run(&["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    until("all are told", || request_is_enforced(&server, &taken["id"]));
}

#[test]
fn a_list_that_was_imported_before_the_destination_came_is_told_once_it_is_imported_again() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(directory.path(), &[]);
    let list = directory.path().join("list.csv");
    std::fs::write(&list, "email\nrosa@example.org\nvega@example.org\n").unwrap();
    let import = || {
        let done = server.run(&["import", list.to_str().unwrap(), "--column", "email:email", "--json"]);
        assert!(done.status.success(), "{done:?}");
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    assert_eq!((import()["accepted"].as_u64(), import()["already_imported"].as_bool()), (Some(2), Some(true)), "{list:?}");
    let config = directory.path().join("desist.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, before + &webhook("hook", receiver.port)).unwrap();
    write_secret(directory.path(), "secret", SECRET);
    assert!(server.run(&["reload"]).status.success());
    let body = json!({ "identifiers": [{ "kind": "email", "value": "rosa@example.org" }] });
    let level = || server.post("/v1/subjects/assurance", &body).json()["destinations"][0]["level"].clone();
    assert_eq!(level(), "unreachable");
    // Who allowed it meanwhile is not denied by the same list.
    let asked = server.post(
        "/v1/requests",
        &json!({ "kind": "opt_in", "channel": "form", "purposes": ["sale"],
        "identifiers": [{ "kind": "email", "value": "vega@example.org" }] }),
    );
    assert_eq!(asked.status, 201, "{}", asked.text);
    let asked = asked.json();
    let confirmed = server
        .post(&format!("/v1/requests/{}/confirm", asked["id"].as_str().unwrap()), &json!({ "confirm_token": asked["confirm_token"] }));
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    assert_eq!((import()["accepted"].as_u64(), receiver.knows("stranger@example.org")), (Some(2), false));
    until("told", || level() == "accepted" && receiver.knows("vega@example.org"));
    assert_eq!((import()["already_imported"].clone(), server.decide("email", "vega@example.org").0), (json!(true), "allow".to_owned()));
}

fn request_is_enforced(server: &Server, id: &Value) -> bool {
    request(server, id)["status"] == "enforced"
}

#[test]
fn without_leave_no_private_address_is_called() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().unwrap();
    let table = webhook("hook", receiver.port).replace("allow_private = true\n", "");
    std::fs::write(directory.path().join("desist.toml"), table).unwrap();
    write_secret(directory.path(), "secret", SECRET);
    let server = Server::start_in(directory.path(), &[]);
    let taken = opt_out(&server, "rosa@example.org");
    let states = || {
        let answer = server.send("GET", "/v1/destinations/hook", b"", &[]);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    until("it backs off", || states()["state"] == "backing_off");
    assert!(states()["missing"].as_str().is_some_and(|why| why.contains("private") || why.contains("not sent")), "{}", states());
    assert_eq!((level(&server, &taken["id"], "hook").as_str(), receiver.count.load(Ordering::SeqCst)), ("queued", 0));
}
