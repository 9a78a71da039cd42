//! The memory that all outboxes together may use, and messages whose payload is shared by many outboxes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;

use super::queued::cost;
use crate::base::message::Message;

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
    limit: usize,
    share: usize,
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
        let connections = connections.max(1);
        let share = (total / 2 / connections).min(MAX_SHARE);
        Self { limit: total - share * connections, share, drawn: Drawn::default(), relieved: Mutex::default() }
    }

    /// Returns how many bytes are drawn beyond the outboxes' own shares. Outboxes draw in steps.
    pub fn used(&self) -> usize {
        self.drawn.bytes.load(Relaxed)
    }

    /// The share of each outbox, in bytes.
    pub(super) fn share(&self) -> usize {
        self.share
    }

    /// Draws `bytes`. Returns `false` and draws nothing if too few are left.
    pub(super) fn draw(&self, bytes: usize) -> bool {
        let sum = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
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
        used + bytes > bytes.max(self.limit - self.limit / HEADROOM)
    }

    /// Returns `true` if the caller must make room for `bytes` now: there is too little room, `bytes` can fit at all,
    /// and nobody tried a moment ago.
    pub fn needs_relief(&self, bytes: usize) -> bool {
        if bytes > self.limit || !self.lacks(bytes) {
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

/// A message for several outboxes. The budget is charged for its payload once, until the last holder drops it.
#[derive(Debug, Clone)]
pub struct Shared(pub(super) Message);

impl Shared {
    /// Charges the budget for the payload.
    ///
    /// # Errors
    /// The message itself, if the budget has no room for it.
    pub fn new(message: Message, budget: &Arc<Budget>) -> Result<Self, Message> {
        let bytes = cost(&message);
        if !budget.draw(bytes) {
            return Err(message);
        }
        let charged = |payload| Bytes::from_owner(Charged { payload, bytes, budget: budget.clone() });
        Ok(Self(match message {
            // The bytes are the same, so they are still UTF-8.
            Message::Text(text) => Message::Text(ByteString::try_from(charged(text.into_bytes())).unwrap_or_default()),
            Message::Binary(payload) => Message::Binary(charged(payload)),
        }))
    }

    /// Returns `true` if this was made from `message`: the same kind, and the same bytes in memory.
    pub fn is(&self, message: &Message) -> bool {
        let (own, other) = (self.0.as_bytes(), message.as_bytes());
        (own.as_ptr(), own.len()) == (other.as_ptr(), other.len())
            && std::mem::discriminant(&self.0) == std::mem::discriminant(message)
    }
}

/// A payload that is given back to the budget when its last holder drops it.
struct Charged {
    payload: Bytes,
    bytes: usize,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
