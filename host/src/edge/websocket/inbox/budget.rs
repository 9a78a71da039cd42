//! Bytes that all inboxes together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The first bytes of each inbox are free of the common budget, so that ordinary traffic does not touch it.
pub(super) const FREE: usize = 4 << 10;

/// Bytes that all inboxes together may hold. Clients that are not authenticated yet may hold half of them: however many
/// strangers come, the others keep the rest.
#[derive(Debug)]
pub struct InboxBudget {
    used: AtomicUsize,
    /// What clients hold of that who are not authenticated yet.
    strangers: AtomicUsize,
    limit: usize,
}

impl InboxBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), strangers: AtomicUsize::new(0), limit }
    }

    /// How many bytes are taken.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn strangers(&self) -> usize {
        self.strangers.load(Relaxed)
    }
}

/// One connection's share of the budget.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<InboxBudget>,
    drawn: usize,
    /// The client is not authenticated yet.
    is_stranger: bool,
}

impl Share {
    /// The share of a client that is not authenticated yet.
    pub(super) fn new(budget: Arc<InboxBudget>) -> Self {
        Self { budget, drawn: 0, is_stranger: true }
    }

    /// From now on the client is authenticated.
    pub(super) fn authenticated(&mut self) {
        if std::mem::take(&mut self.is_stranger) {
            self.budget.strangers.fetch_sub(self.drawn, Relaxed);
        }
    }

    /// Has the budget cover `bytes`, and gives back what is no longer needed. Returns whether it does.
    pub(super) fn cover(&mut self, bytes: usize) -> bool {
        let needed = bytes.saturating_sub(FREE);
        if needed > self.drawn {
            return self.draw(needed - self.drawn);
        }
        // A little more than is needed stays, so that a client with steady traffic does not draw again and again.
        if needed == 0 || self.drawn > 2 * needed + FREE {
            self.give_back(self.drawn - needed);
        }
        true
    }

    fn draw(&mut self, bytes: usize) -> bool {
        let InboxBudget { used, strangers, limit } = &*self.budget;
        if !add(used, bytes, *limit) {
            return false;
        }
        if self.is_stranger && !add(strangers, bytes, limit / 2) {
            used.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.drawn += bytes;
        true
    }

    fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.drawn -= bytes;
        self.budget.used.fetch_sub(bytes, Relaxed);
        if self.is_stranger {
            self.budget.strangers.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cover(0);
    }
}

/// Adds to a counter, unless it would then be above its limit.
fn add(counter: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let sum = |count: usize| count.checked_add(bytes).filter(|&sum| sum <= limit);
    counter.fetch_update(Relaxed, Relaxed, sum).is_ok()
}
