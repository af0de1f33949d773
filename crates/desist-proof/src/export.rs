//! Checks a whole log: every entry, in order, against one signed checkpoint.

use std::fmt;

use crate::checkpoint::{Checkpoint, Opened};
use crate::entry::{Entry, EntryError};
use crate::proof::root;
use crate::tile::{LEVELS, TILE_WIDTH, TileError, TileId, fetch, root_over};
use crate::{Frontier, Hash, leaf_hash};

/// A function that reads tiles.
type Read<'a, E> = &'a mut dyn FnMut(TileId) -> Result<Vec<u8>, E>;

/// Takes the entries of a log one after the other, as the lines of its export without the newlines.
///
/// Without tiles a changed entry is found at the end, when the root differs. With them it is found at
/// its place: each tile is first checked against those above it and so against the checkpoint.
pub struct LogCheck<'a, E> {
    checkpoint: &'a Checkpoint,
    frontier: Frontier,
    read: Option<Read<'a, E>>,
    // The checked tile of each level that the next leaf is in.
    tiles: [Option<(TileId, Vec<u8>)>; LEVELS as usize],
}

impl<'a, E> LogCheck<'a, E> {
    /// A check by the root alone.
    pub fn new(checkpoint: &'a Opened) -> Self {
        Self { checkpoint: checkpoint.checkpoint(), frontier: Frontier::default(), read: None, tiles: Default::default() }
    }

    /// A check that names the first wrong entry. The partial tiles are checked at once, the full ones
    /// when their first entry comes.
    pub fn with_tiles(checkpoint: &'a Opened, read: Read<'a, E>) -> Result<Self, LogError<E>> {
        let found = root(checkpoint.checkpoint().size(), read).map_err(LogError::Tile)?;
        if found != *checkpoint.checkpoint().root() {
            return Err(LogError::TilesRoot);
        }
        Ok(Self { read: Some(read), ..Self::new(checkpoint) })
    }

    /// The next entry.
    pub fn push(&mut self, entry: &[u8]) -> Result<Entry, LogError<E>> {
        let index = self.frontier.size();
        if index >= self.checkpoint.size() {
            return Err(LogError::TooMany);
        }
        let leaf = leaf_hash(entry);
        if let Some(read) = self.read.take() {
            let expected = self.hash(0, index, read);
            self.read = Some(read);
            if expected? != leaf {
                return Err(LogError::Changed { index });
            }
        }
        let entry = Entry::parse(entry, index).map_err(|error| LogError::Entry { index, error })?;
        self.frontier.append(leaf);
        Ok(entry)
    }

    /// After the last entry.
    pub fn finish(self) -> Result<(), LogError<E>> {
        if self.frontier.size() < self.checkpoint.size() {
            Err(LogError::TooFew { entries: self.frontier.size() })
        } else if self.frontier.root() != *self.checkpoint.root() {
            Err(LogError::Root)
        } else {
            Ok(())
        }
    }

    /// The hash at a place of a level, from a tile that was checked.
    fn hash(&mut self, level: u8, place: u64, read: Read<'_, E>) -> Result<Hash, LogError<E>> {
        let index = place / u64::from(TILE_WIDTH);
        let id = TileId::of(self.checkpoint.size(), level, index).expect("an entry within the log, or a full tile of it");
        let slot = usize::from(level);
        if self.tiles[slot].as_ref().is_none_or(|(known, _)| *known != id) {
            let bytes = fetch(id, read).map_err(LogError::Tile)?;
            // A partial tile is in no tile above; `with_tiles` has checked it with the root.
            if id.width() == TILE_WIDTH && root_over(&bytes) != self.hash(level + 1, index, read)? {
                return Err(LogError::WrongTile(id));
            }
            self.tiles[slot] = Some((id, bytes));
        }
        let (_, bytes) = self.tiles[slot].as_ref().expect("read above");
        Ok(bytes.as_chunks().0[(place % u64::from(TILE_WIDTH)) as usize])
    }
}

/// Checks all entries of a log at once, without tiles.
pub fn verify_log<'a>(entries: impl IntoIterator<Item = &'a [u8]>, checkpoint: &Opened) -> Result<(), LogError<std::convert::Infallible>> {
    let mut check = LogCheck::new(checkpoint);
    for entry in entries {
        check.push(entry)?;
    }
    check.finish()
}

/// Why entries are not the log of a checkpoint. Indexes are of leaves, from 0: `seq - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError<E> {
    /// An entry cannot be read, or says that it stands elsewhere.
    Entry {
        /// Which.
        index: u64,
        /// Why.
        error: EntryError,
    },
    /// An entry is not the one that the log has at this place. All before it are.
    Changed {
        /// Which.
        index: u64,
    },
    /// More entries than the checkpoint has.
    TooMany,
    /// Fewer entries than the checkpoint has.
    TooFew {
        /// How many came.
        entries: u64,
    },
    /// Some entry is not the log's.
    Root,
    /// A tile cannot be read.
    Tile(TileError<E>),
    /// The partial tiles are not those of the checkpoint.
    TilesRoot,
    /// A full tile does not fit the one above it.
    WrongTile(TileId),
}

impl<E: fmt::Display> fmt::Display for LogError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { index, error } => write!(f, "line {}: {error}", index + 1),
            Self::Changed { index } => write!(f, "line {}: not the entry that the log has there; all lines before it are", index + 1),
            Self::TooMany => f.write_str("there are more entries than the checkpoint has; take a newer checkpoint, or fewer lines"),
            Self::TooFew { entries } => write!(f, "there are only {entries} entries; the checkpoint has more"),
            Self::Root => {
                f.write_str("the entries do not lead to the root of the checkpoint; with the log's tiles the first wrong one can be named")
            }
            Self::Tile(error) => error.fmt(f),
            Self::TilesRoot => f.write_str("the partial tiles are not those of the checkpoint"),
            Self::WrongTile(id) => write!(f, "{}: not the tile of the checkpoint", id.path()),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for LogError<E> {}
