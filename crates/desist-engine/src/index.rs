//! The decision index: from each identifier that anything is known of to what is known.
//!
//! Every decision looks here and nowhere else, so the index holds all identifiers in memory, in at
//! most 32 bytes each, and is read while it is written.
//!
//! **Entries.** 16 bytes: the first 14 of the lookup key and the number of the verdict in a table
//! of distinct verdicts, of which a store has few. Keys are cipher output: at 100 million of them
//! the chance that any two share their first 14 bytes is below 10^-18. A verdict that comes when
//! all numbers are given lives in a side map; that is slower and nothing else.
//!
//! **Locks.** One lock over everything, because what a lookup costs beside its two cache misses is
//! the locked instruction: the processor runs several lookups at once until it meets one. So who
//! looks up many identifiers takes a [`View`], which is the lock, for a batch of them; within a
//! view a lookup is one in a bare hash table. A write holds the lock for some 100 ns.
//!
//! **Shards** keep the steps of growth small. Each is a `hashbrown` table. Keys are uniform and no
//! caller chooses them, so they are their own hash. Bytes 0 to 3 choose the shard and bytes 6 to 13
//! are the table's hash (low bits the bucket, top seven the tag): bits that served both would crowd
//! every shard's entries into a few of its buckets.
//!
//! Shards are of *unequal* width, the last twice as wide as the first. A table doubles when it is
//! 7/8 full, and would then hold 39 bytes for each entry. Equal shards all do that at the same
//! moment; these do it one after another while the index doubles, so that at every size some are
//! nearly full and some half empty. The whole stays between 26 and 30 bytes an entry however far
//! it grows from the size it was made for.
//!
//! **Growth.** The number of shards follows from the expected size and is fixed. An index that
//! grows far beyond it works as well and takes no more memory, but its tables, and with them the
//! time one write takes when a table doubles, grow with it (a few milliseconds at the expected
//! size). The next start takes the number of shards from the size found then. Readers never wait
//! for a doubling: the writer fills the larger table beside the one they read, and changes them
//! over. Memory of removed entries is used again by the same shard, and goes back at the next start.

pub mod huge;
mod snapshot;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use desist_core::decision::Verdict;
use desist_core::lookup::LookupKey;
use hashbrown::HashTable;

use self::huge::HugePages;
pub use self::snapshot::{Snapshot, SnapshotError};

/// Entries in a shard of mean width at the expected size: tables of 2 to 4 MiB, which are on huge
/// pages, double in a few milliseconds, and stay in the cache while a snapshot is loaded.
const SHARD_ENTRIES: usize = 100_000;
/// Enough for the doublings to be spread out.
const MIN_SHARDS: usize = 16;
/// Beyond 400 million entries tables get larger instead of more.
const MAX_SHARDS: usize = 4096;

/// The verdict number of entries whose verdict is in the side map.
const OVERFLOW: u16 = u16::MAX;
/// How many distinct verdicts have numbers.
const MAX_VERDICTS: usize = OVERFLOW as usize;

const POISONED: &str = "nothing panics while it holds a lock of the index";

/// The 14 bytes of a lookup key that are kept, as numbers, so that a lookup stays in registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    /// Bytes 0 to 7, the first one highest.
    high: u64,
    /// Bytes 8 to 13, the first one highest; the low 16 bits are 0.
    low: u64,
}

impl Key {
    #[inline]
    fn new(key: &LookupKey) -> Self {
        let bits = u128::from_be_bytes(key.0);
        Self { high: (bits >> 64) as u64, low: bits as u64 & !NUMBER }
    }

    /// The hash within a shard, bytes 6 to 13: none of those that choose the shard.
    #[inline]
    fn hash(self) -> u64 {
        (self.high << 48) | (self.low >> 16)
    }

    fn to_bytes(self) -> [u8; 14] {
        let bits = (u128::from(self.high) << 64) | u128::from(self.low);
        *bits.to_be_bytes().first_chunk().expect("14 is less than 16")
    }
}

/// The bits of [`Entry::low`] that are no key.
const NUMBER: u64 = 0xffff;

/// A key, with the number of its verdict in the bits that the key leaves.
#[derive(Clone, Copy)]
struct Entry {
    high: u64,
    low: u64,
}

impl Entry {
    fn new(key: Key, number: u16) -> Self {
        Self { high: key.high, low: key.low | u64::from(number) }
    }

    #[inline]
    fn is(&self, key: Key) -> bool {
        self.high == key.high && self.low & !NUMBER == key.low
    }

    #[inline]
    fn key(&self) -> Key {
        Key { high: self.high, low: self.low & !NUMBER }
    }

    #[inline]
    fn number(&self) -> u16 {
        (self.low & NUMBER) as u16
    }
}

type Table = HashTable<Entry, HugePages>;

/// What is known of every identifier, see the module documentation. Any number of threads may
/// read while one writes; several writers take turns.
pub struct DecisionIndex {
    route: Route,
    pages: HugePages,
    contents: RwLock<Contents>,
    /// Whoever holds this writes. Taken before the lock of the contents.
    numbers: Mutex<Numbers>,
}

struct Contents {
    len: usize,
    shards: Box<[Table]>,
    /// The distinct verdicts by number. Only ever appended to.
    verdicts: Vec<Verdict>,
    /// Verdicts without a number.
    overflow: HashMap<Key, Verdict>,
}

impl Contents {
    #[inline]
    fn verdict(&self, entry: &Entry) -> Verdict {
        match self.verdicts.get(usize::from(entry.number())) {
            Some(verdict) => *verdict,
            None => self.overflown(entry.key()),
        }
    }

    /// Apart, so that the usual lookup stays small: how many the processor has under way at once
    /// depends on it.
    #[cold]
    #[inline(never)]
    fn overflown(&self, key: Key) -> Verdict {
        *self.overflow.get(&key).expect("a verdict without a number is in the side map")
    }
}

/// The number of each distinct verdict, for the writer.
struct Numbers {
    by_verdict: HashMap<Verdict, u16>,
    limit: usize,
}

/// The index at one moment, for a batch of lookups. Nothing is written while it lives, and once a
/// writer waits no other view is given, so let go of it after some thousand lookups; and a thread
/// that has one must not ask for another or write.
pub struct View<'a> {
    route: &'a Route,
    contents: RwLockReadGuard<'a, Contents>,
}

impl View<'_> {
    /// What is known of the identifier; the default, which is nothing, if it has no entry.
    #[inline]
    pub fn get(&self, key: &LookupKey) -> Verdict {
        let key = Key::new(key);
        self.contents.shards[self.route.shard(key)]
            .find(key.hash(), |entry| entry.is(key))
            .map_or_else(Verdict::default, |entry| self.contents.verdict(entry))
    }
}

impl DecisionIndex {
    /// An empty index, with as many shards as `entries` want. It takes little memory.
    pub fn with_expected(entries: usize) -> Self {
        Self::with_limit(entries, MAX_VERDICTS)
    }

    /// `limit` is the number of distinct verdicts that get numbers; tests lower it.
    fn with_limit(entries: usize, limit: usize) -> Self {
        let pages = HugePages::default();
        let route = Route::new((entries / SHARD_ENTRIES).clamp(MIN_SHARDS, MAX_SHARDS));
        let contents = RwLock::new(Contents {
            len: 0,
            shards: (0..route.shards).map(|_| Table::new_in(pages.clone())).collect(),
            verdicts: Vec::new(),
            overflow: HashMap::new(),
        });
        let numbers = Mutex::new(Numbers { by_verdict: HashMap::new(), limit: limit.min(MAX_VERDICTS) });
        Self { route, pages, contents, numbers }
    }

    /// What is known of the identifier; the default, which is nothing, if it has no entry. For many
    /// lookups a [`View`] is faster.
    #[inline]
    pub fn get(&self, key: &LookupKey) -> Verdict {
        self.view().get(key)
    }

    /// The index as it is now, for a batch of lookups.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View { route: &self.route, contents: self.read() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().expect(POISONED)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().expect(POISONED)
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().expect(POISONED)
    }

    /// Sets what is known of the identifier. The default verdict removes its entry.
    pub fn set(&self, key: &LookupKey, verdict: Verdict) {
        let key = Key::new(key);
        let shard = self.route.shard(key);
        // Held to the end, so that no other writer comes in between.
        let mut numbers = self.numbers();
        // Before the entry: so that the entry goes where there is room.
        if verdict != Verdict::default() {
            self.make_room(shard, key);
        }
        let mut contents = self.write();
        let contents = &mut *contents;
        let table = &mut contents.shards[shard];
        if verdict == Verdict::default() {
            let Ok(entry) = table.find_entry(key.hash(), |entry| entry.is(key)) else {
                return;
            };
            let (entry, _) = entry.remove();
            contents.len -= 1;
            if entry.number() == OVERFLOW {
                contents.overflow.remove(&key);
            }
            return;
        }
        let number = numbers.of(verdict, &mut contents.verdicts).unwrap_or(OVERFLOW);
        if number == OVERFLOW {
            contents.overflow.insert(key, verdict);
        }
        if let Some(present) = table.find_mut(key.hash(), |entry| entry.is(key)) {
            let before = std::mem::replace(present, Entry::new(key, number)).number();
            if before == OVERFLOW && number != OVERFLOW {
                contents.overflow.remove(&key);
            }
        } else {
            add(table, Entry::new(key, number));
            contents.len += 1;
        }
    }

    /// Sees to it that an entry can be added to the shard without its table growing under the
    /// readers' lock. The caller is the only writer.
    fn make_room(&self, shard: usize, key: Key) {
        let larger = {
            let contents = self.read();
            let table = &contents.shards[shard];
            if table.len() < table.capacity() || table.find(key.hash(), |entry| entry.is(key)).is_some() {
                return;
            }
            // An eighth more than there is, which doubles a table that has no removed entries.
            let mut larger = self.table(table.len() + table.len() / 8 + 1);
            for entry in table {
                add(&mut larger, *entry);
            }
            larger
        };
        let old = std::mem::replace(&mut self.write().shards[shard], larger);
        drop(old); // given back after the lock is
    }

    fn table(&self, entries: usize) -> Table {
        Table::with_capacity_in(entries, self.pages.clone())
    }

    /// How many identifiers have an entry.
    pub fn len(&self) -> usize {
        self.read().len
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        // `hashbrown` keeps one control byte beside each bucket and at most 7/8 of them in use.
        let side = |capacity: usize, entry: usize| capacity * 8 / 7 * (entry + 1);
        let numbers = side(self.numbers().by_verdict.capacity(), size_of::<(Verdict, u16)>());
        let contents = self.read();
        size_of::<Self>()
            + size_of_val(&*contents.shards)
            + self.pages.used()
            + contents.verdicts.capacity() * size_of::<Verdict>()
            + numbers
            + side(contents.overflow.capacity(), size_of::<(Key, Verdict)>())
    }
}

impl Numbers {
    /// The verdict's number, a new one if it has none, or `None` if all are given.
    fn of(&mut self, verdict: Verdict, verdicts: &mut Vec<Verdict>) -> Option<u16> {
        if let Some(number) = self.by_verdict.get(&verdict) {
            return Some(*number);
        }
        if verdicts.len() >= self.limit {
            return None;
        }
        let number = verdicts.len() as u16;
        verdicts.push(verdict);
        self.by_verdict.insert(verdict, number);
        Some(number)
    }
}

impl std::fmt::Debug for DecisionIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecisionIndex").field("len", &self.len()).field("shards", &self.route.shards).finish_non_exhaustive()
    }
}

/// Adds an entry whose key is not in the table.
fn add(table: &mut Table, entry: Entry) {
    table.insert_unique(entry.key().hash(), entry, |entry| entry.key().hash());
}

/// Which keys belong to which shard. Shards divide the keys in their order, with widths that rise
/// from 3/4 to 3/2 of the mean.
struct Route {
    shards: usize,
    /// `shards * 2^20 / 3`.
    factor: u64,
}

impl Route {
    fn new(shards: usize) -> Self {
        Self { shards, factor: ((shards as u64) << 20) / 3 }
    }

    /// With x in [0, 1) from the first 30 bits of the key, shard `shards * (4x - x²) / 3`: the
    /// slope falls from 4/3 to 2/3, so widths rise from 3/4 to 3/2.
    #[inline]
    fn shard(&self, key: Key) -> usize {
        let x = key.high >> 34;
        let curve = x * ((1 << 32) - x); // 4x - x², times 2^60: below 3 * 2^60
        (((curve >> 30) * self.factor) >> 50) as usize
    }
}

#[cfg(test)]
mod tests;
