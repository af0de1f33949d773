//! What the proof costs: leaves a second beside the hashing that they need, proofs from the stored tiles of a large
//! log, and how long after its commit an entry is under a signature while others keep committing.
//!
//! `cargo bench -p desist-engine --bench proof -- [--entries N] [--seconds S] [--clients C]`

#![expect(clippy::cast_precision_loss, reason = "times and shares are shown with two digits")]

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use desist_core::calendar::parse_time_zone;
use desist_core::fact::{Actor, Channel, Fact, RequestKind};
use desist_core::identifier::{Identifier, Kind};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Batch;
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_engine::intake::{self, NewRequest};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_proof::tile::{Appender, TileId};
use desist_proof::{leaf_hash, node_hash, proof};
use desist_store::sqlite::SqliteStore;
use desist_store::{Store, tiles};

/// Entries of a transaction while the log is filled.
const BATCH: u64 = 1000;
/// An entry as long as an opt-out's.
const ENTRY: [u8; 300] = [7; 300];
const PROOFS: u64 = 20_000;

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let place = arguments.iter().position(|argument| argument == name);
    place.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(default)
}

/// Leaves a second: the hashes alone, and with the tiles that a store keeps. In turn, and the better of five each.
fn leaves() {
    let count = 500_000_u64;
    let timed = |work: &dyn Fn()| {
        let started = Instant::now();
        work();
        count as f64 / started.elapsed().as_secs_f64() / 1e6
    };
    let hashes = || {
        let mut root = [0; 32];
        for n in 0..count {
            let mut entry = ENTRY;
            entry[..8].copy_from_slice(&n.to_be_bytes());
            root = node_hash(&root, &leaf_hash(&entry));
        }
        std::hint::black_box(root);
    };
    let stored = || {
        let mut tiles = std::collections::HashMap::<(u8, u64), Vec<u8>>::new();
        for from in (0..count).step_by(256) {
            let mut read = |id: TileId| Ok::<_, std::convert::Infallible>(tiles[&(id.level(), id.index())].clone());
            let mut appender = Appender::open(from, &mut read).expect("tiles");
            for n in from..(from + 256).min(count) {
                let mut entry = ENTRY;
                entry[..8].copy_from_slice(&n.to_be_bytes());
                appender.append(leaf_hash(&entry));
            }
            for (id, bytes) in appender.take() {
                tiles.insert((id.level(), id.index()), bytes);
            }
        }
        std::hint::black_box(tiles);
    };
    let (mut bare, mut whole) = (0.0_f64, 0.0_f64);
    for _ in 0..5 {
        bare = bare.max(timed(&hashes));
        whole = whole.max(timed(&stored));
    }
    println!("leaves of 300 bytes, M/s   hashes alone {bare:.2}   with tiles, 256 a time {whole:.2}   ratio {:.2}", whole / bare);
}

/// Fills a log with entries that change no state.
fn fill(directory: &Path, entries: u64) {
    let mut store = SqliteStore::open(directory).expect("opens");
    for from in (0..entries).step_by(BATCH as usize) {
        let filled = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, 1_790_000_000);
            for n in from..(from + BATCH).min(entries) {
                batch.emit(write, Fact::SignalsHonoured { day: n as i64, count: n })?;
            }
            desist_store::commit(write, &mut batch).map(|_| ())
        });
        filled.expect("commits");
    }
}

/// Proofs of random entries, each with its tiles read from the store.
fn proofs(directory: &Path, entries: u64) {
    let store = SqliteStore::open(directory).expect("opens");
    let readers = store.readers();
    let (mut times, mut read_tiles, mut mixed) = (Vec::new(), 0_u64, 1_u64);
    let read = readers.read(&mut |read| {
        for _ in 0..PROOFS {
            mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x632b_e59b);
            let index = (mixed >> 20) % entries;
            let started = Instant::now();
            let path = proof::inclusion(entries, index, &mut |id| {
                read_tiles += 1;
                tiles::tile(read, id)
            });
            std::hint::black_box(path.map_err(tiles::damaged)?);
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    });
    read.expect("reads");
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!(
        "proofs of a log of {entries}    p50 {:.0} us   p99 {:.0} us   {:.1} tiles each   {:.0} a second",
        at(0.5),
        at(0.99),
        read_tiles as f64 / PROOFS as f64,
        times.len() as f64 / (times.iter().sum::<f64>() / 1e6)
    );
}

fn engine(directory: &Path) -> Engine {
    let data = directory.join("store");
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
            searched: Searched::default(),
            kinds_told: BTreeSet::new(),
        },
        env: Arc::new(System),
        outbound: None,
        open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as Box<dyn Store>)),
    };
    Engine::open(options).expect("opens").0
}

/// How long after an opt-out is acknowledged it is under a signature, while all clients go on.
fn lag(directory: &Path, clients: u64, time: Duration) {
    let engine = engine(directory);
    let (stopped, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut lags: Vec<f64> = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (engine, stopped, sent) = (&engine, &stopped, &sent);
            scope.spawn(move || {
                for n in 0.. {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let identifier = Identifier::from_value(Kind::Email, &format!("{client}.{n}@bench.example")).expect("valid").0;
                    let request = NewRequest {
                        kind: RequestKind::OptOut,
                        purposes: PurposeSet::SALE,
                        named: vec![engine.named(&identifier)],
                        channel: Channel::Form,
                        acted_at: None,
                        evidence: b"{}".to_vec(),
                        given: Vec::new(),
                        by: Actor::Local,
                    };
                    engine.submit_blocking(Lane::Interactive, move |ctx| intake::request(ctx, &request)).expect("taken");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let started = Instant::now();
        let (mut last, mut waiting) = (engine.applied(), VecDeque::new());
        while started.elapsed() < time {
            // Each commit as it is seen, within a millisecond, until a checkpoint covers it.
            let applied = engine.applied();
            if applied != last {
                waiting.push_back((applied, Instant::now()));
                last = applied;
            }
            let signed = engine.shared().notary.published().map_or(0, |published| published.size());
            while let Some((_, at)) = waiting.pop_front_if(|(seq, _)| *seq <= signed) {
                lags.push(at.elapsed().as_secs_f64() * 1e3);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        stopped.store(true, Ordering::Relaxed);
    });
    engine.close();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    println!(
        "commit to checkpoint, {clients} clients, {:.0} opt-outs a second    p50 {:.0} ms   p99 {:.0} ms   worst {:.0} ms",
        sent.load(Ordering::Relaxed) as f64 / time.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    leaves();
    let entries = argument("--entries", 1_000_000);
    let log = directory.path().join("log");
    fill(&log, entries);
    proofs(&log, entries);
    lag(directory.path(), argument("--clients", 64), Duration::from_secs(argument("--seconds", 20)));
}
