//! What the shape of a manifest cannot say: that its templates, expressions and settings fit together, that it claims no more
//! than its API proves, and that an opt-out writes nothing but what it says it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use desist_core::identifier::Kind;
use regex::Regex;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use crate::declared::{self, AuthKind, Declared, Emit, Method, On, SettingKind, Unit};
use crate::expression::{Expression, Pointer, SyntaxError};
use crate::limits::{
    BATCH_BYTES_MAX, DURATION_SECONDS_MAX, HOSTS_MAX, IDS_PER_ITEM_MAX, NAME_BYTES_MAX, OPS_MAX, PROBLEMS_MAX, RATE_CALLS_MAX,
    RATE_WINDOW_SECONDS_MAX, RATES_MAX, SETTINGS_MAX, TITLE_BYTES_MAX, VARIANTS_MAX,
};
use crate::manifest::{Errors, IdRule, Lookup, Manifest, Pace, Probe, Request, Setup, Source, Verify};
use crate::pipe::{Base, Pipe, Type};
use crate::problem::{Problem, did_you_mean, shown};
use crate::settings::setting_problem;
use crate::template::{self, Node, Part, Placeholder, Source as From, Text, is_name};

/// Keys of `[auth]`: kind, what it must have, what it may have.
const AUTH_KEYS: &[(AuthKind, &[&str], &[&str])] = &[
    (AuthKind::None, &[], &[]),
    (AuthKind::Bearer, &["token"], &[]),
    (AuthKind::Header, &["name", "value"], &[]),
    (AuthKind::Basic, &["username", "password"], &[]),
    (AuthKind::Oauth2Client, &["token_url", "client_id", "client_secret"], &["scope"]),
    (AuthKind::Oauth2Refresh, &["token_url", "client_id", "client_secret", "refresh_token"], &["scope"]),
    (AuthKind::GoogleSa, &["token_url", "credentials", "scope"], &[]),
    (AuthKind::AwsSigv4, &["access_key", "secret_key", "region", "service"], &[]),
    (AuthKind::StandardWebhooks, &["secret"], &[]),
];
/// Keys of `[auth]` that are secrets.
const SECRET_KEYS: &[&str] = &["token", "value", "password", "client_secret", "refresh_token", "credentials", "secret_key", "secret"];

/// Headers that the engine makes.
const OWN_HEADERS: &[&str] =
    &["authorization", "connection", "content-length", "cookie", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

type At = Vec<String>;

/// A request as it is declared, of whichever table.
struct Wire<'d> {
    method: Method,
    host: Option<&'d str>,
    path: &'d str,
    query: &'d BTreeMap<String, String>,
    headers: &'d BTreeMap<String, String>,
    body: Option<&'d Value>,
}

macro_rules! wire {
    ($table:expr) => {
        Wire {
            method: $table.method,
            host: $table.host.as_deref(),
            path: &$table.path,
            query: &$table.query,
            headers: &$table.headers,
            body: $table.body.as_ref(),
        }
    };
}

// Behind the macro that it uses.
mod op;
mod transport;
mod words;

/// What can be filled in at a place.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of placeholders; each is allowed by itself")]
struct Allowed {
    /// The identifiers of one person, one of them, one record; what holds of the person.
    ids: bool,
    id: bool,
    row: bool,
    person: bool,
    items: bool,
    item: bool,
    group: bool,
    groups: bool,
    each: bool,
    job: bool,
    value: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Path,
    Query,
    Header,
}

pub(crate) struct Compiler<'d> {
    declared: &'d Declared,
    doc: &'d DeTable<'d>,
    source: Source<'d>,
    problems: Vec<Problem>,
    used: BTreeSet<String>,
    used_kinds: BTreeSet<Kind>,
    all_kinds_used: bool,
}

/// A path of keys.
fn at<const N: usize>(base: &[String], more: [&str; N]) -> At {
    base.iter().cloned().chain(more.into_iter().map(str::to_owned)).collect()
}

impl<'d> Compiler<'d> {
    pub fn new(declared: &'d Declared, doc: &'d DeTable<'d>, source: Source<'d>) -> Self {
        Self { declared, doc, source, problems: Vec::new(), used: BTreeSet::new(), used_kinds: BTreeSet::new(), all_kinds_used: false }
    }

    pub fn run(mut self) -> Result<Manifest, Vec<Problem>> {
        let declared = self.declared;
        self.connector();
        self.settings();
        self.transport_settings();
        let hosts = self.hosts();
        self.auth();
        let limits = self.pace();
        let ids = self.ids();
        let lookup = declared.lookup.as_ref().map(|lookup| self.lookup(lookup));
        if !declared.op.iter().any(|op| op.on == On::OptOut) {
            self.add(&at(&[], ["op"]), "there is no op for opt_out", "write at least one [[op]] with on = \"opt_out\"");
        }
        self.count(&at(&[], ["op"]), declared.op.len(), OPS_MAX);
        self.count(&at(&[], ["setup"]), declared.setup.len(), OPS_MAX);
        let ops: Vec<_> = declared.op.iter().enumerate().map(|(place, op)| self.op(&at(&[], ["op", &place.to_string()]), op)).collect();
        let verify = declared.verify.as_ref().map(|verify| self.verify(verify));
        let probe = declared.probe.as_ref().map(|probe| self.probe(probe));
        let setup = declared.setup.iter().enumerate();
        let setup: Vec<_> = setup.map(|(place, setup)| self.setup(&at(&[], ["setup", &place.to_string()]), setup)).collect();
        self.shared_words(&ids, (lookup.as_ref(), verify.as_ref(), probe.as_ref()), &ops, &setup);
        self.dry_run();
        self.unused();
        if self.problems.is_empty() {
            let declared = declared.clone();
            return Ok(Manifest { declared, hosts, ids, lookup, ops, verify, probe, setup, limits });
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems.truncate(PROBLEMS_MAX);
        Err(self.problems)
    }

    fn add(&mut self, path: &[String], message: impl Into<String>, hint: impl Into<String>) {
        let span = self.locate(path).unwrap_or_default();
        self.problems.push(self.source.problem(span.start, path, message.into(), hint.into()));
    }

    /// A problem at a byte of a text.
    fn syntax(&mut self, path: &[String], error: &SyntaxError, hint: &str) {
        let span = self.locate(path).unwrap_or_default();
        let written = self.source.text.get(span.clone()).unwrap_or_default();
        // In other spellings of a text its bytes are not where they seem to be.
        let is_plain = written.starts_with(['"', '\'']) && !written.starts_with("\"\"\"") && !written.contains('\\');
        let start = if is_plain { span.start + 1 + error.at } else { span.start };
        self.problems.push(self.source.problem(start, path, error.message.clone(), hint.to_owned()));
    }

    fn count(&mut self, path: &[String], actual: usize, most: usize) {
        if actual > most {
            self.add(path, format!("there are {actual}"), format!("at most {most} are allowed"));
        }
    }

    /// The place of the value at a path, or of the nearest table around it.
    fn locate(&self, path: &[String]) -> Option<Range<usize>> {
        let mut steps = path.iter();
        let (key, mut value) = self.doc.get_key_value(steps.next()?.as_str())?;
        let mut found = if value.get_ref().is_table() { key.span() } else { value.span() };
        for step in steps {
            found = match value.get_ref() {
                DeValue::Table(table) => {
                    let Some((key, next)) = table.get_key_value(step.as_str()) else { break };
                    value = next;
                    if next.get_ref().is_table() { key.span() } else { next.span() }
                }
                DeValue::Array(items) => {
                    let Some(next) = step.parse().ok().and_then(|place: usize| items.get(place)) else { break };
                    value = next;
                    next.span()
                }
                _ => break,
            };
        }
        Some(found)
    }

    fn connector(&mut self) {
        let connector = &self.declared.connector;
        let base = at(&[], ["connector"]);
        let is_id = (1..=NAME_BYTES_MAX).contains(&connector.id.len())
            && !connector.id.starts_with('-')
            && connector.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_id {
            self.add(&at(&base, ["id"]), format!("{} is not an id", shown(&connector.id)), "use 1 to 64 of a-z 0-9 and hyphens");
        }
        if connector.title.trim().is_empty() || connector.title.len() > TITLE_BYTES_MAX {
            self.add(&at(&base, ["title"]), "is empty or too long", "use 1 to 100 bytes");
        }
        if connector.docs.as_ref().is_some_and(|docs| !docs.starts_with("https://") || docs.contains(char::is_whitespace)) {
            self.add(&at(&base, ["docs"]), "is not an https URL", "write where the destination's API is described");
        }
    }

    fn settings(&mut self) {
        let base = at(&[], ["settings"]);
        self.count(&base, self.declared.settings.len(), SETTINGS_MAX);
        for (name, setting) in &self.declared.settings {
            let base = at(&base, [name]);
            if !is_name(name) {
                self.add(&base, "is not a name", "use 1 to 64 of a-z 0-9 _ that begin with a letter");
            }
            if (setting.kind == SettingKind::Enum) != setting.values.is_some() {
                self.add(&at(&base, ["values"]), "goes with type = \"enum\" alone", "an enum lists its values, and nothing else does");
            }
            if let Some(pattern) = &setting.pattern {
                if setting.kind != SettingKind::String {
                    self.add(&at(&base, ["pattern"]), "goes with type = \"string\" alone", "remove it");
                } else if whole_pattern(pattern).is_none() {
                    self.add(&at(&base, ["pattern"]), "is not a regular expression", "it must match the whole text");
                }
            }
            let Some(default) = setting.default.as_ref().filter(|_| setting.kind != SettingKind::Enum || setting.values.is_some()) else {
                continue;
            };
            let path = at(&base, ["default"]);
            if setting.kind == SettingKind::Secret {
                self.add(&path, "a secret has no default", "a manifest is public; remove it");
            } else if setting.required {
                self.add(&path, "is required and has a default", "keep one of the two");
            } else if let Some(problem) = setting_problem(setting, default) {
                self.add(&path, problem, "use a value that the setting allows");
            }
        }
    }

    fn hosts(&mut self) -> Vec<Text> {
        let base = at(&[], ["connector", "hosts"]);
        let hosts = &self.declared.connector.hosts;
        self.count(&base, hosts.len(), HOSTS_MAX);
        if hosts.is_empty() && self.is_http() {
            self.add(&base, "no host is declared", "calls go to declared hosts alone; list them");
        }
        let mut texts = Vec::new();
        for (place, host) in hosts.iter().enumerate() {
            let base = at(&base, [&place.to_string()]);
            if hosts[..place].contains(host) {
                self.add(&base, "stands twice", "remove one");
            }
            let text = match Text::parse(host) {
                Ok(text) => text,
                Err(error) => {
                    self.syntax(&base, &error, "a host is a name, with a port unless it is 443");
                    continue;
                }
            };
            let names: Vec<_> = text.placeholders().cloned().collect();
            let setting = match &names[..] {
                [] => None,
                [Placeholder { source: From::Setting(name), pipe }] if *pipe == Pipe::default() => Some(name.as_str()),
                _ => {
                    self.add(&base, "has more than one setting in it", "a host has one {{settings.NAME}} at most, without a pipe");
                    continue;
                }
            };
            if let Some(name) = setting {
                let kind = self.setting(&base, name).map(|setting| (setting.kind, setting.required || setting.default.is_some()));
                let wanted = if text.0.len() == 1 { SettingKind::Host } else { SettingKind::String };
                let is_first = matches!(&text.0[..], [Part::Placeholder(_)] | [Part::Placeholder(_), Part::Literal(_)]);
                let rest = match text.0.last() {
                    Some(Part::Literal(rest)) => rest.as_str(),
                    _ => ".",
                };
                if !is_first || !rest.starts_with('.') {
                    self.add(&base, "the setting is not a whole label", "write {{settings.NAME}}, or {{settings.NAME}}.example.com");
                } else if kind.is_some_and(|(kind, _)| kind != wanted) {
                    let hint = "a whole host is a setting of type \"host\", a first label one of type \"string\"";
                    self.add(&base, "the setting has another type", hint);
                } else if kind.is_some_and(|(_, always)| !always) {
                    self.add(&base, "the setting may be missing", "make it required, or give it a default");
                }
            }
            let sample = text.0.iter().map(|part| match part {
                Part::Literal(literal) => literal.as_str(),
                Part::Placeholder(_) => "a",
            });
            if !is_host(&sample.collect::<String>()) {
                self.add(&base, format!("{} is not a host", shown(host)), "use a name in lower case, with a port unless it is 443");
            }
            texts.push(text);
        }
        texts
    }

    fn is_http(&self) -> bool {
        self.declared.connector.transport == declared::Transport::Http
    }

    /// A setting that is used.
    fn setting(&mut self, path: &[String], name: &str) -> Option<&'d declared::Setting> {
        self.used.insert(name.to_owned());
        let setting = self.declared.settings.get(name);
        if setting.is_none() {
            let near = did_you_mean(name, self.declared.settings.keys().map(String::as_str));
            self.add(path, format!("the setting {} is not declared{near}", shown(name)), format!("add a table [settings.{name}]"));
        }
        setting
    }

    fn auth(&mut self) {
        let auth = &self.declared.auth;
        let base = at(&[], ["auth"]);
        let (_, needs, may) = AUTH_KEYS.iter().find(|(kind, ..)| *kind == auth.kind).copied().unwrap_or((auth.kind, &[], &[]));
        for (key, value) in auth_values(auth) {
            let path = at(&base, [key]);
            let Some(value) = value else {
                if needs.contains(&key) {
                    self.add(&path, "is missing", "this kind of [auth] needs it");
                }
                continue;
            };
            if !needs.contains(&key) && !may.contains(&key) {
                let keys = needs.iter().chain(may).copied().collect::<Vec<_>>().join(", ");
                self.add(&path, "does not belong to this kind of [auth]", format!("its keys: {keys}"));
                continue;
            }
            let text = match Text::parse(value) {
                Ok(text) => text,
                Err(error) => {
                    self.syntax(&path, &error, "use {{settings.NAME}}");
                    continue;
                }
            };
            let is_secret = SECRET_KEYS.contains(&key);
            for placeholder in text.placeholders() {
                let From::Setting(name) = &placeholder.source else {
                    self.add(&path, "only settings can stand here", "use {{settings.NAME}}");
                    continue;
                };
                let Some(setting) = self.setting(&path, name) else { continue };
                if (setting.kind == SettingKind::Secret) != is_secret || placeholder.pipe != Pipe::default() {
                    let wanted = if is_secret { "a secret" } else { "no secret" };
                    self.add(&path, format!("{wanted} belongs here"), "see the type of the setting; no pipe is allowed");
                } else if !setting.required && setting.default.is_none() {
                    self.add(&path, "the setting may be missing", "make it required");
                }
            }
            if is_secret && !matches!(text.0[..], [Part::Placeholder(_)]) {
                self.add(&path, "a secret stands in the manifest", "manifests are public; use {{settings.NAME}} with type = \"secret\"");
            }
            if key == "name"
                && (!is_header(value) || words::is_override(value) || OWN_HEADERS.contains(&value.to_ascii_lowercase().as_str()))
            {
                self.add(
                    &path,
                    "is not a header that can be set",
                    "use a name of letters, digits and hyphens that the engine does not make",
                );
            }
            if key == "token_url" {
                let host = value.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map(|(host, _)| host);
                if host.is_none_or(|host| !self.declared.connector.hosts.iter().any(|declared| declared == host)) {
                    self.add(&path, "is not an https URL on a declared host", "list its host in `hosts`, as it is written here");
                }
            }
        }
    }

    fn pace(&mut self) -> Pace {
        let limits = &self.declared.limits;
        let base = at(&[], ["limits"]);
        let mut rates = Vec::new();
        self.count(&at(&base, ["rate"]), limits.rate.len(), RATES_MAX);
        for (place, rate) in limits.rate.iter().enumerate() {
            let parsed = rate.split_once('/').and_then(|(count, time)| Some((count.parse::<u32>().ok()?, seconds(time)?)));
            match parsed {
                Some((count, time)) if (1..=RATE_CALLS_MAX).contains(&count) && time <= RATE_WINDOW_SECONDS_MAX => {
                    rates.push((count, time));
                }
                _ => self.add(
                    &at(&base, ["rate", &place.to_string()]),
                    "is not a rate",
                    "write how many in which time, at most 31d: \"300/1m\", \"500/1d\"",
                ),
            }
        }
        for (place, name) in limits.honour_headers.iter().enumerate() {
            if !is_header(name) {
                self.add(&at(&base, ["honour_headers", &place.to_string()]), "is not a name of a header", "such as \"retry-after\"");
            }
        }
        let cache = self.declared.lookup.as_ref().and_then(|lookup| lookup.cache.as_deref());
        Pace {
            batch_items: limits.batch_items.unwrap_or(1) as usize,
            batch_bytes: limits.batch_bytes.unwrap_or(BATCH_BYTES_MAX) as usize,
            ids_per_item: limits.ids_per_item.unwrap_or(IDS_PER_ITEM_MAX) as usize,
            concurrency: limits.concurrency.unwrap_or(1),
            rates,
            linger_seconds: self.duration(&at(&base, ["linger"]), limits.linger.as_deref()),
            lookup_cache_seconds: self.duration(&at(&[], ["lookup", "cache"]), cache),
        }
    }

    fn duration(&mut self, path: &[String], text: Option<&str>) -> u64 {
        text.map_or(0, |text| {
            seconds(text).unwrap_or_else(|| {
                self.add(path, "is not a time", "write a whole number and s, m, h or d, at most 90d: \"15m\"");
                0
            })
        })
    }

    fn ids(&mut self) -> BTreeMap<Kind, IdRule> {
        let mut rules = BTreeMap::new();
        for (name, ids) in &self.declared.ids {
            let base = at(&[], ["ids", name]);
            // The shape has the names of all kinds.
            let Ok(kind) = name.parse::<Kind>() else { continue };
            self.count(&at(&base, ["variants"]), ids.variants.len(), VARIANTS_MAX);
            let mut variants = Vec::new();
            for (place, variant) in ids.variants.iter().enumerate() {
                let path = at(&base, ["variants", &place.to_string()]);
                match Pipe::parse(variant) {
                    Err(error) => self.syntax(&path, &error, "see the list of functions in docs/connector-spec.md"),
                    Ok(pipe) => {
                        match pipe.check(Type::one(Base::Text)) {
                            Err(message) => self.add(&path, message, "the value goes through the pipe from left to right"),
                            Ok(Type { base: Base::Text, list: false, .. }) => {}
                            Ok(other) => self.add(&path, format!("ends as {}", other.name()), "add |hex or |base64"),
                        }
                        if ids.variants[..place].contains(variant) {
                            self.add(&path, "stands twice", "remove one");
                        }
                        variants.push(pipe);
                    }
                }
            }
            if variants.is_empty() {
                variants.push(Pipe::default());
            }
            let emit = ids.emit.as_ref().map(|emit| self.node(&at(&base, ["emit"]), emit, Allowed { value: true, ..Allowed::default() }));
            let hashed =
                ids.hashed.as_ref().map(|hashed| self.node(&at(&base, ["hashed"]), hashed, Allowed { value: true, ..Allowed::default() }));
            for (key, node) in [("emit", &emit), ("hashed", &hashed)] {
                let says = |node: &Node| node.placeholders().iter().any(|placeholder| placeholder.source == From::Value);
                if node.as_ref().is_some_and(|node| !says(node)) {
                    self.add(&at(&base, [key]), "has no {{value}}", "without it the identifier is not said");
                }
            }
            rules.insert(kind, IdRule { variants, emit, hashed, name: ids.name.clone().unwrap_or_else(|| name.clone()) });
        }
        rules
    }

    fn pointer(&mut self, path: &[String], text: &str) -> Pointer {
        Pointer::parse(text).unwrap_or_else(|error| {
            self.syntax(path, &error, "a pointer is like /records/0/Id, and /* is each element of a list");
            Pointer::default()
        })
    }

    fn expression(&mut self, path: &[String], text: &str) -> Expression {
        Expression::parse(text).unwrap_or_else(|error| {
            self.syntax(path, &error, "an expression is a pointer and one test: /status == done, /rows/*/ok == true, /id exists");
            Expression::parse(" exists").expect("an expression")
        })
    }

    fn optional(&mut self, path: &[String], text: Option<&String>) -> Option<Expression> {
        text.map(|text| self.expression(path, text))
    }

    fn statuses(&mut self, path: &[String], statuses: &[u16]) -> Vec<u16> {
        for status in statuses {
            if !(200..=599).contains(status) {
                self.add(path, format!("{status} is no status of an answer"), "use 200 to 599");
            }
        }
        statuses.to_vec()
    }

    fn errors(&mut self, base: &[String], errors: &declared::Errors) -> Errors {
        let codes = |codes: &[declared::Code]| codes.iter().map(declared::Code::text).collect::<Vec<_>>();
        let (retry, auth, throttle) = (codes(&errors.retry_code), codes(&errors.auth_code), codes(&errors.throttle_code));
        let retry_status = self.statuses(&at(base, ["retry_status"]), &errors.retry_status);
        let shrink_status = self.statuses(&at(base, ["shrink_status"]), &errors.shrink_status);
        for (key, bad) in [("retry_status", &retry_status), ("shrink_status", &shrink_status)] {
            if bad.iter().any(|status| (200..300).contains(status)) {
                self.add(&at(base, [key]), "has a status of a good answer", "what fails inside a good answer is told by code_at");
            }
        }
        Errors {
            retry_status,
            shrink_status,
            code_at: errors.code_at.as_ref().map(|text| self.pointer(&at(base, ["code_at"]), text)),
            retry,
            auth,
            throttle,
        }
    }

    /// A template of a body, with the places in it checked.
    fn node(&mut self, path: &[String], value: &Value, allowed: Allowed) -> Node {
        let mut errors = Vec::new();
        let node = Node::parse(value, &mut path.to_vec(), &mut errors);
        for (path, error) in errors {
            self.syntax(&path, &error, "see the placeholders in docs/connector-spec.md");
        }
        for placeholder in node.placeholders() {
            self.placeholder(path, placeholder, allowed, Place::Body);
        }
        node
    }

    fn text(&mut self, path: &[String], text: &str, allowed: Allowed, place: Place) -> Text {
        let text = Text::parse(text).unwrap_or_else(|error| {
            self.syntax(path, &error, "see the placeholders in docs/connector-spec.md");
            Text::default()
        });
        for placeholder in text.placeholders() {
            self.placeholder(path, placeholder, allowed, place);
            let is_mixed = text.0.len() > 1;
            if place == Place::Query && is_mixed && placeholder.source.names_somebody() && !placeholder.pipe.is_safe_in_text() {
                let hint =
                    "a value could add words to the question; end its pipe with soql_list, hex, digits or e164, or let it stand alone";
                self.add(path, "mixes text with somebody's value", hint);
            }
        }
        text
    }

    fn placeholder(&mut self, path: &[String], placeholder: &Placeholder, allowed: Allowed, place: Place) {
        let source = &placeholder.source;
        let is_allowed = match source {
            From::Items => allowed.items,
            From::Item => allowed.item,
            From::Group => allowed.group,
            From::Groups => allowed.groups,
            From::Ids(_) => allowed.ids,
            From::Id(_) | From::IdName => allowed.id,
            From::Value => allowed.id || allowed.value,
            From::Lookup(_) => allowed.row,
            From::Job => allowed.job,
            From::Each => allowed.each,
            From::Version | From::At | From::Purposes | From::Status => allowed.person,
            From::Setting(_) => true,
        };
        if !is_allowed {
            let hint = match source {
                From::Items => "it stands in the body or group, with batch_items above 1 or an item; with group_by, in the group alone",
                From::Item => "it stands in the body, with batch_items = 1 and an item",
                From::Group => "it stands in the group, with group_by",
                From::Groups => "it stands in the body, with group_by",
                From::Ids(_) => "it needs unit = \"person\", and stands where one person is meant",
                From::Id(_) | From::IdName | From::Value => "it needs unit = \"id\", and stands where one identifier is meant",
                From::Lookup(_) => "it needs unit = \"row\" and [lookup], and stands where one record is meant",
                From::Job => "it stands in [op.poll]",
                From::Each => "it needs for_each",
                From::Version | From::At | From::Purposes | From::Status => {
                    "it stands where one person is meant: in an item, or with batch_items = 1"
                }
                From::Setting(_) => "",
            };
            self.add(path, "this placeholder has no value here", hint);
            return;
        }
        let Some(input) = self.type_of(path, source) else { return };
        if let (From::Setting(name), Place::Path) = (source, place)
            && self.declared.settings.get(name).is_some_and(|setting| setting.kind == SettingKind::Path)
            && placeholder.pipe != Pipe::default()
        {
            self.add(path, "a setting of type path has no pipe in a path", "remove the pipe");
        }
        let output = match placeholder.pipe.check(input) {
            Ok(output) => output,
            Err(message) => return self.add(path, message, "the value goes through the pipe from left to right"),
        };
        let (message, hint) = match (output.base, place) {
            _ if output.optional => ("the setting may be missing", "make it required, give it a default, or add |default('...')"),
            (Base::Bytes, _) => ("ends as bytes", "add |hex or |base64"),
            (Base::Time, _) => ("ends as a time", "add |iso8601, |epoch_s or |epoch_ms"),
            (Base::Secret, Place::Header) => return,
            (Base::Secret, _) => ("a secret stands outside a header", "secrets are in headers and [auth] alone"),
            (_, Place::Body) => return,
            _ if output.list => ("a list cannot stand in text", "use it as a whole value of a body, or add |soql_list"),
            (Base::Json, _) if !matches!(source, From::Lookup(_) | From::Each) => {
                ("a JSON value cannot stand in text", "use {{id.KIND}} or {{value}}")
            }
            _ => return,
        };
        self.add(path, message, hint);
    }

    fn type_of(&mut self, path: &[String], source: &From) -> Option<Type> {
        Some(match source {
            From::Items | From::Groups | From::Ids(None) => Type::list(Base::Json),
            From::Item | From::Id(None) | From::Lookup(None) | From::Each => Type::one(Base::Json),
            From::Ids(Some(_)) | From::Purposes => Type::list(Base::Text),
            From::Id(Some(_)) | From::IdName | From::Value | From::Group | From::Job | From::Status => Type::one(Base::Text),
            From::Version => Type::one(Base::Int),
            From::At => Type::one(Base::Time),
            From::Lookup(Some(name)) => {
                let known = match self.declared.lookup.as_ref().map(|lookup| &lookup.emit) {
                    Some(Emit::Named(names)) => names.contains_key(name),
                    _ => false,
                };
                if !known {
                    self.add(path, format!("the look-up does not keep {}", shown(name)), "name it in `emit` of [lookup]");
                    return None;
                }
                Type::one(Base::Json)
            }
            From::Setting(name) => {
                let setting = self.setting(path, name)?;
                let (base, list) = match setting.kind {
                    SettingKind::String | SettingKind::Enum | SettingKind::Host | SettingKind::Path => (Base::Text, false),
                    SettingKind::Int => (Base::Int, false),
                    SettingKind::Bool => (Base::Bool, false),
                    SettingKind::Secret => (Base::Secret, false),
                    SettingKind::List => (Base::Json, true),
                };
                Type { base, list, optional: !setting.required && setting.default.is_none() }
            }
        })
    }

    fn request(&mut self, base: &[String], wire: &Wire<'_>, allowed: Allowed) -> Request {
        let host = match wire.host {
            None => Some(0),
            Some(host) => self.declared.connector.hosts.iter().position(|declared| declared == host),
        };
        if host.is_none() {
            let hosts = self.declared.connector.hosts.join(", ");
            self.add(&at(base, ["host"]), "is not one of `hosts`", format!("declared are: {hosts}"));
        }
        let path = self.text(&at(base, ["path"]), wire.path, allowed, Place::Path);
        self.path(&at(base, ["path"]), &path);
        let query = wire.query.iter().map(|(key, value)| {
            let place = at(base, ["query", key]);
            if key.is_empty() || key.contains(|c: char| c.is_control() || c.is_whitespace()) || key.contains("{{") {
                self.add(&place, "is not a name of a parameter", "use a text without white space and placeholders");
            }
            (key.clone(), self.text(&place, value, allowed, Place::Query))
        });
        let query = query.collect();
        let mut headers: Vec<(String, Text)> = Vec::new();
        for (name, value) in wire.headers {
            let place = at(base, ["headers", name]);
            let lower = name.to_ascii_lowercase();
            if !is_header(name) || OWN_HEADERS.contains(&lower.as_str()) {
                self.add(&place, "is not a header that can be set", "the engine makes it, or [auth] does, or it is no name of a header");
            }
            if headers.iter().any(|(known, _)| *known == lower) {
                self.add(&place, "stands twice", "case does not matter in names of headers");
            }
            let text = self.text(&place, value, allowed, Place::Header);
            if text.0.iter().any(|part| matches!(part, Part::Literal(text) if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))) {
                self.add(&place, "has characters that no header has", "use visible ASCII");
            }
            headers.push((lower, text));
        }
        let body = wire.body.map(|body| self.node(&at(base, ["body"]), body, allowed));
        if body.is_some() && wire.method == Method::Get {
            self.add(&at(base, ["body"]), "a GET has no body", "use the query, or another method");
        }
        let request = Request { method: wire.method, host: host.unwrap_or_default(), path, query, headers, body };
        self.overrides(base, &request);
        request
    }

    fn path(&mut self, place: &[String], path: &Text) {
        let mut sample = String::new();
        for (number, part) in path.0.iter().enumerate() {
            match part {
                Part::Literal(literal) => sample.push_str(literal),
                Part::Placeholder(Placeholder { source: From::Setting(name), .. })
                    if self.declared.settings.get(name).is_some_and(|setting| setting.kind == SettingKind::Path) =>
                {
                    if number > 0 {
                        self.add(place, "a setting of type path is not at the start", "its slashes stay slashes; put it first");
                    }
                    sample.push_str("/a");
                }
                Part::Placeholder(_) => sample.push('a'),
            }
        }
        if !template::is_path(&sample) {
            self.add(place, "is not a path", "begin with a slash; no empty segment, no . or .., no ? or #; the query has its own table");
        }
    }

    /// What one question is about, as its placeholders say.
    fn unit_of(&mut self, base: &[String], request: &Request) -> Unit {
        let (mut ids, mut id, mut row) = (false, false, false);
        for placeholder in placeholders(request) {
            match &placeholder.source {
                From::Ids(_) => ids = true,
                From::Id(_) | From::IdName | From::Value => id = true,
                From::Lookup(_) => row = true,
                _ => {}
            }
        }
        match (ids, id, row) {
            (true, false, false) => Unit::Person,
            (false, true, false) => Unit::Id,
            (false, false, true) => Unit::Row,
            _ => {
                let message = if ids || id || row { "asks about a person in two ways" } else { "does not say about whom it asks" };
                self.add(base, message, "use {{ids...}} or {{id...}} or {{lookup...}}");
                Unit::Person
            }
        }
    }

    fn kinds(&mut self, base: &[String], request: &[&Placeholder]) -> (Option<Kind>, Vec<Kind>, bool) {
        let (mut only, mut needs, mut general) = (BTreeSet::new(), BTreeSet::new(), false);
        for placeholder in request {
            match &placeholder.source {
                From::Id(Some(kind)) => drop(only.insert(*kind)),
                From::Ids(Some(kind)) => drop(needs.insert(*kind)),
                From::Ids(None) | From::Id(None) | From::Value | From::IdName => general = true,
                _ => {}
            }
        }
        for kind in only.iter().chain(&needs) {
            if !self.declared.ids.contains_key(kind.name()) {
                self.add(base, format!("uses {kind} identifiers, which are not declared"), format!("add a table [ids.{kind}]"));
            }
        }
        if general && self.declared.ids.is_empty() {
            self.add(base, "uses identifiers, and none is declared", "add a table [ids.KIND] for each kind that the destination takes");
        }
        if only.len() > 1 {
            self.add(base, "is about two kinds of identifiers at once", "one {{id}} is of one kind; write an [[op]] for each");
        }
        self.used_kinds.extend(only.iter().chain(&needs));
        // An op about one kind alone uses that one, whatever else it fills in.
        self.all_kinds_used |= general && only.is_empty();
        (only.into_iter().next(), needs.into_iter().collect(), general)
    }

    fn only_http(&mut self, base: &[String]) {
        if !self.is_http() {
            self.add(base, "goes with transport = \"http\" alone", "remove it");
        }
    }

    fn lookup(&mut self, lookup: &declared::Lookup) -> Lookup {
        let base = at(&[], ["lookup"]);
        self.only_http(&base);
        self.reads(&base, lookup.method);
        let request = self.request(&base, &wire!(lookup), Allowed { ids: true, id: true, ..Allowed::default() });
        let unit = self.unit_of(&base, &request);
        let used = placeholders(&request);
        self.kinds(&base, &used);
        let emit = match &lookup.emit {
            Emit::One(pointer) => vec![(String::new(), self.pointer(&at(&base, ["emit"]), pointer))],
            Emit::Named(names) => {
                let several = names.iter().map(|(name, pointer)| {
                    let path = at(&base, ["emit", name]);
                    if !is_name(name) {
                        self.add(&path, "is not a name", "use 1 to 64 of a-z 0-9 _ that begin with a letter");
                    }
                    (name.clone(), self.pointer(&path, pointer))
                });
                several.collect()
            }
        };
        let rows = self.pointer(&at(&base, ["match"]), &lookup.matched);
        if emit.iter().any(|(_, pointer)| pointer.is_many()) {
            self.add(&at(&base, ["emit"]), "a record has one key", "`match` walks the records with *; `emit` is inside one record");
        }
        Lookup {
            unit,
            rows,
            emit,
            absent_when: self.optional(&at(&base, ["absent_when"]), lookup.absent_when.as_ref()),
            absent_status: self.statuses(&at(&base, ["absent_status"]), &lookup.absent_status),
            more_when: self.optional(&at(&base, ["more_when"]), lookup.more_when.as_ref()),
            errors: self.errors(&at(&base, ["errors"]), &lookup.errors),
            request,
        }
    }

    fn reads(&mut self, base: &[String], method: Method) {
        if !matches!(method, Method::Get | Method::Post) {
            self.add(&at(base, ["method"]), "this call only reads", "use GET, or POST for a search");
        }
    }

    fn verify(&mut self, verify: &declared::Verify) -> Verify {
        let base = at(&[], ["verify"]);
        self.only_http(&base);
        self.reads(&base, verify.method);
        let allowed = Allowed { ids: true, id: true, row: self.declared.lookup.is_some(), ..Allowed::default() };
        let request = self.request(&base, &wire!(verify), allowed);
        let unit = self.unit_of(&base, &request);
        let used = placeholders(&request);
        self.kinds(&base, &used);
        Verify {
            unit,
            clean_when: self.expression(&at(&base, ["clean_when"]), &verify.clean_when),
            absent_when: self.optional(&at(&base, ["absent_when"]), verify.absent_when.as_ref()),
            absent_status: self.statuses(&at(&base, ["absent_status"]), &verify.absent_status),
            errors: self.errors(&at(&base, ["errors"]), &verify.errors),
            request,
        }
    }

    fn probe(&mut self, probe: &declared::Probe) -> Probe {
        let base = at(&[], ["probe"]);
        self.only_http(&base);
        self.reads(&base, probe.method);
        Probe {
            request: self.request(&base, &wire!(probe), Allowed::default()),
            ok: self.optional(&at(&base, ["ok"]), probe.ok.as_ref()),
            ok_status: self.statuses(&at(&base, ["ok_status"]), &probe.ok_status),
            errors: self.errors(&at(&base, ["errors"]), &probe.errors),
        }
    }

    fn setup(&mut self, base: &[String], setup: &declared::Setup) -> Setup {
        self.only_http(base);
        let (check, create) = (at(base, ["check"]), at(base, ["create"]));
        self.reads(&check, setup.check.method);
        if setup.name.trim().is_empty() {
            self.add(&at(base, ["name"]), "is empty", "say what it makes");
        }
        Setup {
            name: setup.name.clone(),
            check: self.request(&check, &wire!(setup.check), Allowed::default()),
            exists_when: self.expression(&at(&check, ["exists_when"]), &setup.check.exists_when),
            errors: self.errors(&at(&check, ["errors"]), &setup.check.errors),
            create: {
                if setup.create.method == Method::Delete {
                    self.add(&at(&create, ["method"]), "this call makes something", "use POST, PUT or PATCH");
                }
                self.request(&create, &wire!(setup.create), Allowed::default())
            },
        }
    }

    fn dry_run(&mut self) {
        let Some(dry_run) = &self.declared.dry_run else { return };
        let base = at(&[], ["dry_run"]);
        self.only_http(&base);
        if dry_run.body_set.is_empty() && dry_run.query_set.is_empty() {
            self.add(&base, "sets nothing", "add body_set or query_set");
        }
        for (key, value) in &dry_run.body_set {
            let node = self.node(&at(&base, ["body_set", key]), value, Allowed::default());
            if !node.placeholders().is_empty() {
                self.add(&at(&base, ["body_set", key]), "has a placeholder", "use constants");
            }
        }
        let has_tables = self
            .declared
            .op
            .iter()
            .all(|op| op.body.as_ref().is_none_or(Value::is_object) && (op.body.is_some() || dry_run.body_set.is_empty()));
        if !dry_run.body_set.is_empty() && !has_tables {
            self.add(&at(&base, ["body_set"]), "an op has a body that is no table", "only members of a table can be set");
        }
    }

    fn unused(&mut self) {
        let unused: Vec<_> = self.declared.settings.keys().filter(|name| !self.used.contains(*name)).cloned().collect();
        for name in unused {
            self.add(&at(&[], ["settings", &name]), "is used nowhere", "remove it: a setting that does nothing misleads");
        }
        if !self.all_kinds_used {
            let kinds = self.declared.ids.keys().filter_map(|name| name.parse::<Kind>().ok());
            for kind in kinds.filter(|kind| !self.used_kinds.contains(kind)).collect::<Vec<_>>() {
                self.add(&at(&[], ["ids", kind.name()]), "is used nowhere", "use {{id}}, {{ids}} or that kind, or remove it");
            }
        }
    }
}

/// Every placeholder of a request.
fn placeholders(request: &Request) -> Vec<&Placeholder> {
    let texts = [&request.path].into_iter().chain(request.query.iter().chain(&request.headers).map(|(_, text)| text));
    texts.flat_map(Text::placeholders).chain(request.body.iter().flat_map(Node::placeholders)).collect()
}

/// The keys of `[auth]` with their values.
pub(crate) fn auth_values(auth: &declared::Auth) -> [(&'static str, Option<&String>); 16] {
    [
        ("token", auth.token.as_ref()),
        ("name", auth.name.as_ref()),
        ("value", auth.value.as_ref()),
        ("username", auth.username.as_ref()),
        ("password", auth.password.as_ref()),
        ("token_url", auth.token_url.as_ref()),
        ("client_id", auth.client_id.as_ref()),
        ("client_secret", auth.client_secret.as_ref()),
        ("refresh_token", auth.refresh_token.as_ref()),
        ("scope", auth.scope.as_ref()),
        ("credentials", auth.credentials.as_ref()),
        ("access_key", auth.access_key.as_ref()),
        ("secret_key", auth.secret_key.as_ref()),
        ("region", auth.region.as_ref()),
        ("service", auth.service.as_ref()),
        ("secret", auth.secret.as_ref()),
    ]
}

/// A pattern that matches whole texts.
pub(crate) fn whole_pattern(pattern: &str) -> Option<Regex> {
    // Alone first: brackets that close ours would end the match early.
    Regex::new(pattern).ok()?;
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

/// A host name with or without a port: no address in brackets, no user, no path.
pub(crate) fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_port = |port: &str| !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    name.len() <= 253 && name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// A name of a header (RFC 9110 5.1), as far as anybody uses them.
fn is_header(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// `15m` in seconds.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok().filter(|_| !number.starts_with('+'))?.checked_mul(unit)?;
    (1..=DURATION_SECONDS_MAX).contains(&seconds).then_some(seconds)
}
