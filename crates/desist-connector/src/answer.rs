//! Judges answers. What is not understood is never a success: it is asked again, or in smaller parts.

use serde_json::Value;

use crate::declared::Ceiling;
use crate::expression::{Expression, Pointer};
use crate::instance::{Call, Instance, Origin};
use crate::limits::{AFTER_SECONDS_MAX, ANSWER_BYTES_MAX, JOB_BYTES_MAX, LOOKUP_ROWS_MAX, REASON_BYTES_MAX};
use crate::manifest::{By, Dialect, Errors, Op};

/// An answer as it came. A body above [`ANSWER_BYTES_MAX`] is not read, so a caller can stop one byte behind it.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers; names in any case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({}, {} bytes, …)", self.status, self.body.len())
    }
}

/// How long a destination asked to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// So many seconds from now, a day at most.
    Seconds(u64),
    /// Until then, in seconds since 1970.
    At(i64),
}

/// What an answer means for the call as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Every unit has its own outcome.
    Done,
    /// Something failed and the answer does not say for whom, or it cannot be understood: send it again in smaller parts.
    Split,
    /// The same call may work later.
    RetryLater {
        /// When, if the answer says so.
        after: Option<After>,
    },
    /// It was too much at once.
    Throttled {
        /// When it is not, if the answer says so.
        after: Option<After>,
    },
    /// The credentials do not work.
    Auth,
    /// The call was too large: send it again in smaller parts.
    Shrink,
    /// It will not work as it is. With several units: send it again in smaller parts.
    Rejected {
        /// The destination's code.
        reason: String,
    },
    /// The destination says that it takes no more calls.
    Gone,
}

/// What an answer means for one item of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitOutcome {
    /// The destination took it.
    Accepted,
    /// The destination did it.
    Applied,
    /// The destination does not know the person: there is nothing to stop.
    Absent,
    /// It was told before; as good as accepted.
    Duplicate,
    /// It did not work for this item.
    Failed {
        /// The destination's code.
        reason: String,
        /// Whether the same item may work later.
        retry: bool,
    },
    /// Nothing is known; see [`Verdict::whole`].
    Unknown,
}

impl UnitOutcome {
    /// The most that this proves.
    pub const fn proves(&self) -> Option<Ceiling> {
        match self {
            // That nobody is there holds for today alone: the next upload can bring the person.
            Self::Accepted | Self::Duplicate | Self::Absent => Some(Ceiling::Accepted),
            Self::Applied => Some(Ceiling::Applied),
            Self::Failed { .. } | Self::Unknown => None,
        }
    }

    /// The worse of two: a person is told when all of their items are.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        let rank = |outcome: &Self| match outcome {
            Self::Unknown => 0,
            Self::Failed { retry: true, .. } => 1,
            Self::Failed { retry: false, .. } => 2,
            Self::Accepted => 3,
            Self::Duplicate => 4,
            Self::Applied => 5,
            // Whoever is there under another name is there.
            Self::Absent => 6,
        };
        if rank(&other) < rank(&self) { other } else { self }
    }
}

/// What an answer to an op's call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the call.
    pub whole: Whole,
    /// For each of the call's units, in their order.
    pub units: Vec<UnitOutcome>,
    /// The number to ask with later.
    pub job: Option<String>,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// All of it is done: every unit that was accepted is applied.
    Applied,
    /// It failed, or part of it did.
    Failed {
        /// The destination's code.
        reason: String,
    },
    /// It is not done yet.
    Pending,
    /// The question did not get through.
    Trouble(Whole),
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The keys of the person's records, all of which have to be told.
    Rows(Vec<Value>),
    /// The destination does not know the person.
    Absent,
    /// There are more records than the answer holds; telling some would leave others.
    TooMany,
    /// The question did not get through.
    Trouble(Whole),
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Opted out: the only way to [`Ceiling::Verified`].
    Clean,
    /// Not opted out.
    Dirty,
    /// The destination does not know the person.
    Absent,
    /// The question did not get through.
    Trouble(Whole),
}

/// Whether something exists that a setup step makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existence {
    /// It does.
    Exists,
    /// It does not: make it.
    Missing,
    /// The question did not get through.
    Trouble(Whole),
}

/// How an answer begins to be read.
enum First {
    /// The status is good.
    Good(Reading),
    /// The status says that nobody is there.
    Absent,
    /// It is not good.
    Bad(Whole),
}

/// A body, as far as it can be read.
struct Reading {
    json: Option<Value>,
    /// Whether it looks like a page for people, or like half of an answer.
    suspicious: bool,
    /// A code of a failure that is in no list.
    code: Option<String>,
}

impl Instance {
    /// Judges the answer to a call of [`Instance::calls`] or [`Instance::split`].
    pub fn judge(&self, call: &Call, answer: &Answer) -> Verdict {
        let Origin::Op(place) = call.origin else { return unknown(call, Whole::RetryLater { after: None }) };
        match self.manifest.ops.get(place) {
            Some(op) => judge(op, &self.manifest.declared.limits.honour_headers, call, answer),
            None => unknown(call, Whole::RetryLater { after: None }),
        }
    }

    /// Judges the answer to [`Instance::poll_call`].
    pub fn poll_result(&self, op: usize, answer: &Answer) -> Polled {
        let Some((op, poll)) = self.manifest.ops.get(op).and_then(|op| Some((op, op.poll.as_ref()?))) else {
            return Polled::Trouble(Whole::RetryLater { after: None });
        };
        match first(answer, &op.errors, &[], &[], self.honoured()) {
            First::Bad(whole) => Polled::Trouble(whole),
            First::Absent => Polled::Trouble(Whole::Rejected { reason: status_reason(answer.status) }),
            First::Good(Reading { json: Some(json), code, .. }) => {
                if poll.failed.as_ref().is_some_and(|failed| failed.holds_for_any(&json)) {
                    Polled::Failed { reason: reason(poll.reason.as_ref(), &json) }
                } else if let Some(code) = code.filter(|_| op.errors.code_at.as_ref() != Some(&poll.done.pointer)) {
                    Polled::Trouble(Whole::Rejected { reason: code })
                } else if poll.done.holds_for_all(&json) {
                    Polled::Applied
                } else if poll.done.finds(&json) {
                    Polled::Pending
                } else {
                    Polled::Trouble(Whole::RetryLater { after: None })
                }
            }
            First::Good(_) => Polled::Trouble(Whole::RetryLater { after: None }),
        }
    }

    /// Judges the answer to one of [`Instance::lookup_calls`].
    pub fn lookup_result(&self, answer: &Answer) -> Found {
        let retry = Found::Trouble(Whole::RetryLater { after: None });
        let Some(lookup) = &self.manifest.lookup else { return retry };
        let json = match first(answer, &lookup.errors, &[], &lookup.absent_status, self.honoured()) {
            First::Bad(whole) => return Found::Trouble(whole),
            First::Absent => return Found::Absent,
            First::Good(Reading { json: Some(json), code: None, .. }) => json,
            First::Good(Reading { code: Some(code), .. }) => return Found::Trouble(Whole::Rejected { reason: code }),
            First::Good(_) => return retry,
        };
        if lookup.more_when.as_ref().is_some_and(|more| more.holds_for_any(&json)) {
            return Found::TooMany;
        }
        let says_absent = lookup.absent_when.as_ref().map(|absent| absent.holds_for_all(&json));
        let mut rows = Vec::new();
        for row in lookup.rows.resolve(&json) {
            let Some(row) = row else { return if says_absent == Some(true) { Found::Absent } else { retry } };
            // Without all of its keys the person would be told in part.
            let mut keys = serde_json::Map::new();
            for (name, pointer) in &lookup.emit {
                match pointer.first(row) {
                    Some(key @ (Value::String(_) | Value::Number(_))) => drop(keys.insert(name.clone(), key.clone())),
                    _ => return retry,
                }
            }
            let row = keys.remove("").unwrap_or(Value::Object(keys));
            if !rows.contains(&row) {
                rows.push(row);
            }
            if rows.len() > LOOKUP_ROWS_MAX {
                return Found::TooMany;
            }
        }
        match (rows.is_empty(), says_absent) {
            (true, None | Some(true)) => Found::Absent,
            (false, None | Some(false)) => Found::Rows(rows),
            // It says both that somebody was found and that nobody was, or neither.
            _ => retry,
        }
    }

    /// Judges the answer to one of [`Instance::verify_calls`].
    pub fn verify_result(&self, answer: &Answer) -> Verified {
        let retry = Verified::Trouble(Whole::RetryLater { after: None });
        let Some(verify) = &self.manifest.verify else { return retry };
        match first(answer, &verify.errors, &[], &verify.absent_status, self.honoured()) {
            First::Bad(whole) => Verified::Trouble(whole),
            First::Absent => Verified::Absent,
            First::Good(Reading { code: Some(code), .. }) => Verified::Trouble(Whole::Rejected { reason: code }),
            First::Good(Reading { json: Some(json), .. }) => {
                if verify.clean_when.holds_for_all(&json) {
                    Verified::Clean
                } else if verify.absent_when.as_ref().is_some_and(|absent| absent.holds_for_all(&json)) {
                    Verified::Absent
                } else if verify.clean_when.finds(&json) {
                    Verified::Dirty
                } else {
                    retry
                }
            }
            First::Good(_) => retry,
        }
    }

    /// Judges the answer to [`Instance::probe_call`]: [`Whole::Done`] if the credentials work.
    pub fn probe_result(&self, answer: &Answer) -> Whole {
        let retry = Whole::RetryLater { after: None };
        let Some(probe) = &self.manifest.probe else { return retry };
        match first(answer, &probe.errors, &probe.ok_status, &[], self.honoured()) {
            First::Bad(whole) => whole,
            First::Good(Reading { code: Some(code), .. }) => Whole::Rejected { reason: code },
            First::Good(reading) => match (&probe.ok, reading.json) {
                (None, _) if !reading.suspicious => Whole::Done,
                (Some(ok), Some(json)) if ok.holds_for_all(&json) => Whole::Done,
                _ => retry,
            },
            First::Absent => retry,
        }
    }

    /// Judges the answer to a [`SetupStep`](crate::SetupStep)'s check.
    pub fn setup_result(&self, step: usize, answer: &Answer) -> Existence {
        let retry = Existence::Trouble(Whole::RetryLater { after: None });
        let Some(setup) = self.manifest.setup.get(step) else { return retry };
        match first(answer, &setup.errors, &[], &[404], self.honoured()) {
            First::Bad(whole) => Existence::Trouble(whole),
            First::Absent => Existence::Missing,
            First::Good(Reading { json: Some(json), .. }) => {
                if setup.exists_when.holds_for_any(&json) {
                    Existence::Exists
                } else {
                    Existence::Missing
                }
            }
            First::Good(_) => retry,
        }
    }

    fn honoured(&self) -> &[String] {
        &self.manifest.declared.limits.honour_headers
    }
}

/// The same whole, and nothing known of any unit.
fn unknown(call: &Call, whole: Whole) -> Verdict {
    // With one unit what is said of the call is said of it.
    let outcome = match (&whole, call.units.len()) {
        (Whole::Rejected { reason }, 1) => UnitOutcome::Failed { reason: reason.clone(), retry: false },
        _ => UnitOutcome::Unknown,
    };
    Verdict { whole, units: vec![outcome; call.units.len()], job: None }
}

/// An answer that contradicts itself or cannot be read.
fn ambiguous(call: &Call, reading: &Reading) -> Verdict {
    match &reading.code {
        Some(code) => unknown(call, Whole::Rejected { reason: code.clone() }),
        None => unknown(call, if call.units.len() > 1 { Whole::Split } else { Whole::RetryLater { after: None } }),
    }
}

fn judge(op: &Op, honoured: &[String], call: &Call, answer: &Answer) -> Verdict {
    let result = &op.result;
    let reading = match first(answer, &op.errors, &result.ok_status, &result.absent_status, honoured) {
        First::Good(reading) => reading,
        First::Bad(whole) => return unknown(call, whole),
        First::Absent => return Verdict { whole: Whole::Done, units: vec![UnitOutcome::Absent; call.units.len()], job: None },
    };
    let good = match (op.ceiling, &result.dialect) {
        (Ceiling::Accepted, _) | (_, Dialect::Job { .. } | Dialect::Blind) => UnitOutcome::Accepted,
        // 202 says that it will be done, unless the manifest counts it among the good ones.
        _ if answer.status == 202 && result.ok_status.is_empty() => UnitOutcome::Accepted,
        // What is verified was read back; an answer alone never is.
        (Ceiling::Applied | Ceiling::Verified, _) => UnitOutcome::Applied,
    };
    let all = |outcome: &UnitOutcome| Verdict { whole: Whole::Done, units: vec![outcome.clone(); call.units.len()], job: None };
    let holds =
        |expression: &Option<Expression>, json: &Value| expression.as_ref().is_some_and(|expression| expression.holds_for_any(json));
    // A code that is in no list is a failure, unless what is asked stands at that very place.
    let stands = |expression: &Expression| reading.code.is_none() || op.errors.code_at.as_ref() == Some(&expression.pointer);
    let says = |expression: &Option<Expression>, json: &Value| expression.as_ref().is_some_and(stands) && holds(expression, json);
    let fails = |row: &Value| {
        let reason = reason(result.reason.as_ref(), row);
        let retry = op.errors.retry.contains(&reason) || op.errors.throttle.contains(&reason);
        UnitOutcome::Failed { reason, retry }
    };
    let Some(json) = &reading.json else {
        return match result.dialect {
            Dialect::Status | Dialect::Blind if !reading.suspicious => all(&good),
            _ => ambiguous(call, &reading),
        };
    };
    match &result.dialect {
        // Nothing in these dialects can say that a code is a good one.
        Dialect::Status | Dialect::Blind | Dialect::Count { .. } | Dialect::Job { .. } if reading.code.is_some() => {
            ambiguous(call, &reading)
        }
        Dialect::Status | Dialect::Blind => all(&good),
        Dialect::BodyFlag { ok, failed } => {
            if says(&result.absent, json) {
                all(&UnitOutcome::Absent)
            } else if says(&result.duplicate, json) {
                all(&UnitOutcome::Duplicate)
            } else if holds(failed, json) {
                let reason = reason(result.reason.as_ref(), json);
                let retry = op.errors.retry.contains(&reason);
                unknown(call, if retry { Whole::RetryLater { after: None } } else { Whole::Rejected { reason } })
            } else if stands(ok) && ok.holds_for_all(json) {
                all(&good)
            } else {
                ambiguous(call, &reading)
            }
        }
        Dialect::Index { rows, ok } => {
            let walked = op.errors.code_at.as_ref().and_then(Pointer::split);
            if reading.code.is_some() && walked.is_none_or(|(list, inner)| list != *rows || inner != ok.pointer) {
                return ambiguous(call, &reading);
            }
            let Some(rows) = rows.first(json).and_then(Value::as_array).filter(|rows| rows.len() == call.units.len()) else {
                return ambiguous(call, &reading);
            };
            let judged = rows.iter().map(|row| {
                if holds(&result.absent, row) {
                    UnitOutcome::Absent
                } else if holds(&result.duplicate, row) {
                    UnitOutcome::Duplicate
                } else if ok.holds_for_all(row) {
                    good.clone()
                } else {
                    fails(row)
                }
            });
            Verdict { whole: Whole::Done, units: judged.collect(), job: None }
        }
        Dialect::ListByKey { ok, .. } if reading.code.is_some() && !ok.as_ref().is_some_and(stands) => ambiguous(call, &reading),
        Dialect::ListByKey { rows, key, by, ok } => {
            let rows = rows.first(json).and_then(Value::as_array);
            let says_ok = ok.as_ref().map(|ok| ok.holds_for_all(json));
            let rows = match (rows, says_ok) {
                // A list of failures that is left out when there are none is taken for one only if something else says so.
                (None, Some(true)) => return all(&good),
                (Some(rows), None | Some(true)) => rows,
                _ => return ambiguous(call, &reading),
            };
            let mut units = vec![good.clone(); call.units.len()];
            for row in rows {
                let mut is_known = false;
                for place in named(by, key.first(row), call) {
                    is_known = true;
                    let outcome = if holds(&result.absent, row) {
                        UnitOutcome::Absent
                    } else if holds(&result.duplicate, row) {
                        UnitOutcome::Duplicate
                    } else {
                        fails(row)
                    };
                    // A unit that is listed twice has the worse of the two, whatever it had before.
                    units[place] = if units[place] == good { outcome } else { units[place].clone().min(outcome) };
                }
                if !is_known {
                    return ambiguous(call, &reading);
                }
            }
            Verdict { whole: Whole::Done, units, job: None }
        }
        Dialect::Count { failed } => match failed.first(json).and_then(Value::as_u64) {
            Some(0) => all(&good),
            Some(1) if call.units.len() == 1 => Verdict { whole: Whole::Done, units: vec![fails(json)], job: None },
            _ => ambiguous(call, &reading),
        },
        Dialect::Job { key } => {
            let job = match key.first(json) {
                Some(Value::String(job)) => Some(job.clone()),
                Some(Value::Number(job)) if job.is_u64() => Some(job.to_string()),
                _ => None,
            };
            let Some(job) =
                job.filter(|job| (1..=JOB_BYTES_MAX).contains(&job.len()) && job.bytes().all(|byte| (b'!'..=b'~').contains(&byte)))
            else {
                return ambiguous(call, &reading);
            };
            let outcome = if holds(&result.duplicate, json) { UnitOutcome::Duplicate } else { good };
            Verdict { job: Some(job), ..all(&outcome) }
        }
    }
}

/// The places of the units that a failed row is about; none if it names nobody of this call.
fn named(by: &By, key: Option<&Value>, call: &Call) -> Vec<usize> {
    let Some(key) = key else { return Vec::new() };
    match by {
        By::Position(base) => {
            let place = match key {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let place = place.and_then(|place| place.checked_sub(u64::from(*base))).and_then(|place| usize::try_from(place).ok());
            place.filter(|place| *place < call.units.len()).into_iter().collect()
        }
        By::Item(pointer) => {
            let is_same = |item: &Value| pointer.first(item).is_some_and(|value| same(value, key));
            call.items.iter().enumerate().filter(|(_, (_, item))| is_same(item)).map(|(place, _)| place).collect()
        }
    }
}

/// Whether a value that was sent is the one that came back. Destinations bring addresses into lower case.
fn same(sent: &Value, back: &Value) -> bool {
    match (sent, back) {
        (Value::String(sent), Value::String(back)) => sent.to_lowercase() == back.to_lowercase(),
        _ => sent == back,
    }
}

/// What all answers have in common: codes in the body first, then the status.
fn first(answer: &Answer, errors: &Errors, ok_status: &[u16], absent_status: &[u16], honoured: &[String]) -> First {
    let json = json(answer);
    let after = after(answer, honoured);
    let mut unlisted = None;
    let codes = errors.code_at.iter().zip(&json).flat_map(|(pointer, json)| pointer.resolve(json));
    for code in codes.flatten().filter_map(code_text) {
        if errors.auth.contains(&code) {
            return First::Bad(Whole::Auth);
        }
        if errors.throttle.contains(&code) {
            return First::Bad(Whole::Throttled { after });
        }
        if errors.retry.contains(&code) {
            return First::Bad(Whole::RetryLater { after });
        }
        unlisted = Some(printable(&code));
    }
    let status = answer.status;
    let start = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_page = start == Some(&b'<') || media(answer).contains("html");
    if absent_status.contains(&status) {
        // A gateway in between has pages of its own for what it does not find; only the API knows that somebody is not there.
        let is_said = !is_page && (json.is_some() || start.is_none());
        return if is_said { First::Absent } else { First::Bad(Whole::RetryLater { after }) };
    }
    // 207 says that each item has a status of its own.
    let is_ok = if ok_status.is_empty() { (200..300).contains(&status) && status != 207 } else { ok_status.contains(&status) };
    if is_ok {
        let is_half = json.is_none() && (is_json(answer) && start.is_some() || answer.body.len() > ANSWER_BYTES_MAX);
        return First::Good(Reading { json, suspicious: is_page || is_half, code: unlisted });
    }
    First::Bad(match status {
        413 => Whole::Shrink,
        _ if errors.shrink_status.contains(&status) => Whole::Shrink,
        429 => Whole::Throttled { after },
        _ if errors.retry_status.contains(&status) => Whole::RetryLater { after },
        401 | 403 => Whole::Auth,
        410 => Whole::Gone,
        // 2xx that is not the one of a good answer, and what is no status at all, say nothing.
        408 | 425 | 500..=599 | 0..=299 | 600.. => Whole::RetryLater { after },
        300..=499 => Whole::Rejected { reason: unlisted.unwrap_or_else(|| status_reason(status)) },
    })
}

fn status_reason(status: u16) -> String {
    format!("status.{status}")
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn media(answer: &Answer) -> String {
    let media = header(answer, "content-type").unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(answer: &Answer) -> bool {
    let media = media(answer);
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

/// The body, if it says that it is JSON and is.
fn json(answer: &Answer) -> Option<Value> {
    if !is_json(answer) || answer.body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&answer.body).ok()
}

fn after(answer: &Answer, honoured: &[String]) -> Option<After> {
    /// Numbers above this are times, not waits: 2001, and 31 years.
    const TIMES_FROM: u64 = 1_000_000_000;
    let mut names = std::iter::once("retry-after").chain(honoured.iter().map(String::as_str));
    let value = names.find_map(|name| header(answer, name))?;
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(match i64::try_from(seconds) {
            Ok(at) if seconds >= TIMES_FROM => After::At(at),
            _ => After::Seconds(seconds.min(AFTER_SECONDS_MAX)),
        });
    }
    // A date of HTTP: Sun, 06 Nov 1994 08:49:37 GMT.
    jiff::fmt::rfc2822::parse(value).ok().map(|date| After::At(date.timestamp().as_second()))
}

fn code_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn reason(pointer: Option<&Pointer>, root: &Value) -> String {
    let code = pointer.and_then(|pointer| pointer.first(root)).and_then(code_text);
    code.map_or_else(|| "unspecified".to_owned(), |code| printable(&code))
}

/// A reason that can be kept and shown. Destinations repeat what they were sent, so only what looks like a code is kept: no
/// address, no telephone number, no digest, no sentence.
fn printable(code: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let digits = code.bytes().filter(u8::is_ascii_digit).count();
    let longest = code.split(['_', '.', '-']).map(str::len).max().unwrap_or_default();
    let is_code = (1..=REASON_BYTES_MAX).contains(&code.len()) && code.bytes().all(is_token) && digits <= 6 && longest <= 32;
    if is_code { code.to_owned() } else { "unprintable".to_owned() }
}
