//! `desist import`: the real binary beside a server and without one, cut off and run again.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{DESIST, Server, run};

/// Files of a test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn write(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("people.csv");
        std::fs::write(&path, content).expect("written");
        path
    }

    fn errors(&self) -> Option<String> {
        std::fs::read_to_string(self.0.path().join("people.csv.errors.csv")).ok()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn import(data: &Path, file: &Path, arguments: &[&str]) -> Output {
    run(data, &[&["import", file.to_str().expect("UTF-8"), "--json"], arguments].concat())
}

/// Imports and gives the report, with the exit code.
fn report(data: &Path, file: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = import(data, file, arguments);
    (code(&output), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output))))
}

fn status(data: &Path) -> Value {
    let output = run(data, &["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"))
}

fn denied(data: &Path, who: &str) -> bool {
    let output = run(data, &["decide", who]);
    assert!(code(&output) < 2, "{}", stderr(&output));
    code(&output) == 1
}

fn clean(data: &Path) {
    let output = run(data, &["check"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "clean\n", "{}", stderr(&output));
}

fn people(count: usize) -> String {
    (0..count).fold("email\n".to_owned(), |mut file, n| {
        writeln!(file, "person{n}@example.org").expect("a string");
        file
    })
}

const EMAIL: [&str; 2] = ["--column", "email:email"];

/// Starts an import and waits until it is in the middle.
fn in_the_middle(data: &Path, file: &Path, already: u64) -> Child {
    let mut child = Command::new(DESIST)
        .arg("import")
        .arg(file)
        .args(EMAIL)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let started = Instant::now();
    while number(&status(data), "denied_identifiers") < already + 1000 {
        assert!(child.try_wait().expect("a child").is_none(), "it ended too early");
        assert!(started.elapsed() < Duration::from_mins(1), "nothing is imported");
    }
    child
}

#[test]
fn everybody_in_the_file_is_denied_at_once_and_for_good() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let hash = Sha256::digest("hashed@example.org").iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    // As a spreadsheet writes it.
    let file = files.write(format!(
        "\u{feff}Mail;Cell;Digest;Note\r\nRosa@Example.org ;(212) 555-2368;;\"two\r\nlines\"\r\n;;{hash};\r\n;;;\r\n\"ana@example.org\";;;x"
    ));
    let columns = ["--column", "Mail:email", "--column", "Cell:phone", "--column", "Digest:email:sha256"];
    let everybody = ["email:rosa@example.org", "phone:+12125552368", "email:hashed@example.org", "email:ana@example.org"];
    assert!(everybody.iter().all(|who| !denied(&server.data, who)));
    let (code, answer) = report(&server.data, &file, &columns);
    assert_eq!(
        (code, &answer),
        (
            0,
            &json!({
                "already_imported": false, "dry_run": false, "rows": 3, "accepted": 3, "refused": 0, "incomplete": 0, "resumed_after": 0, "errors": null,
            })
        )
    );
    assert!(everybody.iter().all(|who| denied(&server.data, who)));
    assert!(!denied(&server.data, "email:nobody@example.org"));
    assert_eq!(files.errors(), None);

    let mut server = server;
    server.kill();
    assert!(everybody.iter().all(|who| denied(&files.data(), who)));
    clean(&files.data());

    // And without a server: a list that covers other purposes is another import.
    let (code, _) =
        report(&files.data(), &file, &[&columns[..], &["--purpose", "profiling", "--received-at", "2026-01-02T03:04:05Z"]].concat());
    assert_eq!(code, 0);
    let output = run(&files.data(), &["decide", "email:ana@example.org", "--purpose", "profiling"]);
    assert_eq!(self::code(&output), 1);
    clean(&files.data());
}

#[test]
fn the_same_file_again_changes_nothing() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let file = files.write("email,phone\na@example.org,+12125552368\nb@example.org,\nb@example.org,\nnobody,\n");
    let columns = ["--column", "email:email", "--column", "phone:phone"];
    assert_eq!(report(&server.data, &file, &columns).0, 1);
    let (before, errors) = (status(&server.data), files.errors());
    // The order of columns and purposes says nothing else.
    for again in [
        &columns[..],
        &[
            "--column",
            "phone:phone",
            "--column",
            "email:email",
            "--purpose",
            "targeted_advertising",
            "--purpose",
            "sharing",
            "--purpose",
            "sale",
        ],
    ] {
        let (code, answer) = report(&server.data, &file, again);
        assert_eq!((code, answer), (1, json!({ "already_imported": true, "dry_run": false, "rows": 4, "accepted": 3, "refused": 1 })));
    }
    assert_eq!((status(&server.data), files.errors()), (before, errors));
    clean(&server.data);
}

#[test]
fn a_dry_run_only_counts() {
    let files = Files::new();
    let file = files.write("email\nrosa@example.org\nnobody\n");
    let output = import(&files.data(), &file, &[&EMAIL[..], &["--dry-run"]].concat());
    assert_eq!((code(&output), files.data().exists()), (2, false), "{}", stderr(&output));
    let server = Server::start_in(&files.data(), &[]);
    let before = status(&server.data);
    let (code, answer) = report(&server.data, &file, &[&EMAIL[..], &["--dry-run"]].concat());
    assert_eq!((code, number(&answer, "accepted"), number(&answer, "refused")), (1, 1, 1));
    for wrong in [["--received-at", "2999-01-01T00:00:00Z"], ["--purpose", "sell"]] {
        let output = import(&server.data, &file, &[&EMAIL[..], &["--dry-run"], &wrong].concat());
        assert_eq!(self::code(&output), 2, "{wrong:?}: {}", stderr(&output));
    }
    assert_eq!(status(&server.data), before);
    assert!(!denied(&server.data, "email:rosa@example.org"));
    clean(&server.data);
}

#[test]
fn refused_rows_are_listed_without_what_they_hold() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let file = files.write(b"email,phone,note\nsecret,,\n\nrosa@example.org,12,\nx\n,,secret\n\"secret\nsecret\",,\n\xff@example.org,,\n");
    let columns = ["--column", "email:email", "--column", "phone:phone"];
    let (code, answer) = report(&server.data, &file, &columns);
    assert_eq!(
        (code, number(&answer, "rows"), number(&answer, "accepted"), number(&answer, "refused"), number(&answer, "incomplete")),
        (1, 6, 1, 5, 1)
    );
    let errors = files.errors().expect("rows were refused");
    let lines: Vec<_> = errors.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(lines, ["line", "2", "4", "5", "6", "7", "9"]);
    assert!(
        !errors.contains("secret")
            && errors.contains("4,\"taken without its phone: ")
            && errors.contains("\n6,\"refused: every identifier is empty\"\n"),
        "{errors}"
    );
    let mode = std::fs::metadata(answer["errors"].as_str().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(denied(&server.data, "email:rosa@example.org"));

    // A corrected file has no errors, and the old list is gone; another file is never overwritten.
    let file = files.write("email,phone,note\nsecret@example.org,,\n");
    for precious in [file.clone(), server.data.join("desist.toml")] {
        let output = import(&server.data, &file, &[&columns[..], &["--errors", precious.to_str().unwrap()]].concat());
        assert_eq!(self::code(&output), 2);
        assert!(stderr(&output).contains("--errors"), "{}", stderr(&output));
    }
    assert_eq!(report(&server.data, &file, &columns).0, 0);
    assert_eq!(files.errors(), None);
    clean(&server.data);
}

#[test]
fn what_cannot_be_read_is_said_before_anything_is_sent() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let before = status(&server.data);
    for (content, arguments, said) in [
        ("email,Cell phone\n", &["--column", "mail:email"][..], "has no column \"mail\"; it has \"email\", \"Cell phone\""),
        ("rosa@example.org\n", &EMAIL, "looks like data"),
        ("email\n", &["--column", "email:Mail"], "perhaps \"Mail:email\"?"),
        ("email\n", &["--column", "email"], "HEADER:KIND"),
        ("", &EMAIL, "empty"),
        ("email\nrosa@example.org\n\"ana@example.org\n", &EMAIL, "line 3 is not closed"),
        ("email;x\n", &["--column", "email:email", "--delimiter", "comma"], "has no column"),
        ("email\n", &["--column", "email:email", "--received-at", "yesterday"], "--received-at"),
    ] {
        let output = import(&server.data, &files.write(content), arguments);
        assert_eq!(code(&output), 2, "{said}");
        let error = stderr(&output);
        assert!(error.contains(said) && !error.contains("rosa"), "{said}: {error}");
    }
    let output = import(&server.data, &server.data, &EMAIL);
    assert!(code(&output) == 2 && stderr(&output).contains("not a file"), "{}", stderr(&output));
    assert_eq!(status(&server.data), before);
    clean(&server.data);
}

#[test]
fn one_phone_does_not_make_five_thousand_people_one() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let count = 5_000;
    let file = (0..count).fold("email,phone\n".to_owned(), |file, n| file + &format!("person{n}@example.org,+12125552368\n"));
    let columns = ["--column", "email:email", "--column", "phone:phone"];
    let (code, answer) = report(&server.data, &files.write(file), &columns);
    assert_eq!((code, number(&answer, "accepted")), (0, count));
    for n in [0, 63, 64, 65, 2500, count - 1] {
        assert!(denied(&server.data, &format!("email:person{n}@example.org")));
    }
    // What one of them says later is not said for the others, nor for who else has the phone.
    let name = |kind: &str, value: &str| json!({ "kind": kind, "value": value });
    let answer = server.post(
        "/v1/requests",
        &json!({ "kind": "opt_out", "purposes": ["admt"], "channel": "form", "identifiers": [name("email", "person3@example.org")] }),
    );
    assert_eq!(answer.status, 201, "{}", answer.text);
    for (n, expected) in [(3, "deny"), (4, "allow"), (4000, "allow")] {
        let answer =
            server.post("/v1/decisions", &json!({ "purpose": "admt", "identifiers": [name("email", &format!("person{n}@example.org"))] }));
        assert_eq!(answer.json()["decision"], expected, "person{n}");
    }
    let answer = server
        .post("/v1/subjects/lookup", &json!({ "identifiers": [name("phone", "+12125552368"), name("email", "person4999@example.org")] }))
        .json();
    assert_eq!(answer["identifiers"][0]["shared"], true);
    assert_eq!(answer["identifiers"][1]["subjects"].as_array().map(Vec::len), Some(1));
    clean(&server.data);
}

#[test]
fn a_killed_importer_goes_on_where_it_was() {
    let (files, whole) = (Files::new(), Files::new());
    let count = 20_000;
    let mut content = people(count);
    content.insert_str("email\n".len(), "nobody\n");
    content.push_str("nobody either\n");
    let expected = {
        let server = Server::start_in(&whole.data(), &[]);
        assert_eq!(report(&server.data, &whole.write(&content), &EMAIL).0, 1);
        number(&status(&server.data), "entries")
    };

    let server = Server::start_in(&files.data(), &[]);
    let file = files.write(&content);
    let mut already = 0;
    for _ in 0..2 {
        let mut child = in_the_middle(&server.data, &file, already);
        child.kill().unwrap();
        assert!(child.wait().unwrap().code().is_none(), "it was killed");
        already = number(&status(&server.data), "denied_identifiers");
        assert!(already < count as u64, "it was in the middle");
    }
    let output = import(&server.data, &file, &EMAIL);
    assert!(stderr(&output).contains("goes on after row "), "{}", stderr(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(number(&answer, "resumed_after") > 1000);
    assert_eq!((code(&output), number(&answer, "accepted"), number(&answer, "refused")), (1, count as u64, 2));
    assert_eq!(files.errors(), whole.errors());
    let status = status(&server.data);
    assert_eq!((number(&status, "denied_identifiers"), number(&status, "entries")), (count as u64, expected));
    assert_eq!(number(&report(&server.data, &file, &EMAIL).1, "accepted"), count as u64);
    clean(&server.data);
}

#[test]
fn a_killed_server_loses_nothing_of_an_import() {
    let files = Files::new();
    let count = 20_000;
    let file = files.write(people(count));
    let mut server = Server::start_in(&files.data(), &[]);
    let child = in_the_middle(&server.data, &file, 0);
    server.kill();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("the same command goes on"), "{}", stderr(&output));

    let server = Server::start_in(&files.data(), &[]);
    assert!(denied(&server.data, "email:person500@example.org"));
    let (code, answer) = report(&server.data, &file, &EMAIL);
    assert_eq!((code, number(&answer, "accepted"), number(&answer, "refused")), (0, count as u64, 0));
    assert!(number(&answer, "resumed_after") >= 1000);
    assert_eq!(number(&status(&server.data), "denied_identifiers"), count as u64);
    assert!(denied(&server.data, &format!("email:person{}@example.org", count - 1)));
    clean(&server.data);

    // The importer that holds the store itself is killed as well as one beside a server.
    assert!(server.stop().success());
    let file = files.write(people(2 * count));
    let mut child = Command::new(DESIST).arg("import").arg(&file).args(EMAIL).arg("--data").arg(files.data()).spawn().unwrap();
    std::thread::park_timeout(Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, answer) = report(&files.data(), &file, &EMAIL);
    assert_eq!((code, number(&answer, "accepted")), (0, 2 * count as u64));
    assert_eq!(number(&status(&files.data()), "denied_identifiers"), 2 * count as u64);
    clean(&files.data());
}

#[test]
fn an_import_stays_when_an_api_client_takes_its_own_word_back() {
    let files = Files::new();
    let server = Server::start_in(&files.data(), &[]);
    let profile = server.post("/acme/campaign/profileAndServices/profile/", &json!({ "email": "rosa@example.org", "ccpaOptOut": true }));
    assert_eq!(profile.status, 201, "{}", profile.text);
    // The very purposes of the client's word, which is all that denies them so far.
    assert_eq!(
        report(&server.data, &files.write("email\nrosa@example.org\n"), &[EMAIL, ["--purpose", "sale"], ["--purpose", "sharing"]].concat())
            .0,
        0
    );
    let path = format!("/acme/campaign/profileAndServices/profile/{}", profile.json()["PKey"].as_str().expect("a key"));
    let answer = server.send("PATCH", &path, br#"{"ccpaOptOut":false}"#, &[]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(denied(&server.data, "email:rosa@example.org"));
    clean(&server.data);
}
