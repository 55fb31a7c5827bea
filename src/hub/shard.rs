//! A shard: the sessions of one thread, the lanes of its channels, and the turn that moves everything on.
//!
//! Owns its slots, the members it has online by channel, its lanes and what a turn leaves behind. State is owned by one
//! thread and touched in plain functions: events come in through the [`Inbox`], [`Shard::apply`] changes state,
//! [`Shard::finish_turn`] hands out what others must do. Every shard sees every lot, in commit order, and picks what is
//! its own: a member who joined, then a message, are seen in that order everywhere without any lock between shards.
//!
//! Refuses to know sockets and codecs: the gateway drains outboxes of dirty slots.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use foldhash::HashMap;
use protocol::close::CloseReason;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, MessageId, MessageSeq, Uid, Version};
use slab::Slab;
use tokio::sync::{Notify, oneshot};

use super::Shared;
use super::broker::Home;
use super::committer::{LaneTicket, Sent, Submission, Waiter};
use super::delivery::{Delivery, Happening, LotNews, News, Side, Signal};
use super::inbox::Inbox;
use super::outbox::{Control, Live, Outbox, Peer};
use super::sequencer::{JobAnswer, LaneJob, Lanes, Outcome, Passing, Turn, Work, busy};
use super::sessions::{Device, SessionId, SessionPlace, Traffic};
use crate::domain::message::Durability;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelNo, StoreError};

mod fanout;

use fanout::push_live;

/// When clients may try again once the committer has ended.
const RETRY_AFTER_DRAIN_MS: u32 = 1_000;

/// How other threads reach a shard.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    /// Its inbox.
    pub inbox: Arc<Inbox<ShardEvent>>,
}

/// An ack on its way to the session that sent.
#[derive(Debug)]
pub struct Acked {
    /// The session.
    pub place: SessionPlace,
    /// Its number for the send.
    pub client_seq: u64,
    /// The name the server made.
    pub client_msg_no: Option<ClientMsgNo>,
    /// The message's id.
    pub message_id: MessageId,
    /// Its seq; 0: not stored.
    pub message_seq: u64,
    /// When it was committed, or passed on; Unix milliseconds.
    pub timestamp_ms: u64,
    /// What the ack promises.
    pub level: Durability,
    /// The first outcome again.
    pub duplicate: bool,
}

/// The outcome of a lane's commit.
#[derive(Debug)]
pub struct LaneDone {
    /// The lane.
    pub ticket: LaneTicket,
    /// The message; `None`: it was a change of the channel.
    pub sent: Option<(Version, MessageSeq)>,
}

/// Everything that can reach a shard from outside its thread.
#[derive(Debug)]
pub enum ShardEvent {
    /// A lot is durable.
    Lot {
        /// For all shards.
        news: Arc<LotNews>,
        /// Acks of this shard's sessions.
        acks: Vec<Acked>,
        /// Outcomes of this shard's lanes.
        done: Vec<LaneDone>,
    },
    /// Acks without a lot: `memory` level, repeats.
    Acks(Vec<Acked>),
    /// A send was refused.
    Refused {
        /// The session.
        place: SessionPlace,
        /// Its number for the send.
        client_seq: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A lot failed; the epoch has risen.
    LotFailed,
    /// Work for a lane of this shard.
    Work(Work),
    /// The store's answer for a lane.
    Answered {
        /// Slot of the lane.
        lane: u32,
        /// Fences the slot.
        lane_id: u64,
        /// The answer.
        answer: Result<JobAnswer, StoreError>,
    },
    /// A message that is not stored, for the members online here.
    Passing(Arc<Delivery>),
    /// A signal, for the members online here.
    Signal(Arc<Signal>),
    /// What happened to a message's stream and is not stored, for the members online here.
    Happened(Arc<Happening>),
    /// A user came or went.
    Presence(Arc<Peer>),
    /// Close a session.
    Close {
        /// The session.
        place: SessionPlace,
        /// Why.
        reason: CloseReason,
    },
    /// Close every session: the server shuts down.
    CloseAll(CloseReason),
    /// Say what sessions of this shard have carried. For whoever runs the shard and has their sockets; sessions that have
    /// gone are left out.
    Describe {
        /// Which.
        places: Vec<SessionPlace>,
        /// Where to.
        reply: oneshot::Sender<Vec<Traffic>>,
    },
}

/// A session before its groups are known: remembers what changed meanwhile.
#[derive(Debug, Default)]
struct Joining {
    changes: Vec<(ChannelNo, bool, Version)>,
}

/// A session's place in its shard.
#[derive(Debug)]
pub struct Slot {
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub uid: Uid,
    /// Its device kind.
    pub device_flag: DeviceFlag,
    /// What waits for its socket.
    pub outbox: Outbox,
    /// Requests without an answer yet.
    pub in_flight: u32,
    /// Set when it must be closed; the gateway does it.
    pub closing: Option<CloseReason>,
    /// Wakes its read half when the session ends, and when it is paused and may go on.
    pub reader: Option<Waker>,
    /// The read half has as many requests in flight as it may.
    pub paused: bool,
    /// Its wire has a notice of what it missed.
    pub hears_gaps: bool,
    joining: Option<Box<Joining>>,
    groups: Vec<ChannelNo>,
    watches: Vec<Uid>,
    dirty: bool,
}

impl Slot {
    /// Counts one request as answered.
    fn answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.wake_paused();
    }

    fn wake_paused(&mut self) {
        if self.paused
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// The state of one shard. Lives in its thread.
#[derive(Debug)]
pub struct Shard {
    index: u16,
    shared: Arc<Shared>,
    slots: Slab<Slot>,
    channels: HashMap<ChannelNo, Vec<u32>>,
    watchers: HashMap<Uid, Vec<u32>>,
    lanes: Lanes,
    dirty: Vec<u32>,
    flush: Rc<Notify>,
    submissions: Vec<Submission>,
    outcomes: Vec<(Waiter, Outcome)>,
    jobs: Vec<LaneJob>,
    passing: Vec<Passing>,
    outgoing: Vec<Vec<ShardEvent>>,
    now_ms: u64,
    outbox_bytes: i64,
    pending_told: usize,
}

impl Shard {
    /// An empty shard. `flush` is notified when slots become dirty.
    pub fn new(index: u16, shared: Arc<Shared>, flush: Rc<Notify>) -> Self {
        let lanes = Lanes::new(index, shared.limits.lanes);
        let outgoing = shared.shards.iter().map(|_| Vec::new()).collect();
        Self {
            index,
            shared,
            slots: Slab::new(),
            channels: HashMap::default(),
            watchers: HashMap::default(),
            lanes,
            dirty: Vec::new(),
            flush,
            submissions: Vec::new(),
            outcomes: Vec::new(),
            jobs: Vec::new(),
            passing: Vec::new(),
            outgoing,
            now_ms: 0,
            outbox_bytes: 0,
            pending_told: 0,
        }
    }

    /// This shard's index.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What all shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sets the wall clock of the coming turn, Unix milliseconds.
    pub fn set_clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The wall clock of this turn, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The slot of a session, when it is still there.
    pub fn slot(&mut self, at: u32, session: SessionId) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize).filter(|slot| slot.session == session)
    }

    /// The slot at an index, whoever has it.
    pub fn slot_at(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    /// Sessions in this shard.
    pub fn session_count(&self) -> usize {
        self.slots.len()
    }

    // Sessions.

    /// Takes a session in; it receives nothing until [`Shard::begin`]. Sessions that give way to it are told to close.
    ///
    /// # Errors
    /// The user has too many sessions.
    pub fn enter(&mut self, uid: Uid, device: &Device) -> Result<(SessionPlace, bool), Refusal> {
        let session = self.shared.sessions.next_id();
        let at = self.slots.vacant_key() as u32;
        let place = SessionPlace { session, shard: self.index, slot: at };
        let max = self.shared.limits.connections_per_user_max;
        let entered = self
            .shared
            .sessions
            .enter(&uid, place, device, max)
            .ok_or(Refusal::TooMany { what: "sessions of this user", max })?;
        self.slots.insert(Slot {
            session,
            uid,
            device_flag: device.flag,
            outbox: Outbox::default(),
            in_flight: 0,
            closing: None,
            reader: None,
            paused: false,
            hears_gaps: true,
            joining: Some(Box::default()),
            groups: Vec::new(),
            watches: Vec::new(),
            dirty: false,
        });
        for (old, reason) in entered.kicked {
            self.send_to(old.shard, ShardEvent::Close { place: old, reason });
        }
        Ok((place, entered.first))
    }

    /// Starts the live stream of a session whose channels were read at `read_at`. What changed since is applied. Returns
    /// the version of the stream: everything after it is delivered, everything up to it is for a sync to show.
    pub fn begin(
        &mut self,
        place: &SessionPlace,
        channels: Vec<ChannelNo>,
        read_at: Version,
        first: bool,
    ) -> Option<Version> {
        let slot = self.slots.get_mut(place.slot as usize).filter(|slot| slot.session == place.session)?;
        let joining = slot.joining.take()?;
        let mut groups = channels;
        groups.sort_unstable();
        groups.dedup();
        for (channel, joined, version) in joining.changes {
            if version > read_at {
                groups.retain(|known| *known != channel);
                if joined {
                    groups.push(channel);
                }
            }
        }
        groups.shrink_to_fit();
        for channel in &groups {
            self.channels.entry(*channel).or_default().push(place.slot);
        }
        slot.groups = groups;
        let uid = slot.uid.clone();
        if first {
            self.presence(uid, true);
        }
        Some(self.shared.store.version())
    }

    /// Takes a session out. What is in flight for it goes on without an answer.
    pub fn leave(&mut self, place: &SessionPlace) {
        if self.slots.get(place.slot as usize).is_none_or(|slot| slot.session != place.session) {
            return;
        }
        let slot = self.slots.remove(place.slot as usize);
        self.outbox_bytes -= slot.outbox.live_bytes() as i64;
        for channel in &slot.groups {
            remove_from(&mut self.channels, channel, place.slot);
        }
        for uid in &slot.watches {
            remove_from(&mut self.watchers, uid, place.slot);
        }
        self.shared.watches.fetch_sub(slot.watches.len(), Ordering::Relaxed);
        if self.shared.sessions.leave(&slot.uid, place.session) == Some(true) {
            self.presence(slot.uid, false);
        }
    }

    fn presence(&mut self, uid: Uid, online: bool) {
        let last_seen_ms = if online { 0 } else { self.now_ms };
        if !online {
            self.shared.last_seen.note(uid.clone(), self.now_ms);
        }
        if self.shared.watches.load(Ordering::Relaxed) > 0 {
            let peer = Arc::new(Peer { uid, online, last_seen_ms });
            for shard in 0..self.outgoing.len() {
                self.send_to(shard as u16, ShardEvent::Presence(peer.clone()));
            }
        }
    }

    /// Makes a session hear when these users come and go, in place of those it watched before.
    pub fn watch(&mut self, place: &SessionPlace, uids: Vec<Uid>) {
        let Some(slot) = self.slots.get_mut(place.slot as usize).filter(|slot| slot.session == place.session) else {
            return;
        };
        let old = std::mem::replace(&mut slot.watches, uids);
        for uid in &old {
            remove_from(&mut self.watchers, uid, place.slot);
        }
        for uid in &slot.watches {
            self.watchers.entry(uid.clone()).or_default().push(place.slot);
        }
        self.shared.watches.fetch_add(slot.watches.len(), Ordering::Relaxed);
        self.shared.watches.fetch_sub(old.len(), Ordering::Relaxed);
    }

    /// Queues an answer or notice for a session and counts one request as answered when it is one.
    pub fn answer(&mut self, at: u32, session: SessionId, control: Control) {
        let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| slot.session == session) else { return };
        if answers_request(&control) {
            slot.answered();
        }
        slot.outbox.push_control(control);
        mark(&mut self.dirty, at, slot);
    }

    /// Queues something to write for a session, for the gateway's own needs (ping, retry of a blocked write).
    pub fn mark_dirty(&mut self, at: u32) {
        if let Some(slot) = self.slots.get_mut(at as usize) {
            mark(&mut self.dirty, at, slot);
            self.flush.notify_one();
        }
    }

    /// Takes the slots that have something to write.
    pub fn take_dirty(&mut self, into: &mut Vec<u32>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.dirty, into);
        for at in into.iter() {
            if let Some(slot) = self.slots.get_mut(*at as usize) {
                slot.dirty = false;
            }
        }
    }

    /// Removes written live entries of a slot and keeps the count of waiting bytes. Returns whether more waits.
    pub fn written(&mut self, at: u32, live_entries: usize) -> bool {
        let Some(slot) = self.slots.get_mut(at as usize) else { return false };
        let before = slot.outbox.live_bytes();
        slot.outbox.pop_live(live_entries);
        self.outbox_bytes -= (before - slot.outbox.live_bytes()) as i64;
        slot.wake_paused();
        let gaps = slot.outbox.tell_gaps();
        if gaps > 0 {
            self.shared.metrics.gaps.inc_by(gaps as u64);
        }
        let more = !slot.outbox.is_empty();
        if !more {
            // The next session to be written takes the same memory from the allocator while it is in the cache.
            slot.outbox.shrink();
        }
        more
    }

    // Work.

    /// Takes work from a session of this shard or passes it to its channel's home.
    pub fn work(&mut self, work: Work, key: &ChannelKey) {
        let Home::Shard(home) = self.shared.broker.home(key);
        if home == usize::from(self.index) {
            self.with_lanes(|lanes, turn| lanes.accept(work, turn));
        } else if self.shared.shards.get(home).is_some_and(|shard| shard.inbox.has_room()) {
            self.outgoing[home].push(ShardEvent::Work(work));
        } else {
            self.with_lanes(|_, turn| work.refuse(busy(), turn));
        }
    }

    fn with_lanes(&mut self, f: impl FnOnce(&mut Lanes, &mut Turn<'_>)) {
        let shared = &self.shared;
        let next_passing_id = || shared.next_passing_id();
        let mut turn = Turn {
            store: &*shared.store,
            queue: &shared.queue,
            now_ms: self.now_ms,
            next_passing_id: &next_passing_id,
            submissions: &mut self.submissions,
            outcomes: &mut self.outcomes,
            jobs: &mut self.jobs,
            passing: &mut self.passing,
        };
        f(&mut self.lanes, &mut turn);
    }

    /// Changes state by one event.
    pub fn apply(&mut self, event: ShardEvent) {
        match event {
            ShardEvent::Lot { news, acks, done } => {
                self.with_lanes(|lanes, turn| {
                    for done in &done {
                        lanes.done(&done.ticket, done.sent, turn);
                    }
                });
                self.acks(acks);
                let mut delivered = 0;
                for news in &news.news {
                    match news {
                        News::Delivery(delivery) => delivered += self.deliver(delivery),
                        News::Change(change) => self.change(change),
                    }
                }
                self.shared.metrics.deliveries.inc_by(delivered);
            }
            ShardEvent::Acks(acks) => self.acks(acks),
            ShardEvent::Refused { place, client_seq, refusal } => {
                self.shared.metrics.refused(refusal.code());
                self.answer(place.slot, place.session, Control::Refused { client_seq: Some(client_seq), refusal });
            }
            ShardEvent::LotFailed => self.with_lanes(|lanes, turn| lanes.lot_failed(turn)),
            ShardEvent::Work(work) => self.with_lanes(|lanes, turn| lanes.accept(work, turn)),
            ShardEvent::Answered { lane, lane_id, answer } => {
                self.with_lanes(|lanes, turn| lanes.answered(lane, lane_id, answer, turn));
            }
            ShardEvent::Passing(delivery) => {
                let delivered = self.deliver(&delivery);
                self.shared.metrics.deliveries.inc_by(delivered);
            }
            ShardEvent::Signal(signal) => self.signal(&signal),
            ShardEvent::Happened(happening) => self.happened(&happening),
            ShardEvent::Presence(peer) => {
                let Self { watchers, slots, dirty, .. } = self;
                for at in watchers.get(&peer.uid).into_iter().flatten() {
                    push_live(
                        slots,
                        dirty,
                        *at,
                        Live::Presence(peer.clone()),
                        &self.shared,
                        self.now_ms,
                        &mut self.outbox_bytes,
                    );
                }
            }
            ShardEvent::Close { place, reason } => {
                if let Some(slot) = self.slots.get_mut(place.slot as usize).filter(|s| s.session == place.session) {
                    slot.closing.get_or_insert(reason);
                    mark(&mut self.dirty, place.slot, slot);
                }
            }
            ShardEvent::CloseAll(reason) => {
                for (at, slot) in &mut self.slots {
                    slot.closing.get_or_insert(reason);
                    mark(&mut self.dirty, at as u32, slot);
                }
            }
            // A shard without sockets has carried nothing.
            ShardEvent::Describe { .. } => {}
        }
    }

    /// Hands out what the turn left behind; the flusher is woken when there is something to write.
    pub fn finish_turn(&mut self) {
        // Handing out can make more: a passed message is delivered here, which wakes writers, and so on; it ends because
        // nothing handed out creates work for a lane.
        let mut passing = std::mem::take(&mut self.passing);
        for passed in passing.drain(..) {
            for shard in 0..self.outgoing.len() {
                let event = match &passed {
                    Passing::Delivery(delivery) => ShardEvent::Passing(delivery.clone()),
                    Passing::Signal(signal) => ShardEvent::Signal(signal.clone()),
                };
                if shard == usize::from(self.index) {
                    self.apply(event);
                } else {
                    self.outgoing[shard].push(event);
                }
            }
        }
        self.passing = passing;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for (waiter, outcome) in outcomes.drain(..) {
            self.outcome(waiter, outcome);
        }
        self.outcomes = outcomes;
        if !self.shared.queue.append(&mut self.submissions) {
            for submission in std::mem::take(&mut self.submissions) {
                let refusal = Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS };
                self.outcome(submission.waiter, Outcome::Refused(refusal));
            }
        }
        for job in self.jobs.drain(..) {
            let store = self.shared.store.clone();
            let inbox = self.shared.shards[usize::from(self.index)].inbox.clone();
            self.shared.blocking.spawn_blocking(move || {
                let LaneJob { lane, lane_id, job } = job;
                let answer = job.run(&*store);
                inbox.push(ShardEvent::Answered { lane, lane_id, answer });
            });
        }
        for (shard, events) in self.outgoing.iter_mut().enumerate() {
            if let Some(handle) = self.shared.shards.get(shard) {
                handle.inbox.append(events);
            }
        }
        let pending = self.lanes.pending();
        if pending != self.pending_told {
            self.shared.pending.fetch_add(pending.wrapping_sub(self.pending_told), Ordering::Relaxed);
            self.pending_told = pending;
        }
        if self.outbox_bytes != 0 {
            self.shared.metrics.outbox_bytes.inc_by(self.outbox_bytes);
            self.outbox_bytes = 0;
        }
        if !self.dirty.is_empty() {
            self.flush.notify_one();
        }
    }

    /// Care that need not happen in every turn: forgets idle lanes, closes sessions that lag too long.
    pub fn sweep(&mut self) {
        self.lanes.sweep();
        let slow_close_ms = self.shared.limits.slow_close_ms;
        for (at, slot) in &mut self.slots {
            let lagging = slot.outbox.lagging_since_ms();
            if lagging.is_some_and(|since| self.now_ms.saturating_sub(since) > slow_close_ms) && slot.closing.is_none()
            {
                slot.closing = Some(CloseReason::Slow);
                self.shared.metrics.slow_closes.inc();
                mark(&mut self.dirty, at as u32, slot);
            }
        }
        if !self.dirty.is_empty() {
            self.flush.notify_one();
        }
    }

    fn send_to(&mut self, shard: u16, event: ShardEvent) {
        if let Some(events) = self.outgoing.get_mut(usize::from(shard)) {
            events.push(event);
        }
    }

    fn acks(&mut self, acks: Vec<Acked>) {
        self.shared.metrics.acks.inc_by(acks.len() as u64);
        for ack in acks {
            let control = Control::Ack {
                client_seq: ack.client_seq,
                client_msg_no: ack.client_msg_no,
                message_id: ack.message_id,
                message_seq: ack.message_seq,
                timestamp_ms: ack.timestamp_ms,
                level: ack.level,
                duplicate: ack.duplicate,
            };
            self.answer(ack.place.slot, ack.place.session, control);
        }
    }

    fn outcome(&mut self, waiter: Waiter, outcome: Outcome) {
        if let Outcome::Duplicate { .. } = outcome {
            self.shared.metrics.duplicates.inc();
        }
        match waiter {
            Waiter::Session { place, client_seq, durability, made_msg_no, acked: _ } => {
                let event = match outcome {
                    Outcome::Refused(refusal) => ShardEvent::Refused { place, client_seq, refusal },
                    Outcome::Duplicate { message_id, message_seq, .. } => ShardEvent::Acks(vec![Acked {
                        place,
                        client_seq,
                        client_msg_no: None,
                        message_id,
                        message_seq: message_seq.get(),
                        timestamp_ms: message_id.unix_ms(),
                        level: Durability::Disk,
                        duplicate: true,
                    }]),
                    Outcome::Passed { message_id, client_msg_no, timestamp_ms } => ShardEvent::Acks(vec![Acked {
                        place,
                        client_seq,
                        client_msg_no: made_msg_no.then_some(client_msg_no),
                        message_id,
                        message_seq: 0,
                        timestamp_ms,
                        level: durability.min(Durability::Memory),
                        duplicate: false,
                    }]),
                };
                if place.shard == self.index {
                    self.apply(event);
                } else {
                    self.send_to(place.shard, event);
                }
            }
            Waiter::Send(reply) => {
                let answer = match outcome {
                    // Counted by the voice that says it.
                    Outcome::Refused(refusal) => Err(refusal),
                    Outcome::Duplicate { message_id, message_seq, client_msg_no } => Ok(Sent {
                        message_id,
                        message_seq: Some(message_seq),
                        client_msg_no,
                        timestamp_ms: message_id.unix_ms(),
                        level: Durability::Disk,
                        duplicate: true,
                    }),
                    Outcome::Passed { message_id, client_msg_no, timestamp_ms } => Ok(Sent {
                        message_id,
                        message_seq: None,
                        client_msg_no,
                        timestamp_ms,
                        level: Durability::Memory,
                        duplicate: false,
                    }),
                };
                let _ = reply.send(answer);
            }
            Waiter::Version(reply) => {
                if let Outcome::Refused(refusal) = outcome {
                    let _ = reply.send(Err(refusal));
                }
            }
            Waiter::Nobody => {}
        }
    }
}

fn answers_request(control: &Control) -> bool {
    match control {
        Control::Ack { .. }
        | Control::Done { .. }
        | Control::Synced { .. }
        | Control::Messages { .. }
        | Control::Explained { .. }
        | Control::Peers { .. }
        | Control::Answer(_) => true,
        Control::Refused { client_seq, .. } => client_seq.is_some(),
        Control::Gap { .. } | Control::Resync { .. } | Control::Raw(_) => false,
    }
}

fn mark(dirty: &mut Vec<u32>, at: u32, slot: &mut Slot) {
    if !slot.dirty {
        slot.dirty = true;
        dirty.push(at);
    }
}

/// Which side of a person channel a user looks from.
pub fn side_of(key: &ChannelKey, uid: &Uid) -> Side {
    match key.channel_type() {
        ChannelType::Group | ChannelType::CustomerService => Side::First,
        // `first@second`, and no uid holds an `@`.
        ChannelType::Person => {
            match key.channel_id().strip_prefix(uid.as_str()).is_some_and(|rest| rest.starts_with('@')) {
                true => Side::First,
                false => Side::Second,
            }
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<u32>>, key: &K, at: u32) {
    if let Some(list) = map.get_mut(key) {
        if let Some(i) = list.iter().position(|known| *known == at) {
            list.swap_remove(i);
        }
        if list.is_empty() {
            map.remove(key);
        }
    }
}
