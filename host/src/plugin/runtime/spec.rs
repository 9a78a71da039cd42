//! The properties that all generations of a slot share.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Semaphore;

use super::clock::Clock;
use super::environment::Surroundings;
use super::log::LogNames;
use super::memory::Account;
use super::turns::SlotQueue;
use crate::hub::registry::Registry;
use crate::plugin::contract::{PerRole, Roles};
use crate::plugin::identity::Digest;

use crate::base::throttle::Throttle;
use crate::config::{PluginLimits, PluginSource};

/// Failures of one plugin that are logged per second, and at once. All failures are counted.
const FAILURES_PER_SECOND: u32 = 10;
const FAILURES_AT_ONCE: u32 = 50;

/// The properties that all generations of a slot share: everything but the code and its settings.
pub(crate) struct Spec {
    /// The name of the slot, after the plugin's roles.
    pub(crate) slot: String,
    /// The name of the plugin, after its file.
    pub(crate) plugin: String,
    pub(crate) source: PluginSource,
    pub(crate) roles: Roles,
    pub(crate) limits: PluginLimits,
    /// One permit for each call of a role that may run at the same time, whichever generation serves the call.
    pub(crate) permits: PerRole<Semaphore>,
    /// The calls that wait for a permit, a turn or memory.
    pub(crate) waiting: AtomicUsize,
    /// The memory of all instances of the slot.
    pub(crate) account: Arc<Account>,
    /// The queue where the slot's long calls wait for turns.
    pub(crate) queue: Arc<SlotQueue>,
    pub(crate) lines: Arc<Throttle>,
    pub(crate) failures: Throttle,
    /// Tells whether the process stood still during a call.
    pub(crate) clock: Clock,
    /// The registry of connections, which routers can ask.
    pub(crate) registry: Arc<Registry>,
    pub(crate) surroundings: Surroundings,
    /// Bytes of the stack of one call.
    pub(crate) stack: usize,
}

impl Spec {
    /// Returns the names of a generation in the log.
    pub(crate) fn log_names(&self, generation: u64, digest: Digest) -> LogNames {
        LogNames { slot: self.slot.clone(), plugin: self.plugin.clone(), generation, digest }
    }

    /// Returns the number of calls that have a permit.
    pub(crate) fn running(&self) -> usize {
        let permits = self.limits.concurrency.min(Semaphore::MAX_PERMITS);
        self.permits.iter().map(|free| permits.saturating_sub(free.available_permits())).sum()
    }

    /// Counts a call that waits, until the result is dropped.
    pub(crate) fn count_waiting(&self) -> WaitingCall<'_> {
        self.waiting.fetch_add(1, Relaxed);
        WaitingCall(&self.waiting)
    }

    /// Returns after how many calls an instance is replaced. The number is a little less than the limit and always
    /// different, so that no plugin comes to depend on it, and not all instances are replaced at once.
    pub(crate) fn calls_per_instance(&self) -> u32 {
        let most = self.limits.recycle_after.max(1);
        let spread = u64::from(most / 8) + 1;
        let less = RandomState::new().hash_one(0_u8) % spread;
        most - u32::try_from(less).unwrap_or(0)
    }
}

/// A call that waits.
pub(crate) struct WaitingCall<'a>(&'a AtomicUsize);

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Creates a throttle for the failures of one plugin that are logged.
pub(crate) fn failure_limit() -> Throttle {
    Throttle::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE)
}

/// Returns the name of a plugin: the stem of its file's name, or the name of the built-in plugin.
pub(crate) fn plugin_name(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => name.clone(),
        PluginSource::File(path) => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}
