//! The receipt: one file that shows, without asking anybody, that an entry is in the log
//! (`docs/receipt.md` is its description for other implementations).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{CheckpointError, Opened, SignedCheckpoint, decode_hash};
use crate::entry::{Entry, EntryError};
use crate::note::Verifier;
use crate::proof::{ProofError, verify_inclusion};
use crate::{Hash, leaf_hash};

/// Bytes of a receipt. A request to the API has at most 8 MiB, which is 11 MiB as evidence in base64;
/// with a note of 1 MiB, whose newlines are escaped, the next power of two holds it.
pub const RECEIPT_BYTES_MAX: usize = 16 << 20;
/// Hashes of an inclusion proof: one for each level of a tree of up to 2^64 leaves.
pub const INCLUSION_HASHES_MAX: usize = 64;
/// Bytes of the salt in front of the evidence.
pub const SALT_BYTES: usize = 32;

/// The member `format`.
const FORMAT: &str = "desist-receipt/v1";

/// A receipt as it was read. Nothing of it is checked but its form; [`verify`](Self::verify) does that.
/// `Debug` shows no evidence.
#[derive(Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The bytes of the entry.
    pub entry: String,
    /// Salt and evidence that the entry commits to, if it does.
    pub opening: Option<Vec<u8>>,
    /// Leaf of the entry.
    pub index: u64,
    /// The inclusion proof, from the leaf up.
    pub inclusion: Vec<Hash>,
    /// The signed checkpoint with its cosignatures.
    pub checkpoint: String,
}

/// The JSON of a receipt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    format: String,
    entry: String,
    // A null would be a second way of writing that there is none.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    opening: Option<String>,
    index: u64,
    inclusion: Vec<String>,
    checkpoint: String,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Receipt {
    /// Reads a receipt. Members come in any order, each once; there are no others.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(FormatError::TooLong);
        }
        // The reader below would take an array of the members' values too.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(FormatError::Json { line: 1, column: 1 });
        }
        let json: Json = serde_json::from_slice(bytes).map_err(|error| FormatError::Json { line: error.line(), column: error.column() })?;
        if json.format != FORMAT {
            return Err(FormatError::Version);
        }
        if json.inclusion.len() > INCLUSION_HASHES_MAX {
            return Err(FormatError::Member("inclusion"));
        }
        let opening = json.opening.map(|base64| STANDARD.decode(base64).map_err(|_| FormatError::Member("opening"))).transpose()?;
        let inclusion =
            json.inclusion.iter().map(|hash| decode_hash(hash).ok_or(FormatError::Member("inclusion"))).collect::<Result<_, _>>()?;
        Ok(Self { entry: json.entry, opening, index: json.index, inclusion, checkpoint: json.checkpoint })
    }

    /// The file: one line of JSON.
    pub fn to_json(&self) -> String {
        let json = Json {
            format: FORMAT.to_owned(),
            entry: self.entry.clone(),
            opening: self.opening.as_ref().map(|bytes| STANDARD.encode(bytes)),
            index: self.index,
            inclusion: self.inclusion.iter().map(|hash| STANDARD.encode(hash)).collect(),
            checkpoint: self.checkpoint.clone(),
        };
        let mut text = serde_json::to_string(&json).expect("texts and numbers are always JSON");
        text.push('\n');
        text
    }

    /// Follows the chain from the evidence to the signature. The error is the first link that is broken.
    pub fn verify(&self, logs: &(impl AsRef<[Verifier]> + ?Sized), witnesses: &[Verifier]) -> Result<Verified, ReceiptError> {
        let entry = Entry::parse(self.entry.as_bytes(), self.index).map_err(ReceiptError::Entry)?;
        let evidence = match (entry.evidence, &self.opening) {
            (None, None) => None,
            (None, Some(_)) => return Err(ReceiptError::Opening(OpeningError::NothingToOpen)),
            (Some(_), None) => return Err(ReceiptError::Opening(OpeningError::Missing)),
            (Some(commitment), Some(opening)) if commit(opening) == commitment => {
                let evidence = opening.get(SALT_BYTES..).ok_or(ReceiptError::Opening(OpeningError::TooShort))?;
                Some(evidence.to_vec())
            }
            (Some(_), Some(_)) => return Err(ReceiptError::Opening(OpeningError::Differs)),
        };
        let checkpoint = SignedCheckpoint::parse(&self.checkpoint).and_then(|signed| signed.open(logs, witnesses));
        let checkpoint = checkpoint.map_err(ReceiptError::Checkpoint)?;
        let (size, root) = (checkpoint.checkpoint().size(), checkpoint.checkpoint().root());
        verify_inclusion(&leaf_hash(self.entry.as_bytes()), self.index, size, &self.inclusion, root).map_err(ReceiptError::Inclusion)?;
        Ok(Verified { entry, evidence, checkpoint })
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The commitment of an entry to salt and evidence.
pub fn commit(opening: &[u8]) -> Hash {
    Sha256::new().chain_update(b"desist/evidence/v1\0").chain_update(opening).finalize().into()
}

/// Reads a receipt and follows its chain.
pub fn verify(receipt: &[u8], logs: &(impl AsRef<[Verifier]> + ?Sized), witnesses: &[Verifier]) -> Result<Verified, ReceiptError> {
    Receipt::parse(receipt).map_err(ReceiptError::Format)?.verify(logs, witnesses)
}

/// What a good receipt says. `Debug` shows no evidence.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    /// The entry: its place, time and type.
    pub entry: Entry,
    /// What the person sent, if the entry commits to it.
    pub evidence: Option<Vec<u8>>,
    /// The log's checkpoint that the entry is in.
    pub checkpoint: Opened,
}

impl Verified {
    /// Whose word it is that the log has no second history.
    pub fn trust(&self) -> Trust {
        match self.checkpoint.cosigned_by() {
            [] => Trust::SelfAttested,
            by => Trust::Witnessed { by: by.to_vec() },
        }
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("entry", &self.entry).field("checkpoint", &self.checkpoint).finish_non_exhaustive()
    }
}

/// Whose word it is that the log has no second history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// That of the log alone. It could show another log to others.
    SelfAttested,
    /// That of known witnesses too.
    Witnessed {
        /// Name of each, and the Unix time that it stated.
        by: Vec<(String, u64)>,
    },
}

/// The first broken link of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    /// The file.
    Format(FormatError),
    /// The entry within it.
    Entry(EntryError),
    /// What the entry commits to.
    Opening(OpeningError),
    /// The signed checkpoint.
    Checkpoint(CheckpointError),
    /// The way from the entry to the root that was signed.
    Inclusion(ProofError),
}

impl ReceiptError {
    /// Name of the link.
    pub fn link(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Entry(_) => "entry",
            Self::Opening(_) => "opening",
            Self::Checkpoint(_) => "checkpoint signature",
            Self::Inclusion(_) => "inclusion",
        }
    }
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.link())?;
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Entry(error) => error.fmt(f),
            Self::Opening(error) => error.fmt(f),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Inclusion(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReceiptError {}

/// Why bytes are not a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// More than [`RECEIPT_BYTES_MAX`].
    TooLong,
    /// Not a JSON object with exactly the members of a receipt.
    Json {
        /// Where reading ended, from 1.
        line: usize,
        /// Byte of that line.
        column: usize,
    },
    /// Not a JSON object with exactly the members of a file with deliveries.
    Deliveries,
    /// Another format, or another version of it.
    Version,
    /// A member is not canonical base64 of the right length, or has too many elements.
    Member(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the receipt is longer than {RECEIPT_BYTES_MAX} bytes"),
            Self::Json { line, column } => write!(
                f,
                "line {line}, byte {column}: a receipt is one JSON object with `format`, `entry`, `index`, `inclusion`, `checkpoint`, each once, and perhaps `opening`"
            ),
            Self::Deliveries => f.write_str(
                "a file with deliveries is one JSON object with `format`, `receipt`, `deliveries` and `unproven`, each once, of the described form",
            ),
            Self::Version => write!(f, "`format` is not \"{FORMAT}\"; a newer verifier may know it"),
            Self::Member(name) => write!(f, "`{name}` is not in canonical base64, or not of the right length"),
        }
    }
}

impl std::error::Error for FormatError {}

/// Why salt and evidence are not what an entry commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpeningError {
    /// The entry commits to nothing.
    NothingToOpen,
    /// The entry commits to evidence that is not in the receipt.
    Missing,
    /// Other salt or evidence.
    Differs,
    /// Less than a salt.
    TooShort,
}

impl fmt::Display for OpeningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingToOpen => "the receipt has an opening, and the entry commits to nothing",
            Self::Missing => "the entry commits to evidence, and the receipt has no opening",
            Self::Differs => "the evidence is not what the entry commits to",
            Self::TooShort => "the opening is shorter than its salt",
        })
    }
}

impl std::error::Error for OpeningError {}

/// Reads any bytes as a receipt: never panics, and what is written of it reads back the same.
#[doc(hidden)]
pub fn fuzz_receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(Receipt::parse(receipt.to_json().as_bytes()).as_ref(), Ok(&receipt));
        let _ = Entry::parse(receipt.entry.as_bytes(), receipt.index);
    }
}
