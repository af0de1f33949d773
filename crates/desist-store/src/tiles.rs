//! The tiles of the log: hashes of its Merkle tree, 256 to a tile (C2SP tlog-tiles). A row grows until
//! its tile is full; readers of an older size take the beginning of it.

use desist_proof::Hash;
use desist_proof::tile::{Appender, TileError, TileId};

use crate::{Read, StoreError, Write};

/// Stores the tiles that change with the entries that a transaction appends. `size` is how many entries
/// there were.
pub(crate) fn extend(write: &mut dyn Write, size: u64, leaves: &[Hash]) -> Result<(), StoreError> {
    if leaves.is_empty() {
        return Ok(());
    }
    let mut appender = Appender::open(size, &mut |id| tile(write, id)).map_err(damaged)?;
    for leaf in leaves {
        appender.append(*leaf);
    }
    for (id, bytes) in appender.take() {
        write.put_tile(id.level(), id.index(), &bytes)?;
    }
    Ok(())
}

/// The hashes of a tile that the log has.
pub fn tile(read: &mut (impl Read + ?Sized), id: TileId) -> Result<Vec<u8>, StoreError> {
    let stored = read.tile(id.level(), id.index())?.unwrap_or_default();
    stored.get(..id.byte_len()).map(<[u8]>::to_vec).ok_or_else(|| StoreError::Damaged(format!("{} is missing", id.path())))
}

/// What the store is told when tiles do not fit.
pub fn damaged(error: TileError<StoreError>) -> StoreError {
    match error {
        TileError::Read(error) => error,
        other @ (TileError::Length { .. } | TileError::Range) => StoreError::Damaged(other.to_string()),
    }
}
