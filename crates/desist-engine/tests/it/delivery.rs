//! Destinations are told what holds, through whatever happens to them and to us.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desist_core::fact::{Actor, Fact, RequestKind};
use desist_core::identifier::Kind;
use desist_core::lane::{Assurance, Config, Level, Outcome, State};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{Act, Class, Destination, Enforcement};
use desist_engine::engine::Engine;
use desist_engine::intake::{Accepted, NewRequest};

use crate::support::{Home, audit, confirmed, email, given, log, named, opt_out, submit, wait_until};

/// A system that must be told, in memory: what it was told of each digest, and how it answers.
#[derive(Default)]
pub struct World {
    told: Mutex<BTreeMap<[u8; 32], (u64, PurposeSet)>>,
    messages: Mutex<Vec<Arc<Message>>>,
    fails: Mutex<Option<Outcome>>,
}

impl World {
    fn denied(&self, text: &str) -> Option<PurposeSet> {
        let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), text)).into();
        self.told.lock().expect("whole").get(&digest).map(|(_, denied)| *denied)
    }

    fn count(&self) -> usize {
        self.messages.lock().expect("whole").len()
    }

    fn fail(&self, outcome: Option<Outcome>) {
        *self.fails.lock().expect("whole") = outcome;
    }
}

impl Transport for World {
    fn start(&self, errand: Errand, _: Duration, done: Done) {
        if let Some(outcome) = self.fails.lock().expect("whole").clone() {
            return done(Ended::all(outcome));
        }
        if let Errand::Send(messages) = errand {
            for message in messages {
                for known in &message.identifiers {
                    let mut told = self.told.lock().expect("whole");
                    let last = told.entry(known.sha256).or_default();
                    if message.version >= last.0 {
                        *last = (message.version, message.denied);
                    }
                }
                self.messages.lock().expect("whole").push(message);
            }
        }
        done(Ended::all(Outcome::Ok(Level::Applied)));
    }

    fn reaches(&self, message: &Message) -> bool {
        message.identifiers.iter().any(|known| known.kind == Kind::Email)
    }
}

pub fn destination(id: &str, transport: Arc<dyn Transport>) -> Destination {
    let seed = id.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    Destination {
        id: id.to_owned(),
        connector: "test".to_owned(),
        class: Class::ThirdParty,
        purposes: PurposeSet::GPC,
        digest: [1; 32],
        lane: Config { floor: Level::Applied, ..Config::plain(seed) },
        required: Level::Applied,
        ceiling: Level::Applied,
        resend_ms: None,
        through: None,
        owner: None,
        transport: Ok(transport),
    }
}

pub fn home(seed: u64) -> Home {
    let mut home = Home::new(seed);
    home.policy.kinds_told = [Kind::Email, Kind::CustomerId].into();
    home
}

pub fn out(engine: &Engine, address: &str) -> Accepted {
    let new = NewRequest { given: given(engine, Kind::Email, address), ..opt_out(vec![email(engine, address)]) };
    submit(engine, new).expect("taken")
}

fn enforcement(engine: &Engine, accepted: &Accepted) -> Enforcement {
    let row = engine.read(|read| read.request(accepted.id)).expect("reads").expect("there");
    engine.enforcement(&row).expect("asked").0
}

#[test]
fn who_opted_out_before_and_after_is_told_once_and_an_opt_in_too() {
    let home = home(1);
    let engine = home.open();
    let before = out(&engine, "rosa@example.org");
    let world = Arc::new(World::default());
    engine.deliver(vec![destination("crm", world.clone())]).expect("delivers");
    assert_eq!(engine.destinations().expect("asked")[0].id, "crm");
    let after = out(&engine, "vega@example.org");
    for (accepted, address) in [(&before, "rosa@example.org"), (&after, "vega@example.org")] {
        wait_until("told", || world.denied(address) == Some(PurposeSet::GPC));
        wait_until("enforced", || enforcement(&engine, accepted) == Enforcement::Enforced);
    }
    assert_eq!(world.count(), 2);
    wait_until("the scan is a fact", || log(&engine).iter().any(|entry| matches!(entry.fact, Fact::CaughtUp { destination: 1, .. })));
    let rosa = email(&engine, "rosa@example.org");
    confirmed(&engine, vec![rosa], PurposeSet::SALE);
    wait_until("the opt-in is told", || world.denied("rosa@example.org") == Some(PurposeSet::GPC.without(PurposeSet::SALE)));
    engine.close();
    let engine = home.open();
    audit(&engine);
    engine.deliver(vec![destination("crm", world.clone())]).expect("delivers");
    wait_until("running", || engine.destinations().expect("asked")[0].lane.is_some_and(|lane| lane.state == State::Running));
    out(&engine, "third@example.org");
    wait_until("told", || world.denied("third@example.org").is_some());
    assert_eq!(world.count(), 4, "a clean restart says nothing again");
    engine.close();
}

#[test]
fn nobody_is_enforced_while_the_destination_fails_and_all_are_afterwards() {
    let home = home(2);
    let engine = home.open();
    let (world, other) = (Arc::new(World::default()), Arc::new(World::default()));
    let failed = Outcome::Failed { failure: desist_core::lane::Failure::Server, retry_after_ms: None };
    world.fail(Some(failed));
    engine.deliver(vec![destination("crm", world.clone()), destination("ads", other.clone())]).expect("delivers");
    let rosa = out(&engine, "rosa@example.org");
    wait_until("the other one is told", || other.denied("rosa@example.org").is_some());
    let backs_off =
        |engine: &Engine| engine.destinations().expect("asked")[0].lane.is_some_and(|lane| matches!(lane.state, State::BackingOff { .. }));
    wait_until("it backs off", || backs_off(&engine));
    assert_eq!(enforcement(&engine, &rosa), Enforcement::Received);
    engine.act("crm", Act::Pause, Actor::Local).expect("paused");
    world.fail(None);
    engine.act("crm", Act::TryNow, Actor::Local).expect("tried");
    assert_eq!((world.count(), engine.destinations().expect("asked")[0].lane.expect("a lane").state), (0, State::Paused));
    engine.act("crm", Act::Resume, Actor::Local).expect("goes on");
    wait_until("enforced", || enforcement(&engine, &rosa) == Enforcement::Enforced);
    engine.close();
}

#[test]
fn whom_a_destination_cannot_know_is_unreachable_and_no_longer_once_a_link_names_them() {
    let home = home(3);
    let engine = home.open();
    let world = Arc::new(World::default());
    engine.deliver(vec![destination("crm", world.clone())]).expect("delivers");
    let account = named(&engine, Kind::CustomerId, "c-1");
    let new = NewRequest { given: given(&engine, Kind::CustomerId, "c-1"), ..opt_out(vec![account]) };
    let accepted = submit(&engine, new).expect("taken");
    wait_until("unreachable", || enforcement(&engine, &accepted) == Enforcement::Unreachable);
    let rosa = email(&engine, "rosa@example.org");
    let known = given(&engine, Kind::Email, "rosa@example.org");
    engine
        .submit_blocking(desist_engine::queue::Lane::Interactive, move |ctx| {
            let linked = desist_engine::intake::link(ctx, &[account, rosa], &known, Actor::Local)?;
            Ok(linked.map(|_| ()))
        })
        .expect("linked");
    wait_until("told", || world.denied("rosa@example.org") == Some(PurposeSet::GPC));
    wait_until("enforced", || enforcement(&engine, &accepted) == Enforcement::Enforced);
    let standing = &engine.enforcement(&engine.read(|read| read.request(accepted.id)).unwrap().unwrap()).unwrap().1[0];
    assert_eq!(standing.assurance, Assurance::At(Level::Applied));
    engine.close();
}

#[test]
fn a_destination_that_is_told_by_hand_waits_for_somebody_to_say_so() {
    let home = home(4);
    let engine = home.open();
    let world = Arc::new(World::default());
    let by_hand = || Destination { through: Some(0), ..destination("fax", world.clone()) };
    engine.deliver(vec![by_hand()]).expect("delivers");
    let (rosa, vega) = (out(&engine, "rosa@example.org"), out(&engine, "vega@example.org"));
    let (tasks, _) = engine.present("fax", 0, 10).expect("asked");
    assert_eq!(tasks.len(), 2);
    assert_eq!((enforcement(&engine, &rosa), world.count()), (Enforcement::Received, 0));
    engine.told_by_hand("fax", rosa.seq, b"{\"by\":\"Ann\"}", Actor::Local).expect("told");
    wait_until("enforced", || enforcement(&engine, &rosa) == Enforcement::Enforced);
    assert_eq!(enforcement(&engine, &vega), Enforcement::Received);
    engine.close();
    let engine = home.open();
    audit(&engine);
    engine.deliver(vec![by_hand()]).expect("delivers");
    wait_until("enforced", || enforcement(&engine, &rosa) == Enforcement::Enforced);
    assert_eq!(enforcement(&engine, &vega), Enforcement::Received);
    let seq = engine.applied();
    engine.told_by_hand("fax", seq, b"{\"by\":\"Ann\"}", Actor::Local).expect("told");
    wait_until("enforced", || enforcement(&engine, &vega) == Enforcement::Enforced);
    engine.close();
}

#[test]
fn a_request_is_enforced_for_what_it_asks_and_while_it_stands() {
    let home = home(5);
    let engine = home.open();
    let world = Arc::new(World::default());
    engine.deliver(vec![destination("crm", world.clone())]).expect("delivers");
    let sale = out(&engine, "rosa@example.org");
    wait_until("enforced", || enforcement(&engine, &sale) == Enforcement::Enforced);
    // Nobody is bound to this: that another request was told proves nothing about it.
    let rosa = email(&engine, "rosa@example.org");
    let limit = NewRequest { kind: RequestKind::Limit, purposes: PurposeSet::LIMIT_SENSITIVE, ..opt_out(vec![rosa]) };
    let limit = submit(&engine, limit).expect("taken");
    assert_eq!(enforcement(&engine, &limit), Enforcement::Received);
    // An *allow* that arrives enforces no opt-out.
    confirmed(&engine, vec![rosa], PurposeSet::GPC);
    wait_until("the opt-in is told", || world.denied("rosa@example.org") == Some(PurposeSet::EMPTY));
    assert_eq!(enforcement(&engine, &sale), Enforcement::Received);
    engine.close();
}

#[test]
fn a_pause_holds_however_early_it_comes_and_through_another_configuration() {
    let home = home(6);
    let engine = home.open();
    out(&engine, "rosa@example.org");
    let (world, other) = (Arc::new(World::default()), Arc::new(World::default()));
    let crm = |digest| Destination { digest: [digest; 32], ..destination("crm", world.clone()) };
    engine.deliver(vec![crm(1), destination("ads", other.clone())]).expect("delivers");
    engine.act("crm", Act::Pause, Actor::Local).expect("paused");
    engine.deliver(vec![crm(2), destination("ads", other.clone())]).expect("delivers");
    out(&engine, "vega@example.org");
    let state = || engine.destinations().expect("asked")[0].lane.map(|lane| lane.state);
    wait_until("paused", || state() == Some(State::Paused));
    wait_until("the other one is told", || other.denied("vega@example.org").is_some());
    // The first pause can come before or after the first message; the second configuration begins paused.
    assert_eq!(world.denied("vega@example.org"), None);
    engine.act("crm", Act::Resume, Actor::Local).expect("goes on");
    wait_until("told", || world.denied("vega@example.org").is_some());
    engine.close();
}

#[test]
fn what_was_told_by_hand_counts_for_what_it_was_about() {
    let home = home(7);
    let engine = home.open();
    let world = Arc::new(World::default());
    let by_hand = |generation, purposes, digest| Destination {
        through: Some(0),
        purposes,
        digest: [digest; 32],
        lane: Config { generation, ..destination("fax", world.clone()).lane },
        ..destination("fax", world.clone())
    };
    engine.deliver(vec![by_hand(1, PurposeSet::SALE, 1)]).expect("delivers");
    let rosa = out(&engine, "rosa@example.org");
    engine.told_by_hand("fax", rosa.seq, b"{\"by\":\"Ann\"}", Actor::Local).expect("told");
    wait_until("enforced", || enforcement(&engine, &rosa) == Enforcement::Enforced);
    engine.deliver(vec![by_hand(2, PurposeSet::SALE.union(PurposeSet::SHARING), 2)]).expect("delivers");
    wait_until("it is to be told again", || enforcement(&engine, &rosa) == Enforcement::Received);
    assert_eq!(engine.destinations().expect("asked")[0].through, Some(0));
    engine.close();
}
