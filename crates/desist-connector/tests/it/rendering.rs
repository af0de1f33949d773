//! What is sent: batches, groups, limits, settings, hosts, and who cannot be told.

use std::collections::BTreeMap;

use desist_connector::declared::Unit;
use desist_connector::limits::{EACH_MAX, HEADER_BYTES_MAX, IDS_PER_ITEM_MAX, SETTING_BYTES_MAX, URL_BYTES_MAX};
use desist_connector::{Approvals, Auth, Call, Given, Instance, Person, RenderError, SHIPPED, Secret, Why};
use desist_core::identifier::Kind;
use serde_json::{Value, json};

use super::world::{identifier, instance, left, manifest, person};

/// A connector whose limits and op are given.
fn connector(limits: &str, ids: &str, op: &str) -> Instance {
    instance(&manifest(&text(limits, ids, op)), Approvals::default())
}

fn text(limits: &str, ids: &str, op: &str) -> String {
    format!(
        "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example.org\"]\n[limits]\n{limits}\n{ids}\n[[op]]\non = \"opt_out\"\n\
         purposes = [\"sale\"]\nwrites = \"list\"\neffect = \"remove\"\nceiling = \"accepted\"\nmethod = \"POST\"\n{op}\n[op.result]\ndialect = \"status\"\n"
    )
}

const BATCH: &str = "path = \"/a\"\nunit = \"id\"\nitem = { e = \"{{id.email}}\" }\nbody = { list = \"{{items}}\" }";

fn body(call: &Call) -> Value {
    serde_json::from_slice(&call.body).expect("JSON")
}

fn tokens(calls: &[Call]) -> Vec<Vec<u64>> {
    calls.iter().map(|call| call.units.iter().map(|unit| unit.token).collect()).collect()
}

#[test]
fn batches_are_no_larger_than_their_limits() {
    let people: Vec<Person> = (1..=7).map(person).collect();
    let by_items = connector("batch_items = 3", "[ids.email]", BATCH);
    let (calls, none) = by_items.calls(0, &people).expect("calls");
    assert_eq!((tokens(&calls), none), (vec![vec![1, 2, 3], vec![4, 5, 6], vec![7]], vec![]));
    // {"list":[{"e":"rosa1@example.org"},{"e":"rosa2@example.org"}]} has 62 bytes.
    for (bytes, sizes) in [(64, vec![2, 2, 2, 1]), (62, vec![1; 7]), (37, vec![1; 7])] {
        let (calls, left) =
            connector(&format!("batch_items = 3\nbatch_bytes = {bytes}"), "[ids.email]", BATCH).calls(0, &people).expect("calls");
        assert_eq!((calls.iter().map(|call| call.units.len()).collect::<Vec<_>>(), left.len()), (sizes, 0), "{bytes}");
        assert!(calls.iter().all(|call| call.body.len() <= bytes), "{bytes}");
    }
    // A person whose item alone is too large is said to be left out, and the others are told.
    let mut large = person(8);
    large.identifiers = vec![identifier(Kind::Email, &format!("{}@example.org", "x".repeat(60)))];
    let people = [person(1), large];
    for limits in ["batch_items = 3\nbatch_bytes = 64", "batch_items = 1\nbatch_bytes = 64"] {
        let (calls, unreachable) = connector(limits, "[ids.email]", BATCH).calls(0, &people).expect("calls");
        assert_eq!(
            (tokens(&calls), unreachable.iter().map(left).collect::<Vec<_>>()),
            (vec![vec![1]], vec!["8 person TooLarge".to_owned()])
        );
    }
}

fn left_of(instance: &Instance, people: &[Person]) -> Vec<String> {
    instance.calls(0, people).expect("calls").1.iter().map(left).collect()
}

#[test]
fn identifiers_of_a_person_are_sent_in_parts() {
    let mut rosa = person(1);
    rosa.identifiers = (0..7).map(|number| identifier(Kind::Email, &format!("r{number}@example.org"))).collect();
    rosa.identifiers.push(identifier(Kind::Email, "r0@example.org"));
    let op = "path = \"/a\"\nitem = \"{{ids.email}}\"\nbody = \"{{items}}\"";
    let (calls, _) =
        connector("batch_items = 9\nids_per_item = 3", "[ids.email]", op).calls(0, std::slice::from_ref(&rosa)).expect("calls");
    let parts = |list: &[u64]| Value::Array(list.iter().map(|number| json!(format!("r{number}@example.org"))).collect());
    assert_eq!(body(&calls[0]), json!([parts(&[0, 1, 2]), parts(&[3, 4, 5]), parts(&[6])]), "each once");
    assert_eq!(tokens(&calls), [[1, 1, 1]]);
    rosa.identifiers = (0..=IDS_PER_ITEM_MAX).map(|number| identifier(Kind::Email, &format!("r{number}@example.org"))).collect();
    let (calls, _) = connector("batch_items = 9", "[ids.email]", op).calls(0, &[rosa]).expect("calls");
    let sizes: Vec<_> = body(&calls[0]).as_array().expect("a list").iter().map(|item| item.as_array().expect("a list").len()).collect();
    assert_eq!(sizes, [IDS_PER_ITEM_MAX as usize, 1]);
}

#[test]
fn who_cannot_be_told_is_said_with_the_reason() {
    let digest = |kind| desist_connector::Identifier { kind, text: None, sha256: Some([7; 32]) };
    let mut nobody = person(1);
    nobody.identifiers = vec![identifier(Kind::Phone, "+12025550123")];
    let mut hashed = person(2);
    hashed.identifiers = vec![digest(Kind::Email)];
    let mut partly = person(3);
    partly.identifiers.push(digest(Kind::Email));
    let plain = connector("batch_items = 9", "[ids.email]", BATCH);
    assert_eq!(
        left_of(&plain, &[nobody, hashed.clone(), partly.clone()]),
        ["1 person NoIdentifier", "2 person HashOnly", "2 email HashOnly", "3 email HashOnly"]
    );
    // Where the digest of the normal form is what is sent, it is as good as the text.
    for (variant, is_told) in
        [("sha256|hex", true), ("trim|lower|sha256|base64", true), ("gmail_dots|sha256|hex", false), ("md5|hex", false)]
    {
        let by_digest = connector("batch_items = 9", &format!("[ids.email]\nvariants = [\"{variant}\"]"), BATCH);
        assert_eq!(left_of(&by_digest, std::slice::from_ref(&hashed)).is_empty(), is_told, "{variant}");
    }
    let both = "[ids.email]\nvariants = [\"gmail_dots|sha256|hex\", \"sha256|hex\"]";
    assert!(left_of(&connector("batch_items = 9", both, BATCH), &[hashed]).is_empty(), "one spelling of two can be made");
    // In a path nothing is empty, and nothing climbs.
    let in_path = "path = \"/a/{{id.customer_id}}/b\"\nunit = \"id\"";
    let paths = connector("", "[ids.customer_id]", in_path);
    for (value, url) in [
        ("a/b?c#d%\u{e9}", Some("https://a.example.org/a/a%2Fb%3Fc%23d%25%C3%A9/b")),
        ("...", Some("https://a.example.org/a/.../b")),
        ("..", None),
        (".", None),
        ("../../lists/5", None),
        ("..\\..\\lists", None),
        ("a/./b", None),
        ("a//b", None),
        ("a/", None),
        ("/a", None),
        ("a..b/c", Some("https://a.example.org/a/a..b%2Fc/b")),
        ("", None),
    ] {
        let mut rosa = person(1);
        rosa.identifiers = vec![identifier(Kind::CustomerId, value)];
        let (calls, left) = paths.calls(0, &[rosa]).expect("calls");
        assert_eq!(calls.first().map(|call| call.url.as_str()), url, "{value}");
        assert_eq!(left.iter().any(|left| left.identifier.is_none() && left.why == Why::Unusable), url.is_none(), "{value}");
    }
}

#[test]
fn urls_and_headers_have_their_limits() {
    let with = |op: &str, length: usize| {
        let mut rosa = person(1);
        rosa.identifiers = vec![identifier(Kind::CustomerId, &"x".repeat(length))];
        connector("", "[ids.customer_id]", op).calls(0, &[rosa]).expect("calls").1.first().map(|left| left.why)
    };
    let in_path = "path = \"/{{id.customer_id}}\"\nunit = \"id\"";
    let start = "https://a.example.org/".len();
    assert_eq!((with(in_path, URL_BYTES_MAX - start), with(in_path, URL_BYTES_MAX - start + 1)), (None, Some(Why::TooLarge)));
    let in_header = "path = \"/\"\nunit = \"id\"\nheaders = { x-id = \"{{id.customer_id}}\" }";
    assert_eq!((with(in_header, HEADER_BYTES_MAX), with(in_header, HEADER_BYTES_MAX + 1)), (None, Some(Why::Unusable)));
}

#[test]
fn settings_are_checked_before_anything_is_sent() {
    let settings = "[settings.host]\ntype = \"host\"\nrequired = true\n[settings.path]\ntype = \"path\"\nrequired = true\n[settings.token]\ntype = \"secret\"\nrequired = true\n\
                    [settings.tenant]\ntype = \"string\"\nrequired = true\n[settings.n]\ntype = \"int\"\ndefault = 1\n[settings.b]\ntype = \"bool\"\ndefault = true\n\
                    [settings.e]\ntype = \"enum\"\nvalues = [\"x\"]\ndefault = \"x\"\n[settings.l]\ntype = \"list\"\nrequired = true\n";
    let op = "path = \"{{settings.path}}/{{id.email}}\"\nunit = \"id\"\nfor_each = \"settings.l\"\nfixed = [\"n\", \"b\", \"e\", \"each\"]\n\
              headers = { x-token = \"Key {{settings.token}}\" }\n\
              body = { n = \"{{settings.n}}\", b = \"{{settings.b}}\", e = \"{{settings.e}}\", each = \"{{each}}\" }";
    let text = text("", "[ids.email]", op)
        .replace("[\"a.example.org\"]", "[\"{{settings.host}}\", \"{{settings.tenant}}.example.org\"]")
        .replace("[limits]", &format!("{settings}[limits]"));
    let manifest = manifest(&text);
    let good = || {
        BTreeMap::from([
            ("host".to_owned(), Given::Value(json!("api.example.org:8443"))),
            ("path".to_owned(), Given::Value(json!("/v1/in"))),
            ("token".to_owned(), Given::Secret(Secret::new("t0k3n"))),
            ("tenant".to_owned(), Given::Value(json!("acme"))),
            ("l".to_owned(), Given::Value(json!(["a", 7]))),
        ])
    };
    let bound = Instance::new(&manifest, &good(), Approvals::default()).expect("good settings");
    let (calls, _) = bound.calls(0, &[person(1)]).expect("calls");
    assert_eq!(calls[0].url, "https://api.example.org:8443/v1/in/rosa1%40example.org");
    assert_eq!(
        calls.iter().map(body).collect::<Vec<_>>(),
        [json!({"n": 1, "b": true, "e": "x", "each": "a"}), json!({"n": 1, "b": true, "e": "x", "each": 7})]
    );
    assert_eq!(calls[0].headers[0].1.expose(), "Key t0k3n");
    assert!(!format!("{calls:?} {bound:?} {:?}", bound.auth()).contains("t0k3n"), "a secret is not printed");
    let long = "x".repeat(SETTING_BYTES_MAX + 1);
    let many: Vec<_> = (0..=EACH_MAX).collect();
    for (name, value, part) in [
        ("host", json!("evil.example.org/path"), "is not a host"),
        ("host", json!("user@evil.example.org"), "is not a host"),
        ("host", json!("[::1]"), "is not a host"),
        ("host", json!("EVIL.example.org"), "is not a host"),
        ("path", json!("v1"), "is not a path"),
        ("path", json!("/v1/../admin"), "is not a path"),
        ("path", json!("/v1/%2E%2e/admin"), "is not a path"),
        ("path", json!("//evil.example.org"), "is not a path"),
        ("path", json!("/a?b=c"), "is not a path"),
        ("path", json!("/a b"), "is not a path"),
        ("tenant", json!("evil.com/"), "do not make a host"),
        ("tenant", json!("evil.com"), "do not make a host"),
        ("tenant", json!("evil.com:443#"), "do not make a host"),
        ("tenant", json!(long), "is not a text"),
        ("tenant", json!("a\nb"), "is not a text"),
        ("token", json!("t0k3n"), "stands in the configuration"),
        ("n", json!("1"), "is not a whole number"),
        ("b", json!("yes"), "is not true or false"),
        ("e", json!("y"), "is not one of x"),
        ("l", json!([]), "is not a list of 1 to 1000"),
        ("l", json!(many), "is not a list of 1 to 1000"),
        ("l", json!([".."]), "something else than texts"),
        ("l", json!([{"a": 1}]), "something else than texts"),
        ("hots", json!("x"), "did you mean \"host\"?"),
    ] {
        let mut given = good();
        given.insert(name.to_owned(), Given::Value(value.clone()));
        let problems = Instance::new(&manifest, &given, Approvals::default()).err().unwrap_or_default();
        assert!(problems.iter().any(|problem| problem.to_string().contains(part)), "{name} {value}: {problems:?}");
    }
    let mut given = good();
    given.remove("tenant");
    given.insert("host".to_owned(), Given::Secret(Secret::new("x")));
    given.insert("token".to_owned(), Given::Secret(Secret::new("a\r\nb")));
    let problems = Instance::new(&manifest, &given, Approvals::default()).expect_err("three problems");
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["settings.host", "settings.tenant", "settings.token"]);
    let most: Vec<_> = (0..EACH_MAX).collect();
    let given = good().into_iter().chain([("l".to_owned(), Given::Value(json!(most)))]).collect();
    assert!(Instance::new(&manifest, &given, Approvals::default()).is_ok());
}

/// What is wrong with a setting is said once, when it is given, and never of a person.
#[test]
fn a_setting_that_cannot_be_written_is_refused() {
    let settings = "[settings.tenant]\ntype = \"string\"\nrequired = true\n[settings.token]\ntype = \"secret\"\nrequired = true\n\
                    [settings.l]\ntype = \"list\"\nrequired = true\n";
    let op =
        |more: &str| format!("unit = \"id\"\nfor_each = \"settings.l\"\nheaders = {{ x-key = \"Key {{{{settings.token}}}}\" }}\n{more}");
    let in_path = op("path = \"/{{settings.tenant}}/{{each}}/{{id.email}}\"");
    let in_header = op("path = \"/{{each}}/{{id.email}}\"").replace("x-key", "x-tenant = \"{{settings.tenant}}\", x-key");
    for (op, tenant, token, list, wrong) in [
        (&in_path, "acme", "t0k3n", "a", ""),
        (&in_path, "..", "t0k3n", "a", "op.0.path"),
        (&in_path, "a/../b", "t0k3n", "a", "op.0.path"),
        (&in_path, "acme", "t0k3n", "a/../b", "op.0.path"),
        (&in_path, "acme", "tök3n", "a", "op.0.headers.x-key"),
        (&in_path, "acme", "t0k3n ", "a", "op.0.headers.x-key"),
        (&in_header, "acme", "t0k3n", "a", ""),
        (&in_header, "acmé", "t0k3n", "a", "op.0.headers.x-tenant"),
    ] {
        let manifest = manifest(&text("", "[ids.email]", op).replace("[limits]", &format!("{settings}[limits]")));
        let given = BTreeMap::from([
            ("tenant".to_owned(), Given::Value(json!(tenant))),
            ("token".to_owned(), Given::Secret(Secret::new(token))),
            ("l".to_owned(), Given::Value(json!(["x", list]))),
        ]);
        let problems = Instance::new(&manifest, &given, Approvals::default()).err().unwrap_or_default();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths.concat(), wrong, "{tenant} {token} {list}: {problems:?}");
    }
}

/// Where each kind has an op of its own, somebody is told by the one that is about them.
#[test]
fn an_op_about_other_kinds_leaves_the_person_to_the_next() {
    let by_email = text("batch_items = 9", "[ids.email]\n[ids.phone]\n[ids.maid]", BATCH);
    let op = &by_email[by_email.find("[[op]]").expect("an op")..];
    let by_phone = op.replace("id.email", "id.phone");
    let of_kinds = |token, kinds: &[Kind]| {
        let mut someone = person(token);
        someone.identifiers.retain(|identifier| kinds.contains(&identifier.kind));
        someone
    };
    let people = [of_kinds(1, &[Kind::Phone]), of_kinds(2, &[Kind::Email]), of_kinds(3, &[Kind::CustomerId]), of_kinds(4, &[])];
    for (second, expected) in [
        (by_phone.clone(), ["1 person OtherKinds", "3 person NoIdentifier", "4 person NoIdentifier"]),
        (by_phone.replace("[\"sale\"]", "[\"sharing\"]"), ["1 person NoIdentifier", "3 person NoIdentifier", "4 person NoIdentifier"]),
        (by_phone.replace("opt_out", "opt_in"), ["1 person NoIdentifier", "3 person NoIdentifier", "4 person NoIdentifier"]),
    ] {
        let both = format!("{by_email}\n{second}").replace("\n[ids.maid]", "");
        assert_eq!(left_of(&instance(&manifest(&both), Approvals::default()), &people), expected);
    }
    // Beside one that can be said, one that cannot is said to be left out.
    let list = "path = \"/a\"\nitem = { l = \"{{ids}}\" }\nbody = { list = \"{{items}}\" }";
    let mut partly = of_kinds(5, &[Kind::Email]);
    partly.identifiers.push(desist_connector::Identifier { kind: Kind::Phone, text: None, sha256: Some([7; 32]) });
    let all = connector("batch_items = 9", "[ids.email]\n[ids.phone]", list);
    let (calls, unreachable) = all.calls(0, &[partly]).expect("calls");
    assert_eq!(body(&calls[0]), json!({"list": [{"l": ["rosa5@example.org"]}]}));
    assert_eq!(unreachable.iter().map(left).collect::<Vec<_>>(), ["5 phone HashOnly"]);
}

#[test]
fn nobody_is_deleted_without_approval() {
    let text = text("batch_items = 9", "[ids.email]", BATCH).replace("\"remove\"", "\"delete\"");
    let manifest = manifest(&text);
    let problems = Instance::new(&manifest, &BTreeMap::new(), Approvals::default()).expect_err("refused");
    assert!(problems[0].to_string().contains("deletes people's data"), "{}", problems[0]);
    assert!(Instance::new(&manifest, &BTreeMap::new(), Approvals { delete: true, ..Approvals::default() }).is_ok());
    let dry = Approvals { delete: true, dry_run: true, ..Approvals::default() };
    assert!(Instance::new(&manifest, &BTreeMap::new(), dry).expect_err("refused")[0].to_string().contains("has no dry run"));
}

/// Plain HTTP goes to this machine alone, and only where the operator said so.
#[test]
fn plain_http_stays_on_this_machine() {
    let shipped = SHIPPED.iter().find(|shipped| shipped.id == "webhook").expect("it is shipped");
    let manifest = manifest(shipped.text);
    for (host, http_loopback, start) in [
        ("127.0.0.1:8080", true, "http://127.0.0.1:8080/"),
        ("localhost:8080", true, "http://localhost:8080/"),
        ("127.0.0.1:8080", false, "https://127.0.0.1:8080/"),
        ("hooks.example.org", true, "https://hooks.example.org/"),
        ("127.0.0.1.example.org", true, "https://127.0.0.1.example.org/"),
        ("localhost.example.org", true, "https://localhost.example.org/"),
        ("10.0.0.1", true, "https://10.0.0.1/"),
    ] {
        let given = BTreeMap::from([
            ("host".to_owned(), Given::Value(json!(host))),
            ("secret".to_owned(), Given::Secret(Secret::new("whsec_c2VjcmV0"))),
        ]);
        let instance = Instance::new(&manifest, &given, Approvals { http_loopback, ..Approvals::default() }).expect("an instance");
        assert_eq!(instance.auth(), &Auth::StandardWebhooks { secret: Secret::new("whsec_c2VjcmV0") });
        let (calls, _) = instance.calls(0, &[person(1)]).expect("calls");
        assert!(calls[0].url.starts_with(start), "{}", calls[0].url);
    }
}

#[test]
fn what_a_connector_does_not_declare_cannot_be_called() {
    let instance = connector("batch_items = 9", "[ids.email]", BATCH);
    let rosa = person(1);
    assert_eq!(instance.calls(1, &[]).err(), Some(RenderError::NotDeclared));
    assert_eq!(instance.rows(0, &[]).err(), Some(RenderError::NotDeclared));
    assert_eq!(instance.lookup_calls(&rosa).err(), Some(RenderError::NotDeclared));
    assert_eq!(instance.verify_calls(&rosa).err(), Some(RenderError::NotDeclared));
    assert_eq!(instance.probe_call().err(), Some(RenderError::NotDeclared));
    assert_eq!(instance.poll_call(0, "1").err(), Some(RenderError::NotDeclared));
    assert!(instance.setup_calls().expect("none").is_empty());
    let text = "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\ntransport = \"manual\"\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\n\
                writes = [\"state\"]\neffect = \"table\"\nceiling = \"accepted\"\nunit = \"id\"\nitem = { email = \"{{id.email}}\", state = \"{{status}}\" }\n";
    let rows = super::world::instance(&manifest(text), Approvals::default());
    assert_eq!(rows.calls(0, &[]).err(), Some(RenderError::NotHttp));
    let mut nobody = person(2);
    nobody.identifiers.clear();
    let (found, unreachable) = rows.rows(0, &[rosa, nobody]).expect("rows");
    assert_eq!((found.len(), &found[0].value), (1, &json!({"email": "rosa1@example.org", "state": "opt_out"})));
    assert_eq!(unreachable.iter().map(left).collect::<Vec<_>>(), ["2 person NoIdentifier"]);
    assert_eq!(rows.manifest().ops().next().expect("an op").unit, Unit::Id);
}
