//! Runs a program on chosen cores. The program ends when its parent process ends.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[derive(Args, Clone)]
pub(crate) struct PinnedArgs {
    /// The cores, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    cores: Vec<usize>,
    /// The parent process; if it has ended, nothing is run
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Replaces this process by the program. Returns only on failure, with the error.
pub(crate) fn run(args: &PinnedArgs) -> String {
    let mut cores = CpuSet::new();
    args.cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| cores.set(*core));
    let prepared = sched_setaffinity(None, &cores)
        .map_err(|error| format!("cannot run on cores {:?}: {error}", args.cores))
        .and_then(|()| set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string()));
    if let Err(error) = prepared {
        return error;
    }
    // From here on, the end of the parent sends a signal. The parent may have ended before, without a signal.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != args.parent) {
        return "the parent process has ended".into();
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    format!("cannot run {}: {error}", args.command[0].display())
}

/// A command that runs this program on these cores. It is killed when the calling thread ends.
pub(crate) fn command(cores: &[usize], program: &Path) -> Result<Command, String> {
    let itself = std::env::current_exe().map_err(|error| format!("cannot find wsload itself: {error}"))?;
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new(itself);
    command.args(["pinned", "--cores", &cores.join(","), "--parent", &std::process::id().to_string(), "--"]);
    command.arg(program);
    Ok(command)
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}
