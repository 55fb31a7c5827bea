//! The seam under the store's file calls: what a test needs to make them fail, and to know what a power cut would leave.
//!
//! Owns nothing and does nothing by itself. A server runs without one.

use std::fmt;
use std::io;
use std::path::Path;

/// What is about to be asked of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOp {
    /// Create or open a file.
    Open,
    /// Read at an offset, or list a directory.
    Read,
    /// Write at an offset.
    Write,
    /// fdatasync of a file, or fsync of a directory.
    Sync,
    /// Rename a file into its place.
    Rename,
    /// Change a file's length.
    Truncate,
}

/// What has been asked of the file system and was done, or, for a write, is about to be done: a power cut in the middle of
/// it leaves any part. Files are named by inode, since their names change.
#[derive(Debug, Clone, Copy)]
pub enum FileChange<'a> {
    /// A directory is there.
    DirMade {
        /// Its path.
        path: &'a Path,
    },
    /// A new, empty file is there.
    Made {
        /// Its path.
        path: &'a Path,
        /// Its inode.
        inode: u64,
    },
    /// Bytes are written.
    Written {
        /// The file.
        inode: u64,
        /// Offset.
        at: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The length is this now.
    Truncated {
        /// The file.
        inode: u64,
        /// The length in bytes.
        bytes: u64,
    },
    /// Everything in the file is durable.
    Synced {
        /// The file.
        inode: u64,
    },
    /// A name has moved, replacing what had the new one.
    Renamed {
        /// The old path.
        from: &'a Path,
        /// The new path.
        to: &'a Path,
    },
    /// A name is gone.
    Removed {
        /// The path.
        path: &'a Path,
    },
    /// The names in a directory are durable.
    DirSynced {
        /// Its path.
        path: &'a Path,
    },
}

/// Decides whether an operation of the store fails, and is told what was done. Paths below the log's directory and the data
/// directory are asked about one by one; the view's database is asked about as a whole, by its directory.
pub trait FileFaults: fmt::Debug + Send + Sync {
    /// Asked before each operation.
    ///
    /// # Errors
    /// What the operation shall fail with.
    fn check(&self, op: FileOp, path: &Path) -> io::Result<()>;

    /// Asked before each write of the log, with how many bytes.
    ///
    /// # Errors
    /// As [`FileFaults::check`].
    fn check_write(&self, path: &Path, _bytes: usize) -> io::Result<()> {
        self.check(FileOp::Write, path)
    }

    /// Told of each change. The view's database is not told of.
    fn note(&self, _change: FileChange<'_>) {}

    /// Whether syncs that do not fail are left out: for tests that keep account of them, or open thousands of logs.
    fn skips_syncs(&self) -> bool {
        false
    }

    /// What the clock says, Unix microseconds; `None`: the machine's own.
    fn clock_us(&self) -> Option<u64> {
        None
    }
}
