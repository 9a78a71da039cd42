//! What plugins write: to `logging`, to stdout and to stderr. Lines are cut, cleaned and limited in number, since they
//! are written by code that is not trusted.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWrite;
use tracing::{enabled, event, warn};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::logging::Level;
use super::identity::Digest;
use super::lock;
use super::spec::Spec;
use super::throttle::Throttle;
use crate::metrics::METRICS;

/// Lines of one plugin that pass in a second, and at once.
const LINES_PER_SECOND: u32 = 100;
const LINES_AT_ONCE: u32 = 200;

/// How many of those are left to warnings and errors.
const LINES_RESERVED: u32 = 50;

/// Bytes of one line; the rest is cut off.
const MAX_LINE: usize = 1024;

/// Bytes of what a call wrote to stderr that are shown beside its failure.
const MAX_LAST_WORDS: usize = 1024;

/// Limits the lines of one plugin, whichever of its generations writes them.
pub(super) fn line_limit() -> Arc<Throttle> {
    Arc::new(Throttle::new(LINES_PER_SECOND, LINES_AT_ONCE))
}

/// The log as one generation of a plugin sees it.
#[derive(Debug)]
pub(super) struct GuestLog {
    slot: String,
    plugin: String,
    generation: u64,
    digest: Digest,
    throttle: Arc<Throttle>,
}

/// Writes a line if anybody sees it. Its text is a field, quoted: it cannot be taken for a line or a field of the host.
macro_rules! say {
    ($log:expr, $level:ident, $reserve:expr, $line:expr) => {
        if enabled!(target: "plugin", tracing::Level::$level)
            && let Some(dropped) = $log.throttle.admit($reserve)
        {
            $log.tell_dropped(dropped);
            let GuestLog { slot, plugin, generation, digest, .. } = $log;
            let line = clean($line, MAX_LINE);
            event!(target: "plugin", tracing::Level::$level, slot, plugin, generation, %digest, line, "plugin says");
        }
    };
}

impl GuestLog {
    pub(super) fn new(spec: &Spec, generation: u64, digest: Digest) -> Self {
        let (slot, plugin) = (spec.slot.clone(), spec.plugin.clone());
        Self { slot, plugin, generation, digest, throttle: spec.lines.clone() }
    }

    pub(super) fn line(&self, level: Level, line: &[u8]) {
        match level {
            Level::Trace => say!(self, TRACE, LINES_RESERVED, line),
            Level::Debug => say!(self, DEBUG, LINES_RESERVED, line),
            Level::Info => say!(self, INFO, LINES_RESERVED, line),
            Level::Warn => say!(self, WARN, 0, line),
            Level::Error => say!(self, ERROR, 0, line),
        }
    }

    /// Says how many lines were dropped at the end of a flood after which nothing was written.
    pub(super) fn flush(&self) {
        self.tell_dropped(self.throttle.take_dropped());
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            METRICS.plugin_log_lines_dropped.add(dropped);
            let Self { slot, plugin, digest, .. } = self;
            warn!(slot, plugin, %digest, dropped, limit = LINES_PER_SECOND, "plugin log lines dropped");
        }
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
    log: Arc<GuestLog>,
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
    pub(super) fn new(log: Arc<GuestLog>, level: Level) -> Self {
        Self(Arc::new(Shared { log, level, text: Mutex::default() }))
    }

    fn push(&self, bytes: &[u8]) {
        let mut text = lock(&self.0.text);
        let room = MAX_LAST_WORDS.saturating_sub(text.words.len()).min(bytes.len());
        text.words.extend_from_slice(&bytes[..room]);
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            // One byte more than will be shown, to know that the line was cut.
            let room = (MAX_LINE + 1).saturating_sub(text.line.len()).min(piece.len());
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

    fn output() -> Output {
        let (slot, plugin, digest) = ("router".into(), "test".into(), Digest::of(b""));
        let log = GuestLog { slot, plugin, generation: 1, digest, throttle: line_limit() };
        Output::new(Arc::new(log), Level::Info)
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
        assert_eq!((text.line.len(), text.words.len()), (MAX_LINE + 1, MAX_LAST_WORDS));
    }
}
