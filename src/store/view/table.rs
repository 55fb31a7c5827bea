//! A linear-hashed table of an owner: people of a channel, conversation states of a user, reactions to a message. A look-up
//! or an update is one row, whatever the size; while it is small it lies inside the owner's head row.
//!
//! Buckets are addressed with a keyed hash (the log's id is the key), so nobody can aim at one bucket. One bucket is split
//! at a time, when the average passes [`BUCKET_BYTES`]. A bucket longer than a row is cut into parts; with these averages
//! that is a rarity.

use foldhash::HashMap;
use protocol::ids::Uid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{Malformed, Reader, Writer};
use super::db::{Db, Row};
use super::keys::{self, Prefix};
use super::{damaged_row, parts};
use crate::store::Result;

/// Average size of a bucket at which the next one is split.
const BUCKET_BYTES: u64 = 1024;
/// A table above this leaves the head row.
pub const INLINE_BYTES_MAX: u64 = 640;

/// What a table is keyed by.
pub trait TableKey: Clone + Ord {
    fn hash(&self, seed: u64) -> u64;
    fn put(&self, w: &mut Writer);
    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// Bytes of memory beside the entry itself.
    fn weight(&self) -> usize;
}

impl TableKey for Uid {
    fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(self.as_str().as_bytes(), seed)
    }
    fn put(&self, w: &mut Writer) {
        w.text(self.as_str());
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Uid::from_stored(r.text()?))
    }
    fn weight(&self) -> usize {
        self.as_str().len() + 16
    }
}

impl TableKey for u32 {
    fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(&self.to_be_bytes(), seed)
    }
    fn put(&self, w: &mut Writer) {
        w.varint(u64::from(*self));
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.varint32()
    }
    fn weight(&self) -> usize {
        0
    }
}

impl TableKey for u64 {
    fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(&self.to_be_bytes(), seed)
    }
    fn put(&self, w: &mut Writer) {
        w.varint(*self);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.varint()
    }
    fn weight(&self) -> usize {
        0
    }
}

/// What a table holds.
pub trait TableValue: Default {
    /// About how long a new entry gets, without its key.
    const BYTES_HINT: u64;
    /// An empty value is not kept.
    fn is_empty(&self) -> bool;
    fn put(&self, w: &mut Writer);
    /// `seed` is the table's, for values that hold tables.
    fn take(r: &mut Reader<'_>, seed: u64) -> Result<Self, Malformed>;
    /// Bytes of memory beside the entry itself.
    fn weight(&self) -> usize;
}

#[derive(Debug)]
struct Bucket<K, V> {
    /// Sorted by (hash, key).
    entries: Vec<(u64, K, V)>,
    dirty: bool,
    /// Its share of [`Table::bytes`].
    bytes: u64,
    /// Rows it fills in the view.
    parts: u8,
}

impl<K, V> Default for Bucket<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), dirty: false, bytes: 0, parts: 0 }
    }
}

impl<K: TableKey, V: TableValue> Bucket<K, V> {
    fn find(&self, hash: u64, key: &K) -> std::result::Result<usize, usize> {
        self.entries.binary_search_by(|(h, k, _)| h.cmp(&hash).then_with(|| k.cmp(key)))
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::part();
        for (_, key, value) in &self.entries {
            if !value.is_empty() {
                key.put(&mut w);
                value.put(&mut w);
            }
        }
        w.finish()
    }

    fn decode(bytes: &[u8], seed: u64) -> Result<Self, Malformed> {
        let mut r = Reader::part(bytes);
        let mut entries = Vec::new();
        while !r.is_empty() {
            let key = K::take(&mut r)?;
            entries.push((key.hash(seed), key, V::take(&mut r, seed)?));
        }
        if !entries.is_sorted_by(|a, b| (a.0, &a.1) < (b.0, &b.1)) {
            return Err(Malformed);
        }
        Ok(Self { entries, dirty: false, bytes: bytes.len() as u64, parts: 0 })
    }

    fn weight(&self) -> usize {
        self.entries.iter().map(|(_, k, v)| size_of::<(u64, K, V)>() + k.weight() + v.weight()).sum()
    }
}

/// The table. Reading and writing it may load buckets; loaded ones stay until the owner leaves memory.
#[derive(Debug)]
pub struct Table<K, V> {
    seed: u64,
    /// 0: inline, everything is in bucket 0.
    buckets: u32,
    /// About how long all entries are, encoded.
    bytes: u64,
    loaded: HashMap<u32, Bucket<K, V>>,
    /// About how much memory the loaded buckets take.
    weight: usize,
    stamp: u64,
}

/// Buckets that are not in memory.
#[derive(Debug)]
pub struct ColdBuckets {
    seed: u64,
    pub stamp: u64,
    numbers: Vec<u32>,
}

impl ColdBuckets {
    /// Every entry of them. They are not kept.
    pub fn for_each<K: TableKey, V: TableValue>(
        &self,
        db: &Db,
        prefix: Prefix<'_>,
        mut each: impl FnMut(&K, &V),
    ) -> Result<()> {
        for &number in &self.numbers {
            let bucket = read_bucket::<K, V>(db, prefix, number, self.seed)?;
            bucket.entries.iter().for_each(|(_, k, v)| each(k, v));
        }
        Ok(())
    }
}

/// The bucket of a hash among `buckets`, at least 1.
fn address(hash: u64, buckets: u32) -> u32 {
    let round = 1u64 << (31 - buckets.leading_zeros());
    let low = hash & (2 * round - 1);
    (if low >= u64::from(buckets) { hash & (round - 1) } else { low }) as u32
}

impl<K: TableKey, V: TableValue> Table<K, V> {
    pub fn new(seed: u64) -> Self {
        Self { seed, buckets: 0, bytes: 0, loaded: HashMap::from_iter([(0, Bucket::default())]), weight: 0, stamp: 0 }
    }

    /// Reads what [`Table::put_head`] wrote.
    pub fn take_head(r: &mut Reader<'_>, seed: u64) -> Result<Self, Malformed> {
        let buckets = r.varint32()?;
        if buckets > 0 {
            return Ok(Self { seed, buckets, bytes: r.varint()?, loaded: HashMap::default(), weight: 0, stamp: 0 });
        }
        let bucket = Bucket::decode(r.bytes()?, seed)?;
        let weight = bucket.weight();
        Ok(Self { seed, buckets, bytes: bucket.bytes, loaded: HashMap::from_iter([(0, bucket)]), weight, stamp: 0 })
    }

    /// The part in the owner's head; after [`Table::snapshot`].
    pub fn put_head(&self, w: &mut Writer) {
        w.varint(u64::from(self.buckets));
        if self.buckets > 0 {
            w.varint(self.bytes);
        } else if let Some(bucket) = self.loaded.get(&0) {
            w.bytes(&bucket.encode());
        } else {
            w.bytes(&[]);
        }
    }

    pub fn weight(&self) -> usize {
        self.weight
    }

    fn load(&mut self, db: &Db, prefix: Prefix<'_>, bucket: u32) -> Result<&mut Bucket<K, V>> {
        if !self.loaded.contains_key(&bucket) {
            let found = read_bucket(db, prefix, bucket, self.seed)?;
            self.weight += found.weight();
            self.loaded.insert(bucket, found);
        }
        Ok(self.loaded.entry(bucket).or_default())
    }

    fn bucket_of(&self, hash: u64) -> u32 {
        if self.buckets == 0 { 0 } else { address(hash, self.buckets) }
    }

    /// The value of a key.
    pub fn get(&mut self, db: &Db, prefix: Prefix<'_>, key: &K) -> Result<Option<&mut V>> {
        let hash = key.hash(self.seed);
        let number = self.bucket_of(hash);
        let bucket = self.load(db, prefix, number)?;
        Ok(match bucket.find(hash, key) {
            Ok(at) => Some(&mut bucket.entries[at].2),
            Err(_) => None,
        })
    }

    /// The value of a key, made when absent; its bucket becomes dirty. `true`: it was absent.
    pub fn entry(&mut self, db: &Db, prefix: Prefix<'_>, key: &K) -> Result<(&mut V, bool)> {
        let hash = key.hash(self.seed);
        self.stamp += 1;
        let mut number = self.bucket_of(hash);
        let absent = self.load(db, prefix, number)?.find(hash, key).is_err();
        if absent {
            let bytes = V::BYTES_HINT + 1 + key.weight() as u64;
            self.bytes += bytes;
            self.weight += size_of::<(u64, K, V)>() + key.weight();
            self.grow(db, prefix)?;
            number = self.bucket_of(hash);
            let bucket = self.load(db, prefix, number)?;
            bucket.bytes += bytes;
            let at = match bucket.find(hash, key) {
                Ok(at) | Err(at) => at,
            };
            bucket.entries.insert(at, (hash, key.clone(), V::default()));
        }
        let bucket = self.load(db, prefix, number)?;
        bucket.dirty = true;
        let at = match bucket.find(hash, key) {
            Ok(at) | Err(at) => at,
        };
        Ok((&mut bucket.entries[at].2, absent))
    }

    /// Splits buckets until the average is right again.
    fn grow(&mut self, db: &Db, prefix: Prefix<'_>) -> Result<()> {
        if self.buckets == 0 && self.bytes > INLINE_BYTES_MAX {
            self.leave_head();
        }
        while self.buckets > 0 && self.bytes > u64::from(self.buckets) * BUCKET_BYTES {
            self.split(db, prefix)?;
        }
        Ok(())
    }

    fn leave_head(&mut self) {
        self.buckets = 1;
        self.loaded.entry(0).or_default().dirty = true;
    }

    fn split(&mut self, db: &Db, prefix: Prefix<'_>) -> Result<()> {
        self.stamp += 1;
        let new = self.buckets;
        let old = new - (1 << (31 - new.leading_zeros()));
        let bucket = self.load(db, prefix, old)?;
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut bucket.entries).into_iter().partition(|(hash, ..)| address(*hash, new + 1) == old);
        let moved = bucket.bytes * go.len() as u64 / (stay.len() + go.len()).max(1) as u64;
        bucket.entries = stay;
        bucket.bytes -= moved;
        bucket.dirty = true;
        self.loaded.insert(new, Bucket { entries: go, dirty: true, bytes: moved, parts: 0 });
        self.buckets += 1;
        Ok(())
    }

    /// Every entry in memory; returns the buckets that are not, and are in the view as they are.
    pub fn for_each_hot(&self, mut each: impl FnMut(&K, &V)) -> ColdBuckets {
        let mut cold = Vec::new();
        for number in 0..self.buckets.max(1) {
            match self.loaded.get(&number) {
                Some(bucket) => bucket.entries.iter().for_each(|(_, k, v)| each(k, v)),
                None => cold.push(number),
            }
        }
        ColdBuckets { seed: self.seed, stamp: self.stamp, numbers: cold }
    }

    /// Every entry, empty ones included. What is not in memory is read and not kept.
    pub fn for_each(&self, db: &Db, prefix: Prefix<'_>, mut each: impl FnMut(&K, &V)) -> Result<()> {
        self.for_each_hot(&mut each).for_each(db, prefix, each)
    }

    /// Whether it is known to hold nothing: small, and every entry empty.
    pub fn is_empty(&self) -> bool {
        let holds = |bucket: &Bucket<K, V>| bucket.entries.iter().any(|(.., value)| !value.is_empty());
        self.buckets == 0 && !self.loaded.get(&0).is_some_and(holds)
    }

    /// Grows with every change and every split: while it stays, cold buckets are as they were.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Every value of a dirty bucket, for what values keep in rows of their own.
    pub fn for_each_dirty(&mut self, mut each: impl FnMut(&K, &mut V)) {
        for bucket in self.loaded.values_mut().filter(|b| b.dirty) {
            bucket.entries.iter_mut().for_each(|(_, k, v)| each(k, v));
        }
    }

    /// Every value in memory.
    pub fn for_each_loaded(&mut self, mut each: impl FnMut(&mut V)) {
        for bucket in self.loaded.values_mut() {
            bucket.entries.iter_mut().for_each(|(.., v)| each(v));
        }
    }

    /// Rows of all dirty buckets, which are clean afterwards. `put_head` must follow in the same batch.
    pub fn snapshot(&mut self, prefix: &[u8], rows: &mut Vec<Row>) {
        if self.buckets == 0 {
            let Some(bucket) = self.loaded.get_mut(&0) else { return };
            bucket.entries.retain(|(.., v)| !v.is_empty());
            let bytes = bucket.encode().len() as u64;
            self.bytes = bytes;
            bucket.bytes = bytes;
            if bytes <= INLINE_BYTES_MAX {
                bucket.dirty = false;
                self.weight = bucket.weight();
                return;
            }
            self.leave_head();
        }
        for (&number, bucket) in self.loaded.iter_mut().filter(|(_, b)| b.dirty) {
            bucket.entries.retain(|(.., v)| !v.is_empty());
            let encoded = bucket.encode();
            self.bytes = self.bytes.saturating_sub(bucket.bytes) + encoded.len() as u64;
            bucket.bytes = encoded.len() as u64;
            bucket.dirty = false;
            let key = |part| keys::bucket(prefix, number, part);
            bucket.parts = parts::write(&key, &encoded, bucket.parts, rows);
        }
        self.weight = self.loaded.values().map(Bucket::weight).sum();
    }
}

fn read_bucket<K: TableKey, V: TableValue>(
    db: &Db,
    prefix: Prefix<'_>,
    number: u32,
    seed: u64,
) -> Result<Bucket<K, V>> {
    let prefix = prefix();
    let key = |part| keys::bucket(&prefix, number, part);
    let Some((bytes, parts)) = parts::read(db, &key)? else { return Ok(Bucket::default()) };
    let mut bucket = Bucket::decode(&bytes, seed).map_err(|m| damaged_row(&key(0), m))?;
    bucket.parts = parts;
    Ok(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_has_one_bucket_and_a_split_moves_only_from_one() {
        for buckets in 1..70u32 {
            for hash in (0..5_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let (before, after) = (address(hash, buckets), address(hash, buckets + 1));
                assert!(before < buckets);
                let split = buckets - (1 << (31 - buckets.leading_zeros()));
                assert!(after == before || (before == split && after == buckets), "{buckets} {hash}");
            }
        }
    }
}
