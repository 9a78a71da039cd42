//! One generation of a plugin: a compiled component with its instances.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::blame::Spread;
use super::stats::{Counted, Counts, Stats};
use crate::config::Isolation;
use crate::plugin::contract::logging::Level;
use crate::plugin::contract::{Function, PerRole, Role, router};
use crate::plugin::identity::{Digest, Identity};
use crate::plugin::runtime::check::check;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::memory::Holding;
use crate::plugin::runtime::pool::Pool;
use crate::plugin::runtime::prepared::Prepared;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::runtime::turns::SlowCalls;

/// A component that has passed all checks, or is passing them.
pub struct Generation {
    /// Counts the generations of its slot, from 1.
    number: u64,
    identity: Identity,
    /// What its instances are made of.
    prepared: Prepared,
    /// Idle instances. Each serves one role only.
    pools: PerRole<Arc<Pool>>,
    slow_calls: PerRole<Arc<SlowCalls>>,
    /// Boxed: it is large, and a generation is passed around while it is made.
    stats: Box<Stats>,
    /// From its bytes to the end of its checks.
    pub(crate) loading: Duration,
    /// How long compiling took, now or before; `None` for the component of another generation.
    pub(crate) compiling: Option<Duration>,
    /// Bytes of linear memory that an instance has which has done nothing but its check.
    pub(crate) memory: usize,
}

impl Generation {
    /// Makes a generation of a prepared component, which is asked by `lifecycle.check` first. `begun` is when loading it
    /// began.
    ///
    /// # Errors
    /// Why the plugin refuses to serve, or how its check failed.
    pub(crate) async fn verify(
        number: u64,
        identity: Identity,
        prepared: Prepared,
        begun: Instant,
    ) -> anyhow::Result<Self> {
        let memory = check(&prepared).await?;
        Ok(Self {
            number,
            identity,
            pools: PerRole::new(|| Pool::new(&prepared.spec.account)),
            slow_calls: PerRole::new(SlowCalls::new),
            stats: Box::default(),
            loading: begun.elapsed(),
            compiling: None,
            memory,
            prepared,
        })
    }

    /// Counts the generations of its slot, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The SHA-256 of its component.
    pub fn digest(&self) -> Digest {
        self.identity.component
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.prepared.environment
    }

    /// Whether the calls of this role have been long of late.
    pub(crate) fn is_slow(&self, role: Role) -> bool {
        self.slow_calls.of(role).is_slow()
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.prepared.spec
    }

    /// Bytes of its machine code.
    pub(crate) fn code(&self) -> usize {
        let range = self.prepared.component.component().image_range();
        range.end.addr() - range.start.addr()
    }

    /// Says something in the plugin's name about what a sender sent, within its limit of log lines.
    pub fn say_of(&self, sender: &router::Sender<'_>, line: &str) {
        self.prepared.log.line_of(Some(sender), Level::Warn, line.as_bytes());
    }

    /// Says how many log lines of the plugin were dropped, if any were.
    pub(crate) fn flush_log(&self) {
        self.prepared.log.flush();
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
    pub(crate) fn instance(&self, role: Role, isolation: Isolation) -> Option<Box<Instance>> {
        let idle = if isolation == Isolation::Pooled { self.pools.of(role).take() } else { None };
        idle.or_else(|| {
            let mut holding = Holding::new(self.prepared.spec.account.clone());
            // As much as it will have at its start, so that it does not fail there.
            let covered = holding.cover(self.memory);
            covered.then(|| Box::new(Instance::new(&self.prepared, self.slow_calls.of(role).clone(), holding)))
        })
    }

    /// Keeps an instance for another call of its role, from now on.
    pub(crate) fn keep_idle(&self, role: Role, instance: Box<Instance>, now: Instant) {
        self.pools.of(role).keep(instance, now);
    }

    /// Gives up the instances that have been idle for longer than this, with their memory.
    pub(crate) fn shrink(&self, longest: Duration) {
        self.pools.iter().for_each(|pool| pool.shrink(longest));
    }

    /// It does not serve any more. Instances without a call end at once, those with a call end after it.
    pub(crate) fn retire(&self) {
        self.pools.iter().for_each(|pool| pool.retire());
    }

    /// It serves, perhaps again.
    pub(crate) fn revive(&self) {
        self.pools.iter().for_each(|pool| pool.revive());
    }

    #[cfg(test)]
    pub(crate) fn idle_instances(&self) -> usize {
        self.pools.iter().map(|pool| pool.len()).sum()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} of {}, {}", self.number, self.prepared.spec.slot, self.digest())
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
