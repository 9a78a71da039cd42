//! Which generation serves which connections.

use std::sync::Arc;

use super::generation::Generation;
use crate::base::message::ConnectionId;

/// The generations that serve, and their shares of the connections.
pub(crate) struct Serving {
    pub(crate) live: Arc<Generation>,
    pub(crate) canary: Option<TrafficShare>,
    pub(crate) shadow: Option<TrafficShare>,
}

/// A percentage of the connections newer than `after`, and the generation for them.
pub(crate) struct TrafficShare {
    pub(crate) generation: Arc<Generation>,
    pub(crate) percent: u8,
    pub(crate) after: ConnectionId,
}

impl TrafficShare {
    /// Returns `true` if this connection is in the share.
    pub(crate) fn takes(&self, connection: ConnectionId) -> bool {
        connection > self.after && mix(connection.0 ^ self.generation.number() << 48) % 100 < u64::from(self.percent)
    }
}

/// Mixes the bits, so that consecutive numbers are spread evenly (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
