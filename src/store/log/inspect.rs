//! Looking at a log without changing a byte of it: for checks, backups and whoever wants to know what a start would say.
//!
//! Owns going on behind damage: where [`super::Log::open`] stops at the first finding, an inspection names them all. Decides
//! nothing; what is torn and what is damaged follows the rules of `open` (store.md section 2).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;
use protocol::ids::Version;

use super::files::{Files, LogFile, WATERMARK_NAME, segment_name};
use super::layout::{self, FIRST_LOT, FooterBuilder, Keys, LOT_HEADER, LotHeader, SegmentHeader};
use super::open::{find_written, is_zero, read_headers_from};
use super::segment::{self, Segment, Shared, Window};
use super::watermark::Watermark;
use super::{Finding, FindingKind, LogMark, LogPosition, LogReader, LotView};
use crate::store::{Result, StoreError};

/// Reads ahead by this much.
const AHEAD: usize = 1 << 20;

/// A log that is looked at. No file of it is opened for writing.
#[derive(Debug)]
pub struct Inspection {
    shared: Arc<Shared>,
    slots: Vec<LogMark>,
    has_watermark: bool,
}

/// One segment as its successor's header or the file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Its number, from 1.
    pub number: u32,
    /// Where its lots end, in bytes; `None`: it is the last one.
    pub end: Option<u32>,
    /// Bytes worth keeping: the lots and, when it is sound, the footer behind them. Of the last one: the whole file.
    pub bytes: u64,
    /// Version of the last record before it.
    pub before: Version,
    /// Digest over all lots before it.
    pub chain_before: [u8; 16],
}

/// What a walk found.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// Where the sound part ends; `None` when the digest there cannot be told.
    pub end: Option<LogMark>,
    /// The furthest boundary before everything that stops a start, where its digest can be told.
    pub sound: Option<LogMark>,
    /// Everything that is not what was written.
    pub findings: Vec<Finding>,
    /// What is worth a line and no fault: closed segments without a footer, a torn end that was never acked.
    pub notes: Vec<String>,
    /// Lots gone through.
    pub lots: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a walk passes on: sound lots, and lots with damaged messages in them.
pub type EachLot<'a> = &'a mut dyn FnMut(&LotView) -> Result<()>;

/// How far lots were gone through.
struct Cursor {
    offset: u32,
    version: Version,
    chain: Option<[u8; 16]>,
}

impl Inspection {
    /// Opens the log in `dir`. The watermark is read first, so that every segment it names is among those listed after it,
    /// also while a server writes.
    ///
    /// # Errors
    /// I/O; there is no log; a segment's header that is not what was written or does not continue the one before.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_segments(dir, 1, None)
    }

    /// Opens the segments from `first` up to `last` alone (`None`: all that follow), whatever is missing around them. What a
    /// walk says about how they continue others, and about the watermark, does not count then.
    ///
    /// # Errors
    /// As [`Inspection::open`] for those segments; there is none of them.
    pub fn open_segments(dir: &Path, first: u32, last: Option<u32>) -> Result<Self> {
        let files = Files::read_only(dir);
        let io = |source| StoreError::io("inspect log", dir.display(), source);
        let has_watermark = files.list().map_err(io)?.watermark;
        let slots = if has_watermark { Watermark::open(&files)?.1 } else { Vec::new() };
        let listing = files.list().map_err(io)?;
        let mut numbers = listing.segments;
        numbers.retain(|number| *number >= first && last.is_none_or(|last| *number <= last));
        if numbers.is_empty() {
            let finding = Finding::new(FindingKind::SegmentMissing, dir, 0, "the directory holds no segment");
            return Err(finding.into());
        }
        let headers = read_headers_from(&files, first, &numbers)?;
        let ends: Vec<Option<u32>> =
            (1..=headers.len()).map(|next| headers.get(next).map(|(header, _)| header.previous_end)).collect();
        let mut segments = Vec::with_capacity(headers.len());
        let mut log_id = [0; 16];
        for ((header, file), end) in headers.into_iter().zip(ends) {
            log_id = header.log_id;
            let end = match end {
                Some(end) => end,
                None => u32::try_from(file.bytes().map_err(io)?).unwrap_or(u32::MAX),
            };
            segments.push(Arc::new(Segment::new(header, file, end, None)));
        }
        let nowhere = LogMark { log_id, position: LogPosition::default(), version: Version::ZERO, chain: [0; 16] };
        let shared = Arc::new(Shared {
            files,
            keys: Keys::new(&log_id),
            log_id,
            segments: RwLock::new(segments),
            end: RwLock::new(nowhere),
            message_reads: AtomicU64::new(0),
        });
        Ok(Self { shared, slots, has_watermark })
    }

    /// The log's random id.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// Messages by place. What lies behind the last sound lot must not be asked for.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Looks at the prefix up to `mark` only, which this log must hold: a server may be writing behind it.
    #[must_use]
    pub fn bounded(self, mark: &LogMark) -> Self {
        let mut segments = self.shared.segments.write();
        segments.retain(|segment| segment.header.number <= mark.position.segment);
        if let Some(last) = segments.last() {
            last.set_end(mark.position.offset);
        }
        drop(segments);
        Self { slots: vec![*mark], ..self }
    }

    /// The furthest prefix that is known to be on disk and acked; `None` when no slot of the watermark is sound.
    #[must_use]
    pub fn watermark(&self) -> Option<LogMark> {
        self.slots.iter().filter(|mark| mark.log_id == self.shared.log_id).max_by_key(|mark| mark.position).copied()
    }

    /// All segments in order.
    ///
    /// # Errors
    /// I/O.
    pub fn segments(&self) -> Result<Vec<SegmentSpan>> {
        let segments = self.shared.segments.read().clone();
        let mut spans = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate() {
            let io = |source| super::reader::io_error("inspect log", segment, source);
            let is_last = index + 1 == segments.len();
            let file_bytes = segment.file.bytes().map_err(io)?;
            let bytes = match is_last {
                true => file_bytes,
                false if segment.footer(&self.shared.keys, segment.end()).is_ok() => file_bytes,
                false => u64::from(segment.end()),
            };
            spans.push(SegmentSpan {
                number: segment.header.number,
                end: (!is_last).then(|| segment.end()),
                bytes,
                before: segment.header.last_version,
                chain_before: segment.header.chain,
            });
        }
        Ok(spans)
    }

    /// Whether `mark` names a prefix of this log: its position is a boundary and the digest there is the mark's.
    ///
    /// # Errors
    /// I/O.
    pub fn holds(&self, mark: &LogMark) -> Result<bool> {
        if mark.log_id != self.shared.log_id {
            return Ok(false);
        }
        let LogPosition { segment, offset } = mark.position;
        let Some(found) = self.shared.segment(segment) else { return Ok(false) };
        if let Some(next) = self.shared.segment(segment.saturating_add(1))
            && next.header.previous_end == offset
        {
            return Ok(next.header.chain == mark.chain);
        }
        if offset == FIRST_LOT && found.header.chain == mark.chain {
            return Ok(true);
        }
        if self.slots.iter().any(|slot| slot == mark) {
            return Ok(true);
        }
        let mut bytes = [0; LOT_HEADER];
        let read = found.file.read_at(&mut bytes, u64::from(offset));
        let filled = read.map_err(|source| super::reader::io_error("inspect log", &found, source))?;
        let header = LotHeader::decode(&self.shared.keys, &bytes[..filled], mark.position);
        Ok(header.is_ok_and(|header| header.chain_before == mark.chain))
    }

    /// Goes through every byte of every segment and hands on each lot. `known`: prefixes the log must have besides its own
    /// watermark's (the view's mark), with a name for findings.
    ///
    /// # Errors
    /// I/O, or what `each` says. Damage is in the value.
    pub fn walk(&self, known: &[(&str, LogMark)], each: EachLot<'_>) -> Result<Walked> {
        let mut walked = Walked::default();
        let mut marks: Vec<(&str, LogMark, bool)> = known.iter().map(|(of, mark)| (*of, *mark, false)).collect();
        marks.extend(self.slots.iter().map(|slot| ("watermark", *slot, false)));
        if !self.has_watermark || self.slots.is_empty() {
            let file = self.shared.files.path(WATERMARK_NAME);
            let what = if self.has_watermark { "no slot of it is sound" } else { "it is not there" };
            walked.findings.push(Finding::new(FindingKind::Watermark, file, 0, what));
        }
        marks.retain(|(of, mark, _)| {
            let ours = mark.log_id == self.shared.log_id;
            if !ours {
                let detail = format_args!("the {of} belongs to another log");
                walked.findings.push(Finding::new(FindingKind::ForeignLog, self.shared.files.dir(), 0, detail));
            }
            ours
        });
        let segments = self.shared.segments.read().clone();
        let protected = marks.iter().map(|(_, mark, _)| mark.position).max().unwrap_or_default();
        let mut cursor = Cursor { offset: FIRST_LOT, version: Version::ZERO, chain: Some([0; 16]) };
        for (index, segment) in segments.iter().enumerate() {
            let header = &segment.header;
            let chain_differs = cursor.chain.is_some_and(|chain| chain != header.chain);
            if chain_differs || (cursor.chain.is_some() && cursor.version != header.last_version) {
                let detail = "the segment does not continue the one before it";
                walked.findings.push(segment.finding(FindingKind::SegmentChain, 0, detail));
            }
            cursor = Cursor { offset: FIRST_LOT, version: header.last_version, chain: Some(header.chain) };
            let next = segments.get(index + 1).map(Arc::as_ref);
            self.walk_segment(segment, next, protected, &mut marks, &mut cursor, &mut walked, each)?;
        }
        let Some(last) = segments.last() else { return Ok(walked) };
        let position = LogPosition { segment: last.header.number, offset: cursor.offset };
        for (of, mark, _) in marks.iter().filter(|(_, _, met)| !met) {
            let LogPosition { segment, offset } = mark.position;
            let (kind, what) = match mark.position > position {
                true => (FindingKind::AckedLotsGone, "the log ends before it: acked data is gone"),
                false => (FindingKind::MarkMismatch, "the log holds other lots up to there, or no lot ends there"),
            };
            let detail =
                format_args!("the {of} (version {}, segment {segment}, offset {offset}): {what}", mark.version);
            walked.findings.push(Finding::new(kind, self.shared.files.dir(), 0, detail));
        }
        let known_chain = |at| marks.iter().find(|(_, mark, _)| mark.position == at).map(|(_, mark, _)| mark.chain);
        walked.end = cursor.chain.or_else(|| known_chain(position)).map(|chain| LogMark {
            log_id: self.shared.log_id,
            position,
            version: cursor.version,
            chain,
        });
        Ok(walked)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `walk`, with its state")]
    fn walk_segment(
        &self,
        segment: &Arc<Segment>,
        next: Option<&Segment>,
        protected: LogPosition,
        marks: &mut [(&str, LogMark, bool)],
        cursor: &mut Cursor,
        walked: &mut Walked,
        each: EachLot<'_>,
    ) -> Result<()> {
        let (keys, number) = (&self.shared.keys, segment.header.number);
        let limit = u64::from(segment.end());
        let mut window = Window::new(Arc::clone(segment), AHEAD);
        let mut footer = FooterBuilder::default();
        loop {
            let at = LogPosition { segment: number, offset: cursor.offset };
            for (_, mark, met) in marks.iter_mut().filter(|(_, mark, _)| mark.position == at) {
                *met = mark.version == cursor.version && cursor.chain.is_none_or(|chain| chain == mark.chain);
            }
            if !walked.findings.iter().any(Finding::stops_start)
                && let Some(chain) = cursor.chain
            {
                let log_id = self.shared.log_id;
                walked.sound = Some(LogMark { log_id, position: at, version: cursor.version, chain });
            }
            if u64::from(cursor.offset) >= limit {
                break;
            }
            if next.is_none() {
                if window.bytes(u64::from(cursor.offset), 8, limit)? == keys.footer_magic()
                    && segment.footer(keys, cursor.offset).is_ok()
                {
                    break;
                }
                if is_zero(&mut window, cursor.offset, limit)? {
                    break;
                }
            }
            let lot = match segment::read_lot(&mut window, keys, cursor.offset, limit) {
                Ok(lot) => lot,
                Err(finding) if finding.kind == FindingKind::Io => return Err(finding.into()),
                Err(finding) if finding.kind == FindingKind::NewerFormat => {
                    walked.findings.push(finding);
                    return Ok(());
                }
                Err(finding) => {
                    let later = find_written(segment, keys, cursor.offset.saturating_add(1), limit)?;
                    if next.is_none() && at >= protected && later.is_none() {
                        walked.notes.push(format!("the last lot was never finished and never acked: {finding}"));
                        break;
                    }
                    walked.findings.push(self.named(segment, finding));
                    let Some(later) = later else {
                        cursor.offset = segment.end();
                        cursor.chain = None;
                        break;
                    };
                    *cursor = Cursor { offset: later, version: cursor.version, chain: None };
                    if segment.footer(keys, later).is_ok() {
                        break;
                    }
                    continue;
                }
            };
            let end = LogPosition { segment: number, offset: lot.head.end };
            let damaged = lot.holes.is_some() || lot.damage.is_some();
            if damaged
                && next.is_none()
                && end > protected
                && find_written(segment, keys, lot.head.end, limit)?.is_none()
            {
                walked.notes.push(format!("the last lot was never finished and never acked: {at:?}"));
                break;
            }
            let header = lot.head.header;
            let chain = |detail| {
                let finding = segment.finding(FindingKind::Chain, u64::from(at.offset), detail);
                finding.in_lot(header.first_version, header.last_version).of(layout::messages_of(&lot.head.entries))
            };
            if cursor.chain.is_some_and(|chain| chain != header.chain_before) {
                walked.findings.push(chain("the lot does not continue the one before it"));
            }
            if header.first_version <= cursor.version {
                walked.findings.push(chain("the lot's versions do not rise"));
            }
            walked.findings.extend(lot.holes.clone());
            walked.findings.extend(lot.damage.clone());
            walked.lots += 1;
            walked.bytes += u64::from(lot.head.end - at.offset);
            let directory_at = u64::from(at.offset) + LOT_HEADER as u64;
            footer.push(
                header.first_version,
                at.offset,
                window.bytes(directory_at, header.directory_bytes as usize, limit)?,
            );
            *cursor = Cursor { offset: lot.head.end, version: header.last_version, chain: lot.chain() };
            each(&lot.into_view(cursor.chain.unwrap_or_default()))?;
        }
        if let Some(next) = next {
            self.check_footer(segment, next, &footer, walked)?;
            // The end of a closed segment has a second name.
            let at = LogPosition { segment: number.saturating_add(1), offset: FIRST_LOT };
            for (_, mark, met) in marks.iter_mut().filter(|(_, mark, _)| mark.position == at) {
                *met = mark.version == next.header.last_version && mark.chain == next.header.chain;
            }
        }
        Ok(())
    }

    /// A footer must be, byte for byte, what the lots make of it.
    fn check_footer(&self, segment: &Segment, next: &Segment, made: &FooterBuilder, walked: &mut Walked) -> Result<()> {
        let io = |source| super::reader::io_error("inspect log", segment, source);
        let at = u64::from(segment.end());
        let file_bytes = segment.file.bytes().map_err(io)?;
        let end = LogMark {
            log_id: self.shared.log_id,
            position: LogPosition { segment: segment.header.number, offset: segment.end() },
            version: next.header.last_version,
            chain: next.header.chain,
        };
        let expected = made.encode(&self.shared.keys, &end, segment.header.last_version);
        let mut bytes = vec![0; expected.len()];
        let filled = segment.file.read_at(&mut bytes, at).map_err(io)?;
        let begins = bytes[..filled].starts_with(self.shared.keys.footer_magic());
        if bytes[..filled] == expected[..] && file_bytes == at + expected.len() as u64 {
            return Ok(());
        }
        if !begins {
            let file = segment.file.path().display();
            walked.notes.push(format!("{file} has no footer: it was closed after a failed write, or lost it"));
            return Ok(());
        }
        let detail = "the footer is not what the lots say (harmless: a start reads the lots instead)";
        walked.findings.push(segment.finding(FindingKind::Footer, at, detail));
        Ok(())
    }

    /// Names the messages of a lot that cannot, when the footer can.
    fn named(&self, segment: &Segment, finding: Finding) -> Finding {
        if finding.kind != FindingKind::Lot || !finding.messages.is_empty() {
            return finding;
        }
        let offset = u32::try_from(finding.offset).unwrap_or(0);
        let keys = &self.shared.keys;
        let mut messages = segment.messages_by_footer(keys, segment.end(), offset);
        if messages.is_empty() {
            let lot = offset.saturating_sub(LOT_HEADER as u32);
            messages = segment.messages_by_footer(keys, segment.end(), lot);
        }
        finding.of(messages)
    }
}

/// Verifies the lots of one segment file up to `end`, which must be a boundary: header, every lot, every record, every
/// digest. `name` may be any file in `dir`, also one that has not its final name yet. Returns the mark at `end`, and the
/// digest and version the segment begins with.
///
/// # Errors
/// The first [`Finding`]; a damaged message counts as one unless `holes` takes it.
pub fn verify_segment(
    dir: &Path,
    name: &str,
    end: u32,
    holes: &mut dyn FnMut(Finding) -> Result<(), Finding>,
) -> Result<LogMark, Finding> {
    let files = Files::read_only(dir);
    let path = files.path(name);
    let io =
        |error: std::io::Error| Finding::new(FindingKind::Io, &path, 0, format_args!("it cannot be read: {error}"));
    let file: LogFile = files.open(name).map_err(io)?;
    let mut bytes = [0; layout::SEGMENT_HEADER];
    let filled = file.read_at(&mut bytes, 0).map_err(io)?;
    let header = SegmentHeader::decode(&bytes[..filled]).map_err(|fault| match fault {
        layout::Fault::Bad(what) => Finding::new(FindingKind::SegmentHeader, &path, 0, what),
        layout::Fault::Newer(what) => Finding::new(FindingKind::NewerFormat, &path, 0, what),
    })?;
    let keys = Keys::new(&header.log_id);
    let segment = Arc::new(Segment::new(header, file, end, None));
    let mut window = Window::new(Arc::clone(&segment), AHEAD);
    let (mut at, mut version, mut chain) = (FIRST_LOT, header.last_version, Some(header.chain));
    while at < end {
        let mut lot = segment::read_lot(&mut window, &keys, at, u64::from(end))?;
        if chain.is_some_and(|chain| chain != lot.head.header.chain_before) || lot.head.header.first_version <= version
        {
            let detail = "the lot does not continue the one before it";
            return Err(segment.finding(FindingKind::Chain, u64::from(at), detail));
        }
        if let Some(damage) = lot.damage.take() {
            return Err(damage);
        }
        chain = lot.chain();
        if let Some(finding) = lot.holes.take() {
            holes(finding)?;
        }
        (at, version) = (lot.head.end, lot.head.header.last_version);
    }
    let position = LogPosition { segment: header.number, offset: end };
    // Behind a damaged lot only what follows tells; the caller knows from the next header or its mark.
    Ok(LogMark { log_id: header.log_id, position, version, chain: chain.unwrap_or_default() })
}

/// Writes a watermark with one slot into the log directory `dir`, durably, replacing the one that is there.
///
/// # Errors
/// I/O.
pub fn write_watermark(dir: &Path, mark: &LogMark) -> std::io::Result<()> {
    let mut watermark = Watermark::create(&Files::new(dir, None))?;
    watermark.write(mark)?;
    watermark.sync()
}

/// File name of a segment.
#[must_use]
pub fn file_name(number: u32) -> String {
    segment_name(number)
}
