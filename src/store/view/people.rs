//! What a channel keeps of one user: membership, role, lists, own messages, mentions.
//!
//! Owns the layout of an entry of the people table and of the seq sets that hang on it. Refuses to decide anything: its
//! channel does.

use protocol::ids::{Uid, Version};

use super::codec::{Malformed, Reader, Writer};
use super::db::{Db, Row};
use super::keys;
use super::seqset::SeqSet;
use super::table::TableValue;
use crate::domain::channel::{Listing, Membership, Role};
use crate::domain::conversation::LastOwn;
use crate::store::Result;

/// Kinds of a person's sets, in the key.
pub const OWN: u8 = 0;
pub const OWN_DEAD: u8 = 1;
const NAMED: u8 = 2;
const OWN_ALL: u8 = 3;

/// Live messages that mention a user, as far as this user's row knows.
#[derive(Debug, Default)]
pub struct Mentions {
    /// Others' messages that name the user and do not mention all.
    named: SeqSet,
    /// Own ones that mention all.
    own_all: SeqSet,
}

/// A member, a sender, somebody mentioned, or any of these.
#[derive(Debug, Default)]
pub struct Person {
    pub join_floor: u64,
    /// Version that made the user a member; 0: no member now.
    pub since: u64,
    /// Of a member.
    pub role: Role,
    pub last_own: LastOwn,
    /// Own countable seqs, whatever became of them.
    pub own: SeqSet,
    /// On which of the channel's lists the user is.
    pub listing: Listing,
    /// Those of `own` that are revoked or expired.
    pub own_dead: SeqSet,
    mentions: Option<Box<Mentions>>,
}

impl Person {
    pub fn is_member(&self) -> bool {
        self.since > 0
    }

    pub fn membership(&self) -> Option<Membership> {
        self.is_member().then(|| Membership {
            role: self.role,
            join_floor: self.join_floor,
            since: Version::new(self.since),
        })
    }

    /// Another's message names the user from now on (`on`), or no more.
    pub fn name(&mut self, db: &Db, no: u32, uid: &Uid, seq: u64, on: bool) -> Result<()> {
        let prefix = || keys::sender_set(no, NAMED, uid);
        match (&mut self.mentions, on) {
            (None, false) => Ok(()),
            (mentions, true) => mentions.get_or_insert_default().named.insert(db, &prefix, seq).map(|_| ()),
            (Some(mentions), false) => mentions.named.remove(db, &prefix, seq).map(|_| ()),
        }
    }

    /// An own message mentions all from now on (`on`), or no more.
    pub fn name_all(&mut self, db: &Db, no: u32, uid: &Uid, seq: u64, on: bool) -> Result<()> {
        let prefix = || keys::sender_set(no, OWN_ALL, uid);
        match (&mut self.mentions, on) {
            (None, false) => Ok(()),
            (mentions, true) => mentions.get_or_insert_default().own_all.insert(db, &prefix, seq).map(|_| ()),
            (Some(mentions), false) => mentions.own_all.remove(db, &prefix, seq).map(|_| ()),
        }
    }

    /// (messages above `floor` that name the user, own ones that mention all).
    pub fn mentions_after(&mut self, db: &Db, no: u32, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        let Some(mentions) = &mut self.mentions else { return Ok((0, 0)) };
        let named = mentions.named.count() - mentions.named.rank(db, &|| keys::sender_set(no, NAMED, uid), floor)?;
        let own_all = &mut mentions.own_all;
        Ok((named, own_all.count() - own_all.rank(db, &|| keys::sender_set(no, OWN_ALL, uid), floor)?))
    }

    fn has_mentions(&self) -> bool {
        self.mentions.as_ref().is_some_and(|mentions| mentions.named.count() + mentions.own_all.count() > 0)
    }

    /// Rows of changed pages of its sets.
    pub fn snapshot(&mut self, no: u32, uid: &Uid, rows: &mut Vec<Row>) {
        self.own.snapshot(&keys::sender_set(no, OWN, uid), rows);
        self.own_dead.snapshot(&keys::sender_set(no, OWN_DEAD, uid), rows);
        if let Some(mentions) = &mut self.mentions {
            mentions.named.snapshot(&keys::sender_set(no, NAMED, uid), rows);
            mentions.own_all.snapshot(&keys::sender_set(no, OWN_ALL, uid), rows);
        }
    }

    /// Those rows are in the view.
    pub fn settle(&mut self) {
        self.own.settle();
        self.own_dead.settle();
        if let Some(mentions) = &mut self.mentions {
            mentions.named.settle();
            mentions.own_all.settle();
        }
    }
}

impl TableValue for Person {
    const BYTES_HINT: u64 = 16;

    fn is_empty(&self) -> bool {
        self.since == 0 && self.last_own.seq == 0 && self.listing.is_none() && !self.has_mentions()
    }

    fn put(&self, w: &mut Writer) {
        let (sent, has_role) = (self.last_own.seq > 0, self.role != Role::Member);
        let Listing { denied, allowed } = self.listing;
        let bits = [self.is_member(), sent, has_role, self.has_mentions(), denied, allowed];
        w.u8(bits.iter().rev().fold(0, |bits, &on| bits << 1 | u8::from(on)));
        if self.is_member() {
            w.varint(self.join_floor);
            w.varint(self.since);
        }
        if sent {
            w.varint(self.last_own.seq);
            w.varint(self.last_own.version.get());
            self.own.put(w);
            self.own_dead.put(w);
        }
        if has_role {
            w.u8(self.role as u8);
        }
        if let Some(mentions) = self.mentions.as_ref().filter(|_| self.has_mentions()) {
            mentions.named.put(w);
            mentions.own_all.put(w);
        }
    }

    fn take(r: &mut Reader<'_>, _seed: u64) -> Result<Self, Malformed> {
        let flags = r.u8()?;
        let mut person =
            Self { listing: Listing { denied: flags & 16 != 0, allowed: flags & 32 != 0 }, ..Self::default() };
        if flags & 1 != 0 {
            person.join_floor = r.varint()?;
            person.since = r.varint()?;
        }
        if flags & 2 != 0 {
            person.last_own = LastOwn { seq: r.varint()?, version: Version::new(r.varint()?) };
            person.own = SeqSet::take(r)?;
            person.own_dead = SeqSet::take(r)?;
        }
        if flags & 4 != 0 {
            person.role = Role::from_wire(r.u8()?).ok_or(Malformed)?;
        }
        if flags & 8 != 0 {
            person.mentions = Some(Box::new(Mentions { named: SeqSet::take(r)?, own_all: SeqSet::take(r)? }));
        }
        Ok(person)
    }

    fn weight(&self) -> usize {
        let mentions = self.mentions.as_ref();
        let mentions = mentions.map_or(0, |m| size_of::<Mentions>() + m.named.weight() + m.own_all.weight());
        self.own.weight() + self.own_dead.weight() + mentions
    }
}
