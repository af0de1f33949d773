//! The lists by attribute while they are made: answers are right or "not ready", and what is in clear is what the operator named.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use desist_engine::engine::Engine;
use desist_engine::lists::{self, Filter, ListError, Question};
use desist_engine::queue::Lane;
use desist_store::faulty::Fault;

use crate::people::{
    FIELDS, all, assert_lists, by_text, change, change_in, create, create_all, delete, new_profile, ordered_by, pages, person, ready,
    search_by, searched, value,
};
use crate::support::{Home, Opening, audit, hang, scale, settle, wait_until};

/// More than two pieces of what the background reads at a time.
const PEOPLE: usize = 2500;
/// Names of those who stay as they are.
const STAYING: &str = "stay";

/// A store in which every tenth profile stays as it is.
fn peopled(home: &Home, people: usize) {
    let engine = home.open();
    for first in (0..people).step_by(500) {
        let new = (first..people.min(first + 500)).map(|n| new_profile(&engine, &format!("p{n}"), attributes(n, 0), false)).collect();
        create_all(&engine, new).expect("created");
    }
    engine.close();
}

fn attributes(n: usize, version: usize) -> Vec<u8> {
    let name = if n.is_multiple_of(10) { format!("{STAYING}{}", n % 7) } else { format!("other{version}") };
    person(&format!("{name}-{n}@example.com"), &name, &format!("{name} last"))
}

/// A right answer, or that there is none yet.
fn ask(engine: &Engine, field: &str, people: usize) -> Option<()> {
    let expected = people.div_ceil(10);
    let question = by_text(&[field], STAYING);
    let counted = match lists::count(engine, &question) {
        Ok(counted) => Some(counted),
        Err(ListError::NotReady) => None,
        Err(ListError::Store(error)) => panic!("{error}"),
    };
    assert!(counted.is_none_or(|counted| counted == expected as u64), "{field}: {counted:?} of {expected}");
    let mut ordered = ordered_by(field, true);
    ordered.filters = question.filters;
    for question in [by_text(&[field], STAYING), ordered] {
        match pages(engine, &question, &mut || people) {
            Ok(found) => assert_eq!(found.len(), expected, "{field}"),
            Err(ListError::NotReady) => return None,
            Err(ListError::Store(error)) => panic!("{error}"),
        }
    }
    counted.map(|_| ())
}

/// Keeps every reading connection busy, so that nothing can be read in the background, until the sender is dropped.
fn occupy(engine: &Engine, work: impl FnOnce()) {
    const READERS: usize = 4;
    let (began, begins) = mpsc::channel();
    std::thread::scope(|scope| {
        let ends: Vec<mpsc::Sender<()>> = (0..READERS)
            .map(|_| {
                let ((end, ended), began) = (mpsc::channel(), began.clone());
                scope.spawn(move || {
                    let read = engine.read(|_| {
                        began.send(()).expect("awaited");
                        let _ = ended.recv();
                        Ok(())
                    });
                    read.expect("reads");
                });
                end
            })
            .collect();
        for _ in &ends {
            begins.recv().expect("begins");
        }
        work();
    });
}

/// The lists by attribute answer nothing, the others all.
fn assert_not_ready(engine: &Engine, fields: &[&str]) {
    assert!(!engine.shared().search.is_ready());
    for field in fields {
        let plain = by_text(&[field], STAYING);
        let narrowed = Question { filters: [plain.filters.clone(), vec![Filter::OptedOut(false)]].concat(), order: None };
        for question in [&plain, &narrowed, &ordered_by(field, false), &ordered_by(field, true)] {
            assert!(matches!(lists::page(engine, question, None, 3), Err(ListError::NotReady)), "{field}");
        }
        for question in [&plain, &narrowed] {
            assert!(matches!(lists::count(engine, question), Err(ListError::NotReady)), "{field}");
        }
    }
}

#[test]
fn a_list_that_is_not_made_says_so_and_the_others_answer() {
    let mut home = Home::new(1);
    peopled(&home, PEOPLE);
    home.policy.searched = searched(&["firstName"], &[]);
    let engine = home.open();
    ready(&engine);
    // The writer is held up, so that nothing gets into clear.
    let go = hang(&engine);
    search_by(&engine, searched(&["firstName"], &["lastName", "email"]));
    assert_not_ready(&engine, &FIELDS);
    assert_eq!(pages(&engine, &Question::default(), &mut || 1000).expect("answers").len(), PEOPLE);
    assert_eq!(lists::count(&engine, &Question { filters: vec![Filter::OptedOut(false)], order: None }).expect("answers"), PEOPLE as u64);
    drop(go);
    wait_until("the lists are made", || {
        let answered = FIELDS.map(|field| ask(&engine, field, PEOPLE).is_some());
        answered == [true; 3]
    });
    assert_lists(&engine);
    // Nothing can be read, so that nothing gets into memory.
    occupy(&engine, || {
        search_by(&engine, searched(&FIELDS, &[]));
        assert!(!engine.shared().search.is_ready());
        for field in FIELDS {
            assert!(matches!(lists::count(&engine, &by_text(&[field], "")), Err(ListError::NotReady)), "{field}");
        }
    });
    assert_lists(&engine);
    engine.close();
}

/// What is written while the lists are made is in them, before and behind the place where they are.
fn writes_during_the_build(sealed: &[&str], clear: &[&str]) {
    let mut home = Home::new(1);
    let people = PEOPLE * 2;
    peopled(&home, people);
    home.policy.searched = searched(sealed, clear);
    let engine = home.open();
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 1;
            // At least a few after the lists are made as well.
            while !stop.load(Ordering::SeqCst) || written.load(Ordering::SeqCst) < 50 {
                n = (n + 1237) % people;
                if n.is_multiple_of(10) {
                    continue;
                }
                let (key, version) = (format!("p{n}"), written.fetch_add(1, Ordering::SeqCst));
                match version % 4 {
                    0 => drop(delete(&engine, &key)),
                    1 => create(&engine, &format!("new{version}"), attributes(1, version), version % 8 == 1).expect("created"),
                    _ => drop(change(&engine, &key, Some(attributes(n, version)), (version % 16 == 3).then_some(true))),
                }
            }
        });
        // Whatever is answered meanwhile is right.
        let mut answered = [false; 3];
        while answered != [true; 3] {
            answered = FIELDS.map(|field| ask(&engine, field, people).is_some());
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

#[test]
fn writes_are_in_sealed_lists_that_are_made_meanwhile() {
    writes_during_the_build(&FIELDS, &[]);
}

#[test]
fn writes_are_in_clear_lists_that_are_made_meanwhile() {
    writes_during_the_build(&["email"], &["firstName", "lastName"]);
}

/// Writes that are committed while the background can read nothing.
#[test]
fn writes_before_the_first_piece_are_in_the_lists() {
    let mut home = Home::new(1);
    peopled(&home, 30);
    home.policy.searched = searched(&["email"], &[]);
    let engine = home.open();
    ready(&engine);
    occupy(&engine, || {
        search_by(&engine, searched(&["firstName", "lastName"], &["email"]));
        create(&engine, "new", attributes(1, 7), false).expect("created");
        create(&engine, "gone", attributes(1, 7), false).expect("created");
        for version in 1..4 {
            change(&engine, "p3", Some(attributes(3, version)), None).expect("changed");
            change(&engine, "new", Some(attributes(3, version)), None).expect("changed");
        }
        delete(&engine, "p5").expect("deleted");
        delete(&engine, "gone").expect("deleted");
    });
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

/// All that the store has on disk.
fn bytes(home: &Home) -> Vec<u8> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(home.store_dir()).expect("lists") {
        all.extend(std::fs::read(file.expect("lists").path()).expect("reads"));
    }
    all
}

#[test]
fn what_is_taken_out_of_clear_is_in_no_byte_of_the_store() {
    const CANARY: &str = "canary-among-names";
    let mut home = Home::new(1);
    peopled(&home, PEOPLE);
    home.policy.searched = searched(&FIELDS, &[]);
    let contains = |home: &Home| bytes(home).windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
    // Kept open, declared anew, and changed between two runs.
    for running in [true, false] {
        let engine = home.open();
        for key in ["p3", "p2003"] {
            change(&engine, key, Some(person("", &format!("{CANARY} {key}"), &format!("last {CANARY}"))), None).expect("changed");
        }
        ready(&engine);
        let answers = |engine: &Engine| {
            ready(engine);
            FIELDS.map(|field| pages(engine, &ordered_by(field, true), &mut || 1000).expect("answers"))
        };
        let before = answers(&engine);
        engine.close();
        drop(engine);
        assert!(!contains(&home), "sealed");
        for (place, searched) in [searched(&["email"], &["firstName", "lastName"]), searched(&["email", "firstName"], &["lastName"])]
            .into_iter()
            .chain([searched(&FIELDS, &[])])
            .enumerate()
        {
            let engine = if running {
                let engine = home.open();
                search_by(&engine, searched.clone());
                engine
            } else {
                home.policy.searched = searched.clone();
                home.open()
            };
            assert!(answers(&engine) == before, "{searched:?}");
            assert_lists(&engine);
            engine.close();
            drop(engine);
            home.policy.searched = searched;
            assert_eq!(contains(&home), place < 2, "in clear");
        }
    }
}

/// A field is taken out and named again before its removal from clear came to an end.
#[test]
fn a_removal_from_clear_that_is_called_off_leaves_no_gap() {
    let mut home = Home::new(1);
    peopled(&home, PEOPLE);
    home.policy.searched = searched(&["email", "firstName"], &["lastName"]);
    let engine = home.open();
    ready(&engine);
    let go = hang(&engine);
    search_by(&engine, searched(&FIELDS, &[]));
    wait_until("the first piece of the removal waits", || engine.waiting() == (0, 1));
    search_by(&engine, searched(&["email", "firstName"], &["lastName"]));
    drop(go);
    wait_until("the list is made", || ask(&engine, "lastName", PEOPLE).is_some());
    assert_lists(&engine);
    engine.close();
}

/// The same between two runs: the process in the middle was given other settings, and ended early.
#[test]
fn a_run_with_other_settings_leaves_no_gap() {
    let mut home = Home::new(1);
    peopled(&home, PEOPLE);
    for round in 0..2 * scale() as usize {
        home.policy.searched = searched(&["email", "firstName"], &["lastName"]);
        let engine = home.open();
        wait_until("the list is made", || ask(&engine, "lastName", PEOPLE).is_some());
        assert_lists(&engine);
        engine.close();
        drop(engine);
        home.policy.searched = searched(&FIELDS, &[]);
        let engine = home.open();
        // One piece of the removal, or some more.
        wait_until("some of the removal is done", || {
            let left = engine.read(|read| read.profile_text_count("lastName", "")).expect("reads");
            left as usize <= PEOPLE - 1000 * (round % 2 + 1)
        });
        engine.close();
    }
}

/// A field is taken out and named again, and what was written in between is in its list.
#[test]
fn what_was_written_while_a_field_was_not_in_clear_is_in_its_list() {
    let mut home = Home::new(1);
    peopled(&home, 30);
    home.policy.searched = searched(&["email", "firstName"], &["lastName"]);
    let engine = home.open();
    ready(&engine);
    // Nothing can be read, so that the removal does not begin.
    occupy(&engine, || {
        search_by(&engine, searched(&FIELDS, &[]));
        create(&engine, "new", attributes(1, 7), false).expect("created");
        change(&engine, "p3", Some(attributes(3, 7)), None).expect("changed");
        delete(&engine, "p5").expect("deleted");
        search_by(&engine, searched(&["email", "firstName"], &["lastName"]));
    });
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

/// What is searched changes back and forth under questions and writes.
#[test]
fn an_answer_is_right_while_what_is_searched_changes() {
    let home = Home::new(1);
    peopled(&home, 200);
    let engine = home.open();
    let settings = [
        searched(&["firstName", "lastName"], &[]),
        searched(&["lastName"], &[]),
        searched(&["lastName", "email", "firstName"], &[]),
        searched(&["lastName"], &["firstName"]),
        searched(&["firstName"], &["lastName"]),
        searched(&[], &FIELDS),
    ];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    while !stop.load(Ordering::SeqCst) {
                        answered += ["lastName", "firstName"].into_iter().filter_map(|field| ask(&engine, field, 200)).count();
                    }
                    answered
                })
            })
            .collect();
        // So short that the settings often change in the middle.
        let counting = scope.spawn(|| {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                for field in ["lastName", "firstName"] {
                    match lists::count(&engine, &by_text(&[field], STAYING)) {
                        Ok(counted) => assert_eq!((counted, field), (20, field)),
                        Err(ListError::NotReady) => continue,
                        Err(ListError::Store(error)) => panic!("{error}"),
                    }
                    answered += 1;
                }
            }
            answered
        });
        let writing = scope.spawn(|| {
            let mut version = 0;
            while !stop.load(Ordering::SeqCst) {
                version += 1;
                change(&engine, "p3", Some(attributes(3, version)), None).expect("changed");
            }
        });
        for round in 0..60 * scale() as usize {
            for (place, searched) in settings.iter().enumerate() {
                search_by(&engine, searched.clone());
                // Sometimes it settles, sometimes the next change comes at once.
                if (round + place) % 3 == 0 || counting.is_finished() || asking.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                    ready(&engine);
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
        writing.join().expect("writes");
        for one in asking.into_iter().chain([counting]) {
            assert!(one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) > 0, "nothing was answered");
        }
    });
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

/// Whichever transaction of the background fails, nothing wrong is answered and the lists are made in the end.
#[test]
fn lists_in_clear_are_made_in_spite_of_failures() {
    const FEW: usize = 1100;
    let mut home = Home::new(1);
    peopled(&home, FEW);
    home.policy.searched = searched(&["email"], &["firstName", "lastName"]);
    // Two pieces of the first field and two of the second.
    let commits = (1..=4).flat_map(|n| [Fault::BeforeCommit(n), Fault::AfterCommit(n)]);
    for (seed, fault) in (100..).zip(commits.chain([Fault::Call(1), Fault::Call(1500), Fault::Call(5000)])) {
        let image = Home::image(&home, seed);
        image.plan(Opening::Fails(fault));
        let engine = image.open();
        wait_until("the lists are made", || FIELDS.map(|field| ask(&engine, field, FEW).is_some()) == [true; 3]);
        ready(&engine);
        wait_until("it writes again", || engine.is_durable());
        assert_eq!(image.opened(), 2, "{fault:?} did not come");
        for field in FIELDS {
            assert_eq!(lists::count(&engine, &by_text(&[field], "")).expect("counts"), FEW as u64, "{field}, {fault:?}");
        }
        engine.close();
    }
}

/// Waits until a transaction passes: then memory is what the store says, whatever became of those before.
fn again(engine: &Engine) {
    wait_until("it writes again", || engine.submit_blocking(Lane::Interactive, |_| Ok(Ok(()))).is_ok());
}

/// A write, and whether it was acknowledged.
type Step = fn(&Engine) -> bool;

/// A whole story over lists in clear, in which any call fails.
#[test]
fn lists_in_clear_follow_writes_of_which_any_call_fails() {
    let mut home = Home::new(1);
    home.policy.searched = searched(&["email"], &["firstName", "lastName"]);
    let engine = home.open();
    ready(&engine);
    create(&engine, "p1", person("a@example.com", "a", "b"), false).expect("created");
    engine.close();
    drop(engine);
    let steps: [Step; 4] = [
        |engine| create(engine, "p2", person("b@example.com", "b", "a"), true).is_ok(),
        |engine| change(engine, "p1", Some(person("c@example.com", "c", "b")), Some(true)).is_ok(),
        |engine| delete(engine, "p1").is_ok(),
        |engine| change(engine, "p2", Some(person("", "", "")), None).is_ok(),
    ];
    let (mut seed, mut most) = (1000, [0; 3]);
    for (place, kind) in [Fault::Call, Fault::BeforeCommit, Fault::AfterCommit].into_iter().enumerate() {
        for n in 1.. {
            seed += 1;
            let image = Home::image(&home, seed);
            image.plan(Opening::Fails(kind(n)));
            let engine = image.open();
            ready(&engine);
            for step in steps {
                // What failed may have happened all the same; then there is nothing left to do.
                if !step(&engine) {
                    again(&engine);
                    assert_lists(&engine);
                    step(&engine);
                }
                again(&engine);
                assert_lists(&engine);
            }
            audit(&engine);
            let come = image.opened() > 1;
            engine.close();
            if !come {
                break;
            }
            most[place] = n;
        }
    }
    assert!(most[0] > 50 && most[1] > 4 && most[2] > 4, "{most:?} faults");
}

/// A command that reads and writes in the batch in which a profile was made sees it.
#[test]
fn a_batch_of_changes_to_one_profile_leaves_its_last_values() {
    for (seed, searched) in (1..).zip([searched(&FIELDS, &[]), searched(&[], &FIELDS)]) {
        let mut home = Home::new(seed);
        home.policy.searched = searched;
        let engine = home.open();
        ready(&engine);
        let go = hang(&engine);
        let new = new_profile(&engine, "p1", attributes(1, 0), false);
        assert!(
            engine.submit_and_forget(Lane::Interactive, move |ctx| desist_engine::profiles::create(ctx, &new).map(|done| done.map(drop)))
        );
        for version in 1..5 {
            let engine_too = engine.clone();
            assert!(engine.submit_and_forget(Lane::Interactive, move |ctx| {
                change_in(ctx, &engine_too, "p1", Some(&attributes(1, version)), None).map(|done| done.map(drop))
            }));
        }
        drop(go);
        settle(&engine);
        assert_eq!(value(&all(&engine)[0].attributes, "firstName"), "other4");
        assert_lists(&engine);
        audit(&engine);
        engine.close();
    }
}
