//! The index's files: append-only segments of entries, each with a checked head.
//!
//! ```text
//! SEARCH/00000001.seg   "CHWGSRCH" | format u32 | number u32 | log id 16 | crc u32, then entries
//! entry                 crc u32 of the rest of the head | kind u8 | level u8 | bucket bits u8 | wide u8 | body bytes u32
//!                       | body crc u32 (not of units) | channel u32 | first block u32 | version u64 | segment u32 | offset u32
//!                       | zero u32, then the body
//! unit (1)              see `unit`
//! edits (2)             (channel u32, seq u64, version u64)…: messages edited at that version
//! mark (3)              log position u32 u32, version u64, chain 16 | complete u8 | sum u64
//! ```
//!
//! Invariants: a segment begins with every edit not yet in its unit and a mark, synced before anything older is given up,
//! so no older segment is needed for its edits. What lies before a mark in the same segment was written before it; a head
//! or a checked body that is not sound ends a segment. Nothing else is synced: what a crash takes away is made again.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::ids::Version;

use super::unit::{BUCKETS_MAX_BITS, LEVEL_MAX, UnitRef};
use crate::store::log::{LogMark, LogPosition};

const MAGIC: &[u8; 8] = b"CHWGSRCH";
const FORMAT: u32 = 1;
const FILE_HEAD: usize = 36;
const ENTRY_HEAD: usize = 44;
const EDIT_BYTES: usize = 20;
const MARK_BYTES: usize = 41;
/// Bodies of edits and marks are read whole; a longer one is no such body.
const CHECKED_BODY_MAX: u32 = 64 << 20;

const UNIT: u8 = 1;
const EDITS: u8 = 2;
const MARK: u8 = 3;

/// An edited message: (channel, seq, version of the edit).
pub type Edit = (u32, u64, u64);

/// How far the files speak for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Every edit up to here is in an entry or in its unit.
    pub log: LogMark,
    /// Every block that was full at the mark had its unit.
    pub complete: bool,
    /// Over all units in use ([`super::catalog::Catalog::sum`]): shows at start that none of them is lost.
    pub sum: u64,
}

/// An entry as met when files are read at start.
#[derive(Debug)]
pub enum Entry {
    /// A unit of a channel; its body is not looked at.
    Unit(u32, UnitRef),
    /// Edits.
    Edits(Vec<Edit>),
    /// A mark.
    Mark(Mark),
}

/// A unit to be written.
#[derive(Debug)]
pub struct NewUnit {
    /// The channel's number.
    pub channel: u32,
    /// Its place is filled in by writing.
    pub unit: UnitRef,
    /// From [`super::unit::Contents::encode`], or as it lay elsewhere.
    pub body: Vec<u8>,
}

/// The files readers may read from, by number.
pub type Segments = BTreeMap<u32, Arc<File>>;

/// The files, with the end that is written at.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    log_id: [u8; 16],
    segment_bytes_max: u64,
    segments: Segments,
    /// Number and end of the segment written to; number 0: none yet.
    tail: (u32, u64),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn file_head(log_id: &[u8; 16], number: u32) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..16].copy_from_slice(&number.to_le_bytes());
    head[16..32].copy_from_slice(log_id);
    let crc = crc32c::crc32c(&head[..32]);
    head[32..].copy_from_slice(&crc.to_le_bytes());
    head
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u8,
    level: u8,
    bucket_bits: u8,
    wide: bool,
    body_bytes: u32,
    body_crc: u32,
    channel: u32,
    first: u32,
    version: u64,
}

impl Head {
    fn encode(&self, segment: u32, offset: u32) -> [u8; ENTRY_HEAD] {
        let mut head = [0; ENTRY_HEAD];
        head[4..8].copy_from_slice(&[self.kind, self.level, self.bucket_bits, u8::from(self.wide)]);
        head[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        head[16..20].copy_from_slice(&self.channel.to_le_bytes());
        head[20..24].copy_from_slice(&self.first.to_le_bytes());
        head[24..32].copy_from_slice(&self.version.to_le_bytes());
        head[32..36].copy_from_slice(&segment.to_le_bytes());
        head[36..40].copy_from_slice(&offset.to_le_bytes());
        let crc = crc32c::crc32c(&head[4..]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// `None`: no head was written here.
    fn decode(head: &[u8; ENTRY_HEAD], segment: u32, offset: u32) -> Option<Self> {
        if crc32c::crc32c(&head[4..]) != u32_at(head, 0) || u32_at(head, 32) != segment || u32_at(head, 36) != offset {
            return None;
        }
        Some(Self {
            kind: head[4],
            level: head[5],
            bucket_bits: head[6],
            wide: head[7] != 0,
            body_bytes: u32_at(head, 8),
            body_crc: u32_at(head, 12),
            channel: u32_at(head, 16),
            first: u32_at(head, 20),
            version: u64_at(head, 24),
        })
    }
}

fn encode_edits(edits: &[Edit]) -> Vec<u8> {
    let mut body = Vec::with_capacity(edits.len() * EDIT_BYTES);
    for (channel, seq, version) in edits {
        body.extend_from_slice(&channel.to_le_bytes());
        body.extend_from_slice(&seq.to_le_bytes());
        body.extend_from_slice(&version.to_le_bytes());
    }
    body
}

fn encode_mark(mark: &Mark) -> Vec<u8> {
    let mut body = Vec::with_capacity(MARK_BYTES);
    body.extend_from_slice(&mark.log.position.segment.to_le_bytes());
    body.extend_from_slice(&mark.log.position.offset.to_le_bytes());
    body.extend_from_slice(&mark.log.version.get().to_le_bytes());
    body.extend_from_slice(&mark.log.chain);
    body.push(u8::from(mark.complete));
    body.extend_from_slice(&mark.sum.to_le_bytes());
    body
}

fn decode_mark(body: &[u8], log_id: [u8; 16]) -> Option<Mark> {
    let chain = *body.get(16..32)?.first_chunk()?;
    let log = LogMark {
        log_id,
        position: LogPosition { segment: u32_at(body, 0), offset: u32_at(body, 4) },
        version: Version::new(u64_at(body, 8)),
        chain,
    };
    (body.len() == MARK_BYTES).then(|| Mark { log, complete: body[32] != 0, sum: u64_at(body, 33) })
}

fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes an index with everything in it; one that is not there is no error.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl Files {
    /// No files yet, in a directory that is made when the first is written.
    pub fn new(dir: PathBuf, log_id: [u8; 16], segment_bytes_max: u64) -> Self {
        Self { dir, log_id, segment_bytes_max, segments: Segments::new(), tail: (0, 0) }
    }

    /// Reads what is there, in the order it was written. A foreign or headless file and whatever follows an unsound entry
    /// is left out; `found` is told which segment each entry is of.
    pub fn load(&mut self, found: &mut dyn FnMut(u32, Entry)) -> io::Result<()> {
        let mut numbers = Vec::new();
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u32>().ok());
                    numbers.extend(number.filter(|&number| number > 0));
                }
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            let file = OpenOptions::new().read(true).write(true).open(self.path(number))?;
            let end = self.load_segment(&file, number, found)?;
            self.segments.insert(number, Arc::new(file));
            self.tail = (number, end);
        }
        Ok(())
    }

    /// Where the sound part ends; 0 when even the head is not.
    fn load_segment(&self, file: &File, number: u32, found: &mut dyn FnMut(u32, Entry)) -> io::Result<u64> {
        let length = file.metadata()?.len();
        let mut head = [0; FILE_HEAD];
        if length < FILE_HEAD as u64 {
            return Ok(0);
        }
        file.read_exact_at(&mut head, 0)?;
        if head != file_head(&self.log_id, number) {
            return Ok(0);
        }
        let mut at = FILE_HEAD as u64;
        let mut head = [0; ENTRY_HEAD];
        while at + ENTRY_HEAD as u64 <= length {
            let Ok(offset) = u32::try_from(at) else { break };
            file.read_exact_at(&mut head, at)?;
            let Some(head) = Head::decode(&head, number, offset) else { break };
            let end = at + ENTRY_HEAD as u64 + u64::from(head.body_bytes);
            let (false, Ok(_)) = (end > length, u32::try_from(end)) else { break };
            let Some(entry) = self.load_entry(file, number, offset, &head)? else { break };
            found(number, entry);
            at = end;
        }
        Ok(at)
    }

    fn load_entry(&self, file: &File, segment: u32, offset: u32, head: &Head) -> io::Result<Option<Entry>> {
        let body_at = offset + ENTRY_HEAD as u32;
        if head.kind == UNIT {
            if head.level > LEVEL_MAX || head.bucket_bits > BUCKETS_MAX_BITS {
                return Ok(None);
            }
            let unit = UnitRef {
                first: head.first,
                level: head.level,
                bucket_bits: head.bucket_bits,
                wide: head.wide,
                segment,
                offset: body_at,
                bytes: head.body_bytes,
                as_of: head.version,
            };
            return Ok(Some(Entry::Unit(head.channel, unit)));
        }
        if head.body_bytes > CHECKED_BODY_MAX {
            return Ok(None);
        }
        let mut body = vec![0; head.body_bytes as usize];
        file.read_exact_at(&mut body, u64::from(body_at))?;
        if crc32c::crc32c(&body) != head.body_crc {
            return Ok(None);
        }
        Ok(match head.kind {
            EDITS => {
                let edits = body.chunks_exact(EDIT_BYTES);
                Some(Entry::Edits(edits.map(|edit| (u32_at(edit, 0), u64_at(edit, 4), u64_at(edit, 12))).collect()))
            }
            MARK => decode_mark(&body, self.log_id).map(Entry::Mark),
            _ => None,
        })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    /// The files as they stand, for readers.
    pub fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// Whether the next write begins a segment: it wants all edits and a mark first ([`Files::roll`]).
    pub fn is_full(&self, bytes: usize) -> bool {
        let end = self.tail.1 + bytes as u64;
        self.tail.1 < FILE_HEAD as u64 || end > self.segment_bytes_max || end > u64::from(u32::MAX) / 2
    }

    /// Begins a segment with everything that makes the edits of older ones superfluous.
    pub fn roll(&mut self, edits: &[Edit], mark: &Mark) -> io::Result<()> {
        if let Some(file) = self.segments.get(&self.tail.0) {
            file.sync_data()?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let number = self.tail.0 + 1;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(number))?;
        file.write_all_at(&file_head(&self.log_id, number), 0)?;
        self.segments.insert(number, Arc::new(file));
        self.tail = (number, FILE_HEAD as u64);
        self.append_edits(edits)?;
        self.append_mark(mark)?;
        self.sync()?;
        sync_dir(&self.dir)
    }

    /// Makes everything written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.segments.get(&self.tail.0).map_or(Ok(()), |file| file.sync_data())
    }

    /// The tail must have been begun.
    fn append(&mut self, head: &Head, body: &[u8]) -> io::Result<u32> {
        let Some(file) = self.segments.get(&self.tail.0) else {
            return Err(io::Error::other("no segment was begun"));
        };
        let offset = u32::try_from(self.tail.1).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(ENTRY_HEAD + body.len());
        bytes.extend_from_slice(&head.encode(self.tail.0, offset));
        bytes.extend_from_slice(body);
        // Leftovers of a failed write behind this are no entry: a head says where it lies.
        file.write_all_at(&bytes, self.tail.1)?;
        self.tail.1 += bytes.len() as u64;
        Ok(offset + ENTRY_HEAD as u32)
    }

    fn append_checked(&mut self, kind: u8, version: u64, body: &[u8]) -> io::Result<()> {
        let head = Head {
            kind,
            level: 0,
            bucket_bits: 0,
            wide: false,
            body_bytes: u32::try_from(body.len()).map_err(io::Error::other)?,
            body_crc: crc32c::crc32c(body),
            channel: 0,
            first: 0,
            version,
        };
        self.append(&head, body).map(drop)
    }

    /// Writes edits; nothing when there are none.
    pub fn append_edits(&mut self, edits: &[Edit]) -> io::Result<()> {
        if edits.is_empty() {
            return Ok(());
        }
        self.append_checked(EDITS, 0, &encode_edits(edits))
    }

    /// Writes a mark.
    pub fn append_mark(&mut self, mark: &Mark) -> io::Result<()> {
        self.append_checked(MARK, mark.log.version.get(), &encode_mark(mark))
    }

    /// Writes a unit; the answer knows its place.
    pub fn append_unit(&mut self, new: &NewUnit) -> io::Result<UnitRef> {
        let unit = &new.unit;
        let bytes = u32::try_from(new.body.len()).map_err(io::Error::other)?;
        let head = Head {
            kind: UNIT,
            level: unit.level,
            bucket_bits: unit.bucket_bits,
            wide: unit.wide,
            body_bytes: bytes,
            body_crc: 0,
            channel: new.channel,
            first: unit.first,
            version: unit.as_of,
        };
        let offset = self.append(&head, &new.body)?;
        Ok(UnitRef { segment: self.tail.0, offset, bytes, ..*unit })
    }

    /// Cuts what lies behind the sound part of the last segment, before it is written to again.
    pub fn cut_tail(&mut self) -> io::Result<()> {
        match self.segments.get(&self.tail.0) {
            Some(file) if self.tail.1 >= FILE_HEAD as u64 => file.set_len(self.tail.1),
            _ => Ok(()),
        }
    }

    /// Number of the segment written to.
    pub fn tail(&self) -> u32 {
        self.tail.0
    }

    /// Gives up a segment that no unit lies in; readers that have it open go on.
    pub fn delete(&mut self, number: u32) -> io::Result<()> {
        self.segments.remove(&number);
        fs::remove_file(self.path(number))
    }

    /// Gives up everything.
    pub fn clear(&mut self) -> io::Result<()> {
        self.segments.clear();
        self.tail = (0, 0);
        remove(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(version: u64) -> Mark {
        let position = LogPosition { segment: 1, offset: 4_096 };
        let log = LogMark { log_id: [5; 16], position, version: Version::new(version), chain: [8; 16] };
        Mark { log, complete: true, sum: 1 }
    }

    fn unit(first: u32) -> NewUnit {
        let unit = UnitRef { first, level: 0, bucket_bits: 0, wide: false, segment: 0, offset: 0, bytes: 0, as_of: 77 };
        NewUnit { channel: 4, unit, body: vec![first as u8; 100] }
    }

    fn entries(dir: &Path) -> (Files, Vec<String>) {
        let mut files = Files::new(dir.to_owned(), [5; 16], 1 << 20);
        let mut found = Vec::new();
        files
            .load(&mut |segment, entry| {
                found.push(match entry {
                    Entry::Unit(channel, unit) => format!("{segment} unit {channel} {}", unit.first),
                    Entry::Edits(edits) => format!("{segment} edits {edits:?}"),
                    Entry::Mark(mark) => format!("{segment} mark {}", mark.log.version.get()),
                });
            })
            .expect("load");
        (files, found)
    }

    #[test]
    fn entries_come_back_in_order_up_to_the_first_unsound_one() {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("search");
        assert!(entries(&dir).1.is_empty());
        let mut files = Files::new(dir.clone(), [5; 16], 1 << 20);
        assert!(files.is_full(1));
        files.roll(&[(1, 2, 3)], &mark(10)).expect("roll");
        assert!(!files.is_full(1));
        let place = files.append_unit(&unit(7)).expect("unit");
        files.append_edits(&[(4, 9, 11), (4, 10, 12)]).expect("edits");
        files.append_mark(&mark(12)).expect("mark");
        let all = ["1 edits [(1, 2, 3)]", "1 mark 10", "1 unit 4 7", "1 edits [(4, 9, 11), (4, 10, 12)]", "1 mark 12"];
        assert_eq!(entries(&dir).1, all);
        files.roll(&[], &mark(13)).expect("roll");
        assert_eq!(entries(&dir).1.last().map(String::as_str), Some("2 mark 13"));

        // Whatever byte is flipped: what comes before it is there, what comes behind it in the file is not.
        let path = dir.join(segment_name(1));
        let bytes = fs::read(&path).expect("read");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            fs::write(&path, &flipped).expect("write");
            let found = entries(&dir).1;
            let inside_unit = (place.offset as usize..(place.offset + place.bytes) as usize).contains(&at);
            assert_eq!(found.len() == all.len() + 1, inside_unit, "byte {at}");
            assert!(found.iter().rev().skip(1).zip(found.iter().rev()).count() < all.len() + 1);
            assert_eq!(found[..found.len() - 1], all[..found.len() - 1]);
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("write");
        assert_eq!(entries(&dir).1.len(), all.len());
        // A file of another log is none.
        assert!(
            Files::new(dir.clone(), [6; 16], 1 << 20).load(&mut |_, entry| panic!("{entry:?}")).is_ok(),
            "foreign files are passed over"
        );
    }
}
