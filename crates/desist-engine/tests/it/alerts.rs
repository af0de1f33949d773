//! Alarms are told: each change, in order, signed, at least once, and whatever the store does.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_core::fact::AlarmKind;
use desist_engine::alerts::{ANSWER_BYTES_MAX, AlertsTo, Delivery, RETRY_MS_MAX, SigningKey, WAITING_MAX};
use desist_engine::engine::{Engine, Policy};
use desist_engine::env::{Answer, Done, Outbound, Outgoing, SendError};
use desist_engine::notary::witnesses::WitnessAt;
use desist_proof::note::{Algorithm, Signer};
use desist_store::faulty::Fault;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::notary::{people, signed};
use crate::support::{Home, Opening, email, opt_out, submit, wait_until};

const KEY: [u8; 32] = *b"a key of thirty-two bytes, known";
const URL: &str = "https://alerts.example/desist";

/// What comes back, if anything does.
type Says = Box<dyn FnMut(&Outgoing) -> Option<Result<Answer, SendError>> + Send>;

/// The machine that is told; it keeps what it got.
struct Hook {
    says: Mutex<Says>,
    seen: Mutex<Vec<Outgoing>>,
    unanswered: Mutex<Vec<Done>>,
}

impl Outbound for Hook {
    fn send(&self, request: Outgoing, done: Done) {
        // A witness of the same name refuses.
        if request.url.ends_with("/add-checkpoint") {
            return done(Ok(status(403)));
        }
        let answer = self.says.lock().expect("whole")(&request);
        self.seen.lock().expect("whole").push(request);
        match answer {
            Some(answer) => done(answer),
            None => self.unanswered.lock().expect("whole").push(done),
        }
    }
}

fn status(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new() }
}

fn header<'a>(request: &'a Outgoing, name: &str) -> &'a str {
    &request.headers.iter().find(|(known, _)| known == name).expect(name).1
}

fn body(request: &Outgoing) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

/// Type and kind.
fn what(request: &Outgoing) -> (String, String) {
    let body = body(request);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&body["type"]), text(&body["data"]["kind"]))
}

impl Hook {
    fn new() -> Arc<Self> {
        Arc::new(Self { says: Mutex::new(Box::new(|_| Some(Ok(status(204))))), seen: Mutex::default(), unanswered: Mutex::default() })
    }

    fn says(&self, says: impl FnMut(&Outgoing) -> Option<Result<Answer, SendError>> + Send + 'static) {
        *self.says.lock().expect("whole") = Box::new(says);
    }

    /// What came of one kind.
    fn of(&self, kind: &str) -> Vec<Outgoing> {
        self.seen.lock().expect("whole").iter().filter(|request| what(request).1 == kind).cloned().collect()
    }

    /// The types of what came of one kind.
    fn types(&self, kind: &str) -> Vec<String> {
        self.of(kind).iter().map(|request| what(request).0).collect()
    }
}

fn to(url: &str) -> AlertsTo {
    let key = SigningKey::parse(&format!("whsec_{}", STANDARD.encode(KEY))).map_err(str::to_owned);
    AlertsTo { url: url.to_owned(), allow_private: false, key }
}

fn home(seed: u64, hook: &Arc<Hook>) -> Home {
    let mut home = Home::new(seed);
    home.policy.alerts = Some(to(URL));
    home.outbound = Some(Arc::clone(hook) as Arc<dyn Outbound>);
    home
}

fn raise(engine: &Engine, kind: AlarmKind) {
    let env = engine.shared().env.as_ref();
    engine.shared().alerts.raised(env, kind, env.now_ms() / 1000);
}

fn clear(engine: &Engine, kind: AlarmKind) {
    engine.shared().alerts.cleared(engine.shared().env.as_ref(), kind);
}

/// Waits until the thread looked at all that is due now: what is raised here comes last in the same look.
fn look(engine: &Engine, hook: &Hook) {
    let before = hook.of("witness_lost").len();
    raise(engine, AlarmKind::WitnessLost);
    clear(engine, AlarmKind::WitnessLost);
    wait_until("both are told", || hook.of("witness_lost").len() == before + 2);
}

fn delivered(engine: &Engine) {
    wait_until("delivered", || engine.shared().alerts.delivery() == Some(Delivery::Delivered));
}

/// HMAC-SHA256 as RFC 2104 writes it.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ pad).collect::<Vec<u8>>();
    let inner = Sha256::digest([padded(0x36), text.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

fn is_signed(request: &Outgoing) -> bool {
    let signed = [header(request, "webhook-id").as_bytes(), header(request, "webhook-timestamp").as_bytes(), &request.body].join(&b'.');
    header(request, "webhook-signature") == format!("v1,{}", STANDARD.encode(hmac(&KEY, &signed)))
}

#[test]
fn a_key_signs_as_the_specification_says_and_is_never_shown() {
    // The vector of the project's own libraries.
    let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let of = |bytes: usize| SigningKey::parse(&format!("whsec_{}", STANDARD.encode(vec![7; bytes])));
    assert!(of(24).is_ok() && of(64).is_ok() && of(23).is_err() && of(65).is_err());
    for wrong in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_*"] {
        assert_eq!(SigningKey::parse(wrong).expect_err("no key"), "is not \"whsec_\" and base64 of 24 to 64 bytes");
    }
    let policy = Policy { alerts: Some(to(URL)), ..Home::new(1).policy };
    assert!(format!("{policy:?}").contains("key: Ok(SigningKey)"), "{policy:?}");
}

#[test]
fn what_is_raised_and_cleared_is_told_in_order_signed_and_with_nothing_else() {
    let hook = Hook::new();
    let home = home(80, &hook);
    let engine = home.open();
    assert_eq!(engine.shared().alerts.delivery(), Some(Delivery::Delivered));
    assert!(hook.seen.lock().expect("whole").is_empty());
    raise(&engine, AlarmKind::NotDurable);
    home.env.advance(90);
    // It stands already.
    raise(&engine, AlarmKind::NotDurable);
    clear(&engine, AlarmKind::NotDurable);
    clear(&engine, AlarmKind::NotDurable);
    wait_until("both", || hook.of("not_durable").len() == 2);
    delivered(&engine);
    let told = hook.of("not_durable");
    let data = json!({ "business": "acme", "kind": "not_durable", "destination": null, "since": "2026-03-10T06:30:00Z" });
    assert_eq!(body(&told[0]), json!({ "type": "alarm.raised", "timestamp": "2026-03-10T06:30:00Z", "data": data }));
    assert_eq!(body(&told[1]), json!({ "type": "alarm.cleared", "timestamp": "2026-03-10T06:31:30Z", "data": data }));
    for request in &told {
        assert!(is_signed(request), "{request:?}");
        assert_eq!((request.method, request.url.as_str(), request.allow_private), ("POST", URL, false));
        assert_eq!((request.answer_bytes_max, header(request, "content-type")), (ANSWER_BYTES_MAX, "application/json"));
        assert_eq!(request.headers.len(), 4);
        assert!(!header(request, "webhook-id").contains('.'));
    }
    assert_ne!(header(&told[0], "webhook-id"), header(&told[1], "webhook-id"));
    engine.close();
}

#[test]
fn what_fails_is_tried_again_later_and_later_and_holds_up_no_other_kind() {
    let hook = Hook::new();
    let home = home(81, &hook);
    let engine = home.open();
    let answers = Arc::new(Mutex::new(Ok(status(500))));
    let says = Arc::clone(&answers);
    hook.says(move |request| Some(if what(request).1 == "not_durable" { says.lock().expect("whole").clone() } else { Ok(status(200)) }));
    let since = home.env.now();
    raise(&engine, AlarmKind::NotDurable);
    let failing = |why: &str| Some(Delivery::Failing(since * 1000, why.to_owned()));
    wait_until("the failure is known", || engine.shared().alerts.delivery() == failing("status 500"));
    clear(&engine, AlarmKind::NotDurable);
    let after = |status, value: &str| Ok(Answer { status, headers: vec![("retry-after".to_owned(), value.to_owned())], body: Vec::new() });
    // How long it waits after each failure, and what comes back then.
    let tries = [
        (1, Ok(status(302)), "status 302"),
        (2, Ok(status(404)), "status 404"),
        (4, Err(SendError::NotSent("refused".to_owned())), "no connection: refused"),
        (8, Err(SendError::Forbidden("private")), "not sent: private"),
        (16, after(503, "100"), "status 503"),
        (100, after(429, "0"), "status 429"),
        // In 165 seconds.
        (64, after(503, "Tue, 10 Mar 2026 06:36:00 GMT"), "status 503"),
        (165, after(502, "nonsense"), "status 502"),
        (256, after(503, "4294967295"), "status 503"),
        (RETRY_MS_MAX / 1000, Ok(status(199)), "status 199"),
        (RETRY_MS_MAX / 1000, Ok(status(500)), "status 500"),
        (RETRY_MS_MAX / 1000, Ok(status(300)), "status 300"),
    ];
    for (done, (wait, answer, why)) in (1..).zip(tries) {
        *answers.lock().expect("whole") = answer;
        home.env.advance(wait - 1);
        look(&engine, &hook);
        assert_eq!(hook.of("not_durable").len(), done, "{wait}: not before the time");
        home.env.advance(1);
        wait_until("tried again", || hook.of("not_durable").len() == done + 1);
        wait_until("the failure is known", || engine.shared().alerts.delivery() == failing(why));
    }
    *answers.lock().expect("whole") = Ok(status(200));
    // A clock that was set back makes no wait longer.
    home.env.set(since - 86_400);
    delivered(&engine);
    let told = hook.of("not_durable");
    let (cleared, raised) = told.split_last().expect("told");
    assert_eq!((what(cleared).0.as_str(), raised.len()), ("alarm.cleared", 14));
    for request in raised {
        assert!(is_signed(request), "{request:?}");
        assert_eq!(header(request, "webhook-id"), header(&raised[0], "webhook-id"));
        assert_eq!(request.body, raised[0].body);
    }
    assert_eq!(header(&raised[2], "webhook-timestamp"), (since + 3).to_string(), "when it is sent, not when it was raised");
    assert_ne!(header(cleared, "webhook-id"), header(&raised[0], "webhook-id"));
    engine.close();
}

#[test]
fn a_receiver_that_is_gone_is_left_alone_until_a_reload() {
    let hook = Hook::new();
    let home = home(82, &hook);
    let ended = || Some(Delivery::Failing(home.env.now() * 1000, "it wants no more until a reload (status 410)".to_owned()));
    for reloads in [false, true] {
        let engine = home.open();
        hook.says(|_| Some(Ok(status(410))));
        hook.seen.lock().expect("whole").clear();
        raise(&engine, AlarmKind::NotDurable);
        let gone = ended();
        wait_until("it is known", || engine.shared().alerts.delivery() == gone);
        home.env.advance(86_400);
        raise(&engine, AlarmKind::LogChanged);
        hook.says(|_| Some(Ok(status(200))));
        if reloads {
            engine.declare(&home.policy).expect("taken");
            delivered(&engine);
        }
        // After this nothing is sent any more.
        engine.close();
        let told: Vec<_> = hook.seen.lock().expect("whole").iter().map(|request| what(request).1).collect();
        assert_eq!(told, if reloads { vec!["not_durable", "not_durable", "log_changed"] } else { vec!["not_durable"] });
    }
    let told = hook.of("not_durable");
    assert_eq!(header(&told[0], "webhook-id"), header(&told[1], "webhook-id"));
}

#[test]
fn what_waits_is_bounded_and_ends_with_the_present_state() {
    for (changes, last) in [(100, "alarm.cleared"), (101, "alarm.raised")] {
        let hook = Hook::new();
        let home = home(83, &hook);
        let engine = home.open();
        hook.says(|_| None);
        raise(&engine, AlarmKind::NotDurable);
        wait_until("sent", || hook.of("not_durable").len() == 1);
        let first = header(&hook.of("not_durable")[0], "webhook-id").to_owned();
        for n in 1..changes {
            home.env.advance(1);
            if n % 2 == 0 {
                raise(&engine, AlarmKind::NotDurable);
            } else {
                clear(&engine, AlarmKind::NotDurable);
            }
            assert!(engine.shared().alerts.waiting() == (n + 1).min(WAITING_MAX - (n + 1 + WAITING_MAX) % 2), "{n}");
        }
        hook.says(|_| Some(Ok(status(200))));
        let done = hook.unanswered.lock().expect("whole").pop().expect("one");
        done(Ok(status(500)));
        wait_until("failed", || matches!(engine.shared().alerts.delivery(), Some(Delivery::Failing(..))));
        home.env.advance(1);
        delivered(&engine);
        let told = hook.of("not_durable").split_off(1);
        assert_eq!(header(&told[0], "webhook-id"), first, "what may have arrived comes again under its id");
        let types: Vec<_> = told.iter().map(|request| what(request).0).collect();
        assert!(types.iter().step_by(2).all(|kind| kind == "alarm.raised"), "{types:?}");
        assert!(types.iter().skip(1).step_by(2).all(|kind| kind == "alarm.cleared"), "{types:?}");
        assert_eq!((types.last().map(String::as_str), types.len()), (Some(last), WAITING_MAX - changes % 2));
        engine.close();
    }
}

#[test]
fn after_a_restart_and_at_a_new_receiver_what_stands_is_told_again() {
    let hook = Hook::new();
    let before = home(84, &hook);
    let engine = before.open();
    signed(&engine);
    let mut home = Home::image(&before, 85);
    people(&engine, 0, 5);
    signed(&engine);
    engine.close();
    // An older store with the mark of the newer one.
    std::fs::copy(before.keys().join("checkpoint"), home.keys().join("checkpoint")).expect("copied");
    home.outbound = Some(Arc::clone(&hook) as Arc<dyn Outbound>);
    for start in 1..=2 {
        let engine = home.open();
        wait_until("told", || hook.types("log_changed") == vec!["alarm.raised"; start]);
        if start == 2 {
            engine.declare(&Policy { alerts: Some(to("https://other.example")), ..home.policy.clone() }).expect("taken");
            wait_until("told there", || hook.of("log_changed").len() == 3);
            delivered(&engine);
            // The same receiver has heard of it.
            engine.declare(&Policy { alerts: Some(to("https://other.example")), ..home.policy.clone() }).expect("taken");
            look(&engine, &hook);
            // One that is taken out hears nothing.
            engine.declare(&Policy { alerts: None, ..home.policy.clone() }).expect("taken");
            wait_until("taken out", || engine.shared().alerts.delivery().is_none());
            raise(&engine, AlarmKind::NotDurable);
        }
        engine.close();
    }
    let told = hook.of("log_changed");
    assert_eq!(told.iter().map(|request| request.url.as_str()).collect::<Vec<_>>(), [URL, URL, "https://other.example"]);
    assert_ne!(header(&told[0], "webhook-id"), header(&told[1], "webhook-id"));
    assert!(hook.of("not_durable").is_empty());
}

#[test]
fn that_nothing_is_durable_is_told_while_the_store_is_closed() {
    let hook = Hook::new();
    let home = home(86, &hook);
    let (go, wait) = mpsc::channel();
    home.plan(Opening::Fails(Fault::BeforeCommit(2)));
    home.plan(Opening::Waits(wait));
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    submit(&engine, opt_out(vec![rosa])).expect_err("not durable");
    wait_until("told", || hook.types("not_durable") == ["alarm.raised"]);
    assert!(!engine.is_durable());
    go.send(()).expect("the writer waits");
    wait_until("told", || hook.types("not_durable") == ["alarm.raised", "alarm.cleared"]);
    assert!(engine.is_durable());
    engine.close();
}

#[test]
fn a_lost_witness_is_told_and_so_is_its_end() {
    let hook = Hook::new();
    let home = home(87, &hook);
    let engine = home.open();
    let key = Signer::new("w.example/1", Algorithm::Cosignature, &[9; 32]).expect("a name").verifier().clone();
    let witness = WitnessAt { url: "https://w.example".to_owned(), key, allow_private: false };
    engine.declare(&Policy { witnesses: vec![witness], ..home.policy.clone() }).expect("taken");
    wait_until("told", || hook.types("witness_lost") == ["alarm.raised"]);
    engine.declare(&home.policy).expect("taken");
    wait_until("told", || hook.types("witness_lost") == ["alarm.raised", "alarm.cleared"]);
    engine.close();
}

#[test]
fn without_a_secret_alerts_wait_and_without_a_url_nothing_is_sent() {
    let hook = Hook::new();
    let mut home = home(88, &hook);
    home.policy.alerts = None;
    let engine = home.open();
    raise(&engine, AlarmKind::NotDurable);
    assert_eq!((engine.shared().alerts.delivery(), engine.shared().alerts.waiting()), (None, 0));
    let why = "the variable X is not set".to_owned();
    let without = AlertsTo { key: Err(why.clone()), ..to(URL) };
    engine.declare(&Policy { alerts: Some(without), ..home.policy.clone() }).expect("taken");
    wait_until("it waits", || engine.shared().alerts.delivery() == Some(Delivery::WaitingForSecret(why.clone())));
    clear(&engine, AlarmKind::NotDurable);
    assert_eq!(engine.shared().alerts.waiting(), 2);
    assert!(hook.seen.lock().expect("whole").is_empty());
    engine.declare(&Policy { alerts: Some(to(URL)), ..home.policy.clone() }).expect("taken");
    wait_until("told", || hook.types("not_durable") == ["alarm.raised", "alarm.cleared"]);
    engine.close();
}

#[test]
fn a_stop_tries_once_more_and_not_for_long() {
    let hook = Hook::new();
    let home = home(89, &hook);
    let engine = home.open();
    hook.says(|_| Some(Ok(status(500))));
    raise(&engine, AlarmKind::NotDurable);
    clear(&engine, AlarmKind::NotDurable);
    wait_until("failed", || matches!(engine.shared().alerts.delivery(), Some(Delivery::Failing(..))));
    let tries = hook.of("not_durable").len();
    hook.says(|_| Some(Ok(status(200))));
    engine.close();
    assert_eq!(hook.types("not_durable")[tries..], ["alarm.raised", "alarm.cleared"]);
    // One that never answers, before the stop or after it.
    let engine = home.open();
    hook.says(|_| None);
    raise(&engine, AlarmKind::LogChanged);
    wait_until("sent", || hook.of("log_changed").len() == 1);
    let started = Instant::now();
    engine.close();
    assert!(started.elapsed() < Duration::from_secs(10));
}
