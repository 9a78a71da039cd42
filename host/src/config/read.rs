//! Reads a [`Config`] from a file and overrides.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, Places, join};
use super::files::{absolute, read_text};
use super::kinds::{Kind, SOURCE};
use super::overrides::{Override, Overrides};
use super::section::{MAX_TABLES, Section, Tables};
use super::token::MAX_TOKENS;
use super::{ApiTokenConfig, Config, PluginConfig, rules};

/// The most bytes of a configuration file.
const MAX_FILE: usize = 4 << 20;

/// The sources of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Settings that replace those of the file.
    pub overrides: Overrides,
}

/// A valid configuration. Files that its plugins need may still be missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Files of plugins, or of their settings, that cannot be read.
    pub missing: Vec<Missing>,
    /// Whether the API's listener is configured. If it is not, the gateway also starts without it.
    pub names_api: bool,
}

/// A plugin's file, or a file with the value of one of its settings, that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing {
    /// The plugin's index in the chain of authenticators; `None` for the router.
    pub authenticator: Option<usize>,
    /// A text that says which file, where it is configured, and why it cannot be read.
    pub problem: String,
}

/// A configuration whose plugin files have not been checked.
impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self { config, missing: Vec::new(), names_api: false }
    }
}

impl Source {
    /// Reads the configuration as it is now. Blocks.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), &self.overrides)
    }

    /// Reads the configuration as it is now, even if files of plugins are missing: plugins that already serve do not
    /// need them. Blocks.
    ///
    /// # Errors
    /// The first key that is unknown or has an invalid value.
    pub fn load_to_serve(&self) -> Result<Loaded, ConfigError> {
        let Reader { config, places, names_api } = read(self.file.as_deref(), &self.overrides, |_| true)?.checked()?;
        let missing = rules::files(&config, &places).into_iter();
        let missing = missing.map(|(authenticator, error)| Missing { authenticator, problem: error.to_string() });
        Ok(Loaded { missing: missing.collect(), config, names_api })
    }

    /// Reads only the settings that are needed to reach the gateway that runs with this configuration: `admin` and
    /// `state_folder`. All other keys are skipped, so that an error in them does not prevent access to that gateway.
    ///
    /// # Errors
    /// If the file does not exist or is not TOML, or if these keys have invalid values.
    pub fn load_admin(&self) -> Result<Config, ConfigError> {
        let wanted = |key: &str| ["admin", "state_folder"].contains(&key);
        read(self.file.as_deref(), &self.overrides, wanted).map(|reader| reader.config)
    }
}

impl Config {
    /// Reads a configuration: the defaults, changed by the file at `path` if there is one, then changed by `overrides`.
    /// Without a `path`, no file is searched for.
    ///
    /// # Errors
    ///
    /// The first key that is unknown or has an invalid value, or the first plugin file that cannot be read.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        read(path, overrides, |_| true)?.checked()?.complete()
    }

    /// Reads a configuration from `text`, as if `text` were the file at `path`.
    #[cfg(any(test, fuzzing))]
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        reader.file(path, text, |_| true)?;
        reader.checked()?.complete()
    }
}

/// Reads the top-level keys for which `wanted` returns `true`.
fn read(path: Option<&Path>, overrides: &Overrides, wanted: impl Fn(&str) -> bool) -> Result<Reader, ConfigError> {
    let mut reader = Reader::default();
    if let Some(path) = path {
        let text = read_text(path, MAX_FILE).map_err(|error| {
            let place = Place::File(path.to_owned(), None);
            ConfigError::new(place, format!("cannot read this file, named by --config or HOTGATE_CONFIG: {error}"))
        })?;
        reader.file(path, &text, &wanted)?;
    }
    for given in overrides.0.iter().filter(|given| wanted(given.key.split('.').next().unwrap_or_default())) {
        reader.overrule(given)?;
    }
    Ok(reader)
}

#[derive(Default)]
struct Reader {
    config: Config,
    places: Places,
    names_api: bool,
}

impl Reader {
    /// Checks that the settings fit together.
    fn checked(self) -> Result<Self, ConfigError> {
        rules::check(&self.config, &self.places)?;
        Ok(self)
    }

    /// Returns the configuration, if all files of plugins can be read.
    fn complete(self) -> Result<Config, ConfigError> {
        match rules::files(&self.config, &self.places).into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.config),
        }
    }

    /// Reads the configuration file.
    fn file(&mut self, path: &Path, text: &str, wanted: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        let file = File { path, text };
        // Only the message of the error is shown: the whole error contains the line, which may hold a secret.
        let document =
            DeTable::parse(text).map_err(|error| ConfigError::new(file.place(error.span()), error.message()))?;
        let mut config = Config::default();
        for (name, value) in in_order(document.get_ref()) {
            match name.get_ref().as_ref() {
                key if !wanted(key) => {}
                "authenticator" => config.authenticators = self.chain(&file, name, value)?,
                "router" => {
                    self.table(&file, "router", name, value, &mut config.router)?;
                    config.router.plugin.locate(file.folder()).map_err(|error| file.error(name, error))?;
                }
                "api" => {
                    for (name, value) in in_order(table(&file, "api", name, value)?) {
                        match name.get_ref().as_ref() {
                            "token" => config.api.tokens = self.tokens(&file, name, value)?,
                            _ => self.entry(&file, "api", name, value, &mut config.api)?,
                        }
                    }
                    self.names_api = true;
                }
                _ => self.entry(&file, "", name, value, &mut config)?,
            }
        }
        if let Some(folder) = &mut config.state_folder {
            let absolute = absolute(file.folder(), folder);
            *folder = absolute.map_err(|error| ConfigError::new(file.place(None), error))?;
        }
        config.locate(file.folder()).map_err(|error| ConfigError::new(file.place(None), error))?;
        self.config = config;
        Ok(())
    }

    /// Reads the list of authenticators.
    fn chain(&mut self, file: &File<'_>, name: &Name<'_>, value: &Value<'_>) -> Result<Vec<PluginConfig>, ConfigError> {
        let entries = value.get_ref().as_array().filter(|list| !list.is_empty());
        let entries = entries.ok_or_else(|| {
            file.error(name, "authenticator: must be one or more tables, each headed [[authenticator]]")
        })?;
        let mut chain = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let key = format!("authenticator[{index}]");
            let place = file.place(Some(entry.span()));
            let mut plugin = PluginConfig::default();
            let has_file = entry.get_ref().as_table().is_none_or(|table| table.contains_key("file"));
            if !has_file {
                return Err(ConfigError::new(place, format!("{key}.file: must be set: {}", SOURCE.allowed())));
            }
            self.table(file, &key, &Spanned::new(entry.span(), key.as_str().into()), entry, &mut plugin)?;
            plugin.locate(file.folder()).map_err(|error| ConfigError::new(place, error))?;
            chain.push(plugin);
        }
        Ok(chain)
    }

    /// Reads the list of the API's tokens. Blocks while their files are read.
    fn tokens(
        &mut self,
        file: &File<'_>,
        name: &Name<'_>,
        value: &Value<'_>,
    ) -> Result<Vec<ApiTokenConfig>, ConfigError> {
        let entries = value.get_ref().as_array().filter(|list| list.len() <= MAX_TOKENS);
        let entries = entries.ok_or_else(|| {
            file.error(name, format!("api.token: must be at most {MAX_TOKENS} tables, each headed [[api.token]]"))
        })?;
        let mut tokens = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("api.token[{index}]");
            let mut token = ApiTokenConfig::default();
            self.table(file, &path, &Spanned::new(entry.span(), path.as_str().into()), entry, &mut token)?;
            self.places.set(path.clone(), file.place(Some(entry.span())));
            token.complete(file.folder(), &tokens).map_err(|(key, problem)| {
                let key = join(&path, key);
                ConfigError::new(self.places.of(&[&key, &path]), format!("{key}: {problem}"))
            })?;
            tokens.push(token);
        }
        Ok(tokens)
    }

    /// Reads the table `key` into `section`.
    fn table(
        &mut self,
        file: &File<'_>,
        key: &str,
        name: &Name<'_>,
        value: &Value<'_>,
        section: &mut dyn Section,
    ) -> Result<(), ConfigError> {
        for (name, value) in in_order(table(file, key, name, value)?) {
            self.entry(file, key, name, value, section)?;
        }
        Ok(())
    }

    /// Reads one entry of the table `path` into `section`: a key, or a table below it.
    fn entry(
        &mut self,
        file: &File<'_>,
        path: &str,
        name: &Name<'_>,
        value: &Value<'_>,
        section: &mut dyn Section,
    ) -> Result<(), ConfigError> {
        let key = join(path, name.get_ref());
        let place = file.place(Some(name.span()));
        if let Some(outcome) = section.set(name.get_ref(), value.get_ref()) {
            outcome.map_err(|wrong| wrong.at(place.clone(), &key))?;
            self.places.set(key, place);
            Ok(())
        } else if let Some(below) = section.section(name.get_ref()) {
            self.table(file, &key, name, value, below)
        } else if let Some(list) = section.list(name.get_ref()) {
            self.list(file, &key, name, value, list)
        } else {
            Err(ConfigError::new(place, format!("{key}: unknown key; allowed here: {}", names(path, section))))
        }
    }

    /// Reads the tables `key` into `list`.
    fn list(
        &mut self,
        file: &File<'_>,
        key: &str,
        name: &Name<'_>,
        value: &Value<'_>,
        list: &mut dyn Tables,
    ) -> Result<(), ConfigError> {
        let wrong = || file.error(name, format!("{key}: must be at most {MAX_TABLES} tables, each headed [[{key}]]"));
        for (index, entry) in value.get_ref().as_array().ok_or_else(wrong)?.iter().enumerate() {
            let path = format!("{key}[{index}]");
            self.places.set(path.clone(), file.place(Some(entry.span())));
            let name = Spanned::new(entry.span(), path.as_str().into());
            self.table(file, &path, &name, entry, list.add().ok_or_else(wrong)?)?;
        }
        Ok(())
    }

    /// Applies one override.
    fn overrule(&mut self, given: &Override) -> Result<(), ConfigError> {
        let place = Place::Override(given.by.clone());
        let source = |key: &str, file: &str| {
            let mut source =
                SOURCE.parse(&DeValue::String(file.into())).map_err(|wrong| wrong.at(place.clone(), key))?;
            source.locate(Path::new("")).map_err(|error| ConfigError::new(place.clone(), error))?;
            Ok(source)
        };
        match given.key {
            "authenticator" => {
                let mut listed = std::mem::take(&mut self.config.authenticators);
                for (index, file) in given.values.iter().enumerate() {
                    let key = format!("authenticator[{index}].file");
                    let source = source(&key, file)?;
                    let plugin = match listed.iter().position(|plugin| plugin.source == source) {
                        Some(at) => listed.remove(at),
                        None => PluginConfig::authenticator(source),
                    };
                    self.config.authenticators.push(plugin);
                    self.places.set(key, place.clone());
                }
            }
            "router" => {
                let router = &mut self.config.router;
                for file in &given.values {
                    let source = source("router.file", file)?;
                    if router.plugin.source != source {
                        router.plugin = PluginConfig::router(source);
                    }
                    self.places.set("router.file".to_owned(), place.clone());
                }
            }
            key => {
                let unknown = || ConfigError::new(place.clone(), format!("{key}: unknown key"));
                let (section, name) = key.split_once('.').ok_or_else(unknown)?;
                self.names_api |= section == "api";
                let section = self.config.section(section).ok_or_else(unknown)?;
                let values: Vec<_> = given.values.iter().map(|value| DeValue::String(value.as_str().into())).collect();
                let value = match <[_; 1]>::try_from(values) {
                    Ok([value]) => value,
                    Err(values) => DeValue::Array(values.into_iter().map(|value| Spanned::new(0..0, value)).collect()),
                };
                let outcome = section.set(name, &value);
                outcome.ok_or_else(unknown)?.map_err(|wrong| wrong.at(place.clone(), key))?;
                self.places.set(key.to_owned(), place.clone());
                self.config.locate(Path::new("")).map_err(|error| ConfigError::new(place, error))?;
            }
        }
        Ok(())
    }
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// The configuration file, with its text.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        let before = span.and_then(|span| self.text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        Place::File(self.path.to_owned(), line)
    }

    fn error(&self, name: &Name<'_>, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(self.place(Some(name.span())), problem)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Returns the value of `key`, which must be a table.
fn table<'v, 'a>(
    file: &File<'_>,
    key: &str,
    name: &Name<'_>,
    value: &'v Value<'a>,
) -> Result<&'v DeTable<'a>, ConfigError> {
    value.get_ref().as_table().ok_or_else(|| file.error(name, format!("{key}: must be a table")))
}

/// Returns the entries of a table in the order of the file, so that the first error in the file is reported.
fn in_order<'t, 'a>(table: &'t DeTable<'a>) -> Vec<(&'t Name<'a>, &'t Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Lists the keys and tables that are allowed in the table `path`.
fn names(path: &str, section: &dyn Section) -> String {
    let keys = section.rows().into_iter().map(|row| row.key.to_owned());
    let tables = section.sections().into_iter().map(|(name, _)| format!("[{name}]"));
    let lists = section.lists().into_iter().map(|(name, _)| format!("[[{}]]", join(path, name)));
    let special: &[&str] = match path {
        "" => &["[[authenticator]]", "[router]"],
        "api" => &["[[api.token]]"],
        _ => &[],
    };
    let names: Vec<_> = keys.chain(tables).chain(lists).chain(special.iter().map(|name| (*name).to_owned())).collect();
    names.join(", ")
}
