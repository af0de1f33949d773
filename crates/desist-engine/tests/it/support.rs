//! Places to open engines in, and what every test asks of one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use desist_core::decision::{Context, Decision, Verdict};
use desist_core::fact::{Actor, Channel, Entry, Fact, RequestKind};
use desist_core::identifier::{Identifier, Kind};
use desist_core::lookup::LookupKey;
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::clear::Given;
use desist_engine::engine::{Engine, Failure, OpenError, Options, Policy};
use desist_engine::env::{Env, Outbound};
use desist_engine::intake::{self, Accepted, NewRequest};
use desist_engine::queue::Lane;
use desist_engine::vault;
use desist_store::faulty::{Fault, FaultyStore};
use desist_store::sqlite::SqliteStore;
use desist_store::{Store, StoreError};
use jiff::tz::TimeZone;
use tempfile::TempDir;

use crate::people::{FIELDS, assert_lists, searched};

/// 2026-03-10 06:30:00 UTC: still the ninth in California.
pub const START: i64 = 1_773_124_200;

/// A clock that stands still until it is set, and numbers that a seed fixes (splitmix64).
pub struct Fake {
    now_ms: AtomicI64,
    entropy: Mutex<u64>,
}

impl Fake {
    /// Sets the clock, in Unix seconds.
    pub fn set(&self, now: i64) {
        self.now_ms.store(now * 1000, Ordering::SeqCst);
    }

    /// Sets the clock, in Unix milliseconds.
    pub fn set_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    pub fn now(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst) / 1000
    }

    pub fn advance(&self, seconds: i64) {
        self.now_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Env for Fake {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.entropy.lock().expect("nothing panics while it fills");
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What becomes of one opening of the store.
pub enum Opening {
    /// It opens, and fails later.
    Fails(Fault),
    /// It cannot be opened.
    Refused,
    /// It opens once the other end says so.
    Waits(mpsc::Receiver<()>),
}

/// A directory with a store and its secrets.
pub struct Home {
    dir: TempDir,
    pub env: Arc<Fake>,
    pub policy: Policy,
    pub business: Option<String>,
    /// The way to other machines, if the test has any.
    pub outbound: Option<Arc<dyn Outbound>>,
    /// What becomes of the next openings; after these the store just opens.
    pub openings: Arc<Mutex<VecDeque<Opening>>>,
    opened: Arc<AtomicUsize>,
}

impl Home {
    pub fn new(seed: u64) -> Self {
        let time_zone = TimeZone::get("America/Los_Angeles").expect("known");
        Self {
            dir: directory(),
            env: Arc::new(Fake { now_ms: AtomicI64::new(START * 1000), entropy: Mutex::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)) }),
            policy: Policy {
                api_opt_in_own: true,
                time_zone,
                purposes: Vec::new(),
                searched: searched(&FIELDS, &[]),
                witnesses: Vec::new(),
                alerts: None,
                kinds_told: BTreeSet::new(),
            },
            business: None,
            outbound: None,
            openings: Arc::default(),
            opened: Arc::default(),
        }
    }

    /// A home that holds what `from` has on disk at this moment, at the same time of day.
    pub fn image(from: &Self, seed: u64) -> Self {
        let home = Self { policy: from.policy.clone(), ..Self::new(seed) };
        home.env.set(from.env.now());
        // Another process reads: closing a file of the database here would end the locks on it.
        let mut from = from.dir.path().as_os_str().to_owned();
        from.push("/.");
        let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(home.dir.path()).status().expect("runs");
        assert!(copied.success());
        home
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    pub fn snapshot(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// How often the store was opened.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    pub fn plan(&self, opening: Opening) {
        self.openings.lock().expect("whole").push_back(opening);
    }

    pub fn try_open(&self) -> Result<(Engine, bool), OpenError> {
        let (dir, openings, opened) = (self.store_dir(), Arc::clone(&self.openings), Arc::clone(&self.opened));
        let open_store = Box::new(move || -> Result<Box<dyn Store>, StoreError> {
            opened.fetch_add(1, Ordering::SeqCst);
            let opening = openings.lock().expect("whole").pop_front();
            let fault = match opening {
                Some(Opening::Refused) => return Err(StoreError::Database("refused by the test".to_owned())),
                Some(Opening::Waits(go)) => {
                    go.recv().expect("the test says so");
                    None
                }
                Some(Opening::Fails(fault)) => Some(fault),
                None => None,
            };
            let store = SqliteStore::open(&dir)?;
            Ok(match fault {
                Some(_) => Box::new(FaultyStore::new(Box::new(store), fault)),
                None => Box::new(store),
            })
        });
        Engine::open(Options {
            business: self.business.clone(),
            keys: self.keys(),
            snapshot: Some(self.snapshot()),
            policy: self.policy.clone(),
            env: Arc::clone(&self.env) as Arc<dyn Env>,
            outbound: self.outbound.clone(),
            open_store,
        })
    }

    pub fn open(&self) -> Engine {
        self.try_open().expect("opens").0
    }
}

/// In memory where there is such a place: nothing here cuts the power, and a sync is most of a test's time.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

/// An identifier as the engine looks it up.
pub fn named(engine: &Engine, kind: Kind, value: &str) -> Named {
    engine.named(&Identifier::from_value(kind, value).expect("valid").0)
}

/// What it is, if some destination takes its kind.
pub fn given(engine: &Engine, kind: Kind, value: &str) -> Vec<Given> {
    let (identifier, text) = Identifier::from_value(kind, value).expect("valid");
    engine.given(identifier, Some(text)).into_iter().collect()
}

pub fn email(engine: &Engine, value: &str) -> Named {
    named(engine, Kind::Email, value)
}

/// A consumer's opt-out from sale, sharing and targeted advertising.
pub fn opt_out(named: Vec<Named>) -> NewRequest {
    NewRequest {
        kind: RequestKind::OptOut,
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        named,
        channel: Channel::Form,
        acted_at: None,
        by: Actor::Consumer,
        evidence: b"{\"said\":\"stop\"}".to_vec(),
        given: Vec::new(),
    }
}

/// The first step of an opt-in.
pub fn opt_in(named: Vec<Named>, purposes: PurposeSet) -> NewRequest {
    NewRequest { kind: RequestKind::OptIn, purposes, ..opt_out(named) }
}

pub fn submit(engine: &Engine, new: NewRequest) -> Result<Accepted, Failure> {
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::request(ctx, &new))
}

/// Both steps of an opt-in.
pub fn confirmed(engine: &Engine, named: Vec<Named>, purposes: PurposeSet) -> Accepted {
    let asked = submit(engine, opt_in(named, purposes)).expect("asked");
    confirm(engine, &asked).expect("confirmed")
}

pub fn confirm(engine: &Engine, asked: &Accepted) -> Result<Accepted, Failure> {
    let (id, token) = (asked.id, engine.shared().secrets.confirm_token(asked.id));
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::confirm(ctx, id, &token, Actor::Consumer))
}

/// Waits until everything that was queued before has been done.
pub fn settle(engine: &Engine) {
    for lane in [Lane::Bulk, Lane::Interactive] {
        while engine.submit_blocking(lane, |_| Ok(Ok(()))) == Err(Failure::Busy) {
            std::thread::yield_now();
        }
    }
}

pub fn is_denied(engine: &Engine, purpose: PurposeSet, named: &[Named]) -> bool {
    engine.decide(purpose, named, Context::default()).decision == Decision::Deny
}

/// A transaction that hangs until the sender is used or dropped.
pub fn hang(engine: &Engine) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel();
    let (began, begins) = mpsc::channel();
    assert!(engine.submit_and_forget(Lane::Interactive, move |_| {
        let _ = began.send(());
        let _ = wait.recv();
        Ok(Ok(()))
    }));
    begins.recv().expect("the writer takes it");
    go
}

/// The log.
pub fn log(engine: &Engine) -> Vec<Entry> {
    let bytes = engine.read(|read| {
        let upto = read.coordinator()?.counters.entries;
        read.entries(1..upto + 1)
    });
    bytes.expect("reads").iter().map(|(_, bytes)| Entry::decode(bytes).expect("an entry")).collect()
}

/// The log's facts after entry `after`, by their names, without alarms.
pub fn facts_after(engine: &Engine, after: u64) -> Vec<String> {
    let entries = log(engine).into_iter().filter(|entry| entry.seq > after && !is_alarm(&entry.fact));
    entries.map(|entry| serde_json::to_value(&entry).expect("JSON")["type"].as_str().expect("a name").to_owned()).collect()
}

pub fn is_alarm(fact: &Fact) -> bool {
    matches!(fact, Fact::AlarmRaised { .. } | Fact::AlarmCleared { .. })
}

/// What the store says of every identifier of which something is known.
pub fn stored_verdicts(engine: &Engine) -> BTreeMap<LookupKey, Verdict> {
    let mut verdicts = BTreeMap::new();
    engine
        .read(|read| {
            read.each_verdict(&mut |key, _, verdict| {
                verdicts.insert(key, verdict);
            })
        })
        .expect("reads");
    verdicts
}

/// Waits for something that comes by itself.
pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < patience, "not in time: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

/// The store fits its log, the vault opens, and memory says what the store says.
pub fn audit(engine: &Engine) {
    let problems = engine.read(|read| desist_store::check(read, desist_store::Scope::All, &mut |_, _| {})).expect("reads");
    assert_eq!(problems, [] as [String; 0], "check");
    let problems = engine.read(|read| vault::check(read, &engine.shared().vault)).expect("reads");
    assert_eq!(problems, [] as [String; 0], "check of the vault");
    let stored = stored_verdicts(engine);
    for (key, verdict) in &stored {
        assert_eq!(engine.shared().index.get(key), *verdict, "the index differs from the store");
    }
    assert_eq!(engine.shared().index.len(), stored.len(), "the index knows others than the store");
    assert_eq!(engine.applied(), log(engine).len() as u64);
    assert_lists(engine);
}

/// How much to try.
pub fn scale() -> u32 {
    std::env::var("DESIST_SCALE").map_or(1, |scale| scale.parse().expect("DESIST_SCALE is a number"))
}
