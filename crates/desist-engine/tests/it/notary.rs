//! The log is signed, once for each size, and only as what it was.

use std::time::{Duration, Instant};

use desist_core::fact::RequestId;
use desist_engine::engine::{Engine, OpenError, Refusal};
use desist_engine::notary::{self, NotaryError, Published};
use desist_engine::queue::Lane;
use desist_proof::checkpoint::{Opened, SignedCheckpoint, verify_pair};
use desist_proof::proof::consistency;
use desist_proof::receipt::Trust;
use desist_store::{Owner, tiles};

use crate::support::{Home, email, is_alarm, log, opt_out, submit};

/// Waits for the notary, which promises a second.
pub fn signed(engine: &Engine) -> std::sync::Arc<Published> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(published) = engine.shared().notary.published().filter(|published| published.size() == engine.applied()) {
            return published;
        }
        assert!(Instant::now() < patience, "the log was not signed");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Opt-outs of so many people.
pub fn people(engine: &Engine, from: u32, count: u32) -> Vec<RequestId> {
    let one = |n: u32| submit(engine, opt_out(vec![email(engine, &format!("p{n}@example.org"))])).expect("taken").id;
    (from..from + count).map(one).collect()
}

fn opened(engine: &Engine, published: &Published) -> Opened {
    let read = SignedCheckpoint::parse(&published.text).expect("a checkpoint");
    read.open(&engine.shared().notary.verifier(), &[]).expect("signed by the log")
}

#[test]
fn every_checkpoint_begins_with_the_ones_before() {
    let home = Home::new(1);
    let (mut earlier, mut engine) = (Vec::new(), home.open());
    for round in 0..6 {
        people(&engine, round * 300, 300);
        let now = opened(&engine, &signed(&engine));
        assert_eq!(now.checkpoint().size(), engine.applied());
        assert_eq!(now.checkpoint().origin(), engine.origin());
        for before in &earlier {
            let before: &Opened = before;
            let proof = engine.read(|read| {
                consistency(before.checkpoint().size(), now.checkpoint().size(), &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)
            });
            verify_pair(before, &now, &proof.expect("reads")).expect("one history");
        }
        earlier.push(now);
        // What was shown is shown again after a restart, byte for byte.
        let text = signed(&engine).text.clone();
        engine.close();
        engine = home.open();
        assert_eq!(engine.shared().notary.published().expect("the mark").text, text);
    }
    engine.close();
}

#[test]
fn every_request_has_a_receipt_that_verifies() {
    let home = Home::new(2);
    let engine = home.open();
    let requests = people(&engine, 0, 300);
    signed(&engine);
    for id in requests {
        let receipt = engine.read(|read| {
            let row = read.request(id)?.expect("recorded");
            notary::receipt(read, engine.shared(), &row)
        });
        let receipt = receipt.expect("reads").expect("allowed").expect("signed");
        let verified = receipt.verify(&engine.shared().notary.verifier(), &[]).expect("good");
        assert_eq!(verified.trust(), Trust::SelfAttested);
        assert_eq!(verified.entry.kind, "opted_out");
        assert!(verified.evidence.is_some());
        let mut other = receipt.clone();
        other.opening.as_mut().expect("there")[40] ^= 1;
        assert_eq!(other.verify(&engine.shared().notary.verifier(), &[]).expect_err("changed").link(), "opening");
    }
    engine.close();
}

#[test]
fn a_request_whose_evidence_was_erased_gets_no_receipt_that_fails() {
    let home = Home::new(4);
    let engine = home.open();
    let id = people(&engine, 0, 1)[0];
    signed(&engine);
    let shredded = engine.submit_blocking(Lane::Interactive, move |ctx| ctx.write.vault_shred(Owner::Request(id)).map(Ok));
    shredded.expect("done");
    let receipt = engine.read(|read| {
        let row = read.request(id)?.expect("recorded");
        notary::receipt(read, engine.shared(), &row)
    });
    assert_eq!(receipt.expect("reads").expect_err("its holder could not open the commitment"), Refusal::NotFound);
    engine.close();
}

#[test]
fn an_older_store_is_not_signed_and_alarms() {
    let home = Home::new(3);
    let engine = home.open();
    people(&engine, 0, 10);
    signed(&engine);
    let old = home.path().join("old.db");
    engine.backup(&old).expect("copied");
    people(&engine, 10, 10);
    let shown = signed(&engine).text.clone();
    engine.close();
    drop(engine);
    // Somebody puts the older store back: what was acknowledged since is gone.
    for name in ["desist.db-wal", "desist.db-shm"] {
        let _ = std::fs::remove_file(home.store_dir().join(name));
    }
    std::fs::copy(&old, home.store_dir().join("desist.db")).expect("copied");
    let engine = home.open();
    assert_eq!(engine.alarms().len(), 1);
    assert!(log(&engine).last().is_some_and(|entry| is_alarm(&entry.fact)));
    people(&engine, 20, 20);
    engine.close();
    let mark = std::fs::read_to_string(home.keys().join("checkpoint")).expect("reads");
    assert_eq!(mark, shown, "no other root was signed for a size that was shown");
    // A mark that is no checkpoint of this log stops the start, and says which file it is.
    std::fs::write(home.keys().join("checkpoint"), "nonsense").expect("writes");
    let refused = home.try_open().map(|(engine, _)| engine.close());
    assert!(matches!(refused, Err(OpenError::Notary(NotaryError::Mark { .. }))), "{refused:?}");
}
