//! Profiles as the web layer writes them, and what every list must say of them.

use std::cmp::Ordering;

use desist_core::fact::Actor;
use desist_core::identifier::{Identifier, Kind};
use desist_core::mark::SubjectNo;
use desist_core::rules::Named;
use desist_engine::engine::{Ctx, Engine, Failure};
use desist_engine::intake::{self, Outcome};
use desist_engine::lists::{self, Column, Filter, ListError, Position, Question};
use desist_engine::profiles::{self, Changed, Merged, NewProfile, Profile, Wish};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_engine::services::{self, NewService};
use desist_store::{ServiceRow, SubscriptionRow, TimeColumn};
use serde_json::{Value, json};

use crate::story::pkey;
use crate::support::wait_until;

pub const KEY: Actor = Actor::Key(1);
/// The attributes that these tests search.
pub const FIELDS: [&str; 3] = ["email", "firstName", "lastName"];

/// Good enough to choose by, and the same everywhere (`SplitMix64`).
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

pub fn searched(sealed: &[&str], clear: &[&str]) -> Searched {
    let [sealed, clear] = [sealed, clear].map(|fields| fields.iter().map(ToString::to_string).collect());
    Searched { sealed, clear }
}

pub fn person(email: &str, first: &str, last: &str) -> Vec<u8> {
    serde_json::to_vec(&json!({"email": email, "firstName": first, "lastName": last})).expect("JSON")
}

/// A searched attribute; empty where there is no text.
pub fn value(attributes: &[u8], field: &str) -> String {
    let all: Value = serde_json::from_slice(attributes).unwrap_or_default();
    all[field].as_str().unwrap_or_default().to_owned()
}

fn email_of(attributes: &[u8]) -> Option<Identifier> {
    Identifier::from_value(Kind::Email, &value(attributes, "email")).ok().map(|(email, _)| email)
}

fn named_in(engine: &Engine, attributes: &[u8]) -> Vec<Named> {
    email_of(attributes).iter().map(|email| engine.named(email)).collect()
}

pub fn new_profile(engine: &Engine, key: &str, attributes: Vec<u8>, opt_out: bool) -> NewProfile {
    let identifiers = named_in(engine, &attributes);
    let email = identifiers.first().copied();
    NewProfile { pkey: key.to_owned(), attributes, identifiers, email, opt_out, evidence: b"{}".to_vec(), given: Vec::new(), by: KEY }
}

pub fn create(engine: &Engine, key: &str, attributes: Vec<u8>, opt_out: bool) -> Result<(), Failure> {
    create_all(engine, vec![new_profile(engine, key, attributes, opt_out)])
}

/// Creates all of them in one transaction.
pub fn create_all(engine: &Engine, all: Vec<NewProfile>) -> Result<(), Failure> {
    engine.submit_blocking(Lane::Interactive, move |ctx| {
        for new in &all {
            if let Err(refusal) = profiles::create(ctx, new)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    })
}

/// Changes attributes, or says something of the opt-out alone.
pub fn change_in(ctx: &mut Ctx<'_>, engine: &Engine, key: &str, attributes: Option<&[u8]>, opt_out: Option<bool>) -> Outcome<Changed> {
    let wish = Wish { opt_out, alone: attributes.is_none(), all_or_nothing: false, evidence: b"{}".to_vec(), by: KEY };
    let mut merge = |present: &[u8]| {
        let next = attributes.unwrap_or(present);
        let new = named_in(engine, next);
        let email = new.first().copied();
        Some(Merged { attributes: next.to_vec(), old: named_in(engine, present), new, email, changed: next != present, given: Vec::new() })
    };
    profiles::change(ctx, &pkey(key), &wish, &mut merge, true)
}

pub fn change(engine: &Engine, key: &str, attributes: Option<Vec<u8>>, opt_out: Option<bool>) -> Result<Changed, Failure> {
    let (engine_too, key) = (engine.clone(), key.to_owned());
    engine.submit_blocking(Lane::Interactive, move |ctx| change_in(ctx, &engine_too, &key, attributes.as_deref(), opt_out))
}

pub fn delete(engine: &Engine, key: &str) -> Result<(), Failure> {
    delete_all(engine, vec![key.to_owned()])
}

/// Deletes all of them in one transaction.
pub fn delete_all(engine: &Engine, keys: Vec<String>) -> Result<(), Failure> {
    engine.submit_blocking(Lane::Interactive, move |ctx| {
        for key in &keys {
            if let Err(refusal) = profiles::delete(ctx, &pkey(key), KEY)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    })
}

/// Links what is named, if the rules allow it.
pub fn link(engine: &Engine, named: Vec<Named>) -> bool {
    engine.submit_blocking(Lane::Interactive, move |ctx| intake::link(ctx, &named, &[], KEY)).is_ok()
}

pub fn service(engine: &Engine, key: &str, name: Option<&str>) -> Result<ServiceRow, Failure> {
    let new = NewService { pkey: key.to_owned(), name: name.map(str::to_owned), attributes: "{}".to_owned() };
    engine.submit_blocking(Lane::Interactive, move |ctx| services::create(ctx, &new))
}

pub fn subscribe(engine: &Engine, key: &str, service: &str, own: &str) -> Result<(SubscriptionRow, bool), Failure> {
    let (key, service, own) = (key.to_owned(), service.to_owned(), own.to_owned());
    engine.submit_blocking(Lane::Interactive, move |ctx| services::subscribe(ctx, &pkey(&key), &service, &own))
}

/// Waits until every list is made.
pub fn ready(engine: &Engine) {
    wait_until("the lists are made", || engine.shared().search.is_ready());
}

/// Changes what is searched while the engine runs.
pub fn search_by(engine: &Engine, searched: Searched) {
    let mut policy = engine.shared().policy.load().as_ref().clone();
    policy.searched = searched;
    engine.declare(&policy).expect("declared");
}

/// Every profile, by number.
pub fn all(engine: &Engine) -> Vec<Profile> {
    let shared = engine.shared();
    let read = engine.read(|read| {
        let subjects = read.coordinator()?.counters.subjects;
        let mut all = Vec::new();
        for no in (1..=subjects).map(SubjectNo) {
            all.extend(profiles::get_by_subject(read, shared, no)?.expect("opens"));
        }
        Ok(all)
    });
    read.expect("reads")
}

/// What a list has to be: every profile looked at, filtered and sorted.
pub fn naive(engine: &Engine, question: &Question) -> Vec<SubjectNo> {
    let mut all = all(engine);
    for filter in &question.filters {
        all.retain(|profile| match filter {
            Filter::Email(wanted) => email_of(&profile.attributes).is_some_and(|own| own.digest == wanted.digest),
            Filter::Text { fields, prefix } => fields.iter().any(|field| value(&profile.attributes, field).starts_with(prefix)),
            Filter::Subscribers(service) => engine.read(|read| read.subscribed(profile.subject, *service)).expect("reads").is_some(),
            Filter::OptedOut(wanted) => profile.opted_out == *wanted,
        });
    }
    let Some((column, descending)) = &question.order else { return all.iter().map(|profile| profile.subject).collect() };
    let key = |profile: &Profile| match column {
        Column::Field(field) => (value(&profile.attributes, field), 0),
        Column::Time(TimeColumn::Created) => (String::new(), profile.row.created_ms),
        Column::Time(TimeColumn::Modified) => (String::new(), profile.row.modified_ms),
    };
    let order = |one: &Profile, other: &Profile| key(one).cmp(&key(other)).then(one.subject.cmp(&other.subject));
    all.sort_by(|one, other| if *descending { order(other, one) } else { order(one, other) });
    all.iter().map(|profile| profile.subject).collect()
}

/// All pages of a list put together, each of the size that `size` says.
pub fn pages(engine: &Engine, question: &Question, size: &mut dyn FnMut() -> usize) -> Result<Vec<SubjectNo>, ListError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let limit = size();
        let listed = lists::page(engine, question, after.as_ref(), limit)?;
        assert!(listed.profiles.len() <= limit);
        all.extend(listed.profiles.iter().map(|profile| profile.subject));
        let Some(next) = listed.next else { return Ok(all) };
        // As a client carries it.
        let carried = Position::from_bytes(&next.to_bytes()).expect("reads what it wrote");
        assert!(carried == next && after.is_none_or(|before| before != next), "the pages go on");
        after = Some(carried);
    }
}

pub fn by_text(fields: &[&str], prefix: &str) -> Question {
    let fields = fields.iter().map(ToString::to_string).collect();
    Question { filters: vec![Filter::Text { fields, prefix: prefix.to_owned() }], order: None }
}

pub fn ordered_by(field: &str, descending: bool) -> Question {
    Question { filters: Vec::new(), order: Some((Column::Field(field.to_owned()), descending)) }
}

/// A list and its count are what they have to be. Without an order any order will do, but no profile may come twice.
pub fn assert_list(engine: &Engine, question: &Question, size: &mut dyn FnMut() -> usize, at: &str) {
    let (mut expected, counted) = (naive(engine, question), lists::count(engine, question));
    let mut found = pages(engine, question, size).unwrap_or_else(|error| panic!("{at}: {error}"));
    if question.order.is_none() && !question.filters.is_empty() {
        (expected.sort(), found.sort()) as ((), ());
    }
    assert!(found == expected, "{at}: {found:?} instead of {expected:?}");
    assert_eq!(counted.unwrap_or_else(|error| panic!("{at}: {error}")), expected.len() as u64, "{at}: counted");
}

/// The lists say what the store says, and in clear there is what the policy names and nothing else.
pub fn assert_lists(engine: &Engine) {
    ready(engine);
    let searched = engine.shared().policy.load().searched.clone();
    for field in searched.sealed.iter().chain(&searched.clear) {
        assert_list(engine, &ordered_by(field, false), &mut || 100, field);
        assert_list(engine, &by_text(&[field], "a"), &mut || 100, field);
    }
    let profiles = all(engine);
    for field in FIELDS.iter().map(ToString::to_string).chain(searched.clear.clone()) {
        let mut expected: Vec<_> = profiles.iter().map(|profile| (value(&profile.attributes, &field), profile.subject)).collect();
        expected.sort();
        expected.retain(|_| searched.clear.contains(&field));
        let page = desist_store::Page { after: None, descending: false, limit: 1_000_000 };
        let found = engine.read(|read| read.profile_texts(&field, "", page)).expect("reads");
        let mut both = expected.iter().zip(&found);
        assert!(both.all(|(one, other)| one.cmp(other) == Ordering::Equal), "{field} in clear differs from the profiles");
        assert_eq!(found.len(), expected.len(), "{field} in clear");
    }
}
