//! One call of an errand: authenticated, sent and answered, or the destination failed.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use desist_connector::limits::{AFTER_SECONDS_MAX, ANSWER_BYTES_MAX};
use desist_connector::{After, Answer, Call, Existence, Found, Origin, Polled, Verdict, Verified, Whole};
use desist_core::lane::{Failure, Outcome};
use desist_engine::delivery::transport::{Answered, Ended};
use desist_engine::env::{Outgoing, SendError};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::auth::{About, AuthError};
use super::http::Inner;
use crate::limits::ERRAND_CALLS_MAX;

/// The destination failed as a whole, so nothing is known of anybody.
#[derive(Clone, Copy, Debug)]
pub struct Down {
    /// How.
    pub failure: Failure,
    /// How long it asked to wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Down {
    pub const fn new(failure: Failure) -> Self {
        Self { failure, retry_after_ms: None }
    }
}

/// What of an errand left this machine.
#[derive(Default)]
pub struct Progress {
    /// Anything, also what only asks.
    asked: AtomicBool,
    /// Something that may have changed something.
    left: AtomicBool,
    /// Such things of which nothing is known yet. One that is given up stays here.
    under_way: AtomicUsize,
    answer: Mutex<Option<Answered>>,
}

impl Progress {
    fn may_have_changed(&self) -> bool {
        self.left.load(Ordering::SeqCst) || self.under_way.load(Ordering::SeqCst) > 0
    }

    /// The errand ended in time.
    pub fn ended(&self, outcome: Outcome, reports: Vec<(desist_core::lane::Target, desist_core::lane::Report)>) -> Ended {
        // Whoever was only asked changed nothing, but has shown that it works.
        let has_shown = !matches!(outcome, Outcome::Failed { .. }) && self.asked.load(Ordering::SeqCst);
        let answer = *self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        Ended { left: self.may_have_changed() || has_shown, outcome, reports, answer }
    }

    /// The destination failed.
    pub fn down(&self, down: Down) -> Ended {
        let Down { failure, retry_after_ms } = down;
        self.ended(Outcome::Failed { failure, retry_after_ms }, Vec::new())
    }

    /// The errand was given up.
    pub fn given_up(&self) -> Ended {
        let failure = if self.may_have_changed() { Failure::Ambiguous } else { Failure::Connect };
        self.down(Down::new(failure))
    }
}

/// What an answer means, as far as it is about the call as a whole.
pub trait Said: Send {
    fn whole(&self) -> Option<&Whole>;
}

impl Said for Verdict {
    fn whole(&self) -> Option<&Whole> {
        Some(&self.whole)
    }
}

impl Said for Whole {
    fn whole(&self) -> Option<&Whole> {
        Some(self)
    }
}

impl Said for Found {
    fn whole(&self) -> Option<&Whole> {
        if let Self::Trouble(whole) = self { Some(whole) } else { None }
    }
}

impl Said for Verified {
    fn whole(&self) -> Option<&Whole> {
        if let Self::Trouble(whole) = self { Some(whole) } else { None }
    }
}

impl Said for Existence {
    fn whole(&self) -> Option<&Whole> {
        if let Self::Trouble(whole) = self { Some(whole) } else { None }
    }
}

impl Said for Polled {
    fn whole(&self) -> Option<&Whole> {
        if let Self::Trouble(whole) = self { Some(whole) } else { None }
    }
}

/// An errand under way.
#[derive(Clone)]
pub struct Run {
    pub inner: Arc<Inner>,
    pub progress: Arc<Progress>,
    pub began: Instant,
    pub deadline: Instant,
    /// Whether the errand is to change something: then the answers to questions before and after are no evidence.
    pub changes: bool,
}

impl Run {
    /// Makes a call, and reads the answer. A token that was kept and is refused is fetched anew, once: what was refused had no effect.
    pub async fn ask<T: Said>(&self, call: &Call, about: About<'_>, read: impl Fn(&Answer) -> T + Send) -> Result<T, Down> {
        let mut again = true;
        loop {
            let headers = call.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
            let mut outgoing = Outgoing {
                method: call.method.name(),
                url: call.url.clone(),
                headers: headers.collect(),
                body: call.body.clone(),
                timeout: Duration::ZERO,
                answer_bytes_max: ANSWER_BYTES_MAX,
                allow_private: self.inner.options.allow_private,
            };
            let used = self.inner.auth.sign(&mut outgoing, about).await.map_err(|error| self.unsigned(&error))?;
            let answer = self.exchange(outgoing, matches!(call.origin, Origin::Op(_))).await?;
            let said = read(&answer);
            if matches!(said.whole(), Some(Whole::Auth)) && self.inner.auth.refused(&used) && std::mem::take(&mut again) {
                continue;
            }
            return match said.whole().and_then(|whole| self.failure(whole, answer.status, call.origin)) {
                Some(down) => Err(down),
                None => Ok(said),
            };
        }
    }

    async fn exchange(&self, mut outgoing: Outgoing, changes: bool) -> Result<Answer, Down> {
        let _permit = self.inner.permits.acquire().await.map_err(|_| Down::new(Failure::Connect))?;
        outgoing.timeout = self.deadline.saturating_duration_since(Instant::now());
        if outgoing.timeout.is_zero() {
            return Err(Down::new(Failure::Connect));
        }
        let progress = &self.progress;
        progress.under_way.fetch_add(usize::from(changes), Ordering::SeqCst);
        let answer = self.inner.options.outbound.exchange(outgoing).await;
        if let Err(error) = &answer {
            self.inner.note(Some(error.to_string()));
        }
        if !matches!(answer, Err(SendError::Forbidden(_) | SendError::NotSent(_))) {
            progress.asked.store(true, Ordering::SeqCst);
            progress.left.fetch_or(changes, Ordering::SeqCst);
        }
        progress.under_way.fetch_sub(usize::from(changes), Ordering::SeqCst);
        match answer {
            Ok(answer) => {
                if changes || !self.changes {
                    let answered = Answered { status: answer.status, sha256: Sha256::digest(&answer.body).into() };
                    *progress.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
                }
                Ok(Answer { status: answer.status, headers: answer.headers, body: answer.body })
            }
            // Whatever arrived may take effect; a question has none.
            Err(SendError::NoAnswer(_) | SendError::Unreadable(_)) if changes => Err(Down::new(Failure::Ambiguous)),
            Err(SendError::Unreadable(_)) => Err(Down::new(Failure::Server)),
            Err(SendError::Forbidden(_) | SendError::NotSent(_) | SendError::NoAnswer(_)) => Err(Down::new(Failure::Connect)),
        }
    }

    /// How an answer says that the destination fails. One that is gone for good needs an operator, as one without credentials does.
    fn failure(&self, whole: &Whole, status: u16, origin: Origin) -> Option<Down> {
        let (failure, after) = match whole {
            Whole::Done | Whole::Split | Whole::Shrink | Whole::Rejected { .. } => return None,
            // A gateway says nothing about what became of the call behind it.
            Whole::RetryLater { after } if matches!(status, 502 | 504) && matches!(origin, Origin::Op(_)) => (Failure::Ambiguous, *after),
            Whole::RetryLater { after } => (Failure::Server, *after),
            Whole::Throttled { after } => (Failure::Throttled, *after),
            Whole::Auth | Whole::Gone => (Failure::Credentials, None),
        };
        self.inner.note(Some(format!("it answered with status {status}")));
        Some(Down { failure, retry_after_ms: after.map(|after| self.wait_ms(after)) })
    }

    fn wait_ms(&self, after: After) -> u64 {
        let ms = match after {
            After::Seconds(seconds) => seconds.saturating_mul(1000),
            After::At(at) => at.saturating_mul(1000).saturating_sub(self.inner.options.env.now_ms()).max(0) as u64,
        };
        ms.min(AFTER_SECONDS_MAX * 1000)
    }

    fn unsigned(&self, error: &AuthError) -> Down {
        self.inner.note(Some(format!("a call could not be authenticated, and was not sent: {error}")));
        Down { failure: error.failure(), retry_after_ms: error.retry_after_ms() }
    }

    /// Does something for each, some at once, and gives the results in order. After a failure of the destination nothing more is begun, and
    /// what is under way is waited for: whatever may take effect later goes before any other failure.
    pub async fn each<T, R, F>(&self, items: Vec<T>, work: impl Fn(Self, T) -> F) -> Result<Vec<R>, Down>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, Down>> + Send + 'static,
    {
        if items.len() == 1 {
            // Without a task of its own, which costs as much as what it does.
            let mut results = Vec::with_capacity(1);
            for item in items {
                results.push(work(self.clone(), item).await?);
            }
            return Ok(results);
        }
        let (mut running, mut waiting) = (JoinSet::new(), items.into_iter().enumerate());
        let (mut results, mut failed): (_, Option<Down>) = (Vec::new(), None);
        loop {
            while failed.is_none()
                && running.len() < ERRAND_CALLS_MAX
                && let Some((place, item)) = waiting.next()
            {
                let doing = work(self.clone(), item);
                running.spawn(async move { (place, doing.await) });
            }
            let down = match running.join_next().await {
                None => break,
                Some(Ok((place, Ok(result)))) => {
                    results.push((place, result));
                    continue;
                }
                Some(Ok((_, Err(down)))) => down,
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(_)) => Down::new(Failure::Ambiguous),
            };
            failed = Some(failed.filter(|_| down.failure != Failure::Ambiguous).unwrap_or(down));
        }
        if let Some(down) = failed {
            return Err(down);
        }
        results.sort_by_key(|(place, _)| *place);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}
