//! The read side of the log.

use protocol::ids::Version;

use super::{Finding, Located, LogPosition, LotView, Place, ReadError};
use crate::store::{ChannelNo, MessageRecord, Record, Result};

/// Reads a log; cheap to clone, for any thread that may block.
#[derive(Debug, Clone)]
pub struct LogReader;

/// Lots in order.
#[derive(Debug)]
pub struct Scan;

impl Iterator for Scan {
    type Item = Result<LotView, Finding>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl LogReader {
    fn absent(&self, place: Place) -> Finding {
        Finding::new(super::FindingKind::Message, "", u64::from(place.offset), "not in the log")
    }
    /// One message.
    pub fn read_message(
        &self,
        place: Place,
        _channel: ChannelNo,
        _seq: u64,
    ) -> Result<(Version, MessageRecord), ReadError> {
        Err(ReadError::Damaged(self.absent(place)))
    }
    /// Many messages of a channel; neighbours are joined into one read.
    pub fn read_messages(
        &self,
        channel: ChannelNo,
        wanted: &[(u64, Place)],
    ) -> Vec<Result<(Version, MessageRecord), ReadError>> {
        wanted.iter().map(|&(seq, place)| self.read_message(place, channel, seq)).collect()
    }
    /// Any record.
    pub fn read_record(&self, place: Place) -> Result<(Version, Record), ReadError> {
        Err(ReadError::Damaged(self.absent(place)))
    }
    /// Lots from a boundary on.
    #[must_use]
    pub fn scan(&self, _from: LogPosition) -> Scan {
        Scan
    }
    /// Where the record of a version lies.
    pub fn place_of(&self, version: Version) -> Result<Option<Place>> {
        Ok(self.locate(version)?.map(|l| l.place))
    }
    /// Where the record of a version lies, and what its lot's directory says about it.
    pub fn locate(&self, _version: Version) -> Result<Option<Located>> {
        Ok(None)
    }
    /// How many reads of messages were made.
    #[must_use]
    pub fn reads(&self) -> u64 {
        0
    }
    /// Bytes of the log: headers and lots.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        0
    }
}
