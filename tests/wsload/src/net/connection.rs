//! A connection, who is told about it, and how it ends.

use std::fmt;
use std::os::fd::OwnedFd;

use super::Net;

pub(crate) type ConnId = u32;
pub(crate) const NO_CONN: ConnId = u32::MAX;

/// Scenario code called by the loop. `tag` is what the connection was opened with.
pub(crate) trait Handler {
    /// TCP connected (raw), or the WebSocket handshake is complete.
    fn on_open(&mut self, net: &mut Net, c: ConnId, tag: u32, now: u64);
    /// A complete data message (fragments already joined).
    fn on_message(&mut self, net: &mut Net, c: ConnId, tag: u32, data: &[u8], now: u64);
    /// Raw bytes; returns how many were consumed. The rest is offered again with more.
    fn on_raw(&mut self, _net: &mut Net, _c: ConnId, _tag: u32, data: &[u8], _now: u64) -> usize {
        data.len()
    }
    /// A pong arrived.
    fn on_pong(&mut self, _net: &mut Net, _c: ConnId, _tag: u32, _now: u64) {}
    /// The connection is gone, not by our own `close`.
    fn on_close(&mut self, net: &mut Net, c: ConnId, tag: u32, why: &Gone, now: u64);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// connect() failed.
    Refused(String),
    /// The HTTP upgrade failed.
    Handshake(String),
    /// Close frame from the peer (with its code, 1005 when absent).
    CloseFrame(u16),
    /// End of stream without a close frame.
    Eof,
    /// Read or write error.
    Io(String),
    /// The peer broke the framing rules.
    Protocol(&'static str),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Refused(e) => write!(f, "connect: {e}"),
            Gone::Handshake(e) => write!(f, "{e}"),
            Gone::CloseFrame(c) => write!(f, "closed by the server with code {c}"),
            Gone::Eof => write!(f, "end of stream"),
            Gone::Io(e) => write!(f, "i/o: {e}"),
            Gone::Protocol(e) => write!(f, "protocol error: {e}"),
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum State {
    #[default]
    Connecting,
    Upgrading,
    Open,
}

/// A place for a connection, kept for the next one with its buffers.
#[derive(Default)]
pub(super) struct Conn {
    /// Without one the place is free.
    pub(super) socket: Option<OwnedFd>,
    /// Tells the events of one connection in this place from those of the next.
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) raw: bool,
    pub(super) writable: bool,
    /// Is in the list of those that have something to send.
    pub(super) dirty: bool,
    pub(super) failed: bool,
    pub(super) close_sent: bool,
    pub(super) tag: u32,
    pub(super) mask: u32,
    /// Incomplete input.
    pub(super) rest: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// How much of `out` is sent.
    pub(super) out_pos: usize,
    /// Only while a handshake or a fragmented message is under way.
    pub(super) aside: Option<Box<Aside>>,
}

#[derive(Default)]
pub(super) struct Aside {
    pub(super) key: String,
    pub(super) path: String,
    pub(super) fragments: Option<Vec<u8>>,
}
