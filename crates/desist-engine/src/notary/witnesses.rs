//! The witnesses that are asked to cosign each checkpoint (C2SP tlog-witness).
//!
//! Each remembers how far it saw the log grow, and cosigns no other history. They cannot stop the log: one that
//! does not answer or refuses is an alarm, and the checkpoint is shown without it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use desist_proof::checkpoint::SignedCheckpoint;
use desist_proof::note::Verifier;
use desist_proof::proof;
use desist_proof::witness::{AddCheckpoint, SIZE_TYPE};
use desist_store::tiles;

use crate::engine::Shared;
use crate::env::{Answer, Outgoing, SendError};

/// How long a checkpoint waits for its cosignatures: with the notary's pace, and an entry that came just after the last
/// signature, it is still shown within a second. A witness that was late is not waited for again until it is in time.
const GATHER: Duration = Duration::from_millis(300);
/// Checkpoints that late cosignatures are added to: those of the time that a witness may take to answer.
pub(super) const RECENT_MAX: usize = 32;
/// How long a witness may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of a witness: a hundred signature lines of a few hundred bytes each.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a witness may fail before it is lost, in milliseconds: longer than a restart takes. As long it has to be
/// good before it is found again: each alarm is an entry of the log, and asks it anew.
const LOST_AFTER_MS: i64 = 60_000;
/// The first wait after a failure, in milliseconds; each further one is twice as long.
const RETRY_MS: i64 = 1_000;
/// The longest wait.
const RETRY_MS_MAX: i64 = 60_000;

/// A witness as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAt {
    /// What `/add-checkpoint` is appended to.
    pub url: String,
    /// Its key.
    pub key: Verifier,
    /// Whether it may be on a private network.
    pub allow_private: bool,
}

/// How a witness is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessState {
    /// Name of its key.
    pub name: String,
    /// Entries of the log that it cosigned last; none: not known yet.
    pub cosigned: Option<u64>,
    /// Since when it fails, in Unix milliseconds, and why.
    pub failing: Option<(i64, String)>,
    /// Whether that is an alarm.
    pub lost: bool,
}

struct Asked {
    at: WitnessAt,
    state: WitnessState,
    failures: u32,
    again_ms: i64,
    busy: bool,
    /// Its last answer came after the checkpoint was shown.
    late: bool,
    /// The checkpoint for which it said that it is at another size than we thought.
    corrected: Option<u64>,
    good_since_ms: Option<i64>,
}

/// All witnesses of a log.
pub(super) struct Witnesses {
    asked: Vec<Asked>,
    answers: Receiver<Told>,
    tell: Sender<Told>,
}

/// Who answered, about which checkpoint, and what.
struct Told {
    key: Verifier,
    checkpoint: SignedCheckpoint,
    answer: Result<Answer, SendError>,
}

impl Default for Witnesses {
    fn default() -> Self {
        let (tell, answers) = mpsc::channel();
        Self { asked: Vec::new(), answers, tell }
    }
}

impl Witnesses {
    /// Takes the configured witnesses over; those that stay keep their state.
    pub(super) fn configure(&mut self, configured: &[WitnessAt]) {
        if self.asked.iter().map(|asked| &asked.at).eq(configured) {
            return;
        }
        let mut before = std::mem::take(&mut self.asked);
        self.asked = configured
            .iter()
            .map(|at| match before.iter().position(|asked| asked.at == *at) {
                Some(known) => before.swap_remove(known),
                None => Asked {
                    at: at.clone(),
                    state: WitnessState { name: at.key.name().to_owned(), cosigned: None, failing: None, lost: false },
                    failures: 0,
                    again_ms: 0,
                    busy: false,
                    late: false,
                    corrected: None,
                    good_since_ms: None,
                },
            })
            .collect();
    }

    /// Asks everyone for what is missing on the newest of the recent checkpoints, and adds what comes to the one that it is
    /// about; for a `new` one it waits for those that are usually in time. Returns whether a cosignature was added.
    pub(super) fn cosign(&mut self, shared: &Shared, recent: &mut [SignedCheckpoint], new: bool) -> bool {
        let mut added = false;
        let until = Instant::now() + if new { GATHER } else { Duration::ZERO };
        loop {
            while let Ok(told) = self.answers.try_recv() {
                added |= self.take(told, recent, shared.env.now_ms());
            }
            let Some(newest) = recent.last() else { return added };
            self.ask(shared, newest);
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() || !self.asked.iter().any(Asked::is_awaited) {
                self.asked.iter_mut().for_each(|asked| asked.late |= new && asked.busy);
                return added;
            }
            if let Ok(told) = self.answers.recv_timeout(patience) {
                added |= self.take(told, recent, shared.env.now_ms());
            }
        }
    }

    /// How each is doing.
    pub(super) fn states(&mut self, now: i64) -> Vec<WitnessState> {
        for asked in &mut self.asked {
            asked.state.lost &= asked.good_since_ms.is_none_or(|since| now - since < LOST_AFTER_MS);
        }
        self.asked.iter().map(|asked| asked.state.clone()).collect()
    }

    fn ask(&mut self, shared: &Shared, checkpoint: &SignedCheckpoint) {
        let Some(outbound) = &shared.outbound else { return };
        let (now, size) = (shared.env.now_ms(), checkpoint.unverified().size());
        // A clock that was set back must not silence a witness for as long.
        let is_due = |asked: &Asked| asked.again_ms <= now || asked.again_ms > now + RETRY_MS_MAX;
        let lacks = |asked: &Asked| !asked.busy && is_due(asked) && !checkpoint.is_cosigned_by(&asked.at.key);
        for asked in self.asked.iter_mut().filter(|asked| lacks(asked)) {
            // A size beyond the log's is what the witness said of a log that lost entries: nothing can be proved to it.
            let old_size = asked.state.cosigned.unwrap_or(0).min(size);
            let mut proof = Vec::new();
            let proved = shared.readers.read(&mut |read| {
                proof = proof::consistency(old_size, size, &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
                Ok(())
            });
            if let Err(error) = proved {
                asked.fail(now, error.to_string(), false);
                continue;
            }
            let body = AddCheckpoint { old_size, proof, checkpoint: checkpoint.clone() }.to_string();
            let request = Outgoing {
                method: "POST",
                url: format!("{}/add-checkpoint", asked.at.url),
                headers: vec![("content-type".into(), "text/plain; charset=utf-8".into())],
                body: body.into_bytes(),
                timeout: ANSWER_TIMEOUT,
                answer_bytes_max: ANSWER_BYTES_MAX,
                allow_private: asked.at.allow_private,
            };
            asked.busy = true;
            let (tell, key, checkpoint) = (self.tell.clone(), asked.at.key.clone(), checkpoint.clone());
            // Nobody listens any more once the notary stopped.
            outbound.send(request, Box::new(move |answer| drop(tell.send(Told { key, checkpoint, answer }))));
        }
    }

    /// Returns whether a cosignature was added to one of the recent checkpoints.
    fn take(&mut self, told: Told, recent: &mut [SignedCheckpoint], now: i64) -> bool {
        // It may have been taken out of the configuration meanwhile.
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.at.key == told.key) else { return false };
        asked.busy = false;
        let answer = match told.answer {
            Ok(answer) => answer,
            Err(error) => {
                asked.fail(now, error.to_string(), false);
                return false;
            }
        };
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        let mut about = told.checkpoint;
        let size = about.unverified().size();
        match answer.status {
            200 => match about.add(text, &asked.at.key) {
                Ok(()) => {
                    asked.good(now, size);
                    let newest = recent.last().map(|newest| newest.unverified().size());
                    asked.late &= newest != Some(size);
                    let same = recent.iter_mut().rev().find(|one| one.unverified() == about.unverified());
                    same.is_some_and(|one| one.add(text, &asked.at.key).is_ok())
                }
                Err(error) => {
                    asked.fail(now, format!("its answer is no cosignature: {error}"), true);
                    false
                }
            },
            409 if answer.header("content-type").is_some_and(|kind| kind.starts_with(SIZE_TYPE)) => {
                match text.strip_suffix('\n').and_then(|size| size.parse::<u64>().ok()) {
                    Some(cosigned) if cosigned > size && recent.last().is_some_and(|newest| cosigned > newest.unverified().size()) => {
                        asked.state.cosigned = Some(cosigned);
                        asked.fail(now, format!("it cosigned {cosigned} entries of this log, which has {size}"), true);
                    }
                    // Asked again at once, from where it is, but once only.
                    Some(cosigned) if asked.state.cosigned != Some(cosigned) && asked.corrected != Some(size) => {
                        (asked.state.cosigned, asked.corrected) = (Some(cosigned), Some(size));
                    }
                    Some(cosigned) if asked.state.cosigned != Some(cosigned) => {
                        asked.fail(now, "it says another size each time".to_owned(), false);
                    }
                    _ => asked.fail(now, "it cosigned another history of this log".to_owned(), true),
                }
                false
            }
            status @ (400 | 403 | 404 | 409 | 422) => {
                let why = match status {
                    403 => "it knows another key of this log",
                    404 => "it does not watch this log",
                    422 => "it cosigned another history of this log",
                    _ => "it refused the request",
                };
                asked.fail(now, format!("{why} (status {status})"), true);
                false
            }
            status => {
                asked.fail(now, format!("status {status}"), false);
                false
            }
        }
    }
}

impl Asked {
    /// Whether a checkpoint waits for it.
    fn is_awaited(&self) -> bool {
        self.busy && !self.late && self.state.failing.is_none()
    }

    fn good(&mut self, now: i64, size: u64) {
        self.good_since_ms = self.good_since_ms.or(Some(now));
        (self.failures, self.again_ms, self.corrected, self.state.failing) = (0, 0, None, None);
        self.state.cosigned = self.state.cosigned.max(Some(size));
    }

    fn fail(&mut self, now: i64, why: String, refused: bool) {
        let since = self.state.failing.as_ref().map_or(now, |(since, _)| *since);
        self.state.lost |= refused || now - since >= LOST_AFTER_MS;
        self.again_ms = now + RETRY_MS.saturating_mul(1 << self.failures.min(6)).min(RETRY_MS_MAX);
        self.failures += 1;
        (self.state.failing, self.good_since_ms) = (Some((since, why)), None);
    }
}
