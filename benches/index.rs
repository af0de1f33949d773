//! How near the decision index comes to a bare hash table, and loading it to reading a file.
//!
//! `cargo bench -p desist-engine --bench index -- [--scale N] [--json]`. Probe and product take
//! turns in one process; what counts is their ratio. Run it on a machine that does nothing else.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use desist_core::decision::Verdict;
use desist_core::lookup::LookupKey;
use desist_core::purpose::PurposeSet;
use desist_engine::index::DecisionIndex;
use desist_engine::index::huge::HugePages;
use hashbrown::HashTable;

const DEFAULT_SCALE: u64 = 10_000_000;
/// Without `--bench`, that is when a test run builds and starts everything.
const SMOKE_SCALE: u64 = 20_000;
const LOOKUPS: u64 = 4_000_000;
/// Lookups in one view.
const BATCH: usize = 256;
const ROUNDS: usize = 7;
const FILE_ROUNDS: usize = 3;

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn key(number: u64) -> LookupKey {
    let a = mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&mix(a ^ number).to_le_bytes());
    LookupKey(bytes)
}

fn verdict(number: u64) -> Verdict {
    Verdict { denied: PurposeSet(number % 50 + 1), ..Verdict::default() }
}

/// A bare table of the whole keys on huge pages.
struct Probe {
    table: HashTable<[u8; 16], HugePages>,
    pages: HugePages,
}

impl Probe {
    fn hash(key: &[u8; 16]) -> u64 {
        u64::from_le_bytes(*key.last_chunk().expect("8 of 16"))
    }

    fn new(scale: u64) -> Self {
        let pages = HugePages::default();
        let mut table = HashTable::with_capacity_in(scale as usize, pages.clone());
        for number in 0..scale {
            let key = key(number).0;
            table.insert_unique(Self::hash(&key), key, Self::hash);
        }
        Self { table, pages }
    }

    fn contains(&self, key: &LookupKey) -> bool {
        self.table.find(Self::hash(&key.0), |other| *other == key.0).is_some()
    }
}

/// Lookups a second within views, and whether all gave `expected`.
fn rate_of(index: &DecisionIndex, keys: &[LookupKey], expected: bool) -> f64 {
    let start = Instant::now();
    let mut count = 0;
    for batch in keys.chunks(BATCH) {
        let view = index.view();
        count += batch.iter().filter(|key| view.get(black_box(key)) != Verdict::default()).count();
    }
    let took = start.elapsed();
    assert_eq!(count, if expected { keys.len() } else { 0 });
    keys.len() as f64 / took.as_secs_f64()
}

/// Lookups a second, and whether all gave `expected`.
fn rate(keys: &[LookupKey], expected: bool, found: impl Fn(&LookupKey) -> bool) -> f64 {
    let start = Instant::now();
    let count = keys.iter().filter(|key| found(black_box(key))).count();
    let took = start.elapsed();
    assert_eq!(count, if expected { keys.len() } else { 0 });
    keys.len() as f64 / took.as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Asks the kernel to forget the pages of a file. Where that cannot be, reading is from memory.
fn forget(file: &Path) {
    let name = format!("if={}", file.display());
    let _ = Command::new("dd").arg(name).args(["iflag=nocache", "count=0", "status=none"]).status();
}

fn read_all(file: &Path) -> Duration {
    let start = Instant::now();
    let mut file = File::open(file).expect("the snapshot is there");
    let mut buffer = vec![0; 1 << 20];
    while file.read(black_box(&mut buffer)).expect("a readable file") > 0 {}
    start.elapsed()
}

fn load(file: &Path) -> (Duration, DecisionIndex) {
    let start = Instant::now();
    let (index, _) = DecisionIndex::load_snapshot(file).expect("whole").expect("there");
    (start.elapsed(), index)
}

struct Row {
    name: &'static str,
    unit: &'static str,
    probe: Vec<f64>,
    product: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, probe: Vec::new(), product: Vec::new() }
    }

    fn ratio(&self) -> f64 {
        let ratios: Vec<_> = self.product.iter().zip(&self.probe).map(|(a, b)| a / b).collect();
        median(&ratios)
    }

    fn spread(values: &[f64]) -> String {
        let (least, most) = values.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(*value), most.max(*value)));
        format!("{:.2} ({least:.2}-{most:.2})", median(values))
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let default = if has("--bench") { DEFAULT_SCALE } else { SMOKE_SCALE };
    let scale = arguments
        .iter()
        .position(|argument| argument == "--scale")
        .map_or(default, |at| arguments.get(at + 1).and_then(|n| n.parse().ok()).expect("--scale takes a number"));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("index");
    let start = Instant::now();
    let index = DecisionIndex::with_expected(scale as usize);
    let mut slowest = Duration::ZERO;
    for number in 0..scale {
        let key = key(number);
        let one = Instant::now();
        index.set(&key, verdict(number));
        slowest = slowest.max(one.elapsed());
    }
    let sets = scale as f64 / start.elapsed().as_secs_f64() / 1e6;
    let built_bytes = index.memory_bytes() as f64 / scale as f64;
    let start = Instant::now();
    index.write_snapshot(&file, 0, &[0; 32]).expect("a writable directory");
    let written = start.elapsed();
    drop(index);

    let mut cold = Row::new("load, file not in memory", "s");
    let mut warm = Row::new("load, file in memory", "s");
    for _ in 0..FILE_ROUNDS {
        forget(&file);
        cold.probe.push(read_all(&file).as_secs_f64());
        forget(&file);
        cold.product.push(load(&file).0.as_secs_f64());
        warm.probe.push(read_all(&file).as_secs_f64());
        warm.product.push(load(&file).0.as_secs_f64());
    }

    let (_, index) = load(&file);
    let probe = Probe::new(scale);
    let hits: Vec<_> = (0..LOOKUPS).map(|n| key(mix(n) % scale)).collect();
    let misses: Vec<_> = (0..LOOKUPS).map(|n| key(scale + n)).collect();
    let mut hit = Row::new("hit, one core", "M/s");
    let mut miss = Row::new("miss, one core", "M/s");
    let mut one = Row::new("hit, one at a time", "M/s");
    for round in 0..=ROUNDS {
        let figures = [
            rate(&hits, true, |key| probe.contains(key)),
            rate_of(&index, &hits, true),
            rate(&misses, false, |key| probe.contains(key)),
            rate_of(&index, &misses, false),
            rate(&hits, true, |key| index.get(key) != Verdict::default()),
        ]
        .map(|figure| figure / 1e6);
        if round > 0 {
            // The first round warms up.
            hit.probe.push(figures[0]);
            hit.product.push(figures[1]);
            miss.probe.push(figures[2]);
            miss.product.push(figures[3]);
            one.probe.push(figures[0]);
            one.product.push(figures[4]);
        }
    }
    let mut memory = Row::new("memory an identifier", "B");
    memory.probe.push(probe.pages.used() as f64 / scale as f64);
    memory.product.push(index.memory_bytes() as f64 / scale as f64);

    let rows = [hit, miss, one, memory, cold, warm];
    if has("--json") {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                format!(
                    r#"{{"name":"{}","unit":"{}","probe":{},"product":{},"ratio":{}}}"#,
                    row.name,
                    row.unit,
                    median(&row.probe),
                    median(&row.product),
                    row.ratio()
                )
            })
            .collect();
        println!(
            r#"{{"scale":{scale},"rows":[{}],"set_m_per_s":{sets},"set_slowest_s":{},"grown_bytes":{built_bytes},"write_s":{}}}"#,
            rows.join(","),
            slowest.as_secs_f64(),
            written.as_secs_f64()
        );
        return;
    }
    println!("decision index, {scale} identifiers; median (least-most)");
    println!("{:26} {:4} {:>24} {:>24} {:>6}", "", "", "probe", "product", "ratio");
    for row in &rows {
        let (probe, product) = (Row::spread(&row.probe), Row::spread(&row.product));
        println!("{:26} {:4} {probe:>24} {product:>24} {:6.2}", row.name, row.unit, row.ratio());
    }
    println!(
        "set one by one {sets:.2} M/s, slowest {:.1} ms, then {built_bytes:.1} B an identifier; \
         snapshot written in {:.2} s",
        slowest.as_secs_f64() * 1e3,
        written.as_secs_f64()
    );
}
