//! A WebSocket for the connection's task: receives packets and sends the outbox, both at the same time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytestring::ByteString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::end::End;
use super::inbox::Frame;
use super::meter::RateLimits;
use super::traffic::{Totals, Traffic};
use super::wire::{BATCH, Wire};
use crate::base::message::{CloseReason, Message};
use crate::edge::heartbeat::Link;
use crate::edge::listener::Stream;

/// After this many packets, write even if more can be read. Reading first leads to few, large writes, but a client that
/// keeps sending must not wait for its messages.
const PACKETS_BEFORE_SEND: u32 = 32;

/// One WebSocket after its handshake.
pub(super) struct Socket<S> {
    wire: Wire<S>,
    link: Arc<Link>,
    packets_since_send: u32,
    /// True if sending was postponed once.
    postponed: bool,
    begun: Instant,
    /// The packets that were received.
    received: Traffic,
}

impl<S: Stream> Socket<S> {
    /// Creates a socket on a stream whose upgrade was accepted. The response may still wait on the wire.
    pub(super) fn new(wire: Wire<S>, link: Arc<Link>) -> Self {
        let (begun, received) = (Instant::now(), Traffic::default());
        Self { wire, link, packets_since_send: 0, postponed: false, begun, received }
    }

    /// Allows messages of `max_message` bytes from now on.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.wire.allow(max_message);
    }

    /// Limits how fast the client may send, from now on.
    pub(super) fn limit(&mut self, rates: Option<RateLimits>) {
        self.wire.limit(rates);
    }

    /// Sends the response to the upgrade, if it has been waiting for a greeting until now.
    pub(super) async fn respond(&mut self) {
        poll_fn(|cx| {
            self.wire.begin(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for the next packet. Sends the messages in the outbox meanwhile.
    pub(super) async fn receive(&mut self) -> Result<Message, End> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Waits for `future`, or until the connection ends. Sends the messages in the outbox meanwhile.
    ///
    /// The caller pins `future`: an `async fn` that pins its argument holds it twice, for every connection.
    pub(super) async fn sending<F: Future + ?Sized>(&mut self, mut future: Pin<&mut F>) -> Result<F::Output, End> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match self.poll_send(cx) {
                Err(end) => Poll::Ready(Err(end)),
                Ok(_) => Poll::Pending,
            }
        })
        .await
    }

    /// Closes the connection: sends the queued messages and a close frame within `flush`, then waits for the peer's
    /// close frame within `patience`. After that, cuts the connection off. Returns what it has carried.
    pub(super) async fn finish(mut self: Box<Self>, end: &End, flush: Duration, patience: Duration) -> Totals {
        let Some(reason) = end.close_reason() else { return self.totals() };
        self.wire.close(reason);
        // After a close frame or a protocol violation, nothing more can be read from the client.
        let mut read_all = matches!(end, End::ByClient(_) | End::ProtocolViolation(_));
        let closing = async {
            timeout(flush, poll_fn(|cx| self.poll_closing(cx, &mut read_all, ClosePhase::Send))).await.ok()?;
            let answer = async {
                poll_fn(|cx| self.poll_closing(cx, &mut read_all, ClosePhase::Receive)).await;
                linger(self.wire.stream()).await;
            };
            timeout(patience, answer).await.ok()
        };
        if closing.await.is_none() {
            // The peer does not read. Reset the connection, or the kernel would go on trying to deliver its data.
            self.wire.stream().reset_on_drop();
        }
        self.totals()
    }

    /// Returns the time since the upgrade.
    pub(super) fn lasted(&self) -> Duration {
        self.begun.elapsed()
    }

    fn totals(&self) -> Totals {
        Totals { lasted: self.lasted(), received: self.received, sent: self.wire.sent }
    }

    /// Sends the remaining messages and the close frame. Meanwhile reads and discards until the peer's close frame: a
    /// peer that waits until its own data is read might not read ours. Ready when the awaited phase is done.
    fn poll_closing(&mut self, cx: &mut Context<'_>, read_all: &mut bool, awaited: ClosePhase) -> Poll<()> {
        let sent = self.wire.poll_send(cx, &self.link.outbox);
        while !*read_all {
            match self.poll_frame(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => *read_all = true,
                Poll::Pending => break,
            }
        }
        match awaited {
            ClosePhase::Send => sent,
            ClosePhase::Receive if *read_all => Poll::Ready(()),
            ClosePhase::Receive => Poll::Pending,
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        let waiting = self.link.outbox.begin_turn().map_err(End::Closing)?;
        if self.packets_since_send >= PACKETS_BEFORE_SEND || waiting >= BATCH {
            self.poll_send(cx)?;
        }
        loop {
            match self.poll_frame(cx) {
                Poll::Ready(Ok(Some(packet))) => {
                    self.packets_since_send += 1;
                    self.received.count(packet.len());
                    return Poll::Ready(Ok(packet));
                }
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => {
                    let answers = waiting > 0 && self.packets_since_send > 0;
                    if answers && !std::mem::replace(&mut self.postponed, true) {
                        // Other tasks that are ready may queue more for this client. Then one write sends it all.
                        let _ = pin!(yield_now()).poll(cx);
                        return Poll::Pending;
                    }
                    if !self.poll_send(cx)? {
                        // Reading may have used up the task's budget in the runtime, so that nothing was written. Then
                        // the next turn begins with writing.
                        self.packets_since_send = PACKETS_BEFORE_SEND;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Starts or continues sending. Returns `true` if everything is sent.
    ///
    /// # Errors
    /// Why the connection must close.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        (self.packets_since_send, self.postponed) = (0, false);
        let outbox = &self.link.outbox;
        if self.link.take_probe() && self.wire.is_dead() {
            return Err(End::Lost);
        }
        loop {
            if self.link.take_ping() {
                self.wire.ping();
            }
            let all_sent = self.wire.poll_send(cx, outbox).is_ready();
            let more = outbox.register_waker(cx.waker()).map_err(End::Closing)?;
            if !(all_sent && more || self.link.wants_ping()) {
                return Ok(all_sent);
            }
        }
    }

    /// Returns the next packet, or `None` for any other frame, which is handled here.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        Poll::Ready(match ready!(self.wire.poll_frame(cx))? {
            Frame::Message(packet) => Ok(Some(packet)),
            Frame::Ping(payload) => {
                self.wire.pong(&payload);
                Ok(None)
            }
            Frame::Pong | Frame::Fragment => Ok(None),
            Frame::Close(code) => {
                let reason = ByteString::new();
                Err(End::ByClient(CloseReason { code: code.unwrap_or(1000), reason }))
            }
        })
    }
}

/// What to wait for while a connection closes.
#[derive(Clone, Copy)]
enum ClosePhase {
    /// Our close frame is sent.
    Send,
    /// The peer's close frame has arrived.
    Receive,
}

/// Ends our side of a stream and waits for the peer to end its side.
pub(super) async fn linger(stream: &mut impl Stream) {
    if stream.shutdown().await.is_ok() {
        let mut discarded = [0; 512];
        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests;
