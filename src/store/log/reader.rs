//! The read side of the log: messages by place, records by version, lots in order.
//!
//! Owns no file; shares the segments with the writer. Sees what is on disk and nothing beyond.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::ids::Version;

use super::layout::{self, FIRST_LOT, Fault, TableEntry};
use super::segment::{self, Segment, Shared, Versioned, Window};
use super::{Finding, FindingKind, Located, LogMark, LogPosition, LotView, Place, ReadError};
use crate::store::{ChannelNo, MessageRecord, Result, StoreError, quiet};

/// One read takes this much when a record's length is not known: nearly every message with its head fits, and a page of the
/// cache costs the same whatever part of it is copied. A longer record takes a second read.
const RECORD_GUESS: usize = 4 << 10;
/// Two messages this near are read together: copying what lies between costs less than another call.
const JOIN_GAP_MAX: u32 = 8 << 10;
/// At most this much is read together.
const JOIN_BYTES_MAX: u32 = 256 << 10;
/// A scan reads ahead by this much.
const SCAN_AHEAD: usize = 1 << 20;
/// Look-ups read ahead by this much: the distance of the sparse table.
pub(super) const LOOK_UP_AHEAD: usize = layout::TABLE_STEP as usize;

/// Reads a log. Cheap to clone; for any thread that may block on a disk.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The log's random id.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// The message (`channel`, `seq`) that lies at `place`, with its version, which is its message_id. One read, two when
    /// its record is longer than 4 KiB.
    ///
    /// # Errors
    /// [`ReadError::Damaged`]: what lies there is not that message. [`ReadError::Io`]: the disk did not answer.
    pub fn read_message(
        &self,
        place: Place,
        channel: ChannelNo,
        seq: u64,
    ) -> Result<(Version, MessageRecord), ReadError> {
        let segment = self.inside(place)?;
        let bytes = self.record_bytes(&segment, place)?;
        self.message(&segment, place, &bytes, channel, seq)
    }

    /// Messages of a channel, (seq, place) each; the answers in the same order. Neighbours are joined into one read.
    ///
    /// # Errors
    /// Per message, as [`LogReader::read_message`].
    #[must_use]
    pub fn read_messages(
        &self,
        channel: ChannelNo,
        wanted: &[(u64, Place)],
    ) -> Vec<Result<(Version, MessageRecord), ReadError>> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|&i| wanted[i].1);
        let mut answers: Vec<Option<Result<(Version, MessageRecord), ReadError>>> = Vec::new();
        answers.resize_with(wanted.len(), || None);
        let mut rest = &order[..];
        while let Some(&first) = rest.first() {
            let from = wanted[first].1;
            let joined =
                rest.windows(2).take_while(|pair| joins(from, wanted[pair[0]].1, wanted[pair[1]].1)).count() + 1;
            let (run, behind) = rest.split_at(joined);
            self.read_run(channel, wanted, run, &mut answers);
            rest = behind;
        }
        // Every index is in exactly one run.
        answers.into_iter().flatten().collect()
    }

    /// Reads one run of neighbours, given by their indices in the order they lie.
    fn read_run(
        &self,
        channel: ChannelNo,
        wanted: &[(u64, Place)],
        run: &[usize],
        answers: &mut [Option<Result<(Version, MessageRecord), ReadError>>],
    ) {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { return };
        let alone = |i: usize| self.read_message(wanted[i].1, channel, wanted[i].0);
        let from = wanted[first].1;
        if run.len() == 1 {
            answers[first] = Some(alone(first));
            return;
        }
        let Ok(segment) = self.inside(from) else {
            run.iter().for_each(|&i| answers[i] = Some(alone(i)));
            return;
        };
        let to = u64::from(wanted[last].1.offset) + RECORD_GUESS as u64;
        let bytes = to.min(u64::from(segment.end())).saturating_sub(u64::from(from.offset));
        let mut buffer = vec![0; bytes as usize];
        self.count_read();
        let Ok(filled) = segment.file.read_at(&mut buffer, u64::from(from.offset)) else {
            // Each by itself names its own error.
            run.iter().for_each(|&i| answers[i] = Some(alone(i)));
            return;
        };
        buffer.truncate(filled);
        for &i in run {
            let (seq, place) = wanted[i];
            let record = buffer.get((place.offset - from.offset) as usize..).and_then(|bytes| {
                let count = usize::try_from(layout::record_bytes(bytes)?).ok()?;
                bytes.get(..count)
            });
            answers[i] = Some(match record {
                Some(bytes) => self.message(&segment, place, bytes, channel, seq),
                None => alone(i),
            });
        }
    }

    /// The record that lies at `place`, of any kind, with its version. One read, two when it is longer than 4 KiB.
    ///
    /// # Errors
    /// As [`LogReader::read_message`].
    pub fn read_record(&self, place: Place) -> Result<Versioned, ReadError> {
        let segment = self.inside(place)?;
        let bytes = self.record_bytes(&segment, place)?;
        layout::decode_record(&self.shared.keys, &bytes)
            .map_err(|fault| ReadError::Damaged(segment.fault(FindingKind::Record, u64::from(place.offset), fault)))
    }

    /// Lots from a boundary on, up to what is on disk when each is asked for. The default position is the first lot.
    #[must_use]
    pub fn scan(&self, from: LogPosition) -> Scan {
        let from = if from.segment == 0 { LogPosition { segment: 1, offset: FIRST_LOT } } else { from };
        Scan { shared: Arc::clone(&self.shared), at: from, window: None, chain: None, version: None, over: false }
    }

    /// Lots behind a mark. The scan ends with a finding when what follows does not continue the mark's prefix.
    #[must_use]
    pub fn scan_behind(&self, mark: &LogMark) -> Scan {
        Scan { chain: Some(mark.chain), version: Some(mark.version), ..self.scan(mark.position) }
    }

    /// Where the record with this version lies; `None` when none has it. At most a footer's table, 64 KiB of lots and one
    /// lot's directory are read.
    ///
    /// # Errors
    /// I/O, or a damaged lot in that part of the log.
    pub fn place_of(&self, version: Version) -> Result<Option<Place>> {
        Ok(self.locate(version)?.map(|located| located.place))
    }

    /// Where the record with this version lies, and what its lot's directory says about it. Costs and errors as
    /// [`LogReader::place_of`]; the record itself is not read.
    ///
    /// # Errors
    /// As [`LogReader::place_of`].
    pub fn locate(&self, version: Version) -> Result<Option<Located>> {
        let (segment, last) = {
            let segments = self.shared.segments.read();
            let after = segments.partition_point(|segment| segment.header.last_version < version);
            let Some(index) = after.checked_sub(1) else { return Ok(None) };
            let last = segments.get(after).map(|next| next.header.last_version);
            (Arc::clone(&segments[index]), last)
        };
        if version > last.unwrap_or_else(|| self.shared.end().version) {
            return Ok(None);
        }
        self.count_read();
        let keys = &self.shared.keys;
        let end = segment.end();
        let mut at = start_of(&self.table_of(&segment, end)?, version);
        let mut window = Window::new(segment, LOOK_UP_AHEAD);
        while at < end {
            let head = segment::read_head(&mut window, keys, at, u64::from(end))?;
            if version < head.header.first_version {
                return Ok(None);
            }
            if version <= head.header.last_version {
                let found = head.entries.binary_search_by_key(&version, |entry| entry.version);
                let before = head.header.before_records() as u32;
                return Ok(found.ok().map(|i| {
                    let entry = &head.entries[i];
                    let place = Place { segment: window.segment().header.number, offset: at + before + entry.offset };
                    Located { place, kind: entry.kind, channel: entry.channel, seq: entry.seq }
                }));
            }
            at = head.end;
        }
        Ok(None)
    }

    /// The sparse table: from memory, from the footer, or empty (then the look-up walks the whole segment).
    pub(super) fn table_of(&self, segment: &Segment, end: u32) -> Result<Vec<TableEntry>, Finding> {
        if let Some(table) = segment.table.read().as_ref() {
            return Ok(table.clone());
        }
        let table =
            segment.footer(&self.shared.keys, end).and_then(|footer| segment.footer_table(&self.shared.keys, &footer));
        match table {
            Err(finding) if finding.kind == FindingKind::Io => Err(finding),
            Err(finding) => {
                tracing::warn!(%finding, "log footer damaged, walking the segment");
                Ok(Vec::new())
            }
            Ok(table) => Ok(table),
        }
    }

    /// How many reads the log was asked for since it was opened: each read of messages or of a record counts, a look-up by
    /// version counts one, scans do not.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.message_reads.load(Ordering::Relaxed)
    }

    /// Where the last lot on disk ends.
    #[must_use]
    pub fn end(&self) -> super::LogMark {
        self.shared.end()
    }

    /// Bytes of the log that are in use: headers and lots of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.segments.read().iter().map(|segment| u64::from(segment.end())).sum()
    }

    fn record_bytes(&self, segment: &Segment, place: Place) -> Result<Vec<u8>, ReadError> {
        segment::read_record(segment, place.offset, RECORD_GUESS, &self.shared.message_reads)
            .map_err(|source| ReadError::Io { file: segment.file.path().to_owned(), source })
    }

    pub(super) fn count_read(&self) {
        quiet::count(&self.shared.message_reads);
    }

    fn inside(&self, place: Place) -> Result<Arc<Segment>, ReadError> {
        match self.shared.segment(place.segment) {
            Some(segment) if segment::is_inside(&segment, place.offset) => Ok(segment),
            _ => {
                let file = self.shared.files.path(&super::files::segment_name(place.segment));
                let detail = "the place lies beyond the log's end";
                Err(ReadError::Damaged(Finding::new(FindingKind::Message, file, u64::from(place.offset), detail)))
            }
        }
    }

    fn message(
        &self,
        segment: &Segment,
        place: Place,
        bytes: &[u8],
        channel: ChannelNo,
        seq: u64,
    ) -> Result<(Version, MessageRecord), ReadError> {
        layout::decode_message(&self.shared.keys, bytes, channel, seq)
            .map_err(|fault| ReadError::Damaged(segment::message_fault(segment, place.offset, channel, seq, fault)))
    }
}

/// Whether the message at `next` is read together with those from `from` to `last`.
fn joins(from: Place, last: Place, next: Place) -> bool {
    next.segment == from.segment
        && next.offset - last.offset <= JOIN_GAP_MAX
        && next.offset - from.offset <= JOIN_BYTES_MAX
}

/// Where to begin to walk for a version.
pub(super) fn start_of(table: &[TableEntry], version: Version) -> u32 {
    let after = table.partition_point(|&(first, _)| first <= version);
    after.checked_sub(1).map_or(FIRST_LOT, |i| table[i].1)
}

/// Lots in order, every byte of them checked. Ends at the first finding, or with what is on disk; in the latter case it may
/// be asked again later.
#[derive(Debug)]
pub struct Scan {
    shared: Arc<Shared>,
    at: LogPosition,
    window: Option<Window>,
    /// Digest and version at `at`; `None` when only the next header tells.
    chain: Option<[u8; 16]>,
    version: Option<Version>,
    over: bool,
}

impl Iterator for Scan {
    type Item = Result<LotView, Finding>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let lot = self.next_lot().transpose();
        self.over = matches!(lot, Some(Err(_)));
        lot
    }
}

impl Scan {
    /// The boundary the next lot begins at.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.at
    }

    fn next_lot(&mut self) -> Result<Option<LotView>, Finding> {
        let Some(segment) = self.segment_with_more()? else { return Ok(None) };
        let end = segment.end();
        let window = match &mut self.window {
            Some(window) if window.segment().header.number == segment.header.number => window,
            window => window.insert(Window::new(Arc::clone(&segment), SCAN_AHEAD)),
        };
        let mut lot =
            segment::read_lot(window, &self.shared.keys, self.at.offset, u64::from(end)).map_err(|finding| {
                if finding.kind == FindingKind::Lot && finding.messages.is_empty() {
                    let messages = segment.messages_by_footer(&self.shared.keys, end, self.at.offset);
                    return finding.of(messages);
                }
                finding
            })?;
        if let Some(damage) = lot.damage.take() {
            return Err(damage);
        }
        let header = lot.head.header;
        let offset = u64::from(self.at.offset);
        if self.chain.is_some_and(|chain| chain != header.chain_before) {
            return Err(segment.finding(FindingKind::Chain, offset, "the lot does not continue the one before it"));
        }
        if self.version.is_some_and(|version| version >= header.first_version) {
            return Err(segment.finding(FindingKind::Chain, offset, "the lot's versions do not rise"));
        }
        self.at.offset = lot.head.end;
        self.version = Some(header.last_version);
        self.chain = lot.chain();
        let chain = match self.chain {
            Some(chain) => chain,
            None => self.stated_chain(&segment, lot.head.end, end)?,
        };
        self.chain = Some(chain);
        Ok(Some(lot.into_view(chain)))
    }

    /// The segment `at` lies in, after stepping over the ends of closed ones; `None` at the end of the log.
    fn segment_with_more(&mut self) -> Result<Option<Arc<Segment>>, Finding> {
        loop {
            let Some(segment) = self.shared.segment(self.at.segment) else { return Ok(None) };
            if self.at.offset < segment.end() {
                return Ok(Some(segment));
            }
            let Some(next) = self.shared.segment(self.at.segment.saturating_add(1)) else { return Ok(None) };
            // A closed segment's end never moves again; look once more, a lot may have come in between.
            if self.at.offset < segment.end() {
                return Ok(Some(segment));
            }
            if self.chain.is_some_and(|chain| chain != next.header.chain) {
                return Err(next.finding(
                    FindingKind::SegmentChain,
                    0,
                    "the segment does not continue the one before it",
                ));
            }
            self.at = LogPosition { segment: next.header.number, offset: FIRST_LOT };
        }
    }

    /// The digest at a boundary behind a damaged lot, as what follows it says.
    fn stated_chain(&self, segment: &Arc<Segment>, offset: u32, end: u32) -> Result<[u8; 16], Finding> {
        if offset < end {
            let mut window = Window::new(Arc::clone(segment), layout::LOT_HEADER);
            let bytes = window.bytes(u64::from(offset), layout::LOT_HEADER, u64::from(end))?;
            let position = LogPosition { segment: segment.header.number, offset };
            return layout::LotHeader::decode(&self.shared.keys, bytes, position)
                .map(|header| header.chain_before)
                .map_err(|fault| segment.fault(FindingKind::Lot, u64::from(offset), fault));
        }
        if let Some(next) = self.shared.segment(segment.header.number.saturating_add(1)) {
            return Ok(next.header.chain);
        }
        let mark = self.shared.end();
        if mark.position == (LogPosition { segment: segment.header.number, offset }) {
            return Ok(mark.chain);
        }
        let fault = Fault::Bad("the digest behind a damaged lot is not known");
        Err(segment.fault(FindingKind::Chain, u64::from(offset), fault))
    }
}

impl From<ReadError> for Finding {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(finding) => finding,
            ReadError::Io { file, source } => Finding::new(FindingKind::Io, file, 0, source),
        }
    }
}

/// An I/O error of the append side.
pub(super) fn io_error(operation: &'static str, segment: &Segment, source: std::io::Error) -> StoreError {
    StoreError::io(operation, segment.file.path().display(), source)
}
