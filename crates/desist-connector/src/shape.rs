//! The shape of a manifest: keys, types and choices, checked against the schema of its types, so that every problem is found
//! at once and has its place.

use std::sync::LazyLock;

use desist_core::identifier::Kind;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::declared::Declared;
use crate::problem::{did_you_mean, shown};

/// The JSON Schema of manifests, with every type written in place.
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Declared>().to_value();
    schema["title"] = json!("desist connector manifest");
    schema["properties"]["ids"]["propertyNames"] = json!({ "enum": Kind::ALL.map(Kind::name) });
    schema
}

static SCHEMA: LazyLock<Value> = LazyLock::new(json_schema);

/// One finding: where, what is wrong, what to do.
pub(crate) struct Finding {
    pub span: std::ops::Range<usize>,
    pub path: Vec<String>,
    pub message: String,
    pub hint: String,
}

/// Everything that does not have the shape.
pub(crate) fn check(doc: &Spanned<DeTable<'_>>, text: &str) -> Vec<Finding> {
    let mut checker = Checker { text, found: Vec::new(), path: Vec::new() };
    checker.table(doc.get_ref(), &doc.span(), &SCHEMA);
    checker.found
}

struct Checker<'t> {
    text: &'t str,
    found: Vec<Finding>,
    path: Vec<String>,
}

impl Checker<'_> {
    fn add(&mut self, span: &std::ops::Range<usize>, message: String, hint: String) {
        self.found.push(Finding { span: span.clone(), path: self.path.clone(), message, hint });
    }

    fn table(&mut self, table: &DeTable<'_>, span: &std::ops::Range<usize>, schema: &Value) {
        let empty = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let names = schema.pointer("/propertyNames/enum").and_then(Value::as_array);
        for (key, value) in table {
            self.path.push(key.get_ref().to_string());
            let known: Vec<&str> = match names {
                Some(names) => names.iter().filter_map(Value::as_str).collect(),
                None => properties.keys().map(String::as_str).collect(),
            };
            match (properties.get(key.get_ref().as_ref()), schema.get("additionalProperties")) {
                (Some(member), _) => self.value(value, &key.span(), member),
                (None, Some(other @ (Value::Object(_) | Value::Bool(true))))
                    if names.is_none() || known.contains(&key.get_ref().as_ref()) =>
                {
                    self.value(value, &key.span(), other);
                }
                (None, None) if !schema.get("properties").is_some_and(Value::is_object) => self.anything(value),
                _ => {
                    let near = did_you_mean(key.get_ref(), known.iter().copied());
                    let message = format!("unknown key {}{near}", shown(key.get_ref()));
                    self.add(&key.span(), message, format!("known here: {}", known.join(", ")));
                }
            }
            self.path.pop();
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(required) {
                self.path.push(required.to_owned());
                self.add(span, "is missing".to_owned(), describe(&properties[required]));
                self.path.pop();
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, key: &std::ops::Range<usize>, schema: &Value) {
        let Some(schema) = alternative(value.get_ref(), schema) else { return self.wrong_type(value, schema) };
        let choices: Vec<&str> = match schema.get("oneOf").or_else(|| schema.get("enum")).and_then(Value::as_array) {
            Some(choices) => choices.iter().filter_map(|choice| choice.get("const").unwrap_or(choice).as_str()).collect(),
            None => Vec::new(),
        };
        if !choices.is_empty() {
            match value.get_ref().as_str() {
                // Dialects have been written with hyphens, too.
                Some(word) if choices.contains(&word) || choices.contains(&word.replace('-', "_").as_str()) => {}
                Some(word) => {
                    let message = format!("unknown value {}{}", shown(word), did_you_mean(word, choices.iter().copied()));
                    self.add(&value.span(), message, format!("use one of {}", choices.join(", ")));
                }
                None => self.wrong_type(value, schema),
            }
            return;
        }
        let Some(kind) = type_of(schema) else { return self.anything(value) };
        match (kind, value.get_ref()) {
            ("object", DeValue::Table(table)) => {
                // The header of a table is where people look for what is missing in it.
                let span = if value.span().is_empty() { key.clone() } else { value.span() };
                self.table(table, &span, schema);
            }
            ("array", DeValue::Array(items)) => {
                for (place, item) in items.iter().enumerate() {
                    self.path.push(place.to_string());
                    self.value(item, key, &schema["items"]);
                    self.path.pop();
                }
            }
            ("string", DeValue::String(_)) | ("boolean", DeValue::Boolean(_)) => {}
            ("integer", DeValue::Integer(number)) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let (least, most) = (schema["minimum"].as_i64().unwrap_or(i64::MIN), schema["maximum"].as_i64().unwrap_or(i64::MAX));
                let most = match schema["format"].as_str() {
                    Some("uint16") => most.min(u16::MAX.into()),
                    Some("uint32") => most.min(u32::MAX.into()),
                    _ => most,
                };
                if number.is_none_or(|number| number < least || number > most) {
                    self.add(&value.span(), "is out of range".to_owned(), format!("use a whole number from {least} to {most}"));
                }
            }
            _ => self.wrong_type(value, schema),
        }
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, schema: &Value) {
        let written = self.text.get(value.span()).map(shown).unwrap_or_default();
        self.add(&value.span(), format!("{written} is of the wrong type"), describe(schema));
    }

    /// What is passed on as JSON: all of TOML but times and numbers that JSON does not have.
    fn anything(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Datetime(_) => {
                self.add(&value.span(), "is a date, which JSON does not have".to_owned(), "put it into quotes".to_owned());
            }
            DeValue::Float(number) if number.as_str().parse::<f64>().is_ok_and(f64::is_finite) => {}
            DeValue::Float(_) => {
                self.add(&value.span(), "is a number that JSON does not have".to_owned(), "use a finite number".to_owned());
            }
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                self.add(&value.span(), "is out of range".to_owned(), "use a whole number of 64 bits".to_owned());
            }
            DeValue::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.path.push(place.to_string());
                    self.anything(item);
                    self.path.pop();
                }
            }
            DeValue::Table(table) => {
                for (key, member) in table {
                    self.path.push(key.get_ref().to_string());
                    self.anything(member);
                    self.path.pop();
                }
            }
            DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_) => {}
        }
    }
}

/// The type that a schema asks for.
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

/// Which of several schemas a value is meant for.
fn alternative<'s>(value: &DeValue<'_>, schema: &'s Value) -> Option<&'s Value> {
    let Some(choices) = schema.get("anyOf").and_then(Value::as_array) else { return Some(schema) };
    let choices: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").collect();
    if let [only] = choices[..] {
        return Some(only);
    }
    choices.into_iter().find(|choice| {
        matches!(
            (type_of(choice), value),
            (Some("string"), DeValue::String(_))
                | (Some("integer"), DeValue::Integer(_))
                | (Some("array"), DeValue::Array(_))
                | (Some("object"), DeValue::Table(_))
        )
    })
}

fn describe(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or("a value of another type belongs here").replace('\n', " ");
    match alternative(&DeValue::Boolean(true), schema).and_then(type_of) {
        Some(kind) => {
            let kind = match kind {
                "object" => "a table",
                "array" => "a list",
                "integer" => "a whole number",
                "boolean" => "true or false",
                _ => "a text",
            };
            format!("use {kind}: {text}")
        }
        None => text,
    }
}
