//! The log is signed as one history, whenever the process ends, and its key can change.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use desist_proof::checkpoint::SignedCheckpoint;
use desist_proof::note::Verifier;
use desist_proof::{Frontier, Hash, leaf_hash};
use serde_json::Value;

use crate::support::{DESIST, Server, run, send, until};

/// Calls that change what is on disk.
const CALLS: [&str; 8] = ["openat", "write", "pwrite64", "fsync", "fdatasync", "/rename", "ftruncate", "/unlink"];
/// More of one of these on one file than any command makes; a loop that reaches it is a defect of the test.
const CALLS_MAX: usize = 200;

/// Runs a command that is killed when it begins a kind of call on a file for the `nth` time. Returns its output, or none if it was
/// killed.
fn killed_at(data: &Path, file: &Path, call: &str, nth: usize, arguments: &[&str]) -> Option<Output> {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, "-P"]).arg(file);
    let output = strace.arg(DESIST).args(arguments).arg("--data").arg(data).stdin(Stdio::null()).output();
    let output = output.expect("strace is missing; run scripts/test");
    // strace ends as its child did.
    if output.status.code().is_some() { Some(output) } else { None }
}

fn succeeded(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).expect("text")
}

/// What was signed, as it was met.
#[derive(Default)]
struct History {
    signed: Vec<(u64, Hash)>,
}

impl History {
    /// Takes in the mark, which whoever reads the log may have seen by now.
    fn see(&mut self, data: &Path) {
        let Ok(text) = std::fs::read_to_string(data.join("keys/checkpoint")) else { return };
        let read = SignedCheckpoint::parse(&text).expect("a mark is whole at every moment");
        let (size, root) = (read.unverified().size(), *read.unverified().root());
        let last = self.signed.last().copied().unwrap_or_default();
        assert!(size > last.0 || (size, root) == last, "{size} entries after {} were signed", last.0);
        self.signed.push((size, root));
    }

    /// The log that is there now began with everything that was signed.
    fn check(&self, data: &Path) {
        let directory = tempfile::tempdir().expect("a directory");
        let export = directory.path().join("export");
        let out = Command::new(DESIST).args(["export", "log"]).arg(&export).arg("--data").arg(data).output().expect("runs");
        succeeded(&out);
        let entries = std::fs::read_to_string(export.join("entries.ndjson")).expect("exported");
        let (mut frontier, mut roots) = (Frontier::default(), vec![Frontier::default().root()]);
        for entry in entries.lines() {
            frontier.append(leaf_hash(entry.as_bytes()));
            roots.push(frontier.root());
        }
        for (size, root) in &self.signed {
            assert_eq!(roots.get(usize::try_from(*size).expect("small")), Some(root), "the log of {size} entries is another one");
        }
    }
}

/// Each kind of call on each of the files.
fn steps<'a>(files: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'static str)> {
    files.iter().flat_map(|file| CALLS.map(|call| (*file, call)))
}

#[test]
fn a_kill_at_any_step_leaves_one_history() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let server = Server::start_in(&data, &[]);
    assert!(server.stop().success());
    let (mut history, mut killed, mut people) = (History::default(), 0, 0);
    for (file, call) in steps(&["desist.db-wal", "desist.db", "keys/checkpoint.next", "keys/checkpoint", "keys"]) {
        for nth in 1..=CALLS_MAX {
            people += 1;
            let who = format!("email:p{people}@example.org");
            let output = killed_at(&data, &data.join(file), call, nth, &["opt-out", &who, "--json"]);
            history.see(&data);
            if let Some(output) = output {
                // What was acknowledged is in the log, and whoever asks is told so.
                let answer: Value = serde_json::from_str(succeeded(&output)).expect("JSON");
                assert!(answer["receipt_code"].is_string(), "{answer}");
                assert_eq!(run(&data, &["decide", &who, "--purpose", "sale"]).status.code(), Some(1));
                break;
            }
            killed += 1;
            let checked = run(&data, &["check"]);
            assert!(checked.status.success(), "after {call} {nth} on {file}: {}", String::from_utf8_lossy(&checked.stdout));
        }
    }
    assert!(killed >= 30, "{killed} kills are too few to have met every step");
    // The server goes on from there, signs, and has no alarm.
    let server = Server::start_in(&data, &[]);
    assert!(server.run(&["status"]).status.success());
    assert!(server.stop().success());
    history.see(&data);
    history.check(&data);
}

/// The keys that a log publishes, as its text.
fn published(server: &Server) -> Vec<String> {
    let text = send("GET", &format!("{}/log/key", server.public), b"", &[]).text;
    text.lines().map(str::to_owned).collect()
}

/// Opts somebody out, and saves the receipt.
fn receipt(server: &Server, who: &str, to: &Path) {
    let output = server.run(&["opt-out", &format!("email:{who}"), "--json"]);
    let answer: Value = serde_json::from_str(succeeded(&output)).expect("JSON");
    let url = format!("{}/receipt/{}?format=json", server.public, answer["receipt_code"].as_str().expect("a code"));
    until("the receipt is signed", || {
        let answer = send("GET", &url, b"", &[]);
        answer.status == 200 && std::fs::write(to, answer.text).is_ok()
    });
}

/// The exit code of `desist verify` on a receipt, under keys one a line.
fn verify(receipt: &Path, keys: &[&str]) -> Option<i32> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), keys.join("\n")).expect("writes");
    let output = Command::new(DESIST).arg("verify").arg(receipt).arg("--key").arg(file.path()).output().expect("runs");
    let mut script = Command::new("node");
    script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/verify.mjs")).arg(keys.join("\n")).arg(receipt);
    let page = script.output().expect("node is missing; run scripts/test");
    assert_eq!(page.status.code(), output.status.code(), "the page's verifier says something else than the command");
    output.status.code()
}

#[test]
fn a_new_key_and_the_one_before_are_both_good_unless_it_was_given_up() {
    let place = tempfile::tempdir().expect("a directory");
    let (data, file) = (place.path().join("data"), |name: &str| place.path().join(name));
    let server = Server::start_in(&data, &[]);
    receipt(&server, "one@example.org", &file("one.json"));
    let [first] = &published(&server)[..] else { panic!("one key") };
    let rotate = |server: &Server, more: &[&str]| {
        let output = server.run(&[&["key", "rotate-log", "--json"], more].concat());
        let answer: Value = serde_json::from_str(succeeded(&output)).expect("JSON");
        answer["key"].as_str().expect("a key").to_owned()
    };
    let second = rotate(&server, &[]);
    assert_eq!(published(&server), [second.clone(), first.clone()]);
    receipt(&server, "two@example.org", &file("two.json"));
    let (one, two) = (file("one.json"), file("two.json"));
    let codes = |receipt: &Path, keys: &[&[&str]]| keys.iter().map(|keys| verify(receipt, keys)).collect::<Vec<_>>();
    let each: [&[&str]; 3] = [&[first], &[&second], &[&second, first]];
    assert_eq!(codes(&one, &each), [Some(0), Some(1), Some(0)]);
    assert_eq!(codes(&two, &each), [Some(0), Some(0), Some(0)]);
    // Also after a restart, and with no server.
    assert!(server.stop().success());
    let third = run(&data, &["key", "rotate-log", "--compromised", "--json"]);
    let third: Value = serde_json::from_str(succeeded(&third)).expect("JSON");
    let third = third["key"].as_str().expect("a key");
    let server = Server::start_in(&data, &[]);
    assert_eq!(published(&server), [third]);
    receipt(&server, "three@example.org", &file("three.json"));
    let each: [&[&str]; 4] = [&[first], &[&second], &[third], &[first, third]];
    assert_eq!(codes(&file("three.json"), &each), [Some(1), Some(1), Some(0), Some(0)]);
    // The checkpoint that stood at the change is signed again with the new key, without anybody's request.
    let fourth = rotate(&server, &["--compromised"]);
    let fourth: Verifier = fourth.parse().expect("a key");
    until("the present checkpoint is under the present key", || {
        let text = send("GET", &format!("{}/log/checkpoint", server.public), b"", &[]).text;
        SignedCheckpoint::parse(&text).expect("a checkpoint").open(&fourth, &[]).is_ok()
    });
    assert!(server.run(&["check", "--log"]).status.success());
    let export = file("export");
    succeeded(&server.run(&["export", "log", export.to_str().expect("text")]));
    let output = Command::new(DESIST)
        .current_dir(&export)
        .args(["verify", "entries.ndjson", "--checkpoint", "checkpoint.txt", "--key", "log.key.txt"])
        .output();
    succeeded(&output.expect("runs"));
    let entries = std::fs::read_to_string(export.join("entries.ndjson")).expect("exported");
    assert_eq!(entries.matches("\"key_rotated\"").count(), 3);
    // The files of keys are for their owner alone, and a missing one is named.
    assert!(server.stop().success());
    let keys = || std::fs::read_dir(data.join("keys")).expect("there").map(|file| file.expect("reads").path());
    let former = || keys().filter(|path| path.to_string_lossy().contains("log.old-"));
    assert_eq!(former().count(), 3, "no former key is overwritten");
    for path in former().chain([data.join("keys/log.key")]) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let server = Server::start_in(&data, &[]);
    rotate(&server, &[]);
    assert!(server.stop().success());
    former().for_each(|path| std::fs::remove_file(path).expect("there"));
    let refused = run(&data, &["opt-out", "email:four@example.org"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("log.old-") && said.contains(".key is missing"), "{said}");
}

#[test]
fn a_backup_from_before_two_changes_of_the_key_opens_with_the_present_keys() {
    let place = tempfile::tempdir().expect("a directory");
    let (data, backup, restored) = (place.path().join("data"), place.path().join("backup.db"), place.path().join("restored"));
    let server = Server::start_in(&data, &[]);
    succeeded(&server.run(&["opt-out", "email:one@example.org"]));
    succeeded(&server.run(&["backup", backup.to_str().expect("text")]));
    let first = published(&server);
    for more in [&["--compromised"][..], &[]] {
        succeeded(&server.run(&[&["key", "rotate-log"], more].concat()));
    }
    assert!(server.stop().success());
    let copied = Command::new("cp").arg("-r").arg(&data).arg(&restored).status().expect("runs");
    assert!(copied.success());
    for name in ["desist.db-wal", "desist.db-shm", "index.snapshot"] {
        let _ = std::fs::remove_file(restored.join(name));
    }
    std::fs::copy(&backup, restored.join("desist.db")).expect("copies");
    let server = Server::start_in(&restored, &[]);
    assert_eq!(published(&server), first, "the store's own key");
    assert_eq!(server.decide("email", "one@example.org").0, "deny");
    // What was signed since is missing in it, and that is what the alarm says.
    let status = server.run(&["status"]);
    assert!(status.status.code() == Some(1) && String::from_utf8_lossy(&status.stdout).contains("log_changed"), "{status:?}");
    assert!(server.stop().success());
}

#[test]
fn a_kill_at_any_step_of_a_change_of_the_key_leaves_one_history() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    assert!(Server::start_in(&data, &[]).stop().success());
    let (mut history, mut killed) = (History::default(), 0);
    for (file, call) in steps(&["keys/log.next.key", "keys/log.key", "keys", "desist.db-wal"]) {
        for nth in 1..=CALLS_MAX {
            let changed = killed_at(&data, &data.join(file), call, nth, &["key", "rotate-log"]);
            history.see(&data);
            // Whatever is half done is looked at by who may not write, and finished by who may.
            let checked = run(&data, &["check"]);
            assert!(checked.status.success(), "after {call} {nth} on {file}: {}", String::from_utf8_lossy(&checked.stdout));
            succeeded(&run(&data, &["opt-out", &format!("email:{killed}@example.org")]));
            history.see(&data);
            if let Some(output) = changed {
                succeeded(&output);
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 30, "{killed} kills are too few to have met every step");
    let server = Server::start_in(&data, &[]);
    let keys: Vec<Verifier> = published(&server).iter().map(|key| key.parse().expect("a key")).collect();
    let text = send("GET", &format!("{}/log/checkpoint", server.public), b"", &[]).text;
    assert_eq!(SignedCheckpoint::parse(&text).expect("a checkpoint").open(&keys[0], &[]).map(|_| ()), Ok(()));
    assert!(server.stop().success());
    history.check(&data);
}
