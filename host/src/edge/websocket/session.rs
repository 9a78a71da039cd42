//! An authenticated connection: its packets are routed one after the other until it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Sleep, sleep};
use tracing::debug;

use super::context::Context;
use super::end::End;
use super::end::{failure, try_again};
use super::socket::Socket;
use crate::base::message::{Cause, ClientKey, CloseReason, Message};
use crate::base::metrics::METRICS;
use crate::config::RouteFailure;
use crate::edge::heartbeat::Link;
use crate::hub::command::{self, Ending};
use crate::hub::delivery;
use crate::hub::outbox::{Closing, Outbox, Refused};
use crate::hub::registry::{Peer, Registry, Removed};
use crate::policy::{Decision, Handshake, Identity};

/// How long to sleep at most before looking at the clock again: it may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// One session.
pub(super) struct Session {
    peer: Registered,
    handshake: Box<Handshake>,
    /// What the router knows of it.
    routed: command::Session,
    expiry: Option<Expiry>,
}

impl Session {
    /// Registers the client, has the router greet it and queues its reply: nothing reaches the client before that, and
    /// whoever has read it can be reached. After a failure there may be a session to close.
    pub(super) async fn open(
        context: &Context,
        link: &Arc<Link>,
        handshake: Box<Handshake>,
        identity: Identity,
    ) -> Result<Self, (End, Option<Self>)> {
        let Identity { uid, reply, attributes, expires_at } = identity;
        let expiry = expiry(expires_at).map_err(|end| (end, None))?;
        // First in the queue, which nobody drains until the session is open.
        if let Some(reply) = reply {
            queue(context, &link.outbox, reply).await.map_err(|end| (end, None))?;
        }
        // Written from one.
        let address: SocketAddr =
            handshake.remote_address.parse().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
        let registered = context.registry.register(link.id, uid.clone(), link.outbox.clone(), address);
        let peer = registered.map_err(|occupied| {
            link.outbox.clear();
            (End::new(Cause::Replaced, 4904, occupied.to_string()), None)
        })?;
        let peer = Registered { registry: context.registry.clone(), peer };
        let client = ClientKey::new(address.ip(), &uid);
        let routed = command::Session { connection: link.id, uid, client, attributes, state: Default::default() };
        let mut session = Self { peer, handshake, routed, expiry };
        let opened = link.unless_closing(pin!(context.policy.router.opened(&session.routed))).await;
        match opened {
            Ok(Ok(actions)) => {
                let effects = delivery::apply(&context.registry, &session.peer.peer, actions).await;
                session.routed.state = effects.remember.unwrap_or_default();
                debug!(connection = link.id.0, "authenticated");
                Ok(session)
            }
            failed => {
                let closing = failed.err().unwrap_or_else(failure);
                // Closed first: what is pushed after it was emptied would reach a client that has had no reply.
                link.outbox.close(closing.reason.clone(), closing.cause);
                link.outbox.clear();
                Err((End::Closing(closing), Some(session)))
            }
        }
    }

    /// Routes packets until the connection ends.
    pub(super) async fn run(&mut self, context: &Context, socket: &mut Socket) -> End {
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
            if let Err(end) = self.route(context, socket, &packet).await {
                return end;
            }
            // A client that never stops sending must not keep its thread from the others.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Deregisters the client.
    pub(super) fn close(self, end: &End) -> Closed {
        let removed = self.peer.leave(end.cause());
        let ending =
            Ending { cause: end.cause(), code: end.code(), groups: removed.groups, remaining: removed.remaining };
        Closed { routed: self.routed, ending }
    }

    async fn route(&mut self, context: &Context, socket: &mut Socket, packet: &Message) -> Result<(), End> {
        let Ok(actions) = socket.sending(pin!(context.policy.router.route(&self.routed, packet))).await? else {
            METRICS.packets_failed.increment();
            return match context.route_failure {
                RouteFailure::Drop => Ok(()),
                RouteFailure::Close => Err(try_again()),
            };
        };
        let effects = delivery::apply(&context.registry, &self.peer.peer, actions).await;
        if let Some(state) = effects.remember {
            self.routed.state = state;
        }
        if effects.authenticate {
            Box::pin(self.renew(context, socket, packet)).await?;
        }
        Ok(())
    }

    /// Has the authenticators judge a packet of an open session: the same uid renews it, anything else ends it.
    async fn renew(&mut self, context: &Context, socket: &mut Socket, packet: &Message) -> Result<(), End> {
        match socket.sending(pin!(context.policy.authenticator.renew(&self.handshake, packet))).await? {
            Decision::Accept(identity) if identity.uid == self.routed.uid => {
                self.expiry = expiry(identity.expires_at)?;
                self.routed.attributes = identity.attributes;
                match identity.reply {
                    Some(reply) => queue(context, &self.peer.peer.outbox, reply).await,
                    None => Ok(()),
                }
            }
            Decision::Accept(_) => Err(End::new(Cause::Unauthenticated, 4902, "a session's uid cannot change")),
            Decision::Deny(cause, reason) => Err(End::Closing(Closing { reason, cause })),
            Decision::Prompt(_) => Err(End::new(Cause::Unauthenticated, 4902, "no authenticator accepted")),
            Decision::Failed => Err(try_again()),
        }
    }
}

/// A session that has ended, of which the router has not been told yet.
pub(super) struct Closed {
    routed: command::Session,
    ending: Ending,
}

impl Closed {
    /// Tells the router, and carries out what it wants done.
    pub(super) async fn tell(self, context: &Context) {
        if let Ok(commands) = context.policy.router.closed(&self.routed, self.ending).await {
            delivery::apply_commands(&context.registry, commands).await;
        }
    }
}

/// A place in the registry. Given up when dropped: also when the connection's task is cut off, or panics.
struct Registered {
    registry: Arc<Registry>,
    peer: Arc<Peer>,
}

impl Registered {
    fn leave(&self, cause: Cause) -> Removed {
        // Has no effect when it is closing already; what is queued is still sent.
        self.peer.outbox.close(CloseReason::new(1001, ""), cause);
        self.registry.deregister(&self.peer)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.leave(Cause::Lost);
    }
}

/// Queues what the login owes the client. When there is no memory for that, the client had better try again than wait;
/// any other refusal means that the connection is closing, which its task finds out by itself.
pub(super) async fn queue(context: &Context, outbox: &Outbox, message: Message) -> Result<(), End> {
    match delivery::queue(&context.registry, outbox, message).await {
        Err(Refused::OverBudget(_)) => Err(try_again()),
        Ok(()) | Err(Refused::Closed | Refused::Full) => Ok(()),
    }
}

/// When a session ends unless renewed. Most have none; those that do hold a timer of their own.
struct Expiry {
    at: SystemTime,
    timer: Pin<Box<Sleep>>,
}

impl Expiry {
    const END: End = End::Closing(Closing { reason: CloseReason::new(4906, "session expired"), cause: Cause::Expired });

    fn left(at: SystemTime) -> Option<Duration> {
        at.duration_since(SystemTime::now()).ok().filter(|left| !left.is_zero()).map(|left| left.min(LONGEST_SLEEP))
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
