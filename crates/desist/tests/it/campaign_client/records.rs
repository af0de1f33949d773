//! Services, subscriptions, descriptions, fields of the business and privacy requests through the client.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::driver::{
    Client, FIELDS, FORMS, Form, GENERAL, GONE, assert_page, column, configured, names, no_such_resource, not_found, not_valid, text,
    unreadable,
};
use crate::support::Server;

#[test]
fn services_are_made_listed_and_subscribed_to() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let made = client.answer(
        201,
        "createService",
        &json!([{ "label": "Weekly", "messageType": "sms", "start": "2026-03-01", "end": "2026-03-31" }]),
    );
    assert_eq!(made["url"], format!("{}/profileAndServices/service/", client.campaign));
    let weekly = &made["body"];
    let (pkey, name) = (text(&weekly["PKey"]), text(&weekly["name"]));
    let href = format!("{}/profileAndServices/service/{pkey}", client.campaign);
    assert!(name.starts_with("SVC"), "{name}");
    assert_eq!(
        weekly,
        &json!({
            "PKey": pkey, "href": href, "subscriptions": { "href": format!("{href}/subscriptions/") }, "name": name,
            "title": format!("Weekly ({name})"), "created": weekly["created"], "lastModified": weekly["created"], "label": "Weekly",
            "messageType": "sms", "mode": "newsletter", "targetResource": "profile", "start": "2026-03-01", "end": "2026-03-31",
            "builtIn": false, "isExternal": false, "isTemplate": false, "limitedDuration": false,
            "desc": "", "mainDate": "", "publicLabel": "", "thumbnail": "", "validityDuration": "",
        })
    );
    assert_eq!(client.body(200, "getService", &json!([pkey])), *weekly);
    for record in [
        json!({ "label": "Daily", "name": "SVC_DAILY", "start": "2026-01-01", "end": "2026-01-31" }),
        json!({ "label": "Dark", "name": "Weekend", "mode": "viral" }),
        json!({ "label": "Old", "end": "2025-12-31" }),
    ] {
        client.body(201, "createService", &json!([record]));
    }
    let ext = client.body(201, "createCustomResource", &json!(["service", { "label": "Ext", "messageType": "sms" }]));
    let ext_href = format!("{}/profileAndServicesExt/service/{}", client.campaign, text(&ext["PKey"]));
    assert_eq!(ext["href"], ext_href);
    let stub = client.body(200, "updateCustomResource", &json!(["service", ext["PKey"], { "start": "2027-01-01" }]));
    assert_eq!(stub, json!({ "PKey": ext["PKey"], "href": ext_href }));

    for (parameters, found) in [
        (json!({}), "Daily Dark Ext Old Weekly"),
        (json!({ "hasCustomFilter": true, "limit": 1 }), "Daily Dark Ext Old Weekly"),
        (json!({ "filters": ["byText"], "text": "Da" }), "Daily Dark"),
        (json!({ "filters": ["byText"], "text": "Week" }), "Dark Weekly"),
        (json!({ "filters": ["byText"], "text": "SVC_" }), "Daily"),
        (json!({ "filters": ["byText"], "text": "week" }), ""),
        (json!({ "filters": ["byChannel"], "channel": "sms" }), "Ext Weekly"),
        (json!({ "filters": ["byChannel"], "channel": "email" }), "Daily Dark Old"),
        (json!({ "filters": ["byTargetResource"], "targetResource": "profile" }), "Daily Dark Ext Old Weekly"),
        (json!({ "filters": ["byTargetResource"], "targetResource": "other" }), ""),
        (json!({ "filters": ["byPlanning"], "startDate": "2026-01-15", "endDate": "2026-03-15" }), "Daily Dark Weekly"),
        (json!({ "filters": ["byPlanning"], "startDate": "2026-04-01" }), "Dark Ext"),
        (json!({ "filters": ["byChannel", "byText"], "channel": "sms", "text": "We" }), "Weekly"),
        (
            json!({ "filters": ["byText", "byChannel", "byTargetResource"], "channel": "email", "text": "Da", "targetResource": "profile" }),
            "Daily Dark",
        ),
    ] {
        let expected: Vec<&str> = found.split_whitespace().collect();
        for (lines, descending, form) in [(25, false, Form::Absolute), (1, true, Form::NoSlash), (2, false, Form::BelowCampaign)] {
            let mut parameters = parameters.clone();
            parameters
                .as_object_mut()
                .unwrap()
                .extend(json!({ "lineCount": lines, "order": "label", "descendingSort": descending }).as_object().unwrap().clone());
            let first = client.body(200, "getAllServices", &json!([parameters]));
            assert_eq!(client.count(&first) as usize, expected.len(), "{parameters}");
            let pages = client.pages(first, form);
            let mut labels = column(pages.iter().flatten(), "label");
            if descending {
                labels.reverse();
            }
            assert_eq!(labels, expected, "{parameters}");
        }
    }
    assert_eq!(client.body(200, "getAllServices", &json!([{ "filters": ["name"], "order": "created" }]))["content"][1], "SVC_DAILY");
    assert_eq!(client.body(200, "getAllServices", &json!([{ "filters": ["_count"] }])), json!({ "count": 5 }));
    let whole = client.body(200, "getAllProfileAndServicesExt", &json!(["service", { "filters": ["byText"], "text": "Ext" }]));
    assert_eq!(
        whole["content"][0],
        client.body(200, "getAllServices", &json!([{ "hasCustomFilter": true, "filters": ["byText"], "text": "Ext" }]))["content"][0]
    );
    assert_eq!((whole["content"][0]["href"].clone(), whole["content"][0]["start"].clone()), (json!(ext_href), json!("2027-01-01")));

    for (method, arguments, status, code, says) in [
        ("getService", json!(["@bogus"]), 404, "ERROR_GET_SERVICE", unreadable("@bogus")),
        ("getService", json!([GONE]), 404, "ERROR_GET_SERVICE", not_found("service", GONE)),
        ("createService", json!([{ "shoeSize": 1 }]), 500, "ERROR_CREATE_SERVICE", not_valid("service", "shoeSize")),
        (
            "createService",
            json!([{ "messageType": "fax" }]),
            500,
            "ERROR_CREATE_SERVICE",
            json!(format!("{GENERAL}The value 'fax' is not in the enumeration of 'messageType'.")),
        ),
        (
            "createService",
            json!([{ "name": "SVC_DAILY" }]),
            500,
            "ERROR_CREATE_SERVICE",
            json!("PGS-220000 Another record has this 'name', which must be unique."),
        ),
        ("getAllServices", json!([{ "filters": ["byEmail"], "email": "a@b.org" }]), 404, "ERROR_GET_ALL_SERVICES", no_such_resource()),
        ("updateCustomResource", json!(["service", GONE, {}]), 404, "ERROR_UPDATE_CUSTOM_RESOURCE", not_found("service", GONE)),
    ] {
        client.refused_for(method, &arguments, status, code, &says);
    }
    for (parameters, about) in [
        (json!({ "filters": ["byChannel"], "channel": "fax" }), "channel"),
        (json!({ "filters": ["byPlanning"], "startDate": "soon" }), "startDate"),
        (json!({ "order": "builtIn" }), "_order"),
    ] {
        let says = client.refused("getAllServices", &json!([parameters]), 400, "ERROR_GET_ALL_SERVICES");
        assert!(text(&says).contains(&format!("'{about}'")), "{parameters}: {says}");
    }
    // It would end the service for all who subscribed.
    client.refused("deleteCustomResource", &json!(["service", pkey]), 405, "ERROR_DELETE_CUSTOM_RESOURCE");
    assert_eq!(client.body(200, "getService", &json!([pkey])), *weekly);
}

#[test]
fn subscriptions_come_and_go_from_both_sides() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let rosa = client.body(201, "createProfile", &json!([{ "firstName": "Rosa", "lastName": "Vega", "email": "rosa@example.org" }]));
    let services: Vec<Value> =
        (0..5).map(|number| client.body(201, "createService", &json!([{ "label": format!("News {number}") }]))).collect();
    let (rosa_list, news_list) = (&rosa["subscriptions"]["href"], &services[0]["subscriptions"]["href"]);
    let link = |member: &str, record: &Value| json!({ member: { "PKey": record["PKey"] } });

    let made = client.answer(201, "postDataToUrl", &json!([rosa_list, link("service", &services[0])]));
    assert_eq!((&made["plain"], &made["url"]), (&json!(true), rosa_list));
    let made = &made["body"];
    let pkey = text(&made["PKey"]);
    assert_eq!(
        made,
        &json!({
            "PKey": pkey, "href": format!("{}/subscriptions/{pkey}", text(&services[0]["href"])), "created": made["created"],
            "email": "rosa@example.org", "expirationDate": "", "metadata": "subscriptionRcp", "serviceName": services[0]["name"],
            "service": {
                "PKey": services[0]["PKey"], "href": services[0]["href"], "label": "News 0", "name": services[0]["name"], "title": services[0]["title"],
            },
            "subscriber": { "PKey": rosa["PKey"], "href": rosa["href"], "email": "rosa@example.org", "firstName": "Rosa", "lastName": "Vega" },
        })
    );
    // Again, from either side: it is there already.
    for (list, body) in [(rosa_list, link("service", &services[0])), (news_list, link("subscriber", &rosa))] {
        assert_eq!(client.body(200, "postDataToUrl", &json!([list, body])), *made);
    }
    let ext = client.body(200, "getProfileWithOrgUnit", &json!([rosa["PKey"]]));
    let under_ext = client.body(200, "postDataToUrl", &json!([ext["subscriptions"]["href"], link("service", &services[0])]));
    assert_eq!((&under_ext["PKey"], &under_ext["subscriber"]["href"]), (&made["PKey"], &ext["href"]), "the caller's root");
    for service in &services[1..] {
        client.body(201, "postDataToUrl", &json!([service["subscriptions"]["href"], link("subscriber", &rosa)]));
    }
    for number in 1..30 {
        let other = client.body(201, "createProfile", &json!([{ "email": format!("p{number}@example.org") }]));
        client.body(201, "postDataToUrl", &json!([news_list, link("subscriber", &other)]));
    }

    for (list, members, sizes) in
        [(rosa_list, vec![("service", "label")], vec![2, 2, 1]), (news_list, vec![("subscriber", "email")], vec![2; 15])]
    {
        for form in FORMS {
            let lines = format!("{}?_lineCount=2", client.in_form(text(list), form));
            let first = client.follow(&lines);
            assert_eq!(client.count(&first) as usize, sizes.iter().sum::<usize>());
            let pages = client.pages(first, form);
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{form:?}");
            let all = pages.concat();
            for (side, member) in &members {
                let values: BTreeSet<_> = all.iter().map(|subscription| text(&subscription[side][member])).collect();
                assert_eq!(values.len(), all.len(), "{form:?}: nobody twice");
            }
            assert_eq!(all[0], *made, "the same from both sides");
        }
    }
    let whole = client.follow(text(news_list));
    assert_eq!(whole["content"].as_array().unwrap().len(), 25, "pages have the usual size");
    let subscribers =
        client.body(200, "getAllProfiles", &json!([{ "filters": ["subscribers"], "service": services[0]["PKey"], "lineCount": 100 }]));
    assert_eq!(subscribers["count"]["value"], 30);

    for (list, body, status, says) in [
        (rosa_list, json!({ "service": { "PKey": GONE } }), 404, not_found("service", GONE)),
        (rosa_list, json!({ "service": { "PKey": "@bogus" } }), 404, unreadable("@bogus")),
        (news_list, json!({ "subscriber": { "PKey": GONE } }), 404, not_found("profile", GONE)),
        (news_list, json!({ "subscriber": {} }), 500, json!(format!("{GENERAL}'subscriber.PKey' is missing."))),
    ] {
        let seen = client.call("postDataToUrl", &json!([list, body]));
        assert_eq!((&seen["status"], &seen["body"]), (&json!(status), &says), "{body}");
    }

    // No method of the client deletes one.
    let path = text(&made["href"]).strip_prefix(&server.private).unwrap();
    assert_eq!(client.follow(text(&made["href"])), *made);
    let deleted = server.send("DELETE", path, b"", &[]);
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    client.refused_for(
        "getDataFromRelativeUrl",
        &json!([made["href"]]),
        404,
        "ERROR_GET_DATA_FROM_RELATIVE_URL",
        &not_found("subscription", pkey),
    );
    let list = client.follow(text(rosa_list));
    assert_eq!(client.count(&list), 4);
    assert_eq!(
        column(list["content"].as_array().unwrap().iter().map(|one| &one["service"]), "label"),
        ["News 1", "News 2", "News 3", "News 4"]
    );
    client.body(200, "deleteCustomResource", &json!(["profile", rosa["PKey"]]));
    assert_eq!(client.follow(text(&services[1]["subscriptions"]["href"]))["content"], json!([]), "they go with the profile");
}

#[test]
fn metadata_describes_what_records_have() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    let profile = client.body(201, "createCustomResource", &json!(["profile", { "lastName": "Vega" }]));
    let service = client.body(201, "createService", &json!([{ "label": "News" }]));
    let own = ["cusHobby", "cusMember", "cusSince", "cusSize", "cusVisits"];

    let history = client.body(200, "getHistoryOfProfile", &json!([profile["PKey"]]));
    for (resource, record, schema) in
        [("profile", &profile, "nms:recipient"), ("service", &service, "nms:service"), ("history", &history, "")]
    {
        let answer = client.answer(200, "getMetadataForResource", &json!([resource]));
        assert_eq!(answer["url"], format!("{}/profileAndServices/resourceType/{resource}", client.campaign));
        let shown = &answer["body"];
        let members =
            ["content", "data", "filters", "help", "href", "label", "mandatory", "name", "pkgStatus", "readOnly", "schema", "type"];
        assert_eq!(names(shown), members);
        assert_eq!(
            (&shown["data"], &shown["name"], &shown["type"]),
            (&json!(format!("/profileAndServices/{resource}/")), &json!(resource), &json!("item"))
        );
        if !schema.is_empty() {
            assert_eq!(shown["schema"], schema);
            assert_eq!(shown["href"], format!("{}/profileAndServices/{resource}/metadata", client.campaign));
            // The same again, by its own link and as a filter's name.
            assert_eq!(client.follow(text(&shown["href"])), *shown);
            let method = if resource == "profile" { "getAllProfiles" } else { "getAllServices" };
            assert_eq!(client.body(200, method, &json!([{ "filters": ["metadata"] }])), *shown);
            let list = client.follow(text(&shown["data"]));
            assert_eq!(list["count"]["value"], 1, "the relative link leads to the records");
        }
        for name in names(record).into_iter().filter(|name| *name != "events" && !own.contains(name)) {
            let field = &shown["content"][name];
            assert_eq!(field["apiName"], name, "{resource} has {name}");
            let types = ["string", "number", "boolean", "date", "link", "collection", "item", "enumeration"];
            assert!(types.contains(&text(&field["type"])), "{name}: {field}");
            assert!(
                field["dataPolicy"].is_string()
                    && field["category"].is_string()
                    && field["resType"].is_string()
                    && field["sortable"].is_boolean(),
                "{field}"
            );
            assert_eq!(field.get("values").is_some(), field["type"] == "enumeration", "{name}: {field}");
        }
    }
    let shown = client.body(200, "getMetadataForResource", &json!(["profile"]));
    for (name, ty) in [
        ("ccpaOptOut", "boolean"),
        ("age", "number"),
        ("birthDate", "date"),
        ("gender", "enumeration"),
        ("location", "item"),
        ("subscriptions", "collection"),
    ] {
        assert_eq!(shown["content"][name]["type"], ty, "{name}");
    }
    assert_eq!(names(&shown["content"]["gender"]["values"]), ["female", "male", "unknown"]);
    assert_eq!(shown["content"]["gender"]["values"]["female"], json!({ "name": "female", "label": "female", "value": 2 }));
    assert!(shown["content"]["subscriptions"]["resTarget"].is_string());
    assert!(own.iter().all(|name| shown["content"].get(name).is_none()), "under the Ext root alone");
    let ext = client.follow("/profileAndServicesExt/resourceType/profile");
    let types: Vec<&str> = own.iter().map(|name| text(&ext["content"][name]["type"])).collect();
    assert_eq!(types, ["string", "boolean", "date", "enumeration", "number"]);
    assert!(names(&ext["content"]["cusSize"]["values"]).ends_with(&["large", "small"]));

    // What it calls sortable can be sorted by, and nothing else.
    for (method, ext_root, resource) in
        [("getAllProfiles", false, "profile"), ("getAllProfiles", true, "profile"), ("getAllServices", false, "service")]
    {
        let root = if ext_root { "profileAndServicesExt" } else { "profileAndServices" };
        let shown = client.follow(&format!("/{root}/resourceType/{resource}"));
        let mut sortable = 0;
        for (name, field) in shown["content"].as_object().unwrap() {
            let parameters = json!([{ "order": name, "hasCustomFilter": ext_root }]);
            if field["sortable"] == true {
                client.body(200, method, &parameters);
                sortable += 1;
            } else {
                client.refused(
                    method,
                    &parameters,
                    400,
                    if resource == "profile" { "ERROR_GET_ALL_PROFILES" } else { "ERROR_GET_ALL_SERVICES" },
                );
            }
        }
        assert!(sortable >= 4, "{resource}: {sortable}");
    }

    for (root, resource, filters) in [
        ("profileAndServices", "profile", vec!["byEmail", "byKeysProfile", "byText", "subscribers"]),
        ("profileAndServicesExt", "profile", vec!["byCcpaOptOut", "byEmail", "byKeysProfile", "byText", "subscribers"]),
        ("profileAndServices", "service", vec!["byChannel", "byPlanning", "byTargetResource", "byText"]),
    ] {
        let shown = client.follow(&format!("/{root}/resourceType/{resource}"));
        let href = text(&shown["filters"]["href"]);
        let map = client.follow(href);
        assert_eq!(client.follow(href.trim_end_matches("filters/")), map, "with and without its last segment");
        assert_eq!(names(&map), filters);
        for (name, filter) in map.as_object().unwrap() {
            assert_eq!(names(filter), ["PKey", "category", "condition", "data", "formType", "fragmentName", "label", "metadata"], "{name}");
            assert!(text(&filter["data"]).starts_with(&format!("/{root}/{resource}/{name}?")), "{filter}");
            assert!(text(&filter["PKey"]).starts_with('@') && !names(&filter["metadata"]).is_empty(), "{filter}");
        }
    }

    let seen = client.call("getMetadataForResource", &json!(["delivery"]));
    assert_eq!(
        (&seen["code"], &seen["message"]),
        (
            &json!("ERROR_INVALID_RESOURCE_TYPE"),
            &json!("[CampaignStandardSDK:ERROR_INVALID_RESOURCE_TYPE] resource values can only be: profile, service, history")
        )
    );
    // Records, in spite of its name.
    let records = client.answer(200, "getMetadataForResourceExt", &json!(["profile"]));
    assert_eq!(records["url"], format!("{}/profileAndServicesExt/profile", client.campaign));
    assert_page(&records["body"], true);
    assert_eq!(records["body"]["content"], json!([profile]));
    assert_eq!(client.body(200, "getMetadataForResourceExt", &json!(["service"]))["count"]["value"], 1);

    let index = client.body(200, "getCustomResources", &json!([]));
    assert_eq!(names(&index), ["apiName", "profile", "service"]);
    assert_eq!(index["apiName"], "resourceType");
    for resource in ["profile", "service"] {
        let one = &index[resource];
        assert_eq!(names(one), ["content", "data", "help", "href", "name", "type"]);
        assert_eq!((&one["name"], &one["type"]), (&json!(resource), &json!("collection")));
        assert_eq!(client.follow(text(&one["content"]["href"]))["count"]["value"], 1);
        assert_eq!(client.follow(text(&one["data"]))["count"]["value"], 1);
        assert_eq!(client.follow(text(&one["href"]))["name"], resource);
    }
}

#[test]
fn fields_of_the_business_are_written_and_shown_under_the_ext_root() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    let record = json!({ "lastName": "Vega", "cusHobby": "Dancing", "cusSize": "small", "cusVisits": 3.5, "cusMember": true, "cusSince": "2026-01-31" });
    let made = client.answer(201, "createCustomResource", &json!(["profile", record]));
    assert_eq!(made["url"], format!("{}/profileAndServicesExt/profile", client.campaign));
    let made = &made["body"];
    for (name, value) in record.as_object().unwrap() {
        assert_eq!(made[name], *value, "{name}");
    }
    let plain = client.body(200, "getProfile", &json!([made["PKey"]]));
    assert!(names(&plain).iter().all(|name| !name.starts_with("cus")), "{plain}");
    assert_eq!(names(made).len(), names(&plain).len() + 5);
    assert_eq!(client.body(200, "getProfileWithOrgUnit", &json!([made["PKey"]])), *made);
    let stub = client.body(200, "updateCustomResource", &json!(["profile", made["PKey"], { "cusVisits": 4, "cusSize": "" }]));
    assert_eq!(stub, json!({ "PKey": made["PKey"], "href": made["href"] }));
    let changed = client.body(200, "getProfileWithOrgUnit", &json!([made["PKey"]]));
    assert_eq!((&changed["cusVisits"], &changed["cusSize"], &changed["cusHobby"]), (&json!(4), &json!(""), &json!("Dancing")));
    let unset = client.body(201, "createCustomResource", &json!(["profile", {}]));
    let unset: Vec<&Value> = ["cusHobby", "cusSize", "cusVisits", "cusMember", "cusSince"].iter().map(|name| &unset[*name]).collect();
    assert_eq!(json!(unset), json!(["", "", 0, false, ""]));

    for (method, arguments, status, code, says) in [
        ("createProfile", json!([{ "cusHobby": "x" }]), 500, "ERROR_CREATE_PROFILE", not_valid("profile", "cusHobby")),
        ("updateProfile", json!([made["PKey"], { "cusHobby": "x" }]), 500, "ERROR_UPDATE_PROFILE", not_valid("profile", "cusHobby")),
        (
            "updateCustomResource",
            json!(["profile", made["PKey"], { "cusSize": "huge" }]),
            500,
            "ERROR_UPDATE_CUSTOM_RESOURCE",
            json!(format!("{GENERAL}The value 'huge' is not in the enumeration of 'cusSize'.")),
        ),
        (
            "updateCustomResource",
            json!(["profile", made["PKey"], { "cusVisits": "4" }]),
            500,
            "ERROR_UPDATE_CUSTOM_RESOURCE",
            json!("BAS-010040 Cannot convert 'cusVisits' (type text) to number."),
        ),
        (
            "createCustomResource",
            json!(["profile", { "cusHobby": "x".repeat(21) }]),
            400,
            "ERROR_CREATE_CUSTOM_RESOURCE",
            json!(format!("{GENERAL}'cusHobby' is longer than 20 characters.")),
        ),
        (
            "createCustomResource",
            json!(["profile", { "cusShoe": 1 }]),
            500,
            "ERROR_CREATE_CUSTOM_RESOURCE",
            not_valid("profile", "cusShoe"),
        ),
        ("updateCustomResource", json!(["profile", GONE, {}]), 404, "ERROR_UPDATE_CUSTOM_RESOURCE", not_found("profile", GONE)),
        ("deleteCustomResource", json!(["profile", GONE]), 404, "ERROR_DELETE_CUSTOM_RESOURCE", not_found("profile", GONE)),
        ("deleteCustomResource", json!(["profile", "@bogus"]), 404, "ERROR_DELETE_CUSTOM_RESOURCE", unreadable("@bogus")),
    ] {
        client.refused_for(method, &arguments, status, code, &says);
    }
    assert_eq!(client.body(200, "getProfileWithOrgUnit", &json!([made["PKey"]])), changed);
}

#[test]
fn units_and_histories_are_empty() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let rosa = client.body(201, "createProfile", &json!([{ "firstName": "Rosa", "lastName": "Vega", "email": "rosa@example.org" }]));
    for parameters in [json!({}), json!({ "lineCount": 5, "order": "title", "descendingSort": true, "limit": 3 })] {
        let units = client.answer(200, "getAllOrgUnits", &json!([parameters]));
        assert!(text(&units["url"]).contains("/profileAndServicesExt/orgUnitBase/"));
        assert_page(&units["body"], true);
        assert_eq!((&units["body"]["content"], &units["body"]["count"]["value"]), (&json!([]), &json!(0)));
    }
    let ext = client.body(200, "getProfileWithOrgUnit", &json!([rosa["PKey"]]));
    assert_eq!((&ext["PKey"], &ext["lastName"]), (&rosa["PKey"], &json!("Vega")));
    for (method, arguments, status, code, says) in [
        ("getAllOrgUnits", json!([{ "filters": ["byText"], "text": "x" }]), 404, "ERROR_GET_ALL_ORG_UNITS", no_such_resource()),
        ("getAllOrgUnits", json!([{ "filters": [GONE] }]), 404, "ERROR_GET_ALL_ORG_UNITS", not_found("orgUnitBase", GONE)),
        ("getProfileWithOrgUnit", json!([GONE]), 404, "ERROR_GET_PROFILE_WITH_ORG_UNIT", not_found("profile", GONE)),
        ("updateProfileOrgUnit", json!([rosa["PKey"], GONE]), 500, "ERROR_UPDATE_PROFILE_ORG_UNIT", not_valid("profile", "orgUnit")),
        ("getHistoryOfProfile", json!([GONE]), 404, "ERROR_GET_HISTORY_OF_PROFILE", not_found("profile", GONE)),
        ("getHistoryOfProfile", json!(["@bogus"]), 404, "ERROR_GET_HISTORY_OF_PROFILE", unreadable("@bogus")),
        // There is no unit that could be changed.
        ("updateOrgUnit", json!([GONE, { "label": "x" }]), 404, "ERROR_UPDATE_ORG_UNIT", not_found("orgUnitBase", GONE)),
    ] {
        client.refused_for(method, &arguments, status, code, &says);
    }
    let history = client.body(200, "getHistoryOfProfile", &json!([rosa["PKey"]]));
    assert_eq!((&history["PKey"], &history["email"], &history["firstName"]), (&rosa["PKey"], &json!("rosa@example.org"), &json!("Rosa")));
    let events = client.follow(text(&history["events"]["href"]));
    assert_page(&events, true);
    assert_eq!((&events["content"], &events["count"]["value"]), (&json!([]), &json!(0)));
}

#[test]
fn privacy_requests_show_and_delete_what_is_stored() {
    let (_directory, server) = configured(FIELDS);
    let mut client = Client::of(&server);
    let record = json!({ "firstName": "Rosa", "email": "rosa@example.org", "mobilePhone": "+12025550123", "cusHobby": "Dancing", "ccpaOptOut": true });
    let rosa = client.body(201, "createCustomResource", &json!(["profile", record]));
    client.body(201, "createProfile", &json!([{ "firstName": "Twin", "email": "Rosa@example.org" }]));
    client.body(201, "createProfile", &json!([{ "firstName": "Other", "email": "other@example.org" }]));
    let news = client.body(201, "createService", &json!([{ "label": "News" }]));
    client.body(201, "postDataToUrl", &json!([rosa["subscriptions"]["href"], { "service": { "PKey": news["PKey"] } }]));
    let none = client.body(200, "getGDPRRequest", &json!([]));
    assert_page(&none, true);
    assert_eq!(none["content"], json!([]));

    let request = |name: &str, namespace: &str, value: &str, what: &str, regulation: &str| json!({ "name": name, "namespaceName": namespace, "reconciliationValue": value, "label": format!("About {name}"), "type": what, "regulation": regulation });
    let made = client.body(201, "createGDPRRequest", &json!([request("one", "defaultNamespace1", "ROSA@example.org", "access", "CCPA")]));
    let pkey = text(&made["PKey"]);
    let href = format!("{}/privacy/privacyTool/{pkey}", client.campaign);
    let members = [
        "PKey",
        "audit",
        "created",
        "desc",
        "gdprRequestData",
        "href",
        "label",
        "lastModified",
        "name",
        "namespace",
        "namespaceName",
        "privacyRequestData",
        "reconciliationValue",
        "regulation",
        "retryCount",
        "status",
        "title",
        "type",
    ];
    assert_eq!(names(&made), members);
    for (name, value) in [
        ("href", json!(href)),
        ("name", json!("one")),
        ("label", json!("About one")),
        ("status", json!("complete")),
        ("type", json!("access")),
        ("regulation", json!("ccpa")),
        ("reconciliationValue", json!("ROSA@example.org")),
        ("namespaceName", json!("defaultNamespace1")),
        ("retryCount", json!(0)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    assert_eq!(names(&made["namespace"]), ["PKey", "title"]);
    assert_eq!(made["gdprRequestData"], made["privacyRequestData"], "both names lead to the same");
    assert_eq!(client.follow(&href), made);
    let list = client.body(200, "getGDPRRequest", &json!([]));
    assert_page(&list, true);
    assert_eq!(list["content"], json!([made]));

    let data = &made["privacyRequestData"]["href"];
    let file = client.call("getGDPRDataFile", &json!([data, "one"]))["value"].take();
    let file: Value = serde_json::from_str(text(&file)).expect("a JSON string that holds a document");
    let profiles = file["profiles"].as_array().unwrap();
    assert_eq!(column(profiles, "firstName"), ["Rosa", "Twin"]);
    assert_eq!((&profiles[0]["cusHobby"], &profiles[0]["subscriptions"][0]["service"]["label"]), (&json!("Dancing"), &json!("News")));
    assert_eq!(file["choices"]["sale"], "opted_out");
    assert!(!file.to_string().contains("other@example.org"));
    for (url, name, says) in [
        (data.clone(), "two", json!(format!("{GENERAL}'name' must be the name of this request."))),
        (json!(format!("{}/privacy/privacyTool/{GONE}/data", client.campaign)), "one", not_found("privacyTool", GONE)),
    ] {
        // The client asks for no status here.
        assert_eq!(client.call("getGDPRDataFile", &json!([url, name])), json!({ "value": says }));
    }
    let seen = client.call("getGDPRDataFile", &json!(["no URL", "one"]));
    assert_eq!(seen["code"], "ERROR_GET_GDPR_DATA_FILE", "{seen}");

    let mut other = request("two", "", "+12025550123", "access", "gdpr");
    (other["namespace"], other["namespaceName"]) = (json!("mobilePhone"), Value::Null);
    other.as_object_mut().unwrap().remove("namespaceName");
    let phone = client.body(201, "createGDPRRequest", &json!([other]));
    assert_eq!((&phone["status"], &phone["regulation"]), (&json!("complete"), &json!("gdpr")));
    let nobody = client.body(201, "createGDPRRequest", &json!([request("three", "email", "nobody@example.org", "access", "ccpa")]));
    assert_eq!(nobody["status"], "errorDataNotFound");

    let general = |says: &str| json!(format!("{GENERAL}{says}"));
    let without = |member: &str| {
        let mut body = request("four", "email", "rosa@example.org", "access", "ccpa");
        body.as_object_mut().unwrap().remove(member);
        body
    };
    let before = client.body(200, "getGDPRRequest", &json!([]));
    for (body, status, says) in [
        (
            request("one", "email", "rosa@example.org", "delete", "ccpa"),
            500,
            json!("PGS-220000 Another record has this 'name', which must be unique."),
        ),
        (without("regulation"), 500, general("'regulation' is missing.")),
        (without("name"), 500, general("'name' is missing.")),
        (without("reconciliationValue"), 500, general("'reconciliationValue' is missing.")),
        (without("type"), 500, general("'type' is missing.")),
        (json!({ "shoeSize": 44 }), 500, not_valid("privacyTool", "shoeSize")),
        (request("four", "email", "rosa@example.org", "sell", "ccpa"), 400, general("'type' must be 'access' or 'delete'.")),
        (json!([]), 400, general("The body is not a JSON object.")),
    ] {
        client.refused_for("createGDPRRequest", &json!([body]), status, "ERROR_CREATE_GDPR_REQUEST", &says);
    }
    assert_eq!(client.body(200, "getGDPRRequest", &json!([])), before);
    assert_eq!(client.body(200, "getAllProfiles", &json!([]))["count"]["value"], 3, "nothing refused was carried out");

    let deleted = client.body(201, "createGDPRRequest", &json!([request("five", "EMAIL", "rosa@example.org", "Delete", "ccpa")]));
    assert_eq!((&deleted["status"], &deleted["type"]), (&json!("complete"), &json!("delete")));
    let left = client.body(200, "getAllProfiles", &json!([]));
    assert_eq!(column(left["content"].as_array().unwrap(), "firstName"), ["Other"]);
    client.refused_for("getProfile", &json!([rosa["PKey"]]), 404, "ERROR_GET_PROFILE", &not_found("profile", text(&rosa["PKey"])));
    assert_eq!(client.follow(text(&news["subscriptions"]["href"]))["content"], json!([]));
    assert_eq!(server.decide("email", "rosa@example.org"), ("deny".into(), "opted_out".into()), "the data is gone, the choice stays");
    let shown = client.follow(text(&deleted["href"]));
    assert_eq!((&shown["name"], &shown["reconciliationValue"]), (&json!("five"), &json!("")), "it would be the last of what was deleted");

    for number in 0..30 {
        client.body(201, "createGDPRRequest", &json!([request(&format!("n{number:02}"), "email", "nobody@example.org", "access", "ccpa")]));
    }
    for form in FORMS {
        let first = client.body(200, "getGDPRRequest", &json!([]));
        assert_eq!(client.count(&first), 34);
        let pages = client.pages(first, form);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [25, 9]);
        let named: BTreeSet<String> = column(pages.iter().flatten(), "name").into_iter().collect();
        assert_eq!(named.len(), 34, "{form:?}");
    }
}
