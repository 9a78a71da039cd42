//! Asks one authenticator about one client.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tracing::trace;

use super::lower::{attributes, message};
use super::read::Reader;
use crate::base::message::{Attribute, CloseReason, ConnectionId, Message};
use crate::config::PluginLimits;
use crate::plugin::{CallError, Caller, Generation, Seat, authenticator, types};

/// What is known of a connection before it has sent a message. Its `Debug` leaves out the query, which may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The connection.
    pub connection: ConnectionId,
    /// `ip:port` of the peer, after the trusted-proxy rules.
    pub remote_address: String,
    /// The path of the upgrade request, without the query.
    pub path: String,
    /// What follows the `?`, if there is one.
    pub query: Option<String>,
    /// Those headers that the configuration lets through; names in lower case.
    pub headers: Vec<Attribute>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, remote_address, path, query: _, headers } = self;
        f.debug_tuple("Handshake").field(connection).field(remote_address).field(path).field(headers).finish()
    }
}

/// Who a client turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Never empty, and at most `limits.max_name` bytes, once it is accepted.
    pub uid: ByteString,
    /// Sent to the client as soon as it is registered; nothing reaches it before.
    pub reply: Option<Message>,
    /// For the router.
    pub attributes: Vec<Attribute>,
    /// When the session ends unless it is renewed, in seconds since 1970-01-01 UTC.
    pub expires_at: Option<u64>,
}

/// A prompt's state that is not empty, and the generation that gave it: only that one is sure to understand it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) state: Bytes,
    pub(super) generation: Arc<Generation>,
}

impl Held {
    fn new(state: Bytes, by: &Arc<Generation>) -> Option<Self> {
        (!state.is_empty()).then(|| Self { state, generation: by.clone() })
    }
}

/// Asks one plugin about a connection that has opened.
pub(super) async fn greet(
    seat: &Seat,
    held: Option<Arc<Generation>>,
    handshake: &Handshake,
) -> Result<Verdict, CallError> {
    let headers = attributes(&handshake.headers);
    let read = |verdict, by: &_| Verdict::read(verdict, by, seat.limits(), None);
    let verdict =
        seat.greet(held, Caller::Stranger(&handshake.remote_address), borrow(handshake, &headers), read).await?;
    verdict.tell("greet", handshake.connection);
    Ok(verdict)
}

/// Asks one plugin about a packet.
pub(super) async fn authenticate(
    seat: &Seat,
    held: Option<Held>,
    handshake: &Handshake,
    packet: &Message,
) -> Result<Verdict, CallError> {
    let headers = attributes(&handshake.headers);
    let read = |verdict, by: &_| Verdict::read(verdict, by, seat.limits(), Some(packet));
    let (state, held) = held.map_or_else(Default::default, |held| (held.state, Some(held.generation)));
    let caller = Caller::Stranger(&handshake.remote_address);
    let verdict = seat.authenticate(held, caller, borrow(handshake, &headers), message(packet), &state, read).await?;
    verdict.tell("authenticate", handshake.connection);
    Ok(verdict)
}

/// What one plugin says.
pub(super) enum Verdict {
    Accept(Identity),
    Challenge(Option<Message>, Option<Held>),
    Pass,
    Deny(CloseReason),
}

impl Verdict {
    /// For whoever develops a plugin. Nothing that clients say is shown, not even who they are: it may be a credential.
    fn tell(&self, call: &'static str, ConnectionId(connection): ConnectionId) {
        match self {
            Self::Accept(_) => trace!(target: "verdict", connection, "{call}: accept"),
            Self::Challenge(..) => trace!(target: "verdict", connection, "{call}: challenge"),
            Self::Pass => trace!(target: "verdict", connection, "{call}: pass"),
            Self::Deny(CloseReason { code, reason }) => {
                trace!(target: "verdict", connection, code, %reason, "{call}: deny");
            }
        }
    }

    fn read(
        verdict: authenticator::Verdict,
        by: &Arc<Generation>,
        limits: &PluginLimits,
        packet: Option<&Message>,
    ) -> Result<Self, CallError> {
        let mut reader = Reader::new(limits, packet);
        Ok(match verdict {
            authenticator::Verdict::Accept(identity) => Self::Accept(reader.identity(identity)?),
            authenticator::Verdict::Challenge(prompt) => {
                Self::Challenge(reader.optional(prompt.message)?, Held::new(reader.state(prompt.state)?, by))
            }
            authenticator::Verdict::Pass => Self::Pass,
            authenticator::Verdict::Deny(reason) => Self::Deny(reader.reason(reason)?),
        })
    }
}

impl Reader<'_> {
    fn identity(&mut self, identity: authenticator::Identity) -> Result<Identity, CallError> {
        let bytes: usize =
            identity.attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len()).sum();
        self.count_attributes(identity.attributes.len(), bytes)?;
        let mut attributes = Vec::with_capacity(identity.attributes.len());
        for attribute in identity.attributes {
            attributes.push(Attribute { name: self.string(attribute.name)?, value: self.string(attribute.value)? });
        }
        Ok(Identity {
            uid: self.text(identity.uid)?,
            reply: self.optional(identity.reply)?,
            attributes,
            expires_at: identity.expires_at,
        })
    }
}

fn borrow<'a>(handshake: &'a Handshake, headers: &'a [types::AttributeParam<'a>]) -> authenticator::Handshake<'a> {
    authenticator::Handshake {
        connection: handshake.connection.0,
        remote_address: &handshake.remote_address,
        path: &handshake.path,
        query: handshake.query.as_deref(),
        headers,
    }
}
