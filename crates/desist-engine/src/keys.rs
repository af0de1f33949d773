//! API keys.

use desist_core::fact::{Actor, Fact, Role};
use desist_store::KeyRow;

use crate::engine::{Ctx, Refusal};
use crate::intake::Outcome;
use crate::secrets::hash;

/// Creates a key. The caller hands `api_key` and `token` out once; the store keeps their hashes.
pub fn create(ctx: &mut Ctx<'_>, name: &str, role: Role, api_key: &str, token: &str, by: Actor) -> Outcome<u32> {
    let no = ctx.write.keys()?.iter().map(|key| key.no).max().unwrap_or(0) + 1;
    ctx.batch.emit(ctx.write, Fact::KeyCreated { key: no, role, by })?;
    ctx.write.put_key(&KeyRow {
        no,
        name: name.to_owned(),
        role,
        key_hash: hash(api_key),
        token_hash: hash(token),
        created_at: ctx.now_ms.div_euclid(1000),
        revoked_at: None,
    })?;
    ctx.keys_changed = true;
    Ok(Ok(no))
}

/// Ends a key, by number. Ending it twice changes nothing.
pub fn revoke(ctx: &mut Ctx<'_>, no: u32, by: Actor) -> Outcome<()> {
    let Some(mut key) = ctx.write.keys()?.into_iter().find(|key| key.no == no) else { return Ok(Err(Refusal::NotFound)) };
    if key.revoked_at.is_none() {
        ctx.batch.emit(ctx.write, Fact::KeyRevoked { key: no, by })?;
        key.revoked_at = Some(ctx.now_ms.div_euclid(1000));
        ctx.write.put_key(&key)?;
        ctx.keys_changed = true;
    }
    Ok(Ok(()))
}
