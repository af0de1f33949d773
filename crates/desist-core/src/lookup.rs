//! Lookup keys: the only form in which identifiers are indexed.
//!
//! A key is one AES-256 block over the first 128 bits of the SHA-256 of the normal form, so that a
//! raw value and a hash made elsewhere meet in the same key. The AES key is
//!
//! ```text
//! HKDF-SHA256(salt = none, ikm = pepper (32 bytes), length = 32, info =
//!     "desist/lookup/v1" 00 business 00 kind 00 generation)
//! ```
//!
//! with `business` and `kind` ([`Kind::name`]) in UTF-8, each `00` one byte, and `generation` as
//! four bytes big-endian. Read from its end that has one meaning, whatever bytes `business` has.
//!
//! Encryption and not a keyed hash, because a permutation can be undone by the holder of the
//! pepper: keys of people whose identifiers are gone still move to a new pepper. For the same reason
//! a key is as good as a hash of the identifier to whoever has the pepper, and never leaves the
//! store.

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::identifier::{Identifier, Kind};

/// The only form in which identifiers are indexed: 16 bytes, see the module documentation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupKey(pub [u8; 16]);

impl fmt::Debug for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookupKey(…)")
    }
}

/// The secret of one business that all its lookup keys hang on: 32 random bytes.
pub struct Pepper(pub [u8; 32]);

impl Drop for Pepper {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// The ciphers of one business and generation, one for each kind of identifier.
#[derive(Clone)]
pub struct LookupKeys {
    // By `Kind::code() - 1`, which is the order of `Kind::ALL`.
    ciphers: [Aes256; Kind::ALL.len()],
    generation: u32,
}

impl fmt::Debug for LookupKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupKeys").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl LookupKeys {
    /// Derives the key of each kind and prepares its cipher. `business` is the id of the business,
    /// `generation` counts the rotations of the pepper.
    pub fn new(pepper: &Pepper, business: &str, generation: u32) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, &pepper.0);
        let ciphers = Kind::ALL.map(|kind| {
            let [business, kind, generation] = [business.as_bytes(), kind.name().as_bytes(), &generation.to_be_bytes()];
            let info = [b"desist/lookup/v1", business, kind, generation].join(&0);
            let mut key = Zeroizing::new([0; 32]);
            hkdf.expand(&info, &mut *key).expect("32 bytes are a length that HKDF-SHA256 gives");
            Aes256::new((&*key).into())
        });
        Self { ciphers, generation }
    }

    /// The generation these keys were derived for.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The key under which this identifier is indexed.
    pub fn key_of(&self, identifier: &Identifier) -> LookupKey {
        let (half, _) = identifier.digest.split_first_chunk::<16>().expect("16 of 32 bytes");
        self.key_of_half(identifier.kind, *half)
    }

    /// The key for the first 16 bytes of a digest: with [`invert`](Self::invert) under the old
    /// generation, this moves a key to a new one.
    pub fn key_of_half(&self, kind: Kind, half_digest: [u8; 16]) -> LookupKey {
        let mut block = half_digest.into();
        self.cipher(kind).encrypt_block(&mut block);
        LookupKey(block.into())
    }

    /// The first 16 bytes of the digest that a key of this kind stands for. For pepper rotation
    /// only: what comes out can be searched by guessing, so it must not be kept or shown.
    pub fn invert(&self, kind: Kind, key: LookupKey) -> [u8; 16] {
        let mut block = key.0.into();
        self.cipher(kind).decrypt_block(&mut block);
        block.into()
    }

    fn cipher(&self, kind: Kind) -> &Aes256 {
        &self.ciphers[usize::from(kind.code() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pepper() -> Pepper {
        Pepper(std::array::from_fn(|n| n as u8))
    }

    fn identifier(kind: Kind, value: &str) -> Identifier {
        Identifier::from_value(kind, value).expect("valid").0
    }

    #[test]
    fn known_answers() {
        // Computed with HKDF and AES-ECB of Python's `cryptography` 48 (OpenSSL).
        let key = |kind, generation, value| LookupKeys::new(&pepper(), "acme", generation).key_of(&identifier(kind, value)).0;
        assert_eq!(key(Kind::Email, 1, "Rosa@Example.org"), 0x0c47_9d66_0452_8ff5_a30e_fff9_ec33_0223_u128.to_be_bytes());
        assert_eq!(key(Kind::Phone, 258, "(202) 555-0123"), 0xff2e_5fb9_15a0_6165_128d_8f72_944e_f783_u128.to_be_bytes());
    }

    #[test]
    fn every_kind_business_and_generation_has_its_own_keys() {
        let mut seen = HashSet::new();
        let mut count = 0;
        for business in ["acme", "acme2", "", "acme\0email"] {
            for generation in [0, 1, 2, 256] {
                let keys = LookupKeys::new(&pepper(), business, generation);
                for kind in Kind::ALL {
                    seen.insert(keys.key_of(&Identifier { kind, digest: [7; 32] }));
                    count += 1;
                }
            }
        }
        seen.insert(LookupKeys::new(&Pepper([1; 32]), "acme", 1).key_of(&Identifier { kind: Kind::Email, digest: [7; 32] }));
        assert_eq!(seen.len(), count + 1);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let keys = LookupKeys::new(&pepper(), "acme", 3);
        let key = keys.key_of(&identifier(Kind::Email, "rosa@example.org"));
        assert_eq!(format!("{key:?} {:?} {keys:?}", pepper()), "LookupKey(…) Pepper(…) LookupKeys { generation: 3, .. }");
    }

    proptest! {
        #[test]
        fn invert_undoes_key_of(digest: [u8; 32], code in 1..=9_u8, pepper: [u8; 32]) {
            let kind = Kind::from_code(code).expect("a code");
            let [old, new] = [1, 2].map(|generation| LookupKeys::new(&Pepper(pepper), "acme", generation));
            let identifier = Identifier { kind, digest };
            let half = old.invert(kind, old.key_of(&identifier));
            prop_assert_eq!(&half[..], &digest[..16]);
            prop_assert_eq!(new.key_of_half(kind, half), new.key_of(&identifier));
        }
    }
}
