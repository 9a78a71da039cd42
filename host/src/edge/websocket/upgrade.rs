//! Upgrades a connection or refuses it, beginning with its first byte.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::admission::{Permit, Refusal};
use super::context::Context;
use super::handshake::{Head, Upgrade, read_head};
use super::inbox::Inbox;
use super::rejection::{NotUpgraded, RejectedUpgrade};
use super::socket::Socket;
use super::stream::Stream;
use super::wire::Wire;
use crate::base::metrics::METRICS;
use crate::config::WebSocketConfig;
use crate::edge::heartbeat::Link;
use crate::policy::Handshake;

/// The result of an accepted upgrade.
pub(super) type Upgraded<S> = (Box<Socket<S>>, Box<Handshake>, Permit);

/// Upgrades a connection. Returns `None` if the connection was refused or has ended.
pub(super) async fn upgrade<S: Stream>(
    context: Arc<Context>,
    mut stream: S,
    peer: SocketAddr,
    link: Arc<Link>,
    mut permit: Result<Permit, Refusal>,
    _place: Option<OwnedSemaphorePermit>,
) -> Option<Upgraded<S>> {
    match (open(&context, &mut stream, peer, &link, &mut permit).await, permit) {
        (Ok((handshake, early)), Ok(permit)) => {
            let WebSocketConfig { max_message, max_first_message, min_message_rate, .. } = context.config;
            let inbox = Inbox::new(early, max_first_message.min(max_message), context.inbox.clone());
            let wire = Wire::new(stream, link.clone(), inbox, min_message_rate);
            Some((Box::new(Socket::new(wire, link)), Box::new(handshake), permit))
        }
        // The permit is held until the answer is sent: a refused connection counts, too, as long as it exists.
        (Err(NotUpgraded::Rejected(refused)), _permit) => {
            METRICS.handshakes_refused.increment();
            debug!(connection = link.id.0, %peer, status = %refused.status, reason = refused.reason, "upgrade refused");
            let _ = timeout(context.config.close_timeout, refused.answer(&mut stream)).await;
            None
        }
        _ => {
            METRICS.handshakes_abandoned.increment();
            None
        }
    }
}

/// Reads the request and answers it. Returns the handshake, and the bytes that the client sent after its request.
async fn open(
    context: &Context,
    stream: &mut impl Stream,
    peer: SocketAddr,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
) -> Result<(Handshake, Vec<u8>), NotUpgraded> {
    let config = &context.config;
    let end = Instant::now() + config.handshake_timeout;
    let read = timeout_at(end, link.unless_closing(pin!(read_head(stream)))).await;
    let head = read.map_err(|_| RejectedUpgrade::timeout())?.map_err(|_closing| NotUpgraded::Gone)??;
    let Upgrade { handshake, response, early, .. } = accept(head, config, peer, link, permit)?;
    timeout_at(end, stream.write_all(response.as_bytes())).await.map_err(|_| NotUpgraded::Gone)??;
    Ok((handshake, early))
}

/// Accepts the request if it is valid and no limit is reached.
fn accept(
    head: Head,
    config: &WebSocketConfig,
    peer: SocketAddr,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
) -> Result<Upgrade, RejectedUpgrade> {
    let permit = permit.as_mut().map_err(|refusal| RejectedUpgrade::unavailable(*refusal))?;
    let upgrade = head.upgrade(link.id, peer, config)?;
    permit.count_for(upgrade.address).map_err(RejectedUpgrade::unavailable)?;
    Ok(upgrade)
}
