//! The process that compiles: `hotgate compile`, started by the gateway for one component.
//!
//! The process reads a job from standard input and writes machine code or a refusal to standard output (a file). Its
//! exit code says which. Before it looks at the component, it gives itself the lowest priority, sets limits that apply
//! only to itself, and gives up its rights ([`confine`]). The gateway ends the process if it takes too long. When the
//! gateway ends, standard input ends, and with it the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{ExitCode, ExitStatus};
use std::thread;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::confine::confine;
use super::error::CompileError;
use super::inspect::inspect;
use super::machine_code::MachineCode;
use crate::config::CompilerConfig;
use crate::plugin::engine;
use crate::plugin::text::{clean, plain, shown};

/// The command-line argument that makes the binary compile.
pub const COMMAND: &str = "compile";

/// The kind of output that the child has written. The value is the child's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Machine code.
    Code = 0,
    /// The reason why the component is refused, in at most [`MAX_REFUSAL`] bytes. Its exit code is the first that
    /// neither Rust nor a shell uses.
    Refusal = 3,
    /// Nothing: the child compiles for another engine than the gateway's.
    Foreign = 4,
    /// Nothing: the machine code would be too large.
    TooLarge = 5,
}

impl Answer {
    /// Returns the answer that an exit status means, if it means one.
    pub(crate) fn of(status: ExitStatus) -> Option<Self> {
        let answers = [Self::Code, Self::Refusal, Self::Foreign, Self::TooLarge];
        answers.into_iter().find(|answer| status.code() == Some(*answer as i32))
    }
}

/// Most files that the child may have open.
const MAX_FILES: u64 = 32;

/// Seconds by which the limit of processor time is longer than the limit of wall-clock time. The limit of processor
/// time is for a child whose gateway has been stopped.
const CPU_SLACK: u64 = 5;

/// Most bytes of the reason for a refusal.
const MAX_REFUSAL: usize = 2048;

/// The job, which the gateway sends before the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// Most bytes of address space.
    memory: u64,
    /// Most seconds of processor time.
    seconds: u64,
    /// [`engine::compatibility`] of the gateway's engine.
    compatibility: u64,
    /// Bytes of the component.
    length: u64,
    /// Most bytes of machine code.
    max_code: u64,
}

impl Job {
    pub(crate) fn new(engine: &Engine, code: &[u8], config: &CompilerConfig) -> Self {
        Self {
            memory: config.memory as u64,
            seconds: config.timeout.as_secs() + CPU_SLACK,
            compatibility: engine::compatibility(engine),
            length: code.len() as u64,
            max_code: config.max_code as u64,
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self { memory, seconds, compatibility, length, max_code } = self;
        [memory, seconds, compatibility, length, max_code].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut next = || {
            let mut number = [0; 8];
            input.read_exact(&mut number)?;
            io::Result::Ok(u64::from_le_bytes(number))
        };
        let (memory, seconds, compatibility) = (next()?, next()?, next()?);
        Ok(Self { memory, seconds, compatibility, length: next()?, max_code: next()? })
    }
}

/// Runs the child, which compiles instead of serving.
pub fn run() -> ExitCode {
    let run = || -> anyhow::Result<Answer> {
        // These calls may fail. The child then only disturbs other processes more.
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
        if let Err(problem) = confine() {
            let _ = writeln!(io::stderr(), "the compiler keeps the rights of the gateway's user: {problem}");
        }
        let engine = engine::for_compiling(job.compatibility)?;
        Ok(answer(&engine, job, &code, &mut io::stdout().lock())?)
    };
    match run() {
        Ok(answer) => ExitCode::from(answer as u8),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the system for shorter time slices than usual. At the lowest priority the child runs seldom, but a task that
/// wakes up during one of its time slices would wait for the end of the slice. On a core that the child shares with the
/// gateway, messages would wait for milliseconds.
#[cfg(target_os = "linux")]
fn ask_for_short_turns() {
    use nix::libc::{SCHED_OTHER, SYS_sched_setattr, sched_attr, sched_getscheduler, syscall};

    // SAFETY: the call reads and writes no memory of ours.
    #[allow(unsafe_code)]
    if unsafe { sched_getscheduler(0) } != SCHED_OTHER {
        // An operator has chosen another scheduling class.
        return;
    }
    // In nanoseconds: the shortest time slice that Linux grants. Linux before 6.12 ignores it.
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
    // SAFETY: the kernel reads `size` bytes, which exist, and keeps no pointer. No crate offers this system call.
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
        // Bytes of the answer. The child writes no other file, not even when it crashes.
        (Resource::Fsize, job.max_code.max(MAX_REFUSAL as u64)),
        (Resource::Core, 0),
    ] {
        let limit = getrlimit(resource).maximum.map_or(limit, |maximum| limit.min(maximum));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// Compiles a component, and writes the machine code or the refusal.
pub(crate) fn answer(engine: &Engine, job: Job, code: &[u8], output: &mut impl Write) -> io::Result<Answer> {
    if job.compatibility != engine::compatibility(engine) {
        return Ok(Answer::Foreign);
    }
    let (answer, bytes) = match inspect(code).and_then(|()| compile(engine, code)) {
        Ok(machine_code) if machine_code.len() as u64 > job.max_code => return Ok(Answer::TooLarge),
        Ok(machine_code) => (Answer::Code, machine_code),
        Err(error) => (Answer::Refusal, shown(format_args!("{error:#}"), MAX_REFUSAL).into_bytes()),
    };
    output.write_all(&bytes)?;
    output.flush()?;
    Ok(answer)
}

pub(crate) fn compile(engine: &Engine, code: &[u8]) -> anyhow::Result<Vec<u8>> {
    // Load the component, too: that is where the engine checks the size of an instance.
    Component::new(engine, code)
        .and_then(|component| component.serialize())
        .map_err(plain)
        .context("it cannot be compiled")
}

/// Turns the child's answer and output into machine code or an error.
pub(crate) fn understand(answer: Answer, output: File, config: &CompilerConfig) -> Result<MachineCode, CompileError> {
    let output = MachineCode::seal(output)?;
    match answer {
        Answer::Code if output.len()? > config.max_code as u64 => Err(CompileError::TooLarge(config.max_code)),
        Answer::Code => Ok(output),
        Answer::Refusal => {
            let mut reason = Vec::new();
            output.read()?.take(MAX_REFUSAL as u64).read_to_end(&mut reason)?;
            Err(CompileError::Refused(clean(&reason, MAX_REFUSAL)))
        }
        Answer::Foreign => Err(CompileError::Foreign),
        Answer::TooLarge => Err(CompileError::TooLarge(config.max_code)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::plugin::deploy::builtin;

    fn ask(job: Job, code: &[u8]) -> Result<MachineCode, CompileError> {
        assert_eq!(Job::read(&mut &job.to_bytes()[..]).unwrap(), job);
        let mut output = MachineCode::create().unwrap();
        let answer = answer(&engine::for_compiling(job.compatibility).unwrap(), job, code, &mut output).unwrap();
        understand(answer, output, &CompilerConfig::default())
    }

    #[test]
    fn the_child_answers_with_code_for_the_engine_that_asks() {
        let engine = engine::start(1, &Default::default()).unwrap();
        let code = builtin::component("origin-auth").unwrap();
        let job = Job::new(&engine, code, &CompilerConfig::default());
        assert_eq!((job.seconds, job.length), (305, code.len() as u64));

        let mut machine_code = Vec::new();
        ask(job, code).unwrap().read().unwrap().read_to_end(&mut machine_code).unwrap();
        assert!(Engine::detect_precompiled(&machine_code).is_some());
        let error = ask(job, &code[..1000]).unwrap_err();
        assert!(matches!(&error, CompileError::Refused(reason) if reason.contains("unexpected end")), "{error}");
        let error = ask(Job { compatibility: 1, ..job }, code).unwrap_err();
        assert!(matches!(error, CompileError::Foreign), "{error}");
        let error = ask(Job { max_code: 1000, ..job }, code).unwrap_err();
        assert!(matches!(error, CompileError::TooLarge(_)), "{error}");
    }

    #[test]
    fn an_answer_is_an_exit_code() {
        let of = |code: i32| Answer::of(ExitStatus::from_raw(code << 8));
        for answer in [Answer::Code, Answer::Refusal, Answer::Foreign, Answer::TooLarge] {
            assert_eq!(of(answer as i32), Some(answer));
        }
        // A failure, a panic, a crash.
        assert_eq!((of(1), of(101), Answer::of(ExitStatus::from_raw(11))), (None, None, None));
    }
}
