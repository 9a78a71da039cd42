//! Who is connected: uid → live connections, id → connection, group → its connections.
//!
//! Each map is split into shards with a lock of their own, so that connections meet only when they mean the same uid or
//! group. Under a shard's lock connections are found and cloned, at most [`PART`] at a time, and nothing else happens: a
//! message to everybody holds up nobody who looks something up. No two shards are ever locked at once; a connection's own
//! lock may be held while a group's shard is taken, never the other way round. Opening and closing cost the logarithm
//! of the connections in the same shard, uid or group.

mod peer;
mod shards;
mod tables;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytestring::ByteString;
use thiserror::Error;

use self::peer::Groups;
pub use self::peer::Peer;
use self::tables::{Peers, Tables, UidConnections};
pub use self::walk::{PART, Several, Walk};
use crate::base::message::{Cause, CloseReason, ConnectionId};
use crate::config::DuplicateLogin;
use crate::hub::outbox::Outbox;

/// Groups that one connection may be in.
pub const MAX_GROUPS: usize = 1024;

const REPLACED: CloseReason = CloseReason::new(4903, "replaced by a newer login");

/// A uid has an open connection already, and may have only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this uid is connected already")]
pub struct Occupied;

/// A connection is in as many groups as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a connection may be in {MAX_GROUPS} groups")]
pub struct TooManyGroups;

/// What a connection leaves behind when it is deregistered.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed {
    /// The groups that it was in.
    pub groups: Vec<ByteString>,
    /// How many connections of the same uid are left.
    pub remaining: u32,
}

/// Everybody who is connected.
#[derive(Debug)]
pub struct Registry {
    duplicate_login: DuplicateLogin,
    tables: Tables,
}

impl Registry {
    /// An empty registry with this policy for uids that log in twice.
    pub fn new(duplicate_login: DuplicateLogin) -> Self {
        Self { duplicate_login, tables: Tables::new() }
    }

    /// Registers a connection under its uid. With `duplicate_login = "close-older"` this closes the uid's other
    /// connections.
    ///
    /// # Errors
    /// [`Occupied`] with `duplicate_login = "reject"`, when the uid has an open connection already.
    pub fn register(
        &self,
        id: ConnectionId,
        uid: ByteString,
        outbox: Arc<Outbox>,
        address: SocketAddr,
    ) -> Result<Arc<Peer>, Occupied> {
        let mut replaced = Vec::new();
        let peer = {
            let mut uids = self.tables.uids.lock(&uid);
            // Taken under the lock: two logins of one uid are ordered as they are registered.
            let login_number = self.tables.logins.fetch_add(1, Relaxed) + 1;
            let same = uids.entry(uid.clone()).or_default();
            match self.duplicate_login {
                DuplicateLogin::Newest | DuplicateLogin::All => {}
                DuplicateLogin::CloseOlder => replaced.extend(same.iter().cloned()),
                DuplicateLogin::Reject => {
                    if same.iter().any(|peer| peer.outbox.is_open()) {
                        return Err(Occupied);
                    }
                }
            }
            let peer = Arc::new(Peer::new(id, uid, outbox, address, login_number));
            same.add(peer.clone());
            peer
        };
        for older in replaced {
            older.outbox.close(REPLACED, Cause::Replaced);
        }
        self.tables.newest.fetch_max(id.0, Relaxed);
        self.tables.shard(id).insert(id, peer.clone());
        Ok(peer)
    }

    /// Removes this connection only: a newer login of its uid stays.
    pub fn deregister(&self, peer: &Peer) -> Removed {
        self.tables.shard(peer.id).remove(&peer.id);
        let remaining = {
            let mut uids = self.tables.uids.lock(&peer.uid);
            match uids.get_mut(&peer.uid) {
                None => 0,
                Some(same) => {
                    same.remove(peer.login_number);
                    let remaining = same.len();
                    if remaining == 0 {
                        uids.remove(&peer.uid);
                    }
                    remaining
                }
            }
        };
        let groups = match std::mem::replace(&mut *peer.groups.lock(), Groups::Closed) {
            Groups::Some(groups) => groups.into_iter().collect(),
            Groups::None | Groups::Closed => Vec::new(),
        };
        for group in &groups {
            self.tables.remove_from(group, peer.id);
        }
        Removed { groups, remaining: u32::try_from(remaining).unwrap_or(u32::MAX) }
    }

    /// The newest connection of a uid that is not closing: the one that messages to the uid go to, unless they go to all.
    pub fn newest(&self, uid: &str) -> Option<Arc<Peer>> {
        self.tables.uids.lock(uid).get(uid)?.iter().rev().find(|peer| peer.outbox.is_open()).cloned()
    }

    /// Goes through several connections in parts.
    pub fn walk<'a>(&'a self, through: Several<'a>) -> Walk<'a> {
        Walk::new(&self.tables, through)
    }

    /// How many connections these are.
    pub fn count(&self, several: Several<'_>) -> usize {
        match several {
            Several::Uid(uid) => self.tables.uids.lock(uid).get(uid).map_or(0, UidConnections::len),
            Several::Group(group) => self.tables.groups.lock(group).get(group).map_or(0, BTreeMap::len),
            Several::Everyone => self.tables.connections.iter().map(|shard| shard.lock().len()).sum(),
        }
    }

    /// Whether a message to a uid goes to no more than one connection.
    pub fn reaches_one_of_a_uid(&self) -> bool {
        self.duplicate_login != DuplicateLogin::All
    }

    /// The connection of this number, if it is authenticated.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Peer>> {
        self.tables.shard(id).get(&id).cloned()
    }

    /// All connections of a uid, the oldest login first.
    pub fn of_uid(&self, uid: &str) -> Vec<Arc<Peer>> {
        let (mut walk, mut part, mut all) = (self.walk(Several::Uid(uid)), Vec::new(), Vec::new());
        while walk.next(&mut part) {
            all.append(&mut part);
        }
        all
    }

    /// The connections whose numbers come next after `after`, at most `limit` of them.
    pub fn page(&self, after: ConnectionId, limit: usize) -> Vec<Arc<Peer>> {
        let mut page = Peers::new();
        for shard in &self.tables.connections {
            // Once the page is full, only those are of use that come before its last.
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

    /// Adds a connection to a group. Without effect for a connection that has been deregistered.
    ///
    /// # Errors
    /// [`TooManyGroups`] when it is in [`MAX_GROUPS`] others already.
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

    /// How many connections a uid has.
    pub fn connection_count(&self, uid: &str) -> u32 {
        u32::try_from(self.count(Several::Uid(uid))).unwrap_or(u32::MAX)
    }

    /// The uids in a group, each once, at most `limit` of them.
    pub fn uids_in_group(&self, group: &str, limit: usize) -> Vec<ByteString> {
        let (mut uids, mut part) = (HashSet::new(), Vec::new());
        let mut walk = self.walk(Several::Group(group));
        while uids.len() < limit && walk.next(&mut part) {
            for peer in &part {
                if uids.len() < limit && !uids.contains(&peer.uid) {
                    uids.insert(peer.uid.clone());
                }
            }
        }
        uids.into_iter().collect()
    }

    /// Whether a connection is in a group.
    pub fn is_member(&self, connection: ConnectionId, group: &str) -> bool {
        self.tables.groups.lock(group).get(group).is_some_and(|peers| peers.contains_key(&connection))
    }
}

fn cloned((id, peer): (&ConnectionId, &Arc<Peer>)) -> (ConnectionId, Arc<Peer>) {
    (*id, peer.clone())
}

#[cfg(test)]
mod tests;
