//! Who is connected: uid → live connections, connection → member, group → members.
//!
//! Each map is split into shards with a lock of their own, so that connections meet only when they mean the same uid or
//! group. Under a shard's lock members are found and cloned, at most [`PART`] at a time, and nothing else happens: a
//! message to everybody holds up nobody who looks something up. No two shards are ever locked at once; a member's own
//! lock may be held while a group's shard is taken, never the other way round. Opening and closing cost the logarithm
//! of the connections in the same shard, uid or group.

mod shards;
mod walk;

pub use self::walk::{PART, Several, Walk};

use std::collections::{BTreeMap, HashSet};
use std::iter::repeat_with;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytestring::ByteString;

use self::shards::{SHARDS, Sharded, lock};
use crate::config::DuplicateLogin;
use crate::message::{Cause, CloseReason, ConnectionId};
use crate::outbox::Outbox;

/// Groups that one connection may be in.
pub const MAX_GROUPS: usize = 1024;

const REPLACED: CloseReason = CloseReason::new(4903, "replaced by a newer login");

/// One authenticated connection.
#[derive(Debug)]
pub struct Member {
    /// Which connection.
    pub id: ConnectionId,
    /// Under which name senders reach it.
    pub uid: ByteString,
    /// Where messages for it go.
    pub outbox: Arc<Outbox>,
    peer: Peer,
    /// When it logged in, in logins: what makes one connection of a uid newer than another.
    stamp: u64,
    groups: Mutex<Groups>,
}

/// Whose connection it is, for operators. Small: there are many.
#[derive(Debug, Clone, Copy)]
struct Peer {
    address: Ipv6Addr,
    port: u16,
    /// When it logged in, in seconds since 1970-01-01 UTC.
    since: u32,
}

impl Peer {
    fn now(address: SocketAddr) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { address: ip, port: address.port(), since: u32::try_from(since).unwrap_or(u32::MAX) }
    }
}

impl Member {
    /// Where the client connects from.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.peer.address.to_canonical(), self.peer.port)
    }

    /// When it logged in, to the second.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.peer.since.into())
    }

    /// How many groups it is in.
    pub fn groups(&self) -> usize {
        match &*lock(&self.groups) {
            Groups::Some(groups) => groups.len(),
            Groups::None | Groups::Closed => 0,
        }
    }
}

/// The groups of one member.
#[derive(Debug, Default)]
enum Groups {
    /// In none, like most: no set is allocated for it.
    #[default]
    None,
    Some(HashSet<ByteString>),
    /// Closed: joining again has no effect.
    Closed,
}

/// What is left behind by a connection that has closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Departure {
    /// The groups that it was in.
    pub groups: Vec<ByteString>,
    /// How many connections of the same uid are left.
    pub remaining: u32,
}

/// The connections of one uid: mostly one, for which nothing more is allocated.
#[derive(Debug, Default)]
struct Namesakes {
    oldest: Option<Arc<Member>>,
    /// By their stamps.
    newer: BTreeMap<u64, Arc<Member>>,
}

impl Namesakes {
    /// Adds one that is newer than all others.
    fn add(&mut self, member: Arc<Member>) {
        if self.oldest.is_none() {
            self.oldest = Some(member);
        } else {
            self.newer.insert(member.stamp, member);
        }
    }

    fn remove(&mut self, stamp: u64) {
        if self.oldest.take_if(|oldest| oldest.stamp == stamp).is_some() {
            self.oldest = self.newer.pop_first().map(|(_, next)| next);
        } else {
            self.newer.remove(&stamp);
        }
    }

    /// From the oldest to the newest.
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Member>> {
        self.oldest.iter().chain(self.newer.values())
    }

    /// Those with a larger stamp than this, from the oldest to the newest.
    fn after(&self, stamp: u64) -> impl Iterator<Item = &Arc<Member>> {
        let oldest = self.oldest.iter().filter(move |oldest| oldest.stamp > stamp);
        oldest.chain(self.newer.range((Excluded(stamp), Unbounded)).map(|(_, member)| member))
    }

    fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.newer.len()
    }
}

/// Everybody who is connected.
#[derive(Debug)]
pub struct Registry {
    duplicate_login: DuplicateLogin,
    /// The stamp of the latest login.
    logins: AtomicU64,
    /// The largest number of a connection so far.
    newest: AtomicU64,
    uids: Sharded<ByteString, Namesakes>,
    /// In shards by the number itself: the gateway gives the numbers out in turn.
    connections: Box<[Mutex<Members>]>,
    groups: Sharded<ByteString, Members>,
}

/// Members by their connections: in order, so that they can be gone through in parts.
type Members = BTreeMap<ConnectionId, Arc<Member>>;

impl Registry {
    /// An empty registry with this policy for uids that log in twice.
    pub fn new(duplicate_login: DuplicateLogin) -> Self {
        Self {
            duplicate_login,
            logins: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            uids: Sharded::new(),
            connections: repeat_with(Mutex::default).take(SHARDS).collect(),
            groups: Sharded::new(),
        }
    }

    /// Registers a connection under its uid. Under `close-older` this closes the uid's other connections; under
    /// `reject`, `None` says that there is one already.
    pub fn open(
        &self,
        id: ConnectionId,
        uid: ByteString,
        outbox: Arc<Outbox>,
        address: SocketAddr,
    ) -> Option<Arc<Member>> {
        let peer = Peer::now(address);
        let mut replaced = Vec::new();
        let member = {
            let mut uids = self.uids.lock(&uid);
            // Taken under the lock: two logins of one uid are ordered as they are registered.
            let stamp = self.logins.fetch_add(1, Relaxed) + 1;
            let same = uids.entry(uid.clone()).or_default();
            match self.duplicate_login {
                DuplicateLogin::Newest | DuplicateLogin::All => {}
                DuplicateLogin::CloseOlder => replaced.extend(same.iter().cloned()),
                DuplicateLogin::Reject => {
                    if same.iter().any(|member| member.outbox.is_open()) {
                        return None;
                    }
                }
            }
            let member = Arc::new(Member { id, uid, outbox, peer, stamp, groups: Mutex::default() });
            same.add(member.clone());
            member
        };
        for older in replaced {
            older.outbox.close(REPLACED, Cause::Replaced);
        }
        self.newest.fetch_max(id.0, Relaxed);
        self.shard(id).insert(id, member.clone());
        Some(member)
    }

    /// Removes a connection, and nothing but that one: a newer login of its uid stays.
    pub fn close(&self, member: &Member) -> Departure {
        self.shard(member.id).remove(&member.id);
        let remaining = {
            let mut uids = self.uids.lock(&member.uid);
            match uids.get_mut(&member.uid) {
                None => 0,
                Some(same) => {
                    same.remove(member.stamp);
                    let remaining = same.len();
                    if remaining == 0 {
                        uids.remove(&member.uid);
                    }
                    remaining
                }
            }
        };
        let groups = match std::mem::replace(&mut *lock(&member.groups), Groups::Closed) {
            Groups::Some(groups) => groups.into_iter().collect(),
            Groups::None | Groups::Closed => Vec::new(),
        };
        for group in &groups {
            self.remove_from(group, member.id);
        }
        Departure { groups, remaining: u32::try_from(remaining).unwrap_or(u32::MAX) }
    }

    /// The newest connection of a uid that is not closing: the one that messages to the uid go to, unless they go to all.
    pub fn newest(&self, uid: &str) -> Option<Arc<Member>> {
        self.uids.lock(uid).get(uid)?.iter().rev().find(|member| member.outbox.is_open()).cloned()
    }

    /// Goes through several connections in parts.
    pub fn walk<'a>(&'a self, through: Several<'a>) -> Walk<'a> {
        Walk::new(self, through)
    }

    /// How many connections these are.
    pub fn count(&self, several: Several<'_>) -> usize {
        match several {
            Several::Uid(uid) => self.uids.lock(uid).get(uid).map_or(0, Namesakes::len),
            Several::Group(group) => self.groups.lock(group).get(group).map_or(0, BTreeMap::len),
            Several::Everyone => self.connections.iter().map(|shard| lock(shard).len()).sum(),
        }
    }

    /// Whether a message to a uid goes to no more than one connection.
    pub fn reaches_one_of_a_uid(&self) -> bool {
        self.duplicate_login != DuplicateLogin::All
    }

    /// The connection of this number, if it is authenticated.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Member>> {
        self.shard(id).get(&id).cloned()
    }

    /// All connections of a uid, the oldest login first.
    pub fn of_uid(&self, uid: &str) -> Vec<Arc<Member>> {
        let (mut walk, mut part, mut all) = (self.walk(Several::Uid(uid)), Vec::new(), Vec::new());
        while walk.next(&mut part) {
            all.append(&mut part);
        }
        all
    }

    /// The connections whose numbers come next after `after`, at most `limit` of them.
    pub fn page(&self, after: ConnectionId, limit: usize) -> Vec<Arc<Member>> {
        let mut page = Members::new();
        for shard in &self.connections {
            // Once the page is full, only those are of use that come before its last.
            let end = match page.last_key_value() {
                Some((&last, _)) if page.len() == limit => Excluded(last),
                _ => Unbounded,
            };
            let next = lock(shard).range((Excluded(after), end)).take(limit).map(cloned).collect::<Vec<_>>();
            page.extend(next);
            while page.len() > limit {
                page.pop_last();
            }
        }
        page.into_values().collect()
    }

    /// Puts a member into a group. Returns `false` where that had no effect because it is in [`MAX_GROUPS`] already.
    pub fn join(&self, member: &Arc<Member>, group: &ByteString) -> bool {
        let mut groups = lock(&member.groups);
        let joined = match &mut *groups {
            Groups::Closed => return true,
            Groups::Some(joined) => joined,
            none @ Groups::None => {
                *none = Groups::Some(HashSet::new());
                let Groups::Some(joined) = none else { return false };
                joined
            }
        };
        if joined.len() >= MAX_GROUPS && !joined.contains(group) {
            return false;
        }
        if joined.insert(group.clone()) {
            self.groups.lock(group).entry(group.clone()).or_default().insert(member.id, member.clone());
        }
        true
    }

    /// Takes a member out of a group.
    pub fn leave(&self, member: &Member, group: &str) {
        let mut groups = lock(&member.groups);
        if let Groups::Some(joined) = &mut *groups
            && joined.remove(group)
        {
            if joined.is_empty() {
                *groups = Groups::None;
            }
            self.remove_from(group, member.id);
        }
    }

    /// How many connections a uid has.
    pub fn connections(&self, uid: &str) -> u32 {
        u32::try_from(self.count(Several::Uid(uid))).unwrap_or(u32::MAX)
    }

    /// The uids in a group, each once, at most `limit` of them.
    pub fn members(&self, group: &str, limit: usize) -> Vec<ByteString> {
        let (mut uids, mut part) = (HashSet::new(), Vec::new());
        let mut walk = self.walk(Several::Group(group));
        while uids.len() < limit && walk.next(&mut part) {
            for member in &part {
                if uids.len() < limit && !uids.contains(&member.uid) {
                    uids.insert(member.uid.clone());
                }
            }
        }
        uids.into_iter().collect()
    }

    /// Whether a connection is in a group.
    pub fn is_member(&self, connection: ConnectionId, group: &str) -> bool {
        self.groups.lock(group).get(group).is_some_and(|members| members.contains_key(&connection))
    }

    /// The part of all connections in which this one is.
    fn shard(&self, id: ConnectionId) -> MutexGuard<'_, Members> {
        lock(&self.connections[id.0 as usize % SHARDS])
    }

    fn remove_from(&self, group: &str, id: ConnectionId) {
        let mut groups = self.groups.lock(group);
        if let Some(members) = groups.get_mut(group) {
            members.remove(&id);
            if members.is_empty() {
                groups.remove(group);
            }
        }
    }
}

fn cloned((id, member): (&ConnectionId, &Arc<Member>)) -> (ConnectionId, Arc<Member>) {
    (*id, member.clone())
}

#[cfg(test)]
mod tests;
