//! The records that a router gets, and the commands and actions that it returns: the same as in `wit/router.wit`, as
//! plain Rust types.

use std::ops::AddAssign;

use bytes::Bytes;
use bytestring::ByteString;

use super::cluster::id::NodeId;
use crate::base::message::{Attribute, Cause, ClientKey, CloseReason, ConnectionId, Message};

/// An authenticated connection, as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The connection.
    pub connection: ConnectionId,
    /// Who the client is.
    pub uid: ByteString,
    /// The client's uid and address as one key, by which failures are counted. Not passed to routers.
    pub client: ClientKey,
    /// The attributes that the authenticator set.
    pub attributes: Vec<Attribute>,
    /// The state that the router last remembered for this connection: at most `limits.max_state` bytes, empty at first.
    pub state: Bytes,
}

/// An internal sender's connection to the text port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The connection.
    pub connection: ConnectionId,
    /// `ip:port` of the sender.
    pub remote_address: String,
}

/// An internal system that publishes a message by the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its HTTP connection.
    pub connection: ConnectionId,
    /// The name of its token.
    pub token: ByteString,
    /// `ip:port` of the publisher.
    pub remote_address: String,
}

/// The connections that a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// The connections of a uid that `sessions.duplicate_login` selects. A string that is no uid reaches no connection.
    Uid(ByteString),
    /// One connection.
    Connection(ConnectionId),
    /// Every connection in a group.
    Group(ByteString),
    /// Every connection in a group except the session's own.
    GroupOthers(ByteString),
    /// Every authenticated connection.
    Everyone,
}

/// A message and its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The recipients.
    pub to: Recipient,
    /// The message that they get.
    pub message: Message,
    /// The message that the session's own connection gets if `message` reached no connection.
    pub otherwise: Option<Message>,
}

/// Connections, and a group that they join or leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The connections.
    pub who: Recipient,
    /// The group: 1 to `limits.max_name` bytes.
    pub group: ByteString,
}

/// Connections to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The connections.
    pub who: Recipient,
    /// Code and reason for their close frames.
    pub reason: CloseReason,
}

/// A command that a router can give on any occasion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a message.
    Deliver(Delivery),
    /// Join a group.
    Join(Membership),
    /// Leave a group.
    Leave(Membership),
    /// Close connections.
    Close(Closing),
}

impl Command {
    /// Returns the connections that the command is for.
    pub fn recipient(&self) -> &Recipient {
        match self {
            Self::Deliver(delivery) => &delivery.to,
            Self::Join(membership) | Self::Leave(membership) => &membership.who,
            Self::Close(closing) => &closing.who,
        }
    }

    /// Returns the command's name in `wit/router.wit`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deliver(_) => "deliver",
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::Close(_) => "close",
        }
    }
}

/// An action that a router can take on behalf of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A command, as on any occasion.
    Command(Command),
    /// Send a message to the session's own connection.
    Reply(Message),
    /// Keep these bytes as the session's state: at most `limits.max_state` bytes.
    Remember(Bytes),
    /// Pass the packet to the authenticators, which renew the session's identity or refuse it.
    Authenticate,
}

impl Action {
    /// Returns the action's name in `wit/router.wit`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(command) => command.name(),
            Self::Reply(_) => "reply",
            Self::Remember(_) => "remember",
            Self::Authenticate => "authenticate",
        }
    }
}

/// What became of a message: the number of its connections, by what happened there. A delivery with no connection at
/// all has three zeros: its recipient is offline, unless `elsewhere` says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The message is in the connection's outbox.
    pub reached: usize,
    /// The connection's outbox was full. The connection is closed as a slow consumer.
    pub full: usize,
    /// All outboxes together had no room for the message.
    pub over_budget: usize,
    /// Why other gateways may not have got the message; the worst, if there are several.
    pub elsewhere: Option<Elsewhere>,
    /// These gateways.
    pub missing: Vec<NodeId>,
}

impl Outcome {
    /// Nobody was there.
    pub const OFFLINE: Self = Self { reached: 0, full: 0, over_budget: 0, elsewhere: None, missing: Vec::new() };

    /// Nobody was reached, for this reason.
    pub const fn failed(why: Elsewhere) -> Self {
        Self { reached: 0, full: 0, over_budget: 0, elsewhere: Some(why), missing: Vec::new() }
    }

    /// The time was over before more was done.
    pub fn late(mut self) -> Self {
        self += Self::failed(Elsewhere::Expired);
        self
    }

    /// Nothing was done by this gateway, for this reason.
    pub fn failed_by(node: NodeId, why: Elsewhere) -> Self {
        Self { elsewhere: Some(why), missing: vec![node], ..Self::OFFLINE }
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.reached += other.reached;
        self.full += other.full;
        self.over_budget += other.over_budget;
        self.elsewhere = self.elsewhere.max(other.elsewhere);
        self.missing.extend(other.missing);
    }
}

/// Why a message did not get to another gateway, or may not have. All but `Unknown` are certain: the message is in
/// nobody's outbox there, nor will be; of several connections, in no others than those that were reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Elsewhere {
    /// The uid's newest connection has ended meanwhile. A newer one may be on another gateway.
    Moved,
    /// The message arrived too late.
    Expired,
    /// The gateway cannot be reached.
    Unreachable,
    /// Too many messages wait for other gateways.
    Overload,
    /// The gateway did not answer in time.
    Unknown,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What ended the session.
    pub cause: Cause,
    /// The code of the close frame, if there was a close frame.
    pub code: Option<u16>,
    /// The groups that the connection was in.
    pub groups: Vec<ByteString>,
    /// The number of connections that the same uid has left.
    pub remaining: u32,
}

/// The router's answer to a line of the text port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The commands to apply.
    pub commands: Vec<Command>,
    /// The reply that the sender gets instead of `ok` or `fail`: one line, without its line end.
    pub reply: Option<ByteString>,
}

/// The router's decision about a message that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Send the message to the recipients.
    Pass,
    /// Apply these commands instead, and do not send the message.
    Instead(Vec<Command>),
    /// Send nothing. The publisher is shown this text: one line without control characters.
    Refuse(String),
}
