//! Instances of one generation that wait for their next call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::stripe::Striped;
use crate::plugin::runtime::instance::Instance;
use crate::plugin::runtime::memory::{Account, Evicted, Idle, discard};

/// Boxed: they are large, and come and go with every call.
type Stack = Mutex<Vec<Box<Instance>>>;

/// The idle instances of one generation.
pub(crate) struct Pool {
    account: Arc<Account>,
    /// Where the thread put them that they served last, the latest on top: their memory is still in the processor's
    /// caches. A lock is held for a push or a pop.
    idle: Striped<Stack>,
    /// Its generation does not serve: instances end with their calls.
    retired: AtomicBool,
}

impl Pool {
    /// An empty one. When memory is short, its instances end before calls of this slot, or of another, have to wait.
    pub(crate) fn new(account: &Arc<Account>) -> Arc<Self> {
        let (idle, retired) = (Striped::default(), AtomicBool::new(false));
        let pool = Arc::new(Self { account: account.clone(), idle, retired });
        account.watch(Arc::downgrade(&pool) as Weak<dyn Idle>);
        pool
    }

    /// The instance that was used last.
    pub(crate) fn take(&self) -> Option<Box<Instance>> {
        self.idle.iter().find_map(|idle| idle.lock().pop())
    }

    /// Keeps an instance for another call, from now on, unless the slot has more instances than calls.
    pub(crate) fn keep(&self, mut instance: Box<Instance>, now: Instant) {
        if self.account.is_full() {
            return;
        }
        instance.idle_since = now;
        {
            let mut idle = self.idle.own().lock();
            // Under the lock, or else it would wait among the idle of a generation that has been retired.
            if self.retired.load(Relaxed) {
                return;
            }
            idle.push(instance);
        }
        self.account.memory().tell_waiting();
    }

    /// Ends the instances that have been idle for longer than this, and so frees their memory.
    pub(crate) fn shrink(&self, longest: Duration) {
        let mut ended = Vec::new();
        for idle in self.idle.iter() {
            let mut idle = idle.lock();
            // The longest idle is at the bottom.
            let long = idle.partition_point(|instance| instance.idle_since.elapsed() > longest);
            ended.extend(idle.drain(..long));
        }
        discard(ended);
    }

    /// Ends all idle instances, and the others after their calls.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
        discard(self.idle.iter().flat_map(|idle| std::mem::take(&mut *idle.lock())).collect());
    }

    /// Keeps instances, perhaps again.
    pub(crate) fn revive(&self) {
        self.retired.store(false, Relaxed);
    }

    /// How many there are.
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
        // Its memory counts as free now, and is free a moment later.
        oldest.holding().give_back();
        Some(oldest)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("retired", &self.retired).finish_non_exhaustive()
    }
}
