//! Rules about more than one key: which settings fit together, and whether the files of plugins can be read.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::error::{ConfigError, Place, Places};
use super::files::open_file;
use super::kinds::Kind as _;
use super::listener::{FILE, ListenerConfig};
use super::units::{show_duration, show_size};
use super::{
    AllowedOrigins, ClientAuth, Config, DuplicateLogin, ListenAddress, ListenerName, PluginConfig, PluginSource,
    ProxyProtocol,
};

/// Refuses combinations of settings that cannot work or are not safe.
pub(super) fn check(config: &Config, places: &Places) -> Result<(), ConfigError> {
    heartbeat(config, places)?;
    listeners(config, places)?;
    plaintext(config, places)?;
    certificates(config, places)?;
    without_effect(config, places)?;
    peers(config, places)?;
    proxies(config, places)?;
    api(config, places)?;
    outbox(config, places)?;
    inbox(config, places)?;
    cookies(config, places)?;
    memory(config, places)?;
    all_memory(config, places)?;
    calls(config, places)?;
    host_calls(config, places)?;
    recipients(config, places)?;
    cluster(config, places)
}

fn refuse<T>(place: Place, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::new(place, problem))
}

fn heartbeat(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let heartbeat = &config.heartbeat;
    let timeout = show_duration(heartbeat.timeout);
    if heartbeat.check_interval > heartbeat.timeout {
        let place = places.of(&["heartbeat.check_interval", "heartbeat.timeout"]);
        let interval = show_duration(heartbeat.check_interval);
        let problem = format!("must be at most heartbeat.timeout, which is \"{timeout}\"");
        return refuse(place, format!("heartbeat.check_interval = \"{interval}\": {problem}"));
    }
    if let Some(interval) = heartbeat.ping_interval.filter(|interval| *interval >= heartbeat.timeout) {
        let place = places.of(&["heartbeat.ping_interval", "heartbeat.timeout"]);
        let interval = show_duration(interval);
        let problem = format!("must be less than heartbeat.timeout, which is \"{timeout}\", or \"0s\" for never");
        return refuse(place, format!("heartbeat.ping_interval = \"{interval}\": {problem}"));
    }
    Ok(())
}

fn listeners(config: &Config, places: &Places) -> Result<(), ConfigError> {
    if let Some(address) = config.text.listener.public_address()
        && config.text.allow_from.is_empty()
    {
        let problem = "everybody who reaches this address could push to all clients: \
                       set text.allow_from to the addresses that may connect, like [\"10.0.0.0/8\"]";
        return refuse(places.of(&["text.listen"]), format!("text.listen = \"{address}\": {problem}"));
    }
    let mut taken: Vec<(&str, &ListenAddress)> = Vec::new();
    for (name, listener) in config.listeners() {
        let key = name.listen_key();
        for address in &listener.listen {
            let is_free = address.tcp().is_some_and(|address| address.port() == 0);
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address && !is_free) {
                let problem = format!("must not be the same as {other}");
                return refuse(places.of(&[key, other]), format!("{key} = \"{address}\": {problem}"));
            }
        }
        taken.extend(listener.listen.iter().map(|address| (key, address)));
    }
    Ok(())
}

/// Others on the network must not be able to read tokens by accident.
fn plaintext(config: &Config, places: &Places) -> Result<(), ConfigError> {
    for (name, listener, plaintext) in [
        (ListenerName::Admin, &config.admin.listener, config.admin.plaintext || !config.admin.enabled),
        (ListenerName::Api, &config.api.listener, config.api.plaintext || !config.api.enabled),
    ] {
        let is_open = listener.certificates.is_empty() && !plaintext;
        if let Some(address) = listener.public_address().filter(|_| is_open) {
            let key = name.listen_key();
            let problem = format!(
                "tokens would cross the network unencrypted: add a certificate by [[{name}.tls]], listen on loopback, \
                 or set {name}.plaintext = true"
            );
            return refuse(places.of(&[key]), format!("{key} = \"{address}\": {problem}"));
        }
    }
    Ok(())
}

fn certificates(config: &Config, places: &Places) -> Result<(), ConfigError> {
    for (name, listener) in config.listeners() {
        for (index, pair) in listener.certificates.iter().enumerate() {
            let path = format!("{name}.tls[{index}]");
            for (key, file) in [("certificate", &pair.certificate), ("key", &pair.key)] {
                if file.as_os_str().is_empty() {
                    let problem = format!("{path}.{key}: must be set: {}", FILE.allowed());
                    return refuse(places.of(&[&path]), problem);
                }
            }
        }
        let options = &listener.tls_options;
        let (auth, authorities) = (format!("{name}.tls_options.client_auth"), format!("{name}.tls_options.client_ca"));
        let wanted = options.client_auth != ClientAuth::Off;
        let problem = match &options.client_ca {
            _ if wanted && listener.certificates.is_empty() => format!("{auth}: needs a certificate by [[{name}.tls]]"),
            None if wanted => format!("{authorities}: must be set, because {auth} is not \"off\""),
            Some(_) if !wanted => format!("{auth}: must be \"optional\" or \"required\", because {authorities} is set"),
            _ => continue,
        };
        return refuse(places.of(&[&auth, &authorities]), problem);
    }
    Ok(())
}

/// Refuses a listener's settings that would change nothing.
fn without_effect(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let default = ListenerConfig::default();
    for (name, listener) in config.listeners() {
        let (tcp, unix): (Vec<_>, Vec<_>) = listener.listen.iter().partition(|address| address.tcp().is_some());
        let (options, plain) = (&listener.tls_options, listener.certificates.is_empty());
        let by_certificate = format!("needs a certificate by [[{name}.tls]]");
        let by_socket = format!("needs a Unix socket in {name}.listen");
        for (key, is_set, has_effect, problem) in [
            (
                "tls",
                !plain,
                !tcp.is_empty(),
                &format!("needs an IP address in {name}.listen: Unix sockets have no TLS"),
            ),
            ("tls_options.minimum", options.minimum != default.tls_options.minimum, !plain, &by_certificate),
            ("tls_options.tickets", options.tickets != default.tls_options.tickets, !plain, &by_certificate),
            ("mode", listener.mode != default.mode, !unix.is_empty(), &by_socket),
            ("group", listener.group != default.group, !unix.is_empty(), &by_socket),
        ] {
            if is_set && !has_effect {
                let key = format!("{name}.{key}");
                return refuse(places.of(&[&key]), format!("{key}: {problem}"));
            }
        }
    }
    Ok(())
}

fn api(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let api = &config.api;
    if !api.enabled {
        return Ok(());
    }
    let by_certificate = api.tokens.iter().position(|token| token.client_certificate.is_some());
    if let Some(index) = by_certificate.filter(|_| api.listener.tls_options.client_auth == ClientAuth::Off) {
        let key = format!("api.token[{index}].client_certificate");
        let problem = "needs api.tls_options.client_auth = \"optional\" or \"required\"";
        return refuse(places.of(&[&key]), format!("{key}: {problem}"));
    }
    for (key, value, least_key, least) in [
        ("api.max_body", api.max_body, "api.max_message", api.max_message),
        ("api.in_flight", api.in_flight, "api.max_body", api.max_body),
    ] {
        if value < least {
            let problem = format!("must be at least {least_key}, which is \"{}\"", show_size(least));
            return refuse(places.of(&[key, least_key]), format!("{key} = \"{}\": {problem}", show_size(value)));
        }
    }
    Ok(())
}

/// At least one listed network must be able to reach the listener: peers with the other version of IP cannot.
fn peers(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let (text, websocket) = (&config.text, &config.websocket);
    for (key, listed, name) in [
        ("text.allow_from", &text.allow_from, ListenerName::Text),
        ("text.trusted_proxies", &text.trusted_proxies, ListenerName::Text),
        ("websocket.trusted_proxies", &websocket.trusted_proxies, ListenerName::WebSocket),
    ] {
        // With the PROXY protocol, a sender's address need not be one that reaches the listener.
        let is_named = key == "text.allow_from" && text.proxy_protocol == ProxyProtocol::Required;
        let addresses: Vec<_> = config.listener(name).listen.iter().filter_map(ListenAddress::tcp).collect();
        let reaches = |network: &IpNet, listen: &SocketAddr| match (listen.ip().to_canonical(), network) {
            (IpAddr::V6(address), _) if address.is_unspecified() => true,
            (IpAddr::V4(_), IpNet::V4(_)) | (IpAddr::V6(_), IpNet::V6(_)) => true,
            _ => false,
        };
        let reached = listed.iter().any(|network| addresses.iter().any(|address| reaches(network, address)));
        if let Some(listen) = addresses.first()
            && !(listed.is_empty() || reached || is_named)
        {
            let listener = name.listen_key();
            let problem = format!(
                "none of these can reach {listener}, which is \"{listen}\": change {listener}, or list addresses of \
                 the same version of IP"
            );
            return refuse(places.of(&[key, listener]), format!("{key}: {problem}"));
        }
    }
    Ok(())
}

/// Only proxies that are trusted may name addresses.
fn proxies(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let (text, websocket) = (&config.text, &config.websocket);
    for (name, protocol, trusted) in [
        (ListenerName::Text, text.proxy_protocol, &text.trusted_proxies),
        (ListenerName::WebSocket, websocket.proxy_protocol, &websocket.trusted_proxies),
    ] {
        let has_tcp = config.listener(name).listen.iter().any(|address| address.tcp().is_some());
        if protocol == ProxyProtocol::Required && trusted.is_empty() && has_tcp {
            let key = format!("{name}.proxy_protocol");
            let problem = format!("needs {name}.trusted_proxies: the addresses of the proxies that send this header");
            return refuse(places.of(&[&key]), format!("{key} = \"required\": {problem}"));
        }
    }
    Ok(())
}

fn outbox(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let outbox = &config.outbox;
    if outbox.total_bytes < outbox.max_bytes {
        let place = places.of(&["outbox.total_bytes", "outbox.max_bytes"]);
        let (total, max) = (show_size(outbox.total_bytes), show_size(outbox.max_bytes));
        let problem = format!("must be at least outbox.max_bytes, which is \"{max}\"");
        return refuse(place, format!("outbox.total_bytes = \"{total}\": {problem}"));
    }
    Ok(())
}

fn inbox(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let (total, max) = (config.inbox.total_bytes, config.websocket.max_message);
    if total < max {
        let place = places.of(&["inbox.total_bytes", "websocket.max_message"]);
        let problem = format!("must be at least websocket.max_message, which is \"{}\"", show_size(max));
        return refuse(place, format!("inbox.total_bytes = \"{}\": {problem}", show_size(total)));
    }
    Ok(())
}

fn cookies(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let websocket = &config.websocket;
    let cookies = websocket.pass_headers.iter().any(|name| name == "cookie");
    if cookies && websocket.allowed_origins == AllowedOrigins::Any {
        let problem = "\"cookie\" needs websocket.allowed_origins to list the origins that may connect. A browser sends a \
                       user's cookies with a connection that any page opens: if every origin is allowed, a foreign \
                       page can act as that user (cross-site WebSocket hijacking)";
        let place = places.of(&["websocket.pass_headers", "websocket.allowed_origins"]);
        return refuse(place, format!("websocket.pass_headers: {problem}"));
    }
    Ok(())
}

/// A plugin may hold a packet three times: as it arrived, as the plugin has parsed it, and as the plugin returns it. As
/// much memory again is for the plugin itself.
const COPIES: usize = 4;

fn memory(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let by_api = if config.api.enabled { config.api.max_message } else { 0 };
    let largest = config.websocket.max_message.max(config.text.max_line).max(by_api);
    for (path, plugin) in all(config) {
        let key = format!("{path}.limits.memory");
        if plugin.limits.memory < largest.saturating_mul(COPIES) {
            let (memory, largest) = (show_size(plugin.limits.memory), show_size(largest));
            let problem = format!(
                "must be at least {COPIES} times the largest message or line (websocket.max_message, text.max_line, \
                 api.max_message), which is \"{largest}\""
            );
            let place = places.of(&[&key, "websocket.max_message", "text.max_line", "api.max_message"]);
            return refuse(place, format!("{key} = \"{memory}\": {problem}"));
        }
    }
    Ok(())
}

/// Each plugin's share of `engine.memory` must be enough for one instance. The shares are half of this memory.
fn all_memory(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let least = all(config).map(|(_, plugin)| plugin.limits.memory).fold(0, usize::saturating_add).saturating_mul(2);
    let Some(memory) = config.engine.memory.filter(|memory| *memory < least) else { return Ok(()) };
    let (memory, least) = (show_size(memory), show_size(least));
    let problem = format!(
        "must be at least twice the sum of limits.memory of every [[authenticator]] and [router], which is \"{least}\", \
         or \"auto\""
    );
    refuse(places.of(&["engine.memory"]), format!("engine.memory = \"{memory}\": {problem}"))
}

/// The most calls of all plugins that may run at the same time. The engine reserves address space for them: 2048 calls
/// × 2 instances × 16 GiB = 64 TiB, which must be one free block. A process has 128 TiB, and the program itself is at
/// 85 TiB.
pub const MAX_CALLS: usize = 2048;

fn calls(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let sum: usize = all(config).map(|(_, plugin)| plugin.limits.concurrency).sum();
    if sum <= MAX_CALLS {
        return Ok(());
    }
    let keys: Vec<_> = all(config).map(|(path, _)| format!("{path}.limits.concurrency")).collect();
    let place = places.of(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    refuse(place, format!("limits.concurrency of all plugins together is {sum}: it must be at most {MAX_CALLS}"))
}

fn host_calls(config: &Config, places: &Places) -> Result<(), ConfigError> {
    for (path, plugin) in all(config) {
        let (key, output) = (format!("{path}.limits.host_call_bytes"), format!("{path}.limits.max_output"));
        let most = plugin.limits.max_output;
        if let Some(bytes) = plugin.limits.host_call_bytes.filter(|bytes| *bytes < most) {
            let (bytes, most) = (show_size(bytes), show_size(most));
            let problem = format!("must be at least {output}, which is \"{most}\", or \"auto\"");
            return refuse(places.of(&[&key, &output]), format!("{key} = \"{bytes}\": {problem}"));
        }
    }
    Ok(())
}

/// A router must be able to send a message to all connections: `max_recipients` must be large enough for this.
fn recipients(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let (most, connections) = (config.router.plugin.limits.max_recipients, config.limits.connections);
    if most < connections {
        let place = places.of(&["router.limits.max_recipients", "limits.connections"]);
        let problem = format!("must be at least limits.connections, which is {connections}");
        return refuse(place, format!("router.limits.max_recipients = {most}: {problem}"));
    }
    Ok(())
}

fn cluster(config: &Config, places: &Places) -> Result<(), ConfigError> {
    let cluster = &config.cluster;
    if cluster.is_on() && config.sessions.duplicate_login == DuplicateLogin::Reject {
        let problem = "a cluster cannot know for certain whether a uid is connected: use \"newest\", \"all\" or \
                       \"close-older\", or leave out cluster.nats";
        let place = places.of(&["sessions.duplicate_login", "cluster.nats"]);
        return refuse(place, format!("sessions.duplicate_login = \"reject\": {problem}"));
    }
    let ways = [
        ("cluster.credentials", cluster.credentials.is_some()),
        ("cluster.nkey", cluster.nkey.is_some()),
        ("cluster.user", !cluster.user.is_empty()),
    ];
    let mut set = ways.into_iter().filter(|(_, is_set)| *is_set);
    if let (Some((first, _)), Some((second, _))) = (set.next(), set.next()) {
        return refuse(
            places.of(&[second, first]),
            format!("{second}: leave it out, or {first}: one of them is enough"),
        );
    }
    for (key, is_set, other, other_is_set) in [
        ("cluster.user", !cluster.user.is_empty(), "cluster.password", cluster.password.is_some()),
        ("cluster.certificate", cluster.certificate.is_some(), "cluster.key", cluster.key.is_some()),
    ] {
        if is_set != other_is_set {
            let (set, missing) = if is_set { (key, other) } else { (other, key) };
            return refuse(places.of(&[set]), format!("{missing}: must be set, because {set} is"));
        }
    }
    Ok(())
}

/// Returns an error for each plugin whose file, or a file with the value of one of its settings, cannot be read. Each
/// error comes with the plugin's index in the chain of authenticators, or `None` for the router.
pub(super) fn files(config: &Config, places: &Places) -> Vec<(Option<usize>, ConfigError)> {
    let problem = |path: &str, plugin: &PluginConfig| -> Result<(), ConfigError> {
        let key = format!("{path}.file");
        if let PluginSource::File(file) = &plugin.source
            && let Err(error) = open_file(file)
        {
            let problem = format!("must be a file that can be read: {error}");
            return refuse(places.of(&[&key]), format!("{key} = {file:?}: {problem}"));
        }
        if let Err(error) = plugin.settings.read() {
            return refuse(places.of(&[&format!("{path}.settings")]), format!("{path}.{error:#}"));
        }
        Ok(())
    };
    let chain = (0..config.authenticators.len()).map(Some).chain([None]);
    let problems = all(config).zip(chain).map(|((path, plugin), index)| Some((index, problem(&path, plugin).err()?)));
    problems.flatten().collect()
}

/// Iterates over all plugins, with the names of their tables.
fn all(config: &Config) -> impl Iterator<Item = (String, &PluginConfig)> {
    let chain = config.authenticators.iter().enumerate();
    let chain = chain.map(|(index, plugin)| (format!("authenticator[{index}]"), plugin));
    chain.chain([("router".to_owned(), &config.router.plugin)])
}
