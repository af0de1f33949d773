//! Durable intake and decisions over HTTP, beside what bounds them, in turn in one run.
//!
//! `cargo bench -p desist --bench serving -- [--subjects N] [--seconds S] [--rounds R]`
//!
//! Intake's bounds: the same transactions in a bare loop on the same file, and the same handler with
//! no disk behind it. A decision's bound: a constant reply from the same server. Client and server
//! share the machine, so figures are whole-machine figures and only the ratios mean something.

#![expect(clippy::cast_precision_loss, reason = "rates and shares are shown with two digits")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::post;
use desist::config::Config;
use desist::net::Listener;
use desist::web::auth::Caller;
use desist::web::{App, private, requests};
use desist_core::calendar::parse_time_zone;
use desist_core::fact::{Actor, Channel, Digest, RequestId, RequestKind, Role};
use desist_core::identifier::{Identifier, Kind};
use desist_core::purpose::PurposeSet;
use desist_core::rules::{Batch, OptOut};
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::{Env as _, System};
use desist_engine::intake::{ImportChunk, NewRequest, import};
use desist_engine::queue::Lane;
use desist_store::sqlite::SqliteStore;
use desist_store::{Owner, RequestRow, Sealed, Status, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};

struct Arguments {
    subjects: u64,
    seconds: u64,
    rounds: usize,
}

fn main() {
    let mut arguments = Arguments { subjects: 1_000_000, seconds: 4, rounds: 3 };
    let given: Vec<String> = std::env::args().collect();
    for pair in given.windows(2) {
        let number = || pair[1].parse::<u64>().expect("a number");
        match pair[0].as_str() {
            "--subjects" => arguments.subjects = number(),
            "--seconds" => arguments.seconds = number(),
            "--rounds" => arguments.rounds = number() as usize,
            _ => {}
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    println!("loading {} subjects", arguments.subjects);
    let started = Instant::now();
    load(directory.path(), arguments.subjects);
    println!("  {:.0} a second through the bulk lane", arguments.subjects as f64 / started.elapsed().as_secs_f64());

    memory(directory.path(), arguments.subjects);

    println!("\nintake, 201 after the sync: requests a second (p50 / p99 ms)");
    for connections in [1, 64, 256] {
        let mut ratios = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            let duration = Duration::from_secs(arguments.seconds);
            let null = run_null(&runtime, directory.path(), connections, duration);
            let (product, batch) = run_intake(&runtime, directory.path(), connections, duration);
            let bare = run_bare(directory.path(), batch.max(1), duration);
            println!(
                "  {connections:>4} connections: product {product} in batches of {batch}; bare loop {bare}; null intake {null}; {:.2} x loop, {:.2} x null, p99 {:.1} x loop's",
                product.rate / bare.rate,
                product.rate / null.rate,
                product.p99_ms / bare.p99_ms
            );
            ratios.0.push(product.rate / bare.rate);
            ratios.1.push(product.rate / null.rate);
            ratios.2.push(product.p99_ms / bare.p99_ms);
        }
        println!(
            "  {connections:>4} connections, medians: {:.2} x loop, {:.2} x null, p99 {:.1} x loop's",
            median(&mut ratios.0),
            median(&mut ratios.1),
            median(&mut ratios.2)
        );
    }

    println!("\ndecision over HTTP: requests a second (p50 / p99 ms)");
    for connections in [64, 256] {
        let mut ratios = Vec::new();
        for _ in 0..arguments.rounds {
            let (product, constant) = run_decisions(&runtime, directory.path(), connections, Duration::from_secs(arguments.seconds));
            println!("  {connections:>4} connections: product {product}; constant reply {constant}; {:.2} x", product.rate / constant.rate);
            ratios.push(product.rate / constant.rate);
        }
        println!("  {connections:>4} connections, median: {:.2} x", median(&mut ratios));
    }
}

/// Resident memory of the server when idle: on an empty store, and what each denied identifier adds.
fn memory(loaded: &Path, subjects: u64) {
    let empty = tempfile::tempdir().expect("a directory");
    let (idle, full) = (resident_bytes(empty.path()), resident_bytes(loaded));
    println!(
        "\nmemory: {:.1} MiB idle on an empty store, {:.1} MiB with {subjects} denied identifiers: {:.1} bytes more for each",
        idle / 1_048_576.0,
        full / 1_048_576.0,
        (full - idle) / subjects as f64
    );
}

fn resident_bytes(data: &Path) -> f64 {
    use std::io::{BufRead as _, BufReader};
    let free = "127.0.0.1:0";
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_desist"))
        .args(["serve", "--public", free, "--private", free, "--data"])
        .arg(data)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the server starts");
    let lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let private = lines.map_while(Result::ok).find(|line| line.trim().starts_with("private"));
    assert!(private.is_some(), "the server listens");
    // The thread that warms up phone numbers belongs to an idle server; it ends within seconds.
    let end = Instant::now() + Duration::from_secs(5);
    let status = format!("/proc/{}/status", server.id());
    let mut bytes = 0.0;
    while Instant::now() < end {
        let text = std::fs::read_to_string(&status).expect("Linux");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        bytes = line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") * 1024.0;
        std::thread::park_timeout(Duration::from_millis(100));
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    bytes
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn engine(directory: &Path) -> Engine {
    let data = directory.to_owned();
    let options = Options {
        business: None,
        keys: directory.join("keys"),
        snapshot: None,
        policy: Policy {
            api_opt_in_own: true,
            witnesses: Vec::new(),
            alerts: None,
            time_zone: parse_time_zone("America/Los_Angeles").expect("bundled"),
            purposes: Vec::new(),
            searched: desist_engine::search::Searched::default(),
            kinds_told: std::collections::BTreeSet::new(),
        },
        env: Arc::new(System),
        outbound: None,
        open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as Box<dyn Store>)),
    };
    Engine::open(options).expect("the store opens").0
}

fn email(n: u64) -> String {
    format!("person{n}@bench.example")
}

fn load(directory: &Path, subjects: u64) {
    let engine = engine(directory);
    let mut done = 0;
    while done < subjects {
        let rows = 5_000.min(subjects - done);
        let people =
            (done..done + rows).map(|n| vec![engine.named(&Identifier::from_value(Kind::Email, &email(n)).expect("valid").0)]).collect();
        let chunk = ImportChunk {
            import: [1; 32],
            first_row: done,
            rows,
            people,
            given: Vec::new(),
            purposes: PurposeSet::GPC,
            acted_at: None,
            last: false,
            by: Actor::Local,
        };
        engine.submit_blocking(Lane::Bulk, move |ctx| import(ctx, &chunk)).expect("durable");
        done += rows;
    }
    engine.close();
}

struct Figures {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({:.2} / {:.2})", self.rate, self.p50_ms, self.p99_ms)
    }
}

fn figures(mut micros: Vec<u32>, elapsed: Duration, per_sample: usize) -> Figures {
    micros.sort_unstable();
    let at = |share: f64| f64::from(micros[((micros.len() - 1) as f64 * share) as usize]) / 1000.0;
    Figures { rate: (micros.len() * per_sample) as f64 / elapsed.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

/// A listener on a free port with this router, until the sender is dropped.
async fn listen(router: Router) -> (String, watch::Sender<bool>) {
    let (stop, stopping) = watch::channel(false);
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let address = listener.local_addr().to_string();
    tokio::spawn(listener.serve(router, stopping));
    (address, stop)
}

/// Sends requests on `connections` kept connections for `duration`; every answer must be a success.
async fn load_http(
    address: &str,
    path: &str,
    token: &str,
    connections: usize,
    duration: Duration,
    body: impl Fn(u64) -> String + Clone + Send + 'static,
) -> Figures {
    let end = Instant::now() + duration;
    let started = Instant::now();
    let clients: Vec<_> = (0..connections as u64)
        .map(|client| {
            let (address, path, token, body) = (address.to_owned(), path.to_owned(), token.to_owned(), body.clone());
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
                stream.set_nodelay(true).expect("set");
                let (mut micros, mut answer, mut n) = (Vec::new(), vec![0; 4096], 0_u64);
                while Instant::now() < end {
                    let body = body(client << 32 | n);
                    n += 1;
                    let request = format!(
                        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let sent = Instant::now();
                    stream.write_all(request.as_bytes()).await.expect("sent");
                    let mut filled = 0;
                    loop {
                        filled += stream.read(&mut answer[filled..]).await.expect("read");
                        if whole(&answer[..filled]) {
                            break;
                        }
                    }
                    assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer[..filled]));
                    micros.push(sent.elapsed().as_micros() as u32);
                }
                micros
            })
        })
        .collect();
    let mut micros = Vec::new();
    for client in clients {
        micros.extend(client.await.expect("the client ends"));
    }
    figures(micros, started.elapsed(), 1)
}

fn whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

fn opt_out_body(salt: u64) -> impl Fn(u64) -> String + Clone + Send + 'static {
    move |n| format!(r#"{{"kind":"opt_out","channel":"form","identifiers":[{{"kind":"email","value":"new{salt}x{n}@bench.example"}}]}}"#)
}

fn app(directory: &Path) -> (App, String) {
    let engine = engine(directory);
    let seed = engine.new_credential_seed();
    let (api_key, token) = engine.shared().secrets.credentials(&seed);
    let (key, secret) = (api_key, token.clone());
    engine
        .submit_blocking(Lane::Interactive, move |ctx| desist_engine::keys::create(ctx, "bench", Role::Admin, &key, &secret, Actor::Local))
        .expect("durable");
    (App::new(engine, Config::default(), true, Arc::new(|_| Ok(()))), token)
}

fn salt() -> u64 {
    System.now_ms() as u64
}

fn run_intake(runtime: &tokio::runtime::Runtime, directory: &Path, connections: usize, duration: Duration) -> (Figures, usize) {
    use std::sync::atomic::Ordering::Relaxed;
    let (app, token) = app(directory);
    let counts = &app.engine.shared().counts;
    let before = (counts.commands.load(Relaxed), counts.commits.load(Relaxed));
    let figures = runtime.block_on(async {
        let (address, _stop) = listen(private(&app)).await;
        load_http(&address, "/v1/requests", &token, connections, duration, opt_out_body(salt())).await
    });
    let after = (counts.commands.load(Relaxed), counts.commits.load(Relaxed));
    app.engine.close();
    (figures, ((after.0 - before.0) / (after.1 - before.1).max(1)) as usize)
}

type Pending = (NewRequest, oneshot::Sender<u64>);

/// The same parsing, checking, queueing and answering, with a thread that answers at once.
fn run_null(runtime: &tokio::runtime::Runtime, directory: &Path, connections: usize, duration: Duration) -> Figures {
    let (app, token) = app(directory);
    let (queue, mut waiting) = mpsc::channel::<Pending>(8192);
    let thread = std::thread::spawn(move || {
        let mut seq = 0;
        while let Some((request, reply)) = waiting.blocking_recv() {
            std::hint::black_box(&request);
            seq += 1;
            let _ = reply.send(seq);
        }
    });
    let handler = |State((app, queue)): State<(App, mpsc::Sender<Pending>)>, body: Bytes| async move {
        let new = requests::check(&app, &desist::web::json::parse(&body)?, Caller::LOCAL)?;
        let (reply, answer) = oneshot::channel();
        queue.send((new, reply)).await.map_err(|_| desist::web::problem::Problem::internal())?;
        let seq = answer.await.map_err(|_| desist::web::problem::Problem::internal())?;
        let answer = requests::RequestAnswer {
            id: "aeTxrl6H_dSdQiCAcu8L1g".into(),
            receipt_code: "1B9GKBY9H3GT0YEWN9QYG7MSA4".into(),
            status: "received".into(),
            deadline: "2026-12-10".into(),
            deadline_conventional: "2026-12-14".into(),
            seq,
            confirm_token: None,
        };
        Ok::<_, desist::web::problem::Problem>((axum::http::StatusCode::CREATED, axum::Json(answer)).into_response())
    };
    let router = Router::new().route("/v1/requests", post(handler)).with_state((app.clone(), queue));
    let figures = runtime.block_on(async {
        let (address, _stop) = listen(router).await;
        load_http(&address, "/v1/requests", &token, connections, duration, opt_out_body(salt())).await
    });
    app.engine.close();
    drop(thread);
    figures
}

/// The same rows in the same number of transactions, straight into the store.
fn run_bare(directory: &Path, batch_size: usize, duration: Duration) -> Figures {
    let engine = engine(directory);
    let salt = salt();
    let named: Vec<_> = (0..2_000_000_u64.min(40_000 * duration.as_secs()))
        .map(|n| engine.named(&Identifier::from_value(Kind::Email, &format!("bare{salt}x{n}@bench.example")).expect("valid").0))
        .collect();
    engine.close();
    let mut store = SqliteStore::open(directory).expect("opens");
    let (started, mut micros) = (Instant::now(), Vec::new());
    for people in named.chunks(batch_size) {
        if started.elapsed() > duration {
            break;
        }
        let began = Instant::now();
        store
            .transact(&mut |write| {
                let mut batch = Batch::new(write.coordinator()?.counters, 1_763_764_800);
                for one in people {
                    let mut id = [0; 16];
                    System.fill(&mut id);
                    let id = RequestId(id);
                    let act = OptOut {
                        request: id,
                        kind: RequestKind::OptOut,
                        subject: None,
                        named: vec![*one],
                        purposes: PurposeSet::GPC,
                        channel: Channel::Form,
                        acted_at: None,
                        by: Actor::Key(1),
                        evidence: Some(Digest([7; 32])),
                    };
                    let recorded = batch.opt_out(write, act)?.expect("taken");
                    let no = batch.find(write, &one.key)?.expect("just written");
                    write.vault_put(Owner::Request(id), &Sealed { wrapped_key: vec![5; 60], ciphertext: vec![6; 190] })?;
                    let mut receipt_hash = [0; 32];
                    receipt_hash[..16].copy_from_slice(&id.0);
                    write.put_request(&RequestRow {
                        id,
                        receipt_hash,
                        kind: RequestKind::OptOut,
                        status: Status::Received,
                        channel: Channel::Form,
                        purposes: PurposeSet::GPC,
                        seq: recorded.seq,
                        acted_at: 1_763_764_800,
                        recorded_at: 1_763_764_800,
                        deadline: "2026-12-10".into(),
                        deadline_conventional: "2026-12-14".into(),
                        subject: None,
                        identifiers: vec![desist_core::fact::IdRef(no, Kind::Email)],
                        confirm_hash: None,
                        unreached: Vec::new(),
                    })?;
                }
                desist_store::commit(write, &mut batch).map(|_| ())
            })
            .expect("durable");
        micros.push(began.elapsed().as_micros() as u32);
    }
    figures(micros, started.elapsed(), batch_size)
}

fn run_decisions(runtime: &tokio::runtime::Runtime, directory: &Path, connections: usize, duration: Duration) -> (Figures, Figures) {
    let (app, token) = app(directory);
    let body = |n: u64| {
        format!(r#"{{"purpose":"sale","identifiers":[{{"kind":"email","value":"{}"}}]}}"#, email(n.wrapping_mul(2_654_435_761) % 2_000_000))
    };
    let constant = Router::new().route(
        "/v1/decisions",
        post(|_: Bytes| async {
            ([("content-type", "application/json")], r#"{"decision":"deny","reason":"opted_out","as_of":1000000,"stale_ms":0}"#)
        }),
    );
    let figures = runtime.block_on(async {
        let (address, _stop) = listen(constant).await;
        let probe = load_http(&address, "/v1/decisions", &token, connections, duration, body).await;
        let (address, _stop) = listen(private(&app)).await;
        (load_http(&address, "/v1/decisions", &token, connections, duration, body).await, probe)
    });
    app.engine.close();
    figures
}
