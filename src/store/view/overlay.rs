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

#[derive(Debug)]
struct Shard<K, V> {
    rows: HashMap<K, Slot<V>>,
    /// How many of them are pinned.
    pinned: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Overlay<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: FixedState,
    /// Clean rows kept per shard; only for rows that never change once written.
    clean_max: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Overlay<K, V> {
    pub fn new(clean_max: usize) -> Self {
        let shard = || Mutex::new(Shard { rows: HashMap::default(), pinned: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: FixedState::default(), clean_max }
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).lock().rows.get(key).map(|slot| slot.value.clone())
    }

    /// A change: stays until [`Overlay::unpin`] was called as often. Whoever lists it for a checkpoint pins it under the
    /// same lock of the owner, so that no checkpoint sees the one without the other.
    pub fn pin(&self, key: &K, value: V) {
        let mut shard = self.shard(key).lock();
        let pins = shard.rows.get(key).map_or(0, |slot| slot.pins);
        shard.pinned += usize::from(pins == 0);
        shard.rows.insert(key.clone(), Slot { value, pins: pins + 1 });
    }

    pub fn unpin(&self, key: &K) {
        let mut shard = self.shard(key).lock();
        if let Some(slot) = shard.rows.get_mut(key)
            && slot.pins > 0
        {
            slot.pins -= 1;
            if slot.pins == 0 {
                shard.pinned -= 1;
                if self.clean_max == 0 {
                    shard.rows.remove(key);
                } else {
                    self.trim(&mut shard);
                }
            }
        }
    }

    /// Keeps a row that was read, for rows that never change.
    pub fn remember(&self, key: &K, value: V) {
        let mut shard = self.shard(key).lock();
        shard.rows.entry(key.clone()).or_insert(Slot { value, pins: 0 });
        self.trim(&mut shard);
    }

    /// Drops all clean rows once they are too many: a walk per as many calls.
    fn trim(&self, shard: &mut Shard<K, V>) {
        if shard.rows.len() - shard.pinned > self.clean_max {
            shard.rows.retain(|_, slot| slot.pins > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_stays_until_it_is_written_as_often_as_made() {
        let overlay = Overlay::new(0);
        overlay.pin(&1, "a");
        overlay.pin(&1, "b");
        overlay.unpin(&1);
        assert_eq!(overlay.get(&1), Some("b"));
        overlay.unpin(&1);
        overlay.unpin(&1);
        assert_eq!(overlay.get(&1), None);
        let overlay = Overlay::new(9);
        overlay.pin(&0, 0);
        (1..10_000).for_each(|n| overlay.remember(&n, n));
        assert_eq!(overlay.get(&0), Some(0));
        assert!(overlay.shards.iter().map(|s| s.lock().rows.len()).sum::<usize>() <= 10 * SHARDS);
    }
}
