//! Checkpoints: a log's size and root at one moment, signed by the log and by witnesses (C2SP
//! tlog-checkpoint and tlog-cosignature).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;
use crate::note::{Algorithm, Note, NoteError, Signature, Signer, Verifier};
use crate::proof::{ProofError, empty_root, verify_consistency};

/// What a log says of itself (C2SP tlog-checkpoint, section "Note text").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines, which the source does not recommend.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        Self::parse(&Self { origin: origin.to_owned(), size, root, extensions: Vec::new() }.to_string())
    }

    /// Reads the text of a checkpoint. Its [`Display`](fmt::Display) form is the same text again.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let note = Note::new(text).map_err(CheckpointError::Note)?;
        let mut lines = note.text().split_terminator('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Origin)?.to_owned();
        let size = lines.next().unwrap_or_default();
        let size = size.parse().ok().filter(|number: &u64| number.to_string() == size).ok_or(CheckpointError::Size)?;
        let root = decode_hash(lines.next().unwrap_or_default()).ok_or(CheckpointError::Root)?;
        // C2SP tlog-witness, section "add-checkpoint": an empty log has one root.
        if size == 0 && root != empty_root() {
            return Err(CheckpointError::Root);
        }
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Extension);
        }
        Ok(Self { origin, size, root, extensions })
    }

    /// Which log: also the name of its key.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree over them.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Lines after the root. They have no meaning here.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A hash in base64, which has one form.
pub(crate) fn decode_hash(base64: &str) -> Option<Hash> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

/// A note whose text is a checkpoint. Whether to believe it, [`open`](Self::open) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: Note,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Reads a signed checkpoint without trusting it.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let note = Note::parse(text).map_err(CheckpointError::Note)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { note, checkpoint })
    }

    /// A log signs its checkpoint.
    pub fn sign(checkpoint: Checkpoint, log: &Signer) -> Result<Self, CheckpointError> {
        check_log(log.verifier(), &checkpoint)?;
        let mut note = Note::new(&checkpoint.to_string()).map_err(CheckpointError::Note)?;
        // A log's signature states no time.
        log.sign(note.text(), 0).and_then(|signature| note.push(signature)).map_err(CheckpointError::Note)?;
        Ok(Self { note, checkpoint })
    }

    /// Adds the signature lines that a witness answered with. Only its cosignatures are taken, and
    /// only if they are good (C2SP tlog-witness, section "add-checkpoint"); one that the witness made
    /// before gives way.
    pub fn add(&mut self, lines: &str, witness: &Verifier) -> Result<(), CheckpointError> {
        let mut answer = Note::new(self.note.text()).map_err(CheckpointError::Note)?;
        let is_theirs = |signature: &Signature| signature.name() == witness.name() && signature.key_id() == witness.key_id();
        for signature in Signature::parse_lines(lines).map_err(CheckpointError::Note)?.into_iter().filter(is_theirs) {
            answer.push(signature).map_err(CheckpointError::Note)?;
        }
        check_witness(witness)?;
        answer.verify(&[witness]).map_err(CheckpointError::Note)?;
        let mut note = Note::new(self.note.text()).map_err(CheckpointError::Note)?;
        let others = self.note.signatures().iter().filter(|signature| !is_theirs(signature));
        for signature in others.chain(answer.signatures()) {
            note.push(signature.clone()).map_err(CheckpointError::Note)?;
        }
        self.note = note;
        Ok(())
    }

    /// A log signs with a second key of its own too, while its old key gives way to a new one.
    pub fn sign_also(&mut self, log: &Signer) -> Result<(), CheckpointError> {
        check_log(log.verifier(), &self.checkpoint)?;
        log.sign(self.note.text(), 0).and_then(|signature| self.note.push(signature)).map_err(CheckpointError::Note)
    }

    /// Checks the signature of the log and those of the witnesses that are known. No witness has to
    /// have signed: how many are enough is for the caller to say. A log that changed its key has several, and the
    /// signature of one is enough; the error is that of the first.
    pub fn open(&self, logs: &(impl AsRef<[Verifier]> + ?Sized), witnesses: &[Verifier]) -> Result<Opened, CheckpointError> {
        // The message of a cosignature has no name in it. One key under two names would make one witness look like two (C2SP
        // tlog-cosignature, section "Ed25519 signed message"), and the log under a second name would look like a witness.
        let keys: Vec<_> = logs.as_ref().iter().chain(witnesses).collect();
        let is_shared = |(place, key): (usize, &&Verifier)| keys[..place].iter().any(|other| other.public_key() == key.public_key());
        if keys.iter().enumerate().any(is_shared) {
            return Err(CheckpointError::SharedKey);
        }
        let mut first = None;
        for log in logs.as_ref() {
            match self.open_with(log, witnesses) {
                Ok(opened) => return Ok(opened),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(CheckpointError::Note(NoteError::NoKnownKey)))
    }

    fn open_with(&self, log: &Verifier, witnesses: &[Verifier]) -> Result<Opened, CheckpointError> {
        check_log(log, &self.checkpoint)?;
        let mut known = vec![log];
        for witness in witnesses {
            check_witness(witness)?;
            known.push(witness);
        }
        let verified = self.note.verify(&known).map_err(CheckpointError::Note)?;
        if !verified.iter().any(|one| one.by == log) {
            return Err(CheckpointError::Note(NoteError::NoKnownKey));
        }
        let cosigned_by = verified.iter().filter_map(|one| Some((one.by.name().to_owned(), one.time_s?))).collect();
        Ok(Opened { checkpoint: self.checkpoint.clone(), cosigned_by })
    }

    /// Whether a witness cosigned this, whoever else signed.
    pub fn is_cosigned_by(&self, witness: &Verifier) -> bool {
        check_witness(witness).is_ok() && self.note.verify(&[witness]).is_ok()
    }

    /// What the checkpoint says. Nothing to believe before [`open`](Self::open), but for the log itself.
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A log signs with a plain key whose name is its origin (C2SP tlog-checkpoint, section "Signatures"),
/// so that no signature of one log is good for another.
fn check_log(log: &Verifier, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    match log.algorithm() {
        Algorithm::Cosignature => Err(CheckpointError::LogKeyType),
        Algorithm::Ed25519 if log.name() != checkpoint.origin => Err(CheckpointError::OtherLog),
        Algorithm::Ed25519 => Ok(()),
    }
}

fn check_witness(witness: &Verifier) -> Result<(), CheckpointError> {
    match witness.algorithm() {
        Algorithm::Cosignature => Ok(()),
        Algorithm::Ed25519 => Err(CheckpointError::WitnessKeyType),
    }
}

/// A checkpoint whose signatures were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    checkpoint: Checkpoint,
    cosigned_by: Vec<(String, u64)>,
}

impl Opened {
    /// What the log signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The known witnesses that cosigned: name, and the Unix time that each stated.
    pub fn cosigned_by(&self) -> &[(String, u64)] {
        &self.cosigned_by
    }
}

/// Reads a signed checkpoint and checks its signatures.
pub fn open(text: &str, logs: &(impl AsRef<[Verifier]> + ?Sized), witnesses: &[Verifier]) -> Result<Opened, CheckpointError> {
    SignedCheckpoint::parse(text)?.open(logs, witnesses)
}

/// Checks that the log of the older checkpoint is the beginning of that of the newer one. If both are
/// good and this is not, the log signed two histories, and the two texts prove it.
pub fn verify_pair(older: &Opened, newer: &Opened, proof: &[Hash]) -> Result<(), CheckpointError> {
    let (older, newer) = (&older.checkpoint, &newer.checkpoint);
    if older.origin != newer.origin {
        return Err(CheckpointError::OtherLog);
    }
    verify_consistency(older.size, &older.root, newer.size, &newer.root, proof).map_err(CheckpointError::Consistency)
}

/// Why a checkpoint cannot be read or trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// The note around it, or its signatures.
    Note(NoteError),
    /// The first line is missing or empty.
    Origin,
    /// The second line is not a decimal number below 2^64 without leading zeros.
    Size,
    /// The third line is not 32 bytes in base64, or another root than the empty log's.
    Root,
    /// An extension line is empty.
    Extension,
    /// The checkpoint is of another log than the key, or than the other checkpoint.
    OtherLog,
    /// The log's key is of the type of a witness.
    LogKeyType,
    /// A witness's key is not of the type of a witness.
    WitnessKeyType,
    /// Two of the keys given are one key under two names.
    SharedKey,
    /// The newer log does not begin with the older one.
    Consistency(ProofError),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note(error) => return error.fmt(f),
            Self::Consistency(error) => return error.fmt(f),
            Self::Origin => "the checkpoint's first line, the origin, is empty",
            Self::Size => "the checkpoint's second line is not a size in decimal",
            Self::Root => "the checkpoint's third line is not the root of a tree of this size in canonical base64",
            Self::Extension => "an extension line of the checkpoint is empty",
            Self::OtherLog => "the checkpoint is of another log: its origin is not the name of the key, or of the other checkpoint",
            Self::LogKeyType => "the log's key is a witness's key (type 0x04); give the one that the log publishes (type 0x01)",
            Self::WitnessKeyType => "a witness's key is not of type 0x04 (timestamped cosignature); ask the witness for that one",
            Self::SharedKey => "the same key is given under two names; a log cannot be its own witness, nor a witness two",
        })
    }
}

impl std::error::Error for CheckpointError {}

/// Reads any bytes as a checkpoint, signed or not: never panics, and what is read is what would have
/// been written.
#[doc(hidden)]
pub fn fuzz_checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(signed) = SignedCheckpoint::parse(text) {
        assert_eq!(signed.to_string(), text);
    }
}
