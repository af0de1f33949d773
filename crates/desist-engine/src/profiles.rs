//! Campaign profiles: subjects with attributes in the vault.

use desist_core::fact::Refusal as OptInRefusal;
use desist_core::fact::{Actor, Channel, Fact, RequestKind};
use desist_core::graph::Graph;
use desist_core::identifier::{Identifier, Kind};
use desist_core::mark::SubjectNo;
use desist_core::purpose::PurposeSet;
use desist_core::rules::{ApiOptIn, Named};
use desist_store::{Owner, ProfileRow, Read, Sealed, StoreError};
use zeroize::Zeroizing;

use crate::clear::{self, Given};
use crate::engine::{Ctx, Refusal, Shared};
use crate::intake::{self, Accepted, NewRequest, Outcome};
use crate::search;
use crate::vault::CannotOpen;

/// What `ccpaOptOut` is about: an opt-out of sale and sharing.
pub const PURPOSES: PurposeSet = PurposeSet(PurposeSet::SALE.0 | PurposeSet::SHARING.0);

/// A profile as stored.
pub struct Profile {
    /// The subject it is.
    pub subject: SubjectNo,
    /// Its key.
    pub pkey: String,
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
    pub pkey: String,
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
    /// What the identifiers among the attributes are.
    pub given: Vec<Given>,
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
    /// What the identifiers from now on are.
    pub given: Vec<Given>,
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
pub(crate) struct Found {
    pub(crate) subject: SubjectNo,
    pub(crate) row: ProfileRow,
    pub(crate) pkey: String,
    sealed: Sealed,
    pub(crate) attributes: Zeroizing<Vec<u8>>,
}

/// What the vault keeps of a profile: its own key, with its length in front, then its attributes.
/// Links can make others hold the key too, so that holding it does not tell whose it is.
fn with_key(pkey: &str, attributes: &[u8]) -> Zeroizing<Vec<u8>> {
    let len = u8::try_from(pkey.len()).expect("an identifier has at most 256 bytes, and a generated key far less");
    Zeroizing::new([&[len], pkey.as_bytes(), attributes].concat())
}

/// Opens what [`with_key`] made.
fn split_key(plain: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = plain.split_first()?;
    let (pkey, attributes) = rest.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(pkey).ok()?, attributes))
}

/// Whether a profile's own key is this one.
fn is_key(text: &str, pkey: &Identifier) -> bool {
    Identifier::from_value(Kind::CampaignPkey, text).is_ok_and(|(own, _)| own.digest == pkey.digest)
}

/// A subject's profile, opened; none if it is not a profile.
pub(crate) fn open(read: &mut dyn Read, shared: &Shared, subject: SubjectNo) -> Outcome<Option<Found>> {
    let owner = Owner::Profile(subject);
    let (Some(row), Some(sealed)) = (read.profile(subject)?, read.vault_get(owner)?) else { return Ok(Ok(None)) };
    let plain = match shared.vault.open(owner, &sealed) {
        Ok(plain) => plain,
        Err(error) => return Ok(Err(error.into())),
    };
    let Some((pkey, attributes)) = split_key(&plain) else { return Ok(Err(CannotOpen.into())) };
    Ok(Ok(Some(Found { subject, row, pkey: pkey.to_owned(), attributes: Zeroizing::new(attributes.to_vec()), sealed })))
}

/// The profile that a key was given to, among those who hold it.
fn find(read: &mut dyn Read, shared: &Shared, pkey: &Identifier, holders: &[SubjectNo]) -> Outcome<Found> {
    let mut refusal = Refusal::NotFound;
    for subject in holders.iter().copied() {
        match open(read, shared, subject)? {
            Ok(Some(found)) if is_key(&found.pkey, pkey) => return Ok(Ok(found)),
            Ok(_) => {}
            Err(error) => refusal = error,
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
    match find(read, shared, pkey, &holders)? {
        Ok(found) => Ok(Ok(with_choice(read, found)?)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Reads the profile that a subject is; none if it is not one.
pub fn get_by_subject(read: &mut dyn Read, shared: &Shared, subject: SubjectNo) -> Outcome<Option<Profile>> {
    match open(read, shared, subject)? {
        Ok(Some(found)) => Ok(Ok(Some(with_choice(read, found)?))),
        Ok(None) => Ok(Ok(None)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Whether decisions about a subject deny sale.
pub(crate) fn is_opted_out(read: &mut dyn Read, subject: SubjectNo) -> Result<bool, StoreError> {
    Ok(Graph::default().subject_denied(read, subject)?.contains(PurposeSet::SALE))
}

pub(crate) fn with_choice(read: &mut dyn Read, found: Found) -> Result<Profile, StoreError> {
    let Found { subject, row, pkey, attributes, .. } = found;
    let mut graph = Graph::default();
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
    Ok(Profile { subject, pkey, row, attributes, opted_out, opted_out_since_ms })
}

/// Creates a profile. Duplicates of an e-mail are allowed, and share its opt-out.
pub fn create(ctx: &mut Ctx<'_>, new: &NewProfile) -> Outcome<Option<Accepted>> {
    let Ok((key, text)) = Identifier::from_value(Kind::CampaignPkey, &new.pkey) else { return Ok(Err(Refusal::Profile)) };
    let subject = ctx.batch.new_subject();
    let by = new.by;
    ctx.batch.emit(ctx.write, Fact::ProfileCreated { subject, by })?;
    let mut held = vec![Named { kind: key.kind, key: ctx.shared.lookup.key_of(&key) }];
    held.extend(&new.identifiers);
    ctx.batch.hold_exactly(ctx.write, subject, &[], &held, by)?;
    let owner = Owner::Profile(subject);
    let sealed = ctx.shared.vault.seal(owner, &with_key(&new.pkey, &new.attributes), ctx.shared.env.as_ref());
    ctx.write.vault_put(owner, &sealed)?;
    ctx.write.put_profile(subject, &ProfileRow { created_ms: ctx.now_ms, modified_ms: ctx.now_ms, opt_out_ended_ms: None })?;
    search::changed(ctx, subject, None, Some(&new.attributes))?;
    clear::keep(ctx, &[(key, text).into()])?;
    clear::keep(ctx, &new.given)?;
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
    let Found { subject, mut row, pkey, sealed, attributes } = match find_in_batch(ctx, pkey)? {
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
        match ctx.shared.vault.reseal(owner, &sealed, &with_key(&pkey, &merged.attributes), ctx.shared.env.as_ref()) {
            Ok(sealed) => ctx.write.vault_put(owner, &sealed)?,
            Err(error) => return Ok(Err(error.into())),
        }
        let first = ctx.batch.entries.len();
        ctx.batch.hold_exactly(ctx.write, subject, &merged.old, &merged.new, wish.by)?;
        clear::forget(ctx, first)?;
        search::changed(ctx, subject, Some(&attributes), Some(&merged.attributes))?;
        row.modified_ms = ctx.now_ms;
    }
    // Also if nothing changed: a sync of whole records tells what was not kept when the record came first.
    if let Ok(key) = Identifier::from_value(Kind::CampaignPkey, &pkey) {
        clear::keep(ctx, &[key.into()])?;
    }
    clear::keep(ctx, &merged.given)?;
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
    match find_in_batch(ctx, pkey)? {
        Ok(found) => Ok(Ok(delete_found(ctx, &found, by)?)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

pub(crate) fn delete_found(ctx: &mut Ctx<'_>, found: &Found, by: Actor) -> Result<(), StoreError> {
    let subject = found.subject;
    let first = ctx.batch.entries.len();
    ctx.batch.delete_profile(ctx.write, subject, by)?;
    clear::forget(ctx, first)?;
    ctx.write.vault_shred(Owner::Profile(subject))?;
    ctx.write.delete_subscriptions(subject)?;
    ctx.write.delete_profile(subject)?;
    search::changed(ctx, subject, Some(&found.attributes), None)
}

/// The profile that a key was given to, as of this point in the batch.
pub(crate) fn find_in_batch(ctx: &mut Ctx<'_>, pkey: &Identifier) -> Outcome<Found> {
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
        given: Vec::new(),
    };
    intake::record(ctx, &new, Some(subject))
}
