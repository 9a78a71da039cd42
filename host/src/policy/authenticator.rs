//! Who is this? The chain of authenticators, and one connection's progress through it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tracing::trace;

use super::read::Reader;
use super::router::lower;
use super::shadow::Shadow;
use crate::config::PluginLimits;
use crate::message::{Attribute, Cause, CloseReason, ConnectionId, Message};
use crate::plugin::{CallError, Caller, Generation, Seat, authenticator, types};

/// Challenges that may follow packets of one connection.
const MAX_ROUNDS: u32 = 8;

/// The close code for a client that no authenticator accepts.
const NOT_ACCEPTED: u16 = 4902;

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

/// What the chain decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Register the client.
    Accept(Identity),
    /// Send this, if anything, and hand the next packet to [`Authenticator::authenticate`].
    Prompt(Option<Message>),
    /// Close with this reason: a plugin's, or 4902, which is no plugin's.
    Deny(Cause, CloseReason),
    /// A plugin failed; close with 1013. Logged already.
    Failed,
}

impl Decision {
    fn deny(reason: &'static str) -> Self {
        Self::Deny(Cause::Unauthenticated, CloseReason::new(NOT_ACCEPTED, reason))
    }

    fn accept(identity: Identity, limits: &PluginLimits) -> Self {
        let (bytes, most) = (identity.uid.len(), limits.max_name);
        if bytes == 0 || bytes > most {
            let reason = format!("the uid has {bytes} bytes, allowed are 1 to {most}").into();
            return Self::Deny(Cause::Unauthenticated, CloseReason { code: NOT_ACCEPTED, reason });
        }
        Self::Accept(identity)
    }
}

/// One connection's progress through the chain.
#[derive(Debug, Default)]
pub struct Login {
    /// What each plugin keeps, by its place in the chain.
    held: Vec<Option<Held>>,
    /// The place of the plugin that has challenged after a packet: the others are not asked any more.
    bound: Option<usize>,
    /// Challenges after packets so far.
    rounds: u32,
}

/// A prompt's state that is not empty, and the generation that gave it: only that one is sure to understand it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) state: Bytes,
    pub(super) generation: Arc<Generation>,
}

/// The chain. Each call is decided by the generation of a plugin that is newest when it begins, but for states that are held; dropping a call
/// ends it.
#[derive(Debug)]
pub struct Authenticator {
    chain: Vec<(Seat, Shadow)>,
}

impl Authenticator {
    pub(super) fn new(chain: Vec<(Seat, Shadow)>) -> Self {
        Self { chain }
    }

    /// A connection has opened: all are greeted in order until one accepts or denies. The first message of a challenge is
    /// the greeting.
    pub async fn greet(&self, handshake: &Handshake) -> (Login, Decision) {
        let mut login = Login { held: self.chain.iter().map(|_| None).collect(), ..Login::default() };
        let mut greeting = None;
        for ((seat, shadow), held) in self.chain.iter().zip(&mut login.held) {
            let outcome = greet(seat, None, handshake).await;
            if !matches!(outcome, Ok(Verdict::Pass | Verdict::Challenge(..))) {
                shadow.sample(seat, handshake, None, &outcome);
            }
            let decision = match outcome {
                Ok(Verdict::Pass) => continue,
                Ok(Verdict::Challenge(message, state)) => {
                    greeting = greeting.or(message);
                    *held = state;
                    continue;
                }
                Ok(Verdict::Accept(identity)) => Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => Decision::Failed,
            };
            return (login, decision);
        }
        (login, Decision::Prompt(greeting))
    }

    /// A connection that is not authenticated has sent a packet: it goes down the chain until one does not pass, or to the
    /// plugin that has challenged.
    pub async fn authenticate(&self, login: &mut Login, handshake: &Handshake, packet: &Message) -> Decision {
        let bound = login.bound;
        let first = login.rounds == 0;
        for (index, (seat, shadow)) in self.chain.iter().enumerate() {
            if bound.is_some_and(|bound| bound != index) {
                continue;
            }
            let held = login.held.get_mut(index).and_then(Option::take);
            let outcome = authenticate(seat, held, handshake, packet).await;
            if first {
                shadow.sample(seat, handshake, Some(packet), &outcome);
            }
            match outcome {
                Ok(Verdict::Pass) => {}
                Ok(Verdict::Challenge(message, state)) => {
                    if login.rounds == MAX_ROUNDS {
                        return Decision::deny("too many rounds of authentication");
                    }
                    login.rounds += 1;
                    login.bound = Some(index);
                    // What the others hold would keep their generations.
                    login.held.iter_mut().for_each(|held| *held = None);
                    if let Some(held) = login.held.get_mut(index) {
                        *held = state;
                    }
                    return Decision::Prompt(message);
                }
                Ok(Verdict::Accept(identity)) => return Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => return Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }

    /// A router hands over a packet to renew a session: it goes down the whole chain, as a first packet does that no
    /// greeting preceded. A challenge is a denial.
    pub async fn renew(&self, handshake: &Handshake, packet: &Message) -> Decision {
        for (seat, _) in &self.chain {
            match authenticate(seat, None, handshake, packet).await {
                Ok(Verdict::Pass) => {}
                Ok(Verdict::Challenge(..)) => return Decision::deny("a session is renewed by one packet"),
                Ok(Verdict::Accept(identity)) => return Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => return Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }
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
    let verdict = seat.authenticate(held, caller, borrow(handshake, &headers), lower(packet), &state, read).await?;
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

/// Attributes as arguments, borrowed.
pub(super) fn attributes(attributes: &[Attribute]) -> Vec<types::AttributeParam<'_>> {
    attributes.iter().map(|Attribute { name, value }| types::AttributeParam { name, value }).collect()
}
