//! Templates: values with places to fill in. In a body a placeholder is a whole value, so that no text can change the shape of
//! what is sent; mixed text is in paths, queries and headers alone, where each has its own escape.

use std::collections::BTreeMap;

use desist_core::identifier::Kind;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::expression::SyntaxError;
use crate::instance::Person;
use crate::limits::{EXPRESSION_BYTES_MAX, HEADER_BYTES_MAX, NAME_BYTES_MAX};
use crate::pipe::{Pipe, Piped, Unusable};
use crate::problem::{did_you_mean, shown};
use crate::settings::Bound;

/// All but the unreserved characters of RFC 3986 2.3.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Items,
    Item,
    Ids(Option<Kind>),
    Id(Option<Kind>),
    IdName,
    Value,
    Group,
    Groups,
    Lookup(Option<String>),
    Job,
    Each,
    Version,
    At,
    Purposes,
    Status,
    Setting(String),
}

/// Every placeholder without its pipe, as the documentation lists them.
pub const PLACEHOLDERS: [(&str, &str); 18] = [
    ("items", "the items of the call, or of the group: a list"),
    ("item", "the one item of the call, with `batch_items = 1`"),
    ("ids", "the identifiers of the person, each as its `emit` says: a list"),
    ("ids.KIND", "the spellings of that kind: a list of texts"),
    ("id", "the identifier, as its `emit` says"),
    ("id.KIND", "the spelling of the identifier; the op is about that kind alone"),
    ("id.name", "what the destination calls the kind of the identifier"),
    ("value", "the spelling of the identifier"),
    ("group", "what the items of the group have in common"),
    ("groups", "the groups: a list"),
    ("lookup", "the key that the look-up found"),
    ("lookup.NAME", "one of the values that the look-up found"),
    ("job", "the number of the job"),
    ("each", "the value of the list that `for_each` walks"),
    ("version", "the version of the person's state, a whole number that only grows"),
    ("at", "when the person's state changed: a time"),
    ("purposes", "the purposes of the choice: a list of texts"),
    ("status", "what holds now: `opt_out` or `opt_in`"),
];

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        let kind = |name: &str| {
            name.parse::<Kind>().map_err(|_| {
                let near = did_you_mean(name, Kind::ALL.into_iter().map(Kind::name));
                format!("there is no kind of identifier {}{near}", shown(name))
            })
        };
        let name = |name: &str| is_name(name).then(|| name.to_owned()).ok_or_else(|| format!("{} is not a name", shown(name)));
        Ok(match text.split_once('.') {
            Some(("ids", rest)) => Self::Ids(Some(kind(rest)?)),
            Some(("id", "name")) => Self::IdName,
            Some(("id", rest)) => Self::Id(Some(kind(rest)?)),
            Some(("lookup", rest)) => Self::Lookup(Some(name(rest)?)),
            Some(("settings", rest)) => Self::Setting(name(rest)?),
            _ => match text {
                "items" => Self::Items,
                "item" => Self::Item,
                "ids" => Self::Ids(None),
                "id" => Self::Id(None),
                "value" => Self::Value,
                "group" => Self::Group,
                "groups" => Self::Groups,
                "lookup" => Self::Lookup(None),
                "job" => Self::Job,
                "each" => Self::Each,
                "version" => Self::Version,
                "at" => Self::At,
                "purposes" => Self::Purposes,
                "status" => Self::Status,
                other => {
                    let known = PLACEHOLDERS.iter().map(|(name, _)| *name).chain(["settings.NAME"]);
                    return Err(format!("there is no placeholder {}{}", shown(other), did_you_mean(other, known)));
                }
            },
        })
    }

    /// Whether it says who is meant, rather than what holds of them.
    pub fn names_somebody(&self) -> bool {
        matches!(
            self,
            Self::Items
                | Self::Item
                | Self::Ids(_)
                | Self::Id(_)
                | Self::Value
                | Self::Groups
                | Self::Lookup(_)
                | Self::Group
                | Self::IdName
        )
    }
}

/// A name of a setting or of a looked-up value.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// `{{source|function|function}}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    pub source: Source,
    pub pipe: Pipe,
}

impl Placeholder {
    /// Reads what stands between the braces; `start` is where that begins.
    fn parse(inner: &str, start: usize) -> Result<Self, SyntaxError> {
        let (source, pipe) = inner.split_once('|').map_or((inner, None), |(source, pipe)| (source, Some((source.len() + 1, pipe))));
        let source = Source::parse(source.trim()).map_err(|message| SyntaxError::new(start, message))?;
        let pipe = match pipe {
            None => Pipe::default(),
            Some((at, pipe)) => Pipe::parse(pipe).map_err(|error| SyntaxError { at: start + at + error.at, ..error })?,
        };
        Ok(Self { source, pipe })
    }

    pub fn value(&self, scope: &Scope<'_>) -> Result<Piped, Unusable> {
        self.pipe.apply(scope.get(&self.source)?)
    }

    fn json(&self, scope: &Scope<'_>) -> Result<Value, Unusable> {
        json(self.value(scope)?)
    }

    fn text(&self, scope: &Scope<'_>) -> Result<String, Unusable> {
        let text = match self.value(scope)? {
            Piped::Text(text) | Piped::Json(Value::String(text)) => text,
            Piped::Int(number) => number.to_string(),
            Piped::Json(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Piped::Digest(..) => return Err(Unusable::HashOnly),
            Piped::Json(_) | Piped::Bytes(_) | Piped::Time(_) | Piped::List(_) | Piped::Missing => return Err(Unusable::Value),
        };
        // An empty segment or parameter is about everybody, or about nobody.
        if text.is_empty() { Err(Unusable::Value) } else { Ok(text) }
    }
}

/// As a value of a body.
pub(crate) fn json(value: Piped) -> Result<Value, Unusable> {
    Ok(match value {
        Piped::Text(text) => Value::String(text),
        Piped::Int(number) => Value::from(number),
        Piped::Json(value) => value,
        Piped::Digest(..) => return Err(Unusable::HashOnly),
        Piped::Bytes(_) | Piped::Time(_) | Piped::Missing => return Err(Unusable::Value),
        Piped::List(values) => {
            let mut failed = None;
            let kept: Vec<_> = values.into_iter().filter_map(|value| json(value).map_err(|why| failed = Some(why)).ok()).collect();
            match failed {
                Some(why) if kept.is_empty() => return Err(why),
                _ => Value::Array(kept),
            }
        }
    })
}

/// One spelling of one identifier of a person.
#[derive(Clone, PartialEq)]
pub(crate) struct Spelling {
    pub kind: Kind,
    pub name: String,
    pub value: Piped,
    pub emit: Result<Value, Unusable>,
}

/// What can be filled in at one place. What a place does not have was refused when the manifest was read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Scope<'a> {
    pub settings: Option<&'a BTreeMap<String, Bound>>,
    pub person: Option<&'a Person>,
    pub ids: &'a [Spelling],
    pub id: Option<&'a Spelling>,
    pub value: Option<&'a Piped>,
    pub row: Option<&'a Value>,
    pub items: Option<&'a [Value]>,
    pub groups: Option<&'a [Value]>,
    pub group: Option<&'a str>,
    pub each: Option<&'a Value>,
    pub job: Option<&'a str>,
}

impl Scope<'_> {
    fn get(&self, source: &Source) -> Result<Piped, Unusable> {
        let list = |values: &[Value]| Piped::Json(Value::Array(values.to_vec()));
        let person = |get: fn(&Person) -> Piped| self.person.map(get);
        let found = match source {
            Source::Items => self.items.map(list),
            Source::Item => self.items.and_then(|items| items.first()).cloned().map(Piped::Json),
            Source::Groups => self.groups.map(list),
            Source::Group => self.group.map(|group| Piped::Text(group.to_owned())),
            Source::Ids(None) => {
                let emitted: Vec<_> = self.ids.iter().filter_map(|id| id.emit.as_ref().ok()).cloned().collect();
                match self.ids.iter().find_map(|id| id.emit.as_ref().err()) {
                    Some(why) if emitted.is_empty() => return Err(*why),
                    _ => (!emitted.is_empty()).then_some(Piped::Json(Value::Array(emitted))),
                }
            }
            Source::Ids(Some(kind)) => {
                let values: Vec<_> = self.ids.iter().filter(|id| id.kind == *kind).map(|id| id.value.clone()).collect();
                (!values.is_empty()).then_some(Piped::List(values))
            }
            Source::Id(None) => match self.id {
                Some(id) => Some(Piped::Json(id.emit.clone()?)),
                None => None,
            },
            Source::Id(Some(_)) => self.id.map(|id| id.value.clone()),
            Source::IdName => self.id.map(|id| Piped::Text(id.name.clone())),
            Source::Value => self.value.cloned().or_else(|| self.id.map(|id| id.value.clone())),
            Source::Lookup(None) => self.row.cloned().map(Piped::Json),
            Source::Lookup(Some(name)) => self.row.and_then(|row| row.get(name)).cloned().map(Piped::Json),
            Source::Job => self.job.map(|job| Piped::Text(job.to_owned())),
            Source::Each => self.each.cloned().map(Piped::Json),
            Source::Version => person(|person| Piped::Json(Value::from(person.version))),
            Source::At => person(|person| Piped::Time(person.at)),
            Source::Purposes => person(|person| Piped::List(person.purposes.iter().cloned().map(Piped::Text).collect())),
            Source::Status => person(|person| Piped::Text(person.status.clone())),
            Source::Setting(name) => self.settings.and_then(|settings| settings.get(name)).map_or(Some(Piped::Missing), Bound::piped),
        };
        found.ok_or(Unusable::Value)
    }

    fn bound(&self, source: &Source) -> Option<&Bound> {
        let Source::Setting(name) = source else { return None };
        self.settings?.get(name)
    }
}

/// A template of a body: JSON in which a text can be a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Constant(Value),
    Placeholder(Placeholder),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

/// A member of a template that is no list and no table with something in it: its path, and what stands there.
pub(crate) struct Leaf<'n> {
    pub path: String,
    pub node: &'n Node,
}

impl Node {
    /// Errors carry the path of the value.
    pub fn parse(value: &Value, path: &mut Vec<String>, errors: &mut Vec<(Vec<String>, SyntaxError)>) -> Self {
        match value {
            Value::String(text) => match whole(text) {
                Ok(None) => Self::Constant(value.clone()),
                Ok(Some(placeholder)) => Self::Placeholder(placeholder),
                Err(error) => {
                    errors.push((path.clone(), error));
                    Self::Constant(Value::Null)
                }
            },
            Value::Array(items) => {
                let mut nodes = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    path.push(at.to_string());
                    nodes.push(Self::parse(item, path, errors));
                    path.pop();
                }
                Self::List(nodes)
            }
            Value::Object(members) => {
                let mut nodes = Vec::new();
                for (key, member) in members {
                    path.push(key.clone());
                    if key.contains("{{") || key.contains("}}") {
                        errors.push((path.clone(), SyntaxError::new(0, "the name of a member cannot be a placeholder")));
                    }
                    nodes.push((key.clone(), Self::parse(member, path, errors)));
                    path.pop();
                }
                Self::Table(nodes)
            }
            other => Self::Constant(other.clone()),
        }
    }

    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, Unusable> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Placeholder(placeholder) => placeholder.json(scope)?,
            Self::List(nodes) => Value::Array(nodes.iter().map(|node| node.render(scope)).collect::<Result<_, _>>()?),
            Self::Table(nodes) => {
                let members = nodes.iter().map(|(key, node)| Ok((key.clone(), node.render(scope)?)));
                Value::Object(members.collect::<Result<Map<_, _>, _>>()?)
            }
        })
    }

    /// All leaves, with dotted paths in which places of lists are left out.
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        fn walk<'n>(node: &'n Node, path: &str, found: &mut Vec<Leaf<'n>>) {
            match node {
                // What is empty is sent as it is, and empties what it is written into.
                Node::List(nodes) if nodes.is_empty() => found.push(Leaf { path: path.to_owned(), node }),
                Node::Table(nodes) if nodes.is_empty() => found.push(Leaf { path: path.to_owned(), node }),
                Node::List(nodes) => nodes.iter().for_each(|node| walk(node, path, found)),
                Node::Table(nodes) => {
                    for (key, node) in nodes {
                        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        walk(node, &path, found);
                    }
                }
                leaf => found.push(Leaf { path: path.to_owned(), node: leaf }),
            }
        }
        let mut found = Vec::new();
        walk(self, "", &mut found);
        found
    }

    pub fn placeholders(&self) -> Vec<&Placeholder> {
        let leaves = self.leaves().into_iter();
        leaves
            .filter_map(|leaf| match leaf.node {
                Self::Placeholder(placeholder) => Some(placeholder),
                _ => None,
            })
            .collect()
    }
}

/// A text that is one placeholder, or none at all.
fn whole(text: &str) -> Result<Option<Placeholder>, SyntaxError> {
    let parts = Text::parse(text)?.0;
    match &parts[..] {
        [Part::Placeholder(placeholder)] => Ok(Some(placeholder.clone())),
        _ if parts.iter().any(|part| matches!(part, Part::Placeholder(_))) => {
            let message = "in a body a placeholder is the whole value; text around it would let a value change what is said";
            Err(SyntaxError::new(0, message))
        }
        _ => Ok(None),
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

/// Text with placeholders in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text(pub Vec<Part>);

impl Text {
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > EXPRESSION_BYTES_MAX && text.contains("{{") {
            return Err(SyntaxError::new(0, format!("has more than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        while let Some(open) = text[at..].find("{{") {
            let start = at + open;
            let Some(length) = text[start + 2..].find("}}") else { return Err(SyntaxError::new(start, "{{ is not closed by }}")) };
            if start > at {
                parts.push(Part::Literal(text[at..start].to_owned()));
            }
            parts.push(Part::Placeholder(Placeholder::parse(&text[start + 2..start + 2 + length], start + 2)?));
            at = start + length + 4;
        }
        if at < text.len() {
            parts.push(Part::Literal(text[at..].to_owned()));
        }
        for part in &parts {
            if let Part::Literal(literal) = part
                && literal.contains("}}")
            {
                return Err(SyntaxError::new(0, "}} closes nothing"));
            }
        }
        Ok(Self(parts))
    }

    /// The text with a letter wherever something else than a setting stands.
    pub fn of_settings(&self) -> Self {
        let part = |part: &Part| match part {
            Part::Placeholder(Placeholder { source: Source::Setting(_) | Source::Each, .. }) | Part::Literal(_) => part.clone(),
            Part::Placeholder(_) => Part::Literal("a".to_owned()),
        };
        Self(self.0.iter().map(part).collect())
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Placeholder(placeholder) => Some(placeholder),
            Part::Literal(_) => None,
        })
    }

    /// As a path: what is filled in is one segment, but for settings of type `path`.
    pub fn path(&self, scope: &Scope<'_>) -> Result<String, Unusable> {
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => path.push_str(literal),
                Part::Placeholder(placeholder) => match scope.bound(&placeholder.source) {
                    Some(Bound::Path(given)) => path.push_str(given),
                    _ => path.extend(utf8_percent_encode(&placeholder.text(scope)?, ENCODED)),
                },
            }
        }
        if is_path(&path) { Ok(path) } else { Err(Unusable::Value) }
    }

    /// As a value of a query.
    pub fn query(&self, scope: &Scope<'_>) -> Result<String, Unusable> {
        let text = self.plain(scope)?;
        Ok(utf8_percent_encode(&text, ENCODED).to_string())
    }

    /// As a value of a header: characters of ASCII that can be seen, and spaces.
    pub fn header(&self, scope: &Scope<'_>) -> Result<String, Unusable> {
        let mut value = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => value.push_str(literal),
                Part::Placeholder(placeholder) => match scope.bound(&placeholder.source) {
                    Some(Bound::Secret(secret)) => value.push_str(secret.expose()),
                    _ => value.push_str(&placeholder.text(scope)?),
                },
            }
        }
        let is_good = value.len() <= HEADER_BYTES_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
        if is_good { Ok(value) } else { Err(Unusable::Value) }
    }

    /// Without any escape.
    pub fn plain(&self, scope: &Scope<'_>) -> Result<String, Unusable> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(placeholder) => text.push_str(&placeholder.text(scope)?),
            }
        }
        Ok(text)
    }
}

/// Whether it can be the path of a URL, with no segment that a server would take away: `.` and `..` stay dangerous when they are
/// encoded, and an empty segment would name a collection where a member is meant.
pub(crate) fn is_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_none() {
            continue;
        }
        // Proxies decode a segment before they take it apart, and some servers divide at both slashes.
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        if decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| matches!(part, b"" | b"." | b"..")) {
            return false;
        }
    }
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        b'/' => true,
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte),
    })
}
