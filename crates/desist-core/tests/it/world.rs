//! A small world of people and devices over the rules and a state in memory.

use std::collections::BTreeMap;

use desist_core::decision::{Context, Decision, Reason, Verdict, decide};
use desist_core::fact::{Actor, Channel, Entry, Fact, RequestId, RequestKind};
use desist_core::graph::{Graph, Memory, Records};
use desist_core::identifier::Kind;
use desist_core::lookup::LookupKey;
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_core::purpose::PurposeSet;
use desist_core::rules::{ApiOptIn, Batch, Counters, Named, OptInAsk, OptInTarget, OptOut, Recorded, Refused};

pub const SALE: PurposeSet = PurposeSet::SALE;
pub const REQUEST: RequestId = RequestId([7; 16]);
pub const BY: Actor = Actor::Key(1);

/// An identifier of that kind; equal numbers are equal values.
pub fn id(kind: Kind, number: u32) -> Named {
    let mut key = [0; 16];
    key[0] = kind.code();
    key[1..5].copy_from_slice(&number.to_be_bytes());
    Named { kind, key: LookupKey(key) }
}

pub fn email(number: u32) -> Named {
    id(Kind::Email, number)
}
pub fn phone(number: u32) -> Named {
    id(Kind::Phone, number)
}
pub fn account(number: u32) -> Named {
    id(Kind::CustomerId, number)
}
pub fn cookie(number: u32) -> Named {
    id(Kind::CookieId, number)
}
pub fn device(number: u32) -> Named {
    id(Kind::DeviceId, number)
}

/// An opt-out from selling that names these.
pub fn opt_out(channel: Channel, named: &[Named]) -> OptOut {
    OptOut {
        request: REQUEST,
        kind: RequestKind::OptOut,
        subject: None,
        named: named.to_vec(),
        purposes: SALE,
        channel,
        acted_at: None,
        by: BY,
        evidence: None,
    }
}

/// Everything that is stored, and the log it came from.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub memory: Memory,
    pub counters: Counters,
    pub now: i64,
    pub entries: Vec<Entry>,
    /// The verdicts that the batches reported, as a decision index would keep them.
    pub index: BTreeMap<IdentifierNo, Verdict>,
}

impl World {
    pub fn new() -> Self {
        Self { now: 1_000_000, ..Self::default() }
    }

    /// Runs one transaction.
    pub fn batch<T>(&mut self, commands: impl FnOnce(&mut Batch, &mut Memory) -> T) -> T {
        let mut batch = Batch::new(self.counters, self.now);
        let answer = commands(&mut batch, &mut self.memory);
        let Ok(changes) = batch.changes(&mut self.memory);
        self.memory.write(&changes);
        self.memory.keys.extend(batch.new_identifiers.iter().map(|(key, reference)| (*key, reference.0)));
        for (no, _, verdict) in &changes.identifiers {
            self.index.insert(*no, *verdict);
        }
        self.index.extend(changes.verdicts);
        self.counters = batch.counters;
        self.entries.append(&mut batch.entries);
        answer
    }

    pub fn no(&self, named: &Named) -> IdentifierNo {
        self.memory.keys[&named.key]
    }

    pub fn act(&mut self, act: OptOut) -> Result<Recorded, Refused> {
        self.batch(|batch, memory| batch.opt_out(memory, act)).expect("memory never fails")
    }

    /// A consumer opts out, naming these.
    pub fn opts_out(&mut self, named: &[Named]) -> Recorded {
        self.act(opt_out(Channel::Form, named)).expect("opt-outs are not refused")
    }

    pub fn link(&mut self, named: &[Named]) -> Result<Option<u64>, Refused> {
        self.batch(|batch, memory| batch.link(memory, named, BY)).expect("memory never fails")
    }

    pub fn unlink(&mut self, named: &[Named]) -> Result<Option<u64>, Refused> {
        self.batch(|batch, memory| batch.unlink(memory, named, BY)).expect("memory never fails")
    }

    /// Somebody logs in to an account on a device.
    pub fn log_in(&mut self, account: Named, device: Named) {
        self.link(&[account, device]).expect("there is room");
    }

    pub fn ask(&mut self, named: &[Named], channel: Channel) -> Result<OptInTarget, Refused> {
        self.batch(|batch, memory| {
            batch.ask_opt_in(memory, &OptInAsk { request: REQUEST, named, purposes: SALE, channel, by: BY, evidence: None })
        })
        .expect("memory never fails")
    }

    pub fn confirm(&mut self, target: &OptInTarget) {
        self.batch(|batch, memory| batch.confirm_opt_in(memory, REQUEST, target, SALE, Channel::Form, BY)).expect("memory never fails");
    }

    /// Both steps of an opt-in, a second later.
    pub fn opts_in(&mut self, named: &[Named]) {
        self.now += 1;
        let target = self.ask(named, Channel::Form).expect("one subject");
        self.confirm(&target);
    }

    /// The campaign system creates a profile that holds these.
    pub fn profile(&mut self, named: &[Named]) -> SubjectNo {
        self.batch(|batch, memory| {
            let subject = batch.new_subject();
            batch.emit(memory, Fact::ProfileCreated { subject, by: BY }).expect("memory never fails");
            batch.hold_exactly(memory, subject, &[], named, BY).expect("memory never fails");
            subject
        })
    }

    pub fn update(&mut self, subject: SubjectNo, old: &[Named], new: &[Named]) {
        self.batch(|batch, memory| batch.hold_exactly(memory, subject, old, new, BY)).expect("memory never fails");
    }

    pub fn delete(&mut self, subject: SubjectNo) {
        self.batch(|batch, memory| batch.delete_profile(memory, subject, BY)).expect("memory never fails");
    }

    /// The campaign system sets `ccpaOptOut` to true.
    pub fn api_true(&mut self, subject: SubjectNo, named: &[Named]) {
        self.act(OptOut { subject: Some(subject), ..opt_out(Channel::Api, named) }).expect("opt-outs are not refused");
    }

    /// The campaign system sets `ccpaOptOut` to false and nothing else.
    pub fn api_false(&mut self, subject: SubjectNo) -> ApiOptIn {
        self.batch(|batch, memory| batch.api_opt_in(memory, subject, SALE, true, true, BY)).expect("memory never fails")
    }

    pub fn subject_denied(&mut self, subject: SubjectNo) -> bool {
        let Ok(denied) = Graph::default().subject_denied(&mut self.memory, subject);
        denied.intersects(SALE)
    }

    /// The decision about selling the data of whoever these identifiers name.
    pub fn decision(&mut self, named: &[Named]) -> (Decision, Reason) {
        let verdicts: Vec<_> = named
            .iter()
            .filter_map(|one| {
                let Ok(no) = self.memory.find(&one.key);
                Some((one.kind, self.index.get(&no?).copied()?))
            })
            .collect();
        decide(SALE, false, verdicts, Context::default())
    }

    pub fn denied(&mut self, named: Named) -> bool {
        self.decision(&[named]).0 == Decision::Deny
    }
}
