//! Files and the messages that carry them.
//!
//! Owns the rows of files. They belong to no channel and no user: each row stands for itself, and what a record does to it
//! depends on that row alone. A reference is an entry of a set that only grows; an upload or a removal holds when its
//! version is above that of the upload the row has. So records may be applied again in any number, whatever else of a
//! checkpoint was written.
//!
//! Invariant: a change stays in memory until the batch that holds it is applied, and whoever asks looks there first and then
//! at the row.
//!
//! ```text
//! d file_id               u8 known | (version, uploader, name, mime, size, content 32)? | count, count x (channel, seq)
//! w len file_id no4 seq8  nothing: one more message that carries the file, once the row has INLINE of them
//! ```

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use protocol::ids::{FileId, Uid, Version};

use super::codec::{Malformed, Reader, Writer};
use super::damaged_row;
use super::db::{Db, Ledger, Row, Value};
use super::keys;
use crate::domain::file::{ContentHash, FileInfo, FileRecord};
use crate::store::Result;

/// Messages in the file's own row: one is usual.
const INLINE: usize = 64;

/// (channel number, seq).
pub type Reference = (u32, u64);

/// A change of a file that no applied batch holds.
#[derive(Debug, Clone, Default)]
struct Pending {
    /// `Some(None)`: removed.
    info: Option<Option<FileInfo>>,
    references: BTreeSet<Reference>,
}

#[derive(Debug, Default)]
struct Memory {
    open: BTreeMap<FileId, Pending>,
    /// On their way into the view.
    in_flight: BTreeMap<FileId, Pending>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Files(Mutex<Memory>);

/// A file's row.
#[derive(Debug, Default)]
struct FileRow {
    info: Option<FileInfo>,
    /// Ascending, at most [`INLINE`].
    references: Vec<Reference>,
}

impl FileRow {
    fn read(db: &Db, file_id: &FileId) -> Result<Self> {
        let key = keys::named(keys::FILE, file_id.as_str().as_bytes());
        Self::from_value(file_id, &key, db.get(&key)?)
    }

    /// For a checkpoint, which is no question.
    fn read_uncounted(db: &Db, file_id: &FileId) -> Result<Self> {
        let key = keys::named(keys::FILE, file_id.as_str().as_bytes());
        Self::from_value(file_id, &key, db.get_uncounted(&key)?)
    }

    fn from_value(file_id: &FileId, key: &[u8], value: Option<Value>) -> Result<Self> {
        let decoded = value.map(|row| Self::decode(file_id, &row)).transpose();
        decoded.map(Option::unwrap_or_default).map_err(|m| damaged_row(key, m))
    }

    fn decode(file_id: &FileId, row: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::row(row)?;
        let mut found = Self::default();
        if r.u8()? != 0 {
            let created = Version::new(r.varint()?);
            let uploader = Some(r.text()?).filter(|uid| !uid.is_empty()).map(Uid::from_stored);
            let (name, mime) = (r.text()?.to_owned(), r.text()?.to_owned());
            let (size, content) = (r.varint()?, r.array()?);
            let record = FileRecord { file_id: file_id.clone(), uploader, name, mime, size, content };
            found.info = Some(FileInfo { record, created });
        }
        for _ in 0..r.count(INLINE)? {
            found.references.push((r.varint32()?, r.varint()?));
        }
        Ok(found)
    }

    /// `None`: nothing is known of the file any more.
    fn encode(&self) -> Option<Vec<u8>> {
        if self.info.is_none() && self.references.is_empty() {
            return None;
        }
        let mut w = Writer::row();
        w.u8(u8::from(self.info.is_some()));
        if let Some(FileInfo { record, created }) = &self.info {
            w.varint(created.get());
            w.text(record.uploader.as_ref().map_or("", Uid::as_str));
            w.text(&record.name);
            w.text(&record.mime);
            w.varint(record.size);
            w.raw(&record.content);
        }
        w.varint(self.references.len() as u64);
        for (no, seq) in &self.references {
            w.varint(u64::from(*no));
            w.varint(*seq);
        }
        Some(w.finish())
    }
}

/// Prefix of the references that have rows of their own.
fn more_prefix(file_id: &FileId) -> Vec<u8> {
    keys::user(keys::REFERENCE, file_id.as_str())
}

fn more_key(file_id: &FileId, (no, seq): Reference) -> Vec<u8> {
    keys::page8(&keys::page4(&more_prefix(file_id), no), seq)
}

fn file_id_of(key: &[u8]) -> Result<FileId> {
    let text = key.get(1..).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.map(FileId::from_stored).ok_or_else(|| damaged_row(key, Malformed))
}

impl Memory {
    /// The newest change of a file's information, and the references not yet in its row.
    fn of(&self, file_id: &FileId) -> Pending {
        let both = [self.open.get(file_id), self.in_flight.get(file_id)];
        let mut found = Pending::default();
        for pending in both.into_iter().flatten() {
            found.info = found.info.or_else(|| pending.info.clone());
            found.references.extend(&pending.references);
        }
        found
    }

    fn all(&self) -> BTreeMap<FileId, Pending> {
        self.open.keys().chain(self.in_flight.keys()).map(|file_id| (file_id.clone(), self.of(file_id))).collect()
    }
}

impl Files {
    /// Whether anything waits for a checkpoint.
    pub fn dirty_count(&self) -> u64 {
        let memory = self.0.lock();
        (memory.open.len() + memory.in_flight.len()) as u64
    }

    // Records.

    /// An upload (`Some`) or a removal, of this version.
    pub fn set(&self, db: &Db, version: Version, file_id: &FileId, record: Option<&FileRecord>) -> Result<()> {
        // A replay may tell an old upload or removal of a file that was uploaded again since.
        if self.get(db, file_id)?.is_some_and(|info| info.created >= version) {
            return Ok(());
        }
        let info = record.map(|record| FileInfo { record: record.clone(), created: version });
        self.0.lock().open.entry(file_id.clone()).or_default().info = Some(info);
        Ok(())
    }

    /// A message carries these files.
    pub fn refer(&self, file_ids: &[FileId], reference: Reference) {
        if file_ids.is_empty() {
            return;
        }
        let mut memory = self.0.lock();
        for file_id in file_ids {
            memory.open.entry(file_id.clone()).or_default().references.insert(reference);
        }
    }

    // Questions.

    /// See [`crate::store::Store::file`].
    pub fn get(&self, db: &Db, file_id: &FileId) -> Result<Option<FileInfo>> {
        let pending = self.0.lock().of(file_id).info;
        match pending {
            Some(info) => Ok(info),
            None => Ok(FileRow::read(db, file_id)?.info),
        }
    }

    /// See [`crate::store::Store::file_references`].
    pub fn references(&self, db: &Db, file_id: &FileId, max: usize) -> Result<Vec<Reference>> {
        let mut found = self.0.lock().of(file_id).references;
        let row = FileRow::read(db, file_id)?;
        if row.references.len() == INLINE {
            let prefix = more_prefix(file_id);
            let mut left = max;
            db.scan_while(&prefix, &mut |key, _| {
                let mut r = Reader::part(key.get(prefix.len()..).unwrap_or_default());
                let reference = r.u32().and_then(|no| Ok((no, r.u64()?)));
                found.insert(reference.map_err(|m| damaged_row(key, m))?);
                left = left.saturating_sub(1);
                Ok(left > 0)
            })?;
        }
        found.extend(row.references);
        Ok(found.into_iter().take(max).collect())
    }

    /// See [`crate::store::Store::unused_files`].
    pub fn unused(&self, db: &Db, before: Version, max: usize) -> Result<Vec<FileInfo>> {
        let memory = self.0.lock().all();
        let is_unused = |info: &FileInfo, references: usize| info.created < before && references == 0;
        // A row a checkpoint wrote meanwhile is judged with what memory held of it: no reference is missed.
        let mut found = BTreeMap::new();
        let mut in_rows = BTreeSet::new();
        let mut from_rows = 0;
        db.scan_while(&[keys::FILE], &mut |key, row| {
            let file_id = file_id_of(key)?;
            let row = FileRow::decode(&file_id, row).map_err(|m| damaged_row(key, m))?;
            let pending = memory.get(&file_id);
            if pending.is_some() {
                in_rows.insert(file_id.clone());
            }
            let info = pending.and_then(|pending| pending.info.clone()).unwrap_or(row.info);
            let references = row.references.len() + pending.map_or(0, |pending| pending.references.len());
            if let Some(info) = info.filter(|info| is_unused(info, references)) {
                found.insert(file_id, info);
                from_rows += 1;
            }
            Ok(from_rows < max)
        })?;
        for (file_id, pending) in memory.into_iter().filter(|(file_id, _)| !in_rows.contains(file_id)) {
            // With rows left out above, this one may have a row after all; then it comes behind `max` others.
            if let Some(info) = pending.info.flatten().filter(|info| is_unused(info, pending.references.len())) {
                found.insert(file_id, info);
            }
        }
        Ok(found.into_values().take(max).collect())
    }

    /// See [`crate::store::Store::has_content`].
    pub fn has_content(&self, db: &Db, content: &ContentHash) -> Result<bool> {
        let memory = self.0.lock().all();
        let is_it = |info: &FileInfo| info.record.content == *content;
        if memory.values().any(|pending| pending.info.as_ref().and_then(Option::as_ref).is_some_and(is_it)) {
            return Ok(true);
        }
        let mut found = false;
        db.scan_while(&[keys::FILE], &mut |key, row| {
            let file_id = file_id_of(key)?;
            let row = FileRow::decode(&file_id, row).map_err(|m| damaged_row(key, m))?;
            let is_replaced = memory.get(&file_id).is_some_and(|pending| pending.info.is_some());
            found = !is_replaced && row.info.as_ref().is_some_and(is_it);
            Ok(!found)
        })?;
        Ok(found)
    }

    // Checkpoint.

    /// Does something while nothing here is dirty: a checkpoint in it leaves files behind.
    #[cfg(test)]
    pub fn held_back<T>(&self, run: impl FnOnce() -> T) -> T {
        let held = std::mem::take(&mut *self.0.lock());
        let result = run();
        *self.0.lock() = held;
        result
    }

    /// Writes what waits. Rows are independent, so they need not be one batch.
    ///
    /// # Errors
    /// I/O or damage; what was not written stays in memory.
    pub fn write(&self, db: &Db, ledger: &mut Ledger) -> Result<()> {
        let taken = {
            let mut memory = self.0.lock();
            let Memory { open, in_flight } = &mut *memory;
            // What a failed checkpoint left stays below what came since.
            for (file_id, pending) in std::mem::take(open) {
                let flying = in_flight.entry(file_id).or_default();
                flying.info = pending.info.or(flying.info.take());
                flying.references.extend(pending.references);
            }
            in_flight.clone()
        };
        let mut rows: Vec<Row> = Vec::new();
        for (file_id, pending) in taken {
            let mut row = FileRow::read_uncounted(db, &file_id)?;
            row.info = pending.info.unwrap_or(row.info);
            for reference in pending.references {
                let Err(at) = row.references.binary_search(&reference) else { continue };
                if row.references.len() < INLINE {
                    row.references.insert(at, reference);
                } else {
                    rows.push((more_key(&file_id, reference), Some(Writer::row().finish())));
                }
            }
            rows.push((keys::named(keys::FILE, file_id.as_str().as_bytes()), row.encode()));
        }
        ledger.apply_in_batches(db, rows)?;
        self.0.lock().in_flight.clear();
        Ok(())
    }
}
