//! One call: from permission to call, to the instance that serves it, to its result.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::error::{CallError, TimeLimit};
use super::generation::Generation;
use super::instance::Instance;
use super::lane::Turn;
use super::slot::Slot;
use super::spec::Spec;
use crate::config::Isolation;

/// What happens to a call when as many are running as may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It fails after `limits.max_wait`.
    Bounded,
    /// It waits for its turn, first come, first served.
    Unbounded,
}

/// A call that is being made. Dropping it ends its instance.
pub(super) struct Call<'a> {
    // Dropped before the permit, so that there are never more instances than permits.
    pub(super) instance: Instance,
    pub(super) generation: Arc<Generation>,
    isolation: Isolation,
    limit: TimeLimit,
    _permit: SemaphorePermit<'a>,
}

impl Slot {
    /// Waits for permission to call, then for a turn where it needs one, and finds the instance. The call is the live
    /// generation's, unless another is held. Its time begins when this returns.
    pub(super) async fn begin(
        &self,
        isolation: Isolation,
        wait: Wait,
        held: Option<Arc<Generation>>,
    ) -> Result<Call<'_>, CallError> {
        let spec = self.spec();
        let (permit, turn) = match admit_now(spec) {
            Some(permit) => (permit, None),
            // Boxed: every connection holds this future and hardly any needs it.
            None => Box::pin(admit(spec, wait)).await?,
        };
        // Only now: whatever was swapped in meanwhile decides.
        let generation = held.unwrap_or_else(|| self.live());
        let idle = if isolation == Isolation::Pooled { generation.take_idle() } else { None };
        let mut instance = idle.unwrap_or_else(|| Instance::new(&generation));
        let limit = TimeLimit { setting: "deadline", value: spec.limits.deadline };
        instance.begin_call(Instant::now() + limit.value, turn);
        Ok(Call { instance, generation, isolation, limit, _permit: permit })
    }

    /// Logs the failure of a call.
    pub(super) fn failed(&self, by: Option<&Generation>, call: &'static str, error: &CallError) {
        let Spec { slot, plugin, failures, .. } = self.spec();
        let Some(unlogged) = failures.admit(0) else { return };
        let live = self.live();
        let by = by.unwrap_or(&live);
        let (generation, digest, kind, reason) = (by.number(), by.digest(), error.kind(), error.to_string());
        warn!(slot, plugin, generation, %digest, call, kind, unlogged, reason, "plugin failed");
        if !error.backtrace().is_empty() {
            debug!(slot, plugin, generation, call, backtrace = error.backtrace(), "plugin failed here");
        }
    }
}

/// Permission without waiting, as for almost every call.
fn admit_now(spec: &Spec) -> Option<SemaphorePermit<'_>> {
    if spec.pace.is_slow() { None } else { spec.permits.try_acquire().ok() }
}

async fn admit(spec: &Spec, wait: Wait) -> Result<(SemaphorePermit<'_>, Option<Turn>), CallError> {
    let admitted = async {
        let permit = spec.permits.acquire().await;
        let turn = if spec.pace.is_slow() { spec.runtime.lane.first().await } else { None };
        permit.map(|permit| (permit, turn)).ok()
    };
    let admitted = match wait {
        Wait::Unbounded => admitted.await,
        Wait::Bounded => timeout(spec.limits.max_wait, admitted).await.ok().flatten(),
    };
    let limits = &spec.limits;
    admitted.ok_or(CallError::Overloaded { concurrency: limits.concurrency, waited: limits.max_wait })
}

impl Call<'_> {
    /// Reads the result of a call. After a success the instance may serve another, after any failure it ends.
    pub(super) fn end<R, T>(
        mut self,
        outcome: Option<wasmtime::Result<R>>,
        read: impl FnOnce(R, &Arc<Generation>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let host = self.instance.store.data();
        match outcome {
            Some(Ok(result)) => {
                host.end_call();
                let result = read(result, &self.generation)?;
                self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
                if self.isolation == Isolation::Pooled && self.instance.calls_left > 0 {
                    self.generation.keep_idle(self.instance);
                }
                Ok(result)
            }
            Some(Err(error)) => Err(CallError::explain(&error, host, self.limit, &self.generation.spec().limits)),
            None => Err(CallError::Deadline { limit: self.limit, stderr: host.end_call() }),
        }
    }
}
