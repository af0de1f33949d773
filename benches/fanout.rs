//! Telling one destination of many people, one person a call, with a bearer token: messages a second beside a bare HTTP client that makes the same
//! calls, and how many bytes the books take for each. In turn, and the better of three each.
//!
//! `cargo bench -p desist --bench fanout -- [--people N]`

#![expect(clippy::cast_precision_loss, reason = "times and shares are shown with two digits")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use desist::config::Config;
use desist::delivery::{Deliveries, plan};
use desist::outgoing::Network;
use desist_core::calendar::parse_time_zone;
use desist_core::fact::Actor;
use desist_core::identifier::{Identifier, Kind};
use desist_core::purpose::PurposeSet;
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_engine::intake::{ImportChunk, import};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_store::sqlite::SqliteStore;

const CONCURRENCY: usize = 64;
const MANIFEST: &str = r#"
[connector]
id = "bench"
version = 1
title = "A sink"
hosts = ["{{settings.host}}"]
[settings.host]
type = "host"
required = true
[settings.token]
type = "secret"
required = true
[auth]
kind = "bearer"
token = "{{settings.token}}"
[limits]
batch_items = 1
concurrency = 64
[ids.email]
[[op]]
on = "opt_out"
purposes = ["sale", "sharing", "targeted_advertising"]
writes = ["email", "do_not_sell"]
unit = "id"
effect = "flag"
ceiling = "accepted"
method = "POST"
path = "/in"
body = { email = "{{id.email}}", do_not_sell = true }
[op.result]
dialect = "status"
"#;

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let place = arguments.iter().position(|argument| argument == name);
    place.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(default)
}

fn address(n: u64) -> String {
    format!("p{n}@bench.example")
}

/// Answers 204 to everything, and counts.
async fn sink(count: Arc<AtomicU64>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let take = move |_: axum::body::Bytes| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(StatusCode::NO_CONTENT)
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/in", post(take))).await });
    address
}

/// Calls a second of a client that does nothing else.
async fn bare(to: SocketAddr, people: u64) -> f64 {
    let client = reqwest::Client::new();
    let (next, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let callers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (client, next) = (client.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= people {
                        return;
                    }
                    let body = format!("{{\"do_not_sell\":true,\"email\":\"{}\"}}", address(n));
                    let request = client.post(format!("http://{to}/in")).bearer_auth("t0k3n").header("content-type", "application/json");
                    let answer = request.body(body).send().await.expect("answers");
                    assert_eq!(answer.status(), 204);
                    answer.bytes().await.expect("empty");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("runs");
    }
    people as f64 / started.elapsed().as_secs_f64()
}

fn open(data: &std::path::Path, runtime: &tokio::runtime::Runtime) -> (Engine, Arc<Network>) {
    let network = Arc::new(Network::new(runtime.handle().clone()).expect("a client"));
    let home = data.to_owned();
    let options = Options {
        business: None,
        keys: data.join("keys"),
        snapshot: None,
        policy: Policy {
            api_opt_in_own: true,
            time_zone: parse_time_zone("America/Los_Angeles").expect("known"),
            purposes: Vec::new(),
            searched: Searched::default(),
            witnesses: Vec::new(),
            alerts: None,
            kinds_told: [Kind::Email].into(),
        },
        env: Arc::new(System),
        outbound: Some(Arc::clone(&network) as _),
        open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&home)?) as _)),
    };
    (Engine::open(options).expect("opens").0, network)
}

fn fill(engine: &Engine, people: u64) {
    for first in (0..people).step_by(1_000) {
        let rows: Vec<_> =
            (first..people.min(first + 1_000)).map(|n| Identifier::from_value(Kind::Email, &address(n)).expect("valid")).collect();
        let chunk = ImportChunk {
            import: [3; 32],
            first_row: first,
            rows: rows.len() as u64,
            people: rows.iter().map(|(identifier, _)| vec![engine.named(identifier)]).collect(),
            given: rows.into_iter().filter_map(|(identifier, text)| engine.given(identifier, Some(text))).collect(),
            purposes: PurposeSet::GPC,
            acted_at: None,
            last: false,
            by: Actor::Local,
        };
        engine.submit_blocking(Lane::Bulk, move |ctx| import(ctx, &chunk)).expect("taken");
    }
}

fn size(data: &std::path::Path) -> u64 {
    std::fs::metadata(data.join(desist_store::sqlite::FILE)).expect("a closed store").len()
}

/// Bytes of the evidence that was written after an entry, which becomes the last one.
fn records_of(engine: &Engine, seen: &mut u64) -> u64 {
    let segments = engine.read(|read| read.evidence(*seen + 1..u64::MAX, usize::MAX >> 1)).expect("reads");
    *seen = segments.last().map_or(*seen, |(seq, _)| *seq);
    segments.iter().map(|(_, segment)| segment.len() as u64).sum()
}

fn main() {
    let people = argument("--people", 60_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let count = Arc::new(AtomicU64::new(0));
    let to = runtime.block_on(sink(Arc::clone(&count)));
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::create_dir(data.join("keys")).expect("made");
    let (engine, _) = open(&data, &runtime);
    fill(&engine, people);
    engine.close();
    std::fs::write(directory.path().join("bench.toml"), MANIFEST).expect("written");
    std::fs::write(directory.path().join("token"), "t0k3n").expect("written");
    let (mut best_bare, mut best, mut grown, mut records, mut seen, mut head) = (0.0_f64, 0.0_f64, 0, 0, 0, 0);
    for round in 0..3_u32 {
        best_bare = best_bare.max(runtime.block_on(bare(to, people)));
        // Another id is another destination, which is told everybody from the beginning.
        let table = format!(
            "[[destinations]]\nid = \"d{round}\"\nmanifest = \"bench.toml\"\nclass = \"third_party\"\nallow_private = true\n\
             [destinations.settings]\nhost = \"{to}\"\ntoken = {{ file = \"token\" }}\n"
        );
        let path = directory.path().join("desist.toml");
        std::fs::write(&path, table).expect("written");
        let config = Config::load(&path).expect("a configuration");
        let before = size(&data);
        let (engine, network) = open(&data, &runtime);
        let deliveries = Deliveries::new(runtime.handle().clone(), network);
        count.store(0, Ordering::Relaxed);
        let started = Instant::now();
        deliveries.configure(&engine, plan(&config)).expect("delivers");
        while count.load(Ordering::Relaxed) < people {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        best = best.max(people as f64 / started.elapsed().as_secs_f64());
        while engine.destinations().expect("asked")[0].lane.is_none_or(|lane| lane.cursor < people) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        engine.close();
        let (engine, _) = open(&data, &runtime);
        records += records_of(&engine, &mut seen);
        let (_, books) = engine.read(|read| read.lane(round + 1)).expect("reads").expect("books");
        head = serde_json::to_string(&books.head).expect("JSON").len();
        engine.close();
        grown += size(&data).saturating_sub(before);
    }
    let each = |bytes: u64| bytes as f64 / (3 * people) as f64;
    println!("one destination, {CONCURRENCY} calls at a time, {people} people");
    println!("  calls a second   bare client {best_bare:.0}   desist {best:.0}   ratio {:.2}", best / best_bare);
    println!(
        "  store grew by {:.2} bytes a delivery: {:.2} of evidence, {:.2} of books",
        each(grown),
        each(records),
        each(grown.saturating_sub(records))
    );
    println!("  of single opt-outs, seconds apart, each writes {head} bytes of books again, in place");
}
