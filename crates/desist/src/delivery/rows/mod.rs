//! Destinations that take rows: a table of PostgreSQL, and files in a directory, a bucket or on another machine.
//!
//! Invariant: a row has the version of what it says, and nothing older replaces it: not in the table, and not with a receiver that
//! keeps the highest version it has read. So whatever is not known to have arrived is sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desist_connector::declared::Transport as Carrier;
use desist_connector::{Instance, Row, Why};
use desist_core::lane::{Failure, Level, Outcome, Report, Target};
use desist_core::purpose::Purposes;
use desist_engine::delivery::transport::{Done, Ended, Message, Transport};
use desist_engine::env::Env;
use tokio::runtime::Handle;

use super::people::{level, told};

mod drop;
mod local;
mod s3;
mod sftp;
mod sql;

pub use drop::FileDrop;
pub use sql::Sql;

/// What a way to a destination needs beside the settings of its connector.
#[derive(Clone)]
pub struct Options {
    /// Where it works.
    pub runtime: Handle,
    /// The clock, which names files and dates what is signed.
    pub env: Arc<dyn Env>,
    /// The purposes of the business.
    pub purposes: Arc<Purposes>,
    /// Whether this machine's and private networks' addresses may be reached, connections without TLS included.
    pub allow_private: bool,
    /// What holds for everybody, for snapshots.
    pub present: Option<Arc<dyn PresentState>>,
}

/// What holds for everybody, in pages.
pub trait PresentState: Send + Sync {
    /// Messages after a place, from 0, at most `limit`; and the place to go on from, unless it was the last page. It may take its time:
    /// it is called where that holds up nobody.
    fn page(&self, after: u64, limit: usize) -> Result<(Vec<Arc<Message>>, Option<u64>), String>;
}

/// The way to a destination that takes rows.
pub enum Rows {
    /// A table.
    Sql(Arc<Sql>),
    /// Files.
    Files(Arc<FileDrop>),
}

impl Rows {
    /// By the connector's transport. The error is for the operator.
    pub fn open(instance: Instance, options: Options) -> Result<Self, String> {
        match instance.manifest().declared().connector.transport {
            Carrier::Sql => Sql::new(instance, options).map(Arc::new).map(Self::Sql),
            Carrier::File | Carrier::S3 | Carrier::Sftp => FileDrop::new(instance, options).map(Arc::new).map(Self::Files),
            Carrier::Http | Carrier::Manual => Err("the connector has no table and no files".to_owned()),
        }
    }

    /// As the driver of the lanes takes it.
    pub fn transport(&self) -> Arc<dyn Transport> {
        match self {
            Self::Sql(sql) => Arc::clone(sql) as _,
            Self::Files(files) => Arc::clone(files) as _,
        }
    }
}

/// Why a destination did not take something.
#[derive(Debug)]
struct Fault {
    outcome: Outcome,
    problem: String,
}

impl Fault {
    fn new(failure: Failure, problem: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed { failure, retry_after_ms: None }, problem: problem.into() }
    }

    /// How an errand ends with it. A destination that refuses what it was sent works: it is one that failed that is tried carefully.
    fn ended(self, left: &Left) -> Ended {
        let is_answer = !matches!(self.outcome, Outcome::Failed { .. });
        Ended { left: left.is() || is_answer, ..Ended::all(self.outcome) }
    }

    fn is(&self, wanted: Failure) -> bool {
        matches!(self.outcome, Outcome::Failed { failure, .. } if failure == wanted)
    }
}

/// The last problem, for the operator.
#[derive(Default)]
struct Problem(Mutex<Option<String>>);

impl Problem {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, connector: &str, problem: Option<String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A destination that is down for a day says so once.
        if let Some(problem) = problem.as_ref().filter(|problem| kept.as_ref() != Some(*problem)) {
            tracing::warn!(connector, problem, "a destination did not take what it was sent");
        }
        *kept = problem;
    }
}

/// Whether something left that may have changed something.
#[derive(Clone, Default)]
struct Left(Arc<AtomicBool>);

impl Left {
    fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// How an errand ends that nobody finished.
    fn given_up(&self) -> Ended {
        let failure = if self.is() { Failure::Ambiguous } else { Failure::Connect };
        Ended { left: self.is(), ..Ended::failed(failure) }
    }
}

/// Calls `done` once, also if the runtime ends before the errand does.
struct Tell(Option<Done>, Left);

impl Tell {
    fn now(mut self, ended: Ended) {
        self.0.take().expect("it is called once")(ended);
    }
}

impl std::ops::Drop for Tell {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(self.1.given_up());
        }
    }
}

/// Runs an errand for at most `within`.
fn run<F: Future<Output = Ended> + Send + 'static>(runtime: &Handle, within: Duration, done: Done, errand: impl FnOnce(Left) -> F) {
    let left = Left::default();
    let tell = Tell(Some(done), left.clone());
    let errand = errand(left.clone());
    runtime.spawn(async move {
        let ended = tokio::time::timeout(within, errand).await;
        tell.now(ended.unwrap_or_else(|_| left.given_up()));
    });
}

/// Work that takes long enough to hold up requests, on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Fault::new(Failure::Server, "the work was given up")))
}

/// Rows of an errand, and what became of those who have none.
struct Rendered {
    rows: Vec<Row>,
    reports: Vec<(Target, Report)>,
    /// The most that may be said of each target with a row.
    ceilings: BTreeMap<Target, Level>,
}

fn render(instance: &Instance, purposes: &Purposes, messages: &[Arc<Message>]) -> Result<Rendered, Fault> {
    let manifest = instance.manifest();
    let (told, mut reports) = told(manifest, purposes, messages);
    let (mut rows, mut unreachable, mut ceilings) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for told in told {
        let ceiling = manifest.ops().find(|op| op.index == told.op).map_or(Level::Accepted, |op| level(op.ceiling));
        let (made, left) = instance
            .rows(told.op, &told.people)
            .map_err(|error| Fault::new(Failure::Server, format!("the connector cannot be written: {error}")))?;
        for row in &made {
            let kept = ceilings.entry(Target(row.token)).or_insert(ceiling);
            *kept = ceiling.min(*kept);
        }
        let whole = left.iter().filter(|left| left.identifier.is_none() && left.why != Why::OtherKinds);
        unreachable.extend(whole.map(|left| Target(left.token)));
        rows.extend(made);
    }
    let is_quiet: BTreeSet<_> = reports.iter().map(|(target, _)| *target).collect();
    unreachable.extend(
        messages.iter().map(|message| message.target).filter(|target| !ceilings.contains_key(target) && !is_quiet.contains(target)),
    );
    reports.extend(unreachable.into_iter().map(|target| (target, Report::Unreachable)));
    Ok(Rendered { rows, reports, ceilings })
}

/// Whether it is in rows, by the rule that sends.
fn reaches(instance: &Instance, purposes: &Purposes, message: &Message) -> bool {
    let messages = [Arc::new(message.clone())];
    render(instance, purposes, &messages).is_ok_and(|rendered| !rendered.rows.is_empty() && rendered.reports.is_empty())
}
