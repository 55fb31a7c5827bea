//! The data directory itself: its lock, its format number, and whether a log must be there.
//!
//! The format file is made after the log: a directory that has it has had a log, so one without is not a new store but a
//! lost one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind as IoErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::domain::refusal::ErrorKind;
use crate::store::log::seam::FileFaults;
use crate::store::log::{Directory, Finding, FindingKind};
use crate::store::{Result, StoreError};

/// Format of the data directory this build writes.
const FORMAT: u32 = 1;
const FORMAT_NAME: &str = "format";

/// A data directory that this process has to itself.
#[derive(Debug)]
pub struct DataDirectory {
    files: Directory,
    /// Whether the format is written: a log has been here.
    has_format: bool,
    /// Held as long as the store is open.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory when it is not there, locks it and reads its format.
    ///
    /// # Errors
    /// `Conflict`: in use, or of a newer build. `Internal`: the format file is damaged. I/O.
    pub fn open(path: &Path, faults: Option<Arc<dyn FileFaults>>) -> Result<Self> {
        let files = Directory::new(path, faults);
        files.create_dir().map_err(|e| StoreError::io("create data directory", path.display(), e))?;
        let _lock = lock(path)?;
        let has_format = has_format(&path.join(FORMAT_NAME))?;
        Ok(Self { files, has_format, _lock })
    }

    /// Makes the directory of the log, and refuses one that has lost its segments.
    ///
    /// # Errors
    /// The finding `AckedLotsGone`; I/O.
    pub fn check_log(&self, log: &Path) -> Result<()> {
        let files = self.files.sibling(log);
        files.create_dir().map_err(|e| StoreError::io("create log directory", log.display(), e))?;
        if !self.has_format {
            return Ok(());
        }
        let listing = files.list().map_err(|e| StoreError::io("open log", log.display(), e))?;
        if !listing.segments.is_empty() {
            return Ok(());
        }
        let detail = "the log is not there, but this data directory has had one: everything acked is gone; the start is \
                      refused until it is brought back (or take the file `format` away to begin anew)";
        Err(Finding::new(FindingKind::AckedLotsGone, log, 0, detail).into())
    }

    /// Writes the format once a log is there.
    ///
    /// # Errors
    /// I/O.
    pub fn settle(&self) -> Result<()> {
        if self.has_format {
            return Ok(());
        }
        let made = self.files.create(FORMAT_NAME, format!("{FORMAT}\n").as_bytes());
        made.map(drop).map_err(|e| StoreError::io("write format", self.files.path(FORMAT_NAME).display(), e))
    }

    /// Makes the names in the directory durable.
    ///
    /// # Errors
    /// I/O.
    pub fn sync(&self) -> Result<()> {
        self.files.sync_dir().map_err(|e| StoreError::io("sync data directory", self.files.dir().display(), e))
    }
}

fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::io("open lock", path.display(), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError {
            operation: "open data directory",
            kind: ErrorKind::Conflict,
            detail: format!("{} is in use by another chinwag process", data_dir.display()),
            source: None,
        }),
        Err(TryLockError::Error(e)) => Err(StoreError::io("lock data directory", path.display(), e)),
    }
}

/// Whether a format this build knows is written. An empty file was being made when the power went.
fn has_format(path: &Path) -> Result<bool> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == IoErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(StoreError::io("read format", path.display(), e)),
    };
    if bytes.is_empty() {
        return Ok(false);
    }
    match std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(1..=FORMAT) => Ok(true),
        Some(number @ 1..) => Err(StoreError {
            operation: "open data directory",
            kind: ErrorKind::Conflict,
            detail: format!(
                "{} has format {number}, this build knows up to {FORMAT}: use a newer build",
                path.display()
            ),
            source: None,
        }),
        _ => Err(StoreError::damaged(
            "read format",
            format_args!(
                "{} at 0: it is no format number (a sound one of this build holds \"{FORMAT}\")",
                path.display()
            ),
        )),
    }
}
