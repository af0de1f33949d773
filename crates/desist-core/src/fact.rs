//! Facts and entries: the lines of the log.
//!
//! A fact holds ids, enums, numbers and digests. By type it cannot hold personal data, free text or
//! a lookup key. Entries are compact JSON in the order of the members below; the stored bytes are
//! the hashed bytes. `docs/entry-format.md` describes every member and `golden/entries.ndjson`
//! keeps one of every kind ever released.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identifier::Kind;
use crate::mark::{IdentifierNo, SubjectNo};
use crate::purpose::{Model, PurposeSet};

/// The version of the entry format that this build writes.
pub const ENTRY_VERSION: u32 = 1;

/// 32 bytes as base64url without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// 128 random bits that name a request, as base64url without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

macro_rules! base64url {
    ($name:ident, $len:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }
        impl std::str::FromStr for $name {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url without padding")?;
                Ok(Self(bytes.try_into().map_err(|_| concat!("not ", $len, " bytes"))?))
            }
        }
    };
}
base64url!(Digest, "32");
base64url!(RequestId, "16");

/// Where an act came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The form of the privacy choices page.
    Form,
    /// A switch in an account or app.
    Toggle,
    /// A Global Privacy Control signal.
    Gpc,
    /// An authorized agent.
    Agent,
    /// California's delete request and opt-out platform.
    Drop,
    /// A call.
    Phone,
    /// A letter.
    Mail,
    /// Said in a shop or office.
    InPerson,
    /// The business's software.
    Api,
    /// A file of the business.
    Import,
    /// A person working for the business.
    Operator,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 11] = [
        Self::Form,
        Self::Toggle,
        Self::Gpc,
        Self::Agent,
        Self::Drop,
        Self::Phone,
        Self::Mail,
        Self::InPerson,
        Self::Api,
        Self::Import,
        Self::Operator,
    ];
    /// Whether the consumer speaks here, rather than the business.
    pub fn is_consumers(self) -> bool {
        !matches!(self, Self::Api | Self::Import | Self::Operator)
    }
}

/// What a caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Stop selling, sharing and targeting.
    OptOut,
    /// Limit the use of sensitive information.
    Limit,
    /// Allow again.
    OptIn,
}

/// Who caused an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The command line or the control socket on the machine itself.
    Local,
    /// A consumer on a public page.
    Consumer,
    /// An API key, by number.
    Key(u32),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Consumer => f.write_str("consumer"),
            Self::Key(no) => write!(f, "key:{no}"),
        }
    }
}

impl std::str::FromStr for Actor {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Self::Local),
            "consumer" => Ok(Self::Consumer),
            _ => text.strip_prefix("key:").and_then(|no| no.parse().ok()).map(Self::Key).ok_or("not an actor"),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, keys included.
    Admin,
    /// Requests, profiles, links and decisions.
    Writer,
    /// Decisions, and reading requests and profiles.
    Reader,
    /// Reading requests and states, no personal data.
    Auditor,
}

/// Why a wish to allow again changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The member came along with others, as in a nightly sync of whole records.
    WholeRecord,
    /// Something else than this profile's own API opt-out denies: only the consumer can end it.
    NotOwn,
    /// The policy is `api_opt_in = "refuse"`.
    Policy,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// The store could not make a batch durable; intake answered 503.
    NotDurable,
    /// The log does not begin with what was signed earlier; nothing is signed any more.
    LogChanged,
    /// A witness of the log does not answer or refuses to cosign it.
    WitnessLost,
    /// Half of the time until the deadline of somebody whom a destination was not told of is over.
    Deadline50,
    /// Three quarters are.
    Deadline75,
    /// Nine tenths are.
    Deadline90,
    /// A deadline is over, and a destination was not told.
    Late,
    /// A destination holds another state than it was told.
    Drift,
    /// A destination refused messages, and they are not tried again by themselves.
    DeadLetter,
    /// An operator stopped a destination more than an hour ago.
    Paused,
    /// A destination refused so many that nothing more is sent to it.
    Stopped,
}

impl AlarmKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::NotDurable,
        Self::LogChanged,
        Self::WitnessLost,
        Self::Deadline50,
        Self::Deadline75,
        Self::Deadline90,
        Self::Late,
        Self::Drift,
        Self::DeadLetter,
        Self::Paused,
        Self::Stopped,
    ];

    /// Whether it is about one destination.
    pub const fn is_of_destination(self) -> bool {
        !matches!(self, Self::NotDurable | Self::LogChanged | Self::WitnessLost)
    }
}

impl From<crate::lane::Alarm> for AlarmKind {
    fn from(alarm: crate::lane::Alarm) -> Self {
        use crate::lane::Alarm;
        match alarm {
            Alarm::Deadline50 => Self::Deadline50,
            Alarm::Deadline75 => Self::Deadline75,
            Alarm::Deadline90 => Self::Deadline90,
            Alarm::Late => Self::Late,
            Alarm::Drift => Self::Drift,
            Alarm::DeadLetter => Self::DeadLetter,
            Alarm::Paused => Self::Paused,
            Alarm::Stopped => Self::Stopped,
        }
    }
}

/// An identifier as entries refer to it: `[row number, kind]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRef(pub IdentifierNo, pub Kind);

/// What one destination was told between two [`Fact::Acknowledged`]: `[destination, from, to, delivered, parked]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u64, u64, u64)", into = "(u32, u64, u64, u64, u64)")]
pub struct Acknowledgement {
    /// Which.
    pub destination: u32,
    /// The lowest entry whose state it was told; 0: nothing was delivered.
    pub from: u64,
    /// The highest.
    pub to: u64,
    /// How many records of it there are.
    pub delivered: u64,
    /// How many targets are parked, dead letters included.
    pub parked: u64,
}

impl From<(u32, u64, u64, u64, u64)> for Acknowledgement {
    fn from((destination, from, to, delivered, parked): (u32, u64, u64, u64, u64)) -> Self {
        Self { destination, from, to, delivered, parked }
    }
}

impl From<Acknowledgement> for (u32, u64, u64, u64, u64) {
    fn from(of: Acknowledgement) -> Self {
        (of.destination, of.from, of.to, of.delivered, of.parked)
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Fact {
    /// The log began. `origin` is the digest of its name.
    LogOpened {
        /// SHA-256 of the log's origin.
        origin: Digest,
    },
    /// A business's own purpose got its bit.
    PurposeDeclared {
        /// The bit, never reused.
        bit: u32,
        /// SHA-256 of the purpose's name.
        name: Digest,
        /// What holds without an act.
        model: Model,
    },
    /// An API key exists from now on.
    KeyCreated {
        /// Its number.
        key: u32,
        /// What it may do.
        role: Role,
        /// Who made it.
        by: Actor,
    },
    /// An API key ended.
    KeyRevoked {
        /// Its number.
        key: u32,
        /// Who ended it.
        by: Actor,
    },
    /// A Campaign profile exists from now on.
    ProfileCreated {
        /// The subject it is.
        subject: SubjectNo,
        /// Who made it.
        by: Actor,
    },
    /// A Campaign profile's data was erased; what it denied stays on its identifiers.
    ProfileDeleted {
        /// The subject it was.
        subject: SubjectNo,
        /// Who deleted it.
        by: Actor,
    },
    /// The subject holds these identifiers from now on.
    Linked {
        /// The holder.
        subject: SubjectNo,
        /// What it holds.
        identifiers: Vec<IdRef>,
        /// Who said so.
        by: Actor,
    },
    /// The subject no longer holds these identifiers.
    Unlinked {
        /// The former holder.
        subject: SubjectNo,
        /// What it held.
        identifiers: Vec<IdRef>,
        /// Who said so.
        by: Actor,
    },
    /// A consumer or the business opted out, or limited.
    OptedOut {
        /// The request.
        request: RequestId,
        /// What was asked.
        kind: RequestKind,
        /// The subject that was named, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<SubjectNo>,
        /// The identifiers that were named.
        identifiers: Vec<IdRef>,
        /// What is denied now.
        #[serde(with = "bits")]
        purposes: PurposeSet,
        /// Where it came in.
        channel: Channel,
        /// When the consumer acted, if the caller said so; else the entry's own time counts.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "seconds_option")]
        acted_at: Option<i64>,
        /// Who entered it.
        by: Actor,
        /// Commitment to the evidence in the vault, if there is any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Digest>,
    },
    /// Step one of an opt-in: it waits for its confirmation and changes nothing.
    OptInAsked {
        /// The request.
        request: RequestId,
        /// For what.
        #[serde(with = "bits")]
        purposes: PurposeSet,
        /// Where it came in.
        channel: Channel,
        /// Who entered it, and vouches for the consumer.
        by: Actor,
        /// Commitment to the evidence in the vault, if there is any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<Digest>,
    },
    /// Step two: the consumer confirmed.
    OptedIn {
        /// The request.
        request: RequestId,
        /// The subject whose line it answers, if it named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<SubjectNo>,
        /// The identifiers whose lines it answers.
        identifiers: Vec<IdRef>,
        /// What is allowed now.
        #[serde(with = "bits")]
        purposes: PurposeSet,
        /// Where it came in.
        channel: Channel,
        /// Who entered it, and vouches for the consumer's two steps.
        by: Actor,
    },
    /// An API client ended the opt-out that it had made itself on this profile.
    ApiOptOutEnded {
        /// The profile.
        subject: SubjectNo,
        /// Identifiers that this profile alone holds, where its word ends too.
        identifiers: Vec<IdRef>,
        /// What its word no longer denies.
        #[serde(with = "bits")]
        purposes: PurposeSet,
        /// Which key.
        by: Actor,
    },
    /// An API client wished to allow again, and nothing changed.
    OptInRefused {
        /// The profile.
        subject: SubjectNo,
        /// What it wished to allow.
        #[serde(with = "bits")]
        purposes: PurposeSet,
        /// Why not.
        reason: Refusal,
        /// Which key.
        by: Actor,
    },
    /// Signals that were honoured without a row, counted for one day.
    SignalsHonoured {
        /// Days since 1970-01-01 in UTC.
        day: i64,
        /// How many decisions.
        count: u64,
    },
    /// A file of suppressed people was read to its end.
    ImportFinished {
        /// SHA-256 of the file and how it was read; the same file again is the same import.
        import: Digest,
        /// Rows that were read.
        rows: u64,
        /// Rows that became opt-outs.
        accepted: u64,
        /// Rows that were refused and written to the errors file.
        refused: u64,
        /// Who ran it.
        by: Actor,
    },
    /// The log is signed with a new key from here on.
    KeyRotated {
        /// SHA-256 of the text of the verifier key before.
        old: Digest,
        /// SHA-256 of the text of the new one.
        new: Digest,
        /// Who did it.
        by: Actor,
    },
    /// A destination got its number.
    DestinationDeclared {
        /// The number, from 1, never given again.
        destination: u32,
        /// SHA-256 of the destination's id in the configuration.
        id: Digest,
    },
    /// A new destination, or one whose rules changed, was told of everybody who had a choice when its scan ended.
    CaughtUp {
        /// Which.
        destination: u32,
        /// The change up to which the scan went.
        upto: u64,
    },
    /// An operator stopped a destination.
    DestinationPaused {
        /// Which.
        destination: u32,
        /// Who.
        by: Actor,
    },
    /// An operator let it go on.
    DestinationResumed {
        /// Which.
        destination: u32,
        /// Who.
        by: Actor,
    },
    /// An operator had dead letters tried again.
    DeadLettersReplayed {
        /// Which destination's.
        destination: u32,
        /// How many.
        count: u64,
        /// Who.
        by: Actor,
    },
    /// Somebody told a destination by hand, and says so.
    ToldByHand {
        /// Which.
        destination: u32,
        /// Of everything up to this entry.
        through: u64,
        /// Commitment to the name and the evidence that were given, in the vault.
        evidence: Digest,
        /// Who recorded it.
        by: Actor,
    },
    /// Destinations took what they were told, within about a minute.
    Acknowledged {
        /// Each with something delivered, or with another number of parked targets than before.
        ranges: Vec<Acknowledgement>,
        /// How many records there are in all.
        records: u64,
        /// The root of the Merkle tree over the records, which are kept beside the log.
        evidence: Digest,
    },
    /// Something needs a person.
    AlarmRaised {
        /// What.
        kind: AlarmKind,
        /// The number of the destination that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<u32>,
    },
    /// Its cause is gone.
    AlarmCleared {
        /// What.
        kind: AlarmKind,
        /// The number of the destination that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<u32>,
    },
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the format.
    pub v: u32,
    /// Place in the log, from 1; the leaf index is one less.
    pub seq: u64,
    /// When it was recorded, in Unix seconds; RFC 3339 in UTC on the wire.
    #[serde(with = "seconds")]
    pub at: i64,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not the JSON of an entry.
    #[error("not an entry: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that this build does not know.
    #[error("entry version {0} is not known to this build, which knows {ENTRY_VERSION}")]
    Version(u32),
    /// Something else than what this build would have written, such as an unknown member.
    #[error("not the canonical bytes of the entry")]
    NotCanonical,
}

impl Entry {
    /// The bytes that are stored and hashed.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("entries have string keys and no failing members")
    }

    /// Reads bytes that [`Entry::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        // The version first: a later one may have facts that this build cannot read.
        if let Ok(Version { v }) = serde_json::from_slice(bytes)
            && v != ENTRY_VERSION
        {
            return Err(EntryError::Version(v));
        }
        let entry: Self = serde_json::from_slice(bytes)?;
        if entry.encode() != bytes {
            return Err(EntryError::NotCanonical);
        }
        Ok(entry)
    }
}

/// Reads any bytes as an entry: never panics, and what is read is what would have been written.
#[doc(hidden)]
pub fn fuzz_entries(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(entry.encode(), data);
    }
}

/// Purposes as a list of bit numbers, exact in every JSON reader.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::purpose::PurposeSet;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(set: &PurposeSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(set.iter().map(|one| one.0.trailing_zeros()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PurposeSet, D::Error> {
        Vec::<u32>::deserialize(deserializer)?.into_iter().try_fold(PurposeSet::EMPTY, |set, bit| {
            let one = 1_u64.checked_shl(bit).ok_or_else(|| serde::de::Error::custom("a purpose is a bit from 0 to 63"))?;
            Ok(set.union(PurposeSet(one)))
        })
    }
}

/// Unix seconds as RFC 3339 in UTC.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(at: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_second(*at).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(time.as_second())
    }
}

/// The same, for a member that may be absent.
mod seconds_option {
    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        super::seconds::serialize(&at.expect("absent members are skipped"), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        super::seconds::deserialize(deserializer).map(Some)
    }
}
