//! Alarms reach a receiver of the business's choice, which can tell who sent them; nobody else is told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use desist_engine::alerts::ANSWER_BYTES_MAX;
use desist_proof::note::{Algorithm, Signer, Verifier};
use serde_json::{Value, json};

use crate::support::{CLIENTS, Server, run, until};
use crate::witness::{TAKEN, reload, status, table};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request as it came: its target, its header fields and its body.
#[derive(Clone, Debug)]
struct Got {
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A machine that answers every POST, and keeps those that are no questions to a witness, which it refuses.
struct Receiver {
    port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<String>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (got, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(plain("204 No Content"))));
        let (keep, say) = (Arc::clone(&got), Arc::clone(&answer));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (keep, say) = (Arc::clone(&keep), Arc::clone(&say));
                std::thread::spawn(move || serve(stream, &keep, &say));
            }
        });
        Self { port, got, answer }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn says(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

fn plain(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

fn serve(mut stream: TcpStream, keep: &Mutex<Vec<Got>>, say: &Mutex<String>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    lines.read_exact(&mut body).ok()?;
    let mut answer = plain("403 Forbidden");
    if !target.ends_with("/add-checkpoint") {
        keep.lock().unwrap().push(Got { target, headers, body: String::from_utf8(body).ok()? });
        answer.clone_from(&say.lock().unwrap());
    }
    stream.write_all(answer.as_bytes()).ok()
}

/// An `[alerts]` table.
fn alerts(url: &str, secret: &str, allow_private: bool) -> String {
    let allowed = if allow_private { "allow_private = true\n" } else { "" };
    format!("[alerts]\nurl = \"{url}\"\nsecret = {secret}\n{allowed}\n")
}

const FILE: &str = "{ file = \"alerts.secret\" }";

fn witness_key() -> Verifier {
    Signer::new("witness.example/w1", Algorithm::Cosignature, &[2; 32]).unwrap().verifier().clone()
}

/// A server with the secret beside its configuration.
fn server(secret: &str) -> Server {
    let server = Server::start();
    std::fs::write(server.data.join("alerts.secret"), format!("{secret}\n")).unwrap();
    server
}

/// What the library of Standard Webhooks believes, given the secret.
fn believed(got: &Got, secret: &str) -> Option<Value> {
    let mut child = Command::new("node")
        .arg(CLIENTS.join("webhook.mjs"))
        .arg(secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node is missing; run scripts/test");
    let message = json!({ "headers": got.headers, "body": got.body }).to_string();
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => Some(serde_json::from_slice(&output.stdout).unwrap()),
        Some(1) => None,
        other => panic!("{other:?}"),
    }
}

fn metric(server: &Server, name: &str) -> String {
    let metrics = server.send("GET", "/metrics", b"", &[]).text;
    metrics.lines().find_map(|line| line.strip_prefix(&format!("desist_{name} "))).expect("the metric").to_owned()
}

fn told(server: &Server) -> Value {
    status(server).1["alerts"].clone()
}

fn delivered(server: &Server) {
    until("delivered", || told(server)["state"] == "delivered");
}

fn readable(data: &Path) -> String {
    let output = run(data, &["status"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_lost_witness_is_told_to_the_receiver_and_so_is_its_end() {
    let (server, receiver) = (server(SECRET), Receiver::start());
    let to = alerts(&receiver.url("/hook/"), FILE, true);
    let witness = table(&receiver.url(""), &witness_key(), true);
    assert_eq!(told(&server), Value::Null);
    assert_eq!(reload(&server, &(to.clone() + &witness)), TAKEN);
    until("the alarm is told", || receiver.got().len() == 1);
    delivered(&server);
    assert!(readable(&server.data).contains("\n  alerts    delivered\n"));
    assert_eq!((metric(&server, "alerts_waiting"), metric(&server, "alerts_failing")), ("0".to_owned(), "0".to_owned()));
    // Where it cannot be told, it waits; the next reload tries at once.
    receiver.says(plain("503 Service Unavailable"));
    assert_eq!(reload(&server, &to), TAKEN);
    until("it fails", || told(&server)["state"] == "failing");
    assert!(readable(&server.data).contains("\n  alerts    failing since 2"), "{}", readable(&server.data));
    let (code, data, _) = status(&server);
    assert_eq!((code, &data["alarms"]), (Some(1), &json!([])));
    assert_eq!((&data["alerts"]["problem"], &data["alerts"]["waiting"]), (&json!("status 503"), &json!(1)));
    assert_eq!((metric(&server, "alerts_waiting"), metric(&server, "alerts_failing")), ("1".to_owned(), "1".to_owned()));
    receiver.says(format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {0}\r\n\r\n{1}",
        ANSWER_BYTES_MAX,
        "x".repeat(ANSWER_BYTES_MAX)
    ));
    assert_eq!(reload(&server, &to), TAKEN);
    delivered(&server);
    let got = receiver.got();
    let (first, last) = (&got[0], got.last().unwrap());
    for (got, kind) in [(first, "alarm.raised"), (last, "alarm.cleared")] {
        let body = believed(got, SECRET).expect("the library believes it");
        assert_eq!(believed(got, OTHER), None);
        assert_eq!(believed(&Got { body: got.body.replace("acme", "acne"), ..got.clone() }, SECRET), None);
        let (since, at) = (body["data"]["since"].clone(), body["timestamp"].clone());
        let data = json!({ "business": "acme", "kind": "witness_lost", "destination": null, "since": since });
        assert_eq!(body, json!({ "type": kind, "timestamp": at, "data": data }));
        assert_eq!((got.target.as_str(), got.headers["content-type"].as_str()), ("/hook/", "application/json"));
    }
    assert_eq!(status(&server).0, Some(0));
    assert!(server.stop().success());
}

#[test]
fn an_answer_that_is_too_long_or_leads_elsewhere_is_none() {
    let (server, receiver, elsewhere) = (server(SECRET), Receiver::start(), Receiver::start());
    let long = ANSWER_BYTES_MAX + 1;
    receiver.says(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {long}\r\n\r\n{}", "x".repeat(long)));
    let (to, witness) = (alerts(&receiver.url("/hook"), FILE, true), table(&receiver.url(""), &witness_key(), true));
    assert_eq!(reload(&server, &(to.clone() + &witness)), TAKEN);
    until("it is too long", || told(&server)["problem"] == "no readable answer: it is longer than 65536 bytes");
    receiver
        .says(format!("HTTP/1.1 307 Elsewhere\r\nlocation: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", elsewhere.url("/hook")));
    assert_eq!(reload(&server, &(to + &witness)), TAKEN);
    until("it leads elsewhere", || told(&server)["problem"] == "status 307");
    assert!(elsewhere.got().is_empty());
    let ids: Vec<_> = receiver.got().iter().map(|got| got.headers["webhook-id"].clone()).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_private_receiver_is_told_only_where_that_is_allowed() {
    let (server, receiver) = (server(SECRET), Receiver::start());
    let witness = table(&receiver.url(""), &witness_key(), true);
    let (code, said) = reload(&server, &alerts(&receiver.url("/hook"), FILE, false));
    assert!(code == Some(2) && said.contains("desist.toml:2:7: alerts.url") && said.contains("is not https"), "{code:?} {said}");
    for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"] {
        let to = alerts(&format!("https://{host}:{}/hook", receiver.port), FILE, false);
        assert_eq!(reload(&server, &(to + &witness)), TAKEN);
        until("it is forbidden", || told(&server)["problem"].as_str().is_some_and(|why| why.contains("the address is private")));
        assert_eq!(reload(&server, &witness), TAKEN);
        until("it is forgotten", || told(&server).is_null());
    }
    assert!(receiver.got().is_empty());
    assert_eq!(reload(&server, &(alerts(&receiver.url("/hook"), FILE, true) + &witness)), TAKEN);
    until("it is told", || receiver.got().len() == 1);
}

#[test]
fn a_secret_is_never_in_the_file_and_one_that_is_missing_stops_nothing() {
    let (place, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let server = Server::start_in(place.path(), &[]);
    let (code, said) = reload(&server, &alerts(&receiver.url("/hook"), &format!("\"{SECRET}\""), true));
    assert!(code == Some(2) && said.contains("desist.toml:3:10: alerts.secret: a secret does not belong into this file"), "{said}");
    assert!(!said.contains("MfKQ"), "{said}");
    let file = server.data.join("alerts.secret");
    let tables = alerts(&receiver.url("/hook"), FILE, true) + &table(&receiver.url(""), &witness_key(), true);
    for (content, why) in [(None, "cannot be read"), (Some("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "is not \"whsec_\" and base64")] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        assert_eq!(reload(&server, &tables), TAKEN);
        until("it waits", || {
            told(&server)["problem"].as_str().is_some_and(|problem| problem.contains(why)) && told(&server)["waiting"] == 1
        });
        let (code, data, read) = status(&server);
        assert_eq!((code, &data["alerts"]["state"]), (Some(1), &json!("waiting_for_secret")));
        assert!(read.contains("  alerts    waiting for the secret: the file ") && !read.contains("MfKQ"), "{read}");
        let checked = server.run(&["check", "--config-only"]);
        let found = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.code() == Some(1) && found.contains("alerts.secret: the file ") && found.contains(why), "{found}");
        assert!(found.contains("until it is there alerts wait") && !found.contains("MfKQ"), "{found}");
    }
    assert_eq!(metric(&server, "alerts_failing"), "1");
    // A start goes on without it too.
    assert!(server.stop().success());
    let server = Server::start_in(place.path(), &[]);
    until("it waits", || told(&server)["state"] == "waiting_for_secret");
    assert!(receiver.got().is_empty());
    std::fs::write(&file, SECRET).unwrap();
    assert_eq!(reload(&server, &tables), TAKEN);
    until("it is told", || receiver.got().len() == 1);
    assert!(believed(&receiver.got()[0], SECRET).is_some());
    assert!(server.run(&["check", "--config-only"]).status.success());
}
