//! The TCP stream below a WebSocket: what tungstenite reads from, and what both it and the outbox are written to.
//!
//! tungstenite reads and checks what the client sends, and answers its pings. Everything else that we send we frame
//! ourselves: a server's frames are a few header bytes before the payload (RFC 6455 §5.2), so a message goes from its
//! shared bytes to the socket with at most one copy, many of them in one system call. The buffers for that belong to the
//! threads: a connection holds none while it waits.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::link::Link;
use crate::message::{CloseReason, Message};
use crate::outbox::Outbox;

/// How much is gathered for one write: a few TCP segments, and little enough that copying small payloads is cheaper
/// than handing each to the kernel.
pub(super) const BATCH: usize = 16 << 10;
/// Payloads from this size on are written from where they are.
const LARGE: usize = 4 << 10;
/// How much is read at once.
const READ: usize = 16 << 10;

thread_local! {
    /// Where to read to.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
    /// Where to gather what is written; it is taken while it is in use.
    static BATCH_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Pongs (at most 127 bytes each) that may wait for a peer that does not read; further ones wait in tungstenite, which
/// answers only the latest ping when it has no room either (RFC 6455 §5.5.3 allows that).
const MAX_CONTROL: usize = 1 << 10;
/// What the frames of one message may cost on the wire beyond twice the message bound: a message cut into fragments of
/// a few bytes, or of none, is refused before it has cost much.
const FRAGMENT_ALLOWANCE: usize = 64 << 10;

/// The longest reason that fits a close frame, in bytes (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

/// Opcodes and FIN bit of the frames that a server sends (RFC 6455 §5.2).
mod first_byte {
    pub(super) const TEXT: u8 = 0x81;
    pub(super) const BINARY: u8 = 0x82;
    pub(super) const CLOSE: u8 = 0x88;
    pub(super) const PING: u8 = 0x89;
}

/// A TCP stream with frames waiting to be written to it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    link: Arc<Link>,
    /// Bytes that have been read and not been asked for yet.
    ahead: Bytes,
    /// Bytes received since the last whole message, and the most that there may be.
    received: usize,
    max_received: usize,
    /// Pongs of tungstenite and our pings, whole, not yet part of `batch`.
    control: Vec<u8>,
    /// Bytes on their way; up to `written` they have left.
    batch: Vec<u8>,
    written: usize,
    /// A payload that follows the batch, and how much of it has left.
    large: Bytes,
    /// A close frame that leaves once nothing else is left.
    last: Option<Vec<u8>>,
    /// A close frame is on its way: nothing may follow it.
    closed: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, link: Arc<Link>, max_message: usize) -> Self {
        Self {
            stream,
            link,
            ahead: Bytes::new(),
            received: 0,
            max_received: max_message.saturating_mul(2).saturating_add(FRAGMENT_ALLOWANCE),
            control: Vec::new(),
            batch: Vec::new(),
            written: 0,
            large: Bytes::new(),
            last: None,
            closed: false,
        }
    }

    /// To be called for each data message read: its frames are paid for.
    pub(super) fn message_completed(&mut self) {
        self.received = 0;
    }

    /// To be called for each ping or pong read; they may stand between the fragments of a message (RFC 6455 §5.4), whose
    /// bound they neither use up nor renew.
    pub(super) fn control_completed(&mut self, payload: usize) {
        // Opcode, length and mask take six bytes.
        self.received = self.received.saturating_sub(payload + 6);
    }

    /// Whether a control frame waits to be written.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() { self.stream.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Writes what waits in `outbox` and of control frames, in as few system calls as possible, until all has left or
    /// the peer takes no more.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            self.batch = BATCH_BUFFER.take();
            self.gather_control();
            if !self.closed {
                outbox.drain(|message| self.gather(message));
            }
            if self.batch.is_empty()
                && let Some(close) = self.last.take_if(|_| !self.closed)
            {
                self.batch.extend(close);
                self.closed = true;
            }
            if self.batch.is_empty() {
                self.give_back_batch();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes what has been gathered, and no more.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.batch.len() || !self.large.is_empty() {
            let head = &self.batch[self.written..];
            let stream = Pin::new(&mut self.stream);
            let written = if self.large.is_empty() {
                stream.poll_write(cx, head)?
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(&self.large)])?
            };
            let Poll::Ready(count) = written else {
                // It may be long: what is left takes no more than it needs.
                self.batch.drain(..std::mem::take(&mut self.written));
                self.batch.shrink_to_fit();
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(head.len());
            self.written += of_head;
            // Not `advance`: what has left is to be freed.
            self.large = self.large.slice(count - of_head..);
        }
        self.give_back_batch();
        Poll::Ready(Ok(()))
    }

    fn give_back_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.written = 0;
        if batch.capacity() > 0 {
            batch.clear();
            BATCH_BUFFER.set(batch);
        }
    }

    /// Has a close frame sent once all that is queued has left. Nothing follows it.
    pub(super) fn close(&mut self, reason: &CloseReason) {
        let text = &reason.reason[..reason.reason.floor_char_boundary(MAX_REASON)];
        let mut frame = Vec::with_capacity(4 + text.len());
        frame.extend([first_byte::CLOSE, 2 + text.len() as u8]);
        frame.extend(reason.code.to_be_bytes());
        frame.extend(text.as_bytes());
        self.last = Some(frame);
    }

    /// Queues an empty ping.
    pub(super) fn ping(&mut self) {
        self.control.extend([first_byte::PING, 0]);
    }

    /// The stream itself, for reading and discarding what still comes.
    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Takes over the control frames: they stand between whole frames.
    fn gather_control(&mut self) {
        if !self.control.is_empty() && !self.closed {
            self.batch.append(&mut self.control);
            self.control = Vec::new();
        }
    }

    fn gather(&mut self, message: Message) -> ControlFlow<()> {
        let (first, payload) = match message {
            Message::Text(text) => (first_byte::TEXT, text.into_bytes()),
            Message::Binary(bytes) => (first_byte::BINARY, bytes),
        };
        self.batch.push(first);
        // Payload lengths up to 125 stand in the second byte, larger ones after it in 16 or 64 bits (RFC 6455 §5.2).
        match payload.len() {
            length @ 0..126 => self.batch.push(length as u8),
            length @ 126..65_536 => {
                self.batch.push(126);
                self.batch.extend((length as u16).to_be_bytes());
            }
            length => {
                self.batch.push(127);
                self.batch.extend((length as u64).to_be_bytes());
            }
        }
        if payload.len() >= LARGE {
            self.large = payload;
            return ControlFlow::Break(());
        }
        self.batch.extend_from_slice(&payload);
        if self.batch.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Wire {
    /// Counts what has arrived.
    fn arrived(&mut self, count: usize) -> io::Result<()> {
        if count > 0 {
            self.link.heard();
            self.received += count;
        }
        if self.received > self.max_received {
            return Err(io::Error::new(io::ErrorKind::InvalidData, TooManyFragments));
        }
        Ok(())
    }
}

/// tungstenite's buffer is small, because each connection has one; what is read beyond it waits here.
impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return READ_BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
                let (now, later) = read.filled().split_at(buf.remaining().min(read.filled().len()));
                buf.put_slice(now);
                if !later.is_empty() {
                    self.ahead = Bytes::copy_from_slice(later);
                }
                Poll::Ready(self.arrived(read.filled().len()))
            });
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            // Its memory, too.
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Where tungstenite writes: only pongs ever come this way, each frame in one piece. It is not polled again once it would
/// answer a close frame.
impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<usize>> {
        if self.control.len() + frame.len() > MAX_CONTROL {
            // No waker is kept: whoever makes room by `poll_send` polls tungstenite again.
            return Poll::Pending;
        }
        self.control.extend_from_slice(frame);
        Poll::Ready(Ok(frame.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The frames of one message cost too much.
#[derive(Debug, thiserror::Error)]
#[error("a message in too many fragments")]
pub(super) struct TooManyFragments;
