//! One instance of a component in its store, and the limits within which the instance runs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use wasmtime::component::Instance as ComponentInstance;
use wasmtime::{Result, Store, UpdateDeadline};

use crate::base::message::ConnectionId;
use crate::plugin::contract::{authenticator, lifecycle, publications, router};
use crate::plugin::runtime::clock::TICK;
use crate::plugin::runtime::host::Host;
use crate::plugin::runtime::limits::host_call_bytes;
use crate::plugin::runtime::memory::Holding;
use crate::plugin::runtime::prepared::Prepared;
use crate::plugin::runtime::turns::{SlowCalls, Turn, Turns};

/// A store with its one instance. Whatever goes wrong in the store ends with the store.
pub(crate) struct Instance {
    pub(crate) store: Store<Host>,
    /// Made by the first call, within the call's deadline and turns.
    instance: Option<ComponentInstance>,
    authenticator: Option<authenticator::Guest>,
    router: Option<router::Guest>,
    publications: Option<publications::Guest>,
    /// Calls until the instance is replaced.
    pub(crate) calls_left: u32,
    /// Since when the instance waits for a call.
    pub(crate) idle_since: Instant,
}

impl Instance {
    /// Creates an empty instance. `slow_calls` remembers its long calls, and `holding` accounts for its memory.
    pub(crate) fn new(prepared: &Prepared, slow_calls: Arc<SlowCalls>, holding: Holding) -> Self {
        let spec = &prepared.spec;
        let mut store = Store::new(prepared.component.engine(), prepared.host(slow_calls, holding));
        store.limiter(|host| &mut host.limiter);
        store.set_max_component_handles(spec.limits.handles);
        store.set_hostcall_fuel(host_call_bytes(&spec.limits));
        store.epoch_deadline_callback(|context| {
            let (host, now) = (context.data(), Instant::now());
            // This check comes first: a call that had to wait for the processor is not late by its own fault.
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
            publications: None,
            calls_left: spec.calls_per_instance(),
            idle_since: Instant::now(),
        }
    }

    /// Returns the memory that the instance has taken from its slot's account.
    pub(crate) fn holding(&mut self) -> &mut Holding {
        self.store.data_mut().limiter.holding()
    }

    /// Prepares for the next call, which begins now.
    pub(crate) fn begin_call(
        &mut self,
        now: Instant,
        limit: Duration,
        turn: Option<Turn>,
        connection: Option<ConnectionId>,
    ) {
        self.store.set_epoch_deadline(1);
        let host = self.store.data_mut();
        host.turns.begin(turn, now);
        host.begin_call(now + limit, connection);
    }

    /// Returns the turns and the deadline of a call that has begun, to run it [`within`].
    pub(crate) fn bounds(&self) -> (Arc<Turns>, Instant) {
        let host = self.store.data();
        (host.turns.clone(), host.deadline)
    }

    async fn made(&mut self, prepared: &Prepared) -> Result<ComponentInstance> {
        if let Some(known) = self.instance {
            return Ok(known);
        }
        // Boxed: most calls find the instance made, and their futures need not hold the state of making it.
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

    pub(crate) async fn publications(&mut self, prepared: &Prepared) -> Result<publications::Guest> {
        if let Some(known) = &self.publications {
            return Ok(known.clone());
        }
        let instance = self.made(prepared).await?;
        let found = prepared.exports.publications(&mut self.store, &instance)?;
        Ok(self.publications.insert(found).clone())
    }

    /// Compares the types of the component's functions with the types of the contract.
    pub(crate) async fn check_types(&mut self, prepared: &Prepared) -> Result<anyhow::Result<()>> {
        let instance = self.made(prepared).await?;
        Ok(prepared.exports.check_types(&mut self.store, &instance))
    }
}

/// Runs a future that may run plugin code. Returns `None` past the deadline. The epoch interrupts code that runs; this
/// function ends code that waits (sleeps). It does so a little later, so that of the two errors the clearer one comes
/// first.
///
/// The caller pins the future: an async function that pins or passes on its argument holds it twice.
pub(crate) async fn within<F: Future>(turns: &Turns, deadline: Instant, mut call: Pin<&mut F>) -> Option<F::Output> {
    // Almost every call ends at once and needs no timer.
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
