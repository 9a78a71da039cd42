//! Instances of one generation that wait for their next call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::instance::Instance;
use super::lock;
use super::memory::Account;
use crate::base::stripe::Striped;

/// Boxed: they are large, and come and go with every call.
type Idle = Mutex<Vec<Box<Instance>>>;

/// The idle instances of one generation.
pub(super) struct Pool {
    account: Arc<Account>,
    /// Where the thread put them that they served last, the latest on top: their memory is still in the processor's
    /// caches. A lock is held for a push or a pop.
    idle: Striped<Idle>,
    /// Its generation does not serve: instances end with their calls.
    retired: AtomicBool,
}

impl Pool {
    /// An empty one. When memory is short, its instances end before calls of this slot, or of another, have to wait.
    pub(super) fn new(account: &Arc<Account>) -> Arc<Self> {
        let (idle, retired) = (Striped::default(), AtomicBool::new(false));
        let pool = Arc::new(Self { account: account.clone(), idle, retired });
        account.watch(&pool);
        pool
    }

    /// The instance that was used last.
    pub(super) fn take(&self) -> Option<Box<Instance>> {
        self.idle.iter().find_map(|idle| lock(idle).pop())
    }

    /// An instance that has been idle for long.
    pub(super) fn take_oldest(&self) -> Option<Box<Instance>> {
        self.idle.iter().find_map(|idle| {
            let mut idle = lock(idle);
            (!idle.is_empty()).then(|| idle.remove(0))
        })
    }

    /// Keeps an instance for another call, from now on, unless the slot has more instances than calls.
    pub(super) fn keep(&self, mut instance: Box<Instance>, now: Instant) {
        if self.account.is_full() {
            return;
        }
        instance.idle_since = now;
        {
            let mut idle = lock(self.idle.own());
            // Under the lock, or else it would wait among the idle of a generation that has been retired.
            if self.retired.load(Relaxed) {
                return;
            }
            idle.push(instance);
        }
        self.account.memory().tell_waiting();
    }

    /// Ends the instances that have been idle for longer than this, and so frees their memory.
    pub(super) fn shrink(&self, longest: Duration) {
        let mut ended = Vec::new();
        for idle in self.idle.iter() {
            let mut idle = lock(idle);
            // The longest idle is at the bottom.
            let long = idle.partition_point(|instance| instance.idle_since.elapsed() > longest);
            ended.extend(idle.drain(..long));
        }
        discard(ended);
    }

    /// Ends all idle instances, and the others after their calls.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        discard(self.idle.iter().flat_map(|idle| std::mem::take(&mut *lock(idle))).collect());
    }

    /// Keeps instances, perhaps again.
    pub(super) fn revive(&self) {
        self.retired.store(false, Relaxed);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.idle.iter().map(|idle| lock(idle).len()).sum()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("retired", &self.retired).finish_non_exhaustive()
    }
}

/// Ends instances, away from the threads that serve connections: returning much memory takes its time.
#[expect(clippy::vec_box, reason = "as they were kept")]
pub(super) fn discard(instances: Vec<Box<Instance>>) {
    if !instances.is_empty() {
        spawn_blocking(move || drop(instances));
    }
}
