//! Which call is next, and what its end means.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Call, Change, Doubt, Errand, Failure, Flight, Group, Job, Kind, Lane, Level, Now, Observed, Outcome, Page, Parked, PatrolKind,
    Place, RECHECK_MS, Reason, Report, Round, Sending, Target, Waiting, Work,
};
use crate::limits::{AHEAD_MAX, ALONE_MAX, FETCH_MAX, JOB_HANDLE_BYTES_MAX, PATROL_TRIES_MAX, PENDING_MAX};

/// Full batches that pass before a batch that was too large grows again by an eighth.
const GROW_AFTER: u32 = 16;
/// Of so many calls one is a patrol's if the patrol is late, however much else there is to send.
const PATROL_TURN: u64 = 16;
/// Targets that a patrol reads from the store at once, if its batches are smaller.
const PATROL_PAGE: usize = 100;

impl Lane {
    pub(super) fn send(&mut self, now: Now, out: &mut Vec<Action>) {
        loop {
            // Strictly: a request that starts now ends before somebody else can have the lease.
            let Some(start_before_ms) = self.lease.map(|(_, until)| until.saturating_sub(self.config.request_timeout_ms)) else { return };
            let is_stopped = !self.stored || self.draining || self.books.head.paused_unix_ms.is_some();
            if is_stopped || now.mono_ms >= start_before_ms || self.calls.len() >= self.config.concurrency {
                return;
            }
            if self.breaker.is_some_and(|breaker| breaker.until_ms > now.mono_ms) {
                return;
            }
            let is_free = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ms);
            if !is_free(self.limiter.ready_at(now.mono_ms, false)) {
                return;
            }
            let half = is_free(self.limiter.ready_at(now.mono_ms, true));
            let Some(flight) = self.pick(now, half) else { return };
            self.next_call += 1;
            self.turn += 1;
            self.limiter.start();
            let call = Call(self.next_call);
            if let Some(trial) = flight.trial {
                self.trials[trial] = true;
            }
            out.push(match flight.errand {
                Errand::Send => Action::Send { call, targets: self.depart(now, &flight), start_before_ms },
                Errand::Check(_) => {
                    self.depart(now, &flight);
                    Action::Check { call, targets: flight.targets.clone(), start_before_ms }
                }
                Errand::Poll(number) => Action::Poll { call, handle: self.books.jobs[&number].handle.clone(), start_before_ms },
                Errand::Probe => Action::Probe { call, start_before_ms },
            });
            self.calls.insert(call, flight);
        }
    }

    /// Marks the targets of a call as under way.
    fn depart(&mut self, now: Now, flight: &Flight) -> Vec<Sending> {
        let is_send = matches!(flight.errand, Errand::Send);
        let mut sendings = Vec::with_capacity(flight.targets.len());
        for target in &flight.targets {
            self.unqueue(*target);
            let may_allow = self.may_allow(now, *target);
            if let Some(work) = self.work.get_mut(target) {
                work.place = Place::Flight;
                // Something earlier may still arrive after this and undo it.
                if let Some(doubt) = self.doubts.get_mut(target)
                    && is_send
                {
                    doubt.redo |= self.books.allows.contains(target) || work.change.seq > doubt.seq;
                }
            }
            if is_send {
                self.supersede(*target);
            }
            sendings.push(Sending { target: *target, may_allow });
        }
        sendings
    }

    fn pick(&mut self, now: Now, half: bool) -> Option<Flight> {
        if self.breaker.is_some() {
            return self.pick_trial(now);
        }
        let late = (0..self.rounds.len()).find(|patrol| self.is_late(now, *patrol));
        if late.is_some()
            && self.turn.is_multiple_of(PATROL_TURN)
            && let Some(flight) = self.pick_patrol(late)
        {
            return Some(flight);
        }
        // In turn, so that neither a backlog nor what fails again and again nor questions after jobs are all that is sent.
        for at in 0..4 {
            let picked = match (self.turn + at) % 4 {
                0 => self.pick_fresh(now, self.batch),
                1 => self.pick_group(now),
                2 => self.pick_retries(self.batch),
                _ => self.pick_poll(now),
            };
            if picked.is_some() {
                return picked;
            }
        }
        // The rest of a window is for what changes next.
        if half { self.pick_patrol(None) } else { None }
    }

    /// A half-open breaker tries whom the destination failed for, and one other.
    fn pick_trial(&mut self, now: Now) -> Option<Flight> {
        // One call at a time must not always be the one that fails.
        let order = if self.fails.is_multiple_of(2) { [1, 0] } else { [0, 1] };
        for trial in order.into_iter().filter(|trial| !self.trials[*trial]).collect::<Vec<_>>() {
            let picked = if trial == 0 {
                self.pick_group(now)
            } else {
                let one = self.pick_fresh(now, 1).or_else(|| self.pick_retries(1));
                let probe = || self.config.probe.then(|| flight(Errand::Probe, Vec::new()));
                one.or_else(probe).or_else(|| self.pick_poll(now)).or_else(|| self.pick_patrol(None))
            };
            if let Some(flight) = picked {
                return Some(Flight { trial: Some(trial), ..flight });
            }
        }
        None
    }

    fn pick_poll(&mut self, now: Now) -> Option<Flight> {
        let (at, number) = *self.polls.first()?;
        (at <= now.mono_ms).then(|| {
            self.polls.pop_first();
            flight(Errand::Poll(number), Vec::new())
        })
    }

    fn pick_fresh(&mut self, now: Now, most: usize) -> Option<Flight> {
        let is_full = self.fresh.len() >= most;
        let waited = self.lingering_ms.is_none_or(|since| since + self.config.linger_ms <= now.mono_ms);
        if self.is_stopped() || self.fresh.is_empty() || self.pending.len() >= PENDING_MAX || !(is_full || waited) {
            return None;
        }
        let mut targets = Vec::new();
        if self.gaps >= AHEAD_MAX {
            // Too many were sent before their turn to remember all of them: the oldest first.
            let ready = |target: &Target| self.work.get(target).is_some_and(|work| work.place == Place::Ready && work.kind == Kind::Fresh);
            targets.extend(self.entries.values().flatten().copied().filter(ready).take(most));
        }
        if targets.is_empty() {
            targets.extend(self.fresh.iter().take(most).map(|urgency| urgency.3));
        }
        self.lingering_ms = (targets.len() < self.fresh.len()).then_some(now.mono_ms);
        Some(flight(Errand::Send, targets))
    }

    fn pick_retries(&mut self, most: usize) -> Option<Flight> {
        let first = self.retries.first()?.3;
        let is_alone = |lane: &Self, target: Target| lane.books.parked.get(&target).is_some_and(|one| one.reason == Reason::FailsAlone);
        if is_alone(self, first) {
            // It made the destination fail before: if it does again that says nothing about the destination.
            self.retries.pop_first();
            let group = Group { suspect: true, alone: ALONE_MAX - 1, ..Group::default() };
            if let Some(work) = self.work.get_mut(&first) {
                work.place = Place::Group;
            }
            return Some(Flight { group: Some(group), ..flight(Errand::Send, vec![first]) });
        }
        let targets = self.retries.iter().map(|urgency| urgency.3).filter(|target| !is_alone(self, *target)).take(most).collect();
        Some(flight(Errand::Send, targets))
    }

    fn pick_group(&mut self, now: Now) -> Option<Flight> {
        let entry = self.groups.first_entry().filter(|entry| entry.key().0 <= now.mono_ms)?;
        let mut group = entry.remove();
        let targets = std::mem::take(&mut group.targets);
        Some(Flight { group: Some(group), ..flight(Errand::Send, targets) })
    }

    fn pick_patrol(&mut self, only: Option<usize>) -> Option<Flight> {
        let patrol = only.or_else(|| self.patrolling.first().map(|(patrol, _)| *patrol))?;
        let most = self.batch;
        let targets: Vec<_> =
            self.patrolling.range((patrol, Target(0))..=(patrol, Target(u64::MAX))).take(most).map(|(_, target)| *target).collect();
        let errand = match self.config.patrols[patrol].kind {
            PatrolKind::Read => Errand::Check(patrol),
            PatrolKind::Send => Errand::Send,
        };
        (!targets.is_empty()).then(|| flight(errand, targets))
    }

    // Ends of calls.

    pub(super) fn ended(&mut self, now: Now, call: Call, started_ms: Option<u64>, outcome: Outcome, reports: &[(Target, Report)]) {
        // An answer to a call that is not there says nothing.
        let Some(mut flight) = self.calls.remove(&call) else { return };
        self.limiter.finish(started_ms);
        if let Some(trial) = flight.trial {
            self.trials[trial] = false;
        }
        let reports: BTreeMap<Target, Report> = reports.iter().copied().collect();
        match flight.errand {
            Errand::Poll(number) => {
                self.judge_errand(now, started_ms.is_some(), &outcome, false);
                self.polled(now, number, &outcome, &reports);
            }
            Errand::Check(patrol) => {
                self.judge_errand(now, started_ms.is_some(), &outcome, false);
                self.checked(now, patrol, &flight.targets, &outcome, &reports);
            }
            Errand::Probe => self.judge_errand(now, started_ms.is_some(), &outcome, true),
            Errand::Send => {
                flight.targets.retain(|target| match reports.get(target) {
                    Some(Report::Nothing) => {
                        self.resolve(now, *target, None);
                        false
                    }
                    Some(Report::Unreachable) => {
                        self.unreachable += 1;
                        self.resolve(now, *target, None);
                        false
                    }
                    Some(Report::Held) => {
                        self.hold(now, *target);
                        false
                    }
                    _ => true,
                });
                self.sent(now, flight, started_ms.is_some(), outcome, &reports);
            }
        }
    }

    /// What the end of a call that delivers nothing says about the destination. One that fails on its own does
    /// not stop deliveries.
    fn judge_errand(&mut self, now: Now, started: bool, outcome: &Outcome, is_probe: bool) {
        match outcome {
            Outcome::Failed { failure, retry_after_ms } => {
                let says_something = is_probe || self.breaker.is_some() || *failure == Failure::Throttled;
                says_something.then(|| self.open(now, *failure, *retry_after_ms));
            }
            _ if started => self.pass(now),
            _ => {}
        }
    }

    fn sent(&mut self, now: Now, mut flight: Flight, started: bool, outcome: Outcome, reports: &BTreeMap<Target, Report>) {
        if started && !matches!(outcome, Outcome::Failed { .. }) {
            self.pass(now);
        }
        if flight.targets.is_empty() {
            return;
        }
        match outcome {
            Outcome::Ok(level) => {
                let is_full = flight.targets.len() >= self.batch;
                for target in flight.targets {
                    self.told(now, target, level, reports.get(&target));
                }
                if self.batch < self.config.batch_items && is_full {
                    self.full_batches += 1;
                    if self.full_batches >= GROW_AFTER {
                        (self.batch, self.full_batches) = ((self.batch + self.batch.div_ceil(8)).min(self.config.batch_items), 0);
                    }
                }
            }
            Outcome::Job(handle) => self.job(now, flight.targets, handle, reports),
            Outcome::SomeFailed { is_retryable, code } => self.divide(now, flight, Reason::Item(code), is_retryable, true),
            Outcome::Rejected { is_retryable, code } => self.divide(now, flight, Reason::Rejected(code), is_retryable, true),
            Outcome::TooLarge => {
                self.batch = self.batch.min((flight.targets.len() / 2).max(1));
                self.full_batches = 0;
                self.divide(now, flight, Reason::TooLarge, false, started);
            }
            Outcome::NotSent | Outcome::Pending => {
                let group = flight.group.take().map(|group| Group { targets: std::mem::take(&mut flight.targets), ..group });
                match group {
                    Some(group) => self.add_group(now, now.mono_ms + RECHECK_MS, group),
                    None => flight.targets.into_iter().for_each(|target| self.back(now, target)),
                }
            }
            Outcome::Failed { failure, retry_after_ms } => {
                if failure == Failure::Ambiguous {
                    let until_ms = now.mono_ms + self.config.request_timeout_ms;
                    for target in &flight.targets {
                        let seq = self.work.get(target).map_or(0, |work| work.change.seq);
                        let again = self.work.get(target).is_some_and(|work| work.again);
                        let seq = if again { 0 } else { seq };
                        let redo = self.doubts.get(target).is_some_and(|doubt| doubt.redo);
                        self.doubts.insert(*target, Doubt { until_ms, seq, redo });
                        self.doubts_by_end.push_back((until_ms, *target));
                    }
                }
                self.failed(now, flight, started, failure, retry_after_ms);
            }
        }
    }

    /// Back into its queue, after a while.
    fn back(&mut self, now: Now, target: Target) {
        if let Some(work) = self.work.get_mut(&target) {
            work.again = false;
            self.put(now, target, Place::Later(now.mono_ms + RECHECK_MS));
        }
    }

    /// Part of a call failed, and nobody knows which: each half is tried alone, down to single targets.
    fn divide(&mut self, now: Now, flight: Flight, reason: Reason, is_retryable: bool, started: bool) {
        if let [target] = flight.targets[..] {
            self.park(now, target, reason, is_retryable, started);
            return;
        }
        self.split(now, Group { targets: flight.targets, ..Group::default() });
    }

    fn told(&mut self, now: Now, target: Target, level: Level, report: Option<&Report>) {
        match report {
            None => self.resolve(now, target, Some(Observed::At(level))),
            Some(Report::Reached(level)) => self.resolve(now, target, Some(Observed::At(*level))),
            Some(Report::Absent) => self.resolve(now, target, Some(Observed::Absent)),
            Some(Report::Duplicate) => self.resolve(now, target, Some(Observed::At(Level::Accepted))),
            Some(Report::Drift) => self.park(now, target, Reason::Drift, true, true),
            Some(Report::Failed { is_retryable, code }) => self.park(now, target, Reason::Item(*code), *is_retryable, true),
            // Handled before: they say that nothing was sent.
            Some(Report::Nothing | Report::Unreachable | Report::Held) => {}
        }
    }

    // Jobs.

    fn job(&mut self, now: Now, targets: Vec<Target>, handle: String, reports: &BTreeMap<Target, Report>) {
        if handle.is_empty() || handle.len() > JOB_HANDLE_BYTES_MAX {
            // Nobody could ask after it, so nobody knows what became of it.
            for target in targets {
                self.park(now, target, Reason::GaveUp, true, true);
            }
            return;
        }
        let (told, waiting): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| reports.contains_key(target));
        for target in told {
            self.told(now, target, Level::Accepted, reports.get(&target));
        }
        self.books.head.jobs += 1;
        let number = self.books.head.jobs;
        let give_up_unix_ms = now.unix_ms + self.config.jobs.give_up_ms as i64;
        let mut targets = BTreeMap::new();
        for target in waiting {
            let Some(Work { change, attempts, again, .. }) = self.work.get(&target).copied() else { continue };
            let Change { seq, since_unix_ms, due_unix_ms, rank, .. } = change;
            // If it changed since, the change that is known is not the one that was sent.
            let seq = if again { 0 } else { seq };
            targets.insert(target, Waiting { seq, since_unix_ms, due_unix_ms, rank, attempts });
            // Jobs about earlier messages, which this one stands for.
            self.supersede(target);
            self.pending.entry(target).or_default().insert(number);
            self.resolve(now, target, Some(Observed::At(Level::Accepted.max(self.books.head.floor))));
        }
        if targets.is_empty() {
            return;
        }
        self.books.jobs.insert(number, Job { handle, targets, superseded: BTreeSet::new(), give_up_unix_ms, failed: None });
        self.dirty.jobs.insert(number);
        self.polls.insert((now.mono_ms + self.config.jobs.every_ms, number));
    }

    fn polled(&mut self, now: Now, number: u64, outcome: &Outcome, reports: &BTreeMap<Target, Report>) {
        let Some(job) = self.books.jobs.get(&number) else { return };
        let is_alone = job.targets.len() == 1;
        let wait_ms = if *outcome == Outcome::NotSent { RECHECK_MS } else { self.config.jobs.every_ms };
        match outcome {
            Outcome::Ok(level) => self.job_ended(now, number, reports, Some(Report::Reached(*level)), &Reason::Job),
            Outcome::Rejected { is_retryable, code } | Outcome::SomeFailed { is_retryable, code } => {
                let failed = Report::Failed { is_retryable: *is_retryable, code: *code };
                self.job_ended(now, number, reports, is_alone.then_some(failed), &Reason::Job);
            }
            _ if now.unix_ms >= job.give_up_unix_ms => {
                let failed = Report::Failed { is_retryable: true, code: 0 };
                self.job_ended(now, number, &BTreeMap::new(), Some(failed), &|_| Reason::GaveUp);
            }
            _ => drop(self.polls.insert((now.mono_ms + wait_ms, number))),
        }
    }

    /// A job is over. Targets that nobody names share the fate of `others`; `None`: some of them failed, and nobody
    /// knows which, so they go out again in two halves, down to single targets.
    fn job_ended(
        &mut self,
        now: Now,
        number: u64,
        reports: &BTreeMap<Target, Report>,
        others: Option<Report>,
        reason: &dyn Fn(u16) -> Reason,
    ) {
        let Some(job) = self.books.jobs.get(&number) else { return };
        let targets: Vec<_> = job.targets.iter().map(|(target, waiting)| (*target, *waiting, job.superseded.contains(target))).collect();
        let mut doubtful = Vec::new();
        let mut left = Reason::Job(0);
        for (target, waiting, is_superseded) in targets {
            // A later message about it is under way, was sent or was refused: this one no longer counts.
            let is_busy = self.work.contains_key(&target) || self.books.parked.contains_key(&target);
            let report = reports.get(&target).copied().or(others);
            if !is_superseded && !is_busy {
                let is_last = waiting.attempts + 1 >= self.config.attempts_max;
                let is_dead = matches!(report, Some(Report::Failed { is_retryable, .. }) if is_last || !is_retryable);
                let is_refused = matches!(report, None | Some(Report::Failed { .. } | Report::Drift));
                if is_refused && !self.has_room(target, is_dead) {
                    // It stays in the books as the job's: there is nothing else from which a restart would know of it.
                    left = if let Some(Report::Failed { code, .. }) = report { reason(code) } else { left };
                    continue;
                }
                self.leave_job(number, target);
                match report {
                    None => {
                        self.park_unheard(now, target, waiting, Reason::Job(0));
                        doubtful.push(target);
                    }
                    Some(report) => {
                        self.add(now, waiting.work(target, Kind::Fresh, Place::Flight));
                        match report {
                            Report::Failed { is_retryable, code } => self.park(now, target, reason(code), is_retryable, true),
                            report => self.told(now, target, Level::Accepted, Some(&report)),
                        }
                    }
                }
            } else if is_superseded {
                if !is_busy && !self.has_room(target, false) {
                    continue;
                }
                self.leave_job(number, target);
                // It may have undone what was sent since.
                self.supersede(target);
                self.park_again(now, target);
            } else {
                self.leave_job(number, target);
            }
        }
        if !doubtful.is_empty() {
            for target in &doubtful {
                let Parked { seq, since_unix_ms, due_unix_ms, rank, attempts, .. } = self.books.parked[target];
                let waiting = Waiting { seq, since_unix_ms, due_unix_ms, rank, attempts };
                self.add(now, waiting.work(*target, Kind::Retry, Place::Group));
            }
            self.split(now, Group { targets: doubtful, ..Group::default() });
        }
        if let Some(job) = self.books.jobs.get_mut(&number) {
            job.failed = Some(left);
            self.dirty.jobs.insert(number);
            self.failed_jobs.insert(number);
        }
    }

    /// The target is no longer the job's; a job without targets is over.
    fn leave_job(&mut self, number: u64, target: Target) {
        if let Some(job) = self.books.jobs.get_mut(&number) {
            job.targets.remove(&target);
            job.superseded.remove(&target);
            if job.targets.is_empty() {
                self.books.jobs.remove(&number);
                self.failed_jobs.remove(&number);
            }
            self.dirty.jobs.insert(number);
        }
        if let Some(jobs) = self.pending.get_mut(&target) {
            jobs.remove(&number);
            if jobs.is_empty() {
                self.pending.remove(&target);
            }
        }
    }

    /// Parks what is left of jobs that failed, as far as there is room: whatever is parked is sent again.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(number) = self.failed_jobs.first().copied() {
            let job = self.books.jobs.get(&number);
            let Some((job, (target, waiting))) = job.and_then(|job| Some((job, job.targets.first_key_value()?))) else {
                self.failed_jobs.remove(&number);
                continue;
            };
            let (target, waiting) = (*target, *waiting);
            let is_superseded = job.superseded.contains(&target);
            let reason = job.failed.unwrap_or(Reason::GaveUp);
            let is_busy = self.work.contains_key(&target) || self.books.parked.contains_key(&target);
            if !is_busy && !self.has_room(target, false) {
                return;
            }
            self.leave_job(number, target);
            if is_superseded {
                self.supersede(target);
                self.park_again(now, target);
            } else if !is_busy {
                self.park_unheard(now, target, waiting, reason);
            }
        }
    }

    /// The target is sent while jobs about earlier messages run: they no longer say anything about it.
    pub(super) fn supersede(&mut self, target: Target) {
        for number in self.pending.get(&target).into_iter().flatten() {
            if let Some(job) = self.books.jobs.get_mut(number)
                && job.superseded.insert(target)
            {
                self.dirty.jobs.insert(*number);
            }
        }
    }

    // Patrols.

    /// When a patrol reads its next page: the place in the feed keeps pace with the time of the round.
    pub(super) fn round_at(&self, patrol: usize) -> Option<u64> {
        let (round, period_ms) = (&self.rounds[patrol], self.config.patrols[patrol].period_ms);
        let cursor = self.books.head.cursor;
        if round.fetching || !round.open.is_empty() || !self.books.head.scanned {
            return None;
        }
        let share = if cursor == 0 || round.upto >= cursor { period_ms } else { share(round.upto, cursor, period_ms) };
        Some(round.began_ms + share)
    }

    fn is_late(&self, now: Now, patrol: usize) -> bool {
        let (round, period_ms) = (&self.rounds[patrol], self.config.patrols[patrol].period_ms);
        let cursor = self.books.head.cursor.max(1);
        !round.open.is_empty() && now.mono_ms > round.began_ms + share(round.upto.min(cursor), cursor, period_ms) + period_ms / 8
    }

    pub(super) fn round(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.stored || self.draining || self.books.head.paused_unix_ms.is_some() {
            return;
        }
        for patrol in 0..self.rounds.len() {
            if self.round_at(patrol).is_none_or(|at| at > now.mono_ms) {
                continue;
            }
            let cursor = self.books.head.cursor;
            let round = &mut self.rounds[patrol];
            if round.upto >= cursor {
                *round = Round { began_ms: now.mono_ms, ..Round::default() };
                self.dirty.head = true;
                if cursor == 0 {
                    continue;
                }
            }
            round.fetching = true;
            out.push(Action::Patrol { patrol, after: round.upto, limit: self.config.batch_items.clamp(PATROL_PAGE, FETCH_MAX) });
        }
    }

    pub(super) fn patrolled(&mut self, now: Now, patrol: usize, page: Page) {
        let cursor = self.books.head.cursor;
        let Some(round) = self.rounds.get_mut(patrol) else { return };
        round.fetching = false;
        round.page_upto = if page.is_end { cursor.max(page.upto) } else { page.upto };
        for change in page.changes {
            let target = change.target;
            // What is not resolved is on its way in any case.
            let is_busy = self.work.contains_key(&target) || self.books.parked.contains_key(&target) || self.pending.contains_key(&target);
            if change.seq <= cursor && !is_busy {
                // It was delivered, so no deadline runs.
                let change = Change { since_unix_ms: now.unix_ms, due_unix_ms: now.unix_ms, ..change };
                self.rounds[patrol].open.insert(target);
                self.add(now, Work { kind: Kind::Patrol(patrol), place: Place::Ready, change, attempts: 0, sent: false, again: false });
            }
        }
        self.end_page(patrol);
    }

    fn end_page(&mut self, patrol: usize) {
        let round = &mut self.rounds[patrol];
        if !round.open.is_empty() || round.fetching {
            return;
        }
        if std::mem::take(&mut round.failed) {
            round.tries += 1;
            if round.tries < PATROL_TRIES_MAX {
                return;
            }
            self.unread += 1;
        }
        (round.upto, round.tries) = (round.page_upto, 0);
        self.dirty.head = true;
    }

    /// The target is no patrol's any more.
    pub(super) fn leave_rounds(&mut self, target: Target) {
        for patrol in 0..self.rounds.len() {
            if self.rounds[patrol].open.remove(&target) {
                self.end_page(patrol);
            }
        }
    }

    fn checked(&mut self, now: Now, patrol: usize, targets: &[Target], outcome: &Outcome, reports: &BTreeMap<Target, Report>) {
        for target in targets {
            let observed = match (outcome, reports.get(target)) {
                (Outcome::Ok(_), Some(Report::Drift)) => {
                    self.park(now, *target, Reason::Drift, true, true);
                    continue;
                }
                (Outcome::Ok(_), Some(Report::Absent)) => Some(Observed::Absent),
                (Outcome::Ok(level), None) | (Outcome::Ok(_), Some(Report::Reached(level))) => Some(Observed::At(*level)),
                (_, report) => {
                    // Whoever needs no message, or cannot be known there, needs no look either; who can never be read is not waited for.
                    let is_over =
                        matches!(report, Some(Report::Nothing | Report::Unreachable | Report::Failed { is_retryable: false, .. }));
                    self.rounds[patrol].failed |= !is_over;
                    None
                }
            };
            let is_present = self.finish(now, *target).is_some();
            // What was known before was observed, too: a look that proves less takes nothing from it.
            let known = self.books.levels.get(*target).unwrap_or(Observed::At(self.books.head.floor));
            let observed = match (known, observed) {
                (Observed::At(known), Some(Observed::At(level))) => Some(Observed::At(known.max(level))),
                (_, observed) => observed,
            };
            if let Some(observed) = observed.filter(|_| is_present) {
                self.observe(*target, observed);
            }
        }
    }
}

fn flight(errand: Errand, targets: Vec<Target>) -> Flight {
    Flight { errand, targets, group: None, trial: None }
}

impl Waiting {
    fn work(self, target: Target, kind: Kind, place: Place) -> Work {
        let Self { seq, since_unix_ms, due_unix_ms, rank, attempts } = self;
        let change = Change { seq, target, since_unix_ms, due_unix_ms, rank };
        Work { kind, place, change, attempts, sent: true, again: false }
    }
}

/// `whole * part / all`.
fn share(part: u64, all: u64, whole: u64) -> u64 {
    (u128::from(whole) * u128::from(part) / u128::from(all)) as u64
}
