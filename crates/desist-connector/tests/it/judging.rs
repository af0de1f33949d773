//! What answers mean, beyond the fixtures of the shipped connectors.

use desist_connector::declared::Ceiling;
use desist_connector::limits::{AFTER_SECONDS_MAX, ANSWER_BYTES_MAX, JOB_BYTES_MAX, LOOKUP_ROWS_MAX, REASON_BYTES_MAX};
use desist_connector::{After, Answer, Approvals, Found, Instance, UnitOutcome, Verdict, Whole};
use serde_json::{Value, json};

use super::world::{answer, instance, json_answer, manifest, outcome, person, whole};

/// An op about `people` persons with this `[op.result]` and these keys of `[op.errors]`.
fn judge(result: &str, errors: &str, people: u64, answer: &Answer) -> Verdict {
    let (instance, calls) = op(result, errors, people);
    instance.judge(&calls[0], answer)
}

fn op(result: &str, errors: &str, people: u64) -> (Instance, Vec<desist_connector::Call>) {
    let text = format!(
        "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example.org\"]\n[limits]\nbatch_items = {}\nhonour_headers = [\"x-reset\"]\n\
         [ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"list\"\neffect = \"remove\"\nceiling = \"{}\"\nmethod = \"POST\"\n\
         path = \"/a\"\nunit = \"id\"\nitem = {{ e = \"{{{{id.email}}}}\" }}\nbody = [\"{{{{items}}}}\"]\n[op.result]\n{result}\n[op.errors]\n{errors}\n",
        if people == 1 { 1 } else { 100 },
        if result.contains("job") || result.contains("blind") { "accepted" } else { "applied" },
    );
    let instance = instance(&manifest(&text), Approvals::default());
    let people: Vec<_> = (1..=people).map(person).collect();
    let (calls, _) = instance.calls(0, &people).expect("calls");
    (instance, calls)
}

fn said(verdict: &Verdict) -> String {
    let units: Vec<_> = verdict.units.iter().map(outcome).collect();
    format!("{} [{}]", whole(&verdict.whole), units.join("; "))
}

const BY_KEY: &str = "dialect = \"list_by_key\"\nfailed = \"/errors/*\"\nkey = \"/email\"\nitem_key = \"/e\"\nreason = \"/code\"\nduplicate = \"/code == TWICE\"";

#[test]
fn every_dialect_tells_what_worked_from_what_did_not() {
    let index = "dialect = \"index\"\nok = \"/*/ok == true\"\nreason = \"/*/code\"\nduplicate = \"/*/code == TWICE\"";
    let count = "dialect = \"count\"\nfailed = \"/failed\"\nreason = \"/code\"";
    let flag = "dialect = \"body_flag\"\nok = \"/ok == true\"\nfailed = \"/ok == false\"\nreason = \"/code\"";
    let keyed_ok = &format!("{BY_KEY}\nok = \"/ok == true\"");
    let job = "dialect = \"job\"\nkey = \"/id\"";
    let at_code = "dialect = \"body_flag\"\nok = \"/error == 0\"\nabsent = \"/error == 7\"";
    let index_in = "dialect = \"index\"\nok = \"/rows/*/ok == true\"";
    for (result, people, body, expected) in [
        (index, 2, json!([{"ok": true}, {"ok": false, "code": "TWICE"}]), "done [applied; duplicate]"),
        (index, 2, json!([{"ok": true}, {"ok": "true"}]), "done [applied; failed: unspecified]"),
        (index, 2, json!([{"ok": true}, {"ok": false, "code": "LOCKED"}]), "done [applied; failed: LOCKED, retry]"),
        (index, 2, json!([{"ok": true}, null]), "done [applied; failed: unspecified]"),
        (index, 2, json!([{"ok": true}, {"ok": true}, {"ok": true}]), "split [unknown; unknown]"),
        (index, 2, json!({"0": {"ok": true}, "1": {"ok": true}}), "split [unknown; unknown]"),
        (index, 1, json!([]), "retry [unknown]"),
        (BY_KEY, 2, json!({"errors": []}), "done [applied; applied]"),
        (BY_KEY, 2, json!({"errors": [{"email": "ROSA2@example.org", "code": "BAD"}]}), "done [applied; failed: BAD]"),
        (BY_KEY, 2, json!({"errors": [{"email": "rosa2@example.org", "code": "TWICE"}]}), "done [applied; duplicate]"),
        (
            BY_KEY,
            2,
            json!({"errors": [{"email": "rosa2@example.org", "code": "TWICE"}, {"email": "rosa2@example.org", "code": "BAD"}]}),
            "done [applied; failed: BAD]",
        ),
        (BY_KEY, 2, json!({"errors": [{"email": "other@example.org", "code": "BAD"}]}), "split [unknown; unknown]"),
        (BY_KEY, 2, json!({"errors": [{"code": "BAD"}]}), "split [unknown; unknown]"),
        (BY_KEY, 2, json!({"errors": {}}), "split [unknown; unknown]"),
        (BY_KEY, 2, json!({}), "split [unknown; unknown]"),
        (keyed_ok, 2, json!({"ok": true}), "done [applied; applied]"),
        (keyed_ok, 2, json!({"ok": false, "errors": []}), "split [unknown; unknown]"),
        (count, 2, json!({"failed": 0}), "done [applied; applied]"),
        (count, 2, json!({"failed": 2}), "split [unknown; unknown]"),
        (count, 2, json!({"failed": "0"}), "split [unknown; unknown]"),
        (count, 2, json!({"failed": 0.0}), "split [unknown; unknown]"),
        (count, 2, json!({"failed": -1}), "split [unknown; unknown]"),
        (count, 2, json!({"failed": null}), "split [unknown; unknown]"),
        (count, 1, json!({"failed": 1, "code": "BAD"}), "done [failed: BAD]"),
        (count, 1, json!({"failed": 2}), "retry [unknown]"),
        (flag, 2, json!({"ok": true}), "done [applied; applied]"),
        (flag, 2, json!({"ok": false, "code": "BAD"}), "rejected: BAD [unknown; unknown]"),
        (flag, 2, json!({"ok": false, "code": "LOCKED"}), "retry [unknown; unknown]"),
        (flag, 1, json!({"ok": false, "code": "BAD"}), "rejected: BAD [failed: BAD]"),
        (flag, 2, json!({"ok": 1}), "split [unknown; unknown]"),
        (flag, 2, json!({"error": "AUTH"}), "auth [unknown; unknown]"),
        (flag, 2, json!({"ok": true, "error": "SLOW"}), "throttled [unknown; unknown]"),
        (flag, 2, json!({"error": "other"}), "rejected: other [unknown; unknown]"),
        (job, 2, json!({"id": "j-1"}), "done [accepted; accepted]"),
        (job, 2, json!({"id": -1}), "split [unknown; unknown]"),
        (job, 2, json!({"id": {"a": 1}}), "split [unknown; unknown]"),
        (job, 2, json!({"id": "a b"}), "split [unknown; unknown]"),
        ("dialect = \"status\"", 2, json!({"anything": 1}), "done [applied; applied]"),
        ("dialect = \"status\"", 2, json!({"error": "other"}), "rejected: other [unknown; unknown]"),
        // A code in no list is a failure, unless what is asked of the answer stands at its place.
        (flag, 2, json!({"ok": true, "error": "other"}), "rejected: other [unknown; unknown]"),
        (at_code, 2, json!({"error": 0}), "done [applied; applied]"),
        (at_code, 2, json!({"error": 1}), "rejected: 1 [unknown; unknown]"),
        (at_code, 2, json!({"error": 7}), "done [absent; absent]"),
        (index_in, 2, json!({"error": "other", "rows": [{"ok": true}, {"ok": true}]}), "rejected: other [unknown; unknown]"),
        (BY_KEY, 2, json!({"errors": [], "error": "other"}), "rejected: other [unknown; unknown]"),
        (keyed_ok, 2, json!({"ok": true, "error": "other"}), "rejected: other [unknown; unknown]"),
        (count, 2, json!({"failed": 0, "error": "other"}), "rejected: other [unknown; unknown]"),
        (job, 2, json!({"id": "j-1", "error": "other"}), "rejected: other [unknown; unknown]"),
        ("dialect = \"blind\"", 2, json!({}), "done [accepted; accepted]"),
    ] {
        let errors = "code_at = \"/error\"\nretry_code = [\"LOCKED\"]\nauth_code = [\"AUTH\"]\nthrottle_code = [\"SLOW\"]";
        assert_eq!(said(&judge(result, errors, people, &json_answer(&body))), expected, "{result}\n{body}");
    }
}

#[test]
fn a_code_in_the_body_goes_before_the_status() {
    let errors = "code_at = \"/errors/*/code\"\nretry_code = [1]\nauth_code = [\"2\"]\nthrottle_code = [3]";
    for (status, codes, expected) in [
        (200, json!([1]), "retry"),
        (400, json!(["1"]), "retry"),
        (500, json!([2]), "auth"),
        (200, json!([1, 2]), "retry"),
        (401, json!([3]), "throttled"),
        (400, json!([4]), "rejected: 4"),
        (400, json!([]), "rejected: status.400"),
        (418, json!(["rosa@example.org"]), "rejected: unprintable"),
    ] {
        let codes: Vec<_> = codes.as_array().expect("a list").iter().map(|code| json!({"code": code})).collect();
        let body = json!({"errors": codes});
        let verdict = judge("dialect = \"status\"", errors, 2, &answer(status, "application/json", body.to_string()));
        assert_eq!(whole(&verdict.whole), expected, "{status} {body}");
    }
}

#[test]
fn every_status_has_its_meaning() {
    for (status, expected) in [
        (0, "retry"),
        (100, "retry"),
        (200, "done"),
        (204, "done"),
        (301, "rejected: status.301"),
        (400, "rejected: status.400"),
        (401, "auth"),
        (403, "auth"),
        (404, "rejected: status.404"),
        (408, "retry"),
        (409, "retry"),
        (410, "gone"),
        (413, "shrink"),
        (414, "shrink"),
        (425, "retry"),
        (429, "throttled"),
        (500, "retry"),
        (599, "retry"),
        (600, "retry"),
    ] {
        let verdict = judge("dialect = \"status\"", "retry_status = [409]\nshrink_status = [414]", 1, &answer(status, "", ""));
        assert_eq!(whole(&verdict.whole), expected, "{status}");
    }
}

/// Who is not there is said by the API alone: a gateway has a page for every path that it does not know.
#[test]
fn a_page_says_of_nobody_that_they_are_not_there() {
    for (kind, body, expected) in [
        ("application/json", "{\"error\":\"unknown\"}", "done [absent]"),
        ("application/problem+json", "{}", "done [absent]"),
        ("", "", "done [absent]"),
        ("text/plain", " ", "done [absent]"),
        ("text/html", "<html>404</html>", "retry [unknown]"),
        ("text/html; charset=utf-8", "", "retry [unknown]"),
        ("application/xhtml+xml", "x", "retry [unknown]"),
        ("text/plain", "default backend - 404", "retry [unknown]"),
        ("", "nginx", "retry [unknown]"),
        ("application/json", "<html>404</html>", "retry [unknown]"),
        ("application/json", "{\"error\":", "retry [unknown]"),
    ] {
        let flag = "dialect = \"body_flag\"\nok = \"/ok == true\"\nabsent_status = [404]";
        assert_eq!(said(&judge(flag, "", 1, &answer(404, kind, body))), expected, "{kind} {body}");
    }
}

/// What was only taken, and what has a status for each item, is not done.
#[test]
fn not_every_status_of_a_good_answer_says_as_much() {
    let flag = "dialect = \"body_flag\"\nok = \"/ok == true\"";
    for (more, status, expected) in [
        ("", 200, "done [applied]"),
        ("", 201, "done [applied]"),
        ("", 202, "done [accepted]"),
        ("", 207, "retry [unknown]"),
        ("\nok_status = [202]", 202, "done [applied]"),
        ("\nok_status = [207]", 207, "done [applied]"),
    ] {
        let answer = answer(status, "application/json", "{\"ok\":true}");
        assert_eq!(said(&judge(&format!("{flag}{more}"), "", 1, &answer)), expected, "{status}{more}");
    }
}

#[test]
fn a_wait_is_taken_from_the_headers_and_has_an_end() {
    for (name, value, expected) in [
        ("Retry-After", "120", Some(After::Seconds(120))),
        ("retry-after", " 0 ", Some(After::Seconds(0))),
        ("retry-after", "99999999", Some(After::Seconds(AFTER_SECONDS_MAX))),
        ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", Some(After::At(784_111_777))),
        ("retry-after", "soon", None),
        ("retry-after", "-5", None),
        ("X-Reset", "1795328966", Some(After::At(1_795_328_966))),
        ("X-Reset", "7", Some(After::Seconds(7))),
        ("X-Other", "7", None),
    ] {
        let answer = Answer { status: 429, headers: vec![(name.to_owned(), value.to_owned())], body: Vec::new() };
        assert_eq!(judge("dialect = \"status\"", "", 1, &answer).whole, Whole::Throttled { after: expected }, "{name}: {value}");
    }
}

/// A destination repeats what it was sent. Nothing of a person is kept.
#[test]
fn a_reason_is_a_code_and_nothing_else() {
    let flag = "dialect = \"body_flag\"\nok = \"/ok == true\"\nfailed = \"/ok == false\"\nreason = \"/code\"";
    let longest = ["A".repeat(31), "B".repeat(32)].join("_");
    assert_eq!(longest.len(), REASON_BYTES_MAX);
    for (code, is_kept) in [
        (json!("UNABLE_TO_LOCK_ROW"), true),
        (json!("1004"), true),
        (json!(1004), true),
        (json!("invalid.email-format"), true),
        (json!(longest), true),
        (json!(format!("{longest}_")), false),
        (json!("rosa@example.org"), false),
        (json!("Rosa Vega"), false),
        (json!("2025550123"), false),
        (json!(2_025_550_123_u64), false),
        (json!("ea7583cd-a667-48bc-b806-42ecb2b48606"), false),
        (json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), false),
        (json!("abcdefghijklmnopqrstuvwxyzabcdefg"), false),
        (json!("a\nb"), false),
        (json!(""), false),
    ] {
        let verdict = judge(flag, "", 1, &json_answer(&json!({"ok": false, "code": code})));
        let expected = if is_kept { code.as_str().map_or_else(|| code.to_string(), str::to_owned) } else { "unprintable".to_owned() };
        assert_eq!(verdict.whole, Whole::Rejected { reason: expected }, "{code}");
    }
}

#[test]
fn answers_and_jobs_have_their_limits() {
    let job = "dialect = \"job\"\nkey = \"/id\"";
    for (length, is_taken) in [(JOB_BYTES_MAX, true), (JOB_BYTES_MAX + 1, false), (0, false)] {
        let verdict = judge(job, "", 1, &json_answer(&json!({"id": "j".repeat(length)})));
        assert_eq!(verdict.job.is_some(), is_taken, "{length}");
    }
    let flag = "dialect = \"body_flag\"\nok = \"/ok == true\"";
    for (length, expected) in [(ANSWER_BYTES_MAX, "done"), (ANSWER_BYTES_MAX + 1, "retry")] {
        let mut body = b"{\"ok\":true}".to_vec();
        body.resize(length, b' ');
        assert_eq!(whole(&judge(flag, "", 1, &answer(200, "application/json", body.clone())).whole), expected);
        assert_eq!(whole(&judge("dialect = \"status\"", "", 1, &answer(200, "application/json", body)).whole), expected);
    }
    let text = "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example.org\"]\n[ids.email]\n[lookup]\nmethod = \"GET\"\npath = \"/{{id.email}}\"\n\
                match = \"/*\"\nemit = \"/Id\"\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"list\"\neffect = \"remove\"\nceiling = \"accepted\"\n\
                method = \"POST\"\npath = \"/{{lookup}}\"\nunit = \"row\"\n[op.result]\ndialect = \"status\"\n";
    let instance = instance(&manifest(text), Approvals::default());
    let rows = |count: usize| json_answer(&Value::Array((0..count).map(|number| json!({"Id": number})).collect()));
    assert!(matches!(instance.lookup_result(&rows(LOOKUP_ROWS_MAX)), Found::Rows(rows) if rows.len() == LOOKUP_ROWS_MAX));
    assert_eq!(instance.lookup_result(&rows(LOOKUP_ROWS_MAX + 1)), Found::TooMany);
    assert_eq!(instance.lookup_result(&json_answer(&json!([{"Id": null}]))), Found::Trouble(Whole::RetryLater { after: None }));
}

/// A person is told when all of their records are.
#[test]
fn a_person_is_as_well_told_as_the_worst_of_their_items() {
    let failed = |retry| UnitOutcome::Failed { reason: "x".to_owned(), retry };
    let order = [
        UnitOutcome::Unknown,
        failed(true),
        failed(false),
        UnitOutcome::Accepted,
        UnitOutcome::Duplicate,
        UnitOutcome::Applied,
        UnitOutcome::Absent,
    ];
    for (place, worse) in order.iter().enumerate() {
        for better in &order[place..] {
            assert_eq!(worse.clone().min(better.clone()), *worse);
            assert_eq!(better.clone().min(worse.clone()), *worse);
        }
    }
    assert_eq!(UnitOutcome::Applied.proves(), Some(Ceiling::Applied));
    assert_eq!(UnitOutcome::Absent.proves(), Some(Ceiling::Accepted));
    assert_eq!(failed(true).proves(), None);
}
