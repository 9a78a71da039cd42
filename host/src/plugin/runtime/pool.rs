//! The idle instances of one generation, which wait for their next call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::stripe::Striped;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::memory::{Account, Evicted, Idle, discard};

/// Idle instances. They are boxed: instances are large, and move with every call.
type Stack = Mutex<Vec<Box<Instance>>>;

/// The idle instances of one generation.
pub(crate) struct Pool {
    account: Arc<Account>,
    /// Stacks of idle instances. A thread puts an instance that it has served on top of its own stack and takes from
    /// there first, because the instance's memory is still in the processor's caches. A call holds a lock only for a
    /// push or a pop.
    idle: Striped<Stack>,
    /// True if the generation no longer serves. Its instances then end after their calls.
    retired: AtomicBool,
}

impl Pool {
    /// Creates an empty pool. When memory is short, its idle instances end before a call of this or another slot waits.
    pub(crate) fn new(account: &Arc<Account>) -> Arc<Self> {
        let (idle, retired) = (Striped::default(), AtomicBool::new(false));
        let pool = Arc::new(Self { account: account.clone(), idle, retired });
        account.register_pool(Arc::downgrade(&pool) as Weak<dyn Idle>);
        pool
    }

    /// Takes an idle instance, if possible the one that this thread has used last.
    pub(crate) fn take(&self) -> Option<Box<Instance>> {
        self.idle.iter().find_map(|idle| idle.lock().pop())
    }

    /// Keeps an instance for another call, idle from `now` on. Ends it if the slot has more instances than calls, or if
    /// the pool is retired.
    pub(crate) fn keep(&self, mut instance: Box<Instance>, now: Instant) {
        if self.account.is_full() {
            return;
        }
        instance.idle_since = now;
        {
            let mut idle = self.idle.own().lock();
            // Checked under the lock: otherwise the instance could stay in the pool of a retired generation.
            if self.retired.load(Relaxed) {
                return;
            }
            idle.push(instance);
        }
        self.account.memory().tell_waiting();
    }

    /// Ends the instances that have been idle for longer than `longest`, which frees their memory.
    pub(crate) fn shrink(&self, longest: Duration) {
        let mut ended = Vec::new();
        for idle in self.idle.iter() {
            let mut idle = idle.lock();
            // The instance that has been idle for longest is at the bottom.
            let long = idle.partition_point(|instance| instance.idle_since.elapsed() > longest);
            ended.extend(idle.drain(..long));
        }
        discard(ended);
    }

    /// Ends all idle instances now, and the other instances after their calls.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
        discard(self.idle.iter().flat_map(|idle| std::mem::take(&mut *idle.lock())).collect());
    }

    /// Lets the pool keep instances again, after [`retire`](Self::retire).
    pub(crate) fn revive(&self) {
        self.retired.store(false, Relaxed);
    }

    /// Returns the number of idle instances.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.idle.iter().map(|idle| idle.lock().len()).sum()
    }
}

impl Idle for Pool {
    fn evict(&self) -> Option<Evicted> {
        let mut oldest = self.idle.iter().find_map(|idle| {
            let mut idle = idle.lock();
            (!idle.is_empty()).then(|| idle.remove(0))
        })?;
        // The instance's memory counts as free now, and is free a moment later.
        oldest.holding().give_back();
        Some(oldest)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("retired", &self.retired).finish_non_exhaustive()
    }
}
