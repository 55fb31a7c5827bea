//! What the search index reads the durable store through.

use protocol::ids::Version;

use super::Inner;
use crate::domain::message::Message;
use crate::store::log::{LogMark, LotEntry};
use crate::store::search::Source;
use crate::store::{ChannelNo, Record, Result, SeqRange, StoreError};

impl Source for Inner {
    fn head_seq(&self, channel: ChannelNo) -> Result<u64> {
        Ok(self.view().head_seq(channel)?.unwrap_or(0))
    }

    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        self.view().messages(channel, range)
    }

    fn mark(&self) -> LogMark {
        *self.applied.lock()
    }

    fn changed_after(&self, since: Version) -> Result<Vec<ChannelNo>> {
        // Without a largest number nothing is too many.
        Ok(self.view().recently_changed(since, usize::MAX).unwrap_or_default())
    }

    fn edits_after(&self, mark: &LogMark, until: Version, tell: &mut dyn FnMut(ChannelNo, u64, Version)) -> Result<()> {
        let mut reached = mark.version;
        for lot in self.reader.scan_behind(mark) {
            if reached >= until {
                break;
            }
            let lot = lot?;
            reached = lot.last_version;
            for entry in &lot.records {
                if let LotEntry::Record { version, record: Record::MessageEdited { channel, seq, .. }, .. } = entry {
                    tell(*channel, *seq, *version);
                }
            }
        }
        if reached < until {
            return Err(StoreError::damaged("read edits from the log", "the mark lies behind the log's end"));
        }
        Ok(())
    }
}
