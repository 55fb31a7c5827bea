//! Frames the server sends.
//!
//! The same types encode from borrowed parts and decode to owned ones (`'static`). Fields at their default are left
//! out, so that deliveries stay small.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::groups::{ChannelEvent, MembersList, ProfileNow};
use super::messages::{ChangesPage, MessageEvent, Readers};
use super::parts::{bytes, is_default, is_true, number, words, yes};
use super::people::{FlagsEvent, RelationsList, SettingsNow};
use super::streams::{LaneItem, StreamEvent};
use super::tagged::{Tagged, tagged};
use super::{Durability, Ping, Pong};
use crate::close::Reconnect;

tagged! {
    ['de]
    /// A frame from server to client.
    pub enum ServerFrame<'a> {
        /// The session is open.
        Connected(Connected<'a>) = "connected",
        /// Are you there?
        Ping(Ping) = "ping",
        /// I am here.
        Pong(Pong) = "pong",
        /// The message is taken.
        Ack(Ack<'a>) = "ack",
        /// The request was not done.
        Refused(Refused<'a>) = "refused",
        /// Messages.
        Deliver(Deliver<'a>) = "deliver",
        /// Messages were not delivered.
        Gap(Gap<'a>) = "gap",
        /// Something else happened.
        Event(Event<'a>) = "event",
        /// What changed.
        Synced(Synced<'a>) = "synced",
        /// Stored messages.
        Messages(Messages<'a>) = "messages",
        /// The change is stored.
        Done(Done) = "done",
        /// Why this is unread.
        Explained(Explained<'a>) = "explained",
        /// Who is online.
        Peers(Peers<'a>) = "peers",
        /// Which messages changed.
        Changes(ChangesPage<'a>) = "changes",
        /// Who has read it.
        Readers(Readers<'a>) = "readers",
        /// Contacts and blocked users.
        Relations(RelationsList<'a>) = "relations",
        /// Settings as they are now.
        Settings(SettingsNow) = "settings",
        /// How a channel presents itself.
        Profile(ProfileNow<'a>) = "profile",
        /// Who is in a channel.
        Members(MembersList<'a>) = "members",
        /// The connection ends.
        Closing(Closing<'a>) = "closing",
    }
}

tagged! {
    ['de]
    /// What an `event` frame tells: `{"event": {"presence": {…}}}`. A kind the client does not know is to be ignored.
    pub enum Event<'a> {
        /// A peer's signal, such as typing.
        Signal(SignalEvent<'a>) = "signal",
        /// A watched user came or went.
        Presence(Peer<'a>) = "presence",
        /// A conversation changed on another device.
        Conversation(ConversationEvent<'a>) = "conversation",
        /// Members changed.
        Member(MemberEvent<'a>) = "member",
        /// A message was revoked, edited or reacted to.
        Message(MessageEvent<'a>) = "message",
        /// A message's stream went on.
        Stream(StreamEvent<'a>) = "stream",
        /// A conversation was pinned, muted or accepted on another device.
        Flags(FlagsEvent<'a>) = "flags",
        /// A group's profile or roles changed.
        Channel(ChannelEvent<'a>) = "channel",
        /// Sync again.
        Resync(ResyncEvent) = "resync",
        /// A kind this side does not know. Never sent.
        Unknown(UnknownEvent) = "unknown",
    }
}

impl<'de, 'a> Deserialize<'de> for Event<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Tagged::<Event<'a>>::deserialize(deserializer)? {
            Tagged::Known(event) => event,
            Tagged::Unknown { .. } => Event::Unknown(UnknownEvent {}),
        })
    }
}

/// An event of a later protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UnknownEvent {}

words! {
    /// What became of a message.
    #[derive(Default)]
    pub enum MessageState {
        /// As sent.
        #[default]
        Live = "live",
        /// Its time is over; payload withheld.
        Expired = "expired",
        /// Taken back; payload withheld.
        Revoked = "revoked",
        /// Its record is damaged on the server's disk; only its seq is sure.
        Damaged = "damaged",
    }
}

words! {
    /// [`Reconnect`] on the wire.
    pub enum ReconnectWord {
        /// A person or a new client has to act.
        Never = "never",
        /// With a new credential.
        AfterRefresh = "after_refresh",
        /// With exponential backoff and jitter.
        WithBackoff = "with_backoff",
        /// At once, with jitter.
        Now = "now",
    }
}

impl From<Reconnect> for ReconnectWord {
    fn from(reconnect: Reconnect) -> Self {
        match reconnect {
            Reconnect::Never => Self::Never,
            Reconnect::AfterRefresh => Self::AfterRefresh,
            Reconnect::WithBackoff => Self::WithBackoff,
            Reconnect::Now => Self::Now,
        }
    }
}

/// The session is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connected<'a> {
    /// Names the session in the server's log; never reused while the server runs.
    #[serde(deserialize_with = "number::deserialize")]
    pub session_id: u64,
    /// The user, as the server understood the credential.
    pub uid: Cow<'a, str>,
    /// The namespace the user belongs to: all ids of this session lie in it and are said without it. Absent: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Cow<'a, str>>,
    /// The server's clock, Unix milliseconds.
    #[serde(deserialize_with = "number::deserialize")]
    pub server_time_ms: u64,
    /// The server's version now. Not a cursor: only `synced` and events move the client's.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Send something at least this often, else the connection is closed as idle.
    #[serde(deserialize_with = "number::deserialize")]
    pub heartbeat_s: u32,
    /// What the server takes.
    pub limits: Limits,
    /// Levels an ack can have here.
    pub durability: Vec<Durability>,
    /// What the server is.
    pub server: ServerInfo<'a>,
    /// The answer to `resume`; its `client_seq` is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Synced<'a>>,
}

/// Limits of one server, all counted as named. 0: not offered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Largest WebSocket message.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub frame_bytes_max: u64,
    /// Largest `payload`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub payload_bytes_max: u64,
    /// Requests without an answer; above it the server stops reading for a while.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub in_flight_max: u32,
    /// Rows of one `synced`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub rows_max: u32,
    /// Largest `msg_count`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub recents_max: u32,
    /// Messages of one `messages`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub history_max: u32,
    /// Cursors of one `sync` or `resume`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub cursors_max: u32,
    /// Users of one `presence`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub presence_uids_max: u32,
    /// Largest `data` of a `signal`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub signal_bytes_max: u32,
}

/// What the server is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerInfo<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its version.
    pub version: Cow<'a, str>,
}

/// The message is taken, as sure as `level` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The sender's name for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_msg_no: Cow<'a, str>,
    /// Its id.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_id: u64,
    /// Its position in the channel; 0 for a `no_persist` message.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// When it was committed, Unix milliseconds.
    #[serde(deserialize_with = "number::deserialize")]
    pub timestamp: u64,
    /// How sure it is.
    pub level: Durability,
    /// It was stored by an earlier send; this is that outcome.
    #[serde(default, skip_serializing_if = "is_default")]
    pub duplicate: bool,
}

/// The request was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused<'a> {
    /// The request's number; 0 when it has none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Stable word, see docs/wire.md.
    pub code: Cow<'a, str>,
    /// One sentence for people.
    pub text: Cow<'a, str>,
    /// The field it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'a, str>>,
    /// Time mends it: try again then. Absent: do not try the same again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub retry_after_ms: Option<u32>,
}

/// A message as a reader gets it. Fields at their default are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageItem<'a> {
    /// Position in the channel; 0 for a `no_persist` message.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Unique in the server, growing with commit order.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_id: u64,
    /// Its sender.
    pub from_uid: Cow<'a, str>,
    /// The sender's name for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub client_msg_no: Cow<'a, str>,
    /// When it was committed, Unix milliseconds.
    #[serde(deserialize_with = "number::deserialize")]
    pub timestamp: u64,
    /// The content; empty when `state` is not `live`.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub payload: Cow<'a, [u8]>,
    /// Counts as unread.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub red_dot: bool,
    /// Was delivered only, not stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_persist: bool,
    /// A command.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sync_once: bool,
    /// Third parties' byte.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub setting: u8,
    /// Topic; empty: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub topic: Cow<'a, str>,
    /// Seconds until it expires; 0: never.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub expire: u32,
    /// Whether it can still be shown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: MessageState,
    /// message_id of the message it answers or quotes; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub reply_to: u64,
    /// Users it mentions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mentions: Vec<Cow<'a, str>>,
    /// It mentions every member.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mention_all: bool,
    /// Files it carries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Vec<Cow<'a, str>>,
    /// Version of its last edit; 0: never edited.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub edited: u64,
    /// Who likes it, in the order they said so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub likes: Vec<Cow<'a, str>>,
    /// Who dislikes it, in the order they said so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dislikes: Vec<Cow<'a, str>>,
    /// What its stored events came to, in the order the lanes began.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lanes: Vec<LaneItem<'a>>,
}

impl Default for MessageItem<'_> {
    /// Every field at what its absence means; the ones without a default empty.
    fn default() -> Self {
        Self {
            message_seq: 0,
            message_id: 0,
            from_uid: Cow::Borrowed(""),
            client_msg_no: Cow::Borrowed(""),
            timestamp: 0,
            payload: Cow::Borrowed(&[]),
            red_dot: true,
            no_persist: false,
            sync_once: false,
            setting: 0,
            topic: Cow::Borrowed(""),
            expire: 0,
            state: MessageState::Live,
            reply_to: 0,
            mentions: Vec::new(),
            mention_all: false,
            files: Vec::new(),
            edited: 0,
            likes: Vec::new(),
            dislikes: Vec::new(),
            lanes: Vec::new(),
        }
    }
}

/// Messages of one channel, live, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deliver<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The messages, ascending by seq.
    pub messages: Vec<MessageItem<'a>>,
}

/// Messages of a channel were not delivered; fetch them with `history` from `first_missing_seq` to `head_seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// First seq that was not delivered.
    #[serde(deserialize_with = "number::deserialize")]
    pub first_missing_seq: u64,
    /// Head when the notice was made: what comes later is delivered again.
    #[serde(deserialize_with = "number::deserialize")]
    pub head_seq: u64,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Unread messages.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub unread: u64,
    /// Time of the last message, Unix milliseconds.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub timestamp: u64,
    /// Head of the channel.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub last_msg_seq: u64,
    /// client_msg_no of the last message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_client_msg_no: Cow<'a, str>,
    /// Version of the last change. May be above the answer's.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Read position.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub read_to_msg_seq: u64,
    /// Messages up to here were deleted from this user's view: drop what is held of them.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub deleted_to_msg_seq: u64,
    /// The conversation is gone: remove it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_deleted: bool,
    /// The client's cursor was above the head: drop what is held of this channel.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reset: bool,
    /// `recents` reaches down to the client's cursor.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub complete: bool,
    /// Lowest seq in `recents`; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub first_seq: u64,
    /// Messages the client holds that changed: fetch them again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub changed: Vec<u64>,
    /// More changed than `changed` lists: ask with `changes`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub changed_more: bool,
    /// Messages among the unread that mention this user.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub mentions: u64,
    /// Kept on top.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pinned: bool,
    /// Without notifications.
    #[serde(default, skip_serializing_if = "is_default")]
    pub muted: bool,
    /// A message request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: bool,
    /// Newest messages, newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recents: Vec<MessageItem<'a>>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Synced<'a> {
    /// The request's number; 0 inside `connected`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Keep the largest seen and send it next time. While `more` is set it is the request's, so that an
    /// interrupted sync loses nothing.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// The version sent was unknown: this is everything, drop what is not listed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reset: bool,
    /// Another page follows: ask with `page_after`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
    /// Where this page ended; opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_after: Option<Cow<'a, str>>,
    /// Conversations, newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: Vec<Row<'a>>,
}

/// Stored messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Messages<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The messages, in the asked order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub messages: Vec<MessageItem<'a>>,
    /// The range holds more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
    /// Head of the channel.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub head_seq: u64,
    /// Of a search that did not look at its whole range: where to go on, as `last_seq`, or as `first_seq` with
    /// `oldest_first`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub resume: Option<u64>,
}

/// The change is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Version of the change; 0: it is told by events only.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Unread messages afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub unread: Option<u64>,
    /// Read position afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub read_to_msg_seq: Option<u64>,
}

/// A message that is not counted as unread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotCounted<'a> {
    /// Its position.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Why: `no_red_dot`, `own`, `revoked`, `expired`, `damaged`.
    pub reason: Cow<'a, str>,
}

/// What is counted as unread: countable messages above the floor, the latest of three.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The count.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub unread: u64,
    /// Head of the channel.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub head_seq: u64,
    /// Read position.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub read_to_msg_seq: u64,
    /// Messages up to here were deleted from this user's view.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub delete_to_msg_seq: u64,
    /// Messages up to here came before the user joined.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub join_to_msg_seq: u64,
    /// Seqs that are counted, newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub counted: Vec<u64>,
    /// Seqs above the floor that are not, newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub not_counted: Vec<NotCounted<'a>>,
    /// The limit cut the lists.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
}

/// One user's presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer<'a> {
    /// The user.
    pub uid: Cow<'a, str>,
    /// Has a session now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub online: bool,
    /// When the last session ended, Unix milliseconds, where known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub last_seen_ms: Option<u64>,
}

/// Who is online. Users the asker shares no channel with are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Those asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peers: Vec<Peer<'a>>,
}

/// The connection ends; a WebSocket close with the same number follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closing<'a> {
    /// Number of the close catalogue.
    #[serde(deserialize_with = "number::deserialize")]
    pub code: u16,
    /// Its word.
    pub reason: Cow<'a, str>,
    /// Whether and when to come back.
    pub reconnect: ReconnectWord,
    /// Not before then.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number::option")]
    pub retry_after_ms: Option<u32>,
}

/// A peer's signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Who sent it.
    pub from_uid: Cow<'a, str>,
    /// `typing`, or another name.
    pub name: Cow<'a, str>,
    /// Opaque bytes.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub data: Cow<'a, [u8]>,
}

/// A conversation changed otherwise than by a message: read, set unread or deleted on another device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Version of the change: keep the largest.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Unread messages now.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub unread: u64,
    /// Read position now.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub read_to_msg_seq: u64,
    /// Head this was counted at: deliveries above it add to `unread`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub last_msg_seq: u64,
    /// The conversation is gone: remove it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_deleted: bool,
}

/// Members of a channel changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Version of the change.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Who is a member now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub joined: Vec<Cow<'a, str>>,
    /// Who is no longer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left: Vec<Cow<'a, str>>,
}

/// The server cannot tell what changed piece by piece: sync from this version.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ResyncEvent {
    /// Sync from here; 0: from your own.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub version: u64,
}
