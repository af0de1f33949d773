//! Commands from several threads, in whatever order they come.

use desist_core::fact::{Actor, Channel};
use desist_core::identifier::Kind;
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::engine::{Engine, Failure};
use desist_engine::intake::{self, ImportChunk, NewRequest};
use desist_engine::profiles::{self, NewProfile, Wish};
use desist_engine::queue::Lane;
use proptest::prelude::*;

use crate::story::pkey;
use crate::support::{Home, audit, confirm, is_denied, log, named, opt_in, opt_out, settle, stored_verdicts, submit};

/// What to do with which of the people.
#[derive(Clone, Debug)]
enum Doing {
    OptOut(Vec<usize>, Channel),
    Import(Vec<usize>),
    Link(Vec<usize>),
    Unlink(Vec<usize>),
    OptIn(usize),
    Create(usize, usize, bool),
    End(usize),
    Delete(usize),
    Signal(Vec<usize>),
}

const POOL: [(Kind, &str); 9] = [
    (Kind::Email, "a@example.com"),
    (Kind::Email, "b@example.com"),
    (Kind::Phone, "+12025550143"),
    (Kind::CustomerId, "c1"),
    (Kind::CustomerId, "c2"),
    (Kind::CampaignPkey, "p0"),
    (Kind::CookieId, "k1"),
    (Kind::CookieId, "k2"),
    (Kind::DeviceId, "d1"),
];

fn doing() -> impl Strategy<Value = Doing> {
    let some = || prop::collection::vec(0..POOL.len(), 1..4);
    let channel = prop::sample::select(&[Channel::Form, Channel::Gpc, Channel::Operator, Channel::Agent][..]);
    prop_oneof![
        4 => (some(), channel).prop_map(|(who, channel)| Doing::OptOut(who, channel)),
        1 => some().prop_map(Doing::Import),
        3 => some().prop_map(Doing::Link),
        2 => some().prop_map(Doing::Unlink),
        2 => (0..POOL.len()).prop_map(Doing::OptIn),
        2 => (0..3_usize, 0..3_usize, any::<bool>()).prop_map(|(key, who, out)| Doing::Create(key, who, out)),
        1 => (0..3_usize).prop_map(Doing::End),
        1 => (0..3_usize).prop_map(Doing::Delete),
        2 => some().prop_map(Doing::Signal),
    ]
}

/// Does one thing. What was opted out with its acknowledgement is denied at once, unless somebody
/// may be opting in meanwhile.
fn act(engine: &Engine, doing: &Doing, number: u64, opt_ins: bool) {
    let people = |who: &[usize]| -> Vec<Named> { who.iter().map(|one| named(engine, POOL[*one].0, POOL[*one].1)).collect() };
    let by = Actor::Key(1);
    let denied = |people: &[Named]| {
        for one in people {
            assert!(opt_ins || is_denied(engine, PurposeSet::SALE, &[*one]), "acknowledged and not denied");
        }
    };
    match doing {
        Doing::OptOut(who, channel) => {
            let people = people(who);
            submit(engine, NewRequest { channel: *channel, ..opt_out(people.clone()) }).expect("taken");
            denied(&people);
        }
        Doing::Import(who) => {
            let mut import = [0; 32];
            import[..8].copy_from_slice(&number.to_be_bytes());
            let (people, purposes) = (people(who), PurposeSet::OPT_OUT_DEFAULT);
            let chunk = ImportChunk {
                import,
                first_row: 0,
                rows: 1,
                people: vec![people.clone()],
                given: Vec::new(),
                purposes,
                acted_at: None,
                last: true,
                by,
            };
            engine.submit_blocking(Lane::Bulk, move |ctx| intake::import(ctx, &chunk)).expect("taken");
            denied(&people);
        }
        Doing::Link(who) => {
            let people = people(who);
            let _ = engine.submit_blocking(Lane::Interactive, move |ctx| intake::link(ctx, &people, &[], by));
        }
        Doing::Unlink(who) => {
            let people = people(who);
            let _ = engine.submit_blocking(Lane::Interactive, move |ctx| intake::unlink(ctx, &people, by));
        }
        Doing::OptIn(who) if opt_ins => {
            if let Ok(asked) = submit(engine, opt_in(people(&[*who]), PurposeSet::OPT_OUT_DEFAULT)) {
                confirm(engine, &asked).expect("confirmed");
            }
        }
        Doing::Create(key, who, out) => {
            let email = people(&[*who])[0];
            let new = NewProfile {
                pkey: format!("p{key}"),
                attributes: b"{}".to_vec(),
                identifiers: vec![email],
                email: Some(email),
                opt_out: *out,
                evidence: b"{}".to_vec(),
                given: Vec::new(),
                by,
            };
            engine.submit_blocking(Lane::Interactive, move |ctx| profiles::create(ctx, &new)).expect("taken");
            if *out {
                denied(&[email]);
            }
        }
        Doing::End(key) if opt_ins => {
            let pkey = pkey(&format!("p{key}"));
            let wish = Wish { opt_out: Some(false), alone: true, all_or_nothing: false, evidence: Vec::new(), by };
            let mut merge = |attributes: &[u8]| {
                Some(profiles::Merged {
                    attributes: attributes.to_vec(),
                    old: Vec::new(),
                    new: Vec::new(),
                    email: None,
                    changed: false,
                    given: Vec::new(),
                })
            };
            let _ = engine.submit_blocking(Lane::Interactive, move |ctx| profiles::change(ctx, &pkey, &wish, &mut merge, true));
        }
        Doing::OptIn(_) | Doing::End(_) => {}
        Doing::Delete(key) => {
            let pkey = pkey(&format!("p{key}"));
            let deleted = engine.submit_blocking(Lane::Interactive, move |ctx| profiles::delete(ctx, &pkey, by));
            assert!(matches!(deleted, Ok(()) | Err(Failure::Refused(_))));
        }
        Doing::Signal(who) => engine.note_signal(&people(who), &[], desist_core::decision::Context { gpc: true, age_band: None }, by),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24 * crate::support::scale(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_interleaving_fits_its_log(threads in prop::collection::vec(prop::collection::vec(doing(), 1..20), 1..4), opt_ins in any::<bool>(), seed in any::<u64>()) {
        let home = Home::new(seed);
        let engine = home.open();
        std::thread::scope(|scope| {
            for (thread, doings) in (0_u64..).zip(&threads) {
                let (engine, env) = (&engine, &home.env);
                scope.spawn(move || {
                    for (place, doing) in (0_u64..).zip(doings) {
                        act(engine, doing, thread * 1000 + place, opt_ins);
                        env.advance(if place % 3 == 0 { -1 } else { 1 });
                    }
                });
            }
        });
        settle(&engine);
        audit(&engine);
        prop_assert!(log(&engine).iter().map(|entry| entry.at).is_sorted());
        let verdicts = stored_verdicts(&engine);
        // What a loss of power would leave, and what a stop leaves.
        let image = Home::image(&home, seed.wrapping_add(1));
        let again = image.open();
        audit(&again);
        prop_assert_eq!(stored_verdicts(&again), verdicts.clone());
        again.close();
        engine.close();
        drop(engine);
        let again = home.open();
        audit(&again);
        prop_assert_eq!(stored_verdicts(&again), verdicts);
        again.close();
    }
}
