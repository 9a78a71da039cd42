//! What may wait in all outboxes together, and what of it is kept once for many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;

use super::queued::cost;
use crate::base::message::Message;

/// The most that an outbox may hold of its own, in bytes: enough for ordinary traffic, which so does not touch what all
/// have in common.
const MAX_SHARE: usize = 4 << 10;
/// Which part of the budget is made free when there is too little, so that it is not soon needed again.
const HEADROOM: usize = 16;
/// How often room may be made: looking for those who have most waiting takes some milliseconds with many connections.
const RELIEF_PAUSE: Duration = Duration::from_millis(50);

/// Memory that may be taken by what waits in all outboxes together.
///
/// Each outbox has a share of its own, so small that all together take at most half; it draws what it needs beyond that
/// from the rest. So the sum of both is never above the total, but for batches that a peer has not taken: see
/// [`Outbox::keep_batch`](super::Outbox::keep_batch).
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    share: usize,
    drawn: Drawn,
    /// When room was last made.
    relieved: Mutex<Option<Instant>>,
}

/// What many threads write to, apart from what they read with every message.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Drawn {
    bytes: AtomicUsize,
    /// Bytes of those that have been closed for want of room, and give them back when they have ended.
    ending: AtomicUsize,
}

impl Budget {
    /// A budget of `total` bytes for at most so many `connections`.
    pub fn new(total: usize, connections: usize) -> Self {
        let connections = connections.max(1);
        let share = (total / 2 / connections).min(MAX_SHARE);
        Self { limit: total - share * connections, share, drawn: Drawn::default(), relieved: Mutex::default() }
    }

    /// How many bytes are drawn, in steps, beyond each outbox's own share.
    pub fn used(&self) -> usize {
        self.drawn.bytes.load(Relaxed)
    }

    /// The bytes that each outbox has of its own.
    pub(super) fn share(&self) -> usize {
        self.share
    }

    /// Draws `bytes`, if there are so many.
    pub(super) fn draw(&self, bytes: usize) -> bool {
        let sum = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.drawn.bytes.fetch_update(Relaxed, Relaxed, sum).is_ok()
    }

    /// Draws `bytes` that are taken already.
    pub(super) fn draw_anyway(&self, bytes: usize) {
        self.drawn.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.drawn.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Says that `bytes` of what is drawn will be given back without anybody else being closed; or, after that, that they
    /// have been.
    pub(super) fn will_return(&self, bytes: usize) {
        self.drawn.ending.fetch_add(bytes, Relaxed);
    }

    pub(super) fn has_returned(&self, bytes: usize) {
        self.drawn.ending.fetch_sub(bytes, Relaxed);
    }

    /// Whether there is too little room for `bytes` more, apart from what those who are ending will give back.
    pub fn lacks(&self, bytes: usize) -> bool {
        let used = self.used().saturating_sub(self.drawn.ending.load(Relaxed));
        used + bytes > bytes.max(self.limit - self.limit / HEADROOM)
    }

    /// Whether the caller is to make room for `bytes` now: there is too little, there can be enough, and it has not been
    /// tried a moment ago.
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

/// A message for several outboxes. Its payload is drawn from the budget once, for as long as anybody holds it.
#[derive(Debug, Clone)]
pub struct Shared(pub(super) Message);

impl Shared {
    /// Draws on the budget for the payload.
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
            // The same bytes, so they are text still.
            Message::Text(text) => Message::Text(ByteString::try_from(charged(text.into_bytes())).unwrap_or_default()),
            Message::Binary(payload) => Message::Binary(charged(payload)),
        }))
    }

    /// Whether this is the message, made from the same bytes.
    pub fn is(&self, message: &Message) -> bool {
        let (own, other) = (self.0.as_bytes(), message.as_bytes());
        (own.as_ptr(), own.len()) == (other.as_ptr(), other.len())
            && std::mem::discriminant(&self.0) == std::mem::discriminant(message)
    }
}

/// A payload that gives back what was drawn for it when the last who holds it lets go.
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
