//! The view: what questions need, over sled. The only room that knows sled.
//!
//! Owns rows of owners (channels, users, the server), their overlay in memory, checkpoints, and the proof that what sled
//! gave back is what was written. Everything in it can be made again from the log; it refuses to know how a log is laid
//! out and keeps no message.
//!
//! Invariants:
//! - **overlay-first**: every read looks at an owner's state in memory first; a dirty owner is never evicted, and a clean one
//!   only when its rows are in sled.
//! - **applied-once**: an owner's head row holds the version applied to it and changes in one batch with its rows; a record at
//!   or below it changes nothing, so replay may begin anywhere before.
//! - **sum**: every batch also updates an order-independent sum over all rows, which the scan at start compares.
//! - **mark**: the mark's row names a prefix of the log that is completely in sled and synced.
//! - **small-rows**: no value is longer than 4 KiB, so sled keeps nothing in files of its own.
//!
//! Page: `docs/storage.md`. Layout: [`keys`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, Uid, Version};
use xxhash_rust::xxh3::xxh3_64;

use self::cells::{Budget, Cells};
use self::channel::{ChannelState, Located};
use self::codec::{Malformed, Reader, Writer};
use self::db::{Db, Ledger};
use self::numbers::Numbers;
use self::overlay::Overlay;
use self::recency::Recency;
use self::server::{Due, ServerState};
use self::user::UserState;
use super::log::{LogMark, LogPosition, LogReader, Place, ReadError};
use super::{
    ApiKey, ChannelInfo, ChannelNo, CredentialHash, Probe, Record, Result, SeqRange, StoreError, VersionStanding,
};
use crate::domain::channel::Membership;
use crate::domain::conversation::{ConversationState, LastOwn};
use crate::domain::message::{Digest, Message, MessageFlags, MessageState, fingerprint};
use crate::domain::refusal::ErrorKind;

mod cells;
mod channel;
mod checkpoint;
mod codec;
mod db;
mod index;
mod keys;
mod numbers;
mod overlay;
mod recency;
mod runs;
mod seqset;
mod server;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod user;

pub use start::{Verified, open_verified, set_aside};

/// Clean names kept in memory, per shard of 32.
const NAMES_CLEAN_MAX: usize = 4_096;
/// Messages asked of the log at a time when a range is limited by bytes.
const READ_CHUNK: usize = 64;

/// What loading and applying need.
pub struct Context<'a> {
    db: &'a Db,
    /// Key of the hashes that place rows, from the log's id.
    seed: u64,
    reader: &'a LogReader,
}

type TokenOwners = Vec<(Uid, u8, u8)>;

/// See the module's head.
#[derive(Debug)]
pub struct View {
    db: Db,
    seed: u64,
    reader: LogReader,
    channels: Cells<ChannelState>,
    users: Cells<UserState>,
    names: Overlay<ChannelKey, u32>,
    /// With the version that set it: a channel that replays later must not take an alias back.
    aliases: Overlay<String, (u32, u64)>,
    tokens: Overlay<CredentialHash, TokenOwners>,
    server: Mutex<ServerState>,
    breaks: RwLock<Vec<(u64, u64)>>,
    recency: Recency,
    /// Which channels are person channels: fanned out to by their users, not by number.
    persons: RwLock<Numbers>,
    next_channel: AtomicU32,
    channel_count: AtomicU64,
    /// While a replay runs: senders who were told so. A channel may have been written after its sender was.
    replaying: AtomicBool,
    senders_told: Mutex<foldhash::HashSet<Uid>>,
    ledger: Mutex<Ledger>,
    /// A checkpoint failed: what is dirty can no longer be told from what is written.
    failed: AtomicBool,
}

fn damaged_row(key: &[u8], malformed: Malformed) -> StoreError {
    StoreError {
        operation: "read view row",
        kind: ErrorKind::Internal,
        detail: format!("key {}", key.escape_ascii()),
        source: Some(Box::new(malformed)),
    }
}

/// Who is a member because the channel exists.
fn implied_members(key: &ChannelKey) -> impl Iterator<Item = Uid> {
    let (a, b) = match key.pair() {
        Some((a, b)) if a == b => (Some(a), None),
        Some((a, b)) => (Some(a), Some(b)),
        None => (key.visitor(), None),
    };
    a.into_iter().chain(b)
}

fn encode_mark(mark: &LogMark) -> Vec<u8> {
    let mut w = Writer::row();
    w.raw(&mark.log_id);
    w.u32(mark.position.segment);
    w.u32(mark.position.offset);
    w.varint(mark.version.get());
    w.raw(&mark.chain);
    w.finish()
}

fn decode_mark(row: &[u8]) -> Result<LogMark, Malformed> {
    let mut r = Reader::row(row)?;
    Ok(LogMark {
        log_id: r.array()?,
        position: LogPosition { segment: r.u32()?, offset: r.u32()? },
        version: Version::new(r.varint()?),
        chain: r.array()?,
    })
}

fn encode_owners(owners: &TokenOwners) -> Vec<u8> {
    let mut w = Writer::row();
    for (uid, flag, level) in owners {
        w.text(uid.as_str());
        w.u8(*flag);
        w.u8(*level);
    }
    w.finish()
}

fn decode_owners(row: &[u8]) -> Result<TokenOwners, Malformed> {
    let mut r = Reader::row(row)?;
    let mut owners = Vec::new();
    while !r.is_empty() {
        owners.push((Uid::from_stored(r.text()?), r.u8()?, r.u8()?));
    }
    Ok(owners)
}

fn seed_of(log_id: &[u8; 16]) -> u64 {
    xxh3_64(log_id)
}

impl View {
    /// A view over verified rows, or an empty one over a new directory.
    #[must_use]
    pub fn new(verified: Verified, reader: LogReader, cache_bytes_max: u64) -> Self {
        let budget = Budget::new(cache_bytes_max);
        let breaks = verified.server.breaks().to_vec();
        Self {
            ledger: Mutex::new(Ledger::new(verified.seed, verified.sum)),
            db: verified.db,
            seed: verified.seed,
            reader,
            channels: Cells::new(budget.clone()),
            users: Cells::new(budget),
            names: Overlay::new(NAMES_CLEAN_MAX),
            aliases: Overlay::new(0),
            tokens: Overlay::new(0),
            server: Mutex::new(verified.server),
            breaks: RwLock::new(breaks),
            recency: Recency::new(verified.changes),
            persons: RwLock::new(verified.persons),
            next_channel: AtomicU32::new(verified.next_channel),
            channel_count: AtomicU64::new(verified.channel_count),
            replaying: AtomicBool::new(false),
            senders_told: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    fn ctx(&self) -> Context<'_> {
        Context { db: &self.db, seed: self.seed, reader: &self.reader }
    }

    fn with<T>(&self, channel: ChannelNo, run: impl FnOnce(&mut ChannelState) -> Result<T>) -> Result<T> {
        self.channels.with(&self.ctx(), &channel.0, run)
    }

    fn with_user<T>(&self, uid: &Uid, run: impl FnOnce(&mut UserState) -> Result<T>) -> Result<T> {
        self.users.with(&self.ctx(), uid, run)
    }

    /// Row look-ups and range scans so far.
    pub fn reads(&self) -> u64 {
        self.db.reads()
    }

    /// How many channels exist.
    pub fn channel_count(&self) -> u64 {
        self.channel_count.load(Ordering::Relaxed)
    }

    /// How many owners have changes that no checkpoint holds.
    pub fn dirty_count(&self) -> u64 {
        (self.channels.dirty_count() + self.users.dirty_count()) as u64 + u64::from(self.server.lock().is_dirty())
    }

    /// Whether a checkpoint has failed, after which nothing more may be applied.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// No version up to here may be given again.
    pub fn break_end(&self) -> u64 {
        self.breaks.read().iter().map(|(_, until)| *until).max().unwrap_or(0)
    }

    /// Begins or ends the replay of records that may be partly applied.
    pub fn set_replaying(&self, replaying: bool) {
        self.replaying.store(replaying, Ordering::Release);
        self.senders_told.lock().clear();
    }

    /// Applies one record. Records of one owner must come in order; a record that is applied already changes nothing.
    ///
    /// # Errors
    /// I/O or damage while loading what the record changes. The view must not be used any further then.
    pub fn apply(&self, version: Version, place: Place, record: &Record) -> Result<()> {
        let ctx = self.ctx();
        match record {
            Record::ChannelCreated { channel, key } => {
                self.names.pin(key, channel.0);
                if key.channel_type() == ChannelType::Person {
                    self.persons.write().insert(channel.0);
                }
                let fresh = self.with(*channel, |state| {
                    let fresh = state.key().is_none();
                    state.create(&ctx, version, key)?;
                    Ok(fresh)
                })?;
                if fresh {
                    self.channel_count.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.names.unpin(key);
                }
                self.next_channel.fetch_max(channel.0.saturating_add(1), Ordering::Relaxed);
                for uid in implied_members(key) {
                    self.with_user(&uid, |user| user.join(&ctx, version, channel.0, 0))?;
                }
            }
            Record::ChannelSettings { channel, settings } => {
                self.with(*channel, |state| {
                    state.set(version, settings);
                    Ok(())
                })?;
                self.recency.touch(channel.0, version.get());
            }
            Record::Message(m) => {
                let first = self.with(m.channel, |state| state.append(&ctx, version, place, m))?;
                self.recency.touch(m.channel.0, version.get());
                let replaying = self.replaying.load(Ordering::Relaxed);
                if first || (replaying && self.senders_told.lock().insert(m.from_uid.clone())) {
                    self.with_user(&m.from_uid, |user| {
                        user.has_sent();
                        Ok(())
                    })?;
                }
                if m.expire_s > 0 {
                    let due_ms = version.unix_ms() + u64::from(m.expire_s) * 1_000;
                    let due = Due { due_ms, no: m.channel.0, seq: m.message_seq.get() };
                    self.server.lock().add_due(version.get(), due);
                }
            }
            Record::MembersAdded { channel, join_floor, uids } => {
                self.with(*channel, |state| state.add_members(&ctx, version, *join_floor, uids))?;
                for uid in uids {
                    self.with_user(uid, |user| user.join(&ctx, version, channel.0, *join_floor))?;
                }
            }
            Record::MembersRemoved { channel, delete_floor, uids } => {
                self.with(*channel, |state| state.remove_members(&ctx, version, uids))?;
                for uid in uids {
                    self.with_user(uid, |user| user.leave(&ctx, version, channel.0, *delete_floor))?;
                }
            }
            Record::ReadPosition { channel, uid, seq } => {
                self.with_user(uid, |user| user.read(&ctx, version, channel.0, *seq))?;
            }
            Record::ConversationDeleted { channel, uid, delete_floor } => {
                self.with_user(uid, |user| user.delete(&ctx, version, channel.0, *delete_floor))?;
            }
            Record::MessagesExpired { channel, seqs } => {
                self.with(*channel, |state| state.expire(&ctx, version, seqs))?;
                self.recency.touch(channel.0, version.get());
            }
            Record::UserCreated { uid } => self.with_user(uid, |user| {
                user.create(version);
                Ok(())
            })?,
            Record::UserToken { uid, device_flag, device_level, token } => {
                self.apply_token(version, uid, device_flag.0, *device_level, *token)?;
            }
            Record::ApiKey(key) => self.server.lock().set_key(version.get(), key),
            Record::Alias { alias, channel } => {
                if self.alias_row(alias)?.is_none_or(|(_, known)| known < version.get()) {
                    self.with(*channel, |state| {
                        if state.name_alias(version, alias) {
                            self.aliases.pin(alias, (channel.0, version.get()));
                        }
                        Ok(())
                    })?;
                }
            }
            Record::MessageRevoked { .. }
            | Record::MessageEdited { .. }
            | Record::MessageReacted { .. }
            | Record::MemberRole { .. }
            | Record::ChannelProfile { .. }
            | Record::ConversationFlags { .. }
            | Record::UserSettings { .. }
            | Record::Relation { .. }
            | Record::File(_)
            | Record::FileRemoved { .. } => {}
            Record::Break { kept, until } => {
                let mut server = self.server.lock();
                server.add_break(kept.get(), until.get());
                *self.breaks.write() = server.breaks().to_vec();
            }
        }
        Ok(())
    }

    /// Applies a message whose record is damaged: a hole.
    ///
    /// # Errors
    /// As [`View::apply`].
    pub fn apply_hole(&self, version: Version, place: Place, channel: ChannelNo, seq: u64) -> Result<()> {
        self.with(channel, |state| state.append_hole(version, place, seq))?;
        self.recency.touch(channel.0, version.get());
        Ok(())
    }

    fn apply_token(
        &self,
        version: Version,
        uid: &Uid,
        flag: u8,
        level: u8,
        token: Option<CredentialHash>,
    ) -> Result<()> {
        self.with_user(uid, |user| {
            let Some(held) = user.set_token(version, flag, level, token) else { return Ok(()) };
            // The user's state lists each as dirty, once per pin.
            for hash in [held, token].into_iter().flatten() {
                let mut owners = self.token_row(&hash)?;
                owners.retain(|(owner, f, _)| owner != uid || *f != flag);
                if token == Some(hash) {
                    owners.push((uid.clone(), flag, level));
                }
                self.tokens.pin(&hash, owners);
            }
            Ok(())
        })
    }

    fn token_row(&self, hash: &CredentialHash) -> Result<TokenOwners> {
        if let Some(owners) = self.tokens.get(hash) {
            return Ok(owners);
        }
        let key = keys::named(keys::TOKEN, hash);
        match self.db.get(&key)? {
            Some(row) => decode_owners(&row).map_err(|m| damaged_row(&key, m)),
            None => Ok(Vec::new()),
        }
    }

    fn alias_row(&self, alias: &str) -> Result<Option<(u32, u64)>> {
        if let Some(found) = self.aliases.get(&alias.to_owned()) {
            return Ok(Some(found));
        }
        let key = keys::named(keys::ALIAS, alias.as_bytes());
        let Some(row) = self.db.get(&key)? else { return Ok(None) };
        let decode = || {
            let mut r = Reader::row(&row)?;
            Ok((r.varint32()?, r.varint()?))
        };
        decode().map(Some).map_err(|m| damaged_row(&key, m))
    }

    // Questions. Costs and meanings are those of `Store`.

    pub fn version_standing(&self, version: Version, head: Version) -> VersionStanding {
        let broken = self.breaks.read().iter().any(|&(kept, until)| version.get() > kept && version.get() <= until);
        if version > head || broken { VersionStanding::Unknown } else { VersionStanding::Known }
    }

    pub fn reserve_channel_no(&self) -> ChannelNo {
        ChannelNo(self.next_channel.fetch_add(1, Ordering::Relaxed))
    }

    pub fn channel_no(&self, name: &ChannelKey) -> Result<Option<ChannelNo>> {
        if let Some(no) = self.names.get(name) {
            return Ok(Some(ChannelNo(no)));
        }
        let key = keys::name(name);
        let Some(row) = self.db.get(&key)? else { return Ok(None) };
        let no = Reader::row(&row).and_then(|mut r| r.u32()).map_err(|m| damaged_row(&key, m))?;
        self.names.remember(name, no);
        Ok(Some(ChannelNo(no)))
    }

    /// The seq of the last message; `None`: no such channel.
    pub fn head_seq(&self, channel: ChannelNo) -> Result<Option<u64>> {
        self.with(channel, |state| Ok(state.key().map(|_| state.head_seq())))
    }

    pub fn channel(&self, channel: ChannelNo) -> Result<Option<ChannelInfo>> {
        self.with(channel, |state| Ok(state.info()))
    }

    pub fn alias(&self, alias: &str) -> Result<Option<ChannelNo>> {
        Ok(self.alias_row(alias)?.map(|(no, _)| ChannelNo(no)))
    }

    pub fn membership(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<Membership>> {
        self.with(channel, |state| state.membership(&self.db, uid))
    }

    pub fn members(&self, channel: ChannelNo) -> Result<Vec<Uid>> {
        // A large channel is read without its lock, so that commits need not wait; again when it changed meanwhile, and
        // with the lock when it changes all the time.
        let _held = self.channels.hold(&channel.0);
        for _ in 0..3 {
            let (mut members, cold) = self.with(channel, |state| Ok(state.hot_members()))?;
            channel::cold_members(&self.db, channel.0, &cold, &mut members)?;
            if self.with(channel, |state| Ok(state.people_stamp() == cold.stamp))? {
                return Ok(members);
            }
        }
        self.with(channel, |state| {
            let (mut members, cold) = state.hot_members();
            channel::cold_members(&self.db, channel.0, &cold, &mut members)?;
            Ok(members)
        })
    }

    pub fn digest(&self, channel: ChannelNo, seq: u64) -> Result<Option<Digest>> {
        self.with(channel, |state| state.digest_at(&self.db, seq))
    }

    pub fn probe(&self, channel: ChannelNo, fingerprint: u64) -> Probe {
        match self.channels.with_hot(&channel.0, |state| state.is_absent(fingerprint)) {
            Some(true) => Probe::Absent,
            Some(false) | None => Probe::Ask,
        }
    }

    pub fn warm(&self, channel: ChannelNo) -> Result<()> {
        self.with(channel, |state| state.warm(&self.db))
    }

    pub fn message_by_client_msg_no(
        &self,
        channel: ChannelNo,
        from_uid: &Uid,
        client_msg_no: &ClientMsgNo,
    ) -> Result<Option<Message>> {
        let fingerprint = fingerprint(from_uid, client_msg_no);
        let (key, places) = self.with(channel, |state| {
            state.load_fresh(&self.db)?;
            let candidates = state.runs().candidates(&self.db, channel.0, fingerprint)?;
            let mut places = Vec::new();
            for seq in candidates {
                places.extend(state.locate(&self.db, seq)?);
            }
            places.sort_unstable_by_key(|located| located.seq);
            Ok((state.key().cloned(), places))
        })?;
        let Some(key) = key else { return Ok(None) };
        for located in places {
            let message = self.read(&key, channel, &[located])?.pop();
            match message {
                Some(m) if m.state == MessageState::Damaged => {
                    // Nobody can tell whether it is this one; storing it again could store it twice.
                    let detail = format!("channel number {} seq {} is damaged", channel.0, located.seq);
                    let operation = "look up client_msg_no";
                    return Err(StoreError { operation, kind: ErrorKind::Unavailable, detail, source: None });
                }
                Some(m) if m.from_uid == *from_uid && m.client_msg_no == *client_msg_no => return Ok(Some(m)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Writes channels, but not the users that are dirty: what a checkpoint leaves when a user changes behind its back.
    #[cfg(test)]
    pub fn checkpoint_channels_only(&self) -> Result<()> {
        let held = self.users.take_dirty();
        let done = self.checkpoint(None);
        self.users.put_back(held);
        done
    }

    /// Lets the checkpoints fail that come after this many batches more.
    #[cfg(test)]
    pub fn fail_after_batches(&self, batches: usize) {
        self.ledger.lock().batches_left = Some(batches);
    }

    /// Reads messages of a channel from the log, in the order given (ascending by seq reads neighbours in one go).
    fn read(&self, key: &ChannelKey, channel: ChannelNo, wanted: &[Located]) -> Result<Vec<Message>> {
        let places: Vec<(u64, Place)> = wanted.iter().map(|located| (located.seq, located.place)).collect();
        let read = self.reader.read_messages(channel, &places);
        let mut messages = Vec::with_capacity(wanted.len());
        for (located, outcome) in wanted.iter().zip(read) {
            let Some(message_seq) = protocol::ids::MessageSeq::new(located.seq) else { continue };
            messages.push(match outcome {
                Ok((version, record)) => Message {
                    channel: key.clone(),
                    message_seq,
                    message_id: version,
                    from_uid: record.from_uid,
                    client_msg_no: record.client_msg_no,
                    flags: record.flags,
                    setting: record.setting,
                    topic: record.topic,
                    expire_s: record.expire_s,
                    payload: if located.expired { bytes::Bytes::new() } else { record.payload },
                    extras: None,
                    edited: Version::ZERO,
                    reactions: Vec::new(),
                    state: if located.expired { MessageState::Expired } else { MessageState::Live },
                },
                Err(ReadError::Damaged(finding)) => {
                    tracing::error!(channel.number = channel.0, message_seq = located.seq, %finding, "message is damaged");
                    hole(key, message_seq)
                }
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
            });
        }
        Ok(messages)
    }

    pub fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        let Some((key, head)) =
            self.with(channel, |state| Ok(state.key().cloned().map(|key| (key, state.head_seq()))))?
        else {
            return Ok(Vec::new());
        };
        let (mut first, mut last) = (range.first.max(1), range.last.min(head));
        let mut messages = Vec::new();
        let mut bytes = 0;
        while first <= last && messages.len() < range.limit {
            let count = (range.limit - messages.len()).min(READ_CHUNK) as u64;
            let (from, to) = if range.newest_first {
                ((last + 1).saturating_sub(count).max(first), last)
            } else {
                (first, last.min(first + count - 1))
            };
            let located = self.locate(channel, from, to)?;
            let mut chunk = self.read(&key, channel, &located)?;
            if range.newest_first {
                chunk.reverse();
                last = from - 1;
            } else {
                first = to + 1;
            }
            for message in chunk {
                bytes += message.payload.len();
                if bytes > range.bytes_max && !messages.is_empty() {
                    return Ok(messages);
                }
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// Where messages from..=to lie. Pages that are not in memory are read without the channel's lock: a full page that
    /// memory does not hold is in the view as it is.
    fn locate(&self, channel: ChannelNo, from: u64, to: u64) -> Result<Vec<Located>> {
        let pages = index::page_of(from)..=index::page_of(to);
        let seqs_of = |page: u64| from.max(page * index::PAGE_SEQS + 1)..=to.min((page + 1) * index::PAGE_SEQS);
        let mut located = Vec::with_capacity((to + 1 - from) as usize);
        for number in pages {
            let hot = self.with(channel, |state| {
                Ok(state
                    .page(number)
                    .map(|page| seqs_of(number).filter_map(|seq| channel::located(page, seq)).collect::<Vec<_>>()))
            })?;
            match hot {
                Some(found) => located.extend(found),
                None => {
                    let page = channel::read_page(&self.db, channel.0, number)?;
                    located.extend(seqs_of(number).filter_map(|seq| channel::located(&page, seq)));
                }
            }
        }
        Ok(located)
    }

    pub fn message_by_id(&self, message_id: Version) -> Result<Option<Message>> {
        let Some(found) = self.reader.locate(message_id)? else { return Ok(None) };
        let (Some(channel), true) = (found.channel, found.seq > 0) else { return Ok(None) };
        let (key, located) =
            self.with(channel, |state| Ok((state.key().cloned(), state.locate(&self.db, found.seq)?)))?;
        match (key, located) {
            (Some(key), Some(located)) if located.place == found.place => {
                Ok(self.read(&key, channel, &[located])?.pop())
            }
            _ => Ok(None),
        }
    }

    pub fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        self.with(channel, |state| Ok((state.countable_after(&self.db, uid, floor)?, state.head_seq())))
    }

    pub fn position_for_unread(&self, channel: ChannelNo, uid: &Uid, unread: u64, floor: u64) -> Result<(u64, u64)> {
        self.with(channel, |state| match state.key() {
            None => Ok((floor, 0)),
            Some(_) => state.position_for_unread(&self.db, uid, unread, floor),
        })
    }

    pub fn last_own(&self, channel: ChannelNo, uid: &Uid) -> Result<LastOwn> {
        self.with(channel, |state| state.last_own(&self.db, uid))
    }

    pub fn conversation_state(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<ConversationState>> {
        self.with_user(uid, |user| user.state(&self.db, channel.0))
    }

    pub fn channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        Ok(self.with_user(uid, |user| user.channels(&self.db))?.into_iter().map(ChannelNo).collect())
    }

    pub fn group_channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        self.with_user(uid, |user| {
            let mut groups = Vec::new();
            for no in user.channels(&self.db)? {
                if !self.persons.read().contains(no) && user.state(&self.db, no)?.is_some_and(|state| state.is_member())
                {
                    groups.push(ChannelNo(no));
                }
            }
            Ok(groups)
        })
    }

    pub fn channel_count_of(&self, uid: &Uid) -> Result<u64> {
        self.with_user(uid, |user| Ok(user.channel_count()))
    }

    pub fn own_changes(&self, uid: &Uid, since: Version) -> Result<Vec<ChannelNo>> {
        let changes = self.with_user(uid, |user| user.changes(&self.db, since.get()))?;
        Ok(changes.into_iter().map(ChannelNo).collect())
    }

    pub fn changed_among(&self, of: &[ChannelNo], since: Version) -> Vec<ChannelNo> {
        self.recency.among(of, |channel| channel.0, since.get())
    }

    pub fn recently_changed(&self, since: Version, max: usize) -> Option<Vec<ChannelNo>> {
        Some(self.recency.after(since.get(), max)?.into_iter().map(ChannelNo).collect())
    }

    pub fn user_known(&self, uid: &Uid) -> Result<bool> {
        self.with_user(uid, |user| Ok(user.is_known()))
    }

    pub fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>> {
        Ok(self.token_row(token)?.into_iter().map(|(uid, flag, level)| (uid, DeviceFlag(flag), level)).collect())
    }

    pub fn api_keys(&self) -> Vec<ApiKey> {
        self.server.lock().keys()
    }

    pub fn expiry_due(&self, now_ms: u64, max: usize) -> Result<Vec<(ChannelNo, Vec<u64>)>> {
        let due = self.server.lock().due(&self.db, now_ms, max, |no, seq| {
            self.with(ChannelNo(no), |state| Ok(state.locate(&self.db, seq)?.is_none_or(|located| located.expired)))
        })?;
        let mut found: Vec<(ChannelNo, Vec<u64>)> = Vec::new();
        let mut at = foldhash::HashMap::default();
        for due in due {
            let at = *at.entry(due.no).or_insert_with(|| {
                found.push((ChannelNo(due.no), Vec::new()));
                found.len() - 1
            });
            found[at].1.push(due.seq);
        }
        found.truncate(max);
        found.iter_mut().for_each(|(_, seqs)| seqs.sort_unstable());
        Ok(found)
    }
}

/// A message whose record is damaged.
fn hole(key: &ChannelKey, message_seq: protocol::ids::MessageSeq) -> Message {
    Message {
        channel: key.clone(),
        message_seq,
        message_id: Version::ZERO,
        from_uid: Uid::from_stored(""),
        client_msg_no: ClientMsgNo::from_stored(""),
        flags: MessageFlags::default(),
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: bytes::Bytes::new(),
        extras: None,
        edited: Version::ZERO,
        reactions: Vec::new(),
        state: MessageState::Damaged,
    }
}

/// Where the view lies in a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("view")
}
