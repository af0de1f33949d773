//! Requests: opt-outs, limits, opt-ins in two steps, links, signals, files.

use desist_core::calendar::{CCPA_BUSINESS_DAYS, deadlines};
use desist_core::decision::Context;
use desist_core::fact::{Actor, Channel, Digest, Fact, RequestId, RequestKind};
use desist_core::limits::{CONFIRM_SECONDS_MAX, NAMED_MAX};
use desist_core::lookup::LookupKey;
use desist_core::mark::{Class, Line, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_core::rules::{Named, OptInAsk, OptInTarget, OptOut, Recorded, Refused};
use desist_store::{ImportRow, Owner, Remembered, RequestRow, Status, StoreError};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::clear::{self, Given};
use crate::engine::{Ctx, Engine, Refusal, is_recorded_for_signals};
use crate::env::random;
use crate::queue::Lane;
use crate::secrets::hash;
use crate::vault;

/// What a command gives its caller, or the store's failure for the whole batch.
pub type Outcome<T> = Result<Result<T, Refusal>, StoreError>;

/// A request as a channel hands it in.
#[derive(Clone)]
pub struct NewRequest {
    /// What is asked.
    pub kind: RequestKind,
    /// For what.
    pub purposes: PurposeSet,
    /// About whom.
    pub named: Vec<Named>,
    /// Where it came in.
    pub channel: Channel,
    /// When the consumer acted, if the caller knows, in Unix seconds.
    pub acted_at: Option<i64>,
    /// Who entered it.
    pub by: Actor,
    /// What the caller gave, as JSON, for the vault. Empty: nothing is kept. Destinations may have to be told of identifiers by what
    /// stands here, see [`clear::known`]: the member `identifiers`, a list of objects with `kind` and `value` or `sha256`.
    pub evidence: Vec<u8>,
    /// What the identifiers are.
    pub given: Vec<Given>,
}

impl std::fmt::Debug for NewRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewRequest").field("kind", &self.kind).field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// What became of a request. No personal data: the same answer can be remembered and given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The request.
    pub id: RequestId,
    /// Whether it waits for its second step.
    pub awaiting: bool,
    /// The entry that recorded it.
    pub seq: u64,
    /// Last day under the strict calendar.
    pub deadline: String,
    /// Last day under the conventional calendar.
    pub deadline_conventional: String,
}

/// Under what a repeated request is known again.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency {
    /// Keyed digest of key, route and caller.
    pub scope: [u8; 32],
    /// Keyed digest of the body.
    pub body: [u8; 32],
}

/// Runs `work` once per idempotency key: the same body again gets the same answer, another body is
/// refused. Commands run one after another, so a concurrent duplicate has waited by the time it runs.
pub fn once<T, W>(ctx: &mut Ctx<'_>, idempotency: Option<&Idempotency>, work: W) -> Outcome<T>
where
    T: Serialize + for<'de> Deserialize<'de>,
    W: FnOnce(&mut Ctx<'_>) -> Outcome<T>,
{
    let Some(Idempotency { scope, body }) = idempotency else { return work(ctx) };
    let now = ctx.now_ms.div_euclid(1000);
    if let Some(remembered) = ctx.write.remembered(scope, now - desist_store::REMEMBER_SECONDS)? {
        if remembered.request_digest != *body {
            return Ok(Err(Refusal::OtherBody));
        }
        let answer =
            serde_json::from_str(&remembered.answer).map_err(|error| StoreError::Damaged(format!("a remembered answer: {error}")))?;
        return Ok(Ok(answer));
    }
    let outcome = work(ctx)?;
    if let Ok(answer) = &outcome {
        let answer = serde_json::to_string(answer).map_err(|error| StoreError::Database(error.to_string()))?;
        ctx.write.remember(scope, &Remembered { request_digest: *body, answer }, now)?;
    }
    Ok(outcome)
}

/// Records an opt-out or a limit, or takes the first step of an opt-in.
pub fn request(ctx: &mut Ctx<'_>, new: &NewRequest) -> Outcome<Accepted> {
    record(ctx, new, None)
}

/// The same for an act on a subject that the caller knows already (a Campaign profile).
pub fn record(ctx: &mut Ctx<'_>, new: &NewRequest, subject: Option<SubjectNo>) -> Outcome<Accepted> {
    let env = ctx.shared.env.as_ref();
    let id = RequestId(random(env));
    let (salted, evidence) = if new.evidence.is_empty() {
        (None, None)
    } else {
        let (salted, digest) = vault::commit(&new.evidence, env);
        (Some(salted), Some(digest))
    };
    let (recorded, identifiers, confirm_hash) = if new.kind == RequestKind::OptIn {
        let target = match ctx.batch.ask_opt_in(
            ctx.write,
            &OptInAsk { request: id, named: &new.named, purposes: new.purposes, channel: new.channel, by: new.by, evidence },
        )? {
            Ok(target) => target,
            Err(refused) => return Ok(Err(refused.into())),
        };
        let recorded = Recorded { seq: ctx.batch.counters.entries, subject: target.subject, unreached: Vec::new() };
        (recorded, target.named, Some(hash(&ctx.shared.secrets.confirm_token(id))))
    } else {
        let OptOutParts { purposes, channel, acted_at, by } = OptOutParts::from(new);
        let act = OptOut { request: id, kind: new.kind, subject, named: new.named.clone(), purposes, channel, acted_at, by, evidence };
        match ctx.batch.opt_out(ctx.write, act)? {
            Ok(recorded) => {
                let mut identifiers = Vec::with_capacity(new.named.len());
                for one in &new.named {
                    if let Some(no) = ctx.batch.find(ctx.write, &one.key)? {
                        identifiers.push(desist_core::fact::IdRef(no, one.kind));
                    }
                }
                (recorded, identifiers, None)
            }
            Err(refused) => return Ok(Err(refused.into())),
        }
    };
    if let Some(salted) = salted {
        let owner = Owner::Request(id);
        ctx.write.vault_put(owner, &ctx.shared.vault.seal(owner, &salted, env))?;
    }
    let acted_at = new.acted_at.unwrap_or(ctx.now_ms.div_euclid(1000));
    let due = deadlines(acted_at, &ctx.shared.policy.load().time_zone, CCPA_BUSINESS_DAYS);
    let row = RequestRow {
        id,
        receipt_hash: hash(&ctx.shared.secrets.receipt_code(id)),
        kind: new.kind,
        status: if confirm_hash.is_some() { Status::AwaitingConfirmation } else { Status::Received },
        channel: new.channel,
        purposes: new.purposes,
        seq: recorded.seq,
        acted_at,
        recorded_at: ctx.batch.now,
        deadline: due.strict.to_string(),
        deadline_conventional: due.conventional.to_string(),
        subject: recorded.subject,
        identifiers,
        confirm_hash,
        unreached: recorded.unreached,
    };
    ctx.write.put_request(&row)?;
    clear::keep(ctx, &new.given)?;
    Ok(Ok(Accepted {
        id,
        awaiting: row.status == Status::AwaitingConfirmation,
        seq: row.seq,
        deadline: row.deadline,
        deadline_conventional: row.deadline_conventional,
    }))
}

struct OptOutParts {
    purposes: PurposeSet,
    channel: Channel,
    acted_at: Option<i64>,
    by: Actor,
}

impl From<&NewRequest> for OptOutParts {
    fn from(new: &NewRequest) -> Self {
        Self { purposes: new.purposes, channel: new.channel, acted_at: new.acted_at, by: new.by }
    }
}

/// The second step of an opt-in, at most 30 minutes after the first.
pub fn confirm(ctx: &mut Ctx<'_>, id: RequestId, confirm_token: &str, by: Actor) -> Outcome<Accepted> {
    let Some(mut row) = ctx.write.request(id)? else { return Ok(Err(Refusal::NotFound)) };
    let Some(expected) = row.confirm_hash else { return Ok(Err(Refusal::NotWaiting)) };
    if !bool::from(hash(confirm_token).ct_eq(&expected)) {
        return Ok(Err(Refusal::WrongToken));
    }
    // By the time of the log, which a clock that is set back does not turn back.
    if ctx.batch.now - row.recorded_at > CONFIRM_SECONDS_MAX {
        return Ok(Err(Refusal::Expired));
    }
    let target = OptInTarget { subject: row.subject, named: row.identifiers.clone() };
    row.seq = ctx.batch.confirm_opt_in(ctx.write, id, &target, row.purposes, row.channel, by)?;
    row.status = Status::Confirmed;
    row.confirm_hash = None;
    ctx.write.put_request(&row)?;
    Ok(Ok(Accepted { id, awaiting: false, seq: row.seq, deadline: row.deadline, deadline_conventional: row.deadline_conventional }))
}

/// The entry after which a link or its end is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// That entry.
    pub seq: u64,
    /// Whether anything changed.
    pub changed: bool,
}

/// States that identifiers are one person's.
pub fn link(ctx: &mut Ctx<'_>, named: &[Named], given: &[Given], by: Actor) -> Outcome<Linked> {
    let outcome = ctx.batch.link(ctx.write, named, by)?;
    if outcome.is_ok() {
        clear::keep(ctx, given)?;
    }
    Ok(linked(ctx, outcome))
}

/// States that they are not any more.
pub fn unlink(ctx: &mut Ctx<'_>, named: &[Named], by: Actor) -> Outcome<Linked> {
    let first = ctx.batch.entries.len();
    let outcome = ctx.batch.unlink(ctx.write, named, by)?;
    clear::forget(ctx, first)?;
    Ok(linked(ctx, outcome))
}

fn linked(ctx: &Ctx<'_>, outcome: Result<Option<u64>, desist_core::rules::Refused>) -> Result<Linked, Refusal> {
    let seq = outcome?;
    Ok(Linked { seq: seq.unwrap_or(ctx.batch.counters.entries), changed: seq.is_some() })
}

/// One row of a file: whom it names, or why it is no row.
pub type ImportLine = Result<Vec<Named>, String>;

/// A piece of a file of suppressed people.
#[derive(Clone)]
pub struct ImportChunk {
    /// Digest of the file and of how it is read; the same file again is the same import.
    pub import: [u8; 32],
    /// Rows of the file before this piece.
    pub first_row: u64,
    /// How many rows this piece has, refused ones included.
    pub rows: u64,
    /// The rows that can be read.
    pub people: Vec<Vec<Named>>,
    /// What the identifiers of these rows are.
    pub given: Vec<Given>,
    /// What to deny.
    pub purposes: PurposeSet,
    /// When the people opted out, if the file is known to be of one day, in Unix seconds.
    pub acted_at: Option<i64>,
    /// Whether the file ends here.
    pub last: bool,
    /// Who runs it.
    pub by: Actor,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Rows done.
    pub rows: u64,
    /// Of these, people who are suppressed now.
    pub accepted: u64,
    /// Of these, rows that were refused.
    pub refused: u64,
    /// Whether the end was reached.
    pub finished: bool,
}

impl From<ImportRow> for ImportProgress {
    fn from(row: ImportRow) -> Self {
        Self { rows: row.rows, accepted: row.accepted, refused: row.refused, finished: row.finished }
    }
}

/// Takes one piece of a file. A piece that was taken before changes nothing, one that skips rows is
/// answered with the place to go on from.
pub fn import(ctx: &mut Ctx<'_>, chunk: &ImportChunk) -> Outcome<ImportProgress> {
    take(ctx, chunk, false)
}

/// The same for a file whose choices `of` took: of it destinations have to be told of more kinds now. Choices that were taken are not taken
/// again, since the consumer may have said something else meanwhile.
pub fn import_again(ctx: &mut Ctx<'_>, chunk: &ImportChunk, of: &[u8; 32]) -> Outcome<ImportProgress> {
    let is_taken = ctx.write.import(of)?.is_some_and(|row| row.finished);
    let progress = take(ctx, chunk, is_taken)?;
    if let (Ok(done), false) = (&progress, is_taken)
        && done.finished
    {
        let ImportProgress { rows, accepted, refused, finished } = *done;
        ctx.write.put_import(of, &ImportRow { rows, accepted, refused, finished })?;
    }
    Ok(progress)
}

fn take(ctx: &mut Ctx<'_>, chunk: &ImportChunk, is_taken: bool) -> Outcome<ImportProgress> {
    let mut row = ctx.write.import(&chunk.import)?.unwrap_or_default();
    if row.finished || row.rows != chunk.first_row {
        return Ok(Ok(row.into()));
    }
    // Before anything is written: a refusal leaves nothing behind.
    if chunk.people.iter().any(|named| named.len() > NAMED_MAX) {
        return Ok(Err(Refused::TooManyNamed.into()));
    }
    let request = RequestId(chunk.import[..16].try_into().expect("16 of 32 bytes"));
    for named in &chunk.people {
        let mut known = true;
        for one in named.iter().filter(|_| !is_taken) {
            known &= match ctx.batch.find(ctx.write, &one.key)? {
                // What an API client can end is not enough: the file's word stays when that one goes.
                Some(no) => ctx
                    .batch
                    .graph()
                    .identifier(ctx.write, no)?
                    .is_some_and(|row| row.line.without_api_but(Class::Business).denied().contains(chunk.purposes)),
                None => false,
            };
        }
        if !is_taken && (!known || named.len() > 1) {
            let act = OptOut {
                request,
                kind: RequestKind::OptOut,
                subject: None,
                named: named.clone(),
                purposes: chunk.purposes,
                channel: Channel::Import,
                acted_at: chunk.acted_at,
                by: chunk.by,
                evidence: None,
            };
            if let Err(refused) = ctx.batch.opt_out(ctx.write, act)? {
                return Ok(Err(refused.into()));
            }
        }
        row.accepted += 1;
    }
    clear::keep(ctx, &chunk.given)?;
    row.rows += chunk.rows;
    row.refused += chunk.rows - chunk.people.len() as u64;
    if chunk.last {
        row.finished = true;
        let ImportRow { rows, accepted, refused, .. } = row;
        ctx.batch.emit(ctx.write, Fact::ImportFinished { import: Digest(chunk.import), rows, accepted, refused, by: chunk.by })?;
    }
    ctx.write.put_import(&chunk.import, &row)?;
    Ok(Ok(row.into()))
}

impl Engine {
    /// A signal came with a decision. Where an account or a device is named it is recorded, once,
    /// behind the answer; a full queue only means that the signal is honoured again next time.
    pub fn note_signal(&self, named: &[Named], given: &[Given], context: Context, by: Actor) {
        if !context.gpc {
            return;
        }
        let named: Vec<Named> = named.iter().filter(|one| is_recorded_for_signals(one.kind)).copied().collect();
        // Who is denied already is looked at once: it may be the word of an API client alone, which that
        // client could end, and the consumer's own must stand then.
        let denied = |one: &Named| self.verdict(one).denied.contains(PurposeSet::GPC);
        let given: Vec<Given> = given.iter().filter(|one| is_recorded_for_signals(one.kind())).cloned().collect();
        // What an identifier is may be new although its signal is not.
        let mut looked: Vec<_> = named.iter().map(|one| (one.key, false)).collect();
        looked.extend(given.iter().filter_map(|one| one.key_of_text(&self.shared().lookup)).map(|key| (key, true)));
        if named.iter().all(denied) && looked.iter().all(|one| self.shared().signals_seen.contains(one)) {
            return;
        }
        let taken = self.submit_and_forget(Lane::Bulk, move |ctx| {
            let mut known = true;
            for one in &named {
                known &= said_by_other_than_api(ctx, one)?;
            }
            if !known {
                let new = NewRequest {
                    kind: RequestKind::OptOut,
                    purposes: PurposeSet::GPC,
                    named: named.clone(),
                    channel: Channel::Gpc,
                    acted_at: None,
                    by,
                    evidence: Vec::new(),
                    given: given.clone(),
                };
                return Ok(request(ctx, &new)?.map(|_| ()));
            }
            clear::keep(ctx, &given).map(Ok)
        });
        if taken {
            self.shared().signals_seen.insert(&looked);
        }
    }
}

/// Whether the identifier's own line, or that of the account it names, denies what a signal denies
/// even without what an API client said.
fn said_by_other_than_api(ctx: &mut Ctx<'_>, one: &Named) -> Result<bool, StoreError> {
    let Some(no) = ctx.batch.find(ctx.write, &one.key)? else { return Ok(false) };
    let graph = ctx.batch.graph();
    let own = |line: &Line| line.without_api_but(Class::Consumer).denied();
    let mut denied = graph.identifier(ctx.write, no)?.map_or(PurposeSet::EMPTY, |row| own(&row.line));
    if one.kind.names_subject() {
        for holder in graph.holders(ctx.write, no)? {
            denied = denied.union(own(&graph.subject(ctx.write, holder)?.line));
        }
    }
    Ok(denied.contains(PurposeSet::GPC))
}

/// Most identifiers whose signal was looked at and that are remembered; then all are forgotten, which
/// only costs another look.
const SIGNALS_SEEN_MAX: usize = 65_536;

/// The identifiers whose signal was handed to the writer in this run, and those that were given in clear with it.
#[derive(Default)]
pub struct SignalsSeen(std::sync::Mutex<std::collections::HashSet<(LookupKey, bool)>>);

impl SignalsSeen {
    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<(LookupKey, bool)>> {
        // A set is whole at every point where a panic could happen.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn contains(&self, one: &(LookupKey, bool)) -> bool {
        self.lock().contains(one)
    }

    fn insert(&self, looked: &[(LookupKey, bool)]) {
        let mut seen = self.lock();
        if seen.len() + looked.len() > SIGNALS_SEEN_MAX {
            seen.clear();
        }
        seen.extend(looked);
    }
}
