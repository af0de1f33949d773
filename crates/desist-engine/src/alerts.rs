//! Alarms, told to a receiver of the business's choice by signed requests (Standard Webhooks).
//!
//! Nothing here touches the store: that writes are not durable is an alarm itself. What waits is in memory, and after a
//! restart the alarms that stand are raised anew, so each is told at least once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use desist_core::fact::AlarmKind;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::engine::Shared;
use crate::env::{Answer, Env, Outbound, Outgoing, SendError, random};

/// Most changes of one kind of alarm that wait; beyond it the oldest pair of raised and cleared is left out, so that the
/// present state is always the last that is told. Who was away for eight alarms of one kind looks at the log anyway.
pub const WAITING_MAX: usize = 16;
/// Longest answer that is read: nothing in it is used, but one that is longer would count as none.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a receiver may take to answer: the least that the specification recommends.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the thread looks whether a wait is over.
const PACE: Duration = Duration::from_millis(200);
/// How long a stop waits for a last try.
const LAST_TRY: Duration = Duration::from_secs(2);
/// The first wait after a failure, in milliseconds; each further one is twice as long.
const RETRY_MS: i64 = 1_000;
/// The longest wait, also if the receiver asks for more: an alarm that comes later than five minutes after it can is none.
pub const RETRY_MS_MAX: i64 = 300_000;
/// Shortest and longest key, as the specification has them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Who is told.
#[derive(Clone, Debug)]
pub struct AlertsTo {
    /// Where to.
    pub url: String,
    /// Whether it may be on a private network.
    pub allow_private: bool,
    /// What signs the requests, or why it is not there; then they wait.
    pub key: Result<SigningKey, String>,
}

/// The symmetric key of Standard Webhooks.
#[derive(Clone)]
pub struct SigningKey(Arc<hmac::Key>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads `whsec_` and base64.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not \"whsec_\" and base64 of 24 to 64 bytes";
        let encoded = text.strip_prefix("whsec_").ok_or(WRONG)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| WRONG)?);
        if !KEY_BYTES.contains(&bytes.len()) {
            return Err(WRONG);
        }
        Ok(Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
    }

    /// The header `webhook-signature` of a message.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

/// How telling goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing waits.
    Delivered,
    /// Something was not tried yet.
    Sending,
    /// Since when, in Unix milliseconds, and why.
    Failing(i64, String),
    /// Why there is no key.
    WaitingForSecret(String),
}

/// An alarm that stands: since when, and when it was raised, in Unix seconds.
#[derive(Clone, Copy)]
struct Standing {
    since: i64,
    raised: i64,
}

/// A change of an alarm.
struct Event {
    /// The same in each try.
    id: String,
    raised: bool,
    at: i64,
    since: i64,
    /// It may have arrived.
    tried: bool,
}

/// Which alarm it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// What needs a person.
    pub kind: AlarmKind,
    /// The id of the destination that it is about.
    pub destination: Option<Arc<str>>,
}

impl From<AlarmKind> for About {
    fn from(kind: AlarmKind) -> Self {
        Self { kind, destination: None }
    }
}

/// What waits of one alarm: one that a receiver does not take holds up no other.
#[derive(Default)]
struct Lane {
    stands: Option<Standing>,
    waiting: VecDeque<Event>,
    /// Since when, in Unix milliseconds, and why.
    failing: Option<(i64, String)>,
    failures: u32,
    again_ms: i64,
    busy: bool,
}

#[derive(Default)]
struct State {
    to: Option<AlertsTo>,
    /// Counts the receivers: an answer of the one before says nothing.
    generation: u64,
    /// It wants no more.
    gone: bool,
    lanes: BTreeMap<About, Lane>,
}

/// What the thread wakes up for.
enum Wake {
    Change,
    Stop,
    Answer(Told),
}

/// What became of a request.
struct Told {
    about: About,
    generation: u64,
    answer: Result<Answer, SendError>,
}

/// The alarms of an engine, and who is told of them.
pub struct Alerts {
    state: Mutex<State>,
    wake: Sender<Wake>,
    awake: Mutex<Option<Receiver<Wake>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Default for Alerts {
    fn default() -> Self {
        let (wake, awake) = mpsc::channel();
        Self { state: Mutex::default(), wake, awake: Mutex::new(Some(awake)), thread: Mutex::default() }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    business: &'a str,
    kind: AlarmKind,
    destination: Option<&'a str>,
    since: String,
}

impl Alerts {
    /// An alarm stands since this time, in Unix seconds.
    pub fn raised(&self, env: &dyn Env, about: impl Into<About>, since: i64) {
        self.change(env, about.into(), Some(since));
    }

    /// Its cause is gone.
    pub fn cleared(&self, env: &dyn Env, about: impl Into<About>) {
        self.change(env, about.into(), None);
    }

    fn change(&self, env: &dyn Env, about: About, since: Option<i64>) {
        let now = env.now_ms().div_euclid(1000);
        let mut state = self.state();
        let tells = state.to.is_some();
        let lane = state.lanes.entry(about).or_default();
        let (before, is_raised) = (lane.stands, since.is_some());
        // One that stands already stands since then.
        let Some(since) = since.xor(before.map(|before| before.since)) else { return };
        lane.stands = is_raised.then_some(Standing { since, raised: now });
        if tells {
            lane.push(env, since, now, is_raised);
            drop(state);
            // Nobody listens where nobody is told.
            let _ = self.wake.send(Wake::Change);
        }
    }

    /// Takes new settings over.
    pub(crate) fn configure(&self, env: &dyn Env, to: Option<AlertsTo>) {
        self.state().configure(env, to);
        let _ = self.wake.send(Wake::Change);
    }

    /// How telling goes; none if nobody is to be told.
    pub fn delivery(&self) -> Option<Delivery> {
        let state = self.state();
        let to = state.to.as_ref()?;
        let failing = state.lanes.values().filter_map(|lane| lane.failing.clone()).min();
        Some(match (&to.key, failing) {
            (Err(why), _) => Delivery::WaitingForSecret(why.clone()),
            (_, Some((since, why))) => Delivery::Failing(since, why),
            _ if state.waiting() > 0 => Delivery::Sending,
            _ => Delivery::Delivered,
        })
    }

    /// How many changes wait to be told.
    pub fn waiting(&self) -> usize {
        self.state().waiting()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is due, beside the lock: an answer may come at once.
    fn send(&self, shared: &Shared, outbound: &dyn Outbound, timeout: Duration) {
        let due = self.state().due(shared, timeout);
        for (about, generation, request) in due {
            let wake = self.wake.clone();
            outbound.send(request, Box::new(move |answer| drop(wake.send(Wake::Answer(Told { about, generation, answer })))));
        }
    }

    /// After the stop: each kind once more, whatever its wait, for as long as that is short.
    fn try_last(&self, shared: &Shared, outbound: &dyn Outbound, awake: &Receiver<Wake>) {
        let until = Instant::now() + LAST_TRY;
        self.state().lanes.values_mut().for_each(|lane| lane.again_ms = 0);
        loop {
            self.send(shared, outbound, LAST_TRY);
            if !self.state().lanes.values().any(|lane| lane.busy) {
                return;
            }
            match awake.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Wake::Answer(told)) => self.state().take(told, shared.env.now_ms()),
                Ok(Wake::Change | Wake::Stop) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        let _ = self.wake.send(Wake::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the alerts ended with a panic");
        }
    }
}

/// Starts telling, if there is a way to other machines.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let awake = shared.alerts.awake.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (Some(awake), Some(outbound)) = (awake, shared.outbound.clone()) else { return Ok(()) };
    let telling = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("alerts".into()).spawn(move || {
        let (shared, alerts) = (telling.as_ref(), &telling.alerts);
        loop {
            alerts.send(shared, outbound.as_ref(), ANSWER_TIMEOUT);
            match awake.recv_timeout(PACE) {
                Ok(Wake::Answer(told)) => alerts.state().take(told, shared.env.now_ms()),
                Ok(Wake::Stop) => break alerts.try_last(shared, outbound.as_ref(), &awake),
                Ok(Wake::Change) | Err(_) => {}
            }
        }
    })?;
    *shared.alerts.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(spawned);
    Ok(())
}

impl State {
    fn waiting(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum()
    }

    /// Another receiver hears of what stands; the same one is tried again at once.
    fn configure(&mut self, env: &dyn Env, to: Option<AlertsTo>) {
        let is_same = self.to.as_ref().map(|to| &to.url) == to.as_ref().map(|to| &to.url);
        self.generation += u64::from(!is_same);
        for lane in self.lanes.values_mut() {
            if is_same {
                (lane.failures, lane.again_ms) = (0, 0);
                continue;
            }
            *lane = Lane { stands: lane.stands, ..Lane::default() };
            if let Some(Standing { since, raised }) = lane.stands.filter(|_| to.is_some()) {
                lane.push(env, since, raised, true);
            }
        }
        if let Some(Err(why)) = to.as_ref().map(|to| &to.key) {
            tracing::error!(why, "alerts wait for their secret");
        }
        (self.gone, self.to) = (false, to);
    }

    /// The next request of each kind, unless one is on its way or its wait is not over.
    fn due(&mut self, shared: &Shared, timeout: Duration) -> Vec<(About, u64, Outgoing)> {
        let (now_ms, generation) = (shared.env.now_ms(), self.generation);
        let Some(AlertsTo { url, allow_private, key: Ok(key) }) = self.to.as_ref().filter(|_| !self.gone) else { return Vec::new() };
        let mut due = Vec::new();
        for (about, lane) in &mut self.lanes {
            // A clock that was set back makes no wait longer.
            let waits = (now_ms + 1..=now_ms + RETRY_MS_MAX).contains(&lane.again_ms);
            let Some(event) = lane.waiting.front_mut().filter(|_| !lane.busy && !waits) else { continue };
            (event.tried, lane.busy) = (true, true);
            let (body, timestamp) = (event.body(shared.business(), about), now_ms.div_euclid(1000));
            let headers = [
                ("content-type", "application/json".to_owned()),
                ("webhook-id", event.id.clone()),
                ("webhook-timestamp", timestamp.to_string()),
                ("webhook-signature", key.sign(&event.id, timestamp, &body)),
            ];
            let request = Outgoing {
                method: "POST",
                url: url.clone(),
                headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
                body,
                timeout,
                answer_bytes_max: ANSWER_BYTES_MAX,
                allow_private: *allow_private,
            };
            due.push((about.clone(), generation, request));
        }
        due
    }

    fn take(&mut self, told: Told, now_ms: i64) {
        if told.generation != self.generation {
            return;
        }
        self.gone |= told.answer.as_ref().is_ok_and(|answer| answer.status == 410);
        let Some(lane) = self.lanes.get_mut(&told.about) else { return };
        lane.busy = false;
        match told.answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                lane.waiting.pop_front();
                (lane.failing, lane.failures, lane.again_ms) = (None, 0, 0);
            }
            Ok(answer) if answer.status == 410 => lane.fail(now_ms, 0, "it wants no more until a reload (status 410)".to_owned()),
            Ok(answer) => lane.fail(now_ms, retry_after_ms(&answer, now_ms), format!("status {}", answer.status)),
            Err(error) => lane.fail(now_ms, 0, error.to_string()),
        }
    }
}

impl Lane {
    fn push(&mut self, env: &dyn Env, since: i64, at: i64, raised: bool) {
        if self.waiting.len() >= WAITING_MAX {
            // One that was tried may have arrived, so it keeps its place and its id.
            let first = usize::from(self.waiting[0].tried);
            self.waiting.drain(first..first + 2);
        }
        let id = format!("alarm_{}", URL_SAFE_NO_PAD.encode(random::<16>(env)));
        self.waiting.push_back(Event { id, raised, at, since, tried: false });
    }

    fn fail(&mut self, now_ms: i64, asked_ms: i64, why: String) {
        let since = self.failing.as_ref().map_or(now_ms, |(since, _)| *since);
        if self.failing.is_none() {
            tracing::warn!(why, "an alert was not delivered; it is tried again");
        }
        self.again_ms = now_ms + RETRY_MS.saturating_mul(1 << self.failures.min(16)).max(asked_ms).min(RETRY_MS_MAX);
        self.failures += 1;
        self.failing = Some((since, why));
    }
}

impl Event {
    fn body(&self, business: &str, about: &About) -> Vec<u8> {
        let message = Message {
            r#type: if self.raised { "alarm.raised" } else { "alarm.cleared" },
            timestamp: rfc3339(self.at),
            data: Data { business, kind: about.kind, destination: about.destination.as_deref(), since: rfc3339(self.since) },
        };
        serde_json::to_vec(&message).expect("texts alone are JSON")
    }
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// How long the receiver asks to be left alone, in seconds or as a date (RFC 9110 10.2.3).
fn retry_after_ms(answer: &Answer, now_ms: i64) -> i64 {
    let Some(asked) = answer.header("retry-after") else { return 0 };
    match asked.parse::<u32>() {
        Ok(seconds) => i64::from(seconds) * 1000,
        Err(_) => jiff::fmt::rfc2822::parse(asked).map_or(0, |date| date.timestamp().as_millisecond().saturating_sub(now_ms)),
    }
}
