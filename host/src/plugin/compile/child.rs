//! The process that compiles: `hotgate compile`, started by the gateway for one component.
//!
//! It reads a job from standard input, answers on standard output and ends. It gives itself the lowest priority and
//! limits that only it can reach, before it looks at the component; the gateway ends it when it takes too long. When the
//! gateway ends, so does standard input, and with it the child.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::CompileError;
use super::inspect::inspect;
use crate::config::CompilerConfig;
use crate::plugin::guest_log::clean;
use crate::plugin::{engine, plain};

/// The argument that makes the binary compile.
pub const COMMAND: &str = "compile";

/// The last byte of an answer says what the others are.
const CODE: u8 = b'c';
const REFUSAL: u8 = b'r';
const FOREIGN: u8 = b'f';

/// Files that the child may have open.
const MAX_FILES: u64 = 32;

/// By how much the limit of processor time, which is in seconds, is longer than that of the clock. It is for a child
/// whose gateway has been stopped.
const CPU_SLACK: u64 = 5;

/// Bytes of what the compiler says against a component.
const MAX_REFUSAL: usize = 2048;

/// What comes before the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    /// Bytes of address space.
    memory: u64,
    /// Seconds of processor time.
    seconds: u64,
    /// [`engine::compatibility`] of who asks.
    compatibility: u64,
    /// Bytes of the component.
    length: u64,
}

impl Job {
    pub(super) fn new(engine: &Engine, code: &[u8], config: &CompilerConfig) -> Self {
        Self {
            memory: config.memory as u64,
            seconds: config.timeout.as_secs() + CPU_SLACK,
            compatibility: engine::compatibility(engine),
            length: code.len() as u64,
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.memory, self.seconds, self.compatibility, self.length].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut next = || {
            let mut number = [0; 8];
            input.read_exact(&mut number)?;
            io::Result::Ok(u64::from_le_bytes(number))
        };
        Ok(Self { memory: next()?, seconds: next()?, compatibility: next()?, length: next()? })
    }
}

/// What the child does instead of serving.
pub fn run() -> ExitCode {
    let run = || -> anyhow::Result<()> {
        // Nothing depends on either: the child is only a worse neighbour without.
        let _ = nice(19);
        ask_for_short_turns();
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let job = Job::read(&mut io::stdin().lock())?;
        limit(job)?;
        let mut code = Vec::new();
        io::stdin().lock().take(job.length).read_to_end(&mut code)?;
        let watch = || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(1);
        };
        thread::Builder::new().stack_size(64 << 10).spawn(watch)?;
        let engine = engine::for_compiling(job.compatibility)?;
        Ok(answer(&engine, job, &code, &mut io::stdout().lock())?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks to be taken from the processor sooner than usual. At the lowest priority it gets few turns, but whoever wakes up
/// during one would wait for its end: on a core that it shares with the gateway, messages would wait for milliseconds.
#[cfg(target_os = "linux")]
fn ask_for_short_turns() {
    use nix::libc::{SCHED_OTHER, SYS_sched_setattr, sched_attr, sched_getscheduler, syscall};

    // SAFETY: it reads and writes no memory of ours.
    #[allow(unsafe_code)]
    if unsafe { sched_getscheduler(0) } != SCHED_OTHER {
        // An operator has decided otherwise.
        return;
    }
    // In nanoseconds; the shortest that Linux grants, since 6.12. Before, it is ignored.
    const TURN: u64 = 100_000;
    let attributes = sched_attr {
        size: size_of::<sched_attr>() as u32,
        sched_policy: SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: 19,
        sched_priority: 0,
        sched_runtime: TURN,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, which are there, and keeps nothing. No crate has this call.
    #[allow(unsafe_code)]
    let _ = unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_short_turns() {}

fn limit(job: Job) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, job.memory),
        (Resource::Cpu, job.seconds),
        (Resource::Nofile, MAX_FILES),
        // It writes no file, not even when it crashes.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| limit.min(maximum));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

pub(super) fn answer(engine: &Engine, job: Job, code: &[u8], output: &mut impl Write) -> io::Result<()> {
    let (kind, bytes) = match job.compatibility == engine::compatibility(engine) {
        false => (FOREIGN, Vec::new()),
        true => match inspect(code).and_then(|()| compile(engine, code)) {
            Ok(machine_code) => (CODE, machine_code),
            Err(error) => (REFUSAL, format!("{error:#}").into_bytes()),
        },
    };
    output.write_all(&bytes)?;
    output.write_all(&[kind])?;
    output.flush()
}

fn compile(engine: &Engine, code: &[u8]) -> anyhow::Result<Vec<u8>> {
    // Not only compiled but loaded: that is where the engine checks what an instance would take.
    Component::new(engine, code)
        .and_then(|component| component.serialize())
        .map_err(plain)
        .context("it cannot be compiled")
}

/// What the child's answer means.
pub(super) fn understand(mut answer: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    match answer.pop() {
        Some(CODE) => Ok(answer),
        Some(REFUSAL) => Err(CompileError::Refused(clean(&answer, MAX_REFUSAL))),
        Some(FOREIGN) => Err(CompileError::Foreign),
        _ => Err(CompileError::Crashed("it gave no answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::builtin;

    fn ask(job: Job, code: &[u8]) -> Result<Vec<u8>, CompileError> {
        assert_eq!(Job::read(&mut &job.to_bytes()[..]).unwrap(), job);
        let mut output = Vec::new();
        answer(&engine::for_compiling(job.compatibility).unwrap(), job, code, &mut output).unwrap();
        understand(output)
    }

    #[test]
    fn the_child_answers_with_code_for_the_engine_that_asks() {
        let engine = engine::start(1, &Default::default(), &crate::plugin::lane::Lane::new()).unwrap().0;
        let code = builtin::component("origin-auth").unwrap();
        let job = Job::new(&engine, code, &CompilerConfig::default());
        assert_eq!((job.seconds, job.length), (305, code.len() as u64));

        let machine_code = ask(job, code).unwrap();
        assert!(Engine::detect_precompiled(&machine_code).is_some());
        let error = ask(job, &code[..1000]).unwrap_err();
        assert!(matches!(&error, CompileError::Refused(reason) if reason.contains("unexpected end")), "{error}");
        let error = ask(Job { compatibility: 1, ..job }, code).unwrap_err();
        assert!(matches!(error, CompileError::Foreign), "{error}");
        assert!(matches!(understand(Vec::new()), Err(CompileError::Crashed(_))));
    }
}
