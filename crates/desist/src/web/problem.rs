//! Errors on the wire: RFC 9457 problems with a stable `code`, and a `pointer` to the member that is
//! wrong. No text ever repeats a value that a caller sent.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use desist_core::rules::Refused;
use desist_engine::engine::{Failure, Refusal};
use desist_store::StoreError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable name of the problem, for programs.
    pub code: String,
    /// What is wrong and what to do, for people.
    pub title: String,
    /// JSON pointer (RFC 6901) to the member of the body that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

impl Problem {
    /// A problem without a pointer.
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>) -> Self {
        Self { status: status.as_u16(), code: code.to_owned(), title: title.into(), pointer: None }
    }

    /// 422 about one member.
    pub fn invalid(pointer: impl Into<String>, title: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title).at(pointer)
    }

    /// The same problem with a pointer.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not know the method; see /openapi.json")
    }

    /// 500, for what should not happen.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "desist failed on this request; its log says where")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"desist\""));
            }
            _ => {}
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let title = failure.to_string();
        match failure {
            Failure::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title),
            Failure::NotDurable => Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_durable", title),
            Failure::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let title = refusal.to_string();
        let unprocessable = |code: &str| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, title.clone());
        match refusal {
            Refusal::Rules(Refused::NobodyNamed) => unprocessable("nobody_named").at("/identifiers"),
            Refusal::Rules(Refused::TooManyNamed) => unprocessable("too_many_identifiers").at("/identifiers"),
            Refusal::Rules(Refused::Future) => unprocessable("future").at("/received_at"),
            Refusal::Rules(Refused::NoPurpose) => unprocessable("no_purpose").at("/purposes"),
            Refusal::Rules(Refused::NotTheConsumer) => unprocessable("not_the_consumer").at("/channel"),
            Refusal::Rules(Refused::NotOneSubject) => unprocessable("not_one_subject").at("/identifiers"),
            Refusal::Rules(Refused::NothingToLink) => unprocessable("nothing_to_link").at("/identifiers"),
            Refusal::Rules(Refused::HoldsTooMany) => unprocessable("holds_too_many").at("/identifiers"),
            Refusal::OtherBody => unprocessable("idempotency_key_reused"),
            Refusal::NotFound => Self::new(StatusCode::NOT_FOUND, "not_found", title),
            Refusal::Expired => Self::new(StatusCode::GONE, "expired", title),
            Refusal::WrongToken => unprocessable("wrong_token").at("/confirm_token"),
            Refusal::NotWaiting => Self::new(StatusCode::CONFLICT, "not_waiting", title),
            // Those of the Campaign API, which answers in its own words.
            Refusal::Vault(_) | Refusal::Profile | Refusal::Taken | Refusal::TooMany => Self::internal(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a question to the store failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the store does not answer; try again later")
    }
}
