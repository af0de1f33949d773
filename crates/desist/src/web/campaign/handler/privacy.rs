//! Privacy requests: to see what is stored about a person, or to delete it.

use axum::http::StatusCode;
use desist_core::identifier::{Identifier, Kind};
use desist_engine::engine::{Failure, Refusal};
use desist_engine::lists::Position;
use desist_engine::privacy::{self, NewPrivacyRequest};
use desist_engine::profiles as stored;
use desist_engine::queue::Lane;
use desist_store::{PrivacyKind, PrivacyRow, Subscriptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::lists::{Place, Rows};
use super::{Answer, Call, failed, profiles, services};
use crate::web::campaign::error::{CampaignError, Echo};
use crate::web::campaign::path::{Resource, Root};
use crate::web::campaign::schema::{Attributes, parse_json, timestamp};
use crate::web::word;

/// As in the URL, and in texts about it.
const RESOURCE: &str = "privacyTool";
/// Most characters of `name`, `label` and `desc`: a heading, not a letter.
const TEXT_CHARS_MAX: usize = 255;
/// Subscriptions of one person that a data file lists.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// What the vault keeps of a request.
#[derive(Clone, Serialize, Deserialize)]
struct Details {
    name: String,
    label: String,
    desc: String,
    namespace: String,
    /// Gone from a deletion that was carried out: it would be the last of what was deleted.
    value: Option<String>,
}

/// A body that can be carried out.
struct Wanted {
    details: Details,
    kind: PrivacyKind,
    regulation: String,
    identifier: Identifier,
}

/// The kind of identifier that a namespace holds. Adobe has two built in; the third is the name that
/// its samples give the first.
fn namespace_kind(namespace: &str) -> Option<Kind> {
    match namespace.to_ascii_lowercase().as_str() {
        "email" | "defaultnamespace1" => Some(Kind::Email),
        "mobilephone" | "phone" => Some(Kind::Phone),
        _ => None,
    }
}

fn parse(body: &[u8]) -> Result<Wanted, CampaignError> {
    let Value::Object(members) = parse_json(body)? else { return Err(CampaignError::NotAnObject) };
    let known = ["name", "namespaceName", "namespace", "reconciliationValue", "label", "desc", "type", "regulation"];
    if let Some(other) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(CampaignError::UnknownAttribute { resource: RESOURCE, name: Echo::name(other) });
    }
    let text = |name: &str| match members.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) if text.chars().count() > TEXT_CHARS_MAX => {
            Err(CampaignError::TooLong { field: name.to_owned(), max: TEXT_CHARS_MAX })
        }
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(_) => Err(CampaignError::Invalid { field: name.to_owned(), must: "a text" }),
    };
    let needed = |name: &str| match text(name)? {
        text if text.is_empty() => Err(CampaignError::Missing { field: name.to_owned() }),
        text => Ok(text),
    };
    let invalid = |field: &str, must| CampaignError::Invalid { field: field.to_owned(), must };
    let name = needed("name")?;
    let namespace_name = if members.contains_key("namespaceName") { "namespaceName" } else { "namespace" };
    let namespace = needed(namespace_name)?;
    let identifier_kind = namespace_kind(&namespace).ok_or_else(|| invalid(namespace_name, "'email' or 'mobilePhone'"))?;
    let value = needed("reconciliationValue")?;
    let found = Identifier::from_value(identifier_kind, &value);
    let (identifier, _) =
        found.map_err(|_| invalid("reconciliationValue", "an e-mail address or a telephone number, as its namespace says"))?;
    let kind = match needed("type")?.to_ascii_lowercase().as_str() {
        "access" => PrivacyKind::Access,
        "delete" => PrivacyKind::Delete,
        _ => return Err(invalid("type", "'access' or 'delete'")),
    };
    let regulation = needed("regulation")?.to_ascii_lowercase();
    if regulation.len() > 32 || !regulation.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(invalid("regulation", "the short name of a law such as 'ccpa' or 'gdpr'"));
    }
    let details = Details { name, label: text("label")?, desc: text("desc")?, namespace, value: Some(value) };
    Ok(Wanted { details, kind, regulation, identifier })
}

/// The fields in which a profile keeps identifiers of a kind.
fn matches(wanted: &Identifier, attributes: &[u8]) -> bool {
    let fields: &[&str] = if wanted.kind == Kind::Email { &["email"] } else { &["mobilePhone", "phone"] };
    let attributes: Attributes = serde_json::from_slice(attributes).unwrap_or_default();
    let is = |field: &&str| Identifier::from_value(wanted.kind, attributes.text(field)).is_ok_and(|(own, _)| own.digest == wanted.digest);
    fields.iter().any(is)
}

fn refused(failure: &Failure, pkey: &str) -> CampaignError {
    match failure {
        Failure::Refused(Refusal::TooMany) => CampaignError::Invalid {
            field: "reconciliationValue".to_owned(),
            must: "one person's: more profiles have it than one person can; delete them one by one",
        },
        failure => failed(failure, RESOURCE, pkey),
    }
}

impl Call<'_> {
    fn privacy_href(&self) -> String {
        format!("{}/privacy/privacyTool", self.campaign())
    }
}

/// POST on the collection.
pub(super) async fn create(call: &Call<'_>) -> Result<Answer, CampaignError> {
    let Wanted { details, kind, regulation, identifier } = parse(call.body)?;
    let kept = Details { value: details.value.clone().filter(|_| kind == PrivacyKind::Access), ..details.clone() };
    let new = NewPrivacyRequest {
        pkey: call.app.new_pkey(),
        name_hash: call.app.engine.shared().secrets.digest("privacy request", &[details.name.as_bytes()]),
        kind,
        regulation,
        identifier,
        details: serde_json::to_vec(&kept).map_err(|_| CampaignError::Unavailable)?,
        by: call.by,
    };
    let carried_out = call.app.engine.submit(Lane::Interactive, move |ctx| {
        let wanted = new.identifier;
        privacy::carry_out(ctx, &new, &|attributes| matches(&wanted, attributes))
    });
    let row = carried_out.await.map_err(|failure| refused(&failure, ""))?;
    Ok(Answer::new(StatusCode::CREATED, render(call, &row, &details)))
}

fn render(call: &Call<'_>, row: &PrivacyRow, details: &Details) -> Value {
    let href = format!("{}/{}", call.privacy_href(), row.pkey);
    let namespace = match namespace_kind(&details.namespace) {
        Some(Kind::Phone) => "Mobile phone",
        _ => "Email",
    };
    let mut shown = json!({
        "PKey": row.pkey, "href": href, "audit": "", "created": timestamp(row.created_ms), "desc": details.desc, "label": details.label,
        "lastModified": timestamp(row.modified_ms), "name": details.name, "namespaceName": details.namespace,
        "namespace": { "PKey": call.app.derived_pkey("namespace", namespace), "title": namespace },
        "reconciliationValue": details.value.as_deref().unwrap_or_default(), "regulation": row.regulation, "retryCount": 0,
        "status": word(row.status), "title": details.label, "type": word(row.kind),
    });
    if row.kind == PrivacyKind::Access {
        // The documentation has both names.
        for name in ["gdprRequestData", "privacyRequestData"] {
            shown[name] = json!({ "href": format!("{href}/data") });
        }
    }
    shown
}

/// Requests with what the vault keeps of them.
async fn opened(call: &Call<'_>, rows: Vec<PrivacyRow>) -> Result<Vec<(PrivacyRow, Details)>, CampaignError> {
    let engine = call.app.engine.clone();
    let read = call.app.read(move |read| {
        let mut opened = Vec::new();
        for row in &rows {
            opened.push((row.clone(), privacy::details(read, engine.shared(), row)?));
        }
        Ok(opened)
    });
    let open = |(row, details): (PrivacyRow, Result<_, Refusal>)| {
        let details: zeroize::Zeroizing<Vec<u8>> = details.map_err(|_| CampaignError::Unavailable)?;
        Ok((row, serde_json::from_slice(&details).map_err(|_| CampaignError::Unavailable)?))
    };
    read.await.map_err(|_| CampaignError::Unavailable)?.into_iter().map(open).collect()
}

async fn find(call: &Call<'_>, pkey: &str) -> Result<(PrivacyRow, Details), CampaignError> {
    let wanted = pkey.to_owned();
    let row = call.app.read(move |read| read.privacy_request(&wanted)).await.map_err(|_| CampaignError::Unavailable)?;
    let found = opened(call, row.into_iter().collect()).await?.pop();
    found.ok_or_else(|| CampaignError::NotFound { resource: RESOURCE, pkey: Echo::pkey(pkey) })
}

/// GET on one request.
pub(super) async fn show(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let (row, details) = find(call, pkey).await?;
    Ok(Answer::ok(render(call, &row, &details)))
}

/// GET on the collection, or on its number.
pub(super) async fn list(call: &Call<'_>, show_count: bool) -> Result<Answer, CampaignError> {
    if show_count {
        let count = call.app.read(|read| read.privacy_request_count()).await.map_err(|_| CampaignError::Unavailable)?;
        return Ok(Answer::ok(json!({ "count": count })));
    }
    let href = call.privacy_href();
    let place = Place { count: format!("{href}/_count"), href, conditions: &[], scope: RESOURCE.into() };
    let (after, lines) = (call.position(&place)?.map_or(0, |after| after.no), call.query.line_count()?);
    let rows = call.app.read(move |read| read.privacy_requests(after, lines + 1)).await;
    let mut rows = rows.map_err(|_| CampaignError::Unavailable)?;
    let more = rows.len() > lines;
    rows.truncate(lines);
    let next = rows.last().filter(|_| more).map(|last| Position { no: last.no, ..Position::default() });
    let content = opened(call, rows).await?.iter().map(|(row, details)| render(call, row, details)).collect();
    call.collected(&place, Rows { content, next })
}

/// POST on the data link: what is stored about the person now, as text.
pub(super) async fn data(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let (row, details) = find(call, pkey).await?;
    let nothing = || CampaignError::NotFound { resource: RESOURCE, pkey: Echo::pkey(pkey) };
    let value = details.value.as_ref().ok_or_else(nothing)?;
    if !call.body.iter().all(u8::is_ascii_whitespace) {
        let Value::Object(members) = parse_json(call.body)? else { return Err(CampaignError::NotAnObject) };
        if members.get("name").is_some_and(|name| *name != details.name) {
            return Err(CampaignError::Invalid { field: "name".to_owned(), must: "the name of this request" });
        }
    }
    let kind = namespace_kind(&details.namespace).ok_or_else(nothing)?;
    let (identifier, _) = Identifier::from_value(kind, value).map_err(|_| nothing())?;
    let (engine, wanted) = (call.app.engine.clone(), identifier);
    let gathered = call.app.read(move |read| {
        let profiles = match privacy::gather(read, engine.shared(), &wanted, &|attributes| matches(&wanted, attributes))? {
            Ok(profiles) => profiles,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut found: Vec<(stored::Profile, Vec<_>)> = Vec::new();
        for profile in profiles {
            let subscriptions = read.subscriptions(Subscriptions::Of(profile.subject), 0, SUBSCRIPTIONS_MAX)?;
            found.push((profile, subscriptions));
        }
        Ok(Ok(found))
    });
    let gathered = gathered.await.map_err(|_| CampaignError::Unavailable)?.map_err(|refusal| refused(&refusal.into(), pkey))?;
    let ext = Call {
        root: Root::ProfileAndServicesExt,
        resource: Resource::Profile,
        query: call.query.clone(),
        schemas: call.schemas.clone(),
        ..*call
    };
    let mut profiles = Vec::new();
    for (profile, subscriptions) in gathered {
        let mut shown = profiles::rendered(&ext, &profile)?;
        shown["subscriptions"] = services::shown(&ext, subscriptions).await?.into();
        profiles.push(shown);
    }
    let verdict = call.app.engine.verdict(&call.app.engine.named(&identifier));
    let purposes = call.app.engine.shared().purposes.load();
    let mut choices = Map::new();
    for (name, purpose, _) in purposes.iter() {
        if verdict.denied.union(verdict.linked).contains(purpose) {
            choices.insert(name.to_owned(), "opted_out".into());
        } else if verdict.opted_in.contains(purpose) {
            choices.insert(name.to_owned(), "opted_in".into());
        }
    }
    let file = json!({
        "name": details.name, "regulation": row.regulation, "requested": timestamp(row.created_ms),
        "subject": { "namespace": details.namespace, "value": value }, "choices": choices, "profiles": profiles,
    });
    let text = serde_json::to_string_pretty(&file).map_err(|_| CampaignError::Unavailable)?;
    Ok(Answer::ok(text.into()))
}
