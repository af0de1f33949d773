//! Files in a directory.

use std::os::unix::process::ExitStatusExt as _;

use super::*;

fn settings(directory: &Path, more: &Value) -> Value {
    let mut settings = json!({ "directory": directory.to_string_lossy() });
    settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
    settings
}

fn open(directory: &Path, more: &Value, options: Options) -> Rows {
    Rows::open(instance("file-drop", &settings(directory, more)), options).expect("it opens")
}

/// Everybody of a list, a page after the other.
struct Everybody(Vec<Arc<Message>>);

impl desist::delivery::rows::PresentState for Everybody {
    fn page(&self, after: u64, limit: usize) -> Result<(Vec<Arc<Message>>, Option<u64>), String> {
        let start = usize::try_from(after).expect("small");
        let end = self.0.len().min(start + limit);
        Ok((self.0[start..end].to_vec(), (end < self.0.len()).then_some(end as u64)))
    }
}

#[test]
fn each_batch_is_a_file_that_is_there_with_its_manifest() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(Clock(AtomicI64::new(AT * 1000)));
    let with_clock = || Options { env: Arc::clone(&clock) as _, ..options(false) };
    let rows = open(directory.path(), &json!({}), with_clock());
    let lee = message(3, 12, SALE.union(PurposeSet::SHARING), NOTHING, &[digest("lee@example.org")]);
    let silent = message(5, 14, NOTHING, NOTHING, &[email("sam@example.org")]);
    let all = [opt_out(1, 10, "rosa@example.org"), opt_in(2, 11, "kim@example.org"), lee, silent];
    let mut expected = reached(Level::Accepted, 1..=3);
    expected.push((5, Report::Nothing));
    let ended = send(&rows, &all);
    assert_eq!((ended.left, reports(&ended)), (true, expected.clone()), "{:?}", rows.problem());
    let [(name, lines)] = &received(directory.path())[..] else { panic!("one file") };
    assert!(name.starts_with(&format!("desist-delta-{:020}-", AT * 1000)) && name.ends_with(".ndjson.manifest.json"), "{name}");
    let line = |address: &str, purposes: Value, status: &str, version: u64| json!({ "kind": "email", "sha256": hex(address), "purposes": purposes, "status": status, "version": version, "at": "2026-11-22T06:29:26Z" });
    let sale = || json!(["sale"]);
    let wanted = [
        line("rosa@example.org", sale(), "opt_out", 10),
        line("lee@example.org", json!(["sale", "sharing"]), "opt_out", 12),
        line("kim@example.org", sale(), "opt_in", 11),
    ];
    assert_eq!(lines[..], wanted);
    let manifest: Value = serde_json::from_slice(&std::fs::read(directory.path().join(name)).expect("a manifest")).expect("JSON");
    assert_eq!((&manifest["kind"], &manifest["from_version"], &manifest["to_version"]), (&json!("delta"), &json!(10), &json!(12)));
    assert_eq!((&manifest["made_at"], &manifest["rows"]), (&json!("2026-11-22T06:29:26Z"), &json!(3)));

    // Nothing to say makes no file. After a start with a clock that went back the numbers go on.
    send(&rows, &[message(5, 15, NOTHING, NOTHING, &[email("sam@example.org")])]);
    assert_eq!(received(directory.path()).len(), 1);
    clock.0.store(1000, Ordering::Relaxed);
    let rows = open(directory.path(), &json!({}), with_clock());
    assert_eq!(reports(&send(&rows, &all)), expected);
    send(&rows, &[opt_in(1, 9, "rosa@example.org"), opt_out(2, 20, "kim@example.org")]);
    let names: Vec<_> = received(directory.path()).into_iter().map(|(name, _)| name[13..33].parse::<i64>().expect("a number")).collect();
    assert_eq!(names, [AT * 1000, AT * 1000 + 1, AT * 1000 + 2]);
    let state = state(directory.path());
    assert_eq!(state[&hex("rosa@example.org")], (10, "opt_out".to_owned()), "what is older changes nothing");
    assert_eq!(state[&hex("kim@example.org")], (20, "opt_out".to_owned()));
    let query = format!(
        "WITH s AS (SELECT kind, sha256, arg_max(status, version) AS status FROM read_ndjson('{}/desist-*.ndjson') GROUP BY ALL) \
         SELECT c.email FROM (VALUES ('Rosa@Example.org'), ('kim@example.org'), ('zoe@example.org')) c(email) \
         LEFT JOIN s ON s.kind = 'email' AND s.status = 'opt_out' AND s.sha256 = sha256(lower(trim(c.email))) \
         WHERE s.sha256 IS NULL",
        directory.path().display()
    );
    assert_eq!(duckdb(&query), ["zoe@example.org"]);
}

#[test]
fn a_file_can_be_csv_with_the_values_in_clear() {
    let directory = tempfile::tempdir().expect("a directory");
    let rows = open(directory.path(), &json!({ "format": "csv", "values": "clear" }), options(false));
    let crm = Known { kind: Kind::CustomerId, text: Some(Zeroizing::new("a \"b\", c".to_owned())), sha256: [0; 32], denied: NOTHING };
    let rosa = message(1, 10, SALE.union(PurposeSet::SHARING), NOTHING, &[email("rosa@example.org"), crm, digest("rosa@example.net")]);
    assert_eq!(reports(&send(&rows, &[rosa])), reached(Level::Accepted, [1]));
    let (_, lines) = received(directory.path()).remove(0);
    assert_eq!(
        lines,
        [
            "kind,value,sha256,purposes,status,version,at".to_owned(),
            format!("email,rosa@example.org,{},sale sharing,opt_out,10,2026-11-22T06:29:26Z", hex("rosa@example.org")),
            format!("customer_id,\"a \"\"b\"\", c\",{},sale sharing,opt_out,10,2026-11-22T06:29:26Z", hex("a \"b\", c")),
            format!("email,,{},sale sharing,opt_out,10,2026-11-22T06:29:26Z", hex("rosa@example.net")),
        ]
    );
    let query = format!("SELECT value FROM read_csv('{}/*.csv') WHERE kind = 'customer_id'", directory.path().display());
    assert_eq!(duckdb(&query), ["a \"b\", c"]);
}

#[test]
fn a_snapshot_has_everything_and_old_files_go_when_nobody_needs_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(Clock(AtomicI64::new(AT * 1000)));
    let everybody: Vec<_> = (1..=2500).map(|number| opt_out(number, number, &format!("p{number}@example.org"))).collect();
    let present = Some(Arc::new(Everybody(everybody)) as _);
    let rows = open(directory.path(), &json!({ "keep_days": 2 }), Options { env: Arc::clone(&clock) as _, present, ..options(false) });
    let files = file_drop(&rows);
    assert_eq!(files.snapshot_every(), Some(Duration::from_hours(24)));
    let snapshot = || RUNTIME.block_on(files.write_snapshot()).expect("a snapshot");
    let day = |day: i64| clock.0.store((AT + day * 86_400) * 1000, Ordering::Relaxed);
    send(&rows, &[opt_out(1, 1, "p1@example.org")]);
    day(1);
    let first = snapshot();
    assert_eq!((first.rows, first.files, first.deleted), (2500, 1, 0));
    assert_eq!(state(directory.path()).len(), 2500);
    day(2);
    send(&rows, &[opt_out(1, 1, "p1@example.org")]);
    assert_eq!(snapshot().deleted, 0);
    day(4);
    // The delta of day 0 is older than two days and than the snapshot before this one; that of day 2 is not.
    assert_eq!(snapshot().deleted, 4, "the delta and the first snapshot, each with its manifest");
    assert_eq!(received(directory.path()).len(), 3);
    assert_eq!(state(directory.path()).len(), 2500);
    std::fs::write(directory.path().join("desist-delta-1-other.txt"), "").expect("a file");
    std::fs::write(directory.path().join("theirs.csv"), "").expect("a file");
    day(40);
    snapshot();
    assert!(directory.path().join("theirs.csv").exists() && directory.path().join("desist-delta-1-other.txt").exists(), "others' files");
}

#[test]
fn a_snapshot_of_several_parts_has_one_manifest() {
    for (format, least) in [("ndjson", 130_000), ("csv", 100_000)] {
        let directory = tempfile::tempdir().expect("a directory");
        let everybody: Vec<_> = (1..=2500).map(|number| opt_out(number, number, &format!("p{number}@example.org"))).collect();
        let present = Some(Arc::new(Everybody(everybody)) as _);
        let rows = open(directory.path(), &json!({ "format": format }), Options { present, ..options(false) });
        let snapshot = RUNTIME.block_on(file_drop(&rows).write_snapshot_in(least)).expect("a snapshot");
        assert!(snapshot.rows == 2500 && snapshot.files > 2, "{snapshot:?}");
        let [(name, lines)] = &received(directory.path())[..] else { panic!("one manifest") };
        assert_eq!((name, lines.len()), (&snapshot.manifest, 2500 + if format == "csv" { snapshot.files } else { 0 }));
        let manifest: Value = serde_json::from_slice(&std::fs::read(directory.path().join(name)).expect("a manifest")).expect("JSON");
        let files = manifest["files"].as_array().expect("a list");
        assert_eq!((files.len(), &manifest["rows"]), (snapshot.files, &json!(2500)));
        assert_eq!((&manifest["from_version"], &manifest["to_version"]), (&json!(1), &json!(2500)));
        let sizes: Vec<_> = files.iter().map(|file| file["bytes"].as_u64().expect("a number")).collect();
        let (last, full) = sizes.split_last().expect("some");
        assert!(full.iter().all(|size| (least as u64 - 300..=least as u64).contains(size)) && *last <= least as u64, "{sizes:?}");
        let query = format!("SELECT count(DISTINCT sha256) FROM '{}/desist-snapshot-*.{format}'", directory.path().display());
        assert_eq!(duckdb(&query), ["2500"]);
    }
}

/// Who fails at the second page, and who never gets on.
struct Broken(bool);

impl desist::delivery::rows::PresentState for Broken {
    fn page(&self, after: u64, _: usize) -> Result<(Vec<Arc<Message>>, Option<u64>), String> {
        let one = vec![opt_out(1, 1, "rosa@example.org")];
        if after == 0 || self.0 { Ok((one, Some(1))) } else { Err("the store is closed".to_owned()) }
    }
}

#[test]
fn what_is_not_everything_is_no_snapshot() {
    for (is_stuck, says) in [(false, "the store is closed"), (true, "to its end")] {
        let directory = tempfile::tempdir().expect("a directory");
        let present = Some(Arc::new(Broken(is_stuck)) as _);
        let rows = open(directory.path(), &json!({}), Options { present, ..options(false) });
        let error = RUNTIME.block_on(file_drop(&rows).write_snapshot_in(1)).expect_err("it fails");
        assert!(error.contains(says) && rows.problem().is_some(), "{error}");
        assert!(received(directory.path()).is_empty(), "no manifest");
    }
}

#[test]
fn what_another_is_writing_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |ago_ms: i64| directory.path().join(format!(".desist-delta-{:020}-0123456789abcdef.ndjson.tmp", now().now_ms() - ago_ms));
    let (young, old) = (path(60_000), path(2 * 86_400_000));
    std::fs::write(&young, "half").expect("a file");
    std::fs::write(&old, "half").expect("a file");
    let rows = open(directory.path(), &json!({}), options(false));
    assert_eq!(reports(&send(&rows, &[opt_out(1, 1, "rosa@example.org")])), reached(Level::Accepted, [1]));
    assert!(young.exists() && !old.exists());
}

/// What the test below runs in a process of its own, which a limit of the system then stops.
#[test]
fn a_batch_into_the_directory_that_the_environment_names() {
    let Some(directory) = std::env::var_os("DESIST_TEST_DROP") else { return };
    let rows = open(Path::new(&directory), &json!({}), options(false));
    let many: Vec<_> = (1..=1000).map(|number| opt_out(number, number, &format!("p{number}@example.org"))).collect();
    let ended = send(&rows, &many);
    assert_failed(&ended, Failure::Server, rows.problem(), "the directory");
}

#[test]
fn a_half_written_file_is_never_seen() {
    let here = std::env::current_exe().expect("this program");
    let test = "delivery_rows::files::a_batch_into_the_directory_that_the_environment_names";
    // The kernel refuses to write on, and then it ends the process.
    for (trap, is_killed) in [("trap '' XFSZ; ", false), ("", true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let script = format!("{trap}ulimit -c 0; ulimit -f 64; exec \"$0\" --exact {test}");
        let output =
            Command::new("sh").args(["-c", &script]).arg(&here).env("DESIST_TEST_DROP", directory.path()).output().expect("sh runs");
        assert_eq!(output.status.signal().is_some(), is_killed, "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.success(), !is_killed, "{}", String::from_utf8_lossy(&output.stdout));
        assert!(!has_half_a_file(directory.path()));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), usize::from(is_killed));
        // What is left is cleared away, and everything is there after the next try.
        let later = Arc::new(Clock(AtomicI64::new(now().now_ms() + 2 * 86_400_000)));
        let rows = open(directory.path(), &json!({}), Options { env: later, ..options(false) });
        assert_eq!(reports(&send(&rows, &[opt_out(1, 1, "rosa@example.org")])), reached(Level::Accepted, [1]));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 2);
    }
}

#[test]
fn a_directory_that_takes_nothing_is_judged_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let rosa = [opt_out(1, 1, "rosa@example.org")];
    let missing = open(&directory.path().join("missing"), &json!({}), options(false));
    assert_failed(&send(&missing, &rosa), Failure::Connect, missing.problem(), "No such file");
    std::fs::create_dir(directory.path().join("missing")).expect("a directory");
    assert_eq!(reports(&send(&missing, &rosa)), reached(Level::Accepted, [1]), "it is there now");
    assert_eq!(missing.problem(), None);
    // One that not even root may write into.
    let closed = open(Path::new("/sys/kernel"), &json!({}), options(false));
    let ended = start(&*closed.transport(), Errand::Probe, WITHIN);
    assert!(!ended.left && matches!(ended.outcome, Outcome::Failed { .. }), "{ended:?}");
    assert!(matches!(send(&closed, &rosa).outcome, Outcome::Failed { failure: Failure::Credentials | Failure::Server, .. }));
}
