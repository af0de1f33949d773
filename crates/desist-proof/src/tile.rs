//! Tiles: the form in which a log keeps and serves its tree (C2SP tlog-tiles, section "Merkle Tree").
//!
//! A tile is up to 256 hashes side by side. Those of level 0 are leaf hashes; each hash of a higher
//! level is the root of one full tile below. The last tile of a level may be partial, and then it is
//! in no tile above.

use std::fmt;

use crate::{Frontier, Hash};

/// Hashes of a full tile: a subtree of height 8 (section "Merkle Tree").
pub const TILE_WIDTH: u16 = 256;
/// Levels that a log of fewer than 2^64 leaves can have: 256^8 is 2^64. The source's text allows paths
/// up to level 63; no log has them.
pub const LEVELS: u8 = 8;

/// Bytes of a full tile.
const FULL_BYTES: usize = TILE_WIDTH as usize * size_of::<Hash>();

/// Name of a tile that some log can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    level: u8,
    index: u64,
    width: u16,
}

impl TileId {
    /// The tile of this level, place and number of hashes, if a log of fewer than 2^64 leaves can have it.
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        let hashes = index.checked_mul(u64::from(TILE_WIDTH))?.checked_add(u64::from(width))?;
        let is_possible = (1..=TILE_WIDTH).contains(&width) && hashes <= hashes_at(u64::MAX, level);
        is_possible.then_some(Self { level, index, width })
    }

    /// The tile at this place in a log of `size` leaves, if that log has it.
    pub fn of(size: u64, level: u8, index: u64) -> Option<Self> {
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = hashes_at(size, level).checked_sub(before)?.min(u64::from(TILE_WIDTH));
        Self::new(level, index, width as u16)
    }

    /// 0 for leaf hashes.
    pub fn level(self) -> u8 {
        self.level
    }

    /// Place in its level, from 0.
    pub fn index(self) -> u64 {
        self.index
    }

    /// Number of hashes, 1 to 256.
    pub fn width(self) -> u16 {
        self.width
    }

    /// Number of bytes of its contents.
    pub fn byte_len(self) -> usize {
        usize::from(self.width) * size_of::<Hash>()
    }

    /// Where it is served: `tile/<L>/<N>[.p/<W>]`, `N` in groups of three digits, all but the last with
    /// an `x` in front (section "Merkle Tree").
    pub fn path(self) -> String {
        let mut index = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            index = format!("x{:03}/{index}", rest % 1000);
            rest /= 1000;
        }
        let partial = if self.width < TILE_WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{}/{index}{partial}", self.level)
    }

    /// Reads what [`path`](Self::path) writes and nothing else: each tile has one path.
    pub fn parse_path(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok()?),
            None => (rest, TILE_WIDTH),
        };
        let index = index.split('/').try_fold(0_u64, |index, group| {
            let digits: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
            index.checked_mul(1000)?.checked_add(digits)
        })?;
        // What was read generously above is written again, so that only one form passes.
        Self::new(level.parse().ok()?, index, width).filter(|id| id.path() == path)
    }
}

/// Hashes that a log of `size` leaves has at a level (section "Partial Tiles": `floor(s / 256**l)`).
fn hashes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

/// All tiles of a log of `size` leaves, by level and place.
pub fn tiles_of(size: u64) -> impl Iterator<Item = TileId> {
    changed_tiles(0, size)
}

/// The tiles of a log of `to` leaves that it did not have with `from` leaves, because they are new or
/// have grown; none if the log did not grow.
pub fn changed_tiles(from: u64, to: u64) -> impl Iterator<Item = TileId> {
    (0..LEVELS).flat_map(move |level| {
        let (before, after) = (hashes_at(from, level), hashes_at(to, level));
        let end = after.div_ceil(u64::from(TILE_WIDTH));
        let start = if after > before { before / u64::from(TILE_WIDTH) } else { end };
        (start..end).map(move |index| TileId::of(to, level, index).expect("a place below the number of hashes of its level"))
    })
}

/// Root of the subtree over hashes that stand side by side.
pub(crate) fn root_over(hashes: &[u8]) -> Hash {
    let mut frontier = Frontier::default();
    for hash in hashes.as_chunks().0 {
        frontier.append(*hash);
    }
    frontier.root()
}

/// Reads a tile through the caller's function. What is stored may have grown since the log had the
/// size in question; the hashes in front are the same.
pub(crate) fn fetch<E>(id: TileId, read: &mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, TileError<E>> {
    let mut bytes = read(id).map_err(TileError::Read)?;
    let (actual, expected) = (bytes.len(), id.byte_len());
    if actual < expected || actual > FULL_BYTES || !actual.is_multiple_of(size_of::<Hash>()) {
        return Err(TileError::Length { tile: id, actual });
    }
    bytes.truncate(expected);
    Ok(bytes)
}

/// Extends the tiles of a log by new leaves.
///
/// A store keeps tiles as rows with the key (level, index). In the transaction that adds entries it
/// opens an appender (which reads at most one row a level: those on the right edge), feeds it the leaf
/// hashes and writes each row that [`take`](Self::take) returns over the one with the same key. After
/// a transaction that failed the appender is dropped.
#[derive(Clone, Debug)]
pub struct Appender {
    size: u64,
    // The size at the last `take`, which says what has changed since.
    taken: u64,
    // The partial tile of each level; empty where the level has none.
    edge: [Vec<u8>; LEVELS as usize],
    full: Vec<(TileId, Vec<u8>)>,
}

impl Appender {
    /// Continues a log of `size` leaves, whose partial tiles `read` returns. A tile that has grown
    /// since is taken back to this size.
    pub fn open<E>(size: u64, read: &mut dyn FnMut(TileId) -> Result<Vec<u8>, E>) -> Result<Self, TileError<E>> {
        let mut edge = <[Vec<u8>; LEVELS as usize]>::default();
        for (level, tile) in (0..LEVELS).zip(&mut edge) {
            let id = TileId::of(size, level, hashes_at(size, level) / u64::from(TILE_WIDTH));
            if let Some(id) = id {
                *tile = fetch(id, read)?;
            }
        }
        Ok(Self { size, taken: size, edge, full: Vec::new() })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf on the right, given its [`leaf_hash`](crate::leaf_hash).
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for (level, tile) in (0..LEVELS).zip(&mut self.edge) {
            tile.extend_from_slice(&hash);
            if tile.len() < FULL_BYTES {
                break;
            }
            // A full tile becomes one hash of the level above.
            hash = root_over(tile);
            let index = hashes_at(self.size, level + 1);
            self.full.push((TileId { level, index, width: TILE_WIDTH }, std::mem::take(tile)));
        }
        self.size = self.size.checked_add(1).expect("a log has fewer than 2^64 entries");
    }

    /// What changed since the log was opened or since the last call: exactly the tiles that
    /// [`changed_tiles`] names, in its order, with their contents.
    pub fn take(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let mut changed = std::mem::take(&mut self.full);
        for (level, tile) in (0..LEVELS).zip(&self.edge) {
            let hashes = hashes_at(self.size, level);
            if hashes > hashes_at(self.taken, level)
                && let Some(id) = TileId::of(self.size, level, hashes / u64::from(TILE_WIDTH))
            {
                changed.push((id, tile.clone()));
            }
        }
        changed.sort_by_key(|(id, _)| *id);
        self.taken = self.size;
        changed
    }
}

/// Why tiles could not be read, or do not hold what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TileError<E> {
    /// The caller's function failed.
    Read(E),
    /// A tile is not a whole number of hashes, has fewer than the log's size asks for, or more than 256.
    Length {
        /// The tile.
        tile: TileId,
        /// Bytes read.
        actual: usize,
    },
    /// An entry or an older size that a log of this size does not have.
    Range,
}

impl<E: fmt::Display> fmt::Display for TileError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "a tile could not be read: {error}"),
            Self::Length { tile, actual } => {
                write!(f, "{}: {} bytes are needed and {actual} were read", tile.path(), tile.byte_len())
            }
            Self::Range => f.write_str("the log is too short for this; ask for an entry or a size that it has"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for TileError<E> {}

/// Reads any bytes as a path: never panics, and what is read is what would have been written.
#[doc(hidden)]
pub fn fuzz_tile_path(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    if let Some(id) = TileId::parse_path(path) {
        assert_eq!(id.path(), path);
        assert_eq!(TileId::new(id.level(), id.index(), id.width()), Some(id));
    }
}
