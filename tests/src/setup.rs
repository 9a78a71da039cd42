//! What a gateway is started with.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::compiled::Compiled;
use crate::{Component, Gateway, Log, Mark, build, eventually, within};

/// A folder with `hotgate.toml` and plugin files, and a command line.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    config: String,
    /// What makes it serve.
    serving: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A command that runs the command which follows it.
    launcher: Vec<String>,
    state: Compiled,
}

/// How a command ended that was not expected to stay.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it had to say, the log included.
    pub stderr: String,
}

impl Setup {
    /// Settings as `hotgate.toml` has them; where to listen is taken care of.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = config.to_owned();
        let state = Compiled::shared();
        let serving = ["serve", "--config", "hotgate.toml"].map(str::to_owned).into();
        let (arguments, environment, launcher) = (Vec::new(), Vec::new(), Vec::new());
        Self { folder, config, serving, arguments, environment, launcher, state }
    }

    /// A plugin that fills both roles from the file `plugin.wasm`, with these keys in both of its entries.
    pub fn plugin(component: &Component, keys: &str) -> Self {
        let entry = format!("file = \"plugin.wasm\"\n{keys}\n");
        Self::new(&format!("[[authenticator]]\n{entry}[router]\n{entry}")).file("plugin.wasm", component)
    }

    /// More settings.
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

    /// Adds an argument to the command line, after `serve` and where to listen.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds a variable to the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the process have this many open files and sockets at most.
    pub fn descriptors(self, limit: u32) -> Self {
        self.limited(&format!("-n {limit}"))
    }

    /// Lets the process have this many bytes of memory at most. Too few for a gateway.
    pub fn memory(self, bytes: u64) -> Self {
        self.limited(&format!("-d {}", bytes >> 10))
    }

    fn limited(mut self, limit: &str) -> Self {
        self.launcher = ["sh", "-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")].map(str::to_owned).into();
        self
    }

    /// Lets the process have this much address space, in GiB.
    pub fn address_space(mut self, limit: u32) -> Self {
        let limit = u64::from(limit) << 20;
        self.launcher = ["sh", "-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\"")].map(str::to_owned).into();
        self
    }

    /// Has it run on one of the processors, although there are more.
    pub fn one_processor(mut self) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("Linux says so");
        let first = allowed.trim().split([',', '-']).next().expect("at least one");
        self.launcher = ["taskset", "-c", first].map(str::to_owned).into();
        self
    }

    /// Adds words to the command that starts the process: it runs the command that follows it.
    pub(crate) fn launcher(mut self, words: &[&str]) -> Self {
        self.launcher.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Gives the state folder a disk of its own of this size. Works where [`may_mount`](Self::may_mount).
    pub fn disk(mut self, size: &str) -> Self {
        std::fs::create_dir_all(self.state_folder()).expect("a writable folder");
        let mount = format!("mount -t tmpfs -o size={size},mode=700 tmpfs \"$XDG_STATE_HOME/hotgate\"");
        let script = format!("{mount} && exec \"$0\" \"$@\"");
        self.launcher = ["unshare", "-rm", "sh", "-c", &script].map(str::to_owned).into();
        self
    }

    /// Whether users of this machine may have file systems of their own.
    pub fn may_mount() -> bool {
        Command::new("unshare")
            .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .status()
            .is_ok_and(|it| it.success())
    }

    /// Serves by `hotgate dev` what is in this folder.
    pub fn developing(mut self, project: &str) -> Self {
        self.serving = ["dev", project].map(str::to_owned).into();
        self
    }

    /// Compiles its plugins itself, whatever other tests have compiled.
    pub fn compiling(mut self) -> Self {
        self.state = Compiled::none();
        self
    }

    /// The folder for what outlives the gateway. It is not there before the first start.
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
    /// When it does not come to that.
    pub async fn start(self) -> Gateway {
        Gateway::new(self).await
    }

    /// Starts the gateway and ends it once it listens: what was compiled is kept for the next start.
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
        command.args(["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"]);
        command.args(&self.arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Lets other tests have what was compiled.
    pub(crate) fn share_compiled(&self) {
        self.state.share();
    }

    /// Runs `hotgate` with exactly these arguments to its end.
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
        let words = self.launcher.iter().map(OsStr::new).chain([build::hotgate().as_os_str()]).collect::<Vec<_>>();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        surround(&mut command, self.folder.path());
        command.env("XDG_STATE_HOME", self.state.home());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Finished {
    /// Runs a command to its end.
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (stdout, stderr) = (drain(process.stdout.take()), drain(process.stderr.take()));
        let code = exit_code(&mut process).await;
        Self { code, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
    }
}

/// `hotgate` in a folder.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(build::hotgate());
    surround(&mut command, folder);
    command
}

/// What a command finds around it: this folder, which also keeps its state, and nothing of the machine's own settings.
fn surround(command: &mut Command, folder: &Path) {
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOTGATE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
    // What is compiled once is there for every test.
    command.env("XDG_CACHE_HOME", build::cache("cache"));
    command.env("XDG_STATE_HOME", folder).env("HOTGATE_ADMIN_LISTEN", "127.0.0.1:0");
}

/// Reads to the end on a thread of its own.
fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.expect("piped").read_to_string(&mut text).expect("text");
        text
    })
}

/// Waits for a process to end; the exit code, or `None` after a signal.
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
