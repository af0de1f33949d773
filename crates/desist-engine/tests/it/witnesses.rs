//! Witnesses cosign one history of the log, and the log goes on without those that do not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use desist_core::fact::{AlarmKind, Fact};
use desist_engine::engine::Engine;
use desist_engine::env::{Answer, Done, Env, Outbound, Outgoing, SendError};
use desist_engine::notary;
use desist_engine::notary::witnesses::WitnessAt;
use desist_engine::witness::{NotCosigned, Witness, WitnessError, watched};
use desist_proof::checkpoint::{CheckpointError, SignedCheckpoint, verify_pair};
use desist_proof::note::{Algorithm, Signer, Verifier};
use desist_proof::proof::{ProofError, consistency};
use desist_proof::receipt::Trust;
use desist_proof::witness::{AddCheckpoint, Refused, SIZE_TYPE};
use desist_store::tiles;
use tempfile::TempDir;

use crate::notary::{people, signed};
use crate::support::{Fake, Home, log};

/// What stands at an address.
enum Host {
    /// A witness of ours.
    Witness(Arc<Witness>),
    /// Something that answers always the same.
    Says(Result<Answer, SendError>),
    /// Something that keeps all requests and never answers.
    Silent(Vec<Done>),
}

/// The machines that a log can reach.
#[derive(Default)]
struct World(Mutex<HashMap<String, Host>>);

impl World {
    fn put(&self, url: &str, host: Host) {
        self.0.lock().expect("whole").insert(url.to_owned(), host);
    }
}

impl Outbound for World {
    fn send(&self, request: Outgoing, done: Done) {
        let mut hosts = self.0.lock().expect("whole");
        let url = request.url.strip_suffix("/add-checkpoint").expect("the call of the protocol");
        let answer = match hosts.get_mut(url).expect("a known host") {
            Host::Witness(witness) => Ok(answer(witness.add(std::str::from_utf8(&request.body).expect("text")))),
            Host::Says(answer) => answer.clone(),
            Host::Silent(waiting) => return waiting.push(done),
        };
        drop(hosts);
        done(answer);
    }
}

fn answer(outcome: Result<String, NotCosigned>) -> Answer {
    let (status, kind, body) = match outcome {
        Ok(lines) => (200, "text/plain", lines),
        Err(NotCosigned::Refused(Refused::OtherSize(size) | Refused::OtherRoot(size))) => (409, SIZE_TYPE, format!("{size}\n")),
        Err(NotCosigned::Refused(refused)) => (refused.status(), "text/plain", refused.to_string()),
        Err(other) => (400, "text/plain", other.to_string()),
    };
    says(status, kind, &body)
}

fn says(status: u16, kind: &str, body: &str) -> Answer {
    Answer { status, headers: vec![("content-type".into(), kind.into())], body: body.into() }
}

fn at(url: &str, key: &Verifier) -> WitnessAt {
    WitnessAt { url: url.to_owned(), key: key.clone(), allow_private: false }
}

/// A new witness of a log, with its directory.
fn witness(env: &Arc<Fake>, name: &str, log: &Engine) -> (TempDir, Arc<Witness>) {
    let dir = tempfile::tempdir().expect("a directory");
    let logs = vec![log.shared().notary.verifier().clone()];
    let witness = Witness::open(&dir.path().join("w"), Some(name), logs, Arc::clone(env) as Arc<dyn Env>).expect("starts");
    (dir, Arc::new(witness))
}

fn key(name: &str) -> Verifier {
    Signer::new(name, Algorithm::Cosignature, &[9; 32]).expect("a name").verifier().clone()
}

/// Waits for what a thread beside this one does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A log with witnesses at these addresses.
fn home(seed: u64, witnesses: Vec<WitnessAt>, world: &Arc<World>) -> Home {
    let mut home = Home::new(seed);
    home.policy.witnesses = witnesses;
    home.outbound = Some(Arc::clone(world) as Arc<dyn Outbound>);
    home
}

/// Witnesses, each with its directory.
type Running = Vec<(TempDir, Arc<Witness>)>;

/// The engine with witnesses that watch it, once their keys are known.
fn watched_log(seed: u64, names: &[&str]) -> (Home, Engine, Arc<World>, Running) {
    let world = Arc::new(World::default());
    let mut home = home(seed, Vec::new(), &world);
    let engine = home.open();
    let witnesses: Vec<_> = names.iter().map(|name| witness(&home.env, name, &engine)).collect();
    for (name, (_, witness)) in names.iter().zip(&witnesses) {
        world.put(name, Host::Witness(Arc::clone(witness)));
        home.policy.witnesses.push(at(name, witness.verifier()));
    }
    engine.declare(&home.policy).expect("taken");
    (home, engine, world, witnesses)
}

fn is_cosigned(engine: &Engine, by: &[&Verifier]) -> bool {
    let published = signed(engine);
    by.iter().all(|key| published.checkpoint.is_cosigned_by(key))
}

#[test]
fn every_checkpoint_and_receipt_carries_the_witnesses() {
    let (home, engine, _world, witnesses) = watched_log(60, &["w.example/1", "w.example/2"]);
    let keys: Vec<_> = witnesses.iter().map(|(_, witness)| witness.verifier().clone()).collect();
    for round in 0..4 {
        let id = people(&engine, round * 300, 300)[0];
        until("cosigned", || is_cosigned(&engine, &[&keys[0], &keys[1]]));
        let receipt = engine.read(|read| {
            let row = read.request(id)?.expect("recorded");
            notary::receipt(read, engine.shared(), &row)
        });
        let receipt = receipt.expect("reads").expect("allowed").expect("signed");
        let verified = receipt.verify(&engine.shared().notary.verifier(), &keys).expect("good");
        let Trust::Witnessed { by } = verified.trust() else { panic!("witnessed") };
        let names: Vec<_> = by.iter().map(|(name, time)| (name.as_str(), *time as i64)).collect();
        assert_eq!(names, [("w.example/1", home.env.now()), ("w.example/2", home.env.now())]);
    }
    // What was shown with its cosignatures is shown again after a restart.
    let text = signed(&engine).text.clone();
    assert!(engine.shared().notary.witnesses().iter().all(|state| state.cosigned == Some(engine.applied()) && !state.lost));
    engine.close();
    let engine = home.open();
    assert_eq!(engine.shared().notary.published().expect("the mark").text, text);
    engine.close();
}

#[test]
fn a_silent_witness_delays_nothing_and_becomes_an_alarm_until_it_is_back() {
    let (home, engine, world, witnesses) = watched_log(61, &["w.example/1"]);
    let real = &witnesses[0].1;
    until("cosigned", || is_cosigned(&engine, &[real.verifier()]));
    world.put("w.example/1", Host::Says(Err(SendError::NotSent("connection refused".into()))));
    people(&engine, 0, 5);
    assert!(!signed(&engine).checkpoint.is_cosigned_by(real.verifier()), "shown without it");
    until("the failure is known", || engine.shared().notary.witnesses()[0].failing.is_some());
    assert_eq!(engine.alarms(), [], "a restart of the witness is no alarm");
    let since = home.env.now();
    for _ in 0..3 {
        home.env.advance(61);
        people(&engine, 100 + home.env.now() as u32, 1);
        signed(&engine);
    }
    until("the alarm", || engine.alarms() == [(AlarmKind::WitnessLost.into(), since)]);
    until("its fact", || log(&engine).iter().any(|entry| matches!(entry.fact, Fact::AlarmRaised { kind: AlarmKind::WitnessLost, .. })));
    world.put("w.example/1", Host::Witness(Arc::clone(real)));
    // A failure from before may be taken in after the clock moved, so it moves until the witness is asked.
    until("no alarm", || {
        home.env.advance(61);
        engine.alarms().is_empty()
    });
    until("its fact", || log(&engine).iter().any(|entry| matches!(entry.fact, Fact::AlarmCleared { kind: AlarmKind::WitnessLost, .. })));
    until("cosigned", || is_cosigned(&engine, &[real.verifier()]));
    engine.close();
}

#[test]
fn an_answer_that_comes_late_is_added_to_what_is_shown() {
    let (_home, engine, world, witnesses) = watched_log(62, &["w.example/1"]);
    let real = &witnesses[0].1;
    until("cosigned", || is_cosigned(&engine, &[real.verifier()]));
    world.put("w.example/1", Host::Silent(Vec::new()));
    let id = people(&engine, 0, 3)[0];
    let shown = signed(&engine);
    assert!(!shown.checkpoint.is_cosigned_by(real.verifier()));
    // The log goes on, so that the answer will be about a checkpoint that is not the last.
    people(&engine, 3, 3);
    assert!(signed(&engine).size() > shown.size());
    let trust = || {
        let receipt = engine.read(|read| {
            let row = read.request(id)?.expect("recorded");
            notary::receipt(read, engine.shared(), &row)
        });
        let receipt = receipt.expect("reads").expect("allowed").expect("signed");
        receipt.verify(&engine.shared().notary.verifier(), &[real.verifier().clone()]).expect("good").trust()
    };
    assert_eq!(trust(), Trust::SelfAttested);
    let host = std::mem::replace(world.0.lock().expect("whole").get_mut("w.example/1").expect("there"), Host::Witness(Arc::clone(real)));
    let Host::Silent(mut waiting) = host else { panic!("it was silent") };
    let size = engine.read(|read| {
        let from = real_size(real, &shown.checkpoint);
        let proof = consistency(from, shown.size(), &mut |id| tiles::tile(read, id)).map_err(tiles::damaged)?;
        let request = AddCheckpoint { old_size: from, proof, checkpoint: shown.checkpoint.clone() };
        Ok(real.add(&request.to_string()))
    });
    waiting.pop().expect("asked")(Ok(answer(size.expect("reads"))));
    until("the receipt carries it", || matches!(trust(), Trust::Witnessed { .. }));
    // With nothing new the last one gets its own.
    until("added", || is_cosigned(&engine, &[real.verifier()]));
    engine.close();
}

/// How far a witness is, by its own word.
fn real_size(witness: &Witness, checkpoint: &SignedCheckpoint) -> u64 {
    let zero = AddCheckpoint { old_size: 0, proof: Vec::new(), checkpoint: checkpoint.clone() };
    match witness.add(&zero.to_string()) {
        Err(NotCosigned::Refused(Refused::OtherSize(size))) => size,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_a_witness_says_the_log_goes_on_and_only_cosignatures_count() {
    let world = Arc::new(World::default());
    let other = Signer::new("w.example/1", Algorithm::Cosignature, &[8; 32]).expect("a name");
    let ours = key("w.example/1");
    let mut home = home(63, vec![at("w.example/1", &ours)], &world);
    home.policy.witnesses[0].allow_private = true;
    let forged = other.sign("desist.invalid/acme/0\n1\nAAAA\n", 5).expect("text").to_string();
    let refusals = [403, 404, 422, 400, 409].map(|status| says(status, "text/plain", ""));
    let lies = [
        says(200, "text/plain", ""),
        says(200, "text/plain", "nonsense"),
        says(200, "text/plain", &forged),
        says(200, "application/octet-stream", "\u{0}"),
        says(409, SIZE_TYPE, "18446744073709551615\n"),
        says(409, SIZE_TYPE, "-1\n"),
        says(409, SIZE_TYPE, ""),
    ];
    world.put("w.example/1", Host::Says(Ok(says(403, "text/plain", ""))));
    let engine = home.open();
    for (round, answer) in refusals.into_iter().chain(lies).enumerate() {
        let status = answer.status;
        world.put("w.example/1", Host::Says(Ok(answer)));
        people(&engine, round as u32, 1);
        let shown = signed(&engine);
        assert!(!shown.checkpoint.is_cosigned_by(&ours), "{status}");
        until("the refusal is known", || {
            home.env.advance(61);
            engine.shared().notary.witnesses().iter().any(|state| state.failing.is_some())
        });
        assert!(engine.shared().notary.witnesses()[0].lost, "a refusal is an alarm at once");
        // A witness that is taken out of the configuration is no alarm.
        engine.declare(&desist_engine::engine::Policy { witnesses: Vec::new(), ..home.policy.clone() }).expect("taken");
        until("no alarm", || engine.alarms().is_empty());
        engine.declare(&home.policy).expect("taken");
    }
    // A server that is down is no refusal.
    for answer in [Ok(says(500, "text/plain", "")), Ok(says(429, "text/plain", "")), Err(SendError::NoAnswer("time".into()))] {
        engine.declare(&desist_engine::engine::Policy { witnesses: Vec::new(), ..home.policy.clone() }).expect("taken");
        until("no alarm", || engine.alarms().is_empty());
        world.put("w.example/1", Host::Says(answer));
        engine.declare(&home.policy).expect("taken");
        until("known", || engine.shared().notary.witnesses().first().is_some_and(|state| state.failing.is_some()));
        assert_eq!(engine.alarms(), []);
    }
    engine.close();
}

#[test]
fn a_log_that_its_operator_rewrote_is_caught_by_a_witness_and_by_two_receipts() {
    let (home, engine, _world, witnesses) = watched_log(64, &["w.example/1"]);
    let witness = Arc::clone(&witnesses[0].1);
    people(&engine, 0, 40);
    signed(&engine);
    // The operator keeps a copy, and later goes on from it with another history, the mark thrown away.
    let copy = Home::image(&home, 65);
    people(&engine, 40, 40);
    until("cosigned", || is_cosigned(&engine, &[witness.verifier()]));
    let honest = signed(&engine);
    engine.close();
    std::fs::remove_file(copy.keys().join("checkpoint")).expect("there");
    let world = Arc::new(World::default());
    world.put("w.example/1", Host::Witness(Arc::clone(&witness)));
    let mut copy = copy;
    copy.outbound = Some(Arc::clone(&world) as Arc<dyn Outbound>);
    let rewritten = copy.open();
    let missing = honest.size() - rewritten.applied();
    people(&rewritten, 500, missing as u32 + 20);
    let forged = signed(&rewritten);
    until("the witness says why", || {
        copy.env.advance(61);
        let states = rewritten.shared().notary.witnesses();
        states[0].failing.as_ref().is_some_and(|(_, why)| why.contains("another history"))
    });
    until("the alarm", || rewritten.alarms().iter().any(|(about, _)| about.kind == AlarmKind::WitnessLost));
    assert!(!signed(&rewritten).checkpoint.is_cosigned_by(witness.verifier()), "the witness does not lend its name");
    let (_, logs) = watched(&witnesses[0].0.path().join("w")).expect("reads");
    assert_eq!(
        (logs[0].size, logs[0].convicted),
        (honest.size(), false),
        "it remembers the honest log, and only two roots of one size convict"
    );
    // Two holders of receipts, one of each history, compare what the log signed.
    let key = rewritten.shared().notary.verifier().clone();
    let (ours, theirs) = (honest.checkpoint.open(&key, &[]).expect("signed"), forged.checkpoint.open(&key, &[]).expect("signed"));
    let proof = rewritten.read(|read| consistency(honest.size(), forged.size(), &mut |id| tiles::tile(read, id)).map_err(tiles::damaged));
    let contradiction = verify_pair(&ours, &theirs, &proof.expect("reads"));
    assert!(matches!(contradiction, Err(CheckpointError::Consistency(ProofError::OlderRoot | ProofError::Root))), "{contradiction:?}");
    rewritten.close();
}

#[test]
fn a_witness_remembers_and_never_runs_without_its_memory() {
    let (home, engine, world, mut witnesses) = watched_log(66, &["w.example/1"]);
    people(&engine, 0, 10);
    let (dir, witness) = witnesses.pop().expect("one");
    until("cosigned", || is_cosigned(&engine, &[witness.verifier()]));
    let path = dir.path().join("w");
    let logs = vec![engine.shared().notary.verifier().clone()];
    let open_with = |env: &Arc<Fake>, name: Option<&str>| Witness::open(&path, name, logs.clone(), Arc::clone(env) as Arc<dyn Env>);
    assert!(matches!(open_with(&home.env, None), Err(WitnessError::InUse(_))));
    let (size, key) = (engine.applied(), witness.verifier().clone());
    engine.close();
    let env = Arc::clone(&home.env);
    drop((witness, engine, world, home));
    let open = |name: Option<&str>| open_with(&env, name);
    assert!(matches!(open(Some("other.example")), Err(WitnessError::OtherName { .. })));
    let again = open(None).expect("starts again");
    assert_eq!(again.verifier(), &key);
    drop(again);
    assert_eq!(watched(&path).expect("reads").1[0].size, size);
    let file = path.join("cosigned.json");
    let memory = std::fs::read(&file).expect("reads");
    for damaged in [&memory[..memory.len() - 9], b"", &[b"x", &memory[..]].concat()] {
        std::fs::write(&file, damaged).expect("writes");
        assert!(matches!(open(None), Err(WitnessError::Memory(_))));
    }
    std::fs::remove_file(&file).expect("there");
    assert!(matches!(open(None), Err(WitnessError::Memory(_))));
    let fresh = Witness::open(&dir.path().join("new"), None, logs.clone(), Arc::clone(&env) as Arc<dyn Env>);
    assert!(matches!(fresh, Err(WitnessError::NoName)));
}

#[test]
fn what_convicts_a_log_is_kept_whatever_it_does_next() {
    let log = Signer::new("log.example", Algorithm::Ed25519, &[3; 32]).expect("a name");
    let (dir, home) = (tempfile::tempdir().expect("a directory"), Home::new(67));
    let witness = Witness::open(&dir.path().join("w"), Some("w"), vec![log.verifier().clone()], Arc::clone(&home.env) as Arc<dyn Env>);
    let witness = witness.expect("starts");
    let ask = |old_size: u64, root: u16| {
        let mut hash = [7; 32];
        hash[..2].copy_from_slice(&root.to_be_bytes());
        let checkpoint = desist_proof::checkpoint::Checkpoint::new("log.example", 5, hash).expect("a name");
        let checkpoint = SignedCheckpoint::sign(checkpoint, &log).expect("signed");
        witness.add(&AddCheckpoint { old_size, proof: Vec::new(), checkpoint }.to_string())
    };
    ask(0, 0).expect("cosigned");
    let convicted = || watched(&dir.path().join("w")).expect("reads").1[0].convicted;
    assert!(!convicted());
    for root in 1..=200 {
        assert!(matches!(ask(5, root), Err(NotCosigned::Refused(Refused::OtherRoot(5)))));
    }
    assert!(convicted());
    // Two signed checkpoints of one size with two roots, and no more, however often the log contradicts itself.
    let read = |name: &std::fs::DirEntry| std::fs::read_to_string(name.path()).expect("text");
    let files = std::fs::read_dir(dir.path().join("w/conflicts")).expect("there").map(|file| read(&file.expect("reads")));
    let open = |text: String| SignedCheckpoint::parse(&text).expect("a checkpoint").open(log.verifier(), &[]).expect("signed");
    let [first, second] = &files.map(open).collect::<Vec<_>>()[..] else { panic!("two") };
    assert_eq!(verify_pair(first, second, &[]), Err(CheckpointError::Consistency(ProofError::Forked)));
}
