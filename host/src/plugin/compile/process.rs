//! The gateway's end of the process that compiles.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{env, io};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wasmtime::Engine;

use super::CompileError;
use super::child::{COMMAND, Job, understand};
use crate::config::CompilerConfig;
use crate::plugin::guest_log::clean;

/// Bytes of what the child writes to standard error that are shown.
const MAX_WORDS: u64 = 1024;

/// What Rust programs say when they end for want of memory.
const OUT_OF_MEMORY: &str = "memory allocation of";

/// How long a killed child may take to be gone.
const LONGEST_DYING: Duration = Duration::from_secs(5);

/// Compiles a component in a process that ends with this call, however it ends.
pub(super) async fn compile(engine: &Engine, code: &[u8], config: &CompilerConfig) -> Result<Vec<u8>, CompileError> {
    let job = Job::new(engine, code, config);
    let mut child = spawn_blocking(start).await.map_err(io::Error::other)??;
    let answer = timeout(config.timeout, talk(&mut child, job, code, config)).await;
    let answer = answer.unwrap_or(Err(CompileError::Timeout(config.timeout)));
    if answer.is_err() {
        // Waits for its end, too: a dead child stays in the list of processes until then.
        let _ = timeout(LONGEST_DYING, child.kill()).await;
    }
    answer
}

/// Blocks until the new process runs.
fn start() -> io::Result<Child> {
    // The binary that runs, also when there is another one in its place by now.
    let running = Path::new("/proc/self/exe");
    let binary: PathBuf = if running.exists() { running.into() } else { env::current_exe()? };
    Command::new(binary)
        .arg0(env!("CARGO_PKG_NAME"))
        .arg(COMMAND)
        .env_clear()
        .current_dir("/")
        // Keys that are pressed in the gateway's terminal are not for it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn talk(child: &mut Child, job: Job, code: &[u8], config: &CompilerConfig) -> Result<Vec<u8>, CompileError> {
    let pipe = || io::Error::other("there is no pipe to it");
    let mut input = child.stdin.take().ok_or_else(pipe)?;
    let output = child.stdout.take().ok_or_else(pipe)?;
    let errors = child.stderr.take().ok_or_else(pipe)?;
    let ask = async {
        input.write_all(&job.to_bytes()).await?;
        input.write_all(code).await?;
        input.flush().await
    };
    // One byte more than the code says what it is.
    let hear = async { read(output, config.max_code + 1).await?.ok_or(CompileError::TooLarge(config.max_code)) };
    let overhear = async {
        let mut words = Vec::new();
        let _ = errors.take(MAX_WORDS).read_to_end(&mut words).await;
        Ok(words)
    };
    // That it does not listen says nothing; how it ends does.
    let (_, hearing) = tokio::join!(ask, async { tokio::try_join!(hear, overhear) });
    let (answer, words) = hearing?;
    let status = child.wait().await?;
    // Open until now: its end would be the child's.
    drop(input);
    if status.success() { understand(answer) } else { Err(failure(status, &words, config)) }
}

/// Reads to the end; `None` if that is past the limit.
async fn read(mut stream: impl AsyncRead + Unpin, limit: usize) -> Result<Option<Vec<u8>>, CompileError> {
    let mut bytes = Vec::new();
    (&mut stream).take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// Why a child has ended that did not end well.
fn failure(status: ExitStatus, words: &[u8], config: &CompilerConfig) -> CompileError {
    let words = clean(words, MAX_WORDS as usize);
    if words.contains(OUT_OF_MEMORY) {
        return CompileError::Memory(config.memory);
    }
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() => CompileError::Timeout(config.timeout),
        Some(signal)
            if [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw).contains(&signal) =>
        {
            CompileError::Killed { signal }
        }
        _ if words.is_empty() => CompileError::Crashed(status.to_string()),
        _ => CompileError::Crashed(format!("{status}; stderr: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_child_ends_tells_why() {
        let reason = |status: i32, words: &[u8]| {
            let error = failure(ExitStatus::from_raw(status), words, &CompilerConfig::default());
            (error.to_string(), error.is_passing())
        };
        let (killed, aborted, crashed, overtime) = (9, 6, 11, 24);
        assert_eq!(reason(killed, b""), ("the compiler was killed by signal 9".to_owned(), true));
        let memory = "compiling it takes more than 2147483648 bytes of memory (compiler.memory)";
        assert_eq!(reason(aborted, b"memory allocation of 4096 bytes failed\n"), (memory.to_owned(), false));
        let timeout = "compiling it had not ended after 300s (compiler.timeout)";
        assert_eq!(reason(overtime, b""), (timeout.to_owned(), true));
        let crash = "the compiler failed on it: signal: 11 (SIGSEGV)";
        assert!(reason(crashed, b"").0.starts_with(crash));
        let panic = "the compiler failed on it: exit status: 101; stderr: thread 'main' panicked at x.rs: ";
        assert_eq!(reason(101 << 8, b"thread 'main' panicked at x.rs:\n"), (panic.to_owned(), false));
    }
}
