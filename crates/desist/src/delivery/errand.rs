//! What an errand does: who is told what, in which order, and what that proves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use desist_connector::declared::{On, Unit};
use desist_connector::{Call, Existence, Found, Person, Polled, UnitOutcome, Verdict, Verified, Whole, Why};
use desist_core::lane::{Failure, Level, Outcome, Report, Target};
use desist_engine::delivery::transport::{Ended, Errand, Message};
use serde_json::Value;

use super::auth::About;
use super::http::is_unreachable;
use super::jobs::Jobs;
use super::lookups::Lookups;
use super::people::{self, Choice};
use super::wire::{Down, Run, Said};

/// Why a call of several people cannot be judged for each: the lane sends it again in parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Rejected(String),
    SomeFailed,
    TooLarge,
}

/// What is known of one person of an errand.
struct Fate {
    /// The worst of all items, calls and ops.
    outcome: Option<UnitOutcome>,
    /// An op about the person has nothing that it could send.
    unreachable: bool,
    /// The destination refused the person's only call as a whole.
    rejected: Option<String>,
    /// The most that the ops about the person prove.
    ceiling: Level,
    /// Nothing but opt-outs is told: what can be read back.
    is_only_out: bool,
    /// Calls that began a job, and others.
    jobs: usize,
    others: usize,
    /// It was read back.
    verified: Option<Verified>,
}

impl Fate {
    const fn new() -> Self {
        Self {
            outcome: None,
            unreachable: false,
            rejected: None,
            ceiling: Level::Verified,
            is_only_out: true,
            jobs: 0,
            others: 0,
            verified: None,
        }
    }

    fn add(&mut self, outcome: UnitOutcome) {
        self.outcome = Some(match self.outcome.take() {
            Some(known) => known.min(outcome),
            None => outcome,
        });
    }
}

/// The rows of one person, and whether they were found some time ago.
enum Rows {
    Found { rows: Vec<Value>, are_old: bool },
    Outcome(UnitOutcome),
    Unreachable,
}

/// What is known of a Send so far.
#[derive(Default)]
struct Told {
    fates: BTreeMap<u64, Fate>,
    open: Option<Open>,
    /// Whom the calls were about that are to be made again in smaller ones.
    open_tokens: BTreeSet<u64>,
    jobs: Vec<(usize, String)>,
}

fn rejected(reason: &str) -> UnitOutcome {
    UnitOutcome::Failed { reason: reason.to_owned(), retry: false }
}

impl Run {
    /// Does it.
    pub async fn errand(&self, errand: &Errand) -> Result<Ended, Down> {
        match errand {
            Errand::Send(messages) => {
                self.prepared().await?;
                self.send(messages).await
            }
            Errand::Check(messages) => self.check(messages).await,
            Errand::Poll(handle) => self.poll(handle).await,
            Errand::Probe => {
                // One that cannot be told anything does not work, whatever the cheapest call says.
                self.prepared().await?;
                self.probe().await
            }
        }
    }

    async fn prepared(&self) -> Result<(), Down> {
        self.inner.prepared.get_or_try_init(|| self.prepare()).await.copied()
    }

    fn code(&self, reason: &str) -> u16 {
        self.inner.reasons.code(reason)
    }

    fn choices<'c>(&'c self, message: &'c Message) -> impl Iterator<Item = &'c Choice> {
        self.inner.choices.iter().filter(|choice| !choice.of(message).is_empty())
    }

    /// The settings cannot be written: an operator has to change them.
    fn not_rendered(&self, error: desist_connector::RenderError) -> Down {
        tracing::error!(destination = self.inner.options.destination, %error, "a call could not be written");
        Down::new(Failure::Credentials)
    }

    /// Makes what must exist before the first call, and is not there.
    async fn prepare(&self) -> Result<(), Down> {
        let instance = &self.inner.options.instance;
        // Where calls are only checked nothing is made.
        if self.inner.options.cap < Level::Accepted {
            return Ok(());
        }
        for (place, step) in instance.setup_calls().map_err(|error| self.not_rendered(error))?.into_iter().enumerate() {
            let look = || self.ask(&step.check, About::nobody(), |answer| instance.setup_result(place, answer));
            let mut found = look().await?;
            let mut status = None;
            if found == Existence::Missing {
                // Whatever is answered, only what is there then counts.
                let Made { status: said, .. } = self.ask(&step.create, About::nobody(), |answer| Made::of(answer.status)).await?;
                tracing::info!(
                    destination = self.inner.options.destination,
                    name = step.name,
                    status = said,
                    "it was not there, and was asked for"
                );
                status = Some(said);
                found = look().await?;
            }
            if found != Existence::Exists {
                let answer = status.map_or_else(String::new, |status| format!(", and could not be made: the answer had status {status}"));
                let is_not = if found == Existence::Missing { "is not there" } else { "could not be looked for" };
                self.inner.note(Some(format!("{} {is_not}{answer}", step.name)));
                return Err(Down::new(Failure::Credentials));
            }
        }
        Ok(())
    }

    // Look-ups.

    async fn look_up(&self, message: Arc<Message>, may_be_old: bool) -> Result<(u64, Rows), Down> {
        let (instance, token) = (&self.inner.options.instance, message.target.0);
        let (calls, _) = instance.lookup_calls(&people::plain(&message)).map_err(|error| self.not_rendered(error))?;
        if calls.is_empty() {
            return Ok((token, Rows::Unreachable));
        }
        let (mut rows, mut are_old): (Vec<Value>, bool) = (Vec::new(), false);
        for call in calls {
            let question = Lookups::question(&call);
            let found = if let Some(rows) = self.inner.lookups.get(&question).filter(|_| may_be_old) {
                are_old = true;
                Found::Rows(rows)
            } else {
                let found = self.ask(&call, About::nobody(), |answer| instance.lookup_result(answer)).await?;
                self.inner.lookups.put(question, &found);
                found
            };
            match found {
                Found::Rows(found) => found.into_iter().for_each(|row| {
                    if !rows.contains(&row) {
                        rows.push(row);
                    }
                }),
                Found::Absent => {}
                Found::TooMany => return Ok((token, Rows::Outcome(rejected("too_many_records")))),
                Found::Trouble(Whole::Rejected { reason }) => return Ok((token, Rows::Outcome(rejected(&reason)))),
                Found::Trouble(_) => return Ok((token, Rows::Outcome(rejected("look_up")))),
            }
        }
        let rows = if rows.is_empty() { Rows::Outcome(UnitOutcome::Absent) } else { Rows::Found { rows, are_old } };
        Ok((token, rows))
    }

    async fn look_all_up(&self, messages: Vec<Arc<Message>>, may_be_old: bool) -> Result<BTreeMap<u64, Rows>, Down> {
        let found = self.each(messages, move |run, message| async move { run.look_up(message, may_be_old).await }).await?;
        Ok(found.into_iter().collect())
    }

    // Sending.

    async fn send(&self, messages: &[Arc<Message>]) -> Result<Ended, Down> {
        let needs_rows = |message: &Message| self.choices(message).any(|choice| choice.unit == Unit::Row);
        let wanted: Vec<_> = messages.iter().filter(|message| needs_rows(message)).cloned().collect();
        let mut rows = self.look_all_up(wanted, true).await?;
        let mut told = Told::default();
        self.tell(messages, &rows, &mut told).await?;
        // Rows that were found some time ago and are gone now: the person may have others.
        let is_absent = |told: &Told, message: &Message| {
            let outcome = told.fates.get(&message.target.0).and_then(|fate| fate.outcome.as_ref());
            matches!(rows.get(&message.target.0), Some(Rows::Found { are_old: true, .. })) && outcome == Some(&UnitOutcome::Absent)
        };
        let again: Vec<_> = messages.iter().filter(|message| is_absent(&told, message)).cloned().collect();
        if !again.is_empty() {
            for message in &again {
                told.fates.remove(&message.target.0);
            }
            rows.extend(self.look_all_up(again.clone(), false).await?);
            self.tell(&again, &rows, &mut told).await?;
        }
        if told.open.is_none() {
            self.read_back(messages, &rows, &mut told).await;
        }
        Ok(self.told(messages, told))
    }

    async fn tell(&self, messages: &[Arc<Message>], rows: &BTreeMap<u64, Rows>, told: &mut Told) -> Result<(), Down> {
        let (instance, purposes) = (&self.inner.options.instance, &self.inner.options.purposes);
        let versions: Arc<BTreeMap<u64, u64>> = Arc::new(messages.iter().map(|message| (message.target.0, message.version)).collect());
        for choice in &self.inner.choices {
            let mut people: Vec<Person> = Vec::new();
            for message in messages.iter().filter(|message| !choice.of(message).is_empty()) {
                let fate = told.fates.entry(message.target.0).or_insert_with(Fate::new);
                fate.is_only_out &= choice.on == On::OptOut;
                let lookup = match rows.get(&message.target.0).filter(|_| choice.unit == Unit::Row) {
                    None => Vec::new(),
                    Some(Rows::Found { rows, .. }) => rows.clone(),
                    Some(Rows::Outcome(outcome)) => {
                        fate.add(outcome.clone());
                        continue;
                    }
                    Some(Rows::Unreachable) => {
                        fate.unreachable = true;
                        continue;
                    }
                };
                people.push(choice.person(message, purposes, lookup));
            }
            if people.is_empty() {
                continue;
            }
            let (calls, left) = instance.calls(choice.op, &people).map_err(|error| self.not_rendered(error))?;
            for left in left.iter().filter(|left| left.identifier.is_none()) {
                let Some(fate) = told.fates.get_mut(&left.token) else { continue };
                fate.unreachable |= is_unreachable(left.why);
                if left.why == Why::TooLarge {
                    fate.add(rejected("too_large"));
                }
            }
            for unit in calls.iter().flat_map(|call| &call.units) {
                let Some(fate) = told.fates.get_mut(&unit.token) else { continue };
                fate.ceiling = fate.ceiling.min(choice.ceiling);
            }
            self.carry_out(choice, calls, &versions, told).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, choice: &Choice, calls: Vec<Call>, versions: &Arc<BTreeMap<u64, u64>>, told: &mut Told) -> Result<(), Down> {
        let alone = calls.iter().all(|call| call.units.len() == 1);
        let mut waiting: VecDeque<Call> = calls.into();
        while !waiting.is_empty() {
            // Calls about one item each are many, and independent.
            let now: Vec<Call> = if alone { waiting.drain(..).collect() } else { waiting.drain(..1).collect() };
            let asked = self.each(now, |run, call| {
                let versions = Arc::clone(versions);
                async move {
                    let about = About { call: Some(&call), versions: &versions };
                    let verdict = run.ask(&call, about, |answer| run.inner.options.instance.judge(&call, answer)).await?;
                    Ok((call, verdict))
                }
            });
            for (call, verdict) in asked.await? {
                if let Some(halves) = self.judged(choice, &call, verdict, told) {
                    halves.into_iter().rev().for_each(|half| waiting.push_front(half));
                }
            }
        }
        Ok(())
    }

    /// Books what an answer says. What has to be smaller and is about one person alone comes back as two calls: the lane can only part
    /// people.
    fn judged(&self, choice: &Choice, call: &Call, verdict: Verdict, told: &mut Told) -> Option<[Call; 2]> {
        let tokens: BTreeSet<u64> = call.units.iter().map(|unit| unit.token).collect();
        let open = match &verdict.whole {
            Whole::Split => Open::SomeFailed,
            Whole::Shrink => Open::TooLarge,
            Whole::Rejected { reason } => Open::Rejected(reason.clone()),
            _ => {
                let has_job = verdict.job.is_some() && choice.is_polled;
                for (unit, outcome) in call.units.iter().zip(verdict.units) {
                    let Some(fate) = told.fates.get_mut(&unit.token) else { continue };
                    fate.add(outcome);
                    fate.jobs += usize::from(has_job);
                    fate.others += usize::from(!has_job);
                }
                if let Some(job) = verdict.job.filter(|_| choice.is_polled) {
                    told.jobs.push((choice.op, job));
                }
                return None;
            }
        };
        if tokens.len() > 1 {
            told.open = told.open.take().max(Some(open));
            told.open_tokens.extend(tokens);
            return None;
        }
        let halves = if call.units.len() > 1 { self.inner.options.instance.split(call) } else { None };
        if halves.is_none() {
            for token in tokens {
                let Some(fate) = told.fates.get_mut(&token) else { continue };
                match &open {
                    Open::Rejected(reason) => {
                        fate.add(rejected(reason));
                        fate.rejected = Some(reason.clone());
                    }
                    Open::SomeFailed => fate.add(UnitOutcome::Failed { reason: "not_understood".to_owned(), retry: true }),
                    Open::TooLarge => fate.add(rejected("too_large")),
                }
            }
        }
        halves
    }

    // Reading back.

    /// What all answers about a person say together. `Err` also for answers that say nothing.
    async fn verify(&self, person: &Person) -> Result<Verified, Down> {
        let instance = &self.inner.options.instance;
        let (calls, left) = instance.verify_calls(person).map_err(|error| self.not_rendered(error))?;
        if left.iter().any(|left| left.identifier.is_none()) || calls.is_empty() {
            return Ok(Verified::Trouble(rejected_whole("unreachable")));
        }
        // Whoever is there under another name is there.
        let mut worst = Verified::Absent;
        for call in calls {
            let said = self.ask(&call, About::nobody(), |answer| instance.verify_result(answer)).await?;
            let rank = |verified: &Verified| match verified {
                Verified::Dirty => 0,
                Verified::Trouble(_) => 1,
                Verified::Clean => 2,
                Verified::Absent => 3,
            };
            if rank(&said) < rank(&worst) {
                worst = said;
            }
        }
        Ok(worst)
    }

    /// Reads back whoever was opted out. Whatever goes wrong here takes nothing away from what was told.
    async fn read_back(&self, messages: &[Arc<Message>], rows: &BTreeMap<u64, Rows>, told: &mut Told) {
        if self.inner.options.instance.manifest().verify_unit().is_none() {
            return;
        }
        let is_wanted = |fate: &Fate| {
            let is_told = matches!(fate.outcome, Some(UnitOutcome::Accepted | UnitOutcome::Applied | UnitOutcome::Duplicate));
            is_told && fate.is_only_out && !fate.unreachable && fate.jobs == 0
        };
        let wanted = messages.iter().filter(|message| told.fates.get(&message.target.0).is_some_and(is_wanted));
        let people: Vec<_> = wanted.map(|message| asked_about(message, rows)).collect();
        // Kept apart, so that those of whom an answer came have it when the time is up.
        let (tell, mut verified) = tokio::sync::mpsc::unbounded_channel();
        let reading = self.each(people, move |run, person| {
            let tell = tell.clone();
            async move {
                let said = run.verify(&person).await?;
                drop(tell.send((person.token, said)));
                Ok(())
            }
        });
        // So that there is time left to say how it ended.
        let until = self.deadline - (self.deadline - self.began) / 16;
        let _ = tokio::time::timeout_at(until, reading).await;
        while let Ok((token, said)) = verified.try_recv() {
            if let Some(fate) = told.fates.get_mut(&token) {
                fate.verified = Some(said);
            }
        }
    }

    // The end of a Send.

    fn told(&self, messages: &[Arc<Message>], told: Told) -> Ended {
        let cap = self.inner.options.cap;
        let can_verify = self.inner.options.instance.manifest().verify_unit().is_some();
        let (mut reports, mut levels) = (Vec::new(), Vec::new());
        let mut jobs = Jobs { are_all: true, list: told.jobs };
        let handle = (!jobs.list.is_empty())
            .then(|| {
                jobs.are_all = !told.fates.values().any(|fate| fate.jobs > 0 && fate.others > 0);
                jobs.encode()
            })
            .flatten();
        let mut rejections: Vec<&str> = Vec::new();
        let mut sent = 0;
        for message in messages {
            let target = message.target;
            let Some(fate) = told.fates.get(&target.0) else {
                reports.push((target, Report::Nothing));
                continue;
            };
            // What becomes of the whole counts for them, whatever another call said.
            if told.open_tokens.contains(&target.0) {
                sent += 1;
                continue;
            }
            sent += usize::from(!fate.unreachable);
            rejections.extend(fate.rejected.as_deref());
            let report = match &fate.outcome {
                Some(UnitOutcome::Failed { reason, retry }) => Report::Failed { is_retryable: *retry, code: self.code(reason) },
                _ if fate.unreachable => Report::Unreachable,
                Some(UnitOutcome::Unknown) => Report::Failed { is_retryable: true, code: self.code("not_understood") },
                Some(UnitOutcome::Absent) => Report::Absent,
                // Every op left the person to another one.
                None => Report::Unreachable,
                Some(_) if fate.jobs > 0 && handle.is_some() => continue,
                Some(outcome) => match (&fate.verified, outcome) {
                    (Some(Verified::Clean), _) => Report::Reached(Level::Verified.min(fate.ceiling).min(cap)),
                    (Some(Verified::Absent), _) => Report::Absent,
                    (Some(Verified::Dirty), _) => Report::Reached(Level::Accepted.min(cap)),
                    (_, UnitOutcome::Duplicate) => Report::Duplicate,
                    // It can be read back, and was not: what it said of itself counts for little.
                    (Some(Verified::Trouble(_)), _) => Report::Reached(Level::Accepted.min(cap)),
                    (None, _) if fate.is_only_out && can_verify => Report::Reached(Level::Accepted.min(cap)),
                    (None, outcome) => {
                        let proven = outcome.proves().map_or(Level::Accepted, people::level);
                        Report::Reached(proven.min(fate.ceiling).min(cap))
                    }
                },
            };
            // Where calls are only checked nobody was told anything.
            let report = match report {
                Report::Absent | Report::Duplicate if cap < Level::Accepted => Report::Reached(cap),
                report => report,
            };
            match report {
                Report::Reached(level) => levels.push((target, level)),
                report => reports.push((target, report)),
            }
        }
        let level = levels.iter().map(|(_, level)| *level).min().unwrap_or(Level::Accepted);
        let outcome = match (told.open, handle) {
            (Some(Open::TooLarge), _) => Outcome::TooLarge,
            (Some(Open::SomeFailed), _) => Outcome::SomeFailed { is_retryable: true, code: self.code("not_understood") },
            (Some(Open::Rejected(reason)), _) => Outcome::Rejected { is_retryable: false, code: self.code(&reason) },
            (None, Some(handle)) => Outcome::Job(handle),
            // Of one alone it is the call that was refused, and nobody knows whether because of the person.
            (None, None) if sent == 1 && rejections.len() == 1 => {
                reports.retain(|(_, report)| !matches!(report, Report::Failed { .. }));
                Outcome::Rejected { is_retryable: false, code: self.code(rejections[0]) }
            }
            (None, None) => Outcome::Ok(level),
        };
        let has_level = outcome == Outcome::Ok(level);
        reports.extend(
            levels
                .into_iter()
                .filter(|(_, reached)| !has_level || *reached != level)
                .map(|(target, level)| (target, Report::Reached(level))),
        );
        self.progress.ended(outcome, reports)
    }

    // Other errands.

    async fn check(&self, messages: &[Arc<Message>]) -> Result<Ended, Down> {
        let Some(unit) = self.inner.options.instance.manifest().verify_unit() else {
            return Ok(self.progress.ended(Outcome::NotSent, Vec::new()));
        };
        let is_out = |message: &Message| {
            let mut choices = self.choices(message).peekable();
            choices.peek().is_some() && choices.all(|choice| choice.on == On::OptOut)
        };
        let (wanted, others): (Vec<_>, Vec<_>) = messages.iter().cloned().partition(|message| is_out(message));
        let mut reports: Vec<_> = others.iter().map(|message| (message.target, Report::Nothing)).collect();
        // What was found some time ago does not know of records that were added since.
        let rows = if unit == Unit::Row { self.look_all_up(wanted.clone(), false).await? } else { BTreeMap::new() };
        let mut people = Vec::new();
        for message in wanted {
            let report = match rows.get(&message.target.0) {
                Some(Rows::Unreachable) => Report::Unreachable,
                Some(Rows::Outcome(UnitOutcome::Failed { reason, retry })) => {
                    Report::Failed { is_retryable: *retry, code: self.code(reason) }
                }
                Some(Rows::Outcome(_)) if self.inner.options.cap < Level::Accepted => continue,
                Some(Rows::Outcome(_)) => Report::Absent,
                Some(Rows::Found { .. }) | None => {
                    people.push(asked_about(&message, &rows));
                    continue;
                }
            };
            reports.push((message.target, report));
        }
        let said = self.each(people, |run, person| async move { Ok((person.token, run.verify(&person).await?)) }).await?;
        for (token, said) in said {
            let report = match said {
                Verified::Clean => continue,
                Verified::Dirty => Report::Drift,
                // Where calls are only checked nobody was told anything.
                Verified::Absent if self.inner.options.cap < Level::Accepted => continue,
                Verified::Absent => Report::Absent,
                Verified::Trouble(whole) => {
                    let reason = if let Whole::Rejected { reason } = whole { reason } else { "not_understood".to_owned() };
                    Report::Failed { is_retryable: false, code: self.code(&reason) }
                }
            };
            reports.push((Target(token), report));
        }
        Ok(self.progress.ended(Outcome::Ok(Level::Verified.min(self.inner.options.cap)), reports))
    }

    async fn poll(&self, handle: &str) -> Result<Ended, Down> {
        let instance = &self.inner.options.instance;
        let gone = |reason: &str| Outcome::Rejected { is_retryable: true, code: self.code(reason) };
        let Some(jobs) = Jobs::decode(handle) else {
            return Ok(self.progress.ended(gone("unknown_job"), Vec::new()));
        };
        let (mut is_pending, mut level) = (false, jobs.proves().min(self.inner.options.cap));
        for (op, job) in &jobs.list {
            let Some(choice) = self.inner.choices.get(*op) else {
                return Ok(self.progress.ended(gone("unknown_job"), Vec::new()));
            };
            level = level.min(choice.ceiling);
            let call = match instance.poll_call(*op, job) {
                Ok(call) => call,
                // The manifest asks after it no more.
                Err(desist_connector::RenderError::NotDeclared) => return Ok(self.progress.ended(gone("unknown_job"), Vec::new())),
                Err(error) => return Err(self.not_rendered(error)),
            };
            let polled = self.ask(&call, About::nobody(), |answer| instance.poll_result(*op, answer)).await?;
            let outcome = match polled {
                Polled::Applied => continue,
                Polled::Pending => {
                    is_pending = true;
                    continue;
                }
                Polled::Failed { reason } => Outcome::SomeFailed { is_retryable: true, code: self.code(&reason) },
                Polled::Trouble(Whole::Rejected { reason }) => gone(&reason),
                Polled::Trouble(_) => return Err(Down::new(Failure::Server)),
            };
            return Ok(self.progress.ended(outcome, Vec::new()));
        }
        let outcome = if is_pending { Outcome::Pending } else { Outcome::Ok(level) };
        Ok(self.progress.ended(outcome, Vec::new()))
    }

    async fn probe(&self) -> Result<Ended, Down> {
        let instance = &self.inner.options.instance;
        let call = match instance.probe_call() {
            Ok(call) => call,
            Err(desist_connector::RenderError::NotDeclared) => return Ok(self.progress.ended(Outcome::NotSent, Vec::new())),
            Err(error) => return Err(self.not_rendered(error)),
        };
        let whole = self.ask(&call, About::nobody(), |answer| instance.probe_result(answer)).await?;
        match whole {
            Whole::Done => Ok(self.progress.ended(Outcome::Ok(Level::Accepted), Vec::new())),
            // Whoever refuses the cheapest call does not work.
            _ => Err(Down::new(Failure::Server)),
        }
    }
}

/// The answer to a call that makes something, of which only the status is read.
struct Made {
    status: u16,
    trouble: Option<Whole>,
}

impl Made {
    fn of(status: u16) -> Self {
        let trouble = match status {
            401 => Some(Whole::Auth),
            429 => Some(Whole::Throttled { after: None }),
            500.. => Some(Whole::RetryLater { after: None }),
            _ => None,
        };
        Self { status, trouble }
    }
}

impl Said for Made {
    fn whole(&self) -> Option<&Whole> {
        self.trouble.as_ref()
    }
}

fn rejected_whole(reason: &str) -> Whole {
    Whole::Rejected { reason: reason.to_owned() }
}

/// The person with all rows, for reading back.
fn asked_about(message: &Message, rows: &BTreeMap<u64, Rows>) -> Person {
    let lookup = match rows.get(&message.target.0) {
        Some(Rows::Found { rows, .. }) => rows.clone(),
        _ => Vec::new(),
    };
    Person { lookup, ..people::plain(message) }
}
