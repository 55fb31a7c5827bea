//! What becomes of a channel's messages after they were stored: expired, revoked, edited, reacted to, streamed; and whom they mention
//! until then.
//!
//! Invariants: counts and mentions are decided by sets and tables that change in one batch with the head, never by an index
//! page's bit alone (see [`super::super::index`]); who sent a message and whom it mentions is asked of the log, so that a
//! replay hears the same.

use protocol::ids::{Uid, Version};

use super::{ChannelState, OWN_DEAD, keys, page_of, slot_of};
use crate::domain::event::Lane;
use crate::domain::message::{Extras, Reaction};
use crate::store::log::{Finding, FindingKind, LogReader, Place, ReadError, SeqRun, files};
use crate::store::view::Context;
use crate::store::view::changes::{Changes, Edit, Found};
use crate::store::view::db::Db;
use crate::store::{ChannelNo, MessageChanges, MessageRecord, Record, Result};

/// What the log says about an edit: the content and what it refers to from then on.
pub type Edited = (bytes::Bytes, Option<Box<Extras>>);

/// The record of an edit of message (`no`, `seq`).
///
/// # Errors
/// [`ReadError::Damaged`]: what lies there is not that. [`ReadError::Io`]: the disk did not answer.
pub fn read_edit(reader: &LogReader, no: u32, seq: u64, edit: Edit) -> Result<Edited, ReadError> {
    match reader.read_record(edit.place)? {
        (version, Record::MessageEdited { channel, seq: of, payload, extras, .. })
            if (version, channel.0, of) == (edit.version, no, seq) =>
        {
            Ok((payload, extras))
        }
        _ => Err(not_there(no, seq, edit, "the message's last edit")),
    }
}

/// The record of the last event of a lane of message (`no`, `seq`).
///
/// # Errors
/// As [`read_edit`].
pub fn read_lane(reader: &LogReader, no: u32, seq: u64, number: u8, edit: Edit) -> Result<Lane, ReadError> {
    match reader.read_record(edit.place)? {
        (version, Record::MessageEvent { channel, seq: of, lane })
            if (version, channel.0, of, lane.number) == (edit.version, no, seq, number) =>
        {
            Ok(*lane)
        }
        _ => Err(not_there(no, seq, edit, "the last event of a lane of the message")),
    }
}

fn not_there(no: u32, seq: u64, edit: Edit, what: &str) -> ReadError {
    ReadError::Damaged(Finding {
        kind: FindingKind::Message,
        file: files::segment_name(edit.place.segment).into(),
        offset: u64::from(edit.place.offset),
        detail: format!("what lies there is not {what}"),
        versions: None,
        messages: vec![SeqRun { channel: ChannelNo(no), first_seq: seq, count: 1 }],
    })
}

/// `None`: damaged, which whoever reads it reports.
fn unless_damaged<T>(read: Result<T, ReadError>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(ReadError::Damaged(_)) => Ok(None),
        Err(error @ ReadError::Io { .. }) => Err(error.into()),
    }
}

impl ChannelState {
    fn changes(&mut self, db: &Db) -> Result<&mut Changes> {
        let changes = match self.changes.take() {
            Some(changes) => changes,
            None if self.has_changes => Box::new(Changes::load(db, self.no, self.seed)?),
            None => Box::new(Changes::new(self.no, self.seed)),
        };
        Ok(self.changes.insert(changes))
    }

    fn has_message(&self, seq: u64) -> bool {
        seq > 0 && seq <= self.head_seq
    }

    /// Begins a change of one message; `None`: it was applied before, or there is no such message.
    fn begin_change(&mut self, version: Version, seq: u64) -> Option<()> {
        let begun = self.begin(version) && self.has_message(seq);
        begun.then(|| self.changed = version.get())
    }

    /// Writes a message's change into the log of changes; `fresh`: its page said that nothing became of it before.
    fn note(&mut self, db: &Db, version: Version, seq: u64, fresh: bool) -> Result<()> {
        self.changes(db)?.note(version, seq, fresh);
        self.has_changes = true;
        Ok(())
    }

    /// Marks messages as expired.
    pub fn expire(&mut self, ctx: &Context<'_>, version: Version, seqs: &[u64]) -> Result<()> {
        if !self.begin(version) {
            return Ok(());
        }
        self.changed = version.get();
        for &seq in seqs {
            if !self.has_message(seq) {
                continue;
            }
            let slot = slot_of(seq);
            let page = self.page_mut(ctx, page_of(seq))?;
            let fresh = !page.is_touched(slot);
            page.expired |= 1 << slot;
            self.take_out(ctx, seq)?;
            self.note(ctx.db, version, seq, fresh)?;
        }
        Ok(())
    }

    /// Takes a message back, unless it is expired. `true`: there is such a message and this is news.
    pub fn revoke(&mut self, ctx: &Context<'_>, version: Version, seq: u64) -> Result<bool> {
        if self.begin_change(version, seq).is_none() {
            return Ok(false);
        }
        let slot = slot_of(seq);
        let page = self.page_mut(ctx, page_of(seq))?;
        let fresh = !page.is_touched(slot);
        if !page.is_expired(slot) {
            page.revoked |= 1 << slot;
        }
        self.take_out(ctx, seq)?;
        self.note(ctx.db, version, seq, fresh)?;
        Ok(true)
    }

    /// Replaces what a message says by what lies at `place`. `true`: as for [`ChannelState::revoke`].
    pub fn edit(
        &mut self,
        ctx: &Context<'_>,
        version: Version,
        place: Place,
        seq: u64,
        extras: Option<&Extras>,
    ) -> Result<bool> {
        if self.begin_change(version, seq).is_none() {
            return Ok(false);
        }
        let slot = slot_of(seq);
        let page = self.page_mut(ctx, page_of(seq))?;
        let (fresh, over) = (!page.is_touched(slot), page.is_expired(slot) || page.is_revoked(slot));
        let had_mentions = page.has_mentions(slot);
        page.altered |= 1 << slot;
        let mentioning = extras.filter(|extras| extras.mention_all || !extras.mentions.is_empty());
        if (had_mentions || mentioning.is_some())
            && let Some(stored) = self.read_stored(ctx, seq)?
        {
            if let Some(before) = self.present_extras(ctx, seq, &stored)? {
                self.mention(ctx, seq, &stored.from_uid, &before, false)?;
            }
            if let Some(extras) = mentioning.filter(|_| !over) {
                self.mention(ctx, seq, &stored.from_uid, extras, true)?;
            }
        }
        self.changes(ctx.db)?.set_edit(ctx.db, seq, Edit { place, version })?;
        self.note(ctx.db, version, seq, fresh)?;
        Ok(true)
    }

    /// Marks a message as one that more is known of than its record says, and tells whether this is the first change to it.
    /// `None`: there is no such message, or this is no news.
    fn begin_altering(&mut self, ctx: &Context<'_>, version: Version, seq: u64) -> Result<Option<bool>> {
        if self.begin_change(version, seq).is_none() {
            return Ok(None);
        }
        let slot = slot_of(seq);
        let page = self.page_mut(ctx, page_of(seq))?;
        let fresh = !page.is_touched(slot);
        page.altered |= 1 << slot;
        Ok(Some(fresh))
    }

    /// Sets or takes away a user's reaction. `true`: as for [`ChannelState::revoke`].
    pub fn react(
        &mut self,
        ctx: &Context<'_>,
        version: Version,
        seq: u64,
        uid: &Uid,
        reaction: Option<Reaction>,
    ) -> Result<bool> {
        let Some(fresh) = self.begin_altering(ctx, version, seq)? else { return Ok(false) };
        self.changes(ctx.db)?.react(ctx.db, version, seq, uid, reaction)?;
        self.note(ctx.db, version, seq, fresh)?;
        Ok(true)
    }

    /// What a lane of a message is from now on lies at `place`. `true`: as for [`ChannelState::revoke`].
    pub fn happen(&mut self, ctx: &Context<'_>, version: Version, place: Place, seq: u64, number: u8) -> Result<bool> {
        let Some(fresh) = self.begin_altering(ctx, version, seq)? else { return Ok(false) };
        self.changes(ctx.db)?.set_lane(ctx.db, seq, number, Edit { place, version })?;
        self.note(ctx.db, version, seq, fresh)?;
        Ok(true)
    }

    /// A message that is over counts for nobody and mentions nobody. Doing it twice changes nothing.
    fn take_out(&mut self, ctx: &Context<'_>, seq: u64) -> Result<()> {
        let (no, slot) = (self.no, slot_of(seq));
        let page = self.page_mut(ctx, page_of(seq))?;
        let (countable, mentions) = (page.is_countable(slot), page.has_mentions(slot));
        let dies = countable && self.dead.insert(ctx.db, &|| keys::channel(keys::DEAD_SET, no), seq)?;
        if !dies && !mentions {
            return Ok(());
        }
        // Whose it was is asked of the log: the index does not keep senders. A damaged record has no sender any more; its
        // count is off for nobody but that sender.
        let Some(stored) = self.read_stored(ctx, seq)? else { return Ok(()) };
        if dies {
            let from = &stored.from_uid;
            let (person, _) = self.people.entry(ctx.db, &|| keys::channel(keys::PEOPLE, no), from)?;
            person.own_dead.insert(ctx.db, &|| keys::sender_set(no, OWN_DEAD, from), seq)?;
        }
        if mentions && let Some(extras) = self.present_extras(ctx, seq, &stored)? {
            self.mention(ctx, seq, &stored.from_uid, &extras, false)?;
        }
        Ok(())
    }

    fn read_stored(&self, ctx: &Context<'_>, seq: u64) -> Result<Option<MessageRecord>> {
        let Some(located) = self.locate(ctx.db, seq)? else { return Ok(None) };
        let read = ctx.reader.read_message(located.place, ChannelNo(self.no), seq);
        Ok(unless_damaged(read)?.map(|(_, record)| record))
    }

    /// What a message refers to as last edited.
    fn present_extras(&mut self, ctx: &Context<'_>, seq: u64, stored: &MessageRecord) -> Result<Option<Box<Extras>>> {
        let no = self.no;
        let edit = if self.has_changes { self.changes(ctx.db)?.edit(ctx.db, seq)? } else { None };
        match edit {
            None => Ok(stored.extras.clone()),
            Some(edit) => Ok(unless_damaged(read_edit(ctx.reader, no, seq, edit))?.and_then(|(_, extras)| extras)),
        }
    }

    /// A message of `from` mentions these from now on (`on`), or no more.
    pub(super) fn mention(&mut self, ctx: &Context<'_>, seq: u64, from: &Uid, extras: &Extras, on: bool) -> Result<()> {
        let (db, no) = (ctx.db, self.no);
        if extras.mentions.is_empty() && !extras.mention_all {
            return Ok(());
        }
        if on {
            self.page_mut(ctx, page_of(seq))?.mentions |= 1 << slot_of(seq);
        }
        let prefix = || keys::channel(keys::PEOPLE, no);
        if extras.mention_all {
            let all = || keys::channel(keys::ALL_SET, no);
            match on {
                true => self.mention_all.insert(db, &all, seq)?,
                false => self.mention_all.remove(db, &all, seq)?,
            };
            return self.people.entry(db, &prefix, from)?.0.name_all(db, no, from, seq, on);
        }
        // Nobody mentions oneself.
        for uid in extras.mentions.iter().filter(|uid| *uid != from) {
            self.people.entry(db, &prefix, uid)?.0.name(db, no, uid, seq, on)?;
        }
        Ok(())
    }

    // Questions.

    /// How many live messages of others above `floor` mention the user.
    pub fn mentions_after(&mut self, db: &Db, uid: &Uid, floor: u64) -> Result<u64> {
        let no = self.no;
        let all = match self.mention_all.count() {
            0 => 0,
            count => count - self.mention_all.rank(db, &|| keys::channel(keys::ALL_SET, no), floor)?,
        };
        let (named, own_all) = match self.people.get(db, &|| keys::channel(keys::PEOPLE, no), uid)? {
            Some(person) => person.mentions_after(db, no, uid, floor)?,
            None => (0, 0),
        };
        Ok(named + all.saturating_sub(own_all))
    }

    /// See [`Changes::of`].
    pub fn altered(&mut self, db: &Db, seq: u64, shown: bool) -> Result<Found> {
        if self.has_changes { self.changes(db)?.of(db, seq, shown) } else { Ok(Found::default()) }
    }

    /// See [`crate::store::Store::message_changes`].
    pub fn message_changes(&mut self, db: &Db, since: u64, max: usize) -> Result<MessageChanges> {
        if !self.has_changes || self.changed <= since {
            return Ok(MessageChanges::default());
        }
        let changed = self.changes(db)?.after(db, since, max)?;
        let mut changes: Vec<(u64, Version)> =
            changed.into_iter().map(|(seq, version)| (seq, Version::new(version))).collect();
        changes.sort_unstable_by_key(|(seq, version)| (std::cmp::Reverse(*version), *seq));
        let more = changes.len() > max;
        changes.truncate(max);
        Ok(MessageChanges { changes, more })
    }

    // Checkpoint.

    /// Rewrites the log of changes without superseded entries once they dominate.
    pub fn compact(&mut self, db: &Db) -> Result<()> {
        self.changes.as_mut().map_or(Ok(()), |changes| changes.compact(db))
    }
}
