//! A server in this process whose destinations take some kinds of identifier: what they are reaches the vault through every door.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desist::config::Config;
use desist::net::{Listener, serve_unix};
use desist::web::{self, App};
use desist_engine::clear;
use desist_engine::core::fact::{Actor, Role};
use desist_engine::core::identifier::{Identifier, Kind};
use desist_engine::delivery::transport::Known;
use desist_engine::engine::{Engine, Options, Policy};
use desist_engine::env::System;
use desist_engine::keys;
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_engine::store::Owner;
use desist_engine::store::sqlite::SqliteStore;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Answer, run, send};

/// The server, which stops with its value.
pub struct Told {
    pub engine: Engine,
    data: PathBuf,
    private: String,
    stop: watch::Sender<bool>,
    // Last: what runs on it ends with it.
    _runtime: tokio::runtime::Runtime,
}

impl Told {
    pub fn start(data: &Path, kinds: &[Kind]) -> Self {
        let policy = Policy {
            api_opt_in_own: true,
            time_zone: jiff::tz::TimeZone::UTC,
            purposes: Vec::new(),
            searched: Searched::default(),
            witnesses: Vec::new(),
            alerts: None,
            kinds_told: kinds.iter().copied().collect(),
        };
        let home = data.to_owned();
        let options = Options {
            business: None,
            keys: data.join("keys"),
            snapshot: None,
            policy,
            env: Arc::new(System),
            outbound: None,
            open_store: Box::new(move || Ok(Box::new(SqliteStore::open(&home)?) as _)),
        };
        let (engine, first) = Engine::open(options).expect("opens");
        if first {
            let key = engine.submit_blocking(Lane::Interactive, |ctx| keys::create(ctx, "crm", Role::Admin, "dk_1", "dt_1", Actor::Local));
            key.expect("created");
        }
        let app = App::new(engine.clone(), Config::default(), true, Arc::new(|_| Ok(())));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (stop, stopping) = watch::channel(false);
        let private = runtime.block_on(async {
            let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
            let private = format!("http://{}", listener.local_addr());
            app.private_base.store(Arc::new(private.clone()));
            let socket = data.join("control.sock");
            let _ = std::fs::remove_file(&socket);
            let control = tokio::net::UnixListener::bind(socket).expect("a socket");
            tokio::spawn(listener.serve(web::private(&app), stopping.clone()));
            tokio::spawn(serve_unix(control, web::control(&app), stopping));
            private
        });
        Self { engine, data: data.to_owned(), private, stop, _runtime: runtime }
    }

    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("authorization", "Bearer dt_1"), ("x-api-key", "dk_1")];
        send(method, &format!("{}{path}", self.private), body.to_string().as_bytes(), &headers)
    }

    fn import(&self, content: &str, columns: &[&str]) {
        let file = self.data.join("people.csv");
        std::fs::write(&file, content).expect("written");
        let columns: Vec<_> = columns.iter().flat_map(|column| ["--column", column]).collect();
        let output = run(&self.data, &[&["import", file.to_str().expect("UTF-8")], &columns[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_file(file).expect("removed");
    }

    pub fn known(&self, kind: Kind, value: &str) -> Option<Known> {
        let one = self.engine.named(&Identifier::from_value(kind, value).expect("valid").0);
        let known = self.engine.read(|read| match read.find(&one.key)? {
            Some(no) => clear::known(read, self.engine.shared(), no),
            None => Ok(None),
        });
        known.expect("reads")
    }

    fn text(&self, kind: Kind, value: &str) -> Option<String> {
        self.known(kind, value)?.text.map(|text| text.to_string())
    }

    /// Whether what it is has a row of its own.
    pub fn is_kept(&self, kind: Kind, value: &str) -> bool {
        let one = self.engine.named(&Identifier::from_value(kind, value).expect("valid").0);
        let kept = self.engine.read(|read| match read.find(&one.key)? {
            Some(no) => Ok(read.vault_get(Owner::Identifier(no))?.is_some()),
            None => Ok(false),
        });
        kept.expect("reads")
    }

    /// Everything is on disk, and nobody works on it any more, when this returns.
    pub fn stop(self) {
        self.stop.send_replace(true);
        self.engine.close();
    }
}

const PROFILE: &str = "/acme/campaign/profileAndServices/profile";

#[test]
fn what_identifiers_are_comes_through_every_door() {
    for told in [&[Kind::Email, Kind::CampaignPkey, Kind::DeviceId][..], &[]] {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Told::start(directory.path(), told);
        let made = |answer: Answer, status| {
            assert_eq!(answer.status, status, "{}", answer.text);
            answer.json()
        };
        let value = |kind: &str, value: &str| json!({ "kind": kind, "value": value });
        let request = json!({ "kind": "opt_out", "channel": "form",
            "identifiers": [value("email", " Request@Example.org "), value("phone", "(212) 555-2368"), value("cookie_id", "k1")] });
        made(server.send("POST", "/v1/requests", &request), 201);
        let digest = sha256("hashed@example.org");
        let request =
            json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "sha256": digest }], "purposes": ["sale"] });
        made(server.send("POST", "/v1/requests", &request), 201);
        let link = json!({ "identifiers": [value("email", "Link@example.org"), value("customer_id", "c1")] });
        made(server.send("POST", "/v1/identifiers/link", &link), 200);
        let signal = json!({ "gpc": true });
        for body in [
            json!({ "purpose": "sale", "identifiers": [value("device_id", "d1")], "context": signal }),
            json!({ "purpose": "sale", "subjects": [{ "identifiers": [value("device_id", "d2")], "context": signal }] }),
        ] {
            made(server.send("POST", "/v1/decisions", &body), 200);
        }
        let profile = made(server.send("POST", PROFILE, &json!({ "email": "Before@example.org", "mobilePhone": "(212) 555-2369" })), 201);
        let pkey = profile["PKey"].as_str().expect("a key").to_owned();
        assert_eq!(server.is_kept(Kind::Email, "before@example.org"), !told.is_empty());
        made(server.send("PATCH", &format!("{PROFILE}/{pkey}"), &json!({ "email": "After@example.org" })), 200);
        assert!(!server.is_kept(Kind::Email, "before@example.org"), "nobody holds it and nothing denies it");
        server
            .import("mail,hash,phone\nImport@example.org,,(212) 555-2370\n\"quo\"\"ted@example.org\",,\n", &["mail:email", "phone:phone"]);
        server.import(&format!("hash\n{}\n", sha256("listed@example.org")), &["hash:email:sha256"]);
        // Signals are recorded behind the answer.
        server.engine.submit_blocking(Lane::Bulk, |_| Ok(Ok(()))).expect("done");

        let is_told = !told.is_empty();
        for (kind, one, normal) in [
            (Kind::Email, "request@example.org", "request@example.org"),
            (Kind::Email, "link@example.org", "link@example.org"),
            (Kind::DeviceId, "d1", "d1"),
            (Kind::DeviceId, "d2", "d2"),
            (Kind::Email, "after@example.org", "after@example.org"),
            (Kind::CampaignPkey, &pkey, &pkey),
            (Kind::Email, "import@example.org", "import@example.org"),
            (Kind::Email, "quo\"ted@example.org", "quo\"ted@example.org"),
        ] {
            // Where nothing is kept the evidence of a request tells.
            let evidence = one == "request@example.org";
            assert_eq!(server.text(kind, one).as_deref(), (is_told || evidence).then_some(normal), "{kind} {one}");
            assert_eq!(server.is_kept(kind, one), is_told, "{kind} {one}");
        }
        for (one, evidence) in [("hashed@example.org", true), ("listed@example.org", false)] {
            let known = server.known(Kind::Email, one);
            assert_eq!(known.as_ref().map(|known| known.text.is_none()), (is_told || evidence).then_some(true), "{one}");
            assert_eq!(server.is_kept(Kind::Email, one), is_told, "{one}");
        }
        for (kind, one) in [
            (Kind::Phone, "+12125552368"),
            (Kind::Phone, "+12125552369"),
            (Kind::Phone, "+12125552370"),
            (Kind::CookieId, "k1"),
            (Kind::CustomerId, "c1"),
        ] {
            assert!(!server.is_kept(kind, one), "no destination takes {kind}");
        }
        assert_eq!(server.text(Kind::Phone, "+12125552368").as_deref(), Some("+12125552368"), "from the evidence");
        let output = run(directory.path(), &["status"]);
        assert!(output.status.success());
        server.stop();
    }
}

/// The SHA-256 of an e-mail address, as callers send it.
fn sha256(value: &str) -> String {
    let digest = Identifier::from_value(Kind::Email, value).expect("valid").0.digest;
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
