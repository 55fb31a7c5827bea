//! What travels from the committer to the sessions: a lot's messages, joined by channel, and its other changes.
//!
//! Encoding happens once per wire kind and side: the first writer that needs it fills a slot and the rest clone the bytes.
//! The hub never learns a codec; it only keeps the slots.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageId, Uid, Version, bare_id};
use smallvec::SmallVec;

use super::sessions::SessionId;
use super::streams::Base;
use crate::domain::channel::{ChannelProfile, Role};
use crate::domain::conversation::ConversationFlags;
use crate::domain::event::{Lane, NewEvent};
use crate::domain::message::{Extras, MessageFlags, Reaction};
use crate::store::ChannelNo;

/// How many wire kinds share encoded bytes (native MessagePack, native JSON, WuKongIM's JSON-RPC).
pub const WIRE_KINDS: usize = 3;
/// How many wires share what they prepare before each session's own encryption (the layouts of WKProto's RECV).
pub const PREPARED_KINDS: usize = 4;

/// What a wire prepared: the hub keeps it and never looks into it.
type Prepared = OnceLock<Box<dyn Any + Send + Sync>>;

/// Which of the two users of a person channel looks at it; the first side for every other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The canonical id's first user, or any member of another type.
    First,
    /// The canonical id's second user.
    Second,
}

/// One message on its way to the members who are online.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Position in its channel; 0 for one that is not stored.
    pub message_seq: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Its sender.
    pub from_uid: Uid,
    /// The sender's name for it.
    pub client_msg_no: ClientMsgNo,
    /// The header flags.
    pub flags: MessageFlags,
    /// Third parties' byte.
    pub setting: u8,
    /// Topic, empty for none.
    pub topic: String,
    /// Seconds until it expires; 0: never.
    pub expire_s: u32,
    /// When it was committed (or received, when not stored), Unix milliseconds.
    pub timestamp_ms: u64,
    /// The content.
    pub payload: Bytes,
    /// What it refers to.
    pub extras: Option<Box<Extras>>,
    /// The session that sent it, which gets an ack in place of a delivery.
    pub origin: Option<SessionId>,
}

/// Messages of one channel, in message_seq order, for one turn of the fan-out.
#[derive(Debug)]
pub struct Delivery {
    /// The channel.
    pub channel: Option<ChannelNo>,
    /// Its name.
    pub key: ChannelKey,
    /// At least one message.
    pub messages: Vec<Delivered>,
    /// Sessions that sent one of them, sorted.
    pub origins: SmallVec<[SessionId; 2]>,
    /// About the bytes one recipient's copy takes.
    pub bytes: usize,
    slots: [[OnceLock<Bytes>; 2]; WIRE_KINDS],
    /// Made when the first session that encrypts asks: most deliveries meet none.
    prepared: OnceLock<Box<[[Prepared; 2]; PREPARED_KINDS]>>,
}

impl Delivery {
    /// Joins messages of one channel.
    pub fn new(channel: Option<ChannelNo>, key: ChannelKey, messages: Vec<Delivered>) -> Self {
        let mut origins: SmallVec<[SessionId; 2]> = messages.iter().filter_map(|m| m.origin).collect();
        origins.sort_unstable();
        origins.dedup();
        // 100 bytes stand for the names and numbers around a payload.
        let weigh = |m: &Delivered| m.payload.len() + m.extras.as_ref().map_or(0, |extras| extras.bytes()) + 100;
        let bytes = messages.iter().map(weigh).sum();
        Self { channel, key, messages, origins, bytes, slots: Default::default(), prepared: OnceLock::new() }
    }

    /// The encoded bytes of a wire kind and side, made by the first who asks.
    pub fn encoded(&self, wire_kind: usize, side: Side, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.slots[wire_kind][side as usize].get_or_init(encode).clone()
    }

    /// What a wire prepares once for all its sessions on a side, made by the first who asks. A kind has one type.
    pub fn prepared<T: Any + Send + Sync>(&self, kind: usize, side: Side, make: impl FnOnce() -> T) -> &T {
        let kept = self.prepared.get_or_init(Box::default)[kind][side as usize].get_or_init(|| Box::new(make()));
        kept.downcast_ref().expect("a kind is one wire's, which prepares one type")
    }

    /// The channel_id as the members on a side see it, without the namespace: all who get it belong to it.
    pub fn id_for(&self, side: Side) -> &str {
        match (self.key.channel_type(), self.key.channel_id().split_once('@')) {
            (ChannelType::Person, Some((first, second))) => match side {
                Side::First => bare_id(second),
                Side::Second => bare_id(first),
            },
            _ => bare_id(self.key.channel_id()),
        }
    }

    /// Whether this session sent one of the messages.
    pub fn has_origin(&self, session: SessionId) -> bool {
        self.origins.binary_search(&session).is_ok()
    }

    /// The same without the messages this session sent itself; `None` when nothing is left.
    pub fn without(&self, session: SessionId) -> Option<Self> {
        let messages: Vec<_> = self.messages.iter().filter(|m| m.origin != Some(session)).cloned().collect();
        (!messages.is_empty()).then(|| Self::new(self.channel, self.key.clone(), messages))
    }

    /// The lowest stored seq in it; `None` when nothing in it is stored.
    pub fn first_seq(&self) -> Option<u64> {
        self.messages.iter().map(|m| m.message_seq).find(|seq| *seq > 0)
    }

    /// The highest stored seq in it.
    pub fn last_seq(&self) -> u64 {
        self.messages.iter().map(|m| m.message_seq).max().unwrap_or(0)
    }
}

/// What else a lot changed that online sessions must learn.
#[derive(Debug, Clone)]
pub enum Change {
    /// Users became members of a channel.
    Joined {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
        /// Who.
        uids: Vec<Uid>,
        /// The change's version.
        version: Version,
    },
    /// Users are members no more.
    Left {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
        /// Who.
        uids: Vec<Uid>,
        /// The change's version.
        version: Version,
    },
    /// A user's own view of a channel changed on some device.
    Conversation {
        /// Its name.
        key: ChannelKey,
        /// The user.
        uid: Uid,
        /// The change's version.
        version: Version,
        /// What it is now.
        what: ConversationChange,
    },
    /// Messages of a channel are over.
    MessagesChanged {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
        /// Their seqs.
        seqs: Vec<u64>,
        /// The change's version.
        version: Version,
    },
    /// A message of a channel was changed by somebody.
    MessageChanged {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
        /// The message.
        seq: u64,
        /// The change's version.
        version: Version,
        /// What it is now.
        what: MessageChange,
    },
    /// A message's stream went on, and that is stored.
    Happened(Arc<Happening>),
    /// A channel presents itself otherwise, or a member of it may do other things.
    Channel {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        key: ChannelKey,
        /// The change's version.
        version: Version,
        /// What changed.
        what: ChannelChange,
    },
}

impl Change {
    /// The change's version.
    pub fn version(&self) -> Version {
        match self {
            Self::Joined { version, .. }
            | Self::Left { version, .. }
            | Self::Conversation { version, .. }
            | Self::MessagesChanged { version, .. }
            | Self::MessageChanged { version, .. }
            | Self::Channel { version, .. } => *version,
            Self::Happened(happening) => happening.version,
        }
    }

    /// About the bytes one recipient's copy takes.
    pub fn bytes(&self) -> usize {
        150 + match self {
            Self::MessageChanged { what: MessageChange::Edited { payload, extras, .. }, .. } => {
                payload.len() + extras.as_ref().map_or(0, |extras| extras.bytes())
            }
            Self::MessagesChanged { seqs, .. } => seqs.len() * 8,
            Self::Happened(happening) => happening.bytes(),
            Self::Channel { what: ChannelChange::Profile(profile), .. } => {
                profile.name.len() + profile.icon.len() + profile.description.len()
            }
            _ => 0,
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageChange {
    /// It was taken back.
    Revoked {
        /// By whom; `None`: a back end.
        by: Option<Uid>,
    },
    /// It says something else.
    Edited {
        /// By whom; `None`: a back end.
        by: Option<Uid>,
        /// The content from now on.
        payload: Bytes,
        /// What it refers to from now on.
        extras: Option<Box<Extras>>,
    },
    /// A user's reaction to it is another.
    Reacted {
        /// Whose.
        uid: Uid,
        /// `None`: none any more.
        reaction: Option<Reaction>,
    },
}

/// How many wires share the bytes of an event (native MessagePack, native JSON, JSON-RPC, WKProto in WebSocket messages and
/// on its own port): none encrypts it.
pub const EVENT_KINDS: usize = 5;

/// Something that happened to a message's stream.
#[derive(Debug)]
pub struct Happening {
    /// The message.
    pub base: Arc<Base>,
    /// The event's name.
    pub event_id: String,
    /// Its type as its sender wrote it.
    pub given_type: String,
    /// When it happened, Unix milliseconds.
    pub occurred_at_ms: u64,
    /// What it says, as JSON; empty: nothing.
    pub payload: Bytes,
    /// Its lane after it; the snapshot is there for events that are stored.
    pub lane: Lane,
    /// The change's version; zero: it is not stored.
    pub version: Version,
    slots: [[OnceLock<Bytes>; 2]; EVENT_KINDS],
}

impl Happening {
    /// What became of a lane by an event.
    pub fn new(base: Arc<Base>, event: &NewEvent, lane: Lane) -> Self {
        Self {
            base,
            event_id: event.id.clone(),
            given_type: event.given_type.clone(),
            occurred_at_ms: event.occurred_at_ms,
            payload: event.payload.clone(),
            lane,
            version: Version::ZERO,
            slots: Default::default(),
        }
    }

    /// About the bytes one recipient's copy takes.
    pub fn bytes(&self) -> usize {
        200 + self.payload.len() + self.event_id.len() + self.given_type.len() + self.lane.bytes()
    }

    /// Whether a user is told of it.
    pub fn is_for(&self, uid: &Uid) -> bool {
        self.lane.is_shown_to(&self.base.from_uid, uid.as_str())
    }

    /// The encoded bytes of a wire kind and side, made by the first who asks.
    pub fn encoded(&self, kind: usize, side: Side, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.slots[kind][side as usize].get_or_init(encode).clone()
    }
}

/// What changed of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelChange {
    /// Its profile, all of it.
    Profile(Box<ChannelProfile>),
    /// What a member may do.
    Role {
        /// The member.
        uid: Uid,
        /// The role.
        role: Role,
    },
}

/// How a conversation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationChange {
    /// Read up to a seq, with this many unread now.
    Read {
        /// The read position.
        read_to_msg_seq: u64,
        /// Unread after it.
        unread: u64,
        /// The head it was counted at: later messages come on top.
        head_seq: u64,
    },
    /// Deleted up to a seq.
    Deleted {
        /// The delete floor.
        delete_floor: u64,
    },
    /// What the user decided about it. `request` is whether it is a message request now.
    Flags {
        /// All of them.
        flags: ConversationFlags,
    },
}

/// A signal that is never stored: typing and the like.
#[derive(Debug, Clone)]
pub struct Signal {
    /// The channel's number; person channels go by their users and may have none yet.
    pub channel: Option<ChannelNo>,
    /// Its name.
    pub key: ChannelKey,
    /// Who signals.
    pub from_uid: Uid,
    /// What ("typing", …).
    pub name: String,
    /// A few bytes of the client's own.
    pub data: Bytes,
    /// The session it came from, which does not get it back.
    pub origin: Option<SessionId>,
}

/// One committed lot as every shard sees it, in commit order.
///
/// A session that keeps the largest version it saw must not have passed over anything below it, so this is the order of the
/// log, but for messages that were joined with an earlier one of their channel. Nothing is joined across a change of the
/// channel's members: who joins gets what comes behind the joining, who leaves what came before the leaving.
#[derive(Debug)]
pub struct LotNews {
    /// In order.
    pub news: Vec<News>,
}

/// A piece of news.
#[derive(Debug)]
pub enum News {
    /// Messages of one channel.
    Delivery(Arc<Delivery>),
    /// Anything else.
    Change(Arc<Change>),
}
