//! What a command does: checked first, then written as facts. A refusal has written nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::fact::{Actor, Channel, Digest, ENTRY_VERSION, Entry, Fact, IdRef, Refusal, RequestId, RequestKind};
use crate::graph::{Changes, Graph, Records};
use crate::identifier::Kind;
use crate::limits::{CLOCK_SKEW_SECONDS_MAX, NAMED_MAX};
use crate::lookup::LookupKey;
use crate::mark::{IdentifierNo, SubjectNo};
use crate::purpose::PurposeSet;

/// An identifier as a command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Named {
    /// Its kind.
    pub kind: Kind,
    /// Where it is found.
    pub key: LookupKey,
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody was named.
    #[error("no identifier was given; name at least one")]
    NobodyNamed,
    /// Too many were named.
    #[error("more than {NAMED_MAX} identifiers in one request; send several requests")]
    TooManyNamed,
    /// The consumer cannot have acted later than now.
    #[error("the time lies in the future; give the time at which the consumer acted")]
    Future,
    /// No purpose is left.
    #[error("no purpose was given; name at least one, or leave the member out")]
    NoPurpose,
    /// An opt-in came over a channel of the business.
    #[error("only the consumer can opt in; channels api, import and operator cannot")]
    NotTheConsumer,
    /// The identifiers do not belong to exactly one subject.
    #[error("an opt-in must name one subject: one account (campaign_pkey or customer_id), or one identifier alone")]
    NotOneSubject,
    /// A link needs an account and something to link, or at least two identifiers.
    #[error("a link needs at least two identifiers")]
    NothingToLink,
    /// The subject is full.
    #[error("the subject already holds as many identifiers as one person can have; unlink some first")]
    HoldsTooMany,
}

/// The highest numbers given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries in the log.
    pub entries: u64,
    /// Subjects.
    pub subjects: u64,
    /// Identifiers.
    pub identifiers: u64,
    /// Changes of parties, see [`Changes::parties`].
    pub changes: u64,
}

/// An opt-out or a limit.
#[derive(Clone, Debug)]
pub struct OptOut {
    /// The request it belongs to.
    pub request: RequestId,
    /// What was asked.
    pub kind: RequestKind,
    /// The subject, where the caller knows it already (a Campaign profile).
    pub subject: Option<SubjectNo>,
    /// The identifiers named.
    pub named: Vec<Named>,
    /// What to deny.
    pub purposes: PurposeSet,
    /// Where it came in.
    pub channel: Channel,
    /// When the consumer acted, if the caller knows, in Unix seconds.
    pub acted_at: Option<i64>,
    /// Who entered it.
    pub by: Actor,
    /// Commitment to the evidence.
    pub evidence: Option<Digest>,
}

/// What became of an opt-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The entry of the act.
    pub seq: u64,
    /// The subject it was recorded on.
    pub subject: Option<SubjectNo>,
    /// Identifiers held by too many: their holders were not reached and wait for an operator.
    pub unreached: Vec<IdentifierNo>,
}

/// The first step of an opt-in.
#[derive(Clone, Copy, Debug)]
pub struct OptInAsk<'a> {
    /// The request it belongs to.
    pub request: RequestId,
    /// The identifiers named.
    pub named: &'a [Named],
    /// What to allow.
    pub purposes: PurposeSet,
    /// Where it came in.
    pub channel: Channel,
    /// Who entered it, and vouches for the consumer.
    pub by: Actor,
    /// Commitment to the evidence.
    pub evidence: Option<Digest>,
}

/// One opt-in's target, fixed at its first step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptInTarget {
    /// The subject, or none for a bare identifier.
    pub subject: Option<SubjectNo>,
    /// What was named.
    pub named: Vec<IdRef>,
}

/// What became of an API client's wish to allow again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiOptIn {
    /// Nothing was denied: nothing to do.
    AlreadyAllowed,
    /// Its own opt-out ended.
    Ended,
    /// The opt-out stays.
    Refused(Refusal),
}

/// The commands of one transaction: each sees the effects of the earlier ones.
#[derive(Debug)]
pub struct Batch {
    graph: Graph,
    /// The highest numbers given, this batch's own included.
    pub counters: Counters,
    /// The time of the batch in Unix seconds.
    pub now: i64,
    /// Entries to append.
    pub entries: Vec<Entry>,
    /// Identifiers seen for the first time.
    pub new_identifiers: BTreeMap<LookupKey, IdRef>,
}

/// Each of them once, in the order given.
fn distinct(named: &[Named]) -> Vec<Named> {
    let mut seen = BTreeSet::new();
    named.iter().filter(|one| seen.insert(**one)).copied().collect()
}

impl Batch {
    /// An empty batch after what `counters` say is stored.
    pub fn new(counters: Counters, now: i64) -> Self {
        Self { graph: Graph::default(), counters, now, entries: Vec::new(), new_identifiers: BTreeMap::new() }
    }

    /// The graph, for questions about state as of this point in the batch.
    pub fn graph(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// Appends a fact and applies it. Returns its `seq`.
    pub fn emit<R: Records + ?Sized>(&mut self, records: &mut R, fact: Fact) -> Result<u64, R::Error> {
        self.counters.entries += 1;
        let entry = Entry { v: ENTRY_VERSION, seq: self.counters.entries, at: self.now, fact };
        self.graph.apply(records, &entry)?;
        self.entries.push(entry);
        Ok(self.counters.entries)
    }

    /// What the batch changed.
    pub fn changes<R: Records + ?Sized>(&mut self, records: &mut R) -> Result<Changes, R::Error> {
        self.graph.changes(records)
    }

    /// Puts whoever destinations are told about when it is about this identifier among the changes, as of the last entry: what they can
    /// be told with is new, though nothing was said of them.
    pub fn touch(&mut self, no: IdentifierNo) {
        self.graph.touch_parties(no, self.counters.entries);
    }

    /// The identifier under a key, if it is known.
    pub fn find<R: Records + ?Sized>(&self, records: &mut R, key: &LookupKey) -> Result<Option<IdentifierNo>, R::Error> {
        match self.new_identifiers.get(key) {
            Some(IdRef(no, _)) => Ok(Some(*no)),
            None => records.find(key),
        }
    }

    /// The identifier's reference, with a new row number if it was never seen.
    fn identify<R: Records + ?Sized>(&mut self, records: &mut R, named: &Named) -> Result<IdRef, R::Error> {
        if let Some(no) = self.find(records, &named.key)? {
            return Ok(IdRef(no, named.kind));
        }
        self.counters.identifiers += 1;
        let found = IdRef(IdentifierNo(self.counters.identifiers), named.kind);
        self.new_identifiers.insert(named.key, found);
        Ok(found)
    }

    fn identify_all<R: Records + ?Sized>(&mut self, records: &mut R, named: &[Named]) -> Result<Vec<IdRef>, R::Error> {
        named.iter().map(|one| self.identify(records, one)).collect()
    }

    /// A row number for a new subject.
    pub fn new_subject(&mut self) -> SubjectNo {
        self.counters.subjects += 1;
        SubjectNo(self.counters.subjects)
    }

    /// The subject that the identifiers name: the holder of the `campaign_pkey`, else of the
    /// `customer_id`, else a subject that holds them all. Of several, the oldest.
    fn resolve<R: Records + ?Sized>(&mut self, records: &mut R, named: &[Named]) -> Result<Option<SubjectNo>, R::Error> {
        Ok(self.candidates(records, named)?.first().copied())
    }

    /// Every subject that [`Batch::resolve`] could mean, oldest first. An identifier held by too
    /// many names nobody, but still tells apart who holds it from who does not.
    fn candidates<R: Records + ?Sized>(&mut self, records: &mut R, named: &[Named]) -> Result<Vec<SubjectNo>, R::Error> {
        for kind in [Kind::CampaignPkey, Kind::CustomerId] {
            for one in named.iter().filter(|one| one.kind == kind) {
                if let Some(no) = self.find(records, &one.key)?
                    && let Some(holder) = self.graph.holders(records, no)?.first()
                {
                    return Ok(vec![*holder]);
                }
            }
        }
        if named.len() < 2 {
            return Ok(Vec::new());
        }
        let mut common: Option<Vec<SubjectNo>> = None;
        let mut shared = Vec::new();
        for one in named {
            let Some(no) = self.find(records, &one.key)? else { return Ok(Vec::new()) };
            if self.is_shared(records, no)? {
                shared.push(no);
                continue;
            }
            let holders = self.graph.holders(records, no)?;
            common = Some(match common {
                None => holders,
                Some(sofar) => sofar.into_iter().filter(|subject| holders.contains(subject)).collect(),
            });
        }
        let mut candidates = Vec::new();
        'subjects: for subject in common.unwrap_or_default() {
            for no in &shared {
                if !self.graph.holds(records, subject, *no)? {
                    continue 'subjects;
                }
            }
            candidates.push(subject);
        }
        Ok(candidates)
    }

    /// The same for acts and links, which may also extend a subject without an account that holds a
    /// named person-level identifier: else an e-mail named with 65 cookies, one after another, would
    /// be held by 65 subjects, count as nobody's, and let no opt-out pass to the account it belongs to.
    fn resolve_or_extend<R: Records + ?Sized>(&mut self, records: &mut R, named: &[Named]) -> Result<Option<SubjectNo>, R::Error> {
        let found = self.resolve(records, named)?;
        if found.is_some() || named.len() < 2 || named.iter().any(|one| one.kind.names_subject()) {
            return Ok(found);
        }
        for one in named.iter().filter(|one| one.kind.is_person_level()) {
            let Some(no) = self.find(records, &one.key)? else { continue };
            'holders: for holder in self.graph.holders(records, no)? {
                // Devices change, people do not: one phone in many rows of a file is no one person.
                for other in named.iter().filter(|other| other.kind.is_person_level()) {
                    match self.find(records, &other.key)? {
                        Some(other) if self.graph.holds(records, holder, other)? => {}
                        _ => continue 'holders,
                    }
                }
                for held in self.graph.held(records, holder)? {
                    if self.graph.identifier(records, held)?.is_some_and(|row| row.kind.names_subject()) {
                        continue 'holders;
                    }
                }
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    fn is_shared<R: Records + ?Sized>(&mut self, records: &mut R, no: IdentifierNo) -> Result<bool, R::Error> {
        Ok(self.graph.identifier(records, no)?.is_some_and(|row| row.shared))
    }

    /// Whether each of these is held by too many, so that a subject for them would stand for nobody.
    fn all_shared<R: Records + ?Sized>(&mut self, records: &mut R, named: &[Named]) -> Result<bool, R::Error> {
        for one in named {
            match self.find(records, &one.key)? {
                Some(no) if self.is_shared(records, no)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn check_named(named: &[Named]) -> Result<(), Refused> {
        match named.len() {
            0 => Err(Refused::NobodyNamed),
            1..=NAMED_MAX => Ok(()),
            _ => Err(Refused::TooManyNamed),
        }
    }

    /// Links `named` to the subject as far as there is room, and returns all references.
    fn link_named<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        named: &[Named],
        by: Actor,
        always: bool,
    ) -> Result<Vec<IdRef>, R::Error> {
        let mut all = Vec::with_capacity(named.len());
        let mut missing = Vec::new();
        for one in named {
            let reference = self.identify(records, one)?;
            if !all.contains(&reference) {
                all.push(reference);
                if !self.graph.holds(records, subject, reference.0)? {
                    missing.push(reference);
                }
            }
        }
        if !missing.is_empty() && (always || self.graph.has_room(records, subject, missing.len() as u64)?) {
            self.emit(records, Fact::Linked { subject, identifiers: missing, by })?;
        }
        Ok(all)
    }

    /// Records an opt-out or a limit. It is never refused for want of knowledge about the person.
    pub fn opt_out<R: Records + ?Sized>(&mut self, records: &mut R, mut act: OptOut) -> Result<Result<Recorded, Refused>, R::Error> {
        if act.subject.is_none()
            && let Err(refused) = Self::check_named(&act.named)
        {
            return Ok(Err(refused));
        }
        if act.acted_at.is_some_and(|at| at > self.now + CLOCK_SKEW_SECONDS_MAX) {
            return Ok(Err(Refused::Future));
        }
        if act.purposes.is_empty() {
            return Ok(Err(Refused::NoPurpose));
        }
        act.named = distinct(&act.named);
        // No act is older; an entry cannot hold every number as a time.
        act.acted_at = act.acted_at.map(|at| at.max(0));
        let mut subject = match act.subject {
            Some(subject) => Some(subject),
            None => self.resolve_or_extend(records, &act.named)?,
        };
        if subject.is_none() && act.named.len() > 1 && !self.all_shared(records, &act.named)? {
            subject = Some(self.new_subject());
        }
        let identifiers = match subject {
            Some(subject) => self.link_named(records, subject, &act.named, act.by, false)?,
            None => self.identify_all(records, &act.named)?,
        };
        let mut unreached = Vec::new();
        for IdRef(no, _) in &identifiers {
            if self.is_shared(records, *no)? {
                unreached.push(*no);
            }
        }
        let OptOut { request, kind, purposes, channel, acted_at, by, evidence, .. } = act;
        let fact = Fact::OptedOut { request, kind, subject, identifiers, purposes, channel, acted_at, by, evidence };
        let seq = self.emit(records, fact)?;
        Ok(Ok(Recorded { seq, subject, unreached }))
    }

    /// Checks the first step of an opt-in and fixes whom it is about. Writes nothing but its fact.
    pub fn ask_opt_in<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        ask: &OptInAsk<'_>,
    ) -> Result<Result<OptInTarget, Refused>, R::Error> {
        let OptInAsk { request, named, purposes, channel, by, evidence } = *ask;
        if let Err(refused) = Self::check_named(named) {
            return Ok(Err(refused));
        }
        if !channel.is_consumers() {
            return Ok(Err(Refused::NotTheConsumer));
        }
        if purposes.is_empty() {
            return Ok(Err(Refused::NoPurpose));
        }
        let named = distinct(named);
        // Without an account several identifiers prove nothing: anybody can name somebody's e-mail with
        // a device of his own, and would answer for all that belongs to the two.
        if named.len() > 1 && !named.iter().any(|one| one.kind.names_subject()) {
            return Ok(Err(Refused::NotOneSubject));
        }
        let candidates = self.candidates(records, &named)?;
        let subject = candidates.first().copied();
        match subject {
            // Several could be meant, or nobody holds them all, or it is everybody's.
            _ if candidates.len() > 1 => return Ok(Err(Refused::NotOneSubject)),
            None if named.len() > 1 || self.all_shared(records, &named)? => return Ok(Err(Refused::NotOneSubject)),
            Some(subject) => {
                for one in &named {
                    // Every named identifier is this subject's, and the account's name is nobody else's.
                    let held = match self.find(records, &one.key)? {
                        Some(no) => {
                            self.graph.holds(records, subject, no)?
                                && (!one.kind.names_subject() || self.graph.holders(records, no)?.len() == 1)
                        }
                        None => false,
                    };
                    if !held {
                        return Ok(Err(Refused::NotOneSubject));
                    }
                }
            }
            None => {}
        }
        let references = self.identify_all(records, &named)?;
        self.emit(records, Fact::OptInAsked { request, purposes, channel, by, evidence })?;
        Ok(Ok(OptInTarget { subject, named: references }))
    }

    /// The second step: the target's own line is answered, with the account's names and the devices
    /// that this subject alone holds.
    pub fn confirm_opt_in<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        request: RequestId,
        target: &OptInTarget,
        purposes: PurposeSet,
        channel: Channel,
        by: Actor,
    ) -> Result<u64, R::Error> {
        let mut identifiers = Vec::new();
        match target.subject {
            None => {
                for named in &target.named {
                    // Since the first step it may have turned out to be everybody's.
                    if !self.is_shared(records, named.0)? {
                        identifiers.push(*named);
                    }
                }
            }
            Some(subject) => {
                for no in self.graph.held(records, subject)? {
                    let row = self.graph.identifier(records, no)?.expect("held identifiers have rows");
                    let kind = row.kind;
                    let its_own = kind.names_subject() || !kind.is_person_level();
                    if its_own && !row.shared && row.holders == 1 {
                        identifiers.push(IdRef(no, kind));
                    }
                }
            }
        }
        self.emit(records, Fact::OptedIn { request, subject: target.subject, identifiers, purposes, channel, by })
    }

    /// States that identifiers are one person's. Returns the entry, or none if all was known.
    pub fn link<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        named: &[Named],
        by: Actor,
    ) -> Result<Result<Option<u64>, Refused>, R::Error> {
        if let Err(refused) = Self::check_named(named) {
            return Ok(Err(refused));
        }
        let named = &distinct(named)[..];
        if named.len() < 2 {
            return Ok(Err(Refused::NothingToLink));
        }
        let found = self.resolve_or_extend(records, named)?;
        if found.is_none() && self.all_shared(records, named)? {
            return Ok(Ok(None));
        }
        if let Some(subject) = found {
            let mut more = 0;
            for one in named {
                let held = match self.find(records, &one.key)? {
                    Some(no) => self.graph.holds(records, subject, no)?,
                    None => false,
                };
                more += u64::from(!held);
            }
            if !self.graph.has_room(records, subject, more)? {
                return Ok(Err(Refused::HoldsTooMany));
            }
        }
        let before = self.counters.entries;
        let subject = match found {
            Some(subject) => subject,
            None => self.new_subject(),
        };
        self.link_named(records, subject, named, by, false)?;
        Ok(Ok((self.counters.entries > before).then_some(self.counters.entries)))
    }

    /// Ends links: the named account (or the subject that holds all that is named) lets the other
    /// identifiers go. What was denied through them stays on both sides.
    pub fn unlink<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        named: &[Named],
        by: Actor,
    ) -> Result<Result<Option<u64>, Refused>, R::Error> {
        if let Err(refused) = Self::check_named(named) {
            return Ok(Err(refused));
        }
        let named = &distinct(named)[..];
        if named.len() < 2 {
            return Ok(Err(Refused::NothingToLink));
        }
        let Some(subject) = self.resolve(records, named)? else { return Ok(Ok(None)) };
        // The name that says which account is meant stays; a second name is one of the things let go.
        let first = |kind| named.iter().find(|one| one.kind == kind);
        let account = first(Kind::CampaignPkey).or_else(|| first(Kind::CustomerId));
        let mut identifiers = Vec::new();
        for one in named.iter().filter(|one| Some(*one) != account) {
            if let Some(no) = self.find(records, &one.key)?
                && self.graph.holds(records, subject, no)?
            {
                identifiers.push(IdRef(no, one.kind));
            }
        }
        if identifiers.is_empty() {
            return Ok(Ok(None));
        }
        Ok(Ok(Some(self.emit(records, Fact::Unlinked { subject, identifiers, by })?)))
    }

    /// Makes what a profile holds exactly `named`, ending and beginning links as needed.
    pub fn hold_exactly<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        old: &[Named],
        new: &[Named],
        by: Actor,
    ) -> Result<(), R::Error> {
        let mut ended = Vec::new();
        for one in old.iter().filter(|one| !new.contains(one)) {
            if let Some(no) = self.find(records, &one.key)? {
                ended.push(IdRef(no, one.kind));
            }
        }
        if !ended.is_empty() {
            self.emit(records, Fact::Unlinked { subject, identifiers: ended, by })?;
        }
        self.link_named(records, subject, new, by, true)?;
        Ok(())
    }

    /// Ends every hold of a profile that is being deleted.
    pub fn delete_profile<R: Records + ?Sized>(&mut self, records: &mut R, subject: SubjectNo, by: Actor) -> Result<u64, R::Error> {
        let mut identifiers = Vec::new();
        for no in self.graph.held(records, subject)? {
            let kind = self.graph.identifier(records, no)?.expect("held identifiers have rows").kind;
            identifiers.push(IdRef(no, kind));
        }
        if !identifiers.is_empty() {
            self.emit(records, Fact::Unlinked { subject, identifiers, by })?;
        }
        self.emit(records, Fact::ProfileDeleted { subject, by })
    }

    /// An API client wishes to allow again: it can end only what it denied itself on this profile.
    /// `alone` says that the wish was the request's only member.
    pub fn api_opt_in<R: Records + ?Sized>(
        &mut self,
        records: &mut R,
        subject: SubjectNo,
        purposes: PurposeSet,
        alone: bool,
        allowed_by_policy: bool,
        by: Actor,
    ) -> Result<ApiOptIn, R::Error> {
        if !self.graph.subject_denied(records, subject)?.intersects(purposes) {
            return Ok(ApiOptIn::AlreadyAllowed);
        }
        let refusal = if !allowed_by_policy {
            Some(Refusal::Policy)
        } else if !alone {
            Some(Refusal::WholeRecord)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.emit(records, Fact::OptInRefused { subject, purposes, reason, by })?;
            return Ok(ApiOptIn::Refused(reason));
        }
        let mut line = self.graph.subject(records, subject)?.line.clone();
        line.end_api(subject, purposes);
        let mut left = line.denied();
        let mut identifiers = Vec::new();
        for no in self.graph.held(records, subject)? {
            let row = self.graph.identifier(records, no)?.expect("held identifiers have rows");
            let mut line = row.line.clone();
            if row.holders == 1 && !row.shared && line.end_api(subject, purposes) {
                identifiers.push(IdRef(no, row.kind));
            }
            if row.kind.is_person_level() && !row.shared {
                left = left.union(line.denied());
            }
        }
        if left.intersects(purposes) {
            self.emit(records, Fact::OptInRefused { subject, purposes, reason: Refusal::NotOwn, by })?;
            return Ok(ApiOptIn::Refused(Refusal::NotOwn));
        }
        self.emit(records, Fact::ApiOptOutEnded { subject, identifiers, purposes, by })?;
        Ok(ApiOptIn::Ended)
    }
}
