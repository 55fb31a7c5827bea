//! What the index knows in memory: where each channel's units lie, and which messages were edited since their unit was made.
//!
//! Invariants: units of a channel are in order and never overlap; what is put later replaces what it overlaps; an edit
//! stays until a unit with a newer text is put over it. About 32 bytes per unit, of which a channel has one per 4,096
//! messages and at most fourteen smaller ones, and 16 bytes per edit.

use std::collections::BTreeMap;

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::files::{Edit, Segments};
use super::unit::{FAN_IN, LEVEL_MAX, UnitRef, blocks_of};

/// A unit is made again once one of this many of its messages was edited.
const EDITED_PART: u64 = 32;

/// One channel's part.
#[derive(Debug, Default)]
struct Channel {
    units: Vec<UnitRef>,
    /// Seq, and version of its last edit.
    edits: BTreeMap<u64, u64>,
}

impl Channel {
    fn overlapping(&self, first: u32, end: u32) -> std::ops::Range<usize> {
        let from = self.units.partition_point(|unit| unit.end() <= first);
        from..self.units.partition_point(|unit| unit.first < end).max(from)
    }

    fn covering(&self, block: u32) -> Option<&UnitRef> {
        self.units[self.overlapping(block, block + 1)].first()
    }

    fn edits_in(&self, unit: &UnitRef) -> usize {
        self.edits.range(unit.first_seq()..=unit.last_seq()).count()
    }
}

/// What a search needs of a channel, as it stood at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Ascending.
    pub units: Vec<UnitRef>,
    /// Ascending.
    pub edited: Vec<u64>,
    /// The files they lie in.
    pub segments: Segments,
}

/// Bytes of the units that lie in a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Of units that are in use.
    pub live: u64,
    /// Of units that were replaced.
    pub dead: u64,
}

/// A unit's part of the sum.
fn term(channel: u32, unit: &UnitRef) -> u64 {
    let place = u64::from(unit.first) << 8 | u64::from(unit.level);
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&channel.to_le_bytes());
    bytes[4..12].copy_from_slice(&place.to_le_bytes());
    bytes[12..].copy_from_slice(&unit.as_of.to_le_bytes());
    xxh3_64(&bytes)
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Catalog {
    channels: HashMap<u32, Channel>,
    fills: BTreeMap<u32, Fill>,
    units: u64,
    sum: u64,
    edits: u64,
    /// For snapshots.
    pub segments: Segments,
}

impl Catalog {
    /// Units in use.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// A sum over what units in use cover and how new they are, in whatever order they came.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Edits not yet in a unit.
    pub fn edits(&self) -> u64 {
        self.edits
    }

    /// A channel between two seqs.
    pub fn snapshot(&self, channel: u32, first: u64, last: u64) -> Snapshot {
        let Some(found) = self.channels.get(&channel) else { return Snapshot::default() };
        let units = found.units.iter().filter(|unit| unit.first_seq() <= last && unit.last_seq() >= first);
        Snapshot {
            units: units.copied().collect(),
            edited: found.edits.range(first..=last.max(first)).map(|(&seq, _)| seq).collect(),
            segments: self.segments.clone(),
        }
    }

    /// Puts a unit in place of what it overlaps, and forgets the edits its texts have.
    pub fn put(&mut self, channel: u32, unit: UnitRef) {
        let found = self.channels.entry(channel).or_default();
        let replaced = found.overlapping(unit.first, unit.end());
        for old in found.units.splice(replaced, [unit]) {
            let fill = self.fills.entry(old.segment).or_default();
            fill.live = fill.live.saturating_sub(u64::from(old.bytes));
            fill.dead += u64::from(old.bytes);
            self.units -= 1;
            self.sum = self.sum.wrapping_sub(term(channel, &old));
        }
        self.units += 1;
        self.sum = self.sum.wrapping_add(term(channel, &unit));
        self.fills.entry(unit.segment).or_default().live += u64::from(unit.bytes);
        let before = found.edits.len();
        let (from, to) = (unit.first_seq(), unit.last_seq());
        if found.edits.range(from..=to).next().is_some() {
            found.edits.retain(|&seq, &mut version| seq < from || seq > to || version > unit.as_of);
        }
        self.edits -= (before - found.edits.len()) as u64;
    }

    /// Takes a unit away because its bytes are not what was written; `false` when it was replaced meanwhile.
    pub fn drop_unit(&mut self, channel: u32, unit: &UnitRef) -> bool {
        let Some(found) = self.channels.get_mut(&channel) else { return false };
        let Some(at) = found.units.iter().position(|known| known == unit) else { return false };
        found.units.remove(at);
        self.units -= 1;
        self.sum = self.sum.wrapping_sub(term(channel, unit));
        let fill = self.fills.entry(unit.segment).or_default();
        fill.live = fill.live.saturating_sub(u64::from(unit.bytes));
        fill.dead += u64::from(unit.bytes);
        true
    }

    /// Notes an edit; says whether it matters: a message no unit covers is read anyway, and so is one whose unit is newer.
    pub fn edit(&mut self, (channel, seq, version): Edit) -> bool {
        let Some(found) = self.channels.get_mut(&channel) else { return false };
        let Ok(block) = u32::try_from(seq.saturating_sub(1) / super::unit::BLOCK_SEQS) else { return false };
        if found.covering(block).is_none_or(|unit| unit.as_of >= version) {
            return false;
        }
        self.edits += u64::from(found.edits.insert(seq, version).is_none());
        true
    }

    /// All edits.
    pub fn all_edits(&self) -> Vec<Edit> {
        let edits = self.channels.iter();
        edits.flat_map(|(&no, found)| found.edits.iter().map(move |(&seq, &version)| (no, seq, version))).collect()
    }

    /// The next unit to make in a channel with so many full blocks: over the newest hole, else over edited messages.
    /// With it, how many blocks no unit covers.
    pub fn wanted(&self, channel: u32, full_blocks: u32) -> Option<(u32, u8, u32)> {
        let none = Channel::default();
        let found = self.channels.get(&channel).unwrap_or(&none);
        let mut end = full_blocks;
        let mut hole = None;
        let mut missing = 0;
        for unit in found.units.iter().rev().filter(|unit| unit.first < full_blocks) {
            if unit.end() < end {
                hole.get_or_insert((unit.end(), end));
                missing += end - unit.end();
            }
            end = unit.first;
        }
        if end > 0 {
            hole.get_or_insert((0, end));
            missing += end;
        }
        if let Some((from, to)) = hole {
            // The largest unit that ends with the hole.
            let fits = |level: &u8| to % blocks_of(*level) == 0 && to - from >= blocks_of(*level);
            let level = (0..=LEVEL_MAX).rev().find(fits).unwrap_or(0);
            return Some((to - blocks_of(level), level, missing));
        }
        if found.edits.is_empty() {
            return None;
        }
        let many =
            |unit: &&UnitRef| found.edits_in(unit) as u64 * EDITED_PART >= unit.last_seq() + 1 - unit.first_seq();
        found.units.iter().rev().find(many).map(|unit| (unit.first, unit.level, 0))
    }

    /// The units that can become one together with this one, when all of them are there.
    pub fn siblings(&self, channel: u32, unit: &UnitRef, bytes_max: u64) -> Option<Vec<UnitRef>> {
        if unit.level >= LEVEL_MAX {
            return None;
        }
        let blocks = blocks_of(unit.level + 1);
        let first = unit.first - unit.first % blocks;
        let found = self.channels.get(&channel)?;
        let units = &found.units[found.overlapping(first, first.checked_add(blocks)?)];
        let bytes: u64 = units.iter().map(|unit| u64::from(unit.bytes)).sum();
        let whole = units.len() == FAN_IN as usize && units.iter().all(|other| other.level == unit.level);
        (whole && bytes <= bytes_max).then(|| units.to_vec())
    }

    /// The segment, other than the one written to, that wastes most, once waste as a whole passes both what is live and
    /// `waste_min`; or one that holds nothing.
    pub fn wasteful(&self, tail: u32, waste_min: u64) -> Option<u32> {
        let closed = || self.segments.keys().filter(|&&number| number != tail);
        let fill = |number: &u32| self.fills.get(number).copied().unwrap_or_default();
        if let Some(&empty) = closed().find(|number| fill(number).live == 0) {
            return Some(empty);
        }
        let sum = self
            .fills
            .values()
            .fold(Fill::default(), |sum, fill| Fill { live: sum.live + fill.live, dead: sum.dead + fill.dead });
        if sum.dead <= sum.live.max(waste_min) {
            return None;
        }
        closed().max_by_key(|number| fill(number).dead * 1_000 / (fill(number).live + 1)).copied()
    }

    /// Units in use that lie in a segment.
    pub fn in_segment(&self, segment: u32) -> Vec<(u32, UnitRef)> {
        let all = self.channels.iter();
        all.flat_map(|(&no, found)| found.units.iter().map(move |unit| (no, *unit)))
            .filter(|(_, unit)| unit.segment == segment)
            .collect()
    }

    /// Forgets a segment that nothing lies in any more.
    pub fn forget_segment(&mut self, segment: u32) {
        self.fills.remove(&segment);
        self.segments.remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(first: u32, level: u8, as_of: u64) -> UnitRef {
        UnitRef { first, level, bucket_bits: 0, wide: false, segment: 1, offset: first, bytes: 10, as_of }
    }

    #[test]
    fn units_replace_what_they_overlap_and_take_the_edits_they_have() {
        let mut catalog = Catalog::default();
        assert!(!catalog.edit((1, 5, 50)), "no unit covers it");
        (0..9).for_each(|first| catalog.put(1, unit(first, 0, 40)));
        assert!(catalog.edit((1, 5, 50)) && catalog.edit((1, 6, 70)) && !catalog.edit((1, 7, 40)));
        assert_eq!(catalog.siblings(1, &unit(3, 0, 40), 80).map(|units| units.len()), Some(8));
        assert_eq!(catalog.siblings(1, &unit(3, 0, 40), 79), None);
        assert_eq!(catalog.siblings(1, &unit(8, 0, 40), 80), None);
        catalog.put(1, unit(0, 1, 60));
        let snapshot = catalog.snapshot(1, 1, u64::MAX);
        assert_eq!(snapshot.units, [unit(0, 1, 60), unit(8, 0, 40)]);
        assert_eq!((snapshot.edited, catalog.units(), catalog.edits()), (vec![6], 2, 1));
        assert_eq!(catalog.snapshot(1, 513, 520).units, [unit(8, 0, 40)]);
        assert!(catalog.drop_unit(1, &unit(0, 1, 60)) && !catalog.drop_unit(1, &unit(0, 1, 60)));
        assert_eq!(catalog.wasteful(1, 0), None, "the tail stays");
        catalog.segments = Segments::new();
    }

    #[test]
    fn holes_are_filled_from_the_newest_with_the_largest_unit_that_fits() {
        let mut catalog = Catalog::default();
        let mut made = Vec::new();
        while let Some((first, level, missing)) = catalog.wanted(1, 138) {
            let covered: u32 = made.iter().map(|&(_, level)| blocks_of(level)).sum();
            assert_eq!(missing, 138 - covered);
            made.push((first, level));
            catalog.put(1, unit(first, level, 1));
        }
        assert_eq!(made, [(137, 0), (136, 0), (128, 1), (64, 2), (0, 2)]);
        catalog.drop_unit(1, &unit(64, 2, 1));
        assert_eq!(catalog.wanted(1, 138), Some((64, 2, 64)));
        catalog.put(1, unit(64, 2, 1));
        (0..127).for_each(|seq| assert!(catalog.edit((1, 64 * 64 + 1 + seq, 5))));
        assert_eq!(catalog.wanted(1, 138), None);
        assert!(catalog.edit((1, 64 * 128, 5)));
        assert_eq!(catalog.wanted(1, 138), Some((64, 2, 0)));
    }
}
