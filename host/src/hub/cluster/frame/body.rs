//! What frames say.

use std::time::Duration;

use bytes::Bytes;

use super::super::clock::Stamp;
use super::super::id::{Incarnation, UidKey};

/// The sign of life of a node, each second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// 1 for the first beat of an incarnation, then one more each time.
    pub number: u64,
    /// When the incarnation started: of two nodes with the same id, the one with the larger stamp has to go.
    pub started: Stamp,
    /// True if the node knows all rows of its peers. Until then nobody waits for its confirmations.
    pub ready: bool,
    /// True if the node closes its connections.
    pub draining: bool,
    /// The node's `CLOCK_BOOTTIME`, in microseconds.
    pub boot: Duration,
    /// The number of the node's last batch.
    pub batches: u64,
    /// The node's own rows after that batch.
    pub digest: Digest,
    /// The last beat that the node heard of each peer.
    pub heard: Vec<(Incarnation, u64)>,
}

/// A number and a hash that tell whether two sets of rows are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// The number of rows.
    pub rows: u64,
    /// The sum of the hashes of all rows.
    pub hash: u64,
}

/// The connections of one uid on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The newest login.
    pub newest: Stamp,
    /// The number of connections, at least 1.
    pub count: u32,
}

/// The row of one uid on one node, as it is from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The uid.
    pub key: UidKey,
    /// `None` if no connection is left.
    pub row: Option<Row>,
}

/// The end of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The connection's uid.
    pub key: UidKey,
    /// When the connection left the registry.
    pub stamp: Stamp,
}

/// What changed in a node's own rows since the batch before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// 1 for the first batch of an incarnation, then one more each time.
    pub number: u64,
    /// The rows that changed.
    pub changes: Vec<Change>,
    /// The connections that ended.
    pub departures: Vec<Departure>,
}

/// Stands for the shard after the last one.
pub const NO_SHARD: u16 = u16::MAX;

/// A part of a node's own rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Repeats the number of the request.
    pub request: u64,
    /// The last batch before these rows were read. They may hold later changes already.
    pub as_of: u64,
    /// The first shard of which rows are here.
    pub from: u16,
    /// Counts the parts of a shard that takes several.
    pub part: u16,
    /// The shard with which the next part begins: `from` itself if more parts of it follow, [`NO_SHARD`] if no row is
    /// left.
    pub next: u16,
    /// True if nothing follows until the next request.
    pub end: bool,
    /// The rows.
    pub rows: Vec<(UidKey, Row)>,
    /// The latest departures, each with the batch that told it. Only in parts that begin with the first shard.
    pub departures: Vec<(u64, Departure)>,
}

/// The connections that a command is for, as far as the core must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One uid, whose newest login on this node had this stamp when the sender looked.
    Uid(Stamp),
    /// Connections on every live node: a group, everyone, or the connections that a query or close names.
    All,
}

impl Target {
    /// Returns `true` if the node with this newest login of the uid is still the right one. Otherwise it has to answer
    /// `moved`: a newer connection may be elsewhere.
    pub fn is_here(self, newest: Option<Stamp>) -> bool {
        match self {
            Self::Uid(seen) => newest.is_some_and(|newest| newest >= seen),
            Self::All => true,
        }
    }
}

/// One command on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who it is for.
    pub target: Target,
    /// The time of the receiver's `CLOCK_BOOTTIME`, in microseconds, after which nothing of it may be done.
    pub deadline: Duration,
    /// The command itself, as the host encodes it.
    pub body: Bytes,
}

/// A piece of a command that is too long for one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The command's number on the link.
    pub number: u64,
    /// Who the command is for.
    pub target: Target,
    /// As in [`Command`].
    pub deadline: Duration,
    /// The length of the whole command in bytes.
    pub total: u32,
    /// The number of bytes before this piece.
    pub offset: u32,
    /// The piece.
    pub bytes: Bytes,
}

/// What a node answers to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The host's answer.
    Done(Bytes),
    /// The command arrived after its deadline. Nothing of it was done.
    Expired,
}

/// The answers to several commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Commands by their numbers.
    pub replies: Vec<(u64, Reply)>,
    /// First and last number of commands that were overtaken. They will never be done.
    pub skipped: Vec<(u64, u64)>,
}

/// What one frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// To all: a sign of life.
    Beat(Beat),
    /// To all: changed rows.
    Batch(Batch),
    /// To all: the node has ended, and none of its rows is true any more.
    Leave,
    /// Asks for the node's rows, from this shard on.
    SnapshotRequest {
        /// Chosen by the node that asks.
        request: u64,
        /// The first shard.
        from: u16,
    },
    /// Some of the rows.
    SnapshotPart(SnapshotPart),
    /// Commands on the link; the first has this number, each further one a number more.
    Commands {
        /// The number of the first command.
        first: u64,
        /// The commands in their order.
        commands: Vec<Command>,
    },
    /// A piece of a command on the link.
    Segment(Segment),
    /// Answers to commands.
    Answers(Answers),
    /// Whatever the sender still does to the uids in the receiver's batches up to this one is later than these.
    Confirm {
        /// The last batch that is confirmed.
        batch: u64,
        /// The sender's own last batch before that. The confirmation counts once the receiver has it.
        after: u64,
    },
    /// Asks for a [`Body::Pong`].
    Probe {
        /// Repeated in the answer.
        number: u64,
    },
    /// The answer to a probe.
    Pong {
        /// The number of the probe.
        number: u64,
        /// The last beat that the node heard of the peer that asked.
        heard: u64,
        /// The node's own last batch.
        batches: u64,
    },
}

impl Digest {
    /// Replaces one row by another.
    pub fn change(&mut self, key: UidKey, before: Option<Row>, after: Option<Row>) {
        if let Some(before) = before {
            self.rows = self.rows.wrapping_sub(1);
            self.hash = self.hash.wrapping_sub(mixed(key, before));
        }
        if let Some(after) = after {
            self.rows = self.rows.wrapping_add(1);
            self.hash = self.hash.wrapping_add(mixed(key, after));
        }
    }
}

/// Returns a hash of a row: all bits of the result depend on all bits of the row (the finish of SplitMix64).
fn mixed(key: UidKey, row: Row) -> u64 {
    let mut hash = key.0;
    for word in [row.newest.0, row.count.into()] {
        hash = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
    }
    hash
}
