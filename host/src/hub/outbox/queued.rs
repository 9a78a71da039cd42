//! A queued message, and what it costs in bytes of memory.

use crate::base::message::Message;

/// What a place in a queue takes, in bytes: a queue that grows has up to twice the places that it needs.
pub(super) const PLACE: usize = 2 * size_of::<Queued>();
/// What a payload takes beside its bytes.
const HEADER: usize = 32;
/// What a message costs beside its payload, so that a flood of empty messages is bounded, too.
pub(super) const OVERHEAD: usize = PLACE + HEADER;
/// What a message costs an outbox when its payload is shared.
pub const SHARED_COST: usize = PLACE;
/// A message in the queue of an outbox.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) message: Message,
    /// The payload has been drawn for all who share it.
    pub(super) shared: bool,
}

impl Queued {
    pub(super) fn bytes(&self) -> usize {
        cost(&self.message)
    }

    pub(super) fn shared(&self) -> usize {
        if self.shared { self.message.len() + HEADER } else { 0 }
    }
}

/// What a message costs an outbox that has it alone.
pub fn cost(message: &Message) -> usize {
    message.len() + OVERHEAD
}
