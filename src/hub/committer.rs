//! Group commit: whatever arrived while the last lot was written is the next lot, across all channels.
//!
//! Owns the one thread that calls [`Store::commit`], the queue before it and the epoch. There is no collection window:
//! on an idle server a lone send is written at once, under load the disk's own time makes the lots (evidence: a window pays
//! only above 70 % of a core, and lots then form by themselves).
//!
//! Invariants: ack-means-stored (outcomes leave after [`Store::commit`] returned); one-order (lots and their news leave in
//! commit order). After a failed lot the epoch rises: what was numbered before is refused here, and lanes start over.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::{Condvar, Mutex};
use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, MessageSeq, Version};
use tokio::sync::{Notify, oneshot};

use super::delivery::{
    Change, ChannelChange, ConversationChange, Delivered, Delivery, Happening, LotNews, MessageChange, News,
};
use super::sessions::SessionPlace;
use super::shard::{Acked, LaneDone, ShardEvent, ShardHandle};
use crate::domain::message::Durability;
use crate::domain::refusal::{ErrorKind, Refusal};
use crate::metrics::Metrics;
use crate::store::{ChannelNo, Commit, Record, Store};

/// When clients may try again after a failed lot.
const RETRY_AFTER_FAILURE_MS: u32 = 1_000;

/// Who waits for the outcome of a commit.
#[derive(Debug)]
pub enum Waiter {
    /// A session's send; it gets an ack or a refusal.
    Session {
        /// Where it is.
        place: SessionPlace,
        /// Its number for the send.
        client_seq: u64,
        /// The level it wants.
        durability: Durability,
        /// The server made the client_msg_no, so the ack names it.
        made_msg_no: bool,
        /// A `memory` ack has left already.
        acked: bool,
    },
    /// A send from inside the process (HTTP).
    Send(oneshot::Sender<Result<Sent, Refusal>>),
    /// Any other commit from inside the process: gets the version of its first record.
    Version(oneshot::Sender<Result<Version, Refusal>>),
    /// Nobody.
    Nobody,
}

impl Waiter {
    /// Refuses a caller inside the process; sessions are told by their shard.
    fn refuse_inside(self, refusal: Refusal) {
        match self {
            Self::Send(reply) => drop(reply.send(Err(refusal))),
            Self::Version(reply) => drop(reply.send(Err(refusal))),
            Self::Session { .. } | Self::Nobody => {}
        }
    }
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The message's id; for one that is not stored, a number of its own that names nothing later.
    pub message_id: MessageId,
    /// Its seq; `None`: it is not stored.
    pub message_seq: Option<MessageSeq>,
    /// The sender's name for it, made by the server when none was given.
    pub client_msg_no: ClientMsgNo,
    /// When it was committed, Unix milliseconds.
    pub timestamp_ms: u64,
    /// What the answer promises.
    pub level: Durability,
    /// An earlier send of the same name was stored; this is its outcome.
    pub duplicate: bool,
}

/// The message part of a submission, for the lane that numbered it.
#[derive(Debug, Clone, Copy)]
pub struct LaneTicket {
    /// Shard of the lane.
    pub shard: u16,
    /// Slot of the lane in its shard.
    pub lane: u32,
    /// Fences the slot.
    pub lane_id: u64,
    /// Fingerprint of (from_uid, client_msg_no).
    pub fingerprint: u64,
}

/// A commit with who waits for it.
#[derive(Debug)]
pub struct Submission {
    /// What becomes durable.
    pub commit: Commit,
    /// The name of the channel it is about, for the news; `None` for users and keys.
    pub key: Option<ChannelKey>,
    /// The epoch it was numbered in; `None`: it depends on no numbering.
    pub epoch: Option<u64>,
    /// The lane to tell, for messages and channel administration.
    pub ticket: Option<LaneTicket>,
    /// Unread after it and the head that was counted at, for the event of a read position.
    pub unread_after: (u64, u64),
    /// What happened to a message's stream, when that is what is stored.
    pub happening: Option<Box<Happening>>,
    /// Bytes it takes in the queue.
    pub bytes: usize,
    /// Who waits.
    pub waiter: Waiter,
}

/// How often users decided something that lanes may have cached, by a hash of the user: a lane asks the store again when
/// the number it cached under is another one. The committer counts after a decision is readable and before it is answered,
/// so what was promised is never judged by what was cached.
#[derive(Debug)]
pub struct Policies {
    counts: Box<[AtomicU64; POLICY_SLOTS]>,
    hasher: foldhash::fast::FixedState,
}

/// Users share a slot by hash: a decision makes the lanes towards some 1 in so many users ask again.
const POLICY_SLOTS: usize = 1024;

impl Default for Policies {
    fn default() -> Self {
        let counts = Box::new([const { AtomicU64::new(0) }; POLICY_SLOTS]);
        Self { counts, hasher: foldhash::fast::FixedState::with_seed(0x706f_6c69_6379) }
    }
}

impl Policies {
    fn slot(&self, uid: &str) -> &AtomicU64 {
        &self.counts[(self.hasher.hash_one(uid) % POLICY_SLOTS as u64) as usize]
    }

    /// What decisions of this user are cached under now. Take it before the store is read.
    pub fn of(&self, uid: &str) -> u64 {
        self.slot(uid).load(Ordering::Acquire)
    }

    /// Counts what a record decided about a user. Settings of a user's own channel are decisions about the user.
    fn note(&self, record: &Record, key: Option<&ChannelKey>) {
        match record {
            Record::UserSettings { uid, .. }
            | Record::Relation { uid, .. }
            | Record::ConversationFlags { uid, .. }
            | Record::SystemUser { uid, .. } => self.changed(uid.as_str()),
            Record::ChannelSettings { .. } => {
                if let Some((a, b)) = key.and_then(ChannelKey::pair)
                    && a == b
                {
                    self.changed(a.as_str());
                }
            }
            _ => {}
        }
    }

    fn changed(&self, uid: &str) {
        self.slot(uid).fetch_add(1, Ordering::AcqRel);
    }
}

/// Bounds of lots and of the queue before them.
#[derive(Debug, Clone, Copy)]
pub struct CommitLimits {
    /// Records in a lot.
    pub lot_records_max: usize,
    /// Bytes in a lot; one larger commit makes a lot of its own.
    pub lot_bytes_max: usize,
    /// Bytes that may wait; above it lanes refuse drafts.
    pub queue_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Submission>,
    closed: bool,
}

/// What shards and the hub know of the committer.
#[derive(Debug)]
pub struct CommitQueue {
    queue: Mutex<Queue>,
    filled: Condvar,
    bytes: AtomicUsize,
    epoch: AtomicU64,
    alive: AtomicBool,
    limits: CommitLimits,
    policies: Policies,
    committed: Notify,
    /// Everything up to this version was handed to every shard.
    announced: AtomicU64,
}

impl CommitQueue {
    /// An empty queue.
    pub fn new(limits: CommitLimits) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            bytes: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            alive: AtomicBool::new(true),
            limits,
            policies: Policies::default(),
            committed: Notify::new(),
            announced: AtomicU64::new(0),
        }
    }

    /// Waits until every shard was handed what is stored up to `version`: what is pushed to shards past the committer
    /// comes behind it then. `false`: the committer has ended.
    pub async fn announced(&self, version: Version) -> bool {
        loop {
            let committed = self.committed.notified();
            tokio::pin!(committed);
            committed.as_mut().enable();
            if self.announced.load(Ordering::Acquire) >= version.get() {
                return true;
            }
            if !self.is_alive() {
                return false;
            }
            committed.await;
        }
    }

    /// What is stored up to here was there before any shard.
    pub fn begin_at(&self, version: Version) {
        self.announced.store(version.get(), Ordering::Release);
    }

    /// Whether lanes may still number drafts.
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.limits.queue_bytes_max
    }

    /// The epoch lanes number in.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What users decided, for caches.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Wakes whoever waits when a lot was committed. Ask for what there is after calling `notified`, then wait for it.
    pub fn committed(&self) -> &Notify {
        &self.committed
    }

    /// Whether the committer's thread runs.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Hands over submissions in order and leaves `items` empty. `false`: after [`CommitQueue::close`] nothing is taken,
    /// and whoever waits for `items` is still to be told.
    #[must_use]
    pub fn append(&self, items: &mut Vec<Submission>) -> bool {
        if items.is_empty() {
            return true;
        }
        let bytes: usize = items.iter().map(|s| s.bytes).sum();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        let was_empty = queue.waiting.is_empty();
        queue.waiting.append(items);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    /// Lets the committer write what waits and end.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    /// Takes the next lot's worth into `lot`; `false` when closed and empty.
    fn take(&self, lot: &mut Vec<Submission>, backlog: &mut std::collections::VecDeque<Submission>) -> bool {
        if backlog.is_empty() {
            let mut queue = self.queue.lock();
            while queue.waiting.is_empty() {
                if queue.closed {
                    return false;
                }
                self.filled.wait(&mut queue);
            }
            backlog.extend(queue.waiting.drain(..));
        }
        let (mut records, mut bytes) = (0, 0);
        while let Some(next) = backlog.front() {
            records += next.commit.records.len();
            bytes += next.bytes;
            if !lot.is_empty() && (records > self.limits.lot_records_max || bytes > self.limits.lot_bytes_max) {
                break;
            }
            lot.extend(backlog.pop_front());
        }
        self.bytes.fetch_sub(lot.iter().map(|s| s.bytes).sum(), Ordering::Relaxed);
        true
    }
}

/// The thread's body: runs until the queue is closed and empty.
pub fn run(store: &dyn Store, queue: &CommitQueue, shards: &[ShardHandle], metrics: &Metrics) {
    let _alive = AliveGuard(queue);
    let mut backlog = std::collections::VecDeque::new();
    let mut lot = Vec::new();
    let mut commits = Vec::new();
    while queue.take(&mut lot, &mut backlog) {
        let epoch = queue.epoch();
        lot.retain_mut(|s| {
            let current = s.epoch.is_none_or(|numbered| numbered == epoch);
            if !current {
                let waiter = std::mem::replace(&mut s.waiter, Waiter::Nobody);
                refuse(waiter, shards, RETRY_AFTER_FAILURE_MS);
            }
            current
        });
        if lot.is_empty() {
            continue;
        }
        commits.clear();
        commits.extend(lot.iter_mut().map(|s| std::mem::take(&mut s.commit)));
        #[cfg(feature = "seeded-bugs")]
        swap_two_messages(&mut commits);
        let begun = Instant::now();
        let mut sealed_for = 0;
        let outcome = store.commit(&commits, &mut |versions| {
            sealed_for = versions.len();
            ack_memory(&mut lot, &commits, versions, shards);
        });
        match outcome {
            Ok(versions) => {
                metrics.lots.inc();
                metrics.lot_records.observe(commits.iter().map(|c| c.records.len()).sum::<usize>() as f64);
                metrics.commit_us.observe(begun.elapsed().as_secs_f64() * 1e6);
                for (submission, commit) in lot.iter().zip(&commits) {
                    for record in &commit.records {
                        queue.policies.note(record, submission.key.as_ref());
                    }
                }
                let last = versions.last().zip(commits.last());
                let last = last.map_or(0, |(first, commit)| first.get() + commit.records.len() as u64 - 1);
                announce(&mut lot, &mut commits, &versions, shards);
                queue.announced.store(last, Ordering::Release);
                queue.committed.notify_waiters();
            }
            Err(error) => {
                // The store says once when its disk begins to fail and once when that ends; anything else is a defect.
                if error.kind() == ErrorKind::Unavailable {
                    tracing::debug!(operation = error.operation, detail = %error.detail, commits = lot.len(), "lot refused");
                } else {
                    tracing::error!(operation = error.operation, detail = %error.detail,
                        error = ?std::error::Error::source(&error), commits = lot.len(), "lot failed, nothing of it is stored");
                }
                metrics.lots_failed.inc();
                queue.epoch.fetch_add(1, Ordering::AcqRel);
                for submission in lot.drain(..) {
                    refuse(submission.waiter, shards, RETRY_AFTER_FAILURE_MS);
                }
                for shard in shards {
                    shard.inbox.push(ShardEvent::LotFailed);
                }
                // A failing disk is not hammered: what waits is refused at this pace.
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        lot.clear();
    }
}

/// What a sender sent second is stored first.
#[cfg(feature = "seeded-bugs")]
fn swap_two_messages(commits: &mut [Commit]) {
    let mut messages = commits.iter_mut().flat_map(|commit| &mut commit.records).filter_map(|record| match record {
        Record::Message(message) => Some(message),
        _ => None,
    });
    if let (Some(first), Some(second)) = (messages.next(), messages.next())
        && (first.channel, &first.from_uid) == (second.channel, &second.from_uid)
        && crate::seeded::is(crate::seeded::Bug::SwapTwoMessages)
    {
        std::mem::swap(&mut first.client_msg_no, &mut second.client_msg_no);
        std::mem::swap(&mut first.payload, &mut second.payload);
    }
}

struct AliveGuard<'a>(&'a CommitQueue);

impl Drop for AliveGuard<'_> {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
        // Who waits for a lot that will not come.
        self.0.committed.notify_waiters();
        self.0.committed.notify_waiters();
    }
}

fn refuse(waiter: Waiter, shards: &[ShardHandle], retry_after_ms: u32) {
    let refusal = Refusal::StoreUnavailable { retry_after_ms };
    match waiter {
        Waiter::Session { acked: true, .. } => {}
        Waiter::Session { place, client_seq, .. } => {
            if let Some(shard) = shards.get(usize::from(place.shard)) {
                shard.inbox.push(ShardEvent::Refused { place, client_seq, refusal });
            }
        }
        inside => inside.refuse_inside(refusal),
    }
}

/// The ack of a message record, from its version.
fn acked(waiter: &Waiter, record: &Record, version: Version, level: Durability) -> Option<(u16, Acked)> {
    let (Waiter::Session { place, client_seq, made_msg_no, acked: false, .. }, Record::Message(message)) =
        (waiter, record)
    else {
        return None;
    };
    let ack = Acked {
        place: *place,
        client_seq: *client_seq,
        client_msg_no: made_msg_no.then(|| message.client_msg_no.clone()),
        message_id: version,
        message_seq: message.message_seq.get(),
        timestamp_ms: version.unix_ms(),
        level,
        duplicate: false,
    };
    Some((place.shard, ack))
}

fn ack_memory(lot: &mut [Submission], commits: &[Commit], versions: &[Version], shards: &[ShardHandle]) {
    for ((submission, commit), first) in lot.iter_mut().zip(commits).zip(versions) {
        if !matches!(submission.waiter, Waiter::Session { durability: Durability::Memory, .. }) {
            continue;
        }
        let last = commit.records.len() - 1;
        let Some((shard, ack)) =
            acked(&submission.waiter, &commit.records[last], first.plus(last as u64), Durability::Memory)
        else {
            continue;
        };
        if let Some(handle) = shards.get(usize::from(shard)) {
            handle.inbox.push(ShardEvent::Acks(vec![ack]));
        }
        if let Waiter::Session { acked, .. } = &mut submission.waiter {
            *acked = true;
        }
    }
}

/// Sends a lot's outcomes and news to every shard, then answers callers inside the process: what such a caller does next must
/// not overtake what it was told of. Each shard gets one event, so a turn sees the lot as a whole.
fn announce(lot: &mut Vec<Submission>, commits: &mut Vec<Commit>, versions: &[Version], shards: &[ShardHandle]) {
    let mut acks: Vec<Vec<Acked>> = shards.iter().map(|_| Vec::new()).collect();
    let mut done: Vec<Vec<LaneDone>> = shards.iter().map(|_| Vec::new()).collect();
    let mut joined = Joined::default();
    let mut inside = Vec::new();
    for ((submission, commit), first) in lot.drain(..).zip(commits.drain(..)).zip(versions) {
        let origin = match &submission.waiter {
            Waiter::Session { place, .. } => Some(place.session),
            Waiter::Send(_) | Waiter::Version(_) | Waiter::Nobody => None,
        };
        let (mut sent, mut reply) = (None, None);
        let last = first.plus(commit.records.len() as u64 - 1);
        for (i, record) in commit.records.into_iter().enumerate() {
            let version = first.plus(i as u64);
            if let Some((shard, ack)) = acked(&submission.waiter, &record, version, Durability::Disk)
                && let Some(list) = acks.get_mut(usize::from(shard))
            {
                list.push(ack);
            }
            match (record, &submission.key) {
                (Record::Message(message), Some(key)) => {
                    sent = Some((version, message.message_seq));
                    if matches!(submission.waiter, Waiter::Send(_)) {
                        reply = Some(Sent {
                            message_id: version,
                            message_seq: Some(message.message_seq),
                            client_msg_no: message.client_msg_no.clone(),
                            timestamp_ms: version.unix_ms(),
                            level: Durability::Disk,
                            duplicate: false,
                        });
                    }
                    joined.push(
                        message.channel,
                        key,
                        Delivered {
                            message_seq: message.message_seq.get(),
                            message_id: version,
                            from_uid: message.from_uid,
                            client_msg_no: message.client_msg_no,
                            flags: message.flags,
                            setting: message.setting,
                            topic: message.topic,
                            expire_s: message.expire_s,
                            timestamp_ms: version.unix_ms(),
                            payload: message.payload,
                            extras: message.extras,
                            origin,
                        },
                    );
                }
                (record, Some(key)) => {
                    if let Some(change) = change_of(record, key, version, submission.unread_after) {
                        joined.change(change);
                    }
                }
                (_, None) => {}
            }
        }
        if let Some(mut happening) = submission.happening {
            happening.version = last;
            joined.change(Change::Happened(Arc::from(happening)));
        }
        if let Some(ticket) = submission.ticket
            && let Some(list) = done.get_mut(usize::from(ticket.shard))
        {
            list.push(LaneDone { ticket, sent });
        }
        if matches!(submission.waiter, Waiter::Send(_) | Waiter::Version(_)) {
            inside.push((submission.waiter, reply, *first));
        }
    }
    let news = Arc::new(LotNews { news: joined.finish() });
    for ((shard, acks), done) in shards.iter().zip(acks).zip(done) {
        shard.inbox.push(ShardEvent::Lot { news: news.clone(), acks, done });
    }
    for (waiter, reply, first) in inside {
        match (waiter, reply) {
            (Waiter::Send(waiting), Some(sent)) => drop(waiting.send(Ok(sent))),
            (Waiter::Version(waiting), _) => drop(waiting.send(Ok(first))),
            _ => {}
        }
    }
}

fn change_of(record: Record, key: &ChannelKey, version: Version, unread_after: (u64, u64)) -> Option<Change> {
    let key = key.clone();
    match record {
        Record::MembersAdded { channel, uids, .. } => Some(Change::Joined { channel, key, uids, version }),
        Record::MembersRemoved { channel, uids, .. } => Some(Change::Left { channel, key, uids, version }),
        Record::ChannelCreated { channel, key } => {
            let visitor = key.visitor()?;
            Some(Change::Joined { channel, key, uids: vec![visitor], version })
        }
        Record::ReadPosition { uid, seq, .. } => Some(Change::Conversation {
            key,
            uid,
            version,
            what: ConversationChange::Read { read_to_msg_seq: seq, unread: unread_after.0, head_seq: unread_after.1 },
        }),
        Record::ConversationDeleted { uid, delete_floor, .. } => {
            Some(Change::Conversation { key, uid, version, what: ConversationChange::Deleted { delete_floor } })
        }
        Record::MessagesExpired { channel, seqs } => Some(Change::MessagesChanged { channel, key, seqs, version }),
        Record::MessageRevoked { channel, seq, by } => {
            Some(Change::MessageChanged { channel, key, seq, version, what: MessageChange::Revoked { by } })
        }
        Record::MessageEdited { channel, seq, by, payload, extras } => {
            let what = MessageChange::Edited { by, payload, extras };
            Some(Change::MessageChanged { channel, key, seq, version, what })
        }
        Record::MessageReacted { channel, seq, uid, reaction } => {
            let what = MessageChange::Reacted { uid, reaction };
            Some(Change::MessageChanged { channel, key, seq, version, what })
        }
        Record::MemberRole { channel, uid, role } => {
            Some(Change::Channel { channel, key, version, what: ChannelChange::Role { uid, role } })
        }
        Record::ChannelProfile { channel, profile } => {
            Some(Change::Channel { channel, key, version, what: ChannelChange::Profile(profile) })
        }
        Record::ConversationFlags { uid, flags, .. } => {
            Some(Change::Conversation { key, uid, version, what: ConversationChange::Flags { flags } })
        }
        // Told by what happened, beside the record.
        Record::MessageEvent { .. }
        | Record::Message(_)
        | Record::ChannelSettings { .. }
        | Record::UserCreated { .. }
        | Record::UserToken { .. }
        | Record::ApiKey(_)
        | Record::Alias { .. }
        | Record::UserSettings { .. }
        | Record::Relation { .. }
        | Record::File(_)
        | Record::FileRemoved { .. }
        | Record::ChannelListed { .. }
        | Record::SystemUser { .. }
        | Record::CommandsRead { .. }
        | Record::AddressBlocked { .. }
        | Record::Break { .. } => None,
    }
}

/// Payload bytes joined into one delivery at most: a write costs the same up to some 16 KiB, and gaps stay small.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// Joins a lot's messages by channel, keeping each channel's order, and puts its changes where they belong between them.
#[derive(Default)]
struct Joined {
    open: HashMap<ChannelNo, usize>,
    news: Vec<Piece>,
}

enum Piece {
    Messages { channel: ChannelNo, key: ChannelKey, messages: Vec<Delivered>, bytes: usize },
    Change(Change),
}

impl Joined {
    fn push(&mut self, channel: ChannelNo, key: &ChannelKey, message: Delivered) {
        let more = message.payload.len() + 100;
        if let Some(&at) = self.open.get(&channel)
            && let Some(Piece::Messages { messages, bytes, .. }) = self.news.get_mut(at)
            && *bytes + more <= JOINED_BYTES_MAX
        {
            messages.push(message);
            *bytes += more;
            return;
        }
        self.open.insert(channel, self.news.len());
        self.news.push(Piece::Messages { channel, key: key.clone(), messages: vec![message], bytes: more });
    }

    fn change(&mut self, change: Change) {
        if let Change::Joined { channel, .. } | Change::Left { channel, .. } = &change {
            self.open.remove(channel);
        }
        self.news.push(Piece::Change(change));
    }

    fn finish(self) -> Vec<News> {
        let news = self.news.into_iter().map(|piece| match piece {
            Piece::Messages { channel, key, messages, .. } => {
                News::Delivery(Arc::new(Delivery::new(Some(channel), key, messages)))
            }
            Piece::Change(change) => News::Change(Arc::new(change)),
        });
        news.collect()
    }
}

/// A made-up client_msg_no for senders who gave none: 32 hex digits.
pub fn make_client_msg_no() -> ClientMsgNo {
    ClientMsgNo::from_stored(&uuid::Uuid::new_v4().simple().to_string())
}
