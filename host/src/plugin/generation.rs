//! One generation of a plugin: a compiled component with its instances.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::debug;
use wasmtime::component::{Component, InstancePre};

use super::bindings::logging::Level;
use super::bindings::{Exports, PerRole, Role, router};
use super::blame::Spread;
use super::error::{CallError, TimeLimit};
use super::guest_log::GuestLog;
use super::host::Host;
use super::identity::{Digest, Identity};
use super::instance::{Instance, within};
use super::lane::Pace;
use super::memory::Holding;
use super::pool::Pool;
use super::rollout::Counted;
use super::spec::Spec;
use super::stats::{Counts, Function, Stats};
use super::text::clean;
use crate::config::{Isolation, Settings, Values};

/// Bytes of what a plugin's own check says against it.
const MAX_REFUSAL: usize = 1024;

/// A plugin's `lifecycle.check` has refused its settings, or whatever else it looked at.
#[derive(Debug, thiserror::Error)]
#[error("its own check refuses: {0}")]
pub struct CheckRefused(String);

/// What a plugin is told.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// As the configuration has it.
    pub(super) settings: Settings,
    /// The values as they were when it was loaded.
    pub(super) values: Values,
}

/// A component that has passed all checks, or is passing them.
pub struct Generation {
    /// Counts the generations of its slot, from 1.
    number: u64,
    identity: Identity,
    given: Given,
    /// What the slot's generations have in common.
    spec: Arc<Spec>,
    component: InstancePre<Host>,
    exports: Exports,
    log: Arc<GuestLog>,
    /// Idle instances. Each serves one role only.
    pools: PerRole<Arc<Pool>>,
    paces: PerRole<Arc<Pace>>,
    /// Boxed: it is large, and a generation is passed around while it is made.
    stats: Box<Stats>,
    /// From its bytes to the end of its checks.
    pub(super) loading: Duration,
    /// How long compiling took, now or before; `None` for the component of another generation.
    pub(super) compiling: Option<Duration>,
    /// Bytes of linear memory that an instance has which has done nothing but its check.
    pub(super) memory: usize,
}

impl Generation {
    /// Links a component and checks that it is what its slot needs, up to asking itself.
    pub(super) async fn verify(
        spec: &Arc<Spec>,
        number: u64,
        identity: Identity,
        given: Given,
        component: &Component,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let linked = spec.runtime.linker.instantiate_pre(component).map_err(super::plain);
        let component = linked.context("it imports what the gateway does not provide")?;
        let mut generation = Self {
            number,
            identity,
            given,
            spec: spec.clone(),
            exports: Exports::find(&component, spec.roles)?,
            component,
            log: Arc::new(GuestLog::new(spec, number, identity.component)),
            pools: PerRole::new(|| Pool::new(&spec.account)),
            paces: PerRole::new(Pace::new),
            stats: Box::default(),
            loading: Duration::ZERO,
            compiling: None,
            memory: 0,
        };
        generation.memory = generation.check().await?;
        generation.loading = begun.elapsed();
        Ok(generation)
    }

    /// Asks the plugin itself, on an instance that serves nothing else. Returns how many bytes of memory that has.
    async fn check(&self) -> anyhow::Result<usize> {
        let limit = TimeLimit { setting: "check_timeout", value: self.spec.limits.check_timeout };
        let mut instance = Instance::new(self, Pace::new(), Holding::new(self.spec.account.clone()));
        instance.begin_call(Instant::now(), limit.value, None);
        let (turns, deadline) = instance.bounds();

        let outcome = within(&turns, deadline, pin!(instance.check_types(self))).await;
        self.passed(outcome, &instance, limit).context("it does not start")??;
        let outcome = {
            let check = pin!(async {
                let lifecycle = instance.lifecycle(self).await?;
                lifecycle.call_check(&mut instance.store).await
            });
            within(&turns, deadline, check).await
        };
        let outcome = self.passed(outcome, &instance, limit).context("its check failed")?;
        outcome.map_err(|reason| CheckRefused(clean(reason.as_bytes(), MAX_REFUSAL)))?;
        Ok(instance.store.data().limiter.memory())
    }

    fn passed<T>(
        &self,
        outcome: Option<wasmtime::Result<T>>,
        instance: &Instance,
        limit: TimeLimit,
    ) -> Result<T, CallError> {
        let host = instance.store.data();
        let failed = match outcome {
            Some(Ok(passed)) => {
                host.end_call();
                return Ok(passed);
            }
            Some(Err(error)) => CallError::explain(error, host, limit, &self.spec.limits),
            None => CallError::Deadline { limit, stderr: host.end_call() },
        };
        let backtrace = || failed.backtrace().map(|backtrace| backtrace.lines().join(" "));
        debug!(slot = self.spec.slot, plugin = self.spec.plugin, backtrace = backtrace(), "plugin check failed");
        Err(failed)
    }

    /// Counts the generations of its slot, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The SHA-256 of its component.
    pub fn digest(&self) -> Digest {
        self.identity.component
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn given(&self) -> &Given {
        &self.given
    }

    /// Whether the calls of this role have been long of late.
    pub(super) fn is_slow(&self, role: Role) -> bool {
        self.paces.of(role).is_slow()
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn component(&self) -> &InstancePre<Host> {
        &self.component
    }

    /// Bytes of its machine code.
    pub(super) fn code(&self) -> usize {
        let range = self.component.component().image_range();
        range.end.addr() - range.start.addr()
    }

    pub(super) fn exports(&self) -> &Exports {
        &self.exports
    }

    pub(super) fn log(&self) -> &Arc<GuestLog> {
        &self.log
    }

    /// Says something in the plugin's name about what a sender sent, within its limit of log lines.
    pub fn say_of(&self, sender: &router::Sender<'_>, line: &str) {
        self.log.line_of(Some(sender), Level::Warn, line.as_bytes());
    }

    /// Says how many log lines of the plugin were dropped, if any were.
    pub(super) fn flush_log(&self) {
        self.log.flush();
    }

    /// In shadow: it has been compared with the live one.
    pub fn compared(&self, live: &'static str, own: &'static str, same: bool) {
        self.stats.update_shadow(|shadow| {
            shadow.compared += 1;
            if same {
                shadow.agreed += 1;
            } else {
                *shadow.differed.entry(format!("{live} → {own}")).or_default() += 1;
            }
        });
    }

    /// In shadow: it did not keep up.
    pub fn skipped(&self) {
        self.stats.update_shadow(|shadow| shadow.skipped += 1);
    }

    /// An instance for a call: an idle one where calls share instances, or else a fresh one. `None` if there is no memory
    /// for it now.
    pub(super) fn instance(&self, role: Role, isolation: Isolation) -> Option<Box<Instance>> {
        let idle = if isolation == Isolation::Pooled { self.pools.of(role).take() } else { None };
        idle.or_else(|| {
            let mut holding = Holding::new(self.spec.account.clone());
            // As much as it will have at its start, so that it does not fail there.
            let covered = holding.cover(self.memory);
            covered.then(|| Box::new(Instance::new(self, self.paces.of(role).clone(), holding)))
        })
    }

    /// Keeps an instance for another call of its role, from now on.
    pub(super) fn keep_idle(&self, role: Role, instance: Box<Instance>, now: Instant) {
        self.pools.of(role).keep(instance, now);
    }

    /// Gives up the instances that have been idle for longer than this, with their memory.
    pub(super) fn shrink(&self, longest: Duration) {
        self.pools.iter().for_each(|pool| pool.shrink(longest));
    }

    /// It does not serve any more. Instances without a call end at once, those with a call end after it.
    pub(super) fn retire(&self) {
        self.pools.iter().for_each(|pool| pool.retire());
    }

    /// It serves, perhaps again.
    pub(super) fn revive(&self) {
        self.pools.iter().for_each(|pool| pool.revive());
    }

    #[cfg(test)]
    pub(super) fn idle_instances(&self) -> usize {
        self.pools.iter().map(|pool| pool.len()).sum()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} of {}, {}", self.number, self.spec.slot, self.digest())
    }
}

impl Counted for Generation {
    fn counts(&self) -> Counts {
        self.stats.counts()
    }

    fn spread(&self, function: Function) -> Spread {
        self.stats.spread(function)
    }

    fn forget_clients(&self) {
        self.stats.forget_clients();
    }

    fn last_failure(&self) -> Option<String> {
        self.stats.last_error().map(|error| error.reason)
    }
}
