//! Explains errors of the engine: which limit the plugin exceeded, or that its code failed.

use rustix::io::Errno;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::error::{CallError, ENGINE_MEMORY, MEMORY, TABLE_ELEMENTS, TimeLimit};
use super::frames::Frames;
use super::host::{Host, MAX_RANDOM};
use super::limits::host_call_bytes;
use super::log::TooMuchHanded;
use crate::config::PluginLimits;
use crate::plugin::text::shown;

/// Most bytes of an engine's error in the log. The error may quote the plugin.
const MAX_REASON: usize = 1024;

/// Ends the call, and returns how it failed.
pub(crate) fn explain(error: wasmtime::Error, host: &Host, limit: TimeLimit, limits: &PluginLimits) -> CallError {
    let stderr = host.end_call();
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        return CallError::Deadline { limit, stderr };
    }
    let cause = error.root_cause();
    if cause.is::<PoolConcurrencyLimitError>() || cause.is::<Errno>() {
        return CallError::NoRoom(shown(cause, MAX_REASON));
    }
    let reason = match (trap, error.downcast_ref::<I32Exit>()) {
        (Some(trap), _) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        (None, Some(exit)) => format!("it exited with status {}", exit.0),
        (None, None) => shown(cause, MAX_REASON),
    };
    let was_running = error.is::<WasmBacktrace>();
    // Without a backtrace the plugin was not running any more: it had returned its result.
    if is_fuel(&reason) && !was_running && limits.host_call_bytes.is_none() {
        return CallError::Result(format!("more than {} bytes (limits.max_output)", limits.max_output));
    }
    let past_limit = past_limit(&error, &reason, host, limits);
    let backtrace = Frames::of(error);
    match past_limit {
        Some((did, limit, setting)) => {
            // For other limits, the engine's reason adds nothing.
            let reason =
                if [MEMORY, ENGINE_MEMORY, TABLE_ELEMENTS].contains(&setting) { reason } else { String::new() };
            CallError::Limit { did, limit, setting, reason, backtrace, stderr }
        }
        None => CallError::Trap { reason, backtrace, stderr },
    }
}

/// Returns `true` if the call passed too many bytes to the host. Some errors of the engine have private types, and are
/// recognized by their text.
fn is_fuel(reason: &str) -> bool {
    reason.contains("fuel allocated for hostcalls")
}

fn is_handles(error: &wasmtime::Error, reason: &str) -> bool {
    matches!(error.downcast_ref(), Some(ResourceTableError::Full)) || reason.contains("store handle limit exceeded")
}

/// Returns how many random bytes a call asked for, if it asked for too many.
fn random_bytes(reason: &str) -> Option<u64> {
    let (wanted, _) = reason.strip_prefix("requested len ")?.split_once(" exceeds limit ")?;
    wanted.parse().ok()
}

/// Returns what the plugin did, the limit that it exceeded, and the name of the setting.
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
