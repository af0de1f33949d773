//! Lists of profiles by attribute. What profiles hold is sealed, so the attributes that are searched
//! are kept in memory, in order: read once in the background after a start, and kept up by the
//! writer. Those that the operator names in `vault.searchable` are a table of the store instead, in
//! clear.

mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use desist_core::mark::SubjectNo;
use desist_store::{Page, Read, StoreError};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::engine::{Ctx, Failure, Shared};
use crate::profiles;
use crate::queue::Lane;
use table::Table;

/// Profiles read at a time while the lists are made: some ten milliseconds, so that no snapshot keeps
/// the write-ahead log from being emptied.
const CHUNK: usize = 1000;
/// How long a store that cannot be read is left alone.
const AGAIN: Duration = Duration::from_millis(500);

/// Which attributes are searched, by the names that the web layer stores them under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Kept in memory alone.
    pub sealed: Vec<String>,
    /// Kept in a table of the store, in clear.
    pub clear: Vec<String>,
}

/// Profiles with their present attributes; none for one that was deleted.
pub type ProfilesChanged = Vec<(SubjectNo, Option<Zeroizing<Vec<u8>>>)>;

/// The list that answers is not made yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady;

/// The lists by attribute.
#[derive(Default)]
pub struct Search {
    state: RwLock<State>,
    builder: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Which builder may work; another number ends the earlier one.
    generation: u64,
    stopped: bool,
    searched: Searched,
    /// How many of `searched.clear` are made.
    clear_made: usize,
    table: Option<Table>,
    /// While the table is made: the last profile in it.
    made_upto: Option<SubjectNo>,
    /// Profiles beyond that which changed meanwhile; they win over what the builder reads.
    meanwhile: BTreeMap<SubjectNo, Option<Vec<String>>>,
}

impl Search {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn builder(&self) -> MutexGuard<'_, Option<std::thread::JoinHandle<()>>> {
        self.builder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every list is made.
    pub fn is_ready(&self) -> bool {
        let state = self.read();
        state.table.is_some() && state.made_upto.is_none() && state.clear_made == state.searched.clear.len()
    }

    /// Bytes of memory that the lists take.
    pub fn bytes(&self) -> usize {
        self.read().table.as_ref().map_or(0, Table::bytes)
    }

    /// Whether profiles are listed by this attribute at all.
    pub fn has(&self, field: &str) -> bool {
        let state = self.read();
        state.searched.sealed.iter().chain(&state.searched.clear).any(|known| known == field)
    }

    /// Takes over what the writer committed.
    pub(crate) fn apply(&self, changed: &ProfilesChanged) {
        if changed.is_empty() {
            return;
        }
        let mut state = self.write();
        let state = &mut *state;
        for (subject, attributes) in changed {
            let values = attributes.as_ref().map(|attributes| values(attributes, &state.searched.sealed));
            match (&mut state.table, state.made_upto) {
                (Some(table), None) => set(table, *subject, values.as_deref()),
                (Some(table), Some(upto)) if *subject <= upto => set(table, *subject, values.as_deref()),
                (Some(_), Some(_)) => drop(state.meanwhile.insert(*subject, values)),
                (None, _) => {}
            }
        }
    }

    /// Ends the builder, for good.
    pub(crate) fn stop(&self) {
        let mut state = self.write();
        (state.stopped, state.generation) = (true, state.generation + 1);
        drop(state);
        if let Some(builder) = self.builder().take()
            && builder.join().is_err()
        {
            tracing::error!("the thread that makes the lists of profiles ended with a panic");
        }
    }
}

fn set(table: &mut Table, subject: SubjectNo, values: Option<&[String]>) {
    let texts: Option<Vec<&str>> = values.map(|values| values.iter().map(String::as_str).collect());
    table.set(subject, texts.as_deref());
}

/// The texts of these attributes; empty where there is none.
fn values(attributes: &[u8], fields: &[String]) -> Vec<String> {
    let mut all: BTreeMap<String, Value> = serde_json::from_slice(attributes).unwrap_or_default();
    let mut text = |field: &String| match all.remove(field) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    fields.iter().map(&mut text).collect()
}

/// The text of one attribute.
pub(crate) fn value(attributes: &[u8], field: &str) -> String {
    values(attributes, &[field.to_owned()]).pop().unwrap_or_default()
}

/// Notes in a command that a profile's attributes changed, or came or went.
pub(crate) fn changed(ctx: &mut Ctx<'_>, subject: SubjectNo, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), StoreError> {
    // What is in clear is told by the store and not by the policy, which may have changed meanwhile.
    let progress = progress(ctx.write)?;
    if !progress.is_empty() {
        let clear: Vec<String> = progress.keys().cloned().collect();
        let [old, new] = [old, new].map(|attributes| attributes.map(|attributes| values(attributes, &clear)));
        for (place, (field, filled)) in progress.iter().enumerate() {
            let at = |values: &Option<Vec<String>>| values.as_ref().map(|values| values[place].clone());
            let new = at(&new).filter(|_| *filled != Filled::Leaving);
            ctx.write.put_profile_text(subject, field, at(&old).as_deref(), new.as_deref())?;
        }
    }
    ctx.profiles_changed.push((subject, new.map(|new| Zeroizing::new(new.to_vec()))));
    Ok(())
}

/// Reads profiles again of which it is not known what became of them.
pub(crate) fn refresh(shared: &Shared, subjects: &[SubjectNo]) -> Result<(), StoreError> {
    let mut changed = ProfilesChanged::new();
    shared.readers.read(&mut |read| {
        changed.clear();
        for subject in subjects {
            let found = profiles::open(read, shared, *subject)?.ok().flatten();
            changed.push((*subject, found.map(|found| found.attributes)));
        }
        Ok(())
    })?;
    shared.search.apply(&changed);
    Ok(())
}

/// Makes the lists that the policy asks for, in the background; does nothing if they are made or being made.
pub(crate) fn start(shared: &Arc<Shared>) {
    let searched = shared.policy.load().searched.clone();
    let mut builder = shared.search.builder();
    let mut state = shared.search.write();
    if state.stopped || (state.table.is_some() && state.searched == searched) {
        return;
    }
    let generation = state.generation + 1;
    let table = Table::new(searched.sealed.len());
    *state = State { generation, searched, table: Some(table), made_upto: Some(SubjectNo(0)), ..State::default() };
    drop(state);
    // The one before ends by itself, at its next look at the generation.
    let shared = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("profile lists".into()).spawn(move || {
        while let Err(error) = make(&shared, generation) {
            tracing::warn!(%error, "the lists of profiles cannot be made yet");
            std::thread::park_timeout(AGAIN);
        }
    });
    match spawned {
        Ok(handle) => *builder = Some(handle),
        Err(error) => tracing::error!(%error, "no thread to make the lists of profiles; searches answer 503"),
    }
}

/// Makes all lists, from where an earlier try ended. Returns early when another builder took over.
fn make(shared: &Arc<Shared>, generation: u64) -> Result<(), StoreError> {
    let Some(searched) = current(shared, generation, |state| state.searched.clone()) else { return Ok(()) };
    match make_clear(shared, generation, &searched) {
        Ok(()) => {}
        Err(Failure::Busy | Failure::NotDurable) => return Err(StoreError::Busy),
        // What a command refuses here is a row that does not open; the check names it.
        Err(Failure::Refused(_)) => return Err(StoreError::Damaged("a profile does not open".into())),
    }
    loop {
        let Some(Some(from)) = current(shared, generation, |state| state.made_upto) else { return Ok(()) };
        let (mut rows, mut last, mut finished) = (Vec::new(), from, false);
        shared.readers.read(&mut |snapshot| {
            rows.clear();
            let subjects = snapshot.profiles(from, CHUNK)?;
            (last, finished) = (subjects.last().copied().unwrap_or(from), subjects.len() < CHUNK);
            for subject in subjects {
                // One that does not open cannot be shown either; the check names it.
                if let Ok(Some(found)) = profiles::open(snapshot, shared, subject)? {
                    rows.push((subject, values(&found.attributes, &searched.sealed)));
                }
            }
            Ok(())
        })?;
        let made = current(shared, generation, |state| {
            let Some(table) = &mut state.table else { return true };
            let beyond = if finished { BTreeMap::new() } else { state.meanwhile.split_off(&SubjectNo(last.0 + 1)) };
            let meanwhile = std::mem::replace(&mut state.meanwhile, beyond);
            for (subject, values) in rows {
                set(table, subject, Some(&values));
            }
            for (subject, values) in meanwhile {
                set(table, subject, values.as_deref());
            }
            state.made_upto = (!finished).then_some(last);
            finished
        });
        if made != Some(false) {
            tracing::debug!(bytes = shared.search.bytes(), "the lists of profiles are made");
            return Ok(());
        }
    }
}

/// Looks at the state, unless another builder took over.
fn current<T>(shared: &Shared, generation: u64, look: impl FnOnce(&mut State) -> T) -> Option<T> {
    let mut state = shared.search.write();
    (state.generation == generation).then(|| look(&mut state))
}

/// Fills the table in clear with the attributes that were added to `vault.searchable`, and removes
/// those that were taken out. Its progress is in the store, so that it goes on after a restart.
fn make_clear(shared: &Arc<Shared>, generation: u64, searched: &Searched) -> Result<(), Failure> {
    let run = |work: fn(&mut Ctx<'_>, &str) -> Result<bool, StoreError>, field: &str| {
        let field = field.to_owned();
        loop {
            if current(shared, generation, |_| ()).is_none() {
                return Ok::<(), Failure>(());
            }
            let name = field.clone();
            let queued = shared.enqueue(Lane::Bulk, move |ctx| {
                // Another builder may have begun since, to whose work this one must add nothing.
                if current(ctx.shared, generation, |_| ()).is_none() { Ok(Ok(true)) } else { work(ctx, &name).map(Ok) }
            })?;
            if queued.blocking_recv().unwrap_or(Err(Failure::NotDurable))? {
                return Ok(());
            }
        }
    };
    let mut known = Progress::new();
    let read = shared.readers.read(&mut |read| {
        known = progress(read)?;
        Ok(())
    });
    read.map_err(|_| Failure::NotDurable)?;
    for field in known.keys().filter(|field| !searched.clear.contains(field)) {
        run(remove_field, field)?;
    }
    for (place, field) in searched.clear.iter().enumerate() {
        run(fill_field, field)?;
        current(shared, generation, |state| state.clear_made = place + 1);
    }
    Ok(())
}

/// How much of an attribute is in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Filled {
    /// Profiles up to this one.
    Upto(u64),
    /// All profiles.
    All,
    /// Some: it is being removed, and must be gone before it is filled again.
    Leaving,
}

/// The attributes in clear.
type Progress = BTreeMap<String, Filled>;

/// The row of `meta` that holds it.
const PROGRESS: &str = "searchable";

fn progress(read: &mut (impl Read + ?Sized)) -> Result<Progress, StoreError> {
    let stored = read.meta(PROGRESS)?.unwrap_or_else(|| b"{}".to_vec());
    serde_json::from_slice(&stored).map_err(|_| StoreError::Damaged(format!("meta: {PROGRESS}")))
}

fn put_progress(ctx: &mut Ctx<'_>, progress: &Progress) -> Result<(), StoreError> {
    ctx.write.put_meta(PROGRESS, &serde_json::to_vec(progress).expect("a map of names and numbers is JSON"))
}

fn remove_field(ctx: &mut Ctx<'_>, field: &str) -> Result<bool, StoreError> {
    let done = ctx.write.remove_profile_texts(field, CHUNK)? == 0;
    let mut progress = progress(ctx.write)?;
    if done {
        progress.remove(field)
    } else {
        progress.insert(field.to_owned(), Filled::Leaving)
    };
    put_progress(ctx, &progress)?;
    Ok(done)
}

fn fill_field(ctx: &mut Ctx<'_>, field: &str) -> Result<bool, StoreError> {
    let mut progress = progress(ctx.write)?;
    let upto = match progress.get(field) {
        None => 0,
        Some(Filled::Upto(upto)) => *upto,
        Some(Filled::All) => return Ok(true),
        // What is left may be old; it goes first.
        Some(Filled::Leaving) => return remove_field(ctx, field).map(|_| false),
    };
    let subjects = ctx.write.profiles(SubjectNo(upto), CHUNK)?;
    for subject in &subjects {
        if let Ok(Some(found)) = profiles::open(ctx.write, ctx.shared, *subject)? {
            ctx.write.put_profile_text(*subject, field, None, Some(&value(&found.attributes, field)))?;
        }
    }
    let last = subjects.last().filter(|_| subjects.len() == CHUNK);
    progress.insert(field.to_owned(), last.map_or(Filled::All, |last| Filled::Upto(last.0)));
    put_progress(ctx, &progress)?;
    Ok(last.is_none())
}

/// Profiles by an attribute, those whose value begins with `prefix`, in the order of (value, number).
pub(crate) fn range(
    shared: &Shared,
    field: &str,
    prefix: &str,
    page: Page<&str>,
) -> Result<Result<Vec<(String, SubjectNo)>, NotReady>, StoreError> {
    // Looked up and read under one lock: in between another table could take its place.
    let state = shared.search.read();
    match find(&state, field) {
        Ok(List::Memory(column)) => {
            let after = page.after.map(|(value, no)| (value, SubjectNo(no)));
            Ok(state.table.as_ref().map(|table| table.range(column, prefix, after, page.descending, page.limit)).ok_or(NotReady))
        }
        Ok(List::Store) => {
            let generation = state.generation;
            drop(state);
            let mut found = Vec::new();
            shared.readers.read(&mut |read| {
                found = read.profile_texts(field, prefix, page)?;
                Ok(())
            })?;
            // Meanwhile the removal from clear may have begun.
            let stands = shared.search.read().generation == generation;
            Ok(if stands { Ok(found) } else { Err(NotReady) })
        }
        Err(NotReady) => Ok(Err(NotReady)),
    }
}

/// How many values of an attribute begin with `prefix`.
pub(crate) fn count(shared: &Shared, field: &str, prefix: &str) -> Result<Result<u64, NotReady>, StoreError> {
    // Looked up and read under one lock: in between another table could take its place.
    let state = shared.search.read();
    match find(&state, field) {
        Ok(List::Memory(column)) => Ok(state.table.as_ref().map(|table| table.count(column, prefix) as u64).ok_or(NotReady)),
        Ok(List::Store) => {
            let generation = state.generation;
            drop(state);
            let mut found = 0;
            shared.readers.read(&mut |read| {
                found = read.profile_text_count(field, prefix)?;
                Ok(())
            })?;
            // Meanwhile the removal from clear may have begun.
            let stands = shared.search.read().generation == generation;
            Ok(if stands { Ok(found) } else { Err(NotReady) })
        }
        Err(NotReady) => Ok(Err(NotReady)),
    }
}

/// Where an attribute's list is.
enum List {
    Memory(usize),
    Store,
}

fn find(state: &State, field: &str) -> Result<List, NotReady> {
    if let Some(place) = state.searched.clear.iter().position(|known| known == field) {
        return if place < state.clear_made { Ok(List::Store) } else { Err(NotReady) };
    }
    let column = state.searched.sealed.iter().position(|known| known == field);
    column.filter(|_| state.made_upto.is_none()).map(List::Memory).ok_or(NotReady)
}
