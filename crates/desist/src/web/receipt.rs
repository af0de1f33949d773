//! The receipt of a request: a page that can be printed, and a file that can be checked offline.
//!
//! The code is what its holder proves to have. It has 128 random bits, the store keeps its hash alone, and
//! for every other code the answer is the same.

use std::net::IpAddr;
use std::sync::LazyLock;

use askama::Template as _;
use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_core::fact::RequestKind;
use desist_core::identifier::{Identifier, Kind};
use desist_engine::delivery::Enforcement;
use desist_engine::notary;
use desist_engine::secrets::{canonical_code, hash};
use desist_store::RequestRow;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::{App, destinations};
use crate::net::Client;

/// The block of addresses that counts as one client.
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // A household has a /56 at least (RFC 6177), and every address in it.
        IpAddr::V6(address) => (u128::from(address) & (u128::MAX << 72)).to_be_bytes().into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(askama::Template)]
#[template(path = "receipt.html")]
struct Page {
    state: &'static str,
    meaning: &'static str,
    business: String,
    asked: &'static str,
    purposes: String,
    scope: &'static str,
    identifiers: Vec<String>,
    acted_at: String,
    recorded_at: String,
    deadline: String,
    seq: u64,
    signed: bool,
}

/// What a page needs of the evidence. Whatever else is in it stays in the vault.
#[derive(Default, Deserialize)]
struct Evidence {
    #[serde(default)]
    identifiers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    kind: Kind,
    value: Option<String>,
}

impl Named {
    /// For its owner to recognise, and for nobody else to learn.
    fn masked(&self) -> String {
        let value = self.value.as_ref().and_then(|value| Identifier::from_value(self.kind, value).ok());
        value.map_or_else(|| format!("{} (a hash)", self.kind.name()), |(_, normal)| format!("{} {}", self.kind.name(), normal.masked()))
    }
}

/// `/receipt/{code}`: the page, or the file with `?format=json` or `Accept: application/json`.
pub async fn show(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Path(code): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if !app.may_ask_for_receipts(client.addr) {
        let mut response =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many codes were tried; try again in a minute")
                .into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        return private(response);
    }
    let accepts_json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.starts_with("application/json")));
    let as_file = query.as_deref() == Some("format=json") || accepts_json;
    private(answer(&app, &code, as_file).await.unwrap_or_else(Problem::into_response))
}

async fn answer(app: &App, code: &str, as_file: bool) -> Result<Response, Problem> {
    // A code of the wrong form is looked up all the same, so that both take as long.
    let receipt_hash = hash(&canonical_code(code).unwrap_or_default());
    let engine = app.engine.clone();
    let found = app.read(move |read| {
        let Some(row) = read.request_by_receipt(&receipt_hash)? else { return Ok(None) };
        let receipt = notary::receipt(read, engine.shared(), &row)?;
        Ok(Some((row, receipt)))
    });
    let (row, receipt) = found.await?.ok_or_else(Problem::not_found)?;
    let receipt = receipt?;
    if as_file {
        let Some(receipt) = receipt else {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_signed",
                "the receipt is being prepared; try again in a second",
            ));
        };
        let name = HeaderValue::from_static("attachment; filename=\"receipt.json\"");
        return Ok((
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::CONTENT_DISPOSITION, name)],
            receipt.to_json(),
        )
            .into_response());
    }
    let opening = receipt.as_ref().and_then(|receipt| receipt.opening.as_deref()).unwrap_or_default();
    let evidence: Evidence =
        opening.get(desist_proof::receipt::SALT_BYTES..).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
    let (enforcement, _) = destinations::enforcement(app, &row).await?;
    let page = page(app, &row, &evidence, receipt.is_some(), enforcement);
    let text = page.render().map_err(|_| Problem::internal())?;
    Ok(html(text, "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"))
}

fn page(app: &App, row: &RequestRow, evidence: &Evidence, signed: bool, enforcement: Enforcement) -> Page {
    let (state, meaning) = match (row.kind, enforcement) {
        (RequestKind::OptIn, _) => ("received", "The wish to allow again is recorded."),
        (_, Enforcement::Received) => (
            "received",
            "The choice is recorded, and whoever asks desist is told to obey it. That every other system obeys was not observed.",
        ),
        (_, Enforcement::Enforced) => (
            "enforced",
            "The choice is recorded. Every system that knows the person under what was given here was told, and has confirmed as much as the business asks of it.",
        ),
        // The two look alike: a code shows who asked, and not whose address was given.
        (_, Enforcement::Unreachable | Enforcement::Absent) => (
            "exception",
            "The choice is recorded, and whoever asks desist is told to obey it. In no other system was there anything to change under what was given here.",
        ),
    };
    let config = app.config.load();
    let zone = config.business.time_zone.clone();
    let day = |seconds: i64| {
        jiff::Timestamp::from_second(seconds)
            .map_or(String::new(), |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string())
    };
    let names = |wanted: fn(Kind) -> bool| row.identifiers.iter().any(|named| wanted(named.1));
    let purposes = app.engine.shared().purposes.load();
    Page {
        state,
        meaning,
        business: config.business.name.clone().unwrap_or_else(|| app.engine.business().to_owned()),
        asked: match row.kind {
            RequestKind::OptOut => "to opt out",
            RequestKind::Limit => "to limit the use of sensitive information",
            RequestKind::OptIn => "to allow again",
        },
        purposes: purposes.names(row.purposes).join(", ").replace('_', " "),
        scope: match () {
            () if names(|kind| matches!(kind, Kind::Email | Kind::Phone)) => "person",
            () if names(Kind::is_person_level) => "account",
            () => "browser",
        },
        identifiers: evidence.identifiers.iter().map(Named::masked).collect(),
        acted_at: day(row.acted_at),
        recorded_at: day(row.recorded_at),
        deadline: row.deadline.clone(),
        seq: row.seq,
        signed,
    }
}

/// `/verify`: the page that checks receipts, in the browser alone.
pub async fn verifier() -> Response {
    /// The page as it is in the source, where it can be opened from disk too.
    const PAGE: &str = include_str!("pages/verify.html");
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let script =
            PAGE.split_once("<script type=\"module\">").and_then(|(_, rest)| rest.split_once("</script>")).map_or("", |(script, _)| script);
        let digest = STANDARD.encode(Sha256::digest(script));
        format!(
            "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    });
    html(PAGE.to_owned(), &POLICY)
}

fn html(text: String, policy: &str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What is about one person is kept by nobody on the way and told to no other page.
fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
