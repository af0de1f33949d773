//! `/v1/destinations` and `POST /v1/subjects/assurance`: what destinations were told, and what operators do about it.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use desist_core::fact::Role;
use desist_core::graph::{Graph, Party};
use desist_core::lane::{Assurance, Reason, Replay, State as LaneState, Target};
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::{self, Act, AskError, DestinationStatus, Enforcement, ParkedTarget, Standing, merge, parties_of};
use desist_engine::engine::{Engine, Failure, Refusal};
use desist_engine::intake::{self, Idempotency};
use desist_engine::queue::Lane;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::identifiers::IdentifiersBody;
use super::json::{Body, Param, parse, present};
use super::people::named;
use super::problem::Problem;
use super::requests::rfc3339;
use super::{App, idempotency, word};

/// Longest name of whoever told a destination by hand: one line.
pub const BY_BYTES_MAX: usize = 200;
/// Longest evidence of that; it is kept sealed.
pub const EVIDENCE_BYTES_MAX: usize = 64 * 1024;
/// Most parked targets in one answer.
pub const PARKED_MAX: usize = 1000;
/// Parked targets in one answer unless it is asked for more or fewer.
const PARKED_DEFAULT: usize = 100;

/// A destination: no personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationView {
    /// Its id.
    pub id: String,
    /// Its connector.
    pub connector: String,
    /// `third_party`, `service_provider`, `contractor` or `internal`.
    pub class: String,
    /// What it is told of.
    pub purposes: Vec<String>,
    /// The level at which an opt-out counts as enforced: `accepted`, `applied` or `verified`.
    pub required: String,
    /// The highest level that its connector can reach.
    pub ceiling: String,
    /// Whether its connector was ever run against the destination.
    pub verified: bool,
    /// `running`, `catching_up`, `backing_off`, `waiting_for_credentials`, `paused`, `stopped_too_many_parked`, `draining`,
    /// `without_lease` or `not_serving`.
    pub state: String,
    /// When it is tried again, RFC 3339, while it backs off or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why it cannot be called, such as a secret that is not there, or what went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Changes up to this one are looked at.
    pub cursor: u64,
    /// Changes behind the cursor, whoever they are about.
    pub behind: u64,
    /// Targets that are tried again later.
    pub parked: usize,
    /// Dead letters: nobody tries them again until somebody asks.
    pub dead: usize,
    /// Of how many the destination said that it does not have them, when it was told or looked at last.
    pub absent: u64,
    /// Calls under way.
    pub in_flight: usize,
    /// Targets that wait for a job of the destination.
    pub pending: usize,
    /// When a message last arrived, RFC 3339, as far as this process knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<String>,
    /// The earliest deadline of what is not delivered, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_due: Option<String>,
    /// When it acts next by itself, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What needs a person.
    pub alarms: Vec<DestinationAlarm>,
    /// The entry up to which a person told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// Who tells it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What that person does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// An alarm of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationAlarm {
    /// Its kind.
    pub kind: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// All destinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationsAnswer {
    /// In the order of the configuration.
    pub destinations: Vec<DestinationView>,
}

/// Somebody whom a destination refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedView {
    /// A number of desist's own: `s` of a subject, `i` of an identifier.
    pub target: String,
    /// `item`, `rejected`, `fails_alone`, `too_large`, `job`, `gave_up`, `undone`, `drift` or `waiting`.
    pub reason: String,
    /// The destination's own code, as far as this process saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried again, RFC 3339; absent of a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When the deadline began to run, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The deadline, RFC 3339, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The change at which it was parked.
    pub seq: u64,
}

/// A page of parked targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedAnswer {
    /// In the order of their numbers.
    pub parked: Vec<ParkedView>,
    /// What to give as `after` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which dead letters to try again: exactly one of a target, a range of changes, and all.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayBody {
    /// One target, as the list of parked ones shows it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Those parked at this change or later.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Those parked at this change or earlier.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// `true`: all.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// How many dead letters are tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayAnswer {
    /// So many.
    pub replayed: usize,
}

/// What a person did.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoneBody {
    /// Everything up to this log entry was told.
    pub through: u64,
    /// By whom.
    pub by: String,
    /// What shows it, such as a letter's text; kept sealed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// Where a person stands at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StandingView {
    /// The destination.
    pub id: String,
    /// `queued`, `sent`, `accepted`, `applied`, `verified`; `absent`, the destination said that it does not have the person; `unreachable` or `not_needed`.
    pub level: String,
    /// The level at which it counts as enforced.
    pub required: String,
    /// Whether it does.
    pub enforced: bool,
}

/// Where a person stands at every destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AssuranceAnswer {
    /// `received`, `enforced`, `unreachable`, `absent` or, of somebody who is denied nothing, `not_needed`.
    pub overall: String,
    /// At each.
    pub destinations: Vec<StandingView>,
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotServing => {
                Self::new(StatusCode::CONFLICT, "not_serving", "no destination is told anything by this process; ask the server")
            }
            AskError::NotFound => Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such destination"),
            AskError::Store(error) => error.into(),
            AskError::Failed(failure) => failure.into(),
        }
    }
}

impl From<&Standing> for StandingView {
    fn from(standing: &Standing) -> Self {
        let (level, enforced) = match standing.assurance {
            Assurance::NotNeeded => ("not_needed".to_owned(), false),
            Assurance::Unreachable => ("unreachable".to_owned(), false),
            Assurance::Absent => ("absent".to_owned(), false),
            Assurance::At(level) => (word(level), level >= standing.required),
        };
        Self { id: standing.id.clone(), level, required: word(standing.required), enforced }
    }
}

/// Unix milliseconds as RFC 3339.
fn time(unix_ms: i64) -> String {
    rfc3339(unix_ms.div_euclid(1000))
}

/// A target as callers see it: a number, and never an identifier.
pub fn target_text(target: Target) -> String {
    match Party::from_code(target.0) {
        Party::Subject(SubjectNo(no)) => format!("s{no}"),
        Party::Identifier(IdentifierNo(no)) => format!("i{no}"),
    }
}

/// The target of such a text.
pub fn target_of(text: &str) -> Option<Target> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    };
    let party = match (text.strip_prefix('s'), text.strip_prefix('i')) {
        (Some(digits), _) => Party::Subject(SubjectNo(number(digits)?)),
        (_, Some(digits)) => Party::Identifier(IdentifierNo(number(digits)?)),
        _ => return None,
    };
    Some(Target(party.code()))
}

fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Item(_) => "item",
        Reason::Rejected(_) => "rejected",
        Reason::FailsAlone => "fails_alone",
        Reason::TooLarge => "too_large",
        Reason::Job(_) => "job",
        Reason::GaveUp => "gave_up",
        Reason::Undone => "undone",
        Reason::Drift => "drift",
        Reason::Waiting => "waiting",
    }
}

/// The name of a lane's state on the wire, and when it ends by itself.
fn state_word(state: LaneState) -> (&'static str, Option<i64>) {
    match state {
        LaneState::Running => ("running", None),
        LaneState::CatchingUp => ("catching_up", None),
        LaneState::BackingOff { until_unix_ms } => ("backing_off", Some(until_unix_ms)),
        LaneState::WaitingForCredentials { until_unix_ms } => ("waiting_for_credentials", Some(until_unix_ms)),
        LaneState::Paused => ("paused", None),
        LaneState::StoppedTooManyParked => ("stopped_too_many_parked", None),
        LaneState::Draining => ("draining", None),
        LaneState::WithoutLease => ("without_lease", None),
    }
}

fn parked_view(one: &ParkedTarget) -> ParkedView {
    let parked = &one.parked;
    let has_deadline = parked.due_unix_ms > parked.since_unix_ms;
    ParkedView {
        target: target_text(one.target),
        reason: reason_word(parked.reason).to_owned(),
        code: one.code.clone(),
        attempts: parked.attempts,
        next: parked.retry_unix_ms.map(time),
        since: has_deadline.then(|| time(parked.since_unix_ms)),
        due: has_deadline.then(|| time(parked.due_unix_ms)),
        seq: parked.seq,
    }
}

/// Asks beside the runtime: the thread that owns the lanes answers.
pub async fn beside<T: Send + 'static>(
    app: &App,
    question: impl FnOnce(&Engine) -> Result<T, AskError> + Send + 'static,
) -> Result<T, Problem> {
    let engine = app.engine.clone();
    Ok(tokio::task::spawn_blocking(move || question(&engine)).await.map_err(|_| Problem::internal())??)
}

/// Every destination: those that are told, and those of the configuration that nobody tells yet.
pub fn views(app: &App) -> Result<Vec<DestinationView>, AskError> {
    let known = match app.engine.destinations() {
        Err(AskError::NotServing) => Vec::new(),
        other => other?,
    };
    let changes = app.engine.read(|read| Ok(read.coordinator()?.counters.changes))?;
    let config = app.config.load();
    let mut views: Vec<DestinationView> = Vec::new();
    for destination in &config.destinations {
        let Some(manifest) = destination.manifest() else { continue };
        let mut view = DestinationView {
            id: destination.id.clone(),
            connector: manifest.id().to_owned(),
            class: word(destination.class),
            purposes: destination.purposes_of(manifest),
            required: word(destination.required_of(manifest)),
            ceiling: word(destination.ceiling(manifest)),
            verified: destination.is_verified(),
            task: destination.task.clone(),
            owner: destination.owner.clone(),
            ..DestinationView::silent()
        };
        if let Some(status) = known.iter().find(|status| status.id == destination.id) {
            fill(app, &mut view, status, changes);
        }
        views.push(view);
    }
    // A reload that is under way has changed one of the two lists already.
    for status in &known {
        if views.iter().all(|view| view.id != status.id) {
            let mut view = DestinationView { id: status.id.clone(), verified: true, ..DestinationView::silent() };
            fill(app, &mut view, status, changes);
            views.push(view);
        }
    }
    Ok(views)
}

impl DestinationView {
    fn silent() -> Self {
        Self {
            id: String::new(),
            connector: String::new(),
            class: String::new(),
            purposes: Vec::new(),
            required: String::new(),
            ceiling: String::new(),
            verified: false,
            state: "not_serving".to_owned(),
            until: None,
            missing: None,
            cursor: 0,
            behind: 0,
            parked: 0,
            dead: 0,
            absent: 0,
            in_flight: 0,
            pending: 0,
            last_success: None,
            oldest_due: None,
            next: None,
            alarms: Vec::new(),
            through: None,
            owner: None,
            task: None,
        }
    }
}

fn fill(app: &App, view: &mut DestinationView, status: &DestinationStatus, changes: u64) {
    let names = app.engine.shared().purposes.load();
    view.connector.clone_from(&status.connector);
    view.class = word(status.class);
    view.purposes = names.names(status.purposes).into_iter().map(str::to_owned).collect();
    (view.required, view.ceiling) = (word(status.required), word(status.ceiling));
    view.missing = status.missing.clone().or_else(|| status.problem.clone());
    view.alarms = status.alarms.iter().map(|(kind, since)| DestinationAlarm { kind: word(kind), since: rfc3339(*since) }).collect();
    view.through = status.through;
    view.owner = status.owner.clone().or(view.owner.take());
    let Some(lane) = &status.lane else {
        "without_lease".clone_into(&mut view.state);
        return;
    };
    let (state, until) = state_word(lane.state);
    state.clone_into(&mut view.state);
    view.until = until.map(time);
    (view.cursor, view.behind) = (lane.cursor, changes.saturating_sub(lane.cursor));
    (view.parked, view.dead, view.in_flight, view.pending) = (lane.parked, lane.dead, lane.in_flight, lane.pending);
    view.absent = lane.absent;
    view.last_success = lane.last_success_unix_ms.map(time);
    view.oldest_due = lane.oldest_due_unix_ms.map(time);
    view.next = lane.next_unix_ms.map(time);
}

/// Every destination, beside the runtime.
pub async fn all(app: &App) -> Result<Vec<DestinationView>, Problem> {
    let of = app.clone();
    beside(app, move |_| views(&of)).await
}

async fn one(app: &App, id: &str) -> Result<DestinationView, Problem> {
    all(app).await?.into_iter().find(|view| view.id == id).ok_or_else(|| AskError::NotFound.into())
}

/// Lists the destinations.
pub async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Result<Json<DestinationsAnswer>, Problem> {
    caller.needs(Role::Auditor)?;
    Ok(Json(DestinationsAnswer { destinations: all(&app).await? }))
}

/// Shows a destination.
pub async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
) -> Result<Json<DestinationView>, Problem> {
    caller.needs(Role::Auditor)?;
    Ok(Json(one(&app, &id).await?))
}

/// `after` and `limit` of a query.
fn page(query: Option<&str>) -> Result<(Option<Target>, usize), Problem> {
    let bad = |title: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", title);
    let (mut after, mut limit) = (None, PARKED_DEFAULT);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("after", text)) => {
                after = Some(target_of(text).ok_or_else(|| bad("after is a target of the page before, such as s12".to_owned()))?);
            }
            Some(("limit", text)) => {
                let number = text.parse::<usize>().ok().filter(|number| (1..=PARKED_MAX).contains(number));
                limit = number.ok_or_else(|| bad(format!("limit is a whole number from 1 to {PARKED_MAX}")))?;
            }
            _ => return Err(bad("the query knows after and limit".to_owned())),
        }
    }
    Ok((after, limit))
}

/// Lists whom a destination refuses.
pub async fn parked(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    RawQuery(query): RawQuery,
) -> Result<Json<ParkedAnswer>, Problem> {
    caller.needs(Role::Auditor)?;
    let (after, limit) = page(query.as_deref())?;
    one(&app, &id).await?;
    let found = beside(&app, move |engine| match engine.parked(&id, after, limit) {
        // A lane without a lease has no books here yet.
        Err(AskError::NotServing | AskError::NotFound) => Ok(Vec::new()),
        other => other,
    })
    .await?;
    let next = found.last().filter(|_| found.len() == limit).map(|one| target_text(one.target));
    Ok(Json(ParkedAnswer { parked: found.iter().map(parked_view).collect(), next }))
}

/// Does something that is more than one command once per idempotency key.
async fn once<T>(
    app: &App,
    again: Option<Idempotency>,
    work: impl FnOnce(&Engine) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem>
where
    T: Serialize + DeserializeOwned + Clone + Send + 'static,
{
    // What operators do is rare, and of two with the same key the second has to wait for the first.
    static ACTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ACTS.lock().await;
    if let Some(known) = again {
        let asked = app
            .engine
            .submit(Lane::Interactive, move |ctx| intake::once::<T, _>(ctx, Some(&known), |_| Ok(Err(Refusal::NotWaiting))))
            .await;
        match asked {
            Err(Failure::Refused(Refusal::NotWaiting)) => {}
            answered => return Ok(answered?),
        }
    }
    let engine = app.engine.clone();
    let answer = tokio::task::spawn_blocking(move || work(&engine)).await.map_err(|_| Problem::internal())??;
    if let Some(known) = again {
        let kept = answer.clone();
        app.engine.submit(Lane::Interactive, move |ctx| intake::once(ctx, Some(&known), |_| Ok(Ok(kept.clone())))).await?;
    }
    Ok(answer)
}

async fn act(app: App, caller: Caller, id: String, headers: HeaderMap, body: &[u8], what: Act) -> Result<StatusCode, Problem> {
    let caller = caller.needs(Role::Admin)?;
    if !body.is_empty() {
        parse::<Nothing>(body)?;
    }
    let again = idempotency(&app, &headers, caller, &format!("destinations/{id}/{what:?}"), body)?;
    one(&app, &id).await?;
    once(&app, again, move |engine| Ok(engine.act(&id, what, caller.actor)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A body without members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Stops a destination.
pub async fn pause(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    act(app, caller, id, headers, &body, Act::Pause).await
}

/// Lets a destination go on.
pub async fn resume(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    act(app, caller, id, headers, &body, Act::Resume).await
}

/// Has a destination tried at once.
pub async fn try_now(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    act(app, caller, id, headers, &body, Act::TryNow).await
}

/// Has dead letters tried again.
pub async fn replay(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<ReplayAnswer>, Problem> {
    let caller = caller.needs(Role::Admin)?;
    let asked: ReplayBody = parse(&body)?;
    let which = match (&asked.target, asked.from, asked.to, asked.all) {
        (Some(text), None, None, None) => {
            Replay::One(target_of(text).ok_or_else(|| Problem::invalid("/target", "not a target; write it as in s12"))?)
        }
        (None, Some(from), Some(to), None) if from <= to => Replay::Range(from, to),
        (None, Some(_), Some(_), None) => return Err(Problem::invalid("/to", "is before \"from\"")),
        (None, None, None, Some(true)) => Replay::All,
        _ => return Err(Problem::invalid("", "give exactly one of \"target\", \"from\" with \"to\", and \"all\": true")),
    };
    let again = idempotency(&app, &headers, caller, &format!("destinations/{id}/replay"), &body)?;
    one(&app, &id).await?;
    let replayed = once(&app, again, move |engine| Ok(engine.replay(&id, which, caller.actor)?)).await?;
    Ok(Json(ReplayAnswer { replayed }))
}

/// Records what a person told a destination.
pub async fn done(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Param(id): Param,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let caller = caller.needs(Role::Admin)?;
    let DoneBody { through, by, evidence } = parse(&body)?;
    if by.trim().is_empty() || by.len() > BY_BYTES_MAX || by.chars().any(char::is_control) {
        return Err(Problem::invalid("/by", format!("write a name of 1 to {BY_BYTES_MAX} bytes without control characters")));
    }
    if evidence.as_ref().is_some_and(|text| text.len() > EVIDENCE_BYTES_MAX) {
        return Err(Problem::invalid("/evidence", format!("at most {EVIDENCE_BYTES_MAX} bytes; send a place where it is found")));
    }
    let again = idempotency(&app, &headers, caller, &format!("destinations/{id}/done"), &body)?;
    let found = one(&app, &id).await?;
    let entries = app.engine.applied();
    let sealed = serde_json::to_vec(&serde_json::json!({ "by": by, "evidence": evidence })).map_err(|_| Problem::internal())?;
    once(&app, again, move |engine| {
        let Some(told) = found.through else {
            let title = "nobody tells this destination by hand; it is told by its connector";
            return Err(Problem::new(StatusCode::CONFLICT, "not_manual", title));
        };
        if through <= told || through > entries {
            return Err(Problem::invalid(
                "/through",
                format!("not an entry after {told}, which was done before, and up to {entries}, the last one"),
            ));
        }
        Ok(engine.told_by_hand(&id, through, &sealed, caller.actor)?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a person stands who is known by identifiers.
pub async fn assurance(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<AssuranceAnswer>, Problem> {
    caller.needs(Role::Auditor)?;
    let named = named(&app, &parse::<IdentifiersBody>(&body)?.identifiers, "/identifiers")?;
    let found = beside(&app, move |engine| {
        let (parties, is_denied) = engine.read(|read| {
            let (mut parties, mut is_denied) = (BTreeSet::new(), false);
            for one in &named {
                if let Some(no) = read.find(&one.key)? {
                    parties.extend(parties_of(read, no)?);
                    is_denied |= !Graph::default().verdict(read, no)?.all_denied().is_empty();
                }
            }
            Ok((parties, is_denied))
        })?;
        Ok((standings(engine, parties)?, is_denied))
    });
    let (standings, is_denied) = found.await?;
    let is_told = standings.iter().any(|standing| standing.assurance != Assurance::NotNeeded);
    let overall = if is_denied || is_told { word(delivery::enforcement(&standings)) } else { "not_needed".to_owned() };
    Ok(Json(AssuranceAnswer { overall, destinations: standings.iter().map(StandingView::from).collect() }))
}

/// Where several parties stand that are one person's. Without destinations there is nothing to say.
pub fn standings(engine: &Engine, parties: BTreeSet<Party>) -> Result<Vec<Standing>, AskError> {
    let mut all = Vec::new();
    for party in parties {
        match engine.standings(party, PurposeSet(u64::MAX)) {
            Err(AskError::NotServing) => return Ok(Vec::new()),
            found => merge(&mut all, found?),
        }
    }
    Ok(all)
}

/// Where a request stands at all destinations, and at each. What nobody delivers is received, and no more.
pub async fn enforcement(app: &App, row: &desist_store::RequestRow) -> Result<(Enforcement, Vec<StandingView>), Problem> {
    let row = row.clone();
    beside(app, move |engine| match engine.enforcement(&row) {
        Err(AskError::NotServing) => Ok((Enforcement::Received, Vec::new())),
        found => found.map(|(enforcement, all)| (enforcement, all.iter().map(StandingView::from).collect())),
    })
    .await
}
