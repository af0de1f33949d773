//! `POST /v1/keys`, `GET /v1/keys`, `DELETE /v1/keys/{no}`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use desist_core::fact::Role;
use desist_engine::intake;
use desist_engine::keys;
use desist_engine::queue::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::json::{Body, Param, parse};
use super::problem::Problem;
use super::requests::rfc3339;
use super::{App, idempotency};

/// Longest name of a key: a heading in a list.
pub const KEY_NAME_BYTES_MAX: usize = 100;

/// A new key.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What the operator calls it, such as the system that uses it.
    pub name: String,
    /// `admin`, `writer`, `reader` or `auditor`.
    #[schemars(with = "RoleName")]
    pub role: Role,
}

/// The roles, for the schema.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum RoleName {
    Admin,
    Writer,
    Reader,
    Auditor,
}

/// A key and its token: shown this once.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyAnswer {
    /// Its number.
    pub no: u32,
    /// The `X-Api-Key` of the Campaign API.
    pub api_key: String,
    /// The bearer token.
    pub token: String,
}

/// A key in the list.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyView {
    /// Its number.
    pub no: u32,
    /// What the operator calls it.
    pub name: String,
    /// What it may do.
    #[schemars(with = "RoleName")]
    pub role: Role,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// All keys.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeysAnswer {
    /// Oldest first.
    pub keys: Vec<KeyView>,
}

/// Creates a key, in effect at once.
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let caller = caller.needs(Role::Admin)?;
    let NewKey { name, role } = parse(&body)?;
    if name.trim().is_empty() || name.len() > KEY_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Problem::invalid("/name", format!("write a name of 1 to {KEY_NAME_BYTES_MAX} bytes without control characters")));
    }
    let again = idempotency(&app, &headers, caller, "keys", &body)?;
    let engine = app.engine.clone();
    let seed = engine.new_credential_seed();
    // Only the seed is remembered; with the master key it gives the same key and token again.
    let (no, seed) = app
        .engine
        .submit(Lane::Interactive, move |ctx| {
            intake::once(ctx, again.as_ref(), |ctx| {
                let (api_key, token) = ctx.shared.secrets.credentials(&seed);
                Ok(keys::create(ctx, &name, role, &api_key, &token, caller.actor)?.map(|no| (no, seed)))
            })
        })
        .await?;
    let (api_key, token) = app.engine.shared().secrets.credentials(&seed);
    Ok((StatusCode::CREATED, Json(KeyAnswer { no, api_key, token })).into_response())
}

/// Lists the keys.
pub async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Result<Json<KeysAnswer>, Problem> {
    caller.needs(Role::Admin)?;
    let rows = app.read(|read| read.keys()).await?;
    let view = |row: desist_store::KeyRow| KeyView {
        no: row.no,
        name: row.name,
        role: row.role,
        created_at: rfc3339(row.created_at),
        revoked_at: row.revoked_at.map(rfc3339),
    };
    Ok(Json(KeysAnswer { keys: rows.into_iter().map(view).collect() }))
}

/// Ends a key, at once.
pub async fn revoke(State(app): State<App>, Extension(caller): Extension<Caller>, Param(no): Param) -> Result<StatusCode, Problem> {
    let caller = caller.needs(Role::Admin)?;
    let no: u32 = no.parse().map_err(|_| Problem::not_found())?;
    app.engine.submit(Lane::Interactive, move |ctx| keys::revoke(ctx, no, caller.actor)).await?;
    Ok(StatusCode::NO_CONTENT)
}
