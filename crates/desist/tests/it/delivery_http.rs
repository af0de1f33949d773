//! The way to destinations over HTTP, against servers that really answer: as they should, with lies, and badly.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist::delivery::{HttpTransport, Options, TokenStore, Unkept};
use desist::outgoing::Network;
use desist_connector::{Approvals, Given, Instance, Manifest, SHIPPED, Secret};
use desist_core::identifier::Kind;
use desist_core::lane::{Failure, Level, Outcome, Report, Target};
use desist_core::purpose::{PurposeSet, Purposes};
use desist_engine::delivery::transport::{Ended, Errand, Known, Message, Transport as _};
use desist_engine::env::{Done, Env, Outbound, Outgoing, System};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::support::Server;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What a peer does.
#[derive(Clone)]
pub enum Reply {
    /// Answers these bytes and closes.
    Raw(Vec<u8>),
    /// Says nothing for as long as anybody waits.
    Hang,
    /// These bytes at once, and then one at a time.
    Loris(Vec<u8>),
}

/// An answer with a body.
pub fn reply(status: u16, kind: &str, more: &str, body: &str) -> Reply {
    let head =
        format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-type: {kind}\r\n{more}content-length: {}\r\n\r\n", body.len());
    Reply::Raw([head.as_bytes(), body.as_bytes()].concat())
}

/// An answer as APIs give it.
pub fn json_reply(status: u16, body: &Value) -> Reply {
    reply(status, "application/json", "", &body.to_string())
}

fn empty(status: u16) -> Reply {
    Reply::Raw(format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").into())
}

/// A server of somebody else's.
pub struct Peer {
    pub port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    pub fn start(says: impl Fn(&Got) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (got, connections, says) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)), Arc::new(says));
        let (keep, count) = (Arc::clone(&got), Arc::clone(&connections));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (keep, says) = (Arc::clone(&keep), Arc::clone(&says));
                std::thread::spawn(move || serve(stream, &keep, &*says));
            }
        });
        Self { port, got, connections }
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Requests whose target has this in it.
    pub fn count(&self, part: &str) -> usize {
        self.got().iter().filter(|got| got.target.contains(part)).count()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, keep: &Mutex<Vec<Got>>, says: &(dyn Fn(&Got) -> Reply + Send + Sync)) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    let got = Got { method, target, headers, body: String::from_utf8(body).ok()? };
    keep.lock().unwrap().push(got.clone());
    match says(&got) {
        Reply::Raw(bytes) => stream.write_all(&bytes).ok(),
        Reply::Hang => lines.read_line(&mut line).map(drop).ok(),
        Reply::Loris(bytes) => {
            stream.write_all(&bytes).ok()?;
            // The other side closes when it has enough of it.
            while stream.write_all(b" ").is_ok() {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Some(())
        }
    }
}

/// The network, but all names lead to one server of this machine, without TLS: manifests are used as they are shipped.
struct Led {
    network: Network,
    port: u16,
}

impl Outbound for Led {
    fn send(&self, request: Outgoing, done: Done) {
        let (_, path) = request.url.strip_prefix("https://").expect("never anything else").split_once('/').expect("a path");
        self.network.send(Outgoing { url: format!("http://127.0.0.1:{}/{path}", self.port), ..request }, done);
    }
}

pub static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

pub fn network() -> Network {
    Network::new(RUNTIME.handle().clone()).unwrap()
}

/// All names lead to this peer.
pub fn led(peer: &Peer) -> Arc<dyn Outbound> {
    Arc::new(Led { network: network(), port: peer.port })
}

/// The key file of a service account, made once.
static ACCOUNT: LazyLock<String> = LazyLock::new(|| {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
    json!({ "client_email": "robot@acme.example", "private_key": pem, "private_key_id": "k1" }).to_string()
});

/// The same, as text.
pub fn account() -> &'static str {
    &ACCOUNT
}

pub const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A shipped connector with settings that fit.
pub fn shipped(id: &str) -> Arc<Instance> {
    let shipped = SHIPPED.iter().find(|shipped| shipped.id == id).unwrap();
    let manifest = Manifest::parse(shipped.text, shipped.id).unwrap();
    let values = [
        ("organization", if id == "adobe-privacy-service" { json!("ABC@AdobeOrg") } else { json!("acme") }),
        ("host", json!("hooks.example.com")),
        ("path", json!("/in")),
        ("instance", json!("acme")),
        ("client_id", json!("client")),
        ("advertiser", json!("adv1")),
        ("audiences", json!(["111"])),
        ("destinations", json!([{ "productDestinationId": "9" }])),
    ];
    let secrets = [
        ("api_key", "key"),
        ("token", "t0k3n"),
        ("client_secret", "s3cret"),
        ("credentials", ACCOUNT.as_str()),
        ("secret", WEBHOOK_SECRET),
    ];
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), Given::Value(value)));
    let secrets = secrets.into_iter().map(|(name, value)| (name.to_owned(), Given::Secret(Secret::new(value))));
    let mut given: BTreeMap<String, Given> = values.chain(secrets).collect();
    given.retain(|name, _| manifest.declared().settings.contains_key(name));
    Arc::new(Instance::new(&manifest, &given, Approvals::default()).unwrap())
}

/// The others have receivers of their own in `delivery_rows`.
fn speaks_http(manifest: &str) -> bool {
    Manifest::parse(manifest, "shipped").unwrap().declared().connector.transport == desist_connector::declared::Transport::Http
}

/// A way to a destination, without anything kept and without a cap.
pub fn options(instance: &Arc<Instance>, outbound: &Arc<dyn Outbound>) -> Options {
    Options {
        destination: "crm".to_owned(),
        instance: Arc::clone(instance),
        runtime: RUNTIME.handle().clone(),
        outbound: Arc::clone(outbound),
        env: Arc::new(System),
        tokens: Arc::new(Unkept) as Arc<dyn TokenStore>,
        purposes: Arc::new(Purposes::default()),
        allow_private: true,
        cap: Level::Verified,
    }
}

/// What became of an errand, which ended within the time and told it once.
pub fn run(transport: &HttpTransport, errand: Errand, within: Duration) -> Ended {
    let (tell, told) = mpsc::channel();
    let began = Instant::now();
    transport.start(errand, within, Box::new(move |ended| tell.send(ended).unwrap()));
    assert!(began.elapsed() < Duration::from_millis(500), "it returns at once");
    let ended = told.recv_timeout(within + Duration::from_secs(2)).expect("it ends in time");
    assert!(told.recv_timeout(Duration::from_secs(2)) == Err(mpsc::RecvTimeoutError::Disconnected), "it is told once");
    ended
}

pub const PATIENCE: Duration = Duration::from_secs(20);

fn known(kind: Kind, text: &str) -> Known {
    Known { kind, text: Some(Zeroizing::new(text.to_owned())), sha256: Sha256::digest(text).into(), denied: PurposeSet::EMPTY }
}

fn digest(kind: Kind, text: &str) -> Known {
    Known { text: None, ..known(kind, text) }
}

/// Somebody with an identifier of each kind that a shipped connector takes.
fn everybody(target: u64) -> Vec<Known> {
    vec![known(Kind::Email, &format!("rosa{target}@example.org")), known(Kind::Maid, &format!("00000000-0000-4000-8000-{target:012}"))]
}

fn message(target: u64, denied: PurposeSet, allowed: PurposeSet, identifiers: Vec<Known>) -> Arc<Message> {
    Arc::new(Message { target: Target(target), version: 7, at: 1_795_328_966, denied, allowed, beyond: PurposeSet::EMPTY, identifiers })
}

/// Somebody who opted out.
pub fn out(target: u64) -> Arc<Message> {
    message(target, PurposeSet::GPC, PurposeSet::EMPTY, everybody(target))
}

fn emailed(target: u64, denied: PurposeSet, allowed: PurposeSet) -> Arc<Message> {
    message(target, denied, allowed, vec![known(Kind::Email, &format!("rosa{target}@example.org"))])
}

fn failed(failure: Failure, retry_after_ms: Option<u64>) -> Outcome {
    Outcome::Failed { failure, retry_after_ms }
}

pub fn token_reply(token: &str) -> Reply {
    json_reply(200, &json!({ "access_token": token, "token_type": "bearer", "expires_in": 3600 }))
}

fn is_token(got: &Got) -> bool {
    got.target.contains("/token")
}

/// Whether a call tells of somebody.
fn is_told(id: &str, got: &Got) -> bool {
    !is_token(got) && got.method != "GET" && (id != "the-trade-desk" || got.body.contains("OptOut"))
}

/// What each destination says when all is well, while it changes nothing.
fn lie(id: &str, got: &Got) -> Reply {
    if is_token(got) {
        return token_reply("t1");
    }
    let body: Value = serde_json::from_str(&got.body).unwrap_or_default();
    let count = |pointer: &str| body.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    match (id, got.method.as_str()) {
        ("adobe-campaign-standard", "GET") if got.target.contains("byEmail") => json_reply(200, &json!({ "content": [{ "PKey": "@A" }] })),
        ("adobe-campaign-standard", "GET") if got.target.contains("_lineCount=1") => json_reply(200, &json!({ "content": [] })),
        ("adobe-campaign-standard", _) => json_reply(200, &json!({ "PKey": "@A", "ccpaOptOut": false })),
        ("adobe-privacy-service", _) => empty(202),
        ("google-data-manager", "POST") => json_reply(200, &json!({ "requestId": "req-1" })),
        ("google-data-manager", _) => json_reply(200, &json!({ "requestStatusPerDestination": [{ "requestStatus": "SUCCESS" }] })),
        ("liveramp", "POST") => json_reply(201, &json!({ "request_uuid": "u-1", "is_duplicate": false })),
        ("liveramp", _) => json_reply(200, &json!({ "privacy_request": { "status": "COMPLETED" } })),
        ("marketo", "POST") => {
            json_reply(200, &json!({ "success": true, "result": vec![json!({ "status": "updated" }); count("/input")] }))
        }
        ("marketo", _) => json_reply(200, &json!({ "success": true, "result": [] })),
        ("meta-custom-audience", _) => json_reply(200, &json!({ "num_received": 1, "num_invalid_entries": 0 })),
        ("salesforce", "GET") if got.target.contains("/query?") => {
            json_reply(200, &json!({ "totalSize": 1, "done": true, "records": [{ "Id": "003A" }] }))
        }
        ("salesforce", "GET") => json_reply(200, &json!({ "CCPA_Opt_Out__c": false })),
        ("salesforce", _) => json_reply(200, &json!(vec![json!({ "success": true }); count("/records")])),
        ("the-trade-desk", _) => json_reply(200, &json!({ "FailedLines": [] })),
        ("webhook", _) => empty(204),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_campaign_connector_tells_reads_back_and_finds_what_was_undone() {
    let server = Server::start();
    let host = server.private.strip_prefix("http://").expect("plain HTTP");
    let shipped = SHIPPED.iter().find(|shipped| shipped.id == "adobe-campaign-standard").unwrap();
    let manifest = Manifest::parse(shipped.text, shipped.id).unwrap();
    let given = BTreeMap::from([
        ("host".to_owned(), Given::Value(json!(host))),
        ("organization".to_owned(), Given::Value(json!("acme"))),
        ("api_key".to_owned(), Given::Secret(Secret::new(server.api_key.as_str()))),
        ("token".to_owned(), Given::Secret(Secret::new(server.token.as_str()))),
    ]);
    let instance = Arc::new(Instance::new(&manifest, &given, Approvals { http_loopback: true, ..Approvals::default() }).unwrap());
    let outbound: Arc<dyn Outbound> = Arc::new(network());
    let transport = HttpTransport::new(options(&instance, &outbound));
    let probed = run(&transport, Errand::Probe, PATIENCE);
    assert_eq!((probed.outcome, probed.left, probed.answer.map(|answer| answer.status)), (Outcome::Ok(Level::Accepted), true, Some(200)));
    let mut keys = Vec::new();
    for (email, name) in [("rosa1@example.org", "Rosa"), ("rosa1@example.org", "Rosita"), ("rosa2@example.org", "Rosa")] {
        let made = server.post("/acme/campaign/profileAndServices/profile/", &json!({ "email": email, "firstName": name }));
        keys.push(made.json()["PKey"].as_str().unwrap().to_owned());
    }
    let profile = |place: usize| format!("/acme/campaign/profileAndServices/profile/{}", keys[place]);
    let flag = |place: usize| server.send("GET", &profile(place), b"", &[]).json()["ccpaOptOut"].clone();
    let digested = message(4, PurposeSet::SALE, PurposeSet::EMPTY, vec![digest(Kind::Email, "rosa4@example.org")]);
    let other = emailed(5, PurposeSet::PROFILING, PurposeSet::EMPTY);
    let people = vec![
        emailed(1, PurposeSet::SALE, PurposeSet::EMPTY),
        emailed(2, PurposeSet::EMPTY, PurposeSet::GPC),
        emailed(3, PurposeSet::SALE, PurposeSet::EMPTY),
        digested,
        other,
    ];
    assert_eq!(people.iter().map(|person| transport.reaches(person)).collect::<Vec<_>>(), [true, true, true, false, false]);
    let ended = run(&transport, Errand::Send(people.clone()), PATIENCE);
    assert!(ended.left && ended.answer.is_some_and(|answer| answer.status == 200));
    assert_eq!(ended.outcome, Outcome::Ok(Level::Applied));
    let reports: BTreeMap<_, _> = ended.reports.into_iter().collect();
    let expected = [
        (Target(1), Report::Reached(Level::Verified)),
        (Target(3), Report::Absent),
        (Target(4), Report::Unreachable),
        (Target(5), Report::Nothing),
    ];
    assert_eq!(reports, BTreeMap::from(expected));
    assert_eq!([flag(0), flag(1), flag(2)], [json!(true), json!(true), json!(false)]);
    let checked = run(&transport, Errand::Check(people.clone()), PATIENCE);
    assert_eq!(checked.outcome, Outcome::Ok(Level::Verified));
    let checked: BTreeMap<_, _> = checked.reports.into_iter().collect();
    assert_eq!(checked[&Target(2)], Report::Nothing, "what is allowed is not looked at");
    assert_eq!((checked.get(&Target(1)), checked[&Target(3)]), (None, Report::Absent));
    // Behind our back.
    let alone = vec![emailed(2, PurposeSet::SALE, PurposeSet::EMPTY)];
    let ended = run(&transport, Errand::Send(alone.clone()), PATIENCE);
    assert_eq!((ended.outcome, ended.reports, flag(2)), (Outcome::Ok(Level::Verified), Vec::new(), json!(true)));
    assert_eq!(server.send("PATCH", &profile(2), br#"{"ccpaOptOut":false}"#, &[]).status, 200);
    assert_eq!(flag(2), json!(false));
    let checked = run(&transport, Errand::Check(alone), PATIENCE);
    assert_eq!((checked.outcome, checked.reports), (Outcome::Ok(Level::Verified), vec![(Target(2), Report::Drift)]));
    // Who may not call this machine does not connect to it.
    let twin = HttpTransport::new(Options { allow_private: false, ..options(&instance, &outbound) });
    for errand in [Errand::Send(people.clone()), Errand::Check(people), Errand::Probe] {
        let ended = run(&twin, errand, PATIENCE);
        assert_eq!((ended.outcome, ended.left, ended.answer), (failed(Failure::Connect, None), false, None));
    }
}

#[test]
fn nobody_is_above_accepted_on_the_word_of_a_destination_that_lies() {
    for shipped_connector in SHIPPED.iter().filter(|shipped| speaks_http(shipped.text)) {
        let id = shipped_connector.id;
        let peer = Peer::start(move |got| lie(id, got));
        let (instance, outbound) = (shipped(id), led(&peer));
        let cap = if shipped_connector.verified { Level::Verified } else { Level::Accepted };
        let transport = HttpTransport::new(Options { cap, ..options(&instance, &outbound) });
        let ended = run(&transport, Errand::Send(vec![out(1), out(2)]), PATIENCE);
        assert!(ended.left && peer.got().iter().any(|got| is_told(id, got)), "{id}: {ended:?}");
        match ended.outcome {
            Outcome::Ok(level) => assert_eq!(level, Level::Accepted, "{id}"),
            Outcome::Job(handle) => {
                let polled = run(&transport, Errand::Poll(handle), PATIENCE);
                assert_eq!((polled.outcome, polled.reports), (Outcome::Ok(Level::Accepted), Vec::new()), "{id}");
            }
            other => panic!("{id}: {other:?}"),
        }
        let is_low = |(_, report): &(Target, Report)| !matches!(report, Report::Reached(level) if *level > Level::Accepted);
        assert!(ended.reports.iter().all(is_low), "{id}: {:?}", ended.reports);
        let checked = run(&transport, Errand::Check(vec![out(1)]), PATIENCE);
        match instance.manifest().verify_unit() {
            Some(_) => assert_eq!(checked.reports, [(Target(1), Report::Drift)], "{id}"),
            None => assert_eq!(checked.outcome, Outcome::NotSent, "{id}"),
        }
        // Without the cap the word of an API counts as its manifest says, but for what can be read back.
        let trusting = HttpTransport::new(options(&instance, &outbound));
        let ended = run(&trusting, Errand::Send(vec![out(1)]), PATIENCE);
        let level = match ended.outcome {
            Outcome::Job(handle) => run(&trusting, Errand::Poll(handle), PATIENCE).outcome,
            outcome => outcome,
        };
        let is_applied = matches!(id, "google-data-manager" | "liveramp" | "marketo");
        assert_eq!(level, Outcome::Ok(if is_applied { Level::Applied } else { Level::Accepted }), "{id}");
    }
}

/// A fault: its name, what the destination does, and what it means.
type Fault = (&'static str, Reply, Outcome);

fn faults() -> Vec<Fault> {
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    let huge = 5 << 20;
    vec![
        ("429", reply(429, "text/plain", "retry-after: 30\r\n", "slow down"), failed(Failure::Throttled, Some(30_000))),
        ("500", empty(500), failed(Failure::Server, None)),
        (
            "503",
            reply(503, "application/json", "retry-after: Sun, 22 Nov 2026 07:00:00 GMT\r\n", "{}"),
            failed(Failure::Server, Some(60_000)),
        ),
        ("502", reply(502, "text/html", "", "<html>"), failed(Failure::Ambiguous, None)),
        ("504", empty(504), failed(Failure::Ambiguous, None)),
        ("401", empty(401), failed(Failure::Credentials, None)),
        ("410", empty(410), failed(Failure::Credentials, None)),
        ("a page", reply(200, "text/html", "", "<html>Sign in</html>"), failed(Failure::Server, None)),
        ("half", raw(&(head(100) + "{\"ok\":")), failed(Failure::Ambiguous, None)),
        ("half JSON", reply(200, "application/json", "", "{\"ok\":"), failed(Failure::Server, None)),
        ("huge", Reply::Raw([head(huge).into_bytes(), vec![b' '; huge]].concat()), failed(Failure::Ambiguous, None)),
        ("silence", Reply::Hang, failed(Failure::Ambiguous, None)),
        ("loris", Reply::Loris(head(1000).into_bytes()), failed(Failure::Ambiguous, None)),
        ("reset", raw(""), failed(Failure::Ambiguous, None)),
        ("no HTTP", raw("SSH-2.0-OpenSSH_9.7\r\n"), failed(Failure::Ambiguous, None)),
        (
            "redirect",
            raw("HTTP/1.1 307 Elsewhere\r\nlocation: https://elsewhere.example/\r\ncontent-length: 0\r\n\r\n"),
            Outcome::Rejected { is_retryable: false, code: 307 },
        ),
    ]
}

/// One minute before the date in the faults.
struct Fixed;

impl Env for Fixed {
    fn now_ms(&self) -> i64 {
        1_795_330_800_000 - 60_000
    }

    fn fill(&self, bytes: &mut [u8]) {
        System.fill(bytes);
    }
}

#[test]
fn no_fault_of_a_destination_is_a_success() {
    let mut threads = Vec::new();
    for shipped_connector in SHIPPED.iter().filter(|shipped| speaks_http(shipped.text)) {
        threads.push(std::thread::spawn(move || {
            let id = shipped_connector.id;
            let fault = Arc::new(Mutex::new(Reply::Hang));
            let now = Arc::clone(&fault);
            let peer = Peer::start(move |got| if is_told(id, got) { now.lock().unwrap().clone() } else { lie(id, got) });
            let (instance, outbound) = (shipped(id), led(&peer));
            for (name, reply, expected) in faults() {
                *fault.lock().unwrap() = reply;
                let transport = HttpTransport::new(Options { env: Arc::new(Fixed), ..options(&instance, &outbound) });
                // One identifier, so that every call has one item.
                let kind = if id == "the-trade-desk" { known(Kind::Uid2, "AAA=") } else { known(Kind::Email, "rosa@example.org") };
                let person = message(1, PurposeSet::GPC, PurposeSet::EMPTY, vec![kind]);
                let before = peer.got().len();
                let ended = run(&transport, Errand::Send(vec![person]), Duration::from_secs(2));
                let sent = peer.got()[before..].iter().filter(|got| is_told(id, got)).count();
                // Where something was asked first the token was there before, so another one is tried.
                let tries = if name == "401" && ["salesforce", "marketo"].contains(&id) { 2 } else { 1 };
                assert_eq!((ended.outcome, sent), (expected, tries), "{id}: {name}");
                assert!(ended.left && ended.reports.is_empty(), "{id}: {name}");
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn what_only_asks_leaves_nothing_behind_when_it_fails() {
    let fault = Arc::new(Mutex::new(Reply::Hang));
    let now = Arc::clone(&fault);
    let peer = Peer::start(move |_| now.lock().unwrap().clone());
    let (instance, outbound) = (shipped("adobe-campaign-standard"), led(&peer));
    for (reply, failure) in [(Reply::Hang, Failure::Connect), (empty(502), Failure::Server), (empty(401), Failure::Credentials)] {
        *fault.lock().unwrap() = reply;
        for errand in [Errand::Send(vec![out(1)]), Errand::Check(vec![out(1)]), Errand::Probe] {
            let ended = run(&HttpTransport::new(options(&instance, &outbound)), errand, Duration::from_secs(1));
            assert_eq!((ended.outcome, ended.left), (failed(failure, None), false));
        }
    }
    assert!(peer.got().iter().all(|got| got.method == "GET"));
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outbound: Arc<dyn Outbound> = Arc::new(Led { network: network(), port: free });
    let ended = run(&HttpTransport::new(options(&shipped("webhook"), &outbound)), Errand::Send(vec![out(1)]), PATIENCE);
    assert_eq!((ended.outcome, ended.left), (failed(Failure::Connect, None), false));
}

/// An outbound that panics, or keeps the request for ever.
struct Broken {
    panics: bool,
    kept: Mutex<Vec<Done>>,
}

impl Outbound for Broken {
    fn send(&self, _: Outgoing, done: Done) {
        assert!(!self.panics, "on purpose");
        self.kept.lock().unwrap().push(done);
    }
}

#[test]
fn the_end_is_told_once_also_after_a_panic_and_after_the_end_of_the_runtime() {
    let instance = shipped("webhook");
    let panics: Arc<dyn Outbound> = Arc::new(Broken { panics: true, kept: Mutex::default() });
    let ended = run(&HttpTransport::new(options(&instance, &panics)), Errand::Send(vec![out(1)]), PATIENCE);
    assert!(matches!(ended.outcome, Outcome::Failed { failure: Failure::Ambiguous, .. }) && ended.left, "{ended:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let keeps = Arc::new(Broken { panics: false, kept: Mutex::default() });
    let outbound: Arc<dyn Outbound> = Arc::clone(&keeps) as _;
    let transport = HttpTransport::new(Options { runtime: runtime.handle().clone(), ..options(&instance, &outbound) });
    let (tell, told) = mpsc::channel();
    let again = tell.clone();
    transport.start(Errand::Send(vec![out(1)]), PATIENCE, Box::new(move |ended| tell.send(ended).unwrap()));
    crate::support::until("it is under way", || !keeps.kept.lock().unwrap().is_empty());
    drop(runtime);
    let ended = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ended.outcome, ended.left), (failed(Failure::Ambiguous, None), true));
    // Nothing can be started any more.
    transport.start(Errand::Send(vec![out(1)]), PATIENCE, Box::new(move |ended| again.send(ended).unwrap()));
    let ended = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ended.outcome, ended.left), (failed(Failure::Connect, None), false));
    assert!(told.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn jobs_are_asked_after_until_all_of_them_are_over() {
    let status = Arc::new(Mutex::new(BTreeMap::from([("u-1", "PROCESSING"), ("u-2", "COMPLETED")])));
    let (now, number) = (Arc::clone(&status), AtomicUsize::new(0));
    let peer = Peer::start(move |got| match got.target.split_once("uuid=") {
        None => json_reply(201, &json!({ "request_uuid": format!("u-{}", number.fetch_add(1, Ordering::SeqCst) + 1) })),
        Some((_, job)) => {
            json_reply(200, &json!({ "privacy_request": { "status": now.lock().unwrap()[job], "error_message": "NOT_FOUND" } }))
        }
    });
    let (instance, outbound) = (shipped("liveramp"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let nobody = message(2, PurposeSet::GPC, PurposeSet::EMPTY, vec![digest(Kind::Email, "x@example.org")]);
    let ended = run(&transport, Errand::Send(vec![out(1), nobody]), PATIENCE);
    let Outcome::Job(handle) = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!((ended.reports, handle.matches("u-").count()), (vec![(Target(2), Report::Unreachable)], 2), "{handle}");
    let poll = || run(&transport, Errand::Poll(handle.clone()), PATIENCE).outcome;
    assert_eq!(poll(), Outcome::Pending);
    status.lock().unwrap().insert("u-1", "COMPLETED");
    assert_eq!(poll(), Outcome::Ok(Level::Applied));
    status.lock().unwrap().insert("u-2", "FAILED");
    let Outcome::SomeFailed { is_retryable: true, code } = poll() else { panic!() };
    assert_eq!(transport.reason(code).as_deref(), Some("NOT_FOUND"));
    assert!(matches!(run(&transport, Errand::Poll("u-1".to_owned()), PATIENCE).outcome, Outcome::Rejected { .. }));
    // More jobs than a lane can name are asked after by nobody, so they stay accepted.
    let many = (0..120).map(|number| known(Kind::Email, &format!("rosa{number}@example.org"))).collect();
    let ended = run(&transport, Errand::Send(vec![message(3, PurposeSet::GPC, PurposeSet::EMPTY, many)]), PATIENCE);
    assert_eq!((ended.outcome, ended.reports), (Outcome::Ok(Level::Accepted), Vec::new()));
}

#[test]
fn rows_are_found_once_and_anew_when_they_are_gone_or_read_back() {
    // The record @A was merged into @B.
    let merged = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = Arc::clone(&merged);
    let peer = Peer::start(move |got| {
        let (is_merged, key) = (now.load(Ordering::SeqCst), if now.load(Ordering::SeqCst) { "@B" } else { "@A" });
        match (got.method.as_str(), got.target.contains("byEmail")) {
            (_, true) => json_reply(200, &json!({ "content": [{ "PKey": key }] })),
            _ if is_merged && got.target.ends_with("%40A") => json_reply(404, &json!("Unable to decrypt PKey.")),
            _ => json_reply(200, &json!({ "PKey": key, "ccpaOptOut": true })),
        }
    });
    let (instance, outbound) = (shipped("adobe-campaign-standard"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let send = || {
        let before = peer.count("byEmail");
        let ended = run(&transport, Errand::Send(vec![out(1)]), PATIENCE);
        assert_eq!((ended.outcome, ended.reports), (Outcome::Ok(Level::Verified), Vec::new()));
        peer.count("byEmail") - before
    };
    assert_eq!((send(), send()), (1, 0));
    merged.store(true, Ordering::SeqCst);
    assert_eq!((send(), send()), (1, 0));
    assert!(peer.got().iter().any(|got| got.method == "PATCH" && got.target.ends_with("%40B")));
    let before = peer.count("byEmail");
    let checked = run(&transport, Errand::Check(vec![out(1)]), PATIENCE);
    assert_eq!((checked.outcome, checked.reports, peer.count("byEmail") - before), (Outcome::Ok(Level::Verified), Vec::new(), 1));
}

#[test]
fn a_batch_says_of_each_what_became_of_it_and_is_parted_if_it_does_not() {
    let answer = Arc::new(Mutex::new(empty(500)));
    let now = Arc::clone(&answer);
    let peer = Peer::start(move |got| if is_token(got) { token_reply("t1") } else { now.lock().unwrap().clone() });
    let (instance, outbound) = (shipped("marketo"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let rows = |rows: &[Value]| json_reply(200, &json!({ "success": true, "result": rows }));
    let send = |reply: Reply, people: Vec<Arc<Message>>| {
        *answer.lock().unwrap() = reply;
        let ended = run(&transport, Errand::Send(people), PATIENCE);
        (ended.outcome, ended.reports)
    };
    let (updated, absent, locked) = (
        json!({ "status": "updated" }),
        json!({ "status": "skipped", "reasons": [{ "code": "1004" }] }),
        json!({ "status": "skipped", "reasons": [{ "code": "1007" }] }),
    );
    let (outcome, reports) = send(rows(&[updated.clone(), absent, locked]), vec![out(1), out(2), out(3)]);
    let [(Target(2), Report::Absent), (Target(3), Report::Failed { is_retryable: false, code })] = reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!((outcome, transport.reason(code).as_deref()), (Outcome::Ok(Level::Applied), Some("1007")));
    // Nobody of a batch that is to be parted has an end yet.
    let (outcome, reports) = send(rows(&[updated]), vec![out(1), out(2)]);
    assert!(matches!(outcome, Outcome::SomeFailed { is_retryable: true, .. }) && reports.is_empty(), "{outcome:?} {reports:?}");
    assert_eq!(send(empty(413), vec![out(1), out(2)]), (Outcome::TooLarge, Vec::new()));
    assert_eq!(send(empty(400), vec![out(1), out(2)]), (Outcome::Rejected { is_retryable: false, code: 400 }, Vec::new()));
    assert_eq!(send(empty(400), vec![out(1)]), (Outcome::Rejected { is_retryable: false, code: 400 }, Vec::new()));
    // Somebody alone with two items: the halves go out at once.
    let two = vec![known(Kind::Email, "rosa@example.org"), known(Kind::Email, "rosita@example.org")];
    let before = peer.count("leads.json");
    assert_eq!(send(empty(413), vec![message(1, PurposeSet::GPC, PurposeSet::EMPTY, two)]).0, Outcome::Ok(Level::Accepted));
    assert_eq!(peer.count("leads.json") - before, 3);
}

#[test]
fn an_allow_is_told_only_when_nothing_is_denied_any_more() {
    let peer = Peer::start(|_| empty(204));
    let (instance, outbound) = (shipped("webhook"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let send = |denied, allowed| {
        let before = peer.got().len();
        let message = emailed(1, denied, allowed);
        let reaches = transport.reaches(&message);
        let ended = run(&transport, Errand::Send(vec![message]), PATIENCE);
        let said: Vec<Value> = peer.got()[before..].iter().map(|got| serde_json::from_str(&got.body).unwrap()).collect();
        let said: Vec<_> = said.iter().map(|said| (said["data"]["status"].clone(), said["data"]["purposes"].clone())).collect();
        (ended.outcome, ended.reports, said, reaches)
    };
    let (ok, sale) = (Outcome::Ok(Level::Accepted), PurposeSet::SALE);
    assert_eq!(send(sale, PurposeSet::SHARING), (ok.clone(), vec![], vec![(json!("opt_out"), json!(["sale"]))], true));
    assert_eq!(send(PurposeSet::EMPTY, PurposeSet::SHARING), (ok.clone(), vec![], vec![(json!("opt_in"), json!(["sharing"]))], true));
    assert_eq!(send(PurposeSet::EMPTY, PurposeSet::EMPTY), (ok, vec![(Target(1), Report::Nothing)], vec![], false));
}

#[test]
fn after_a_failure_nothing_more_begins_and_what_may_take_effect_later_goes_first() {
    let peer = Peer::start(|got| {
        if got.body.contains("rosa1@") {
            return empty(500);
        }
        std::thread::park_timeout(Duration::from_millis(300));
        empty(if got.body.contains("rosa2@") { 504 } else { 204 })
    });
    let (instance, outbound) = (shipped("webhook"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let ended = run(&transport, Errand::Send((1..=12).map(out).collect()), PATIENCE);
    assert_eq!((ended.outcome, ended.reports.len()), (failed(Failure::Ambiguous, None), 0));
    assert!(peer.got().len() <= 4, "{}", peer.got().len());
}

#[test]
fn no_more_calls_are_under_way_than_the_manifest_says() {
    let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (Arc::clone(&active), Arc::clone(&most));
    let peer = Peer::start(move |got| {
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_millis(20));
        now.fetch_sub(1, Ordering::SeqCst);
        lie("adobe-campaign-standard", got)
    });
    let (instance, outbound) = (shipped("adobe-campaign-standard"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let (tell, told) = mpsc::channel();
    for errand in 0..4 {
        let (tell, people) = (tell.clone(), (0..4).map(|person| out(errand * 4 + person)).collect());
        transport.start(Errand::Send(people), PATIENCE, Box::new(move |ended| tell.send(ended.outcome).unwrap()));
    }
    for _ in 0..4 {
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Outcome::Ok(Level::Accepted)));
    }
    assert_eq!((most.load(Ordering::SeqCst), peer.got().len()), (2, 48));
}

/// Whoever a destination knows under one name is not absent because it does not know another one.
#[test]
fn a_person_is_absent_only_if_nothing_of_theirs_is_there() {
    let peer = Peer::start(move |got| {
        if got.method != "POST" || !got.target.contains("/leads") || is_token(got) {
            return lie("marketo", got);
        }
        let body: Value = serde_json::from_str(&got.body).unwrap();
        let of = |input: &Value| {
            let is_known = input.to_string().contains("known@");
            if is_known { json!({ "status": "updated" }) } else { json!({ "status": "skipped", "reasons": [{ "code": "1004" }] }) }
        };
        json_reply(200, &json!({ "success": true, "result": body["input"].as_array().unwrap().iter().map(of).collect::<Vec<_>>() }))
    });
    let transport = HttpTransport::new(options(&shipped("marketo"), &led(&peer)));
    let person = |target, names: [&str; 2]| {
        let identifiers = names.map(|name| known(Kind::Email, &format!("{name}@example.org"))).into();
        message(target, PurposeSet::GPC, PurposeSet::EMPTY, identifiers)
    };
    let people = vec![person(1, ["known", "other"]), person(2, ["other", "known"]), person(3, ["one", "other"])];
    let ended = run(&transport, Errand::Send(people), PATIENCE);
    assert!(matches!(ended.outcome, Outcome::Ok(level) if level >= Level::Accepted), "{ended:?}");
    assert_eq!(ended.reports, [(Target(3), Report::Absent)]);
}

#[test]
fn what_must_exist_before_the_first_call_is_made_once_and_nobody_is_told_before() {
    let (field, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let (made, is_refused) = (Arc::clone(&field), Arc::clone(&refuses));
    let peer = Peer::start(move |got| match got.method.as_str() {
        "GET" if got.target.contains("/schema/fields/") => {
            json_reply(200, &json!({ "success": made.load(Ordering::SeqCst) > 0, "errors": [] }))
        }
        "POST" if got.target.contains("/schema/fields") && is_refused.load(Ordering::SeqCst) => {
            json_reply(403, &json!({ "success": false }))
        }
        "POST" if got.target.contains("/schema/fields") => {
            made.fetch_add(1, Ordering::SeqCst);
            json_reply(200, &json!({ "success": true }))
        }
        _ => lie("marketo", got),
    });
    let (instance, outbound) = (shipped("marketo"), led(&peer));
    let transport = HttpTransport::new(options(&instance, &outbound));
    let ended = run(&transport, Errand::Send(vec![emailed(1, PurposeSet::GPC, PurposeSet::EMPTY)]), PATIENCE);
    assert_eq!((ended.outcome, ended.reports), (failed(Failure::Credentials, None), Vec::new()));
    let problem = transport.problem().unwrap();
    assert_eq!(problem, "the custom field doNotSell is not there, and could not be made: the answer had status 403");
    assert!(!peer.got().iter().any(|got| got.body.contains("rosa1")), "nobody is told before it is there");
    refuses.store(false, Ordering::SeqCst);
    for target in 1..4 {
        let ended = run(&transport, Errand::Send(vec![emailed(target, PurposeSet::GPC, PurposeSet::EMPTY)]), PATIENCE);
        assert!(matches!(ended.outcome, Outcome::Ok(_)), "{ended:?}");
    }
    assert_eq!((field.load(Ordering::SeqCst), transport.problem()), (1, None));
    assert_eq!(
        peer.got().iter().filter(|got| got.method == "GET" && got.target.contains("/schema/fields/")).count(),
        4,
        "and then never again"
    );
    // Where calls are only checked nothing is made.
    field.store(0, Ordering::SeqCst);
    let checked = HttpTransport::new(Options { cap: Level::Sent, ..options(&instance, &outbound) });
    run(&checked, Errand::Send(vec![emailed(9, PurposeSet::GPC, PurposeSet::EMPTY)]), PATIENCE);
    assert_eq!(field.load(Ordering::SeqCst), 0);
}
