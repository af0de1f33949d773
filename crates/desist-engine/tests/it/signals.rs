//! Global Privacy Control: recorded once where somebody proved is named, else counted.

use desist_core::decision::{Context, Decision, Reason};
use desist_core::fact::{Actor, Channel, Fact};
use desist_core::identifier::Kind;
use desist_core::purpose::PurposeSet;
use desist_engine::engine::Engine;
use desist_engine::intake::{self, NewRequest};
use desist_engine::queue::Lane;

use crate::support::{Home, START, audit, email, facts_after, hang, is_denied, log, named, opt_out, settle, submit};

const GPC: Context = Context { gpc: true, age_band: None };

fn counted(engine: &Engine) -> Vec<(i64, u64)> {
    let facts = log(engine).into_iter().map(|entry| entry.fact);
    facts.filter_map(|fact| if let Fact::SignalsHonoured { day, count } = fact { Some((day, count)) } else { None }).collect()
}

#[test]
fn accounts_and_devices_are_recorded_once_and_e_mails_never() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    engine.note_signal(&[rosa], &[], GPC, Actor::Key(1));
    engine.note_signal(&[named(&engine, Kind::CookieId, "k0")], &[], Context::default(), Actor::Key(1));
    settle(&engine);
    assert_eq!(facts_after(&engine, 0), ["log_opened"]);
    for (kind, value) in [(Kind::CustomerId, "c1"), (Kind::CampaignPkey, "p1"), (Kind::CookieId, "k1"), (Kind::DeviceId, "d1")] {
        let (one, before) = (named(&engine, kind, value), log(&engine).len() as u64);
        // Both come before either is recorded.
        let go = hang(&engine);
        engine.note_signal(&[rosa, one], &[], GPC, Actor::Key(1));
        engine.note_signal(&[one], &[], GPC, Actor::Key(1));
        drop(go);
        settle(&engine);
        engine.note_signal(&[one, rosa], &[], GPC, Actor::Key(1));
        settle(&engine);
        assert_eq!(facts_after(&engine, before), ["opted_out"], "{kind}");
        assert!(is_denied(&engine, PurposeSet::GPC, &[one]) && !is_denied(&engine, PurposeSet::PROFILING, &[one]), "{kind}");
    }
    assert!(!is_denied(&engine, PurposeSet::SALE, &[rosa]));
    let recorded = log(&engine)
        .into_iter()
        .filter_map(|entry| if let Fact::OptedOut { channel, purposes, .. } = entry.fact { Some((channel, purposes)) } else { None });
    assert!(recorded.eq([(Channel::Gpc, PurposeSet::GPC); 4]));
    audit(&engine);
    engine.close();
}

#[test]
fn honoured_signals_are_counted_in_one_fact() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    engine.record_signals().expect("nothing to record");
    for purpose in [PurposeSet::SALE, PurposeSet::SHARING, PurposeSet::TARGETED_ADVERTISING] {
        let decided = engine.decide(purpose, &[rosa], GPC);
        assert_eq!((decided.decision, decided.reason), (Decision::Deny, Reason::Gpc));
    }
    assert_eq!(engine.decide(PurposeSet::PROFILING, &[rosa], GPC).decision, Decision::Allow, "a signal denies nothing else");
    let day = START.div_euclid(86_400);
    engine.record_signals().expect("recorded");
    engine.record_signals().expect("nothing to record");
    assert_eq!(counted(&engine), [(day, 3)]);
    engine.decide(PurposeSet::SALE, &[rosa], GPC);
    home.env.advance(86_400);
    engine.close();
    drop(engine);
    let engine = home.open();
    assert_eq!(counted(&engine), [(day, 3), (day + 1, 1)], "closing keeps the count");
    audit(&engine);
    engine.close();
}

#[test]
fn a_count_that_was_not_made_durable_is_kept_for_the_next_time() {
    let home = Home::new(1);
    home.plan(crate::support::Opening::Fails(desist_store::faulty::Fault::BeforeCommit(2)));
    let engine = home.open();
    engine.decide(PurposeSet::SALE, &[email(&engine, "rosa@example.com")], GPC);
    engine.record_signals().expect_err("the store fails");
    engine.record_signals().expect("recorded");
    assert_eq!(counted(&engine), [(START.div_euclid(86_400), 1)]);
    engine.close();
}

#[test]
fn a_signal_counts_although_an_api_client_denied_before() {
    let home = Home::new(5);
    let engine = home.open();
    let account = named(&engine, Kind::CampaignPkey, "p1");
    // The account exists and an API client denied everything that a signal would.
    let device = named(&engine, Kind::DeviceId, "d1");
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::link(ctx, &[account, device], &[], Actor::Key(1))).unwrap();
    submit(&engine, NewRequest { channel: Channel::Api, ..opt_out(vec![account]) }).unwrap();
    assert!(is_denied(&engine, PurposeSet::GPC, &[account]));
    let before = log(&engine).len() as u64;
    for _ in 0..3 {
        engine.note_signal(&[account], &[], GPC, Actor::Key(1));
        settle(&engine);
    }
    assert_eq!(facts_after(&engine, before), ["opted_out"]);
    engine.close();
}
