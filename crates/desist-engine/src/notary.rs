//! The notary: signs what the log is, once for each size, and shows it to the world.
//!
//! Before a checkpoint is shown it is written to a file beside the secret keys, apart from the store: the
//! high-water mark. At a start the log must begin with what the mark says. If it does not, somebody put an
//! older store back, or rewrote the log; then nothing is signed any more, and an alarm stands.
//!
//! Witnesses are asked after that, and before the world sees the checkpoint: see [`witnesses`].

pub mod witnesses;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use desist_core::fact::{Actor, AlarmKind, Digest, Entry, Fact};
use desist_proof::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use desist_proof::note::{Algorithm, Signer, Verifier};
use desist_proof::proof;
use desist_proof::receipt::Receipt;
use desist_store::{Owner, Read, RequestRow, StoreError, tiles};
use sha2::{Digest as _, Sha256};

use crate::engine::{Engine, Failure, Refusal, Shared, fingerprints};
use crate::intake::Outcome;
use crate::queue::Lane;
use crate::secrets::{SecretError, Secrets, all_log_keys, finish_rotation, log_fingerprint, log_keys, make_next};
use witnesses::{RECENT_MAX, WitnessState, Witnesses};

/// How long the notary waits for more entries before it signs: far below the second that is promised.
const PACE: Duration = Duration::from_millis(200);
/// The file of the high-water mark, beside the secret keys.
const MARK: &str = "checkpoint";
/// Since when the alarm about a witness stands, in the `meta` table.
const STANDING: &str = "witness_lost";
/// Largest mark that is read; a checkpoint with a hundred cosignatures has 20 KiB.
const MARK_BYTES_MAX: u64 = 1 << 20;

/// Why the notary does not sign.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// The log does not begin with what was signed before.
    #[error(
        "the log does not begin with the {size} entries of the checkpoint in {path}, which was signed earlier: an older store was put back, or the log was changed. Put the store back that has them; receipts given since then cannot be checked against this one"
    )]
    NotThePrefix {
        /// What was signed.
        size: u64,
        /// The mark.
        path: PathBuf,
    },
    /// The mark is no checkpoint of this log.
    #[error("{path} is not a checkpoint of this log: {error}; put the file back that belongs to this store's keys")]
    Mark {
        /// The mark.
        path: PathBuf,
        /// What is wrong.
        error: CheckpointError,
    },
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the log's key did not change.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The files.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// The log did not take it.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the notary last showed.
#[derive(Debug)]
pub struct Published {
    /// The signed checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// The same as text.
    pub text: String,
}

impl Published {
    /// How many entries it covers.
    pub fn size(&self) -> u64 {
        self.checkpoint.unverified().size()
    }
}

/// The keys that sign a log.
struct Keys {
    present: Signer,
    old: Option<Signer>,
}

impl Keys {
    fn new(origin: &str, present: &[u8; 32], old: Option<&[u8; 32]>) -> Self {
        Self { present: signer(origin, present), old: old.map(|seed| signer(origin, seed)) }
    }

    fn sign(&self, checkpoint: Checkpoint) -> Result<SignedCheckpoint, CheckpointError> {
        let mut signed = SignedCheckpoint::sign(checkpoint, &self.present)?;
        self.old.iter().try_for_each(|old| signed.sign_also(old))?;
        Ok(signed)
    }

    /// The present one first.
    fn verifiers(&self) -> Vec<Verifier> {
        [&self.present].into_iter().chain(&self.old).map(|signer| signer.verifier().clone()).collect()
    }
}

/// The notary of one log.
pub struct Notary {
    keys: ArcSwap<Keys>,
    /// Held while the key changes.
    rotating: Mutex<()>,
    dir: PathBuf,
    mark: PathBuf,
    published: ArcSwapOption<Published>,
    /// The newest that a witness cosigned; one that is slow does so after a newer one was shown.
    witnessed: ArcSwapOption<Published>,
    stopped: AtomicBool,
    /// Unix seconds; 0 while the log is the one that was signed.
    failed: AtomicI64,
    witnesses: Mutex<Vec<WitnessState>>,
    /// Unix seconds; 0 while no witness is lost.
    witness_lost: AtomicI64,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Notary {
    /// A notary for the log of this origin.
    pub(crate) fn new(origin: &str, secrets: &Secrets, dir: &Path) -> Self {
        Self {
            keys: ArcSwap::from_pointee(Keys::new(origin, &secrets.log, secrets.log_old.as_deref())),
            rotating: Mutex::default(),
            dir: dir.to_owned(),
            mark: mark(dir),
            published: ArcSwapOption::empty(),
            witnessed: ArcSwapOption::empty(),
            stopped: AtomicBool::new(false),
            failed: AtomicI64::new(0),
            witnesses: Mutex::default(),
            witness_lost: AtomicI64::new(0),
            thread: Mutex::new(None),
        }
    }

    /// The public keys, as others are told them: the present one, then the one before, if it still signs along.
    pub fn verifiers(&self) -> Vec<Verifier> {
        self.keys.load().verifiers()
    }

    /// The present public key.
    pub fn verifier(&self) -> Verifier {
        self.keys.load().present.verifier().clone()
    }

    /// Makes a new key for the log and signs with it from now on. The key before signs along until the next change, so
    /// that whoever knows only that one can still check; unless it is `compromised`, which means that others may have
    /// it. Returns the new public key.
    pub fn rotate(engine: &Engine, compromised: bool, by: Actor) -> Result<Verifier, RotateError> {
        let (shared, notary) = (engine.shared(), &engine.shared().notary);
        let _one_at_a_time = notary.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let before = notary.verifier();
        notary.adopt(shared)?;
        // The last change seemed to fail and had happened: asked for again, it is done.
        if notary.verifier() != before {
            return Ok(notary.verifier());
        }
        let seed = make_next(&notary.dir, shared.env.as_ref())?;
        let new = signer(engine.origin(), &seed).verifier().clone();
        let digest = |key: &Verifier| Digest(Sha256::digest(key.to_string()).into());
        let fact = Fact::KeyRotated { old: digest(&before), new: digest(&new), by };
        let present = log_fingerprint(&seed);
        engine.submit_blocking(Lane::Interactive, move |ctx| {
            ctx.batch.emit(ctx.write, fact.clone())?;
            let signs_along = if compromised { None } else { ctx.write.meta("log_fingerprint")? };
            ctx.write.put_meta("log_old_fingerprint", &signs_along.unwrap_or_default())?;
            ctx.write.put_meta("log_fingerprint", &present).map(Ok)
        })?;
        notary.adopt(shared)?;
        Ok(new)
    }

    /// Signs with the keys that the store names from now on.
    fn adopt(&self, shared: &Shared) -> Result<(), RotateError> {
        let mut known = None;
        shared.readers.read(&mut |read| {
            known = fingerprints(read)?;
            Ok(())
        })?;
        let Some(known) = known else { return Ok(()) };
        finish_rotation(&self.dir, &known.files[2])?;
        let (present, old) = log_keys(&self.dir, &known)?;
        self.keys.store(Arc::new(Keys::new(shared.origin(), &present, old.as_deref())));
        Ok(())
    }

    /// What was shown last; none before the first checkpoint.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.published.load_full()
    }

    /// Since when it is known that the log is not the one that was signed before, in Unix seconds.
    pub fn failed_since(&self) -> Option<i64> {
        Some(self.failed.load(Ordering::Acquire)).filter(|since| *since != 0)
    }

    /// The newest that a witness cosigned.
    pub(crate) fn witnessed(&self) -> Option<Arc<Published>> {
        self.witnessed.load_full()
    }

    /// How each witness is doing.
    pub fn witnesses(&self) -> Vec<WitnessState> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when a witness is lost, in Unix seconds.
    pub fn witness_lost_since(&self) -> Option<i64> {
        Some(self.witness_lost.load(Ordering::Acquire)).filter(|since| *since != 0)
    }

    /// Compares the log with the mark, and takes the mark over as what was shown last.
    pub(crate) fn resume(&self, shared: &Shared) -> Result<(), NotaryError> {
        let known = known_keys(shared.origin(), &shared.secrets, &self.dir);
        let Some(text) = mark_text(&self.mark)? else { return Ok(()) };
        let published = open_mark(&self.mark, text, &known)?;
        let mut begins = false;
        shared.readers.read(&mut |read| {
            begins = begins_with(read, &published)?;
            Ok(())
        })?;
        if !begins {
            let since = shared.env.now_ms().div_euclid(1000).max(1);
            self.failed.store(since, Ordering::Release);
            shared.alerts.raised(shared.env.as_ref(), AlarmKind::LogChanged, since);
            return Err(NotaryError::NotThePrefix { size: published.size(), path: self.mark.clone() });
        }
        self.published.store(Some(Arc::new(published)));
        Ok(())
    }

    /// Takes an alarm over that stood at the last stop.
    fn recall(&self, shared: &Shared) -> Result<(), StoreError> {
        shared.readers.read(&mut |read| {
            let since = read.meta(STANDING)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
            self.witness_lost.store(since, Ordering::Release);
            Ok(())
        })
    }

    /// Signs the present log, if it grew: first into the mark, then for the witnesses, then for the world. Without
    /// growth it asks the witnesses for what is missing.
    fn sign(&self, shared: &Shared, witnesses: &mut Witnesses, recent: &mut Vec<SignedCheckpoint>) -> Result<(), NotaryError> {
        if self.failed_since().is_some() {
            return Ok(());
        }
        let shown = self.published();
        if recent.is_empty() {
            recent.extend(shown.as_deref().map(|shown| shown.checkpoint.clone()));
        }
        let grown = self.grown(shared, shown.as_deref())?;
        let new = grown.is_some();
        if let Some(grown) = grown {
            recent.push(grown);
            recent.drain(..recent.len().saturating_sub(RECENT_MAX));
        }
        let Some(newest) = recent.last().map(ToString::to_string) else { return Ok(()) };
        let keep = |text: &str| replace(&self.mark, text.as_bytes()).map_err(|error| NotaryError::Io { path: self.mark.clone(), error });
        if new {
            keep(&newest)?;
        }
        let configured = shared.policy.load();
        witnesses.configure(&configured.witnesses);
        let cosigned = witnesses.cosign(shared, recent, new);
        let published =
            |checkpoint: &SignedCheckpoint| Some(Arc::new(Published { checkpoint: checkpoint.clone(), text: checkpoint.to_string() }));
        if let Some(checkpoint) = recent.last().filter(|_| new || cosigned) {
            let text = checkpoint.to_string();
            if text != newest {
                keep(&text)?;
            }
            self.published.store(published(checkpoint));
        }
        let is_witnessed = |one: &&SignedCheckpoint| configured.witnesses.iter().any(|at| one.is_cosigned_by(&at.key));
        if cosigned {
            self.witnessed.store(recent.iter().rev().find(is_witnessed).and_then(published));
        }
        self.tell_of(shared, witnesses.states(shared.env.now_ms()));
        Ok(())
    }

    /// The present log under our signature, if it is larger than what was shown, or that is not signed with the present key.
    fn grown(&self, shared: &Shared, shown: Option<&Published>) -> Result<Option<SignedCheckpoint>, NotaryError> {
        let (keys, least) = (self.keys.load(), shown.map_or(0, Published::size));
        let is_signed = shown.is_none_or(|shown| shown.checkpoint.open(keys.present.verifier(), &[]).is_ok());
        if *shared.applied.borrow() <= least && is_signed {
            return Ok(None);
        }
        let mut present = None;
        shared.readers.read(&mut |read| {
            let coordinator = read.coordinator()?;
            let frontier = desist_proof::Frontier::from_bytes(&coordinator.frontier)
                .map_err(|error| StoreError::Damaged(format!("coordinator: {error}")))?;
            present = Some((frontier.size(), frontier.root()));
            Ok(())
        })?;
        let Some((size, root)) = present.filter(|(size, _)| *size > least || !is_signed && *size == least) else { return Ok(None) };
        let signed = Checkpoint::new(shared.origin(), size, root).and_then(|new| keys.sign(new));
        signed.map(Some).map_err(|error| NotaryError::Mark { path: self.mark.clone(), error })
    }

    /// Shows how the witnesses are doing, and raises or clears their alarm.
    fn tell_of(&self, shared: &Shared, states: Vec<WitnessState>) {
        // One that answers again is lost until it has done so for a while.
        let lost = states.iter().find(|state| state.lost).map(|state| (state.name.clone(), state.failing.clone()));
        *self.witnesses.lock().unwrap_or_else(PoisonError::into_inner) = states;
        let kind = AlarmKind::WitnessLost;
        let fact = match (lost, self.witness_lost_since()) {
            (Some((name, failing)), None) => {
                let (since_ms, why) = failing.unwrap_or_else(|| (shared.env.now_ms(), String::new()));
                tracing::error!(witness = name, why, "a witness is lost");
                let since = since_ms.div_euclid(1000).max(1);
                self.witness_lost.store(since, Ordering::Release);
                shared.alerts.raised(shared.env.as_ref(), kind, since);
                Fact::AlarmRaised { kind, destination: None }
            }
            (None, Some(_)) => {
                self.witness_lost.store(0, Ordering::Release);
                shared.alerts.cleared(shared.env.as_ref(), kind);
                Fact::AlarmCleared { kind, destination: None }
            }
            _ => return,
        };
        // A full queue or a stop: the alarm stands in status and metric all the same.
        let since = self.witness_lost_since().unwrap_or(0);
        drop(shared.enqueue(Lane::Interactive, move |ctx| {
            ctx.batch.emit(ctx.write, fact.clone())?;
            ctx.write.put_meta(STANDING, &since.to_be_bytes()).map(Ok)
        }));
    }

    /// Ends the thread after a last signature.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the notary's thread ended with a panic");
            }
        }
    }
}

fn signer(origin: &str, seed: &[u8; 32]) -> Signer {
    Signer::new(origin, Algorithm::Ed25519, seed).expect("the origin of a log is a key's name")
}

/// The public keys that can have signed a mark in this directory, the present one first: the mark of a moment ago can be
/// under a key that was given up since, and that of an older store under a later one.
pub fn known_keys(origin: &str, secrets: &Secrets, dir: &Path) -> Vec<Verifier> {
    let mut known = vec![signer(origin, &secrets.log).verifier().clone()];
    for key in all_log_keys(dir) {
        let verifier = signer(origin, &key).verifier().clone();
        if !known.contains(&verifier) {
            known.push(verifier);
        }
    }
    known
}

/// Public keys as texts, one a line.
pub fn key_lines<'a>(keys: impl IntoIterator<Item = &'a Verifier>) -> String {
    keys.into_iter().flat_map(|key| [key.to_string(), "\n".to_owned()]).collect()
}

/// Where the mark is.
pub fn mark(keys: &Path) -> PathBuf {
    keys.join(MARK)
}

/// The text of the mark; none before the first checkpoint. Read it before the log that it is compared with: a log that is
/// read first may be behind it.
pub fn mark_text(path: &Path) -> Result<Option<String>, NotaryError> {
    let io = |error| NotaryError::Io { path: path.to_owned(), error };
    match std::fs::metadata(path) {
        Ok(file) if file.len() > MARK_BYTES_MAX => Err(io(std::io::ErrorKind::FileTooLarge.into())),
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Reads the mark at `path`, which must be signed by the log.
pub fn open_mark(path: &Path, text: String, log: &[Verifier]) -> Result<Published, NotaryError> {
    let unusable = |error| NotaryError::Mark { path: path.to_owned(), error };
    let checkpoint = SignedCheckpoint::parse(&text).map_err(unusable)?;
    checkpoint.open(log, &[]).map_err(unusable)?;
    Ok(Published { checkpoint, text })
}

/// Whether the log begins with what was signed.
pub fn begins_with(read: &mut (impl Read + ?Sized), published: &Published) -> Result<bool, StoreError> {
    if read.coordinator()?.counters.entries < published.size() {
        return Ok(false);
    }
    let root = proof::root(published.size(), &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
    Ok(root == *published.checkpoint.unverified().root())
}

/// Starts signing: within a second of each commit.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let signing = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("notary".into()).spawn(move || {
        let (notary, mut witnesses, mut recent) = (&signing.notary, Witnesses::default(), Vec::new());
        if let Err(error) = notary.recall(&signing) {
            tracing::error!(%error, "whether a witness was lost is not known");
        }
        let mut last = false;
        while !last {
            // Once more after the stop, for what the writer still committed.
            last = notary.stopped.load(Ordering::Acquire);
            if let Err(error) = notary.sign(&signing, &mut witnesses, &mut recent) {
                tracing::error!(%error, "the log was not signed");
            }
            if !last {
                std::thread::park_timeout(PACE);
            }
        }
    })?;
    *shared.notary.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(spawned);
    Ok(())
}

/// Writes a file anew so that at every moment it is the old one or the new one, on disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let next = path.with_extension("next");
    let mut file = std::fs::File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The receipt of a request under the last checkpoint that witnesses cosigned, else under the last one that was shown; none
/// if neither covers it yet.
pub fn receipt(read: &mut dyn Read, shared: &Shared, request: &RequestRow) -> Outcome<Option<Receipt>> {
    let covering = [shared.notary.witnessed(), shared.notary.published()];
    let covering = covering.into_iter().flatten().find(|published| published.size() >= request.seq);
    let Some(published) = covering else { return Ok(Ok(None)) };
    Ok(receipt_under(read, shared, request, &published)?.map(Some))
}

/// The receipt of a request under a checkpoint that covers it.
pub(crate) fn receipt_under(read: &mut dyn Read, shared: &Shared, request: &RequestRow, published: &Published) -> Outcome<Receipt> {
    let Some((_, entry)) = read.entries(request.seq..request.seq + 1)?.pop() else { return Ok(Err(Refusal::NotFound)) };
    let decoded = Entry::decode(&entry).map_err(|_| StoreError::Damaged(format!("entry {}", request.seq)))?;
    // The second step of an opt-in commits to nothing of its own.
    let commits = matches!(decoded.fact, Fact::OptedOut { evidence: Some(_), .. } | Fact::OptInAsked { evidence: Some(_), .. });
    let entry = String::from_utf8(entry).map_err(|_| StoreError::Damaged(format!("entry {} is not text", request.seq)))?;
    let owner = Owner::Request(request.id);
    let opening = match read.vault_get(owner)?.filter(|_| commits) {
        // The evidence was erased, and without it the receipt would not verify.
        None if commits => return Ok(Err(Refusal::NotFound)),
        None => None,
        Some(sealed) => match shared.vault.open(owner, &sealed) {
            Ok(opening) => Some(opening.to_vec()),
            Err(error) => return Ok(Err(error.into())),
        },
    };
    let index = request.seq - 1;
    let inclusion = proof::inclusion(published.size(), index, &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
    Ok(Ok(Receipt { entry, opening, index, inclusion, checkpoint: published.text.clone() }))
}
