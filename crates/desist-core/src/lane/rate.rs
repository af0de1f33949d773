//! How often a destination may be called: never more than N calls in any window of a length.
//!
//! A window is a short queue of slots, a 64th of it long. A call counts until its slot's end is a
//! whole window ago, so the limit holds in every window, at the price of 1.6 % of the rate. A call in
//! flight counts too: when it left is known only once its outcome is.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Now;
use crate::limits::{RATE_CALLS_MAX, RATE_RESERVE_MAX, RATE_UNSAVED_MS_MAX, RATE_WINDOW_MS_MAX};

/// Slots of a window; each holds a count, so the books of a month's quota stay at 1 KB.
const SLOTS: u64 = 64;

/// So many calls in any window of that length, as in `300/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls, from 1 to [`RATE_CALLS_MAX`].
    pub calls: u32,
    /// The window in milliseconds, from 1 second to [`RATE_WINDOW_MS_MAX`].
    pub window_ms: u64,
}

/// Why a text is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not `CALLS/WINDOW`.
    #[error("write it as CALLS/WINDOW, such as \"300/1m\"; the units are s, m, h and d")]
    Form,
    /// No calls at all, or too many.
    #[error("between 1 and {RATE_CALLS_MAX} calls")]
    Calls,
    /// No window, or one that is too long.
    #[error("a window is between 1s and 31d")]
    Window,
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = |digits: &str, outside| match digits.parse::<u64>() {
            _ if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => Err(RateError::Form),
            Ok(number) => Ok(number),
            Err(_) => Err(outside),
        };
        let (calls, window) = text.split_once('/').ok_or(RateError::Form)?;
        let unit = window.chars().last().ok_or(RateError::Form)?;
        let unit_ms = match unit {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return Err(RateError::Form),
        };
        let calls = u32::try_from(number(calls, RateError::Calls)?).map_err(|_| RateError::Calls)?;
        let window_ms = number(&window[..window.len() - 1], RateError::Window)?.saturating_mul(unit_ms);
        if !(1..=RATE_CALLS_MAX).contains(&calls) {
            return Err(RateError::Calls);
        }
        if !(1..=RATE_WINDOW_MS_MAX).contains(&window_ms) {
            return Err(RateError::Window);
        }
        Ok(Self { calls, window_ms })
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, ms) = units.into_iter().find(|(_, ms)| self.window_ms.is_multiple_of(*ms)).unwrap_or(("ms", 1));
        write!(f, "{}/{}{unit}", self.calls, self.window_ms / ms)
    }
}

/// The stored counts of one long window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedWindow {
    /// The window in milliseconds: after a change of the configuration its counts still belong to it.
    pub window_ms: u64,
    /// Calls and when they stop counting, in Unix milliseconds.
    pub slots: Vec<(i64, u32)>,
    /// Calls that were in flight, or may have started since; they count from the restart.
    pub reserved: u32,
}

#[derive(Clone, Debug)]
struct Window {
    rate: Rate,
    /// When calls stop counting, by the monotonic clock, and how many.
    slots: VecDeque<(u64, u32)>,
    used: u32,
}

impl Window {
    fn new(rate: Rate) -> Self {
        Self { rate, slots: VecDeque::new(), used: 0 }
    }

    fn add(&mut self, ends_ms: u64, calls: u32) {
        let at = self.slots.partition_point(|(ends, _)| *ends < ends_ms);
        match self.slots.get_mut(at) {
            Some((ends, count)) if *ends == ends_ms => *count += calls,
            _ => self.slots.insert(at, (ends_ms, calls)),
        }
        self.used += calls;
    }

    fn count(&mut self, started_ms: u64) {
        let slot = (self.rate.window_ms / SLOTS).max(1);
        self.add((started_ms / slot + 1) * slot + self.rate.window_ms, 1);
    }

    fn expire(&mut self, mono_ms: u64) {
        while let Some(&(ends, calls)) = self.slots.front()
            && ends <= mono_ms
        {
            self.used -= calls;
            self.slots.pop_front();
        }
    }

    /// When another call fits beside `in_flight`; `None`: only after an outcome.
    fn free_at(&self, mono_ms: u64, in_flight: u32, limit: u32) -> Option<u64> {
        let mut used = self.used;
        let mut at = mono_ms;
        let mut slots = self.slots.iter();
        while used + in_flight >= limit {
            let (ends, calls) = slots.next()?;
            (used, at) = (used - calls, *ends);
        }
        Some(at)
    }

    fn is_long(&self) -> bool {
        self.rate.window_ms > RATE_UNSAVED_MS_MAX
    }
}

/// All rate windows of a lane.
#[derive(Clone, Debug)]
pub struct Limiter {
    windows: Vec<Window>,
    in_flight: u32,
    /// Calls that may start before the next counts are stored; only long windows need them.
    left: u32,
    /// The same for the counts that are being stored.
    left_pending: Option<u32>,
}

impl Limiter {
    /// The windows as they may be after a restart; with nothing stored nothing was ever sent.
    pub fn restore(rates: &[Rate], saved: Option<&[SavedWindow]>, now: Now) -> Self {
        let mut windows: Vec<_> = rates.iter().copied().map(Window::new).collect();
        for window in &mut windows {
            let (length, Some(saved)) = (window.rate.window_ms, saved) else { continue };
            let Some(stored) = saved.iter().find(|one| window.is_long() && one.window_ms == length) else {
                // Nobody knows how much of it is used.
                window.add(now.mono_ms + length, window.rate.calls);
                continue;
            };
            for (ends, calls) in &stored.slots {
                // A clock that was set back must not keep a slot for longer than a window.
                window.add(now.mono_at(*ends, length + length / SLOTS + 1), *calls);
            }
            window.add(now.mono_ms + length, stored.reserved);
            window.expire(now.mono_ms);
        }
        Self { windows, in_flight: 0, left: 0, left_pending: None }
    }

    fn reserve(&self) -> u32 {
        let long = self.windows.iter().filter(|window| window.is_long());
        // A twentieth, since a crash loses what is reserved.
        long.map(|window| (window.rate.calls / 20).clamp(1, RATE_RESERVE_MAX)).min().unwrap_or(u32::MAX)
    }

    /// Whether a call has to wait for counts to be stored.
    pub fn needs_save(&self) -> bool {
        self.reserve() != u32::MAX && self.left.min(self.left_pending.unwrap_or(u32::MAX)) == 0
    }

    /// When another call may start; `None`: not before an outcome or [`Limiter::stored`]. With `half` it
    /// must leave half of each window to others.
    pub fn ready_at(&mut self, mono_ms: u64, half: bool) -> Option<u64> {
        if self.needs_save() {
            return None;
        }
        let in_flight = self.in_flight;
        self.windows.iter_mut().try_fold(mono_ms, |at, window| {
            window.expire(mono_ms);
            let limit = if half { window.rate.calls.div_ceil(2) } else { window.rate.calls };
            Some(at.max(window.free_at(mono_ms, in_flight, limit)?))
        })
    }

    /// A call may leave from now on.
    pub fn start(&mut self) {
        self.in_flight += 1;
        self.left = self.left.saturating_sub(1);
        self.left_pending = self.left_pending.map(|left| left.saturating_sub(1));
    }

    /// A call ended; `started_ms` is when it left by the monotonic clock, if it did.
    pub fn finish(&mut self, started_ms: Option<u64>) {
        self.in_flight -= 1;
        if let Some(started_ms) = started_ms {
            self.windows.iter_mut().for_each(|window| window.count(started_ms));
        }
    }

    /// The counts to store, with what may start before the next are.
    pub fn save(&mut self, now: Now) -> Vec<SavedWindow> {
        let reserve = self.reserve();
        self.left_pending = Some(reserve);
        let reserved = self.in_flight.saturating_add(reserve);
        let long = self.windows.iter_mut().filter(|window| window.is_long());
        long.map(|window| {
            window.expire(now.mono_ms);
            let slots = window.slots.iter().map(|(ends, calls)| (now.unix_at(*ends), *calls)).collect();
            SavedWindow { window_ms: window.rate.window_ms, slots, reserved: reserved.min(window.rate.calls) }
        })
        .collect()
    }

    /// What [`Limiter::save`] gave is stored, or is not and will not be.
    pub fn stored(&mut self, is_stored: bool) {
        if let Some(left) = self.left_pending.take() {
            // A failed store may still have stored it, so both bounds hold.
            self.left = if is_stored { left } else { self.left.min(left) };
        }
    }
}
