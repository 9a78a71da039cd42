//! What plugins write: to `logging`, to stdout and to stderr. Lines are cut, cleaned and limited in number, since they
//! are written by code that is not trusted.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::AsyncWrite;
use tracing::{enabled, event, warn};
use wasmtime::Trap;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::bindings::logging::Level;
use super::bindings::router::Sender;
use super::identity::Digest;
use super::lane::Turns;
use super::limits::host_call_bytes;
use super::lock;
use super::spec::Spec;
use super::text::clean;
use crate::base::metrics::METRICS;
use crate::base::throttle::Throttle;
use crate::config::PluginLimits;

/// Bytes of what a call wrote to stderr that are shown beside its failure.
const MAX_LAST_WORDS: usize = 1024;

/// Bytes of one write to stdout or stderr.
const MAX_WRITE: usize = 64 << 10;

/// The part of its lines that a plugin has for warnings and errors only.
const RESERVE: u32 = 4;

/// Limits the lines of one plugin, whichever of its generations writes them.
pub(super) fn line_limit(limits: &PluginLimits) -> Arc<Throttle> {
    Arc::new(Throttle::new(limits.log_lines, limits.log_lines.saturating_mul(2)))
}

/// The log as one generation of a plugin sees it.
#[derive(Debug)]
pub(super) struct GuestLog {
    slot: String,
    plugin: String,
    generation: u64,
    digest: Digest,
    throttle: Arc<Throttle>,
    /// Bytes of one line; the rest is cut off.
    line_bytes: usize,
}

/// Writes a line. Its text is a field, quoted: it cannot be taken for a line or a field of the host.
macro_rules! say {
    ($log:expr, $sender:expr, $level:ident, $line:expr) => {{
        let GuestLog { slot, plugin, generation, digest, .. } = $log;
        let (connection, sender) = ($sender.map(|sender| sender.connection), $sender.map(|sender| sender.remote_address));
        let line = clean($line, $log.line_bytes);
        event!(target: "plugin", tracing::Level::$level, slot, plugin, generation, %digest, connection, sender, line, "plugin says");
    }};
}

impl GuestLog {
    pub(super) fn new(spec: &Spec, generation: u64, digest: Digest) -> Self {
        let (slot, plugin) = (spec.slot.clone(), spec.plugin.clone());
        Self { slot, plugin, generation, digest, throttle: spec.lines.clone(), line_bytes: spec.limits.log_line_bytes }
    }

    /// Writes a line if anybody sees it. What is dropped costs next to nothing.
    pub(super) fn line(&self, level: Level, line: &[u8]) {
        self.line_of(None, level, line);
    }

    /// The same for a line about what a sender sent: whoever reads it must find out which of them to mend.
    pub(super) fn line_of(&self, sender: Option<&Sender<'_>>, level: Level, line: &[u8]) {
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
    pub(super) fn flush(&self) {
        self.tell_dropped(self.throttle.take_dropped());
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            METRICS.plugin_log_lines_dropped.add(dropped);
            let Self { slot, plugin, generation, digest, .. } = self;
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
pub(super) struct InstanceLog {
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
pub(super) struct TooMuchHanded(usize);

impl InstanceLog {
    pub(super) fn new(log: Arc<GuestLog>, limits: &PluginLimits) -> Self {
        let (lines, bytes) = (limits.log_lines_per_call, host_call_bytes(limits));
        let (said, handed, dropped) = Default::default();
        Self { log, lines, bytes, said, handed, dropped, deadline: Mutex::new(Instant::now()) }
    }

    pub(super) fn begin_call(&self, deadline: Instant) {
        self.said.store(0, Relaxed);
        self.handed.store(0, Relaxed);
        *lock(&self.deadline) = deadline;
    }

    pub(super) fn end_call(&self) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            self.log.throttle.drop_more(dropped);
        }
    }

    /// Whether the call may hand this many bytes to the host. Plugin code is interrupted only where it loops or calls
    /// itself, and a straight line of calls of the host can be long: so each of them looks at the time, and what they take
    /// all together is bounded, whether anybody sees it or not.
    pub(super) fn take(&self, bytes: usize) -> wasmtime::Result<()> {
        if Instant::now() >= *lock(&self.deadline) {
            return Err(Trap::Interrupt.into());
        }
        let handed = self.handed.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if handed > self.bytes { Err(TooMuchHanded(handed).into()) } else { Ok(()) }
    }

    pub(super) fn line(&self, level: Level, line: &[u8]) {
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

/// stdout or stderr of one instance. Takes everything at once, but not past the end of a call's turn: then it asks to
/// be waited for.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    log: Arc<InstanceLog>,
    turns: Arc<Turns>,
    level: Level,
    text: Mutex<Text>,
}

#[derive(Default)]
struct Text {
    /// The line being written, as far as it will be logged.
    line: Vec<u8>,
    /// The beginning of everything since the call began.
    words: Vec<u8>,
    /// Bytes that may be written before asking again.
    allowed: usize,
}

impl Output {
    pub(super) fn new(log: Arc<InstanceLog>, turns: Arc<Turns>, level: Level) -> Self {
        Self(Arc::new(Shared { log, turns, level, text: Mutex::default() }))
    }

    fn push(&self, bytes: &[u8]) {
        let mut text = lock(&self.0.text);
        let room = MAX_LAST_WORDS.saturating_sub(text.words.len()).min(bytes.len());
        text.words.extend_from_slice(&bytes[..room]);
        let Shared { log, level, .. } = &*self.0;
        let mut rest = bytes;
        while log.has_room(*level) {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            // One byte more than will be shown, to know that the line was cut.
            let room = (log.log.line_bytes + 1).saturating_sub(text.line.len()).min(piece.len());
            text.line.extend_from_slice(&piece[..room]);
            let Some(end) = end else { return };
            self.end_line(&mut text);
            rest = &rest[end + 1..];
        }
        // Only counted, and no longer looked at one by one.
        text.line.clear();
        log.drop_lines(*level, rest.iter().filter(|byte| **byte == b'\n').count() as u64);
    }

    fn end_line(&self, text: &mut Text) {
        let Shared { log, level, .. } = &*self.0;
        // A blank line tells nobody anything, but counts: they are written by the million as easily.
        if log.admit(*level) && !text.line.iter().all(u8::is_ascii_whitespace) {
            log.log.line(*level, &text.line);
        }
        text.line.clear();
    }

    /// The end of a call: what has no line end yet is logged. Returns what was written since the last call.
    pub(super) fn end_call(&self) -> String {
        let mut text = lock(&self.0.text);
        if !text.line.is_empty() {
            self.end_line(&mut text);
        }
        let words = std::mem::take(&mut text.words);
        if words.is_empty() { String::new() } else { clean(&words, MAX_LAST_WORDS).trim().to_owned() }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Output").field(&self.0.level).finish()
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only for WASI 0.1 and 0.3, which are not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if !self.0.turns.may_go_on(Instant::now()) {
            self.0.turns.clone().next().await;
        }
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        {
            let allowed = &mut lock(&self.0.text).allowed;
            let left = allowed.checked_sub(bytes.len());
            *allowed = left.ok_or_else(|| StreamError::trap("it wrote more than check-write had allowed"))?;
        }
        self.0.log.take(bytes.len()).map_err(StreamError::Trap)?;
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.log.take(0).map_err(StreamError::Trap)?;
        let allowed = if self.0.turns.may_go_on(Instant::now()) { MAX_WRITE } else { 0 };
        lock(&self.0.text).allowed = allowed;
        Ok(allowed)
    }
}

#[cfg(test)]
#[path = "guest_log_tests.rs"]
mod tests;
