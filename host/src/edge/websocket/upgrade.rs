//! Upgrades a connection or refuses it, beginning with its first byte.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::admission::{Permit, Refusal};
use super::context::Context;
use super::handshake::{Head, Upgrade, read_head};
use super::inbox::Inbox;
use super::rejection::{NotUpgraded, RejectedUpgrade};
use super::socket::Socket;
use super::wire::Wire;
use crate::base::metrics::METRICS;
use crate::config::{ProxyProtocol, WebSocketConfig};
use crate::edge::heartbeat::Link;
use crate::edge::listener::{Remote, Stream, read_header};
use crate::edge::tls::Secured;
use crate::policy::Handshake;

/// The result of an accepted upgrade.
pub(super) type Upgraded<S> = (Box<Socket<Secured<S>>>, Box<Handshake>, Permit);

/// Upgrades a connection. Returns `None` if the connection was refused or has ended.
pub(super) async fn upgrade<S: Stream>(
    context: Arc<Context>,
    stream: S,
    remote: Remote,
    link: Arc<Link>,
    mut permit: Result<Permit, Refusal>,
    mut place: Option<OwnedSemaphorePermit>,
) -> Option<Upgraded<S>> {
    let end = Instant::now() + context.config.handshake_timeout;
    let mut opened = secure(&context, stream, remote, &link, (&mut permit, &mut place), end).await;
    let request = match &mut opened {
        Ok((stream, remote)) => open(&context, stream, *remote, &link, &mut permit, end).await,
        Err(error) => Err(std::mem::replace(error, NotUpgraded::Gone)),
    };
    match (request, opened, permit) {
        (Ok((handshake, early)), Ok((stream, _)), Ok(permit)) => {
            let WebSocketConfig { max_message, max_first_message, min_message_rate, .. } = context.config;
            let inbox = Inbox::new(early, max_first_message.min(max_message), context.inbox.clone());
            let wire = Wire::new(stream, link.clone(), inbox, min_message_rate);
            return Some((Box::new(Socket::new(wire, link)), Box::new(handshake), permit));
        }
        // The permit is held until the answer is sent: a refused connection counts, too, as long as it exists.
        (Err(NotUpgraded::Rejected(refused)), opened, _permit) => {
            let remote = opened.as_ref().map_or(remote, |(_, remote)| *remote);
            let client = refused.client.unwrap_or(remote.address().ip());
            context.rejections.count(Some(link.id), client, refused.cause, &refused.reason);
            let Ok((mut stream, _)) = opened else { return None };
            if let Some(delay) = refused.delay() {
                // Behind a trusted proxy, the limit was reached only now.
                place = place.or_else(|| context.rejections.place());
                if place.is_none() || link.unless_closing(pin!(sleep(delay))).await.is_err() {
                    return None;
                }
            }
            let _ = timeout(context.config.close_timeout, refused.answer(&mut stream)).await;
            return None;
        }
        (Err(NotUpgraded::Failed(error)), ..) => {
            debug!(connection = link.id.0, peer = %remote.address(), %error, "connection failed before its upgrade");
        }
        _ => {}
    }
    METRICS.handshakes_abandoned.increment();
    None
}

/// Prepares to read the request: lets the proxy name its client, and begins TLS. Returns the stream, and where the
/// connection comes from.
async fn secure<S: Stream>(
    context: &Context,
    mut stream: S,
    remote: Remote,
    link: &Link,
    (permit, place): (&mut Result<Permit, Refusal>, &mut Option<OwnedSemaphorePermit>),
    end: Instant,
) -> Result<(Secured<S>, Remote), NotUpgraded> {
    let mut remote = remote;
    if context.config.proxy_protocol == ProxyProtocol::Required {
        let read = timeout_at(end, link.unless_closing(pin!(read_header(&mut stream)))).await;
        let named = read.map_err(|_| NotUpgraded::Gone)?.map_err(|_closing| NotUpgraded::Gone)?;
        remote = named.map_err(|error| NotUpgraded::Failed(io::Error::other(error)))?;
        if let Ok(granted) = permit
            && !remote.is_trusted(&context.live.load().websocket.trusted_proxies)
            && let Err(refusal) = granted.count_for(remote.address().ip())
        {
            // Without the permit it needs one of the places. A handshake of TLS would cost more than what is refused.
            *place = context.rejections.place();
            if place.is_none() || context.encrypts(&stream) {
                return Err(RejectedUpgrade::past_limit(refusal, remote.address().ip()).into());
            }
            *permit = Err(refusal);
        }
    }
    let mut stream = Secured::new(stream, context.tls.as_deref())?;
    if context.encrypts(stream.inner()) {
        let handshake = shake_hands(context, &mut stream, remote);
        let done = timeout_at(end, link.unless_closing(pin!(handshake))).await;
        done.map_err(|_| NotUpgraded::Gone)?.map_err(|_closing| NotUpgraded::Gone)??;
    }
    Ok((stream, remote))
}

/// Does the handshake of TLS. A client with too many at once is closed.
async fn shake_hands<S: Stream>(context: &Context, stream: &mut Secured<S>, remote: Remote) -> Result<(), NotUpgraded> {
    stream.first_bytes().await?;
    let address = remote.address().ip();
    let client = (!remote.is_trusted(&context.live.load().websocket.trusted_proxies)).then_some(address);
    let turn = context.handshakes.turn(client).await;
    let turn = turn.ok_or_else(|| RejectedUpgrade::past_limit(Refusal::TlsHandshakes, address))?;
    Ok(turn.spend(stream.handshake()).await?)
}

/// Reads the request and answers it. Returns the handshake, and the bytes that the client sent after its request.
async fn open(
    context: &Context,
    stream: &mut impl Stream,
    remote: Remote,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
    end: Instant,
) -> Result<(Handshake, Vec<u8>), NotUpgraded> {
    let read = timeout_at(end, link.unless_closing(pin!(read_head(stream)))).await;
    let head = read.map_err(|_| RejectedUpgrade::timeout())?.map_err(|_closing| NotUpgraded::Gone)??;
    let Upgrade { handshake, response, early, .. } = accept(head, context, remote, link, permit)?;
    let answer = async {
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await
    };
    timeout_at(end, answer).await.map_err(|_| NotUpgraded::Gone)??;
    Ok((handshake, early))
}

/// Accepts the request if it is valid, no limit is reached, and no drain has begun to close connections.
fn accept(
    head: Head,
    context: &Context,
    remote: Remote,
    link: &Link,
    permit: &mut Result<Permit, Refusal>,
) -> Result<Upgrade, RejectedUpgrade> {
    let permit = permit.as_mut().map_err(|refusal| RejectedUpgrade::past_limit(*refusal, remote.address().ip()))?;
    let upgrade = head.upgrade(link.id, remote, &context.live.load().websocket)?;
    permit.count_for(upgrade.address).map_err(|refusal| RejectedUpgrade::past_limit(refusal, upgrade.address))?;
    // Last: a drain counts on every upgrade that has come this far before it began.
    match context.drain.refuses_upgrades() {
        true => Err(RejectedUpgrade::draining(context.drain.retry_after())),
        false => Ok(upgrade),
    }
}
