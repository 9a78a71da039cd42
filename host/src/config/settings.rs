//! The settings of plugins. The value of a setting is in the configuration or in a file of its own, which is better for
//! secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::error::Wrong;
use super::files::{absolute, read_text};
use super::kinds::Kind;

/// The most bytes of a value in a file.
const MAX_VALUE: usize = 64 << 10;

/// A plugin's settings by their names. Its `Debug` shows no values, which may be secrets.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Setting>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Setting {
    Value(String),
    /// The value is the content of this file.
    File(PathBuf),
}

/// The values of settings by their names. Its `Debug` shows the names only.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, String>);

impl Deref for Values {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}

impl Settings {
    /// Returns the values as they are now. Blocks while files are read. A byte order mark at the start and a line end
    /// at the end of a file are not part of the value.
    ///
    /// # Errors
    /// The first file that cannot be read, is empty, or has content that cannot be a setting. The error names the
    /// setting and the file, and never shows the content.
    pub fn read(&self) -> anyhow::Result<Values> {
        let value = |name: &str, setting: &Setting| match setting {
            Setting::Value(value) => Ok(value.clone()),
            Setting::File(path) => {
                read(path).with_context(|| format!("settings.{name}: cannot use the file {}", path.display()))
            }
        };
        let values = self.0.iter().map(|(name, setting)| Ok((name.clone(), value(name, setting)?)));
        values.collect::<anyhow::Result<_>>().map(Values)
    }

    /// Returns the values as they are now. Blocks while files are read. If a file cannot be used, the value in `kept`
    /// is returned.
    pub fn read_or(&self, kept: &Values) -> Values {
        let value = |name: &str, setting: &Setting| match setting {
            Setting::Value(value) => Some(value.clone()),
            Setting::File(path) => read(path).ok().or_else(|| kept.get(name).cloned()),
        };
        let values = self.0.iter().filter_map(|(name, setting)| Some((name.clone(), value(name, setting)?)));
        Values(values.collect())
    }

    /// Iterates over the files that contain values.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.values().filter_map(|setting| match setting {
            Setting::Value(_) => None,
            Setting::File(path) => Some(path.as_path()),
        })
    }

    /// Adds a setting with this value.
    pub fn set(&mut self, name: String, value: String) {
        self.0.insert(name, Setting::Value(value));
    }

    /// Adds a setting whose value is the content of this file.
    pub fn set_file(&mut self, name: String, file: PathBuf) {
        self.0.insert(name, Setting::File(file));
    }

    /// Returns `true` if there are no settings.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes relative paths of files absolute; they start at `folder`.
    pub(super) fn locate(&mut self, folder: &Path) -> Result<(), String> {
        for setting in self.0.values_mut() {
            if let Setting::File(path) = setting {
                *path = absolute(folder, path)?;
            }
        }
        Ok(())
    }
}

/// Creates settings with these values.
impl FromIterator<(String, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name, Setting::Value(value))).collect())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("…"),
            Self::File(path) => fmt::Debug::fmt(path, f),
        }
    }
}

/// Reads a value from a file.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = read_text(path, MAX_VALUE)?;
    if text.contains('\0') {
        bail!("it contains NUL");
    }
    text.truncate(text.strip_suffix('\n').map_or(text.len(), |line| line.strip_suffix('\r').unwrap_or(line).len()));
    if text.is_empty() {
        // A file that is being rewritten is empty for a moment. An empty secret would let everybody in.
        bail!("it is empty");
    }
    Ok(text)
}

/// A plugin's settings as a table. Errors never show a value, which may be a secret.
pub(super) struct SettingsTable;

impl Kind for SettingsTable {
    type Value = Settings;

    fn parse(&self, value: &DeValue<'_>) -> Result<Settings, Wrong> {
        let not_a_table = || Wrong::secret(format!("must be {}", self.allowed()));
        let table = value.as_table().ok_or_else(not_a_table)?;
        let entry = |name: &str, value: &DeValue<'_>| {
            if name.is_empty() || name.contains(['=', '\0']) {
                // The name is not shown, since it may be `NAME=value`.
                return Err(Wrong::secret("the name of a setting must not be empty or contain = or NUL"));
            }
            Ok((name.to_owned(), setting(value).map_err(|problem| Wrong::secret(problem).in_table(name))?))
        };
        table.iter().map(|(name, value)| entry(name.get_ref(), value.get_ref())).collect::<Result<_, _>>().map(Settings)
    }

    fn show(&self, settings: &Settings) -> toml::Value {
        let show = |setting: &Setting| match setting {
            Setting::Value(value) => value.clone().into(),
            Setting::File(path) => {
                toml::Value::Table([("file".to_owned(), path.display().to_string().into())].into_iter().collect())
            }
        };
        toml::Value::Table(settings.0.iter().map(|(name, setting)| (name.clone(), show(setting))).collect())
    }

    fn allowed(&self) -> String {
        "a table of strings, like { KEY = \"value\", SECRET = { file = \"path\" } }".to_owned()
    }
}

/// Reads one setting: a string, or a table with a file.
fn setting(value: &DeValue<'_>) -> Result<Setting, &'static str> {
    let text = |value: &DeValue<'_>| match value.as_str() {
        Some(text) if text.contains('\0') => Err("must not contain NUL"),
        Some(text) => Ok(text.to_owned()),
        None => Err("must be a string: write it in quotes, or { file = \"path\" } to read it from a file"),
    };
    match value.as_table() {
        None => Ok(Setting::Value(text(value)?)),
        Some(table) => match table.get("file") {
            Some(path) if table.len() == 1 => {
                let path = text(path.get_ref())?;
                if path.is_empty() { Err("file must not be empty") } else { Ok(Setting::File(path.into())) }
            }
            _ => Err("must be a string, or { file = \"path\" } and nothing else"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(bytes: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        let settings = Settings(BTreeMap::from([("KEY".to_owned(), Setting::File(path))]));
        settings.read().map(|values| values["KEY"].clone()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_holds_the_value_and_at_most_one_line_end() {
        for (bytes, value) in [
            (&b"hunter2"[..], "hunter2"),
            (b"hunter2\n", "hunter2"),
            (b"hunter2\r\n", "hunter2"),
            (b"hunter2\n\n", "hunter2\n"),
            (b" hunter 2 \nx", " hunter 2 \nx"),
            (b"\xef\xbb\xbfhunter2\r\n", "hunter2"),
        ] {
            assert_eq!(read_as(bytes).as_deref(), Ok(value));
        }
        assert_eq!(read_as(&[b'x'; MAX_VALUE]).unwrap().len(), MAX_VALUE);
    }

    #[test]
    fn what_cannot_be_a_value_is_refused_and_not_shown() {
        for (bytes, problem) in [
            (&b""[..], "it is empty"),
            (b"\n", "it is empty"),
            (b"\xef\xbb\xbf\n", "it is empty"),
            (b"\xff\xfeh\0", "it is UTF-16: save it as UTF-8"),
            (b"hunter2\0", "it contains NUL"),
            (b"hunter2\xff", "it is not UTF-8"),
            (&[b'h'; MAX_VALUE + 1], "it is larger than 65536 bytes"),
        ] {
            let error = read_as(bytes).unwrap_err();
            assert!(error.starts_with("settings.KEY: cannot use the file /") && error.ends_with(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_values() {
        let mut settings = Settings::from_iter([("KEY".to_owned(), "hunter2".to_owned())]);
        settings.0.insert("FILE".to_owned(), Setting::File("/run/secret".into()));
        assert_eq!(format!("{settings:?}"), "{\"FILE\": \"/run/secret\", \"KEY\": …}");
        assert_eq!(settings.files().collect::<Vec<_>>(), [Path::new("/run/secret")]);
        let values = Settings::from_iter([("KEY".to_owned(), "hunter2".to_owned())]).read().unwrap();
        assert_eq!(format!("{values:?}"), "{\"KEY\"}");
    }
}
