//! Errors in a configuration, and the places where settings were given.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::de::DeValue;

/// A setting that is refused. The error shows the place where it was given, its key, its value and the allowed values.
/// It never shows the value of a plugin's setting, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: Place,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(place: Place, problem: impl Into<String>) -> Self {
        Self { place, problem: problem.into() }
    }

    /// Returns the error without its place.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// The place where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// No place: the setting has its default.
    Default,
    /// The configuration file and, if known, the line, counted from 1.
    File(PathBuf, Option<usize>),
    /// The name of a flag or environment variable.
    Override(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("defaults"),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Override(name) => f.write_str(name),
        }
    }
}

/// A value that is refused, while its key is not known yet.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The position below the key: `[2]` in a list, `.NAME` in a table.
    below: String,
    value: Option<String>,
    problem: String,
}

impl Wrong {
    /// Creates an error that shows `value`.
    pub(super) fn new(value: &DeValue<'_>, problem: impl Into<String>) -> Self {
        Self { below: String::new(), value: Some(show(value)), problem: problem.into() }
    }

    /// Creates an error for a value that may be secret and is not shown.
    pub(super) fn secret(problem: impl Into<String>) -> Self {
        Self { below: String::new(), value: None, problem: problem.into() }
    }

    /// Says that the refused value is an element of a list.
    pub(super) fn in_list(mut self, index: usize) -> Self {
        self.below = format!("[{index}]{}", self.below);
        self
    }

    /// Says that the refused value is an entry of a table.
    pub(super) fn in_table(mut self, name: &str) -> Self {
        self.below = format!("{}{}", join(".", name), self.below);
        self
    }

    /// Returns the complete error, with the key and its place.
    pub(super) fn at(self, place: Place, key: &str) -> ConfigError {
        let Self { below, value, problem } = self;
        let value = value.map(|value| format!(" = {value}")).unwrap_or_default();
        ConfigError::new(place, format!("{key}{below}{value}: {problem}"))
    }
}

/// Returns `path.name`, with the name in quotes where TOML requires them.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let dot = if path.is_empty() || path.ends_with('.') { "" } else { "." };
    if !name.is_empty() && name.chars().all(bare) {
        format!("{path}{dot}{name}")
    } else {
        format!("{path}{dot}{name:?}")
    }
}

/// Formats a value for an error message: short, and on one line. The content of tables is not shown, since it may be
/// plugin settings.
fn show(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let items: Vec<_> = list.iter().map(|item| show(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "{…}".to_owned(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The places where keys were set, by their dotted names.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// Records where a key was set.
    pub(super) fn set(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }

    /// Returns the place of the first of `keys` that was set at all. An error about several keys is shown at this
    /// place.
    pub(super) fn of(&self, keys: &[&str]) -> Place {
        keys.iter().find_map(|key| self.0.get(*key)).cloned().unwrap_or(Place::Default)
    }
}
