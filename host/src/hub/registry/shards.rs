//! Maps in parts with a lock each, so that those who mean different keys seldom meet.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

use parking_lot::{Mutex, MutexGuard};

/// A hash map in shards. Hashing is keyed at random (SipHash): uids and groups come from strangers.
#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    hasher: RandomState,
    pub(super) shards: Box<[Mutex<HashMap<K, V, RandomState>>]>,
}

/// Enough that on today's largest machines two cores seldom meet; a power of two.
pub(super) const SHARDS: usize = 128;

impl<K, V> Sharded<K, V> {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, shards }
    }

    /// The shard of this key.
    pub(super) fn lock<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, HashMap<K, V, RandomState>> {
        // The map's own buckets use the low bits and the topmost seven: take others.
        let shard = (self.hasher.hash_one(key) >> 32) as usize % SHARDS;
        self.shards[shard].lock()
    }
}
