//! What becomes of the targets of a job.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::lane::{Assurance, Config, Jobs, Level, Need, Outcome, Reason, Replay, Report, Sending, Target};
use desist_core::limits::{ATTEMPTS_MAX, PARKED_MAX, WINDOW_MAX};

use super::rig::{Rig, change, crowd, fine};
use super::world::at;

const DAY: u64 = 86_400_000;
const HOUR: u64 = 3_600_000;

fn jobs(batch_items: usize) -> Config {
    let jobs = Jobs { every_ms: 60_000, give_up_ms: 30 * DAY };
    Config { floor: Level::Applied, batch_items, jobs, ..Config::plain(1) }
}

/// The handle says who is in it.
fn take(_: u64, targets: &[Sending]) -> (Outcome, Vec<(Target, Report)>) {
    let names: Vec<_> = targets.iter().map(|sending| sending.target.0.to_string()).collect();
    (Outcome::Job(names.join(" ")), Vec::new())
}

fn members(handle: &str) -> BTreeSet<u64> {
    handle.split(' ').map(|name| name.parse().unwrap()).collect()
}

#[test]
fn a_job_that_fails_condemns_only_whoever_is_the_cause() {
    for counted in [true, false] {
        let mut rig = Rig::new(jobs(40), crowd(40));
        rig.poll_job = Some(Box::new(move |handle| {
            let (is_retryable, code) = (false, 7);
            let is_bad = !members(handle).is_disjoint(&[5, 6, 31].into());
            let failed = if counted { Outcome::SomeFailed { is_retryable, code } } else { Outcome::Rejected { is_retryable, code } };
            (if is_bad { failed } else { Outcome::Ok(Level::Applied) }, Vec::new())
        }));
        rig.run(HOUR, &mut take);
        let parked: BTreeMap<_, _> = rig.store.parked.iter().map(|(target, parked)| (target.0, (parked.reason, parked.seq))).collect();
        assert_eq!(parked, [5, 6, 31].map(|target| (target, (Reason::Job(7), target))).into());
        assert_eq!((rig.store.jobs.len(), rig.status().dead, rig.store.head.cursor), (0, 3, 40));
        assert!(rig.polls.len() <= 1 + 2 * 3 * 6, "{}", rig.polls.len());
        assert_eq!(rig.store.level(Target(4), 4, Need::Message), Assurance::At(Level::Applied));
    }
}

#[test]
fn whoever_is_named_is_not_sent_again_with_the_rest() {
    let mut rig = Rig::new(jobs(4), crowd(4));
    rig.poll_job = Some(Box::new(|handle| {
        let named = [(Target(2), Report::Failed { is_retryable: false, code: 3 }), (Target(3), Report::Reached(Level::Applied))];
        let is_first = members(handle).len() == 4;
        if is_first {
            (Outcome::SomeFailed { is_retryable: true, code: 1 }, named.into())
        } else {
            (Outcome::Ok(Level::Applied), Vec::new())
        }
    }));
    rig.run(HOUR, &mut take);
    let sends: Vec<_> = rig.sends.iter().map(|(_, targets)| targets.iter().map(|target| target.0).collect::<Vec<_>>()).collect();
    assert_eq!(sends, [vec![1, 2, 3, 4], vec![1], vec![4]]);
    assert_eq!(rig.store.parked.keys().collect::<Vec<_>>(), [&Target(2)]);
}

#[test]
fn what_a_failed_job_leaves_to_be_sent_again_outlives_a_crash() {
    let mut rig = Rig::new(jobs(4), crowd(4));
    rig.run(30_000, &mut take);
    rig.poll = Outcome::Rejected { is_retryable: false, code: 1 };
    // The halves wait for a destination that is down.
    rig.run(60_000, &mut |now, targets| {
        let down = Outcome::Failed { failure: desist_core::lane::Failure::Connect, retry_after_ms: None };
        if now > 30_000 { (down, Vec::new()) } else { take(now, targets) }
    });
    assert_eq!((rig.store.jobs.len(), rig.store.head.cursor), (0, 4));
    assert_eq!(rig.store.level(Target(1), 1, Need::Message), Assurance::At(Level::Sent));
    assert_eq!(rig.status().oldest_due_unix_ms, Some(at(31 * DAY).unix_ms));
    let mut rig = Rig::restore(jobs(4), rig.feed, rig.store, rig.now, at(rig.now));
    rig.run(HOUR, &mut fine);
    let told: BTreeSet<_> = rig.sends.iter().flat_map(|(_, targets)| targets).map(|target| target.0).collect();
    assert_eq!((told, rig.store.parked.len()), ([1, 2, 3, 4].into(), 0));
}

#[test]
fn attempts_and_deadlines_outlive_jobs() {
    let mut rig = Rig::new(jobs(1), vec![change(3, 1, 31 * DAY as i64, 2)]);
    rig.poll = Outcome::Rejected { is_retryable: true, code: 9 };
    rig.run(10 * DAY, &mut take);
    assert_eq!((rig.sends.len(), rig.status().dead), (ATTEMPTS_MAX as usize, 1));
    let dead = rig.store.parked[&Target(1)];
    assert_eq!((dead.seq, dead.rank, dead.due_unix_ms, dead.reason), (3, 2, at(31 * DAY).unix_ms, Reason::Job(9)));
    rig.replay(Replay::Range(3, 3));
    rig.run(1_000, &mut fine);
    assert_eq!((rig.replayed, rig.store.parked.len()), (1, 0));
}

#[test]
fn each_target_of_a_job_has_its_own_deadline() {
    let feed = vec![change(1, 1, HOUR as i64, 0), change(2, 2, DAY as i64, 1)];
    let mut rig = Rig::new(jobs(2), feed);
    let failed = Report::Failed { is_retryable: true, code: 1 };
    rig.poll_job = Some(Box::new(move |_| (Outcome::Ok(Level::Applied), vec![(Target(2), failed)])));
    rig.run(62_000, &mut take);
    let parked = rig.store.parked[&Target(2)];
    assert_eq!((parked.seq, parked.rank, parked.attempts, parked.due_unix_ms), (2, 1, 1, at(DAY).unix_ms));
}

#[test]
fn a_job_that_fails_while_too_many_are_parked_loses_nobody() {
    let count = PARKED_MAX as u64 + 500;
    for is_named in [true, false] {
        let mut rig = Rig::new(jobs(1_000), crowd(count));
        let mut take = |_: u64, _: &[Sending]| (Outcome::Job("j".into()), Vec::new());
        rig.run(50_000, &mut take);
        assert_eq!(rig.status().pending, count as usize);
        let failed = Report::Failed { is_retryable: true, code: 1 };
        rig.poll_job = Some(Box::new(move |_| {
            let reports = (1..=count).map(|target| (Target(target), failed)).collect();
            if is_named { (Outcome::Ok(Level::Applied), reports) } else { (Outcome::Rejected { is_retryable: true, code: 1 }, Vec::new()) }
        }));
        // Until all of them were asked after.
        rig.run(11_000, &mut |_, _| (Outcome::NotSent, Vec::new()));
        let left: Vec<_> = rig.store.jobs.values().flat_map(|job| job.targets.keys().copied()).collect();
        assert_eq!((rig.store.parked.len(), left.len(), rig.store.head.cursor), (PARKED_MAX, 500, count));
        assert_eq!(rig.store.level(left[0], left[0].0, Need::Message), Assurance::At(Level::Sent));
        let mut rig = Rig::restore(jobs(1_000), rig.feed, rig.store, rig.now, at(rig.now));
        rig.run(DAY, &mut fine);
        let told: BTreeSet<_> = rig.sends.iter().flat_map(|(_, targets)| targets).collect();
        assert_eq!((told.len(), rig.store.parked.len(), rig.store.jobs.len()), (count as usize, 0, 0));
        assert!(rig.polls.is_empty(), "it is known how they ended");
    }
}

#[test]
fn an_allow_that_waits_for_a_job_for_days_holds_nobody_else_up() {
    let mut rig = Rig::new(jobs(1), crowd(1));
    rig.run(1_000, &mut take);
    let count = 2 * WINDOW_MAX as u64;
    rig.feed = (2..=count).map(|seq| change(seq, if seq == 2 { 1 } else { seq }, 31 * DAY as i64, 0)).collect();
    rig.give(desist_core::lane::Input::Changed);
    let mut told = BTreeSet::new();
    let mut answer = |_: u64, targets: &[Sending]| {
        let Sending { target, may_allow, .. } = targets[0];
        if target == Target(1) && !may_allow {
            return (Outcome::NotSent, vec![(target, Report::Held)]);
        }
        told.insert(target);
        (Outcome::Ok(Level::Applied), Vec::new())
    };
    rig.run(3 * DAY, &mut answer);
    let waits = rig.store.parked[&Target(1)];
    assert_eq!((rig.store.head.cursor, waits.seq, waits.reason, waits.attempts), (count, 2, Reason::Waiting, 0));
    assert_eq!(rig.store.level(Target(1), 2, Need::Message), Assurance::At(Level::Queued));
    assert!(rig.saves < 1_000 + count as usize, "to wait costs no store step: {}", rig.saves);
    let mut rig = Rig::restore(jobs(1), rig.feed, rig.store, rig.now, at(rig.now));
    rig.run(DAY, &mut answer);
    assert_eq!((rig.store.parked.len(), rig.store.jobs.len()), (1, 1));
    rig.poll = Outcome::Ok(Level::Applied);
    rig.run(HOUR, &mut answer);
    assert_eq!((told.len() as u64, rig.store.parked.len(), rig.store.allows.len()), (count - 1, 0, 0));
}

#[test]
fn who_changes_again_while_a_job_runs_has_no_more_time_than_before() {
    let mut rig = Rig::new(jobs(1), vec![change(1, 1, HOUR as i64, 0)]);
    rig.run(2_000, &mut take);
    rig.change(change(2, 1, DAY as i64, 0));
    rig.run(2_000, &mut take);
    assert_eq!((rig.store.jobs.len(), rig.sends.len()), (2, 2));
    let job = &rig.store.jobs[&2];
    assert_eq!((job.targets[&Target(1)].seq, job.targets[&Target(1)].due_unix_ms), (2, at(HOUR).unix_ms));
    assert_eq!(rig.status().oldest_due_unix_ms, Some(at(HOUR).unix_ms));
    // Once it is met, a later change has its own.
    rig.poll = Outcome::Ok(Level::Applied);
    rig.run(10 * 60_000, &mut fine);
    rig.poll = Outcome::Pending;
    rig.change(change(3, 1, 2 * DAY as i64, 0));
    rig.run(2_000, &mut take);
    assert_eq!(rig.status().oldest_due_unix_ms, Some(at(2 * DAY).unix_ms));
}

#[test]
fn questions_after_jobs_leave_room_for_what_changes() {
    let rates = vec!["10/1m".parse().unwrap()];
    let mut rig = Rig::new(Config { rates, ..jobs(1) }, crowd(100));
    rig.run(HOUR, &mut take);
    assert_eq!(rig.status().pending, 100, "there are more questions than calls");
    for seq in 101..=110 {
        rig.change(change(seq, seq, 31 * DAY as i64, 0));
        let (sends, polls) = (rig.sends.len(), rig.polls.len());
        // A window, and the slot that it may begin later.
        rig.run(70_000, &mut take);
        assert_eq!(rig.sends.len(), sends + 1, "{seq}");
        assert!(rig.polls.len() > polls + 5);
    }
}
