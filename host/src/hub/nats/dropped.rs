//! Counts frames that were received and could not be queued.

use std::sync::atomic::{AtomicU64, Ordering};

use super::subject::Channel;

/// The frames that were dropped since the last report, by channel.
#[derive(Debug, Default)]
pub(super) struct Dropped([AtomicU64; 4]);

impl Dropped {
    /// Counts frames.
    pub(super) fn add(&self, channel: Channel, count: u64) {
        self.0[channel as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Takes a count that is not 0.
    pub(super) fn take(&self) -> Option<(Channel, u64)> {
        Channel::EACH.into_iter().zip(&self.0).find_map(|(channel, count)| {
            // Most often it is 0, which is read without a write.
            let count = if count.load(Ordering::Relaxed) == 0 { 0 } else { count.swap(0, Ordering::Relaxed) };
            (count > 0).then_some((channel, count))
        })
    }
}
