//! The profile calls of the Adobe Campaign Standard API, so that software written for them works
//! when only the host changes.
//!
//! [`path`], [`query`], [`schema`], [`profile`], [`service`], [`metadata`] and [`error`] are pure: text
//! in, values out, no clock and no store.

pub mod error;
pub mod handler;
pub mod metadata;
pub mod path;
pub mod profile;
pub mod query;
pub mod schema;
pub mod service;
pub mod token;

use self::path::{Resource, Root};
use self::schema::{Access, Field, Schema, Type};

/// The resources as one configuration has them.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// The profile with its built-in fields.
    pub profile: Schema,
    /// The profile with the business's own fields too.
    pub profile_ext: Schema,
    /// The service.
    pub service: Schema,
    /// The marketing history.
    pub history: Schema,
}

impl Schemas {
    /// Schemas with the business's own fields of the profile.
    pub fn new(custom: Vec<Field>) -> Self {
        let history =
            ["PKey", "email", "firstName", "href", "lastName"].map(|name| Field::new(name, Type::Text(255), "", Access::Server, None));
        Self {
            profile: profile::schema([]),
            profile_ext: profile::schema(custom),
            service: service::schema(),
            history: Schema::new("history", history.into()),
        }
    }

    /// The schema of a resource under a root: the business's own fields are shown under Ext alone.
    pub fn of(&self, root: Root, resource: Resource) -> &Schema {
        match (resource, root) {
            (Resource::Service, _) => &self.service,
            (Resource::Profile, Root::ProfileAndServicesExt) => &self.profile_ext,
            (Resource::Profile, Root::ProfileAndServices | Root::ProfilesAndServices) => &self.profile,
        }
    }
}

/// Runs everything that a stranger's bytes reach before any check of a key: never panics, and every
/// refusal is an answer that a client can read.
#[doc(hidden)]
pub fn fuzz_campaign(data: &[u8]) {
    let check = |error: error::CampaignError| {
        for compat in [error::Compat::Adobe, error::Compat::Strict] {
            let (status, body) = (error.status(compat), error.body().to_string());
            assert!((400..=503).contains(&status) && (compat == error::Compat::Adobe || status != 500));
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|value| !value.is_null()));
        }
        assert!(error.pointer().is_none_or(|name| name.bytes().all(|byte| byte.is_ascii_graphic())));
    };
    let own = format!("@{}", "A".repeat(32));
    let fields = ["cusHobby", "cusPet"].map(|name| Field::new(name, Type::Text(20), "", Access::Caller, None));
    let schemas = Schemas::new(fields.into());
    for (root, resource) in [(Root::ProfileAndServicesExt, Resource::Profile), (Root::ProfileAndServices, Resource::Service)] {
        let schema = schemas.of(root, resource);
        for mode in [schema::Mode::Create, schema::Mode::Patch { pkey: &own }] {
            match schema.parse_body(data, mode) {
                Err(error) => check(error),
                Ok(change) => {
                    let mut attributes = schema::Attributes::default();
                    schema.apply(&mut attributes, change.attributes.clone(), 0);
                    assert!(!schema.apply(&mut attributes, change.attributes, 1), "a repeat changes nothing");
                    let sealed = serde_json::to_vec(&attributes).expect("a map of JSON values is JSON");
                    let opened: schema::Attributes = serde_json::from_slice(&sealed).expect("as written");
                    assert!(opened == attributes);
                    profile::identifiers(schema, &attributes);
                    let computed = profile::Computed { pkey: &own, ..profile::Computed::default() };
                    profile::render(schema, &attributes, &computed, jiff::civil::Date::constant(2026, 3, 1));
                }
            }
        }
    }
    let text = String::from_utf8_lossy(data);
    let is_field = |root, resource, name: &str| schemas.of(root, resource).named(name).is_some();
    for target in [text.to_string(), format!("/acme/campaign/{text}")] {
        if let Err(error) = path::resolve(&target, &is_field) {
            check(error);
        }
    }
    query::fuzz_query(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    /// Pieces of real bodies and paths in any order get deeper than random bytes do.
    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"null",
        b"true",
        b"false",
        b"-1e999",
        b"0",
        b"\"email\":",
        b"\"a@b.co\"",
        b"\"location\":{",
        b"\"city\":\"x\"",
        b"\"ccpaOptOut\":true",
        b"\"PKey\":\"@bad\"",
        b"\"age\":1",
        b"\xff",
        b"\\u0000",
        b"\"birthDate\":\"2000-02-30\"",
        b"profileAndServices/",
        b"profile",
        b".json",
        b"/",
        b"%2F",
        b"%40",
        b"@",
        b"%",
        b"%00",
        b"?",
        b"..",
        b"byEmail",
        b"_count",
        b"&",
        b"=",
        b"text=",
        b"email=",
        b"_order=email%2520desc",
        b"_lineCount=2",
        b"_lineStart=@",
        b"\xc3\xa9",
    ];

    #[test]
    fn any_bytes_get_a_readable_answer() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 4096, failure_persistence: None, ..Config::default() }, rng);
        let piece = prop_oneof![4 => proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec), 1 => any::<Vec<u8>>()];
        let bytes = proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
        runner
            .run(&bytes, |bytes| {
                super::fuzz_campaign(&bytes);
                Ok(())
            })
            .expect("no case fails");
    }
}
