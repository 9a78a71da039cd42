//! The maps of the registry, in shards, each with its own lock.

use std::collections::BTreeMap;
use std::iter::repeat_with;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};

use super::peer::Peer;
use super::shards::{SHARDS, Sharded};
use crate::base::message::ConnectionId;
use crate::hub::cluster::clock::Stamp;
use crate::hub::cluster::frame::Row;
use crate::hub::lock::lock;

/// The connections of one uid. Most uids have one connection, for which no map is allocated.
#[derive(Debug, Default)]
pub(super) struct UidConnections {
    oldest: Option<Arc<Peer>>,
    /// All other connections, by their login numbers.
    newer: BTreeMap<u64, Arc<Peer>>,
}

impl UidConnections {
    /// Adds a connection that is newer than all others.
    pub(super) fn add(&mut self, peer: Arc<Peer>) {
        if self.oldest.is_none() {
            self.oldest = Some(peer);
        } else {
            self.newer.insert(peer.login_number, peer);
        }
    }

    /// Removes the connection with this login number. Returns `false` if it is not there.
    pub(super) fn remove(&mut self, login_number: u64) -> bool {
        if self.oldest.take_if(|oldest| oldest.login_number == login_number).is_some() {
            self.oldest = self.newer.pop_first().map(|(_, next)| next);
            return true;
        }
        self.newer.remove(&login_number).is_some()
    }

    /// Iterates over the connections, from the oldest login to the newest.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Peer>> {
        self.oldest.iter().chain(self.newer.values())
    }

    /// Iterates over the connections with a larger login number, from the oldest login to the newest.
    pub(super) fn after(&self, login_number: u64) -> impl Iterator<Item = &Arc<Peer>> {
        let oldest = self.oldest.iter().filter(move |oldest| oldest.login_number > login_number);
        oldest.chain(self.newer.range((Excluded(login_number), Unbounded)).map(|(_, peer)| peer))
    }

    /// Returns what other gateways have to know.
    pub(super) fn row(&self) -> Option<Row> {
        let newest = Stamp(self.iter().next_back()?.login_number);
        Some(Row { newest, count: u32::try_from(self.len()).unwrap_or(u32::MAX) })
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.newer.len()
    }
}

/// Connections by their ids, sorted, so that a walk can go through them in parts.
pub(super) type Peers = BTreeMap<ConnectionId, Arc<Peer>>;

/// All authenticated connections, by uid, by id and by group.
#[derive(Debug)]
pub(super) struct Tables {
    /// The number of the latest login.
    pub(super) logins: AtomicU64,
    /// The largest connection id so far.
    pub(super) newest: AtomicU64,
    pub(super) uids: Sharded<ByteString, UidConnections>,
    /// Sharded by the id itself, without hashing: ids are consecutive numbers.
    pub(super) connections: Box<[Mutex<Peers>]>,
    pub(super) groups: Sharded<ByteString, Peers>,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            logins: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            uids: Sharded::new(),
            connections: repeat_with(Mutex::default).take(SHARDS).collect(),
            groups: Sharded::new(),
        }
    }

    /// Locks the shard of `connections` that this id belongs to.
    pub(super) fn shard(&self, id: ConnectionId) -> MutexGuard<'_, Peers> {
        lock(&self.connections[id.0 as usize % SHARDS])
    }

    /// Removes a connection from a group, and the group itself if it is then empty.
    pub(super) fn remove_from(&self, group: &str, id: ConnectionId) {
        let mut groups = self.groups.lock(group);
        if let Some(peers) = groups.get_mut(group) {
            peers.remove(&id);
            if peers.is_empty() {
                groups.remove(group);
            }
        }
    }
}
