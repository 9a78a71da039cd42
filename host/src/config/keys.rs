//! The one table of settings: every key with what it may be, its default and its meaning. Reading, `config print` and
//! the documentation all come from here.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use super::error::Wrong;
use super::kinds::{
    ADDRESS, Choice, Count, FOLDER, HOST, Kind, List, SOURCE, Size, SizeOrAuto, Time, TimeOrNever, YesNo,
};
use super::names::{HEADER, LOG_LEVEL, NETWORK, Origins, SUBPROTOCOL};
use super::settings::SettingsTable;
use super::{
    AdminConfig, AllowedOrigins, CompilerConfig, Config, DuplicateLogin, EngineConfig, HeartbeatConfig, InboxConfig,
    Isolation, LimitsConfig, LogConfig, LogFormat, MAX_CALLS, OutboxConfig, PluginConfig, PluginDeploy, PluginLimits,
    PluginSource, Processor, Rollback, RouteFailure, RouterConfig, SessionsConfig, Settings, TextConfig, WatchConfig,
    WebSocketConfig,
};

/// A table of the configuration file.
pub(super) trait Section {
    /// Takes the value of a key. `None` if there is no such key.
    fn set(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), Wrong>>;

    /// Its keys with their present values, in the order of this file.
    fn rows(&self) -> Vec<Row>;

    /// The table below it that has this name.
    fn section(&mut self, name: &str) -> Option<&mut dyn Section>;

    /// The tables below it, but for those that the reader knows to be special: `authenticator` and `router`.
    fn sections(&self) -> Vec<(&'static str, &dyn Section)>;
}

/// One key.
pub(super) struct Row {
    pub key: &'static str,
    pub value: toml::Value,
    /// Words that follow "must be".
    pub allowed: String,
    pub meaning: &'static str,
}

/// `keys! { Type { field: kind = default, "meaning"; … } … }` writes `Default` and [`Section`] for each type. A key is
/// called like its field, unless `field "key"` says otherwise. `sections` are tables below it; the keys of `flat` stand in
/// the same table; `rest` is left to the reader.
macro_rules! keys {
    ($($type:ident {
        $($field:ident $($key:literal)?: $kind:expr, = $default:expr, $meaning:literal;)*
        $([sections: $($section:ident),+])?
        $([flat: $flat:ident = $flat_default:expr])?
        $([rest: $($rest:ident = $rest_default:expr),+])?
    })*) => { $(
        impl Default for $type {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($section: Default::default(),)+)?
                    $($flat: $flat_default,)?
                    $($($rest: $rest_default,)+)?
                }
            }
        }

        impl Section for $type {
            fn set(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), Wrong>> {
                match key {
                    $(keys!(@name $field $($key)?) => Some($kind.parse(value).map(|it| self.$field = it)),)*
                    _ => None$(.or_else(|| self.$flat.set(key, value)))?,
                }
            }

            fn rows(&self) -> Vec<Row> {
                [
                    $(self.$flat.rows(),)?
                    vec![$(Row {
                        key: keys!(@name $field $($key)?),
                        value: $kind.show(&self.$field),
                        allowed: $kind.allowed(),
                        meaning: $meaning,
                    }),*],
                ].into_iter().flatten().collect()
            }

            fn section(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name {
                    $($(stringify!($section) => Some(&mut self.$section),)+)?
                    _ => None$(.or_else(|| self.$flat.section(name)))?,
                }
            }

            fn sections(&self) -> Vec<(&'static str, &dyn Section)> {
                [
                    $(self.$flat.sections(),)?
                    vec![$($((stringify!($section), &self.$section as &dyn Section)),+)?],
                ].into_iter().flatten().collect()
            }
        }
    )* };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn listen(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(address), port)
}

const LOG_FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

const DUPLICATE_LOGINS: Choice<DuplicateLogin> = Choice(&[
    ("newest", DuplicateLogin::Newest),
    ("all", DuplicateLogin::All),
    ("close-older", DuplicateLogin::CloseOlder),
    ("reject", DuplicateLogin::Reject),
]);

const ROUTE_FAILURES: Choice<RouteFailure> = Choice(&[("drop", RouteFailure::Drop), ("close", RouteFailure::Close)]);

const ROLLBACKS: Choice<Rollback> = Choice(&[("auto", Rollback::Auto), ("alert", Rollback::Alert)]);

const PROCESSORS: Choice<Processor> = Choice(&[("native", Processor::Native), ("any", Processor::Any)]);

const ISOLATIONS: Choice<Isolation> = Choice(&[("per-call", Isolation::PerCall), ("pooled", Isolation::Pooled)]);

keys! {
    Config {
        shutdown_grace: Time(Duration::ZERO..=HOUR), = secs(10),
            "How long a shutdown waits for queued messages and close handshakes.";
        state_folder: FOLDER, = None,
            "The folder, private to the gateway's user, for compiled plugins, the admin token, what was rolled back and what \
             has proven itself, with its secrets. \
             Gateways must not share one. Empty: $STATE_DIRECTORY, as systemd sets it, else $XDG_STATE_HOME/hotgate, else ~/.local/state/hotgate.";
        [sections: log, websocket, text, heartbeat, sessions, outbox, inbox, limits, watch, engine, compiler, admin]
        [rest: authenticators = vec![PluginConfig::default()], router = RouterConfig::default()]
    }

    LogConfig {
        level: LOG_LEVEL, = "info".to_owned(),
            "What is logged: a level, or directives that give single targets their own.";
        format: LOG_FORMATS, = LogFormat::Text,
            "\"text\" is for people, \"json\" writes one object a line.";
    }

    WebSocketConfig {
        listen: ADDRESS, = listen(Ipv4Addr::UNSPECIFIED, 1234),
            "Where clients connect; port 0 takes a free one, which the log tells.";
        max_message: Size(1..=GIB), = MIB,
            "The largest message a client may send; a larger one closes its connection (1009).";
        max_first_message: Size(1..=GIB), = 64 * KIB,
            "The largest message until an authenticator has accepted the client; never more than max_message.";
        min_message_rate: Size(0..=MIB), = KIB,
            "Bytes a second by which a message that has begun must grow, on average: who falls behind by more than \
             heartbeat.timeout is closed (4900), whatever else it sends. 0B: any byte is a sign of life.";
        handshake_timeout: Time(MS..=HOUR), = secs(5),
            "From accept until the upgrade request has been read whole and answered.";
        authentication_timeout: Time(MS..=HOUR), = secs(10),
            "From the upgrade until an authenticator has accepted; then the connection is closed (4901).";
        close_timeout: Time(MS..=HOUR), = secs(2),
            "How long a close frame may take to be written and answered before the connection is cut.";
        allowed_origins: Origins, = AllowedOrigins::Any,
            "Whose pages may connect. [\"*\"] is everybody's, and not possible once cookies are passed on. Requests \
             without an Origin header come from no browser and are let through.";
        trusted_proxies: List(NETWORK), = Vec::new(),
            "Peers whose X-Forwarded-For header is believed.";
        pass_headers: List(HEADER), = Vec::new(),
            "Request headers that authenticators are shown.";
        subprotocols: List(SUBPROTOCOL), = Vec::new(),
            "Subprotocols that are accepted when a client offers them; the client's order decides.";
    }

    TextConfig {
        listen: ADDRESS, = listen(Ipv4Addr::LOCALHOST, 5678),
            "Where internal systems push from. Whoever can connect can push to everyone: an address that is not \
             loopback needs allow_from.";
        max_line: Size(1..=GIB), = 2 * MIB,
            "The longest line; a longer one is answered `fail` and ends the connection.";
        allow_from: List(NETWORK), = Vec::new(),
            "Who may connect. Empty: loopback only.";
        total_replies: Size(KIB..=TIB), = 64 * MIB,
            "Bytes of the router's own replies that may wait for all senders together; a line whose reply finds no \
             room is answered `fail`, and nothing else comes of it.";
    }

    HeartbeatConfig {
        timeout: Time(MS..=DAY), = secs(30),
            "A connection from which nothing has arrived for longer than this is closed (4900).";
        check_interval: Time(MS..=HOUR), = secs(1),
            "How often silence is looked for; at most the timeout.";
        ping_interval: TimeOrNever(MS..=DAY), = None,
            "After how much silence the server sends a ping, or up to a quarter sooner, so that clients which came at \
             the same time are not pinged at the same time; less than the timeout.";
    }

    SessionsConfig {
        duplicate_login: DUPLICATE_LOGINS, = DuplicateLogin::Newest,
            "When a connected uid logs in again. \"newest\": both stay, messages go to the newest. \"all\": both stay, \
             messages go to all. \"close-older\": the older is closed (4903). \"reject\": the newer is closed (4904).";
    }

    OutboxConfig {
        max_bytes: Size(KIB..=GIB), = 4 * MIB,
            "Bytes that may wait for one connection, and 128 more for each message; past them it is closed as a slow \
             consumer (4905). One message always fits an empty outbox.";
        total_bytes: Size(KIB..=TIB), = GIB,
            "Memory for what waits for all connections together, at least max_bytes. A message to many counts once, \
             and 96 bytes for each of them. Each of limits.connections has up to 4 KiB of its own, all of them at \
             most half; the rest is common. When that is used up, those who have most waiting are closed (4905), and \
             what finds no room is refused.";
    }

    InboxConfig {
        total_bytes: Size(KIB..=TIB), = 256 * MIB,
            "Bytes that all connections together may hold of messages that have begun to arrive, or wait for the router, \
             beside 4 KiB each; at least websocket.max_message. Past them a connection that needs more is closed (1013).";
    }

    LimitsConfig {
        connections: Count(1..=10_000_000), = 60_000,
            "WebSocket connections in all; past it the upgrade request is refused (503).";
        connections_per_address: Count(1..=10_000_000), = 20_000,
            "WebSocket connections of one client address, which with IPv6 is a network of 64 bits; past it the upgrade \
             request is refused (503).";
        unauthenticated: Count(1..=10_000_000), = 10_000,
            "WebSocket connections that no authenticator has accepted yet; past it the upgrade request is refused (503).";
        unauthenticated_share: Count(1..=100), = 50,
            "Percentage of unauthenticated that one client address may take, from accept on; past it the upgrade request \
             is refused (503). A trusted proxy may take more: its clients are counted once their addresses are known.";
        text_connections: Count(1..=1_000_000), = 1024,
            "Connections to the text port; past it a new one is closed.";
    }

    WatchConfig {
        settle: Time(MS..=secs(60)), = millis(100),
            "How long a changed plugin file must have been quiet before it is read. After 5s more it is read in any case.";
        rescan: Time(millis(10)..=DAY), = secs(10),
            "How often plugin files are compared although no change was announced.";
    }

    EngineConfig {
        memory: SizeOrAuto(MIB..=TIB), = None,
            "Linear memory of all instances of all plugins together, at least twice the sum of every plugin's limits.memory. \
             Half of it is split among the plugins by their limits.memory, the other half is for whoever needs it. \
             \"auto\": 2 GiB, or half of what the machine or the cgroup has if that is less.";
        stack: Size(64 * KIB..=64 * MIB), = 512 * KIB,
            "Stack of one call of any plugin: how deep its functions may call each other.";
        processor: PROCESSORS, = Processor::Native,
            "What plugins are compiled for. \"native\": the processor at hand, with all that it can do. \"any\": all of its \
             architecture, so that what one machine has compiled serves on another.";
    }

    CompilerConfig {
        timeout: Time(MS..=HOUR), = secs(300),
            "How long compiling one plugin may take. A process of its own does it, at the lowest priority.";
        memory: Size(256 * MIB..=TIB), = 2 * GIB,
            "Address space of that process. Plugins are compiled one after the other; one that takes longer than 2 s does not \
             keep others waiting, so there may be one process for each plugin.";
        max_code: Size(MIB..=GIB), = 256 * MIB,
            "The machine code that may come of it.";
    }

    AdminConfig {
        enabled: YesNo, = true,
            "Whether operators are served: `hotgate plugin …`, metrics, health.";
        listen: ADDRESS, = listen(Ipv4Addr::LOCALHOST, 1235),
            "Where operators connect, by HTTP; port 0 takes a free one, which the log tells.";
        allowed_hosts: List(HOST), = Vec::new(),
            "Names that a request's Host header may have, beside localhost and the listener's own address.";
    }

    PluginConfig {
        source "file": SOURCE, = PluginSource::Builtin("origin-auth".to_owned()),
            "The component. A relative path starts at this file's folder. A changed file is swapped in while the \
             gateway runs.";
        settings: SettingsTable, = Settings::default(),
            "What the plugin is told: it finds them among its environment variables. A secret is better kept in a file \
             of its own, readable by the gateway only.";
        isolation: ISOLATIONS, = Isolation::PerCall,
            "\"per-call\": each call runs in a fresh instance, so nothing of one user can leak into the decision about \
             the next. \"pooled\": calls reuse instances, one call at a time each, which is faster.";
        [sections: limits, deploy]
    }

    RouterConfig {
        route_failure: ROUTE_FAILURES, = RouteFailure::Drop,
            "When the router fails on a packet: \"drop\" the packet, or \"close\" its connection (1013).";
        [flat: plugin = PluginConfig::router(PluginSource::Builtin("origin-router".to_owned()))]
    }

    PluginLimits {
        deadline: Time(MS..=HOUR), = millis(200),
            "How long one call may run.";
        max_wait: Time(Duration::ZERO..=HOUR), = secs(1),
            "How long a login or a pushed line may wait for a free instance before it is shed.";
        check_timeout: Time(MS..=HOUR), = secs(5),
            "How long a new component's own check may run before it is refused.";
        memory: Size(64 * KIB..=4 * GIB), = 64 * MIB,
            "Linear memory of one instance.";
        table_elements: Count(1..=1_000_000), = 100_000,
            "Elements of all tables of one instance.";
        handles: Count(1..=1_000_000), = 1000,
            "Handles (streams, timers and other resources) that one instance may hold.";
        host_call_bytes: SizeOrAuto(KIB..=2 * GIB), = None,
            "Bytes that one call may hand to functions of the host in all, or return; at least max_output. \
             \"auto\" has room for max_output and max_actions.";
        concurrency: Count(1..=MAX_CALLS), = 64,
            "Calls that run at the same time, in each role of the plugin; at most 2048 in all roles of all plugins together.";
        recycle_after: Count(1..=u32::MAX), = 10_000,
            "Calls after which a pooled instance is replaced.";
        max_actions: Count(1..=1_000_000), = 4096,
            "Actions that one call may return.";
        max_recipients: Count(1..=1_000_000_000), = 1_000_000,
            "Connections that the actions of one call may be about in all, each counted once for every action. A \
             router's is at least limits.connections, so that it can reach everyone.";
        max_output: Size(KIB..=GIB), = 8 * MIB,
            "Bytes that one call may return in all. The default grows with the largest message or line.";
        max_name: Count(1..=256), = 256,
            "Bytes of a uid that it accepts, and of a group's name.";
        max_state: Size(0..=64 * KIB), = 4 * KIB,
            "Bytes of the state that it keeps with a prompt, or with a session.";
        max_attributes: Count(0..=4096), = 64,
            "Attributes of an identity.";
        max_attribute_bytes: Size(0..=MIB), = 16 * KIB,
            "Bytes of all attributes of an identity, names and values.";
        max_component: Size(KIB..=GIB), = 64 * MIB,
            "Size of the component's file.";
        log_lines: Count(0..=1_000_000), = 100,
            "Lines that it may log in a second, and twice as many at once; the rest is counted and dropped. A quarter is \
             left to warnings and errors.";
        log_lines_per_call: Count(0..=1_000_000), = 64,
            "Lines that one call may log; the rest is counted and dropped. A quarter is left to warnings and errors.";
        log_line_bytes: Size(16..=64 * KIB), = KIB,
            "Bytes of one line; the rest is cut off.";
    }

    PluginDeploy {
        shadow: Count(0..=100), = 0,
            "Percentage of first packets that a new generation judges in the shadow of the live one, without effect, \
             until it is promoted. 0: it skips that stage.";
        canary: Count(0..=100), = 0,
            "Percentage of new connections that a new generation serves until it is promoted. 0: it skips that stage.";
        probation: Time(Duration::ZERO..=DAY), = secs(30),
            "How long a new generation that serves everybody is on probation, and at least until it has been called \
             min_failures times and does not fail too often. \"0s\": it skips that stage.";
        probation_calls: Count(1..=i64::MAX as u64), = 100_000,
            "Calls after which the probation ends before its time.";
        max_failures: Count(0..=100), = 5,
            "By how many percent of its calls a new generation may fail more often than the one before.";
        min_failures: Count(1..=1_000_000), = 5,
            "Failures of a function before anything is concluded. For a rollback they must be of as many clients (at least \
             2, 5 are enough), or 20 times as many. A client is an address and a uid.";
        rollback: ROLLBACKS, = Rollback::Auto,
            "When a new generation fails too often: \"auto\" puts the one before back, \"alert\" only says so.";
    }
}

impl PluginConfig {
    /// An authenticator with default settings and limits.
    pub fn authenticator(source: PluginSource) -> Self {
        Self { source, ..Self::default() }
    }

    /// A router with default settings and limits. Its calls share instances: a router decides for everybody.
    pub fn router(source: PluginSource) -> Self {
        Self { source, isolation: Isolation::Pooled, ..Self::default() }
    }
}
