//! Upgrades a connection or refuses it, beginning with its first byte.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::admission::{LimitReached, Permit};
use super::context::Context;
use super::handshake::{Head, Upgrade, read_head};
use super::inbox::Inbox;
use super::rejection::{NotUpgraded, RejectedUpgrade};
use super::socket::Socket;
use super::wire::Wire;
use crate::base::metrics::METRICS;
use crate::config::{ProxyProtocol, WebSocketConfig};
use crate::edge::heartbeat::Link;
use crate::edge::listener::{ProxyError, Remote, Stream, read_header};
use crate::edge::tls::Secured;
use crate::policy::Handshake;

/// The result of an accepted upgrade.
pub(super) type Upgraded<S> = (Box<Socket<Secured<S>>>, Box<Handshake>, Permit);

/// The place of a connection before its upgrade: among all connections or, past a limit, among those that are only
/// refused. It is held until the answer is sent: a refused connection counts, too, as long as it exists.
pub(super) struct PlaceBeforeUpgrade {
    pub(super) permit: Result<Permit, LimitReached>,
    pub(super) refusing: Option<OwnedSemaphorePermit>,
}

/// Upgrades a connection. Returns `None` if the connection was refused or has ended.
pub(super) async fn upgrade<S: Stream>(
    context: Arc<Context>,
    stream: S,
    mut remote: Remote,
    link: Arc<Link>,
    mut place: PlaceBeforeUpgrade,
) -> Option<Upgraded<S>> {
    let end = Instant::now() + context.live.load().websocket.handshake_timeout;
    let secured = secure(&context, stream, &mut remote, &link, &mut place, end).await;
    // Who fails so early gets no answer: no stream is left that could carry one.
    let mut stream = secured.map_err(|why| record(&context, &link, remote, &why)).ok()?;
    let (handshake, response, early) = match open(&context, &mut stream, remote, &link, &mut place.permit, end).await {
        Ok(opened) => opened,
        Err(why) => {
            record(&context, &link, remote, &why);
            if let NotUpgraded::Rejected(refused) = why {
                answer(&context, &mut stream, &link, &mut place, &refused).await;
            }
            return None;
        }
    };
    let WebSocketConfig { max_message, max_first_message, min_message_rate, .. } = context.live.load().websocket;
    let inbox = Inbox::new(early, max_first_message.min(max_message), context.inbox.clone());
    let wire = Wire::new(stream, link.clone(), inbox, min_message_rate).beginning_with(response);
    Some((Box::new(Socket::new(wire, link)), Box::new(handshake), place.permit.ok()?))
}

/// Counts and logs a connection that is not upgraded.
fn record(context: &Context, link: &Link, remote: Remote, why: &NotUpgraded) {
    if let NotUpgraded::Rejected(refused) = why {
        let client = refused.client.unwrap_or(remote.address().ip());
        return context.rejections.count(Some(link.id), client, refused.cause, &refused.reason);
    }
    METRICS.handshakes_abandoned.increment();
    if let NotUpgraded::Failed(error) = why {
        debug!(connection = link.id.0, peer = %remote.address(), %error, "connection failed before its upgrade");
    }
}

/// Answers a request that is refused.
async fn answer(
    context: &Context,
    stream: &mut impl Stream,
    link: &Link,
    place: &mut PlaceBeforeUpgrade,
    refused: &RejectedUpgrade,
) {
    if let Some(delay) = refused.delay() {
        // Behind a trusted proxy, the limit was reached only now.
        place.refusing = place.refusing.take().or_else(|| context.rejections.place());
        if place.refusing.is_none() || link.unless_closing(pin!(sleep(delay))).await.is_err() {
            return;
        }
    }
    let close_timeout = context.live.load().websocket.close_timeout;
    let _ = timeout(close_timeout, refused.answer(stream)).await;
}

/// Prepares to read the request: lets the proxy name its client, who then is the `remote`, and begins TLS.
async fn secure<S: Stream>(
    context: &Context,
    mut stream: S,
    remote: &mut Remote,
    link: &Link,
    place: &mut PlaceBeforeUpgrade,
    end: Instant,
) -> Result<Secured<S>, NotUpgraded> {
    if context.live.load().websocket.proxy_protocol == ProxyProtocol::Required {
        *remote = in_time(end, link, read_header(&mut stream)).await?.map_err(|error| match error {
            ProxyError::Malformed(_) => RejectedUpgrade::proxy(&error).into(),
            ProxyError::Local => NotUpgraded::Gone,
            ProxyError::Ended(error) => NotUpgraded::Failed(error),
        })?;
        if let Ok(permit) = &mut place.permit
            && !remote.is_trusted(&context.live.load().websocket.trusted_proxies)
            && let Err(refusal) = permit.count_for(remote.address().ip())
        {
            // Without the permit it needs one of the places. A handshake of TLS would cost more than what is refused.
            place.refusing = context.rejections.place();
            if place.refusing.is_none() || context.encrypts(&stream) {
                return Err(RejectedUpgrade::past_limit(refusal, remote.address().ip()).into());
            }
            place.permit = Err(refusal);
        }
    }
    let mut stream = Secured::new(stream, context.tls.as_deref())?;
    if context.encrypts(stream.inner()) {
        in_time(end, link, shake_hands(context, &mut stream, *remote)).await??;
    }
    Ok(stream)
}

/// Does the handshake of TLS. A client with too many at once is closed.
async fn shake_hands<S: Stream>(context: &Context, stream: &mut Secured<S>, remote: Remote) -> Result<(), NotUpgraded> {
    stream.first_byte().await?;
    let address = remote.address().ip();
    let client = (!remote.is_trusted(&context.live.load().websocket.trusted_proxies)).then_some(address);
    let turn = context.tls_turns.wait(client).await;
    let turn = turn.ok_or_else(|| RejectedUpgrade::past_limit(LimitReached::TlsHandshakes, address))?;
    Ok(turn.spend(stream.handshake()).await?)
}

/// Reads the request. Returns the handshake, the response, and the bytes that the client sent after its request.
async fn open(
    context: &Context,
    stream: &mut impl Stream,
    remote: Remote,
    link: &Link,
    permit: &mut Result<Permit, LimitReached>,
    end: Instant,
) -> Result<(Handshake, String, Vec<u8>), NotUpgraded> {
    let head = in_time(end, link, read_head(stream)).await??;
    let Upgrade { handshake, response, early, .. } = accept(head, context, remote, link, permit)?;
    Ok((handshake, response, early))
}

/// Waits for a part of the upgrade until `end`, or until the connection must close.
async fn in_time<F: Future>(end: Instant, link: &Link, part: F) -> Result<F::Output, NotUpgraded> {
    let done = timeout_at(end, link.unless_closing(pin!(part))).await;
    done.map_err(|_| RejectedUpgrade::timeout())?.map_err(|_closing| NotUpgraded::Gone)
}

/// Accepts the request if it is valid, no limit is reached, and no drain has begun to close connections.
fn accept(
    head: Head,
    context: &Context,
    remote: Remote,
    link: &Link,
    permit: &mut Result<Permit, LimitReached>,
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
