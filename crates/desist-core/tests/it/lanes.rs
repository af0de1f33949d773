//! Lanes: random hostile worlds, single promises, rate windows.
//!
//! `DESIST_SCALE` is the number of worlds, `DESIST_SEED` the first seed; a failure prints the seed, and with
//! `DESIST_TRACE=1` everything that happens.

mod jobs;
mod rates;
mod rig;
mod stories;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::{HEAL, MINUTE, World};

fn tell(seed: u64) -> Result<World, String> {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, true);
        world.trace = std::env::var_os("DESIST_TRACE").is_some();
        world.tell().map(|()| world)
    }));
    told.unwrap_or_else(|_| Err("it panicked".into()))
}

#[test]
fn random_worlds_get_every_message_in_the_end() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"));
    let (worlds, first) = (number("DESIST_SCALE", 3_000), number("DESIST_SEED", 1));
    let next = AtomicU64::new(0);
    let failed = Mutex::new(BTreeSet::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= worlds {
                        break;
                    }
                    if let Err(why) = tell(first + at) {
                        failed.lock().expect("no thread panics").insert((first + at, why));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    if let Some((seed, why)) = failed.first() {
        panic!(
            "DESIST_SEED={seed} DESIST_SCALE=1: {why}\n({} of {worlds} worlds failed; DESIST_TRACE=1 prints all that happens)",
            failed.len()
        );
    }
}

#[test]
fn the_worlds_reach_what_they_are_meant_to_reach() {
    let seen: BTreeSet<_> = (1..=400).flat_map(|seed| tell(seed).map(|world| world.seen).unwrap_or_default()).collect();
    let meant = [
        "ambiguous",
        "crash",
        "dead letter",
        "deadline",
        "drift",
        "fenced",
        "freeze",
        "held",
        "job",
        "job without end",
        "lie",
        "older allow",
        "partition",
        "probe",
        "rejected",
        "split",
        "take-over",
        "throttled",
        "too late to start",
    ];
    assert_eq!(seen, meant.into());
}

/// A lane does the same work whatever its neighbours' destinations do.
#[test]
fn a_healthy_lane_does_not_notice_its_neighbours() {
    let alone = {
        let mut world = World::new(5, false);
        world.run(HEAL).unwrap();
        (world.actions, world.digest)
    };
    let mut worlds = [World::new(5, false), World::new(5, true), World::new(6, true), World::new(7, true)];
    for minute in 0..=HEAL / MINUTE {
        for world in &mut worlds {
            world.run(minute * MINUTE).unwrap();
        }
    }
    assert_eq!((worlds[0].actions, worlds[0].digest), alone);
    assert!(worlds[0].actions > 100);
}
