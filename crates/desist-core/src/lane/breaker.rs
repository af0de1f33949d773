//! Whether the destination fails, or some of its targets do.

use super::{BREAKER_BASE_MS, Breaker, Failure, Flight, Group, Kind, Lane, Now, Place, Reason, Target, Work};
use crate::limits::{ALONE_MAX, BREAKER_DELAY_MS_MAX, RETRY_AFTER_MS_MAX};

impl Lane {
    /// A call was taken: the destination works, so whoever failed since the last one is the cause.
    pub(super) fn pass(&mut self, now: Now) {
        if self.breaker.take().is_some() {
            self.dirty.head = true;
        }
        self.fails = 0;
        for group in self.calls.values_mut().filter_map(|flight| flight.group.as_mut()).filter(|group| group.unjudged) {
            (group.unjudged, group.suspect) = (false, true);
        }
        let judged: Vec<_> = self.groups.iter().filter(|(_, group)| group.unjudged).map(|(key, _)| *key).collect();
        for key in judged {
            let Some(mut group) = self.groups.remove(&key) else { continue };
            (group.unjudged, group.suspect) = (false, true);
            if group.targets.len() > 1 {
                self.split(now, group);
                continue;
            }
            group.alone += 1;
            if group.alone >= ALONE_MAX {
                for target in group.targets {
                    self.park(now, target, Reason::FailsAlone, true, false);
                    // If it is still there it changed, or there was no room; it is no group any more.
                    self.ungroup(now, target);
                }
            } else {
                self.regroup(now, group);
            }
        }
    }

    pub(super) fn ungroup(&mut self, now: Now, target: Target) {
        if self.work.get(&target).is_some_and(|work| work.place == Place::Group) {
            self.put(now, target, Place::Ready);
        }
    }

    pub(super) fn add_group(&mut self, now: Now, at_ms: u64, group: Group) {
        for target in &group.targets {
            self.put(now, *target, Place::Group);
            if matches!(self.work.get(target), Some(Work { kind: Kind::Patrol(_), .. })) {
                self.leave_rounds(*target);
            }
            if let Some(work) = self.work.get_mut(target) {
                // It will be rendered again, so whatever changed meanwhile is in it. What a patrol could not send
                // again is no patrol's matter any more.
                work.again = false;
                work.kind = if work.kind == Kind::Retry { Kind::Retry } else { Kind::Fresh };
            }
        }
        self.next_group += 1;
        self.groups.insert((at_ms, self.next_group), group);
    }

    /// Sends a suspicious group again, after a while.
    pub(super) fn regroup(&mut self, now: Now, mut group: Group) {
        group.tries += 1;
        let salt = group.targets.first().map_or(0, |target| target.0);
        let wait_ms = self.jitter(salt, group.tries, BREAKER_BASE_MS, BREAKER_DELAY_MS_MAX);
        self.add_group(now, now.mono_ms + wait_ms, group);
    }

    pub(super) fn split(&mut self, now: Now, mut group: Group) {
        group.tries = 0;
        if group.targets.len() < 2 {
            return self.add_group(now, now.mono_ms, group);
        }
        let other = group.targets.split_off(group.targets.len() / 2);
        let other = Group { targets: other, ..group.clone() };
        for half in [group, other] {
            self.add_group(now, now.mono_ms, half);
        }
    }

    /// The destination failed for a call.
    pub(super) fn failed(&mut self, now: Now, flight: Flight, started: bool, failure: Failure, retry_after_ms: Option<u64>) {
        let mut group = flight.group.unwrap_or_default();
        group.targets = flight.targets;
        for target in &group.targets {
            if let Some(work) = self.work.get_mut(target) {
                work.sent = !work.again && (started || work.sent);
            }
        }
        // Others passed since this group failed last, so it says nothing about the destination.
        let is_known = group.suspect && !group.unjudged;
        if !is_known || failure == Failure::Throttled {
            self.open(now, failure, retry_after_ms);
        }
        // To be asked for less is nobody's fault.
        group.unjudged = failure != Failure::Throttled;
        if is_known {
            self.regroup(now, group);
        } else {
            let at_ms = self.breaker.map_or(now.mono_ms, |breaker| breaker.until_ms);
            self.add_group(now, at_ms, group);
        }
    }

    pub(super) fn open(&mut self, now: Now, failure: Failure, retry_after_ms: Option<u64>) {
        let is_open = self.breaker.is_some_and(|breaker| breaker.until_ms > now.mono_ms);
        if !is_open {
            self.fails = self.fails.saturating_add(1);
        }
        let wait_ms = match retry_after_ms {
            Some(asked) => asked.clamp(BREAKER_BASE_MS, RETRY_AFTER_MS_MAX),
            None => self.jitter(u64::MAX, self.fails, BREAKER_BASE_MS, BREAKER_DELAY_MS_MAX),
        };
        let until_ms = self.breaker.map_or(0, |breaker| breaker.until_ms).max(now.mono_ms + wait_ms);
        self.breaker = Some(Breaker { until_ms, failure });
        self.dirty.head = true;
    }

    /// Full jitter: any delay up to the exponential one, but never none.
    pub(super) fn jitter(&self, salt: u64, attempt: u32, base_ms: u64, most_ms: u64) -> u64 {
        let longest = base_ms.saturating_mul(1 << attempt.saturating_sub(1).min(40)).min(most_ms).max(1);
        // `SplitMix64`: lanes and targets that failed together do not come back together.
        let mut z = self.config.seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(attempt) << 48) ^ self.next_call;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + (z ^ (z >> 31)) % longest
    }
}
