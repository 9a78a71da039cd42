//! The `hotgate` binary: the command line; or, when the gateway starts itself as a compiler, that.

use std::process::ExitCode;

use hotgate::{cli, plugin};

/// The system's own keeps much of what it was given back, by thread: what swaps take would grow for a long time.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena a processor, also where the process may use only some of them: their numbers are what must be below 1,024. What is
/// unused goes back to the operating system within a second.
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
