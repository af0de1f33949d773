//! Identifiers: what kinds there are, the normal form of a value, and its digest.
//!
//! Two spellings that reach the same person have one normal form, and the normal form of a normal
//! form is itself. A digest that somebody else made of the normal form is therefore as good as the
//! value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Once;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use phonenumber::country;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

use crate::limits;

/// What an identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// E-mail address.
    Email,
    /// Telephone number.
    Phone,
    /// The business's own account number.
    CustomerId,
    /// Primary key of a profile in the business's campaign system.
    CampaignPkey,
    /// Unified ID 2.0.
    Uid2,
    /// `LiveRamp`'s `RampID`.
    Rampid,
    /// A first-party cookie's value.
    CookieId,
    /// A device, as the business numbers it.
    DeviceId,
    /// Mobile advertising id (IDFA, AAID).
    Maid,
}

impl Kind {
    /// Every kind, in order of [`code`](Self::code).
    pub const ALL: [Self; 9] = [
        Self::Email,
        Self::Phone,
        Self::CustomerId,
        Self::CampaignPkey,
        Self::Uid2,
        Self::Rampid,
        Self::CookieId,
        Self::DeviceId,
        Self::Maid,
    ];

    /// The name in requests, files and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::CustomerId => "customer_id",
            Self::CampaignPkey => "campaign_pkey",
            Self::Uid2 => "uid2",
            Self::Rampid => "rampid",
            Self::CookieId => "cookie_id",
            Self::DeviceId => "device_id",
            Self::Maid => "maid",
        }
    }

    /// The number in the store, 1 to 9. It never changes and is never given to another kind.
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The kind with that [`code`](Self::code).
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Whether it stands for a person rather than for a device or browser.
    pub const fn is_person_level(self) -> bool {
        !matches!(self, Self::CookieId | Self::DeviceId | Self::Maid)
    }

    /// Whether it names the one subject that a request is about.
    pub const fn names_subject(self) -> bool {
        matches!(self, Self::CampaignPkey | Self::CustomerId)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownKind)
    }
}

/// Not the name of a kind. The text is not repeated, since callers mix up name and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of identifier; use one of {}", Kind::ALL.map(Kind::name).join(", "))]
pub struct UnknownKind;

/// Why a value is not an identifier. It holds no text, so no message can contain the value and each
/// can be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Nothing left after trimming.
    #[error("the value is empty; leave the identifier out if it is not known")]
    Empty,
    /// More than [`limits::IDENTIFIER_RAW_BYTES_MAX`] bytes as given.
    #[error("the value has {actual} bytes; send at most {}", limits::IDENTIFIER_RAW_BYTES_MAX)]
    RawTooLong {
        /// Bytes given.
        actual: usize,
    },
    /// More than [`limits::IDENTIFIER_BYTES_MAX`] bytes in normal form.
    #[error("the value has {actual} bytes in normal form; an identifier has at most {}", limits::IDENTIFIER_BYTES_MAX)]
    TooLong {
        /// Bytes of the normal form.
        actual: usize,
    },
    /// A control character such as NUL, tab or line feed inside the value.
    #[error("the value contains a control character; remove it")]
    ControlCharacter,
    /// White space, or a character that cannot be seen, inside an e-mail address.
    #[error("the e-mail address contains white space or an invisible character; remove it")]
    EmailWhiteSpace,
    /// No `@`, or more than one.
    #[error("an e-mail address has exactly one @; this has {actual}")]
    EmailAt {
        /// How many there are.
        actual: usize,
    },
    /// Nothing in front of the `@`.
    #[error("the e-mail address has nothing in front of the @; add the local part")]
    EmailLocalPart,
    /// What follows the `@` is not a domain name (UTS 46, letters, digits and hyphens only).
    #[error("what follows the @ of the e-mail address is not a valid domain name; check its spelling")]
    EmailDomain,
    /// Not a number that can be dialled.
    #[error("not a valid telephone number; send E.164 (+12025550123) or a complete United States number")]
    InvalidPhone,
    /// Not 8-4-4-4-12 hexadecimal digits.
    #[error("not a mobile advertising id; send 36 characters, 8-4-4-4-12 hexadecimal digits")]
    InvalidMaid,
    /// The id that devices give out when tracking is limited; millions share it.
    #[error("the all-zero advertising id means that tracking is limited and stands for nobody; leave it out")]
    ZeroMaid,
    /// Not 64 hexadecimal digits.
    #[error("not a SHA-256; send 64 hexadecimal digits")]
    InvalidHash,
}

/// A value in the one spelling that is hashed and stored. Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct NormalForm(String);

impl NormalForm {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough for its owner to recognise it and for nobody else to learn it: `r…@e….org`, `+…23`,
    /// otherwise `…` with the last two characters of eight or more. Goes by the look of the value,
    /// so that an account number which is an e-mail address is masked as one.
    pub fn masked(&self) -> String {
        let first = |text: &str| text.chars().next().map_or_else(String::new, String::from);
        if let Some((local, domain)) = self.0.rsplit_once('@') {
            // Other kinds can have anything after a dot; only what can be a top-level domain shows.
            let is_top = |top: &str| top.len() <= 24 && (top.starts_with("xn--") || top.bytes().all(|b| b.is_ascii_alphabetic()));
            let top = domain.rsplit_once('.').filter(|(_, top)| is_top(top)).map_or_else(String::new, |(_, top)| format!(".{top}"));
            return format!("{}…@{}…{top}", first(local), first(domain));
        }
        let plus = if self.0.starts_with('+') { "+" } else { "" };
        let end = match self.0.char_indices().rev().nth(7) {
            Some(_) => self.0.char_indices().rev().nth(1).map_or("", |(at, _)| &self.0[at..]),
            None => "",
        };
        format!("{plus}…{end}")
    }
}

impl fmt::Debug for NormalForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NormalForm(…)")
    }
}

impl Drop for NormalForm {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An identifier without its value: the digest can be guessed at, so it is not printed either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier {
    /// What it is.
    pub kind: Kind,
    /// SHA-256 of the normal form in UTF-8.
    pub digest: [u8; 32],
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({}, …)", self.kind)
    }
}

impl Identifier {
    /// Brings a value to its normal form.
    ///
    /// - e-mail: NFC, trimmed, local part in lower case, domain in A-labels (UTS 46, which has its
    ///   own lower case); dots and plus tags in the local part are kept
    /// - phone: E.164 without an extension; a number without country code is one of the United States
    /// - maid: lower case
    /// - others: trimmed
    pub fn from_value(kind: Kind, value: &str) -> Result<(Self, NormalForm), IdentifierError> {
        if value.len() > limits::IDENTIFIER_RAW_BYTES_MAX {
            return Err(IdentifierError::RawTooLong { actual: value.len() });
        }
        let value = value.trim();
        if value.is_empty() {
            return Err(IdentifierError::Empty);
        }
        if value.contains(char::is_control) {
            return Err(IdentifierError::ControlCharacter);
        }
        let normal = NormalForm(match kind {
            Kind::Email => email(value)?,
            Kind::Phone => phone(value)?,
            Kind::Maid => maid(value)?,
            _ => value.to_owned(),
        });
        if normal.0.len() > limits::IDENTIFIER_BYTES_MAX {
            return Err(IdentifierError::TooLong { actual: normal.0.len() });
        }
        Ok((Self { kind, digest: Sha256::digest(&normal.0).into() }, normal))
    }

    /// Takes the SHA-256 of a normal form, as 64 hexadecimal digits of either case. Whether it was
    /// made of the normal form cannot be seen; one made by another recipe meets nobody.
    pub fn from_sha256_hex(kind: Kind, hex: &str) -> Result<Self, IdentifierError> {
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return Err(IdentifierError::InvalidHash) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| IdentifierError::InvalidHash)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(IdentifierError::InvalidHash);
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        Ok(Self { kind, digest })
    }
}

fn email(value: &str) -> Result<String, IdentifierError> {
    let value = Zeroizing::new(if value.is_ascii() { value.to_owned() } else { value.nfc().collect::<String>() });
    if value.contains(|c: char| c.is_whitespace() || is_invisible(c)) {
        return Err(IdentifierError::EmailWhiteSpace);
    }
    let mut parts = value.split('@');
    let (Some(local), Some(domain), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(IdentifierError::EmailAt { actual: value.matches('@').count() });
    };
    if local.is_empty() {
        return Err(IdentifierError::EmailLocalPart);
    }
    if value.is_ascii()
        && let Some(domain) = plain_domain(domain)
    {
        return Ok(format!("{}@{domain}", local.to_ascii_lowercase()));
    }
    // Lower-casing can leave a text that is no longer composed, hence NFC once more.
    let mut normal: String = Zeroizing::new(local.to_lowercase()).nfc().collect();
    // The domain is not lower-cased before: UTS 46 does it, and differently for a final sigma.
    let domain = a_labels(domain)?;
    normal.push('@');
    normal.push_str(&domain);
    Ok(normal)
}

fn a_labels(domain: &str) -> Result<Cow<'_, str>, IdentifierError> {
    Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Verify)
        .map_err(|_| IdentifierError::EmailDomain)
}

/// What [`a_labels`] gives for nearly all domains, without its tables: letters, digits and hyphens in
/// lower case. `None`: it has to look itself.
fn plain_domain(domain: &str) -> Option<String> {
    let is_plain = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
    };
    (domain.len() <= 253 && domain.split('.').all(is_plain)).then(|| domain.to_ascii_lowercase())
}

/// Characters that come along with copied text, show nothing and would make an address nobody has.
/// (Joiners are not among them: some scripts spell with them.)
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn phone(value: &str) -> Result<String, IdentifierError> {
    // NFKC turns full-width digits and the like into plain ones.
    let value = Zeroizing::new(value.nfkc().collect::<String>());
    let number = value.strip_prefix("tel:").unwrap_or(&value);
    // The parser looks for a number anywhere in a text; here the value has to be one.
    if !number.starts_with(|c: char| matches!(c, '+' | '(') || c.is_ascii_digit()) {
        return Err(IdentifierError::InvalidPhone);
    }
    let (region, number) = match number.strip_prefix("011") {
        // How the United States dial abroad.
        Some(abroad) => (None, Zeroizing::new(format!("+{abroad}"))),
        // With a default region the parser strips that region's trunk prefix from any country's
        // number, and +49 151... (a German mobile) would lose its 1.
        None if number.starts_with('+') => (None, Zeroizing::new(number.to_owned())),
        None => (Some(country::US), Zeroizing::new(number.to_owned())),
    };
    let first = e164(region, &number)?;
    // Some countries' numbers are rewritten once more when read again; only what stays is a form.
    if first == *number || e164(None, &first)? == first { Ok(first) } else { Err(IdentifierError::InvalidPhone) }
}

// The parser compiles a pattern when it meets it and keeps 100, under one lock. The numbers of all
// countries need some 1,800 (about 170 MB once each was met, 25 MB with American numbers alone), and
// without room for them a mix of countries costs 1.3 ms a number instead of 12 us.
const PHONE_PATTERNS: usize = 2000;

fn e164(region: Option<country::Id>, number: &str) -> Result<String, IdentifierError> {
    static ROOM: Once = Once::new();
    ROOM.call_once(|| {
        if let Ok(mut cache) = phonenumber::metadata::DATABASE.cache().lock() {
            cache.set_capacity(PHONE_PATTERNS);
        }
    });
    let number = phonenumber::parse(region, number).map_err(|_| IdentifierError::InvalidPhone)?;
    if !phonenumber::is_valid(&number) {
        return Err(IdentifierError::InvalidPhone);
    }
    Ok(number.format().mode(phonenumber::Mode::E164).to_string())
}

fn maid(value: &str) -> Result<String, IdentifierError> {
    let shape = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    if value.len() != 36 || !value.bytes().enumerate().all(shape) {
        return Err(IdentifierError::InvalidMaid);
    }
    if value.bytes().all(|byte| matches!(byte, b'0' | b'-')) {
        return Err(IdentifierError::ZeroMaid);
    }
    Ok(value.to_ascii_lowercase())
}

/// Runs any bytes through everything here that reads input and asserts what must hold of it; fuzz
/// targets and property tests call it. The first byte picks the kind, the rest is the value.
#[doc(hidden)]
pub fn fuzz_identifiers(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let text = String::from_utf8_lossy(rest);
    if let Ok(named) = text.parse::<Kind>() {
        assert_eq!(named.name(), text);
    }
    if let Ok(identifier) = Identifier::from_sha256_hex(kind, &text) {
        assert_eq!(hex(&identifier.digest), text.to_ascii_lowercase());
    }
    let Ok((identifier, normal)) = Identifier::from_value(kind, &text) else { return };
    let value = normal.as_str();
    assert!(!value.is_empty() && value.len() <= limits::IDENTIFIER_BYTES_MAX, "length");
    assert!(value.trim() == value && !value.contains(char::is_control), "characters");
    let again = Identifier::from_value(kind, value);
    assert!(again == Ok((identifier, normal.clone())), "the normal form of a normal form is itself");
    let hash = hex(&identifier.digest);
    assert_eq!(Identifier::from_sha256_hex(kind, &hash), Ok(identifier));
    assert_eq!(Identifier::from_sha256_hex(kind, &hash.to_uppercase()), Ok(identifier));
    assert!(normal.masked().chars().count() <= 30, "a mask is two letters and a top-level domain at most");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(kind: Kind, value: &str) -> Result<String, IdentifierError> {
        Identifier::from_value(kind, value).map(|(_, normal)| normal.as_str().to_owned())
    }

    #[test]
    fn kinds() {
        assert_eq!(Kind::ALL.map(Kind::code), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).expect("a string"), kind.name());
            assert_eq!(serde_json::from_value::<Kind>(kind.name().into()).expect("a kind"), kind);
        }
        assert_eq!((Kind::from_code(0), Kind::from_code(10)), (None, None));
        let names = |test: fn(Kind) -> bool| Kind::ALL.into_iter().filter(|kind| test(*kind)).map(Kind::name).collect::<Vec<_>>();
        assert_eq!(names(Kind::is_person_level), ["email", "phone", "customer_id", "campaign_pkey", "uid2", "rampid"]);
        assert_eq!(names(Kind::names_subject), ["customer_id", "campaign_pkey"]);
        assert_eq!(
            "Email".parse::<Kind>().expect_err("names are lower case").to_string(),
            "unknown kind of identifier; use one of email, phone, customer_id, campaign_pkey, uid2, rampid, cookie_id, device_id, maid"
        );
    }

    #[test]
    fn emails() {
        use IdentifierError as E;
        for (value, expected) in [
            ("rosa@example.org", Ok("rosa@example.org")),
            (" \u{a0}Rosa.M+news@EXAMPLE.org\r\n", Ok("rosa.m+news@example.org")),
            ("r.o.s.a@gmail.com", Ok("r.o.s.a@gmail.com")),
            ("o'brien%x/=@localhost", Ok("o'brien%x/=@localhost")),
            // Composed and decomposed, upper and lower case meet.
            ("JOSE\u{301}@example.org", Ok("jos\u{e9}@example.org")),
            ("jos\u{e9}@example.org", Ok("jos\u{e9}@example.org")),
            // Lower case of one character that composes with what follows.
            ("\u{130}\u{327}@example.org", Ok("i\u{327}\u{307}@example.org")),
            ("rosa@B\u{dc}CHER.example", Ok("rosa@xn--bcher-kva.example")),
            ("rosa@bu\u{308}cher\u{3002}example", Ok("rosa@xn--bcher-kva.example")),
            ("rosa@XN--BCHER-KVA.example", Ok("rosa@xn--bcher-kva.example")),
            ("rosa@stra\u{df}e.example", Ok("rosa@xn--strae-oqa.example")),
            // A final sigma is a matter of the local part's spelling, not of a domain's.
            ("ΝΙΚΟΣ@ΒΟΛΟΣ.example", Ok("νικος@xn--nxaslbu.example")),
            ("\"rosa\"@example.org", Ok("\"rosa\"@example.org")),
            ("", Err(E::Empty)),
            (" \t\u{3000}", Err(E::Empty)),
            ("rosa", Err(E::EmailAt { actual: 0 })),
            ("rosa@a@example.org", Err(E::EmailAt { actual: 2 })),
            ("\"a@b\"@example.org", Err(E::EmailAt { actual: 2 })),
            ("@example.org", Err(E::EmailLocalPart)),
            ("@", Err(E::EmailLocalPart)),
            ("rosa@", Err(E::EmailDomain)),
            ("rosa@.org", Err(E::EmailDomain)),
            ("rosa@example.org.", Err(E::EmailDomain)),
            ("rosa@example,org", Err(E::EmailDomain)),
            ("rosa@xn--a.org", Err(E::EmailDomain)),
            ("rosa@[192.0.2.1]", Err(E::EmailDomain)),
            ("rosa@exam\u{ff20}ple.org", Err(E::EmailDomain)),
            ("ro sa@example.org", Err(E::EmailWhiteSpace)),
            ("rosa@exam\u{3000}ple.org", Err(E::EmailWhiteSpace)),
            ("rosa\u{200b}@example.org", Err(E::EmailWhiteSpace)),
            ("\u{feff}rosa@example.org", Err(E::EmailWhiteSpace)),
            ("rosa\0@example.org", Err(E::ControlCharacter)),
            ("rosa@example.org\nbcc", Err(E::ControlCharacter)),
            ("rosa@example.org\u{85}x", Err(E::ControlCharacter)),
        ] {
            assert_eq!(normal(Kind::Email, value), expected.map(str::to_owned), "{value:?}");
        }
        assert_eq!(normal(Kind::Email, &format!("rosa@{}.org", "a".repeat(64))), Err(E::EmailDomain));
        assert_eq!(normal(Kind::Email, &format!("{}@example.org", "a".repeat(245))), Err(E::TooLong { actual: 257 }));
        assert_eq!(normal(Kind::Email, &" ".repeat(1025)), Err(E::RawTooLong { actual: 1025 }));
    }

    #[test]
    fn lower_case_of_every_character_stays() {
        let mut value = String::new();
        for c in ('\0'..=char::MAX).filter(|c| c.to_lowercase().ne([*c])) {
            value.clear();
            value.extend(['A', c, '\u{301}', '\u{327}', 'X']);
            let once = value.nfc().collect::<String>().to_lowercase().nfc().collect::<String>();
            let twice = once.nfc().collect::<String>().to_lowercase().nfc().collect::<String>();
            assert_eq!(once, twice, "U+{:04X}", c as u32);
        }
    }

    #[test]
    fn phones() {
        for (value, expected) in [
            ("+12025550123", Some("+12025550123")),
            ("(202) 555-0123", Some("+12025550123")),
            (" 202.555.0123 ", Some("+12025550123")),
            ("1-202-555-0123", Some("+12025550123")),
            ("+1 (202) 555\u{2013}0123", Some("+12025550123")),
            ("tel:+1-202-555-0123", Some("+12025550123")),
            ("２０２５５５０１２３", Some("+12025550123")),
            ("202-555-0123 ext. 7", Some("+12025550123")),
            ("1-800-FLOWERS", Some("+18003569377")),
            // A national number that begins with the trunk prefix of the default region.
            ("+49 1512 3456789", Some("+4915123456789")),
            ("011 49 1512 3456789", Some("+4915123456789")),
            ("+86 131 2345 6789", Some("+8613123456789")),
            ("+44 (0)20 7946 0018", Some("+442079460018")),
            ("+39 06 6982", Some("+39066982")),
            ("+52 55 1234 5678", Some("+525512345678")),
            ("+54 9 11 2345 6789", Some("+5491123456789")),
            ("", None),
            ("911", None),
            ("555-0123", None),
            ("+1 102 555 0123", None),
            ("+999 123456", None),
            ("+", None),
            ("+49", None),
            ("+00", None),
            ("call 202-555-0123", None),
            ("rosa2025550123@example.org", None),
            ("202-555-0123 or 202-555-0124", None),
            (".;phone-context=", None),
            ("2025550123;phone-context=", None),
            ("202\t5550123", None),
            ("20255501230000000000000000", None),
        ] {
            let error = match value {
                "" => IdentifierError::Empty,
                _ if value.contains('\t') => IdentifierError::ControlCharacter,
                _ => IdentifierError::InvalidPhone,
            };
            assert_eq!(normal(Kind::Phone, value), expected.map(str::to_owned).ok_or(error), "{value:?}");
        }
    }

    #[test]
    fn phone_patterns_are_kept() {
        assert!(normal(Kind::Phone, "+12025550123").is_ok());
        assert_eq!(phonenumber::metadata::DATABASE.cache().lock().expect("no panic").capacity(), PHONE_PATTERNS);
    }

    #[test]
    fn maids() {
        let form = "38400000-8cf0-11bd-b23e-10b96e40000d";
        assert_eq!(normal(Kind::Maid, &format!(" {} ", form.to_uppercase())).as_deref(), Ok(form));
        assert_eq!(normal(Kind::Maid, "00000000-0000-0000-0000-000000000000"), Err(IdentifierError::ZeroMaid));
        for wrong in [&form[1..], &form.replace('-', ""), &form.replace('b', "g"), &form.replace("-8", "8-"), &format!("{{{form}}}")] {
            assert_eq!(normal(Kind::Maid, wrong), Err(IdentifierError::InvalidMaid), "{wrong}");
        }
    }

    #[test]
    fn others_are_verbatim() {
        for kind in [Kind::CustomerId, Kind::CampaignPkey, Kind::Uid2, Kind::Rampid, Kind::CookieId, Kind::DeviceId] {
            assert_eq!(normal(kind, " \u{a0}@Ab c/+=\u{e9}e\u{301} ").as_deref(), Ok("@Ab c/+=\u{e9}e\u{301}"));
            assert_eq!(normal(kind, &"x".repeat(256)), Ok("x".repeat(256)));
            assert_eq!(normal(kind, &"x".repeat(257)), Err(IdentifierError::TooLong { actual: 257 }));
            assert_eq!(normal(kind, "a\0b"), Err(IdentifierError::ControlCharacter));
            assert_eq!(normal(kind, " "), Err(IdentifierError::Empty));
        }
    }

    #[test]
    fn hashes() {
        let hash = "04b322305465a826149112edb7a66eff2996002f6a4c857657cdd26ede85327e";
        let (identifier, _) = Identifier::from_value(Kind::Email, " Rosa@Example.org").expect("valid");
        assert_eq!(Identifier::from_sha256_hex(Kind::Email, hash), Ok(identifier));
        assert_eq!(Identifier::from_sha256_hex(Kind::Email, &hash.to_uppercase()), Ok(identifier));
        assert_ne!(Identifier::from_sha256_hex(Kind::CustomerId, hash), Ok(identifier));
        for wrong in
            ["", &hash[1..], &hash[2..], &format!("{hash}00"), &format!(" {}", &hash[1..]), &hash.replace('b', "g"), &"é".repeat(32)]
        {
            assert_eq!(Identifier::from_sha256_hex(Kind::Email, wrong), Err(IdentifierError::InvalidHash), "{wrong}");
        }
    }

    #[test]
    fn values_are_not_printed() {
        let (identifier, normal) = Identifier::from_value(Kind::Email, "rosa@example.org").expect("valid");
        assert_eq!(format!("{identifier:?} {normal:?}"), "Identifier(email, …) NormalForm(…)");
        for (kind, value, mask) in [
            (Kind::Email, "rosa@mail.example.org", "r…@m….org"),
            (Kind::Email, "r@localhost", "r…@l…"),
            (Kind::CustomerId, "rosa@example.org", "r…@e….org"),
            (Kind::Phone, "202-555-0123", "+…23"),
            (Kind::Maid, "38400000-8cf0-11bd-b23e-10b96e40000d", "…0d"),
            (Kind::CustomerId, "1234567", "…"),
            (Kind::CustomerId, "éééééééé", "…éé"),
            (Kind::CustomerId, "@", "…@…"),
            (Kind::CustomerId, "id@x.4155550123", "i…@x…"),
        ] {
            assert_eq!(Identifier::from_value(kind, value).expect("valid").1.masked(), mask);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn the_short_way_for_plain_domains_is_the_long_way(domain in "([a-zA-Z0-9-]{0,5}\\.?){1,4}|(xn--)?[a-z]{1,3}\\.[A-Z]{2}|[ -~]{0,12}") {
            if let Some(plain) = plain_domain(&domain) {
                prop_assert_eq!(a_labels(&domain).expect("a plain domain is a domain"), plain);
            }
        }

        #[test]
        fn any_bytes(kind: u8, rest in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz_identifiers(&[&[kind], &rest[..]].concat());
        }

        #[test]
        fn any_text(kind: u8, rest in "\\PC{0,40}") {
            fuzz_identifiers(&[&[kind], rest.as_bytes()].concat());
        }

        #[test]
        fn nearly_emails(rest in "\\PC{1,12}@[\\PC--@]{1,8}(\\.|。)[a-zA-Zß-ÿΑ-ω]{2,6}") {
            fuzz_identifiers(&[&[0], rest.as_bytes()].concat());
        }

        #[test]
        fn nearly_phones(rest in "(\\+|011|tel:|00|)[-0-9 ().x;=#*A-F]{2,20}(;phone-context=[+0-9a-z.]{0,5}|)") {
            fuzz_identifiers(&[&[1], rest.as_bytes()].concat());
        }

        #[test]
        fn numbers_abroad_are_kept(rest in "\\+(33|44|49|52|54|55|61|7|81|86|91|1)[1-9][0-9]{7,10}") {
            fuzz_identifiers(&[&[1], rest.as_bytes()].concat());
        }
    }
}
