//! Rows that stand alone (names, aliases, tokens) and whose changes are not in the view yet.
//!
//! Invariant: a changed row stays until the batch that wrote it is applied, so whoever looks here first and then into the
//! view sees the newest.

use std::hash::{BuildHasher, Hash};

use foldhash::HashMap;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

const SHARDS: usize = 32;

#[derive(Debug)]
struct Slot<V> {
    value: V,
    /// Changes that no applied batch holds yet.
    pins: u32,
}

/// See the module's head.
#[derive(Debug)]
pub struct Overlay<K, V> {
    shards: Vec<Mutex<HashMap<K, Slot<V>>>>,
    hasher: FixedState,
    /// Clean rows kept per shard; only for rows that never change once written.
    clean_max: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Overlay<K, V> {
    pub fn new(clean_max: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: FixedState::default(), clean_max }
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, Slot<V>>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).lock().get(key).map(|slot| slot.value.clone())
    }

    /// A change: stays until [`Overlay::unpin`] was called as often.
    pub fn pin(&self, key: &K, value: V) {
        let mut shard = self.shard(key).lock();
        let pins = shard.get(key).map_or(0, |slot| slot.pins);
        shard.insert(key.clone(), Slot { value, pins: pins + 1 });
    }

    pub fn unpin(&self, key: &K) {
        let mut shard = self.shard(key).lock();
        if let Some(slot) = shard.get_mut(key) {
            slot.pins = slot.pins.saturating_sub(1);
            if slot.pins == 0 && self.clean_max == 0 {
                shard.remove(key);
            }
        }
        self.trim(&mut shard);
    }

    /// Keeps a row that was read, for rows that never change.
    pub fn remember(&self, key: &K, value: V) {
        let mut shard = self.shard(key).lock();
        if self.clean_max > 0 {
            shard.entry(key.clone()).or_insert(Slot { value, pins: 0 });
        }
        self.trim(&mut shard);
    }

    fn trim(&self, shard: &mut HashMap<K, Slot<V>>) {
        // Room for as many pinned ones again, so that a burst of changes does not make each call walk the shard.
        if shard.len() > self.clean_max
            && shard.len() > 2 * shard.values().take(self.clean_max + 1).filter(|s| s.pins > 0).count()
        {
            shard.retain(|_, slot| slot.pins > 0);
        }
    }
}
