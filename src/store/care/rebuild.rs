//! Making the view again from the log.
//!
//! The old view is renamed aside, never deleted. A rebuild that was interrupted leaves a view whose mark covers nothing, so
//! the next one, or the next start, goes through the log from its beginning.

use std::path::{Path, PathBuf};

use super::check::{CheckReport, check_made};
use super::{Progress, Tell, hold_to_write, read_format};
use crate::store::log::{Log, LogOptions, LotEntry};
use crate::store::view::{self, Verified, View};
use crate::store::{Result, StoreError};

/// Memory while the view is made: owners without changes, and sled's pages.
const CACHE: u64 = 128 << 20;
/// Changed rows go into sled after this much log.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// What a rebuild did.
#[derive(Debug, Clone)]
pub struct RebuildReport {
    /// Where the old view lies now, when there was one.
    pub set_aside: Option<PathBuf>,
    /// Records applied.
    pub records: u64,
    /// The new view compared with the log.
    pub check: CheckReport,
}

/// Sets the view of a data directory aside, makes it again from the log and compares it.
///
/// # Errors
/// A server has the directory, the log is damaged, the disk. The log is not changed by any of it but for a torn end, which
/// every start cuts.
pub fn rebuild(data_dir: &Path, tell: Tell<'_>) -> Result<RebuildReport> {
    read_format(data_dir)?;
    let _lock = hold_to_write(data_dir)?;
    let dir = view::directory(data_dir);
    // Whether the log can be read is asked before anything is moved.
    let (log, _) = Log::open(&data_dir.join("log"), LogOptions::default(), None)?;
    let set_aside = if dir.exists() { Some(view::set_aside(&dir)?) } else { None };
    let records = make_view(data_dir, log, tell)?;
    let check = check_made(data_dir, tell)?;
    Ok(RebuildReport { set_aside, records, check })
}

/// Makes the view of a data directory that has none, and closes the log. Returns the records applied.
pub(super) fn make_view(data_dir: &Path, log: Log, tell: Tell<'_>) -> Result<u64> {
    let (end, reader) = (log.end(), log.reader());
    let verified = Verified::create(&view::directory(data_dir), end, CACHE, None)?;
    let from = verified.mark();
    let view = View::new(verified, reader.clone(), CACHE);
    let total = reader.bytes();
    let (mut records, mut bytes, mut written) = (0, 0, 0);
    view.set_replaying(true);
    for lot in reader.scan(from.position) {
        let lot = lot?;
        for entry in &lot.records {
            match entry {
                LotEntry::Record { version, place, record } => view.apply(*version, *place, record)?,
                LotEntry::DamagedMessage { version, place, channel, seq } => {
                    view.apply_hole(*version, *place, *channel, *seq)?;
                }
            }
        }
        records += lot.records.len() as u64;
        bytes += u64::from(lot.end.offset.saturating_sub(lot.position.offset));
        if bytes - written > CHECKPOINT_BYTES {
            view.checkpoint(None)?;
            written = bytes;
        }
        tell(Progress { phase: "view", done: bytes, total, counted: false });
    }
    view.set_replaying(false);
    view.checkpoint(Some(end))?;
    drop(view);
    log.close().map_err(|error| StoreError { operation: "close log", ..error })?;
    Ok(records)
}
