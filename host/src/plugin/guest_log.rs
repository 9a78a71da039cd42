//! What plugins write: to `logging`, to stdout and to stderr. Lines are cut, cleaned and limited in number, since they
//! are written by code that is not trusted.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWrite;
use tracing::{enabled, event, warn};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::logging::Level;
use super::identity::Digest;
use super::limits::host_call_bytes;
use super::lock;
use super::spec::Spec;
use super::throttle::Throttle;
use crate::config::PluginLimits;
use crate::metrics::METRICS;

/// Bytes of what a call wrote to stderr that are shown beside its failure.
const MAX_LAST_WORDS: usize = 1024;

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
    ($log:expr, $level:ident, $line:expr) => {{
        let GuestLog { slot, plugin, generation, digest, .. } = $log;
        let line = clean($line, $log.line_bytes);
        event!(target: "plugin", tracing::Level::$level, slot, plugin, generation, %digest, line, "plugin says");
    }};
}

impl GuestLog {
    pub(super) fn new(spec: &Spec, generation: u64, digest: Digest) -> Self {
        let (slot, plugin) = (spec.slot.clone(), spec.plugin.clone());
        Self { slot, plugin, generation, digest, throttle: spec.lines.clone(), line_bytes: spec.limits.log_line_bytes }
    }

    /// Writes a line if anybody sees it. What is dropped costs next to nothing.
    pub(super) fn line(&self, level: Level, line: &[u8]) {
        if !is_seen(level) {
            return;
        }
        let reserve = if is_grave(level) { 0 } else { self.throttle.burst() / RESERVE };
        let Some(dropped) = self.throttle.admit(reserve) else { return };
        self.tell_dropped(dropped);
        match level {
            Level::Trace => say!(self, TRACE, line),
            Level::Debug => say!(self, DEBUG, line),
            Level::Info => say!(self, INFO, line),
            Level::Warn => say!(self, WARN, line),
            Level::Error => say!(self, ERROR, line),
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
            let reason = "past limits.log_lines, limits.log_lines_per_call or limits.host_call_bytes";
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
    /// What the call has said so far, and had dropped. Atomic only to be shared: one instance is one call at a time.
    said_lines: AtomicU32,
    said_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl InstanceLog {
    pub(super) fn new(log: Arc<GuestLog>, limits: &PluginLimits) -> Self {
        let (lines, bytes) = (limits.log_lines_per_call, host_call_bytes(limits));
        let (said_lines, said_bytes, dropped) = Default::default();
        Self { log, lines, bytes, said_lines, said_bytes, dropped }
    }

    pub(super) fn begin_call(&self) {
        self.said_lines.store(0, Relaxed);
        self.said_bytes.store(0, Relaxed);
    }

    pub(super) fn end_call(&self) {
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            self.log.throttle.drop_more(dropped);
        }
    }

    pub(super) fn line(&self, level: Level, line: &[u8]) {
        if !is_seen(level) {
            return;
        }
        let reserve = if is_grave(level) { 0 } else { self.lines / RESERVE };
        let lines = self.said_lines.load(Relaxed);
        let bytes = self.said_bytes.load(Relaxed).saturating_add(line.len());
        if lines >= self.lines - reserve || bytes > self.bytes {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.said_lines.store(lines + 1, Relaxed);
        self.said_bytes.store(bytes, Relaxed);
        self.log.line(level, line);
    }
}

/// Text as it may enter the log: one line of UTF-8, without control characters and without what makes a terminal show
/// text in another order; at most `limit` bytes and an ellipsis.
pub(super) fn clean(line: &[u8], limit: usize) -> String {
    let cut = line.len() > limit;
    let line = String::from_utf8_lossy(&line[..line.len().min(limit)]);
    let mut clean: String = line.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect();
    if cut {
        // Half a character at the cut.
        clean.truncate(clean.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        clean.push('…');
    }
    clean
}

fn is_harmful(c: char) -> bool {
    // Line and paragraph separator, then embeddings, overrides and isolates.
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// stdout or stderr of one instance. Takes everything at once and never fails, so that no plugin dies of its own output.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    log: Arc<InstanceLog>,
    level: Level,
    text: Mutex<Text>,
}

#[derive(Default)]
struct Text {
    /// The line being written, as far as it will be logged.
    line: Vec<u8>,
    /// The beginning of everything since the call began.
    words: Vec<u8>,
}

impl Output {
    pub(super) fn new(log: Arc<InstanceLog>, level: Level) -> Self {
        Self(Arc::new(Shared { log, level, text: Mutex::default() }))
    }

    fn push(&self, bytes: &[u8]) {
        let mut text = lock(&self.0.text);
        let room = MAX_LAST_WORDS.saturating_sub(text.words.len()).min(bytes.len());
        text.words.extend_from_slice(&bytes[..room]);
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            // One byte more than will be shown, to know that the line was cut.
            let room = (self.0.log.log.line_bytes + 1).saturating_sub(text.line.len()).min(piece.len());
            text.line.extend_from_slice(&piece[..room]);
            if pieces.peek().is_some() {
                self.end_line(&mut text);
            }
        }
    }

    fn end_line(&self, text: &mut Text) {
        if !text.line.iter().all(u8::is_ascii_whitespace) {
            self.0.log.line(self.0.level, &text.line);
        }
        text.line.clear();
    }

    /// The end of a call: what has no line end yet is logged. Returns what was written since the last call.
    pub(super) fn end_call(&self) -> String {
        let mut text = lock(&self.0.text);
        self.end_line(&mut text);
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
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES: usize = 1024;

    fn output() -> Output {
        let (slot, plugin, digest) = ("router".into(), "test".into(), Digest::of(b""));
        let limits = PluginLimits::default();
        let log =
            GuestLog { slot, plugin, generation: 1, digest, throttle: line_limit(&limits), line_bytes: LINE_BYTES };
        Output::new(Arc::new(InstanceLog::new(Arc::new(log), &limits)), Level::Info)
    }

    #[test]
    fn control_characters_and_long_lines_are_tamed() {
        assert_eq!(clean(b"a\x1b[31mb\rc\td", 100), "a [31mb c d");
        assert_eq!(clean("a\u{2028}b\u{202e}c\u{2069}d".as_bytes(), 100), "a b c d");
        assert_eq!(clean("äää".as_bytes(), 3), "ä…");
        assert_eq!(clean(b"abc", 3), "abc");
        assert_eq!(clean(b"\xff", 3), "\u{fffd}");
    }

    #[test]
    fn pieces_make_lines_and_the_words_of_a_call() {
        let output = output();
        output.push(b"thread panicked");
        output.push(b" at lib.rs\nno way");
        assert_eq!(lock(&output.0.text).line, b"no way");
        assert_eq!(output.end_call(), "thread panicked at lib.rs no way");
        assert_eq!(output.end_call(), "");
    }

    #[test]
    fn what_is_kept_of_a_flood_is_bounded() {
        let output = output();
        for _ in 0..1000 {
            output.push(&[b'x'; 4096]);
        }
        let text = lock(&output.0.text);
        assert_eq!((text.line.len(), text.words.len()), (LINE_BYTES + 1, MAX_LAST_WORDS));
    }
}
