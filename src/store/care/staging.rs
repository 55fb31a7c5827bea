//! The directory in which a data directory is made before it gets its name.
//!
//! Owns `DIR.<ending>` beside the target: made, locked, filled, and renamed once what is in it was read back, so a server can
//! never start on half of it. What an interrupted try left there is the next try's to use or to take away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{make_dir, refused, sync_dir};
use crate::store::{Result, StoreError};

/// A data directory in the making.
#[derive(Debug)]
pub(super) struct Staging {
    /// Where it is made.
    pub dir: PathBuf,
    target: PathBuf,
    _lock: File,
}

impl Staging {
    /// Begins to make `target`, which must be absent or empty. `operation` names the verb in errors.
    ///
    /// # Errors
    /// The target is not empty; another process makes it; I/O.
    pub(super) fn begin(operation: &'static str, target: &Path, ending: &str) -> Result<Self> {
        must_be_empty(operation, target)?;
        let mut name = target.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(ending);
        let dir = target.with_file_name(name);
        make_dir(&dir)?;
        let lock = lock(operation, &dir)?;
        Ok(Self { dir, target: target.to_owned(), _lock: lock })
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn publish(self) -> Result<()> {
        sync_dir(&self.dir)?;
        let named = fs::rename(&self.dir, &self.target);
        named.map_err(|error| StoreError::io("name data directory", self.target.display(), error))?;
        sync_dir(self.target.parent().unwrap_or(Path::new(".")))
    }
}

fn must_be_empty(operation: &'static str, dir: &Path) -> Result<()> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(operation, format_args!("{} is not empty", dir.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(operation, dir.display(), error)),
    }
}

fn lock(operation: &'static str, dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let io = |error| StoreError::io("lock", path.display(), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(refused(operation, format_args!("{} is in use by another chinwag process", dir.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}
