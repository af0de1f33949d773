//! The outside world that the engine may ask: time, randomness and other machines. Tests bring their own.

use std::pin::Pin;
use std::time::Duration;

/// Clock and entropy. Everything that differs from run to run comes through here.
pub trait Env: Send + Sync {
    /// Unix time in milliseconds.
    fn now_ms(&self) -> i64;
    /// Fills the bytes from a cryptographic random source.
    fn fill(&self, bytes: &mut [u8]);
}

/// Random bytes of a fixed length.
pub fn random<const N: usize>(env: &dyn Env) -> [u8; N] {
    let mut bytes = [0; N];
    env.fill(&mut bytes);
    bytes
}

/// The machine's clock and the kernel's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Env for System {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where randomness is read")]
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness no key, code or salt is safe: stopping is the only right answer.
        getrandom::fill(bytes).expect("the kernel's random source answers");
    }
}

/// A request to another machine.
#[derive(Clone)]
pub struct Outgoing {
    /// `GET`, `POST` and so on.
    pub method: &'static str,
    /// Where to. It has no name of a person in it, or is never logged.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// Longest answer that is read, in bytes.
    pub answer_bytes_max: usize,
    /// Whether plain `http` and addresses of private networks may be used; never link-local ones.
    pub allow_private: bool,
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

// A URL, a header or a body can hold a secret or somebody's data.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({}, {} bytes, …)", self.method, self.body.len())
    }
}
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({}, {} bytes, …)", self.status, self.body.len())
    }
}

impl Answer {
    /// The first header field of a name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It was not sent, and never will be: the address is not allowed or not an address.
    #[error("not sent: {0}")]
    Forbidden(&'static str),
    /// It did not leave: no such name, no connection, no TLS.
    #[error("no connection: {0}")]
    NotSent(String),
    /// It may have arrived: the time was up, or the connection ended.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer is longer than allowed, or not HTTP. The request arrived.
    #[error("no readable answer: {0}")]
    Unreadable(String),
}

/// Who is told what became of a request.
pub type Done = Box<dyn FnOnce(Result<Answer, SendError>) + Send>;

/// The way to other machines. It follows no redirect.
pub trait Outbound: Send + Sync {
    /// Sends a request, and calls `done` once, on any thread.
    fn send(&self, request: Outgoing, done: Done);

    /// The same for whoever can wait for it. One that is dropped may arrive all the same.
    fn exchange(&self, request: Outgoing) -> Exchange {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.send(request, Box::new(move |answer| drop(tell.send(answer))));
        Box::pin(async { told.await.unwrap_or_else(|_| Err(SendError::NoAnswer("the exchange was given up".to_owned()))) })
    }
}

/// A request under way.
pub type Exchange = Pin<Box<dyn Future<Output = Result<Answer, SendError>> + Send>>;
