//! One call: from permission to call, to the instance that serves it, to its result.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::base::message::ConnectionId;
use crate::config::Isolation;
use crate::plugin::contract::Function;
use crate::plugin::contract::Role;
use crate::plugin::runtime::error::{CallError, TimeLimit};
use crate::plugin::runtime::explain::explain;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::runtime::turns::Turn;
use crate::plugin::slot::Slot;
use crate::plugin::slot::blame::Caller;
use crate::plugin::slot::generation::Generation;

/// What happens to a call when as many are running as may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It fails after `limits.max_wait`.
    Bounded,
    /// It waits for its turn, first come, first served.
    Unbounded,
}

/// A call that is being made. Dropping it ends its instance.
pub(crate) struct Call<'a> {
    // Dropped before the permit, so that there are never more instances than permits.
    pub(crate) instance: Box<Instance>,
    pub(crate) generation: Arc<Generation>,
    isolation: Isolation,
    begun: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Slot {
    /// Waits for permission to call, then for a turn where it needs one and for memory where it needs an instance of its
    /// own, and finds the instance. The call is that of the generation that serves this connection, unless another is held.
    /// Its time begins when this returns.
    pub(crate) async fn begin(
        &self,
        function: Function,
        isolation: Isolation,
        wait: Wait,
        connection: ConnectionId,
        held: Option<Arc<Generation>>,
    ) -> Result<Call<'_>, CallError> {
        let (spec, role) = (self.spec(), function.role());
        let asked = || held.clone().unwrap_or_else(|| self.serving(connection));
        let now = || {
            let generation = asked();
            let permit = if generation.is_slow(role) { None } else { spec.permits.of(role).try_acquire().ok() }?;
            let instance = generation.instance(role, isolation)?;
            Some(Admitted { instance, generation, permit, turn: None })
        };
        let admitted = match now() {
            Some(admitted) => admitted,
            None => admit(spec, role, isolation, wait, asked).await?,
        };
        let Admitted { mut instance, generation, permit, turn } = admitted;
        let begun = Instant::now();
        instance.begin_call(begun, spec.limits.deadline, turn);
        Ok(Call { instance, generation, isolation, begun, _permit: permit })
    }

    /// Logs the failure of a call, and draws conclusions.
    pub(crate) fn failed(&self, by: Option<&Arc<Generation>>, function: Function, error: &CallError) {
        self.count_failure(error.is_overload());
        let Spec { slot, plugin, failures, .. } = &**self.spec();
        let Some(unlogged) = failures.admit(0) else { return };
        let live = self.live();
        let by = by.unwrap_or(&live);
        let (generation, digest, kind, reason) = (by.number(), by.digest(), error.kind(), error.to_string());
        let call = function.name();
        warn!(slot, plugin, generation, %digest, call, kind, unlogged, reason, "plugin failed");
        if let Some(backtrace) = error.backtrace() {
            debug!(slot, plugin, generation, call, backtrace = backtrace.lines().join(" "), "plugin failed here");
        }
    }
}

/// What a call needs.
struct Admitted<'a> {
    instance: Box<Instance>,
    generation: Arc<Generation>,
    permit: SemaphorePermit<'a>,
    turn: Option<Turn>,
}

/// Waits for all that a call needs. Whatever is swapped in meanwhile decides.
async fn admit(
    spec: &Spec,
    role: Role,
    isolation: Isolation,
    wait: Wait,
    asked: impl Fn() -> Arc<Generation>,
) -> Result<Admitted<'_>, CallError> {
    let (limits, memory) = (&spec.limits, spec.account.memory());
    let overloaded = || CallError::Overloaded { concurrency: limits.concurrency, waited: limits.max_wait };
    let mut short = false;
    let admitted = async {
        let permit = spec.permits.of(role).acquire().await.map_err(|_| overloaded())?;
        let waiting = memory.wait();
        loop {
            let freed = waiting.freed();
            let turn = if asked().is_slow(role) { spec.queue.first_turn().await } else { None };
            let generation = asked();
            if let Some(instance) = generation.instance(role, isolation) {
                return Ok(Admitted { instance, generation, permit, turn });
            }
            // Nobody waits in the lane for something else.
            drop(turn);
            short = true;
            freed.await;
        }
    };
    let admitted = match wait {
        Wait::Unbounded => Some(admitted.await),
        Wait::Bounded => timeout(limits.max_wait, admitted).await.ok(),
    };
    admitted.unwrap_or_else(|| {
        Err(match short {
            false => overloaded(),
            true => CallError::NoRoom(format!(
                "no memory was free within {:?} (limits.max_wait); all plugins together may have {} bytes (engine.memory)",
                limits.max_wait,
                memory.total()
            )),
        })
    })
}

impl Call<'_> {
    /// Reads the result of a call, and counts it; tells whose it is. After a success the instance may serve another, after
    /// any failure it ends.
    pub(crate) fn end<R, T>(
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
            Some(Err(error)) => Err(explain(error, host, limit(), &self.generation.spec().limits)),
            None => Err(CallError::Deadline { limit: limit(), stderr: host.end_call() }),
        };
        let ended = Instant::now();
        let out_of_time = matches!(outcome, Err(CallError::Deadline { .. }));
        // It says nothing of the plugin when the process did not run.
        if !(out_of_time && self.generation.spec().clock.stood_still_since(self.begun)) {
            self.generation.stats().ended(function, caller, ended - self.begun, outcome.as_ref().err());
        }
        self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
        if outcome.is_ok() && self.isolation == Isolation::Pooled && self.instance.calls_left > 0 {
            self.generation.keep_idle(function.role(), self.instance, ended);
        }
        (outcome, self.generation)
    }
}
