//! Events of messages: WuKongIM's `/message/event` and `/message/eventsync` (wukongim-http.md 5.6).
//!
//! Owns the road of an event: its message is found, its turn comes, a delta is merged in memory and pushed, anything else is
//! committed and pushed by the committer. Who may send events to a message is decided here, from rules of the domain: a back
//! end, and the message's own sender as long as it may edit. How lanes merge is `domain::event`'s, what is open
//! `hub::streams`'.
//!
//! Invariant: what is pushed of a message comes behind the message, and in the order it was taken.

use std::sync::Arc;

use protocol::ids::{ChannelKey, ClientMsgNo, Uid, Version};

use super::{MessageLimits, Subject, message_at, subject};
use crate::clock;
use crate::domain::channel::authorise_edit;
use crate::domain::event::{Effect, Lane, NewEvent};
use crate::domain::message::{Message, MessageState, fingerprint};
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::hub::conversations::{readable, refuse};
use crate::hub::delivery::Happening;
use crate::hub::sequencer::busy;
use crate::hub::shard::ShardEvent;
use crate::hub::streams::{Base, Judged, Name};
use crate::hub::{Hub, RETRY_AFTER_DRAIN_MS, Reader};
use crate::store::{ChannelInfo, Commit, Probe, Record, Store};

/// Records in one commit of streams that are forgotten, about; and their bytes.
const KEPT_RECORDS_MAX: usize = 512;
/// See [`KEPT_RECORDS_MAX`].
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The message's sender.
    pub from_uid: Uid,
    /// The lane after it, without its content. `seq` is 0 while nothing of the lane is stored.
    pub lane: Lane,
}

/// Who sends an event, and to which message.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Who.
    pub actor: Reader,
    /// To which message.
    pub to: Name,
}

/// The message a name means: of the sender it says, else of a member, else of a system user. Fingerprints are compared in
/// memory; a read for each that may be it.
fn find(store: &dyn Store, info: &ChannelInfo, name: &Name) -> Result<Option<Message>, Refusal> {
    let look = |sender: &Uid| -> Result<Option<Message>, Refusal> {
        if store.probe(info.channel, fingerprint(sender, &name.client_msg_no)) == Probe::Absent {
            return Ok(None);
        }
        match store.message_by_client_msg_no(info.channel, sender, &name.client_msg_no).map_err(refuse)? {
            Some(found) => message_at(store, info, found.message_seq.get()),
            None => Ok(None),
        }
    };
    store.warm(info.channel).map_err(refuse)?;
    if let Some(from_uid) = &name.from_uid
        && let Some(found) = look(from_uid)?
    {
        return Ok(Some(found));
    }
    let mut senders = store.members(info.channel).map_err(refuse)?;
    senders.push(Uid::from_stored(SYSTEM_UID));
    senders.extend(store.system_users());
    for sender in senders {
        if let Some(found) = look(&sender)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_base(store: &dyn Store, sending: &Sending) -> Result<Base, Refusal> {
    let unknown = Refusal::NotFound { what: "message" };
    let info = match readable(store, &sending.actor, &sending.to.key) {
        Ok(Some((info, _))) => info,
        Ok(None) | Err(Refusal::ChannelNotFound) => return Err(unknown),
        Err(refusal) => return Err(refusal),
    };
    let found = find(store, &info, &sending.to)?.ok_or(unknown)?;
    match found.state {
        // A damaged record does not tell whose it is.
        MessageState::Damaged => Err(Refusal::MessageGone),
        MessageState::Live | MessageState::Expired | MessageState::Revoked => Ok(Base::of(info.channel, &found)),
    }
}

/// Whether the actor may send events to a message, and what is stored of its lanes.
fn check(
    store: &dyn Store,
    actor: &Reader,
    base: &Base,
    now_ms: u64,
    limits: MessageLimits,
) -> Result<(Version, Vec<Lane>), Refusal> {
    // Taken first: what changes from here on is looked at again.
    let read_at = store.version();
    let found: Subject = subject(store, actor, &base.key, base.message_seq)?;
    authorise_edit(found.actor, found.is_of(actor), found.age_s(now_ms), limits.edit_within_s)?;
    found.require_live()?;
    found.require_writable(store, actor, &base.key, limits.contacts_only)?;
    Ok((read_at, found.message.lanes))
}

impl Hub {
    /// Remembers that a message was sent to be streamed, for events that name neither its sender nor, of a pair, both.
    pub fn note_stream(&self, key: ChannelKey, from_uid: Uid, client_msg_no: ClientMsgNo) {
        self.shared.streams.note(key, from_uid, client_msg_no);
    }

    /// Who sent the message of this name to be streamed, and where to, the last time there was one since the start.
    #[must_use]
    pub fn noted_stream(&self, client_msg_no: &ClientMsgNo) -> Option<(ChannelKey, Uid)> {
        self.shared.streams.noted(client_msg_no)
    }

    /// Takes an event of a message. A repeat, and whatever comes to a lane that is over, changes nothing and is told the
    /// lane as it stands. When it returns, what is not a delta is on disk.
    ///
    /// # Errors
    /// `NotFound`, `MessageGone`; `NotMember`, `Forbidden`, `TooLate` and what a send would be refused for, for a user;
    /// `TooLarge`, `TooMany`, `Busy`; the store.
    pub async fn message_event(&self, sending: Sending, event: NewEvent) -> Result<Taken, Refusal> {
        self.refuse_draining()?;
        let max = self.shared.limits.of(sending.to.key.channel_type()).payload_bytes_max;
        if event.payload.len() > max {
            return Err(Refusal::TooLarge { field: "payload", bytes: event.payload.len(), max });
        }
        let hub = self.clone();
        // A task of its own: a caller who goes away must not leave what is open behind what is stored.
        let taken = self.shared.blocking.spawn(async move { hub.take_event(sending, event).await }).await;
        taken.unwrap_or_else(|error| {
            tracing::error!(%error, "taking an event panicked");
            Err(Refusal::Internal)
        })
    }

    async fn take_event(&self, sending: Sending, event: NewEvent) -> Result<Taken, Refusal> {
        let streams = &self.shared.streams;
        let now_ms = clock::now_ms();
        let base = match streams.find(&sending.to) {
            Some(base) => base,
            None => {
                let asked = sending.clone();
                Arc::new(self.ask(move |store| find_base(store, &asked)).await?)
            }
        };
        let message_id = base.message_id;
        let _turn = streams.turn_of(message_id).lock().await;
        let unchanged = |read_at: &Version| self.shared.store.changed_among(&[base.channel], *read_at).is_empty();
        let is_known = streams.read_at(message_id).as_ref().is_some_and(unchanged);
        if !is_known || sending.actor != Reader::Trusted || streams.find(&sending.to).is_none() {
            let (asked, actor) = (base.clone(), sending.actor.clone());
            let limits = self.shared.limits.messages;
            let checked = self.ask(move |store| check(store, &actor, &asked, now_ms, limits)).await;
            if checked == Err(Refusal::MessageGone) {
                streams.forget(message_id);
            }
            let (read_at, lanes) = checked?;
            streams.put(&base, sending.to, &lanes, read_at, now_ms)?;
        }
        let from_uid = base.from_uid.clone();
        if let Judged::Settled(lane) = streams.judge(message_id, &event)? {
            return Ok(Taken { from_uid, lane: *lane });
        }
        let lane = match event.effect() {
            Effect::Delta => self.pass_delta(base, &event, now_ms).await?,
            Effect::Snapshot | Effect::End(_) | Effect::Finish | Effect::Told => {
                self.store_event(base, &event, now_ms).await?
            }
        };
        Ok(Taken { from_uid, lane })
    }

    /// Merges and pushes. There is no waiting between the two.
    async fn pass_delta(&self, base: Arc<Base>, event: &NewEvent, now_ms: u64) -> Result<Lane, Refusal> {
        let streams = &self.shared.streams;
        if !self.shared.shards.iter().all(|shard| shard.inbox.has_room()) {
            return Err(busy());
        }
        if !self.shared.queue.announced(streams.behind(base.message_id)).await {
            return Err(Refusal::Draining { retry_after_ms: RETRY_AFTER_DRAIN_MS });
        }
        let lane = streams.add(base.message_id, event, now_ms)?;
        let happening = Arc::new(Happening::new(base, event, lane.clone()));
        for shard in &self.shared.shards {
            shard.inbox.push(ShardEvent::Happened(happening.clone()));
        }
        Ok(lane)
    }

    /// Commits; the committer pushes.
    async fn store_event(&self, base: Arc<Base>, event: &NewEvent, now_ms: u64) -> Result<Lane, Refusal> {
        if !self.shared.queue.has_room() {
            return Err(busy());
        }
        let message_id = base.message_id;
        let plan = self.shared.streams.plan(message_id, event)?;
        let lanes: Vec<Lane> = plan.lanes.iter().map(crate::domain::event::Growing::lane).collect();
        let Some(lane) = lanes.last().cloned() else { return Err(Refusal::Internal) };
        let (channel, seq) = (base.channel, base.message_seq);
        let record = |lane| Record::MessageEvent { channel, seq, lane: Box::new(lane) };
        let records: smallvec::SmallVec<[Record; 1]> = lanes.into_iter().map(record).collect();
        let more = records.len() as u64 - 1;
        let key = base.key.clone();
        let happening = Happening::new(base, event, lane.clone());
        let version = self.commit_with(Some(key), Commit { records }, (0, 0), Some(Box::new(happening))).await?;
        self.shared.streams.settle(message_id, event, plan, version.plus(more), now_ms);
        Ok(Lane { snapshot: bytes::Bytes::new(), ..lane })
    }

    /// What is stored of a message's lanes, by the number of their last event; nothing of a message there is none of, or
    /// that has nothing to show. Lanes that `viewer` (`None`: a back end that asks for all) does not see are left out.
    ///
    /// # Errors
    /// `NotMember` for a user, the store.
    pub async fn message_lanes(&self, sending: Sending, viewer: Option<String>) -> Result<Vec<Lane>, Refusal> {
        self.ask(move |store| {
            let info = match readable(store, &sending.actor, &sending.to.key) {
                Ok(Some((info, _))) => info,
                Ok(None) | Err(Refusal::ChannelNotFound) => return Ok(Vec::new()),
                Err(refusal) => return Err(refusal),
            };
            let Some(found) = find(store, &info, &sending.to)? else { return Ok(Vec::new()) };
            let mut lanes = found.lanes;
            if let Some(viewer) = &viewer {
                lanes.retain(|lane| lane.is_shown_to(&found.from_uid, viewer));
            }
            lanes.sort_by_key(|lane| lane.seq);
            Ok(lanes)
        })
        .await
    }

    /// Puts what is open of messages' lanes over what is stored of them: what came of events that are not stored yet.
    pub fn show_open_lanes<'a>(&self, messages: impl IntoIterator<Item = &'a mut Message>) {
        self.shared.streams.show(messages);
    }

    /// Stores what streams without an event for `idle_ms` came to, forgets them, and counts the others. What cannot be stored
    /// now stays open.
    pub async fn sweep_streams(&self, now_ms: u64, idle_ms: u64) {
        while self.keep_streams(now_ms, idle_ms).await {}
        let (streams, bytes) = self.shared.streams.figures();
        self.shared.metrics.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        self.shared.metrics.stream_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// As many as fill a lot. `false`: there is none left that can be kept now.
    async fn keep_streams(&self, now_ms: u64, idle_ms: u64) -> bool {
        let streams = &self.shared.streams;
        let (mut turns, mut kept, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut commit = Commit::default();
        for message_id in streams.idle(now_ms, idle_ms) {
            if commit.records.len() >= KEPT_RECORDS_MAX || bytes >= KEPT_BYTES_MAX {
                break;
            }
            // Whoever has the turn goes on with the stream; two that share one come one after the other.
            let Ok(turn) = streams.turn_of(message_id).try_lock() else { continue };
            let Some((base, lanes)) = streams.unsaved(message_id) else { continue };
            for growing in lanes {
                let lane = Box::new(growing.lane());
                bytes += lane.bytes();
                commit.records.push(Record::MessageEvent { channel: base.channel, seq: base.message_seq, lane });
            }
            turns.push(turn);
            kept.push(message_id);
        }
        let is_stored = commit.records.is_empty() || self.commit(None, commit, (0, 0)).await.is_ok();
        if !is_stored || kept.is_empty() {
            return false;
        }
        kept.into_iter().for_each(|message_id| streams.forget(message_id));
        true
    }
}
