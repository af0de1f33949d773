//! The refusals of the Campaign API: status, body and the field they are about.
//!
//! Invariant: no text holds a caller's value of a personal field. What a refusal may repeat goes
//! through [`Echo`], which keeps only texts that cannot be an address or a name with spaces.

use serde_json::{Value, json};

pub use crate::config::Compat;

/// A caller's text that is safe to repeat, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo(Option<String>);

impl Echo {
    fn when(text: &str, len_max: usize, allowed: impl Fn(u8) -> bool) -> Self {
        Self(((1..=len_max).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned()))
    }
    /// The name of a member, with dots between levels; each starts with a letter, so it is no phone number.
    pub fn name(text: &str) -> Self {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_name = text.split('.').all(|level| level.starts_with(|first: char| first.is_ascii_alphabetic()));
        Self::when(if is_name { text } else { "" }, 64, word)
    }
    /// A value given for an enumeration.
    pub fn choice(text: &str) -> Self {
        Self::when(text, 32, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }
    /// A primary key, well formed or not.
    pub fn pkey(text: &str) -> Self {
        Self::when(text, 160, |byte| byte.is_ascii_alphanumeric() || b"@_-".contains(&byte))
    }
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignError {
    /// No `Authorization: Bearer`.
    TokenMissing,
    /// The token is wrong or expired.
    TokenInvalid,
    /// No `X-Api-Key`.
    ApiKeyMissing,
    /// The API key is not known.
    ApiKeyInvalid,
    /// The key is not this organization's, or there is no such organization: one answer for both,
    /// so that nobody learns which exist.
    NotEntitled,
    /// Over the rate limit; the caller of this module adds `Retry-After`.
    TooManyRequests,
    /// Not a key that this server gives out.
    KeyUnreadable {
        /// The key as given.
        pkey: Echo,
        /// Whether it stood in the body and not in the URL.
        in_body: bool,
    },
    /// A well-formed key with nothing behind it.
    NotFound {
        /// The resource, as in the URL.
        resource: &'static str,
        /// The key as given.
        pkey: Echo,
    },
    /// The key in the body is another profile's than the key in the URL.
    KeyMismatch,
    /// No such field.
    UnknownAttribute {
        /// The resource, as in the URL.
        resource: &'static str,
        /// The field as given.
        name: Echo,
    },
    /// The server sets this field.
    ReadOnly {
        /// The resource, as in the URL.
        resource: &'static str,
        /// The field.
        field: String,
    },
    /// The field has to be there.
    Missing {
        /// The field.
        field: String,
    },
    /// Not one of the names that the field takes.
    NotInEnumeration {
        /// The field.
        field: String,
        /// The value as given.
        value: Echo,
    },
    /// A JSON value of another type than the field's.
    WrongType {
        /// The field.
        field: String,
        /// The type given.
        from: &'static str,
        /// The type of the field.
        to: &'static str,
    },
    /// More characters than the field holds.
    TooLong {
        /// The field.
        field: String,
        /// How many it holds.
        max: usize,
    },
    /// Right in type and length, and still not a value of the field.
    Invalid {
        /// The field.
        field: String,
        /// What the value has to be.
        must: &'static str,
    },
    /// Another record has this value, which is to be unique.
    Taken {
        /// The field.
        field: String,
    },
    /// No more records of this resource are taken.
    Full {
        /// The resource, as in the URL.
        resource: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// A parameter of the query that cannot be used.
    BadParameter {
        /// Its name.
        name: Echo,
        /// What it has to be.
        must: &'static str,
    },
    /// A member that occurs twice; which one counts would be a guess.
    Duplicate(Echo),
    /// Bytes that are not UTF-8, with the member they stand in.
    NotUtf8(Echo),
    /// Not JSON, from this place on.
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
    },
    /// JSON, but not an object.
    NotAnObject,
    /// More than [`super::schema::BODY_BYTES_MAX`].
    BodyTooLarge,
    /// A URL that cannot mean one thing only.
    BadUrl(&'static str),
    /// No such resource, endpoint or filter.
    UnknownResource,
    /// The resource is there, the method is not.
    MethodNotAllowed {
        /// The methods that are.
        allow: &'static str,
    },
    /// The list that answers this question is still being made.
    NotReady,
    /// The store cannot take the change now; nothing was changed.
    Unavailable,
}

/// How Campaign itself starts the text of most refusals.
const GENERAL: &str = "RST-360011 An error has occurred - please contact your administrator.\n";

impl CampaignError {
    /// Status, the gateway's code if the gateway's layer answers, and the text.
    fn row(&self) -> (u16, Option<&'static str>, String) {
        let gateway = |status, code, text: &str| (status, Some(code), text.to_owned());
        let plain = |status, text: String| (status, None, text);
        let general = |status, text: String| (status, None, format!("{GENERAL}{text}"));
        let member = |name: &Echo| name.0.as_ref().map_or("A member".to_owned(), |name| format!("The member '{name}'"));
        match self {
            Self::TokenMissing => gateway(401, "401010", "Oauth token is missing"),
            Self::TokenInvalid => gateway(401, "401013", "Oauth token is not valid"),
            Self::ApiKeyMissing => gateway(403, "403000", "Api Key is required"),
            Self::ApiKeyInvalid => gateway(403, "403003", "Api Key is invalid"),
            Self::NotEntitled => gateway(403, "403023", "Profile is not valid"),
            Self::TooManyRequests => gateway(429, "429050", "Too many requests"),
            Self::KeyUnreadable { pkey: Echo(pkey), .. } => {
                plain(404, format!("Unable to decrypt PKey.{}", pkey.as_ref().map_or(String::new(), |pkey| format!(" (PKey={pkey})"))))
            }
            Self::NotFound { resource, pkey: Echo(pkey) } => {
                plain(404, format!("Unable to find document with path '/{resource}/{}'", pkey.as_deref().unwrap_or_default()))
            }
            Self::KeyMismatch => plain(500, format!("{GENERAL}RST-360012 The PKey of the body is not the PKey of the URL.")),
            Self::UnknownAttribute { resource, name: Echo(name) } => general(
                500,
                name.as_ref().map_or_else(
                    || format!("A property is not valid for the '{resource}' resource."),
                    |name| format!("'{name}' property is not valid for the '{resource}' resource."),
                ),
            ),
            Self::ReadOnly { resource, field } => general(
                500,
                format!(
                    "Cannot update the '{field}' property that is read-only\n'{field}' property is not valid for the '{resource}' resource.",
                ),
            ),
            Self::Missing { field } => general(500, format!("'{field}' is missing.")),
            Self::Taken { field } => plain(500, format!("PGS-220000 Another record has this '{field}', which must be unique.")),
            Self::Full { resource, max } => general(400, format!("There can be {max} records of '{resource}' and no more.")),
            Self::BadParameter { name: Echo(name), must } => {
                general(400, format!("{} must be {must}.", name.as_ref().map_or("A parameter".to_owned(), |name| format!("'{name}'"))))
            }
            Self::NotInEnumeration { field, value: Echo(value) } => general(
                500,
                value.as_ref().map_or_else(
                    || format!("The value of '{field}' is not in its enumeration."),
                    |value| format!("The value '{value}' is not in the enumeration of '{field}'."),
                ),
            ),
            Self::WrongType { field, from, to } => plain(500, format!("BAS-010040 Cannot convert '{field}' (type {from}) to {to}.")),
            Self::TooLong { field, max } => general(400, format!("'{field}' is longer than {max} characters.")),
            Self::Invalid { field, must } => general(400, format!("'{field}' must be {must}.")),
            Self::Duplicate(name) => general(400, format!("{} occurs more than once.", member(name))),
            Self::NotUtf8(name) => {
                general(400, format!("{} is not UTF-8.", name.0.as_ref().map_or_else(|| "The body".to_owned(), |_| member(name))))
            }
            Self::NotJson { line, column } => general(400, format!("The body is not JSON (line {line}, column {column}).")),
            Self::NotAnObject => general(400, "The body is not a JSON object.".to_owned()),
            Self::BodyTooLarge => general(413, format!("The body is larger than {} bytes.", super::schema::BODY_BYTES_MAX)),
            Self::BadUrl(why) => general(400, format!("The URL {why}.")),
            Self::UnknownResource => general(404, "There is no such resource.".to_owned()),
            Self::MethodNotAllowed { allow } => general(405, format!("The resource takes {allow} alone.")),
            Self::NotReady => general(503, "The list of profiles is being prepared; try again in a moment.".to_owned()),
            Self::Unavailable => general(503, "The change could not be stored. Nothing was changed; try again later.".to_owned()),
        }
    }
    /// The HTTP status.
    pub fn status(&self, compat: Compat) -> u16 {
        // Every 500 of the table is a mistake of the caller.
        match (self.row().0, compat) {
            (500, Compat::Strict) => 400,
            (status, _) => status,
        }
    }
    /// The body: an object from the gateway's layer, else one string.
    pub fn body(&self) -> Value {
        match self.row() {
            (_, Some(code), text) => json!({"error_code": code, "message": text}),
            (_, None, text) => Value::String(text),
        }
    }
    /// The field or parameter that the refusal is about; always fit for a header.
    pub fn pointer(&self) -> Option<String> {
        match self {
            Self::ReadOnly { field, .. }
            | Self::Missing { field }
            | Self::Taken { field }
            | Self::NotInEnumeration { field, .. }
            | Self::WrongType { field, .. }
            | Self::TooLong { field, .. }
            | Self::Invalid { field, .. } => Some(field.clone()),
            Self::UnknownAttribute { name, .. } | Self::BadParameter { name, .. } | Self::Duplicate(name) | Self::NotUtf8(name) => {
                name.0.clone()
            }
            Self::KeyMismatch | Self::KeyUnreadable { in_body: true, .. } => Some("PKey".to_owned()),
            _ => None,
        }
    }
}

impl std::fmt::Display for CampaignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.row().2)
    }
}

impl std::error::Error for CampaignError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_clients_match_on() {
        let cases = [
            (CampaignError::TokenInvalid, 401, 401, json!({"error_code": "401013", "message": "Oauth token is not valid"})),
            (CampaignError::ApiKeyInvalid, 403, 403, json!({"error_code": "403003", "message": "Api Key is invalid"})),
            (CampaignError::NotEntitled, 403, 403, json!({"error_code": "403023", "message": "Profile is not valid"})),
            (
                CampaignError::KeyUnreadable { pkey: Echo::pkey("@bogus"), in_body: false },
                404,
                404,
                json!("Unable to decrypt PKey. (PKey=@bogus)"),
            ),
            (
                CampaignError::UnknownAttribute { resource: "profile", name: Echo::name("shoeSize") },
                500,
                400,
                json!(
                    "RST-360011 An error has occurred - please contact your administrator.\n'shoeSize' property is not valid for the 'profile' resource."
                ),
            ),
        ];
        for (error, adobe, strict, body) in cases {
            assert_eq!((error.status(Compat::Adobe), error.status(Compat::Strict), error.body()), (adobe, strict, body));
        }
    }

    #[test]
    fn what_may_be_somebodys_data_is_not_repeated() {
        let pkey = |text| CampaignError::KeyUnreadable { pkey: Echo::pkey(text), in_body: true };
        let unknown = |name| CampaignError::UnknownAttribute { resource: "profile", name: Echo::name(name) };
        for error in [
            unknown("rosa@example.org"),
            unknown("5551234567"),
            unknown("location.5551234567"),
            CampaignError::NotInEnumeration { field: "gender".to_owned(), value: Echo::choice("Rosa Vega") },
            CampaignError::NotInEnumeration { field: "gender".to_owned(), value: Echo::choice(&"x".repeat(33)) },
            pkey("rosa@example.org"),
            pkey(&"x".repeat(161)),
            CampaignError::NotFound { resource: "profile", pkey: Echo::pkey("\n") },
        ] {
            let text = error.to_string();
            assert!(!["rosa", "Rosa", "555", "xxx", "\n'"].iter().any(|part| text.contains(part)), "{text}");
        }
    }
}
