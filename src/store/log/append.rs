//! The append side: sealing lots, writing them, closing segments.
//!
//! Owns the end of the log and the versions given. One thread, the committer's.

use std::path::Path;
use std::sync::Arc;

use protocol::ids::Version;

use super::files::segment_name;
use super::layout::{self, FIRST_LOT, FooterBuilder, LotBuilder, SegmentHeader};
use super::open::{self, Opened};
use super::reader::io_error;
use super::seam::FileFaults;
use super::segment::{Segment, Shared};
use super::watermark::Watermark;
use super::{LogMark, LogPosition, LogReader, OpenReport, Place};
use crate::domain::refusal::ErrorKind;
use crate::store::{Commit, Record, Result, StoreError};

/// Zeros are written ahead by this much, together with a lot that reaches beyond those of before, so that the fdatasync of
/// the lots that follow has no file length to write: 0.09 instead of 0.14 to 0.18 ms (docs/decisions: zeros ahead).
const ZEROS_AHEAD: usize = 256 << 10;
/// Larger lots gain nothing by it: their own bytes take longer than the file's length does.
const ZEROS_LOT_MAX: usize = 32 << 10;
/// A buffer that grew beyond this is given back once an ordinary lot follows.
const BUFFER_KEPT: usize = 8 << 20;

/// Sizes of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment's file never grows beyond this, footer included, in bytes; a lot that would not fit goes into the next. A
    /// single lot must fit into an empty segment, or its write is refused. Default 256 MiB.
    pub segment_bytes_max: u32,
    /// What makes operations fail, in tests.
    pub(crate) faults: Option<Arc<dyn FileFaults>>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes_max: 256 << 20, faults: None }
    }
}

/// A lot with its versions and places, not yet written. Its bytes stay in the [`Log`] until the next [`Log::seal`].
#[derive(Debug, Clone)]
pub struct SealedLot {
    /// Per commit: the version of its first record; its record i has that plus i.
    pub versions: Vec<Version>,
    /// Per record, flat over all commits: where it lies once the lot is written.
    pub places: Vec<Place>,
    /// Where the lot begins.
    pub position: LogPosition,
    /// Version of its last record; that of the log's last one for an empty lot.
    pub last_version: Version,
    /// Its bytes in the log.
    pub bytes: u64,
    ticket: u64,
}

/// The append side of a log; owned by the committer's thread.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    watermark: Watermark,
    segment_bytes_max: u32,
    /// The segment that is appended to, unless it is closed.
    current: Arc<Segment>,
    /// No lot goes into `current` any more.
    closed: bool,
    /// The last attempt to begin a segment failed: nothing can be written until one succeeds.
    stuck: bool,
    /// The last write or sync of the watermark failed.
    watermark_fails: bool,
    /// Bytes of the current file: its lots, and zeros behind them.
    file_bytes: u64,
    footer: FooterBuilder,
    end: LogMark,
    /// The last version ever sealed, written or not.
    last_given: Version,
    builder: LotBuilder,
    buffer: Vec<u8>,
    /// Which sealed lot `buffer` holds; 0: none.
    ticket: u64,
    tickets: u64,
}

impl Log {
    /// Opens the log in `dir`, creating the directory and the log when there is none. `known` is the view's mark: what lies
    /// behind it is verified in full, what lies before it by headers, footers and digests; `None` verifies everything.
    /// Everything kept is synced when this returns, and the watermark names it.
    ///
    /// # Errors
    /// I/O; a [`super::Finding`] (in `source()`) that stops the start: damage, a gap, a foreign or a newer file, a log that
    /// ends before the watermark or before `known` ([`super::FindingKind`]).
    pub fn open(dir: &Path, options: LogOptions, known: Option<&LogMark>) -> Result<(Log, OpenReport)> {
        let Opened { shared, watermark, footer, file_bytes, closed, report } = open::open(dir, &options, known)?;
        let end = shared.end();
        let Some(current) = shared.segment(end.position.segment) else {
            return Err(StoreError::damaged("open log", "it has no segment"));
        };
        let log = Log {
            shared,
            watermark,
            segment_bytes_max: options.segment_bytes_max,
            current,
            closed,
            stuck: false,
            watermark_fails: false,
            file_bytes,
            footer,
            end,
            last_given: end.version,
            builder: LotBuilder::default(),
            buffer: Vec::new(),
            ticket: 0,
            tickets: 0,
        };
        Ok((log, report))
    }

    /// The log's random id.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// Gives versions and places to a lot and makes its bytes; no I/O. The first record gets
    /// max(last version given + 1, `now_us`), the others follow consecutively; `now_us` is Unix time in microseconds. A
    /// clock beyond [`Version::MAX`] is ignored. Versions of lots that are never written are not given again.
    #[must_use]
    pub fn seal(&mut self, lot: &[Commit], now_us: u64) -> SealedLot {
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
            self.builder = LotBuilder::default();
        }
        self.builder.clear();
        let records: usize = lot.iter().map(|commit| commit.records.len()).sum();
        let next = self.last_given.plus(1);
        let clock = Version::new(now_us);
        let fits =
            |first: Version| first.get().checked_add(records as u64).is_some_and(|end| end <= Version::MAX.get());
        let mut version = if clock > next && fits(clock) { clock } else { next };

        let mut versions = Vec::with_capacity(lot.len());
        let mut places = Vec::with_capacity(records);
        for commit in lot {
            versions.push(version);
            for record in &commit.records {
                let at = self.builder.push(&self.shared.keys, version, record);
                // Relative for now; a lot beyond 4 GiB is refused when it is written.
                places.push(Place { segment: 0, offset: at as u32 });
                version = version.plus(1);
            }
        }
        self.finish_seal(versions, places)
    }

    /// As [`Log::seal`] with versions that were given elsewhere, a commit per record; they need not be consecutive.
    ///
    /// # Errors
    /// A version that does not lie above the one before it, or above [`Version::MAX`]: nothing is sealed.
    pub fn seal_at(&mut self, records: &[(Version, Record)]) -> Result<SealedLot> {
        let mut last = self.last_given;
        for (version, _) in records {
            if *version <= last || *version > Version::MAX {
                let detail = format_args!("version {version} after {last}");
                return Err(StoreError::damaged("seal lot", detail));
            }
            last = *version;
        }
        self.builder.clear();
        let mut places = Vec::with_capacity(records.len());
        for (version, record) in records {
            let at = self.builder.push(&self.shared.keys, *version, record);
            places.push(Place { segment: 0, offset: at as u32 });
        }
        Ok(self.finish_seal(records.iter().map(|(version, _)| *version).collect(), places))
    }

    /// Makes the bytes of what the builder holds. `places` are counted from the first record's first byte.
    fn finish_seal(&mut self, versions: Vec<Version>, mut places: Vec<Place>) -> SealedLot {
        let bytes = if places.is_empty() { 0 } else { self.builder.finish() };
        let position = self.position_for(bytes);
        let records_at = position.offset.wrapping_add(self.builder.before_records() as u32);
        for place in &mut places {
            *place = Place { segment: position.segment, offset: records_at.wrapping_add(place.offset) };
        }
        self.builder.write(&self.shared.keys, position, &self.end.chain, &mut self.buffer);
        if let Some((_, last)) = self.builder.versions() {
            self.last_given = last;
        }
        self.tickets += 1;
        self.ticket = self.tickets;
        SealedLot { versions, places, position, last_version: self.last_given, bytes, ticket: self.ticket }
    }

    /// Where a lot of that many bytes will begin.
    fn position_for(&self, bytes: u64) -> LogPosition {
        let footer = self.footer.bytes_max_with(self.builder.directory().len());
        let fits = u64::from(self.end.position.offset) + bytes + footer <= u64::from(self.segment_bytes_max);
        let is_empty = self.end.position.offset == FIRST_LOT;
        if !self.closed && (fits || is_empty) {
            return self.end.position;
        }
        LogPosition { segment: self.current.header.number.saturating_add(1), offset: FIRST_LOT }
    }

    /// Makes the lot sealed last durable: one write, one fdatasync; then the watermark's next slot is overwritten, without
    /// a sync. Returns the log's end. An empty lot writes nothing.
    ///
    /// # Errors
    /// The lot is not in the log and never appears to a reader of this process. After a failed write or fdatasync its
    /// segment is never appended to again; a new one, whose header says where the old one ends, is begun at once, or by the
    /// next write when that fails too. Also: a lot that does not fit a segment (`TooLarge`), and a lot that was not sealed
    /// last (`Internal`), which change nothing.
    pub fn write(&mut self, sealed: &SealedLot) -> Result<LogMark> {
        if sealed.ticket != self.ticket || self.ticket == 0 {
            return Err(StoreError::damaged("append lot", "it is not the lot that was sealed last"));
        }
        self.ticket = 0;
        if sealed.places.is_empty() {
            return Ok(self.end);
        }
        self.refuse_oversized(sealed)?;
        if sealed.position != self.end.position {
            self.roll()?;
        }
        let chain = layout::chain_after(&self.end.chain, &self.buffer);
        let (from, to) = (u64::from(sealed.position.offset), u64::from(sealed.position.offset) + sealed.bytes);
        let file_bytes = self.pad(to);
        let written = self.current.file.write_at(&self.buffer, from).and_then(|()| self.sync_lot());
        if let Err(source) = written {
            let error = io_error("append lot", &self.current, source);
            self.closed = true;
            if let Err(roll) = self.roll() {
                tracing::debug!(error = %roll, cause = ?roll.source, "no new segment after a failed write");
            }
            return Err(error);
        }
        self.file_bytes = file_bytes.max(self.file_bytes);
        self.appended(sealed, chain, to as u32);
        Ok(self.end)
    }

    fn sync_lot(&self) -> std::io::Result<()> {
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::is(crate::seeded::Bug::SkipFdatasync) {
            return Ok(());
        }
        self.current.file.sync()
    }

    fn refuse_oversized(&self, sealed: &SealedLot) -> Result<()> {
        let whole = u64::from(sealed.position.offset) + sealed.bytes;
        let end = FooterBuilder::default().bytes_max_with(self.builder.directory().len()) + whole;
        let over = sealed.position.offset == FIRST_LOT && end > u64::from(self.segment_bytes_max);
        if over || sealed.last_version > Version::MAX {
            let detail = if over {
                format!("a lot of {} bytes does not fit a segment of {} bytes", sealed.bytes, self.segment_bytes_max)
            } else {
                "versions have come to their end".to_owned()
            };
            return Err(StoreError { operation: "append lot", kind: ErrorKind::TooLarge, detail, source: None });
        }
        Ok(())
    }

    /// Appends zeros to the lot in the buffer when it is small and reaches beyond the file. Returns the file's bytes once
    /// the buffer is written.
    fn pad(&mut self, lot_end: u64) -> u64 {
        if lot_end <= self.file_bytes || self.buffer.len() > ZEROS_LOT_MAX {
            return lot_end;
        }
        let room = u64::from(self.segment_bytes_max).saturating_sub(lot_end);
        let zeros = room.min(ZEROS_AHEAD as u64);
        self.buffer.resize(self.buffer.len() + zeros as usize, 0);
        lot_end + zeros
    }

    /// Shows a lot that is on disk.
    fn appended(&mut self, sealed: &SealedLot, chain: [u8; 16], end: u32) {
        let first = sealed.versions.first().copied().unwrap_or(sealed.last_version);
        self.footer.push(first, sealed.position.offset, self.builder.directory());
        if let Some(table) = self.current.table.write().as_mut() {
            layout::note_in_table(table, first, sealed.position.offset);
        }
        let position = LogPosition { segment: sealed.position.segment, offset: end };
        self.end = LogMark { log_id: self.end.log_id, position, version: sealed.last_version, chain };
        // The end mark first: a scan that sees the segment's new end may ask for the digest there.
        *self.shared.end.write() = self.end;
        self.current.set_end(end);
        // The lot is durable whatever the watermark says; an old one only protects less.
        let written = self.watermark.write(&self.end);
        self.watermark_went(written.as_ref().err());
    }

    /// One line when the watermark begins to fail, one when it ends.
    fn watermark_went(&mut self, error: Option<&std::io::Error>) {
        match (error, self.watermark_fails) {
            (Some(error), false) => {
                tracing::warn!(%error, "the log's watermark cannot be written; lots are not affected")
            }
            (None, true) => tracing::info!("the log's watermark is written again"),
            _ => {}
        }
        self.watermark_fails = error.is_some();
    }

    /// Whether nothing can be written: a write failed and no segment could be begun since.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Tries to begin the segment a stuck log needs; every [`Log::write`] does so, too. Free when it is not stuck.
    ///
    /// # Errors
    /// I/O: still stuck.
    pub fn resume(&mut self) -> Result<()> {
        if self.stuck { self.roll() } else { Ok(()) }
    }

    /// Closes the current segment, with a footer unless a write into it failed, and begins the next.
    fn roll(&mut self) -> Result<()> {
        let after_failure = self.closed;
        let begun = self.begin_next(after_failure);
        self.stuck = begun.is_err();
        begun
    }

    /// `with_room`: zeros are written ahead at once. After a failure the new segment is the question whether the disk takes
    /// data again, and a header alone would be taken by a disk that is full.
    fn begin_next(&mut self, with_room: bool) -> Result<()> {
        if !self.closed {
            // The lots in it are durable; without a footer they are only slower to look up.
            let has_footer = match self.write_footer() {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(error = %error, cause = ?error.source, "a closed segment has no footer");
                    false
                }
            };
            self.closed = true;
            if has_footer {
                *self.current.table.write() = None;
            }
        }
        let header = SegmentHeader {
            log_id: self.end.log_id,
            number: self
                .current
                .header
                .number
                .checked_add(1)
                .ok_or_else(|| StoreError::damaged("begin segment", "segment numbers have come to their end"))?,
            previous_end: self.end.position.offset,
            last_version: self.end.version,
            chain: self.end.chain,
        };
        let name = segment_name(header.number);
        let files = &self.shared.files;
        let mut bytes = header.encode().to_vec();
        if with_room {
            let room = (self.segment_bytes_max as usize).saturating_sub(bytes.len());
            bytes.resize(bytes.len() + room.min(ZEROS_AHEAD), 0);
        }
        let file = files
            .create(&name, &bytes)
            .map_err(|source| StoreError::io("begin segment", files.path(&name).display(), source))?;
        self.end.position = LogPosition { segment: header.number, offset: FIRST_LOT };
        self.current = Arc::new(Segment::new(header, file, FIRST_LOT, Some(Vec::new())));
        self.closed = false;
        self.file_bytes = bytes.len() as u64;
        self.footer = FooterBuilder::default();
        *self.shared.end.write() = self.end;
        self.shared.segments.write().push(Arc::clone(&self.current));
        Ok(())
    }

    fn write_footer(&mut self) -> Result<()> {
        let footer = self.footer.encode(&self.shared.keys, &self.end, self.current.header.last_version);
        let at = u64::from(self.end.position.offset);
        let file = &self.current.file;
        let written = file.truncate(at).and_then(|()| file.write_at(&footer, at)).and_then(|()| file.sync());
        written.map_err(|source| io_error("write footer", &self.current, source))
    }

    /// Where the log ends: everything written.
    #[must_use]
    pub fn end(&self) -> LogMark {
        self.end
    }

    /// The last version ever sealed, written or not; the next one lies above it.
    #[must_use]
    pub fn last_version_given(&self) -> Version {
        self.last_given
    }

    /// Makes the watermark durable: at checkpoints, at drain, after a second without a lot. Free when nothing was written.
    ///
    /// # Errors
    /// I/O. The lots are not in question.
    pub fn sync_watermark(&mut self) -> Result<()> {
        let path = self.shared.files.path(super::files::WATERMARK_NAME);
        let synced = self.watermark.sync();
        self.watermark_went(synced.as_ref().err());
        synced.map_err(|source| StoreError::io("sync watermark", path.display(), source))
    }

    /// Ends it cleanly: gives back the zeros written ahead and makes the watermark durable. Dropping a log without this
    /// loses nothing.
    ///
    /// # Errors
    /// I/O. The lots are not in question.
    pub fn close(mut self) -> Result<()> {
        if !self.closed {
            let trimmed = self.current.file.truncate(u64::from(self.end.position.offset));
            trimmed.map_err(|source| io_error("close log", &self.current, source))?;
        }
        self.sync_watermark()
    }

    /// The read side; cheap to clone, for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }
}
