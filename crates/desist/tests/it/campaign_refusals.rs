//! The Campaign API over plain HTTP: what is refused, and who is let in.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::campaign_http::{
    CAMPAIGN, GENERAL, GONE, PROFILES, ROOTS, SERVICES, call, configured, content, key, made, profile, service, shown, start, subscribed,
    whole,
};
use crate::campaign_more::{PRIVACY, call_as, key_of, names, privacy};
use crate::support::{Answer, Server, send};

/// What it is, the method, the path, the body; the status where it is Adobe's, the text, and the member that it is about.
type Row = (&'static str, &'static str, String, String, u16, String, Option<&'static str>);

#[test]
fn every_refusal_about_lists_services_and_privacy_requests() {
    for compat in ["adobe", "strict"] {
        let (_directory, server) = configured(&format!("[campaign]\ncompat = \"{compat}\"\n"));
        let pkey = profile(&server, &json!({ "email": "rosa@example.org" }));
        let news = service(&server, &json!({ "label": "News", "name": "NEWS" }));
        service(&server, &json!({ "name": "OTHER" }));
        let asked = json!({ "name": "r1", "namespaceName": "email", "reconciliationValue": "rosa@example.org", "type": "access", "regulation": "ccpa" });
        made(&server, "/privacy/privacyTool", &asked);
        let with = |name: &str, value: Value| {
            let mut body = asked.clone();
            body["name"] = json!("r2");
            body[name] = value;
            body.to_string()
        };
        let without = |name: &str| {
            let mut body = asked.clone();
            body["name"] = json!("r2");
            body.as_object_mut().unwrap().remove(name);
            body.to_string()
        };
        let (one, service) = (format!("{PROFILES}/{pkey}"), format!("{SERVICES}/{news}"));
        let (of_one, of_service) = (format!("{one}/subscriptions"), format!("{service}/subscriptions"));
        let tool = "/privacy/privacyTool".to_owned();
        let no_document = |resource: &str| format!("Unable to find document with path '/{resource}/{GONE}'");
        let unreadable = "Unable to decrypt PKey. (PKey=@bogus)".to_owned();
        let general = |text: &str| format!("{GENERAL}{text}");
        let rows: Vec<Row> = vec![
            (
                "service's name taken",
                "POST",
                SERVICES.into(),
                r#"{"name":"NEWS"}"#.into(),
                500,
                "PGS-220000 Another record has this 'name', which must be unique.".into(),
                Some("name"),
            ),
            (
                "service's name taken, PATCH",
                "PATCH",
                service.clone(),
                r#"{"name":"OTHER"}"#.into(),
                500,
                "PGS-220000 Another record has this 'name', which must be unique.".into(),
                Some("name"),
            ),
            (
                "service without its name",
                "PATCH",
                service.clone(),
                r#"{"name":""}"#.into(),
                400,
                general("'name' must be a name of its own."),
                Some("name"),
            ),
            (
                "unknown attribute of a service",
                "POST",
                SERVICES.into(),
                r#"{"email":"x@y.zz"}"#.into(),
                500,
                general("'email' property is not valid for the 'service' resource."),
                Some("email"),
            ),
            (
                "read-only attribute of a service",
                "PATCH",
                service.clone(),
                r#"{"builtIn":true}"#.into(),
                500,
                general(
                    "Cannot update the 'builtIn' property that is read-only\n'builtIn' property is not valid for the 'service' resource.",
                ),
                Some("builtIn"),
            ),
            (
                "value of a service not in its enumeration",
                "POST",
                SERVICES.into(),
                r#"{"messageType":"fax"}"#.into(),
                500,
                general("The value 'fax' is not in the enumeration of 'messageType'."),
                Some("messageType"),
            ),
            (
                "wrong type in a service",
                "POST",
                SERVICES.into(),
                r#"{"isTemplate":1}"#.into(),
                500,
                "BAS-010040 Cannot convert 'isTemplate' (type number) to boolean.".into(),
                Some("isTemplate"),
            ),
            (
                "long label",
                "POST",
                SERVICES.into(),
                json!({ "label": "x".repeat(129) }).to_string(),
                400,
                general("'label' is longer than 128 characters."),
                Some("label"),
            ),
            (
                "service's keys differ",
                "PATCH",
                service.clone(),
                json!({ "PKey": GONE }).to_string(),
                500,
                general("RST-360012 The PKey of the body is not the PKey of the URL."),
                Some("PKey"),
            ),
            ("service's key unreadable", "GET", format!("{SERVICES}/@bogus"), String::new(), 404, unreadable.clone(), None),
            ("service gone", "GET", format!("{SERVICES}/{GONE}"), String::new(), 404, no_document("service"), None),
            ("service gone, PATCH", "PATCH", format!("{SERVICES}/{GONE}"), "{}".into(), 404, no_document("service"), None),
            (
                "a profile's key is no service's",
                "GET",
                format!("{SERVICES}/{pkey}"),
                String::new(),
                404,
                format!("Unable to find document with path '/service/{pkey}'"),
                None,
            ),
            (
                "a service's key is no profile's",
                "GET",
                format!("{PROFILES}/{news}"),
                String::new(),
                404,
                format!("Unable to find document with path '/profile/{news}'"),
                None,
            ),
            ("service not JSON", "POST", SERVICES.into(), "label".into(), 400, general("The body is not JSON (line 1, column 1)."), None),
            ("service not an object", "POST", SERVICES.into(), "[]".into(), 400, general("The body is not a JSON object."), None),
            (
                "member twice",
                "POST",
                SERVICES.into(),
                r#"{"label":"a","label":"b"}"#.into(),
                400,
                general("The member 'label' occurs more than once."),
                Some("label"),
            ),
            (
                "subscriptions of nobody",
                "GET",
                format!("{PROFILES}/{GONE}/subscriptions"),
                String::new(),
                404,
                no_document("profile"),
                None,
            ),
            (
                "subscriptions to nothing",
                "GET",
                format!("{SERVICES}/{GONE}/subscriptions"),
                String::new(),
                404,
                no_document("service"),
                None,
            ),
            (
                "number of subscriptions of nobody",
                "GET",
                format!("{PROFILES}/{GONE}/subscriptions/_count"),
                String::new(),
                404,
                no_document("profile"),
                None,
            ),
            (
                "nobody subscribes",
                "POST",
                format!("{PROFILES}/{GONE}/subscriptions"),
                json!({ "service": { "PKey": news } }).to_string(),
                404,
                no_document("profile"),
                None,
            ),
            (
                "nobody subscribes, from the service",
                "POST",
                of_service.clone(),
                json!({ "subscriber": { "PKey": GONE } }).to_string(),
                404,
                no_document("profile"),
                None,
            ),
            (
                "subscribes to nothing",
                "POST",
                of_one.clone(),
                json!({ "service": { "PKey": GONE } }).to_string(),
                404,
                no_document("service"),
                None,
            ),
            (
                "key of a service in the body unreadable",
                "POST",
                of_one.clone(),
                r#"{"service":{"PKey":"@bogus"}}"#.into(),
                404,
                unreadable.clone(),
                Some("PKey"),
            ),
            (
                "no service in the body",
                "POST",
                of_one.clone(),
                "{}".into(),
                500,
                general("'service.PKey' is missing."),
                Some("service.PKey"),
            ),
            (
                "no subscriber in the body",
                "POST",
                of_service.clone(),
                r#"{"subscriber":{}}"#.into(),
                500,
                general("'subscriber.PKey' is missing."),
                Some("subscriber.PKey"),
            ),
            (
                "the other side in the body",
                "POST",
                of_one.clone(),
                json!({ "subscriber": { "PKey": pkey } }).to_string(),
                500,
                general("'subscriber' property is not valid for the 'subscription' resource."),
                Some("subscriber"),
            ),
            ("subscription gone", "GET", format!("{of_service}/{GONE}"), String::new(), 404, no_document("subscription"), None),
            ("subscription gone, DELETE", "DELETE", format!("{of_service}/{GONE}"), String::new(), 404, no_document("subscription"), None),
            ("subscription unreadable", "DELETE", format!("{of_one}/@bogus"), String::new(), 404, unreadable.clone(), None),
            ("history of nobody", "GET", format!("/profileAndServices/history/{GONE}"), String::new(), 404, no_document("profile"), None),
            ("unit", "GET", format!("/profileAndServicesExt/orgUnitBase/{GONE}"), String::new(), 404, no_document("orgUnitBase"), None),
            (
                "unknown resource type",
                "GET",
                "/profileAndServices/resourceType/cusShoe".into(),
                String::new(),
                404,
                general("There is no such resource."),
                None,
            ),
            (
                "filters of nothing",
                "GET",
                format!("/profileAndServices/resourceType/{GONE}/filters/"),
                String::new(),
                404,
                general("There is no such resource."),
                None,
            ),
            (
                "privacy request's name taken",
                "POST",
                tool.clone(),
                asked.to_string(),
                500,
                "PGS-220000 Another record has this 'name', which must be unique.".into(),
                Some("name"),
            ),
            ("privacy request without a name", "POST", tool.clone(), without("name"), 500, general("'name' is missing."), Some("name")),
            (
                "without a value",
                "POST",
                tool.clone(),
                without("reconciliationValue"),
                500,
                general("'reconciliationValue' is missing."),
                Some("reconciliationValue"),
            ),
            (
                "without a namespace",
                "POST",
                tool.clone(),
                without("namespaceName"),
                500,
                general("'namespace' is missing."),
                Some("namespace"),
            ),
            ("without a type", "POST", tool.clone(), without("type"), 500, general("'type' is missing."), Some("type")),
            (
                "without a regulation",
                "POST",
                tool.clone(),
                without("regulation"),
                500,
                general("'regulation' is missing."),
                Some("regulation"),
            ),
            (
                "unknown namespace",
                "POST",
                tool.clone(),
                with("namespaceName", json!("loyalty")),
                400,
                general("'namespaceName' must be 'email' or 'mobilePhone'."),
                Some("namespaceName"),
            ),
            (
                "no address",
                "POST",
                tool.clone(),
                with("reconciliationValue", json!("rosa")),
                400,
                general("'reconciliationValue' must be an e-mail address or a telephone number, as its namespace says."),
                Some("reconciliationValue"),
            ),
            (
                "unknown type",
                "POST",
                tool.clone(),
                with("type", json!("forget")),
                400,
                general("'type' must be 'access' or 'delete'."),
                Some("type"),
            ),
            (
                "bad regulation",
                "POST",
                tool.clone(),
                with("regulation", json!("ccpa, gdpr")),
                400,
                general("'regulation' must be the short name of a law such as 'ccpa' or 'gdpr'."),
                Some("regulation"),
            ),
            ("name is no text", "POST", tool.clone(), with("name", json!(7)), 400, general("'name' must be a text."), Some("name")),
            (
                "long label of a request",
                "POST",
                tool.clone(),
                with("label", json!("x".repeat(256))),
                400,
                general("'label' is longer than 255 characters."),
                Some("label"),
            ),
            (
                "unknown member",
                "POST",
                tool.clone(),
                with("shoeSize", json!(44)),
                500,
                general("'shoeSize' property is not valid for the 'privacyTool' resource."),
                Some("shoeSize"),
            ),
            ("not an object", "POST", tool.clone(), "[]".into(), 400, general("The body is not a JSON object."), None),
            ("not JSON", "POST", tool.clone(), String::new(), 400, general("The body is not JSON (line 1, column 0)."), None),
            ("privacy request unreadable", "GET", format!("{tool}/@bogus"), String::new(), 404, unreadable, None),
            ("privacy request gone", "GET", format!("{tool}/{GONE}"), String::new(), 404, no_document("privacyTool"), None),
            ("its data gone", "POST", format!("{tool}/{GONE}/data"), r#"{"name":"r1"}"#.into(), 404, no_document("privacyTool"), None),
        ];
        let state = |server: &Server| {
            let count = |path: &str| shown(server, path)["count"].as_u64().unwrap();
            (
                count(&format!("{PROFILES}/_count")),
                count(&format!("{SERVICES}/_count")),
                count("/privacy/privacyTool/_count"),
                shown(server, &of_one),
                shown(server, &service),
            )
        };
        let before = state(&server);
        for (what, method, path, body, adobe, says, pointer) in rows {
            let status = if compat == "strict" && adobe == 500 { 400 } else { adobe };
            let answer = call(&server, method, &path, &body);
            assert_eq!((answer.status, answer.json()), (status, json!(says)), "{compat}: {what}");
            assert_eq!(answer.headers.get("desist-pointer").map(|at| at.to_str().unwrap()), pointer, "{compat}: {what}");
            assert_eq!(state(&server), before, "{compat}: {what} changes nothing");
        }
        let large = call(&server, "POST", SERVICES, &" ".repeat((1 << 20) + 1));
        assert_eq!((large.status, large.json()), (413, json!(general("The body is larger than 1048576 bytes."))));
    }
}

/// `POST /ims/token/v3`.
fn ims(server: &Server, query: &str, form: &str) -> Answer {
    let url = format!("{}/ims/token/v3{query}", server.private);
    send("POST", &url, form.as_bytes(), &[("content-type", "application/x-www-form-urlencoded")])
}

#[test]
fn a_key_is_exchanged_for_a_token_of_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), "");
    let pkey = profile(&server, &json!({ "lastName": "Vega" }));
    let one = format!("{PROFILES}/{pkey}");
    let (no, writer, secret) = key_of(&server, "writer");
    let (_, reader, readers) = key_of(&server, "reader");
    let credentials = format!("client_id={writer}&client_secret={secret}");
    let form = format!("grant_type=client_credentials&{credentials}&scope=openid,AdobeID,campaign_sdk");
    let mut tokens = BTreeSet::new();
    for (query, body) in [
        (String::new(), form.clone()),
        (format!("?{form}"), String::new()),
        (format!("?client_id={writer}"), format!("grant_type=client_credentials&client_secret={secret}")),
        ("?grant_type=password&x=1".to_owned(), form.clone()),
    ] {
        let answer = ims(&server, &query, &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("application/json"));
        let answer = answer.json();
        assert_eq!(names(&answer), BTreeSet::from(["access_token", "token_type", "expires_in"]));
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(86_399)), "seconds");
        tokens.insert(answer["access_token"].as_str().unwrap().to_owned());
    }
    assert_eq!(tokens.len(), 4);
    let token = tokens.first().unwrap().clone();
    assert!(!token.contains(&secret) && !token.contains(&writer));

    let grant = |grant: &str| form.replace("client_credentials", grant);
    let with = |id: &str, secret: &str| format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let refused = [
        (grant("authorization_code"), "unsupported_grant_type"),
        (grant(""), "unsupported_grant_type"),
        (credentials.clone(), "unsupported_grant_type"),
        (String::new(), "unsupported_grant_type"),
        (format!("grant_type=client_credentials&client_id={writer}"), "invalid_request"),
        (format!("grant_type=client_credentials&client_secret={secret}"), "invalid_request"),
        (format!("{form}&client_secret={secret}"), "invalid_request"),
        ("grant_type=%ZZ".to_owned(), "invalid_request"),
        (with(&writer, "wrong"), "invalid_client"),
        (with(&writer, ""), "invalid_client"),
        (with("wrong", &secret), "invalid_client"),
        (with("wrong", "wrong"), "invalid_client"),
        (with(&writer, &readers), "invalid_client"),
        (with(&reader, &secret), "invalid_client"),
        (with(&writer, &token), "invalid_client"),
        (with(&writer, &server.token), "invalid_client"),
    ];
    let mut texts = BTreeSet::new();
    for (form, error) in refused {
        for (query, body) in [(String::new(), form.clone()), (format!("?{form}"), String::new())] {
            let answer = ims(&server, &query, &body);
            assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{form}");
            assert!(answer.json()["error_description"].is_string() && !answer.text.contains(&secret), "{}", answer.text);
            if error == "invalid_client" {
                texts.insert(answer.text);
            }
        }
    }
    assert_eq!(texts.len(), 1, "nobody learns which of the two was right: {texts:?}");
    assert_eq!(send("GET", &format!("{}/ims/token/v3?{form}", server.private), b"", &[]).status, 405);
    assert_eq!(ims(&server, "", &format!("{form}&x={}", "x".repeat(1 << 20))).status, 413);
    assert_eq!(send("POST", &format!("{}/ims/token/v3", server.public), form.as_bytes(), &[]).status, 404, "not in public");

    // The Campaign API takes it, as the key it was given for, and nothing else does.
    for token in &tokens {
        assert_eq!(call_as(&server, &writer, token, "GET", &one, "").status, 200);
    }
    assert_eq!(call_as(&server, &writer, &token, "PATCH", &one, r#"{"lastName":"Ruiz"}"#).status, 200);
    let bearer = format!("Bearer {token}");
    let only_here = [("authorization", bearer.as_str()), ("x-api-key", writer.as_str())];
    let decision = json!({ "purpose": "sale", "identifiers": [{ "kind": "email", "value": "rosa@example.org" }] }).to_string();
    for (method, path, body) in
        [("POST", "/v1/decisions", decision.as_str()), ("POST", "/v1/requests", "{}"), ("GET", "/v1/keys", ""), ("POST", "/v1/keys", "{}")]
    {
        let answer = send(method, &format!("{}{path}", server.private), body.as_bytes(), &only_here);
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("token_invalid")), "{path}");
    }
    let read = ims(&server, "", &with(&reader, &readers)).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(call_as(&server, &reader, &read, "GET", &one, "").status, 200);
    assert_eq!(call_as(&server, &reader, &read, "PATCH", &one, "{}").status, 403, "it may what its key may");
    let at = token.len() / 2;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    for wrong in [
        format!("{}{other}{}", &token[..at], &token[at + 1..]),
        token[..token.len() - 1].to_owned(),
        format!("{token}A"),
        token.replacen("di_", "", 1),
        "di_".to_owned(),
        read.clone(),
    ] {
        let answer = call_as(&server, &writer, &wrong, "GET", &one, "");
        assert_eq!((answer.status, answer.json()), (401, json!({ "error_code": "401013", "message": "Oauth token is not valid" })));
    }
    let (_other_directory, elsewhere) = configured("");
    assert_eq!(call_as(&elsewhere, &elsewhere.api_key, &token, "GET", PROFILES, "").status, 401, "another business's");

    // It outlives a restart, and ends with its key.
    assert!(server.stop().success());
    let server = start(directory.path(), "");
    assert_eq!(call_as(&server, &writer, &token, "GET", &one, "").status, 200);
    assert_eq!(server.send("DELETE", &format!("/v1/keys/{no}"), b"", &[]).status, 204);
    let since = Instant::now();
    while call_as(&server, &writer, &token, "GET", &one, "").status == 200 {
        assert!(since.elapsed() < Duration::from_secs(1), "the token of a revoked key still reads");
    }
    assert_eq!(call_as(&server, &writer, &token, "GET", &one, "").json()["error_code"], "403003");
    assert_eq!(call_as(&server, &server.api_key, &token, "GET", &one, "").json()["error_code"], "401013");
    assert_eq!(ims(&server, "", &form).json()["error"], "invalid_client");
}

#[test]
fn tokens_of_a_day_count_as_requests_of_their_key() {
    let (_directory, server) = configured("");
    let (_, reader, secret) = key_of(&server, "reader");
    std::fs::write(server.data.join("desist.toml"), "[limits]\nrequests_per_minute_per_key = 3\n").unwrap();
    assert!(server.run(&["reload"]).status.success());
    let form = format!("grant_type=client_credentials&client_id={reader}&client_secret={secret}");
    let token = ims(&server, "", &form).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ims(&server, "", &form).status, 200);
    assert_eq!(call_as(&server, &reader, &token, "GET", PROFILES, "").status, 200);
    let full = ims(&server, "", &form);
    assert_eq!((full.status, &full.json()["error"], &full.headers["retry-after"]), (429, &json!("slow_down"), &"60".parse().unwrap()));
    let full = call_as(&server, &reader, &token, "GET", PROFILES, "");
    assert_eq!((full.status, &full.json()["error_code"]), (429, &json!("429050")));
    assert_eq!(call(&server, "GET", PROFILES, "").status, 200, "another key's requests are its own");
}

/// A request as its bytes: the status, the headers and the body; status 0 if the connection was closed.
fn raw(server: &Server, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    let address = server.private.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let own = [("Host", address)];
    let own = own.iter().filter(|_| !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")));
    let headers: Vec<String> = own.chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{head} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{}", body.len(), headers.concat());
    write!(stream, "{request}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // A body without a readable end has no answer but the end of the connection.
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, String::new(), String::new()) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // The time of the answer is no part of it.
    let head = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect::<Vec<_>>().join("\n");
    (status, head, body.to_owned())
}

/// What is wrong, the organization, the headers, and the status.
type Caller<'a> = (&'a str, String, Vec<(&'a str, &'a str)>, u16);

#[test]
fn who_is_not_let_in_learns_nothing() {
    let (_directory, server) = configured("");
    let rosa = profile(&server, &json!({ "email": "rosa@example.org", "ccpaOptOut": true }));
    let news = service(&server, &json!({ "label": "News" }));
    let subscription = key(&subscribed(&server, &rosa, &news));
    let asked = key(&made(&server, PRIVACY, &privacy("r", "access", "rosa@example.org")));
    let (_, reader, read) = key_of(&server, "reader");
    let bearer = |token: &str| format!("Bearer {token}");
    let (admin, read) = (bearer(&server.token), bearer(&read));
    let before = (shown(&server, &format!("{PROFILES}/{rosa}")), shown(&server, &format!("{SERVICES}/{news}")), shown(&server, PRIVACY));

    // The same path with what exists and with what does not.
    let paths = |existing: bool| {
        let one = |key: &str| if existing { key.to_owned() } else { GONE.to_owned() };
        let (rosa, news, subscription, asked) = (one(&rosa), one(&news), one(&subscription), one(&asked));
        let email = if existing { "rosa@example.org" } else { "none@example.org" };
        vec![
            format!("{PROFILES}/{rosa}"),
            format!("{PROFILES}/{}", if existing { "email" } else { "shoeSize" }),
            format!("{PROFILES}/byEmail?email={email}"),
            format!("{PROFILES}/byEmail/_count?email={email}"),
            format!("{PROFILES}/{rosa}/subscriptions"),
            format!("{PROFILES}/{rosa}/subscriptions/{subscription}"),
            format!("{SERVICES}/{news}"),
            format!("{SERVICES}/{news}/subscriptions/{subscription}"),
            format!("{PROFILES}/subscribers?service={news}"),
            format!("/profileAndServices/history/{rosa}"),
            format!("{PRIVACY}/{asked}"),
            format!("{PRIVACY}/{asked}/data"),
            format!("/{}", if existing { "profileAndServices/profile" } else { "customResources/x" }),
            whole(&format!("{PROFILES}/{rosa}")),
        ]
    };
    let organizations = ["acme-mkt-stage", "acme-mkt-stage1", "ACME", "globex", "acme%20", "%61cme2"];
    let mut callers: Vec<Caller<'_>> = vec![
        ("no key", "acme".into(), vec![("authorization", &admin)], 403),
        ("no token", "acme".into(), vec![("x-api-key", &server.api_key)], 401),
        ("wrong key", "acme".into(), vec![("authorization", &admin), ("x-api-key", "wrong")], 403),
        ("wrong token", "acme".into(), vec![("authorization", "Bearer wrong"), ("x-api-key", &server.api_key)], 401),
        ("a key in another's name", "acme".into(), vec![("authorization", &read), ("x-api-key", &server.api_key)], 401),
        ("a key in a reader's name", "acme".into(), vec![("authorization", &admin), ("x-api-key", &reader)], 401),
        ("the token as the key", "acme".into(), vec![("authorization", &admin), ("x-api-key", &server.token)], 403),
        ("both keys in one header", "acme".into(), vec![("authorization", &admin), ("x-api-key", "wrong, wrong")], 403),
        ("cookies", "acme".into(), vec![("cookie", &admin), ("x-api-key", &server.api_key)], 401),
    ];
    for organization in organizations {
        callers.push(("another organization", organization.into(), vec![("authorization", &admin), ("x-api-key", &server.api_key)], 403));
        callers.push(("another organization, a reader", organization.into(), vec![("authorization", &read), ("x-api-key", &reader)], 403));
    }
    let mut let_in = Vec::new();
    for (what, organization, headers, status) in &callers {
        for method in ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"] {
            for (existing, missing) in paths(true).iter().zip(paths(false)) {
                let ask = |path: &str| raw(&server, &format!("{method} /{organization}/campaign{path}"), headers, "{}");
                let (answer, other) = (ask(existing), ask(&missing));
                if answer.0 != *status || answer != other {
                    let_in.push(format!("{what} ({organization}): {method} {existing}: {} and {}", answer.0, other.0));
                }
            }
        }
    }
    assert_eq!(let_in, [] as [String; 0], "{} let in", let_in.len());
    // A reader's writes, on what exists and on what does not.
    for method in ["POST", "PATCH", "DELETE", "PUT"] {
        for (existing, missing) in paths(true).iter().zip(paths(false)) {
            let ask =
                |path: &str| raw(&server, &format!("{method} {CAMPAIGN}{path}"), &[("authorization", &read), ("x-api-key", &reader)], "{}");
            let (answer, other) = (ask(existing), ask(&missing));
            if existing.ends_with("/data") {
                continue;
            }
            assert_eq!((answer.0, &answer), (403, &other), "{method} {existing}");
            assert!(answer.2.contains("403023"), "{}", answer.2);
        }
    }
    let after = (shown(&server, &format!("{PROFILES}/{rosa}")), shown(&server, &format!("{SERVICES}/{news}")), shown(&server, PRIVACY));
    assert_eq!(after, before, "nothing changed");
    // A whole URL in one segment names no other organization than the path does.
    for other in ["globex", "acme-mkt-stage", "ACME"] {
        for pkey in [rosa.as_str(), GONE] {
            for url in [format!("/{other}/campaign{PROFILES}/{pkey}"), format!("{}/{other}/campaign{PROFILES}/{pkey}", server.private)] {
                let answer = call(&server, "GET", &whole(&url), "");
                assert_eq!((answer.status, answer.json()), (404, json!(format!("{GENERAL}There is no such resource."))), "{url}");
            }
            let headers = [("authorization", admin.as_str()), ("x-api-key", &server.api_key)];
            let inner = whole(&format!("{CAMPAIGN}{PROFILES}/{pkey}"));
            let answer = raw(&server, &format!("GET /{other}/campaign{inner}"), &headers, "");
            assert!(answer.0 == 403 && answer.2.contains("403023"), "{answer:?}");
        }
    }
}

#[test]
fn headers_and_targets_change_neither_links_nor_methods() {
    let (_directory, server) = configured("");
    let rosa = profile(&server, &json!({ "email": "rosa@example.org" }));
    profile(&server, &json!({ "email": "ivo@example.org" }));
    let admin = format!("Bearer {}", server.token);
    let own = [("Authorization", admin.as_str()), ("X-Api-Key", &server.api_key)];
    let one = format!("{CAMPAIGN}{PROFILES}/{rosa}");
    let list = format!("{CAMPAIGN}{PROFILES}?_lineCount=1");
    let plain = |head: &str| raw(&server, head, &own, "{}").2;
    for trick in [
        &[("Host", "evil.example")][..],
        &[("Host", "evil.example:80")],
        &[("X-Forwarded-Host", "evil.example")],
        &[
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Prefix", "/evil"),
            ("X-Forwarded-Port", "666"),
        ],
        &[("Forwarded", "host=evil.example;proto=https")],
        &[("X-Original-URL", "/evil"), ("X-Rewrite-URL", "/evil"), ("X-Host", "evil.example")],
        &[("Origin", "https://evil.example"), ("Referer", "https://evil.example/")],
    ] {
        let headers = [&own[..], trick].concat();
        for head in [format!("GET {one}"), format!("PATCH {one}"), format!("GET {CAMPAIGN}{PROFILES}/metadata")] {
            let answer = raw(&server, &head, &headers, "{}");
            assert_eq!((answer.0, answer.2), (200, plain(&head)), "{trick:?}: {head}");
            assert!(!answer.1.contains("evil") && !answer.1.to_ascii_lowercase().contains("access-control"), "{}", answer.1);
        }
        let page = raw(&server, &format!("GET {list}"), &headers, "");
        let page: Value = serde_json::from_str(&page.2).unwrap();
        assert!(page["next"]["href"].as_str().unwrap().starts_with(&format!("{}{CAMPAIGN}", server.private)), "{page}");
        assert!(!page.to_string().contains("evil"), "{page}");
    }
    // The method is that of the request line.
    for (name, value) in [("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE"), ("X-Method-Override", "DELETE")] {
        let headers = [&own[..], &[(name, value)]].concat();
        assert_eq!(raw(&server, &format!("GET {one}?_method=DELETE"), &headers, "{}").0, 200, "{name}");
        assert_eq!(raw(&server, &format!("POST {one}?_method=DELETE"), &headers, "_method=DELETE").0, 405, "{name}");
    }
    assert_eq!(shown(&server, &format!("{PROFILES}/{rosa}"))["email"], "rosa@example.org", "nothing was deleted");
    // Other forms of a request target: what is served is ours, and a link never repeats their host.
    let absolute = raw(&server, &format!("GET http://evil.example{one}"), &own, "");
    assert!(!absolute.1.contains("evil") && !absolute.2.contains("evil"), "{absolute:?}");
    assert!(absolute.0 == 200 && absolute.2 == plain(&format!("GET {one}")) || (400..500).contains(&absolute.0), "{absolute:?}");
    let other = raw(&server, &format!("GET http://evil.example/globex/campaign{PROFILES}/{rosa}"), &own, "");
    assert!(matches!(other.0, 400 | 403) && !other.2.contains("rosa@"), "{other:?}");
    for head in [
        "OPTIONS *",
        "GET *",
        "DELETE *",
        "GET http://evil.example",
        "CONNECT evil.example:443",
        "GET acme/campaign/profileAndServices/profile",
        "GET //acme/campaign/profileAndServices/profile",
    ] {
        let answer = raw(&server, head, &own, "");
        assert!((400..500).contains(&answer.0) && !answer.2.contains("rosa"), "{head}: {answer:?}");
    }
    // Names of headers and the scheme have no case; nothing but a bearer token is one.
    for (authorization, status) in [
        (format!("bearer {}", server.token), 200),
        (format!("BEARER {}", server.token), 200),
        (format!("Basic {}", server.token), 401),
        (server.token.clone(), 401),
        (format!("Bearer {0}, Bearer {0}", server.token), 401),
        ("Bearer ".to_owned(), 401),
    ] {
        let headers = [("AUTHORIZATION", authorization.as_str()), ("x-API-key", &server.api_key)];
        assert_eq!(raw(&server, &format!("GET {one}"), &headers, "").0, status, "{authorization}");
    }
}

#[test]
fn a_header_that_can_be_read_in_two_ways_lets_nobody_in() {
    let (_directory, server) = configured("");
    let rosa = profile(&server, &json!({ "email": "rosa@example.org" }));
    let (_, writer, write) = key_of(&server, "writer");
    let (admin, write) = (format!("Bearer {}", server.token), format!("Bearer {write}"));
    let (admin, write, ours, theirs) = (admin.as_str(), write.as_str(), server.api_key.as_str(), writer.as_str());
    let mut let_in = Vec::new();
    for (what, status, headers) in [
        ("two tokens, the second right", 401, vec![("authorization", "Bearer wrong"), ("authorization", admin), ("x-api-key", ours)]),
        ("two tokens, the first right", 401, vec![("authorization", admin), ("authorization", "Bearer wrong"), ("x-api-key", ours)]),
        ("tokens of two keys", 401, vec![("authorization", admin), ("authorization", write), ("x-api-key", ours)]),
        ("one token twice", 401, vec![("authorization", admin), ("authorization", admin), ("x-api-key", ours)]),
        ("another scheme beside the token", 401, vec![("authorization", admin), ("authorization", "Basic eA=="), ("x-api-key", ours)]),
        ("two keys, the second right", 403, vec![("authorization", admin), ("x-api-key", "wrong"), ("x-api-key", ours)]),
        ("two keys, the first right", 403, vec![("authorization", admin), ("x-api-key", ours), ("x-api-key", "wrong")]),
        ("two keys, both known", 403, vec![("authorization", admin), ("x-api-key", ours), ("x-api-key", theirs)]),
    ] {
        for pkey in [rosa.as_str(), GONE] {
            for method in ["GET", "PATCH"] {
                let answer = raw(&server, &format!("{method} {CAMPAIGN}{PROFILES}/{pkey}"), &headers, r#"{"lastName":"X"}"#);
                if answer.0 != status {
                    let_in.push(format!("{what}: {method}: {}", answer.0));
                }
            }
        }
    }
    assert_eq!(let_in, [] as [String; 0]);
    assert_eq!(shown(&server, &format!("{PROFILES}/{rosa}"))["lastName"], "");
}

#[test]
fn a_request_has_one_host_and_one_end() {
    let (_directory, server) = configured("");
    let admin = format!("Bearer {}", server.token);
    let own = [("Authorization", admin.as_str()), ("X-Api-Key", &server.api_key)];
    let head = format!("POST {CAMPAIGN}{SERVICES}");
    let with = |more: &[(&'static str, &'static str)]| raw(&server, &head, &[&own[..], more].concat(), r#"{"label":"x"}"#).0;
    // RFC 9112, section 6.3: closed, or refused.
    for more in [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip"), ("Content-Length", "1"), ("Content-Length", "x")] {
        assert!(matches!(with(&[more]), 0 | 400..500), "{more:?}");
    }
    assert_eq!(shown(&server, &format!("{SERVICES}/_count")), json!({ "count": 0 }));
    // RFC 9112, section 3.2: a request with two of them, or with none, is answered 400.
    assert_eq!((with(&[("Host", "a"), ("Host", "b")]), with(&[("Host", "a"), ("Host", "a")])), (400, 400));
    assert_eq!(shown(&server, &format!("{SERVICES}/_count")), json!({ "count": 0 }));
}

#[test]
fn a_page_token_opens_its_own_list_alone() {
    let (_directory, server) = configured("");
    let (_other_directory, elsewhere) = configured("");
    let mut tokens = Vec::new();
    for server in [&server, &elsewhere] {
        let news = service(server, &json!({ "label": "News" }));
        service(server, &json!({ "label": "Sales" }));
        for n in 0..3 {
            let pkey = profile(server, &json!({ "email": format!("rosa{n}@example.org"), "lastName": "Vega" }));
            subscribed(server, &pkey, &news);
            made(server, PRIVACY, &privacy(&format!("r{n}"), "access", "rosa1@example.org"));
        }
        let subscriptions = format!("{SERVICES}/{news}/subscriptions");
        let lists = [
            PROFILES.to_owned(),
            format!("{PROFILES}?_order=email"),
            format!("{PROFILES}?_order=email%20desc"),
            format!("{PROFILES}?_order=lastName"),
            format!("{PROFILES}/byText?text=V"),
            format!("{PROFILES}/byText?text=Ve"),
            format!("{PROFILES}/byText?text=V&filterType=lastName"),
            format!("{PROFILES}/subscribers?service={news}"),
            SERVICES.to_owned(),
            format!("{SERVICES}?_order=label"),
            subscriptions,
            PRIVACY.to_owned(),
        ];
        for list in lists {
            let mark = if list.contains('?') { '&' } else { '?' };
            let first = format!("{list}{mark}_lineCount=1");
            let next = shown(server, &first)["next"]["href"].as_str().unwrap().to_owned();
            let token = next.split_once("_lineStart=").unwrap().1.to_owned();
            let bytes = token.as_bytes();
            assert!(
                token.len() > 20 && !["rosa", "cm9zYQ", "Vega", "VmVnY", "News", "TmV3c"].iter().any(|clear| token.contains(clear)),
                "{token}"
            );
            assert!(bytes[0] == b'@');
            tokens.push((server.private.clone(), first, token));
        }
    }
    let refused = |path: &str, token: &str| {
        let answer = call(&server, "GET", &format!("{path}&_lineStart={token}"), "");
        let says = format!("{GENERAL}'_lineStart' must be taken from the next.href of the same list.");
        assert_eq!((answer.status, answer.json()), (400, json!(says)), "{path}");
        assert_eq!(answer.headers["desist-pointer"], "_lineStart");
    };
    let ours: Vec<&(String, String, String)> = tokens.iter().filter(|(base, _, _)| *base == server.private).collect();
    for (_, path, token) in &ours {
        assert_eq!(content(&shown(&server, &format!("{path}&_lineStart={token}"))).len(), 1);
        assert_eq!(content(&shown(&server, &format!("{path}&_lineStart=%40{}", &token[1..]))).len(), 1);
        for (base, other, foreign) in &tokens {
            if base != &server.private || other != path {
                refused(path, foreign);
            }
        }
        for at in 1..token.len() {
            // The last character has bits that stand for nothing; those are no two forms of one token.
            let other = if token.as_bytes()[at] == b'A' { 'Q' } else { 'A' };
            refused(path, &format!("{}{other}{}", &token[..at], &token[at + 1..]));
        }
        for len in [2, 5, token.len() / 2, token.len() - 4, token.len() - 1] {
            refused(path, &token[..len]);
        }
        refused(path, &format!("{token}AAAA"));
        refused(path, &format!("{token}%3D"));
        // The page is the caller's own size, and the token is used any number of times.
        assert_eq!(
            content(&shown(&server, &format!("{}&_lineStart={token}", path.replace("_lineCount=1", "_lineCount=2")))).len(),
            if path.contains("service?") { 1 } else { 2 }
        );
    }
    // The root is no part of the question: a caller that changes it goes on.
    let (_, path, token) = ours[1];
    for root in ROOTS {
        let path = path.replace("profileAndServices", root);
        assert_eq!(content(&shown(&server, &format!("{path}&_lineStart={token}")))[0]["email"], "rosa1@example.org", "{root}");
    }
}
