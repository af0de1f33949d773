//! What an operator gives a connector: settings, secrets, approvals.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::declared::{AuthKind, Setting, SettingKind};
use crate::limits::{EACH_MAX, SETTING_BYTES_MAX};
use crate::lint::{auth_values, is_host, whole_pattern};
use crate::manifest::Manifest;
use crate::pipe::Piped;
use crate::template::{Part, Placeholder, Scope, Source, Text, is_path};

/// A text that is never printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever puts it on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What an operator gave for a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// As it stands in the configuration.
    Value(Value),
    /// What a secret of the configuration refers to.
    Secret(Secret),
}

/// What an operator agreed to, beside the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    /// The connector may delete people's data.
    pub delete: bool,
    /// Hosts of this machine are called over plain HTTP: for tests, and for a proxy beside desist.
    pub http_loopback: bool,
    /// The destination checks each call and changes nothing.
    pub dry_run: bool,
}

/// A setting with its value.
#[derive(Clone)]
pub(crate) enum Bound {
    Text(String),
    Path(String),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
    Secret(Secret),
}

impl Bound {
    /// `None` for a secret: it is put into headers alone, by another way.
    pub fn piped(&self) -> Option<Piped> {
        Some(match self {
            Self::Text(text) | Self::Path(text) => Piped::Text(text.clone()),
            Self::Int(number) => Piped::Int(*number),
            Self::Bool(value) => Piped::Json(Value::Bool(*value)),
            Self::List(values) => Piped::Json(Value::Array(values.clone())),
            Self::Secret(_) => return None,
        })
    }
}

/// How a call proves who makes it. The engine does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer TOKEN`.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// A header of its own.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Secret,
    },
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// `OAuth` 2 with client credentials.
    Oauth2Client {
        /// Where tokens come from.
        token_url: String,
        /// The client's name.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// The scopes asked for.
        scope: Option<String>,
    },
    /// `OAuth` 2 with a refresh token.
    Oauth2Refresh {
        /// Where tokens come from.
        token_url: String,
        /// The client's name.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// The refresh token.
        refresh_token: Secret,
        /// The scopes asked for.
        scope: Option<String>,
    },
    /// A service account of Google.
    GoogleSa {
        /// Where tokens come from.
        token_url: String,
        /// The key file.
        credentials: Secret,
        /// The scopes asked for.
        scope: String,
    },
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// The access key's name.
        access_key: String,
        /// The secret key.
        secret_key: Secret,
        /// The region.
        region: String,
        /// The service.
        service: String,
    },
    /// The signature of Standard Webhooks.
    StandardWebhooks {
        /// The signing secret.
        secret: Secret,
    },
}

impl Auth {
    /// Where tokens come from, with the kinds that have any.
    pub(crate) fn token_url_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Oauth2Client { token_url, .. } | Self::Oauth2Refresh { token_url, .. } | Self::GoogleSa { token_url, .. } => {
                Some(token_url)
            }
            _ => None,
        }
    }
}

/// What is wrong with a value for a setting.
pub(crate) fn setting_problem(setting: &Setting, value: &Value) -> Option<String> {
    // A private key comes in lines, and where a header cannot hold them it is refused.
    let is_key = |text: &str| setting.kind == SettingKind::Secret && text.starts_with("-----BEGIN ");
    let is_clean = |text: &str| !text.contains(|c: char| c.is_control() && !(is_key(text) && matches!(c, '\n' | '\r')));
    let text = value.as_str().filter(|text| !text.is_empty() && text.len() <= SETTING_BYTES_MAX && is_clean(text));
    let is_good = match setting.kind {
        SettingKind::String => text.is_some_and(|text| {
            setting.pattern.as_deref().is_none_or(|pattern| whole_pattern(pattern).is_some_and(|pattern| pattern.is_match(text)))
        }),
        SettingKind::Int => value.is_i64(),
        SettingKind::Bool => value.is_boolean(),
        SettingKind::Enum => text.is_some_and(|text| setting.values.iter().flatten().any(|value| value == text)),
        SettingKind::Secret => text.is_some(),
        SettingKind::List => value.as_array().is_some_and(|list| {
            let size = serde_json::to_vec(list).map_or(usize::MAX, |bytes| bytes.len());
            !list.is_empty() && list.len() <= EACH_MAX && size <= SETTING_BYTES_MAX * 16
        }),
        SettingKind::Host => text.is_some_and(is_host),
        SettingKind::Path => text.is_some_and(is_path),
    };
    let wanted = match setting.kind {
        SettingKind::String if setting.pattern.is_some() => "a text that matches the setting's pattern",
        SettingKind::String => "a text without control characters",
        SettingKind::Int => "a whole number",
        SettingKind::Bool => "true or false",
        SettingKind::Enum => {
            return (!is_good)
                .then(|| format!("is not one of {}", setting.values.iter().flatten().cloned().collect::<Vec<_>>().join(", ")));
        }
        SettingKind::Secret => "a secret without control characters",
        SettingKind::List => "a list of 1 to 1000 values",
        SettingKind::Host => "a host in lower case, with a port unless it is 443",
        SettingKind::Path => "a path that begins with a slash",
    };
    (!is_good).then(|| format!("is not {wanted}"))
}

/// The values of `[auth]`.
pub(crate) fn bind_auth(manifest: &Manifest, settings: &BTreeMap<String, Bound>) -> Auth {
    let auth = &manifest.declared.auth;
    let scope = Scope { settings: Some(settings), ..Scope::default() };
    // That each is there, and of which type, was checked when the manifest was read.
    let find = |key: &str| {
        let value = auth_values(auth).into_iter().find(|(name, _)| *name == key).and_then(|(_, value)| value);
        value.and_then(|value| Text::parse(value).ok())
    };
    let text = |key: &str| find(key).and_then(|text| text.plain(&scope).ok());
    let plain = |key: &str| text(key).unwrap_or_default();
    let secret = |key: &str| {
        let name = find(key).and_then(|text| match text.0.first() {
            Some(Part::Placeholder(Placeholder { source: Source::Setting(name), .. })) => Some(name.clone()),
            _ => None,
        });
        match name.and_then(|name| settings.get(&name)) {
            Some(Bound::Secret(secret)) => secret.clone(),
            _ => Secret::new(""),
        }
    };
    match auth.kind {
        AuthKind::None => Auth::None,
        AuthKind::Bearer => Auth::Bearer { token: secret("token") },
        AuthKind::Header => Auth::Header { name: plain("name").to_ascii_lowercase(), value: secret("value") },
        AuthKind::Basic => Auth::Basic { username: plain("username"), password: secret("password") },
        AuthKind::Oauth2Client => Auth::Oauth2Client {
            token_url: plain("token_url"),
            client_id: plain("client_id"),
            client_secret: secret("client_secret"),
            scope: text("scope"),
        },
        AuthKind::Oauth2Refresh => Auth::Oauth2Refresh {
            token_url: plain("token_url"),
            client_id: plain("client_id"),
            client_secret: secret("client_secret"),
            refresh_token: secret("refresh_token"),
            scope: text("scope"),
        },
        AuthKind::GoogleSa => Auth::GoogleSa { token_url: plain("token_url"), credentials: secret("credentials"), scope: plain("scope") },
        AuthKind::AwsSigv4 => Auth::AwsSigv4 {
            access_key: plain("access_key"),
            secret_key: secret("secret_key"),
            region: plain("region"),
            service: plain("service"),
        },
        AuthKind::StandardWebhooks => Auth::StandardWebhooks { secret: secret("secret") },
    }
}
