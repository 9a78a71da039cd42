//! The configuration of the traffic.

use clap::ValueEnum;

use crate::cli::Common;

/// The way of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// ws client -> server -> ws client
    Relay,
    /// ws client -> server -> the same client
    Echo,
    /// sender -> server -> ws client
    Push(Carrier),
}

/// How a sender pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Carrier {
    /// Lines to the text port
    Text,
    /// A request of the HTTP API for each message, one after the other
    Http,
    /// Requests of the HTTP API with --batch messages each, one after the other
    Batch,
    /// One request of the HTTP API for all messages: a stream of lines in both directions
    Stream,
}

impl Carrier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Carrier::Text => "text",
            Carrier::Http => "http",
            Carrier::Batch => "batch",
            Carrier::Stream => "stream",
        }
    }

    /// Returns `true` if several messages are sent together, as items of the API.
    pub(crate) fn has_items(self) -> bool {
        matches!(self, Carrier::Batch | Carrier::Stream)
    }

    /// Returns `true` if a sender has one request under way at a time.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Carrier::Http | Carrier::Batch)
    }
}

/// How an item of the API has its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Item {
    /// As JSON, which the message must be
    Json,
    /// As a JSON string with escapes
    Text,
}

impl Item {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Item::Json => "json",
            Item::Text => "text",
        }
    }
}

impl Via {
    pub(super) fn by_clients(self) -> bool {
        matches!(self, Via::Relay | Via::Echo)
    }

    /// Returns `true` if the sender gets an answer to each message, in order.
    pub(super) fn answered(self) -> bool {
        !self.by_clients()
    }

    pub(super) fn is(self, carrier: Carrier) -> bool {
        self == Via::Push(carrier)
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
    pub(crate) push_senders: usize,
    pub(crate) size: usize,
    pub(crate) window: u32,
    pub(crate) item: Item,
    pub(crate) rate: Option<f64>,
    pub(crate) offline_ratio: f64,
    /// The number of newcomers a second, and the seconds that each stays.
    pub(crate) newcomers: (f64, f64),
}
