//! The maps of the registry, in shards with a lock each.

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

/// The connections of one uid: mostly one, for which nothing more is allocated.
#[derive(Debug, Default)]
pub(super) struct UidConnections {
    oldest: Option<Arc<Peer>>,
    /// By their login numbers.
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

    pub(super) fn remove(&mut self, login_number: u64) {
        if self.oldest.take_if(|oldest| oldest.login_number == login_number).is_some() {
            self.oldest = self.newer.pop_first().map(|(_, next)| next);
        } else {
            self.newer.remove(&login_number);
        }
    }

    /// From the oldest to the newest.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Peer>> {
        self.oldest.iter().chain(self.newer.values())
    }

    /// Those with a larger login number than this, from the oldest to the newest.
    pub(super) fn after(&self, login_number: u64) -> impl Iterator<Item = &Arc<Peer>> {
        let oldest = self.oldest.iter().filter(move |oldest| oldest.login_number > login_number);
        oldest.chain(self.newer.range((Excluded(login_number), Unbounded)).map(|(_, peer)| peer))
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.newer.len()
    }
}

/// Connections by their ids, in order, so that they can be walked in parts.
pub(super) type Peers = BTreeMap<ConnectionId, Arc<Peer>>;

/// Who is connected, by uid, by id and by group.
#[derive(Debug)]
pub(super) struct Tables {
    /// The number of the latest login.
    pub(super) logins: AtomicU64,
    /// The largest connection id so far.
    pub(super) newest: AtomicU64,
    pub(super) uids: Sharded<ByteString, UidConnections>,
    /// Sharded by the id itself: the gateway counts ids up.
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

    /// The shard of all connections that this one belongs to.
    pub(super) fn shard(&self, id: ConnectionId) -> MutexGuard<'_, Peers> {
        self.connections[id.0 as usize % SHARDS].lock()
    }

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
