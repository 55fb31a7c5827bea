//! One unit of the index: which of up to 4,096 consecutive messages hold which window, as bytes.
//!
//! ```text
//! body     table | bucket 0 … bucket 2^b - 1 | bucket of wide places
//! table    (2^b + 2) x u32: where each bucket begins in the body, and where the last ends | crc u32
//! bucket   entries | crc u32
//! entry    varint hash - hash of the entry before | places, ascending: varint (place - place before) x 2 + another follows
//! ```
//! Bucket n holds the hashes whose first b bits are n. Every checksum begins with what the unit is and which bucket it is
//! of, so nothing but the bytes that were written for this place passes. Wide places are candidates whatever is looked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::grams::HASH_BITS;

/// Messages of a block, the smallest unit.
pub const BLOCK_SEQS: u64 = 64;
/// Largest level: units of 1, 8 and 64 blocks.
pub const LEVEL_MAX: u8 = 2;
/// How many units of a level become one of the next.
pub const FAN_IN: u32 = 8;
/// Pairs of a bucket, on average: about half a KiB.
const BUCKET_PAIRS: usize = 256;
/// A unit has at most 2 to the power of this many buckets.
pub const BUCKETS_MAX_BITS: u8 = 12;
/// A body up to this size is read whole: one read instead of one per bucket.
const WHOLE_BYTES_MAX: u32 = 16 << 10;

/// Blocks of a unit of this level.
pub fn blocks_of(level: u8) -> u32 {
    FAN_IN.pow(u32::from(level))
}

/// Where a unit lies and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitRef {
    /// Its first block.
    pub first: u32,
    /// It covers [`blocks_of`] this many.
    pub level: u8,
    /// Buckets: 2 to the power of this.
    pub bucket_bits: u8,
    /// Some of its messages are candidates of every search.
    pub wide: bool,
    /// The file, and the body in it.
    pub segment: u32,
    /// Where the body begins in the file.
    pub offset: u32,
    /// Bytes of the body.
    pub bytes: u32,
    /// Its texts are at least as new as this version.
    pub as_of: u64,
}

impl UnitRef {
    /// The block behind its last.
    pub fn end(&self) -> u32 {
        self.first + blocks_of(self.level)
    }

    /// Its first seq.
    pub fn first_seq(&self) -> u64 {
        u64::from(self.first) * BLOCK_SEQS + 1
    }

    /// Its last seq.
    pub fn last_seq(&self) -> u64 {
        u64::from(self.end()) * BLOCK_SEQS
    }
}

/// The bytes are not those that were written.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// A checksum or a structure is wrong.
    #[error("the unit is damaged")]
    Damaged,
    /// The disk did not answer, or the file is too short.
    #[error("the unit cannot be read")]
    Io(#[from] io::Error),
}

/// What a unit holds, before it is bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    /// hash × 2^16 + place, ascending, each once.
    pub pairs: Vec<u64>,
    /// Places of wide messages, ascending.
    pub wide: Vec<u16>,
}

/// What its checksums begin with.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The channel's number.
    pub channel: u32,
    /// The unit's first block.
    pub first: u32,
    /// Its version.
    pub as_of: u64,
}

impl Identity {
    fn crc(self, bucket: u32, bytes: &[u8]) -> u32 {
        let mut head = [0; 20];
        head[..4].copy_from_slice(&self.channel.to_le_bytes());
        head[4..8].copy_from_slice(&self.first.to_le_bytes());
        head[8..16].copy_from_slice(&self.as_of.to_le_bytes());
        head[16..].copy_from_slice(&bucket.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&head), bytes)
    }
}

/// The table's number in checksums.
const TABLE: u32 = u32::MAX;

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let mut value = u32::from(first & 0x7f);
    let mut byte = first;
    for shift in [7, 14, 21, 28] {
        if byte & 0x80 == 0 {
            return Some(value);
        }
        let (&next, rest) = bytes.split_first()?;
        *bytes = rest;
        byte = next;
        value |= u32::from(byte & 0x7f) << shift;
    }
    (byte & 0x80 == 0).then_some(value)
}

/// The places of the entry at the front of `bytes`, or what is wrong with them.
fn take_places(bytes: &mut &[u8], mut place: impl FnMut(u16)) -> Result<(), UnitError> {
    let mut at = 0u32;
    loop {
        let step = take_varint(bytes).ok_or(UnitError::Damaged)?;
        at = at.checked_add(step >> 1).ok_or(UnitError::Damaged)?;
        place(u16::try_from(at).map_err(|_| UnitError::Damaged)?);
        if step & 1 == 0 {
            return Ok(());
        }
    }
}

fn put_places(out: &mut Vec<u8>, places: impl Iterator<Item = u16>) {
    let mut before = 0;
    let mut places = places.peekable();
    while let Some(place) = places.next() {
        put_varint(out, u32::from(place - before) << 1 | u32::from(places.peek().is_some()));
        before = place;
    }
}

impl Contents {
    /// Brings what was gathered in any order into order.
    pub fn finish(&mut self) {
        // Stable: it recognises runs, and merged units are a few long ones.
        self.pairs.sort();
        self.pairs.dedup();
        self.wide.sort_unstable();
    }

    /// The body, and how many bits number its buckets.
    pub fn encode(&self, identity: Identity) -> (Vec<u8>, u8) {
        let wanted = (self.pairs.len() / BUCKET_PAIRS).next_power_of_two().trailing_zeros() as u8;
        let bits = wanted.min(BUCKETS_MAX_BITS);
        let buckets = 1usize << bits;
        let table_bytes = (buckets + 2) * 4;
        let mut out = vec![0; table_bytes + 4];
        out.reserve(self.pairs.len() * 2);
        let mut starts = Vec::with_capacity(buckets + 2);
        let mut rest = &self.pairs[..];
        for bucket in 0..buckets as u64 {
            let start = out.len();
            starts.push(start as u32);
            let base = (bucket << (HASH_BITS - u32::from(bits))) as u32;
            let end = (bucket + 1) << (HASH_BITS - u32::from(bits)) << 16;
            let (of_bucket, behind) = rest.split_at(rest.partition_point(|&pair| pair < end));
            rest = behind;
            let mut before = base;
            for entry in of_bucket.chunk_by(|a, b| a >> 16 == b >> 16) {
                let Some(&first) = entry.first() else { continue };
                let hash = (first >> 16) as u32;
                put_varint(&mut out, hash - before);
                before = hash;
                put_places(&mut out, entry.iter().map(|&pair| pair as u16));
            }
            let crc = identity.crc(bucket as u32, &out[start..]);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let start = out.len();
        starts.push(start as u32);
        put_places(&mut out, self.wide.iter().copied());
        let crc = identity.crc(buckets as u32, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        starts.push(out.len() as u32);
        for (slot, start) in out.chunks_exact_mut(4).zip(&starts) {
            slot.copy_from_slice(&start.to_le_bytes());
        }
        let crc = identity.crc(TABLE, &out[..table_bytes]);
        out[table_bytes..table_bytes + 4].copy_from_slice(&crc.to_le_bytes());
        (out, bits)
    }
}

/// A unit being read.
#[derive(Debug)]
pub struct UnitReader<'a> {
    file: &'a File,
    unit: UnitRef,
    identity: Identity,
    starts: Vec<u32>,
    /// The body from its begin on, as far as it was read in the first go.
    front: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> UnitReader<'a> {
    /// Reads the table, and everything else with it when that is little.
    pub fn open(file: &'a File, channel: u32, unit: &UnitRef) -> Result<Self, UnitError> {
        let identity = Identity { channel, first: unit.first, as_of: unit.as_of };
        let table_bytes = ((1usize << unit.bucket_bits.min(BUCKETS_MAX_BITS)) + 2) * 4;
        let wanted = if unit.bytes <= WHOLE_BYTES_MAX { unit.bytes as usize } else { table_bytes + 4 };
        if wanted < table_bytes + 4 || wanted > unit.bytes as usize {
            return Err(UnitError::Damaged);
        }
        let mut front = vec![0; wanted];
        file.read_exact_at(&mut front, u64::from(unit.offset))?;
        let (table, rest) = front.split_at(table_bytes);
        if rest.first_chunk().map(|crc| u32::from_le_bytes(*crc)) != Some(identity.crc(TABLE, table)) {
            return Err(UnitError::Damaged);
        }
        let starts = table.as_chunks::<4>().0.iter().map(|start| u32::from_le_bytes(*start)).collect();
        Ok(Self { file, unit: *unit, identity, starts, front, buffer: Vec::new() })
    }

    /// Reads everything, for one that needs all of it.
    pub fn open_whole(file: &'a File, channel: u32, unit: &UnitRef) -> Result<Self, UnitError> {
        let mut reader = Self::open(file, channel, unit)?;
        if reader.front.len() < unit.bytes as usize {
            reader.front = vec![0; unit.bytes as usize];
            file.read_exact_at(&mut reader.front, u64::from(unit.offset))?;
        }
        Ok(reader)
    }

    fn bucket(&mut self, bucket: u32) -> Result<&[u8], UnitError> {
        let at = bucket as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(at), self.starts.get(at + 1)) else {
            return Err(UnitError::Damaged);
        };
        if end > self.unit.bytes || end < start.saturating_add(4) {
            return Err(UnitError::Damaged);
        }
        let bytes = match self.front.get(start as usize..end as usize) {
            Some(bytes) => bytes,
            None => {
                self.buffer.resize((end - start) as usize, 0);
                self.file.read_exact_at(&mut self.buffer, u64::from(self.unit.offset) + u64::from(start))?;
                &self.buffer
            }
        };
        let (entries, crc) = bytes.split_at(bytes.len() - 4);
        if crc != self.identity.crc(bucket, entries).to_le_bytes() {
            return Err(UnitError::Damaged);
        }
        Ok(entries)
    }

    /// The places of a hash, ascending; none when nothing has it.
    pub fn places(&mut self, hash: u32) -> Result<Vec<u16>, UnitError> {
        let shift = HASH_BITS - u32::from(self.unit.bucket_bits);
        let number = hash >> shift;
        let mut entries = self.bucket(number)?;
        let mut at = number << shift;
        while !entries.is_empty() {
            let step = take_varint(&mut entries).ok_or(UnitError::Damaged)?;
            at = at.checked_add(step).ok_or(UnitError::Damaged)?;
            if at > hash {
                break;
            }
            if at == hash {
                let mut places = Vec::new();
                take_places(&mut entries, |place| places.push(place))?;
                return Ok(places);
            }
            take_places(&mut entries, |_| {})?;
        }
        Ok(Vec::new())
    }

    /// Places that are candidates of every search.
    pub fn wide(&mut self) -> Result<Vec<u16>, UnitError> {
        let mut entries = self.bucket(1 << self.unit.bucket_bits)?;
        let mut places = Vec::new();
        if !entries.is_empty() {
            take_places(&mut entries, |place| places.push(place))?;
        }
        Ok(places)
    }

    /// Adds everything to `into`, places moved up by `shift`.
    pub fn gather(&mut self, shift: u16, into: &mut Contents) -> Result<(), UnitError> {
        let bits = self.unit.bucket_bits;
        for number in 0..1u32 << bits {
            let mut entries = self.bucket(number)?;
            let mut hash = number << (HASH_BITS - u32::from(bits));
            while !entries.is_empty() {
                let step = take_varint(&mut entries).ok_or(UnitError::Damaged)?;
                hash = hash.checked_add(step).ok_or(UnitError::Damaged)?;
                let pairs = &mut into.pairs;
                take_places(&mut entries, |place| {
                    pairs.push(u64::from(hash) << 16 | u64::from(place.saturating_add(shift)));
                })?;
            }
        }
        into.wide.extend(self.wide()?.into_iter().map(|place| place.saturating_add(shift)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { channel: 3, first: 64, as_of: 99 };

    fn stored(contents: &Contents) -> (tempfile::NamedTempFile, UnitRef) {
        let (body, bucket_bits) = contents.encode(IDENTITY);
        let file = tempfile::NamedTempFile::new().expect("file");
        file.as_file().write_all_at(&body, 10).expect("write");
        let wide = !contents.wide.is_empty();
        let bytes = body.len() as u32;
        let unit = UnitRef { first: 64, level: 2, bucket_bits, wide, segment: 1, offset: 10, bytes, as_of: 99 };
        (file, unit)
    }

    fn contents(pairs: u64, places: u64) -> Contents {
        let mut contents = Contents { wide: vec![9, 4_095], ..Contents::default() };
        for i in 0..pairs {
            let hash = (i / 3).wrapping_mul(0x9e37_79b9) & 0xff_ffff;
            contents.pairs.push(hash << 16 | i % places);
        }
        contents.finish();
        contents
    }

    #[test]
    fn what_is_written_is_found_in_small_and_large_units() {
        for (pairs, places) in [(0, 1), (1, 1), (200, 64), (3_700, 64), (100_000, 4_096)] {
            let contents = contents(pairs, places);
            let (file, unit) = stored(&contents);
            let mut reader = UnitReader::open(file.as_file(), 3, &unit).expect("open");
            for entry in contents.pairs.chunk_by(|a, b| a >> 16 == b >> 16) {
                let expected: Vec<u16> = entry.iter().map(|&pair| pair as u16).collect();
                assert_eq!(reader.places((entry[0] >> 16) as u32).expect("read"), expected);
            }
            assert!(reader.places(0x12_3457).expect("read").is_empty());
            assert_eq!(reader.wide().expect("read"), vec![9, 4_095]);
            let mut back = Contents::default();
            UnitReader::open_whole(file.as_file(), 3, &unit).expect("open").gather(0, &mut back).expect("read");
            assert_eq!(back, contents);
            // Another unit's bytes are not this one's.
            assert!(matches!(UnitReader::open(file.as_file(), 4, &unit), Err(UnitError::Damaged)));
        }
    }

    #[test]
    fn a_flipped_bit_is_never_an_answer() {
        let contents = contents(2_000, 64);
        let (file, unit) = stored(&contents);
        let hashes: Vec<u32> = contents.pairs.iter().map(|pair| (pair >> 16) as u32).collect();
        for byte in (0..unit.bytes).step_by(7) {
            let at = u64::from(unit.offset + byte);
            let mut one = [0];
            file.as_file().read_exact_at(&mut one, at).expect("read");
            file.as_file().write_all_at(&[one[0] ^ 0x10], at).expect("write");
            let found = UnitReader::open(file.as_file(), 3, &unit).and_then(|mut reader| {
                reader.wide()?;
                for &hash in &hashes {
                    reader.places(hash)?;
                }
                Ok(())
            });
            assert!(matches!(found, Err(UnitError::Damaged)), "byte {byte}");
            file.as_file().write_all_at(&one, at).expect("write");
        }
    }
}
