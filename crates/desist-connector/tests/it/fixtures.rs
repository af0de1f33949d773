//! Replays the fixtures of every shipped connector, and injects faults into every good answer in them.

use std::collections::BTreeMap;
use std::path::Path;

use desist_connector::declared::Transport;
use desist_connector::{
    Answer, Approvals, Call, Existence, Found, Given, Identifier, Instance, Manifest, Person, Polled, Secret, Verified,
};
use serde::Deserialize;
use serde_json::Value;

use super::world::{left, outcome, read, shipped, whole};

/// `CONNECTOR.fixtures.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    person: Vec<FixturePerson>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixturePerson {
    token: u64,
    #[serde(default)]
    status: Option<String>,
    identifiers: Vec<FixtureIdentifier>,
    #[serde(default)]
    lookup: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixtureIdentifier {
    kind: String,
    text: Option<String>,
    sha256: Option<String>,
}

/// One rendering, and what answers to its first call mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// `op.0`, `poll.0`, `lookup`, `verify`, `probe`, `check.0` or `create.0`.
    call: String,
    #[serde(default)]
    people: Vec<u64>,
    #[serde(default)]
    job: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    left: Vec<String>,
    #[serde(default)]
    request: Vec<Request>,
    /// With transports that are not HTTP.
    #[serde(default)]
    row: Vec<FixtureRow>,
    #[serde(default)]
    answer: Vec<CannedAnswer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    #[serde(default)]
    units: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixtureRow {
    token: u64,
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CannedAnswer {
    status: u16,
    #[serde(rename = "type", default = "json_type")]
    kind: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    body: Option<String>,
    expect: String,
    #[serde(default)]
    units: Vec<String>,
    job: Option<String>,
}

fn json_type() -> String {
    "application/json;charset=utf-8".to_owned()
}

fn person(fixture: &FixturePerson) -> Person {
    let identifier = |identifier: &FixtureIdentifier| {
        let kind = identifier.kind.parse().expect("a kind");
        let digest = |hex: &String| desist_core::identifier::Identifier::from_sha256_hex(kind, hex).expect("a digest").digest;
        Identifier { kind, text: identifier.text.clone(), sha256: identifier.sha256.as_ref().map(digest) }
    };
    Person {
        token: fixture.token,
        version: 3,
        at: 1_795_328_966,
        purposes: vec!["sale".to_owned(), "sharing".to_owned()],
        status: fixture.status.clone().unwrap_or_else(|| "opt_out".to_owned()),
        identifiers: fixture.identifiers.iter().map(identifier).collect(),
        lookup: fixture.lookup.clone(),
    }
}

struct Replay {
    manifest: Manifest,
    fixtures: Fixtures,
    name: String,
}

impl Replay {
    fn open(path: &Path) -> Self {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let manifest = Manifest::parse(&read(path), &name).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        });
        assert_eq!(name, format!("{}.toml", manifest.id()), "a connector's file has its id");
        let fixtures = read(&path.with_extension("fixtures.toml"));
        let fixtures = toml::from_str(&fixtures).unwrap_or_else(|error| panic!("fixtures of {name}: {error}"));
        Self { manifest, fixtures, name }
    }

    fn instance(&self, dry_run: bool) -> Instance {
        let mut given: BTreeMap<_, _> =
            self.fixtures.settings.iter().map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect();
        given.extend(self.fixtures.secrets.iter().map(|(name, value)| (name.clone(), Given::Secret(Secret::new(value.as_str())))));
        let approvals = Approvals { dry_run, ..Approvals::default() };
        Instance::new(&self.manifest, &given, approvals).unwrap_or_else(|problems| panic!("{}: {problems:?}", self.name))
    }

    fn is_http(&self) -> bool {
        self.manifest.declared().connector.transport == Transport::Http
    }

    fn people(&self, case: &Case) -> Vec<Person> {
        let find = |token: &u64| person(self.fixtures.person.iter().find(|person| person.token == *token).expect("a person"));
        case.people.iter().map(find).collect()
    }

    /// The calls of a case, and who is not in them.
    fn calls(&self, instance: &Instance, case: &Case) -> (Vec<Call>, Vec<String>) {
        let people = self.people(case);
        let (what, place) = case.call.split_once('.').unwrap_or((&case.call, "0"));
        let place = place.parse().expect("a place");
        let one = |call| (vec![call], Vec::new());
        let step = |place: usize| instance.setup_calls().expect("calls").swap_remove(place);
        let (calls, unreachable) = match what {
            "op" => instance.calls(place, &people).expect("calls"),
            "lookup" => instance.lookup_calls(&people[0]).expect("calls"),
            "verify" => instance.verify_calls(&people[0]).expect("calls"),
            "poll" => one(instance.poll_call(place, &case.job).expect("a call")),
            "probe" => one(instance.probe_call().expect("a call")),
            "check" => one(step(place).check),
            "create" => one(step(place).create),
            other => panic!("{other} is no call"),
        };
        (calls, unreachable.iter().map(left).collect())
    }
}

/// What an answer means, in the words of the fixtures.
fn judged(instance: &Instance, case: &Case, call: &Call, answer: &Answer) -> (String, Vec<String>, Option<String>) {
    let (what, place) = case.call.split_once('.').unwrap_or((&case.call, "0"));
    let place = place.parse().expect("a place");
    let said = match what {
        "op" => {
            let verdict = instance.judge(call, answer);
            return (whole(&verdict.whole), verdict.units.iter().map(outcome).collect(), verdict.job);
        }
        "lookup" => match instance.lookup_result(answer) {
            Found::Rows(rows) => format!("rows: {}", Value::Array(rows)),
            Found::Absent => "absent".to_owned(),
            Found::TooMany => "too many".to_owned(),
            Found::Trouble(trouble) => whole(&trouble),
        },
        "verify" => match instance.verify_result(answer) {
            Verified::Clean => "clean".to_owned(),
            Verified::Dirty => "dirty".to_owned(),
            Verified::Absent => "absent".to_owned(),
            Verified::Trouble(trouble) => whole(&trouble),
        },
        "poll" => match instance.poll_result(place, answer) {
            Polled::Applied => "applied".to_owned(),
            Polled::Failed { reason } => format!("failed: {reason}"),
            Polled::Pending => "pending".to_owned(),
            Polled::Trouble(trouble) => whole(&trouble),
        },
        "check" => match instance.setup_result(place, answer) {
            Existence::Exists => "exists".to_owned(),
            Existence::Missing => "missing".to_owned(),
            Existence::Trouble(trouble) => whole(&trouble),
        },
        _ => whole(&instance.probe_result(answer)),
    };
    (said, Vec::new(), None)
}

fn canned(answer: &CannedAnswer) -> Answer {
    let mut headers: Vec<_> = answer.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if !answer.kind.is_empty() {
        headers.push(("content-type".to_owned(), answer.kind.clone()));
    }
    let body = answer.json.as_ref().map(ToString::to_string).or_else(|| answer.body.clone()).unwrap_or_default();
    Answer { status: answer.status, headers, body: body.into_bytes() }
}

#[test]
fn every_fixture_is_what_it_says() {
    for path in shipped() {
        let replay = Replay::open(&path);
        for case in &replay.fixtures.case {
            let at = format!("{}: {}", replay.name, case.name);
            let instance = replay.instance(case.dry_run);
            if !replay.is_http() {
                let place = case.call.strip_prefix("op.").and_then(|place| place.parse().ok()).expect("an op");
                let (rows, left) = instance.rows(place, &replay.people(case)).expect("rows");
                assert_eq!(left.iter().map(self::left).collect::<Vec<_>>(), case.left, "{at}: who is left out");
                let rows: Vec<_> = rows.into_iter().map(|row| (row.token, row.value)).collect();
                assert_eq!(rows, case.row.iter().map(|row| (row.token, row.value.clone())).collect::<Vec<_>>(), "{at}");
                continue;
            }
            let (calls, left) = replay.calls(&instance, case);
            assert_eq!(left, case.left, "{at}: who is left out");
            if !case.request.is_empty() || calls.is_empty() {
                assert_eq!(calls.len(), case.request.len(), "{at}: calls {calls:?}");
            }
            for (call, expected) in calls.iter().zip(&case.request) {
                assert_eq!((call.method.name(), call.url.as_str()), (expected.method.as_str(), expected.url.as_str()), "{at}");
                for (name, value) in &expected.headers {
                    let found = call.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.expose());
                    assert_eq!(found, Some(value.as_str()), "{at}: {name}");
                }
                let body = (!call.body.is_empty()).then(|| serde_json::from_slice::<Value>(&call.body).expect("JSON"));
                assert_eq!(body, expected.body, "{at}");
                assert_eq!(call.units.iter().map(|unit| unit.token).collect::<Vec<_>>(), expected.units, "{at}");
            }
            for (place, answer) in case.answer.iter().enumerate() {
                let (said, units, job) = judged(&instance, case, &calls[0], &canned(answer));
                assert_eq!(said, answer.expect, "{at}: answer {place}");
                if !answer.units.is_empty() || answer.job.is_some() {
                    assert_eq!((units, &job), (answer.units.clone(), &answer.job), "{at}: answer {place}");
                }
            }
        }
    }
}

/// Each shipped connector shows, with answers of its own, what it does when it is told to wait, when the other side breaks, when half
/// of an answer comes, and when something else answers.
#[test]
fn every_connector_has_fixtures_of_its_failures() {
    for path in shipped() {
        let replay = Replay::open(&path);
        for (place, _) in replay.manifest.ops().enumerate() {
            let cases: Vec<_> = replay.fixtures.case.iter().filter(|case| case.call == format!("op.{place}")).collect();
            if !replay.is_http() {
                assert!(cases.iter().any(|case| !case.row.is_empty()), "{} op {place}: no row", replay.name);
                continue;
            }
            let answers: Vec<_> = cases.iter().flat_map(|case| &case.answer).collect();
            let has = |test: &dyn Fn(&CannedAnswer) -> bool| answers.iter().any(|answer| test(answer));
            let good = |answer: &CannedAnswer| answer.units.iter().any(|unit| matches!(unit.as_str(), "accepted" | "applied"));
            assert!(has(&good), "{} op {place}: no good answer", replay.name);
            // The second op of a connector often reads its answers as the first does.
            if place > 0 {
                continue;
            }
            assert!(has(&|answer| answer.status == 429), "{} op {place}: no 429", replay.name);
            assert!(has(&|answer| answer.status >= 500), "{} op {place}: no 5xx", replay.name);
            let half = |answer: &CannedAnswer| answer.body.as_deref().is_some_and(|body| body.starts_with(['{', '[']));
            assert!(has(&half), "{} op {place}: no half answer", replay.name);
            assert!(has(&|answer| answer.kind.starts_with("text/html")), "{} op {place}: no wrong content type", replay.name);
        }
    }
}

/// Takes each good answer of each fixture and breaks it in every way that a network, a proxy and an outage do. Nothing of that is
/// ever a success.
#[test]
fn a_broken_answer_is_never_a_success() {
    let mut broken = 0;
    for path in shipped() {
        let replay = Replay::open(&path);
        if !replay.is_http() {
            continue;
        }
        let instance = replay.instance(false);
        for case in replay.fixtures.case.iter().filter(|case| !case.dry_run) {
            let (calls, _) = replay.calls(&instance, case);
            for answer in &case.answer {
                let good = canned(answer);
                let is_good = |answer: &Answer| {
                    let (said, units, _) = judged(&instance, case, &calls[0], answer);
                    let words = ["accepted", "applied", "clean", "absent", "duplicate", "exists", "missing"];
                    let unit = units.iter().any(|unit| words.contains(&unit.as_str()));
                    unit || words.contains(&said.as_str()) || said.starts_with("rows") || (said == "done" && units.is_empty())
                };
                if !is_good(&good) || good.status >= 300 {
                    continue;
                }
                let page = b"<!DOCTYPE html><html><body>It works!</body></html>".to_vec();
                let mut faults = vec![(good.headers.clone(), page.clone(), good.status), (Vec::new(), page, good.status)];
                for status in [0, 100, 301, 302, 307, 400, 401, 403, 429, 500, 502, 503, 504, 599, 600, u16::MAX] {
                    faults.push((good.headers.clone(), good.body.clone(), status));
                }
                if answer.json.is_some() {
                    faults.extend((1..good.body.len()).map(|end| (good.headers.clone(), good.body[..end].to_vec(), good.status)));
                }
                for (headers, body, status) in faults {
                    let fault = Answer { status, headers, body };
                    assert!(!is_good(&fault), "{}: {}: {status} {}", replay.name, case.name, String::from_utf8_lossy(&fault.body));
                    broken += 1;
                }
            }
        }
    }
    assert!(broken > 1000, "only {broken} faults were tried");
}
