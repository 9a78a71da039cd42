//! The directory of one node, followed by another.

use std::time::Duration;

use super::super::clock::{Clock, Stamp};
use super::super::frame::{Batch, Departure, Row};
use super::super::id::{NodeId, UidKey};
use super::own::Own;
use super::replica::{Progress, Replica};
use super::rows::{Rows, Slot};

const NODE: NodeId = NodeId::from_low_bits(1);

struct Pair {
    own: Own,
    rows: Rows,
    replica: Replica,
    clock: Clock,
    now: Duration,
}

impl Pair {
    fn new() -> Self {
        let slot = Slot::all().next().unwrap();
        let rows = Rows::new();
        rows.set_live(slot, true);
        Self { own: Own::new(), rows, replica: Replica::new(slot), clock: Clock::default(), now: Duration::ZERO }
    }

    fn set(&mut self, key: u64, before: Option<(u64, u32)>, after: Option<(u64, u32)>) {
        let row = |row: Option<(u64, u32)>| row.map(|(stamp, count)| Row { newest: Stamp(stamp << 9), count });
        self.own.note(NODE, UidKey(key), row(before), row(after));
    }

    fn flush(&mut self) -> Vec<Batch> {
        self.own.flush(self.now)
    }

    fn apply(&mut self, batches: Vec<Batch>) {
        for batch in batches {
            self.replica.batch(batch, &self.rows, &self.clock);
        }
    }

    /// Takes a snapshot; before each answer, `meanwhile` happens. Returns the number of its parts.
    fn take(&mut self, mut meanwhile: impl FnMut(&mut Self)) -> usize {
        let mut parts = 0;
        for _ in 0..1_000 {
            self.now += Duration::from_millis(300);
            while let Some((request, from)) = self.replica.request(self.now) {
                meanwhile(self);
                for part in self.own.snapshot(request, from) {
                    parts += 1;
                    assert!(part.rows.len() * 20 + part.departures.len() * 24 < super::super::frame::SEGMENT);
                    self.replica.part(self.now, part, &self.rows, &self.clock);
                }
            }
            self.replica.compare(self.own.batches(), self.own.digest());
            if self.replica.is_synced() {
                return parts;
            }
        }
        panic!("no end");
    }
}

fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn rows_follow_batches_and_a_gap_is_mended_by_a_snapshot() {
    let mut pair = Pair::new();
    pair.replica.compare(0, pair.own.digest());
    assert!(pair.replica.is_synced());
    pair.set(1, None, Some((10, 1)));
    let batches = pair.flush();
    pair.apply(batches);
    assert_eq!(pair.rows.newest(UidKey(1)).unwrap().newest, Stamp(10 << 9));
    pair.set(2, None, Some((20, 1)));
    pair.flush();
    pair.set(1, Some((10, 1)), None);
    let batches = pair.flush();
    pair.apply(batches);
    assert!(!pair.replica.is_synced());
    pair.take(|_| {});
    assert_eq!((pair.rows.connections(UidKey(1)), pair.rows.connections(UidKey(2))), (0, 1));
}

#[test]
fn a_large_snapshot_amid_churn_ends_with_the_same_rows() {
    let mut pair = Pair::new();
    for number in 0..60_000 {
        pair.set(key(number), None, Some((number + 1, 1)));
    }
    // One shard with more rows than a part has.
    for number in 0..8_000 {
        pair.set(number + (77 << 32), None, Some((number + 1, 1)));
    }
    pair.flush();
    let mut next = 0;
    let parts = pair.take(|pair| {
        for number in next..next + 500 {
            pair.set(key(number), Some((number + 1, 1)), None);
            pair.set(key(number + 70_000), None, Some((100_000 + number, 1)));
        }
        next += 500;
        let batches = pair.flush();
        pair.apply(batches);
    });
    assert!((20..60).contains(&parts), "{parts}");
    assert_eq!(pair.rows.size().0, 68_000);
}

#[test]
fn a_snapshot_tells_departures_that_were_missed_once() {
    let mut pair = Pair::new();
    pair.replica.compare(0, pair.own.digest());
    for stamp in [10, 20, 30] {
        pair.own.note_departure(Departure { key: UidKey(1), stamp: Stamp(stamp) });
        let batches = pair.flush();
        if stamp == 10 {
            pair.apply(batches);
        }
    }
    pair.replica.announced(3);
    assert_eq!(pair.replica.request(pair.now), None, "it may have been overtaken");
    pair.now += Duration::from_millis(50);
    let (request, from) = pair.replica.request(pair.now).unwrap();
    let mut told = Vec::new();
    for part in pair.own.snapshot(request, from) {
        if let Progress::Snapshot(departures) = pair.replica.part(pair.now, part, &pair.rows, &pair.clock) {
            told = departures.iter().map(|departure| departure.stamp.0).collect();
        }
    }
    assert_eq!(told, [20, 30]);
}

#[test]
fn twins_share_a_row() {
    let mut pair = Pair::new();
    pair.set(1, None, Some((10, 1)));
    pair.set(1, None, Some((20, 1)));
    assert_eq!((pair.own.connections(UidKey(1)), pair.own.digest().rows), (2, 1));
    pair.set(1, Some((20, 1)), None);
    let batch = pair.flush().remove(0);
    assert_eq!(batch.changes[0].row, Some(Row { newest: Stamp::oldest(NODE), count: 1 }));
    pair.set(1, Some((10, 1)), None);
    assert_eq!((pair.own.connections(UidKey(1)), pair.own.digest()), (0, Default::default()));
}

#[test]
fn rows_that_differ_without_a_gap_are_mended_by_a_snapshot() {
    let mut pair = Pair::new();
    pair.replica.compare(0, pair.own.digest());
    pair.set(1, None, Some((10, 1)));
    let mut batches = pair.flush();
    batches[0].changes[0].row = Some(Row { newest: Stamp(11 << 9), count: 1 });
    pair.apply(batches);
    assert!(pair.replica.is_synced());
    pair.replica.compare(pair.own.batches(), pair.own.digest());
    assert!(!pair.replica.is_synced());
    pair.take(|_| {});
    assert_eq!(pair.rows.newest(UidKey(1)).unwrap().newest, Stamp(10 << 9));
}

#[test]
fn a_snapshot_waits_for_the_batches_that_its_rows_hold_already() {
    let mut pair = Pair::new();
    for number in 0..60_000 {
        pair.set(key(number), None, Some((number + 1, 1)));
    }
    pair.flush();
    let mut late = Vec::new();
    for round in 0..50 {
        let Some((request, from)) = pair.replica.request(pair.now) else { break };
        pair.set(key(round), Some((round + 1, 1)), None);
        late.extend(pair.flush());
        for part in pair.own.snapshot(request, from) {
            assert!(matches!(pair.replica.part(pair.now, part, &pair.rows, &pair.clock), Progress::None));
        }
    }
    let last = late.pop().unwrap();
    pair.apply(late);
    assert_eq!(pair.rows.size().0, 0, "a batch is missing");
    pair.apply(vec![last]);
    assert!(pair.replica.is_synced() && pair.rows.size().0 > 59_000);
}
