//! Channel lanes: authorise, dedupe, assign message_seq.
//!
//! Owns the lanes of one shard: a channel is sequenced in exactly one lane of one shard, by one thread, so nothing moves
//! between check and use. Works on data only: outcomes, submissions and blocking jobs are handed back in a [`Turn`]; whoever
//! runs the turn carries them out. Refuses to know sockets, codecs and runtimes.
//!
//! Invariants: one-order (head + 1, in order of arrival); stored-once (a name in flight makes its repeat wait, a name that
//! may be stored is looked up before anything behind it is numbered). Work that needs the disk makes only its own lane wait.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageId, MessageSeq, Version};
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::administration::AdminOp;
use super::committer::{CommitQueue, LaneTicket, Submission, Waiter};
use super::delivery::{Delivery, Signal};
use crate::domain::channel::{ChannelSettings, Standing};
use crate::domain::message::Draft;
use crate::domain::refusal::Refusal;
use crate::store::{Store, StoreError};

mod jobs;
mod lane;

use jobs::peer_of;
pub use jobs::{Job, JobAnswer, KnownSender, LaneJob, Reception};
use lane::{Lane, Stage, Step};

/// When clients may try again when a lane or the committer's queue is full.
const RETRY_AFTER_BUSY_MS: u32 = 100;
/// When clients may try again when the store cannot answer.
const RETRY_AFTER_STORE_MS: u32 = 1_000;

/// The refusal of work that finds a queue full.
pub fn busy() -> Refusal {
    Refusal::Busy { retry_after_ms: RETRY_AFTER_BUSY_MS }
}

/// Bounds of the lanes of a shard.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Entries that may wait in one lane while it loads or looks something up.
    pub entries_max: usize,
    /// Payload bytes that may wait in one lane.
    pub bytes_max: usize,
    /// Lanes kept in memory; idle ones beyond it are forgotten and loaded again when used.
    pub lanes_max: usize,
    /// Messages of one person channel that wait or are not yet durable.
    pub person_in_flight_max: usize,
    /// Of one group.
    pub group_in_flight_max: usize,
    /// Of one customer service channel.
    pub customer_service_in_flight_max: usize,
    /// Members of a group.
    pub group_members_max: usize,
    /// Members of a customer service channel.
    pub customer_service_members_max: usize,
    /// Only contacts may write to users, unless a user's own channel allows strangers.
    pub contacts_only: bool,
}

impl LaneLimits {
    fn in_flight_max(&self, channel_type: ChannelType) -> usize {
        match channel_type {
            ChannelType::Person => self.person_in_flight_max,
            ChannelType::Group => self.group_in_flight_max,
            ChannelType::CustomerService => self.customer_service_in_flight_max,
        }
    }

    fn members_max(&self, channel_type: ChannelType) -> usize {
        match channel_type {
            ChannelType::Person => 2,
            ChannelType::Group => self.group_members_max,
            ChannelType::CustomerService => self.customer_service_members_max,
        }
    }
}

/// A draft with who waits for it.
#[derive(Debug)]
pub struct PendingDraft {
    /// What was asked.
    pub draft: Draft,
    /// As whom.
    pub standing: Standing,
    /// Who waits.
    pub waiter: Waiter,
}

/// A signal with who sent it.
#[derive(Debug)]
pub struct PendingSignal {
    /// The signal; its channel number is filled in by the lane.
    pub signal: Signal,
    /// The session to refuse to.
    pub waiter: Waiter,
}

/// A change of a channel with who waits for it.
#[derive(Debug)]
pub struct PendingAdmin {
    /// The channel.
    pub key: ChannelKey,
    /// What to change.
    pub op: AdminOp,
    /// Gets the change's version; when nothing had to change, the version of now.
    pub reply: oneshot::Sender<Result<Version, Refusal>>,
}

/// What a lane can be asked.
#[derive(Debug)]
pub enum Work {
    /// Send a message.
    Draft(PendingDraft),
    /// Pass a signal on.
    Signal(PendingSignal),
    /// Change the channel.
    Admin(PendingAdmin),
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Draft(pending) => {
                let extras = pending.draft.extras.as_ref().map_or(0, |extras| extras.bytes());
                pending.draft.payload.len() + extras
            }
            Self::Signal(pending) => pending.signal.data.len(),
            Self::Admin(pending) => pending.op.bytes(),
        }
    }

    fn key(&self) -> &ChannelKey {
        match self {
            Self::Draft(pending) => &pending.draft.channel,
            Self::Signal(pending) => &pending.signal.key,
            Self::Admin(pending) => &pending.key,
        }
    }

    pub(super) fn refuse(self, refusal: Refusal, turn: &mut Turn<'_>) {
        match self {
            Self::Draft(pending) => turn.outcomes.push((pending.waiter, Outcome::Refused(refusal))),
            Self::Signal(pending) => turn.outcomes.push((pending.waiter, Outcome::Refused(refusal))),
            Self::Admin(pending) => drop(pending.reply.send(Err(refusal))),
        }
    }
}

/// What became of a draft without a commit of its own.
#[derive(Debug)]
pub enum Outcome {
    /// It was refused.
    Refused(Refusal),
    /// It was stored before.
    Duplicate {
        /// The first outcome's id.
        message_id: MessageId,
        /// The first outcome's seq.
        message_seq: MessageSeq,
        /// Its name.
        client_msg_no: ClientMsgNo,
    },
    /// It was delivered and is not stored.
    Passed {
        /// An id of its own.
        message_id: MessageId,
        /// Its name.
        client_msg_no: ClientMsgNo,
        /// When, Unix milliseconds.
        timestamp_ms: u64,
    },
}

/// What goes to the online members at once, past the store.
#[derive(Debug)]
pub enum Passing {
    /// A message that is not stored.
    Delivery(Arc<Delivery>),
    /// A signal.
    Signal(Arc<Signal>),
}

/// What a turn of the lanes reads and leaves behind.
pub struct Turn<'a> {
    /// For what can be answered without I/O.
    pub store: &'a dyn Store,
    /// For its room and epoch.
    pub queue: &'a CommitQueue,
    /// Wall clock, Unix milliseconds.
    pub now_ms: u64,
    /// Gives ids to messages that are not stored.
    pub next_passing_id: &'a dyn Fn() -> MessageId,
    /// For the committer, in order.
    pub submissions: &'a mut Vec<Submission>,
    /// For those who wait.
    pub outcomes: &'a mut Vec<(Waiter, Outcome)>,
    /// For a thread that may block.
    pub jobs: &'a mut Vec<LaneJob>,
    /// For all shards.
    pub passing: &'a mut Vec<Passing>,
}

/// The lanes of a shard.
#[derive(Debug)]
pub struct Lanes {
    shard: u16,
    limits: LaneLimits,
    lanes: Slab<Lane>,
    by_key: HashMap<ChannelKey, u32>,
    next_id: u64,
    pending: usize,
}

impl Lanes {
    /// No lanes yet.
    pub fn new(shard: u16, limits: LaneLimits) -> Self {
        Self { shard, limits, lanes: Slab::new(), by_key: HashMap::default(), next_id: 1, pending: 0 }
    }

    /// Messages numbered and not yet durable, and entries that wait.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Takes one piece of work.
    pub fn accept(&mut self, work: Work, turn: &mut Turn<'_>) {
        if !turn.queue.has_room() {
            return work.refuse(busy(), turn);
        }
        let at = match self.by_key.get(work.key()) {
            Some(at) => *at,
            None => self.open(work.key().clone()),
        };
        let limits = self.limits;
        let Some(lane) = self.lanes.get_mut(at as usize) else { return };
        lane.used_ms = turn.now_ms;
        let in_flight = lane.in_flight_count + lane.waiting.len();
        if in_flight >= limits.in_flight_max(lane.key.channel_type()) {
            return work.refuse(busy(), turn);
        }
        if lane.waiting.len() >= limits.entries_max || lane.waiting_bytes + work.bytes() > limits.bytes_max {
            return work.refuse(busy(), turn);
        }
        let before = self.weigh(at);
        if let Some(lane) = self.lanes.get_mut(at as usize) {
            lane.waiting_bytes += work.bytes();
            lane.waiting.push_back(work);
        }
        self.run(at, turn);
        self.reweigh(at, before);
    }

    /// What a lane has taken and not answered.
    fn weigh(&self, at: u32) -> usize {
        self.lanes
            .get(at as usize)
            .map_or(0, |lane| lane.in_flight_count + lane.waiting.len() + usize::from(lane.stage == Stage::Changing))
    }

    fn reweigh(&mut self, at: u32, before: usize) {
        self.pending = (self.pending + self.weigh(at)).saturating_sub(before);
    }

    fn open(&mut self, key: ChannelKey) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        let at = self.lanes.insert(Lane {
            id,
            key: key.clone(),
            stage: Stage::Cold,
            epoch: 0,
            info: None,
            settings: ChannelSettings::default(),
            channel: None,
            head_seq: 0,
            standing: HashMap::default(),
            in_flight: HashMap::default(),
            in_flight_count: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            front_is_new: false,
            front_is_checked: false,
            receptions: SmallVec::new(),
            wrote: SmallVec::new(),
            used_ms: 0,
        }) as u32;
        self.by_key.insert(key, at);
        at
    }

    /// Works off what waits in a lane until it is empty or must wait itself.
    fn run(&mut self, at: u32, turn: &mut Turn<'_>) {
        let shard = self.shard;
        let limits = self.limits;
        let Some(lane) = self.lanes.get_mut(at as usize) else { return };
        let members_max = limits.members_max(lane.key.channel_type());
        while !lane.waiting.is_empty() {
            let step = match lane.stage {
                Stage::Asking | Stage::Changing => Step::Wait,
                Stage::Cold => {
                    lane.epoch = turn.queue.epoch();
                    let sender = match lane.waiting.front() {
                        Some(Work::Draft(pending)) => Some((pending.draft.from_uid.clone(), pending.standing)),
                        Some(Work::Signal(pending)) => Some((pending.signal.from_uid.clone(), Standing::Client)),
                        Some(Work::Admin(_)) | None => None,
                    };
                    let peer = sender.as_ref().and_then(|(sender, _)| peer_of(&lane.key, sender));
                    let policies = turn.queue.policies();
                    let policy = peer.map_or(0, |peer| policies.of(peer));
                    let sender_policy = sender.as_ref().map_or(0, |(sender, _)| policies.of(sender.as_str()));
                    let contacts_only = limits.contacts_only;
                    Step::Ask(Job::Load { key: lane.key.clone(), sender, sender_policy, policy, contacts_only })
                }
                Stage::Ready => lane.step(shard, at, (members_max, limits.contacts_only), turn),
            };
            match step {
                Step::Next => {}
                Step::Wait => return,
                Step::Ask(job) => {
                    lane.stage = Stage::Asking;
                    turn.jobs.push(LaneJob { lane: at, lane_id: lane.id, job });
                    return;
                }
            }
        }
        lane.waiting_bytes = 0;
        // An idle lane keeps no queue; a busy one gets the same memory back from the allocator while it is in the cache.
        lane.waiting = VecDeque::new();
        // A name nobody created must not leave a lane behind.
        if lane.channel.is_none() && lane.stage == Stage::Ready && lane.in_flight_count == 0 {
            self.close(at);
        }
    }

    fn close(&mut self, at: u32) {
        if let Some(lane) = self.lanes.try_remove(at as usize) {
            self.by_key.remove(&lane.key);
        }
    }

    /// Takes the answer to a job.
    pub fn answered(&mut self, at: u32, lane_id: u64, answer: Result<JobAnswer, StoreError>, turn: &mut Turn<'_>) {
        let before = self.weigh(at);
        self.take_answer(at, lane_id, answer, turn);
        self.reweigh(at, before);
    }

    fn take_answer(&mut self, at: u32, lane_id: u64, answer: Result<JobAnswer, StoreError>, turn: &mut Turn<'_>) {
        let Some(lane) = self.lanes.get_mut(at as usize).filter(|lane| lane.id == lane_id) else { return };
        if lane.stage != Stage::Asking {
            return;
        }
        lane.stage = Stage::Ready;
        match answer {
            Ok(JobAnswer::Loaded { info, sender, received }) => {
                lane.settings = info.as_ref().map(|i| i.settings).unwrap_or_default();
                lane.channel = info.as_ref().map(|i| i.channel);
                lane.head_seq = info.as_ref().map_or(0, |i| i.head_seq);
                lane.info = info;
                lane.standing.clear();
                lane.standing.extend(sender);
                lane.receptions.clear();
                lane.receptions.extend(received);
                lane.wrote.clear();
            }
            Ok(JobAnswer::Received(reception)) => lane.remember(reception),
            Ok(JobAnswer::Extras(extras)) => lane.checked(extras, turn),
            Ok(JobAnswer::Sender(uid, known)) => {
                // Bounded: a lane remembers the standing of as many senders as a lane may hold entries.
                if lane.standing.len() >= self.limits.entries_max {
                    lane.standing.clear();
                }
                lane.standing.insert(uid, known);
            }
            Ok(JobAnswer::Found(found)) => lane.found(found, turn),
            Ok(JobAnswer::Planned(plan)) => lane.planned(self.shard, at, plan, turn),
            Err(error) => {
                tracing::error!(operation = error.operation, detail = %error.detail, channel.id = lane.key.channel_id(),
                    "store cannot answer for a lane");
                lane.stage = Stage::Cold;
                (lane.front_is_new, lane.front_is_checked) = (false, false);
                lane.waiting_bytes = 0;
                for work in std::mem::take(&mut lane.waiting) {
                    work.refuse(Refusal::StoreUnavailable { retry_after_ms: RETRY_AFTER_STORE_MS }, turn);
                }
                if lane.in_flight_count == 0 {
                    self.close(at);
                }
                return;
            }
        }
        self.run(at, turn);
    }

    /// Takes the outcome of one of its commits.
    pub fn done(&mut self, ticket: &LaneTicket, sent: Option<(Version, MessageSeq)>, turn: &mut Turn<'_>) {
        let before = self.weigh(ticket.lane);
        self.take_done(ticket, sent, turn);
        self.reweigh(ticket.lane, before);
    }

    fn take_done(&mut self, ticket: &LaneTicket, sent: Option<(Version, MessageSeq)>, turn: &mut Turn<'_>) {
        let at = ticket.lane;
        let Some(lane) = self.lanes.get_mut(at as usize).filter(|lane| lane.id == ticket.lane_id) else { return };
        match sent {
            Some((message_id, message_seq)) => {
                lane.in_flight_count = lane.in_flight_count.saturating_sub(1);
                lane.landed(ticket.fingerprint, message_id, message_seq, turn);
                if lane.in_flight_count == 0 && lane.stage == Stage::Ready && !lane.waiting.is_empty() {
                    self.run(at, turn);
                }
            }
            None => {
                lane.stage = Stage::Cold;
                lane.info = None;
                self.run(at, turn);
            }
        }
    }

    /// A lot failed: what was numbered is void, and lanes that had something in flight start over.
    pub fn lot_failed(&mut self, turn: &mut Turn<'_>) {
        let epoch = turn.queue.epoch();
        let mut restart = Vec::new();
        for (at, lane) in &mut self.lanes {
            if lane.in_flight_count == 0 && lane.stage != Stage::Changing {
                lane.epoch = epoch;
                continue;
            }
            lane.in_flight_count = 0;
            for (_, names) in lane.in_flight.drain() {
                for waiter in names.into_iter().flat_map(|name| name.repeats) {
                    let refusal = Refusal::StoreUnavailable { retry_after_ms: RETRY_AFTER_STORE_MS };
                    turn.outcomes.push((waiter, Outcome::Refused(refusal)));
                }
            }
            (lane.front_is_new, lane.front_is_checked) = (false, false);
            // An answer that is on its way belongs to the numbering that is void now.
            lane.id = self.next_id;
            self.next_id += 1;
            lane.stage = Stage::Cold;
            restart.push(at as u32);
        }
        for at in restart {
            self.run(at, turn);
        }
        self.pending = (0..self.lanes.capacity()).map(|at| self.weigh(at as u32)).sum();
    }

    /// Forgets idle lanes beyond the limit, longest unused first.
    pub fn sweep(&mut self) {
        let excess = self.lanes.len().saturating_sub(self.limits.lanes_max);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<(u64, u32)> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.in_flight_count == 0 && lane.waiting.is_empty() && lane.stage == Stage::Ready)
            .map(|(at, lane)| (lane.used_ms, at as u32))
            .collect();
        idle.sort_unstable();
        for (_, at) in idle.into_iter().take(excess) {
            self.close(at);
        }
    }
}
