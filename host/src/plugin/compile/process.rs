//! The gateway's side of the process that compiles.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;
use wasmtime::Engine;

use super::child::{Answer, COMMAND, Job, understand};
use super::error::CompileError;
use super::machine_code::MachineCode;
use crate::config::CompilerConfig;
use crate::plugin::text::clean;

/// Most bytes of the child's standard error that are shown.
const MAX_WORDS: u64 = 1024;

/// Words on the standard error of a child that ended for lack of memory: from Rust's allocator, and from the system
/// (ENOMEM) when the engine starts.
const OUT_OF_MEMORY: [&str; 2] = ["memory allocation of", "(os error 12)"];

/// Longest time that a killed child may take to end.
const LONGEST_DYING: Duration = Duration::from_secs(5);

/// Compiles a component in a process that ends with this call, whether the call completes or is dropped.
pub(crate) async fn compile(
    engine: &Engine,
    code: &[u8],
    config: &CompilerConfig,
) -> Result<MachineCode, CompileError> {
    let job = Job::new(engine, code, config);
    let (mut child, output) = spawn_blocking(start).await.map_err(io::Error::other)??;
    let answer = timeout(config.timeout, talk(&mut child, job, code, config)).await;
    let answer = answer.unwrap_or(Err(CompileError::Timeout(config.timeout)));
    if answer.is_err() {
        // This waits for the child's end, too: until then, a dead child stays in the list of processes.
        let _ = timeout(LONGEST_DYING, child.kill()).await;
    }
    understand(answer?, output, config)
}

/// Starts the process. Blocks until it runs. The process writes its answer to the file; the gateway holds no copy of
/// the answer.
fn start() -> io::Result<(Child, File)> {
    let output = MachineCode::create()?;
    let child = Command::new(own_binary()?)
        .arg0(env!("CARGO_PKG_NAME"))
        .arg(COMMAND)
        .env_clear()
        .current_dir("/")
        // Key presses in the gateway's terminal, like Ctrl-C, do not reach the child.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, output))
}

/// Returns a path of the binary that runs: with `/proc`, even if another binary has taken its place on disk.
fn own_binary() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return Ok(running.into());
    }
    // A root folder without `/proc`, such as a bare chroot: the path by which the binary was started.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt as _;
        std::path::absolute(std::ffi::OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()))
    }
    #[cfg(not(target_os = "linux"))]
    std::env::current_exe()
}

async fn talk(child: &mut Child, job: Job, code: &[u8], config: &CompilerConfig) -> Result<Answer, CompileError> {
    let pipe = || io::Error::other("there is no pipe to it");
    let mut input = child.stdin.take().ok_or_else(pipe)?;
    let errors = child.stderr.take().ok_or_else(pipe)?;
    let ask = async {
        input.write_all(&job.to_bytes()).await?;
        input.write_all(code).await?;
        input.flush().await
    };
    let (mut words, mut errors) = (Vec::new(), errors.take(MAX_WORDS));
    // A child that does not read says nothing about the cause. Its exit status does.
    let _ = tokio::join!(ask, errors.read_to_end(&mut words));
    let status = child.wait().await?;
    // The input stays open until here: the child ends when it is closed.
    drop(input);
    let answer = Answer::of(status).ok_or_else(|| failure(status, &words, config))?;
    if !words.is_empty() {
        warn!(words = clean(&words, MAX_WORDS as usize), "the compiler wrote to standard error");
    }
    Ok(answer)
}

/// Returns why a child failed.
fn failure(status: ExitStatus, words: &[u8], config: &CompilerConfig) -> CompileError {
    let words = clean(words, MAX_WORDS as usize);
    if OUT_OF_MEMORY.iter().any(|cause| words.contains(cause)) {
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
            (error.to_string(), error.is_transient())
        };
        let (killed, aborted, crashed, overtime) = (9, 6, 11, 24);
        assert_eq!(reason(killed, b""), ("the compiler was killed by signal 9".to_owned(), true));
        let memory = "compiling it takes more than 2147483648 bytes of memory (compiler.memory)";
        assert_eq!(reason(aborted, b"memory allocation of 4096 bytes failed\n"), (memory.to_owned(), false));
        let start = b"failed to create table pool mapping: mmap failed: Cannot allocate memory (os error 12)\n";
        assert_eq!(reason(1 << 8, start), (memory.to_owned(), false));
        let timeout = "compiling it had not ended after 300s (compiler.timeout)";
        assert_eq!(reason(overtime, b""), (timeout.to_owned(), true));
        let crash = "the compiler failed on it: signal: 11 (SIGSEGV)";
        assert!(reason(crashed, b"").0.starts_with(crash));
        let panic = "the compiler failed on it: exit status: 101; stderr: thread 'main' panicked at x.rs: ";
        assert_eq!(reason(101 << 8, b"thread 'main' panicked at x.rs:\n"), (panic.to_owned(), false));
    }
}
