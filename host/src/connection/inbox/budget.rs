//! Bytes that all inboxes together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The first bytes of each inbox are free of the common budget, so that ordinary traffic does not touch it.
pub(super) const FREE: usize = 4 << 10;

/// Bytes that all inboxes together may hold.
#[derive(Debug)]
pub struct InboxBudget {
    used: AtomicUsize,
    limit: usize,
}

impl InboxBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// How many bytes are taken.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

/// One connection's share of the budget.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<InboxBudget>,
    drawn: usize,
}

impl Share {
    pub(super) fn new(budget: Arc<InboxBudget>) -> Self {
        Self { budget, drawn: 0 }
    }

    /// Has the budget cover `bytes`. Returns whether it does.
    pub(super) fn cover(&mut self, bytes: usize) -> bool {
        if bytes <= FREE {
            if self.drawn > 0 {
                self.budget.used.fetch_sub(std::mem::take(&mut self.drawn), Relaxed);
            }
            return true;
        }
        let Some(missing) = (bytes - FREE).checked_sub(self.drawn).filter(|&missing| missing > 0) else { return true };
        let add = |used: usize| used.checked_add(missing).filter(|&sum| sum <= self.budget.limit);
        let covered = self.budget.used.fetch_update(Relaxed, Relaxed, add).is_ok();
        if covered {
            self.drawn += missing;
        }
        covered
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cover(0);
    }
}
