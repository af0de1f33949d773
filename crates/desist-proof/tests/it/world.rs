//! What the tests share: logs by the definition, tiles in a table, keys.

use std::collections::BTreeMap;
use std::convert::Infallible;

use desist_proof::note::{Algorithm, Signer};
use desist_proof::tile::{Appender, TileId};
use desist_proof::{Hash, leaf_hash, node_hash};

pub const ORIGIN: &str = "log.example/desist";

/// The leaf hash of some entry.
pub fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

/// The definition of RFC 6962 section 2.1, without any tile: roots of ranges, each computed once.
#[derive(Default)]
pub struct Definition(BTreeMap<(u64, u64), Hash>);

impl Definition {
    pub fn root(&mut self, start: u64, end: u64) -> Hash {
        if let Some(known) = self.0.get(&(start, end)) {
            return *known;
        }
        let hash = match end - start {
            0 => desist_proof::proof::empty_root(),
            1 => leaf(start),
            leaves => {
                let middle = start + leaves.next_power_of_two() / 2;
                node_hash(&self.root(start, middle), &self.root(middle, end))
            }
        };
        self.0.insert((start, end), hash);
        hash
    }

    /// `PATH(m, D[start:end])`.
    pub fn path(&mut self, index: u64, start: u64, end: u64) -> Vec<Hash> {
        if end - start == 1 {
            return Vec::new();
        }
        let middle = start + (end - start).next_power_of_two() / 2;
        let (mut path, sibling) = if index < middle {
            (self.path(index, start, middle), self.root(middle, end))
        } else {
            (self.path(index, middle, end), self.root(start, middle))
        };
        path.push(sibling);
        path
    }

    /// `SUBPROOF(m, D[start:end], b)`, with `m` counted from the first leaf of the log.
    pub fn subproof(&mut self, m: u64, start: u64, end: u64, known: bool) -> Vec<Hash> {
        if m == end {
            return if known { Vec::new() } else { vec![self.root(start, end)] };
        }
        let middle = start + (end - start).next_power_of_two() / 2;
        let (mut proof, sibling) = if m <= middle {
            (self.subproof(m, start, middle, known), self.root(middle, end))
        } else {
            (self.subproof(m, middle, end, false), self.root(start, middle))
        };
        proof.push(sibling);
        proof
    }
}

/// Tiles as a store keeps them: rows by level and place.
#[derive(Clone, Default)]
pub struct Table(pub BTreeMap<(u8, u64), Vec<u8>>);

impl Table {
    /// A log of some size.
    pub fn of(size: u64) -> Self {
        let mut table = Self::default();
        table.extend(0, size);
        table
    }

    /// One transaction: opens, appends, writes.
    pub fn extend(&mut self, from: u64, to: u64) -> Vec<TileId> {
        let mut appender = Appender::open(from, &mut self.reader()).expect("tiles of this size");
        (from..to).for_each(|index| appender.append(leaf(index)));
        assert_eq!(appender.size(), to);
        self.write(appender.take())
    }

    pub fn write(&mut self, changed: Vec<(TileId, Vec<u8>)>) -> Vec<TileId> {
        let mut ids = Vec::new();
        for (id, bytes) in changed {
            assert_eq!(bytes.len(), id.byte_len());
            self.0.insert((id.level(), id.index()), bytes);
            ids.push(id);
        }
        ids
    }

    pub fn reader(&self) -> impl FnMut(TileId) -> Result<Vec<u8>, Infallible> + '_ {
        |id| Ok(self.0[&(id.level(), id.index())].clone())
    }
}

pub fn log_key() -> Signer {
    Signer::new(ORIGIN, Algorithm::Ed25519, &[1; 32]).expect("a key")
}

pub fn witness_key(number: u8) -> Signer {
    Signer::new(&format!("witness.example/{number}"), Algorithm::Cosignature, &[100 + number; 32]).expect("a key")
}

/// Every text that differs in one character, by a few kinds of change.
pub fn mutations(text: &str) -> impl Iterator<Item = String> + '_ {
    text.char_indices().flat_map(move |(at, c)| {
        let (before, after) = (&text[..at], &text[at + c.len_utf8()..]);
        let other = if c == 'A' { 'B' } else { 'A' };
        let next = char::from_u32(u32::from(c) ^ 1).unwrap_or('x');
        [other, next, '\n']
            .into_iter()
            .filter(move |new| *new != c)
            .map(move |new| format!("{before}{new}{after}"))
            .chain([format!("{before}{after}"), format!("{before}{c}{c}{after}")])
            .filter(move |changed| changed != text)
    })
}
