//! The limits on the host's memory that one instance may take.

use wasmtime::{ResourceLimiter, Result};

use crate::config::PluginLimits;
use crate::plugin::compile::inspect::MODULES;
use crate::plugin::engine;
use crate::plugin::runtime::memory::Holding;

/// Most core instances of one component: one for each of its core modules.
const INSTANCES: usize = MODULES;

/// Bytes that one returned action takes without its texts, rounded up generously.
const BYTES_PER_ACTION: usize = 256;

/// Bytes that any call may pass to the host, whatever the limits say.
const SMALL_CHANGE: usize = 64 << 10;

/// Returns how many bytes may go from the plugin to the host at once: `limits.host_call_bytes` if set, or else enough
/// for the largest results that the limits allow.
pub(crate) fn host_call_bytes(limits: &PluginLimits) -> usize {
    limits.host_call_bytes.unwrap_or(limits.max_output + limits.max_actions * BYTES_PER_ACTION + SMALL_CHANGE)
}

/// Counts the memory of one instance: all its linear memories together, and all its tables.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: Allowance,
    holding: Holding,
    /// The largest amount of memory that the call was refused because all plugins together had too much.
    unavailable: Option<usize>,
    table_elements: Allowance,
}

#[derive(Debug)]
struct Allowance {
    limit: usize,
    used: usize,
    /// The largest amount that the call was refused.
    refused: Option<usize>,
}

impl Allowance {
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
    pub(crate) fn new(limits: &PluginLimits, holding: Holding) -> Self {
        let (memory, table_elements) = (Allowance::new(limits.memory), Allowance::new(limits.table_elements));
        Self { memory, holding, unavailable: None, table_elements }
    }

    /// Returns the memory that the instance has taken from its slot's account.
    pub(crate) fn holding(&mut self) -> &mut Holding {
        &mut self.holding
    }

    /// Returns the bytes of linear memory of the instance.
    pub(crate) fn memory(&self) -> usize {
        self.memory.used
    }

    /// Forgets the refusals of earlier calls: they do not explain the next failure.
    pub(crate) fn begin_call(&mut self) {
        (self.memory.refused, self.unavailable, self.table_elements.refused) = (None, None, None);
    }

    /// Returns how many bytes of memory the call asked for and was refused, if any.
    pub(crate) fn refused_memory(&self) -> Option<usize> {
        self.memory.refused
    }

    /// Returns how many bytes of memory the call asked for when all plugins together had no more, and how many bytes
    /// they may have.
    pub(crate) fn unavailable_memory(&self) -> Option<(usize, usize)> {
        self.unavailable.map(|wanted| (wanted, self.holding.total()))
    }

    /// Returns how many table elements the call asked for and was refused, if any.
    pub(crate) fn refused_table_elements(&self) -> Option<usize> {
        self.table_elements.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Past the memory's own maximum: the engine does not grow it, so nothing is counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(true);
        }
        let before = self.memory.used;
        if !self.memory.grow(current, desired) {
            return Ok(false);
        }
        let available = self.holding.grow_to(self.memory.used);
        if !available {
            self.unavailable = self.unavailable.max(Some(self.memory.used));
            self.memory.used = before;
        }
        Ok(available)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        Ok(maximum.is_some_and(|maximum| desired > maximum) || self.table_elements.grow(current, desired))
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
    use crate::plugin::runtime::memory::{Demand, Memory};

    /// A limiter of an instance that may have 100 bytes, where all plugins together may have `total` bytes.
    fn limiter_within(total: usize) -> Limiter {
        let demand = Demand { calls: 1, memory: 100 };
        let account = Memory::new(Some(total), demand).open(demand);
        let limits = PluginLimits { memory: 100, table_elements: 10, ..PluginLimits::default() };
        Limiter::new(&limits, Holding::new(account))
    }

    fn limiter() -> Limiter {
        limiter_within(1000)
    }

    #[test]
    fn what_all_plugins_may_have_is_a_limit_too() {
        let mut limiter = limiter_within(50);
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.memory_growing(40, 60, None).unwrap());
        assert_eq!((limiter.refused_memory(), limiter.unavailable_memory()), (None, Some((60, 50))));
        assert_eq!(limiter.memory(), 40);
        limiter.begin_call();
        assert_eq!(limiter.unavailable_memory(), None);
        assert!(limiter.memory_growing(40, 50, None).unwrap());
    }

    #[test]
    fn what_the_engine_does_not_grant_is_not_counted() {
        let mut limiter = limiter();
        assert!(limiter.memory_growing(0, 60, Some(50)).unwrap() && limiter.table_growing(0, 6, Some(5)).unwrap());
        assert_eq!(limiter.memory(), 0);
        assert!(limiter.memory_growing(0, 100, Some(100)).unwrap() && limiter.table_growing(0, 10, Some(10)).unwrap());
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
