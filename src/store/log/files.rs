//! Every call the log makes to the file system, in one place, so that a test can make any of them fail.
//!
//! Owns names of files and the order of syncs that makes a new file durable; refuses to know what is in them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is about to be asked of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileOp {
    /// Create or open a file.
    Open,
    /// Read at an offset.
    Read,
    /// Write at an offset.
    Write,
    /// fdatasync of a file, or fsync of the directory.
    Sync,
    /// Rename a file into its place.
    Rename,
    /// Change a file's length.
    Truncate,
}

/// Decides whether an operation fails; asked before each.
pub(crate) trait FileFaults: fmt::Debug + Send + Sync {
    /// # Errors
    /// What the operation shall fail with.
    fn check(&self, op: FileOp, path: &Path) -> io::Result<()>;

    /// Whether syncs that do not fail are left out: for tests of what a file says, which open thousands of logs.
    fn skips_syncs(&self) -> bool {
        false
    }
}

/// Messages are private, so is their file.
const FILE_MODE: u32 = 0o600;

/// The directory of a log.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
    faults: Option<Arc<dyn FileFaults>>,
}

/// An open file of the log.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
    faults: Option<Arc<dyn FileFaults>>,
}

/// What lies in the directory, by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of the segments, ascending.
    pub segments: Vec<u32>,
    /// Whether the watermark is there.
    pub watermark: bool,
    /// Files whose making was interrupted; nothing was ever acked from them.
    pub leftovers: Vec<String>,
}

const LEFTOVER: &str = ".new";

/// File name of a segment.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:010}.log")
}

/// File name of the watermark.
pub(super) const WATERMARK_NAME: &str = "watermark";

impl Files {
    pub(super) fn new(dir: &Path, faults: Option<Arc<dyn FileFaults>>) -> Self {
        Self { dir: dir.to_owned(), faults }
    }

    fn check(&self, op: FileOp, path: &Path) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.check(op, path))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory when it is not there. Its parent is the caller's to sync.
    pub(super) fn create_dir(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    pub(super) fn list(&self) -> io::Result<Listing> {
        self.check(FileOp::Read, &self.dir)?;
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == WATERMARK_NAME {
                listing.watermark = true;
            } else if name.ends_with(LEFTOVER) {
                listing.leftovers.push(name.to_owned());
            } else if let Some(number) = name.strip_suffix(".log").and_then(|stem| stem.parse().ok())
                && segment_name(number) == name
            {
                listing.segments.push(number);
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }

    pub(super) fn open(&self, name: &str) -> io::Result<LogFile> {
        let path = self.path(name);
        self.check(FileOp::Open, &path)?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(LogFile { file, path, faults: self.faults.clone() })
    }

    /// Makes a file that is there with all of `bytes`, durably, or not at all: written and synced under another name,
    /// renamed, directory synced.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<LogFile> {
        let path = self.path(name);
        let made_at = self.path(&format!("{name}{LEFTOVER}"));
        self.check(FileOp::Open, &path)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(&made_at)?;
        let made = LogFile { file, path: path.clone(), faults: self.faults.clone() };
        made.write_at(bytes, 0)?;
        made.sync()?;
        self.check(FileOp::Rename, &path)?;
        fs::rename(&made_at, &path)?;
        if let Err(error) = self.sync_dir() {
            // The name may or may not survive a power cut. Nothing may be written to such a file, so take it away; the next
            // try makes the name anew and syncs the directory again.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(made)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    pub(super) fn sync_dir(&self) -> io::Result<()> {
        self.check(FileOp::Sync, &self.dir)?;
        if self.faults.as_ref().is_some_and(|faults| faults.skips_syncs()) {
            return Ok(());
        }
        File::open(&self.dir)?.sync_all()
    }
}

impl LogFile {
    fn check(&self, op: FileOp) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.check(op, &self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills as much of `buffer` as the file has from `at`, and says how much.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.check(FileOp::Read)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    pub(super) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.check(FileOp::Write)?;
        self.file.write_all_at(bytes, at)
    }

    /// fdatasync: the bytes and the length that finds them.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.check(FileOp::Sync)?;
        if self.faults.as_ref().is_some_and(|faults| faults.skips_syncs()) {
            return Ok(());
        }
        self.file.sync_data()
    }

    pub(super) fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.check(FileOp::Truncate)?;
        self.file.set_len(bytes)
    }
}
