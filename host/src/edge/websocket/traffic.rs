//! What a connection has carried, for its line in the log. The connection's task alone counts it, in plain numbers.

use std::time::Duration;

/// Messages in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traffic {
    pub(super) messages: u64,
    /// The bytes of their payloads.
    pub(super) bytes: u64,
}

impl Traffic {
    /// Counts a message whose payload has this length.
    pub(super) fn count(&mut self, length: usize) {
        self.messages += 1;
        self.bytes += length as u64;
    }
}

/// What a connection has carried, from its upgrade to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) lasted: Duration,
    /// Messages of the client that the gateway has taken, those of the login included.
    pub(super) received: Traffic,
    /// Messages to the client that were written, or began to be written.
    pub(super) sent: Traffic,
}
