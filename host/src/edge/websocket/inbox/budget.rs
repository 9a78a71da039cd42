//! The memory that all inboxes together may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The first bytes of each inbox, which the budget does not count, so that ordinary traffic does not touch the budget.
pub(super) const FREE: usize = 4 << 10;

/// The memory that all inboxes together may use. Strangers, the clients that are not authenticated yet, may use half of
/// it: however many strangers come, the other half is left for authenticated clients.
#[derive(Debug)]
pub struct InboxBudget {
    used: AtomicUsize,
    /// The part of `used` that strangers use.
    strangers: AtomicUsize,
    limit: usize,
}

impl InboxBudget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), strangers: AtomicUsize::new(0), limit }
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Returns the number of bytes that may be in use.
    pub fn limit(&self) -> usize {
        self.limit
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
    /// True while the client is not authenticated.
    is_stranger: bool,
}

impl Share {
    /// Creates the share of a stranger.
    pub(super) fn new(budget: Arc<InboxBudget>) -> Self {
        Self { budget, drawn: 0, is_stranger: true }
    }

    /// Records that the client is authenticated.
    pub(super) fn authenticated(&mut self) {
        if std::mem::take(&mut self.is_stranger) {
            self.budget.strangers.fetch_sub(self.drawn, Relaxed);
        }
    }

    /// Draws memory for `bytes` in total, or gives back memory that is no longer needed. Returns `false` if the budget
    /// has too little left.
    pub(super) fn cover(&mut self, bytes: usize) -> bool {
        let needed = bytes.saturating_sub(FREE);
        if needed > self.drawn {
            return self.draw(needed - self.drawn);
        }
        // Keep a little more than is needed, so that a client with steady traffic does not draw again and again.
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

/// Adds to a counter. Returns `false` and adds nothing if the sum would be above `limit`.
fn add(counter: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let sum = |count: usize| count.checked_add(bytes).filter(|&sum| sum <= limit);
    counter.fetch_update(Relaxed, Relaxed, sum).is_ok()
}
