//! Finds out whether several commands carry the packet itself: its payload is then charged once.

use crate::base::message::Message;
use crate::hub::command::Command;

pub(super) fn payload(command: &Command) -> Option<&Message> {
    if let Command::Deliver(delivery) = command { Some(&delivery.message) } else { None }
}

/// Returns `true` if several of these carry the packet itself. Only the packet's bytes have another holder; a payload
/// that a plugin made has none.
pub(super) fn repeats<T>(list: &[T], payload: fn(&T) -> Option<&Message>) -> bool {
    list.len() > 1 && list.iter().filter_map(payload).filter(|payload| !payload.is_unique()).nth(1).is_some()
}
