//! `POST /v1/identifiers/link`, `/unlink` and `POST /v1/subjects/lookup`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use desist_core::fact::Role;
use desist_core::graph::Graph;
use desist_core::identifier::Kind;
use desist_engine::intake::{self, Linked};
use desist_engine::queue::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::json::{Body, parse};
use super::people::{IdentifierInput, KindName, named, named_and_given};
use super::problem::Problem;
use super::{App, idempotency};

/// Most subjects that a lookup shows for one identifier; a shared one can have thousands.
const SUBJECTS_SHOWN_MAX: usize = 64;

/// Identifiers of one person.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentifiersBody {
    /// The identifiers; `campaign_pkey`, else `customer_id`, names the account.
    pub identifiers: Vec<IdentifierInput>,
}

/// What a link changed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkAnswer {
    /// The log entry after which decisions know of it.
    pub seq: u64,
    /// Whether anything changed.
    pub changed: bool,
}

/// What is known of identifiers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LookupAnswer {
    /// In the order of the question.
    pub identifiers: Vec<IdentifierView>,
}

/// What is known of one identifier.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdentifierView {
    /// Its kind.
    #[schemars(with = "KindName")]
    pub kind: Kind,
    /// Whether it was ever named.
    pub known: bool,
    /// Purposes denied by its own word or the account it names.
    pub denied: Vec<String>,
    /// Purposes denied through a link.
    pub linked: Vec<String>,
    /// Purposes opted in to.
    pub opted_in: Vec<String>,
    /// Held by too many to be one person's: nothing passes through it.
    pub shared: bool,
    /// The subjects that hold it, at most 64.
    pub subjects: Vec<SubjectView>,
}

/// What is known of one subject: no personal data.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectView {
    /// Whether it is a Campaign profile.
    pub profile: bool,
    /// The kinds of the identifiers it holds.
    #[schemars(with = "Vec<KindName>")]
    pub holds: Vec<Kind>,
    /// Purposes denied to it.
    pub denied: Vec<String>,
}

/// States that identifiers are one person's.
pub async fn link(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<LinkAnswer>, Problem> {
    write(app, caller, headers, body, true).await
}

/// States that they are not any more.
pub async fn unlink(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<LinkAnswer>, Problem> {
    write(app, caller, headers, body, false).await
}

async fn write(app: App, caller: Caller, headers: HeaderMap, body: Bytes, link: bool) -> Result<Json<LinkAnswer>, Problem> {
    let caller = caller.needs(Role::Writer)?;
    let (named, given) = named_and_given(&app, &parse::<IdentifiersBody>(&body)?.identifiers, "/identifiers")?;
    let again = idempotency(&app, &headers, caller, if link { "link" } else { "unlink" }, &body)?;
    let Linked { seq, changed } = app
        .engine
        .submit(Lane::Interactive, move |ctx| {
            intake::once(ctx, again.as_ref(), |ctx| {
                if link { intake::link(ctx, &named, &given, caller.actor) } else { intake::unlink(ctx, &named, caller.actor) }
            })
        })
        .await?;
    Ok(Json(LinkAnswer { seq, changed }))
}

/// Shows what is known of identifiers, for an operator who answers a question.
pub async fn lookup(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Json<LookupAnswer>, Problem> {
    caller.needs(Role::Reader)?;
    let named = named(&app, &parse::<IdentifiersBody>(&body)?.identifiers, "/identifiers")?;
    let purposes = app.engine.shared().purposes.load_full();
    let words = move |set| purposes.names(set).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let identifiers = app
        .read(move |read| {
            let mut graph = Graph::default();
            let mut views = Vec::with_capacity(named.len());
            for one in &named {
                let mut view = IdentifierView {
                    kind: one.kind,
                    known: false,
                    denied: vec![],
                    linked: vec![],
                    opted_in: vec![],
                    shared: false,
                    subjects: vec![],
                };
                if let Some(no) = read.find(&one.key)?
                    && let Some(row) = graph.identifier(read, no)?
                {
                    view.known = true;
                    view.shared = row.shared;
                    let verdict = graph.verdict(read, no)?;
                    (view.denied, view.linked, view.opted_in) = (words(verdict.denied), words(verdict.linked), words(verdict.opted_in));
                    for subject in read.holders(no)?.into_iter().take(SUBJECTS_SHOWN_MAX) {
                        let mut holds = Vec::new();
                        for held in graph.held(read, subject)? {
                            holds.extend(graph.identifier(read, held)?.map(|row| row.kind));
                        }
                        let denied = words(graph.subject_denied(read, subject)?);
                        view.subjects.push(SubjectView { profile: read.profile(subject)?.is_some(), holds, denied });
                    }
                }
                views.push(view);
            }
            Ok(views)
        })
        .await?;
    Ok(Json(LookupAnswer { identifiers }))
}
