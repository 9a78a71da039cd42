//! A running NATS server.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Layout, ServerSetup, eventually, within};

/// A running NATS server. Dropping this value kills the process. A failing test prints the end of the server's log.
#[derive(Debug)]
pub struct Nats {
    process: Option<Child>,
    program: PathBuf,
    folder: Arc<TempDir>,
    name: String,
    layout: Layout,
    environment: Vec<(String, String)>,
}

impl Nats {
    pub(crate) async fn start(program: PathBuf, folder: Arc<TempDir>, setup: ServerSetup) -> Self {
        let ServerSetup { name, layout, configuration, environment } = setup;
        let mut server = Self { process: None, program, folder, name, layout, environment };
        server.configure(&configuration);
        server.restart().await;
        server
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.layout.client
    }

    /// The address for clients as a URL without TLS.
    pub fn url(&self) -> String {
        format!("nats://{}", self.layout.client)
    }

    /// The name of the server: `nats-1`, `nats-2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    ///
    /// # Panics
    /// If the server was killed.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// A folder of the test's own, for files of clients.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file into the folder.
    pub fn put(&self, name: &str, content: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, content).expect("a writable folder");
        file
    }

    /// Replaces the configuration. It counts from the next start on.
    pub fn configure(&self, configuration: &str) {
        std::fs::write(self.file("conf"), configuration).expect("a writable folder");
    }

    /// The configuration.
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.file("conf")).expect("the configuration")
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it ends");
        }
    }

    /// Starts the server again, on the same ports, and waits until it listens. Kills it first if it runs.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub async fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.file("log")).expect("a writable folder");
        let process = Command::new(&self.program)
            .arg("--config")
            .arg(self.file("conf"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("nats-server starts"));
        eventually("the server listens", async || {
            let process = self.process.as_mut().expect("started above");
            let ended = process.try_wait().expect("a child");
            assert!(ended.is_none(), "nats-server has ended ({ended:?}):\n{}", self.log());
            self.listens().await
        })
        .await;
    }

    /// Returns `true` if the server greets clients.
    async fn listens(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.layout.client).await else { return false };
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO "
    }

    /// Stops the process without ending it (SIGSTOP), and waits until all its threads have stopped. Its sockets stay
    /// open.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.id());
        eventually("all threads have stopped", async || {
            let mut threads = std::fs::read_dir(&threads).expect("Linux");
            threads.all(|thread| {
                let text =
                    std::fs::read_to_string(thread.expect("a thread").path().join("stat")).expect("a stopped thread");
                text.rsplit_once(')').is_some_and(|(_, state)| state.starts_with(" T"))
            })
        })
        .await;
    }

    /// Lets the process go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes the server reload its configuration (SIGHUP).
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Makes the server send its clients away and stop (SIGUSR2).
    pub fn lame_duck(&self) {
        self.signal(Signal::USR2);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id().cast_signed()).expect("a process id");
        kill_process(id, signal).expect("it runs");
    }

    /// Asks the server about itself, e.g. `/varz`, `/connz`, `/routez` or `/subsz`.
    ///
    /// # Panics
    /// When it does not answer with JSON in time.
    pub async fn ask(&self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = within("an answer of the server", async {
            let mut stream = TcpStream::connect(self.layout.monitor).await.expect("the port is open");
            stream.write_all(request.as_bytes()).await.expect("a request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
        })
        .await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// The number of clients that are connected.
    pub async fn clients(&self) -> u64 {
        self.ask("/varz").await["connections"].as_u64().expect("a number")
    }

    /// The log since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{ending}", self.name))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines = log.lines().collect::<Vec<_>>();
            eprintln!("the end of the log of {}:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            _ = process.kill();
            _ = process.wait();
        }
    }
}
