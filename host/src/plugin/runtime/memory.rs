//! The linear memory of all plugins together: one budget (`engine.memory`), in which each slot has a share of its own.
//!
//! Half of the budget is split into shares, in proportion to what one instance of each plugin may have. The other half
//! is common. A slot takes memory from its share first, then from the common half. If both have too little, idle
//! instances end: first the slot's own, then instances of slots that have more than their share. If there is still no
//! memory, a call that begins waits, and a running call gets no more. So a plugin that leaks takes its share and the
//! common half, and other plugins go on within their shares.

use std::fmt;
use std::iter::{Sum, once};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::spawn_blocking;

use super::machine;

use crate::config::PluginLimits;
use crate::plugin::contract::Roles;

/// The budget if none is configured, in bytes. It is less on a small machine.
const DEFAULT: usize = 2 << 30;

/// The calls and memory that plugins may need at the same time, all together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// Calls that run, and checks of new components.
    pub(crate) calls: usize,
    /// Bytes of linear memory, for one instance of each plugin.
    pub(crate) memory: usize,
}

impl Demand {
    /// Returns what one plugin with these roles may need.
    pub fn of(limits: &PluginLimits, roles: Roles) -> Self {
        Self { calls: roles.count() * limits.concurrency + 1, memory: limits.memory }
    }
}

impl Sum for Demand {
    fn sum<I: Iterator<Item = Self>>(demands: I) -> Self {
        demands.fold(Self::default(), |sum, one| Self { calls: sum.calls + one.calls, memory: sum.memory + one.memory })
    }
}

/// The memory budget of all plugins.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Bytes of the whole budget.
    total: usize,
    /// The sum of all plugins' `limits.memory`. A slot's part of this sum is its part of the shares.
    demand: usize,
    common: Mutex<Common>,
    /// Number of calls that wait for memory.
    waiting: AtomicUsize,
    freed: Notify,
}

#[derive(Debug)]
struct Common {
    /// Bytes of the common half that no slot has taken.
    free: usize,
    accounts: Vec<Weak<Account>>,
}

impl Memory {
    /// Creates the configured budget, for plugins that need `demand`. The automatic budget is 2 GiB, or half of the
    /// memory of the machine or of the process's cgroup if that is less. But it is at least twice the sum of all
    /// plugins' `limits.memory`: so each plugin's share holds an instance. For a configured budget, `config/rules.rs`
    /// checks this.
    pub(crate) fn new(configured: Option<usize>, demand: Demand) -> Arc<Self> {
        let least = demand.memory.saturating_mul(2);
        let total =
            configured.unwrap_or_else(|| machine::memory().map_or(DEFAULT, |all| DEFAULT.min(all / 2)).max(least));
        let common = Common { free: total - total / 2, accounts: Vec::new() };
        let (waiting, freed) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { total, demand: demand.memory, common: Mutex::new(common), waiting, freed })
    }

    /// Returns the bytes of the whole budget.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Opens the account of one more slot.
    pub(crate) fn open(self: &Arc<Self>, demand: Demand) -> Arc<Account> {
        // In 128 bits: the product may be larger than the address space.
        let share = (self.total / 2) as u128 * demand.memory as u128 / self.demand.max(1) as u128;
        let account = Arc::new(Account {
            memory: self.clone(),
            share: usize::try_from(share).unwrap_or(self.total / 2),
            used: AtomicUsize::new(0),
            max_calls: demand.calls,
            instances: AtomicUsize::new(0),
            idle: Mutex::default(),
        });
        let accounts = &mut self.common.lock().accounts;
        accounts.retain(|account| account.strong_count() > 0);
        accounts.push(Arc::downgrade(&account));
        account
    }

    /// Counts the caller as waiting until it drops the result.
    pub(crate) fn register_waiter(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(self)
    }

    /// Wakes the waiting calls: memory was given back, or an instance has become idle. First release the lock that
    /// protects the change, then call this. Otherwise a waiting call could miss the change.
    pub(crate) fn tell_waiting(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Takes an idle instance from the slot that wants memory, or else from a slot that has more than its share.
    fn evict(&self, wanted_by: &Account) -> Option<Evicted> {
        let mut others: Vec<_> = self.common.lock().accounts.iter().filter_map(Weak::upgrade).collect();
        others.retain(|other| !std::ptr::eq(&**other, wanted_by) && other.excess(other.used()) > 0);
        others.sort_by_key(|other| std::cmp::Reverse(other.excess(other.used())));
        once(wanted_by).chain(others.iter().map(|other| &**other)).find_map(Account::evict)
    }
}

/// Idle instances, which end when memory is short.
pub(crate) trait Idle: fmt::Debug + Send + Sync {
    /// Takes an idle instance, and counts its memory as free. Dropping the result frees the memory.
    fn evict(&self) -> Option<Evicted>;
}

/// An instance that was taken from a pool, to be dropped.
pub(crate) type Evicted = Box<dyn Send>;

/// Drops instances on a thread that serves no connections: returning much memory takes time.
pub(crate) fn discard<T: Send + 'static>(instances: Vec<T>) {
    if !instances.is_empty() {
        spawn_blocking(move || drop(instances));
    }
}

/// A call that waits for memory.
pub(crate) struct Waiting<'a>(&'a Memory);

impl Waiting<'_> {
    /// Returns a future. It completes when memory is given back, or an instance becomes idle, after this call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// The memory of one slot: of all instances of all its generations.
#[derive(Debug)]
pub(crate) struct Account {
    memory: Arc<Memory>,
    /// Bytes that no other slot can take.
    share: usize,
    /// Bytes of all instances. Changes only while `Memory::common` is locked.
    used: AtomicUsize,
    /// The most calls that can run at the same time.
    max_calls: usize,
    instances: AtomicUsize,
    idle: Mutex<Vec<Weak<dyn Idle>>>,
}

impl Account {
    /// Returns the budget that the account is part of.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the bytes of linear memory of all instances.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Returns the number of instances, including instances that are about to end.
    pub(crate) fn instances(&self) -> usize {
        self.instances.load(Relaxed)
    }

    /// Returns `true` if there are more instances than calls that can run. An instance must then end after its call
    /// instead of becoming idle: the engine has places for twice as many instances as calls, and calls may need half of
    /// them.
    pub(crate) fn is_full(&self) -> bool {
        self.instances() > self.max_calls
    }

    /// Registers a pool. Its idle instances end when memory is short.
    pub(crate) fn register_pool(&self, instances: Weak<dyn Idle>) {
        let mut idle = self.idle.lock();
        idle.retain(|instances| instances.strong_count() > 0);
        idle.push(instances);
    }

    /// Returns how many of these bytes are taken from the common half.
    fn excess(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.share)
    }

    fn evict(&self) -> Option<Evicted> {
        let idle: Vec<_> = self.idle.lock().iter().filter_map(Weak::upgrade).collect();
        idle.iter().find_map(|instances| instances.evict())
    }

    fn take(&self, bytes: usize) -> bool {
        let mut ended = Vec::new();
        let mut taken = self.try_take(bytes);
        while !taken {
            let Some(instance) = self.memory.evict(self) else { break };
            ended.push(instance);
            taken = self.try_take(bytes);
        }
        discard(ended);
        taken
    }

    fn try_take(&self, bytes: usize) -> bool {
        let mut common = self.memory.common.lock();
        let before = self.used();
        let after = before.saturating_add(bytes);
        let Some(free) = common.free.checked_sub(self.excess(after) - self.excess(before)) else { return false };
        common.free = free;
        self.used.store(after, Relaxed);
        true
    }

    fn give(&self, bytes: usize) {
        {
            let mut common = self.memory.common.lock();
            let before = self.used();
            let after = before.saturating_sub(bytes);
            common.free += self.excess(before) - self.excess(after);
            self.used.store(after, Relaxed);
        }
        self.memory.tell_waiting();
    }
}

/// The memory that one instance has taken from its slot's account, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Holding {
    account: Arc<Account>,
    bytes: usize,
}

impl Holding {
    /// Counts a new instance, which has no memory yet.
    pub(crate) fn new(account: Arc<Account>) -> Self {
        account.instances.fetch_add(1, Relaxed);
        Self { account, bytes: 0 }
    }

    /// Takes memory until the instance has `bytes` bytes. Returns `false` if there is not enough.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        let has_grown = missing == 0 || self.account.take(missing);
        if has_grown {
            self.bytes += missing;
        }
        has_grown
    }

    /// Returns the bytes of all plugins' memory together (`engine.memory`).
    pub(crate) fn total(&self) -> usize {
        self.account.memory.total
    }

    pub(crate) fn give_back(&mut self) {
        if self.bytes > 0 {
            self.account.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.give_back();
        self.account.instances.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMANDS: [Demand; 2] = [Demand { calls: 2, memory: 10 }, Demand { calls: 2, memory: 30 }];

    /// A budget of 160 bytes: shares of 20 and 60, and 80 in common.
    fn accounts() -> [Arc<Account>; 2] {
        let memory = Memory::new(Some(160), DEMANDS.into_iter().sum());
        DEMANDS.map(|demand| memory.open(demand))
    }

    fn hold(account: &Arc<Account>, bytes: usize) -> Option<Holding> {
        let mut holding = Holding::new(account.clone());
        holding.grow_to(bytes).then_some(holding)
    }

    fn has(account: &Arc<Account>, bytes: usize) -> bool {
        hold(account, bytes).is_some()
    }

    #[test]
    fn a_slot_takes_its_share_and_what_is_common_and_no_more() {
        let [small, large] = accounts();
        let mut greedy = hold(&small, 100).unwrap();
        assert!(!greedy.grow_to(101) && !has(&small, 1));
        assert_eq!((small.used(), small.instances()), (100, 1));
        // The other slot still has its share, and not a byte more.
        let (half, rest) = (hold(&large, 30), hold(&large, 30));
        assert!(half.is_some() && rest.is_some() && !has(&large, 1));
        drop(greedy);
        assert!(has(&large, 80) && !has(&large, 81));
    }

    #[test]
    fn what_is_common_comes_back_in_whatever_order_instances_end() {
        let [small, large] = accounts();
        let (first, second, third) = (hold(&small, 20), hold(&small, 50), hold(&small, 30));
        assert!(first.is_some() && second.is_some() && third.is_some());
        // The share that was taken first now covers what was taken later.
        drop(first);
        assert!(has(&large, 80) && !has(&large, 81));
        drop((second, third));
        assert!(has(&large, 140) && !has(&large, 141));
        assert_eq!((small.used(), small.instances(), large.used(), large.instances()), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_what_is_given_back() {
        let [small, _] = accounts();
        let held = hold(&small, 100);
        let waiting = small.memory().register_waiter();
        let freed = waiting.freed();
        drop(held);
        freed.await;
    }

    #[test]
    fn without_a_setting_every_plugin_has_room_for_an_instance() {
        let needs = |memory| Memory::new(None, Demand { calls: 1, memory }).total();
        assert!(needs(0) <= DEFAULT);
        assert_eq!(needs(DEFAULT), 2 * DEFAULT);
    }
}
