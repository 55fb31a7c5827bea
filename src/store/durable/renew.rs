//! A view that can no longer be used is replaced while the server runs.
//!
//! sled's first I/O error is for ever, and what it wrote since its last fdatasync may or may not be on the disk. So its
//! files are copied (what the page cache still holds is written anew), the copy is verified like at a start, replayed from
//! its own mark, checkpointed, and takes the old one's place. When the copy is no view, an empty one is filled from the log.
//! The old view answers reads until then, as far as it can.

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Inner, OpenReport, chain_of, ms_since, replay, unavailable};
use crate::store::log::seam::{FileFaults, FileOp};
use crate::store::view::{self, Verified, View};
use crate::store::{Result, StoreError};

/// Where the next view is made; never read by a start.
pub fn staging(data_dir: &Path) -> PathBuf {
    data_dir.join("view.next")
}

/// Removes what an interrupted renewal left behind.
///
/// # Errors
/// I/O.
pub fn sweep(data_dir: &Path) -> Result<()> {
    let (current, aside) = (view::directory(data_dir), aside(data_dir));
    if aside.exists() && !current.exists() {
        // Between two renames of `exchange`.
        std::fs::rename(&aside, &current).map_err(|e| StoreError::io("take view back", current.display(), e))?;
    }
    remove_dir(&aside)?;
    remove_dir(&staging(data_dir))
}

/// Where the old view lies for a moment, on file systems that cannot exchange names.
fn aside(data_dir: &Path) -> PathBuf {
    data_dir.join("view.old")
}

fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != IoErrorKind::NotFound => Err(StoreError::io("remove view", path.display(), e)),
        _ => Ok(()),
    }
}

/// Copies sled's files, durably. It keeps none in directories of their own (`blobs/` stays empty).
fn copy(from: &Path, to: &Path, faults: Option<&Arc<dyn FileFaults>>) -> Result<()> {
    let io = |e| StoreError::io("copy view", to.display(), e);
    let ask = |op| faults.map_or(Ok(()), |faults| faults.check(op, to)).map_err(io);
    ask(FileOp::Open)?;
    std::fs::create_dir(to).map_err(io)?;
    for entry in std::fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_file() {
            let made = to.join(entry.file_name());
            ask(FileOp::Write)?;
            std::fs::copy(entry.path(), &made).map_err(io)?;
            ask(FileOp::Sync)?;
            File::open(&made).and_then(|file| file.sync_all()).map_err(io)?;
        }
    }
    File::open(to).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Puts `next` where `current` is, and the other way round.
fn exchange(next: &Path, current: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, next, CWD, current, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    // Not every file system can. A start after a crash between these takes the old one back.
    let aside = next.with_extension("old");
    std::fs::rename(current, &aside)?;
    std::fs::rename(next, current)?;
    std::fs::rename(&aside, next)
}

impl Inner {
    /// Replaces the view. Commits may go on but for a moment at the end.
    ///
    /// # Errors
    /// I/O, or damage in the log: the old view stays.
    pub(super) fn try_renew(&self) -> Result<()> {
        // What it made and gives up is dropped on the way, and sled panics there when its last sync fails. Whoever tries
        // again later must outlive that.
        catch_unwind(AssertUnwindSafe(|| self.renew()))
            .unwrap_or_else(|_| Err(unavailable("replace view", "sled panicked when it was closed")))
    }

    fn renew(&self) -> Result<()> {
        let _one = self.checkpointing.lock();
        let start = Instant::now();
        let (current, next) = (view::directory(&self.options.data_dir), staging(&self.options.data_dir));
        remove_dir(&next)?;
        let faults = &self.options.faults;
        let copied = copy(&current, &next, faults.as_ref())
            .and_then(|()| view::open_verified(&next, self.options.view_cache_bytes, faults.clone()));
        let mut rebuilt = String::new();
        let verified = match copied {
            Ok(Some(verified)) if verified.mark().log_id == self.reader.log_id() => verified,
            other => {
                rebuilt = other.err().map_or_else(|| "it is no view of this log".to_owned(), |error| chain_of(&error));
                remove_dir(&next)?;
                let end = self.reader.end();
                Verified::create(&next, end, self.options.view_cache_bytes, faults.clone())?
            }
        };
        let from = verified.mark();
        let mut view = View::new(verified, self.reader.clone(), self.options.cache_bytes_max);
        let mut report = OpenReport::default();
        let mark = replay(&view, &self.reader, from, &self.options, &mut report)?;
        // The proof that the disk takes the view's writes again.
        view.checkpoint(Some(mark))?;

        let writer = self.writer.lock();
        let mark = replay(&view, &self.reader, mark, &self.options, &mut report)?;
        let io = |e| StoreError::io("exchange view", current.display(), e);
        exchange(&next, &current).map_err(io)?;
        view.moved_to(&current);
        let old = {
            let mut slot = self.view.write();
            // Numbers that lanes hold and have not committed yet.
            view.reserve_from(slot.first_unreserved());
            std::mem::replace(&mut *slot, Arc::new(view))
        };
        *self.applied.lock() = mark;
        self.version.store(mark.version.get(), Ordering::Release);
        self.broken.store(false, Ordering::Release);
        drop(writer);
        self.renewals.fetch_add(1, Ordering::Relaxed);
        self.retired.lock().push(old);
        self.retire();
        if let Err(error) = self.directory.sync().and_then(|()| remove_dir(&next)) {
            tracing::warn!(error = chain_of(&error), "the old view's files stay until the next start");
        }
        tracing::warn!(
            records_replayed = report.records_replayed,
            ms = ms_since(start),
            rebuilt,
            "the view was replaced: made from a verified copy, or from the log when the text says why"
        );
        Ok(())
    }

    /// Drops replaced views that nobody reads any more. sled panics when its last sync fails.
    pub(super) fn retire(&self) {
        let mut retired = self.retired.lock();
        let mut held = Vec::new();
        for view in retired.drain(..) {
            match Arc::try_unwrap(view) {
                Ok(view) => view.discard(),
                Err(still_read) => held.push(still_read),
            }
        }
        *retired = held;
    }
}
