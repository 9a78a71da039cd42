//! What the child gives up before it looks at the component: the rights of the gateway's user. Whoever takes over the
//! compiler by a component can compute and write an answer. It can open no file, reach no network, start no process and
//! signal none but itself.

/// Leaves this process, all threads of it, nothing but what compiling needs, for good.
///
/// # Errors
/// Why the kernel cannot do that; then it only gains no rights (by starting another program).
#[cfg(target_os = "linux")]
pub(crate) fn confine() -> anyhow::Result<()> {
    Ok(seccompiler::apply_filter_all_threads(&linux::filter()?)?)
}

/// Other systems have other means; there, gateways are for developing.
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

    /// Memory, the files that are open, threads waiting for each other, the clock, and how a process ends.
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
        // How processors other than x86 come to see new code.
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

    /// Everything else fails: what a library tries and can do without does no harm.
    pub(crate) fn filter() -> anyhow::Result<BpfProgram> {
        let mut rules: BTreeMap<_, _> = ALLOWED.map(|call| (call, Vec::new())).into();
        // How a program that fails ends itself.
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
        // The filter is that of the whole process, and this is only one of its threads.
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
