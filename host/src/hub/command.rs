//! What a router is told and what it can have done; the plain twins of the records in `wit/router.wit`.

use bytes::Bytes;
use bytestring::ByteString;

use crate::base::message::{Attribute, Cause, ClientKey, CloseReason, ConnectionId, Message};

/// An authenticated connection, as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The connection.
    pub connection: ConnectionId,
    /// Who the client is.
    pub uid: ByteString,
    /// The client's uid and address, by which failures are counted. Routers are not told.
    pub client: ClientKey,
    /// As the authenticator set them.
    pub attributes: Vec<Attribute>,
    /// What the router last remembered for this connection, at most `limits.max_state` bytes; empty at first.
    pub state: Bytes,
}

/// An internal sender's connection to the text port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The connection.
    pub connection: ConnectionId,
    /// `ip:port` of the peer.
    pub remote_address: String,
}

/// Whom something is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// The connections of a uid, as the duplicate-login policy has it. Any string: one that is no uid reaches nobody.
    Uid(ByteString),
    /// One connection.
    Connection(ConnectionId),
    /// Every member of a group.
    Group(ByteString),
    /// Every member of a group but the session's own connection.
    GroupOthers(ByteString),
    /// Every authenticated connection.
    Everyone,
}

/// A message and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Whom it is for.
    pub to: Recipient,
    /// What they get.
    pub message: Message,
    /// What the session's own connection gets if that reached nobody.
    pub otherwise: Option<Message>,
}

/// Connections and a group that they enter or leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The connections.
    pub who: Recipient,
    /// The group: 1 to `limits.max_name` bytes.
    pub group: ByteString,
}

/// Connections that are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The connections.
    pub who: Recipient,
    /// What their close frames say.
    pub reason: CloseReason,
}

/// What a router can have done on any occasion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a message.
    Deliver(Delivery),
    /// Enter a group.
    Join(Membership),
    /// Leave a group.
    Leave(Membership),
    /// Close connections.
    Close(Closing),
}

impl Command {
    /// What the contract calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deliver(_) => "deliver",
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::Close(_) => "close",
        }
    }
}

/// What it can have done with a session at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// As on any occasion.
    Command(Command),
    /// Send to the session's own connection.
    Reply(Message),
    /// Keep this as the session's state; at most `limits.max_state` bytes.
    Remember(Bytes),
    /// Hand the packet to [`Authenticator::renew`](super::Authenticator::renew).
    Authenticate,
}

impl Action {
    /// What the contract calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(command) => command.name(),
            Self::Reply(_) => "reply",
            Self::Remember(_) => "remember",
            Self::Authenticate => "authenticate",
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Who or what ended it.
    pub cause: Cause,
    /// The code of the close frame, where there was one.
    pub code: Option<u16>,
    /// The groups that the connection was in.
    pub groups: Vec<ByteString>,
    /// How many connections of the same uid are left.
    pub remaining: u32,
}

/// What comes of a line of the text port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What is to be done.
    pub commands: Vec<Command>,
    /// What the sender is told instead of `ok` or `fail`: one line, without its end.
    pub reply: Option<ByteString>,
}
