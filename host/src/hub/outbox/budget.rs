//! The memory that all outboxes together may use.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The largest share of one outbox, in bytes. It is enough for ordinary traffic, which then never touches the budget.
const MAX_SHARE: usize = 4 << 10;
/// When room is needed, 1/16 of the budget is made free, so that room is not soon needed again.
const HEADROOM: usize = 16;
/// The shortest time between two attempts to make room: with many connections, it takes some milliseconds to find those
/// with the most queued bytes.
const RELIEF_PAUSE: Duration = Duration::from_millis(50);

/// The memory that the messages of all outboxes together may use.
///
/// Each outbox has a share of its own; all shares together are at most half of the total. What an outbox needs beyond
/// its share, it draws from the rest. So both together never exceed the total, except for batches that a client has not
/// taken: see [`Outbox::keep_batch`](super::Outbox::keep_batch).
#[derive(Debug)]
pub struct Budget {
    total: usize,
    /// The most connections for which the memory has been divided.
    connections: Mutex<usize>,
    limit: AtomicUsize,
    share: AtomicUsize,
    drawn: Drawn,
    /// The last time that room was made.
    relieved: Mutex<Option<Instant>>,
}

/// Counters that many threads write. They have a cache line of their own, away from fields that every message reads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Drawn {
    bytes: AtomicUsize,
    /// Drawn bytes of connections that were closed to make room. They come back when those connections have ended.
    ending: AtomicUsize,
}

impl Budget {
    /// Creates a budget of `total` bytes for at most `connections` connections.
    pub fn new(total: usize, connections: usize) -> Self {
        let (limit, share) = Default::default();
        let budget = Self {
            total,
            connections: Mutex::new(0),
            limit,
            share,
            drawn: Drawn::default(),
            relieved: Mutex::default(),
        };
        budget.divide(connections.max(1));
        budget
    }

    /// Divides the memory for at most `connections` connections. Shares never grow: if these are fewer than before,
    /// nothing changes, because more of them may still be connected.
    pub fn divide(&self, connections: usize) {
        let mut before = self.connections.lock();
        if connections > *before {
            *before = connections;
            let share = (self.total / 2 / connections).min(MAX_SHARE);
            self.share.store(share, Relaxed);
            self.limit.store(self.total - share * connections, Relaxed);
        }
    }

    /// Returns how many bytes are drawn beyond the outboxes' own shares. Outboxes draw in steps.
    pub fn used(&self) -> usize {
        self.drawn.bytes.load(Relaxed)
    }

    /// The share of each outbox, in bytes.
    pub(super) fn share(&self) -> usize {
        self.share.load(Relaxed)
    }

    /// Returns how many bytes may be drawn beyond the outboxes' own shares.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Draws `bytes`. Returns `false` and draws nothing if too few are left.
    pub(super) fn draw(&self, bytes: usize) -> bool {
        let sum = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit());
        self.drawn.bytes.fetch_update(Relaxed, Relaxed, sum).is_ok()
    }

    /// Draws `bytes` that are already in use, even beyond the limit.
    pub(super) fn draw_anyway(&self, bytes: usize) {
        self.drawn.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.drawn.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Records that `bytes` of the drawn bytes will come back without closing another connection.
    pub(super) fn will_return(&self, bytes: usize) {
        self.drawn.ending.fetch_add(bytes, Relaxed);
    }

    /// Records that `bytes` announced to [`will_return`](Self::will_return) have come back.
    pub(super) fn has_returned(&self, bytes: usize) {
        self.drawn.ending.fetch_sub(bytes, Relaxed);
    }

    /// Returns `true` if there is too little room for `bytes` more. Bytes that ending connections will give back count
    /// as room.
    pub fn lacks(&self, bytes: usize) -> bool {
        let used = self.used().saturating_sub(self.drawn.ending.load(Relaxed));
        used + bytes > bytes.max(self.limit() - self.limit() / HEADROOM)
    }

    /// Returns `true` if the caller must make room for `bytes` now: there is too little room, `bytes` can fit at all,
    /// and nobody tried a moment ago.
    pub fn needs_relief(&self, bytes: usize) -> bool {
        if bytes > self.limit() || !self.lacks(bytes) {
            return false;
        }
        let mut relieved = self.relieved.lock();
        let due = relieved.is_none_or(|at| at.elapsed() >= RELIEF_PAUSE);
        if due {
            *relieved = Some(Instant::now());
        }
        due
    }
}
