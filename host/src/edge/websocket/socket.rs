//! A WebSocket as the connection's task sees it: packets come in, the outbox goes out, and both at once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytestring::ByteString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::end::End;
use super::inbox::Frame;
use super::wire::{BATCH, Wire};
use crate::base::message::{CloseReason, Message};
use crate::edge::heartbeat::Link;

/// Packets handled before what is queued is written although more can be read: reading first makes for few, large
/// writes, but must not keep the client waiting for as long as it goes on sending.
const PACKETS_BEFORE_SEND: u32 = 32;

/// One WebSocket after its handshake.
pub(super) struct Socket {
    wire: Wire,
    link: Arc<Link>,
    packets_since_send: u32,
    /// Sending has been put off once.
    put_off: bool,
}

impl Socket {
    /// Takes over a stream on which the upgrade has been answered.
    pub(super) fn new(wire: Wire, link: Arc<Link>) -> Self {
        Self { wire, link, packets_since_send: 0, put_off: false }
    }

    /// From now on, messages may have `max_message` bytes.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.wire.allow(max_message);
    }

    /// Waits for the next packet, sending meanwhile whatever the outbox holds.
    pub(super) async fn receive(&mut self) -> Result<Message, End> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Waits for `future`, sending meanwhile whatever the outbox holds. It is given up when the connection ends.
    ///
    /// Pinned by the caller: an async function that pins its argument holds it twice, and every connection would.
    pub(super) async fn sending<F: Future>(&mut self, mut future: Pin<&mut F>) -> Result<F::Output, End> {
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

    /// Ends the connection: sends what is queued and a close frame within `flush`, then waits for the peer's answer
    /// within `patience`. What is not done by then is cut off.
    pub(super) async fn finish(mut self: Box<Self>, end: &End, flush: Duration, patience: Duration) {
        let Some(reason) = end.farewell() else { return };
        self.wire.close(reason);
        // Nothing more is understood from a client that has closed, or has broken the protocol.
        let mut heard = matches!(end, End::ByClient(_) | End::Failed(_));
        let parting = async {
            timeout(flush, poll_fn(|cx| self.poll_part(cx, &mut heard, Part::Send))).await.ok()?;
            let answer = async {
                poll_fn(|cx| self.poll_part(cx, &mut heard, Part::Hear)).await;
                linger(self.wire.stream()).await;
            };
            timeout(patience, answer).await.ok()
        };
        if parting.await.is_none() {
            // The peer does not read: a reset, or the kernel would go on trying to deliver what it holds.
            let _ = self.wire.stream().set_zero_linger();
        }
    }

    /// Sends what is left, and meanwhile reads and discards until the peer's close frame: a peer that waits for its own
    /// words to be read might not read ours. Ready when the awaited part is done.
    fn poll_part(&mut self, cx: &mut Context<'_>, heard: &mut bool, awaited: Part) -> Poll<()> {
        let sent = self.wire.poll_send(cx, &self.link.outbox);
        while !*heard {
            match self.poll_frame(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => *heard = true,
                Poll::Pending => break,
            }
        }
        match awaited {
            Part::Send => sent,
            Part::Hear if *heard => Poll::Ready(()),
            Part::Hear => Poll::Pending,
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
                    return Poll::Ready(Ok(packet));
                }
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => {
                    let answers = waiting > 0 && self.packets_since_send > 0;
                    if answers && !std::mem::replace(&mut self.put_off, true) {
                        // Others that are ready may have more for this client: it leaves in the same write.
                        let _ = pin!(yield_now()).poll(cx);
                        return Poll::Pending;
                    }
                    if !self.poll_send(cx)? {
                        // Reading may have used up what the runtime allows this task at a time, so that nothing was
                        // written: the next time begins with it.
                        self.packets_since_send = PACKETS_BEFORE_SEND;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Starts or continues sending, and notices that the connection is to be closed. Returns whether all has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        (self.packets_since_send, self.put_off) = (0, false);
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

    /// The next packet, or `None` for another frame, which has been dealt with.
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

/// What is awaited while a connection ends.
#[derive(Clone, Copy)]
enum Part {
    /// That our close frame has left.
    Send,
    /// That the peer's has arrived.
    Hear,
}

/// Ends our side of a stream and waits for the peer to end its own.
pub(super) async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut discarded = [0; 512];
        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::task::{Wake, Waker};

    use tokio::net::TcpListener;

    use super::super::inbox::{Inbox, InboxBudget};
    use super::*;
    use crate::base::message::ConnectionId;
    use crate::config::Config;
    use crate::edge::heartbeat::Heartbeat;
    use crate::hub::outbox::{Budget, Outbox};

    /// Whether a task was woken.
    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_no_messages_takes_turns_with_others() {
        const FRAMES: usize = 2048;
        let empty_ping = &[0x89, 0x80, 0, 0, 0, 0];
        let mut fragments = b"\x01\x80\0\0\0\0".to_vec();
        fragments.extend(b"\0\x80\0\0\0\0".repeat(FRAMES - 1));
        for frames in [empty_ping.repeat(FRAMES), fragments] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            client.write_all(&frames).await.unwrap();
            stream.readable().await.unwrap();

            let heartbeat = Arc::new(Heartbeat::new(Config::default().heartbeat));
            let outbox = Outbox::new(1 << 20, Arc::new(Budget::new(1 << 20, 1)));
            let link = heartbeat.watch(ConnectionId::next(), outbox);
            let inbox = Inbox::new(Vec::new(), 1 << 20, Arc::new(InboxBudget::new(1 << 20)));
            let mut socket = Socket::new(Wire::new(stream, link.clone(), inbox, 0), link);

            let flag = Arc::new(Flag::default());
            let waker = Waker::from(flag.clone());
            let mut receive = pin!(socket.receive());
            let mut turns = 1;
            while {
                assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                flag.0.swap(false, Relaxed)
            } {
                turns += 1;
            }
            assert!(turns >= 8, "{FRAMES} frames were taken in {turns} turns");
        }
    }
}
