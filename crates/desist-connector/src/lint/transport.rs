//! The settings that a transport reads itself: which there are, of which type, and which it cannot do without.

use super::{Compiler, at};
use crate::declared::{SettingKind, Transport};

/// A setting: its name, its type, and whether the transport needs it.
type Key = (&'static str, SettingKind, bool);

/// What every transport of files reads.
const FILES: &[Key] =
    &[("format", SettingKind::Enum, true), ("values", SettingKind::Enum, true), ("snapshot_every", SettingKind::String, true)];
const KEEP: Key = ("keep_days", SettingKind::Int, true);
const SQL: &[Key] = &[("url", SettingKind::Secret, true), ("table", SettingKind::String, true), ("ca", SettingKind::String, false)];
const FILE: &[Key] = &[("directory", SettingKind::Path, true), KEEP];
const S3: &[Key] = &[
    ("endpoint", SettingKind::String, true),
    ("bucket", SettingKind::String, true),
    ("prefix", SettingKind::String, false),
    ("region", SettingKind::String, true),
    ("access_key", SettingKind::String, true),
    ("secret_key", SettingKind::Secret, true),
];
const SFTP: &[Key] = &[
    ("host", SettingKind::String, true),
    ("port", SettingKind::Int, true),
    ("host_key", SettingKind::String, true),
    ("username", SettingKind::String, true),
    ("private_key", SettingKind::Secret, false),
    ("password", SettingKind::Secret, false),
    ("directory", SettingKind::Path, true),
    KEEP,
];

/// The settings that a transport reads itself.
fn keys(transport: Transport) -> impl Iterator<Item = &'static Key> {
    let (own, files): (&[Key], &[Key]) = match transport {
        Transport::Http | Transport::Manual => (&[], &[]),
        Transport::Sql => (SQL, &[]),
        Transport::File => (FILE, FILES),
        Transport::S3 => (S3, FILES),
        Transport::Sftp => (SFTP, FILES),
    };
    own.iter().chain(files)
}

impl Compiler<'_> {
    /// Settings that no template has, since the transport reads them.
    pub(super) fn transport_settings(&mut self) {
        for (name, kind, is_needed) in keys(self.declared.connector.transport) {
            let path = at(&[], ["settings", name]);
            let Some(setting) = self.declared.settings.get(*name) else {
                if *is_needed {
                    self.add(&path, "is missing", "this transport reads it; see docs/connector-spec.md for its settings");
                }
                continue;
            };
            self.used.insert((*name).to_owned());
            if setting.kind != *kind {
                self.add(&path, "has another type", format!("this transport reads it as \"{}\"", kind.name()));
            } else if *is_needed && !setting.required && setting.default.is_none() {
                self.add(&path, "the setting may be missing", "make it required, or give it a default");
            }
        }
    }
}
