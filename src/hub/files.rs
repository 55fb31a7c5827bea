//! Files that messages carry: uploads, downloads, and the collection of what nobody carries.
//!
//! Content lies outside the log, addressed by its hash ([`crate::store::blobs`]); what is known of a file is a record.
//! Invariants: a file's record is committed after its content is synced; only who uploaded it, members of a channel with a
//! live message that carries it, and back ends can read it.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use protocol::ids::{FileId, Uid, Version};
use tokio::sync::RwLock;

use super::conversations::refuse;
use super::{Hub, Reader};
use crate::domain::file::{FILE_NAME_BYTES_MAX, FileInfo, FileRecord};
use crate::domain::message::MessageState;
use crate::domain::refusal::Refusal;
use crate::store::blobs::{BlobWriter, Blobs};
use crate::store::{Record, SeqRange, Store};

/// Longest media type in bytes.
pub const MIME_BYTES_MAX: usize = 255;
/// Messages that are looked through for one that lets a reader see a file.
const REFERENCES_LOOKED_AT_MAX: usize = 1_000;
/// When clients may try again when the disk cannot take or give a content.
const RETRY_AFTER_DISK_MS: u32 = 1_000;

/// Limits of files.
#[derive(Debug, Clone)]
pub struct FileLimits {
    /// Whether uploads are offered.
    pub on: bool,
    /// Largest file.
    pub bytes_max: u64,
    /// Media types taken, in lower case: `image/png` or `image/*`. Empty: any.
    pub types: Vec<String>,
}

impl FileLimits {
    /// Whether a media type is taken; its parameters do not matter.
    fn takes(&self, mime: &str) -> bool {
        let essence = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = |taken: &String| match taken.strip_suffix('*') {
            Some(kind) => essence.starts_with(kind),
            None => essence == *taken,
        };
        self.types.is_empty() || self.types.iter().any(fits)
    }
}

/// Where contents lie, and what may be uploaded.
#[derive(Debug)]
pub struct Files {
    blobs: Blobs,
    limits: FileLimits,
    /// Uploads hold it for reading from naming a content to committing its record; who removes a content holds it alone, so
    /// that no content goes whose record is about to come.
    gate: RwLock<()>,
}

impl Files {
    /// Files below a directory. No I/O.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, limits: FileLimits) -> Self {
        Self { blobs: Blobs::new(dir), limits, gate: RwLock::new(()) }
    }

    /// Removes what uploads cut short by a crash left. Blocking; call it before the first upload.
    ///
    /// # Errors
    /// The disk, the store.
    pub fn recover(&self, store: &dyn Store) -> io::Result<()> {
        for content in self.blobs.open()? {
            match store.has_content(&content).map_err(io::Error::other)? {
                true => self.blobs.settle(&content)?,
                false => self.blobs.remove(&content)?,
            }
        }
        Ok(())
    }
}

/// The refusal of a request the disk failed, logged.
fn refuse_disk(operation: &'static str, error: &io::Error) -> Refusal {
    tracing::error!(operation, %error, "the disk failed a file's content");
    Refusal::StoreUnavailable { retry_after_ms: RETRY_AFTER_DISK_MS }
}

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
    /// `None` once a part could not be written.
    writer: Option<BlobWriter>,
}

/// A name without directories, of whatever system it comes from.
fn bare_name(name: &str) -> Result<String, Refusal> {
    let bare = name.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    if bare.is_empty() || bare == "." || bare == ".." {
        return Err(Refusal::invalid("name", "is empty"));
    }
    if let Some(c) = bare.chars().find(|c| c.is_control()) {
        return Err(Refusal::invalid("name", format_args!("holds the forbidden character {c:?}")));
    }
    if bare.len() > FILE_NAME_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "name", bytes: bare.len(), max: FILE_NAME_BYTES_MAX });
    }
    Ok(bare.to_owned())
}

/// A media type fit for a header.
fn checked_mime(mime: &str, limits: &FileLimits) -> Result<String, Refusal> {
    let mime = mime.trim();
    if mime.len() > MIME_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "mime", bytes: mime.len(), max: MIME_BYTES_MAX });
    }
    let is_type = mime.split_once('/').is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
    if !is_type || !mime.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return Err(Refusal::invalid("mime", "is no media type"));
    }
    if !limits.takes(mime) {
        return Err(Refusal::invalid("mime", "is a media type this server does not take"));
    }
    Ok(mime.to_owned())
}

/// Whether a user may read a file: its uploader, and members of a channel with a live message that carries it.
fn may_read(store: &dyn Store, uid: &Uid, info: &FileInfo) -> Result<bool, Refusal> {
    if info.record.uploader.as_ref() == Some(uid) {
        return Ok(true);
    }
    let file_id = &info.record.file_id;
    let (mut member_of, mut outside_of) = (HashSet::new(), HashSet::new());
    for (channel, seq) in store.file_references(file_id, REFERENCES_LOOKED_AT_MAX).map_err(refuse)? {
        if outside_of.contains(&channel) {
            continue;
        }
        if !member_of.contains(&channel) {
            if store.membership(channel, uid).map_err(refuse)?.is_none() {
                outside_of.insert(channel);
                continue;
            }
            member_of.insert(channel);
        }
        let range = SeqRange { first: seq, last: seq, limit: 1, bytes_max: usize::MAX, newest_first: false };
        let carries = store.messages(channel, range).map_err(refuse)?.into_iter().any(|message| {
            message.state == MessageState::Live
                && message.extras.as_ref().is_some_and(|extras| extras.files.contains(file_id))
        });
        if carries {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Hub {
    /// Runs work of the disk on a thread that may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        self.shared.blocking.spawn_blocking(work).await.map_err(|error| {
            tracing::error!(%error, "work of a file panicked");
            Refusal::Internal
        })
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge` naming `name` or `mime`, `FeatureOff` (`files.on`), the disk.
    pub async fn begin_upload(&self, file: NewFile) -> Result<Upload, Refusal> {
        self.refuse_draining()?;
        let limits = &self.shared.files.limits;
        if !limits.on {
            return Err(Refusal::FeatureOff { key: "files.on" });
        }
        let file = NewFile { name: bare_name(&file.name)?, mime: checked_mime(&file.mime, limits)?, ..file };
        let shared = self.shared.clone();
        let begun = self.blocking(move || shared.files.blobs.begin()).await?;
        let writer = begun.map_err(|error| refuse_disk("begin an upload", &error))?;
        Ok(Upload { file, writer: Some(writer) })
    }

    /// Appends a part of the content.
    ///
    /// # Errors
    /// `TooLarge` (`files.bytes_max`), the disk. The upload is of no use then.
    pub async fn write_upload(&self, upload: &mut Upload, part: bytes::Bytes) -> Result<(), Refusal> {
        let max = self.shared.files.limits.bytes_max;
        let Some(mut writer) = upload.writer.take() else { return Err(Refusal::Internal) };
        let bytes = writer.bytes().saturating_add(part.len() as u64);
        if bytes > max {
            let of = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            return Err(Refusal::TooLarge { field: "file", bytes: of(bytes), max: of(max) });
        }
        let written = self.blocking(move || writer.write(&part).map(|()| writer)).await?;
        upload.writer = Some(written.map_err(|error| refuse_disk("write an upload", &error))?);
        Ok(())
    }

    /// Syncs the content, then commits the file.
    ///
    /// # Errors
    /// `Invalid` (no content), the disk, the store.
    pub async fn finish_upload(&self, upload: Upload) -> Result<FileInfo, Refusal> {
        self.refuse_draining()?;
        let Upload { file, writer } = upload;
        let Some(writer) = writer else { return Err(Refusal::Internal) };
        let size = writer.bytes();
        if size == 0 {
            return Err(Refusal::invalid("file", "is empty"));
        }
        let _gate = self.shared.files.gate.read().await;
        let finished = self.blocking(move || writer.finish()).await?;
        let content = finished.map_err(|error| refuse_disk("finish an upload", &error))?;
        let file_id = FileId::from_stored(&uuid::Uuid::new_v4().hyphenated().to_string());
        let record = FileRecord { file_id, uploader: file.uploader, name: file.name, mime: file.mime, size, content };
        let created = self.commit(None, Record::File(Box::new(record.clone())).into(), (0, 0)).await?;
        let shared = self.shared.clone();
        if let Err(error) = self.blocking(move || shared.files.blobs.settle(&content)).await? {
            tracing::warn!(%error, "the marker of an upload stays until the next start");
        }
        Ok(FileInfo { record, created })
    }

    /// A file with where its content lies, for who may read it.
    ///
    /// # Errors
    /// `NotFound` (also where the reader may not: not told apart), the store.
    pub async fn open_file(&self, reader: Reader, file_id: FileId) -> Result<(FileInfo, PathBuf), Refusal> {
        let shared = self.shared.clone();
        self.ask(move |store| {
            let unknown = Refusal::NotFound { what: "file" };
            let info = store.file(&file_id).map_err(refuse)?.ok_or_else(|| unknown.clone())?;
            if let Reader::User(uid) = &reader
                && !may_read(store, uid, &info)?
            {
                return Err(unknown);
            }
            let path = shared.files.blobs.path(&info.record.content);
            Ok((info, path))
        })
        .await
    }

    /// What is known of files, for messages that list them. Unknown ones are left out. No check of who asks: whoever may
    /// read the message may see them.
    ///
    /// # Errors
    /// The store.
    pub async fn file_infos(&self, file_ids: Vec<FileId>) -> Result<Vec<FileInfo>, Refusal> {
        self.ask(move |store| {
            let mut infos = Vec::with_capacity(file_ids.len());
            for file_id in &file_ids {
                infos.extend(store.file(file_id).map_err(refuse)?);
            }
            Ok(infos)
        })
        .await
    }

    /// Collects files uploaded before `before_ms` (Unix) that no message carries, with contents nobody else has. Returns
    /// how many.
    ///
    /// # Errors
    /// The disk, the store.
    pub async fn collect_files(&self, before_ms: u64, max: usize) -> Result<usize, Refusal> {
        self.refuse_draining()?;
        let before = Version::new(before_ms.saturating_mul(1_000));
        let unused = self.ask(move |store| store.unused_files(before, max).map_err(refuse)).await?;
        let mut collected = 0;
        for info in unused {
            let _gate = self.shared.files.gate.write().await;
            let FileRecord { file_id, content, .. } = info.record.clone();
            self.commit(None, Record::FileRemoved { file_id: file_id.clone() }.into(), (0, 0)).await?;
            let asked = self.ask(move |store| {
                let carried = !store.file_references(&file_id, 1).map_err(refuse)?.is_empty();
                Ok((carried, store.has_content(&content).map_err(refuse)?))
            });
            let (carried, has_content) = asked.await?;
            if carried {
                // A message that was checked before the file went was stored after it was looked for.
                self.commit(None, Record::File(Box::new(info.record)).into(), (0, 0)).await?;
                continue;
            }
            collected += 1;
            if !has_content {
                let shared = self.shared.clone();
                let removed = self.blocking(move || shared.files.blobs.remove(&content)).await?;
                removed.map_err(|error| refuse_disk("remove a content", &error))?;
            }
        }
        Ok(collected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_directories() {
        for (name, expected) in [
            ("photo.png", Ok("photo.png")),
            ("../../etc/passwd", Ok("passwd")),
            ("C:\\photos\\a b.png", Ok("a b.png")),
            ("a/", Err("invalid")),
            ("..", Err("invalid")),
            ("a\nb", Err("invalid")),
            (&"x".repeat(256), Err("too_large")),
        ] {
            let bare = bare_name(name);
            assert_eq!(bare.as_deref().map_err(Refusal::code), expected, "{name:?}");
        }
    }

    #[test]
    fn media_types_are_checked_against_the_list() {
        let limits = |types: &[&str]| FileLimits {
            on: true,
            bytes_max: 1,
            types: types.iter().map(|taken| (*taken).to_owned()).collect(),
        };
        let (any, images) = (limits(&[]), limits(&["image/*", "application/pdf"]));
        for (mime, of_any, of_images) in [
            ("image/png", true, true),
            ("IMAGE/PNG", true, true),
            ("application/pdf; version=2", true, true),
            ("application/pdfx", true, false),
            ("text/plain", true, false),
            ("plain", false, false),
            ("text/plain\r\nX: y", false, false),
        ] {
            assert_eq!(checked_mime(mime, &any).is_ok(), of_any, "{mime:?}");
            assert_eq!(checked_mime(mime, &images).is_ok(), of_images, "{mime:?}");
        }
    }
}
