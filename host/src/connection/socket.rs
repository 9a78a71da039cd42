//! A WebSocket as the connection's task sees it: packets come in, the outbox goes out, and both at once.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, Role, WebSocketConfig as Protocol};

use super::link::Link;
use super::wire::{BATCH, TooManyFragments, Wire};
use crate::message::{Cause, CloseReason, Message};
use crate::outbox::Closing;

/// What tungstenite takes at a time of what [`Wire`] has read. Most messages are smaller, and every connection holds a
/// buffer of this size.
const READ_BUFFER: usize = 256;
/// What tungstenite may hold of its own answers: a few pongs. Less than [`Wire`] takes at once.
const MAX_PONGS: usize = 512;
/// Packets handled before what is queued is written although more can be read: reading first makes for few, large
/// writes, but must not keep the client waiting for as long as it goes on sending.
const PACKETS_BEFORE_SEND: u32 = 32;

/// How a connection came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The client sent a close frame; this answers it (RFC 6455 §5.5.1): its own code, or 1000 for none.
    ByClient(CloseReason),
    /// We close it.
    Closing(Closing),
    /// The client broke the protocol: nothing that it sends can be understood any more.
    Failed(CloseReason),
    /// The TCP connection is gone.
    Lost,
}

impl End {
    pub(super) fn new(cause: Cause, code: u16, reason: impl Into<ByteString>) -> Self {
        Self::Closing(Closing { reason: CloseReason { code, reason: reason.into() }, cause })
    }

    /// Who ended it, for the router.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::ByClient(_) => Cause::Client,
            Self::Closing(closing) => closing.cause,
            Self::Failed(_) => Cause::ProtocolError,
            Self::Lost => Cause::Lost,
        }
    }

    /// What our close frame says, where there is one to send.
    pub(super) fn farewell(&self) -> Option<&CloseReason> {
        match self {
            Self::ByClient(reason) | Self::Closing(Closing { reason, .. }) | Self::Failed(reason) => Some(reason),
            Self::Lost => None,
        }
    }

    /// The code of the close frame, where there is one.
    pub(super) fn code(&self) -> Option<u16> {
        self.farewell().map(|reason| reason.code)
    }
}

/// One WebSocket after its handshake.
pub(super) struct Socket {
    stream: WebSocketStream<Wire>,
    link: Arc<Link>,
    packets_since_send: u32,
    /// Sending has been put off once.
    put_off: bool,
    /// tungstenite has nothing to do until more arrives.
    all_read: bool,
}

impl Socket {
    /// Takes over a stream on which the upgrade has been answered; `early` is what the client sent after its request.
    pub(super) async fn new(stream: TcpStream, early: Vec<u8>, link: Arc<Link>, max_message: usize) -> Self {
        let protocol = Protocol::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_PONGS)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let wire = Wire::new(stream, link.clone(), max_message);
        let stream = WebSocketStream::from_partially_read(wire, early, Role::Server, Some(protocol)).await;
        Self { stream, link, packets_since_send: 0, put_off: false, all_read: false }
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
        self.stream.get_mut().close(reason);
        // Nothing more is understood from a client that has closed, or has broken the protocol.
        let mut heard = matches!(end, End::ByClient(_) | End::Failed(_));
        let parting = async {
            timeout(flush, poll_fn(|cx| self.poll_part(cx, &mut heard, Part::Send))).await.ok()?.ok()?;
            let answer = async {
                let _ = poll_fn(|cx| self.poll_part(cx, &mut heard, Part::Hear)).await;
                linger(self.stream.get_mut().stream()).await;
            };
            timeout(patience, answer).await.ok()
        };
        if parting.await.is_none() {
            // The peer does not read: a reset, or the kernel would go on trying to deliver what it holds.
            let _ = self.stream.get_mut().stream().set_zero_linger();
        }
    }

    /// Sends what is left, and meanwhile reads and discards until the peer's close frame: a peer that waits for its own
    /// words to be read might not read ours. Ready when the awaited part is done.
    fn poll_part(&mut self, cx: &mut Context<'_>, heard: &mut bool, awaited: Part) -> Poll<io::Result<()>> {
        let sent = self.stream.get_mut().poll_send(cx, &self.link.outbox)?;
        while !*heard {
            match self.poll_frame(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => *heard = true,
                Poll::Pending => break,
            }
        }
        match awaited {
            Part::Send => sent.map(Ok),
            Part::Hear if *heard => Poll::Ready(Ok(())),
            Part::Hear => Poll::Pending,
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        let waiting = self.link.outbox.awake().map_err(End::Closing)?;
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
                    let pongs = self.stream.get_mut().has_control();
                    if !self.poll_send(cx)? {
                        // Reading may have used up what the runtime allows this task at a time, so that nothing was
                        // written: the next time begins with it.
                        self.packets_since_send = PACKETS_BEFORE_SEND;
                    }
                    // More of them may wait in tungstenite, which hands them over when it is polled and they fit.
                    if !pongs || self.stream.get_mut().has_control() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Starts or continues sending, and notices that the connection is to be closed. Returns whether all has left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        (self.packets_since_send, self.put_off) = (0, false);
        let outbox = &self.link.outbox;
        let wire = self.stream.get_mut();
        loop {
            if self.link.take_ping() {
                wire.ping();
            }
            let all_sent = match wire.poll_send(cx, outbox) {
                Poll::Ready(Err(_)) => return Err(End::Lost),
                sent => sent.is_ready(),
            };
            let more = outbox.wait(cx.waker()).map_err(End::Closing)?;
            if !(all_sent && more || self.link.wants_ping()) {
                return Ok(all_sent);
            }
        }
    }

    /// The next data message, or `None` for a control frame that has been dealt with.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        // Mostly the task is woken to send.
        if self.all_read && self.stream.get_mut().poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        let frame = Pin::new(&mut self.stream).poll_next(cx);
        // What it has of pongs beyond those that wait already, it hands over when it is polled again.
        self.all_read = frame.is_pending() && !self.stream.get_ref().has_control();
        let frame = ready!(frame);
        Poll::Ready(match frame {
            None => Err(End::Lost),
            Some(Err(error)) => Err(end_of(&error)),
            Some(Ok(frame)) => {
                let wire = self.stream.get_mut();
                match frame {
                    // Copied to a size of its own: a few bytes in an outbox must not keep a whole read buffer alive.
                    Frame::Text(text) => {
                        wire.message_completed();
                        Ok(Some(Message::Text(ByteString::from(text.as_str()))))
                    }
                    Frame::Binary(bytes) => {
                        wire.message_completed();
                        Ok(Some(Message::Binary(Bytes::copy_from_slice(&bytes))))
                    }
                    Frame::Ping(payload) | Frame::Pong(payload) => {
                        wire.control_completed(payload.len());
                        Ok(None)
                    }
                    Frame::Close(frame) => Err(End::ByClient(CloseReason {
                        code: frame.map_or(1000, |frame| frame.code.into()),
                        reason: ByteString::new(),
                    })),
                    Frame::Frame(_) => Ok(None),
                }
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

/// What an error of tungstenite means for the connection (RFC 6455 §7.4.1).
fn end_of(error: &Error) -> End {
    let failed = |code, reason: String| End::Failed(CloseReason { code, reason: reason.into() });
    match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            failed(1009, format!("message larger than {max_size} bytes"))
        }
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<TooManyFragments>()) {
            Some(too_many) => failed(1009, too_many.to_string()),
            None => End::Lost,
        },
        Error::Utf8(_) => failed(1007, "text that is not UTF-8".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Lost,
        Error::Protocol(error) => failed(1002, error.to_string()),
        _ => End::Lost,
    }
}
