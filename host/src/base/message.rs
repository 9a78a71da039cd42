//! One message as it travels through the gateway: text or binary over shared bytes. Cloning it copies no payload, so a
//! message to many recipients is stored once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use bytestring::ByteString;

/// One WebSocket data message (RFC 6455 §5.6), or one line of the text port. Its `Debug` shows how long it is, not what is in
/// it: the first packet of a client most often holds a password or token.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(ByteString),
    /// Anything.
    Binary(Bytes),
}

impl Message {
    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload's length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether nobody else holds these bytes.
    pub fn is_unique(&self) -> bool {
        match self {
            Self::Text(text) => text.as_bytes().is_unique(),
            Self::Binary(bytes) => bytes.is_unique(),
        }
    }

    /// Whether there is no payload. Empty messages are delivered like any other.
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

/// Names one connection for as long as the process runs. Never reused; 0 names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The last one given out.
static LAST: AtomicU64 = AtomicU64::new(0);

impl ConnectionId {
    /// A name for a new connection.
    pub fn next() -> Self {
        Self(LAST.fetch_add(1, Relaxed) + 1)
    }

    /// The name of the newest connection.
    pub fn newest() -> Self {
        Self(LAST.load(Relaxed))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells clients apart without holding who they are: the same address and uid make the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey(u64);

impl ClientKey {
    /// The client of this uid at this address; an empty uid for one that is not authenticated.
    pub fn new(address: IpAddr, uid: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (network_of(address), uid).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What one client has of the addresses: an IPv4 address, or a /64 of IPv6 (RFC 6177 §2), of which this is the first.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// Why a connection is closed (RFC 6455 §7.4): what its close frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The status code.
    pub code: u16,
    /// For people: at most 123 bytes, so that it fits a control frame.
    pub reason: ByteString,
}

impl CloseReason {
    /// A reason of the host's own.
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: ByteString::from_static(reason) }
    }
}

/// A named value. Its `Debug` shows the name only: the value may be a cookie or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub value: String,
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: …", self.name)
    }
}

/// Who ended a connection, or what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client sent a close frame.
    Client,
    /// A plugin denied or closed it, or failed.
    Plugin,
    /// No authenticator accepted it, or none in time.
    Unauthenticated,
    /// An operator closed it.
    Operator,
    /// Nothing arrived for longer than the heartbeat's timeout.
    Silent,
    /// It did not read what was sent to it.
    Slow,
    /// Another login of the same uid took its place, or was there first.
    Replaced,
    /// Its session was over.
    Expired,
    /// It broke the WebSocket protocol or a bound of it, or too much was arriving from all clients at once.
    ProtocolError,
    /// Its TCP connection ended without a close frame.
    Lost,
    /// The gateway shuts down.
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
