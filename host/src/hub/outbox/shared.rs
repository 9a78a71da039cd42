//! A message whose payload many outboxes share.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::budget::Budget;
use super::queued::cost;
use crate::base::message::Message;

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

    /// Returns the message.
    pub fn message(&self) -> &Message {
        &self.0
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
