//! What a log and a witness say to each other (C2SP tlog-witness, section "add-checkpoint").

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Hash;
use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, decode_hash};
use crate::note::Verifier;
use crate::proof::verify_consistency;

/// Most hashes of a consistency proof in a request: a log of 2^63 entries needs no more.
pub const PROOF_LINES_MAX: usize = 63;
/// The media type of the size that a conflict is answered with.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// A log asks a witness to cosign a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the log when the witness last cosigned it; 0: never.
    pub old_size: u64,
    /// That the log grew from there.
    pub proof: Vec<Hash>,
    /// What is to be cosigned.
    pub checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// Reads the body of a request. Its [`Display`](fmt::Display) form is the same text again.
    pub fn parse(body: &str) -> Result<Self, RequestError> {
        let (head, checkpoint) = body.split_once("\n\n").ok_or(RequestError::NoCheckpoint)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(RequestError::OldSize)?;
        let old_size = old.parse().ok().filter(|size: &u64| size.to_string() == old).ok_or(RequestError::OldSize)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= PROOF_LINES_MAX {
                return Err(RequestError::ProofTooLong);
            }
            proof.push(decode_hash(line).ok_or(RequestError::Proof)?);
        }
        let checkpoint = SignedCheckpoint::parse(checkpoint).map_err(RequestError::Checkpoint)?;
        Ok(Self { old_size, proof, checkpoint })
    }

    /// Whether a witness that knows these keys, and cosigned `seen` last, may cosign this. The checks are
    /// made in the order of the source, so that the first one that fails is what the log is told.
    pub fn check(&self, logs: &[Verifier], seen: Option<&Checkpoint>) -> Result<(), Refused> {
        let asked = self.checkpoint.unverified();
        if logs.iter().all(|log| log.name() != asked.origin()) {
            return Err(Refused::UnknownOrigin);
        }
        if self.checkpoint.open(logs, &[]).is_err() {
            return Err(Refused::NotSigned);
        }
        if self.old_size > asked.size() {
            return Err(Refused::OldTooLarge);
        }
        let (size, root) = seen.map_or((0, crate::proof::empty_root()), |seen| (seen.size(), *seen.root()));
        if self.old_size != size {
            return Err(Refused::OtherSize(size));
        }
        if size == asked.size() && root != *asked.root() {
            return Err(Refused::OtherRoot(size));
        }
        verify_consistency(size, &root, asked.size(), asked.root(), &self.proof).map_err(|_| Refused::Proof)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a body is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The first line is not `old`, a space and a decimal number without leading zeros.
    OldSize,
    /// A line of the proof is not 32 bytes in base64.
    Proof,
    /// The proof has more lines than any log needs.
    ProofTooLong,
    /// There is no empty line with a checkpoint behind it.
    NoCheckpoint,
    /// The checkpoint.
    Checkpoint(CheckpointError),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OldSize => "the first line is not \"old \" and a size in decimal",
            Self::Proof => "a line of the proof is not a hash in canonical base64",
            Self::ProofTooLong => "the proof has more than 63 lines",
            Self::NoCheckpoint => "no checkpoint follows after an empty line",
            Self::Checkpoint(error) => return error.fmt(f),
        })
    }
}

impl std::error::Error for RequestError {}

/// Why a witness does not cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not watch this log.
    UnknownOrigin,
    /// No key that it knows of the log signed the checkpoint.
    NotSigned,
    /// The old size is beyond the checkpoint.
    OldTooLarge,
    /// It cosigned another size last: this one.
    OtherSize(u64),
    /// It cosigned another root of this size. The log has two histories.
    OtherRoot(u64),
    /// The log did not grow from what the witness cosigned, or the proof is wrong.
    Proof,
}

impl Refused {
    /// The HTTP status that says so.
    pub fn status(self) -> u16 {
        match self {
            Self::UnknownOrigin => 404,
            Self::NotSigned => 403,
            Self::OldTooLarge => 400,
            Self::OtherSize(_) | Self::OtherRoot(_) => 409,
            Self::Proof => 422,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownOrigin => "this witness does not watch the log",
            Self::NotSigned => "no key of the log that this witness knows signed the checkpoint",
            Self::OldTooLarge => "the old size is larger than the checkpoint",
            Self::OtherSize(size) => return write!(f, "this witness cosigned size {size} last"),
            Self::OtherRoot(size) => return write!(f, "this witness cosigned another root of size {size}"),
            Self::Proof => "the log did not grow from what this witness cosigned",
        })
    }
}

impl std::error::Error for Refused {}

/// Reads any bytes as a request: never panics, and what is read is what would have been written.
#[doc(hidden)]
pub fn fuzz_add_checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(request) = AddCheckpoint::parse(text) {
        assert_eq!(request.to_string(), text);
    }
}
