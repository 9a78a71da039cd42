//! How a call of a plugin can fail.

use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::guest_log::clean;
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
        backtrace: String,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// It ran or waited for too long.
    #[error("it had not ended after {:?} (limits.{}){}", .limit.value, .limit.setting, said(.stderr))]
    Deadline {
        /// How long it may take.
        limit: TimeLimit,
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
    #[error(
        "{concurrency} calls were running (limits.concurrency), and none ended within {waited:?} (limits.max_wait)"
    )]
    Overloaded {
        /// `limits.concurrency`.
        concurrency: usize,
        /// `limits.max_wait`.
        waited: Duration,
    },
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    /// The name of the setting.
    pub setting: &'static str,
    /// Its value.
    pub value: Duration,
}

/// Bytes of a backtrace in the log; names of functions can be of any length.
const MAX_BACKTRACE: usize = 4096;

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
    pub fn backtrace(&self) -> &str {
        if let Self::Trap { backtrace, .. } = self { backtrace } else { "" }
    }

    /// What an error of the engine means.
    pub(super) fn explain(error: &wasmtime::Error, host: &Host, limit: TimeLimit, limits: &PluginLimits) -> Self {
        let stderr = host.end_call();
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return Self::Deadline { limit, stderr };
        }
        let reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
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
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|backtrace| clean(backtrace.to_string().as_bytes(), MAX_BACKTRACE));
        Self::Trap { reason, backtrace: backtrace.unwrap_or_default(), stderr }
    }
}
