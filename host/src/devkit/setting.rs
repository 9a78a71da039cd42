//! Settings of a plugin as authors write them in `plugin.toml` and in case files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::Settings;

/// A value, or the file that holds the value. `Debug` hides the value, which may be a secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a setting must be a string, or { file = \"path\" }")]
pub(super) enum Setting {
    Value(String),
    File { file: PathBuf },
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("…"),
            Self::File { file } => fmt::Debug::fmt(file, f),
        }
    }
}

/// The settings by their names.
pub(super) type Written = BTreeMap<String, Setting>;

/// Converts written settings into the settings of a plugin. Relative paths begin at `folder`.
pub(super) fn settings(written: &Written, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    for (name, setting) in written {
        match setting {
            Setting::Value(value) => settings.set(name.clone(), value.clone()),
            Setting::File { file } => settings.set_file(name.clone(), folder.join(file)),
        }
    }
    settings
}
