//! Everything with which a gateway is started.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::compiled::Compiled;
use crate::{Component, Gateway, Log, Mark, build, cache, eventually, within};

/// A folder with `hotgate.toml` and plugin files, and a command line.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    config: String,
    /// The words of the command line that make the program serve.
    serving: Vec<String>,
    /// The address for clients.
    websocket: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A command that starts the program, such as `taskset`.
    launcher: Vec<String>,
    /// Another binary than that of this workspace.
    binary: Option<PathBuf>,
    /// True if the harness chooses the addresses of the WebSocket port and of the text port.
    chooses_addresses: bool,
    state: Compiled,
}

/// The result of a command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error, the log included.
    pub stderr: String,
}

impl Setup {
    /// A setup with `config` as its `hotgate.toml`. The harness chooses the listening addresses.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = config.to_owned();
        let state = Compiled::shared();
        let serving = ["serve", "--config", "hotgate.toml"].map(str::to_owned).into();
        let (arguments, environment, launcher) = (Vec::new(), Vec::new(), Vec::new());
        let websocket = "127.0.0.1:0".to_owned();
        let (binary, chooses_addresses) = (None, true);
        Self { folder, config, serving, websocket, arguments, environment, launcher, binary, chooses_addresses, state }
    }

    /// A setup with one plugin, the file `plugin.wasm`, in both roles. `keys` stand in both of its tables.
    pub fn plugin(component: &Component, keys: &str) -> Self {
        let entry = format!("file = \"plugin.wasm\"\n{keys}\n");
        Self::new(&format!("[[authenticator]]\n{entry}[router]\n{entry}")).file("plugin.wasm", component)
    }

    /// Appends to `hotgate.toml`.
    pub fn and(mut self, config: &str) -> Self {
        self.config += config;
        self
    }

    pub(crate) fn reconfigure(&mut self, config: &str) {
        config.clone_into(&mut self.config);
    }

    /// Puts a plugin file beside `hotgate.toml`.
    pub fn file(self, name: &str, component: &Component) -> Self {
        self.bytes(name, component.bytes())
    }

    /// Puts any file beside `hotgate.toml`.
    pub fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.folder.path().join(name), bytes).expect("a writable folder");
        self
    }

    /// Adds an argument to the command line, after `serve` and the listening addresses.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Listens for clients on another address than 127.0.0.1:0.
    pub fn websocket(mut self, address: &str) -> Self {
        address.clone_into(&mut self.websocket);
        self
    }

    /// Adds a variable to the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the configuration choose the addresses of the WebSocket port and of the text port.
    pub fn without_addresses(mut self) -> Self {
        self.chooses_addresses = false;
        self
    }

    /// Passes sockets with these names and addresses to the process, as systemd does (sd_listen_fds(3)).
    pub fn activated(mut self, sockets: &[(&str, &str)]) -> Self {
        const SCRIPT: &str = "\
            import os, socket, sys\n\
            count = int(sys.argv[1])\n\
            pairs = [pair.split('=') for pair in sys.argv[2:2 + count]]\n\
            sockets = []\n\
            for name, address in pairs:\n\
            \x20   host, port = address.rsplit(':', 1)\n\
            \x20   sockets.append(socket.create_server((host, int(port))))\n\
            high = [os.dup2(own.fileno(), 100 + index) for index, own in enumerate(sockets)]\n\
            for index, fd in enumerate(high):\n\
            \x20   os.dup2(fd, 3 + index, inheritable=True)\n\
            os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))\n\
            os.environ['LISTEN_FDNAMES'] = ':'.join(name for name, _ in pairs)\n\
            os.execv(sys.argv[2 + count], sys.argv[2 + count:])\n";
        let pairs = sockets.iter().map(|(name, address)| format!("{name}={address}"));
        let words = ["python3", "-c", SCRIPT].map(str::to_owned).into_iter().chain([sockets.len().to_string()]);
        self.launcher = words.chain(pairs).collect();
        self
    }

    /// Limits the open files and sockets of the process.
    pub fn descriptors(self, limit: u32) -> Self {
        self.limited(&format!("-n {limit}"))
    }

    /// Limits the memory (data segment) of the process to this many bytes, too few for a gateway.
    pub fn memory(self, bytes: u64) -> Self {
        self.limited(&format!("-d {}", bytes >> 10))
    }

    fn limited(mut self, limit: &str) -> Self {
        self.launcher = ["sh", "-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")].map(str::to_owned).into();
        self
    }

    /// Limits the address space of the process, in GiB.
    pub fn address_space(mut self, limit: u32) -> Self {
        let limit = u64::from(limit) << 20;
        self.launcher = ["sh", "-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\"")].map(str::to_owned).into();
        self
    }

    /// Runs the process on one processor only.
    pub fn one_processor(mut self) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("Linux says so");
        let first = allowed.trim().split([',', '-']).next().expect("at least one");
        self.launcher = ["taskset", "-c", first].map(str::to_owned).into();
        self
    }

    /// Starts another binary, for example one of an older version. It compiles its plugins itself.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self.compiling()
    }

    /// Adds words to the launcher: a command that starts the program that follows it.
    pub(crate) fn launcher(mut self, words: &[&str]) -> Self {
        self.launcher.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Gives the state folder a file system of its own, of this size. Works only if [`may_mount`](Self::may_mount).
    pub fn disk(mut self, size: &str) -> Self {
        std::fs::create_dir_all(self.state_folder()).expect("a writable folder");
        let mount = format!("mount -t tmpfs -o size={size},mode=700 tmpfs \"$XDG_STATE_HOME/hotgate\"");
        let script = format!("{mount} && exec \"$0\" \"$@\"");
        self.launcher = ["unshare", "-rm", "sh", "-c", &script].map(str::to_owned).into();
        self
    }

    /// Returns `true` if users of this machine may mount file systems.
    pub fn may_mount() -> bool {
        Command::new("unshare")
            .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .status()
            .is_ok_and(|it| it.success())
    }

    /// Starts `hotgate dev` for the project in this folder, instead of `hotgate serve`.
    pub fn developing(mut self, project: &str) -> Self {
        self.serving = ["dev", project].map(str::to_owned).into();
        self
    }

    /// Makes the gateway compile its plugins itself, without compiled plugins of other tests.
    pub fn compiling(mut self) -> Self {
        self.state = Compiled::none();
        self
    }

    /// The gateway's state folder. It does not exist before the first start.
    pub fn state_folder(&self) -> PathBuf {
        self.state.folder()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the gateway on free ports, and waits until it listens.
    ///
    /// # Panics
    /// When the gateway does not listen in time.
    pub async fn start(self) -> Gateway {
        Gateway::new(self).await
    }

    /// Starts the gateway and kills it once it listens. Its compiled plugins are kept for the next start.
    pub async fn rehearse(&self) {
        let mut process = self.spawn();
        let log = Log::read(process.stderr.take().expect("piped"));
        let listening = log.find(Mark::default(), |line| line.message() == "listening");
        assert!(within("a start", listening).await.is_some(), "{}", log.tail());
        process.kill().expect("it runs");
        process.wait().expect("it ends");
    }

    pub(crate) fn spawn(&self) -> Child {
        let mut command = self.command();
        command.args(&self.serving).args(["--log-format", "json"]);
        if self.chooses_addresses {
            command.args(["--websocket-listen", &self.websocket, "--text-listen", "127.0.0.1:0"]);
        }
        command.args(&self.arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Shares the compiled plugins with other tests.
    pub(crate) fn share_compiled(&self) {
        self.state.share();
    }

    /// Runs `hotgate` with exactly these arguments until it ends.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        Finished::of(command).await
    }

    fn command(&self) -> Command {
        std::fs::write(self.folder.path().join("hotgate.toml"), &self.config).expect("a writable folder");
        let binary = self.binary.as_deref().unwrap_or_else(|| build::hotgate());
        let words = self.launcher.iter().map(OsStr::new).chain([binary.as_os_str()]).collect::<Vec<_>>();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        surround(&mut command, self.folder.path());
        command.env("XDG_STATE_HOME", self.state.home());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Finished {
    /// Runs a command until it ends.
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (stdout, stderr) = (drain(process.stdout.take()), drain(process.stderr.take()));
        let code = exit_code(&mut process).await;
        Self { code, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
    }
}

/// A command that runs `hotgate` in this folder.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(build::hotgate());
    surround(&mut command, folder);
    command
}

/// Sets the environment of a command: this folder, which also holds its state, and none of the machine's own settings.
fn surround(command: &mut Command, folder: &Path) {
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOTGATE_") {
            command.env_remove(name);
        }
    }
    for name in ["RUST_LOG", "STATE_DIRECTORY", "CARGO_TARGET_DIR", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    // All tests share one cache of compiled plugins.
    command.env("XDG_CACHE_HOME", cache("cache"));
    command
        .env("XDG_STATE_HOME", folder)
        .env("HOTGATE_ADMIN_LISTEN", "127.0.0.1:0")
        .env("HOTGATE_API_LISTEN", "127.0.0.1:0");
}

/// Reads a stream to its end, on a thread of its own.
fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.expect("piped").read_to_string(&mut text).expect("text");
        text
    })
}

/// Waits until a process ends. Returns the exit code, or `None` if a signal ended the process.
///
/// # Panics
/// When it does not end.
pub(crate) async fn exit_code(process: &mut Child) -> Option<i32> {
    let mut code = None;
    eventually("the end of the process", async || match process.try_wait().expect("a child") {
        Some(status) => {
            code = status.code();
            true
        }
        None => false,
    })
    .await;
    code
}
