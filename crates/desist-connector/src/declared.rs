//! A manifest as it is written. The comments of the fields are the descriptions of the JSON Schema, and what a problem says
//! about a key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The shape of one destination's API: which calls tell it that somebody opted out, and how its answers are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// What this file is about.
    pub connector: Connector,
    /// What an operator fills in, one `[settings.NAME]` table each.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// How a call proves who makes it.
    #[serde(default)]
    pub auth: Auth,
    /// How much may be sent at once, and how fast.
    #[serde(default)]
    pub limits: Limits,
    /// How identifiers are spelled, one `[ids.KIND]` table for each kind that the destination takes.
    #[serde(default)]
    pub ids: BTreeMap<String, Ids>,
    /// The call that finds the destination's own key of a person.
    pub lookup: Option<Lookup>,
    /// What can be told, one `[[op]]` table each.
    #[serde(default)]
    pub op: Vec<Op>,
    /// The call that reads back whether a person is opted out.
    pub verify: Option<Verify>,
    /// The cheapest call that shows whether credentials work.
    pub probe: Option<Probe>,
    /// What makes the destination check a call and change nothing.
    pub dry_run: Option<DryRun>,
    /// What must exist before the first call, in order.
    #[serde(default)]
    pub setup: Vec<Setup>,
}

/// `[connector]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// 1 to 64 of a-z 0-9 and hyphens. It is the file's name, too.
    pub id: String,
    /// The version of this file, a whole number from 1 that grows with each change.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// What people call the destination.
    pub title: String,
    /// Where the destination's API is described, an https URL.
    pub docs: Option<String>,
    /// The hosts that calls may go to, with a port unless it is 443. A host can be `{{settings.NAME}}`, or have that as its first label.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What carries a call.
    #[serde(default)]
    pub transport: Transport,
}

/// What carries a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// HTTPS.
    #[default]
    Http,
    /// Rows of a table in a data base.
    Sql,
    /// A file in a directory.
    File,
    /// An object in a bucket.
    S3,
    /// A file on another machine.
    Sftp,
    /// A list that a person works off.
    Manual,
}

/// `[settings.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: SettingKind,
    /// Whether an instance must have it.
    #[serde(default)]
    pub required: bool,
    /// What holds if an instance does not have it. A secret has none.
    pub default: Option<Value>,
    /// A regular expression that the whole text must match, with `type = "string"` only.
    pub pattern: Option<String>,
    /// What it can be, with `type = "enum"` only.
    pub values: Option<Vec<String>>,
    /// What an operator reads.
    pub doc: Option<String>,
}

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingKind {
    /// A text.
    String,
    /// A whole number.
    Int,
    /// True or false.
    Bool,
    /// One of `values`.
    Enum,
    /// A text that stands in headers alone and is never printed.
    Secret,
    /// A list of anything.
    List,
    /// A host name, with a port unless it is 443. The only type that can be a whole host.
    Host,
    /// A path that begins with a slash. The only type whose slashes stay slashes.
    Path,
}

impl SettingKind {
    /// As it stands in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Enum => "enum",
            Self::Secret => "secret",
            Self::List => "list",
            Self::Host => "host",
            Self::Path => "path",
        }
    }
}

/// `[auth]`: one kind, with the keys that belong to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// How a call proves who makes it.
    #[serde(default)]
    pub kind: AuthKind,
    /// The token of `bearer`, as `{{settings.NAME}}`.
    pub token: Option<String>,
    /// The name of the header, with `header`.
    pub name: Option<String>,
    /// The value of the header, with `header`, as `{{settings.NAME}}`.
    pub value: Option<String>,
    /// The name, with `basic`.
    pub username: Option<String>,
    /// The password, with `basic`, as `{{settings.NAME}}`.
    pub password: Option<String>,
    /// Where tokens come from, with `oauth2_client`, `oauth2_refresh` and `google_sa`: an https URL on one of `hosts`.
    pub token_url: Option<String>,
    /// The client's name, with `oauth2_client` and `oauth2_refresh`.
    pub client_id: Option<String>,
    /// The client's secret, with `oauth2_client` and `oauth2_refresh`.
    pub client_secret: Option<String>,
    /// The refresh token, with `oauth2_refresh`.
    pub refresh_token: Option<String>,
    /// The scopes asked for, separated by spaces.
    pub scope: Option<String>,
    /// The key file of the account as text, with `google_sa`.
    pub credentials: Option<String>,
    /// The access key's name, with `aws_sigv4`.
    pub access_key: Option<String>,
    /// The secret key, with `aws_sigv4`.
    pub secret_key: Option<String>,
    /// The region, with `aws_sigv4`.
    pub region: Option<String>,
    /// The service, with `aws_sigv4`.
    pub service: Option<String>,
    /// The signing secret, with `standard_webhooks`.
    pub secret: Option<String>,
}

/// How a call proves who makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// A header of its own.
    Header,
    /// Name and password.
    Basic,
    /// `OAuth` 2 with client credentials.
    #[serde(rename = "oauth2_client")]
    Oauth2Client,
    /// `OAuth` 2 with a refresh token.
    #[serde(rename = "oauth2_refresh")]
    Oauth2Refresh,
    /// A service account of Google.
    GoogleSa,
    /// AWS Signature Version 4.
    #[serde(rename = "aws_sigv4")]
    AwsSigv4,
    /// The signature of Standard Webhooks.
    StandardWebhooks,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most items in one call; 1 unless it says otherwise.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_items: Option<u32>,
    /// Most bytes in one body.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub batch_bytes: Option<u32>,
    /// Most identifiers in one item; a person with more becomes several items.
    #[schemars(range(min = 1, max = 256))]
    pub ids_per_item: Option<u32>,
    /// Most calls at the same time; 1 unless it says otherwise.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<u32>,
    /// Most calls in a time, such as `"300/1m"` or `"500/1d"`. All of them hold.
    #[serde(default)]
    pub rate: Vec<String>,
    /// Who shares the rate.
    #[serde(default)]
    pub scope: LimitScope,
    /// Headers of an answer that say how long to wait: seconds, or a time in seconds since 1970.
    #[serde(default)]
    pub honour_headers: Vec<String>,
    /// How long a call that is not full may wait for more, such as `"60s"`.
    pub linger: Option<String>,
}

/// Who shares the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// This instance has it alone.
    #[default]
    Instance,
    /// All instances of this connector with the same credentials.
    Credentials,
}

/// `[ids.KIND]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// Pipes such as `"trim|lower|sha256|hex"`; each makes one spelling of the identifier. Without any, the normal form is sent.
    #[serde(default)]
    pub variants: Vec<String>,
    /// What `{{id}}` is: a template with `{{value}}`. Without it, the spelling itself.
    pub emit: Option<Value>,
    /// What `{{id}}` is when only the SHA-256 of the normal form is known: a template in which `{{value}}` is that digest in
    /// hexadecimal digits. Without it such an identifier is sent only if a variant is that digest.
    pub hashed: Option<Value>,
    /// What the destination calls this kind; the value of `{{id.name}}`.
    pub name: Option<String>,
}

/// `[lookup]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// `GET` or `POST`.
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body of a `POST`.
    pub body: Option<Value>,
    /// A pointer to the records found, such as `/records/*`.
    #[serde(rename = "match")]
    pub matched: String,
    /// A pointer inside a record to its key, or a table of names and pointers.
    pub emit: Emit,
    /// What the answer says when nobody was found. Without it an empty list says so.
    pub absent_when: Option<String>,
    /// Status codes that say that nobody was found.
    #[serde(default)]
    pub absent_status: Vec<u16>,
    /// What the answer says when there are more records than it holds; such a person is never counted as told.
    pub more_when: Option<String>,
    /// How long a result may be used again, such as `"10m"`.
    pub cache: Option<String>,
    /// How failures are told apart.
    #[serde(default)]
    pub errors: Errors,
}

/// What of a record is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Emit {
    /// One value, which is `{{lookup}}`.
    One(String),
    /// Several, each of which is `{{lookup.NAME}}`.
    Named(BTreeMap<String, String>),
}

impl Default for Emit {
    fn default() -> Self {
        Self::One(String::new())
    }
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Adds or asks.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// As it stands in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// `[[op]]`: one thing that can be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// The choice that it carries out.
    pub on: On,
    /// The purposes that it implements, such as `["sale", "sharing"]`; or `["*"]`, all of them, in a notice or table that says
    /// which with `{{purposes}}`.
    pub purposes: Vec<String>,
    /// The field, list or flag that it writes; several as a list. With `effect = "flag"`, paths of members of `item` or `body`.
    pub writes: OneOrMany,
    /// Paths of the other members with a constant: they steer the call and say nothing about a person.
    #[serde(default)]
    pub fixed: Vec<String>,
    /// What becomes of the person at the destination.
    pub effect: Effect,
    /// The most that a good answer of this API proves.
    pub ceiling: Ceiling,
    /// The method.
    pub method: Option<Method>,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: Option<String>,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What one item stands for.
    #[serde(default)]
    pub unit: Unit,
    /// A list of settings, as `settings.NAME`: the calls are made once for each of its values, which is `{{each}}`.
    pub for_each: Option<String>,
    /// `id.name`: items of one kind of identifier stand together in a `group`.
    pub group_by: Option<String>,
    /// The template of one item.
    pub item: Option<Value>,
    /// The template of one group, with `{{group}}` and `{{items}}`.
    pub group: Option<Value>,
    /// The template of the body.
    pub body: Option<Value>,
    /// How a good answer is read.
    pub result: Option<OpResult>,
    /// How failures are told apart.
    #[serde(default)]
    pub errors: Errors,
    /// The call that asks what became of a job.
    pub poll: Option<Poll>,
}

/// The choice that an op carries out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The person opted out.
    #[default]
    OptOut,
    /// The person opted in again.
    OptIn,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What becomes of the person at the destination. They differ in law and in fact: a flag stays, a removal from a list is
/// forgotten by the next upload, and whoever was deleted is collected again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A field of the person's record says so.
    #[default]
    Flag,
    /// The person is taken off a list.
    Remove,
    /// The identifier will not be used in future.
    Suppress,
    /// The person's data is erased. An instance needs the operator's approval.
    Delete,
    /// The recipient is told, and acts by itself.
    Notice,
    /// A row of a suppression table.
    Table,
}

/// The most that a good answer proves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ceiling {
    /// The destination took it.
    #[default]
    Accepted,
    /// The destination did it.
    Applied,
    /// It was read back.
    Verified,
}

/// What one item stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A person.
    #[default]
    Person,
    /// One spelling of one identifier.
    Id,
    /// One record that the look-up found.
    Row,
}

/// `[op.result]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpResult {
    /// How the API says what worked.
    pub dialect: Dialect,
    /// Status codes of a good answer; 200 to 299 unless it says otherwise.
    #[serde(default)]
    pub ok_status: Vec<u16>,
    /// What a good answer, or a good row of it, says.
    pub ok: Option<String>,
    /// `body_flag`: what a bad answer says. `list_by_key`: a pointer to the failed rows. `count`: a pointer to how many failed.
    pub failed: Option<String>,
    /// `list_by_key`: a pointer inside a failed row to what names its item. `job`: a pointer to the job's number.
    pub key: Option<String>,
    /// `list_by_key`: the key is the item's position, counted from this number.
    #[schemars(range(max = 1))]
    pub key_base: Option<u32>,
    /// `list_by_key`: a pointer inside an item to the value that the key repeats.
    pub item_key: Option<String>,
    /// A pointer to the code of a failure.
    pub reason: Option<String>,
    /// What the answer says of somebody whom the destination does not know: good, and evidence.
    pub absent: Option<String>,
    /// Status codes that say so, with one item in a call.
    #[serde(default)]
    pub absent_status: Vec<u16>,
    /// What the answer says of somebody who was told before: it counts as accepted.
    pub duplicate: Option<String>,
}

/// How an API says what worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// The status speaks for all items.
    #[default]
    Status,
    /// A member of the body speaks for all items.
    #[serde(alias = "body-flag")]
    BodyFlag,
    /// One row for each item, in order.
    Index,
    /// A list of the items that failed.
    #[serde(alias = "list-by-key")]
    ListByKey,
    /// How many items failed.
    Count,
    /// A number to ask with later.
    Job,
    /// It was taken, and nothing more is ever said.
    Blind,
}

/// `[op.errors]`, `[lookup.errors]`, `[verify.errors]`, `[probe.errors]`, `[setup.check.errors]`: codes in the body go before the status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// Status codes after which the same call may work later, besides 408, 425 and 500 to 599.
    #[serde(default)]
    pub retry_status: Vec<u16>,
    /// Status codes that say that the call was too large, besides 413.
    #[serde(default)]
    pub shrink_status: Vec<u16>,
    /// A pointer to the code in the body.
    pub code_at: Option<String>,
    /// Codes after which the same call may work later; of one row, the same item.
    #[serde(default)]
    pub retry_code: Vec<Code>,
    /// Codes that say that the credentials do not work.
    #[serde(default)]
    pub auth_code: Vec<Code>,
    /// Codes that say that it was too much at once.
    #[serde(default)]
    pub throttle_code: Vec<Code>,
}

/// A code of an API: a text or a whole number. 17 and "17" are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Code {
    /// As a number.
    Number(i64),
    /// As a text.
    Text(String),
}

impl Code {
    /// As a text.
    pub fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// `[op.poll]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// `GET` unless it says otherwise.
    #[serde(default)]
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body of a `POST`.
    pub body: Option<Value>,
    /// What the answer says when all of the job is done.
    pub done: String,
    /// What it says when any of it failed.
    pub failed: Option<String>,
    /// A pointer to the code of a failure.
    pub reason: Option<String>,
    /// How long to wait between two questions, such as `"15m"`.
    pub every: String,
    /// When to stop asking and to say so, such as `"48h"`.
    pub give_up: String,
}

/// `[verify]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// `GET` or `POST`.
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body of a `POST`.
    pub body: Option<Value>,
    /// What the answer says of somebody who is opted out.
    pub clean_when: String,
    /// What it says of somebody whom the destination does not know.
    pub absent_when: Option<String>,
    /// Status codes that say so.
    #[serde(default)]
    pub absent_status: Vec<u16>,
    /// How failures are told apart.
    #[serde(default)]
    pub errors: Errors,
}

/// `[probe]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The method.
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<Value>,
    /// What a good answer says; without it the status is enough.
    pub ok: Option<String>,
    /// Status codes of a good answer; 200 to 299 unless it says otherwise.
    #[serde(default)]
    pub ok_status: Vec<u16>,
    /// How failures are told apart.
    #[serde(default)]
    pub errors: Errors,
}

/// `[dry_run]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Members that are set in the body.
    #[serde(default)]
    pub body_set: BTreeMap<String, Value>,
    /// Parameters that are set in the query.
    #[serde(default)]
    pub query_set: BTreeMap<String, String>,
}

/// `[[setup]]`: something that must exist before the first call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What it is, for the person who runs it.
    pub name: String,
    /// The call that looks whether it exists.
    pub check: Check,
    /// The call that makes it.
    pub create: Create,
}

/// `[setup.check]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The method.
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<Value>,
    /// What the answer says when it exists. A good answer that does not say so, and the status 404, mean that it does not.
    pub exists_when: String,
    /// How failures are told apart.
    #[serde(default)]
    pub errors: Errors,
}

/// `[setup.create]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The method.
    pub method: Method,
    /// One of `hosts`; the first one unless it says otherwise.
    pub host: Option<String>,
    /// The path, with placeholders.
    pub path: String,
    /// The query, with placeholders.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Headers, with placeholders.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<Value>,
}
