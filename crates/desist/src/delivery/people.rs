//! Messages as the people of a connector, and which ops are about whom.

use std::sync::Arc;

use desist_connector::declared::{Ceiling, On, Unit};
use desist_connector::{Identifier, Manifest, Person};
use desist_core::lane::{Level, Report, Target};
use desist_core::purpose::{PurposeSet, Purposes};
use desist_engine::delivery::transport::Message;
use serde_json::Value;

/// An op with its purposes as a set.
pub struct Choice {
    /// Its place in the manifest.
    pub op: usize,
    /// What it carries out.
    pub on: On,
    /// What one item is.
    pub unit: Unit,
    /// The most that a good answer proves.
    pub ceiling: Level,
    /// Whether jobs of it can be asked after.
    pub is_polled: bool,
    /// `None`: all.
    purposes: Option<PurposeSet>,
}

/// The ops of a manifest. A purpose that the business does not know is nobody's choice, so it counts for nothing.
pub fn choices(manifest: &Manifest, known: &Purposes) -> Vec<Choice> {
    let set = |names: &[String]| names.iter().filter_map(|name| known.get(name)).fold(PurposeSet::EMPTY, PurposeSet::union);
    let choice = |op: desist_connector::OpView<'_>| Choice {
        op: op.index,
        on: op.on,
        unit: op.unit,
        ceiling: level(op.ceiling),
        is_polled: op.poll.is_some(),
        purposes: (!op.purposes.iter().any(|name| name == "*")).then(|| set(op.purposes)),
    };
    manifest.ops().map(choice).collect()
}

/// A connector's word for what is proven, as a lane's.
pub const fn level(ceiling: Ceiling) -> Level {
    match ceiling {
        Ceiling::Accepted => Level::Accepted,
        Ceiling::Applied => Level::Applied,
        Ceiling::Verified => Level::Verified,
    }
}

impl Choice {
    /// The purposes of a message that the op tells of; empty: it tells nothing of it.
    pub fn of(&self, message: &Message) -> PurposeSet {
        self.about(message, message.denied)
    }

    /// The same where so much is denied. An *allow* is told only when nothing of the op is denied any more, also nothing that the destination is not
    /// told of: the op would undo it.
    fn about(&self, message: &Message, denied: PurposeSet) -> PurposeSet {
        let within = |set: PurposeSet| self.purposes.map_or(set, |purposes| purposes.intersection(set));
        match self.on {
            On::OptOut => within(denied),
            On::OptIn if within(denied).is_empty() && self.purposes.is_none_or(|purposes| !purposes.intersects(message.beyond)) => {
                within(message.allowed)
            }
            On::OptIn => PurposeSet::EMPTY,
        }
    }

    /// The person that a message is about, as this op has it.
    pub fn person(&self, message: &Message, known: &Purposes, lookup: Vec<Value>) -> Person {
        let status = match self.on {
            On::OptOut => "opt_out",
            On::OptIn => "opt_in",
        };
        let purposes = known.names(self.of(message)).into_iter().map(str::to_owned).collect();
        Person { purposes, status: status.to_owned(), lookup, ..plain(message) }
    }

    /// The same for a table of identifiers: each is said as it is, whoever shares it, and not as its person is.
    fn people(&self, message: &Message, known: &Purposes) -> Vec<Person> {
        let mut sets: Vec<PurposeSet> = Vec::new();
        for one in &message.identifiers {
            let set = self.about(message, one.denied);
            if !set.is_empty() && !sets.contains(&set) {
                sets.push(set);
            }
        }
        let person = |set: PurposeSet| {
            let identifiers = message.identifiers.iter().filter(|one| self.about(message, one.denied) == set).cloned().collect();
            let purposes = known.names(set).into_iter().map(str::to_owned).collect();
            Person { purposes, ..self.person(&Message { identifiers, ..message.clone() }, known, Vec::new()) }
        };
        sets.into_iter().map(person).collect()
    }
}

/// The people whom one op is to put into rows.
pub struct Told {
    /// The op's place in the manifest.
    pub op: usize,
    /// Who; their tokens are the numbers of the targets.
    pub people: Vec<Person>,
}

/// What each op has to tell, and for whom none has anything: [`Report::Nothing`].
pub fn told(manifest: &Manifest, known: &Purposes, messages: &[Arc<Message>]) -> (Vec<Told>, Vec<(Target, Report)>) {
    let choices = choices(manifest, known);
    let people =
        |choice: &Choice| Told { op: choice.op, people: messages.iter().flat_map(|message| choice.people(message, known)).collect() };
    let told = choices.iter().map(people).filter(|told| !told.people.is_empty()).collect();
    let nothing = messages.iter().filter(|message| choices.iter().all(|choice| choice.of(message).is_empty()));
    (told, nothing.map(|message| (message.target, Report::Nothing)).collect())
}

/// The person without a choice: for look-ups.
pub fn plain(message: &Message) -> Person {
    let identifiers = message.identifiers.iter().map(|known| Identifier {
        kind: known.kind,
        text: known.text.as_ref().map(|text| text.as_str().to_owned()),
        sha256: Some(known.sha256),
    });
    Person {
        token: message.target.0,
        version: message.version,
        at: message.at,
        purposes: Vec::new(),
        status: "opt_out".to_owned(),
        identifiers: identifiers.collect(),
        lookup: Vec::new(),
    }
}
