//! The table of all settings: each key with its allowed values, its default and its meaning. Reading a file,
//! `config print` and the documentation all use this table.

use std::net::Ipv4Addr;
use std::time::Duration;

use toml::de::DeValue;

use super::error::Wrong;
use super::kinds::{
    ADDRESS, Choice, Count, FOLDER, HOST, Kind, List, SOURCE, Size, SizeOrAuto, Time, TimeOrNever, YesNo,
};
use super::names::{HEADER, LOG_LEVEL, NETWORK, Origins, SUBPROTOCOL};
use super::section::{Row, Section, keys};
use super::settings::SettingsTable;
use super::token::{Digest, PATTERN, SCOPES, SecretFile, TOKEN_NAME};
use super::units::{DAY, GIB, HOUR, KIB, MIB, MS, TIB, listen, millis, secs};
use super::{
    AdminConfig, AllowedOrigins, ApiConfig, ApiRules, ApiTokenConfig, CompilerConfig, Config, DuplicateLogin,
    EngineConfig, HeartbeatConfig, InboxConfig, Isolation, LimitsConfig, LogConfig, LogFormat, MAX_CALLS, OutboxConfig,
    PluginConfig, PluginDeploy, PluginLimits, PluginSource, Processor, Rollback, RouteFailure, RouterConfig,
    SessionsConfig, Settings, TextConfig, TokenDigest, WatchConfig, WebSocketConfig,
};

const LOG_FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

const DUPLICATE_LOGINS: Choice<DuplicateLogin> = Choice(&[
    ("newest", DuplicateLogin::Newest),
    ("all", DuplicateLogin::All),
    ("close-older", DuplicateLogin::CloseOlder),
    ("reject", DuplicateLogin::Reject),
]);

const ROUTE_FAILURES: Choice<RouteFailure> = Choice(&[("drop", RouteFailure::Drop), ("close", RouteFailure::Close)]);

const API_RULES: Choice<ApiRules> = Choice(&[("direct", ApiRules::Direct), ("router", ApiRules::Router)]);

const ROLLBACKS: Choice<Rollback> = Choice(&[("auto", Rollback::Auto), ("alert", Rollback::Alert)]);

const PROCESSORS: Choice<Processor> = Choice(&[("native", Processor::Native), ("any", Processor::Any)]);

const ISOLATIONS: Choice<Isolation> = Choice(&[("per-call", Isolation::PerCall), ("pooled", Isolation::Pooled)]);

keys! {
    Config {
        shutdown_grace: Time(Duration::ZERO..=HOUR), = secs(10),
            "How long a shutdown waits for queued messages and close handshakes.";
        state_folder: FOLDER, = None,
            "The folder for files that outlive the process, private to the gateway's user: compiled plugins, \
             the tokens of operators and of the API, a record of the plugins that were rolled back, and copies of the plugins that have proven \
             themselves, with the values of their settings. Each gateway needs its own folder. Empty: \
             $STATE_DIRECTORY, which systemd sets, else $XDG_STATE_HOME/hotgate, else ~/.local/state/hotgate.";
        [sections: log, websocket, text, heartbeat, sessions, outbox, inbox, limits, watch, engine, compiler, admin, api]
        [rest: authenticators = vec![PluginConfig::default()], router = RouterConfig::default()]
    }

    LogConfig {
        level: LOG_LEVEL, = "info".to_owned(),
            "The log level, or directives that set it for single targets.";
        format: LOG_FORMATS, = LogFormat::Text,
            "\"text\" is for people, \"json\" writes one JSON object per line.";
    }

    WebSocketConfig {
        listen: ADDRESS, = listen(Ipv4Addr::UNSPECIFIED, 1234),
            "The address for clients. Port 0 takes a free port, which the log shows.";
        max_message: Size(1..=GIB), = MIB,
            "The largest message that a client may send. A larger message closes its connection (1009).";
        max_first_message: Size(1..=GIB), = 64 * KIB,
            "The largest message until an authenticator has accepted the client. A value above max_message has no \
             effect.";
        min_message_rate: Size(0..=MIB), = KIB,
            "The lowest average rate, in bytes a second, at which an unfinished message must grow. A client that \
             falls behind it by more than heartbeat.timeout is closed (4900), whatever else it sends. 0B: any byte \
             is a sign of life.";
        handshake_timeout: Time(MS..=HOUR), = secs(5),
            "Time from accepting a connection until its upgrade request has been read completely and answered.";
        authentication_timeout: Time(MS..=HOUR), = secs(10),
            "Time from the upgrade until an authenticator must have accepted the client. Then the connection is \
             closed (4901).";
        close_timeout: Time(MS..=HOUR), = secs(2),
            "How long a close frame may take to be written, and then to be answered. After that the connection is \
             cut.";
        allowed_origins: Origins, = AllowedOrigins::Any,
            "The origins of web pages that may connect. [\"*\"] allows every page, and is refused if cookies are \
             passed on (pass_headers). Requests without an Origin header do not come from a browser and are let \
             through.";
        trusted_proxies: List(NETWORK), = Vec::new(),
            "Proxies whose X-Forwarded-For header is trusted.";
        pass_headers: List(HEADER), = Vec::new(),
            "Request headers that are passed to authenticators.";
        subprotocols: List(SUBPROTOCOL), = Vec::new(),
            "Subprotocols that the gateway accepts. If a client offers several of them, the client's order decides.";
    }

    TextConfig {
        listen: ADDRESS, = listen(Ipv4Addr::LOCALHOST, 5678),
            "The address for internal systems that push messages. Everybody who can connect can push to all clients, \
             so an address that is not loopback needs allow_from.";
        max_line: Size(1..=GIB), = 2 * MIB,
            "The longest line. A longer line is answered `fail` and ends the connection.";
        allow_from: List(NETWORK), = Vec::new(),
            "Addresses that may connect. Empty: loopback only.";
        total_replies: Size(KIB..=TIB), = 64 * MIB,
            "Bytes of the router's own replies that may wait to be sent, for all senders together. If there is no \
             room for a reply, its line is answered `fail` and has no other effect.";
    }

    HeartbeatConfig {
        timeout: Time(MS..=DAY), = secs(30),
            "A connection is closed (4900) if nothing arrives from its client for longer than this.";
        check_interval: Time(MS..=HOUR), = secs(1),
            "How often the gateway looks for silent connections; at most the timeout.";
        ping_interval: TimeOrNever(MS..=DAY), = None,
            "How long a client may be silent before the gateway sends it a ping; less than the timeout. Pings are \
             sent up to a quarter of this time earlier, so that clients that connected at the same time are not \
             pinged at the same time.";
    }

    SessionsConfig {
        duplicate_login: DUPLICATE_LOGINS, = DuplicateLogin::Newest,
            "What happens when a connected uid logs in again. \"newest\": both connections stay, messages go to the \
             newest. \"all\": both connections stay, messages go to all. \"close-older\": the older connection is \
             closed (4903). \"reject\": the newer connection is closed (4904).";
    }

    OutboxConfig {
        max_bytes: Size(KIB..=GIB), = 4 * MIB,
            "The most bytes that may be queued for one connection, where each message counts 128 bytes more. Above \
             it, the connection is closed as a slow consumer (4905). One message always fits an empty outbox.";
        total_bytes: Size(KIB..=TIB), = GIB,
            "Memory for the messages that are queued for all connections together; at least max_bytes. A message to \
             many connections counts once, and 96 bytes more for each of them. Each of limits.connections has a \
             share of up to 4 KiB of its own; these shares are at most half of the memory. The rest is common. When \
             the common part is used up, the connections with the most queued bytes are closed (4905), and messages \
             that still find no room are refused.";
    }

    InboxConfig {
        total_bytes: Size(KIB..=TIB), = 256 * MIB,
            "The most bytes of messages that are arriving or wait for the router, for all connections together, \
             beside 4 KiB for each connection; at least websocket.max_message. Above it, a connection that needs \
             more is closed (1013).";
    }

    LimitsConfig {
        connections: Count(1..=10_000_000), = 60_000,
            "The most WebSocket connections. Above it, the upgrade request is refused (503).";
        connections_per_address: Count(1..=10_000_000), = 20_000,
            "The most WebSocket connections of one client address; with IPv6, of one network of 64 bits. Above it, \
             the upgrade request is refused (503).";
        unauthenticated: Count(1..=10_000_000), = 10_000,
            "The most WebSocket connections that no authenticator has accepted yet. Above it, the upgrade request is \
             refused (503).";
        unauthenticated_share: Count(1..=100), = 50,
            "The percentage of unauthenticated that one client address may take, counted from accept on. Above it, \
             the upgrade request is refused (503). A trusted proxy may take more: its clients are counted once their \
             addresses are known.";
        text_connections: Count(1..=1_000_000), = 1024,
            "The most connections to the text port. Above it, a new connection is closed.";
    }

    WatchConfig {
        settle: Time(MS..=secs(60)), = millis(100),
            "How long a changed plugin file must stay unchanged before it is read. After 5s more it is read in any \
             case.";
        rescan: Time(millis(10)..=DAY), = secs(10),
            "How often plugin files are compared even if the system reports no change.";
    }

    EngineConfig {
        memory: SizeOrAuto(MIB..=TIB), = None,
            "Linear memory of all instances of all plugins together; at least twice the sum of every plugin's \
             limits.memory. Half of it is split among the plugins in proportion to their limits.memory; the other \
             half is for plugins that need more. \"auto\": 2 GiB, or half of the memory of the machine or the cgroup \
             if that is less.";
        stack: Size(64 * KIB..=64 * MIB), = 512 * KIB,
            "Stack of one plugin call. It limits how deep functions may call each other.";
        processor: PROCESSORS, = Processor::Native,
            "The processor that plugins are compiled for. \"native\": this machine's processor, with all its \
             features. \"any\": every processor of its architecture, so that one machine can use code that another \
             has compiled.";
    }

    CompilerConfig {
        timeout: Time(MS..=HOUR), = secs(300),
            "How long compiling one plugin may take. Each compilation runs in a process of its own, at the lowest \
             priority.";
        memory: Size(256 * MIB..=TIB), = 2 * GIB,
            "Address space of a compiling process. Plugins are compiled one after the other, but nothing waits for a \
             compilation that takes longer than 2 s, so there may be one process for each plugin.";
        max_code: Size(MIB..=GIB), = 256 * MIB,
            "The most machine code that compiling one plugin may produce.";
    }

    AdminConfig {
        enabled: YesNo, = true,
            "Whether the gateway listens for operators: `hotgate plugin …`, metrics, health.";
        listen: ADDRESS, = listen(Ipv4Addr::LOCALHOST, 1235),
            "The address for operators, by HTTP. Port 0 takes a free port, which the log shows.";
        allowed_hosts: List(HOST), = Vec::new(),
            "Names that a request's Host header may contain, beside localhost and the listener's own address.";
    }

    ApiConfig {
        enabled: YesNo, = true,
            "Whether the gateway listens for internal systems that push by HTTP. Without [api] in this file, the gateway \
             also starts when it cannot listen there.";
        listen: ADDRESS, = listen(Ipv4Addr::LOCALHOST, 1236),
            "The address of the HTTP push API. Port 0 takes a free port, which the log shows. An address that is not \
             loopback needs plaintext = true.";
        plaintext: YesNo, = false,
            "Whether the API may listen on an address that is not loopback. Others on the network can then read tokens \
             and messages.";
        allowed_hosts: List(HOST), = Vec::new(),
            "Names that a request's Host header may contain, beside localhost and the listener's own address.";
        rules: API_RULES, = ApiRules::Direct,
            "\"direct\": the token's scopes decide who may push to whom. \"router\": the router plugin decides, too; it \
             must export the interface publications.";
        max_message: Size(1..=GIB), = MIB,
            "The largest message. A larger one is refused (413).";
        max_body: Size(KIB..=GIB), = 8 * MIB,
            "The largest body of a batch; at least max_message. A larger one is refused (413).";
        max_items: Count(1..=100_000), = 1000,
            "The most items of a batch. A batch with more is refused (413).";
        in_flight: Size(KIB..=TIB), = 64 * MIB,
            "Bytes of bodies that all requests together may hold; at least max_body. Above it, a request is refused \
             (503).";
        connections: Count(1..=100_000), = 256,
            "The most connections. A further one replaces the oldest one that has not sent a token, or else waits.";
        idempotency_window: Time(secs(1)..=DAY), = secs(300),
            "How long the answer to a request with an Idempotency-Key is kept, if the request queued a message.";
        idempotency_entries: Count(1..=10_000_000), = 100_000,
            "The most answers that are kept. Above it, the oldest one is forgotten.";
        [rest: tokens = Vec::new()]
    }

    ApiTokenConfig {
        name: TOKEN_NAME, = String::new(),
            "The token's name, for the log, for error messages, and for a router that is asked (api.rules).";
        sha256: Digest, = None,
            "The SHA-256 digest of the token. `hotgate token new NAME` prints a new token and these keys for it.";
        secret: SecretFile, = None,
            "The file with the token, in place of sha256: one word of at least 32 characters. A relative path starts at \
             this file's folder. When the file changes, it is read again.";
        scopes: List(SCOPES), = Vec::new(),
            "What the token allows: to push to uids and connections, to groups, to everyone; to give lines to the \
             router; to ask who is online; to close and block connections; to change the groups of connections; to \
             follow logins and departures.";
        uids: List(PATTERN), = Vec::new(),
            "The uids that the token allows this for, and their connections. `*` stands for any run of characters. \
             Empty: all.";
        groups: List(PATTERN), = Vec::new(),
            "The groups that the token allows this for. Empty: all.";
        rate: Count(0..=10_000_000), = 0,
            "The most requests and items a second. Above it, a request is refused (429), and a stream is read more \
             slowly. 0: any number.";
        [rest: digest = TokenDigest::default()]
    }

    PluginConfig {
        source "file": SOURCE, = PluginSource::Builtin("origin-auth".to_owned()),
            "The plugin's component. A relative path starts at this file's folder. When the file changes, the \
             gateway swaps the new component in while it runs.";
        settings: SettingsTable, = Settings::default(),
            "Settings of the plugin, which it reads as environment variables. Keep a secret in a file of its own \
             that only the gateway can read.";
        isolation: ISOLATIONS, = Isolation::PerCall,
            "\"per-call\": each call runs in a fresh instance, so nothing of one user can leak into the decision about \
             the next. \"pooled\": calls reuse instances, one call at a time each, which is faster.";
        [sections: limits, deploy]
    }

    RouterConfig {
        route_failure: ROUTE_FAILURES, = RouteFailure::Drop,
            "What happens when the router fails on a packet. \"drop\": the packet is dropped. \"close\": its \
             connection is closed (1013).";
        [flat: plugin = PluginConfig::router(PluginSource::Builtin("origin-router".to_owned()))]
    }

    PluginLimits {
        deadline: Time(MS..=HOUR), = millis(200),
            "How long one call may run.";
        max_wait: Time(Duration::ZERO..=HOUR), = secs(1),
            "How long a login or a pushed line may wait for a free instance before it is refused.";
        check_timeout: Time(MS..=HOUR), = secs(5),
            "How long the check function of a new component may run before the component is refused.";
        memory: Size(64 * KIB..=4 * GIB), = 64 * MIB,
            "Linear memory of one instance.";
        table_elements: Count(1..=1_000_000), = 100_000,
            "The most elements of all tables of one instance.";
        handles: Count(1..=1_000_000), = 1000,
            "The most handles (streams, timers and other resources) that one instance may hold.";
        host_call_bytes: SizeOrAuto(KIB..=2 * GIB), = None,
            "The most bytes that one call may pass to functions of the host in total, or return; at least \
             max_output. \"auto\" is enough for max_output and max_actions.";
        concurrency: Count(1..=MAX_CALLS), = 64,
            "The most calls that run at the same time, in each role of the plugin; at most 2048 in all roles of all \
             plugins together.";
        recycle_after: Count(1..=u32::MAX), = 10_000,
            "A pooled instance is replaced after this number of calls, or up to an eighth less.";
        max_actions: Count(1..=1_000_000), = 4096,
            "The most actions that one call may return.";
        max_recipients: Count(1..=1_000_000_000), = 1_000_000,
            "The most connections that the actions of one call may concern in total, each counted once for every \
             action. A router's limit is at least limits.connections, so that it can reach every client.";
        max_output: Size(KIB..=GIB), = 8 * MIB,
            "The most bytes that one call may return in total. The default grows with the largest message or line.";
        max_name: Count(1..=256), = 256,
            "The most bytes of a uid that the plugin accepts, and of a group's name.";
        max_state: Size(0..=64 * KIB), = 4 * KIB,
            "The most bytes of the state that the plugin keeps with a prompt or a session.";
        max_attributes: Count(0..=4096), = 64,
            "The most attributes of an identity.";
        max_attribute_bytes: Size(0..=MIB), = 16 * KIB,
            "The most bytes of all attributes of an identity together, names and values.";
        max_component: Size(KIB..=GIB), = 64 * MIB,
            "The largest size of the component's file.";
        log_lines: Count(0..=1_000_000), = 100,
            "Log lines that the plugin may write in a second, and up to twice as many at once. Further lines are \
             dropped and counted. A quarter is reserved for warnings and errors.";
        log_lines_per_call: Count(0..=1_000_000), = 64,
            "Log lines that one call may write. Further lines are dropped and counted. A quarter is reserved for \
             warnings and errors.";
        log_line_bytes: Size(16..=64 * KIB), = KIB,
            "The most bytes of one log line. The rest is cut off.";
    }

    PluginDeploy {
        shadow: Count(0..=100), = 0,
            "Percentage of first packets that a new generation also judges, in the shadow of the live generation and \
             without effect, until it is promoted. 0: the stage is skipped.";
        canary: Count(0..=100), = 0,
            "Percentage of new connections that a new generation serves until it is promoted. 0: the stage is \
             skipped.";
        probation: Time(Duration::ZERO..=DAY), = secs(30),
            "How long a new generation that serves all connections is on probation. The probation goes on until the \
             generation has been called at least min_failures times and does not fail too often. \"0s\": the stage \
             is skipped.";
        probation_calls: Count(1..=i64::MAX as u64), = 100_000,
            "After this number of calls, the probation ends before its time.";
        max_failures: Count(0..=100), = 5,
            "By how many percentage points the share of failed calls may be higher for a new generation than for the \
             one before.";
        min_failures: Count(1..=1_000_000), = 5,
            "Failures of a function that are needed before a new generation is judged. A rollback needs them from as \
             many clients (at least 2; 5 are enough), or 20 times as many failures. A client is an address and a \
             uid.";
        rollback: ROLLBACKS, = Rollback::Auto,
            "What happens when a new generation fails too often. \"auto\": the generation before it serves again. \
             \"alert\": the log and the status report it.";
    }
}

impl PluginConfig {
    /// Creates an authenticator with default settings and limits.
    pub fn authenticator(source: PluginSource) -> Self {
        Self { source, ..Self::default() }
    }

    /// Creates a router with default settings and limits. Its calls share instances, since a router decides for all
    /// users.
    pub fn router(source: PluginSource) -> Self {
        Self { source, isolation: Isolation::Pooled, ..Self::default() }
    }
}
