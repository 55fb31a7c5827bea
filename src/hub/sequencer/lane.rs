//! One channel's lane: decides what waits in it, front first, and numbers it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, MessageSeq, Uid, Version};
use smallvec::SmallVec;

use super::jobs::{Job, KnownSender, Reception, peer_of};
use super::{Outcome, Passing, PendingDraft, Turn, Work};
use crate::domain::channel::{ChannelSettings, Sender, Standing, Target, authorise_send};
use crate::domain::conversation::ConversationFlags;
use crate::domain::message::{Extras, Message, MessageState, fingerprint};
use crate::domain::refusal::Refusal;
use crate::domain::user::Reception as Verdict;
use crate::hub::administration::{alias, created};
use crate::hub::committer::{LaneTicket, Submission, Waiter, make_client_msg_no};
use crate::hub::delivery::{Delivered, Delivery};
use crate::hub::drafts::{self, Received};
use crate::store::{ChannelInfo, ChannelNo, Commit, MessageRecord, Probe, Record};

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) from_uid: Uid,
    pub(super) client_msg_no: ClientMsgNo,
    pub(super) payload: Bytes,
    pub(super) message_seq: MessageSeq,
    pub(super) repeats: SmallVec<[Waiter; 1]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) key: ChannelKey,
    pub(super) stage: Stage,
    pub(super) epoch: u64,
    pub(super) info: Option<Box<ChannelInfo>>,
    pub(super) settings: ChannelSettings,
    pub(super) channel: Option<ChannelNo>,
    pub(super) head_seq: u64,
    pub(super) standing: HashMap<Uid, KnownSender>,
    pub(super) in_flight: HashMap<u64, SmallVec<[InFlight; 1]>>,
    pub(super) in_flight_count: usize,
    pub(super) waiting: VecDeque<Work>,
    pub(super) waiting_bytes: usize,
    /// The front draft's name was looked up and is not stored.
    pub(super) front_is_new: bool,
    /// What the front draft refers to was looked up and is there.
    pub(super) front_is_checked: bool,
    /// Of a person channel: what each user lets the other do, as far as asked.
    pub(super) receptions: SmallVec<[Reception; 1]>,
    /// Of a person channel: who has had a message numbered since the lane was loaded. It counts as having written at once,
    /// while the store learns of it later.
    pub(super) wrote: SmallVec<[Uid; 1]>,
    pub(super) used_ms: u64,
}

/// What a lane must do before it can go on with its front entry.
pub(super) enum Step {
    Next,
    Ask(Job),
    Wait,
}

impl Lane {
    /// Decides the front entry.
    pub(super) fn step(
        &mut self,
        shard: u16,
        at: u32,
        (members_max, contacts_only): (usize, bool),
        turn: &mut Turn<'_>,
    ) -> Step {
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
        let sender = match self.sender(&from_uid, standing, turn) {
            Ok(sender) => sender,
            Err(job) => return Step::Ask(job),
        };
        let target = Target {
            channel_type: self.key.channel_type(),
            exists: self.channel.is_some(),
            settings: &self.settings,
            has_allow_list: self.info.as_ref().is_some_and(|info| info.allowed_count > 0),
        };
        let verdict = match authorise_send(target, sender, standing) {
            Ok(()) if !sender.is_system => match self.reception(&from_uid, contacts_only, turn) {
                Ok(received) => received.verdict(standing),
                Err(job) => return Step::Ask(job),
            },
            decided => decided,
        };
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

    /// What is known of the sender, or the question to ask first.
    fn sender(&self, uid: &Uid, standing: Standing, turn: &Turn<'_>) -> Result<Sender, Job> {
        if standing == Standing::Trusted {
            return Ok(Sender { is_system: drafts::is_system(turn.store, uid), ..Sender::default() });
        }
        let policy = turn.queue.policies().of(uid.as_str());
        match self.standing.get(uid).filter(|known| known.policy == policy) {
            Some(known) => Ok(known.sender),
            None => Err(Job::Sender {
                channel_type: self.key.channel_type(),
                channel: self.channel,
                uid: uid.clone(),
                policy,
            }),
        }
    }

    /// What the recipient of a person channel lets the sender do, or the question to ask first.
    fn reception(&self, sender: &Uid, contacts_only: bool, turn: &Turn<'_>) -> Result<Received, Job> {
        let Some(peer) = peer_of(&self.key, sender) else { return Ok(Received::OPEN) };
        let policy = turn.queue.policies().of(peer);
        let known = self.receptions.iter().find(|known| known.sender == *sender && known.policy == policy);
        match known {
            Some(known) => Ok(known.received),
            None => Err(Job::Receive {
                channel: self.channel,
                recipient: Uid::from_stored(peer),
                sender: sender.clone(),
                wrote: self.wrote.iter().any(|wrote| wrote.as_str() == peer),
                policy,
                contacts_only,
            }),
        }
    }

    /// Keeps what a recipient decided about a sender. Bounded by the two users of a pair.
    pub(super) fn remember(&mut self, reception: Reception) {
        self.receptions.retain(|known| known.sender != reception.sender);
        self.receptions.push(reception);
    }

    /// What the front draft refers to: as it is to be stored, or why not.
    pub(super) fn checked(&mut self, extras: Result<Option<Box<Extras>>, Refusal>, turn: &mut Turn<'_>) {
        match (extras, self.waiting.front_mut()) {
            (Ok(extras), Some(Work::Draft(front))) => {
                let before = front.draft.extras.as_ref().map_or(0, |extras| extras.bytes());
                let after = extras.as_ref().map_or(0, |extras| extras.bytes());
                self.waiting_bytes = self.waiting_bytes.saturating_sub(before - after.min(before));
                front.draft.extras = extras;
                self.front_is_checked = true;
            }
            (Err(refusal), Some(Work::Draft(_))) => {
                if let Some(work) = self.pop() {
                    work.refuse(refusal, turn);
                }
            }
            (_, Some(Work::Signal(_) | Work::Admin(_)) | None) => {}
        }
    }

    /// A user of a person channel has written: the peer is no stranger to them any more. Returns the flags that make the
    /// conversation a request of this user's to the other, where it becomes one now.
    fn note_written(&mut self, sender: &Uid, standing: Standing) -> Option<(Uid, ConversationFlags)> {
        let peer = peer_of(&self.key, sender)?.to_owned();
        if !self.wrote.contains(sender) {
            self.wrote.push(sender.clone());
        }
        let mut mark = None;
        for known in &mut self.receptions {
            if known.sender == *sender {
                // A back end's message is no stranger's: the sender's own next one makes the request.
                if standing != Standing::Trusted {
                    mark = known.received.mark.take();
                }
            } else if matches!(known.received.reception, Verdict::Request | Verdict::StrangerRefused) {
                known.received = Received::OPEN;
            }
        }
        mark.map(|flags| (Uid::from_stored(&peer), flags))
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
        if !self.front_is_checked
            && let Some(Work::Draft(front)) = self.waiting.front()
            && let Some(extras) = &front.draft.extras
        {
            return Step::Ask(Job::Extras {
                key: self.key.clone(),
                channel: self.channel,
                from_uid: front.draft.from_uid.clone(),
                standing: front.standing,
                extras: extras.clone(),
            });
        }
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
        (self.front_is_new, self.front_is_checked) = (false, false);
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
        (self.front_is_new, self.front_is_checked) = (false, false);
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
    pub(super) fn found(&mut self, found: Option<Box<Message>>, turn: &mut Turn<'_>) {
        #[cfg(feature = "seeded-bugs")]
        let found = found.filter(|message| {
            !crate::seeded::is(crate::seeded::Bug::ForgetDedupe)
                || message.message_id.get() > crate::seeded::started_us()
        });
        let Some(message) = found else {
            self.front_is_new = true;
            return;
        };
        let Some(Work::Draft(pending)) = self.pop() else { return };
        let same = message.payload == pending.draft.payload;
        let withheld = message.payload.is_empty() && message.state != MessageState::Live;
        // What was first said is not told once it was edited: the name decides.
        let edited = message.edited > Version::ZERO;
        let outcome = if same || withheld || edited {
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
        let PendingDraft { draft, standing, waiter } = pending;
        // The message comes last: the committer's early acks look for it there.
        let mut commit = Commit::default();
        let channel = match self.channel {
            Some(channel) => {
                // Its chat id finds a channel once something was said in it, whoever made it, and when.
                if self.head_seq == 0 {
                    commit.records.extend(alias(channel, &self.key));
                }
                channel
            }
            None => {
                let channel = turn.store.reserve_channel_no();
                commit.records.extend(created(channel, &self.key));
                self.channel = Some(channel);
                channel
            }
        };
        if let Some((uid, flags)) = self.note_written(&draft.from_uid, standing) {
            commit.records.push(Record::ConversationFlags { channel, uid, flags });
        }
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
        let bytes = draft.payload.len() + draft.extras.as_ref().map_or(0, |extras| extras.bytes()) + 256;
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
            happening: None,
            bytes,
            waiter,
        });
    }

    /// A numbered message is durable: repeats that waited get its outcome.
    pub(super) fn landed(&mut self, print: u64, message_id: MessageId, message_seq: MessageSeq, turn: &mut Turn<'_>) {
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
    pub(super) fn planned(&mut self, shard: u16, at: u32, plan: Result<Vec<Record>, Refusal>, turn: &mut Turn<'_>) {
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
            happening: None,
            bytes,
            waiter: Waiter::Version(pending.reply),
        });
    }
}

fn record_bytes(record: &Record) -> usize {
    match record {
        Record::MembersAdded { uids, .. }
        | Record::MembersRemoved { uids, .. }
        | Record::ChannelListed { uids, .. } => uids.iter().map(|uid| uid.as_str().len() + 8).sum(),
        _ => 64,
    }
}
