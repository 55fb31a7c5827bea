//! A user's rows in memory: settings, tokens, conversation states, relations, the packed list of channels, the log of own
//! changes.
//!
//! Invariants: as for channels, a record at or below `applied` changes nothing and decisions depend on this user's rows
//! alone; the newest page of the list and of the changes lies in the head row.

use foldhash::HashMap;
use protocol::ids::{Uid, Version};

use super::cells::Owner;
use super::change_log::ChangeLog;
use super::codec::{Malformed, Reader, Writer};
use super::db::{Db, Row};
use super::table::{Table, TableValue};
use super::{Context, damaged_row, keys};
use crate::domain::conversation::{ConversationFlags, ConversationState};
use crate::domain::user::{Relation, Strangers, UserSettings};
use crate::store::{CredentialHash, Result};

/// Channel numbers of a page of the list: at most five bytes each.
const LIST_PAGE: usize = 700;
/// Channel numbers in the head row.
const LIST_TAIL: usize = 128;

impl TableValue for ConversationState {
    const BYTES_HINT: u64 = 12;

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn put(&self, w: &mut Writer) {
        let fields = fields(self);
        w.u8(fields.iter().rev().fold(0, |bits, &n| bits << 1 | u8::from(n > 0)));
        fields.iter().filter(|&&n| n > 0).for_each(|&n| w.varint(n));
        if self.flags_version > Version::ZERO {
            w.u8(flag_bits(&self.flags));
        }
    }

    fn take(r: &mut Reader<'_>, _seed: u64) -> Result<Self, Malformed> {
        let bits = r.u8()?;
        let mut fields = [0; 8];
        for (bit, field) in fields.iter_mut().enumerate() {
            if bits >> bit & 1 == 1 {
                *field = r.varint()?;
            }
        }
        let [read_seq, read_version, delete_floor, delete_version, join_floor, join_version, left, flagged] = fields;
        Ok(Self {
            read_seq,
            read_version: Version::new(read_version),
            delete_floor,
            delete_version: Version::new(delete_version),
            join_floor,
            join_version: Version::new(join_version),
            leave_version: Version::new(left),
            flags: if flagged > 0 { flags_of(r.u8()?) } else { ConversationFlags::default() },
            flags_version: Version::new(flagged),
        })
    }

    fn weight(&self) -> usize {
        0
    }
}

fn flag_bits(f: &ConversationFlags) -> u8 {
    [f.pinned, f.muted, f.request, f.accepted].iter().rev().fold(0, |bits, &on| bits << 1 | u8::from(on))
}

fn flags_of(bits: u8) -> ConversationFlags {
    let on = |bit: u8| bits >> bit & 1 == 1;
    ConversationFlags { pinned: on(0), muted: on(1), request: on(2), accepted: on(3) }
}

impl TableValue for Relation {
    const BYTES_HINT: u64 = 1;

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn put(&self, w: &mut Writer) {
        w.u8(u8::from(self.contact) | u8::from(self.blocked) << 1);
    }

    fn take(r: &mut Reader<'_>, _seed: u64) -> Result<Self, Malformed> {
        let bits = r.u8()?;
        Ok(Self { contact: bits & 1 != 0, blocked: bits & 2 != 0 })
    }

    fn weight(&self) -> usize {
        0
    }
}

fn fields(s: &ConversationState) -> [u64; 8] {
    [
        s.read_seq,
        s.read_version.get(),
        s.delete_floor,
        s.delete_version.get(),
        s.join_floor,
        s.join_version.get(),
        s.leave_version.get(),
        s.flags_version.get(),
    ]
}

/// A token of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub device_flag: u8,
    pub device_level: u8,
    pub hash: CredentialHash,
}

#[derive(Debug)]
struct Page<T> {
    rows: Vec<T>,
    dirty: bool,
}

/// The state of one user; of an unknown one when it is empty.
#[derive(Debug)]
pub struct UserState {
    uid: Uid,
    applied: u64,
    created: bool,
    sent: bool,
    settings: UserSettings,
    tokens: Vec<Token>,
    states: Table<u32, ConversationState>,
    /// What others are to the user.
    relations: Table<Uid, Relation>,
    /// How many commands were taken, and the last one's id.
    commands_read: (u64, u64),
    /// In how many channels the user is a member now.
    member_of: u64,
    list_count: u64,
    list_pages: u32,
    list_tail: Vec<u32>,
    list_full: HashMap<u32, Page<u32>>,
    changes: ChangeLog,
    dirty: bool,
    /// Tokens whose rows changed since the last snapshot.
    pub tokens_dirty: Vec<CredentialHash>,
}

impl Owner for UserState {
    type Id = Uid;

    fn load(ctx: &Context<'_>, uid: &Uid) -> Result<Self> {
        let key = keys::user(keys::USER, uid.as_str());
        match ctx.db.get(&key)? {
            None => Ok(Self::absent(uid, ctx.seed)),
            Some(row) => Self::decode(uid, &row, ctx.seed).map_err(|m| damaged_row(&key, m)),
        }
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn weight(&self) -> usize {
        550 + self.states.weight()
            + self.relations.weight()
            + 4 * self.list_tail.capacity()
            + self.changes.weight()
            + self.list_full.len() * 4 * LIST_PAGE
    }
}

fn put_list(w: &mut Writer, list: &[u32]) {
    w.varint(list.len() as u64);
    let mut previous = 0;
    for &no in list {
        w.zigzag(i64::from(no) - previous);
        previous = i64::from(no);
    }
}

fn take_list(r: &mut Reader<'_>) -> Result<Vec<u32>, Malformed> {
    let count = r.count(super::codec::ROW_BYTES_MAX)?;
    let mut list = Vec::with_capacity(count);
    let mut previous = 0i64;
    for _ in 0..count {
        previous = previous.checked_add(r.zigzag()?).ok_or(Malformed)?;
        list.push(u32::try_from(previous).map_err(|_| Malformed)?);
    }
    Ok(list)
}

impl UserState {
    fn absent(uid: &Uid, seed: u64) -> Self {
        Self {
            uid: uid.clone(),
            applied: 0,
            created: false,
            sent: false,
            settings: UserSettings::default(),
            tokens: Vec::new(),
            states: Table::new(seed),
            relations: Table::new(seed),
            commands_read: (0, 0),
            member_of: 0,
            list_count: 0,
            list_pages: 0,
            list_tail: Vec::new(),
            list_full: HashMap::default(),
            changes: ChangeLog::default(),
            dirty: false,
            tokens_dirty: Vec::new(),
        }
    }

    fn decode(uid: &Uid, row: &[u8], seed: u64) -> Result<Self, Malformed> {
        let mut r = Reader::row(row)?;
        let mut state = Self::absent(uid, seed);
        state.applied = r.varint()?;
        let flags = r.u8()?;
        (state.created, state.sent) = (flags & 1 != 0, flags & 2 != 0);
        state.settings = UserSettings { strangers: Strangers::from_stored(flags >> 2).ok_or(Malformed)? };
        for _ in 0..r.count(256)? {
            let token = Token { device_flag: r.u8()?, device_level: r.u8()?, hash: r.array()? };
            state.tokens.push(token);
        }
        state.states = Table::take_head(&mut r, seed)?;
        state.relations = Table::take_head(&mut r, seed)?;
        state.commands_read = (r.varint()?, r.varint()?);
        state.member_of = r.varint()?;
        state.list_count = r.varint()?;
        state.list_pages = r.varint32()?;
        state.list_tail = take_list(&mut r)?;
        state.changes = ChangeLog::take(&mut r)?;
        Ok(state)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::row();
        w.varint(self.applied);
        w.u8(u8::from(self.created) | u8::from(self.sent) << 1 | (self.settings.strangers as u8) << 2);
        w.varint(self.tokens.len() as u64);
        for token in &self.tokens {
            w.u8(token.device_flag);
            w.u8(token.device_level);
            w.raw(&token.hash);
        }
        self.states.put_head(&mut w);
        self.relations.put_head(&mut w);
        w.varint(self.commands_read.0);
        w.varint(self.commands_read.1);
        w.varint(self.member_of);
        w.varint(self.list_count);
        w.varint(u64::from(self.list_pages));
        put_list(&mut w, &self.list_tail);
        self.changes.put(&mut w);
        w.finish()
    }

    fn begin(&mut self, version: Version) -> bool {
        if version.get() <= self.applied {
            return false;
        }
        self.applied = version.get();
        self.dirty = true;
        true
    }

    // Records.

    pub fn create(&mut self, version: Version) {
        if self.begin(version) {
            self.created = true;
        }
    }

    /// The user has sent somewhere. Not bound to a version: it is told again whenever it may have been missed.
    pub fn has_sent(&mut self) {
        self.dirty |= !self.sent;
        self.sent = true;
    }

    /// Replaces the token of a device kind. Returns (the token that held before, whether it was applied).
    pub fn set_token(
        &mut self,
        version: Version,
        flag: u8,
        level: u8,
        token: Option<CredentialHash>,
    ) -> Option<Option<CredentialHash>> {
        if !self.begin(version) {
            return None;
        }
        let held = self.tokens.iter().position(|t| t.device_flag == flag).map(|at| self.tokens.remove(at).hash);
        if let Some(hash) = token {
            self.tokens.push(Token { device_flag: flag, device_level: level, hash });
        }
        self.tokens_dirty.extend(held);
        self.tokens_dirty.extend(token);
        Some(held)
    }

    /// Changes the state in one channel. Called once per record; a record that names a user twice has no second effect.
    fn change(
        &mut self,
        ctx: &Context<'_>,
        version: Version,
        no: u32,
        create: bool,
        change: impl FnOnce(&mut ConversationState) -> bool,
    ) -> Result<()> {
        if version.get() <= self.applied {
            return Ok(());
        }
        let uid = self.uid.clone();
        let prefix = || keys::user(keys::STATES, uid.as_str());
        let before = self.states.get(ctx.db, &prefix, &no)?.map(|s| *s);
        if before.is_none() && !create {
            return Ok(());
        }
        let mut state = before.unwrap_or_default();
        if !change(&mut state) {
            return Ok(());
        }
        let was_member = before.is_some_and(|s| s.is_member());
        *self.states.entry(ctx.db, &prefix, &no)?.0 = state;
        self.begin(version);
        self.member_of = self.member_of + u64::from(state.is_member()) - u64::from(was_member);
        if before.is_none() {
            self.list_count += 1;
            self.list_tail.push(no);
            if self.list_tail.len() >= LIST_TAIL {
                self.spill_list();
            }
        }
        self.changes.push(version.get(), u64::from(no));
        Ok(())
    }

    pub fn join(&mut self, ctx: &Context<'_>, version: Version, no: u32, floor: u64) -> Result<()> {
        self.change(ctx, version, no, true, |state| {
            if state.is_member() {
                return false;
            }
            state.join_floor = floor;
            state.join_version = version;
            true
        })
    }

    pub fn leave(&mut self, ctx: &Context<'_>, version: Version, no: u32, delete_floor: u64) -> Result<()> {
        self.change(ctx, version, no, false, |state| {
            if !state.is_member() {
                return false;
            }
            state.leave_version = version;
            state.delete_floor = state.delete_floor.max(delete_floor);
            state.delete_version = version;
            true
        })
    }

    pub fn read(&mut self, ctx: &Context<'_>, version: Version, no: u32, seq: u64) -> Result<()> {
        self.change(ctx, version, no, true, |state| {
            state.read_seq = seq;
            state.read_version = version;
            true
        })
    }

    pub fn delete(&mut self, ctx: &Context<'_>, version: Version, no: u32, delete_floor: u64) -> Result<()> {
        self.change(ctx, version, no, true, |state| {
            state.delete_floor = state.delete_floor.max(delete_floor);
            state.delete_version = version;
            true
        })
    }

    pub fn flag(&mut self, ctx: &Context<'_>, version: Version, no: u32, flags: ConversationFlags) -> Result<()> {
        self.change(ctx, version, no, true, |state| {
            state.flags = flags;
            state.flags_version = version;
            true
        })
    }

    pub fn set(&mut self, version: Version, settings: UserSettings) {
        if self.begin(version) {
            self.settings = settings;
        }
    }

    pub fn relate(&mut self, ctx: &Context<'_>, version: Version, peer: &Uid, relation: Relation) -> Result<()> {
        if self.begin(version) {
            let uid = self.uid.clone();
            *self.relations.entry(ctx.db, &|| keys::user(keys::RELATIONS, uid.as_str()), peer)?.0 = relation;
        }
        Ok(())
    }

    pub fn read_commands(&mut self, version: Version, position: u64, message_id: Version) {
        if self.begin(version) {
            self.commands_read = (position, message_id.get());
        }
    }

    /// Moves the tail into the newest page while that has room, else into a new one.
    fn spill_list(&mut self) {
        let tail = std::mem::take(&mut self.list_tail);
        if let Some(last) = self.list_pages.checked_sub(1).and_then(|last| self.list_full.get_mut(&last))
            && last.rows.len() + tail.len() <= LIST_PAGE
        {
            last.rows.extend(tail);
            last.dirty = true;
            return;
        }
        self.list_full.insert(self.list_pages, Page { rows: tail, dirty: true });
        self.list_pages += 1;
    }

    // Questions.

    pub fn is_known(&self) -> bool {
        self.created || self.sent || self.member_of > 0 || !self.tokens.is_empty()
    }

    pub fn state(&mut self, db: &Db, no: u32) -> Result<Option<ConversationState>> {
        let uid = self.uid.clone();
        Ok(self.states.get(db, &|| keys::user(keys::STATES, uid.as_str()), &no)?.map(|s| *s))
    }

    pub fn channel_count(&self) -> u64 {
        self.list_count
    }

    pub fn channels(&self, db: &Db) -> Result<Vec<u32>> {
        let mut all = Vec::with_capacity(self.list_count as usize);
        if (0..self.list_pages).any(|page| !self.list_full.contains_key(&page)) {
            let prefix = keys::user(keys::LIST, self.uid.as_str());
            db.scan_prefix(&prefix, &mut |key, row| {
                let page = key[prefix.len()..].try_into().map(u32::from_be_bytes);
                let list = page.map_err(|_| Malformed).and_then(|page| {
                    let stale = page >= self.list_pages || self.list_full.contains_key(&page);
                    if stale { Ok(Vec::new()) } else { take_list(&mut Reader::row(row)?) }
                });
                all.extend(list.map_err(|m| damaged_row(key, m))?);
                Ok(())
            })?;
        }
        self.list_full.values().for_each(|page| all.extend(&page.rows));
        all.extend(&self.list_tail);
        if all.len() as u64 != self.list_count {
            return Err(damaged_row(&keys::user(keys::LIST, self.uid.as_str()), Malformed));
        }
        Ok(all)
    }

    /// Channels with own changes above `since`, newest first, each once.
    pub fn changes(&self, db: &Db, since: u64) -> Result<Vec<u32>> {
        let prefix = || keys::user(keys::CHANGES, self.uid.as_str());
        let changed = self.changes.after(db, &prefix, since, usize::MAX)?;
        let numbers = changed.into_iter().map(|(no, _)| u32::try_from(no));
        numbers.collect::<Result<_, _>>().map_err(|_| damaged_row(&prefix(), Malformed))
    }

    pub fn commands_read(&self) -> (u64, Version) {
        (self.commands_read.0, Version::new(self.commands_read.1))
    }

    pub fn settings(&self) -> UserSettings {
        self.settings
    }

    pub fn relation(&mut self, db: &Db, peer: &Uid) -> Result<Relation> {
        let uid = self.uid.clone();
        let found = self.relations.get(db, &|| keys::user(keys::RELATIONS, uid.as_str()), peer)?;
        Ok(found.map_or(Relation::default(), |relation| *relation))
    }

    /// Everybody who is anything to the user, by uid.
    pub fn relations(&self, db: &Db) -> Result<Vec<(Uid, Relation)>> {
        let mut found = Vec::new();
        self.relations.for_each(db, &|| keys::user(keys::RELATIONS, self.uid.as_str()), |peer, relation| {
            found.extend((!relation.is_empty()).then(|| (peer.clone(), *relation)));
        })?;
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    // Checkpoint.

    /// Rewrites the log of own changes without superseded entries once they dominate.
    pub fn compact(&mut self, db: &Db) -> Result<()> {
        let uid = self.uid.clone();
        let prefix = || keys::user(keys::CHANGES, uid.as_str());
        self.dirty |= self.changes.compact(db, &prefix, self.list_count)?;
        Ok(())
    }

    /// All changed rows, to be written in one batch; afterwards the user is clean, and `settle` must follow.
    pub fn snapshot(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let uid = self.uid.as_str();
        self.states.snapshot(&keys::user(keys::STATES, uid), &mut rows);
        let list = keys::user(keys::LIST, uid);
        for (&number, page) in self.list_full.iter_mut().filter(|(_, p)| p.dirty) {
            let mut w = Writer::row();
            put_list(&mut w, &page.rows);
            rows.push((keys::page4(&list, number), Some(w.finish())));
            page.dirty = false;
        }
        self.relations.snapshot(&keys::user(keys::RELATIONS, uid), &mut rows);
        self.changes.snapshot(&keys::user(keys::CHANGES, uid), &mut rows);
        rows.push((keys::user(keys::USER, uid), Some(self.encode())));
        self.dirty = false;
        rows
    }

    /// The snapshot's rows are in the view: clean pages may go, but the newest ones, which may still have room.
    pub fn settle(&mut self) {
        let newest = self.list_pages.checked_sub(1);
        self.list_full.retain(|&n, page| page.dirty || (Some(n) == newest && page.rows.len() < LIST_PAGE - LIST_TAIL));
        self.changes.settle();
    }
}
