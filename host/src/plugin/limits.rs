//! What one instance may take of the host's memory.

use wasmtime::{ResourceLimiter, Result};

use super::engine;

/// Modules of one component that are instantiated. Python comes as dozens of libraries.
const INSTANCES: usize = 200;

/// Counts the memory of one instance, all its linear memories together.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    used: usize,
    /// The largest amount that was refused to the call.
    refused: Option<usize>,
}

impl Limiter {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, refused: None }
    }

    /// What was refused to earlier calls explains nothing of the next.
    pub(super) fn begin_call(&mut self) {
        self.refused = None;
    }

    /// How many bytes the call has asked for in vain, if it has.
    pub(super) fn refused(&self) -> Option<usize> {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current);
        let wanted = self.used.saturating_add(more);
        if wanted > self.limit {
            self.refused = self.refused.max(Some(wanted));
            return Ok(false);
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= engine::TABLE_ELEMENTS)
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

    #[test]
    fn memories_are_counted_together() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(60, 61, None).unwrap());
        assert_eq!(limiter.refused(), Some(101));
        limiter.begin_call();
        assert_eq!(limiter.refused(), None);
    }
}
