//! Contents of files, beside the log: one file per content, named by its BLAKE3 hash.
//!
//! Owns a directory: `ab/abcd…` (contents, by the first byte of the hash), `uploads/` (what is being written). Knows nothing of
//! who may read what, and no records. Threads: every verb does I/O and may be called by any number of threads.
//!
//! Invariants: a content has its name only when all of it is on disk (written and synced under another name, renamed,
//! directory synced); a writer that is dropped leaves nothing. A content whose record was never committed is found at the
//! next start by the marker that lies beside it until then ([`Blobs::open`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::domain::file::ContentHash;

/// Contents are their readers' own: nobody else on the machine opens them.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Ending of a content being written.
const PART: &str = ".part";
/// Ending of the marker of a content whose record may not be committed.
const MARKER: &str = ".pending";

/// The directory of contents. Nothing is made before it is used.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

fn hex(hash: &ContentHash) -> String {
    blake3::Hash::from(*hash).to_hex().to_string()
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Blobs {
    /// The directory of this path. No I/O.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn uploads(&self) -> PathBuf {
        self.dir.join("uploads")
    }

    fn marker(&self, hash: &ContentHash) -> PathBuf {
        self.uploads().join(format!("{}{MARKER}", hex(hash)))
    }

    fn home(&self, hash: &ContentHash) -> PathBuf {
        self.dir.join(&hex(hash)[..2])
    }

    /// Where a content lies. No I/O.
    #[must_use]
    pub fn path(&self, hash: &ContentHash) -> PathBuf {
        self.home(hash).join(hex(hash))
    }

    /// Removes what writers of an earlier process left, and names the contents whose record may never have been committed:
    /// the caller keeps those that have one ([`Blobs::settle`]) and removes the others. Call it before anything is written.
    ///
    /// # Errors
    /// The directory cannot be read or changed.
    pub fn open(&self) -> io::Result<Vec<ContentHash>> {
        let mut unsettled = Vec::new();
        let entries = match fs::read_dir(self.uploads()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(unsettled),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(PART) {
                fs::remove_file(entry.path())?;
            } else if let Some(hash) = name.strip_suffix(MARKER).and_then(|stem| blake3::Hash::from_hex(stem).ok()) {
                unsettled.push(*hash.as_bytes());
            }
        }
        Ok(unsettled)
    }

    /// Begins a content.
    ///
    /// # Errors
    /// The disk.
    pub fn begin(&self) -> io::Result<BlobWriter> {
        make_dir(&self.uploads())?;
        let path = self.uploads().join(format!("{}{PART}", uuid::Uuid::new_v4().simple()));
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        Ok(BlobWriter { blobs: self.clone(), part: Part(path), file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    /// Notes that a content has its record on disk, or is gone.
    ///
    /// # Errors
    /// The disk. A marker that stays costs a look at the next start, nothing else.
    pub fn settle(&self, hash: &ContentHash) -> io::Result<()> {
        remove(&self.marker(hash))
    }

    /// Removes a content; one that is not there is fine.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, hash: &ContentHash) -> io::Result<()> {
        remove(&self.path(hash))?;
        match sync_dir(&self.home(hash)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.settle(hash),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name of a content being written; taken away when it is dropped.
#[derive(Debug)]
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed already, or removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// A content being written.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    part: Part,
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl BlobWriter {
    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk; the writer is of no use then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Gives the content its name, durably. One that was there is replaced by the same bytes, which also mends a damaged
    /// one. The caller commits its record, then calls [`Blobs::settle`].
    ///
    /// # Errors
    /// The disk; there is no such content then, or a marker names it at the next start.
    pub fn finish(self) -> io::Result<ContentHash> {
        let Self { blobs, part, file, hasher, .. } = self;
        let hash = *hasher.finalize().as_bytes();
        file.sync_all()?;
        // The marker must be there before the name is, else a crash between them leaves a content nobody knows of.
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(blobs.marker(&hash))?;
        sync_dir(&blobs.uploads())?;
        let home = blobs.home(&hash);
        if !home.is_dir() {
            make_dir(&home)?;
            sync_dir(&blobs.dir)?;
        }
        fs::rename(&part.0, blobs.path(&hash))?;
        sync_dir(&home)?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_below(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("entry").path();
            if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
        }
        found
    }

    fn stored(blobs: &Blobs, content: &[u8]) -> ContentHash {
        let mut writer = blobs.begin().expect("begins");
        for part in content.chunks(3) {
            writer.write(part).expect("writes");
        }
        assert_eq!(writer.bytes(), content.len() as u64);
        writer.finish().expect("finishes")
    }

    #[test]
    fn a_content_is_there_once_under_its_hash() {
        let dir = tempfile::tempdir().expect("directory");
        let blobs = Blobs::new(dir.path().join("files"));
        assert!(blobs.open().expect("nothing yet").is_empty());
        let hash = stored(&blobs, b"hello, world");
        assert_eq!(hash, *blake3::hash(b"hello, world").as_bytes());
        assert_eq!(stored(&blobs, b"hello, world"), hash);
        blobs.settle(&hash).expect("settled");
        assert_eq!(files_below(dir.path()), [blobs.path(&hash)]);
        assert_eq!(fs::read(blobs.path(&hash)).expect("reads"), b"hello, world");
        blobs.remove(&hash).expect("removed");
        blobs.remove(&hash).expect("is gone already");
        assert!(files_below(dir.path()).is_empty());
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let blobs = Blobs::new(dir.path());
        let mut writer = blobs.begin().expect("begins");
        writer.write(b"half").expect("writes");
        assert_eq!(files_below(dir.path()).len(), 1);
        drop(writer);
        assert!(files_below(dir.path()).is_empty());
    }

    #[test]
    fn what_a_crash_left_is_found() {
        let dir = tempfile::tempdir().expect("directory");
        let blobs = Blobs::new(dir.path());
        let settled = stored(&blobs, b"with a record");
        blobs.settle(&settled).expect("settled");
        let unsettled = stored(&blobs, b"without");
        fs::write(dir.path().join("uploads/0123.part"), b"torn").expect("written");
        assert_eq!(blobs.open().expect("opens"), [unsettled]);
        assert!(!dir.path().join("uploads/0123.part").exists());
        blobs.remove(&unsettled).expect("removed");
        assert!(blobs.open().expect("opens").is_empty());
        assert!(blobs.path(&settled).exists());
    }

    #[test]
    fn a_damaged_content_is_mended_by_the_next_upload_of_it() {
        let dir = tempfile::tempdir().expect("directory");
        let blobs = Blobs::new(dir.path());
        let hash = stored(&blobs, b"sound");
        fs::write(blobs.path(&hash), b"sour").expect("damaged");
        assert_eq!(stored(&blobs, b"sound"), hash);
        assert_eq!(fs::read(blobs.path(&hash)).expect("reads"), b"sound");
    }
}
