//! The one writer: takes what waits, runs it in one transaction, commits durably, updates the
//! decision index, and only then lets the answers leave.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use desist_core::decision::Verdict;
use desist_core::fact::{AlarmKind, Entry, Fact};
use desist_core::lookup::LookupKey;
use desist_core::mark::SubjectNo;
use desist_core::rules::Batch;
use desist_store::{Read, Store, StoreError};

use crate::engine::{Ctx, Failure, Job, OpenStore, Shared, read_settings};
use crate::queue::Taken;
use crate::search::{self, ProfilesChanged};

/// How often an idle writer looks whether a failed store works again.
const IDLE: Duration = Duration::from_secs(1);
/// How long a store that could not be opened again is left alone.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
/// How often a transaction that found the database locked is tried.
const BUSY_TRIES_MAX: u32 = 5;

pub(crate) fn spawn(shared: Arc<Shared>, store: Box<dyn Store>, open_store: OpenStore) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("writer".into()).spawn(move || {
        let writer = Writer { shared, store: Some(store), open_store, doubtful: Vec::new() };
        if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
            // Commands run under a guard of their own. Without a writer everybody would wait for ever;
            // what was acknowledged is on disk, and a restart begins there.
            tracing::error!("the writer ended with a panic: stopping");
            std::process::abort();
        }
    })
}

struct Writer {
    shared: Arc<Shared>,
    store: Option<Box<dyn Store>>,
    open_store: OpenStore,
    /// Profiles that commits changed of which it is not known whether they reached the disk.
    doubtful: Vec<SubjectNo>,
}

/// What a committed batch means for memory.
#[derive(Default)]
struct Committed {
    verdicts: Vec<(LookupKey, Verdict)>,
    upto: u64,
    settings_changed: bool,
    feed_changed: bool,
    profiles: ProfilesChanged,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.shared.queue.take(IDLE) {
                Taken::Batch(jobs) => self.batch(jobs),
                // An empty batch still carries the alarm's end, and shows that writing works again.
                Taken::Idle if self.shared.not_durable.load(Ordering::Acquire) => self.batch(Vec::new()),
                Taken::Idle => {}
                Taken::Closed => return,
            }
        }
    }

    fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let result = self.commit(&mut jobs);
        let shared = Arc::clone(&self.shared);
        let failed = match result {
            Ok(committed) => {
                shared.counts.commits.fetch_add(1, Ordering::Relaxed);
                if self.apply(&committed).is_err() {
                    self.recover();
                }
                None
            }
            Err(error) => {
                shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                if matches!(error, StoreError::Busy) {
                    tracing::warn!("the database stayed locked; {} commands were not taken", jobs.len());
                    Some(Failure::Busy)
                } else {
                    tracing::error!(%error, "a batch of {} commands was not made durable", jobs.len());
                    self.not_durable();
                    Some(Failure::NotDurable)
                }
            }
        };
        let broken = matches!(failed, Some(Failure::NotDurable));
        for job in jobs {
            job.finish(failed.clone());
        }
        if broken {
            self.recover();
        }
    }

    fn commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<Committed, StoreError> {
        let Some(store) = self.store.as_mut() else { return Err(StoreError::Database("the store is closed".into())) };
        let shared = &self.shared;
        for attempt in 1.. {
            let mut committed = Committed::default();
            let result = catch_unwind(AssertUnwindSafe(|| {
                store.transact(&mut |write| {
                    committed = Committed::default();
                    let now_ms = shared.env.now_ms();
                    let counters = write.coordinator()?.counters;
                    // A clock that was set back must not let an older opt-in win over a new opt-out.
                    let now = now_ms.div_euclid(1000).max(last_at(write, counters.entries)?);
                    let mut batch = Batch::new(counters, now);
                    let mut ctx = Ctx {
                        write: &mut *write,
                        batch: &mut batch,
                        shared,
                        now_ms,
                        keys_changed: false,
                        purposes_changed: false,
                        profiles_changed: Vec::new(),
                    };
                    if shared.not_durable.load(Ordering::Acquire) {
                        ctx.batch.emit(ctx.write, Fact::AlarmRaised { kind: AlarmKind::NotDurable, destination: None })?;
                        ctx.batch.emit(ctx.write, Fact::AlarmCleared { kind: AlarmKind::NotDurable, destination: None })?;
                    }
                    for job in jobs.iter_mut() {
                        job.run(&mut ctx)?;
                    }
                    committed.settings_changed = ctx.keys_changed || ctx.purposes_changed;
                    committed.profiles = std::mem::take(&mut ctx.profiles_changed);
                    let changes = desist_store::commit(write, &mut batch)?;
                    committed.upto = batch.counters.entries;
                    committed.feed_changed = !changes.parties.is_empty();
                    let own = changes.identifiers.iter().map(|(no, _, verdict)| (*no, *verdict));
                    for (no, verdict) in own.chain(changes.verdicts.iter().copied()) {
                        let (key, ..) =
                            write.verdict_of(no)?.ok_or_else(|| StoreError::Damaged(format!("identifier {} has no row", no.0)))?;
                        committed.verdicts.push((key, verdict));
                    }
                    Ok(())
                })
            }));
            match result {
                Ok(Ok(())) => return Ok(committed),
                Ok(Err(StoreError::Busy)) if attempt < BUSY_TRIES_MAX => {}
                Ok(Err(error)) => {
                    self.doubtful.extend(committed.profiles.iter().map(|(subject, _)| *subject));
                    return Err(error);
                }
                // The payload is not printed: it could quote what the command worked on.
                Err(_) => return Err(StoreError::Database("a command panicked".into())),
            }
        }
        unreachable!("the loop returns")
    }

    /// Memory follows the store, then the world may know.
    fn apply(&self, committed: &Committed) -> Result<(), StoreError> {
        let shared = &self.shared;
        for (key, verdict) in &committed.verdicts {
            shared.index.set(key, *verdict);
        }
        shared.search.apply(&committed.profiles);
        if committed.settings_changed {
            let (keys, purposes, _) = read_settings(shared.readers.as_ref())?;
            shared.keys.store(Arc::new(keys));
            shared.purposes.store(Arc::new(purposes));
        }
        shared.applied.send_replace(committed.upto);
        if committed.feed_changed {
            shared.delivery.changed();
        }
        if shared.not_durable.swap(false, Ordering::AcqRel) {
            tracing::info!("writes are durable again");
            shared.alerts.cleared(shared.env.as_ref(), AlarmKind::NotDurable);
        }
        Ok(())
    }

    fn not_durable(&self) {
        let shared = &self.shared;
        if !shared.not_durable.swap(true, Ordering::AcqRel) {
            let since = shared.env.now_ms().div_euclid(1000);
            shared.not_durable_since.store(since as u64, Ordering::Release);
            shared.alerts.raised(shared.env.as_ref(), AlarmKind::NotDurable, since);
        }
    }

    /// Closes the store, opens it anew, and makes memory say what it says. The failed commit may
    /// have reached the disk after all: the tail tells.
    fn recover(&mut self) {
        self.not_durable();
        drop(self.store.take());
        match (self.open_store)() {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                tracing::error!(%error, "the store cannot be opened again yet");
                #[expect(clippy::disallowed_methods, reason = "the writer has nothing else to do than to wait for its store")]
                std::thread::sleep(REOPEN_AFTER);
                return;
            }
        }
        let shared = Arc::clone(&self.shared);
        let known = *shared.applied.borrow();
        let caught_up = shared.readers.read(&mut |read| {
            for (key, verdict) in read.tail(known)? {
                shared.index.set(&key, verdict);
            }
            shared.applied.send_replace(read.coordinator()?.counters.entries);
            Ok(())
        });
        // What the failed commits did to profiles is not in the tail.
        let doubtful = std::mem::take(&mut self.doubtful);
        let caught_up = caught_up.and_then(|()| search::refresh(&shared, &doubtful).inspect_err(|_| self.doubtful = doubtful));
        let settings = caught_up.and_then(|()| read_settings(shared.readers.as_ref()));
        match settings {
            Ok((keys, purposes, _)) => {
                shared.keys.store(Arc::new(keys));
                shared.purposes.store(Arc::new(purposes));
                // What was written after all is told, too.
                shared.delivery.changed();
            }
            Err(error) => {
                // Without knowing what is stored nothing may be written: try again from the start.
                tracing::error!(%error, "the store was opened again but cannot be read");
                self.store = None;
            }
        }
    }
}

/// When the last entry was recorded, in Unix seconds.
fn last_at(read: &mut dyn Read, seq: u64) -> Result<i64, StoreError> {
    match read.entries(seq..seq + 1)?.pop() {
        Some((_, bytes)) => Ok(Entry::decode(&bytes).map_err(|_| StoreError::Damaged(format!("entry {seq}")))?.at),
        None => Ok(i64::MIN),
    }
}
