//! The log: append-only segments of checksummed, chained lots. The truth of the store.
//!
//! Owns the files `NNNNNNNNNN.log`, `watermark` and `*.cut` of one directory, and is the only room that knows how they are
//! laid out (`layout`). Knows [`super::Commit`] and [`Record`] as things with bytes; refuses to know what they mean, the view, and
//! the lock and format file of the data directory.
//!
//! Invariants:
//! - **one-sync**: a lot is one write and one fdatasync; lot n + 1 is never written before the fdatasync of lot n returned.
//! - **rising**: versions rise through the whole log, also over failed lots; readers rely on rising, not on consecutive.
//! - **never-again**: after a failed write or fdatasync a segment is never appended to; the next one's header says where
//!   it ends, whatever lies behind that.
//! - **named**: what is not what was written is a [`Finding`] or a hole, never a record; only a torn last lot is cut.
//!
//! Page: `docs/storage.md`. Specification: store.md sections 1, 2 and 5.
//!
//! Threads: [`Log`] belongs to the committer; [`LogReader`] is cheap to clone and may be used from any thread that may
//! block on a disk.

mod append;
pub(crate) mod files;
mod finding;
mod following;
pub mod inspect;
mod layout;
mod open;
mod reader;
#[doc(hidden)]
pub mod seam;
mod segment;
mod watermark;

#[cfg(test)]
mod tests;

use protocol::ids::Version;

use super::{ChannelNo, Record};

pub use append::{Log, LogOptions, SealedLot};
pub(in crate::store) use files::Files as Directory;
pub use finding::{Finding, FindingKind, ReadError, SeqRun};
pub use reader::{LogReader, Scan};

/// Where a record lies: segment number (from 1) and byte offset of the record's first byte in that segment's file.
/// Orders as the log does. The default is no record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Place {
    /// Segment number, from 1.
    pub segment: u32,
    /// Offset in bytes from the start of the segment's file.
    pub offset: u32,
}

/// A boundary between lots: segment number and the offset where a lot ends or begins. The default means "from the very
/// first lot". The end of a closed segment and the start of its successor are the same boundary; the log accepts both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogPosition {
    /// Segment number, from 1; 0 only in the default.
    pub segment: u32,
    /// Offset in bytes from the start of the segment's file.
    pub offset: u32,
}

/// Names a prefix of one log: everything before `position`. What the view's mark and the watermark hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogMark {
    /// Random id of the log, made when it was created.
    pub log_id: [u8; 16],
    /// Where the prefix ends.
    pub position: LogPosition,
    /// Version of the last record before it; zero when there is none.
    pub version: Version,
    /// Digest over all lots before it; zero when there is none.
    pub chain: [u8; 16],
}

/// What opening found and did, for the log line of the start and for whoever asks.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// The log was created by this call.
    pub created: bool,
    /// The torn end that was cut, when there was one.
    pub cut: Option<Cut>,
    /// What is wrong but does not stop the start: holes in the part that was verified, lost footers, a lost watermark.
    pub findings: Vec<Finding>,
    /// Lots verified in full.
    pub lots_verified: u64,
    /// Bytes verified in full.
    pub bytes_verified: u64,
}

/// A torn end: the bytes of a lot whose write never finished, kept beside the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file they were moved to.
    pub file: std::path::PathBuf,
    /// Where the log ends now.
    pub at: LogPosition,
    /// How many bytes were taken away.
    pub bytes: u64,
}

/// One lot as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotView {
    /// Where it begins.
    pub position: LogPosition,
    /// Where it ends: the position of a mark that covers it.
    pub end: LogPosition,
    /// Version of its first record.
    pub first_version: Version,
    /// Version of its last record.
    pub last_version: Version,
    /// Digest over all lots up to and including this one: the chain of a mark that covers it.
    pub chain: [u8; 16],
    /// Its records in order.
    pub records: Vec<LotEntry>,
}

/// One record of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LotEntry {
    /// As written.
    Record {
        /// Its version.
        version: Version,
        /// Where it lies.
        place: Place,
        /// What it says.
        record: Record,
    },
    /// A message whose bytes are damaged. Its seq stays taken; channel, seq and version come from the lot's directory.
    DamagedMessage {
        /// Its version, which is its message_id.
        version: Version,
        /// Where it lies.
        place: Place,
        /// Its channel.
        channel: ChannelNo,
        /// Its seq.
        seq: u64,
    },
}

/// What a lot's directory says about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// Where it lies.
    pub place: Place,
    /// Its kind, a [`super::record::RecordKind`] as stored.
    pub kind: u8,
    /// The channel it belongs to, for the kinds that belong to one.
    pub channel: Option<ChannelNo>,
    /// Its message_seq; 0 when it is no message.
    pub seq: u64,
}
