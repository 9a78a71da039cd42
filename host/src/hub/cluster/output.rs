//! What a node wants its host to do, and what it tells it.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::frame::Target;
use super::id::{Incarnation, NodeId, Ticket, UidKey};
pub use super::link::outgoing::Answer;

/// Where a frame is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Every node listens here, and gets its own frames back: `hg.all`.
    All,
    /// The commands, answers, probes and confirmations for one incarnation: `hg.n.<incarnation>`.
    Node(Incarnation),
    /// The snapshots that one incarnation asks for or is asked for: `hg.s.<incarnation>`.
    Snapshots(Incarnation),
}

/// One thing for the host to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Publish a frame, or drop it if NATS is not connected: it must never be sent late.
    Publish {
        /// Where to.
        to: Subject,
        /// The frame.
        frame: Bytes,
        /// If set, the reply subject must name this number and the receiver. A 503 that comes back goes to
        /// `Node::no_responders`.
        token: Option<u64>,
        /// If `true`, call `Node::published` once the frame has been handed to NATS. Until then commands gather.
        is_turn: bool,
    },
    /// Apply a command of another node and answer with `Node::answer`. Commands of one node must be applied in their
    /// order.
    Apply(Apply),
    /// The answer to a command of this node.
    Answered {
        /// What `Node::push` or `Node::send_to_all` returned.
        ticket: Ticket,
        /// The node that was asked.
        node: NodeId,
        /// The incarnation that was asked.
        incarnation: Incarnation,
        /// What became of the command there.
        answer: Answer,
    },
    /// Lock and unlock the registry's shards of these uids, or all shards, then pass this to `Node::locks_taken`. In
    /// this order. If several are wanted at once, the shards may be locked once for all.
    Lock(Lock),
    /// A login is announced: the client may have its reply.
    LoginConfirmed {
        /// What `Node::note_login` returned.
        ticket: Ticket,
        /// False if some peer did not confirm in time.
        is_complete: bool,
    },
    /// A departure is announced: the router may be told.
    Departed {
        /// What `Node::note_departure` returned.
        ticket: Ticket,
        /// The number of connections that the uid has left on all nodes.
        remaining: u32,
        /// False if some peer did not confirm in time.
        is_complete: bool,
    },
    /// Something for the log.
    Event(Event),
    /// The node must end: at its start with exit code 78, later by draining.
    Fatal(Fatal),
}

/// A command of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// The node.
    pub from: Incarnation,
    /// The command's number on the link, for the answer.
    pub number: u64,
    /// Who it is for. [`Target::is_here`] decides about a uid, under the shard's lock.
    pub target: Target,
    /// The time of this node's `CLOCK_BOOTTIME` after which nothing may enter an outbox.
    pub deadline: Duration,
    /// The command as the other host encoded it.
    pub body: Bytes,
}

/// Shards to lock once, so that whatever is noted later has later stamps than a peer's batch.
#[derive(Debug)]
pub struct Lock {
    /// The peer.
    pub from: Incarnation,
    /// The batch.
    pub batch: u64,
    /// The uids.
    pub keys: Keys,
}

/// Some uids, or all.
#[derive(Debug)]
pub enum Keys {
    /// These.
    Some(Vec<UidKey>),
    /// All: one shard after the other.
    All,
}

/// Something for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This node knows all others and is known to them: it may open its ports.
    Opened(NodeId),
    /// A node takes part.
    Joined(NodeId, Incarnation),
    /// A node's link is in doubt: commands for it fail at once.
    Suspect(NodeId, Incarnation),
    /// A node's link works.
    Reachable(NodeId, Incarnation),
    /// A node is silent for too long, or started anew: its rows do not count any more.
    Dead(NodeId, Incarnation),
    /// A node left.
    Left(NodeId, Incarnation),
    /// A node closes its connections.
    Draining(NodeId, Incarnation),
    /// A node with another secret is near. Told at most each 10 s.
    ForeignSecret(NodeId),
    /// Frames of another version were dropped. Told at most each 10 s.
    OtherVersion,
    /// A younger node has the id of this one. It has to go.
    SameId(Incarnation),
}

/// Why a node must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fatal {
    /// Another node has the same id and was there first.
    #[error("another gateway has the node id {0}: give each one its own `cluster.node`")]
    SameId(NodeId),
    /// Heard at the start: a cluster with another secret uses the same NATS account.
    #[error("a gateway with another `cluster.secret` uses the same NATS account")]
    ForeignSecret,
    /// All 512 ids are in use.
    #[error("no node id is free")]
    NoFreeId,
}

/// Why a command was not sent. Each is certain: nobody gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The uid has no connection on any node.
    #[error("the uid is offline")]
    Offline,
    /// The uid's node cannot be reached, or it is not certain that this node knows all logins.
    #[error("the uid's node cannot be reached")]
    Unreachable,
    /// Too many commands wait for their answers.
    #[error("too many commands wait for other nodes")]
    Full,
    /// The command is longer than [`MAX_COMMAND`](super::frame::MAX_COMMAND).
    #[error("the command is too long")]
    TooLong,
}

/// Where a push by uid went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The newest login is on this node: the host delivers.
    Here,
    /// The newest login is on another node. The ticket's answer comes later.
    Sent(Ticket),
}

/// The nodes that a command for all was sent to.
#[derive(Debug)]
pub struct Spread {
    /// Each node that was asked answers this ticket once.
    pub ticket: Ticket,
    /// The number of nodes that were asked.
    pub asked: usize,
    /// The others, and why they were not.
    pub refused: Vec<(NodeId, Refusal)>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames with a wrong length or value.
    pub malformed: u64,
    /// Frames of another version.
    pub version: u64,
    /// Frames of an unknown kind.
    pub kind: u64,
    /// Frames with another secret.
    pub secret: u64,
    /// Frames of an incarnation that has ended.
    pub ended: u64,
    /// Frames of an incarnation of which no beat was heard yet, or that there is no room for.
    pub stranger: u64,
    /// Logins and departures that some peer did not confirm in time.
    pub unconfirmed: u64,
    /// Snapshots that this node took of others.
    pub snapshots: u64,
}

/// A live peer, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerStatus {
    /// Its id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// True if its link works.
    pub is_reachable: bool,
    /// True if all its rows are known, as far as this node can tell.
    pub is_synced: bool,
    /// True if it closes its connections.
    pub is_draining: bool,
}
