//! The settings, one record for each table of the configuration.

use std::time::Duration;

use ipnet::IpNet;

use super::listener::{ListenerConfig, ProxyProtocol};
use super::origins::AllowedOrigins;
use super::plugin::PluginConfig;
use super::token::ApiTokenConfig;

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or `tracing` filter directives.
    pub level: String,
    /// The form of the lines: for people or for machines.
    pub format: LogFormat,
    /// Whether the log says which uid a connection has.
    pub uids: bool,
    /// Whether there is a line for each connection that has ended.
    pub access: AccessLog,
    /// The percentage of the logins that leave a line; 0 for none. Above 0, denials do, too.
    pub decisions: u8,
}

/// Which connections leave a line when they have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// All that were upgraded.
    Ended,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people; in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings of the drain, which closes all connections without haste.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainConfig {
    /// How long everybody is still served while the gateway says that it is not ready.
    pub notice: Duration,
    /// The time over which the closes are spread.
    pub spread: Duration,
    /// The least number of connections that are closed in a second.
    pub min_rate: u32,
    /// The longest time that a close reason asks a client to wait before it connects again; zero for no such request.
    pub retry: Duration,
    /// The code of the close frames: 1001 or 1012.
    pub code: u16,
}

/// Settings of the WebSocket port, for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Its addresses and certificates.
    pub listener: ListenerConfig,
    /// The largest message that a client may send, in bytes. A larger message closes its connection with 1009.
    pub max_message: usize,
    /// The largest message until an authenticator has accepted the client. A value above `max_message` has no effect.
    pub max_first_message: usize,
    /// The lowest average rate, in bytes a second, at which an unfinished message must grow; 0 for any rate.
    pub min_message_rate: usize,
    /// Time from accepting a connection until its upgrade request has been read completely.
    pub handshake_timeout: Duration,
    /// Time from the upgrade until an authenticator must have accepted the client. Then the connection is closed with
    /// 4901.
    pub authentication_timeout: Duration,
    /// How long a close frame may take to be written, and then to be answered. After that the connection is cut.
    pub close_timeout: Duration,
    /// The origins of pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Proxies that are believed when they name the address of a client.
    pub trusted_proxies: Vec<IpNet>,
    /// See [`ProxyProtocol`].
    pub proxy_protocol: ProxyProtocol,
    /// Names of the request headers that are passed to authenticators, in lower case.
    pub pass_headers: Vec<String>,
    /// Subprotocols that the gateway accepts. If a client offers several of them, the client's order decides.
    pub subprotocols: Vec<String>,
    /// The age at which a connection is closed, up to a tenth more or less; `None` for no such age.
    pub max_age: Option<Duration>,
}

/// Settings of the text port, for internal systems that push messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Its addresses and certificates.
    pub listener: ListenerConfig,
    /// The longest line, in bytes without its line end. A longer line is answered `fail` and ends the connection.
    pub max_line: usize,
    /// Addresses that may connect. Empty for loopback only: if `listen` is not loopback, this must not be empty.
    pub allow_from: Vec<IpNet>,
    /// Proxies that are believed when they name the address of a sender.
    pub trusted_proxies: Vec<IpNet>,
    /// See [`ProxyProtocol`].
    pub proxy_protocol: ProxyProtocol,
    /// Bytes of the router's own replies that may wait to be sent, for all senders together.
    pub total_replies: usize,
}

/// Settings of the heartbeat, which closes silent connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// The longest silence of a client. After it, the connection is closed with 4900.
    pub timeout: Duration,
    /// How often the gateway looks for silent connections.
    pub check_interval: Duration,
    /// How long a client may be silent before the gateway sends it a ping; `None` for no pings.
    pub ping_interval: Option<Duration>,
}

/// Settings for a second login of one uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsConfig {
    /// See [`DuplicateLogin`].
    pub duplicate_login: DuplicateLogin,
}

/// The effect of a login when its uid is already connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateLogin {
    /// Both connections stay. Messages go to the newest; when it has closed, to the next newest.
    Newest,
    /// Both connections stay. Messages go to all.
    All,
    /// The older connection is closed with 4903.
    CloseOlder,
    /// The newer connection is closed with 4904.
    Reject,
}

/// Limits for queued messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxConfig {
    /// The most bytes that may be queued for one connection. Above it, the connection is closed with 4905. One message
    /// always fits an empty outbox.
    pub max_bytes: usize,
    /// The most bytes that may be queued for all connections together. Above it, the connections with the most queued
    /// bytes are closed with 4905, and messages that still find no room are refused.
    pub total_bytes: usize,
}

/// Limits for messages that are arriving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxConfig {
    /// The most bytes of messages that are arriving or wait for the router, for all connections together, beside 4 KiB
    /// for each connection. Above it, a connection that needs more is closed with 1013.
    pub total_bytes: usize,
}

/// Limits for the number of connections, and for how fast clients connect and send. Above a limit of WebSocket
/// connections, the upgrade request is refused with 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The most WebSocket connections.
    pub connections: usize,
    /// The most WebSocket connections of one client address: an IPv4 address, or a /64 network of IPv6.
    pub connections_per_address: usize,
    /// The most WebSocket connections that no authenticator has accepted yet.
    pub unauthenticated: usize,
    /// The percentage of `unauthenticated` that one client address may take.
    pub unauthenticated_share: u8,
    /// The most TLS handshakes at a time. Further ones wait.
    pub tls_handshakes: usize,
    /// The most connections to the text port.
    pub text_connections: usize,
    /// The most WebSocket connections that are accepted in a second; 0 for any number. Above it, accepting pauses.
    pub accept_rate: usize,
    /// The most WebSocket connections of one client address in a second, and at most `connections_per_address` at once;
    /// 0 for any number. Loopback addresses are exempt. Above it, the upgrade request is refused with 429.
    pub accept_rate_per_address: usize,
    /// The most messages that one client may send in a second, and twice as many at once; 0 for any number.
    pub messages_per_second: usize,
    /// The most bytes that one client may send in a second, and twice as many at once; 0 for any number.
    pub bytes_per_second: usize,
    /// See [`PastRate`].
    pub past_rate: PastRate,
}

/// The effect when a client sends more than `messages_per_second` or `bytes_per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastRate {
    /// The gateway reads no more from the client until it may send again. Nothing is lost.
    Pause,
    /// The connection is closed with 1008.
    Close,
}

/// Settings of the watch for changed plugin files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long a changed file must stay unchanged before it is read.
    pub settle: Duration,
    /// How often files are compared even if the system reports no change.
    pub rescan: Duration,
}

/// Settings of the engine that runs all plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Linear memory of all instances of all plugins, in bytes. `None` for 2 GiB, or half of the memory of the machine
    /// or the cgroup if that is less, but at least twice the `limits.memory` of all plugins together.
    pub memory: Option<usize>,
    /// Stack of one call, in bytes.
    pub stack: usize,
    /// The processor that plugins are compiled for.
    pub processor: Processor,
}

/// The processor that plugins are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// The processor that runs the gateway, with all its features.
    Native,
    /// Every processor of the same architecture.
    Any,
}

/// Limits of the process that compiles a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerConfig {
    /// Wall-clock time.
    pub timeout: Duration,
    /// Address space, in bytes.
    pub memory: usize,
    /// Machine code, in bytes.
    pub max_code: usize,
}

/// Settings of the admin listener, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Whether there is an admin listener.
    pub enabled: bool,
    /// Whether it serves the dashboard.
    pub dashboard: bool,
    /// Whether operators may follow single clients.
    pub trace: bool,
    /// Whether a trace shows the beginning of payloads.
    pub trace_payloads: bool,
    /// Its addresses and certificates.
    pub listener: ListenerConfig,
    /// Whether others on the network may reach the listener without TLS: they can then read its token.
    pub plaintext: bool,
    /// Names that a `Host` header may contain, beside `localhost` and the listener's own address.
    pub allowed_hosts: Vec<String>,
}

/// Settings of the HTTP push API, for internal systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Whether there is an API listener.
    pub enabled: bool,
    /// Its addresses and certificates.
    pub listener: ListenerConfig,
    /// Whether others on the network may reach the listener without TLS: they can then read tokens and messages.
    pub plaintext: bool,
    /// Names that a `Host` header may contain, beside `localhost` and the listener's own address.
    pub allowed_hosts: Vec<String>,
    /// See [`ApiRules`].
    pub rules: ApiRules,
    /// The largest message, in bytes.
    pub max_message: usize,
    /// The largest body of a batch, in bytes.
    pub max_body: usize,
    /// The most items of a batch.
    pub max_items: usize,
    /// Bytes of bodies that all requests together may hold.
    pub in_flight: usize,
    /// The most connections.
    pub connections: usize,
    /// How long the answer to a request with an `Idempotency-Key` is kept.
    pub idempotency_window: Duration,
    /// The most answers that are kept.
    pub idempotency_entries: usize,
    /// The tokens; empty for the one in the state folder.
    pub tokens: Vec<ApiTokenConfig>,
}

/// Whether the router is asked about the messages of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiRules {
    /// The token's scopes decide alone.
    Direct,
    /// The router decides, too, with its interface `publications`.
    Router,
}

/// Settings of the router.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// The plugin.
    pub plugin: PluginConfig,
    /// The effect of a failure of the router.
    pub route_failure: RouteFailure,
}

/// The effect when the router fails on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteFailure {
    /// The packet is dropped and counted.
    Drop,
    /// The connection is closed with 1013.
    Close,
}
