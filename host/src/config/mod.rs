//! Every setting of the gateway: what `hotgate.toml`, the environment and the flags may say, and what the program then
//! runs on.

mod changes;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod keys;
mod kinds;
mod names;
mod overrides;
mod print;
mod read;
mod rules;
mod settings;
#[cfg(test)]
mod tests;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use error::ConfigError;
pub use files::{BYTE_ORDER_MARK, open_file, read_file, read_text};
pub use kinds::host;
pub use overrides::Overrides;
pub use print::settings_table;
pub use read::{Loaded, Missing, Source};
pub use rules::MAX_CALLS;
pub use settings::{Settings, Values};

/// What the gateway runs on: checked, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How long a shutdown waits for queued messages and close handshakes.
    pub shutdown_grace: Duration,
    /// The private folder for what outlives the process; `None` takes the usual place of such folders.
    pub state_folder: Option<PathBuf>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The port that clients connect to.
    pub websocket: WebSocketConfig,
    /// The port that internal systems push through.
    pub text: TextConfig,
    /// When a silent connection is closed.
    pub heartbeat: HeartbeatConfig,
    /// What a second login of one uid means.
    pub sessions: SessionsConfig,
    /// How much may wait for a connection that reads slowly.
    pub outbox: OutboxConfig,
    /// How much may have arrived in part.
    pub inbox: InboxConfig,
    /// How many connections there may be.
    pub limits: LimitsConfig,
    /// How plugin files are watched.
    pub watch: WatchConfig,
    /// What all plugins run on.
    pub engine: EngineConfig,
    /// What compiling a plugin may take.
    pub compiler: CompilerConfig,
    /// Where operators look and act.
    pub admin: AdminConfig,
    /// The chain of plugins that decide who a client is, in order. Never empty.
    pub authenticators: Vec<PluginConfig>,
    /// The plugin that decides who gets a message.
    pub router: RouterConfig,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or `tracing` filter directives.
    pub level: String,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// The port that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The largest message that a client may send, in bytes; a larger one closes its connection with 1009.
    pub max_message: usize,
    /// The same until an authenticator has accepted the client; at most `max_message`.
    pub max_first_message: usize,
    /// The bytes a second by which a message that has begun must grow on average; 0: by any.
    pub min_message_rate: usize,
    /// From accept until the upgrade request has been read whole and answered.
    pub handshake_timeout: Duration,
    /// From the upgrade until an authenticator has accepted; then 4901.
    pub authentication_timeout: Duration,
    /// How long a close frame may take to be written, and its answer to arrive, before the connection is cut.
    pub close_timeout: Duration,
    /// Whose pages may connect.
    pub allowed_origins: AllowedOrigins,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Names of request headers shown to authenticators, in lower case.
    pub pass_headers: Vec<String>,
    /// Subprotocols that are accepted when a client offers them; the client's order decides.
    pub subprotocols: Vec<String>,
}

/// Whose pages may connect (the `Origin` header, RFC 6455 §10.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `["*"]`: everybody's.
    Any,
    /// These, scheme and host and port, in lower case; compared without case. Requests without an `Origin` come from no browser and are let through.
    Only(Vec<String>),
}

/// The port that internal systems push through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The longest line, in bytes without its line end; a longer one is answered `fail` and ends the connection.
    pub max_line: usize,
    /// Who may connect. Empty: loopback only, which is why it must be set for `listen` to be another address.
    pub allow_from: Vec<IpNet>,
    /// Bytes of plugins' replies that may wait for all senders together.
    pub total_replies: usize,
}

/// When a silent connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// A connection from which nothing has arrived for longer than this is closed with 4900.
    pub timeout: Duration,
    /// How often silence is looked for.
    pub check_interval: Duration,
    /// After how much silence the server sends a ping; `None` never.
    pub ping_interval: Option<Duration>,
}

/// What a second login of one uid means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsConfig {
    /// See [`DuplicateLogin`].
    pub duplicate_login: DuplicateLogin,
}

/// What happens when a uid logs in that is connected already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateLogin {
    /// Both stay; messages go to the newest, and to the next newest once that has closed.
    Newest,
    /// Both stay; messages go to all.
    All,
    /// The older one is closed with 4903.
    CloseOlder,
    /// The newer one is closed with 4904.
    Reject,
}

/// How much may wait for a connection that reads slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxConfig {
    /// Bytes that may wait for one connection; past them it is closed with 4905. One message always fits an empty outbox.
    pub max_bytes: usize,
    /// Bytes that may wait for all connections together; past them messages are refused.
    pub total_bytes: usize,
}

/// How much may have arrived in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// Bytes that all connections together may hold of unfinished messages and of those that wait for the router, beside
    /// 4 KiB each; past them a connection is closed with 1013.
    pub total_bytes: usize,
}

/// How many connections there may be. Past a limit the upgrade request is refused with 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// WebSocket connections in all.
    pub connections: usize,
    /// WebSocket connections of one client address: an IPv4 address or a /64 of IPv6.
    pub connections_per_address: usize,
    /// WebSocket connections that no authenticator has accepted yet.
    pub unauthenticated: usize,
    /// The percentage of `unauthenticated` that one client address may take.
    pub unauthenticated_share: u8,
    /// Connections to the text port.
    pub text_connections: usize,
}

/// How plugin files are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long a file must have been quiet before it is read.
    pub settle: Duration,
    /// How often files are compared although no change was announced.
    pub rescan: Duration,
}

/// What all plugins run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Linear memory of all instances of all plugins, in bytes. `None`: 2 GiB, or half of what the machine or the process's
    /// cgroup has if that is less, but at least twice the `limits.memory` of all plugins together.
    pub memory: Option<usize>,
    /// Stack of one call, in bytes.
    pub stack: usize,
    /// What plugins are compiled for.
    pub processor: Processor,
}

/// What plugins are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// The processor that runs the gateway, with all that it can do.
    Native,
    /// Every processor of its architecture.
    Any,
}

/// What compiling a plugin may take, in the process that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerConfig {
    /// Wall-clock time.
    pub timeout: Duration,
    /// Address space, in bytes.
    pub memory: usize,
    /// Machine code, in bytes.
    pub max_code: usize,
}

/// Where operators look and act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Whether there is an admin listener at all.
    pub enabled: bool,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names beside `localhost` and the listener's own address that a `Host` header may have.
    pub allowed_hosts: Vec<String>,
}

/// The router and what its failures mean.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// The plugin.
    pub plugin: PluginConfig,
    /// What happens to a packet, or its connection, when the router fails on it.
    pub route_failure: RouteFailure,
}

/// What happens when the router fails on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteFailure {
    /// The packet is dropped and counted.
    Drop,
    /// The connection is closed with 1013.
    Close,
}

/// One plugin: where its component is, what it is told, and what it may use.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Where the component comes from.
    pub source: PluginSource,
    /// Settings, which the plugin finds among its environment variables.
    pub settings: Settings,
    /// Whether calls share instances.
    pub isolation: Isolation,
    /// What one call may use.
    pub limits: PluginLimits,
    /// How a new generation comes to serve.
    pub deploy: PluginDeploy,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginSource {
    /// `builtin:NAME`: shipped inside the binary.
    Builtin(String),
    /// A file, watched for changes; its path is absolute.
    File(PathBuf),
}

impl PluginSource {
    /// The names of the plugins inside the binary.
    pub const BUILTINS: [&str; 6] =
        ["echo-router", "hmac-auth", "jwt-auth", "origin-auth", "origin-router", "rooms-router"];
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Whether calls share instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each call runs in a fresh instance: nothing of one user can leak into the decision about the next.
    PerCall,
    /// Calls reuse instances, one call at a time each.
    Pooled,
}

/// What one plugin, and one call of it, may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLimits {
    /// Wall-clock time of one call.
    pub deadline: Duration,
    /// How long a call may wait for an instance before it is shed.
    pub max_wait: Duration,
    /// Wall-clock time of a new component's `lifecycle.check`; compiling it does not count.
    pub check_timeout: Duration,
    /// Linear memory of one instance, in bytes.
    pub memory: usize,
    /// Elements of all tables of one instance.
    pub table_elements: usize,
    /// Handles that one instance may hold.
    pub handles: usize,
    /// Bytes that one call may hand to functions of the host in all, or return; `None`: what the other limits need.
    pub host_call_bytes: Option<usize>,
    /// Calls that run at the same time, in each role of the plugin.
    pub concurrency: usize,
    /// Calls after which a pooled instance is replaced.
    pub recycle_after: u32,
    /// Actions that one call may return.
    pub max_actions: usize,
    /// Connections that the actions of one call may be about in all.
    pub max_recipients: usize,
    /// Bytes that one call may return in all.
    pub max_output: usize,
    /// Bytes of a uid that is accepted, and of a group's name.
    pub max_name: usize,
    /// Bytes of the state of a prompt or a session.
    pub max_state: usize,
    /// Attributes of an identity.
    pub max_attributes: usize,
    /// Bytes of all attributes of an identity.
    pub max_attribute_bytes: usize,
    /// Size of the component, in bytes.
    pub max_component: usize,
    /// Lines of the log in a second; twice as many at once.
    pub log_lines: u32,
    /// Lines of the log that one call may write.
    pub log_lines_per_call: u32,
    /// Bytes of one line of the log.
    pub log_line_bytes: usize,
}

/// How a new generation comes to serve: in shadow, to some, on probation, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDeploy {
    /// Percentage of the first packets that a new generation judges in the shadow of the live one until it is promoted;
    /// 0 skips that stage.
    pub shadow: u8,
    /// Percentage of new connections that a new generation serves until it is promoted; 0 skips that stage.
    pub canary: u8,
    /// How long a new generation is on probation once it serves everybody; zero skips that stage.
    pub probation: Duration,
    /// After how many calls the probation ends if its time is not over yet.
    pub probation_calls: u64,
    /// By how many percent of its calls a new generation may fail more often than the one before.
    pub max_failures: u8,
    /// Failures of a function before anything is concluded; a rollback needs as many clients, within bounds.
    pub min_failures: u32,
    /// What happens when it fails more often than that.
    pub rollback: Rollback,
}

/// What happens when a new generation fails too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// The one before serves again, and the new one is not loaded any more until its file or settings change.
    Auto,
    /// The log and the status say so.
    Alert,
}
