//! Services that profiles subscribe to, and the subscriptions. They say what somebody receives, never
//! what may be sold: no choice about a purpose is read from them or written to them, and the log does
//! not know them.

use desist_core::identifier::Identifier;
use desist_core::mark::SubjectNo;
use desist_store::{Read, ServiceRow, StoreError, SubscriptionRow};

use crate::engine::{Ctx, Refusal};
use crate::intake::Outcome;
use crate::profiles;

/// Most services: every list of them is read whole, and nobody keeps a thousand newsletters.
pub const SERVICES_MAX: usize = 1000;

/// A new service.
#[derive(Clone)]
pub struct NewService {
    /// Its generated key.
    pub pkey: String,
    /// Its name; without one it gets the next free `SVC` and number.
    pub name: Option<String>,
    /// Its fields as JSON, the name apart.
    pub attributes: String,
}

/// A service by its key.
pub fn by_pkey(read: &mut dyn Read, pkey: &str) -> Result<Option<ServiceRow>, StoreError> {
    Ok(read.services()?.into_iter().find(|service| service.pkey == pkey))
}

/// Creates a service.
pub fn create(ctx: &mut Ctx<'_>, new: &NewService) -> Outcome<ServiceRow> {
    let services = ctx.write.services()?;
    let taken = |name: &str| services.iter().any(|service| service.name == name);
    if services.len() >= SERVICES_MAX {
        return Ok(Err(Refusal::TooMany));
    }
    let name = match &new.name {
        Some(name) if taken(name) => return Ok(Err(Refusal::Taken)),
        Some(name) => name.clone(),
        None => {
            let free = (1..=SERVICES_MAX).map(|number| format!("SVC{number}")).find(|name| !taken(name));
            free.expect("there are fewer services than numbers")
        }
    };
    let (no, now) = (services.last().map_or(1, |last| last.no + 1), ctx.now_ms);
    let row = ServiceRow { no, pkey: new.pkey.clone(), name, attributes: new.attributes.clone(), created_ms: now, modified_ms: now };
    ctx.write.put_service(&row)?;
    Ok(Ok(row))
}

/// Changes a service. `merge` gets the present fields and returns those from now on, or refuses; `name`
/// is the new name, if it changes.
pub fn change(ctx: &mut Ctx<'_>, pkey: &str, name: Option<&str>, merge: &mut dyn FnMut(&str) -> Option<String>) -> Outcome<()> {
    let services = ctx.write.services()?;
    let Some(row) = services.iter().find(|service| service.pkey == pkey) else { return Ok(Err(Refusal::NotFound)) };
    let name = name.unwrap_or(&row.name);
    if services.iter().any(|service| service.name == name && service.no != row.no) {
        return Ok(Err(Refusal::Taken));
    }
    let Some(attributes) = merge(&row.attributes) else { return Ok(Err(Refusal::Profile)) };
    if attributes != row.attributes || name != row.name {
        ctx.write.put_service(&ServiceRow { name: name.to_owned(), attributes, modified_ms: ctx.now_ms, ..row.clone() })?;
    }
    Ok(Ok(()))
}

/// Subscribes a profile to a service. Returns the subscription and whether it is new: who subscribes
/// twice gets the first one.
pub fn subscribe(ctx: &mut Ctx<'_>, profile: &Identifier, service: &str, pkey: &str) -> Outcome<(SubscriptionRow, bool)> {
    let subject = match profiles::find_in_batch(ctx, profile)? {
        Ok(found) => found.subject,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let Some(service) = by_pkey(ctx.write, service)? else { return Ok(Err(Refusal::NotFound)) };
    if let Some(present) = ctx.write.subscribed(subject, service.no)? {
        return Ok(Ok((present, false)));
    }
    let mut row = SubscriptionRow { no: 0, pkey: pkey.to_owned(), subject, service: service.no, created_ms: ctx.now_ms };
    row.no = ctx.write.put_subscription(&row)?;
    Ok(Ok((row, true)))
}

/// Whose side a subscription is named from.
#[derive(Clone)]
pub enum Side {
    /// A profile's, by its subject.
    Profile(SubjectNo),
    /// A service's, by its number.
    Service(u64),
}

/// The subscription of a key, if it is one of this side.
pub fn subscription(read: &mut dyn Read, side: &Side, pkey: &str) -> Result<Option<SubscriptionRow>, StoreError> {
    let belongs = |row: &SubscriptionRow| match side {
        Side::Profile(subject) => row.subject == *subject,
        Side::Service(service) => row.service == *service,
    };
    Ok(read.subscription(pkey)?.filter(belongs))
}

/// Ends a subscription.
pub fn unsubscribe(ctx: &mut Ctx<'_>, side: &Side, pkey: &str) -> Outcome<()> {
    match subscription(ctx.write, side, pkey)? {
        Some(row) => Ok(Ok(ctx.write.delete_subscription(row.no)?)),
        None => Ok(Err(Refusal::NotFound)),
    }
}
