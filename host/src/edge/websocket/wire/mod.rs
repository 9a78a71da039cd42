//! The wire of a WebSocket: its stream, and the frames on it.
//!
//! A server's frame is a few header bytes before the payload (RFC 6455 §5.2). So a message goes from its shared bytes
//! to the socket with at most one copy, and one system call sends many messages. Bytes that arrive go from the system
//! call directly into their message. The buffers for both belong to the threads: a connection that waits holds no
//! buffer.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::end::End;
use super::inbox::{Frame, Inbox};
use super::meter::{Meter, RateLimits};
use super::traffic::Traffic;
use crate::base::message::{CloseReason, Message};
use crate::base::metrics::METRICS;
use crate::edge::heartbeat::Link;
use crate::edge::listener::Stream;
use crate::hub::outbox::Outbox;

/// Bytes gathered for one write: a few TCP segments, and little enough that copying small payloads is cheaper than
/// passing each of them to the kernel.
pub(super) const BATCH: usize = 16 << 10;
/// Payloads of at least this size are written without a copy.
const LARGE: usize = 4 << 10;
/// Bytes read at once.
const READ: usize = 16 << 10;

thread_local! {
    /// The buffer to read into.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
    /// The buffer to gather a write in. It is taken out while it is in use.
    static BATCH_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Frames handled before other tasks get a turn: a client that sends nothing but pings or fragments must not block its
/// thread.
const FRAMES_PER_TURN: u32 = 256;

/// Bytes of pongs (at most 127 each) that may wait for a peer that does not read. When there is no room, only the
/// latest ping is answered (RFC 6455 §5.5.3 allows that).
const MAX_CONTROL: usize = 1 << 10;

/// The first byte of each frame that a server sends: FIN bit and opcode (RFC 6455 §5.2).
mod first_byte {
    pub(super) const TEXT: u8 = 0x81;
    pub(super) const BINARY: u8 = 0x82;
    pub(super) const CLOSE: u8 = 0x88;
    pub(super) const PING: u8 = 0x89;
    pub(super) const PONG: u8 = 0x8a;
}

/// A stream with its inbox, and with the frames that wait to be written.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    link: Arc<Link>,
    inbox: Inbox,
    /// The least growth of an unfinished message, in bytes a second, on average.
    min_message_rate: usize,
    /// Measures how fast the client sends. Only connections whose rates are limited have one, so it is boxed.
    meter: Option<Box<Meter>>,
    /// True if bytes have arrived since the link was last told that the client was heard.
    arrived: bool,
    /// Frames handled in this turn.
    frames: u32,
    /// Complete pongs and pings that are not in `batch` yet.
    control: Vec<u8>,
    /// Bytes that are being written. The first `written` of them are sent.
    batch: Vec<u8>,
    written: usize,
    /// The unsent rest of a payload that follows the batch.
    large: Bytes,
    /// A close frame, to be sent when everything else is sent.
    last: Option<Box<[u8]>>,
    /// True if the close frame is in `batch` or sent: no frame may follow it.
    closed: bool,
    /// True if writing has failed: the peer is gone. Its earlier data can still be read.
    broken: bool,
    /// The messages that were taken from the outbox to be written.
    pub(super) sent: Traffic,
    /// True until the response to the upgrade, which is in `batch`, is written for the first time.
    beginning: bool,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, link: Arc<Link>, inbox: Inbox, min_message_rate: usize) -> Self {
        Self {
            stream,
            link,
            inbox,
            min_message_rate,
            meter: None,
            arrived: true,
            frames: 0,
            control: Vec::new(),
            batch: Vec::new(),
            written: 0,
            large: Bytes::new(),
            last: None,
            closed: false,
            broken: false,
            sent: Traffic::default(),
            beginning: false,
        }
    }

    /// Sends this response to the upgrade before all frames, and in one write with those that are ready then.
    pub(super) fn beginning_with(self, response: String) -> Self {
        Self { batch: response.into_bytes(), beginning: true, ..self }
    }

    /// Records that the client is authenticated: from now on, its messages may have `max_message` bytes.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.inbox.allow(max_message);
    }

    /// Limits how fast the client may send, from now on.
    pub(super) fn limit(&mut self, rates: Option<RateLimits>) {
        match (&mut self.meter, rates) {
            (Some(meter), Some(rates)) => meter.set_rates(rates),
            (None, None) => {}
            (meter, rates) => *meter = rates.map(|rates| Box::new(Meter::new(rates))),
        }
    }

    /// Returns the client's next frame. While this is pending, the heartbeat counts how long the client is silent.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        if self.frames >= FRAMES_PER_TURN {
            self.end_turn();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.poll_rates(cx)?.is_pending() {
            return self.wait();
        }
        let frame = match self.inbox.next().map_err(End::ProtocolViolation)? {
            Some(frame) => frame,
            None => loop {
                match self.poll_read(cx) {
                    Poll::Ready(read) => {
                        if let Some(frame) = read? {
                            break frame;
                        }
                    }
                    Poll::Pending => {
                        // Part of a TLS record may have arrived.
                        self.inbox.hold(self.stream.unread()).map_err(End::ProtocolViolation)?;
                        return self.wait();
                    }
                }
            },
        };
        self.frames += 1;
        if matches!(frame, Frame::Message(_)) {
            self.link.set_listening(false);
            if let Some(meter) = &mut self.meter {
                meter.count_message();
            }
        }
        Poll::Ready(Ok(frame))
    }

    /// Ends a turn, because the client has sent nothing more or must pause. In a pause nobody listens to it.
    fn wait<T>(&mut self) -> Poll<T> {
        self.end_turn();
        self.link.set_listening(!self.meter.as_ref().is_some_and(|meter| meter.is_pausing()));
        Poll::Pending
    }

    /// Ready when the client's rates allow to read on.
    fn poll_rates(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        self.meter.as_mut().map_or(Poll::Ready(Ok(())), |meter| meter.poll_ready(cx, &self.link))
    }

    /// Reads once, and returns the first frame if it is complete.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, End>> {
        ready!(self.poll_rates(cx))?;
        READ_BUFFER.with_borrow_mut(|buffer| {
            let waited = self.inbox.prepare(buffer);
            let most = self.meter.as_ref().map_or(usize::MAX, |meter| meter.most_at_once());
            let room = (buffer.len() - waited).min(most);
            let mut read = ReadBuf::new(&mut buffer[waited..waited + room]);
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(Err(End::Lost));
            }
            let count = read.filled().len();
            if let Some(meter) = &mut self.meter {
                meter.count_bytes(count);
            }
            let end = waited + count;
            self.arrived = true;
            let frame = self.inbox.arrived(&buffer[..end]).and_then(|frame| {
                self.inbox.hold(self.stream.unread())?;
                Ok(frame)
            });
            Poll::Ready(frame.map_err(End::ProtocolViolation))
        })
    }

    /// Ends a turn: records that the client was heard, once for everything that was read in the turn.
    fn end_turn(&mut self) {
        self.frames = 0;
        if std::mem::take(&mut self.arrived) {
            match self.inbox.growth() {
                Some(bytes) => self.link.heard_part(bytes, self.min_message_rate),
                None => self.link.heard(),
            }
        }
    }

    /// Returns `true` if the kernel has found out that the peer is gone.
    pub(super) fn is_dead(&self) -> bool {
        self.stream.is_dead()
    }

    /// Writes the messages in `outbox` and the control frames, in as few system calls as possible, until everything is
    /// sent or the peer takes no more. If the peer is gone, discards them all; the peer's earlier data can still be
    /// read.
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

    /// Begins to write the response to the upgrade, if nothing was written yet.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.beginning)
            && let Poll::Ready(Err(_)) = self.poll_flush(cx)
        {
            self.broken = true;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.beginning) {
            self.gather_messages(outbox);
        }
        loop {
            if self.poll_flush(cx)?.is_pending() {
                outbox.keep_batch(self.batch.len() + self.stream.unsent());
                return Poll::Pending;
            }
            self.batch = BATCH_BUFFER.take();
            self.gather_control();
            if !self.closed {
                self.gather_messages(outbox);
            }
            if self.batch.is_empty()
                && let Some(close) = self.last.take_if(|_| !self.closed)
            {
                self.batch.extend_from_slice(&close);
                self.closed = true;
            }
            if self.batch.is_empty() {
                self.give_back_batch();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes the bytes that are already gathered, and no others.
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
                // This wait may be long, so the rest keeps only the memory that it needs.
                self.batch.drain(..std::mem::take(&mut self.written));
                self.batch.shrink_to_fit();
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(head.len());
            self.written += of_head;
            // Not `advance`, which would keep the payload's memory even after everything is sent.
            self.large = self.large.slice(count - of_head..);
        }
        self.give_back_batch();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn give_back_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.written = 0;
        if batch.capacity() > 0 {
            batch.clear();
            // The larger one stays.
            let other = BATCH_BUFFER.take();
            BATCH_BUFFER.set(if other.capacity() > batch.capacity() { other } else { batch });
        }
    }

    /// Prepares a close frame, to be sent after everything that is queued. No frame follows it.
    pub(super) fn close(&mut self, reason: &CloseReason) {
        self.inbox.discard();
        // The peer's close frame must be found in time.
        self.meter = None;
        let text = &reason.reason[..reason.reason.floor_char_boundary(CloseReason::LONGEST)];
        let mut frame = Vec::with_capacity(4 + text.len());
        frame.extend([first_byte::CLOSE, 2 + text.len() as u8]);
        frame.extend(reason.code.to_be_bytes());
        frame.extend(text.as_bytes());
        self.last = Some(frame.into());
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

    /// Returns the stream, to read and discard its last bytes.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Moves the control frames into the batch. They must stand between complete frames.
    fn gather_control(&mut self) {
        if !self.control.is_empty() && !self.closed {
            self.batch.append(&mut self.control);
            self.control = Vec::new();
        }
    }

    /// Moves messages into the batch until it is full.
    fn gather_messages(&mut self, outbox: &Outbox) {
        let before = self.sent.bytes;
        outbox.drain(|message| self.gather(message));
        METRICS.sent_bytes.add(self.sent.bytes - before);
    }

    /// Adds a message to the batch. Returns `Break` if the batch is full.
    fn gather(&mut self, message: Message) -> ControlFlow<()> {
        let (first, payload) = match message {
            Message::Text(text) => (first_byte::TEXT, text.into_bytes()),
            Message::Binary(bytes) => (first_byte::BINARY, bytes),
        };
        self.sent.count(payload.len());
        self.batch.push(first);
        // The second byte contains a length up to 125. A larger length follows it in 16 or 64 bits (RFC 6455 §5.2).
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

#[cfg(test)]
mod tests;
