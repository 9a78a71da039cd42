//! The configuration of the traffic.

use crate::cli::Common;

/// The way of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// ws client -> server -> ws client
    Relay,
    /// ws client -> server -> the same client
    Echo,
    /// text port line -> ws client
    Text,
}

impl Via {
    pub(super) fn by_clients(self) -> bool {
        matches!(self, Via::Relay | Via::Echo)
    }

    /// Returns `true` if the sender gets an answer to each message, in order.
    pub(super) fn answered(self) -> bool {
        self == Via::Text
    }
}

/// The targets of a sender.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Plan {
    Paired,
    Random { fanout: usize },
    RoundRobin,
    Zipf { s: f64 },
}

pub(crate) struct Config {
    pub(crate) common: Common,
    pub(crate) via: Via,
    pub(crate) plan: Plan,
    pub(crate) clients: usize,
    pub(crate) text_senders: usize,
    pub(crate) size: usize,
    pub(crate) window: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) offline_ratio: f64,
    /// The number of newcomers a second, and the seconds that each stays.
    pub(crate) newcomers: (f64, f64),
}
