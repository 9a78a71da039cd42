//! The rows of all other nodes, in one table, in shards with a lock each: the host looks a uid up without a lock on the
//! node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::repeat_with;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::super::clock::Stamp;
use super::super::frame::{Digest, Row};
use super::super::id::UidKey;

/// The number of shards, a power of two. With a million rows, replacing the rows of one shard takes less than 0.1 ms.
pub(crate) const SHARDS: usize = 256;

/// The place of a peer in the table. Used again only when no row of the peer before is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u16);

/// The number of slots: twice the number of nodes, so that rows of dead nodes can wait until they are swept.
pub(crate) const SLOTS: u16 = 1024;

impl Slot {
    /// Iterates over all slots.
    pub(crate) fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// Returns the slot's number.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Uses a key as its own hash: keys are hashes with a secret key already.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map by uid.
pub(crate) type ByKey<V> = HashMap<UidKey, V, BuildHasherDefault<KeyHasher>>;

/// Returns the shard of a key. Maps use the low and the top bits of the hash, so the shard is chosen by others.
pub(crate) fn shard_of(key: UidKey) -> usize {
    (key.0 >> 32) as usize % SHARDS
}

/// One row, in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Stored {
    newest: Stamp,
    count: u32,
    slot: Slot,
    /// True if the uid has rows of other nodes in [`Shard::others`].
    has_others: bool,
}

const _: () = assert!(size_of::<(UidKey, Stored)>() == 24);

#[derive(Debug, Default)]
struct Shard {
    /// One row for each uid: any of its nodes.
    rows: ByKey<Stored>,
    /// The other rows of the few uids that are on several nodes.
    others: ByKey<Vec<Stored>>,
}

impl Shard {
    /// Returns all rows of a uid.
    fn of(&self, key: UidKey) -> impl Iterator<Item = &Stored> {
        let first = self.rows.get(&key);
        let others = first.filter(|first| first.has_others).and_then(|_| self.others.get(&key));
        first.into_iter().chain(others.into_iter().flatten())
    }

    /// Sets or removes a row. Returns the row before.
    fn set(&mut self, slot: Slot, key: UidKey, row: Option<Row>) -> Option<Row> {
        let Some(row) = row else { return self.remove(slot, key) };
        let stored = Stored { newest: row.newest, count: row.count, slot, has_others: false };
        let first = match self.rows.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(stored);
                return None;
            }
            Entry::Occupied(first) => first.into_mut(),
        };
        if first.slot == slot {
            let before = std::mem::replace(first, Stored { has_others: first.has_others, ..stored });
            return Some(before.row());
        }
        first.has_others = true;
        let others = self.others.entry(key).or_default();
        match others.iter_mut().find(|other| other.slot == slot) {
            Some(other) => Some(std::mem::replace(other, stored).row()),
            None => {
                others.push(stored);
                None
            }
        }
    }

    fn remove(&mut self, slot: Slot, key: UidKey) -> Option<Row> {
        let first = self.rows.get_mut(&key)?;
        if !first.has_others {
            return if first.slot == slot { self.rows.remove(&key).map(Stored::row) } else { None };
        }
        let others = self.others.get_mut(&key)?;
        let before = if first.slot == slot {
            let next = others.pop()?;
            std::mem::replace(first, Stored { has_others: true, ..next })
        } else {
            let at = others.iter().position(|other| other.slot == slot)?;
            others.swap_remove(at)
        };
        if others.is_empty() {
            first.has_others = false;
            self.others.remove(&key);
        }
        Some(before.row())
    }

    /// Removes all rows of a node.
    fn sweep(&mut self, slot: Slot) {
        // Uids on several nodes first: what is left of them has one row less.
        let mixed = self.others.iter().filter(|(_, others)| others.iter().any(|other| other.slot == slot));
        let mixed = mixed.map(|(&key, _)| key).collect::<Vec<_>>();
        let firsts = self.rows.iter().filter(|(_, row)| row.has_others && row.slot == slot).map(|(&key, _)| key);
        for key in firsts.chain(mixed).collect::<Vec<_>>() {
            self.remove(slot, key);
        }
        self.rows.retain(|_, row| row.slot != slot);
        if self.rows.len() < self.rows.capacity() / 4 {
            self.rows.shrink_to_fit();
        }
    }
}

impl Stored {
    fn row(self) -> Row {
        Row { newest: self.newest, count: self.count }
    }
}

/// A uid's newest login on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub slot: Slot,
    /// The login.
    pub newest: Stamp,
}

/// The rows of all other nodes. Only the rows of live nodes count.
#[derive(Debug)]
pub struct Rows {
    shards: Box<[Mutex<Shard>]>,
    live: Box<[AtomicBool]>,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self {
            shards: repeat_with(Mutex::default).take(SHARDS).collect(),
            live: repeat_with(AtomicBool::default).take(SLOTS.into()).collect(),
        }
    }

    /// Returns the newest login of a uid on other nodes.
    pub fn newest(&self, key: UidKey) -> Option<Place> {
        let shard = self.shards[shard_of(key)].lock();
        let live = shard.of(key).filter(|row| self.is_live(row.slot));
        live.max_by_key(|row| row.newest).map(|row| Place { slot: row.slot, newest: row.newest })
    }

    /// Returns the number of a uid's connections on other nodes.
    pub fn connections(&self, key: UidKey) -> u32 {
        let shard = self.shards[shard_of(key)].lock();
        let live = shard.of(key).filter(|row| self.is_live(row.slot));
        live.fold(0, |sum, row| sum.saturating_add(row.count))
    }

    fn is_live(&self, slot: Slot) -> bool {
        self.live[slot.index()].load(Relaxed)
    }

    /// Makes the rows of a node count, or not count any more.
    pub(crate) fn set_live(&self, slot: Slot, live: bool) {
        self.live[slot.index()].store(live, Relaxed);
    }

    /// Sets or removes a row of a node, and changes the digest of the node's rows accordingly.
    pub(super) fn set(&self, slot: Slot, key: UidKey, row: Option<Row>, digest: &mut Digest) {
        let before = self.shards[shard_of(key)].lock().set(slot, key, row);
        digest.change(key, before, row);
    }

    /// Replaces all rows of a node in one shard by these; of several rows of a uid the last counts.
    pub(super) fn replace(&self, slot: Slot, shard: usize, rows: &[(UidKey, Row)], digest: &mut Digest) {
        let mut shard = self.shards[shard].lock();
        shard.sweep(slot);
        for &(key, row) in rows {
            let before = shard.set(slot, key, Some(row));
            digest.change(key, before, Some(row));
        }
    }

    /// Removes all rows of a node in one shard.
    pub(crate) fn sweep(&self, slot: Slot, shard: usize) {
        self.shards[shard].lock().sweep(slot);
    }

    /// Returns the number of uids with rows, dead ones included, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().map(|shard| shard.lock()).fold((0, 0), |(rows, bytes), shard| {
            // A hash table has a control byte and an entry for each place, and 8/7 places for each entry of capacity.
            let places = shard.rows.capacity() * 8 / 7;
            let others =
                shard.others.capacity() * 40 + shard.others.values().map(|it| it.capacity() * 24).sum::<usize>();
            (rows + shard.rows.len(), bytes + places * (size_of::<(UidKey, Stored)>() + 1) + others)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stamp: u64, count: u32) -> Option<Row> {
        Some(Row { newest: Stamp(stamp), count })
    }

    fn slots() -> [Slot; 3] {
        [Slot(0), Slot(1), Slot(1023)]
    }

    fn rows() -> Rows {
        let rows = Rows::new();
        slots().iter().for_each(|&slot| rows.set_live(slot, true));
        rows
    }

    #[test]
    fn the_newest_row_of_a_live_node_is_found() {
        let (rows, [a, b, c], key, digest) = (rows(), slots(), UidKey(5), &mut Digest::default());
        assert_eq!((rows.newest(key), rows.connections(key)), (None, 0));
        rows.set(a, key, row(10, 1), digest);
        rows.set(b, key, row(30, 2), digest);
        rows.set(c, key, row(20, 4), digest);
        assert_eq!((rows.newest(key), rows.connections(key)), (Some(Place { slot: b, newest: Stamp(30) }), 7));
        rows.set_live(b, false);
        assert_eq!((rows.newest(key), rows.connections(key)), (Some(Place { slot: c, newest: Stamp(20) }), 5));
        rows.set(a, key, None, digest);
        rows.set(a, key, None, digest);
        rows.set(c, key, row(40, 1), digest);
        assert_eq!((rows.newest(key), rows.connections(key)), (Some(Place { slot: c, newest: Stamp(40) }), 1));
        rows.set(c, key, None, digest);
        assert_eq!((rows.newest(key), rows.size().0), (None, 1));
        rows.set(b, key, None, digest);
        assert_eq!((*digest, rows.size().0), (Digest::default(), 0));
    }

    #[test]
    fn sweeping_removes_the_rows_of_one_node_only() {
        let (rows, [a, b, c], digest) = (rows(), slots(), &mut Digest::default());
        for key in 0..100 {
            for (at, slot) in [a, b, c].into_iter().enumerate().filter(|(at, _)| key >> at & 1 == 1) {
                rows.set(slot, UidKey(key), row(key * 10 + at as u64, 1), digest);
            }
        }
        for shard in 0..SHARDS {
            rows.sweep(b, shard);
        }
        for key in 0..100 {
            assert_eq!(u64::from(rows.connections(UidKey(key))), (key & 1) + (key >> 2 & 1), "{key}");
        }
    }

    #[test]
    fn a_remote_uid_takes_at_most_60_bytes() {
        let (rows, digest) = (Rows::new(), &mut Digest::default());
        let (mut key, mut worst, mut least) = (1_u64, 0.0_f64, f64::MAX);
        for count in 1..=1_000_000_u64 {
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rows.set(Slot(0), UidKey(key ^ key >> 29), row(count, 1), digest);
            if count >= 100_000 && count % 25_000 == 0 {
                let bytes = rows.size().1 as f64 / count as f64;
                (worst, least) = (worst.max(bytes), least.min(bytes));
            }
        }
        println!("{least:.1} to {worst:.1} bytes for each remote uid, {:.1} at 1,000,000", rows.size().1 as f64 / 1e6);
        assert!(worst <= 60.0, "{worst}");
    }
}
