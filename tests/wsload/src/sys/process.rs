//! What processes use, and may use.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

/// Lets this process open as many files as it may; how many that are.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.unwrap_or(u64::MAX)
}

/// Makes the calling thread, and what it starts, give way to others.
pub(crate) fn lower_thread_priority() {
    // On Linux this is the thread's own. If it may not, the command competes with the traffic, which is its risk.
    let _ = setpriority_process(None, 10);
}

/// What processes have used so far, in all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// How many of them there still are.
    pub(crate) alive: usize,
    pub(crate) user_s: f64,
    pub(crate) kernel_s: f64,
    /// How long they could have run and did not.
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
    /// Processes that have ended add nothing.
    fn add(&mut self, process: &Path) {
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let stat = read("stat");
        // The name of the program may hold anything: fields count from the last parenthesis.
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

/// The number behind a name, of all lines that begin with it.
fn sum(text: &str, name: &str) -> u64 {
    text.lines().filter_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok()).sum()
}
