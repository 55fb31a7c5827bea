//! Files that messages carry: what is known of one.

use protocol::ids::{FileId, Uid, Version};

/// Longest file name in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// A BLAKE3 hash of a file's content: where the content lies.
pub type ContentHash = [u8; 32];

/// A file as it was uploaded. Its content lies outside the log, addressed by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub file_id: FileId,
    /// Who uploaded it; `None`: a back end.
    pub uploader: Option<Uid>,
    /// Its name, without directories, at most [`FILE_NAME_BYTES_MAX`].
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// Bytes.
    pub size: u64,
    /// Names the content.
    pub content: ContentHash,
}

/// A file and who carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// As uploaded.
    pub record: FileRecord,
    /// Version of the upload.
    pub created: Version,
}
