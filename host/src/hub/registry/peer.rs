//! One authenticated connection, as the registry knows it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytestring::ByteString;
use parking_lot::Mutex;

use crate::base::message::ConnectionId;
use crate::hub::outbox::Outbox;

/// One authenticated connection.
#[derive(Debug)]
pub struct Peer {
    /// Which connection.
    pub id: ConnectionId,
    /// Under which name senders reach it.
    pub uid: ByteString,
    /// Where messages for it go.
    pub outbox: Arc<Outbox>,
    origin: Origin,
    /// Order of login: larger is newer.
    pub(super) login_number: u64,
    pub(super) groups: Mutex<Groups>,
}

/// Where a connection comes from and since when it is authenticated, for operators. Small: there are many.
#[derive(Debug, Clone, Copy)]
struct Origin {
    address: Ipv6Addr,
    port: u16,
    /// When it logged in, in seconds since 1970-01-01 UTC.
    since: u32,
}

impl Origin {
    fn now(address: SocketAddr) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { address: ip, port: address.port(), since: u32::try_from(since).unwrap_or(u32::MAX) }
    }
}

impl Peer {
    /// A connection that logs in now.
    pub(super) fn new(
        id: ConnectionId,
        uid: ByteString,
        outbox: Arc<Outbox>,
        address: SocketAddr,
        login_number: u64,
    ) -> Self {
        Self { id, uid, outbox, origin: Origin::now(address), login_number, groups: Mutex::default() }
    }

    /// Where the client connects from.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.origin.address.to_canonical(), self.origin.port)
    }

    /// When it logged in, to the second.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.origin.since.into())
    }

    /// How many groups it is in.
    pub fn groups(&self) -> usize {
        match &*self.groups.lock() {
            Groups::Some(groups) => groups.len(),
            Groups::None | Groups::Closed => 0,
        }
    }
}

/// The groups that one connection is in.
#[derive(Debug, Default)]
pub(super) enum Groups {
    /// In none, like most: no set is allocated for it.
    #[default]
    None,
    Some(HashSet<ByteString>),
    /// Closed: joining again has no effect.
    Closed,
}
