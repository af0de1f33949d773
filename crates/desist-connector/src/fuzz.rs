//! Bodies of the fuzz targets: any bytes through everything here that reads input, with what must hold of it. The tests run them
//! on seeded random bytes, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use desist_core::identifier::Kind;
use serde_json::{Value, json};

use crate::answer::{Answer, UnitOutcome, Whole};
use crate::declared::{Ceiling, SettingKind};
use crate::expression::{Expression, Pointer};
use crate::instance::{Call, Identifier, Instance, Person};
use crate::manifest::Manifest;
use crate::pipe::{Pipe, Piped};
use crate::settings::{Approvals, Given, Secret};

/// Somebody with an identifier of every kind.
fn person(token: u64, text: &str) -> Person {
    let identifiers = Kind::ALL.into_iter().map(|kind| Identifier { kind, text: Some(format!("{text}{token}")), sha256: None });
    Person {
        token,
        version: token,
        at: 0,
        purposes: vec!["sale".to_owned()],
        status: "opt_out".to_owned(),
        identifiers: identifiers.collect(),
        lookup: vec![json!(format!("{text}{token}"))],
    }
}

/// Whatever the text, reading it ends, each problem says where it is and what to do, and what is read renders to its own hosts.
#[doc(hidden)]
pub fn fuzz_manifest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let manifest = match Manifest::parse(&text, "fuzz.toml") {
        Ok(manifest) => manifest,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            let lines = text.lines().count() + 1;
            for problem in problems {
                assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{problem}");
                assert!(problem.line <= lines && (problem.line == 0 || problem.column > 0), "{problem}");
                assert!(!problem.to_string().contains('\n'), "a problem is one line");
            }
            return;
        }
    };
    let given = manifest.declared.settings.iter().map(|(name, setting)| {
        let value = match setting.kind {
            SettingKind::Secret => return (name.clone(), Given::Secret(Secret::new("secret"))),
            SettingKind::String => json!("acme"),
            SettingKind::Int => json!(1),
            SettingKind::Bool => json!(true),
            SettingKind::Enum => json!(setting.values.iter().flatten().next()),
            SettingKind::List => json!(["a"]),
            SettingKind::Host => json!("api.example.org"),
            SettingKind::Path => json!("/a"),
        };
        (name.clone(), Given::Value(value))
    });
    let approvals = Approvals { delete: true, ..Approvals::default() };
    let Ok(instance) = Instance::new(&manifest, &given.collect::<BTreeMap<_, _>>(), approvals) else { return };
    let people = [person(1, "rosa@example.org"), person(2, "+12025550123")];
    for op in 0..manifest.ops.len() {
        let Ok((calls, left)) = instance.calls(op, &people) else { continue };
        for person in &people {
            let is_told = calls.iter().flat_map(|call| &call.units).any(|unit| unit.token == person.token);
            let is_left = left.iter().any(|left| left.token == person.token && left.identifier.is_none());
            assert!(is_told || is_left, "nobody is passed over");
        }
        for call in &calls {
            let host = call.url.trim_start_matches("https://").split('/').next().unwrap_or_default();
            assert!(
                call.url.starts_with("https://") && instance.hosts().iter().any(|known| known == host),
                "a call goes to a declared host"
            );
        }
    }
}

/// Whatever the text, reading it ends; what is read evaluates on any value, and says the same twice.
#[doc(hidden)]
pub fn fuzz_expression(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, "{\"a\":[{\"b\":1},2,null]}"));
    let root: Value = serde_json::from_str(rest).unwrap_or(Value::Null);
    match Expression::parse(first) {
        Ok(expression) => {
            let (all, any) = (expression.holds_for_all(&root), expression.holds_for_any(&root));
            assert!(any || !all, "what holds for all holds for one");
            assert!(!all || expression.finds(&root), "what holds was found");
        }
        Err(error) => assert!(error.at <= first.len() && first.is_char_boundary(error.at) && !error.message.is_empty()),
    }
    if let Err(error) = Pointer::parse(first) {
        assert!(error.at <= first.len() && first.is_char_boundary(error.at));
    }
    match Pipe::parse(first) {
        Ok(pipe) => {
            for value in [Piped::Text(rest.to_owned()), Piped::Digest(Kind::Email, [7; 32]), Piped::Time(7), Piped::List(Vec::new())] {
                let _ = pipe.apply(value);
            }
        }
        Err(error) => assert!(error.at <= first.len() && first.is_char_boundary(error.at)),
    }
}

/// One op in each dialect, with its call of one unit and of three.
static DIALECTS: LazyLock<Vec<(Instance, Vec<Call>)>> = LazyLock::new(|| {
    let results = [
        "dialect = \"status\"",
        "dialect = \"blind\"\nok_status = [202]",
        "dialect = \"body_flag\"\nok = \"/ok == true\"\nfailed = \"/ok == false\"\nreason = \"/code\"\nabsent = \"/gone == true\"",
        "dialect = \"index\"\nok = \"/*/ok == true\"\nreason = \"/*/code\"\nabsent = \"/*/gone == true\"\nduplicate = \"/*/twice == true\"",
        "dialect = \"list_by_key\"\nfailed = \"/failed/*\"\nkey = \"/at\"\nkey_base = 1\nreason = \"/code\"\nabsent = \"/gone == true\"",
        "dialect = \"list_by_key\"\nfailed = \"/failed/*\"\nkey = \"/id\"\nitem_key = \"\"\nreason = \"/code\"\nok = \"/ok == true\"",
        "dialect = \"count\"\nfailed = \"/failed\"\nreason = \"/code\"",
        "dialect = \"job\"\nkey = \"/job\"\nduplicate = \"/twice == true\"",
    ];
    let mut made = Vec::new();
    for result in results {
        for ceiling in ["accepted", "applied"] {
            if ceiling == "applied" && (result.contains("blind") || result.contains("job")) {
                continue;
            }
            let mut text = String::from("[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example.org\"]\n");
            let _ = write!(
                text,
                "[limits]\nbatch_items = 3\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"list\"\neffect = \"remove\"\n\
                 ceiling = \"{ceiling}\"\nmethod = \"POST\"\npath = \"/a\"\nunit = \"id\"\nitem = \"{{{{value}}}}\"\nbody = \"{{{{items}}}}\"\n\
                 [op.result]\n{result}\n[op.errors]\ncode_at = \"/error\"\nretry_code = [1]\nauth_code = [2]\nthrottle_code = [3]\n"
            );
            let manifest = Manifest::parse(&text, "fuzz.toml").unwrap_or_else(|problems| panic!("{text}\n{}", problems[0]));
            let instance = Instance::new(&manifest, &BTreeMap::new(), Approvals::default()).expect("no settings");
            let people: Vec<_> = (1..=3).map(|token| person(token, "rosa@example.org")).collect();
            let (mut calls, _) = instance.calls(0, &people).expect("calls");
            calls.extend(instance.calls(0, &people[..1]).expect("calls").0);
            made.push((instance, calls));
        }
    }
    made
});

/// Whatever the answer, every unit has one outcome, none is above the ceiling, and what is not understood is no success.
#[doc(hidden)]
pub fn fuzz_answer(data: &[u8]) {
    let Some(([first, second], body)) = data.split_first_chunk::<2>() else { return };
    let status = match first {
        0..=127 => 200 + u16::from(first % 4),
        _ => u16::from(*first) * 3,
    };
    let kind = ["application/json", "application/problem+json; charset=utf-8", "text/html", ""][usize::from(*second % 4)];
    let headers = vec![("content-type".to_owned(), kind.to_owned()), ("retry-after".to_owned(), second.to_string())];
    let answer = Answer { status, headers, body: body.to_vec() };
    for (instance, calls) in DIALECTS.iter() {
        for call in calls {
            let verdict = instance.judge(call, &answer);
            assert_eq!(verdict.units.len(), call.units.len(), "each unit has one outcome");
            let ceiling = instance.manifest.ops[0].ceiling;
            assert!(
                ceiling < Ceiling::Verified && verdict.units.iter().all(|unit| unit.proves() <= Some(ceiling)),
                "no more than the ceiling"
            );
            let is_good = |unit: &UnitOutcome| unit.proves().is_some();
            if verdict.whole == Whole::Done {
                assert!(verdict.units.iter().all(|unit| *unit != UnitOutcome::Unknown), "what is done is known");
                assert!((200..300).contains(&status), "only a good status is good");
            } else {
                assert!(!verdict.units.iter().any(is_good) && verdict.job.is_none(), "what is not done is no success");
            }
            for unit in &verdict.units {
                if let UnitOutcome::Failed { reason, .. } = unit {
                    assert!(reason.len() <= crate::limits::REASON_BYTES_MAX && reason.is_ascii() && !reason.contains('@'));
                }
            }
        }
    }
}
