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

use bytes::Bytes;
use foldhash::HashMap;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageId, MessageSeq, Uid, Version};
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::administration::{AdminOp, created, plan_admin};
use super::committer::{CommitQueue, LaneTicket, Submission, Waiter, make_client_msg_no};
use super::delivery::{Delivered, Delivery, Signal};
use crate::domain::channel::{ChannelSettings, Standing, authorise_send};
use crate::domain::message::{Draft, Message, fingerprint};
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, Commit, MessageRecord, Probe, Record, Store, StoreError};

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
            Self::Draft(pending) => pending.draft.payload.len(),
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

/// A question to the store that may need the disk.
#[derive(Debug)]
pub enum Job {
    /// Load a channel, with the standing of whoever asked first.
    Load {
        /// The channel.
        key: ChannelKey,
        /// The sender to look up.
        sender: Option<Uid>,
    },
    /// Is this user a member?
    Membership {
        /// The channel.
        channel: ChannelNo,
        /// The user.
        uid: Uid,
    },
    /// Is this name stored?
    Find {
        /// The channel.
        channel: ChannelNo,
        /// The sender.
        from_uid: Uid,
        /// The name.
        client_msg_no: ClientMsgNo,
    },
    /// What does this change of a channel mean?
    Admin {
        /// The channel.
        key: ChannelKey,
        /// As it stands; `None`: it does not exist.
        info: Option<Box<ChannelInfo>>,
        /// Last seq given out.
        head_seq: u64,
        /// The change.
        op: AdminOp,
        /// Members a channel may have.
        members_max: usize,
    },
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum JobAnswer {
    /// To `Load`.
    Loaded {
        /// The channel, when it exists.
        info: Option<Box<ChannelInfo>>,
        /// The sender's membership.
        sender: Option<(Uid, bool)>,
    },
    /// To `Membership`.
    Member(Uid, bool),
    /// To `Find`.
    Found(Option<Box<Message>>),
    /// To `Admin`.
    Planned(Result<Vec<Record>, Refusal>),
}

impl Job {
    /// Asks the store. Blocking.
    ///
    /// # Errors
    /// What the store says.
    pub fn run(&self, store: &dyn Store) -> Result<JobAnswer, StoreError> {
        match self {
            Self::Load { key, sender } => {
                let Some(channel) = store.channel_no(key)? else {
                    return Ok(JobAnswer::Loaded { info: None, sender: None });
                };
                let info = store.channel(channel)?.map(Box::new);
                store.warm(channel)?;
                let sender = match sender {
                    Some(uid) => Some((uid.clone(), store.membership(channel, uid)?.is_some())),
                    None => None,
                };
                Ok(JobAnswer::Loaded { info, sender })
            }
            Self::Membership { channel, uid } => {
                Ok(JobAnswer::Member(uid.clone(), store.membership(*channel, uid)?.is_some()))
            }
            Self::Find { channel, from_uid, client_msg_no } => {
                let found = store.message_by_client_msg_no(*channel, from_uid, client_msg_no)?;
                // Once answered from the disk, the next ones should be answered from memory.
                store.warm(*channel)?;
                Ok(JobAnswer::Found(found.map(Box::new)))
            }
            Self::Admin { key, info, head_seq, op, members_max } => {
                Ok(JobAnswer::Planned(plan_admin(store, key, info.as_deref(), *head_seq, op, *members_max)?))
            }
        }
    }
}

/// A job and the lane that waits for it.
#[derive(Debug)]
pub struct LaneJob {
    /// Slot of the lane.
    pub lane: u32,
    /// Fences the slot.
    pub lane_id: u64,
    /// The question.
    pub job: Job,
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

#[derive(Debug)]
struct InFlight {
    from_uid: Uid,
    client_msg_no: ClientMsgNo,
    payload: Bytes,
    message_seq: MessageSeq,
    repeats: SmallVec<[Waiter; 1]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is known.
    Cold,
    /// A job is at the store; everything waits.
    Asking,
    /// A change of the channel is with the committer; everything waits.
    Changing,
    /// Drafts are decided as they come.
    Ready,
}

#[derive(Debug)]
struct Lane {
    id: u64,
    key: ChannelKey,
    stage: Stage,
    epoch: u64,
    info: Option<Box<ChannelInfo>>,
    settings: ChannelSettings,
    channel: Option<ChannelNo>,
    head_seq: u64,
    standing: HashMap<Uid, bool>,
    in_flight: HashMap<u64, SmallVec<[InFlight; 1]>>,
    in_flight_count: usize,
    waiting: VecDeque<Work>,
    waiting_bytes: usize,
    /// The front draft's name was looked up and is not stored.
    front_is_new: bool,
    used_ms: u64,
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

/// What a lane must do before it can go on with its front entry.
enum Step {
    Next,
    Ask(Job),
    Wait,
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
                        Some(Work::Draft(pending)) => Some(pending.draft.from_uid.clone()),
                        Some(Work::Signal(pending)) => Some(pending.signal.from_uid.clone()),
                        Some(Work::Admin(_)) | None => None,
                    };
                    Step::Ask(Job::Load { key: lane.key.clone(), sender })
                }
                Stage::Ready => lane.step(shard, at, members_max, turn),
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
            Ok(JobAnswer::Loaded { info, sender }) => {
                lane.settings = info.as_ref().map(|i| i.settings).unwrap_or_default();
                lane.channel = info.as_ref().map(|i| i.channel);
                lane.head_seq = info.as_ref().map_or(0, |i| i.head_seq);
                lane.info = info;
                lane.standing.clear();
                lane.standing.extend(sender);
            }
            Ok(JobAnswer::Member(uid, member)) => {
                // Bounded: a lane remembers the standing of as many senders as a lane may hold entries.
                if lane.standing.len() >= self.limits.entries_max {
                    lane.standing.clear();
                }
                lane.standing.insert(uid, member);
            }
            Ok(JobAnswer::Found(found)) => lane.found(found, turn),
            Ok(JobAnswer::Planned(plan)) => lane.planned(self.shard, at, plan, turn),
            Err(error) => {
                tracing::error!(operation = error.operation, detail = %error.detail, channel.id = lane.key.channel_id(),
                    "store cannot answer for a lane");
                lane.stage = Stage::Cold;
                lane.front_is_new = false;
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
            lane.front_is_new = false;
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

impl Lane {
    /// Decides the front entry.
    fn step(&mut self, shard: u16, at: u32, members_max: usize, turn: &mut Turn<'_>) -> Step {
        let (from_uid, standing) = match self.waiting.front() {
            None => return Step::Next,
            Some(Work::Admin(_)) if self.channel.is_some() && self.info.is_none() => {
                // The channel was created by a message that is still in flight: its row must be there first.
                if self.in_flight_count == 0 {
                    self.stage = Stage::Cold;
                    return Step::Next;
                }
                return Step::Wait;
            }
            Some(Work::Admin(pending)) => {
                // The floors count what is numbered before it, durable or not: the log keeps that order.
                return Step::Ask(Job::Admin {
                    key: self.key.clone(),
                    info: self.info.clone(),
                    head_seq: self.head_seq,
                    op: pending.op.clone(),
                    members_max,
                });
            }
            Some(Work::Draft(pending)) => (pending.draft.from_uid.clone(), pending.standing),
            Some(Work::Signal(pending)) => (pending.signal.from_uid.clone(), Standing::Client),
        };
        let is_member = match (self.key.channel_type(), standing, self.channel) {
            (ChannelType::Group, Standing::Client, Some(channel)) => match self.standing.get(&from_uid) {
                Some(member) => *member,
                None => return Step::Ask(Job::Membership { channel, uid: from_uid }),
            },
            _ => false,
        };
        let verdict =
            authorise_send(self.key.channel_type(), self.channel.is_some(), &self.settings, is_member, standing);
        if let Err(refusal) = verdict {
            if let Some(work) = self.pop() {
                work.refuse(refusal, turn);
            }
            return Step::Next;
        }
        match self.waiting.front() {
            Some(Work::Draft(_)) => self.step_draft(shard, at, turn),
            Some(Work::Signal(_)) => {
                if let Some(Work::Signal(mut pending)) = self.pop() {
                    pending.signal.channel = self.channel;
                    turn.passing.push(Passing::Signal(Arc::new(pending.signal)));
                }
                Step::Next
            }
            Some(Work::Admin(_)) | None => Step::Next,
        }
    }

    fn step_draft(&mut self, shard: u16, at: u32, turn: &mut Turn<'_>) -> Step {
        let Some(Work::Draft(front)) = self.waiting.front() else { return Step::Next };
        let print = match &front.draft.client_msg_no {
            Some(client_msg_no) if !front.draft.flags.no_persist => {
                let print = fingerprint(&front.draft.from_uid, client_msg_no);
                if let Some(step) = self.repeat_of_in_flight(print, turn) {
                    return step;
                }
                let Some(Work::Draft(front)) = self.waiting.front() else { return Step::Next };
                if let (Some(channel), false, Some(client_msg_no)) =
                    (self.channel, self.front_is_new, &front.draft.client_msg_no)
                    && turn.store.probe(channel, print) == Probe::Ask
                {
                    return Step::Ask(Job::Find {
                        channel,
                        from_uid: front.draft.from_uid.clone(),
                        client_msg_no: client_msg_no.clone(),
                    });
                }
                print
            }
            _ => 0,
        };
        self.front_is_new = false;
        let Some(Work::Draft(pending)) = self.pop() else { return Step::Next };
        if pending.draft.flags.no_persist {
            self.pass(pending, turn);
        } else {
            self.number(shard, at, print, pending, turn);
        }
        Step::Next
    }

    fn pop(&mut self) -> Option<Work> {
        let work = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(work.bytes());
        Some(work)
    }

    /// A repeat of a name in flight waits for its outcome; with another payload it is a conflict.
    fn repeat_of_in_flight(&mut self, print: u64, turn: &mut Turn<'_>) -> Option<Step> {
        let Some(Work::Draft(front)) = self.waiting.front() else { return None };
        let names = self.in_flight.get_mut(&print)?;
        let draft = &front.draft;
        let first = names
            .iter_mut()
            .find(|n| n.from_uid == draft.from_uid && Some(&n.client_msg_no) == draft.client_msg_no.as_ref())?;
        let same = first.payload == draft.payload;
        let message_seq = first.message_seq.get();
        let work = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(work.bytes());
        let Work::Draft(pending) = work else { return Some(Step::Next) };
        if same {
            first.repeats.push(pending.waiter);
        } else {
            let refusal = Refusal::ClientMsgNoConflict { message_seq };
            turn.outcomes.push((pending.waiter, Outcome::Refused(refusal)));
        }
        Some(Step::Next)
    }

    /// The store's word on whether the front draft's name is stored.
    fn found(&mut self, found: Option<Box<Message>>, turn: &mut Turn<'_>) {
        let Some(message) = found else {
            self.front_is_new = true;
            return;
        };
        let Some(Work::Draft(pending)) = self.pop() else { return };
        let same = message.payload == pending.draft.payload;
        let withheld = message.payload.is_empty() && message.state != crate::domain::message::MessageState::Live;
        let outcome = if same || withheld {
            Outcome::Duplicate {
                message_id: message.message_id,
                message_seq: message.message_seq,
                client_msg_no: message.client_msg_no,
            }
        } else {
            Outcome::Refused(Refusal::ClientMsgNoConflict { message_seq: message.message_seq.get() })
        };
        turn.outcomes.push((pending.waiter, outcome));
    }

    fn pass(&mut self, pending: PendingDraft, turn: &mut Turn<'_>) {
        let PendingDraft { draft, waiter, .. } = pending;
        let message_id = (turn.next_passing_id)();
        let client_msg_no = draft.client_msg_no.unwrap_or_else(make_client_msg_no);
        let origin = match &waiter {
            Waiter::Session { place, .. } => Some(place.session),
            Waiter::Send(_) | Waiter::Version(_) | Waiter::Nobody => None,
        };
        let message = Delivered {
            message_seq: 0,
            message_id,
            from_uid: draft.from_uid,
            client_msg_no: client_msg_no.clone(),
            flags: draft.flags,
            setting: draft.setting,
            topic: draft.topic,
            expire_s: draft.expire_s,
            timestamp_ms: turn.now_ms,
            payload: draft.payload,
            extras: draft.extras,
            origin,
        };
        let delivery = Delivery::new(self.channel, self.key.clone(), vec![message]);
        turn.passing.push(Passing::Delivery(Arc::new(delivery)));
        turn.outcomes.push((waiter, Outcome::Passed { message_id, client_msg_no, timestamp_ms: turn.now_ms }));
    }

    /// Gives the draft its seq and hands it to the committer.
    fn number(&mut self, shard: u16, at: u32, print: u64, pending: PendingDraft, turn: &mut Turn<'_>) {
        let PendingDraft { draft, waiter, .. } = pending;
        let mut commit = Commit::default();
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let channel = turn.store.reserve_channel_no();
                commit.records.extend(created(channel, &self.key));
                self.channel = Some(channel);
                channel
            }
        };
        self.head_seq += 1;
        let Some(message_seq) = MessageSeq::new(self.head_seq) else { return };
        let named = draft.client_msg_no.is_some();
        let client_msg_no = draft.client_msg_no.unwrap_or_else(make_client_msg_no);
        if named {
            self.in_flight.entry(print).or_default().push(InFlight {
                from_uid: draft.from_uid.clone(),
                client_msg_no: client_msg_no.clone(),
                payload: draft.payload.clone(),
                message_seq,
                repeats: SmallVec::new(),
            });
        }
        self.in_flight_count += 1;
        let bytes = draft.payload.len() + 256;
        commit.records.push(Record::Message(MessageRecord {
            channel,
            message_seq,
            from_uid: draft.from_uid,
            client_msg_no,
            flags: draft.flags,
            setting: draft.setting,
            topic: draft.topic,
            expire_s: draft.expire_s,
            payload: draft.payload,
            extras: draft.extras,
        }));
        turn.submissions.push(Submission {
            commit,
            key: Some(self.key.clone()),
            epoch: Some(self.epoch),
            ticket: Some(LaneTicket { shard, lane: at, lane_id: self.id, fingerprint: print }),
            unread_after: (0, 0),
            bytes,
            waiter,
        });
    }

    /// A numbered message is durable: repeats that waited get its outcome.
    fn landed(&mut self, print: u64, message_id: MessageId, message_seq: MessageSeq, turn: &mut Turn<'_>) {
        let Some(names) = self.in_flight.get_mut(&print) else { return };
        if let Some(i) = names.iter().position(|name| name.message_seq == message_seq) {
            let name = names.swap_remove(i);
            for waiter in name.repeats {
                let client_msg_no = name.client_msg_no.clone();
                turn.outcomes.push((waiter, Outcome::Duplicate { message_id, message_seq, client_msg_no }));
            }
        }
        if names.is_empty() {
            self.in_flight.remove(&print);
            if self.in_flight.is_empty() {
                self.in_flight = HashMap::default();
            }
        }
    }

    /// The records a change of the channel needs.
    fn planned(&mut self, shard: u16, at: u32, plan: Result<Vec<Record>, Refusal>, turn: &mut Turn<'_>) {
        let Some(Work::Admin(pending)) = self.pop() else { return };
        let records = match plan {
            Err(refusal) => return drop(pending.reply.send(Err(refusal))),
            Ok(records) if records.is_empty() => return drop(pending.reply.send(Ok(turn.store.version()))),
            Ok(records) => records,
        };
        let bytes = 256 + records.iter().map(record_bytes).sum::<usize>();
        self.stage = Stage::Changing;
        turn.submissions.push(Submission {
            commit: Commit { records: records.into() },
            key: Some(self.key.clone()),
            epoch: Some(self.epoch),
            ticket: Some(LaneTicket { shard, lane: at, lane_id: self.id, fingerprint: 0 }),
            unread_after: (0, 0),
            bytes,
            waiter: Waiter::Version(pending.reply),
        });
    }
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::MembersAdded { uids, .. } | Record::MembersRemoved { uids, .. } => {
            uids.iter().map(|uid| uid.as_str().len() + 8).sum()
        }
        _ => 64,
    }
}
