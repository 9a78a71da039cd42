//! Calls a plugin's own check (`lifecycle.check`): is it ready to serve?

use std::pin::pin;
use std::time::Instant;

use anyhow::Context as _;
use tracing::debug;

use super::error::{CallError, TimeLimit};
use super::explain::explain;
use super::instance::{Instance, within};
use super::memory::Holding;
use super::prepared::Prepared;
use super::spec::Spec;
use super::turns::SlowCalls;
use crate::plugin::text::clean;

/// Most bytes of the reason that a plugin's own check gives.
const MAX_REFUSAL: usize = 1024;

/// A plugin's `lifecycle.check` has refused its settings, or something else that it looked at.
#[derive(Debug, thiserror::Error)]
#[error("its own check refuses{}", because(.0))]
pub struct CheckRefused(String);

fn because(reason: &str) -> String {
    if reason.trim().is_empty() { ", without a reason".to_owned() } else { format!(": {reason}") }
}

/// Calls the plugin's own check, on an instance that serves nothing else. Returns the instance's bytes of memory.
///
/// # Errors
/// [`CheckRefused`] if the check refuses; a [`CallError`] if the call fails.
pub(crate) async fn check(prepared: &Prepared) -> anyhow::Result<usize> {
    let spec = &prepared.spec;
    let limit = TimeLimit { setting: "check_timeout", value: spec.limits.check_timeout };
    let mut instance = Instance::new(prepared, SlowCalls::new(), Holding::new(spec.account.clone()));
    instance.begin_call(Instant::now(), limit.value, None, None);
    let (turns, deadline) = instance.bounds();

    let outcome = within(&turns, deadline, pin!(instance.check_types(prepared))).await;
    passed(outcome, &instance, spec, limit).context("it does not start")??;
    let outcome = {
        let check = pin!(async {
            let lifecycle = instance.lifecycle(prepared).await?;
            lifecycle.call_check(&mut instance.store).await
        });
        within(&turns, deadline, check).await
    };
    let outcome = passed(outcome, &instance, spec, limit).context("its check failed")?;
    outcome.map_err(|reason| CheckRefused(clean(reason.as_bytes(), MAX_REFUSAL)))?;
    Ok(instance.store.data().limiter.memory())
}

fn passed<T>(
    outcome: Option<wasmtime::Result<T>>,
    instance: &Instance,
    spec: &Spec,
    limit: TimeLimit,
) -> Result<T, CallError> {
    let host = instance.store.data();
    let failed = match outcome {
        Some(Ok(passed)) => {
            host.end_call();
            return Ok(passed);
        }
        Some(Err(error)) => explain(error, host, limit, &spec.limits),
        None => CallError::Deadline { limit, stderr: host.end_call() },
    };
    let backtrace = || failed.backtrace().map(|backtrace| backtrace.lines().join("; "));
    debug!(slot = spec.slot, plugin = spec.plugin, backtrace = backtrace(), "plugin check failed");
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_reason_says_so() {
        let refused = |reason: &str| CheckRefused(reason.to_owned()).to_string();
        assert_eq!(refused("the key is missing"), "its own check refuses: the key is missing");
        for empty in ["", " \t"] {
            assert_eq!(refused(empty), "its own check refuses, without a reason");
        }
    }
}
