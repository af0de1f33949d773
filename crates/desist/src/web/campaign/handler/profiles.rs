//! Profiles by key: create, show, change, delete.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use desist_core::identifier::{Identifier, Kind};
use desist_core::rules::Named;
use desist_engine::clear::Given;
use desist_engine::profiles::{self, Changed, Merged, NewProfile, Profile, Wish};
use desist_engine::queue::Lane;
use serde_json::{Value, json};

use super::{Answer, Call, failed, identified, lists, receipt};
use crate::config::Compat;
use crate::web::campaign::error::CampaignError;
use crate::web::campaign::path::HistoryPart;
use crate::web::campaign::profile::{self, Computed};
use crate::web::campaign::schema::{Attributes, Change, Mode, Patch, Schema};
use crate::web::{App, word};

/// POST on the collection.
pub(super) async fn create(call: &Call<'_>) -> Result<Answer, CampaignError> {
    let (app, schema) = (call.app, call.schema());
    let Change { attributes: patch, ccpa_opt_out, .. } = schema.parse_body(call.body, Mode::Create)?;
    let pkey = app.new_pkey();
    let mut attributes = Attributes::default();
    schema.apply(&mut attributes, patch, app.engine.shared().env.now_ms());
    let (identifiers, email, given) = named(app, schema, &attributes);
    // In a POST `false` is never an act: it says nothing about a person who may have opted out before.
    let opt_out = ccpa_opt_out == Some(true);
    let new = NewProfile {
        pkey: pkey.clone(),
        attributes: serde_json::to_vec(&attributes).map_err(|_| CampaignError::Unavailable)?,
        identifiers,
        email,
        opt_out,
        evidence: evidence(opt_out, schema, &attributes),
        given,
        by: call.by,
    };
    let created = app.engine.submit(Lane::Interactive, move |ctx| profiles::create(ctx, &new)).await;
    let accepted = created.map_err(|failure| failed(&failure, "profile", &pkey))?;
    let shown = show(call, &pkey).await?;
    Ok(Answer { status: StatusCode::CREATED, receipt: receipt(app, accepted.as_ref()), ..shown })
}

/// GET on a profile.
pub(super) async fn show(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    Ok(Answer::ok(rendered(call, &read(call, pkey).await?)?))
}

/// The profile of a key.
pub(super) async fn read(call: &Call<'_>, pkey: &str) -> Result<Profile, CampaignError> {
    let (key, engine) = (identified(pkey)?, call.app.engine.clone());
    let stored = call.app.read(move |read| profiles::get(read, engine.shared(), &key)).await.map_err(|_| CampaignError::Unavailable)?;
    stored.map_err(|refusal| failed(&refusal.into(), "profile", pkey))
}

/// The attributes of a stored profile.
pub(super) fn attributes(profile: &Profile) -> Result<Attributes, CampaignError> {
    serde_json::from_slice(&profile.attributes).map_err(|_| CampaignError::Unavailable)
}

/// A profile as the root that the caller used shows it.
pub(super) fn rendered(call: &Call<'_>, stored: &Profile) -> Result<Value, CampaignError> {
    let (crypted_id, base) = (call.app.crypted_id(&stored.pkey), call.base());
    let computed = Computed {
        pkey: &stored.pkey,
        href_base: &base,
        created_ms: stored.row.created_ms,
        modified_ms: stored.row.modified_ms,
        opt_out: stored.opted_out,
        opt_out_modified_ms: stored.opted_out_since_ms.or(stored.row.opt_out_ended_ms),
        crypted_id: &crypted_id,
    };
    let schema = call.schemas.of(call.root, super::Resource::Profile);
    Ok(profile::render(schema, &attributes(stored)?, &computed, call.app.today()))
}

/// PATCH on a profile.
pub(super) async fn patch(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let (app, compat) = (call.app, call.compat);
    let Change { attributes: patch, ccpa_opt_out, only_ccpa_opt_out } = call.schema().parse_body(call.body, Mode::Patch { pkey })?;
    let key = identified(pkey)?;
    let own = app.engine.shared().policy.load().api_opt_in_own;
    let evidence = match ccpa_opt_out {
        Some(true) => json!({ "kind": "opt_out", "channel": "api", "identifiers": [{ "kind": "campaign_pkey", "value": pkey }] })
            .to_string()
            .into_bytes(),
        _ => Vec::new(),
    };
    // A record that is refused in part would come again and again with what was taken of it.
    let all_or_nothing = compat == Compat::Strict;
    let wish = Wish { opt_out: ccpa_opt_out, alone: only_ccpa_opt_out, all_or_nothing, evidence, by: call.by };
    let (merging, schemas, root) = (app.clone(), call.schemas.clone(), call.root);
    let changed = app
        .engine
        .submit(Lane::Interactive, move |ctx| {
            let now_ms = ctx.now_ms;
            let schema = schemas.of(root, super::Resource::Profile);
            let mut merge = |present: &[u8]| merge(&merging, schema, present, &patch, now_ms);
            profiles::change(ctx, &key, &wish, &mut merge, own)
        })
        .await
        .map_err(|failure| failed(&failure, "profile", pkey))?;
    let Changed { request, refused } = changed;
    if let Some(reason) = refused {
        app.engine.shared().counts.opt_ins_refused.fetch_add(1, Ordering::Relaxed);
        let name = Some(word(reason));
        if compat == Compat::Strict {
            return Ok(Answer {
                refused: name,
                ..Answer::new(StatusCode::CONFLICT, json!("the opt-out stays: only the consumer can end it"))
            });
        }
        return Ok(Answer { refused: name, ..patched(call, pkey) });
    }
    Ok(Answer { receipt: receipt(app, request.as_ref()), ..patched(call, pkey) })
}

fn patched(call: &Call<'_>, pkey: &str) -> Answer {
    let base = call.base();
    Answer::ok(profile::render_patch_answer(&Computed { pkey, href_base: &base, ..Computed::default() }))
}

fn merge(app: &App, schema: &Schema, present: &[u8], patch: &Patch, now_ms: i64) -> Option<Merged> {
    let mut attributes: Attributes = serde_json::from_slice(present).ok()?;
    let (old, ..) = named(app, schema, &attributes);
    let changed = schema.apply(&mut attributes, patch.clone(), now_ms);
    let (new, email, given) = named(app, schema, &attributes);
    Some(Merged { attributes: serde_json::to_vec(&attributes).ok()?, old, new, email, changed, given })
}

/// DELETE on a profile.
pub(super) async fn delete(call: &Call<'_>, pkey: &str) -> Result<Answer, CampaignError> {
    let (key, by) = (identified(pkey)?, call.by);
    let deleted = call.app.engine.submit(Lane::Interactive, move |ctx| profiles::delete(ctx, &key, by)).await;
    deleted.map_err(|failure| failed(&failure, "profile", pkey))?;
    Ok(Answer::ok(json!({})))
}

/// GET on a profile's marketing history, of which this server has none.
pub(super) async fn history(call: &Call<'_>, pkey: &str, part: HistoryPart) -> Result<Answer, CampaignError> {
    let stored = read(call, pkey).await?;
    let href = format!("{}/history/{pkey}", call.base());
    match part {
        HistoryPart::Events => return Ok(Answer::ok(lists::page(Vec::new(), None, &format!("{href}/events/_count"), Some(0)))),
        HistoryPart::EventCount => return Ok(Answer::ok(json!({ "count": 0 }))),
        HistoryPart::Summary => {}
    }
    let attributes = attributes(&stored)?;
    let text = |name: &str| attributes.text(name);
    Ok(Answer::ok(json!({
        "PKey": pkey, "href": href, "email": text("email"), "firstName": text("firstName"), "lastName": text("lastName"),
        "events": { "href": format!("{href}/events") },
    })))
}

/// The identifiers among attributes, the e-mail alone, and what those are of which some destination has to be told.
fn named(app: &App, schema: &Schema, attributes: &Attributes) -> (Vec<Named>, Option<Named>, Vec<Given>) {
    let (mut all, mut email, mut given) = (Vec::new(), None, Vec::new());
    for (kind, value) in profile::identifiers(schema, attributes) {
        if let Ok((identifier, text)) = Identifier::from_value(kind, &value) {
            let one = app.engine.named(&identifier);
            if kind == Kind::Email {
                email = Some(one);
            }
            if !all.contains(&one) {
                all.push(one);
                given.extend(app.engine.given(identifier, Some(text)));
            }
        }
    }
    (all, email, given)
}

/// What was said about whom. Destinations may have to be told of identifiers by what stands here, under `identifiers`: see
/// `desist_engine::clear`.
fn evidence(opt_out: bool, schema: &Schema, attributes: &Attributes) -> Vec<u8> {
    if !opt_out {
        return Vec::new();
    }
    let identifiers = profile::identifiers(schema, attributes);
    let identifiers: Vec<_> = identifiers.into_iter().map(|(kind, value)| json!({ "kind": kind, "value": value })).collect();
    json!({ "kind": "opt_out", "channel": "api", "identifiers": identifiers }).to_string().into_bytes()
}
