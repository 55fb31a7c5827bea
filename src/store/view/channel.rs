//! A channel's rows in memory: head, people, profile, index pages, corrections, idempotency. What becomes of its messages
//! afterwards is in `altering`.
//!
//! Invariants: a record at or below `applied` changes nothing; every decision depends on this channel's rows alone, so
//! that owners written at different moments of a checkpoint replay to the same state; the page of the last message lies
//! in the head row.

use foldhash::HashMap;
use protocol::ids::{ChannelKey, ChannelType, Uid, Version};

use super::cells::Owner;
use super::changes::Changes;
use super::codec::{Malformed, Reader, Writer};
use super::db::{Db, Row};
use super::index::{Entry, IndexPage, PAGE_SEQS, page_of, slot_of};
use super::people::{OWN, OWN_DEAD, Person};
use super::runs::Runs;
use super::seqset::SeqSet;
use super::table::{ColdBuckets, Table};
use super::{Context, damaged_row, keys, parts};
use crate::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Membership, Role};
use crate::domain::conversation::LastOwn;
use crate::domain::message::{Digest, chain_digest, fingerprint};
use crate::store::log::Place;
use crate::store::{ChannelInfo, ChannelNo, MessageRecord, Result, StoreError};

mod altering;
mod lists;

pub use altering::{read_edit, read_lane};
pub use lists::{cold_listed, hot_listed};

#[derive(Debug)]
struct FullPage {
    page: IndexPage,
    dirty: bool,
}

/// What became of a seq, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    pub seq: u64,
    pub place: Place,
    pub expired: bool,
    pub revoked: bool,
    /// The channel's changes know more about it.
    pub altered: bool,
}

impl Located {
    /// Whether it has nothing to show any more.
    pub fn is_over(&self) -> bool {
        self.expired || self.revoked
    }
}

/// The state of one channel; of one that does not exist when `key` is `None`.
#[derive(Debug)]
pub struct ChannelState {
    no: u32,
    seed: u64,
    applied: u64,
    key: Option<ChannelKey>,
    head_seq: u64,
    head_version: u64,
    created: u64,
    changed: u64,
    settings: ChannelSettings,
    member_count: u64,
    /// How many are on each list, by [`ChannelList`].
    listed_counts: [u64; 2],
    people: Table<Uid, Person>,
    /// The page of `head_seq`; empty when there is no message.
    tail: IndexPage,
    /// Full pages not known to be in the view as they are.
    pages: HashMap<u64, FullPage>,
    /// Countable seqs that are revoked or expired.
    dead: SeqSet,
    /// Live seqs that mention all.
    mention_all: SeqSet,
    /// Seqs of commands, whatever became of them.
    commands: SeqSet,
    /// Loaded when first needed; `None` while `has_changes` is not set means that there are none.
    changes: Option<Box<Changes>>,
    has_changes: bool,
    /// Loaded when first needed.
    profile: Option<Box<ChannelProfile>>,
    /// Rows it fills; 0: there is none in the view.
    profile_parts: u8,
    profile_dirty: bool,
    runs: Runs,
    dirty: bool,
    /// Its rows are on their way into the view: nothing may be dropped.
    in_flight: bool,
    /// Aliases and the name to write with the next snapshot.
    pub names_dirty: bool,
    pub aliases_dirty: Vec<String>,
}

/// Rows of a snapshot.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Rows addressed by position, harmless when they become durable before the head.
    pub early: Vec<Row>,
    /// Rows that change in place, with the head: one batch.
    pub together: Vec<Row>,
}

fn settings_bits(s: &ChannelSettings) -> u8 {
    [s.ban, s.disband, s.send_ban, s.large, s.allow_stranger].iter().rev().fold(0, |bits, &on| bits << 1 | u8::from(on))
}

fn settings_of(bits: u8) -> ChannelSettings {
    let on = |bit: u8| bits >> bit & 1 == 1;
    ChannelSettings { ban: on(0), disband: on(1), send_ban: on(2), large: on(3), allow_stranger: on(4) }
}

/// The fields at the head row's begin, which the scan at start reads without the rest: (last change, channel type).
pub fn peek_head(row: &[u8]) -> Result<(u64, u8), Malformed> {
    let mut r = Reader::row(row)?;
    r.varint()?;
    Ok((r.varint()?, r.u8()?))
}

impl Owner for ChannelState {
    type Id = u32;

    fn load(ctx: &Context<'_>, no: &u32) -> Result<Self> {
        let key = keys::channel(keys::HEAD, *no);
        match ctx.db.get(&key)? {
            None => Ok(Self::absent(*no, ctx.seed)),
            Some(row) => Self::decode(*no, &row, ctx.seed).map_err(|m| damaged_row(&key, m)),
        }
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn weight(&self) -> usize {
        let entries = self.tail.entries.capacity() + self.pages.len() * PAGE_SEQS as usize;
        let sets = self.dead.weight() + self.mention_all.weight() + self.commands.weight();
        let changes = self.changes.as_ref().map_or(0, |changes| changes.weight());
        let profile = self.profile.as_ref().map_or(0, |p| size_of::<ChannelProfile>() + profile_bytes(p));
        750 + entries * size_of::<Entry>() + self.people.weight() + sets + self.runs.weight() + changes + profile
    }
}

impl ChannelState {
    fn absent(no: u32, seed: u64) -> Self {
        Self {
            no,
            seed,
            applied: 0,
            key: None,
            head_seq: 0,
            head_version: 0,
            created: 0,
            changed: 0,
            settings: ChannelSettings::default(),
            member_count: 0,
            listed_counts: [0, 0],
            people: Table::new(seed),
            tail: IndexPage::default(),
            pages: HashMap::default(),
            dead: SeqSet::default(),
            mention_all: SeqSet::default(),
            commands: SeqSet::default(),
            changes: None,
            has_changes: false,
            profile: None,
            profile_parts: 0,
            profile_dirty: false,
            runs: Runs::new(seed),
            dirty: false,
            in_flight: false,
            names_dirty: false,
            aliases_dirty: Vec::new(),
        }
    }

    fn decode(no: u32, row: &[u8], seed: u64) -> Result<Self, Malformed> {
        let mut r = Reader::row(row)?;
        let (applied, changed) = (r.varint()?, r.varint()?);
        let channel_type = ChannelType::from_wire(r.u8()?).map_err(|_| Malformed)?;
        let key = ChannelKey::from_stored(r.text()?, channel_type);
        let mut state = Self {
            applied,
            changed,
            key: Some(key),
            head_seq: r.varint()?,
            head_version: r.varint()?,
            created: r.varint()?,
            has_changes: r.u8()? != 0,
            profile_parts: r.u8()?,
            settings: settings_of(r.u8()?),
            member_count: r.varint()?,
            listed_counts: [r.varint()?, r.varint()?],
            people: Table::take_head(&mut r, seed)?,
            tail: IndexPage::take(&mut r)?,
            dead: SeqSet::take(&mut r)?,
            mention_all: SeqSet::take(&mut r)?,
            commands: SeqSet::take(&mut r)?,
            runs: Runs::take(&mut r, seed)?,
            ..Self::absent(no, seed)
        };
        let expected = if state.head_seq == 0 { 0 } else { slot_of(state.head_seq) + 1 };
        if state.tail.entries.len() != expected {
            return Err(Malformed);
        }
        state.warm_from_tail();
        Ok(state)
    }

    fn encode(&self, key: &ChannelKey) -> Vec<u8> {
        let mut w = Writer::row();
        w.varint(self.applied);
        w.varint(self.changed);
        w.u8(key.channel_type().to_wire());
        w.text(key.channel_id());
        w.varint(self.head_seq);
        w.varint(self.head_version);
        w.varint(self.created);
        w.u8(u8::from(self.has_changes));
        w.u8(self.profile_parts);
        w.u8(settings_bits(&self.settings));
        w.varint(self.member_count);
        self.listed_counts.iter().for_each(|count| w.varint(*count));
        self.people.put_head(&mut w);
        self.tail.put(&mut w);
        self.dead.put(&mut w);
        self.mention_all.put(&mut w);
        self.commands.put(&mut w);
        self.runs.put(&mut w);
        w.finish()
    }

    /// Whether a record of this version is still to be applied; if so the channel is dirty and at that version.
    fn begin(&mut self, version: Version) -> bool {
        if version.get() <= self.applied {
            return false;
        }
        self.applied = version.get();
        self.dirty = true;
        true
    }

    // Records.

    /// Creates the channel with its implied members.
    pub fn create(&mut self, ctx: &Context<'_>, version: Version, key: &ChannelKey) -> Result<()> {
        if !self.begin(version) {
            return Ok(());
        }
        self.key = Some(key.clone());
        self.created = version.get();
        self.names_dirty = true;
        for uid in super::implied_members(key) {
            self.join(ctx, version, 0, &uid)?;
        }
        Ok(())
    }

    pub fn set(&mut self, version: Version, settings: &ChannelSettings) {
        if self.begin(version) {
            self.settings = *settings;
            self.changed = version.get();
        }
    }

    pub fn set_profile(&mut self, version: Version, profile: &ChannelProfile) {
        if self.begin(version) {
            self.profile = Some(Box::new(profile.clone()));
            self.profile_dirty = true;
            self.changed = version.get();
        }
    }

    /// Appends a message. `true`: the first of this sender here.
    pub fn append(&mut self, ctx: &Context<'_>, version: Version, place: Place, m: &MessageRecord) -> Result<bool> {
        if version.get() <= self.applied {
            return Ok(false);
        }
        let seq = m.message_seq.get();
        let countable = m.flags.red_dot && !m.flags.sync_once;
        let digest = chain_digest(&self.digest(), seq, version, &m.from_uid, &m.client_msg_no, &m.payload);
        let fingerprint = fingerprint(&m.from_uid, &m.client_msg_no);
        self.push(version, seq, Entry { place, digest, fingerprint }, countable)?;
        self.runs.push(fingerprint, seq);
        let no = self.no;
        if m.flags.sync_once {
            self.commands.insert(ctx.db, &|| keys::channel(keys::COMMANDS, no), seq)?;
        }
        let prefix = || keys::channel(keys::PEOPLE, no);
        let (person, _) = self.people.entry(ctx.db, &prefix, &m.from_uid)?;
        let first = person.last_own.seq == 0;
        person.last_own = LastOwn { seq, version };
        if countable {
            person.own.insert(ctx.db, &|| keys::sender_set(no, OWN, &m.from_uid), seq)?;
        }
        if let Some(extras) = &m.extras {
            self.mention(ctx, seq, &m.from_uid, extras, true)?;
        }
        Ok(first)
    }

    /// Appends a message whose record is damaged: its seq stays taken, its place is kept.
    pub fn append_hole(&mut self, version: Version, place: Place, seq: u64) -> Result<()> {
        if version.get() <= self.applied {
            return Ok(());
        }
        let (nobody, nothing) = (Uid::from_stored(""), protocol::ids::ClientMsgNo::from_stored(""));
        let digest = chain_digest(&self.digest(), seq, version, &nobody, &nothing, &[]);
        self.push(version, seq, Entry { place, digest, fingerprint: 0 }, false)
    }

    fn push(&mut self, version: Version, seq: u64, entry: Entry, countable: bool) -> Result<()> {
        if self.key.is_none() || seq != self.head_seq + 1 {
            let detail = format_args!("channel number {}: message_seq {seq} after head {}", self.no, self.head_seq);
            return Err(StoreError::damaged("apply message", detail));
        }
        self.begin(version);
        if self.tail.entries.len() == PAGE_SEQS as usize {
            let next = IndexPage { base: self.tail.countable_total(), ..IndexPage::default() };
            let page = std::mem::replace(&mut self.tail, next);
            self.pages.insert(page_of(self.head_seq), FullPage { page, dirty: true });
        }
        self.tail.countable |= u64::from(countable) << slot_of(seq);
        self.tail.entries.push(entry);
        self.head_seq = seq;
        self.head_version = version.get();
        self.changed = version.get();
        Ok(())
    }

    fn join(&mut self, ctx: &Context<'_>, version: Version, floor: u64, uid: &Uid) -> Result<()> {
        let no = self.no;
        let (person, _) = self.people.entry(ctx.db, &|| keys::channel(keys::PEOPLE, no), uid)?;
        if person.since == 0 {
            person.since = version.get();
            person.join_floor = floor;
            self.member_count += 1;
        }
        Ok(())
    }

    pub fn add_members(&mut self, ctx: &Context<'_>, version: Version, floor: u64, uids: &[Uid]) -> Result<()> {
        if self.begin(version) {
            for uid in uids {
                self.join(ctx, version, floor, uid)?;
            }
        }
        Ok(())
    }

    pub fn remove_members(&mut self, ctx: &Context<'_>, version: Version, uids: &[Uid]) -> Result<()> {
        if !self.begin(version) {
            return Ok(());
        }
        let no = self.no;
        let prefix = || keys::channel(keys::PEOPLE, no);
        for uid in uids {
            if self.people.get(ctx.db, &prefix, uid)?.is_some_and(|person| person.since > 0) {
                let (person, _) = self.people.entry(ctx.db, &prefix, uid)?;
                person.since = 0;
                person.join_floor = 0;
                person.role = Role::Member;
                self.member_count = self.member_count.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Who is no member keeps none.
    pub fn set_role(&mut self, ctx: &Context<'_>, version: Version, uid: &Uid, role: Role) -> Result<()> {
        if !self.begin(version) {
            return Ok(());
        }
        let no = self.no;
        let prefix = || keys::channel(keys::PEOPLE, no);
        if self.people.get(ctx.db, &prefix, uid)?.is_some_and(|person| person.is_member()) {
            self.people.entry(ctx.db, &prefix, uid)?.0.role = role;
        }
        Ok(())
    }

    /// `false`: it was applied before.
    pub fn name_alias(&mut self, version: Version, alias: &str) -> bool {
        let begun = self.begin(version);
        if begun {
            self.aliases_dirty.push(alias.to_owned());
        }
        begun
    }

    // Pages.

    fn page_mut(&mut self, ctx: &Context<'_>, number: u64) -> Result<&mut IndexPage> {
        if number == page_of(self.head_seq) {
            return Ok(&mut self.tail);
        }
        if !self.pages.contains_key(&number) {
            let page = read_page(ctx.db, self.no, number)?;
            self.pages.insert(number, FullPage { page, dirty: false });
        }
        let full = self.pages.entry(number).or_insert_with(|| FullPage { page: IndexPage::default(), dirty: true });
        full.dirty = true;
        Ok(&mut full.page)
    }

    /// A page in memory.
    pub fn page(&self, number: u64) -> Option<&IndexPage> {
        if self.head_seq > 0 && number == page_of(self.head_seq) {
            return Some(&self.tail);
        }
        self.pages.get(&number).map(|full| &full.page)
    }

    /// Runs on a page, from memory or from the view; it is not kept.
    fn on_page<T>(&self, db: &Db, number: u64, ask: impl FnOnce(&IndexPage) -> T) -> Result<T> {
        match self.page(number) {
            Some(page) => Ok(ask(page)),
            None => Ok(ask(&read_page(db, self.no, number)?)),
        }
    }

    // Questions.

    pub fn head_seq(&self) -> u64 {
        self.head_seq
    }

    pub fn key(&self) -> Option<&ChannelKey> {
        self.key.as_ref()
    }

    /// The digest over all messages.
    pub fn digest(&self) -> Digest {
        self.tail.entries.last().map_or(Digest::default(), |entry| entry.digest)
    }

    pub fn info(&self) -> Option<ChannelInfo> {
        Some(ChannelInfo {
            channel: ChannelNo(self.no),
            key: self.key.clone()?,
            head_seq: self.head_seq,
            head_version: Version::new(self.head_version),
            created: Version::new(self.created),
            changed_version: Version::new(self.changed),
            digest: self.digest(),
            settings: self.settings,
            member_count: self.member_count,
            denied_count: self.listed_counts[ChannelList::Deny as usize],
            allowed_count: self.listed_counts[ChannelList::Allow as usize],
        })
    }

    pub fn digest_at(&self, db: &Db, seq: u64) -> Result<Option<Digest>> {
        if self.key.is_none() || seq > self.head_seq {
            return Ok(None);
        }
        if seq == 0 {
            return Ok(Some(Digest::default()));
        }
        self.on_page(db, page_of(seq), |page| page.entries.get(slot_of(seq)).map(|entry| entry.digest))
    }

    pub fn membership(&mut self, db: &Db, uid: &Uid) -> Result<Option<Membership>> {
        let no = self.no;
        let person = self.people.get(db, &|| keys::channel(keys::PEOPLE, no), uid)?;
        Ok(person.and_then(|person| person.membership()))
    }

    /// Members in memory, and the buckets the others are in.
    pub fn hot_members(&self, members: &mut Vec<(Uid, Membership)>) -> ColdBuckets {
        self.people.for_each_hot(|uid, person| members.extend(member(uid, person)))
    }

    /// See [`crate::store::Store::profile`].
    pub fn profile(&mut self, db: &Db) -> Result<Option<ChannelProfile>> {
        if self.profile.is_none() && self.profile_parts > 0 {
            let prefix = keys::channel(keys::PROFILE, self.no);
            let key = |part| keys::bucket(&prefix, 0, part);
            let profile = match parts::read(db, &key)? {
                Some((bytes, _)) => take_profile(&mut Reader::part(&bytes)),
                None => Err(Malformed),
            };
            self.profile = Some(Box::new(profile.map_err(|m| damaged_row(&key(0), m))?));
        }
        Ok(self.profile.as_deref().cloned())
    }

    /// See [`Table::stamp`].
    pub fn people_stamp(&self) -> u64 {
        self.people.stamp()
    }

    pub fn last_own(&mut self, db: &Db, uid: &Uid) -> Result<LastOwn> {
        let no = self.no;
        let person = self.people.get(db, &|| keys::channel(keys::PEOPLE, no), uid)?;
        Ok(person.map_or(LastOwn::default(), |person| person.last_own))
    }

    /// Where a message lies; `None` beyond the head.
    pub fn locate(&self, db: &Db, seq: u64) -> Result<Option<Located>> {
        if seq == 0 || seq > self.head_seq {
            return Ok(None);
        }
        self.on_page(db, page_of(seq), |page| located(page, seq))
    }

    /// What the index says of a page's messages, as far as the head goes: for a check.
    pub fn index_page(&self, db: &Db, number: u64) -> Result<Vec<(Place, Digest)>> {
        if self.head_seq == 0 || number > page_of(self.head_seq) {
            return Ok(Vec::new());
        }
        self.on_page(db, number, |page| page.entries.iter().map(|entry| (entry.place, entry.digest)).collect())
    }

    /// Countable messages (of anybody, corrections not applied) up to `seq`.
    fn cumulative(&self, db: &Db, seq: u64) -> Result<u64> {
        if seq == 0 {
            return Ok(0);
        }
        if seq >= self.head_seq {
            return Ok(self.tail.countable_total());
        }
        self.on_page(db, page_of(seq), |page| page.countable_to(slot_of(seq)))
    }

    /// How many messages above `floor` count as unread for `uid`.
    pub fn countable_after(&mut self, db: &Db, uid: &Uid, floor: u64) -> Result<u64> {
        let floor = floor.min(self.head_seq);
        let all = self.tail.countable_total() - self.cumulative(db, floor)?;
        if all == 0 {
            return Ok(0);
        }
        let no = self.no;
        let dead = self.dead.count() - self.dead.rank(db, &|| keys::channel(keys::DEAD_SET, no), floor)?;
        let own = match self.people.get(db, &|| keys::channel(keys::PEOPLE, no), uid)? {
            Some(person) if person.last_own.seq > floor => {
                let own = person.own.count() - person.own.rank(db, &|| keys::sender_set(no, OWN, uid), floor)?;
                let own_dead = person.own_dead.count()
                    - person.own_dead.rank(db, &|| keys::sender_set(no, OWN_DEAD, uid), floor)?;
                own.saturating_sub(own_dead)
            }
            _ => 0,
        };
        Ok(all.saturating_sub(dead).saturating_sub(own))
    }

    /// See [`crate::store::Store::position_for_unread`].
    pub fn position_for_unread(&mut self, db: &Db, uid: &Uid, unread: u64, floor_min: u64) -> Result<(u64, u64)> {
        if unread == 0 {
            return Ok((self.head_seq.max(floor_min), 0));
        }
        let most = self.countable_after(db, uid, floor_min)?;
        if most < unread {
            return Ok((floor_min, most));
        }
        // At `low` at least `unread` follow, at `high` fewer. Guesses by proportion land close when messages are alike;
        // every other step halves, so that the number of steps is bounded when they are not.
        let (mut low, mut high) = (floor_min, self.head_seq);
        let (mut at_low, mut at_high) = (most, 0);
        let mut halve = false;
        while high - low > 1 {
            let span = high - low;
            let guess = if halve {
                low + span / 2
            } else {
                let share = u128::from(span) * u128::from(at_low - unread) / u128::from(at_low - at_high);
                low + (share as u64).clamp(1, span - 1)
            };
            halve = !halve;
            let after = self.countable_after(db, uid, guess)?;
            if after >= unread {
                (low, at_low) = (guess, after);
            } else {
                (high, at_high) = (guess, after);
            }
        }
        Ok((low, unread))
    }

    // Idempotency.

    fn warm_from_tail(&mut self) {
        if self.runs.covered() == 0 && self.head_seq <= PAGE_SEQS {
            self.runs.load(self.tail.entries.iter().zip(1..).map(|(entry, seq)| (entry.fingerprint, seq)));
        }
    }

    pub fn is_absent(&self, fingerprint: u64) -> bool {
        self.runs.is_absent(fingerprint)
    }

    /// Loads the fingerprints no run covers.
    pub fn load_fresh(&mut self, db: &Db) -> Result<()> {
        if self.runs.is_loaded() {
            return Ok(());
        }
        let fingerprints = self.fingerprints(db, self.runs.covered() + 1, self.head_seq)?;
        let first = self.runs.covered() + 1;
        self.runs.load(fingerprints.into_iter().zip(first..));
        Ok(())
    }

    fn fingerprints(&self, db: &Db, first: u64, last: u64) -> Result<Vec<u64>> {
        let mut found = Vec::with_capacity((last + 1).saturating_sub(first) as usize);
        let mut seq = first;
        while seq <= last {
            let end = last.min((page_of(seq) + 1) * PAGE_SEQS);
            let taken = self.on_page(db, page_of(seq), |page| {
                let slots = page.entries.get(slot_of(seq)..=slot_of(end))?;
                found.extend(slots.iter().map(|entry| entry.fingerprint));
                Some(())
            })?;
            taken.ok_or_else(|| {
                damaged_row(&keys::page8(&keys::channel(keys::INDEX, self.no), page_of(seq)), Malformed)
            })?;
            seq = end + 1;
        }
        Ok(found)
    }

    /// Loads what `is_absent` needs, filters up to so many bytes.
    pub fn warm(&mut self, db: &Db, filter_bytes_max: usize) -> Result<()> {
        self.load_fresh(db)?;
        self.runs.warm_filters(db, self.no, filter_bytes_max)
    }

    pub fn runs(&mut self) -> &mut Runs {
        &mut self.runs
    }

    /// Whether a checkpoint should make runs first.
    pub fn wants_run(&self) -> bool {
        self.runs.wants_run(self.head_seq)
    }

    /// Fingerprints of the next run.
    pub fn next_run(&self, db: &Db, covered: u64) -> Result<Option<Vec<u64>>> {
        if self.head_seq.saturating_sub(covered) < 2 * super::runs::RUN_SEQS {
            return Ok(None);
        }
        self.fingerprints(db, covered + 1, covered + super::runs::RUN_SEQS).map(Some)
    }

    pub fn install_runs(&mut self, plan: &super::runs::Plan) {
        self.runs.install(plan);
        self.dirty = true;
    }

    // Checkpoint.

    /// All changed rows; afterwards the channel is clean and `settle` must follow once they are in the view.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut rows = Snapshot::default();
        let Some(key) = self.key.clone() else { return rows };
        let index = keys::channel(keys::INDEX, self.no);
        for (&number, full) in self.pages.iter_mut().filter(|(_, full)| full.dirty) {
            rows.early.push((keys::page8(&index, number), Some(full.page.encode())));
            full.dirty = false;
        }
        let no = self.no;
        self.people.for_each_dirty(|uid, person| person.snapshot(no, uid, &mut rows.together));
        self.people.snapshot(&keys::channel(keys::PEOPLE, no), &mut rows.together);
        self.dead.snapshot(&keys::channel(keys::DEAD_SET, no), &mut rows.together);
        self.mention_all.snapshot(&keys::channel(keys::ALL_SET, no), &mut rows.together);
        self.commands.snapshot(&keys::channel(keys::COMMANDS, no), &mut rows.together);
        if let Some(changes) = &mut self.changes {
            changes.snapshot(&mut rows.together);
        }
        if let Some(profile) = self.profile.as_ref().filter(|_| self.profile_dirty) {
            let prefix = keys::channel(keys::PROFILE, no);
            let key = |part| keys::bucket(&prefix, 0, part);
            let bytes = encode_profile(profile);
            self.profile_parts = parts::write(&key, &bytes, self.profile_parts, &mut rows.together);
            self.profile_dirty = false;
        }
        rows.together.push((keys::channel(keys::HEAD, no), Some(self.encode(&key))));
        self.dirty = false;
        self.in_flight = true;
        rows
    }

    /// The snapshot's rows are in the view: what is clean may go.
    pub fn settle(&mut self) {
        self.in_flight = false;
        self.pages.retain(|_, full| full.dirty);
        self.dead.settle();
        self.mention_all.settle();
        self.commands.settle();
        self.people.for_each_loaded(Person::settle);
        if let Some(changes) = &mut self.changes {
            changes.settle();
        }
    }
}

fn member(uid: &Uid, person: &Person) -> Option<(Uid, Membership)> {
    person.membership().map(|membership| (uid.clone(), membership))
}

/// Adds the members of cold buckets.
pub fn cold_members(db: &Db, no: u32, cold: &ColdBuckets, members: &mut Vec<(Uid, Membership)>) -> Result<()> {
    cold.for_each::<Uid, Person>(db, &|| keys::channel(keys::PEOPLE, no), |uid, person| {
        members.extend(member(uid, person));
    })
}

fn profile_bytes(p: &ChannelProfile) -> usize {
    p.name.len() + p.icon.len() + p.description.len() + p.project.len()
}

fn encode_profile(p: &ChannelProfile) -> Vec<u8> {
    let mut w = Writer::part();
    for text in [&p.name, &p.icon, &p.description, &p.project] {
        w.text(text);
    }
    w.text(p.creator.as_ref().map_or("", Uid::as_str));
    w.finish()
}

fn take_profile(r: &mut Reader<'_>) -> Result<ChannelProfile, Malformed> {
    let mut text = || r.text().map(str::to_owned);
    let (name, icon, description, project, creator) = (text()?, text()?, text()?, text()?, text()?);
    let creator = Some(creator).filter(|uid| !uid.is_empty()).map(|uid| Uid::from_stored(&uid));
    Ok(ChannelProfile { name, icon, description, project, creator })
}

/// Finds a seq in its page.
pub fn located(page: &IndexPage, seq: u64) -> Option<Located> {
    let slot = slot_of(seq);
    page.entries.get(slot).map(|entry| Located {
        seq,
        place: entry.place,
        expired: page.is_expired(slot),
        revoked: page.is_revoked(slot),
        altered: page.is_altered(slot),
    })
}

/// A full page from the view.
pub fn read_page(db: &Db, no: u32, number: u64) -> Result<IndexPage> {
    let key = keys::page8(&keys::channel(keys::INDEX, no), number);
    let row = db.get(&key)?;
    let page = row.as_deref().ok_or(Malformed).and_then(IndexPage::decode);
    page.ok().filter(|page| page.entries.len() == PAGE_SEQS as usize).ok_or_else(|| damaged_row(&key, Malformed))
}
