//! Runs wsload and its test server, and reads the result.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_wsload");

/// The number of tests with a server. At most two run at a time, because the tests share few cores.
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

pub(crate) struct Turn;

impl Turn {
    pub(crate) fn take() -> Turn {
        let mut n = RUNNING.0.lock().expect("no test panics here");
        while *n >= 2 {
            n = RUNNING.1.wait(n).expect("no test panics here");
        }
        *n += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().expect("no test panics here") -= 1;
        RUNNING.1.notify_one();
    }
}

/// A child process that is killed when this value is dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Server {
    child: Guard,
    pub(crate) ws: u16,
    pub(crate) text: u16,
    pub(crate) api: u16,
    token: Scratch,
    /// Taken before the server starts, because some servers end by themselves after a while. Dropped last.
    _turn: Turn,
}

impl Server {
    pub(crate) fn start(args: &str) -> Server {
        let turn = Turn::take();
        let mut child = Command::new(BIN)
            .arg("selftest-server")
            .args(words(args))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the selftest server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let port = |key: &str| -> u16 {
            line.split_whitespace().find_map(|w| w.strip_prefix(key)?.parse().ok()).expect("a port")
        };
        let token = Scratch::new();
        std::fs::write(token.file("api-token"), "selftest\n").expect("a writable folder");
        Server { child: Guard(child), ws: port("ws="), text: port("text="), api: port("api="), token, _turn: turn }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.0.id().to_string()
    }

    /// Runs a scenario against this server.
    pub(crate) fn run(&self, args: &str) -> Run {
        let Server { ws, text, api, token, .. } = self;
        let token = token.file("api-token");
        wsload(&format!(
            "{args} --ws ws://127.0.0.1:{ws}/ --text 127.0.0.1:{text} --api 127.0.0.1:{api} --api-token-file '{token}'"
        ))
    }
}

/// Splits a command line into words. Single quotes keep spaces.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts.flat_map(|(i, part)| if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }).collect()
}

pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.json["counts"][key].as_u64().unwrap_or_else(|| panic!("no count {key} in {}", self.json))
    }

    /// Asserts that nothing went wrong.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert_eq!(self.json["faults"], 0, "{}", self.json);
        for key in
            ["lost", "duplicated", "out_of_order", "wrong_recipient", "corrupt", "unexpected", "connections_closed"]
        {
            assert_eq!(self.count(key), 0, "{key}: {}", self.json["counts"]);
        }
        assert!(self.count("sent") > 0);
        assert_eq!(self.count("sent"), self.count("delivered"));
    }
}

pub(crate) fn wsload(args: &str) -> Run {
    let begin = Instant::now();
    let out = Command::new(BIN).args(words(args)).stdin(Stdio::null()).output().expect("run wsload");
    let took = begin.elapsed();
    let stdout = String::from_utf8(out.stdout).expect("UTF-8");
    let stderr = String::from_utf8_lossy(&out.stderr).to_string();
    let last = stdout.lines().last().unwrap_or_else(|| panic!("no output; stderr: {stderr}"));
    let json = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"));
    Run { code: out.status.code().unwrap_or(-1), json, stderr, took }
}

/// A temporary folder, removed when this value is dropped.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"))
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().to_string()
    }
}

/// A loopback port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port()
}
