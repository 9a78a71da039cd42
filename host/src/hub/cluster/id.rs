//! The names of nodes, of their lives and of uids.

use std::fmt;

/// The number of a node in the cluster: 0 to 511, so that it fits into the 9 upper bits of a connection's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u16);

/// The number of node ids.
pub const NODES: u16 = 512;

impl NodeId {
    /// Creates an id. Returns `None` if the number is 512 or larger.
    pub const fn new(number: u16) -> Option<Self> {
        if number < NODES { Some(Self(number)) } else { None }
    }

    /// Returns the number: 0 to 511.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns the id in the lower 9 bits of a number; the other bits are ignored.
    pub const fn from_low_bits(number: u64) -> Self {
        Self((number % NODES as u64) as u16)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node, from its start to its end: 64 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The fingerprint of `cluster.secret`: the same secret gives the same fingerprint on each node. Everybody who can
/// read the NATS subjects sees it, so the host must derive it with a one-way function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

/// A uid's 64-bit hash under a key that all nodes derive from `cluster.secret`. Two uids with the same key are twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UidKey(pub u64);

/// The number of something that the node answers later. Never reused within one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);
