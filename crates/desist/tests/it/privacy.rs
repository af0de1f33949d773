//! Personal data goes into the vault, sealed, and nowhere else: recognisable values are sent through
//! every door, and then everything that is written anywhere is searched for them.

use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use desist_engine::core::identifier::Kind;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{self, Answer, DESIST, Server, send};
use crate::told::Told;

const EMAIL: &str = "Zebra.Canary@Example.org";
const PHONE: &str = "(212) 555-2368";
const CUSTOMER: &str = "CUST-Zebra-9f3";
const COOKIE: &str = "browser-Zebra-0815";
const NAME: &str = "Quetzalcoatl";
const TEXT: &str = "tangerine umbrella & 4711";

/// As given, and the normal form that is hashed.
const CANARIES: [(&str, &str); 8] = [
    (EMAIL, "zebra.canary@example.org"),
    (PHONE, "+12125552368"),
    ("2125552368", "2125552368"),
    (CUSTOMER, CUSTOMER),
    (COOKIE, COOKIE),
    (NAME, NAME),
    (TEXT, TEXT),
    ("tangerine umbrella", "tangerine umbrella"),
];

/// Values that look like the name of a member. A member that is not known is named in the error, so
/// these are not sent in the place of a name, and the first not in the place of a choice.
const WORDS: [&str; 3] = [NAME, CUSTOMER, COOKIE];

/// Everything that a value may look like when it got out: what it is, and its bytes.
fn forms() -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for (raw, normal) in CANARIES {
        let mut texts = vec![raw.to_owned(), raw.to_lowercase(), normal.to_owned()];
        texts.dedup();
        for text in texts {
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let digest = Sha256::digest(&text);
            for (form, bytes) in [
                ("plain", text.clone().into_bytes()),
                ("percent-encoded", encoded.replace("%2E", ".").replace("%2D", "-").into_bytes()),
                ("percent-encoded whole", encoded.into_bytes()),
                ("as a form field", text.replace(' ', "+").into_bytes()),
                ("in JSON", json!(text).to_string().trim_matches('"').as_bytes().to_vec()),
                ("base64", STANDARD_NO_PAD.encode(&text).into_bytes()),
                ("base64url", URL_SAFE_NO_PAD.encode(&text).into_bytes()),
                ("SHA-256", digest.to_vec()),
                ("SHA-256 in hex", hex(&digest).into_bytes()),
                ("SHA-256 in upper-case hex", hex(&digest).to_uppercase().into_bytes()),
                ("SHA-256 in base64", STANDARD_NO_PAD.encode(digest).into_bytes()),
                ("SHA-256 in base64url", URL_SAFE_NO_PAD.encode(digest).into_bytes()),
            ] {
                if forms.iter().all(|(_, known)| *known != bytes) {
                    forms.push((format!("{text:?} {form}"), bytes));
                }
            }
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window[0] == needle[0] && window == needle)
}

/// How many bytes of a form are looked up first; every form is longer.
const HEAD: usize = 8;

/// Looks for the canaries and collects what it finds.
#[derive(Default)]
struct Search {
    forms: std::collections::HashMap<[u8; HEAD], Vec<(String, Vec<u8>)>>,
    found: Vec<String>,
    searched: usize,
}

impl Search {
    fn new() -> Self {
        let mut search = Self::default();
        for (what, bytes) in forms() {
            search.also(&what, &bytes);
        }
        search
    }

    /// Also for this.
    fn also(&mut self, what: &str, bytes: &[u8]) {
        self.forms.entry(*bytes.first_chunk().expect("long enough")).or_default().push((what.to_owned(), bytes.to_vec()));
    }

    fn bytes(&mut self, place: &str, haystack: &[u8]) {
        self.searched += haystack.len();
        for (at, head) in haystack.windows(HEAD).enumerate() {
            let Some(forms) = self.forms.get(head) else { continue };
            for (what, _) in forms.iter().filter(|(_, form)| haystack[at..].starts_with(form)) {
                let found = format!("{place}: {what}");
                if !self.found.contains(&found) {
                    self.found.push(found);
                }
            }
        }
    }

    fn answer(&mut self, place: &str, answer: &Answer) {
        self.bytes(place, answer.text.as_bytes());
        self.bytes(&format!("{place}, headers"), format!("{:?}", answer.headers).as_bytes());
    }

    fn output(&mut self, place: &str, output: &Output) {
        self.bytes(&format!("{place}, stdout"), &output.stdout);
        self.bytes(&format!("{place}, stderr"), &output.stderr);
    }

    /// Every value of every table. Returns how many rows there are.
    fn tables(&mut self, data: &Path) -> usize {
        let database = database(data);
        let mut names = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
        let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(
            ["entry", "identifier", "vault", "request", "profile"].iter().all(|name| names.iter().any(|known| known == name)),
            "{names:?}"
        );
        assert!(names.iter().any(|name| name.starts_with("idempotency_")), "{names:?}");
        let mut count = 0;
        for table in names {
            let mut statement = database.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
            let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                count += 1;
                for (at, column) in columns.iter().enumerate() {
                    let bytes = match row.get_ref(at).unwrap() {
                        ValueRef::Null => continue,
                        ValueRef::Integer(number) => number.to_string().into_bytes(),
                        ValueRef::Real(number) => number.to_string().into_bytes(),
                        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
                    };
                    self.bytes(&format!("table {table}.{column}"), &bytes);
                }
            }
        }
        count
    }

    /// Every file below the directory, the secret ones too. Returns their names.
    fn files(&mut self, data: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                names.extend(self.files(&entry.path()));
            } else if kind.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let bytes = std::fs::read(entry.path()).unwrap();
                self.bytes(&format!("file {name}"), &bytes);
                names.push(name);
            }
        }
        names
    }

    fn nothing(&self) {
        assert!(self.found.is_empty(), "{:#?}", self.found);
    }
}

fn database(data: &Path) -> Connection {
    Connection::open_with_flags(data.join("desist.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

#[test]
fn the_search_finds_what_is_there() {
    for (what, bytes) in forms() {
        let mut search = Search::new();
        search.bytes("planted", &[b"\xff...", &bytes[..], b"...\0"].concat());
        assert!(search.found.iter().any(|found| *found == format!("planted: {what}")), "{what}: {:?}", search.found);
    }
    let mut search = Search::new();
    search.bytes("planted", b"zebra canary example.org 212 quetzal +1212");
    search.nothing();
    // And in a table.
    let directory = tempfile::tempdir().unwrap();
    let database = Connection::open(directory.path().join("desist.db")).unwrap();
    database.execute_batch("CREATE TABLE entry (a); CREATE TABLE identifier (a); CREATE TABLE vault (a); CREATE TABLE request (a); CREATE TABLE profile (a, b BLOB); CREATE TABLE idempotency_1 (a);").unwrap();
    database.execute("INSERT INTO profile VALUES (7, ?)", [Sha256::digest("+12125552368").to_vec()]).unwrap();
    drop(database);
    let mut search = Search::new();
    assert_eq!(search.tables(directory.path()), 1);
    assert_eq!(search.found, ["table profile.b: \"+12125552368\" SHA-256"]);
}

/// Bodies with a canary in every place where a program could put it, right or wrong.
fn bodies(base: &Value) -> Vec<Vec<u8>> {
    let mut bodies = vec![base.to_string().into_bytes()];
    let mut pointers = Vec::new();
    support::pointers(base, "", &mut pointers);
    for (raw, _) in CANARIES {
        for pointer in &pointers {
            let mut body = base.clone();
            *body.pointer_mut(pointer).unwrap() = json!(raw);
            bodies.push(body.to_string().into_bytes());
            if !WORDS.contains(&raw) {
                *body.pointer_mut(pointer).unwrap() = json!({ raw: raw });
                bodies.push(body.to_string().into_bytes());
            }
        }
        if !WORDS.contains(&raw) {
            let mut body = base.clone();
            body[raw] = json!(raw);
            bodies.push(body.to_string().into_bytes());
        }
        bodies.push(format!("{base}{raw}").into_bytes());
        bodies.push(json!(raw).to_string().into_bytes());
        bodies.push(raw.as_bytes().to_vec());
        bodies.push([raw.as_bytes(), b"\xff"].concat());
    }
    bodies
}

const CAMPAIGN: &str = "/acme/campaign/profileAndServices/profile/";

#[test]
fn what_people_send_is_nowhere_but_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("desist.toml"), "[[sites]]\nid = \"shop\"\nurl = \"https://shop.example.com\"\n").unwrap();
    let log = directory.path().join("log");
    let mut command = Command::new(DESIST);
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::spawn(command, &data, &["--log", "trace"]);
    let mut search = Search::new();

    // The right way first: everything that the product is for.
    let person = json!([
        { "kind": "email", "value": EMAIL }, { "kind": "phone", "value": PHONE },
        { "kind": "customer_id", "value": CUSTOMER }, { "kind": "cookie_id", "value": COOKIE },
    ]);
    let request = json!({
        "kind": "opt_out", "channel": "agent", "identifiers": person, "jurisdiction": "us-ca", "site": "shop",
        "received_at": "2026-03-02T18:00:00Z", "purposes": ["sale"], "agent": { "name": NAME, "permission": TEXT },
    });
    let made = server.send(
        "POST",
        "/v1/requests",
        request.to_string().as_bytes(),
        &[("idempotency-key", EMAIL), ("user-agent", NAME), ("sec-gpc", TEXT), ("x-forwarded-for", PHONE)],
    );
    assert_eq!(made.status, 201, "{}", made.text);
    search.answer("a request", &made);
    let made = made.json();
    let record = json!({
        "email": EMAIL, "mobilePhone": PHONE, "externalId": CUSTOMER, "firstName": NAME, "lastName": "Zebra", "ccpaOptOut": true,
        "location": { "city": TEXT, "address1": NAME },
    });
    let profile = server.post(CAMPAIGN, &record);
    assert_eq!(profile.status, 201, "{}", profile.text);
    let profile = profile.json();
    let pkey = profile["PKey"].as_str().unwrap();
    let one = format!("{CAMPAIGN}{pkey}");
    assert_eq!(
        server.send("PATCH", &one, json!({ "salutation": "tangerine umbrella", "ccpaOptOut": false }).to_string().as_bytes(), &[]).status,
        200
    );
    let mut control = Search::new();
    let shown = server.send("GET", &one, b"", &[]);
    control.bytes("GET", shown.text.as_bytes());
    for (raw, _) in [CANARIES[0], CANARIES[1], CANARIES[3], CANARIES[5], CANARIES[6], CANARIES[7]] {
        assert!(control.found.contains(&format!("GET: {raw:?} plain")), "the owner's own answer shows {raw}: {:?}", control.found);
    }
    let id = made["id"].as_str().unwrap();

    // Then every endpoint with every body that is nearly right.
    let confirm = format!("/v1/requests/{id}/confirm");
    let people = json!({ "identifiers": person });
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for (path, base) in [
        ("/v1/requests", request),
        ("/v1/requests", json!({ "kind": "opt_in", "channel": "form", "identifiers": person })),
        (&confirm, json!({ "confirm_token": EMAIL })),
        (
            "/v1/decisions",
            json!({ "purpose": "sale", "identifiers": person, "context": { "gpc": true, "jurisdiction": "us-ca", "age_band": "18_plus" } }),
        ),
        ("/v1/decisions", json!({ "purpose": "sale", "subjects": [{ "identifiers": person, "context": { "destination": NAME } }] })),
        ("/v1/identifiers/link", people.clone()),
        ("/v1/identifiers/unlink", people.clone()),
        ("/v1/subjects/lookup", people),
        ("/v1/keys", json!({ "name": "\u{7}", "role": "writer" })),
    ] {
        for body in bodies(&base) {
            // The name of a key is the operator's own word and is kept in clear.
            if path == "/v1/keys"
                && serde_json::from_slice::<Value>(&body).is_ok_and(|body| body["role"] == "writer" && body["name"] != "\u{7}")
            {
                continue;
            }
            let answer = server.send("POST", path, &body, &[]);
            *statuses.entry(answer.status).or_default() += 1;
            search.answer(&format!("POST {path} {}", String::from_utf8_lossy(&body)), &answer);
        }
    }
    let mut wrong: Vec<Vec<u8>> = Vec::new();
    for (raw, _) in CANARIES {
        for field in ["age", "birthDate", "ccpaOptOut", "blackList", "PKey", "location", "subscriptions", "timeZone", "emailFormat", raw] {
            // A key, or a word in place of a choice, is repeated as the contract says.
            let is_repeated = match field {
                "PKey" => WORDS.contains(&raw) || raw == "2125552368",
                "timeZone" | "emailFormat" => [NAME, "2125552368"].contains(&raw),
                _ => field == raw && WORDS.contains(&raw),
            };
            if !is_repeated {
                wrong.push(json!({ field: raw }).to_string().into_bytes());
            }
            if !WORDS.contains(&raw) {
                wrong.push(json!({ field: { raw: raw } }).to_string().into_bytes());
                wrong.push(json!({ "location": { raw: raw } }).to_string().into_bytes());
            }
        }
        wrong.push(json!({ "email": format!("{raw} and more") }).to_string().into_bytes());
        wrong.push(json!({ "firstName": raw.repeat(20) }).to_string().into_bytes());
        wrong.push([b"{\"lastName\":\"", raw.as_bytes(), b"\xff\"}"].concat());
        wrong.push(format!("{{\"lastName\":\"{raw}\",\"lastName\":\"{raw}\"}}").into_bytes());
        wrong.push(format!("{{\"lastName\":\"{raw}").into_bytes());
        wrong.push(raw.as_bytes().to_vec());
    }
    for body in wrong {
        for (method, path) in [("POST", CAMPAIGN), ("PATCH", one.as_str())] {
            let answer = server.send(method, path, &body, &[]);
            *statuses.entry(answer.status).or_default() += 1;
            search.answer(&format!("{method} {path} {}", String::from_utf8_lossy(&body)), &answer);
        }
    }
    // Addresses and headers with what does not belong there.
    for (raw, _) in CANARIES {
        let encoded = percent_encoding::utf8_percent_encode(raw, percent_encoding::NON_ALPHANUMERIC).to_string();
        for path in [
            format!("/v1/requests/{encoded}"),
            format!("/v1/keys/{encoded}"),
            format!("/v1/requests/{encoded}/confirm"),
            format!("/{encoded}"),
            format!("/v1/decisions?email={encoded}"),
            format!("/{encoded}/campaign/profileAndServices/profile"),
            format!("/acme/campaign/{encoded}"),
            format!("{CAMPAIGN}{encoded}"),
            // Lists repeat what was asked in their links; refusals never do.
            format!("{CAMPAIGN}byNothing?email={encoded}"),
            format!("{CAMPAIGN}byText%2FbyEmail?text={encoded}"),
            format!("{CAMPAIGN}byText?text=x&filterType={encoded}"),
            format!("{CAMPAIGN}?_order={encoded}"),
            format!("{CAMPAIGN}?_lineCount={encoded}x"),
            format!("{CAMPAIGN}?_lineStart={encoded}"),
            format!("/acme/campaign/profileAndServicesExt/profile/byCcpaOptOut?ccpaOptOut_parameter={encoded}"),
            format!("/acme/campaign/privacy/privacyTool/{encoded}"),
            format!("/ims/token/v3?grant_type={encoded}&client_id={encoded}&client_secret={encoded}"),
            format!("{one}?email={encoded}/.."),
            format!("/metrics?{encoded}"),
            format!("/connection?{encoded}"),
        ] {
            for method in ["GET", "POST", "DELETE", "CANARY"] {
                if method == "GET" && path.starts_with(&one) || method == "DELETE" && path.starts_with(&one) {
                    continue;
                }
                let answer = server.send(method, &path, b"", &[("user-agent", raw), ("referer", raw), ("cookie", raw), ("x-canary", raw)]);
                *statuses.entry(answer.status).or_default() += 1;
                search.answer(&format!("{method} {path}"), &answer);
            }
        }
        for headers in [
            [("authorization", raw)],
            [("x-api-key", raw)],
            [("idempotency-key", raw)],
            [("content-type", raw)],
            [("x-forwarded-for", raw)],
            [("x-forwarded-host", raw)],
        ] {
            for (method, path) in
                [("GET", "/v1/keys"), ("POST", "/v1/requests"), ("PATCH", one.as_str()), ("GET", "/nowhere"), ("POST", CAMPAIGN)]
            {
                search.answer(&format!("{method} {path} {headers:?}"), &server.send(method, path, b"{", &headers));
            }
        }
        let answer = send("GET", &format!("{}/{encoded}?{encoded}", server.public), b"", &[("user-agent", raw)]);
        search.answer("the public listener", &answer);
    }
    assert!(
        statuses.values().sum::<usize>() > 1500
            && [200, 201, 400, 401, 404, 405, 422, 500].iter().filter(|status| statuses.contains_key(status)).count() >= 6,
        "{statuses:?}"
    );

    // The command line, beside the server.
    let code = made["receipt_code"].as_str().unwrap();
    let email = format!("email:{EMAIL}");
    for arguments in [
        &["opt-out", &email, "--channel", "agent", "--agent", NAME][..],
        &["opt-out", &format!("email:{TEXT}")],
        &["opt-out", &format!("{NAME}:{TEXT}")],
        &["opt-out", TEXT],
        &["opt-out", &email, "--channel", NAME],
        &["decide", &email],
        &["decide", &email, "--purpose", NAME],
        &["decide", &format!("phone:{TEXT}")],
        &["trace", code],
        &["status"],
        &["status", "--json"],
        &["check"],
        &["check", "--json"],
        &["key", "list"],
    ] {
        // What is no choice at all is repeated by the parser of the command line, to the one who typed it.
        search.output(&format!("desist {}", arguments[0]), &server.run(arguments));
    }
    let check = server.run(&["check"]);
    let found = String::from_utf8(check.stdout).unwrap();
    // A site with no public address is for trying out; the store has to be clean.
    assert!(found.lines().count() == 1 && found.contains("server.public_url"), "{found}");

    search.also("the profile's key", pkey.as_bytes());
    search.also("the token", server.token.as_bytes());
    search.also("the API key", server.api_key.as_bytes());
    let metrics = server.send("GET", "/metrics", b"", &[]);
    search.answer("/metrics", &metrics);
    assert!(metrics.text.contains("desist_log_entries"));
    // While it runs: the log of the database is there, and holds the newest pages.
    assert!(search.tables(&data) > 50, "the tables are not empty");
    let names: Vec<String> =
        std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with("desist.db")) {
        search.bytes(name, &std::fs::read(data.join(name)).unwrap());
    }
    assert!(
        names.contains(&"desist.db-wal".to_owned()) && std::fs::metadata(data.join("desist.db-wal")).unwrap().len() > 10_000,
        "{names:?}"
    );

    let rows = |owner: &str| {
        database(&data).query_row("SELECT count(*) FROM vault WHERE owner_kind = ?", [owner], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(rows("profile") >= 1 && rows("request") >= 1, "the data was taken and is sealed");

    assert!(server.stop().success());
    let mut admin = Search { forms: search.forms.clone(), ..Search::default() };
    std::fs::rename(data.join("first-admin.json"), directory.path().join("first-admin.json")).unwrap();
    admin.bytes("first-admin.json", &std::fs::read(directory.path().join("first-admin.json")).unwrap());
    assert_eq!(admin.found.len(), 2, "the one place for the first key and token: {:?}", admin.found);
    let names = search.files(&data);
    assert!(["desist.db", "index.snapshot"].iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
    let written = std::fs::read_to_string(&log).unwrap();
    search.bytes("the log", written.as_bytes());
    for template in ["/v1/requests/{id}/confirm", "/{org}/campaign/{*rest}"] {
        assert!(written.contains(template), "the log is written, with route templates");
    }
    assert!(search.searched > 1_000_000, "{}", search.searched);
    search.nothing();
}

#[test]
fn a_deleted_profile_leaves_no_trace_of_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let server = Server::start_in(data, &[]);
    let made = server.post(
        CAMPAIGN,
        &json!({ "email": EMAIL, "mobilePhone": PHONE, "firstName": NAME, "location": { "city": TEXT }, "ccpaOptOut": true }),
    );
    assert_eq!(made.status, 201);
    let made = made.json();
    let rows = || -> Vec<(Vec<u8>, Vec<u8>)> {
        let database = database(data);
        let mut statement = database.prepare("SELECT wrapped_key, ciphertext FROM vault WHERE owner_kind = 'profile'").unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let before = rows();
    let [(wrapped_key, ciphertext)] = &before[..] else { panic!("one profile, one row") };
    let mut search = Search::new();
    search.also("its sealed key", wrapped_key);
    search.also("its sealed data", ciphertext);
    let control = std::fs::read(data.join("desist.db-wal")).unwrap();
    assert!(holds(&control, wrapped_key) && holds(&control, &ciphertext[..64]), "the search can find sealed rows");
    assert_eq!(server.send("DELETE", &format!("{CAMPAIGN}{}", made["PKey"].as_str().unwrap()), b"{}", &[]).status, 200);
    assert!(rows().is_empty(), "its row is gone");
    assert_eq!(server.decide("email", EMAIL).0, "deny");
    assert!(server.stop().success());
    search.tables_and_files(data);
    search.nothing();
}

#[test]
fn what_destinations_are_told_of_is_sealed_and_goes_with_the_profile_unless_it_is_denied() {
    for opt_out in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let server = Told::start(data, &[Kind::Email, Kind::Phone, Kind::CampaignPkey]);
        let record = json!({ "email": EMAIL, "mobilePhone": PHONE, "firstName": NAME, "location": { "city": TEXT } });
        let made = server.send("POST", CAMPAIGN, &record);
        assert_eq!(made.status, 201, "{}", made.text);
        let one = format!("{CAMPAIGN}{}", made.json()["PKey"].as_str().unwrap());
        if opt_out {
            assert_eq!(server.send("PATCH", &one, &json!({ "ccpaOptOut": true })).status, 200);
        }
        let rows = || -> Vec<(Vec<u8>, Vec<u8>)> {
            let database = database(data);
            let mut statement = database.prepare("SELECT wrapped_key, ciphertext FROM vault WHERE owner_kind = 'identifier'").unwrap();
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let before = rows();
        assert_eq!(before.len(), 3, "the e-mail, the telephone number and the key");
        let mut control = Search::default();
        for bytes in before.iter().flat_map(|(key, value)| [key, value]) {
            control.also("a sealed row", bytes);
        }
        control.bytes("the log of the database", &std::fs::read(data.join("desist.db-wal")).unwrap());
        assert_eq!(control.found.len(), 1, "the search can find sealed rows");
        assert_eq!(server.send("DELETE", &one, &json!({})).status, 200);
        let mut search = Search::new();
        if opt_out {
            assert_eq!(rows(), before, "whoever is denied has to be told, and told again");
            let known = server.known(Kind::Email, EMAIL).and_then(|known| known.text).map(|text| text.to_string());
            assert_eq!(known.as_deref(), Some("zebra.canary@example.org"));
        } else {
            assert!(rows().is_empty() && !server.is_kept(Kind::Email, EMAIL), "the rows are gone");
            for bytes in before.iter().flat_map(|(key, value)| [key, value]) {
                search.also("a sealed row", bytes);
            }
        }
        server.stop();
        search.tables_and_files(data);
        search.nothing();
    }
}

impl Search {
    fn tables_and_files(&mut self, data: &Path) {
        let names = self.files(data);
        assert!(names.iter().any(|name| name == "desist.db"), "{names:?}");
    }
}
