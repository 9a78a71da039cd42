//! What one instance may take of the host's memory.

use wasmtime::{ResourceLimiter, Result};

use super::engine;
use crate::config::PluginLimits;

/// Core modules of one component. Python comes as dozens of libraries.
pub(super) const MODULES: usize = 200;

/// Those of them that are instantiated.
const INSTANCES: usize = MODULES;

/// Bytes that one returned action takes beside its texts, with room to spare.
const BYTES_PER_ACTION: usize = 256;

/// Bytes that any call may pass to the host, whatever the limits say.
const SMALL_CHANGE: usize = 64 << 10;

/// How many bytes may go from the plugin to the host at once: `limits.host_call_bytes`, or else what results need that
/// are as large as they may be.
pub(super) fn host_call_bytes(limits: &PluginLimits) -> usize {
    limits.host_call_bytes.unwrap_or(limits.max_output + limits.max_actions * BYTES_PER_ACTION + SMALL_CHANGE)
}

/// Counts what one instance has: all its linear memories together, and all its tables.
#[derive(Debug)]
pub(super) struct Limiter {
    memory: Budget,
    table_elements: Budget,
}

#[derive(Debug)]
struct Budget {
    limit: usize,
    used: usize,
    /// The largest amount that was refused to the call.
    refused: Option<usize>,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: None }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        let granted = wanted <= self.limit;
        if granted {
            self.used = wanted;
        } else {
            self.refused = self.refused.max(Some(wanted));
        }
        granted
    }
}

impl Limiter {
    pub(super) fn new(limits: &PluginLimits) -> Self {
        Self { memory: Budget::new(limits.memory), table_elements: Budget::new(limits.table_elements) }
    }

    /// Bytes of linear memory that it has.
    pub(super) fn memory(&self) -> usize {
        self.memory.used
    }

    /// What was refused to earlier calls explains nothing of the next.
    pub(super) fn begin_call(&mut self) {
        (self.memory.refused, self.table_elements.refused) = (None, None);
    }

    /// How many bytes of memory the call has asked for in vain, if it has.
    pub(super) fn refused_memory(&self) -> Option<usize> {
        self.memory.refused
    }

    /// How many elements of tables the call has asked for in vain, if it has.
    pub(super) fn refused_table_elements(&self) -> Option<usize> {
        self.table_elements.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.memory.grow(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.table_elements.grow(current, desired))
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES * engine::TABLES as usize
    }

    fn memories(&self) -> usize {
        engine::MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(&PluginLimits { memory: 100, table_elements: 10, ..PluginLimits::default() })
    }

    #[test]
    fn memories_are_counted_together() {
        let mut limiter = limiter();
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.refused_memory(), None);
        assert!(!limiter.memory_growing(60, 61, None).unwrap());
        assert_eq!((limiter.refused_memory(), limiter.refused_table_elements()), (Some(101), None));
        limiter.begin_call();
        assert_eq!(limiter.refused_memory(), None);
    }

    #[test]
    fn and_so_are_tables() {
        let mut limiter = limiter();
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(limiter.table_growing(0, 4, None).unwrap());
        assert!(!limiter.table_growing(4, 7, None).unwrap());
        assert_eq!((limiter.refused_memory(), limiter.refused_table_elements()), (None, Some(13)));
        limiter.begin_call();
        assert_eq!(limiter.refused_table_elements(), None);
    }
}
