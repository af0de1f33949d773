//! The way to one destination, as the driver of the lanes sees it: messages about people go in, what became of them comes out.
//! Which protocol is spoken, and how a message is written in it, is the transport's own.

use std::sync::Arc;
use std::time::Duration;

use desist_core::identifier::Kind;
use desist_core::lane::{Failure, Outcome, Report, Target};
use desist_core::purpose::PurposeSet;
use zeroize::Zeroizing;

/// An identifier, as far as it is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub kind: Kind,
    /// Its normal form, if anybody ever gave it in clear.
    pub text: Option<Zeroizing<String>>,
    /// The SHA-256 of its normal form.
    pub sha256: [u8; 32],
    /// What is denied about it, for the purposes of the destination: for tables of identifiers, in which several people can share one.
    pub denied: PurposeSet,
}

/// What holds now for one party, for the purposes of one destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Whom it is about; never sent.
    pub target: Target,
    /// The entry of the log that made it so. A receiver that keeps the highest it has seen never goes back.
    pub version: u64,
    /// When it became so, in Unix seconds.
    pub at: i64,
    /// What is denied.
    pub denied: PurposeSet,
    /// What is allowed, and may have been denied before.
    pub allowed: PurposeSet,
    /// What is denied beyond the purposes of the destination: an *allow* that stands for that, too, may not be said.
    pub beyond: PurposeSet,
    /// How the party is known; at least one.
    pub identifiers: Vec<Known>,
}

// Whom it is about is in neither.
impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Known({}, …)", self.kind)
    }
}
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({}, version {}, …)", self.target.0, self.version)
    }
}

/// What is to be done at a destination. Of each list every target is there once.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Tell it.
    Send(Vec<Arc<Message>>),
    /// Read back whether it is as it was told.
    Check(Vec<Arc<Message>>),
    /// Ask what became of a job, by the destination's name for it.
    Poll(String),
    /// Make the cheapest call that shows whether the destination works.
    Probe,
}

/// What became of an errand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether anything left this machine that may have changed something.
    pub left: bool,
    /// How it ended, for each target that no report names.
    pub outcome: Outcome,
    /// Targets for which it ended differently.
    pub reports: Vec<(Target, Report)>,
    /// What the destination answered, for the evidence.
    pub answer: Option<Answered>,
}

/// An answer as evidence keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The protocol's status, such as that of HTTP; 0 where it has none.
    pub status: u16,
    /// SHA-256 of the answer's bytes.
    pub sha256: [u8; 32],
}

impl Ended {
    /// Nothing left, since the destination cannot be called.
    pub const fn failed(failure: Failure) -> Self {
        Self { left: false, outcome: Outcome::Failed { failure, retry_after_ms: None }, reports: Vec::new(), answer: None }
    }

    /// This outcome for all.
    pub const fn all(outcome: Outcome) -> Self {
        Self { left: true, outcome, reports: Vec::new(), answer: None }
    }
}

/// Who is told what became of an errand.
pub type Done = Box<dyn FnOnce(Ended) + Send>;

/// The way to one destination.
pub trait Transport: Send + Sync {
    /// Begins at once and returns at once. `done` is called exactly once, on any thread and at the latest when `within` is over; whatever
    /// is still under way then is given up, and its outcome is [`Failure::Ambiguous`] if anything left.
    fn start(&self, errand: Errand, within: Duration, done: Done);

    /// Whether it could write this message: an identifier is known that the destination takes, in a form that it takes.
    fn reaches(&self, message: &Message) -> bool;

    /// What went wrong last, in words for the operator and without anybody's data; none since something worked.
    fn problem(&self) -> Option<String> {
        None
    }

    /// The destination's own code behind a number in a report, as far as this process saw it.
    fn reason(&self, code: u16) -> Option<String> {
        let _ = code;
        None
    }
}
