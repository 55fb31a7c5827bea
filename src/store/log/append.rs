//! The append side of the log.

use std::path::Path;

use protocol::ids::Version;

use super::{LogMark, LogReader, OpenReport, Place};
use crate::store::{Commit, Result, StoreError};

/// Sizes of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// A segment's file never grows beyond this; a lot that would not fit goes into the next. Default 256 MiB.
    pub segment_bytes_max: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes_max: 256 << 20 }
    }
}

/// A lot with its versions and places, not yet written. Its bytes stay in the [`Log`] until the next [`Log::seal`].
#[derive(Debug, Clone, Default)]
pub struct SealedLot {
    /// Per commit: the version of its first record; its record i has that plus i.
    pub versions: Vec<Version>,
    /// Per record, flat over all commits: where it will lie.
    pub places: Vec<Place>,
}

/// The append side of a log; owned by the committer's thread.
#[derive(Debug)]
pub struct Log;

fn unfinished<T>() -> Result<T> {
    Err(StoreError::damaged("open log", "this build has no log yet"))
}

impl Log {
    /// Opens or creates the log in `dir`.
    pub fn open(_dir: &Path, _options: LogOptions, _known: Option<&LogMark>) -> Result<(Log, OpenReport)> {
        unfinished()
    }
    /// The log's random id.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        [0; 16]
    }
    /// Gives versions and places to a lot.
    pub fn seal(&mut self, _lot: &[Commit], _now_us: u64) -> SealedLot {
        SealedLot::default()
    }
    /// Writes a sealed lot: one write, one fdatasync.
    pub fn write(&mut self, _sealed: &SealedLot) -> Result<LogMark> {
        unfinished()
    }
    /// The end of what is written.
    #[must_use]
    pub fn end(&self) -> LogMark {
        LogMark { log_id: [0; 16], position: Default::default(), version: Version::ZERO, chain: [0; 16] }
    }
    /// Makes the watermark durable.
    pub fn sync_watermark(&mut self) -> Result<()> {
        unfinished()
    }
    /// Ends it cleanly.
    pub fn close(self) -> Result<()> {
        unfinished()
    }
    /// The read side.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader
    }
}
