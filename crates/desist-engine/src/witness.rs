//! A witness of other businesses' logs: it cosigns each as it grows, and never two histories of one (C2SP tlog-witness).
//!
//! Its directory holds `witness.key`, one file per log in `logs/` with the checkpoint that it cosigned last, and in
//! `conflicts/` what a log signed that contradicts it, another root of the same size: proof of two histories. One of
//! another size is refused unless it is proved to be a continuation, but nothing follows from it alone.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use desist_proof::checkpoint::SignedCheckpoint;
use desist_proof::note::{Algorithm, KeyError, Signer, Verifier};
use desist_proof::witness::{AddCheckpoint, Refused, RequestError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::env::{Env, random};
use crate::notary::replace;
use crate::secrets::write_secret;

const KEY: &str = "witness.key";
const LOGS: &str = "logs";
const CONFLICTS: &str = "conflicts";
/// Most conflicts that are kept: one is enough to convict a log, and a log could send them without end.
pub const CONFLICTS_MAX: usize = 100;

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
    #[error("{path}: {error}; put the file back from its backup")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyError,
    },
    /// The memory is gone or damaged. Going on could cosign a second history.
    #[error(
        "{0} is missing or is not what this witness cosigned; put it back from its backup. If it is lost, retire this witness: move its directory away and start a new one, with a new key"
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
    /// Contradictions that the log signed.
    pub conflicts: usize,
}

/// A witness that runs.
pub struct Witness {
    signer: Signer,
    logs: Vec<Verifier>,
    dir: PathBuf,
    env: Arc<dyn Env>,
    cosigned: Mutex<HashMap<String, SignedCheckpoint>>,
    _lock: File,
}

impl Witness {
    /// Opens a witness's directory, or makes it with a new key under `name`.
    pub fn open(dir: &Path, name: Option<&str>, logs: Vec<Verifier>, env: Arc<dyn Env>) -> Result<Self, WitnessError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| WitnessError::Io { path, error }
        };
        let (key, memory) = (dir.join(KEY), dir.join(LOGS));
        let make = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path));
        let first = !key.exists();
        if first {
            let seed = Zeroizing::new(random::<32>(env.as_ref()));
            let signer = Signer::new(name.ok_or(WitnessError::NoName)?, Algorithm::Cosignature, &seed).map_err(WitnessError::Name)?;
            make(&memory)?;
            make(&dir.join(CONFLICTS))?;
            // The key last: with it the memory is part of the witness, and must be there at each start.
            write_secret(&key, format!("{}\n", *Zeroizing::new(signer.secret_text())).as_bytes()).map_err(io(&key))?;
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
        let origin = request.checkpoint.unverified().origin().to_owned();
        if let Err(refused) = request.check(&self.logs, cosigned.get(&origin).map(SignedCheckpoint::unverified)) {
            match refused {
                Refused::OtherRoot(_) => self.keep_conflict(&origin, body, &request),
                // Anybody can send a checkpoint that the log signed with a proof that is none: it says nothing of the log.
                Refused::Proof => tracing::warn!(origin, "a checkpoint came without a proof that the log grew to it"),
                _ => {}
            }
            return Err(refused.into());
        }
        let now = u64::try_from(self.env.now_ms().div_euclid(1000)).unwrap_or_default();
        let unsigned = |error| NotCosigned::Request(RequestError::Checkpoint(error));
        let line = self
            .signer
            .sign(&request.checkpoint.unverified().to_string(), now.max(1))
            .map_err(|error| unsigned(desist_proof::checkpoint::CheckpointError::Note(error)))?
            .to_string();
        request.checkpoint.add(&line, self.verifier()).map_err(unsigned)?;
        let path = self.dir.join(LOGS).join(file_name(&origin));
        replace(&path, request.checkpoint.to_string().as_bytes()).map_err(NotCosigned::NotKept)?;
        cosigned.insert(origin, request.checkpoint);
        Ok(line)
    }

    /// A log signed two roots of one size. That is worth keeping, whatever it does next.
    fn keep_conflict(&self, origin: &str, body: &str, request: &AddCheckpoint) {
        let dir = self.dir.join(CONFLICTS);
        let name = format!("{}-{}", file_name(origin), hex(&request.checkpoint.unverified().root()[..8]));
        let full = std::fs::read_dir(&dir).map_or(true, |files| files.count() >= CONFLICTS_MAX);
        if !full && let Err(error) = replace(&dir.join(name), body.as_bytes()) {
            tracing::error!(%error, "a conflict could not be kept");
        }
        tracing::error!(origin, "the log signed a second history; see desist witness status");
    }
}

/// What a witness in this directory knows, without running it.
pub fn watched(dir: &Path) -> Result<(Verifier, Vec<Watched>), WitnessError> {
    let key = dir.join(KEY);
    let text = Zeroizing::new(std::fs::read_to_string(&key).map_err(|error| WitnessError::Io { path: key.clone(), error })?);
    let signer: Signer = text.trim().parse().map_err(|error| WitnessError::Key { path: key, error })?;
    let memory = recall(&dir.join(LOGS), signer.verifier())?;
    let conflicts: Vec<_> = std::fs::read_dir(dir.join(CONFLICTS))
        .map_err(|error| WitnessError::Io { path: dir.join(CONFLICTS), error })?
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .collect();
    let mut watched: Vec<_> = memory
        .into_iter()
        .map(|(origin, checkpoint)| {
            let name = file_name(&origin);
            let conflicts = conflicts.iter().filter(|conflict| conflict.starts_with(&name)).count();
            Watched { origin, size: checkpoint.unverified().size(), conflicts }
        })
        .collect();
    watched.sort_by(|a, b| a.origin.cmp(&b.origin));
    Ok((signer.verifier().clone(), watched))
}

/// Reads what was cosigned, each file under the witness's own signature.
fn recall(memory: &Path, witness: &Verifier) -> Result<HashMap<String, SignedCheckpoint>, WitnessError> {
    let mut cosigned = HashMap::new();
    for file in std::fs::read_dir(memory).map_err(|_| WitnessError::Memory(memory.to_owned()))? {
        let path = file.map_err(|error| WitnessError::Io { path: memory.to_owned(), error })?.path();
        if path.extension().is_some() {
            // A write that was cut off before it took the place of the file.
            continue;
        }
        let lost = || WitnessError::Memory(path.clone());
        let text = std::fs::read_to_string(&path).map_err(|_| lost())?;
        let checkpoint = SignedCheckpoint::parse(&text).map_err(|_| lost())?;
        let origin = checkpoint.unverified().origin().to_owned();
        if !checkpoint.is_cosigned_by(witness) || path.file_name().is_none_or(|name| *name != *file_name(&origin)) {
            return Err(lost());
        }
        cosigned.insert(origin, checkpoint);
    }
    Ok(cosigned)
}

/// An origin may have any characters.
fn file_name(origin: &str) -> String {
    hex(&Sha256::digest(origin)[..16])
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all writes");
        text
    })
}
