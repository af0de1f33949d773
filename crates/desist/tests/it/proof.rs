//! Receipts and the public log, as a consumer, an auditor and an attacker meet them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_proof::checkpoint::SignedCheckpoint;
use desist_proof::note::{Algorithm, Signer, Verifier};
use desist_proof::tile::TileId;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{Answer, DESIST, Server, send};

/// Opts somebody out and returns the receipt code.
pub fn opted_out(server: &Server, email: &str) -> String {
    let body = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": email }] });
    let answer = server.post("/v1/requests", &body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["receipt_code"].as_str().unwrap().to_owned()
}

pub fn public(server: &Server, path: &str) -> Answer {
    send("GET", &format!("{}{path}", server.public), b"", &[])
}

/// The receipt file, which the notary promises within a second.
pub fn receipt(server: &Server, code: &str) -> String {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = public(server, &format!("/receipt/{code}?format=json"));
        if answer.status == 200 {
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert_eq!(answer.headers["referrer-policy"], "no-referrer");
            return answer.text;
        }
        assert!(answer.status == 503 && answer.json()["code"] == "not_signed" && Instant::now() < patience, "{answer:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub fn verify(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(DESIST).arg("verify").args(arguments).current_dir(directory).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn a_receipt_is_checked_offline_and_a_changed_one_is_not_believed() {
    let server = Server::start();
    let code = opted_out(&server, "rosa.vega@example.org");
    opted_out(&server, "ivo@example.org");
    let receipt = receipt(&server, &code);
    let key = public(&server, "/log/key").text;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("receipt.json", &receipt);
    write("key.txt", &key);
    server.stop();
    // With no server and no store.
    let good = verify(directory.path(), &["receipt.json", "--key", "key.txt", "--json"]);
    let (status, report) = said(&good);
    assert_eq!(
        (status, &report["result"], &report["trust"], &report["type"]),
        (Some(0), &json!("good"), &json!("self-attested"), &json!("opted_out"))
    );
    let shown = verify(directory.path(), &["receipt.json", "--key", key.trim()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("receipt.json: good") && shown.contains("self-attested") && !shown.contains("rosa"), "{shown}");

    let mut parsed: Value = serde_json::from_str(&receipt).unwrap();
    let other = |member: &str, value: Value| {
        let mut changed: Value = serde_json::from_str(&receipt).unwrap();
        changed[member] = value;
        changed.to_string()
    };
    let entry = parsed["entry"].as_str().unwrap().to_owned();
    let checkpoint = parsed["checkpoint"].as_str().unwrap().to_owned();
    let index = parsed["index"].as_u64().unwrap();
    for (what, text, link, code) in [
        ("another entry", other("entry", json!(entry.replace("\"at\":\"2", "\"at\":\"1"))), "inclusion", 1),
        ("another place", other("index", json!(index + 1)), "entry", 1),
        ("another size", other("checkpoint", json!(checkpoint.replacen('\n', "\n1", 1))), "checkpoint signature", 1),
        ("no proof", other("inclusion", json!([])), "inclusion", 1),
        (
            "no opening",
            {
                parsed.as_object_mut().unwrap().remove("opening");
                parsed.to_string()
            },
            "opening",
            1,
        ),
        ("one member more", other("note", json!("trust me")), "format", 2),
        ("no JSON", receipt.replacen('{', "", 1), "format", 2),
    ] {
        write("changed.json", &text);
        let (status, report) = said(&verify(directory.path(), &["changed.json", "--key", "key.txt", "--json"]));
        assert_eq!((status, report["link"].as_str()), (Some(code), Some(link)), "{what}: {report}");
    }
    // Of another log, and with a key that is none.
    let elsewhere = Server::start();
    write("other.txt", &public(&elsewhere, "/log/key").text);
    let (status, report) = said(&verify(directory.path(), &["receipt.json", "--key", "other.txt", "--json"]));
    assert_eq!((status, &report["link"]), (Some(1), &json!("checkpoint signature")));
    let nonsense = verify(directory.path(), &["receipt.json", "--key", "acme+00000000+AAAA"]);
    assert_eq!(nonsense.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nonsense.stderr).contains("--key"), "{nonsense:?}");
}

#[test]
fn the_page_of_a_receipt_shows_its_owner_enough_and_others_nothing() {
    let server = Server::start();
    let code = opted_out(&server, "rosa.vega@example.org");
    receipt(&server, &code);
    let page = public(&server, &format!("/receipt/{code}"));
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(
        (&page.headers["cache-control"], &page.headers["referrer-policy"]),
        (&"no-store".parse().unwrap(), &"no-referrer".parse().unwrap())
    );
    for part in
        ["<strong>received</strong>", "to opt out", "person", "email r…@e….org", "not performed by this version", "was not observed"]
    {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    for part in ["rosa", "vega", "<script", "http://", "https://", "enforced", "honored"] {
        assert!(!page.text.contains(part), "{part}: {}", page.text);
    }
    // As a person types it; and with the header that programs send.
    let typed = format!("{}-{}", code[..13].to_lowercase(), &code[13..]);
    assert_eq!(public(&server, &format!("/receipt/{typed}")).status, 200);
    let file = send("GET", &format!("{}/receipt/{code}", server.public), b"", &[("accept", "application/json")]);
    assert_eq!(file.json()["format"], "desist-receipt/v1");
    // Whatever is wrong about a code, the answer is the same.
    let wrong = ["0".repeat(26), "A".repeat(26), "x".to_owned(), "%E2%82%AC".to_owned(), code[1..].to_owned(), format!("{code}0")];
    let answers: Vec<_> =
        wrong.iter().map(|code| public(&server, &format!("/receipt/{code}"))).map(|answer| (answer.status, answer.text)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 404), "{answers:?}");
    // Nobody tries for long.
    let mut tried = 0;
    let limited = loop {
        let answer = public(&server, &format!("/receipt/{}", "0".repeat(26)));
        if answer.status == 429 {
            break answer;
        }
        tried += 1;
        assert!(tried < 200, "codes can be tried for ever");
    };
    assert_eq!(limited.headers["retry-after"], "60");
    // The private listener, which has other callers, does not serve it.
    assert_eq!(server.send("GET", &format!("/receipt/{code}"), b"", &[]).status, 404);
}

#[test]
fn the_log_is_shown_in_the_formats_of_others() {
    let server = Server::start();
    for n in 0..300 {
        opted_out(&server, &format!("p{n}@example.org"));
    }
    let key = public(&server, "/log/key").text;
    let verifier: Verifier = key.trim().parse().unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    let opened = loop {
        let answer = public(&server, "/log/checkpoint");
        if answer.status == 200 {
            assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
            let opened = desist_proof::checkpoint::open(&answer.text, &verifier, &[]).unwrap();
            if opened.checkpoint().size() > 300 {
                break opened;
            }
        }
        assert!(Instant::now() < patience, "the log was not signed");
        std::thread::park_timeout(Duration::from_millis(20));
    };
    // The root follows from the tiles that anybody can fetch.
    let size = opened.checkpoint().size();
    let root = desist_proof::proof::root(size, &mut |id| {
        let answer = fetch(&format!("{}/log/{}", server.public, id.path()));
        assert_eq!(answer.1, if id.width() == 256 { "public, max-age=31536000, immutable" } else { "public, max-age=3600" });
        Ok::<_, std::convert::Infallible>(answer.0)
    });
    assert_eq!(root.unwrap(), *opened.checkpoint().root());
    for path in ["0/001", "0/x001", "entries/000", "9/000", "0/000.p/256", "0/000.p/0", "0/0", "1/000.p/2"] {
        assert_eq!(public(&server, &format!("/log/tile/{path}")).status, 404, "{path}");
    }
    assert_eq!(public(&server, "/log/entries").status, 404, "entries are not shown");
    assert_eq!(public(&server, "/verify").status, 200);
}

#[test]
fn an_exported_log_is_checked_as_a_whole() {
    let mut server = Server::start();
    for n in 0..40 {
        opted_out(&server, &format!("p{n}@example.org"));
    }
    receipt(&server, &opted_out(&server, "last@example.org"));
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("audit");
    let exported = server.run(&["export", "log", to.to_str().unwrap()]);
    assert!(exported.status.success(), "{exported:?}");
    let check = |entries: &str| {
        let arguments = [entries, "--checkpoint", "checkpoint.txt", "--key", "log.key.txt", "--json"];
        let (status, report) = said(&verify(&to, &arguments));
        (status, report["result"].as_str().unwrap().to_owned())
    };
    assert_eq!(check("entries.ndjson"), (Some(0), "good".to_owned()));
    let entries = std::fs::read_to_string(to.join("entries.ndjson")).unwrap();
    assert!(!entries.contains("example.org"), "no names are in it");
    let lines: Vec<&str> = entries.lines().collect();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let swapped = entries.replacen("\"channel\":\"form\"", "\"channel\":\"mail\"", 1);
    for (n, changed) in
        [without(lines.len() - 1), without(3), swapped, format!("{entries}{}\n", lines[2]), String::new()].iter().enumerate()
    {
        std::fs::write(to.join("changed.ndjson"), changed).unwrap();
        assert_eq!(check("changed.ndjson"), (Some(1), "bad".to_owned()), "{n}");
    }
    assert!(std::fs::read_dir(to.join("tile/0")).unwrap().count() > 0);
    assert_eq!(server.run(&["export", "log", to.to_str().unwrap()]).status.code(), Some(2), "nothing is written over");
    // A checkpoint beside the keys that the log does not begin with is found.
    assert!(server.run(&["check"]).status.success());
    server.kill();
    let raw = rusqlite::Connection::open(server.data.join("desist.db")).unwrap();
    raw.execute("UPDATE tile SET hashes = zeroblob(length(hashes)) WHERE level = 0", []).unwrap();
    drop(raw);
    let checked = server.run(&["check"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{text}");
    assert!(text.contains("was signed earlier") && text.contains("tile/0/000"), "{text}");
}

/// A tile and how long it may be kept.
fn fetch(url: &str) -> (Vec<u8>, String) {
    let mut answer = ureq::get(url).call().unwrap();
    let keep = answer.headers()["cache-control"].to_str().unwrap().to_owned();
    (answer.body_mut().read_to_vec().unwrap(), keep)
}

/// Files that are almost receipts: each byte of a good one in turn is changed, and some in other ways.
fn mutated(good: &str) -> Vec<String> {
    let mut files = vec![good.to_owned(), String::new(), "{}".to_owned(), format!("{good} "), format!("\u{feff}{good}")];
    for (at, byte) in good.bytes().enumerate().filter(|(at, _)| good.is_char_boundary(*at) && good.is_char_boundary(*at + 1)) {
        let other = match byte {
            b'"' => "'".to_owned(),
            b'0'..=b'8' | b'a'..=b'y' | b'A'..=b'Y' => char::from(byte + 1).to_string(),
            _ => "A".to_owned(),
        };
        files.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        if at % 7 == 0 {
            files.push(format!("{}{}", &good[..at], &good[at + 1..]));
            files.push(good[..at].to_owned());
        }
    }
    for (from, to) in [
        ("\"index\":", "\"index\":1,\"index\":"),
        ("\"index\":", "\"index\": "),
        ("\"index\":", "\"note\":1,\"index\":"),
        ("\"index\":1", "\"index\":1.0"),
        ("\"index\":1", "\"index\":\"1\""),
        ("\\\"v\\\":1", "\\\"v\\\":1.0"),
        ("\\\"v\\\":1", "\\\"v\\\":2"),
        ("\"opening\":", "\"opening\":null,\"x\":"),
        ("/v1", "/v2"),
    ] {
        files.push(good.replacen(from, to, 1));
    }
    files
}

/// Two witnesses, whose names and keys are not in the order in which they sign here.
fn witnesses() -> [Signer; 2] {
    [("witness.example/b", 7), ("witness.example/a", 8)].map(|(name, seed)| Signer::new(name, Algorithm::Cosignature, &[seed; 32]).unwrap())
}

/// A receipt with cosignatures in the order given.
fn cosigned(receipt: &str, by: &[(&Signer, u64)]) -> String {
    let mut parsed: Value = serde_json::from_str(receipt).unwrap();
    let mut checkpoint = SignedCheckpoint::parse(parsed["checkpoint"].as_str().unwrap()).unwrap();
    for (witness, time) in by {
        let line = witness.sign(&checkpoint.unverified().to_string(), *time).unwrap();
        checkpoint.add(&line.to_string(), witness.verifier()).unwrap();
    }
    parsed["checkpoint"] = checkpoint.to_string().into();
    parsed.to_string()
}

/// The result, the broken link and the trust that somebody sees in a receipt.
type Verdict = (String, Option<String>, Option<String>);

fn verdict(value: &Value) -> Verdict {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    (text("result").unwrap_or_default(), text("link"), text("trust"))
}

/// The verdicts of the page's verifier in Node.
fn judged_in_node(directory: &Path, files: usize, key: &str, witnesses: &[String]) -> Vec<Verdict> {
    let mut script = Command::new("node");
    script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/verify.mjs")).arg(key).current_dir(directory);
    script.args(witnesses.iter().flat_map(|witness| ["--witness", witness]));
    let output = script.args((0..files).map(|n| format!("{n:05}.json"))).output().expect("node is missing; run scripts/test");
    let lines = String::from_utf8(output.stdout).unwrap();
    let judged: Vec<_> = lines.lines().map(|line| verdict(&serde_json::from_str(line).unwrap())).collect();
    assert_eq!(judged.len(), files, "{}", String::from_utf8_lossy(&output.stderr));
    judged
}

/// Gives each text to the open page as a chosen file, presses the button, and reads what the page then shows.
const GIVE_EACH: &str = r"async texts => {
    const [input, form, button] = ['receipt-file', 'form', 'check'].map(id => document.getElementById(id))
    const judged = []
    for (const text of texts) {
        const chosen = new DataTransfer()
        chosen.items.add(new File([text], 'receipt.json'))
        input.files = chosen.files
        const done = new Promise(resolve => {
            new MutationObserver((_, observer) => {
                if (button.hasAttribute('aria-disabled')) return
                observer.disconnect()
                resolve()
            }).observe(button, { attributes: true })
        })
        form.requestSubmit()
        await done
        const [title, words] = ['h2', 'p'].map(name => document.querySelector(`#result .verdict ${name}`).textContent)
        const [, result] = document.querySelector('#result .verdict').className.split(' ')
        const link = title === 'This receipt cannot be read' ? 'format' : words.match(/^The first broken link is: (.*?), because /)?.[1]
        judged.push({ result, link, trust: document.querySelector('#details strong')?.textContent })
    }
    return judged
}";

/// The verdicts of the page that the server shows, in a browser.
fn judged_in_chromium(server: &Server, files: &[String], key: &str, witnesses: &[String]) -> Vec<Verdict> {
    let mut browser = Browser::start();
    let address = format!("{}/verify", server.public);
    browser.open(&address);
    browser.fill("#key", key);
    browser.fill("#witnesses", &witnesses.join("\n"));
    let judged = browser.call("run", &json!([GIVE_EACH, files]));
    browser.assert_quiet(&address);
    judged.as_array().unwrap().iter().map(verdict).collect()
}

#[test]
fn the_page_and_the_command_judge_every_file_alike() {
    let server = Server::start();
    let code = opted_out(&server, "rosa.vega@example.org");
    let [b, a] = witnesses();
    let good = cosigned(&receipt(&server, &code), &[(&b, 1_800_000_000), (&a, 1_700_000_000)]);
    let key = public(&server, "/log/key").text.trim().to_owned();
    let known = [a.verifier().clone(), b.verifier().clone()];
    let witnesses = known.each_ref().map(ToString::to_string);
    let log: Verifier = key.parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = mutated(&good);
    for (n, text) in files.iter().enumerate() {
        std::fs::write(directory.path().join(format!("{n:05}.json")), text).unwrap();
    }
    let mut trusts = std::collections::BTreeSet::new();
    let ours: Vec<Verdict> = (0..files.len())
        .map(|n| match desist_proof::receipt::verify(files[n].as_bytes(), &log, &known) {
            // The trust is the command's own word; a process for every file would take too long.
            Ok(_) => {
                let file = format!("{n:05}.json");
                let arguments = [&file, "--key", &key, "--witness", &witnesses[0], "--witness", &witnesses[1], "--json"];
                let verdict = verdict(&said(&verify(directory.path(), &arguments)).1);
                trusts.extend(verdict.2.clone());
                verdict
            }
            Err(error) => (if error.link() == "format" { "unreadable" } else { "bad" }.to_owned(), Some(error.link().to_owned()), None),
        })
        .collect();
    for (who, theirs) in [
        ("Node", judged_in_node(directory.path(), files.len(), &key, &witnesses)),
        ("Chromium", judged_in_chromium(&server, &files, &key, &witnesses)),
    ] {
        assert_eq!(theirs.len(), files.len(), "{who}");
        let differ: Vec<_> = (0..files.len()).filter(|n| ours[*n] != theirs[*n]).collect();
        let shown: Vec<_> = differ.iter().map(|n| format!("{n}: {:?}, {who} {:?}", ours[*n], theirs[*n])).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
    }
    let are_good = ours.iter().filter(|verdict| verdict.0 == "good").count();
    assert!((1..200).contains(&are_good) && files.len() > 1000, "{are_good} of {} are good", files.len());
    let (a, b) = ("witness.example/a at 2023-11-14T22:13:20Z", "witness.example/b at 2027-01-15T08:00:00Z");
    let expected = [format!("witnessed by {a}"), format!("witnessed by {b}"), format!("witnessed by {b}, {a}")];
    assert_eq!(trusts.into_iter().collect::<Vec<_>>(), expected, "a changed name hides a witness");
}

/// What is checked on the page, which file goes into which field, what the command gets beside the first file, and the
/// trust that both say or the link that the page says is broken.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], Result<&'a str, &'a str>);

#[test]
fn the_page_in_a_browser_says_what_the_command_says_and_sends_nothing() {
    let server = Server::start();
    let first = receipt(&server, &opted_out(&server, "rosa.vega@example.org"));
    let older = public(&server, "/log/checkpoint").text;
    for n in 0..5 {
        opted_out(&server, &format!("p{n}@example.org"));
    }
    receipt(&server, &opted_out(&server, "ivo@example.org"));
    let directory = tempfile::tempdir().unwrap();
    let exported = server.run(&["export", "log", directory.path().join("audit").to_str().unwrap()]);
    assert!(exported.status.success(), "{exported:?}");
    let newer = std::fs::read_to_string(directory.path().join("audit/checkpoint.txt")).unwrap();
    let size = |text: &str| SignedCheckpoint::parse(text).unwrap().unverified().size();
    assert!(size(&older) < size(&newer));
    let mut tiles = |id: TileId| Ok::<_, std::convert::Infallible>(fetch(&format!("{}/log/{}", server.public, id.path())).0);
    let hashes = desist_proof::proof::consistency(size(&older), size(&newer), &mut tiles).unwrap();
    let proof: Vec<_> = hashes.iter().map(|hash| STANDARD.encode(hash)).collect();

    let [b, a] = witnesses();
    let key = public(&server, "/log/key").text.trim().to_owned();
    let entries = std::fs::read_to_string(directory.path().join("audit/entries.ndjson")).unwrap();
    // The last time that a date can be written for, and the first that has none.
    let witnessed = cosigned(&first, &[(&b, 253_402_300_799), (&a, 253_402_300_800)]);
    for (name, text) in [
        ("receipt.json", &first),
        ("witnessed.json", &witnessed),
        ("changed.json", &first.replacen("\\\"at\\\":\\\"2", "\\\"at\\\":\\\"1", 1)),
        ("older.txt", &older),
        ("newer.txt", &newer),
        ("proof.json", &json!(proof).to_string()),
        ("entries.ndjson", &entries),
        ("fewer.ndjson", &entries.lines().skip(1).collect::<Vec<_>>().join("\n")),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let log = ["--checkpoint", "newer.txt"];
    let pair = ["--older", "older.txt", "--proof", "proof.json"];
    let both = "witnessed by witness.example/b at 9999-12-31T23:59:59Z, witness.example/a at Unix time 253402300800";
    let own = "self-attested";
    let cases: [Case; 7] = [
        ("receipt", &[("receipt", "receipt.json")], &[], Ok(own)),
        ("receipt", &[("receipt", "changed.json")], &[], Err("inclusion")),
        ("receipt", &[("receipt", "witnessed.json")], &[], Ok(both)),
        ("checkpoints", &[("newer", "newer.txt"), ("older", "older.txt"), ("proof", "proof.json")], &pair, Ok(own)),
        (
            "checkpoints",
            &[("newer", "older.txt"), ("older", "newer.txt"), ("proof", "proof.json")],
            &["--older", "newer.txt", "--proof", "proof.json"],
            Err("consistency"),
        ),
        ("log", &[("entries", "entries.ndjson"), ("checkpoint", "newer.txt")], &log, Ok(own)),
        ("log", &[("entries", "fewer.ndjson"), ("checkpoint", "newer.txt")], &log, Err("entry")),
    ];
    let mut browser = Browser::start();
    for address in [format!("file://{}", page().display()), format!("{}/verify", server.public)] {
        browser.open(&address);
        browser.fill("#key", &key);
        browser.fill("#witnesses", &format!("{}\n{}\n", a.verifier(), b.verifier()));
        for (n, (kind, files, arguments, expected)) in cases.iter().enumerate() {
            browser.press(&format!("input[value={kind}]"));
            for (field, file) in *files {
                let file = directory.path().join(file);
                // Every other time as a file, else as pasted text.
                if n % 2 == 0 {
                    browser.choose(&format!("#{field}-file"), &file);
                } else {
                    browser.fill(&format!("#{field}"), &std::fs::read_to_string(file).unwrap());
                }
            }
            browser.press("#check");
            browser.until("!document.getElementById('check').hasAttribute('aria-disabled')");
            let shown = browser.text("#result");
            let (a, b) = (a.verifier().to_string(), b.verifier().to_string());
            let arguments = [&[files[0].1, "--key", &key, "--witness", &a, "--witness", &b, "--json"], *arguments].concat();
            let (status, report) = said(&verify(directory.path(), &arguments));
            match expected {
                Ok(trust) => {
                    assert!(shown.contains("is good"), "{n}: {shown}");
                    assert_eq!(
                        (status, report["trust"].as_str(), browser.text("#details strong").as_str()),
                        (Some(0), Some(*trust), *trust)
                    );
                }
                Err(link) => {
                    assert!(shown.contains(&format!("The first broken link is: {link}")), "{n}: {shown}");
                    assert_eq!((status, &report["result"]), (Some(1), &json!("bad")), "{n}: {report}");
                }
            }
        }
        browser.assert_quiet(&address);
        // Even its own script could not ask for anything, and this test would see it.
        let asked = browser.run(&format!("fetch('{}/log/key').then(() => 'sent', () => 'refused')", server.public));
        let seen = browser.call("seen", &json!([]));
        assert_eq!((asked, &seen["requests"]), (json!("refused"), &json!([address])));
        assert!(seen["complaints"].to_string().contains("Content Security Policy"), "{seen}");
    }
}

/// Where the page is that checks receipts in a browser.
fn page() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/pages/verify.html"))
}

#[test]
fn the_checking_page_may_run_its_own_script_and_nothing_else() {
    let server = Server::start();
    let answer = public(&server, "/verify");
    assert_eq!(answer.text, std::fs::read_to_string(page()).unwrap());
    let policy = answer.headers["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("default-src 'none'") && !policy.contains("connect-src"), "{policy}");
    assert_eq!(answer.text.matches("<script").count(), 1);
}
