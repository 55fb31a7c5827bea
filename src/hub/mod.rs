//! The connection hub: drafts in, durable facts and deliveries out.
//!
//! Owns online sessions, channel lanes, group commit and fan-out. [`Hub`] is the room's only public face for back ends;
//! the gateway also works on its shard directly. Knows `store::Store` but neither log nor sled, and no codec.
//!
//! Inside, names go down this list and none looks back up: `shard` → `sequencer` → `committer`; `delivery` → `outbox`.
//! What travels back (an ack, a refusal) is a value in a waiter or an outbox.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use foldhash::HashMap;
use parking_lot::Mutex;
use protocol::close::CloseReason;
use protocol::ids::{ChannelKey, ChannelType, DeviceFlag, MessageId, Uid, Version};
use tokio::sync::oneshot;

use crate::domain::channel::{ChannelSettings, Standing};
use crate::domain::message::{Draft, Durability};
use crate::domain::refusal::Refusal;
use crate::metrics::Metrics;
pub use crate::store::{
    ApiKey, ChannelNo, CredentialHash, Logged, LoggedMessage, MessageChanges, ROOT_KEY_ID, StoreStats,
};
use crate::store::{Commit, Record, Store};

pub mod administration;
pub mod broker;
pub mod chats;
pub mod commands;
pub mod committer;
pub mod conversations;
pub mod delivery;
pub mod drafts;
pub mod files;
pub mod follow;
pub mod groups;
pub mod inbox;
pub mod listings;
pub mod lookups;
pub mod messages;
pub mod outbox;
pub mod people;
pub mod sequencer;
pub mod sessions;
pub mod shard;
#[cfg(test)]
pub(crate) mod testing;
pub mod traffic;

use administration::AdminOp;
use broker::{Broker, Home, SingleNode};
pub use committer::Sent;
use committer::{CommitLimits, CommitQueue, Submission, Waiter};
use conversations::{
    Asker, HistoryPage, HistoryQuery, MessageSync, MessageSyncPage, Planned, Span, SyncAnswer, SyncRequest,
    UnreadExplained,
};
use files::Files;
use inbox::Inbox;
use messages::MessageLimits;
use outbox::{OutboxLimits, Peer};
use sequencer::{LaneLimits, PendingAdmin, PendingDraft, Work};
use sessions::Sessions;
use shard::{ShardEvent, ShardHandle};

/// When clients may try again while the server drains.
const RETRY_AFTER_DRAIN_MS: u32 = 2_000;
/// Users whose last-seen time is remembered, at some 100 bytes each.
const LAST_SEEN_MAX: usize = 100_000;
/// Channels of the asker that a presence request looks through for one shared with a peer.
const SHARED_CHANNELS_LOOKED_AT: usize = 200;

/// Conversations of a user whose groups are read without leaving the shard's thread: a row or two.
const GROUPS_READ_AT_ONCE_MAX: u64 = 64;

/// Limits of one channel type.
#[derive(Debug, Clone, Copy)]
pub struct ChannelTypeLimits {
    /// Bytes of a payload.
    pub payload_bytes_max: usize,
}

/// Every bound of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    /// Of person channels.
    pub person: ChannelTypeLimits,
    /// Of groups.
    pub group: ChannelTypeLimits,
    /// Of customer service channels.
    pub customer_service: ChannelTypeLimits,
    /// Sessions of one user on different devices.
    pub connections_per_user_max: usize,
    /// Events that may wait for a shard.
    pub inbox_entries_max: usize,
    /// Of lanes.
    pub lanes: LaneLimits,
    /// Of lots.
    pub commit: CommitLimits,
    /// Of a session's outbox.
    pub outbox: OutboxLimits,
    /// How long a session may lag before it is closed.
    pub slow_close_ms: u64,
    /// Users one session may watch.
    pub watches_max: usize,
    /// Of what may become of messages.
    pub messages: MessageLimits,
}

impl HubLimits {
    /// The limits of a channel type.
    pub fn of(&self, channel_type: ChannelType) -> &ChannelTypeLimits {
        match channel_type {
            ChannelType::Person => &self.person,
            ChannelType::Group => &self.group,
            ChannelType::CustomerService => &self.customer_service,
        }
    }
}

/// Who reads a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A user: membership is checked.
    User(Uid),
    /// A back end with a key.
    Trusted,
}

impl Reader {
    fn asker(&self) -> Asker<'_> {
        match self {
            Self::User(uid) => Asker::User(uid),
            Self::Trusted => Asker::Trusted,
        }
    }
}

/// What became of a change to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationChanged {
    /// The change's version; when nothing had to change, the version of now.
    pub version: Version,
    /// Unread now.
    pub unread: u64,
    /// Read position now.
    pub read_to_msg_seq: u64,
}

/// When users were last online, for as many as are remembered.
#[derive(Debug, Default)]
pub struct LastSeen(Mutex<HashMap<Uid, u64>>);

impl LastSeen {
    /// Notes that a user's last session ended.
    pub fn note(&self, uid: Uid, now_ms: u64) {
        let mut seen = self.0.lock();
        if seen.len() >= LAST_SEEN_MAX
            && !seen.contains_key(&uid)
            && let Some(any) = seen.keys().next().cloned()
        {
            seen.remove(&any);
        }
        seen.insert(uid, now_ms);
    }

    /// When, Unix milliseconds; 0: not remembered.
    pub fn of(&self, uid: &Uid) -> u64 {
        self.0.lock().get(uid).copied().unwrap_or(0)
    }
}

/// Locks of users' own decisions, by a hash of the user: each is read, changed and committed before the next is read.
#[derive(Debug)]
pub struct Decisions {
    locks: Box<[tokio::sync::Mutex<()>]>,
    hasher: foldhash::fast::FixedState,
}

impl Default for Decisions {
    fn default() -> Self {
        // As many users as decide at once: a lock is held for one commit, some milliseconds.
        let locks = (0..256).map(|_| tokio::sync::Mutex::new(())).collect();
        Self { locks, hasher: foldhash::fast::FixedState::with_seed(0x6465_6369_6465) }
    }
}

impl Decisions {
    /// The lock of a user.
    pub fn of(&self, uid: &Uid) -> &tokio::sync::Mutex<()> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, uid.as_str());
        &self.locks[(hash % self.locks.len() as u64) as usize]
    }
}

/// What all shards and callers share.
pub struct Shared {
    /// Durable truth.
    pub store: Arc<dyn Store>,
    /// The way to the committer.
    pub queue: CommitQueue,
    /// Who is online.
    pub sessions: Sessions,
    /// The shards' inboxes.
    pub shards: Vec<ShardHandle>,
    /// Where channels live.
    pub broker: Box<dyn Broker>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Every bound.
    pub limits: HubLimits,
    /// Threads that may block on the store.
    pub blocking: tokio::runtime::Handle,
    /// When users were last online.
    pub last_seen: LastSeen,
    /// Watches of all sessions; nobody is told when there are none.
    pub watches: AtomicUsize,
    /// Work that lanes have taken and not answered, of all shards.
    pub pending: AtomicUsize,
    /// Files that messages carry.
    pub files: Files,
    /// What users change about themselves, one change after the other.
    pub decisions: Decisions,
    /// What users were last told lies in their queues of commands.
    pub commands: commands::Answers,
    draining: AtomicBool,
    passing_ids: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("sessions", &self.sessions.count()).finish_non_exhaustive()
    }
}

impl Shared {
    /// An id for a message that is not stored: above every version of this century, so it never names a stored one.
    pub fn next_passing_id(&self) -> MessageId {
        Version::new(self.passing_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether new work is refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Checks a draft against the limits that need no channel state.
    ///
    /// # Errors
    /// `Draining`, `DurabilityNotOffered`, `TooLarge`, `Invalid` (an empty payload of a stored message is fine).
    pub fn check_draft(&self, draft: &Draft) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS });
        }
        if draft.durability == Durability::Replicated {
            return Err(Refusal::DurabilityNotOffered);
        }
        let max = self.limits.of(draft.channel.channel_type()).payload_bytes_max;
        if draft.payload.len() > max {
            return Err(Refusal::TooLarge { field: "payload", bytes: draft.payload.len(), max });
        }
        if draft.topic.len() > protocol::ids::TOPIC_BYTES_MAX {
            let max = protocol::ids::TOPIC_BYTES_MAX;
            return Err(Refusal::TooLarge { field: "topic", bytes: draft.topic.len(), max });
        }
        Ok(())
    }
}

/// The handle back ends and the gateway talk to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

impl Hub {
    /// A hub over a store. `now_s` is the wall clock in Unix seconds, to start ids of passing messages from.
    pub fn new(
        store: Arc<dyn Store>,
        shards: usize,
        limits: HubLimits,
        files: Files,
        metrics: Arc<Metrics>,
        blocking: tokio::runtime::Handle,
        now_s: u64,
    ) -> Self {
        let handles =
            (0..shards.max(1)).map(|_| ShardHandle { inbox: Arc::new(Inbox::new(limits.inbox_entries_max)) }).collect();
        let shared = Shared {
            store,
            queue: CommitQueue::new(limits.commit),
            sessions: Sessions::default(),
            shards: handles,
            broker: Box::new(SingleNode::new(shards)),
            metrics,
            limits,
            blocking,
            last_seen: LastSeen::default(),
            watches: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            files,
            decisions: Decisions::default(),
            commands: commands::Answers::default(),
            draining: AtomicBool::new(false),
            passing_ids: AtomicU64::new((1 << 52) + (now_s << 20)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the shards and the committer work on.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.shared.store.clone();
        let answer = self.shared.blocking.spawn_blocking(move || question(&*store)).await;
        answer.unwrap_or_else(|error| {
            tracing::error!(%error, "a question to the store panicked");
            Err(Refusal::Internal)
        })
    }

    fn refuse_draining(&self) -> Result<(), Refusal> {
        if self.shared.is_draining() {
            return Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS });
        }
        Ok(())
    }

    fn hand_to_home(&self, key: &ChannelKey, work: Work) -> Result<(), Refusal> {
        let Home::Shard(home) = self.shared.broker.home(key);
        let Some(shard) = self.shared.shards.get(home) else { return Err(Refusal::Internal) };
        if !shard.inbox.has_room() {
            return Err(sequencer::busy());
        }
        shard.inbox.push(ShardEvent::Work(work));
        Ok(())
    }

    /// Sends a message and waits for its outcome.
    ///
    /// # Errors
    /// Whatever the rules refuse, or the store.
    pub async fn send(&self, draft: Draft, standing: Standing) -> Result<Sent, Refusal> {
        self.shared.metrics.sends.inc();
        self.shared.check_draft(&draft)?;
        let (reply, outcome) = oneshot::channel();
        let key = draft.channel.clone();
        let waiter = Waiter::Send(reply);
        self.hand_to_home(&key, Work::Draft(PendingDraft { draft, standing, waiter }))?;
        outcome.await.unwrap_or(Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS }))
    }

    async fn administer(&self, key: ChannelKey, op: AdminOp) -> Result<Version, Refusal> {
        self.refuse_draining()?;
        let (reply, outcome) = oneshot::channel();
        self.hand_to_home(&key.clone(), Work::Admin(PendingAdmin { key, op, reply }))?;
        outcome.await.unwrap_or(Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS }))
    }

    /// Creates or updates a channel: `settings` replace all settings when given, members are added, or replaced when
    /// `reset`.
    ///
    /// # Errors
    /// Members of a person channel, too many members, the store.
    pub async fn put_channel(
        &self,
        key: ChannelKey,
        settings: Option<ChannelSettings>,
        members: Vec<Uid>,
        reset: bool,
    ) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Put { settings, members, reset }).await.map(drop)
    }

    /// Adds members, creating the channel when it is not there.
    ///
    /// # Errors
    /// As [`Hub::put_channel`].
    pub async fn add_members(&self, key: ChannelKey, uids: Vec<Uid>, reset: bool) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Put { settings: None, members: uids, reset }).await.map(drop)
    }

    /// Removes members; who is none is skipped.
    ///
    /// # Errors
    /// No such channel, the store.
    pub async fn remove_members(&self, key: ChannelKey, uids: Vec<Uid>) -> Result<(), Refusal> {
        self.administer(key, AdminOp::RemoveMembers { uids }).await.map(drop)
    }

    /// Ends a channel; an unknown one is fine.
    ///
    /// # Errors
    /// The store.
    pub async fn disband(&self, key: ChannelKey) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Disband).await.map(drop)
    }

    /// Answers a sync.
    ///
    /// # Errors
    /// The store.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncAnswer, Refusal> {
        let answer = self.ask(move |store| conversations::sync(store, &request)).await?;
        self.shared.metrics.sync_rows.inc_by(answer.rows.len() as u64);
        Ok(answer)
    }

    /// Answers a page of a channel's history.
    ///
    /// # Errors
    /// Not a member, the store.
    pub async fn history(&self, reader: Reader, key: ChannelKey, query: HistoryQuery) -> Result<HistoryPage, Refusal> {
        self.ask(move |store| conversations::history(store, reader.asker(), &key, query)).await
    }

    /// Which messages of a channel were committed at or after `from_ms` and before `until_ms` (Unix milliseconds; `None`: no
    /// bound).
    ///
    /// # Errors
    /// As [`Hub::history`].
    pub async fn span(
        &self,
        reader: Reader,
        key: ChannelKey,
        from_ms: Option<u64>,
        until_ms: Option<u64>,
    ) -> Result<Span, Refusal> {
        self.ask(move |store| conversations::span(store, reader.asker(), &key, from_ms, until_ms)).await
    }

    /// Answers WuKongIM's `/channel/messagesync`.
    ///
    /// # Errors
    /// As [`Hub::history`], and a range it cannot mean.
    pub async fn message_sync(
        &self,
        reader: Reader,
        key: ChannelKey,
        sync: MessageSync,
        bytes_max: usize,
    ) -> Result<MessageSyncPage, Refusal> {
        self.ask(move |store| conversations::message_sync(store, reader.asker(), &key, sync, bytes_max)).await
    }

    async fn change_conversation(
        &self,
        key: ChannelKey,
        plan: impl FnOnce(&dyn Store, &ChannelKey) -> Result<Planned, Refusal> + Send + 'static,
    ) -> Result<ConversationChanged, Refusal> {
        self.refuse_draining()?;
        let asked = key.clone();
        let planned = self.ask(move |store| plan(store, &asked)).await?;
        let version = match planned.commit {
            Some(commit) => self.commit(Some(key), commit, (planned.unread, planned.head_seq)).await?,
            None => self.shared.store.version(),
        };
        Ok(ConversationChanged { version, unread: planned.unread, read_to_msg_seq: planned.read_seq })
    }

    /// Commits records that depend on no numbering.
    async fn commit(
        &self,
        key: Option<ChannelKey>,
        commit: Commit,
        unread_after: (u64, u64),
    ) -> Result<Version, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let edited = |record: &Record| match record {
            Record::MessageEdited { payload, .. } => payload.len(),
            _ => 64,
        };
        let bytes = 256 + commit.records.iter().map(edited).sum::<usize>();
        let waiter = Waiter::Version(reply);
        let mut submissions = vec![Submission { commit, key, epoch: None, ticket: None, unread_after, bytes, waiter }];
        if !self.shared.queue.append(&mut submissions) {
            return Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS });
        }
        outcome.await.unwrap_or(Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS }))
    }

    /// Puts the read position so that exactly `unread` countable messages follow it, or as many as there are.
    ///
    /// # Errors
    /// A negative number, the store.
    pub async fn set_unread(&self, uid: Uid, key: ChannelKey, unread: i64) -> Result<ConversationChanged, Refusal> {
        self.change_conversation(key, move |store, key| conversations::plan_set_unread(store, &uid, key, unread)).await
    }

    /// Marks a conversation read up to its head.
    ///
    /// # Errors
    /// The store.
    pub async fn clear_unread(&self, uid: Uid, key: ChannelKey) -> Result<ConversationChanged, Refusal> {
        self.change_conversation(key, move |store, key| conversations::plan_clear_unread(store, &uid, key)).await
    }

    /// Marks a conversation read up to a seq.
    ///
    /// # Errors
    /// The store.
    pub async fn read(&self, uid: Uid, key: ChannelKey, message_seq: u64) -> Result<ConversationChanged, Refusal> {
        self.change_conversation(key, move |store, key| conversations::plan_read(store, &uid, key, message_seq)).await
    }

    /// Deletes a conversation from one user's list; an unknown one is fine.
    ///
    /// # Errors
    /// The store.
    pub async fn delete_conversation(&self, uid: Uid, key: ChannelKey) -> Result<ConversationChanged, Refusal> {
        self.change_conversation(key, move |store, key| conversations::plan_delete(store, &uid, key)).await
    }

    /// Explains a user's unread in a channel.
    ///
    /// # Errors
    /// The store.
    pub async fn explain_unread(&self, uid: Uid, key: ChannelKey, limit: usize) -> Result<UnreadExplained, Refusal> {
        self.ask(move |store| conversations::explain_unread(store, &uid, &key, limit)).await
    }

    /// Sets a user's token of a device kind. A master's older sessions of that kind are closed.
    ///
    /// # Errors
    /// The store.
    pub async fn set_token(
        &self,
        uid: Uid,
        device_flag: DeviceFlag,
        device_level: u8,
        token: CredentialHash,
    ) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let record = Record::UserToken { uid: uid.clone(), device_flag, device_level, token: Some(token) };
        self.commit(None, record.into(), (0, 0)).await?;
        if device_level == 1 {
            self.close_devices(&uid, device_flag, CloseReason::CredentialExpired);
        }
        Ok(())
    }

    /// Takes a user's token of a device kind away and closes its sessions.
    ///
    /// # Errors
    /// The store.
    pub async fn remove_token(&self, uid: Uid, device_flag: DeviceFlag) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let record = Record::UserToken { uid: uid.clone(), device_flag, device_level: 0, token: None };
        self.commit(None, record.into(), (0, 0)).await?;
        self.close_devices(&uid, device_flag, CloseReason::KickedByAdmin);
        Ok(())
    }

    fn close_devices(&self, uid: &Uid, device_flag: DeviceFlag, reason: CloseReason) {
        for (place, flag) in self.shared.sessions.devices(uid.as_str()) {
            if flag == device_flag
                && let Some(shard) = self.shared.shards.get(usize::from(place.shard))
            {
                shard.inbox.push(ShardEvent::Close { place, reason });
            }
        }
    }

    /// Closes one session of a user, or all of them (`None`). Returns how many were there.
    pub fn close_sessions(&self, uid: &Uid, session: Option<sessions::SessionId>, reason: CloseReason) -> usize {
        let places = self.shared.sessions.places(uid.as_str());
        let wanted = places.into_iter().filter(|place| session.is_none_or(|session| place.session == session));
        let mut closed = 0;
        for place in wanted {
            if let Some(shard) = self.shared.shards.get(usize::from(place.shard)) {
                shard.inbox.push(ShardEvent::Close { place, reason });
                closed += 1;
            }
        }
        closed
    }

    /// Creates or replaces an API key.
    ///
    /// # Errors
    /// The store.
    pub async fn put_key(&self, key: ApiKey) -> Result<(), Refusal> {
        self.refuse_draining()?;
        self.commit(None, Record::ApiKey(key).into(), (0, 0)).await.map(drop)
    }

    /// The API key of a secret, also a revoked one.
    pub fn api_key(&self, secret: &CredentialHash) -> Option<ApiKey> {
        self.shared.store.api_key(secret)
    }

    /// All API keys, revoked ones too.
    pub fn api_keys(&self) -> Vec<ApiKey> {
        self.shared.store.api_keys()
    }

    /// Who holds a token. One row, answered on the caller's thread: a hop to another costs more than the row, and nearly
    /// always it lies in memory.
    ///
    /// # Errors
    /// The store.
    pub fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>, Refusal> {
        self.shared.store.token_owners(token).map_err(conversations::refuse)
    }

    /// A user's groups, for the start of a session, and the version they were read at. Few are read on the caller's
    /// thread, many on one that may block.
    ///
    /// # Errors
    /// The store.
    pub async fn groups_of(&self, uid: &Uid) -> Result<(Vec<ChannelNo>, Version), Refusal> {
        let read_at = self.shared.store.version();
        let count = self.shared.store.channel_count_of(uid).map_err(conversations::refuse)?;
        let groups = if count <= GROUPS_READ_AT_ONCE_MAX {
            self.shared.store.group_channels_of(uid).map_err(conversations::refuse)?
        } else {
            let uid = uid.clone();
            self.ask(move |store| store.group_channels_of(&uid).map_err(conversations::refuse)).await?
        };
        Ok((groups, read_at))
    }

    /// One entry per session of these users.
    pub fn online(&self, uids: &[Uid]) -> Vec<(Uid, DeviceFlag)> {
        let devices = |uid: &Uid| self.shared.sessions.devices(uid.as_str());
        uids.iter().flat_map(|uid| devices(uid).into_iter().map(|(_, flag)| (uid.clone(), flag))).collect()
    }

    /// Presence of those of `uids` who share a channel with the asker: a person channel that exists, or one of the
    /// asker's first 200 groups. Others are left out of the answer.
    ///
    /// # Errors
    /// Too many uids, the store.
    pub async fn peers(&self, asker: Uid, uids: Vec<Uid>) -> Result<Vec<Peer>, Refusal> {
        let max = self.shared.limits.watches_max;
        if uids.len() > max {
            return Err(Refusal::TooMany { what: "uids", max });
        }
        let shared = self
            .ask(move |store| {
                let mut groups = store.group_channels_of(&asker).map_err(conversations::refuse)?;
                groups.truncate(SHARED_CHANNELS_LOOKED_AT);
                let mut sharing = Vec::new();
                for uid in uids {
                    let mut shares = uid == asker
                        || store
                            .channel_no(&ChannelKey::person(&asker, &uid))
                            .map_err(conversations::refuse)?
                            .is_some();
                    for group in &groups {
                        if shares {
                            break;
                        }
                        shares = store.membership(*group, &uid).map_err(conversations::refuse)?.is_some();
                    }
                    if shares {
                        sharing.push(uid);
                    }
                }
                Ok(sharing)
            })
            .await?;
        Ok(shared.into_iter().map(|uid| self.presence_of(uid)).collect())
    }

    /// A user's presence now. No check of who asks.
    pub fn presence_of(&self, uid: Uid) -> Peer {
        let online = self.shared.sessions.is_online(uid.as_str());
        let last_seen_ms = if online { 0 } else { self.shared.last_seen.of(&uid) };
        Peer { uid, online, last_seen_ms }
    }

    /// Commits what has expired. Returns how many channels were touched.
    ///
    /// # Errors
    /// The store.
    pub async fn expire(&self, now_ms: u64, channels_max: usize) -> Result<usize, Refusal> {
        let due = self
            .ask(move |store| {
                let mut due = Vec::new();
                for (channel, seqs) in store.expiry_due(now_ms, channels_max).map_err(conversations::refuse)? {
                    if let Some(info) = store.channel(channel).map_err(conversations::refuse)? {
                        due.push((info.key, channel, seqs));
                    }
                }
                Ok(due)
            })
            .await?;
        let count = due.len();
        for (key, channel, seqs) in due {
            self.commit(Some(key), Record::MessagesExpired { channel, seqs }.into(), (0, 0)).await?;
        }
        Ok(count)
    }

    /// Whether the server can do its work: store readable and writable, committer alive and below its limits, not draining.
    ///
    /// # Errors
    /// What is missing, in words that name no user, channel or path.
    pub fn readiness(&self) -> Result<(), Cow<'static, str>> {
        if self.shared.is_draining() {
            return Err("draining".into());
        }
        if !self.shared.queue.is_alive() {
            return Err("committer stopped".into());
        }
        if let Some(problem) = self.shared.store.health().problem {
            return Err(format!("store: {problem}").into());
        }
        if !self.shared.queue.has_room() {
            return Err("commit queue full".into());
        }
        Ok(())
    }

    /// Figures of the store.
    pub fn store_stats(&self) -> StoreStats {
        self.shared.store.stats()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Drafts and changes that were taken and have no outcome yet.
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::Relaxed)
    }

    /// Refuses new work from now on.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }
}
