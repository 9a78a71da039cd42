//! One instance of a component in its store, and the bounds within which it runs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use wasmtime::component::Instance as ComponentInstance;
use wasmtime::{Result, Store, UpdateDeadline};

use crate::plugin::contract::{authenticator, lifecycle, router};
use crate::plugin::runtime::clock::TICK;
use crate::plugin::runtime::host::Host;
use crate::plugin::runtime::limits::host_call_bytes;
use crate::plugin::runtime::memory::Holding;
use crate::plugin::runtime::prepared::Prepared;
use crate::plugin::runtime::turns::{SlowCalls, Turn, Turns};

/// A store with its one instance: whatever goes wrong in it ends with it.
pub(crate) struct Instance {
    pub(crate) store: Store<Host>,
    /// Made by the first call, within its time and turns.
    instance: Option<ComponentInstance>,
    authenticator: Option<authenticator::Guest>,
    router: Option<router::Guest>,
    /// After how many more calls it is replaced.
    pub(crate) calls_left: u32,
    /// Since when it waits for a call.
    pub(crate) idle_since: Instant,
}

impl Instance {
    /// An empty one, whose calls are as long as this tells, and whose memory is accounted for here.
    pub(crate) fn new(prepared: &Prepared, slow_calls: Arc<SlowCalls>, holding: Holding) -> Self {
        let spec = &prepared.spec;
        let mut store = Store::new(prepared.component.engine(), prepared.host(slow_calls, holding));
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
                UpdateDeadline::YieldCustom(1, Box::pin(host.turns.clone().next_turn()))
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
    pub(crate) fn holding(&mut self) -> &mut Holding {
        self.store.data_mut().limiter.holding()
    }

    /// Prepares for one more call, which begins now.
    pub(crate) fn begin_call(&mut self, now: Instant, limit: Duration, turn: Option<Turn>) {
        self.store.set_epoch_deadline(1);
        let host = self.store.data_mut();
        host.turns.begin(turn, now);
        host.begin_call(now + limit);
    }

    /// Within what a call that has begun must [run](within).
    pub(crate) fn bounds(&self) -> (Arc<Turns>, Instant) {
        let host = self.store.data();
        (host.turns.clone(), host.deadline)
    }

    async fn made(&mut self, prepared: &Prepared) -> Result<ComponentInstance> {
        if let Some(known) = self.instance {
            return Ok(known);
        }
        // Boxed: most calls find it made, and need not carry what making it takes.
        let made = Box::pin(prepared.component.instantiate_async(&mut self.store)).await?;
        Ok(*self.instance.insert(made))
    }

    pub(crate) async fn lifecycle(&mut self, prepared: &Prepared) -> Result<lifecycle::Guest> {
        let instance = self.made(prepared).await?;
        prepared.exports.lifecycle(&mut self.store, &instance)
    }

    pub(crate) async fn authenticator(&mut self, prepared: &Prepared) -> Result<authenticator::Guest> {
        if let Some(known) = &self.authenticator {
            return Ok(known.clone());
        }
        let instance = self.made(prepared).await?;
        let found = prepared.exports.authenticator(&mut self.store, &instance)?;
        Ok(self.authenticator.insert(found).clone())
    }

    pub(crate) async fn router(&mut self, prepared: &Prepared) -> Result<router::Guest> {
        if let Some(known) = &self.router {
            return Ok(known.clone());
        }
        let instance = self.made(prepared).await?;
        let found = prepared.exports.router(&mut self.store, &instance)?;
        Ok(self.router.insert(found).clone())
    }

    /// Compares the types of the component's functions with those of the contract.
    pub(crate) async fn check_types(&mut self, prepared: &Prepared) -> Result<anyhow::Result<()>> {
        let instance = self.made(prepared).await?;
        Ok(prepared.exports.check_types(&mut self.store, &instance))
    }
}

/// Runs something that may run plugin code. `None` past the deadline: the epoch interrupts code that runs, this ends code
/// that waits (sleeps), a little later so that the more telling of the two comes first.
///
/// Pinned by the caller: an async function that pins or passes on its argument holds it twice.
pub(crate) async fn within<F: Future>(turns: &Turns, deadline: Instant, mut call: Pin<&mut F>) -> Option<F::Output> {
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
