//! The reference page, generated from the types, and the file that a new data directory gets.

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{Config, error};

const STARTER: &str = r#"## The configuration of desist for the business __BUSINESS__. Every setting is optional; a line that starts with a
## single # shows a setting with its default or an example. After a change: `desist check --config-only`, then
## `desist reload`. All settings are explained in docs/configuration.md. Keep this file under version control.

[campaign]
## "adobe" answers as Adobe Campaign does, its 500s included; "strict" answers bad input with 4xx.
#compat = "adobe"

## One [[campaign.fields]] table for each custom field of the profile, under profileAndServicesExt.
#[[campaign.fields]]
#name = "cusNickname"
#type = "string"
#label = "Nickname"
#length = 100
#searchable = true

#[[campaign.fields]]
#name = "cusShirtSize"
#type = "enumeration"
#values = ["small", "large"]

[vault]
## Searchable fields that the store keeps in clear, such as "email" and "lastName"; all others are sealed and searched in memory.
#searchable = []

[business]
## What consumers read on the choices page.
#name = __NAME__
## Where days and deadlines are counted.
#time_zone = "America/Los_Angeles"

## One [[sites]] table for each web site or app.
#[[sites]]
#id = "shop"
#url = "https://shop.example"
#device_identifiers = ["cookie_id", "device_id"]

## One [[purposes]] table for each purpose besides sale, sharing, targeted_advertising, profiling, limit_sensitive, admt.
#[[purposes]]
#name = "email_marketing"
#model = "opt_out"
#description = "News and offers by e-mail."

## One [[destinations]] table for each system that must be told; `desist connector show webhook` says what its connector asks for.
#[[destinations]]
#id = "crm"
#connector = "webhook"
#class = "internal"
#purposes = ["sale", "sharing", "targeted_advertising"]
#settings = { host = "hooks.example.com", path = "/privacy", secret = { env = "DESIST_CRM_SECRET" } }
#allow_private = false
#approve = []
#dry_run = false
#required = "accepted"
#patrol = "7d"
#resend_every = "30d"
#timeout = "10s"
#rate = ["300/1m"]
#concurrency = 4
#linger = "5s"
#attempts = 16

## A system that a person tells by hand: `desist destination tasks paper-list` says what to do.
#[[destinations]]
#id = "paper-list"
#manifest = "connectors/paper-list.toml"
#class = "service_provider"
#owner = "Privacy desk"
#task = "Send the list to the printer."

[policy]
## What ccpaOptOut:false through the Campaign API may end: "own", an opt-out made by the API itself; "refuse", nothing.
#api_opt_in = "own"

## One [[witnesses]] table for each party that cosigns the log, such as your law firm's `desist witness`.
#[[witnesses]]
#url = "https://witness.example"
#key = "witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
#allow_private = false

## Who is told of alarms, and where the key is that signs the requests: a variable or a file, never the key itself.
#[alerts]
#url = "https://alerts.example/desist"
#secret = { env = "DESIST_ALERTS_SECRET" }
#allow_private = false

[server]
#public = "127.0.0.1:8080"
#private = "127.0.0.1:8081"
## What links and hrefs start with; without them, the addresses above.
#public_url = "https://privacy.example"
#private_url = "https://desist.internal:8443"
## Your own reverse proxies. X-Forwarded-For, -Proto and -Host are believed from these alone.
#trusted_proxies = []
## Serve the private listener without TLS on an address that other machines reach.
#insecure_private = false

#[server.public_tls]
#cert = "tls/public.crt"
#key = "tls/public.key"

#[server.private_tls]
#cert = "tls/private.crt"
#key = "tls/private.key"

[limits]
## Requests a minute that one API key may make; without it there is no limit.
#requests_per_minute_per_key = 6000
"#;

/// The `desist.toml` that `serve` writes into an empty directory: every setting, commented out.
pub fn starter_file(business: &str) -> String {
    // Debug quoting of a control-free text is valid TOML and never breaks the line.
    let plain: String = business.chars().filter(|c| !c.is_control()).collect();
    let quoted = toml::Value::String(plain).to_string().replace('\n', " ");
    STARTER.replace("__BUSINESS__", &quoted).replace("__NAME__", &quoted)
}

/// The schema of the file with every type written in place.
pub(super) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// `docs/configuration.md`, generated from the types.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n<!-- Generated from the types; `UPDATE=1 cargo test -p desist --lib config` writes it. -->\n\n\
         `desist.toml` is read at start and at `desist reload`, which takes all of a changed file or nothing. Flags and\n\
         `DESIST_...` variables go before the file. An unknown key, a bad value and a file above 1 MiB are errors that name\n\
         file, line, column, the wrong value and the allowed ones; `desist check --config-only --config FILE` reports them, and settings\n\
         that serve but are not fit for production, without starting anything.\n",
    );
    table(&mut page, "", &schema());
    let example = starter_file("acme");
    let _ = write!(page, "\n## The file that a new data directory gets\n\n```toml\n{example}```\n");
    page
}

/// The object's schema behind `Option` and `Vec`.
pub(super) fn object(schema: &Value) -> Option<&Value> {
    let inner = schema.get("items").or_else(|| schema.pointer("/anyOf/0")).unwrap_or(schema);
    inner.get("properties").is_some_and(Value::is_object).then_some(inner)
}

fn table(page: &mut String, path: &str, schema: &Value) {
    let empty = Map::new();
    let mut properties: Vec<_> = schema["properties"].as_object().unwrap_or(&empty).iter().collect();
    // The schema sorts by name; readers get the order of the file.
    let dotted = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    properties.sort_by_key(|(key, _)| error::FIELDS.iter().position(|(field, _)| *field == dotted(key)));
    let required = |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
    let text = |schema: &Value| schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let mut keys = properties.iter().filter(|(_, schema)| object(schema).is_none()).peekable();
    if keys.peek().is_some() {
        page.push_str("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    }
    for (key, schema) in keys {
        let default = match schema.get("default") {
            _ if required(key) => "required".to_owned(),
            None | Some(Value::Null) => "none".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let _ = writeln!(page, "| `{key}` | {} | {default} | {} |", kind(schema), text(schema));
    }
    for (key, schema) in properties {
        let Some(inner) = object(schema) else { continue };
        let path = dotted(key);
        let _ = write!(page, "\n## `{}`\n\n{}\n", error::header(&path), text(schema));
        table(page, &path, inner);
    }
}

/// A value's type in words.
fn kind(schema: &Value) -> String {
    let choices = |values: Vec<&Value>| values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or ");
    if let Some(values) = schema["enum"].as_array() {
        return choices(values.iter().collect());
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        return choices(variants.iter().filter_map(|variant| variant.get("const")).collect());
    }
    if let Some(inner) = schema.pointer("/anyOf/0") {
        return kind(inner);
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    let name = schema["type"].as_str().or_else(|| schema.pointer("/type/0")?.as_str());
    match name {
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("string") => "text".to_owned(),
        Some("object") => "table".to_owned(),
        other => other.unwrap_or("value").to_owned(),
    }
}
