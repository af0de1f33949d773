//! What destinations took is recorded under a root in the log, and nothing else is.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desist_core::fact::{Acknowledgement, Actor, Fact};
use desist_core::identifier::Kind;
use desist_core::lane::{Jobs, Level, Now, Outcome, Report};
use desist_core::purpose::PurposeSet;
use desist_engine::delivery::transport::{Answered, Done, Ended, Errand, Message, Transport};
use desist_engine::delivery::{Destination, Driver, Event};
use desist_engine::engine::Engine;
use desist_engine::intake::Accepted;
use desist_engine::queue::Lane;
use desist_proof::delivery::{Deliveries, Reached, Record, root};
use desist_store::evidence::{pack, unpack};
use desist_store::faulty::Fault;

use crate::delivery::{destination, home, out};
use crate::notary::signed;
use crate::support::{Home, Opening, audit, confirmed, email, given, log, named, wait_until};

/// A destination that answers as it is told to; each answer has another digest.
#[derive(Default)]
pub struct Teller {
    /// How it answers, one after the other; then that all is applied.
    answers: Mutex<Vec<Outcome>>,
    /// What it refuses, by version.
    refuses: Mutex<Option<u64>>,
    /// What went out: targets and versions of each call.
    told: Mutex<Vec<BTreeMap<u64, u64>>>,
}

impl Teller {
    fn count(&self) -> usize {
        self.told.lock().expect("whole").iter().map(BTreeMap::len).sum()
    }
}

impl Transport for Teller {
    fn start(&self, errand: Errand, _: Duration, done: Done) {
        let mut answers = self.answers.lock().expect("whole");
        let outcome = if answers.is_empty() { Outcome::Ok(Level::Applied) } else { answers.remove(0) };
        let mut reports = Vec::new();
        if let Errand::Send(messages) = errand {
            let refused = *self.refuses.lock().expect("whole");
            let failed = Report::Failed { is_retryable: false, code: 7 };
            reports.extend(messages.iter().filter(|message| Some(message.version) == refused).map(|message| (message.target, failed)));
            self.told.lock().expect("whole").push(messages.iter().map(|message| (message.target.0, message.version)).collect());
        }
        let answer = Answered { status: 200, sha256: [self.told.lock().expect("whole").len() as u8; 32] };
        done(Ended { left: true, outcome, reports, answer: Some(answer) });
    }

    fn reaches(&self, message: &Message) -> bool {
        message.identifiers.iter().any(|known| known.kind == Kind::Email)
    }
}

/// A driver whose time is the test's.
struct Rig {
    driver: Driver,
    events: Receiver<Event>,
    now: Now,
}

impl Rig {
    fn new(home: &Home, engine: &Engine, destinations: Vec<(u32, Destination)>) -> Self {
        let (post, events) = channel();
        let driver = engine.driver(Arc::new(move |event| drop(post.send(event))));
        let now = Now { unix_ms: home.env.now() * 1000, mono_ms: 1_000_000 };
        let mut rig = Self { driver, events, now };
        rig.driver.configure(rig.now, destinations);
        rig
    }

    /// Seconds pass, one after the other, until something is so.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.second();
        }
        panic!("not in time: {what}");
    }

    fn second(&mut self) {
        self.driver.tick(self.now);
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(2)) {
            self.driver.step(self.now, event);
        }
        (self.now.mono_ms, self.now.unix_ms) = (self.now.mono_ms + 1000, self.now.unix_ms + 1000);
    }

    fn stop(mut self) {
        self.driver.step(self.now, Event::Stop);
        self.until("drained", |rig| rig.driver.is_drained());
    }
}

/// What each entry about deliveries says, with its records.
fn acknowledged(engine: &Engine) -> Vec<(Vec<Acknowledgement>, Vec<Record>)> {
    let mut all = Vec::new();
    for entry in log(engine) {
        if let Fact::Acknowledged { ranges, records, evidence } = entry.fact {
            let stored = engine.read(|read| read.evidence(entry.seq..entry.seq + 1, 1)).expect("reads").pop().expect("its evidence").1;
            let found = unpack(entry.seq, &stored).expect("records");
            assert_eq!((found.len() as u64, root(&found)), (records, evidence.0));
            all.push((ranges, found));
        }
    }
    all
}

fn declare(engine: &Engine, destinations: &[&Destination]) {
    // Numbers are given when they are first delivered to; then this test's own driver takes over.
    engine.deliver(destinations.iter().map(|one| Destination { through: Some(0), ..(*one).clone() }).collect()).expect("declared");
    engine.deliver(Vec::new()).expect("stopped");
}

#[test]
fn what_was_taken_is_recorded_at_the_stop_and_stays() {
    let home = home(1);
    let engine = home.open();
    let (crm, ads) = (Arc::new(Teller::default()), Arc::new(Teller::default()));
    let destinations = || vec![destination("crm", crm.clone()), destination("ads", ads.clone())];
    engine.deliver(destinations()).expect("delivers");
    let (rosa, vega) = (out(&engine, "rosa@example.org"), out(&engine, "vega@example.org"));
    wait_until("told", || crm.count() == 2 && ads.count() == 2);
    engine.close();
    let engine = home.open();
    audit(&engine);
    let all = acknowledged(&engine);
    let range = |destination| Acknowledgement { destination, from: rosa.seq, to: vega.seq, delivered: 2, parked: 0 };
    assert_eq!(all.iter().map(|(ranges, _)| ranges.clone()).collect::<Vec<_>>(), [[range(1), range(2)]]);
    let told: Vec<_> = all[0].1.iter().map(|record| (record.destination, record.version, record.level, record.status)).collect();
    let applied = |destination, version| (destination, version, Reached::Applied, 200);
    assert_eq!(told, [applied(1, rosa.seq), applied(1, vega.seq), applied(2, rosa.seq), applied(2, vega.seq)]);
    assert!(all[0].1.iter().all(|record| record.answer != [0; 16] && record.at == home.env.now() as u64));
    engine.deliver(destinations()).expect("delivers");
    engine.close();
    let engine = home.open();
    assert_eq!(acknowledged(&engine), all, "nothing was delivered since");
    engine.close();
}

#[test]
fn a_minute_has_one_entry_and_only_if_something_was_taken_or_parked() {
    let home = home(2);
    let engine = home.open();
    let (crm, ads) = (Arc::new(Teller::default()), Arc::new(Teller::default()));
    let destinations = [destination("crm", crm.clone()), destination("ads", ads.clone())];
    declare(&engine, &[&destinations[0], &destinations[1]]);
    let (rosa, vega) = (out(&engine, "rosa@example.org"), out(&engine, "vega@example.org"));
    *crm.refuses.lock().expect("whole") = Some(vega.seq);
    let [first, second] = destinations;
    let mut rig = Rig::new(&home, &engine, vec![(1, first), (2, second)]);
    rig.until("told", |_| crm.count() == 2 && ads.count() == 2);
    assert_eq!(acknowledged(&engine), []);
    rig.until("recorded", |_| !acknowledged(&engine).is_empty());
    let ranges = |place: usize| acknowledged(&engine)[place].0.clone();
    assert_eq!(
        ranges(0),
        [
            Acknowledgement { destination: 1, from: rosa.seq, to: rosa.seq, delivered: 1, parked: 1 },
            Acknowledgement { destination: 2, from: rosa.seq, to: vega.seq, delivered: 2, parked: 0 },
        ]
    );
    for _ in 0..200 {
        rig.second();
    }
    assert_eq!(acknowledged(&engine).len(), 1, "minutes without deliveries have no entry");
    // Somebody is parked, and nothing is taken.
    let juan = out(&engine, "juan@example.org");
    *crm.refuses.lock().expect("whole") = Some(juan.seq);
    rig.driver.step(rig.now, Event::Changed);
    rig.until("recorded", |_| acknowledged(&engine).len() == 2);
    assert_eq!(ranges(1)[0], Acknowledgement { destination: 1, from: 0, to: 0, delivered: 0, parked: 2 });
    assert_eq!(ranges(1)[1], Acknowledgement { destination: 2, from: juan.seq, to: juan.seq, delivered: 1, parked: 0 });
    rig.stop();
    assert_eq!(acknowledged(&engine).len(), 2);
    audit(&engine);
    engine.close();
}

#[test]
fn a_job_is_accepted_and_later_what_it_says() {
    let home = home(3);
    let engine = home.open();
    let crm = Arc::new(Teller::default());
    let one = destination("crm", crm.clone());
    declare(&engine, &[&one]);
    let rosa = out(&engine, "rosa@example.org");
    *crm.answers.lock().expect("whole") = vec![Outcome::Job("j-1".to_owned()), Outcome::Pending, Outcome::Ok(Level::Applied)];
    let lane = desist_core::lane::Config { jobs: Jobs { every_ms: 5_000, ..one.lane.jobs }, ..one.lane.clone() };
    let mut rig = Rig::new(&home, &engine, vec![(1, Destination { lane, ..one })]);
    rig.until("the job ended", |_| crm.answers.lock().expect("whole").is_empty());
    rig.stop();
    let records: Vec<_> = acknowledged(&engine).into_iter().flat_map(|(_, records)| records).collect();
    let levels: Vec<_> = records.iter().map(|record| (record.version, record.level)).collect();
    assert_eq!(levels, [(rosa.seq, Reached::Accepted), (rosa.seq, Reached::Applied)]);
    audit(&engine);
    engine.close();
}

#[test]
fn what_was_not_taken_leaves_no_record() {
    let home = home(4);
    let engine = home.open();
    let crm = Arc::new(Teller::default());
    let one = destination("crm", crm.clone());
    declare(&engine, &[&one]);
    out(&engine, "rosa@example.org");
    let failed = |failure| Outcome::Failed { failure, retry_after_ms: None };
    *crm.answers.lock().expect("whole") = vec![
        failed(desist_core::lane::Failure::Server),
        failed(desist_core::lane::Failure::Ambiguous),
        Outcome::Rejected { is_retryable: true, code: 1 },
        Outcome::SomeFailed { is_retryable: true, code: 1 },
        Outcome::TooLarge,
    ];
    let mut rig = Rig::new(&home, &engine, vec![(1, one)]);
    for _ in 0..300 {
        rig.second();
    }
    assert!(crm.count() > 0);
    if !crm.answers.lock().expect("whole").is_empty() {
        assert!(acknowledged(&engine).iter().all(|(_, records)| records.is_empty()));
    }
    rig.stop();
    let applied = crm.answers.lock().expect("whole").is_empty();
    let records: usize = acknowledged(&engine).iter().map(|(_, records)| records.len()).sum();
    assert!(records <= usize::from(applied));
    audit(&engine);
    engine.close();
}

/// Whatever call of the store fails: in the end each delivery has one record, and each entry its evidence.
#[test]
fn whatever_fails_each_delivery_is_recorded_once() {
    let kinds: [fn(u64) -> Fault; 3] = [Fault::Call, Fault::BeforeCommit, Fault::AfterCommit];
    for (seed, kind) in (10..).zip(kinds) {
        let first = home(seed);
        let engine = first.open();
        let crm = Arc::new(Teller::default());
        declare(&engine, &[&destination("crm", crm)]);
        (0..5).for_each(|n| drop(out(&engine, &format!("p{n}@example.org"))));
        engine.close();
        let mut n = 1;
        loop {
            let home = Home::image(&first, 1000 * seed + n);
            home.plan(Opening::Fails(kind(n)));
            let engine = home.open();
            let crm = Arc::new(Teller::default());
            let mut rig = Rig::new(&home, &engine, vec![(1, destination("crm", crm.clone()))]);
            rig.until("told", |_| crm.count() == 5);
            rig.until("recorded", |_| !acknowledged(&engine).is_empty());
            rig.stop();
            let came = home.opened() > 1;
            let all = acknowledged(&engine);
            let told: u64 = all.iter().flat_map(|(ranges, _)| ranges).map(|range| range.delivered).sum();
            assert_eq!((told, crm.count()), (5, 5), "{:?}", kind(n));
            audit(&engine);
            engine.close();
            if !came {
                break;
            }
            n += 1;
        }
        assert!(n > 3, "{n} faults");
    }
}

fn exported(engine: &Engine, accepted: &Accepted) -> Deliveries {
    signed(engine);
    let row = engine.read(|read| read.request(accepted.id)).expect("reads").expect("there");
    engine.deliveries(&row).expect("asked").expect("signed")
}

/// What a file proves: destination, version, level, whether the request names whom, and whether it is as of it or later.
fn proven(engine: &Engine, file: &Deliveries) -> Vec<(String, u64, Reached, bool, bool)> {
    let read = Deliveries::parse(file.to_json().as_bytes()).expect("a file");
    let (_, told) = read.verify(&engine.shared().notary.verifier(), &[]).expect("good");
    told.into_iter().map(|told| (told.destination.id, told.record.version, told.record.level, told.is_named, told.is_since)).collect()
}

fn unproven(file: &Deliveries) -> Vec<(&str, &str)> {
    file.unproven.iter().map(|one| (one.destination.id.as_str(), one.state.as_str())).collect()
}

#[test]
fn a_request_is_shown_with_its_deliveries_and_what_has_none() {
    let home = home(5);
    let engine = home.open();
    let teller = || Arc::new(Teller::default());
    let down = teller();
    *down.answers.lock().expect("whole") = vec![Outcome::Rejected { is_retryable: false, code: 3 }; 1000];
    let (crm, deaf) = (teller(), Arc::new(Deaf));
    let destinations = || vec![destination("crm", crm.clone()), destination("down", down.clone()), destination("deaf", deaf.clone())];
    engine.deliver(destinations()).expect("delivers");
    let (rosa, vega) = (out(&engine, "rosa@example.org"), out(&engine, "vega@example.org"));
    wait_until("told", || crm.count() == 2);
    let before = exported(&engine, &rosa);
    assert_eq!(proven(&engine, &before), [], "not yet in the log");
    assert_eq!(unproven(&before)[0], ("crm", "told, without a record"));
    assert_eq!(unproven(&before)[2], ("deaf", "unreachable"));
    assert!(unproven(&before)[1].1.starts_with("none yet"));
    engine.close();
    let engine = home.open();
    for accepted in [&rosa, &vega] {
        let file = exported(&engine, accepted);
        assert_eq!(proven(&engine, &file), [("crm".to_owned(), accepted.seq, Reached::Applied, true, true)]);
        assert_eq!(unproven(&file), [("down", "no record"), ("deaf", "no record")]);
    }
    // Somebody else's record is not among the destinations of this request, and does not fit its place.
    let (mut file, other) = (exported(&engine, &rosa), exported(&engine, &vega));
    file.deliveries[0].record = other.deliveries[0].record;
    let error = file.verify(&engine.shared().notary.verifier(), &[]).expect_err("another record");
    assert_eq!(error.link(), "delivery record");
    // What is said later is told later: until then there is no record as of it, and then the latest one is shown.
    let again = out(&engine, "rosa@example.org");
    let file = exported(&engine, &again);
    assert_eq!((proven(&engine, &file), unproven(&file)[0]), (Vec::new(), ("crm", "no record")));
    let vega_address = email(&engine, "vega@example.org");
    let allowed = confirmed(&engine, vec![vega_address], PurposeSet::SALE);
    engine.deliver(destinations()).expect("delivers");
    wait_until("told", || crm.count() == 4);
    engine.close();
    let engine = home.open();
    for (accepted, version) in [(&rosa, again.seq), (&again, again.seq), (&vega, allowed.seq)] {
        assert_eq!(proven(&engine, &exported(&engine, accepted)), [("crm".to_owned(), version, Reached::Applied, true, true)]);
    }
    audit(&engine);
    engine.close();
}

/// A destination that knows nobody.
struct Deaf;

impl Transport for Deaf {
    fn start(&self, _: Errand, _: Duration, done: Done) {
        done(Ended::all(Outcome::NotSent));
    }

    fn reaches(&self, _: &Message) -> bool {
        false
    }
}

#[test]
fn who_is_told_of_through_a_link_is_shown_as_such() {
    let home = home(6);
    let engine = home.open();
    let crm = Arc::new(Teller::default());
    let (account, rosa) = (named(&engine, Kind::CustomerId, "c-1"), email(&engine, "rosa@example.org"));
    let known = [given(&engine, Kind::CustomerId, "c-1"), given(&engine, Kind::Email, "rosa@example.org")].concat();
    engine.deliver(vec![destination("crm", crm.clone())]).expect("delivers");
    let alone = out(&engine, "rosa@example.org");
    wait_until("told", || crm.count() == 1);
    engine
        .submit_blocking(Lane::Interactive, move |ctx| {
            Ok(desist_engine::intake::link(ctx, &[account, rosa], &known, Actor::Local)?.map(|_| ()))
        })
        .expect("linked");
    wait_until("told as an account", || crm.count() == 2);
    engine.close();
    let engine = home.open();
    let told = proven(&engine, &exported(&engine, &alone));
    let [(_, _, level, is_named, is_since)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (*level, *is_named, *is_since),
        (Reached::Applied, false, true),
        "the entry names the address, not the account that has it now"
    );
    engine.close();
}

/// Bytes of evidence for each delivery, beside the books: a minute of one destination, as an answer for each and one for all.
#[test]
fn a_delivery_costs_few_bytes() {
    let digest_of =
        |n: u64| -> [u8; 32] { sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), n.to_be_bytes())).into() };
    let minute = |calls_of: u64| {
        let record = |n: u64| {
            let answer = *digest_of(n / calls_of).first_chunk().expect("16 of 32");
            // Who opts out today is spread over all who are known.
            let target = u64::from_be_bytes(*digest_of(n).first_chunk().expect("8 of 32")) % 1_000_000 * 2;
            Record {
                destination: 1,
                target,
                version: 5_000_000 + n * 7 % 10_007,
                at: 1_773_124_200 + n / 200,
                level: Reached::Applied,
                status: 200,
                answer,
            }
        };
        let mut records: Vec<_> = (0..10_000).map(record).collect();
        records.sort_unstable();
        pack(&records).len() as u64 * 100 / 10_000
    };
    let (alone, batched) = (minute(1), minute(100));
    // In hundredths of a byte; docs/receipt.md states the figures.
    assert!((1_950..2_150).contains(&alone) && (450..650).contains(&batched), "{alone} {batched}");
}
