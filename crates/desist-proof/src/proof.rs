//! Proofs that an entry is in a log and that a log only grew (RFC 6962 sections 2.1.1 and 2.1.2, the
//! same as RFC 9162 sections 2.1.3 and 2.1.4): made from tiles, and checked.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::tile::{TILE_WIDTH, TileError, TileId, fetch, root_over};
use crate::{Hash, node_hash};

/// The tiles of a log of `size` leaves; each is read once.
struct Tiles<'a, E> {
    size: u64,
    read: &'a mut dyn FnMut(TileId) -> Result<Vec<u8>, E>,
    seen: BTreeMap<TileId, Vec<u8>>,
}

impl<'a, E> Tiles<'a, E> {
    fn new(size: u64, read: &'a mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Self {
        Self { size, read, seen: BTreeMap::new() }
    }

    /// `MTH(D[start:end])` for a range that the splits of RFC 6962 section 2.1 arrive at.
    fn subtree(&mut self, start: u64, end: u64) -> Result<Hash, TileError<E>> {
        let leaves = end - start;
        if !leaves.is_power_of_two() {
            let middle = start + split(leaves);
            return Ok(node_hash(&self.subtree(start, middle)?, &self.subtree(middle, end)?));
        }
        // A perfect subtree is over 1 to 128 hashes of one tile: a level of tiles is 8 levels of the tree.
        let height = leaves.trailing_zeros();
        let level = (height / 8) as u8;
        let first = start >> (8 * u32::from(level));
        let id = TileId::of(self.size, level, first / u64::from(TILE_WIDTH)).expect("the range is within the log");
        if !self.seen.contains_key(&id) {
            let tile = fetch(id, self.read)?;
            self.seen.insert(id, tile);
        }
        let from = (first % u64::from(TILE_WIDTH)) as usize * size_of::<Hash>();
        Ok(root_over(&self.seen[&id][from..][..size_of::<Hash>() << (height % 8)]))
    }
}

/// The largest power of two below `leaves`, which is at least 2 (RFC 6962 section 2.1).
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// Root of the empty tree (RFC 6962 section 2.1).
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Root of a log of `size` leaves. It is over all hashes of all partial tiles, so that a change of any
/// of them changes the root.
pub fn root<E>(size: u64, read: &mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Result<Hash, TileError<E>> {
    if size == 0 { Ok(empty_root()) } else { Tiles::new(size, read).subtree(0, size) }
}

/// The proof that the leaf `index` is in the log of `size` leaves: `PATH(m, D[n])` of RFC 6962 section
/// 2.1.1, from the leaf up.
pub fn inclusion<E>(size: u64, index: u64, read: &mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Result<Vec<Hash>, TileError<E>> {
    if index >= size {
        return Err(TileError::Range);
    }
    let mut tiles = Tiles::new(size, read);
    let (mut start, mut end, mut path) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(tiles.subtree(middle, end)?);
            end = middle;
        } else {
            path.push(tiles.subtree(start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the log of `to` leaves begins with the one of `from`: `PROOF(m, D[n])` of RFC 6962
/// section 2.1.2. Empty if `from` is 0 (C2SP tlog-witness, section "add-checkpoint") or equal to `to`.
pub fn consistency<E>(from: u64, to: u64, read: &mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Result<Vec<Hash>, TileError<E>> {
    if from > to {
        return Err(TileError::Range);
    }
    if from == 0 {
        return Ok(Vec::new());
    }
    let mut tiles = Tiles::new(to, read);
    let (mut start, mut end, mut path) = (0, to, Vec::new());
    while end != from {
        let middle = start + split(end - start);
        if from <= middle {
            path.push(tiles.subtree(middle, end)?);
            end = middle;
        } else {
            path.push(tiles.subtree(start, middle)?);
            start = middle;
        }
    }
    // The verifier knows the root of the older log; any other subtree it must be told.
    if start != 0 {
        path.push(tiles.subtree(start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks an inclusion proof by the steps of RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Index);
    }
    let (mut left, mut right, mut hash) = (index, size - 1, *leaf);
    for other in proof {
        if right == 0 {
            return Err(ProofError::Length);
        }
        if left & 1 == 1 || left == right {
            hash = node_hash(other, &hash);
            skip_missing_siblings(&mut left, &mut right);
        } else {
            hash = node_hash(&hash, other);
        }
        (left, right) = (left >> 1, right >> 1);
    }
    if right != 0 {
        Err(ProofError::Length)
    } else if hash != *root {
        Err(ProofError::Root)
    } else {
        Ok(())
    }
}

/// Checks a consistency proof by the steps of RFC 9162 section 2.1.4.2. An empty log is the beginning
/// of every log and needs an empty proof (C2SP tlog-witness, section "add-checkpoint").
pub fn verify_consistency(from: u64, from_root: &Hash, to: u64, to_root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::Order);
    }
    if from == 0 && *from_root != empty_root() {
        return Err(ProofError::OlderRoot);
    }
    if from == 0 || from == to {
        return if !proof.is_empty() {
            Err(ProofError::Length)
        } else if from == to && from_root != to_root {
            Err(ProofError::Forked)
        } else {
            Ok(())
        };
    }
    // Where the older log is a perfect tree, its root is the first hash, and is not sent.
    let (first, rest) = if from.is_power_of_two() { (from_root, proof) } else { proof.split_first().ok_or(ProofError::Length)? };
    let shift = (from - 1).trailing_ones();
    let (mut left, mut right) = ((from - 1) >> shift, (to - 1) >> shift);
    let (mut older, mut newer) = (*first, *first);
    for other in rest {
        if right == 0 {
            return Err(ProofError::Length);
        }
        if left & 1 == 1 || left == right {
            older = node_hash(other, &older);
            newer = node_hash(other, &newer);
            skip_missing_siblings(&mut left, &mut right);
        } else {
            newer = node_hash(&newer, other);
        }
        (left, right) = (left >> 1, right >> 1);
    }
    if right != 0 {
        Err(ProofError::Length)
    } else if older != *from_root {
        Err(ProofError::OlderRoot)
    } else if newer != *to_root {
        Err(ProofError::Root)
    } else {
        Ok(())
    }
}

/// The inner step of both checks of RFC 9162: on the right edge, the levels where the node has no sibling.
fn skip_missing_siblings(left: &mut u64, right: &mut u64) {
    while *left & 1 == 0 && *left != 0 {
        (*left, *right) = (*left >> 1, *right >> 1);
    }
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The entry's place is not within the log.
    Index,
    /// The second log is the shorter one.
    Order,
    /// Not the number of hashes that these sizes need.
    Length,
    /// The hashes do not lead to the root of the older log.
    OlderRoot,
    /// The hashes do not lead to the root.
    Root,
    /// Two logs of one size have different roots.
    Forked,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index => "the entry's place is beyond the size of the log",
            Self::Order => "the second checkpoint is of a shorter log than the first; give the older one first",
            Self::Length => "the proof does not have the number of hashes that these sizes need",
            Self::OlderRoot => "the proof does not lead to the root of the older log",
            Self::Root => "the proof does not lead to the root of the log",
            Self::Forked => "two logs of the same size have different roots: there are two histories",
        })
    }
}

impl std::error::Error for ProofError {}
