//! What a resource's records look like: its fields, what a caller may write into them, and what is
//! stored of them. Profiles and services are read and written by this one description.

use std::collections::BTreeMap;
use std::fmt;

use desist_core::identifier::{Identifier, Kind};
use jiff::civil::Date;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{CampaignError, Echo};
use super::path::is_well_formed_pkey;
use crate::config::{CustomField, FieldKind};

/// Largest body of a write; a profile with every field full is below a sixteenth of it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text of at most so many characters.
    Text(usize),
    /// True or false.
    Flag,
    /// `YYYY-MM-DD`, or empty.
    Date,
    /// One of these names; the first is the default.
    Choice(Vec<String>),
    /// A name of at most so many characters from an enumeration that this server has no list of.
    Name(usize),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Date and time in UTC, or empty.
    Timestamp,
    /// An object.
    Item,
}

impl Type {
    /// One of these names.
    pub fn choice(names: &[&str]) -> Self {
        Self::Choice(names.iter().map(|&name| name.to_owned()).collect())
    }
}

/// Who sets a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The caller.
    Caller,
    /// The caller, into the log and not into the attributes.
    OptOut,
    /// The server; callers may send it back if it is the record's own.
    Own,
    /// The server.
    Server,
}

use Access::{Caller, OptOut, Own, Server};
use Type::{Choice, Flag, Integer, Item, Name, Number, Text, Timestamp};

/// One field of a resource.
#[derive(Clone, Debug)]
pub struct Field {
    /// As in JSON; a dot stands between an object and its member.
    pub name: String,
    /// What it holds.
    pub ty: Type,
    /// Its text while nobody has set it; other types have a default of their own.
    pub unset: &'static str,
    /// Who sets it.
    pub access: Access,
    /// The identifier that its value is.
    pub identifier: Option<Kind>,
    /// What people call it; empty where the name says it.
    pub label: String,
}

impl From<&CustomField> for Field {
    fn from(custom: &CustomField) -> Self {
        let ty = match custom.kind {
            FieldKind::String => Text(custom.chars_max()),
            FieldKind::Number => Number,
            FieldKind::Boolean => Flag,
            FieldKind::Date => Type::Date,
            // The empty one first: nobody chose yet.
            FieldKind::Enumeration => Choice([String::new()].into_iter().chain(custom.values.iter().cloned()).collect()),
        };
        Self { label: custom.label.clone().unwrap_or_default(), ..Self::new(&custom.name, ty, "", Caller, None) }
    }
}

impl Field {
    /// A field of the built-in resources.
    pub fn new(name: &str, ty: Type, unset: &'static str, access: Access, identifier: Option<Kind>) -> Self {
        Self { name: name.to_owned(), ty, unset, access, identifier, label: String::new() }
    }
    /// The value while nobody has set it.
    pub fn default_value(&self) -> Value {
        match &self.ty {
            Flag => Value::Bool(false),
            Integer | Number => 0.into(),
            Item => Value::Object(Map::new()),
            Choice(names) if self.unset.is_empty() => names.first().map_or("", String::as_str).into(),
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
            Number => "number",
            Timestamp => "timestamp",
            Item => "item",
        }
    }
    /// The value as it is stored, or why it is no value of this field.
    fn check(&self, value: Value) -> Result<Value, CampaignError> {
        let field = || self.name.clone();
        let wrong_type = |from| CampaignError::WrongType { field: field(), from, to: self.type_name() };
        let invalid = |must| Err(CampaignError::Invalid { field: field(), must });
        let text = match (value, &self.ty) {
            (Value::Bool(flag), Flag) => return Ok(flag.into()),
            (Value::Number(number), Number) => return Ok(number.into()),
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
            return Err(CampaignError::TooLong { field: field(), max });
        }
        match &self.ty {
            Type::Date if !text.is_empty() && parse_date(text).is_none() => return Err(wrong_type("text")),
            Choice(names) if names.iter().all(|name| name != text) => {
                return Err(CampaignError::NotInEnumeration { field: field(), value: Echo::choice(text) });
            }
            Name(_) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                return Err(CampaignError::NotInEnumeration { field: field(), value: Echo::choice(text) });
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

/// The day that `YYYY-MM-DD` names.
pub fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let number = |at: std::ops::Range<usize>| {
        bytes.get(at)?.iter().try_fold(0_i16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
    };
    let small = |at| number(at).and_then(|number| i8::try_from(number).ok());
    let shaped = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    if shaped { Date::new(number(0..4)?, small(5..7)?, small(8..10)?).ok() } else { None }
}

/// The caller-written fields of one record that differ from their defaults, and the times the server
/// noted about them, by name of field. Names of a later version are kept and not shown.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Value>);

/// Checked values of caller-written fields.
#[derive(Clone, Default, PartialEq)]
pub struct Patch(BTreeMap<String, Value>);

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
    pub fn get(&self, field: &Field) -> Value {
        let unset = field.default_value();
        let stored = self.0.get(&field.name).filter(|value| json_type(value) == json_type(&unset));
        stored.cloned().unwrap_or(unset)
    }
    /// The text of a field; empty while it has none.
    pub fn text<'a>(&'a self, name: &str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Patch {
    /// The text that the patch gives a field, if it does.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
    /// The same without a field.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }
}

/// Which call a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<'a> {
    /// POST on the collection.
    Create,
    /// PATCH on a record.
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

/// A resource: its name in URLs, and its fields.
#[derive(Clone, Debug)]
pub struct Schema {
    /// As in the URL.
    pub resource: &'static str,
    fields: Vec<Field>,
}

impl Schema {
    /// A resource with these fields.
    pub fn new(resource: &'static str, mut fields: Vec<Field>) -> Self {
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        Self { resource, fields }
    }
    /// The fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
    /// A field by its name.
    pub fn named(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// Reads the body of a write, whatever its Content-Type. The caller has checked [`BODY_BYTES_MAX`].
    pub fn parse_body(&self, bytes: &[u8], mode: Mode<'_>) -> Result<Change, CampaignError> {
        let Value::Object(members) = parse_json(bytes)? else { return Err(CampaignError::NotAnObject) };
        let only_ccpa_opt_out = members.len() == 1 && members.contains_key("ccpaOptOut");
        let mut change = Change { attributes: Patch::default(), ccpa_opt_out: None, only_ccpa_opt_out };
        // A dot is part of our names for members of objects, never of a caller's.
        let field = |path: &str, key: &str| {
            let known = if key.contains('.') { None } else { self.named(path) };
            known.ok_or_else(|| CampaignError::UnknownAttribute { resource: self.resource, name: Echo::name(path) })
        };
        for (key, value) in members {
            let at = field(&key, &key)?;
            match (at.access, value) {
                (Server, _) => return Err(self.read_only(at)),
                (Own, value) => self.check_own(at, &value, mode)?,
                (OptOut, value) => change.ccpa_opt_out = at.check(value)?.as_bool(),
                (Caller, Value::Object(parts)) if at.ty == Item => {
                    for (part, value) in parts {
                        let at = field(&format!("{key}.{part}"), &part)?;
                        change.attributes.0.insert(at.name.clone(), at.check(value)?);
                    }
                }
                (Caller, value) => drop(change.attributes.0.insert(at.name.clone(), at.check(value)?)),
            }
        }
        Ok(change)
    }

    fn read_only(&self, field: &Field) -> CampaignError {
        CampaignError::ReadOnly { resource: self.resource, field: field.name.clone() }
    }

    /// A record that was read here names itself by `PKey` and `href`, and may when it comes back.
    fn check_own(&self, field: &Field, value: &Value, mode: Mode<'_>) -> Result<(), CampaignError> {
        let Mode::Patch { pkey } = mode else { return Err(self.read_only(field)) };
        match value.as_str() {
            None => Err(CampaignError::WrongType { field: field.name.clone(), from: json_type(value), to: field.type_name() }),
            Some(text) if field.name != "PKey" || text == pkey => Ok(()),
            Some(text) if is_well_formed_pkey(text) => Err(CampaignError::KeyMismatch),
            Some(text) => Err(CampaignError::KeyUnreadable { pkey: Echo::pkey(text), in_body: true }),
        }
    }

    /// Sets the fields of a patch and notes the time on each deny list that changed. Returns whether
    /// anything changed.
    pub fn apply(&self, attributes: &mut Attributes, patch: Patch, now_ms: i64) -> bool {
        let before = attributes.clone();
        for (name, value) in patch.0 {
            let unset = self.named(&name).map(Field::default_value);
            if attributes.0.get(&name).or(unset.as_ref()) == Some(&value) {
                continue;
            }
            let all = (name == "blackList").then(|| "blackListAllLastModified".to_owned());
            for stamp in [Some(format!("{name}LastModified")), all].into_iter().flatten() {
                if self.named(&stamp).is_some() {
                    attributes.0.insert(stamp, now_ms.into());
                }
            }
            if unset.as_ref() == Some(&value) {
                attributes.0.remove(&name);
            } else {
                attributes.0.insert(name, value);
            }
        }
        *attributes != before
    }

    /// Every field with its value or default, for the server to write its own over.
    pub fn render(&self, attributes: &Attributes) -> Map<String, Value> {
        let mut record = Map::new();
        for field in &self.fields {
            let value = match field.ty {
                Timestamp => attributes.0.get(&field.name).and_then(Value::as_i64).map_or(String::new(), timestamp).into(),
                _ => attributes.get(field),
            };
            match field.name.split_once('.') {
                Some((item, part)) => record[item][part] = value,
                None => drop(record.insert(field.name.clone(), value)),
            }
        }
        record
    }
}

/// JSON in which every member occurs once; the plain reader would keep the last one silently.
pub fn parse_json(bytes: &[u8]) -> Result<Value, CampaignError> {
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

/// `YYYY-MM-DD HH:MM:SS.mmmZ`; empty for a time that no calendar has.
pub fn timestamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or(String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string())
}
