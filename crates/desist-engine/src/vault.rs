//! The vault: sealed personal data, one random data key per owner.
//!
//! AES-256-GCM-SIV (RFC 8452) under a data key, which is itself sealed under the master key; both
//! with the owner as associated data, so that rows cannot be swapped. Removing a row removes the
//! only copy of its data key.
//!
//! A profile's data goes with the profile. What an identifier is goes with the last hold on it, unless something is denied to it: then it
//! stays, since destinations have to be told, and told again ([`crate::clear`]).

use std::collections::BTreeSet;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use desist_core::fact::{Digest, Entry, Fact};
use desist_core::mark::IdentifierNo;
use desist_store::{Owner, Read, Sealed, StoreError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clear;
use crate::env::{Env, random};

/// Seals and opens personal data.
pub struct Vault {
    master: LessSafeKey,
    /// Seals what callers carry.
    carried: LessSafeKey,
}

/// The row is damaged or was sealed under another master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a vault item cannot be opened: the row or the master key is not the one it was sealed with")]
pub struct CannotOpen;

impl Vault {
    /// A vault under this master key.
    pub fn new(master: &[u8; 32]) -> Self {
        let carried = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master), b"desist/carried/v1");
        let carried = carried.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes");
        Self { master: aead_key(master), carried: aead_key(carried) }
    }

    /// Seals what a caller is to carry and bring back, such as a place in a list. It opens only under
    /// the same `context`.
    pub fn seal_carried(&self, context: &[u8], plain: &[u8], env: &dyn Env) -> Vec<u8> {
        seal(&self.carried, context, plain, env)
    }

    /// Opens what [`Self::seal_carried`] made.
    pub fn open_carried(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        open(&self.carried, context, sealed)
    }

    /// Seals `plain` for `owner` under a new data key.
    pub fn seal(&self, owner: Owner, plain: &[u8], env: &dyn Env) -> Sealed {
        let data_key = Zeroizing::new(random::<32>(env));
        Sealed {
            wrapped_key: seal(&self.master, &context(owner, b"key"), &*data_key, env),
            ciphertext: seal(&aead_key(&data_key), &context(owner, b"data"), plain, env),
        }
    }

    /// Seals new content under the owner's present data key.
    pub fn reseal(&self, owner: Owner, sealed: &Sealed, plain: &[u8], env: &dyn Env) -> Result<Sealed, CannotOpen> {
        let data_key = self.data_key(owner, sealed)?;
        Ok(Sealed { wrapped_key: sealed.wrapped_key.clone(), ciphertext: seal(&data_key, &context(owner, b"data"), plain, env) })
    }

    /// Opens what was sealed for `owner`.
    pub fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        open(&self.data_key(owner, sealed)?, &context(owner, b"data"), &sealed.ciphertext)
    }

    fn data_key(&self, owner: Owner, sealed: &Sealed) -> Result<LessSafeKey, CannotOpen> {
        let key = open(&self.master, &context(owner, b"key"), &sealed.wrapped_key)?;
        Ok(aead_key(key.as_slice().try_into().map_err(|_| CannotOpen)?))
    }
}

/// Bytes of salt in front of evidence.
pub const SALT_BYTES: usize = 32;

/// Evidence with its salt, and the commitment to both that the log carries: SHA-256 over a label,
/// the 32 bytes of salt and the evidence.
pub fn commit(evidence: &[u8], env: &dyn Env) -> (Vec<u8>, Digest) {
    let mut salted = random::<SALT_BYTES>(env).to_vec();
    salted.extend_from_slice(evidence);
    let digest = commitment(&salted);
    (salted, digest)
}

/// The commitment to salted evidence.
pub fn commitment(salted: &[u8]) -> Digest {
    Digest(Sha256::new().chain_update(b"desist/evidence/v1\0").chain_update(salted).finalize().into())
}

/// Opens everything that the vault holds: each profile's data, what each privacy request is about, what is kept of identifiers, and
/// each request's evidence, which must be what the log committed to. Returns what does not fit, in sentences that
/// name rows and never people. Evidence that was erased is no problem: its commitment stays.
pub fn check(read: &mut dyn Read, vault: &Vault) -> Result<Vec<String>, StoreError> {
    let (mut problems, mut profiles, mut from) = (Vec::new(), BTreeSet::new(), 1);
    let upto = read.coordinator()?.counters.entries;
    while from <= upto {
        let to = (from + CHECK_CHUNK).min(upto + 1);
        for (seq, bytes) in read.entries(from..to)? {
            // What is not an entry is named by the check of the log.
            match Entry::decode(&bytes).map(|entry| entry.fact) {
                Ok(Fact::OptedOut { request, evidence: Some(digest), .. } | Fact::OptInAsked { request, evidence: Some(digest), .. }) => {
                    let owner = Owner::Request(request);
                    if let Some(sealed) = read.vault_get(owner)?
                        && !vault.open(owner, &sealed).is_ok_and(|salted| commitment(&salted) == digest)
                    {
                        problems.push(format!("vault: the evidence of request {request} is not what entry {seq} committed to"));
                    }
                }
                Ok(Fact::ProfileCreated { subject, .. }) => drop(profiles.insert(subject)),
                Ok(Fact::ProfileDeleted { subject, .. }) => drop(profiles.remove(&subject)),
                _ => {}
            }
        }
        from = to;
    }
    for subject in profiles {
        let owner = Owner::Profile(subject);
        if let Some(sealed) = read.vault_get(owner)?
            && vault.open(owner, &sealed).is_err()
        {
            problems.push(format!("vault: the data of the profile that is subject {} does not open", subject.0));
        }
    }
    let mut after = 0;
    loop {
        let requests = read.privacy_requests(after, CHECK_CHUNK as usize)?;
        let Some(last) = requests.last() else { break };
        after = last.no;
        for request in requests {
            let owner = Owner::PrivacyRequest(request.no);
            if let Some(sealed) = read.vault_get(owner)?
                && vault.open(owner, &sealed).is_err()
            {
                problems.push(format!("vault: the item of privacy request {} does not open", request.no));
            }
        }
    }
    let mut after = IdentifierNo(0);
    loop {
        let identifiers = read.vault_identifiers(after, CHECK_CHUNK as usize)?;
        let Some(last) = identifiers.last() else { return Ok(problems) };
        after = *last;
        for no in identifiers {
            if let Some(sealed) = read.vault_get(Owner::Identifier(no))?
                && !clear::opens(vault, no, &sealed)
            {
                problems.push(format!("vault: the item of identifier {} does not open", no.0));
            }
        }
    }
}

/// Entries or rows read at a time: a few MiB.
const CHECK_CHUNK: u64 = 10_000;

fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has 32 bytes"))
}

fn context(owner: Owner, part: &[u8]) -> Vec<u8> {
    let mut bytes = b"desist/vault/v1\0".to_vec();
    bytes.extend_from_slice(part);
    match owner {
        Owner::Profile(subject) => {
            bytes.push(b'p');
            bytes.extend_from_slice(&subject.0.to_be_bytes());
        }
        Owner::Request(request) => {
            bytes.push(b'r');
            bytes.extend_from_slice(&request.0);
        }
        Owner::PrivacyRequest(no) => {
            bytes.push(b'a');
            bytes.extend_from_slice(&no.to_be_bytes());
        }
        Owner::ByHand(seq) => {
            bytes.push(b'h');
            bytes.extend_from_slice(&seq.to_be_bytes());
        }
        Owner::Identifier(no) => {
            bytes.push(b'i');
            bytes.extend_from_slice(&no.0.to_be_bytes());
        }
    }
    bytes
}

/// Nonce, ciphertext and tag.
fn seal(key: &LessSafeKey, context: &[u8], plain: &[u8], env: &dyn Env) -> Vec<u8> {
    let nonce = random::<NONCE_LEN>(env);
    let mut bytes = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut bytes)
        .expect("personal data is far below the cipher's limit");
    [nonce.as_slice(), &bytes].concat()
}

fn open(key: &LessSafeKey, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CannotOpen)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut body).map_err(|_| CannotOpen)?;
    Ok(Zeroizing::new(plain.to_vec()))
}

#[cfg(test)]
mod tests {
    use desist_core::fact::RequestId;
    use desist_core::mark::SubjectNo;

    use super::*;
    use crate::env::System;

    #[test]
    fn only_the_owner_under_the_same_master_key_opens() {
        let vault = Vault::new(&[7; 32]);
        let owner = Owner::Profile(SubjectNo(5));
        let sealed = vault.seal(owner, b"rosa", &System);
        assert_eq!(vault.open(owner, &sealed).unwrap().as_slice(), b"rosa");
        assert_eq!(vault.open(Owner::Profile(SubjectNo(6)), &sealed), Err(CannotOpen));
        assert_eq!(vault.open(Owner::Request(RequestId([0; 16])), &sealed), Err(CannotOpen));
        // The same number among other owners.
        assert_eq!(vault.open(Owner::PrivacyRequest(5), &sealed), Err(CannotOpen));
        assert_eq!(vault.open(Owner::Identifier(IdentifierNo(5)), &sealed), Err(CannotOpen));
        let identifier = vault.seal(Owner::Identifier(IdentifierNo(5)), b"rosa", &System);
        assert_eq!(vault.open(owner, &identifier), Err(CannotOpen));
        assert_eq!(Vault::new(&[8; 32]).open(owner, &sealed), Err(CannotOpen));
        for at in 0..sealed.ciphertext.len() {
            let mut damaged = sealed.clone();
            damaged.ciphertext[at] ^= 1;
            assert_eq!(vault.open(owner, &damaged), Err(CannotOpen), "byte {at}");
        }
        let resealed = vault.reseal(owner, &sealed, b"vega", &System).unwrap();
        assert_eq!(vault.open(owner, &resealed).unwrap().as_slice(), b"vega");
        let carried = vault.seal_carried(b"list", b"rosa", &System);
        assert_eq!(vault.open_carried(b"list", &carried).unwrap().as_slice(), b"rosa");
        assert_eq!(vault.open_carried(b"other list", &carried), Err(CannotOpen));
    }

    #[test]
    fn a_commitment_hides_and_binds() {
        let (salted, digest) = commit(b"evidence", &System);
        let (_, other) = commit(b"evidence", &System);
        assert_eq!(commitment(&salted), digest);
        assert_ne!(digest, other, "the salt differs");
    }
}
