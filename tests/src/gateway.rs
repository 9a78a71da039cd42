//! A running gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::setup::{command, exit_code};
use crate::{
    Admin, Client, Component, Finished, Line, Log, Mark, PluginFile, Response, Sender, Setup, Upgrade, within,
};

/// A running gateway. Dropping it kills it; a failing test shows the end of its log.
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
    /// As it is: the default configuration and the default plugins.
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// The default plugins, and settings as `hotgate.toml` has them.
    pub async fn configured(config: &str) -> Self {
        Setup::new(config).start().await
    }

    /// This plugin in both roles.
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

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        self.start_again().await;
    }

    /// Starts it again after it has ended, with the files and the state that there are; the log begins anew.
    pub async fn start_again(&mut self) {
        self.process = self.setup.spawn();
        self.log = Log::read(self.process.stderr.take().expect("piped"));
        self.listening().await;
    }

    /// From the next start on it has these settings.
    pub fn reconfigure(&mut self, config: &str) {
        self.setup.reconfigure(config);
    }

    async fn listening(&mut self) {
        let address = async |name| {
            let line = self.logged(|line| line.message() == "listening" && line.get("listener") == name).await;
            line.get("address").parse().expect("an address")
        };
        (self.websocket, self.text) = (address("websocket").await, address("text").await);
    }

    /// The folder of `hotgate.toml` and the plugin files.
    pub fn folder(&self) -> &Path {
        self.setup.path()
    }

    /// The folder for what outlives the gateway.
    pub fn state_folder(&self) -> PathBuf {
        self.setup.state_folder()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A plugin file in the folder.
    pub fn file(&self, name: &str) -> PluginFile {
        PluginFile::new(self.folder().join(name))
    }

    /// A connection that has upgraded and said nothing yet.
    pub async fn connect(&self) -> Client {
        Client::connect(self.websocket, &Upgrade::default()).await
    }

    /// A connection that may be refused.
    ///
    /// # Errors
    /// The refusal.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<Client, Response> {
        Client::try_connect(self.websocket, upgrade).await
    }

    /// A connection that sends these bytes at once, of which the upgrade request is the beginning.
    ///
    /// # Errors
    /// The refusal.
    pub async fn connect_with(&self, first: &[u8]) -> Result<Client, Response> {
        let stream = within("connecting", TcpStream::connect(self.websocket)).await.expect("the port is open");
        Client::open(stream, first).await
    }

    /// A connection whose receive buffer is as small as can be: it takes little to fill it.
    pub async fn connect_narrow(&self) -> Client {
        Client::connect_from(([127, 0, 0, 1], 0).into(), self.websocket, true).await.expect("an upgrade")
    }

    /// A connection from another address of the loopback network, which Linux has ready.
    ///
    /// # Errors
    /// The refusal.
    pub async fn connect_from(&self, address: [u8; 4]) -> Result<Client, Response> {
        Client::connect_from((address, 0).into(), self.websocket, false).await
    }

    /// A client of the default plugins, logged in.
    pub async fn login(&self, uid: &str) -> Client {
        Self::logged_in(self.connect().await, uid).await
    }

    /// A client of the default plugins, logged in, whose receive buffer is as small as can be.
    pub async fn login_narrow(&self, uid: &str) -> Client {
        Self::logged_in(self.connect_narrow().await, uid).await
    }

    async fn logged_in(mut client: Client, uid: &str) -> Client {
        client.expect("HeartBeat").await;
        client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
        client.expect("Link_successful").await;
        client
    }

    /// A client of the fixture plugin, greeted and logged in.
    pub async fn enter(&self, uid: &str) -> Client {
        self.enter_as(&format!("login {uid}")).await
    }

    /// A client of the fixture plugin, greeted and logged in with this sentence.
    pub async fn enter_as(&self, sentence: &str) -> Client {
        let mut client = self.connect().await;
        let hello = client.text().await;
        assert!(hello.starts_with("hello v"), "{hello:?}");
        client.send(sentence).await;
        let welcome = client.text().await;
        assert!(welcome.starts_with("welcome "), "{welcome:?}");
        client
    }

    /// An internal sender.
    pub async fn sender(&self) -> Sender {
        Sender::connect(self.text).await
    }

    /// Whether a push reaches the uid.
    pub async fn reaches(&self, uid: &str) -> bool {
        self.sender().await.ask(format!(r#"{{"uid":"{uid}"}}"#)).await == "ok"
    }

    /// The admin listener.
    pub async fn admin(&self) -> Admin {
        let line = self.logged(|line| line.message() == "listening" && line.get("listener") == "admin").await;
        let token = std::fs::read_to_string(self.state_folder().join("admin-token")).expect("a token");
        Admin { address: line.get("address").parse().expect("an address"), token: token.trim().to_owned() }
    }

    /// Runs `hotgate plugin` with these arguments for this gateway.
    pub async fn plugin(&self, arguments: &[&str]) -> Finished {
        let Admin { address, .. } = self.admin().await;
        let token = self.state_folder().join("admin-token");
        let (address, token) = (address.to_string(), token.to_str().expect("a path in UTF-8"));
        let mut command = command(self.folder());
        command.arg("plugin").args(["--address", &address, "--token-file", token]).args(arguments);
        Finished::of(command).await
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a line of the log, from the first on.
    pub async fn logged(&self, wanted: impl Fn(&Line) -> bool) -> Line {
        self.logged_since(Mark::default(), wanted).await
    }

    /// Waits for a line of the log, from a place on.
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

    /// Sends a signal by its short name.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: the standard library has none, and not every machine has it as a program.
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success(), "{kill}");
    }

    /// Lets it write no file past this many bytes from now on, or any with `unlimited`: it meets a full disk so. `false` where
    /// there is no `prlimit`.
    pub fn limit_files(&self, bytes: &str) -> bool {
        let (pid, limit) = (format!("--pid={}", self.process.id()), format!("--fsize={bytes}:"));
        Command::new("prlimit").args([pid, limit]).status().is_ok_and(|status| status.success())
    }

    /// Waits for the end; the exit code, or `None` after a signal that nobody handled.
    pub async fn exit_code(&mut self) -> Option<i32> {
        exit_code(&mut self.process).await
    }

    /// The physical memory that the process has, in bytes; `None` where there is no `/proc`.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Bytes of memory that it has had at most since it started.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:").expect("Linux")
    }

    fn status_bytes(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))?;
        Some(kibibytes.trim().parse::<u64>().ok()? << 10)
    }

    /// What it has had of the processors, to a hundredth of a second. Children do not count.
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
