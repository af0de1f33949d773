//! What only the operator on the machine can ask about people and destinations: what has to be told by hand, and what is
//! known of one identifier.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use desist_core::calendar::{CCPA_BUSINESS_DAYS, deadlines};
use desist_core::decision::Context;
use desist_core::fact::Role;
use desist_core::graph::Graph;
use desist_core::identifier::Kind;
use desist_core::lane::Assurance;
use desist_core::mark::{Line, SubjectNo};
use desist_engine::delivery::transport::Message;
use desist_engine::delivery::{AskError, enforcement, parties_of};
use desist_store::{Read, StoreError};
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::destinations::{self, StandingView, beside};
use super::json::{Body, parse};
use super::people::{IdentifierInput, named};
use super::problem::Problem;
use super::requests::rfc3339;
use super::{App, word};

/// Most people in one page of what has to be told by hand.
const TASKS_PAGE: usize = 500;
/// Most holders of an identifier that a trace shows: a shared one can have thousands.
const HOLDERS_SHOWN_MAX: usize = 64;

/// Asks for a page of what has to be told by hand.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksBody {
    /// The destination.
    pub id: String,
    /// Changes after this one.
    pub after: u64,
}

/// A page of what has to be told by hand.
#[derive(Debug, Serialize, Deserialize)]
pub struct TasksAnswer {
    /// The entry up to which it was told.
    pub through: u64,
    /// Who tells it.
    pub owner: Option<String>,
    /// What to do.
    pub task: Option<String>,
    /// One row for each person and identifier.
    pub rows: Vec<TaskRow>,
    /// How many people the rows are about.
    pub people: usize,
    /// The earliest day by which somebody has to be told.
    pub due: Option<String>,
    /// The last entry that the rows know of.
    pub upto: u64,
    /// What to give as `after` for the next page.
    pub next: Option<u64>,
}

/// An identifier of somebody of whom a destination has to be told.
#[derive(Clone, Serialize, Deserialize)]
pub struct TaskRow {
    /// Its kind.
    pub kind: Kind,
    /// Its normal form, if anybody ever gave it in clear.
    pub value: Option<String>,
    /// The SHA-256 of its normal form, hexadecimal.
    pub sha256: String,
    /// `opt_out` or `opt_in`.
    pub status: String,
    /// Of what.
    pub purposes: Vec<String>,
}

impl std::fmt::Debug for TaskRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskRow({}, {}, …)", self.kind, self.status)
    }
}

/// What a person has to tell a destination.
pub async fn tasks(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Json<TasksAnswer>, Problem> {
    caller.needs(Role::Admin)?;
    let TasksBody { id, after } = parse(&body)?;
    let view = destinations::all(&app).await?.into_iter().find(|view| view.id == id).ok_or(AskError::NotFound)?;
    let Some(through) = view.through else {
        let title = "nobody tells this destination by hand; it is told by its connector";
        return Err(Problem::new(StatusCode::CONFLICT, "not_manual", title));
    };
    let (messages, next) = beside(&app, move |engine| engine.present(&id, after, TASKS_PAGE)).await?;
    let names = app.engine.shared().purposes.load_full();
    let zone = app.config.load().business.time_zone.clone();
    let (mut rows, mut people, mut due, mut upto) = (Vec::new(), 0, None::<String>, through);
    for message in messages.iter().filter(|message| message.version > through) {
        people += 1;
        upto = upto.max(message.version);
        let is_denied = !message.denied.is_empty();
        if is_denied {
            let day = deadlines(message.at, &zone, CCPA_BUSINESS_DAYS).strict.to_string();
            due = Some(due.map_or(day.clone(), |known| known.min(day)));
        }
        let (status, set) = if is_denied { ("opt_out", message.denied) } else { ("opt_in", message.allowed) };
        let purposes: Vec<String> = names.names(set).into_iter().map(str::to_owned).collect();
        rows.extend(task_rows(message, status, &purposes));
    }
    Ok(Json(TasksAnswer { through, owner: view.owner, task: view.task, rows, people, due, upto, next }))
}

fn task_rows<'m>(message: &'m Message, status: &'m str, purposes: &'m [String]) -> impl Iterator<Item = TaskRow> + use<'m> {
    let hex = |bytes: &[u8; 32]| bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"));
    message.identifiers.iter().map(move |known| TaskRow {
        kind: known.kind,
        value: known.text.as_ref().map(|text| text.to_string()),
        sha256: hex(&known.sha256),
        status: status.to_owned(),
        purposes: purposes.to_vec(),
    })
}

/// What is known about one identifier: numbers, and no personal data.
#[derive(Debug, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// Its kind.
    pub kind: Kind,
    /// Whether it was ever named.
    pub known: bool,
    /// Held by too many to be one person's: nothing passes through it.
    pub shared: bool,
    /// What a decision about it says now, for each purpose.
    pub verdicts: Vec<VerdictView>,
    /// The entries behind that, oldest first.
    pub entries: Vec<EntryView>,
    /// Who holds it.
    pub holders: Vec<HolderView>,
    /// `received`, `enforced`, `unreachable`, `absent` or, of somebody who is denied nothing, `not_needed`.
    pub overall: String,
    /// Where it stands at each destination.
    pub destinations: Vec<StandingView>,
}

/// A decision.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// The purpose.
    pub purpose: String,
    /// `allow` or `deny`.
    pub decision: String,
    /// Why.
    pub reason: String,
}

/// An entry of the log that a verdict comes from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its number.
    pub seq: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the consumer acted, RFC 3339.
    pub at: String,
    /// Where it came in.
    pub channel: Option<String>,
    /// The request, if it was one.
    pub request: Option<String>,
    /// On whose line it is: `own`, or the number of a holder.
    pub line: String,
    /// `deny` or `allow`.
    pub word: String,
    /// For what.
    pub purposes: Vec<String>,
}

/// A holder.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// Its number.
    pub subject: String,
    /// Whether it is a Campaign profile.
    pub profile: bool,
    /// Purposes denied to it.
    pub denied: Vec<String>,
}

/// What an entry says beside what its mark does.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    channel: Option<String>,
    request: Option<String>,
}

/// What is known about an identifier.
pub async fn trace(State(app): State<App>, Extension(caller): Extension<Caller>, Body(body): Body) -> Result<Json<TraceAnswer>, Problem> {
    caller.needs(Role::Admin)?;
    let input: IdentifierInput = parse(&body)?;
    let one = named(&app, std::slice::from_ref(&input), "/identifiers")?;
    let names = app.engine.shared().purposes.load_full();
    let mut verdicts = Vec::new();
    for (name, purpose, _) in names.iter() {
        let decided = app.engine.decide(purpose, &one, Context::default());
        verdicts.push(VerdictView { purpose: name.to_owned(), decision: word(decided.decision), reason: word(decided.reason) });
    }
    let key = one.into_iter().next().ok_or_else(Problem::internal)?.key;
    let found = beside(&app, move |engine| {
        let mut answer = TraceAnswer {
            kind: input.kind,
            known: false,
            shared: false,
            verdicts,
            entries: Vec::new(),
            holders: Vec::new(),
            overall: "not_needed".to_owned(),
            destinations: Vec::new(),
        };
        let words = |set| names.names(set).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let asked = engine.read(|read| {
            let Some(no) = read.find(&key)? else { return Ok(None) };
            let mut graph = Graph::default();
            let Some(row) = graph.identifier(read, no)?.cloned() else { return Ok(None) };
            let (mut lines, mut holders) = (vec![("own".to_owned(), row.line.clone())], Vec::new());
            for subject in read.holders(no)?.into_iter().take(HOLDERS_SHOWN_MAX) {
                let SubjectNo(number) = subject;
                let name = format!("s{number}");
                lines.push((name.clone(), graph.subject(read, subject)?.line.clone()));
                let denied = words(graph.subject_denied(read, subject)?);
                holders.push(HolderView { subject: name, profile: read.profile(subject)?.is_some(), denied });
            }
            let mut entries = Vec::new();
            for (name, line) in lines {
                entries.extend(entries_of(read, &name, &line, &words)?);
            }
            let is_denied = !graph.verdict(read, no)?.all_denied().is_empty();
            Ok(Some((row.shared, holders, entries, parties_of(read, no)?, is_denied)))
        })?;
        let Some((shared, holders, mut entries, parties, is_denied)) = asked else { return Ok(answer) };
        entries.sort_by(|a, b| (a.seq, &a.line, &a.word).cmp(&(b.seq, &b.line, &b.word)));
        let standings = destinations::standings(engine, parties.into_iter().collect::<BTreeSet<_>>())?;
        if is_denied || standings.iter().any(|standing| standing.assurance != Assurance::NotNeeded) {
            answer.overall = word(enforcement(&standings));
        }
        answer.destinations = standings.iter().map(StandingView::from).collect();
        (answer.known, answer.shared, answer.holders, answer.entries) = (true, shared, holders, entries);
        Ok(answer)
    });
    Ok(Json(found.await?))
}

/// The entries whose word counts on a line.
fn entries_of(
    read: &mut dyn Read,
    name: &str,
    line: &Line,
    words: &impl Fn(desist_core::purpose::PurposeSet) -> Vec<String>,
) -> Result<Vec<EntryView>, StoreError> {
    let mut found: BTreeMap<(u64, bool), EntryView> = BTreeMap::new();
    for held in line.marks() {
        let mark = held.mark;
        let Some((_, bytes)) = read.entries(mark.seq..mark.seq + 1)?.pop() else { continue };
        let said: Said = serde_json::from_slice(&bytes).map_err(|_| StoreError::Damaged(format!("entry {}", mark.seq)))?;
        let entry = found.entry((mark.seq, mark.deny)).or_insert_with(|| EntryView {
            seq: mark.seq,
            kind: said.kind,
            at: rfc3339(mark.at),
            channel: said.channel,
            request: said.request,
            line: name.to_owned(),
            word: if mark.deny { "deny" } else { "allow" }.to_owned(),
            purposes: Vec::new(),
        });
        entry.purposes.extend(words(held.purposes));
    }
    Ok(found.into_values().collect())
}
