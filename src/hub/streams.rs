//! Messages that are streamed now: what their lanes came to, stored or not.
//!
//! Owns the open streams of the process, their bounds, whose turn it is at a message, and which messages were sent to be
//! streamed. Refuses to know the store, sessions and who may do what; how events merge is `domain::event`'s.
//!
//! Invariants: events of one message are taken one after the other, so numbers have no gaps and merged texts no holes;
//! nothing changes where a bound refuses; what is stored is never shown older than it is.
//!
//! Bounds: [`STREAMS_MAX`] and [`STREAMS_BYTES_MAX`] refuse (busy), [`STREAM_BYTES_MAX`] and `LANES_MAX` refuse (too large),
//! and after [`IDLE_MS`] without an event, as before a stop, what a stream came to is stored and the stream
//! forgotten: only a crash loses deltas.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, Uid, Version};

use crate::domain::event::{Effect, Growing, KEY_FINISH, LANES_MAX, Lane, NewEvent};
use crate::domain::message::{Message, MessageState};
use crate::domain::refusal::Refusal;
use crate::store::ChannelNo;

/// Streams that are open at once (WuKongIM's number).
pub const STREAMS_MAX: usize = 50_000;
/// Bytes of all open streams, about: some 16,000 answers of 4 KiB.
pub const STREAMS_BYTES_MAX: usize = 64 << 20;
/// Bytes that the lanes of one message come to at most.
pub const STREAM_BYTES_MAX: usize = 1 << 20;
/// How long a stream stays open without an event (WuKongIM's time).
pub const IDLE_MS: u64 = 10 * 60 * 1_000;
/// Events a lane remembers by name, so that a repeat among them changes nothing.
const RECENT_MAX: usize = 256;
/// Messages that were sent to be streamed and are remembered by name.
const NOTED_MAX: usize = 50_000;
/// What a stream takes besides its lanes, and a lane besides its state.
const OVERHEAD_BYTES: usize = 512;
/// When to try again when too much is open.
const RETRY_AFTER_FULL_MS: u32 = 1_000;

/// What an event names its message by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The channel.
    pub key: ChannelKey,
    /// Who sent it, as the event says; `None`: it does not say.
    pub from_uid: Option<Uid>,
    /// The sender's name for it.
    pub client_msg_no: ClientMsgNo,
}

/// A message that is streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its channel's number.
    pub channel: ChannelNo,
    /// Its channel.
    pub key: ChannelKey,
    /// Its place there.
    pub message_seq: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Its sender.
    pub from_uid: Uid,
    /// The sender's name for it.
    pub client_msg_no: ClientMsgNo,
}

impl Base {
    /// That of a stored message.
    #[must_use]
    pub fn of(channel: ChannelNo, message: &Message) -> Self {
        Self {
            channel,
            key: message.channel.clone(),
            message_seq: message.message_seq.get(),
            message_id: message.message_id,
            from_uid: message.from_uid.clone(),
            client_msg_no: message.client_msg_no.clone(),
        }
    }
}

#[derive(Debug)]
struct StreamLane {
    growing: Growing,
    /// Fingerprints of the last events.
    recent: VecDeque<u64>,
}

#[derive(Debug)]
struct Stream {
    base: Arc<Base>,
    /// What was stored up to here is known.
    read_at: Version,
    /// Everything up to here must be told to a session before what comes next.
    behind: Version,
    touched_ms: u64,
    lanes: Vec<StreamLane>,
    names: Vec<Name>,
    bytes: usize,
}

impl Stream {
    fn weigh(&self) -> usize {
        let lane = |lane: &StreamLane| lane.growing.bytes() + lane.recent.len() * 8 + OVERHEAD_BYTES / 2;
        self.lanes.iter().map(lane).sum::<usize>() + self.names.len() * OVERHEAD_BYTES / 2 + OVERHEAD_BYTES
    }

    fn content_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.growing.bytes()).sum()
    }

    fn at(&self, key: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.growing.state().key == key)
    }

    /// A lane of this key that there is none of.
    fn open(&self, key: &str) -> Result<Growing, Refusal> {
        // One place is kept for the end of the message.
        let max = if key == KEY_FINISH { LANES_MAX } else { LANES_MAX - 1 };
        let number = self.lanes.iter().map(|lane| lane.growing.state().number).max().map_or(0, |last| last + 1);
        if self.lanes.len() >= max || usize::from(number) >= LANES_MAX {
            return Err(Refusal::TooMany { what: "event keys", max: LANES_MAX - 1 });
        }
        Ok(Growing::new(number, key))
    }

    fn is_over(&self) -> bool {
        !self.lanes.is_empty() && self.lanes.iter().all(|lane| lane.growing.state().status.is_over())
    }
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<MessageId, Stream>,
    names: HashMap<Name, MessageId>,
    bytes: usize,
    noted: HashMap<ClientMsgNo, (ChannelKey, Uid)>,
    noted_order: VecDeque<ClientMsgNo>,
}

impl State {
    fn forget(&mut self, message_id: MessageId) {
        if let Some(stream) = self.open.remove(&message_id) {
            self.bytes = self.bytes.saturating_sub(stream.bytes);
            for name in &stream.names {
                self.names.remove(name);
            }
        }
    }

    fn reweigh(&mut self, message_id: MessageId) {
        if let Some(stream) = self.open.get_mut(&message_id) {
            let now = stream.weigh();
            self.bytes = (self.bytes + now).saturating_sub(stream.bytes);
            stream.bytes = now;
        }
    }
}

/// What an event comes to.
#[derive(Debug)]
pub enum Judged {
    /// It changes nothing: it was taken before, or its lane is over. The lane as it stands, without content.
    Settled(Box<Lane>),
    /// It changes its lane.
    News,
}

/// What storing an event changes: see [`Streams::plan`].
#[derive(Debug)]
pub struct Plan {
    /// The lanes as they will be; that of the event comes last.
    pub lanes: Vec<Growing>,
}

/// The open streams. See the module's head.
#[derive(Debug)]
pub struct Streams {
    turns: Box<[tokio::sync::Mutex<()>]>,
    hasher: foldhash::quality::RandomState,
    state: Mutex<State>,
}

impl Default for Streams {
    fn default() -> Self {
        // As many messages as have an event under way at once: a turn is a commit at most, some milliseconds.
        let turns = (0..1_024).map(|_| tokio::sync::Mutex::new(())).collect();
        Self { turns, hasher: foldhash::quality::RandomState::default(), state: Mutex::default() }
    }
}

impl Streams {
    /// Held while an event of this message is taken.
    pub fn turn_of(&self, message_id: MessageId) -> &tokio::sync::Mutex<()> {
        let hash = self.hasher.hash_one(message_id.get());
        &self.turns[(hash % self.turns.len() as u64) as usize]
    }

    /// Remembers who sent a message that is to be streamed, and where to, for events that do not say it.
    pub fn note(&self, key: ChannelKey, from_uid: Uid, client_msg_no: ClientMsgNo) {
        let mut state = self.state.lock();
        if state.noted.insert(client_msg_no.clone(), (key, from_uid)).is_none() {
            state.noted_order.push_back(client_msg_no);
        }
        if state.noted_order.len() > NOTED_MAX
            && let Some(oldest) = state.noted_order.pop_front()
        {
            state.noted.remove(&oldest);
        }
    }

    /// Who sent the message of this name to be streamed, and where to, the last time there was one.
    pub fn noted(&self, client_msg_no: &ClientMsgNo) -> Option<(ChannelKey, Uid)> {
        self.state.lock().noted.get(client_msg_no).cloned()
    }

    /// The message of a name, while it is streamed.
    pub fn find(&self, name: &Name) -> Option<Arc<Base>> {
        let state = self.state.lock();
        let message_id = state.names.get(name)?;
        state.open.get(message_id).map(|stream| stream.base.clone())
    }

    /// What was stored up to which version is known of a stream.
    pub fn read_at(&self, message_id: MessageId) -> Option<Version> {
        self.state.lock().open.get(&message_id).map(|stream| stream.read_at)
    }

    /// Everything up to here must be told before what comes next of this message.
    pub fn behind(&self, message_id: MessageId) -> Version {
        self.state.lock().open.get(&message_id).map_or(message_id, |stream| stream.behind)
    }

    /// Opens a stream, or brings it up to what the store says.
    ///
    /// # Errors
    /// `Busy`: too many are open.
    pub fn put(
        &self,
        base: &Arc<Base>,
        name: Name,
        lanes: &[Lane],
        read_at: Version,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let message_id = base.message_id;
        let is_full = state.open.len() >= STREAMS_MAX || state.bytes >= STREAMS_BYTES_MAX;
        if is_full && !state.open.contains_key(&message_id) {
            return Err(Refusal::Busy { retry_after_ms: RETRY_AFTER_FULL_MS });
        }
        let stream = state.open.entry(message_id).or_insert_with(|| Stream {
            base: base.clone(),
            read_at,
            behind: message_id,
            touched_ms: now_ms,
            lanes: Vec::new(),
            names: Vec::new(),
            bytes: 0,
        });
        stream.read_at = read_at;
        for stored in lanes {
            match stream.at(&stored.key) {
                Some(at) if stored.seq > stream.lanes[at].growing.state().seq => {
                    stream.lanes[at].growing = Growing::resume(stored);
                }
                Some(_) => {}
                None => stream.lanes.push(StreamLane { growing: Growing::resume(stored), recent: VecDeque::new() }),
            }
        }
        // A message goes by few names: with its sender and without. A caller who makes up more is looked up each time.
        if stream.names.len() < 4 && !stream.names.contains(&name) {
            stream.names.push(name.clone());
            state.names.insert(name, message_id);
        }
        state.reweigh(message_id);
        Ok(())
    }

    /// Ends a stream whose message has nothing to show any more.
    pub fn forget(&self, message_id: MessageId) {
        self.state.lock().forget(message_id);
    }

    /// Whether an event is news to its lane.
    ///
    /// # Errors
    /// `Internal`: the stream is not open.
    pub fn judge(&self, message_id: MessageId, event: &NewEvent) -> Result<Judged, Refusal> {
        let fingerprint = self.hasher.hash_one(&event.id);
        let state = self.state.lock();
        let stream = state.open.get(&message_id).ok_or(Refusal::Internal)?;
        let Some(lane) = stream.at(&event.key).map(|at| &stream.lanes[at]) else { return Ok(Judged::News) };
        let known = lane.growing.ended_with(&event.id) || lane.recent.contains(&fingerprint);
        match known || lane.growing.state().status.is_over() {
            true => Ok(Judged::Settled(Box::new(lane.growing.state().clone()))),
            false => Ok(Judged::News),
        }
    }

    /// Merges a delta. Returns the lane without its content.
    ///
    /// # Errors
    /// `TooMany`, `TooLarge`, `Busy`: nothing changed.
    pub fn add(&self, message_id: MessageId, event: &NewEvent, now_ms: u64) -> Result<Lane, Refusal> {
        let fingerprint = self.hasher.hash_one(&event.id);
        let mut state = self.state.lock();
        let more = event.payload.len() + event.id.len() + event.event_type.len();
        let full = state.bytes + more > STREAMS_BYTES_MAX;
        let stream = state.open.get_mut(&message_id).ok_or(Refusal::Internal)?;
        let bytes = stream.content_bytes() + more;
        if bytes > STREAM_BYTES_MAX {
            return Err(Refusal::TooLarge { field: "payload", bytes, max: STREAM_BYTES_MAX });
        }
        if full {
            return Err(Refusal::Busy { retry_after_ms: RETRY_AFTER_FULL_MS });
        }
        let at = match stream.at(&event.key) {
            Some(at) => at,
            None => {
                let growing = stream.open(&event.key)?;
                stream.lanes.push(StreamLane { growing, recent: VecDeque::new() });
                stream.lanes.len() - 1
            }
        };
        let lane = &mut stream.lanes[at];
        lane.growing.take(event, None);
        remember(&mut lane.recent, fingerprint);
        stream.touched_ms = now_ms;
        let taken = lane.growing.state().clone();
        state.reweigh(message_id);
        Ok(taken)
    }

    /// What storing an event will change. Nothing changes here.
    ///
    /// # Errors
    /// `TooMany`, `TooLarge`, `Busy`: what is open has no room for more; an event that brings nothing always has.
    pub fn plan(&self, message_id: MessageId, event: &NewEvent) -> Result<Plan, Refusal> {
        let state = self.state.lock();
        let stream = state.open.get(&message_id).ok_or(Refusal::Internal)?;
        let last = stream.lanes.iter().map(|lane| lane.growing.state().seq).max().unwrap_or(0);
        let mut lanes = Vec::new();
        if event.effect() == Effect::Finish {
            let open = |lane: &&StreamLane| !lane.growing.state().status.is_over();
            for lane in stream.lanes.iter().filter(open) {
                let mut growing = lane.growing.clone();
                growing.finish(event, last + 1 + lanes.len() as u64);
                lanes.push(growing);
            }
        }
        let (mut growing, before) = match stream.at(&event.key) {
            Some(at) => (stream.lanes[at].growing.clone(), stream.lanes[at].growing.bytes()),
            None => (stream.open(&event.key)?, 0),
        };
        growing.take(event, Some(last + 1 + lanes.len() as u64));
        let bytes = stream.content_bytes() - before + growing.bytes();
        if bytes > STREAM_BYTES_MAX {
            return Err(Refusal::TooLarge { field: "payload", bytes, max: STREAM_BYTES_MAX });
        }
        let more = growing.bytes().saturating_sub(before);
        if !event.payload.is_empty() && state.bytes + more > STREAMS_BYTES_MAX {
            return Err(Refusal::Busy { retry_after_ms: RETRY_AFTER_FULL_MS });
        }
        lanes.push(growing);
        Ok(Plan { lanes })
    }

    /// A plan is stored, up to `version`. A stream whose lanes are all over is forgotten.
    pub fn settle(&self, message_id: MessageId, event: &NewEvent, plan: Plan, version: Version, now_ms: u64) {
        let fingerprint = self.hasher.hash_one(&event.id);
        let mut state = self.state.lock();
        let Some(stream) = state.open.get_mut(&message_id) else { return };
        for growing in plan.lanes {
            match stream.at(&growing.state().key) {
                Some(at) => stream.lanes[at].growing = growing,
                None => stream.lanes.push(StreamLane { growing, recent: VecDeque::new() }),
            }
        }
        if let Some(at) = stream.at(&event.key) {
            remember(&mut stream.lanes[at].recent, fingerprint);
        }
        stream.behind = stream.behind.max(version);
        stream.touched_ms = now_ms;
        if stream.is_over() {
            return state.forget(message_id);
        }
        state.reweigh(message_id);
    }

    /// Puts what is open of messages over what is stored of them.
    pub fn show<'a>(&self, messages: impl IntoIterator<Item = &'a mut Message>) {
        if self.state.lock().open.is_empty() {
            return;
        }
        for message in messages.into_iter().filter(|message| message.state == MessageState::Live) {
            // Written as JSON without the lock, under which every event waits.
            let lanes: Vec<Growing> = match self.state.lock().open.get(&message.message_id) {
                Some(stream) => stream.lanes.iter().map(|lane| lane.growing.clone()).collect(),
                None => continue,
            };
            for growing in lanes {
                let open = growing.state();
                match message.lanes.iter_mut().find(|stored| stored.number == open.number) {
                    // What was stored a moment ago is newer.
                    Some(stored) if stored.status.is_over() || stored.seq > open.seq => {}
                    Some(stored) => *stored = growing.lane(),
                    None => message.lanes.push(growing.lane()),
                }
            }
        }
    }

    /// Streams without an event for `idle_ms`.
    pub fn idle(&self, now_ms: u64, idle_ms: u64) -> Vec<MessageId> {
        let state = self.state.lock();
        let is_idle = |stream: &Stream| now_ms.saturating_sub(stream.touched_ms) >= idle_ms;
        state.open.iter().filter(|(_, stream)| is_idle(stream)).map(|(message_id, _)| *message_id).collect()
    }

    /// The lanes of a stream that deltas took further than what is stored, as they are to be stored before it is forgotten.
    /// `None`: it is not open.
    pub fn unsaved(&self, message_id: MessageId) -> Option<(Arc<Base>, Vec<Growing>)> {
        let state = self.state.lock();
        let stream = state.open.get(&message_id)?;
        let mut last = stream.lanes.iter().map(|lane| lane.growing.state().seq).max().unwrap_or(0);
        let unsaved = stream.lanes.iter().filter(|lane| lane.growing.is_ahead()).map(|lane| {
            last += 1;
            lane.growing.kept(last)
        });
        Some((stream.base.clone(), unsaved.collect()))
    }

    /// How many are open, and their bytes.
    pub fn figures(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.open.len(), state.bytes)
    }
}

fn remember(recent: &mut VecDeque<u64>, fingerprint: u64) {
    if recent.len() >= RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(fingerprint);
}

#[cfg(test)]
mod tests;
