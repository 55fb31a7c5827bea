//! What became of a channel's messages after they were stored: edits, reactions, and which message changed when.
//!
//! Owns the row with the heads of two structures, read only where something ever changed: a table by seq (place and version
//! of the last edit and of each lane's last event, reactions) and a log of changes by version. The bits of index pages say which messages the table
//! knows, so nothing here is read for one that never changed. What an edit or an event says lies in the log of records, at its place.
//! Refuses to decide what a change means for counts: the channel does.
//!
//! Invariant: its rows change in one batch with the channel's head.

use protocol::ids::{Uid, Version};

use super::change_log::{ChangeLog, Changed};
use super::codec::{Malformed, Reader, Writer};
use super::db::{Db, Row};
use super::table::{Table, TableValue};
use super::{damaged_row, keys};
use crate::domain::message::{Reacted, Reaction};
use crate::store::Result;
use crate::store::log::Place;

/// The record of a message's last edit, or of a lane's last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    pub place: Place,
    pub version: Version,
}

/// One user's present reaction to one message.
#[derive(Debug, Default)]
struct Word {
    reaction: Option<Reaction>,
    /// Version since which it is this one: what reactions are ordered by.
    since: u64,
}

impl TableValue for Word {
    const BYTES_HINT: u64 = 9;

    fn is_empty(&self) -> bool {
        self.reaction.is_none()
    }

    fn put(&self, w: &mut Writer) {
        w.u8(self.reaction.map_or(0, |reaction| reaction as u8));
        w.varint(self.since);
    }

    fn take(r: &mut Reader<'_>, _seed: u64) -> Result<Self, Malformed> {
        let reaction = match r.u8()? {
            1 => Reaction::Like,
            2 => Reaction::Dislike,
            _ => return Err(Malformed),
        };
        Ok(Self { reaction: Some(reaction), since: r.varint()? })
    }

    fn weight(&self) -> usize {
        0
    }
}

/// What became of one message.
#[derive(Debug, Default)]
struct Altered {
    edit: Option<Edit>,
    reactions: Option<Box<Table<Uid, Word>>>,
    /// The last event of each lane, by the lane's number, ascending.
    lanes: Vec<(u8, Edit)>,
}

fn put_edit(edit: Edit, w: &mut Writer) {
    w.u32(edit.place.segment);
    w.u32(edit.place.offset);
    w.varint(edit.version.get());
}

fn take_edit(r: &mut Reader<'_>) -> Result<Edit, Malformed> {
    let place = Place { segment: r.u32()?, offset: r.u32()? };
    Ok(Edit { place, version: Version::new(r.varint()?) })
}

impl TableValue for Altered {
    const BYTES_HINT: u64 = 32;

    fn is_empty(&self) -> bool {
        let reacted = self.reactions.as_ref().is_some_and(|reactions| !reactions.is_empty());
        self.edit.is_none() && !reacted && self.lanes.is_empty()
    }

    fn put(&self, w: &mut Writer) {
        let reactions = self.reactions.as_ref().filter(|reactions| !reactions.is_empty());
        let bit = |on: bool, bit: u8| u8::from(on) << bit;
        w.u8(bit(self.edit.is_some(), 0) | bit(reactions.is_some(), 1) | bit(!self.lanes.is_empty(), 2));
        if let Some(edit) = self.edit {
            put_edit(edit, w);
        }
        if let Some(reactions) = reactions {
            reactions.put_head(w);
        }
        if !self.lanes.is_empty() {
            w.u8(self.lanes.len().min(255) as u8);
            for (number, edit) in self.lanes.iter().take(255) {
                w.u8(*number);
                put_edit(*edit, w);
            }
        }
    }

    fn take(r: &mut Reader<'_>, seed: u64) -> Result<Self, Malformed> {
        let flags = r.u8()?;
        let mut altered = Self::default();
        if flags & 1 != 0 {
            altered.edit = Some(take_edit(r)?);
        }
        if flags & 2 != 0 {
            altered.reactions = Some(Box::new(Table::take_head(r, seed)?));
        }
        if flags & 4 != 0 {
            for _ in 0..r.u8()? {
                altered.lanes.push((r.u8()?, take_edit(r)?));
            }
        }
        Ok(altered)
    }

    fn weight(&self) -> usize {
        let reactions = self.reactions.as_ref();
        let reactions = reactions.map_or(0, |reactions| size_of::<Table<Uid, Word>>() + 200 + reactions.weight());
        reactions + self.lanes.capacity() * size_of::<(u8, Edit)>()
    }
}

/// What is known of a message beyond its record.
#[derive(Debug, Default)]
pub struct Found {
    /// Its last edit.
    pub edit: Option<Edit>,
    /// Its reactions, in the order they were made.
    pub reactions: Vec<Reacted>,
    /// The last event of each lane, by number.
    pub lanes: Vec<(u8, Edit)>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Changes {
    no: u32,
    seed: u64,
    table: Table<u64, Altered>,
    log: ChangeLog,
    /// About how many messages the log names; it only decides when the log is rewritten.
    distinct: u64,
    dirty: bool,
}

impl Changes {
    /// Those of a channel in which nothing changed yet.
    pub fn new(no: u32, seed: u64) -> Self {
        Self { no, seed, table: Table::new(seed), log: ChangeLog::default(), distinct: 0, dirty: false }
    }

    /// Reads the heads. One row.
    pub fn load(db: &Db, no: u32, seed: u64) -> Result<Self> {
        let key = keys::channel(keys::ALTERED_HEAD, no);
        let row = db.get(&key)?;
        let decode = |row: &[u8]| {
            let mut r = Reader::row(row)?;
            let distinct = r.varint()?;
            let table = Table::take_head(&mut r, seed)?;
            Ok(Self { no, seed, table, log: ChangeLog::take(&mut r)?, distinct, dirty: false })
        };
        row.as_deref().ok_or(Malformed).and_then(decode).map_err(|m| damaged_row(&key, m))
    }

    pub fn weight(&self) -> usize {
        size_of::<Self>() + 200 + self.table.weight() + self.log.weight()
    }

    fn prefix(no: u32) -> impl Fn() -> Vec<u8> {
        move || keys::channel(keys::ALTERED, no)
    }

    /// A message changed; `fresh`: for the first time, as far as the index knows.
    pub fn note(&mut self, version: Version, seq: u64, fresh: bool) {
        self.dirty = true;
        self.distinct += u64::from(fresh);
        self.log.push(version.get(), seq);
    }

    /// The last edit of a message.
    pub fn edit(&mut self, db: &Db, seq: u64) -> Result<Option<Edit>> {
        Ok(self.table.get(db, &Self::prefix(self.no), &seq)?.and_then(|altered| altered.edit))
    }

    pub fn set_edit(&mut self, db: &Db, seq: u64, edit: Edit) -> Result<()> {
        self.dirty = true;
        self.table.entry(db, &Self::prefix(self.no), &seq)?.0.edit = Some(edit);
        Ok(())
    }

    /// A lane's last event from now on.
    pub fn set_lane(&mut self, db: &Db, seq: u64, number: u8, edit: Edit) -> Result<()> {
        self.dirty = true;
        let lanes = &mut self.table.entry(db, &Self::prefix(self.no), &seq)?.0.lanes;
        match lanes.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => lanes[at].1 = edit,
            Err(at) => lanes.insert(at, (number, edit)),
        }
        Ok(())
    }

    /// Sets or takes away a user's reaction. The one the user has already keeps its place.
    pub fn react(&mut self, db: &Db, version: Version, seq: u64, uid: &Uid, reaction: Option<Reaction>) -> Result<()> {
        self.dirty = true;
        let (no, seed) = (self.no, self.seed);
        let (altered, _) = self.table.entry(db, &Self::prefix(no), &seq)?;
        let reactions = altered.reactions.get_or_insert_with(|| Box::new(Table::new(seed)));
        let (word, _) = reactions.entry(db, &|| keys::page8(&keys::channel(keys::REACTIONS, no), seq), uid)?;
        if word.reaction != reaction {
            *word = Word { reaction, since: version.get() };
        }
        Ok(())
    }

    /// The last edit of a message, and with `shown` its reactions and lanes. A row of the table, and as many as the
    /// reactions fill.
    pub fn of(&mut self, db: &Db, seq: u64, shown: bool) -> Result<Found> {
        let no = self.no;
        let Some(altered) = self.table.get(db, &Self::prefix(no), &seq)? else { return Ok(Found::default()) };
        let mut words: Vec<(u64, Reacted)> = Vec::new();
        if let Some(reactions) = altered.reactions.as_ref().filter(|_| shown) {
            reactions.for_each(db, &|| keys::page8(&keys::channel(keys::REACTIONS, no), seq), |uid, word| {
                let reacted = word.reaction.map(|reaction| Reacted { uid: uid.clone(), reaction });
                words.extend(reacted.map(|reacted| (word.since, reacted)));
            })?;
        }
        words.sort_unstable_by_key(|(since, _)| *since);
        let lanes = if shown { altered.lanes.clone() } else { Vec::new() };
        Ok(Found { edit: altered.edit, reactions: words.into_iter().map(|(_, reacted)| reacted).collect(), lanes })
    }

    /// See [`ChangeLog::after`].
    pub fn after(&self, db: &Db, since: u64, enough: usize) -> Result<Vec<Changed>> {
        self.log.after(db, &|| keys::channel(keys::ALTERED_LOG, self.no), since, enough)
    }

    /// See [`ChangeLog::compact`].
    pub fn compact(&mut self, db: &Db) -> Result<()> {
        let no = self.no;
        if self.log.compact(db, &|| keys::channel(keys::ALTERED_LOG, no), self.distinct)? {
            self.distinct = self.log.count();
            self.dirty = true;
        }
        Ok(())
    }

    /// Rows of everything that changed. The channel's head must follow in the same batch.
    pub fn snapshot(&mut self, rows: &mut Vec<Row>) {
        if !self.dirty {
            return;
        }
        let no = self.no;
        self.table.for_each_dirty(|seq, altered| {
            if let Some(reactions) = &mut altered.reactions {
                reactions.snapshot(&keys::page8(&keys::channel(keys::REACTIONS, no), *seq), rows);
            }
        });
        self.table.snapshot(&keys::channel(keys::ALTERED, no), rows);
        self.log.snapshot(&keys::channel(keys::ALTERED_LOG, no), rows);
        let mut w = Writer::row();
        w.varint(self.distinct);
        self.table.put_head(&mut w);
        self.log.put(&mut w);
        rows.push((keys::channel(keys::ALTERED_HEAD, no), Some(w.finish())));
        self.dirty = false;
    }

    /// The snapshot's rows are in the view.
    pub fn settle(&mut self) {
        self.log.settle();
    }
}
