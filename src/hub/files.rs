//! Files that messages carry: uploads, downloads, and the collection of what nobody carries.
//!
//! Content lies outside the log, addressed by its hash ([`crate::store::blobs`]); what is known of a file is a record.
//! Invariants: a file's record is committed after its content is synced; only who uploaded it, members of a channel with a
//! live message that carries it, and back ends can read it.

use std::path::PathBuf;

use protocol::ids::{FileId, Uid};

use super::{Hub, Reader};
use crate::domain::file::FileInfo;
use crate::domain::refusal::Refusal;

/// What is told of an upload before its content comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Who uploads; `None`: a back end.
    pub uploader: Option<Uid>,
    /// Its name; directories are taken off.
    pub name: String,
    /// Its media type; checked against `files.types`.
    pub mime: String,
}

/// An upload under way. Dropped without [`Hub::finish_upload`], it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: NewFile,
}

impl Hub {
    /// Begins an upload.
    ///
    /// # Errors
    /// `Invalid` naming name or mime, `FeatureOff` (`files.on`), the disk.
    pub async fn begin_upload(&self, file: NewFile) -> Result<Upload, Refusal> {
        let _ = file;
        Err(Refusal::Internal)
    }

    /// Appends a part of the content.
    ///
    /// # Errors
    /// `TooLarge` (`files.bytes_max`), the disk.
    pub async fn write_upload(&self, upload: &mut Upload, part: bytes::Bytes) -> Result<(), Refusal> {
        let _ = (&upload.file, part);
        Err(Refusal::Internal)
    }

    /// Syncs the content, then commits the file.
    ///
    /// # Errors
    /// `Invalid` (no content), the disk, the store.
    pub async fn finish_upload(&self, upload: Upload) -> Result<FileInfo, Refusal> {
        let _ = upload;
        Err(Refusal::Internal)
    }

    /// A file with where its content lies, for who may read it.
    ///
    /// # Errors
    /// `NotFound` (also where the reader may not: not told apart), the store.
    pub async fn open_file(&self, reader: Reader, file_id: FileId) -> Result<(FileInfo, PathBuf), Refusal> {
        let _ = (reader, file_id);
        Err(Refusal::Internal)
    }

    /// What is known of files, for messages that list them. Unknown ones are left out. No check of who asks: whoever may
    /// read the message may see them.
    ///
    /// # Errors
    /// The store.
    pub async fn file_infos(&self, file_ids: Vec<FileId>) -> Result<Vec<FileInfo>, Refusal> {
        let _ = file_ids;
        Err(Refusal::Internal)
    }

    /// Collects files uploaded before `before_ms` (Unix) that no message carries, with contents nobody else has. Returns
    /// how many.
    ///
    /// # Errors
    /// The disk, the store.
    pub async fn collect_files(&self, before_ms: u64, max: usize) -> Result<usize, Refusal> {
        let _ = (before_ms, max);
        Err(Refusal::Internal)
    }
}
