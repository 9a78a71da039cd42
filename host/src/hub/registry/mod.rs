//! The authenticated connections, in three maps: uid → its connections, id → connection, group → its connections.
//!
//! Each map is split into shards, and each shard has its own lock. Two tasks rarely wait for the same lock, unless they
//! use the same uid or group. A walk clones at most [`PART`] connections under a shard's lock: a message to all does
//! not delay other lookups. Two shards are never locked at the same time. A group's shard may be locked while
//! `Peer.groups` is locked, never the other way round. The locks of [`Blocks`] and [`Events`] are taken under the lock
//! of a uid's shard, and no other lock under them. In a cluster, its two locks are also taken under that of a uid's
//! shard: first the node's, then that of those who wait. Each insert or removal takes logarithmic time.

mod peer;
mod shards;
mod tables;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use bytestring::ByteString;
use thiserror::Error;
use tokio::sync::oneshot;

pub use self::peer::Peer;
use self::peer::{Groups, Origin};
use self::tables::{Peers, Tables, UidConnections};
pub use self::walk::{PART, Several, Walk};
use crate::base::message::{Cause, CloseReason, ConnectionId};
use crate::config::DuplicateLogin;
use crate::hub::blocks::Blocks;
use crate::hub::cluster::clock::Stamp;
use crate::hub::cluster::handle::Cluster;
use crate::hub::events::{Events, Presence};
use crate::hub::lock::lock;
use crate::hub::outbox::Outbox;

/// The most groups that one connection may be in.
pub const MAX_GROUPS: usize = 1024;

/// Why a connection is closed if its uid may have only one.
pub const REPLACED: CloseReason = CloseReason::new(4903, "replaced by a newer login");

/// Why a connection is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// The uid already has an open connection, and may have only one.
    #[error("this uid is connected already")]
    Occupied,
    /// The uid is in [`Registry::blocks`].
    #[error("blocked by an operator")]
    Blocked,
}

/// The connection is already in the most groups that it may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a connection may be in at most {MAX_GROUPS} groups")]
pub struct TooManyGroups;

/// A connection that has just been registered.
#[derive(Debug)]
pub struct Registration {
    /// The connection.
    pub peer: Arc<Peer>,
    /// Says when all other gateways know of it. `None` without a cluster.
    pub announced: Option<oneshot::Receiver<()>>,
}

/// The facts about a connection that has just been deregistered.
#[derive(Debug)]
pub struct Removed {
    /// The groups that the connection was in.
    pub groups: Vec<ByteString>,
    /// The number of connections that the same uid has left on this gateway.
    pub remaining: u32,
    /// The number of connections that it has left on all gateways, once they have agreed. `None` without a cluster.
    pub remaining_anywhere: Option<oneshot::Receiver<u32>>,
}

/// All authenticated connections.
#[derive(Debug)]
pub struct Registry {
    duplicate_login: DuplicateLogin,
    /// The other gateways, which learn of each login and departure under the lock of the uid's shard.
    cluster: Option<Arc<Cluster>>,
    tables: Tables,
    /// The uids that are not let in.
    pub blocks: Blocks,
    /// The latest logins and departures. They are recorded under the lock of the uid's shard.
    pub events: Events,
}

impl Registry {
    /// Creates an empty registry. `duplicate_login` decides what happens when a connected uid logs in again.
    pub fn new(duplicate_login: DuplicateLogin) -> Self {
        let (tables, blocks, events) = (Tables::new(), Blocks::default(), Events::new());
        Self { duplicate_login, cluster: None, tables, blocks, events }
    }

    /// Makes this the registry of one gateway of a cluster.
    pub fn in_cluster(self, cluster: Arc<Cluster>) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// Returns the cluster, if this gateway belongs to one.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// Registers a connection under its uid. With `duplicate_login = "close-older"` this closes the uid's other
    /// connections.
    ///
    /// # Errors
    /// [`RegisterError::Blocked`] if the uid is blocked. [`RegisterError::Occupied`] with `duplicate_login = "reject"`,
    /// if the uid already has an open connection.
    pub fn register(
        &self,
        id: ConnectionId,
        uid: ByteString,
        outbox: Arc<Outbox>,
        address: SocketAddr,
    ) -> Result<Registration, RegisterError> {
        let mut replaced = Vec::new();
        let now = SystemTime::now();
        let origin = Origin::new(address, now);
        let registered = {
            let mut uids = self.tables.uids.lock(&uid);
            // Checked under the lock: see `Blocks`.
            if self.blocks.is_blocked(&uid) {
                return Err(RegisterError::Blocked);
            }
            // Taken under the lock, so that the logins of one uid are numbered in the order of registration.
            let login_number = self.login_number();
            let same = uids.entry(uid.clone()).or_default();
            match self.duplicate_login {
                DuplicateLogin::Newest | DuplicateLogin::All => {}
                DuplicateLogin::CloseOlder => replaced.extend(same.iter().cloned()),
                DuplicateLogin::Reject => {
                    if same.iter().any(|peer| peer.outbox.is_open()) {
                        return Err(RegisterError::Occupied);
                    }
                }
            }
            self.events.record(now, uid.clone(), id, Presence::Login { first: same.len() == 0 });
            let before = self.cluster.as_ref().and_then(|_| same.row());
            let peer = Arc::new(Peer::new(id, uid, outbox, origin, login_number));
            same.add(peer.clone());
            let noted = self.cluster.as_ref().zip(same.row());
            let announced = noted.map(|(cluster, after)| cluster.login(&peer.uid, before, after));
            Registration { peer, announced }
        };
        self.events.wake();
        for older in replaced {
            older.outbox.close(REPLACED, Cause::Replaced);
        }
        self.tables.newest.fetch_max(id.0, Relaxed);
        self.tables.shard(id).insert(id, registered.peer.clone());
        Ok(registered)
    }

    /// Numbers a login: larger than all logins of the same uid before it.
    fn login_number(&self) -> u64 {
        match &self.cluster {
            None => self.tables.logins.fetch_add(1, Relaxed) + 1,
            Some(cluster) => {
                let stamp = cluster.stamp();
                self.tables.logins.fetch_max(stamp, Relaxed);
                stamp
            }
        }
    }

    /// Removes this connection only, which has ended by this cause. Other connections of its uid stay.
    pub fn deregister(&self, peer: &Peer, cause: Cause) -> Removed {
        self.tables.shard(peer.id).remove(&peer.id);
        let mut remaining_anywhere = None;
        let remaining = {
            let mut uids = self.tables.uids.lock(&peer.uid);
            match uids.get_mut(&peer.uid) {
                None => 0,
                Some(same) => {
                    let before = self.cluster.as_ref().and_then(|_| same.row());
                    let was_there = same.remove(peer.login_number);
                    let remaining = same.len();
                    if was_there {
                        let noted = self.cluster.as_ref().zip(before);
                        remaining_anywhere =
                            noted.map(|(cluster, before)| cluster.departure(&peer.uid, before, same.row()));
                        let departure = Presence::Departure { cause, last: remaining == 0 };
                        self.events.record(SystemTime::now(), peer.uid.clone(), peer.id, departure);
                    }
                    if remaining == 0 {
                        uids.remove(&peer.uid);
                    }
                    remaining
                }
            }
        };
        self.events.wake();
        let groups = match std::mem::replace(&mut *peer.groups.lock(), Groups::Closed) {
            Groups::Some(groups) => groups.into_iter().collect(),
            Groups::None | Groups::Closed => Vec::new(),
        };
        for group in &groups {
            self.tables.remove_from(group, peer.id);
        }
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        Removed { groups, remaining, remaining_anywhere }
    }

    /// Returns the newest open connection of a uid. A message to the uid goes there, unless `duplicate_login = "all"`.
    pub fn newest(&self, uid: &str) -> Option<Arc<Peer>> {
        self.tables.uids.lock(uid).get(uid)?.iter().rev().find(|peer| peer.outbox.is_open()).cloned()
    }

    /// Returns the stamp of the newest login of a uid, be its connection closing.
    pub fn newest_login(&self, uid: &str) -> Option<Stamp> {
        self.tables.uids.lock(uid).get(uid).and_then(UidConnections::row).map(|row| row.newest)
    }

    /// Starts a walk through several connections, in parts.
    pub fn walk<'a>(&'a self, through: Several<'a>) -> Walk<'a> {
        Walk::new(&self.tables, through)
    }

    /// Counts several connections.
    pub fn count(&self, several: Several<'_>) -> usize {
        match several {
            Several::Uid(uid) => self.tables.uids.lock(uid).get(uid).map_or(0, UidConnections::len),
            Several::Group(group) => self.tables.groups.lock(group).get(group).map_or(0, BTreeMap::len),
            Several::Everyone => self.tables.connections.iter().map(|shard| shard.lock().len()).sum(),
        }
    }

    /// Returns `true` unless `duplicate_login = "all"`: a message to a uid then goes to at most one connection.
    pub fn reaches_one_of_a_uid(&self) -> bool {
        self.duplicate_login != DuplicateLogin::All
    }

    /// Returns the connection with this id, if it is authenticated.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Peer>> {
        self.tables.shard(id).get(&id).cloned()
    }

    /// Returns all connections of a uid, the oldest login first.
    pub fn of_uid(&self, uid: &str) -> Vec<Arc<Peer>> {
        let (mut walk, mut part, mut all) = (self.walk(Several::Uid(uid)), Vec::new(), Vec::new());
        while walk.next(&mut part) {
            all.append(&mut part);
        }
        all
    }

    /// Returns the connections with ids above `after`, smallest first, at most `limit`.
    pub fn page(&self, after: ConnectionId, limit: usize) -> Vec<Arc<Peer>> {
        let mut page = Peers::new();
        for shard in &self.tables.connections {
            // Once the page is full, only ids below its largest id can replace one.
            let end = match page.last_key_value() {
                Some((&last, _)) if page.len() == limit => Excluded(last),
                _ => Unbounded,
            };
            let next = shard.lock().range((Excluded(after), end)).take(limit).map(cloned).collect::<Vec<_>>();
            page.extend(next);
            while page.len() > limit {
                page.pop_last();
            }
        }
        page.into_values().collect()
    }

    /// Adds a connection to a group. Does nothing if the connection has been deregistered.
    ///
    /// # Errors
    /// [`TooManyGroups`] if the connection is already in [`MAX_GROUPS`] other groups.
    pub fn join(&self, peer: &Arc<Peer>, group: &ByteString) -> Result<(), TooManyGroups> {
        let mut groups = peer.groups.lock();
        let joined = match &mut *groups {
            Groups::Closed => return Ok(()),
            Groups::Some(joined) => joined,
            none @ Groups::None => {
                *none = Groups::Some(HashSet::new());
                let Groups::Some(joined) = none else { return Ok(()) };
                joined
            }
        };
        if joined.len() >= MAX_GROUPS && !joined.contains(group) {
            return Err(TooManyGroups);
        }
        if joined.insert(group.clone()) {
            self.tables.groups.lock(group).entry(group.clone()).or_default().insert(peer.id, peer.clone());
        }
        Ok(())
    }

    /// Removes a connection from a group.
    pub fn leave(&self, peer: &Peer, group: &str) {
        let mut groups = peer.groups.lock();
        if let Groups::Some(joined) = &mut *groups
            && joined.remove(group)
        {
            if joined.is_empty() {
                *groups = Groups::None;
            }
            self.tables.remove_from(group, peer.id);
        }
    }

    /// Returns the number of connections of a uid, on all gateways.
    pub fn connection_count(&self, uid: &str) -> u32 {
        let here = u32::try_from(self.count(Several::Uid(uid))).unwrap_or(u32::MAX);
        self.cluster.as_ref().map_or(here, |cluster| here.saturating_add(cluster.connections_elsewhere(uid)))
    }

    /// Locks and unlocks the shards of all uids: whoever locks one later logs in later than all that this gateway knows
    /// of.
    pub(in crate::hub) fn pass_locks(&self) {
        for shard in &self.tables.uids.shards {
            drop(lock(shard));
        }
    }

    /// Returns the uids in a group for which `wanted` returns `true`, each once, at most `limit` of them.
    pub fn uids_in_group(&self, group: &str, limit: usize, wanted: impl Fn(&str) -> bool) -> Vec<ByteString> {
        let mut uids = HashSet::new();
        self.visit_group(group, ConnectionId(0), |uid| {
            let is_taken = uids.len() < limit;
            if is_taken && !uids.contains(uid) && wanted(uid) {
                uids.insert(uid.clone());
            }
            is_taken
        });
        uids.into_iter().collect()
    }

    /// Passes the uid of each connection in a group to `take`, the smallest id above `after` first, until `take`
    /// returns `false`. Returns the last connection before that one; `None` at the end.
    pub fn visit_group(
        &self,
        group: &str,
        after: ConnectionId,
        mut take: impl FnMut(&ByteString) -> bool,
    ) -> Option<ConnectionId> {
        let (mut last, mut part) = (after, Vec::new());
        let mut walk = self.walk(Several::Group(group)).after(after);
        while walk.next(&mut part) {
            for peer in &part {
                if !take(&peer.uid) {
                    return Some(last);
                }
                last = peer.id;
            }
        }
        None
    }

    /// Returns `true` if a connection is in a group.
    pub fn is_member(&self, connection: ConnectionId, group: &str) -> bool {
        self.tables.groups.lock(group).get(group).is_some_and(|peers| peers.contains_key(&connection))
    }
}

fn cloned((id, peer): (&ConnectionId, &Arc<Peer>)) -> (ConnectionId, Arc<Peer>) {
    (*id, peer.clone())
}

#[cfg(test)]
mod tests;
