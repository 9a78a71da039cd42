//! One generation of a plugin: a compiled component with its instances. The calls that it serves are in `calls`.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};
use wasmtime::component::{Component, InstancePre};

use super::bindings::Exports;
use super::bindings::logging::Level;
use super::error::{CallError, TimeLimit};
use super::guest_log::GuestLog;
use super::host::Host;
use super::instance::{Instance, within};
use super::lane::Turns;
use super::lock;
use super::slot::Digest;
use super::spec::Spec;
use crate::config::Isolation;
use crate::metrics::Counter;

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// In a fresh instance or in one that has served other calls.
    pub isolation: Isolation,
    /// What happens when as many calls are running as may run.
    pub wait: Wait,
}

/// What happens to a call when as many are running as may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It fails after `limits.max_wait`.
    Bounded,
    /// It waits for its turn, first come, first served.
    Unbounded,
}

/// A component that has passed all checks, or is passing them.
pub struct Generation {
    /// Counts the components that served in this slot, from 1.
    number: u64,
    /// Tells code and settings apart from others.
    digest: Digest,
    /// What the slot's generations have in common.
    spec: Arc<Spec>,
    component: InstancePre<Host>,
    exports: Exports,
    log: Arc<GuestLog>,
    /// Instances waiting for a call, the one used last on top: its memory is still in the processor's caches. The lock
    /// is held for a push or a pop.
    idle: Mutex<Vec<Instance>>,
    /// No longer the live one: instances end with their calls.
    retired: AtomicBool,
    /// Calls that returned.
    pub calls: Counter,
    /// Calls that failed.
    pub failures: Counter,
}

impl Generation {
    /// Links a component and checks that it is what its slot needs, up to asking itself.
    pub(super) async fn verify(
        spec: &Arc<Spec>,
        number: u64,
        digest: Digest,
        component: &Component,
    ) -> anyhow::Result<Self> {
        let linked = spec.runtime.linker.instantiate_pre(component).map_err(super::plain);
        let component = linked.context("it imports what the gateway does not provide")?;
        let generation = Self {
            number,
            digest,
            spec: spec.clone(),
            exports: Exports::find(&component, spec.roles)?,
            component,
            log: Arc::new(GuestLog::new(spec.plugin.clone(), digest, spec.lines.clone())),
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
            calls: Counter::default(),
            failures: Counter::default(),
        };
        generation.check().await?;
        Ok(generation)
    }

    /// Asks the plugin itself, on an instance that serves nothing else.
    async fn check(&self) -> anyhow::Result<()> {
        let limit = TimeLimit { setting: "check_timeout", value: self.spec.limits.check_timeout };
        let mut instance = Instance::new(self, limit).await.context("it does not start")?;
        instance.check_types(self)?;
        let deadline = instance.store.data().deadline;
        let turns = instance.turns();
        let outcome = {
            let check = pin!(async {
                let lifecycle = instance.lifecycle(self)?;
                lifecycle.call_check(&mut instance.store).await
            });
            within(&turns, deadline, check).await
        };
        let host = instance.store.data();
        let failed = match outcome {
            Some(Ok(Ok(()))) => {
                host.end_call();
                return Ok(());
            }
            Some(Ok(Err(reason))) => {
                host.end_call();
                return Err(
                    anyhow!("{}", super::guest_log::clean(reason.as_bytes(), 1024)).context("its own check refuses")
                );
            }
            Some(Err(error)) => CallError::explain(&error, host, limit, &self.spec.limits),
            None => CallError::Deadline { limit, stderr: host.end_call() },
        };
        debug!(slot = self.spec.slot, plugin = self.spec.plugin, backtrace = failed.backtrace(), "plugin check failed");
        Err(anyhow::Error::new(failed).context("its check failed"))
    }

    /// Counts the components that served in its slot, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Tells code and settings apart from others.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn component(&self) -> &InstancePre<Host> {
        &self.component
    }

    pub(super) fn exports(&self) -> &Exports {
        &self.exports
    }

    pub(super) fn log(&self) -> &Arc<GuestLog> {
        &self.log
    }

    /// Says something in the plugin's name, within its limit of log lines.
    pub fn say(&self, line: &str) {
        self.log.line(Level::Warn, line.as_bytes());
    }

    /// Says how many log lines of the plugin were dropped, if any were.
    pub(super) fn flush_log(&self) {
        self.log.flush();
    }

    #[cfg(test)]
    pub(super) fn idle_instances(&self) -> usize {
        lock(&self.idle).len()
    }

    /// Ends the instances that wait for calls; those with a call end after it.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        drop(std::mem::take(&mut *lock(&self.idle)));
    }

    /// Waits for permission to call, and finds or makes the instance.
    pub(super) async fn begin(&self, terms: Terms) -> Result<Call<'_>, CallError> {
        let permit = self.permit(terms.wait).await?;
        let limit = TimeLimit { setting: "deadline", value: self.spec.limits.deadline };
        let idle = if terms.isolation == Isolation::Pooled { lock(&self.idle).pop() } else { None };
        let instance = match idle {
            Some(mut instance) => {
                instance.begin_call(Instant::now() + limit.value);
                instance
            }
            // Boxed: most calls find an idle instance, and need not carry what making one takes.
            None => Box::pin(Instance::new(self, limit)).await?,
        };
        Ok(Call { instance, generation: self, terms, limit, _permit: permit })
    }

    async fn permit(&self, wait: Wait) -> Result<SemaphorePermit<'_>, CallError> {
        let permits = &self.spec.permits;
        if let Ok(permit) = permits.try_acquire() {
            return Ok(permit);
        }
        let limits = &self.spec.limits;
        let overloaded = CallError::Overloaded { concurrency: limits.concurrency, waited: limits.max_wait };
        let permit = match wait {
            Wait::Unbounded => permits.acquire().await,
            Wait::Bounded => timeout(limits.max_wait, permits.acquire()).await.map_err(|_| overloaded.clone())?,
        };
        permit.map_err(|_closed| overloaded)
    }

    /// Counts the outcome of a call; a failure is also logged.
    pub(super) fn settle<T>(&self, call: &'static str, outcome: Result<T, CallError>) -> Result<T, CallError> {
        let Err(error) = &outcome else {
            self.calls.increment();
            return outcome;
        };
        self.failures.increment();
        if let Some(dropped) = self.spec.failures.admit() {
            let Spec { slot, plugin, .. } = &*self.spec;
            let (generation, digest, kind) = (self.number, self.digest, error.kind());
            warn!(slot, plugin, generation, %digest, call, kind, unlogged = dropped, reason = %error, "plugin failed");
            if !error.backtrace().is_empty() {
                debug!(slot, plugin, generation, call, backtrace = error.backtrace(), "plugin failed here");
            }
        }
        outcome
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} of {}, {}", self.number, self.spec.slot, self.digest)
    }
}

/// A call that is being made. Dropping it ends its instance.
pub(super) struct Call<'a> {
    // Dropped before the permit, so that there are never more instances than permits.
    pub(super) instance: Instance,
    generation: &'a Generation,
    terms: Terms,
    limit: TimeLimit,
    _permit: SemaphorePermit<'a>,
}

impl Call<'_> {
    pub(super) fn turns(&self) -> Arc<Turns> {
        self.instance.turns()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.instance.store.data().deadline
    }

    /// Reads the result of a call. After a success the instance may serve another, after any failure it ends.
    pub(super) fn end<R, T>(
        mut self,
        outcome: Option<wasmtime::Result<R>>,
        read: impl FnOnce(R) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let host = self.instance.store.data();
        match outcome {
            Some(Ok(result)) => {
                host.end_call();
                let result = read(result)?;
                let Self { generation, .. } = self;
                self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
                if self.terms.isolation == Isolation::Pooled && self.instance.calls_left > 0 {
                    let mut idle = lock(&generation.idle);
                    // Under the lock, or else it would wait among the idle of a generation that has been retired.
                    if !generation.retired.load(Relaxed) {
                        idle.push(self.instance);
                    }
                }
                Ok(result)
            }
            Some(Err(error)) => Err(CallError::explain(&error, host, self.limit, &self.generation.spec.limits)),
            None => Err(CallError::Deadline { limit: self.limit, stderr: host.end_call() }),
        }
    }
}
