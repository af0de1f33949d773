//! `POST /v1/decisions`: may this person's data be used for this purpose?

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use desist_core::decision::{AgeBand, Context, Decision, Reason};
use desist_core::fact::Role;
use desist_core::limits::DECISIONS_MAX;
use desist_core::purpose::PurposeSet;
use desist_engine::engine::Decided;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::App;
use super::auth::Caller;
use super::json::{Body, parse, present};
use super::people::{IdentifierInput, named_and_given, purpose};
use super::problem::Problem;

/// Lists longer than this are worked off beside the runtime, so that others do not wait.
const INLINE_MAX: usize = 100;

/// A question about one person (`identifiers`) or about many (`subjects`).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// The purpose.
    pub purpose: String,
    /// Identifiers of one person; denied if any is.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub identifiers: Option<Vec<IdentifierInput>>,
    /// What else is known of that person's request.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextInput>,
    /// Up to 10,000 people instead of one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub subjects: Option<Vec<SubjectInput>>,
    /// Answer only with knowledge of this log entry; deny `stale` otherwise.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub min_seq: Option<u64>,
}

/// One person of a list.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubjectInput {
    /// Identifiers of the person.
    pub identifiers: Vec<IdentifierInput>,
    /// What else is known of the person's request.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextInput>,
}

/// What a caller knows beside the identifiers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextInput {
    /// The consumer's request carried a Global Privacy Control signal.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub gpc: Option<bool>,
    /// Where the consumer is, such as `us-ca`. Everybody gets the strictest rule, so it changes nothing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// `under_13`, `13_15`, `16_17` or `18_plus`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AgeBandName>")]
    pub age_band: Option<AgeBand>,
    /// The destination that would get the data; this version knows none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// The age bands, for the schema.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum AgeBandName {
    #[schemars(rename = "under_13")]
    Under13,
    #[schemars(rename = "13_15")]
    From13To15,
    #[schemars(rename = "16_17")]
    From16To17,
    #[schemars(rename = "18_plus")]
    Adult,
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionAnswer {
    /// `allow` or `deny`.
    #[schemars(with = "String")]
    pub decision: Decision,
    /// Why.
    #[schemars(with = "String")]
    pub reason: Reason,
    /// The last log entry that the answer knows of.
    pub as_of: u64,
    /// How old that knowledge can be, in milliseconds.
    pub stale_ms: u64,
}

/// Answers in the order of the question.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionAnswers {
    /// One for each subject.
    pub decisions: Vec<DecisionAnswer>,
}

/// One answer or many, as asked; for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(missing_docs, reason = "only its schema is used")]
pub enum OneOrMany {
    One(DecisionAnswer),
    Many(DecisionAnswers),
}

impl From<Decided> for DecisionAnswer {
    fn from(decided: Decided) -> Self {
        Self { decision: decided.decision, reason: decided.reason, as_of: decided.as_of, stale_ms: decided.stale_ms }
    }
}

fn context(input: Option<&ContextInput>, header: bool, pointer: &str) -> Result<Context, Problem> {
    let Some(input) = input else { return Ok(Context { gpc: header, age_band: None }) };
    if let Some(place) = &input.jurisdiction
        && !(place.len() == 5 && place.starts_with("us-") && place[3..].bytes().all(|b| b.is_ascii_lowercase()))
    {
        return Err(Problem::invalid(format!("{pointer}/jurisdiction"), "write a US state as in \"us-ca\""));
    }
    if input.destination.is_some() {
        return Err(Problem::invalid(format!("{pointer}/destination"), "not a destination of this business; this version knows none"));
    }
    Ok(Context { gpc: header || input.gpc == Some(true), age_band: input.age_band })
}

/// Decides. Never touches the disk.
pub async fn decide(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let caller = caller.needs(Role::Reader)?;
    let body: DecisionBody = parse(&body)?;
    let purpose = purpose(&app, &body.purpose, "/purpose")?;
    let fresh = match body.min_seq {
        Some(seq) => app.engine.caught_up(seq).await,
        None => true,
    };
    match (&body.identifiers, &body.subjects) {
        (Some(identifiers), None) => {
            let (named, given) = named_and_given(&app, identifiers, "/identifiers")?;
            let header = headers.get("sec-gpc").is_some_and(|value| value == "1");
            let context = context(body.context.as_ref(), header, "/context")?;
            let decided = if fresh { app.engine.decide(purpose, &named, context) } else { stale(&app) };
            app.engine.note_signal(&named, &given, context, caller.actor);
            Ok(Json(DecisionAnswer::from(decided)).into_response())
        }
        (None, Some(subjects)) => {
            if body.context.is_some() {
                return Err(Problem::invalid("/context", "in a list each subject has its own context"));
            }
            if subjects.len() > DECISIONS_MAX {
                return Err(Problem::invalid("/subjects", format!("at most {DECISIONS_MAX} in one request; send several")));
            }
            let work = move |app: App, body: DecisionBody| many(&app, &body, purpose, fresh, caller);
            let decisions = if subjects.len() <= INLINE_MAX {
                work(app, body)?
            } else {
                tokio::task::spawn_blocking(move || work(app, body)).await.map_err(|_| Problem::internal())??
            };
            Ok(Json(DecisionAnswers { decisions }).into_response())
        }
        _ => Err(Problem::invalid("/identifiers", "give exactly one of \"identifiers\" (one person) and \"subjects\" (a list)")),
    }
}

fn many(app: &App, body: &DecisionBody, purpose: PurposeSet, fresh: bool, caller: Caller) -> Result<Vec<DecisionAnswer>, Problem> {
    let subjects = body.subjects.as_deref().unwrap_or_default();
    let mut questions = Vec::with_capacity(subjects.len());
    for (place, subject) in subjects.iter().enumerate() {
        let pointer = format!("/subjects/{place}");
        let (named, given) = named_and_given(app, &subject.identifiers, &format!("{pointer}/identifiers"))?;
        questions.push((named, given, context(subject.context.as_ref(), false, &format!("{pointer}/context"))?));
    }
    let decide = |(named, given, context): &(Vec<_>, Vec<_>, Context)| {
        let decided = if fresh { app.engine.decide(purpose, named, *context) } else { stale(app) };
        app.engine.note_signal(named, given, *context, caller.actor);
        DecisionAnswer::from(decided)
    };
    Ok(questions.iter().map(decide).collect())
}

fn stale(app: &App) -> Decided {
    Decided { decision: Decision::Deny, reason: Reason::Stale, as_of: app.engine.applied(), stale_ms: 0 }
}
