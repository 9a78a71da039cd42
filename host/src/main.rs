//! The `hotgate` binary: runs the command line. The gateway also starts this binary as its compiler of plugins.

use std::process::ExitCode;

use hotgate::{cli, plugin};

/// jemalloc. The system's allocator keeps much freed memory for each thread, so memory would grow for a long time with
/// each swap.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena for each processor. Arenas have the numbers of the processors, so `narenas` must be greater than the
/// highest number, even if the process may use only some processors. Unused memory goes back to the operating system
/// within a second.
#[cfg(target_os = "linux")]
// SAFETY: jemalloc reads its settings from a C string under this name, which it leaves to the program to define.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 70] = b"percpu_arena:percpu,narenas:1024,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == plugin::COMPILE) {
        return plugin::compile();
    }
    cli::run()
}
