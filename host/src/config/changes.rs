//! The differences between two configurations.

use std::path::Path;

use super::error::{Places, join};
use super::section::Section;
use super::{Config, ConfigError, ListenerName, PluginConfig, rules};

/// The parts of a plugin's configuration that may change while the gateway runs.
const SETTINGS: &str = "settings";
const DEPLOY: &str = "deploy";
/// The rules of TLS, which may change as well, like the certificates.
const TLS_OPTIONS: &str = "tls_options";

impl Config {
    /// Returns this configuration with the values of `new` for the keys that take effect while the gateway runs. Those
    /// of plugins and tokens are not among them, because they have their own ways.
    ///
    /// # Errors
    /// If these values do not fit the other values of this configuration, which stay until the next start.
    pub fn updated(&self, new: &Self) -> Result<Self, ConfigError> {
        let mut updated = self.clone();
        updated.limits.clone_from(&new.limits);
        (updated.log.access, updated.log.decisions) = (new.log.access, new.log.decisions);
        updated.text.allow_from.clone_from(&new.text.allow_from);
        updated.text.trusted_proxies.clone_from(&new.text.trusted_proxies);
        updated.websocket.allowed_origins.clone_from(&new.websocket.allowed_origins);
        updated.websocket.trusted_proxies.clone_from(&new.websocket.trusted_proxies);
        rules::check(&updated, &Places::default())?;
        Ok(updated)
    }

    /// Returns the keys whose values differ from `other`, except those of plugins and tokens that take effect at once.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        compare(&mut changes, "", self, other);
        for name in ListenerName::ALL {
            if self.listener(name).certificates.is_empty() != other.listener(name).certificates.is_empty() {
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
        let tls = self.listeners().flat_map(|(_, listener)| listener.tls_files());
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
    use crate::config::{AccessLog, AllowedOrigin, AllowedOrigins, ApiTokenConfig, PastRate, PluginSource, Settings};

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

    #[test]
    fn some_keys_take_effect_while_it_runs_and_the_others_wait() {
        let (old, mut new) = (Config::default(), Config::default());
        (new.log.access, new.log.decisions, new.log.uids) = (AccessLog::Ended, 5, true);
        new.limits.connections = 1;
        new.limits.past_rate = PastRate::Close;
        new.text.allow_from.push("127.0.0.1".parse::<std::net::IpAddr>().unwrap().into());
        new.websocket.trusted_proxies.push("10.0.0.0/8".parse().unwrap());
        new.websocket.allowed_origins = AllowedOrigins::Only(vec![AllowedOrigin::SameHost]);
        new.websocket.max_message -= 1;
        let updated = old.updated(&new).unwrap();
        let log = ["log.access", "log.decisions"];
        let live = ["websocket.allowed_origins", "websocket.trusted_proxies", "text.allow_from", "limits.connections"];
        assert_eq!(old.changes(&updated), [&log[..], &live, &["limits.past_rate"]].concat());
        assert_eq!(updated.changes(&new), ["log.uids", "websocket.max_message"]);
    }

    /// The file alone is right, but headers wait for the next start: foreign pages could act as users until then.
    #[test]
    fn what_does_not_fit_keys_that_wait_does_not_take_effect() {
        let (mut old, new) = (Config::default(), Config::default());
        old.websocket.pass_headers.push("cookie".to_owned());
        old.websocket.allowed_origins = AllowedOrigins::Only(vec![AllowedOrigin::SameHost]);
        let problem = old.updated(&new).unwrap_err();
        assert!(problem.problem().starts_with("websocket.pass_headers: \"cookie\" needs"), "{problem}");
    }
}
