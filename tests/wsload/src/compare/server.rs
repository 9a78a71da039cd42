//! The processes of the compared servers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pinned;

/// The longest time until a server listens. The first Hotgate compiles its plugins.
const START: Duration = Duration::from_secs(60);

/// The reference server in Bun.
const BUN_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/bun/server.mjs");

/// The kind of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Hotgate,
    /// Hotgate with TLS for its clients.
    Tls,
    /// Hotgate, pushed to through its text port: what its HTTP API is compared with.
    TextPort,
    /// A server in Node with the same rules compiled in.
    Node,
    /// A server in Bun with the same rules compiled in.
    Bun,
    /// A bare loop of `send`: the least work that any server must do for a broadcast.
    Bare,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Hotgate => "hotgate",
            Kind::Tls => "wss",
            Kind::TextPort => "text-port",
            Kind::Node => "node",
            Kind::Bun => "bun",
            Kind::Bare => "bare",
        }
    }
}

/// The paths of the programs.
pub(super) struct Programs {
    pub(super) hotgate: PathBuf,
    pub(super) node: PathBuf,
    pub(super) node_server: PathBuf,
    pub(super) bun: PathBuf,
    /// The folder of the default plugins' files.
    pub(super) plugins: PathBuf,
}

/// Everything needed to start a server.
pub(super) struct Setup<'a> {
    pub(super) kind: Kind,
    pub(super) cores: &'a [usize],
    /// Hotgate's folder, for its configuration and state.
    pub(super) home: &'a Path,
    /// More settings for `hotgate.toml`.
    pub(super) settings: &'a str,
    /// The file for its output.
    pub(super) log: PathBuf,
}

/// A server that listens. Dropping this value kills the server.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
    pub(super) ports: Ports,
    /// The file with the token of Hotgate's HTTP API.
    pub(super) token: PathBuf,
}

/// The ports of a server. Without an HTTP API, its port is 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Ports {
    pub(super) ws: u16,
    pub(super) text: u16,
    pub(super) api: u16,
}

impl Server {
    pub(super) fn start(programs: &Programs, setup: Setup<'_>) -> Result<Server, String> {
        let Setup { kind, cores, home, settings, log } = setup;
        let mut command = match kind {
            Kind::Hotgate | Kind::Tls | Kind::TextPort => {
                let mut command = pinned::command(cores, &programs.hotgate)?;
                command.arg("--config").arg(configure(home, settings)?);
                // The user's own settings must not change the comparison.
                for (name, _) in
                    std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HOTGATE_"))
                {
                    command.env_remove(name);
                }
                command
            }
            Kind::Node => {
                let mut command = pinned::command(cores, &programs.node)?;
                command.arg(&programs.node_server).args(["0", "0"]);
                command
            }
            Kind::Bun => {
                let mut command = pinned::command(cores, &programs.bun)?;
                command.args([BUN_SERVER, "0", "0"]);
                command
            }
            Kind::Bare => {
                let itself = std::env::current_exe().map_err(|error| error.to_string())?;
                let mut command = pinned::command(cores, &itself)?;
                command.args(["selftest-server", "--max-seconds", "600", "--bare-broadcast"]);
                command
            }
        };
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", kind.name()))?;
        let mut server = Server { child, log, ports: Ports::default(), token: home.join("state/api-token") };
        server.ports = server.listening().map_err(|why| format!("{}: {why}", kind.name()))?;
        Ok(server)
    }

    /// Waits until the server prints its ports, and returns them.
    fn listening(&mut self) -> Result<Ports, String> {
        let deadline = Instant::now() + START;
        loop {
            let log = self.log();
            if let Some(ports) = hotgate_ports(&log).or_else(|| plain_ports(&log)) {
                return Ok(ports);
            }
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let what = if ended.is_some() { "ended" } else { "does not listen" };
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!("{what}: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The server's output so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last warnings in the server's log, one on each line.
    pub(super) fn complaints(&self) -> String {
        let log = self.log();
        let warnings: Vec<&str> =
            log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).collect();
        warnings.iter().rev().take(3).rev().map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that the server has ended already, which was reported before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a `hotgate.toml` with free ports and a state folder of its own.
fn configure(home: &Path, settings: &str) -> Result<PathBuf, String> {
    let file = home.join("hotgate.toml");
    let text = format!(
        "state_folder = \"state\"\n{settings}\n[log]\nformat = \"json\"\n[websocket]\nlisten = \"127.0.0.1:0\"\n\
         [text]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n"
    );
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

fn hotgate_ports(log: &str) -> Option<Ports> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let listening: Vec<Value> = lines.filter(|line| line["message"] == "listening").collect();
    let port = |name: &str| {
        let line = listening.iter().find(|line| line["listener"] == name)?;
        line["address"].as_str()?.rsplit(':').next()?.parse().ok()
    };
    Some(Ports { ws: port("websocket")?, text: port("text")?, api: port("api")? })
}

/// Reads the ports from a line like `listening ws=1234 text=5678`.
fn plain_ports(log: &str) -> Option<Ports> {
    let line = log.lines().find(|line| line.starts_with("listening "))?;
    let port = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
    Some(Ports { ws: port("ws=")?, text: port("text=")?, api: port("api=").unwrap_or(0) })
}
