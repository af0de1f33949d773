//! From what holds for somebody to the ops of a connector that tell it.

use std::sync::Arc;

use desist_connector::declared::On;
use desist_connector::{Identifier, Manifest, OpView, Person};
use desist_core::lane::{Report, Target};
use desist_core::purpose::{PurposeSet, Purposes};
use desist_engine::delivery::transport::Message;

/// The people whom one op is to tell of.
pub struct Told {
    /// The op's place in the manifest.
    pub op: usize,
    /// Who; their tokens are the numbers of the targets.
    pub people: Vec<Person>,
}

/// What each op has to tell, and for whom none has anything: [`Report::Nothing`].
pub fn told(manifest: &Manifest, purposes: &Purposes, messages: &[Arc<Message>]) -> (Vec<Told>, Vec<(Target, Report)>) {
    let ops: Vec<_> = manifest.ops().map(|op| (op, implemented(&op, purposes))).collect();
    let mut told: Vec<Told> = ops.iter().map(|(op, _)| Told { op: op.index, people: Vec::new() }).collect();
    let mut nothing = Vec::new();
    for message in messages {
        let mut is_told = false;
        for ((op, all), told) in ops.iter().zip(&mut told) {
            let about = about(op.on, *all, message);
            if !about.is_empty() {
                told.people.push(person(message, op.on, purposes.names(about).into_iter().map(str::to_owned).collect()));
                is_told = true;
            }
        }
        if !is_told {
            nothing.push((message.target, Report::Nothing));
        }
    }
    told.retain(|told| !told.people.is_empty());
    (told, nothing)
}

/// The purposes that an op implements. One that the business does not know is never denied.
fn implemented(op: &OpView<'_>, purposes: &Purposes) -> PurposeSet {
    let set = |name: &String| if name == "*" { PurposeSet(u64::MAX) } else { purposes.get(name).unwrap_or(PurposeSet::EMPTY) };
    op.purposes.iter().map(set).fold(PurposeSet::EMPTY, PurposeSet::union)
}

/// What an op has to say of a message: nothing, or the purposes of the choice.
fn about(on: On, implemented: PurposeSet, message: &Message) -> PurposeSet {
    let denied = implemented.intersection(message.denied);
    match on {
        On::OptOut => denied,
        // It would undo what is still denied.
        On::OptIn if !denied.is_empty() => PurposeSet::EMPTY,
        On::OptIn => implemented.intersection(message.allowed),
    }
}

/// A message as a connector knows it.
pub fn person(message: &Message, on: On, purposes: Vec<String>) -> Person {
    let identifiers = message.identifiers.iter().map(|known| Identifier {
        kind: known.kind,
        text: known.text.as_ref().map(|text| text.as_str().to_owned()),
        sha256: Some(known.sha256),
    });
    let status = match on {
        On::OptOut => "opt_out",
        On::OptIn => "opt_in",
    };
    Person {
        token: message.target.0,
        version: message.version,
        at: message.at,
        purposes,
        status: status.to_owned(),
        identifiers: identifiers.collect(),
        lookup: Vec::new(),
    }
}
