//! The TCP stream below a WebSocket.
//!
//! A server's frames are a few header bytes before the payload (RFC 6455 §5.2), so a message goes from its shared bytes to
//! the socket with at most one copy, many of them in one system call; and what arrives goes from the system call to the
//! message that it is part of. The buffers for both belong to the threads: a connection holds none while it waits.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::end::End;
use super::inbox::{Frame, Inbox};
use crate::base::message::{CloseReason, Message};
use crate::edge::heartbeat::Link;
use crate::hub::outbox::Outbox;

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

/// Frames that are taken off what arrives before other tasks have their turn: a client that sends nothing but pings or
/// fragments must not keep its thread.
const FRAMES_PER_TURN: u32 = 256;

/// Pongs (at most 127 bytes each) that may wait for a peer that does not read; when there is no room, only the latest
/// ping is answered (RFC 6455 §5.5.3 allows that).
const MAX_CONTROL: usize = 1 << 10;

/// The longest reason that fits a close frame, in bytes (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

/// Opcodes and FIN bit of the frames that a server sends (RFC 6455 §5.2).
mod first_byte {
    pub(super) const TEXT: u8 = 0x81;
    pub(super) const BINARY: u8 = 0x82;
    pub(super) const CLOSE: u8 = 0x88;
    pub(super) const PING: u8 = 0x89;
    pub(super) const PONG: u8 = 0x8a;
}

/// A TCP stream with what has arrived from it, and with frames waiting to be written to it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    link: Arc<Link>,
    inbox: Inbox,
    /// The bytes a second that an unfinished message must grow by, on average.
    min_message_rate: usize,
    /// Something has arrived since it was last noted when the client was heard.
    arrived: bool,
    /// Frames taken in this turn.
    frames: u32,
    /// Pongs and our pings, whole, not yet part of `batch`.
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
    /// Writing has failed: the peer is gone, and only what it sent before is left to do.
    broken: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, link: Arc<Link>, inbox: Inbox, min_message_rate: usize) -> Self {
        Self {
            stream,
            link,
            inbox,
            min_message_rate,
            arrived: true,
            frames: 0,
            control: Vec::new(),
            batch: Vec::new(),
            written: 0,
            large: Bytes::new(),
            last: None,
            closed: false,
            broken: false,
        }
    }

    /// The client is authenticated: from now on, its messages may have `max_message` bytes.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.inbox.allow(max_message);
    }

    /// The next frame of the client. While it is pending, the heartbeat may judge how long the client is silent.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        if self.frames >= FRAMES_PER_TURN {
            self.end_turn();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = match self.inbox.next().map_err(End::Failed)? {
            Some(frame) => frame,
            None => loop {
                match self.poll_read(cx) {
                    Poll::Ready(read) => {
                        if let Some(frame) = read? {
                            break frame;
                        }
                    }
                    Poll::Pending => {
                        self.end_turn();
                        self.link.set_listening(true);
                        return Poll::Pending;
                    }
                }
            },
        };
        self.frames += 1;
        if matches!(frame, Frame::Message(_)) {
            self.link.set_listening(false);
        }
        Poll::Ready(Ok(frame))
    }

    /// Reads once, and takes the first frame off what has arrived.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, End>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let waited = self.inbox.prepare(buffer);
            let mut read = ReadBuf::new(&mut buffer[waited..]);
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(Err(End::Lost));
            }
            let end = waited + read.filled().len();
            self.arrived = true;
            Poll::Ready(self.inbox.arrived(&buffer[..end]).map_err(End::Failed))
        })
    }

    /// Notes when the client was heard: once for all that was read in a turn.
    fn end_turn(&mut self) {
        self.frames = 0;
        if std::mem::take(&mut self.arrived) {
            match self.inbox.growth() {
                Some(bytes) => self.link.heard_part(bytes, self.min_message_rate),
                None => self.link.heard(),
            }
        }
    }

    /// Whether the kernel has found out that the peer is gone.
    pub(super) fn is_dead(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }

    /// Writes what waits in `outbox` and of control frames, in as few system calls as possible, until all has left or
    /// the peer takes no more. If the peer is gone, all is discarded instead: what it has sent before can still be read.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<()> {
        if !self.broken {
            match self.poll_write(cx, outbox) {
                Poll::Ready(written) => self.broken = written.is_err(),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.broken {
            (self.batch, self.written, self.large, self.control) = Default::default();
            outbox.clear();
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<()>> {
        loop {
            if self.poll_flush(cx)?.is_pending() {
                outbox.keep_batch(self.batch.len());
                return Poll::Pending;
            }
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
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        self.inbox.discard();
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

    /// Queues the answer to a ping.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        if self.control.len() + 2 + payload.len() > MAX_CONTROL {
            self.control.clear();
        }
        self.control.extend([first_byte::PONG, payload.len() as u8]);
        self.control.extend_from_slice(payload);
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
