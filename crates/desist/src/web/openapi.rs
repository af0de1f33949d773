//! The OpenAPI document, made from the same list as the router.

use axum::Json;
use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::App;
use super::problem::Problem;

type SchemaOf = fn(&mut SchemaGenerator) -> Value;

/// One endpoint: its route and what the document says of it.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path with its parameters in braces.
    pub path: &'static str,
    /// What the router calls.
    pub route: MethodRouter<App>,
    summary: &'static str,
    body: Option<SchemaOf>,
    answer: (u16, &'static str, Option<SchemaOf>),
    idempotent: bool,
    signals: bool,
    query: Vec<(&'static str, &'static str)>,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

impl Endpoint {
    /// An endpoint without a body.
    pub fn new(method: Method, path: &'static str, summary: &'static str, route: MethodRouter<App>) -> Self {
        Self {
            method,
            path,
            route,
            summary,
            body: None,
            answer: (200, "application/json", None),
            idempotent: false,
            signals: false,
            query: Vec::new(),
        }
    }

    /// With this JSON body.
    #[must_use]
    pub fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }

    /// With this JSON answer.
    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: u16) -> Self {
        Self { answer: (status, "application/json", Some(schema_of::<T>)), ..self }
    }

    /// With an empty answer.
    #[must_use]
    pub fn answers_nothing(self, status: u16) -> Self {
        Self { answer: (status, "", None), ..self }
    }

    /// With an answer in plain text.
    #[must_use]
    pub fn answers_text(self) -> Self {
        Self { answer: (200, "text/plain", None), ..self }
    }

    /// Honouring `Sec-GPC`.
    #[must_use]
    pub fn signals(self) -> Self {
        Self { signals: true, ..self }
    }

    /// Taking an `Idempotency-Key`.
    #[must_use]
    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// With a parameter of the query that can be left out.
    #[must_use]
    pub fn query(mut self, name: &'static str, description: &'static str) -> Self {
        self.query.push((name, description));
        self
    }

    fn operation(&self, generator: &mut SchemaGenerator, keyed: bool) -> Value {
        let mut parameters: Vec<Value> = self
            .path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        for (name, description) in &self.query {
            parameters.push(
                json!({ "name": name, "in": "query", "required": false, "description": description, "schema": { "type": "string" } }),
            );
        }
        if self.idempotent {
            parameters.push(json!({ "name": "Idempotency-Key", "in": "header", "required": false, "schema": { "type": "string", "maxLength": crate::limits::IDEMPOTENCY_KEY_BYTES_MAX } }));
        }
        if self.signals {
            parameters.push(json!({ "name": "Sec-GPC", "in": "header", "required": false, "description": "`1` from the consumer's browser: counts for a single decision", "schema": { "type": "string" } }));
        }
        let (status, kind, schema) = self.answer;
        let content = match (kind, schema) {
            ("", _) => json!({}),
            (kind, Some(schema)) => json!({ kind: { "schema": schema(generator) } }),
            (kind, None) => json!({ kind: {} }),
        };
        let problem = schema_of::<Problem>(generator);
        let mut operation = json!({
            "summary": self.summary,
            "responses": {
                status.to_string(): { "description": "done", "content": content },
                "default": { "description": "a problem", "content": { "application/problem+json": { "schema": problem } } },
            },
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = self.body {
            operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": body(generator) } } });
        }
        if keyed {
            operation["security"] = json!([{ "token": [] }]);
        }
        operation
    }
}

/// Makes the document.
pub fn make() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| "/components/schemas".clone_into(settings.definitions_path.to_mut()))
        .into_generator();
    let mut paths = Map::new();
    for (endpoints, keyed) in [(super::endpoints(), true), (super::open_endpoints(), false)] {
        for endpoint in endpoints {
            let operation = endpoint.operation(&mut generator, keyed);
            let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
            item[endpoint.method.as_str().to_lowercase()] = operation;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "desist", "version": env!("CARGO_PKG_VERSION"), "description": "The private JSON API. The Campaign API has its own contract." },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// Serves the document.
pub async fn document() -> Json<Value> {
    Json(make())
}
