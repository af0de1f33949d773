//! What the tests share: where manifests are, settings that fit any of them, people, and words for outcomes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use desist_connector::declared::SettingKind;
use desist_connector::{After, Answer, Approvals, Given, Identifier, Instance, Manifest, Person, Secret, UnitOutcome, Unreachable, Whole};
use desist_core::identifier::Kind;
use serde_json::{Value, json};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every shipped manifest.
pub fn shipped() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["connectors", "connectors/unverified"] {
        for entry in std::fs::read_dir(root().join(dir)).expect("the directory of connectors") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if path.extension().is_some_and(|extension| extension == "toml") && !name.contains(".fixtures.") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() >= 9, "the shipped connectors are there");
    found
}

pub fn manifest(text: &str) -> Manifest {
    Manifest::parse(text, "test.toml").unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    })
}

/// An instance with a fitting value for each setting.
pub fn instance(manifest: &Manifest, approvals: Approvals) -> Instance {
    let mut given = BTreeMap::new();
    for (name, setting) in &manifest.declared().settings {
        let value = match setting.kind {
            SettingKind::Secret => Given::Secret(Secret::new("s3cret")),
            SettingKind::String | SettingKind::Enum => {
                let samples = ["acme", "ACME@AdobeOrg"].map(Value::from);
                let values = setting.values.iter().flatten().map(|value| json!(value)).chain(samples);
                let fits = |value: &Value| {
                    let given = BTreeMap::from([(name.clone(), Given::Value(value.clone()))]);
                    let problems = Instance::new(manifest, &given, Approvals::default()).err().unwrap_or_default();
                    !problems.iter().any(|problem| problem.path == format!("settings.{name}"))
                };
                Given::Value(values.into_iter().find(fits).expect("a sample fits"))
            }
            SettingKind::Int => Given::Value(json!(7)),
            SettingKind::Bool => Given::Value(json!(true)),
            SettingKind::List => Given::Value(json!(["a1", "a2"])),
            SettingKind::Host => Given::Value(json!("api.example.org")),
            SettingKind::Path => Given::Value(json!("/hooks/in")),
        };
        given.insert(name.clone(), value);
    }
    Instance::new(manifest, &given, approvals).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub fn identifier(kind: Kind, text: &str) -> Identifier {
    Identifier { kind, text: Some(text.to_owned()), sha256: None }
}

/// Somebody with an identifier of each kind and one looked-up record.
pub fn person(token: u64) -> Person {
    let text = |kind: Kind| match kind {
        Kind::Email => format!("rosa{token}@example.org"),
        Kind::Phone => format!("+1202555{:04}", token % 10_000),
        Kind::Maid => format!("00000000-0000-4000-8000-{token:012}"),
        kind => format!("{kind}-{token}"),
    };
    Person {
        token,
        version: 3,
        at: 1_795_328_966,
        purposes: vec!["sale".to_owned(), "sharing".to_owned()],
        status: "opt_out".to_owned(),
        identifiers: Kind::ALL.into_iter().map(|kind| identifier(kind, &text(kind))).collect(),
        lookup: vec![json!(format!("key-{token}"))],
    }
}

pub fn answer(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, headers: vec![("Content-Type".to_owned(), kind.to_owned())], body: body.into() }
}

pub fn json_answer(body: &Value) -> Answer {
    answer(200, "application/json", body.to_string())
}

fn after(after: Option<After>) -> String {
    match after {
        None => String::new(),
        Some(After::Seconds(seconds)) => format!(" in {seconds}"),
        Some(After::At(at)) => format!(" at {at}"),
    }
}

pub fn whole(whole: &Whole) -> String {
    match whole {
        Whole::Done => "done".to_owned(),
        Whole::Split => "split".to_owned(),
        Whole::RetryLater { after: wait } => format!("retry{}", after(*wait)),
        Whole::Throttled { after: wait } => format!("throttled{}", after(*wait)),
        Whole::Auth => "auth".to_owned(),
        Whole::Shrink => "shrink".to_owned(),
        Whole::Rejected { reason } => format!("rejected: {reason}"),
        Whole::Gone => "gone".to_owned(),
    }
}

pub fn outcome(outcome: &UnitOutcome) -> String {
    match outcome {
        UnitOutcome::Accepted => "accepted".to_owned(),
        UnitOutcome::Applied => "applied".to_owned(),
        UnitOutcome::Absent => "absent".to_owned(),
        UnitOutcome::Duplicate => "duplicate".to_owned(),
        UnitOutcome::Failed { reason, retry: true } => format!("failed: {reason}, retry"),
        UnitOutcome::Failed { reason, retry: false } => format!("failed: {reason}"),
        UnitOutcome::Unknown => "unknown".to_owned(),
    }
}

pub fn left(left: &Unreachable) -> String {
    let what = left.identifier.map_or("person", Kind::name);
    format!("{} {what} {:?}", left.token, left.why)
}
