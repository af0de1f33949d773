//! Collections: filters, order, pages, counts, and the values of one attribute.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_core::identifier::{Identifier, Kind};
use desist_engine::lists::{self, Column, ListError, Position, Question};
use desist_engine::services::by_pkey;
use desist_store::TimeColumn;
use serde_json::{Value, json};

use super::{Answer, Call, profiles, services};
use crate::web::campaign::error::{CampaignError, Echo};
use crate::web::campaign::path::{Filter, Resource, Show};
use crate::web::campaign::query::{Condition, Order, TextFields, count_query, scope};
use crate::web::campaign::schema::{Field, Type};

/// What `byText` searches when nothing is said.
const TEXT_FIELDS: [&str; 2] = ["email", "lastName"];

/// One page of a list that any handler gives.
pub(super) struct Rows {
    pub(super) content: Vec<Value>,
    /// What the next page begins after.
    pub(super) next: Option<Position>,
}

/// Where a list's links lead, and what its tokens are bound to.
pub(super) struct Place<'a> {
    /// The list's URL without query and final slash.
    pub(super) href: String,
    /// The URL of its count, without query.
    pub(super) count: String,
    pub(super) conditions: &'a [Condition],
    /// Bytes that tell this list from every other.
    pub(super) scope: Vec<u8>,
}

/// The answer to a collection: `count` is how many there are, where that is asked for anyway.
pub(super) fn page(content: Vec<Value>, next: Option<String>, count_href: &str, count: Option<u64>) -> Value {
    let mut answer = json!({ "count": { "href": count_href }, "serverSidePagination": true });
    answer["content"] = content.into();
    if let Some(count) = count {
        answer["count"]["value"] = count.into();
    }
    if let Some(next) = next {
        answer["next"]["href"] = next.into();
    }
    answer
}

impl Call<'_> {
    /// Where the page begins that the caller asks for.
    pub(super) fn position(&self, place: &Place<'_>) -> Result<Option<Position>, CampaignError> {
        let Some(token) = self.query.line_start()? else { return Ok(None) };
        let sealed = token.strip_prefix('@').and_then(|token| URL_SAFE_NO_PAD.decode(token).ok());
        let opened = sealed.and_then(|sealed| self.app.engine.shared().vault.open_carried(&place.scope, &sealed).ok());
        let unusable = CampaignError::BadParameter { name: Echo::choice("_lineStart"), must: "taken from the next.href of the same list" };
        opened.and_then(|plain| Position::from_bytes(&plain)).map(Some).ok_or(unusable)
    }

    /// The answer to one page.
    pub(super) fn collected(&self, place: &Place<'_>, rows: Rows) -> Result<Answer, CampaignError> {
        let shared = self.app.engine.shared();
        let with = |href: &str, query: &str| if query.is_empty() { href.to_owned() } else { format!("{href}?{query}") };
        let next = match &rows.next {
            Some(position) => {
                let token = shared.vault.seal_carried(&place.scope, &position.to_bytes(), shared.env.as_ref());
                let query = self.query.next_query(place.conditions, &format!("@{}", URL_SAFE_NO_PAD.encode(token)))?;
                Some(with(&place.href, &query))
            }
            None => None,
        };
        // A list that fits on its page needs no second question.
        let count = (next.is_none() && self.query.line_start()?.is_none()).then_some(rows.content.len() as u64);
        Ok(Answer::ok(page(rows.content, next, &with(&place.count, &count_query(place.conditions)), count)))
    }

    fn order(&self) -> Result<Option<Order>, CampaignError> {
        match self.query.order()? {
            Some(order) if !is_sortable(self, self.resource, &order.attribute) => {
                Err(CampaignError::BadParameter { name: Echo::choice("_order"), must: "an attribute that the metadata calls sortable" })
            }
            order => Ok(order),
        }
    }
}

/// Whether lists of a resource can be sorted by a field.
pub(super) fn is_sortable(call: &Call<'_>, resource: Resource, field: &str) -> bool {
    let known = call.schemas.of(call.root, resource).named(field);
    match (resource, known) {
        (_, None) => false,
        (Resource::Profile, Some(_)) => column(field).is_some() || call.app.engine.shared().search.has(field),
        (Resource::Service, Some(field)) => !matches!(field.ty, Type::Item | Type::Flag | Type::Integer | Type::Number),
    }
}

/// A profile's time by its name.
fn column(field: &str) -> Option<TimeColumn> {
    match field {
        "created" => Some(TimeColumn::Created),
        "lastModified" => Some(TimeColumn::Modified),
        _ => None,
    }
}

/// GET on a collection.
pub(super) async fn collection(call: &Call<'_>, filters: &[Filter], show: &Show) -> Result<Answer, CampaignError> {
    let custom: Vec<String> =
        call.schema().fields().iter().filter(|field| field.name.starts_with("cus")).map(|field| field.name.clone()).collect();
    let conditions = call.query.conditions(call.resource, filters, &custom)?;
    let order = call.order()?;
    let names: Vec<&str> = filters.iter().map(|filter| filter.as_str()).collect();
    let href = [call.base().as_str(), call.resource.as_str()].into_iter().chain(names).collect::<Vec<_>>().join("/");
    let place = Place {
        count: format!("{href}/_count"),
        href: if let Show::Values(attribute) = show { format!("{href}/{attribute}") } else { href },
        conditions: &conditions,
        scope: scope(call.resource, &conditions, order.as_ref()),
    };
    let lines = call.query.line_count()?;
    // A count is of the whole list, wherever its caller is in it.
    let after = if *show == Show::Count { None } else { call.position(&place)? };
    let mut rows = match call.resource {
        Resource::Service => services::rows(call, &conditions, order, after, if *show == Show::Count { usize::MAX } else { lines }).await?,
        Resource::Profile => {
            let question = question(call, &conditions, order).await?;
            let engine = call.app.engine.clone();
            if *show == Show::Count {
                let count = ask(move || question.map_or(Ok(0), |question| lists::count(&engine, &question))).await?;
                return Ok(Answer::ok(json!({ "count": count })));
            }
            let nobody = lists::Listed { profiles: Vec::new(), next: None };
            let listed =
                ask(move || question.map_or(Ok(nobody), |question| lists::page(&engine, &question, after.as_ref(), lines))).await?;
            let content = listed.profiles.iter().map(|profile| profiles::rendered(call, profile)).collect::<Result<_, _>>()?;
            Rows { content, next: listed.next }
        }
    };
    match show {
        Show::Count => return Ok(Answer::ok(json!({ "count": rows.content.len() }))),
        Show::Values(attribute) => {
            let unset = call.schema().named(attribute).map(Field::default_value).unwrap_or_default();
            // A field that is not shown is as unset as it is for everybody.
            rows.content.iter_mut().for_each(|record| *record = record.get_mut(attribute).map_or_else(|| unset.clone(), Value::take));
        }
        Show::Records => {}
    }
    call.collected(&place, rows)
}

/// Asks beside the runtime.
async fn ask<T: Send + 'static>(question: impl FnOnce() -> Result<T, ListError> + Send + 'static) -> Result<T, CampaignError> {
    let answer = tokio::task::spawn_blocking(question).await.map_err(|_| CampaignError::Unavailable)?;
    answer.map_err(|error| match error {
        ListError::NotReady => CampaignError::NotReady,
        ListError::Store(_) => CampaignError::Unavailable,
    })
}

/// What is asked of profiles; nothing where no profile can fulfil it.
async fn question(call: &Call<'_>, conditions: &[Condition], order: Option<Order>) -> Result<Option<Question>, CampaignError> {
    let search = &call.app.engine.shared().search;
    let mut question = Question {
        filters: Vec::new(),
        order: order.map(|order| (column(&order.attribute).map_or_else(|| Column::Field(order.attribute), Column::Time), order.descending)),
    };
    for condition in conditions {
        question.filters.push(match condition {
            Condition::Email(email) => match Identifier::from_value(Kind::Email, email) {
                Ok((identifier, _)) => lists::Filter::Email(identifier),
                // No profile has what is no address.
                Err(_) => return Ok(None),
            },
            Condition::Text { fields, prefix } => {
                let fields = match fields {
                    TextFields::Default => TEXT_FIELDS.map(str::to_owned).to_vec(),
                    TextFields::Named(field) if search.has(field) => vec![field.clone()],
                    TextFields::Named(_) => {
                        return Err(CampaignError::BadParameter { name: Echo::name("filterType"), must: "a field that can be searched" });
                    }
                };
                lists::Filter::Text { fields, prefix: prefix.clone() }
            }
            Condition::Subscribers(pkey) => {
                let wanted = pkey.clone();
                let found = call.app.read(move |read| by_pkey(read, &wanted)).await.map_err(|_| CampaignError::Unavailable)?;
                match found {
                    Some(service) => lists::Filter::Subscribers(service.no),
                    None => return Ok(None),
                }
            }
            Condition::OptedOut(opted_out) => lists::Filter::OptedOut(*opted_out),
            Condition::Channel(_) | Condition::Planning { .. } | Condition::TargetResource(_) => {
                return Err(CampaignError::UnknownResource);
            }
        });
    }
    Ok(Some(question))
}
