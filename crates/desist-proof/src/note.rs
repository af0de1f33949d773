//! Signed notes and their keys (C2SP signed-note), with signatures of the types 0x01 (Ed25519, section
//! "Ed25519 signatures") and 0x04 (timestamped cosignatures, C2SP tlog-cosignature).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// Bytes of a note. A checkpoint with a hundred of the largest assigned signatures (2.4 kB each, in
/// base64) has a third of this.
pub const NOTE_BYTES_MAX: usize = 1 << 20;
/// Signatures of a note. Readers have to take at least 16 (section "Format"); a log with more than a
/// few dozen witnesses is not known.
pub const SIGNATURES_MAX: usize = 100;
/// Time of a cosignature in Unix seconds (C2SP tlog-cosignature, section "Format").
pub const TIME_S_MAX: u64 = i64::MAX as u64;

/// What each signature line starts with.
const DASH: &str = "— ";
/// What a secret key starts with in the Go implementation's text form, which C2SP does not specify.
const SECRET: &str = "PRIVATE+KEY+";

/// A text and its signatures. Reading a note does not check any signature: [`verify`](Self::verify) does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A note without signatures yet.
    pub fn new(text: &str) -> Result<Self, NoteError> {
        check_text(text)?;
        Ok(Self { text: text.to_owned(), signatures: Vec::new() })
    }

    /// Reads a note (section "Format"). Its [`Display`](fmt::Display) form is the same text again.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        // The text may have empty lines itself: the last one separates.
        let at = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let mut parsed = Self::new(text)?;
        for signature in Signature::parse_lines(lines)? {
            parsed.push(signature)?;
        }
        Ok(parsed)
    }

    /// Adds a signature. The same line twice is an error.
    pub fn push(&mut self, signature: Signature) -> Result<(), NoteError> {
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        if self.signatures.contains(&signature) {
            return Err(NoteError::Duplicate);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// What is signed, with the newline at its end. It means nothing before [`verify`](Self::verify).
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, those of unknown keys too.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Checks the signatures of the keys that are known and passes over all others (section
    /// "Signatures"). An error if none is of a known key, if one of a known key is wrong, or if a
    /// known key signed twice.
    pub fn verify<'a>(&self, known: &[&'a Verifier]) -> Result<Vec<Verified<'a>>, NoteError> {
        let mut verified = Vec::<Verified>::new();
        for signature in &self.signatures {
            let mut keys = known.iter().filter(|key| key.name == signature.name && key.id == signature.key_id);
            let Some(key) = keys.next() else { continue };
            if keys.next().is_some() {
                return Err(NoteError::AmbiguousKey);
            }
            if verified.iter().any(|earlier| earlier.by == *key) {
                return Err(NoteError::Duplicate);
            }
            verified.push(key.verify(&self.text, &signature.bytes).ok_or(NoteError::WrongSignature)?);
        }
        if verified.is_empty() { Err(NoteError::NoKnownKey) } else { Ok(verified) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(f, "{signature}"))
    }
}

/// A signature whose key is known and that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Whose it is.
    pub by: &'a Verifier,
    /// The Unix time that a cosignature states; a plain signature has none.
    pub time_s: Option<u64>,
}

/// UTF-8 without control characters but newlines, with a newline at its end (section "Format").
fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') || text.chars().any(|c| c < ' ' && c != '\n') { Err(NoteError::Text) } else { Ok(()) }
}

/// Not empty, no Unicode spaces, no plus (section "Format").
fn check_name(name: &str) -> Result<(), KeyError> {
    let is_wrong = |c: char| c < ' ' || c == '+' || c.is_whitespace();
    if name.is_empty() || name.contains(is_wrong) { Err(KeyError::Name) } else { Ok(()) }
}

/// One signature line: who says to have signed, and the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    key_id: [u8; 4],
    bytes: Vec<u8>,
}

impl Signature {
    /// Reads one or more signature lines, such as the answer of a witness (C2SP tlog-witness, section
    /// "add-checkpoint"). Each line has one form: base64 is canonical.
    pub fn parse_lines(lines: &str) -> Result<Vec<Self>, NoteError> {
        let lines = lines.strip_suffix('\n').ok_or(NoteError::SignatureLine)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(Self::parse_line(line).ok_or(NoteError::SignatureLine)?);
        }
        Ok(signatures)
    }

    fn parse_line(line: &str) -> Option<Self> {
        let (name, base64) = line.strip_prefix(DASH)?.split_once(' ')?;
        check_name(name).ok()?;
        let decoded = STANDARD.decode(base64).ok()?;
        let (key_id, bytes) = decoded.split_first_chunk()?;
        (!bytes.is_empty()).then(|| Self { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
    }

    /// Name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key.
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The signature after the key's id.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{DASH}{} {}", self.name, STANDARD.encode([&self.key_id[..], &self.bytes].concat()))
    }
}

/// Types of signatures that are understood (section "Signature types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 0x01: Ed25519 over the text. How a log signs its checkpoints.
    Ed25519,
    /// 0x04: Ed25519 over a header, a time and the text. How a witness signs a log's checkpoint.
    Cosignature,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    fn of_byte(byte: u8) -> Result<Self, KeyError> {
        [Self::Ed25519, Self::Cosignature].into_iter().find(|known| known.byte() == byte).ok_or(KeyError::Algorithm)
    }
}

/// What a cosignature is over (C2SP tlog-cosignature, section "Ed25519 signed message").
fn cosigned_message(time_s: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{text}").into_bytes()
}

/// A public key with its name. The text form is `name+id+key` (section "Verifier keys").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl Verifier {
    /// A key from its 32 bytes.
    pub fn new(name: &str, algorithm: Algorithm, public_key: &[u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        // Under a weak key one signature can fit many texts.
        let key = VerifyingKey::from_bytes(public_key).ok().filter(|key| !key.is_weak()).ok_or(KeyError::Key)?;
        // The same point in other bytes would be another key in name only (RFC 8032 section 5.1.3).
        if key.to_edwards().compress().as_bytes() != public_key {
            return Err(KeyError::Key);
        }
        let hash = Sha256::new().chain_update(name).chain_update([b'\n', algorithm.byte()]).chain_update(public_key).finalize();
        let id = *hash.first_chunk().expect("a hash has more than 4 bytes");
        Ok(Self { name: name.to_owned(), id, algorithm, key })
    }

    /// Name of the key; for a log's key its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key (section "Signatures").
    pub fn key_id(&self) -> [u8; 4] {
        self.id
    }

    /// Type of its signatures.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key itself.
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Checks a signature. Strict verification: a signature has one form, and none of the keys that
    /// make one good for many texts is taken.
    fn verify(&self, text: &str, signature: &[u8]) -> Option<Verified<'_>> {
        let (time_s, message, signature) = match self.algorithm {
            Algorithm::Ed25519 => (None, text.as_bytes().to_vec(), signature),
            Algorithm::Cosignature => {
                let (time, signature) = signature.split_first_chunk()?;
                let time_s = u64::from_be_bytes(*time);
                // 0 is "no time", which a statement about the latest tree cannot have.
                if !(1..=TIME_S_MAX).contains(&time_s) {
                    return None;
                }
                (Some(time_s), cosigned_message(time_s, text), signature)
            }
        };
        let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
        self.key.verify_strict(&message, &signature).ok()?;
        Some(Verified { by: self, time_s })
    }
}

impl FromStr for Verifier {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, algorithm, key) = split_key(text)?;
        let verifier = Self::new(name, algorithm, &key)?;
        if hex(verifier.id) == id { Ok(verifier) } else { Err(KeyError::Id) }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, self, self.key.as_bytes())
    }
}

/// The parts of the text form of a key.
fn split_key(text: &str) -> Result<(&str, &str, Algorithm, [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(base64)) = (parts.next(), parts.next(), parts.next()) else { return Err(KeyError::Form) };
    let decoded = STANDARD.decode(base64).map_err(|_| KeyError::Form)?;
    let (algorithm, key) = decoded.split_first().ok_or(KeyError::Form)?;
    Ok((name, id, Algorithm::of_byte(*algorithm)?, key.try_into().map_err(|_| KeyError::Key)?))
}

fn write_key(f: &mut impl fmt::Write, public: &Verifier, key: &[u8; 32]) -> fmt::Result {
    write!(f, "{}+{}+{}", public.name, hex(public.id), STANDARD.encode([&[public.algorithm.byte()], &key[..]].concat()))
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

/// A secret key. `Debug` shows the public half alone.
pub struct Signer {
    public: Verifier,
    key: SigningKey,
}

impl Signer {
    /// A key from its 32 secret bytes (the seed of RFC 8032).
    pub fn new(name: &str, algorithm: Algorithm, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        Ok(Self { public: Verifier::new(name, algorithm, key.verifying_key().as_bytes())?, key })
    }

    /// The public half.
    pub fn verifier(&self) -> &Verifier {
        &self.public
    }

    /// The text form, `PRIVATE+KEY+name+id+seed`: a secret.
    pub fn secret_text(&self) -> String {
        let mut text = SECRET.to_owned();
        write_key(&mut text, &self.public, self.key.as_bytes()).expect("a String takes all writes");
        text
    }

    /// Signs a text. `time_s` is the Unix time that a cosignature states, from 1 to [`TIME_S_MAX`]; a
    /// signature of type 0x01 states none.
    pub fn sign(&self, text: &str, time_s: u64) -> Result<Signature, NoteError> {
        check_text(text)?;
        let bytes = match self.public.algorithm {
            Algorithm::Ed25519 => self.key.sign(text.as_bytes()).to_bytes().to_vec(),
            Algorithm::Cosignature => {
                if !(1..=TIME_S_MAX).contains(&time_s) {
                    return Err(NoteError::Time);
                }
                [&time_s.to_be_bytes()[..], &self.key.sign(&cosigned_message(time_s, text)).to_bytes()].concat()
            }
        };
        Ok(Signature { name: self.public.name.clone(), key_id: self.public.id, bytes })
    }
}

/// One key where several are allowed.
impl AsRef<[Self]> for Verifier {
    fn as_ref(&self) -> &[Self] {
        std::slice::from_ref(self)
    }
}

impl FromStr for Signer {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, algorithm, seed) = split_key(text.strip_prefix(SECRET).ok_or(KeyError::Form)?)?;
        let signer = Self::new(name, algorithm, &seed)?;
        if hex(signer.public.id) == id { Ok(signer) } else { Err(KeyError::Id) }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Why a note cannot be read, signed or trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// More than [`NOTE_BYTES_MAX`].
    TooLong,
    /// Control characters, or no newline at the end.
    Text,
    /// No empty line with signatures after it.
    NoSignatures,
    /// A signature line has another form.
    SignatureLine,
    /// More than [`SIGNATURES_MAX`].
    TooManySignatures,
    /// The same line twice, or two signatures by one known key.
    Duplicate,
    /// Two of the keys given have the same name and id.
    AmbiguousKey,
    /// A signature by a known key is not good.
    WrongSignature,
    /// No signature is by a known key.
    NoKnownKey,
    /// The time to state is 0 or above [`TIME_S_MAX`].
    Time,
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the note is longer than {NOTE_BYTES_MAX} bytes"),
            Self::Text => f.write_str("the note's text has control characters, or no newline at its end"),
            Self::NoSignatures => f.write_str("the note has no empty line with signatures after it"),
            Self::SignatureLine => f.write_str("a signature line is not an em dash, a key name and canonical base64"),
            Self::TooManySignatures => write!(f, "the note has more than {SIGNATURES_MAX} signatures"),
            Self::Duplicate => f.write_str("the note has a signature twice, or two of one known key"),
            Self::AmbiguousKey => f.write_str("two of the keys given have the same name and id; give each key once"),
            Self::WrongSignature => f.write_str("a signature by a known key does not fit the text"),
            Self::NoKnownKey => f.write_str("no signature is by a key that was given"),
            Self::Time => f.write_str("a cosignature needs the Unix time in seconds, from 1 to 2^63 - 1"),
        }
    }
}

impl std::error::Error for NoteError {}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not `name+id+base64`.
    Form,
    /// The name is empty or has spaces or a plus.
    Name,
    /// A type of signature that is not understood.
    Algorithm,
    /// Not 32 bytes of a key that can be trusted.
    Key,
    /// The id is not that of the name and the key.
    Id,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a key is `name+id+base64`, a secret one with `PRIVATE+KEY+` in front; copy it whole",
            Self::Name => "a key's name has at least one character and no spaces, control characters or `+`",
            Self::Algorithm => "the key's type is neither 0x01 (Ed25519) nor 0x04 (timestamped cosignature)",
            Self::Key => "the key is not 32 bytes of an Ed25519 key, or a weak one",
            Self::Id => "the key's id does not fit its name and its bytes; copy it whole",
        })
    }
}

impl std::error::Error for KeyError {}

/// Reads any bytes as a note and as keys: never panics, and what is read is what would have been written.
#[doc(hidden)]
pub fn fuzz_note(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(note) = Note::parse(text) {
        assert_eq!(note.to_string(), text);
        assert_eq!(note.verify(&[]), Err(NoteError::NoKnownKey));
    }
    if let Ok(key) = text.parse::<Verifier>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = text.parse::<Signer>() {
        assert_eq!(key.secret_text(), text);
    }
}
