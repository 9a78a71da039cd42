//! The text that plugins write: to `logging`, to stdout and to stderr. Lines are cut, cleaned and limited in number,
//! because untrusted code writes them.

pub(crate) mod stdio;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tracing::{enabled, event, warn};
use wasmtime::Trap;

use super::limits::host_call_bytes;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::base::throttle::Throttle;
use crate::config::PluginLimits;
use crate::plugin::contract::logging::Level;
use crate::plugin::identity::Digest;
use crate::plugin::text::clean;

/// One of this many lines of a plugin is kept for warnings and errors.
const RESERVE: u32 = 4;

/// Creates the limit on the lines of one plugin, for all its generations together.
pub(crate) fn line_limit(limits: &PluginLimits) -> Arc<Throttle> {
    Arc::new(Throttle::new(limits.log_lines, limits.log_lines.saturating_mul(2)))
}

/// The names of a generation in the log.
#[derive(Debug)]
pub(crate) struct LogNames {
    /// The name of the slot.
    pub(crate) slot: String,
    /// The name of the plugin.
    pub(crate) plugin: String,
    /// The number of the generation.
    pub(crate) generation: u64,
    /// The digest of the component.
    pub(crate) digest: Digest,
}

/// The log of one generation of a plugin.
#[derive(Debug)]
pub(crate) struct GuestLog {
    names: Arc<LogNames>,
    throttle: Arc<Throttle>,
    /// Most bytes of one line. The rest is cut off.
    line_bytes: usize,
}

/// Writes a line. Its text is a quoted field, so it cannot be taken for a line or a field of the host.
macro_rules! say {
    ($log:expr, $connection:expr, $sender:expr, $token:expr, $level:ident, $line:expr) => {{
        let LogNames { slot, plugin, generation, digest } = &*$log.names;
        let (connection, sender, token) = ($connection, $sender, $token);
        let line = clean($line, $log.line_bytes);
        event!(target: "plugin", tracing::Level::$level, slot, plugin, generation, %digest, connection, sender, token, line, "plugin says");
    }};
}

impl GuestLog {
    /// Creates a log for lines of at most `line_bytes` bytes. `throttle` limits their number.
    pub(crate) fn new(names: LogNames, throttle: Arc<Throttle>, line_bytes: usize) -> Self {
        Self { names: Arc::new(names), throttle, line_bytes }
    }

    /// Returns the names of the generation.
    pub(crate) fn names(&self) -> &Arc<LogNames> {
        &self.names
    }

    /// Writes a line, if its level is logged. A line that is dropped costs next to nothing.
    pub(crate) fn line(&self, connection: Option<ConnectionId>, level: Level, line: &[u8]) {
        self.write(connection, None, None, level, line);
    }

    /// Writes a line about the text of a sender. The line has the sender's address and the name of its token, if it has
    /// one, so that an operator knows which sender to repair.
    pub(crate) fn line_of(
        &self,
        connection: ConnectionId,
        address: &str,
        token: Option<&str>,
        level: Level,
        line: &[u8],
    ) {
        self.write(Some(connection), Some(address), token, level, line);
    }

    fn write(
        &self,
        connection: Option<ConnectionId>,
        sender: Option<&str>,
        token: Option<&str>,
        level: Level,
        line: &[u8],
    ) {
        if !is_seen(level) {
            return;
        }
        let reserve = if is_grave(level) { 0 } else { self.throttle.burst() / RESERVE };
        let Some(dropped) = self.throttle.admit(reserve) else { return };
        self.tell_dropped(dropped);
        let connection = connection.map(|connection| connection.0);
        match level {
            Level::Trace => say!(self, connection, sender, token, TRACE, line),
            Level::Debug => say!(self, connection, sender, token, DEBUG, line),
            Level::Info => say!(self, connection, sender, token, INFO, line),
            Level::Warn => say!(self, connection, sender, token, WARN, line),
            Level::Error => say!(self, connection, sender, token, ERROR, line),
        }
    }

    /// Logs how many lines were dropped, for the end of a flood after which no line was written.
    pub(crate) fn flush(&self) {
        self.tell_dropped(self.throttle.take_dropped());
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            METRICS.plugin_log_lines_dropped.add(dropped);
            let LogNames { slot, plugin, generation, digest } = &*self.names;
            let reason = "more than limits.log_lines or limits.log_lines_per_call";
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

/// The log of one instance, for all ways of writing. It also limits how much one call may write.
#[derive(Debug)]
pub(crate) struct InstanceLog {
    log: Arc<GuestLog>,
    lines: u32,
    bytes: usize,
    /// Lines that the call has written. Atomic only to be shared: an instance runs one call at a time.
    said: AtomicU32,
    /// Bytes that the call has passed to the host.
    handed: AtomicUsize,
    /// Lines of the call that were dropped.
    dropped: AtomicU64,
    call: Mutex<CurrentCall>,
}

/// The call that an instance runs.
#[derive(Debug, Clone, Copy)]
struct CurrentCall {
    /// When the call must have ended.
    deadline: Instant,
    /// The connection that the call is about; `None` for a check.
    connection: Option<ConnectionId>,
}

/// A call has passed this many bytes to the host's functions, more than it may.
#[derive(Debug, thiserror::Error)]
#[error("it handed the host {0} bytes in all")]
pub(crate) struct TooMuchHanded(usize);

impl InstanceLog {
    pub(crate) fn new(log: Arc<GuestLog>, limits: &PluginLimits) -> Self {
        let (lines, bytes) = (limits.log_lines_per_call, host_call_bytes(limits));
        let (said, handed, dropped) = Default::default();
        let call = Mutex::new(CurrentCall { deadline: Instant::now(), connection: None });
        Self { log, lines, bytes, said, handed, dropped, call }
    }

    pub(crate) fn begin_call(&self, deadline: Instant, connection: Option<ConnectionId>) {
        self.said.store(0, Relaxed);
        self.handed.store(0, Relaxed);
        *self.call.lock() = CurrentCall { deadline, connection };
    }

    pub(crate) fn end_call(&self) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            self.log.throttle.drop_more(dropped);
        }
    }

    /// Counts bytes that the call passes to the host. Fails if the call passed too many, or if its time is over. Plugin
    /// code is interrupted only where it loops or calls itself, and a straight line of calls of the host can be long.
    /// So each call of the host checks the time, and the bytes of all of them together are bounded, whether anybody
    /// sees the lines or not.
    pub(crate) fn take(&self, bytes: usize) -> wasmtime::Result<()> {
        if Instant::now() >= self.call.lock().deadline {
            return Err(Trap::Interrupt.into());
        }
        let handed = self.handed.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if handed > self.bytes { Err(TooMuchHanded(handed).into()) } else { Ok(()) }
    }

    pub(crate) fn line(&self, level: Level, line: &[u8]) {
        if self.admit(level) {
            self.write(level, line);
        }
    }

    /// Writes an admitted line.
    fn write(&self, level: Level, line: &[u8]) {
        let connection = self.call.lock().connection;
        self.log.line(connection, level, line);
    }

    /// Counts a line. Returns `true` if the line is to be written.
    fn admit(&self, level: Level) -> bool {
        let admitted = self.has_room(level);
        if admitted {
            self.said.fetch_add(1, Relaxed);
        } else {
            self.drop_lines(level, 1);
        }
        admitted
    }

    /// Returns `true` if the call may write another line and lines of this level are logged.
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
