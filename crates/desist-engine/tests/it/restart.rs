//! Memory is only a copy: a crash loses nothing, and a kept index is used if it fits the log.

use desist_engine::engine::Engine;
use desist_engine::index::DecisionIndex;
use desist_proof::Frontier;

use crate::story::{Story, state};
use crate::support::{Home, audit, email, opt_out, submit};

/// Position and root of the log.
fn head(engine: &Engine) -> (u64, [u8; 32]) {
    let coordinator = engine.read(|read| read.coordinator()).expect("reads");
    (coordinator.counters.entries, Frontier::from_bytes(&coordinator.frontier).expect("a frontier").root())
}

/// Keeps an index that knows nobody under this head: whether it is used can be seen.
fn keep_empty(home: &Home, (upto, root): (u64, [u8; 32])) {
    DecisionIndex::with_expected(0).write_snapshot(&home.snapshot(), upto, &root).expect("written");
}

/// Whether the next start uses the kept index that knows nobody. If not, its own is right.
fn is_used(home: &Home) -> bool {
    let engine = home.open();
    let used = engine.shared().index.is_empty();
    if !used {
        audit(&engine);
    }
    engine.close();
    used
}

#[test]
fn after_a_crash_the_index_comes_from_the_store() {
    let home = Home::new(1);
    let engine = home.open();
    Story::new(engine.clone()).run_all();
    // The engine still runs: this is what a loss of power leaves.
    let image = Home::image(&home, 2);
    assert!(!image.snapshot().exists());
    let again = image.open();
    assert_eq!(state(&again), state(&engine));
    audit(&again);
    again.close();
    engine.close();
}

#[test]
fn a_kept_index_is_used_while_it_fits_and_never_otherwise() {
    let home = Home::new(1);
    let engine = home.open();
    submit(&engine, opt_out(vec![email(&engine, "first@example.com")])).expect("taken");
    let before = head(&engine);
    Story::new(engine.clone()).run_all();
    engine.close();
    let (now, expected) = (head(&engine), state(&engine));
    drop(engine);

    let image = Home::image(&home, 2);
    assert!(image.snapshot().exists());
    let engine = image.open();
    assert_eq!(state(&engine), expected);
    audit(&engine);
    engine.close();
    drop(engine);

    let image = Home::image(&home, 3);
    keep_empty(&image, now);
    assert!(is_used(&image), "the same log");
    let heads = [before, (before.0, now.1), (now.0, before.1), (now.0 + 1, now.1), (0, [0; 32]), (now.0, [0; 32])];
    for (place, head) in (10..).zip(heads) {
        let image = Home::image(&home, place);
        keep_empty(&image, head);
        assert!(!is_used(&image), "{head:?} is not {now:?}");
    }

    keep_empty(&home, now);
    let bytes = std::fs::read(home.snapshot()).expect("kept");
    let cuts = (0..bytes.len()).map(|len| bytes[..len].to_vec()).step_by(13);
    let flips = (0..bytes.len()).map(|at| [&bytes[..at], &[bytes[at] ^ 0x10], &bytes[at + 1..]].concat()).step_by(3);
    let image = Home::image(&home, 100);
    for damaged in cuts.chain(flips) {
        std::fs::write(image.snapshot(), &damaged).expect("written");
        assert!(!is_used(&image), "{damaged:?}");
    }
}

#[test]
fn the_index_of_another_store_is_not_used() {
    let homes = [Home::new(1), Home::new(2)];
    let mut heads = Vec::new();
    for (home, name) in homes.iter().zip(["rosa@example.com", "vega@example.com"]) {
        let engine = home.open();
        submit(&engine, opt_out(vec![email(&engine, name)])).expect("taken");
        heads.push(head(&engine));
        engine.close();
    }
    // As many entries, other ones.
    assert_eq!(heads[0].0, heads[1].0);
    std::fs::copy(homes[1].snapshot(), homes[0].snapshot()).expect("copied");
    let engine = homes[0].open();
    audit(&engine);
    engine.close();
}
