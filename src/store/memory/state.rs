//! The model's state: plain maps, and what each record does to them.
//!
//! Owns the meaning of records in its simplest form. Refuses to know locks, clocks and what tests ask of commits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;
use protocol::ids::{ChannelKey, ClientMsgNo, FileId, MessageId, Uid, Version};

use crate::domain::channel::{ChannelProfile, ChannelSettings, Listing, Membership, Role};
use crate::domain::conversation::ConversationState;
use crate::domain::event::Lane;
use crate::domain::file::FileInfo;
use crate::domain::message::{Digest, Extras, Message, MessageFlags, MessageState, Reacted, chain_digest, fingerprint};
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};
use crate::store::{ApiKey, ChannelNo, Commit, CredentialHash, MessageRecord, Record, Result, StoreError};

#[derive(Default)]
pub(super) struct State {
    pub(super) version: Version,
    pub(super) breaks: Vec<(Version, Version)>,
    pub(super) channels: HashMap<ChannelNo, Channel>,
    pub(super) names: HashMap<ChannelKey, ChannelNo>,
    pub(super) aliases: HashMap<String, ChannelNo>,
    pub(super) ids: BTreeMap<MessageId, (ChannelNo, u64)>,
    /// Channels in which a user has any state.
    pub(super) channels_of: HashMap<Uid, BTreeSet<ChannelNo>>,
    pub(super) users: BTreeSet<Uid>,
    pub(super) senders: BTreeSet<Uid>,
    pub(super) tokens: BTreeMap<(Uid, u8), (u8, CredentialHash)>,
    pub(super) keys: BTreeMap<String, ApiKey>,
    pub(super) settings: BTreeMap<Uid, UserSettings>,
    pub(super) relations: BTreeMap<Uid, BTreeMap<Uid, Relation>>,
    pub(super) system_users: BTreeSet<Uid>,
    pub(super) blocked_addresses: BTreeSet<IpAddr>,
    pub(super) commands_read: BTreeMap<Uid, (u64, Version)>,
    pub(super) files: BTreeMap<FileId, FileInfo>,
    pub(super) references: BTreeMap<FileId, BTreeSet<(ChannelNo, u64)>>,
    pub(super) ring: VecDeque<(Version, ChannelNo)>,
    pub(super) ring_max: usize,
    /// Version of the last change the ring has forgotten.
    pub(super) ring_floor: Version,
    pub(super) lots: u64,
    pub(super) payload_bytes: u64,
}

pub(super) struct Channel {
    pub(super) key: ChannelKey,
    pub(super) settings: ChannelSettings,
    pub(super) messages: Vec<Stored>,
    pub(super) states: BTreeMap<Uid, ConversationState>,
    pub(super) by_name: HashMap<(Uid, ClientMsgNo), u64>,
    pub(super) fingerprints: BTreeSet<u64>,
    pub(super) created: Version,
    pub(super) changed: Version,
    pub(super) profile: Option<ChannelProfile>,
    pub(super) roles: BTreeMap<Uid, Role>,
    pub(super) listings: BTreeMap<Uid, Listing>,
}

pub(super) struct Stored {
    pub(super) record: MessageRecord,
    pub(super) version: Version,
    pub(super) digest: Digest,
    pub(super) expired: bool,
    pub(super) revoked: bool,
    pub(super) damaged: bool,
    /// Payload, extras and version of the last edit.
    pub(super) edit: Option<(Bytes, Option<Box<Extras>>, Version)>,
    /// In the order of each user's present reaction.
    pub(super) reactions: Vec<Reacted>,
    /// By number.
    pub(super) lanes: BTreeMap<u8, Lane>,
    /// Version of the last change after it was stored; zero: none.
    pub(super) changed: Version,
}

impl Stored {
    pub(super) fn seq(&self) -> u64 {
        self.record.message_seq.get()
    }

    pub(super) fn countable_for(&self, uid: &Uid) -> bool {
        let flags = self.record.flags;
        flags.red_dot && !flags.sync_once && !self.is_over() && self.record.from_uid != *uid
    }

    pub(super) fn is_over(&self) -> bool {
        self.expired || self.revoked
    }

    pub(super) fn extras(&self) -> Option<&Extras> {
        match &self.edit {
            Some((_, extras, _)) => extras.as_deref(),
            None => self.record.extras.as_deref(),
        }
    }

    pub(super) fn mentions(&self, uid: &Uid) -> bool {
        let named = |extras: &Extras| extras.mention_all || extras.mentions.contains(uid);
        !self.is_over() && self.record.from_uid != *uid && self.extras().is_some_and(named)
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        let live = self.record.expire_s > 0 && !self.expired;
        live.then(|| self.version.unix_ms() + u64::from(self.record.expire_s) * 1_000)
    }

    /// Without what was changed since, but withheld where it is over.
    pub(super) fn as_sent(&self, key: &ChannelKey) -> Message {
        let message = self.read(key);
        let message = Message { edited: Version::ZERO, reactions: Vec::new(), lanes: Vec::new(), ..message };
        if message.state != MessageState::Live {
            return Message { edited: Version::ZERO, ..message };
        }
        let (payload, extras) = (self.record.payload.clone(), self.record.extras.clone());
        Message { payload, extras, ..message }
    }

    pub(super) fn read(&self, key: &ChannelKey) -> Message {
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
                lanes: Vec::new(),
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
            lanes: if self.is_over() { Vec::new() } else { self.lanes.values().cloned().collect() },
            state: match (self.revoked, self.expired) {
                (true, _) => MessageState::Revoked,
                (false, true) => MessageState::Expired,
                (false, false) => MessageState::Live,
            },
        }
    }
}

impl Channel {
    pub(super) fn new(key: ChannelKey) -> Self {
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
            listings: BTreeMap::new(),
        }
    }

    pub(super) fn membership(&self, uid: &Uid) -> Option<Membership> {
        let state = self.states.get(uid).filter(|state| state.is_member())?;
        let role = self.roles.get(uid).copied().unwrap_or_default();
        Some(Membership { role, join_floor: state.join_floor, since: state.join_version })
    }

    pub(super) fn message_mut(&mut self, seq: u64) -> Option<&mut Stored> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.messages.get_mut(place)
    }

    pub(super) fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn message(&self, seq: u64) -> Option<&Stored> {
        let place = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.messages.get(place)
    }

    /// Countable messages above `floor`, newest first.
    pub(super) fn countable<'a>(&'a self, uid: &'a Uid, floor: u64) -> impl Iterator<Item = u64> + 'a {
        self.messages
            .iter()
            .rev()
            .take_while(move |m| m.seq() > floor)
            .filter(move |m| m.countable_for(uid))
            .map(Stored::seq)
    }
}

fn defect(detail: impl std::fmt::Display) -> StoreError {
    StoreError { operation: "commit", kind: ErrorKind::Internal, detail: detail.to_string(), source: None }
}

impl State {
    /// Refuses what no correct caller commits, before anything is applied: this keeps a failed lot without a trace.
    pub(super) fn check(&self, lot: &[Commit]) -> Result<()> {
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

    pub(super) fn channel_changed(&mut self, channel: ChannelNo, version: Version) {
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
    pub(super) fn state_of(&mut self, channel: ChannelNo, uid: &Uid) -> Option<&mut ConversationState> {
        let found = self.channels.get_mut(&channel)?;
        self.channels_of.entry(uid.clone()).or_default().insert(channel);
        Some(found.states.entry(uid.clone()).or_default())
    }

    pub(super) fn join(&mut self, channel: ChannelNo, uid: &Uid, join_floor: u64, version: Version) {
        if let Some(state) = self.state_of(channel, uid)
            && !state.is_member()
        {
            state.join_floor = join_floor;
            state.join_version = version;
        }
    }

    pub(super) fn apply(&mut self, record: &Record, version: Version) {
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
            Record::MessageEvent { channel, seq, lane } => {
                self.change_message(*channel, *seq, version, |message| {
                    message.lanes.insert(lane.number, (**lane).clone());
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
            Record::ChannelListed { channel, list, on, uids } => {
                if let Some(found) = self.channels.get_mut(channel) {
                    for uid in uids {
                        let listing = found.listings.entry(uid.clone()).or_default();
                        *listing = listing.with(*list, *on);
                    }
                    found.listings.retain(|_, listing| !listing.is_none());
                }
            }
            Record::SystemUser { uid, on } => {
                match on {
                    true => self.system_users.insert(uid.clone()),
                    false => self.system_users.remove(uid),
                };
            }
            Record::CommandsRead { uid, position, message_id } => {
                self.commands_read.insert(uid.clone(), (*position, *message_id));
            }
            Record::AddressBlocked { address, on } => {
                match on {
                    true => self.blocked_addresses.insert(*address),
                    false => self.blocked_addresses.remove(address),
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

    pub(super) fn change_message(
        &mut self,
        channel: ChannelNo,
        seq: u64,
        version: Version,
        change: impl FnOnce(&mut Stored),
    ) {
        if let Some(message) = self.channels.get_mut(&channel).and_then(|found| found.message_mut(seq)) {
            change(message);
            message.changed = version;
            self.channel_changed(channel, version);
        }
    }

    pub(super) fn refer(&mut self, channel: ChannelNo, seq: u64, extras: Option<&Extras>) {
        for file_id in extras.into_iter().flat_map(|extras| &extras.files) {
            self.references.entry(file_id.clone()).or_default().insert((channel, seq));
        }
    }

    pub(super) fn apply_message(&mut self, record: &MessageRecord, version: Version) {
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
            lanes: BTreeMap::new(),
            changed: Version::ZERO,
        });
        self.payload_bytes += record.payload.len() as u64;
        self.ids.insert(version, (record.channel, seq));
        self.senders.insert(record.from_uid.clone());
        self.refer(record.channel, seq, record.extras.as_deref());
        self.channel_changed(record.channel, version);
    }
}
