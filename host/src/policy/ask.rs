//! Asks one authenticator about one client.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use tracing::trace;

use super::lower::{attributes, message};
use super::read::Reader;
use crate::base::address::RemoteAddress;
use crate::base::message::{Attribute, CloseReason, ConnectionId, Message};
use crate::base::trace::{TRACE, TraceEvent};
use crate::config::PluginLimits;
use crate::plugin::{CallError, Caller, Generation, LogNames, PluginHandle, authenticator, types};

/// The upgrade request of a connection: all that is known before its first message. `Debug` leaves out the query, which
/// may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The connection.
    pub connection: ConnectionId,
    /// The address of the peer, after the trusted-proxy rules.
    pub remote_address: RemoteAddress,
    /// The path of the upgrade request, without the query.
    pub path: String,
    /// The part after the `?`, if there is a `?`.
    pub query: Option<String>,
    /// The headers that `websocket.pass_headers` lists; names in lower case.
    pub headers: Vec<Attribute>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, remote_address, path, query: _, headers } = self;
        f.debug_tuple("Handshake").field(connection).field(remote_address).field(path).field(headers).finish()
    }
}

/// The identity that an authenticator gives a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Has 1 to `limits.max_name` bytes once the identity is accepted.
    pub uid: ByteString,
    /// Sent to the client as soon as it is registered, before any other message.
    pub reply: Option<Message>,
    /// Passed to the router.
    pub attributes: Vec<Attribute>,
    /// When the session ends unless it is renewed, in seconds since 1970-01-01 UTC.
    pub expires_at: Option<u64>,
}

/// A prompt's state, which is not empty, and the generation that returned it. The state goes back to this generation:
/// another one may not understand it.
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

/// The plugin that has accepted or denied a client.
#[derive(Debug)]
pub struct Decider {
    /// The names of the generation. The generation itself may end before the connection.
    pub(crate) names: Arc<LogNames>,
    /// The time from asking the plugin to its answer. The wait for a free place is part of it.
    pub(crate) took: Duration,
}

/// Calls `greet` of one plugin for a connection that has opened.
pub(super) async fn greet(
    handle: &PluginHandle,
    held: Option<Arc<Generation>>,
    handshake: &Handshake,
) -> Result<CheckedVerdict, CallError> {
    let headers = attributes(&handshake.headers);
    let begun = Instant::now();
    let read = |verdict, by: &_| CheckedVerdict::read(verdict, by, begun, handle.limits(), None);
    let caller = Caller::Stranger(handshake.remote_address.ip());
    let verdict = handle.greet(held, caller, borrow(handshake, &headers), read).await?;
    verdict.log("greet", handshake.connection);
    Ok(verdict)
}

/// Calls `authenticate` of one plugin with a packet.
pub(super) async fn authenticate(
    handle: &PluginHandle,
    held: Option<Held>,
    handshake: &Handshake,
    packet: &Message,
) -> Result<CheckedVerdict, CallError> {
    let headers = attributes(&handshake.headers);
    let begun = Instant::now();
    let read = |verdict, by: &_| CheckedVerdict::read(verdict, by, begun, handle.limits(), Some(packet));
    let (state, held) = held.map_or_else(Default::default, |held| (held.state, Some(held.generation)));
    let caller = Caller::Stranger(handshake.remote_address.ip());
    let handshake_record = borrow(handshake, &headers);
    let verdict = handle.authenticate(held, caller, handshake_record, message(packet), &state, read).await?;
    verdict.log("authenticate", handshake.connection);
    Ok(verdict)
}

/// The verdict of one plugin, checked.
pub(super) enum CheckedVerdict {
    Accept(Identity, Decider),
    Challenge(Option<Message>, Option<Held>),
    Pass,
    Deny(CloseReason, Decider),
}

impl CheckedVerdict {
    /// Logs the verdict, for plugin authors. Packets and uids are left out: they may be credentials.
    fn log(&self, call: &'static str, ConnectionId(connection): ConnectionId) {
        match self {
            Self::Accept(..) => trace!(target: "verdict", connection, "{call}: accept"),
            Self::Challenge(..) => trace!(target: "verdict", connection, "{call}: challenge"),
            Self::Pass => trace!(target: "verdict", connection, "{call}: pass"),
            Self::Deny(CloseReason { code, reason }, _) => {
                trace!(target: "verdict", connection, code, %reason, "{call}: deny");
            }
        }
    }

    /// Records the verdict for operators who follow the client. Not for a candidate's verdict, which has no effect.
    pub(super) fn trace(&self, handle: &PluginHandle, function: &'static str, id: ConnectionId) {
        TRACE.record(id, || {
            let (verdict, reason) = match self {
                Self::Accept(..) => ("accept", None),
                Self::Challenge(..) => ("challenge", None),
                Self::Pass => ("pass", None),
                Self::Deny(reason, _) => ("deny", Some(reason)),
            };
            let (code, reason) = reason.map(|reason| (reason.code, (&*reason.reason).into())).unzip();
            TraceEvent::Verdict { slot: handle.slot().spec().slot.clone(), function, verdict, code, reason }
        });
    }

    fn read(
        verdict: authenticator::Verdict,
        by: &Arc<Generation>,
        begun: Instant,
        limits: &PluginLimits,
        packet: Option<&Message>,
    ) -> Result<Self, CallError> {
        let mut reader = Reader::new(limits, packet);
        let decider = || Decider { names: by.names().clone(), took: begun.elapsed() };
        Ok(match verdict {
            authenticator::Verdict::Accept(identity) => Self::Accept(reader.identity(identity)?, decider()),
            authenticator::Verdict::Challenge(prompt) => {
                Self::Challenge(reader.optional(prompt.message)?, Held::new(reader.state(prompt.state)?, by))
            }
            authenticator::Verdict::Pass => Self::Pass,
            authenticator::Verdict::Deny(reason) => Self::Deny(reader.reason(reason)?, decider()),
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
        remote_address: handshake.remote_address.as_str(),
        path: &handshake.path,
        query: handshake.query.as_deref(),
        headers,
    }
}
