//! The engine: opens a store, owns the writer thread, answers questions from memory.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use desist_core::decision::{self, Context, Decision, Reason, Verdict};
use desist_core::fact::{AlarmKind, Digest, Fact, RequestId, Role};
use desist_core::identifier::{Identifier, Kind, NormalForm};
use desist_core::lookup::{LookupKeys, Pepper};
use desist_core::purpose::{BUILT_IN, FIRST_DECLARED_BIT, Model, PurposeSet, Purposes};
use desist_core::rules::{Batch, Named, Refused};
use desist_store::{KeyRow, Read, Readers, Store, StoreError, Write};
use sha2::{Digest as _, Sha256};
use tokio::sync::{oneshot, watch};

use crate::alerts::{self, About, Alerts, AlertsTo};
use crate::clear::Given;
use crate::delivery::Delivery;
use crate::env::{Env, Outbound, random};
use crate::index::DecisionIndex;
use crate::intake::SignalsSeen;
use crate::notary::witnesses::WitnessAt;
use crate::notary::{self, Notary, NotaryError};
use crate::queue::{Lane, Queue};
use crate::search::{ProfilesChanged, Search, Searched};
use crate::secrets::{Fingerprints, SecretError, Secrets, finish_rotation, hash};
use crate::vault::{CannotOpen, Vault};
use crate::{search, writer};

/// How long a decision with `min_seq` waits for the node to catch up.
pub const MIN_SEQ_WAIT: Duration = Duration::from_millis(200);
/// The scratch row of the health check is written at most this often.
pub const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// The only generation of lookup keys in this version.
const LOOKUP_GENERATION: u32 = 1;

/// What can be changed while the engine runs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether an API client may end its own opt-outs (`policy.api_opt_in = "own"`).
    pub api_opt_in_own: bool,
    /// The time zone in which days are counted.
    pub time_zone: jiff::tz::TimeZone,
    /// The purposes that the business declares: name and model.
    pub purposes: Vec<(String, Model)>,
    /// The profile attributes that lists search and sort by.
    pub searched: Searched,
    /// Who cosigns the log.
    pub witnesses: Vec<WitnessAt>,
    /// Who is told of alarms.
    pub alerts: Option<AlertsTo>,
    /// The kinds of identifier that some destination takes. Of the others nothing is kept.
    pub kinds_told: BTreeSet<Kind>,
}

/// Opens the store again after it failed.
pub type OpenStore = Box<dyn FnMut() -> Result<Box<dyn Store>, StoreError> + Send>;

/// What an engine is opened with.
pub struct Options {
    /// The business's id, the `<ORGANIZATION>` of the Campaign API. None: what the store says, and
    /// `acme` for a new store.
    pub business: Option<String>,
    /// The directory of the secret files.
    pub keys: PathBuf,
    /// Where the decision index is kept between runs.
    pub snapshot: Option<PathBuf>,
    /// What can be changed later.
    pub policy: Policy,
    /// Clock and entropy.
    pub env: Arc<dyn Env>,
    /// The way to other machines. None: nobody is asked or told anything, as in a command beside the server.
    pub outbound: Option<Arc<dyn Outbound>>,
    /// The store.
    pub open_store: OpenStore,
}

/// Why an engine does not start, or refuses new settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secret files.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// Another business's store.
    #[error("this store belongs to the business {stored:?}, not {given:?}; leave --business out, or give --data another directory")]
    OtherBusiness {
        /// What the store says.
        stored: String,
        /// What was asked for.
        given: String,
    },
    /// A declared purpose changed its model while acts on it may exist.
    #[error("purposes: the model of {0:?} was {1} when it was declared and cannot change; declare a purpose with a new name")]
    ModelChanged(String, &'static str),
    /// All bits are used.
    #[error("purposes: {0:?} is one too many; a store can hold 48 declared purposes in its life")]
    TooManyPurposes(String),
    /// The notary cannot go on where it was.
    #[error(transparent)]
    Notary(NotaryError),
    /// The writer did not come up or is gone.
    #[error("the writer is not available: {0}")]
    Writer(#[from] Failure),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a command changed nothing although all is well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rule of the domain.
    #[error(transparent)]
    Rules(#[from] Refused),
    /// The same `Idempotency-Key` came with another body.
    #[error("this Idempotency-Key was used with another body; use a new key for a new request")]
    OtherBody,
    /// There is no such thing, or it is gone.
    #[error("not found")]
    NotFound,
    /// The opt-in's second step came too late.
    #[error("the confirmation came too late; ask again")]
    Expired,
    /// The token is not the one of the request.
    #[error("the confirm_token is not the one of this request")]
    WrongToken,
    /// There is nothing to confirm.
    #[error("the request does not wait for a confirmation")]
    NotWaiting,
    /// The vault row does not open.
    #[error(transparent)]
    Vault(#[from] CannotOpen),
    /// Another record has the name.
    #[error("another record has this name")]
    Taken,
    /// A named limit is reached.
    #[error("there are too many of them")]
    TooMany,
    /// The web layer's own refusal of a profile change; it knows the text.
    #[error("the change was refused")]
    Profile,
}

/// Why a command did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many wait already.
    #[error("too many requests wait; try again in a second")]
    Busy,
    /// It could not be made durable, so it did not happen.
    #[error("the request could not be made durable; do not count on it, and send it again later (with its Idempotency-Key it counts once)")]
    NotDurable,
}

/// What commands work on: the open transaction and the state as of this point in the batch.
pub struct Ctx<'a> {
    /// The transaction.
    pub write: &'a mut dyn Write,
    /// Facts and state.
    pub batch: &'a mut Batch,
    /// What the engine shares.
    pub shared: &'a Shared,
    /// The batch's time in Unix milliseconds.
    pub now_ms: i64,
    /// Set when API keys changed, so that the table is read again after the commit.
    pub keys_changed: bool,
    /// Set when purposes were declared.
    pub purposes_changed: bool,
    /// Profiles with their attributes as they are now; none if it was deleted.
    pub profiles_changed: ProfilesChanged,
}

/// A command in the queue.
pub(crate) trait Job: Send {
    /// Does the work inside the transaction; may run again if the transaction does.
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<(), StoreError>;
    /// Gives the outcome, or the failure of the whole batch, to whoever waits.
    fn finish(self: Box<Self>, failed: Option<Failure>);
}

struct Command<T, F> {
    work: F,
    outcome: Option<Result<T, Refusal>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<T, F> Job for Command<T, F>
where
    T: Send,
    F: FnMut(&mut Ctx<'_>) -> Result<Result<T, Refusal>, StoreError> + Send,
{
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
        let before = ctx.batch.counters;
        let outcome = (self.work)(ctx)?;
        assert!(outcome.is_ok() || ctx.batch.counters == before, "a refused command has written nothing");
        self.outcome = Some(outcome);
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<Failure>) {
        let answer = match (failed, self.outcome) {
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => outcome.map_err(Failure::Refused),
            (None, None) => Err(Failure::NotDurable),
        };
        // Nobody may be waiting any more; the command stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// The API keys in memory.
#[derive(Debug, Default)]
pub struct KeyTable {
    by_token: HashMap<[u8; 32], KeyRow>,
    by_key: HashMap<[u8; 32], u32>,
}

impl KeyTable {
    fn new(rows: Vec<KeyRow>) -> Self {
        let mut table = Self::default();
        for row in rows.into_iter().filter(|row| row.revoked_at.is_none()) {
            table.by_key.insert(row.key_hash, row.no);
            table.by_token.insert(row.token_hash, row);
        }
        table
    }

    /// The live key that a token belongs to. Hash tables of hashes of 256 random bits leak nothing
    /// by their timing.
    pub fn by_token(&self, token: &str) -> Option<&KeyRow> {
        self.by_token.get(&hash(token))
    }

    /// The live key of a number.
    pub fn by_number(&self, no: u32) -> Option<&KeyRow> {
        self.by_token.values().find(|row| row.no == no)
    }

    /// The number of a live API key.
    pub fn number(&self, api_key: &str) -> Option<u32> {
        self.by_key.get(&hash(api_key)).copied()
    }
}

/// Counters that are not in the log; read by the metrics page.
#[derive(Debug, Default)]
pub struct Counts {
    /// Commands taken.
    pub commands: AtomicU64,
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Batches that failed.
    pub failed: AtomicU64,
    /// Decisions given.
    pub decisions: AtomicU64,
    /// Signals honoured without a row since the last daily fact.
    pub signals: AtomicU64,
    /// Opt-ins by API clients that were refused.
    pub opt_ins_refused: AtomicU64,
}

/// What all threads share.
pub struct Shared {
    /// Clock and entropy.
    pub env: Arc<dyn Env>,
    /// Secrets.
    pub secrets: Secrets,
    /// The vault.
    pub vault: Vault,
    /// The decision index.
    pub index: DecisionIndex,
    /// Settings.
    pub policy: ArcSwap<Policy>,
    /// Purposes with their bits.
    pub purposes: ArcSwap<Purposes>,
    /// API keys.
    pub keys: ArcSwap<KeyTable>,
    /// Counters.
    pub counts: Counts,
    /// Whose signals were looked at in this run.
    pub signals_seen: SignalsSeen,
    /// The lists by attribute.
    pub search: Search,
    /// Who signs the log.
    pub notary: Notary,
    /// Who is told of alarms.
    pub alerts: Alerts,
    /// Who is told of choices.
    pub delivery: Delivery,
    pub(crate) outbound: Option<Arc<dyn Outbound>>,
    pub(crate) queue: Queue<Box<dyn Job>>,
    pub(crate) lookup: LookupKeys,
    pub(crate) readers: Box<dyn Readers>,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) not_durable: AtomicBool,
    pub(crate) not_durable_since: AtomicU64,
    origin: String,
    business: String,
}

impl Shared {
    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The business's id.
    pub fn business(&self) -> &str {
        &self.business
    }

    /// Queues a command.
    pub(crate) fn enqueue<T, F>(&self, lane: Lane, work: F) -> Result<oneshot::Receiver<Result<T, Failure>>, Failure>
    where
        T: Send + 'static,
        F: FnMut(&mut Ctx<'_>) -> Result<Result<T, Refusal>, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.counts.commands.fetch_add(1, Ordering::Relaxed);
        let command = Command { work, outcome: None, reply };
        self.queue.push(lane, Box::new(command)).map_err(|_| Failure::Busy)?;
        Ok(answer)
    }
}

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    writer: Arc<std::sync::Mutex<Option<std::thread::JoinHandle<()>>>>,
    health: Arc<tokio::sync::Mutex<Option<(i64, bool)>>>,
    snapshot: Option<PathBuf>,
    /// The last entry that the kept index knows, if it was of use at the start.
    kept_upto: Option<u64>,
}

/// A decision as callers get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Allow or deny.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The last entry that the answer knows of.
    pub as_of: u64,
    /// How old that knowledge can be, in milliseconds; always 0 where the writer is in-process.
    pub stale_ms: u64,
}

impl Engine {
    /// Opens the store, makes it if it is empty, loads the index and starts the writer.
    /// Returns the engine and whether the store is new.
    pub fn open(mut options: Options) -> Result<(Self, bool), OpenError> {
        let mut store = (options.open_store)()?;
        let readers = store.readers();
        let mut stored = None;
        readers.read(&mut |read| {
            stored = read_identity(read)?;
            Ok(())
        })?;
        if let Some(identity) = &stored
            && let Some(given) = options.business.take_if(|given| *given != identity.business)
        {
            return Err(OpenError::OtherBusiness { stored: identity.business.clone(), given });
        }
        let business = match &stored {
            Some(identity) => identity.business.clone(),
            None => options.business.take().unwrap_or_else(|| "acme".to_owned()),
        };
        if let Some(identity) = &stored {
            finish_rotation(&options.keys, &identity.fingerprints.files[2])?;
        }
        let secrets = Secrets::open(&options.keys, stored.as_ref().map(|identity| &identity.fingerprints), options.env.as_ref())?;
        let first = stored.is_none();
        let origin = match stored {
            Some(identity) => identity.origin,
            None => begin(store.as_mut(), &business, &options, &secrets)?,
        };
        let (index, kept_upto) = load_index(readers.as_ref(), options.snapshot.as_deref())?;
        let (keys, purposes, applied) = read_settings(readers.as_ref())?;
        let shared = Arc::new(Shared {
            lookup: LookupKeys::new(&Pepper(*secrets.pepper), &business, LOOKUP_GENERATION),
            vault: Vault::new(&secrets.master),
            env: options.env,
            outbound: options.outbound,
            index,
            policy: ArcSwap::from_pointee(options.policy.clone()),
            purposes: ArcSwap::from_pointee(purposes),
            keys: ArcSwap::from_pointee(keys),
            counts: Counts::default(),
            signals_seen: SignalsSeen::default(),
            search: Search::default(),
            notary: Notary::new(&origin, &secrets, &options.keys),
            alerts: Alerts::default(),
            delivery: Delivery::default(),
            secrets,
            queue: Queue::default(),
            readers,
            applied: watch::Sender::new(applied),
            not_durable: AtomicBool::new(false),
            not_durable_since: AtomicU64::new(0),
            origin,
            business,
        });
        let handle = writer::spawn(Arc::clone(&shared), store, options.open_store).map_err(OpenError::Thread)?;
        let engine = Self {
            shared,
            writer: Arc::new(std::sync::Mutex::new(Some(handle))),
            health: Arc::default(),
            snapshot: options.snapshot,
            kept_upto,
        };
        let told = alerts::start(&engine.shared).map_err(OpenError::Thread);
        if let Err(error) = told.and_then(|()| engine.attest()).and_then(|()| engine.declare(&options.policy)) {
            // The writer holds the store's lock, and would for good.
            engine.close();
            return Err(error);
        }
        Ok((engine, first))
    }

    /// Goes on signing the log, unless it is not the one that was signed before.
    fn attest(&self) -> Result<(), OpenError> {
        match self.shared.notary.resume(&self.shared) {
            Ok(()) => notary::start(&self.shared).map_err(OpenError::Thread),
            Err(error @ NotaryError::NotThePrefix { .. }) => {
                tracing::error!(%error, "nothing is signed any more");
                // Intake goes on; the alarm tells that nobody can check it.
                self.submit_blocking(Lane::Interactive, |ctx| {
                    ctx.batch.emit(ctx.write, Fact::AlarmRaised { kind: AlarmKind::LogChanged, destination: None }).map(|_| Ok(()))
                })?;
                Ok(())
            }
            Err(error) => Err(OpenError::Notary(error)),
        }
    }

    /// What all threads share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn shared_arc(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The business's id.
    pub fn business(&self) -> &str {
        self.shared.business()
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// Queues a command and waits until it is durable, or known not to be. The command stands even
    /// if the caller goes away.
    pub async fn submit<T, F>(&self, lane: Lane, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnMut(&mut Ctx<'_>) -> Result<Result<T, Refusal>, StoreError> + Send + 'static,
    {
        self.shared.enqueue(lane, work)?.await.unwrap_or(Err(Failure::NotDurable))
    }

    /// The same for threads that are not part of the runtime.
    pub fn submit_blocking<T, F>(&self, lane: Lane, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnMut(&mut Ctx<'_>) -> Result<Result<T, Refusal>, StoreError> + Send + 'static,
    {
        self.shared.enqueue(lane, work)?.blocking_recv().unwrap_or(Err(Failure::NotDurable))
    }

    /// Queues a command that nobody waits for. Returns whether there was room.
    pub fn submit_and_forget<F>(&self, lane: Lane, work: F) -> bool
    where
        F: FnMut(&mut Ctx<'_>) -> Result<Result<(), Refusal>, StoreError> + Send + 'static,
    {
        self.shared.enqueue(lane, work).is_ok()
    }

    /// Runs a question in one snapshot of the store. Blocks for the time of the query.
    pub fn read<T>(&self, mut question: impl FnMut(&mut dyn Read) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut answer = None;
        self.shared.readers.read(&mut |read| {
            answer = Some(question(read)?);
            Ok(())
        })?;
        answer.ok_or_else(|| StoreError::Database("the question was not asked".into()))
    }

    /// Copies the store as of one moment into a new file.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.shared.readers.backup(to)
    }

    /// An identifier as commands and decisions name it.
    pub fn named(&self, identifier: &Identifier) -> Named {
        Named { kind: identifier.kind, key: self.shared.lookup.key_of(identifier) }
    }

    /// What a caller gave of an identifier, for the command that names it to [keep](crate::clear::keep); none if no destination takes its
    /// kind.
    pub fn given(&self, identifier: Identifier, text: Option<NormalForm>) -> Option<Given> {
        let told = self.shared.policy.load().kinds_told.contains(&identifier.kind);
        told.then(|| text.map_or_else(|| identifier.into(), |text| (identifier, text).into()))
    }

    /// Decides from memory.
    pub fn decide(&self, purpose: PurposeSet, named: &[Named], context: Context) -> Decided {
        let shared = &self.shared;
        shared.counts.decisions.fetch_add(1, Ordering::Relaxed);
        let needs_opt_in = shared.purposes.load().opt_in().contains(purpose);
        // Read before the index: the answer may know more than it says, never less.
        let as_of = *shared.applied.borrow();
        let verdicts = named.iter().map(|one| (one.kind, shared.index.get(&one.key)));
        let (decision, reason) = decision::decide(purpose, needs_opt_in, verdicts, context);
        if reason == Reason::Gpc {
            shared.counts.signals.fetch_add(1, Ordering::Relaxed);
        }
        Decided { decision, reason, as_of, stale_ms: 0 }
    }

    /// The verdict that the index holds for an identifier.
    pub fn verdict(&self, named: &Named) -> Verdict {
        self.shared.index.get(&named.key)
    }

    /// Waits a little until the index knows entry `seq`. Returns whether it does.
    pub async fn caught_up(&self, seq: u64) -> bool {
        let mut applied = self.shared.applied.subscribe();
        tokio::time::timeout(MIN_SEQ_WAIT, applied.wait_for(|known| *known >= seq)).await.is_ok_and(|known| known.is_ok())
    }

    /// The last entry whose effect the index knows.
    pub fn applied(&self) -> u64 {
        *self.shared.applied.borrow()
    }

    /// Whether writes are durable, as far as the last one told.
    pub fn is_durable(&self) -> bool {
        !self.shared.not_durable.load(Ordering::Acquire)
    }

    /// The alarms that stand now.
    pub fn alarms(&self) -> Vec<(About, i64)> {
        let since = self.shared.not_durable_since.load(Ordering::Acquire) as i64;
        let not_durable = (!self.is_durable()).then_some((AlarmKind::NotDurable, since));
        let changed = self.shared.notary.failed_since().map(|since| (AlarmKind::LogChanged, since));
        let lost = self.shared.notary.witness_lost_since().map(|since| (AlarmKind::WitnessLost, since));
        let own = [not_durable, changed, lost].into_iter().flatten().map(|(kind, since)| (kind.into(), since));
        own.chain(self.destination_alarms()).collect()
    }

    /// Writes the scratch row, at most once a second, and says whether that worked.
    pub async fn is_healthy(&self) -> bool {
        let mut last = self.health.lock().await;
        let now = self.shared.env.now_ms();
        if let Some((at, healthy)) = *last
            && (0..HEALTH_EVERY.as_millis() as i64).contains(&(now - at))
        {
            return healthy;
        }
        let healthy = self.submit(Lane::Interactive, |ctx| ctx.write.scratch(ctx.now_ms / 1000).map(Ok)).await.is_ok();
        *last = Some((now, healthy));
        healthy
    }

    /// How many commands wait: interactive, bulk.
    pub fn waiting(&self) -> (usize, usize) {
        self.shared.queue.depths()
    }

    /// Declares the policy's purposes that are new, and takes the policy over.
    pub fn declare(&self, policy: &Policy) -> Result<(), OpenError> {
        let known = self.shared.purposes.load_full();
        for (name, model) in &policy.purposes {
            if let Some((_, _, stored)) = known.iter().find(|(known, ..)| known == name)
                && stored != *model
            {
                let was = if stored == Model::OptOut { "\"opt_out\"" } else { "\"opt_in\"" };
                return Err(OpenError::ModelChanged(name.clone(), was));
            }
        }
        let new: Vec<_> = policy.purposes.iter().filter(|(name, _)| known.get(name).is_none()).cloned().collect();
        let declared = known.iter().count() - BUILT_IN.len();
        let free = 64 - FIRST_DECLARED_BIT as usize - declared;
        if let Some((name, _)) = new.get(free) {
            return Err(OpenError::TooManyPurposes(name.clone()));
        }
        if !new.is_empty() {
            self.submit_blocking(Lane::Interactive, move |ctx| {
                let stored = ctx.write.purposes()?;
                // Somebody else may have declared them since.
                let new = new.iter().filter(|(name, _)| stored.iter().all(|(_, known, _)| known != name));
                let free = FIRST_DECLARED_BIT + stored.len() as u32;
                for (bit, (name, model)) in (free..).zip(new) {
                    let digest = Digest(Sha256::digest(name).into());
                    ctx.batch.emit(ctx.write, Fact::PurposeDeclared { bit, name: digest, model: *model })?;
                    ctx.write.put_purpose(bit, name, *model)?;
                }
                ctx.purposes_changed = true;
                Ok(Ok(()))
            })?;
        }
        let before = self.shared.policy.swap(Arc::new(policy.clone()));
        if before.kinds_told != policy.kinds_told {
            // What those identifiers are has to be looked at once more.
            self.shared.signals_seen.clear();
        }
        if self.shared.outbound.is_some() {
            self.shared.alerts.configure(self.shared.env.as_ref(), policy.alerts.clone());
        }
        search::start(&self.shared);
        Ok(())
    }

    /// Records how many signals were honoured without a row since the last time, as one fact.
    pub fn record_signals(&self) -> Result<(), Failure> {
        let count = self.shared.counts.signals.swap(0, Ordering::AcqRel);
        if count == 0 {
            return Ok(());
        }
        let recorded = self.submit_blocking(Lane::Bulk, move |ctx| {
            let day = ctx.now_ms.div_euclid(86_400_000);
            ctx.batch.emit(ctx.write, Fact::SignalsHonoured { day, count }).map(|_| Ok(()))
        });
        if recorded.is_err() {
            self.shared.counts.signals.fetch_add(count, Ordering::AcqRel);
        }
        recorded
    }

    /// Stops taking commands, finishes those that wait, and keeps the index for the next start.
    pub fn close(&self) {
        // A failure here loses a count of the day, which the alarm has already announced.
        let _ = self.record_signals();
        // While the books can be written.
        self.shared.delivery.stop();
        self.shared.queue.close();
        self.shared.search.stop();
        let handle = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            tracing::error!("the writer thread ended with a panic");
            return;
        }
        self.shared.notary.stop();
        self.shared.alerts.stop();
        if let Some(path) = &self.snapshot
            && self.kept_upto != Some(self.applied())
            && let Ok(root) = self.read(|read| read.coordinator().map(|coordinator| frontier_root(&coordinator.frontier)))
            && let Err(error) = self.shared.index.write_snapshot(path, self.applied(), &root)
        {
            tracing::warn!(%error, "the decision index was not kept; the next start reads the store instead");
        }
    }

    /// What a new API key and its token are derived from.
    pub fn new_credential_seed(&self) -> RequestId {
        RequestId(random(self.shared.env.as_ref()))
    }
}

/// What the store says of itself.
struct Identity {
    business: String,
    origin: String,
    fingerprints: Fingerprints,
}

fn read_identity(read: &mut dyn Read) -> Result<Option<Identity>, StoreError> {
    let Some(business) = read.meta("business")? else { return Ok(None) };
    let text = |bytes: Option<Vec<u8>>, name: &str| {
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| StoreError::Damaged(format!("meta: {name}")))
    };
    let mut fingerprint =
        |name: &str| read.meta(name)?.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| StoreError::Damaged(format!("meta: {name}")));
    let files = [fingerprint("pepper_fingerprint")?, fingerprint("master_fingerprint")?, fingerprint("log_fingerprint")?];
    // Empty: a key that no longer signs.
    let log_old = match read.meta("log_old_fingerprint")?.filter(|bytes| !bytes.is_empty()) {
        Some(bytes) => Some(bytes.try_into().map_err(|_| StoreError::Damaged("meta: log_old_fingerprint".into()))?),
        None => None,
    };
    let fingerprints = Fingerprints { files, log_old };
    Ok(Some(Identity { business: text(Some(business), "business")?, origin: text(read.meta("origin")?, "origin")?, fingerprints }))
}

/// The first transaction of a store: who it belongs to, the log's name, its first entry.
fn begin(store: &mut dyn Store, business: &str, options: &Options, secrets: &Secrets) -> Result<String, StoreError> {
    let unique = u64::from_be_bytes(random(options.env.as_ref()));
    let origin = format!("desist.invalid/{business}/{unique:016x}");
    let now = options.env.now_ms() / 1000;
    let [pepper, master, log] = secrets.fingerprints().files;
    store.transact(&mut |write| {
        write.put_meta("business", business.as_bytes())?;
        write.put_meta("origin", origin.as_bytes())?;
        write.put_meta("pepper_fingerprint", &pepper)?;
        write.put_meta("master_fingerprint", &master)?;
        write.put_meta("log_fingerprint", &log)?;
        let mut batch = Batch::new(write.coordinator()?.counters, now);
        batch.emit(write, Fact::LogOpened { origin: Digest(Sha256::digest(&origin).into()) })?;
        desist_store::commit(write, &mut batch).map(|_| ())
    })?;
    Ok(origin)
}

pub(crate) fn read_settings(readers: &dyn Readers) -> Result<(KeyTable, Purposes, u64), StoreError> {
    let mut settings = None;
    readers.read(&mut |read| {
        let mut purposes = Purposes::default();
        for (bit, name, model) in read.purposes()? {
            purposes.insert(&name, bit, model);
        }
        settings = Some((KeyTable::new(read.keys()?), purposes, read.coordinator()?.counters.entries));
        Ok(())
    })?;
    settings.ok_or_else(|| StoreError::Database("the settings were not read".into()))
}

/// The fingerprints of the secret files that the store was written with.
pub fn fingerprints(read: &mut dyn Read) -> Result<Option<Fingerprints>, StoreError> {
    Ok(read_identity(read)?.map(|identity| identity.fingerprints))
}

/// The index as of the last stop with what came after, or anew from the store.
fn load_index(readers: &dyn Readers, snapshot: Option<&Path>) -> Result<(DecisionIndex, Option<u64>), StoreError> {
    let kept = match snapshot.map(DecisionIndex::load_snapshot) {
        Some(Ok(kept)) => kept,
        Some(Err(error)) => {
            tracing::warn!(%error, "the kept decision index is of no use; reading the store instead");
            None
        }
        None => None,
    };
    let mut index = None;
    readers.read(&mut |read| {
        let upto = read.coordinator()?.counters.entries;
        if let Some((kept, head)) = &kept
            && head.upto <= upto
            && log_root(read, head.upto)? == Some(head.root)
        {
            for (key, verdict) in read.tail(head.upto)? {
                kept.set(&key, verdict);
            }
            return Ok(());
        }
        let fresh = DecisionIndex::with_expected(read.totals()?.denied_identifiers as usize);
        read.each_verdict(&mut |key, _, verdict| fresh.set(&key, verdict))?;
        index = Some(fresh);
        Ok(())
    })?;
    match (index, kept) {
        (Some(index), _) => Ok((index, None)),
        (None, Some((index, head))) => Ok((index, Some(head.upto))),
        (None, None) => Ok((DecisionIndex::with_expected(0), None)),
    }
}

/// The root of the log's first `size` entries, if that can be told cheaply: now only for the present
/// size, which is what a clean stop leaves.
fn log_root(read: &mut dyn Read, size: u64) -> Result<Option<[u8; 32]>, StoreError> {
    let coordinator = read.coordinator()?;
    Ok((coordinator.counters.entries == size).then(|| frontier_root(&coordinator.frontier)))
}

fn frontier_root(bytes: &[u8]) -> [u8; 32] {
    desist_proof::Frontier::from_bytes(bytes).map_or([0; 32], |frontier| frontier.root())
}

/// The kinds of identifier whose signal is worth a row: a proved account or a device.
pub fn is_recorded_for_signals(kind: Kind) -> bool {
    kind.names_subject() || !kind.is_person_level()
}

/// Whether a role may do what `needed` may.
pub fn may(role: Role, needed: Role) -> bool {
    matches!(
        (role, needed),
        (Role::Admin, _)
            | (Role::Writer, Role::Writer | Role::Reader | Role::Auditor)
            | (Role::Reader, Role::Reader | Role::Auditor)
            | (Role::Auditor, Role::Auditor)
    )
}
