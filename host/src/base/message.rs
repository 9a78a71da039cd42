//! A message as it travels through the gateway: text or binary, in shared bytes. Cloning a message does not copy its
//! payload, so a message to many recipients is stored once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use bytestring::ByteString;

/// One WebSocket data message (RFC 6455 §5.6), or one line of the text port. Its `Debug` shows the length, never the
/// content: the first packet of a client usually holds a password or token.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(ByteString),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// Returns the payload.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Returns the payload's length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Returns `true` if this message is the only holder of its bytes.
    pub fn is_unique(&self) -> bool {
        match self {
            Self::Text(text) => text.as_bytes().is_unique(),
            Self::Binary(bytes) => bytes.is_unique(),
        }
    }

    /// Returns `true` if the payload is empty. Empty messages are delivered like all others.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self, Self::Text(_)) { "Text" } else { "Binary" };
        write!(f, "{kind}({} bytes)", self.len())
    }
}

/// The id of one connection. Unique for as long as the process runs; in a cluster for ever, as far as the gateway's
/// state folder and clock tell. 0 is never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The bits of an id that count connections. The bits above are the node's.
const COUNTER_BITS: u32 = 54;
const COUNTER: u64 = (1 << COUNTER_BITS) - 1;

/// The id given out last.
static LAST: AtomicU64 = AtomicU64::new(0);

impl ConnectionId {
    /// Returns an id for a new connection.
    pub fn next() -> Self {
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }

    /// Begins to number the connections of one gateway of a cluster: 9 bits with its node, then 54 bits that go on from
    /// `first`. The sign bit stays free.
    pub fn begin(node: u16, first: u64) {
        LAST.store(u64::from(node) << COUNTER_BITS | first & COUNTER, Relaxed);
    }

    /// Returns the node of the cluster whose connection this is; 0 without a cluster.
    pub fn node(self) -> u16 {
        u16::try_from(self.0 >> COUNTER_BITS).unwrap_or(u16::MAX)
    }

    /// Returns the id without the node.
    pub fn count(self) -> u64 {
        self.0 & COUNTER
    }

    /// Returns the id of the newest connection.
    pub fn newest() -> Self {
        Self(LAST.load(Relaxed))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key that tells clients apart without storing their identity: the same address and uid give the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey(u64);

impl ClientKey {
    /// Returns the key for this uid at this address. The uid is empty for a client that is not authenticated.
    pub fn new(address: IpAddr, uid: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (network_of(address), uid).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Returns the address that stands for one client: its IPv4 address, or the first address of its IPv6 /64 network
/// (RFC 6177 §2).
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The reason in a close frame (RFC 6455 §7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The status code.
    pub code: u16,
    /// Text for people: at most 123 bytes, so that it fits a control frame.
    pub reason: ByteString,
}

impl CloseReason {
    /// The longest text that fits a close frame, in bytes (RFC 6455 §5.5).
    pub const LONGEST: usize = 123;

    /// Creates a reason with a fixed text.
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: ByteString::from_static(reason) }
    }
}

/// A name with a value. Its `Debug` shows the name only: the value may be a cookie or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: …", self.name)
    }
}

/// The cause that ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a close frame.
    Client,
    /// A plugin denied or closed the connection, or failed.
    Plugin,
    /// No authenticator accepted the client, or none in time.
    Unauthenticated,
    /// An operator closed the connection.
    Operator,
    /// Nothing arrived for longer than the heartbeat's timeout.
    Silent,
    /// The client did not read its messages.
    Slow,
    /// Another login of the same uid replaced the connection, or was there first.
    Replaced,
    /// The session expired.
    Expired,
    /// The client broke the WebSocket protocol or one of its limits, or too many bytes arrived from all clients at
    /// once.
    ProtocolError,
    /// The TCP connection ended without a close frame.
    Lost,
    /// The gateway drained or shut down, or the connection reached `websocket.max_age`.
    Shutdown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_that_may_be_secret() {
        let message = Message::Text("{\"token\":\"hunter2\"}".into());
        let attribute = Attribute { name: "cookie".to_owned(), value: "hunter2".to_owned() };
        assert_eq!(format!("{message:?} {attribute:?}"), "Text(19 bytes) \"cookie\": …");
    }
}
