//! What becomes of a target: delivered, held back, parked or a dead letter.

use super::{Change, Kind, Lane, Now, Observed, Parked, Place, RECHECK_MS, RETRY_BASE_MS, Reason, Replay, Target, Waiting, Work};
use crate::limits::{ALLOWS_MAX, DEAD_MAX, PARKED_MAX, RETRY_DELAY_MS_MAX};

impl Lane {
    /// The target's present state is where it belongs, as far as was `observed` (`None`: nothing had to be sent).
    pub(super) fn resolve(&mut self, now: Now, target: Target, observed: Option<Observed>) {
        let Some(work) = self.finish(now, target) else { return };
        self.close(work.change.seq);
        self.unpark(target);
        if let Some(observed) = observed {
            self.last_success_unix_ms = Some(now.unix_ms);
            self.observe(target, observed);
        }
    }

    /// Notes what is known of a target now.
    pub(super) fn observe(&mut self, target: Target, observed: Observed) {
        let is_at_floor = matches!(observed, Observed::At(level) if level >= self.books.head.floor);
        self.dirty.levels.extend(self.books.levels.set(target, (!is_at_floor).then_some(observed)));
    }

    /// Takes a target out of work, unless it has to be said again.
    pub(super) fn finish(&mut self, now: Now, target: Target) -> Option<Work> {
        let work = self.work.get(&target).copied()?;
        if work.again {
            self.add(now, Work { kind: Kind::Fresh, place: Place::Ready, again: false, attempts: 0, sent: false, ..work });
            return None;
        }
        self.unqueue(target);
        self.work.remove(&target);
        self.leave_rounds(target);
        if !self.doubts.contains_key(&target) && !self.pending.contains_key(&target) {
            self.allow_is_over(target);
        }
        Some(work)
    }

    /// The target was refused: it is tried again later, or is a dead letter.
    pub(super) fn park(&mut self, now: Now, target: Target, reason: Reason, is_retryable: bool, sent: bool) {
        let Some(work) = self.work.get(&target).copied() else { return };
        let attempts = if reason == Reason::Drift { 0 } else { work.attempts + 1 };
        let is_dead = !is_retryable || attempts >= self.config.attempts_max;
        let wait_ms = if reason == Reason::Drift { 0 } else { self.jitter(target.0, attempts, RETRY_BASE_MS, self.config.retry_delay_ms) };
        if !work.again && !self.has_room(target, is_dead) {
            // It stays in the window, so the cursor stays before it.
            self.work.insert(target, Work { attempts: attempts.min(self.config.attempts_max - 1), ..work });
            self.put(now, target, Place::Later(now.mono_ms + wait_ms.max(RECHECK_MS)));
            return;
        }
        let Some(work) = self.finish(now, target) else { return };
        let before = self.unpark(target);
        let Change { seq, since_unix_ms, due_unix_ms, rank, .. } = work.change;
        let parked = Parked {
            seq,
            since_unix_ms,
            due_unix_ms,
            rank,
            attempts,
            reason,
            retry_unix_ms: (!is_dead).then(|| now.unix_at(now.mono_ms + wait_ms)),
            sent: sent || work.sent,
            drift: reason == Reason::Drift || before.is_some_and(|before| before.drift),
        };
        self.close(seq);
        self.books.parked.insert(target, parked);
        self.dirty.parked.insert(target);
        self.index_parked(now, target);
    }

    /// Says it again, also if this life ends before: the end of a job is nowhere else in the books.
    pub(super) fn park_again(&mut self, now: Now, target: Target) {
        let is_behind_cursor = |work: &Work| self.entries.get(&work.change.seq).is_some_and(Option::is_some);
        let is_kept = self.books.parked.contains_key(&target) || self.work.get(&target).is_some_and(is_behind_cursor);
        if is_kept || self.pending.contains_key(&target) {
            return;
        }
        if !self.has_room(target, false) {
            return self.certain(now, target, true);
        }
        let parked = Parked {
            seq: 0,
            since_unix_ms: now.unix_ms,
            due_unix_ms: now.unix_ms,
            rank: 0,
            attempts: 0,
            reason: Reason::Undone,
            retry_unix_ms: Some(now.unix_ms),
            sent: false,
            drift: false,
        };
        self.books.parked.insert(target, parked);
        self.dirty.parked.insert(target);
        self.index_parked(now, target);
    }

    /// A target that its job did not deliver, which may not be its own fault: it is sent again, and no attempt is counted.
    pub(super) fn park_unheard(&mut self, now: Now, target: Target, waiting: Waiting, reason: Reason) {
        let Waiting { seq, since_unix_ms, due_unix_ms, rank, attempts } = waiting;
        let retry_unix_ms = Some(now.unix_ms);
        let parked = Parked { seq, since_unix_ms, due_unix_ms, rank, attempts, reason, retry_unix_ms, sent: true, drift: false };
        self.books.parked.insert(target, parked);
        self.dirty.parked.insert(target);
        self.index_parked(now, target);
    }

    pub(super) fn index_parked(&mut self, now: Now, target: Target) {
        let parked = self.books.parked[&target];
        self.drifted += usize::from(parked.drift);
        match parked.retry_unix_ms {
            Some(at) => {
                let at = now.mono_at(at, RETRY_DELAY_MS_MAX);
                self.retry_times.insert(target, at);
                self.parked_by_retry.insert((at, target));
            }
            None => self.dead += 1,
        }
    }

    pub(super) fn unpark(&mut self, target: Target) -> Option<Parked> {
        let parked = self.books.parked.remove(&target)?;
        self.dirty.parked.insert(target);
        self.drifted -= usize::from(parked.drift);
        self.dead -= usize::from(parked.retry_unix_ms.is_none());
        if let Some(at) = self.retry_times.remove(&target) {
            self.parked_by_retry.remove(&(at, target));
        }
        Some(parked)
    }

    pub(super) fn has_room(&self, target: Target, is_dead: bool) -> bool {
        let is_retried = self.books.parked.get(&target).map(|parked| parked.retry_unix_ms.is_some());
        let retried = self.books.parked.len() - self.dead;
        if is_dead { self.dead < DEAD_MAX } else { retried < PARKED_MAX || is_retried == Some(true) }
    }

    /// Whether too much is parked to take more from the feed.
    pub(super) fn is_stopped(&self) -> bool {
        self.dead >= DEAD_MAX || self.books.parked.len() - self.dead >= PARKED_MAX
    }

    pub(super) fn replay(&mut self, now: Now, which: Replay) -> usize {
        let is_meant = |target: &Target, parked: &Parked| match which {
            Replay::One(one) => one == *target,
            Replay::Range(from, to) => (from..=to).contains(&parked.seq),
            Replay::All => true,
        };
        let room = PARKED_MAX.saturating_sub(self.books.parked.len() - self.dead);
        let dead = self.books.parked.iter().filter(|(target, parked)| parked.retry_unix_ms.is_none() && is_meant(target, parked));
        let chosen: Vec<_> = dead.map(|(target, _)| *target).take(room).collect();
        for target in &chosen {
            if let Some(parked) = self.unpark(*target) {
                self.books.parked.insert(*target, Parked { attempts: 0, retry_unix_ms: Some(now.unix_ms), ..parked });
                self.index_parked(now, *target);
            }
        }
        chosen.len()
    }

    /// An *allow* that may not be sent yet waits for what it has to wait for.
    pub(super) fn hold(&mut self, now: Now, target: Target) {
        let Some(work) = self.work.get_mut(&target) else { return };
        if work.again {
            work.again = false;
            work.attempts = 0;
            self.put(now, target, Place::Ready);
            return;
        }
        let doubt = self.doubts.get(&target).map_or(0, |doubt| doubt.until_ms);
        let until_ms = doubt.max(self.quiet_until_ms);
        if self.pending.contains_key(&target) {
            self.set_aside(now, target);
        } else if until_ms > now.mono_ms {
            self.put(now, target, Place::Later(until_ms));
        } else if self.allows_stored.contains(&target) {
            self.put(now, target, Place::Ready);
        } else if self.books.allows.contains(&target) || self.books.allows.len() < ALLOWS_MAX {
            self.books.allows.insert(target);
            self.dirty.allows.insert(target);
            if !self.save_failed {
                self.save_at_ms = now.mono_ms;
            }
            self.put(now, target, Place::Storing);
        } else {
            self.set_aside(now, target);
        }
    }

    /// An *allow* may have to wait for days, for a job or for room among the *allows*: as an exception, so that the
    /// cursor moves on. Such exceptions alone never fill the room for what is parked; more of them wait in the window.
    fn set_aside(&mut self, now: Now, target: Target) {
        let retried = self.books.parked.len() - self.dead;
        if let Some(Work { kind: Kind::Fresh, change, attempts, sent, .. }) = self.work.get(&target).copied()
            && retried < PARKED_MAX / 2
            && !self.books.parked.contains_key(&target)
        {
            let Change { seq, since_unix_ms, due_unix_ms, rank, .. } = change;
            let (reason, retry_unix_ms) = (Reason::Waiting, Some(now.unix_ms));
            let parked = Parked { seq, since_unix_ms, due_unix_ms, rank, attempts, reason, retry_unix_ms, sent, drift: false };
            self.close(seq);
            self.books.parked.insert(target, parked);
            self.dirty.parked.insert(target);
            self.index_parked(now, target);
            self.unqueue(target);
            self.add(now, Work { kind: Kind::Retry, place: Place::Flight, change, attempts, sent, again: false });
        }
        self.put(now, target, Place::Later(now.mono_ms + RECHECK_MS));
    }

    pub(super) fn may_allow(&self, now: Now, target: Target) -> bool {
        self.allows_stored.contains(&target)
            && now.mono_ms >= self.quiet_until_ms
            && !self.doubts.contains_key(&target)
            && !self.pending.contains_key(&target)
    }
}
