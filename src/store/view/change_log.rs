//! A log of an owner's changes, (version, item) rising by version, in packed pages: what changed after a version costs rows
//! in proportion to the answer.
//!
//! Owns its pages and when superseded entries are left out. Refuses to know what an item is: a channel of a user, a message
//! of a channel.
//!
//! Invariants: the newest entries lie in the owner's row; pages first..end exist; an entry whose item has a later one may
//! be missing, and readers must not tell the difference.

use foldhash::HashMap;

use super::codec::{Malformed, ROW_BYTES_MAX, Reader, Writer};
use super::damaged_row;
use super::db::{Db, Row};
use super::keys::{self, Prefix};
use crate::store::Result;

/// Entries of a page: at most 18 bytes each.
const PAGE: usize = 220;
/// Entries in the owner's row.
const TAIL: usize = 96;

/// What changed, and the version of its last change.
pub type Changed = (u64, u64);

#[derive(Debug)]
struct Page {
    rows: Vec<(u64, u64)>,
    dirty: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct ChangeLog {
    first: u32,
    end: u32,
    count: u64,
    tail: Vec<(u64, u64)>,
    full: HashMap<u32, Page>,
    /// Rows of pages that compaction left behind.
    gone: std::ops::Range<u32>,
}

fn put_rows(w: &mut Writer, rows: &[(u64, u64)]) {
    w.varint(rows.len() as u64);
    let mut previous = 0;
    for &(version, item) in rows {
        w.varint(version - previous);
        w.varint(item);
        previous = version;
    }
}

fn take_rows(r: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Malformed> {
    let count = r.count(ROW_BYTES_MAX)?;
    let mut version = 0u64;
    (0..count)
        .map(|_| {
            version = version.checked_add(r.varint()?).ok_or(Malformed)?;
            Ok((version, r.varint()?))
        })
        .collect()
}

fn read_page(db: &Db, prefix: Prefix<'_>, page: u32) -> Result<Vec<(u64, u64)>> {
    let key = keys::page4(&prefix(), page);
    let row = db.get(&key)?;
    let decoded = row.as_deref().ok_or(Malformed).and_then(|row| take_rows(&mut Reader::row(row)?));
    decoded.map_err(|m| damaged_row(&key, m))
}

impl ChangeLog {
    /// Reads what [`ChangeLog::put`] wrote.
    pub fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (first, end, count) = (r.varint32()?, r.varint32()?, r.varint()?);
        Ok(Self { first, end, count, tail: take_rows(r)?, ..Self::default() })
    }

    /// The part in the owner's row.
    pub fn put(&self, w: &mut Writer) {
        w.varint(u64::from(self.first));
        w.varint(u64::from(self.end));
        w.varint(self.count);
        put_rows(w, &self.tail);
    }

    /// How many entries it has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of memory beside the log itself.
    pub fn weight(&self) -> usize {
        16 * (self.tail.capacity() + self.full.len() * PAGE)
    }

    /// The item changed. Versions never fall.
    pub fn push(&mut self, version: u64, item: u64) {
        self.count += 1;
        self.tail.push((version, item));
        if self.tail.len() >= TAIL {
            self.spill();
        }
    }

    /// Moves the tail into the newest page while that has room, else into a new one.
    fn spill(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        if self.end > self.first
            && let Some(last) = self.full.get_mut(&(self.end - 1))
            && last.rows.len() + tail.len() <= PAGE
        {
            last.rows.extend(tail);
            last.dirty = true;
            return;
        }
        self.full.insert(self.end, Page { rows: tail, dirty: true });
        self.end += 1;
    }

    /// Items that changed after `since` with the version of their last change, the latest first, each once. Stops when there
    /// are more than `enough`, but never between two of one version.
    pub fn after(&self, db: &Db, prefix: Prefix<'_>, since: u64, enough: usize) -> Result<Vec<Changed>> {
        let mut seen = foldhash::HashSet::default();
        let mut found: Vec<Changed> = Vec::new();
        let mut take = |rows: &[(u64, u64)]| {
            for &(version, item) in rows.iter().rev() {
                let is_enough = found.len() > enough && found.last().is_some_and(|(_, last)| *last > version);
                if version <= since || is_enough {
                    return false;
                }
                if seen.insert(item) {
                    found.push((item, version));
                }
            }
            true
        };
        let mut go_on = take(&self.tail);
        for page in (self.first..self.end).rev() {
            if !go_on {
                break;
            }
            go_on = match self.full.get(&page) {
                Some(page) => take(&page.rows),
                None => take(&read_page(db, prefix, page)?),
            };
        }
        Ok(found)
    }

    /// Rewrites the log without superseded entries once they dominate; `distinct` is about how many items there are.
    /// `true`: it did, and the owner is dirty.
    pub fn compact(&mut self, db: &Db, prefix: Prefix<'_>, distinct: u64) -> Result<bool> {
        if self.count <= 2 * distinct + 2 * PAGE as u64 || !self.gone.is_empty() {
            return Ok(false);
        }
        let mut kept: Vec<(u64, u64)> =
            self.after(db, prefix, 0, usize::MAX)?.into_iter().map(|(item, version)| (version, item)).collect();
        kept.reverse();
        self.gone = self.first..self.end;
        self.first = self.end;
        self.count = kept.len() as u64;
        self.full.clear();
        self.tail.clear();
        for rows in kept.chunks(PAGE) {
            self.full.insert(self.end, Page { rows: rows.to_vec(), dirty: true });
            self.end += 1;
        }
        Ok(true)
    }

    /// Rows of changed pages, which are clean afterwards. The owner's row must follow in the same batch.
    pub fn snapshot(&mut self, prefix: &[u8], rows: &mut Vec<Row>) {
        for (&number, page) in self.full.iter_mut().filter(|(_, p)| p.dirty) {
            let mut w = Writer::row();
            put_rows(&mut w, &page.rows);
            rows.push((keys::page4(prefix, number), Some(w.finish())));
            page.dirty = false;
        }
        rows.extend(std::mem::replace(&mut self.gone, 0..0).map(|page| (keys::page4(prefix, page), None)));
    }

    /// The snapshot's rows are in the view: clean pages may go, but the newest while it has room.
    pub fn settle(&mut self) {
        let newest = self.end.checked_sub(1);
        self.full.retain(|&n, page| page.dirty || (Some(n) == newest && page.rows.len() < PAGE - TAIL));
    }
}
