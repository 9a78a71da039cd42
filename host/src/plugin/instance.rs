//! One instance of a component in its store, and the bounds within which it runs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use wasmtime::component::Instance as ComponentInstance;
use wasmtime::{Result, Store, UpdateDeadline};

use super::bindings::{authenticator, lifecycle, router};
use super::engine::TICK;
use super::generation::Generation;
use super::host::Host;
use super::lane::{Pace, Turn, Turns};
use super::limits::host_call_bytes;
use super::memory::Holding;

/// A store with its one instance: whatever goes wrong in it ends with it.
pub(super) struct Instance {
    pub(super) store: Store<Host>,
    /// Made by the first call, within its time and turns.
    instance: Option<ComponentInstance>,
    authenticator: Option<authenticator::Guest>,
    router: Option<router::Guest>,
    /// After how many more calls it is replaced.
    pub(super) calls_left: u32,
    /// Since when it waits for a call.
    pub(super) idle_since: Instant,
}

impl Instance {
    /// An empty one, whose calls are as long as this tells, and whose memory is accounted for here.
    pub(super) fn new(generation: &Generation, pace: Arc<Pace>, holding: Holding) -> Self {
        let spec = generation.spec();
        let mut store = Store::new(&spec.runtime.engine, Host::new(generation, pace, holding));
        store.limiter(|host| &mut host.limiter);
        store.set_max_component_handles(spec.limits.handles);
        store.set_hostcall_fuel(host_call_bytes(&spec.limits));
        store.epoch_deadline_callback(|context| {
            let (host, now) = (context.data(), Instant::now());
            // First: a call that had to wait for the processor is not late by its own fault.
            Ok(if host.turns.may_go_on(now) {
                UpdateDeadline::Continue(1)
            } else if now >= host.deadline {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(host.turns.clone().next()))
            })
        });
        Self {
            store,
            instance: None,
            authenticator: None,
            router: None,
            calls_left: spec.calls_per_instance(),
            idle_since: Instant::now(),
        }
    }

    /// What it has of its slot's account.
    pub(super) fn holding(&mut self) -> &mut Holding {
        self.store.data_mut().limiter.holding()
    }

    /// Prepares for one more call, which begins now.
    pub(super) fn begin_call(&mut self, now: Instant, limit: Duration, turn: Option<Turn>) {
        self.store.set_epoch_deadline(1);
        let host = self.store.data_mut();
        host.turns.begin(turn, now);
        host.begin_call(now + limit);
    }

    /// Within what a call that has begun must [run](within).
    pub(super) fn bounds(&self) -> (Arc<Turns>, Instant) {
        let host = self.store.data();
        (host.turns.clone(), host.deadline)
    }

    async fn made(&mut self, generation: &Generation) -> Result<ComponentInstance> {
        if let Some(known) = self.instance {
            return Ok(known);
        }
        // Boxed: most calls find it made, and need not carry what making it takes.
        let made = Box::pin(generation.component().instantiate_async(&mut self.store)).await?;
        Ok(*self.instance.insert(made))
    }

    pub(super) async fn lifecycle(&mut self, generation: &Generation) -> Result<lifecycle::Guest> {
        let instance = self.made(generation).await?;
        generation.exports().lifecycle(&mut self.store, &instance)
    }

    pub(super) async fn authenticator(&mut self, generation: &Generation) -> Result<authenticator::Guest> {
        if let Some(known) = &self.authenticator {
            return Ok(known.clone());
        }
        let instance = self.made(generation).await?;
        let found = generation.exports().authenticator(&mut self.store, &instance)?;
        Ok(self.authenticator.insert(found).clone())
    }

    pub(super) async fn router(&mut self, generation: &Generation) -> Result<router::Guest> {
        if let Some(known) = &self.router {
            return Ok(known.clone());
        }
        let instance = self.made(generation).await?;
        let found = generation.exports().router(&mut self.store, &instance)?;
        Ok(self.router.insert(found).clone())
    }

    /// Compares the types of the component's functions with those of the contract.
    pub(super) async fn check_types(&mut self, generation: &Generation) -> Result<anyhow::Result<()>> {
        let instance = self.made(generation).await?;
        Ok(generation.exports().check_types(&mut self.store, &instance))
    }
}

/// Runs something that may run plugin code. `None` past the deadline: the epoch interrupts code that runs, this ends code
/// that waits (sleeps), a little later so that the more telling of the two comes first.
///
/// Pinned by the caller: an async function that pins or passes on its argument holds it twice.
pub(super) async fn within<F: Future>(turns: &Turns, deadline: Instant, mut call: Pin<&mut F>) -> Option<F::Output> {
    // Almost every call ends at once, and needs no timer.
    let mut timer = None;
    let mut expired = |context: &mut Context<'_>| {
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until((deadline + 2 * TICK).into())));
        timer.as_mut().poll(context)
    };
    poll_fn(|context| match turns.poll(call.as_mut(), context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => expired(context).map(|()| None),
    })
    .await
}
