//! What only the operator on the machine can ask: the control socket `DIR/control.sock`, beside the
//! whole private API. Each call here is a command of the command line.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_core::fact::Role;
use desist_core::identifier::Kind;
use desist_core::limits::CLOCK_SKEW_SECONDS_MAX;
use desist_core::purpose::PurposeSet;
use desist_core::rules::Refused;
use desist_engine::alerts::{About, Delivery};
use desist_engine::delivery::AskError;
use desist_engine::engine::{Ctx, Refusal};
use desist_engine::intake::{self, ImportChunk, ImportProgress};
use desist_engine::notary::witnesses::WitnessState;
use desist_engine::notary::{Notary, RotateError};
use desist_engine::queue::Lane;
use desist_engine::secrets::{canonical_code, hash};
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::destinations::{self, DestinationView};
use super::json::{Body, parse};
use super::people::{IdentifierInput, named_and_given, purposes};
use super::problem::Problem;
use super::requests::{RequestView, full_view, rfc3339, view};
use super::{App, word};

/// Most rows in one piece of an import: about 100 KiB of JSON and a few milliseconds of the writer.
pub const IMPORT_ROWS_MAX: usize = 500;
/// Requests that `status` lists with lines that an act did not reach.
const UNREACHED_SHOWN_MAX: usize = 20;

/// A piece of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody {
    /// SHA-256 of the file and of how it is read, base64url.
    pub import: String,
    /// The same without the kinds that destinations are told of, if there are any: what was taken under it is not taken again.
    pub of: Option<String>,
    /// Rows of the file before this piece.
    pub first_row: u64,
    /// The rows, each with the identifiers of one person.
    pub rows: Vec<Vec<IdentifierInput>>,
    /// Rows of this piece that the reader already refused.
    pub unreadable: u64,
    /// For what.
    pub purposes: Vec<String>,
    /// When the people opted out, RFC 3339.
    pub received_at: Option<String>,
    /// Whether the file ends here.
    pub last: bool,
    /// Only check the rows.
    pub dry_run: bool,
}

/// What became of a piece.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImportAnswer {
    /// How far the import is now.
    pub progress: ImportProgress,
    /// Rows that were refused: place in the piece, and why.
    pub refused: Vec<(usize, String)>,
}

/// Takes a piece of a file, or checks it.
pub async fn import(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Json<ImportAnswer>, Problem> {
    let caller = caller.needs(Role::Admin)?;
    let body: ImportBody = parse(&body)?;
    if body.rows.len() > IMPORT_ROWS_MAX {
        return Err(Problem::invalid("/rows", format!("at most {IMPORT_ROWS_MAX} rows in one piece")));
    }
    // Far above any file, and far below where counting could overflow.
    if body.unreadable > u64::from(u32::MAX) || body.first_row > 1 << 48 {
        return Err(Problem::invalid("/unreadable", "more rows than a file can have"));
    }
    let digest = |text: &String, pointer: &str| -> Result<[u8; 32], Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| Problem::invalid(pointer, "not 32 bytes as base64url"))
    };
    let import = digest(&body.import, "/import")?;
    let of = body.of.as_ref().map(|text| digest(text, "/of")).transpose()?;
    let acted_at = match &body.received_at {
        Some(text) => Some(
            text.parse::<jiff::Timestamp>()
                .map_err(|_| Problem::invalid("/received_at", "not a time; write it as in 2026-11-20T17:40:00Z"))?
                .as_second(),
        ),
        None => None,
    };
    // Also where nobody is named or it is a dry run, for which nothing else would say it.
    if acted_at.is_some_and(|at| at > app.engine.shared().env.now_ms().div_euclid(1000) + CLOCK_SKEW_SECONDS_MAX) {
        return Err(Refusal::from(Refused::Future).into());
    }
    let purposes: PurposeSet = purposes(&app, &body.purposes, "/purposes")?;
    let (mut people, mut given, mut refused) = (Vec::with_capacity(body.rows.len()), Vec::new(), Vec::new());
    for (place, row) in body.rows.iter().enumerate() {
        match named_and_given(&app, row, "") {
            Ok((named, more)) => {
                people.push(named);
                given.extend(more);
            }
            Err(problem) => refused.push((place, problem.title)),
        }
    }
    let rows = body.rows.len() as u64 + body.unreadable;
    let chunk =
        ImportChunk { import, first_row: body.first_row, rows, people, given, purposes, acted_at, last: body.last, by: caller.actor };
    let progress = if body.dry_run {
        let accepted = chunk.people.len() as u64;
        ImportProgress { rows: body.first_row + rows, accepted, refused: rows - accepted, finished: body.last }
    } else {
        let take = move |ctx: &mut Ctx<'_>| match &of {
            Some(of) => intake::import_again(ctx, &chunk, of),
            None => intake::import(ctx, &chunk),
        };
        app.engine.submit(Lane::Bulk, take).await?
    };
    Ok(Json(ImportAnswer { progress, refused }))
}

/// What an importer has to know before it sends anything.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImportStart {
    /// How far the import is; none if it is new.
    pub progress: Option<ImportProgress>,
    /// The kinds of identifier that some destination has to be told of: these are sent as they are, of others the digest does.
    pub kinds_told: Vec<Kind>,
}

/// Asks how far an import is.
pub async fn import_progress(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<ImportStart>, Problem> {
    caller.needs(Role::Admin)?;
    let import: String = parse(&body)?;
    let import: [u8; 32] = URL_SAFE_NO_PAD
        .decode(import)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Problem::invalid("", "not 32 bytes as base64url"))?;
    let progress = app.read(move |read| read.import(&import)).await?.map(ImportProgress::from);
    let kinds_told = app.engine.shared().policy.load().kinds_told.iter().copied().collect();
    Ok(Json(ImportStart { progress, kinds_told }))
}

/// The state of the server.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The business.
    pub business: String,
    /// The name of the log.
    pub origin: String,
    /// Entries in the log.
    pub entries: u64,
    /// Whether a server answered; `false`: read from the store.
    pub serving: bool,
    /// Whether writes are durable.
    pub durable: bool,
    /// Requests that are recorded; each is denied in every decision.
    pub requests_received: u64,
    /// Opt-ins that wait for their second step.
    pub requests_awaiting_confirmation: u64,
    /// Opt-ins that were confirmed.
    pub requests_confirmed: u64,
    /// Identifiers with a denial.
    pub denied_identifiers: u64,
    /// Campaign profiles.
    pub profiles: u64,
    /// Requests that named an identifier held by too many: look who else is meant before the deadline.
    pub unreached: Vec<RequestView>,
    /// How many there are in all.
    pub unreached_total: u64,
    /// Alarms that stand: kind and since when.
    pub alarms: Vec<(String, String)>,
    /// Who must be told.
    #[serde(default)]
    pub destinations: Vec<DestinationView>,
    /// Who cosigns the log.
    pub witnesses: Vec<WitnessView>,
    /// How telling of alarms goes; none if nobody is to be told.
    pub alerts: Option<AlertsView>,
}

/// How telling of alarms goes.
#[derive(Debug, Serialize, Deserialize)]
pub struct AlertsView {
    /// `delivered`, `sending`, `failing` or `waiting_for_secret`.
    pub state: String,
    /// Since when it fails.
    pub since: Option<String>,
    /// Why nothing is delivered.
    pub problem: Option<String>,
    /// How many changes of alarms wait.
    pub waiting: usize,
}

impl AlertsView {
    fn new(delivery: Delivery, waiting: usize) -> Self {
        let (state, since, problem) = match delivery {
            Delivery::Delivered => ("delivered", None, None),
            Delivery::Sending => ("sending", None, None),
            Delivery::Failing(since_ms, why) => ("failing", Some(rfc3339(since_ms.div_euclid(1000))), Some(why)),
            Delivery::WaitingForSecret(why) => ("waiting_for_secret", None, Some(why)),
        };
        Self { state: state.to_owned(), since, problem, waiting }
    }
}

/// How a witness is doing.
#[derive(Debug, Serialize, Deserialize)]
pub struct WitnessView {
    /// Name of its key.
    pub name: String,
    /// Entries that it cosigned last.
    pub cosigned: Option<u64>,
    /// Why it did not cosign what came after, if it fails.
    pub problem: Option<String>,
    /// Since when.
    pub since: Option<String>,
    /// Whether that is an alarm.
    pub lost: bool,
}

/// Shows the state of the server.
pub async fn status(State(app): State<App>, Extension(caller): Extension<Caller>) -> Result<Json<StatusAnswer>, Problem> {
    caller.needs(Role::Auditor)?;
    let (totals, unreached, entries) =
        app.read(|read| Ok((read.totals()?, read.unreached(UNREACHED_SHOWN_MAX)?, read.coordinator()?.counters.entries))).await?;
    let alerts = &app.engine.shared().alerts;
    let alarm = |(about, since): (About, i64)| {
        let of = about.destination.map_or_else(String::new, |id| format!(" of {id}"));
        (word(about.kind) + &of, rfc3339(since))
    };
    let engine = app.engine.clone();
    let alarms = tokio::task::spawn_blocking(move || engine.alarms()).await.map_err(|_| Problem::internal())?;
    let witness = |state: WitnessState| {
        let (since, problem) = state.failing.map(|(since, why)| (rfc3339(since.div_euclid(1000)), why)).unzip();
        WitnessView { name: state.name, cosigned: state.cosigned, problem, since, lost: state.lost }
    };
    Ok(Json(StatusAnswer {
        business: app.engine.business().to_owned(),
        origin: app.engine.origin().to_owned(),
        entries,
        serving: app.serving,
        durable: app.engine.is_durable(),
        requests_received: totals.requests[0],
        requests_awaiting_confirmation: totals.requests[1],
        requests_confirmed: totals.requests[2],
        denied_identifiers: totals.denied_identifiers,
        profiles: totals.profiles,
        unreached: unreached.iter().map(|row| view(&app, row)).collect(),
        unreached_total: totals.unreached,
        destinations: destinations::all(&app).await?,
        alarms: alarms.into_iter().map(alarm).collect(),
        witnesses: app.engine.shared().notary.witnesses().into_iter().map(witness).collect(),
        alerts: alerts.delivery().map(|delivery| AlertsView::new(delivery, alerts.waiting())),
    }))
}

/// Looks a request up by its receipt code.
pub async fn trace(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Json<RequestView>, Problem> {
    caller.needs(Role::Auditor)?;
    let code: String = parse(&body)?;
    let code = canonical_code(&code).ok_or_else(|| Problem::invalid("", "not a receipt code: it has 26 letters and digits"))?;
    let row = app.read(move |read| read.request_by_receipt(&hash(&code))).await?;
    let row = row.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "not_found", "no request has this receipt code"))?;
    Ok(Json(full_view(&app, &row).await?))
}

/// The file that shows what a request led to, by its receipt code.
pub async fn deliveries(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Response, Problem> {
    caller.needs(Role::Admin)?;
    let code: String = parse(&body)?;
    let code = canonical_code(&code).ok_or_else(|| Problem::invalid("", "not a receipt code: it has 26 letters and digits"))?;
    let row = app.read(move |read| read.request_by_receipt(&hash(&code))).await?;
    let row = row.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "not_found", "no request has this receipt code"))?;
    let engine = app.engine.clone();
    let found = tokio::task::spawn_blocking(move || engine.deliveries(&row)).await.map_err(|_| Problem::internal())?;
    let not_signed = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_signed", "the log is being signed; try again in a second");
    let file = match found {
        Ok(file) => file.ok_or_else(not_signed)?,
        Err(AskError::Failed(failure)) => return Err(failure.into()),
        Err(AskError::Store(error)) => return Err(error.into()),
        Err(AskError::NotServing | AskError::NotFound) => return Err(Problem::internal()),
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], file.to_json()).into_response())
}

/// Copies the store into a new file.
pub async fn backup(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<StatusCode, Problem> {
    caller.needs(Role::Admin)?;
    let to: std::path::PathBuf = parse::<String>(&body)?.into();
    let engine = app.engine.clone();
    tokio::task::spawn_blocking(move || engine.backup(&to))
        .await
        .map_err(|_| Problem::internal())?
        .map_err(|error| Problem::new(StatusCode::CONFLICT, "backup_failed", error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives the log a new signing key; the body says whether others may have the one before. Answers the new public key.
pub async fn rotate_log_key(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<String>, Problem> {
    caller.needs(Role::Admin)?;
    let compromised: bool = parse(&body)?;
    let (engine, by) = (app.engine.clone(), caller.actor);
    let rotated = tokio::task::spawn_blocking(move || Notary::rotate(&engine, compromised, by)).await.map_err(|_| Problem::internal())?;
    match rotated {
        Ok(key) => Ok(Json(key.to_string())),
        Err(RotateError::Failure(failure)) => Err(failure.into()),
        Err(error) => Err(Problem::new(StatusCode::CONFLICT, "key_not_written", error.to_string())),
    }
}

/// Reads `desist.toml` and the certificates again: all of it or none.
pub async fn reload(State(app): State<App>, Extension(caller): Extension<Caller>) -> Result<StatusCode, Problem> {
    caller.needs(Role::Admin)?;
    let again = app.clone();
    tokio::task::spawn_blocking(move || again.reload())
        .await
        .map_err(|_| Problem::internal())?
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_reloaded", error))?;
    Ok(StatusCode::NO_CONTENT)
}
