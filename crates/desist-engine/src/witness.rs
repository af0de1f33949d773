//! A witness of other businesses' logs: it cosigns each as it grows, and never two histories of one (C2SP tlog-witness).
//!
//! Its directory holds `witness.key`; `cosigned.json`, its memory: the checkpoint of each log that it cosigned last; and in
//! `conflicts/` what convicts a log: two roots of one size, both under its key. A checkpoint of another size is refused
//! unless it is proved to be a continuation, but nothing follows from it alone.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use desist_proof::checkpoint::{CheckpointError, SignedCheckpoint};
use desist_proof::note::{Algorithm, KeyError, Signer, Verifier};
use desist_proof::witness::{AddCheckpoint, Refused, RequestError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::env::{Env, random};
use crate::notary::replace;
use crate::secrets::write_secret;

const KEY: &str = "witness.key";
const MEMORY: &str = "cosigned.json";
const CONFLICTS: &str = "conflicts";
/// Largest memory that is read: ten thousand logs.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Why a witness does not start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// Another process is this witness.
    #[error("{0} is in use by another process; a witness has one memory, so only one may run")]
    InUse(PathBuf),
    /// A first start needs a name.
    #[error(
        "a new witness needs a name, which is in every signature: give --name, such as \"witness.example/w1\", with a domain of your own"
    )]
    NoName,
    /// It has another name already.
    #[error("this witness is {stored:?}, not {given:?}; leave --name out, or give --data another directory")]
    OtherName {
        /// Its name.
        stored: String,
        /// What was asked for.
        given: String,
    },
    /// The name cannot be a key's.
    #[error("--name: {0}")]
    Name(KeyError),
    /// The key file is not one.
    #[error("{path}: {error}; if the key is lost, retire this witness: move its directory away and start a new one")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyError,
    },
    /// The memory is gone or damaged. Going on could cosign a second history.
    #[error(
        "{0} is missing or is not what this witness cosigned. An older copy would let it cosign a second history: retire this witness, move its directory away and start a new one, with a new key"
    )]
    Memory(PathBuf),
}

/// What a witness answers to a request that it does not cosign.
#[derive(Debug, thiserror::Error)]
pub enum NotCosigned {
    /// It is not a request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What was cosigned could not be kept, so nothing was.
    #[error("the witness cannot keep what it cosigns")]
    NotKept(std::io::Error),
}

/// One log as a witness knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Name of the log.
    pub origin: String,
    /// Entries that were cosigned last.
    pub size: u64,
    /// Whether the log signed two roots of one size.
    pub convicted: bool,
}

/// A witness that runs.
pub struct Witness {
    signer: Signer,
    logs: Vec<Verifier>,
    dir: PathBuf,
    env: Arc<dyn Env>,
    cosigned: Mutex<BTreeMap<String, SignedCheckpoint>>,
    _lock: File,
}

impl Witness {
    /// Opens a witness's directory, or makes it with a new key under `name`.
    pub fn open(dir: &Path, name: Option<&str>, logs: Vec<Verifier>, env: Arc<dyn Env>) -> Result<Self, WitnessError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| WitnessError::Io { path, error }
        };
        let (key, memory) = (dir.join(KEY), dir.join(MEMORY));
        let make = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path));
        if !key.exists() {
            let seed = Zeroizing::new(random::<32>(env.as_ref()));
            let signer = Signer::new(name.ok_or(WitnessError::NoName)?, Algorithm::Cosignature, &seed).map_err(WitnessError::Name)?;
            make(dir)?;
            make(&dir.join(CONFLICTS))?;
            replace(&memory, b"{}\n").map_err(io(&memory))?;
            // The key last and whole: with it the memory is part of the witness, and must be there at each start.
            let next = dir.join("witness.key.next");
            let _ = std::fs::remove_file(&next);
            let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(signer.secret_text())));
            write_secret(&next, text.as_bytes()).and_then(|()| std::fs::rename(&next, &key)).map_err(io(&key))?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        }
        let lock = File::create(dir.join("lock")).map_err(io(dir))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WitnessError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io(dir)(error)),
        }
        let text = Zeroizing::new(std::fs::read_to_string(&key).map_err(io(&key))?);
        let signer: Signer = text.trim().parse().map_err(|error| WitnessError::Key { path: key, error })?;
        if let Some(given) = name.filter(|name| *name != signer.verifier().name()) {
            return Err(WitnessError::OtherName { stored: signer.verifier().name().to_owned(), given: given.to_owned() });
        }
        let cosigned = Mutex::new(recall(&memory, signer.verifier())?);
        Ok(Self { signer, logs, dir: dir.to_owned(), env, cosigned, _lock: lock })
    }

    /// The key that logs configure.
    pub fn verifier(&self) -> &Verifier {
        self.signer.verifier()
    }

    /// Cosigns a checkpoint if the log grew from what was cosigned before: the signature line. What is cosigned is on
    /// disk before it is answered.
    pub fn add(&self, body: &str) -> Result<String, NotCosigned> {
        let mut request = AddCheckpoint::parse(body)?;
        // Held until the end: check and memory are one step, or an older checkpoint could follow a newer one.
        let mut cosigned = self.cosigned.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = request.checkpoint.unverified().clone();
        let seen = cosigned.get(asked.origin());
        if let Err(refused) = request.check(&self.logs, seen.map(SignedCheckpoint::unverified)) {
            match (refused, seen) {
                (Refused::OtherRoot(_), Some(seen)) => self.convict(asked.origin(), seen, &request.checkpoint),
                // Anybody can send a checkpoint that the log signed with a proof that is none: it says nothing of the log.
                (Refused::Proof, _) => {
                    tracing::debug!(origin = asked.origin(), "a checkpoint came without a proof that the log grew to it");
                }
                _ => {}
            }
            return Err(refused.into());
        }
        let now = u64::try_from(self.env.now_ms().div_euclid(1000)).unwrap_or_default();
        let unsigned = |error| NotCosigned::Request(RequestError::Checkpoint(error));
        let line = self.signer.sign(&asked.to_string(), now.max(1)).map_err(|error| unsigned(CheckpointError::Note(error)))?.to_string();
        // Seen before: there is nothing new to remember, and anybody can ask for it again and again.
        if seen.is_some_and(|seen| *seen.unverified() == asked) {
            return Ok(line);
        }
        request.checkpoint.add(&line, self.verifier()).map_err(unsigned)?;
        let before = cosigned.insert(asked.origin().to_owned(), request.checkpoint);
        let texts: BTreeMap<_, _> = cosigned.iter().map(|(origin, checkpoint)| (origin, checkpoint.to_string())).collect();
        let text = serde_json::to_string(&texts).expect("texts are always JSON");
        if let Err(error) = replace(&self.dir.join(MEMORY), text.as_bytes()) {
            match before {
                Some(before) => cosigned.insert(asked.origin().to_owned(), before),
                None => cosigned.remove(asked.origin()),
            };
            return Err(NotCosigned::NotKept(error));
        }
        Ok(line)
    }

    /// A log signed two roots of one size. Both are kept, whatever it does next; one such pair is enough.
    fn convict(&self, origin: &str, seen: &SignedCheckpoint, second: &SignedCheckpoint) {
        let [cosigned, contradiction] = conflict_files(&self.dir, origin);
        if contradiction.exists() {
            return;
        }
        tracing::error!(origin, "the log signed a second history; see desist witness status");
        let kept = replace(&cosigned, seen.to_string().as_bytes()).and_then(|()| replace(&contradiction, second.to_string().as_bytes()));
        if let Err(error) = kept {
            tracing::error!(%error, "what the log signed could not be kept");
        }
    }
}

/// Where the two checkpoints of one size of a log are kept, the one that was cosigned first.
fn conflict_files(dir: &Path, origin: &str) -> [PathBuf; 2] {
    // An origin may have any characters.
    let hash = Sha256::digest(origin)[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    ["cosigned", "second"].map(|which| dir.join(CONFLICTS).join(format!("{hash:016x}-{which}")))
}

/// What a witness in this directory knows, without running it.
pub fn watched(dir: &Path) -> Result<(Verifier, Vec<Watched>), WitnessError> {
    let key = dir.join(KEY);
    let text = Zeroizing::new(std::fs::read_to_string(&key).map_err(|error| WitnessError::Io { path: key.clone(), error })?);
    let signer: Signer = text.trim().parse().map_err(|error| WitnessError::Key { path: key, error })?;
    let memory = recall(&dir.join(MEMORY), signer.verifier())?;
    let watched = memory.into_iter().map(|(origin, checkpoint)| Watched {
        convicted: conflict_files(dir, &origin)[1].exists(),
        size: checkpoint.unverified().size(),
        origin,
    });
    Ok((signer.verifier().clone(), watched.collect()))
}

/// Reads what was cosigned, each checkpoint under the witness's own signature.
fn recall(memory: &Path, witness: &Verifier) -> Result<BTreeMap<String, SignedCheckpoint>, WitnessError> {
    let lost = || WitnessError::Memory(memory.to_owned());
    if std::fs::metadata(memory).map_err(|_| lost())?.len() > MEMORY_BYTES_MAX {
        return Err(lost());
    }
    let text = std::fs::read_to_string(memory).map_err(|_| lost())?;
    let texts: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| lost())?;
    let read = |(origin, text): (String, String)| {
        let checkpoint = SignedCheckpoint::parse(&text).ok()?;
        let is_ours = checkpoint.is_cosigned_by(witness) && checkpoint.unverified().origin() == origin;
        is_ours.then_some((origin, checkpoint))
    };
    texts.into_iter().map(read).collect::<Option<_>>().ok_or_else(lost)
}
