//! Services and subscriptions: their fields, and how they are shown.

use serde_json::{Value, json};

use super::profile::bracketed;
use super::schema::Access::{Caller, Own, Server};
use super::schema::Type::{self, Flag, Item, Text, Timestamp};
use super::schema::{Attributes, Field, Schema, timestamp};

/// The service's fields.
pub fn schema() -> Schema {
    let fields = vec![
        Field::new("PKey", Text(33), "", Own, None),
        Field::new("builtIn", Flag, "", Server, None),
        Field::new("created", Timestamp, "", Server, None),
        Field::new("desc", Text(512), "", Caller, None),
        Field::new("end", Type::Date, "", Caller, None),
        Field::new("href", Text(255), "", Own, None),
        Field::new("isExternal", Flag, "", Caller, None),
        Field::new("isTemplate", Flag, "", Caller, None),
        Field::new("label", Text(128), "", Caller, None),
        Field::new("lastModified", Timestamp, "", Server, None),
        Field::new("limitedDuration", Flag, "", Caller, None),
        Field::new("mainDate", Type::Date, "", Caller, None),
        Field::new("messageType", Type::choice(&["email", "sms"]), "", Caller, None),
        Field::new("mode", Type::choice(&["newsletter", "viral"]), "", Caller, None),
        Field::new(NAME, Text(64), "", Caller, None),
        Field::new("publicLabel", Text(128), "", Caller, None),
        Field::new("start", Type::Date, "", Caller, None),
        Field::new("subscriptions", Item, "", Server, None),
        Field::new("targetResource", Type::choice(&["profile"]), "", Caller, None),
        Field::new("thumbnail", Text(255), "", Caller, None),
        Field::new("title", Text(255), "", Server, None),
        Field::new("validityDuration", Text(64), "", Caller, None),
    ];
    Schema::new("service", fields)
}

/// The field that is unique; the server gives one to a service that comes without.
pub const NAME: &str = "name";

/// What the server knows of a service beside its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Computed<'a> {
    /// The primary key.
    pub pkey: &'a str,
    /// Public URL up to and with the root that the caller used, no slash at the end.
    pub href_base: &'a str,
    /// Its unique name.
    pub name: &'a str,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
}

impl Computed<'_> {
    /// Where the service is.
    pub fn href(&self) -> String {
        format!("{}/service/{}", self.href_base, self.pkey)
    }
}

/// The whole service, every field with its value or default.
pub fn render(schema: &Schema, attributes: &Attributes, computed: &Computed<'_>) -> Value {
    let mut service = schema.render(attributes);
    let own: [(&str, Value); 7] = [
        ("PKey", computed.pkey.into()),
        ("href", computed.href().into()),
        ("subscriptions", json!({"href": format!("{}/subscriptions/", computed.href())})),
        (NAME, computed.name.into()),
        ("title", bracketed(attributes.text("label"), computed.name).into()),
        ("created", timestamp(computed.created_ms).into()),
        ("lastModified", timestamp(computed.modified_ms).into()),
    ];
    service.extend(own.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(service)
}

/// A subscription, with both of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// The primary key.
    pub pkey: &'a str,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// What was subscribed to.
    pub service: &'a Computed<'a>,
    /// Its fields.
    pub service_attributes: &'a Attributes,
    /// The primary key of who did.
    pub profile_pkey: &'a str,
    /// Its fields.
    pub profile: &'a Attributes,
}

/// A subscription, the same from both sides.
pub fn render_subscription(subscription: &Subscription<'_>) -> Value {
    let Subscription { pkey, created_ms, service, service_attributes, profile_pkey, profile } = subscription;
    let label = service_attributes.text("label");
    json!({
        "PKey": pkey,
        "href": format!("{}/subscriptions/{pkey}", service.href()),
        "created": timestamp(*created_ms),
        "email": profile.text("email"),
        "expirationDate": "",
        "metadata": "subscriptionRcp",
        "serviceName": service.name,
        "service": {
            "PKey": service.pkey, "href": service.href(), "label": label, "name": service.name, "title": bracketed(label, service.name),
        },
        "subscriber": {
            "PKey": profile_pkey, "href": format!("{}/profile/{profile_pkey}", service.href_base), "email": profile.text("email"),
            "firstName": profile.text("firstName"), "lastName": profile.text("lastName"),
        },
    })
}
