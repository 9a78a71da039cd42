//! The session of an authenticated client: routes the client's packets one after the other until the connection ends.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::context::Context;
use super::end::{End, failure, try_again};
use super::meter::RateLimits;
use super::report::Known;
use super::socket::Socket;
use crate::base::message::{Cause, ClientKey, CloseReason, ConnectionId, Message};
use crate::base::metrics::METRICS;
use crate::base::trace::{Payload, TRACE, TraceEvent};
use crate::config::RouteFailure;
use crate::edge::heartbeat::Link;
use crate::edge::listener::Stream;
use crate::hub::command::{self, Action, Ending};
use crate::hub::delivery;
use crate::hub::outbox::{Close, Outbox, Refused};
use crate::hub::registry::{Peer, RegisterError, Registration, Registry, Removed};
use crate::plugin::LogNames;
use crate::policy::{Decision, Handshake, Identity};

/// The longest sleep before reading the wall clock again: somebody may have set it.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The session of one connection.
pub(super) struct Session {
    peer: Registered,
    handshake: Box<Handshake>,
    /// The session as the router sees it.
    routed: command::Session,
    expiry: Option<Expiry>,
    /// The generation that accepted the login.
    pub(super) accepted_by: Option<Arc<LogNames>>,
}

impl Session {
    /// Queues the authenticator's reply, registers the client, and tells the router. The reply is the first message
    /// that the client gets. A client that has read the reply can be reached by others. Returns the router's actions,
    /// for [`apply`](Self::apply).
    ///
    /// # Errors
    /// Why the connection ends, and a session to close if there is one already.
    pub(super) async fn open(
        context: &Context,
        link: &Arc<Link>,
        handshake: Box<Handshake>,
        identity: Identity,
    ) -> Result<(Self, Vec<Action>), (End, Option<Self>)> {
        let Identity { uid, reply, attributes, expires_at } = identity;
        let expiry = expiry(expires_at).map_err(|end| (end, None))?;
        // The reply is first in the queue. Nothing is sent from the queue until the session is open.
        if let Some(reply) = reply {
            queue(context, link.id, &link.outbox, reply).await.map_err(|end| (end, None))?;
        }
        let address = handshake.remote_address.socket();
        let registered = context.registry.register(link.id, uid.clone(), link.outbox.clone(), address);
        // Afterwards: whoever begins to watch at this moment finds it in the registry.
        TRACE.identified(link.id, &uid);
        let Registration { peer, announced } = registered.map_err(|error| {
            link.outbox.clear();
            let (cause, code) = match error {
                RegisterError::Occupied => (Cause::Replaced, 4904),
                RegisterError::Blocked => (Cause::Operator, 4908),
            };
            (End::new(cause, code, error.to_string()), None)
        })?;
        TRACE.record(link.id, || TraceEvent::Login);
        let peer = Registered { registry: context.registry.clone(), peer };
        let client = ClientKey::new(address.ip(), &uid);
        let routed = command::Session { connection: link.id, uid, client, attributes, state: Default::default() };
        let session = Self { peer, handshake, routed, expiry, accepted_by: None };
        let opened = async {
            if let Some(announced) = announced {
                // Before the reply: whoever has read it can be reached from every gateway. It ends in time, since the
                // cluster gives up waiting for a gateway that is slow.
                _ = announced.await;
            }
            context.policy.router.opened(&session.routed).await
        };
        let opened = link.unless_closing(pin!(opened)).await;
        match opened {
            Ok(Ok(actions)) => Ok((session, actions)),
            failed => {
                let closing = failed.err().unwrap_or_else(failure);
                // Close before clearing: a message pushed after the clearing would reach a client that got no reply.
                link.outbox.close(closing.reason.clone(), closing.cause);
                link.outbox.clear();
                Err((End::Closing(closing), Some(session)))
            }
        }
    }

    /// Returns the uid.
    pub(super) fn uid(&self) -> &str {
        &self.routed.uid
    }

    /// Returns the client's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.handshake.remote_address.socket()
    }

    /// Returns what the log may say of the session when it has ended.
    pub(super) fn known(&self) -> Known {
        (self.routed.uid.clone(), self.accepted_by.clone())
    }

    /// Routes packets until the connection ends.
    pub(super) async fn run(&mut self, context: &Context, socket: &mut Socket<impl Stream>) -> End {
        loop {
            let packet = tokio::select! {
                biased;
                () = expired(&mut self.expiry) => return Expiry::END,
                received = socket.receive() => match received {
                    Ok(packet) => packet,
                    Err(end) => return end,
                }
            };
            METRICS.messages_received.increment();
            METRICS.received_bytes.add(packet.len() as u64);
            TRACE.record(self.routed.connection, || TraceEvent::Packet(Payload::of(&packet)));
            // They may have changed since the last packet.
            socket.limit(RateLimits::of(&context.live));
            if let Err(end) = self.route(context, socket, &packet).await {
                return end;
            }
            // A client that never stops sending must not keep its thread from others.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Deregisters the client. The router is not notified yet.
    pub(super) fn close(self, end: &End) -> ClosedSession {
        let removed = self.peer.leave(end.cause());
        let Removed { groups, remaining, remaining_anywhere } = removed;
        let ending = Ending { cause: end.cause(), code: end.code(), groups, remaining };
        ClosedSession { routed: self.routed, ending, remaining_anywhere }
    }

    async fn route(
        &mut self,
        context: &Context,
        socket: &mut Socket<impl Stream>,
        packet: &Message,
    ) -> Result<(), End> {
        let Ok(actions) = socket.sending(pin!(context.policy.router.route(&self.routed, packet))).await? else {
            METRICS.packets_failed.increment();
            return match context.live.load().router.route_failure {
                RouteFailure::Drop => Ok(()),
                RouteFailure::Close => Err(try_again()),
            };
        };
        if self.apply(context, socket, actions).await? {
            Box::pin(self.renew(context, socket, packet)).await?;
        }
        Ok(())
    }

    /// Applies the router's actions, and serves the client meanwhile. Returns `true` if the packet must go to the
    /// authenticators.
    pub(super) async fn apply(
        &mut self,
        context: &Context,
        socket: &mut Socket<impl Stream>,
        actions: Vec<Action>,
    ) -> Result<bool, End> {
        let effects = match delivery::apply_at_once(&context.registry, &self.peer.peer, actions) {
            Ok(effects) => effects,
            Err(mut rest) => match socket.sending(rest.as_mut()).await {
                Ok(effects) => effects,
                // What the client said before it left takes effect.
                Err(end) => {
                    rest.await;
                    return Err(end);
                }
            },
        };
        if let Some(state) = effects.remember {
            self.routed.state = state;
        }
        Ok(effects.authenticate)
    }

    /// Asks the authenticators about a packet of an open session. The same uid renews the session; any other decision
    /// ends it.
    async fn renew(
        &mut self,
        context: &Context,
        socket: &mut Socket<impl Stream>,
        packet: &Message,
    ) -> Result<(), End> {
        match socket.sending(pin!(context.policy.authenticator.renew(&self.handshake, packet))).await? {
            Decision::Accept(identity) if identity.uid == self.routed.uid => {
                self.expiry = expiry(identity.expires_at)?;
                self.routed.attributes = identity.attributes;
                match identity.reply {
                    Some(reply) => queue(context, self.peer.peer.id, &self.peer.peer.outbox, reply).await,
                    None => Ok(()),
                }
            }
            Decision::Accept(_) => Err(End::new(Cause::Unauthenticated, 4902, "a session's uid cannot change")),
            Decision::Deny(cause, reason) => Err(End::Closing(Close { reason, cause })),
            Decision::Prompt(_) => Err(End::new(Cause::Unauthenticated, 4902, "no authenticator accepted")),
            Decision::Failed => Err(try_again()),
        }
    }
}

/// A session that has ended. The router must still be notified.
pub(super) struct ClosedSession {
    routed: command::Session,
    ending: Ending,
    remaining_anywhere: Option<oneshot::Receiver<u32>>,
}

impl ClosedSession {
    /// Tells the router that the session has ended, and applies the commands that the router returns.
    pub(super) async fn notify_router(mut self, context: &Context) {
        if let Some(remaining) = self.remaining_anywhere {
            self.ending.remaining = remaining.await.unwrap_or(self.ending.remaining);
        }
        if let Ok(commands) = context.policy.router.closed(&self.routed, self.ending).await {
            _ = delivery::apply_commands(&context.registry, commands, |_, _| ()).await;
        }
    }
}

/// A registered connection. Dropping it deregisters the connection, also if the connection's task is cut off or panics.
struct Registered {
    registry: Arc<Registry>,
    peer: Arc<Peer>,
}

impl Registered {
    fn leave(&self, cause: Cause) -> Removed {
        // No effect if the connection is closing already. Queued messages are still sent.
        self.peer.outbox.close(CloseReason::new(1001, ""), cause);
        self.registry.deregister(&self.peer, cause)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.leave(Cause::Lost);
    }
}

/// Queues a message of the login. If there is no memory for it, the connection ends, so that the client tries again
/// instead of waiting. Any other refusal means that the connection is closing; its task notices that by itself.
pub(super) async fn queue(context: &Context, id: ConnectionId, outbox: &Outbox, message: Message) -> Result<(), End> {
    let described = TRACE.follows(id).then(|| Payload::of(&message));
    let queued = delivery::queue(&context.registry, outbox, message).await;
    if let Some(payload) = described {
        TRACE.record(id, || TraceEvent::Message { result: delivery::result(&queued), payload });
    }
    match queued {
        Err(Refused::OverBudget(_)) => Err(try_again()),
        Ok(()) | Err(Refused::Closed | Refused::Full) => Ok(()),
    }
}

/// The time when a session ends unless it is renewed. Most sessions have none, so the timer is boxed.
struct Expiry {
    at: SystemTime,
    timer: Pin<Box<Sleep>>,
}

impl Expiry {
    const END: End = End::Closing(Close { reason: CloseReason::new(4906, "session expired"), cause: Cause::Expired });

    fn left(at: SystemTime) -> Option<Duration> {
        at.duration_since(wall_clock()).ok().filter(|left| !left.is_zero()).map(|left| left.min(LONGEST_SLEEP))
    }
}

fn expiry(expires_at: Option<u64>) -> Result<Option<Expiry>, End> {
    let Some(at) = expires_at.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    else {
        return Ok(None);
    };
    let left = Expiry::left(at).ok_or(Expiry::END)?;
    Ok(Some(Expiry { at, timer: Box::pin(sleep(left)) }))
}

async fn expired(expiry: &mut Option<Expiry>) {
    let Some(expiry) = expiry else { return std::future::pending().await };
    while let Some(left) = {
        expiry.timer.as_mut().await;
        Expiry::left(expiry.at)
    } {
        expiry.timer = Box::pin(sleep(left));
    }
}

/// Returns the time of the wall clock. In tests, it goes on with the runtime's clock.
#[cfg(not(test))]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
use self::tests::wall_clock;

#[cfg(test)]
mod tests;
