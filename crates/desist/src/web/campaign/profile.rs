//! The profile: its fields, what a caller may write into them, and how one is shown.

use std::collections::BTreeMap;
use std::fmt;

use desist_core::identifier::{Identifier, Kind};
use jiff::civil::Date;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{CampaignError, Echo};
use super::path::is_well_formed_pkey;

/// Largest body of a write; a profile with every field full is below a sixteenth of it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Characters in each part of a location; no length is published, so this is the longest of any field.
const LOCATION_CHARS_MAX: usize = 255;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text of at most so many characters.
    Text(usize),
    /// True or false.
    Flag,
    /// `YYYY-MM-DD`, or empty.
    Date,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// A name of at most so many characters from an enumeration that this server has no list of.
    Name(usize),
    /// A whole number.
    Integer,
    /// Date and time in UTC, or empty.
    Timestamp,
    /// An object.
    Item,
}

/// Who sets a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The caller.
    Caller,
    /// The caller, into the log and not into the attributes.
    OptOut,
    /// The server; callers may send it back if it is the profile's own.
    Own,
    /// The server.
    Server,
}

/// One field, a row of [`FIELDS`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As in JSON; a dot stands between an object and its member.
    pub name: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Its text while nobody has set it; other types have a default of their own.
    pub unset: &'static str,
    /// Who sets it.
    pub access: Access,
    /// The identifier that its value is.
    pub identifier: Option<Kind>,
}

const fn row(name: &'static str, ty: Type, unset: &'static str, access: Access, identifier: Option<Kind>) -> Field {
    Field { name, ty, unset, access, identifier }
}

use Access::{Caller, OptOut, Own, Server};
use Type::{Choice, Flag, Integer, Item, Name, Text, Timestamp};

/// Every field of a profile, by name.
pub static FIELDS: &[Field] = &[
    row("PKey", Text(33), "", Own, None),
    row("acsId", Text(36), "", Server, None),
    row("age", Integer, "", Server, None),
    row("birthDate", Type::Date, "", Caller, None),
    row("blackList", Flag, "", Caller, None),
    row("blackListAllLastModified", Timestamp, "", Server, None),
    row("blackListEmail", Flag, "", Caller, None),
    row("blackListEmailLastModified", Timestamp, "", Server, None),
    row("blackListFax", Flag, "", Caller, None),
    row("blackListFaxLastModified", Timestamp, "", Server, None),
    row("blackListLastModified", Timestamp, "", Server, None),
    row("blackListMobile", Flag, "", Caller, None),
    row("blackListMobileLastModified", Timestamp, "", Server, None),
    row("blackListPhone", Flag, "", Caller, None),
    row("blackListPhoneLastModified", Timestamp, "", Server, None),
    row("blackListPostalMail", Flag, "", Caller, None),
    row("blackListPostalMailLastModified", Timestamp, "", Server, None),
    row("blackListPushnotification", Flag, "", Caller, None),
    row("ccpaOptOut", Flag, "", OptOut, None),
    row("ccpaOptOutLastModified", Timestamp, "", Server, None),
    row("created", Timestamp, "", Server, None),
    row("cryptedId", Text(255), "", Server, None),
    row("domain", Text(255), "", Server, None),
    row("email", Text(128), "", Caller, Some(Kind::Email)),
    row("emailFormat", Choice(&["unknown", "text", "html"]), "unknown", Caller, None),
    row("externalId", Text(100), "", Caller, Some(Kind::CustomerId)),
    row("fax", Text(32), "", Caller, None),
    row("firstName", Text(30), "", Caller, None),
    row("gender", Choice(&["unknown", "male", "female"]), "unknown", Caller, None),
    row("href", Text(255), "", Own, None),
    row("isExternal", Flag, "", Caller, None),
    row("lastModified", Timestamp, "", Server, None),
    row("lastName", Text(50), "", Caller, None),
    row("location", Item, "", Caller, None),
    row("location.address1", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.address2", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.address3", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.address4", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.city", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.countryCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.stateCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("location.zipCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
    row("middleName", Text(30), "", Caller, None),
    row("mobilePhone", Text(32), "", Caller, Some(Kind::Phone)),
    row("phone", Text(32), "", Caller, Some(Kind::Phone)),
    row("postalAddress", Item, "", Server, None),
    row("preferredLanguage", Name(64), "none", Caller, None),
    row("salutation", Text(20), "", Caller, None),
    row("subscriptions", Item, "", Server, None),
    row("thumbnail", Text(255), "/nl/img/thumbnails/defaultProfil.png", Caller, None),
    row("timeZone", Name(64), "none", Caller, None),
    row("title", Text(255), "", Server, None),
];

impl Field {
    fn named(name: &str) -> Option<&'static Self> {
        FIELDS.binary_search_by(|field| field.name.cmp(name)).ok().map(|at| &FIELDS[at])
    }
    /// The value while nobody has set it.
    pub fn default_value(&self) -> Value {
        match self.ty {
            Flag => Value::Bool(false),
            Integer => 0.into(),
            Item => Value::Object(Map::new()),
            _ => self.unset.into(),
        }
    }
    fn type_name(&self) -> &'static str {
        match self.ty {
            Text(_) => "text",
            Flag => "boolean",
            Type::Date => "date",
            Choice(_) | Name(_) => "enumeration",
            Integer => "integer",
            Timestamp => "timestamp",
            Item => "item",
        }
    }
    /// The value as it is stored, or why it is no value of this field.
    fn check(&self, value: Value) -> Result<Value, CampaignError> {
        let field = self.name;
        let wrong_type = |from| CampaignError::WrongType { field, from, to: self.type_name() };
        let invalid = |must| Err(CampaignError::Invalid { field, must });
        let text = match (value, self.ty) {
            (Value::Bool(flag), Flag) => return Ok(flag.into()),
            (Value::String(text), Text(_) | Type::Date | Choice(_) | Name(_)) => text,
            (other, _) => return Err(wrong_type(json_type(&other))),
        };
        let text = text.trim();
        if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
            return invalid("text without control characters");
        }
        if let Text(max) | Name(max) = self.ty
            && text.chars().count() > max
        {
            return Err(CampaignError::TooLong { field, max });
        }
        match self.ty {
            Type::Date if !text.is_empty() && parse_date(text).is_none() => return Err(wrong_type("text")),
            Choice(names) if !names.contains(&text) => {
                return Err(CampaignError::NotInEnumeration { field, value: Echo::choice(text) });
            }
            Name(_) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                return Err(CampaignError::NotInEnumeration { field, value: Echo::choice(text) });
            }
            // An opt-out has to reach the address, so one that cannot be looked up is not taken. A bad
            // phone number is: records in the field are full of extensions and remarks.
            Text(_) if self.identifier == Some(Kind::Email) && !text.is_empty() && Identifier::from_value(Kind::Email, text).is_err() => {
                return invalid("an e-mail address");
            }
            _ => {}
        }
        Ok(text.into())
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "collection",
        Value::Object(_) => "item",
    }
}

fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let number = |at: std::ops::Range<usize>| {
        bytes.get(at)?.iter().try_fold(0_i16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
    };
    let small = |at| number(at).and_then(|number| i8::try_from(number).ok());
    let shaped = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    if shaped { Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok() } else { None }
}

/// The caller-written fields of one profile that differ from their defaults, and the times the server
/// noted about them, by name of [`FIELDS`]. Names of a later version are kept and not shown.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Value>);

/// Checked values of caller-written fields.
#[derive(Clone, Default, PartialEq)]
pub struct Patch(BTreeMap<&'static str, Value>);

impl fmt::Debug for Attributes {
    /// Names only: values are personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Patch {
    /// Names only: values are personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Attributes {
    /// What is shown; a stored value of another type than the field's is a later version's, and unset here.
    fn get(&self, field: &Field) -> Value {
        let unset = field.default_value();
        let stored = self.0.get(field.name).filter(|value| json_type(value) == json_type(&unset));
        stored.cloned().unwrap_or(unset)
    }
    fn text<'a>(&'a self, name: &str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Which call a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<'a> {
    /// POST on the collection.
    Create,
    /// PATCH on a profile.
    Patch {
        /// The key in the URL.
        pkey: &'a str,
    },
}

/// What a body asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The fields to set.
    pub attributes: Patch,
    /// `ccpaOptOut`, if it is there.
    pub ccpa_opt_out: Option<bool>,
    /// Whether `ccpaOptOut` is the only member of the body, the profile's own `PKey` and `href` counted:
    /// only then is a `false` meant, and not carried along in a record.
    pub only_ccpa_opt_out: bool,
}

/// Reads the body of a write, whatever its Content-Type. The caller has checked [`BODY_BYTES_MAX`].
pub fn parse_body(bytes: &[u8], mode: Mode<'_>) -> Result<Change, CampaignError> {
    let Value::Object(members) = parse_json(bytes)? else { return Err(CampaignError::NotAnObject) };
    let only_ccpa_opt_out = members.len() == 1 && members.contains_key("ccpaOptOut");
    let mut change = Change { attributes: Patch::default(), ccpa_opt_out: None, only_ccpa_opt_out };
    // A dot is part of our names for members of objects, never of a caller's.
    let field = |path: &str, key: &str| {
        let known = if key.contains('.') { None } else { Field::named(path) };
        known.ok_or_else(|| CampaignError::UnknownAttribute(Echo::name(path)))
    };
    for (key, value) in members {
        let at = field(&key, &key)?;
        match (at.access, value) {
            (Server, _) => return Err(CampaignError::ReadOnly(at.name)),
            (Own, value) => check_own(at, &value, mode)?,
            (OptOut, value) => change.ccpa_opt_out = at.check(value)?.as_bool(),
            (Caller, Value::Object(parts)) if at.ty == Item => {
                for (part, value) in parts {
                    let at = field(&format!("{key}.{part}"), &part)?;
                    change.attributes.0.insert(at.name, at.check(value)?);
                }
            }
            (Caller, value) => drop(change.attributes.0.insert(at.name, at.check(value)?)),
        }
    }
    Ok(change)
}

/// A record that was read here names itself by `PKey` and `href`, and may when it comes back.
fn check_own(field: &Field, value: &Value, mode: Mode<'_>) -> Result<(), CampaignError> {
    let Mode::Patch { pkey } = mode else { return Err(CampaignError::ReadOnly(field.name)) };
    match value.as_str() {
        None => Err(CampaignError::WrongType { field: field.name, from: json_type(value), to: field.type_name() }),
        Some(text) if field.name != "PKey" || text == pkey => Ok(()),
        Some(text) if is_well_formed_pkey(text) => Err(CampaignError::KeyMismatch),
        Some(text) => Err(CampaignError::KeyUnreadable { pkey: Echo::pkey(text), in_body: true }),
    }
}

/// JSON in which every member occurs once; the plain reader would keep the last one silently.
fn parse_json(bytes: &[u8]) -> Result<Value, CampaignError> {
    let mut trail = Trail::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict(&mut trail).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| {
        let name = Echo::name(&trail.path.join("."));
        if trail.duplicate {
            CampaignError::Duplicate(name)
        } else if std::str::from_utf8(bytes).is_err() {
            CampaignError::NotUtf8(name)
        } else {
            CampaignError::NotJson { line: error.line(), column: error.column() }
        }
    })
}

/// Where the reader is; after an error, where it stopped.
#[derive(Default)]
struct Trail {
    path: Vec<String>,
    duplicate: bool,
}

struct Strict<'a>(&'a mut Trail);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict(self.0))? {
            list.push(item);
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            self.0.path.push(key.clone());
            if map.contains_key(&key) {
                self.0.duplicate = true;
                return Err(A::Error::custom("duplicate"));
            }
            let value = members.next_value_seed(Strict(self.0))?;
            self.0.path.pop();
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// Sets the fields of a patch and notes the time on each deny list that changed. Returns whether
/// anything changed.
pub fn apply(attributes: &mut Attributes, patch: Patch, now_ms: i64) -> bool {
    let before = attributes.clone();
    for (name, value) in patch.0 {
        let unset = Field::named(name).map(Field::default_value);
        if attributes.0.get(name).or(unset.as_ref()) == Some(&value) {
            continue;
        }
        let all = (name == "blackList").then(|| "blackListAllLastModified".to_owned());
        for stamp in [Some(format!("{name}LastModified")), all].into_iter().flatten() {
            if Field::named(&stamp).is_some() {
                attributes.0.insert(stamp, now_ms.into());
            }
        }
        if unset.as_ref() == Some(&value) {
            attributes.0.remove(name);
        } else {
            attributes.0.insert(name.to_owned(), value);
        }
    }
    *attributes != before
}

/// The identifiers among the attributes, as written. A phone number that is none is left out.
pub fn identifiers(attributes: &Attributes) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    for field in FIELDS {
        let Some(kind) = field.identifier else { continue };
        let one = (kind, attributes.text(field.name).to_owned());
        if Identifier::from_value(kind, &one.1).is_ok() && !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// What the server knows of a profile beside its attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Computed<'a> {
    /// The primary key.
    pub pkey: &'a str,
    /// Public URL up to and with the root that the caller used, no slash at the end.
    pub href_base: &'a str,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// Whether sale is denied.
    pub opt_out: bool,
    /// When that last changed, in milliseconds since 1970.
    pub opt_out_modified_ms: Option<i64>,
    /// The `cryptedId`.
    pub crypted_id: &'a str,
}

impl Computed<'_> {
    fn href(&self) -> String {
        format!("{}/profile/{}", self.href_base, self.pkey)
    }
}

/// The whole profile, every field with its value or default.
pub fn render(attributes: &Attributes, computed: &Computed<'_>, today: Date) -> Value {
    let mut profile = Map::new();
    for field in FIELDS.iter().filter(|field| field.name != "acsId") {
        let value = match field.ty {
            Timestamp => attributes.0.get(field.name).and_then(Value::as_i64).map_or(String::new(), timestamp).into(),
            _ => attributes.get(field),
        };
        match field.name.split_once('.') {
            Some((item, part)) => profile[item][part] = value,
            None => drop(profile.insert(field.name.to_owned(), value)),
        }
    }
    let text = |name| attributes.text(name);
    let (email, names) = (text("email"), join(&[text("firstName"), text("lastName")], " "));
    let bracketed = if email.is_empty() { String::new() } else { format!("({email})") };
    let own: [(&str, Value); 10] = [
        ("PKey", computed.pkey.into()),
        ("href", computed.href().into()),
        ("subscriptions", json!({"href": format!("{}/subscriptions/", computed.href())})),
        ("age", parse_date(text("birthDate")).map_or(0, |birth| age(birth, today)).into()),
        ("ccpaOptOut", computed.opt_out.into()),
        ("ccpaOptOutLastModified", computed.opt_out_modified_ms.map_or(String::new(), timestamp).into()),
        ("created", timestamp(computed.created_ms).into()),
        ("lastModified", timestamp(computed.modified_ms).into()),
        ("cryptedId", computed.crypted_id.into()),
        ("domain", email.rsplit_once('@').map_or("", |(_, domain)| domain).into()),
    ];
    profile.extend(own.map(|(name, value)| (name.to_owned(), value)));
    profile.insert("title".to_owned(), join(&[&names, &bracketed], " ").into());
    profile.insert("postalAddress".to_owned(), postal_address(attributes));
    Value::Object(profile)
}

/// The answer to a PATCH: where the profile is, and nothing of what it holds.
pub fn render_patch_answer(computed: &Computed<'_>) -> Value {
    json!({"PKey": computed.pkey, "href": computed.href()})
}

/// Six lines: the name, up to four of the address, and the place.
fn postal_address(attributes: &Attributes) -> Value {
    let name = join(&[attributes.text("firstName"), &attributes.text("lastName").to_uppercase()], " ");
    let part = |part| attributes.text(&format!("location.{part}"));
    let place = join(&["city", "stateCode", "zipCode"].map(part), " ");
    let address = ["address1", "address2", "address3", "address4"].map(part);
    let below: Vec<&str> = address.into_iter().chain([place.as_str()]).filter(|line| !line.is_empty()).collect();
    let lines: [&str; 6] = std::array::from_fn(|at| if at == 0 { &name } else { below.get(at - 1).copied().unwrap_or_default() });
    let mut shown = json!({
        "addrDefined": !below.is_empty(), "addrErrorCount": 0, "addrLastCheck": "", "addrQuality": "0",
        "serialized": lines.join("\n"),
    });
    for (at, line) in lines.iter().enumerate() {
        shown[format!("line{}", at + 1)] = (*line).into();
    }
    shown
}

fn join(parts: &[&str], with: &str) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(with)
}

/// Full years; 0 for a birth date still to come.
fn age(birth: Date, today: Date) -> i16 {
    let before_birthday = (today.month(), today.day()) < (birth.month(), birth.day());
    (today.year() - birth.year() - i16::from(before_birthday)).max(0)
}

/// `YYYY-MM-DD HH:MM:SS.mmmZ`; empty for a time that no calendar has.
fn timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or(String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::error::Compat;
    use super::*;

    const PKEY: &str = "@0123456789abcdefABCDEF-_01234567";
    const PATCH: Mode<'_> = Mode::Patch { pkey: PKEY };

    /// A body with one member, nested if the name has a dot; `raw` stands for the value.
    fn body(name: &str, raw: &[u8], twice: bool) -> Vec<u8> {
        let (outer, key) = name.split_once('.').map_or((None, name), |(outer, key)| (Some(outer), key));
        let member = [b"\"", key.as_bytes(), b"\":", raw].concat();
        let members = vec![member; 1 + usize::from(twice)].join(&b","[..]);
        let inner = [b"{", &members[..], b"}"].concat();
        outer.map_or(inner.clone(), |outer| [b"{\"", outer.as_bytes(), b"\":", &inner, b"}"].concat())
    }

    fn written() -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(|field| matches!(field.access, Caller | OptOut))
    }

    fn good(field: &Field) -> Value {
        match (field.ty, field.name) {
            (Flag, _) => true.into(),
            (Type::Date, _) => "1985-02-11".into(),
            (Choice(names), _) => names[1].into(),
            (_, "email") => "rosa.vega@example.org".into(),
            (_, "phone" | "mobilePhone") => "+15592345678".into(),
            (Item, _) => json!({}),
            (Name(max) | Text(max), _) => "x".repeat(max).into(),
            (Integer | Timestamp, _) => unreachable!("no caller writes these"),
        }
    }

    #[test]
    fn every_written_field_refuses_what_it_cannot_hold() {
        let mut checked = 0;
        for field in written() {
            let wrong = if matches!(field.ty, Flag) { "\"true\"" } else { "7" };
            let mut cases: Vec<(&str, Vec<u8>, u16)> = vec![
                ("null", body(field.name, b"null", false), 500),
                ("type", body(field.name, wrong.as_bytes(), false), 500),
                ("array", body(field.name, b"[{}]", false), 500),
                ("UTF-8", body(field.name, b"\"a\xff\"", false), 400),
                ("twice", body(field.name, good(field).to_string().as_bytes(), true), 400),
            ];
            if let Text(max) | Name(max) = field.ty {
                cases.push(("long", body(field.name, format!("\"{}\"", "é".repeat(max + 1)).as_bytes(), false), 400));
            }
            if field.ty != Item && field.ty != Flag {
                cases.push(("control", body(field.name, b"\"a\\u0000\"", false), 400));
            }
            for (what, bytes, adobe) in cases {
                for mode in [Mode::Create, PATCH] {
                    let error = parse_body(&bytes, mode).expect_err(what);
                    assert_eq!(error.pointer().as_deref(), Some(field.name), "{what}: {error}");
                    assert_eq!((error.status(Compat::Adobe), error.status(Compat::Strict)), (adobe, 400), "{what}: {error}");
                    assert!(error.to_string().contains(field.name), "{error}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 300);
        assert!(FIELDS.is_sorted_by_key(|field| field.name), "names are looked up by halves");
    }

    #[test]
    fn every_written_field_is_stored_and_shown() {
        for field in written().filter(|field| field.access == Caller && field.ty != Item) {
            let change = parse_body(&body(field.name, good(field).to_string().as_bytes(), false), PATCH).expect(field.name);
            let mut attributes = Attributes::default();
            assert!(apply(&mut attributes, change.attributes, 1_772_442_907_120), "{}", field.name);
            let shown = render(&attributes, &Computed::default(), jiff::civil::date(2026, 3, 2));
            assert_eq!(shown.pointer(&format!("/{}", field.name.replace('.', "/"))), Some(&good(field)), "{}", field.name);
            let stamp = &shown[format!("{}LastModified", field.name)];
            assert!(stamp.is_null() || stamp == "2026-03-02 09:15:07.120Z", "{}: {stamp}", field.name);
            let unset = field.default_value().to_string();
            let back = parse_body(&body(field.name, unset.as_bytes(), false), PATCH).expect(field.name).attributes;
            apply(&mut attributes, back, 2);
            assert!(attributes.0.keys().all(|name| name.ends_with("LastModified")), "defaults are not stored: {attributes:?}");
        }
    }

    #[test]
    fn server_fields_are_refused_and_own_ones_only_when_they_are_anothers() {
        for field in FIELDS.iter().filter(|field| field.access == Server) {
            assert_eq!(parse_body(&body(field.name, b"\"\"", false), PATCH), Err(CampaignError::ReadOnly(field.name)));
        }
        let patch = |pkey: &str| parse_body(json!({"PKey": pkey, "href": "x"}).to_string().as_bytes(), PATCH);
        assert!(patch(PKEY).is_ok());
        assert_eq!(patch(&PKEY.replace('0', "9")), Err(CampaignError::KeyMismatch));
        let unreadable = patch("@bogus").expect_err("no key");
        assert_eq!((unreadable.status(Compat::Adobe), unreadable.pointer().as_deref()), (404, Some("PKey")));
        for own in ["PKey", "href"] {
            assert_eq!(parse_body(&body(own, b"\"x\"", false), Mode::Create), Err(CampaignError::ReadOnly(own)));
            assert_eq!(parse_body(&body(own, b"null", false), PATCH).expect_err("null").pointer().as_deref(), Some(own));
        }
    }

    #[test]
    fn bodies_that_are_no_profile() {
        let deep = "[".repeat(100_000);
        for (bytes, text) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("{}x", "not JSON"),
            ("{\"email\":1e999}", "not JSON"),
            (&deep, "not JSON"),
            ("\u{feff}{}", "not JSON"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{\"shoeSize\":44}", "'shoeSize' property is not valid"),
            ("{\"Email\":\"\"}", "'Email' property"),
            ("{\"location\":{\"planet\":\"x\"}}", "'location.planet' property"),
            ("{\"location.city\":\"x\"}", "'location.city' property"),
            ("{\"location\":{\"city\":{\"a\":1}}}", "Cannot convert 'location.city' (type item) to text"),
            ("{\"rosa@example.org\":1}", "A property is not valid"),
            ("{\"x\":[{\"a\":1,\"a\":2}]}", "'x.a' occurs more than once"),
            ("{\"gender\":\"other\"}", "'other' is not in the enumeration of 'gender'"),
            ("{\"timeZone\":\"Europe/Paris\"}", "of 'timeZone'"),
            ("{\"birthDate\":\"2001-02-29\"}", "BAS-010040 Cannot convert 'birthDate' (type text) to date"),
            ("{\"birthDate\":\"2001-2-9\"}", "to date"),
            ("{\"birthDate\":\"+001-02-03\"}", "to date"),
            ("{\"email\":\"rosa\"}", "'email' must be an e-mail address"),
            ("{\"age\":3}", "Cannot update the 'age' property that is read-only\n'age' property is not valid"),
        ] {
            let error = parse_body(bytes.as_bytes(), PATCH).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn only_a_lone_opt_out_is_a_lone_opt_out() {
        let read = |text: &str| parse_body(text.as_bytes(), PATCH).map(|change| (change.ccpa_opt_out, change.only_ccpa_opt_out));
        assert_eq!(read("{\"ccpaOptOut\":false}"), Ok((Some(false), true)));
        assert_eq!(read("{\"ccpaOptOut\":true,\"firstName\":\"John\"}"), Ok((Some(true), false)));
        assert_eq!(read("{\"ccpaOptOut\":false,\"location\":{}}"), Ok((Some(false), false)));
        assert_eq!(read(&json!({"ccpaOptOut": false, "PKey": PKEY}).to_string()), Ok((Some(false), false)));
        assert_eq!(read(" {} "), Ok((None, false)));
    }

    const SHOWN: &str = r#"{"PKey":"PK","age":41,"birthDate":"1985-02-11","blackList":false,"blackListAllLastModified":"",
        "blackListEmail":false,"blackListEmailLastModified":"","blackListFax":false,"blackListFaxLastModified":"",
        "blackListLastModified":"","blackListMobile":false,"blackListMobileLastModified":"","blackListPhone":false,
        "blackListPhoneLastModified":"","blackListPostalMail":false,"blackListPostalMailLastModified":"",
        "blackListPushnotification":false,"ccpaOptOut":true,"ccpaOptOutLastModified":"2026-03-02 09:15:07.120Z",
        "created":"2026-01-10 17:40:00.000Z","cryptedId":"c2FtcGxlLW9ubHk=","domain":"example.org",
        "email":"rosa.vega@example.org","emailFormat":"unknown","externalId":"C-1","fax":"","firstName":"Rosa",
        "gender":"female","href":"https://optout.example.com/acme/campaign/profilesAndServices/profile/PK",
        "isExternal":false,"lastModified":"2026-03-02 09:15:07.120Z","lastName":"Vega",
        "location":{"address1":"","address2":"","address3":"12 Elm St","address4":"","city":"Fresno","countryCode":"US",
            "stateCode":"CA","zipCode":"93701"},
        "middleName":"","mobilePhone":"(559) 234-5678","phone":"call after six",
        "postalAddress":{"addrDefined":true,"addrErrorCount":0,"addrLastCheck":"","addrQuality":"0","line1":"Rosa VEGA",
            "line2":"12 Elm St","line3":"Fresno CA 93701","line4":"","line5":"","line6":"",
            "serialized":"Rosa VEGA\n12 Elm St\nFresno CA 93701\n\n\n"},
        "preferredLanguage":"none","salutation":"",
        "subscriptions":{"href":"https://optout.example.com/acme/campaign/profilesAndServices/profile/PK/subscriptions/"},
        "thumbnail":"/nl/img/thumbnails/defaultProfil.png","timeZone":"none","title":"Rosa Vega (rosa.vega@example.org)"}"#;

    #[test]
    fn a_profile_is_shown_whole() {
        let parse = |value: Value| parse_body(value.to_string().as_bytes(), Mode::Create).expect("good").attributes;
        let mut attributes = Attributes::default();
        apply(
            &mut attributes,
            parse(json!({
                "firstName": " Rosa ", "lastName": "Vega", "email": "rosa.vega@example.org", "birthDate": "1985-02-11", "gender": "female",
                "location": {"address3": "12 Elm St", "city": "Fresno", "countryCode": "US", "stateCode": "CA"},
                "phone": "call after six", "mobilePhone": "(559) 234-5678", "externalId": "C-1",
            })),
            0,
        );
        assert!(apply(&mut attributes, parse(json!({"location": {"zipCode": "93701"}})), 0), "a location merges");
        assert!(!apply(&mut attributes, parse(json!({"location": {"zipCode": "93701"}, "fax": ""})), 0));
        let computed = Computed {
            pkey: PKEY,
            href_base: "https://optout.example.com/acme/campaign/profilesAndServices",
            created_ms: 1_768_066_800_000,
            modified_ms: 1_772_442_907_120,
            opt_out: true,
            opt_out_modified_ms: Some(1_772_442_907_120),
            crypted_id: "c2FtcGxlLW9ubHk=",
        };
        let shown = render(&attributes, &computed, jiff::civil::date(2026, 3, 2));
        let expected: Value =
            serde_json::from_str(&SHOWN.replace("/PK", &format!("/{PKEY}")).replace("\"PK\"", &format!("\"{PKEY}\""))).expect("JSON");
        assert_eq!(shown, expected);
        assert_eq!(shown.as_object().map(Map::len), Some(FIELDS.len() - 9), "all but acsId and the parts of location");
        assert_eq!(render_patch_answer(&computed), json!({"PKey": PKEY, "href": shown["href"]}));
        let kinds: Vec<_> = identifiers(&attributes).into_iter().map(|(_, text)| text).collect();
        assert_eq!(kinds, ["rosa.vega@example.org", "C-1", "(559) 234-5678"]);
        // Read, changed in place and written back: every field a caller may write is taken as it is shown.
        let mut record = shown;
        let members = record.as_object_mut().expect("an object");
        members.retain(|name, _| Field::named(name).is_some_and(|field| field.access != Server));
        let back = parse_body(record.to_string().as_bytes(), PATCH).expect("as shown");
        assert!(!apply(&mut attributes, back.attributes, 9) && !back.only_ccpa_opt_out);
    }

    #[test]
    fn what_a_later_version_stored_is_kept() {
        let stored = r#"{"email":7,"firstName":"Rosa","shoeSize":{"eu":44}}"#;
        let attributes: Attributes = serde_json::from_str(stored).expect("a map");
        assert_eq!(serde_json::to_string(&attributes).expect("a map"), stored);
        let shown = render(&attributes, &Computed::default(), jiff::civil::date(2026, 3, 2));
        assert_eq!((&shown["email"], &shown["firstName"], shown.get("shoeSize")), (&json!(""), &json!("Rosa"), None));
        assert!(!format!("{attributes:?}").contains("Rosa"));
    }

    #[test]
    fn ages_count_full_years() {
        let on = |birth, today: &str| age(parse_date(birth).expect("a date"), parse_date(today).expect("a date"));
        assert_eq!([on("1985-02-11", "2026-02-10"), on("1985-02-11", "2026-02-11"), on("2030-01-01", "2026-02-11")], [40, 41, 0]);
        assert_eq!([on("2004-02-29", "2022-02-28"), on("2004-02-29", "2022-03-01")], [17, 18]);
    }
}
