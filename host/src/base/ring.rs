//! Keeps the last entries of something that goes on for ever, for whoever follows it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The last entries, within two bounds. They have numbers from 1 on, so that a follower can say what it has seen.
#[derive(Debug)]
pub struct Ring<T> {
    state: Mutex<State<T>>,
    /// The number of the newest entry; 0 if there is none.
    newest: watch::Sender<u64>,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    /// The entries with their sizes, oldest first.
    kept: VecDeque<(usize, T)>,
    bytes: usize,
    newest: u64,
}

/// Entries for a follower.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries with their numbers, oldest first.
    pub entries: Vec<(u64, T)>,
    /// The entries before them that the follower has not seen, and that are not kept any more.
    pub lost: u64,
}

impl<T: Clone> Ring<T> {
    /// Keeps at most `most` entries, which together have at most `most_bytes`; but always the newest one.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        let state = State { kept: VecDeque::new(), bytes: 0, newest: 0 };
        Self { state: Mutex::new(state), newest: watch::Sender::new(0), most, most_bytes }
    }

    /// Adds an entry of this size.
    pub fn push(&self, bytes: usize, entry: T) {
        let newest = {
            let mut state = self.state.lock();
            state.newest += 1;
            state.bytes += bytes;
            state.kept.push_back((bytes, entry));
            while state.kept.len() > 1 && (state.kept.len() > self.most || state.bytes > self.most_bytes) {
                let Some((bytes, _)) = state.kept.pop_front() else { break };
                state.bytes -= bytes;
            }
            state.newest
        };
        // Two threads may come here in the other order.
        self.newest.send_if_modified(|seen| newest > std::mem::replace(seen, newest.max(*seen)));
    }

    /// Returns at most `limit` entries after the one with the number `after`; 0 means all that are kept. So does a
    /// number that was never given, which comes from an earlier process.
    pub fn since(&self, after: u64, limit: usize) -> Page<T> {
        let state = self.state.lock();
        let before_first = state.newest - state.kept.len() as u64;
        let after = if after > state.newest { 0 } else { after };
        let lost = if after == 0 { 0 } else { before_first.saturating_sub(after) };
        let first = after.max(before_first);
        let skipped = usize::try_from(first - before_first).unwrap_or(usize::MAX);
        let kept = state.kept.iter().skip(skipped).take(limit);
        Page { entries: (first + 1..).zip(kept.map(|(_, entry)| entry.clone())).collect(), lost }
    }

    /// Returns the oldest entry of this kind.
    pub fn oldest(&self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        self.state.lock().kept.iter().map(|(_, entry)| entry).find(|entry| is_wanted(entry)).cloned()
    }

    /// Waits until [`since`](Self::since) has entries. Dropping the future loses nothing.
    pub async fn newer_than(&self, after: u64) {
        let mut newest = self.newest.subscribe();
        // The sender is a part of this ring, so it exists.
        let _ = newest.wait_for(|newest| *newest > after || (*newest < after && *newest > 0)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn page(entries: &[(u64, char)], lost: u64) -> Page<char> {
        Page { entries: entries.to_vec(), lost }
    }

    #[test]
    fn a_follower_gets_what_is_new_and_hears_what_it_has_lost() {
        let ring = Ring::new(3, 100);
        assert_eq!(ring.since(0, 9), page(&[], 0));
        assert!(ring.newer_than(0).now_or_never().is_none());
        for entry in "abcde".chars() {
            ring.push(1, entry);
        }
        assert_eq!(ring.since(0, 9), page(&[(3, 'c'), (4, 'd'), (5, 'e')], 0));
        assert_eq!(ring.since(0, 1), page(&[(3, 'c')], 0));
        assert_eq!(ring.since(1, 9), page(&[(3, 'c'), (4, 'd'), (5, 'e')], 1));
        assert_eq!(ring.since(2, 1), page(&[(3, 'c')], 0));
        assert_eq!(ring.since(4, 9), page(&[(5, 'e')], 0));
        assert_eq!(ring.since(5, 9), page(&[], 0));
        assert_eq!(ring.since(6, 1), page(&[(3, 'c')], 0), "a number of an earlier process");
        assert!(ring.newer_than(4).now_or_never().is_some() && ring.newer_than(5).now_or_never().is_none());
        assert!(ring.newer_than(6).now_or_never().is_some());
        assert_eq!(ring.oldest(|entry| *entry > 'c'), Some('d'));
    }

    #[test]
    fn many_bytes_push_old_entries_out() {
        let ring = Ring::new(100, 10);
        for (bytes, entry) in [(4, 'a'), (4, 'b'), (4, 'c')] {
            ring.push(bytes, entry);
        }
        assert_eq!(ring.since(0, 9).entries, [(2, 'b'), (3, 'c')]);
        ring.push(11, 'd');
        assert_eq!(ring.since(3, 9), page(&[(4, 'd')], 0));
        ring.push(1, 'e');
        assert_eq!(ring.since(3, 9), page(&[(5, 'e')], 1));
    }
}
