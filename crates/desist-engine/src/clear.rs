//! What identifiers are, kept for the destinations that have to be told of them.
//!
//! Identifiers are indexed by a keyed digest, from which nobody can be named. Of the kinds that a destination takes
//! ([`Policy::kinds_told`](crate::engine::Policy::kinds_told)) the normal form, or the SHA-256 that was given in its place, is kept sealed
//! in the vault. It stays as long as somebody holds the identifier or something is denied to it, since each destination has to be told of
//! the denial, and told again.

use desist_core::fact::{Entry, Fact, IdRef};
use desist_core::identifier::{Identifier, Kind, NormalForm};
use desist_core::lookup::{LookupKey, LookupKeys};
use desist_core::mark::IdentifierNo;
use desist_core::purpose::PurposeSet;
use desist_store::{Owner, Read, Sealed, StoreError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::delivery::transport::Known;
use crate::engine::{Ctx, Shared};
use crate::vault::{CannotOpen, SALT_BYTES, Vault};

/// What a caller said an identifier is.
#[derive(Clone, Debug)]
pub struct Given {
    identifier: Identifier,
    /// None: only its digest was given.
    text: Option<NormalForm>,
}

impl Given {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.identifier.kind
    }

    /// Where the identifier is found, if it was given in clear.
    pub(crate) fn key_of_text(&self, lookup: &LookupKeys) -> Option<LookupKey> {
        self.text.is_some().then(|| lookup.key_of(&self.identifier))
    }
}

impl From<(Identifier, NormalForm)> for Given {
    fn from((identifier, text): (Identifier, NormalForm)) -> Self {
        Self { identifier, text: Some(text) }
    }
}

impl From<Identifier> for Given {
    fn from(identifier: Identifier) -> Self {
        Self { identifier, text: None }
    }
}

/// What the vault keeps of an identifier: a tag, and the normal form or its SHA-256.
enum Kept {
    Text(Zeroizing<String>),
    Sha256([u8; 32]),
}

const TEXT: u8 = b't';
const SHA256: u8 = b'd';

impl Kept {
    /// Opens what is kept.
    fn open(vault: &Vault, no: IdentifierNo, sealed: &Sealed) -> Result<Self, CannotOpen> {
        let plain = vault.open(Owner::Identifier(no), sealed)?;
        match plain.split_first() {
            Some((&TEXT, text)) => {
                std::str::from_utf8(text).map(|text| Self::Text(Zeroizing::new(text.to_owned()))).map_err(|_| CannotOpen)
            }
            Some((&SHA256, digest)) => digest.try_into().map(Self::Sha256).map_err(|_| CannotOpen),
            _ => Err(CannotOpen),
        }
    }

    /// As what the identifier is known, if this is what its key was made of.
    fn known(self, shared: &Shared, kind: Kind, key: &LookupKey) -> Option<Known> {
        let known = match self {
            Self::Text(text) => Known { kind, sha256: Sha256::digest(text.as_bytes()).into(), text: Some(text), denied: PurposeSet::EMPTY },
            Self::Sha256(sha256) => Known { kind, sha256, text: None, denied: PurposeSet::EMPTY },
        };
        (shared.lookup.key_of(&Identifier { kind, digest: known.sha256 }) == *key).then_some(known)
    }
}

/// Whether what is kept of an identifier opens, for the check of the vault.
pub(crate) fn opens(vault: &Vault, no: IdentifierNo, sealed: &Sealed) -> bool {
    Kept::open(vault, no, sealed).is_ok()
}

/// How an identifier can be named to a destination; none if it was never given while its kind is told to one, and no evidence names it.
pub fn known(read: &mut dyn Read, shared: &Shared, no: IdentifierNo) -> Result<Option<Known>, StoreError> {
    let Some((key, kind, _)) = read.verdict_of(no)? else { return Ok(None) };
    known_as(read, shared, no, kind, &key)
}

/// The same for whoever has read the identifier's kind and key.
pub(crate) fn known_as(
    read: &mut dyn Read,
    shared: &Shared,
    no: IdentifierNo,
    kind: Kind,
    key: &LookupKey,
) -> Result<Option<Known>, StoreError> {
    if let Some(sealed) = read.vault_get(Owner::Identifier(no))? {
        let known = Kept::open(&shared.vault, no, &sealed).ok().and_then(|kept| kept.known(shared, kind, key));
        if known.is_some() {
            return Ok(known);
        }
        tracing::error!(identifier = no.0, "what is kept of an identifier is not what it is");
    }
    from_evidence(read, shared, no, kind, key)
}

/// Keeps what was given of those identifiers that destinations are told of, as far as it was not known before. Whoever can be told of with
/// it gets a new place among the changes. Called in the transaction of the command that names the identifiers, after it.
pub fn keep(ctx: &mut Ctx<'_>, given: &[Given]) -> Result<(), StoreError> {
    if given.is_empty() {
        return Ok(());
    }
    let shared = ctx.shared;
    let policy = shared.policy.load();
    for Given { identifier, text } in given {
        if !policy.kinds_told.contains(&identifier.kind) {
            continue;
        }
        let key = shared.lookup.key_of(identifier);
        let Some(no) = ctx.batch.find(ctx.write, &key)? else { continue };
        let owner = Owner::Identifier(no);
        if let Some(sealed) = ctx.write.vault_get(owner)? {
            // What is damaged, or was kept of something else, is of no use to anybody and is replaced.
            match Kept::open(&shared.vault, no, &sealed).ok().and_then(|kept| kept.known(shared, identifier.kind, &key)) {
                Some(known) if known.text.is_some() || text.is_none() => continue,
                _ => {}
            }
        }
        let (tag, value) = match text {
            Some(text) => (TEXT, text.as_str().as_bytes()),
            None => (SHA256, identifier.digest.as_slice()),
        };
        let plain = Zeroizing::new([&[tag], value].concat());
        ctx.write.vault_put(owner, &shared.vault.seal(owner, &plain, shared.env.as_ref()))?;
        ctx.batch.touch(no);
    }
    Ok(())
}

/// Shreds what is kept of those identifiers that the batch's entries from place `first` on take from a holder, that nobody holds any more
/// and to which nothing is denied: no destination has to be told of them again. Called after whatever ends holds, also if no kind is told
/// any more.
pub(crate) fn forget(ctx: &mut Ctx<'_>, first: usize) -> Result<(), StoreError> {
    let mut ended = Vec::new();
    for entry in ctx.batch.entries.iter().skip(first) {
        if let Fact::Unlinked { identifiers, .. } = &entry.fact {
            ended.extend(identifiers.iter().map(|IdRef(no, _)| *no));
        }
    }
    for no in ended {
        let owner = Owner::Identifier(no);
        if ctx.write.vault_get(owner)?.is_some()
            && ctx.batch.graph().identifier(ctx.write, no)?.is_none_or(|row| row.holders == 0 && row.line.denied().is_empty())
        {
            ctx.write.vault_shred(owner)?;
        }
    }
    Ok(())
}

/// The part of a request's evidence that is relied on: the member `identifiers`, as the callers of [`crate::intake::request`] write it.
#[derive(Deserialize)]
struct Evidence {
    #[serde(default)]
    identifiers: Vec<Named>,
}

/// One of them; what is not understood is passed over.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Value { kind: Kind, value: String },
    Sha256 { kind: Kind, sha256: String },
    Other(IgnoredAny),
}

/// Looks for the identifier in the evidence of the request by which it was marked last, for those who were named before a destination
/// took their kind.
fn from_evidence(read: &mut dyn Read, shared: &Shared, no: IdentifierNo, kind: Kind, key: &LookupKey) -> Result<Option<Known>, StoreError> {
    let row = read.identifier(no)?;
    let Some(seq) = row.and_then(|row| row.line.marks().iter().map(|held| held.mark.seq).max()) else { return Ok(None) };
    let Some((_, bytes)) = read.entries(seq..seq + 1)?.pop() else { return Ok(None) };
    // Damage of the log is told by its check.
    let Ok(Fact::OptedOut { request, evidence: Some(_), .. } | Fact::OptedIn { request, .. }) =
        Entry::decode(&bytes).map(|entry| entry.fact)
    else {
        return Ok(None);
    };
    let owner = Owner::Request(request);
    let Some(sealed) = read.vault_get(owner)? else { return Ok(None) };
    let Ok(salted) = shared.vault.open(owner, &sealed) else {
        tracing::error!(%request, "the evidence of a request does not open; run `desist check`");
        return Ok(None);
    };
    let evidence = salted.get(SALT_BYTES..).and_then(|evidence| serde_json::from_slice::<Evidence>(evidence).ok());
    let mut found = None;
    for named in evidence.into_iter().flat_map(|evidence| evidence.identifiers) {
        let (identifier, text) = match named {
            Named::Value { kind: of, value } if of == kind => {
                let value = Zeroizing::new(value);
                let Ok((identifier, normal)) = Identifier::from_value(kind, &value) else { continue };
                (identifier, Some(Zeroizing::new(normal.as_str().to_owned())))
            }
            Named::Sha256 { kind: of, sha256 } if of == kind => {
                let Ok(identifier) = Identifier::from_sha256_hex(kind, &sha256) else { continue };
                (identifier, None)
            }
            _ => continue,
        };
        if shared.lookup.key_of(&identifier) == *key && (text.is_some() || found.is_none()) {
            found = Some(Known { kind, text, sha256: identifier.digest, denied: PurposeSet::EMPTY });
        }
    }
    Ok(found)
}
