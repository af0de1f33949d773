//! What `docs/deploy.md` says, done: its own configurations, run with real proxies, real certificates and another
//! client address than the proxy's; and what the server says when it cannot start.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DESIST, Server, run};

const DOC: &str = include_str!("../../../../docs/deploy.md");
const UNIT: &str = include_str!("../../../../packaging/desist.service");
const PUBLIC_HOST: &str = "privacy.example.com";
const PRIVATE_HOST: &str = "desist.internal.example.com";
/// Where the consumer calls from; the proxies call from 127.0.0.1.
const CONSUMER: &str = "127.0.0.2";

/// The fenced block in `language` below the heading `section` of the page.
fn block(section: &str, language: &str) -> String {
    let below = DOC.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section:?}")).1;
    let below = below.split("\n## ").next().unwrap_or_default();
    let (_, code) = below.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no {language} in {section:?}"));
    code.split_once("```").expect("the block ends").0.to_owned()
}

/// Puts this machine's values in place of the page's; each of them must be there.
fn fill(text: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (placeholder, value)| {
        assert!(text.contains(placeholder), "docs/deploy.md no longer says {placeholder:?}");
        text.replace(placeholder, value)
    })
}

/// A port that nothing uses now, never the same one twice.
fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(port) {
            return port;
        }
    }
}

/// A process that is asked to stop when dropped: a killed nginx would leave its workers.
struct Running(Child);

impl Running {
    /// Starts it and waits for the line of `stream` that has `sign` in it.
    fn start(command: &mut Command, sign: &str, stream: fn(&mut Child) -> Box<dyn Read + Send>) -> Self {
        let mut running = Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let mut lines = BufReader::new(stream(&mut running.0)).lines();
        let mut seen = String::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("{command:?} ended:\n{seen}")).expect("readable");
            if line.contains(sign) {
                break;
            }
            seen += &(line + "\n");
        }
        std::thread::spawn(move || lines.for_each(drop));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// One deployment: a certificate for both names, the ports that clients see, and those behind the proxy.
struct Site {
    directory: TempDir,
    public: u16,
    private: u16,
    public_behind: u16,
    private_behind: u16,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let site = Self { directory, public: free_port(), private: free_port(), public_behind: free_port(), private_behind: free_port() };
        std::fs::create_dir(site.path("data")).unwrap();
        site.certify();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// New certificate files in the place of the old ones, as after a renewal.
    fn certify(&self) {
        let new = rcgen::generate_simple_self_signed([PUBLIC_HOST.to_owned(), PRIVATE_HOST.to_owned()]).unwrap();
        std::fs::write(self.path("tls.crt"), new.cert.pem()).unwrap();
        std::fs::write(self.path("tls.key"), new.signing_key.serialize_pem()).unwrap();
    }

    /// `desist serve` with this `desist.toml`.
    fn serve(&self, config: &str, arguments: &[&str]) -> Running {
        std::fs::write(self.path("data/desist.toml"), config).unwrap();
        let mut command = Command::new(DESIST);
        command.args(["serve", "--data"]).arg(self.path("data")).args(arguments).stdout(Stdio::piped());
        Running::start(&mut command, "private", |child| Box::new(child.stdout.take().expect("piped")))
    }

    /// The page's `desist.toml` for a server behind a proxy.
    fn config_behind(&self) -> String {
        fill(
            &block("Behind a proxy", "toml"),
            &[
                ("127.0.0.1:8080", format!("127.0.0.1:{}", self.public_behind)),
                ("127.0.0.1:8081", format!("127.0.0.1:{}", self.private_behind)),
                ("https://privacy.example.com", format!("https://{PUBLIC_HOST}:{}", self.public)),
                (":8443\"", format!(":{}\"", self.private)),
            ],
        )
    }

    /// The page's nginx, as itself and its own pid file, logs and temporary files.
    fn nginx(&self) -> Running {
        let servers = fill(
            &block("nginx in front", "nginx"),
            &[
                ("203.0.113.10:443", format!("127.0.0.1:{}", self.public)),
                ("10.0.0.5:8443", format!("127.0.0.1:{}", self.private)),
                ("127.0.0.1:8080", format!("127.0.0.1:{}", self.public_behind)),
                ("127.0.0.1:8081", format!("127.0.0.1:{}", self.private_behind)),
                ("/etc/nginx/tls/public.crt", self.text("tls.crt")),
                ("/etc/nginx/tls/public.key", self.text("tls.key")),
                ("/etc/nginx/tls/private.crt", self.text("tls.crt")),
                ("/etc/nginx/tls/private.key", self.text("tls.key")),
            ],
        );
        std::fs::write(self.path("desist.conf"), servers).unwrap();
        let here = self.directory.path().display();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("    {kind}_temp_path {here}/{kind};\n")).concat();
        // Alone, one that is not root needs no user.
        let user = if std::fs::metadata(self.path("tls.key")).is_ok_and(|file| std::os::unix::fs::MetadataExt::uid(&file) == 0) {
            "user root;\n"
        } else {
            ""
        };
        let main = format!(
            "{user}daemon off;\nworker_processes 1;\npid {here}/nginx.pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}    include {here}/desist.conf;\n}}\n"
        );
        std::fs::write(self.path("nginx.conf"), main).unwrap();
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(self.directory.path()).args(["-e", "stderr", "-c"]).arg(self.path("nginx.conf")).stderr(Stdio::piped());
        Running::start(&mut command, "start worker process ", |child| Box::new(child.stderr.take().expect("piped")))
    }

    /// The page's Caddy, without its admin listener and with its files in the temporary directory.
    fn caddy(&self) -> Running {
        let config = fill(
            &block("Caddy in front", "caddyfile"),
            &[
                ("http_port 80\n", format!("http_port {}\n\tadmin off\n", free_port())),
                ("privacy.example.com:443", format!("privacy.example.com:{}", self.public)),
                ("internal.example.com:8443", format!("internal.example.com:{}", self.private)),
                ("203.0.113.10", "127.0.0.1".to_owned()),
                ("10.0.0.5", "127.0.0.1".to_owned()),
                ("127.0.0.1:8080", format!("127.0.0.1:{}", self.public_behind)),
                ("127.0.0.1:8081", format!("127.0.0.1:{}", self.private_behind)),
                ("/etc/caddy/tls/public.crt", self.text("tls.crt")),
                ("/etc/caddy/tls/public.key", self.text("tls.key")),
                ("/etc/caddy/tls/private.crt", self.text("tls.crt")),
                ("/etc/caddy/tls/private.key", self.text("tls.key")),
            ],
        );
        std::fs::write(self.path("Caddyfile"), config).unwrap();
        let mut command = Command::new(tool("caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(self.path("Caddyfile")).stderr(Stdio::piped());
        for (variable, place) in [("HOME", "home"), ("XDG_DATA_HOME", "share"), ("XDG_CONFIG_HOME", "config")] {
            command.env(variable, self.path(place));
        }
        Running::start(&mut command, "serving initial configuration", |child| Box::new(child.stderr.take().expect("piped")))
    }

    /// Calls a listener by its name and over TLS, checked against the certificate in `ca`.
    fn curl(&self, ca: &str, host: &str, path: &str, arguments: &[&str]) -> Output {
        let port = if host == PUBLIC_HOST { self.public } else { self.private };
        Command::new("curl")
            .args(["-q", "--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--cacert"])
            .arg(self.path(ca))
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://{host}:{port}{path}"))
            .output()
            .expect("curl runs")
    }

    /// As [`Site::curl`], for an answer in JSON.
    fn json(&self, host: &str, path: &str, arguments: &[&str]) -> Value {
        let output = self.curl("tls.crt", host, path, arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{host}{path}: {error}: {output:?}"))
    }

    /// What must hold however TLS is done.
    fn is_sound(&self) {
        for host in [PUBLIC_HOST, PRIVATE_HOST] {
            let port = if host == PUBLIC_HOST { self.public } else { self.private };
            let seen = |gpc: bool| json!({ "client_address": CONSUMER, "https": true, "host": format!("{host}:{port}"), "gpc": gpc });
            let from = ["--interface", CONSUMER];
            let call = |arguments: &[&str]| self.json(host, "/connection", &[from.as_slice(), arguments].concat());
            assert_eq!(call(&[]), seen(false));
            assert_eq!(call(&["-H", "Sec-GPC: 1"]), seen(true));
            assert_eq!(call(&["--http1.1"]), seen(false));
            for spoofed in ["203.0.113.77", "203.0.113.77, 127.0.0.1", "127.0.0.1", "nonsense"] {
                let spoofed = format!("X-Forwarded-For: {spoofed}");
                assert_eq!(
                    call(&["-H", &spoofed, "-H", "X-Forwarded-Proto: http", "-H", "X-Forwarded-Host: evil.example"]),
                    seen(false),
                    "{spoofed}"
                );
            }
            let version = self.curl("tls.crt", host, "/readyz", &["--http2", "--write-out", "%{http_version} %{http_code}"]);
            assert_eq!(String::from_utf8_lossy(&version.stdout), "ok\n2 200", "{version:?}");
        }
        let admin: Value = serde_json::from_slice(&std::fs::read(self.path("data/first-admin.json")).unwrap()).unwrap();
        let text = |name: &str| admin[name].as_str().unwrap().to_owned();
        let (key, token) = (format!("X-Api-Key: {}", text("api_key")), format!("Authorization: Bearer {}", text("token")));
        let post = |path: &str, body: &Value| {
            self.json(PRIVATE_HOST, path, &["-H", &key, "-H", &token, "--data", &body.to_string(), "-H", "Content-Type: application/json"])
        };
        let profile = post("/acme/campaign/profileAndServicesExt/profile", &json!({ "email": "rosa@example.org" }));
        let start = format!("https://{PRIVATE_HOST}:{}/acme/campaign/profileAndServicesExt/profile/@", self.private);
        assert!(profile["href"].as_str().is_some_and(|href| href.starts_with(&start)), "{profile}");
        let body = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "rosa@example.org" }] });
        assert_eq!(post("/v1/requests", &body)["status"], "received");
        let body = json!({ "purpose": "sale", "identifiers": [{ "kind": "email", "value": "rosa@example.org" }] });
        assert_eq!(post("/v1/decisions", &body)["decision"], "deny");
        // More than the 1 MiB that proxies let through unless told otherwise.
        let subject = json!({ "identifiers": [{ "kind": "customer_id", "value": "c".repeat(200) }] });
        let many = json!({ "purpose": "sale", "subjects": vec![subject; 10_000] });
        std::fs::write(self.path("many.json"), many.to_string()).unwrap();
        let file = format!("@{}", self.text("many.json"));
        let many = self.json(
            PRIVATE_HOST,
            "/v1/decisions",
            &["-H", &key, "-H", &token, "--data-binary", &file, "-H", "Content-Type: application/json"],
        );
        assert_eq!(many["decisions"].as_array().map(Vec::len), Some(10_000));
        // What is the operator's is not on the public side.
        for path in ["/metrics", "/healthz", "/v1/keys", "/acme/campaign/profileAndServicesExt/profile"] {
            let output = self.curl(
                "tls.crt",
                PUBLIC_HOST,
                path,
                &["--write-out", "%{http_code}", "--output", "/dev/null", "-H", &key, "-H", &token],
            );
            assert_eq!(output.stdout, b"404", "{path}: {output:?}");
        }
    }

    /// `desist reload`: its exit code and standard error.
    fn reload(&self) -> (Option<i32>, String) {
        let output = run(&self.path("data"), &["reload"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The path of a program that may be an administrator's alone.
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .find_map(|place| Some(place.join(name)).filter(|file| file.exists()))
        .unwrap_or_else(|| panic!("{name} is not installed; scripts/test does that"))
}

#[test]
fn nginx_in_front_as_the_page_says() {
    let site = Site::new();
    let _desist = site.serve(&site.config_behind(), &[]);
    let _nginx = site.nginx();
    site.is_sound();
}

#[test]
fn caddy_in_front_with_flags_instead_of_the_file() {
    let site = Site::new();
    let address = |port: u16| format!("127.0.0.1:{port}");
    let (public, private) = (address(site.public_behind), address(site.private_behind));
    let url = format!("https://{PRIVATE_HOST}:{}", site.private);
    let _desist = site.serve("", &["--public", &public, "--private", &private, "--trusted-proxies", "127.0.0.1/32", "--private-url", &url]);
    let _caddy = site.caddy();
    site.is_sound();
}

#[test]
fn a_proxy_that_is_not_trusted_is_not_believed() {
    let site = Site::new();
    let config = fill(&site.config_behind(), &[("trusted_proxies = [\"127.0.0.1/32\"]", String::new())]);
    let _desist = site.serve(&config, &[]);
    let _caddy = site.caddy();
    for (host, port) in [(PUBLIC_HOST, site.public), (PRIVATE_HOST, site.private)] {
        let seen = site.json(host, "/connection", &["--interface", CONSUMER, "-H", "X-Forwarded-For: 203.0.113.77"]);
        assert_eq!(seen, json!({ "client_address": "127.0.0.1", "https": false, "host": format!("{host}:{port}"), "gpc": false }));
    }
}

#[test]
fn direct_tls_as_the_page_says_and_certificates_are_renewed_in_place() {
    let site = Site::new();
    let config = fill(
        &block("Direct TLS", "toml"),
        &[
            ("203.0.113.10:443", format!("127.0.0.1:{}", site.public)),
            ("10.0.0.5:8443", format!("127.0.0.1:{}", site.private)),
            ("https://privacy.example.com", format!("https://{PUBLIC_HOST}:{}", site.public)),
            (":8443\"", format!(":{}\"", site.private)),
            ("/etc/desist/tls/public.crt", site.text("tls.crt")),
            ("/etc/desist/tls/public.key", site.text("tls.key")),
            ("/etc/desist/tls/private.crt", site.text("tls.crt")),
            ("/etc/desist/tls/private.key", site.text("tls.key")),
        ],
    );
    let _desist = site.serve(&config, &[]);
    site.is_sound();

    let serves = |ca: &str| [PUBLIC_HOST, PRIVATE_HOST].map(|host| site.curl(ca, host, "/livez", &[]).status.success());
    std::fs::copy(site.path("tls.crt"), site.path("old.crt")).unwrap();
    site.certify();
    assert_eq!((serves("old.crt"), serves("tls.crt")), ([true; 2], [false; 2]), "nothing changes by itself");
    assert_eq!(site.reload(), (Some(0), String::new()));
    assert_eq!((serves("old.crt"), serves("tls.crt")), ([false; 2], [true; 2]));

    // Whatever is wrong with the next files, these go on.
    std::fs::copy(site.path("tls.crt"), site.path("good.crt")).unwrap();
    let refuses = |name: &str| {
        let (code, said) = site.reload();
        assert!(code == Some(2) && said.contains(&site.text(name)), "{code:?} {said}");
        assert_eq!(serves("good.crt"), [true; 2], "{said}");
    };
    let good = std::fs::read(site.path("tls.crt")).unwrap();
    for broken in [&b""[..], b"-----BEGIN CERTIFICATE-----\nMIIB\n", &good[..good.len() / 2]] {
        std::fs::write(site.path("tls.crt"), broken).unwrap();
        refuses("tls.crt");
    }
    std::fs::remove_file(site.path("tls.crt")).unwrap();
    refuses("tls.crt");
    let key = std::fs::read(site.path("tls.key")).unwrap();
    site.certify();
    std::fs::write(site.path("tls.key"), key).unwrap();
    refuses("tls.key");
    site.certify();
    assert_eq!(site.reload(), (Some(0), String::new()));
    assert_eq!(serves("tls.crt"), [true; 2]);
}

#[test]
fn the_service_starts_what_exists_and_reloads_it() {
    let line = |name: &str| {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(words[0], "/usr/local/bin/desist");
        words[1..].to_vec()
    };
    let site = Site::new();
    let data = site.text("data");
    let here =
        |words: Vec<String>| words.into_iter().map(|word| if word == "/var/lib/desist" { data.clone() } else { word }).collect::<Vec<_>>();
    let config = fill(&site.config_behind(), &[]);
    std::fs::write(site.path("data/desist.toml"), config).unwrap();
    let mut command = Command::new(DESIST);
    command.args(here(line("ExecStart="))).stdout(Stdio::piped());
    let _desist = Running::start(&mut command, "private", |child| Box::new(child.stdout.take().expect("piped")));
    let output = Command::new(DESIST).args(here(line("ExecReload="))).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(UNIT.contains("StateDirectory=desist\n"), "the directory that the commands name");
}

#[test]
fn a_reload_takes_all_of_a_file_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(directory.path(), &[]);
    let file = directory.path().join("desist.toml");
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = server.run(&["reload"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let seen = || {
        let profile = server.post("/acme/campaign/profileAndServicesExt/profile", &json!({ "email": "rosa@example.org" })).json();
        let href = profile["href"].as_str().unwrap().split("/acme/").next().unwrap().to_owned();
        let caller = server.send("GET", "/connection", b"", &[("x-forwarded-for", "203.0.113.77")]).json();
        (href, caller["client_address"].as_str().unwrap().to_owned())
    };
    let pair = |href: &str, caller: &str| (href.to_owned(), caller.to_owned());
    let first = pair(&server.private, "127.0.0.1");
    assert_eq!(seen(), first);
    assert_eq!(reload("[server]\nprivate_url = \"https://one.example\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n"), (Some(0), String::new()));
    let second = pair("https://one.example", "203.0.113.77");
    assert_eq!(seen(), second);
    for (bad, words) in [
        ("[server]\nprivate_url = \"https://two.example\"\ntrusted_proxies = [\"all\"]\n", "desist.toml:3:"),
        ("[server]\nprivate_url = \"https://two.example\"\n[server.public_tls]\ncert = \"a\"\nkey = \"a\"\n", "restart"),
        ("[server]\nprivate = \"0.0.0.0:1\"\n", ""),
    ] {
        // The flags of this server go before the file, so the last one is no error.
        let (code, said) = reload(bad);
        assert!(words.is_empty() || (code == Some(2) && said.contains(words)), "{code:?} {said}");
        assert_eq!(seen(), if words.is_empty() { first.clone() } else { second.clone() }, "{said}");
    }
    assert_eq!(reload(""), (Some(0), String::new()));
    assert_eq!(seen(), first);
}

#[test]
fn a_backup_and_the_keys_make_a_server_again() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = first.path().join("copy.db");
    let server = Server::start_in(&first.path().join("data"), &[]);
    assert_eq!(server.run(&["opt-out", "email:rosa@example.org"]).status.code(), Some(0));
    assert_eq!(server.run(&["backup", copy.to_str().unwrap()]).status.code(), Some(0));
    let again = server.run(&["backup", copy.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "a copy is never overwritten: {again:?}");
    let keys = second.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    for name in ["pepper.key", "master.key", "log.key"] {
        std::fs::copy(server.data.join("keys").join(name), keys.join(name)).unwrap();
    }
    std::fs::copy(&copy, second.path().join("desist.db")).unwrap();
    assert_eq!(run(second.path(), &["check"]).status.code(), Some(0));
    assert_eq!(run(second.path(), &["decide", "email:rosa@example.org"]).status.code(), Some(1));
    // The first admin's key still works there.
    std::fs::copy(server.data.join("first-admin.json"), second.path().join("first-admin.json")).unwrap();
    let restored = Server::start_in(second.path(), &[]);
    assert_eq!(restored.decide("email", "rosa@example.org").0, "deny");
}

/// `desist serve` must end with 2 and say all of `words`.
fn refuses(data: &Path, arguments: &[&str], words: &[&str]) {
    // Should it serve after all, it does not do so for ever.
    let output = Command::new("timeout").args(["20", DESIST, "serve", "--data"]).arg(data).args(arguments).output().expect("timeout runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    assert!(!said.contains("a defect"), "{said}");
}

/// A store that was served once.
fn store() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(directory.path(), &["--business", "acme"]);
    assert!(server.stop().success());
    directory
}

const FREE: [&str; 4] = ["--public", "127.0.0.1:0", "--private", "127.0.0.1:0"];

#[test]
fn a_wrong_business_or_directory_ends_with_2_and_the_fix() {
    let directory = store();
    let data = directory.path();
    let name = data.to_str().unwrap();
    refuses(data, &[&FREE[..], &["--business", "other"]].concat(), &["--business", "\"acme\"", "\"other\"", "--data"]);
    refuses(data, &[&FREE[..], &["--business", "no spaces"]].concat(), &["--business", "letters"]);
    {
        let _holder = Server::start_in(data, &[]);
        refuses(data, &FREE, &[name, "in use", "stop that one"]);
    }
    // A directory that cannot be written, for root too.
    let file = data.join("a-file");
    std::fs::write(&file, "").unwrap();
    refuses(&file, &FREE, &[file.to_str().unwrap(), "--data"]);
    refuses(&file.join("below"), &FREE, &[file.to_str().unwrap(), "--data"]);
    // A damaged database is never replaced.
    let damaged = "not a database, but long enough to be taken for one".repeat(100);
    std::fs::write(data.join("desist.db"), &damaged).unwrap();
    refuses(data, &FREE, &["damaged", "desist check"]);
    assert_eq!(std::fs::read_to_string(data.join("desist.db")).unwrap(), damaged);
}

#[test]
fn wrong_secret_files_end_with_2_and_the_fix() {
    let directory = store();
    let data = directory.path();
    for name in ["master.key", "pepper.key", "log.key"] {
        let path = data.join("keys").join(name);
        let shown = path.to_str().unwrap();
        let good = std::fs::read(&path).unwrap();
        for garbled in [&b""[..], b"\xff\xfe", b"too short", &good[..20]] {
            std::fs::write(&path, garbled).unwrap();
            refuses(data, &FREE, &[shown, "32 bytes", "restore the file"]);
        }
        std::fs::write(&path, "A".repeat(43)).unwrap();
        refuses(data, &FREE, &[shown, "is not the file", "--keys", "restore the file"]);
        std::fs::remove_file(&path).unwrap();
        refuses(data, &FREE, &[shown, "is missing", "--keys", "restore the file"]);
        assert!(!path.exists(), "a missing secret of a store is never made anew");
        std::fs::create_dir(&path).unwrap();
        refuses(data, &FREE, &[shown, "--keys"]);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, good).unwrap();
    }
    let elsewhere = data.join("elsewhere");
    let shown = elsewhere.to_str().unwrap();
    refuses(data, &[&FREE[..], &["--keys", shown]].concat(), &[&format!("{shown}/pepper.key"), "--keys"]);
    assert!(!elsewhere.exists(), "a wrong --keys is not made");
    assert!(Server::start_in(data, &[]).stop().success(), "with the right files all is well");
}

#[test]
fn wrong_settings_end_with_2_and_the_fix() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for (flag, value) in
        [("--public", "localhost"), ("--private", "127.0.0.1:99999"), ("--trusted-proxies", "10.0.0.0/33"), ("--log", "loud")]
    {
        refuses(&data, &[flag, value], &[flag, value]);
    }
    for flag in ["--public-url", "--private-url"] {
        refuses(&data, &[&FREE[..], &[flag, "privacy.example.com"]].concat(), &[flag, "https://"]);
    }
    refuses(&data, &["--public-tls-cert", "a.crt"], &["--public-tls-key"]);
    for exposed in ["0.0.0.0:0", "[::]:0"] {
        refuses(
            &data,
            &["--public", "127.0.0.1:0", "--private", exposed],
            &[&format!("desist: --private: {exposed}"), "--insecure-private", "server.private_tls"],
        );
    }
    // A port that is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&data, &["--public", &address, "--private", "127.0.0.1:0"], &["--public", &address, "another"]);
    refuses(&data, &["--private", &address, "--public", "127.0.0.1:0"], &["--private", &address, "another"]);
    // TLS files, before anything is served.
    let missing = directory.path().join("missing.pem");
    let missing = missing.to_str().unwrap();
    for (cert, key) in [("--public-tls-cert", "--public-tls-key"), ("--private-tls-cert", "--private-tls-key")] {
        refuses(&data, &[&FREE[..], &[cert, missing, key, missing]].concat(), &[missing, "check the path"]);
    }
    let config = directory.path().join("desist.toml");
    let shown = config.to_str().unwrap();
    let with = [&FREE[..], &["--config", shown]].concat();
    refuses(&data, &with, &[shown, "check the path"]);
    for (text, place, words) in [
        ("[server]\npublic = \"localhost\"\n", ":2:", "server.public"),
        ("[server]\npubic = \"127.0.0.1:1\"\n", ":2:", "public"),
        ("[server]\n\npublic = \n", ":3:", ""),
        ("[campaign]\ncompat = \"Adobe\"\n", ":2:", "\"strict\""),
    ] {
        std::fs::write(&config, text).unwrap();
        refuses(&data, &with, &[&format!("{shown}{place}"), words]);
    }
}
