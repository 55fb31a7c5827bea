//! The reference model: the store's verbs over plain maps under one lock. What tests compare the durable store with, and
//! what tests of the hub run on.
//!
//! It is naive on purpose: unread is a recount, the last own message a walk back, so that reading it is enough to believe it.
//! It owns nothing durable and refuses to know bytes. Invariants: a failed commit leaves no trace; versions only grow;
//! what a verb documents as "no I/O" is not counted in [`ReadCounts`], everything else is.
//!
//! For tests it can fail or hold the next commit, damage a message, stop its clock and shrink its ring of recent changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use protocol::ids::{ChannelKey, ClientMsgNo, DeviceFlag, FileId, MessageId, Uid, Version};

use super::{
    ApiKey, ChannelInfo, ChannelNo, Commit, CredentialHash, MessageChanges, MessageRecord, Probe, ReadCounts, Record,
    Result, SearchFound, SearchQuery, SeqRange, Store, StoreError, StoreStats, VersionStanding,
};
use crate::clock;
use crate::domain::channel::{ChannelProfile, ChannelSettings, Membership, Role};
use crate::domain::content::{fold, search_text};
use crate::domain::conversation::{ConversationState, LastOwn};
use crate::domain::file::{ContentHash, FileInfo};
use crate::domain::message::{Digest, Extras, Message, MessageFlags, MessageState, Reacted, chain_digest, fingerprint};
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};

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

#[derive(Default)]
struct State {
    version: Version,
    breaks: Vec<(Version, Version)>,
    channels: HashMap<ChannelNo, Channel>,
    names: HashMap<ChannelKey, ChannelNo>,
    aliases: HashMap<String, ChannelNo>,
    ids: BTreeMap<MessageId, (ChannelNo, u64)>,
    /// Channels in which a user has any state.
    channels_of: HashMap<Uid, BTreeSet<ChannelNo>>,
    users: BTreeSet<Uid>,
    senders: BTreeSet<Uid>,
    tokens: BTreeMap<(Uid, u8), (u8, CredentialHash)>,
    keys: BTreeMap<String, ApiKey>,
    settings: BTreeMap<Uid, UserSettings>,
    relations: BTreeMap<Uid, BTreeMap<Uid, Relation>>,
    files: BTreeMap<FileId, FileInfo>,
    references: BTreeMap<FileId, BTreeSet<(ChannelNo, u64)>>,
    ring: VecDeque<(Version, ChannelNo)>,
    ring_max: usize,
    /// Version of the last change the ring has forgotten.
    ring_floor: Version,
    lots: u64,
    payload_bytes: u64,
}

struct Channel {
    key: ChannelKey,
    settings: ChannelSettings,
    messages: Vec<Stored>,
    states: BTreeMap<Uid, ConversationState>,
    by_name: HashMap<(Uid, ClientMsgNo), u64>,
    fingerprints: BTreeSet<u64>,
    created: Version,
    changed: Version,
    profile: Option<ChannelProfile>,
    roles: BTreeMap<Uid, Role>,
}

struct Stored {
    record: MessageRecord,
    version: Version,
    digest: Digest,
    expired: bool,
    revoked: bool,
    damaged: bool,
    /// Payload, extras and version of the last edit.
    edit: Option<(Bytes, Option<Box<Extras>>, Version)>,
    /// In the order of each user's present reaction.
    reactions: Vec<Reacted>,
    /// Version of the last change after it was stored; zero: none.
    changed: Version,
}

impl Stored {
    fn seq(&self) -> u64 {
        self.record.message_seq.get()
    }

    fn countable_for(&self, uid: &Uid) -> bool {
        let flags = self.record.flags;
        flags.red_dot && !flags.sync_once && !self.is_over() && self.record.from_uid != *uid
    }

    fn is_over(&self) -> bool {
        self.expired || self.revoked
    }

    fn extras(&self) -> Option<&Extras> {
        match &self.edit {
            Some((_, extras, _)) => extras.as_deref(),
            None => self.record.extras.as_deref(),
        }
    }

    fn mentions(&self, uid: &Uid) -> bool {
        let named = |extras: &Extras| extras.mention_all || extras.mentions.contains(uid);
        !self.is_over() && self.record.from_uid != *uid && self.extras().is_some_and(named)
    }

    fn due_ms(&self) -> Option<u64> {
        let live = self.record.expire_s > 0 && !self.expired;
        live.then(|| self.version.unix_ms() + u64::from(self.record.expire_s) * 1_000)
    }

    fn read(&self, key: &ChannelKey) -> Message {
        let record = &self.record;
        if self.damaged {
            return Message {
                channel: key.clone(),
                message_seq: record.message_seq,
                message_id: Version::ZERO,
                from_uid: Uid::from_stored(""),
                client_msg_no: ClientMsgNo::from_stored(""),
                flags: MessageFlags::default(),
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::new(),
                extras: None,
                edited: Version::ZERO,
                reactions: Vec::new(),
                state: MessageState::Damaged,
            };
        }
        let (payload, extras) = match (&self.edit, self.is_over()) {
            (_, true) => (Bytes::new(), None),
            (Some((payload, extras, _)), false) => (payload.clone(), extras.clone()),
            (None, false) => (record.payload.clone(), record.extras.clone()),
        };
        Message {
            channel: key.clone(),
            message_seq: record.message_seq,
            message_id: self.version,
            from_uid: record.from_uid.clone(),
            client_msg_no: record.client_msg_no.clone(),
            flags: record.flags,
            setting: record.setting,
            topic: record.topic.clone(),
            expire_s: record.expire_s,
            payload,
            extras,
            edited: self.edit.as_ref().map_or(Version::ZERO, |(.., version)| *version),
            reactions: if self.is_over() { Vec::new() } else { self.reactions.clone() },
            state: match (self.revoked, self.expired) {
                (true, _) => MessageState::Revoked,
                (false, true) => MessageState::Expired,
                (false, false) => MessageState::Live,
            },
        }
    }
}

impl Channel {
    fn new(key: ChannelKey) -> Self {
        Self {
            key,
            settings: ChannelSettings::default(),
            messages: Vec::new(),
            states: BTreeMap::new(),
            by_name: HashMap::new(),
            fingerprints: BTreeSet::new(),
            created: Version::ZERO,
            changed: Version::ZERO,
            profile: None,
            roles: BTreeMap::new(),
        }
    }

    fn membership(&self, uid: &Uid) -> Option<Membership> {
        let state = self.states.get(uid).filter(|state| state.is_member())?;
        let role = self.roles.get(uid).copied().unwrap_or_default();
        Some(Membership { role, join_floor: state.join_floor, since: state.join_version })
    }

    fn message_mut(&mut self, seq: u64) -> Option<&mut Stored> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.messages.get_mut(place)
    }

    fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    fn message(&self, seq: u64) -> Option<&Stored> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.messages.get(place)
    }

    /// Countable messages above `floor`, newest first.
    fn countable<'a>(&'a self, uid: &'a Uid, floor: u64) -> impl Iterator<Item = u64> + 'a {
        self.messages
            .iter()
            .rev()
            .take_while(move |m| m.seq() > floor)
            .filter(move |m| m.countable_for(uid))
            .map(Stored::seq)
    }
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

fn defect(detail: impl std::fmt::Display) -> StoreError {
    StoreError { operation: "commit", kind: ErrorKind::Internal, detail: detail.to_string(), source: None }
}

impl State {
    /// Refuses what no correct caller commits, before anything is applied: this keeps a failed lot without a trace.
    fn check(&self, lot: &[Commit]) -> Result<()> {
        let mut heads: HashMap<ChannelNo, u64> = HashMap::new();
        let mut names: BTreeSet<&ChannelKey> = BTreeSet::new();
        if lot.is_empty() || lot.iter().any(|commit| commit.records.is_empty()) {
            return Err(defect("a lot or a commit without records"));
        }
        for record in lot.iter().flat_map(|commit| &commit.records) {
            if let Record::ChannelCreated { channel, key } = record {
                let taken = self.channels.contains_key(channel) || heads.contains_key(channel);
                if taken || self.names.contains_key(key) || !names.insert(key) {
                    return Err(defect(format_args!("channel {key:?} or its number {} exists", channel.0)));
                }
                heads.insert(*channel, 0);
                continue;
            }
            let Some(channel) = record.channel() else { continue };
            let stored = self.channels.get(&channel).map(Channel::head);
            let head = match heads.get(&channel).copied().or(stored) {
                Some(head) => head,
                None => return Err(defect(format_args!("channel {} does not exist", channel.0))),
            };
            if let Record::Message(message) = record {
                if message.message_seq.get() != head + 1 {
                    let seq = message.message_seq;
                    return Err(defect(format_args!("message_seq {seq} after head {head} of channel {}", channel.0)));
                }
                heads.insert(channel, head + 1);
            }
        }
        Ok(())
    }

    fn channel_changed(&mut self, channel: ChannelNo, version: Version) {
        if let Some(found) = self.channels.get_mut(&channel) {
            found.changed = version;
        }
        self.ring.push_back((version, channel));
        while self.ring.len() > self.ring_max {
            if let Some((forgotten, _)) = self.ring.pop_front() {
                self.ring_floor = forgotten;
            }
        }
    }

    /// The user's state in the channel, made when there is none.
    fn state_of(&mut self, channel: ChannelNo, uid: &Uid) -> Option<&mut ConversationState> {
        let found = self.channels.get_mut(&channel)?;
        self.channels_of.entry(uid.clone()).or_default().insert(channel);
        Some(found.states.entry(uid.clone()).or_default())
    }

    fn join(&mut self, channel: ChannelNo, uid: &Uid, join_floor: u64, version: Version) {
        if let Some(state) = self.state_of(channel, uid)
            && !state.is_member()
        {
            state.join_floor = join_floor;
            state.join_version = version;
        }
    }

    fn apply(&mut self, record: &Record, version: Version) {
        match record {
            Record::ChannelCreated { channel, key } => {
                self.names.insert(key.clone(), *channel);
                self.channels.insert(*channel, Channel { created: version, ..Channel::new(key.clone()) });
                if let Some((a, b)) = key.pair() {
                    self.join(*channel, &a, 0, version);
                    self.join(*channel, &b, 0, version);
                }
                if let Some(visitor) = key.visitor() {
                    self.join(*channel, &visitor, 0, version);
                }
            }
            Record::ChannelSettings { channel, settings } => {
                if let Some(found) = self.channels.get_mut(channel) {
                    found.settings = *settings;
                }
                self.channel_changed(*channel, version);
            }
            Record::Message(message) => self.apply_message(message, version),
            Record::MembersAdded { channel, join_floor, uids } => {
                for uid in uids {
                    self.join(*channel, uid, *join_floor, version);
                }
            }
            Record::MembersRemoved { channel, delete_floor, uids } => {
                let Some(found) = self.channels.get_mut(channel) else { return };
                for uid in uids {
                    if let Some(state) = found.states.get_mut(uid)
                        && state.is_member()
                    {
                        state.leave_version = version;
                        state.delete_floor = state.delete_floor.max(*delete_floor);
                        state.delete_version = version;
                        found.roles.remove(uid);
                    }
                }
            }
            Record::ReadPosition { channel, uid, seq } => {
                if let Some(state) = self.state_of(*channel, uid) {
                    state.read_seq = *seq;
                    state.read_version = version;
                }
            }
            Record::ConversationDeleted { channel, uid, delete_floor } => {
                if let Some(state) = self.state_of(*channel, uid) {
                    state.delete_floor = state.delete_floor.max(*delete_floor);
                    state.delete_version = version;
                }
            }
            Record::MessagesExpired { channel, seqs } => {
                if let Some(found) = self.channels.get_mut(channel) {
                    for seq in seqs {
                        if let Some(message) = found.message_mut(*seq) {
                            message.expired = true;
                            message.changed = version;
                        }
                    }
                }
                self.channel_changed(*channel, version);
            }
            Record::MessageRevoked { channel, seq, .. } => {
                self.change_message(*channel, *seq, version, |message| message.revoked |= !message.expired);
            }
            Record::MessageEdited { channel, seq, payload, extras, .. } => {
                self.change_message(*channel, *seq, version, |message| {
                    message.edit = Some((payload.clone(), extras.clone(), version));
                });
                self.refer(*channel, *seq, extras.as_deref());
            }
            Record::MessageReacted { channel, seq, uid, reaction } => {
                self.change_message(*channel, *seq, version, |message| {
                    let before = message.reactions.iter().position(|reacted| reacted.uid == *uid);
                    match (before, reaction) {
                        (Some(at), Some(reaction)) if message.reactions[at].reaction == *reaction => {}
                        (before, reaction) => {
                            before.map(|at| message.reactions.remove(at));
                            let now = reaction.map(|reaction| Reacted { uid: uid.clone(), reaction });
                            message.reactions.extend(now);
                        }
                    }
                });
            }
            Record::MemberRole { channel, uid, role } => {
                if let Some(found) = self.channels.get_mut(channel)
                    && found.membership(uid).is_some()
                {
                    found.roles.insert(uid.clone(), *role);
                }
            }
            Record::ChannelProfile { channel, profile } => {
                if let Some(found) = self.channels.get_mut(channel) {
                    found.profile = Some((**profile).clone());
                }
                self.channel_changed(*channel, version);
            }
            Record::ConversationFlags { channel, uid, flags } => {
                if let Some(state) = self.state_of(*channel, uid) {
                    state.flags = *flags;
                    state.flags_version = version;
                }
            }
            Record::UserSettings { uid, settings } => {
                self.settings.insert(uid.clone(), *settings);
            }
            Record::Relation { uid, peer, relation } => {
                let relations = self.relations.entry(uid.clone()).or_default();
                match *relation == Relation::default() {
                    true => relations.remove(peer),
                    false => relations.insert(peer.clone(), *relation),
                };
            }
            Record::File(file) => {
                let info = FileInfo { record: (**file).clone(), created: version };
                self.files.insert(file.file_id.clone(), info);
            }
            Record::FileRemoved { file_id } => {
                self.files.remove(file_id);
            }
            Record::UserCreated { uid } => {
                self.users.insert(uid.clone());
            }
            Record::UserToken { uid, device_flag, device_level, token } => {
                let device = (uid.clone(), device_flag.0);
                match token {
                    Some(token) => self.tokens.insert(device, (*device_level, *token)),
                    None => self.tokens.remove(&device),
                };
            }
            Record::ApiKey(key) => {
                self.keys.insert(key.key_id.clone(), key.clone());
            }
            Record::Alias { alias, channel } => {
                self.aliases.insert(alias.clone(), *channel);
            }
            Record::Break { kept, until } => self.breaks.push((*kept, *until)),
        }
    }

    fn change_message(&mut self, channel: ChannelNo, seq: u64, version: Version, change: impl FnOnce(&mut Stored)) {
        if let Some(message) = self.channels.get_mut(&channel).and_then(|found| found.message_mut(seq)) {
            change(message);
            message.changed = version;
            self.channel_changed(channel, version);
        }
    }

    fn refer(&mut self, channel: ChannelNo, seq: u64, extras: Option<&Extras>) {
        for file_id in extras.into_iter().flat_map(|extras| &extras.files) {
            self.references.entry(file_id.clone()).or_default().insert((channel, seq));
        }
    }

    fn apply_message(&mut self, record: &MessageRecord, version: Version) {
        let Some(channel) = self.channels.get_mut(&record.channel) else { return };
        let previous = channel.messages.last().map_or(Digest::default(), |message| message.digest);
        let seq = record.message_seq.get();
        let digest = chain_digest(&previous, seq, version, &record.from_uid, &record.client_msg_no, &record.payload);
        channel.by_name.entry((record.from_uid.clone(), record.client_msg_no.clone())).or_insert(seq);
        channel.fingerprints.insert(fingerprint(&record.from_uid, &record.client_msg_no));
        channel.messages.push(Stored {
            record: record.clone(),
            version,
            digest,
            expired: false,
            revoked: false,
            damaged: false,
            edit: None,
            reactions: Vec::new(),
            changed: Version::ZERO,
        });
        self.payload_bytes += record.payload.len() as u64;
        self.ids.insert(version, (record.channel, seq));
        self.senders.insert(record.from_uid.clone());
        self.refer(record.channel, seq, record.extras.as_deref());
        self.channel_changed(record.channel, version);
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
        Ok(found.message(*seq).map(|message| message.read(&found.key)))
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

    fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok((0, 0)) };
        Ok((found.countable(uid, floor).count() as u64, found.head()))
    }

    fn position_for_unread(&self, channel: ChannelNo, uid: &Uid, unread: u64, floor_min: u64) -> Result<(u64, u64)> {
        self.count_view(1);
        let state = self.state.read();
        let Some(found) = state.channels.get(&channel) else { return Ok((floor_min, 0)) };
        if unread == 0 {
            return Ok((found.head().max(floor_min), 0));
        }
        let newest: Vec<u64> =
            found.countable(uid, floor_min).take(usize::try_from(unread).unwrap_or(usize::MAX)).collect();
        match newest.last() {
            Some(oldest) if newest.len() as u64 == unread => Ok((oldest - 1, unread)),
            _ => Ok((floor_min, newest.len() as u64)),
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
