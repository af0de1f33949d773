//! What desist answers over HTTP: the private listener, the public listener, the control socket.

pub mod auth;
pub mod campaign;
pub mod control;
pub mod decisions;
pub mod destinations;
pub mod health;
pub mod identifiers;
pub mod json;
pub mod keys;
pub mod log;
pub mod openapi;
pub mod operator;
pub mod people;
pub mod problem;
pub mod receipt;
pub mod requests;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, delete, get, post};
use desist_engine::engine::Engine;
use desist_engine::intake::Idempotency;
use desist_store::{Read, StoreError};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use self::auth::Caller;
use self::campaign::Schemas;
use self::campaign::schema::Field;
use self::openapi::Endpoint;
use self::problem::Problem;
use crate::config::Config;
use crate::limits::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, RECEIPT_CLIENTS_MAX, RECEIPTS_PER_MINUTE, REQUEST_TIMEOUT};

/// What every handler works with. Clones share it.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// `desist.toml` as of the last reload.
    pub config: Arc<ArcSwap<Config>>,
    /// What links to the private listener start with.
    pub private_base: Arc<ArcSwap<String>>,
    /// The fields of the Campaign API, the business's own included.
    pub schemas: Arc<ArcSwap<Schemas>>,
    /// Whether this is a server, rather than a command that opened the store itself.
    pub serving: bool,
    limiter: Arc<ArcSwapOption<DefaultKeyedRateLimiter<u32>>>,
    receipts: Arc<DefaultKeyedRateLimiter<IpAddr>>,
    reload: Reload,
}

/// Reads the configuration again: all of it or none. The error is for the operator.
pub type Reload = Arc<dyn Fn(&App) -> Result<(), String> + Send + Sync>;

impl App {
    /// An app over an engine.
    pub fn new(engine: Engine, config: Config, serving: bool, reload: Reload) -> Self {
        let app = Self {
            engine,
            config: Arc::new(ArcSwap::from_pointee(Config::default())),
            private_base: Arc::new(ArcSwap::from_pointee(String::new())),
            schemas: Arc::new(ArcSwap::from_pointee(Schemas::new(Vec::new()))),
            serving,
            limiter: Arc::default(),
            receipts: Arc::new(RateLimiter::keyed(Quota::per_minute(RECEIPTS_PER_MINUTE))),
            reload,
        };
        app.configure(config);
        app
    }

    /// Takes a configuration over.
    pub fn configure(&self, config: Config) {
        let limit = config.limits.requests_per_minute_per_key;
        if limit != self.config.load().limits.requests_per_minute_per_key {
            self.limiter.store(limit.map(|limit| Arc::new(RateLimiter::keyed(Quota::per_minute(limit)))));
        }
        self.schemas.store(Arc::new(Schemas::new(config.campaign.fields.iter().map(Field::from).collect())));
        self.config.store(Arc::new(config));
    }

    /// Reads the configuration again.
    pub fn reload(&self) -> Result<(), String> {
        (self.reload)(self)
    }

    /// Whether a key may send one more request this minute.
    pub fn admits(&self, key: u32) -> bool {
        self.limiter.load().as_ref().is_none_or(|limiter| limiter.check_key(&key).is_ok())
    }

    /// Whether a client may ask for one more receipt this minute.
    pub fn may_ask_for_receipts(&self, address: IpAddr) -> bool {
        if self.receipts.len() > RECEIPT_CLIENTS_MAX {
            self.receipts.retain_recent();
        }
        self.receipts.check_key(&receipt::block(address)).is_ok()
    }

    /// Asks the store beside the runtime, in one snapshot.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnMut(&mut dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let engine = self.engine.clone();
        Ok(tokio::task::spawn_blocking(move || engine.read(question)).await.map_err(|_| Problem::internal())??)
    }

    /// Today in the business's time zone.
    pub fn today(&self) -> jiff::civil::Date {
        let now = jiff::Timestamp::from_millisecond(self.engine.shared().env.now_ms()).unwrap_or_default();
        now.to_zoned(self.config.load().business.time_zone.clone()).date()
    }
}

/// The name of an enum's value on the wire.
pub fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The scope of a request's `Idempotency-Key`, if it has one.
pub fn idempotency(app: &App, headers: &HeaderMap, caller: Caller, route: &str, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.as_bytes();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_invalid",
            format!("the Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        ));
    }
    let secrets = &app.engine.shared().secrets;
    let scope = secrets.digest("idempotency", &[key, route.as_bytes(), caller.actor.to_string().as_bytes()]);
    Ok(Some(Idempotency { scope, body: secrets.digest("idempotency body", &[body]) }))
}

/// The endpoints of the JSON API, in the order of the document.
pub fn endpoints() -> Vec<Endpoint> {
    use Method as M;
    vec![
        Endpoint::new(M::POST, "/v1/requests", "Take in an opt-out, a limit, or the first step of an opt-in", post(requests::create))
            .body::<requests::RequestBody>()
            .answers::<requests::RequestAnswer>(201)
            .idempotent(),
        Endpoint::new(M::GET, "/v1/requests/{id}", "Show a request", get(requests::show)).answers::<requests::RequestView>(200),
        Endpoint::new(M::POST, "/v1/requests/{id}/confirm", "Take the second step of an opt-in", post(requests::confirm))
            .body::<requests::ConfirmBody>()
            .answers::<requests::RequestAnswer>(200)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/decisions", "Decide for one person or for up to 10,000", post(decisions::decide))
            .body::<decisions::DecisionBody>()
            .answers::<decisions::OneOrMany>(200)
            .signals(),
        Endpoint::new(M::POST, "/v1/identifiers/link", "State that identifiers are one person's", post(identifiers::link))
            .body::<identifiers::IdentifiersBody>()
            .answers::<identifiers::LinkAnswer>(200)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/identifiers/unlink", "State that they are not any more", post(identifiers::unlink))
            .body::<identifiers::IdentifiersBody>()
            .answers::<identifiers::LinkAnswer>(200)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/subjects/lookup", "Show what is known of identifiers", post(identifiers::lookup))
            .body::<identifiers::IdentifiersBody>()
            .answers::<identifiers::LookupAnswer>(200),
        Endpoint::new(M::POST, "/v1/subjects/assurance", "Show where a person stands at each destination", post(destinations::assurance))
            .body::<identifiers::IdentifiersBody>()
            .answers::<destinations::AssuranceAnswer>(200),
        Endpoint::new(M::GET, "/v1/destinations", "List the destinations", get(destinations::list))
            .answers::<destinations::DestinationsAnswer>(200),
        Endpoint::new(M::GET, "/v1/destinations/{id}", "Show a destination", get(destinations::show))
            .answers::<destinations::DestinationView>(200),
        Endpoint::new(M::GET, "/v1/destinations/{id}/parked", "List whom a destination refuses", get(destinations::parked))
            .query("after", "The last target of the page before")
            .query("limit", "Most targets in the answer, 1 to 1000; 100 without it")
            .answers::<destinations::ParkedAnswer>(200),
        Endpoint::new(M::POST, "/v1/destinations/{id}/replay", "Have dead letters tried again", post(destinations::replay))
            .body::<destinations::ReplayBody>()
            .answers::<destinations::ReplayAnswer>(200)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/destinations/{id}/pause", "Stop a destination", post(destinations::pause))
            .answers_nothing(204)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/destinations/{id}/resume", "Let a destination go on", post(destinations::resume))
            .answers_nothing(204)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/destinations/{id}/try", "Have a destination tried at once", post(destinations::try_now))
            .answers_nothing(204)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/destinations/{id}/done", "Record what a person told a destination", post(destinations::done))
            .body::<destinations::DoneBody>()
            .answers_nothing(204)
            .idempotent(),
        Endpoint::new(M::POST, "/v1/keys", "Create an API key", post(keys::create))
            .body::<keys::NewKey>()
            .answers::<keys::KeyAnswer>(201)
            .idempotent(),
        Endpoint::new(M::GET, "/v1/keys", "List the API keys", get(keys::list)).answers::<keys::KeysAnswer>(200),
        Endpoint::new(M::DELETE, "/v1/keys/{no}", "End an API key", delete(keys::revoke)).answers_nothing(204),
    ]
}

/// Pages for machines and operators that need no key.
pub fn open_endpoints() -> Vec<Endpoint> {
    use Method as M;
    vec![
        Endpoint::new(M::GET, "/livez", "The process runs", get(health::livez)).answers_text(),
        Endpoint::new(M::GET, "/readyz", "Requests are taken and made durable", get(health::readyz)).answers_text(),
        Endpoint::new(M::GET, "/healthz", "A test write works", get(health::healthz)).answers_text(),
        Endpoint::new(M::GET, "/metrics", "OpenMetrics", get(health::metrics)).answers_text(),
        Endpoint::new(M::GET, "/connection", "Show how this request arrives", get(health::connection))
            .answers::<health::ConnectionAnswer>(200),
        Endpoint::new(M::GET, "/openapi.json", "This document", get(openapi::document)).answers_text(),
    ]
}

fn router(endpoints: Vec<Endpoint>) -> Router<App> {
    endpoints.into_iter().fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.route))
}

/// What the private listener serves.
pub fn private(app: &App) -> Router {
    let keyed = router(endpoints()).layer(middleware::from_fn_with_state(app.clone(), auth::require_key));
    let campaign = Router::new()
        .route("/{org}/campaign", any(campaign::handler::handle))
        .route("/{org}/campaign/", any(campaign::handler::handle))
        .route("/{org}/campaign/{*rest}", any(campaign::handler::handle))
        .route("/ims/token/v3", post(campaign::token::issue))
        .layer(DefaultBodyLimit::max(campaign::schema::BODY_BYTES_MAX));
    finish(app, router(open_endpoints()).merge(keyed).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).merge(campaign))
}

/// What the public listener serves.
pub fn public(app: &App) -> Router {
    let open = open_endpoints().into_iter().filter(|endpoint| matches!(endpoint.path, "/livez" | "/readyz" | "/connection"));
    let proof = Router::new()
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/key", get(log::key))
        .route("/log/tile/{*path}", get(log::tile))
        .route("/receipt/{code}", get(receipt::show))
        .route("/verify", get(receipt::verifier));
    finish(app, router(open.collect()).merge(proof))
}

/// What the control socket serves: the JSON API as the operator, and what only the operator can do.
pub fn control(app: &App) -> Router {
    let only_here = Router::new()
        .route("/control/import", post(control::import))
        .route("/control/import/progress", post(control::import_progress))
        .route("/control/status", get(control::status))
        .route("/control/trace", post(control::trace))
        .route("/control/trace-identifier", post(operator::trace))
        .route("/control/tasks", post(operator::tasks))
        .route("/control/deliveries", post(control::deliveries))
        .route("/control/backup", post(control::backup))
        .route("/control/rotate-log-key", post(control::rotate_log_key))
        .route("/control/reload", post(control::reload));
    finish(
        app,
        router(open_endpoints())
            .merge(router(endpoints()).merge(only_here).layer(middleware::from_fn(auth::as_operator)))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX)),
    )
}

fn finish(app: &App, router: Router<App>) -> Router {
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn(observe))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .with_state(app.clone())
}

/// A limit on the time of a request, and the access log: route templates, never paths, queries,
/// addresses or headers.
async fn observe(request: Request, next: Next) -> Response {
    // RFC 9112 section 3.2: who is meant would be a guess.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    if hosts.next().is_some() && hosts.next().is_some() {
        return Problem::new(StatusCode::BAD_REQUEST, "two_hosts", "a request has one Host header").into_response();
    }
    // Most requests end at their first poll, and the timer is never set.
    let limited = |request| async {
        tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long; whether it took effect is not known")
                .into_response()
        })
    };
    if !tracing::enabled!(tracing::Level::INFO) {
        return limited(request).await;
    }
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let start = std::time::Instant::now();
    let response = limited(request).await;
    tracing::info!(%method, route, status = response.status().as_u16(), duration_us = start.elapsed().as_micros() as u64, "request");
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use desist_engine::engine::{Options, Policy};
    use desist_engine::env::System;
    use desist_engine::queue::Lane;
    use desist_engine::search::Searched;
    use desist_store::sqlite::SqliteStore;
    use tower::ServiceExt as _;

    use super::*;

    const CANARY: &str = "rosa.canary@example.org";
    /// Set for the process in which the panics happen.
    const CHILD: &str = "DESIST_TEST_PANICS";

    /// A handler and a command that panic with what they worked on, under everything that is around
    /// the real ones.
    fn panics() {
        crate::cli::hide_panic_messages();
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr).init();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_owned();
        let policy = Policy {
            api_opt_in_own: true,
            time_zone: jiff::tz::TimeZone::UTC,
            purposes: Vec::new(),
            searched: Searched::default(),
            witnesses: Vec::new(),
            alerts: None,
            kinds_told: std::collections::BTreeSet::new(),
        };
        let open_store = Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as _));
        let options = Options {
            business: None,
            keys: directory.path().join("keys"),
            snapshot: None,
            policy,
            env: Arc::new(System),
            outbound: None,
            open_store,
        };
        let (engine, _) = Engine::open(options).unwrap();
        let app = App::new(engine, Config::default(), false, Arc::new(|_| Ok(())));
        let handler = async |body: String| -> String { panic!("a handler worked on {body}") };
        let command = async |axum::extract::State(app): axum::extract::State<App>, body: String| -> Result<(), Problem> {
            Ok(app.engine.submit(Lane::Interactive, move |_| panic!("a command worked on {body}")).await?)
        };
        let router = finish(&app, Router::new().route("/handler", post(handler)).route("/command", post(command)));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for path in ["/handler", "/command"] {
            let request = Request::post(path).body(Body::from(CANARY)).unwrap();
            let (status, text) = runtime.block_on(async {
                let response = router.clone().oneshot(request).await.unwrap();
                (response.status(), axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap())
            });
            println!("answer of {path}: {status} {}", String::from_utf8_lossy(&text));
        }
        app.engine.close();
    }

    #[test]
    fn a_panic_tells_where_and_not_what() {
        if std::env::var_os(CHILD).is_some() {
            return panics();
        }
        let test = "web::tests::a_panic_tells_where_and_not_what";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([test, "--exact", "--nocapture"]).env(CHILD, "1").env("RUST_BACKTRACE", "1").output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{out}{err}");
        assert!(out.contains("answer of /handler: 500") && out.contains("\"code\":\"internal\""), "{out}");
        assert!(out.contains("answer of /command: 503") && out.contains("\"code\":\"not_durable\""), "{out}");
        assert_eq!(err.matches("a defect: panic at ").count(), 2, "{err}");
        for text in [&out, &err] {
            assert!(!text.contains("canary") && !text.contains("worked on"), "{text}");
        }
    }
}
