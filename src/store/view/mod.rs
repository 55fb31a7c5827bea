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

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use protocol::ids::{ChannelKey, DeviceFlag, FileId, Uid, Version};
use xxhash_rust::xxh3::xxh3_64;

use self::cells::{Budget, Cells};
use self::channel::ChannelState;
use self::codec::{Malformed, Reader, Writer};
use self::db::{Db, Ledger};
use self::files::Files;
use self::numbers::Numbers;
use self::overlay::Overlay;
use self::recency::Recency;
use self::registers::Registers;
use self::server::ServerState;
use self::table::ColdBuckets;
use self::user::UserState;
use super::log::{LogMark, LogPosition, LogReader, Place};
use super::{
    ApiKey, ChannelInfo, ChannelNo, CredentialHash, MessageChanges, Probe, Result, StoreError, VersionStanding,
};
use crate::domain::channel::{ChannelList, ChannelProfile, Listing, Membership};
use crate::domain::conversation::{ConversationState, LastOwn};
use crate::domain::file::{ContentHash, FileInfo};
use crate::domain::message::Digest;
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};

mod apply;
mod cells;
mod change_log;
mod changes;
mod channel;
mod checkpoint;
mod codec;
mod db;
mod files;
mod index;
mod keys;
mod messages;
mod numbers;
mod overlay;
mod parts;
mod people;
mod recency;
mod registers;
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
/// One channel's filters take at most this part of the budget: with the default of 256 MiB, those of 15 million messages.
const FILTER_SHARE: usize = 8;

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
    budget: Arc<Budget>,
    /// What a channel's idempotency filters may take of it.
    filter_bytes_max: usize,
    names: Overlay<ChannelKey, u32>,
    /// With the version that set it: a channel that replays later must not take an alias back.
    aliases: Overlay<String, (u32, u64)>,
    tokens: Overlay<CredentialHash, TokenOwners>,
    files: Files,
    server: Mutex<ServerState>,
    registers: RwLock<Registers>,
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
            users: Cells::new(budget.clone()),
            filter_bytes_max: budget.bytes().1 / FILTER_SHARE,
            budget,
            names: Overlay::new(NAMES_CLEAN_MAX),
            aliases: Overlay::new(0),
            tokens: Overlay::new(0),
            files: Files::default(),
            server: Mutex::new(verified.server),
            registers: RwLock::new(verified.registers),
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

    /// Bytes of rows in memory, and how many there may be: idle rows go when they are passed, changed ones at a checkpoint.
    pub fn cache_bytes(&self) -> (u64, u64) {
        let (used, max) = self.budget.bytes();
        (used as u64, max as u64)
    }

    /// Whether changed rows keep the memory above so many times its bound: only a checkpoint can let them go.
    pub fn is_crowded(&self, times: f64) -> bool {
        let (used, max) = self.budget.bytes();
        used as f64 > max as f64 * times && self.dirty_count() > 0
    }

    /// How many channels exist.
    pub fn channel_count(&self) -> u64 {
        self.channel_count.load(Ordering::Relaxed)
    }

    /// How many owners and files have changes that no checkpoint holds.
    pub fn dirty_count(&self) -> u64 {
        let owners = (self.channels.dirty_count() + self.users.dirty_count()) as u64;
        let server = self.server.lock().is_dirty() || self.registers.read().is_dirty();
        owners + self.files.dirty_count() + u64::from(server)
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

    /// The lowest number [`View::reserve_channel_no`] has not given.
    pub fn first_unreserved(&self) -> u32 {
        self.next_channel.load(Ordering::Relaxed)
    }

    /// Gives no number below this.
    pub fn reserve_from(&self, first: u32) {
        self.next_channel.fetch_max(first, Ordering::Relaxed);
    }

    /// The directory has another name now; errors tell it.
    pub fn moved_to(&mut self, path: &Path) {
        self.db.moved_to(path);
    }

    /// Lets go of the database's files, whatever state they are in.
    pub fn discard(self) {
        self.db.discard();
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
        Ok(self.everybody(channel)?.into_iter().map(|(uid, _)| uid).collect())
    }

    pub fn memberships(&self, channel: ChannelNo) -> Result<Vec<(Uid, Membership)>> {
        let mut members = self.everybody(channel)?;
        members.sort_unstable_by(|(a, x), (b, y)| (x.since, a).cmp(&(y.since, b)));
        Ok(members)
    }

    /// All members, in no order.
    fn everybody(&self, channel: ChannelNo) -> Result<Vec<(Uid, Membership)>> {
        self.of_people(channel, ChannelState::hot_members, |cold, members| {
            channel::cold_members(&self.db, channel.0, cold, members)
        })
    }

    /// Some of a channel's people: those in memory, then those of the buckets that are not.
    fn of_people<T>(
        &self,
        channel: ChannelNo,
        hot: impl Fn(&ChannelState, &mut Vec<T>) -> ColdBuckets,
        read_cold: impl Fn(&ColdBuckets, &mut Vec<T>) -> Result<()>,
    ) -> Result<Vec<T>> {
        // A large channel is read without its lock, so that commits need not wait; again when it changed meanwhile, and
        // with the lock when it changes all the time.
        let _held = self.channels.hold(&channel.0);
        for _ in 0..3 {
            let mut found = Vec::new();
            let cold = self.with(channel, |state| Ok(hot(state, &mut found)))?;
            read_cold(&cold, &mut found)?;
            if self.with(channel, |state| Ok(state.people_stamp() == cold.stamp))? {
                return Ok(found);
            }
        }
        self.with(channel, |state| {
            let mut found = Vec::new();
            let cold = hot(state, &mut found);
            read_cold(&cold, &mut found)?;
            Ok(found)
        })
    }

    pub fn listing(&self, channel: ChannelNo, uid: &Uid) -> Result<Listing> {
        self.with(channel, |state| state.listing(&self.db, uid))
    }

    pub fn listed(&self, channel: ChannelNo, list: ChannelList) -> Result<Vec<Uid>> {
        let hot = |state: &ChannelState, found: &mut Vec<Uid>| channel::hot_listed(state, list, found);
        let mut listed =
            self.of_people(channel, hot, |cold, found| channel::cold_listed(&self.db, channel.0, cold, list, found))?;
        listed.sort_unstable();
        Ok(listed)
    }

    pub fn commands_after(&self, channel: ChannelNo, floor: u64, max: usize) -> Result<Vec<u64>> {
        self.with(channel, |state| state.commands_after(&self.db, floor, max))
    }

    pub fn commands_read(&self, uid: &Uid) -> Result<(u64, Version)> {
        self.with_user(uid, |user| Ok(user.commands_read()))
    }

    pub fn is_system_user(&self, uid: &Uid) -> bool {
        self.registers.read().is_system_user(uid)
    }

    pub fn system_users(&self) -> Vec<Uid> {
        self.registers.read().system_users()
    }

    pub fn is_address_blocked(&self, address: IpAddr) -> bool {
        self.registers.read().is_address_blocked(address)
    }

    pub fn blocked_addresses(&self) -> Vec<IpAddr> {
        self.registers.read().addresses()
    }

    pub fn profile(&self, channel: ChannelNo) -> Result<Option<ChannelProfile>> {
        self.with(channel, |state| state.profile(&self.db))
    }

    pub fn message_changes(&self, channel: ChannelNo, since: Version, max: usize) -> Result<MessageChanges> {
        self.with(channel, |state| state.message_changes(&self.db, since.get(), max))
    }

    pub fn mentions_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<u64> {
        self.with(channel, |state| state.mentions_after(&self.db, uid, floor))
    }

    pub fn digest(&self, channel: ChannelNo, seq: u64) -> Result<Option<Digest>> {
        self.with(channel, |state| state.digest_at(&self.db, seq))
    }

    /// Place and digest of the messages of an index page (64 seqs each, from 0), up to the head. For a check.
    pub fn index_page(&self, channel: ChannelNo, number: u64) -> Result<Vec<(Place, Digest)>> {
        self.with(channel, |state| state.index_page(&self.db, number))
    }

    pub fn probe(&self, channel: ChannelNo, fingerprint: u64) -> Probe {
        match self.channels.with_hot(&channel.0, |state| state.is_absent(fingerprint)) {
            Some(true) => Probe::Absent,
            Some(false) | None => Probe::Ask,
        }
    }

    pub fn warm(&self, channel: ChannelNo) -> Result<()> {
        self.with(channel, |state| state.warm(&self.db, self.filter_bytes_max))
    }

    /// Writes channels, but neither users nor files that are dirty: what a checkpoint leaves when they change behind its back.
    #[cfg(test)]
    pub fn checkpoint_channels_only(&self) -> Result<()> {
        let held = self.users.take_dirty();
        let done = self.files.held_back(|| self.checkpoint(None));
        self.users.put_back(held);
        done
    }

    /// Lets the checkpoints fail that come after this many batches more.
    #[cfg(test)]
    pub fn fail_after_batches(&self, batches: usize) {
        self.ledger.lock().batches_left = Some(batches);
    }

    pub fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        self.with(channel, |state| Ok((state.countable_after(&self.db, uid, floor)?, state.head_seq())))
    }

    pub fn position_for_unread(
        &self,
        channel: ChannelNo,
        uid: &Uid,
        unread: u64,
        floor: u64,
    ) -> Result<(u64, u64, u64)> {
        self.with(channel, |state| match state.key() {
            None => Ok((floor, 0, 0)),
            Some(_) => {
                let (position, counted) = state.position_for_unread(&self.db, uid, unread, floor)?;
                Ok((position, counted, state.head_seq()))
            }
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

    pub fn user_settings(&self, uid: &Uid) -> Result<UserSettings> {
        self.with_user(uid, |user| Ok(user.settings()))
    }

    pub fn relation(&self, uid: &Uid, peer: &Uid) -> Result<Relation> {
        self.with_user(uid, |user| user.relation(&self.db, peer))
    }

    pub fn relations(&self, uid: &Uid) -> Result<Vec<(Uid, Relation)>> {
        self.with_user(uid, |user| user.relations(&self.db))
    }

    pub fn user_known(&self, uid: &Uid) -> Result<bool> {
        self.with_user(uid, |user| Ok(user.is_known()))
    }

    pub fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>> {
        Ok(self.token_row(token)?.into_iter().map(|(uid, flag, level)| (uid, DeviceFlag(flag), level)).collect())
    }

    pub fn api_key(&self, secret: &CredentialHash) -> Option<ApiKey> {
        self.server.lock().key_of(secret)
    }

    pub fn api_keys(&self) -> Vec<ApiKey> {
        self.server.lock().keys()
    }

    pub fn file(&self, file_id: &FileId) -> Result<Option<FileInfo>> {
        self.files.get(&self.db, file_id)
    }

    pub fn file_references(&self, file_id: &FileId, max: usize) -> Result<Vec<(ChannelNo, u64)>> {
        let found = self.files.references(&self.db, file_id, max)?;
        Ok(found.into_iter().map(|(no, seq)| (ChannelNo(no), seq)).collect())
    }

    pub fn unused_files(&self, before: Version, max: usize) -> Result<Vec<FileInfo>> {
        self.files.unused(&self.db, before, max)
    }

    pub fn has_content(&self, content: &ContentHash) -> Result<bool> {
        self.files.has_content(&self.db, content)
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

/// Whether an error says that a row is not what was written. A damaged message is the log's, and no such error.
pub fn is_damage(error: &StoreError) -> bool {
    let of_view = error.operation.ends_with("view") || error.operation == "read view row";
    error.kind == ErrorKind::Internal && of_view
}

/// Where the view lies in a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("view")
}
