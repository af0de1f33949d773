//! Lists through the client: pages, orders, filters, links.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::driver::{Client, FIELDS, FORMS, Form, GENERAL, GONE, assert_page, column, configured, no_such_resource, sorted, text};
use crate::support::Server;

#[test]
fn pages_follow_each_other_and_nobody_is_missing_or_there_twice() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    assert_eq!(client.body(200, "getAllProfiles", &json!([]))["content"], json!([]));
    let mut emails = Vec::new();
    for number in 0..57 {
        // Texts of which few differ, and an e-mail that shows the order; the numbers are not in it.
        let (size, last_name) = (["", "small", "large"][number % 3], format!("{}-name", number % 5));
        let email = format!("p{:02}@example.org", number * 23 % 57);
        let record = json!({ "email": email, "lastName": last_name, "cusSize": size, "cusHobby": format!("h{:02}", 56 - number) });
        client.body(201, "createCustomResource", &json!(["profile", record]));
        emails.push(email);
    }
    let everybody = sorted(emails.clone());

    // What the client sends, how many records each page has, and the column that the order shows in.
    for (at, (method, parameters, sizes, order)) in [
        ("getAllProfiles", json!({}), vec![25, 25, 7], None),
        ("getAllProfiles", json!({ "lineCount": 0 }), vec![25, 25, 7], None),
        ("getAllProfiles", json!({ "hasCustomFilter": true, "limit": 10, "page": 3, "_forcePagination": true }), vec![25, 25, 7], None),
        ("getAllProfiles", json!({ "lineCount": 56 }), vec![56, 1], None),
        ("getAllProfiles", json!({ "lineCount": 57 }), vec![57], None),
        ("getAllProfiles", json!({ "lineCount": 5000 }), vec![57], None),
        ("getAllProfiles", json!({ "lineCount": 10, "order": "email" }), vec![10, 10, 10, 10, 10, 7], Some(("email", false))),
        ("getAllProfiles", json!({ "order": "email", "descendingSort": true }), vec![25, 25, 7], Some(("email", true))),
        ("getAllProfiles", json!({ "lineCount": 4, "order": "lastName" }), [vec![4; 14], vec![1]].concat(), Some(("lastName", false))),
        (
            "getAllProfiles",
            json!({ "lineCount": 4, "order": "lastName", "descendingSort": true, "hasCustomFilter": true }),
            [vec![4; 14], vec![1]].concat(),
            Some(("lastName", true)),
        ),
        ("getAllProfiles", json!({ "lineCount": 20, "order": "created" }), vec![20, 20, 17], Some(("created", false))),
        (
            "getAllProfiles",
            json!({ "lineCount": 20, "order": "lastModified", "descendingSort": true }),
            vec![20, 20, 17],
            Some(("lastModified", true)),
        ),
        ("getAllProfileAndServicesExt", json!({ "lineCount": 19, "order": "cusSize" }), vec![19, 19, 19], Some(("cusSize", false))),
        ("getAllProfileAndServicesExt", json!({ "order": "cusHobby", "descendingSort": true }), vec![25, 25, 7], Some(("cusHobby", true))),
        ("getAllCustomResources", json!({ "lineCount": 30, "order": "email" }), vec![30, 27], Some(("email", false))),
    ]
    .into_iter()
    .enumerate()
    {
        let arguments = if method == "getAllProfiles" { json!([parameters]) } else { json!(["profile", parameters]) };
        let mut answer = client.answer(200, method, &arguments);
        let (url, first) = (answer["url"].clone(), answer["body"].take());
        let is_ext = method != "getAllProfiles" || parameters["hasCustomFilter"] == true;
        assert_eq!(text(&url).contains("/profileAndServicesExt/profile/"), is_ext, "{url}");
        assert_eq!(text(&url).contains("%2520desc"), parameters["descendingSort"] == true, "this client encodes the order twice: {url}");
        assert_eq!(client.count(&first), 57, "{arguments}");
        let pages = client.pages(first, FORMS[at % FORMS.len()]);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{arguments}");
        let shown: Vec<&Value> = pages.iter().flatten().collect();
        assert_eq!(sorted(column(shown.iter().copied(), "email")), everybody, "{arguments}");
        assert!(shown.iter().all(|profile| profile.get("cusHobby").is_some() == is_ext), "{arguments}");
        let root = if is_ext { "profileAndServicesExt" } else { "profileAndServices" };
        for profile in &shown {
            assert_eq!(profile["href"], format!("{}/{root}/profile/{}", client.campaign, text(&profile["PKey"])), "the caller's root");
        }
        if let Some((name, descending)) = order {
            let mut values = column(shown, name);
            if descending {
                values.reverse();
            }
            assert_eq!(values, sorted(values.clone()), "{arguments}");
        }
    }
    let one = client.body(200, "getAllProfiles", &json!([{ "lineCount": 1 }]))["content"][0].take();
    assert_eq!(one, client.body(200, "getProfile", &json!([one["PKey"]])), "a list shows whole profiles");

    // The values of one attribute, and numbers alone.
    let values = client.body(200, "getAllProfiles", &json!([{ "filters": ["email"], "lineCount": 20, "order": "email" }]));
    assert_eq!(client.count(&values), 57);
    let values = client.pages(values, Form::BelowCampaign);
    assert_eq!(values.concat(), everybody.iter().map(|email| json!(email)).collect::<Vec<_>>());
    for filters in [json!(["_count"]), json!(["email", "_count"])] {
        assert_eq!(client.body(200, "getAllProfiles", &json!([{ "filters": filters, "lineCount": 3 }])), json!({ "count": 57 }));
    }
    // The token is a parameter as any other.
    let first = client.body(200, "getAllProfiles", &json!([{ "lineCount": 40, "order": "email" }]));
    let token = text(&first["next"]["href"]).split_once("_lineStart=").expect("a token").1;
    assert!(token.starts_with('@'), "{token}");
    let second = client.body(200, "getAllProfiles", &json!([{ "lineCount": 40, "order": "email", "_lineStart": token }]));
    assert_eq!(column(second["content"].as_array().unwrap(), "email"), everybody[40..]);

    // Others write while somebody turns pages.
    for (order, name) in [(json!({ "lineCount": 10, "order": "email" }), "a"), (json!({ "lineCount": 10 }), "b")] {
        let before: BTreeMap<String, Value> = client.body(200, "getAllProfiles", &json!([{ "lineCount": 1000 }]))["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|profile| (text(&profile["PKey"]).to_owned(), profile.clone()))
            .collect();
        let first = client.body(200, "getAllProfiles", &json!([order]));
        let seen = column(first["content"].as_array().unwrap(), "PKey");
        let unseen = before.keys().find(|key| !seen.contains(key)).unwrap().clone();
        for gone in [&seen[9], &unseen] {
            client.body(200, "deleteCustomResource", &json!(["profile", gone]));
        }
        for email in [format!("{name}@example.org"), format!("z{name}@example.org")] {
            client.body(201, "createProfile", &json!([{ "email": email }]));
        }
        let pages = client.pages(first, Form::Absolute);
        let keys = column(pages.iter().flatten(), "PKey");
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{order}: nobody twice");
        let missing: Vec<_> = before.keys().filter(|key| !keys.contains(key)).collect();
        assert_eq!(missing, [&unseen], "{order}: everybody who was there before and after");
    }
}

#[test]
fn filters_find_whom_they_name_alone_and_together() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    let mut keys = BTreeMap::new();
    for (first_name, last_name, email, hobby) in [
        ("Ana", "Vega", "ana@example.org", "Dancing"),
        ("Bea", "Vega Ruiz", "Bea+News@example.org", "Dance & more"),
        ("Cam", "vega", "cam@example.org", "dancing"),
        ("Dan", "Ruiz", "Vega@example.org", ""),
        ("Eva", "Vega", "Vega.eva@example.org", "100%"),
        ("Fay", "De la Cruz", "ana@EXAMPLE.org", ""),
        ("Gil", "Ölander", "gil@example.org", ""),
        ("Hal", "", "", ""),
        ("Ian", "O'Neil & Sons/1", "ian@example.org", ""),
        ("Joe", "100%25", "joe@example.org", ""),
    ] {
        let record = json!({ "firstName": first_name, "lastName": last_name, "email": email, "cusHobby": hobby });
        let made = client.body(201, "createCustomResource", &json!(["profile", record]));
        keys.insert(first_name, made["PKey"].clone());
    }
    client.body(200, "updateProfile", &json!([keys["Ian"], { "ccpaOptOut": true }]));
    client.body(200, "updateCustomResource", &json!(["profile", keys["Ana"], { "cusSize": "large", "cusSince": "2026-01-31" }]));
    let service = client.body(201, "createService", &json!([{ "label": "News" }]))["PKey"].take();
    for name in ["Bea", "Eva", "Hal"] {
        let href = client.body(200, "getProfile", &json!([keys[name]]))["subscriptions"]["href"].take();
        client.body(201, "postDataToUrl", &json!([href, { "service": { "PKey": service } }]));
    }
    let all = "Ana Bea Cam Dan Eva Fay Gil Hal Ian Joe";
    let (plain, ext) =
        (|filters: &[&str]| json!({ "filters": filters }), |filters: &[&str]| json!({ "filters": filters, "hasCustomFilter": true }));
    let by_text = |text: &str| json!({ "filters": ["byText"], "text": text });
    for (mut parameters, more, found) in [
        (json!({}), json!({}), all),
        (plain(&[]), json!({ "email": "ana@example.org", "text": "Ve" }), all),
        (plain(&["byEmail"]), json!({ "email": "ANA@Example.org" }), "Ana Fay"),
        (plain(&["byEmail"]), json!({ "email": "bea+news@example.org" }), "Bea"),
        (plain(&["byEmail"]), json!({ "email": "nobody@example.org" }), ""),
        (plain(&["byEmail"]), json!({ "email": "no address" }), ""),
        (ext(&["byKeysProfile"]), json!({ "email": "ana@example.org" }), "Ana Fay"),
        (by_text("Vega"), json!({}), "Ana Bea Dan Eva"),
        (by_text("Vega "), json!({}), "Bea"),
        (by_text("vega"), json!({}), "Cam"),
        (by_text("De la C"), json!({}), "Fay"),
        (by_text("Ö"), json!({}), "Gil"),
        (by_text("O'Neil & Sons/1"), json!({}), "Ian"),
        (by_text("100%25"), json!({}), "Joe"),
        (by_text("Zed"), json!({}), ""),
        (by_text("Vega"), json!({ "filterType": "email" }), "Dan Eva"),
        (by_text("Vega"), json!({ "filterType": "lastName" }), "Ana Bea Eva"),
        (by_text("E"), json!({ "filterType": "firstName" }), "Eva"),
        (by_text("Danc"), json!({ "filterType": "Hobby", "hasCustomFilter": true }), "Ana Bea"),
        (by_text("100%"), json!({ "filterType": "cusHobby", "hasCustomFilter": true }), "Eva"),
        (by_text("large"), json!({ "filterType": "cusSize", "hasCustomFilter": true }), "Ana"),
        (by_text("2026-01"), json!({ "filterType": "cusSince", "hasCustomFilter": true }), "Ana"),
        (ext(&["byText"]), json!({ "filterType": "Hobby", "cusHobby": "Dance & more" }), "Bea"),
        (plain(&["byEmail", "byText"]), json!({ "email": "ana@example.org", "text": "Ve" }), "Ana"),
        (plain(&["byText", "byEmail"]), json!({ "email": "ana@example.org", "text": "De la" }), "Fay"),
        (plain(&["byText", "byEmail"]), json!({ "email": "ana@example.org", "text": "Ruiz" }), ""),
        (plain(&["byEmail", "byKeysProfile"]), json!({ "email": "ian@example.org" }), "Ian"),
        (plain(&["subscribers"]), json!({ "service": service }), "Bea Eva Hal"),
        (plain(&["subscribers"]), json!({ "service": GONE }), ""),
        (plain(&["subscribers", "byText"]), json!({ "service": service, "text": "Vega" }), "Bea Eva"),
        (ext(&["byCcpaOptOut"]), json!({ "ccpaOptOut_parameter": true }), "Ian"),
        (ext(&["byCcpaOptOut"]), json!({ "ccpaOptOut_parameter": "false" }), "Ana Bea Cam Dan Eva Fay Gil Hal Joe"),
        (ext(&["byCcpaOptOut", "byText"]), json!({ "ccpaOptOut_parameter": false, "text": "Vega" }), "Ana Bea Dan Eva"),
        (ext(&["byText", "byCcpaOptOut"]), json!({ "ccpaOptOut_parameter": true, "text": "O'" }), "Ian"),
        (ext(&["byEmail", "byCcpaOptOut"]), json!({ "ccpaOptOut_parameter": true, "email": "ana@example.org" }), ""),
        (
            ext(&["subscribers", "byText", "byCcpaOptOut"]),
            json!({ "ccpaOptOut_parameter": false, "text": "Vega", "filterType": "email", "service": service }),
            "Eva",
        ),
    ] {
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let expected: Vec<&str> = found.split_whitespace().collect();
        let answer = client.answer(200, "getAllProfiles", &json!([parameters]));
        if let [first, second, ..] = parameters["filters"].as_array().map_or(&[][..], Vec::as_slice) {
            let joined = format!("/{}%2F{}", text(first), text(second));
            assert!(text(&answer["url"]).contains(&joined), "this client encodes the slash: {}", answer["url"]);
        }
        assert_page(&answer["body"], true);
        assert_eq!(client.count(&answer["body"]) as usize, expected.len(), "{parameters}");
        // On one page, and with a page for each.
        for (lines, order) in
            [(json!(25), Value::Null), (json!(1), Value::Null), (json!(2), json!("firstName")), (json!(3), json!("created"))]
        {
            parameters["lineCount"] = lines;
            if order.is_string() {
                parameters["order"] = order.clone();
                parameters["descendingSort"] = json!(order == "created");
            }
            let first = client.body(200, "getAllProfiles", &json!([parameters]));
            let pages = client.pages(first, Form::BelowCampaign);
            let mut shown = column(pages.iter().flatten(), "firstName");
            match order.as_str() {
                Some("firstName") => {}
                // The names begin with the letters of the alphabet in the order of their making.
                Some(_) => shown.reverse(),
                None => shown.sort(),
            }
            assert_eq!(shown, expected, "{parameters}");
        }
        // The same through the other two methods, and as a number.
        let ext = client.body(200, "getAllProfileAndServicesExt", &json!(["profile", parameters]));
        assert_eq!(client.pages(ext, Form::Absolute).concat().len(), expected.len(), "{parameters}");
        let mut filters = parameters["filters"].as_array().cloned().unwrap_or_default();
        filters.push("_count".into());
        parameters["filters"] = filters.into();
        assert_eq!(client.body(200, "getAllProfiles", &json!([parameters])), json!({ "count": expected.len() }), "{parameters}");
    }
    let names = json!([{ "filters": ["byText", "firstName"], "text": "Vega", "order": "firstName", "descendingSort": true }]);
    assert_eq!(client.body(200, "getAllProfiles", &names)["content"], json!(["Eva", "Dan", "Bea", "Ana"]));
    let flags = json!([{ "filters": ["byEmail", "ccpaOptOut"], "email": "ian@example.org" }]);
    assert_eq!(client.body(200, "getAllProfiles", &flags)["content"], json!([true]));

    for (parameters, status, about) in [
        (plain(&["byNothing"]), 404, ""),
        (plain(&["byEmail", "byNothing"]), 404, ""),
        (plain(&["byEmail", "byEmail"]), 404, ""),
        (plain(&["cusHobby"]), 404, ""),
        (json!({ "filters": ["byCcpaOptOut"], "ccpaOptOut_parameter": true }), 404, ""),
        (plain(&["birthday"]), 404, ""),
        (plain(&["byStaticAudience"]), 404, ""),
        (plain(&["hasClickedDelivery"]), 404, ""),
        (plain(&["hasOpenedDelivery"]), 404, ""),
        (plain(&["hasReceivedDelivery"]), 404, ""),
        (plain(&["profile"]), 404, ""),
        (plain(&["byChannel"]), 404, ""),
        (plain(&["byEmail"]), 400, "email"),
        (plain(&["byKeysProfile"]), 400, "email"),
        (plain(&["byText"]), 400, "text"),
        (json!({ "filters": ["byText"], "text": "x", "filterType": "gender" }), 400, "filterType"),
        (json!({ "filters": ["byText"], "text": "x", "filterType": "cusHobby" }), 400, "filterType"),
        (json!({ "filters": ["byText"], "text": "x", "filterType": "cusVisits", "hasCustomFilter": true }), 400, "filterType"),
        (json!({ "filters": ["subscribers"], "service": "News" }), 400, "service"),
        (ext(&["byCcpaOptOut"]), 400, "ccpaOptOut_parameter"),
        (json!({ "filters": ["byCcpaOptOut"], "hasCustomFilter": true, "ccpaOptOut_parameter": "yes" }), 400, "ccpaOptOut_parameter"),
        (json!({ "lineCount": "0" }), 400, "_lineCount"),
        (json!({ "lineCount": -1 }), 400, "_lineCount"),
        (json!({ "lineCount": "many" }), 400, "_lineCount"),
        (json!({ "_lineStart": "@bogus" }), 400, "_lineStart"),
        (json!({ "_lineStart": "bogus" }), 400, "_lineStart"),
        (json!({ "order": "shoeSize" }), 400, "_order"),
        (json!({ "order": "gender", "descendingSort": true }), 400, "_order"),
        (json!({ "order": "cusHobby" }), 400, "_order"),
        (json!({ "order": "email sideways" }), 400, "_order"),
    ] {
        let says = client.refused("getAllProfiles", &json!([parameters]), status, "ERROR_GET_ALL_PROFILES");
        if status == 404 {
            assert_eq!(says, no_such_resource(), "{parameters}");
        } else {
            let says = text(&says);
            assert!(says.starts_with(GENERAL) && says.contains(&format!("'{about}'")), "{parameters}: {says}");
        }
    }
    let token = text(&client.body(200, "getAllProfiles", &json!([{ "lineCount": 1 }]))["next"]["href"])
        .split_once("_lineStart=")
        .unwrap()
        .1
        .to_owned();
    let other = json!([{ "lineCount": 1, "order": "email", "_lineStart": token }]);
    let says = client.refused("getAllProfiles", &other, 400, "ERROR_GET_ALL_PROFILES");
    assert!(text(&says).contains("'_lineStart'"), "a token continues its own list alone: {says}");
}

/// Every link in a body.
fn links(body: &Value, found: &mut BTreeSet<String>) {
    match body {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(link) if name == "href" => drop(found.insert(link.clone())),
                    // These two are read by POST.
                    _ if name == "gdprRequestData" || name == "privacyRequestData" => {}
                    _ => links(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| links(item, found)),
        _ => {}
    }
}

#[test]
fn every_link_of_every_answer_leads_somewhere() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    let rosa = client.body(201, "createProfile", &json!([{ "lastName": "Vega", "email": "rosa@example.org" }]));
    client.body(201, "createProfile", &json!([{ "lastName": "Other" }]));
    let news = client.body(201, "createService", &json!([{ "label": "News" }]));
    client.body(201, "postDataToUrl", &json!([rosa["subscriptions"]["href"], { "service": { "PKey": news["PKey"] } }]));
    let access = json!({ "name": "one", "namespaceName": "email", "reconciliationValue": "rosa@example.org", "type": "access", "regulation": "ccpa" });
    client.body(201, "createGDPRRequest", &json!([access]));

    let mut known = BTreeSet::new();
    for (method, arguments) in [
        ("getAllProfiles", json!([{ "lineCount": 1 }])),
        (
            "getAllProfiles",
            json!([{ "lineCount": 1, "filters": ["byCcpaOptOut", "byText"], "hasCustomFilter": true, "ccpaOptOut_parameter": false, "text": "Vega" }]),
        ),
        ("getAllServices", json!([])),
        ("getHistoryOfProfile", json!([rosa["PKey"]])),
        ("getMetadataForResource", json!(["profile"])),
        ("getMetadataForResource", json!(["service"])),
        ("getMetadataForResource", json!(["history"])),
        ("getMetadataForResourceExt", json!(["profile"])),
        ("getCustomResources", json!([])),
        ("getGDPRRequest", json!([])),
        ("getAllOrgUnits", json!([])),
        ("getAllProfileAndServicesExt", json!(["geoUnitBase"])),
    ] {
        links(&client.body(200, method, &arguments), &mut known);
    }
    let (mut open, mut broken) = (known.clone(), Vec::new());
    while let Some(link) = open.pop_first() {
        assert!(link.starts_with(&client.campaign) && known.len() < 200, "{link}");
        let seen = client.call("getDataFromRelativeUrl", &json!([link]));
        if seen["status"] != 200 {
            broken.push(link);
            continue;
        }
        let mut found = BTreeSet::new();
        links(&seen["body"], &mut found);
        open.extend(found.into_iter().filter(|link| known.insert(link.clone())));
    }
    assert!(known.len() > 30, "{known:?}");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn links_can_be_followed_behind_a_proxy_that_adds_to_the_path() {
    let (directory, server) = configured("");
    let mut client = Client::of(&server);
    std::fs::write(directory.path().join("desist.toml"), "[server]\nprivate_url = \"https://optout.example.com/x\"\n").unwrap();
    assert!(server.run(&["reload"]).status.success());
    for number in 0..3 {
        client.body(201, "createProfile", &json!([{ "email": format!("p{number}@example.org") }]));
    }
    let page = client.body(200, "getAllProfiles", &json!([{ "lineCount": 2 }]));
    let next = text(&page["next"]["href"]);
    let below = next.strip_prefix("https://optout.example.com/x/acme/campaign").unwrap_or_else(|| panic!("{next}"));
    let with_organization = next.strip_prefix("https://optout.example.com/x").unwrap();
    let rest = client.follow(below);
    assert_eq!(rest["content"].as_array().unwrap().len(), 1);
    assert_eq!(client.follow(with_organization), rest);
    assert_eq!(client.follow(next), rest, "the absolute one, as the answer has it");
}

#[test]
fn a_url_in_one_segment_is_taken_apart_once() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let rosa = client.body(
        201,
        "createProfile",
        &json!([{ "firstName": "Rosa", "lastName": "De la Vega & Ölander", "email": "rosa+news@example.org" }]),
    );
    let ana = client.body(201, "createProfile", &json!([{ "firstName": "Ana", "lastName": "Abel", "email": "ana@example.org" }]));
    let (pkey, encoded) = (text(&rosa["PKey"]), text(&rosa["PKey"]).replace('@', "%40"));
    for url in [
        format!("/profileAndServices/profile/{pkey}"),
        format!("/profileAndServices/profile/{encoded}/"),
        format!("profileAndServices//profile.json/{pkey}?_lineCount=2"),
        format!("/acme/campaign/profileAndServices/profile/{pkey}"),
        text(&rosa["href"]).to_owned(),
    ] {
        let answer = client.answer(200, "getDataFromRelativeUrl", &json!([url]));
        assert_eq!(answer["body"], rosa, "{url}");
        assert!(
            text(&answer["url"]).strip_prefix(&client.campaign).is_some_and(|segment| !segment[1..].contains('/')),
            "{}",
            answer["url"]
        );
    }
    let ext = client.follow(&format!("/profileAndServicesExt/profile/{pkey}"));
    assert_eq!(ext["href"], text(&rosa["href"]).replace("profileAndServices", "profileAndServicesExt"));

    // The client encodes once more what a query has encoded already.
    let list = "/profileAndServices/profile";
    for (query, found) in [
        ("/byText?text=De%20la%20Vega%20%26%20%C3%96", vec!["Rosa"]),
        ("/byText?text=De+la+Vega", vec!["Rosa"]),
        ("/byText?text=De la Vega %26 Ö", vec!["Rosa"]),
        ("/byEmail?email=rosa%2Bnews%40example.org", vec!["Rosa"]),
        ("/byEmail?email=rosa+news@example.org", vec!["Rosa"]),
        ("/byEmail%2FbyText?email=ana%40example.org&text=A", vec!["Ana"]),
        ("/byEmail/byText?email=ana@example.org&text=B", vec![]),
        ("?_order=email", vec!["Ana", "Rosa"]),
        ("/?_order=email%20desc", vec!["Rosa", "Ana"]),
        ("?_order=email%2520desc&_lineCount=25", vec!["Rosa", "Ana"]),
        ("?_order=email desc&limit=1", vec!["Rosa", "Ana"]),
    ] {
        let url = format!("{list}{query}");
        let page = client.follow(&url);
        let shown = page["content"].as_array().unwrap();
        assert_eq!(column(shown, "firstName"), found, "{url}");
        let values: Vec<Value> = shown.iter().map(|profile| profile["PKey"].clone()).collect();
        assert!(values.iter().all(|key| [&rosa["PKey"], &ana["PKey"]].contains(&key)));
        assert_eq!(client.count(&page) as usize, found.len(), "{url}");
    }
    let first = client.follow(&format!("{list}/byText?text=De%20la&_lineCount=1&_order=lastName%20desc"));
    assert!(first.get("next").is_none(), "{first}");
    client.body(201, "createProfile", &json!([{ "firstName": "Zoe", "lastName": "De la Zorra & Co" }]));
    for form in FORMS {
        let first = client.follow(&format!("{list}/byText?text=De%20la&_lineCount=1&_order=lastName%20desc"));
        let pages = client.pages(first, form);
        assert_eq!(column(pages.iter().flatten(), "firstName"), ["Zoe", "Rosa"], "{form:?}");
    }

    for (url, status) in [
        ("/other/campaign/profileAndServices/profile/", 404),
        ("https://elsewhere.example/profileAndServices/profile/", 404),
        ("/profileAndServices/nothing/", 404),
        ("/../v1/keys", 400),
        ("/v1/keys", 404),
        ("/profileAndServices/profile/?_lineCount=0", 400),
        ("/profileAndServices/profile/byText?text=%", 400),
    ] {
        let says = client.refused("getDataFromRelativeUrl", &json!([url]), status, "ERROR_GET_DATA_FROM_RELATIVE_URL");
        assert!(text(&says).starts_with(GENERAL), "{url}: {says}");
    }
}
