//! What was acknowledged stays: through a loss of power at any sync, kill -9, a full disk, a stop.
//!
//! `DESIST_SCALE` multiplies how much is tried (1 in CI, 10 for the full size, see `docs/soak.md`),
//! `DESIST_SEED` moves the moments at which things happen.

mod client;
mod disk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use desist_core::fact::{AlarmKind, Entry, Fact};
use desist_store::Readers as _;
use desist_store::sqlite::SqliteReaders;
use serde_json::{Value, json};

use crate::support::{DESIST, Seeded, Server, run, scale, until};
use client::{Client, Outcome};
use disk::{Event, Image};

/// What clients saw of one opt-out.
struct Seen {
    who: String,
    outcome: Outcome,
}

/// Opt-outs of different people by `clients` connections at once, `each` per connection, told to
/// `watch` as they are answered; ends early where the server goes away. Returns all outcomes.
fn load(server: &Server, name: &str, clients: usize, each: usize, watch: impl FnOnce(&mpsc::Receiver<Seen>, &mut Vec<Seen>)) -> Vec<Seen> {
    let (tell, told) = mpsc::channel();
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..clients {
            let tell = tell.clone();
            scope.spawn(move || {
                let mut client = Client::new(server);
                for n in 0..each {
                    let who = format!("{name}-{number}-{n}@example.org");
                    let outcome = client.opt_out(&who);
                    let over = matches!(outcome, Outcome::Unanswered | Outcome::Cut | Outcome::Refused);
                    tell.send(Seen { who, outcome }).expect("the test listens");
                    if over {
                        break;
                    }
                }
            });
        }
        drop(tell);
        watch(&told, &mut all);
        all.extend(told.iter());
    });
    all
}

fn acknowledged(seen: &[Seen]) -> Vec<String> {
    seen.iter().filter(|one| matches!(one.outcome, Outcome::Acknowledged(_))).map(|one| one.who.clone()).collect()
}

/// The people among `who` whom the server does not deny.
fn allowed(server: &Server, who: &[String]) -> Vec<String> {
    let mut allowed = Vec::new();
    for some in who.chunks(10_000) {
        let subjects: Vec<Value> = some.iter().map(|email| json!({ "identifiers": [{ "kind": "email", "value": email }] })).collect();
        let answer = server.post("/v1/decisions", &json!({ "purpose": "sale", "subjects": subjects }));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let decisions = answer.json();
        let decisions = decisions["decisions"].as_array().expect("a list");
        assert_eq!(decisions.len(), some.len());
        allowed.extend(some.iter().zip(decisions).filter(|(_, decided)| decided["decision"] != "deny").map(|(email, _)| email.clone()));
    }
    allowed
}

fn assert_clean(data: &Path) {
    let check = run(data, &["check"]);
    assert!(check.status.success(), "{check:?}");
}

/// The facts in a store's log, by number.
fn log(data: &Path) -> Result<Vec<(u64, Fact)>, String> {
    let readers = SqliteReaders::open_read_only(data).map_err(|error| error.to_string())?;
    let mut stored = Vec::new();
    readers
        .read(&mut |read| {
            let upto = read.coordinator()?.counters.entries;
            stored = read.entries(1..upto + 1)?;
            assert_eq!(stored.len() as u64, upto, "the log is dense");
            Ok(())
        })
        .map_err(|error| error.to_string())?;
    stored
        .into_iter()
        .map(|(seq, bytes)| Entry::decode(&bytes).map(|entry| (seq, entry.fact)).map_err(|error| format!("entry {seq}: {error}")))
        .collect()
}

/// What a run under the recording layer showed.
#[derive(Debug, Default)]
struct Recorded {
    syncs: usize,
    images: usize,
    restarts: usize,
    acknowledged: usize,
    /// What the images do not hold although it was acknowledged before the next sync.
    lost: Vec<String>,
}

/// Runs a server under strace, opts people out with 16 clients, stops it, and replays what reached
/// the disk: between any two syncs the image of only synced writes must hold every opt-out whose
/// answer had been handed to the kernel. `inject` goes to strace.
fn record(requests: usize, restarts: usize, inject: &[&str]) -> Recorded {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, trace) = (place.path().join("data"), place.path().join("trace"));
    std::fs::create_dir(&data).expect("a directory");
    let mut strace = Command::new("strace");
    // -D: the server is our child, and strace its tracer aside.
    strace.args(["-D", "-f", "-y", "-xx", "-s", "200000", "-e", disk::CALLS, "-o"]).arg(&trace).args(inject).arg(DESIST);
    let version = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    assert!(version.is_ok_and(|status| status.success()), "strace is needed for this test: apt-get install -y strace");
    let server = Server::spawn(strace, &data, &[]);
    let seen = load(&server, "power", 16, requests.div_ceil(16), |_, _| {});
    assert!(server.stop().success());
    until("strace writes its last line", || disk::is_whole(&trace));

    let who: std::collections::HashMap<u64, &str> = seen
        .iter()
        .map(|one| match one.outcome {
            Outcome::Acknowledged(seq) => (seq, one.who.as_str()),
            _ => panic!("{}: {:?}", one.who, one.outcome),
        })
        .collect();
    let mut image = Image::new(&data, &place.path().join("image"));
    let mut result = Recorded::default();
    let mut sent: BTreeSet<u64> = BTreeSet::new();
    let total = disk::events(&trace, &data).filter(|event| matches!(event, Event::Synced { .. })).count();
    let restart_at: BTreeSet<usize> = (1..=restarts).map(|n| total * n / restarts).collect();
    for event in disk::events(&trace, &data) {
        match event {
            Event::Answered(seq) => {
                sent.insert(seq);
            }
            Event::Synced { .. } => {
                // The image before this sync, against all that was answered until it ended.
                inspect(&mut image, &sent, &who, restart_at.contains(&result.syncs), &mut result);
                image.apply(event);
                result.syncs += 1;
            }
            other => image.apply(other),
        }
    }
    inspect(&mut image, &sent, &who, true, &mut result);
    result.acknowledged = sent.len();
    assert_eq!(
        sent.into_iter().collect::<Vec<_>>(),
        who.keys().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
        "every answer that a client read is in the trace"
    );
    result
}

fn inspect(image: &mut Image, sent: &BTreeSet<u64>, who: &std::collections::HashMap<u64, &str>, restart: bool, result: &mut Recorded) {
    let path = image.write();
    let at = result.syncs;
    result.images += 1;
    if !sent.is_empty() {
        match log(&path) {
            Ok(facts) => {
                for seq in sent {
                    if !facts.get(*seq as usize - 1).is_some_and(|(found, fact)| found == seq && matches!(fact, Fact::OptedOut { .. })) {
                        result.lost.push(format!("after {at} syncs entry {seq} was answered and is not there"));
                    }
                }
            }
            Err(error) => {
                result.lost.push(format!("after {at} syncs {} answers were out and the store cannot be read: {error}", sent.len()));
            }
        }
    }
    // A first start must be possible again wherever it was cut off.
    if (restart || sent.is_empty()) && result.lost.is_empty() {
        result.restarts += 1;
        let copy = tempfile::tempdir().expect("a temporary directory");
        image.copy_to(copy.path());
        let server = Server::start_in(copy.path(), &[]);
        let answered: Vec<String> = sent.iter().map(|seq| who[seq].to_owned()).collect();
        result.lost.extend(allowed(&server, &answered).into_iter().map(|who| format!("after {at} syncs and a restart {who} is allowed")));
        assert!(matches!(Client::new(&server).opt_out("later@example.org"), Outcome::Acknowledged(_)), "after {at} syncs");
        assert!(server.stop().success());
        assert_clean(copy.path());
    }
}

#[test]
fn no_answer_leaves_before_its_batch_is_synced() {
    let requests = 200 * scale();
    let result = record(requests, 3 * scale(), &[]);
    println!("{} answers, {} syncs, {} images, {} restarts", result.acknowledged, result.syncs, result.images, result.restarts);
    assert!(
        result.lost.is_empty(),
        "{} of {} lost, first: {:#?}",
        result.lost.len(),
        result.acknowledged,
        &result.lost[..result.lost.len().min(5)]
    );
    assert!(result.acknowledged >= requests && result.syncs > 10 && result.restarts > 0, "{result:?}");
}

#[test]
fn with_syncs_switched_off_answers_are_lost() {
    let result = record(64, 1, &["-e", "inject=fsync,fdatasync:retval=0"]);
    assert_eq!(result.syncs, 0);
    assert!(result.acknowledged >= 64, "{result:?}");
    assert!(!result.lost.is_empty(), "the recording layer counts writes as durable that never were");
}

#[test]
fn kill_minus_nine_loses_nothing_acknowledged() {
    let (rounds, requests, clients) = (2 * scale(), 2_000 * scale(), 64);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path();
    let mut random = Seeded::new(0);
    let mut every = Vec::new();
    for round in 0..rounds {
        let mut server = Server::start_in(data, &[]);
        let (after, jitter) = (1 + random.below(requests - clients), Duration::from_micros(random.below(20_000) as u64));
        let pid = server.child.id().to_string();
        let seen = load(&server, &format!("kill{round}"), clients, requests.div_ceil(clients), |told, all| {
            all.extend(told.iter().take(after));
            let moment = Instant::now() + jitter;
            while let Ok(one) = told.recv_timeout(moment.saturating_duration_since(Instant::now())) {
                all.push(one);
            }
            assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs").success());
        });
        server.child.wait().expect("it ends");
        assert!(data.join("control.sock").exists(), "the socket of a killed server stays");
        let ours = acknowledged(&seen);
        println!("round {round}: killed after {after} answers and {jitter:?}, {} acknowledged", ours.len());
        assert!(ours.len() >= after, "all answers before the kill are acknowledgements");
        let again = Server::start_in(data, &[]);
        assert_eq!(allowed(&again, &ours), Vec::<String>::new(), "round {round}: acknowledged and lost");
        every.extend(ours);
        if round + 1 == rounds {
            assert_eq!(allowed(&again, &every), Vec::<String>::new(), "acknowledged in an earlier round and lost");
        }
        assert_clean(data);
        assert!(again.stop().success());
    }
}

/// A small file system of its own, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Self {
        let at = tempfile::tempdir().expect("a temporary directory");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(at.path())
            .output()
            .expect("mount runs");
        assert!(
            done.status.success(),
            "this test mounts a small tmpfs and must be root (in a container: --cap-add SYS_ADMIN): {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Self(at)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    /// Fills it up, but for about `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = File::create(self.ballast()).expect("room for a name");
        while file.write_all(&[1; 4096]).is_ok() {}
        let size = file.metadata().expect("a size").len();
        file.set_len(size.saturating_sub(left)).expect("it shrinks");
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it was there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: a server that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_intake_and_passes_by_itself() {
    let disk = SmallDisk::mount(48 << 20);
    let data = disk.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let server = Server::start_in(&data, &[]);
    let ready = || crate::support::send("GET", &format!("{}/readyz", server.private), b"", &[]).status;
    let alarm = || {
        let answer = crate::support::send("GET", &format!("{}/metrics", server.private), b"", &[]);
        answer
            .text
            .lines()
            .find(|line| line.starts_with("desist_alarm{") && line.contains(r#"kind="not_durable""#))
            .and_then(|line| line.rsplit_once(' '))
            .expect("the alarm is a metric")
            .1
            .to_owned()
    };
    assert_eq!((ready(), alarm().as_str()), (200, "0"));
    let mut random = Seeded::new(0);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let rounds = 4 * scale();
    for round in 0..rounds {
        // The first time not a page is free; later it gets tight at another write each time.
        disk.fill(if round == 0 { 0 } else { 4096 * random.below(256) as u64 });
        let full = AtomicBool::new(false);
        let seen = load(&server, &format!("full{round}"), 16, 8, |told, all| {
            for one in told {
                full.fetch_or(matches!(one.outcome, Outcome::NotDurable), Ordering::Relaxed);
                all.push(one);
            }
        });
        let mut n = 0;
        let (mut client, mut late) = (Client::new(&server), Vec::new());
        // Until the room that was left is used up.
        while !full.load(Ordering::Relaxed) {
            assert!(n < 2_000, "there is no room, and it goes on acknowledging");
            let who = format!("full{round}-more-{n}@example.org");
            let outcome = client.opt_out(&who);
            full.fetch_or(matches!(outcome, Outcome::NotDurable), Ordering::Relaxed);
            late.push(Seen { who, outcome });
            n += 1;
        }
        for one in seen.into_iter().chain(late) {
            match one.outcome {
                Outcome::Acknowledged(_) => taken.push(one.who),
                Outcome::NotDurable => refused.push(one.who),
                other => panic!("{}: {other:?}", one.who),
            }
        }
        if round == 0 {
            let body =
                json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "one-more@example.org" }] });
            let answer = server.post("/v1/requests", &body);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("not_durable")), "{}", answer.text);
            assert_eq!((ready(), alarm().as_str()), (503, "1"));
            let status = server.run(&["status"]);
            let text = String::from_utf8(status.stdout).expect("text");
            assert_eq!(status.status.code(), Some(1), "{text}");
            assert!(text.lines().any(|line| line.trim_start().starts_with("ALARM") && line.contains("not_durable")), "{text}");
        }
        // Decisions go on, and say what was acknowledged.
        assert_eq!(server.decide("email", "nobody@example.org"), ("allow".into(), "no_record".into()));
        assert_eq!(allowed(&server, &taken), Vec::<String>::new());
        disk.empty();
        let since = Instant::now();
        until("it takes requests again", || ready() == 200);
        println!("round {round}: {} taken and {} refused so far, ready again after {:?}", taken.len(), refused.len(), since.elapsed());
        assert_eq!(alarm(), "0");
        assert_eq!(server.run(&["status"]).status.code(), Some(0));
        let who = format!("after{round}@example.org");
        assert!(matches!(Client::new(&server).opt_out(&who), Outcome::Acknowledged(_)));
        taken.push(who);
    }
    assert!(!refused.is_empty());
    assert!(server.stop().success());
    let server = Server::start_in(&data, &[]);
    assert_eq!(allowed(&server, &taken), Vec::<String>::new(), "acknowledged and lost");
    assert_eq!(allowed(&server, &refused).len(), refused.len(), "refused, yet it took effect");
    assert_clean(&data);
    assert!(server.stop().success());
    let facts = log(&data).expect("readable");
    let alarms: Vec<_> =
        facts.iter().map(|(_, fact)| fact).filter(|fact| matches!(fact, Fact::AlarmRaised { .. } | Fact::AlarmCleared { .. })).collect();
    assert!(alarms.len() >= 2 * rounds, "{} alarm facts in {rounds} rounds", alarms.len());
    for pair in alarms.chunks(2) {
        assert!(
            matches!(pair, [Fact::AlarmRaised { kind: AlarmKind::NotDurable, .. }, Fact::AlarmCleared { kind: AlarmKind::NotDurable, .. }]),
            "{pair:?}"
        );
    }
}

#[test]
fn a_command_beside_the_server_takes_effect_in_it_at_once() {
    let server = Server::start();
    assert_eq!(server.decide("email", "rosa@example.org").0, "allow");
    let done = server.run(&["opt-out", "email:rosa@example.org"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(server.decide("email", "rosa@example.org"), ("deny".into(), "opted_out".into()));
}

#[test]
fn a_second_server_on_the_directory_gives_up_and_names_it() {
    let server = Server::start();
    // One that does not give up would serve for ever; `timeout` ends it with another code.
    let second = Command::new("timeout")
        .args(["20", DESIST, "serve", "--public", "127.0.0.1:0", "--private", "127.0.0.1:0", "--data"])
        .arg(&server.data)
        .output();
    let second = second.expect("timeout runs");
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    let said = String::from_utf8(second.stderr).expect("text");
    assert!(said.contains(&server.data.display().to_string()), "{said}");
    // The first one is not hurt: its socket is there, and it takes requests.
    assert!(server.run(&["opt-out", "email:rosa@example.org"]).status.success());
    assert_eq!(server.decide("email", "rosa@example.org").0, "deny");
}

#[test]
fn the_socket_of_a_killed_server_hinders_nobody() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start_in(directory.path(), &[]);
    server.kill();
    assert!(directory.path().join("control.sock").exists());
    let done = run(directory.path(), &["opt-out", "email:rosa@example.org"]);
    assert!(done.status.success(), "{done:?}");
    let server = Server::start_in(directory.path(), &[]);
    assert_eq!(server.decide("email", "rosa@example.org").0, "deny");
    assert!(server.run(&["opt-out", "email:sam@example.org"]).status.success());
    assert_eq!(server.decide("email", "sam@example.org").0, "deny");
    assert!(server.stop().success());
    assert!(!directory.path().join("control.sock").exists(), "a stop in order takes the socket away");
}

#[test]
fn a_stop_under_load_answers_what_it_took() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path();
    let mut random = Seeded::new(0);
    for round in 0..3 * scale() {
        let mut server = Server::start_in(data, &[]);
        let (after, jitter) = (1 + random.below(500), Duration::from_micros(random.below(20_000) as u64));
        // More than it can take before the stop.
        let seen = load(&server, &format!("stop{round}"), 16, 100_000, |told, all| {
            all.extend(told.iter().take(after));
            let moment = Instant::now() + jitter;
            while let Ok(one) = told.recv_timeout(moment.saturating_duration_since(Instant::now())) {
                all.push(one);
            }
            server.terminate();
        });
        assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
        let ours = acknowledged(&seen);
        let (mut unanswered, mut cut) = (Vec::new(), Vec::new());
        for one in seen {
            match one.outcome {
                Outcome::Acknowledged(_) | Outcome::Refused => {}
                Outcome::Unanswered => unanswered.push(one.who),
                Outcome::Cut => cut.push(one.who),
                Outcome::NotDurable | Outcome::Other(_) => panic!("{}: {:?}", one.who, one.outcome),
            }
        }
        println!(
            "round {round}: stopped after {after} answers and {jitter:?}, {} acknowledged, {} not taken",
            ours.len(),
            unanswered.len()
        );
        assert!(ours.len() >= after);
        assert_eq!(cut, Vec::<String>::new(), "answers that ended half-way");
        let again = Server::start_in(data, &[]);
        assert_eq!(allowed(&again, &ours), Vec::<String>::new(), "acknowledged and lost");
        assert_eq!(allowed(&again, &unanswered).len(), unanswered.len(), "taken, but the connection was closed before the answer");
        assert_clean(data);
        assert!(again.stop().success());
    }
}
