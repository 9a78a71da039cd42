//! From a [`Config`] to text: the file that gives it, and the table of the documentation.

use std::fmt::Write as _;

use super::error::join;
use super::keys::{Row, Section};
use super::{Config, PluginConfig};

/// Comments are wrapped to this width.
const WIDTH: usize = 110;

const HEADER: &str = "\
# The settings of hotgate: every key with its value, what it means, what it may be, and its default.
# A key that is left out has its default. Unknown keys are refused.
# Sizes are in bytes, or have a unit: KiB, MiB, GiB, TiB count by 1024, and kB, MB, GB, TB by 1000.
# `hotgate config check` checks a file, `hotgate config print` prints the settings in effect.
";

const CHAIN: &str = "
# The plugins that decide who a client is: asked in this order, until one accepts or denies.
";

const ROUTER: &str = "
# The plugin that decides who gets a message. Its limits mean what an authenticator's mean.
[router]
";

impl Config {
    /// The configuration as a commented file, which loads to an equal one.
    pub fn to_toml(&self) -> String {
        let mut file = File { text: HEADER.to_owned(), explain: true };
        let defaults = Self::default();
        file.text.push('\n');
        file.keys(self, &defaults);
        file.tables("", self, &defaults);
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
    /// Whether keys have comments: what all plugins have in common is explained at the first.
    explain: bool,
}

impl File {
    fn keys(&mut self, section: &dyn Section, defaults: &dyn Section) {
        for (index, (row, default)) in section.rows().into_iter().zip(defaults.rows()).enumerate() {
            if self.explain {
                self.text.push_str(if index > 0 { "\n" } else { "" });
                self.comment(row.meaning);
                self.comment(&format!("Must be {}. Default: {}.", row.allowed, default.value));
            }
            let _ = writeln!(self.text, "{} = {}", row.key, row.value);
        }
    }

    /// Writes the tables below `section`, which is the table `path`.
    fn tables(&mut self, path: &str, section: &dyn Section, defaults: &dyn Section) {
        for ((name, section), (_, defaults)) in section.sections().into_iter().zip(defaults.sections()) {
            let path = join(path, name);
            let _ = writeln!(self.text, "\n[{path}]");
            self.keys(section, defaults);
            self.tables(&path, section, defaults);
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

/// Every key with its default, what it may be and what it means, as a Markdown table.
pub fn settings_table() -> String {
    let config = Config::default();
    let mut out = "| key | default | may be | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    markdown(&mut out, "", &config);
    markdown(&mut out, "authenticator", &PluginConfig::default());
    // The rest of the router's keys are an authenticator's.
    for row in config.router.rows() {
        markdown_row(&mut out, "router", &row);
    }
    for (name, _) in config.router.sections() {
        let _ = writeln!(out, "| `router.{name}.*` | | | As `authenticator.{name}.*`. |");
    }
    out
}

fn markdown(out: &mut String, path: &str, section: &dyn Section) {
    for row in section.rows() {
        markdown_row(out, path, &row);
    }
    for (name, section) in section.sections() {
        markdown(out, &join(path, name), section);
    }
}

fn markdown_row(out: &mut String, path: &str, row: &Row) {
    let key = join(path, row.key);
    let _ = writeln!(out, "| `{key}` | `{}` | {} | {} |", row.value, row.allowed, row.meaning);
}
