//! Evidence of deliveries is kept beside its entries.

use desist_core::fact::{Acknowledgement, Digest, Fact};
use desist_core::rules::Batch;
use desist_proof::delivery::{Reached, Record, root};

use super::{Make, Rng, problems, read, scale};
use crate::evidence::{RECORDS_MAX, pack, unpack};
use crate::{StoreError, Write, commit};

fn record(n: u64) -> Record {
    Record { destination: 1, target: n, version: 1 + n % 3, at: 1_700_000_000, level: Reached::Applied, status: 200, answer: [n as u8; 16] }
}

/// Emits an entry about so many deliveries, and stores its evidence.
pub(super) fn acknowledge(batch: &mut Batch, write: &mut dyn Write, count: u64) -> Result<u64, StoreError> {
    let records: Vec<_> = (0..count).map(record).collect();
    let versions = || records.iter().map(|record| record.version);
    let (from, to) = (versions().min().unwrap_or(0), versions().max().unwrap_or(0));
    let ranges = vec![Acknowledgement { destination: 1, from, to, delivered: count, parked: 7 }];
    let seq = batch.emit(write, Fact::Acknowledged { ranges, records: count, evidence: Digest(root(&records)) })?;
    write.put_evidence(seq, &pack(&records))?;
    Ok(seq)
}

/// What is written is read by number and in order, once for each entry, and fits the log.
pub fn evidence_is_kept_beside_its_entries(make: Make<'_>) {
    let mut harness = make();
    let mut store = harness.open().expect("opens");
    let mut seqs = Vec::new();
    for count in [0, 1, 2, 300] {
        let acknowledged = store.transact(&mut |write| {
            let mut batch = Batch::new(write.coordinator()?.counters, super::NOW);
            batch.emit(write, Fact::SignalsHonoured { day: 1, count })?;
            seqs.push((acknowledge(&mut batch, write, count)?, count));
            commit(write, &mut batch).map(drop)
        });
        acknowledged.expect("commits");
    }
    let rolled_back = store.transact(&mut |write| {
        write.put_evidence(1000, b"x")?;
        Err(StoreError::Busy)
    });
    assert!(matches!(rolled_back, Err(StoreError::Busy)));
    drop(store);
    let mut store = harness.open().expect("opens");
    read(&*store.readers(), |read| {
        let all = read.evidence(0..u64::MAX, usize::MAX)?;
        assert_eq!(all.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), seqs.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
        for ((seq, segment), (_, count)) in all.iter().zip(&seqs) {
            assert_eq!(unpack(*seq, segment)?, (0..*count).map(record).collect::<Vec<_>>());
        }
        assert_eq!(read.evidence(seqs[1].0..seqs[3].0, 9)?, all[1..3]);
        assert_eq!(read.evidence(seqs[1].0 + 1..u64::MAX, 1)?, all[2..3]);
        assert_eq!(read.evidence(seqs[3].0 + 1..u64::MAX, 1)?, []);
        Ok(())
    });
    assert_eq!(problems(&*store), [""; 0]);
    assert!(store.transact(&mut |write| write.put_evidence(seqs[0].0, b"y")).is_err(), "an entry has its evidence once");
}

/// Segments of random records read back, and no other bytes are taken for one of them.
pub fn segments_are_read_as_they_were_written(_: Make<'_>) {
    for seed in 0..20 * scale() {
        let mut rng = Rng(seed);
        let (level, many) = ([Reached::Accepted, Reached::Applied, Reached::Verified], rng.below(200));
        let any = |rng: &mut Rng| Record {
            destination: rng.below(3) as u32,
            target: rng.below(u64::MAX) >> rng.below(64),
            version: rng.below(1 << 20),
            at: rng.below(1 << 40),
            level: level[rng.below(3) as usize],
            status: rng.below(600) as u16,
            answer: u128::from(rng.below(u64::MAX)).to_be_bytes(),
        };
        let mut records: Vec<_> = (0..many).map(|_| any(&mut rng)).collect();
        records.sort_unstable();
        records.dedup();
        let segment = pack(&records);
        assert_eq!(unpack(1, &segment).expect("as written"), records, "seed {seed}");
        for _ in 0..200 {
            let (mut other, place) = (segment.clone(), rng.below(segment.len() as u64) as usize);
            match rng.below(3) {
                0 => other[place] ^= 1 << rng.below(8),
                1 => other.truncate(place),
                _ => drop(other.remove(place)),
            }
            // Either it is refused, or it is other records, which have another root.
            if let Ok(read) = unpack(1, &other) {
                assert!(read == records || root(&read) != root(&records), "seed {seed}");
            }
        }
        if records.len() > 1 {
            records.swap(0, 1);
            assert!(unpack(1, &pack(&records)).is_err(), "out of order");
        }
    }
    let many: Vec<_> = (0..=RECORDS_MAX as u64).map(|n| Record { target: n, ..record(0) }).collect();
    assert!(unpack(1, &pack(&many)).is_err(), "more than an entry has");
    assert!(unpack(1, &pack(&many[1..])).is_ok());
}
