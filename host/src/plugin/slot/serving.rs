//! Which generation serves whom.

use std::sync::Arc;

use super::generation::Generation;
use crate::base::message::ConnectionId;

/// Which generation serves whom.
pub(crate) struct Serving {
    pub(crate) live: Arc<Generation>,
    pub(crate) canary: Option<Sample>,
    pub(crate) shadow: Option<Sample>,
}

/// Some of the connections that opened after a moment, and what is for them.
pub(crate) struct Sample {
    pub(crate) generation: Arc<Generation>,
    pub(crate) percent: u8,
    pub(crate) after: ConnectionId,
}

impl Sample {
    pub(crate) fn takes(&self, connection: ConnectionId) -> bool {
        connection > self.after && mix(connection.0 ^ self.generation.number() << 48) % 100 < u64::from(self.percent)
    }
}

/// Spreads neighbours (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
