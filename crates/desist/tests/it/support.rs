//! A server of our own for each test, and a plain HTTP client to talk to it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The binary under test.
pub const DESIST: &str = env!("CARGO_BIN_EXE_desist");

/// Where `npm ci` put the programs of others, once for all tests of this machine.
pub static CLIENTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let clients = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients"));
    // Other test processes wait here until the first is done.
    let lock = std::fs::File::create(std::env::temp_dir().join("desist-test-clients.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let packages = |lock: &str| {
        let mut lock: Value = serde_json::from_str(&std::fs::read_to_string(clients.join(lock)).ok()?).ok()?;
        let packages = lock["packages"].as_object_mut()?;
        // An installation has no entry of the directory's own, and none for other systems.
        packages.retain(|name, package| !name.is_empty() && package["optional"] != true);
        Some(lock["packages"].take())
    };
    // npm writes this file last; it is of another lock file after an update of the sources.
    if packages("node_modules/.package-lock.json") != packages("package-lock.json") {
        let npm = Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&clients).status();
        assert!(npm.expect("npm is missing; run scripts/test").success(), "npm ci");
    }
    clients
});

/// A running server; killed when dropped.
pub struct Server {
    pub child: Child,
    /// The data directory.
    pub data: PathBuf,
    /// `http://127.0.0.1:port` of the public listener.
    pub public: String,
    /// The same of the private listener.
    pub private: String,
    /// The first admin's `X-Api-Key`.
    pub api_key: String,
    /// The first admin's token.
    pub token: String,
    /// Removes the directory at the end, unless the caller owns it.
    temporary: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Server {
    /// A server on an empty directory.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self::start_in(directory.path(), &[]);
        server.temporary = Some(directory);
        server
    }

    /// A server on a directory of the caller's, with more arguments.
    pub fn start_in(data: &Path, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(DESIST), data, arguments)
    }

    /// A server started through `command`, which gets `serve ...` as its arguments (strace, for one).
    pub fn spawn(mut command: Command, data: &Path, arguments: &[&str]) -> Self {
        let child = command
            .args(["serve", "--public", "127.0.0.1:0", "--private", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // From here on a panic ends the child too.
        let mut server = Self {
            child,
            data: data.to_owned(),
            public: String::new(),
            private: String::new(),
            api_key: String::new(),
            token: String::new(),
            temporary: None,
        };
        let mut lines = BufReader::new(server.child.stdout.take().expect("stdout is piped")).lines();
        let mut url = |name: &str| loop {
            let line = lines.next().expect("the server says where it listens").expect("readable");
            if let Some(url) = line.trim().strip_prefix(name) {
                break url.trim().to_owned();
            }
        };
        (server.public, server.private) = (url("public"), url("private"));
        // Whatever it says later has somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        let admin = std::fs::read_to_string(data.join("first-admin.json")).expect("the first start writes the admin key");
        let admin: Value = serde_json::from_str(&admin).expect("JSON");
        let text = |name: &str| admin[name].as_str().expect("a string").to_owned();
        (server.api_key, server.token) = (text("api_key"), text("token"));
        server
    }

    /// Sends a request to the private listener as the admin; `body` as it is.
    pub fn send(&self, method: &str, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let token = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", token.as_str()), ("x-api-key", self.api_key.as_str())];
        all.retain(|(name, _)| !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)));
        all.extend(headers);
        send(method, &format!("{}{path}", self.private), body, &all)
    }

    /// Posts JSON to the private listener as the admin.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().as_bytes(), &[])
    }

    /// Decides `sale` for one identifier: `(decision, reason)`.
    pub fn decide(&self, kind: &str, value: &str) -> (String, String) {
        let body = serde_json::json!({ "purpose": "sale", "identifiers": [{ "kind": kind, "value": value }] });
        let answer = self.post("/v1/decisions", &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = answer.json();
        (answer["decision"].as_str().expect("a word").to_owned(), answer["reason"].as_str().expect("a word").to_owned())
    }

    /// Runs the binary against this server's directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(&self.data, arguments)
    }

    /// Stops it as a service manager does, and waits.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.child.wait().expect("it ends")
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    }

    /// Kills it without a chance to do anything, and waits.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary on a data directory. `--data DIR` goes last.
pub fn run(data: &Path, arguments: &[&str]) -> Output {
    Command::new(DESIST).args(arguments).arg("--data").arg(data).output().expect("the binary runs")
}

/// Sends a request anywhere; any status is an answer.
pub fn send(method: &str, url: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = if body.is_empty() && method != "POST" {
        agent.run(request.body(()).expect("a request"))
    } else {
        agent.run(request.body(body).expect("a request"))
    }
    .unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.body_mut().read_to_string().expect("text") }
}

/// Waits until something outside this process has happened; the deadline is there to fail, not to wait for.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !happened() {
        assert!(std::time::Instant::now() < patience, "{what}: not within 20 seconds");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Every member of a body as a JSON pointer.
pub fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| (format!("{at}/{name}"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(place, value)| (format!("{at}/{place}"), value)).collect(),
        _ => Vec::new(),
    };
    for (pointer, value) in inner {
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    }
}

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// How much to try: 1 in CI.
pub fn scale() -> usize {
    number("DESIST_SCALE", 1)
}

/// Numbers that a seed fixes (splitmix64).
pub struct Seeded(u64);

impl Seeded {
    /// Each `thread` gets numbers of its own.
    pub fn new(thread: u64) -> Self {
        Self((number("DESIST_SEED", 1) as u64) ^ (thread << 32))
    }

    /// The next number, below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
