//! One authenticated connection, as the registry stores it.

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
    /// The connection's id.
    pub id: ConnectionId,
    /// The uid under which senders reach the connection.
    pub uid: ByteString,
    /// The queue for messages to the connection.
    pub outbox: Arc<Outbox>,
    /// Shown to operators.
    origin: Origin,
    /// Order of login: larger is newer.
    pub(super) login_number: u64,
    pub(super) groups: Mutex<Groups>,
}

/// The client's address and the time of login, for operators. Kept small, since there is one for each connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    address: Ipv6Addr,
    port: u16,
    /// The time of login, in seconds since 1970-01-01 UTC.
    since: u32,
}

impl Origin {
    /// A login at this time.
    pub(super) fn new(address: SocketAddr, time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { address: ip, port: address.port(), since: u32::try_from(since).unwrap_or(u32::MAX) }
    }
}

impl Peer {
    /// Creates the record of a connection that logs in now.
    pub(super) fn new(
        id: ConnectionId,
        uid: ByteString,
        outbox: Arc<Outbox>,
        origin: Origin,
        login_number: u64,
    ) -> Self {
        Self { id, uid, outbox, origin, login_number, groups: Mutex::default() }
    }

    /// Returns when the connection logged in, in the order of all logins of its uid: larger is newer.
    pub fn stamp(&self) -> u64 {
        self.login_number
    }

    /// Returns the client's address and port.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.origin.address.to_canonical(), self.origin.port)
    }

    /// Returns the time of login, to the second.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.origin.since.into())
    }

    /// Returns the number of groups that the connection is in.
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
    /// The connection is in no group, like most: no set is allocated.
    #[default]
    None,
    /// The connection is in these groups.
    Some(HashSet<ByteString>),
    /// The connection is deregistered: joining has no effect.
    Closed,
}
