//! The last lines of the log, for operators.

use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde_json::{Map, Value};

use super::ring::Ring;

/// The most lines that are kept, and the most bytes of all of them.
const LINES: usize = 1000;
const BYTES: usize = 1 << 20;

/// The last lines. They are of the process, like its log.
pub static RECENT: LazyLock<Arc<Ring<Arc<LogLine>>>> = LazyLock::new(|| Arc::new(Ring::new(LINES, BYTES)));

/// A line of the log.
#[derive(Debug, Serialize)]
pub struct LogLine {
    /// The time.
    pub at: String,
    /// Such as `INFO`.
    pub level: &'static str,
    /// The message.
    pub message: String,
    /// What stands beside the message.
    pub fields: Map<String, Value>,
}
