//! How a call of a plugin can fail.

use std::time::Duration;

use rustix::io::Errno;
use tokio::task::JoinError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
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
    /// It could not begin in time.
    #[error(
        "it could not begin within {waited:?} (limits.max_wait); {concurrency} calls may run at a time \
         (limits.concurrency)"
    )]
    Overloaded {
        /// `limits.concurrency`.
        concurrency: usize,
        /// `limits.max_wait`.
        waited: Duration,
    },
    /// The host has no room for another instance.
    #[error("no instance could be made: {0}")]
    NoRoom(String),
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

/// Bytes of an error of the engine in the log: it may quote the plugin.
const MAX_REASON: usize = 1024;

/// What the engine's error says when a call has handed the host more than it may.
const OUT_OF_FUEL: &str = "fuel allocated for hostcalls";

/// Whether what was refused for this reason might do at another time: it is not, or not surely, the plugin's doing.
pub(super) fn is_passing(reason: &anyhow::Error) -> bool {
    let failure = reason.downcast_ref::<CallError>();
    reason.is::<JoinError>()
        || failure.is_some_and(|failure| {
            matches!(failure, CallError::Deadline { .. } | CallError::Overloaded { .. } | CallError::NoRoom(_))
        })
}

fn shown(text: &str) -> String {
    clean(text.as_bytes(), MAX_REASON)
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") }
}

/// What failures are counted by, but for [`CallError::Overloaded`]: those calls never began.
pub(super) const KINDS: [&str; 4] = ["trap", "deadline", "memory", "result"];

impl CallError {
    /// One word, by which failures are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Memory { .. } => "memory",
            Self::Result(_) => "result",
            Self::Overloaded { .. } | Self::NoRoom(_) => "overloaded",
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
        let cause = error.root_cause();
        if cause.is::<PoolConcurrencyLimitError>() || cause.is::<Errno>() {
            return Self::NoRoom(shown(&cause.to_string()));
        }
        let reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            (None, Some(exit)) => format!("it exited with status {}", exit.0),
            (None, None) => shown(&cause.to_string()),
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        // The engine's error for it is private. Without a backtrace the plugin was not running any more.
        if reason.contains(OUT_OF_FUEL) {
            return match backtrace {
                None => Self::Result(format!("more than {} bytes (limits.max_output)", limits.max_output)),
                Some(_) => Self::Trap {
                    reason: "it handed too much to a function of the host at once".to_owned(),
                    backtrace: String::new(),
                    stderr,
                },
            };
        }
        if let Some(wanted) = host.limiter.refused() {
            return Self::Memory { limit: limits.memory, wanted, reason, stderr };
        }
        let backtrace = backtrace.map(|backtrace| clean(backtrace.to_string().as_bytes(), MAX_BACKTRACE));
        Self::Trap { reason, backtrace: backtrace.unwrap_or_default(), stderr }
    }
}
