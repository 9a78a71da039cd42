//! A WebSocket as the connection's task sees it: packets come in, the outbox goes out, and both at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, Role, WebSocketConfig as Protocol};

use super::link::Link;
use super::wire::{TooManyFragments, Wire};
use crate::message::{Cause, CloseReason, Message};
use crate::outbox::Closing;

/// What is read at a time. Most messages are far smaller, and every connection holds a buffer of this size.
const READ_BUFFER: usize = 4 << 10;
/// What tungstenite may hold of its own answers; see [`Wire`].
const MAX_CONTROL: usize = 512;
/// Packets handled before what is queued is written although more can be read: reading first makes for few, large
/// writes, but must not keep the client waiting for as long as it goes on sending.
const PACKETS_BEFORE_SEND: u32 = 32;
/// What is read, at most, of a client that goes on sending after its connection has failed.
const MAX_DISCARDED: u64 = 16 << 20;

/// How a connection came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The client sent a close frame, with this code if any; tungstenite has its answer ready.
    ByClient(Option<u16>),
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

    /// The code of the close frame, where there is one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::ByClient(code) => *code,
            Self::Closing(Closing { reason, .. }) | Self::Failed(reason) => Some(reason.code),
            Self::Lost => None,
        }
    }
}

/// One WebSocket after its handshake.
pub(super) struct Socket {
    stream: WebSocketStream<Wire>,
    link: Arc<Link>,
    packets_since_send: u32,
}

impl Socket {
    /// Takes over a stream on which the upgrade has been answered; `early` is what the client sent after its request.
    pub(super) async fn new(stream: TcpStream, early: Vec<u8>, link: Arc<Link>, max_message: usize) -> Self {
        let protocol = Protocol::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_CONTROL)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let wire = Wire::new(stream, link.clone(), max_message);
        let stream = WebSocketStream::from_partially_read(wire, early, Role::Server, Some(protocol)).await;
        Self { stream, link, packets_since_send: 0 }
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
                Ok(()) => Poll::Pending,
            }
        })
        .await
    }

    /// Ends the connection: sends what the end demands within `patience`, and cuts it off after that.
    pub(super) async fn finish(mut self: Box<Self>, end: &End, patience: Duration) {
        let done = match end {
            End::Lost => true,
            End::ByClient(_) => timeout(patience, self.answer_close()).await.is_ok(),
            End::Closing(closing) => timeout(patience, self.close(&closing.reason)).await.is_ok(),
            End::Failed(reason) => timeout(patience, self.fail(reason)).await.is_ok(),
        };
        if !done {
            // The peer does not read: a reset, or the kernel would go on trying to deliver what it holds.
            let _ = self.stream.get_mut().stream().set_zero_linger();
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        if self.packets_since_send >= PACKETS_BEFORE_SEND {
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
                    self.poll_send(cx)?;
                    // A pong that did not fit before may fit now; tungstenite hands it over when it is polled.
                    if !self.stream.get_mut().has_made_room() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Starts or continues sending, and notices that the connection is to be closed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.packets_since_send = 0;
        let outbox = &self.link.outbox;
        outbox.register(cx.waker());
        if let Some(closing) = outbox.closing() {
            return Err(End::Closing(closing));
        }
        let wire = self.stream.get_mut();
        if self.link.take_ping() {
            wire.ping();
        }
        match wire.poll_send(cx, outbox) {
            Poll::Ready(Err(_)) => Err(End::Lost),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// The next data message, or `None` for a control frame that has been dealt with.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        let frame = ready!(Pin::new(&mut self.stream).poll_next(cx));
        Poll::Ready(match frame {
            None => Err(End::Lost),
            Some(Err(error)) => Err(end_of(&error)),
            Some(Ok(frame)) => {
                self.stream.get_mut().message_completed();
                match frame {
                    // Copied to a size of its own: a few bytes in an outbox must not keep a whole read buffer alive.
                    Frame::Text(text) => Ok(Some(Message::Text(ByteString::from(text.as_str())))),
                    Frame::Binary(bytes) => Ok(Some(Message::Binary(Bytes::copy_from_slice(&bytes)))),
                    Frame::Close(frame) => Err(End::ByClient(frame.map(|frame| frame.code.into()))),
                    Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(None),
                }
            }
        })
    }

    /// Sends what the client's own packets have led to, then tungstenite's answer to its close frame (RFC 6455 §5.5.1),
    /// then ends the TCP connection.
    async fn answer_close(&mut self) {
        let _ = poll_fn(|cx| {
            ready!(self.stream.get_mut().poll_send(cx, &self.link.outbox))?;
            // tungstenite hands its answer over when it is polled; nothing is in its way any more.
            let _ = Pin::new(&mut self.stream).poll_next(cx);
            self.stream.get_mut().poll_send(cx, &self.link.outbox)
        })
        .await;
        let _ = self.stream.get_mut().shutdown().await;
    }

    /// The closing handshake begun by us (RFC 6455 §7.1.2): what is queued, our close frame, then the client's.
    async fn close(&mut self, reason: &CloseReason) {
        self.stream.get_mut().close(reason);
        poll_fn(|cx| {
            loop {
                match self.poll_frame(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            match self.stream.get_mut().poll_send(cx, &self.link.outbox) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let _ = self.stream.get_mut().shutdown().await;
    }

    /// Fails the connection (RFC 6455 §7.1.7): what is queued, a close frame, and then the end of what we send. What the
    /// client still sends is read and discarded, since closing with unread data would reset the connection and the
    /// client might never see why.
    async fn fail(&mut self, reason: &CloseReason) {
        let wire = self.stream.get_mut();
        wire.close(reason);
        let sent = poll_fn(|cx| wire.poll_send(cx, &self.link.outbox)).await;
        if sent.is_ok() {
            linger(wire.stream()).await;
        }
    }
}

/// Ends our side of a stream and waits for the peer to end its own.
pub(super) async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(MAX_DISCARDED), &mut tokio::io::sink()).await;
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
