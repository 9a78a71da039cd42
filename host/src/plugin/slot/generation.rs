//! One generation of a plugin: a compiled component with its settings and instances.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::blame::Spread;
use super::stats::{Counted, Counts, Stats};
use crate::base::message::ConnectionId;
use crate::config::Isolation;
use crate::plugin::contract::logging::Level;
use crate::plugin::contract::{Function, PerRole, Role};
use crate::plugin::identity::{Digest, GenerationIdentity};
use crate::plugin::runtime::check::check;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::log::LogNames;
use crate::plugin::runtime::memory::Holding;
use crate::plugin::runtime::pool::Pool;
use crate::plugin::runtime::prepared::Prepared;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::runtime::turns::SlowCalls;

/// A compiled component with its settings that has passed all checks, or is being checked.
pub struct Generation {
    /// The generations of a slot are numbered from 1.
    number: u64,
    identity: GenerationIdentity,
    /// The component and settings that instances are made of.
    prepared: Prepared,
    /// The idle instances. Each serves one role only.
    pools: PerRole<Arc<Pool>>,
    slow_calls: PerRole<Arc<SlowCalls>>,
    /// Boxed because it is large, and a generation is moved several times while it is made.
    stats: Box<Stats>,
    /// How long compiling and checking took together.
    pub(crate) loading: Duration,
    /// How long compiling took, now or in an earlier run; `None` if another generation had compiled the component.
    pub(crate) compiling: Option<Duration>,
    /// Bytes of linear memory of an instance that has only run its check.
    pub(crate) memory: usize,
}

impl Generation {
    /// Calls `lifecycle.check` of a prepared component, and makes a generation of it. Loading began at `begun`.
    ///
    /// # Errors
    /// Why the plugin refuses to serve, or how its check failed.
    pub(crate) async fn verify(
        number: u64,
        identity: GenerationIdentity,
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

    /// Returns the number of this generation. The generations of a slot are numbered from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.identity.component
    }

    /// Returns the names of this generation in the log. They may outlive it.
    pub(crate) fn names(&self) -> &Arc<LogNames> {
        self.prepared.log.names()
    }

    pub(crate) fn identity(&self) -> &GenerationIdentity {
        &self.identity
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.prepared.environment
    }

    /// Returns `true` if calls of this role ran for long recently.
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

    /// Returns the size of the machine code, in bytes.
    pub(crate) fn code(&self) -> usize {
        let range = self.prepared.component.component().image_range();
        range.end.addr() - range.start.addr()
    }

    /// Logs a warning in the plugin's name about the text of a sender with this address, and with this token if it has
    /// one. The plugin's limit of log lines applies.
    pub fn say_of(&self, connection: ConnectionId, address: &str, token: Option<&str>, line: &str) {
        self.prepared.log.line_of(connection, address, token, Level::Warn, line.as_bytes());
    }

    /// Logs how many log lines of the plugin were dropped, if any.
    pub(crate) fn flush_log(&self) {
        self.prepared.log.flush();
    }

    /// Counts a verdict in shadow that was compared with the live generation's verdict.
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

    /// Counts a client that was not judged in shadow, because this generation did not keep up.
    pub fn skipped(&self) {
        self.stats.update_shadow(|shadow| shadow.skipped += 1);
    }

    /// Returns an instance for a call: an idle one if calls share instances, or else a new one. `None` if there is not
    /// enough memory now.
    pub(crate) fn instance(&self, role: Role, isolation: Isolation) -> Option<Box<Instance>> {
        let idle = if isolation == Isolation::Pooled { self.pools.of(role).take() } else { None };
        idle.or_else(|| {
            let mut holding = Holding::new(self.prepared.spec.account.clone());
            // Reserves the memory that an instance has at its start, so that the start does not fail.
            let is_enough = holding.grow_to(self.memory);
            is_enough.then(|| Box::new(Instance::new(&self.prepared, self.slow_calls.of(role).clone(), holding)))
        })
    }

    /// Keeps an instance for another call of its role. It becomes idle at `now`.
    pub(crate) fn keep_idle(&self, role: Role, instance: Box<Instance>, now: Instant) {
        self.pools.of(role).keep(instance, now);
    }

    /// Drops the instances that have been idle for longer than `longest`, and frees their memory.
    pub(crate) fn shrink(&self, longest: Duration) {
        self.pools.iter().for_each(|pool| pool.shrink(longest));
    }

    /// Marks that this generation no longer serves. Idle instances end at once, busy instances after their call.
    pub(crate) fn retire(&self) {
        self.pools.iter().for_each(|pool| pool.retire());
    }

    /// Marks that this generation serves, for the first time or again.
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
