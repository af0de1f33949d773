//! The one decision point: what may be done with a person's data for a purpose.

use serde::{Deserialize, Serialize};

use crate::identifier::Kind;
use crate::purpose::PurposeSet;

/// What is known of one identifier, folded from its own line and the lines that reach it. The
/// decision index holds one for each identifier that anything is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Denied by the identifier's own line or by the subject it names.
    pub denied: PurposeSet,
    /// Denied through a line one hop away.
    pub linked: PurposeSet,
    /// Opted in on the identifier's own line, where an opt-in writes what it answers. Never through
    /// a link: a link that begins or ends must not allow anything.
    pub opted_in: PurposeSet,
}

impl Verdict {
    /// All that is denied to decisions that name the identifier.
    #[must_use]
    pub fn all_denied(self) -> PurposeSet {
        self.denied.union(self.linked)
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The data may be used for the purpose.
    Allow,
    /// It must not.
    Deny,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing is known of the person, and the purpose is allowed without a record.
    NoRecord,
    /// The consumer opted in.
    OptedIn,
    /// The consumer or the business opted out.
    OptedOut,
    /// An opt-out reaches the person through a link.
    Linked,
    /// The device itself opted out.
    Device,
    /// The request carries a Global Privacy Control signal.
    Gpc,
    /// Known to be under 16 and not opted in.
    Minor,
    /// An opted-out person's data would go to a recipient without a valid contract.
    Contract,
    /// The purpose needs an opt-in and there is none.
    NotOptedIn,
    /// This node does not know enough to allow.
    Stale,
}

/// What is known of the consumer's age. Under 16 is a minor (Civ. Code 1798.120(c)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgeBand {
    /// A parent decides.
    #[serde(rename = "under_13")]
    Under13,
    /// The minor decides.
    #[serde(rename = "13_15")]
    From13To15,
    /// No special rule in this version.
    #[serde(rename = "16_17")]
    From16To17,
    /// An adult.
    #[serde(rename = "18_plus")]
    Adult,
}

/// What the caller knows beside the identifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// A Global Privacy Control signal came with the consumer's request.
    pub gpc: bool,
    /// The consumer's age, if known.
    pub age_band: Option<AgeBand>,
}

/// Decides one purpose for one person, named by any identifiers. Deny wins; absent knowledge
/// allows an opt-out purpose and denies an opt-in one.
pub fn decide(
    purpose: PurposeSet,
    needs_opt_in: bool,
    verdicts: impl IntoIterator<Item = (Kind, Verdict)>,
    context: Context,
) -> (Decision, Reason) {
    if context.gpc && PurposeSet::GPC.contains(purpose) {
        return (Decision::Deny, Reason::Gpc);
    }
    let (mut denied, mut opted_in) = (None, false);
    for (kind, verdict) in verdicts {
        let found = if verdict.denied.contains(purpose) {
            Some(if kind.is_person_level() { Reason::OptedOut } else { Reason::Device })
        } else if verdict.linked.contains(purpose) {
            Some(Reason::Linked)
        } else {
            opted_in |= verdict.opted_in.contains(purpose);
            None
        };
        // The person's own word is the plainest reason, then the device's, then a link.
        denied = match (denied, found) {
            (Some(Reason::OptedOut), _) | (_, Some(Reason::OptedOut)) => Some(Reason::OptedOut),
            (Some(Reason::Device), _) | (_, Some(Reason::Device)) => Some(Reason::Device),
            (sofar, found) => sofar.or(found),
        };
    }
    let minor = matches!(context.age_band, Some(AgeBand::Under13 | AgeBand::From13To15)) && PurposeSet::MINOR.contains(purpose);
    match denied {
        Some(reason) => (Decision::Deny, reason),
        None if opted_in => (Decision::Allow, Reason::OptedIn),
        None if minor => (Decision::Deny, Reason::Minor),
        None if needs_opt_in => (Decision::Deny, Reason::NotOptedIn),
        None => (Decision::Allow, Reason::NoRecord),
    }
}
