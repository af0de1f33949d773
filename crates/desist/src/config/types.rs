//! The shape of `desist.toml`. The doc comments of the fields are the reference documentation.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU8, NonZeroU32},
    path::PathBuf,
};

use axum::http::{Uri, uri::Authority};
use desist_core::purpose::Model;
use desist_engine::alerts::SigningKey;
use desist_proof::note::{Algorithm, Verifier};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Destination, SecretSource, Source};
use crate::limits::URL_BYTES_MAX;

/// The configuration of one business. Every table and key is optional unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The Campaign privacy API on the private listener.
    pub campaign: Campaign,
    /// What the store keeps in clear of the profiles that it otherwise keeps sealed.
    pub vault: Vault,
    /// Who the business is.
    pub business: Business,
    /// The web sites, apps and other surfaces of the business, one `[[sites]]` table each, at most 1000.
    pub sites: Vec<Site>,
    /// The purposes that the business adds to the built-in `sale`, `sharing`, `targeted_advertising`, `profiling`,
    /// `limit_sensitive` and `admt`, one `[[purposes]]` table each, at most 48. A purpose keeps its place when this
    /// file is reordered.
    pub purposes: Vec<Purpose>,
    /// Whose word counts where the law leaves it to the business.
    pub policy: Policy,
    /// Who must be told of opt-outs, one `[[destinations]]` table each, at most 1000. Whoever is taken out is told nothing more.
    pub destinations: Vec<Destination>,
    /// Who cosigns the log, so that nobody has to take the business's word that it has no second history; one
    /// `[[witnesses]]` table each, at most 16.
    pub witnesses: Vec<Witness>,
    /// Who is told of alarms, by a signed POST each (Standard Webhooks). Without this table nobody is.
    pub alerts: Option<Alerts>,
    /// The two listeners.
    pub server: Server,
    /// Limits that are off unless set.
    pub limits: Limits,
    /// Where the values were written, for later messages.
    #[serde(skip)]
    pub(super) source: Source,
}

/// `[campaign]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Campaign {
    /// `"adobe"` answers as Adobe Campaign does, status 500 for some bad input included; `"strict"` answers bad
    /// input with 4xx and unknown members with an error.
    pub compat: Compat,
    /// The fields that the business adds to the Campaign profile, one `[[campaign.fields]]` table each, at most 100. They are
    /// shown and written under `profileAndServicesExt`.
    pub fields: Vec<CustomField>,
}

/// How closely the Campaign API follows Adobe's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Compat {
    #[default]
    /// As Adobe Campaign answers.
    Adobe,
    /// Bad input is always a 4xx.
    Strict,
}

/// One `[[campaign.fields]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomField {
    /// The member's name in a profile: `cus`, then an upper-case letter or a digit, then letters and digits, at most 64 bytes,
    /// once only. Two names that differ in case alone are the same.
    pub name: String,
    /// What a value is: `"string"`, a text; `"number"`; `"boolean"`, true or false; `"date"`; `"enumeration"`, one of `values`.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// What people read in place of the name, at most 128 bytes.
    pub label: Option<String>,
    /// The most characters of a value, 1 to 255, with `type = "string"` only. Without it: 255.
    pub length: Option<NonZeroU8>,
    /// The values to choose from, with `type = "enumeration"` only, and required there: 1 to 200 names of letters, digits and
    /// `_`, at most 64 bytes each, each once. The value of a profile that has none is an empty text.
    #[serde(default)]
    pub values: Vec<String>,
    /// Whether `byText` and `_order` can use the field, with `type` `"string"`, `"date"` or `"enumeration"` only. At most 8 fields.
    #[serde(default)]
    pub searchable: bool,
}

/// What a value of a custom field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum FieldKind {
    /// A text of at most `length` characters.
    String,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A date.
    Date,
    /// One of `values`.
    Enumeration,
}

/// `[vault]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vault {
    /// Which of `email`, `firstName`, `lastName` and the custom fields with `searchable = true` the store keeps in clear, each
    /// once, so that lists of many millions of profiles need no memory. Every other one is sealed and searched in memory,
    /// which takes at most 250 bytes a profile.
    pub searchable: Vec<String>,
}

/// `[business]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Business {
    /// The name that consumers read on the choices page, at most 200 bytes. Without it the page shows the business id.
    pub name: Option<String>,
    /// The IANA time zone in which days and deadlines are counted.
    #[serde(with = "zone")]
    #[schemars(with = "String")]
    pub time_zone: TimeZone,
}

impl Default for Business {
    fn default() -> Self {
        let time_zone = TimeZone::get("America/Los_Angeles").expect("the bundled database has California's zone");
        Self { name: None, time_zone }
    }
}

/// One `[[sites]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What requests name the site by: lower-case letters, digits, `-`, `_` and `.`, at most 64 bytes, once only.
    pub id: String,
    /// The public https URL of the site.
    pub url: BaseUrl,
    /// The kinds of device identifier that the site uses. A signal that comes with one of them is recorded for it;
    /// one that comes with none is honoured for that request.
    #[serde(default = "web_device_kinds")]
    pub device_identifiers: Vec<DeviceKind>,
}

fn web_device_kinds() -> Vec<DeviceKind> {
    vec![DeviceKind::CookieId, DeviceKind::DeviceId]
}

/// A device-level kind of identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DeviceKind {
    /// A first-party cookie's value.
    CookieId,
    /// An app installation's or device's own id.
    DeviceId,
    /// A mobile advertising id.
    Maid,
}

/// One `[[purposes]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// The purpose's name in requests and decisions: lower snake case, at most 64 bytes, not a built-in one.
    pub name: String,
    /// `"opt_out"` allows until somebody opts out, `"opt_in"` denies until somebody opts in. It cannot be changed once
    /// somebody has chosen.
    #[schemars(schema_with = "model_schema")]
    pub model: Model,
    /// One paragraph that tells consumers what it is, at most 1000 bytes.
    pub description: Option<String>,
}

fn model_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["opt_out", "opt_in"] })
}

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What `ccpaOptOut: false` through the Campaign API may end: `"own"`, an opt-out that the API made itself on that
    /// profile; `"refuse"`, nothing. No value lets it overrule a consumer.
    pub api_opt_in: ApiOptIn,
}

/// What an API client's opt-in may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ApiOptIn {
    #[default]
    /// Opt-outs made through the API on the same profile.
    Own,
    /// Nothing.
    Refuse,
}

/// One `[[witnesses]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The https URL that `/add-checkpoint` is appended to: the witness's submission prefix.
    pub url: BaseUrl,
    /// The witness's verifier key, as it publishes it: `desist witness` prints its own. Each key once only.
    pub key: WitnessKey,
    /// Whether the witness may be reached over plain http and on a private network.
    #[serde(default)]
    pub allow_private: bool,
}

/// `[alerts]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Alerts {
    /// The https URL that alarms are posted to, exactly as it stands here.
    pub url: ExactUrl,
    /// Where the key is that signs the requests, `whsec_` and base64 of 24 to 64 bytes: `{ env = "NAME" }` or `{ file = "PATH" }`,
    /// a relative path from this file's directory, and never the key itself. It is read at start and at reload. While it is
    /// missing, alerts wait.
    pub secret: SecretSource,
    /// Whether the receiver may be reached over plain http and on a private network.
    #[serde(default)]
    pub allow_private: bool,
}

impl Alerts {
    /// The key, or why it is not there; that text does not show what is.
    pub fn key(&self) -> Result<SigningKey, String> {
        let text = self.secret.read().map_err(|error| error.to_string())?;
        SigningKey::parse(&text).map_err(|problem| self.secret.missing(problem).to_string())
    }
}

/// The verifier key of a witness in the text form of C2SP signed-note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, with = "String")]
pub struct WitnessKey(pub Verifier);

impl TryFrom<String> for WitnessKey {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.parse::<Verifier>() {
            Err(_) => Err("is not a verifier key"),
            Ok(key) if key.algorithm() != Algorithm::Cosignature => Err("is not the key of a witness, but that of a log"),
            Ok(key) => Ok(Self(key)),
        }
    }
}

impl From<WitnessKey> for String {
    fn from(key: WitnessKey) -> Self {
        key.0.to_string()
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port of the public listener: consumers, browsers, agents, verifiers.
    pub public: SocketAddr,
    /// Address and port of the private listener: the business's systems and operators. A non-loopback address needs
    /// `[server.private_tls]` or `insecure_private`.
    pub private: SocketAddr,
    /// The URL that links to the public listener start with. Without it: its address.
    pub public_url: Option<BaseUrl>,
    /// The URL that every `href` of the private listener starts with. Without it: its address.
    pub private_url: Option<BaseUrl>,
    /// The networks of your own reverse proxies, as CIDR blocks, at most 256. Only from these are `X-Forwarded-For`,
    /// `X-Forwarded-Proto` and `X-Forwarded-Host` believed.
    #[serde(with = "cidrs")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Serve the private listener without TLS on a non-loopback address. API keys then cross the network readable.
    pub insecure_private: bool,
    /// TLS for the public listener. Without it, plain HTTP for a proxy in front.
    pub public_tls: Option<TlsFiles>,
    /// TLS for the private listener.
    pub private_tls: Option<TlsFiles>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            public: (Ipv4Addr::LOCALHOST, 8080).into(),
            private: (Ipv4Addr::LOCALHOST, 8081).into(),
            public_url: None,
            private_url: None,
            trusted_proxies: Vec::new(),
            insecure_private: false,
            public_tls: None,
            private_tls: None,
        }
    }
}

/// The files of one listener's TLS. They are read again at `desist reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct TlsFiles {
    /// Path of the PEM certificate chain, the server's own certificate first. A relative path starts at this file's
    /// directory.
    pub cert: PathBuf,
    /// Path of the PEM private key.
    pub key: PathBuf,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute that one API key may make on the private listener; more are answered 429. Without it: no limit.
    pub requests_per_minute_per_key: Option<NonZeroU32>,
}

/// An absolute `http` or `https` URL without query, fragment or user, kept without a final slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, with = "String")]
pub struct BaseUrl {
    text: String,
    https: bool,
    host: String,
}

impl BaseUrl {
    /// The URL, without a final slash: append a path that starts with one.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }
    /// The host, lower case, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// Whether only this machine can reach the host.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        match name.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim_end_matches('/').to_owned();
        let uri = text.parse::<Uri>().ok();
        match () {
            () if text.len() > URL_BYTES_MAX => Err("is longer than 2048 bytes"),
            () if !text.is_ascii() => Err("has a character outside ASCII"),
            () if text.contains(['?', '#']) => Err("has a query or a fragment"),
            () => {
                let uri = uri.ok_or("is not a URL")?;
                let https = match uri.scheme_str() {
                    Some("https") => true,
                    Some("http") => false,
                    _ => return Err("does not start with https:// or http://"),
                };
                let authority = uri.authority().ok_or("has no host")?;
                if authority.as_str().contains('@') {
                    return Err("has a user name");
                }
                let host = host_of(authority).ok_or("has a bad host name")?;
                let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
                if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
                    return Err("has a bad port");
                }
                Ok(Self { text, https, host })
            }
        }
    }
}

/// A URL like [`BaseUrl`] that nothing is appended to, so that a final slash counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, with = "String")]
pub struct ExactUrl {
    text: String,
    https: bool,
}

impl ExactUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }
}

impl TryFrom<String> for ExactUrl {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let https = BaseUrl::try_from(text.clone())?.is_https();
        Ok(Self { text, https })
    }
}

impl From<ExactUrl> for String {
    fn from(url: ExactUrl) -> Self {
        url.text
    }
}

/// The host of a URL if it is an address or a plausible name.
fn host_of(authority: &Authority) -> Option<String> {
    let host = authority.host().to_ascii_lowercase();
    if let Some(v6) = host.strip_prefix('[') {
        return v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()).map(str::to_owned);
    }
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    host.trim_end_matches('.').split('.').all(label).then_some(host)
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.text
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

mod zone {
    use jiff::tz::{self, TimeZone};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(zone: &TimeZone, serializer: S) -> Result<S::Ok, S::Error> {
        zone.iana_name().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeZone, D::Error> {
        let name = String::deserialize(deserializer)?;
        TimeZone::get(&name).map_err(|_| {
            let known: Vec<_> = tz::db().available().map(|name| name.to_string()).collect();
            let near = super::super::error::did_you_mean(&name, known.iter().map(String::as_str));
            D::Error::custom(format!("is not a known time zone{near}"))
        })
    }
}

mod cidrs {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Cidr(IpNet);

    impl TryFrom<String> for Cidr {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            let net = match text.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) => text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not a CIDR block"))?.into(),
            };
            if net != net.trunc() {
                return Err(format!("{text:?} has bits set behind its prefix (did you mean \"{}\"?)", net.trunc()));
            }
            Ok(Self(net))
        }
    }

    pub(super) fn serialize<S: Serializer>(nets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        nets.iter().map(IpNet::to_string).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        Ok(Vec::<Cidr>::deserialize(deserializer)?.into_iter().map(|cidr| cidr.0).collect())
    }
}
