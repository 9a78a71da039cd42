//! Takes the rights of the gateway's user away from the child, before the child looks at the component. Whoever takes
//! over the compiler with a component can only compute and write an answer. The child can open no file, reach no
//! network, start no process, and signal no process but itself.

/// Restricts this process, with all its threads, to what compiling needs. There is no way back.
///
/// # Errors
/// If the kernel cannot do that. The process then keeps its rights, but gains no new ones by starting another program.
#[cfg(target_os = "linux")]
pub(crate) fn confine() -> anyhow::Result<()> {
    Ok(seccompiler::apply_filter_all_threads(&linux::filter()?)?)
}

/// Does nothing: other systems have other means, and gateways run on them only for development.
#[cfg(not(target_os = "linux"))]
pub(crate) fn confine() -> anyhow::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::env::consts::ARCH;

    use nix::libc::*;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };

    /// The system calls that are allowed: for memory, open files, threads that wait for each other, the clock, and the
    /// end of a process.
    const ALLOWED: [c_long; 31] = [
        SYS_brk,
        SYS_clock_gettime,
        SYS_clock_nanosleep,
        SYS_close,
        SYS_exit,
        SYS_exit_group,
        SYS_fstat,
        SYS_futex,
        SYS_getpid,
        SYS_getrandom,
        SYS_gettid,
        SYS_lseek,
        SYS_madvise,
        // Makes new code visible on processors other than x86.
        SYS_membarrier,
        SYS_mmap,
        SYS_mprotect,
        SYS_mremap,
        SYS_munmap,
        SYS_nanosleep,
        SYS_read,
        SYS_restart_syscall,
        SYS_rseq,
        SYS_rt_sigaction,
        SYS_rt_sigprocmask,
        SYS_rt_sigreturn,
        SYS_sched_getaffinity,
        SYS_sched_yield,
        SYS_set_robust_list,
        SYS_sigaltstack,
        SYS_write,
        SYS_writev,
    ];

    /// Returns the filter. All other system calls fail with an error: a library that tries a call and can do without it
    /// is not harmed.
    pub(crate) fn filter() -> anyhow::Result<BpfProgram> {
        let mut rules: BTreeMap<_, _> = ALLOWED.map(|call| (call, Vec::new())).into();
        // A program that fails ends itself with a signal.
        let own = u64::from(std::process::id());
        let itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
        rules.insert(SYS_tgkill, vec![SeccompRule::new(vec![itself])?]);
        let refused = SeccompAction::Errno(EPERM as u32);
        let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, ARCH.try_into()?)?;
        Ok(filter.try_into()?)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::process::Command;
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::plugin::compile::child;
    use crate::plugin::compile::machine_code::MachineCode;
    use crate::plugin::deploy::builtin;
    use crate::plugin::engine;

    #[test]
    fn whoever_takes_over_the_compiler_can_compile_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut output = MachineCode::create().unwrap();
        let engine = engine::for_compiling(0).unwrap();
        // `confine` restricts the whole process. This test restricts only one of its threads.
        let confined = thread::spawn(move || {
            if seccompiler::apply_filter(&linux::filter().unwrap()).is_err() {
                eprintln!("SKIPPED: the kernel has no seccomp");
                return;
            }
            let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
            assert!(refused(File::open("/etc/passwd").map(drop)));
            assert!(refused(File::create("/tmp/hotgate-confined").map(drop)));
            assert!(refused(TcpStream::connect(at).map(drop)));
            assert!(refused(UdpSocket::bind("127.0.0.1:0").map(drop)));
            assert!(refused(Command::new("/bin/true").spawn().map(drop)));
            assert!(refused(std::fs::read_dir("/").map(drop)));
            assert!(refused(kill_process(getpid(), Signal::TERM).map_err(Into::into)));

            let code = child::compile(&engine, builtin::component("echo-router").unwrap()).unwrap();
            output.write_all(&code).unwrap();
        });
        confined.join().unwrap();
    }
}
