//! A business's own purposes.

use desist_core::decision::{Context, Decision, Reason};
use desist_core::purpose::{Model, PurposeSet};
use desist_engine::engine::{Engine, OpenError};

use crate::support::{Home, audit, confirmed, email, facts_after, hang, opt_out, submit};

fn bits(engine: &Engine) -> Vec<(String, u32)> {
    let purposes = engine.shared().purposes.load();
    let mut bits: Vec<_> =
        purposes.iter().map(|(name, set, _)| (name.to_owned(), set.0.trailing_zeros())).filter(|(_, bit)| *bit >= 6).collect();
    bits.sort_by_key(|(_, bit)| *bit);
    bits
}

fn purposes(names: &[(&str, Model)]) -> Vec<(String, Model)> {
    names.iter().map(|(name, model)| ((*name).to_owned(), *model)).collect()
}

fn expected(names: &[&str]) -> Vec<(String, u32)> {
    names.iter().map(|name| (*name).to_owned()).zip(16..).collect()
}

#[test]
fn bits_are_given_once_in_order() {
    let mut home = Home::new(1);
    home.policy.purposes = purposes(&[("email_marketing", Model::OptIn), ("sms", Model::OptOut)]);
    let engine = home.open();
    assert_eq!(bits(&engine), expected(&["email_marketing", "sms"]));
    let entries = facts_after(&engine, 0).len();
    // In another order, and one that was taken out.
    home.policy.purposes = purposes(&[("sms", Model::OptOut)]);
    engine.declare(&home.policy).expect("nothing changes");
    home.policy.purposes = purposes(&[("sms", Model::OptOut), ("email_marketing", Model::OptIn), ("sale", Model::OptOut)]);
    engine.declare(&home.policy).expect("nothing changes");
    assert_eq!(facts_after(&engine, 0).len(), entries);
    assert_eq!(bits(&engine), expected(&["email_marketing", "sms"]));
    // A new name is a new purpose.
    home.policy.purposes = purposes(&[("texts", Model::OptOut), ("sms", Model::OptOut)]);
    engine.declare(&home.policy).expect("declared");
    assert_eq!(bits(&engine), expected(&["email_marketing", "sms", "texts"]));
    audit(&engine);
    engine.close();
    drop(engine);
    home.policy.purposes.reverse();
    let engine = home.open();
    assert_eq!(bits(&engine), expected(&["email_marketing", "sms", "texts"]));
    audit(&engine);
    engine.close();
}

#[test]
fn declaring_twice_at_once_gives_one_bit() {
    let mut home = Home::new(1);
    let engine = home.open();
    home.policy.purposes = purposes(&[("sms", Model::OptOut)]);
    let go = hang(&engine);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| engine.declare(&home.policy)));
        while engine.waiting() != (2, 0) {
            std::thread::yield_now();
        }
        drop(go);
        for one in both {
            one.join().expect("answered").expect("declared");
        }
    });
    assert_eq!(bits(&engine), expected(&["sms"]));
    assert_eq!(facts_after(&engine, 0), ["log_opened", "purpose_declared"]);
    assert!(engine.is_durable());
    audit(&engine);
    engine.close();
}

#[test]
fn a_model_never_changes() {
    let mut home = Home::new(1);
    home.policy.purposes = purposes(&[("email_marketing", Model::OptIn)]);
    let engine = home.open();
    let entries = facts_after(&engine, 0);
    for (name, model, was) in [("email_marketing", Model::OptOut, "\"opt_in\""), ("sale", Model::OptIn, "\"opt_out\"")] {
        home.policy.purposes = purposes(&[("new", Model::OptOut), (name, model)]);
        let refused = engine.declare(&home.policy).expect_err("refused");
        assert!(matches!(&refused, OpenError::ModelChanged(changed, before) if changed == name && *before == was), "{refused}");
    }
    assert_eq!(facts_after(&engine, 0), entries);
    assert_eq!(engine.shared().policy.load().purposes, purposes(&[("email_marketing", Model::OptIn)]), "the policy stays as it was");
    engine.close();
    drop(engine);
    assert!(matches!(home.try_open(), Err(OpenError::ModelChanged(..))));
    // The start that was refused holds nothing back.
    home.policy.purposes.clear();
    let engine = home.open();
    assert_eq!(facts_after(&engine, 0), entries);
    engine.close();
}

#[test]
fn a_store_has_room_for_48() {
    let mut home = Home::new(1);
    let names: Vec<String> = (0..49).map(|n| format!("purpose_{n:02}")).collect();
    home.policy.purposes = names[..47].iter().map(|name| (name.clone(), Model::OptOut)).collect();
    let engine = home.open();
    home.policy.purposes = names[46..].iter().map(|name| (name.clone(), Model::OptOut)).collect();
    let refused = engine.declare(&home.policy).expect_err("refused");
    assert!(matches!(&refused, OpenError::TooManyPurposes(name) if *name == names[48]), "{refused}");
    assert_eq!(bits(&engine).len(), 47, "refused whole");
    home.policy.purposes.pop();
    engine.declare(&home.policy).expect("the last");
    assert_eq!(bits(&engine).last(), Some(&(names[47].clone(), 63)));
    let last = engine.shared().purposes.load().get(&names[47]).expect("declared");
    let rosa = email(&engine, "rosa@example.com");
    submit(&engine, desist_engine::intake::NewRequest { purposes: last, ..opt_out(vec![rosa]) }).expect("taken");
    assert_eq!(engine.decide(last, &[rosa], Context::default()).decision, Decision::Deny);
    assert_eq!(engine.decide(PurposeSet::SALE, &[rosa], Context::default()).decision, Decision::Allow);
    audit(&engine);
    engine.close();
}

#[test]
fn an_opt_in_purpose_denies_until_somebody_opts_in() {
    let mut home = Home::new(1);
    home.policy.purposes = purposes(&[("email_marketing", Model::OptIn)]);
    let engine = home.open();
    let marketing = engine.shared().purposes.load().get("email_marketing").expect("declared");
    let rosa = email(&engine, "rosa@example.com");
    let decide = || {
        let decided = engine.decide(marketing, &[rosa], Context::default());
        (decided.decision, decided.reason)
    };
    assert_eq!(decide(), (Decision::Deny, Reason::NotOptedIn));
    assert_eq!(engine.decide(marketing, &[], Context::default()).decision, Decision::Deny);
    confirmed(&engine, vec![rosa], marketing);
    assert_eq!(decide(), (Decision::Allow, Reason::OptedIn));
    home.env.advance(1);
    submit(&engine, desist_engine::intake::NewRequest { purposes: marketing, ..opt_out(vec![rosa]) }).expect("taken");
    assert_eq!(decide(), (Decision::Deny, Reason::OptedOut));
    audit(&engine);
    engine.close();
}
