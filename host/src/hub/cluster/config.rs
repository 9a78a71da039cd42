//! The settings of a node.

use std::time::Duration;

use super::id::{Fingerprint, Incarnation, NodeId};

/// How many of its last incarnations a node remembers. What a gateway that crashes again and again had sent may be
/// under way for some seconds.
pub const REMEMBERED: usize = 8;

/// The settings of a node.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The node's id. `None` chooses a free one.
    pub node: Option<NodeId>,
    /// 64 random bits, new with each start.
    pub incarnation: Incarnation,
    /// The incarnations before this one, which have ended.
    pub before: [Option<Incarnation>; REMEMBERED],
    /// The fingerprint of `cluster.secret`.
    pub secret: Fingerprint,
    /// How long a command may take: 1 s.
    pub timeout: Duration,
    /// How long logins and departures wait for confirmations: 100 ms.
    pub confirm: Duration,
    /// The most bytes of commands that wait for answers: 32 MiB.
    pub window: usize,
}
