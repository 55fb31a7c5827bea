//! Opening a view: everything in it is read once, hashed and compared with its sum before anything is answered from it.

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::ids::{ChannelType, Version};

use super::codec::{Malformed, ROW_VERSION, Reader};
use super::db::{Db, Ledger, row_hash, sum_row};
use super::numbers::Numbers;
use super::registers::Registers;
use super::server::ServerState;
use super::{channel, damaged_row, decode_mark, encode_mark, keys, seed_of};
use crate::store::log::seam::FileFaults;
use crate::store::log::{LogMark, LogPosition};
use crate::store::{Result, StoreError};

/// What makes operations fail, in tests.
type Faults = Option<Arc<dyn FileFaults>>;

/// An open view whose rows are what was written, and what the scan took from them.
#[derive(Debug)]
pub struct Verified {
    pub(super) db: Db,
    pub(super) seed: u64,
    pub(super) sum: u128,
    pub(super) mark: LogMark,
    pub(super) server: ServerState,
    pub(super) registers: Registers,
    /// (last change, number) of every channel that changed.
    pub(super) changes: Vec<(u64, u32)>,
    /// Which channels are person channels.
    pub(super) persons: Numbers,
    pub(super) next_channel: u32,
    pub(super) channel_count: u64,
}

impl Verified {
    /// A new, empty view of a log, in a directory that does not exist.
    ///
    /// # Errors
    /// I/O.
    pub fn create(path: &Path, log: LogMark, cache_bytes: u64, faults: Faults) -> Result<Self> {
        let db = Db::open(path, cache_bytes, faults)?;
        let (seed, start) = (seed_of(&log.log_id), start_of(&log));
        let mut ledger = Ledger::new(seed, 0);
        ledger.apply(&db, vec![(keys::MARK.to_vec(), Some(encode_mark(&start)))])?;
        db.sync()?;
        Ok(Self {
            db,
            seed,
            sum: ledger.sum(),
            mark: start,
            server: ServerState::default(),
            registers: Registers::default(),
            changes: Vec::new(),
            persons: Numbers::default(),
            next_channel: 0,
            channel_count: 0,
        })
    }

    /// The log prefix that is completely in it.
    #[must_use]
    pub fn mark(&self) -> LogMark {
        self.mark
    }
}

/// The mark that covers nothing. A new view has it from its first batch on, so that one without a mark is damaged.
fn start_of(log: &LogMark) -> LogMark {
    LogMark { log_id: log.log_id, position: LogPosition::default(), version: Version::ZERO, chain: [0; 16] }
}

/// Opens and verifies the view in `path`. `None`: there is none.
///
/// # Errors
/// Anything that makes it unusable: it cannot be opened, a row is not what its key space says, or the rows do not add up.
pub fn open_verified(path: &Path, cache_bytes: u64, faults: Faults) -> Result<Option<Verified>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open view", path.display(), e)),
        Ok(_) => {}
    }
    let db = Db::open(path, cache_bytes, faults)?;
    let Some(row) = db.get_uncounted(keys::MARK)? else {
        return Err(StoreError::damaged("verify view", "it has no mark"));
    };
    let format = row.first().copied().unwrap_or_default();
    if format != ROW_VERSION {
        // Not damage: another build made it, and the log tells this one all it needs.
        let detail = format!("its rows have format {format}, this build's have format {ROW_VERSION}");
        return Err(StoreError::damaged("open view", detail));
    }
    let mark = decode_mark(&row).map_err(|m| damaged_row(keys::MARK, m))?;
    let seed = seed_of(&mark.log_id);
    let mut found = Verified {
        db,
        seed,
        sum: 0,
        mark,
        server: ServerState::default(),
        registers: Registers::default(),
        changes: Vec::new(),
        persons: Numbers::default(),
        next_channel: 0,
        channel_count: 0,
    };
    scan(&mut found)?;
    Ok(Some(found))
}

fn scan(found: &mut Verified) -> Result<()> {
    let mut written = None;
    let (seed, mut sum) = (found.seed, 0u128);
    let Verified { db, server, registers, changes, persons, next_channel, channel_count, .. } = found;
    db.scan_all(&mut |key, row| {
        if key == keys::SUM {
            written = Some(row.to_vec());
            return Ok(());
        }
        sum = sum.wrapping_add(row_hash(seed, key, row));
        if row.first() != Some(&ROW_VERSION) {
            return Err(damaged_row(key, Malformed));
        }
        match key.first() {
            Some(&keys::HEAD) => {
                let taken = || -> Result<(u64, u8, u32), Malformed> {
                    let (changed, channel_type) = channel::peek_head(row)?;
                    Ok((changed, channel_type, Reader::part(&key[1..]).u32()?))
                };
                let (changed, channel_type, no) = taken().map_err(|m| damaged_row(key, m))?;
                if channel_type == ChannelType::Person.to_wire() {
                    persons.insert(no);
                }
                *channel_count += 1;
                *next_channel = (*next_channel).max(no.saturating_add(1));
                if changed > 0 {
                    changes.push((changed, no));
                }
            }
            Some(&(keys::API_KEY | keys::BREAK | keys::EXPIRY) | b'#') => {
                server.take_row(key, row).map_err(|m| damaged_row(key, m))?;
            }
            Some(&(keys::SYSTEM_USER | keys::ADDRESS)) => {
                registers.take_row(key, row).map_err(|m| damaged_row(key, m))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if written != Some(sum_row(sum)) {
        return Err(StoreError::damaged("verify view", "its rows do not add up: some are missing, old or changed"));
    }
    found.sum = sum;
    Ok(())
}

/// Renames an unusable view to `view.bad-N` beside it and returns that.
///
/// # Errors
/// I/O.
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    let mut number = 1u32;
    loop {
        let aside = path.with_extension(format!("bad-{number}"));
        if !aside.exists() {
            std::fs::rename(path, &aside).map_err(|e| StoreError::io("set view aside", path.display(), e))?;
            return Ok(aside);
        }
        number += 1;
    }
}
