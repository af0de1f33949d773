//! What `[[campaign.fields]]` and `[vault]` must say beyond their types, and which fields can be searched.

use std::collections::HashSet;

use super::{Config, CustomField, FieldKind, error, shown};
use crate::limits::{
    CUSTOM_FIELD_CHARS_MAX, CUSTOM_FIELD_LABEL_BYTES_MAX, CUSTOM_FIELD_NAME_BYTES_MAX, CUSTOM_FIELDS_SEARCHABLE_MAX,
    ENUMERATION_VALUE_BYTES_MAX, ENUMERATION_VALUES_MAX,
};

/// The built-in fields of a profile that `byText` and `_order` can use.
const BUILT_IN_SEARCHABLE: [&str; 3] = ["email", "lastName", "firstName"];

/// The path of the wrong value, and what is wrong about it.
type Problem = (String, String);

impl Config {
    /// The fields that `byText` and `_order` can use: first those that are sealed and searched in memory, then those that the
    /// store keeps in clear. Both lists have the built-in fields first, then the custom ones in the order of the file.
    pub fn searched(&self) -> (Vec<String>, Vec<String>) {
        self.searchable().map(str::to_owned).partition(|name| !self.vault.searchable.contains(name))
    }

    fn searchable(&self) -> impl Iterator<Item = &str> {
        let custom = self.campaign.fields.iter().filter(|field| field.searchable).map(|field| field.name.as_str());
        BUILT_IN_SEARCHABLE.into_iter().chain(custom)
    }

    /// The first bad value of the custom fields and of the vault.
    pub(super) fn first_field_problem(&self) -> Option<Problem> {
        let mut seen = HashSet::new();
        let mut searchable = 0;
        for (i, field) in self.campaign.fields.iter().enumerate() {
            let problem = |key: &str, text: String| Some((format!("campaign.fields.{i}.{key}"), text));
            let name = &field.name;
            if !is_field_name(name) {
                return problem("name", format!("{} is not a name of a custom field", shown(name)));
            }
            if !seen.insert(name.to_ascii_lowercase()) {
                return problem("name", format!("{name:?} stands twice"));
            }
            if let Some((key, text)) = field.first_problem() {
                return problem(&key, text);
            }
            searchable += usize::from(field.searchable);
            if searchable > CUSTOM_FIELDS_SEARCHABLE_MAX {
                return problem("searchable", format!("is true on more than {CUSTOM_FIELDS_SEARCHABLE_MAX} fields"));
            }
        }
        self.first_vault_problem()
    }

    fn first_vault_problem(&self) -> Option<Problem> {
        let mut seen = HashSet::new();
        self.vault.searchable.iter().enumerate().find_map(|(i, name)| {
            let problem = if !self.searchable().any(|known| known == name) {
                match self.campaign.fields.iter().find(|field| field.name == *name) {
                    Some(_) => format!("{name:?} is a custom field without searchable = true"),
                    None => format!("{} is not a searchable field{}", shown(name), error::did_you_mean(name, self.searchable())),
                }
            } else if !seen.insert(name) {
                format!("{name:?} stands twice")
            } else {
                return None;
            };
            Some((format!("vault.searchable.{i}"), problem))
        })
    }
}

impl CustomField {
    /// The most characters of a value of type string.
    pub fn chars_max(&self) -> usize {
        self.length.map_or(CUSTOM_FIELD_CHARS_MAX, |length| length.get().into())
    }

    /// The first bad value besides the name: its path from here, and what is wrong about it.
    fn first_problem(&self) -> Option<Problem> {
        let Self { name: _, kind, label, length, values, searchable } = self;
        let problem = |path: &str, text: String| Some((path.to_owned(), text));
        if label.as_ref().is_some_and(|label| label.len() > CUSTOM_FIELD_LABEL_BYTES_MAX) {
            return problem("label", "is too long".to_owned());
        }
        // What a value of the type is called, and which keys it can have.
        let (called, with_length, with_values, with_searchable) = match kind {
            FieldKind::String => ("a string", true, false, true),
            FieldKind::Number => ("a number", false, false, false),
            FieldKind::Boolean => ("a boolean", false, false, false),
            FieldKind::Date => ("a date", false, false, true),
            FieldKind::Enumeration => ("an enumeration", false, true, true),
        };
        match () {
            () if length.is_some() && !with_length => return problem("length", format!("{called} has no length")),
            () if !values.is_empty() && !with_values => return problem("values", format!("{called} has no values to choose from")),
            () if values.is_empty() && with_values => return problem("values", format!("{called} needs at least one")),
            () if *searchable && !with_searchable => return problem("searchable", format!("{called} cannot be searched")),
            () if values.len() > ENUMERATION_VALUES_MAX => return problem("values", format!("there are {}", values.len())),
            () => {}
        }
        let mut seen = HashSet::new();
        values.iter().enumerate().find_map(|(i, value)| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let text = if value.is_empty() || value.len() > ENUMERATION_VALUE_BYTES_MAX || !value.bytes().all(allowed) {
                format!("{} is not a name of a value", shown(value))
            } else if !seen.insert(value) {
                format!("{value:?} stands twice")
            } else {
                return None;
            };
            problem(&format!("values.{i}"), text)
        })
    }
}

/// Whether a custom field can have the name. No built-in field starts with `cus`, so that none can be hidden by one.
fn is_field_name(name: &str) -> bool {
    let rest = name.strip_prefix("cus").unwrap_or_default();
    rest.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit())
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
        && name.len() <= CUSTOM_FIELD_NAME_BYTES_MAX
}
