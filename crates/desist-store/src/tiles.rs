//! The tiles of the log: hashes of its Merkle tree in files of 256, as C2SP tlog-tiles cuts them.
//!
//! A tile of the lowest level is stored once, when its 256 entries are there; until then it follows from
//! the entries. A tile above is a row that grows by one hash for each tile that is full below it.

use desist_proof::{Frontier, Hash, leaf_hash};

use crate::{Read, StoreError, Write};

/// Hashes in a full tile: the tile height of C2SP tlog-tiles is 8.
pub const TILE_WIDTH: u64 = 256;
/// Levels that a log can have: eight of 256 hashes each cover 2^64 entries.
const LEVELS_MAX: u8 = 8;

/// The root of a full tile, which is one hash of the tile above.
pub(crate) fn root(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.append(*hash);
    }
    frontier.root()
}

/// Stores the tiles that are full now. `size` is how many entries the log had, `leaves` are the hashes of
/// those that were appended since, in this transaction.
pub(crate) fn extend(write: &mut dyn Write, size: u64, leaves: &[Hash]) -> Result<(), StoreError> {
    let new_size = size + leaves.len() as u64;
    for no in size / TILE_WIDTH..new_size / TILE_WIDTH {
        let first = no * TILE_WIDTH;
        let mut hashes = if first < size { stored_leaves(write, first, size)? } else { Vec::new() };
        let from = first.max(size) - size;
        hashes.extend_from_slice(&leaves[from as usize..(first + TILE_WIDTH - size) as usize]);
        let mut below = (no, root(&hashes));
        write.put_tile(0, no, hashes.as_flattened())?;
        for level in 1..LEVELS_MAX {
            let (no, at) = (below.0 / TILE_WIDTH, below.0 % TILE_WIDTH);
            let mut bytes = if at == 0 { Vec::new() } else { write.tile(level, no)?.unwrap_or_default() };
            if bytes.len() as u64 != 32 * at {
                return Err(StoreError::Damaged(format!("tile {level}/{no} has {} bytes where {} belong", bytes.len(), 32 * at)));
            }
            bytes.extend_from_slice(&below.1);
            write.put_tile(level, no, &bytes)?;
            if at + 1 < TILE_WIDTH {
                break;
            }
            below = (no, root(bytes.as_chunks().0));
        }
    }
    Ok(())
}

/// The first `width` hashes of a tile, from what is stored; none if the log is not that long.
pub fn tile(read: &mut (impl Read + ?Sized), level: u8, no: u64, width: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let stored = read.tile(level, no)?;
    let bytes = match (stored, level) {
        (Some(bytes), _) => bytes,
        (None, 0) => {
            let Some(first) = no.checked_mul(TILE_WIDTH) else { return Ok(None) };
            let size = read.coordinator()?.counters.entries;
            if first >= size {
                return Ok(None);
            }
            stored_leaves(read, first, size.min(first + width))?.as_flattened().to_vec()
        }
        (None, _) => return Ok(None),
    };
    Ok(bytes.get(..32 * width as usize).map(<[u8]>::to_vec))
}

/// The leaf hashes of the entries with these indexes, counted from 0.
fn stored_leaves(read: &mut (impl Read + ?Sized), from: u64, to: u64) -> Result<Vec<Hash>, StoreError> {
    let leaves: Vec<Hash> = read.entries(from + 1..to + 1)?.iter().map(|(_, bytes)| leaf_hash(bytes)).collect();
    if leaves.len() as u64 == to - from { Ok(leaves) } else { Err(StoreError::Damaged(format!("an entry is missing after {from}"))) }
}
