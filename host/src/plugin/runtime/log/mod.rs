//! What plugins write: to `logging`, to stdout and to stderr. Lines are cut, cleaned and limited in number, since they
//! are written by code that is not trusted.

pub(crate) mod stdio;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tracing::{enabled, event, warn};
use wasmtime::Trap;

use super::limits::host_call_bytes;
use crate::base::metrics::METRICS;
use crate::base::throttle::Throttle;
use crate::config::PluginLimits;
use crate::plugin::contract::logging::Level;
use crate::plugin::contract::router::Sender;
use crate::plugin::identity::Digest;
use crate::plugin::text::clean;

/// The part of its lines that a plugin has for warnings and errors only.
const RESERVE: u32 = 4;

/// Limits the lines of one plugin, whichever of its generations writes them.
pub(crate) fn line_limit(limits: &PluginLimits) -> Arc<Throttle> {
    Arc::new(Throttle::new(limits.log_lines, limits.log_lines.saturating_mul(2)))
}

/// How the log names a generation.
#[derive(Debug)]
pub(crate) struct LogNames {
    /// The name of its slot.
    pub(crate) slot: String,
    /// The name of the plugin.
    pub(crate) plugin: String,
    /// Its number.
    pub(crate) generation: u64,
    /// The digest of its component.
    pub(crate) digest: Digest,
}

/// The log as one generation of a plugin sees it.
#[derive(Debug)]
pub(crate) struct GuestLog {
    names: LogNames,
    throttle: Arc<Throttle>,
    /// Bytes of one line; the rest is cut off.
    line_bytes: usize,
}

/// Writes a line. Its text is a field, quoted: it cannot be taken for a line or a field of the host.
macro_rules! say {
    ($log:expr, $sender:expr, $level:ident, $line:expr) => {{
        let LogNames { slot, plugin, generation, digest } = &$log.names;
        let (connection, sender) = ($sender.map(|sender| sender.connection), $sender.map(|sender| sender.remote_address));
        let line = clean($line, $log.line_bytes);
        event!(target: "plugin", tracing::Level::$level, slot, plugin, generation, %digest, connection, sender, line, "plugin says");
    }};
}

impl GuestLog {
    /// A log for lines of at most this many bytes. `throttle` limits their number.
    pub(crate) fn new(names: LogNames, throttle: Arc<Throttle>, line_bytes: usize) -> Self {
        Self { names, throttle, line_bytes }
    }

    /// Writes a line if anybody sees it. What is dropped costs next to nothing.
    pub(crate) fn line(&self, level: Level, line: &[u8]) {
        self.line_of(None, level, line);
    }

    /// The same for a line about what a sender sent: whoever reads it must find out which of them to mend.
    pub(crate) fn line_of(&self, sender: Option<&Sender<'_>>, level: Level, line: &[u8]) {
        if !is_seen(level) {
            return;
        }
        let reserve = if is_grave(level) { 0 } else { self.throttle.burst() / RESERVE };
        let Some(dropped) = self.throttle.admit(reserve) else { return };
        self.tell_dropped(dropped);
        match level {
            Level::Trace => say!(self, sender, TRACE, line),
            Level::Debug => say!(self, sender, DEBUG, line),
            Level::Info => say!(self, sender, INFO, line),
            Level::Warn => say!(self, sender, WARN, line),
            Level::Error => say!(self, sender, ERROR, line),
        }
    }

    /// Says how many lines were dropped at the end of a flood after which nothing was written.
    pub(crate) fn flush(&self) {
        self.tell_dropped(self.throttle.take_dropped());
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            METRICS.plugin_log_lines_dropped.add(dropped);
            let LogNames { slot, plugin, generation, digest } = &self.names;
            let reason = "past limits.log_lines or limits.log_lines_per_call";
            warn!(slot, plugin, generation, %digest, dropped, reason, "plugin log lines dropped");
        }
    }
}

fn is_seen(level: Level) -> bool {
    match level {
        Level::Trace => enabled!(target: "plugin", tracing::Level::TRACE),
        Level::Debug => enabled!(target: "plugin", tracing::Level::DEBUG),
        Level::Info => enabled!(target: "plugin", tracing::Level::INFO),
        Level::Warn => enabled!(target: "plugin", tracing::Level::WARN),
        Level::Error => enabled!(target: "plugin", tracing::Level::ERROR),
    }
}

fn is_grave(level: Level) -> bool {
    matches!(level, Level::Warn | Level::Error)
}

/// The log as one instance sees it, whichever way it writes: what one call may say is limited, too.
#[derive(Debug)]
pub(crate) struct InstanceLog {
    log: Arc<GuestLog>,
    lines: u32,
    bytes: usize,
    /// What the call has said so far, handed over for it, and had dropped. Atomic only to be shared: one instance is one
    /// call at a time.
    said: AtomicU32,
    handed: AtomicUsize,
    dropped: AtomicU64,
    /// When the call must have ended.
    deadline: Mutex<Instant>,
}

/// How many bytes a call has handed to the host's functions, which is more than it may.
#[derive(Debug, thiserror::Error)]
#[error("it handed the host {0} bytes in all")]
pub(crate) struct TooMuchHanded(usize);

impl InstanceLog {
    pub(crate) fn new(log: Arc<GuestLog>, limits: &PluginLimits) -> Self {
        let (lines, bytes) = (limits.log_lines_per_call, host_call_bytes(limits));
        let (said, handed, dropped) = Default::default();
        Self { log, lines, bytes, said, handed, dropped, deadline: Mutex::new(Instant::now()) }
    }

    pub(crate) fn begin_call(&self, deadline: Instant) {
        self.said.store(0, Relaxed);
        self.handed.store(0, Relaxed);
        *self.deadline.lock() = deadline;
    }

    pub(crate) fn end_call(&self) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            self.log.throttle.drop_more(dropped);
        }
    }

    /// Whether the call may hand this many bytes to the host. Plugin code is interrupted only where it loops or calls
    /// itself, and a straight line of calls of the host can be long: so each of them looks at the time, and what they take
    /// all together is bounded, whether anybody sees it or not.
    pub(crate) fn take(&self, bytes: usize) -> wasmtime::Result<()> {
        if Instant::now() >= *self.deadline.lock() {
            return Err(Trap::Interrupt.into());
        }
        let handed = self.handed.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if handed > self.bytes { Err(TooMuchHanded(handed).into()) } else { Ok(()) }
    }

    pub(crate) fn line(&self, level: Level, line: &[u8]) {
        if self.admit(level) {
            self.log.line(level, line);
        }
    }

    /// Counts a line, and says whether it is to be written.
    fn admit(&self, level: Level) -> bool {
        let admitted = self.has_room(level);
        if admitted {
            self.said.fetch_add(1, Relaxed);
        } else {
            self.drop_lines(level, 1);
        }
        admitted
    }

    /// Whether the call may write another line that somebody sees.
    fn has_room(&self, level: Level) -> bool {
        let reserve = if is_grave(level) { 0 } else { self.lines / RESERVE };
        is_seen(level) && self.said.load(Relaxed) < self.lines - reserve
    }

    fn drop_lines(&self, level: Level, lines: u64) {
        if is_seen(level) {
            self.dropped.fetch_add(lines, Relaxed);
        }
    }
}
