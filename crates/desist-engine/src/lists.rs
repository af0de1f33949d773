//! Lists of profiles: filters that narrow each other, an order, pages that stay in step while others
//! write. A page begins strictly after an entry, never at a count, so that what is written between two
//! pages neither hides a profile nor shows one twice.

use std::fmt;

use desist_core::identifier::{Identifier, Kind};
use desist_core::mark::{IdentifierNo, SubjectNo};
use desist_store::{Page, Read, StoreError, Subscriptions, TimeColumn};

use crate::engine::{Engine, Shared};
use crate::profiles::{self, Profile};
use crate::search::{self, NotReady, value};

/// Candidates looked at in one snapshot: some tens of milliseconds.
const CHUNK: usize = 1000;

/// What profiles are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// An attribute that is searched.
    Field(String),
    /// A time of the profile.
    Time(TimeColumn),
}

/// What a profile must fulfil.
#[derive(Clone)]
pub enum Filter {
    /// Its e-mail is this one.
    Email(Identifier),
    /// One of these searched attributes begins so.
    Text {
        /// At least one, all searched.
        fields: Vec<String>,
        /// Compared with case.
        prefix: String,
    },
    /// It subscribed to the service of this number.
    Subscribers(u64),
    /// It is opted out, or it is not.
    OptedOut(bool),
}

/// Which profiles, in which order.
#[derive(Clone, Default)]
pub struct Question {
    /// All must be fulfilled.
    pub filters: Vec<Filter>,
    /// The column, and whether from the greatest to the least.
    pub order: Option<(Column, bool)>,
}

/// An entry's place in a list: what the next page begins after. It holds personal data, so only its
/// sealed form leaves the server.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which of the lists that follow each other in one answer, from 0 on.
    pub stage: u8,
    /// What the entry has in the column of the order.
    pub value: String,
    /// The number of the entry's row.
    pub no: u64,
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position").field("stage", &self.stage).field("no", &self.no).finish_non_exhaustive()
    }
}

impl Position {
    /// The plain form: the stage, the row number in eight bytes (the lowest first), the value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.stage];
        bytes.extend(self.no.to_le_bytes());
        bytes.extend(self.value.as_bytes());
        bytes
    }
    /// Reads [`Self::to_bytes`]; nothing for bytes that it does not write.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stage, rest) = bytes.split_first()?;
        let (no, value) = rest.split_first_chunk()?;
        Some(Self { stage: *stage, no: u64::from_le_bytes(*no), value: str::from_utf8(value).ok()?.to_owned() })
    }
}

/// One page.
pub struct Listed {
    /// The profiles.
    pub profiles: Vec<Profile>,
    /// Where the next page begins; none on the last one.
    pub next: Option<Position>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The list is still being made.
    #[error("the list of profiles is still being made")]
    NotReady,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotReady> for ListError {
    fn from(_: NotReady) -> Self {
        Self::NotReady
    }
}

/// A candidate.
struct Entry {
    position: Position,
    subject: SubjectNo,
    /// Whether it fulfils the filter that the source stands for without another look.
    certain: bool,
}

/// What candidates are taken from.
enum Source {
    All,
    Time(TimeColumn, bool),
    Text { fields: Vec<String>, prefix: String, descending: bool },
    Holders(Identifier),
    Subscribers(u64),
    Denied,
}

/// A question as it is carried out.
struct Plan {
    source: Source,
    /// What candidates are tested for.
    filters: Vec<Filter>,
    /// The filter that [`Entry::certain`] speaks of.
    implied: Option<usize>,
    /// The order, where it is not the source's own.
    sort: Option<(Column, bool)>,
}

fn plan(question: &Question) -> Plan {
    let filters = question.filters.clone();
    let find = |wanted: fn(&Filter) -> bool| filters.iter().position(wanted);
    // From the one that leaves fewest.
    let chosen = find(|filter| matches!(filter, Filter::Email(_)))
        .or_else(|| find(|filter| matches!(filter, Filter::Text { .. })))
        .or_else(|| find(|filter| matches!(filter, Filter::Subscribers(_))))
        .or_else(|| find(|filter| matches!(filter, Filter::OptedOut(true))));
    let own_order = |field: &str| match &question.order {
        Some((Column::Field(order), descending)) if order == field => Some(*descending),
        _ => None,
    };
    let (source, sorted) = match chosen.map(|at| &filters[at]) {
        Some(Filter::Email(identifier)) => (Source::Holders(*identifier), false),
        Some(Filter::Subscribers(service)) => (Source::Subscribers(*service), false),
        Some(Filter::Text { fields, prefix }) => {
            let own = if let [field] = fields.as_slice() { own_order(field) } else { None };
            (Source::Text { fields: fields.clone(), prefix: prefix.clone(), descending: own.unwrap_or_default() }, own.is_some())
        }
        Some(Filter::OptedOut(_)) => (Source::Denied, false),
        None => match &question.order {
            None => (Source::All, true),
            Some((Column::Time(column), descending)) => (Source::Time(*column, *descending), true),
            Some((Column::Field(field), descending)) => {
                (Source::Text { fields: vec![field.clone()], prefix: String::new(), descending: *descending }, true)
            }
        },
    };
    let sort = if sorted { None } else { question.order.clone() };
    Plan { source, filters, implied: chosen, sort }
}

/// A page of the list: at most `limit` profiles after a position.
pub fn page(engine: &Engine, question: &Question, after: Option<&Position>, limit: usize) -> Result<Listed, ListError> {
    let shared = engine.shared();
    let plan = plan(question);
    let mut entries = match &plan.sort {
        None => stream(shared, &plan, after, limit + 1)?,
        Some((column, descending)) => sorted(shared, &plan, column, *descending, after, limit + 1)?,
    };
    let next = if entries.len() > limit {
        entries.truncate(limit);
        entries.last().map(|entry| entry.position.clone())
    } else {
        None
    };
    let profiles = engine.read(|read| {
        let mut profiles = Vec::with_capacity(entries.len());
        for entry in &entries {
            // One that was deleted since is left out; one that does not open is named by the check.
            if let Ok(Some(profile)) = profiles::get_by_subject(read, shared, entry.subject)? {
                profiles.push(profile);
            }
        }
        Ok(profiles)
    })?;
    Ok(Listed { profiles, next })
}

/// How many profiles the question has.
pub fn count(engine: &Engine, question: &Question) -> Result<u64, ListError> {
    let shared = engine.shared();
    match question.filters.as_slice() {
        [] => return Ok(engine.read(|read| read.profile_count())?),
        [Filter::Text { fields, prefix }] => {
            if let [field] = fields.as_slice() {
                return Ok(search::count(shared, field, prefix)??);
            }
        }
        // The answer that has to look at every profile is left to the other one.
        [Filter::OptedOut(false)] => {
            let opted_out = Question { filters: vec![Filter::OptedOut(true)], order: None };
            let all = engine.read(|read| read.profile_count())?;
            return Ok(all.saturating_sub(count(engine, &opted_out)?));
        }
        _ => {}
    }
    let plan = plan(&Question { filters: question.filters.clone(), order: None });
    let mut counted = 0;
    each(shared, &plan, None, CHUNK, &mut |_, _| {
        counted += 1;
        Ok(true)
    })?;
    Ok(counted)
}

/// The entries in the source's own order.
fn stream(shared: &Shared, plan: &Plan, after: Option<&Position>, limit: usize) -> Result<Vec<Entry>, ListError> {
    let mut found = Vec::new();
    // Where candidates may fall out, more are taken than are needed.
    let chunk = if plan.filters.is_empty() { limit } else { limit.max(CHUNK / 10) };
    each(shared, plan, after.cloned(), chunk, &mut |_, entry| {
        found.push(entry);
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

/// The entries in another order than the source's: all are looked at, few are kept.
fn sorted(
    shared: &Shared,
    plan: &Plan,
    column: &Column,
    descending: bool,
    after: Option<&Position>,
    limit: usize,
) -> Result<Vec<Entry>, ListError> {
    let order = |one: &Position, other: &Position| if descending { other.cmp(one) } else { one.cmp(other) };
    let mut kept: Vec<Entry> = Vec::new();
    each(shared, plan, None, CHUNK, &mut |read, entry| {
        let value = match column {
            Column::Time(column) => match read.profile(entry.subject)? {
                Some(row) => time_text(*column, row.created_ms, row.modified_ms),
                None => return Ok(true),
            },
            Column::Field(field) => match profiles::open(read, shared, entry.subject)? {
                Ok(Some(found)) => value(&found.attributes, field),
                Ok(None) | Err(_) => return Ok(true),
            },
        };
        let position = Position { stage: 0, value, no: entry.subject.0 };
        if after.is_none_or(|after| order(after, &position).is_lt()) {
            kept.push(Entry { position, ..entry });
        }
        if kept.len() >= 2 * (limit + CHUNK) {
            kept.select_nth_unstable_by(limit, |one, other| order(&one.position, &other.position));
            kept.truncate(limit);
        }
        Ok(true)
    })?;
    kept.sort_by(|one, other| order(&one.position, &other.position));
    kept.truncate(limit);
    Ok(kept)
}

/// Times as texts that sort as the times do; none is before 1970.
fn time_text(column: TimeColumn, created_ms: i64, modified_ms: i64) -> String {
    let ms = match column {
        TimeColumn::Created => created_ms,
        TimeColumn::Modified => modified_ms,
    };
    format!("{ms:020}")
}

/// Calls `each` with every entry after a position that fulfils the filters, until it says no.
fn each(
    shared: &Shared,
    plan: &Plan,
    mut after: Option<Position>,
    chunk: usize,
    each: &mut dyn FnMut(&mut dyn Read, Entry) -> Result<bool, StoreError>,
) -> Result<(), ListError> {
    loop {
        let entries = candidates(shared, &plan.source, after.as_ref(), chunk)?;
        let Some(last) = entries.last().map(|entry| entry.position.clone()) else { return Ok(()) };
        let (mut entries, mut wanted) = (Some(entries), true);
        shared.readers.read(&mut |read| {
            for entry in entries.take().into_iter().flatten() {
                if fulfils(read, shared, plan, &entry)? && !each(read, entry)? {
                    wanted = false;
                    return Ok(());
                }
            }
            Ok(())
        })?;
        if !wanted {
            return Ok(());
        }
        after = Some(last);
    }
}

/// The next candidates after a position, in the source's order; none at its end.
fn candidates(shared: &Shared, source: &Source, after: Option<&Position>, limit: usize) -> Result<Vec<Entry>, ListError> {
    let entry = |value: String, no: u64, subject: SubjectNo| Entry { position: Position { stage: 0, value, no }, subject, certain: false };
    let no = after.map_or(0, |after| after.no);
    let number = || after.and_then(|after| after.value.parse::<i64>().ok());
    let mut found: Vec<Entry> = Vec::new();
    let store = |ask: &mut dyn FnMut(&mut dyn Read) -> Result<(), StoreError>| shared.readers.read(ask);
    match source {
        Source::Text { fields, prefix, descending } => return texts(shared, fields, prefix, *descending, after, limit),
        Source::All => store(&mut |read| {
            found = read.profiles(SubjectNo(no), limit)?.into_iter().map(|subject| entry(String::new(), subject.0, subject)).collect();
            Ok(())
        })?,
        Source::Time(column, descending) => store(&mut |read| {
            let page = Page { after: number().map(|ms| (ms, no)), descending: *descending, limit };
            found = read
                .profiles_by_time(*column, page)?
                .into_iter()
                .map(|(ms, subject)| entry(format!("{ms:020}"), subject.0, subject))
                .collect();
            Ok(())
        })?,
        Source::Holders(identifier) => store(&mut |read| {
            let Some(held) = read.find(&shared.lookup.key_of(identifier))? else { return Ok(()) };
            let holders = read.holders(held)?.into_iter().filter(|subject| subject.0 > no).take(limit);
            found = holders.map(|subject| entry(String::new(), subject.0, subject)).collect();
            Ok(())
        })?,
        Source::Subscribers(service) => store(&mut |read| {
            let subscriptions = read.subscriptions(Subscriptions::To(*service), no, limit)?;
            found = subscriptions.into_iter().map(|row| entry(String::new(), row.no, row.subject)).collect();
            Ok(())
        })?,
        Source::Denied => store(&mut |read| {
            // The key of the last entry once more: it may have more holders.
            let from = number().map_or(0, |key| key as u64);
            let pairs = read.denied_profiles(IdentifierNo(from.saturating_sub(1)), limit + 1)?;
            let entries = pairs.into_iter().map(|(key, subject)| entry(key_text(key), subject.0, subject));
            found = entries.filter(|entry| after.is_none_or(|after| entry.position > *after)).collect();
            Ok(())
        })?,
    }
    Ok(found)
}

/// The lists of several attributes one after the other.
fn texts(
    shared: &Shared,
    fields: &[String],
    prefix: &str,
    descending: bool,
    after: Option<&Position>,
    limit: usize,
) -> Result<Vec<Entry>, ListError> {
    let begin = after.map_or(0, |after| usize::from(after.stage));
    for (stage, field) in fields.iter().enumerate().skip(begin) {
        let after = after.filter(|_| stage == begin).map(|after| (after.value.as_str(), after.no));
        let found = search::range(shared, field, prefix, Page { after, descending, limit })??;
        if !found.is_empty() {
            // The place in the list tells all that the filter asks of the first attribute.
            let certain = stage == 0;
            let entry = |(value, subject): (String, SubjectNo)| Entry {
                position: Position { stage: stage as u8, value, no: subject.0 },
                subject,
                certain,
            };
            return Ok(found.into_iter().map(entry).collect());
        }
    }
    Ok(Vec::new())
}

/// Row numbers as texts that sort as the numbers do.
fn key_text(no: IdentifierNo) -> String {
    format!("{:020}", no.0)
}

/// Whether a candidate fulfils the filters and is a profile.
fn fulfils(read: &mut dyn Read, shared: &Shared, plan: &Plan, entry: &Entry) -> Result<bool, StoreError> {
    let mut opened = None;
    if matches!(plan.source, Source::Denied) {
        // Links can make a profile hold the keys of others. It is listed under its own.
        opened = profiles::open(read, shared, entry.subject)?.ok().flatten();
        let Some(found) = &opened else { return Ok(false) };
        let Ok((own, _)) = Identifier::from_value(Kind::CampaignPkey, &found.pkey) else { return Ok(false) };
        if read.find(&shared.lookup.key_of(&own))?.map(key_text).as_ref() != Some(&entry.position.value) {
            return Ok(false);
        }
    }
    for (place, filter) in plan.filters.iter().enumerate() {
        let implied = plan.implied == Some(place);
        if implied && entry.certain {
            continue;
        }
        let fulfilled = match filter {
            Filter::OptedOut(wanted) => profiles::is_opted_out(read, entry.subject)? == *wanted,
            Filter::Subscribers(_) if implied => true,
            Filter::Subscribers(service) => read.subscribed(entry.subject, *service)?.is_some(),
            Filter::Email(_) | Filter::Text { .. } => {
                if opened.is_none() {
                    opened = profiles::open(read, shared, entry.subject)?.ok().flatten();
                }
                let Some(found) = &opened else { return Ok(false) };
                match filter {
                    Filter::Email(wanted) => {
                        let own = Identifier::from_value(Kind::Email, &value(&found.attributes, EMAIL));
                        own.is_ok_and(|(own, _)| own.digest == wanted.digest)
                    }
                    Filter::Text { fields, prefix } => {
                        let begins = |field: &String| value(&found.attributes, field).starts_with(prefix.as_str());
                        let at = usize::from(entry.position.stage);
                        // Whoever is in the list of an earlier attribute was shown there.
                        fields.iter().any(begins) && !(implied && fields[..at].iter().any(begins))
                    }
                    Filter::OptedOut(_) | Filter::Subscribers(_) => true,
                }
            }
        };
        if !fulfilled {
            return Ok(false);
        }
    }
    // Holders can be others than profiles.
    Ok(!matches!(plan.source, Source::Holders(_)) || opened.is_some() || read.profile(entry.subject)?.is_some())
}

/// The attribute that is the e-mail.
const EMAIL: &str = "email";
