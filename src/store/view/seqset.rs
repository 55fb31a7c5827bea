//! A set of seqs that answers "how many up to here" in a few row look-ups, whatever its size: the corrections of unread
//! (store.md section 4).
//!
//! Up to [`SMALL_MAX`] seqs lie in the owner's row. A larger set is a counted radix tree of fixed depth: leaves of 16,384
//! seqs (a bitmap, or a list while sparse), nodes with the counts of 512 leaves, and one count per node in the owner's row.
//! So a rank is two look-ups, and an insertion in the middle (expiry is not in order of seq) changes two rows and no other
//! page. Inserting or removing twice changes nothing.
//! A page whose last seq was taken out stays as an empty row.

use foldhash::HashMap;

use super::codec::{Malformed, Reader, Writer};
use super::damaged_row;
use super::db::{Db, Row};
use super::keys::{self, Prefix};
use crate::store::Result;

/// A set up to this size has no pages.
const SMALL_MAX: usize = 32;
const LEAF_BITS: u32 = 14;
const NODE_BITS: u32 = 9;
const LEAF_SEQS: usize = 1 << LEAF_BITS;
const NODE_LEAVES: usize = 1 << NODE_BITS;
/// A leaf with more is a bitmap.
const SPARSE_MAX: usize = 512;
const LEVEL_LEAF: u8 = 0;
const LEVEL_NODE: u8 = 1;

#[derive(Debug)]
enum Leaf {
    /// Ascending.
    Sparse(Vec<u16>),
    Dense(Box<[u64; LEAF_SEQS / 64]>),
}

impl Leaf {
    fn insert(&mut self, bit: u16) -> bool {
        match self {
            Leaf::Sparse(list) => {
                // Own seqs come in ascending order.
                if list.last().is_none_or(|&last| last < bit) {
                    list.push(bit);
                } else if let Err(at) = list.binary_search(&bit) {
                    list.insert(at, bit);
                } else {
                    return false;
                }
                if list.len() > SPARSE_MAX {
                    let mut words = Box::new([0; LEAF_SEQS / 64]);
                    list.iter().for_each(|&b| words[usize::from(b) / 64] |= 1 << (b % 64));
                    *self = Leaf::Dense(words);
                }
                true
            }
            Leaf::Dense(words) => {
                let (word, mask) = (usize::from(bit) / 64, 1 << (bit % 64));
                let absent = words[word] & mask == 0;
                words[word] |= mask;
                absent
            }
        }
    }

    fn remove(&mut self, bit: u16) -> bool {
        match self {
            Leaf::Sparse(list) => match list.binary_search(&bit) {
                Ok(at) => {
                    list.remove(at);
                    true
                }
                Err(_) => false,
            },
            Leaf::Dense(words) => {
                let (word, mask) = (usize::from(bit) / 64, 1 << (bit % 64));
                let present = words[word] & mask != 0;
                words[word] &= !mask;
                present
            }
        }
    }

    /// How many up to and including `bit`.
    fn rank(&self, bit: u16) -> u64 {
        match self {
            Leaf::Sparse(list) => list.partition_point(|&b| b <= bit) as u64,
            Leaf::Dense(words) => {
                let (word, shift) = (usize::from(bit) / 64, 63 - u32::from(bit % 64));
                let whole: u32 = words[..word].iter().map(|w| w.count_ones()).sum();
                u64::from(whole + (words[word] << shift).count_ones())
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::row();
        match self {
            Leaf::Sparse(list) => {
                w.u8(0);
                w.varint(list.len() as u64);
                let mut previous = 0;
                for &bit in list {
                    w.varint(u64::from(bit - previous));
                    previous = bit;
                }
            }
            Leaf::Dense(words) => {
                w.u8(1);
                words.iter().for_each(|&word| w.u64(word));
            }
        }
        w.finish()
    }

    fn decode(row: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::row(row)?;
        if r.u8()? == 0 {
            let count = r.count(SPARSE_MAX)?;
            let mut list = Vec::with_capacity(count);
            let mut bit = 0u64;
            for _ in 0..count {
                bit = bit.saturating_add(r.varint()?);
                list.push(u16::try_from(bit).ok().filter(|&b| usize::from(b) < LEAF_SEQS).ok_or(Malformed)?);
            }
            return Ok(Leaf::Sparse(list));
        }
        let mut words = Box::new([0; LEAF_SEQS / 64]);
        for word in words.iter_mut() {
            *word = r.u64()?;
        }
        Ok(Leaf::Dense(words))
    }

    fn weight(&self) -> usize {
        match self {
            Leaf::Sparse(list) => 2 * list.capacity() + 64,
            Leaf::Dense(_) => LEAF_SEQS / 8 + 64,
        }
    }
}

/// Counts of the leaves of a node.
#[derive(Debug)]
struct Node(Box<[u16; NODE_LEAVES]>);

impl Node {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::row();
        let used = self.0.iter().rposition(|&n| n > 0).map_or(0, |at| at + 1);
        w.varint(used as u64);
        self.0[..used].iter().for_each(|&n| w.varint(u64::from(n)));
        w.finish()
    }

    fn decode(row: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::row(row)?;
        let used = r.count(NODE_LEAVES)?;
        let mut counts = Box::new([0; NODE_LEAVES]);
        for count in counts[..used].iter_mut() {
            *count = u16::try_from(r.varint()?).map_err(|_| Malformed)?;
        }
        Ok(Node(counts))
    }
}

#[derive(Debug)]
struct Page<T> {
    data: T,
    dirty: bool,
}

#[derive(Debug, Default)]
struct Big {
    count: u64,
    /// Count of every node, by number.
    tops: Vec<u64>,
    nodes: HashMap<u64, Page<Node>>,
    leaves: HashMap<u64, Page<Leaf>>,
}

/// The set. Pages it needed stay in memory with it.
#[derive(Debug, Default)]
pub struct SeqSet {
    /// Ascending; empty when `big`.
    small: Vec<u64>,
    big: Option<Box<Big>>,
}

impl Big {
    fn node(&mut self, db: &Db, prefix: Prefix<'_>, number: u64) -> Result<&mut Page<Node>> {
        match self.nodes.entry(number) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(free) => {
                let known = usize::try_from(number).ok().and_then(|n| self.tops.get(n)).is_some_and(|&n| n > 0);
                let key = keys::set_page(&prefix(), LEVEL_NODE, number);
                let node = match if known { db.get(&key)? } else { None } {
                    Some(row) => Node::decode(&row).map_err(|m| damaged_row(&key, m))?,
                    None => Node(Box::new([0; NODE_LEAVES])),
                };
                Ok(free.insert(Page { data: node, dirty: false }))
            }
        }
    }

    fn leaf(&mut self, db: &Db, prefix: Prefix<'_>, number: u64) -> Result<&mut Page<Leaf>> {
        let known = !self.leaves.contains_key(&number)
            && self.node(db, prefix, number >> NODE_BITS)?.data.0[number as usize % NODE_LEAVES] > 0;
        match self.leaves.entry(number) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(free) => {
                let key = keys::set_page(&prefix(), LEVEL_LEAF, number);
                let leaf = match if known { db.get(&key)? } else { None } {
                    Some(row) => Leaf::decode(&row).map_err(|m| damaged_row(&key, m))?,
                    None => Leaf::Sparse(Vec::new()),
                };
                Ok(free.insert(Page { data: leaf, dirty: false }))
            }
        }
    }

    fn insert(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<bool> {
        let (leaf_no, node_no) = (seq >> LEAF_BITS, seq >> (LEAF_BITS + NODE_BITS));
        // The node first: whatever may fail has failed before anything changes.
        self.node(db, prefix, node_no)?;
        let leaf = self.leaf(db, prefix, leaf_no)?;
        if !leaf.data.insert((seq as usize % LEAF_SEQS) as u16) {
            return Ok(false);
        }
        leaf.dirty = true;
        let node = self.node(db, prefix, node_no)?;
        node.data.0[leaf_no as usize % NODE_LEAVES] += 1;
        node.dirty = true;
        let top = usize::try_from(node_no).unwrap_or(usize::MAX);
        if self.tops.len() <= top {
            self.tops.resize(top + 1, 0);
        }
        self.tops[top] += 1;
        self.count += 1;
        Ok(true)
    }

    fn remove(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<bool> {
        let (leaf_no, node_no) = (seq >> LEAF_BITS, seq >> (LEAF_BITS + NODE_BITS));
        let leaf = self.leaf(db, prefix, leaf_no)?;
        if !leaf.data.remove((seq as usize % LEAF_SEQS) as u16) {
            return Ok(false);
        }
        leaf.dirty = true;
        // The leaf held it, so its node and its top count it.
        let node = self.node(db, prefix, node_no)?;
        node.data.0[leaf_no as usize % NODE_LEAVES] -= 1;
        node.dirty = true;
        if let Some(top) = self.tops.get_mut(usize::try_from(node_no).unwrap_or(usize::MAX)) {
            *top -= 1;
        }
        self.count -= 1;
        Ok(true)
    }

    fn rank(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<u64> {
        let (leaf_no, node_no) = (seq >> LEAF_BITS, seq >> (LEAF_BITS + NODE_BITS));
        let top = usize::try_from(node_no).unwrap_or(usize::MAX).min(self.tops.len());
        let before: u64 = self.tops[..top].iter().sum();
        if self.tops.get(top).is_none_or(|&n| n == 0) {
            return Ok(before);
        }
        let within = leaf_no as usize % NODE_LEAVES;
        let node = self.node(db, prefix, node_no)?;
        let left: u64 = node.data.0[..within].iter().map(|&n| u64::from(n)).sum();
        if node.data.0[within] == 0 {
            return Ok(before + left);
        }
        let leaf = self.leaf(db, prefix, leaf_no)?;
        Ok(before + left + leaf.data.rank((seq as usize % LEAF_SEQS) as u16))
    }
}

impl SeqSet {
    pub fn count(&self) -> u64 {
        self.big.as_ref().map_or(self.small.len() as u64, |b| b.count)
    }

    /// Adds a seq; `false` when it was there.
    pub fn insert(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<bool> {
        if let Some(big) = &mut self.big {
            return big.insert(db, prefix, seq);
        }
        match self.small.binary_search(&seq) {
            Ok(_) => return Ok(false),
            Err(at) => self.small.insert(at, seq),
        }
        if self.small.len() > SMALL_MAX {
            let mut big = Box::<Big>::default();
            for seq in std::mem::take(&mut self.small) {
                big.insert(db, prefix, seq)?;
            }
            self.big = Some(big);
        }
        Ok(true)
    }

    /// Takes a seq out; `false` when it was not in.
    pub fn remove(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<bool> {
        match &mut self.big {
            Some(big) => big.remove(db, prefix, seq),
            None => Ok(self.small.binary_search(&seq).map(|at| self.small.remove(at)).is_ok()),
        }
    }

    /// How many are in the set up to and including `seq`.
    pub fn rank(&mut self, db: &Db, prefix: Prefix<'_>, seq: u64) -> Result<u64> {
        match &mut self.big {
            Some(big) => big.rank(db, prefix, seq),
            None => Ok(self.small.partition_point(|&s| s <= seq) as u64),
        }
    }

    /// The part in the owner's row.
    pub fn put(&self, w: &mut Writer) {
        match &self.big {
            None => {
                w.varint(self.small.len() as u64);
                let mut previous = 0;
                for &seq in &self.small {
                    w.varint(seq - previous);
                    previous = seq;
                }
            }
            Some(big) => {
                w.varint(SMALL_MAX as u64 + 1);
                w.varint(big.count);
                w.varint(big.tops.len() as u64);
                big.tops.iter().for_each(|&n| w.varint(n));
            }
        }
    }

    pub fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = r.count(SMALL_MAX + 1)?;
        if count <= SMALL_MAX {
            let mut small = Vec::with_capacity(count);
            let mut seq = 0u64;
            for _ in 0..count {
                seq = seq.checked_add(r.varint()?).ok_or(Malformed)?;
                small.push(seq);
            }
            return Ok(Self { small, big: None });
        }
        let count = r.varint()?;
        let len = r.count(super::codec::ROW_BYTES_MAX)?;
        let tops = (0..len).map(|_| r.varint()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { small: Vec::new(), big: Some(Box::new(Big { count, tops, ..Big::default() })) })
    }

    /// Rows of changed pages, which are clean afterwards. The owner's row must follow in the same batch.
    pub fn snapshot(&mut self, prefix: &[u8], rows: &mut Vec<Row>) {
        let Some(big) = &mut self.big else { return };
        for (&number, page) in big.nodes.iter_mut().filter(|(_, p)| p.dirty) {
            rows.push((keys::set_page(prefix, LEVEL_NODE, number), Some(page.data.encode())));
            page.dirty = false;
        }
        for (&number, page) in big.leaves.iter_mut().filter(|(_, p)| p.dirty) {
            rows.push((keys::set_page(prefix, LEVEL_LEAF, number), Some(page.data.encode())));
            page.dirty = false;
        }
    }

    /// Drops clean pages but the newest, once their rows are in the view.
    pub fn settle(&mut self) {
        let Some(big) = &mut self.big else { return };
        let (leaf, node) = (big.leaves.keys().max().copied(), big.nodes.keys().max().copied());
        big.leaves.retain(|n, p| p.dirty || Some(*n) == leaf);
        big.nodes.retain(|n, p| p.dirty || Some(*n) == node);
    }

    pub fn weight(&self) -> usize {
        let big = self.big.as_ref().map_or(0, |b| {
            b.nodes.len() * (2 * NODE_LEAVES + 64) + b.leaves.values().map(|l| l.data.weight()).sum::<usize>() + 200
        });
        self.small.capacity() * 8 + big
    }
}
