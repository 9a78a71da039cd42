//! One instance of a component in its store, and the bounds within which it runs.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout_at;
use wasmtime::component::Instance as ComponentInstance;
use wasmtime::{Result, Store, UpdateDeadline};

use super::bindings::{authenticator, lifecycle, router};
use super::engine::TICK;
use super::error::{CallError, TimeLimit};
use super::generation::Generation;
use super::host::Host;
use super::lane::Turns;

/// Handles that one instance may hold in the component model's own tables.
const HANDLES: usize = 1000;

/// Bytes that one returned action takes beside its texts, with room to spare.
const BYTES_PER_ACTION: usize = 256;

/// Bytes that any call may pass to the host, whatever the limits say.
const SMALL_CHANGE: usize = 64 << 10;

/// Ticks that a call may run before it must take turns. Two, because the first may be about to end.
const TICKS: u64 = 2;

/// A store with its one instance: whatever goes wrong in it ends with it.
pub(super) struct Instance {
    pub(super) store: Store<Host>,
    instance: ComponentInstance,
    authenticator: Option<authenticator::Guest>,
    router: Option<router::Guest>,
    /// After how many more calls it is replaced.
    pub(super) calls_left: u32,
}

impl Instance {
    /// Makes a fresh one; the time limit holds for this and the first call together.
    pub(super) async fn new(generation: &Generation, limit: TimeLimit) -> Result<Self, CallError> {
        let spec = generation.spec();
        let deadline = Instant::now() + limit.value;
        let mut store = Store::new(&spec.runtime.engine, Host::new(generation, deadline));
        store.limiter(|host| &mut host.limiter);
        store.set_max_component_handles(HANDLES);
        let limits = &spec.limits;
        store.set_hostcall_fuel(limits.max_output + limits.max_actions * BYTES_PER_ACTION + SMALL_CHANGE);
        store.set_epoch_deadline(TICKS);
        store.epoch_deadline_callback(|context| {
            let host = context.data();
            Ok(if Instant::now() >= host.deadline {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(host.turns.clone().next()))
            })
        });
        let turns = store.data().turns.clone();
        let outcome = within(&turns, deadline, pin!(generation.component().instantiate_async(&mut store))).await;
        match outcome {
            Some(Ok(instance)) => {
                Ok(Self { store, instance, authenticator: None, router: None, calls_left: spec.calls_per_instance() })
            }
            Some(Err(error)) => Err(CallError::explain(&error, store.data(), limit, limits)),
            None => Err(CallError::Deadline { limit, stderr: store.data().end_call() }),
        }
    }

    /// Prepares for one more call.
    pub(super) fn begin_call(&mut self, deadline: Instant) {
        self.store.data_mut().deadline = deadline;
        self.store.set_epoch_deadline(TICKS);
    }

    pub(super) fn turns(&self) -> Arc<Turns> {
        self.store.data().turns.clone()
    }

    pub(super) fn lifecycle(&mut self, generation: &Generation) -> Result<lifecycle::Guest> {
        generation.exports().lifecycle(&mut self.store, &self.instance)
    }

    pub(super) fn authenticator(&mut self, generation: &Generation) -> Result<authenticator::Guest> {
        if let Some(known) = &self.authenticator {
            return Ok(known.clone());
        }
        let found = generation.exports().authenticator(&mut self.store, &self.instance)?;
        Ok(self.authenticator.insert(found).clone())
    }

    pub(super) fn router(&mut self, generation: &Generation) -> Result<router::Guest> {
        if let Some(known) = &self.router {
            return Ok(known.clone());
        }
        let found = generation.exports().router(&mut self.store, &self.instance)?;
        Ok(self.router.insert(found).clone())
    }

    /// Compares the types of the component's functions with those of the contract.
    pub(super) fn check_types(&mut self, generation: &Generation) -> anyhow::Result<()> {
        generation.exports().check_types(&mut self.store, &self.instance)
    }
}

/// Runs something that may run plugin code. `None` past the deadline: the epoch interrupts code that runs, this ends code
/// that waits (sleeps), a little later so that the more telling of the two comes first.
///
/// Pinned by the caller: an async function that pins or passes on its argument holds it twice, and every connection would.
pub(super) async fn within<F: Future>(turns: &Arc<Turns>, deadline: Instant, call: Pin<&mut F>) -> Option<F::Output> {
    timeout_at((deadline + 2 * TICK).into(), turns.run(call)).await.ok()
}
