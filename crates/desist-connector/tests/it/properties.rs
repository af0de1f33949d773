//! What holds whatever people are called, whatever is written, and whatever is answered.

use desist_connector::declared::Transport;
use desist_connector::{Approvals, Call, Instance, Manifest, Person, SHIPPED, fuzz_answer, fuzz_expression, fuzz_manifest};
use desist_core::identifier::Kind;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{identifier, instance, manifest, person};

/// Those that make calls; the others have rows, in which a value is a JSON value and nothing else.
fn shipped() -> Vec<Instance> {
    let manifests = SHIPPED.iter().map(|shipped| manifest(shipped.text));
    let speaks_http = |manifest: &Manifest| manifest.declared().connector.transport == Transport::Http;
    manifests.filter(speaks_http).map(|manifest| instance(&manifest, Approvals::default())).collect()
}

/// A value without its texts, and without how often something of one shape stands in a list: two spellings can be the same one.
fn skeleton(value: &Value) -> Value {
    match value {
        Value::String(_) => json!("text"),
        Value::Array(items) => {
            let mut shapes: Vec<_> = items.iter().map(skeleton).collect();
            shapes.dedup();
            Value::Array(shapes)
        }
        Value::Object(members) => Value::Object(members.iter().map(|(key, member)| (key.clone(), skeleton(member))).collect()),
        other => other.clone(),
    }
}

/// Texts made to break out of whatever they are put into.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("\\".to_owned()),
        Just("{{settings.token}}".to_owned()),
        Just("}}".to_owned()),
        Just("{\"a\":1}".to_owned()),
        Just("],[".to_owned()),
        Just("\r\nX-Evil: 1\r\n\r\n".to_owned()),
        Just("/../../".to_owned()),
        Just("?x=1&y=2#".to_owned()),
        Just("@evil.example".to_owned()),
        Just("%2e%2e%2f%00".to_owned()),
        Just("\u{0}\u{2028}\u{feff}".to_owned()),
        Just("') OR Id != ('".to_owned()),
        any::<String>(),
        "[a-z0-9@.+-]{1,20}",
    ];
    proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

fn called(token: u64, text: &str) -> Person {
    let mut person = person(token);
    person.identifiers = Kind::ALL.into_iter().map(|kind| identifier(kind, text)).collect();
    person.lookup = vec![json!(text)];
    person
}

/// What of a URL does not depend on who is meant: all but what is between the signs that have a meaning.
fn signs(url: &str) -> String {
    url.chars().filter(|c| matches!(c, ':' | '/' | '?' | '#' | '&' | '=' | '@')).collect()
}

fn check_shape(instance: &Instance, calls: &[Call], benign: &[Call]) -> Result<(), TestCaseError> {
    for call in calls {
        let host = call.url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map(|(host, _)| host);
        prop_assert!(instance.hosts().iter().any(|known| Some(known.as_str()) == host), "another host: {}", call.url);
        prop_assert!(call.url.bytes().all(|byte| (b'!'..=b'~').contains(&byte)), "not a URL: {}", call.url);
        prop_assert!(benign.iter().any(|benign| signs(&benign.url) == signs(&call.url)), "another shape: {}", call.url);
        for (name, value) in &call.headers {
            prop_assert!(!value.expose().contains(['\r', '\n', '\0']), "{name} ends early");
        }
        if call.body.is_empty() {
            continue;
        }
        let body: Value = serde_json::from_slice(&call.body).expect("JSON");
        let same =
            benign.iter().any(|benign| serde_json::from_slice(&benign.body).is_ok_and(|benign| skeleton(&benign) == skeleton(&body)));
        prop_assert!(same, "another shape: {body}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A value never changes the shape of what is sent: not of a body, not of a URL, not of a header.
    #[test]
    fn no_value_changes_what_is_said(text in hostile()) {
        for instance in shipped() {
            for op in 0..instance.manifest().ops().count() {
                // With a telephone number that is one, and with one that is none.
                let mut benign = instance.calls(op, &[called(1, "rosa")]).expect("calls").0;
                benign.extend(instance.calls(op, &[person(1)]).expect("calls").0);
                let (calls, left) = instance.calls(op, &[called(1, &text)]).expect("calls");
                prop_assert!(!calls.is_empty() || left.iter().any(|left| left.identifier.is_none()), "nobody is passed over");
                check_shape(&instance, &calls, &benign)?;
            }
            for (calls, benign) in [
                (instance.lookup_calls(&called(1, &text)), instance.lookup_calls(&called(1, "rosa"))),
                (instance.verify_calls(&called(1, &text)), instance.verify_calls(&called(1, "rosa"))),
            ] {
                if let (Ok((calls, _)), Ok((benign, _))) = (calls, benign) {
                    check_shape(&instance, &calls, &benign)?;
                }
            }
        }
    }

    /// Halving a call again and again ends in calls of one unit, which are all the units, in order, each once.
    #[test]
    fn splitting_covers_all_units_once(count in 1_u64..40) {
        for instance in shipped() {
            let people: Vec<_> = (1..=count).map(person).collect();
            let (calls, _) = instance.calls(0, &people).expect("calls");
            for call in calls {
                let (mut waiting, mut units, mut items) = (vec![call.clone()], Vec::new(), 0);
                while let Some(call) = waiting.pop() {
                    if let Some([first, second]) = instance.split(&call) {
                        prop_assert!(!first.units.is_empty() && !second.units.is_empty());
                        prop_assert_eq!(first.units.len() + second.units.len(), call.units.len());
                        prop_assert!(first.url == call.url && second.url == call.url && first.method == call.method);
                        prop_assert!(first.body.len() < call.body.len() && second.body.len() < call.body.len());
                        waiting.extend([second, first]);
                    } else {
                        prop_assert_eq!(call.units.len(), 1);
                        units.extend(call.units.iter().copied());
                        items += 1;
                    }
                }
                prop_assert_eq!(&units, &call.units);
                prop_assert_eq!(items, call.units.len());
            }
        }
    }

    /// The body of the fuzz target, on seeded bytes.
    #[test]
    fn any_answer_gets_one_outcome_for_each_unit_and_none_above_the_ceiling(data in answers()) {
        fuzz_answer(&data);
    }

    /// The body of the fuzz target, on seeded bytes.
    #[test]
    fn any_expression_is_read_or_refused(data in expressions()) {
        fuzz_expression(&data);
    }

    /// The body of the fuzz target, on seeded bytes and on shipped connectors with a piece changed.
    #[test]
    fn any_manifest_is_read_or_refused(data in manifests()) {
        fuzz_manifest(&data);
    }
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        Just(json!(null)),
        (-1_i64..5).prop_map(|number| json!(number)),
        "[a-zA-Z0-9_@. ]{0,12}".prop_map(|text| json!(text)),
        Just(json!("rosa@example.org1")),
    ];
    let member = prop::sample::select(vec!["ok", "failed", "job", "code", "gone", "twice", "at", "id", "error", "other"]);
    let value = scalar.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((member.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    });
    let body = prop_oneof![
        4 => value.prop_map(|value| value.to_string().into_bytes()),
        1 => any::<Vec<u8>>(),
    ];
    (any::<[u8; 2]>(), body).prop_map(|(first, body)| [first.to_vec(), body].concat())
}

fn expressions() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/",
        "*",
        "a",
        "b",
        "~0",
        "~1",
        "~",
        " ",
        "==",
        "!=",
        "in",
        "exists",
        "[",
        "]",
        ",",
        "'",
        "true",
        "null",
        "17",
        "-",
        "é",
        "|",
        "trim",
        "sha256",
        "hex",
        "lower",
        "default('x')",
        "soql_list",
        "\n",
        "{\"a\":[1]}",
    ]);
    prop_oneof![
        3 => proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => any::<Vec<u8>>(),
    ]
}

fn manifests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{{ids}}",
        "{{id.email}}",
        "{{items}}",
        "{{lookup}}",
        "{{at|iso8601}}",
        "{{settings.token}}",
        "{{",
        "}}",
        "\"",
        "[",
        "]",
        "=",
        "\n",
        "/*",
        "accepted",
        "verified",
        "status",
        "index",
        "batch_items = 5\n",
        "[verify]\n",
        "[[op]]\n",
        "x",
        "{ a = 1 }",
        "1979-05-27",
        "nan",
        "..",
        "é",
        "\u{0}",
    ]);
    let changed = (0..SHIPPED.len(), any::<prop::sample::Index>(), 0_usize..40, piece).prop_map(|(which, at, length, piece)| {
        let text = SHIPPED[which].text;
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let line = at.index(lines.len());
        let mut bytes = lines[..line].concat().into_bytes();
        let middle = lines[line].as_bytes();
        let cut = length.min(middle.len());
        bytes.extend_from_slice(&middle[..cut]);
        bytes.extend_from_slice(piece.as_bytes());
        bytes.extend_from_slice(&middle[(cut + piece.len()).min(middle.len())..]);
        bytes.extend(lines[line + 1..].concat().into_bytes());
        bytes
    });
    let without = (0..SHIPPED.len(), any::<prop::sample::Index>()).prop_map(|(which, at)| {
        let lines: Vec<_> = SHIPPED[which].text.split_inclusive('\n').collect();
        let line = at.index(lines.len());
        [lines[..line].concat(), lines[line + 1..].concat()].concat().into_bytes()
    });
    prop_oneof![4 => changed, 2 => without, 1 => any::<Vec<u8>>()]
}
