//! The inbox of a connection: splits the bytes that arrive into frames, and collects the payload of a message until the
//! message is complete. An idle connection holds nothing here, and all connections together hold no more than a budget.

mod budget;
mod frames;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf, Bytes};
use bytestring::ByteString;

pub use self::budget::InboxBudget;
use self::budget::Share;
use self::frames::{FrameHeader, NOT_UTF_8, Opcode, close_code, unmask};
use crate::base::message::{CloseReason, Message};

/// The frame headers of one message may have `max_message` bytes and this many more. So a message in very many small or
/// empty fragments is refused before it has cost much.
const FRAGMENT_ALLOWANCE: usize = 64 << 10;

const OVER_BUDGET: CloseReason = CloseReason::new(1013, "too much is arriving at once: try again later");
const TOO_MANY_FRAGMENTS: CloseReason = CloseReason::new(1009, "a message in too many fragments");

/// A frame, or a complete message, from an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A complete message.
    Message(Message),
    /// A fragment of an unfinished message.
    Fragment,
    /// A ping with its payload.
    Ping(Vec<u8>),
    Pong,
    /// The client's close frame, with its code if it has one.
    Close(Option<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// The inbox of one connection.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The largest message, in bytes.
    max_message: usize,
    /// Bytes that were read and not split into frames yet.
    rest: Bytes,
    /// The kind of the unfinished message, if there is one.
    begun: Option<Kind>,
    /// Its payload so far.
    payload: Vec<u8>,
    /// The length of its payload at the last [`growth`](Self::growth), if it had begun by then.
    noted: Option<usize>,
    /// Bytes at the front of its payload that are known to be UTF-8.
    valid: usize,
    /// Bytes of its frame headers.
    headers: usize,
    /// Payload bytes of the current frame that are still to come.
    left: usize,
    /// The mask of the current frame, from the next byte on.
    mask: [u8; 4],
    /// True if the current frame ends its message.
    last: bool,
    /// True if messages are discarded, because the connection closes.
    discarding: bool,
    /// Bytes that the stream holds for this inbox: part of a TLS record.
    held: usize,
    share: Share,
}

impl Inbox {
    /// Creates an inbox that begins with `early`, for messages of at most `max_message` bytes.
    pub(super) fn new(early: Vec<u8>, max_message: usize, budget: Arc<InboxBudget>) -> Self {
        Self {
            max_message,
            rest: early.into(),
            begun: None,
            payload: Vec::new(),
            noted: None,
            valid: 0,
            headers: 0,
            left: 0,
            mask: [0; 4],
            last: false,
            discarding: false,
            held: 0,
            share: Share::new(budget),
        }
    }

    /// Records that the client is authenticated: from the next frame on, its messages may have `max_message` bytes.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.max_message = max_message;
        self.share.authenticated();
    }

    /// Discards the payload so far and all later payloads. Frames are still read, to find the client's close frame.
    pub(super) fn discard(&mut self) {
        (self.discarding, self.payload, self.noted, self.valid) = (true, Vec::new(), None, 0);
        self.share.cover(self.held + self.rest.len());
    }

    /// Records how many bytes the stream holds for this inbox. They count like the inbox's own.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), CloseReason> {
        if std::mem::replace(&mut self.held, bytes) == bytes { Ok(()) } else { self.cover() }
    }

    /// Returns by how many bytes the unfinished message has grown since the last call. `None` if there is no unfinished
    /// message, or if it began after the last call.
    pub(super) fn growth(&mut self) -> Option<usize> {
        self.begun?;
        let length = self.payload.len();
        self.noted.replace(length).map(|noted| length - noted)
    }

    /// Returns the next frame of the bytes already read. `None` if more bytes must [arrive](Self::arrived).
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, CloseReason> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut rest = std::mem::take(&mut self.rest);
        let (frame, left) = self.take(&rest)?;
        rest.advance(rest.len() - left);
        // An incomplete frame is copied: it must not keep the memory of everything that was read with it.
        let waits = frame.is_none();
        self.keep(if waits { Bytes::copy_from_slice(&rest) } else { rest })?;
        Ok(frame)
    }

    /// Copies the bytes of an incomplete frame into `buffer` and returns their number, which is less than a header and
    /// the payload of a control frame.
    pub(super) fn prepare(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.rest.len()].copy_from_slice(&self.rest);
        self.rest.len()
    }

    /// Returns the first frame of `bytes`: the bytes of [`prepare`](Self::prepare), and the new bytes after them.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> Result<Option<Frame>, CloseReason> {
        let (frame, left) = self.take(bytes)?;
        self.keep(Bytes::copy_from_slice(&bytes[bytes.len() - left..]))?;
        Ok(frame)
    }

    fn keep(&mut self, rest: Bytes) -> Result<(), CloseReason> {
        // Empty `Bytes` may still keep memory.
        self.rest = if rest.is_empty() { Bytes::new() } else { rest };
        self.cover()
    }

    fn cover(&mut self) -> Result<(), CloseReason> {
        let bytes = self.held + self.rest.len() + self.payload.capacity();
        if self.share.cover(bytes) { Ok(()) } else { Err(OVER_BUDGET) }
    }

    /// Reads a frame at the front of `bytes`, and keeps the payload so far if a data frame is incomplete. Returns the
    /// frame if it is complete, and how many bytes are left.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(Option<Frame>, usize), CloseReason> {
        if self.left == 0 {
            let Some(header) = FrameHeader::read(bytes, self.begun.is_some())? else { return Ok((None, bytes.len())) };
            let payload = &bytes[header.size..];
            if header.opcode.is_control() {
                // A control frame is short, so this never cuts the length.
                let length = header.length as usize;
                return match payload.get(..length) {
                    Some(own) => Ok((Some(control(header, own)?), payload.len() - length)),
                    None => Ok((None, bytes.len())),
                };
            }
            self.begin(header)?;
            bytes = payload;
        }
        let (now, later) = bytes.split_at(self.left.min(bytes.len()));
        self.collect(now)?;
        let frame = if self.left > 0 {
            None
        } else if self.last {
            Some(Frame::Message(self.complete()?))
        } else {
            self.check_text()?;
            Some(Frame::Fragment)
        };
        Ok((frame, later.len()))
    }

    fn begin(&mut self, header: FrameHeader) -> Result<(), CloseReason> {
        let FrameHeader { opcode, last, length, mask, size } = header;
        let room = self.max_message - self.payload.len();
        let left = usize::try_from(length).ok().filter(|&length| length <= room);
        let Some(left) = left else {
            let reason = format!("message larger than {} bytes", self.max_message).into();
            return Err(CloseReason { code: 1009, reason });
        };
        if opcode == Opcode::Continuation {
            self.headers += size;
            if self.headers > self.max_message.saturating_add(FRAGMENT_ALLOWANCE) {
                return Err(TOO_MANY_FRAGMENTS);
            }
        } else {
            self.begun = Some(if opcode == Opcode::Text { Kind::Text } else { Kind::Binary });
            (self.noted, self.valid, self.headers) = (None, 0, 0);
        }
        (self.left, self.mask, self.last) = (left, mask, last);
        Ok(())
    }

    fn collect(&mut self, part: &[u8]) -> Result<(), CloseReason> {
        if self.discarding {
            self.left -= part.len();
            return Ok(());
        }
        let before = self.payload.len();
        if before + part.len() > self.payload.capacity() {
            self.grow(part.len())?;
        }
        self.payload.extend_from_slice(part);
        unmask(&mut self.payload[before..], self.mask);
        self.mask.rotate_left(part.len() % 4);
        self.left -= part.len();
        Ok(())
    }

    /// Makes room for `more` bytes. The memory grows with the bytes that arrive, to at most twice as much. A header
    /// that announces a large payload takes no memory.
    fn grow(&mut self, more: usize) -> Result<(), CloseReason> {
        let (before, left) = (self.payload.len(), self.left);
        let most = if self.last { before + left } else { self.max_message };
        let capacity = (before + more).max(most.min(2 * before));
        // A message that is complete now is handed on now, so it needs no share.
        let whole = self.last && before + more == before + left;
        if !whole && !self.share.cover(self.held + capacity) {
            return Err(OVER_BUDGET);
        }
        self.payload.reserve_exact(capacity - before);
        Ok(())
    }

    /// Refuses text that cannot become UTF-8, whatever bytes follow.
    fn check_text(&mut self) -> Result<(), CloseReason> {
        if self.begun == Some(Kind::Text) {
            match str::from_utf8(&self.payload[self.valid..]) {
                Ok(_) => self.valid = self.payload.len(),
                Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
                Err(_) => return Err(NOT_UTF_8),
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Message, CloseReason> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.shrink_to_fit();
        match self.begun.take() {
            Some(Kind::Text) => match String::from_utf8(payload) {
                Ok(text) => Ok(Message::Text(ByteString::from(text))),
                Err(_) => Err(NOT_UTF_8),
            },
            Some(Kind::Binary) | None => Ok(Message::Binary(payload.into())),
        }
    }
}

fn control(header: FrameHeader, masked: &[u8]) -> Result<Frame, CloseReason> {
    let mut payload = masked.to_vec();
    unmask(&mut payload, header.mask);
    match header.opcode {
        Opcode::Ping => Ok(Frame::Ping(payload)),
        Opcode::Close => close_code(&payload).map(Frame::Close),
        _ => Ok(Frame::Pong),
    }
}
