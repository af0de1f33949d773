//! The demo, as a newcomer runs it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::DESIST;

#[test]
fn the_story_is_told_in_order_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let output = Command::new(DESIST).args(["demo", "--exit"]).env("TMPDIR", temporary.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    // The promise is five seconds; the build under test is slower than a release.
    assert!(started.elapsed() < Duration::from_secs(30));
    let told = [
        "\n1. ",
        "\"ccpaOptOut\": false",
        "\n2. ",
        "\"allow\"",
        "\n3. ",
        "receipt_code",
        "\n4. ",
        "\"deny\"",
        "sha256",
        "\"ccpaOptOut\": true",
    ];
    let rest = [
        "\n5. ",
        "PATCH",
        "\"deny\"",
        "\n6. ",
        "\"deny\"",
        "\n7. ",
        "backing_off",
        "enforced",
        "\n8. ",
        "byEmail",
        "\"content\": [\"rosa.vega@example.org\"]",
    ];
    let last = ["\n9. ", "SVC1", "\"deny\"", "\n10. ", "\"complete\"", "\"count\": 0", "\"deny\"", "\n11. "];
    let proof = [": good", "self-attested", ": bad", "inclusion", "\n12. ", "clean"];
    let mut from = 0;
    for part in told.into_iter().chain(rest).chain(last).chain(proof) {
        from += text[from..].find(part).unwrap_or_else(|| panic!("{part:?} is missing after byte {from} of:\n{text}"));
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the directory is gone");
}

#[test]
fn the_server_of_the_story_stays_up_until_it_is_stopped() {
    use std::io::{BufRead as _, BufReader};
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(DESIST).arg("demo").env("TMPDIR", temporary.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next().expect("the story ends with where the server is").unwrap();
        if let Some((_, urls)) = line.split_once("The server stays up: ") {
            break urls.split(' ').next().unwrap().to_owned();
        }
    };
    lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("Stop it"))).expect("it says how to stop").unwrap();
    assert_eq!(crate::support::send("GET", &format!("{url}/readyz"), b"", &[]).status, 200);
    assert!(Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    assert!(demo.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the directory is gone");
}
