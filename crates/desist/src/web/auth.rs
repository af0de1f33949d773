//! Who calls: an API key's token on the private listener, the operator on the control socket.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use desist_core::fact::{Actor, Role};
use desist_engine::engine::may;

use super::problem::Problem;
use super::{App, word};

/// Who sent the request.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// As the log names it.
    pub actor: Actor,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// The operator on the machine itself.
    pub const LOCAL: Self = Self { actor: Actor::Local, role: Role::Admin };

    /// Refuses what the role does not allow.
    pub fn needs(self, role: Role) -> Result<Self, Problem> {
        if may(self.role, role) {
            return Ok(self);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("this key's role does not allow it; use a key with the role {:?}", word(role)),
        ))
    }
}

/// The token of a bearer header, of which there is one: of two, somebody on the way may have read the other.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Lets a request with a live token pass, as the key it belongs to.
pub async fn require_key(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let keys = app.engine.shared().keys.load();
    let caller = match bearer(request.headers()).map(|token| keys.by_token(token)) {
        Some(Some(key)) => Caller { actor: Actor::Key(key.no), role: key.role },
        Some(None) => {
            return Problem::new(
                StatusCode::UNAUTHORIZED,
                "token_invalid",
                "the token is not known or was revoked; make one with `desist key create`",
            )
            .into_response();
        }
        None => {
            return Problem::new(
                StatusCode::UNAUTHORIZED,
                "token_missing",
                "send the header `Authorization: Bearer TOKEN`; make a token with `desist key create`",
            )
            .into_response();
        }
    };
    if let Actor::Key(no) = caller.actor
        && !app.admits(no)
    {
        return Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "this key has used up `limits.requests_per_minute_per_key`; try again in a minute",
        )
        .into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Lets everything pass as the operator: the socket's file permissions are the check.
pub async fn as_operator(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::LOCAL);
    next.run(request).await
}
