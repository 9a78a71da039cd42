//! stdout and stderr of a plugin, as lines of the log.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::InstanceLog;
use crate::plugin::contract::logging::Level;
use crate::plugin::runtime::turns::Turns;
use crate::plugin::text::clean;

/// Most bytes of one write to stdout or stderr.
const MAX_WRITE: usize = 64 << 10;

/// Most bytes of a call's stderr that are shown beside its failure.
const MAX_LAST_WORDS: usize = 1024;

/// stdout or stderr of one instance. Accepts every write at once until the turn of the call ends. Then it makes the
/// plugin wait.
#[derive(Clone)]
pub(crate) struct Output(Arc<Shared>);

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
    /// The beginning of everything that was written since the call began.
    words: Vec<u8>,
    /// Bytes that the plugin may write before it has to ask again.
    allowed: usize,
}

impl Output {
    pub(crate) fn new(log: Arc<InstanceLog>, turns: Arc<Turns>, level: Level) -> Self {
        Self(Arc::new(Shared { log, turns, level, text: Mutex::default() }))
    }

    fn push(&self, bytes: &[u8]) {
        let mut text = self.0.text.lock();
        let room = MAX_LAST_WORDS.saturating_sub(text.words.len()).min(bytes.len());
        text.words.extend_from_slice(&bytes[..room]);
        let Shared { log, level, .. } = &*self.0;
        let mut rest = bytes;
        while log.has_room(*level) {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            // One byte more than is shown: this byte tells that the line was cut.
            let room = (log.log.line_bytes + 1).saturating_sub(text.line.len()).min(piece.len());
            text.line.extend_from_slice(&piece[..room]);
            let Some(end) = end else { return };
            self.end_line(&mut text);
            rest = &rest[end + 1..];
        }
        // The rest is only counted, not looked at line by line.
        text.line.clear();
        log.drop_lines(*level, rest.iter().filter(|byte| **byte == b'\n').count() as u64);
    }

    fn end_line(&self, text: &mut Text) {
        let Shared { log, level, .. } = &*self.0;
        // A blank line is not logged, but it counts: a plugin can write millions of them as easily.
        if log.admit(*level) && !text.line.iter().all(u8::is_ascii_whitespace) {
            log.write(*level, &text.line);
        }
        text.line.clear();
    }

    /// Ends the call: logs the text that has no line end yet. Returns what was written since the last call.
    pub(crate) fn end_call(&self) -> String {
        let mut text = self.0.text.lock();
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
            self.0.turns.clone().next_turn().await;
        }
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        {
            let allowed = &mut self.0.text.lock().allowed;
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
        self.0.text.lock().allowed = allowed;
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests;
