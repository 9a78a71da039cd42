//! Running a program on chosen cores, and no longer than whoever asked for it.

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
    /// The process that asks; without it nothing is run
    #[arg(long)]
    parent: i32,
    /// The program and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Becomes the program. Returns only if that fails.
pub(crate) fn run(args: &PinnedArgs) -> String {
    let mut cores = CpuSet::new();
    args.cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| cores.set(*core));
    let prepared = sched_setaffinity(None, &cores)
        .map_err(|error| format!("cannot run on cores {:?}: {error}", args.cores))
        .and_then(|()| set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string()));
    if let Err(error) = prepared {
        return error;
    }
    // From here on the signal comes; before, the parent may have ended unheard.
    if getppid().is_none_or(|parent| parent.as_raw_pid() != args.parent) {
        return "nobody waits for it any more".into();
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    format!("cannot run {}: {error}", args.command[0].display())
}

/// A command for this program on these cores, which is killed when the calling thread ends.
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
