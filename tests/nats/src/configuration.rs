//! What NATS servers are started with.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use tempfile::TempDir;

use crate::{Authority, Identity, Nats, NatsCluster, nats_server};

/// The settings of one server, or of all servers of a cluster.
#[derive(Debug)]
pub struct NatsSetup {
    folder: TempDir,
    /// Lines at the top level.
    lines: String,
    users: Vec<String>,
}

/// One server with a configuration of the test's own.
#[derive(Debug)]
pub struct ServerSetup {
    /// The name of its files. `server_name` may be another.
    pub name: String,
    /// The ports in the configuration.
    pub layout: Layout,
    /// The configuration.
    pub configuration: String,
    /// Variables of the environment.
    pub environment: Vec<(String, String)>,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rights<'a> {
    /// The subjects that the user may publish to.
    pub publish: &'a [&'a str],
    /// The subjects that the user may not publish to, though they are among those above.
    pub no_publish: &'a [&'a str],
    /// The subjects that the user may subscribe to.
    pub subscribe: &'a [&'a str],
}

/// The ports of one server. They stay the same when it is started again.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The port for clients.
    pub client: SocketAddr,
    /// The port for the other servers.
    pub route: SocketAddr,
    /// The port that answers questions in HTTP.
    pub monitor: SocketAddr,
}

impl Rights<'_> {
    /// All that the cluster needs, and nothing else.
    pub const CLUSTER: Rights<'static> = Rights { publish: &["hg.>"], no_publish: &[], subscribe: &["hg.>"] };

    fn configuration(&self) -> String {
        let list = |subjects: &[&str]| format!("{subjects:?}");
        let (publish, deny, subscribe) = (list(self.publish), list(self.no_publish), list(self.subscribe));
        format!("permissions: {{ publish: {{ allow: {publish}, deny: {deny} }}, subscribe: {{ allow: {subscribe} }} }}")
    }
}

impl NatsSetup {
    /// Settings with which anybody may do everything. A client that is silent is given up after 3 s.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lines = "ping_interval: \"1s\"\nping_max: 2\nlame_duck_duration: \"30s\"\n";
        Self { folder, lines: lines.to_owned(), users: Vec::new() }
    }

    /// Appends lines to the configuration.
    pub fn and(mut self, lines: &str) -> Self {
        self.lines += lines;
        self.lines.push('\n');
        self
    }

    /// Allows a user with this password. With any user, nobody else gets in.
    pub fn user(mut self, user: &str, password: &str, rights: Rights<'_>) -> Self {
        self.users.push(format!("{{ user: {user:?}, password: {password:?}, {} }}", rights.configuration()));
        self
    }

    /// Allows the user with this public nkey. With any user, nobody else gets in.
    pub fn nkey(mut self, public: &str, rights: Rights<'_>) -> Self {
        self.users.push(format!("{{ nkey: {public}, {} }}", rights.configuration()));
        self
    }

    /// Serves with TLS.
    pub fn tls(self, Identity { certificate, key }: &Identity) -> Self {
        let [certificate, key] =
            [("server.pem", certificate), ("server.key", key)].map(|file| self.put(file.0, file.1));
        self.and(&format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, timeout: 5 }}"))
    }

    /// Serves with TLS, to clients that have a certificate of this authority.
    pub fn mutual_tls(self, Identity { certificate, key }: &Identity, clients: &Authority) -> Self {
        let authority = self.put("clients.pem", &clients.certificate());
        let [certificate, key] =
            [("server.pem", certificate), ("server.key", key)].map(|file| self.put(file.0, file.1));
        let files = format!("cert_file: {certificate:?}, key_file: {key:?}, ca_file: {authority:?}");
        self.and(&format!("tls {{ {files}, verify: true, timeout: 5 }}"))
    }

    fn put(&self, name: &str, content: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, content).expect("a writable folder");
        file.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Starts one server on free ports and waits until it listens. Returns `None` if the test must be skipped.
    ///
    /// # Panics
    /// When the server does not listen in time.
    pub async fn start(self) -> Option<Nats> {
        let program = nats_server().await?;
        let layout = Layout::free();
        let configuration = self.configuration("nats-1", layout, None);
        let server = ServerSetup { name: "nats-1".to_owned(), layout, configuration, environment: Vec::new() };
        Some(Nats::start(program, Arc::new(self.folder), server).await)
    }

    /// Starts a cluster of servers on free ports and waits until all know each other. Returns `None` if the test must
    /// be skipped.
    ///
    /// # Panics
    /// When the cluster is not complete in time.
    pub async fn cluster(self, count: usize) -> Option<NatsCluster> {
        let layouts = (0..count).map(|_| Layout::free()).collect::<Vec<_>>();
        let server = |index: usize| {
            let (name, layout) = (format!("nats-{}", index + 1), layouts[index]);
            let configuration = self.configuration(&name, layout, Some(&layouts));
            ServerSetup { name, layout, configuration, environment: Vec::new() }
        };
        let servers = (0..count).map(server).collect();
        NatsCluster::start(self.folder, servers).await
    }

    fn configuration(&self, name: &str, layout: Layout, cluster: Option<&[Layout]>) -> String {
        let Layout { client, route, monitor } = layout;
        let mut text = format!("server_name: {name}\nlisten: \"{client}\"\nhttp: \"{monitor}\"\n{}", self.lines);
        if !self.users.is_empty() {
            // An account of its own, as in production. The system account has no user.
            let users = self.users.join(", ");
            text += &format!("accounts {{ HG {{ users: [ {users} ] }}, SYS {{}} }}\nsystem_account: SYS\n");
        }
        if let Some(all) = cluster {
            let routes = all.iter().filter(|other| other.route != route);
            let routes = routes.map(|other| format!("\"nats://{}\"", other.route)).collect::<Vec<_>>().join(", ");
            _ = writeln!(text, "cluster {{ name: test, listen: \"{route}\", routes: [ {routes} ] }}");
        }
        text
    }
}

impl Layout {
    /// Chooses free ports.
    pub fn free() -> Self {
        let [client, route, monitor] = free_ports();
        Self { client, route, monitor }
    }
}

/// Chooses free ports of 127.0.0.1. None of them is one that the system gives to outgoing connections: those may be
/// taken while the server that uses the port is down.
pub fn free_ports<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    let ports = 10_000..first.max(10_100);
    // All are open at the same time, so they differ.
    let listeners = [(); COUNT].map(|()| {
        let listen = || {
            let port = ports.start + (RandomState::new().hash_one(0) % ports.len() as u64) as u16;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
        };
        std::iter::repeat_with(listen).take(1000).flatten().next().expect("a free port")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound socket"))
}
