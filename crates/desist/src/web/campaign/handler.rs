//! The Campaign calls: profiles by key, under the three roots.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_core::fact::{Actor, Role};
use desist_core::identifier::{Identifier, Kind};
use desist_core::rules::Named;
use desist_engine::engine::{Failure, Refusal, may};
use desist_engine::intake::Accepted;
use desist_engine::profiles::{self, Changed, Merged, NewProfile, Profile, Wish};
use desist_engine::queue::Lane;
use serde_json::{Value, json};

use super::error::{CampaignError, Echo};
use super::path::{Root, Route, is_well_formed_pkey, resolve};
use super::profile::{self, Attributes, BODY_BYTES_MAX, Change, Computed, Mode};
use crate::config::Compat;
use crate::web::auth::bearer;
use crate::web::{App, word};

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
    allow: Option<&'static str>,
}

impl Answer {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, receipt: None, refused: None, allow: None }
    }
}

/// Answers every call below `/{org}/campaign/`.
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
        Err(error) => {
            let status = StatusCode::from_u16(error.status(compat)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = Answer::new(status, error.body());
            if matches!(error, CampaignError::MethodNotAllowed) {
                answer.allow = Some("GET, POST, PATCH, DELETE");
            }
            let mut response = respond(answer);
            if let Some(pointer) = error.pointer().and_then(|pointer| HeaderValue::try_from(pointer).ok()) {
                response.headers_mut().insert(POINTER, pointer);
            }
            if matches!(error, CampaignError::TooManyRequests | CampaignError::Unavailable) {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

fn respond(answer: Answer) -> Response {
    let mut response = Response::new(answer.body.to_string().into());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    // Clients leave the body undefined without it.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    let extra = [(RECEIPT, answer.receipt), (REFUSED, answer.refused), (header::ALLOW, answer.allow.map(str::to_owned))];
    for (name, value) in extra {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// The API key first, then the token, then the organization.
fn authenticate(app: &App, headers: &HeaderMap, needed: Role) -> Result<Actor, CampaignError> {
    let keys = app.engine.shared().keys.load();
    let api_key = headers.get("x-api-key").ok_or(CampaignError::ApiKeyMissing)?;
    let number = api_key.to_str().ok().and_then(|key| keys.number(key)).ok_or(CampaignError::ApiKeyInvalid)?;
    let token = bearer(headers).ok_or(CampaignError::TokenMissing)?;
    let key = keys.by_token(token).filter(|key| key.no == number).ok_or(CampaignError::TokenInvalid)?;
    if !may(key.role, needed) {
        return Err(CampaignError::NotEntitled);
    }
    if !app.admits(number) {
        return Err(CampaignError::TooManyRequests);
    }
    Ok(Actor::Key(number))
}

async fn answer(
    app: &App,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
    compat: Compat,
) -> Result<Answer, CampaignError> {
    let needed = if method == Method::GET { Role::Reader } else { Role::Writer };
    let by = authenticate(app, headers, needed)?;
    let target = resolve(target)?;
    // Staging names have a suffix; anything else is another business's, or nobody's.
    if target.org != app.engine.business() {
        return Err(CampaignError::NotEntitled);
    }
    let body = body.map_err(|_| CampaignError::BodyTooLarge)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(CampaignError::BodyTooLarge);
    }
    let base = |root: Root| format!("{}/{}/campaign/{}", app.private_base.load(), target.org, root.as_str());
    match target.route {
        Route::Unknown => Err(CampaignError::UnknownResource),
        Route::Profiles { root } if method == Method::POST => create(app, &body, &base(root), by).await,
        // Lists come with the rest of the contract.
        Route::Profiles { .. } if method == Method::GET => Err(CampaignError::UnknownResource),
        Route::Profiles { .. } => Err(CampaignError::MethodNotAllowed),
        Route::Profile { root, pkey } => {
            if !is_well_formed_pkey(&pkey) {
                return Err(CampaignError::KeyUnreadable { pkey: Echo::pkey(&pkey), in_body: false });
            }
            match *method {
                Method::GET => show(app, &pkey, &base(root)).await,
                Method::PATCH => patch(app, &pkey, &body, &base(root), by, compat).await,
                Method::DELETE => delete(app, &pkey, by).await,
                _ => Err(CampaignError::MethodNotAllowed),
            }
        }
    }
}

fn identified(pkey: &str) -> Result<Identifier, CampaignError> {
    let (identifier, _) = Identifier::from_value(Kind::CampaignPkey, pkey).map_err(|_| CampaignError::NotFound(Echo::pkey(pkey)))?;
    Ok(identifier)
}

/// The identifiers among attributes, and the e-mail alone.
fn named(app: &App, attributes: &Attributes) -> (Vec<Named>, Option<Named>) {
    let (mut all, mut email) = (Vec::new(), None);
    for (kind, value) in profile::identifiers(attributes) {
        if let Ok((identifier, _)) = Identifier::from_value(kind, &value) {
            let one = app.engine.named(&identifier);
            if kind == Kind::Email {
                email = Some(one);
            }
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    (all, email)
}

fn evidence(opt_out: bool, attributes: &Attributes) -> Vec<u8> {
    if !opt_out {
        return Vec::new();
    }
    let identifiers: Vec<_> =
        profile::identifiers(attributes).into_iter().map(|(kind, value)| json!({ "kind": kind, "value": value })).collect();
    json!({ "kind": "opt_out", "channel": "api", "identifiers": identifiers }).to_string().into_bytes()
}

fn failed(failure: &Failure, pkey: &str) -> CampaignError {
    match failure {
        Failure::Refused(Refusal::NotFound) => CampaignError::NotFound(Echo::pkey(pkey)),
        Failure::Busy | Failure::NotDurable | Failure::Refused(_) => CampaignError::Unavailable,
    }
}

fn receipt(app: &App, accepted: Option<&Accepted>) -> Option<String> {
    accepted.map(|accepted| app.engine.shared().secrets.receipt_code(accepted.id))
}

async fn create(app: &App, body: &[u8], base: &str, by: Actor) -> Result<Answer, CampaignError> {
    let Change { attributes: patch, ccpa_opt_out, .. } = profile::parse_body(body, Mode::Create)?;
    let pkey = app.new_pkey();
    let mut attributes = Attributes::default();
    profile::apply(&mut attributes, patch, app.engine.shared().env.now_ms());
    let (identifiers, email) = named(app, &attributes);
    // In a POST `false` is never an act: it says nothing about a person who may have opted out before.
    let opt_out = ccpa_opt_out == Some(true);
    let new = NewProfile {
        pkey: identified(&pkey)?,
        attributes: serde_json::to_vec(&attributes).map_err(|_| CampaignError::Unavailable)?,
        identifiers,
        email,
        opt_out,
        evidence: evidence(opt_out, &attributes),
        by,
    };
    let accepted =
        app.engine.submit(Lane::Interactive, move |ctx| profiles::create(ctx, &new)).await.map_err(|failure| failed(&failure, &pkey))?;
    let shown = show(app, &pkey, base).await?;
    Ok(Answer { status: StatusCode::CREATED, receipt: receipt(app, accepted.as_ref()), ..shown })
}

async fn show(app: &App, pkey: &str, base: &str) -> Result<Answer, CampaignError> {
    let key = identified(pkey)?;
    let engine = app.engine.clone();
    let stored = app.read(move |read| profiles::get(read, engine.shared(), &key)).await.map_err(|_| CampaignError::Unavailable)?;
    let Profile { row, attributes, opted_out, opted_out_since_ms, .. } = stored.map_err(|refusal| failed(&refusal.into(), pkey))?;
    let attributes: Attributes = serde_json::from_slice(&attributes).map_err(|_| CampaignError::Unavailable)?;
    let crypted_id = app.crypted_id(pkey);
    let computed = Computed {
        pkey,
        href_base: base,
        created_ms: row.created_ms,
        modified_ms: row.modified_ms,
        opt_out: opted_out,
        opt_out_modified_ms: opted_out_since_ms.or(row.opt_out_ended_ms),
        crypted_id: &crypted_id,
    };
    Ok(Answer::new(StatusCode::OK, profile::render(&attributes, &computed, app.today())))
}

async fn patch(app: &App, pkey: &str, body: &[u8], base: &str, by: Actor, compat: Compat) -> Result<Answer, CampaignError> {
    let Change { attributes: patch, ccpa_opt_out, only_ccpa_opt_out } = profile::parse_body(body, Mode::Patch { pkey })?;
    let key = identified(pkey)?;
    let own = app.engine.shared().policy.load().api_opt_in_own;
    let evidence = match ccpa_opt_out {
        Some(true) => json!({ "kind": "opt_out", "channel": "api", "identifiers": [{ "kind": "campaign_pkey", "value": pkey }] })
            .to_string()
            .into_bytes(),
        _ => Vec::new(),
    };
    // A record that is refused in part would come again and again with what was taken of it.
    let wish = Wish { opt_out: ccpa_opt_out, alone: only_ccpa_opt_out, all_or_nothing: compat == Compat::Strict, evidence, by };
    let merging = app.clone();
    let changed = app
        .engine
        .submit(Lane::Interactive, move |ctx| {
            let now_ms = ctx.now_ms;
            let mut merge = |present: &[u8]| merge(&merging, present, &patch, now_ms);
            profiles::change(ctx, &key, &wish, &mut merge, own)
        })
        .await
        .map_err(|failure| failed(&failure, pkey))?;
    let Changed { request, refused } = changed;
    if let Some(reason) = refused {
        app.engine.shared().counts.opt_ins_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = Some(word(reason));
        if compat == Compat::Strict {
            return Ok(Answer {
                refused: name,
                ..Answer::new(StatusCode::CONFLICT, json!("the opt-out stays: only the consumer can end it"))
            });
        }
        return Ok(Answer { refused: name, ..patched(pkey, base) });
    }
    Ok(Answer { receipt: receipt(app, request.as_ref()), ..patched(pkey, base) })
}

fn patched(pkey: &str, base: &str) -> Answer {
    Answer::new(StatusCode::OK, profile::render_patch_answer(&Computed { pkey, href_base: base, ..Computed::default() }))
}

fn merge(app: &App, present: &[u8], patch: &profile::Patch, now_ms: i64) -> Option<Merged> {
    let mut attributes: Attributes = serde_json::from_slice(present).ok()?;
    let (old, _) = named(app, &attributes);
    let changed = profile::apply(&mut attributes, patch.clone(), now_ms);
    let (new, email) = named(app, &attributes);
    Some(Merged { attributes: serde_json::to_vec(&attributes).ok()?, old, new, email, changed })
}

async fn delete(app: &App, pkey: &str, by: Actor) -> Result<Answer, CampaignError> {
    let key = identified(pkey)?;
    app.engine.submit(Lane::Interactive, move |ctx| profiles::delete(ctx, &key, by)).await.map_err(|failure| failed(&failure, pkey))?;
    Ok(Answer::new(StatusCode::OK, json!({})))
}

impl App {
    /// A new profile key: `@` and 24 random bytes.
    fn new_pkey(&self) -> String {
        let mut bytes = [0; 24];
        self.engine.shared().env.fill(&mut bytes);
        format!("@{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Adobe's `cryptedId`: opaque, stable for a profile.
    fn crypted_id(&self, pkey: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.engine.shared().secrets.digest("crypted_id", &[pkey.as_bytes()])[..24])
    }
}
