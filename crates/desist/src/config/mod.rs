//! The file `desist.toml`: its types, its errors, its reference page and the file a new data directory gets.

mod destinations;
mod docs;
mod error;
mod fields;
mod secret;
#[cfg(test)]
mod tests;
mod types;

use std::{collections::HashSet, fs::File, io::Read, path::Path, sync::Arc};

use desist_core::purpose::BUILT_IN;
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

pub use self::{
    destinations::{Approval, Destination, Period, Required, SettingValue, opt_outs, shipped},
    docs::{reference_markdown, starter_file},
    error::ConfigError,
    secret::{SecretMissing, SecretSource},
    types::{
        Alerts, ApiOptIn, BaseUrl, Business, Campaign, Compat, Config, CustomField, DeviceKind, ExactUrl, FieldKind, Limits, Policy,
        Purpose, Server, Site, TlsFiles, Vault, Witness, WitnessKey,
    },
};
use crate::limits::{
    BUSINESS_NAME_BYTES_MAX, CONFIG_BYTES_MAX, CUSTOM_FIELDS_MAX, PURPOSE_DESCRIPTION_BYTES_MAX, PURPOSE_NAME_BYTES_MAX, PURPOSES_MAX,
    SITE_ID_BYTES_MAX, SITES_MAX, TRUSTED_PROXIES_MAX, WITNESSES_MAX,
};

/// The text that a configuration was read from.
#[derive(Clone, Debug, Default)]
struct Source {
    file: String,
    text: Arc<str>,
}

/// Two configurations are equal if they say the same, wherever they were written.
impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Source {
    /// An error at the value of a dotted path with indexes; without a place if the file has no such value.
    fn error(&self, doc: Option<&DeTable<'_>>, path: &str, problem: String) -> ConfigError {
        let field: Vec<_> = path.split('.').filter(|step| step.parse::<usize>().is_err()).collect();
        let field = field.join(".");
        match doc.and_then(|doc| error::locate(doc, path)) {
            Some(span) => ConfigError::at(&self.file, &self.text, span.start, &field, problem),
            None => ConfigError { field, ..ConfigError::file(&self.file, problem) },
        }
    }

    /// Errors at several paths.
    fn errors(&self, found: Vec<(String, String)>) -> Vec<ConfigError> {
        let doc = DeTable::parse(&self.text).ok();
        let doc = doc.as_ref().map(toml::Spanned::get_ref);
        found.into_iter().map(|(path, problem)| self.error(doc, &path, problem)).collect()
    }
}

/// A wrong value as an error line shows it.
fn shown(text: &str) -> String {
    format!("{:?}", error::shorten(text))
}

impl Config {
    /// Reads and checks a file. Relative paths in it start at its directory.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let label = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
            .map_err(|e| ConfigError::file(&label, format!("cannot be read: {e}; check the path and its permissions")))?;
        let mut config = Self::from_bytes(&bytes, &label)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for tls in [&mut config.server.public_tls, &mut config.server.private_tls].into_iter().flatten() {
            tls.cert = dir.join(&tls.cert);
            tls.key = dir.join(&tls.key);
        }
        if let Some(alerts) = &mut config.alerts {
            alerts.secret.start_at(dir);
        }
        config.read_manifests(dir).map_err(|found| config.refusal(found))?;
        Ok(config)
    }

    /// Checks the bytes of a file; errors name it `label`.
    pub fn from_bytes(bytes: &[u8], label: &str) -> Result<Self, ConfigError> {
        if bytes.len() > CONFIG_BYTES_MAX {
            let problem = format!("is longer than {CONFIG_BYTES_MAX} bytes; is it the right file?");
            return Err(ConfigError::file(label, problem));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let offset = e.valid_up_to();
            let valid = std::str::from_utf8(&bytes[..offset]).expect("the error says that it is valid up to here");
            let byte = bytes[offset];
            let problem = format!("not UTF-8: byte 0x{byte:02x} at offset {offset}; save the file as UTF-8");
            ConfigError::at(label, valid, offset, "", problem)
        })?;
        Self::parse(text, label)
    }

    /// Checks the text of a file; errors name it `label`.
    pub fn parse(text: &str, label: &str) -> Result<Self, ConfigError> {
        let doc = DeTable::parse(text).map_err(|e| error::syntax(label, text, &e))?;
        if let Some(error) = error::shape(label, text, doc.get_ref()) {
            return Err(error);
        }
        let mut config = Self::deserialize(Deserializer::from(doc.clone())).map_err(|e| error::value(label, text, doc.get_ref(), &e))?;
        config.source = Source { file: label.to_owned(), text: text.into() };
        match config.first_problem() {
            Some(found) => Err(config.refusal(found)),
            None => Ok(config),
        }
    }

    /// An error at a bad value, with what to write in its stead.
    fn refusal(&self, (path, problem): (String, String)) -> ConfigError {
        let field: Vec<_> = path.split('.').filter(|step| step.parse::<usize>().is_err()).collect();
        let problem = format!("{problem}; use {}", error::allowed(&field.join(".")));
        self.source.errors(vec![(path, problem.clone())]).pop().unwrap_or_else(|| ConfigError::file(&self.source.file, problem))
    }

    /// What types alone cannot say: the path of the first bad value, and what is bad about it.
    fn first_problem(&self) -> Option<(String, String)> {
        let problem = |path: &str, text: String| Some((path.to_owned(), text));
        if self.business.name.as_ref().is_some_and(|n| n.trim().is_empty() || n.len() > BUSINESS_NAME_BYTES_MAX) {
            return problem("business.name", "is empty or too long".to_owned());
        }
        for (path, len, max) in [
            ("campaign.fields", self.campaign.fields.len(), CUSTOM_FIELDS_MAX),
            ("sites", self.sites.len(), SITES_MAX),
            ("purposes", self.purposes.len(), PURPOSES_MAX),
            ("witnesses", self.witnesses.len(), WITNESSES_MAX),
            ("server.trusted_proxies", self.server.trusted_proxies.len(), TRUSTED_PROXIES_MAX),
        ] {
            if len > max {
                return problem(path, format!("there are {len}"));
            }
        }
        let mut seen = HashSet::new();
        for (i, site) in self.sites.iter().enumerate() {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            if site.id.is_empty() || site.id.len() > SITE_ID_BYTES_MAX || !site.id.bytes().all(allowed) {
                return problem(&format!("sites.{i}.id"), format!("{} is not a site id", shown(&site.id)));
            }
            if !seen.insert(&site.id) {
                return problem(&format!("sites.{i}.id"), format!("{} stands twice", shown(&site.id)));
            }
            let kinds: HashSet<_> = site.device_identifiers.iter().collect();
            if kinds.len() < site.device_identifiers.len() {
                return problem(&format!("sites.{i}.device_identifiers"), "a kind stands twice".to_owned());
            }
        }
        let mut seen = HashSet::new();
        for (i, Purpose { name, description, .. }) in self.purposes.iter().enumerate() {
            let path = format!("purposes.{i}.name");
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > PURPOSE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
                return problem(&path, format!("{} is not a purpose name", shown(name)));
            }
            if BUILT_IN.iter().any(|(built_in, _)| built_in == name) {
                return problem(&path, format!("{name:?} is built in and needs no declaration"));
            }
            if !seen.insert(name) {
                return problem(&path, format!("{name:?} stands twice"));
            }
            if description.as_ref().is_some_and(|text| text.len() > PURPOSE_DESCRIPTION_BYTES_MAX) {
                return problem(&format!("purposes.{i}.description"), "is too long".to_owned());
            }
        }
        for (path, tls) in [("server.public_tls", &self.server.public_tls), ("server.private_tls", &self.server.private_tls)] {
            let Some(tls) = tls else { continue };
            for (key, file) in [("cert", &tls.cert), ("key", &tls.key)] {
                if file.as_os_str().is_empty() {
                    return problem(&format!("{path}.{key}"), "is empty".to_owned());
                }
            }
        }
        for (i, witness) in self.witnesses.iter().enumerate() {
            if !witness.url.is_https() && !witness.allow_private {
                return problem(&format!("witnesses.{i}.url"), format!("{} is not https", shown(witness.url.as_str())));
            }
            if self.witnesses[..i].iter().any(|other| other.key.0.public_key() == witness.key.0.public_key()) {
                return problem(&format!("witnesses.{i}.key"), "stands twice".to_owned());
            }
        }
        if let Some(alerts) = &self.alerts {
            if !alerts.url.is_https() && !alerts.allow_private {
                return problem("alerts.url", format!("{} is not https", shown(alerts.url.as_str())));
            }
            if let Some(text) = alerts.secret.problem() {
                return problem("alerts.secret", text.to_owned());
            }
        }
        self.first_field_problem().or_else(|| self.first_destination_problem())
    }

    /// Why `serve` refuses the private listener as configured, if it does.
    pub fn insecure_private_error(&self) -> Option<ConfigError> {
        let Server { private, private_tls, insecure_private, .. } = &self.server;
        if private.ip().to_canonical().is_loopback() || private_tls.is_some() || *insecure_private {
            return None;
        }
        let problem = format!(
            "{private} is reachable from other machines and would carry API keys readable; set [server.private_tls], a \
             loopback address, or insecure_private = true (--insecure-private)"
        );
        self.source.errors(vec![("server.private".to_owned(), problem)]).pop()
    }

    /// What `desist check` finds in a file that loads: settings that serve, but not as meant in production.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        let mut public = |path: String, url: &BaseUrl| {
            if url.is_loopback() {
                found.push((path, format!("{url} is a loopback URL, which no consumer can reach; use the public https URL")));
            } else if !url.is_https() {
                found.push((path, format!("{url} is not https, so that choices cross the network readable; use the https URL")));
            }
        };
        for (i, site) in self.sites.iter().enumerate() {
            public(format!("sites.{i}.url"), &site.url);
        }
        match &self.server.public_url {
            _ if self.sites.is_empty() => {}
            Some(url) => public("server.public_url".to_owned(), url),
            None => found.push((
                "server.public_url".to_owned(),
                format!(
                    "missing, so that links would start with http://{}; set it to the https URL that consumers reach",
                    self.server.public
                ),
            )),
        }
        for (i, net) in self.server.trusted_proxies.iter().enumerate().filter(|(_, net)| net.prefix_len() == 0) {
            let problem = format!("{net} trusts everybody to name any client address; list your own proxies only");
            found.push((format!("server.trusted_proxies.{i}"), problem));
        }
        if self.server.public == self.server.private && self.server.public.port() != 0 {
            let problem = format!("{} is the address of the public listener too; use another port", self.server.private);
            found.push(("server.private".to_owned(), problem));
        }
        for (path, tls) in [("server.public_tls", &self.server.public_tls), ("server.private_tls", &self.server.private_tls)] {
            if let Some(Err(e)) = tls.as_ref().map(TlsFiles::load) {
                found.push((path.to_owned(), e.to_string()));
            }
        }
        if let Some(Err(problem)) = self.alerts.as_ref().map(Alerts::key) {
            found.push(("alerts.secret".to_owned(), format!("{problem}; until it is there alerts wait")));
        }
        for (i, destination) in self.destinations.iter().enumerate() {
            if let Some(Err(problem)) = destination.manifest().map(|manifest| destination.instance(manifest)) {
                found.push((format!("destinations.{i}.settings"), format!("{problem}; until then this destination waits")));
            }
        }
        let mut errors = self.source.errors(found);
        errors.extend(self.insecure_private_error());
        errors
    }
}

/// The body of the fuzz target: whatever the bytes, reading them ends, and an error says something.
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    match Config::from_bytes(data, "desist.toml") {
        Ok(config) => {
            // The files that random bytes name are not ours to open.
            let server = Server { public_tls: None, private_tls: None, ..config.server.clone() };
            for error in (Config { server, alerts: None, destinations: Vec::new(), ..config }).check() {
                assert!(!error.problem.is_empty());
            }
        }
        Err(error) => {
            assert!(!error.problem.is_empty() && error.to_string().lines().count() <= 2, "{error}");
            assert!(error.line == 0 || error.column > 0);
        }
    }
}
