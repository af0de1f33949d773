//! Privacy requests of the Campaign API: to see what is stored about a person, or to delete it. They
//! are carried out when they come in. A deletion takes profiles and what hangs on them; suppressions
//! and the log stay, which hold no names.

use desist_core::fact::Actor;
use desist_core::identifier::Identifier;
use desist_core::limits::HOLDERS_MAX;
use desist_core::mark::SubjectNo;
use desist_store::{Owner, PrivacyKind, PrivacyRow, PrivacyStatus, Read, StoreError};
use zeroize::Zeroizing;

use crate::engine::{Ctx, Refusal, Shared};
use crate::intake::Outcome;
use crate::profiles::{self, Found, Profile};

/// A new privacy request.
#[derive(Clone)]
pub struct NewPrivacyRequest {
    /// Its generated key.
    pub pkey: String,
    /// Keyed hash of its name, which is unique.
    pub name_hash: [u8; 32],
    /// What it asks for.
    pub kind: PrivacyKind,
    /// Under which law.
    pub regulation: String,
    /// Whom it is about.
    pub identifier: Identifier,
    /// What the vault keeps of it once it is carried out.
    pub details: Vec<u8>,
    /// Which key.
    pub by: Actor,
}

/// Whether a profile's attributes hold the identifier that a request names. The holds do not tell: a
/// link can make a profile hold what is not written in it.
pub type Matches<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Carries a request out. More profiles than one person can have are refused: an address such as
/// `none@none.com` is nobody's.
pub fn carry_out(ctx: &mut Ctx<'_>, new: &NewPrivacyRequest, matches: Matches<'_>) -> Outcome<PrivacyRow> {
    if ctx.write.privacy_request_named(&new.name_hash)? {
        return Ok(Err(Refusal::Taken));
    }
    let holders = match ctx.batch.find(ctx.write, &ctx.shared.lookup.key_of(&new.identifier))? {
        Some(no) => ctx.batch.graph().all_holders(ctx.write, no)?,
        None => Vec::new(),
    };
    let found = match find(ctx.write, ctx.shared, holders, matches)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let status = if found.is_empty() { PrivacyStatus::ErrorDataNotFound } else { PrivacyStatus::Complete };
    if new.kind == PrivacyKind::Delete {
        for profile in &found {
            profiles::delete_found(ctx, profile, new.by)?;
        }
    }
    let NewPrivacyRequest { pkey, name_hash, kind, regulation, .. } = new.clone();
    let mut row = PrivacyRow { no: 0, pkey, name_hash, kind, regulation, status, created_ms: ctx.now_ms, modified_ms: ctx.now_ms };
    row.no = ctx.write.put_privacy_request(&row)?;
    let owner = Owner::PrivacyRequest(row.no);
    let sealed = ctx.shared.vault.seal(owner, &new.details, ctx.shared.env.as_ref());
    ctx.write.vault_put(owner, &sealed)?;
    Ok(Ok(row))
}

/// What the vault keeps of a request.
pub fn details(read: &mut dyn Read, shared: &Shared, row: &PrivacyRow) -> Outcome<Zeroizing<Vec<u8>>> {
    let owner = Owner::PrivacyRequest(row.no);
    let Some(sealed) = read.vault_get(owner)? else { return Ok(Err(Refusal::NotFound)) };
    Ok(shared.vault.open(owner, &sealed).map_err(Refusal::from))
}

/// The profiles of whom a request is about.
pub fn gather(read: &mut dyn Read, shared: &Shared, identifier: &Identifier, matches: Matches<'_>) -> Outcome<Vec<Profile>> {
    let holders = match read.find(&shared.lookup.key_of(identifier))? {
        Some(no) => read.holders(no)?,
        None => Vec::new(),
    };
    let found = match find(read, shared, holders, matches)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let profiles = found.into_iter().map(|found| profiles::with_choice(read, found)).collect::<Result<_, StoreError>>()?;
    Ok(Ok(profiles))
}

fn find(read: &mut dyn Read, shared: &Shared, holders: Vec<SubjectNo>, matches: Matches<'_>) -> Outcome<Vec<Found>> {
    let mut profiles = Vec::new();
    for subject in holders {
        match profiles::open(read, shared, subject)? {
            Ok(Some(found)) if matches(&found.attributes) => profiles.push(found),
            Ok(_) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        if profiles.len() as u64 > HOLDERS_MAX {
            return Ok(Err(Refusal::TooMany));
        }
    }
    Ok(Ok(profiles))
}
