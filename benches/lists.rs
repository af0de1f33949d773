//! Lists of Campaign profiles, sealed and searched in memory, beside the same questions to a plain SQL
//! table with the same people in clear and an index on each column.
//!
//! `cargo bench -p desist --bench lists -- [--profiles N] [--rounds R]`
//!
//! Both answer with whole records. The product opens and checks 25 sealed profiles for a page and reads
//! each one's choice; the plain table reads 25 rows.

#![expect(clippy::cast_precision_loss, reason = "times and shares are shown with two digits")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use desist_core::calendar::parse_time_zone;
use desist_core::fact::Actor;
use desist_core::identifier::{Identifier, Kind};
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_engine::lists::{Column, Filter, Position, Question, count, page};
use desist_engine::profiles::{NewProfile, create};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_store::Store;
use desist_store::sqlite::SqliteStore;
use rusqlite::{Connection, params};

const FIRST: [&str; 8] = ["Ana", "Bo", "Carmen", "Dmitri", "Esther", "Farid", "Grace", "Hiro"];
const LAST: [&str; 10] = ["Abbott", "Baker", "Castillo", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova", "Jensen"];
/// Profiles on a page, as clients ask by default.
const LINES: usize = 25;

/// A person's e-mail, first and last name; names repeat, as they do.
fn person(n: u64) -> [String; 3] {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (first, last) = (FIRST[(mixed >> 40) as usize % 8], LAST[(mixed >> 20) as usize % 10]);
    let last = format!("{last}{:03}", (mixed >> 30) % 1000);
    [format!("{:08x}.{}@bench.example", mixed >> 32, first.to_lowercase()), first.to_owned(), last]
}

fn engine(directory: &Path, clear: &[&str]) -> Engine {
    let data = directory.to_owned();
    let (clear, sealed) =
        ["email", "lastName", "firstName"].iter().map(|&field| field.to_owned()).partition(|field| clear.contains(&field.as_str()));
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
            searched: Searched { sealed, clear },
            kinds_told: BTreeSet::new(),
        },
        env: Arc::new(System),
        outbound: None,
        open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&data)?) as Box<dyn Store>)),
    };
    Engine::open(options).expect("the store opens").0
}

fn load(engine: &Engine, profiles: u64) {
    for chunk in 0..profiles.div_ceil(1000) {
        let people: Vec<NewProfile> = (chunk * 1000..profiles.min((chunk + 1) * 1000))
            .map(|n| {
                let [email, first, last] = person(n);
                let named = engine.named(&Identifier::from_value(Kind::Email, &email).expect("valid").0);
                let attributes = serde_json::json!({ "email": email, "firstName": first, "lastName": last });
                NewProfile {
                    pkey: format!("@{n:032x}"),
                    attributes: attributes.to_string().into_bytes(),
                    identifiers: vec![named],
                    email: Some(named),
                    opt_out: n % 20 == 0,
                    evidence: b"{}".to_vec(),
                    given: Vec::new(),
                    by: Actor::Local,
                }
            })
            .collect();
        let made = engine.submit_blocking(Lane::Bulk, move |ctx| {
            for one in &people {
                if let Err(refusal) = create(ctx, one)? {
                    return Ok(Err(refusal));
                }
            }
            Ok(Ok(()))
        });
        made.expect("durable");
    }
}

/// The same people in clear, each column with an index.
fn plain(path: &Path, profiles: u64) -> Connection {
    let mut table = Connection::open(path).expect("opens");
    table
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA cache_size = -8192;
             CREATE TABLE profile (no INTEGER PRIMARY KEY, pkey TEXT, email TEXT, first TEXT, last TEXT, opted_out INTEGER);",
        )
        .expect("made");
    let transaction = table.transaction().expect("begins");
    for n in 0..profiles {
        let [email, first, last] = person(n);
        transaction
            .prepare_cached("INSERT INTO profile VALUES (?, ?, ?, ?, ?, ?)")
            .and_then(|mut insert| insert.execute(params![n + 1, format!("@{n:032x}"), email, first, last, n % 20 == 0]))
            .expect("inserted");
    }
    transaction.commit().expect("commits");
    table.execute_batch("CREATE INDEX by_email ON profile (email); CREATE INDEX by_last ON profile (last, no);").expect("made");
    table
}

fn rows(table: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Vec<(String, String, String, String, bool)> {
    let mut select = table.prepare_cached(sql).expect("SQL");
    let rows = select.query_map(parameters, |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))).expect("runs");
    rows.collect::<Result<_, _>>().expect("reads")
}

fn counted(table: &Connection, sql: &str, parameters: impl rusqlite::Params) -> usize {
    table.prepare_cached(sql).and_then(|mut select| select.query_row(parameters, |row| row.get(0))).expect("runs")
}

/// The median time of one call, in microseconds; `call` gets the number of the call.
fn micros(calls: u64, mut call: impl FnMut(u64) -> usize) -> f64 {
    let mut times: Vec<f64> = (0..calls)
        .map(|n| {
            let started = Instant::now();
            std::hint::black_box(call(n));
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn rss() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") * 1024.0
}

fn ready(engine: &Engine) -> Duration {
    let started = Instant::now();
    while !engine.shared().search.is_ready() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    started.elapsed()
}

fn main() {
    let (mut profiles, mut rounds) = (1_000_000_u64, 3);
    let given: Vec<String> = std::env::args().collect();
    for pair in given.windows(2) {
        match pair[0].as_str() {
            "--profiles" => profiles = pair[1].parse().expect("a number"),
            "--rounds" => rounds = pair[1].parse().expect("a number"),
            _ => {}
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    println!("making {profiles} profiles");
    let started = Instant::now();
    let made = engine(directory.path(), &[]);
    load(&made, profiles);
    println!("made in {:.0} s", started.elapsed().as_secs_f64());
    made.close();
    drop(made);
    let table = plain(&directory.path().join("plain.db"), profiles);
    for clear in [&[][..], &["email", "lastName", "firstName"]] {
        let before = rss();
        let engine = engine(directory.path(), clear);
        let took = ready(&engine);
        let bytes = engine.shared().search.bytes() as f64 / profiles as f64;
        println!(
            "\nin clear: {clear:?}; ready after {:.1} s; {bytes:.1} bytes a profile counted, {:.1} by resident memory",
            took.as_secs_f64(),
            (rss() - before).max(0.0) / profiles as f64
        );
        println!("{:<34} {:>12} {:>12} {:>7}", "question", "desist, us", "plain, us", "ratio");
        for _ in 0..rounds {
            measure(&engine, &table, profiles);
        }
        engine.close();
    }
}

fn measure(engine: &Engine, table: &Connection, profiles: u64) {
    let pick = |n: u64| person(n.wrapping_mul(7_919) % profiles);
    let listed = |question: &Question, after: Option<&Position>| page(engine, question, after, LINES).expect("ready");
    let by_email =
        |n: u64| Question { filters: vec![Filter::Email(Identifier::from_value(Kind::Email, &pick(n)[0]).expect("valid").0)], order: None };
    let by_text = |prefix: &str| Question {
        filters: vec![Filter::Text { fields: vec!["lastName".to_owned()], prefix: prefix.to_owned() }],
        order: Some((Column::Field("lastName".to_owned()), false)),
    };
    let ordered = Question { filters: Vec::new(), order: Some((Column::Field("lastName".to_owned()), false)) };
    let middle = Position { stage: 0, value: "Eriksen500".to_owned(), no: 0 };
    let show = |name: &str, ours: f64, plains: f64| println!("{name:<34} {ours:>12.1} {plains:>12.1} {:>7.2}", ours / plains);

    show(
        "byEmail",
        micros(1000, |n| listed(&by_email(n), None).profiles.len()),
        micros(1000, |n| rows(table, "SELECT * FROM profile WHERE email = ? LIMIT 26", [&pick(n)[0]]).len()),
    );
    show(
        "byText, a page of 25",
        micros(500, |n| listed(&by_text(&pick(n)[2][..7]), None).profiles.len()),
        micros(500, |n| {
            let prefix = &pick(n)[2][..7];
            let sql = "SELECT * FROM profile WHERE last >= ? AND last < ? ORDER BY last, no LIMIT 26";
            rows(table, sql, [prefix, &format!("{prefix}\u{10ffff}")]).len()
        }),
    );
    show(
        "ordered, the first page",
        micros(500, |_| listed(&ordered, None).profiles.len()),
        micros(500, |_| rows(table, "SELECT * FROM profile ORDER BY last, no LIMIT 26", []).len()),
    );
    show(
        "ordered, a page from the middle",
        micros(500, |_| listed(&ordered, Some(&middle)).profiles.len()),
        micros(500, |_| {
            let sql = "SELECT * FROM profile WHERE (last, no) > (?, ?) ORDER BY last, no LIMIT 26";
            rows(table, sql, params![middle.value, middle.no]).len()
        }),
    );
    show(
        "unordered, a page from the middle",
        micros(500, |n| listed(&Question::default(), Some(&Position { no: profiles / 2 + n, ..Position::default() })).profiles.len()),
        micros(500, |n| rows(table, "SELECT * FROM profile WHERE no > ? ORDER BY no LIMIT 26", [profiles / 2 + n]).len()),
    );
    let all = Question::default();
    show(
        "_count of all",
        micros(20, |_| count(engine, &all).expect("ready") as usize),
        micros(20, |_| counted(table, "SELECT count(*) FROM profile", [])),
    );
    let some = by_text("G");
    show(
        "_count of byText, a tenth of all",
        micros(20, |_| count(engine, &some).expect("ready") as usize),
        micros(20, |_| counted(table, "SELECT count(*) FROM profile WHERE last >= 'G' AND last < 'H'", [])),
    );
    let opted_out = Question { filters: vec![Filter::OptedOut(true)], order: None };
    show(
        "byCcpaOptOut, a page of 25",
        micros(100, |_| listed(&opted_out, None).profiles.len()),
        micros(100, |_| rows(table, "SELECT * FROM profile WHERE opted_out ORDER BY no LIMIT 26", []).len()),
    );
    show(
        "_count of byCcpaOptOut, a twentieth",
        micros(3, |_| count(engine, &opted_out).expect("ready") as usize),
        micros(3, |_| counted(table, "SELECT count(*) FROM profile WHERE opted_out", [])),
    );
    let both = Question {
        filters: vec![
            Filter::Text { fields: vec!["email".to_owned(), "lastName".to_owned()], prefix: "Garcia0".to_owned() },
            Filter::OptedOut(true),
        ],
        order: Some((Column::Field("email".to_owned()), false)),
    };
    show(
        "byText/byCcpaOptOut, other order",
        micros(3, |_| listed(&both, None).profiles.len()),
        micros(3, |_| {
            let sql = "SELECT * FROM profile WHERE last >= 'Garcia0' AND last < 'Garcia1' AND opted_out ORDER BY email, no LIMIT 26";
            rows(table, sql, []).len()
        }),
    );
}
