//! Maps in shards, each with its own lock, so that users of different keys rarely wait for each other.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

use parking_lot::{Mutex, MutexGuard};

use crate::hub::lock::lock;

/// A hash map in shards. Its hash function has a random key (SipHash), since uids and groups come from strangers.
#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    hasher: RandomState,
    pub(super) shards: Box<[Mutex<HashMap<K, V, RandomState>>]>,
}

/// The number of shards, a power of two. Enough that two cores rarely need the same shard on today's largest machines.
pub(super) const SHARDS: usize = 128;

impl<K, V> Sharded<K, V> {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, shards }
    }

    /// Locks the shard of this key.
    pub(super) fn lock<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, HashMap<K, V, RandomState>> {
        // The map itself uses the low bits and the top seven bits of the hash, so the shard is chosen by others.
        let shard = (self.hasher.hash_one(key) >> 32) as usize % SHARDS;
        lock(&self.shards[shard])
    }
}
