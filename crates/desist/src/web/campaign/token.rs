//! `POST /ims/token/v3`: lets software that fetches its token from Adobe's identity service do the
//! same here. An API key and its token are exchanged for a token of a day.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::query;
use crate::web::App;

/// How long a token lasts, in seconds: Adobe's own figure, which programs have compiled in.
const LIFE_SECONDS: i64 = 86_399;
/// How such a token begins, so that whoever finds one knows what it is.
const PREFIX: &str = "di_";
/// What it is sealed for.
const CONTEXT: &[u8] = b"ims token";

/// Answers the call. Parameters come in the form or in the query; scopes mean nothing here.
pub async fn issue(State(app): State<App>, uri: Uri, body: Result<Bytes, BytesRejection>) -> Response {
    let Ok(body) = body else { return refuse(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the form is too large") };
    let form = std::str::from_utf8(&body).ok();
    let (Some(Ok(form)), Ok(url)) = (form.map(|form| query::parse(Some(form))), query::parse(uri.query())) else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", "send the parameters as a form");
    };
    let parameter = |name: &str| form.get(name).ok().flatten().or_else(|| url.get(name).ok().flatten()).map(str::to_owned);
    if parameter("grant_type").as_deref() != Some("client_credentials") {
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type must be client_credentials");
    }
    let (Some(id), Some(secret)) = (parameter("client_id"), parameter("client_secret")) else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", "client_id (the API key) and client_secret (its token) are needed");
    };
    let keys = app.engine.shared().keys.load();
    let number = keys.number(&id);
    let Some(key) = keys.by_token(&secret).filter(|key| Some(key.no) == number) else {
        return refuse(StatusCode::BAD_REQUEST, "invalid_client", "client_id or client_secret is not known");
    };
    if !app.admits(key.no) {
        let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, "slow_down", "this key made too many requests; try again in a minute");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        return response;
    }
    let shared = app.engine.shared();
    let ends = shared.env.now_ms().div_euclid(1000) + LIFE_SECONDS;
    let sealed = shared.vault.seal_carried(CONTEXT, &[&key.no.to_be_bytes()[..], &ends.to_be_bytes()].concat(), shared.env.as_ref());
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed));
    let mut response = Json(json!({ "access_token": token, "token_type": "bearer", "expires_in": LIFE_SECONDS })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The form of RFC 6749 section 5.2.
fn refuse(status: StatusCode, error: &str, description: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": description }))).into_response()
}

/// The number of the key that a token of a day was given for. Whether the key is still live is the
/// caller's question.
pub fn open(app: &App, token: &str) -> Option<u32> {
    let sealed = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
    let shared = app.engine.shared();
    let plain = shared.vault.open_carried(CONTEXT, &sealed).ok()?;
    let (no, ends) = plain.split_first_chunk()?;
    let ends = i64::from_be_bytes(ends.try_into().ok()?);
    (shared.env.now_ms().div_euclid(1000) < ends).then(|| u32::from_be_bytes(*no))
}
