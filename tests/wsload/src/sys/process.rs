//! Resource usage and limits of processes.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

/// Raises this process's limit on open files as far as allowed. Returns the limit.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.unwrap_or(u64::MAX)
}

/// Lowers the priority of the calling thread and of the processes that it starts.
pub(crate) fn lower_thread_priority() {
    // On Linux this sets the priority of the thread alone. If it fails, the command competes with the traffic.
    let _ = setpriority_process(None, 10);
}

/// The resource usage of some processes together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// The number of processes that are still running.
    pub(crate) alive: usize,
    pub(crate) user_s: f64,
    pub(crate) kernel_s: f64,
    /// The time in which they were ready to run and did not run.
    pub(crate) run_delay_s: f64,
    pub(crate) involuntary_switches: u64,
    pub(crate) threads: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) pss_bytes: u64,
    pub(crate) private_bytes: u64,
}

impl Usage {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.kernel_s
    }
}

pub(crate) fn usage(processes: &[u32]) -> Usage {
    let mut usage = Usage::default();
    for id in processes {
        usage.add(&Path::new("/proc").join(id.to_string()));
    }
    usage
}

impl Usage {
    /// Adds the usage of a process. An ended process adds nothing.
    fn add(&mut self, process: &Path) {
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let stat = read("stat");
        // The program's name may contain any character, so fields are counted from the last parenthesis.
        let Some((_, fields)) = stat.rsplit_once(')') else { return };
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        self.alive += 1;
        self.user_s += seconds(field(11));
        self.kernel_s += seconds(field(12));
        self.threads += field(17);
        self.run_delay_s += fs::read_dir(process.join("task"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|thread| run_delay_s(&thread.path().join("schedstat")))
            .sum::<f64>();
        let status = read("status");
        self.rss_bytes += sum(&status, "VmRSS:") * 1024;
        self.involuntary_switches += sum(&status, "nonvoluntary_ctxt_switches:");
        let memory = read("smaps_rollup");
        self.pss_bytes += sum(&memory, "Pss:") * 1024;
        self.private_bytes += (sum(&memory, "Private_Clean:") + sum(&memory, "Private_Dirty:")) * 1024;
    }
}

fn run_delay_s(schedstat: &Path) -> f64 {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let nanoseconds: u64 = text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    nanoseconds as f64 / 1e9
}

/// The sum of the numbers in all lines that begin with `name`.
fn sum(text: &str, name: &str) -> u64 {
    text.lines().filter_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()).sum()
}
