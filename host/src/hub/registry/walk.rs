//! Going through many connections: in parts, with no lock held from one part to the next.

use std::ops::Bound::{self, Excluded, Included};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::peer::Peer;
use super::tables::Tables;
use crate::base::message::ConnectionId;

/// Connections that are cloned at a time: some microseconds, for which others wait who need the same shard.
pub const PART: usize = 128;

/// Connections that go by one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Several<'a> {
    /// All connections of a uid.
    Uid(&'a str),
    /// All connections in a group.
    Group(&'a str),
    /// Every authenticated connection.
    Everyone,
}

/// A way through [`Several`] connections. Each that is there from beginning to end is met once; one that comes or goes
/// meanwhile may be met, but never twice. Those that log in after the beginning are not met, so that there is an end.
#[derive(Debug)]
pub struct Walk<'a> {
    tables: &'a Tables,
    through: Several<'a>,
    /// Of everyone: the shard that comes next.
    shard: usize,
    /// The last one met, by its login number (of a uid) or else its number.
    after: u64,
    /// The newest one that is to be met.
    last: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tables: &'a Tables, through: Several<'a>) -> Self {
        let last = match through {
            Several::Uid(_) => tables.logins.load(Relaxed),
            Several::Group(_) | Several::Everyone => tables.newest.load(Relaxed),
        };
        Self { tables, through, shard: 0, after: 0, last }
    }

    /// Replaces what is in `part` by the next connections, at most [`PART`]. Returns `false` at the end, when there is
    /// none.
    pub fn next(&mut self, part: &mut Vec<Arc<Peer>>) -> bool {
        part.clear();
        match self.through {
            Several::Uid(uid) => {
                if let Some(same) = self.tables.uids.lock(uid).get(uid) {
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

    /// The numbers that come next.
    fn range(&self) -> (Bound<ConnectionId>, Bound<ConnectionId>) {
        (Excluded(ConnectionId(self.after)), Included(ConnectionId(self.last.max(self.after))))
    }
}
