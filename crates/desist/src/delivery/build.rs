//! Makes the ways to the planned destinations, and hands them to the engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desist_connector::declared::Transport as Carrier;
use desist_core::lane::Level;
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{AskError, Destination};
use desist_engine::engine::Engine;
use desist_engine::env::Outbound;
use desist_engine::queue::Lane;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::rows::{FileDrop, PresentState, Rows};
use super::{EngineTokens, HttpTransport, Options, Planned, rows};

/// How long after a start no snapshot is begun: a new destination is told of everybody first.
const SETTLE: Duration = Duration::from_mins(1);

/// Keeps the destinations of the configuration told.
pub struct Deliveries {
    runtime: Handle,
    outbound: Arc<dyn Outbound>,
    /// Snapshots that are written from time to time.
    snapshots: Mutex<Vec<JoinHandle<()>>>,
}

impl Deliveries {
    /// Ways that work in this runtime and reach other machines over `outbound`.
    pub fn new(runtime: Handle, outbound: Arc<dyn Outbound>) -> Self {
        Self { runtime, outbound, snapshots: Mutex::default() }
    }

    /// Takes these destinations over, in place of all that were there. Blocks.
    pub fn configure(&self, engine: &Engine, planned: Vec<Planned>) -> Result<(), AskError> {
        let mut drops = Vec::new();
        let destinations = planned.into_iter().map(|planned| self.destination(engine, planned, &mut drops)).collect();
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.drain(..).for_each(|task| task.abort());
        engine.deliver(destinations)?;
        snapshots.extend(drops.into_iter().filter_map(|(id, files)| self.snapshots_of(engine.clone(), id, files)));
        Ok(())
    }

    /// No snapshot is begun any more.
    pub fn stop(&self) {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }

    fn destination(&self, engine: &Engine, planned: Planned, drops: &mut Vec<(String, Arc<FileDrop>)>) -> Destination {
        let shared = engine.shared();
        let purposes = shared.purposes.load_full();
        let set = planned.purposes.iter().filter_map(|name| purposes.get(name)).fold(PurposeSet::EMPTY, PurposeSet::union);
        let carrier = planned.manifest.declared().connector.transport;
        let by_hand = carrier == Carrier::Manual;
        let mut lane = planned.lane;
        // Where calls are only checked nobody is told anything.
        if planned.dry_run {
            lane.floor = Level::Sent;
        }
        let Planned { id, dry_run, verified, allow_private, .. } = planned;
        let cap = match (dry_run, verified) {
            (true, _) => Level::Sent,
            (false, true) => Level::Verified,
            (false, false) => Level::Accepted,
        };
        let transport = planned.instance.and_then(|instance| match carrier {
            Carrier::Manual => Ok(Arc::new(ByHand) as Arc<dyn Transport>),
            Carrier::Http => Ok(Arc::new(HttpTransport::new(Options {
                destination: id.clone(),
                instance: Arc::new(instance),
                runtime: self.runtime.clone(),
                outbound: Arc::clone(&self.outbound),
                env: Arc::clone(&shared.env),
                tokens: Arc::new(EngineTokens(Arc::new(engine.clone()))),
                purposes: Arc::clone(&purposes),
                allow_private,
                cap,
            })) as _),
            Carrier::Sql | Carrier::File | Carrier::S3 | Carrier::Sftp => {
                let present = Arc::new(Present { engine: engine.clone(), id: id.clone() });
                let (runtime, env) = (self.runtime.clone(), Arc::clone(&shared.env));
                let options = rows::Options { runtime, env, purposes: Arc::clone(&purposes), allow_private, present: Some(present) };
                let rows = Rows::open(instance, options)?;
                if let Rows::Files(files) = &rows {
                    drops.push((id.clone(), Arc::clone(files)));
                }
                Ok(rows.transport())
            }
        });
        Destination {
            id,
            connector: planned.manifest.id().to_owned(),
            class: planned.class,
            purposes: set,
            digest: planned.digest,
            lane,
            required: planned.required,
            ceiling: planned.ceiling,
            resend_ms: planned.resend_ms,
            // The engine knows up to where.
            through: by_hand.then_some(0),
            owner: planned.owner,
            transport,
        }
    }

    /// A receiver that lost its copy reads the last snapshot and what came after. When that was made is kept, so that restarts put none off.
    fn snapshots_of(&self, engine: Engine, id: String, files: Arc<FileDrop>) -> Option<JoinHandle<()>> {
        let every = files.snapshot_every().filter(|every| !every.is_zero())?;
        Some(self.runtime.spawn(async move {
            let name = format!("snapshot/{id}");
            let mut wait = first_snapshot(&engine, &name, every);
            loop {
                tokio::time::sleep(wait).await;
                wait = every;
                match files.write_snapshot().await {
                    Ok(snapshot) => {
                        tracing::info!(destination = id, rows = snapshot.rows, "a snapshot was written");
                        let (name, now) = (name.clone(), engine.shared().env.now_ms());
                        let kept = engine.submit(Lane::Bulk, move |ctx| ctx.write.put_meta(&name, &now.to_be_bytes()).map(Ok)).await;
                        if let Err(error) = kept {
                            tracing::warn!(destination = id, %error, "when a snapshot was written is not kept: the next start writes one more");
                        }
                    }
                    Err(error) => tracing::error!(destination = id, error, "a snapshot was not written; the next try is in its usual time"),
                }
            }
        }))
    }
}

/// How long after a start the first snapshot is due.
fn first_snapshot(engine: &Engine, name: &str, every: Duration) -> Duration {
    let last = engine.read(|read| read.meta(name)).ok().flatten().and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
    let passed = last.map(|last| Duration::from_millis(engine.shared().env.now_ms().saturating_sub(last).max(0) as u64));
    passed.map_or(SETTLE, |passed| every.saturating_sub(passed).max(SETTLE))
}

/// What holds for everybody, as one destination is to hear it.
struct Present {
    engine: Engine,
    id: String,
}

impl PresentState for Present {
    fn page(&self, after: u64, limit: usize) -> Result<(Vec<Arc<Message>>, Option<u64>), String> {
        self.engine.present(&self.id, after, limit).map_err(|error| error.to_string())
    }
}

/// A destination that people tell by hand. Its lane is only given what somebody said was done.
struct ByHand;

impl Transport for ByHand {
    fn start(&self, errand: Errand, _: Duration, done: Done) {
        let _ = errand;
        done(Ended::all(desist_core::lane::Outcome::Ok(Level::Accepted)));
    }

    /// Whoever does it sees what is known, and tells what can be told.
    fn reaches(&self, message: &Message) -> bool {
        !message.identifiers.is_empty()
    }
}
