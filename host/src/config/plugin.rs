//! The configuration of one plugin.

use std::path::Path;
use std::time::Duration;

use super::{PluginSource, Settings};

/// One plugin: its component, its settings and its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The source of the component.
    pub source: PluginSource,
    /// Settings, which the plugin reads as environment variables.
    pub settings: Settings,
    /// Whether calls share instances.
    pub isolation: Isolation,
    /// The plugin's limits.
    pub limits: PluginLimits,
    /// The stages of a new generation.
    pub deploy: PluginDeploy,
}

impl PluginConfig {
    /// Makes relative paths absolute; they start at `folder`.
    pub(super) fn locate(&mut self, folder: &Path) -> Result<(), String> {
        self.source.locate(folder)?;
        self.settings.locate(folder)
    }
}

/// Whether calls share instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each call runs in a fresh instance: nothing of one user can leak into the decision about the next.
    PerCall,
    /// Calls reuse instances, each for one call at a time.
    Pooled,
}

/// The limits of one plugin and of its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLimits {
    /// The longest wall-clock time of one call.
    pub deadline: Duration,
    /// How long a call may wait for an instance before it is refused.
    pub max_wait: Duration,
    /// The longest wall-clock time of a new component's `lifecycle.check`, without the time to compile it.
    pub check_timeout: Duration,
    /// Linear memory of one instance, in bytes.
    pub memory: usize,
    /// The most elements of all tables of one instance.
    pub table_elements: usize,
    /// The most handles that one instance may hold.
    pub handles: usize,
    /// The most bytes that one call may pass to functions of the host in total, or return; `None` for as many as the
    /// other limits need.
    pub host_call_bytes: Option<usize>,
    /// The most calls that run at the same time, in each role of the plugin.
    pub concurrency: usize,
    /// The number of calls after which a pooled instance is replaced.
    pub recycle_after: u32,
    /// The most actions that one call may return.
    pub max_actions: usize,
    /// The most connections that the actions of one call may concern in total.
    pub max_recipients: usize,
    /// The most bytes that one call may return in total.
    pub max_output: usize,
    /// The most bytes of a uid that the plugin accepts, and of a group's name.
    pub max_name: usize,
    /// The most bytes of the state of a prompt or a session.
    pub max_state: usize,
    /// The most attributes of an identity.
    pub max_attributes: usize,
    /// The most bytes of all attributes of an identity together.
    pub max_attribute_bytes: usize,
    /// The largest size of the component, in bytes.
    pub max_component: usize,
    /// Log lines that the plugin may write in a second; up to twice as many at once.
    pub log_lines: u32,
    /// Log lines that one call may write.
    pub log_lines_per_call: u32,
    /// The most bytes of one log line.
    pub log_line_bytes: usize,
}

/// The most bytes that a component may have, whatever `limits.max_component` says: 1 GiB.
pub const LARGEST_COMPONENT: usize = 1 << 30;

/// The stages of a new generation: shadow, canary, probation, live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDeploy {
    /// Percentage of first packets that a new generation also judges, in the shadow of the live generation, until it is
    /// promoted; 0 skips this stage.
    pub shadow: u8,
    /// Percentage of new connections that a new generation serves until it is promoted; 0 skips this stage.
    pub canary: u8,
    /// How long a new generation is on probation after it begins to serve all connections; zero skips this stage.
    pub probation: Duration,
    /// The number of calls after which the probation ends before its time.
    pub probation_calls: u64,
    /// By how many percentage points a new generation's share of failed calls may be above the one before.
    pub max_failures: u8,
    /// Failures of a function that are needed before a new generation is judged. A rollback needs them from as many
    /// clients, within bounds.
    pub min_failures: u32,
    /// The effect when a new generation fails too often.
    pub rollback: Rollback,
}

/// The effect when a new generation fails too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// The generation before it serves again. The new one is not loaded again until its file or settings change.
    Auto,
    /// The log and the status report it.
    Alert,
}
