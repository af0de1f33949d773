//! The Campaign API from outside: the documentation's own requests, and whose word counts.

use std::process::Command;
use std::time::{Duration, Instant};

use desist::web::campaign::profile;
use desist::web::campaign::schema::{Access, Type};
use serde_json::{Value, json};

use crate::support::{Answer, Server, run, scale, send};

const ROOTS: [&str; 3] = ["profilesAndServices", "profileAndServices", "profileAndServicesExt"];
/// A key that has the form of one, and nobody's.
const GONE: &str = "@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The collection; with a key behind it one profile.
const PROFILE: &str = "/acme/campaign/profileAndServices/profile/";

/// A server with this `desist.toml`.
fn configured(toml: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("desist.toml"), toml).unwrap();
    let server = Server::start_in(directory.path(), &[]);
    (directory, server)
}

fn create(server: &Server, record: &Value) -> Value {
    let answer = server.post(PROFILE, record);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

fn pkey(profile: &Value) -> &str {
    profile["PKey"].as_str().expect("a key")
}

fn get(server: &Server, pkey: &str) -> Answer {
    server.send("GET", &format!("{PROFILE}{pkey}"), b"", &[])
}

fn opted_out(server: &Server, pkey: &str) -> bool {
    get(server, pkey).json()["ccpaOptOut"].as_bool().expect("a boolean")
}

fn patch(server: &Server, pkey: &str, change: &Value) -> Answer {
    server.send("PATCH", &format!("{PROFILE}{pkey}"), change.to_string().as_bytes(), &[])
}

/// What the answer says of a refused `ccpaOptOut: false`.
fn refused(answer: &Answer) -> Option<&str> {
    answer.headers.get("desist-opt-in-refused").map(|value| value.to_str().expect("a word"))
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.send("GET", "/metrics", b"", &[]).text;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name} is not in {text}"));
    line.parse().expect("a number")
}

fn entries(server: &Server) -> u64 {
    metric(server, "desist_log_entries")
}

fn opt_ins_refused(server: &Server) -> u64 {
    metric(server, "desist_opt_ins_refused_total")
}

fn denied(server: &Server, kind: &str, value: &str) -> bool {
    server.decide(kind, value).0 == "deny"
}

/// A choice that came from the consumer.
fn consumer_opts_out(server: &Server, identifiers: &Value) {
    let answer = server.post("/v1/requests", &json!({ "kind": "opt_out", "channel": "form", "identifiers": identifiers }));
    assert_eq!(answer.status, 201, "{}", answer.text);
}

/// A record as a system that keeps its own copy sends it back: all that may be written.
fn synced(mut record: Value) -> Value {
    let members = record.as_object_mut().expect("an object");
    members.retain(|name, _| profile::schema([]).fields().iter().any(|field| field.name == *name && field.access != Access::Server));
    members.insert("ccpaOptOut".to_owned(), false.into());
    record
}

/// The documentation's request, as it stands there, with only the host, the key and the tokens filled in.
fn curl(server: &Server, arguments: &[&str]) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*"]).args(arguments);
    for header in [
        format!("Authorization: Bearer {}", server.token),
        "Cache-Control: no-cache".to_owned(),
        format!("X-Api-Key: {}", server.api_key),
        "Content-Type: application/json;charset=utf-8".to_owned(),
    ] {
        command.arg("-H").arg(header);
    }
    let output = command.args(["-w", "\n%{http_code} %{content_type}"]).output().expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, tail) = text.rsplit_once('\n').unwrap();
    let (status, content_type) = tail.split_once(' ').unwrap();
    assert_eq!(content_type, "application/json;charset=utf-8");
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[test]
fn the_documentations_requests_work_as_they_stand() {
    let server = Server::start();
    for (number, root) in ROOTS.into_iter().enumerate() {
        let base = format!("{}/acme/campaign/{root}/profile", server.private);
        // "Sample POST request to mark a profile for CCPA opt-out."
        let email = format!("jdoe{number}@mail.com");
        for (slash, opt_out) in [("/", "true"), ("", "false")] {
            let data = format!(
                "{{\n \"firstName\": \"John\",\n \"lastName\": \"Doe\",\n \"email\": \"{slash_less}{email}\",\n \"ccpaOptOut\": {opt_out}\n}}",
                slash_less = if slash.is_empty() { "x" } else { "" }
            );
            let (status, made) = curl(&server, &["-X", "POST", &format!("{base}{slash}"), "-d", &data]);
            assert_eq!(status, 201, "{made}");
            assert_eq!((&made["firstName"], &made["lastName"]), (&json!("John"), &json!("Doe")));
            assert_eq!(made["ccpaOptOut"].to_string(), opt_out);
            let pkey = pkey(&made).to_owned();
            assert_eq!(made["href"], format!("{base}/{pkey}"), "absolute, and under the caller's root");
            assert!(!pkey.contains("jdoe"));

            let encoded = pkey.replace('@', "%40");
            for url in [format!("{base}/{pkey}"), format!("{base}/{pkey}/"), format!("{base}/{encoded}"), format!("{base}/{encoded}/")] {
                // "Sample GET request to retrieve a profile's CCPA opt-out status."
                let (status, shown) = curl(&server, &["-X", "GET", &url]);
                assert_eq!((status, &shown), (200, &made), "{url}");
                // "Sample PATCH request to update a profile for CCPA opt-out."
                let (status, answer) = curl(&server, &["-X", "PATCH", &url, "-d", "{\n \"ccpaOptOut\": true\n}"]);
                assert_eq!((status, &answer), (200, &json!({ "PKey": pkey, "href": format!("{base}/{pkey}") })), "{url}");
                let (status, shown) = curl(&server, &["-X", "GET", &url]);
                assert_eq!((status, &shown["ccpaOptOut"]), (200, &json!(true)));
                if opt_out == "false" {
                    let (status, _) = curl(&server, &["-X", "PATCH", &url, "-d", "{ \"ccpaOptOut\": false }"]);
                    assert_eq!((status, opted_out(&server, &pkey)), (200, false), "its own opt-out ends");
                    assert!(!denied(&server, "email", &format!("x{email}")));
                    let mut shown = get(&server, &pkey).json();
                    assert_ne!(shown["ccpaOptOutLastModified"], "");
                    // Times and root apart it is as it was.
                    for name in ["ccpaOptOutLastModified", "lastModified", "href", "subscriptions"] {
                        shown[name] = made[name].clone();
                    }
                    assert_eq!(shown, made);
                    // A fresh one for the next URL.
                    break;
                }
            }
        }
        assert!(denied(&server, "email", &email));
    }
    // All roots, and doubled slashes, show one profile.
    let made = create(&server, &json!({ "lastName": "Twice" }));
    let key = pkey(&made);
    for root in ROOTS {
        let answer = server.send("GET", &format!("/acme/campaign//{root}//profile.json//{key}?page=1"), b"", &[]);
        assert_eq!((answer.status, &answer.json()["lastName"]), (200, &json!("Twice")), "{root}");
    }
}

#[test]
fn hrefs_start_with_the_configured_address() {
    let (directory, server) = configured("");
    std::fs::write(directory.path().join("desist.toml"), "[server]\nprivate_url = \"https://optout.example.com/x\"\n").unwrap();
    let reload = server.run(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    for root in ROOTS {
        let made = server.post(&format!("/acme/campaign/{root}/profile/"), &json!({ "email": "rosa@example.org" })).json();
        let href = format!("https://optout.example.com/x/acme/campaign/{root}/profile/{}", pkey(&made));
        assert_eq!((&made["href"], &made["subscriptions"]["href"]), (&json!(href), &json!(format!("{href}/subscriptions/"))));
        let answer = server.send("PATCH", &format!("/acme/campaign/{root}/profile/{}", pkey(&made)), b"{}", &[]);
        assert_eq!(answer.json(), json!({ "PKey": pkey(&made), "href": href }));
    }
}

/// One row of the contract's table of errors.
struct Row {
    what: &'static str,
    method: &'static str,
    path: String,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    adobe: u16,
    strict: u16,
    /// What the body is or holds.
    says: Value,
    pointer: Option<&'static str>,
}

fn row(what: &'static str, method: &'static str, path: &str, body: &[u8], status: u16, says: Value) -> Row {
    Row {
        what,
        method,
        path: path.to_owned(),
        body: body.to_vec(),
        headers: vec![],
        adobe: status,
        strict: if status == 500 { 400 } else { status },
        says,
        pointer: None,
    }
}

impl Row {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    fn at(self, pointer: &'static str) -> Self {
        Self { pointer: Some(pointer), ..self }
    }
}

#[test]
fn every_row_of_the_contracts_errors() {
    const GENERAL: &str = "RST-360011 An error has occurred - please contact your administrator.\n";
    let gateway = |code: &str, message: &str| json!({ "error_code": code, "message": message });
    for compat in ["adobe", "strict"] {
        let (_directory, server) = configured(&format!("[campaign]\ncompat = \"{compat}\"\n"));
        let made = create(&server, &json!({ "lastName": "Vega", "email": "rosa@example.org" }));
        let other = create(&server, &json!({ "lastName": "Other" }));
        let one = format!("{PROFILE}{}", pkey(&made));
        let reader = server.run(&["key", "create", "--name", "reader", "--role", "reader", "--json"]);
        let reader: Value = serde_json::from_slice(&reader.stdout).expect("a key");
        let (reader_key, reader_token) = (reader["api_key"].as_str().unwrap(), format!("Bearer {}", reader["token"].as_str().unwrap()));
        let before = (get(&server, pkey(&made)).text, entries(&server));
        let rows = vec![
            row("token wrong", "GET", &one, b"", 401, gateway("401013", "Oauth token is not valid")).with("authorization", "Bearer wrong"),
            row("token of another key", "GET", &one, b"", 401, gateway("401013", "Oauth token is not valid"))
                .with("authorization", &reader_token),
            row("no token", "GET", &one, b"", 401, gateway("401010", "Oauth token is missing")).with("authorization", ""),
            row("no bearer", "GET", &one, b"", 401, gateway("401010", "Oauth token is missing")).with("authorization", "Basic eA=="),
            row("key wrong", "GET", &one, b"", 403, gateway("403003", "Api Key is invalid")).with("x-api-key", "wrong"),
            row("key wrong, and token", "GET", &one, b"", 403, gateway("403003", "Api Key is invalid"))
                .with("x-api-key", "wrong")
                .with("authorization", "Bearer wrong"),
            row("no key", "GET", &one, b"", 403, gateway("403000", "Api Key is required")).with("x-api-key", "-"),
            row("reader writes", "PATCH", &one, br#"{"ccpaOptOut":true}"#, 403, gateway("403023", "Profile is not valid"))
                .with("x-api-key", reader_key)
                .with("authorization", &reader_token),
            row("reader deletes", "DELETE", &one, b"{}", 403, gateway("403023", "Profile is not valid"))
                .with("x-api-key", reader_key)
                .with("authorization", &reader_token),
            row("reader creates", "POST", PROFILE, b"{}", 403, gateway("403023", "Profile is not valid"))
                .with("x-api-key", reader_key)
                .with("authorization", &reader_token),
            row(
                "other organization",
                "GET",
                &one.replace("/acme/", "/acme-mkt-stage/"),
                b"",
                403,
                gateway("403023", "Profile is not valid"),
            ),
            row(
                "other organization writes",
                "POST",
                &PROFILE.replace("/acme/", "/globex/"),
                br#"{"ccpaOptOut":true}"#,
                403,
                gateway("403023", "Profile is not valid"),
            ),
            row("key unreadable", "GET", &format!("{PROFILE}@bogus"), b"", 404, json!("Unable to decrypt PKey. (PKey=@bogus)")),
            row(
                "key unreadable, PATCH",
                "PATCH",
                &format!("{PROFILE}%40bogus"),
                br#"{"ccpaOptOut":true}"#,
                404,
                json!("Unable to decrypt PKey. (PKey=@bogus)"),
            ),
            row("key in body unreadable", "PATCH", &one, br#"{"PKey":"@bogus"}"#, 404, json!("Unable to decrypt PKey. (PKey=@bogus)"))
                .at("PKey"),
            row(
                "gone, GET",
                "GET",
                &format!("{PROFILE}{GONE}"),
                b"",
                404,
                json!(format!("Unable to find document with path '/profile/{GONE}'")),
            ),
            row(
                "gone, PATCH",
                "PATCH",
                &format!("{PROFILE}{GONE}"),
                br#"{"ccpaOptOut":true}"#,
                404,
                json!(format!("Unable to find document with path '/profile/{GONE}'")),
            ),
            row(
                "gone, DELETE",
                "DELETE",
                &format!("{PROFILE}{GONE}"),
                b"{}",
                404,
                json!(format!("Unable to find document with path '/profile/{GONE}'")),
            ),
            row(
                "keys differ",
                "PATCH",
                &one,
                json!({ "PKey": pkey(&other), "lastName": "X" }).to_string().as_bytes(),
                500,
                json!(format!("{GENERAL}RST-360012 The PKey of the body is not the PKey of the URL.")),
            )
            .at("PKey"),
            row(
                "unknown attribute",
                "PATCH",
                &one,
                br#"{"lastName":"X","shoeSize":44}"#,
                500,
                json!(format!("{GENERAL}'shoeSize' property is not valid for the 'profile' resource.")),
            )
            .at("shoeSize"),
            row(
                "unknown attribute, POST",
                "POST",
                PROFILE,
                br#"{"ccpaOptOut":true,"shoeSize":44}"#,
                500,
                json!(format!("{GENERAL}'shoeSize' property is not valid for the 'profile' resource.")),
            )
            .at("shoeSize"),
            row(
                "read-only",
                "PATCH",
                &one,
                br#"{"lastName":"X","age":3}"#,
                500,
                json!(format!(
                    "{GENERAL}Cannot update the 'age' property that is read-only\n'age' property is not valid for the 'profile' resource."
                )),
            )
            .at("age"),
            row(
                "not in enumeration",
                "PATCH",
                &one,
                br#"{"lastName":"X","gender":"other"}"#,
                500,
                json!(format!("{GENERAL}The value 'other' is not in the enumeration of 'gender'.")),
            )
            .at("gender"),
            row(
                "wrong type",
                "PATCH",
                &one,
                br#"{"lastName":"X","ccpaOptOut":"true"}"#,
                500,
                json!("BAS-010040 Cannot convert 'ccpaOptOut' (type text) to boolean."),
            )
            .at("ccpaOptOut"),
            row(
                "too long",
                "PATCH",
                &one,
                json!({ "ccpaOptOut": true, "firstName": "x".repeat(31) }).to_string().as_bytes(),
                400,
                json!(format!("{GENERAL}'firstName' is longer than 30 characters.")),
            )
            .at("firstName"),
            row(
                "no such resource",
                "GET",
                "/acme/campaign/profileAndServices/profil",
                b"",
                404,
                json!(format!("{GENERAL}There is no such resource.")),
            ),
            row(
                "no such filter",
                "GET",
                &format!("{PROFILE}byShoeSize?size=44"),
                b"",
                404,
                json!(format!("{GENERAL}There is no such resource.")),
            ),
            row(
                "custom resource",
                "GET",
                "/acme/campaign/customResources/cusShoe",
                b"",
                404,
                json!(format!("{GENERAL}There is no such resource.")),
            ),
            row("empty body", "PATCH", &one, b"", 400, json!(format!("{GENERAL}The body is not JSON (line 1, column 0)."))),
            row("not JSON", "PATCH", &one, b"ccpaOptOut=true", 400, json!(format!("{GENERAL}The body is not JSON (line 1, column 1)."))),
            row("not an object", "POST", PROFILE, b"[]", 400, json!(format!("{GENERAL}The body is not a JSON object."))),
            row(
                "too large",
                "POST",
                PROFILE,
                &[b' '; (1 << 20) + 1],
                413,
                json!(format!("{GENERAL}The body is larger than 1048576 bytes.")),
            ),
            row(
                "method of the collection",
                "PATCH",
                PROFILE,
                br#"{"ccpaOptOut":true}"#,
                405,
                json!(format!("{GENERAL}The resource takes GET, POST alone.")),
            ),
            row(
                "method of a profile",
                "POST",
                &one,
                br#"{"ccpaOptOut":true}"#,
                405,
                json!(format!("{GENERAL}The resource takes GET, PATCH, DELETE alone.")),
            ),
            row(
                "PUT",
                "PUT",
                &one,
                br#"{"ccpaOptOut":true}"#,
                405,
                json!(format!("{GENERAL}The resource takes GET, PATCH, DELETE alone.")),
            ),
            row(
                "two readings of a URL",
                "GET",
                "/acme/campaign/profileAndServices/x/%2E%2E/profile",
                b"",
                400,
                json!(format!("{GENERAL}The URL has a dot segment.")),
            ),
        ];
        for Row { what, method, path, body, headers, adobe, strict, says, pointer } in rows {
            let status = if compat == "adobe" { adobe } else { strict };
            let token = format!("Bearer {}", server.token);
            let mut all = vec![("authorization", token.as_str()), ("x-api-key", server.api_key.as_str())];
            for (name, value) in &headers {
                all.retain(|(known, _)| known != name);
                if !["", "-"].contains(&value.as_str()) {
                    all.push((name, value));
                }
            }
            let answer = send(method, &format!("{}{path}", server.private), &body, &all);
            assert_eq!((answer.status, answer.json()), (status, says), "{compat}: {what}");
            assert_eq!(answer.headers["content-type"], "application/json;charset=utf-8", "{what}");
            let at = answer.headers.get("desist-pointer").map(|value| value.to_str().unwrap());
            assert_eq!(at, pointer, "{what}");
            let allow = answer.headers.get("allow").map(|value| format!("The resource takes {} alone.", value.to_str().unwrap()));
            assert_eq!(allow, (status == 405).then(|| answer.json().as_str().unwrap()[GENERAL.len()..].to_owned()), "{what}");
            assert_eq!((get(&server, pkey(&made)).text, entries(&server)), before, "{what} changes nothing");
        }
        assert!(!denied(&server, "email", "rosa@example.org"));
        let shown = send("GET", &format!("{}{one}", server.private), b"", &[("authorization", &reader_token), ("x-api-key", reader_key)]);
        assert_eq!(shown.status, 200, "a reader reads");
        let deleted = server.send("DELETE", &one, b"{}", &[]);
        assert_eq!((deleted.status, deleted.json()), (200, json!({})));
        assert_eq!((get(&server, pkey(&made)).status, server.send("DELETE", &one, b"{}", &[]).status), (404, 404));
    }
}

#[test]
fn too_many_requests_say_when_to_come_back() {
    let (_directory, server) = configured("[limits]\nrequests_per_minute_per_key = 3\n");
    let answers: Vec<Answer> = (0..5).map(|_| get(&server, GONE)).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [404, 404, 404, 429, 429]);
    assert_eq!(answers[3].json(), json!({ "error_code": "429050", "message": "Too many requests" }));
    assert_eq!(answers[3].headers["retry-after"], "1");
    let answer = server.post("/v1/decisions", &json!({}));
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("too_many_requests")), "one limit for both APIs");
    assert_eq!(answer.headers["retry-after"], "1");
}

/// A body with one member, nested if the name has a dot; `raw` stands for the value.
fn member(name: &str, raw: &[u8], twice: bool) -> Vec<u8> {
    let (outer, key) = name.split_once('.').map_or((None, name), |(outer, key)| (Some(outer), key));
    let member = [b"\"", key.as_bytes(), b"\":", raw].concat();
    let inner = [b"{", &vec![member; 1 + usize::from(twice)].join(&b","[..])[..], b"}"].concat();
    outer.map_or(inner.clone(), |outer| [b"{\"", outer.as_bytes(), b"\":", &inner, b"}"].concat())
}

#[test]
fn every_field_refuses_what_it_cannot_hold_and_names_itself() {
    let server = Server::start();
    let made = create(&server, &json!({ "lastName": "Vega" }));
    let one = format!("{PROFILE}{}", pkey(&made));
    let before = (get(&server, pkey(&made)).text, entries(&server));
    let mut checked = 0;
    for field in profile::schema([]).fields() {
        let (name, ty, access) = (field.name.as_str(), &field.ty, field.access);
        let mut cases = vec![
            ("null", member(name, b"null", false), name),
            ("array", member(name, b"[1]", false), name),
            ("twice", member(name, b"\"\"", true), name),
            ("bad UTF-8", member(name, b"\"a\xff\"", false), name),
        ];
        let unknown = if let Some((outer, _)) = name.split_once('.') { format!("{outer}.shoeSize") } else { "shoeSize".to_owned() };
        if let Type::Text(max) | Type::Name(max) = ty
            && access == Access::Caller
        {
            cases.push(("long", member(name, format!("\"{}\"", "x".repeat(max + 1)).as_bytes(), false), name));
        }
        cases.push(("unknown sibling", member(&unknown, b"1", false), &unknown));
        cases.push(("wrong type", member(name, if matches!(ty, Type::Flag) { b"\"true\"" } else { b"7" }, false), name));
        for (what, body, pointer) in cases {
            for (method, path) in [("POST", PROFILE), ("PATCH", one.as_str())] {
                let answer = server.send(method, path, &body, &[]);
                assert!(matches!(answer.status, 400 | 500), "{name}, {what}: {} {}", answer.status, answer.text);
                assert_eq!(
                    answer.headers.get("desist-pointer").map(|value| value.to_str().unwrap()),
                    Some(pointer),
                    "{name}, {what}: {}",
                    answer.text
                );
                assert!(answer.json().as_str().is_some_and(|text| text.contains(pointer)), "{name}, {what}: {}", answer.text);
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "{checked}");
    assert_eq!((get(&server, pkey(&made)).text, entries(&server)), before);
    let status = server.run(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((status["entries"].as_u64(), &status["profiles"]), (Some(before.1), &json!(1)));
}

#[test]
fn a_nightly_sync_of_whole_records_ends_no_opt_out() {
    for compat in ["adobe", "strict"] {
        let (_directory, server) = configured(&format!("[campaign]\ncompat = \"{compat}\"\n"));
        let person = |name: &str| json!({ "firstName": name, "email": format!("{name}@example.org"), "externalId": format!("C-{name}") });
        let records: Vec<Value> = ["by-api", "by-email", "by-account", "by-device", "by-staff", "nobody"]
            .iter()
            .map(|name| create(&server, &person(name)))
            .collect();
        let key = |at: usize| pkey(&records[at]);
        assert_eq!(patch(&server, key(0), &json!({ "ccpaOptOut": true })).status, 200);
        consumer_opts_out(&server, &json!([{ "kind": "email", "value": "BY-EMAIL@example.org" }]));
        consumer_opts_out(&server, &json!([{ "kind": "customer_id", "value": "C-by-account" }]));
        consumer_opts_out(&server, &json!([{ "kind": "device_id", "value": "d-1" }]));
        let linked = server.post(
            "/v1/identifiers/link",
            &json!({ "identifiers": [{ "kind": "campaign_pkey", "value": key(3) }, { "kind": "device_id", "value": "d-1" }] }),
        );
        assert_eq!(linked.status, 200, "{}", linked.text);
        let staff = server.post(
            "/v1/requests",
            &json!({ "kind": "opt_out", "channel": "operator", "identifiers": [{ "kind": "email", "value": "by-staff@example.org" }] }),
        );
        assert_eq!(staff.status, 201);

        for night in 0..2 {
            for (at, record) in records.iter().enumerate() {
                let refused_before = opt_ins_refused(&server);
                let shown = get(&server, key(at));
                let is_out = at < 5;
                assert_eq!(shown.json()["ccpaOptOut"], is_out, "{at}");
                // The copy of the day before, or what was read just now.
                let mut sent = synced(if night == 0 { record.clone() } else { shown.json() });
                let answer = patch(&server, key(at), &sent);
                let expected = if is_out && compat == "strict" { 409 } else { 200 };
                assert_eq!((answer.status, refused(&answer)), (expected, is_out.then_some("whole_record")), "{at}");
                assert!(answer.headers.get("desist-receipt").is_none());
                assert_eq!(opt_ins_refused(&server) - refused_before, u64::from(is_out), "{at}");
                assert_eq!(get(&server, key(at)).text, shown.text, "{at}: nothing of the profile changed");
                let name = record["firstName"].as_str().unwrap();
                for (kind, value) in
                    [("email", format!("{name}@example.org")), ("customer_id", format!("C-{name}")), ("campaign_pkey", key(at).to_owned())]
                {
                    assert_eq!(denied(&server, kind, &value), is_out, "{at}: {kind}");
                }
                // The rest of the record is taken, unless the answer says that nothing was.
                sent["lastName"] = json!(format!("Night {night}"));
                let answer = patch(&server, key(at), &sent);
                let after = get(&server, key(at)).json();
                if answer.status == 409 {
                    assert_eq!(after["lastName"], "", "{at}: 409 changes nothing at all");
                } else {
                    assert_eq!(
                        (after["lastName"].as_str(), after["ccpaOptOut"].as_bool()),
                        (Some(&*format!("Night {night}")), Some(is_out)),
                        "{at}"
                    );
                }
            }
        }
        assert!(denied(&server, "device_id", "d-1"));
        assert!(server.run(&["check"]).status.success());
    }
}

#[test]
fn a_lone_false_ends_only_what_the_api_did_itself() {
    let server = Server::start();
    let no = json!({ "ccpaOptOut": false });
    let yes = json!({ "ccpaOptOut": true });
    let one = create(&server, &json!({ "email": "own@example.org" }));
    let own = pkey(&one);
    let before = entries(&server);
    assert_eq!(patch(&server, own, &no).status, 200);
    assert_eq!(entries(&server), before, "nothing to end, nothing said");

    let answer = patch(&server, own, &yes);
    assert!(answer.headers.get("desist-receipt").is_some_and(|code| code.len() == 26), "{:?}", answer.headers);
    assert!(denied(&server, "email", "own@example.org") && opted_out(&server, own));
    let answer = patch(&server, own, &yes);
    assert!(answer.status == 200 && answer.headers.get("desist-receipt").is_none(), "the same again is no second request");
    let answer = patch(&server, own, &no);
    assert_eq!((answer.status, refused(&answer), opted_out(&server, own)), (200, None, false));
    assert!(!denied(&server, "email", "own@example.org") && !denied(&server, "campaign_pkey", own));

    // With the consumer's own word beside it, it stays, in whatever order they came.
    let two = create(&server, &json!({ "email": "both@example.org", "ccpaOptOut": true }));
    consumer_opts_out(&server, &json!([{ "kind": "email", "value": "both@example.org" }]));
    let three = create(&server, &json!({ "email": "both2@example.org" }));
    consumer_opts_out(&server, &json!([{ "kind": "email", "value": "both2@example.org" }]));
    assert_eq!(patch(&server, pkey(&three), &yes).status, 200);
    for (profile, email) in [(&two, "both@example.org"), (&three, "both2@example.org")] {
        let answer = patch(&server, pkey(profile), &no);
        assert_eq!((answer.status, refused(&answer)), (200, Some("not_own")));
        assert!(opted_out(&server, pkey(profile)) && denied(&server, "email", email));
    }
    assert_eq!(opt_ins_refused(&server), 2);

    // Another profile's opt-out through a shared e-mail is not its own.
    let left = create(&server, &json!({ "email": "twins@example.org", "lastName": "Left" }));
    let right = create(&server, &json!({ "email": "Twins@Example.org", "lastName": "Right" }));
    assert_eq!(patch(&server, pkey(&left), &yes).status, 200);
    assert!(opted_out(&server, pkey(&left)) && opted_out(&server, pkey(&right)), "profiles that share an e-mail share its opt-out");
    for twin in [&right, &left] {
        let answer = patch(&server, pkey(twin), &no);
        assert_eq!((answer.status, refused(&answer)), (200, Some("not_own")));
        assert!(opted_out(&server, pkey(&left)) && opted_out(&server, pkey(&right)));
    }
    assert!(denied(&server, "email", "twins@example.org"));
}

#[test]
fn the_policy_can_refuse_every_false() {
    for (toml, status) in
        [("[policy]\napi_opt_in = \"refuse\"\n", 200), ("[policy]\napi_opt_in = \"refuse\"\n[campaign]\ncompat = \"strict\"\n", 409)]
    {
        let (_directory, server) = configured(toml);
        let made = create(&server, &json!({ "email": "own@example.org", "ccpaOptOut": true }));
        let answer = patch(&server, pkey(&made), &json!({ "ccpaOptOut": false }));
        assert_eq!((answer.status, refused(&answer)), (status, Some("policy")), "{}", answer.text);
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("application/json"));
        assert!(opted_out(&server, pkey(&made)) && denied(&server, "email", "own@example.org"));
        assert_eq!(opt_ins_refused(&server), 1);
    }
}

#[test]
fn strict_answers_409_where_nothing_ended() {
    let (_directory, server) = configured("[campaign]\ncompat = \"strict\"\n");
    let made = create(&server, &json!({ "email": "rosa@example.org" }));
    consumer_opts_out(&server, &json!([{ "kind": "email", "value": "rosa@example.org" }]));
    let answer = patch(&server, pkey(&made), &json!({ "ccpaOptOut": false }));
    assert_eq!(
        (answer.status, refused(&answer), answer.json()),
        (409, Some("not_own"), json!("the opt-out stays: only the consumer can end it"))
    );
    assert!(opted_out(&server, pkey(&made)));
    // A new address that is opted out makes the profile so; the record's `false` does not fit any more.
    let other = create(&server, &json!({ "email": "ivo@example.org" }));
    let answer = patch(&server, pkey(&other), &json!({ "email": "rosa@example.org", "ccpaOptOut": false }));
    assert_eq!((answer.status, refused(&answer)), (409, Some("whole_record")));
    assert_eq!(get(&server, pkey(&other)).json()["email"], "ivo@example.org", "409 changes nothing");
    assert_eq!(patch(&server, pkey(&other), &json!({ "email": "rosa@example.org" })).status, 200);
    assert!(opted_out(&server, pkey(&other)));
}

#[test]
fn a_deleted_profile_leaves_its_choice_behind() {
    let server = Server::start();
    let made = create(&server, &json!({ "email": "rosa@example.org", "ccpaOptOut": true }));
    assert_eq!(server.send("DELETE", &format!("{PROFILE}{}", pkey(&made)), b"{}", &[]).status, 200);
    assert!(denied(&server, "email", "rosa@example.org") && denied(&server, "campaign_pkey", pkey(&made)));
    for opt_out in [json!({}), json!({ "ccpaOptOut": false })] {
        let mut record = json!({ "email": "Rosa@example.org" });
        record.as_object_mut().unwrap().extend(opt_out.as_object().unwrap().clone());
        let before = opt_ins_refused(&server);
        let again = create(&server, &record);
        assert_eq!(again["ccpaOptOut"], true);
        assert!(opted_out(&server, pkey(&again)) && denied(&server, "email", "rosa@example.org"));
        assert_eq!(opt_ins_refused(&server), before, "a POST is never an act");
        let answer = patch(&server, pkey(&again), &json!({ "ccpaOptOut": false }));
        assert_eq!((refused(&answer), opted_out(&server, pkey(&again))), (Some("not_own"), true));
    }
}

#[test]
fn a_post_with_false_is_no_act() {
    let server = Server::start();
    let plain = entries(&server);
    create(&server, &json!({ "email": "one@example.org" }));
    let silent = entries(&server) - plain;
    let made = create(&server, &json!({ "email": "two@example.org", "ccpaOptOut": false }));
    assert_eq!(entries(&server) - plain, 2 * silent, "it says no more than leaving it out");
    assert_eq!((&made["ccpaOptOut"], &made["ccpaOptOutLastModified"]), (&json!(false), &json!("")));
    assert_eq!(server.decide("email", "two@example.org"), ("allow".into(), "no_record".into()));
}

#[test]
fn a_changed_address_keeps_both_denied() {
    let server = Server::start();
    let made = create(&server, &json!({ "email": "old@example.org", "ccpaOptOut": true }));
    let key = pkey(&made);
    assert_eq!(patch(&server, key, &json!({ "email": "new@example.org" })).status, 200);
    assert!(denied(&server, "email", "old@example.org") && denied(&server, "email", "new@example.org") && opted_out(&server, key));
    assert_eq!(patch(&server, key, &json!({ "email": "" })).status, 200);
    assert!(denied(&server, "email", "old@example.org") && denied(&server, "email", "new@example.org") && opted_out(&server, key));

    // The other way round: an address that was opted out takes its choice to the profile and leaves it there.
    consumer_opts_out(&server, &json!([{ "kind": "email", "value": "mine@example.org" }]));
    let other = create(&server, &json!({ "email": "mine@example.org" }));
    assert_eq!(other["ccpaOptOut"], true);
    assert_eq!(patch(&server, pkey(&other), &json!({ "email": "next@example.org", "ccpaOptOut": false })).status, 200);
    assert!(
        denied(&server, "email", "mine@example.org") && denied(&server, "email", "next@example.org") && opted_out(&server, pkey(&other))
    );
}

#[test]
fn a_revoked_key_ends_within_a_second() {
    let server = Server::start();
    let made = create(&server, &json!({ "lastName": "Vega" }));
    let key = server.post("/v1/keys", &json!({ "name": "crm", "role": "writer" })).json();
    let token = format!("Bearer {}", key["token"].as_str().unwrap());
    let headers = [("authorization", token.as_str()), ("x-api-key", key["api_key"].as_str().unwrap())];
    let url = format!("{}{PROFILE}{}", server.private, pkey(&made));
    assert_eq!(send("PATCH", &url, b"{}", &headers).status, 200);
    let revoked = server.send("DELETE", &format!("/v1/keys/{}", key["no"]), b"", &[]);
    assert_eq!(revoked.status, 204);
    let since = Instant::now();
    while send("PATCH", &url, b"{}", &headers).status == 200 {
        assert!(since.elapsed() < Duration::from_secs(1), "a revoked key still writes");
    }
    let answer = send("PATCH", &url, br#"{"ccpaOptOut":true}"#, &headers);
    assert_eq!((answer.status, &answer.json()["error_code"]), (403, &json!("403003")));
    assert!(!opted_out(&server, pkey(&made)));
}

#[test]
fn a_key_names_its_own_profile_whatever_is_linked_to_it() {
    let server = Server::start();
    let first = create(&server, &json!({ "lastName": "First" }));
    let second = create(&server, &json!({ "lastName": "Second" }));
    let both =
        json!({ "identifiers": [{ "kind": "campaign_pkey", "value": pkey(&first) }, { "kind": "campaign_pkey", "value": pkey(&second) }] });
    assert_eq!(server.post("/v1/identifiers/link", &both).status, 200);
    assert_eq!(get(&server, pkey(&first)).json()["lastName"], "First");
    assert_eq!(get(&server, pkey(&second)).json()["lastName"], "Second");
    assert_eq!(patch(&server, pkey(&second), &json!({ "lastName": "Changed" })).status, 200);
    assert_eq!(
        (get(&server, pkey(&first)).json()["lastName"].as_str(), get(&server, pkey(&second)).json()["lastName"].as_str()),
        (Some("First"), Some("Changed"))
    );
    assert_eq!(server.send("DELETE", &format!("{PROFILE}{}", pkey(&second)), b"{}", &[]).status, 200);
    assert_eq!((get(&server, pkey(&second)).status, get(&server, pkey(&first)).status), (404, 200));
    assert_eq!(patch(&server, pkey(&second), &json!({ "lastName": "Ghost" })).status, 404);
    assert_eq!(server.send("DELETE", &format!("{PROFILE}{}", pkey(&second)), b"{}", &[]).status, 404);
    assert_eq!(get(&server, pkey(&first)).json()["lastName"], "First");
}

#[test]
fn a_phone_that_everybody_has_makes_nobody_one_person() {
    let people = (200 * scale()).min(5_000);
    let (_directory, server) = configured("");
    let keys: Vec<String> = (0..people)
        .map(|n| {
            pkey(&create(&server, &json!({ "email": format!("p{n}@example.org"), "phone": "+12125552368", "lastName": format!("No {n}") })))
                .to_owned()
        })
        .collect();
    let opted = people / 2;
    assert_eq!(patch(&server, &keys[opted], &json!({ "ccpaOptOut": true })).status, 200);
    consumer_opts_out(&server, &json!([{ "kind": "phone", "value": "(212) 555-2368" }]));
    let subjects: Vec<Value> = (0..people).map(|n| json!({ "identifiers": [{ "kind": "email", "value": format!("p{n}@example.org") }, { "kind": "campaign_pkey", "value": keys[n] }] })).collect();
    let decisions = server.post("/v1/decisions", &json!({ "purpose": "sale", "subjects": subjects })).json();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(decisions["decisions"][n]["decision"], if n == opted { "deny" } else { "allow" }, "{n}");
        let shown = get(&server, key).json();
        assert_eq!((shown["lastName"].as_str(), shown["ccpaOptOut"].as_bool()), (Some(&*format!("No {n}")), Some(n == opted)));
    }
    assert_eq!(server.decide("phone", "+12125552368"), ("deny".into(), "opted_out".into()), "its own line denies it");
    let named = json!({ "purpose": "sale", "identifiers": [{ "kind": "email", "value": "p1@example.org" }, { "kind": "phone", "value": "2125552368" }] });
    assert_eq!(server.post("/v1/decisions", &named).json()["decision"], "deny", "and every decision that names it");
    let known = server.post("/v1/subjects/lookup", &json!({ "identifiers": [{ "kind": "phone", "value": "+12125552368" }] })).json();
    assert_eq!(known["identifiers"][0]["shared"], true);
    let status: Value = serde_json::from_slice(&server.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(
        (&status["profiles"], &status["unreached_total"]),
        (&json!(people), &json!(1)),
        "an operator looks whom else the phone's owner means"
    );
    assert!(run(&server.data, &["check"]).status.success());
}
