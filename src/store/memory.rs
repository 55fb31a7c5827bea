//! The reference model: the store's verbs over plain maps under one lock. What tests compare the durable store with, and
//! what tests of the hub run on.
//!
//! It is naive on purpose: unread is a recount, the last own message a walk back, so that reading it is enough to believe it.
//! It owns nothing durable and refuses to know bytes. Invariants: a failed commit leaves no trace; versions only grow;
//! what a verb documents as "no I/O" is not counted in [`ReadCounts`], everything else is.
//!
//! For tests it can fail or hold the next commit, damage a message, stop its clock and shrink its ring of recent changes.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use protocol::ids::{ChannelKey, ClientMsgNo, DeviceFlag, FileId, Uid, Version};

use super::{
    ApiKey, ChannelInfo, ChannelNo, Commit, CredentialHash, Logged, LoggedMessage, MessageChanges, Probe, ReadCounts,
    Record, Result, SearchFound, SearchQuery, SeqRange, Store, StoreError, StoreStats, VersionStanding,
};
use crate::clock;
use crate::domain::channel::{ChannelList, ChannelProfile, Listing, Membership};
use crate::domain::content::{fold, search_text};
use crate::domain::conversation::{ConversationState, LastOwn};
use crate::domain::file::{ContentHash, FileInfo};
use crate::domain::message::{Digest, Message, MessageState};
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};

mod state;

use state::{State, Stored};

/// How many recent changes are kept by [`MemoryStore::new`]: as the durable store (store.md section 3).
pub const RING_CHANGES: usize = 131_072;

/// A store without a disk. See the module's head.
pub struct MemoryStore {
    state: RwLock<State>,
    next_channel: AtomicU32,
    /// Microseconds; 0: the system's clock.
    clock_us: AtomicU64,
    /// The last version given, stored or not: ids that left in a `memory` ack are not given twice in a process.
    given: AtomicU64,
    view_reads: AtomicU64,
    log_reads: AtomicU64,
    commits: Mutex<CommitControl>,
    released: Condvar,
}

/// What a test wants of the next commits.
#[derive(Default)]
struct CommitControl {
    failures: VecDeque<ErrorKind>,
    held: bool,
    waiting: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ring(RING_CHANGES)
    }

    /// An empty store that remembers only the last `changes` changes of channels in its ring.
    #[must_use]
    pub fn with_ring(changes: usize) -> Self {
        Self {
            state: RwLock::new(State { ring_max: changes, ..State::default() }),
            next_channel: AtomicU32::new(0),
            clock_us: AtomicU64::new(0),
            given: AtomicU64::new(0),
            view_reads: AtomicU64::new(0),
            log_reads: AtomicU64::new(0),
            commits: Mutex::new(CommitControl::default()),
            released: Condvar::new(),
        }
    }

    /// Stops the clock at `us` microseconds after 1970, or sets it going again with `None`. Versions still grow by one.
    pub fn set_clock_us(&self, us: Option<u64>) {
        self.clock_us.store(us.unwrap_or(0), Ordering::SeqCst);
    }

    /// Lets the next commit not failed yet fail with an error of this kind: after its versions were given (`sealed` is
    /// called), with nothing stored. Calls add up.
    pub fn fail_next_commit(&self, kind: ErrorKind) {
        self.commits.lock().failures.push_back(kind);
    }

    /// Holds commits between the giving of versions and the storing, until [`MemoryStore::release_commits`].
    pub fn hold_commits(&self) {
        self.commits.lock().held = true;
    }

    /// Lets held commits go on.
    pub fn release_commits(&self) {
        self.commits.lock().held = false;
        self.released.notify_all();
    }

    /// How many commits are being held now.
    #[must_use]
    pub fn commits_held(&self) -> usize {
        self.commits.lock().waiting
    }

    /// Damages a stored message: readers get a hole with its seq, counts stay. `false` when there is no such message.
    pub fn damage_message(&self, channel: ChannelNo, seq: u64) -> bool {
        let mut state = self.state.write();
        let stored = usize::try_from(seq)
            .ok()
            .and_then(|seq| state.channels.get_mut(&channel)?.messages.get_mut(seq.checked_sub(1)?));
        stored.map(|stored| stored.damaged = true).is_some()
    }

    fn now_us(&self) -> u64 {
        match self.clock_us.load(Ordering::SeqCst) {
            0 => clock::now_us(),
            us => us,
        }
    }

    fn count_view(&self, rows: u64) {
        self.view_reads.fetch_add(rows, Ordering::Relaxed);
    }

    fn count_log(&self, reads: u64) {
        self.log_reads.fetch_add(reads, Ordering::Relaxed);
    }
}

impl Store for MemoryStore {
    fn commit(&self, lot: &[Commit], sealed: &mut dyn FnMut(&[Version])) -> Result<Vec<Version>> {
        let firsts = {
            let state = self.state.read();
            state.check(lot)?;
            let mut next = state.version.get().max(self.given.load(Ordering::SeqCst)).saturating_add(1);
            next = next.max(self.now_us());
            let mut firsts = Vec::with_capacity(lot.len());
            for commit in lot {
                for record in &commit.records {
                    // Everything from a break on lies above it, the break's own record too: the store's version must
                    // not be one that requests are told not to trust.
                    if let Record::Break { until, .. } = record {
                        next = next.max(until.get().saturating_add(1));
                    }
                }
                firsts.push(Version::new(next));
                next += commit.records.len() as u64;
            }
            self.given.store(next - 1, Ordering::SeqCst);
            firsts
        };
        sealed(&firsts);
        let mut control = self.commits.lock();
        control.waiting += 1;
        while control.held {
            self.released.wait(&mut control);
        }
        control.waiting -= 1;
        if let Some(kind) = control.failures.pop_front() {
            return Err(StoreError {
                operation: "append lot",
                kind,
                detail: "a failure asked for by a test".into(),
                source: None,
            });
        }
        drop(control);
        let mut state = self.state.write();
        for (commit, first) in lot.iter().zip(&firsts) {
            for (step, record) in (0..).zip(&commit.records) {
                let version = first.plus(step);
                state.apply(record, version);
                state.version = version;
            }
        }
        state.lots += 1;
        Ok(firsts)
    }

    fn version(&self) -> Version {
        self.state.read().version
    }

    fn version_standing(&self, version: Version) -> VersionStanding {
        let state = self.state.read();
        let broken = state.breaks.iter().any(|(kept, until)| version > *kept && version <= *until);
        if version > state.version || broken { VersionStanding::Unknown } else { VersionStanding::Known }
    }

    fn reserve_channel_no(&self) -> ChannelNo {
        ChannelNo(self.next_channel.fetch_add(1, Ordering::SeqCst))
    }

    fn channel_no(&self, key: &ChannelKey) -> Result<Option<ChannelNo>> {
        self.count_view(1);
        Ok(self.state.read().names.get(key).copied())
    }

    fn channel(&self, channel: ChannelNo) -> Result<Option<ChannelInfo>> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.channels.get(&channel).map(|found| ChannelInfo {
            channel,
            key: found.key.clone(),
            head_seq: found.head(),
            head_version: found.messages.last().map_or(Version::ZERO, |message| message.version),
            created: found.created,
            changed_version: found.changed,
            digest: found.messages.last().map_or(Digest::default(), |message| message.digest),
            settings: found.settings,
            member_count: found.states.values().filter(|state| state.is_member()).count() as u64,
            denied_count: found.listings.values().filter(|listing| listing.denied).count() as u64,
            allowed_count: found.listings.values().filter(|listing| listing.allowed).count() as u64,
        }))
    }

    fn alias(&self, alias: &str) -> Result<Option<ChannelNo>> {
        self.count_view(1);
        Ok(self.state.read().aliases.get(alias).copied())
    }

    fn membership(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<Membership>> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.channels.get(&channel).and_then(|found| found.membership(uid)))
    }

    fn memberships(&self, channel: ChannelNo) -> Result<Vec<(Uid, Membership)>> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(Vec::new()) };
        let members = found.states.keys().filter_map(|uid| Some((uid.clone(), found.membership(uid)?)));
        let mut members: Vec<_> = members.collect();
        members.sort_by(|(a, x), (b, y)| (x.since, a).cmp(&(y.since, b)));
        Ok(members)
    }

    fn profile(&self, channel: ChannelNo) -> Result<Option<ChannelProfile>> {
        self.count_view(1);
        Ok(self.state.read().channels.get(&channel).and_then(|found| found.profile.clone()))
    }

    fn members(&self, channel: ChannelNo) -> Result<Vec<Uid>> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(Vec::new()) };
        Ok(found.states.iter().filter(|(_, state)| state.is_member()).map(|(uid, _)| uid.clone()).collect())
    }

    fn listing(&self, channel: ChannelNo, uid: &Uid) -> Result<Listing> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.channels.get(&channel).and_then(|found| found.listings.get(uid)).copied().unwrap_or_default())
    }

    fn listed(&self, channel: ChannelNo, list: ChannelList) -> Result<Vec<Uid>> {
        self.count_view(1);
        let state = self.state.read();
        let listings = state.channels.get(&channel).into_iter().flat_map(|found| &found.listings);
        Ok(listings.filter(|(_, listing)| listing.on(list)).map(|(uid, _)| uid.clone()).collect())
    }

    fn commands_after(&self, channel: ChannelNo, floor: u64, max: usize) -> Result<Vec<u64>> {
        self.count_view(1);
        let state = self.state.read();
        let messages = state.channels.get(&channel).into_iter().flat_map(|found| &found.messages);
        let commands =
            messages.filter(|message| message.seq() > floor && message.record.flags.sync_once && !message.is_over());
        Ok(commands.map(Stored::seq).take(max).collect())
    }

    fn commands_read(&self, uid: &Uid) -> Result<(u64, Version)> {
        self.count_view(1);
        Ok(self.state.read().commands_read.get(uid).copied().unwrap_or_default())
    }

    fn is_system_user(&self, uid: &Uid) -> bool {
        self.state.read().system_users.contains(uid)
    }

    fn system_users(&self) -> Vec<Uid> {
        self.state.read().system_users.iter().cloned().collect()
    }

    fn is_address_blocked(&self, address: IpAddr) -> bool {
        self.state.read().blocked_addresses.contains(&address)
    }

    fn blocked_addresses(&self) -> Vec<IpAddr> {
        self.state.read().blocked_addresses.iter().copied().collect()
    }

    fn digest(&self, channel: ChannelNo, seq: u64) -> Result<Option<Digest>> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(None) };
        if seq == 0 {
            return Ok(Some(Digest::default()));
        }
        Ok(found.message(seq).map(|message| message.digest))
    }

    fn probe(&self, channel: ChannelNo, fingerprint: u64) -> Probe {
        let state = self.state.read();
        let stored = state.channels.get(&channel).is_some_and(|found| found.fingerprints.contains(&fingerprint));
        if stored { Probe::Ask } else { Probe::Absent }
    }

    fn warm(&self, _channel: ChannelNo) -> Result<()> {
        Ok(())
    }

    fn message_by_client_msg_no(
        &self,
        channel: ChannelNo,
        from_uid: &Uid,
        client_msg_no: &ClientMsgNo,
    ) -> Result<Option<Message>> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(None) };
        let Some(seq) = found.by_name.get(&(from_uid.clone(), client_msg_no.clone())) else { return Ok(None) };
        self.count_log(1);
        Ok(found.message(*seq).map(|message| message.as_sent(&found.key)))
    }

    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(Vec::new()) };
        let (first, last) = (range.first.max(1), range.last.min(found.head()));
        let seqs: Vec<u64> = if range.newest_first {
            (first..=last).rev().take(range.limit).collect()
        } else {
            (first..=last).take(range.limit).collect()
        };
        let mut messages = Vec::new();
        let mut bytes = 0;
        for message in seqs.into_iter().filter_map(|seq| found.message(seq)) {
            let message = message.read(&found.key);
            bytes += message.payload.len();
            if bytes > range.bytes_max && !messages.is_empty() {
                break;
            }
            messages.push(message);
        }
        self.count_log(u64::from(!messages.is_empty()));
        Ok(messages)
    }

    fn message_changes(&self, channel: ChannelNo, since: Version, max: usize) -> Result<MessageChanges> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(MessageChanges::default()) };
        let changed = found.messages.iter().filter(|message| message.changed > since);
        let mut changes: Vec<(u64, Version)> = changed.map(|message| (message.seq(), message.changed)).collect();
        changes.sort_by_key(|(seq, version)| (std::cmp::Reverse(*version), *seq));
        let more = changes.len() > max;
        changes.truncate(max);
        Ok(MessageChanges { changes, more })
    }

    fn search(&self, channel: ChannelNo, query: &SearchQuery) -> Result<SearchFound> {
        self.count_view(1);
        let state = self.state.read();
        let Some(channel) = state.channels.get(&channel) else { return Ok(SearchFound::default()) };
        let mut found = SearchFound::default();
        let (first, last) = (query.first.max(1), query.last.min(channel.head()));
        for (scanned, seq) in (first..=last).rev().enumerate() {
            if found.messages.len() >= query.limit || scanned >= query.scan_max {
                found.resume = Some(seq);
                break;
            }
            let Some(message) = channel.message(seq) else { continue };
            let message = message.read(&channel.key);
            let text = search_text(&message.payload).filter(|_| message.state == MessageState::Live);
            if text.is_some_and(|text| fold(&text).contains(&query.pattern)) {
                found.messages.push(message);
            }
        }
        Ok(found)
    }

    fn mentions_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<u64> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok(0) };
        let mentioning = found.messages.iter().filter(|message| message.seq() > floor && message.mentions(uid));
        Ok(mentioning.count() as u64)
    }

    fn message_by_id(&self, message_id: Version) -> Result<Option<Message>> {
        self.count_view(1);
        let state = self.state.read();
        let Some((channel, seq)) = state.ids.get(&message_id) else { return Ok(None) };
        self.count_log(1);
        let Some(found) = state.channels.get(channel) else { return Ok(None) };
        Ok(found.message(*seq).map(|message| message.read(&found.key)))
    }

    fn logged_after(&self, after: Version, max: usize) -> Result<Logged> {
        let state = self.state.read();
        let mut logged = Logged { reached: after.max(state.version), ..Logged::default() };
        for (version, (channel, seq)) in state.ids.range((Bound::Excluded(after), Bound::Unbounded)) {
            if logged.messages.len() == max {
                logged.more = true;
                logged.reached = logged.messages.last().map_or(after, |last| last.version);
                break;
            }
            let found = state.channels.get(channel).and_then(|found| found.message(*seq));
            let bytes = found.map_or(0, |message| message.record.payload.len() + 64);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            logged.messages.push(LoggedMessage { version: *version, channel: *channel, seq: *seq, bytes });
        }
        Ok(logged)
    }

    fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok((0, 0)) };
        Ok((found.countable(uid, floor).count() as u64, found.head()))
    }

    fn position_for_unread(
        &self,
        channel: ChannelNo,
        uid: &Uid,
        unread: u64,
        floor_min: u64,
    ) -> Result<(u64, u64, u64)> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok((floor_min, 0, 0)) };
        let head = found.head();
        if unread == 0 {
            return Ok((head.max(floor_min), 0, head));
        }
        let newest: Vec<u64> =
            found.countable(uid, floor_min).take(usize::try_from(unread).unwrap_or(usize::MAX)).collect();
        match newest.last() {
            Some(oldest) if newest.len() as u64 == unread => Ok((oldest - 1, unread, head)),
            _ => Ok((floor_min, newest.len() as u64, head)),
        }
    }

    fn last_own(&self, channel: ChannelNo, uid: &Uid) -> Result<LastOwn> {
        self.count_view(1);
        let state = self.state.read();
        let own = state
            .channels
            .get(&channel)
            .and_then(|found| found.messages.iter().rev().find(|message| message.record.from_uid == *uid));
        Ok(own.map_or(LastOwn::default(), |message| LastOwn { seq: message.seq(), version: message.version }))
    }

    fn conversation_state(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<ConversationState>> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.channels.get(&channel).and_then(|found| found.states.get(uid).copied()))
    }

    fn channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.channels_of.get(uid).map(|channels| channels.iter().copied().collect()).unwrap_or_default())
    }

    fn channel_count_of(&self, uid: &Uid) -> Result<u64> {
        self.count_view(1);
        Ok(self.state.read().channels_of.get(uid).map_or(0, BTreeSet::len) as u64)
    }

    fn own_changes(&self, uid: &Uid, since: Version) -> Result<Vec<ChannelNo>> {
        let state = self.state.read();
        let Some(channels) = state.channels_of.get(uid) else {
            self.count_view(1);
            return Ok(Vec::new());
        };
        let changed = |channel: &ChannelNo| {
            let own = state.channels.get(channel).and_then(|found| found.states.get(uid));
            own.is_some_and(|own| own.changed_version() > since)
        };
        let changes: Vec<ChannelNo> = channels.iter().copied().filter(changed).collect();
        self.count_view(1 + changes.len() as u64);
        Ok(changes)
    }

    fn changed_among(&self, of: &[ChannelNo], since: Version) -> Vec<ChannelNo> {
        let state = self.state.read();
        let changed = |channel: &ChannelNo| state.channels.get(channel).is_some_and(|found| found.changed > since);
        of.iter().copied().filter(changed).collect()
    }

    fn recently_changed(&self, since: Version, max: usize) -> Option<Vec<ChannelNo>> {
        let state = self.state.read();
        if since < state.ring_floor {
            return None;
        }
        let mut seen = BTreeSet::new();
        for (_, channel) in state.ring.iter().rev().take_while(|(version, _)| *version > since) {
            seen.insert(*channel);
            if seen.len() > max {
                return None;
            }
        }
        Some(seen.into_iter().collect())
    }

    fn user_settings(&self, uid: &Uid) -> Result<UserSettings> {
        self.count_view(1);
        Ok(self.state.read().settings.get(uid).copied().unwrap_or_default())
    }

    fn relation(&self, uid: &Uid, peer: &Uid) -> Result<Relation> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.relations.get(uid).and_then(|relations| relations.get(peer)).copied().unwrap_or_default())
    }

    fn relations(&self, uid: &Uid) -> Result<Vec<(Uid, Relation)>> {
        self.count_view(1);
        let state = self.state.read();
        let relations = state.relations.get(uid).into_iter().flatten();
        Ok(relations.map(|(peer, relation)| (peer.clone(), *relation)).collect())
    }

    fn file(&self, file_id: &FileId) -> Result<Option<FileInfo>> {
        self.count_view(1);
        Ok(self.state.read().files.get(file_id).cloned())
    }

    fn file_references(&self, file_id: &FileId, max: usize) -> Result<Vec<(ChannelNo, u64)>> {
        self.count_view(1);
        let state = self.state.read();
        Ok(state.references.get(file_id).into_iter().flatten().copied().take(max).collect())
    }

    fn unused_files(&self, before: Version, max: usize) -> Result<Vec<FileInfo>> {
        self.count_view(1);
        let state = self.state.read();
        let unused = |info: &&FileInfo| info.created < before && !state.references.contains_key(&info.record.file_id);
        Ok(state.files.values().filter(unused).take(max).cloned().collect())
    }

    fn has_content(&self, content: &ContentHash) -> Result<bool> {
        self.count_view(1);
        Ok(self.state.read().files.values().any(|info| info.record.content == *content))
    }

    fn user_known(&self, uid: &Uid) -> Result<bool> {
        self.count_view(1);
        let state = self.state.read();
        let has_token = state.tokens.keys().any(|(owner, _)| owner == uid);
        let is_member = state.channels_of.get(uid).into_iter().flatten().any(|channel| {
            let own = state.channels.get(channel).and_then(|found| found.states.get(uid));
            own.is_some_and(ConversationState::is_member)
        });
        Ok(has_token || is_member || state.users.contains(uid) || state.senders.contains(uid))
    }

    fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>> {
        self.count_view(1);
        let state = self.state.read();
        let held = state.tokens.iter().filter(|(_, (_, hash))| hash == token);
        Ok(held.map(|((uid, flag), (level, _))| (uid.clone(), DeviceFlag(*flag), *level)).collect())
    }

    fn api_key(&self, secret: &CredentialHash) -> Option<ApiKey> {
        self.state.read().keys.values().find(|key| key.secret == *secret).cloned()
    }

    fn api_keys(&self) -> Vec<ApiKey> {
        self.state.read().keys.values().cloned().collect()
    }

    fn expiry_due(&self, now_ms: u64, max: usize) -> Result<Vec<(ChannelNo, Vec<u64>)>> {
        self.count_view(1);
        let state = self.state.read();
        let mut due: Vec<(u64, ChannelNo, Vec<u64>)> = Vec::new();
        for (channel, found) in &state.channels {
            let over = |message: &&Stored| message.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
            let earliest = found.messages.iter().filter(over).filter_map(Stored::due_ms).min();
            if let Some(earliest) = earliest {
                due.push((earliest, *channel, found.messages.iter().filter(over).map(Stored::seq).collect()));
            }
        }
        due.sort();
        due.truncate(max);
        Ok(due.into_iter().map(|(_, channel, seqs)| (channel, seqs)).collect())
    }

    fn checkpoint(&self) -> Result<()> {
        Ok(())
    }

    fn read_counts(&self) -> ReadCounts {
        ReadCounts { view: self.view_reads.load(Ordering::Relaxed), log: self.log_reads.load(Ordering::Relaxed) }
    }

    fn stats(&self) -> StoreStats {
        let state = self.state.read();
        StoreStats {
            channels: state.channels.len() as u64,
            log_bytes: state.payload_bytes,
            lots: state.lots,
            ..StoreStats::default()
        }
    }
}

#[cfg(test)]
mod tests;
