//! The Campaign API over plain HTTP: services and subscriptions, descriptions, privacy requests,
//! tokens of a day, fields of the business's own, and who is let in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::campaign_http::{
    CAMPAIGN, GENERAL, GONE, PROFILES, ROOTS, SERVICES, all, below, call, checked, configured, content, key, made, profile, service, shown,
    start, subscribed, walk,
};
use crate::support::{Answer, Server, send};

pub const PRIVACY: &str = "/privacy/privacyTool";

/// Fields of the business's own, one of each type.
const FIELDS: &str = r#"
[[campaign.fields]]
name = "cusHobby"
type = "string"
label = "Hobby"
length = 20
searchable = true
[[campaign.fields]]
name = "cusSince"
type = "date"
searchable = true
[[campaign.fields]]
name = "cusSize"
type = "enumeration"
values = ["small", "large"]
searchable = true
[[campaign.fields]]
name = "cusNote"
type = "string"
[[campaign.fields]]
name = "cusPoints"
type = "number"
[[campaign.fields]]
name = "cusMember"
type = "boolean"
"#;

const EXT: &str = "/profileAndServicesExt/profile";

pub fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

/// A key of a role: its API key and its token.
pub fn key_of(server: &Server, role: &str) -> (Value, String, String) {
    let made = server.post("/v1/keys", &json!({ "name": role, "role": role }));
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (made["no"].clone(), text("api_key"), text("token"))
}

/// A request of the Campaign API with this key and token.
pub fn call_as(server: &Server, key: &str, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let token = format!("Bearer {token}");
    let headers = [("authorization", token.as_str()), ("x-api-key", key)];
    checked(send(method, &format!("{}{CAMPAIGN}{path}", server.private), body.as_bytes(), &headers), &format!("{method} {path}"))
}

fn denied(server: &Server, email: &str) -> bool {
    server.decide("email", email).0 == "deny"
}

#[test]
fn services_have_every_documented_field_and_a_name_of_their_own() {
    let (_directory, server) = configured("");
    let first = made(&server, SERVICES, &json!({}));
    let fields = [
        "PKey",
        "builtIn",
        "created",
        "desc",
        "end",
        "href",
        "isExternal",
        "isTemplate",
        "label",
        "lastModified",
        "limitedDuration",
        "mainDate",
        "messageType",
        "mode",
        "name",
        "publicLabel",
        "start",
        "subscriptions",
        "targetResource",
        "thumbnail",
        "title",
        "validityDuration",
    ];
    assert_eq!(names(&first), BTreeSet::from(fields));
    let pkey = key(&first);
    let href = format!("{}{CAMPAIGN}{SERVICES}/{pkey}", server.private);
    assert_eq!((&first["href"], &first["subscriptions"]), (&json!(href), &json!({ "href": format!("{href}/subscriptions/") })));
    for (name, value) in [
        ("name", json!("SVC1")),
        ("title", json!("(SVC1)")),
        ("builtIn", json!(false)),
        ("messageType", json!("email")),
        ("mode", json!("newsletter")),
        ("targetResource", json!("profile")),
        ("start", json!("")),
        ("desc", json!("")),
        ("limitedDuration", json!(false)),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    let named =
        made(&server, SERVICES, &json!({ "name": "SVC2", "label": "News", "messageType": "sms", "mode": "viral", "start": "2026-03-01" }));
    assert_eq!((&named["title"], &named["messageType"], &named["start"]), (&json!("News (SVC2)"), &json!("sms"), &json!("2026-03-01")));
    assert_eq!(made(&server, SERVICES, &json!({ "name": "" }))["name"], "SVC3", "the next free one");
    let one = format!("{SERVICES}/{pkey}");
    let changed = call(&server, "PATCH", &one, &json!({ "PKey": pkey, "href": "x", "label": "Weekly", "name": "SVC1" }).to_string());
    assert_eq!((changed.status, changed.json()), (200, json!({ "PKey": pkey, "href": href })));
    let after = shown(&server, &one);
    assert_eq!((&after["title"], &after["created"]), (&json!("Weekly (SVC1)"), &first["created"]));
    assert_eq!(call(&server, "PATCH", &one, r#"{"name":"WEEKLY"}"#).status, 200);
    assert_eq!(made(&server, SERVICES, &json!({}))["name"], "SVC1", "a name that is free again");
    assert_eq!(all(&server, SERVICES, "name"), ["WEEKLY", "SVC2", "SVC3", "SVC1"]);
    assert_eq!(shown(&server, &format!("{SERVICES}/_count")), json!({ "count": 4 }));
}

#[test]
fn subscriptions_are_the_same_from_both_sides_and_say_nothing_about_choices() {
    let (_directory, server) = configured("");
    let rosa = profile(&server, &json!({ "firstName": "Rosa", "lastName": "Vega", "email": "Rosa@example.org" }));
    let ivo = profile(&server, &json!({ "firstName": "Ivo" }));
    let (news, sales) = (service(&server, &json!({ "label": "News", "name": "NEWS" })), service(&server, &json!({ "label": "Sales" })));
    let (of_rosa, to_news) = (format!("{PROFILES}/{rosa}/subscriptions"), format!("{SERVICES}/{news}/subscriptions"));
    let first = subscribed(&server, &rosa, &news);
    let pkey = key(&first);
    let base = format!("{}{CAMPAIGN}", server.private);
    let (href, created) = (format!("{base}{to_news}/{pkey}"), first["created"].clone());
    assert!(created.as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{created}");
    assert_eq!(
        first,
        json!({
            "PKey": pkey, "href": href, "created": created, "email": "Rosa@example.org", "expirationDate": "", "metadata": "subscriptionRcp",
            "serviceName": "NEWS",
            "service": { "PKey": news, "href": format!("{base}{SERVICES}/{news}"), "label": "News", "name": "NEWS", "title": "News (NEWS)" },
            "subscriber": { "PKey": rosa, "href": format!("{base}{PROFILES}/{rosa}"), "email": "Rosa@example.org", "firstName": "Rosa", "lastName": "Vega" },
        })
    );
    for path in [format!("{of_rosa}/{pkey}"), format!("{to_news}/{pkey}"), below(&server, &href)] {
        assert_eq!(shown(&server, &path), first, "{path}");
    }
    // Twice, from both sides and by the links of the records: the first one again.
    let record = shown(&server, &format!("{PROFILES}/{rosa}"));
    let link = below(&server, record["subscriptions"]["href"].as_str().unwrap());
    for (path, body) in [
        (&of_rosa, json!({ "service": { "PKey": news } })),
        (&link, json!({ "service": { "PKey": news } })),
        (&to_news, json!({ "subscriber": { "PKey": rosa } })),
    ] {
        let again = call(&server, "POST", path, &body.to_string());
        assert_eq!((again.status, again.json()), (200, first.clone()), "{path}");
    }
    let second = made(&server, &to_news, &json!({ "subscriber": { "PKey": ivo } }));
    assert_eq!((&second["subscriber"]["firstName"], &second["service"]["name"]), (&json!("Ivo"), &json!("NEWS")));
    subscribed(&server, &rosa, &sales);

    assert_eq!(walk(&server, &of_rosa).concat()[0], first);
    for lines in 1..4 {
        let both = walk(&server, &format!("{to_news}/?_lineCount={lines}")).concat();
        assert_eq!(both, [first.clone(), second.clone()], "{lines}");
    }
    assert_eq!(shown(&server, &format!("{of_rosa}/_count")), json!({ "count": 2 }));
    for root in ROOTS {
        let page = shown(&server, &format!("/{root}/profile/{rosa}/subscriptions"));
        assert_eq!((content(&page).len(), &page["count"]["value"]), (2, &json!(2)), "{root}");
    }

    // What is another's is not found, and does not end.
    for path in [
        format!("{PROFILES}/{ivo}/subscriptions/{pkey}"),
        format!("{SERVICES}/{sales}/subscriptions/{pkey}"),
        format!("{PROFILES}/{GONE}/subscriptions/{pkey}"),
    ] {
        assert_eq!(call(&server, "GET", &path, "").status, 404, "{path}");
        assert_eq!(call(&server, "DELETE", &path, "{}").status, 404, "{path}");
    }
    // No subscription is a choice, and no end of one is.
    assert!(!denied(&server, "rosa@example.org"));
    let ended = call(&server, "DELETE", &below(&server, &href), "{}");
    assert_eq!((ended.status, ended.text.as_str()), (204, ""));
    assert_eq!(call(&server, "DELETE", &below(&server, &href), "").status, 404);
    assert_eq!(shown(&server, &format!("{to_news}/_count")), json!({ "count": 1 }));
    assert_ne!(key(&subscribed(&server, &rosa, &news)), pkey, "a new one");
    let latest = key(walk(&server, &of_rosa).concat().last().unwrap());
    assert_eq!(call(&server, "DELETE", &format!("{of_rosa}/{latest}"), "").status, 204, "from the profile's side too");
    assert!(!denied(&server, "rosa@example.org"));
    // A profile takes its subscriptions with it.
    subscribed(&server, &rosa, &news);
    assert_eq!(call(&server, "PATCH", &format!("{PROFILES}/{rosa}"), r#"{"ccpaOptOut":true}"#).status, 200);
    assert_eq!(shown(&server, &format!("{to_news}/_count")), json!({ "count": 2 }));
    assert_eq!(call(&server, "DELETE", &format!("{PROFILES}/{rosa}"), "{}").status, 200);
    assert_eq!(shown(&server, &format!("{to_news}/_count")), json!({ "count": 1 }));
    assert_eq!(walk(&server, &to_news).concat(), [second]);
    assert_eq!(call(&server, "GET", &of_rosa, "").status, 404);
    assert!(denied(&server, "rosa@example.org"));
    assert!(server.run(&["check"]).status.success());
}

#[test]
fn the_metadata_describe_what_the_calls_do() {
    let (_directory, server) = configured(FIELDS);
    let pkey = profile(&server, &json!({ "email": "rosa@example.org" }));
    service(&server, &json!({}));
    for root in ROOTS {
        for resource in ["profile", "service"] {
            let metadata = shown(&server, &format!("/{root}/resourceType/{resource}"));
            let members =
                ["content", "data", "filters", "help", "href", "label", "mandatory", "name", "pkgStatus", "readOnly", "schema", "type"];
            assert_eq!(names(&metadata), BTreeSet::from(members));
            assert_eq!((&metadata["name"], &metadata["type"]), (&json!(resource), &json!("item")));
            assert_eq!(metadata["data"], format!("/{root}/{resource}/"));
            assert_eq!(metadata["schema"], if resource == "profile" { "nms:recipient" } else { "nms:service" });
            let record = content(&shown(&server, &format!("/{root}/{resource}")))[0].clone();
            let fields = metadata["content"].as_object().unwrap();
            for (name, value) in record.as_object().unwrap() {
                let field = fields.get(name).unwrap_or_else(|| panic!("{name} is not described"));
                let ty = match value {
                    Value::Bool(_) => &["boolean"][..],
                    Value::Number(_) => &["number"],
                    Value::String(_) => &["string", "date", "enumeration"],
                    Value::Object(_) => &["item", "collection", "link"],
                    _ => &[],
                };
                assert!(ty.iter().any(|ty| field["type"] == *ty), "{name}: {field}");
                if name == "location" {
                    assert_eq!(names(&field["content"]), names(value));
                }
            }
            for (name, field) in fields {
                for member in ["apiName", "type", "dataPolicy", "category", "resType", "sortable"] {
                    assert!(field.get(member).is_some_and(|value| !value.is_null()), "{name}: {member}");
                }
                assert_eq!(field["apiName"], *name);
                assert_eq!(field["type"] == "enumeration", field["values"].is_object(), "{name}: {field}");
                assert_eq!(field["type"] == "collection", field["resTarget"].is_string(), "{name}: {field}");
                if field["type"] == "enumeration" {
                    let value = &field["values"][record[name].as_str().unwrap()];
                    assert_eq!((names(value), &value["name"]), (BTreeSet::from(["name", "label", "value"]), &record[name]), "{name}");
                }
                // What the metadata call sortable is what the lists sort by, and every field has a list of its values.
                let sorted = call(&server, "GET", &format!("/{root}/{resource}?_order={name}%20desc"), "").status;
                assert_eq!(sorted, if field["sortable"] == true { 200 } else { 400 }, "{root} {resource} {name}");
                let values = shown(&server, &format!("/{root}/{resource}/{name}"));
                assert_eq!(content(&values).len(), 1, "{name}");
                assert!(name == "acsId" || values["content"][0] == record[name], "{name}: {values}");
            }
            let is_sortable = |name: &str| fields.get(name).is_some_and(|field| field["sortable"] == true);
            if resource == "profile" {
                assert!(["email", "lastName", "firstName", "created", "lastModified"].into_iter().all(is_sortable));
                assert_eq!((&fields["ccpaOptOut"]["type"], &fields["ccpaOptOut"]["readOnly"]), (&json!("boolean"), &json!(false)));
                assert_eq!(fields["ccpaOptOutLastModified"]["readOnly"], true);
                let is_ext = root == "profileAndServicesExt";
                let custom: Vec<&str> = fields.keys().map(String::as_str).filter(|name| name.starts_with("cus")).collect();
                let all = ["cusHobby", "cusMember", "cusNote", "cusPoints", "cusSince", "cusSize"];
                assert_eq!(custom, if is_ext { &all[..] } else { &[] });
                assert_eq!((is_sortable("cusHobby"), is_sortable("cusSince"), is_sortable("cusNote")), (is_ext, is_ext, false));
                if is_ext {
                    assert_eq!(fields["cusHobby"]["label"], "Hobby");
                    assert_eq!(names(&fields["cusSize"]["values"]), BTreeSet::from(["", "small", "large"]));
                }
            }

            // The filters, under both links.
            let link = below(&server, metadata["filters"]["href"].as_str().unwrap());
            let filters = shown(&server, &link);
            assert_eq!(shown(&server, link.strip_suffix("/filters/").unwrap()), filters);
            let mut expected = match resource {
                "profile" => BTreeSet::from(["byEmail", "byKeysProfile", "byText", "subscribers"]),
                _ => BTreeSet::from(["byChannel", "byPlanning", "byTargetResource", "byText"]),
            };
            if (root, resource) == ("profileAndServicesExt", "profile") {
                expected.insert("byCcpaOptOut");
            }
            assert_eq!(names(&filters), expected);
            for (name, filter) in filters.as_object().unwrap() {
                let members = ["PKey", "category", "condition", "data", "formType", "fragmentName", "label", "metadata"];
                assert_eq!(names(filter), BTreeSet::from(members), "{name}");
                let data = filter["data"].as_str().unwrap();
                let (path, query) = data.split_once('?').unwrap();
                assert_eq!(path, format!("/{root}/{resource}/{name}"));
                let parameters: BTreeSet<&str> = query.split('&').map(|pair| pair.split_once('=').unwrap().0).collect();
                assert_eq!(parameters, names(&filter["metadata"]), "{name}");
                let answer = call(&server, "GET", path, "");
                assert_ne!(answer.status, 404, "{name} is served");
            }
        }
    }
    let history = shown(&server, "/profileAndServices/resourceType/history");
    let summary = shown(&server, &format!("/profileAndServices/history/{pkey}"));
    assert!(names(&summary).is_superset(&names(&history["content"])), "{summary}");
    assert_eq!(content(&shown(&server, &below(&server, summary["events"]["href"].as_str().unwrap()))), &[] as &[Value]);

    let index = shown(&server, "/profileAndServicesExt");
    assert_eq!((names(&index), &index["apiName"]), (BTreeSet::from(["apiName", "profile", "service"]), &json!("resourceType")));
    for resource in ["profile", "service"] {
        assert_eq!(names(&index[resource]), BTreeSet::from(["content", "data", "help", "href", "name", "type"]));
        assert_eq!(index[resource]["type"], "collection");
        let described = shown(&server, &below(&server, index[resource]["href"].as_str().unwrap()));
        assert_eq!(described["name"], resource);
    }
}

/// A privacy request about an e-mail address.
pub fn privacy(name: &str, kind: &str, email: &str) -> Value {
    json!({ "name": name, "namespaceName": "email", "reconciliationValue": email, "label": format!("About {name}"), "type": kind, "regulation": "ccpa" })
}

/// The data file of a request.
fn file(server: &Server, asked: &Value) -> Value {
    let href = asked["privacyRequestData"]["href"].as_str().unwrap();
    let answer = call(server, "POST", &below(server, href), &json!({ "name": asked["name"] }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(answer.json().as_str().expect("a JSON string")).expect("of JSON")
}

#[test]
fn a_privacy_request_shows_what_is_stored_about_a_person() {
    let (_directory, server) = configured(FIELDS);
    let rosa = key(&made(
        &server,
        EXT,
        &json!({ "email": "Rosa@example.org", "mobilePhone": "(212) 555-2368", "firstName": "Rosa", "cusHobby": "Dancing", "ccpaOptOut": true }),
    ));
    let other = profile(&server, &json!({ "email": "ivo@example.org", "phone": "+1 212 555 2368" }));
    let news = service(&server, &json!({ "name": "NEWS" }));
    subscribed(&server, &rosa, &news);
    let asked = made(&server, PRIVACY, &privacy("r1", "access", "rosa@EXAMPLE.org"));
    let members = [
        "PKey",
        "href",
        "audit",
        "created",
        "desc",
        "label",
        "lastModified",
        "name",
        "namespace",
        "namespaceName",
        "reconciliationValue",
        "regulation",
        "retryCount",
        "status",
        "title",
        "type",
        "gdprRequestData",
        "privacyRequestData",
    ];
    assert_eq!(names(&asked), BTreeSet::from(members));
    let href = format!("{}{CAMPAIGN}{PRIVACY}/{}", server.private, key(&asked));
    for (name, value) in [
        ("href", json!(href)),
        ("name", json!("r1")),
        ("label", json!("About r1")),
        ("namespaceName", json!("email")),
        ("reconciliationValue", json!("rosa@EXAMPLE.org")),
        ("regulation", json!("ccpa")),
        ("retryCount", json!(0)),
        ("status", json!("complete")),
        ("type", json!("access")),
    ] {
        assert_eq!(asked[name], value, "{name}");
    }
    assert_eq!(asked["gdprRequestData"], asked["privacyRequestData"]);
    assert_eq!(names(&asked["namespace"]), BTreeSet::from(["PKey", "title"]));
    assert_eq!(shown(&server, &format!("{PRIVACY}/{}", key(&asked))), asked);

    let data = file(&server, &asked);
    assert_eq!((&data["name"], &data["regulation"], &data["choices"]["sale"]), (&json!("r1"), &json!("ccpa"), &json!("opted_out")));
    assert_eq!(data["subject"], json!({ "namespace": "email", "value": "rosa@EXAMPLE.org" }));
    let found = data["profiles"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    let mut expected = shown(&server, &format!("{EXT}/{rosa}"));
    expected["subscriptions"] = found[0]["subscriptions"].clone();
    assert_eq!(found[0], expected, "every field, the business's own too");
    assert_eq!((&found[0]["cusHobby"], &found[0]["subscriptions"][0]["serviceName"]), (&json!("Dancing"), &json!("NEWS")));
    // It is what is stored at the time of reading.
    call(&server, "PATCH", &format!("{PROFILES}/{rosa}"), r#"{"lastName":"Vega"}"#);
    assert_eq!(file(&server, &asked)["profiles"][0]["lastName"], "Vega");
    // Both names of the namespace, every case, both telephone fields.
    for (number, (member, namespace, value, keys)) in [
        ("namespace", "Email", "ivo@example.org", vec![&other]),
        ("namespaceName", "defaultNamespace1", "ivo@example.org", vec![&other]),
        ("namespace", "mobilePhone", "+12125552368", vec![&rosa, &other]),
        ("namespaceName", "PHONE", "212-555-2368", vec![&rosa, &other]),
        ("namespaceName", "email", "nobody@example.org", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = json!({ "name": format!("n{number}"), "reconciliationValue": value, "type": "Access", "regulation": "CCPA" });
        body[member] = namespace.into();
        let asked = made(&server, PRIVACY, &body);
        let status = if keys.is_empty() { "errorDataNotFound" } else { "complete" };
        assert_eq!((&asked["status"], &asked["regulation"], &asked["type"]), (&json!(status), &json!("ccpa"), &json!("access")), "{value}");
        let found: Vec<String> = file(&server, &asked)["profiles"].as_array().unwrap().iter().map(key).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), keys, "{value}");
    }
    // The list.
    assert_eq!(all(&server, PRIVACY, "name"), ["r1", "n0", "n1", "n2", "n3", "n4"]);
    assert_eq!(walk(&server, &format!("{PRIVACY}?_lineCount=4")).iter().map(Vec::len).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(content(&shown(&server, &format!("{PRIVACY}/")))[0], asked);

    // The data call takes no body, too; another request's name is a mistake.
    let link = format!("{PRIVACY}/{}/data", key(&asked));
    for (body, status) in [("", 200), ("{}", 200), (r#"{"name":"r1"}"#, 200), (r#"{"name":"n1"}"#, 400), ("[]", 400), ("x", 400)] {
        let answer = call(&server, "POST", &link, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let (_, reader, token) = key_of(&server, "reader");
    assert_eq!(call_as(&server, &reader, &token, "POST", &link, "{}").status, 200, "it reads");
    for kind in ["access", "delete"] {
        let refused = call_as(&server, &reader, &token, "POST", PRIVACY, &privacy("r9", kind, "rosa@example.org").to_string());
        assert_eq!((refused.status, &refused.json()["error_code"]), (403, &json!("403023")), "{kind}");
    }
    assert_eq!(shown(&server, &format!("{PROFILES}/_count")), json!({ "count": 2 }));
}

#[test]
fn a_privacy_deletion_takes_the_data_and_leaves_the_choice() {
    let (_directory, server) = configured("");
    let news = service(&server, &json!({}));
    let rosa = profile(&server, &json!({ "email": "Rosa@example.org", "lastName": "Vega" }));
    let twin = profile(&server, &json!({ "email": "rosa@example.org", "lastName": "Vega2" }));
    let ivo = profile(&server, &json!({ "email": "ivo@example.org", "lastName": "Ivo" }));
    subscribed(&server, &rosa, &news);
    // Ivo is linked to the address; it stands in no field of his.
    let linked = json!({ "identifiers": [{ "kind": "campaign_pkey", "value": ivo }, { "kind": "email", "value": "rosa@example.org" }] });
    assert_eq!(server.post("/v1/identifiers/link", &linked).status, 200);
    assert_eq!(call(&server, "PATCH", &format!("{PROFILES}/{rosa}"), r#"{"ccpaOptOut":true}"#).status, 200);
    let access = made(&server, PRIVACY, &privacy("a", "access", "rosa@example.org"));
    let deletion = made(&server, PRIVACY, &privacy("d", "DELETE", "rosa@example.org"));
    assert_eq!((&deletion["status"], &deletion["type"]), (&json!("complete"), &json!("delete")));
    assert!(deletion.get("privacyRequestData").is_none() && deletion.get("gdprRequestData").is_none(), "{deletion}");
    let (one, data) = (format!("{PRIVACY}/{}", key(&deletion)), format!("{PRIVACY}/{}/data", key(&deletion)));
    assert_eq!(call(&server, "POST", &data, r#"{"name":"d"}"#).status, 404, "a deletion has no data file");
    assert_eq!(shown(&server, &one)["reconciliationValue"], "", "the address would be the last of what was deleted");
    for gone in [&rosa, &twin] {
        assert_eq!(call(&server, "GET", &format!("{PROFILES}/{gone}"), "").status, 404);
    }
    assert_eq!(all(&server, PROFILES, "lastName"), ["Ivo"]);
    for path in ["byEmail?email=rosa@example.org", "byText?text=Vega", "byText?text=Rosa"] {
        assert!(walk(&server, &format!("{PROFILES}/{path}")).concat().is_empty(), "{path}");
    }
    assert_eq!(shown(&server, &format!("{SERVICES}/{news}/subscriptions/_count")), json!({ "count": 0 }));
    assert!(denied(&server, "rosa@example.org") && server.decide("campaign_pkey", &rosa).0 == "deny", "the choice stays");
    let left = file(&server, &access);
    assert_eq!((&left["profiles"], &left["choices"]["sale"]), (&json!([]), &json!("opted_out")));
    // The same person again, and somebody who never was.
    for (name, email) in [("d2", "rosa@example.org"), ("d3", "nobody@example.org")] {
        let again = made(&server, PRIVACY, &privacy(name, "delete", email));
        assert_eq!(again["status"], "errorDataNotFound", "{email}");
        assert!(again.get("privacyRequestData").is_none());
    }
    // A name is used once, whatever became of its request.
    for name in ["a", "d", "d3"] {
        let taken = call(&server, "POST", PRIVACY, &privacy(name, "delete", "ivo@example.org").to_string());
        assert_eq!(taken.status, 500, "{}", taken.text);
        assert!(taken.text.contains("PGS-220000"), "{}", taken.text);
    }
    assert_eq!(all(&server, PROFILES, "lastName"), ["Ivo"], "nothing was deleted");
    let again = made(&server, PROFILES, &json!({ "email": "rosa@example.org" }));
    assert_eq!(again["ccpaOptOut"], true, "a new profile of the address is opted out");
    assert!(server.run(&["check"]).status.success());
}

#[test]
fn an_address_of_more_profiles_than_one_person_has_deletes_nobody() {
    let (_directory, server) = configured("");
    let many = |email: &str, count: usize| {
        for n in 0..count {
            profile(&server, &json!({ "email": email, "lastName": format!("L{n}") }));
        }
    };
    let count = |email: &str| shown(&server, &format!("{PROFILES}/byEmail/_count?email={email}"))["count"].as_u64();
    many("none@none.com", 65);
    many("family@example.org", 64);
    let (before, requests) = (shown(&server, &format!("{PROFILES}/_count")), shown(&server, &format!("{PRIVACY}/_count")));
    for kind in ["delete", "access"] {
        let refused = call(&server, "POST", PRIVACY, &privacy("none", kind, "None@None.com").to_string());
        assert_eq!(refused.status, 400, "{}", refused.text);
        let text = refused.json();
        let text = text.as_str().unwrap();
        assert!(text.starts_with(&format!("{GENERAL}'reconciliationValue' must be one person's")) && !text.contains('@'), "{text}");
        assert_eq!(refused.headers["desist-pointer"], "reconciliationValue");
    }
    assert_eq!((shown(&server, &format!("{PROFILES}/_count")), count("none@none.com")), (before, Some(65)));
    assert_eq!(shown(&server, &format!("{PRIVACY}/_count")), requests, "what was refused is no request");
    // One less can be carried out, and so can those 65 when one has gone.
    assert_eq!(made(&server, PRIVACY, &privacy("family", "delete", "family@example.org"))["status"], "complete");
    assert_eq!((count("family@example.org"), count("none@none.com")), (Some(0), Some(65)));
    let first = key(&content(&shown(&server, &format!("{PROFILES}/byEmail?email=none@none.com")))[0]);
    assert_eq!(call(&server, "DELETE", &format!("{PROFILES}/{first}"), "").status, 200);
    assert_eq!(made(&server, PRIVACY, &privacy("none", "delete", "none@none.com"))["status"], "complete");
    assert_eq!(shown(&server, &format!("{PROFILES}/_count")), json!({ "count": 0 }));
    assert!(server.run(&["check"]).status.success());
}

#[test]
fn fields_of_the_business_are_under_the_ext_root_alone() {
    for compat in ["adobe", "strict"] {
        let (_directory, server) = configured(&format!("[campaign]\ncompat = \"{compat}\"\n{FIELDS}"));
        let record = json!({ "lastName": "Vega", "cusHobby": "Dancing", "cusSince": "2024-02-29", "cusSize": "large", "cusNote": "n", "cusPoints": 1.5, "cusMember": true });
        let first = made(&server, EXT, &record);
        for (name, value) in record.as_object().unwrap() {
            assert_eq!(first[name], *value, "{name}");
        }
        let pkey = key(&first);
        let second = made(&server, PROFILES, &json!({ "lastName": "Ruiz" }));
        let unset = json!({ "cusHobby": "", "cusSince": "", "cusSize": "", "cusNote": "", "cusPoints": 0, "cusMember": false });
        let plain = shown(&server, &format!("{EXT}/{}", key(&second)));
        for (name, value) in unset.as_object().unwrap() {
            assert_eq!(plain[name], *value, "{name} while nobody has set it");
        }
        let refused = if compat == "strict" { 400 } else { 500 };
        for root in &ROOTS[..2] {
            let one = format!("/{root}/profile/{pkey}");
            for record in [shown(&server, &one), content(&shown(&server, &format!("/{root}/profile")))[0].clone()] {
                assert!(names(&record).iter().all(|name| !name.starts_with("cus")), "{root}");
            }
            assert_eq!(call(&server, "GET", &format!("/{root}/profile/cusHobby"), "").status, 404, "{root}");
            for (name, value) in record.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("cus")) {
                for (method, path) in [("PATCH", one.clone()), ("POST", format!("/{root}/profile"))] {
                    let answer = call(&server, method, &path, &json!({ "lastName": "X", name: value }).to_string());
                    let says = format!("{GENERAL}'{name}' property is not valid for the 'profile' resource.");
                    assert_eq!((answer.status, answer.json()), (refused, json!(says)), "{root}");
                    assert_eq!(answer.headers["desist-pointer"], name.as_str());
                }
            }
            // A write under another root leaves them as they are.
            assert_eq!(call(&server, "PATCH", &one, r#"{"firstName":"Rosa"}"#).status, 200);
            assert_eq!(shown(&server, &format!("{EXT}/{pkey}"))["cusHobby"], "Dancing");
            for query in ["byText?text=D&filterType=cusHobby", "byText?text=D&filterType=Hobby", "?_order=cusHobby"] {
                assert_eq!(call(&server, "GET", &format!("/{root}/profile/{query}"), "").status, 400, "{root} {query}");
            }
        }
        let one = format!("{EXT}/{pkey}");
        let before = shown(&server, &one);
        let wrong = |name: &str, from: &str, to: &str| format!("BAS-010040 Cannot convert '{name}' (type {from}) to {to}.");
        let general = |text: &str| format!("{GENERAL}{text}");
        for (name, value, adobe, says) in [
            ("cusHobby", json!(7), 500, wrong("cusHobby", "number", "text")),
            ("cusHobby", json!(null), 500, wrong("cusHobby", "null", "text")),
            ("cusHobby", json!("x".repeat(21)), 400, general("'cusHobby' is longer than 20 characters.")),
            ("cusHobby", json!("a\u{0}"), 400, general("'cusHobby' must be text without control characters.")),
            ("cusNote", json!("x".repeat(256)), 400, general("'cusNote' is longer than 255 characters.")),
            ("cusNote", json!({}), 500, wrong("cusNote", "item", "text")),
            ("cusSince", json!("2023-02-29"), 500, wrong("cusSince", "text", "date")),
            ("cusSince", json!("29.2.2024"), 500, wrong("cusSince", "text", "date")),
            ("cusSince", json!(true), 500, wrong("cusSince", "boolean", "date")),
            ("cusSize", json!("huge"), 500, general("The value 'huge' is not in the enumeration of 'cusSize'.")),
            ("cusSize", json!("Large"), 500, general("The value 'Large' is not in the enumeration of 'cusSize'.")),
            ("cusSize", json!(1), 500, wrong("cusSize", "number", "enumeration")),
            ("cusPoints", json!("1"), 500, wrong("cusPoints", "text", "number")),
            ("cusPoints", json!([1]), 500, wrong("cusPoints", "collection", "number")),
            ("cusMember", json!("true"), 500, wrong("cusMember", "text", "boolean")),
            ("cusMember", json!(1), 500, wrong("cusMember", "number", "boolean")),
            ("cusmember", json!(true), 500, general("'cusmember' property is not valid for the 'profile' resource.")),
        ] {
            let answer = call(&server, "PATCH", &one, &json!({ "lastName": "X", name: value }).to_string());
            let status = if adobe == 500 { refused } else { adobe };
            assert_eq!((answer.status, answer.json()), (status, json!(says)), "{name}");
            assert_eq!(answer.headers["desist-pointer"], name);
        }
        assert_eq!(shown(&server, &one), before);
        for (body, name, value) in [
            (r#"{"cusSize":""}"#, "cusSize", json!("")),
            (r#"{"cusPoints":-3}"#, "cusPoints", json!(-3)),
            (r#"{"cusMember":false}"#, "cusMember", json!(false)),
            (r#"{"cusSince":""}"#, "cusSince", json!("")),
            (r#"{"cusHobby":" Chess "}"#, "cusHobby", json!("Chess")),
        ] {
            assert_eq!(call(&server, "PATCH", &one, body).status, 200, "{body}");
            assert_eq!(shown(&server, &one)[name], value);
        }
        // A record as it was read comes back whole, what the server sets left out.
        let mut record = shown(&server, &one);
        let metadata = shown(&server, "/profileAndServicesExt/resourceType/profile");
        let is_own = |name: &str| metadata["content"][name]["readOnly"] == false && name != "ccpaOptOut";
        record.as_object_mut().unwrap().retain(|name, _| is_own(name));
        assert_eq!(call(&server, "PATCH", &one, &record.to_string()).status, 200);
    }
}

#[test]
fn searchable_fields_are_searched_and_sorted() {
    let (_directory, server) = configured(FIELDS);
    for (last, hobby, since, size) in [
        ("A", "Dancing", "2024-02-29", "small"),
        ("B", "Darts", "", "large"),
        ("C", "dancing", "2023-01-01", ""),
        ("D", "", "2024-02-28", "small"),
    ] {
        made(&server, EXT, &json!({ "lastName": last, "cusHobby": hobby, "cusSince": since, "cusSize": size }));
    }
    let found = |query: &str| all(&server, &format!("{EXT}{query}"), "lastName");
    for (query, expected) in [
        ("/byText?text=Da&filterType=cusHobby", &["A", "B"][..]),
        ("/byText?text=Da&filterType=Hobby", &["A", "B"]),
        ("/byText?cusHobby=Dancing&filterType=Hobby", &["A"]),
        ("/byText?cusHobby=d&filterType=cusHobby", &["C"]),
        ("/byText?text=2024-02&filterType=cusSince", &["D", "A"]),
        ("/byText?text=small&filterType=Size", &["A", "D"]),
        ("/byText?text=Da", &[]),
        ("?_order=cusHobby", &["D", "A", "B", "C"]),
        ("?_order=cusHobby%20desc", &["C", "B", "A", "D"]),
        ("?_order=cusSince", &["B", "C", "D", "A"]),
        ("?_order=cusSize%20desc", &["D", "A", "B", "C"]),
        ("/byText?text=Da&filterType=Hobby&_order=cusSince", &["B", "A"]),
    ] {
        for lines in 1..=4 {
            let mark = if query.contains('?') { '&' } else { '?' };
            assert_eq!(found(&format!("{query}{mark}_lineCount={lines}")), expected, "{query} by {lines}");
        }
    }
    assert_eq!(walk(&server, &format!("{EXT}/cusHobby?_order=cusHobby&_lineCount=2")).concat(), ["", "Dancing", "Darts", "dancing"]);
    for (query, pointer) in [
        ("/byText?text=n&filterType=cusNote", "filterType"),
        ("/byText?text=1&filterType=cusPoints", "filterType"),
        ("/byText?text=1&filterType=cusNone", "filterType"),
        ("/byText?text=1&filterType=hobby", "filterType"),
        ("/byText?text=D&cusHobby=E&filterType=Hobby", "text"),
        ("/byText?cusHobby=Dancing", "text"),
        ("?_order=cusNote", "_order"),
        ("?_order=cusPoints", "_order"),
        ("?_order=Hobby", "_order"),
    ] {
        let answer = call(&server, "GET", &format!("{EXT}{query}"), "");
        assert_eq!((answer.status, &answer.headers["desist-pointer"]), (400, &pointer.parse().unwrap()), "{query}: {}", answer.text);
    }
}

#[test]
fn profiles_are_listed_by_their_opt_out() {
    let (_directory, server) = configured("");
    let one = |name: &str, email: &str, out: bool| profile(&server, &json!({ "lastName": name, "email": email, "ccpaOptOut": out }));
    let a = one("A", "a@example.org", true);
    one("B", "b@example.org", false);
    one("C", "twins@example.org", true);
    one("D", "twins@example.org", false);
    one("E", "", true);
    one("F", "f@example.org", false);
    let by_form = server.post(
        "/v1/requests",
        &json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "f@example.org" }] }),
    );
    assert_eq!(by_form.status, 201);
    let found = |query: &str| {
        let mut found = all(&server, &format!("{EXT}/{query}"), "lastName");
        found.sort();
        found
    };
    let both = |out: &[&str], not: &[&str]| {
        for lines in 1..=7 {
            assert_eq!(found(&format!("byCcpaOptOut?ccpaOptOut_parameter=true&_lineCount={lines}")), out, "{lines}");
            assert_eq!(found(&format!("byCcpaOptOut?ccpaOptOut_parameter=false&_lineCount={lines}")), not, "{lines}");
            let sorted =
                all(&server, &format!("{EXT}/byCcpaOptOut?ccpaOptOut_parameter=true&_lineCount={lines}&_order=lastName"), "lastName");
            assert_eq!(sorted, out, "{lines}");
        }
        for (parameter, wanted) in [("true", true), ("false", false)] {
            for record in walk(&server, &format!("{EXT}/byCcpaOptOut?ccpaOptOut_parameter={parameter}")).concat() {
                assert_eq!(record["ccpaOptOut"], wanted, "{record}");
            }
        }
    };
    both(&["A", "C", "D", "E", "F"], &["B"]);
    assert_eq!(found("byCcpaOptOut/byText?ccpaOptOut_parameter=true&text=twins"), ["C", "D"]);
    assert_eq!(call(&server, "PATCH", &format!("{PROFILES}/{a}"), r#"{"ccpaOptOut":false}"#).status, 200);
    both(&["C", "D", "E", "F"], &["A", "B"]);
    assert_eq!(call(&server, "PATCH", &format!("{PROFILES}/{a}"), r#"{"email":"f@example.org"}"#).status, 200);
    both(&["A", "C", "D", "E", "F"], &["B"]);
    assert_eq!(call(&server, "DELETE", &format!("{PROFILES}/{a}"), "{}").status, 200);
    both(&["C", "D", "E", "F"], &["B"]);
    for bad in ["", "?ccpaOptOut_parameter=", "?ccpaOptOut_parameter=1", "?ccpaOptOut_parameter=True", "?ccpaOptOut=true"] {
        let answer = call(&server, "GET", &format!("{EXT}/byCcpaOptOut{bad}"), "");
        assert_eq!((answer.status, &answer.headers["desist-pointer"]), (400, &"ccpaOptOut_parameter".parse().unwrap()), "{bad}");
    }
    for root in &ROOTS[..2] {
        assert_eq!(call(&server, "GET", &format!("/{root}/profile/byCcpaOptOut?ccpaOptOut_parameter=true"), "").status, 404, "{root}");
    }
}

#[test]
fn answers_are_the_same_whatever_the_store_keeps_in_clear() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(directory.path(), FIELDS);
    let mut number = 0;
    let mut write = |server: &Server| {
        for _ in 0..4 {
            number += 1;
            let record = json!({ "firstName": format!("F{}", number % 3), "lastName": format!("L{}", number % 5), "email": format!("e{}@example.org", number % 4), "cusHobby": format!("H{}", number % 2) });
            made(server, EXT, &record);
        }
        let keys = all(server, PROFILES, "PKey");
        let changed = json!({ "lastName": format!("Changed{number}"), "email": "", "cusHobby": "Ha" });
        assert_eq!(call(server, "PATCH", &format!("{EXT}/{}", keys[0]), &changed.to_string()).status, 200);
        assert_eq!(call(server, "DELETE", &format!("{PROFILES}/{}", keys[1]), "{}").status, 200);
    };
    let questions = |server: &Server| -> Vec<(String, Vec<Value>)> {
        let mut answers = Vec::new();
        for list in [
            "",
            "/byText?text=L",
            "/byText?text=e1",
            "/byText?text=F1&filterType=firstName",
            "/byText?text=H&filterType=Hobby",
            "/byText?text=e&filterType=email",
            "/byEmail?email=e2@example.org",
            "/byText/byEmail?text=L&email=E2@example.org",
        ] {
            for order in ["", "_order=email", "_order=lastName%20desc", "_order=firstName", "_order=cusHobby%20desc"] {
                let mark = if list.contains('?') { '&' } else { '?' };
                let path = format!("{EXT}{list}{mark}{order}&_lineCount=5");
                let mut records = walk(server, &path).concat();
                for record in &mut records {
                    // The port of the listener is another one after each start.
                    for link in ["href", "subscriptions"] {
                        record.as_object_mut().unwrap().remove(link);
                    }
                }
                answers.push((path, records));
            }
        }
        answers
    };
    let ready = |server: &Server, what: &str| {
        let since = Instant::now();
        while call(server, "GET", &format!("{EXT}?_order=cusHobby"), "").status == 503 {
            assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        }
    };
    write(&server);
    let mut before = questions(&server);
    for searchable in [r#"["email", "lastName", "firstName", "cusHobby"]"#, r#"["lastName"]"#, "[]", r#"["cusHobby", "email"]"#] {
        // What was answered before the setting changed is what is answered after it.
        let toml = format!("[vault]\nsearchable = {searchable}\n{FIELDS}");
        assert!(server.stop().success());
        server = start(directory.path(), &toml);
        ready(&server, searchable);
        assert_eq!(questions(&server), before, "{searchable}");
        for _ in 0..2 {
            write(&server);
        }
        before = questions(&server);
        assert!(before.iter().any(|(_, records)| records.len() > 5), "more than a page");
        assert!(server.stop().success());
        server = start(directory.path(), &toml);
        ready(&server, searchable);
        assert_eq!(questions(&server), before, "{searchable}: after a restart");
        let check = server.run(&["check"]);
        assert!(check.status.success(), "{searchable}: {}", String::from_utf8_lossy(&check.stdout));
    }
    // The same without a restart.
    for searchable in [r#"["firstName"]"#, "[]", r#"["email", "lastName", "firstName", "cusHobby"]"#] {
        std::fs::write(directory.path().join("desist.toml"), format!("[vault]\nsearchable = {searchable}\n{FIELDS}")).unwrap();
        assert!(server.run(&["reload"]).status.success());
        ready(&server, searchable);
        crate::campaign_http::lists_are_made(&server);
        assert_eq!(questions(&server), before, "{searchable}: after a reload");
        write(&server);
        before = questions(&server);
    }
    assert!(server.run(&["check"]).status.success());
}
