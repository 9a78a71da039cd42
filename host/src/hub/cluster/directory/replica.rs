//! Follows the rows of one peer: batch after batch, and a snapshot when a batch is missing or the digests differ.

use std::collections::VecDeque;
use std::iter::repeat_with;
use std::time::Duration;

use super::super::clock::{Clock, micros};
use super::super::frame::{Batch, Departure, Digest, NO_SHARD, Row, SnapshotPart};
use super::super::id::UidKey;
use super::rows::{Rows, SHARDS, Slot, shard_of};

/// The time between the starts of two snapshots of one peer, and before a lost request is repeated.
const RETRY: Duration = Duration::from_millis(250);

/// How long a batch may take that was overtaken by a frame on another subject.
const OVERTAKEN: Duration = Duration::from_millis(50);

/// How often a request is repeated before the snapshot starts anew.
const TRIES: u32 = 8;

/// The most changes and departures in batches that wait for a snapshot. Past it the snapshot starts anew.
const MAX_BUFFERED: usize = 200_000;

/// What this node knows of one peer's rows.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Where the rows are in the table.
    pub(crate) slot: Slot,
    /// The last batch that was applied. `None` before the first snapshot.
    applied: Option<u64>,
    digest: Digest,
    /// The last batch that the peer is known to have announced, and since when it is missing.
    announced: u64,
    missing_since: Option<Duration>,
    /// True if the rows here are known to be incomplete or wrong.
    is_stale: bool,
    taking: Option<Taking>,
    /// The number of the last snapshot.
    snapshots: u64,
    /// When the next snapshot may start.
    not_before: Duration,
}

/// A snapshot that arrives.
#[derive(Debug)]
struct Taking {
    request: u64,
    /// The batches as of which its first and its last part were read.
    as_of: Option<u64>,
    until: u64,
    /// The shard and part that must come next.
    next: (u16, u16),
    /// True if the request for them must be sent.
    ask: bool,
    asked_at: Duration,
    tries: u32,
    /// The rows so far, by their shards in the table.
    rows: Vec<Vec<(UidKey, Row)>>,
    departures: Vec<(u64, Departure)>,
    /// Batches that arrived meanwhile.
    batches: VecDeque<Batch>,
    buffered: usize,
}

/// What a batch or a part of a snapshot led to.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing yet.
    None,
    /// The batch was applied.
    Batch(Batch),
    /// A snapshot and the batches after it were applied. These departures were not known before.
    Snapshot(Vec<Departure>),
}

impl Replica {
    /// Begins to follow a peer. The slot has no rows.
    pub(crate) fn new(slot: Slot) -> Self {
        Self {
            slot,
            applied: None,
            digest: Digest::default(),
            announced: 0,
            missing_since: None,
            is_stale: true,
            taking: None,
            snapshots: 0,
            not_before: Duration::ZERO,
        }
    }

    /// Returns the last batch that was applied, 0 if none was.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.unwrap_or(0)
    }

    /// Returns `true` if no batch is known to be missing.
    pub(crate) fn is_synced(&self) -> bool {
        !self.is_stale
    }

    /// Compares with what the peer says of its rows.
    pub(crate) fn compare(&mut self, batches: u64, digest: Digest) {
        match self.applied {
            None if batches == 0 && self.taking.is_none() => {
                self.applied = Some(0);
                self.is_stale = false;
            }
            Some(applied) if applied > batches => {}
            Some(applied) if applied < batches => self.announced(batches),
            Some(applied) if applied == batches && self.digest == digest => {}
            _ => self.is_stale = true,
        }
    }

    /// Notes that the peer has announced batches up to this one.
    pub(crate) fn announced(&mut self, batches: u64) {
        self.announced = self.announced.max(batches);
    }

    /// Applies a batch, or keeps it for later.
    pub(crate) fn batch(&mut self, batch: Batch, rows: &Rows, clock: &Clock) -> Progress {
        if let Some(taking) = &mut self.taking {
            taking.keep(batch);
            return self.finish(rows, clock);
        }
        match self.applied {
            Some(applied) if batch.number <= applied => Progress::None,
            Some(applied) if batch.number - 1 == applied => {
                self.apply(&batch, rows, clock);
                Progress::Batch(batch)
            }
            _ => {
                self.is_stale = true;
                Progress::None
            }
        }
    }

    fn apply(&mut self, batch: &Batch, rows: &Rows, clock: &Clock) {
        batch.departures.iter().for_each(|departure| clock.merge(departure.stamp));
        for change in &batch.changes {
            if let Some(row) = change.row {
                clock.merge(row.newest);
            }
            rows.set(self.slot, change.key, change.row, &mut self.digest);
        }
        self.applied = Some(batch.number);
    }

    /// Takes a part of a snapshot.
    pub(crate) fn part(&mut self, now: Duration, part: SnapshotPart, rows: &Rows, clock: &Clock) -> Progress {
        let Some(taking) = self.taking.as_mut().filter(|it| it.request == part.request) else { return Progress::None };
        if (part.from, part.part) != taking.next || part.next < part.from {
            return Progress::None;
        }
        if taking.as_of.is_none() {
            taking.as_of = Some(part.as_of);
            taking.departures = part.departures;
            // Batches of before are in the rows.
            while taking.batches.front().is_some_and(|batch| batch.number <= part.as_of) {
                taking.batches.pop_front();
            }
        }
        for (key, row) in part.rows {
            clock.merge(row.newest);
            taking.rows[shard_of(key)].push((key, row));
        }
        taking.next = if part.next == part.from { (part.from, part.part.saturating_add(1)) } else { (part.next, 0) };
        (taking.tries, taking.asked_at) = (0, now);
        (taking.ask, taking.until) = (part.end && part.next != NO_SHARD, part.as_of);
        self.finish(rows, clock)
    }

    /// Puts a whole snapshot in the place of the rows, then applies the batches after it.
    fn finish(&mut self, rows: &Rows, clock: &Clock) -> Progress {
        let Some(taking) = self.taking.take_if(|taking| taking.is_complete()) else { return Progress::None };
        let Some(as_of) = taking.as_of else { return Progress::None };
        let known = self.applied();
        self.digest = Digest::default();
        for (shard, fresh) in taking.rows.iter().enumerate() {
            rows.replace(self.slot, shard, fresh, &mut self.digest);
        }
        self.applied = Some(as_of);
        self.is_stale = false;
        let departures = taking.departures.into_iter().filter(|(batch, _)| known < *batch && *batch <= as_of);
        let mut departures = departures.map(|(_, departure)| departure).collect::<Vec<_>>();
        departures.iter().for_each(|departure| clock.merge(departure.stamp));
        for batch in taking.batches {
            match self.batch(batch, rows, clock) {
                Progress::Batch(batch) => departures.extend(batch.departures.iter().filter(|_| batch.number > known)),
                Progress::None | Progress::Snapshot(_) => {}
            }
        }
        Progress::Snapshot(departures)
    }

    /// Returns the request and the shard to ask the peer for now, if any.
    pub(crate) fn request(&mut self, now: Duration) -> Option<(u64, u16)> {
        if self.applied.is_some_and(|applied| applied < self.announced) {
            let since = *self.missing_since.get_or_insert(now);
            self.is_stale |= now >= since + OVERTAKEN;
        } else {
            self.missing_since = None;
        }
        let gave_up = self.taking.as_ref().is_some_and(|taking| taking.is_broken(now));
        if (self.taking.is_none() && self.is_stale || gave_up) && now >= self.not_before {
            // Also unlike all numbers of an earlier replica of the same peer.
            self.snapshots = micros(now).max(self.snapshots + 1);
            self.not_before = now + RETRY;
            self.taking = Some(Taking::new(self.snapshots, now));
        }
        let taking = self.taking.as_mut()?;
        if taking.next.0 != NO_SHARD && (taking.ask || now >= taking.asked_at + RETRY) {
            taking.tries += u32::from(!taking.ask);
            (taking.ask, taking.asked_at) = (false, now);
            // The part number starts anew: the peer repeats the whole shard.
            taking.next.1 = 0;
            return Some((taking.request, taking.next.0));
        }
        None
    }
}

impl Taking {
    fn new(request: u64, now: Duration) -> Self {
        Self {
            request,
            as_of: None,
            until: 0,
            next: (0, 0),
            ask: true,
            asked_at: now,
            tries: 0,
            rows: repeat_with(Vec::new).take(SHARDS).collect(),
            departures: Vec::new(),
            batches: VecDeque::new(),
            buffered: 0,
        }
    }

    fn keep(&mut self, batch: Batch) {
        self.buffered += 1 + batch.changes.len() + batch.departures.len();
        if self.buffered > MAX_BUFFERED {
            self.batches.clear();
        } else if self.batches.back().is_none_or(|last| last.number < batch.number) {
            self.batches.push_back(batch);
        }
    }

    /// Returns `true` if all rows have arrived, and the batches that tell of all changes that these rows may hold
    /// already: a row must not be gone before it is known when.
    fn is_complete(&self) -> bool {
        let last = self.batches.back().map(|batch| batch.number).or(self.as_of).unwrap_or(0);
        self.next.0 == NO_SHARD && last >= self.until
    }

    /// Returns `true` if too many batches arrived to keep them, or if something does not arrive at all.
    fn is_broken(&self, now: Duration) -> bool {
        let lacks_batches = self.next.0 == NO_SHARD && now >= self.asked_at + RETRY;
        self.tries > TRIES || self.buffered > MAX_BUFFERED || lacks_batches
    }
}
