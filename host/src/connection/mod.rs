//! The life of one WebSocket: handshake → greet → authenticate → route… → close. One task each, from its first byte to
//! its last.

mod admission;
mod end;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod inbox;
mod login;
mod session;
mod socket;
mod wire;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

pub use self::admission::{Admission, Permit, Refusal};
pub use self::handshake::is_trusted;
pub use self::inbox::InboxBudget;

use self::end::End;
use self::handshake::{Head, Refused, Upgrade, read_head};
use self::inbox::Inbox;
use self::login::authenticate;
use self::session::Session;
use self::socket::Socket;
use self::wire::Wire;
use crate::config::{RouteFailure, WebSocketConfig};
use crate::heartbeat::Link;
use crate::message::{Cause, CloseReason};
use crate::metrics::{Denial, METRICS};
use crate::outbox::Closing;
use crate::policy::{Handshake, Policy};
use crate::registry::Registry;

/// A plugin failed, or has too much to do: the client may try again.
const TRY_AGAIN: CloseReason = CloseReason::new(1013, "try again later");

/// What every connection needs.
pub struct Context {
    /// Bounds and rules of the WebSocket port.
    pub config: WebSocketConfig,
    /// How long closing may take during a shutdown.
    pub shutdown_grace: Duration,
    /// What becomes of a packet on which the router fails.
    pub route_failure: RouteFailure,
    /// What the plugins decide.
    pub policy: Arc<Policy>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What all connections together may hold of what has arrived.
    pub inbox: Arc<InboxBudget>,
}

/// Serves one connection until it has ended. A connection past a limit is refused once it has sent its request, and has
/// its `place` among those until then: it would not read the answer before.
///
/// Every byte of this future is held by every connection for as long as it lives. So what is needed for a while only is
/// boxed, here and below; and functions that take something for good are no async functions, which would hold it twice.
pub fn serve(
    context: Arc<Context>,
    stream: TcpStream,
    peer: SocketAddr,
    link: Arc<Link>,
    permit: Result<Permit, Refusal>,
    place: Option<OwnedSemaphorePermit>,
) -> impl Future<Output = ()> + Send {
    let upgrading = Box::pin(upgrade(context.clone(), stream, peer, link.clone(), permit, place));
    async move {
        if let Some((socket, handshake, permit)) = upgrading.await {
            converse(&context, socket, link, handshake, permit).await;
        }
    }
}

/// What comes of an upgrade that was not refused.
type Upgraded = (Box<Socket>, Box<Handshake>, Permit);

/// From the first byte to the upgrade, or to its refusal.
async fn upgrade(
    context: Arc<Context>,
    mut stream: TcpStream,
    peer: SocketAddr,
    link: Arc<Link>,
    mut permit: Result<Permit, Refusal>,
    _place: Option<OwnedSemaphorePermit>,
) -> Option<Upgraded> {
    match (open(&context, &mut stream, peer, &link, &mut permit).await, permit) {
        (Opened::Upgraded(handshake, early), Ok(permit)) => {
            let WebSocketConfig { max_message, max_first_message, min_message_rate, .. } = context.config;
            let inbox = Inbox::new(early, max_first_message.min(max_message), context.inbox.clone());
            let wire = Wire::new(stream, link.clone(), inbox, min_message_rate);
            Some((Box::new(Socket::new(wire, link)), Box::new(handshake), permit))
        }
        // The permit is held until the answer has been given: a refused connection counts, too, for as long as it is there.
        (Opened::Refused(refused), _permit) => {
            METRICS.handshakes_refused.increment();
            debug!(connection = link.id.0, %peer, status = refused.status, reason = refused.reason, "upgrade refused");
            let _ = timeout(context.config.close_timeout, refused.answer(&mut stream)).await;
            None
        }
        _ => {
            METRICS.handshakes_abandoned.increment();
            None
        }
    }
}

/// How a handshake went.
enum Opened {
    /// With what the client sent after its request.
    Upgraded(Handshake, Vec<u8>),
    Refused(Refused),
    Gone,
}

async fn open(
    context: &Context,
    stream: &mut TcpStream,
    peer: SocketAddr,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
) -> Opened {
    let config = &context.config;
    let end = Instant::now() + config.handshake_timeout;
    let head = match timeout_at(end, link.unless_closing(pin!(read_head(stream)))).await {
        Ok(Ok(Ok(Ok(head)))) => head,
        Ok(Ok(Ok(Err(refused)))) => return Opened::Refused(refused),
        Ok(Ok(Err(_)) | Err(_)) => return Opened::Gone,
        Err(_) => return Opened::Refused(Refused::timeout()),
    };
    match judge(head, config, peer, link, permit) {
        Err(refused) => Opened::Refused(refused),
        Ok(Upgrade { handshake, response, early, .. }) => {
            let answered = timeout_at(end, stream.write_all(response.as_bytes())).await;
            if matches!(answered, Ok(Ok(()))) { Opened::Upgraded(handshake, early) } else { Opened::Gone }
        }
    }
}

fn judge(
    head: Head,
    config: &WebSocketConfig,
    peer: SocketAddr,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
) -> Result<Upgrade, Refused> {
    let permit = permit.as_mut().map_err(|refusal| Refused::unavailable(*refusal))?;
    let upgrade = head.upgrade(link.id, peer, config)?;
    permit.count_for(upgrade.address).map_err(Refused::unavailable)?;
    Ok(upgrade)
}

/// From the upgrade to the end.
#[expect(clippy::manual_async_fn, reason = "see `serve`")]
fn converse(
    context: &Context,
    mut socket: Box<Socket>,
    link: Arc<Link>,
    handshake: Box<Handshake>,
    mut permit: Permit,
) -> impl Future<Output = ()> + Send {
    async move {
        let (end, session) = match Box::pin(log_in(context, &mut socket, &link, handshake, &mut permit)).await {
            Ok(mut session) => (session.run(context, &mut socket).await, Some(session)),
            Err((end, session)) => {
                if let Some(denial) = denial(&end) {
                    METRICS.logins_denied.increment(denial);
                }
                (end, session)
            }
        };
        METRICS.connections_ended.increment(end.cause());
        debug!(connection = link.id.0, cause = ?end.cause(), code = end.code(), "connection ended");
        Box::pin(part(context, socket, end, session)).await;
        drop(permit);
    }
}

/// From the upgrade to a session. After a failure there may be one to close.
async fn log_in(
    context: &Context,
    socket: &mut Socket,
    link: &Arc<Link>,
    handshake: Box<Handshake>,
    permit: &mut Permit,
) -> Result<Session, (End, Option<Session>)> {
    let identity = authenticate(context, socket, link, &handshake).await.map_err(|end| (end, None))?;
    permit.authenticated();
    socket.allow(context.config.max_message);
    let session = Session::open(context, link, handshake, identity).await?;
    METRICS.logins.increment();
    Ok(session)
}

/// The end of a connection, and of its session.
async fn part(context: &Context, socket: Box<Socket>, end: End, session: Option<Session>) {
    let flush = match end.cause() {
        Cause::Shutdown => context.shutdown_grace,
        _ => context.config.close_timeout,
    };
    // Deregistered first: whoever has read our close frame cannot be reached. The router is told meanwhile.
    let closed = session.map(|session| session.close(&end));
    let told = async {
        if let Some(closed) = closed {
            closed.tell(context).await;
        }
    };
    tokio::join!(told, socket.finish(&end, flush, context.config.close_timeout));
}

/// Why a client was turned away that has not logged in; `None` if it left.
fn denial(end: &End) -> Option<Denial> {
    Some(match end.cause() {
        Cause::Client | Cause::Lost => return None,
        Cause::Plugin if end.farewell() == Some(&TRY_AGAIN) => Denial::Failed,
        Cause::Plugin => Denial::Plugin,
        Cause::Unauthenticated if end.code() == Some(4901) => Denial::TooLate,
        Cause::Unauthenticated => Denial::NotAccepted,
        Cause::Replaced => Denial::Duplicate,
        Cause::Expired => Denial::Expired,
        Cause::ProtocolError => Denial::Protocol,
        Cause::Silent | Cause::Slow | Cause::Operator | Cause::Shutdown => Denial::Closed,
    })
}

/// The end that a plugin's failure means.
fn try_again() -> End {
    End::Closing(failure())
}

fn failure() -> Closing {
    Closing { reason: TRY_AGAIN, cause: Cause::Plugin }
}
