//! Request bodies: strict JSON whose errors name the member and never its value.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path as UrlPath, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};

use super::problem::Problem;
use crate::limits::BODY_BYTES_MAX;

/// Longest member name that an error repeats; longer ones are nobody's typing mistake.
const NAME_CHARS_MAX: usize = 64;

/// The bytes of a body; one that is too large is a problem like any other.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body has more than {BODY_BYTES_MAX} bytes; send it in parts"),
            ),
            _ => Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body did not arrive whole"),
        })
    }
}

/// The parameter of a path; one that cannot be read is nobody's.
pub struct Param(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Param {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let UrlPath(param) = UrlPath::from_request_parts(parts, state).await.map_err(|_| Problem::not_found())?;
        Ok(Self(param))
    }
}

/// Reads a body. Unknown and duplicate members, wrong types, `null` and bad UTF-8 are errors that
/// point at the member.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Good bodies are by far the most: the place of a mistake is looked for only when there is one.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().clone();
        problem(&error.into_inner(), &path, body)
    })?;
    json.end().map_err(|_| malformed("the body goes on after its JSON value"))?;
    Ok(value)
}

fn malformed(title: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", title)
}

fn problem(error: &serde_json::Error, path: &Path, body: &[u8]) -> Problem {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } if is_plain(key) => {
                pointer.push('/');
                pointer.push_str(key);
            }
            Segment::Enum { .. } | Segment::Unknown | Segment::Map { .. } => {}
        }
    }
    // The library's text can quote the value; only what it expected instead is safe to say.
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let expected = text.rsplit_once("expected ").map(|(_, expected)| expected);
    for (start, code, what) in [
        ("unknown field `", "unknown_member", "is not known here"),
        ("missing field `", "missing_member", "is required"),
        ("duplicate field `", "duplicate_member", "appears twice"),
    ] {
        if let Some(name) = text.strip_prefix(start).and_then(|rest| rest.split_once('`')).map(|(name, _)| name) {
            let shown = if is_plain(name) { name } else { "" };
            // The path of an unknown or repeated member may already end with it.
            if !shown.is_empty() && !pointer.ends_with(&format!("/{shown}")) {
                pointer.push('/');
                pointer.push_str(shown);
            }
            let known = if code == "unknown_member" {
                expected.map(|known| format!("; known: {known}")).unwrap_or_default()
            } else {
                String::new()
            };
            return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, format!("the member {shown:?} {what}{known}")).at(pointer);
        }
    }
    match error.classify() {
        serde_json::error::Category::Data => {
            let expected = expected.unwrap_or("another value");
            Problem::invalid(pointer, format!("wrong value; expected {expected}"))
        }
        serde_json::error::Category::Eof if body.is_empty() => malformed("the body is empty; send a JSON object"),
        _ if std::str::from_utf8(body).is_err() => malformed("the body is not UTF-8").at(pointer),
        // The reader calls a value that can be no name of an enumeration a syntax error.
        _ if serde_json::from_slice::<IgnoredAny>(body).is_ok() => Problem::invalid(pointer, "wrong value; expected a name"),
        _ => malformed(&format!("the body is not JSON (line {}, column {})", error.line(), error.column())).at(pointer),
    }
}

/// Starts with a letter, so it is no phone number.
fn is_plain(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// For members that may be absent but not `null`: use with `#[serde(default, deserialize_with = "present")]`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a stranger's bytes as every body of the API: never panics, every error is a 4xx that names
/// no member that does not exist in the text.
#[doc(hidden)]
pub fn fuzz_bodies(data: &[u8]) {
    fn check<T: DeserializeOwned>(data: &[u8]) {
        if let Err(problem) = parse::<T>(data) {
            assert!((400..500).contains(&problem.status) && !problem.title.is_empty() && !problem.code.is_empty());
            let text = String::from_utf8_lossy(data);
            for name in problem.pointer.as_deref().unwrap_or_default().split('/').filter(|name| name.parse::<usize>().is_err()) {
                let is_missing = problem.code == "missing_member";
                assert!(is_missing || text.contains(name) || text.contains('\\'), "{problem:?}");
            }
        }
    }
    check::<super::requests::RequestBody>(data);
    check::<super::requests::ConfirmBody>(data);
    check::<super::decisions::DecisionBody>(data);
    check::<super::identifiers::IdentifiersBody>(data);
    check::<super::keys::NewKey>(data);
    check::<super::destinations::ReplayBody>(data);
    check::<super::destinations::DoneBody>(data);
    check::<super::control::ImportBody>(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strangers_bytes_are_answered(data in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz_bodies(&data);
        }

        #[test]
        fn damaged_bodies_are_answered(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let good = br#"{"kind":"opt_out","purposes":["sale"],"identifiers":[{"kind":"email","value":"a@b.example"}],"channel":"form","agent":{"name":"x"}}"#;
            let mut data = good.to_vec();
            let at = cut.index(data.len());
            data[at] = byte;
            fuzz_bodies(&data);
            data.truncate(at);
            fuzz_bodies(&data);
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors matter")]
    struct Body {
        who: Vec<Inner>,
        #[serde(default, deserialize_with = "present")]
        note: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors matter")]
    struct Inner {
        kind: desist_core::identifier::Kind,
    }

    #[test]
    fn errors_point_at_the_member_and_never_repeat_a_value() {
        let check = |body: &[u8], status: u16, code: &str, pointer: Option<&str>| {
            let problem = parse::<Body>(body).unwrap_err();
            assert_eq!((problem.status, problem.code.as_str(), problem.pointer.as_deref()), (status, code, pointer), "{problem:?}");
            assert!(!problem.title.contains("secret"), "{problem:?}");
        };
        check(b"", 400, "malformed_json", None);
        check(b"{", 400, "malformed_json", Some(""));
        check(br#"{"who":[]} x"#, 400, "malformed_json", None);
        check(br#"{"who":[{"kind":"secret"}]}"#, 422, "invalid", Some("/who/0/kind"));
        check(br#"{"who":[{"kind":null}]}"#, 422, "invalid", Some("/who/0/kind"));
        check(br#"{"who":[{}]}"#, 422, "missing_member", Some("/who/0/kind"));
        check(br#"{"who":[],"secrt":1}"#, 422, "unknown_member", Some("/secrt"));
        check(br#"{"who":[],"who":[]}"#, 422, "duplicate_member", Some("/who"));
        check(br#"{"who":[],"2125552368":1}"#, 422, "unknown_member", Some(""));
        check(br#"{"who":[{"kind":null},{"kind":7}]}"#, 422, "invalid", Some("/who/0/kind"));
        check(br#"{"who":"secret"}"#, 422, "invalid", Some("/who"));
        check(br#"{"who":[],"note":null}"#, 422, "invalid", Some("/note"));
        check(br#"{"who":[],"note":5}"#, 422, "invalid", Some("/note"));
        check(b"{\"who\":[],\"note\":\"\xff\"}", 400, "malformed_json", Some("/note"));
    }
}
