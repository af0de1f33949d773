//! Campaign profiles: subjects with attributes in the vault.

use desist_core::fact::Refusal as OptInRefusal;
use desist_core::fact::{Actor, Channel, Fact, RequestKind};
use desist_core::identifier::Identifier;
use desist_core::mark::SubjectNo;
use desist_core::purpose::PurposeSet;
use desist_core::rules::{ApiOptIn, Named};
use desist_store::{Owner, ProfileRow, Read, Sealed, StoreError};
use zeroize::Zeroizing;

use crate::engine::{Ctx, Refusal, Shared};
use crate::intake::{self, Accepted, NewRequest, Outcome};

/// What `ccpaOptOut` is about: an opt-out of sale and sharing.
pub const PURPOSES: PurposeSet = PurposeSet(PurposeSet::SALE.0 | PurposeSet::SHARING.0);

/// A profile as stored.
pub struct Profile {
    /// The subject it is.
    pub subject: SubjectNo,
    /// Times.
    pub row: ProfileRow,
    /// The attributes as the web layer wrote them.
    pub attributes: Zeroizing<Vec<u8>>,
    /// Whether decisions about the profile deny sale.
    pub opted_out: bool,
    /// When that began, in Unix milliseconds.
    pub opted_out_since_ms: Option<i64>,
}

/// A new profile.
#[derive(Clone)]
pub struct NewProfile {
    /// Its generated key.
    pub pkey: Identifier,
    /// Its attributes.
    pub attributes: Vec<u8>,
    /// The identifiers among them.
    pub identifiers: Vec<Named>,
    /// The e-mail among them, which an opt-out names too.
    pub email: Option<Named>,
    /// Whether it is opted out from the start.
    pub opt_out: bool,
    /// Evidence of that opt-out, for the vault.
    pub evidence: Vec<u8>,
    /// Which key.
    pub by: Actor,
}

/// A change of attributes, as the web layer computed it from the present ones.
pub struct Merged {
    /// The attributes from now on.
    pub attributes: Vec<u8>,
    /// The identifiers among the present attributes.
    pub old: Vec<Named>,
    /// The identifiers from now on.
    pub new: Vec<Named>,
    /// The e-mail among them.
    pub email: Option<Named>,
    /// Whether any attribute differs.
    pub changed: bool,
}

/// What a change says about the opt-out.
#[derive(Clone)]
pub struct Wish {
    /// `true`, `false` or not mentioned.
    pub opt_out: Option<bool>,
    /// Whether it was the change's only member.
    pub alone: bool,
    /// Whether a `false` that is refused refuses all of the change.
    pub all_or_nothing: bool,
    /// Evidence of an opt-out, for the vault.
    pub evidence: Vec<u8>,
    /// Which key.
    pub by: Actor,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The request that an opt-out became.
    pub request: Option<Accepted>,
    /// Why an opt-in changed nothing.
    pub refused: Option<OptInRefusal>,
}

/// A profile's rows, opened.
struct Found {
    subject: SubjectNo,
    row: ProfileRow,
    sealed: Sealed,
    attributes: Zeroizing<Vec<u8>>,
}

/// What the vault keeps of a profile: the digest of its own key, then its attributes. Links can make
/// others hold the key too, so that holding it does not tell whose it is.
fn with_key(pkey: &Identifier, attributes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&pkey.digest, attributes].concat())
}

/// The profile that a key was given to, among those who hold it.
fn find(read: &mut dyn Read, shared: &Shared, pkey: &Identifier, holders: &[SubjectNo]) -> Outcome<Found> {
    let mut refusal = Refusal::NotFound;
    for subject in holders.iter().copied() {
        let owner = Owner::Profile(subject);
        let (Some(row), Some(sealed)) = (read.profile(subject)?, read.vault_get(owner)?) else { continue };
        match shared.vault.open(owner, &sealed) {
            Ok(plain) => {
                if let Some(attributes) = plain.strip_prefix(&pkey.digest) {
                    let attributes = Zeroizing::new(attributes.to_vec());
                    return Ok(Ok(Found { subject, row, sealed, attributes }));
                }
            }
            Err(error) => refusal = error.into(),
        }
    }
    Ok(Err(refusal))
}

/// Reads a profile.
pub fn get(read: &mut dyn Read, shared: &Shared, pkey: &Identifier) -> Outcome<Profile> {
    let holders = match read.find(&shared.lookup.key_of(pkey))? {
        Some(no) => read.holders(no)?,
        None => Vec::new(),
    };
    let Found { subject, row, attributes, .. } = match find(read, shared, pkey, &holders)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut graph = desist_core::graph::Graph::default();
    let opted_out = graph.subject_denied(read, subject)?.contains(PurposeSet::SALE);
    let mut since = graph.subject(read, subject)?.line.denied_since(PurposeSet::SALE);
    for no in graph.held(read, subject)? {
        if let Some(row) = graph.identifier(read, no)?
            && row.kind.is_person_level()
        {
            since = since.max(row.line.denied_since(PurposeSet::SALE));
        }
    }
    let opted_out_since_ms = since.filter(|_| opted_out).map(|seconds| seconds * 1000);
    Ok(Ok(Profile { subject, row, attributes, opted_out, opted_out_since_ms }))
}

/// Creates a profile. Duplicates of an e-mail are allowed, and share its opt-out.
pub fn create(ctx: &mut Ctx<'_>, new: &NewProfile) -> Outcome<Option<Accepted>> {
    let subject = ctx.batch.new_subject();
    let by = new.by;
    ctx.batch.emit(ctx.write, Fact::ProfileCreated { subject, by })?;
    let mut held = vec![Named { kind: new.pkey.kind, key: ctx.shared.lookup.key_of(&new.pkey) }];
    held.extend(&new.identifiers);
    ctx.batch.hold_exactly(ctx.write, subject, &[], &held, by)?;
    let owner = Owner::Profile(subject);
    let sealed = ctx.shared.vault.seal(owner, &with_key(&new.pkey, &new.attributes), ctx.shared.env.as_ref());
    ctx.write.vault_put(owner, &sealed)?;
    ctx.write.put_profile(subject, &ProfileRow { created_ms: ctx.now_ms, modified_ms: ctx.now_ms, opt_out_ended_ms: None })?;
    if !new.opt_out {
        return Ok(Ok(None));
    }
    Ok(opt_out(ctx, subject, new.email, new.evidence.clone(), by)?.map(Some))
}

/// Changes a profile. `merge` gets the present attributes and may refuse.
pub fn change(
    ctx: &mut Ctx<'_>,
    pkey: &Identifier,
    wish: &Wish,
    merge: &mut dyn FnMut(&[u8]) -> Option<Merged>,
    own: bool,
) -> Outcome<Changed> {
    let Found { subject, mut row, sealed, attributes } = match find_in_batch(ctx, pkey)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let owner = Owner::Profile(subject);
    let Some(merged) = merge(&attributes) else { return Ok(Err(Refusal::Profile)) };
    if wish.all_or_nothing && wish.opt_out == Some(false) && !wish.alone && would_be_denied(ctx, subject, &merged.new)? {
        let reason = if own { OptInRefusal::WholeRecord } else { OptInRefusal::Policy };
        ctx.batch.emit(ctx.write, Fact::OptInRefused { subject, purposes: PURPOSES, reason, by: wish.by })?;
        return Ok(Ok(Changed { request: None, refused: Some(reason) }));
    }
    if merged.changed {
        match ctx.shared.vault.reseal(owner, &sealed, &with_key(pkey, &merged.attributes), ctx.shared.env.as_ref()) {
            Ok(sealed) => ctx.write.vault_put(owner, &sealed)?,
            Err(error) => return Ok(Err(error.into())),
        }
        ctx.batch.hold_exactly(ctx.write, subject, &merged.old, &merged.new, wish.by)?;
        row.modified_ms = ctx.now_ms;
    }
    let mut changed = Changed { request: None, refused: None };
    match wish.opt_out {
        // A sync that repeats what the profile's own line says already adds nothing.
        Some(true) if !ctx.batch.graph().subject(ctx.write, subject)?.line.denied().contains(PURPOSES) => {
            match opt_out(ctx, subject, merged.email, wish.evidence.clone(), wish.by)? {
                Ok(accepted) => changed.request = Some(accepted),
                Err(refusal) => return Ok(Err(refusal)),
            }
            row.modified_ms = ctx.now_ms;
        }
        Some(false) => match ctx.batch.api_opt_in(ctx.write, subject, PURPOSES, wish.alone, own, wish.by)? {
            ApiOptIn::AlreadyAllowed => {}
            ApiOptIn::Ended => {
                row.modified_ms = ctx.now_ms;
                row.opt_out_ended_ms = Some(ctx.now_ms);
            }
            ApiOptIn::Refused(reason) => changed.refused = Some(reason),
        },
        Some(true) | None => {}
    }
    ctx.write.put_profile(subject, &row)?;
    Ok(Ok(changed))
}

/// Deletes a profile: its data goes, its suppression stays.
pub fn delete(ctx: &mut Ctx<'_>, pkey: &Identifier, by: Actor) -> Outcome<()> {
    let subject = match find_in_batch(ctx, pkey)? {
        Ok(found) => found.subject,
        Err(refusal) => return Ok(Err(refusal)),
    };
    ctx.batch.delete_profile(ctx.write, subject, by)?;
    ctx.write.vault_shred(Owner::Profile(subject))?;
    ctx.write.delete_profile(subject)?;
    Ok(Ok(()))
}

/// The profile that a key was given to, as of this point in the batch.
fn find_in_batch(ctx: &mut Ctx<'_>, pkey: &Identifier) -> Outcome<Found> {
    let holders = match ctx.batch.find(ctx.write, &ctx.shared.lookup.key_of(pkey))? {
        Some(no) => ctx.batch.graph().all_holders(ctx.write, no)?,
        None => Vec::new(),
    };
    find(ctx.write, ctx.shared, pkey, &holders)
}

/// Whether the profile is opted out, or becomes so by the identifiers that it is about to hold.
fn would_be_denied(ctx: &mut Ctx<'_>, subject: SubjectNo, new: &[Named]) -> Result<bool, StoreError> {
    let mut denied = ctx.batch.graph().subject_denied(ctx.write, subject)?;
    for one in new {
        if let Some(no) = ctx.batch.find(ctx.write, &one.key)?
            && let Some(row) = ctx.batch.graph().identifier(ctx.write, no)?
            && !row.shared
        {
            denied = denied.union(row.line.denied());
        }
    }
    Ok(denied.intersects(PURPOSES))
}

fn opt_out(ctx: &mut Ctx<'_>, subject: SubjectNo, email: Option<Named>, evidence: Vec<u8>, by: Actor) -> Outcome<Accepted> {
    let new = NewRequest {
        kind: RequestKind::OptOut,
        purposes: PURPOSES,
        named: email.into_iter().collect(),
        channel: Channel::Api,
        acted_at: None,
        by,
        evidence,
    };
    intake::record(ctx, &new, Some(subject))
}
