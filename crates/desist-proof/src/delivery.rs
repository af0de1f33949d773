//! Evidence of deliveries: what a destination was told, when, and how it answered, under a root that the log signs
//! (`docs/receipt.md`, section "Deliveries", is the description for other implementations).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::checkpoint::decode_hash;
use crate::entry::{Entry, EntryError, decode_digest, members};
use crate::note::Verifier;
use crate::proof::{ProofError, verify_inclusion};
use crate::receipt::{FormatError, INCLUSION_HASHES_MAX, RECEIPT_BYTES_MAX, Receipt, ReceiptError, Verified};
use crate::{Frontier, Hash, leaf_hash, node_hash};

/// Bytes of a record.
pub const RECORD_BYTES: usize = 47;
/// The member `format` of a file with deliveries.
pub const FORMAT: &str = "desist-deliveries/v1";

/// What became of a delivery, as the destination's answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Reached {
    /// The destination does not have the person.
    Absent = 1,
    /// The destination took it.
    Accepted = 2,
    /// The destination said that it is done.
    Applied = 3,
    /// It was read back.
    Verified = 4,
}

impl Reached {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Accepted => "accepted",
            Self::Applied => "applied",
            Self::Verified => "verified",
        }
    }
}

/// One delivery: numbers and a digest. Records are in the order of their bytes, which is that of these members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The destination's number in the log.
    pub destination: u32,
    /// Whom it was about: the row number of a subject doubled, or of an identifier doubled and one.
    pub target: u64,
    /// The entry that made what was sent so.
    pub version: u64,
    /// When the answer was there, in Unix seconds.
    pub at: u64,
    /// What the answer said.
    pub level: Reached,
    /// The protocol's status, such as that of HTTP; 0 where there is none.
    pub status: u16,
    /// The first 16 bytes of the SHA-256 of the answer's bytes; zeros if none was kept. Nobody can make another answer for half a
    /// digest either, short of 2^128 tries.
    pub answer: [u8; 16],
}

impl Record {
    /// The bytes that are hashed: the members in their order, numbers big-endian.
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&self.destination.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.target.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.version.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.at.to_be_bytes());
        bytes[28] = self.level as u8;
        bytes[29..31].copy_from_slice(&self.status.to_be_bytes());
        bytes[31..].copy_from_slice(&self.answer);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; none if no level has this number.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        fn part<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
            *bytes[from..].first_chunk().expect("within the record")
        }
        let level = match bytes[28] {
            1 => Reached::Absent,
            2 => Reached::Accepted,
            3 => Reached::Applied,
            4 => Reached::Verified,
            _ => return None,
        };
        Some(Self {
            destination: u32::from_be_bytes(part(bytes, 0)),
            target: u64::from_be_bytes(part(bytes, 4)),
            version: u64::from_be_bytes(part(bytes, 12)),
            at: u64::from_be_bytes(part(bytes, 20)),
            level,
            status: u16::from_be_bytes(part(bytes, 29)),
            answer: part(bytes, 31),
        })
    }

    fn leaf(&self) -> Hash {
        leaf_hash(&self.to_bytes())
    }
}

/// The root over records in their order.
pub fn root(records: &[Record]) -> Hash {
    let mut frontier = Frontier::default();
    for record in records {
        frontier.append(record.leaf());
    }
    frontier.root()
}

/// The proof that the record at `index` is under the root over `records`, from the leaf up (RFC 6962, section 2.1.1); none if
/// there is no such record.
pub fn inclusion(records: &[Record], index: usize) -> Option<Vec<Hash>> {
    records.get(index)?;
    let mut level: Vec<Hash> = records.iter().map(Record::leaf).collect();
    let (mut at, mut path) = (index, Vec::new());
    while level.len() > 1 {
        // A node without a sibling goes up as it is.
        path.extend(level.get(at ^ 1));
        level = level.chunks(2).map(|pair| if let [left, right] = pair { node_hash(left, right) } else { pair[0] }).collect();
        at /= 2;
    }
    Some(path)
}

/// An entry with the proof that it is in the log of the receipt's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    /// The bytes of the entry.
    pub entry: String,
    /// Its leaf.
    pub index: u64,
    /// The inclusion proof, from the leaf up.
    #[serde(with = "hashes")]
    pub inclusion: Vec<Hash>,
}

/// A destination as the log and the configuration name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its number.
    pub no: u32,
    /// Its id.
    pub id: String,
}

/// A record with the way from it to the root that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The destination.
    pub destination: Named,
    /// The entry that gave it its number.
    pub declared: Proven,
    /// What was delivered.
    pub record: Record,
    /// The place of the record among those of its entry, from 0.
    pub place: u64,
    /// The proof from the record to the entry's root.
    pub proof: Vec<Hash>,
    /// The entry that has the root.
    pub acknowledged: Proven,
}

/// A destination without a record, and what the business says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unproven {
    /// The destination.
    pub destination: Named,
    /// Words of the business; nothing proves them.
    pub state: String,
}

/// A receipt with what shows the deliveries that followed from it. `Debug` shows no evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliveries {
    /// The receipt, whose checkpoint covers all entries below.
    pub receipt: Receipt,
    /// What is proven.
    pub deliveries: Vec<Delivery>,
    /// What is not.
    pub unproven: Vec<Unproven>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    format: String,
    receipt: Value,
    deliveries: Vec<Item>,
    unproven: Vec<Unproven>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    destination: Named,
    declared: Proven,
    record: RecordJson,
    place: u64,
    #[serde(with = "hashes")]
    proof: Vec<Hash>,
    acknowledged: Proven,
}

/// A record without its destination, which stands beside it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordJson {
    target: u64,
    version: u64,
    at: u64,
    level: Reached,
    status: u16,
    answer: String,
}

impl Deliveries {
    /// Whether bytes are meant as such a file: JSON that says so.
    pub fn is_meant(bytes: &[u8]) -> bool {
        bytes.len() <= RECEIPT_BYTES_MAX
            && members(bytes).is_some_and(|members| members.get("format").and_then(Value::as_str) == Some(FORMAT))
    }

    /// Reads a file. Members come in any order, each once; there are no others.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(FormatError::TooLong);
        }
        let members = members(bytes).ok_or(FormatError::Deliveries)?;
        if members.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(FormatError::Version);
        }
        // The reader below would take arrays of the members' values too.
        let objects = |value: &Value, names: &[&str]| value.is_object() && names.iter().all(|name| value[*name].is_object());
        let all = |name: &str, names: &[&str]| {
            members.get(name).and_then(Value::as_array).is_some_and(|all| all.iter().all(|one| objects(one, names)))
        };
        if !all("deliveries", &["destination", "declared", "record", "acknowledged"]) || !all("unproven", &["destination"]) {
            return Err(FormatError::Deliveries);
        }
        let json: Json = serde_json::from_value(Value::Object(members)).map_err(|_| FormatError::Deliveries)?;
        let item = |item: Item| {
            let RecordJson { target, version, at, level, status, answer } = item.record;
            let answer = STANDARD.decode(answer).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(FormatError::Member("answer"))?;
            let record = Record { destination: item.destination.no, target, version, at, level, status, answer };
            let Item { destination, declared, place, proof, acknowledged, .. } = item;
            Ok(Delivery { destination, declared, record, place, proof, acknowledged })
        };
        let deliveries = json.deliveries.into_iter().map(item).collect::<Result<_, _>>()?;
        let receipt = Receipt::parse(json.receipt.to_string().as_bytes())?;
        Ok(Self { receipt, deliveries, unproven: json.unproven })
    }

    /// The file: one line of JSON.
    pub fn to_json(&self) -> String {
        let item = |delivery: &Delivery| {
            let Delivery { destination, declared, record, place, proof, acknowledged } = delivery.clone();
            let Record { destination: _, target, version, at, level, status, answer } = record;
            let record = RecordJson { target, version, at, level, status, answer: STANDARD.encode(answer) };
            Item { destination, declared, record, place, proof, acknowledged }
        };
        let json = Json {
            format: FORMAT.to_owned(),
            receipt: serde_json::from_str(&self.receipt.to_json()).expect("a receipt is JSON"),
            deliveries: self.deliveries.iter().map(item).collect(),
            unproven: self.unproven.clone(),
        };
        let mut text = serde_json::to_string(&json).expect("texts and numbers are always JSON");
        text.push('\n');
        text
    }

    /// Follows the chain of the receipt, then that of each delivery. The error is the first link that is broken.
    pub fn verify(
        &self,
        logs: &(impl AsRef<[Verifier]> + ?Sized),
        witnesses: &[Verifier],
    ) -> Result<(Verified, Vec<Told>), DeliveriesError> {
        let receipt = self.receipt.verify(logs, witnesses).map_err(DeliveriesError::Receipt)?;
        let told = |(place, delivery): (usize, &Delivery)| {
            self.told(&receipt, delivery).map_err(|error| DeliveriesError::Delivery { place: place as u64 + 1, error })
        };
        let told = self.deliveries.iter().enumerate().map(told).collect::<Result<_, _>>()?;
        Ok((receipt, told))
    }

    fn told(&self, receipt: &Verified, delivery: &Delivery) -> Result<Told, DeliveryError> {
        let Delivery { destination, declared, record, place, proof, acknowledged } = delivery;
        let (_, names) = proven(receipt, declared, "destination_declared")?;
        let digest: Hash = Sha256::digest(&destination.id).into();
        let is_id = names.get("id").and_then(Value::as_str).and_then(decode_digest) == Some(digest);
        if !is_id || names.get("destination").and_then(Value::as_u64) != Some(u64::from(destination.no)) {
            return Err(DeliveryError::Destination);
        }
        let (entry, said) = proven(receipt, acknowledged, "acknowledged")?;
        let records = said.get("records").and_then(Value::as_u64).ok_or(DeliveryError::Entry(EntryError::Member("records")))?;
        let root = entry.evidence.ok_or(DeliveryError::Entry(EntryError::Member("evidence")))?;
        verify_inclusion(&record.leaf(), *place, records, proof, &root).map_err(DeliveryError::Record)?;
        // What is delivered was recorded before.
        if record.version >= entry.seq {
            return Err(DeliveryError::Version);
        }
        let asked = members(self.receipt.entry.as_bytes()).unwrap_or_default();
        let row = record.target >> 1;
        let is_named = if record.target & 1 == 0 {
            asked.get("subject").and_then(Value::as_u64) == Some(row)
        } else {
            let rows = asked.get("identifiers").and_then(Value::as_array);
            rows.is_some_and(|rows| rows.iter().any(|one| one[0].as_u64() == Some(row)))
        };
        Ok(Told {
            destination: destination.clone(),
            record: *record,
            seq: entry.seq,
            recorded_at: entry.at,
            is_named,
            is_since: record.version >= receipt.entry.seq,
        })
    }
}

/// An entry of this type within the log of the receipt's checkpoint, and its members.
fn proven(receipt: &Verified, proven: &Proven, kind: &str) -> Result<(Entry, serde_json::Map<String, Value>), DeliveryError> {
    let bytes = proven.entry.as_bytes();
    let entry = Entry::parse(bytes, proven.index).map_err(DeliveryError::Entry)?;
    if entry.kind != kind {
        return Err(DeliveryError::Entry(EntryError::Member("type")));
    }
    let checkpoint = receipt.checkpoint.checkpoint();
    verify_inclusion(&leaf_hash(bytes), proven.index, checkpoint.size(), &proven.inclusion, checkpoint.root())
        .map_err(DeliveryError::Inclusion)?;
    Ok((entry, members(bytes).ok_or(DeliveryError::Entry(EntryError::Json))?))
}

/// What a good delivery says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The destination, by the id that the log committed to.
    pub destination: Named,
    /// What was delivered.
    pub record: Record,
    /// The entry under which it is recorded.
    pub seq: u64,
    /// When that was written.
    pub recorded_at: String,
    /// Whether the receipt's entry names whom it is about; if not, that it is the same person is the business's word.
    pub is_named: bool,
    /// Whether what was sent has the receipt's entry in it; if not, it was so before.
    pub is_since: bool,
}

/// The first broken link of a file with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveriesError {
    /// The file.
    Format(FormatError),
    /// The receipt within it.
    Receipt(ReceiptError),
    /// A delivery.
    Delivery {
        /// Its place in the list, from 1.
        place: u64,
        /// What is broken.
        error: DeliveryError,
    },
}

impl DeliveriesError {
    /// Name of the link.
    pub fn link(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Receipt(error) => error.link(),
            Self::Delivery { error, .. } => error.link(),
        }
    }
}

impl fmt::Display for DeliveriesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => write!(f, "format: {error}"),
            Self::Receipt(error) => error.fmt(f),
            Self::Delivery { place, error } => write!(f, "{}: delivery {place}: {error}", error.link()),
        }
    }
}

impl std::error::Error for DeliveriesError {}

/// The first broken link of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryError {
    /// An entry is not of its type, or not one at all.
    Entry(EntryError),
    /// An entry is not in the log.
    Inclusion(ProofError),
    /// The entry gave another destination this number, or this destination another number.
    Destination,
    /// The record is not among those of the entry.
    Record(ProofError),
    /// The record speaks of an entry that is later than its own.
    Version,
}

impl DeliveryError {
    /// Name of the link.
    pub fn link(&self) -> &'static str {
        match self {
            Self::Entry(_) => "delivery entry",
            Self::Inclusion(_) => "delivery inclusion",
            Self::Destination => "delivery destination",
            Self::Record(_) => "delivery record",
            Self::Version => "delivery version",
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(error) => error.fmt(f),
            Self::Inclusion(error) => error.fmt(f),
            Self::Destination => f.write_str("the log gave another destination this number"),
            Self::Record(error) => write!(f, "the record is not among those of its entry: {error}"),
            Self::Version => f.write_str("what is said to be sent was recorded after the delivery"),
        }
    }
}

/// Hashes in base64.
mod hashes {
    use base64::Engine as _;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Hash, INCLUSION_HASHES_MAX, STANDARD, decode_hash};

    pub fn serialize<S: Serializer>(hashes: &[Hash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(hashes.iter().map(|hash| STANDARD.encode(hash)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hash>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > INCLUSION_HASHES_MAX {
            return Err(D::Error::custom("too many hashes"));
        }
        texts.iter().map(|text| decode_hash(text).ok_or_else(|| D::Error::custom("not a hash"))).collect()
    }
}

/// Reads any bytes as a file with deliveries: never panics, and what is written of it reads back the same.
#[doc(hidden)]
pub fn fuzz_deliveries(data: &[u8]) {
    if let Ok(file) = Deliveries::parse(data) {
        assert_eq!(Deliveries::parse(file.to_json().as_bytes()).as_ref(), Ok(&file));
    }
    if let Some(record) = data.first_chunk().and_then(Record::from_bytes) {
        assert_eq!(record.to_bytes()[..], data[..RECORD_BYTES]);
    }
}
