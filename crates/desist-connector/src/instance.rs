//! A manifest with an operator's settings: renders the calls. What is sent, when, and by whom is the engine's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use desist_core::identifier::Kind;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use crate::declared::{Effect, Method, SettingKind, Unit};
use crate::limits::URL_BYTES_MAX;
use crate::lint::is_host;
use crate::manifest::{Manifest, Op, Request};
use crate::pipe::{Piped, Unusable, hex};
use crate::problem::{Problem, did_you_mean, shown};
use crate::settings::{Approvals, Auth, Bound, Given, Secret, bind_auth, setting_problem};
use crate::template::{ENCODED, Part, Placeholder, Scope, Source, Spelling, Text, json};

/// An identifier of a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Identifier {
    /// What it is.
    pub kind: Kind,
    /// Its normal form, if it is known.
    pub text: Option<String>,
    /// The SHA-256 of its normal form, used where the text is not known.
    pub sha256: Option<[u8; 32]>,
}

/// Somebody who is to be told about.
#[derive(Clone, PartialEq)]
pub struct Person {
    /// What the caller knows the person by; it comes back with each result and is never sent.
    pub token: u64,
    /// The version of the person's state.
    pub version: u64,
    /// When that state began, in seconds since 1970.
    pub at: i64,
    /// The purposes of the choice.
    pub purposes: Vec<String>,
    /// What holds now: `opt_out` or `opt_in`.
    pub status: String,
    /// How the person is known.
    pub identifiers: Vec<Identifier>,
    /// What the look-up found, for ops and verifications about rows.
    pub lookup: Vec<Value>,
}

// What people are known by is in neither.
impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({}, …)", self.kind)
    }
}
impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Person({}, …)", self.token)
    }
}

/// Why somebody, or one identifier of theirs, cannot be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing that the destination takes is known of the person.
    NoIdentifier,
    /// Only a digest is known, and the destination asks for something else than that digest.
    HashOnly,
    /// The value cannot be written as the destination asks for it.
    Unusable,
    /// The op is about other kinds of identifiers, and another op of the same choice and purposes is about those of the person.
    OtherKinds,
    /// Nothing was looked up.
    NoRows,
    /// The item alone is larger than a call may be.
    TooLarge,
}

impl From<Unusable> for Why {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::HashOnly => Self::HashOnly,
            Unusable::Value => Self::Unusable,
        }
    }
}

/// Somebody, or one identifier of theirs, that is not in the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreachable {
    /// The person.
    pub token: u64,
    /// The kind of the identifier that was left out. `None`: the person is in no call of this op, and must not count as told,
    /// whatever else was sent, unless [`Why::OtherKinds`] says that another op tells of them.
    pub identifier: Option<Kind>,
    /// Why.
    pub why: Why,
}

/// Why nothing can be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The manifest has no such op, or no such table.
    #[error("the connector does not declare this call")]
    NotDeclared,
    /// The transport is not HTTP: see [`Instance::rows`].
    #[error("the connector does not speak HTTP; it has rows")]
    NotHttp,
    /// A setting cannot be written where the manifest puts it.
    #[error("a setting cannot be written where the connector puts it; check its value")]
    Setting,
    /// A call would leave the declared hosts.
    #[error("the call would go to a host that the connector does not declare")]
    Host,
}

/// One item of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallUnit {
    /// The person it is about. A person can have several.
    pub token: u64,
}

/// Which part of the manifest a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The op of that place.
    Op(usize),
    /// `[op.poll]` of the op of that place.
    Poll(usize),
    /// `[lookup]`
    Lookup,
    /// `[verify]`
    Verify,
    /// `[probe]`
    Probe,
    /// `[setup.check]` of that place.
    SetupCheck(usize),
    /// `[setup.create]` of that place.
    SetupCreate(usize),
}

/// A request, ready to be authenticated and sent.
#[derive(Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The URL, with personal data in it where the destination asks for that.
    pub url: String,
    /// Headers, with names in lower case. Any of them can hold a secret.
    pub headers: Vec<(String, Secret)>,
    /// The body.
    pub body: Vec<u8>,
    /// What it is about, in the order of the body.
    pub units: Vec<CallUnit>,
    /// Where it comes from.
    pub origin: Origin,
    pub(crate) items: Vec<(String, Value)>,
    each: Option<Value>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({} {:?}, {} units, {} bytes, …)", self.method.name(), self.origin, self.units.len(), self.body.len())
    }
}

/// Something that must exist before the first call.
#[derive(Clone, Debug)]
pub struct SetupStep {
    /// What it is.
    pub name: String,
    /// Looks whether it exists.
    pub check: Call,
    /// Makes it.
    pub create: Call,
}

/// One row, for transports that are not HTTP.
#[derive(Clone, PartialEq)]
pub struct Row {
    /// The person it is about.
    pub token: u64,
    /// What it holds.
    pub value: Value,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({}, …)", self.token)
    }
}

/// A manifest with settings.
pub struct Instance {
    pub(crate) manifest: Manifest,
    settings: BTreeMap<String, Bound>,
    hosts: Vec<String>,
    auth: Auth,
    approvals: Approvals,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instance({}, …)", self.manifest.id())
    }
}

/// An item on its way into a call, with what it is made of.
struct Entry<'p> {
    person: &'p Person,
    ids: Vec<Spelling>,
    id: Option<Spelling>,
    row: Option<&'p Value>,
    item: Value,
}

impl Entry<'_> {
    fn group(&self) -> &str {
        self.id.as_ref().map_or("", |id| &id.name)
    }
}

impl Instance {
    /// Binds settings. Nothing is sent to hosts, and nobody is deleted, that the operator did not agree to.
    pub fn new(manifest: &Manifest, given: &BTreeMap<String, Given>, approvals: Approvals) -> Result<Self, Vec<Problem>> {
        let declared = &manifest.declared;
        let mut problems = Vec::new();
        let mut add = |path: &str, message: String, hint: &str| {
            let (file, path, hint) = (declared.connector.id.clone(), path.to_owned(), hint.to_owned());
            problems.push(Problem { file, line: 0, column: 0, path, message, hint });
        };
        for name in given.keys().filter(|name| !declared.settings.contains_key(*name)) {
            let near = did_you_mean(name, declared.settings.keys().map(String::as_str));
            add("settings", format!("there is no setting {}{near}", shown(name)), "see `desist connector show` for what there is");
        }
        let mut settings = BTreeMap::new();
        for (name, setting) in &declared.settings {
            let path = format!("settings.{name}");
            let value = match (given.get(name), &setting.default) {
                (Some(Given::Secret(secret)), _) if setting.kind == SettingKind::Secret => {
                    if let Some(message) = setting_problem(setting, &Value::from(secret.expose())) {
                        add(&path, message, "check the file or variable that holds it");
                    }
                    settings.insert(name.clone(), Bound::Secret(secret.clone()));
                    continue;
                }
                (Some(_), _) if setting.kind == SettingKind::Secret => {
                    add(&path, "is a secret, and stands in the configuration".to_owned(), "refer to a file or a variable instead");
                    continue;
                }
                (Some(Given::Secret(_)), _) => {
                    add(&path, "is no secret, and is given as one".to_owned(), "write its value");
                    continue;
                }
                (Some(Given::Value(value)), _) | (None, Some(value)) => value,
                (None, None) => {
                    if setting.required {
                        add(&path, "is missing".to_owned(), setting.doc.as_deref().unwrap_or("the connector needs it"));
                    }
                    continue;
                }
            };
            if let Some(message) = setting_problem(setting, value) {
                add(&path, message, setting.doc.as_deref().unwrap_or("see `desist connector show`"));
                continue;
            }
            let text = || value.as_str().unwrap_or_default().to_owned();
            let bound = match setting.kind {
                SettingKind::Path => Bound::Path(text()),
                SettingKind::Int => Bound::Int(value.as_i64().unwrap_or_default()),
                SettingKind::Bool => Bound::Bool(value.as_bool().unwrap_or_default()),
                SettingKind::List => Bound::List(value.as_array().cloned().unwrap_or_default()),
                SettingKind::String | SettingKind::Enum | SettingKind::Host | SettingKind::Secret => Bound::Text(text()),
            };
            settings.insert(name.clone(), bound);
        }
        for (place, op) in manifest.ops.iter().enumerate() {
            if op.effect == Effect::Delete && !approvals.delete {
                let hint = "deletion is not an opt-out and cannot be undone; approve it for this destination, or choose another connector";
                add(&format!("op.{place}"), "deletes people's data".to_owned(), hint);
            }
            let each = op.each.as_ref().and_then(|each| settings.get(each));
            if let Some(Bound::List(values)) = each {
                let is_text = |value: &Value| value.is_i64() || value.as_str().is_some_and(|text| !matches!(text, "" | "." | ".."));
                if !values.iter().all(is_text) {
                    let path = format!("settings.{}", op.each.as_deref().unwrap_or_default());
                    add(&path, "has something else than texts and whole numbers".to_owned(), "the calls are made once for each of them");
                }
            }
        }
        if approvals.dry_run && declared.dry_run.is_none() {
            add("dry_run", "the connector has no dry run".to_owned(), "its API cannot check a call without carrying it out");
        }
        let scope = Scope { settings: Some(&settings), ..Scope::default() };
        let mut hosts = Vec::new();
        for text in &manifest.hosts {
            let host = text.plain(&scope).unwrap_or_default();
            let label = match (&text.0[..], text.0.len()) {
                ([Part::Placeholder(Placeholder { source: Source::Setting(name), .. }), ..], 2) => settings.get(name),
                _ => None,
            };
            // A first label is one label: with a dot in it the host would have another owner's name in front, or a port.
            let is_label = !matches!(label, Some(Bound::Text(label)) if label.contains(['.', ':']));
            if !(is_host(&host) && is_label) && problems.is_empty() {
                let (file, hint) =
                    (declared.connector.id.clone(), "a host's setting is one label of letters, digits and hyphens".to_owned());
                let message = "the settings do not make a host".to_owned();
                problems.push(Problem { file, line: 0, column: 0, path: "connector.hosts".to_owned(), message, hint });
            }
            hosts.push(host);
        }
        if problems.is_empty() {
            problems = setting_texts(manifest, scope);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut auth = bind_auth(manifest, &settings);
        if let Some(token_url) = auth.token_url_mut().filter(|_| approvals.http_loopback) {
            let host = token_url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            if is_loopback(host) {
                token_url.replace_range(.."https".len(), "http");
            }
        }
        Ok(Self { manifest: manifest.clone(), settings, hosts, auth, approvals })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How a call proves who makes it.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The hosts that calls can go to, with ports where they have one.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What a setting that is a text, one of several words or a path holds, for a transport that reads its settings itself.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.settings.get(name) {
            Some(Bound::Text(text) | Bound::Path(text)) => Some(text),
            _ => None,
        }
    }

    /// What a setting that is a whole number holds.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.settings.get(name) {
            Some(Bound::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// What a setting that is a secret holds.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.settings.get(name) {
            Some(Bound::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope { settings: Some(&self.settings), ..Scope::default() }
    }

    /// The calls that carry `op` out for these people, and who is not in them.
    pub fn calls(&self, op: usize, people: &[Person]) -> Result<(Vec<Call>, Vec<Unreachable>), RenderError> {
        let declared = self.manifest.ops.get(op).ok_or(RenderError::NotDeclared)?;
        let request = declared.request.as_ref().ok_or(RenderError::NotHttp)?;
        let (mut calls, mut left) = (Vec::new(), BTreeSet::new());
        for each in self.each(declared) {
            let entries = self.entries(declared, people, each.as_ref(), &mut left);
            if self.manifest.limits.batch_items > 1 {
                self.batches(op, declared, entries, each.as_ref(), &mut calls, &mut left)?;
                continue;
            }
            for entry in entries {
                let items = vec![(entry.group().to_owned(), entry.item.clone())];
                let scope = Scope {
                    person: Some(entry.person),
                    ids: &entry.ids,
                    id: entry.id.as_ref(),
                    row: entry.row,
                    each: each.as_ref(),
                    ..self.scope()
                };
                let tokens = vec![entry.person.token];
                match self.op_call(op, declared, request, items, tokens, scope) {
                    Ok(call) if call.body.len() <= self.manifest.limits.batch_bytes => calls.push(call),
                    Ok(_) => drop(left.insert(Unreachable { token: entry.person.token, identifier: None, why: Why::TooLarge })),
                    Err(Failed::Render(error)) => return Err(error),
                    Err(Failed::Value(why)) => {
                        let identifier = entry.id.as_ref().map(|id| id.kind);
                        left.insert(Unreachable { token: entry.person.token, identifier, why });
                    }
                }
            }
        }
        let told: BTreeSet<u64> = calls.iter().flat_map(|call| &call.units).map(|unit| unit.token).collect();
        for person in people.iter().filter(|person| !told.contains(&person.token)) {
            note_whole(person.token, &mut left);
        }
        Ok((calls, left.into_iter().collect()))
    }

    /// The rows of `op` for these people, with transports that are not HTTP, and who is not in them.
    pub fn rows(&self, op: usize, people: &[Person]) -> Result<(Vec<Row>, Vec<Unreachable>), RenderError> {
        let declared = self.manifest.ops.get(op).ok_or(RenderError::NotDeclared)?;
        if declared.request.is_some() {
            return Err(RenderError::NotDeclared);
        }
        let (mut rows, mut left) = (Vec::new(), BTreeSet::new());
        for each in self.each(declared) {
            let entries = self.entries(declared, people, each.as_ref(), &mut left);
            rows.extend(entries.into_iter().map(|entry| Row { token: entry.person.token, value: entry.item }));
        }
        let told: BTreeSet<u64> = rows.iter().map(|row| row.token).collect();
        for person in people.iter().filter(|person| !told.contains(&person.token)) {
            note_whole(person.token, &mut left);
        }
        Ok((rows, left.into_iter().collect()))
    }

    /// The two halves of a call of several items. `None`: it has one.
    pub fn split(&self, call: &Call) -> Option<[Call; 2]> {
        let Origin::Op(place) = call.origin else { return None };
        let op = self.manifest.ops.get(place)?;
        let request = op.request.as_ref()?;
        if call.items.len() < 2 {
            return None;
        }
        let (items, more_items) = call.items.split_at(call.items.len() / 2);
        let (units, more_units) = call.units.split_at(items.len());
        let half = |items: &[(String, Value)], units: &[CallUnit]| {
            let scope = Scope { each: call.each.as_ref(), ..self.scope() };
            self.op_call(place, op, request, items.to_vec(), units.iter().map(|unit| unit.token).collect(), scope).ok()
        };
        Some([half(items, units)?, half(more_items, more_units)?])
    }

    /// The calls that look a person up. The results of all of them belong together.
    pub fn lookup_calls(&self, person: &Person) -> Result<(Vec<Call>, Vec<Unreachable>), RenderError> {
        let lookup = self.manifest.lookup.as_ref().ok_or(RenderError::NotDeclared)?;
        self.questions(&lookup.request, lookup.unit, person, Origin::Lookup)
    }

    /// The calls that read back whether a person is opted out: clean only if all of them say so.
    pub fn verify_calls(&self, person: &Person) -> Result<(Vec<Call>, Vec<Unreachable>), RenderError> {
        let verify = self.manifest.verify.as_ref().ok_or(RenderError::NotDeclared)?;
        self.questions(&verify.request, verify.unit, person, Origin::Verify)
    }

    /// The call that asks what became of a job.
    pub fn poll_call(&self, op: usize, job: &str) -> Result<Call, RenderError> {
        let poll = self.manifest.ops.get(op).and_then(|op| op.poll.as_ref()).ok_or(RenderError::NotDeclared)?;
        self.plain_call(&poll.request, Scope { job: Some(job), ..self.scope() }, Origin::Poll(op))
    }

    /// The cheapest call that shows whether credentials work.
    pub fn probe_call(&self) -> Result<Call, RenderError> {
        let probe = self.manifest.probe.as_ref().ok_or(RenderError::NotDeclared)?;
        self.plain_call(&probe.request, self.scope(), Origin::Probe)
    }

    /// What must exist before the first call, in order.
    pub fn setup_calls(&self) -> Result<Vec<SetupStep>, RenderError> {
        let steps = self.manifest.setup.iter().enumerate().map(|(place, setup)| {
            Ok(SetupStep {
                name: setup.name.clone(),
                check: self.plain_call(&setup.check, self.scope(), Origin::SetupCheck(place))?,
                create: self.plain_call(&setup.create, self.scope(), Origin::SetupCreate(place))?,
            })
        });
        steps.collect()
    }

    /// A call in which nobody is meant: only a setting can be wrong in it.
    fn plain_call(&self, request: &Request, scope: Scope<'_>, origin: Origin) -> Result<Call, RenderError> {
        self.whole_call(request, &scope, origin).map_err(|failed| match failed {
            Failed::Render(error) => error,
            Failed::Value(_) => RenderError::Setting,
        })
    }

    fn each(&self, op: &Op) -> Vec<Option<Value>> {
        match op.each.as_ref().map(|name| self.settings.get(name)) {
            None => vec![None],
            Some(Some(Bound::List(values))) => values.iter().cloned().map(Some).collect(),
            Some(_) => Vec::new(),
        }
    }

    /// The identifiers of a person as the destination spells them.
    fn spellings(&self, person: &Person, wanted: impl Fn(Kind) -> bool, left: &mut BTreeSet<Unreachable>) -> Vec<Spelling> {
        let mut spellings: Vec<Spelling> = Vec::new();
        for identifier in person.identifiers.iter().filter(|identifier| wanted(identifier.kind)) {
            let Some(rule) = self.manifest.ids.get(&identifier.kind) else { continue };
            let value = match (&identifier.text, identifier.sha256) {
                (Some(text), _) => Piped::Text(text.clone()),
                (None, Some(digest)) => Piped::Digest(identifier.kind, digest),
                (None, None) => continue,
            };
            let (mut spelled, mut failed) = (false, Unusable::Value);
            if let (Piped::Digest(kind, digest), Some(hashed)) = (&value, &rule.hashed) {
                let hex = Piped::Text(hex(digest));
                let emit = hashed.render(&Scope { value: Some(&hex), ..self.scope() });
                spellings.push(Spelling { kind: *kind, name: rule.name.clone(), value, emit });
                continue;
            }
            for variant in &rule.variants {
                match variant.apply(value.clone()) {
                    Ok(value) => {
                        let scope = Scope { value: Some(&value), ..self.scope() };
                        let emit = rule.emit.as_ref().map_or_else(|| json(value.clone()), |emit| emit.render(&scope));
                        let spelling = Spelling { kind: identifier.kind, name: rule.name.clone(), value, emit };
                        spelled = true;
                        if !spellings.contains(&spelling) {
                            spellings.push(spelling);
                        }
                    }
                    Err(why) => failed = why,
                }
            }
            if !spelled {
                left.insert(Unreachable { token: person.token, identifier: Some(identifier.kind), why: failed.into() });
            }
        }
        spellings
    }

    fn entries<'p>(&self, op: &Op, people: &'p [Person], each: Option<&Value>, left: &mut BTreeSet<Unreachable>) -> Vec<Entry<'p>> {
        let mut entries = Vec::new();
        let wanted = |kind: Kind| op.wants(kind);
        for person in people {
            if self.is_for_another(op, person) {
                left.insert(Unreachable { token: person.token, identifier: None, why: Why::OtherKinds });
                continue;
            }
            for entry in self.parts(op.unit, person, wanted, &op.needs, op.takes_ids, left) {
                let scope = Scope { person: Some(person), ids: &entry.ids, id: entry.id.as_ref(), row: entry.row, each, ..self.scope() };
                match op.item.as_ref().map_or(Ok(Value::Null), |item| item.render(&scope)) {
                    Ok(item) => entries.push(Entry { item, ..entry }),
                    Err(why) => {
                        let identifier = entry.id.as_ref().map(|id| id.kind);
                        left.insert(Unreachable { token: person.token, identifier, why: why.into() });
                    }
                }
            }
        }
        entries
    }

    /// Whether the op is about none of the person's kinds, and another one that says as much is about one of them.
    fn is_for_another(&self, op: &Op, person: &Person) -> bool {
        let is_about = |op: &Op| {
            let mut kinds = person.identifiers.iter().map(|identifier| identifier.kind);
            op.unit != Unit::Row && kinds.any(|kind| self.manifest.ids.contains_key(&kind) && op.wants(kind))
        };
        let says_as_much = |other: &Op| other.on == op.on && op.purposes.iter().all(|purpose| other.purposes.contains(purpose));
        op.unit != Unit::Row && !is_about(op) && self.manifest.ops.iter().any(|other| says_as_much(other) && is_about(other))
    }

    /// What one person's items, or questions, are about.
    fn parts<'p>(
        &self,
        unit: Unit,
        person: &'p Person,
        wanted: impl Fn(Kind) -> bool,
        needs: &[Kind],
        emits: bool,
        left: &mut BTreeSet<Unreachable>,
    ) -> Vec<Entry<'p>> {
        let entry = |ids, id, row| Entry { person, ids, id, row, item: Value::Null };
        let whole = |why| Unreachable { token: person.token, identifier: None, why };
        match unit {
            Unit::Row => {
                if person.lookup.is_empty() {
                    left.insert(whole(Why::NoRows));
                }
                person.lookup.iter().map(|row| entry(Vec::new(), None, Some(row))).collect()
            }
            Unit::Id => self.spellings(person, wanted, left).into_iter().map(|id| entry(Vec::new(), Some(id), None)).collect(),
            Unit::Person => {
                let ids = self.spellings(person, wanted, left);
                if ids.is_empty() || needs.iter().any(|kind| !ids.iter().any(|id| id.kind == *kind)) {
                    note_whole(person.token, left);
                    return Vec::new();
                }
                // In a list the others hide the one that cannot be said.
                for id in ids.iter().filter(|_| emits) {
                    if let Err(why) = id.emit {
                        left.insert(Unreachable { token: person.token, identifier: Some(id.kind), why: why.into() });
                    }
                }
                ids.chunks(self.manifest.limits.ids_per_item).map(|ids| entry(ids.to_vec(), None, None)).collect()
            }
        }
    }

    fn batches(
        &self,
        place: usize,
        op: &Op,
        entries: Vec<Entry<'_>>,
        each: Option<&Value>,
        calls: &mut Vec<Call>,
        left: &mut BTreeSet<Unreachable>,
    ) -> Result<(), RenderError> {
        let Some(request) = &op.request else { return Err(RenderError::NotHttp) };
        let limits = &self.manifest.limits;
        let scope = Scope { each, ..self.scope() };
        let finish = |batch: &mut Vec<(u64, String, Value)>, calls: &mut Vec<Call>| {
            // Items of a group stand together, and units are in the order of the body.
            if op.grouped {
                batch.sort_by(|a, b| a.1.cmp(&b.1));
            }
            let tokens = batch.iter().map(|(token, ..)| *token).collect();
            let items = batch.drain(..).map(|(_, group, item)| (group, item)).collect();
            let call = self.op_call(place, op, request, items, tokens, scope).map_err(|failed| match failed {
                Failed::Render(error) => error,
                Failed::Value(_) => RenderError::Setting,
            })?;
            calls.push(call);
            Ok::<_, RenderError>(())
        };
        let empty = self.body(op, request, &[], &scope).map_err(|_| RenderError::Setting)?.map_or(0, |body| body.len());
        let (mut batch, mut groups, mut size): (Vec<(u64, String, Value)>, BTreeSet<String>, usize) = (Vec::new(), BTreeSet::new(), empty);
        for entry in entries {
            // Each with its comma.
            let item = serde_json::to_vec(&entry.item).map_or(usize::MAX / 4, |bytes| bytes.len()) + 1;
            let group = match &op.group {
                Some(group) => {
                    let scope = Scope { items: Some(&[]), group: Some(entry.group()), ..scope };
                    let value = group.render(&scope).map_err(|_| RenderError::Setting)?;
                    serde_json::to_vec(&value).map_or(usize::MAX / 4, |bytes| bytes.len()) + 1
                }
                None => 0,
            };
            if empty + item + group > limits.batch_bytes {
                left.insert(Unreachable { token: entry.person.token, identifier: None, why: Why::TooLarge });
                continue;
            }
            let more = item + if groups.contains(entry.group()) { 0 } else { group };
            if batch.len() == limits.batch_items || size + more > limits.batch_bytes {
                finish(&mut batch, calls)?;
                groups.clear();
                size = empty;
            }
            size += item + if groups.insert(entry.group().to_owned()) { group } else { 0 };
            batch.push((entry.person.token, entry.group().to_owned(), entry.item));
        }
        if !batch.is_empty() {
            finish(&mut batch, calls)?;
        }
        Ok(())
    }

    fn questions(
        &self,
        request: &Request,
        unit: Unit,
        person: &Person,
        origin: Origin,
    ) -> Result<(Vec<Call>, Vec<Unreachable>), RenderError> {
        let (mut calls, mut left) = (Vec::new(), BTreeSet::new());
        let mut only = None;
        let mut needs = Vec::new();
        for source in request.sources() {
            match source {
                Source::Id(Some(kind)) => only = Some(*kind),
                Source::Ids(Some(kind)) => needs.push(*kind),
                _ => {}
            }
        }
        let general = request.sources().any(|source| matches!(source, Source::Ids(None)));
        let wanted = |kind: Kind| only.map_or(general || needs.is_empty() || needs.contains(&kind), |only| only == kind);
        for entry in self.parts(unit, person, wanted, &needs, general, &mut left) {
            let scope = Scope { person: Some(person), ids: &entry.ids, id: entry.id.as_ref(), row: entry.row, ..self.scope() };
            match self.whole_call(request, &scope, origin) {
                Ok(call) => calls.push(Call { units: vec![CallUnit { token: person.token }], ..call }),
                Err(Failed::Render(error)) => return Err(error),
                Err(Failed::Value(why)) => {
                    let identifier = entry.id.as_ref().map(|id| id.kind);
                    left.insert(Unreachable { token: person.token, identifier, why });
                }
            }
        }
        if calls.is_empty() {
            note_whole(person.token, &mut left);
        }
        Ok((calls, left.into_iter().collect()))
    }

    fn op_call(
        &self,
        place: usize,
        op: &Op,
        request: &Request,
        items: Vec<(String, Value)>,
        tokens: Vec<u64>,
        scope: Scope<'_>,
    ) -> Result<Call, Failed> {
        let body = self.body(op, request, &items, &scope)?;
        let call = self.call(request, &scope, body, Origin::Op(place))?;
        let units = tokens.into_iter().map(|token| CallUnit { token }).collect();
        Ok(Call { units, items, each: scope.each.cloned(), ..call })
    }

    /// The body of an op's call.
    fn body(&self, op: &Op, request: &Request, items: &[(String, Value)], scope: &Scope<'_>) -> Result<Option<Vec<u8>>, Failed> {
        let Some(body) = &request.body else { return Ok(None) };
        let mut values: Vec<Value> = Vec::new();
        let mut groups = Vec::new();
        match &op.group {
            Some(group) => {
                for part in items.chunk_by(|a, b| a.0 == b.0) {
                    let values: Vec<Value> = part.iter().map(|(_, item)| item.clone()).collect();
                    groups.push(group.render(&Scope { items: Some(&values), group: Some(&part[0].0), ..*scope })?);
                }
            }
            None => values.extend(items.iter().map(|(_, item)| item.clone())),
        }
        let mut body = body.render(&Scope { items: Some(&values), groups: Some(&groups), ..*scope })?;
        if let (true, Some(dry_run), Some(members)) = (self.approvals.dry_run, &self.manifest.declared.dry_run, body.as_object_mut()) {
            members.extend(dry_run.body_set.clone());
        }
        serde_json::to_vec(&body).map(Some).map_err(|_| Failed::Value(Why::Unusable))
    }

    fn call(&self, request: &Request, scope: &Scope<'_>, body: Option<Vec<u8>>, origin: Origin) -> Result<Call, Failed> {
        let host = self.hosts.get(request.host).ok_or(Failed::Render(RenderError::Host))?;
        let scheme = if self.approvals.http_loopback && is_loopback(host) { "http" } else { "https" };
        let mut url = format!("{scheme}://{host}{}", request.path.path(scope)?);
        let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let mut sign = '?';
        for (key, value) in &request.query {
            let _ = write!(url, "{sign}{}={}", encode(key), value.query(scope)?);
            sign = '&';
        }
        if let (true, Origin::Op(_), Some(dry_run)) = (self.approvals.dry_run, origin, &self.manifest.declared.dry_run) {
            for (key, value) in &dry_run.query_set {
                let _ = write!(url, "{sign}{}={}", encode(key), encode(value));
                sign = '&';
            }
        }
        if url.len() > URL_BYTES_MAX {
            return Err(Failed::Value(Why::TooLarge));
        }
        self.check_host(&url)?;
        let mut headers = Vec::new();
        for (name, value) in &request.headers {
            headers.push((name.clone(), Secret::new(value.header(scope)?)));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), Secret::new("application/json")));
        }
        let (body, units, items) = (body.unwrap_or_default(), Vec::new(), Vec::new());
        Ok(Call { method: request.method, url, headers, body, units, origin, items, each: None })
    }

    /// A request whose body has no items.
    fn whole_call(&self, request: &Request, scope: &Scope<'_>, origin: Origin) -> Result<Call, Failed> {
        let body = match &request.body {
            Some(body) => Some(serde_json::to_vec(&body.render(scope)?).map_err(|_| Failed::Value(Why::Unusable))?),
            None => None,
        };
        self.call(request, scope, body, origin)
    }

    /// Looks at the finished text, so that no mistake in what made it can send anything elsewhere.
    fn check_host(&self, url: &str) -> Result<(), Failed> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
        let host = rest.split(['/', '?', '#', '\\', '@']).next().unwrap_or_default();
        let is_https = url.starts_with("https://");
        let is_known = self.hosts.iter().any(|known| known == host) && rest[host.len()..].starts_with('/');
        let is_allowed = is_https || (self.approvals.http_loopback && is_loopback(host));
        if is_known && is_allowed && !url.contains(|c: char| c.is_control() || c == ' ') {
            Ok(())
        } else {
            Err(Failed::Render(RenderError::Host))
        }
    }
}

impl Op {
    /// Whether it is about identifiers of that kind.
    fn wants(&self, kind: Kind) -> bool {
        self.only.map_or(self.takes_ids || self.needs.contains(&kind), |only| only == kind)
    }
}

impl Request {
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let texts = [&self.path].into_iter().chain(self.query.iter().chain(&self.headers).map(|(_, text)| text));
        let placeholders = texts.flat_map(Text::placeholders).chain(self.body.iter().flat_map(crate::template::Node::placeholders));
        placeholders.map(|placeholder| &placeholder.source)
    }
}

/// What settings make impossible to write, so that no person is blamed for it.
fn setting_texts(manifest: &Manifest, scope: Scope<'_>) -> Vec<Problem> {
    let mut requests: Vec<(String, &Request, Option<&String>)> = Vec::new();
    requests.extend(manifest.lookup.iter().map(|lookup| ("lookup".to_owned(), &lookup.request, None)));
    for (place, op) in manifest.ops.iter().enumerate() {
        requests.extend(op.request.iter().map(|request| (format!("op.{place}"), request, op.each.as_ref())));
        requests.extend(op.poll.iter().map(|poll| (format!("op.{place}.poll"), &poll.request, None)));
    }
    requests.extend(manifest.verify.iter().map(|verify| ("verify".to_owned(), &verify.request, None)));
    requests.extend(manifest.probe.iter().map(|probe| ("probe".to_owned(), &probe.request, None)));
    for (place, setup) in manifest.setup.iter().enumerate() {
        requests.push((format!("setup.{place}.check"), &setup.check, None));
        requests.push((format!("setup.{place}.create"), &setup.create, None));
    }
    let mut problems = Vec::new();
    for (base, request, each) in requests {
        let values: Vec<Option<&Value>> = match each.and_then(|each| scope.settings?.get(each)) {
            Some(Bound::List(values)) => values.iter().map(Some).collect(),
            _ => vec![None],
        };
        let is_good = |write: &dyn Fn(&Scope<'_>) -> bool| values.iter().all(|each| write(&Scope { each: *each, ..scope }));
        let mut wrong = Vec::new();
        let path = request.path.of_settings();
        if !is_good(&|scope| path.path(scope).is_ok()) {
            wrong.push(format!("{base}.path"));
        }
        for (name, text) in &request.query {
            let text = text.of_settings();
            if !is_good(&|scope| text.query(scope).is_ok()) {
                wrong.push(format!("{base}.query.{name}"));
            }
        }
        for (name, text) in &request.headers {
            let text = text.of_settings();
            if !is_good(&|scope| text.header(scope).is_ok()) {
                wrong.push(format!("{base}.headers.{name}"));
            }
        }
        problems.extend(wrong.into_iter().map(|path| Problem {
            file: manifest.declared.connector.id.clone(),
            line: 0,
            column: 0,
            path,
            message: "a setting cannot be written here".to_owned(),
            hint: "a header takes visible ASCII without spaces at its ends; a path takes no empty segment, no . and no ..".to_owned(),
        }));
    }
    problems
}

/// Why one call cannot be rendered.
enum Failed {
    /// For anybody.
    Render(RenderError),
    /// For this person.
    Value(Why),
}

impl From<Unusable> for Failed {
    fn from(why: Unusable) -> Self {
        Self::Value(why.into())
    }
}

/// A person of whom nothing is sent: with the reason that is known of one identifier, if there is one.
fn note_whole(token: u64, left: &mut BTreeSet<Unreachable>) {
    let mut known = left.iter().filter(|unreachable| unreachable.token == token);
    if known.clone().any(|unreachable| unreachable.identifier.is_none()) {
        return;
    }
    let why = known.next().map_or(Why::NoIdentifier, |unreachable| unreachable.why);
    left.insert(Unreachable { token, identifier: None, why });
}

fn is_loopback(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}
