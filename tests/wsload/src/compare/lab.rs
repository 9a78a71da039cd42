//! Runs the measurements: servers on their cores, wsload on its own core, and a record of all runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::row::{Figure, Pair};
use super::server::{Kind, Ports, Programs, Server, Setup};
use crate::pinned;

pub(super) struct Lab {
    pub(super) programs: Programs,
    /// The server's core and wsload's.
    pub(super) cores: [usize; 2],
    /// Measured seconds of a run.
    pub(super) seconds: f64,
    /// The folder for files that servers need while they run.
    pub(super) scratch: PathBuf,
    /// The folder for the logs of servers.
    pub(super) logs: PathBuf,
    pub(super) round: u32,
    pub(super) row: &'static str,
    /// All runs with their results.
    pub(super) runs: Vec<Value>,
    /// Faults, to be listed at the end.
    pub(super) faults: Vec<String>,
}

impl Lab {
    /// Measures Hotgate and the server `beside`.
    pub(super) fn both(
        &mut self,
        beside: Kind,
        measure: impl FnMut(&mut Lab, Kind) -> Result<Figure, String>,
    ) -> Result<Pair, String> {
        self.in_turn(Kind::Hotgate, beside, measure)
    }

    /// Measures two subjects. Their order alternates from round to round.
    pub(super) fn in_turn<T>(
        &mut self,
        hotgate: T,
        beside: T,
        mut measure: impl FnMut(&mut Lab, T) -> Result<Figure, String>,
    ) -> Result<Pair, String> {
        if self.round.is_multiple_of(2) {
            let beside = measure(self, beside)?;
            Ok(Pair { hotgate: measure(self, hotgate)?, beside })
        } else {
            let hotgate = measure(self, hotgate)?;
            Ok(Pair { hotgate, beside: measure(self, beside)? })
        }
    }

    /// Starts a server on its core, with default settings.
    pub(super) fn server(&self, kind: Kind) -> Result<Server, String> {
        if kind != Kind::Tls {
            return self.server_with(kind, &self.cores[..1], "", &self.scratch);
        }
        let wrong = |error: &dyn std::fmt::Display| format!("a certificate: {error}");
        let key = KeyPair::generate().map_err(|error| wrong(&error))?;
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).map_err(|error| wrong(&error))?;
        let own = params.self_signed(&key).map_err(|error| wrong(&error))?;
        for (path, content) in [(self.certificate(), own.pem()), (self.scratch.join("key"), key.serialize_pem())] {
            fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let settings = "[[websocket.tls]]\ncertificate = \"certificate\"\nkey = \"key\"\n";
        self.server_with(kind, &self.cores[..1], settings, &self.scratch)
    }

    /// The file with the certificate of a server with TLS.
    fn certificate(&self) -> PathBuf {
        self.scratch.join("certificate")
    }

    pub(super) fn server_with(
        &self,
        kind: Kind,
        cores: &[usize],
        settings: &str,
        home: &Path,
    ) -> Result<Server, String> {
        let of_cores = if cores.len() > 1 { format!("-{}-cores", cores.len()) } else { String::new() };
        let log = self.logs.join(format!("{}-{}-{}{of_cores}.log", self.row, self.round, kind.name()));
        Server::start(&self.programs, Setup { kind, cores, home, settings, log })
    }

    /// Runs wsload against a server. Faults are kept for the end.
    pub(super) fn load(&mut self, server: &Server, kind: Kind, arguments: &str) -> Result<Value, String> {
        self.load_with(server, kind, arguments, &[])
    }

    /// Like `load`. The arguments in `more` may contain spaces.
    pub(super) fn load_with(
        &mut self,
        server: &Server,
        kind: Kind,
        arguments: &str,
        more: &[String],
    ) -> Result<Value, String> {
        let itself = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        arguments.extend_from_slice(more);
        let Ports { ws, text, api } = server.ports;
        let scheme = if kind == Kind::Tls { "wss" } else { "ws" };
        let output = pinned::command(&self.cores[1..], &itself)?
            .args(&arguments)
            .args(["--ws", &format!("{scheme}://127.0.0.1:{ws}/"), "--text", &format!("127.0.0.1:{text}")])
            .arg("--ca")
            .arg(self.certificate())
            .args(["--api", &format!("127.0.0.1:{api}"), "--api-token-file"])
            .arg(&server.token)
            .args(["--server-pid", &server.id().to_string(), "--quiet"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run wsload: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let result: Value = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| format!("wsload said nothing: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
        let place = format!("{}, round {}, {}", self.row, self.round, kind.name());
        self.runs.push(json!({
            "row": self.row, "round": self.round, "server": kind.name(), "arguments": arguments, "result": result,
        }));
        if let Some(why) = result["error"].as_str().or(result["aborted"].as_str()) {
            return Err(why.to_owned());
        }
        if result["faults"] != 0 {
            let counts = &result["counts"];
            self.faults.push(format!("{place}: {} faults: {counts}{}", result["faults"], server.complaints()));
        }
        Ok(result)
    }

    /// Creates an empty folder.
    pub(super) fn fresh_folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.scratch.join(format!("{name}-{}", self.round));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }
}
