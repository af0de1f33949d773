//! `/livez`, `/readyz`, `/healthz`, `/metrics` and `/connection`.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use desist_core::fact::AlarmKind;
use desist_engine::alerts::{About, Delivery};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::destinations::DestinationView;
use super::problem::Problem;
use super::{App, word};
use crate::net::Client;

/// The process runs.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Requests are taken and made durable.
pub async fn readyz(State(app): State<App>) -> Response {
    if app.engine.is_durable() {
        "ok\n".into_response()
    } else {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_durable",
            "the last write was not durable; decisions go on, intake waits for the disk",
        )
        .into_response()
    }
}

/// Writes a scratch row, at most once a second, to see that writing works.
pub async fn healthz(State(app): State<App>) -> Response {
    if app.engine.is_healthy().await {
        "ok\n".into_response()
    } else {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_durable", "a test write failed; look at the disk").into_response()
    }
}

/// How a request arrives here, to check proxies and signals.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionAnswer {
    /// The caller's own address as desist sees it.
    pub client_address: String,
    /// Whether the caller spoke https to the outermost trusted proxy, or to desist.
    pub https: bool,
    /// The host name that the caller used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether the header `Sec-GPC: 1` arrived.
    pub gpc: bool,
}

/// Shows a caller how its own request arrives.
pub async fn connection(Extension(client): Extension<Client>, headers: HeaderMap) -> Response {
    let gpc = headers.get("sec-gpc").is_some_and(|value| value == "1");
    let answer = ConnectionAnswer { client_address: client.addr.to_string(), https: client.https, host: client.host, gpc };
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabels {
    kind: String,
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    destination: String,
    state: String,
}

/// A number of a destination, if it has it.
type Number = fn(&DestinationView) -> Option<i64>;

fn register_destinations(registry: &mut Registry, views: &[DestinationView]) {
    let labels = |view: &DestinationView| DestinationLabels { destination: view.id.clone() };
    let numbers: [(&str, &str, Number); 4] = [
        ("destination_parked", "Targets that are tried again later", |view| Some(view.parked as i64)),
        ("destination_dead", "Dead letters", |view| Some(view.dead as i64)),
        ("destination_behind", "Changes behind the cursor, whoever they are about", |view| Some(view.behind as i64)),
        ("destination_oldest_due_seconds", "The earliest deadline of what is not delivered, in Unix seconds", |view| {
            view.oldest_due.as_ref()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
        }),
    ];
    for (name, help, number) in numbers {
        let family = Family::<DestinationLabels, Gauge>::default();
        for view in views {
            if let Some(value) = number(view) {
                family.get_or_create(&labels(view)).set(value);
            }
        }
        registry.register(name, help, family);
    }
    let states = Family::<StateLabels, Gauge>::default();
    for view in views {
        states.get_or_create(&StateLabels { destination: view.id.clone(), state: view.state.clone() }).set(1);
    }
    registry.register("destination_state", "What a destination's lane is doing: 1", states);
}

/// Counters and gauges in the OpenMetrics format. No personal data and no addresses.
pub async fn metrics(State(app): State<App>) -> Response {
    let counts = &app.engine.shared().counts;
    let mut registry = Registry::with_prefix("desist");
    let mut counter = |name: &str, help: &str, value: u64| registry.register(name, help, ConstCounter::new(value));
    counter("commands", "Commands handed to the writer", counts.commands.load(Ordering::Relaxed));
    counter("commits", "Transactions committed", counts.commits.load(Ordering::Relaxed));
    counter("batches_failed", "Transactions that could not be made durable", counts.failed.load(Ordering::Relaxed));
    counter("decisions", "Decisions given", counts.decisions.load(Ordering::Relaxed));
    counter("opt_ins_refused", "Wishes of API clients to allow again that changed nothing", counts.opt_ins_refused.load(Ordering::Relaxed));
    let mut gauge = |name: &str, help: &str, value: i64| registry.register(name, help, ConstGauge::new(value));
    let (interactive, bulk) = app.engine.waiting();
    gauge("log_entries", "Entries in the log whose effect decisions know", app.engine.applied() as i64);
    gauge("index_identifiers", "Identifiers that the decision index knows something of", app.engine.shared().index.len() as i64);
    gauge("waiting_interactive", "Commands that wait and that somebody waits for", interactive as i64);
    gauge("waiting_bulk", "Commands that wait behind them", bulk as i64);
    let search = &app.engine.shared().search;
    gauge("profile_lists_ready", "Whether lists by attribute are answered: 1, or 0 while they are made", i64::from(search.is_ready()));
    gauge("profile_lists_bytes", "Memory of the searched attributes", search.bytes() as i64);
    let alerts = &app.engine.shared().alerts;
    let is_stuck = matches!(alerts.delivery(), Some(Delivery::Failing(..) | Delivery::WaitingForSecret(_)));
    gauge("alerts_waiting", "Changes of alarms that the receiver of alerts was not told of yet", alerts.waiting() as i64);
    gauge("alerts_failing", "Whether alerts fail or wait for their secret: 1", i64::from(is_stuck));
    let alarms = Family::<AlarmLabels, Gauge>::default();
    let engine = app.engine.clone();
    let asked = tokio::task::spawn_blocking(move || (engine.alarms(), engine.destinations().unwrap_or_default()));
    let Ok((standing, destinations)) = asked.await else { return Problem::internal().into_response() };
    let mut about = Vec::new();
    for kind in AlarmKind::ALL {
        if kind.is_of_destination() {
            about.extend(destinations.iter().map(|one| About { kind, destination: Some(one.id.as_str().into()) }));
        } else {
            about.push(kind.into());
        }
    }
    for about in about {
        let stands = standing.iter().any(|(alarm, _)| *alarm == about);
        let destination = about.destination.as_deref().unwrap_or_default().to_owned();
        alarms.get_or_create(&AlarmLabels { kind: word(about.kind), destination }).set(i64::from(stands));
    }
    registry.register("alarm", "Alarms that stand: 1", alarms);
    let Ok(views) = super::destinations::all(&app).await else { return Problem::internal().into_response() };
    register_destinations(&mut registry, &views);
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return Problem::internal().into_response();
    }
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
