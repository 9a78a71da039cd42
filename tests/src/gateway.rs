//! A running gateway process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::setup::{command, exit_code};
use crate::{
    Admin, Client, Component, Finished, Line, Log, Mark, PluginFile, Response, Sender, Setup, Upgrade, within,
};

/// A running gateway. Dropping this value kills the process. A failing test prints the end of the gateway's log.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    log: Log,
    setup: Setup,
    /// The port for clients.
    pub websocket: SocketAddr,
    /// The port for senders.
    pub text: SocketAddr,
}

impl Gateway {
    /// Starts a gateway with the default configuration and the default plugins.
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// Starts a gateway with the default plugins and with `config` as its `hotgate.toml`.
    pub async fn configured(config: &str) -> Self {
        Setup::new(config).start().await
    }

    /// Starts a gateway with this plugin in both roles.
    pub async fn with_plugin(component: &Component) -> Self {
        Setup::plugin(component, "").start().await
    }

    pub(crate) async fn new(setup: Setup) -> Self {
        let mut process = setup.spawn();
        let log = Log::read(process.stderr.take().expect("piped"));
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut gateway = Self { process, log, setup, websocket: nowhere, text: nowhere };
        gateway.listening().await;
        gateway
    }

    /// Kills the gateway and starts it again.
    pub async fn restart(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        self.start_again().await;
    }

    /// Starts the gateway again after it has ended, with its files and its state folder. The log begins anew.
    pub async fn start_again(&mut self) {
        self.process = self.setup.spawn();
        self.log = Log::read(self.process.stderr.take().expect("piped"));
        self.listening().await;
    }

    /// Sets the configuration for the next start.
    pub fn reconfigure(&mut self, config: &str) {
        self.setup.reconfigure(config);
    }

    async fn listening(&mut self) {
        let is_about = |line: &Line, name| line.message() == "listening" && line.get("listener") == name;
        // A Unix socket has no such address.
        let nowhere = SocketAddr::from(([0; 4], 0));
        let address = |line: &Line| line.get("address").parse().unwrap_or(nowhere);
        let text = self.logged(|line| is_about(line, "text")).await;
        self.text = address(&text);
        // It is logged first. A gateway that only passes on what is pushed has none.
        let before = self.log.since(Mark::default());
        self.websocket = before.iter().find(|line| is_about(line, "websocket")).map_or(nowhere, address);
    }

    /// The folder of `hotgate.toml` and the plugin files.
    pub fn folder(&self) -> &Path {
        self.setup.path()
    }

    /// The gateway's state folder.
    pub fn state_folder(&self) -> PathBuf {
        self.setup.state_folder()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A plugin file in the folder.
    pub fn file(&self, name: &str) -> PluginFile {
        PluginFile::new(self.folder().join(name))
    }

    /// Opens a connection. It has upgraded to WebSocket and has sent nothing yet.
    pub async fn connect(&self) -> Client {
        Client::connect(self.websocket, &Upgrade::default()).await
    }

    /// Opens a connection, which may be refused.
    ///
    /// # Errors
    /// The refusal.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<Client, Response> {
        Client::try_connect(self.websocket, upgrade).await
    }

    /// Opens a connection with these bytes. They begin with the upgrade request.
    ///
    /// # Errors
    /// The refusal.
    pub async fn connect_with(&self, first: &[u8]) -> Result<Client, Response> {
        let stream = within("connecting", TcpStream::connect(self.websocket)).await.expect("the port is open");
        Client::open(stream, first).await
    }

    /// Opens a connection whose receive buffer is as small as possible, so that little data fills it.
    pub async fn connect_narrow(&self) -> Client {
        Client::connect_from(([127, 0, 0, 1], 0).into(), self.websocket, true).await.expect("an upgrade")
    }

    /// Opens a connection from another address of the loopback network. Linux has all of them.
    ///
    /// # Errors
    /// The refusal.
    pub async fn connect_from(&self, address: [u8; 4]) -> Result<Client, Response> {
        Client::connect_from((address, 0).into(), self.websocket, false).await
    }

    /// Opens a connection and logs in with the default plugins.
    pub async fn login(&self, uid: &str) -> Client {
        Self::logged_in(self.connect().await, uid).await
    }

    /// Opens a connection whose receive buffer is as small as possible, and logs in with the default plugins.
    pub async fn login_narrow(&self, uid: &str) -> Client {
        Self::logged_in(self.connect_narrow().await, uid).await
    }

    async fn logged_in(mut client: Client, uid: &str) -> Client {
        client.expect("HeartBeat").await;
        client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
        client.expect("Link_successful").await;
        client
    }

    /// Opens a connection and logs in with the fixture plugin, as `uid`.
    pub async fn enter(&self, uid: &str) -> Client {
        self.enter_as(&format!("login {uid}")).await
    }

    /// Opens a connection and reads the greeting of the fixture plugin.
    pub async fn greeted(&self) -> Client {
        let mut client = self.connect().await;
        let hello = client.text().await;
        assert!(hello.starts_with("hello v"), "{hello:?}");
        client
    }

    /// Opens a connection and logs in with the fixture plugin, by this sentence.
    pub async fn enter_as(&self, sentence: &str) -> Client {
        let mut client = self.greeted().await;
        client.send(sentence).await;
        let welcome = client.text().await;
        assert!(welcome.starts_with("welcome "), "{welcome:?}");
        client
    }

    /// Opens a connection to the text port.
    pub async fn sender(&self) -> Sender {
        Sender::connect(self.text).await
    }

    /// Returns `true` if a push reaches the uid.
    pub async fn reaches(&self, uid: &str) -> bool {
        self.sender().await.ask(format!(r#"{{"uid":"{uid}"}}"#)).await == "ok"
    }

    /// The admin listener, with its token.
    pub async fn admin(&self) -> Admin {
        self.http("admin", "admin-token").await
    }

    /// The HTTP push API, with the token of its file. The token is empty if there is no such file.
    pub async fn api(&self) -> Admin {
        self.http("api", "api-token").await
    }

    async fn http(&self, listener: &str, file: &str) -> Admin {
        let line = self.logged(|line| line.message() == "listening" && line.get("listener") == listener).await;
        let token = std::fs::read_to_string(self.state_folder().join(file)).unwrap_or_default();
        Admin { address: line.get("address").parse().expect("an address"), token: token.trim().to_owned() }
    }

    /// Runs `hotgate plugin` with these arguments against this gateway.
    pub async fn plugin(&self, arguments: &[&str]) -> Finished {
        self.operate("plugin", arguments).await
    }

    /// Runs `hotgate cluster` with these arguments against this gateway.
    pub async fn cluster(&self, arguments: &[&str]) -> Finished {
        self.operate("cluster", arguments).await
    }

    /// Runs `hotgate drain` with these arguments against this gateway.
    pub async fn drain(&self, arguments: &[&str]) -> Finished {
        self.operate("drain", arguments).await
    }

    async fn operate(&self, subcommand: &str, arguments: &[&str]) -> Finished {
        let Admin { address, .. } = self.admin().await;
        let token = self.state_folder().join("admin-token");
        let (address, token) = (address.to_string(), token.to_str().expect("a path in UTF-8"));
        let mut command = command(self.folder());
        command.arg(subcommand).args(["--address", &address, "--token-file", token]).args(arguments);
        Finished::of(command).await
    }

    /// Runs `hotgate` with these arguments, with the settings and the environment of this gateway.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.setup.run(arguments).await
    }

    /// Runs `hotgate` with these arguments in this gateway's folder.
    pub async fn hotgate(&self, arguments: &[&str]) -> Finished {
        let mut command = command(self.folder());
        command.args(arguments);
        Finished::of(command).await
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a line of the log. Searches from the first line.
    pub async fn logged(&self, wanted: impl Fn(&Line) -> bool) -> Line {
        self.logged_since(Mark::default(), wanted).await
    }

    /// Waits for a line of the log. Searches from `mark`.
    pub async fn logged_since(&self, mark: Mark, wanted: impl Fn(&Line) -> bool) -> Line {
        match within("a line of the log", self.log.find(mark, wanted)).await {
            Some(line) => line,
            None => panic!("the gateway has ended"),
        }
    }

    /// Waits until a plugin has been swapped.
    pub async fn swapped_since(&self, mark: Mark) -> Line {
        self.logged_since(mark, |line| line.message() == "plugin swapped").await
    }

    /// Waits until a plugin has been refused.
    pub async fn refused_since(&self, mark: Mark) -> Line {
        self.logged_since(mark, |line| line.message() == "plugin refused").await
    }

    /// Sends a signal by its short name. After `STOP`, the gateway stands still.
    ///
    /// # Panics
    /// When it does not stand still in time.
    pub fn signal(&self, name: &str) {
        // Uses the shell's own `kill`: the standard library has none, and not every machine has a program `kill`.
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success(), "{kill}");
        if name == "STOP" {
            let stat = format!("/proc/{}/stat", self.process.id());
            // Its threads stop one after the other, and not before each has had its turn.
            let stands = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
            let mut left = 5_000;
            while !stands() {
                left -= 1;
                assert!(left > 0, "{kill}: it runs on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Limits the size of files that the gateway writes from now on, in bytes or `unlimited`. A small limit acts like a
    /// full disk. Returns `false` if there is no program `prlimit`.
    pub fn limit_files(&self, bytes: &str) -> bool {
        let (pid, limit) = (format!("--pid={}", self.process.id()), format!("--fsize={bytes}:"));
        Command::new("prlimit").args([pid, limit]).status().is_ok_and(|status| status.success())
    }

    /// Waits until the process ends. Returns its exit code, or `None` if a signal ended the process.
    pub async fn exit_code(&mut self) -> Option<i32> {
        exit_code(&mut self.process).await
    }

    /// The physical memory of the process, in bytes. `None` on systems without `/proc`.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The highest physical memory of the process since its start, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:").expect("Linux")
    }

    fn status_bytes(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))?;
        Some(kibibytes.trim().parse::<u64>().ok()? << 10)
    }

    /// The CPU time that the process has used, in steps of 10 ms. Child processes do not count.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("Linux");
        let fields = stat.rsplit(") ").next().expect("fields after the name").split(' ');
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        self.setup.share_compiled();
        if std::thread::panicking() {
            eprintln!("the end of the gateway's log:\n{}", self.log.tail());
        }
    }
}
