//! One connection from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::admission::{Permit, Refusal};
use super::context::Context;
use super::end::End;
use super::login::authenticate;
use super::session::Session;
use super::socket::Socket;
use super::upgrade::upgrade;
use crate::base::message::Cause;
use crate::base::metrics::METRICS;
use crate::edge::heartbeat::Link;
use crate::policy::Handshake;

/// Serves one connection until it has ended. A connection past a limit is refused once it has sent its request, and has
/// its `place` among those until then: it would not read the answer before.
///
/// Every byte of this future is held by every connection for as long as it lives. So what is needed for a while only is
/// boxed, here and below; and functions that take something for good are no async functions, which would hold it twice.
pub(super) fn serve(
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
                if let Some(denial) = end.denial() {
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
