//! Lanes against a hostile world.

mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

fn story(seed: u64) -> Result<World, String> {
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
    let (stories, first) = (number("DESIST_SCALE", 3_000), number("DESIST_SEED", 1));
    let next = AtomicU64::new(0);
    let failed = Mutex::new(BTreeSet::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= stories {
                        break;
                    }
                    if let Err(why) = story(first + at) {
                        failed.lock().expect("no thread panics").insert((first + at, why));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics");
    if let Some((seed, why)) = failed.first() {
        panic!(
            "DESIST_SEED={seed} DESIST_SCALE=1: {why}\n({} of {stories} worlds failed; DESIST_TRACE=1 prints all that happens)",
            failed.len()
        );
    }
}
