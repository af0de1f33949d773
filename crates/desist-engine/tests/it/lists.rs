//! Lists of profiles: pages put together are what somebody finds who looks at every profile, and they stay in step while others
//! write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use desist_core::fact::Channel;
use desist_core::identifier::{Identifier, Kind};
use desist_core::mark::SubjectNo;
use desist_core::purpose::PurposeSet;
use desist_engine::engine::Engine;
use desist_engine::intake::{self, NewRequest};
use desist_engine::lists::{self, Column, Filter, Question};
use desist_engine::queue::Lane;
use desist_engine::search::Searched;
use desist_engine::services::{self, Side};
use desist_store::TimeColumn;
use serde_json::json;

use crate::people::{
    FIELDS, KEY, Rng, all, assert_list, assert_lists, by_text, change, create, create_all, delete, delete_all, link, new_profile,
    ordered_by, pages, person, ready, searched, service, subscribe, value,
};
use crate::support::{Fake, Home, audit, confirm, named, opt_in, opt_out, scale, submit};

const EMAILS: [&str; 6] = ["", "a@example.com", "A@Example.com", "b@example.com", "bb@example.com", "no e-mail"];
const NAMES: [&str; 11] = ["", "a", "A", "ab", "abc", "a\u{d7ff}b", "\u{10ffff}", "é", "日", "日本", "a\0b"];
const PREFIXES: [&str; 12] = ["", "a", "A", "ab", "b", "a\u{d7ff}", "\u{10ffff}", "é", "日", "日本", "a\0", "zz"];
const SERVICES: [&str; 3] = ["s1", "s2", "s3"];
/// Enough for several of every sort, and few enough to look at each for every question.
const PROFILES_MAX: usize = 40;

/// An engine, and what the random acts have to know.
struct World {
    engine: Engine,
    env: Arc<Fake>,
    rng: Rng,
    made: usize,
    alive: Vec<String>,
}

impl World {
    fn attributes(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let mut attributes = json!({ "email": rng.pick(&EMAILS), "firstName": rng.pick(&NAMES), "lastName": rng.pick(&NAMES) });
        // Not every profile has every attribute, and not all are texts.
        if rng.below(5) == 0 {
            attributes[FIELDS[rng.below(3)]] = [json!(null), json!(7)][rng.below(2)].clone();
        }
        serde_json::to_vec(&attributes).expect("JSON")
    }

    fn key(&mut self) -> String {
        self.rng.pick(&self.alive).clone()
    }

    fn act(&mut self) {
        if self.alive.len() < 3 || (self.alive.len() < PROFILES_MAX && self.rng.below(4) == 0) {
            self.made += 1;
            let (key, attributes, opted_out) = (format!("p{}", self.made), self.attributes(), self.rng.below(3) == 0);
            create(&self.engine, &key, attributes, opted_out).expect("created");
            self.alive.push(key);
            return;
        }
        self.env.advance([-1, 0, 0, 1][self.rng.below(4)]);
        let (key, other, engine) = (self.key(), self.key(), self.engine.clone());
        let campaign = |key: &str| named(&engine, Kind::CampaignPkey, key);
        match self.rng.below(16) {
            0..=3 => {
                let (attributes, wish) = (self.attributes(), (self.rng.below(8) == 0).then_some(true));
                change(&engine, &key, Some(attributes), wish).expect("changed");
            }
            4 => drop(change(&engine, &key, None, Some(true)).expect("opted out")),
            5 => drop(change(&engine, &key, None, Some(false)).expect("answered")),
            6 | 7 => {
                delete(&engine, &key).expect("deleted");
                self.alive.retain(|alive| *alive != key);
            }
            8 => drop(link(&engine, vec![campaign(&key), campaign(&other)])),
            9 => drop(link(&engine, vec![named(&engine, Kind::CustomerId, "c1"), campaign(&key)])),
            10 => drop(link(&engine, vec![campaign(&key), named(&engine, Kind::Email, EMAILS[1 + self.rng.below(4)])])),
            11 => {
                let both = vec![campaign(&key), campaign(&other)];
                let _ = engine.submit_blocking(Lane::Interactive, move |ctx| intake::unlink(ctx, &both, KEY));
            }
            12 => drop(submit(&engine, NewRequest { channel: Channel::Form, ..opt_out(vec![campaign(&key)]) }).expect("taken")),
            13 => {
                if let Ok(asked) = submit(&engine, opt_in(vec![campaign(&key)], PurposeSet::OPT_OUT_DEFAULT)) {
                    confirm(&engine, &asked).expect("confirmed");
                }
            }
            14 => {
                self.made += 1;
                let (to, own) = (*self.rng.pick(&SERVICES), format!("sub{}", self.made));
                drop(subscribe(&engine, &key, to, &own).expect("subscribed"));
            }
            _ => {
                let (side, own) = (Side::Service(1), format!("sub{}", self.rng.below(self.made + 1)));
                let _ = engine.submit_blocking(Lane::Interactive, move |ctx| services::unsubscribe(ctx, &side, &own));
            }
        }
    }

    /// Every combination of filters and order, with random values.
    fn questions(&mut self) -> Vec<Question> {
        let mut filters = vec![Vec::new()];
        let grow = |filters: &mut Vec<Vec<Filter>>, more: &mut dyn FnMut() -> Vec<Filter>| {
            let with = filters.iter().flat_map(|sofar| more().into_iter().map(|filter| [sofar.clone(), vec![filter]].concat()));
            let with: Vec<_> = with.collect();
            filters.extend(with);
        };
        let rng = &mut self.rng;
        grow(&mut filters, &mut || vec![Filter::OptedOut(true), Filter::OptedOut(false)]);
        grow(&mut filters, &mut || vec![Filter::Subscribers(1 + rng.below(3) as u64)]);
        grow(&mut filters, &mut || {
            let first = rng.below(3);
            let places = [vec![first], vec![2, 0], vec![0, 1, 2]];
            let text = |places: Vec<usize>| {
                let fields = places.into_iter().map(|place| FIELDS[place].to_owned()).collect();
                Filter::Text { fields, prefix: (*rng.pick(&PREFIXES)).to_owned() }
            };
            places.into_iter().map(text).collect()
        });
        grow(&mut filters, &mut || vec![Filter::Email(Identifier::from_value(Kind::Email, EMAILS[1 + rng.below(4)]).expect("valid").0)]);
        let columns = FIELDS.map(|field| Column::Field(field.to_owned()));
        let columns = columns.into_iter().chain([TimeColumn::Created, TimeColumn::Modified].map(Column::Time));
        let orders: Vec<_> = columns.flat_map(|column| [false, true].map(|descending| Some((column.clone(), descending)))).collect();
        let mut questions = Vec::new();
        for filters in filters {
            questions.extend([None].iter().chain(&orders).map(|order| Question { filters: filters.clone(), order: order.clone() }));
        }
        questions
    }
}

fn describe(question: &Question) -> String {
    let filters = question.filters.iter().map(|filter| match filter {
        Filter::Email(_) => "an e-mail".to_owned(),
        Filter::Text { fields, prefix } => format!("{fields:?} with {prefix:?}"),
        Filter::Subscribers(service) => format!("subscribers of {service}"),
        Filter::OptedOut(wanted) => format!("opted out: {wanted}"),
    });
    format!("{} by {:?}", filters.collect::<Vec<_>>().join(" and "), question.order)
}

fn random_questions(searched: &Searched, first_seed: u64) {
    for seed in (0..u64::from(scale())).map(|round| first_seed + 10 * round) {
        let mut home = Home::new(seed);
        home.policy.searched = searched.clone();
        let mut world = World { engine: home.open(), env: Arc::clone(&home.env), rng: Rng(seed), made: 0, alive: Vec::new() };
        for key in SERVICES {
            service(&world.engine, key, None).expect("made");
        }
        ready(&world.engine);
        (0..100).for_each(|_| world.act());
        let mut rounds = world.questions();
        // Everything is asked once, in no order, and things change meanwhile.
        while !rounds.is_empty() {
            let question = rounds.swap_remove(world.rng.below(rounds.len()));
            if world.rng.below(4) == 0 {
                world.act();
            }
            let (World { engine, rng, .. }, at) = (&mut world, format!("seed {seed}: {}", describe(&question)));
            let page_max = *rng.pick(&[2, 5, 60]);
            assert_list(engine, &question, &mut || 1 + rng.below(page_max), &at);
        }
        assert_lists(&world.engine);
        audit(&world.engine);
        world.engine.close();
    }
}

#[test]
fn pages_are_what_looking_at_everybody_gives_where_all_is_sealed() {
    random_questions(&searched(&FIELDS, &[]), 1);
}

#[test]
fn pages_are_what_looking_at_everybody_gives_where_some_is_in_clear() {
    random_questions(&searched(&["firstName"], &["lastName", "email"]), 2);
}

#[test]
fn pages_are_what_looking_at_everybody_gives_where_all_is_in_clear() {
    random_questions(&searched(&[], &FIELDS), 3);
}

/// Deleting leaves keys behind that are denied and nobody's, however many in a row.
#[test]
fn those_who_opted_out_are_listed_behind_any_number_who_were_deleted() {
    let home = Home::new(1);
    let engine = home.open();
    let people = |numbers: std::ops::Range<usize>| {
        let new = numbers.map(|n| new_profile(&engine, &format!("p{n}"), person(&format!("n{n}@example.com"), "", ""), true));
        create_all(&engine, new.collect()).expect("created");
    };
    // More than are looked at together, with the longest page.
    people(0..20);
    (1..=5).for_each(|piece| people(piece * 500..(piece + 1) * 500));
    people(0xffff..0xffff + 20);
    for piece in 1..=5 {
        delete_all(&engine, (piece * 500..(piece + 1) * 500).map(|n| format!("p{n}")).collect()).expect("deleted");
    }
    create(&engine, "allowed", person("", "", ""), false).expect("created");
    ready(&engine);
    for order in [None, Some((Column::Time(TimeColumn::Created), true))] {
        for wanted in [true, false] {
            for limit in [1, 7, 100, 500] {
                let question = Question { filters: vec![Filter::OptedOut(wanted)], order: order.clone() };
                assert_list(&engine, &question, &mut || limit, &format!("{} with {limit} on a page", describe(&question)));
            }
        }
    }
    engine.close();
}

/// A link can make a profile hold another's key, and the other can be deleted.
#[test]
fn a_profile_that_holds_several_campaign_keys_is_listed_once() {
    let home = Home::new(1);
    let engine = home.open();
    let campaign = |key: &str| named(&engine, Kind::CampaignPkey, key);
    for key in ["p1", "p2", "p3"] {
        create(&engine, key, person("", "", ""), true).expect("created");
    }
    ready(&engine);
    let opted_out = Question { filters: vec![Filter::OptedOut(true)], order: None };
    for round in ["each its own", "linked", "one deleted"] {
        match round {
            "linked" => assert!(link(&engine, vec![campaign("p1"), campaign("p2"), campaign("p3")])),
            "one deleted" => delete(&engine, "p2").expect("deleted"),
            _ => {}
        }
        for size in [1, 2, 100] {
            assert_list(&engine, &opted_out, &mut || size, round);
        }
    }
    engine.close();
}

/// Nothing passes through a key of more than 64 holders, but its profile is opted out all the same.
#[test]
fn a_profile_whose_key_too_many_hold_is_listed_by_its_own_opt_out() {
    let home = Home::new(1);
    let engine = home.open();
    let campaign = |key: &str| named(&engine, Kind::CampaignPkey, key);
    let key = |n: usize| format!("p{n}");
    create_all(&engine, (0..70).map(|n| new_profile(&engine, &key(n), person("", "", ""), false)).collect()).expect("created");
    for n in 1..70 {
        assert!(link(&engine, vec![campaign(&key(n)), campaign("p0")]));
    }
    ready(&engine);
    change(&engine, "p0", None, Some(true)).expect("opted out");
    assert_eq!(all(&engine).iter().filter(|profile| profile.opted_out).map(|profile| profile.subject.0).collect::<Vec<_>>(), [1]);
    for wanted in [true, false] {
        assert_list(&engine, &Question { filters: vec![Filter::OptedOut(wanted)], order: None }, &mut || 30, "one that too many hold");
    }
    engine.close();
}

/// Whether a profile of this number belongs in a list.
type Belongs = fn(usize) -> bool;

/// Who changes nothing that a list goes by is in it exactly once, whatever others do between two pages.
fn paging_beside_writers(searched: Searched) {
    const STAYING: usize = 400;
    let mut home = Home::new(1);
    home.policy.searched = searched;
    let engine = home.open();
    service(&engine, "s1", None).expect("made");
    let name = |n: usize| NAMES[n % NAMES.len()];
    let own = |n: usize, city: usize| {
        let (email, first, last) = (format!("n{}@example.com", n % 50), format!("stay{}", name(n / 3)), name(n));
        serde_json::to_vec(&json!({"email": email, "firstName": first, "lastName": last, "city": city})).expect("JSON")
    };
    let new = (0..STAYING).map(|n| {
        // An e-mail passes an opt-out on: those of an even number opted out and stay so, the others never do.
        let mut new = new_profile(&engine, &format!("p{n}"), own(n, 0), n % 2 == 0);
        (new.identifiers, new.email) = (Vec::new(), None);
        new
    });
    create_all(&engine, new.collect()).expect("created");
    let staying: BTreeMap<SubjectNo, usize> = all(&engine).iter().zip(0..).map(|(profile, n)| (profile.subject, n)).collect();
    for n in (0..STAYING).step_by(3) {
        subscribe(&engine, &format!("p{n}"), "s1", &format!("sub{n}")).expect("subscribed");
    }
    ready(&engine);
    let opted_out = |wanted| Question { filters: vec![Filter::OptedOut(wanted)], order: None };
    let questions: [(Question, Belongs); 9] = [
        (Question::default(), |_| true),
        (ordered_by("lastName", false), |_| true),
        (ordered_by("lastName", true), |_| true),
        (Question { filters: Vec::new(), order: Some((Column::Time(TimeColumn::Created), true)) }, |_| true),
        (by_text(&["firstName"], "stay"), |_| true),
        (by_text(&["lastName", "firstName"], "stay"), |_| true),
        (opted_out(true), |n| n % 2 == 0),
        (opted_out(false), |n| n % 2 == 1),
        (Question { filters: vec![Filter::Subscribers(1)], order: None }, |n| n % 3 == 0),
    ];
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (engine, stop, written) = (&engine, &stop, &written);
            scope.spawn(move || {
                let (mut rng, mut guests) = (Rng(writer as u64), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    let n = written.fetch_add(1, Ordering::SeqCst);
                    match rng.below(6) {
                        0 | 1 if guests.len() < 100 => {
                            let (key, first) = (format!("g{writer}-{n}"), format!("stay{}", name(n)));
                            create(engine, &key, person(&format!("{key}@example.com"), &first, name(n)), n % 2 == 0).expect("created");
                            guests.push(key);
                        }
                        2 => {
                            let (place, city) = (rng.below(STAYING), rng.below(9));
                            change(engine, &format!("p{place}"), Some(own(place, city)), None).expect("changed");
                        }
                        3 if !guests.is_empty() => {
                            change(engine, &guests[rng.below(guests.len())], None, Some(true)).expect("opted out");
                        }
                        4 if !guests.is_empty() => {
                            subscribe(engine, &guests[rng.below(guests.len())], "s1", &format!("{writer}-{n}")).expect("subscribed");
                        }
                        _ if !guests.is_empty() => delete(engine, &guests.swap_remove(rng.below(guests.len()))).expect("deleted"),
                        _ => {}
                    }
                }
            });
        }
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (engine, questions, staying, written) = (&engine, &questions, &staying, &written);
                scope.spawn(move || {
                    let mut rng = Rng(100 + reader);
                    for round in 0..4 * scale() {
                        for (place, (question, belongs)) in questions.iter().enumerate() {
                            let at = format!("reader {reader} round {round} question {place}");
                            // Between any two pages somebody writes, however busy the machine is.
                            let mut size = || {
                                let (before, patience) = (written.load(Ordering::SeqCst), Instant::now() + Duration::from_secs(20));
                                while written.load(Ordering::SeqCst) == before {
                                    assert!(Instant::now() < patience, "{at}: nobody wrote meanwhile");
                                    std::thread::yield_now();
                                }
                                1 + rng.below(60)
                            };
                            let found = pages(engine, question, &mut size).unwrap_or_else(|error| panic!("{at}: {error}"));
                            let once: BTreeSet<_> = found.iter().copied().collect();
                            assert_eq!(once.len(), found.len(), "{at}: somebody comes twice");
                            let stayed: Vec<_> = once.iter().filter_map(|subject| staying.get(subject)).copied().collect();
                            let expected: Vec<_> = (0..STAYING).filter(|n| belongs(*n)).collect();
                            assert_eq!(stayed, expected, "{at}");
                        }
                    }
                })
            })
            .collect();
        let read: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        for one in read {
            one.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

#[test]
fn nobody_is_missed_or_shown_twice_while_others_write() {
    paging_beside_writers(searched(&FIELDS, &[]));
}

#[test]
fn nobody_is_missed_or_shown_twice_in_clear_lists_while_others_write() {
    paging_beside_writers(searched(&["email"], &["firstName", "lastName"]));
}

#[test]
fn lists_are_the_same_after_a_restart() {
    for (seed, searched) in (1..).zip([searched(&FIELDS, &[]), searched(&["email"], &["firstName", "lastName"])]) {
        let mut home = Home::new(seed);
        home.policy.searched = searched;
        let mut world = World { engine: home.open(), env: Arc::clone(&home.env), rng: Rng(seed), made: 0, alive: Vec::new() };
        for key in SERVICES {
            service(&world.engine, key, None).expect("made");
        }
        (0..150).for_each(|_| world.act());
        ready(&world.engine);
        let questions = world.questions();
        let answers = |engine: &Engine| -> Vec<(Vec<SubjectNo>, u64)> {
            ready(engine);
            let answer =
                |question| (pages(engine, question, &mut || 17).expect("answers"), lists::count(engine, question).expect("counts"));
            questions.iter().map(answer).collect()
        };
        let stored = |engine: &Engine| {
            let all = all(engine).into_iter().map(|profile| (profile.pkey, profile.row, profile.attributes, profile.opted_out));
            let (services, subscriptions) = engine
                .read(|read| Ok((read.services()?, read.subscriptions(desist_store::Subscriptions::To(1), 0, 1000)?)))
                .expect("reads");
            format!("{:?} {services:?} {subscriptions:?}", all.collect::<Vec<_>>())
        };
        let before = (answers(&world.engine), stored(&world.engine));
        // What a loss of power leaves, then what a stop leaves.
        let image = Home::image(&home, 100 + seed);
        let engine = image.open();
        assert!((answers(&engine), stored(&engine)) == before, "seed {seed}: after a loss of power");
        audit(&engine);
        engine.close();
        world.engine.close();
        drop(world);
        let engine = home.open();
        assert!((answers(&engine), stored(&engine)) == before, "seed {seed}: after a stop");
        audit(&engine);
        engine.close();
    }
}

#[test]
fn a_question_about_what_is_not_searched_is_not_answered() {
    let mut home = Home::new(1);
    home.policy.searched = searched(&["email"], &["lastName"]);
    let engine = home.open();
    create(&engine, "p1", person("a@example.com", "b", "c"), false).expect("created");
    ready(&engine);
    assert_eq!(FIELDS.map(|field| engine.shared().search.has(field)), [true, false, true]);
    for question in [by_text(&["firstName"], ""), ordered_by("firstName", false)] {
        assert!(matches!(pages(&engine, &question, &mut || 1), Err(lists::ListError::NotReady)));
    }
    assert_eq!(value(&all(&engine)[0].attributes, "firstName"), "b");
    engine.close();
}
