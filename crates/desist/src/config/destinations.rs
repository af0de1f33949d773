//! `[[destinations]]`: who must be told, and what a table must say beyond its types.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use desist_connector::declared::{Ceiling, Effect, On, Setting, SettingKind, Transport};
use desist_connector::{Approvals, Given, Instance, Manifest, OpView, SHIPPED, Secret};
use desist_core::lane::{Level, Rate};
use desist_core::limits::{ATTEMPTS_MAX, CONCURRENCY_MAX, RATE_WINDOW_MS_MAX, RATES_MAX};
use desist_core::purpose::BUILT_IN;
use desist_engine::delivery::{Class, DESTINATIONS_MAX};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Config, SecretSource, error, shown};
use crate::limits::{
    DESTINATION_ID_BYTES_MAX, DESTINATION_LINGER_MAX, DESTINATION_OWNER_BYTES_MAX, DESTINATION_TASK_BYTES_MAX, DESTINATION_TIMEOUT_MAX,
    PERIOD_SECONDS_MAX, PERIOD_SECONDS_MIN,
};

/// What a destination is told of unless it says otherwise, as far as its connector can say it.
const DEFAULT_PURPOSES: [&str; 3] = ["sale", "sharing", "targeted_advertising"];
/// In an op's purposes: all there are.
const EVERY_PURPOSE: &str = "*";

/// The path of the wrong value, and what is wrong about it.
type Problem = (String, String);

/// One `[[destinations]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// What commands, pages and metrics call it: 1 to 64 of a-z 0-9 and hyphens, once only. Another id is another destination,
    /// which is told everything from the beginning.
    pub id: String,
    /// The id of a connector that comes with desist: `desist connector show ID` shows one. Exactly one of `connector` and `manifest`.
    pub connector: Option<String>,
    /// The path of a connector manifest of your own. A relative path starts at this file's directory.
    pub manifest: Option<PathBuf>,
    /// What the recipient is under the law: `"third_party"`, it gets data for purposes of its own; `"service_provider"` and
    /// `"contractor"`, it works under a contract; `"internal"`, a system of the business itself.
    #[schemars(schema_with = "class_schema")]
    pub class: Class,
    /// What it is told of. Without it `sale`, `sharing` and `targeted_advertising`, as far as the connector has calls for them. Each
    /// purpose that stands here needs a call of the connector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purposes: Option<Vec<String>>,
    /// What the connector asks for, by name. A value is a text, a whole number, true or false, or a list; a secret is
    /// `{ env = "NAME" }` or `{ file = "PATH" }`, and never stands here itself. It is read at start and at reload. While it is missing
    /// this destination waits.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub settings: BTreeMap<String, SettingValue>,
    /// Whether it may be reached on a private network, and over plain http on this machine.
    #[serde(default)]
    pub allow_private: bool,
    /// What you agree to beside opt-outs: `"delete"`, the connector erases people's data.
    #[serde(default)]
    pub approve: Vec<Approval>,
    /// Let the destination check each call and change nothing, if its connector can ask for that.
    #[serde(default)]
    pub dry_run: bool,
    /// The level at which an opt-out counts as enforced there: `"accepted"`, it took it; `"applied"`, it said that it is done;
    /// `"verified"`, it was read back. Without it `"applied"`, or less if its connector cannot prove that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<Required>,
    /// How long one round takes that reads back what was told, if the connector can.
    #[serde(default = "week")]
    pub patrol: Period,
    /// How long one round takes that tells again: where nothing can be read back, and where a removal or deletion does not last.
    #[serde(default = "month")]
    pub resend_every: Period,
    /// How long one call may take, at most 29 seconds.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
    /// Most calls in a time, such as `["300/1m"]`, at most 4 together with those of the connector, which hold too.
    #[serde(default)]
    pub rate: Vec<String>,
    /// Most calls at the same time. Without it as many as the connector says, and never more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How long a call that is not full waits for more, at most an hour. Without it as long as the connector says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger: Option<Period>,
    /// Attempts before somebody who is refused alone becomes a dead letter, 1 to 16. Without it 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Who tells it by hand, with transport `manual` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What that person is to do, with transport `manual` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The manifest, once the file was read.
    #[serde(skip)]
    pub(super) read: ReadManifest,
}

/// A manifest from a file. Two tables are equal if they say the same, read or not.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadManifest(Option<Arc<Manifest>>);

impl PartialEq for ReadManifest {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

fn class_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["third_party", "service_provider", "contractor", "internal"] })
}

/// What an operator agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Approval {
    /// People's data may be erased.
    Delete,
}

/// The level at which something counts as enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Required {
    /// The destination took it.
    Accepted,
    /// It said that it is done.
    Applied,
    /// It was read back.
    Verified,
}

impl From<Required> for Level {
    fn from(required: Required) -> Self {
        match required {
            Required::Accepted => Self::Accepted,
            Required::Applied => Self::Applied,
            Required::Verified => Self::Verified,
        }
    }
}

/// A time such as `"10s"`, `"15m"`, `"12h"` or `"7d"`, from a second to 90 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, with = "String")]
pub struct Period {
    text: String,
    seconds: u64,
}

impl Period {
    /// In seconds.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// In milliseconds.
    pub fn millis(&self) -> u64 {
        self.seconds * 1000
    }
}

impl TryFrom<String> for Period {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "is not a time";
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            _ => return Err(FORM),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM);
        }
        let seconds = digits.parse::<u64>().map_err(|_| FORM)? * unit;
        if !(PERIOD_SECONDS_MIN..=PERIOD_SECONDS_MAX).contains(&seconds) {
            return Err("is not between 1s and 90d");
        }
        Ok(Self { text, seconds })
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.text
    }
}

fn period(text: &str) -> Period {
    Period::try_from(text.to_owned()).expect("a time of ours")
}

fn week() -> Period {
    period("7d")
}

fn month() -> Period {
    period("30d")
}

fn ten_seconds() -> Period {
    period("10s")
}

/// A setting as it stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub enum SettingValue {
    /// A value.
    Plain(Value),
    /// Where a secret is.
    Secret(SecretSource),
}

impl TryFrom<toml::Value> for SettingValue {
    type Error = &'static str;
    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::Table(table) => {
                let mut entries = table.into_iter();
                match (entries.next(), entries.next()) {
                    (Some((key, toml::Value::String(place))), None) if key == "env" => Ok(Self::Secret(SecretSource::Env(place))),
                    (Some((key, toml::Value::String(place))), None) if key == "file" => Ok(Self::Secret(SecretSource::File(place.into()))),
                    _ => Err("does not say where a secret is"),
                }
            }
            other => json(other).map(Self::Plain),
        }
    }
}

/// A value as the connector takes it. No error shows it.
fn json(value: toml::Value) -> Result<Value, &'static str> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(members) => {
            let members = members.into_iter().map(|(key, member)| json(member).map(|member| (key, member)));
            Value::Object(members.collect::<Result<Map<_, _>, _>>()?)
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => return Err("is of the wrong type"),
    })
}

impl From<SettingValue> for toml::Value {
    fn from(value: SettingValue) -> Self {
        let written = match value {
            SettingValue::Plain(value) => Self::try_from(value),
            SettingValue::Secret(source) => Self::try_from(source),
        };
        // Everything in it came out of a file of this form.
        written.unwrap_or_else(|_| Self::String(String::new()))
    }
}

impl Destination {
    /// Its manifest; none while the file was not read.
    pub fn manifest(&self) -> Option<&Arc<Manifest>> {
        match &self.connector {
            Some(id) => shipped(id).map(|(manifest, _)| manifest),
            None => self.read.0.as_ref(),
        }
    }

    /// Whether the connector's calls are known to be those of the destination; whoever writes a manifest knows that.
    pub fn is_verified(&self) -> bool {
        self.connector.as_ref().is_none_or(|id| shipped(id).is_some_and(|(_, verified)| verified))
    }

    /// The names of the purposes that it is told of.
    pub fn purposes_of(&self, manifest: &Manifest) -> Vec<String> {
        match &self.purposes {
            Some(purposes) => purposes.clone(),
            None => DEFAULT_PURPOSES.into_iter().filter(|purpose| implements(manifest, purpose)).map(str::to_owned).collect(),
        }
    }

    /// The most that is known there of an opt-out that arrives: the least of the calls that carry it.
    pub fn ceiling(&self, manifest: &Manifest) -> Level {
        match manifest.declared().connector.transport {
            Transport::File | Transport::S3 | Transport::Sftp | Transport::Manual => Level::Accepted,
            // What was written from documentation alone shows that it was taken, and no more.
            Transport::Http if !self.is_verified() => Level::Accepted,
            transport @ (Transport::Http | Transport::Sql) => {
                let is_read_back = transport == Transport::Sql || manifest.verify_unit().is_some();
                let purposes = self.purposes_of(manifest);
                let of = |op: OpView<'_>| match op.ceiling {
                    Ceiling::Accepted => Level::Accepted,
                    Ceiling::Verified if is_read_back => Level::Verified,
                    Ceiling::Applied | Ceiling::Verified => Level::Applied,
                };
                opt_outs(manifest, &purposes).map(of).min().unwrap_or(Level::Accepted)
            }
        }
    }

    /// The level at which it counts as enforced.
    pub fn required_of(&self, manifest: &Manifest) -> Level {
        self.required.map_or_else(|| self.ceiling(manifest).min(Level::Applied), Level::from)
    }

    /// Whether what is told does not last, so that it is told again and again.
    pub fn fades(&self, manifest: &Manifest) -> bool {
        let purposes = self.purposes_of(manifest);
        opt_outs(manifest, &purposes).any(|op| matches!(op.effect, Effect::Remove | Effect::Delete))
    }

    /// The rate windows that hold: of each length the smaller one. The manifest's own are for all that share its credentials together.
    pub fn rates_of(&self, manifest: &Manifest, sharing: u32) -> Vec<Rate> {
        let own = self.rate.iter().filter_map(|text| text.parse::<Rate>().ok());
        // Fewer calls than destinations: each has one in a longer time.
        let part = |calls: u32, window_ms: u64| match calls / sharing.max(1) {
            0 => Rate { calls: 1, window_ms: (window_ms * u64::from(sharing.div_ceil(calls.max(1)))).min(RATE_WINDOW_MS_MAX) },
            calls => Rate { calls, window_ms },
        };
        let declared = manifest.pace().rates.iter().map(|(calls, seconds)| part(*calls, seconds * 1000));
        let mut rates = BTreeMap::<u64, u32>::new();
        for rate in declared.chain(own) {
            rates.entry(rate.window_ms).and_modify(|calls| *calls = rate.calls.min(*calls)).or_insert(rate.calls);
        }
        rates.into_iter().map(|(window_ms, calls)| Rate { calls, window_ms }).collect()
    }

    /// What the operator agreed to.
    pub fn approvals(&self) -> Approvals {
        Approvals { delete: self.approve.contains(&Approval::Delete), http_loopback: self.allow_private, dry_run: self.dry_run }
    }

    /// The manifest with the settings, and each secret's text by the name of its setting; or what is missing. No text shows a secret.
    pub fn instance(&self, manifest: &Manifest) -> Result<(Instance, BTreeMap<String, Secret>), String> {
        let (mut given, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &self.settings {
            let value = match value {
                SettingValue::Plain(value) => Given::Value(value.clone()),
                SettingValue::Secret(source) => {
                    let text = source.read().map_err(|error| format!("settings.{name}: {error}"))?;
                    let secret = Secret::new(text.as_str());
                    secrets.insert(name.clone(), secret.clone());
                    Given::Secret(secret)
                }
            };
            given.insert(name.clone(), value);
        }
        let said = |problem: &desist_connector::Problem| format!("{}: {}; {}", problem.path, problem.message, problem.hint);
        let instance = Instance::new(manifest, &given, self.approvals())
            .map_err(|problems| problems.first().map_or_else(|| "the settings do not fit".to_owned(), said))?;
        Ok((instance, secrets))
    }

    /// Makes relative paths start at this directory.
    pub(super) fn start_at(&mut self, dir: &Path) {
        if let Some(path) = &mut self.manifest {
            *path = dir.join(&path);
        }
        for value in self.settings.values_mut() {
            if let SettingValue::Secret(source) = value {
                source.start_at(dir);
            }
        }
    }

    /// Reads the manifest, if it is a file: what is wrong with it.
    pub(super) fn read_manifest(&mut self) -> Result<(), String> {
        let Some(path) = &self.manifest else { return Ok(()) };
        let file = path.display().to_string();
        let text = read_text(path).map_err(|problem| format!("{file} {problem}"))?;
        match Manifest::parse(&text, &file) {
            Ok(manifest) => self.read = ReadManifest(Some(Arc::new(manifest))),
            Err(problems) => {
                let more = problems.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(" (and {more} more: `desist connector lint` shows all)") };
                return Err(problems.first().map_or(file, ToString::to_string) + &more);
            }
        }
        Ok(())
    }

    /// What is wrong with this table, whatever its manifest is.
    fn first_problem(&self, declared: &HashSet<&str>) -> Option<(String, String)> {
        let said = |key: &str, text: String| Some((key.to_owned(), text));
        match (&self.connector, &self.manifest) {
            (None, None) => return said("connector", "missing, and so is manifest".to_owned()),
            (Some(_), Some(_)) => return said("manifest", "stands beside connector".to_owned()),
            (Some(id), None) if shipped(id).is_none() => {
                let near = error::did_you_mean(id, SHIPPED.iter().map(|shipped| shipped.id));
                return said("connector", format!("{} is no connector that comes with desist{near}", shown(id)));
            }
            (None, Some(path)) if path.as_os_str().is_empty() => return said("manifest", "is empty".to_owned()),
            _ => {}
        }
        let mut seen = HashSet::new();
        for (place, purpose) in self.purposes.iter().flatten().enumerate() {
            let path = format!("purposes.{place}");
            if !declared.contains(purpose.as_str()) {
                let near = error::did_you_mean(purpose, declared.iter().copied());
                return said(&path, format!("{} is not a purpose of this business{near}", shown(purpose)));
            }
            if !seen.insert(purpose) {
                return said(&path, format!("{purpose:?} stands twice"));
            }
        }
        if self.purposes.as_ref().is_some_and(Vec::is_empty) {
            return said("purposes", "is empty".to_owned());
        }
        for (key, text, max) in [("owner", &self.owner, DESTINATION_OWNER_BYTES_MAX), ("task", &self.task, DESTINATION_TASK_BYTES_MAX)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty() || text.len() > max || text.contains(char::is_control)) {
                return said(key, "is empty or too long, or has a control character".to_owned());
            }
        }
        for (key, period, most) in
            [("timeout", Some(&self.timeout), DESTINATION_TIMEOUT_MAX), ("linger", self.linger.as_ref(), DESTINATION_LINGER_MAX)]
        {
            if let Some(period) = period.filter(|period| period.seconds > most) {
                return said(key, format!("{:?} is too long", period.text));
            }
        }
        for (place, text) in self.rate.iter().enumerate() {
            if let Err(error) = text.parse::<Rate>() {
                return said(&format!("rate.{place}"), format!("{} is not a rate: {error}", shown(text)));
            }
        }
        if self.attempts.is_some_and(|attempts| !(1..=ATTEMPTS_MAX).contains(&attempts)) {
            return said("attempts", "is out of range".to_owned());
        }
        if self.concurrency.is_some_and(|calls| !(1..=CONCURRENCY_MAX as u32).contains(&calls)) {
            return said("concurrency", "is out of range".to_owned());
        }
        for (name, value) in &self.settings {
            if let SettingValue::Secret(source) = value
                && let Some(problem) = source.problem()
            {
                return said(&format!("settings.{name}"), problem.to_owned());
            }
        }
        None
    }

    /// What does not fit its manifest.
    fn first_misfit(&self, manifest: &Manifest) -> Option<(String, String)> {
        let said = |key: &str, text: String| Some((key.to_owned(), text));
        let id = manifest.id();
        if let Some((place, purpose)) = self.purposes.iter().flatten().enumerate().find(|(_, purpose)| !implements(manifest, purpose)) {
            let known: Vec<_> = told_of(manifest).into_iter().collect();
            let text = format!("the connector {id} has no opt-out for {purpose:?}, but for {}", known.join(", "));
            return said(&format!("purposes.{place}"), text);
        }
        let purposes = self.purposes_of(manifest);
        if purposes.is_empty() {
            let known: Vec<_> = told_of(manifest).into_iter().collect();
            return said("purposes", format!("the connector {id} has opt-outs for {} alone", known.join(", ")));
        }
        let ceiling = self.ceiling(manifest);
        if let Some(required) = self.required.map(Level::from).filter(|required| *required > ceiling) {
            let text = format!("{} is more than the connector {id} proves, {}", level(required), level(ceiling));
            return said("required", text);
        }
        let pace = manifest.pace();
        if let Some(calls) = self.concurrency.filter(|calls| *calls > pace.concurrency) {
            return said("concurrency", format!("{calls} is more than the connector {id} allows, {}", pace.concurrency));
        }
        for (place, rate) in self.rate.iter().filter_map(|text| text.parse::<Rate>().ok()).enumerate() {
            let above = pace.rates.iter().find(|(calls, seconds)| seconds * 1000 == rate.window_ms && *calls < rate.calls);
            if let Some((calls, _)) = above {
                let text = format!("{:?} is more than the connector {id} allows, {calls} in that time", self.rate[place]);
                return said(&format!("rate.{place}"), text);
            }
        }
        if self.rates_of(manifest, 1).len() > RATES_MAX {
            return said("rate", format!("with those of the connector {id} there are more than {RATES_MAX}"));
        }
        if manifest.declared().connector.transport != Transport::Manual {
            for (key, text) in [("owner", &self.owner), ("task", &self.task)] {
                if text.is_some() {
                    return said(key, format!("the connector {id} needs nobody, since its transport is not manual"));
                }
            }
        }
        self.first_setting_problem(manifest)
    }

    fn first_setting_problem(&self, manifest: &Manifest) -> Option<(String, String)> {
        let settings = &manifest.declared().settings;
        let names = || settings.keys().map(String::as_str);
        for (name, value) in &self.settings {
            let said = |text: String| Some((format!("settings.{name}"), text));
            match (settings.get(name), value) {
                (None, _) => {
                    let known: Vec<_> = names().collect();
                    let near = error::did_you_mean(name, names());
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return said(format!("the connector {} has no such setting{near}; it has {known}", manifest.id()));
                }
                (Some(Setting { kind: SettingKind::Secret, .. }), SettingValue::Plain(_)) => {
                    return said("is a secret, which does not belong into this file".to_owned());
                }
                _ => {}
            }
        }
        // Where the secrets are is looked up later; here any will do.
        let given = self.settings.iter().map(|(name, value)| {
            let given = match value {
                SettingValue::Plain(value) => Given::Value(value.clone()),
                SettingValue::Secret(_) => Given::Secret(Secret::new("-")),
            };
            (name.clone(), given)
        });
        let problems = Instance::new(manifest, &given.collect(), self.approvals()).err()?;
        let problem = problems.into_iter().next()?;
        let key = match problem.path.as_str() {
            path if path.starts_with("settings.") || path == "dry_run" => path,
            path if path.starts_with("op.") => "approve",
            _ => "settings",
        };
        Some((key.to_owned(), format!("{}: {}", problem.message, problem.hint)))
    }
}

fn level(level: Level) -> String {
    crate::web::word(level)
}

/// The opt-outs that carry any of these purposes.
pub fn opt_outs<'m>(manifest: &'m Manifest, purposes: &'m [String]) -> impl Iterator<Item = OpView<'m>> {
    manifest.ops().filter(|op| op.on == On::OptOut && op.purposes.iter().any(|one| one == EVERY_PURPOSE || purposes.contains(one)))
}

fn implements(manifest: &Manifest, purpose: &str) -> bool {
    manifest.ops().any(|op| op.on == On::OptOut && op.purposes.iter().any(|one| one == EVERY_PURPOSE || one == purpose))
}

/// The purposes that a connector has opt-outs for.
fn told_of(manifest: &Manifest) -> Vec<&str> {
    let mut names: Vec<&str> =
        manifest.ops().filter(|op| op.on == On::OptOut).flat_map(|op| op.purposes.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A shipped connector's manifest, and whether it is verified.
pub fn shipped(id: &str) -> Option<(&'static Arc<Manifest>, bool)> {
    static MANIFESTS: LazyLock<BTreeMap<&str, (Arc<Manifest>, bool)>> = LazyLock::new(|| {
        let read = SHIPPED.iter().filter_map(|one| Some((one.id, (Arc::new(Manifest::parse(one.text, one.id).ok()?), one.verified))));
        read.collect()
    });
    MANIFESTS.get(id).map(|(manifest, verified)| (manifest, *verified))
}

/// The text of a manifest; what is far too long for one is not read to its end.
fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let most = desist_connector::limits::MANIFEST_BYTES_MAX;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > most {
        return Err(format!("has more than {most} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

impl Config {
    /// The first bad value of the destinations that needs no other file to be seen.
    pub(super) fn first_destination_problem(&self) -> Option<Problem> {
        if self.destinations.len() > DESTINATIONS_MAX {
            return Some(("destinations".to_owned(), format!("there are {}", self.destinations.len())));
        }
        let declared: HashSet<&str> =
            BUILT_IN.iter().map(|(name, _)| *name).chain(self.purposes.iter().map(|purpose| purpose.name.as_str())).collect();
        let mut seen = HashSet::new();
        for (place, destination) in self.destinations.iter().enumerate() {
            let id = &destination.id;
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let problem = match () {
                () if id.is_empty() || id.len() > DESTINATION_ID_BYTES_MAX || !id.bytes().all(allowed) => {
                    Some(("id".to_owned(), format!("{} is not an id of a destination", shown(id))))
                }
                () if !seen.insert(id) => Some(("id".to_owned(), format!("{} stands twice", shown(id)))),
                () => destination.first_problem(&declared),
            };
            let misfit = || destination.manifest().and_then(|manifest| destination.first_misfit(manifest));
            if let Some((key, text)) = problem.or_else(misfit) {
                return Some((format!("destinations.{place}.{key}"), text));
            }
        }
        None
    }

    /// Reads the manifests that are files: the first thing that is wrong with one, or with a table that uses it.
    pub(super) fn read_manifests(&mut self, dir: &Path) -> Result<(), Problem> {
        for (place, destination) in self.destinations.iter_mut().enumerate() {
            destination.start_at(dir);
            destination.read_manifest().map_err(|text| (format!("destinations.{place}.manifest"), text))?;
            if let Some((key, text)) = destination.read.0.as_ref().and_then(|manifest| destination.first_misfit(manifest)) {
                return Err((format!("destinations.{place}.{key}"), text));
            }
        }
        Ok(())
    }
}
