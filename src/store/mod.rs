//! Durable truth behind one trait.
//!
//! Owns what is stored and how it is asked. One write verb, [`Store::commit`]; every read verb says what it may cost.
//! Knows the domain's words; refuses to know the hub, sockets or HTTP. Two implementations: the durable store
//! (`durable`: segmented log as the truth, sled as the database over it) and the model that tests compare with (`memory`).
//!
//! Threads: `commit` is called by one thread at a time (the committer); reads by any number, never from async code unless
//! the verb says "no I/O".

use std::fmt;
use std::net::IpAddr;

use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, FileId, MessageSeq, Uid, Version};
use smallvec::SmallVec;

use crate::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Listing, Membership, Role};
use crate::domain::conversation::{ConversationFlags, ConversationState, LastOwn};
use crate::domain::event::Lane;
use crate::domain::file::{ContentHash, FileInfo, FileRecord};
use crate::domain::identity::Scopes;
use crate::domain::message::{Digest, Extras, Message, MessageFlags, Reaction};
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};

pub mod blobs;
pub mod care;
pub mod durable;
pub mod log;
pub mod memory;
mod quiet;
pub mod record;
pub mod search;
mod view;

/// Dense internal number of a channel, from 0, given by the record that first uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNo(pub u32);

/// A keyed hash of a credential; what is stored instead of it.
pub type CredentialHash = [u8; 32];

/// What becomes durable together or not at all. Records lie in the log in this order and get consecutive versions.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The records; at least one.
    pub records: SmallVec<[Record; 1]>,
}

impl From<Record> for Commit {
    fn from(record: Record) -> Self {
        let mut records = SmallVec::new();
        records.push(record);
        Self { records }
    }
}

/// One durable change. It states the outcome, not the request, so applying it twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Gives a channel its dense number; comes before anything else of that channel. Makes the two users of a person
    /// channel, and the visitor of a customer service channel, its members (join floor 0).
    ChannelCreated {
        /// From [`Store::reserve_channel_no`].
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
    },
    /// Replaces a channel's settings.
    ChannelSettings {
        /// The channel.
        channel: ChannelNo,
        /// All of them.
        settings: ChannelSettings,
    },
    /// Stores a message.
    Message(MessageRecord),
    /// Adds members. Who is a member already keeps the old join floor and version.
    MembersAdded {
        /// The channel.
        channel: ChannelNo,
        /// The head when they joined: nothing up to here is unread for them.
        join_floor: u64,
        /// Who.
        uids: Vec<Uid>,
    },
    /// Removes members; their conversation with the channel is deleted up to `delete_floor`.
    MembersRemoved {
        /// The channel.
        channel: ChannelNo,
        /// The head when they left.
        delete_floor: u64,
        /// Who.
        uids: Vec<Uid>,
    },
    /// Sets a user's explicit read position (setUnread, clearUnread, read).
    ReadPosition {
        /// The channel.
        channel: ChannelNo,
        /// The user.
        uid: Uid,
        /// Messages up to here are read; may be lower than before.
        seq: u64,
    },
    /// Deletes a conversation from one user's view.
    ConversationDeleted {
        /// The channel.
        channel: ChannelNo,
        /// The user.
        uid: Uid,
        /// Head at the time.
        delete_floor: u64,
    },
    /// Messages whose time is over: no longer countable, payload withheld.
    MessagesExpired {
        /// The channel.
        channel: ChannelNo,
        /// Ascending.
        seqs: Vec<u64>,
    },
    /// Makes a user known without a token.
    UserCreated {
        /// The user.
        uid: Uid,
    },
    /// Sets the token of (uid, device_flag), replacing; `None` takes it away.
    UserToken {
        /// The user.
        uid: Uid,
        /// The device kind.
        device_flag: DeviceFlag,
        /// 0 slave, 1 master (wukongim-http.md 3.1).
        device_level: u8,
        /// Keyed hash of the token.
        token: Option<CredentialHash>,
    },
    /// Creates or replaces an API key, by `key_id`.
    ApiKey(ApiKey),
    /// Names a channel by an alias (a dialect's uuid).
    Alias {
        /// The alias.
        alias: String,
        /// The channel.
        channel: ChannelNo,
    },
    /// Takes a message back: no longer countable, payload withheld. A message that is over already stays as it is.
    MessageRevoked {
        /// The channel.
        channel: ChannelNo,
        /// The message.
        seq: u64,
        /// Who took it back; `None`: a back end.
        by: Option<Uid>,
    },
    /// Replaces what a message says. Its seq, id, digest and count stay.
    MessageEdited {
        /// The channel.
        channel: ChannelNo,
        /// The message.
        seq: u64,
        /// Who edited; `None`: a back end.
        by: Option<Uid>,
        /// The content from now on.
        payload: bytes::Bytes,
        /// What it refers to from now on.
        extras: Option<Box<Extras>>,
    },
    /// What a user's reaction to a message is from now on.
    MessageReacted {
        /// The channel.
        channel: ChannelNo,
        /// The message.
        seq: u64,
        /// The user.
        uid: Uid,
        /// `None`: none any more.
        reaction: Option<Reaction>,
    },
    /// What one of a message's lanes is from now on, all of it.
    MessageEvent {
        /// The channel.
        channel: ChannelNo,
        /// The message.
        seq: u64,
        /// The lane, by its number.
        lane: Box<Lane>,
    },
    /// What a member may do from now on. Who is no member is skipped; leaving takes the role away.
    MemberRole {
        /// The channel.
        channel: ChannelNo,
        /// The member.
        uid: Uid,
        /// The role.
        role: Role,
    },
    /// Replaces a channel's profile.
    ChannelProfile {
        /// The channel.
        channel: ChannelNo,
        /// All of it.
        profile: Box<ChannelProfile>,
    },
    /// What a user decided about a conversation, all flags.
    ConversationFlags {
        /// The channel.
        channel: ChannelNo,
        /// The user.
        uid: Uid,
        /// All of them.
        flags: ConversationFlags,
    },
    /// Replaces a user's settings.
    UserSettings {
        /// The user.
        uid: Uid,
        /// All of them.
        settings: UserSettings,
    },
    /// What `peer` is to `uid` from now on.
    Relation {
        /// Who decided.
        uid: Uid,
        /// About whom.
        peer: Uid,
        /// All of it; the default takes it away.
        relation: Relation,
    },
    /// A file was uploaded; its content is on disk.
    File(Box<FileRecord>),
    /// A file that no message carries was collected.
    FileRemoved {
        /// The file.
        file_id: FileId,
    },
    /// Puts users on one of a channel's lists, or takes them off it.
    ChannelListed {
        /// The channel; no person channel.
        channel: ChannelNo,
        /// Which list.
        list: ChannelList,
        /// `false`: off it.
        on: bool,
        /// Who.
        uids: Vec<Uid>,
    },
    /// Whether a user is a system user from now on.
    SystemUser {
        /// The user.
        uid: Uid,
        /// `false`: no more.
        on: bool,
    },
    /// A user has taken commands (`sync_once` messages) up to here.
    CommandsRead {
        /// The user.
        uid: Uid,
        /// How many commands were ever taken.
        position: u64,
        /// The last one taken.
        message_id: Version,
    },
    /// Whether connections from an address are refused from now on.
    AddressBlocked {
        /// The address.
        address: IpAddr,
        /// `false`: no more.
        on: bool,
    },
    /// Versions in (kept, until] are not to be trusted in requests (design.md section 2, store.md section 2).
    Break {
        /// Last version kept.
        kept: Version,
        /// Last version covered.
        until: Version,
    },
}

/// A message on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRecord {
    /// The channel.
    pub channel: ChannelNo,
    /// Head + 1.
    pub message_seq: MessageSeq,
    /// The sender.
    pub from_uid: Uid,
    /// The sender's name for it.
    pub client_msg_no: ClientMsgNo,
    /// The header flags; never `no_persist`.
    pub flags: MessageFlags,
    /// Third parties' byte.
    pub setting: u8,
    /// Topic, empty for none.
    pub topic: String,
    /// Seconds until it expires; 0: never.
    pub expire_s: u32,
    /// The content.
    pub payload: bytes::Bytes,
    /// What it refers to; never an empty one.
    pub extras: Option<Box<Extras>>,
}

/// An API key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Public id.
    pub key_id: String,
    /// What a person calls it.
    pub name: String,
    /// Keyed hash of the secret.
    pub secret: CredentialHash,
    /// What it may do.
    pub scopes: Scopes,
    /// The only namespace it may name.
    pub namespace: Option<String>,
    /// A revoked key stays listed and opens nothing.
    pub revoked: bool,
}

/// The root key's fixed id: made at the first start.
pub const ROOT_KEY_ID: &str = "root";

/// A channel as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Dense number.
    pub channel: ChannelNo,
    /// Name.
    pub key: ChannelKey,
    /// Seq of its last message; 0: none.
    pub head_seq: u64,
    /// Version (= message_id) of its last message; zero: none.
    pub head_version: Version,
    /// Version of the record that created it.
    pub created: Version,
    /// Version of the last change of any kind in it that its members see (messages and what became of them, settings,
    /// profile).
    pub changed_version: Version,
    /// Digest over all its messages.
    pub digest: Digest,
    /// Settings.
    pub settings: ChannelSettings,
    /// How many members.
    pub member_count: u64,
    /// How many users are on the deny list.
    pub denied_count: u64,
    /// How many users are on the allow list; 0: whoever else may send, may.
    pub allowed_count: u64,
}

/// What can be said about a client_msg_no without I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Certainly never stored in this channel.
    Absent,
    /// Perhaps stored, or not in memory: ask [`Store::message_by_client_msg_no`].
    Ask,
}

/// A range of a channel's messages to read. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRange {
    /// Lowest seq, at least 1.
    pub first: u64,
    /// Highest seq; above head means head.
    pub last: u64,
    /// At most this many messages.
    pub limit: usize,
    /// At most about this many bytes of content (payloads and lanes); at least one message is returned when there is one.
    pub bytes_max: usize,
    /// `true`: the newest of the range, newest first. `false`: the oldest, ascending.
    pub newest_first: bool,
}

/// What changed in messages that were there before: see [`Store::message_changes`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageChanges {
    /// Seqs revoked, edited, reacted to, streamed or expired after the version asked for, each once with the version of its last
    /// change, the latest change first.
    pub changes: Vec<(u64, Version)>,
    /// There are more; the oldest are left out.
    pub more: bool,
}

/// What a search looks for in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchQuery {
    /// Folded by [`crate::domain::content::fold`]; never empty.
    pub pattern: String,
    /// Lowest seq looked at, at least 1.
    pub first: u64,
    /// Highest seq looked at; above head means head.
    pub last: u64,
    /// Most messages found.
    pub limit: usize,
    /// Most messages whose text is read; beyond it the answer says where it stopped. As many parts of the
    /// index are asked at most, each of which speaks for 64 to 4,096 messages.
    pub scan_max: usize,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchFound {
    /// Live messages whose text holds the pattern, newest first.
    pub messages: Vec<Message>,
    /// Highest seq that was not looked at, when the search stopped before `first`: ask again with it as `last`.
    pub resume: Option<u64>,
}

/// Whether a version of a request can be compared with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStanding {
    /// From this server's history.
    Known,
    /// Above ours, or inside a break: answer as for 0 and say `reset`.
    Unknown,
}

/// A message as the log has it: that it is there, not what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedMessage {
    /// Its version, which is its message_id.
    pub version: Version,
    /// Its channel.
    pub channel: ChannelNo,
    /// Its seq.
    pub seq: u64,
    /// About the bytes of its record.
    pub bytes: u32,
}

/// What was logged after a version: see [`Store::logged_after`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logged {
    /// Messages in the order they were committed, of all channels.
    pub messages: Vec<LoggedMessage>,
    /// Every message with a version above the one asked for and up to this one is in `messages`: ask again with it.
    pub reached: Version,
    /// There is more of the log behind `reached`.
    pub more: bool,
}

/// How many reads a store has answered from where, since it was opened. Tests assert costs with it, never time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCounts {
    /// Row look-ups and range scans in the view's database (not those answered by memory).
    pub view: u64,
    /// Reads of the log.
    pub log: u64,
}

/// Figures of the store for `/metrics` and `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Channels that exist.
    pub channels: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Log bytes that no checkpoint covers yet.
    pub log_bytes_since_checkpoint: u64,
    /// Changed rows that no checkpoint covers yet.
    pub dirty_rows: u64,
    /// Bytes of rows in memory, changed ones included.
    pub cache_bytes: u64,
    /// Bytes beyond which idle rows leave the memory.
    pub cache_bytes_max: u64,
    /// Checkpoints taken since open.
    pub checkpoints: u64,
    /// Lots written since open.
    pub lots: u64,
    /// Lots refused since open because they could not be written.
    pub lots_failed: u64,
    /// How often the view was replaced while the server ran, after its disk had failed.
    pub view_renewals: u64,
    /// Milliseconds the lot that is being written has waited for the disk; 0 when none is.
    pub write_wait_ms: u64,
    /// Nothing can be committed now.
    pub unwritable: bool,
}

/// Whether the store can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Lots can be committed, as far as is known.
    pub writable: bool,
    /// What is stored can be read.
    pub readable: bool,
    /// What is wrong, in words without names of users, channels and paths; `None`: nothing.
    pub problem: Option<String>,
}

impl StoreHealth {
    /// Nothing is wrong.
    #[must_use]
    pub fn well() -> Self {
        Self { writable: true, readable: true, problem: None }
    }
}

/// What went wrong in the store. Names the operation and keeps the cause.
#[derive(Debug)]
pub struct StoreError {
    /// What was being done ("append lot", "read index page", …).
    pub operation: &'static str,
    /// Class: `Unavailable` (I/O), `Internal` (damage or a defect), `Conflict` (data directory in use or too new).
    pub kind: ErrorKind,
    /// What is affected: file, offset, channel, seqs.
    pub detail: String,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An I/O error.
    #[must_use]
    pub fn io(operation: &'static str, detail: impl fmt::Display, source: std::io::Error) -> Self {
        Self { operation, kind: ErrorKind::Unavailable, detail: detail.to_string(), source: Some(Box::new(source)) }
    }

    /// Something stored is not what was stored.
    #[must_use]
    pub fn damaged(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { operation, kind: ErrorKind::Internal, detail: detail.to_string(), source: None }
    }

    /// The class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.detail)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}

/// Shorthand of this room.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Durable truth. See the module's head for threads and costs.
pub trait Store: Send + Sync + 'static {
    /// Makes a lot durable: one write and one fdatasync. When it returns `Ok`, every commit of the lot is on disk and every
    /// read verb sees it.
    ///
    /// `sealed` is called once, when versions are given and before the bytes are written: a `memory` ack leaves then. Both
    /// it and the result hold, per commit of the lot, the version of its first record; its record i has that plus i.
    ///
    /// # Errors
    /// Nothing of the lot is stored or will ever appear. What the caller numbered ahead must be reloaded.
    fn commit(&self, lot: &[Commit], sealed: &mut dyn FnMut(&[Version])) -> Result<Vec<Version>>;

    /// Version of the last record that reads see. No I/O.
    fn version(&self) -> Version;

    /// Whether `version` of a request is one of ours. No I/O.
    fn version_standing(&self, version: Version) -> VersionStanding;

    /// A number no channel has yet. No I/O. Numbers of failed commits are lost until the next start.
    fn reserve_channel_no(&self) -> ChannelNo;

    // Channels.

    /// The channel's number, when it exists. One row at most.
    fn channel_no(&self, key: &ChannelKey) -> Result<Option<ChannelNo>>;
    /// The channel as it stands. One row at most.
    fn channel(&self, channel: ChannelNo) -> Result<Option<ChannelInfo>>;
    /// The channel an alias names. One row at most.
    fn alias(&self, alias: &str) -> Result<Option<ChannelNo>>;
    /// One user's membership. Two rows at most.
    fn membership(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<Membership>>;
    /// All members, in no order. As many rows as they fill.
    fn members(&self, channel: ChannelNo) -> Result<Vec<Uid>>;
    /// All members with what they may do, ordered by when they joined, then by uid. As many rows as they fill.
    fn memberships(&self, channel: ChannelNo) -> Result<Vec<(Uid, Membership)>>;
    /// On which of the channel's lists a user is. Two rows at most.
    fn listing(&self, channel: ChannelNo, uid: &Uid) -> Result<Listing>;
    /// Who is on a list, ordered by uid. As many rows as members, senders and listed users fill.
    fn listed(&self, channel: ChannelNo, list: ChannelList) -> Result<Vec<Uid>>;
    /// The channel's profile. Two rows at most. `None`: it never had one.
    fn profile(&self, channel: ChannelNo) -> Result<Option<ChannelProfile>>;
    /// Digest of the prefix up to `seq` (0: all zero). Two rows at most. `None`: beyond head.
    fn digest(&self, channel: ChannelNo, seq: u64) -> Result<Option<Digest>>;

    // Messages.

    /// Whether a send with this fingerprint ([`crate::domain::message::fingerprint`]) may be a repeat. No I/O.
    fn probe(&self, channel: ChannelNo, fingerprint: u64) -> Probe;
    /// Loads what `probe` needs for a channel, so that it answers from memory afterwards.
    fn warm(&self, channel: ChannelNo) -> Result<()>;
    /// The stored message of this name, decided by the log record: as it was sent, whatever it was edited to or people said
    /// of it since, so that a retry can be compared with it. Revoked and expired ones have no payload here either.
    fn message_by_client_msg_no(
        &self,
        channel: ChannelNo,
        from_uid: &Uid,
        client_msg_no: &ClientMsgNo,
    ) -> Result<Option<Message>>;
    /// Messages of a range. One index row per page and one log read per run of neighbours.
    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>>;
    /// Messages of the channel that were revoked, edited, reacted to, streamed or that expired after `since`, at most `max`. Rows in
    /// proportion to the changes after `since`; none where nothing ever changed.
    fn message_changes(&self, channel: ChannelNo, since: Version, max: usize) -> Result<MessageChanges>;
    /// Finds a folded pattern in the texts ([`crate::domain::content`]) of a channel's live messages, newest first. Every
    /// message committed before the call is looked at; reads in proportion to the hits and to what no index covers.
    fn search(&self, channel: ChannelNo, query: &SearchQuery) -> Result<SearchFound>;
    /// How many live messages with seq > floor mention the user, alone or with all, not counting the user's own. Bounded
    /// reads while few are.
    fn mentions_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<u64>;
    /// Seqs of commands (`sync_once`) above `floor` that are neither revoked nor expired, ascending, the first `max`. Bounded
    /// reads per command, those that are over included.
    fn commands_after(&self, channel: ChannelNo, floor: u64, max: usize) -> Result<Vec<u64>>;
    /// The message with this id. Bounded reads.
    fn message_by_id(&self, message_id: Version) -> Result<Option<Message>>;

    /// Which messages were committed after a version, whatever became of them since, at most `max`, from the oldest that
    /// the log still holds: what a follower of the log asks, while the committer writes. Nothing newer than what reads see.
    /// No rows: the directories of the lots in between, of at most some thousand lots per call; no I/O when nothing was
    /// committed since.
    fn logged_after(&self, after: Version, max: usize) -> Result<Logged>;

    // Counting. All bounded reads, whatever the count (design.md section 4).

    /// How many countable messages (red_dot, not sync_once, not revoked, not expired, not from `uid`) have
    /// floor < seq <= head. Returns (count, head it was counted at).
    fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)>;
    /// The highest position p >= floor_min such that exactly `unread` messages countable for `uid` follow it, and that
    /// number; when fewer exist above `floor_min`, `floor_min` and how many there are. Last the head they were counted at.
    fn position_for_unread(
        &self,
        channel: ChannelNo,
        uid: &Uid,
        unread: u64,
        floor_min: u64,
    ) -> Result<(u64, u64, u64)>;
    /// The user's own last stored message in the channel. One row at most.
    fn last_own(&self, channel: ChannelNo, uid: &Uid) -> Result<LastOwn>;

    // One user's conversations.

    /// What is stored of one user in one channel. One row at most. `None`: nothing ever was.
    fn conversation_state(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<ConversationState>>;
    /// Every channel the user has or had a conversation state in, members of person channels included, in no order.
    /// One range scan of packed pages.
    fn channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>>;
    /// How many channels [`Store::channels_of`] would return. One row at most.
    fn channel_count_of(&self, uid: &Uid) -> Result<u64>;
    /// The channels a session of this user is fanned out to by number: member now, every type but person. Bounded by
    /// what [`Store::channels_of`] costs, plus a row per page of states.
    fn group_channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        let mut groups = Vec::new();
        for channel in self.channels_of(uid)? {
            let Some(info) = self.channel(channel)? else { continue };
            if info.key.channel_type() != ChannelType::Person && self.membership(channel, uid)?.is_some() {
                groups.push(channel);
            }
        }
        Ok(groups)
    }
    /// Channels in which the user's own state changed after `since` (read, delete, join, leave), each once. Rows in
    /// proportion to the changes.
    fn own_changes(&self, uid: &Uid, since: Version) -> Result<Vec<ChannelNo>>;
    /// The channels of `of` that changed after `since` for all members. No I/O: a dense array.
    fn changed_among(&self, of: &[ChannelNo], since: Version) -> Vec<ChannelNo>;
    /// Every channel that changed after `since`, each once; `None` when more changed than the ring of recent changes
    /// holds, or than `max`. No I/O.
    fn recently_changed(&self, since: Version, max: usize) -> Option<Vec<ChannelNo>>;

    // Users and credentials.

    /// The user's settings; the defaults when none were made. One row at most.
    fn user_settings(&self, uid: &Uid) -> Result<UserSettings>;
    /// What `peer` is to `uid`. Two rows at most.
    fn relation(&self, uid: &Uid, peer: &Uid) -> Result<Relation>;
    /// Everybody who is anything to `uid`, ordered by uid. As many rows as they fill.
    fn relations(&self, uid: &Uid) -> Result<Vec<(Uid, Relation)>>;

    /// How many commands the user has taken, and the last of them. One row at most.
    fn commands_read(&self, uid: &Uid) -> Result<(u64, Version)>;
    /// Whether the user has a token, was created, is a member of some channel, or has sent. Bounded reads.
    fn user_known(&self, uid: &Uid) -> Result<bool>;
    /// Who holds this token. Empty: nobody. One row at most.
    fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>>;
    /// The API key of this secret, also a revoked one. No I/O.
    fn api_key(&self, secret: &CredentialHash) -> Option<ApiKey>;
    /// All API keys, revoked ones too. No I/O.
    fn api_keys(&self) -> Vec<ApiKey>;
    /// Whether a user is a system user. No I/O.
    fn is_system_user(&self, uid: &Uid) -> bool;
    /// All system users, ordered by uid. No I/O.
    fn system_users(&self) -> Vec<Uid>;
    /// Whether an address is blocked. No I/O.
    fn is_address_blocked(&self, address: IpAddr) -> bool;
    /// All blocked addresses, in order. No I/O.
    fn blocked_addresses(&self) -> Vec<IpAddr>;

    // Files.

    /// A file that was uploaded and not collected. One row at most.
    fn file(&self, file_id: &FileId) -> Result<Option<FileInfo>>;
    /// Messages that carry the file, by (channel, seq), as they were sent or edited, whatever became of them since; at most
    /// `max`, the first ones. Rows in proportion.
    fn file_references(&self, file_id: &FileId, max: usize) -> Result<Vec<(ChannelNo, u64)>>;
    /// Files uploaded before `before` that no message carries, at most `max`. A scan of the files' rows: for a caretaker,
    /// not for a request.
    fn unused_files(&self, before: Version, max: usize) -> Result<Vec<FileInfo>>;
    /// Whether any file has this content. A scan, as above.
    fn has_content(&self, content: &ContentHash) -> Result<bool>;

    // Time and care.

    /// Messages that fall due up to `now_ms`, at most `max` channels' worth, ascending by time: what the caller commits as
    /// [`Record::MessagesExpired`]. What a checkpoint is just writing may be left to the next call.
    fn expiry_due(&self, now_ms: u64, max: usize) -> Result<Vec<(ChannelNo, Vec<u64>)>>;
    /// Writes everything dirty into the view and moves its mark. Called by drain; also runs by itself.
    fn checkpoint(&self) -> Result<()>;
    /// Reads answered so far. No I/O.
    fn read_counts(&self) -> ReadCounts;
    /// Figures. No I/O.
    fn stats(&self) -> StoreStats;

    /// What is wrong now, if anything. No I/O.
    fn health(&self) -> StoreHealth {
        StoreHealth::well()
    }
}
