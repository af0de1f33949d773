//! One promise each, and each limit reached.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::lane::{
    Alarm, Assurance, Config, ConfigError, Failure, Input, Jobs, Level, Need, News, Now, Observed, Outcome, Patrol, PatrolKind, Reason,
    Replay, Report, Saved, Sending, State, Target,
};
use desist_core::limits::{
    AHEAD_MAX, ALLOWS_MAX, ALONE_MAX, ATTEMPTS_MAX, BATCH_ITEMS_MAX, BREAKER_DELAY_MS_MAX, CONCURRENCY_MAX, DEAD_MAX, FETCH_MAX,
    JOB_HANDLE_BYTES_MAX, PARKED_MAX, PATROL_TRIES_MAX, PATROLS_MAX, PENDING_MAX, RATES_MAX, RETRY_AFTER_MS_MAX, RETRY_DELAY_MS_MAX,
    WINDOW_LARGE_MAX, WINDOW_MAX,
};
use proptest::prelude::*;

use super::rig::{Rig, change, crowd, fine};
use super::world::at;

const DAY: u64 = 86_400_000;
const HOUR: u64 = 3_600_000;

fn plain() -> Config {
    Config { floor: Level::Applied, ..Config::plain(1) }
}

fn large() -> Config {
    Config { batch_items: 1_000, ..plain() }
}

fn down(failure: Failure) -> Outcome {
    Outcome::Failed { failure, retry_after_ms: None }
}

fn refused(is_retryable: bool) -> Report {
    Report::Failed { is_retryable, code: 1 }
}

fn each(targets: &[Sending], report: Report) -> Vec<(Target, Report)> {
    targets.iter().map(|sending| (sending.target, report)).collect()
}

#[test]
fn every_configuration_has_bounds() {
    let patrol = Patrol { kind: PatrolKind::Read, period_ms: 1 };
    let rate = "1/1s".parse().unwrap();
    let jobs = Jobs { every_ms: 1, give_up_ms: 2 };
    let cases: [(Config, Config, ConfigError); 9] = [
        (Config { batch_items: BATCH_ITEMS_MAX, ..plain() }, Config { batch_items: BATCH_ITEMS_MAX + 1, ..plain() }, ConfigError::Batch),
        (Config { batch_items: 1, ..plain() }, Config { batch_items: 0, ..plain() }, ConfigError::Batch),
        (
            Config { concurrency: CONCURRENCY_MAX, ..plain() },
            Config { concurrency: CONCURRENCY_MAX + 1, ..plain() },
            ConfigError::Concurrency,
        ),
        (Config { rates: vec![rate; RATES_MAX], ..plain() }, Config { rates: vec![rate; RATES_MAX + 1], ..plain() }, ConfigError::Rates),
        (
            Config { request_timeout_ms: 9, lease_ms: 20, ..plain() },
            Config { request_timeout_ms: 10, lease_ms: 20, ..plain() },
            ConfigError::Timeout,
        ),
        (Config { attempts_max: ATTEMPTS_MAX, ..plain() }, Config { attempts_max: ATTEMPTS_MAX + 1, ..plain() }, ConfigError::Attempts),
        (
            Config { retry_delay_ms: RETRY_DELAY_MS_MAX, ..plain() },
            Config { retry_delay_ms: RETRY_DELAY_MS_MAX + 1, ..plain() },
            ConfigError::Attempts,
        ),
        (
            Config { patrols: vec![patrol; PATROLS_MAX], ..plain() },
            Config { patrols: vec![patrol; PATROLS_MAX + 1], ..plain() },
            ConfigError::Patrols,
        ),
        (Config { jobs, ..plain() }, Config { jobs: Jobs { give_up_ms: 1, ..jobs }, ..plain() }, ConfigError::Jobs),
    ];
    for (good, bad, error) in cases {
        assert_eq!(good.check(), Ok(()));
        assert_eq!(bad.check(), Err(error));
    }
}

#[test]
fn the_earliest_deadline_goes_first_and_strangers_last_among_equals() {
    let feed = vec![change(1, 1, 500, 0), change(2, 2, 300, 1), change(3, 3, 300, 0), change(4, 4, 900, 0), change(5, 5, 300, 0)];
    let mut rig = Rig::new(plain(), feed);
    rig.run(10, &mut fine);
    let order: Vec<_> = rig.sends.iter().map(|(_, targets)| targets[0].0).collect();
    assert_eq!(order, [3, 5, 2, 1, 4]);
    let feed = vec![change(1, 1, 0, 0), change(2, 2, 900, 1), change(3, 3, -5, 0), change(4, 4, 300, 0)];
    let mut rig = Rig::new(plain(), feed);
    rig.run(10, &mut fine);
    let order: Vec<_> = rig.sends.iter().map(|(_, targets)| targets[0].0).collect();
    assert_eq!(order, [4, 2, 1, 3], "without a deadline there is time");
}

#[test]
fn a_lane_holds_a_bounded_part_of_the_feed() {
    let many = Config { batch_items: BATCH_ITEMS_MAX, concurrency: CONCURRENCY_MAX, ..plain() };
    for (config, held) in [(plain(), WINDOW_MAX), (many, WINDOW_LARGE_MAX)] {
        let mut rig = Rig::new(config, crowd(WINDOW_LARGE_MAX as u64 + 10_000));
        rig.run(60_000, &mut |_, _| (down(Failure::Connect), Vec::new()));
        // It does not read a page for the last few.
        assert!((held - held / 32..=held).contains(&rig.status().unresolved), "{} of {held}", rig.status().unresolved);
        assert!(held.is_multiple_of(FETCH_MAX) || held > FETCH_MAX, "it takes several pages");
    }
}

#[test]
fn what_goes_before_its_turn_is_bounded() {
    // Every second one is urgent, so each that is sent leaves a gap.
    let late = |seq: u64| if seq.is_multiple_of(2) { 1_000 } else { 1_000_000 };
    let feed: Vec<_> = (1..=4_000).map(|seq| change(seq, seq, late(seq), 0)).collect();
    let mut rig = Rig::new(plain(), feed);
    rig.takes = 10;
    rig.run(60_000, &mut fine);
    assert_eq!(rig.longest_ahead, AHEAD_MAX);
    let place = |target| rig.sends.iter().position(|(_, targets)| targets[0] == Target(target)).unwrap();
    assert!(place(1) < place(4_000), "the oldest does not wait for all that are more urgent");
    assert_eq!(rig.sends.len(), 4_000);
}

#[test]
fn too_many_parked_stop_the_lane_until_they_are_delivered() {
    let mut rig = Rig::new(large(), crowd(PARKED_MAX as u64 + 3_000));
    rig.run(60_000, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(true))));
    assert_eq!((rig.status().parked, rig.status().state), (PARKED_MAX, State::StoppedTooManyParked));
    assert!(rig.store.head.cursor <= PARKED_MAX as u64 && rig.news.contains(&News::AlarmRaised(Alarm::Stopped)));
    rig.run(DAY, &mut fine);
    assert_eq!((rig.status().parked, rig.status().state), (0, State::Running));
    assert!(rig.news.contains(&News::AlarmCleared(Alarm::Stopped)) && rig.store.head.cursor == PARKED_MAX as u64 + 3_000);
}

#[test]
fn too_many_dead_letters_stop_the_lane_and_all_can_be_replayed() {
    let mut rig = Rig::new(large(), crowd(DEAD_MAX as u64 + 3_000));
    rig.run(HOUR, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(false))));
    assert_eq!((rig.status().dead, rig.status().state), (DEAD_MAX, State::StoppedTooManyParked));
    for round in 1..=12 {
        rig.replay(Replay::All);
        rig.run(60_000, &mut fine);
        assert_eq!(rig.replayed, (round * PARKED_MAX).min(DEAD_MAX));
    }
    assert_eq!((rig.status().dead, rig.status().state), (0, State::Running));
    assert!(rig.news.contains(&News::AlarmRaised(Alarm::DeadLetter)) && rig.store.head.alarms.is_empty());
}

#[test]
fn dead_letters_are_replayed_one_by_one_and_by_range() {
    let mut rig = Rig::new(plain(), crowd(9));
    rig.run(1_000, &mut |_, targets| (Outcome::Rejected { is_retryable: false, code: 400 }, each(&targets[..0], refused(false))));
    assert_eq!((rig.status().dead, rig.store.parked[&Target(4)].reason), (9, Reason::Rejected(400)));
    rig.replay(Replay::One(Target(4)));
    rig.replay(Replay::Range(6, 8));
    rig.run(10_000, &mut fine);
    assert_eq!(rig.store.parked.keys().map(|target| target.0).collect::<Vec<_>>(), [1, 2, 3, 5, 9]);
}

#[test]
fn a_change_revives_a_dead_letter_and_keeps_the_earlier_deadline() {
    let mut rig = Rig::new(plain(), vec![change(1, 1, 5_000_000, 0)]);
    rig.run(1_000, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(false))));
    assert_eq!(rig.status().dead, 1);
    rig.change(change(2, 1, 9_000_000, 0));
    rig.run(1_000, &mut |_, _| (down(Failure::Connect), Vec::new()));
    assert_eq!((rig.status().dead, rig.status().oldest_due_unix_ms), (0, Some(at(5_000_000).unix_ms)));
    rig.run(DAY, &mut fine);
    assert_eq!((rig.store.parked.len(), rig.store.head.cursor), (0, 2));
}

#[test]
fn a_target_that_is_always_refused_is_a_dead_letter_after_its_attempts() {
    let mut rig = Rig::new(plain(), crowd(1));
    rig.run(10 * DAY, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(true))));
    assert_eq!((rig.sends.len(), rig.status().dead), (ATTEMPTS_MAX as usize, 1));
    let waits: Vec<_> = rig.sends.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert!(waits.iter().all(|wait| *wait <= RETRY_DELAY_MS_MAX) && waits.iter().any(|wait| *wait > RETRY_DELAY_MS_MAX / 2), "{waits:?}");
    assert!(waits.iter().sum::<u64>() < 4 * DAY);
}

#[test]
fn a_lane_wakes_when_an_attempt_is_due() {
    let mut rig = Rig::new(plain(), crowd(1));
    rig.run(0, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(true))));
    let due = rig.lane.books().parked[&Target(1)].retry_unix_ms;
    rig.run(HOUR, &mut fine);
    assert_eq!(due, Some(at(rig.sends[1].0).unix_ms));
}

#[test]
fn one_target_that_always_makes_the_destination_fail_blocks_nobody() {
    for (batch_items, concurrency) in [(1, 1), (1, 4), (10, 1), (10, 4)] {
        let mut rig = Rig::new(Config { batch_items, concurrency, ..plain() }, crowd(200));
        rig.takes = 20;
        let mut told = BTreeSet::new();
        let mut next = 200;
        let mut answer = |_: u64, targets: &[Sending]| {
            if targets.iter().any(|sending| sending.target == Target(7)) {
                return (down(Failure::Server), Vec::new());
            }
            told.extend(targets.iter().map(|sending| sending.target));
            (Outcome::Ok(Level::Applied), Vec::new())
        };
        for _ in 0..120 {
            // Somebody acts now and then, so that there is somebody else to try.
            next += 1;
            rig.change(change(next, next, DAY as i64, 0));
            rig.run(10_000, &mut answer);
        }
        assert_eq!(told.len(), 319, "{batch_items} {concurrency}");
        let alone = rig.sends.iter().filter(|(_, targets)| *targets == [Target(7)]).count();
        assert!(alone >= ALONE_MAX as usize, "{alone}");
        assert_eq!(rig.store.parked[&Target(7)].reason, Reason::FailsAlone);
        assert_eq!((rig.store.head.cursor, rig.status().parked), (320, 1));
    }
}

#[test]
fn a_destination_that_is_down_is_left_alone_for_a_bounded_time_and_nobody_is_parked() {
    let mut rig = Rig::new(Config { probe: true, ..plain() }, crowd(3));
    rig.run(DAY, &mut |_, _| (down(Failure::Connect), Vec::new()));
    let times: BTreeSet<_> = rig.sends.iter().map(|(at, _)| *at).collect();
    let waits: Vec<_> = times.iter().zip(times.iter().skip(1)).map(|(one, two)| two - one).collect();
    assert!(waits.iter().all(|wait| *wait <= BREAKER_DELAY_MS_MAX) && waits.iter().any(|wait| *wait > BREAKER_DELAY_MS_MAX / 2));
    assert!(matches!(rig.status().state, State::BackingOff { .. }) && rig.store.parked.is_empty() && rig.sends.len() < 2_000);
    rig.run(BREAKER_DELAY_MS_MAX, &mut fine);
    assert_eq!((rig.status().unresolved, rig.store.head.cursor), (0, 3));
}

#[test]
fn a_wait_that_is_asked_for_is_kept_and_bounded() {
    for (asked, waited) in [(0, 1_000), (700_000, 700_000), (u64::MAX, RETRY_AFTER_MS_MAX)] {
        let mut rig = Rig::new(plain(), crowd(5));
        let mut calls = 0;
        let mut answer = |_: u64, _: &[Sending]| {
            calls += 1;
            let throttled = Outcome::Failed { failure: Failure::Throttled, retry_after_ms: Some(asked) };
            (if calls == 1 { throttled } else { Outcome::Ok(Level::Applied) }, Vec::new())
        };
        rig.run(DAY, &mut answer);
        assert_eq!(rig.sends[1].0 - rig.sends[0].0, waited);
        assert_eq!(rig.store.head.cursor, 5);
    }
}

#[test]
fn wrong_credentials_stop_it_until_there_are_others() {
    let mut rig = Rig::new(plain(), crowd(2));
    rig.run(HOUR, &mut |_, _| (down(Failure::Credentials), Vec::new()));
    let state = rig.status().state;
    assert!(state.to_string().starts_with("waiting for credentials, tries at 2030-"), "{state}");
    rig.give(Input::TryNow);
    rig.run(0, &mut fine);
    assert_eq!(rig.status().state, State::CatchingUp);
    rig.run(5_000, &mut fine);
    assert_eq!((rig.status().state, rig.status().unresolved), (State::Running, 0));
}

#[test]
fn nothing_is_sent_that_could_outlive_the_lease() {
    for (left, sent) in [(10_000, 0), (10_001, 1)] {
        let mut rig = Rig::new(Config { request_timeout_ms: 10_000, ..plain() }, Vec::new());
        rig.run(50_000, &mut fine);
        rig.give(Input::Lease { epoch: 1, until_mono_ms: rig.now + left });
        rig.change(change(1, 1, 100, 0));
        rig.run(0, &mut fine);
        assert_eq!(rig.sends.len(), sent);
        rig.run(10_001, &mut fine);
        assert_eq!((rig.sends.len(), rig.status().state), (sent, State::WithoutLease));
    }
    for lost in [Input::LeaseLost, Input::Lease { epoch: 2, until_mono_ms: u64::MAX / 4 }] {
        let mut rig = Rig::new(plain(), Vec::new());
        rig.run(1_000, &mut fine);
        rig.give(lost);
        rig.change(change(1, 1, 100, 0));
        rig.run(DAY, &mut fine);
        assert_eq!((rig.sends.len(), rig.lane.next_ms(at(rig.now))), (0, None));
    }
}

#[test]
fn a_pause_holds_a_drain_ends_and_both_lose_nothing() {
    let mut rig = Rig::new(plain(), Vec::new());
    rig.give(Input::Pause);
    rig.run(HOUR, &mut fine);
    rig.change(change(1, 1, DAY as i64, 0));
    assert!(!rig.news.contains(&News::AlarmRaised(Alarm::Paused)));
    rig.run(2 * 60_000, &mut fine);
    assert!(rig.news.contains(&News::AlarmRaised(Alarm::Paused)));
    // A pause outlives the process.
    let mut rig = Rig::restore(plain(), rig.feed, rig.store, rig.now, at(rig.now));
    rig.run(HOUR, &mut fine);
    assert_eq!((rig.sends.len(), rig.status().state), (0, State::Paused));
    rig.give(Input::Resume);
    rig.run(10_000, &mut fine);
    assert_eq!((rig.sends.len(), rig.status().state), (1, State::Running));
    assert!(rig.news.contains(&News::AlarmCleared(Alarm::Paused)));
    rig.takes = 5_000;
    rig.change(change(2, 1, DAY as i64, 0));
    rig.run(100, &mut fine);
    rig.give(Input::Drain);
    rig.change(change(3, 2, DAY as i64, 0));
    rig.run(1_000, &mut fine);
    assert!(!rig.drained, "a call is under way");
    rig.run(5_000, &mut fine);
    assert!(rig.drained);
    assert_eq!((rig.store.head.cursor, rig.sends.len()), (2, 2));
}

#[test]
fn a_store_that_fails_is_asked_once_a_second_and_nothing_is_forgotten() {
    let rates = vec!["20/1h".parse().unwrap()];
    let mut rig = Rig::new(Config { rates, ..plain() }, crowd(5));
    rig.store_fails = true;
    rig.run(60_000, &mut fine);
    assert!(rig.sends.is_empty() && (55..65).contains(&rig.saves), "{}", rig.saves);
    rig.store_fails = false;
    rig.run(3_000, &mut fine);
    rig.store_fails = true;
    let saves = rig.saves;
    rig.run(60_000, &mut |_, targets| (Outcome::NotSent, each(targets, Report::Held)));
    rig.change(change(6, 6, 100, 0));
    rig.run(60_000, &mut |_, targets| (Outcome::NotSent, each(targets, Report::Held)));
    assert!(rig.saves - saves < 130, "{}", rig.saves - saves);
    rig.store_fails = false;
    rig.run(3_000, &mut fine);
    assert_eq!((rig.store.head.cursor, rig.store.allows.len()), (6, 0));
    assert_eq!(rig.store, *rig.lane.books());
}

#[test]
fn deadlines_raise_alarms_that_only_a_delivery_clears() {
    let mut rig = Rig::new(plain(), vec![change(1, 1, HOUR as i64, 0)]);
    let mut steps = Vec::new();
    for _ in 0..4 {
        rig.run(HOUR / 4 + 61_000, &mut |_, _| (down(Failure::Connect), Vec::new()));
        steps.push(rig.store.head.alarms.len());
    }
    assert_eq!(steps, [0, 1, 2, 4], "half, three quarters, then nine tenths and late");
    rig.run(10 * 60_000, &mut fine);
    assert!(rig.store.head.alarms.is_empty());
}

#[test]
fn a_batch_waits_for_others_but_not_for_long() {
    let mut rig = Rig::new(Config { batch_items: 3, linger_ms: 2_000, ..plain() }, Vec::new());
    rig.run(10_000, &mut fine);
    rig.change(change(1, 1, 100, 0));
    rig.run(1_500, &mut fine);
    assert_eq!(rig.sends.len(), 0);
    rig.change(change(2, 2, 100, 0));
    rig.run(600, &mut fine);
    assert_eq!(rig.sends, [(12_000, vec![Target(1), Target(2)])]);
    for number in 3..=5 {
        rig.change(change(number, number, 100, 0));
    }
    rig.run(0, &mut fine);
    assert_eq!(rig.sends.len(), 2, "a full batch does not wait");
}

#[test]
fn a_batch_that_is_too_large_is_halved_and_grows_back() {
    let mut rig = Rig::new(Config { batch_items: 16, ..plain() }, crowd(1_000));
    let mut small =
        |_: u64, targets: &[Sending]| (if targets.len() > 3 { Outcome::TooLarge } else { Outcome::Ok(Level::Applied) }, Vec::new());
    rig.run(10_000, &mut small);
    let large = rig.sends.iter().filter(|(_, targets)| targets.len() > 3).count();
    assert!(large < 120 && rig.store.head.cursor == 1_000, "{large}");
    for number in 1_001..=4_000 {
        rig.feed.push(change(number, number, DAY as i64, 0));
    }
    rig.give(Input::Changed);
    rig.run(10_000, &mut fine);
    assert!(rig.sends.iter().any(|(_, targets)| targets.len() == 16 && targets[0].0 > 1_000));
    let mut rig = Rig::new(plain(), crowd(1));
    rig.run(10_000, &mut |_, _| (Outcome::TooLarge, Vec::new()));
    assert_eq!((rig.store.parked[&Target(1)].reason, rig.status().dead), (Reason::TooLarge, 1));
}

#[test]
fn an_allow_is_stored_before_it_is_sent_and_their_number_is_bounded() {
    let mut rig = Rig::new(large(), crowd(ALLOWS_MAX as u64 * 2 + 50));
    rig.takes = 100;
    let mut most = 0;
    let mut told = 0;
    let mut answer = |_: u64, targets: &[Sending]| {
        let held: Vec<_> = targets.iter().filter(|sending| !sending.may_allow).copied().collect();
        most = most.max(targets.len() - held.len());
        told += targets.len() - held.len();
        let outcome = if held.len() == targets.len() { Outcome::NotSent } else { Outcome::Ok(Level::Applied) };
        (outcome, each(&held, Report::Held))
    };
    for _ in 0..600 {
        rig.run(100, &mut answer);
        assert!(rig.store.allows.len() <= ALLOWS_MAX);
    }
    assert_eq!((told, most, rig.store.allows.len()), (ALLOWS_MAX * 2 + 50, ALLOWS_MAX, 0));
}

#[test]
fn after_an_allow_that_may_come_late_a_deny_is_sent_at_once_and_again() {
    let mut rig = Rig::new(Config { request_timeout_ms: 10_000, ..plain() }, crowd(1));
    let mut lost = |_: u64, targets: &[Sending]| {
        if targets[0].may_allow { (down(Failure::Ambiguous), Vec::new()) } else { (Outcome::NotSent, each(targets, Report::Held)) }
    };
    rig.run(1_000, &mut lost);
    assert!(rig.store.allows.contains(&Target(1)));
    // A crash changes nothing about it.
    for crash in [false, true] {
        let feed = vec![change(2, 1, 100, 0)];
        let now = rig.now;
        let mut rig = if crash {
            Rig::restore(Config { request_timeout_ms: 10_000, ..plain() }, feed, rig.store.clone(), now, at(now))
        } else {
            let mut rig = Rig::new(Config { request_timeout_ms: 10_000, ..plain() }, crowd(1));
            rig.run(1_000, &mut lost);
            rig.change(feed[0]);
            rig
        };
        let before = rig.sends.len();
        rig.run(60_000, &mut fine);
        let denies: Vec<_> = rig.sends[before..].iter().map(|(at, _)| *at - now).collect();
        assert!(matches!(denies[..], [first, again] if first < 3_000 && again >= 9_000), "{denies:?}");
        assert!(rig.store.allows.is_empty());
    }
}

#[test]
fn a_deny_is_only_sent_while_an_older_allow_may_land() {
    let mut rig = Rig::new(plain(), crowd(1));
    let mut lost = |_: u64, targets: &[Sending]| {
        if targets[0].may_allow { (down(Failure::Ambiguous), Vec::new()) } else { (Outcome::NotSent, each(targets, Report::Held)) }
    };
    rig.run(1_000, &mut lost);
    rig.change(change(2, 1, 100, 0));
    rig.run(3_000, &mut fine);
    assert_eq!((rig.store.head.cursor, rig.status().unresolved), (2, 0), "the deny was taken");
    for books in [&rig.store, rig.lane.books()] {
        assert_eq!(books.level(Target(1), 2, Need::Message), Assurance::At(Level::Sent));
    }
    rig.run(60_000, &mut fine);
    assert_eq!(rig.store.level(Target(1), 2, Need::Message), Assurance::At(Level::Applied));
}

#[test]
fn a_newer_deny_during_a_doubt_is_said_again_after_it() {
    let mut rig = Rig::new(plain(), crowd(1));
    rig.run(500, &mut |_, _| (down(Failure::Ambiguous), Vec::new()));
    rig.change(change(2, 1, 100, 0));
    rig.run(60_000, &mut fine);
    let times: Vec<_> = rig.sends.iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= 3 && *times.last().unwrap() >= 10_000, "{times:?}");
    assert_eq!(rig.store.head.cursor, 2);
}

#[test]
fn jobs_have_bounds() {
    let config = Config { batch_items: BATCH_ITEMS_MAX, jobs: Jobs { every_ms: 60_000, give_up_ms: HOUR }, ..plain() };
    let mut rig = Rig::new(config.clone(), crowd(PENDING_MAX as u64 + 20_000));
    let mut jobs = |_: u64, _: &[Sending]| (Outcome::Job("j".repeat(JOB_HANDLE_BYTES_MAX)), Vec::new());
    rig.run(59_000, &mut jobs);
    assert_eq!((rig.status().pending, rig.status().unresolved), (PENDING_MAX, 20_000));
    assert_eq!(rig.lane.books().level(Target(1), 1, Need::Message), Assurance::At(Level::Accepted));
    rig.poll = Outcome::Ok(Level::Applied);
    rig.run(10 * 60_000, &mut jobs);
    assert_eq!((rig.status().pending, rig.store.jobs.len()), (0, 0));
    assert_eq!(rig.lane.books().level(Target(1), 1, Need::Message), Assurance::At(Level::Applied));
    // A name that cannot be kept is a job that nobody can ask after; and so is one that never ends.
    for (length, after) in [(JOB_HANDLE_BYTES_MAX + 1, 2_000), (1, HOUR + 100)] {
        let mut rig = Rig::new(config.clone(), crowd(5));
        rig.run(after, &mut |_, _| (Outcome::Job("j".repeat(length)), Vec::new()));
        assert_eq!(rig.store.parked.values().map(|parked| parked.reason).collect::<Vec<_>>(), [Reason::GaveUp; 5]);
    }
}

#[test]
fn however_many_are_below_the_floor_the_others_stay_at_it() {
    let mut rig = Rig::new(large(), crowd(50_000));
    let report = |target: u64| match target % 5 {
        0 => None,
        1 => Some(Report::Reached(Level::Accepted)),
        _ => Some(Report::Absent),
    };
    let mut answer = |_: u64, targets: &[Sending]| {
        let of = |sending: &Sending| Some((sending.target, report(sending.target.0)?));
        (Outcome::Ok(Level::Applied), targets.iter().filter_map(of).collect())
    };
    rig.run(60_000, &mut answer);
    for target in 1..=50_000 {
        let expected = match report(target) {
            None => Assurance::At(Level::Applied),
            Some(Report::Reached(level)) => Assurance::At(level),
            Some(_) => Assurance::Absent,
        };
        assert_eq!(rig.store.level(Target(target), target, Need::Message), expected);
    }
    assert_eq!((rig.status().absent, rig.store.levels.count(Observed::At(Level::Accepted))), (30_000, 10_000));
    assert_eq!(rig.store, *rig.lane.books());
}

#[test]
fn what_a_patrol_reads_moves_the_level_both_ways() {
    let patrols = vec![Patrol { kind: PatrolKind::Read, period_ms: HOUR }];
    let mut rig = Rig::new(Config { floor: Level::Verified, patrols, ..plain() }, crowd(7));
    let mut answer = |_: u64, targets: &[Sending]| {
        let reports = match targets[0].target.0 {
            1 | 2 => each(targets, Report::Reached(Level::Accepted)),
            3 => each(targets, Report::Absent),
            _ => Vec::new(),
        };
        (Outcome::Ok(Level::Verified), reports)
    };
    rig.check = Outcome::Rejected { is_retryable: true, code: 1 };
    rig.run(5_000, &mut answer);
    let levels = |rig: &Rig| -> Vec<_> { (1..=7).map(|target| rig.store.level(Target(target), target, Need::Message)).collect() };
    let at = Assurance::At;
    let (accepted, applied, verified) = (at(Level::Accepted), at(Level::Applied), at(Level::Verified));
    assert_eq!(levels(&rig), [accepted, accepted, Assurance::Absent, verified, verified, verified, verified]);
    rig.check = Outcome::Ok(Level::Verified);
    let failed = Report::Failed { is_retryable: false, code: 1 };
    let found = [
        (2, Report::Reached(Level::Applied)),
        (4, Report::Absent),
        (5, Report::Reached(Level::Applied)),
        (6, failed),
        (7, Report::Nothing),
    ];
    rig.check_reports = found.map(|(target, report)| (Target(target), report)).into();
    rig.run(HOUR + 60_000, &mut answer);
    // What proves less takes nothing from what was seen before, and who is absent was found by now.
    assert_eq!(levels(&rig), [verified, applied, verified, Assurance::Absent, verified, verified, verified]);
    assert_eq!(rig.store, *rig.lane.books());
    rig.check_reports = vec![(Target(4), Report::Drift)];
    rig.run(HOUR, &mut answer);
    assert_eq!(levels(&rig), [verified; 7], "who is there again was told");
    assert!(rig.sends.iter().any(|(at, targets)| *at > HOUR && targets.contains(&Target(4))));
}

#[test]
fn a_level_is_what_was_observed() {
    let mut rig = Rig::new(plain(), crowd(5));
    let mut answer = |_: u64, targets: &[Sending]| {
        let reports = match targets[0].target.0 {
            2 => each(targets, Report::Duplicate),
            3 => each(targets, refused(false)),
            4 => each(targets, Report::Unreachable),
            5 => each(targets, Report::Absent),
            _ => Vec::new(),
        };
        (Outcome::Ok(Level::Applied), reports)
    };
    rig.run(5_000, &mut answer);
    let books = rig.store.clone();
    let level = |target, seq| books.level(Target(target), seq, Need::Message);
    let levels: Vec<_> = [1, 2, 3].map(|target| level(target, target)).into();
    assert_eq!(levels, [Level::Applied, Level::Accepted, Level::Sent].map(Assurance::At));
    assert_eq!(level(5, 5), Assurance::Absent);
    assert_eq!(level(5, 6), Assurance::At(Level::Queued), "it may be there by now");
    assert_eq!(level(1, 6), Assurance::At(Level::Queued), "it changed since");
    assert_eq!(level(3, 4), Assurance::At(Level::Queued), "what was refused was about an earlier state");
    assert_eq!(books.level(Target(4), 4, Need::Unreachable), Assurance::Unreachable);
    assert_eq!(books.level(Target(1), 1, Need::Nothing), Assurance::NotNeeded);
    assert_eq!(rig.status().unreachable_seen, 1);
}

#[test]
fn another_configuration_of_the_messages_starts_a_new_scan() {
    let mut rig = Rig::new(plain(), crowd(3));
    rig.run(5_000, &mut fine);
    assert_eq!(rig.news, [News::CaughtUp(3)]);
    let again = Config { generation: 7, ..plain() };
    let mut rig = Rig::restore(again, rig.feed, rig.store, rig.now, at(rig.now));
    assert_eq!(rig.lane.books().level(Target(1), 1, Need::Message), Assurance::At(Level::Queued));
    rig.run(5_000, &mut fine);
    assert_eq!((rig.sends.len(), rig.news), (3, vec![News::CaughtUp(3)]));
}

#[test]
fn a_clock_that_was_set_back_delays_nothing_for_long() {
    let mut rig = Rig::new(plain(), crowd(1));
    rig.run(2_000, &mut |_, targets| (Outcome::Ok(Level::Applied), each(targets, refused(true))));
    assert_eq!(rig.store.parked.len(), 1);
    let clocks = Now { unix_ms: at(0).unix_ms - 365 * DAY as i64, mono_ms: rig.now };
    let mut rig = Rig::restore(plain(), rig.feed, rig.store, rig.now, clocks);
    rig.run(RETRY_DELAY_MS_MAX, &mut fine);
    assert_eq!((rig.sends.len(), rig.store.parked.len()), (1, 0));
}

#[test]
fn a_patrol_goes_round_once_a_period_and_leaves_room_for_what_changes() {
    let patrols = vec![Patrol { kind: PatrolKind::Send, period_ms: HOUR }];
    let rates = vec!["10/1m".parse().unwrap()];
    let mut rig = Rig::new(Config { patrols, rates, ..plain() }, crowd(100));
    rig.run(3 * HOUR, &mut fine);
    let mut rounds: BTreeMap<Target, usize> = BTreeMap::new();
    rig.sends.iter().flat_map(|(_, targets)| targets).for_each(|target| *rounds.entry(*target).or_default() += 1);
    assert!(rounds.values().all(|count| (3..=5).contains(count)), "{rounds:?}");
    // In the middle of a round somebody acts.
    rig.run(5 * 60_000, &mut fine);
    rig.change(change(101, 101, 100, 0));
    rig.run(0, &mut fine);
    assert_eq!(rig.sends.last().unwrap().1, [Target(101)]);
}

#[test]
fn a_page_that_cannot_be_read_does_not_stop_a_patrol() {
    let patrols = vec![Patrol { kind: PatrolKind::Read, period_ms: HOUR }];
    let mut rig = Rig::new(Config { patrols, batch_items: 100, ..plain() }, crowd(200));
    rig.check = down(Failure::Server);
    rig.run(HOUR / 4, &mut fine);
    assert_eq!((rig.checks.len(), rig.status().unread), (PATROL_TRIES_MAX as usize, 1));
    rig.check = Outcome::Ok(Level::Verified);
    rig.run(HOUR / 2, &mut fine);
    assert_eq!(rig.checks.last().unwrap().1[0], Target(101));
    assert!(rig.store.head.alarms.is_empty());
}

#[test]
fn what_fails_again_and_again_does_not_take_all_calls() {
    let mut rig = Rig::new(Config { batch_items: 100, ..plain() }, crowd(9_000));
    rig.takes = 1_000;
    let mut answer = |_: u64, targets: &[Sending]| {
        let bad: Vec<_> = targets.iter().filter(|sending| sending.target.0 <= 9_000).copied().collect();
        (Outcome::Ok(Level::Applied), each(&bad, refused(true)))
    };
    rig.run(900_000, &mut answer);
    for number in 9_001..=9_010 {
        rig.change(change(number, number, 40 * DAY as i64, 0));
        rig.run(4_000, &mut answer);
        assert!(rig.sends.iter().rev().take(4).any(|(_, targets)| targets.contains(&Target(number))), "{number} waits");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_split_finds_whoever_fails_and_tells_everybody_else_exactly_once(
        bad in prop::collection::btree_set(1..=40_u64, 0..10),
        batch_items in 1..50_usize,
        concurrency in 1..4_usize,
        counted in any::<bool>(),
    ) {
        let mut rig = Rig::new(Config { batch_items, concurrency, ..plain() }, crowd(40));
        rig.takes = 10;
        let mut told: BTreeMap<u64, u32> = BTreeMap::new();
        let mut answer = |_: u64, targets: &[Sending]| {
            if targets.iter().any(|sending| bad.contains(&sending.target.0)) {
                let (is_retryable, code) = (false, 4);
                return (if counted { Outcome::SomeFailed { is_retryable, code } } else { Outcome::Rejected { is_retryable, code } }, Vec::new());
            }
            for sending in targets {
                *told.entry(sending.target.0).or_default() += 1;
            }
            (Outcome::Ok(Level::Applied), Vec::new())
        };
        rig.run(60_000, &mut answer);
        let parked: BTreeSet<_> = rig.store.parked.keys().map(|target| target.0).collect();
        prop_assert_eq!(&parked, &bad);
        prop_assert_eq!(told.len(), 40 - bad.len());
        prop_assert!(told.values().all(|count| *count == 1));
        prop_assert_eq!(rig.store.head.cursor, 40);
    }
}

#[test]
fn books_read_back_as_they_were_written() {
    for seed in 0..200 {
        let mut world = super::world::World::new(seed, true);
        world.run(super::world::HEAL / 200 * seed).unwrap();
        let text = serde_json::to_string(world.store()).unwrap();
        let back: Saved = serde_json::from_str(&text).unwrap();
        assert_eq!(back, *world.store());
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
