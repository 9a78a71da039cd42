use std::time::Duration;

use crate::config::PluginLimits;

pub(super) fn limits() -> PluginLimits {
    PluginLimits {
        deadline: Duration::from_millis(200),
        max_wait: Duration::from_secs(1),
        check_timeout: Duration::from_secs(5),
        memory: 64 << 20,
        concurrency: 4,
        recycle_after: 1000,
        max_actions: 4096,
        max_output: 8 << 20,
        max_component: 64 << 20,
    }
}
