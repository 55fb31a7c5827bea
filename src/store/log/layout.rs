//! The bytes of a segment: its header, lots, records and footer, and the watermark's slots. Pure: bytes in, values out.
//!
//! Owns every width and offset; refuses to know files. Numbers are little-endian, `v` is a varint (`record`), every CRC is
//! CRC-32C. The CRCs and the magic numbers inside a segment are keyed with the log's random id, and a lot's header names its
//! own place, so no payload, not even a copy of this very log, can look like a lot where it lies.
//!
//! Segment file: header (128 bytes), lots, and once it is closed a footer. Behind the last lot of the open segment there may
//! be zeros, written ahead so that fdatasync need not change the file's length.

use protocol::ids::Version;

use super::finding::SeqRun;
use super::{LogMark, LogPosition};
use crate::store::record::{Fields, RecordError, RecordKind, put_varint};
use crate::store::{ChannelNo, MessageRecord, Record};

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 128;
/// The same as an offset: where a segment's first lot begins.
pub(super) const FIRST_LOT: u32 = SEGMENT_HEADER as u32;
/// Bytes of a lot's header.
pub(super) const LOT_HEADER: usize = 72;
/// Bytes of a record before its body.
pub(super) const RECORD_HEAD: usize = 17;
/// Bytes of a footer before its table.
pub(super) const FOOTER_HEAD: usize = 80;
/// Bytes of a watermark slot.
pub(super) const SLOT: usize = 64;

const SEGMENT_MAGIC: &[u8; 8] = b"CHWGLOG\n";
const SLOT_MAGIC: &[u8; 8] = b"CHWGMARK";
const FORMAT: u16 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Written by a later build: intact, and not ours to read.
    Newer(&'static str),
    /// Not what was written.
    Bad(&'static str),
}

/// What a log's random id makes of its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    lot: [u8; 8],
    footer: [u8; 8],
    seed: u32,
}

impl Keys {
    pub(super) fn new(log_id: &[u8; 16]) -> Self {
        let hash = blake3::derive_key("chinwag log format 1", log_id);
        let part = |from: usize| std::array::from_fn(|i| hash[from + i]);
        Self { lot: part(0), footer: part(8), seed: u32::from_le_bytes(std::array::from_fn(|i| hash[16 + i])) }
    }

    fn crc(&self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed, bytes)
    }

    /// The first bytes of every lot.
    pub(super) fn lot_magic(&self) -> &[u8; 8] {
        &self.lot
    }

    /// The first bytes of every footer.
    pub(super) fn footer_magic(&self) -> &[u8; 8] {
        &self.footer
    }
}

/// Reads fixed-width fields; the widths were compared with the slice by the caller's array type.
fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn id_at<const N: usize>(bytes: &[u8; N], at: usize) -> [u8; 16] {
    std::array::from_fn(|i| bytes[at + i])
}

fn set<const N: usize>(bytes: &mut [u8; N], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn head_of<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Fault> {
    bytes.first_chunk::<N>().ok_or(Fault::Bad("it ends too early"))
}

/// The header of a segment.
///
/// ```text
///  0  8  "CHWGLOG\n"          32  4  number
///  8  4  crc of 12..128       36  4  predecessor's end (0: none)
/// 12  2  format               40  8  last version before it
/// 14  2  zero                 48 16  digest over all lots before it
/// 16 16  log id               64 64  zero
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log_id: [u8; 16],
    pub number: u32,
    pub previous_end: u32,
    pub last_version: Version,
    pub chain: [u8; 16],
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        set(&mut bytes, 0, SEGMENT_MAGIC);
        set(&mut bytes, 12, &FORMAT.to_le_bytes());
        set(&mut bytes, 16, &self.log_id);
        set(&mut bytes, 32, &self.number.to_le_bytes());
        set(&mut bytes, 36, &self.previous_end.to_le_bytes());
        set(&mut bytes, 40, &self.last_version.get().to_le_bytes());
        set(&mut bytes, 48, &self.chain);
        let crc = crc32c::crc32c(&bytes[12..]);
        set(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = head_of::<SEGMENT_HEADER>(bytes)?;
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err(Fault::Bad("it is no segment"));
        }
        if u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..]) {
            return Err(Fault::Bad("the segment header's checksum is wrong"));
        }
        if u16_at(bytes, 12) != FORMAT {
            return Err(Fault::Newer("segment format"));
        }
        Ok(Self {
            log_id: id_at(bytes, 16),
            number: u32_at(bytes, 32),
            previous_end: u32_at(bytes, 36),
            last_version: Version::new(u64_at(bytes, 40)),
            chain: id_at(bytes, 48),
        })
    }
}

/// The header of a lot; its directory follows, then its records.
///
/// ```text
///  0  8  lot magic (keyed)       32  8  last version
///  8  4  crc of 12..72           40  4  records, count
/// 12  4  crc of the directory    44  4  directory, bytes
/// 16  4  segment it lies in      48  4  records, bytes
/// 20  4  offset it lies at       52  2  format, 54  2  zero
/// 24  8  first version           56 16  digest over all lots before it
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LotHeader {
    pub position: LogPosition,
    pub first_version: Version,
    pub last_version: Version,
    pub record_count: u32,
    pub directory_bytes: u32,
    pub records_bytes: u32,
    pub chain_before: [u8; 16],
    directory_crc: u32,
}

impl LotHeader {
    /// Writes the header of a lot over the first bytes of `lot`, whose directory and records are in place.
    pub(super) fn seal(
        keys: &Keys,
        lot: &mut [u8],
        position: LogPosition,
        versions: (Version, Version),
        record_count: u32,
        directory_bytes: u32,
        chain_before: &[u8; 16],
    ) {
        let (head, rest) = lot.split_first_chunk_mut::<LOT_HEADER>().expect("a lot begins with room for its header");
        let (directory, records) = rest.split_at(directory_bytes as usize);
        *head = [0; LOT_HEADER];
        set(head, 0, &keys.lot);
        set(head, 12, &keys.crc(directory).to_le_bytes());
        set(head, 16, &position.segment.to_le_bytes());
        set(head, 20, &position.offset.to_le_bytes());
        set(head, 24, &versions.0.get().to_le_bytes());
        set(head, 32, &versions.1.get().to_le_bytes());
        set(head, 40, &record_count.to_le_bytes());
        set(head, 44, &directory_bytes.to_le_bytes());
        set(head, 48, &(records.len() as u32).to_le_bytes());
        set(head, 52, &FORMAT.to_le_bytes());
        set(head, 56, chain_before);
        let crc = keys.crc(&head[12..]);
        set(head, 8, &crc.to_le_bytes());
    }

    /// Reads the header of the lot at `position`.
    pub(super) fn decode(keys: &Keys, bytes: &[u8], position: LogPosition) -> Result<Self, Fault> {
        let bytes = head_of::<LOT_HEADER>(bytes)?;
        if bytes[..8] != keys.lot {
            return Err(Fault::Bad("no lot begins here"));
        }
        if u32_at(bytes, 8) != keys.crc(&bytes[12..]) {
            return Err(Fault::Bad("the lot header's checksum is wrong"));
        }
        if u16_at(bytes, 52) != FORMAT {
            return Err(Fault::Newer("lot format"));
        }
        let header = Self {
            position: LogPosition { segment: u32_at(bytes, 16), offset: u32_at(bytes, 20) },
            first_version: Version::new(u64_at(bytes, 24)),
            last_version: Version::new(u64_at(bytes, 32)),
            record_count: u32_at(bytes, 40),
            directory_bytes: u32_at(bytes, 44),
            records_bytes: u32_at(bytes, 48),
            chain_before: id_at(bytes, 56),
            directory_crc: u32_at(bytes, 12),
        };
        if header.position != position {
            return Err(Fault::Bad("the lot belongs to another place"));
        }
        let heads = u64::from(header.record_count) * RECORD_HEAD as u64;
        if header.record_count == 0 || heads > u64::from(header.records_bytes) || header.end().is_none() {
            return Err(Fault::Bad("the lot header's numbers cannot be"));
        }
        Ok(header)
    }

    /// Bytes of header and directory.
    pub(super) fn before_records(&self) -> u64 {
        LOT_HEADER as u64 + u64::from(self.directory_bytes)
    }

    /// Offset behind the lot; `None` when that is no offset.
    pub(super) fn end(&self) -> Option<u32> {
        let bytes = self.before_records() + u64::from(self.records_bytes);
        u32::try_from(u64::from(self.position.offset) + bytes).ok()
    }

    /// Checks and reads the directory's bytes.
    pub(super) fn directory(&self, keys: &Keys, bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
        if keys.crc(bytes) != self.directory_crc {
            return Err(Fault::Bad("the lot directory's checksum is wrong"));
        }
        // `heads <= records_bytes` bounds the count by bytes that are there.
        let mut entries = Vec::with_capacity((self.record_count as usize).min(1 << 16));
        let (mut version, mut at) = (self.first_version.get(), 0_u64);
        let mut from = Fields::new(bytes);
        let cannot_be = Fault::Bad("the lot directory's numbers cannot be");
        while from.left() > 0 {
            let run = Run::decode(&mut from).map_err(|_| cannot_be)?;
            version = version.checked_add(run.version_gap).ok_or(cannot_be)?;
            for i in 0..run.count {
                let bytes = from.varint().map_err(|_| cannot_be)?;
                if bytes < RECORD_HEAD as u64 || entries.len() >= self.record_count as usize {
                    return Err(cannot_be);
                }
                let seq = if run.seq == 0 { 0 } else { run.seq.checked_add(i).ok_or(cannot_be)? };
                let offset = u32::try_from(at).map_err(|_| cannot_be)?;
                at = at.checked_add(bytes).filter(|&at| at <= u64::from(self.records_bytes)).ok_or(cannot_be)?;
                entries.push(Entry {
                    kind: run.kind,
                    channel: run.channel,
                    seq,
                    version: Version::new(version),
                    offset,
                    bytes: (at - u64::from(offset)) as u32,
                });
                version = version.checked_add(1).ok_or(cannot_be)?;
            }
        }
        let whole = entries.len() == self.record_count as usize
            && at == u64::from(self.records_bytes)
            && version.checked_sub(1) == Some(self.last_version.get());
        if whole { Ok(entries) } else { Err(cannot_be) }
    }
}

/// A lot's directory: runs of records that follow each other, in the order the records lie.
///
/// One run: u8 kind, v channel number + 1 (0: none), v first seq (messages only), v versions left out before it, v count,
/// then per record v bytes. Within a run kind and channel are the same, and versions, and the seqs of messages, are
/// consecutive.
#[derive(Debug, Clone, Copy)]
struct Run {
    kind: u8,
    channel: Option<ChannelNo>,
    seq: u64,
    version_gap: u64,
    count: u64,
}

impl Run {
    fn decode(from: &mut Fields<'_>) -> Result<Self, RecordError> {
        let kind = from.byte()?;
        let channel = match from.varint()? {
            0 => None,
            n => Some(ChannelNo(u32::try_from(n - 1).map_err(|_| RecordError::Malformed("channel"))?)),
        };
        let seq = if kind == RecordKind::Message.to_stored() { from.varint()? } else { 0 };
        let version_gap = from.varint()?;
        let count = from.count(1)? as u64;
        Ok(Self { kind, channel, seq, version_gap, count })
    }
}

/// What a directory says about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub kind: u8,
    pub channel: Option<ChannelNo>,
    /// 0 when it is no message.
    pub seq: u64,
    pub version: Version,
    /// From the first record's first byte.
    pub offset: u32,
    /// Head and body.
    pub bytes: u32,
}

/// The messages of a directory, joined to runs.
pub(super) fn messages_of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<SeqRun> {
    let mut runs: Vec<SeqRun> = Vec::new();
    for entry in entries {
        let (Some(channel), true) = (entry.channel, entry.kind == RecordKind::Message.to_stored()) else { continue };
        match runs.last_mut() {
            Some(run) if run.channel == channel && run.first_seq.checked_add(run.count) == Some(entry.seq) => {
                run.count += 1;
            }
            _ => runs.push(SeqRun { channel, first_seq: entry.seq, count: 1 }),
        }
    }
    runs
}

/// Writes the directory and the records of a lot, one record after the other; its buffers are used again and again.
#[derive(Debug, Default)]
pub(super) struct LotBuilder {
    runs: Vec<u8>,
    run: Option<Run>,
    lengths: Vec<u8>,
    records: Vec<u8>,
    versions: Option<(Version, Version)>,
    count: u32,
}

impl LotBuilder {
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.run = None;
        self.lengths.clear();
        self.records.clear();
        self.versions = None;
        self.count = 0;
    }

    /// Appends a record and returns where it begins, from the first record's first byte.
    pub(super) fn push(&mut self, keys: &Keys, version: Version, record: &Record) -> usize {
        let at = self.records.len();
        self.records.extend_from_slice(&[0; RECORD_HEAD]);
        record.encode_body(&mut self.records);
        let kind = record.kind().to_stored();
        finish_record(keys, &mut self.records[at..], kind, record.body_format(), version);

        let (channel, seq) = (record.channel(), record.seq());
        let last = self.versions.map(|(_, last)| last);
        let follows = |run: &Run| {
            run.kind == kind
                && run.channel == channel
                && (seq == 0 || run.seq + run.count == seq)
                && last.is_some_and(|last| last.plus(1) == version)
        };
        match &mut self.run {
            Some(run) if follows(run) => run.count += 1,
            _ => {
                let gap = last.map_or(0, |last| version.get() - last.get() - 1);
                self.end_run();
                self.run = Some(Run { kind, channel, seq, version_gap: gap, count: 1 });
            }
        }
        put_varint(&mut self.lengths, (self.records.len() - at) as u64);
        self.versions = Some((self.versions.map_or(version, |(first, _)| first), version));
        self.count += 1;
        at
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        self.runs.push(run.kind);
        put_varint(&mut self.runs, run.channel.map_or(0, |channel| u64::from(channel.0) + 1));
        if run.kind == RecordKind::Message.to_stored() {
            put_varint(&mut self.runs, run.seq);
        }
        put_varint(&mut self.runs, run.version_gap);
        put_varint(&mut self.runs, run.count);
        self.runs.append(&mut self.lengths);
    }

    /// Ends the directory and says how many bytes the lot takes.
    pub(super) fn finish(&mut self) -> u64 {
        self.end_run();
        (LOT_HEADER + self.runs.len() + self.records.len()) as u64
    }

    /// Offset of the first record from the lot's first byte, once finished.
    pub(super) fn before_records(&self) -> u64 {
        (LOT_HEADER + self.runs.len()) as u64
    }

    /// First and last version; `None` for an empty lot.
    pub(super) fn versions(&self) -> Option<(Version, Version)> {
        self.versions
    }

    /// The directory's bytes, once finished.
    pub(super) fn directory(&self) -> &[u8] {
        &self.runs
    }

    /// Writes the whole lot into `out`.
    pub(super) fn write(&self, keys: &Keys, position: LogPosition, chain_before: &[u8; 16], out: &mut Vec<u8>) {
        out.clear();
        let Some(versions) = self.versions else { return };
        out.extend_from_slice(&[0; LOT_HEADER]);
        out.extend_from_slice(&self.runs);
        out.extend_from_slice(&self.records);
        LotHeader::seal(keys, out, position, versions, self.count, self.runs.len() as u32, chain_before);
    }
}

/// Digest over all lots up to one, from that before it and the lot's bytes.
pub(super) fn chain_after(chain_before: &[u8; 16], lot: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain_before);
    hasher.update(lot);
    let hash = hasher.finalize();
    std::array::from_fn(|i| hash.as_bytes()[i])
}

/// The head of a record; its body follows.
///
/// ```text
///  0  4  crc of 4..17 and the body (keyed)     8  1  kind
///  4  4  body, bytes                           9  1  body format
///                                             10  7  version
/// ```
///
/// The version stands here in full, beside the directory's distances, because a message is read with one read and its
/// version is its id.
fn finish_record(keys: &Keys, record: &mut [u8], kind: u8, format: u8, version: Version) {
    let body_bytes = (record.len() - RECORD_HEAD) as u32;
    record[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    record[8] = kind;
    record[9] = format;
    record[10..17].copy_from_slice(&version.get().to_le_bytes()[..7]);
    let crc = keys.crc(&record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Bytes of the record that begins at the front of `bytes`, as its head says; not yet to be trusted.
pub(super) fn record_bytes(bytes: &[u8]) -> Option<u64> {
    let head = bytes.first_chunk::<RECORD_HEAD>()?;
    Some(RECORD_HEAD as u64 + u64::from(u32_at(head, 4)))
}

/// Reads the record that fills exactly `bytes`.
pub(super) fn decode_record(keys: &Keys, bytes: &[u8]) -> Result<(Version, Record), Fault> {
    let head = head_of::<RECORD_HEAD>(bytes)?;
    if record_bytes(bytes) != Some(bytes.len() as u64) {
        return Err(Fault::Bad("the record's length is not what was written"));
    }
    if u32_at(head, 0) != keys.crc(&bytes[4..]) {
        return Err(Fault::Bad("the record's checksum is wrong"));
    }
    let mut version = [0; 8];
    version[..7].copy_from_slice(&head[10..17]);
    match Record::decode_body(head[8], head[9], &bytes[RECORD_HEAD..]) {
        Ok(record) => Ok((Version::new(u64::from_le_bytes(version)), record)),
        Err(RecordError::Newer { .. }) => Err(Fault::Newer("record kind or format")),
        Err(RecordError::Malformed(what)) => Err(Fault::Bad(what)),
    }
}

/// Reads the record of a directory's entry and checks that it is that one.
pub(super) fn decode_entry(keys: &Keys, entry: &Entry, bytes: &[u8]) -> Result<Record, Fault> {
    let (version, record) = decode_record(keys, bytes)?;
    let same = version == entry.version
        && record.kind().to_stored() == entry.kind
        && record.channel() == entry.channel
        && record.seq() == entry.seq;
    if same { Ok(record) } else { Err(Fault::Bad("the record is not the one the directory names")) }
}

/// Reads the message that fills exactly `bytes` and checks that it is the wanted one.
pub(super) fn decode_message(
    keys: &Keys,
    bytes: &[u8],
    channel: ChannelNo,
    seq: u64,
) -> Result<(Version, MessageRecord), Fault> {
    match decode_record(keys, bytes)? {
        (version, Record::Message(message)) if message.channel == channel && message.message_seq.get() == seq => {
            Ok((version, message))
        }
        (_, Record::Message(_)) => Err(Fault::Bad("another message lies here")),
        _ => Err(Fault::Bad("no message lies here")),
    }
}

/// The footer of a closed segment: a cache of what its lots say, to be rebuilt from them when it is lost.
///
/// ```text
///  0  8  footer magic (keyed)      32  4  table, bytes
///  8  4  crc of 12..80             36  4  directories, bytes
/// 12  4  crc of the table          40  4  lots, count
/// 16  4  crc of the directories    44  4  table, entries
/// 20  2  format, 22  2  zero       48  8  last version before the segment
/// 24  4  segment                   56  8  last version in it
/// 28  4  offset it lies at         64 16  digest over all lots up to its end
/// ```
///
/// Table, every 64 KiB of lots: v first version (distance to the one before), v offset (distance). Directories, per lot: v
/// offset (distance), v first version (distance), v bytes of the directory, the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub position: LogPosition,
    pub lot_count: u32,
    pub before: Version,
    pub last_version: Version,
    pub chain: [u8; 16],
    pub table_bytes: u32,
    pub directories_bytes: u32,
    table_count: u32,
    table_crc: u32,
    directories_crc: u32,
}

/// First version and offset of a lot.
pub(super) type TableEntry = (Version, u32);

/// Distance between lots that a table names.
pub(super) const TABLE_STEP: u32 = 64 << 10;

impl Footer {
    pub(super) fn decode(keys: &Keys, bytes: &[u8], position: LogPosition) -> Result<Self, Fault> {
        let bytes = head_of::<FOOTER_HEAD>(bytes)?;
        if bytes[..8] != keys.footer {
            return Err(Fault::Bad("no footer begins here"));
        }
        if u32_at(bytes, 8) != keys.crc(&bytes[12..]) {
            return Err(Fault::Bad("the footer's checksum is wrong"));
        }
        if u16_at(bytes, 20) != FORMAT {
            return Err(Fault::Newer("footer format"));
        }
        let footer = Self {
            position: LogPosition { segment: u32_at(bytes, 24), offset: u32_at(bytes, 28) },
            lot_count: u32_at(bytes, 40),
            before: Version::new(u64_at(bytes, 48)),
            last_version: Version::new(u64_at(bytes, 56)),
            chain: id_at(bytes, 64),
            table_bytes: u32_at(bytes, 32),
            directories_bytes: u32_at(bytes, 36),
            table_count: u32_at(bytes, 44),
            table_crc: u32_at(bytes, 12),
            directories_crc: u32_at(bytes, 16),
        };
        if footer.position == position { Ok(footer) } else { Err(Fault::Bad("the footer belongs to another place")) }
    }

    /// Checks and reads the table's bytes.
    pub(super) fn table(&self, keys: &Keys, bytes: &[u8]) -> Result<Vec<TableEntry>, Fault> {
        if keys.crc(bytes) != self.table_crc {
            return Err(Fault::Bad("the footer table's checksum is wrong"));
        }
        let cannot_be = Fault::Bad("the footer table's numbers cannot be");
        let mut from = Fields::new(bytes);
        let mut table = Vec::with_capacity((self.table_count as usize).min(bytes.len() / 2));
        let (mut version, mut offset) = (self.before.get(), 0_u32);
        while from.left() > 0 {
            let (step, skip) = (from.varint().map_err(|_| cannot_be)?, from.varint().map_err(|_| cannot_be)?);
            version = version.checked_add(step).ok_or(cannot_be)?;
            offset = u32::try_from(skip).ok().and_then(|skip| offset.checked_add(skip)).ok_or(cannot_be)?;
            if offset < FIRST_LOT || offset >= self.position.offset {
                return Err(cannot_be);
            }
            table.push((Version::new(version), offset));
        }
        if table.len() == self.table_count as usize { Ok(table) } else { Err(cannot_be) }
    }

    /// The messages the directories name for the lot at `offset`; empty when it names none or is damaged itself.
    pub(super) fn messages_at(&self, keys: &Keys, directories: &[u8], offset: u32) -> Vec<SeqRun> {
        if keys.crc(directories) != self.directories_crc {
            return Vec::new();
        }
        let mut from = Fields::new(directories);
        let mut at = 0_u64;
        while from.left() > 0 {
            let (Ok(skip), Ok(_), Ok(bytes)) = (from.varint(), from.varint(), from.count(1)) else { break };
            at = at.saturating_add(skip);
            let Ok(directory) = from.take(bytes) else { break };
            if at == u64::from(offset) {
                return runs_of(directory);
            }
        }
        Vec::new()
    }
}

/// The messages of a directory alone, without the header that bounds it.
fn runs_of(directory: &[u8]) -> Vec<SeqRun> {
    let mut from = Fields::new(directory);
    let mut runs = Vec::new();
    while let Ok(run) = Run::decode(&mut from) {
        if let (Some(channel), true) = (run.channel, run.seq > 0) {
            runs.push(SeqRun { channel, first_seq: run.seq, count: run.count });
        }
        if (0..run.count).any(|_| from.varint().is_err()) {
            break;
        }
    }
    runs
}

/// Gathers a footer while its segment grows.
#[derive(Debug, Default)]
pub(super) struct FooterBuilder {
    table: Vec<TableEntry>,
    directories: Vec<u8>,
    last: (u64, u32),
    lot_count: u32,
}

impl FooterBuilder {
    /// Notes a lot.
    pub(super) fn push(&mut self, first_version: Version, offset: u32, directory: &[u8]) {
        note_in_table(&mut self.table, first_version, offset);
        put_varint(&mut self.directories, u64::from(offset - self.last.1));
        put_varint(&mut self.directories, first_version.get() - self.last.0);
        put_varint(&mut self.directories, directory.len() as u64);
        self.directories.extend_from_slice(directory);
        self.last = (first_version.get(), offset);
        self.lot_count += 1;
    }

    /// An upper bound of the footer's bytes once one more lot with such a directory is noted.
    pub(super) fn bytes_max_with(&self, directory_bytes: usize) -> u64 {
        // A table entry and a directory's lead are at most two and three varints of 10 bytes.
        (FOOTER_HEAD + (self.table.len() + 1) * 20 + self.directories.len() + 30 + directory_bytes) as u64
    }

    /// The footer's bytes for a segment that ends at `end`.
    pub(super) fn encode(&self, keys: &Keys, end: &LogMark, before: Version) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.table.len() * 8);
        let mut last = (before.get(), 0);
        for &(version, offset) in &self.table {
            put_varint(&mut table, version.get() - last.0);
            put_varint(&mut table, u64::from(offset - last.1));
            last = (version.get(), offset);
        }
        let mut head = [0; FOOTER_HEAD];
        set(&mut head, 0, &keys.footer);
        set(&mut head, 12, &keys.crc(&table).to_le_bytes());
        set(&mut head, 16, &keys.crc(&self.directories).to_le_bytes());
        set(&mut head, 20, &FORMAT.to_le_bytes());
        set(&mut head, 24, &end.position.segment.to_le_bytes());
        set(&mut head, 28, &end.position.offset.to_le_bytes());
        set(&mut head, 32, &(table.len() as u32).to_le_bytes());
        set(&mut head, 36, &(self.directories.len() as u32).to_le_bytes());
        set(&mut head, 40, &self.lot_count.to_le_bytes());
        set(&mut head, 44, &(self.table.len() as u32).to_le_bytes());
        set(&mut head, 48, &before.get().to_le_bytes());
        set(&mut head, 56, &end.version.get().to_le_bytes());
        set(&mut head, 64, &end.chain);
        let crc = keys.crc(&head[12..]);
        set(&mut head, 8, &crc.to_le_bytes());
        let mut bytes = Vec::with_capacity(FOOTER_HEAD + table.len() + self.directories.len());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&self.directories);
        bytes
    }
}

/// Adds a lot to a sparse table when it is far enough from the last one named.
pub(super) fn note_in_table(table: &mut Vec<TableEntry>, first_version: Version, offset: u32) {
    if table.last().is_none_or(|&(_, last)| offset - last >= TABLE_STEP) {
        table.push((first_version, offset));
    }
}

/// A watermark slot: a mark with a checksum.
///
/// ```text
///  0  8  "CHWGMARK"       16 16  log id       40  8  version
///  8  4  crc of 12..64    32  4  segment      48 16  digest
/// 12  2  format, 14 2 zero 36 4  offset
/// ```
pub(super) fn encode_slot(mark: &LogMark) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    set(&mut bytes, 0, SLOT_MAGIC);
    set(&mut bytes, 12, &FORMAT.to_le_bytes());
    set(&mut bytes, 16, &mark.log_id);
    set(&mut bytes, 32, &mark.position.segment.to_le_bytes());
    set(&mut bytes, 36, &mark.position.offset.to_le_bytes());
    set(&mut bytes, 40, &mark.version.get().to_le_bytes());
    set(&mut bytes, 48, &mark.chain);
    let crc = crc32c::crc32c(&bytes[12..]);
    set(&mut bytes, 8, &crc.to_le_bytes());
    bytes
}

/// Reads a slot; one that fails its checksum is [`Fault::Bad`], which means absent.
pub(super) fn decode_slot(bytes: &[u8]) -> Result<LogMark, Fault> {
    let bytes = head_of::<SLOT>(bytes)?;
    if &bytes[..8] != SLOT_MAGIC || u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..]) {
        return Err(Fault::Bad("the slot's checksum is wrong"));
    }
    if u16_at(bytes, 12) != FORMAT {
        return Err(Fault::Newer("watermark format"));
    }
    Ok(LogMark {
        log_id: id_at(bytes, 16),
        position: LogPosition { segment: u32_at(bytes, 32), offset: u32_at(bytes, 36) },
        version: Version::new(u64_at(bytes, 40)),
        chain: id_at(bytes, 48),
    })
}
