//! The texts of profiles in memory, ordered by each column: prefixes and pages over values that are sealed on disk.
//!
//! An order is a list of chunks, and a chunk is its entries packed one behind the other. Chunks of numbers that point to rows were
//! measured too: a million rows took 110 bytes each instead of 147, but every step of a search waited for memory, and replacing and
//! removing took longer. Here a page is one read straight through a chunk.

use desist_core::mark::SubjectNo;
use zeroize::{Zeroize, Zeroizing};

/// The size of a chunk, at most, unless one entry is longer. An insertion moves half of it at most. At 10 million rows the longest list
/// of chunks has over 100,000 members of 48 bytes, which move at a split, once in 50 insertions; smaller chunks would make that the
/// greater part. At a million rows, 2, 4 and 8 KiB were about equally fast.
const CHUNK_BYTES_MAX: usize = 4096;

/// What an allocation costs beside its size: glibc has a header of 8 bytes and rounds up to 16, which is 8 more on average.
const ALLOCATION_BYTES: usize = 16;

/// The most that a number takes: 64 bits, 7 in a byte.
const NUMBER_BYTES_MAX: usize = 10;

/// Rows of texts, one for each subject, in the order of every column.
///
/// It has no `Debug`: the values are personal data. Whatever held a value is wiped when it is dropped, moved or overwritten.
pub struct Table {
    /// First the rows by subject, then for each column its values by value and subject.
    orders: Vec<Order>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: usize) -> Self {
        Self::with_chunks(columns, CHUNK_BYTES_MAX)
    }

    fn with_chunks(columns: usize, chunk_bytes_max: usize) -> Self {
        let order = |number| Order { by_text: number > 0, chunks: Vec::new(), chunk_bytes_max };
        Self { orders: (0..=columns).map(order).collect() }
    }

    /// Inserts or replaces the values of a subject, or removes it (`None`). `values` has one text per column.
    pub fn set(&mut self, subject: SubjectNo, values: Option<&[&str]>) {
        // A copy, because the orders change below.
        let old = self.row(subject).map(|row| Zeroizing::new(row.to_vec()));
        let new = values.map(|values| {
            assert_eq!(values.len() + 1, self.orders.len(), "one value per column");
            let mut row = Zeroizing::new(Vec::with_capacity(values.iter().map(|value| value.len() + NUMBER_BYTES_MAX).sum()));
            for value in values {
                push_text(&mut row, value.as_bytes());
            }
            row
        });
        let (mut old_rest, mut new_rest) = (old.as_ref().map(|row| &row[..]), new.as_ref().map(|row| &row[..]));
        let [rows, columns @ ..] = &mut self.orders[..] else { return };
        rows.change(old_rest, new_rest, subject);
        for column in columns {
            column.change(old_rest.as_mut().map(take_text), new_rest.as_mut().map(take_text), subject);
        }
    }

    /// How many subjects.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.orders[0].chunks.iter().map(|chunk| chunk.starts.len()).sum()
    }

    /// Whether there is no subject.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of one column.
    #[cfg(test)]
    pub fn value(&self, column: usize, subject: SubjectNo) -> Option<&str> {
        let mut rest = self.row(subject)?;
        for _ in 0..column {
            take_text(&mut rest);
        }
        Some(text(take_text(&mut rest)))
    }

    /// Entries whose value begins with `prefix` (case-sensitive, bytes), in the order of (value bytes, subject), or the exact reverse if
    /// `descending`, strictly after `after` in that order, at most `limit`. `after` need not exist (any more).
    pub fn range(
        &self,
        column: usize,
        prefix: &str,
        after: Option<(&str, SubjectNo)>,
        descending: bool,
        limit: usize,
    ) -> Vec<(String, SubjectNo)> {
        let (order, prefix) = (&self.orders[column + 1], prefix.as_bytes());
        let after = after.map(|(value, subject)| (value.as_bytes(), subject));
        let mut place = if descending {
            order.place(|entry| !behind(entry, prefix) && after.is_none_or(|after| entry < after))
        } else {
            order.place(|entry| entry.0 < prefix || after.is_some_and(|after| entry <= after))
        };
        std::iter::from_fn(|| if descending { order.previous(&mut place) } else { order.next(&mut place) })
            .take_while(|(value, _)| value.starts_with(prefix))
            .take(limit)
            .map(|(value, subject)| (text(value).to_owned(), subject))
            .collect()
    }

    /// How many values of a column begin with `prefix`.
    pub fn count(&self, column: usize, prefix: &str) -> usize {
        let (order, prefix) = (&self.orders[column + 1], prefix.as_bytes());
        let start = order.place(|(value, _)| value < prefix);
        let end = order.place(|entry| !behind(entry, prefix));
        order.chunks[start.chunk..end.chunk].iter().map(|chunk| chunk.starts.len()).sum::<usize>() + end.index - start.index
    }

    /// Heap bytes in use (capacities, with a fixed estimate for the allocator's overhead per allocation).
    pub fn bytes(&self) -> usize {
        let chunks = |order: &Order| {
            allocated(&order.chunks) + order.chunks.iter().map(|chunk| allocated(&chunk.bytes) + allocated(&chunk.starts)).sum::<usize>()
        };
        allocated(&self.orders) + self.orders.iter().map(chunks).sum::<usize>()
    }

    fn row(&self, subject: SubjectNo) -> Option<&[u8]> {
        let mut place = self.orders[0].place(|entry| entry.1 < subject);
        let (row, found) = self.orders[0].next(&mut place)?;
        (found == subject).then_some(row)
    }
}

/// A text and whose it is: the value of a column, or all values of a row.
type Entry<'a> = (&'a [u8], SubjectNo);

/// Packed entries: the subject, the length of the text, the text.
struct Chunk {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each entry starts.
    starts: Vec<u32>,
}

impl Chunk {
    fn new(parts: &[&[u8]]) -> Self {
        let bytes = Zeroizing::new(parts.concat());
        let mut starts = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            starts.push(start(bytes.len() - rest.len()));
            take_entry(&mut rest);
        }
        starts.shrink_to_fit();
        Self { bytes, starts }
    }

    fn offset(&self, index: usize) -> usize {
        self.starts.get(index).map_or(self.bytes.len(), |start| *start as usize)
    }

    fn entry(&self, index: usize) -> Entry<'_> {
        take_entry(&mut &self.bytes[self.offset(index)..])
    }
}

/// An entry, or the end of the last chunk.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    index: usize,
}

/// Entries in order. No chunk is empty, and two neighbours together have more than half of `chunk_bytes_max`: so the chunks are at
/// most four times as many as full ones would be.
struct Order {
    /// By text and subject, or by subject only.
    by_text: bool,
    chunks: Vec<Chunk>,
    chunk_bytes_max: usize,
}

impl Order {
    fn change(&mut self, old: Option<&[u8]>, new: Option<&[u8]>, subject: SubjectNo) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove((old, subject));
        }
        if let Some(new) = new {
            self.insert((new, subject));
        }
    }

    fn insert(&mut self, entry: Entry<'_>) {
        let mut packed = Zeroizing::new(Vec::with_capacity(entry.0.len() + 2 * NUMBER_BYTES_MAX));
        push_number(&mut packed, entry.1.0);
        push_text(&mut packed, entry.0);
        let Place { chunk: number, index } = self.home(entry);
        let is_last = number + 1 >= self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(number) else { return self.chunks.push(Chunk::new(&[&packed])) };
        let (offset, end, len) = (chunk.offset(index), chunk.bytes.len(), chunk.bytes.len() + packed.len());
        if len > self.chunk_bytes_max && is_last && offset == end {
            // Behind all others a full chunk is left full, because ascending keys never come back to it.
            return self.chunks.push(Chunk::new(&[&packed]));
        }
        if len > chunk.bytes.capacity() {
            // By hand, because `Vec` would not wipe what it leaves. An eighth more and not the double: the chunks are all the memory.
            let mut grown = Vec::with_capacity(len + self.chunk_bytes_max / 8);
            grown.extend_from_slice(&chunk.bytes);
            chunk.bytes = Zeroizing::new(grown);
            chunk.starts.reserve_exact(self.chunk_bytes_max / 8 / packed.len() + 1);
        }
        chunk.bytes.resize(len, 0);
        chunk.bytes.copy_within(offset..end, offset + packed.len());
        chunk.bytes[offset..offset + packed.len()].copy_from_slice(&packed);
        chunk.starts[index..].iter_mut().for_each(|later| *later += start(packed.len()));
        chunk.starts.insert(index, start(offset));
        if len > self.chunk_bytes_max && chunk.starts.len() > 1 {
            let half = chunk.starts.partition_point(|start| *start as usize <= len / 2);
            // Neither side is empty, however long its entry is.
            let (lower, upper) = chunk.bytes.split_at(chunk.offset((half - 1).clamp(1, chunk.starts.len() - 1)));
            let (lower, upper) = (Chunk::new(&[lower]), Chunk::new(&[upper]));
            *chunk = lower;
            self.chunks.insert(number + 1, upper);
            // An entry of half a chunk leaves a part that may be small beside its other neighbour.
            self.merge(number + 1);
            self.merge(number);
        }
    }

    /// Removes an entry that is there.
    fn remove(&mut self, entry: Entry<'_>) {
        let Place { chunk: number, index } = self.home(entry);
        let chunk = &mut self.chunks[number];
        let (offset, end) = (chunk.offset(index), chunk.offset(index + 1));
        let len = chunk.bytes.len() - (end - offset);
        chunk.bytes.copy_within(end.., offset);
        chunk.bytes[len..].zeroize();
        chunk.bytes.truncate(len);
        chunk.starts.remove(index);
        chunk.starts[index..].iter_mut().for_each(|later| *later -= start(end - offset));
        if chunk.starts.is_empty() {
            self.chunks.remove(number);
        }
        self.merge(number);
        // Seldom enough to cost nothing per removal.
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
    }

    /// Merges a chunk with its neighbours as long as two fit into half of the maximum. A chunk that was just merged is then far from its
    /// next split, and the two cannot alternate.
    fn merge(&mut self, mut number: usize) {
        let half = self.chunk_bytes_max / 2;
        let small = |pair: &[Chunk]| pair[0].bytes.len() + pair[1].bytes.len() <= half;
        while let Some(lower) =
            [number.saturating_sub(1), number].into_iter().find(|lower| self.chunks.get(*lower..lower + 2).is_some_and(small))
        {
            let upper = self.chunks.remove(lower + 1);
            self.chunks[lower] = Chunk::new(&[&self.chunks[lower].bytes, &upper.bytes]);
            number = lower;
        }
    }

    /// Where an entry is, or belongs.
    fn home(&self, entry: Entry<'_>) -> Place {
        self.place(|other| if self.by_text { other < entry } else { other.1 < entry.1 })
    }

    /// The place of the first entry that is not `before`.
    fn place(&self, before: impl Fn(Entry<'_>) -> bool) -> Place {
        let begun = self.chunks.partition_point(|chunk| before(take_entry(&mut &chunk.bytes[..])));
        // The place is in the last chunk of those that begin before it, unless all of that is before it.
        let Some(chunk) = begun.checked_sub(1) else { return Place { chunk: 0, index: 0 } };
        let Chunk { bytes, starts } = &self.chunks[chunk];
        let index = starts.partition_point(|start| before(take_entry(&mut &bytes[*start as usize..])));
        if index == starts.len() && begun < self.chunks.len() { Place { chunk: begun, index: 0 } } else { Place { chunk, index } }
    }

    fn next(&self, place: &mut Place) -> Option<Entry<'_>> {
        if place.index == self.chunks.get(place.chunk)?.starts.len() {
            *place = Place { chunk: place.chunk + 1, index: 0 };
        }
        let entry = self.chunks.get(place.chunk)?.entry(place.index);
        place.index += 1;
        Some(entry)
    }

    fn previous(&self, place: &mut Place) -> Option<Entry<'_>> {
        if place.index == 0 {
            place.chunk = place.chunk.checked_sub(1)?;
            place.index = self.chunks[place.chunk].starts.len();
        }
        place.index -= 1;
        Some(self.chunks[place.chunk].entry(place.index))
    }
}

fn start(offset: usize) -> u32 {
    u32::try_from(offset).expect("the values of a person are far below 4 GiB")
}

fn take_entry<'a>(bytes: &mut &'a [u8]) -> Entry<'a> {
    let subject = SubjectNo(take_number(bytes));
    (take_text(bytes), subject)
}

/// Whether an entry lies behind all texts that begin with `prefix`.
fn behind(entry: Entry<'_>, prefix: &[u8]) -> bool {
    entry.0 > prefix && !entry.0.starts_with(prefix)
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    push_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// 7 bits in a byte, the low ones first; the top bit says that more follow. Most lengths take one byte and most subjects three.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take_number(bytes) as usize;
    let (text, rest) = bytes.split_at(len);
    *bytes = rest;
    text
}

fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut bits) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << bits;
        bits += 7;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).expect("values are texts")
}

fn allocated<T>(list: &Vec<T>) -> usize {
    if list.capacity() == 0 { 0 } else { list.capacity() * size_of::<T>() + ALLOCATION_BYTES }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    /// Prefixes of each other, equal beginnings, several bytes a character, and one that is longer than a small chunk.
    const VALUES: &[&str] =
        &["", "a", "aa", "ab", "abc", "b", "ba", "é", "éa", "ê", "日本", "日", "A", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];

    type Model = BTreeMap<u64, [&'static str; 2]>;

    /// What a range has to be, from a list of everything.
    fn expected(
        model: &Model,
        column: usize,
        prefix: &str,
        after: Option<(&str, SubjectNo)>,
        descending: bool,
    ) -> Vec<(String, SubjectNo)> {
        let entries = model.iter().map(|(subject, values)| (values[column].to_owned(), SubjectNo(*subject)));
        let mut entries: Vec<_> = entries.filter(|(value, _)| value.starts_with(prefix)).collect();
        entries.sort();
        if descending {
            entries.reverse();
        }
        entries.retain(|(value, subject)| {
            after.is_none_or(|after| if descending { (&value[..], *subject) < after } else { (&value[..], *subject) > after })
        });
        entries
    }

    /// What `Order` promises of its chunks.
    fn assert_chunks(table: &Table) {
        for order in &table.orders {
            assert_eq!(order.chunks.iter().map(|chunk| chunk.starts.len()).sum::<usize>(), table.len());
            for chunk in &order.chunks {
                assert!(!chunk.starts.is_empty(), "a chunk is empty");
                assert_eq!(Chunk::new(&[&chunk.bytes]).starts, chunk.starts);
                // One entry of these tests takes less than 128 bytes, and a split need not help if it is longer than half a chunk.
                let bytes_max = order.chunk_bytes_max + if order.chunk_bytes_max < 256 { 128 } else { 0 };
                assert!(chunk.bytes.len() <= bytes_max, "a chunk was not split");
            }
            for pair in order.chunks.windows(2) {
                let bytes = pair[0].bytes.len() + pair[1].bytes.len();
                assert!(bytes > order.chunk_bytes_max / 2, "{bytes} bytes in two chunks that were not merged");
            }
        }
    }

    fn subject_texts(number: u64) -> [String; 3] {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (first, last) = (format!("First{:02}", mixed >> 58), format!("Last{:04}", (mixed >> 40) % 5000));
        [format!("{first}.{last}{:x}@example.com", mixed % 256).to_lowercase(), first, last]
    }

    fn set(table: &mut Table, number: u64) {
        let [email, first, last] = subject_texts(number);
        table.set(SubjectNo(number), Some(&[&email, &first, &last]));
    }

    #[test]
    fn any_sequence_of_changes_reads_like_a_sorted_list() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 256, failure_persistence: None, ..Config::default() }, rng);
        let value = || proptest::sample::select(VALUES);
        let step = (0..60_u64, proptest::option::weighted(0.6, [value(), value()]));
        let question = (0..2_usize, value(), proptest::option::of((value(), 0..60_u64)), any::<bool>(), 0..20_usize);
        let steps = proptest::collection::vec((step, question), 0..200);
        // Alone an entry may be longer than the smallest chunk; in the largest one, nothing is ever split.
        let input = (proptest::sample::select(vec![16_usize, 64, 128, CHUNK_BYTES_MAX]), steps);
        runner
            .run(&input, |(chunk_bytes_max, steps)| {
                let (mut table, mut model) = (Table::with_chunks(2, chunk_bytes_max), Model::new());
                for ((subject, values), (column, prefix, after, descending, limit)) in steps {
                    // Also numbers that take up to ten bytes.
                    let number = |subject: u64| if subject.is_multiple_of(5) { u64::MAX - subject } else { subject * 50 };
                    table.set(SubjectNo(number(subject)), values.as_ref().map(|values| &values[..]));
                    match values {
                        Some(values) => drop(model.insert(number(subject), values)),
                        None => drop(model.remove(&number(subject))),
                    }
                    assert_chunks(&table);
                    prop_assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
                    let after = after.map(|(value, subject)| (value, SubjectNo(number(subject))));
                    let mut expected = expected(&model, column, prefix, after, descending);
                    expected.truncate(limit);
                    prop_assert_eq!(table.range(column, prefix, after, descending, limit), expected);
                    let count = model.values().filter(|values| values[column].starts_with(prefix)).count();
                    prop_assert_eq!(table.count(column, prefix), count);
                    for subject in [subject, 7] {
                        let value = model.get(&number(subject)).map(|values| values[column]);
                        prop_assert_eq!(table.value(column, SubjectNo(number(subject))), value);
                    }
                }
                Ok(())
            })
            .expect("no case fails");
    }

    #[test]
    fn a_page_goes_on_behind_an_entry_that_was_removed() {
        for descending in [false, true] {
            let (mut table, mut all) = (Table::with_chunks(1, 64), Vec::new());
            for number in 0..200_u64 {
                table.set(SubjectNo(number), Some(&[VALUES[number as usize % 3]]));
            }
            let whole = table.range(0, "", None, descending, usize::MAX);
            let mut after: Option<(String, SubjectNo)> = None;
            loop {
                let page = table.range(0, "", after.as_ref().map(|(value, subject)| (&value[..], *subject)), descending, 7);
                let Some(last) = page.last() else { break };
                // The end of the page, sometimes with all of the page: the next one starts at the edge of what is left.
                let gone = if last.1.0.is_multiple_of(2) { &page[..] } else { &page[page.len() - 1..] };
                for (_, subject) in gone {
                    table.set(*subject, None);
                }
                after = Some(last.clone());
                all.extend(page);
            }
            assert_eq!(all, whole);
        }
    }

    #[test]
    fn a_row_takes_at_most_250_bytes_in_any_order_of_arrival_and_none_once_it_is_removed() {
        const ROWS: u64 = 100_000;
        // 7919 is prime and divides no 100,000: every number once, in no order.
        for step in [1, 7919] {
            let mut table = Table::new(3);
            let numbers = || (0..ROWS).map(move |number| number * step % ROWS);
            numbers().for_each(|number| set(&mut table, number));
            assert_chunks(&table);
            assert!(table.bytes() <= 250 * ROWS as usize, "{} bytes", table.bytes());
            // Three of four removed: the chunks are merged and their memory is given back.
            numbers().filter(|number| number % 4 != 0).for_each(|number| table.set(SubjectNo(number), None));
            assert_chunks(&table);
            assert!(table.bytes() <= 2 * 250 * ROWS as usize / 4, "{} bytes", table.bytes());
            numbers().for_each(|number| table.set(SubjectNo(number), None));
            assert!(table.is_empty());
            assert!(table.bytes() < 1024, "{} bytes", table.bytes());
        }
    }

    #[test]
    fn values_longer_than_a_chunk_are_kept() {
        let (long, longer) = ("x".repeat(1024), "x".repeat(100_000));
        let mut table = Table::new(2);
        for number in 0..50 {
            let values: [&str; 2] = if number % 2 == 0 { [&long, &longer] } else { ["x", "y"] };
            table.set(SubjectNo(number), Some(&values));
        }
        assert_eq!(table.value(1, SubjectNo(2)), Some(&longer[..]));
        assert_eq!((table.count(0, &long), table.count(1, &longer), table.count(1, "y")), (25, 25, 25));
        (0..50).for_each(|number| table.set(SubjectNo(number), None));
        assert!(table.bytes() < 1024);
    }
}
