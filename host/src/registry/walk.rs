//! Going through many connections: in parts, with no lock held from one part to the next.

use std::ops::Bound::{self, Excluded, Included};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Member, Registry, lock};
use crate::message::ConnectionId;

/// Members that are cloned at a time: some microseconds, for which others wait who need the same shard.
pub const PART: usize = 128;

/// Connections that go by one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Several<'a> {
    /// All connections of a uid.
    Uid(&'a str),
    /// The members of a group.
    Group(&'a str),
    /// Every authenticated connection.
    Everyone,
}

/// A way through [`Several`] connections. Each that is there from beginning to end is met once; one that comes or goes
/// meanwhile may be met, but never twice. Those that log in after the beginning are not met, so that there is an end.
#[derive(Debug)]
pub struct Walk<'a> {
    registry: &'a Registry,
    through: Several<'a>,
    /// Of everyone: the shard that comes next.
    shard: usize,
    /// The last one met, by its login stamp (of a uid) or else its number.
    after: u64,
    /// The newest one that is to be met.
    last: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(registry: &'a Registry, through: Several<'a>) -> Self {
        let last = match through {
            Several::Uid(_) => registry.logins.load(Relaxed),
            Several::Group(_) | Several::Everyone => registry.newest.load(Relaxed),
        };
        Self { registry, through, shard: 0, after: 0, last }
    }

    /// Replaces what is in `part` by the next connections, at most [`PART`]. Returns `false` at the end, when there is
    /// none.
    pub fn next(&mut self, part: &mut Vec<Arc<Member>>) -> bool {
        part.clear();
        match self.through {
            Several::Uid(uid) => {
                if let Some(same) = self.registry.uids.lock(uid).get(uid) {
                    let next = same.after(self.after).take_while(|member| member.stamp <= self.last);
                    part.extend(next.take(PART).cloned());
                }
                self.after = part.last().map_or(self.last, |member| member.stamp);
            }
            Several::Group(group) => {
                if let Some(members) = self.registry.groups.lock(group).get(group) {
                    part.extend(members.range(self.range()).take(PART).map(|(_, member)| member.clone()));
                }
                self.after = part.last().map_or(self.last, |member| member.id.0);
            }
            Several::Everyone => {
                while let Some(shard) = self.registry.connections.get(self.shard)
                    && part.len() < PART
                {
                    let room = PART - part.len();
                    part.extend(lock(shard).range(self.range()).take(room).map(|(_, member)| member.clone()));
                    match part.last() {
                        Some(member) if part.len() == PART => self.after = member.id.0,
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
