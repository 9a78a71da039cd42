//! A connection, its handler, and its end.

use std::fmt;
use std::os::fd::OwnedFd;

use super::Net;
use super::tls::Tls;

pub(crate) type ConnId = u32;
pub(crate) const NO_CONN: ConnId = u32::MAX;

/// Scenario code that the loop calls. `tag` is the value with which the connection was opened.
pub(crate) trait Handler {
    /// A raw TCP connection is open, or a WebSocket handshake is complete.
    fn on_open(&mut self, net: &mut Net, c: ConnId, tag: u32, now: u64);
    /// A complete data message has arrived. Fragments are already joined.
    fn on_message(&mut self, net: &mut Net, c: ConnId, tag: u32, data: &[u8], now: u64);
    /// Raw bytes have arrived. Returns the number of consumed bytes. The rest is offered again with more bytes.
    fn on_raw(&mut self, _net: &mut Net, _c: ConnId, _tag: u32, data: &[u8], _now: u64) -> usize {
        data.len()
    }
    /// A pong has arrived.
    fn on_pong(&mut self, _net: &mut Net, _c: ConnId, _tag: u32, _now: u64) {}
    /// The connection has ended, but not by [`Net::close`].
    fn on_close(&mut self, net: &mut Net, c: ConnId, tag: u32, why: &Gone, now: u64);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// connect() failed.
    Refused(String),
    /// The HTTP upgrade failed.
    Handshake(String),
    /// The peer sent a close frame with this code, or without one (1005).
    CloseFrame(u16),
    /// End of stream without a close frame.
    Eof,
    /// Read or write error.
    Io(String),
    /// An answer of the HTTP API that ends the connection.
    Answer(String),
    /// The peer broke the framing rules.
    Protocol(&'static str),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Refused(e) => write!(f, "connect: {e}"),
            Gone::Handshake(e) | Gone::Answer(e) => write!(f, "{e}"),
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

/// A place for a connection. When the connection ends, the next one reuses the place and its buffers.
#[derive(Default)]
pub(super) struct Conn {
    /// `None` if the place is free.
    pub(super) socket: Option<OwnedFd>,
    /// Distinguishes the connections that use this place one after the other.
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) raw: bool,
    pub(super) writable: bool,
    /// True if the connection is in the list of connections with unsent bytes.
    pub(super) dirty: bool,
    pub(super) failed: bool,
    pub(super) close_sent: bool,
    pub(super) tag: u32,
    pub(super) mask: u32,
    /// Incomplete input.
    pub(super) rest: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// The number of bytes of `out` that are sent.
    pub(super) out_pos: usize,
    /// State of a handshake or of a fragmented message, while one is under way.
    pub(super) aside: Option<Box<Aside>>,
    pub(super) tls: Option<Box<Tls>>,
}

#[derive(Default)]
pub(super) struct Aside {
    pub(super) key: String,
    pub(super) path: String,
    pub(super) fragments: Option<Vec<u8>>,
}
