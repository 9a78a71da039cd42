//! Shell commands that run at given moments of the traffic.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::sys;

#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) at_s: f64,
    pub(crate) shell: String,
}

impl Planned {
    /// Parses SECONDS:COMMAND, such as `5:cp a b`.
    pub(crate) fn parse(text: &str) -> Result<Planned, String> {
        let bad = || format!("--at '{text}': must be SECONDS:COMMAND");
        let (at, shell) = text.split_once(':').ok_or_else(bad)?;
        let at_s: f64 = at.trim().parse().map_err(|_| bad())?;
        if !at_s.is_finite() || at_s < 0.0 || shell.trim().is_empty() {
            return Err(bad());
        }
        Ok(Planned { at_s, shell: shell.trim().to_string() })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) index: usize,
    /// Seconds after the traffic started.
    pub(crate) started_s: f64,
    pub(crate) took_s: f64,
    /// Exit status, or an error.
    pub(crate) result: Result<i32, String>,
    pub(crate) output: String,
}

/// Runs the planned commands. Each has its own helper thread and process group, so that the event loop never waits for
/// it.
pub(crate) struct Commands {
    pub(crate) planned: Vec<Planned>,
    limit: Duration,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    results: (Sender<Ran>, Receiver<Ran>),
}

impl Commands {
    pub(crate) fn new(planned: Vec<Planned>, limit_s: f64) -> Commands {
        Commands {
            planned,
            limit: Duration::from_secs_f64(limit_s),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            results: channel(),
        }
    }

    /// Starts the helper threads. Their time zero is `in_ns` from now.
    pub(crate) fn start(&mut self, in_ns: u64) {
        let zero = Instant::now() + Duration::from_nanos(in_ns);
        for (index, p) in self.planned.iter().cloned().enumerate() {
            let (stop, limit, tx) = (self.stop.clone(), self.limit, self.results.0.clone());
            self.threads.push(std::thread::spawn(move || {
                // The command inherits this priority. It may share a core with the event loop.
                sys::lower_thread_priority();
                let due = zero + Duration::from_secs_f64(p.at_s);
                loop {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(left.min(Duration::from_millis(100)));
                }
                let begin = Instant::now();
                let (result, output) = run_shell(&p.shell, limit, &stop);
                let _ = tx.send(Ran {
                    index,
                    started_s: begin.saturating_duration_since(zero).as_secs_f64(),
                    took_s: begin.elapsed().as_secs_f64(),
                    result,
                    output,
                });
            }));
        }
    }

    /// Gives running commands a moment to finish, then stops them. Returns all results.
    pub(crate) fn finish(self) -> Vec<Ran> {
        let patience = Instant::now() + Duration::from_secs(2);
        while Instant::now() < patience && self.threads.iter().any(|t| !t.is_finished()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            let _ = t.join();
        }
        drop(self.results.0);
        let mut all: Vec<Ran> = self.results.1.iter().collect();
        all.sort_by_key(|r| r.index);
        all
    }
}

/// Runs one command. Kills its whole process group if it takes too long.
fn run_shell(shell: &str, limit: Duration, stop: &AtomicBool) -> (Result<i32, String>, String) {
    let begin = Instant::now();
    let spawned = Command::new("sh")
        .arg("-c")
        .arg(shell)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(c) => c,
        Err(e) => return (Err(format!("spawn: {e}")), String::new()),
    };
    let result = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code().ok_or_else(|| status.to_string()),
            Ok(None) => {}
            Err(e) => break Err(format!("wait: {e}")),
        }
        if begin.elapsed() > limit || stop.load(Ordering::Relaxed) {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            break Err("stopped: it took too long".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut output = Vec::new();
    if let Some(mut err) = child.stderr.take() {
        // A background child may keep the pipe open, so only the bytes that are there now are read.
        let mut chunk = [0u8; 1000];
        if ioctl_fionbio(&err, true).is_ok()
            && let Ok(n) = err.read(&mut chunk)
        {
            output.extend_from_slice(&chunk[..n]);
        }
    }
    (result, String::from_utf8_lossy(&output).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_commands() {
        let p = Planned::parse("5:cp a:b plugins/x").unwrap();
        assert_eq!((p.at_s, p.shell.as_str()), (5.0, "cp a:b plugins/x"));
        assert_eq!(Planned::parse("0.25: true ").unwrap().shell, "true");
        for bad in ["x", "5:", "-1:true", "x:true", "5"] {
            assert!(Planned::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shell_results() {
        let stop = AtomicBool::new(false);
        let run = |s: &str, ms| run_shell(s, Duration::from_millis(ms), &stop);
        assert_eq!(run("exit 3", 5000).0, Ok(3));
        assert_eq!(run("echo oops >&2; false", 5000), (Ok(1), "oops".into()));
        let begin = Instant::now();
        assert!(run("sleep 20", 100).0.is_err());
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
