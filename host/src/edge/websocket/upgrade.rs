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
use super::handshake::{Head, RejectedUpgrade, Upgrade, read_head};
use super::inbox::Inbox;
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
        (Opened::Upgraded(handshake, early), Ok(permit)) => {
            let WebSocketConfig { max_message, max_first_message, min_message_rate, .. } = context.config;
            let inbox = Inbox::new(early, max_first_message.min(max_message), context.inbox.clone());
            let wire = Wire::new(stream, link.clone(), inbox, min_message_rate);
            Some((Box::new(Socket::new(wire, link)), Box::new(handshake), permit))
        }
        // The permit is held until the answer is sent: a refused connection counts, too, as long as it exists.
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

/// The result of a handshake.
enum Opened {
    /// Accepted. Contains the bytes that the client sent after its request.
    Upgraded(Handshake, Vec<u8>),
    Refused(RejectedUpgrade),
    /// The connection has ended, or must close.
    Gone,
}

async fn open(
    context: &Context,
    stream: &mut impl Stream,
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
        Err(_) => return Opened::Refused(RejectedUpgrade::timeout()),
    };
    match accept(head, config, peer, link, permit) {
        Err(refused) => Opened::Refused(refused),
        Ok(Upgrade { handshake, response, early, .. }) => {
            let answered = timeout_at(end, stream.write_all(response.as_bytes())).await;
            if matches!(answered, Ok(Ok(()))) { Opened::Upgraded(handshake, early) } else { Opened::Gone }
        }
    }
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
