//! All settings of the gateway: reads them from `hotgate.toml`, the environment and the flags, and checks them.

#[cfg(test)]
mod bounds;
mod changes;
mod cluster;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keys;
mod kinds;
mod listener;
mod names;
mod origins;
mod overrides;
mod plugin;
mod plugin_keys;
mod plugin_source;
mod print;
mod read;
mod records;
mod rules;
mod section;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::cluster::{ClusterConfig, WithoutNats};
pub use self::error::ConfigError;
pub use self::files::{BYTE_ORDER_MARK, open_file, read_file, read_text};
pub use self::kinds::{host, host_and_port};
pub use self::listener::{
    CertificateConfig, ClientAuth, ListenAddress, ListenerConfig, ListenerName, ProxyProtocol, TlsOptions, TlsVersion,
};
pub use self::names::is_log_level;
pub use self::origins::{AllowedOrigin, AllowedOrigins};
pub use self::overrides::Overrides;
pub use self::plugin::{Isolation, LARGEST_COMPONENT, PluginConfig, PluginDeploy, PluginLimits, Rollback};
pub use self::plugin_source::PluginSource;
pub use self::print::settings_table;
pub use self::read::{Loaded, Missing, Source};
pub use self::records::{
    AccessLog, AdminConfig, ApiConfig, ApiRules, CompilerConfig, DrainConfig, DuplicateLogin, EngineConfig,
    HeartbeatConfig, InboxConfig, LimitsConfig, LogConfig, LogFormat, OutboxConfig, PastRate, Processor, RouteFailure,
    RouterConfig, SessionsConfig, TextConfig, WatchConfig, WebSocketConfig,
};
pub use self::rules::MAX_CALLS;
pub use self::settings::{Settings, Values};
pub use self::token::{
    ApiTokenConfig, Credential, MAX_TOKEN_FILE, MIN_TOKEN, Scope, TokenDigest, token_in, token_name,
};

/// The configuration of the gateway: checked, and with all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How long a shutdown waits for queued messages and close handshakes, after the last connection was asked to
    /// close.
    pub shutdown_grace: Duration,
    /// The private folder for files that outlive the process; `None` for the usual place of such folders.
    pub state_folder: Option<PathBuf>,
    /// The log.
    pub log: LogConfig,
    /// The drain, which closes all connections without haste.
    pub drain: DrainConfig,
    /// The WebSocket port, for clients.
    pub websocket: WebSocketConfig,
    /// The text port, for internal systems that push messages.
    pub text: TextConfig,
    /// The heartbeat, which closes silent connections.
    pub heartbeat: HeartbeatConfig,
    /// The handling of a second login of one uid.
    pub sessions: SessionsConfig,
    /// Limits for queued messages.
    pub outbox: OutboxConfig,
    /// Limits for messages that are arriving.
    pub inbox: InboxConfig,
    /// Limits for the number of connections.
    pub limits: LimitsConfig,
    /// The watch for changed plugin files.
    pub watch: WatchConfig,
    /// The engine that runs all plugins.
    pub engine: EngineConfig,
    /// Limits for compiling a plugin.
    pub compiler: CompilerConfig,
    /// The admin listener, for operators.
    pub admin: AdminConfig,
    /// The HTTP push API, for internal systems.
    pub api: ApiConfig,
    /// The cluster that this gateway belongs to.
    pub cluster: ClusterConfig,
    /// The chain of plugins that decide who a client is, in the order of their calls. Never empty.
    pub authenticators: Vec<PluginConfig>,
    /// The plugin that decides who gets a message.
    pub router: RouterConfig,
}

impl Config {
    /// Returns the settings of a listener.
    pub fn listener(&self, name: ListenerName) -> &ListenerConfig {
        match name {
            ListenerName::WebSocket => &self.websocket.listener,
            ListenerName::Text => &self.text.listener,
            ListenerName::Admin => &self.admin.listener,
            ListenerName::Api => &self.api.listener,
        }
    }

    /// Iterates over the listeners. A disabled one is left out.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerName, &ListenerConfig)> {
        let is_enabled = |name| match name {
            ListenerName::WebSocket => !self.cluster.is_sender(),
            ListenerName::Text => true,
            ListenerName::Admin => self.admin.enabled,
            ListenerName::Api => self.api.enabled,
        };
        ListenerName::ALL.into_iter().filter(move |name| is_enabled(*name)).map(|name| (name, self.listener(name)))
    }

    /// Makes relative paths of listeners and of the cluster absolute; they start at `folder`.
    fn locate(&mut self, folder: &Path) -> Result<(), String> {
        let Self { websocket, text, admin, api, cluster, .. } = self;
        let listeners = [&mut websocket.listener, &mut text.listener, &mut admin.listener, &mut api.listener];
        listeners.into_iter().try_for_each(|listener| listener.locate(folder))?;
        cluster.locate(folder)
    }
}
