//! Segments as the process holds them: open files, how far they may be read, and lots read from them.
//!
//! Owns what writer and readers share. Nobody reads at or beyond [`Segment::end`], so a lot whose fdatasync has not returned
//! is never served, nor one whose write failed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use protocol::ids::Version;

use super::files::{Files, LogFile};
use super::layout::{
    self, Entry, FIRST_LOT, FOOTER_HEAD, Fault, Footer, Keys, LOT_HEADER, LotHeader, SegmentHeader, TableEntry,
};
use super::{Finding, FindingKind, LogMark, LogPosition, LotEntry, LotView, Place};
use crate::store::record::RecordKind;
use crate::store::{ChannelNo, Record};

/// One segment: its file, its header, and what is known of its lots.
#[derive(Debug)]
pub(super) struct Segment {
    pub header: SegmentHeader,
    pub file: LogFile,
    end: AtomicU32,
    /// Sparse table of its lots; `None` when the footer has it.
    pub table: RwLock<Option<Vec<TableEntry>>>,
}

impl Segment {
    pub(super) fn new(header: SegmentHeader, file: LogFile, end: u32, table: Option<Vec<TableEntry>>) -> Self {
        Self { header, file, end: AtomicU32::new(end), table: RwLock::new(table) }
    }

    /// Offset behind its last lot that is on disk.
    pub(super) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// Shows readers a lot that is on disk now.
    pub(super) fn set_end(&self, end: u32) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn finding(&self, kind: FindingKind, offset: u64, detail: impl fmt::Display) -> Finding {
        Finding::new(kind, self.file.path(), offset, detail)
    }

    pub(super) fn io_finding(&self, offset: u64, error: &io::Error) -> Finding {
        self.finding(FindingKind::Io, offset, format_args!("it cannot be read: {error}"))
    }

    /// A fault at `offset`, as a finding of `kind` unless it is a later format.
    pub(super) fn fault(&self, kind: FindingKind, offset: u64, fault: Fault) -> Finding {
        match fault {
            Fault::Bad(what) => self.finding(kind, offset, what),
            Fault::Newer(what) => {
                self.finding(FindingKind::NewerFormat, offset, format_args!("newer data format: {what}"))
            }
        }
    }

    /// The footer of a segment whose lots end at `end`.
    pub(super) fn footer(&self, keys: &Keys, end: u32) -> Result<Footer, Finding> {
        let mut head = [0; FOOTER_HEAD];
        let at = u64::from(end);
        let filled = self.file.read_at(&mut head, at).map_err(|error| self.io_finding(at, &error))?;
        let position = LogPosition { segment: self.header.number, offset: end };
        Footer::decode(keys, &head[..filled], position).map_err(|fault| self.fault(FindingKind::Footer, at, fault))
    }

    /// The table in a footer.
    pub(super) fn footer_table(&self, keys: &Keys, footer: &Footer) -> Result<Vec<TableEntry>, Finding> {
        let at = u64::from(footer.position.offset) + FOOTER_HEAD as u64;
        let bytes = self.footer_part(at, footer.table_bytes)?;
        footer.table(keys, &bytes).map_err(|fault| self.fault(FindingKind::Footer, at, fault))
    }

    /// The messages the footer names for the lot at `offset`; none when the footer does not tell.
    pub(super) fn messages_by_footer(&self, keys: &Keys, end: u32, offset: u32) -> Vec<super::SeqRun> {
        let Ok(footer) = self.footer(keys, end) else { return Vec::new() };
        let at = u64::from(end) + FOOTER_HEAD as u64 + u64::from(footer.table_bytes);
        let Ok(bytes) = self.footer_part(at, footer.directories_bytes) else { return Vec::new() };
        footer.messages_at(keys, &bytes, offset)
    }

    fn footer_part(&self, at: u64, bytes: u32) -> Result<Vec<u8>, Finding> {
        let io = |error: io::Error| self.io_finding(at, &error);
        if at + u64::from(bytes) > self.file.bytes().map_err(io)? {
            return Err(self.finding(FindingKind::Footer, at, "the footer ends too early"));
        }
        let mut part = vec![0; bytes as usize];
        let filled = self.file.read_at(&mut part, at).map_err(io)?;
        part.truncate(filled);
        Ok(part)
    }
}

/// What the writer and all readers of a log share.
#[derive(Debug)]
pub(super) struct Shared {
    pub files: Files,
    pub keys: Keys,
    pub log_id: [u8; 16],
    /// Segment n is entry n - 1.
    pub segments: RwLock<Vec<Arc<Segment>>>,
    /// Where the last lot on disk ends.
    pub end: RwLock<LogMark>,
    pub message_reads: AtomicU64,
}

impl Shared {
    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.segments.read().get(index).cloned()
    }

    pub(super) fn end(&self) -> LogMark {
        *self.end.read()
    }
}

/// Reads a segment front to back with large reads.
#[derive(Debug)]
pub(super) struct Window {
    segment: Arc<Segment>,
    buffer: Vec<u8>,
    at: u64,
    ahead: usize,
}

impl Window {
    /// `ahead`: how many bytes to read at least, in bytes.
    pub(super) fn new(segment: Arc<Segment>, ahead: usize) -> Self {
        Self { segment, buffer: Vec::new(), at: 0, ahead }
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The bytes from `at`, `count` of them or as many as lie before `limit` and in the file.
    pub(super) fn bytes(&mut self, at: u64, count: usize, limit: u64) -> Result<&[u8], Finding> {
        let left = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let held = self.at <= at && at + count as u64 <= self.at + self.buffer.len() as u64;
        if !held {
            let want = count.max(self.ahead.min(left));
            // Length only, so that a buffer that is large already is not cleared for every read.
            self.buffer.resize(want, 0);
            match self.segment.file.read_at(&mut self.buffer, at) {
                Ok(filled) => self.buffer.truncate(filled),
                Err(error) => {
                    self.buffer.clear();
                    return Err(self.segment.io_finding(at, &error));
                }
            }
            self.at = at;
        }
        let from = (at - self.at) as usize;
        let to = (from + count).min(self.buffer.len());
        Ok(&self.buffer[from..to])
    }
}

/// A lot's header and directory, checked.
#[derive(Debug)]
pub(super) struct LotHead {
    pub header: LotHeader,
    pub entries: Vec<Entry>,
    /// Offset behind the lot.
    pub end: u32,
}

/// Reads header and directory of the lot at `offset`, which must end at or before `limit`.
pub(super) fn read_head(window: &mut Window, keys: &Keys, offset: u32, limit: u64) -> Result<LotHead, Finding> {
    let position = LogPosition { segment: window.segment.header.number, offset };
    let at = u64::from(offset);
    let bytes = window.bytes(at, LOT_HEADER, limit)?;
    let header = LotHeader::decode(keys, bytes, position);
    let header = header.map_err(|fault| window.segment.fault(FindingKind::Lot, at, fault))?;
    let named = |finding: Finding| finding.in_lot(header.first_version, header.last_version);
    let Some(end) = header.end().filter(|&end| u64::from(end) <= limit) else {
        return Err(named(window.segment.finding(FindingKind::Lot, at, "the lot is longer than what is there")));
    };
    let directory_at = at + LOT_HEADER as u64;
    let bytes = window.bytes(directory_at, header.directory_bytes as usize, limit)?;
    match header.directory(keys, bytes) {
        Ok(entries) => Ok(LotHead { header, entries, end }),
        Err(fault) => Err(named(window.segment.fault(FindingKind::Lot, directory_at, fault))),
    }
}

/// A whole lot, every byte of it checked.
#[derive(Debug)]
pub(super) struct WholeLot {
    pub head: LotHead,
    /// In order; the holes among them.
    pub records: Vec<LotEntry>,
    /// One finding for all damaged messages.
    pub holes: Option<Finding>,
    /// The first damaged record that is no message.
    pub damage: Option<Finding>,
    /// Digest up to and including it; meaningless when anything in it is damaged.
    chain: [u8; 16],
}

impl WholeLot {
    /// Digest up to and including it; `None` when its bytes are not what was written.
    pub(super) fn chain(&self) -> Option<[u8; 16]> {
        (self.holes.is_none() && self.damage.is_none()).then_some(self.chain)
    }

    pub(super) fn into_view(self, chain: [u8; 16]) -> LotView {
        let LotHead { header, end, .. } = self.head;
        LotView {
            position: header.position,
            end: LogPosition { segment: header.position.segment, offset: end },
            first_version: header.first_version,
            last_version: header.last_version,
            chain,
            records: self.records,
        }
    }
}

/// Reads the lot at `offset`.
///
/// # Errors
/// Header, directory or the disk; a record of a later format. Damaged records are in the value.
pub(super) fn read_lot(window: &mut Window, keys: &Keys, offset: u32, limit: u64) -> Result<WholeLot, Finding> {
    let head = read_head(window, keys, offset, limit)?;
    let segment = Arc::clone(&window.segment);
    let (first, last) = (head.header.first_version, head.header.last_version);
    let bytes = window.bytes(u64::from(offset), (head.end - offset) as usize, limit)?;
    if bytes.len() < (head.end - offset) as usize {
        let short = segment.finding(FindingKind::Lot, u64::from(offset), "the lot is longer than what is there");
        return Err(short.in_lot(first, last).of(layout::messages_of(&head.entries)));
    }
    let records_at = head.header.before_records() as usize;
    let mut records = Vec::with_capacity(head.entries.len());
    let mut holes: Vec<&Entry> = Vec::new();
    let mut hole_at = 0;
    let mut damage = None;
    for entry in &head.entries {
        let from = records_at + entry.offset as usize;
        let place = Place { segment: segment.header.number, offset: offset + from as u32 };
        let found = layout::decode_entry(keys, entry, &bytes[from..from + entry.bytes as usize]);
        let fault = match found {
            Ok(record) => {
                records.push(LotEntry::Record { version: entry.version, place, record });
                continue;
            }
            Err(fault) => fault,
        };
        match (fault, hole_of(entry)) {
            (Fault::Newer(_), _) => {
                return Err(segment.fault(FindingKind::Record, u64::from(place.offset), fault).in_lot(first, last));
            }
            (Fault::Bad(_), Some((channel, seq))) => {
                if holes.is_empty() {
                    hole_at = place.offset;
                }
                holes.push(entry);
                records.push(LotEntry::DamagedMessage { version: entry.version, place, channel, seq });
            }
            (Fault::Bad(what), None) => {
                let whose =
                    entry.channel.map_or(String::new(), |ChannelNo(number)| format!(" of channel number {number}"));
                let detail = format!("{what} (record kind {}{whose}, version {})", entry.kind, entry.version);
                let finding = segment.finding(FindingKind::Record, u64::from(place.offset), detail);
                damage.get_or_insert(finding.in_lot(first, last));
            }
        }
    }
    let chain = layout::chain_after(&head.header.chain_before, bytes);
    let holes = (!holes.is_empty()).then(|| {
        let detail = format_args!("{} damaged message records", holes.len());
        let finding = segment.finding(FindingKind::Message, u64::from(hole_at), detail);
        finding.in_lot(first, last).of(layout::messages_of(holes.iter().copied()))
    });
    Ok(WholeLot { head, records, holes, damage, chain })
}

fn hole_of(entry: &Entry) -> Option<(ChannelNo, u64)> {
    let channel = entry.channel?;
    (entry.kind == RecordKind::Message.to_stored() && entry.seq > 0).then_some((channel, entry.seq))
}

/// Reads one record whose length is not known yet: one read unless it is longer than `guess`. `reads` counts them.
pub(super) fn read_record(segment: &Segment, offset: u32, guess: usize, reads: &AtomicU64) -> io::Result<Vec<u8>> {
    let left = segment.end().saturating_sub(offset) as usize;
    let mut bytes = vec![0; guess.min(left)];
    crate::store::quiet::count(reads);
    let filled = segment.file.read_at(&mut bytes, u64::from(offset))?;
    bytes.truncate(filled);
    let Some(whole) = layout::record_bytes(&bytes).and_then(|n| usize::try_from(n).ok()) else { return Ok(bytes) };
    if whole <= bytes.len() {
        bytes.truncate(whole);
    } else if whole <= left {
        let had = bytes.len();
        bytes.resize(whole, 0);
        crate::store::quiet::count(reads);
        let filled = segment.file.read_at(&mut bytes[had..], u64::from(offset) + had as u64)?;
        bytes.truncate(had + filled);
    }
    Ok(bytes)
}

/// Whether a record may begin at `offset`: within the lots.
pub(super) fn is_inside(segment: &Segment, offset: u32) -> bool {
    offset >= FIRST_LOT && offset < segment.end()
}

/// What is wrong with the message wanted at `offset`, as a finding.
pub(super) fn message_fault(segment: &Segment, offset: u32, channel: ChannelNo, seq: u64, fault: Fault) -> Finding {
    let run = super::SeqRun { channel, first_seq: seq, count: 1 };
    segment.fault(FindingKind::Message, u64::from(offset), fault).of(vec![run])
}

/// A record and its version.
pub(super) type Versioned = (Version, Record);
