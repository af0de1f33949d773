//! Witnesses, as a business, its law firm and an attacker meet them: `desist serve` and `desist witness`, two processes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use desist_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use desist_proof::note::{Algorithm, Signer, Verifier};
use desist_proof::proof::{consistency, root, verify_consistency};
use desist_proof::tile::{Appender, TileId};
use desist_proof::witness::AddCheckpoint;
use desist_proof::{Hash, leaf_hash};
use serde_json::{Value, json};

use crate::proof::{opted_out, public, receipt, verify};
use crate::support::{DESIST, Seeded, Server, run, scale, send, until};

/// A witness that runs; killed when dropped.
struct Watching {
    child: Child,
    url: String,
    key: Verifier,
}

impl Watching {
    /// Starts it in a directory; `log` is a key or a file of keys.
    fn start(data: &Path, log: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(DESIST)
            .args(["witness", "serve", "--log", log, "--data"])
            .arg(data)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut value = |name: &str| loop {
            let line = lines.next().expect("it says where it listens").expect("readable");
            if let Some(value) = line.trim().strip_prefix(name) {
                break value.trim().to_owned();
            }
        };
        let (url, key) = (value("url"), value("key"));
        Self { child, url, key: key.parse().expect("a key") }
    }

    /// Where it listens: the next one in the same directory listens there too.
    fn address(&self) -> String {
        self.url.split_once("://").expect("a URL").1.to_owned()
    }

    fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `[[witnesses]]` table.
pub fn table(url: &str, key: &Verifier, allow_private: bool) -> String {
    let allowed = if allow_private { "allow_private = true\n" } else { "" };
    format!("[[witnesses]]\nurl = \"{url}\"\nkey = \"{key}\"\n{allowed}\n")
}

/// Gives the server these witnesses.
pub fn reload(server: &Server, tables: &str) -> (Option<i32>, String) {
    std::fs::write(server.data.join("desist.toml"), tables).unwrap();
    let output = server.run(&["reload"]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub const TAKEN: (Option<i32>, String) = (Some(0), String::new());

/// `desist status`: its exit code, its data, and what a person reads.
pub fn status(server: &Server) -> (Option<i32>, Value, String) {
    let both = || (server.run(&["status", "--json"]), server.run(&["status"]));
    let (mut data, mut text) = both();
    // An alarm may come between the two.
    until("both say the same", || {
        data.status.code() == text.status.code() || {
            (data, text) = both();
            false
        }
    });
    (data.status.code(), serde_json::from_slice(&data.stdout).unwrap(), String::from_utf8(text.stdout).unwrap())
}

/// What is wrong with a witness of the server.
fn problem(server: &Server, name: &str) -> Option<String> {
    let status: Value = serde_json::from_slice(&server.run(&["status", "--json"]).stdout).unwrap();
    let witnesses = status["witnesses"].as_array().unwrap();
    witnesses.iter().find(|witness| witness["name"] == name)?["problem"].as_str().map(str::to_owned)
}

/// The checkpoint that the world is shown.
fn shown(server: &Server) -> Option<SignedCheckpoint> {
    let answer = public(server, "/log/checkpoint");
    (answer.status == 200).then(|| SignedCheckpoint::parse(&answer.text).unwrap())
}

/// How long the log is.
fn entries(server: &Server) -> u64 {
    status(server).1["entries"].as_u64().unwrap()
}

/// Waits until what the world is shown has all entries of the log and is cosigned; how many entries that are.
fn until_cosigned(server: &Server, by: &[&Verifier]) -> u64 {
    let mut size = 0;
    until("cosigned", || {
        let entries = entries(server);
        shown(server).is_some_and(|checkpoint| {
            size = checkpoint.unverified().size();
            size == entries && by.iter().all(|key| checkpoint.is_cosigned_by(key))
        })
    });
    size
}

fn log_key(server: &Server) -> String {
    public(server, "/log/key").text.trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn alarm(server: &Server) -> bool {
    let metrics = server.send("GET", "/metrics", b"", &[]).text;
    let line = metrics.lines().find(|line| line.starts_with("desist_alarm{") && line.contains("\"witness_lost\"")).expect("the metric");
    line.ends_with(" 1")
}

#[test]
fn a_receipt_names_the_witnesses_and_a_lost_one_is_an_alarm_alone() {
    let place = tempfile::tempdir().unwrap();
    // Whoever listens where the environment says that a proxy is would see the calls.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let mut command = Command::new(DESIST);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, format!("http://{}", proxy.local_addr().unwrap()));
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let data = place.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let server = Server::spawn(command, &data, &[]);
    let key = log_key(&server);
    let memory = place.path().join("w1");
    let first = Watching::start(&memory, &key, &["--name", "witness.example/w1", "--listen", "127.0.0.1:0"]);
    // Nobody listens there yet.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let second = Signer::new("witness.example/w2", Algorithm::Cosignature, &[2; 32]).unwrap();
    let both = table(&first.url, &first.key, true) + &table(&format!("http://{port}/sub"), second.verifier(), true);
    assert_eq!(reload(&server, &both), TAKEN);
    let code = opted_out(&server, "rosa.vega@example.org");
    until_cosigned(&server, &[&first.key]);
    let file = place.path().join("receipt.json");
    std::fs::write(&file, receipt(&server, &code)).unwrap();
    let judged = |witnesses: &[&str]| {
        let arguments = [&[text(&file), "--key", &key][..], witnesses].concat();
        let output = verify(place.path(), &arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let known = first.key.to_string();
    let named = judged(&["--witness", &known]);
    assert!(named.contains("trust     witnessed by witness.example/w1 at 2"), "{named}");
    for others in [&[][..], &["--witness", &second.verifier().to_string()]] {
        assert!(judged(others).contains("self-attested"), "{others:?}");
    }
    // The second one is only down: no alarm yet.
    until("the failure is known", || problem(&server, "witness.example/w2").is_some());
    let (code, data, read) = status(&server);
    assert!(read.contains("witness.example/w1 cosigned") && read.contains("witness.example/w2 since 2"), "{read}");
    assert!(read.contains("no connection: ") && !read.contains("ALARM"), "{read}");
    assert_eq!((code, &data["witnesses"][1]["lost"], alarm(&server)), (Some(0), &json!(false), false));

    // Killed and started again it goes on; what came meanwhile was shown without it.
    let address = first.address();
    first.kill();
    opted_out(&server, "ivo@example.org");
    until("shown", || shown(&server).is_some_and(|shown| shown.unverified().size() == entries(&server)));
    let first = Watching::start(&memory, &key, &["--listen", &address]);
    assert_eq!(first.key.to_string(), known);
    until_cosigned(&server, &[&first.key]);

    // One that refuses is lost at once: here somebody put a witness of another log there.
    let other = Signer::new("log.example/other", Algorithm::Ed25519, &[3; 32]).unwrap().verifier().to_string();
    let stranger = Watching::start(&place.path().join("w2"), &other, &["--name", "witness.example/x", "--listen", &port.to_string()]);
    let tables = table(&first.url, &first.key, true) + &table(&stranger.url, second.verifier(), true);
    assert_eq!(reload(&server, &tables), TAKEN);
    until("the alarm stands", || status(&server).0 == Some(1));
    let (_, data, read) = status(&server);
    assert!(read.contains("ALARM     witness_lost since 2") && read.contains("it does not watch this log (status 404)"), "{read}");
    assert_eq!((&data["witnesses"][1]["lost"], alarm(&server)), (&json!(true), true));
    opted_out(&server, "ana@example.org");
    until_cosigned(&server, &[&first.key]);
    assert_eq!(reload(&server, &table(&first.url, &first.key, true)), TAKEN);
    until("the alarm is over", || status(&server).0 == Some(0));
    assert!(!alarm(&server) && problem(&server, "witness.example/w2").is_none());
    until_cosigned(&server, &[&first.key]);
    assert!(proxy.accept().is_err(), "the proxy of the environment was asked");
    assert!(run(&server.data, &["check"]).status.success());
}

/// The twin of the test above.
#[test]
fn a_witness_on_a_private_network_is_asked_only_where_that_is_allowed() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = Signer::new("witness.example/w1", Algorithm::Cosignature, &[2; 32]).unwrap();
    let http = table(&format!("http://127.0.0.1:{port}"), key.verifier(), false);
    let (code, said) = reload(&server, &http);
    assert!(code == Some(2) && said.contains("witnesses.url") && said.contains("is not https"), "{code:?} {said}");
    // Not at a start either.
    let started = run(&server.data, &["check", "--config-only"]);
    assert!(started.status.code() == Some(1) && String::from_utf8_lossy(&started.stdout).contains("is not https"), "{started:?}");
    for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"] {
        assert_eq!(reload(&server, &table(&format!("https://{host}:{port}"), key.verifier(), false)), TAKEN);
        opted_out(&server, "rosa.vega@example.org");
        until("what became of it is known", || {
            problem(&server, "witness.example/w1").is_some_and(|why| why.contains("the address is private"))
        });
        assert!(listener.accept().is_err(), "{host}");
        assert_eq!(reload(&server, ""), TAKEN);
        until("it is forgotten", || problem(&server, "witness.example/w1").is_none());
    }
    until_cosigned(&server, &[]);
    assert_eq!(reload(&server, &table(&format!("http://127.0.0.1:{port}"), key.verifier(), true)), TAKEN);
    until("it is asked", || listener.accept().is_ok());
}

#[test]
fn a_witness_is_spoken_to_only_under_a_certificate_that_the_machine_trusts() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    // Two certificates that the machine trusts, one of them of another name, and one that it does not.
    let issue = |name: &str, host: &str| {
        let issued = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.crt")), issued.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), issued.signing_key.serialize_pem()).unwrap();
        issued.cert.pem()
    };
    let trusted = issue("good", "127.0.0.1") + &issue("other", "other.example");
    issue("unknown", "127.0.0.1");
    std::fs::write(path("trusted.pem"), trusted).unwrap();
    let start = |name: &str, certificates: &Path| {
        let mut command = Command::new(DESIST);
        command.env("SSL_CERT_FILE", certificates).env("SSL_CERT_DIR", "/nonexistent");
        std::fs::create_dir(path(name)).unwrap();
        Server::spawn(command, &path(name), &[])
    };
    let watch = |server: &Server, name: &str| {
        let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        let memory = path(&format!("{name} of {}", server.data.file_name().unwrap().display()));
        let name = format!("witness.example/{name}");
        let tls = ["--tls-cert", text(&cert), "--tls-key", text(&key)];
        let arguments = [&["--name", &name, "--listen", "127.0.0.1:0"][..], if cert.exists() { &tls[..] } else { &[] }].concat();
        let started = Watching::start(&memory, &log_key(server), &arguments);
        assert_eq!(started.url.starts_with("https://"), cert.exists());
        started
    };
    let server = start("one", &path("trusted.pem"));
    let witnesses = ["good", "other", "unknown"].map(|name| watch(&server, name));
    let tables: String = witnesses.iter().map(|witness| table(&witness.url, &witness.key, true)).collect();
    assert_eq!(reload(&server, &tables), TAKEN);
    opted_out(&server, "rosa.vega@example.org");
    until_cosigned(&server, &[&witnesses[0].key]);
    for (name, why) in [("other", "not valid for name"), ("unknown", "invalid peer certificate")] {
        let mut said = None;
        until(name, || {
            said = problem(&server, &format!("witness.example/{name}"));
            said.is_some()
        });
        let said = said.unwrap();
        assert!(said.contains("no connection: ") && said.contains(why), "{said}");
    }
    // A machine without any certificate serves all the same, and asks a witness over plain HTTP.
    let server = start("two", Path::new("/dev/null"));
    let (https, http) = (watch(&server, "good"), watch(&server, "plain"));
    assert_eq!(reload(&server, &(table(&https.url, &https.key, true) + &table(&http.url, &http.key, true))), TAKEN);
    opted_out(&server, "rosa.vega@example.org");
    until_cosigned(&server, &[&http.key]);
    until("it says why", || problem(&server, "witness.example/good").is_some_and(|why| why.contains("No CA certificates")));
}

/// `desist witness status`: exit code, data and what a person reads.
fn witness_status(data: &Path) -> (Option<i32>, Value, String) {
    let (json, read) = (run(data, &["witness", "status", "--json"]), run(data, &["witness", "status"]));
    assert_eq!(json.status.code(), read.status.code());
    (json.status.code(), serde_json::from_slice(&json.stdout).unwrap(), String::from_utf8(read.stdout).unwrap())
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_log_that_goes_back_and_on_is_convicted() {
    let place = tempfile::tempdir().unwrap();
    let (data, older, memory) = (place.path().join("data"), place.path().join("older"), place.path().join("w1"));
    std::fs::create_dir(&data).unwrap();
    let server = Server::start_in(&data, &[]);
    let origin = log_key(&server).split('+').next().unwrap().to_owned();
    let watching = Watching::start(&memory, &log_key(&server), &["--name", "witness.example/w1", "--listen", "127.0.0.1:0"]);
    assert_eq!(reload(&server, &table(&watching.url, &watching.key, true)), TAKEN);
    opted_out(&server, "rosa.vega@example.org");
    until_cosigned(&server, &[&watching.key]);
    assert!(server.stop().success());
    // With the keys, and so with the mark that would have refused.
    copy(&data, &older);
    let server = Server::start_in(&data, &[]);
    let before = entries(&server);
    for n in 0..4 {
        opted_out(&server, &format!("p{n}@example.org"));
    }
    let size = until_cosigned(&server, &[&watching.key]);
    assert!(server.stop().success());
    let (code, seen, read) = witness_status(&memory);
    assert_eq!(code, Some(0), "{read}");
    assert_eq!(seen["logs"], json!([{ "origin": origin, "size": size, "second_history": false }]));
    assert_eq!((&seen["clean"], &seen["key"]), (&json!(true), &json!(watching.key.to_string())));
    assert_eq!(read, format!("witness witness.example/w1\n  {origin}  cosigned {size} entries\n"));

    let server = Server::start_in(&older, &[]);
    assert_eq!(entries(&server), before);
    opted_out(&server, "somebody.else@example.org");
    // The alarm is an entry too. Then an entry each, up to the size that was cosigned.
    until("the witness refuses", || entries(&server) == before + (size - before) / 4 + 1 && status(&server).0 == Some(1));
    while entries(&server) < size {
        opted_out(&server, "somebody.else@example.org");
    }
    assert_eq!(entries(&server), size);
    until("the conflict is kept", || run(&memory, &["witness", "status"]).status.code() == Some(1));
    let (_, seen, read) = witness_status(&memory);
    assert_eq!(seen["logs"], json!([{ "origin": origin, "size": size, "second_history": true }]));
    assert!(
        read.contains(&format!("{origin}  SIGNED A SECOND HISTORY: both checkpoints are in {}", memory.join("conflicts").display())),
        "{read}"
    );
    until("the log's owner is told", || {
        problem(&server, "witness.example/w1").is_some_and(|why| why.contains("another history of this log"))
    });
    assert!(status(&server).2.contains("ALARM     witness_lost since 2"));
    // What was kept convicts by itself: two roots of one size, both under the log's key.
    let kept = std::fs::read_dir(memory.join("conflicts")).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let [cosigned, second] = &kept.map(|text| SignedCheckpoint::parse(&text).unwrap()).collect::<Vec<_>>()[..] else { panic!("two files") };
    let key: Verifier = log_key(&server).parse().unwrap();
    let open = |signed: &SignedCheckpoint| signed.open(&key, &[]).unwrap().checkpoint().clone();
    let (cosigned, second) = (open(cosigned), open(second));
    assert!(cosigned.size() == second.size() && cosigned.root() != second.root());
    // The log itself is whole, and its owner's receipts are good, but witnessed by nobody.
    assert!(!shown(&server).unwrap().is_cosigned_by(&watching.key));
    assert_eq!(server.decide("email", "somebody.else@example.org").0, "deny");
}

/// A log of the test's own: leaves that a number fixes up to `fork`, and then those of one `side`.
struct History {
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    size: u64,
}

impl History {
    fn new(entries: u64, fork: u64, side: u8) -> Self {
        let mut appender = Appender::open(0, &mut |_| Err(())).expect("nothing is read of nothing");
        for n in 0..entries {
            appender.append(leaf_hash(&[&n.to_be_bytes()[..], if n < fork { &[] } else { std::slice::from_ref(&side) }].concat()));
        }
        Self { tiles: appender.take().into_iter().map(|(id, bytes)| ((id.level(), id.index()), bytes)).collect(), size: entries }
    }

    fn tile(&self, id: TileId) -> Vec<u8> {
        self.tiles[&(id.level(), id.index())][..id.byte_len()].to_vec()
    }

    fn root(&self, size: u64) -> Hash {
        root(size, &mut |id| Ok::<_, std::convert::Infallible>(self.tile(id))).unwrap()
    }

    fn consistency(&self, from: u64, to: u64) -> Vec<Hash> {
        consistency(from, to, &mut |id| Ok::<_, std::convert::Infallible>(self.tile(id))).unwrap()
    }

    /// What the log asks a witness that cosigned `from` entries.
    fn request(&self, log: &Signer, from: u64, to: u64) -> AddCheckpoint {
        let checkpoint = Checkpoint::new(log.verifier().name(), to, self.root(to)).unwrap();
        let proof = if from > to { Vec::new() } else { self.consistency(from, to) };
        AddCheckpoint { old_size: from, proof, checkpoint: SignedCheckpoint::sign(checkpoint, log).unwrap() }
    }
}

/// The status and the body of an answer over a plain socket; none if the other side went away.
fn raw(address: &str, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn post(address: &str, body: &str) -> Option<(u16, String)> {
    let head = format!("POST /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    raw(address, &[head.as_bytes(), body.as_bytes()].concat())
}

/// What a witness cosigned: in which of its lives, which side of the log, how many entries, which root.
struct Cosigned {
    life: usize,
    side: usize,
    size: u64,
    root: Hash,
}

/// A log that shows one of its two histories to the witness until it is gone or does not believe it; told one by one.
/// Returns how often it was refused.
fn grow(address: &str, witness: &Verifier, log: &Signer, history: &History, seed: u64, tell: &mut dyn FnMut(u64, Hash)) -> usize {
    let (mut seeded, mut known, mut refused) = (Seeded::new(seed), 0, 0);
    while refused < 3 && known < history.size {
        let to = (known + 1 + seeded.below(4) as u64).min(history.size);
        let mut request = history.request(log, known, to);
        match post(address, &request.to_string()) {
            None => break,
            Some((200, line)) => {
                // A line that was cut off is no cosignature yet.
                if request.checkpoint.add(&line, witness).is_ok() {
                    tell(to, *request.checkpoint.unverified().root());
                }
                known = to;
            }
            Some((409, size)) => match size.trim().parse() {
                Ok(size) if size != known => known = size,
                _ => refused += 1,
            },
            Some((422, _)) => refused += 1,
            Some((status, body)) => panic!("{status}: {body}"),
        }
    }
    refused
}

#[test]
fn a_witness_that_is_killed_at_any_moment_never_cosigns_two_histories() {
    const ENTRIES: u64 = 300;
    let (place, lives) = (tempfile::tempdir().unwrap(), 20 * scale());
    let (memory, keys) = (place.path().join("w1"), place.path().join("keys.txt"));
    let mut seeded = Seeded::new(7);
    let logs: Vec<(Signer, [History; 2])> = (0..lives)
        .map(|n| {
            let seed: [u8; 32] = leaf_hash(&n.to_be_bytes());
            let fork = 1 + seeded.below(30) as u64;
            let log = Signer::new(&format!("log.example/{n}"), Algorithm::Ed25519, &seed).unwrap();
            (log, [0, 1].map(|side| History::new(ENTRIES, fork, side)))
        })
        .collect();
    std::fs::write(&keys, logs.iter().map(|(log, _)| log.verifier().to_string()).collect::<Vec<_>>().join("\n")).unwrap();
    let mut address = "127.0.0.1:0".to_owned();
    let mut cosigned: Vec<Vec<Cosigned>> = (0..lives).map(|_| Vec::new()).collect();
    let mut refused = 0;
    for life in 0..lives {
        let watching = Watching::start(&memory, text(&keys), &["--name", "witness.example/w1", "--listen", &address]);
        address = watching.address();
        let kill_after = seeded.below(60);
        let witness = watching.key.clone();
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            // A new log, and the one that the last kill cut off; two sides each, at once.
            for (n, (log, histories)) in logs.iter().enumerate().take(life + 1).skip(life.saturating_sub(1)) {
                for (side, history) in histories.iter().enumerate() {
                    let (tell, address, witness) = (tell.clone(), &address, &witness);
                    scope.spawn(move || {
                        let mut last = 0;
                        let seed = (life * 4 + (n % 2) * 2 + side) as u64;
                        let refused = grow(address, witness, log, history, seed, &mut |size, root| {
                            assert!(size > last, "a smaller size after a larger one");
                            last = size;
                            tell.send(Some((n, Cosigned { life, side, size, root }))).unwrap();
                        });
                        (0..refused).for_each(|_| tell.send(None).unwrap());
                    });
                }
            }
            drop(tell);
            let mut watching = Some(watching);
            let mut seen = 0;
            for one in &told {
                match one {
                    Some((n, one)) => cosigned[n].push(one),
                    None => refused += 1,
                }
                seen += 1;
                if seen > kill_after
                    && let Some(watching) = watching.take()
                {
                    watching.kill();
                }
            }
        });
    }
    // It starts again, and knows at least what it gave away.
    drop(Watching::start(&memory, text(&keys), &["--listen", &address]));
    let (_, status, _) = witness_status(&memory);
    let known = |n: usize| {
        let logs = status["logs"].as_array().unwrap();
        let log = logs.iter().find(|log| log["origin"] == format!("log.example/{n}"));
        log.map_or(0, |log| log["size"].as_u64().unwrap())
    };
    let mut pairs = 0;
    for (n, all) in cosigned.iter_mut().enumerate() {
        for (one, later) in
            all.iter().flat_map(|one| all.iter().map(move |later| (one, later))).filter(|(one, later)| one.life < later.life)
        {
            assert!(one.size <= later.size, "log {n}: {} entries in life {}, {} in life {}", one.size, one.life, later.size, later.life);
        }
        all.sort_by_key(|one| one.size);
        assert!(all.last().is_none_or(|last| last.size <= known(n)), "log {n}");
        for pair in all.windows(2) {
            let [one, next] = pair else { unreachable!("two") };
            // Where sizes are equal the empty proof shows that the roots are.
            let proof = logs[n].1[next.side].consistency(one.size, next.size);
            let consistent = verify_consistency(one.size, &one.root, next.size, &next.root, &proof);
            assert!(consistent.is_ok(), "log {n}: two histories, {} entries and {}", one.size, next.size);
            pairs += 1;
        }
    }
    assert!(pairs > lives * 5 && refused > 0, "{pairs} pairs, {refused} refusals");
}

#[test]
fn whatever_is_sent_to_a_witness_is_answered_in_words() {
    let place = tempfile::tempdir().unwrap();
    let (log, other) = ([1, 2].map(|n| Signer::new("log.example/1", Algorithm::Ed25519, &[n; 32]).unwrap())).into();
    let elsewhere = Signer::new("log.example/2", Algorithm::Ed25519, &[1; 32]).unwrap();
    let memory = place.path().join("w1");
    let watching = Watching::start(&memory, &log.verifier().to_string(), &["--name", "witness.example/w1", "--listen", "127.0.0.1:0"]);
    let (address, history) = (watching.address(), History::new(20, 20, 0));
    assert_eq!(send("GET", &format!("{}/key", watching.url), b"", &[]).text, format!("{}\n", watching.key));
    let request = |from, to| history.request(&log, from, to).to_string();
    assert_eq!(post(&address, &request(0, 5)).unwrap().0, 200);
    assert_eq!(post(&address, &request(5, 9)).unwrap().0, 200);
    let head = |method: &str, path: &str, rest: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n{rest}\r\n").into_bytes()
    };
    let body = |body: &[u8]| [head("POST", "/add-checkpoint", &format!("content-length: {}\r\n", body.len())), body.to_vec()].concat();
    let other_root = History::new(20, 3, 1);
    for (what, sent, status, words) in [
        ("the same again", body(request(9, 9).as_bytes()), 200, "\u{2014} witness.example/w1 "),
        ("from elsewhere", body(request(5, 9).as_bytes()), 409, "9\n"),
        ("from the start", body(request(0, 12).as_bytes()), 409, "9\n"),
        ("an older one", body(request(5, 5).as_bytes()), 409, "9\n"),
        ("from beyond it", body(request(12, 9).as_bytes()), 400, "larger"),
        ("another root", body(other_root.request(&log, 9, 9).to_string().as_bytes()), 409, "9\n"),
        ("no proof", body(AddCheckpoint { proof: Vec::new(), ..history.request(&log, 9, 12) }.to_string().as_bytes()), 422, "did not grow"),
        ("another key", body(history.request(&other, 9, 12).to_string().as_bytes()), 403, "no key of the log"),
        ("another log", body(history.request(&elsewhere, 0, 5).to_string().as_bytes()), 404, "does not watch"),
        ("nothing", body(b""), 400, "checkpoint"),
        ("not UTF-8", body(b"old 0\n\n\xff\xfe"), 400, "UTF-8"),
        ("no request", body(b"{}"), 400, "checkpoint"),
        ("64 KiB", body(&vec![b'a'; 64 << 10]), 400, "checkpoint"),
        ("one more", body(&vec![b'a'; (64 << 10) + 1]), 413, ""),
        ("no length", head("POST", "/add-checkpoint", ""), 400, "checkpoint"),
        ("another method", head("GET", "/add-checkpoint", ""), 405, ""),
        ("one of WebDAV", head("PROPFIND", "/add-checkpoint", ""), 405, ""),
        ("writing the key", head("PUT", "/key", "content-length: 0\r\n"), 405, ""),
        ("another path", head("GET", "/", ""), 404, ""),
        ("a longer path", head("POST", "/add-checkpoint/", "content-length: 0\r\n"), 404, ""),
    ] {
        let (got, said) = raw(&address, &sent).unwrap_or_else(|| panic!("{what}: no answer"));
        assert!(got == status && said.contains(words), "{what}: {got} {said}");
    }
    // Nothing of that changed what it knows.
    assert_eq!(post(&address, &request(9, 12)).unwrap().0, 200);
    assert_eq!(witness_status(&memory).1["logs"][0]["size"], 12);
}

#[test]
fn a_witness_that_cannot_start_says_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let key = |algorithm, n: u8| Signer::new("log.example/1", algorithm, &[n; 32]).unwrap().verifier().to_string();
    let (log, witness) = (key(Algorithm::Ed25519, 1), key(Algorithm::Cosignature, 1));
    let running = Watching::start(&path("w1"), &log, &["--name", "witness.example/w1", "--listen", "127.0.0.1:0"]);
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("tls.crt"), issued.cert.pem()).unwrap();
    std::fs::write(path("other.key"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("keys.txt"), format!("{log}\nnonsense\n")).unwrap();
    copy(&path("w1"), &path("no-memory"));
    std::fs::remove_file(path("no-memory/cosigned.json")).unwrap();
    copy(&path("w1"), &path("bad-memory"));
    std::fs::write(path("bad-memory/cosigned.json"), "{\"log.example/1\": \"log.example/1\\n5\\nAAAA\\n\"}").unwrap();
    copy(&path("w1"), &path("bad-key"));
    std::fs::write(path("bad-key/witness.key"), "PRIVATE+KEY+\n").unwrap();
    let (cert, no_cert, wrong) = (path("tls.crt"), path("none.crt"), path("other.key"));
    let (keys, name) = (path("keys.txt"), ["--name", "witness.example/w2"]);
    let start = |data: &str, log: &str, more: &[&str]| -> Output {
        let data = path(data);
        Command::new(DESIST)
            .args(["witness", "serve", "--log", log, "--data", text(&data)])
            .args(if more.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let taken = running.address();
    for (data, log, more, words) in [
        ("w1", log.as_str(), &[][..], "in use by another process"),
        ("new", &log, &[], "give --name"),
        ("new", &log, &["--name", "has a space"], "--name"),
        ("new", &log, &["--name", ""], "--name"),
        ("new", &witness, &name, "the key of a witness"),
        ("new", "nonsense", &name, "--log"),
        ("new", text(&keys), &name, "--log"),
        ("new", &log, &["--tls-cert", text(&cert)], "--tls-key"),
        ("new", &log, &["--tls-cert", text(&no_cert), "--tls-key", text(&wrong)], "none.crt"),
        ("new", &log, &["--tls-cert", text(&cert), "--tls-key", text(&wrong)], "other.key"),
        ("no-memory", &log, &[], "retire this witness"),
        ("bad-memory", &log, &[], "retire this witness"),
        ("bad-key", &log, &[], "witness.key"),
        ("keys.txt", &log, &name, "keys.txt"),
    ] {
        let output = start(data, log, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{data} {more:?}: {output:?}");
        assert!(!path("new").exists(), "{more:?} left a directory");
    }
    let output = start("second", &log, &["--name", "witness.example/w2", "--listen", &taken]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("--listen"), "{output:?}");
    // Its own name is no mistake, another one is.
    drop(running);
    let output = start("w1", &log, &name);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("this witness is \"witness.example/w1\""), "{said}");
    drop(Watching::start(&path("w1"), &log, &["--name", "witness.example/w1", "--listen", &taken]));
    for (data, words) in [("none", "witness.key"), ("no-memory", "retire this witness"), ("bad-memory", "retire this witness")] {
        let output = run(&path(data), &["witness", "status"]);
        assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains(words), "{data}: {output:?}");
    }
    // Nobody else reads the key.
    let mode = |name: &str| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path(name)).unwrap().permissions()) & 0o777;
    assert_eq!((mode("w1"), mode("w1/witness.key")), (0o700, 0o600));
}

/// Everybody can read a log's checkpoints, and can send one with a proof that is none.
#[test]
fn a_stranger_cannot_convict_a_log() {
    let place = tempfile::tempdir().unwrap();
    let log = Signer::new("log.example/1", Algorithm::Ed25519, &[1; 32]).unwrap();
    let memory = place.path().join("w1");
    let watching = Watching::start(&memory, &log.verifier().to_string(), &["--name", "witness.example/w1", "--listen", "127.0.0.1:0"]);
    let (address, history) = (watching.address(), History::new(20, 20, 0));
    assert_eq!(post(&address, &history.request(&log, 0, 5).to_string()).unwrap().0, 200);
    let unproved = AddCheckpoint { proof: Vec::new(), ..history.request(&log, 5, 9) };
    assert_eq!(post(&address, &unproved.to_string()).unwrap().0, 422);
    let (code, _, read) = witness_status(&memory);
    assert_eq!((code, read), (Some(0), "witness witness.example/w1\n  log.example/1  cosigned 5 entries\n".to_owned()));
    assert_eq!(post(&address, &history.request(&log, 5, 9).to_string()).unwrap().0, 200);
}
