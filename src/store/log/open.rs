//! Opening a log: what is verified, what is cut, and what stops the start (store.md section 2).
//!
//! Owns the decision between a torn end and damage. Everything behind the view's mark is verified byte by byte; segments
//! before it by their headers, footers and the digests where they meet. Reading is `segment`'s, so that a check of a whole
//! log uses the same functions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;
use protocol::ids::Version;

use super::append::LogOptions;
use super::files::{Files, LogFile, WATERMARK_NAME, segment_name};
use super::layout::{self, FIRST_LOT, FooterBuilder, Keys, LOT_HEADER, LotHeader, SEGMENT_HEADER, SegmentHeader};
use super::segment::{self, Segment, Shared, WholeLot, Window};
use super::watermark::Watermark;
use super::{Cut, Finding, FindingKind, LogMark, LogPosition, OpenReport};
use crate::store::{Result, StoreError};

/// Verification reads ahead by this much.
const VERIFY_AHEAD: usize = 1 << 20;
/// A walk over headers reads ahead by this much.
const WALK_AHEAD: usize = 64 << 10;

/// What the append side starts from.
#[derive(Debug)]
pub(super) struct Opened {
    pub shared: Arc<Shared>,
    pub watermark: Watermark,
    /// Of the last segment, as far as it has lots.
    pub footer: FooterBuilder,
    /// Bytes of the last segment's file: its lots, and zeros behind them.
    pub file_bytes: u64,
    /// The last segment must not be appended to.
    pub closed: bool,
    pub report: OpenReport,
}

/// Opens the log in `dir`, or creates it when the directory holds none.
pub(super) fn open(dir: &Path, options: &LogOptions, known: Option<&LogMark>) -> Result<Opened> {
    let files = Files::new(dir, options.faults.clone());
    let io = |source| StoreError::io("open log", dir.display(), source);
    files.create_dir().map_err(io)?;
    let listing = files.list().map_err(io)?;
    for name in &listing.leftovers {
        files.remove(name).map_err(io)?;
    }
    let (watermark, slots) = match listing.watermark {
        true => Watermark::open(&files).map(|(watermark, slots)| (Some(watermark), slots))?,
        false => (None, Vec::new()),
    };
    let marks = Marks::new(&files, known, slots);
    if listing.segments.is_empty() {
        marks.none_without_a_log()?;
        return create(files).map_err(io);
    }
    let headers = read_headers(&files, &listing.segments)?;
    Opener::new(files, headers, marks)?.run(watermark)
}

/// Makes segment 1 and the watermark.
fn create(files: Files) -> std::io::Result<Opened> {
    let mut log_id = [0; 16];
    getrandom::fill(&mut log_id).map_err(std::io::Error::other)?;
    let header = SegmentHeader { log_id, number: 1, previous_end: 0, last_version: Version::ZERO, chain: [0; 16] };
    let file = files.create(&segment_name(1), &header.encode())?;
    let watermark = Watermark::create(&files)?;
    let end = LogMark {
        log_id,
        position: LogPosition { segment: 1, offset: FIRST_LOT },
        version: Version::ZERO,
        chain: [0; 16],
    };
    let segment = Segment::new(header, file, FIRST_LOT, Some(Vec::new()));
    let shared = share(files, log_id, vec![Arc::new(segment)], end);
    let report = OpenReport { created: true, ..OpenReport::default() };
    let file_bytes = SEGMENT_HEADER as u64;
    Ok(Opened { shared, watermark, footer: FooterBuilder::default(), file_bytes, closed: false, report })
}

fn share(files: Files, log_id: [u8; 16], segments: Vec<Arc<Segment>>, end: LogMark) -> Arc<Shared> {
    Arc::new(Shared {
        files,
        keys: Keys::new(&log_id),
        log_id,
        segments: RwLock::new(segments),
        end: RwLock::new(end),
        message_reads: AtomicU64::new(0),
    })
}

/// Opens every segment and checks that their headers form one row.
pub(super) fn read_headers(files: &Files, numbers: &[u32]) -> Result<Vec<(SegmentHeader, LogFile)>, Finding> {
    read_headers_from(files, 1, numbers)
}

/// As [`read_headers`] for segments from `first` on.
pub(super) fn read_headers_from(
    files: &Files,
    first: u32,
    numbers: &[u32],
) -> Result<Vec<(SegmentHeader, LogFile)>, Finding> {
    let mut headers: Vec<(SegmentHeader, LogFile)> = Vec::with_capacity(numbers.len());
    for (number, &found) in (first..).zip(numbers) {
        let path = files.path(&segment_name(found));
        let io =
            |error: std::io::Error| Finding::new(FindingKind::Io, &path, 0, format_args!("it cannot be read: {error}"));
        if found != number {
            let missing = files.path(&segment_name(number));
            let detail = format_args!("the segment is not there, but segment {found} is");
            return Err(Finding::new(FindingKind::SegmentMissing, missing, 0, detail));
        }
        let file = files.open(&segment_name(number)).map_err(io)?;
        let mut bytes = [0; SEGMENT_HEADER];
        let filled = file.read_at(&mut bytes, 0).map_err(io)?;
        let header = SegmentHeader::decode(&bytes[..filled]).map_err(|fault| match fault {
            layout::Fault::Bad(what) => Finding::new(FindingKind::SegmentHeader, &path, 0, what),
            layout::Fault::Newer(what) => {
                Finding::new(FindingKind::NewerFormat, &path, 0, format_args!("newer data format: {what}"))
            }
        })?;
        if header.number != number {
            let detail = format_args!("the header says that this is segment {}", header.number);
            return Err(Finding::new(FindingKind::SegmentHeader, &path, 0, detail));
        }
        let chain = |detail| Err(Finding::new(FindingKind::SegmentChain, &path, 0, detail));
        match headers.last() {
            Some((before, _)) if before.log_id != header.log_id => {
                let detail = "the segment belongs to another log";
                return Err(Finding::new(FindingKind::ForeignLog, &path, 0, detail));
            }
            Some((before, before_file)) => {
                let bytes = before_file.bytes().map_err(io)?;
                if header.previous_end < FIRST_LOT || u64::from(header.previous_end) > bytes {
                    return chain("the segment before it is shorter than this one says");
                }
                if header.last_version < before.last_version {
                    return chain("its versions lie below those of the segment before it");
                }
            }
            None if number > 1 => {}
            None if header.previous_end != 0 || header.last_version != Version::ZERO || header.chain != [0; 16] => {
                return chain("the first segment continues another");
            }
            None => {}
        }
        headers.push((header, file));
    }
    Ok(headers)
}

/// Prefixes that were acked: the log must have them all.
#[derive(Debug)]
struct Marks {
    all: Vec<Mark>,
}

#[derive(Debug)]
struct Mark {
    mark: LogMark,
    /// Whose it is, for findings.
    of: &'static str,
    is_known: bool,
    file: std::path::PathBuf,
    /// The boundary was passed and was the one.
    met: bool,
}

impl Marks {
    fn new(files: &Files, known: Option<&LogMark>, slots: Vec<LogMark>) -> Self {
        let path = files.path(WATERMARK_NAME);
        let of_slot = |mark| Mark { mark, of: "watermark", is_known: false, file: path.clone(), met: false };
        let of_known =
            |&mark| Mark { mark, of: "view's mark", is_known: true, file: files.dir().to_owned(), met: false };
        Self { all: slots.into_iter().map(of_slot).chain(known.map(of_known)).collect() }
    }

    fn none_without_a_log(&self) -> Result<(), Finding> {
        self.all.first().map_or(Ok(()), |mark| Err(mark.gone("there is no log")))
    }

    /// The furthest prefix; a lot below its end is never cut.
    fn protected(&self) -> LogPosition {
        self.all.iter().map(|mark| mark.mark.position).max().unwrap_or_default()
    }

    /// The log passes a boundary: every mark on it must say the same. A digest is `None` behind a damaged lot.
    fn pass(&mut self, at: LogPosition, version: Version, chain: Option<[u8; 16]>) -> Result<(), Finding> {
        for mark in self.all.iter_mut().filter(|mark| mark.mark.position == at) {
            if mark.mark.version != version || chain.is_some_and(|chain| chain != mark.mark.chain) {
                return Err(mark.mismatch("the log holds other lots up to there"));
            }
            mark.met = true;
        }
        Ok(())
    }

    /// What a mark says the digest at a boundary is.
    fn chain_at(&self, at: LogPosition) -> Option<[u8; 16]> {
        self.all.iter().find(|mark| mark.mark.position == at).map(|mark| mark.mark.chain)
    }
}

impl Mark {
    fn gone(&self, instead: impl std::fmt::Display) -> Finding {
        let LogPosition { segment, offset } = self.mark.position;
        let detail = format!(
            "the {} says that everything up to version {} (segment {segment}, offset {offset}) was acked, but {instead}: \
             acked data is gone; the start is refused until it is brought back or its loss is accepted",
            self.of, self.mark.version
        );
        Finding::new(FindingKind::AckedLotsGone, &self.file, 0, detail)
    }

    fn mismatch(&self, what: &str) -> Finding {
        let LogPosition { segment, offset } = self.mark.position;
        let detail =
            format!("the {} (version {}, segment {segment}, offset {offset}): {what}", self.of, self.mark.version);
        Finding::new(FindingKind::MarkMismatch, &self.file, 0, detail)
    }
}

/// How far a segment was gone through.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    offset: u32,
    version: Version,
    /// `None`: behind a damaged lot, only what follows tells.
    chain: Option<[u8; 16]>,
}

/// What ends the lots of the last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// The file, or zeros written ahead.
    Clean,
    /// A footer: the next segment was never made.
    Footer,
    /// Bytes of a lot that was never acked.
    Torn,
}

struct Opener {
    files: Files,
    keys: Keys,
    log_id: [u8; 16],
    segments: Vec<Arc<Segment>>,
    marks: Marks,
    /// Everything from here on is verified in full.
    from: LogPosition,
    report: OpenReport,
    footer: FooterBuilder,
    /// The last lot of the last segment, when it was verified.
    last_lot: Option<(u32, u32)>,
}

impl Opener {
    fn new(files: Files, headers: Vec<(SegmentHeader, LogFile)>, mut marks: Marks) -> Result<Self, Finding> {
        let ends: Vec<Option<u32>> =
            (1..=headers.len()).map(|next| headers.get(next).map(|(header, _)| header.previous_end)).collect();
        let mut log_id = [0; 16];
        let mut segments = Vec::with_capacity(headers.len());
        for ((header, file), end) in headers.into_iter().zip(&ends) {
            log_id = header.log_id;
            segments.push(Arc::new(Segment::new(header, file, end.unwrap_or(FIRST_LOT), None)));
        }
        let mut from = LogPosition { segment: 1, offset: FIRST_LOT };
        for mark in &mut marks.all {
            if mark.mark.log_id != log_id {
                let detail = format_args!("the {} belongs to another log", mark.of);
                return Err(Finding::new(FindingKind::ForeignLog, &mark.file, 0, detail));
            }
            normalise(mark, &ends)?;
            if mark.is_known {
                from = mark.mark.position;
            }
        }
        let keys = Keys::new(&log_id);
        Ok(Self {
            files,
            keys,
            log_id,
            segments,
            marks,
            from,
            report: OpenReport::default(),
            footer: FooterBuilder::default(),
            last_lot: None,
        })
    }

    fn run(mut self, watermark: Option<Watermark>) -> Result<Opened> {
        for index in 0..self.segments.len() - 1 {
            self.closed_segment(index)?;
        }
        let (end, tail, file_bytes) = self.last_segment()?;
        self.all_marks_met(end)?;
        let dir = self.files.dir().to_owned();
        let io = |source| StoreError::io("open log", dir.display(), source);
        if end.version > Version::ZERO && self.marks.all.iter().all(|mark| mark.is_known) {
            let detail = "there is no watermark, so a damaged last lot could not be told from a torn one";
            let file = self.files.path(WATERMARK_NAME);
            self.report.findings.push(Finding::new(FindingKind::Watermark, file, 0, detail));
        }
        let segment = Arc::clone(&self.segments[self.segments.len() - 1]);
        let file_bytes = if tail == Tail::Torn { self.cut(&segment, end, file_bytes)? } else { file_bytes };
        segment.set_end(end.position.offset);

        // A lot whose fdatasync failed before a crash may read well from the page cache and not be on the disk, with its
        // pages marked clean. Writing the same bytes again makes them dirty, so that the sync is one. Only the last lot can
        // be such: the next one is never begun before a sync has returned.
        if let Some((from, to)) = self.last_lot.filter(|_| end.position > self.marks.protected()) {
            let mut window = Window::new(Arc::clone(&segment), 0);
            let bytes = window.bytes(u64::from(from), (to - from) as usize, u64::from(to))?;
            segment.file.write_at(bytes, u64::from(from)).map_err(io)?;
        }
        segment.file.sync().map_err(io)?;
        self.files.sync_dir().map_err(io)?;
        let mut watermark = match watermark {
            Some(watermark) => watermark,
            None => Watermark::create(&self.files).map_err(io)?,
        };
        watermark.write(&end).and_then(|()| watermark.sync()).map_err(io)?;

        for finding in &self.report.findings {
            tracing::warn!(%finding, "found in the log");
        }
        let shared = share(self.files, self.log_id, self.segments, end);
        let closed = tail == Tail::Footer;
        Ok(Opened { shared, watermark, footer: self.footer, file_bytes, closed, report: self.report })
    }

    /// Checks a segment that has a successor, whose header says how it ends.
    fn closed_segment(&mut self, index: usize) -> Result<(), Finding> {
        let (segment, next) = (Arc::clone(&self.segments[index]), Arc::clone(&self.segments[index + 1]));
        let end = segment.end();
        let number = segment.header.number;
        let table = self.check_footer(&segment, &next)?;
        let has_footer = table.is_some();
        let mut walked = Vec::new();
        if self.from.segment > number {
            if table.is_none() {
                let cursor = Cursor { offset: FIRST_LOT, version: segment.header.last_version, chain: None };
                self.walk(&segment, cursor, end, &mut walked)?;
            }
        } else {
            let mut cursor = self.start_in(&segment);
            if cursor.offset > FIRST_LOT && table.is_none() {
                let first = Cursor { offset: FIRST_LOT, version: segment.header.last_version, chain: None };
                cursor = self.walk(&segment, first, cursor.offset, &mut walked)?;
            }
            let mut window = Window::new(Arc::clone(&segment), VERIFY_AHEAD);
            while cursor.offset < end {
                let at = LogPosition { segment: number, offset: cursor.offset };
                let mut lot = segment::read_lot(&mut window, &self.keys, cursor.offset, u64::from(end))
                    .map_err(|finding| self.named(&segment, end, finding))?;
                self.marks.pass(at, cursor.version, Some(lot.head.header.chain_before))?;
                follows(&segment, &lot, &cursor)?;
                if let Some(damage) = lot.damage.take() {
                    return Err(damage);
                }
                layout::note_in_table(&mut walked, lot.head.header.first_version, cursor.offset);
                cursor = self.verified(&mut lot);
            }
            let chain_fits = cursor.chain.is_none_or(|chain| chain == next.header.chain);
            if !chain_fits || cursor.version != next.header.last_version {
                let detail = "the segment does not continue the one before it";
                return Err(next.finding(FindingKind::SegmentChain, 0, detail));
            }
        }
        if !has_footer {
            *segment.table.write() = Some(walked);
        }
        let at = LogPosition { segment: next.header.number, offset: FIRST_LOT };
        self.marks.pass(at, next.header.last_version, Some(next.header.chain))
    }

    /// A closed segment's footer: whether it has the table. A footer is a cache, so a lost one is only reported; one that
    /// is sound and says something else than the next header is not.
    fn check_footer(&mut self, segment: &Segment, next: &Segment) -> Result<Option<()>, Finding> {
        let footer = segment.footer(&self.keys, segment.end()).and_then(|footer| {
            segment.footer_table(&self.keys, &footer)?;
            Ok(footer)
        });
        match footer {
            Ok(footer) => {
                let same = footer.chain == next.header.chain
                    && footer.last_version == next.header.last_version
                    && footer.before == segment.header.last_version;
                if !same {
                    let detail = "the segment's header and the footer before it differ";
                    return Err(next.finding(FindingKind::SegmentChain, 0, detail));
                }
                Ok(Some(()))
            }
            Err(finding) if matches!(finding.kind, FindingKind::Io | FindingKind::NewerFormat) => Err(finding),
            Err(mut finding) => {
                finding.detail.push_str(" (the segment was closed after a failed write, or its footer is damaged)");
                self.report.findings.push(finding);
                Ok(None)
            }
        }
    }

    /// Where full verification begins in a segment, and what the mark there says.
    fn start_in(&self, segment: &Segment) -> Cursor {
        let first =
            Cursor { offset: FIRST_LOT, version: segment.header.last_version, chain: Some(segment.header.chain) };
        let known = self.marks.all.iter().find(|mark| mark.is_known && mark.mark.position == self.from);
        match known {
            Some(Mark { mark, .. }) if mark.position.segment == segment.header.number => {
                Cursor { offset: mark.position.offset, version: mark.version, chain: Some(mark.chain) }
            }
            _ => first,
        }
    }

    /// Goes over headers and directories only, from `cursor` to `to`, which must be a boundary.
    fn walk(
        &mut self,
        segment: &Arc<Segment>,
        mut cursor: Cursor,
        to: u32,
        table: &mut Vec<layout::TableEntry>,
    ) -> Result<Cursor, Finding> {
        let mut window = Window::new(Arc::clone(segment), WALK_AHEAD);
        while cursor.offset < to {
            let head = segment::read_head(&mut window, &self.keys, cursor.offset, u64::from(to))
                .map_err(|finding| self.named(segment, segment.end(), finding))?;
            if head.header.first_version <= cursor.version {
                let at = u64::from(cursor.offset);
                return Err(segment.finding(FindingKind::Chain, at, "the lot's versions do not rise"));
            }
            let at = head.header.position;
            self.marks.pass(at, cursor.version, Some(head.header.chain_before))?;
            layout::note_in_table(table, head.header.first_version, cursor.offset);
            cursor = Cursor { offset: head.end, version: head.header.last_version, chain: None };
        }
        Ok(cursor)
    }

    /// Notes a lot that was read in full and returns the boundary behind it.
    fn verified(&mut self, lot: &mut WholeLot) -> Cursor {
        self.report.lots_verified += 1;
        self.report.bytes_verified += u64::from(lot.head.end - lot.head.header.position.offset);
        let chain = lot.chain();
        self.report.findings.extend(lot.holes.take());
        Cursor { offset: lot.head.end, version: lot.head.header.last_version, chain }
    }

    /// Goes through the last segment and decides what its end is. Returns the log's end, the tail, and the file's bytes.
    fn last_segment(&mut self) -> Result<(LogMark, Tail, u64)> {
        let segment = Arc::clone(&self.segments[self.segments.len() - 1]);
        let number = segment.header.number;
        let io = |source| super::reader::io_error("open log", &segment, source);
        let file_bytes = segment.file.bytes().map_err(io)?;
        // An offset has 32 bits; what lies beyond was not written by this log.
        let limit = file_bytes.min(u64::from(u32::MAX));
        let protected = self.marks.protected();
        if let Some(mark) = self.marks.all.iter().find(|mark| {
            let LogPosition { segment, offset } = mark.mark.position;
            segment > number || (segment == number && u64::from(offset) > limit)
        }) {
            let instead = format_args!("the log's last file, segment {number}, has {file_bytes} bytes");
            return Err(mark.gone(instead).into());
        }
        let mut table = Vec::new();
        let mut cursor = self.walk_to_known(&segment, limit, &mut table)?;
        let mut window = Window::new(Arc::clone(&segment), VERIFY_AHEAD);
        let tail = loop {
            let at = LogPosition { segment: number, offset: cursor.offset };
            self.marks.pass(at, cursor.version, cursor.chain)?;
            if u64::from(cursor.offset) == limit {
                break Tail::Clean;
            }
            if self.ends_with_footer(&segment, &mut window, cursor, limit)? {
                break Tail::Footer;
            }
            if is_zero(&mut window, cursor.offset, limit)? {
                break Tail::Clean;
            }
            let read = segment::read_lot(&mut window, &self.keys, cursor.offset, limit);
            let mut lot = match read {
                Ok(lot) => lot,
                Err(finding) => {
                    self.must_be_torn(&segment, at, None, limit, finding)?;
                    break Tail::Torn;
                }
            };
            self.marks.pass(at, cursor.version, Some(lot.head.header.chain_before))?;
            follows(&segment, &lot, &cursor)?;
            if let Some(damage) = lot.damage.take() {
                self.must_be_torn(&segment, at, Some(lot.head.end), limit, damage)?;
                break Tail::Torn;
            }
            let end = LogPosition { segment: number, offset: lot.head.end };
            if let Some(holes) = &lot.holes
                && end > protected
                && find_written(&segment, &self.keys, lot.head.end, limit)?.is_none()
            {
                self.torn(holes);
                break Tail::Torn;
            }
            layout::note_in_table(&mut table, lot.head.header.first_version, cursor.offset);
            self.last_lot = Some((cursor.offset, lot.head.end));
            let directory_at = u64::from(cursor.offset) + LOT_HEADER as u64;
            let directory = window.bytes(directory_at, lot.head.header.directory_bytes as usize, limit)?;
            self.footer.push(lot.head.header.first_version, cursor.offset, directory);
            cursor = self.verified(&mut lot);
        };
        let position = LogPosition { segment: number, offset: cursor.offset };
        let Some(chain) = cursor.chain.or_else(|| self.marks.chain_at(position)) else {
            // A damaged last lot is only kept when a mark or a footer covers it, and the footer knows the digest too.
            let footer = segment.footer(&self.keys, cursor.offset)?;
            return Ok(self.ended(&segment, table, cursor, footer.chain, tail, file_bytes));
        };
        Ok(self.ended(&segment, table, cursor, chain, tail, file_bytes))
    }

    /// Whether a sound footer lies behind the last lot: the segment was closed and its successor never made.
    fn ends_with_footer(
        &self,
        segment: &Segment,
        window: &mut Window,
        cursor: Cursor,
        limit: u64,
    ) -> Result<bool, Finding> {
        if window.bytes(u64::from(cursor.offset), 8, limit)? != self.keys.footer_magic() {
            return Ok(false);
        }
        match segment.footer(&self.keys, cursor.offset) {
            Ok(footer) => {
                let same = footer.last_version == cursor.version
                    && cursor.chain.is_none_or(|chain| chain == footer.chain)
                    && footer.before == segment.header.last_version;
                let detail = "the footer and the lots before it differ";
                let differ = || segment.finding(FindingKind::SegmentChain, u64::from(cursor.offset), detail);
                if same { Ok(true) } else { Err(differ()) }
            }
            Err(finding) if matches!(finding.kind, FindingKind::Io | FindingKind::NewerFormat) => Err(finding),
            Err(_) => Ok(false),
        }
    }

    fn ended(
        &self,
        segment: &Segment,
        table: Vec<layout::TableEntry>,
        cursor: Cursor,
        chain: [u8; 16],
        tail: Tail,
        file_bytes: u64,
    ) -> (LogMark, Tail, u64) {
        *segment.table.write() = Some(table);
        let position = LogPosition { segment: segment.header.number, offset: cursor.offset };
        (LogMark { log_id: self.log_id, position, version: cursor.version, chain }, tail, file_bytes)
    }

    /// The part of the last segment before the view's mark: headers and directories, which the open segment's table and
    /// its footer to come need anyway.
    fn walk_to_known(
        &mut self,
        segment: &Arc<Segment>,
        limit: u64,
        table: &mut Vec<layout::TableEntry>,
    ) -> Result<Cursor, Finding> {
        let start = self.start_in(segment);
        let mut at = FIRST_LOT;
        let mut version = segment.header.last_version;
        let mut last = None;
        let mut window = Window::new(Arc::clone(segment), WALK_AHEAD);
        while at < start.offset {
            let head = segment::read_head(&mut window, &self.keys, at, limit)?;
            if let Some(mark) = self.marks.all.iter().find(|mark| mark.is_known && head.end > start.offset) {
                return Err(mark.mismatch("no lot ends there"));
            }
            if head.header.first_version <= version {
                return Err(segment.finding(FindingKind::Chain, u64::from(at), "the lot's versions do not rise"));
            }
            self.marks.pass(head.header.position, version, Some(head.header.chain_before))?;
            let directory_at = u64::from(at) + LOT_HEADER as u64;
            let directory = window.bytes(directory_at, head.header.directory_bytes as usize, limit)?;
            self.footer.push(head.header.first_version, at, directory);
            layout::note_in_table(table, head.header.first_version, at);
            (at, version, last) = (head.end, head.header.last_version, Some(at));
        }
        if let Some(last) = last {
            self.ends_as_known(&mut window, last, &start)?;
        }
        self.marks.pass(LogPosition { segment: segment.header.number, offset: at }, version, None)?;
        Ok(start)
    }

    /// The lot that ends at the view's mark must have the mark's digest: when the log ends there, nothing behind tells.
    fn ends_as_known(&self, window: &mut Window, last: u32, known: &Cursor) -> Result<(), Finding> {
        let lot = segment::read_lot(window, &self.keys, last, u64::from(known.offset))?;
        let chain = lot.chain();
        if let Some(damage) = lot.damage {
            return Err(damage);
        }
        match self.marks.all.iter().find(|mark| mark.is_known && chain.is_some_and(|chain| chain != mark.mark.chain)) {
            Some(mark) => Err(mark.mismatch("the log holds other lots up to there")),
            None => Ok(()),
        }
    }

    /// Decides whether a bad lot at `at` is a torn end. `end`: where it ends, when its header tells.
    ///
    /// # Errors
    /// The finding, made complete, when the lot is damaged: something that was written later follows it, or a mark says
    /// that it was acked.
    fn must_be_torn(
        &mut self,
        segment: &Arc<Segment>,
        at: LogPosition,
        end: Option<u32>,
        limit: u64,
        mut finding: Finding,
    ) -> Result<(), Finding> {
        if matches!(finding.kind, FindingKind::Io | FindingKind::NewerFormat) {
            return Err(finding);
        }
        let protected = self.marks.protected();
        if at < protected {
            let LogPosition { segment, offset } = protected;
            let behind = format!("; acked lots reach to segment {segment}, offset {offset}");
            finding.detail.push_str(&behind);
            return Err(finding);
        }
        let from = end.unwrap_or(at.offset.saturating_add(1));
        if let Some(later) = find_written(segment, &self.keys, from, limit)? {
            finding.detail.push_str(&format!("; a later lot lies behind it at {later}"));
            return Err(finding);
        }
        self.torn(&finding);
        Ok(())
    }

    fn torn(&self, finding: &Finding) {
        tracing::warn!(%finding, "the log's last lot was never finished");
    }

    /// Names the messages of a lot whose own header or directory does not tell them, when the footer does.
    fn named(&self, segment: &Segment, end: u32, finding: Finding) -> Finding {
        if finding.kind != FindingKind::Lot || !finding.messages.is_empty() {
            return finding;
        }
        // A finding inside a directory lies one header behind its lot.
        let offset = u32::try_from(finding.offset).unwrap_or(0);
        let mut messages = segment.messages_by_footer(&self.keys, end, offset);
        if messages.is_empty() {
            messages = segment.messages_by_footer(&self.keys, end, offset.saturating_sub(LOT_HEADER as u32));
        }
        finding.of(messages)
    }

    /// Every mark in the part that was gone through must have been a boundary.
    fn all_marks_met(&self, end: LogMark) -> Result<(), Finding> {
        for mark in self.marks.all.iter().filter(|mark| !mark.met) {
            let at = mark.mark.position;
            if at > end.position {
                let LogPosition { segment, offset } = end.position;
                return Err(mark.gone(format_args!("the log ends at segment {segment}, offset {offset}")));
            }
            // Before the view's mark only the last segment was gone through.
            if at >= self.from || at.segment == end.position.segment {
                return Err(mark.mismatch("no lot ends there"));
            }
        }
        Ok(())
    }

    /// Moves a torn end into a file beside the segment. Returns the file's bytes afterwards.
    fn cut(&mut self, segment: &Segment, end: LogMark, file_bytes: u64) -> Result<u64> {
        let at = u64::from(end.position.offset);
        let io = |source| super::reader::io_error("cut torn lot", segment, source);
        let count = usize::try_from(file_bytes - at).map_err(|e| io(std::io::Error::other(e)))?;
        let mut bytes = vec![0; count];
        let filled = segment.file.read_at(&mut bytes, at).map_err(io)?;
        // Zeros written ahead say nothing.
        let torn = bytes[..filled].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let name = (0_u32..)
            .map(|n| format!("{}.{at}.{n}.cut", segment_name(segment.header.number)))
            .find(|name| !self.files.path(name).exists())
            .unwrap_or_default();
        self.files.create(&name, &bytes[..torn]).map_err(io)?;
        segment.file.truncate(at).map_err(io)?;
        let file = self.files.path(&name);
        tracing::warn!(
            segment = segment.header.number,
            offset = at,
            bytes = torn,
            kept_in = %file.display(),
            "cut the torn end of the log: it was never acked"
        );
        self.report.cut = Some(Cut { file, at: end.position, bytes: torn as u64 });
        Ok(at)
    }
}

/// Brings a mark to its one form: the end of a closed segment is the start of the next.
fn normalise(mark: &mut Mark, ends: &[Option<u32>]) -> Result<(), Finding> {
    let position = &mut mark.mark.position;
    if position.segment == 0 {
        *position = LogPosition { segment: 1, offset: FIRST_LOT };
    }
    while let Some(&Some(end)) = ends.get(position.segment as usize - 1) {
        if position.offset < end {
            break;
        }
        if position.offset > end {
            return Err(mark.mismatch("the next segment says that this one ends before it"));
        }
        *position = LogPosition { segment: position.segment + 1, offset: FIRST_LOT };
    }
    if position.offset < FIRST_LOT {
        return Err(mark.mismatch("no lot ends there"));
    }
    Ok(())
}

/// Whether a sound lot continues what lies before it.
fn follows(segment: &Segment, lot: &WholeLot, cursor: &Cursor) -> Result<(), Finding> {
    let header: &LotHeader = &lot.head.header;
    let named = |detail| {
        let finding = segment.finding(FindingKind::Chain, u64::from(cursor.offset), detail);
        Err(finding.in_lot(header.first_version, header.last_version).of(layout::messages_of(&lot.head.entries)))
    };
    if cursor.chain.is_some_and(|chain| chain != header.chain_before) {
        return named("the lot does not continue the one before it");
    }
    if header.first_version <= cursor.version {
        return named("the lot's versions do not rise");
    }
    Ok(())
}

/// Whether only zeros lie from `from` to `limit`.
pub(super) fn is_zero(window: &mut Window, from: u32, limit: u64) -> Result<bool, Finding> {
    let mut at = u64::from(from);
    while at < limit {
        let bytes = window.bytes(at, 4 << 10, limit)?;
        if bytes.is_empty() {
            break;
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

/// Looks for a lot's header or a footer from `from` on, at every offset. Keyed magic, keyed checksum and the own place in it
/// keep payloads out of this.
pub(super) fn find_written(segment: &Arc<Segment>, keys: &Keys, from: u32, limit: u64) -> Result<Option<u32>, Finding> {
    const STEP: usize = 256 << 10;
    let mut window = Window::new(Arc::clone(segment), STEP);
    let mut at = u64::from(from);
    while at < limit {
        let bytes = window.bytes(at, STEP, limit)?;
        let starts = bytes
            .windows(8)
            .enumerate()
            .filter(|(_, eight)| *eight == keys.lot_magic() || *eight == keys.footer_magic());
        let starts: Vec<u64> = starts.map(|(i, _)| at + i as u64).collect();
        let read = bytes.len() as u64;
        for start in starts {
            let Ok(offset) = u32::try_from(start) else { continue };
            let position = LogPosition { segment: segment.header.number, offset };
            let mut head = Window::new(Arc::clone(segment), LOT_HEADER);
            let is_lot = LotHeader::decode(keys, head.bytes(start, LOT_HEADER, limit)?, position).is_ok();
            if is_lot || segment.footer(keys, offset).is_ok() {
                return Ok(Some(offset));
            }
        }
        if read < 8 {
            break;
        }
        // The last 7 bytes may begin a magic number that goes on in the next step.
        at += read - 7;
    }
    Ok(None)
}
