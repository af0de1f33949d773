//! Adobe's own client, unmodified: every method that it has, against the real server.

mod driver;
mod lists;
mod records;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{CLIENTS, Server, send};
use driver::{Client, Form, GENERAL, GONE, column, configured, entries, names, no_such_resource, not_found, not_valid, text, unreadable};

#[test]
fn the_client_comes_from_its_lock_file_and_no_host_is_named() {
    let lock = std::fs::read_to_string(CLIENTS.join("package-lock.json")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.len() > 10);
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package["resolved"].is_null() && package["integrity"].is_string(), "{name}: {package}");
    }
    assert_eq!(packages["node_modules/@adobe/aio-lib-campaign-standard"]["version"], "4.0.3");
}

#[test]
fn adobes_own_client_works_when_only_its_host_changes() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let made = client.answer(201, "createProfile", &json!([{ "firstName": "Rosa", "lastName": "Vega", "email": "Rosa.Vega@Example.org" }]));
    assert_eq!(made["url"], format!("{}/profileAndServices/profile/", client.campaign), "this client adds a slash");
    let made = &made["body"];
    let pkey = text(&made["PKey"]);
    let href = format!("{}/profileAndServices/profile/{pkey}", client.campaign);
    let flags = [
        "blackList",
        "blackListEmail",
        "blackListFax",
        "blackListMobile",
        "blackListPhone",
        "blackListPostalMail",
        "blackListPushnotification",
        "ccpaOptOut",
        "isExternal",
    ];
    let unset = [
        "birthDate",
        "blackListAllLastModified",
        "blackListEmailLastModified",
        "blackListFaxLastModified",
        "blackListLastModified",
        "blackListMobileLastModified",
        "blackListPhoneLastModified",
        "blackListPostalMailLastModified",
        "ccpaOptOutLastModified",
        "externalId",
        "fax",
        "middleName",
        "mobilePhone",
        "phone",
        "salutation",
    ];
    let mut expected = json!({
        "PKey": pkey, "href": href, "subscriptions": { "href": format!("{href}/subscriptions/") }, "age": 0,
        "created": made["created"], "lastModified": made["created"], "cryptedId": made["cryptedId"],
        "domain": "Example.org", "email": "Rosa.Vega@Example.org", "emailFormat": "unknown", "firstName": "Rosa", "lastName": "Vega",
        "gender": "unknown", "preferredLanguage": "none", "timeZone": "none", "thumbnail": "/nl/img/thumbnails/defaultProfil.png",
        "title": "Rosa Vega (Rosa.Vega@Example.org)",
        "location": {
            "address1": "", "address2": "", "address3": "", "address4": "", "city": "", "countryCode": "", "stateCode": "", "zipCode": "",
        },
        "postalAddress": {
            "addrDefined": false, "addrErrorCount": 0, "addrLastCheck": "", "addrQuality": "0", "line1": "Rosa VEGA", "line2": "",
            "line3": "", "line4": "", "line5": "", "line6": "", "serialized": "Rosa VEGA\n\n\n\n\n",
        },
    });
    for name in flags {
        expected[name] = false.into();
    }
    for name in unset {
        expected[name] = "".into();
    }
    assert_eq!(made, &expected);
    let created = text(&made["created"]).as_bytes();
    assert!(created.len() == 24 && created[10] == b' ' && created[23] == b'Z', "{}", made["created"]);
    assert_ne!(made["cryptedId"], "");
    let read = client.answer(200, "getProfile", &json!([pkey]));
    assert_eq!(read["body"], *made);
    assert!(text(&read["url"]).contains("/%40"), "this client encodes the key: {}", read["url"]);

    let stub = json!({ "PKey": pkey, "href": href });
    let everything = json!({
        "lastName": "Vega Ruiz", "location": { "city": "Fresno" }, "gender": "female", "birthDate": "1985-02-11", "blackListEmail": true,
    });
    assert_eq!(client.body(200, "updateProfile", &json!([pkey, everything])), stub);
    let updated = client.body(200, "getProfile", &json!([pkey]));
    for (name, value) in everything.as_object().unwrap().iter().filter(|(name, _)| *name != "location") {
        assert_eq!(updated[name], *value, "{name}");
    }
    assert_eq!((&updated["location"]["city"], &updated["firstName"]), (&json!("Fresno"), &json!("Rosa")));
    assert!(updated["age"].as_u64().is_some_and(|age| age >= 40) && updated["blackListEmailLastModified"] != "");
    assert_eq!(client.body(200, "updateProfile", &json!([pkey, { "location": { "zipCode": "93701" } }])), stub);
    let merged = client.body(200, "getProfile", &json!([pkey]));
    assert_eq!((&merged["location"]["city"], &merged["location"]["zipCode"]), (&json!("Fresno"), &json!("93701")), "objects merge");
    assert_eq!(client.body(200, "updateProfile", &json!([pkey, {}])), stub);
    assert_eq!(client.body(200, "getProfile", &json!([pkey])), merged, "nothing given, nothing changed");

    assert_eq!(client.body(200, "updateProfile", &json!([pkey, { "ccpaOptOut": true }])), stub);
    let opted_out = client.body(200, "getProfile", &json!([pkey]));
    assert!(opted_out["ccpaOptOut"] == true && opted_out["ccpaOptOutLastModified"] != "", "{opted_out}");
    assert_eq!(server.decide("email", "rosa.vega@example.org"), ("deny".into(), "opted_out".into()));
    assert_eq!(client.body(200, "updateProfile", &json!([pkey, { "ccpaOptOut": false }])), stub);
    assert_eq!(client.body(200, "getProfile", &json!([pkey]))["ccpaOptOut"], false, "its own opt-out ends");
    let ivo = client.body(201, "createProfile", &json!([{ "firstName": "Ivo", "email": "ivo@example.org", "ccpaOptOut": true }]));
    assert_eq!(ivo["ccpaOptOut"], true);
    assert_eq!(server.decide("email", "ivo@example.org"), ("deny".into(), "opted_out".into()));

    for (method, arguments, status, code, says) in [
        ("getProfile", json!(["@bogus"]), 404, "ERROR_GET_PROFILE", unreadable("@bogus")),
        ("getProfile", json!([GONE]), 404, "ERROR_GET_PROFILE", not_found("profile", GONE)),
        ("updateProfile", json!(["@bogus", {}]), 404, "ERROR_UPDATE_PROFILE", unreadable("@bogus")),
        ("updateProfile", json!([GONE, {}]), 404, "ERROR_UPDATE_PROFILE", not_found("profile", GONE)),
        ("updateProfile", json!([pkey, { "shoeSize": 44 }]), 500, "ERROR_UPDATE_PROFILE", not_valid("profile", "shoeSize")),
        ("createProfile", json!([{ "shoeSize": 44 }]), 500, "ERROR_CREATE_PROFILE", not_valid("profile", "shoeSize")),
        (
            "updateProfile",
            json!([pkey, { "ccpaOptOut": "true" }]),
            500,
            "ERROR_UPDATE_PROFILE",
            json!("BAS-010040 Cannot convert 'ccpaOptOut' (type text) to boolean."),
        ),
        ("createProfile", json!([[]]), 400, "ERROR_CREATE_PROFILE", json!(format!("{GENERAL}The body is not a JSON object."))),
    ] {
        client.refused_for(method, &arguments, status, code, &says);
    }
    assert_eq!(client.body(200, "deleteCustomResource", &json!(["profile", text(&ivo["PKey"])])), json!({}));
    client.refused_for("getProfile", &json!([ivo["PKey"]]), 404, "ERROR_GET_PROFILE", &not_found("profile", text(&ivo["PKey"])));
    assert_eq!(server.decide("email", "ivo@example.org").0, "deny", "the data is gone, the choice stays");
}

/// Arguments for every method of the client, and the code of its error. The organization in them is another business's.
fn every_method(server: &Server, pkey: &str) -> Vec<(&'static str, Value, &'static str)> {
    let url = format!("{}/other/campaign/profileAndServices/profile", server.private);
    vec![
        ("getAllProfiles", json!([]), "ERROR_GET_ALL_PROFILES"),
        ("createProfile", json!([{ "lastName": "Nobody", "ccpaOptOut": true }]), "ERROR_CREATE_PROFILE"),
        ("getProfile", json!([pkey]), "ERROR_GET_PROFILE"),
        ("updateProfile", json!([pkey, { "ccpaOptOut": true }]), "ERROR_UPDATE_PROFILE"),
        ("getAllServices", json!([]), "ERROR_GET_ALL_SERVICES"),
        ("createService", json!([{ "label": "None" }]), "ERROR_CREATE_SERVICE"),
        ("getService", json!([pkey]), "ERROR_GET_SERVICE"),
        ("getHistoryOfProfile", json!([pkey]), "ERROR_GET_HISTORY_OF_PROFILE"),
        ("getMetadataForResource", json!(["profile"]), "ERROR_GET_METADATA_FOR_RESOURCE"),
        ("getMetadataForResourceExt", json!(["profile"]), "ERROR_GET_METADATA_FOR_RESOURCE_EXT"),
        ("getCustomResources", json!([]), "ERROR_GET_CUSTOM_RESOURCES"),
        ("createGDPRRequest", json!([{ "name": "x" }]), "ERROR_CREATE_GDPR_REQUEST"),
        ("getGDPRRequest", json!([]), "ERROR_GET_GDPR_REQUEST"),
        ("getAllOrgUnits", json!([]), "ERROR_GET_ALL_ORG_UNITS"),
        ("getProfileWithOrgUnit", json!([pkey]), "ERROR_GET_PROFILE_WITH_ORG_UNIT"),
        ("updateProfileOrgUnit", json!([pkey, GONE]), "ERROR_UPDATE_PROFILE_ORG_UNIT"),
        ("updateOrgUnit", json!([pkey, { "label": "x" }]), "ERROR_UPDATE_ORG_UNIT"),
        ("getDataFromRelativeUrl", json!(["/profileAndServices/profile/"]), "ERROR_GET_DATA_FROM_RELATIVE_URL"),
        ("getAllCustomResources", json!(["profile"]), "ERROR_GET_ALL_CUSTOM_RESOURCES"),
        ("getAllProfileAndServicesExt", json!(["profile"]), "ERROR_GET_ALL_PROFILES_AND_SERVICES_EXT"),
        ("createCustomResource", json!(["profile", { "lastName": "Nobody" }]), "ERROR_CREATE_CUSTOM_RESOURCE"),
        ("updateCustomResource", json!(["profile", pkey, { "ccpaOptOut": true }]), "ERROR_UPDATE_CUSTOM_RESOURCE"),
        ("deleteCustomResource", json!(["profile", pkey]), "ERROR_DELETE_CUSTOM_RESOURCE"),
        ("getAllBasicCustomResources", json!(["profile"]), "ERROR_GET_ALL_BASIC_CUSTOM_RESOURCES"),
        ("getWorkflow", json!(["WKF1"]), "ERROR_GET_WORKFLOW"),
        ("controlWorkflow", json!(["WKF1", "start"]), "ERROR_CONTROL_WORKFLOW"),
        ("sendTransactionalEvent", json!(["EVT1", {}]), "ERROR_SEND_TRANSACTIONAL_EVENT"),
        ("sendTransactionalEventForMacTenantId", json!(["other", "EVT1", {}]), "ERROR_SEND_TRANSACTIONAL_EVENT"),
        ("getTransactionalEvent", json!(["EVT1", pkey]), "ERROR_GET_TRANSACTIONAL_EVENT"),
        ("getTransactionalEventForMacTenantId", json!(["other", "EVT1", pkey]), "ERROR_GET_TRANSACTIONAL_EVENT"),
        // The client does not look at the status of these three.
        ("postDataToUrl", json!([url, { "lastName": "Nobody" }]), ""),
        ("getGDPRDataFile", json!([url, "x"]), ""),
        ("triggerSignalActivity", json!([url, {}]), ""),
    ]
}

#[test]
fn every_method_says_what_is_wrong_with_a_token_a_key_or_an_organization() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let pkey = client.body(201, "createProfile", &json!([{ "lastName": "Vega" }]))["PKey"].take();
    let reader = server.run(&["key", "create", "--name", "reader", "--role", "reader", "--json"]);
    let reader: Value = serde_json::from_slice(&reader.stdout).expect("a key");
    let reader = ["acme".to_owned(), text(&reader["api_key"]).to_owned(), text(&reader["token"]).to_owned()];
    let before = (client.body(200, "getProfile", &json!([pkey])), entries(&server));
    let every = every_method(&server, text(&pkey));

    let known = client.call("init", &json!([]))["methods"].take();
    let internal = ["constructor", "init", "__createRequestOptions", "__createFilterParams"];
    let known: BTreeSet<_> = known.as_array().unwrap().iter().map(text).filter(|name| !internal.contains(name)).collect();
    assert_eq!(known, every.iter().map(|(method, ..)| *method).collect(), "the client has no other method");

    let [acme, key, token] = client.credentials.clone();
    let wrong = |text: &str| text.to_owned();
    for (credentials, status, error_code, message) in [
        ([acme.clone(), key.clone(), wrong("no-such-token")], 401, "401013", "Oauth token is not valid"),
        ([acme.clone(), wrong("no-such-key"), token.clone()], 403, "403003", "Api Key is invalid"),
        ([wrong("other"), key.clone(), token.clone()], 403, "403023", "Profile is not valid"),
        ([wrong("acme-mkt-stage"), key.clone(), token.clone()], 403, "403023", "Profile is not valid"),
    ] {
        let says = json!({ "error_code": error_code, "message": message });
        for (method, arguments, code) in &every {
            if code.is_empty() {
                let mut seen = client.call_as(&credentials, method, arguments);
                if seen["plain"] == true {
                    assert_eq!((&seen["status"], &seen["ok"]), (&json!(status), &json!(false)), "{method}: {seen}");
                    seen["value"] = seen["body"].take();
                }
                assert_eq!(seen["value"], says, "{method}: {seen}");
            } else {
                assert_eq!(client.refused_as(&credentials, method, arguments, status, code), says, "{method}");
            }
        }
    }

    let not_entitled = json!({ "error_code": "403023", "message": "Profile is not valid" });
    let unserved = ["Workflow", "Transactional", "Signal"];
    let offered = every.iter().filter(|(method, _, code)| !code.is_empty() && !unserved.iter().any(|name| method.contains(name)));
    for (method, arguments, code) in offered {
        if ["create", "update", "delete"].iter().any(|verb| method.starts_with(verb)) {
            assert_eq!(client.refused_as(&reader, method, arguments, 403, code), not_entitled, "{method}");
        } else {
            let seen = client.call_as(&reader, method, arguments);
            let is_there = !matches!(*method, "getService" | "getAllBasicCustomResources");
            assert_eq!(seen["status"] == 200, is_there, "{method}: {seen}");
        }
    }
    let mixed = [acme.clone(), key.clone(), reader[2].clone()];
    let says = client.refused_as(&mixed, "getProfile", &json!([pkey]), 401, "ERROR_GET_PROFILE");
    assert_eq!(says["error_code"], "401013", "another key's token");

    for (credentials, missing) in [
        ([wrong(""), wrong(""), wrong("")], "tenantId, apiKey, accessToken"),
        ([wrong(""), key.clone(), token.clone()], "tenantId"),
        ([acme.clone(), wrong(""), token.clone()], "apiKey"),
        ([acme.clone(), key.clone(), wrong("")], "accessToken"),
    ] {
        let seen = client.call_as(&credentials, "init", &json!([]));
        let message = format!("[CampaignStandardSDK:ERROR_SDK_INITIALIZATION] SDK initialization error(s). Missing arguments: {missing}");
        assert_eq!((&seen["code"], &seen["message"]), (&json!("ERROR_SDK_INITIALIZATION"), &json!(message)));
    }
    assert_eq!((client.body(200, "getProfile", &json!([pkey])), entries(&server)), before, "nothing of all this changed anything");
    assert_eq!(client.body(200, "getAllProfiles", &json!([]))["count"]["value"], 1);
}

#[test]
fn methods_that_are_not_served_end_in_their_own_error() {
    let server = Server::start();
    let mut client = Client::of(&server);
    for (method, arguments, code) in [
        ("getWorkflow", json!(["WKF1"]), "ERROR_GET_WORKFLOW"),
        ("controlWorkflow", json!(["WKF1", "start"]), "ERROR_CONTROL_WORKFLOW"),
        ("sendTransactionalEvent", json!(["EVT1", { "email": "rosa@example.org" }]), "ERROR_SEND_TRANSACTIONAL_EVENT"),
        ("sendTransactionalEventForMacTenantId", json!(["acme", "EVT1", {}]), "ERROR_SEND_TRANSACTIONAL_EVENT"),
        ("getTransactionalEvent", json!(["EVT1", GONE]), "ERROR_GET_TRANSACTIONAL_EVENT"),
        ("getTransactionalEventForMacTenantId", json!(["acme", "EVT1", GONE]), "ERROR_GET_TRANSACTIONAL_EVENT"),
        ("getAllBasicCustomResources", json!(["cusShoe"]), "ERROR_GET_ALL_BASIC_CUSTOM_RESOURCES"),
        ("getAllCustomResources", json!(["cusShoe"]), "ERROR_GET_ALL_CUSTOM_RESOURCES"),
        ("getAllProfileAndServicesExt", json!(["cusShoe", { "lineCount": 2 }]), "ERROR_GET_ALL_PROFILES_AND_SERVICES_EXT"),
        ("getMetadataForResourceExt", json!(["cusShoe"]), "ERROR_GET_METADATA_FOR_RESOURCE_EXT"),
        ("createCustomResource", json!(["cusShoe", { "size": 44 }]), "ERROR_CREATE_CUSTOM_RESOURCE"),
        ("updateCustomResource", json!(["cusShoe", GONE, { "size": 44 }]), "ERROR_UPDATE_CUSTOM_RESOURCE"),
        ("deleteCustomResource", json!(["cusShoe", GONE]), "ERROR_DELETE_CUSTOM_RESOURCE"),
    ] {
        client.refused_for(method, &arguments, 404, code, &no_such_resource());
    }
    // The client asks for no status here.
    let url = format!("{}/workflow/execution/WKF1", client.campaign);
    assert_eq!(client.call("triggerSignalActivity", &json!([url, { "source": "x" }]))["value"], no_such_resource());
    let seen = client.call("controlWorkflow", &json!(["WKF1", "dance"]));
    assert_eq!(seen["code"], "ERROR_INVALID_WORKFLOW_CONTROL_COMMAND");
}

#[test]
fn strict_and_limits_reach_the_client_as_errors_that_it_can_show() {
    let (_directory, server) = configured("[campaign]\ncompat = \"strict\"\n[limits]\nrequests_per_minute_per_key = 12\n");
    let mut client = Client::of(&server);
    let pkey = client.body(201, "createProfile", &json!([{ "email": "rosa@example.org" }]))["PKey"].take();
    let choice = json!({ "kind": "opt_out", "channel": "form", "identifiers": [{ "kind": "email", "value": "rosa@example.org" }] });
    assert_eq!(server.post("/v1/requests", &choice).status, 201);
    for (method, arguments, status, code, says) in [
        ("updateProfile", json!([pkey, { "shoeSize": 44 }]), 400, "ERROR_UPDATE_PROFILE", not_valid("profile", "shoeSize")),
        ("createProfile", json!([{ "shoeSize": 44 }]), 400, "ERROR_CREATE_PROFILE", not_valid("profile", "shoeSize")),
        ("createGDPRRequest", json!([{}]), 400, "ERROR_CREATE_GDPR_REQUEST", json!(format!("{GENERAL}'name' is missing."))),
        (
            "updateProfile",
            json!([pkey, { "ccpaOptOut": false }]),
            409,
            "ERROR_UPDATE_PROFILE",
            json!("the opt-out stays: only the consumer can end it"),
        ),
    ] {
        client.refused_for(method, &arguments, status, code, &says);
    }
    assert_eq!(client.body(200, "getProfile", &json!([pkey]))["ccpaOptOut"], true);
    let (since, mut refused) = (Instant::now(), Value::Null);
    while refused.is_null() {
        assert!(since.elapsed() < Duration::from_mins(1), "no limit is reached");
        refused = client.call("getProfile", &json!([pkey]))["message"].take();
    }
    let body = r#"{"error_code":"429050","message":"Too many requests"}"#;
    assert_eq!(refused, format!("[CampaignStandardSDK:ERROR_GET_PROFILE] 429 - Too Many Requests ({body})"));
}

#[test]
fn a_token_of_a_day_works_as_the_key_that_it_was_fetched_with() {
    let server = Server::start();
    let mut client = Client::of(&server);
    let key = server.post("/v1/keys", &json!({ "name": "crm", "role": "writer" })).json();
    let fetch = |url: &str, form: &str| send("POST", url, form.as_bytes(), &[("content-type", "application/x-www-form-urlencoded")]);
    let url = format!("{}/ims/token/v3", server.private);
    let (id, secret) = (text(&key["api_key"]), text(&key["token"]));
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&scope=openid,AdobeID,campaign_sdk");
    for answer in [fetch(&url, &form), fetch(&format!("{url}?{form}"), "")] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = answer.json();
        assert_eq!(
            (names(&answer), &answer["token_type"], &answer["expires_in"]),
            (vec!["access_token", "expires_in", "token_type"], &json!("bearer"), &json!(86_399))
        );
        let token = text(&answer["access_token"]);
        assert_ne!(token, secret);
        client.credentials = ["acme".to_owned(), id.to_owned(), token.to_owned()];
        let made = client.body(201, "createProfile", &json!([{ "email": "rosa@example.org", "ccpaOptOut": true }]));
        assert_eq!(client.body(200, "getProfile", &json!([made["PKey"]]))["ccpaOptOut"], true);
        client.body(200, "updateProfile", &json!([made["PKey"], { "lastName": "Vega" }]));
        let service = client.body(201, "createService", &json!([{ "label": "News" }]));
        client.body(201, "postDataToUrl", &json!([made["subscriptions"]["href"], { "service": { "PKey": service["PKey"] } }]));
        let page = client.body(200, "getAllProfiles", &json!([{ "lineCount": 1, "order": "email" }]));
        assert_eq!(column(client.pages(page, Form::Absolute).iter().flatten(), "PKey").last(), Some(&text(&made["PKey"]).to_owned()));
        assert_eq!(client.body(200, "deleteCustomResource", &json!(["profile", made["PKey"]])), json!({}));
    }
    let [acme, id, token] = client.credentials.clone();
    let changed = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
    for (credentials, status, error_code) in [
        ([acme.clone(), server.api_key.clone(), token.clone()], 401, "401013"),
        ([acme.clone(), id.clone(), changed], 401, "401013"),
        (["other".to_owned(), id.clone(), token.clone()], 403, "403023"),
    ] {
        let says = client.refused_as(&credentials, "getAllProfiles", &json!([]), status, "ERROR_GET_ALL_PROFILES");
        assert_eq!(says["error_code"], error_code);
    }
    for (form, error) in [
        (form.replace("client_credentials", "password"), "unsupported_grant_type"),
        (form.replace(secret, "wrong"), "invalid_client"),
        (form.replace(&id, &server.api_key), "invalid_client"),
        ("grant_type=client_credentials".to_owned(), "invalid_request"),
    ] {
        let answer = fetch(&url, &form);
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{}", answer.text);
        assert!(!answer.text.contains(secret));
    }

    let reader = server.post("/v1/keys", &json!({ "name": "bi", "role": "reader" })).json();
    let form = format!("grant_type=client_credentials&client_id={}&client_secret={}", text(&reader["api_key"]), text(&reader["token"]));
    let of_reader = [acme, text(&reader["api_key"]).to_owned(), text(&fetch(&url, &form).json()["access_token"]).to_owned()];
    assert_eq!(client.call_as(&of_reader, "getAllProfiles", &json!([]))["status"], 200);
    let says = client.refused_as(&of_reader, "createProfile", &json!([{ "lastName": "x" }]), 403, "ERROR_CREATE_PROFILE");
    assert_eq!(says["error_code"], "403023", "it can do no more than its key");

    // It ends with its key.
    assert_eq!(server.send("DELETE", &format!("/v1/keys/{}", key["no"]), b"", &[]).status, 204);
    let since = Instant::now();
    while client.call("getAllProfiles", &json!([]))["status"] == 200 {
        assert!(since.elapsed() < Duration::from_secs(2), "the token of a revoked key still reads");
    }
    let says = client.refused("getAllProfiles", &json!([]), 403, "ERROR_GET_ALL_PROFILES");
    assert_eq!(says["error_code"], "403003");
}
