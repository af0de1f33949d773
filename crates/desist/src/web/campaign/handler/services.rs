//! Services, and who subscribed to them.

use axum::http::StatusCode;
use desist_engine::engine::{Failure, Refusal};
use desist_engine::lists::Position;
use desist_engine::profiles as stored;
use desist_engine::queue::Lane;
use desist_engine::services::{self, NewService, SERVICES_MAX, Side};
use desist_store::{Read, ServiceRow, StoreError, SubscriptionRow, Subscriptions};
use serde_json::{Value, json};

use super::lists::{Place, Rows};
use super::{Answer, Call, failed, identified, profiles};
use crate::web::campaign::error::{CampaignError, Echo};
use crate::web::campaign::path::{Resource, is_well_formed_pkey};
use crate::web::campaign::query::{Condition, Order};
use crate::web::campaign::schema::{Attributes, Mode, parse_json};
use crate::web::campaign::service::{Computed, NAME, Subscription, render, render_subscription};

/// A service's row with its fields.
fn opened(row: &ServiceRow) -> Result<Attributes, CampaignError> {
    serde_json::from_str(&row.attributes).map_err(|_| CampaignError::Unavailable)
}

fn computed<'a>(row: &'a ServiceRow, base: &'a str) -> Computed<'a> {
    Computed { pkey: &row.pkey, href_base: base, name: &row.name, created_ms: row.created_ms, modified_ms: row.modified_ms }
}

fn rendered(call: &Call<'_>, row: &ServiceRow) -> Result<Value, CampaignError> {
    Ok(render(&call.schemas.service, &opened(row)?, &computed(row, &call.base())))
}

async fn read<T: Send + 'static>(
    call: &Call<'_>,
    question: impl FnMut(&mut dyn Read) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, CampaignError> {
    call.app.read(question).await.map_err(|_| CampaignError::Unavailable)
}

fn not_found(resource: &'static str, pkey: &str) -> CampaignError {
    CampaignError::NotFound { resource, pkey: Echo::pkey(pkey) }
}

async fn find(call: &Call<'_>, pkey: &str) -> Result<ServiceRow, CampaignError> {
    let wanted = pkey.to_owned();
    read(call, move |read| services::by_pkey(read, &wanted)).await?.ok_or_else(|| not_found("service", pkey))
}

/// POST on the collection.
pub(super) async fn create(call: &Call<'_>) -> Result<Answer, CampaignError> {
    let schema = &call.schemas.service;
    let patch = schema.parse_body(call.body, Mode::Create)?.attributes;
    let mut attributes = Attributes::default();
    let name = patch.text(NAME).filter(|name| !name.is_empty()).map(str::to_owned);
    schema.apply(&mut attributes, patch.without(NAME), 0);
    let attributes = serde_json::to_string(&attributes).map_err(|_| CampaignError::Unavailable)?;
    let new = NewService { pkey: call.app.new_pkey(), name, attributes };
    let created = call.app.engine.submit(Lane::Interactive, move |ctx| services::create(ctx, &new)).await;
    let row = created.map_err(|failure| match failure {
        Failure::Refused(Refusal::TooMany) => CampaignError::Full { resource: "service", max: SERVICES_MAX },
        failure => failed(&failure, "service", ""),
    })?;
    Ok(Answer::new(StatusCode::CREATED, rendered(call, &row)?))
}

/// GET on a service.
pub(super) async fn show(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    Ok(Answer::ok(rendered(call, &find(call, pkey).await?)?))
}

/// PATCH on a service.
pub(super) async fn patch(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let patch = call.schemas.service.parse_body(call.body, Mode::Patch { pkey })?.attributes;
    let name = match patch.text(NAME) {
        Some("") => return Err(CampaignError::Invalid { field: NAME.to_owned(), must: "a name of its own" }),
        name => name.map(str::to_owned),
    };
    let (patch, schemas, wanted) = (patch.without(NAME), call.schemas.clone(), pkey.to_owned());
    let changed = call.app.engine.submit(Lane::Interactive, move |ctx| {
        let mut merge = |present: &str| {
            let mut attributes: Attributes = serde_json::from_str(present).ok()?;
            schemas.service.apply(&mut attributes, patch.clone(), 0);
            serde_json::to_string(&attributes).ok()
        };
        services::change(ctx, &wanted, name.as_deref(), &mut merge)
    });
    changed.await.map_err(|failure| failed(&failure, "service", pkey))?;
    Ok(Answer::ok(json!({ "PKey": pkey, "href": format!("{}/service/{pkey}", call.base()) })))
}

/// The services of a list. There are few, so that all are looked at.
pub(super) async fn rows(
    call: &Call<'_>,
    conditions: &[Condition],
    order: Option<Order>,
    after: Option<Position>,
    lines: usize,
) -> Result<Rows, CampaignError> {
    let mut found = Vec::new();
    for row in read(call, |read| read.services()).await? {
        let shown = rendered(call, &row)?;
        if conditions.iter().all(|condition| fulfils(&shown, condition)) {
            let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
            let value = order.as_ref().map_or(String::new(), |order| text(&order.attribute));
            found.push((Position { stage: 0, value, no: row.no }, shown));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let descending = order.is_some_and(|order| order.descending);
    if descending {
        found.reverse();
    }
    if let Some(after) = after {
        found.retain(|(position, _)| if descending { *position < after } else { *position > after });
    }
    let next = if found.len() > lines { found.get(lines - 1).map(|(position, _)| position.clone()) } else { None };
    found.truncate(lines);
    Ok(Rows { content: found.into_iter().map(|(_, shown)| shown).collect(), next })
}

fn fulfils(service: &Value, condition: &Condition) -> bool {
    let text = |name: &str| service[name].as_str().unwrap_or_default();
    match condition {
        Condition::Channel(channel) => text("messageType") == channel,
        Condition::TargetResource(target) => text("targetResource") == target,
        Condition::Text { prefix, .. } => ["label", NAME].into_iter().any(|field| text(field).starts_with(prefix)),
        // Open ends reach for ever: a service without dates runs always.
        Condition::Planning { start, end } => {
            let (begins, ends) = (text("start"), text("end"));
            start.as_deref().is_none_or(|start| ends.is_empty() || ends >= start)
                && end.as_deref().is_none_or(|end| begins.is_empty() || begins <= end)
        }
        Condition::Email(_) | Condition::Subscribers(_) | Condition::OptedOut(_) => false,
    }
}

/// The key that a link of the body names: `{"service": {"PKey": "..."}}`.
fn linked(body: &[u8], member: &'static str) -> Result<String, CampaignError> {
    let Value::Object(members) = parse_json(body)? else { return Err(CampaignError::NotAnObject) };
    if let Some(other) = members.keys().find(|name| *name != member) {
        return Err(CampaignError::UnknownAttribute { resource: "subscription", name: Echo::name(other) });
    }
    let field = format!("{member}.PKey");
    match members.get(member).map(|link| &link["PKey"]) {
        Some(Value::String(pkey)) if is_well_formed_pkey(pkey) => Ok(pkey.clone()),
        Some(Value::String(pkey)) => Err(CampaignError::KeyUnreadable { pkey: Echo::pkey(pkey), in_body: true }),
        _ => Err(CampaignError::Missing { field }),
    }
}

/// POST on a record's subscriptions, from either side.
pub(super) async fn subscribe(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let (profile, service) = match call.resource {
        Resource::Profile => (pkey.to_owned(), linked(call.body, "service")?),
        Resource::Service => (linked(call.body, "subscriber")?, pkey.to_owned()),
    };
    // Which of the two is missing is asked before: the command cannot tell.
    find(call, &service).await?;
    let (key, wanted, new) = (identified(&profile)?, service.clone(), call.app.new_pkey());
    let subscribed = call.app.engine.submit(Lane::Interactive, move |ctx| services::subscribe(ctx, &key, &wanted, &new)).await;
    let (row, is_new) = subscribed.map_err(|failure| failed(&failure, "profile", &profile))?;
    let shown = shown(call, vec![row]).await?.pop().ok_or_else(|| not_found("profile", &profile))?;
    Ok(Answer::new(if is_new { StatusCode::CREATED } else { StatusCode::OK }, shown))
}

/// The side that a URL names.
async fn side(call: &Call<'_>, pkey: &str) -> Result<Side, CampaignError> {
    Ok(match call.resource {
        Resource::Profile => Side::Profile(profiles::read(call, pkey).await?.subject),
        Resource::Service => Side::Service(find(call, pkey).await?.no),
    })
}

/// Subscriptions with both of their ends; one whose profile was deleted since is left out.
pub(super) async fn shown(call: &Call<'_>, rows: Vec<SubscriptionRow>) -> Result<Vec<Value>, CampaignError> {
    let engine = call.app.engine.clone();
    let (all, found) = read(call, move |read| {
        let mut found = Vec::new();
        for row in &rows {
            if let Ok(Some(profile)) = stored::get_by_subject(read, engine.shared(), row.subject)? {
                found.push((row.clone(), profile));
            }
        }
        Ok((read.services()?, found))
    })
    .await?;
    let base = call.base();
    let mut content = Vec::new();
    for (row, profile) in &found {
        let Some(service) = all.iter().find(|service| service.no == row.service) else { continue };
        content.push(render_subscription(&Subscription {
            pkey: &row.pkey,
            created_ms: row.created_ms,
            service: &computed(service, &base),
            service_attributes: &opened(service)?,
            profile_pkey: &profile.pkey,
            profile: &profiles::attributes(profile)?,
        }));
    }
    Ok(content)
}

/// GET on a record's subscriptions, or on their number.
pub(super) async fn subscriptions(call: &Call<'_>, pkey: &str, show_count: bool) -> Result<Answer, CampaignError> {
    let which = match side(call, pkey).await? {
        Side::Profile(subject) => Subscriptions::Of(subject),
        Side::Service(service) => Subscriptions::To(service),
    };
    if show_count {
        let count = read(call, move |read| read.subscription_count(which)).await?;
        return Ok(Answer::ok(json!({ "count": count })));
    }
    let href = format!("{}/{}/{pkey}/subscriptions", call.base(), call.resource.as_str());
    let scope = format!("subscriptions {} {pkey}", call.resource.as_str()).into_bytes();
    let place = Place { count: format!("{href}/_count"), href, conditions: &[], scope };
    let (after, lines) = (call.position(&place)?.map_or(0, |after| after.no), call.query.line_count()?);
    let mut rows = read(call, move |read| read.subscriptions(which, after, lines + 1)).await?;
    let more = rows.len() > lines;
    rows.truncate(lines);
    let next = rows.last().filter(|_| more).map(|last| Position { no: last.no, ..Position::default() });
    call.collected(&place, Rows { content: shown(call, rows).await?, next })
}

/// GET on one subscription.
pub(super) async fn subscription(call: &Call<'_>, pkey: &str, subscription: &str) -> Result<Answer, CampaignError> {
    let (side, wanted) = (side(call, pkey).await?, subscription.to_owned());
    let found = read(call, move |read| services::subscription(read, &side, &wanted)).await?;
    let shown = shown(call, found.into_iter().collect()).await?.pop();
    shown.map(Answer::ok).ok_or_else(|| not_found("subscription", subscription))
}

/// DELETE on one subscription.
pub(super) async fn unsubscribe(call: &Call<'_>, pkey: &str, subscription: &str) -> Result<Answer, CampaignError> {
    let (side, wanted) = (side(call, pkey).await?, subscription.to_owned());
    let ended = call.app.engine.submit(Lane::Interactive, move |ctx| services::unsubscribe(ctx, &side, &wanted)).await;
    ended.map_err(|failure| failed(&failure, "subscription", subscription))?;
    Ok(Answer::new(StatusCode::NO_CONTENT, Value::Null))
}
