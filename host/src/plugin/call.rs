//! One call: from permission to call, to the instance that serves it, to its result.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::blame::Caller;
use super::error::{CallError, TimeLimit};
use super::generation::Generation;
use super::instance::Instance;
use super::lane::Turn;
use super::slot::Slot;
use super::spec::Spec;
use super::stats::Function;
use crate::config::Isolation;
use crate::message::ConnectionId;

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
    pub(super) instance: Box<Instance>,
    pub(super) generation: Arc<Generation>,
    isolation: Isolation,
    begun: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Slot {
    /// Waits for permission to call, then for a turn where it needs one, and finds the instance. The call is that of the
    /// generation that serves this connection, unless another is held. Its time begins when this returns.
    pub(super) async fn begin(
        &self,
        isolation: Isolation,
        wait: Wait,
        connection: ConnectionId,
        held: Option<Arc<Generation>>,
    ) -> Result<Call<'_>, CallError> {
        let spec = self.spec();
        let asked = || held.clone().unwrap_or_else(|| self.serving(connection));
        let mut generation = asked();
        let now = if generation.pace().is_slow() { None } else { spec.permits.try_acquire().ok() };
        let (permit, turn) = match now {
            Some(permit) => (permit, None),
            None => {
                let admitted = admit(spec, generation, wait).await?;
                // Whatever was swapped in meanwhile decides.
                generation = asked();
                admitted
            }
        };
        let idle = if isolation == Isolation::Pooled { generation.take_idle() } else { None };
        let mut instance = idle.unwrap_or_else(|| Box::new(Instance::new(&generation)));
        let begun = Instant::now();
        instance.begin_call(begun, spec.limits.deadline, turn);
        Ok(Call { instance, generation, isolation, begun, _permit: permit })
    }

    /// Logs the failure of a call, and draws conclusions.
    pub(super) fn failed(&self, by: Option<&Arc<Generation>>, function: Function, error: &CallError) {
        self.count_failure(error.is_overload());
        let Spec { slot, plugin, failures, .. } = &**self.spec();
        let Some(unlogged) = failures.admit(0) else { return };
        let live = self.live();
        let by = by.unwrap_or(&live);
        let (generation, digest, kind, reason) = (by.number(), by.digest(), error.kind(), error.to_string());
        let call = function.name();
        warn!(slot, plugin, generation, %digest, call, kind, unlogged, reason, "plugin failed");
        if !error.backtrace().is_empty() {
            debug!(slot, plugin, generation, call, backtrace = error.backtrace(), "plugin failed here");
        }
    }
}

async fn admit(
    spec: &Spec,
    generation: Arc<Generation>,
    wait: Wait,
) -> Result<(SemaphorePermit<'_>, Option<Turn>), CallError> {
    let admitted = async {
        let permit = spec.permits.acquire().await;
        let turn = if generation.pace().is_slow() { spec.runtime.lane.first().await } else { None };
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
    /// Reads the result of a call, and counts it; tells whose it is. After a success the instance may serve another, after
    /// any failure it ends.
    pub(super) fn end<R, T>(
        mut self,
        function: Function,
        caller: Caller<'_>,
        outcome: Option<wasmtime::Result<R>>,
        read: impl FnOnce(R, &Arc<Generation>) -> Result<T, CallError>,
    ) -> (Result<T, CallError>, Arc<Generation>) {
        let host = self.instance.store.data();
        let limit = || TimeLimit { setting: "deadline", value: self.generation.spec().limits.deadline };
        let outcome = match outcome {
            Some(Ok(result)) => {
                host.end_call();
                read(result, &self.generation)
            }
            Some(Err(error)) => Err(CallError::explain(&error, host, limit(), &self.generation.spec().limits)),
            None => Err(CallError::Deadline { limit: limit(), stderr: host.end_call() }),
        };
        let ended = Instant::now();
        let out_of_time = matches!(outcome, Err(CallError::Deadline { .. }));
        // It says nothing of the plugin when the process did not run.
        if !(out_of_time && self.generation.spec().runtime.clock.stood_still_since(self.begun)) {
            self.generation.stats().ended(function, caller, ended - self.begun, outcome.as_ref().err());
        }
        self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
        if outcome.is_ok() && self.isolation == Isolation::Pooled && self.instance.calls_left > 0 {
            self.generation.keep_idle(self.instance, ended);
        }
        (outcome, self.generation)
    }
}
