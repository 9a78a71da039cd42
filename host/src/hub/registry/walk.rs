//! Walks through many connections in parts. No lock is held between two parts.

use std::cmp::Reverse;
use std::ops::Bound::{self, Excluded, Included};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::peer::Peer;
use super::tables::Tables;
use crate::base::message::ConnectionId;

/// The most connections that are cloned under one lock. This takes some microseconds, for which other users of the same
/// shard wait.
pub const PART: usize = 128;

/// A name for several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Several<'a> {
    /// All connections of a uid.
    Uid(&'a str),
    /// All connections in a group.
    Group(&'a str),
    /// Every authenticated connection.
    Everyone,
}

/// A walk through [`Several`] connections. It visits each connection that stays from start to end exactly once, and one
/// that comes or goes meanwhile at most once. It never visits a connection that logs in after the first part, so that
/// the walk ends.
#[derive(Debug)]
pub struct Walk<'a> {
    tables: &'a Tables,
    through: Several<'a>,
    /// The next shard, in a walk through [`Several::Everyone`].
    shard: usize,
    /// The connection visited last: its login number in a walk through a uid, otherwise its id.
    after: u64,
    /// The newest connection to visit, as the same kind of number. Set by the first part in a walk through a uid.
    last: u64,
}

impl<'a> Walk<'a> {
    /// Starts a walk.
    pub(super) fn new(tables: &'a Tables, through: Several<'a>) -> Self {
        let last = match through {
            Several::Uid(_) => u64::MAX,
            Several::Group(_) | Several::Everyone => tables.newest.load(Relaxed),
        };
        Self { tables, through, shard: 0, after: 0, last }
    }

    /// Starts after this connection, in a walk through a group.
    pub(super) fn after(self, ConnectionId(after): ConnectionId) -> Self {
        Self { after, ..self }
    }

    /// Walks to the end. Returns the connections with the most queued bytes and how many these are, at most `limit`, in
    /// any order.
    pub fn most_queued(mut self, limit: usize) -> Vec<(usize, Arc<Peer>)> {
        let (mut part, mut most) = (Vec::new(), Vec::new());
        while self.next(&mut part) {
            most.extend(part.drain(..).map(|peer| (peer.outbox.queued_bytes().unwrap_or(0), peer)));
            if most.len() > limit {
                most.select_nth_unstable_by_key(limit, |(bytes, peer)| (Reverse(*bytes), peer.id));
                most.truncate(limit);
            }
        }
        most
    }

    /// Replaces the contents of `part` with the next connections, at most [`PART`]. Returns `false` at the end, with
    /// `part` empty.
    pub fn next(&mut self, part: &mut Vec<Arc<Peer>>) -> bool {
        part.clear();
        match self.through {
            Several::Uid(uid) => {
                let uids = self.tables.uids.lock(uid);
                // Read under the lock, so that the walk finds every connection whose registration took the lock before.
                if self.last == u64::MAX {
                    self.last = self.tables.logins.load(Relaxed);
                }
                if let Some(same) = uids.get(uid) {
                    let next = same.after(self.after).take_while(|peer| peer.login_number <= self.last);
                    part.extend(next.take(PART).cloned());
                }
                self.after = part.last().map_or(self.last, |peer| peer.login_number);
            }
            Several::Group(group) => {
                if let Some(members) = self.tables.groups.lock(group).get(group) {
                    part.extend(members.range(self.range()).take(PART).map(|(_, peer)| peer.clone()));
                }
                self.after = part.last().map_or(self.last, |peer| peer.id.0);
            }
            Several::Everyone => {
                while let Some(shard) = self.tables.connections.get(self.shard)
                    && part.len() < PART
                {
                    let room = PART - part.len();
                    part.extend(shard.lock().range(self.range()).take(room).map(|(_, peer)| peer.clone()));
                    match part.last() {
                        Some(peer) if part.len() == PART => self.after = peer.id.0,
                        _ => (self.shard, self.after) = (self.shard + 1, 0),
                    }
                }
            }
        }
        !part.is_empty()
    }

    /// Returns the range of ids that are still to be visited.
    fn range(&self) -> (Bound<ConnectionId>, Bound<ConnectionId>) {
        (Excluded(ConnectionId(self.after)), Included(ConnectionId(self.last.max(self.after))))
    }
}
