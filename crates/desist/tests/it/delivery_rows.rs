//! Tables and files, with the programs that really receive them: PostgreSQL, OpenSSH, a bucket that checks signatures, and `DuckDB`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use desist::delivery::rows::{FileDrop, Options, Rows};
use desist_connector::{Approvals, Given, Instance, Manifest, SHIPPED, Secret};
use desist_core::identifier::{Identifier, Kind};
use desist_core::lane::{Failure, Level, Outcome, Report, Target};
use desist_core::purpose::{PurposeSet, Purposes};
use desist_engine::delivery::transport::{Ended, Errand, Known, Message, Transport};
use desist_engine::env::Env;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::support::CLIENTS;

mod bucket;
mod files;
mod sftp;
mod sql;
mod whole;

const NOTHING: PurposeSet = PurposeSet::EMPTY;
const SALE: PurposeSet = PurposeSet::SALE;
/// 2026-11-22T06:29:26Z
const AT: i64 = 1_795_328_966;
/// Long enough for a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A clock that the test sets.
struct Clock(AtomicI64);

impl Env for Clock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// The machine's own clock: a bucket compares it with the time of a signature.
fn now() -> Arc<dyn Env> {
    Arc::new(desist_engine::env::System)
}

fn options(allow_private: bool) -> Options {
    Options { runtime: RUNTIME.handle().clone(), env: now(), purposes: Arc::new(Purposes::default()), allow_private, present: None }
}

/// A shipped connector; settings whose value is `{"secret": ...}` are secrets.
fn instance(id: &str, settings: &Value) -> Instance {
    let shipped = SHIPPED.iter().find(|shipped| shipped.id == id).expect("it is shipped");
    let manifest = Manifest::parse(shipped.text, id).expect("a manifest");
    let given = |value: &Value| match value["secret"].as_str() {
        Some(secret) => Given::Secret(Secret::new(secret)),
        None => Given::Value(value.clone()),
    };
    let given: BTreeMap<_, _> = settings.as_object().expect("a table").iter().map(|(name, value)| (name.clone(), given(value))).collect();
    Instance::new(&manifest, &given, Approvals::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn email(text: &str) -> Known {
    let (identifier, _) = Identifier::from_value(Kind::Email, text).expect("an address");
    Known { kind: Kind::Email, text: Some(Zeroizing::new(text.to_owned())), sha256: identifier.digest, denied: NOTHING }
}

/// Of whom only the digest is known.
fn digest(text: &str) -> Known {
    Known { text: None, ..email(text) }
}

fn message(target: u64, version: u64, denied: PurposeSet, allowed: PurposeSet, identifiers: &[Known]) -> Arc<Message> {
    let identifiers = identifiers.iter().map(|known| Known { denied, ..known.clone() }).collect();
    Arc::new(Message { target: Target(target), version, at: AT, denied, allowed, beyond: NOTHING, identifiers })
}

fn opt_out(target: u64, version: u64, address: &str) -> Arc<Message> {
    message(target, version, SALE, NOTHING, &[email(address)])
}

fn opt_in(target: u64, version: u64, address: &str) -> Arc<Message> {
    message(target, version, NOTHING, SALE, &[email(address)])
}

fn start(transport: &dyn Transport, errand: Errand, within: Duration) -> Ended {
    let (done, ended) = mpsc::channel();
    transport.start(errand, within, Box::new(move |ended| drop(done.send(ended))));
    ended.recv_timeout(within + WITHIN).expect("it ends")
}

fn send(rows: &Rows, messages: &[Arc<Message>]) -> Ended {
    start(&*rows.transport(), Errand::Send(messages.to_vec()), WITHIN)
}

fn check(rows: &Rows, messages: &[Arc<Message>]) -> Ended {
    start(&*rows.transport(), Errand::Check(messages.to_vec()), WITHIN)
}

/// How far each target got, by number.
fn reports(ended: &Ended) -> Vec<(u64, Report)> {
    assert!(matches!(ended.outcome, Outcome::Ok(_)), "{ended:?}");
    let mut reports: Vec<_> = ended.reports.iter().map(|(target, report)| (target.0, *report)).collect();
    reports.sort_by_key(|(target, _)| *target);
    reports
}

fn reached(level: Level, targets: impl IntoIterator<Item = u64>) -> Vec<(u64, Report)> {
    targets.into_iter().map(|target| (target, Report::Reached(level))).collect()
}

/// That an errand failed so, without anything that may have taken effect.
fn assert_failed(ended: &Ended, wanted: Failure, problem: Option<String>, says: &str) {
    assert_eq!((ended.left, &ended.outcome), (false, &Outcome::Failed { failure: wanted, retry_after_ms: None }), "{problem:?}");
    let problem = problem.unwrap_or_default();
    assert!(problem.contains(says), "{problem:?} does not say {says:?}");
}

fn hex(text: &str) -> String {
    format!("{:x}", HexOf(Sha256::digest(text).into()))
}

struct HexOf([u8; 32]);

impl std::fmt::LowerHex for HexOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// What a query says in `DuckDB`, one line a row.
fn duckdb(query: &str) -> Vec<String> {
    let output = Command::new("node").arg(CLIENTS.join("duckdb.mjs")).arg(query).output().expect("node runs");
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What a receiver does with a directory: it takes each file whose manifest is there, and compares it with that.
fn received(directory: &Path) -> Vec<(String, Vec<Value>)> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".manifest.json")) {
        let manifest: Value = serde_json::from_slice(&std::fs::read(directory.join(name)).expect("a manifest")).expect("JSON");
        let mut rows = Vec::new();
        for file in manifest["files"].as_array().expect("a list") {
            let bytes = std::fs::read(directory.join(file["file"].as_str().expect("a name"))).expect("the manifest's file");
            assert_eq!(file["bytes"], json!(bytes.len()));
            assert_eq!(file["sha256"], json!(format!("{:x}", HexOf(Sha256::digest(&bytes).into()))));
            let text = String::from_utf8(bytes).expect("UTF-8");
            let before = rows.len();
            rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| json!(line))));
            let header = usize::from(manifest["format"] == "csv");
            assert_eq!(file["rows"], json!(rows.len() - before - header));
        }
        found.push((name.clone(), rows));
    }
    found
}

/// The state that a receiver has after all files: for each identifier the row of the highest version.
fn state(directory: &Path) -> BTreeMap<String, (u64, String)> {
    let mut state = BTreeMap::<String, (u64, String)>::new();
    for (_, rows) in received(directory) {
        for row in rows {
            let (version, status) = (row["version"].as_u64().expect("a version"), row["status"].as_str().expect("a word").to_owned());
            let kept = state.entry(row["sha256"].as_str().expect("a digest").to_owned()).or_insert((0, String::new()));
            if version >= kept.0 {
                *kept = (version, status);
            }
        }
    }
    state
}

/// Whether a file can be seen that is not whole.
fn has_half_a_file(directory: &Path) -> bool {
    let listed = std::fs::read_dir(directory).expect("a directory");
    listed.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).any(|name| name.starts_with("desist-"))
}

/// What is wrong with it, for the operator.
trait Problem {
    fn problem(&self) -> Option<String>;
}

impl Problem for Rows {
    fn problem(&self) -> Option<String> {
        self.transport().problem()
    }
}

fn file_drop(rows: &Rows) -> &FileDrop {
    match rows {
        Rows::Files(files) => files,
        Rows::Sql(_) => panic!("a table has no files"),
    }
}
