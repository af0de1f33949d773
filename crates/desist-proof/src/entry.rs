//! What a verifier reads of an entry (`docs/entry-format.md`, section "Members of every entry"). The rest
//! of the format is the core's; here it is enough that an entry says one thing to every reader.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::Hash;

/// Bytes of an entry: what the length of an entry has room for in a bundle (C2SP tlog-tiles, section
/// "Log entries": 16 bits). The longest that desist writes has about a tenth of it.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// The members of an entry that a verifier checks or prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place in the log, from 1; the leaf has the index `seq - 1`.
    pub seq: u64,
    /// When it was recorded: RFC 3339 in UTC to the second.
    pub at: String,
    /// The type of fact.
    pub kind: String,
    /// The commitment to evidence, if the entry has one.
    pub evidence: Option<Hash>,
}

impl Entry {
    /// Reads the entry that stands at a leaf.
    pub fn parse(bytes: &[u8], index: u64) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong);
        }
        let members = members(bytes).ok_or(EntryError::Json)?;
        if members.get("v").and_then(Value::as_u64) != Some(1) {
            return Err(EntryError::Version);
        }
        let text = |name| members.get(name).and_then(Value::as_str);
        let seq = members.get("seq").and_then(Value::as_u64).ok_or(EntryError::Member("seq"))?;
        if seq.checked_sub(1) != Some(index) {
            return Err(EntryError::Place);
        }
        Ok(Self {
            seq,
            at: text("at").filter(|at| is_time(at)).ok_or(EntryError::Member("at"))?.to_owned(),
            kind: text("type").filter(|kind| is_kind(kind)).ok_or(EntryError::Member("type"))?.to_owned(),
            evidence: match members.get("evidence") {
                None => None,
                Some(digest) => Some(digest.as_str().and_then(decode_digest).ok_or(EntryError::Member("evidence"))?),
            },
        })
    }
}

/// The form of a time, so that it can be printed. Whether there was such a day is not checked.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00Z";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(is, should)| if should == b'0' { is.is_ascii_digit() } else { is == should })
}

/// The form of a type's name, so that it can be printed.
fn is_kind(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// 32 bytes in base64url without padding.
pub(crate) fn decode_digest(text: &str) -> Option<Hash> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The members of a JSON object; none if it is no object, or has a member twice.
pub(crate) fn members(bytes: &[u8]) -> Option<serde_json::Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Unique(Value::Object(members))) => Some(members),
        _ => None,
    }
}

/// A JSON value in which no object has a member twice. Of two such members one reader takes the first
/// and another the last.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    // Entries have whole numbers alone, and readers differ about the others.
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number that is not whole"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = access.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let Unique(value) = access.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(members.into())
    }
}

/// Why bytes are not the entry of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// More than [`ENTRY_BYTES_MAX`].
    TooLong,
    /// Not a JSON object in UTF-8, or one with a member twice.
    Json,
    /// Another version of the format.
    Version,
    /// A member is missing or has another form.
    Member(&'static str),
    /// It says that it stands at another place.
    Place,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the entry is longer than {ENTRY_BYTES_MAX} bytes"),
            Self::Json => f.write_str("the entry is not a JSON object whose members each come once"),
            Self::Version => f.write_str("the entry is not of version 1; a newer verifier may know its version"),
            Self::Member(name) => write!(f, "the entry's member `{name}` is missing or has another form"),
            Self::Place => f.write_str("the entry's `seq` is not its place in the log"),
        }
    }
}

impl std::error::Error for EntryError {}
