//! Many destinations, many people, some destinations failing in different ways: the others are done, nobody twice, in little memory and
//! little room on disk.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use desist_core::fact::Actor;
use desist_core::identifier::{Identifier, Kind};
use desist_core::lane::{Failure, Level, Outcome, Report};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::Destination;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::engine::Engine;
use desist_engine::intake::{ImportChunk, import};
use desist_engine::queue::Lane;

use crate::delivery::destination;
use crate::support::{Home, wait_until};

/// How a destination fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Works,
    /// Calls get no answer in time.
    Silent,
    Broken,
    Throttles,
    /// It refuses one in ten.
    Picky,
}

/// Counts what it was told.
struct Counter {
    way: Way,
    told: AtomicU64,
    sum: AtomicU64,
}

impl Transport for Counter {
    fn start(&self, errand: Errand, _: Duration, done: Done) {
        let failed = |failure, retry_after_ms| Ended::all(Outcome::Failed { failure, retry_after_ms });
        let Errand::Send(messages) = errand else { return done(Ended::all(Outcome::Ok(Level::Applied))) };
        let mut reports = Vec::new();
        match self.way {
            Way::Works => {}
            Way::Silent => return done(failed(Failure::Ambiguous, None)),
            Way::Broken => return done(failed(Failure::Server, None)),
            Way::Throttles => return done(failed(Failure::Throttled, Some(30_000))),
            Way::Picky => {
                let refused = messages.iter().filter(|message| message.target.0 % 10 == 1);
                reports.extend(refused.map(|message| (message.target, Report::Failed { is_retryable: true, code: 1 })));
            }
        }
        for message in messages {
            self.told.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(message.target.0, Ordering::Relaxed);
        }
        done(Ended { reports, ..Ended::all(Outcome::Ok(Level::Applied)) });
    }

    fn reaches(&self, message: &Message) -> bool {
        !message.identifiers.is_empty()
    }
}

fn people(engine: &Engine, count: u64) {
    for first in (0..count).step_by(1_000) {
        let rows: Vec<_> = (first..count.min(first + 1_000))
            .map(|n| Identifier::from_value(Kind::Email, &format!("p{n}@example.org")).expect("an address"))
            .collect();
        let chunk = ImportChunk {
            import: [9; 32],
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

fn size(home: &Home) -> u64 {
    std::fs::metadata(home.store_dir().join(desist_store::sqlite::FILE)).expect("a closed store").len()
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

/// One load, in a process of its own so that its memory is its own: prints deliveries, seconds, KiB, bytes of books.
fn load(destinations: usize, count: u64) {
    let mut home = Home::new(7);
    home.policy.kinds_told = [Kind::Email].into();
    let engine = home.open();
    people(&engine, count);
    let targets = engine.read(|read| read.changes(0, usize::MAX >> 1)).expect("reads");
    assert_eq!(targets.len() as u64, count);
    let sum: u64 = targets.iter().map(|row| row.party.code()).sum();
    drop(targets);
    engine.close();
    let before = size(&home);
    let engine = home.open();
    let ways = [Way::Silent, Way::Broken, Way::Throttles, Way::Picky];
    let way = |n: usize| if n % 10 == 9 { ways[n / 10 % ways.len()] } else { Way::Works };
    let counters: Vec<_> =
        (0..destinations).map(|n| Arc::new(Counter { way: way(n), told: AtomicU64::new(0), sum: AtomicU64::new(0) })).collect();
    let given: Vec<Destination> =
        counters.iter().enumerate().map(|(n, counter)| destination(&format!("d{n}"), Arc::clone(counter) as _)).collect();
    let began = Instant::now();
    engine.deliver(given).expect("delivers");
    let healthy = || counters.iter().filter(|counter| counter.way == Way::Works);
    let patience = Duration::from_secs(30 + destinations as u64 * count / 10_000);
    while !healthy().all(|counter| counter.told.load(Ordering::Relaxed) >= count) {
        assert!(began.elapsed() < patience, "the healthy ones are not done in time");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    for counter in healthy() {
        assert_eq!((counter.told.load(Ordering::Relaxed), counter.sum.load(Ordering::Relaxed)), (count, sum), "each once");
    }
    wait_until("the books follow", || {
        let status = engine.destinations().expect("asked");
        let done = |no: usize| status[no].lane.is_some_and(|lane| lane.cursor == count);
        (0..destinations).filter(|no| way(*no) == Way::Works).all(done)
    });
    let deliveries = healthy().count() as u64 * count;
    let failing: BTreeSet<_> = (0..destinations).filter(|no| way(*no) != Way::Works).collect();
    for (no, status) in engine.destinations().expect("asked").iter().enumerate() {
        let parked = status.lane.expect("a lane").parked;
        assert!(failing.contains(&no) || parked == 0);
    }
    let kib = peak_kib();
    engine.close();
    let grown = size(&home).saturating_sub(before);
    let engine = home.open();
    let evidence: u64 = engine
        .read(|read| read.evidence(0..u64::MAX, usize::MAX >> 1))
        .expect("reads")
        .iter()
        .map(|(_, segment)| segment.len() as u64)
        .sum();
    engine.close();
    println!("FANOUT {deliveries} {seconds:.3} {kib} {}", grown.saturating_sub(evidence));
}

fn run(destinations: usize, count: u64) -> (u64, f64, u64, u64) {
    let child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "--nocapture", "fanout::many_destinations_cost_little_more_than_few"])
        .env("DESIST_FANOUT", format!("{destinations} {count}"))
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let line = text.lines().find_map(|line| line.split("FANOUT ").nth(1)).expect("a result");
    let part = |n: usize| line.split(' ').nth(n).expect("four numbers");
    (
        part(0).parse().expect("a number"),
        part(1).parse().expect("a number"),
        part(2).parse().expect("a number"),
        part(3).parse().expect("a number"),
    )
}

#[test]
fn many_destinations_cost_little_more_than_few() {
    if let Ok(text) = std::env::var("DESIST_FANOUT") {
        let (destinations, count) = text.split_once(' ').expect("two numbers");
        return load(destinations.parse().expect("a number"), count.parse().expect("a number"));
    }
    let scale: u64 = std::env::var("DESIST_SCALE").map_or(1, |text| text.parse().expect("a number"));
    // At scale 100: 300 destinations and 100,000 people.
    let (destinations, count) = if scale >= 100 { (300, 1_000 * scale) } else { (60, 1_000 * scale) };
    let (few_deliveries, few_seconds, few, few_books) = run(3, count);
    let (deliveries, seconds, many, books) = run(destinations, count);
    println!(
        "3 destinations: {few} KiB, {few_seconds:.1} s, {} thousandths of a byte of books a delivery; {destinations} destinations: {deliveries} deliveries, {seconds:.1} s, {many} KiB, {} thousandths of a byte of books each",
        few_books * 1_000 / few_deliveries,
        books * 1_000 / deliveries
    );
    // Those of the others have what is parked, too. Of few deliveries the first page of a table is more than the rest.
    assert!(few_books <= few_deliveries || scale < 100, "{few_books} bytes of books for {few_deliveries} deliveries");
    assert!(2 * many <= 3 * few || scale < 100, "{many} KiB beside {few} KiB");
}
