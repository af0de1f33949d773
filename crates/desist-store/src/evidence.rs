//! The records of one `acknowledged` entry as one row: a byte for the format, the number of records (32 bits, big-endian), then
//! DEFLATE (RFC 1951) over this: the first bytes of all records, their second bytes, and so on up to the answer; for each record the
//! place of its answer among those that are different, first all high and then all low bytes; these answers. Neighbours are alike in
//! most places and calls have one answer for many, so that they pack well this way.

use std::collections::HashMap;

use desist_core::fact::{Acknowledgement, Digest};
use desist_proof::delivery::{RECORD_BYTES, Record, root};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::StoreError;

/// Most records of one entry: what packs and hashes in some ten milliseconds, on the thread that delivers.
pub const RECORDS_MAX: usize = 16_384;
/// Bytes of an answer, the last of a record.
const ANSWER_BYTES: usize = 16;
/// Bytes of a record before it.
const NUMBERS_BYTES: usize = RECORD_BYTES - ANSWER_BYTES;
/// The format byte.
const FORMAT: u8 = 1;
/// The usual middle between time and size.
const LEVEL: u8 = 6;

/// Packs records that are in order, at most [`RECORDS_MAX`].
pub fn pack(records: &[Record]) -> Vec<u8> {
    let rows: Vec<_> = records.iter().map(Record::to_bytes).collect();
    let mut planes: Vec<u8> = (0..NUMBERS_BYTES).flat_map(|column| rows.iter().map(move |row| row[column])).collect();
    let (mut known, mut answers) = (HashMap::new(), Vec::new());
    let nth = |record: &Record| {
        *known.entry(record.answer).or_insert_with(|| {
            answers.extend(record.answer);
            (answers.len() / ANSWER_BYTES - 1) as u16
        })
    };
    let nths: Vec<u16> = records.iter().map(nth).collect();
    planes.extend(nths.iter().map(|nth| (nth >> 8) as u8));
    planes.extend(nths.iter().map(|nth| *nth as u8));
    planes.extend(answers);
    let mut segment = vec![FORMAT];
    segment.extend((records.len() as u32).to_be_bytes());
    segment.extend(compress_to_vec(&planes, LEVEL));
    segment
}

/// The records of the entry `seq`.
pub fn unpack(seq: u64, segment: &[u8]) -> Result<Vec<Record>, StoreError> {
    read(segment).ok_or_else(|| StoreError::Damaged(format!("evidence of entry {seq} cannot be read")))
}

fn read(segment: &[u8]) -> Option<Vec<Record>> {
    let packed = segment.strip_prefix(&[FORMAT])?;
    let (count, packed) = packed.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok().filter(|count| *count <= RECORDS_MAX)?;
    let planes = decompress_to_vec_with_limit(packed, count * (RECORD_BYTES + 2)).ok()?;
    let (numbers, rest) = planes.split_at_checked(count * NUMBERS_BYTES)?;
    let (nths, answers) = rest.split_at_checked(count * 2)?;
    let (answers, odd) = answers.as_chunks::<ANSWER_BYTES>();
    if !odd.is_empty() {
        return None;
    }
    let record = |row: usize| {
        let answer = answers.get(usize::from(u16::from_be_bytes([nths[row], nths[count + row]])))?;
        let mut bytes = [0; RECORD_BYTES];
        for (column, byte) in bytes[..NUMBERS_BYTES].iter_mut().enumerate() {
            *byte = numbers[column * count + row];
        }
        bytes[NUMBERS_BYTES..].copy_from_slice(answer);
        Record::from_bytes(&bytes)
    };
    let records = (0..count).map(record).collect::<Option<Vec<_>>>()?;
    // Each record once and in order, so that records have one root.
    records.is_sorted_by(|one, next| one < next).then_some(records)
}

/// Whether records, in order, are those that an entry speaks of.
pub fn fits(records: &[Record], ranges: &[Acknowledgement], count: u64, evidence: Digest) -> bool {
    let all_of = |range: &Acknowledgement| {
        let from = records.partition_point(|record| record.destination < range.destination);
        &records[from..records.partition_point(|record| record.destination <= range.destination)]
    };
    let fits = |range: &Acknowledgement| {
        let versions = || all_of(range).iter().map(|record| record.version);
        let (from, to) = (versions().min().unwrap_or(0), versions().max().unwrap_or(0));
        (range.from, range.to, range.delivered) == (from, to, all_of(range).len() as u64)
    };
    let told: u64 = ranges.iter().map(|range| range.delivered).sum();
    count == records.len() as u64 && told == count && ranges.iter().all(fits) && root(records) == evidence.0
}
