//! What traffic there is to be.

use crate::cli::Common;

/// How a message travels.
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

    /// The sender gets an answer to each message, in order.
    pub(super) fn answered(self) -> bool {
        self == Via::Text
    }
}

/// Whom a sender writes to.
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
    /// How many new connections log in a second, and how many seconds they stay.
    pub(crate) newcomers: (f64, f64),
}
