//! Asks a plugin itself whether it is ready to serve (`lifecycle.check`).

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

/// Bytes of what a plugin's own check says against it.
const MAX_REFUSAL: usize = 1024;

/// A plugin's `lifecycle.check` has refused its settings, or whatever else it looked at.
#[derive(Debug, thiserror::Error)]
#[error("its own check refuses: {0}")]
pub struct CheckRefused(String);

/// Asks the plugin itself, on an instance that serves nothing else. Returns how many bytes of memory that has.
///
/// # Errors
/// [`CheckRefused`], or how the call failed.
pub(crate) async fn check(prepared: &Prepared) -> anyhow::Result<usize> {
    let spec = &prepared.spec;
    let limit = TimeLimit { setting: "check_timeout", value: spec.limits.check_timeout };
    let mut instance = Instance::new(prepared, SlowCalls::new(), Holding::new(spec.account.clone()));
    instance.begin_call(Instant::now(), limit.value, None);
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
    let backtrace = || failed.backtrace().map(|backtrace| backtrace.lines().join(" "));
    debug!(slot = spec.slot, plugin = spec.plugin, backtrace = backtrace(), "plugin check failed");
    Err(failed)
}
