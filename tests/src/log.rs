//! The gateway's log, read while the gateway writes it.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

/// One line of the log.
#[derive(Debug, Clone)]
pub struct Line(Value);

impl Line {
    /// The message.
    pub fn message(&self) -> &str {
        self.get("message")
    }

    /// A field as text; empty if the field is missing or is not text.
    pub fn get(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// A field as a number; 0 if the field is missing or is not a number.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }

    /// Returns `true` if any part of the line contains these words, in upper or lower case.
    pub fn says(&self, words: &str) -> bool {
        self.0.to_string().to_lowercase().contains(&words.to_lowercase())
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark(usize);

/// All log lines so far.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    /// The number of lines, and `true` while more may come.
    seen: watch::Receiver<(usize, bool)>,
}

impl Log {
    /// Reads the log to its end, on a thread of its own: a test that does not read must not stall the gateway.
    pub(crate) fn read(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (more, seen) = watch::channel((0, true));
        let log = Self { lines: Arc::clone(&lines), seen };
        std::thread::spawn(move || {
            for text in BufReader::new(stream).lines().map_while(Result::ok) {
                // A panic message of the gateway is not JSON.
                let value = serde_json::from_str(&text).unwrap_or_else(|_| serde_json::json!({ "message": text }));
                let mut lines = lines.lock().expect("not poisoned");
                lines.push(Line(value));
                _ = more.send((lines.len(), true));
            }
            more.send_modify(|(_, open)| *open = false);
        });
        log
    }

    /// The place after the last line.
    pub fn mark(&self) -> Mark {
        Mark(self.lines.lock().expect("not poisoned").len())
    }

    /// The lines after `mark`.
    pub fn since(&self, mark: Mark) -> Vec<Line> {
        self.lines.lock().expect("not poisoned")[mark.0..].to_vec()
    }

    /// Waits for a line after `mark`. `None` if the gateway ends without it.
    pub(crate) async fn find(&self, mark: Mark, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        let mut seen = self.seen.clone();
        let mut at = mark.0;
        loop {
            let (count, open) = *seen.borrow_and_update();
            let lines = self.since(Mark(at));
            if let Some(line) = lines.into_iter().find(&wanted) {
                return Some(line);
            }
            at = count.max(at);
            if !open || seen.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The last lines, to print.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines.lock().expect("not poisoned");
        let tail = &lines[lines.len().saturating_sub(40)..];
        tail.iter().map(|Line(value)| format!("    {value}\n")).collect()
    }
}
