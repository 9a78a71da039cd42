//! Prints a [`Config`] as a commented file, and all settings as a table for the documentation.

use std::fmt::Write as _;

use super::error::join;
use super::section::{Row, Section};
use super::{ApiTokenConfig, Config, ListenerName, PluginConfig};

/// Comments are wrapped to this width.
const WIDTH: usize = 110;

const HEADER: &str = "\
# All settings of hotgate: each key with its meaning, its allowed values, its default and its value.
# A key that is missing has its default. Unknown keys are refused.
# A size is in bytes or has a unit: KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB are powers of 1000.
# `hotgate config check` checks a file, `hotgate config print` prints the settings in effect.
";

/// The listener whose certificates are explained.
const LISTENER: &str = ListenerName::WebSocket.as_str();

const TOKENS: &str = "
# The tokens of the HTTP push API, one table [[api.token]] for each. A change takes effect at once. Without any, the
# token in the file api-token of the state folder has every scope.
";

const CHAIN: &str = "
# The plugins that decide who a client is. They are called in this order, until one accepts or denies.
";

const ROUTER: &str = "
# The plugin that decides who gets a message. Its limits have the same meaning as an authenticator's.
[router]
";

impl Config {
    /// Returns the configuration as a commented file. Loading this file gives an equal configuration.
    pub fn to_toml(&self) -> String {
        let mut file = File { text: HEADER.to_owned(), explain: true, start: "" };
        let defaults = Self::default();
        file.text.push('\n');
        file.keys(self, &defaults);
        file.tables("", self, &defaults);
        file.text.push_str(TOKENS);
        let tokens: Vec<_> = self.api.tokens.iter().map(|token| token as &dyn Section).collect();
        file.list("api.token", &tokens, &ApiTokenConfig::default());
        file.text.push_str(CHAIN);
        for plugin in &self.authenticators {
            file.text.push_str("\n[[authenticator]]\n");
            file.keys(plugin, &PluginConfig::default());
            file.tables("authenticator", plugin, &PluginConfig::default());
            file.explain = false;
        }
        file.text.push_str(ROUTER);
        file.explain = true;
        file.keys(&self.router, &defaults.router);
        file.explain = false;
        file.tables("router", &self.router, &defaults.router);
        file.text
    }
}

struct File {
    text: String,
    /// True if keys are printed with comments. Keys that all plugins have are explained at the first plugin only.
    explain: bool,
    /// The start of every line with a key: `# ` in an example.
    start: &'static str,
}

impl File {
    /// Writes a list of tables. Without any, writes an example.
    fn list(&mut self, key: &str, tables: &[&dyn Section], default: &dyn Section) {
        let explain = self.explain;
        self.start = if tables.is_empty() { "# " } else { "" };
        let example = [default];
        for table in if tables.is_empty() { &example } else { tables } {
            let _ = writeln!(self.text, "\n{}[[{key}]]", self.start);
            self.keys(*table, default);
            self.explain = false;
        }
        (self.explain, self.start) = (explain, "");
    }

    fn keys(&mut self, section: &dyn Section, defaults: &dyn Section) {
        for (index, (row, default)) in section.rows().into_iter().zip(defaults.rows()).enumerate() {
            if self.explain {
                self.text.push_str(if index > 0 { "\n" } else { "" });
                self.comment(row.meaning);
                self.comment(&format!("Must be {}. Default: {}.", row.allowed, default.value));
            }
            let _ = writeln!(self.text, "{}{} = {}", self.start, row.key, row.value);
        }
    }

    /// Writes the tables below `section`, whose name is `path`.
    fn tables(&mut self, path: &str, section: &dyn Section, defaults: &dyn Section) {
        for ((name, section), (_, defaults)) in section.sections().into_iter().zip(defaults.sections()) {
            let path = join(path, name);
            let _ = writeln!(self.text, "\n[{path}]");
            self.keys(section, defaults);
            let (explain, lists) = (self.explain, section.lists());
            // The certificates of all listeners have the same keys. They are explained once.
            self.explain = explain && (lists.is_empty() || path == LISTENER);
            for (name, list) in lists {
                self.list(&join(&path, name), &list.tables(), &*list.default());
            }
            self.tables(&path, section, defaults);
            self.explain = explain;
        }
    }

    fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(self.text, "{line}");
                line.truncate(1);
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(self.text, "{line}");
    }
}

/// Returns all keys with their defaults, allowed values and meanings, as a Markdown table.
pub fn settings_table() -> String {
    let config = Config::default();
    let mut out = "| key | default | allowed values | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    markdown(&mut out, "", &config);
    markdown(&mut out, "api.token", &ApiTokenConfig::default());
    markdown(&mut out, "authenticator", &PluginConfig::default());
    // The router's other keys are the same as an authenticator's.
    for row in config.router.rows() {
        markdown_row(&mut out, "router", &row);
    }
    for (name, _) in config.router.sections() {
        let _ = writeln!(out, "| `router.{name}.*` | | | Same as `authenticator.{name}.*`. |");
    }
    out
}

fn markdown(out: &mut String, path: &str, section: &dyn Section) {
    for row in section.rows() {
        markdown_row(out, path, &row);
    }
    for (name, list) in section.lists() {
        markdown(out, &join(path, name), &*list.default());
    }
    for (name, section) in section.sections() {
        markdown(out, &join(path, name), section);
    }
}

fn markdown_row(out: &mut String, path: &str, row: &Row) {
    let key = join(path, row.key);
    let _ = writeln!(out, "| `{key}` | `{}` | {} | {} |", row.value, row.allowed, row.meaning);
}
