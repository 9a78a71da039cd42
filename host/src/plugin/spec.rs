//! What the generations of a slot have in common.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Runtime;
use super::bindings::{PerRole, Roles};
use super::guest_log::line_limit;
use super::lane::Share;
use super::memory::{Account, Demand};
use crate::base::throttle::Throttle;
use crate::config::{PluginConfig, PluginLimits, PluginSource};

/// Failures of one plugin that are logged in a second, and at once. All are counted.
const FAILURES_PER_SECOND: u32 = 10;
const FAILURES_AT_ONCE: u32 = 50;

/// What the generations of a slot have in common: everything but the code and its settings.
pub(super) struct Spec {
    /// The name of the slot: what it does here.
    pub(super) slot: String,
    /// The name of the plugin: what its file is called.
    pub(super) plugin: String,
    pub(super) source: PluginSource,
    pub(super) roles: Roles,
    pub(super) limits: PluginLimits,
    /// One for each call of a role that may run at the same time, whichever generation serves it.
    pub(super) permits: PerRole<Semaphore>,
    /// The memory of all its instances.
    pub(super) account: Arc<Account>,
    /// Where its long calls wait for turns.
    pub(super) lane: Arc<Share>,
    pub(super) lines: Arc<Throttle>,
    pub(super) failures: Throttle,
    pub(super) runtime: Arc<Runtime>,
}

impl Spec {
    pub(super) fn new(slot: String, plugin: &PluginConfig, roles: Roles, runtime: Arc<Runtime>) -> Self {
        let permits = plugin.limits.concurrency.min(Semaphore::MAX_PERMITS);
        Self {
            slot,
            plugin: name(&plugin.source),
            source: plugin.source.clone(),
            roles,
            permits: PerRole::new(|| Semaphore::new(permits)),
            account: runtime.memory.open(Demand::of(&plugin.limits, roles)),
            limits: plugin.limits.clone(),
            lane: runtime.lane.share(),
            lines: line_limit(&plugin.limits),
            failures: Throttle::new(FAILURES_PER_SECOND, FAILURES_AT_ONCE),
            runtime,
        }
    }

    /// After how many calls an instance is replaced: a little less than the limit and never the same, so that no plugin
    /// comes to depend on it and not all instances are replaced at once.
    pub(super) fn calls_per_instance(&self) -> u32 {
        let most = self.limits.recycle_after.max(1);
        let spread = u64::from(most / 8) + 1;
        let less = RandomState::new().hash_one(0_u8) % spread;
        most - u32::try_from(less).unwrap_or(0)
    }
}

/// The stem of the file's name, or the name of the built-in plugin.
fn name(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => name.clone(),
        PluginSource::File(path) => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}
