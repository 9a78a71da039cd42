//! The clocks of this machine.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::clock::Now;

/// Reads the clocks.
pub(super) fn now() -> Now {
    #[cfg(test)]
    if let Some(now) = SHOWN.get() {
        return now;
    }
    Now { boot: boot(), wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() }
}

#[cfg(test)]
thread_local! {
    /// What the clocks show to this thread in a test that sets them.
    static SHOWN: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

/// Sets the clocks for this thread, or lets them go again.
#[cfg(test)]
pub(in crate::hub) fn show(now: Option<Now>) {
    SHOWN.set(now);
}

fn boot() -> Duration {
    // Goes on while the machine sleeps. Other systems than Linux, on which no gateway serves, may lack this clock.
    #[cfg(target_os = "linux")]
    let boot = clock_gettime(ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let boot = clock_gettime(ClockId::Monotonic);
    Duration::new(boot.tv_sec.unsigned_abs(), u32::try_from(boot.tv_nsec).unwrap_or(0))
}

/// A time of this machine's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Duration);

impl Deadline {
    /// Returns `true` if this time has passed.
    pub fn is_over(self) -> bool {
        boot() > self.0
    }
}
