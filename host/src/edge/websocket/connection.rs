//! Serves one connection from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use super::admission::Permit;
use super::context::Context;
use super::end::End;
use super::login::authenticate;
use super::meter::RateLimits;
use super::report;
use super::session::Session;
use super::socket::Socket;
use super::upgrade::{PlaceBeforeUpgrade, upgrade};
use crate::base::message::Cause;
use crate::base::metrics::{METRICS, Reason as _};
use crate::base::trace::{TRACE, TraceEvent};
use crate::edge::heartbeat::Link;
use crate::edge::listener::{Remote, Stream};
use crate::policy::{Decider, Handshake};

/// Serves one connection until it has ended. A connection past a limit is refused after it has sent its request,
/// because it would not read an earlier answer.
///
/// Every connection holds every byte of this future for its whole life. So a part that is needed only for a while is
/// boxed, here and below. And a function that takes ownership of an argument is no `async fn`, which would hold it
/// twice.
pub(super) fn serve(
    context: Arc<Context>,
    stream: impl Stream,
    remote: Remote,
    link: Arc<Link>,
    place: PlaceBeforeUpgrade,
) -> impl Future<Output = ()> + Send {
    let upgrading = Box::pin(upgrade(context.clone(), stream, remote, link.clone(), place));
    async move {
        if let Some((socket, handshake, permit)) = upgrading.await {
            let address = handshake.remote_address.socket();
            let event = || TraceEvent::Handshake { address, path: (&*handshake.path).into() };
            TRACE.opened(link.id, address.ip(), event);
            converse(&context, socket, link, handshake, permit).await;
        }
    }
}

/// Serves a connection from its upgrade to its end.
#[expect(clippy::manual_async_fn, reason = "see `serve`")]
fn converse(
    context: &Context,
    mut socket: Box<Socket<impl Stream>>,
    link: Arc<Link>,
    handshake: Box<Handshake>,
    mut permit: Permit,
) -> impl Future<Output = ()> + Send {
    async move {
        let address = handshake.remote_address.socket();
        let (end, address, session) = match Box::pin(log_in(context, &mut socket, &link, handshake, &mut permit)).await
        {
            // The session knows the address, too, so that no connection holds it twice.
            Ok(mut session) => (session.run(context, &mut socket).await, session.address(), Some(session)),
            Err((end, session)) => (end, address, session),
        };
        METRICS.connections_ended.increment(end.cause());
        Box::pin(close(context, socket, &link, end, address, session)).await;
        drop(permit);
    }
}

/// Authenticates the client, opens its session, and reports the outcome.
///
/// # Errors
/// Why the connection ends, and a session to close if there is one already.
async fn log_in(
    context: &Context,
    socket: &mut Socket<impl Stream>,
    link: &Arc<Link>,
    handshake: Box<Handshake>,
    permit: &mut Permit,
) -> Result<Session, (End, Option<Session>)> {
    let mut decider = None;
    let mut opened = open_session(context, socket, link, handshake, permit, &mut decider).await;
    if let Ok(session) | Err((_, Some(session))) = &mut opened {
        session.accepted_by = decider.as_ref().map(|decider| decider.names.clone());
    }
    opened.inspect_err(|(end, _)| report::denied(context, link.id, end, decider.as_ref()))
}

async fn open_session(
    context: &Context,
    socket: &mut Socket<impl Stream>,
    link: &Arc<Link>,
    handshake: Box<Handshake>,
    permit: &mut Permit,
    decider: &mut Option<Decider>,
) -> Result<Session, (End, Option<Session>)> {
    socket.limit(RateLimits::of(&context.live));
    let identity = authenticate(context, socket, link, &handshake, decider).await.map_err(|end| (end, None))?;
    // A client that was accepted at once, by its request, must not wait for its response until its session is open.
    socket.respond().await;
    permit.authenticated();
    link.set_authenticated();
    socket.allow(context.live.load().websocket.max_message);
    let (mut session, actions) = Session::open(context, link, handshake, identity).await?;
    report::accepted(context, link.id, session.uid(), decider.as_ref(), socket.lasted());
    match session.apply(context, socket, actions).await {
        Ok(_) => Ok(session),
        Err(end) => Err((end, Some(session))),
    }
}

/// Closes a connection and its session.
async fn close(
    context: &Context,
    socket: Box<Socket<impl Stream>>,
    link: &Link,
    end: End,
    address: SocketAddr,
    session: Option<Session>,
) {
    let (close_timeout, grace) = {
        let live = context.live.load();
        (live.websocket.close_timeout, live.shutdown_grace)
    };
    let flush = if end.cause() == Cause::Shutdown { grace } else { close_timeout };
    let known = session.as_ref().map(Session::known);
    // Deregister first: after a client has read our close frame, no message may reach it. Notify the router meanwhile.
    let closed = session.map(|session| session.close(&end));
    let notified = async {
        if let Some(closed) = closed {
            closed.notify_router(context).await;
        }
    };
    let ((), totals) = tokio::join!(notified, socket.finish(&end, flush, close_timeout));
    report::ended(context, link.id, address, &end, &totals, known.as_ref());
    TRACE.record(link.id, || TraceEvent::Closed {
        code: end.code(),
        reason: end.close_reason().map_or("", |reason| &*reason.reason).into(),
        cause: end.cause().name(),
    });
}
