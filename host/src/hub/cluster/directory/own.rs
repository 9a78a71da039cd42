//! The rows of this node, and the batches that announce their changes.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::iter::repeat_with;
use std::time::Duration;

use super::super::clock::Stamp;
use super::super::frame::{Batch, Change, Departure, Digest, NO_SHARD, ROW, Row, SEGMENT, SnapshotPart};
use super::super::id::{NodeId, UidKey};
use super::rows::{ByKey, KeyHasher, SHARDS, shard_of};

/// The time between two batches, except those that a confirmation needs.
pub(crate) const PACE: Duration = Duration::from_millis(10);

/// The most changes, and the most departures, in one batch: together they fit [`SEGMENT`].
const BATCH: usize = 1_600;

/// How long departures are repeated in snapshots: longer than anybody waits for a confirmation.
const RECENT: Duration = Duration::from_millis(250);

/// The most departures that are repeated in snapshots. A node that misses earlier ones may report 0 connections left
/// twice.
const MAX_RECENT: usize = 2_000;

/// The rows in one part of a snapshot.
const PART: usize = SEGMENT / ROW - 100;

/// The parts that are sent for one request.
const WINDOW: usize = 4;

/// The rows of this node.
#[derive(Debug)]
pub(crate) struct Own {
    shards: Vec<ByKey<Row>>,
    digest: Digest,
    /// Uids that changed since the last batch.
    changed: HashSet<UidKey, BuildHasherDefault<KeyHasher>>,
    /// Departures since the last batch.
    departures: Vec<Departure>,
    /// The number of the last batch.
    batches: u64,
    flushed_at: Option<Duration>,
    /// The last departures that were announced, each with its batch and time.
    recent: VecDeque<(Duration, u64, Departure)>,
}

impl Own {
    pub(crate) fn new() -> Self {
        Self {
            shards: repeat_with(ByKey::default).take(SHARDS).collect(),
            digest: Digest::default(),
            changed: HashSet::default(),
            departures: Vec::new(),
            batches: 0,
            flushed_at: None,
            recent: VecDeque::new(),
        }
    }

    /// Notes a change of one uid's connections on this node. A twin, another uid with the same key, shares the row.
    pub(crate) fn note(&mut self, node: NodeId, key: UidKey, before: Option<Row>, after: Option<Row>) {
        let shard = &mut self.shards[shard_of(key)];
        let (stored, count) = (shard.get(&key).copied(), |row: Option<Row>| row.map_or(0, |row| row.count));
        let all = count(stored).saturating_sub(count(before)).saturating_add(count(after));
        let twin = stored.map(|row| row.newest).filter(|&newest| before.is_none_or(|before| before.newest != newest));
        let newest = after.map(|row| row.newest).max(twin);
        // Only twins are left, and the newest of them is not known. Whatever push reaches this node then passes.
        let newest = newest.unwrap_or(Stamp::oldest(node));
        let row = Some(Row { newest, count: all }).filter(|row| row.count > 0);
        match row {
            Some(row) => shard.insert(key, row),
            None => shard.remove(&key),
        };
        self.digest.change(key, stored, row);
        self.changed.insert(key);
    }

    /// Notes the end of a connection, beside the change of its row.
    pub(crate) fn note_departure(&mut self, departure: Departure) {
        self.departures.push(departure);
    }

    /// Returns the number of connections of a uid on this node.
    pub(crate) fn connections(&self, key: UidKey) -> u32 {
        self.shards[shard_of(key)].get(&key).map_or(0, |row| row.count)
    }

    /// Returns the number of the last batch.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Returns the digest of all rows.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns `true` if a change of this uid was not announced yet.
    pub(crate) fn is_noted(&self, key: UidKey) -> bool {
        self.changed.contains(&key)
    }

    /// Returns `true` if some changes were not announced yet.
    pub(crate) fn has_notes(&self) -> bool {
        !self.changed.is_empty() || !self.departures.is_empty()
    }

    /// Returns `true` if changes wait, and the last batch was long enough ago.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.has_notes() && self.flushed_at.is_none_or(|at| now >= at + PACE)
    }

    /// Takes all changes since the last batch, as batches.
    pub(crate) fn flush(&mut self, now: Duration) -> Vec<Batch> {
        let mut batches = Vec::with_capacity(1);
        let (mut departures, rest) = (std::mem::take(&mut self.departures).into_iter(), &self.shards);
        let changes = self.changed.drain().map(|key| Change { key, row: rest[shard_of(key)].get(&key).copied() });
        let mut changes = changes.collect::<Vec<_>>().into_iter();
        self.recent.drain(..self.recent.partition_point(|(at, ..)| *at + RECENT < now));
        while departures.len() > 0 || changes.len() > 0 {
            self.batches += 1;
            // All departures before all changes: a node must not see that a row has gone, but not yet when.
            let departures = departures.by_ref().take(BATCH).collect::<Vec<_>>();
            self.recent.extend(departures.iter().map(|&departure| (now, self.batches, departure)));
            let full = departures.len() == BATCH;
            let changes = changes.by_ref().take(if full { 0 } else { BATCH }).collect();
            batches.push(Batch { number: self.batches, changes, departures });
        }
        self.recent.drain(..self.recent.len().saturating_sub(MAX_RECENT));
        self.flushed_at = Some(now);
        batches
    }

    /// Returns the next parts of a snapshot from this shard on: at most 256 KiB, unless a single shard takes more.
    pub(crate) fn snapshot(&self, request: u64, from: u16) -> Vec<SnapshotPart> {
        let new = |from: u16, part: u16| SnapshotPart {
            request,
            as_of: self.batches,
            from,
            part,
            next: from,
            end: false,
            rows: Vec::new(),
            departures: Vec::new(),
        };
        let mut parts = Vec::with_capacity(WINDOW);
        let mut part = new(from, 0);
        if from == 0 && !self.recent.is_empty() {
            part.departures = self.recent.iter().map(|&(_, batch, departure)| (batch, departure)).collect();
            parts.push(std::mem::replace(&mut part, new(from, 1)));
        }
        for (at, shard) in (from..SHARDS as u16).zip(&self.shards[SHARDS.min(from.into())..]) {
            if !part.rows.is_empty() && part.rows.len() + shard.len() > PART {
                parts.push(std::mem::replace(&mut part, new(at, 0)));
                if parts.len() >= WINDOW {
                    parts.iter_mut().next_back().into_iter().for_each(|last| last.end = true);
                    return parts;
                }
            }
            for (&key, &row) in shard {
                if part.rows.len() == PART {
                    part.next = at;
                    let number = if part.from == at { part.part.saturating_add(1) } else { 0 };
                    parts.push(std::mem::replace(&mut part, new(at, number)));
                }
                part.rows.push((key, row));
            }
            part.next = at + 1;
        }
        part.next = NO_SHARD;
        part.end = true;
        parts.push(part);
        parts
    }
}
