//! `POST /v1/requests`, `GET /v1/requests/{id}`, `POST /v1/requests/{id}/confirm`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use desist_core::fact::{Channel, RequestId, RequestKind, Role};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::Enforcement;
use desist_engine::intake::{self, Accepted, NewRequest};
use desist_engine::queue::Lane;
use desist_store::{RequestRow, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::destinations::{StandingView, enforcement};
use super::json::{Body, Param, parse, present};
use super::people::{IdentifierInput, named_and_given, purposes};
use super::problem::Problem;
use super::{App, idempotency};

/// Longest permission that an agent sends along; it is kept sealed with the request.
pub const PERMISSION_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an agent.
pub const AGENT_NAME_BYTES_MAX: usize = 200;

/// A choice of a consumer, or of the business.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestBody {
    /// `opt_out`, `limit` or `opt_in`.
    #[schemars(with = "RequestKindName")]
    pub kind: RequestKind,
    /// For what; without it all that the kind is about.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub purposes: Option<Vec<String>>,
    /// About whom: identifiers of one person.
    pub identifiers: Vec<IdentifierInput>,
    /// Where the choice came in.
    #[schemars(with = "ChannelName")]
    pub channel: Channel,
    /// When the consumer acted, RFC 3339; without it now. Deadlines run from it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub received_at: Option<String>,
    /// Where the consumer lives, such as `us-ca`; kept as evidence, changes nothing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// The site, by its id in `desist.toml`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Who acts for the consumer, on channel `agent`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInput>,
}

/// An authorized agent (Civ. Code 1798.135(e)). A missing permission never delays the opt-out.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentInput {
    /// The agent's name.
    pub name: String,
    /// The consumer's signed permission, or where it is found.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
}

/// The kinds of request, for the schema.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum RequestKindName {
    OptOut,
    Limit,
    OptIn,
}

/// The channels, for the schema.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum ChannelName {
    Form,
    Toggle,
    Gpc,
    Agent,
    Drop,
    Phone,
    Mail,
    InPerson,
    Api,
    Import,
    Operator,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestAnswer {
    /// The request.
    pub id: String,
    /// What the consumer can look the request up with, or show.
    pub receipt_code: String,
    /// `received`, `awaiting_confirmation` or `confirmed`.
    pub status: String,
    /// Last day to act under the strict calendar; alarms use it.
    pub deadline: String,
    /// Last day to act if Saturdays are not business days.
    pub deadline_conventional: String,
    /// The log entry after which decisions know of it.
    pub seq: u64,
    /// What the second step of an opt-in must send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_token: Option<String>,
}

/// The second step of an opt-in.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    /// The token of the first step.
    pub confirm_token: String,
}

/// A request as stored: no personal data.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestView {
    /// The request.
    pub id: String,
    /// `opt_out`, `limit` or `opt_in`.
    #[schemars(with = "RequestKindName")]
    pub kind: RequestKind,
    /// `received`, `awaiting_confirmation` or `confirmed`; of an opt-out or limit that is at its level at every destination `enforced`, and
    /// `exception` if there is none that can be told and has the person.
    pub status: String,
    /// Why it is an exception: `unreachable`, no destination can be told whom it is about; `absent`, those that can do not have the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it came in.
    #[schemars(with = "ChannelName")]
    pub channel: Channel,
    /// For what.
    pub purposes: Vec<String>,
    /// When the consumer acted, RFC 3339.
    pub received_at: String,
    /// When it was recorded, RFC 3339.
    pub recorded_at: String,
    /// Last day to act under the strict calendar.
    pub deadline: String,
    /// Last day to act if Saturdays are not business days.
    pub deadline_conventional: String,
    /// The log entry that recorded it last.
    pub seq: u64,
    /// Named identifiers that too many hold: their holders were not reached, an operator looks.
    pub unreached: usize,
    /// Where it stands at each destination; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<StandingView>,
}

/// The name of a status on the wire.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Received => "received",
        Status::AwaitingConfirmation => "awaiting_confirmation",
        Status::Confirmed => "confirmed",
    }
}

/// Unix seconds as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A request for callers.
pub fn view(app: &App, row: &RequestRow) -> RequestView {
    RequestView {
        id: row.id.to_string(),
        kind: row.kind,
        status: status_name(row.status).to_owned(),
        channel: row.channel,
        purposes: app.engine.shared().purposes.load().names(row.purposes).into_iter().map(str::to_owned).collect(),
        received_at: rfc3339(row.acted_at),
        recorded_at: rfc3339(row.recorded_at),
        deadline: row.deadline.clone(),
        deadline_conventional: row.deadline_conventional.clone(),
        seq: row.seq,
        unreached: row.unreached.len(),
        reason: None,
        destinations: Vec::new(),
    }
}

/// The same with where it stands at each destination.
pub async fn full_view(app: &App, row: &RequestRow) -> Result<RequestView, Problem> {
    let mut view = view(app, row);
    if matches!(row.kind, RequestKind::OptOut | RequestKind::Limit) {
        let (enforcement, destinations) = enforcement(app, row).await?;
        let (status, reason) = match enforcement {
            Enforcement::Received => ("received", None),
            Enforcement::Enforced => ("enforced", None),
            Enforcement::Unreachable => ("exception", Some("unreachable".to_owned())),
            Enforcement::Absent => ("exception", Some("absent".to_owned())),
        };
        status.clone_into(&mut view.status);
        (view.reason, view.destinations) = (reason, destinations);
    }
    Ok(view)
}

fn answer(app: &App, accepted: Accepted, status: &str) -> RequestAnswer {
    let secrets = &app.engine.shared().secrets;
    RequestAnswer {
        id: accepted.id.to_string(),
        receipt_code: secrets.receipt_code(accepted.id),
        status: status.to_owned(),
        deadline: accepted.deadline,
        deadline_conventional: accepted.deadline_conventional,
        seq: accepted.seq,
        confirm_token: accepted.awaiting.then(|| secrets.confirm_token(accepted.id)),
    }
}

/// Checks a body and makes it a request. Shared with the command line.
pub fn check(app: &App, body: &RequestBody, caller: Caller) -> Result<NewRequest, Problem> {
    let (named, given) = named_and_given(app, &body.identifiers, "/identifiers")?;
    let purposes = match (&body.purposes, body.kind) {
        (Some(given), _) => purposes(app, given, "/purposes")?,
        (None, RequestKind::Limit) => PurposeSet::LIMIT_SENSITIVE,
        (None, RequestKind::OptOut | RequestKind::OptIn) => PurposeSet::OPT_OUT_DEFAULT,
    };
    let acted_at = match &body.received_at {
        None => None,
        Some(text) => {
            let time: jiff::Timestamp =
                text.parse().map_err(|_| Problem::invalid("/received_at", "not a time; write it as in 2026-11-20T17:40:00Z"))?;
            if body.kind == RequestKind::OptIn {
                return Err(Problem::invalid("/received_at", "an opt-in counts from its confirmation; leave the member out"));
            }
            Some(time.as_second())
        }
    };
    if let Some(place) = &body.jurisdiction
        && !(place.len() == 5 && place.starts_with("us-") && place[3..].bytes().all(|b| b.is_ascii_lowercase()))
    {
        return Err(Problem::invalid("/jurisdiction", "write a US state as in \"us-ca\""));
    }
    if let Some(site) = &body.site
        && !app.config.load().sites.iter().any(|known| &known.id == site)
    {
        return Err(Problem::invalid("/site", "not a site of desist.toml; add it there under [[sites]], or leave the member out"));
    }
    match (&body.agent, body.channel) {
        (None, Channel::Agent) => {
            return Err(
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "missing_member", "channel \"agent\" needs the agent's name").at("/agent")
            );
        }
        (Some(_), channel) if channel != Channel::Agent => return Err(Problem::invalid("/agent", "only channel \"agent\" has one")),
        (Some(agent), _) if agent.name.trim().is_empty() || agent.name.len() > AGENT_NAME_BYTES_MAX => {
            return Err(Problem::invalid("/agent/name", format!("write a name of at most {AGENT_NAME_BYTES_MAX} bytes")));
        }
        (Some(AgentInput { permission: Some(permission), .. }), _) if permission.len() > PERMISSION_BYTES_MAX => {
            return Err(Problem::invalid(
                "/agent/permission",
                format!("at most {PERMISSION_BYTES_MAX} bytes; send a place where it is found"),
            ));
        }
        _ => {}
    }
    // Destinations may have to be told of identifiers by what stands here, under `identifiers`: see `desist_engine::clear`.
    let evidence = serde_json::to_vec(body).map_err(|_| Problem::internal())?;
    Ok(NewRequest { kind: body.kind, purposes, named, channel: body.channel, acted_at, by: caller.actor, evidence, given })
}

/// Takes a choice in. 201 once it is on disk and every decision knows it.
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let caller = caller.needs(Role::Writer)?;
    let new = check(&app, &parse(&body)?, caller)?;
    let again = idempotency(&app, &headers, caller, "requests", &body)?;
    let accepted =
        app.engine.submit(Lane::Interactive, move |ctx| intake::once(ctx, again.as_ref(), |ctx| intake::request(ctx, &new))).await?;
    let status = if accepted.awaiting { "awaiting_confirmation" } else { "received" };
    Ok((StatusCode::CREATED, Json(answer(&app, accepted, status))).into_response())
}

/// Takes the second step of an opt-in.
pub async fn confirm(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<RequestAnswer>, Problem> {
    let caller = caller.needs(Role::Writer)?;
    let ConfirmBody { confirm_token } = parse(&body)?;
    let id: RequestId = id.parse().map_err(|_| Problem::not_found())?;
    let again = idempotency(&app, &headers, caller, &format!("requests/{id}/confirm"), &body)?;
    let accepted = app
        .engine
        .submit(Lane::Interactive, move |ctx| {
            intake::once(ctx, again.as_ref(), |ctx| intake::confirm(ctx, id, &confirm_token, caller.actor))
        })
        .await?;
    Ok(Json(answer(&app, accepted, "confirmed")))
}

/// Shows a request.
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, Param(id): Param) -> Result<Json<RequestView>, Problem> {
    caller.needs(Role::Auditor)?;
    let id: RequestId = id.parse().map_err(|_| Problem::not_found())?;
    let row = app.read(move |read| read.request(id)).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(full_view(&app, &row).await?))
}
