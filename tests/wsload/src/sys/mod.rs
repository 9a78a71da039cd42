//! The functions of Linux that wsload uses: events, sockets, and resource usage of processes.

mod epoll;
mod process;
mod socket;

use std::num::NonZeroU64;

use rustix::time::{ClockId, clock_gettime};

pub(crate) use epoll::{EDGE, ERR, Epoll, Event, Flags, HUP, IN, OUT, RDHUP};
pub(crate) use process::{Usage, lower_thread_priority, raise_descriptors, usage};
pub(crate) use socket::{accept, close_with_reset, connect, connect_error, default_congestion, listen, receive, send};

/// The monotonic clock, in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Asks for timers with a precision of one microsecond. The default is 50.
pub(crate) fn precise_timers() {
    // If this fails, schedules are a little less precise, and `schedule_lag_us` shows it.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000));
}
