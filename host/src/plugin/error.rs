//! How a call of a plugin can fail.

use std::time::Duration;

use rustix::io::Errno;
use tokio::task::JoinError;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::compile::CompileError;
use super::frames::Frames;
use super::guest_log::TooMuchHanded;
use super::host::{Host, MAX_RANDOM};
use super::limits::host_call_bytes;
use super::load::Unready;
use super::text::shown;
use crate::config::PluginLimits;

/// Why a call of a plugin has no result. Nothing of the call has had an effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The plugin's code failed: a panic, an out-of-bounds access, an exit.
    #[error("it trapped: {reason}{}", said(.stderr))]
    Trap {
        /// What WebAssembly says of it.
        reason: String,
        /// The functions that it happened in.
        backtrace: Frames,
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
    /// It wanted more of something than it may have.
    #[error("it {did}, the limit is {limit} ({setting}){}{}", then(.reason), said(.stderr))]
    Limit {
        /// What went too far.
        did: String,
        /// The value of the setting.
        limit: usize,
        /// The name of the setting.
        setting: &'static str,
        /// How it took that; may be empty.
        reason: String,
        /// The functions that it happened in.
        backtrace: Frames,
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

/// Bytes of an error of the engine in the log: it may quote the plugin.
const MAX_REASON: usize = 1024;

/// Whether what was refused for this reason might do at another time: it is not, or not surely, the plugin's doing.
pub(super) fn is_passing(reason: &anyhow::Error) -> bool {
    let failure = reason.downcast_ref::<CallError>();
    reason.is::<JoinError>()
        || reason.is::<Unready>()
        || reason.downcast_ref::<CompileError>().is_some_and(CompileError::is_passing)
        || failure.is_some_and(|failure| {
            matches!(
                failure,
                CallError::Deadline { .. }
                    | CallError::Overloaded { .. }
                    | CallError::NoRoom(_)
                    | CallError::Limit { setting: ENGINE_MEMORY, .. }
            )
        })
}

fn then(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!("; {reason}") }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") }
}

/// What failures are counted by.
pub(super) const KINDS: [&str; 5] = ["trap", "deadline", "memory", "limit", "result"];

impl CallError {
    /// One word, by which failures are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Limit { setting, .. } if [MEMORY, ENGINE_MEMORY].contains(setting) => "memory",
            Self::Limit { .. } => "limit",
            Self::Result(_) => "result",
            Self::Overloaded { .. } | Self::NoRoom(_) => "overloaded",
        }
    }

    /// Whether the call was shed, which is not its plugin's failure.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::NoRoom(_))
    }

    /// The functions that a trap happened in, if it was one.
    pub fn backtrace(&self) -> Option<&Frames> {
        match self {
            Self::Trap { backtrace, .. } | Self::Limit { backtrace, .. } => Some(backtrace).filter(|it| !it.is_empty()),
            _ => None,
        }
    }

    /// What an error of the engine means.
    pub(super) fn explain(error: wasmtime::Error, host: &Host, limit: TimeLimit, limits: &PluginLimits) -> Self {
        let stderr = host.end_call();
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return Self::Deadline { limit, stderr };
        }
        let cause = error.root_cause();
        if cause.is::<PoolConcurrencyLimitError>() || cause.is::<Errno>() {
            return Self::NoRoom(shown(cause, MAX_REASON));
        }
        let reason = match (trap, error.downcast_ref::<I32Exit>()) {
            (Some(trap), _) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            (None, Some(exit)) => format!("it exited with status {}", exit.0),
            (None, None) => shown(cause, MAX_REASON),
        };
        let was_running = error.is::<WasmBacktrace>();
        // Without a backtrace the plugin was not running any more: it had returned.
        if is_fuel(&reason) && !was_running && limits.host_call_bytes.is_none() {
            return Self::Result(format!("more than {} bytes (limits.max_output)", limits.max_output));
        }
        let past_limit = past_limit(&error, &reason, host, limits);
        let backtrace = Frames::of(error);
        match past_limit {
            Some((did, limit, setting)) => {
                // What the engine says of these says no more.
                let reason =
                    if [MEMORY, ENGINE_MEMORY, TABLE_ELEMENTS].contains(&setting) { reason } else { String::new() };
                Self::Limit { did, limit, setting, reason, backtrace, stderr }
            }
            None => Self::Trap { reason, backtrace, stderr },
        }
    }
}

const MEMORY: &str = "limits.memory";
const ENGINE_MEMORY: &str = "engine.memory";
const TABLE_ELEMENTS: &str = "limits.table_elements";

/// Some of the engine's errors are private, and known by what they say.
fn is_fuel(reason: &str) -> bool {
    reason.contains("fuel allocated for hostcalls")
}

fn is_handles(error: &wasmtime::Error, reason: &str) -> bool {
    matches!(error.downcast_ref(), Some(ResourceTableError::Full)) || reason.contains("store handle limit exceeded")
}

/// How many random bytes a call asked for that wanted too many.
fn random_bytes(reason: &str) -> Option<u64> {
    let (wanted, _) = reason.strip_prefix("requested len ")?.split_once(" exceeds limit ")?;
    wanted.parse().ok()
}

/// What the plugin did, which limit that was past, and the name of its setting.
fn past_limit(
    error: &wasmtime::Error,
    reason: &str,
    host: &Host,
    limits: &PluginLimits,
) -> Option<(String, usize, &'static str)> {
    if error.downcast_ref() == Some(&Trap::StackOverflow) {
        return Some(("needed more bytes of stack".to_owned(), host.stack, "engine.stack"));
    }
    if is_fuel(reason) || error.is::<TooMuchHanded>() {
        let did = "handed the host more bytes".to_owned();
        return Some((did, host_call_bytes(limits), "limits.host_call_bytes"));
    }
    if let Some(wanted) = random_bytes(reason) {
        let did = format!("asked for {wanted} random bytes at once");
        return Some((did, MAX_RANDOM as usize, "a call of get-random-bytes or get-insecure-random-bytes"));
    }
    if is_handles(error, reason) {
        return Some(("asked for more handles".to_owned(), limits.handles, "limits.handles"));
    }
    if let Some(wanted) = host.limiter.refused_memory() {
        return Some((format!("asked for {wanted} bytes of memory"), limits.memory, MEMORY));
    }
    if let Some((wanted, limit)) = host.limiter.unavailable_memory() {
        let did = format!("asked for {wanted} bytes of memory, and all plugins together had no more");
        return Some((did, limit, ENGINE_MEMORY));
    }
    let wanted = host.limiter.refused_table_elements()?;
    Some((format!("asked for {wanted} elements of tables"), limits.table_elements, TABLE_ELEMENTS))
}
