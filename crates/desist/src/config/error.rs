//! Errors that name the file, the place, the wrong value and what to write in its stead.

use std::ops::Range;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use crate::limits::ERROR_VALUE_CHARS_MAX;

/// One thing wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}:{}{}{problem}", self.place(), self.subject())]
pub struct ConfigError {
    /// The file as it was named to us.
    pub file: String,
    /// Line, from 1; 0 when the whole file is meant or the value is not in it.
    pub line: usize,
    /// Column in characters, from 1; 0 as above.
    pub column: usize,
    /// The key as a dotted path; empty for the file itself.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl ConfigError {
    /// An error of the whole file.
    pub(super) fn file(file: &str, problem: String) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, field: String::new(), problem }
    }

    /// An error at a byte of `text`.
    pub(super) fn at(file: &str, text: &str, offset: usize, field: &str, problem: String) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
        let line = before.split(|b| *b == b'\n').count();
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Self { file: file.to_owned(), line, column, field: field.to_owned(), problem }
    }

    fn place(&self) -> String {
        if self.line == 0 { " ".to_owned() } else { format!("{}:{}: ", self.line, self.column) }
    }
    fn subject(&self) -> String {
        if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) }
    }
}

/// What may stand at each table and key. A test holds it against the schema.
pub(super) const FIELDS: &[(&str, &str)] = &[
    ("campaign", "a table [campaign]"),
    ("campaign.compat", r#""adobe" or "strict""#),
    ("campaign.fields", "one [[campaign.fields]] table for each custom field, at most 100"),
    (
        "campaign.fields.name",
        r#""cus", an upper-case letter or digit, then letters and digits, at most 64 bytes, such as "cusShoeSize", each name once whatever its case"#,
    ),
    ("campaign.fields.type", r#""string", "number", "boolean", "date" or "enumeration""#),
    ("campaign.fields.label", r#"a text such as "Shoe size" of at most 128 bytes"#),
    ("campaign.fields.length", r#"a whole number from 1 to 255, with type = "string" only"#),
    (
        "campaign.fields.values",
        r#"a list of 1 to 200 names of 1 to 64 of A-Z a-z 0-9 _ such as ["small", "large"], each once, with type = "enumeration" only"#,
    ),
    ("campaign.fields.searchable", r#"true or false; true on at most 8 fields, with type "string", "date" or "enumeration" only"#),
    ("vault", "a table [vault]"),
    ("vault.searchable", r#"a list of "email", "firstName", "lastName" and custom fields with searchable = true, each once"#),
    ("business", "a table [business]"),
    ("business.name", r#"a text such as "Acme, Inc." of at most 200 bytes"#),
    ("business.time_zone", r#"an IANA name such as "America/Los_Angeles""#),
    ("sites", "one [[sites]] table for each site, at most 1000"),
    ("sites.id", r#"1 to 64 of a-z 0-9 - _ . such as "shop", each id once"#),
    ("sites.url", r#"the site's public URL such as "https://shop.example""#),
    ("sites.device_identifiers", r#"a list of "cookie_id", "device_id", "maid", each once"#),
    ("purposes", "one [[purposes]] table for each purpose, at most 48"),
    ("purposes.name", r#"1 to 64 of a-z 0-9 _ that start with a letter, such as "email_marketing", each name once"#),
    ("purposes.model", r#""opt_out" or "opt_in""#),
    ("purposes.description", "a text of at most 1000 bytes"),
    ("policy", "a table [policy]"),
    ("policy.api_opt_in", r#""own" or "refuse""#),
    ("destinations", "one [[destinations]] table for each destination, at most 1000"),
    ("destinations.id", r#"1 to 64 of a-z 0-9 and hyphens such as "crm", each id once"#),
    ("destinations.connector", r#"the id of a connector that comes with desist such as "webhook", or manifest in its stead"#),
    ("destinations.manifest", r#"the path of a connector manifest such as "connectors/my-crm.toml", or connector in its stead"#),
    ("destinations.class", r#""third_party", "service_provider", "contractor" or "internal""#),
    (
        "destinations.purposes",
        r#"a list of purposes that the connector has opt-outs for such as ["sale", "sharing"], each once, or leave it out"#,
    ),
    (
        "destinations.settings",
        r#"a table [destinations.settings] with what `desist connector show` lists, secrets as { env = "NAME" } or { file = "PATH" }"#,
    ),
    ("destinations.allow_private", "true or false"),
    ("destinations.approve", r#"["delete"] if its connector may erase people's data, or leave it out"#),
    ("destinations.dry_run", "true or false; true only if its connector has a dry run"),
    ("destinations.required", r#""accepted", "applied" or "verified", and no more than its connector proves"#),
    ("destinations.patrol", r#"a time from 1s to 90d such as "7d" or "12h""#),
    ("destinations.resend_every", r#"a time from 1s to 90d such as "30d""#),
    ("destinations.timeout", r#"a time from 1s to 29s such as "10s""#),
    ("destinations.rate", r#"a list such as ["300/1m", "5000/1d"], at most 4 together with those of its connector, and none above them"#),
    ("destinations.concurrency", "a whole number from 1 to 64, no more than its connector allows"),
    ("destinations.linger", r#"a time from 1s to 1h such as "30s""#),
    ("destinations.attempts", "a whole number from 1 to 16"),
    ("destinations.owner", r#"a name such as "Privacy desk" of at most 200 bytes, with a connector whose transport is manual"#),
    ("destinations.task", "a text of at most 2000 bytes, with a connector whose transport is manual"),
    ("witnesses", "one [[witnesses]] table for each witness, at most 16"),
    ("witnesses.url", r#"the https URL of the witness such as "https://witness.example", or an http one with allow_private = true"#),
    ("witnesses.key", r#"the key that the witness publishes such as "witness.example/w1+1a2b3c4d+BA...", each key once"#),
    ("witnesses.allow_private", "true or false"),
    ("alerts", "a table [alerts] with url and secret"),
    ("alerts.url", r#"the https URL of the receiver such as "https://alerts.example/desist", or an http one with allow_private = true"#),
    (
        "alerts.secret",
        r#"a table that says where the secret is, { env = "DESIST_ALERTS_SECRET" } or { file = "alerts.secret" }, and never the secret itself"#,
    ),
    ("alerts.allow_private", "true or false"),
    ("server", "a table [server]"),
    ("server.public", r#"an IP address and port such as "127.0.0.1:8080""#),
    ("server.private", r#"an IP address and port such as "127.0.0.1:8081""#),
    ("server.public_url", r#"the URL that consumers reach such as "https://privacy.example""#),
    ("server.private_url", r#"the URL that your systems reach such as "https://desist.internal:8443""#),
    ("server.trusted_proxies", r#"a list of at most 256 CIDR blocks such as ["10.0.0.0/8"]"#),
    ("server.insecure_private", "true or false"),
    ("server.public_tls", "a table [server.public_tls] with cert and key"),
    ("server.public_tls.cert", r#"the path of a PEM file such as "tls/public.crt""#),
    ("server.public_tls.key", r#"the path of a PEM file such as "tls/public.key""#),
    ("server.private_tls", "a table [server.private_tls] with cert and key"),
    ("server.private_tls.cert", r#"the path of a PEM file such as "tls/private.crt""#),
    ("server.private_tls.key", r#"the path of a PEM file such as "tls/private.key""#),
    ("limits", "a table [limits]"),
    ("limits.requests_per_minute_per_key", "a whole number from 1 to 4294967295, or leave it out"),
];

/// The keys that say where a secret is. People write the secret itself there, so what is there is never shown.
const SECRETS: &[&str] = &["alerts.secret"];
/// A table in which any key can be that of a secret.
const SETTINGS: &str = "destinations.settings";
/// What may stand at a key of such a table.
const SETTING: &str =
    r#"what `desist connector show` says of it, and for a secret a table that says where it is, { env = "NAME" } or { file = "PATH" }"#;

/// Whether `field` is or is in a table in which any key can be that of a secret.
fn is_setting(field: &str) -> bool {
    field.strip_prefix(SETTINGS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The key of a secret that `field` is or is in.
fn secret_of(field: &str) -> Option<&'static str> {
    SECRETS.iter().find(|secret| field.strip_prefix(**secret).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))).copied()
}

/// What may stand at `field`.
pub(super) fn allowed(field: &str) -> &'static str {
    let other = if is_setting(field) { SETTING } else { "a value of the documented type" };
    FIELDS.iter().find(|(name, _)| *name == field).map_or(other, |(_, allowed)| allowed)
}

/// ` (did you mean "x"?)` if one of the candidates is close to the word.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    // Longer words are no slips of the finger, and the distance is quadratic.
    if word.len() > 64 {
        return String::new();
    }
    let word = word.to_ascii_lowercase();
    candidates
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .map_or_else(String::new, |(_, candidate)| format!(" (did you mean {candidate:?}?)"))
}

/// Edit distance in bytes, insertions, deletions and replacements.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The written value, shortened to what an error line can hold.
pub(super) fn shorten(written: &str) -> String {
    let mut line = written.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "?");
    // A key that stands where no secret belongs at all.
    if let Some(secret) = line.find("whsec_") {
        line.replace_range(secret.., "whsec_...");
    }
    match line.char_indices().nth(ERROR_VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// The error that the TOML parser met.
pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    let message = error.message();
    let fix = match message {
        "duplicate key" => "write each key and table once",
        _ => "see https://toml.io for how to write it",
    };
    let start = text.as_bytes()[..offset].iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    // In the settings of a destination every value can be a secret.
    let header = text[..start].lines().rfind(|line| line.trim_start().starts_with('['));
    let is_among_settings = line.contains("settings") || header.is_some_and(|header| header.contains("settings"));
    let reads = match line.split_once(['=', ':']) {
        Some((key, _)) if is_among_settings || key.to_ascii_lowercase().contains("secret") => String::new(),
        _ => format!("; the line reads: {}", shorten(line)),
    };
    ConfigError::at(file, text, offset, "", format!("not valid TOML: {message}; {fix}{reads}"))
}

/// A table where none belongs or none where one does. Serde would read a list as a table's values in order.
pub(super) fn shape(file: &str, text: &str, doc: &DeTable<'_>) -> Option<ConfigError> {
    let is_table = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().is_table();
    FIELDS.iter().find_map(|(field, allowed)| {
        let value = values_at(doc, field).into_iter().find(|value| match value.get_ref() {
            DeValue::Array(items) if header(field).starts_with("[[") => !items.iter().all(is_table),
            DeValue::Table(_) => !allowed.starts_with("a table"),
            _ => allowed.starts_with("a table") || header(field).starts_with("[["),
        })?;
        let problem = match (secret_of(field), text.get(value.span()).map(shorten)) {
            (Some(_), _) => format!("a secret does not belong into this file; use {allowed}"),
            (None, _) if is_setting(field) => format!("is of the wrong type; use {allowed}"),
            (None, written) => format!("{} is of the wrong type; use {allowed}", written.unwrap_or_default()),
        };
        Some(ConfigError::at(file, text, value.span().start, field, problem))
    })
}

/// Every value at a dotted path without indexes: one for each table of the lists on the way.
fn values_at<'a, 'd>(doc: &'a DeTable<'d>, path: &str) -> Vec<&'a toml::Spanned<DeValue<'d>>> {
    let mut tables = vec![doc];
    let mut values = Vec::new();
    for key in path.split('.') {
        values = tables.iter().filter_map(|table| table.get(key)).collect();
        tables = Vec::new();
        for value in &values {
            match value.get_ref() {
                DeValue::Array(items) => tables.extend(items.iter().filter_map(|item| item.get_ref().as_table())),
                one => tables.extend(one.as_table()),
            }
        }
    }
    values
}

/// The error that a value's type met, in our words.
pub(super) fn value(file: &str, text: &str, doc: &DeTable<'_>, error: &toml::de::Error) -> ConfigError {
    let message = error.message();
    let span = error.span().unwrap_or(0..0);
    let field = find(doc, "", &span).unwrap_or_default();
    let at = |field: &str, problem| ConfigError::at(file, text, span.start, field, problem);
    if let Some(secret) = secret_of(&field) {
        return at(secret, format!("does not say where the secret is; use {}", allowed(secret)));
    }
    if is_setting(&field) {
        let known = ["does not say where a secret is", "is of the wrong type"].into_iter().find(|known| message.starts_with(known));
        return at(&field, format!("{}; use {}", known.unwrap_or("is of the wrong type"), allowed(&field)));
    }
    let quoted = |index: usize| message.split('`').nth(index).unwrap_or_default();
    if message.starts_with("unknown field") {
        return at(&field, unknown_key(&field));
    }
    if message.starts_with("missing field") {
        let field = join(&field, quoted(1));
        return at(&field, format!("missing; use {}", allowed(&field)));
    }
    let written = text.get(span.clone()).map(shorten).unwrap_or_default();
    let allowed = allowed(&field);
    let problem = if message.starts_with("unknown variant") {
        let choices = message.rsplit_once(", expected").map_or("", |(_, choices)| choices);
        let near = did_you_mean(quoted(1), choices.split('`').skip(1).step_by(2));
        format!("unknown value {written}{near}; use {allowed}")
    } else if ["invalid type", "invalid length", "wanted"].iter().any(|start| message.starts_with(start)) {
        format!("{written} is of the wrong type; use {allowed}")
    } else if message.starts_with("invalid value") {
        format!("{written} is out of range; use {allowed}")
    } else if message.contains("socket address") {
        format!("{written} is not an IP address with a port; use {allowed}")
    } else if message.starts_with('"') {
        format!("{message}; use {allowed}")
    } else {
        format!("{written} {message}; use {allowed}")
    };
    at(&field, problem)
}

/// What is wrong with a key that no table of that name knows.
fn unknown_key(field: &str) -> String {
    let (table, key) = field.rsplit_once('.').unwrap_or(("", field));
    let known: Vec<_> = FIELDS.iter().filter_map(|(name, _)| child(table, name)).collect();
    let by_itself = !table.is_empty() && FIELDS.iter().any(|(name, _)| *name == key);
    let elsewhere = FIELDS.iter().filter_map(|(name, _)| name.rsplit_once('.').filter(|(_, last)| *last == key));
    let elsewhere: Vec<_> = elsewhere.map(|(table, _)| header(table)).collect();
    let near = match () {
        () if by_itself => format!("; {} stands by itself, not inside another table", header(key)),
        () if table == "destinations" => {
            format!("{}; what its connector asks for stands under [{SETTINGS}]", did_you_mean(key, known.iter().copied()))
        }
        () if elsewhere.is_empty() => did_you_mean(key, known.iter().copied()),
        () => format!("; it belongs under {}", elsewhere.join(" or ")),
    };
    let place = if table.is_empty() { "tables".to_owned() } else { format!("keys of {}", header(table)) };
    format!("unknown key {:?}{near}; known {place}: {}", shorten(key), known.join(", "))
}

/// How a table's header is written.
pub(super) fn header(table: &str) -> String {
    if matches!(table, "campaign.fields" | "sites" | "purposes" | "destinations" | "witnesses") {
        format!("[[{table}]]")
    } else {
        format!("[{table}]")
    }
}

/// The last name of `field` if it stands directly in `table`.
fn child<'a>(table: &str, field: &'a str) -> Option<&'a str> {
    let (parent, name) = field.rsplit_once('.').unwrap_or(("", field));
    (parent == table).then_some(name)
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The dotted path, without indexes, of the key or value at `span`.
fn find(table: &DeTable<'_>, path: &str, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let here = join(path, key.get_ref());
        if key.span() == *span {
            return Some(here);
        }
        find_value(value.get_ref(), &value.span(), &here, span)
    })
}

fn find_value(value: &DeValue<'_>, at: &Range<usize>, path: &str, span: &Range<usize>) -> Option<String> {
    let inner = match value {
        DeValue::Table(table) => find(table, path, span),
        DeValue::Array(array) => array.iter().find_map(|item| find_value(item.get_ref(), &item.span(), path, span)),
        _ => None,
    };
    inner.or_else(|| (at.start <= span.start && span.end <= at.end && span.start < at.end).then(|| path.to_owned()))
}

/// The place of the value at a dotted path with indexes, or of the nearest table around it.
pub(super) fn locate(doc: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let mut found = None;
    let mut steps = path.split('.');
    let (key, mut value) = doc.get_key_value(steps.next()?)?;
    found.replace(if value.get_ref().is_table() { key.span() } else { value.span() });
    for step in steps {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(step),
            DeValue::Array(array) => step.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
        found = Some(value.span());
    }
    found
}
