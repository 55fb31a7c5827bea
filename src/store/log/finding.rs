//! What can be wrong with a log, named: file, offset, lot, and whose records when that can be told.

use std::fmt;
use std::path::PathBuf;

use protocol::ids::Version;

use crate::domain::refusal::ErrorKind;
use crate::store::{ChannelNo, StoreError};

/// Kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// The disk did not answer.
    Io,
    /// Written by a newer version of the server.
    NewerFormat,
    /// A segment's header is not what was written.
    SegmentHeader,
    /// A segment between others is not there.
    SegmentMissing,
    /// A segment, mark or watermark belongs to another log.
    ForeignLog,
    /// A segment does not continue the one before it.
    SegmentChain,
    /// A lot's header or directory is not what was written.
    Lot,
    /// A record that is no message is not what was written.
    Record,
    /// A message is not what was written: its seq is a hole.
    Message,
    /// Lots do not form one chain.
    Chain,
    /// A closed segment's footer is missing or not what was written. Harmless: it can be rebuilt from the lots.
    Footer,
    /// The watermark file is missing or holds no slot. Harmless: it is written again.
    Watermark,
    /// A mark names a prefix this log does not have, inside its bounds.
    MarkMismatch,
    /// The log ends before a mark: acked lots are gone.
    AckedLotsGone,
}

/// Consecutive messages of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRun {
    /// The channel.
    pub channel: ChannelNo,
    /// First seq.
    pub first_seq: u64,
    /// How many.
    pub count: u64,
}

/// Something in the log's files is not what was written. Read as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Kind.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// Byte offset in it.
    pub offset: u64,
    /// What is wrong with it.
    pub detail: String,
    /// First and last version of the lot it is in, when its header tells.
    pub versions: Option<(Version, Version)>,
    /// Messages it affects, as far as a directory tells.
    pub messages: Vec<SeqRun>,
}

impl Finding {
    pub(in crate::store) fn new(
        kind: FindingKind,
        file: impl Into<PathBuf>,
        offset: u64,
        detail: impl fmt::Display,
    ) -> Self {
        Self { kind, file: file.into(), offset, detail: detail.to_string(), versions: None, messages: Vec::new() }
    }

    /// Whether a start is refused because of it, until the loss is accepted.
    #[must_use]
    pub fn stops_start(&self) -> bool {
        !matches!(self.kind, FindingKind::Message | FindingKind::Footer | FindingKind::Watermark)
    }

    pub(super) fn in_lot(mut self, first: Version, last: Version) -> Self {
        self.versions = Some((first, last));
        self
    }

    pub(super) fn of(mut self, messages: Vec<SeqRun>) -> Self {
        self.messages = messages;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.file.display(), self.offset, self.detail)?;
        if let Some((first, last)) = self.versions {
            write!(f, "; lot of versions {first} to {last}")?;
        }
        // A damaged directory may stand for thousands of runs; a line names the first ones and counts the rest.
        for (i, run) in self.messages.iter().take(8).enumerate() {
            let lead = if i == 0 { "; messages:" } else { "," };
            let last = run.first_seq.saturating_add(run.count.saturating_sub(1));
            write!(f, "{lead} channel number {} seq {}", run.channel.0, run.first_seq)?;
            if last > run.first_seq {
                write!(f, " to {last}")?;
            }
        }
        if self.messages.len() > 8 {
            write!(f, " and {} more runs", self.messages.len() - 8)?;
        }
        Ok(())
    }
}

impl std::error::Error for Finding {}

impl From<Finding> for StoreError {
    fn from(finding: Finding) -> Self {
        let kind = match finding.kind {
            FindingKind::Io => ErrorKind::Unavailable,
            FindingKind::NewerFormat => ErrorKind::Conflict,
            FindingKind::SegmentHeader
            | FindingKind::SegmentMissing
            | FindingKind::ForeignLog
            | FindingKind::SegmentChain
            | FindingKind::Lot
            | FindingKind::Record
            | FindingKind::Message
            | FindingKind::Chain
            | FindingKind::Footer
            | FindingKind::Watermark
            | FindingKind::MarkMismatch
            | FindingKind::AckedLotsGone => ErrorKind::Internal,
        };
        StoreError { operation: "read log", kind, detail: finding.to_string(), source: Some(Box::new(finding)) }
    }
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes at the place are not the wanted message. Its seq is a hole.
    #[error("{0}")]
    Damaged(Finding),
    /// The disk did not answer; another try may.
    #[error("read message from {file}")]
    Io {
        /// The segment's file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(finding) => finding.into(),
            ReadError::Io { file, source } => StoreError::io("read message", file.display(), source),
        }
    }
}
