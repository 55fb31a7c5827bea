//! One bounded queue per session, and what happens when its reader is slow.
//!
//! Two parts: control (acks, replies, gap notices), which goes first and is bounded by the requests a session may have in
//! flight; and live (deliveries, events), bounded in bytes and entries. Policy of the live part: over its bound the whole
//! backlog is dropped and remembered as gaps (channel, first missing, head); the session goes on once it has drained
//! (delivered-or-told). Signals and deltas are dropped from half of the bound on. Nothing ever waits for room here.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, Uid, Version};

use super::conversations::{HistoryPage, SyncAnswer, UnreadExplained};
use super::delivery::{Change, Delivery, Happening, Signal};
use crate::domain::message::Durability;
use crate::domain::refusal::Refusal;

/// Bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Bytes of live entries.
    pub bytes_max: usize,
    /// Count of live entries.
    pub entries_max: usize,
}

impl OutboxLimits {
    /// The bounds of a session whose wire has no notice of a gap: falling behind costs it its connection, and its client a
    /// reconnect and a sync, so it gets four times the room before.
    pub fn without_notices(&self) -> Self {
        Self { bytes_max: self.bytes_max.saturating_mul(4), entries_max: self.entries_max.saturating_mul(4) }
    }
}

/// Gaps of more channels than this are told as one "sync again".
const GAP_CHANNELS_MAX: usize = 256;

/// An answer or notice to one session.
#[derive(Debug)]
pub enum Control {
    /// A send was stored.
    Ack {
        /// The sender's number for it.
        client_seq: u64,
        /// The name the server made; `None`: the sender's own.
        client_msg_no: Option<ClientMsgNo>,
        /// Its id.
        message_id: MessageId,
        /// Its seq; 0: not stored.
        message_seq: u64,
        /// When it was committed, or passed on; Unix milliseconds.
        timestamp_ms: u64,
        /// What the ack promises.
        level: Durability,
        /// The first outcome again.
        duplicate: bool,
    },
    /// A request was refused.
    Refused {
        /// The request; `None`: none can be named.
        client_seq: Option<u64>,
        /// Why.
        refusal: Refusal,
    },
    /// A conversation was changed as asked.
    Done {
        /// The request.
        client_seq: u64,
        /// The change's version.
        version: Version,
        /// Unread now.
        unread: u64,
        /// Read position now.
        read_to_msg_seq: u64,
    },
    /// Answer of a sync.
    Synced {
        /// The request.
        client_seq: u64,
        /// The version it named: what the client keeps until the last page.
        since: Version,
        /// The answer.
        answer: Box<SyncAnswer>,
    },
    /// Answer of a history request.
    Messages {
        /// The request.
        client_seq: u64,
        /// The channel.
        key: ChannelKey,
        /// The page.
        page: Box<HistoryPage>,
    },
    /// Answer of an explanation.
    Explained {
        /// The request.
        client_seq: u64,
        /// The channel.
        key: ChannelKey,
        /// The explanation.
        explained: Box<UnreadExplained>,
    },
    /// Answer of a presence request.
    Peers {
        /// The request.
        client_seq: u64,
        /// Those of the asked who share a channel with the asker.
        peers: Vec<Peer>,
    },
    /// A channel's messages from `first_missing_seq` to `head_seq` were not delivered.
    Gap {
        /// The channel.
        key: ChannelKey,
        /// First seq that was dropped.
        first_missing_seq: u64,
        /// Last seq that was dropped.
        head_seq: u64,
    },
    /// Changes were not delivered: sync again.
    Resync {
        /// The latest version of what was dropped.
        version: Version,
    },
    /// Bytes of the codec's own: connected, pong, ping.
    Raw(bytes::Bytes),
    /// An answer to a request, as the codec wrote it: what only one wire asks for is no word of the hub's.
    Answer(bytes::Bytes),
}

/// A user as a peer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: Uid,
    /// Has a session now.
    pub online: bool,
    /// When the last session ended, Unix milliseconds; 0: not since this server started.
    pub last_seen_ms: u64,
}

/// Something that happened, on its way to one session.
#[derive(Debug, Clone)]
pub enum Live {
    /// Messages.
    Delivery(Arc<Delivery>),
    /// A durable change.
    Change(Arc<Change>),
    /// A signal.
    Signal(Arc<Signal>),
    /// A peer came or went.
    Presence(Arc<Peer>),
    /// A message's stream went on.
    Happening(Arc<Happening>),
}

impl Live {
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.bytes,
            Self::Signal(signal) => signal.data.len() + 100,
            Self::Change(change) => change.bytes(),
            Self::Presence(_) => 150,
            Self::Happening(happening) => happening.bytes(),
        }
    }
}

#[derive(Debug, Default)]
struct Lag {
    since_ms: u64,
    channels: HashMap<ChannelKey, (u64, u64)>,
    resync: Version,
}

impl Lag {
    fn note(&mut self, live: &Live) {
        match live {
            Live::Delivery(delivery) => {
                let Some(first) = delivery.first_seq() else { return };
                let last = delivery.last_seq();
                if self.channels.len() >= GAP_CHANNELS_MAX && !self.channels.contains_key(&delivery.key) {
                    self.resync = self.resync.max(delivery.messages.last().map_or(Version::ZERO, |m| m.message_id));
                    return;
                }
                let gap = self.channels.entry(delivery.key.clone()).or_insert((first, last));
                gap.0 = gap.0.min(first);
                gap.1 = gap.1.max(last);
            }
            Live::Change(change) => {
                self.resync = self.resync.max(change.version());
            }
            // A delta that was dropped is in what its lane comes to.
            Live::Happening(happening) => self.resync = self.resync.max(happening.version),
            Live::Signal(_) | Live::Presence(_) => {}
        }
    }
}

/// A session's outgoing queue.
#[derive(Debug, Default)]
pub struct Outbox {
    control: VecDeque<Control>,
    live: VecDeque<Live>,
    live_bytes: usize,
    lag: Option<Box<Lag>>,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.live.is_empty()
    }

    /// Live bytes that wait.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Control entries that wait.
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Since when the session has been missing deliveries, in the shard's milliseconds.
    pub fn lagging_since_ms(&self) -> Option<u64> {
        self.lag.as_ref().map(|lag| lag.since_ms)
    }

    /// Adds an answer or notice.
    pub fn push_control(&mut self, control: Control) {
        self.control.push_back(control);
    }

    /// Adds a notice before everything else: the first frame of a session.
    pub fn push_control_front(&mut self, control: Control) {
        self.control.push_front(control);
    }

    /// Adds something that happened. Returns how many entries were dropped for it.
    pub fn push_live(&mut self, live: Live, limits: &OutboxLimits, now_ms: u64) -> usize {
        let bytes = live.bytes();
        let ephemeral = match &live {
            Live::Signal(_) | Live::Presence(_) => true,
            Live::Happening(happening) => happening.version == Version::ZERO,
            Live::Delivery(_) | Live::Change(_) => false,
        };
        if let Some(lag) = &mut self.lag {
            lag.note(&live);
            return 1;
        }
        if ephemeral && (self.live_bytes + bytes > limits.bytes_max / 2 || self.live.len() >= limits.entries_max / 2) {
            return 1;
        }
        // One entry always fits an empty queue: a delivery joined from a large lot must not starve a healthy reader.
        let full = self.live_bytes + bytes > limits.bytes_max || self.live.len() >= limits.entries_max;
        if full && !self.live.is_empty() {
            let mut lag = Box::new(Lag { since_ms: now_ms, ..Lag::default() });
            let dropped = self.live.len() + 1;
            for waiting in self.live.drain(..) {
                lag.note(&waiting);
            }
            lag.note(&live);
            self.live = VecDeque::new();
            self.live_bytes = 0;
            self.lag = Some(lag);
            return dropped;
        }
        self.live.push_back(live);
        self.live_bytes += bytes;
        0
    }

    /// The next answer or notice.
    pub fn pop_control(&mut self) -> Option<Control> {
        self.control.pop_front()
    }

    /// What waits in the live part, oldest first.
    pub fn live(&self) -> impl ExactSizeIterator<Item = &Live> {
        self.live.iter()
    }

    /// Takes the oldest live entries that were written.
    pub fn pop_live(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(live) = self.live.pop_front() {
                self.live_bytes = self.live_bytes.saturating_sub(live.bytes());
            }
        }
    }

    /// Once everything has drained: turns what was dropped into notices and goes on live. Returns how many notices.
    pub fn tell_gaps(&mut self) -> usize {
        if !self.is_empty() {
            return 0;
        }
        let Some(lag) = self.lag.take() else { return 0 };
        for (key, (first_missing_seq, head_seq)) in lag.channels {
            self.control.push_back(Control::Gap { key, first_missing_seq, head_seq });
        }
        if lag.resync > Version::ZERO {
            self.control.push_back(Control::Resync { version: lag.resync });
        }
        self.control.len()
    }

    /// Gives back memory an idle session does not need.
    pub fn shrink(&mut self) {
        if self.control.is_empty() {
            self.control = VecDeque::new();
        }
        if self.live.is_empty() {
            self.live = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::delivery::Delivered;
    use super::*;
    use crate::domain::message::MessageFlags;

    fn delivery(channel: &str, seq: u64, bytes: usize) -> Live {
        let (a, b) = (Uid::new(channel).expect("uid"), Uid::new("z").expect("uid"));
        let message = Delivered {
            extras: None,
            message_seq: seq,
            message_id: Version::new(1_000 + seq),
            from_uid: a.clone(),
            client_msg_no: ClientMsgNo::new("n").expect("no"),
            flags: MessageFlags::default(),
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            timestamp_ms: 0,
            payload: Bytes::from(vec![0; bytes]),
            origin: None,
        };
        Live::Delivery(Arc::new(Delivery::new(None, ChannelKey::person(&a, &b), vec![message])))
    }

    const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 1_000, entries_max: 8 };

    #[test]
    fn overflow_becomes_one_gap_per_channel_and_then_live_again() {
        let mut outbox = Outbox::default();
        for seq in 1..=4 {
            assert_eq!(outbox.push_live(delivery("a", seq, 100), &LIMITS, 7), 0);
        }
        assert_eq!(outbox.push_live(delivery("b", 9, 100), &LIMITS, 7), 0);
        assert_eq!(outbox.push_live(delivery("a", 5, 100), &LIMITS, 8), 6);
        assert_eq!(outbox.lagging_since_ms(), Some(8));
        assert_eq!(outbox.push_live(delivery("a", 6, 100), &LIMITS, 9), 1);
        assert_eq!(outbox.tell_gaps(), 2);
        let mut gaps = Vec::new();
        while let Some(Control::Gap { key, first_missing_seq, head_seq }) = outbox.pop_control() {
            gaps.push((key.id_for("z").to_owned(), first_missing_seq, head_seq));
        }
        gaps.sort();
        assert_eq!(gaps, [("a".to_owned(), 1, 6), ("b".to_owned(), 9, 9)]);
        assert_eq!(outbox.push_live(delivery("a", 7, 100), &LIMITS, 9), 0);
        assert_eq!(outbox.live().count(), 1);
    }

    #[test]
    fn gaps_wait_until_everything_has_drained() {
        let mut outbox = Outbox::default();
        for seq in 1..=20 {
            outbox.push_live(delivery("a", seq, 100), &LIMITS, 1);
        }
        outbox.push_control(Control::Resync { version: Version::ZERO });
        assert_eq!(outbox.tell_gaps(), 0);
        outbox.pop_control();
        assert_eq!(outbox.tell_gaps(), 1);
    }
}
