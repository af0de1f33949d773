//! What makes the log of desist checkable by others: the tree hash of RFC 6962 section 2.1 (the same in
//! RFC 9162), the frontier that lets a log grow without reading what it already holds, and the formats
//! around them.
//!
//! | module | holds |
//! | --- | --- |
//! | [`tile`] | the tree as it is stored and served |
//! | [`proof`] | inclusion and consistency |
//! | [`note`] | texts with signatures, and their keys |
//! | [`checkpoint`] | size and root of a log, signed by it and by witnesses |
//! | [`entry`] | what a verifier reads of an entry |
//! | [`receipt`] | one file that shows that an entry is in the log |
//! | [`delivery`] | records of deliveries, and one file that shows them |
//! | [`export`] | the check of a whole log |
//! | [`witness`] | what a log asks a witness, and whether it may cosign |
//!
//! Invariant: a leaf crate. No I/O, no clock, no randomness, and few dependencies (hashes, signatures,
//! base64, JSON), so that whoever checks a receipt can read all the code that the proof rests on.
//!
//! The formats are those of C2SP (c2sp.org): signed-note, tlog-checkpoint, tlog-tiles, tlog-cosignature and tlog-witness.
//! Reading is strict throughout: what is read is written back to the same bytes, or it is refused.

pub mod checkpoint;
pub mod delivery;
pub mod entry;
pub mod export;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod tile;
pub mod witness;

use sha2::{Digest, Sha256};

/// A SHA-256 output: the hash of a leaf, of a node or of a whole tree.
pub type Hash = [u8; 32];

/// Hash of one entry: `SHA-256(0x00 || bytes)`.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// Hash of an inner node: `SHA-256(0x01 || left || right)`. The first byte keeps leaves and nodes
/// apart, so that no entry can pass for a subtree.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The right edge of a tree: all that is needed to append to it and to know its root, at most
/// 64 hashes for any size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    // Roots of the perfect subtrees of the tree, largest first: one for each 1 bit of `size`.
    hashes: Vec<Hash>,
}

impl Frontier {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf on the right, given its [`leaf_hash`].
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // A 1 bit that the increment carries over is a perfect subtree that finds its sibling.
        for _ in 0..self.size.trailing_ones() {
            let left = self.hashes.pop().expect("one hash for each 1 bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.hashes.push(hash);
        self.size = self.size.checked_add(1).expect("a log has fewer than 2^64 entries");
    }

    /// Root of the tree; of the empty tree the SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut hashes = self.hashes.iter().rev();
        hashes.next().map_or_else(|| Sha256::digest([]).into(), |last| hashes.fold(*last, |right, left| node_hash(left, &right)))
    }

    /// The stored form: the size as 8 bytes big-endian, then the hashes of the perfect subtrees,
    /// largest first.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.size.to_be_bytes()[..], self.hashes.as_flattened()].concat()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; each frontier has exactly one stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (size, hashes) = bytes.split_first_chunk().ok_or(FrontierError::NoSize { actual: bytes.len() })?;
        let size = u64::from_be_bytes(*size);
        let expected = size.count_ones() as usize;
        let (hashes, rest) = hashes.as_chunks::<32>();
        if hashes.len() != expected || !rest.is_empty() {
            return Err(FrontierError::Length { size, expected: 8 + 32 * expected, actual: bytes.len() });
        }
        Ok(Self { size, hashes: hashes.to_vec() })
    }
}

/// Why bytes are not a stored [`Frontier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontierError {
    /// Too short to hold a size.
    NoSize {
        /// Bytes given.
        actual: usize,
    },
    /// Not the length that the size in front asks for.
    Length {
        /// Leaves, as read.
        size: u64,
        /// Bytes that a frontier of this size has.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
}

impl std::fmt::Display for FrontierError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSize { actual } => write!(f, "a stored frontier starts with 8 bytes of size; got {actual} bytes"),
            Self::Length { size, expected, actual } => {
                write!(f, "a frontier of {size} leaves is {expected} bytes; got {actual}")
            }
        }
    }
}

impl std::error::Error for FrontierError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes all writes");
            text
        })
    }

    // The definition of RFC 6962 2.1, word for word and slow.
    fn tree_hash(entries: &[Vec<u8>]) -> Hash {
        match entries {
            [] => Sha256::digest([]).into(),
            [entry] => leaf_hash(entry),
            _ => {
                let split = entries.len().next_power_of_two() / 2;
                node_hash(&tree_hash(&entries[..split]), &tree_hash(&entries[split..]))
            }
        }
    }

    fn frontier(entries: &[Vec<u8>]) -> Frontier {
        let mut frontier = Frontier::default();
        for entry in entries {
            frontier.append(leaf_hash(entry));
        }
        frontier
    }

    #[test]
    fn reference_vectors() {
        // Inputs and roots of the Certificate Transparency reference implementation.
        let entries: [&[u8]; 8] = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(hex(&frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (entry, root) in entries.iter().zip(roots) {
            frontier.append(leaf_hash(entry));
            assert_eq!(hex(&frontier.root()), root, "at {} leaves", frontier.size());
        }
    }

    #[test]
    fn stored_form_is_strict() {
        assert_eq!(Frontier::default().to_bytes(), [0; 8]);
        let stored = frontier(&[vec![1], vec![2], vec![3]]).to_bytes();
        assert_eq!((stored.len(), &stored[..8]), (8 + 2 * 32, &[0, 0, 0, 0, 0, 0, 0, 3][..]));
        assert_eq!(Frontier::from_bytes(&[0; 7]), Err(FrontierError::NoSize { actual: 7 }));
        for wrong in [&stored[..40], &stored[..71], &[&stored[..], &[0]].concat(), &[&stored[..], &[0; 32]].concat()] {
            let error = FrontierError::Length { size: 3, expected: 72, actual: wrong.len() };
            assert_eq!(Frontier::from_bytes(wrong), Err(error));
        }
        assert_eq!(
            Frontier::from_bytes(&[0xff; 8]).expect_err("no hashes").to_string(),
            "a frontier of 18446744073709551615 leaves is 2056 bytes; got 8"
        );
    }

    proptest! {
        #[test]
        fn root_is_that_of_the_definition(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..300)) {
            prop_assert_eq!(frontier(&entries).root(), tree_hash(&entries));
        }

        #[test]
        fn goes_on_after_storing(count in 0..600_usize, more in 0..40_usize) {
            let entries: Vec<_> = (0..count + more).map(|n| n.to_le_bytes().to_vec()).collect();
            let mut stored = Frontier::from_bytes(&frontier(&entries[..count]).to_bytes()).expect("as written");
            for entry in &entries[count..] {
                stored.append(leaf_hash(entry));
            }
            prop_assert_eq!(stored.size(), entries.len() as u64);
            prop_assert_eq!(&stored, &frontier(&entries));
        }

        #[test]
        fn bytes_are_a_frontier_in_one_way_or_none(size in prop_oneof![0..9_u64, any::<u64>()], tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&size.to_be_bytes()[..], &tail].concat();
            if let Ok(frontier) = Frontier::from_bytes(&bytes) {
                prop_assert_eq!(frontier.to_bytes(), bytes);
            }
        }
    }
}
