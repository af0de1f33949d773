//! Rate windows, alone.

use desist_core::lane::{Limiter, Rate, RateError};
use desist_core::limits::{RATE_CALLS_MAX, RATE_RESERVE_MAX, RATE_UNSAVED_MS_MAX, RATE_WINDOW_MS_MAX};
use proptest::prelude::*;

use super::world::at;

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

#[test]
fn rates_are_written_as_calls_and_a_window() {
    for (text, calls, window_ms) in [("300/1m", 300, 60_000), ("500/1d", 500, 86_400_000), ("75/1s", 75, 1_000), ("2/24h", 2, 86_400_000)] {
        assert_eq!(rate(text), Rate { calls, window_ms });
    }
    assert_eq!(["300/60s", "2/24h", "3/90s"].map(|text| rate(text).to_string()), ["300/1m", "2/1d", "3/90s"]);
    assert_eq!(rate(&format!("{RATE_CALLS_MAX}/31d")), Rate { calls: RATE_CALLS_MAX, window_ms: RATE_WINDOW_MS_MAX });
    let cases = [
        ("", RateError::Form),
        ("300", RateError::Form),
        ("300/", RateError::Form),
        ("300/m", RateError::Form),
        ("300/1", RateError::Form),
        ("300/1w", RateError::Form),
        ("300/1m/1h", RateError::Form),
        ("-3/1m", RateError::Form),
        ("3 /1m", RateError::Form),
        ("3/+1m", RateError::Form),
        ("3/1\u{e9}", RateError::Form),
        ("0/1m", RateError::Calls),
        ("99999999999999999999/1m", RateError::Calls),
        ("100000001/1m", RateError::Calls),
        ("3/0s", RateError::Window),
        ("3/32d", RateError::Window),
        ("3/99999999999999999999d", RateError::Window),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
    }
}

proptest! {
    /// Calls that leave late, end in another order or never leave; restarts at any moment, from whatever was stored.
    #[test]
    fn no_window_has_more_calls_than_its_rate(
        rates in prop::collection::vec(prop::sample::select(vec!["1/1s", "3/2s", "5/10s", "7/1m", "4/2m", "40/5m", "60/1h"]), 1..4),
        moves in prop::collection::vec((0..7_u8, 0..3_000_u64), 1..400),
    ) {
        let rates: Vec<_> = rates.into_iter().map(rate).collect();
        let mut limiter = Limiter::restore(&rates, None, at(0));
        let (mut now, mut flying, mut starts, mut stored, mut saving) = (0_u64, Vec::new(), Vec::new(), None, None);
        for (what, amount) in moves {
            match what {
                // Mostly: time passes, and whatever may start does. What was never stored did not start either.
                0..=3 => {
                    now += amount;
                    while stored.is_some() && limiter.ready_at(now, false) == Some(now) {
                        limiter.start();
                        flying.push(now);
                    }
                }
                // The oldest call really left some time after it was asked for.
                4 => {
                    if !flying.is_empty() {
                        let asked = flying.remove(amount as usize % flying.len());
                        let left = amount % 5 != 0;
                        let started = asked + (now - asked) * (amount % 3) / 2;
                        if left { starts.push(started); }
                        limiter.finish(left.then_some(started));
                    }
                }
                5 => match saving.take() {
                    None => saving = Some(limiter.save(at(now))),
                    Some(counts) => {
                        stored = Some(counts);
                        limiter.stored(true);
                    }
                },
                // A crash: what was asked for may have left until now.
                _ => {
                    starts.extend(flying.drain(..).map(|asked: u64| asked + (now - asked) * (amount % 3) / 2));
                    saving = None;
                    limiter = Limiter::restore(&rates, stored.as_deref(), at(now));
                }
            }
        }
        starts.extend(flying);
        starts.sort_unstable();
        for rate in rates {
            for window in starts.windows(rate.calls as usize + 1) {
                prop_assert!(window[window.len() - 1] - window[0] >= rate.window_ms, "{rate} in {window:?}");
            }
        }
    }
}

#[test]
fn a_limiter_gives_nearly_the_whole_rate() {
    let mut limiter = Limiter::restore(&[rate("100/10s")], None, at(0));
    let mut calls = 0;
    for now in 0..100_000 {
        while limiter.ready_at(now, false) == Some(now) {
            limiter.start();
            limiter.finish(Some(now));
            calls += 1;
        }
    }
    assert!((960..=1_000).contains(&calls), "{calls} of 1,000");
}

#[test]
fn after_a_restart_a_short_window_is_full_and_a_long_one_costs_what_was_reserved() {
    let (short, long) = (rate("300/1m"), rate("500/1d"));
    assert_eq!(short.window_ms, RATE_UNSAVED_MS_MAX);
    let mut limiter = Limiter::restore(&[long], None, at(0));
    let saved = limiter.save(at(0));
    limiter.stored(true);
    let mut started = 0;
    while limiter.ready_at(0, false) == Some(0) {
        limiter.start();
        started += 1;
    }
    assert_eq!(started, 25, "a twentieth, then the counts have to be stored");
    assert!(limiter.needs_save());
    let mut limiter = Limiter::restore(&[short], Some(&[]), at(0));
    assert_eq!(limiter.ready_at(5, false), Some(60_000));
    let mut limiter = Limiter::restore(&[long], Some(&saved), at(1_000));
    let mut calls = 0;
    loop {
        limiter.save(at(1_000));
        limiter.stored(true);
        if limiter.ready_at(1_000, false) != Some(1_000) {
            break;
        }
        limiter.start();
        limiter.finish(Some(1_000));
        calls += 1;
    }
    assert_eq!(calls, 475);
}

#[test]
fn what_is_reserved_is_bounded() {
    let mut limiter = Limiter::restore(&[rate("100000000/31d")], None, at(0));
    limiter.save(at(0));
    limiter.stored(true);
    let mut started = 0;
    while !limiter.needs_save() {
        limiter.start();
        started += 1;
    }
    assert_eq!(started, RATE_RESERVE_MAX);
}
