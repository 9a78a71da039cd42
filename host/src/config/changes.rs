//! The differences between two configurations.

use std::path::Path;

use super::error::join;
use super::section::Section;
use super::{Config, PluginConfig};

/// The parts of a plugin's configuration that may change while the gateway runs.
const SETTINGS: &str = "settings";
const DEPLOY: &str = "deploy";
/// The rules of TLS, which may change as well, like the certificates.
const TLS_OPTIONS: &str = "tls_options";

impl Config {
    /// Returns the keys whose values differ from `other` and take effect only at the next start.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        compare(&mut changes, "", self, other);
        for ((name, own), (_, other)) in self.listeners().into_iter().zip(other.listeners()) {
            if own.certificates.is_empty() != other.certificates.is_empty() {
                changes.push(format!("{name}.tls"));
            }
        }
        if self.authenticators.len() == other.authenticators.len() {
            for (index, (own, other)) in self.authenticators.iter().zip(&other.authenticators).enumerate() {
                compare(&mut changes, &format!("authenticator[{index}]"), own, other);
            }
        } else {
            changes.push("authenticator".to_owned());
        }
        compare(&mut changes, "router", &self.router, &other.router);
        changes
    }

    /// Iterates over the files that contain values of plugin settings, tokens or certificates.
    pub fn setting_files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.listeners().into_iter().flat_map(|(_, listener)| listener.tls_files());
        let tokens = self.api.tokens.iter().filter_map(|token| token.secret.as_deref());
        self.plugins().flat_map(|plugin| plugin.settings.files()).chain(tokens).chain(tls)
    }

    fn plugins(&self) -> impl Iterator<Item = &PluginConfig> {
        self.authenticators.iter().chain([&self.router.plugin])
    }
}

fn compare(changes: &mut Vec<String>, path: &str, own: &dyn Section, other: &dyn Section) {
    for (own, other) in own.rows().into_iter().zip(other.rows()) {
        if own.key != SETTINGS && own.value != other.value {
            changes.push(join(path, own.key));
        }
    }
    for ((name, own), (_, other)) in own.sections().into_iter().zip(other.sections()) {
        if name != DEPLOY && name != TLS_OPTIONS {
            compare(changes, &join(path, name), own, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ApiTokenConfig, PluginSource, Settings};

    #[test]
    fn what_takes_effect_at_once_is_no_change() {
        let (old, mut new) = (Config::default(), Config::default());
        new.authenticators[0].settings = Settings::from_iter([("KEY".to_owned(), "value".to_owned())]);
        new.router.plugin.deploy.canary = 5;
        new.api.tokens.push(ApiTokenConfig { secret: Some("/token".into()), ..ApiTokenConfig::default() });
        assert_eq!(new.setting_files().collect::<Vec<_>>(), [Path::new("/token")]);
        assert_eq!(old.changes(&new), Vec::<String>::new());
        new.websocket.max_message += 1;
        new.authenticators[0].limits.memory *= 2;
        new.router.plugin.source = PluginSource::File("/r.wasm".into());
        assert_eq!(old.changes(&new), ["websocket.max_message", "authenticator[0].limits.memory", "router.file"]);
        new.authenticators.push(PluginConfig::default());
        assert!(old.changes(&new).contains(&"authenticator".to_owned()));
    }
}
