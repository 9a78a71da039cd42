//! A queued message and its cost in bytes of memory.

use crate::base::message::Message;

/// Bytes of a place in a queue. Doubled, since a growing queue has up to twice the places that it needs.
pub(super) const PLACE: usize = 2 * size_of::<Queued>();
/// Bytes that a payload takes beside its content.
const HEADER: usize = 32;
/// Cost of a message beside its payload, so that a flood of empty messages is bounded, too.
pub(super) const OVERHEAD: usize = PLACE + HEADER;
/// Cost of a message with a shared payload to one outbox.
pub const SHARED_COST: usize = PLACE;
/// A message in the queue of an outbox.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) message: Message,
    /// True if the budget has been charged for the payload already, for all outboxes that share it.
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

/// Returns the cost of a message whose payload is not shared.
pub fn cost(message: &Message) -> usize {
    message.len() + OVERHEAD
}
