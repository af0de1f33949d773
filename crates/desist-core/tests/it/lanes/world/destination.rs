//! The destination: its moods, what it answers, and what it shows.

use std::collections::BTreeSet;

use desist_core::lane::{Call, Failure, Input, Level, Need, Outcome, Report, Sending, Target};

use super::{Dialect, END, Event, HEAL, MINUTE, Mood, Poison, Request, TIMEOUT, World, WorldJob};

impl World {
    /// How the mood answers any call, if not with success.
    pub(super) fn refusal(&mut self) -> Option<Outcome> {
        let mood = match self.mood {
            Mood::Flaky => self.rng.of(&[Mood::Fine, Mood::Fine, Mood::Unreachable, Mood::Error, Mood::Throttling]),
            mood => mood,
        };
        let (failure, retry_after_ms) = match mood {
            Mood::Fine | Mood::Flaky | Mood::Lying | Mood::Small => return None,
            Mood::Unreachable => (Failure::Connect, None),
            Mood::Error => (Failure::Server, None),
            Mood::Throttling => {
                self.seen.insert("throttled");
                (Failure::Throttled, Some(self.rng.of(&[0, 700, 30_000, u64::MAX / 2])).filter(|_| !self.mood_is_flaky()))
            }
            Mood::NoCredentials => (Failure::Credentials, None),
        };
        Some(Outcome::Failed { failure, retry_after_ms })
    }

    pub(super) fn mood_is_flaky(&self) -> bool {
        self.mood == Mood::Flaky
    }

    pub(super) fn end(&mut self, life: u64, call: Call, outcome: Outcome, reports: Vec<(Target, Report)>, after: u64) {
        self.starts.push(self.now);
        let input = Input::Ended { call, started_ms: Some(self.now), outcome, reports };
        self.at(self.now + after, Event::Give(life, input));
    }

    pub(super) fn not_sent(&mut self, life: u64, call: Call) {
        let input = Input::Ended { call, started_ms: None, outcome: Outcome::NotSent, reports: Vec::new() };
        self.soon(Event::Give(life, input));
    }

    pub(super) fn send(&mut self, life: u64, call: Call, targets: &[Sending], start_before_ms: u64) -> Result<(), String> {
        let mut reports = Vec::new();
        let mut items = Vec::new();
        for sending in targets {
            let truth = &self.truths[sending.target.0 as usize];
            match truth.need {
                Need::Nothing => reports.push((sending.target, Report::Nothing)),
                Need::Unreachable => reports.push((sending.target, Report::Unreachable)),
                Need::Message if !truth.deny && !sending.may_allow => {
                    self.seen.insert("held");
                    reports.push((sending.target, Report::Held));
                }
                Need::Message => items.push((sending.target, truth.seq, truth.deny)),
            }
        }
        let is_small = self.mood == Mood::Small && items.len() > 1;
        if items.is_empty() || self.now >= start_before_ms || is_small {
            let outcome = if is_small { Outcome::TooLarge } else { Outcome::NotSent };
            if self.now >= start_before_ms {
                self.seen.insert("too late to start");
            }
            let input = Input::Ended { call, started_ms: None, outcome, reports };
            self.soon(Event::Give(life, input));
            return Ok(());
        }
        self.before_sending(life, &items)?;
        let request = self.requests.len();
        let allows: BTreeSet<_> = items.iter().filter(|(_, _, deny)| !deny).map(|(target, _, _)| *target).collect();
        self.requests.push(Request { life, sent: self.now, ended: None, clear: None, cut: false, allows });
        for (target, version, _) in &items {
            self.open.entry(*target).or_default().insert(request);
            let sent = self.sent.entry(*target).or_default();
            *sent = (*sent).max(*version);
        }
        self.answer(life, call, request, items, reports);
        Ok(())
    }

    /// One request per target at a time, and no *allow* while an earlier one may take effect.
    pub(super) fn before_sending(&mut self, life: u64, items: &[(Target, u64, bool)]) -> Result<(), String> {
        for (target, version, deny) in items {
            if !deny && !self.store.allows.contains(target) {
                return Err(format!("an allow about {target:?} leaves that no crash would know of"));
            }
            for request in self.open.get(target).into_iter().flatten() {
                let number = *request;
                let request = &self.requests[number];
                let is_running = request.ended.is_none_or(|ended| ended > self.now);
                if is_running && (request.life == life || !self.fast) {
                    return Err(format!("two requests about {target:?} at one time"));
                }
                // Of a job whose number was lost nobody knows.
                let is_known = |job: &WorldJob| job.request == number;
                let mut jobs = self.nodes.iter().filter(|node| node.life == life).flat_map(|node| node.lane.books().jobs.values());
                let has_job = jobs.any(|job| self.jobs.get(&job.handle).is_some_and(is_known));
                if !deny && request.clear.map_or(has_job, |clear| clear > self.now) {
                    return Err(format!(
                        "an allow (version {version}) about {target:?} while an earlier request may take effect: {request:?}"
                    ));
                }
            }
            let requests = &self.requests;
            let now = self.now;
            if let Some(open) = self.open.get_mut(target) {
                open.retain(|one| requests[*one].clear.is_none_or(|clear| clear > now) || requests[*one].ended.is_none_or(|end| end > now));
            }
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        life: u64,
        call: Call,
        request: usize,
        items: Vec<(Target, u64, bool)>,
        mut reports: Vec<(Target, Report)>,
    ) {
        let poison: Vec<_> = items.iter().filter_map(|(target, _, _)| self.poison.get(target).copied()).collect();
        let refused = self.refusal();
        let is_lost = refused.is_none()
            && (poison.contains(&Poison::Timeout)
                || (self.mood_is_flaky() && self.rng.one_in(3))
                || (self.mood == Mood::Lying && self.rng.one_in(9)));
        if is_lost {
            self.seen.insert("ambiguous");
            // Lost, in time, or as late as nobody expects any more: with a patrol even later.
            let late = if self.config.patrols.is_empty() && !self.versioned { 2 * TIMEOUT } else { 4 * TIMEOUT };
            if !self.rng.one_in(3) {
                let delay = self.rng.below(late);
                self.at(self.now + delay, Event::Arrive(request, items));
            }
            self.starts.push(self.now);
            let outcome = Outcome::Failed { failure: Failure::Ambiguous, retry_after_ms: None };
            let input = Input::Ended { call, started_ms: Some(self.now), outcome, reports };
            self.at(self.now + TIMEOUT, Event::Give(life, input));
            self.over(request, TIMEOUT, 2 * TIMEOUT);
            return;
        }
        let after = 2 + self.rng.below(400);
        let error = poison.contains(&Poison::Error).then_some(Outcome::Failed { failure: Failure::Server, retry_after_ms: None });
        if let Some(outcome) = refused.or(error) {
            if self.rng.one_in(3) && outcome != (Outcome::Failed { failure: Failure::Connect, retry_after_ms: None }) {
                // It failed after it had done it.
                self.at(self.now + 1, Event::Arrive(request, items));
            }
            self.over(request, after, after);
            return self.end(life, call, outcome, reports, after);
        }
        if poison.contains(&Poison::Rejected) {
            self.seen.insert("rejected");
            self.over(request, after, after);
            return self.end(life, call, Outcome::Rejected { is_retryable: false, code: 400 }, reports, after);
        }
        let is_bad = |world: &mut Self, target: &Target| match world.poison.get(target) {
            Some(Poison::Refused) => Some(true),
            Some(Poison::Dead) => Some(false),
            _ if world.mood_is_flaky() && world.rng.one_in(5) => Some(true),
            _ => None,
        };
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for item in &items {
            match is_bad(self, &item.0) {
                Some(is_retryable) => bad.push((item.0, is_retryable)),
                None => good.push(*item),
            }
        }
        let does = if self.mood == Mood::Lying && self.rng.one_in(2) && !self.config.patrols.is_empty() {
            self.seen.insert("lie");
            self.lied = true;
            Vec::new()
        } else {
            good.clone()
        };
        if self.dialect == Dialect::Job {
            let bad = bad.into_iter().map(|(target, _)| target).collect();
            return self.take_job(life, call, request, &items, (does, bad), reports, after);
        }
        let at = self.now + self.rng.below(after);
        if self.rng.one_in(8) {
            self.at(self.now + after, Event::Arrive(request, does.clone()));
        }
        self.at(at, Event::Arrive(request, does));
        self.over(request, after, after);
        let level = self.config.floor;
        if !bad.is_empty() && matches!(self.dialect, Dialect::Count | Dialect::Status) {
            self.seen.insert("split");
            let is_retryable = bad.iter().all(|(_, is_retryable)| *is_retryable);
            return self.end(life, call, Outcome::SomeFailed { is_retryable, code: 1 }, reports, after);
        }
        reports.extend(bad.into_iter().map(|(target, is_retryable)| (target, Report::Failed { is_retryable, code: 2 })));
        for (target, version, _) in &good {
            // Some get less than usual, some more, and of some it says that it does not have them.
            let (report, level) = match self.rng.below(7) {
                6 => {
                    self.absent.insert(*target, *version);
                    reports.push((*target, Report::Absent));
                    continue;
                }
                0 => (Some(Report::Duplicate), Level::Accepted),
                1 => (Some(Report::Reached(Level::Verified)), Level::Verified),
                _ => (None, level),
            };
            reports.extend(report.map(|report| (*target, report)));
            self.say(*target, level, *version);
        }
        self.end(life, call, Outcome::Ok(level), reports, after);
    }

    /// What an answer that was given says. (That it may be lost makes it no less true.)
    pub(super) fn say(&mut self, target: Target, level: Level, version: u64) {
        for level in [Level::Accepted, Level::Applied, Level::Verified].into_iter().filter(|one| *one <= level) {
            let said = self.said.entry((target, level)).or_default();
            *said = (*said).max(version);
        }
    }

    pub(super) fn over(&mut self, request: usize, ended: u64, clear: u64) {
        self.requests[request].ended = Some(self.now + ended);
        self.requests[request].clear = Some(self.now + clear);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    pub(super) fn take_job(
        &mut self,
        life: u64,
        call: Call,
        request: usize,
        items: &[(Target, u64, bool)],
        (does, bad): (Vec<(Target, u64, bool)>, Vec<Target>),
        reports: Vec<(Target, Report)>,
        after: u64,
    ) {
        self.seen.insert("job");
        for (target, version, _) in items {
            self.say(*target, Level::Accepted, *version);
        }
        let takes = if self.now < HEAL { self.rng.of(&[1_000, 30_000, 90_000, u64::MAX / 2]) } else { 5_000 };
        let (handle, done) = (format!("job {request}"), self.now + after + takes);
        self.requests[request].ended = Some(self.now + after);
        let fails = self.now < HEAL && self.rng.one_in(6);
        if done < END && !fails {
            self.at(done, Event::Arrive(request, does));
        }
        self.jobs.insert(handle.clone(), WorldJob { items: items.to_vec(), done, request, fails, bad });
        self.end(life, call, Outcome::Job(handle), reports, after);
    }

    pub(super) fn poll(&mut self, life: u64, call: Call, handle: &str) {
        if let Some(outcome) = self.refusal() {
            return self.end(life, call, outcome, Vec::new(), 30);
        }
        let job = self.jobs[handle].clone();
        let mut reports = Vec::new();
        let outcome = if self.now < job.done {
            // The lane may give it up now.
            Outcome::Pending
        } else if job.fails {
            Outcome::Rejected { is_retryable: true, code: 9 }
        } else {
            for (target, version, _) in &job.items {
                if job.bad.contains(target) {
                    reports.push((*target, Report::Failed { is_retryable: true, code: 3 }));
                } else {
                    self.say(*target, Level::Applied, *version);
                }
            }
            Outcome::Ok(Level::Applied)
        };
        if outcome != Outcome::Pending {
            self.requests[job.request].clear = Some(self.now);
        } else if job.done > END {
            self.seen.insert("job without end");
            self.requests[job.request].clear = Some(self.now);
        }
        self.end(life, call, outcome, reports, 30);
    }

    pub(super) fn check(&mut self, life: u64, call: Call, targets: &[Target], start_before_ms: u64) {
        if self.now >= start_before_ms {
            return self.not_sent(life, call);
        }
        if let Some(outcome) = self.refusal() {
            return self.end(life, call, outcome, Vec::new(), 30);
        }
        let mut reports = Vec::new();
        for target in targets {
            let truth = &self.truths[target.0 as usize];
            if truth.need != Need::Message {
                continue;
            }
            let version = truth.seq;
            if self.shown.get(target).is_none_or(|(_, deny)| *deny != truth.deny) {
                reports.push((*target, Report::Drift));
            } else if self.rng.one_in(5) {
                self.absent.insert(*target, version);
                reports.push((*target, Report::Absent));
            } else {
                self.say(*target, Level::Verified, version);
            }
        }
        self.end(life, call, Outcome::Ok(Level::Verified), reports, 30);
    }

    pub(super) fn arrive(&mut self, items: &[(Target, u64, bool)]) {
        if self.trace {
            println!("{} arrives {items:?}", self.now);
        }
        for (target, version, deny) in items {
            let applied = self.applied.entry(*target).or_default();
            *applied = (*applied).max(*version);
            let shown = self.shown.entry(*target).or_insert((0, false));
            if self.versioned && *version < shown.0 {
                continue;
            }
            let is_older = *version < shown.0;
            if is_older && shown.1 && !deny {
                self.seen.insert("older allow");
                self.stale.insert(*target, self.now);
            }
            *shown = (*version, *deny);
            if *deny {
                self.stale.remove(target);
            }
        }
    }

    pub(super) fn weather(&mut self) {
        self.mood = self.rng.of(&[
            Mood::Fine,
            Mood::Fine,
            Mood::Unreachable,
            Mood::Error,
            Mood::Throttling,
            Mood::NoCredentials,
            Mood::Flaky,
            Mood::Flaky,
            Mood::Lying,
            Mood::Small,
        ]);
        let lasts = 5_000 + self.rng.below(4 * MINUTE);
        self.at(self.now + lasts, Event::Weather);
    }
}
