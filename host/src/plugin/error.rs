//! How a call of a plugin can fail.

use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::host::Host;
use crate::config::PluginLimits;

/// Why a call of a plugin has no result. Nothing of the call has had an effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The plugin's code failed: a panic, an out-of-bounds access, an exit.
    #[error("it trapped: {reason}{}", said(.stderr))]
    Trap {
        /// What WebAssembly says of it.
        reason: String,
        /// The functions that it happened in, innermost first.
        backtrace: Vec<String>,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// It ran or waited longer than `deadline` (or `check_timeout`) allows.
    #[error("it had not ended after {limit:?} (limits.deadline){}", said(.stderr))]
    Deadline {
        /// The limit.
        limit: Duration,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// It failed after it had been refused memory.
    #[error("it asked for {wanted} bytes of memory, the limit is {limit} (limits.memory); {reason}{}", said(.stderr))]
    Memory {
        /// `limits.memory`.
        limit: usize,
        /// How much there would have been of it.
        wanted: usize,
        /// How it took that.
        reason: String,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// It returned something that the contract does not allow, or too much of it.
    #[error("it returned {0}")]
    Result(String),
    /// No instance became free in time.
    #[error("{concurrency} calls were running (limits.concurrency), and none ended within {waited:?} (limits.max_wait)")]
    Overloaded {
        /// `limits.concurrency`.
        concurrency: usize,
        /// `limits.max_wait`.
        waited: Duration,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") }
}

impl CallError {
    /// One word, by which failures are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Memory { .. } => "memory",
            Self::Result(_) => "result",
            Self::Overloaded { .. } => "overloaded",
        }
    }

    /// The functions that a trap happened in, innermost first.
    pub fn backtrace(&self) -> &[String] {
        if let Self::Trap { backtrace, .. } = self { backtrace } else { &[] }
    }

    /// What an error of the engine means.
    pub(super) fn explain(error: &wasmtime::Error, host: &Host, limit: Duration, limits: &PluginLimits) -> Self {
        let stderr = host.end_call();
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return Self::Deadline { limit, stderr };
        }
        let reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string(),
            (None, Some(exit)) => format!("it exited with status {}", exit.0),
            (None, None) => error.root_cause().to_string(),
        };
        // The engine's error for it is private.
        if reason.contains("fuel allocated for hostcalls") {
            return Self::Result(format!("more than {} bytes (limits.max_output)", limits.max_output));
        }
        if let Some(wanted) = host.limiter.refused() {
            return Self::Memory { limit: limits.memory, wanted, reason, stderr };
        }
        let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
        let backtrace = frames.iter().map(|frame| {
            let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), demangle);
            name.chars().take(120).collect()
        });
        Self::Trap { reason, backtrace: backtrace.collect(), stderr }
    }
}

/// A Rust symbol without its hash and its quoting. Other names are left alone.
fn demangle(name: &str) -> String {
    name.to_owned()
}
