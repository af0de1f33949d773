//! The queue and the writer: who goes first, what a full lane says, what survives a panic.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use desist_core::fact::{Actor, Fact};
use desist_core::limits::NAMED_MAX;
use desist_core::purpose::PurposeSet;
use desist_core::rules::Refused;
use desist_engine::engine::{Engine, Failure, Refusal};
use desist_engine::intake::{self, ImportChunk};
use desist_engine::queue::{LANE_MAX, Lane};
use tokio::runtime::Builder;

use crate::support::{Home, audit, email, facts_after, hang, is_alarm, is_denied, log, opt_in, opt_out, settle, submit};

fn wait_for(engine: &Engine, waiting: (usize, usize)) {
    while engine.waiting() != waiting {
        std::thread::yield_now();
    }
}

#[test]
fn a_caller_that_goes_away_does_not_undo_its_command() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    let go = hang(&engine);
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let gone = runtime.block_on(async {
        let command = engine.submit(Lane::Interactive, move |ctx| intake::request(ctx, &opt_out(vec![rosa])));
        tokio::time::timeout(Duration::from_millis(1), command).await
    });
    assert!(gone.is_err(), "the writer hangs");
    drop(go);
    settle(&engine);
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    audit(&engine);
    engine.close();
}

#[test]
fn people_go_before_files() {
    let home = Home::new(1);
    let engine = home.open();
    let go = hang(&engine);
    for n in 0..200 {
        let person = email(&engine, &format!("row{n}@example.com"));
        let chunk = ImportChunk {
            import: [1; 32],
            first_row: n,
            rows: 1,
            people: vec![vec![person]],
            given: Vec::new(),
            purposes: PurposeSet::OPT_OUT_DEFAULT,
            acted_at: None,
            last: n == 199,
            by: Actor::Local,
        };
        assert!(engine.submit_and_forget(Lane::Bulk, move |ctx| intake::import(ctx, &chunk).map(|outcome| outcome.map(drop))));
    }
    let person = {
        let engine = engine.clone();
        std::thread::spawn(move || submit(&engine, opt_out(vec![email(&engine, "rosa@example.com")])))
    };
    wait_for(&engine, (1, 200));
    drop(go);
    let accepted = person.join().expect("answered").expect("taken");
    assert!(accepted.seq <= 6, "it waited behind {} rows", accepted.seq);
    settle(&engine);
    assert_eq!(facts_after(&engine, 0).len(), 203, "the log's beginning, 201 opt-outs, and the file's end");
    audit(&engine);
    engine.close();
}

#[test]
fn a_full_lane_says_so_and_the_other_goes_on() {
    let home = Home::new(1);
    let engine = home.open();
    let go = hang(&engine);
    for n in 0..=LANE_MAX {
        assert_eq!(engine.submit_and_forget(Lane::Bulk, |_| Ok(Ok(()))), n < LANE_MAX, "{n}");
    }
    assert_eq!(engine.submit_blocking(Lane::Bulk, |_| Ok(Ok(()))), Err(Failure::Busy));
    assert!(engine.submit_and_forget(Lane::Interactive, |_| Ok(Ok(()))));
    assert_eq!(engine.waiting(), (1, LANE_MAX));
    drop(go);
    settle(&engine);
    assert_eq!(engine.waiting(), (0, 0));
    engine.close();
}

#[test]
fn closing_finishes_what_waits() {
    let home = Home::new(1);
    let engine = home.open();
    let go = hang(&engine);
    for n in 0..60 {
        let new = opt_out(vec![email(&engine, &format!("{n}@example.com"))]);
        let lane = if n % 2 == 0 { Lane::Interactive } else { Lane::Bulk };
        assert!(engine.submit_and_forget(lane, move |ctx| intake::request(ctx, &new).map(|outcome| outcome.map(drop))));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| engine.close());
        drop(go);
    });
    assert_eq!(submit(&engine, opt_out(vec![email(&engine, "late@example.com")])), Err(Failure::Busy));
    drop(engine);
    let engine = home.open();
    for n in 0..60 {
        assert!(is_denied(&engine, PurposeSet::SALE, &[email(&engine, &format!("{n}@example.com"))]), "{n}");
    }
    assert_eq!(facts_after(&engine, 0).len(), 61);
    audit(&engine);
    engine.close();
}

#[test]
fn decisions_do_not_wait_for_the_writer() {
    let home = Home::new(1);
    let engine = home.open();
    let rosa = email(&engine, "rosa@example.com");
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    let go = hang(&engine);
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    assert!(!is_denied(&engine, PurposeSet::SALE, &[email(&engine, "vega@example.com")]));
    audit(&engine);
    drop(go);
    engine.close();
}

#[test]
fn a_refusal_undoes_its_own_changes_only() {
    let home = Home::new(1);
    let engine = home.open();
    let [rosa, vega] = ["rosa@example.com", "vega@example.com"].map(|one| email(&engine, one));
    let go = hang(&engine);
    let mut answers = Vec::new();
    for new in [opt_out(vec![rosa]), opt_out(Vec::new()), opt_in(vec![rosa, vega], PurposeSet::SALE), opt_out(vec![vega])] {
        let other = engine.clone();
        let waiting = engine.waiting().0;
        answers.push(std::thread::spawn(move || submit(&other, new)));
        wait_for(&engine, (waiting + 1, 0));
    }
    drop(go);
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.join().expect("answered").is_ok()).collect();
    assert_eq!(answers, [true, false, false, true]);
    assert_eq!(facts_after(&engine, 0), ["log_opened", "opted_out", "opted_out"]);
    audit(&engine);
    engine.close();
}

#[test]
fn a_refused_piece_of_a_file_leaves_nothing_behind() {
    let home = Home::new(1);
    let engine = home.open();
    let too_many = (0..=NAMED_MAX).map(|n| email(&engine, &format!("{n}@example.com"))).collect();
    let people = vec![vec![email(&engine, "rosa@example.com")], too_many];
    let chunk = ImportChunk {
        import: [1; 32],
        first_row: 0,
        rows: 2,
        people,
        given: Vec::new(),
        purposes: PurposeSet::OPT_OUT_DEFAULT,
        acted_at: None,
        last: true,
        by: Actor::Local,
    };
    let refused = engine.submit_blocking(Lane::Bulk, move |ctx| intake::import(ctx, &chunk));
    assert!(matches!(refused, Err(Failure::Refused(Refusal::Rules(Refused::TooManyNamed)))), "{refused:?}");
    assert_eq!(facts_after(&engine, 0), ["log_opened"]);
    audit(&engine);
    engine.close();
}

/// Everything that any test of this program logs.
struct Captured(Mutex<String>);

impl tracing::Subscriber for &'static Captured {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        use std::fmt::Write as _;
        let mut text = self.0.lock().expect("whole");
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            writeln!(text, "{field}: {value:?}").expect("a String takes it");
        });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_panic_fails_its_batch_and_nothing_else() {
    static CAPTURED: OnceLock<Captured> = OnceLock::new();
    let captured = CAPTURED.get_or_init(|| Captured(Mutex::default()));
    tracing::subscriber::set_global_default(captured).expect("the only one");
    let home = Home::new(1);
    let engine = home.open();
    let [rosa, vega] = ["rosa@example.com", "vega@example.com"].map(|one| email(&engine, one));
    submit(&engine, opt_out(vec![rosa])).expect("taken");
    let go = hang(&engine);
    let mut innocent = Vec::new();
    for (n, panics) in [false, true, false].into_iter().enumerate() {
        let other = engine.clone();
        innocent.push(std::thread::spawn(move || {
            other.submit_blocking(Lane::Interactive, move |ctx| {
                let outcome = intake::request(ctx, &opt_out(vec![vega]))?;
                assert!(!panics, "the payload quotes quinn@example.com");
                Ok(outcome)
            })
        }));
        wait_for(&engine, (n + 1, 0));
    }
    drop(go);
    for answer in innocent {
        assert_eq!(answer.join().expect("answered"), Err(Failure::NotDurable));
    }
    submit(&engine, opt_out(vec![vega])).expect("it goes on");
    assert!(engine.is_durable() && is_denied(&engine, PurposeSet::SALE, &[rosa]) && is_denied(&engine, PurposeSet::SALE, &[vega]));
    assert_eq!(facts_after(&engine, 0), ["log_opened", "opted_out", "opted_out"]);
    assert!(log(&engine).iter().any(|entry| matches!(entry.fact, Fact::AlarmRaised { .. }) && is_alarm(&entry.fact)));
    audit(&engine);
    engine.close();
    let logged = captured.0.lock().expect("whole");
    assert!(logged.contains("a command panicked"), "{logged}");
    assert!(!logged.contains("quinn"), "{logged}");
}
