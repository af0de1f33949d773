//! What operators and auditors see of destinations, over an engine that tells one through a transport of ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use desist::config::Config;
use desist::web::{App, control};
use desist_core::lane::{Config as Lane, Level, Outcome, Report};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{Class, Destination};
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_store::sqlite::SqliteStore;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::until;

/// Takes everything, or refuses everybody.
struct Other {
    refuses: AtomicBool,
}

impl Transport for Other {
    fn start(&self, errand: Errand, _: Duration, done: Done) {
        let reports = match errand {
            Errand::Send(messages) if self.refuses.load(Ordering::SeqCst) => {
                let refused = |message: &Arc<Message>| (message.target, Report::Failed { is_retryable: false, code: 7 });
                messages.iter().map(refused).collect()
            }
            _ => Vec::new(),
        };
        done(Ended { reports, ..Ended::all(Outcome::Ok(Level::Accepted)) });
    }

    fn reaches(&self, _: &Message) -> bool {
        true
    }

    fn reason(&self, code: u16) -> Option<String> {
        (code == 7).then(|| "NO_SUCH_CONTACT".to_owned())
    }
}

fn destination(id: &str, transport: &Arc<Other>, through: Option<u64>) -> Destination {
    Destination {
        id: id.to_owned(),
        connector: "ours".to_owned(),
        class: Class::ThirdParty,
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        digest: [7; 32],
        lane: Lane::plain(through.map_or(1, |_| 2)),
        required: Level::Accepted,
        ceiling: Level::Accepted,
        resend_ms: None,
        through,
        owner: through.map(|_| "Privacy desk".to_owned()),
        transport: Ok(Arc::clone(transport) as Arc<dyn Transport>),
    }
}

/// The control socket's API over an engine of our own.
struct World {
    engine: Engine,
    app: App,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_owned();
        let policy = Policy {
            api_opt_in_own: true,
            time_zone: jiff::tz::TimeZone::UTC,
            purposes: Vec::new(),
            searched: desist_engine::search::Searched::default(),
            witnesses: Vec::new(),
            alerts: None,
            kinds_told: [desist_core::identifier::Kind::Email].into(),
        };
        let options = Options {
            business: None,
            keys: directory.path().join("keys"),
            snapshot: None,
            policy,
            env: Arc::new(System),
            outbound: None,
            open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as _)),
        };
        let (engine, _) = Engine::open(options).unwrap();
        let app = App::new(engine.clone(), Config::default(), true, Arc::new(|_| Ok(())));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { engine, app, runtime, _directory: directory }
    }

    fn send(&self, method: &str, path: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.runtime.block_on(async {
            let response = control(&self.app).oneshot(request.body(body).unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
            (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
        })
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send("GET", path, &Value::Null, None);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, body, None)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine.close();
    }
}

#[test]
fn an_opt_out_is_enforced_refused_parked_replayed_and_told_by_hand() {
    let world = World::new();
    let (crm, paper) = (Arc::new(Other { refuses: false.into() }), Arc::new(Other { refuses: false.into() }));
    let rosa = json!({ "kind": "email", "value": "rosa@example.org" });
    let opt_out = |who: &Value| {
        let (status, made) = world.post("/v1/requests", &json!({ "kind": "opt_out", "channel": "form", "identifiers": [who] }));
        assert_eq!(status, 201, "{made}");
        made
    };
    let request = opt_out(&rosa);
    let show = |request: &Value| world.get(&format!("/v1/requests/{}", request["id"].as_str().unwrap()));
    assert_eq!((&show(&request)["status"], show(&request).get("destinations")), (&json!("received"), None), "nobody is told yet");
    assert_eq!(world.post("/v1/destinations/crm/pause", &Value::Null).0, 404);

    world.engine.deliver(vec![destination("crm", &crm, None)]).unwrap();
    until("the opt-out arrives", || show(&request)["status"] == "enforced");
    let standing = json!([{ "id": "crm", "level": "accepted", "required": "accepted", "enforced": true }]);
    assert_eq!(show(&request)["destinations"], standing);
    let assurance = |who: &Value| world.post("/v1/subjects/assurance", &json!({ "identifiers": [who] })).1;
    assert_eq!(assurance(&rosa), json!({ "overall": "enforced", "destinations": standing }));
    let nobody = assurance(&json!({ "kind": "email", "value": "nobody@example.org" }));
    assert_eq!(nobody, json!({ "overall": "not_needed", "destinations": [] }));

    // Whoever is refused is parked under a number, with the destination's own code.
    crm.refuses.store(true, Ordering::SeqCst);
    let ivo = json!({ "kind": "email", "value": "ivo@example.org" });
    let refused = opt_out(&ivo);
    until("it is refused", || !world.get("/v1/destinations/crm/parked")["parked"].as_array().unwrap().is_empty());
    let parked = world.get("/v1/destinations/crm/parked");
    let one = &parked["parked"][0];
    assert_eq!(one["code"], "NO_SUCH_CONTACT", "{parked}");
    let target = one["target"].as_str().unwrap().to_owned();
    assert!(target.starts_with(['s', 'i']) && !parked.to_string().contains("ivo"), "{parked}");
    assert_eq!(show(&refused)["status"], "received");
    assert_eq!(world.get(&format!("/v1/destinations/crm/parked?after={target}&limit=1")), json!({ "parked": [] }));
    assert_eq!(world.send("GET", "/v1/destinations/crm/parked?limit=0", &Value::Null, None).1["code"], "invalid_query");
    let view = world.get("/v1/destinations/crm");
    assert_eq!(view["dead"].as_u64().unwrap() + view["parked"].as_u64().unwrap(), 1, "{view}");

    // Replayed once, however often the same request comes.
    crm.refuses.store(false, Ordering::SeqCst);
    let replay = |key: &str| world.send("POST", "/v1/destinations/crm/replay", &json!({ "all": true }), Some(key));
    let (first, again) = (replay("k-1"), replay("k-1"));
    assert_eq!((first.0, &first.1), (200, &again.1));
    until("it arrives", || show(&refused)["status"] == "enforced");

    // Paused is said, and undone.
    assert_eq!(world.post("/v1/destinations/crm/pause", &Value::Null).0, 204);
    until("it is paused", || world.get("/v1/destinations/crm")["state"] == "paused");
    assert_eq!(world.post("/v1/destinations/crm/resume", &json!({})).0, 204);
    until("it goes on", || world.get("/v1/destinations/crm")["state"] != "paused");
    assert_eq!(world.post("/v1/destinations/crm/done", &json!({ "through": 1, "by": "Ada" })).1["code"], "not_manual");

    // A person tells the other one.
    world.engine.deliver(vec![destination("crm", &crm, None), destination("paper", &paper, Some(0))]).unwrap();
    until("it has a lane", || world.get("/v1/destinations/paper")["state"] != "without_lease");
    assert_eq!(show(&request)["status"], "received", "one of two is not there yet");
    let tasks = || world.post("/control/tasks", &json!({ "id": "paper", "after": 0 })).1;
    let before = tasks();
    assert_eq!((&before["people"], &before["rows"][0]["value"]), (&json!(2), &json!("rosa@example.org")), "{before}");
    assert!(before["due"].is_string());
    let done = json!({ "through": before["upto"], "by": "Ada Byron", "evidence": "a letter" });
    assert_eq!(world.send("POST", "/v1/destinations/paper/done", &done, Some("k-2")).0, 204);
    assert_eq!(world.send("POST", "/v1/destinations/paper/done", &done, Some("k-2")).0, 204, "the first answer again");
    assert_eq!(world.post("/v1/destinations/paper/done", &done).1["pointer"], "/through", "it was done before");
    until("both are there", || show(&request)["status"] == "enforced");
    assert_eq!(tasks()["people"], 0);

    // All that is known of one identifier, without it.
    let (status, trace) = world.post("/control/trace-identifier", &rosa);
    assert_eq!((status, &trace["overall"], &trace["entries"][0]["request"]), (200, &json!("enforced"), &request["id"]), "{trace}");
    assert_eq!(trace["entries"][0]["channel"], "form");
    assert!(!trace.to_string().contains("rosa"), "{trace}");
}
