//! Blocked uids: an operator does not let them in for a while.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;
use tokio::time::Instant;

/// The most uids that are blocked at a time. With the longest uids (256 bytes) they take some 50 MB.
pub const MAX_BLOCKS: usize = 100_000;
/// The longest time for which a uid is blocked.
pub const LONGEST_BLOCK: Duration = Duration::from_secs(30 * 24 * 3600);

/// The most expired blocks that one call removes, while others wait. A call adds at most one block, so expired blocks
/// do not pile up.
const AT_ONCE: usize = 64;

/// There are [`MAX_BLOCKS`] blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{MAX_BLOCKS} uids are blocked already: lift some blocks first")]
pub struct Full;

/// The uids that are blocked, and until when.
///
/// Whoever blocks a uid first inserts the block, and then closes the uid's connections. The registry looks for a block
/// under the lock of the uid's shard, where the connections to close are also found. So a login at the same time is
/// either refused, because the block is there already, or it is registered, and its connection is found and closed.
#[derive(Debug, Default)]
pub struct Blocks {
    /// The number of blocks, to answer without a lock while there are none. Whoever locks the uid's shard after the
    /// insertion sees the block: that lock orders the two, not this number.
    count: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    until: HashMap<ByteString, Instant>,
    /// The same, ordered by time.
    by_time: BTreeSet<(Instant, ByteString)>,
}

impl Blocks {
    /// Blocks a uid for this time, at most [`LONGEST_BLOCK`]. Replaces an earlier block of the uid. The uid should have
    /// at most 256 bytes, because none is longer. Close the uid's connections afterwards, not before.
    ///
    /// # Errors
    /// [`Full`] if too many other uids are blocked.
    pub fn insert(&self, uid: ByteString, time: Duration) -> Result<(), Full> {
        let now = Instant::now();
        let mut list = self.lock(now, AT_ONCE);
        if list.until.len() >= MAX_BLOCKS && !list.until.contains_key(&uid) {
            return Err(Full);
        }
        list.remove(&uid);
        let until = now + time.min(LONGEST_BLOCK);
        list.by_time.insert((until, uid.clone()));
        list.until.insert(uid, until);
        self.count.store(list.until.len(), Relaxed);
        Ok(())
    }

    /// Lifts the block of a uid. Returns `false` if the uid is not blocked.
    pub fn lift(&self, uid: &str) -> bool {
        let now = Instant::now();
        let mut list = self.lock(now, AT_ONCE);
        let lifted = list.remove(uid).is_some_and(|until| until > now);
        self.count.store(list.until.len(), Relaxed);
        lifted
    }

    /// Returns blocked uids for which `wanted` returns `true`, each with the time that is left: at most `limit`. The
    /// block that ends first is the first.
    pub fn list(&self, limit: usize, wanted: impl Fn(&str) -> bool) -> Vec<(ByteString, Duration)> {
        let now = Instant::now();
        let list = self.lock(now, MAX_BLOCKS);
        let wanted = list.by_time.iter().filter(|(_, uid)| wanted(uid)).take(limit);
        wanted.map(|(until, uid)| (uid.clone(), *until - now)).collect()
    }

    /// Returns `true` if a uid is blocked.
    pub fn is_blocked(&self, uid: &str) -> bool {
        if self.count.load(Relaxed) == 0 {
            return false;
        }
        let now = Instant::now();
        self.lock(now, AT_ONCE).until.get(uid).is_some_and(|until| *until > now)
    }

    /// Locks the list, and removes at most `most` expired blocks.
    fn lock(&self, now: Instant, most: usize) -> MutexGuard<'_, List> {
        let mut list = self.list.lock();
        for _ in 0..most {
            if list.by_time.first().is_none_or(|(until, _)| *until > now) {
                break;
            }
            if let Some((_, uid)) = list.by_time.pop_first() {
                list.until.remove(&uid);
            }
        }
        self.count.store(list.until.len(), Relaxed);
        list
    }
}

impl List {
    /// Removes the block of a uid. Returns when it ends.
    fn remove(&mut self, uid: &str) -> Option<Instant> {
        let (uid, until) = self.until.remove_entry(uid)?;
        self.by_time.remove(&(until, uid));
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_uid_is_blocked_until_its_time_is_over_or_the_block_is_lifted() {
        let blocks = Blocks::default();
        assert!(!blocks.is_blocked("a") && !blocks.lift("a"));
        blocks.insert("a".into(), seconds(20)).unwrap();
        blocks.insert("b".into(), seconds(10)).unwrap();
        blocks.insert("c".into(), Duration::MAX).unwrap();
        assert!(blocks.is_blocked("a") && blocks.is_blocked("b") && blocks.is_blocked("c") && !blocks.is_blocked("d"));
        advance(seconds(9)).await;
        assert!(blocks.is_blocked("b"));
        let list = [("b".into(), seconds(1)), ("a".into(), seconds(11)), ("c".into(), LONGEST_BLOCK - seconds(9))];
        assert_eq!(blocks.list(usize::MAX, |_| true), list);
        advance(seconds(1)).await;
        assert!(!blocks.lift("b") && !blocks.is_blocked("b") && blocks.is_blocked("a"));
        // A later block replaces an earlier one, also if it ends sooner.
        blocks.insert("a".into(), seconds(100)).unwrap();
        blocks.insert("a".into(), seconds(5)).unwrap();
        advance(seconds(5)).await;
        assert!(!blocks.is_blocked("a"));
        assert!(blocks.lift("c") && !blocks.is_blocked("c") && !blocks.lift("c"));
        assert!(blocks.list(usize::MAX, |_| true).is_empty() && blocks.count.load(Relaxed) == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_are_bounded_and_expired_ones_make_room() {
        let blocks = Blocks::default();
        for number in 0..MAX_BLOCKS {
            blocks.insert(number.to_string().into(), seconds(10)).unwrap();
        }
        assert_eq!(blocks.insert("one more".into(), seconds(10)), Err(Full));
        blocks.insert("7".into(), seconds(20)).unwrap();
        advance(seconds(10)).await;
        // Each call removes some of them, but none counts.
        assert!(!blocks.is_blocked("99") && !blocks.lift("98") && blocks.is_blocked("7"));
        assert!(blocks.count.load(Relaxed) > MAX_BLOCKS / 2);
        blocks.insert("one more".into(), seconds(30)).unwrap();
        assert_eq!(blocks.list(usize::MAX, |_| true), [("7".into(), seconds(10)), ("one more".into(), seconds(30))]);
        advance(seconds(30)).await;
        assert!(!blocks.is_blocked("7") && blocks.count.load(Relaxed) == 0);
    }
}
