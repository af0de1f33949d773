//! The Campaign API over plain HTTP: URLs, calls, parameters, collections and errors.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, Server};

/// Every path below is after this.
pub const CAMPAIGN: &str = "/acme/campaign";
/// The profiles, under the root that most clients use.
pub const PROFILES: &str = "/profileAndServices/profile";
/// The services.
pub const SERVICES: &str = "/profileAndServices/service";
/// All of them show the same records.
pub const ROOTS: [&str; 3] = ["profilesAndServices", "profileAndServices", "profileAndServicesExt"];
/// A key that has the form of one, and nobody's.
pub const GONE: &str = "@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// How the texts of most refusals begin.
pub const GENERAL: &str = "RST-360011 An error has occurred - please contact your administrator.\n";

/// A server with this `desist.toml`, and its lists made.
pub fn configured(toml: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), toml);
    (directory, server)
}

/// The same in a directory that may have been in use.
pub fn start(directory: &std::path::Path, toml: &str) -> Server {
    std::fs::write(directory.join("desist.toml"), toml).unwrap();
    let server = Server::start_in(directory, &[]);
    lists_are_made(&server);
    server
}

/// Waits until the server has read what its lists are made of.
pub fn lists_are_made(server: &Server) {
    let since = Instant::now();
    for list in ["email", "lastName", "firstName"] {
        while call(server, "GET", &format!("{PROFILES}?_order={list}"), "").status == 503 {
            assert!(since.elapsed() < Duration::from_secs(30), "the list by {list} is not made");
        }
    }
}

/// Sends a request of the Campaign API as the admin; every answer with a body is JSON.
pub fn call(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    checked(server.send(method, &format!("{CAMPAIGN}{path}"), body.as_bytes(), &[]), &format!("{method} {path}"))
}

pub fn checked(answer: Answer, what: &str) -> Answer {
    if answer.status == 204 {
        assert!(answer.text.is_empty() && !answer.headers.contains_key("content-type"), "{what}: {answer:?}");
    } else {
        assert_eq!(answer.headers["content-type"], "application/json;charset=utf-8", "{what}");
        assert!(!answer.json().is_null(), "{what}");
    }
    answer
}

/// What a GET shows.
pub fn shown(server: &Server, path: &str) -> Value {
    let answer = call(server, "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    let shown = answer.json();
    let root = path.split('/').nth(1).unwrap_or_default().split('?').next().unwrap();
    for href in hrefs(&shown) {
        let start = format!("{}{CAMPAIGN}/{root}", server.private);
        assert!(root.contains('%') || href.starts_with(&start), "{path}: {href} keeps the caller's root");
        assert!(!href["http://".len()..].contains("//"), "{path}: {href}");
    }
    shown
}

/// Every `href` in an answer.
pub fn hrefs(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let own = members.iter().filter(|(name, _)| *name == "href").filter_map(|(_, value)| value.as_str().map(str::to_owned));
            own.chain(members.values().flat_map(hrefs)).collect()
        }
        Value::Array(items) => items.iter().flat_map(hrefs).collect(),
        _ => Vec::new(),
    }
}

/// What a write answers.
pub fn made(server: &Server, path: &str, body: &Value) -> Value {
    let answer = call(server, "POST", path, &body.to_string());
    assert_eq!(answer.status, 201, "{path}: {}", answer.text);
    answer.json()
}

/// A new profile's key.
pub fn profile(server: &Server, record: &Value) -> String {
    key(&made(server, PROFILES, record))
}

/// A new service's key.
pub fn service(server: &Server, record: &Value) -> String {
    key(&made(server, SERVICES, record))
}

/// A new subscription.
pub fn subscribed(server: &Server, profile: &str, service: &str) -> Value {
    made(server, &format!("{PROFILES}/{profile}/subscriptions"), &json!({ "service": { "PKey": service } }))
}

pub fn key(record: &Value) -> String {
    record["PKey"].as_str().expect("a key").to_owned()
}

/// The part of a link that [`call`] takes.
pub fn below(server: &Server, href: &str) -> String {
    let start = format!("{}{CAMPAIGN}", server.private);
    href.strip_prefix(&start).unwrap_or_else(|| panic!("{href} does not begin with {start}")).to_owned()
}

/// The records of one page, in order.
pub fn content(page: &Value) -> &[Value] {
    page["content"].as_array().unwrap_or_else(|| panic!("no collection: {page}"))
}

/// All pages of a list, by their links alone; every page is looked at.
pub fn walk(server: &Server, path: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut at) = (Vec::new(), path.to_owned());
    let total = loop {
        let page = shown(server, &at);
        assert_eq!(page["serverSidePagination"], true, "{at}");
        let count = shown(server, &below(server, page["count"]["href"].as_str().expect("a count link")));
        let total = count["count"].as_u64().expect("a number") as usize;
        assert_eq!(count, json!({ "count": total }), "{at}");
        let (is_first, next) = (pages.is_empty(), page["next"]["href"].as_str());
        assert_eq!(
            page["count"]["value"].as_u64(),
            (is_first && next.is_none()).then_some(total as u64),
            "{at}: only where one page is all"
        );
        pages.push(content(&page).to_vec());
        let Some(next) = next else { break total };
        let (_, token) = next.split_once("_lineStart=@").unwrap_or_else(|| panic!("{next} has a token"));
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token} is opaque");
        at = below(server, next);
        assert!(pages.len() < 1000, "{path} ends");
    };
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), total, "{path}: the count is right");
    pages
}

/// One member of all records of a list.
pub fn all(server: &Server, path: &str, member: &str) -> Vec<String> {
    let records = walk(server, path).concat();
    records.iter().map(|record| record[member].as_str().unwrap_or_else(|| panic!("{path}: {record}")).to_owned()).collect()
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

/// A whole URL in one segment, as one client sends it.
pub fn whole(url: &str) -> String {
    let encoded: String =
        url.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect();
    format!("/{encoded}")
}

/// Six profiles: by last name and e-mail, two with the same address.
fn people(server: &Server) -> Vec<String> {
    [
        ("Ana", "Vega", "ana@example.org"),
        ("Ben", "Veldt", "twins@example.org"),
        ("Cy", "Velez", "twins@example.org"),
        ("Dee", "vegan", "Dee+news@Example.org"),
        ("Vera", "Moss", "vera@example.org"),
        ("Flo", "", ""),
    ]
    .iter()
    .map(|(first, last, email)| profile(server, &json!({ "firstName": first, "lastName": last, "email": email })))
    .collect()
}

#[test]
fn a_url_may_be_written_in_every_documented_way() {
    let (_directory, server) = configured("");
    let pkey = profile(&server, &json!({ "lastName": "Vega" }));
    let encoded = pkey.replace('@', "%40");
    let service = service(&server, &json!({ "label": "News" }));
    for root in ROOTS {
        for suffix in ["", ".json"] {
            for form in ["/ROOT/RES", "/ROOT/RES/", "//ROOT//RES//", "/ROOT/RES?limit=10&page=2", "/ROOT/%52ES/"] {
                for (resource, own) in [("profile", &pkey), ("service", &service)] {
                    let name = format!("{resource}{suffix}");
                    let path = form.replace("ROOT", root).replace("RES", &name).replace("%52ES", &name.replace('r', "%72"));
                    let list = call(&server, "GET", &path, "");
                    assert_eq!(list.status, 200, "{path}: {}", list.text);
                    let href = format!("{}{CAMPAIGN}/{root}/{resource}/{own}", server.private);
                    assert_eq!(list.json()["content"][0]["href"], href, "{path}: the caller stays on its root");
                    let count = format!("{}{CAMPAIGN}/{root}/{resource}/_count", server.private);
                    assert_eq!(list.json()["count"]["href"], count, "{path}: single slashes go out");
                }
            }
            for form in ["@", "%40", "@/", "/@", "%40/?x=1"] {
                let path = format!("/{root}/profile{suffix}/{}", form.replace('@', &pkey).replace("%40", &encoded));
                assert_eq!(shown(&server, &path)["PKey"], pkey, "{path}");
            }
        }
    }
    // Roots that are not served, and what looks like one.
    for path in [
        "",
        "/",
        "/profileAndServices",
        "/profilesAndServices/",
        "/profileandservices/profile",
        "/profileAndServices/Profile",
        "/profileAndServices/profiles",
        "/customResources/cusShoe",
        "/workflow/execution/WKF1/commands",
        "/mcacme/push",
        "/profileAndServices/orgUnitBase",
        "/profile",
        "/privacy",
        "/privacy/other",
    ] {
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            let answer = call(&server, method, path, "{}");
            assert_eq!((answer.status, answer.json()), (404, json!(format!("{GENERAL}There is no such resource."))), "{method} {path}");
        }
    }
}

#[test]
fn the_segment_after_profile_is_read_in_the_documented_order() {
    let (_directory, server) = configured("");
    let keys = people(&server);
    let text = |value: &str| json!(value);
    for root in ROOTS {
        let base = format!("/{root}/profile");
        assert_eq!(content(&shown(&server, &format!("{base}/"))).len(), 6, "nothing: the collection");
        assert_eq!(shown(&server, &format!("{base}/{}", keys[0]))["lastName"], "Vega", "a key");
        assert_eq!(shown(&server, &format!("{base}/%40{}", &keys[0][1..]))["lastName"], "Vega", "a key, encoded");
        assert_eq!(shown(&server, &format!("{base}/_count")), json!({ "count": 6 }));
        assert_eq!(shown(&server, &format!("{base}//_count")), json!({ "count": 6 }));
        let metadata = shown(&server, &format!("{base}/metadata"));
        assert_eq!(metadata, shown(&server, &format!("/{root}/resourceType/profile")));
        assert_eq!(metadata["href"], format!("{}{CAMPAIGN}{base}/metadata", server.private));
        assert_eq!(shown(&server, &format!("/{root}/service/metadata")), shown(&server, &format!("/{root}/resourceType/service")));

        let found = |path: &str| all(&server, &format!("{base}/{path}"), "firstName");
        assert_eq!(found("byText?text=Ve"), ["Ana", "Ben", "Cy"], "a filter");
        for filters in ["byText/byEmail", "byEmail/byText", "byText%2FbyEmail", "byEmail%2fbyText", "byText//byEmail/"] {
            assert_eq!(found(&format!("{filters}?text=Ve&email=twins@example.org")), ["Ben", "Cy"], "{filters}");
        }
        assert_eq!(shown(&server, &format!("{base}//byText/_count?text=Ve")), json!({ "count": 3 }));
        assert_eq!(shown(&server, &format!("{base}/byText%2FbyEmail/_count?text=Ve&email=ana@example.org")), json!({ "count": 1 }));

        let values = shown(&server, &format!("{base}/email"));
        let emails: Vec<Value> =
            ["ana@example.org", "twins@example.org", "twins@example.org", "Dee+news@Example.org", "vera@example.org", ""].map(text).into();
        assert_eq!(content(&values), emails, "an attribute: bare values");
        assert_eq!(values["count"]["value"], 6);
        let keys: Vec<Value> = keys.iter().map(|key| text(key)).collect();
        assert_eq!(content(&shown(&server, &format!("{base}/PKey"))), keys);
        assert_eq!(content(&shown(&server, &format!("{base}/byText/lastName?text=Ve"))), ["Vega", "Veldt", "Velez"].map(text));
        assert_eq!(shown(&server, &format!("{base}/email/_count")), json!({ "count": 6 }));

        for unknown in
            ["shoeSize", "byAmount?amount_parameter=100", "byText/byText?text=V", "email/byText?text=V", "_count/email", "bytext?text=V"]
        {
            let path = format!("{base}/{unknown}");
            let answer = call(&server, "GET", &path, "");
            assert_eq!((answer.status, answer.json()), (404, json!(format!("{GENERAL}There is no such resource."))), "{path}");
        }
        for unreadable in ["@", "@bogus", "%40bogus", "@%20"] {
            let answer = call(&server, "GET", &format!("{base}/{unreadable}"), "");
            assert_eq!(answer.status, 404, "{unreadable}: {}", answer.text);
            assert!(answer.json().as_str().is_some_and(|text| text.starts_with("Unable to decrypt PKey.")), "{}", answer.text);
        }
    }
}

/// Calls of one URL: the method, the body, and what status it has.
type Calls<'a> = Vec<(&'a str, &'a Value, u16)>;

#[test]
fn every_call_has_its_status_and_every_other_method_is_405() {
    let (_directory, server) = configured("");
    for root in ROOTS {
        let pkey = profile(&server, &json!({ "email": "rosa@example.org", "lastName": "Vega" }));
        let news = service(&server, &json!({ "label": "News" }));
        let subscription = key(&subscribed(&server, &pkey, &news));
        let other = service(&server, &json!({ "label": "Other" }));
        let (by_service, by_profile) = (json!({ "service": { "PKey": other } }), json!({ "subscriber": { "PKey": pkey } }));
        let filters = shown(&server, &format!("/{root}/resourceType/profile"))["filters"]["href"].as_str().unwrap().to_owned();
        let filters = below(&server, &filters);
        let request = format!("r-{root}");
        let access = json!({ "name": request, "namespaceName": "email", "reconciliationValue": "rosa@example.org", "label": "", "type": "access", "regulation": "ccpa" });
        let asked = key(&made(
            &server,
            "/privacy/privacyTool",
            &json!({ "name": format!("{request}-0"), "namespaceName": "email", "reconciliationValue": "rosa@example.org", "type": "access", "regulation": "ccpa" }),
        ));
        let one = format!("/{root}/profile/{pkey}");
        let empty = json!({});
        // The path, what it takes, and the calls with their statuses: those that end things last.
        let mut table: Vec<(String, &str, Calls<'_>)> = vec![
            (format!("/{root}/profile"), "GET, POST", vec![("GET", &empty, 200), ("POST", &empty, 201)]),
            (format!("/{root}/profile/"), "GET, POST", vec![("GET", &empty, 200), ("POST", &empty, 201)]),
            (format!("/{root}/profile/byEmail?email=a@b.co"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/profile/byEmail%2FbyText?email=a@b.co&text=x"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/profile/email"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/profile/_count"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/profile/byText/_count?text=x"), "GET", vec![("GET", &empty, 200)]),
            (format!("{one}/subscriptions"), "GET, POST", vec![("GET", &empty, 200), ("POST", &by_service, 201)]),
            (format!("{one}/subscriptions/_count"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/service"), "GET, POST", vec![("GET", &empty, 200), ("POST", &empty, 201)]),
            (format!("/{root}/service/byText?text=N"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/service/label"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/service/_count"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/service/{news}"), "GET, PATCH", vec![("GET", &empty, 200), ("PATCH", &empty, 200)]),
            (format!("/{root}/service/{other}/subscriptions"), "GET, POST", vec![("GET", &empty, 200), ("POST", &by_profile, 200)]),
            (format!("/{root}/service/{other}/subscriptions/_count"), "GET", vec![("GET", &empty, 200)]),
            (format!("{one}/subscriptions/{subscription}"), "GET, DELETE", vec![("GET", &empty, 200)]),
            (
                format!("/{root}/service/{news}/subscriptions/{subscription}"),
                "GET, DELETE",
                vec![("GET", &empty, 200), ("DELETE", &empty, 204)],
            ),
            (format!("/{root}/resourceType/profile"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/resourceType/service"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/resourceType/history"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/profile/metadata"), "GET", vec![("GET", &empty, 200)]),
            (filters.clone(), "GET", vec![("GET", &empty, 200)]),
            (filters.replace("/filters/", ""), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/history/{pkey}"), "GET", vec![("GET", &empty, 200)]),
            (format!("/{root}/history/{pkey}/events"), "GET", vec![("GET", &empty, 200)]),
            ("/profileAndServicesExt".to_owned(), "GET", vec![("GET", &empty, 200)]),
            ("/profileAndServicesExt/orgUnitBase".to_owned(), "GET", vec![("GET", &empty, 200)]),
            (format!("/profileAndServicesExt/orgUnitBase/{GONE}"), "GET, PATCH", vec![("GET", &empty, 404), ("PATCH", &empty, 404)]),
            ("/profileAndServicesExt/geoUnitBase/".to_owned(), "GET", vec![("GET", &empty, 200)]),
            ("/privacy/privacyTool".to_owned(), "GET, POST", vec![("GET", &empty, 200), ("POST", &access, 201)]),
            ("/privacy/privacyTool/_count".to_owned(), "GET", vec![("GET", &empty, 200)]),
            (format!("/privacy/privacyTool/{asked}"), "GET", vec![("GET", &empty, 200)]),
            (format!("/privacy/privacyTool/{asked}/data"), "POST", vec![("POST", &empty, 200)]),
        ];
        table.push((one.clone(), "GET, PATCH, DELETE", vec![("GET", &empty, 200), ("PATCH", &empty, 200), ("DELETE", &empty, 200)]));
        for (path, allow, calls) in table {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LINK"] {
                if allow.split(", ").any(|allowed| allowed == method) {
                    continue;
                }
                let answer = call(&server, method, &path, "{}");
                let says = json!(format!("{GENERAL}The resource takes {allow} alone."));
                assert_eq!((answer.status, answer.json()), (405, says), "{method} {path}");
                assert_eq!(answer.headers["allow"], allow, "{method} {path}");
            }
            for (method, body, status) in calls {
                let answer = call(&server, method, &path, &body.to_string());
                assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
            }
        }
        assert_eq!(call(&server, "GET", &one, "").status, 404, "it was deleted");
        assert_eq!(call(&server, "GET", &format!("/{root}/service/{news}"), "").status, 200, "no DELETE of a service ends it");
    }
    assert!(server.run(&["check"]).status.success());
}

#[test]
fn what_the_writes_answer() {
    let (_directory, server) = configured("");
    let record = json!({ "email": "rosa@example.org" });
    let created = made(&server, PROFILES, &record);
    let pkey = key(&created);
    let one = format!("{PROFILES}/{pkey}");
    assert_eq!(shown(&server, &one), created, "a POST answers the whole profile");
    let href = format!("{}{CAMPAIGN}{one}", server.private);
    let changed = call(&server, "PATCH", &one, r#"{"lastName":"Vega"}"#).json();
    assert_eq!(changed, json!({ "PKey": pkey, "href": href }), "a PATCH no more than these two");
    let deleted = call(&server, "DELETE", &one, "{}");
    assert_eq!((deleted.status, deleted.json()), (200, json!({})));
    let again = call(&server, "DELETE", &one, "");
    assert_eq!((again.status, again.json()), (404, json!(format!("Unable to find document with path '/profile/{pkey}'"))));
}

#[test]
fn every_link_of_every_answer_leads_somewhere() {
    let (_directory, server) = configured("");
    let pkey = profile(&server, &json!({ "email": "rosa@example.org" }));
    let news = service(&server, &json!({ "label": "News" }));
    subscribed(&server, &pkey, &news);
    made(
        &server,
        "/privacy/privacyTool",
        &json!({ "name": "r", "namespace": "email", "reconciliationValue": "rosa@example.org", "type": "access", "regulation": "ccpa" }),
    );
    for _ in 0..2 {
        profile(&server, &json!({ "email": "rosa@example.org" }));
    }
    let mut begin: Vec<String> =
        vec!["/profileAndServicesExt".into(), "/profileAndServicesExt/orgUnitBase".into(), "/privacy/privacyTool".into()];
    for root in ROOTS {
        for path in [
            "profile?_lineCount=2&_order=email",
            "profile/email?_lineCount=2",
            "profile/byText?text=rosa&_lineCount=1",
            "service",
            "resourceType/profile",
            "resourceType/service",
            "resourceType/history",
        ] {
            begin.push(format!("/{root}/{path}"));
        }
        begin.push(format!("/{root}/history/{pkey}"));
    }
    let (mut left, mut seen, mut dead) = (begin, BTreeSet::new(), Vec::new());
    while let Some(path) = left.pop() {
        // A token is another one in every answer.
        if !seen.insert(path.split("_lineStart=").next().unwrap().to_owned()) {
            continue;
        }
        let method = if path.ends_with("/data") { "POST" } else { "GET" };
        let answer = call(&server, method, &path, "");
        if answer.status == 200 {
            left.extend(hrefs(&answer.json()).iter().map(|href| below(&server, href)));
        } else {
            dead.push((answer.status, path));
        }
    }
    assert!(seen.len() > 60, "{seen:?}");
    assert_eq!(dead, [], "links that lead nowhere");
}

#[test]
fn pages_have_25_records_and_at_most_1000() {
    let (_directory, server) = configured("");
    std::thread::scope(|scope| {
        for part in 0..13 {
            let server = &server;
            scope.spawn(move || (0..77).for_each(|n| drop(profile(server, &json!({ "lastName": format!("L{part:02}-{n:02}") })))));
        }
    });
    let lines = |query: &str| content(&shown(&server, &format!("{PROFILES}{query}"))).len();
    assert_eq!((lines(""), lines("?_lineCount=25"), lines("?_lineCount=26"), lines("?_lineCount=1")), (25, 25, 26, 1));
    for large in ["1000", "1001", "100000", "99999999999999999999999999"] {
        assert_eq!(lines(&format!("?_lineCount={large}")), 1000, "{large}");
    }
    let pages = walk(&server, &format!("{PROFILES}?_lineCount=1001&_order=lastName"));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1]);
    let names = all(&server, &format!("{PROFILES}/byText?text=L0&_order=lastName%20desc&_lineCount=100"), "lastName");
    assert_eq!((names.len(), names[0].as_str(), names[769].as_str()), (770, "L09-76", "L00-00"));
    assert!(names.is_sorted_by(|one, other| one > other));
    assert_eq!(all(&server, &format!("{PROFILES}?_forcePagination=true&_lineCount=300"), "PKey").len(), 1001);
}

#[test]
fn parameters_mean_what_is_documented() {
    let (_directory, server) = configured("");
    people(&server);
    let names = |query: &str| all(&server, &format!("{PROFILES}{query}"), "firstName");
    let plain = names("");
    for ignored in
        ["?limit=1&page=2", "?_forcePagination=true", "?_forcePagination=x", "?&&", "?email=ana@example.org", "?text=", "?_order="]
    {
        assert_eq!(names(ignored), plain, "{ignored}");
    }
    let up = ["Flo", "Dee", "Ana", "Ben", "Cy", "Vera"];
    for query in ["email", "email%20asc", "email+asc", "%65mail"] {
        assert_eq!(names(&format!("?_order={query}")), up, "{query}");
    }
    let down: Vec<&str> = up.iter().rev().copied().collect();
    for query in ["email%20desc", "email%2520desc", "email+desc"] {
        assert_eq!(names(&format!("?_order={query}")), down, "{query}");
    }
    // The key breaks ties, whatever the size of the page.
    for lines in 1..=7 {
        assert_eq!(names(&format!("?_order=email&_lineCount={lines}")), up, "{lines}");
        assert_eq!(names(&format!("?_lineCount={lines}&_order=email%20desc")), down, "{lines}");
        assert_eq!(names(&format!("?_lineCount={lines}")), plain, "{lines}");
        assert_eq!(names(&format!("/byText?text=Ve&_order=email%20desc&_lineCount={lines}")), ["Cy", "Ben", "Ana"]);
        let values = walk(&server, &format!("{PROFILES}/email?_order=email&_lineCount={lines}")).concat();
        assert_eq!((&values[0], &values[5]), (&json!(""), &json!("vera@example.org")));
    }
    assert_eq!(names("?_order=created"), plain);
    assert_eq!(names("?_order=created%20desc"), plain.iter().rev().map(String::as_str).collect::<Vec<_>>());

    let bad = |name: &str, query: &str| {
        let answer = call(&server, "GET", &format!("{PROFILES}{query}"), "");
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        assert!(
            answer.json().as_str().is_some_and(|text| text.starts_with(&format!("{GENERAL}'{name}' must be "))),
            "{query}: {}",
            answer.text
        );
        assert_eq!(answer.headers["desist-pointer"], name, "{query}");
    };
    for value in ["0", "-1", "abc", "", "1.5", "%2B5", "1e2", "%20", "0x10", "00", "5&_lineCount=5"] {
        bad("_lineCount", &format!("?_lineCount={value}"));
        bad("_lineCount", &format!("/byText?text=V&_lineCount={value}"));
    }
    for value in [
        "shoeSize",
        "age",
        "ccpaOptOut",
        "location",
        "location.city",
        "email%20down",
        "email%20desc%20desc",
        "email%2B%20desc",
        "1",
        "email&_order=email",
        "acsId",
        "PKey%20desc",
        "cusHobby",
    ] {
        bad("_order", &format!("?_order={value}"));
    }
    for value in ["", "abc", "%20@abc", "@", "@abc", "@%F0%9F%98%80", "@abc=", "@abc&_lineStart=@abc"] {
        bad("_lineStart", &format!("?_lineStart={value}"));
    }
    assert_eq!(call(&server, "GET", &format!("{PROFILES}?_order=%ZZ"), "").status, 400);
    // Whatever stands in a value comes back in the links.
    for _ in 0..3 {
        profile(&server, &json!({ "lastName": "A&B=C+D %41 #é/?;" }));
    }
    for lines in 1..=3 {
        let path = format!("{PROFILES}/byText?_lineCount={lines}&text=A%26B%3DC%2BD+%2541+%23%C3%A9%2F%3F%3B&_order=lastName");
        assert_eq!(all(&server, &path, "lastName").len(), 3, "{lines}");
        let next = shown(&server, &path)["next"]["href"].as_str().map(str::to_owned);
        let Some(next) = next else { continue };
        assert_eq!(shown(&server, &whole(&next))["content"], shown(&server, &below(&server, &next))["content"], "{next}");
    }
    assert_eq!(call(&server, "GET", &format!("{PROFILES}/byText?text=%FF"), "").status, 400);
}

#[test]
fn every_filter_of_profiles() {
    let (_directory, server) = configured("");
    let keys = people(&server);
    let none: [&str; 0] = [];
    let found = |query: &str| sorted(all(&server, &format!("{PROFILES}/{query}"), "firstName"));
    for filter in ["byEmail", "byKeysProfile"] {
        for (email, expected) in [
            ("ana@example.org", &["Ana"][..]),
            ("ANA@Example.ORG", &["Ana"]),
            ("ana%40example.org", &["Ana"]),
            ("twins@example.org", &["Ben", "Cy"]),
            ("dee+news@example.org", &["Dee"]),
            ("dee%2Bnews@example.org", &["Dee"]),
            ("dee%20news@example.org", &none),
            ("ana@example", &none),
            ("ana", &none),
            ("nobody@example.org", &none),
        ] {
            assert_eq!(found(&format!("{filter}?email={email}")), expected, "{filter} {email}");
        }
        for missing in ["", "?email=", "?text=ana", "?email=a@b.co&email=c@d.co"] {
            let answer = call(&server, "GET", &format!("{PROFILES}/{filter}{missing}"), "");
            assert_eq!((answer.status, &answer.headers["desist-pointer"]), (400, &"email".parse().unwrap()), "{filter}{missing}");
        }
    }
    // A prefix, with case, of the e-mail or of the last name; one profile once.
    for (query, expected) in [
        ("text=Ve", &["Ana", "Ben", "Cy"][..]),
        ("text=ve", &["Dee", "Vera"]),
        ("text=V", &["Ana", "Ben", "Cy"]),
        ("text=v", &["Dee", "Vera"]),
        ("text=ega", &none),
        ("text=Vera", &none),
        ("text=twins", &["Ben", "Cy"]),
        ("text=Dee%2Bn", &["Dee"]),
        ("text=Ve&filterType=", &["Ana", "Ben", "Cy"]),
        ("text=Ve&filterType=lastName", &["Ana", "Ben", "Cy"]),
        ("text=Ve&filterType=firstName", &["Vera"]),
        ("text=ve&filterType=email", &["Vera"]),
        ("text=ana@example.org&filterType=email", &["Ana"]),
        ("text=Ve&filterType=email", &none),
    ] {
        assert_eq!(found(&format!("byText?{query}")), expected, "{query}");
    }
    for (query, pointer) in [
        ("", "text"),
        ("?text=", "text"),
        ("?filterType=email", "text"),
        ("?text=V&text=W", "text"),
        ("?text=V&filterType=shoeSize", "filterType"),
        ("?text=V&filterType=phone", "filterType"),
        ("?text=V&filterType=LastName", "filterType"),
    ] {
        let answer = call(&server, "GET", &format!("{PROFILES}/byText{query}"), "");
        assert_eq!((answer.status, &answer.headers["desist-pointer"]), (400, &pointer.parse().unwrap()), "{query}: {}", answer.text);
        assert!(!answer.text.contains("shoeSize"), "{query}");
    }
    // Whoever has it in both is shown once, wherever a page ends.
    for (first, last, email) in [("Gil", "goa", "gil@example.org"), ("Gus", "gus", "gus@example.org"), ("Guy", "", "guy@example.org")] {
        profile(&server, &json!({ "firstName": first, "lastName": last, "email": email }));
    }
    for lines in 1..5 {
        assert_eq!(found(&format!("byText?text=g&_lineCount={lines}")), ["Gil", "Gus", "Guy"], "{lines}");
        assert_eq!(found(&format!("byText?text=g&_lineCount={lines}&_order=lastName")), ["Gil", "Gus", "Guy"], "{lines}");
    }
    let (news, sales) = (service(&server, &json!({ "label": "News" })), service(&server, &json!({ "label": "Sales" })));
    for at in [0, 1, 4] {
        subscribed(&server, &keys[at], &news);
    }
    subscribed(&server, &keys[1], &sales);
    for (query, expected) in [
        (format!("service={news}"), &["Ana", "Ben", "Vera"][..]),
        (format!("service=%40{}", &news[1..]), &["Ana", "Ben", "Vera"]),
        (format!("service={sales}"), &["Ben"]),
        (format!("service={GONE}"), &none),
    ] {
        assert_eq!(found(&format!("subscribers?{query}")), expected, "{query}");
        for lines in 1..4 {
            assert_eq!(found(&format!("subscribers?{query}&_lineCount={lines}")), expected, "{query}");
            assert_eq!(found(&format!("subscribers?{query}&_lineCount={lines}&_order=lastName%20desc")), expected, "{query}");
        }
    }
    for missing in ["", "?service=", "?service=SVC1"] {
        assert_eq!(call(&server, "GET", &format!("{PROFILES}/subscribers{missing}"), "").status, 400, "{missing}");
    }
    // Filters narrow each other, each with its own parameters.
    assert_eq!(found(&format!("subscribers/byText?service={news}&text=Ve")), ["Ana", "Ben"]);
    assert_eq!(found(&format!("byText/subscribers/byEmail?service={news}&text=Ve&email=twins@example.org")), ["Ben"]);
    assert_eq!(found(&format!("byEmail%2Fsubscribers?service={sales}&email=ana@example.org")), none);
    for unknown in [
        "birthday",
        "byStaticAudience",
        "hasClickedDelivery",
        "hasOpenedDelivery",
        "hasReceivedDelivery",
        "profile",
        "byChannel?channel=email",
        "byCcpaOptOut?ccpaOptOut_parameter=true",
    ] {
        let answer = call(&server, "GET", &format!("{PROFILES}/{unknown}"), "");
        assert_eq!((answer.status, answer.json()), (404, json!(format!("{GENERAL}There is no such resource."))), "{unknown}");
    }
}

#[test]
fn every_filter_of_services() {
    let (_directory, server) = configured("");
    for record in [
        json!({ "label": "News", "name": "SVC1", "start": "2026-01-01", "end": "2026-03-31" }),
        json!({ "label": "Night", "name": "SVC2", "messageType": "sms", "start": "2026-03-01" }),
        json!({ "label": "Sales", "name": "NIGHT", "messageType": "sms", "end": "2026-02-28" }),
        json!({ "label": "Open" }),
    ] {
        service(&server, &record);
    }
    let none: [&str; 0] = [];
    let found = |query: &str| all(&server, &format!("{SERVICES}/{query}"), "label");
    for (query, expected) in [
        ("", &["News", "Night", "Sales", "Open"][..]),
        ("?_order=label", &["News", "Night", "Open", "Sales"]),
        ("?_order=label%20desc", &["Sales", "Open", "Night", "News"]),
        ("?_order=start&_lineCount=1", &["Sales", "Open", "News", "Night"]),
        ("?_order=start%20desc&_lineCount=3", &["Night", "News", "Open", "Sales"]),
        ("byChannel?channel=email", &["News", "Open"]),
        ("byChannel?channel=sms", &["Night", "Sales"]),
        ("byText?text=N", &["News", "Night", "Sales"]),
        ("byText?text=Ni", &["Night"]),
        ("byText?text=SVC", &["News", "Night", "Open"]),
        ("byText?text=n", &none),
        ("byPlanning", &["News", "Night", "Sales", "Open"]),
        ("byPlanning?startDate=2026-03-01", &["News", "Night", "Open"]),
        ("byPlanning?endDate=2026-02-28", &["News", "Sales", "Open"]),
        ("byPlanning?startDate=2026-04-01&endDate=2026-04-30", &["Night", "Open"]),
        ("byTargetResource?targetResource=profile", &["News", "Night", "Sales", "Open"]),
        ("byTargetResource?targetResource=shop", &none),
        ("byChannel/byText?channel=sms&text=Ni", &["Night"]),
        ("byText%2FbyPlanning?text=N&startDate=2026-03-01&_lineCount=1", &["News", "Night"]),
    ] {
        assert_eq!(found(query), expected, "{query}");
    }
    for (query, pointer) in [
        ("byChannel", "channel"),
        ("byChannel?channel=fax", "channel"),
        ("byText", "text"),
        ("byPlanning?startDate=1.1.2026", "startDate"),
        ("byPlanning?endDate=2026-02-30", "endDate"),
        ("byTargetResource", "targetResource"),
        ("?_order=builtIn", "_order"),
        ("?_order=email", "_order"),
    ] {
        let answer = call(&server, "GET", &format!("{SERVICES}/{query}"), "");
        assert_eq!((answer.status, &answer.headers["desist-pointer"]), (400, &pointer.parse().unwrap()), "{query}: {}", answer.text);
    }
    for unknown in ["byEmail?email=a@b.co", "subscribers", "email", "byChannel/byChannel?channel=sms"] {
        assert_eq!(call(&server, "GET", &format!("{SERVICES}/{unknown}"), "").status, 404, "{unknown}");
    }
    let labels = walk(&server, &format!("{SERVICES}/byChannel/label?channel=sms&_lineCount=1")).concat();
    assert_eq!(labels, ["Night", "Sales"]);
}

#[test]
fn a_count_is_of_the_whole_list_wherever_its_caller_is() {
    let (_directory, server) = configured("");
    let news = service(&server, &json!({}));
    for _ in 0..2 {
        service(&server, &json!({}));
    }
    for _ in 0..3 {
        subscribed(&server, &profile(&server, &json!({ "lastName": "Vega" })), &news);
    }
    let mut counts = Vec::new();
    for list in [PROFILES, SERVICES, &format!("{SERVICES}/{news}/subscriptions")] {
        let first = shown(&server, &format!("{list}?_lineCount=1"));
        let (_, token) = first["next"]["href"].as_str().unwrap().split_once("_lineStart=").unwrap();
        for query in [
            "",
            "?_lineCount=1",
            "?_lineCount=1&_order=created",
            &format!("?_lineStart={token}"),
            &format!("?_lineCount=1&_lineStart={token}"),
        ] {
            counts.push((format!("{list}/_count{query}"), shown(&server, &format!("{list}/_count{query}"))["count"].as_u64()));
        }
    }
    counts.retain(|(_, count)| *count != Some(3));
    assert_eq!(counts, [], "each list has three");
}

#[test]
fn no_value_of_a_list_of_values_is_null() {
    let (_directory, server) = configured("");
    profile(&server, &json!({}));
    service(&server, &json!({}));
    let mut nulls = Vec::new();
    for resource in ["profile", "service"] {
        let metadata = shown(&server, &format!("/profileAndServices/resourceType/{resource}"));
        for name in metadata["content"].as_object().unwrap().keys() {
            let path = format!("/profileAndServices/{resource}/{name}");
            if shown(&server, &path)["content"][0].is_null() {
                nulls.push(path);
            }
        }
    }
    assert_eq!(nulls, [] as [String; 0], "unset texts are empty");
}

#[test]
fn pages_stay_in_step_while_others_write() {
    let (_directory, server) = configured("");
    for query in [
        "?_lineCount=4",
        "?_lineCount=4&_order=lastName",
        "?_lineCount=4&_order=lastName%20desc",
        "/byText?text=L&_lineCount=4",
        "?_lineCount=4&_order=created",
    ] {
        for old in all(&server, &format!("{PROFILES}?_lineCount=1000"), "PKey") {
            assert_eq!(call(&server, "DELETE", &format!("{PROFILES}/{old}"), "{}").status, 200);
        }
        let keys: Vec<String> = (0..12).map(|n| profile(&server, &json!({ "lastName": format!("L{n:02}") }))).collect();
        let mut seen: Vec<String> = Vec::new();
        let mut at = format!("{PROFILES}{query}");
        for turn in 0.. {
            let page = shown(&server, &at);
            seen.extend(content(&page).iter().map(|record| record["lastName"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"]["href"].as_str() else { break };
            at = below(&server, next);
            // In front of the place and behind it: one goes, one comes, and the last record shown goes itself.
            let last = key(content(&page).last().unwrap());
            assert_eq!(call(&server, "DELETE", &format!("{PROFILES}/{last}"), "{}").status, 200);
            for name in ["L00a", "L99"] {
                profile(&server, &json!({ "lastName": format!("{name}{turn}") }));
            }
        }
        for n in 0..keys.len() {
            let name = format!("L{n:02}");
            assert_eq!(seen.iter().filter(|seen| **seen == name).count(), 1, "{query}: {name} in {seen:?}");
        }
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{query}: nobody twice in {seen:?}");
    }
}

/// What becomes of a path before it goes into one segment.
type Form = fn(&str, &Server) -> String;

#[test]
fn a_whole_url_in_one_segment_is_the_url() {
    let (_directory, server) = configured("");
    let keys = people(&server);
    let news = service(&server, &json!({ "label": "News" }));
    for pkey in &keys[..3] {
        subscribed(&server, pkey, &news);
    }
    let wholes: [(&str, Form); 4] = [
        ("after campaign", |path, _| path.to_owned()),
        ("no slash in front", |path, _| path[1..].to_owned()),
        ("path", |path, _| format!("{CAMPAIGN}{path}")),
        ("link", |path, server| format!("{}{CAMPAIGN}{path}", server.private)),
    ];
    for (what, form) in wholes {
        for path in [
            format!("{PROFILES}?_lineCount=2"),
            format!("{PROFILES}/?_lineCount=2&_order=email%20desc"),
            format!("{PROFILES}/byText?text=Ve&_lineCount=2"),
            format!("{PROFILES}/byEmail%2FbyText?text=Ve&email=twins@example.org"),
            format!("{PROFILES}/byEmail?email=dee%2Bnews@example.org"),
            format!("{PROFILES}/{}/subscriptions/", keys[0]),
            format!("{PROFILES}/%40{}/subscriptions/", &keys[0][1..]),
            format!("{SERVICES}/{news}/subscriptions/?_lineCount=2"),
        ] {
            let plain = shown(&server, &path);
            let page = shown(&server, &whole(&form(&path, &server)));
            assert_eq!(page["content"], plain["content"], "{what}: {path}");
            // Pages turn by it.
            if let Some(next) = page["next"]["href"].as_str() {
                let direct = shown(&server, &below(&server, next));
                assert_eq!(shown(&server, &whole(&form(&below(&server, next), &server)))["content"], direct["content"], "{what}: {path}");
            }
        }
    }
    // The slashes encoded alone, as some send it; every method goes the same way.
    let segment = format!("/%2FprofileAndServices%2Fprofile%2F{}", keys[5]);
    assert_eq!(shown(&server, &segment)["firstName"], "Flo");
    assert_eq!(call(&server, "PATCH", &segment, r#"{"lastName":"Changed"}"#).status, 200);
    assert_eq!(call(&server, "DELETE", &whole(&format!("{PROFILES}/{}", keys[5])), "{}").status, 200);
    assert_eq!(call(&server, "GET", &format!("{PROFILES}/{}", keys[5]), "").status, 404);
    for (url, status) in [
        ("http://elsewhere.example/other/campaign/profileAndServices/profile", 404),
        ("/globex/campaign/profileAndServices/profile", 404),
        ("/profileAndServices/profile/../profile", 400),
        ("/acme/campaign/profileAndServices/%2E%2E/profile", 400),
        ("//", 404),
    ] {
        assert_eq!(call(&server, "GET", &whole(url), "").status, status, "{url}");
    }
    // A link of an answer leads back also when the public address has a path.
    std::fs::write(server.data.join("desist.toml"), "[server]\nprivate_url = \"https://optout.example.com/x\"\n").unwrap();
    assert!(server.run(&["reload"]).status.success());
    let page = call(&server, "GET", &format!("{PROFILES}?_lineCount=2"), "").json();
    let next = page["next"]["href"].as_str().unwrap();
    assert!(next.starts_with("https://optout.example.com/x/acme/campaign/profileAndServices/profile?"), "{next}");
    let followed = call(&server, "GET", &whole(next), "");
    assert_eq!(followed.status, 200, "{next}: {}", followed.text);
    assert_eq!(content(&followed.json()).len(), 2);
}
