//! Whatever call fails, a command is done whole or not at all, once, and the engine goes on.

use std::collections::BTreeMap;
use std::sync::mpsc;

use desist_core::fact::{Actor, AlarmKind, Fact};
use desist_core::identifier::Kind;
use desist_core::purpose::PurposeSet;
use desist_engine::engine::Failure;
use desist_engine::notary::{Notary, RotateError};
use desist_engine::queue::Lane;
use desist_store::faulty::Fault;
use serde_json::Value;

use crate::story::{STEPS, Step, Story, state};
use crate::support::{Home, Opening, audit, email, facts_after, is_alarm, is_denied, log, opt_out, submit};

/// What a step does when nothing fails.
struct Expected {
    home: Home,
    answers: BTreeMap<&'static str, Value>,
    facts: Vec<String>,
    before: String,
    after: String,
}

/// Each step with the store as it is before it.
fn expected() -> Vec<(&'static Step, Expected)> {
    let mut home = Home::new(1);
    // With what identifiers are, each command writes and shreds more.
    home.policy.kinds_told.insert(Kind::Email);
    home.open().close();
    let mut answers = BTreeMap::new();
    let mut all = Vec::new();
    for (place, step) in (2..).zip(&STEPS) {
        let image = Home::image(&home, place);
        let engine = home.open();
        let mut story = Story { answers, ..Story::new(engine.clone()) };
        let (entries, before) = (log(&engine).len() as u64, state(&engine));
        let before_it = story.answers.clone();
        story.run(step).expect("nothing fails");
        audit(&engine);
        all.push((step, Expected { home: image, answers: before_it, facts: facts_after(&engine, entries), before, after: state(&engine) }));
        engine.close();
        answers = story.answers;
    }
    all
}

/// Runs one step over a store with this fault. Returns whether the fault came.
fn one(step: &Step, expected: &Expected, fault: Fault, seed: u64) -> bool {
    let at = format!("{}, {fault:?}", step.name);
    let home = Home::image(&expected.home, seed);
    home.plan(Opening::Fails(fault));
    let engine = home.open();
    let mut story = Story { engine: engine.clone(), answers: expected.answers.clone() };
    let entries = log(&engine).len() as u64;
    let Err(failure) = story.run(step) else {
        engine.close();
        assert_eq!(home.opened(), 1, "{at}: acknowledged although the store failed");
        return false;
    };
    assert_eq!(failure, Failure::NotDurable, "{at}");
    // Not before the store is open again.
    engine.submit_blocking(Lane::Interactive, |_| Ok(Ok(()))).unwrap_or_else(|failure| panic!("{at}: {failure}"));
    let committed = matches!(fault, Fault::AfterCommit(_));
    let facts: &[String] = if committed { &expected.facts } else { &[] };
    assert_eq!(facts_after(&engine, entries), facts, "{at}");
    assert_eq!(state(&engine), if committed { expected.after.as_str() } else { &expected.before }, "{at}");
    assert!(engine.is_durable() && engine.alarms().is_empty(), "{at}");
    let alarms: Vec<_> = log(&engine).into_iter().map(|entry| entry.fact).filter(is_alarm).collect();
    let kind = AlarmKind::NotDurable;
    assert_eq!(alarms, [Fact::AlarmRaised { kind, destination: None }, Fact::AlarmCleared { kind, destination: None }], "{at}");
    audit(&engine);
    // The client asks again, as it must after a 503.
    story.run(step).unwrap_or_else(|failure| panic!("{at}: {failure}"));
    assert_eq!(facts_after(&engine, entries), expected.facts, "{at}: asked again");
    assert_eq!(state(&engine), expected.after, "{at}: asked again");
    audit(&engine);
    engine.close();
    drop((engine, story));
    let engine = home.open();
    assert_eq!(state(&engine), expected.after, "{at}: opened again");
    audit(&engine);
    engine.close();
    true
}

#[test]
fn every_command_is_done_whole_or_not_at_all() {
    let mut seed = 1000;
    for (step, expected) in expected() {
        let kinds: [fn(u64) -> Fault; 3] = [Fault::Call, Fault::BeforeCommit, Fault::AfterCommit];
        for (kind, least) in kinds.into_iter().zip([4, 1, 1]) {
            let mut come = 0;
            while one(step, &expected, kind(come + 1), seed) {
                (come, seed) = (come + 1, seed + 1);
            }
            assert!(come >= least, "{}: {come} faults", step.name);
        }
    }
}

#[test]
fn the_first_start_is_whole_or_not_at_all() {
    for kind in [Fault::Call, Fault::BeforeCommit, Fault::AfterCommit] {
        let mut n = 1;
        loop {
            let home = Home::new(n);
            home.plan(Opening::Fails(kind(n)));
            let begun = home.try_open();
            let failed = begun.is_err();
            if let Ok((engine, first)) = begun {
                assert!(first);
                engine.close();
            }
            let (engine, first) = home.try_open().expect("opens");
            assert_eq!(first, failed && !matches!(kind(n), Fault::AfterCommit(_)));
            assert_eq!(facts_after(&engine, 0), ["log_opened"]);
            audit(&engine);
            engine.close();
            if !failed {
                break;
            }
            n += 1;
        }
        assert!(n > 1);
    }
}

/// Faults anywhere in a whole story, and again in the store that is opened after the first.
#[test]
fn a_story_survives_faults_in_a_row() {
    let first = Home::new(5);
    let engine = first.open();
    let mut whole = Story::new(engine.clone());
    whole.run_all();
    let (facts, after) = (facts_after(&engine, 0), state(&engine));
    engine.close();
    let transactions = STEPS.len() as u64 + 1;
    for n in 2..=transactions {
        let home = Home::new(100 + n);
        // Lookup keys are the same only under the same pepper.
        std::fs::create_dir(home.keys()).expect("made");
        for name in ["pepper.key", "master.key", "log.key"] {
            std::fs::copy(first.keys().join(name), home.keys().join(name)).expect("copied");
        }
        home.plan(Opening::Fails(if n % 2 == 0 { Fault::AfterCommit(n) } else { Fault::BeforeCommit(n) }));
        home.plan(Opening::Refused);
        home.plan(Opening::Fails(if n % 3 == 0 { Fault::BeforeCommit(1) } else { Fault::AfterCommit(1) }));
        home.plan(Opening::Fails(Fault::Call(2)));
        let engine = home.open();
        let mut story = Story::new(engine.clone());
        let mut failures = 0;
        for step in &STEPS {
            while let Err(failure) = story.run(step) {
                assert_eq!(failure, Failure::NotDurable, "{}", step.name);
                failures += 1;
                assert!(failures < 20, "{}: it does not recover", step.name);
            }
        }
        assert!(failures > 0, "{n}");
        audit(&engine);
        assert_eq!(facts_after(&engine, 0), facts, "{n}");
        assert_eq!(state(&engine), after, "{n}");
        engine.close();
    }
}

#[test]
fn durability_comes_back_by_itself() {
    let home = Home::new(7);
    let (go, wait) = mpsc::channel();
    home.plan(Opening::Fails(Fault::BeforeCommit(2)));
    home.plan(Opening::Refused);
    home.plan(Opening::Waits(wait));
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    assert_eq!(submit(&engine, opt_out(vec![rosa])), Err(Failure::NotDurable));
    assert!(!engine.is_durable());
    assert_eq!(engine.alarms(), [(AlarmKind::NotDurable.into(), home.env.now())]);
    assert!(!is_denied(&engine, PurposeSet::SALE, &[rosa]), "decisions go on, with what is known");
    go.send(()).expect("the writer waits");
    // Nobody writes: the writer sees by itself that its store works again.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !engine.is_durable() {
        assert!(std::time::Instant::now() < patience, "it does not come back");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    assert!(engine.alarms().is_empty());
    assert_eq!(log(&engine).iter().filter(|entry| is_alarm(&entry.fact)).count(), 2);
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    audit(&engine);
    engine.close();
}

#[test]
fn a_change_of_the_logs_key_that_fails_loses_no_key() {
    let faults = [Fault::BeforeCommit(1), Fault::AfterCommit(1), Fault::Call(1), Fault::Call(5), Fault::Call(9)];
    for (seed, fault) in (200..).zip(faults) {
        let home = Home::new(seed);
        home.open().close();
        home.plan(Opening::Fails(fault));
        let engine = home.open();
        let first = engine.shared().notary.verifier();
        let failed = Notary::rotate(&engine, false, Actor::Local);
        assert!(matches!(failed, Err(RotateError::Failure(Failure::NotDurable))), "{fault:?}: {failed:?}");
        // What was announced as not durable may have happened all the same; either way the log goes on.
        engine.submit_blocking(Lane::Interactive, |_| Ok(Ok(()))).unwrap_or_else(|failure| panic!("{fault:?}: {failure}"));
        let second = Notary::rotate(&engine, false, Actor::Local).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        let verifiers = engine.shared().notary.verifiers();
        assert_eq!(verifiers[0], second, "{fault:?}");
        assert_eq!(verifiers.get(1), Some(&first), "{fault:?}: the one before signs along");
        let rotations = log(&engine).into_iter().filter(|entry| matches!(entry.fact, Fact::KeyRotated { .. })).count();
        assert_eq!(rotations, 1, "{fault:?}: asked for again, it is done once");
        submit(&engine, opt_out(vec![email(&engine, "rosa@example.org")])).expect("taken");
        engine.close();
        let engine = home.open();
        assert_eq!(engine.shared().notary.verifiers(), verifiers, "{fault:?}: after a restart");
        assert_eq!(engine.alarms(), [], "{fault:?}");
        engine.close();
    }
}
