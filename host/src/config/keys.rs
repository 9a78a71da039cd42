//! The table of all settings: each key with its allowed values, its default and its meaning. Reading a file,
//! `config print` and the documentation all use this table.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::error::Wrong;
use super::kinds::{Choice, Count, FOLDER, HOST, Kind, List, OneOf, Size, SizeOrAuto, Time, TimeOrNever, YesNo};
use super::listener::{Addresses, CLIENT_AUTHS, CLIENT_CA, FILE, GROUP, MODE, TLS_VERSIONS};
use super::names::{HEADER, LOG_LEVEL, NETWORK, SUBPROTOCOL};
use super::origins::Origins;
use super::section::{Row, Section, Tables, keys};
use super::token::{CERTIFICATE_NAME, PATTERN, SCOPES, SecretFile, TOKEN_NAME, TokenDigestKind};
use super::units::{DAY, GIB, HOUR, KIB, MIB, MS, TIB, millis, secs};
use super::{
    AccessLog, AdminConfig, AllowedOrigins, ApiConfig, ApiRules, ApiTokenConfig, CertificateConfig, ClientAuth,
    CompilerConfig, Config, Credential, DrainConfig, DuplicateLogin, EngineConfig, HeartbeatConfig, InboxConfig,
    LimitsConfig, ListenerConfig, LogConfig, LogFormat, OutboxConfig, PastRate, PluginConfig, Processor, ProxyProtocol,
    RouterConfig, SessionsConfig, TextConfig, TlsOptions, TlsVersion, TokenDigest, WatchConfig, WebSocketConfig,
};

const LOG_FORMATS: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

const ACCESS_LOGS: Choice<AccessLog> = Choice(&[("off", AccessLog::Off), ("ended", AccessLog::Ended)]);

const DUPLICATE_LOGINS: Choice<DuplicateLogin> = Choice(&[
    ("newest", DuplicateLogin::Newest),
    ("all", DuplicateLogin::All),
    ("close-older", DuplicateLogin::CloseOlder),
    ("reject", DuplicateLogin::Reject),
]);

const PAST_RATES: Choice<PastRate> = Choice(&[("pause", PastRate::Pause), ("close", PastRate::Close)]);

const API_RULES: Choice<ApiRules> = Choice(&[("direct", ApiRules::Direct), ("router", ApiRules::Router)]);

const PROXY_PROTOCOLS: Choice<ProxyProtocol> =
    Choice(&[("off", ProxyProtocol::Off), ("required", ProxyProtocol::Required)]);

const PROCESSORS: Choice<Processor> = Choice(&[("native", Processor::Native), ("any", Processor::Any)]);

keys! {
    Config {
        shutdown_grace: Time(Duration::ZERO..=HOUR), = secs(10),
            "How long a shutdown waits for queued messages and close handshakes, after the last connection was asked to \
             close.";
        state_folder: FOLDER, = None,
            "The folder for files that outlive the process, private to the gateway's user: compiled plugins, \
             the tokens of operators and of the API, a record of the plugins that were rolled back, and copies of the plugins that have proven \
             themselves, with the values of their settings. Each gateway needs its own folder. Empty: \
             $STATE_DIRECTORY, which systemd sets, else $XDG_STATE_HOME/hotgate, else ~/.local/state/hotgate.";
        [sections: log, websocket, text, heartbeat, drain, sessions, outbox, inbox, limits, watch, engine, compiler, admin, api, cluster]
        [rest: authenticators = vec![PluginConfig::default()], router = RouterConfig::default()]
    }

    LogConfig {
        level: LOG_LEVEL, = "info".to_owned(),
            "The log level, or directives that set it for single targets.";
        format: LOG_FORMATS, = LogFormat::Text,
            "\"text\" is for people, \"json\" writes one JSON object per line.";
        uids: YesNo, = false,
            "Whether the log says which uid a connection has: once for each login, with level info, and in the lines of \
             log.access. All other lines have only the connection's number: a uid may be a credential, or say who \
             somebody is.";
        access: ACCESS_LOGS, = AccessLog::Off,
            "\"ended\": one line with level info for each connection that has ended after its upgrade, with the client's \
             address, why it ended, how long it lasted, and what it carried.";
        decisions: Count(0..=100), = 0,
            "The percentage of the successful logins that leave a line with level info: which plugin decided, and how \
             long it took. Above 0, denied logins leave such lines as well, all of them, but at most 10 a second. 0: \
             neither does.";
    }

    DrainConfig {
        notice: Time(Duration::ZERO..=HOUR), = Duration::ZERO,
            "How long the gateway goes on serving everybody, new connections too, after /readyz has become 503: the time \
             that load balancers need to notice.";
        spread: Time(Duration::ZERO..=HOUR), = secs(15),
            "The time over which the closes of all connections are spread, so that their clients do not come back at the \
             same moment.";
        min_rate: Count(1..=1_000_000), = 100,
            "The least number of connections that are closed in a second: few connections take less time than spread.";
        retry: Time(Duration::ZERO..=HOUR), = secs(5),
            "Each close reason tells its client how long to wait before it connects again: \"restart; retry=3.2s\", a \
             random time up to this one. \"0s\": the reason is \"restart\".";
        code: OneOf(&[1001, 1012]), = 1001,
            "The code of the close frames: 1001 means going away, 1012 service restart.";
    }

    WebSocketConfig {
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
            "Time from accepting a connection until its upgrade request has been read completely. The header of a proxy \
             and the TLS handshake are part of this time.";
        authentication_timeout: Time(MS..=HOUR), = secs(10),
            "Time from the upgrade until an authenticator must have accepted the client. Then the connection is \
             closed (4901).";
        close_timeout: Time(MS..=HOUR), = secs(2),
            "How long a close frame may take to be written, and then to be answered. After that the connection is \
             cut.";
        allowed_origins: Origins, = AllowedOrigins::Any,
            "The origins of web pages that may connect. [\"*\"] allows every page, and is refused if cookies are \
             passed on (pass_headers). \"https://*.example.com\" allows all hosts below example.com, but not \
             example.com itself. \"same-host\" allows pages of the host that the request's Host header names, with any \
             scheme and port; a proxy in front must pass this header on unchanged. Requests without an Origin header \
             do not come from a browser and are let through.";
        trusted_proxies: List(NETWORK), = Vec::new(),
            "Proxies that are believed when they name the address of a client, by X-Forwarded-For or by the PROXY \
             protocol. Whoever can open a Unix socket of this listener is believed, too.";
        proxy_protocol: PROXY_PROTOCOLS, = ProxyProtocol::Off,
            "\"required\": every connection must begin with a header of the PROXY protocol, version 1 or 2, in which \
             a trusted proxy names the address of its client. Other connections are closed. \"off\": connections \
             begin without this header.";
        pass_headers: List(HEADER), = Vec::new(),
            "Request headers that are passed to authenticators.";
        subprotocols: List(SUBPROTOCOL), = Vec::new(),
            "Subprotocols that the gateway accepts. If a client offers several of them, the client's order decides.";
        max_age: TimeOrNever(secs(1)..=secs(30 * 24 * 3600)), = None,
            "The age at which a connection is closed (drain.code, \"rotate; retry=3.2s\"), up to a tenth more or less, so \
             that the clients spread over all gateways again after one was added.";
        [flat: listener = ListenerConfig::at(Ipv4Addr::UNSPECIFIED, 1234)]
    }

    TextConfig {
        max_line: Size(1..=GIB), = 2 * MIB,
            "The longest line. A longer line is answered `fail` and ends the connection.";
        allow_from: List(NETWORK), = Vec::new(),
            "Addresses that may connect. Empty: only loopback. Whoever can open a Unix socket of this listener may \
             always connect.";
        trusted_proxies: List(NETWORK), = Vec::new(),
            "Proxies that are believed when they name the address of a sender, by the PROXY protocol. Whoever can \
             open a Unix socket of this listener is believed, too.";
        proxy_protocol: PROXY_PROTOCOLS, = ProxyProtocol::Off,
            "\"required\": every connection must begin with a header of the PROXY protocol, version 1 or 2, in which \
             a trusted proxy names the address of its client. Other connections are closed. \"off\": connections \
             begin without this header.";
        total_replies: Size(KIB..=TIB), = 64 * MIB,
            "Bytes of the router's own replies that may wait to be sent, for all senders together. If there is no \
             room for a reply, its line is answered `fail` and has no other effect.";
        [flat: listener = ListenerConfig::at(Ipv4Addr::LOCALHOST, 5678)]
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
            "The most WebSocket connections. Above it, the upgrade request is refused (503), or with TLS the \
             connection is closed.";
        connections_per_address: Count(1..=10_000_000), = 20_000,
            "The most WebSocket connections of one client address; with IPv6, of one network of 64 bits. Above it, \
             the upgrade request is refused (503), or with TLS the connection is closed.";
        unauthenticated: Count(1..=10_000_000), = 10_000,
            "The most WebSocket connections that no authenticator has accepted yet. Above it, the upgrade request is \
             refused (503), or with TLS the connection is closed.";
        unauthenticated_share: Count(1..=100), = 50,
            "The percentage of unauthenticated that one client address may take, counted from accept on. Above it, \
             the upgrade request is refused (503), or with TLS the connection is closed. A trusted proxy may take \
             more: its clients are counted once their addresses are known.";
        tls_handshakes: Count(1..=1_000_000), = 512,
            "The most WebSocket clients that have a turn for their TLS handshake at the same time; others wait for a \
             turn. A turn ends with the handshake, or after a second; the handshake then goes on without a turn. One \
             client address may hold and wait for at most the percentage unauthenticated_share of the turns; its \
             further connections are closed.";
        text_connections: Count(1..=1_000_000), = 1024,
            "The most connections to the text port. Above it, a new connection is closed.";
        accept_rate: Count(0..=1_000_000), = 0,
            "The most WebSocket connections that are accepted in a second, from all clients together. Above it, \
             accepting pauses, and clients wait. 0: any number.";
        accept_rate_per_address: Count(0..=1_000_000), = 200,
            "The most WebSocket connections of one client address in a second, after up to connections_per_address at \
             once (at least as many as in a second); with IPv6, of one network of 64 bits. Above it, the upgrade request is refused (429), or with TLS \
             the connection is closed. Loopback addresses are exempt; the clients of a trusted proxy are counted by \
             their own addresses. 0: any number.";
        messages_per_second: Count(0..=1_000_000), = 0,
            "The most messages that one client may send in a second, after twice as many at once. 0: any number.";
        bytes_per_second: Size(0..=GIB), = 0,
            "The most bytes that one client may send in a second, after twice as many at once. Everything counts that \
             arrives after the upgrade. 0B: any number.";
        past_rate: PAST_RATES, = PastRate::Pause,
            "What happens when a client sends more than messages_per_second or bytes_per_second. \"pause\": the gateway \
             reads no more from it until it may send again; nothing is lost. \"close\": its connection is closed (1008).";
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
        dashboard: YesNo, = true,
            "Whether the listener also serves the dashboard, a page for a browser: `hotgate dashboard` prints its address.";
        trace: YesNo, = true,
            "Whether operators may follow single clients: `hotgate trace UID`.";
        trace_payloads: YesNo, = false,
            "Whether a trace shows the beginning of each message and state. They may hold credentials, and what people write.";
        plaintext: YesNo, = false,
            "Whether the listener may have an address that is not loopback, without TLS. Others on the network can then \
             read the token.";
        allowed_hosts: List(HOST), = Vec::new(),
            "Names that a request's Host header may contain, beside localhost and the listener's own address.";
        [flat: listener = ListenerConfig::at(Ipv4Addr::LOCALHOST, 1235)]
    }

    ApiConfig {
        enabled: YesNo, = true,
            "Whether the gateway listens for internal systems that push by HTTP. Without [api] in this file, the gateway \
             also starts when it cannot listen there.";
        plaintext: YesNo, = false,
            "Whether the API may have an address that is not loopback, without TLS. Others on the network can then read \
             tokens and messages.";
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
        [flat: listener = ListenerConfig::at(Ipv4Addr::LOCALHOST, 1236)]
        [rest: tokens = Vec::new()]
    }

    ListenerConfig {
        listen: Addresses, = Vec::new(),
            "The addresses to listen on. Port 0 takes a free port, which the log shows. Sockets that systemd passes \
             under the listener's name take their place.";
        mode: MODE, = 0o660,
            "The permissions of the Unix sockets.";
        group: GROUP, = None,
            "The group of the Unix sockets. Empty: the gateway's own group.";
        [sections: tls_options]
        [lists: certificates "tls"]
    }

    CertificateConfig {
        certificate: FILE, = PathBuf::new(),
            "The file with the certificate and those of its issuers, in PEM. A relative path starts at this file's \
             folder. The gateway uses a new certificate as soon as certificate and key fit together.";
        key: FILE, = PathBuf::new(),
            "The file with the private key, in PEM.";
    }

    TlsOptions {
        client_ca: CLIENT_CA, = None,
            "The file with the certificates of the authorities that issue certificates to clients, in PEM. Empty: none.";
        client_auth: CLIENT_AUTHS, = ClientAuth::Off,
            "\"required\": a client must have a certificate of one of these authorities. \"optional\": it may have \
             one. \"off\": it is not asked.";
        minimum: TLS_VERSIONS, = TlsVersion::V1_2,
            "The lowest version of TLS that clients may use.";
        tickets: YesNo, = true,
            "Whether clients get tickets, with which they connect again faster. Clients that are asked for \
             certificates (client_auth) never get tickets.";
    }

    ApiTokenConfig {
        name: TOKEN_NAME, = String::new(),
            "The token's name, for the log, for error messages, and for a router that is asked (api.rules).";
        sha256: TokenDigestKind, = None,
            "The SHA-256 digest of the token. `hotgate token new NAME` prints a new token and these keys for it.";
        secret: SecretFile, = None,
            "The file with the token, in place of sha256: one word of at least 32 characters. A relative path starts at \
             this file's folder. When the file changes, it is read again.";
        client_certificate: CERTIFICATE_NAME, = None,
            "A name in the certificate of a client (api.tls_options.client_auth), in place of sha256: requests of this \
             client need no token.";
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
        [rest: credential = Credential::Token(TokenDigest::default())]
    }
}
