//! Following the log: which messages it holds behind a version, told by the directories of its lots.
//!
//! Owns the walk. Reads no records, so a damaged message is followed like any other; whoever reads it finds the hole.

use std::sync::Arc;

use protocol::ids::Version;

use super::layout::FIRST_LOT;
use super::reader::{LOOK_UP_AHEAD, LogReader, start_of};
use super::segment::{self, Segment, Window};
use crate::store::record::RecordKind;
use crate::store::{Logged, LoggedMessage, Result};

/// Lots whose directories one call reads behind the version asked for. Without a bound, a log full of other things than
/// messages would keep a thread for as long as it is.
const LOTS_MAX: usize = 4_096;

impl LogReader {
    /// Messages with a version in (`after`, `until`], oldest first, at most `max`. `until` must be on disk already. One
    /// footer's table and 64 KiB of lots to find the place, then the directories of at most `LOTS_MAX` lots.
    ///
    /// # Errors
    /// I/O, or a damaged head or directory of a lot in that part of the log.
    pub fn messages_after(&self, after: Version, until: Version, max: usize) -> Result<Logged> {
        let mut logged = Logged { reached: after, ..Logged::default() };
        if after >= until {
            return Ok(logged);
        }
        self.count_read();
        let wanted = after.plus(1);
        let segments: Vec<Arc<Segment>> = {
            let segments = self.shared.segments.read();
            let begin = segments.partition_point(|segment| segment.header.last_version < wanted).saturating_sub(1);
            segments[begin..].to_vec()
        };
        let mut lots = 0;
        for (i, segment) in segments.into_iter().enumerate() {
            let end = segment.end();
            let mut at = if i == 0 { start_of(&self.table_of(&segment, end)?, wanted) } else { FIRST_LOT };
            let mut window = Window::new(segment, LOOK_UP_AHEAD);
            while at < end {
                let head = segment::read_head(&mut window, &self.shared.keys, at, u64::from(end))?;
                at = head.end;
                if head.header.last_version <= after {
                    continue;
                }
                if head.header.first_version > until {
                    return Ok(Logged { reached: until, ..logged });
                }
                if lots == LOTS_MAX {
                    return Ok(Logged { more: true, ..logged });
                }
                lots += 1;
                for entry in head.entries {
                    if entry.version <= after || entry.version > until {
                        continue;
                    }
                    if entry.kind == RecordKind::Message.to_stored()
                        && let Some(channel) = entry.channel
                    {
                        if logged.messages.len() == max {
                            return Ok(Logged { more: true, ..logged });
                        }
                        let (version, seq, bytes) = (entry.version, entry.seq, entry.bytes);
                        logged.messages.push(LoggedMessage { version, channel, seq, bytes });
                    }
                    logged.reached = entry.version;
                }
            }
        }
        Ok(Logged { reached: until, ..logged })
    }
}
