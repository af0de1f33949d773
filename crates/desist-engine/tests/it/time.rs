//! Clocks that are set back, and everything that ends after a while.

use desist_core::fact::{Actor, Channel};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Refused;
use desist_engine::engine::{Failure, Refusal};
use desist_engine::intake::{self, Accepted, Idempotency, NewRequest, once};
use desist_engine::queue::Lane;
use jiff::tz::TimeZone;

use crate::support::{Home, START, audit, confirm, confirmed, email, is_denied, log, opt_in, opt_out, submit};

const DAY: i64 = 86_400;

#[test]
fn a_clock_that_was_set_back_never_weakens_an_opt_out() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    home.env.advance(60);
    confirmed(&engine, vec![rosa], PurposeSet::OPT_OUT_DEFAULT);
    assert!(!is_denied(&engine, PurposeSet::SALE, &[rosa]));
    home.env.set(START - 30 * DAY);
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]), "the opt-in was before");
    // And over a restart, where only the log knows the time.
    confirmed(&engine, vec![rosa], PurposeSet::OPT_OUT_DEFAULT);
    assert!(!is_denied(&engine, PurposeSet::SALE, &[rosa]));
    engine.close();
    home.env.set(START - 60 * DAY);
    let engine = home.open();
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    let times: Vec<_> = log(&engine).iter().map(|entry| entry.at).collect();
    assert!(times.is_sorted(), "{times:?}");
    audit(&engine);
    engine.close();
}

#[test]
fn a_clock_that_was_set_back_gives_no_more_time_to_confirm() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    let asked = submit(&engine, opt_in(vec![rosa], PurposeSet::SALE)).expect("asked");
    home.env.advance(40 * 60);
    submit(&engine, opt_out(vec![email(&engine, "other@example.com")])).expect("taken");
    home.env.set(START - 60);
    assert_eq!(confirm(&engine, &asked), Err(Failure::Refused(Refusal::Expired)));
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    engine.close();
}

#[test]
fn an_opt_in_is_confirmed_within_thirty_minutes() {
    let home = Home::new(1);
    let engine = home.open();
    let [rosa, vega] = ["rosa@example.com", "vega@example.com"].map(|one| email(&engine, one));
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    submit(&engine, opt_out(vec![vega])).expect("taken");
    home.env.advance(1);
    let late = submit(&engine, opt_in(vec![rosa], PurposeSet::OPT_OUT_DEFAULT)).expect("asked");
    home.env.advance(1);
    let in_time = submit(&engine, opt_in(vec![vega], PurposeSet::OPT_OUT_DEFAULT)).expect("asked");
    assert!(late.awaiting && is_denied(&engine, PurposeSet::SALE, &[rosa]), "the first step changes nothing");
    home.env.advance(30 * 60);
    assert_eq!(confirm(&engine, &late), Err(Failure::Refused(Refusal::Expired)));
    let id = in_time.id;
    let wrong = engine.submit_blocking(Lane::Interactive, move |ctx| intake::confirm(ctx, id, "wrong", Actor::Consumer));
    assert_eq!(wrong, Err(Failure::Refused(Refusal::WrongToken)));
    assert!(!confirm(&engine, &in_time).expect("in time").awaiting);
    assert_eq!(confirm(&engine, &in_time), Err(Failure::Refused(Refusal::NotWaiting)));
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]) && !is_denied(&engine, PurposeSet::SALE, &[vega]));
    audit(&engine);
    engine.close();
}

#[test]
fn an_answer_is_remembered_for_two_days() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    let send = |body: u8| -> Result<Accepted, Failure> {
        let idempotency = Idempotency { scope: [1; 32], body: [body; 32] };
        engine
            .submit_blocking(Lane::Interactive, move |ctx| once(ctx, Some(&idempotency), |ctx| intake::request(ctx, &opt_out(vec![rosa]))))
    };
    let first = send(1).expect("taken");
    home.env.advance(48 * 3600);
    assert_eq!(send(1).expect("remembered"), first);
    assert_eq!(send(2), Err(Failure::Refused(Refusal::OtherBody)));
    home.env.advance(1);
    let second = send(2).expect("forgotten, so a new request");
    assert_ne!(second.id, first.id);
    assert_eq!(send(2).expect("remembered"), second);
    home.env.set(START);
    assert_eq!(send(2).expect("remembered under a clock that was set back"), second);
    audit(&engine);
    engine.close();
}

#[test]
fn deadlines_count_from_the_day_of_the_consumer_where_the_business_is() {
    let mut home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    // Received much later than the consumer acted, late in the evening of 2026-03-09 in California.
    home.env.set(START + 9 * DAY);
    let asked = NewRequest { acted_at: Some(START), channel: Channel::Mail, ..opt_out(vec![rosa]) };
    let due = |accepted: Accepted| (accepted.deadline, accepted.deadline_conventional);
    let days = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(due(submit(&engine, asked.clone()).expect("taken")), days("2026-03-26", "2026-03-30"));
    home.policy.time_zone = TimeZone::UTC;
    engine.declare(&home.policy).expect("taken over");
    assert_eq!(due(submit(&engine, asked.clone()).expect("taken")), days("2026-03-27", "2026-03-31"));
    let now = NewRequest { acted_at: None, ..asked.clone() };
    let given = NewRequest { acted_at: Some(START + 9 * DAY), ..asked };
    assert_eq!(due(submit(&engine, now).expect("taken")), due(submit(&engine, given).expect("taken")));
    engine.close();
}

#[test]
fn nobody_acts_later_than_now() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    let at = |seconds| NewRequest { acted_at: Some(START + seconds), ..opt_out(vec![rosa]) };
    assert_eq!(submit(&engine, at(301)), Err(Failure::Refused(Refusal::Rules(Refused::Future))));
    assert_eq!(log(&engine).len(), 1);
    assert!(!is_denied(&engine, PurposeSet::SALE, &[rosa]));
    submit(&engine, at(300)).expect("clocks differ a little");
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    audit(&engine);
    engine.close();
}
