//! Every call the log makes to the file system, in one place, so that a test can make any of them fail.
//!
//! Owns names of files and the order of syncs that makes a new file durable; refuses to know what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::seam::{FileChange, FileFaults, FileOp};

/// Messages are private, so is their file.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// A directory of the store: the log's, or the data directory itself.
#[derive(Debug, Clone)]
pub(in crate::store) struct Files {
    dir: PathBuf,
    faults: Option<Arc<dyn FileFaults>>,
    /// Nothing is opened for writing.
    read_only: bool,
}

/// An open file of the log.
#[derive(Debug)]
pub(in crate::store) struct LogFile {
    file: File,
    path: PathBuf,
    /// Who is asked and told, and the inode that names the file to it.
    faults: Option<(Arc<dyn FileFaults>, u64)>,
}

/// What lies in the directory, by name.
#[derive(Debug, Default)]
pub(in crate::store) struct Listing {
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
    pub(in crate::store) fn new(dir: &Path, faults: Option<Arc<dyn FileFaults>>) -> Self {
        Self { dir: dir.to_owned(), faults, read_only: false }
    }

    /// The directory for who only looks.
    pub(super) fn read_only(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), faults: None, read_only: true }
    }

    fn check(&self, op: FileOp, path: &Path) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.check(op, path))
    }

    fn note(&self, change: FileChange<'_>) {
        if let Some(faults) = &self.faults {
            faults.note(change);
        }
    }

    fn opened(&self, file: File, path: PathBuf) -> io::Result<LogFile> {
        let faults = match &self.faults {
            Some(faults) => Some((Arc::clone(faults), file.metadata()?.ino())),
            None => None,
        };
        Ok(LogFile { file, path, faults })
    }

    /// Another directory, with the same faults.
    pub(in crate::store) fn sibling(&self, dir: &Path) -> Self {
        Self::new(dir, self.faults.clone())
    }

    pub(in crate::store) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(in crate::store) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory when it is not there; durably, unless it is the data directory's parent that is new.
    pub(in crate::store) fn create_dir(&self) -> io::Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        self.check(FileOp::Open, &self.dir)?;
        // It holds everybody's messages and hashes of credentials.
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(&self.dir)?;
        self.note(FileChange::DirMade { path: &self.dir });
        let synced = match self.dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sibling(Path::new(".")).sync_dir(),
            Some(parent) => self.sibling(parent).sync_dir(),
            None => Ok(()),
        };
        match synced {
            // Who may not read the parent cannot sync it, and has done what can be done.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        }
    }

    pub(in crate::store) fn list(&self) -> io::Result<Listing> {
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
        let file = OpenOptions::new().read(true).write(!self.read_only).open(&path)?;
        self.opened(file, path)
    }

    /// Makes a file that is there with all of `bytes`, durably, or not at all: written and synced under another name,
    /// renamed, directory synced.
    pub(in crate::store) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<LogFile> {
        let made_at = self.path(&format!("{name}{LEFTOVER}"));
        let made = self.create_at(name, &made_at, bytes);
        if made.is_err() && fs::remove_file(&made_at).is_ok() {
            // On a full disk it must not keep what little there is.
            self.note(FileChange::Removed { path: &made_at });
        }
        made
    }

    fn create_at(&self, name: &str, made_at: &Path, bytes: &[u8]) -> io::Result<LogFile> {
        let path = self.path(name);
        self.check(FileOp::Open, &path)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(made_at)?;
        let made = self.opened(file, path.clone())?;
        if let Some((faults, inode)) = &made.faults {
            faults.note(FileChange::Made { path: made_at, inode: *inode });
        }
        made.write_at(bytes, 0)?;
        made.sync()?;
        self.check(FileOp::Rename, &path)?;
        fs::rename(made_at, &path)?;
        self.note(FileChange::Renamed { from: made_at, to: &path });
        if let Err(error) = self.sync_dir() {
            // The name may or may not survive a power cut. Nothing may be written to such a file, so take it away; the next
            // try makes the name anew and syncs the directory again.
            let _ = self.remove(name);
            return Err(error);
        }
        Ok(made)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        fs::remove_file(&path)?;
        self.note(FileChange::Removed { path: &path });
        Ok(())
    }

    pub(in crate::store) fn sync_dir(&self) -> io::Result<()> {
        self.check(FileOp::Sync, &self.dir)?;
        if self.faults.as_ref().is_none_or(|faults| !faults.skips_syncs()) {
            File::open(&self.dir)?.sync_all()?;
        }
        self.note(FileChange::DirSynced { path: &self.dir });
        Ok(())
    }
}

impl LogFile {
    fn check(&self, op: FileOp) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |(faults, _)| faults.check(op, &self.path))
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
        if let Some((faults, inode)) = &self.faults {
            faults.check_write(&self.path, bytes.len())?;
            faults.note(FileChange::Written { inode: *inode, at, bytes });
        }
        self.file.write_all_at(bytes, at)
    }

    /// fdatasync: the bytes and the length that finds them.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.check(FileOp::Sync)?;
        if self.faults.as_ref().is_none_or(|(faults, _)| !faults.skips_syncs()) {
            self.file.sync_data()?;
        }
        if let Some((faults, inode)) = &self.faults {
            faults.note(FileChange::Synced { inode: *inode });
        }
        Ok(())
    }

    pub(super) fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.check(FileOp::Truncate)?;
        self.file.set_len(bytes)?;
        if let Some((faults, inode)) = &self.faults {
            faults.note(FileChange::Truncated { inode: *inode, bytes });
        }
        Ok(())
    }
}
