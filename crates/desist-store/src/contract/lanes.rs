//! The books of lanes, against the same books in memory.

use std::collections::{BTreeMap, BTreeSet};

use desist_core::lane::{
    Alarm, Delta, Failure, Head, Job, Level, LevelPage, Levels, Observed, Parked, Reason, Saved, SavedBreaker, SavedPatrol, SavedWindow,
    Target, Waiting,
};

use super::{Make, Rng, read, scale};
use crate::StoreError;

const LEVELS: [Level; 5] = [Level::Queued, Level::Sent, Level::Accepted, Level::Applied, Level::Verified];
const ALARMS: [Alarm; 4] = [Alarm::Deadline50, Alarm::Late, Alarm::DeadLetter, Alarm::Stopped];
const REASONS: [Reason; 6] = [Reason::Item(7), Reason::Rejected(422), Reason::FailsAlone, Reason::TooLarge, Reason::GaveUp, Reason::Drift];

fn head(rng: &mut Rng) -> Head {
    let mut number = || rng.below(1 << 50);
    let (saves, cursor, generation, unix_ms) = (number(), number(), number(), number() as i64);
    let many = rng.below(4);
    Head {
        saves,
        generation: generation << 13 | 5,
        cursor,
        ahead: (0..many).map(|n| (cursor + 10 * n + 2, cursor + 10 * n + 5)).collect(),
        scanned: rng.below(2) == 1,
        floor: LEVELS[rng.below(5) as usize],
        paused_unix_ms: (rng.below(3) == 0).then_some(unix_ms),
        breaker: (rng.below(3) == 0).then_some(SavedBreaker { until_unix_ms: -unix_ms, fails: 3, failure: Failure::Throttled }),
        patrols: (0..many).map(|n| SavedPatrol { upto: cursor + n, began_unix_ms: unix_ms }).collect(),
        rates: (0..many).map(|n| SavedWindow { window_ms: 60_000 << n, slots: vec![(unix_ms, 7)], reserved: 2 }).collect(),
        alarms: ALARMS.into_iter().filter(|_| rng.below(3) == 0).collect(),
        jobs: rng.below(9),
    }
}

fn pages(rng: &mut Rng) -> Vec<(u64, Option<LevelPage>)> {
    let (mut levels, mut numbers) = (Levels::default(), BTreeSet::new());
    for _ in 0..rng.below(6) {
        let target = Target(rng.below(1 << 12) | rng.below(2) << 62);
        let known = if rng.below(2) == 0 { Observed::Absent } else { Observed::At(LEVELS[rng.below(5) as usize]) };
        numbers.extend(levels.set(target, Some(known)));
    }
    numbers.into_iter().map(|number| (number, levels.page(number).filter(|_| rng.below(3) > 0).cloned())).collect()
}

fn delta(rng: &mut Rng, epoch: u64) -> Delta {
    let some = |rng: &mut Rng| rng.below(3) > 0;
    let targets: BTreeSet<_> = (0..rng.below(6)).map(|_| Target(rng.below(8))).collect();
    let parked = |rng: &mut Rng| Parked {
        seq: rng.below(1 << 40),
        since_unix_ms: rng.below(1 << 40) as i64,
        due_unix_ms: -(rng.below(1 << 40) as i64),
        rank: rng.below(3) as u8,
        attempts: rng.below(20) as u32,
        reason: REASONS[rng.below(6) as usize],
        retry_unix_ms: (rng.below(2) == 0).then(|| rng.below(1 << 40) as i64),
        sent: rng.below(2) == 0,
        drift: rng.below(2) == 0,
    };
    let waiting = |rng: &mut Rng| Waiting {
        seq: rng.below(1 << 40),
        since_unix_ms: 5,
        due_unix_ms: -(rng.below(1 << 40) as i64),
        rank: rng.below(3) as u8,
        attempts: rng.below(20) as u32,
    };
    let job = |rng: &mut Rng| Job {
        handle: format!("job \"{}\" \u{e9}\n", rng.below(99)),
        targets: (0..rng.below(4)).map(|target| (Target(target), waiting(rng))).collect(),
        superseded: [Target(2)].into(),
        give_up_unix_ms: 7,
        failed: (rng.below(2) == 0).then(|| REASONS[rng.below(6) as usize]),
    };
    Delta {
        epoch,
        head: head(rng),
        parked: targets.iter().map(|target| (*target, some(rng).then(|| parked(rng)))).collect(),
        jobs: (0..rng.below(3)).map(|number| (number, some(rng).then(|| job(rng)))).collect(),
        allows: targets.iter().map(|target| (*target, some(rng))).collect(),
        levels: pages(rng),
        caught_up: some(rng).then(|| rng.below(1 << 40)),
    }
}

/// Random steps of several lanes are stored as they are applied in memory, say the same that is new, and a step under an
/// earlier lease writes nothing.
pub fn lanes_keep_their_books_and_one_lease(make: Make<'_>) {
    for seed in 0..4 * scale() {
        let (mut harness, mut rng) = (make(), Rng(seed));
        let mut store = harness.open().expect("opens");
        let mut model = BTreeMap::<u32, (u64, Saved)>::new();
        let declared = store.transact(&mut |write| {
            write.put_destination(1, "crm")?;
            write.put_destination(2, "warehouse")
        });
        declared.expect("commits");
        for twice in [(2, "other"), (3, "crm")] {
            assert!(store.transact(&mut |write| write.put_destination(twice.0, twice.1)).is_err(), "a number and an id are given once");
            drop(store);
            store = harness.open().expect("opens");
        }
        for _ in 0..60 {
            let destination = 1 + rng.below(2) as u32;
            match (rng.below(8), model.contains_key(&destination)) {
                (0, _) | (_, false) => {
                    let mut epoch = 0;
                    store.transact(&mut |write| write.claim_lane(destination).map(|claimed| epoch = claimed)).expect("commits");
                    let (last, _) = model.entry(destination).or_default();
                    *last += 1;
                    assert_eq!(epoch, *last);
                }
                (1, true) => {
                    let stale = delta(&mut rng, model[&destination].0 - 1);
                    store
                        .transact(&mut |write| write.save_lane(destination, &stale).map(|news| assert_eq!(news, None, "an earlier lease")))
                        .expect("commits");
                }
                (2, true) => {
                    drop(store);
                    store = harness.open().expect("opens");
                }
                _ => {
                    let (epoch, saved) = model.get_mut(&destination).expect("claimed");
                    let (step, mut news) = (delta(&mut rng, *epoch), None);
                    // A step that does not commit is as if it had never been.
                    let failed = store.transact(&mut |write| {
                        write.save_lane(destination, &step)?;
                        Err(StoreError::Busy)
                    });
                    assert!(matches!(failed, Err(StoreError::Busy)));
                    store.transact(&mut |write| write.save_lane(destination, &step).map(|told| news = told)).expect("commits");
                    assert_eq!(news.expect("the present lease"), saved.apply(step), "seed {seed}");
                }
            }
            let readers = store.readers();
            read(&*readers, |read| {
                for destination in [1, 2, 3] {
                    assert_eq!(read.lane(destination)?, model.get(&destination).cloned(), "seed {seed}");
                }
                assert_eq!(read.destinations()?, [(1, "crm".to_owned()), (2, "warehouse".to_owned())]);
                Ok(())
            });
        }
    }
}
