//! The Campaign calls: who may call, which call it is, and how answers leave.

mod lists;
mod privacy;
mod profiles;
mod services;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_core::fact::{Actor, Role};
use desist_core::identifier::{Identifier, Kind};
use desist_engine::engine::{Failure, Refusal, may};
use desist_engine::intake::Accepted;
use serde_json::{Value, json};

use super::error::{CampaignError, Echo};
use super::path::{Resource, Root, Route, is_well_formed_pkey, resolve};
use super::query::{self, Query};
use super::schema::{BODY_BYTES_MAX, Schema};
use super::{Schemas, metadata, token};
use crate::config::Compat;
use crate::web::App;
use crate::web::auth::bearer;

/// Names the member that an error is about; the bodies keep Adobe's shape.
const POINTER: HeaderName = HeaderName::from_static("desist-pointer");
/// The receipt code of the request that an opt-out became.
const RECEIPT: HeaderName = HeaderName::from_static("desist-receipt");
/// Why `ccpaOptOut: false` changed nothing.
const REFUSED: HeaderName = HeaderName::from_static("desist-opt-in-refused");

/// What a call is answered with.
struct Answer {
    status: StatusCode,
    body: Value,
    receipt: Option<String>,
    refused: Option<String>,
}

impl Answer {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, receipt: None, refused: None }
    }
    fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }
}

/// One call, let in.
struct Call<'a> {
    app: &'a App,
    method: &'a Method,
    /// The root that the caller used; links of the answer keep it.
    root: Root,
    resource: Resource,
    query: Query,
    body: &'a [u8],
    schemas: Arc<Schemas>,
    compat: Compat,
    by: Actor,
}

impl Call<'_> {
    /// Public URL up to and with the organization's `campaign`.
    fn campaign(&self) -> String {
        format!("{}/{}/campaign", self.app.private_base.load(), self.app.engine.business())
    }
    /// Public URL up to and with the root, no slash at the end.
    fn base(&self) -> String {
        format!("{}/{}", self.campaign(), self.root.as_str())
    }
    fn schema(&self) -> &Schema {
        self.schemas.of(self.root, self.resource)
    }
    fn one_of(&self, allow: &'static str) -> Result<(), CampaignError> {
        if allow.split(", ").any(|method| self.method == method) { Ok(()) } else { Err(CampaignError::MethodNotAllowed { allow }) }
    }
}

/// Answers every call below `/{org}/campaign`.
pub async fn handle(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let compat = app.config.load().campaign.compat;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    match answer(&app, &method, target, &headers, body, compat).await {
        Ok(answer) => respond(answer),
        Err(error) => refuse(&error, compat),
    }
}

fn refuse(error: &CampaignError, compat: Compat) -> Response {
    let status = StatusCode::from_u16(error.status(compat)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(Answer::new(status, error.body()));
    if let Some(pointer) = error.pointer().and_then(|pointer| HeaderValue::try_from(pointer).ok()) {
        response.headers_mut().insert(POINTER, pointer);
    }
    if let CampaignError::MethodNotAllowed { allow } = error {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if matches!(error, CampaignError::TooManyRequests | CampaignError::Unavailable | CampaignError::NotReady) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::default();
    *response.status_mut() = answer.status;
    if answer.status != StatusCode::NO_CONTENT {
        *response.body_mut() = answer.body.to_string().into();
        // Clients leave the body undefined without it.
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    }
    for (name, value) in [(RECEIPT, answer.receipt), (REFUSED, answer.refused)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The API key first, then the token; the organization and the role come after.
fn authenticate(app: &App, headers: &HeaderMap) -> Result<(Actor, Role), CampaignError> {
    let keys = app.engine.shared().keys.load();
    let mut api_keys = headers.get_all("x-api-key").iter();
    let api_key = api_keys.next().ok_or(CampaignError::ApiKeyMissing)?;
    // Of two, somebody on the way may have read the other one.
    let api_key = api_key.to_str().ok().filter(|_| api_keys.next().is_none());
    let number = api_key.and_then(|key| keys.number(key)).ok_or(CampaignError::ApiKeyInvalid)?;
    let token = bearer(headers).ok_or(CampaignError::TokenMissing)?;
    let key = keys.by_token(token).or_else(|| keys.by_number(token::open(app, token)?));
    let key = key.filter(|key| key.no == number).ok_or(CampaignError::TokenInvalid)?;
    if !app.admits(number) {
        return Err(CampaignError::TooManyRequests);
    }
    Ok((Actor::Key(number), key.role))
}

async fn answer(
    app: &App,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
    compat: Compat,
) -> Result<Answer, CampaignError> {
    let (by, role) = authenticate(app, headers)?;
    let schemas = app.schemas.load_full();
    let target =
        resolve(target, &|root, resource, name| schemas.of(root, resource).named(name).is_some_and(|field| !field.name.contains('.')))?;
    // Staging names have a suffix; anything else is another business's, or nobody's.
    if target.org != app.engine.business() {
        return Err(CampaignError::NotEntitled);
    }
    // The data file of a privacy request is read by POST.
    let reads = method == Method::GET || matches!(target.route, Route::PrivacyData { .. });
    if !may(role, if reads { Role::Reader } else { Role::Writer }) {
        return Err(CampaignError::NotEntitled);
    }
    let body = body.map_err(|_| CampaignError::BodyTooLarge)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(CampaignError::BodyTooLarge);
    }
    let query = query::parse(target.query.as_deref())?;
    let call = |root, resource| Call { app, method, root, resource, query, body: &body, schemas, compat, by };
    match target.route {
        Route::Unknown => Err(CampaignError::UnknownResource),
        Route::Collection { root, resource, filters, show } => {
            let call = call(root, resource);
            match (resource, method == Method::POST && filters.is_empty() && show.is_records()) {
                (Resource::Profile, true) => profiles::create(&call).await,
                (Resource::Service, true) => services::create(&call).await,
                (_, false) => {
                    call.one_of(if filters.is_empty() && show.is_records() { "GET, POST" } else { "GET" })?;
                    lists::collection(&call, &filters, &show).await
                }
            }
        }
        Route::One { root, resource, pkey } => {
            let (call, pkey) = (call(root, resource), readable(pkey)?);
            match resource {
                Resource::Profile => {
                    call.one_of("GET, PATCH, DELETE")?;
                    match *method {
                        Method::PATCH => profiles::patch(&call, &pkey).await,
                        Method::DELETE => profiles::delete(&call, &pkey).await,
                        _ => profiles::show(&call, &pkey).await,
                    }
                }
                // No DELETE: a page of Adobe's tells readers to unsubscribe by it, which would end the service for all.
                Resource::Service => {
                    call.one_of("GET, PATCH")?;
                    if method == Method::PATCH { services::patch(&call, &pkey).await } else { services::show(&call, &pkey).await }
                }
            }
        }
        Route::Subscriptions { root, resource, pkey, show_count } => {
            let (call, pkey) = (call(root, resource), readable(pkey)?);
            call.one_of(if show_count { "GET" } else { "GET, POST" })?;
            if method == Method::POST {
                services::subscribe(&call, &pkey).await
            } else {
                services::subscriptions(&call, &pkey, show_count).await
            }
        }
        Route::Subscription { root, resource, pkey, subscription } => {
            let (call, pkey, subscription) = (call(root, resource), readable(pkey)?, readable(subscription)?);
            call.one_of("GET, DELETE")?;
            if method == Method::DELETE {
                services::unsubscribe(&call, &pkey, &subscription).await
            } else {
                services::subscription(&call, &pkey, &subscription).await
            }
        }
        Route::Metadata { root, resource } => {
            let call = call(root, Resource::Profile);
            call.one_of("GET")?;
            described(&call, &resource)
        }
        Route::MetadataFilters { root, pkey } => {
            let call = call(root, Resource::Profile);
            call.one_of("GET")?;
            let key_of = |name: &str| app.derived_pkey("resource type", name);
            let resource = [Resource::Profile, Resource::Service].into_iter().find(|resource| key_of(resource.as_str()) == pkey);
            if resource.is_none() && key_of("history") == pkey {
                return Ok(Answer::ok(json!({})));
            }
            let resource = resource.ok_or(CampaignError::UnknownResource)?;
            let about = metadata::About { root, href_base: &call.base(), pkey: &pkey };
            Ok(Answer::ok(metadata::filters(resource, &about, &|name| app.derived_pkey("filter", name))))
        }
        Route::History { root, pkey, part } => {
            let (call, pkey) = (call(root, Resource::Profile), readable(pkey)?);
            call.one_of("GET")?;
            profiles::history(&call, &pkey, part).await
        }
        Route::Index => {
            let call = call(Root::ProfileAndServicesExt, Resource::Profile);
            call.one_of("GET")?;
            Ok(Answer::ok(metadata::index(&call.base())))
        }
        Route::Units { root, resource, pkey, show_count } => {
            let call = call(root, Resource::Profile);
            call.one_of(if pkey.is_some() { "GET, PATCH" } else { "GET" })?;
            match pkey {
                None if show_count => Ok(Answer::ok(json!({ "count": 0 }))),
                Some(pkey) => Err(CampaignError::NotFound { resource, pkey: Echo::pkey(&pkey) }),
                None => Ok(Answer::ok(lists::page(Vec::new(), None, &format!("{}/{resource}/_count", call.base()), Some(0)))),
            }
        }
        Route::PrivacyRequests { show_count } => {
            let call = call(Root::ProfileAndServices, Resource::Profile);
            call.one_of(if show_count { "GET" } else { "GET, POST" })?;
            if method == Method::POST { privacy::create(&call).await } else { privacy::list(&call, show_count).await }
        }
        Route::PrivacyRequest { pkey } => {
            let (call, pkey) = (call(Root::ProfileAndServices, Resource::Profile), readable(pkey)?);
            call.one_of("GET")?;
            privacy::show(&call, &pkey).await
        }
        Route::PrivacyData { pkey } => {
            let (call, pkey) = (call(Root::ProfileAndServices, Resource::Profile), readable(pkey)?);
            call.one_of("POST")?;
            privacy::data(&call, &pkey).await
        }
    }
}

fn described(call: &Call<'_>, name: &str) -> Result<Answer, CampaignError> {
    let resource = match name {
        "profile" | "history" => Resource::Profile,
        "service" => Resource::Service,
        _ => return Err(CampaignError::UnknownResource),
    };
    let schema = if name == "history" { &call.schemas.history } else { call.schemas.of(call.root, resource) };
    let about = metadata::About { root: call.root, href_base: &call.base(), pkey: &call.app.derived_pkey("resource type", name) };
    Ok(Answer::ok(metadata::resource(schema, &about, &|field| name != "history" && lists::is_sortable(call, resource, field))))
}

/// A key in a URL that has the form of those given out.
fn readable(pkey: String) -> Result<String, CampaignError> {
    if is_well_formed_pkey(&pkey) {
        return Ok(pkey);
    }
    Err(CampaignError::KeyUnreadable { pkey: Echo::pkey(&pkey), in_body: false })
}

/// A profile's key as an identifier.
fn identified(pkey: &str) -> Result<Identifier, CampaignError> {
    let found = Identifier::from_value(Kind::CampaignPkey, pkey);
    found.map(|(identifier, _)| identifier).map_err(|_| CampaignError::NotFound { resource: "profile", pkey: Echo::pkey(pkey) })
}

fn failed(failure: &Failure, resource: &'static str, pkey: &str) -> CampaignError {
    match failure {
        Failure::Refused(Refusal::NotFound) => CampaignError::NotFound { resource, pkey: Echo::pkey(pkey) },
        Failure::Refused(Refusal::Taken) => CampaignError::Taken { field: "name".to_owned() },
        Failure::Busy | Failure::NotDurable | Failure::Refused(_) => CampaignError::Unavailable,
    }
}

fn receipt(app: &App, accepted: Option<&Accepted>) -> Option<String> {
    accepted.map(|accepted| app.engine.shared().secrets.receipt_code(accepted.id))
}

impl App {
    /// A new key: `@` and 24 random bytes.
    fn new_pkey(&self) -> String {
        let mut bytes = [0; 24];
        self.engine.shared().env.fill(&mut bytes);
        format!("@{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// A key that is the same for ever, of something that has no row.
    fn derived_pkey(&self, label: &str, name: &str) -> String {
        format!("@{}", URL_SAFE_NO_PAD.encode(&self.engine.shared().secrets.digest(label, &[name.as_bytes()])[..24]))
    }

    /// Adobe's `cryptedId`: opaque, stable for a profile.
    fn crypted_id(&self, pkey: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.engine.shared().secrets.digest("crypted_id", &[pkey.as_bytes()])[..24])
    }
}
