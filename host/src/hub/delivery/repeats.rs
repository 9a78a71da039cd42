//! The packet itself, when several commands carry it: its payload is charged once.

use super::Work;
use crate::base::message::Message;
use crate::hub::command::Command;
use crate::hub::outbox::Shared;
use crate::hub::registry::Peer;

pub(super) fn payload(command: &Command) -> Option<&Message> {
    if let Command::Deliver(delivery) = command { Some(&delivery.message) } else { None }
}

/// Returns `true` if several of these carry the packet itself. Only the packet's bytes have another holder; a payload
/// that a plugin made has none.
pub(super) fn repeats<T>(list: &[T], payload: fn(&T) -> Option<&Message>) -> bool {
    list.len() > 1 && list.iter().filter_map(payload).filter(|payload| !payload.is_unique()).nth(1).is_some()
}

impl Work<'_> {
    /// Returns the message as a shared one, charged once, if it is the packet and several commands carry it.
    pub(super) fn share_repeated(&mut self, message: &Message, peer: &Peer) -> Option<&Shared> {
        if !self.repeats || message.is_unique() {
            return None;
        }
        if self.repeated.as_ref().is_none_or(|repeated| !repeated.is(message)) {
            self.repeated = Shared::new(message.clone(), peer.outbox.budget()).ok().map(Box::new);
        }
        self.repeated.as_deref()
    }
}
