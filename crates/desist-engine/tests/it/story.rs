//! A fixed story in which every kind of command occurs, each under its own `Idempotency-Key`.

use std::collections::BTreeMap;

use desist_core::fact::{Actor, Channel, RequestId, RequestKind, Role};
use desist_core::identifier::{Identifier, Kind};
use desist_core::purpose::PurposeSet;
use desist_core::rules::Named;
use desist_engine::clear::Given;
use desist_engine::engine::{Ctx, Engine, Failure};
use desist_engine::intake::{self, Accepted, Idempotency, ImportChunk, NewRequest, Outcome, once};
use desist_engine::privacy::{self, NewPrivacyRequest};
use desist_engine::profiles::{self, Merged, NewProfile, Wish};
use desist_engine::queue::Lane;
use desist_engine::services::{self, NewService};
use desist_engine::{keys, secrets};
use desist_store::{PrivacyKind, PrivacyStatus};
use serde::Serialize;
use serde_json::Value;

use crate::people::person;
use crate::support::{opt_in, opt_out, stored_verdicts};

/// What was answered so far, for steps that go on from there.
#[derive(Clone)]
pub struct Story {
    pub engine: Engine,
    pub answers: BTreeMap<&'static str, Value>,
}

pub struct Step {
    pub name: &'static str,
    /// What its `Idempotency-Key` is; that of another step for a repeat.
    key: &'static str,
    work: fn(&mut Ctx<'_>, &Story) -> Outcome<Value>,
}

const KEY: Actor = Actor::Key(1);
const IMPORT: [u8; 32] = [9; 32];

fn value<T: Serialize>(outcome: Outcome<T>) -> Outcome<Value> {
    Ok(outcome?.map(|answer| serde_json::to_value(answer).expect("JSON")))
}

const fn step(name: &'static str, work: fn(&mut Ctx<'_>, &Story) -> Outcome<Value>) -> Step {
    Step { name, key: name, work }
}

pub const STEPS: [Step; 24] = [
    step("a key", |ctx, _| value(keys::create(ctx, "crm", Role::Writer, "dk_1", "dt_1", Actor::Local))),
    step("a bare opt-out", |ctx, story| {
        value(intake::request(ctx, &NewRequest { given: story.given("rosa"), ..opt_out(vec![story.email("rosa")]) }))
    }),
    step("an opt-out of several", several),
    Step { name: "the same again", key: "an opt-out of several", work: several },
    step("a limit", |ctx, story| {
        let new = opt_out(vec![story.email("rosa"), story.cookie("k9")]);
        value(intake::request(ctx, &NewRequest { kind: RequestKind::Limit, purposes: PurposeSet::LIMIT_SENSITIVE, ..new }))
    }),
    step("an opt-in", |ctx, story| value(intake::request(ctx, &opt_in(vec![story.customer("c1")], PurposeSet::OPT_OUT_DEFAULT)))),
    step("its confirmation", |ctx, story| {
        let id: RequestId = serde_json::from_value(story.answers["an opt-in"]["id"].clone()).expect("an id");
        let token = ctx.shared.secrets.confirm_token(id);
        value(intake::confirm(ctx, id, &token, Actor::Consumer))
    }),
    step("a link", |ctx, story| value(intake::link(ctx, &[story.customer("c2"), story.cookie("k2")], &[], KEY))),
    step("an opt-out of a linked device", |ctx, story| {
        value(intake::request(ctx, &NewRequest { channel: Channel::Gpc, evidence: Vec::new(), ..opt_out(vec![story.cookie("k2")]) }))
    }),
    step("an unlink", |ctx, story| value(intake::unlink(ctx, &[story.customer("c2"), story.cookie("k2")], KEY))),
    step("a profile that is opted out", |ctx, story| value(create(ctx, story, "p1", "vera", true))),
    step("a profile", |ctx, story| value(create(ctx, story, "p2", "luis", false))),
    step("a change with an opt-out", |ctx, story| value(change(ctx, story, "p2", ["luis", "luisa"], Some(true), false))),
    step("the end of that opt-out", |ctx, story| value(change(ctx, story, "p2", ["luisa", "luisa"], Some(false), true))),
    step("a sync that must not allow", |ctx, story| value(change(ctx, story, "p1", ["vera", "vera2"], Some(false), false))),
    step("a profile's end", |ctx, _| value(profiles::delete(ctx, &pkey("p1"), KEY))),
    step("a service", |ctx, _| {
        let new = NewService { pkey: "s1".to_owned(), name: None, attributes: "{}".to_owned() };
        value(services::create(ctx, &new).map(|outcome| outcome.map(|row| row.no)))
    }),
    step("a subscription", |ctx, _| {
        value(services::subscribe(ctx, &pkey("p2"), "s1", "u1").map(|outcome| outcome.map(|(row, new)| (row.no, new))))
    }),
    step("a privacy request to see", |ctx, _| value(privacy_request(ctx, "see", PrivacyKind::Access, "luisa"))),
    step("a privacy request to delete", |ctx, _| value(privacy_request(ctx, "delete", PrivacyKind::Delete, "luisa"))),
    step("a profile that is listed", |ctx, story| value(create(ctx, story, "p3", "ines", true))),
    step("a piece of a file", |ctx, story| value(intake::import(ctx, &chunk(story, 0, &["ana", "rosa"], false)))),
    step("the file's end", |ctx, story| value(intake::import(ctx, &chunk(story, 3, &["bea"], true)))),
    step("the key's end", |ctx, _| value(keys::revoke(ctx, 1, Actor::Local))),
];

fn several(ctx: &mut Ctx<'_>, story: &Story) -> Outcome<Value> {
    value(intake::request(ctx, &opt_out(vec![story.customer("c1"), story.email("vega"), story.cookie("k1")])))
}

pub fn pkey(value: &str) -> Identifier {
    Identifier::from_value(Kind::CampaignPkey, value).expect("valid").0
}

fn attributes(name: &str) -> Vec<u8> {
    person(&format!("{name}@example.com"), name, "")
}

fn privacy_request(ctx: &mut Ctx<'_>, name: &str, kind: PrivacyKind, of: &str) -> Outcome<(u64, PrivacyStatus)> {
    let email = format!("{of}@example.com");
    let new = NewPrivacyRequest {
        pkey: name.to_owned(),
        name_hash: secrets::hash(name),
        kind,
        regulation: "CCPA".to_owned(),
        identifier: Identifier::from_value(Kind::Email, &email).expect("valid").0,
        details: b"{}".to_vec(),
        by: KEY,
    };
    let holds = |attributes: &[u8]| crate::people::value(attributes, "email") == email;
    Ok(privacy::carry_out(ctx, &new, &holds)?.map(|row| (row.no, row.status)))
}

fn create(ctx: &mut Ctx<'_>, story: &Story, key: &str, name: &str, opt_out: bool) -> Outcome<Option<Accepted>> {
    let email = story.email(name);
    let new = NewProfile {
        pkey: key.to_owned(),
        attributes: attributes(name),
        identifiers: vec![email],
        email: Some(email),
        opt_out,
        evidence: b"{}".to_vec(),
        given: story.given(name),
        by: KEY,
    };
    profiles::create(ctx, &new)
}

fn change(ctx: &mut Ctx<'_>, story: &Story, key: &str, names: [&str; 2], opt_out: Option<bool>, alone: bool) -> Outcome<Option<Accepted>> {
    let wish = Wish { opt_out, alone, all_or_nothing: false, evidence: b"{}".to_vec(), by: KEY };
    let [old, new] = names.map(|name| story.email(name));
    let mut merge = |present: &[u8]| {
        assert_eq!(present, attributes(names[0]));
        let given = story.given(names[1]);
        Some(Merged { attributes: attributes(names[1]), old: vec![old], new: vec![new], email: Some(new), changed: old != new, given })
    };
    Ok(profiles::change(ctx, &pkey(key), &wish, &mut merge, true)?.map(|changed| changed.request))
}

/// Three rows, of which one cannot be read if two people are given.
fn chunk(story: &Story, first_row: u64, people: &[&str], last: bool) -> ImportChunk {
    ImportChunk {
        import: IMPORT,
        first_row,
        rows: people.len() as u64 + u64::from(!last),
        people: people.iter().map(|name| vec![story.email(name)]).collect(),
        given: people.iter().flat_map(|name| story.given(name)).collect(),
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        acted_at: None,
        last,
        by: KEY,
    }
}

impl Story {
    pub fn new(engine: Engine) -> Self {
        Self { engine, answers: BTreeMap::new() }
    }

    fn email(&self, name: &str) -> Named {
        crate::support::email(&self.engine, &format!("{name}@example.com"))
    }

    /// What the e-mail is, if some destination takes e-mail addresses.
    fn given(&self, name: &str) -> Vec<Given> {
        crate::support::given(&self.engine, Kind::Email, &format!("{name}@example.com"))
    }

    fn customer(&self, value: &str) -> Named {
        crate::support::named(&self.engine, Kind::CustomerId, value)
    }

    fn cookie(&self, value: &str) -> Named {
        crate::support::named(&self.engine, Kind::CookieId, value)
    }

    /// Does one step and keeps its answer.
    pub fn run(&mut self, step: &Step) -> Result<Value, Failure> {
        let (story, work) = (self.clone(), step.work);
        let idempotency = Idempotency { scope: secrets::hash(step.key), body: secrets::hash("body") };
        let answer = self.engine.submit_blocking(Lane::Interactive, move |ctx| once(ctx, Some(&idempotency), |ctx| work(ctx, &story)))?;
        self.answers.insert(step.name, answer.clone());
        Ok(answer)
    }

    pub fn run_all(&mut self) {
        for step in &STEPS {
            self.run(step).unwrap_or_else(|failure| panic!("{}: {failure}", step.name));
        }
    }
}

/// Everything that can be asked of the state but random numbers and places in the log.
pub fn state(engine: &Engine) -> String {
    let (shared, mut rows) = (engine.shared(), BTreeMap::new());
    let read = engine.read(|read| {
        rows.clear();
        read.scan(&mut |row| {
            let kind = match row {
                desist_store::Row::Broken(problem) => problem,
                desist_store::Row::Identifier(no, row, verdict) => format!("identifier {} held by {}: {verdict:?}", no.0, row.holders),
                desist_store::Row::Subject(no, _) => format!("subject {}", no.0),
                desist_store::Row::Hold(subject, no) => format!("hold {} {}", subject.0, no.0),
                // Their numbers tell how commands came to be in batches.
                desist_store::Row::Change(row) => format!("change of {:?}", row.party),
                desist_store::Row::Request(row) => {
                    format!("request {:?} {:?} {:?} {:?}", row.kind, row.status, row.identifiers, row.unreached)
                }
                desist_store::Row::Profile(no) | desist_store::Row::Vault(desist_store::Owner::Profile(no)) => format!("profile {}", no.0),
                desist_store::Row::Vault(desist_store::Owner::Request(_)) => "evidence".to_owned(),
                desist_store::Row::Subscription(_, subject, _) => format!("subscription of {}", subject.0),
                desist_store::Row::PrivacyRequest(no) | desist_store::Row::Vault(desist_store::Owner::PrivacyRequest(no)) => {
                    format!("privacy request {no}")
                }
                desist_store::Row::Vault(desist_store::Owner::Identifier(no)) => format!("what identifier {} is", no.0),
                desist_store::Row::Vault(desist_store::Owner::ByHand(seq)) => format!("told by hand at {seq}"),
            };
            *rows.entry(kind).or_insert(0) += 1;
        })?;
        let (import, keys, purposes, totals) = (read.import(&IMPORT)?, read.keys()?, read.purposes()?, read.totals()?);
        let (services, privacy_requests) = (read.services()?, read.privacy_requests(0, 10)?);
        let mut profiles = Vec::new();
        for key in ["p1", "p2", "p3"] {
            profiles.push(profiles::get(read, shared, &pkey(key))?.map(|found| (found.row, found.attributes.to_vec(), found.opted_out)));
        }
        Ok(format!("{import:?} {keys:?} {purposes:?} {totals:?} {services:?} {privacy_requests:?} {profiles:?}"))
    });
    let token = shared.keys.load().by_token("dt_1").is_some();
    format!("{} {token} {rows:#?} {:#?}", read.expect("reads"), stored_verdicts(engine))
}
