//! Identifiers and purposes as JSON bodies name them.

use desist_core::identifier::{Identifier, Kind};
use desist_core::limits::NAMED_MAX;
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::clear::Given;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::App;
use super::json::present;
use super::problem::Problem;

/// One identifier: exactly one of `value` and `sha256`.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentifierInput {
    /// What kind of identifier it is.
    #[schemars(with = "KindName")]
    pub kind: Kind,
    /// The identifier as people write it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// SHA-256 of its normal form, as 64 hexadecimal digits.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl std::fmt::Debug for IdentifierInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentifierInput({}, …)", self.kind.name())
    }
}

/// The kinds of identifier, for the schema.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum KindName {
    Email,
    Phone,
    CustomerId,
    CampaignPkey,
    Uid2,
    Rampid,
    CookieId,
    DeviceId,
    Maid,
}

/// The identifiers of a body, as the engine names them. Errors point below `pointer`.
pub fn named(app: &App, identifiers: &[IdentifierInput], pointer: &str) -> Result<Vec<Named>, Problem> {
    named_and_given(app, identifiers, pointer).map(|(named, _)| named)
}

/// The same for a command that names them, with what those are of which some destination has to be told.
pub fn named_and_given(app: &App, identifiers: &[IdentifierInput], pointer: &str) -> Result<(Vec<Named>, Vec<Given>), Problem> {
    if identifiers.is_empty() {
        return Err(Problem::invalid(pointer, "name at least one identifier"));
    }
    if identifiers.len() > NAMED_MAX {
        return Err(Problem::invalid(pointer, format!("at most {NAMED_MAX} identifiers in one request")));
    }
    let (mut named, mut given) = (Vec::with_capacity(identifiers.len()), Vec::new());
    for (place, input) in identifiers.iter().enumerate() {
        let (identifier, text) = match (&input.value, &input.sha256) {
            (Some(value), None) => Identifier::from_value(input.kind, value)
                .map(|(identifier, text)| (identifier, Some(text)))
                .map_err(|error| Problem::invalid(format!("{pointer}/{place}/value"), error.to_string()))?,
            (None, Some(hex)) => Identifier::from_sha256_hex(input.kind, hex)
                .map(|identifier| (identifier, None))
                .map_err(|error| Problem::invalid(format!("{pointer}/{place}/sha256"), error.to_string()))?,
            _ => return Err(Problem::invalid(format!("{pointer}/{place}"), "give exactly one of \"value\" and \"sha256\"")),
        };
        named.push(app.engine.named(&identifier));
        given.extend(app.engine.given(identifier, text));
    }
    Ok((named, given))
}

/// One purpose by its name.
pub fn purpose(app: &App, name: &str, pointer: &str) -> Result<PurposeSet, Problem> {
    let purposes = app.engine.shared().purposes.load();
    purposes.get(name).ok_or_else(|| {
        let known: Vec<_> = purposes.iter().map(|(name, ..)| name).collect();
        Problem::invalid(pointer, format!("not a purpose of this business; use one of: {}", known.join(", ")))
    })
}

/// Several purposes by their names.
pub fn purposes(app: &App, names: &[String], pointer: &str) -> Result<PurposeSet, Problem> {
    let mut set = PurposeSet::EMPTY;
    for (place, name) in names.iter().enumerate() {
        set = set.union(purpose(app, name, &format!("{pointer}/{place}"))?);
    }
    if set.is_empty() {
        return Err(Problem::invalid(pointer, "name at least one purpose, or leave the member out"));
    }
    Ok(set)
}
