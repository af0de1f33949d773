//! One lane and a driver that does at once what it is told; the test is the destination.

use std::collections::VecDeque;

use desist_core::lane::{
    Action, Change, Config, Input, Lane, Level, News, Now, Outcome, Page, Replay, Report, Saved, Sending, Status, Target,
};

use super::world::at;

/// What the destination says to a call about these targets, at this time.
pub type Answer<'a> = dyn FnMut(u64, &[Sending]) -> (Outcome, Vec<(Target, Report)>) + 'a;

/// What the destination says of a job.
pub type PollJob = dyn FnMut(&str) -> (Outcome, Vec<(Target, Report)>);

pub const FOREVER: u64 = u64::MAX / 4;

pub struct Rig {
    pub lane: Lane,
    pub now: u64,
    pub feed: Vec<Change>,
    pub store: Saved,
    pub news: Vec<News>,
    /// When each call left, and with whom; a probe is about nobody.
    pub sends: Vec<(u64, Vec<Target>)>,
    pub checks: Vec<(u64, Vec<Target>)>,
    pub replayed: usize,
    pub drained: bool,
    /// How long a call takes.
    pub takes: u64,
    /// What a poll says.
    pub poll: Outcome,
    /// What a poll says of one job, if that is not the same for all.
    pub poll_job: Option<Box<PollJob>>,
    /// When each poll left.
    pub polls: Vec<u64>,
    /// What a check says.
    pub check: Outcome,
    /// What it says of single targets.
    pub check_reports: Vec<(Target, Report)>,
    pub longest_ahead: usize,
    pub saves: usize,
    pub store_fails: bool,
    inbox: VecDeque<(u64, Input)>,
}

pub fn change(seq: u64, target: u64, due: i64, rank: u8) -> Change {
    let since_unix_ms = at(0).unix_ms;
    Change { seq, target: Target(target), since_unix_ms, due_unix_ms: since_unix_ms + due, rank }
}

/// Targets 1 to `count`, each changed once, with a month's time.
pub fn crowd(count: u64) -> Vec<Change> {
    (1..=count).map(|number| change(number, number, 31 * 86_400_000, 0)).collect()
}

pub fn fine(_: u64, _: &[Sending]) -> (Outcome, Vec<(Target, Report)>) {
    (Outcome::Ok(Level::Applied), Vec::new())
}

impl Rig {
    pub fn new(config: Config, feed: Vec<Change>) -> Self {
        Self::restore(config, feed, Saved::default(), 0, at(0))
    }

    pub fn restore(config: Config, feed: Vec<Change>, store: Saved, now: u64, clocks: Now) -> Self {
        let lane = Lane::restore(config, store.clone(), clocks).unwrap();
        let lease = Input::Lease { epoch: 1, until_mono_ms: FOREVER };
        Self {
            lane,
            now,
            feed,
            store,
            news: Vec::new(),
            sends: Vec::new(),
            checks: Vec::new(),
            replayed: 0,
            drained: false,
            takes: 0,
            poll: Outcome::Pending,
            poll_job: None,
            polls: Vec::new(),
            check: Outcome::Ok(Level::Verified),
            check_reports: Vec::new(),
            longest_ahead: 0,
            saves: 0,
            store_fails: false,
            inbox: VecDeque::from([(now, lease)]),
        }
    }

    pub fn status(&mut self) -> Status {
        self.lane.status(at(self.now))
    }

    pub fn give(&mut self, input: Input) {
        self.inbox.push_back((self.now, input));
    }

    pub fn change(&mut self, change: Change) {
        self.feed.retain(|one| one.target != change.target);
        self.feed.push(change);
        self.give(Input::Changed);
    }

    pub fn replay(&mut self, which: Replay) {
        self.give(Input::Replay(which));
    }

    fn page(&self, after: u64, limit: usize) -> Page {
        let from = self.feed.partition_point(|change| change.seq <= after);
        let changes: Vec<_> = self.feed[from..].iter().copied().take(limit).collect();
        let is_end = from + changes.len() == self.feed.len();
        let upto = changes.last().map_or(after, |change| change.seq);
        Page { changes, upto, is_end }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, ms: u64, answer: &mut Answer) {
        let end = self.now + ms;
        loop {
            let wake = self.lane.next_ms(at(self.now));
            let next = self.inbox.iter().map(|(at, _)| *at).min().into_iter().chain(wake).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let due = self.inbox.iter().position(|(at, _)| *at <= self.now);
            let input = due.and_then(|due| self.inbox.remove(due)).map_or(Input::Tick, |(_, input)| input);
            self.step(input, answer);
        }
        self.now = end;
    }

    fn step(&mut self, input: Input, answer: &mut Answer) {
        let mut out = Vec::new();
        self.lane.step(at(self.now), input, &mut out);
        for action in out {
            let (now, later) = (self.now, self.now + self.takes);
            let started_ms = Some(now);
            let mut ended = |call, outcome, reports| self.inbox.push_back((later, Input::Ended { call, started_ms, outcome, reports }));
            match action {
                Action::Fetch { after, limit } => {
                    let page = self.page(after, limit);
                    self.give(Input::Fetched(page));
                }
                Action::Patrol { patrol, after, limit } => {
                    let page = self.page(after, limit);
                    self.give(Input::Patrolled { patrol, page });
                }
                Action::Send { call, targets, .. } => {
                    let (outcome, reports) = answer(now, &targets);
                    ended(call, outcome, reports);
                    self.sends.push((now, targets.into_iter().map(|sending| sending.target).collect()));
                }
                Action::Check { call, targets, .. } => {
                    let reports = self.check_reports.iter().filter(|(target, _)| targets.contains(target)).copied().collect();
                    ended(call, self.check.clone(), reports);
                    self.checks.push((now, targets));
                }
                Action::Poll { call, handle, .. } => {
                    let (outcome, reports) =
                        self.poll_job.as_mut().map_or_else(|| (self.poll.clone(), Vec::new()), |poll_job| poll_job(&handle));
                    ended(call, outcome, reports);
                    self.polls.push(now);
                }
                Action::Probe { call, .. } => {
                    let (outcome, reports) = answer(now, &[]);
                    ended(call, outcome, reports);
                    self.sends.push((now, Vec::new()));
                }
                Action::Save(delta) => {
                    self.longest_ahead = self.longest_ahead.max(delta.head.ahead.len());
                    self.saves += 1;
                    if self.store_fails {
                        self.give(Input::NotStored);
                    } else {
                        self.news.extend(self.store.apply(*delta));
                        self.give(Input::Stored);
                    }
                }
                Action::Replayed(count) => self.replayed += count,
                Action::Drained => self.drained = true,
            }
        }
    }
}
