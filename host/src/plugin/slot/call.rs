//! One call: from the permit, to the instance that serves it, to its result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::base::message::ConnectionId;
use crate::base::trace::{Failure, TRACE, TraceEvent};
use crate::config::Isolation;
use crate::plugin::contract::{Function, Role};
use crate::plugin::runtime::error::{CallError, TimeLimit};
use crate::plugin::runtime::explain::explain;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::runtime::turns::Turn;
use crate::plugin::slot::Slot;
use crate::plugin::slot::blame::Caller;
use crate::plugin::slot::generation::Generation;

/// How long a call waits if it cannot begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For at most `limits.max_wait`. Then the call is refused.
    Bounded,
    /// Without a limit.
    Unbounded,
}

/// A call in progress. Dropping it ends the call and its instance. [`Call::end`] may keep the instance instead.
pub(crate) struct Call<'a> {
    // Dropped before the permit, so that there are never more busy instances than permits.
    pub(crate) instance: Box<Instance>,
    pub(crate) generation: Arc<Generation>,
    isolation: Isolation,
    connection: ConnectionId,
    begun: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Slot {
    /// Begins a call as soon as it has:
    ///
    /// - a permit: first come, first served;
    /// - a turn in the fair queue, if calls of this role are slow;
    /// - memory, if it needs a new instance.
    ///
    /// The call runs on the generation `held`, or else on the generation that serves this connection. Its deadline
    /// counts from the moment when this function returns.
    pub(crate) async fn begin(
        &self,
        function: Function,
        isolation: Isolation,
        wait: Wait,
        connection: ConnectionId,
        held: Option<Arc<Generation>>,
    ) -> Result<Call<'_>, CallError> {
        let (spec, role) = (self.spec(), function.role());
        let chosen = || held.clone().unwrap_or_else(|| self.serving(connection));
        let at_once = || {
            let generation = chosen();
            let permit = if generation.is_slow(role) { None } else { spec.permits.of(role).try_acquire().ok() }?;
            let instance = generation.instance(role, isolation)?;
            Some(Admitted { instance, generation, permit, turn: None })
        };
        let admitted = match at_once() {
            Some(admitted) => admitted,
            None => admit(spec, role, isolation, wait, chosen).await?,
        };
        let Admitted { mut instance, generation, permit, turn } = admitted;
        let begun = Instant::now();
        instance.begin_call(begun, spec.limits.deadline, turn, Some(connection));
        Ok(Call { instance, generation, isolation, connection, begun, _permit: permit })
    }

    /// Logs that a call failed or was refused, up to a number of lines a second. Counts a refused call. A failure may
    /// roll the generation back.
    pub(crate) fn failed(
        &self,
        by: Option<&Arc<Generation>>,
        function: Function,
        connection: ConnectionId,
        error: &CallError,
    ) {
        self.count_failure(error.is_overload());
        if by.is_none() && TRACE.follows(connection) {
            trace(function, connection, &self.live(), Duration::ZERO, Some(error));
        }
        let Spec { slot, plugin, failures, .. } = &**self.spec();
        let Some(unlogged) = failures.admit(0) else { return };
        let live = self.live();
        let by = by.unwrap_or(&live);
        let (generation, digest, kind, reason) = (by.number(), by.digest(), error.kind(), error.to_string());
        let (call, connection) = (function.name(), connection.0);
        let message = if error.is_overload() { "plugin call refused" } else { "plugin failed" };
        warn!(slot, plugin, generation, %digest, call, connection, kind, unlogged, reason, "{message}");
        if let Some(backtrace) = error.backtrace() {
            let backtrace = backtrace.lines().join("; ");
            debug!(slot, plugin, generation, call, connection, backtrace, "plugin failed here");
        }
    }
}

/// Records a call for operators who follow its connection.
fn trace(function: Function, connection: ConnectionId, by: &Generation, took: Duration, error: Option<&CallError>) {
    TRACE.record(connection, || {
        let Spec { slot, plugin, .. } = by.spec();
        TraceEvent::Call {
            slot: slot.clone(),
            plugin: plugin.clone(),
            function: function.name(),
            generation: by.number(),
            digest: by.digest().full(),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            failure: error.map(|error| Failure { kind: error.kind(), reason: (&*error.to_string()).into() }),
        }
    });
}

/// All that a call needs to begin.
struct Admitted<'a> {
    instance: Box<Instance>,
    generation: Arc<Generation>,
    permit: SemaphorePermit<'a>,
    turn: Option<Turn>,
}

/// Waits for all that a call needs. `chosen` is called again after each wait: another generation may serve then.
async fn admit(
    spec: &Spec,
    role: Role,
    isolation: Isolation,
    wait: Wait,
    chosen: impl Fn() -> Arc<Generation>,
) -> Result<Admitted<'_>, CallError> {
    let (limits, memory) = (&spec.limits, spec.account.memory());
    let _waiting = spec.count_waiting();
    let overloaded = || CallError::Overloaded { concurrency: limits.concurrency, waited: limits.max_wait };
    let mut lacks_memory = false;
    let admitted = async {
        let permit = spec.permits.of(role).acquire().await.map_err(|_| overloaded())?;
        let waiting = memory.register_waiter();
        loop {
            let freed = waiting.freed();
            let turn = if chosen().is_slow(role) { spec.queue.first_turn().await } else { None };
            let generation = chosen();
            if let Some(instance) = generation.instance(role, isolation) {
                return Ok(Admitted { instance, generation, permit, turn });
            }
            // A call that waits for memory must not hold a turn.
            drop(turn);
            lacks_memory = true;
            freed.await;
        }
    };
    let admitted = match wait {
        Wait::Unbounded => Some(admitted.await),
        Wait::Bounded => timeout(limits.max_wait, admitted).await.ok(),
    };
    admitted.unwrap_or_else(|| {
        Err(match lacks_memory {
            false => overloaded(),
            true => CallError::NoRoom(format!(
                "no memory was free within {:?} (limits.max_wait); all plugins together may have {} bytes \
                 (engine.memory): raise engine.memory, or lower limits.memory or limits.concurrency",
                limits.max_wait,
                memory.total()
            )),
        })
    })
}

impl Call<'_> {
    /// Reads and counts the result of a call. Also returns the generation that was called. After a success, a pooled
    /// instance may serve another call. Any other instance ends.
    pub(crate) fn end<R, T>(
        mut self,
        function: Function,
        caller: Caller,
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
        // If the deadline passed while the process stood still, the call has failed, but is not counted: the plugin is
        // not to blame.
        if !(out_of_time && self.generation.spec().clock.stood_still_since(self.begun)) {
            self.generation.stats().ended(function, caller, ended - self.begun, outcome.as_ref().err());
        }
        trace(function, self.connection, &self.generation, ended - self.begun, outcome.as_ref().err());
        self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
        if outcome.is_ok() && self.isolation == Isolation::Pooled && self.instance.calls_left > 0 {
            self.generation.keep_idle(function.role(), self.instance, ended);
        }
        (outcome, self.generation)
    }
}
