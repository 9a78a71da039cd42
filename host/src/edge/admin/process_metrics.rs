//! The metrics of the process.

use std::time::SystemTime;

use super::exposition::Exposition;
use crate::base::version::{COMMIT, VERSION};

/// Shows the process, which started at this time.
pub(super) fn process(text: &mut Exposition, started: SystemTime) {
    text.metric("hotgate_build_info", "gauge", "The version that runs, and the commit that it was built from.");
    text.sample("hotgate_build_info", &[("version", VERSION), ("commit", COMMIT)], 1);
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    text.single("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", started);
    memory(text);
    resources(text);
}

/// Shows the statistics of jemalloc. Other systems than Linux use the system's allocator, which has none.
#[cfg(target_os = "linux")]
fn memory(text: &mut Exposition) {
    use tikv_jemalloc_ctl::{epoch, stats};
    // jemalloc updates its statistics only on this call.
    let _ = epoch::advance();
    let allocated = stats::allocated::read().unwrap_or_default();
    let meaning = "Bytes that the gateway has allocated, without the memory of plugins.";
    text.single("hotgate_memory_allocated_bytes", "gauge", meaning, allocated);
    let resident = stats::resident::read().unwrap_or_default();
    let meaning = "Bytes of physical memory that these allocations take.";
    text.single("hotgate_memory_resident_bytes", "gauge", meaning, resident);
}

#[cfg(not(target_os = "linux"))]
fn memory(_: &mut Exposition) {}

/// Shows what the process takes of the system. It has the names that Prometheus's own libraries give it.
#[cfg(target_os = "linux")]
fn resources(text: &mut Exposition) {
    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};

    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    text.single("process_open_fds", "gauge", "Open file descriptors. Each connection takes one.", descriptors);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    text.single("process_max_fds", "gauge", "The most file descriptors that may be open (ulimit -n).", most);
    // proc_pid_stat(5): after the name in brackets, utime is the 12th field, stime the 13th and rss the 22nd.
    let status = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = status.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 1).copied().unwrap_or(0);
    let cpu = (field(12) + field(13)) as f64 / clock_ticks_per_second() as f64;
    text.single("process_cpu_seconds_total", "counter", "CPU time of all threads, in seconds.", cpu);
    let meaning = "Bytes of physical memory that the process takes, with the memory of plugins.";
    text.single("process_resident_memory_bytes", "gauge", meaning, field(22) * page_size() as u64);
}

#[cfg(not(target_os = "linux"))]
fn resources(_: &mut Exposition) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_descriptors_memory_and_time() {
        let mut text = Exposition::default();
        // Some ticks of the clock.
        let begin = std::time::Instant::now();
        while begin.elapsed() < std::time::Duration::from_millis(100) {}
        process(&mut text, SystemTime::now());
        let text = text.text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.expect(name).parse().expect("a number")
        };
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")), "{text}");
        assert!((1e6..1e11).contains(&value("process_resident_memory_bytes")), "{text}");
        assert!((0.01..1e6).contains(&value("process_cpu_seconds_total")), "{text}");
    }
}
