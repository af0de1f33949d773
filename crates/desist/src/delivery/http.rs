//! Destinations that speak HTTP, as their manifests say.
//!
//! Invariants: nobody is above accepted who was not read back, unless the answer says more and the manifest may believe it; what is not
//! understood is no success; `done` is called once, whatever happens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desist_connector::declared::Unit;
use desist_connector::{Instance, Why};
use desist_core::lane::Level;
use desist_core::purpose::Purposes;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::env::{Env, Outbound};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::auth::{Authenticator, TokenStore};
use super::lookups::Lookups;
use super::people::{self, Choice};
use super::reasons::Reasons;
use super::wire::{Progress, Run};

/// What a way to a destination is made of.
pub struct Options {
    /// The destination's name: it stands in log lines, in ids of webhooks, and in front of kept tokens.
    pub destination: String,
    /// The connector with its settings.
    pub instance: Arc<Instance>,
    /// Where errands run.
    pub runtime: Handle,
    /// The way to other machines.
    pub outbound: Arc<dyn Outbound>,
    /// The clock.
    pub env: Arc<dyn Env>,
    /// Keeps refresh tokens that were changed.
    pub tokens: Arc<dyn TokenStore>,
    /// The purposes of the business.
    pub purposes: Arc<Purposes>,
    /// Whether addresses of private networks may be called.
    pub allow_private: bool,
    /// The most that counts as proven: accepted for a connector that never met its destination.
    pub cap: Level,
}

/// The way to one destination over HTTP.
pub struct HttpTransport(Arc<Inner>);

/// What its errands share.
pub struct Inner {
    pub options: Options,
    pub auth: Authenticator,
    pub choices: Vec<Choice>,
    pub reasons: Reasons,
    pub lookups: Lookups,
    /// What went wrong last, without anybody's data.
    pub problem: Mutex<Option<String>>,
    /// The most calls at the same time, by the manifest.
    pub permits: Semaphore,
    /// Whether what must exist before the first call was found there, or made.
    pub prepared: OnceCell<()>,
}

impl HttpTransport {
    /// A way that nothing went yet. Nothing is sent, and no credential is read, before the first errand.
    pub fn new(options: Options) -> Self {
        let manifest = options.instance.manifest();
        let (pace, choices) = (manifest.pace(), people::choices(manifest, &options.purposes));
        let (lookups, permits) = (Lookups::new(pace.lookup_cache_seconds), Semaphore::new(pace.concurrency.max(1) as usize));
        let auth = Authenticator::new(&options);
        Self(Arc::new(Inner {
            auth,
            choices,
            reasons: Reasons::default(),
            lookups,
            problem: Mutex::default(),
            permits,
            prepared: OnceCell::new(),
            options,
        }))
    }
}

impl Inner {
    /// Keeps what went wrong for the operator. A destination that is down for a day says so once.
    pub fn note(&self, problem: Option<String>) {
        let mut kept = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problem.as_ref().filter(|problem| kept.as_ref() != Some(*problem)) {
            tracing::warn!(destination = self.options.destination, problem, "a destination did not take what it was sent");
        }
        *kept = problem;
    }
}

impl Transport for HttpTransport {
    fn start(&self, errand: Errand, within: Duration, done: Done) {
        let began = Instant::now();
        let progress = Arc::new(Progress::default());
        let run = Run {
            inner: Arc::clone(&self.0),
            progress: Arc::clone(&progress),
            began,
            deadline: began + within,
            changes: matches!(errand, Errand::Send(_)),
        };
        let tell = Tell { done: Some(done), progress };
        self.0.options.runtime.spawn(async move {
            let ended = match tokio::time::timeout_at(run.deadline, run.errand(&errand)).await {
                Ok(Ok(ended)) => {
                    run.inner.note(None);
                    ended
                }
                Ok(Err(down)) => run.progress.down(down),
                Err(_) => run.progress.given_up(),
            };
            tell.now(ended);
        });
    }

    fn problem(&self) -> Option<String> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reason(&self, code: u16) -> Option<String> {
        self.0.reasons.text(code)
    }

    /// The same rule by which a person of an errand is unreachable: every op about the message can name somebody in it. Rows of a look-up
    /// are not known here, so that it can be asked is enough.
    fn reaches(&self, message: &Message) -> bool {
        let inner = &self.0;
        let (mut is_told, instance) = (false, &inner.options.instance);
        for choice in inner.choices.iter().filter(|choice| !choice.of(message).is_empty()) {
            let left = if choice.unit == Unit::Row {
                instance.lookup_calls(&people::plain(message)).map(|(calls, left)| (!calls.is_empty(), left))
            } else {
                let person = choice.person(message, &inner.options.purposes, Vec::new());
                instance.calls(choice.op, &[person]).map(|(calls, left)| (!calls.is_empty(), left))
            };
            let Ok((any, left)) = left else { return false };
            is_told |= any;
            if left.iter().any(|left| left.identifier.is_none() && is_unreachable(left.why)) {
                return false;
            }
            // It is told, and refused for its size.
            is_told |= left.iter().any(|left| left.why == Why::TooLarge);
        }
        is_told
    }
}

/// Whether nobody can be told for this reason. What is too large is refused instead, so that an operator sees it.
pub const fn is_unreachable(why: Why) -> bool {
    match why {
        Why::NoIdentifier | Why::HashOnly | Why::Unusable | Why::NoRows => true,
        Why::OtherKinds | Why::TooLarge => false,
    }
}

/// Tells how an errand ended, once, also if its task panics or the runtime ends before it.
struct Tell {
    done: Option<Done>,
    progress: Arc<Progress>,
}

impl Tell {
    fn now(mut self, ended: Ended) {
        self.done.take().expect("it is called once")(ended);
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(self.progress.given_up());
        }
    }
}
