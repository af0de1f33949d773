//! Drivers, lanes and the store in virtual time, against destinations that do whatever destinations do.
//!
//! `DESIST_SCALE` is the number of worlds, `DESIST_SEED` the first seed; a failure prints the seed, and with `DESIST_TRACE=1` everything
//! that happens.

mod checks;
mod place;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

const MINUTE: u64 = 60_000;
const DAY: i64 = 86_400_000;
/// A Monday in March.
const UNIX: i64 = 1_773_124_200_000;
/// When the world becomes friendly for good.
const HEAL: u64 = 30 * MINUTE;
/// When the last things go wrong that patrols have to find.
const CALM: u64 = HEAL + 20 * MINUTE;
const END: u64 = CALM + 26 * MINUTE;

/// Numbers that a seed fixes (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What many worlds together have to come to, or they show less than they say.
const MEANT: [&str; 15] = [
    "configured",
    "crash",
    "dead letters",
    "drift",
    "fenced",
    "freeze",
    "half of the time is over",
    "late",
    "paused",
    "power cut",
    "several",
    "store errs",
    "store fails",
    "suspend",
    "take-over",
];

fn tell(seed: u64) -> (Result<(), String>, Option<World>) {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        world.trace = std::env::var_os("DESIST_TRACE").is_some();
        let end = world.tell();
        world.engine.close();
        (end, Some(world))
    }));
    told.unwrap_or_else(|_| (Err("it panicked".into()), None))
}

#[test]
fn everybody_is_told_whatever_happens() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"));
    let (worlds, first) = (number("DESIST_SCALE", 150), number("DESIST_SEED", 1));
    let next = AtomicU64::new(0);
    let (failed, seen) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= worlds {
                        break;
                    }
                    let (end, world) = tell(first + at);
                    if let Err(why) = end {
                        failed.lock().expect("no thread panics").insert((first + at, why));
                    }
                    seen.lock().expect("no thread panics").extend(world.map(|world| world.seen).unwrap_or_default());
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    for (seed, why) in failed.iter().take(20) {
        println!("DESIST_SEED={seed} DESIST_SCALE=1: {why}");
    }
    assert!(failed.is_empty(), "{} of {worlds} worlds failed; DESIST_TRACE=1 prints all that happens", failed.len());
    let seen = seen.into_inner().expect("no thread panics");
    let missed: Vec<_> = MEANT.iter().filter(|one| worlds >= 100 && !seen.contains(**one)).collect();
    assert!(missed.is_empty(), "no world had {missed:?}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..=3 {
        let history = || tell(seed).1.map(|world| world.history);
        assert_eq!(history(), history(), "seed {seed}");
    }
}
