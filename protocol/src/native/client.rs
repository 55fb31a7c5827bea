//! Frames a client sends.
//!
//! Text and bytes are borrowed from the decoded message where the encoding allows. Nothing here is checked against the
//! rules: ids, lengths and numbers become domain words in the gateway.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::groups::{Expel, GiveRole, Group, Invite, Leave, Members, Profile};
use super::messages::{Changes, Edit, React, ReadBy, Revoke, Search};
use super::parts::{bounded, bytes, is_default, is_true, number, yes};
use super::people::{Flags, Relation, Relations, Settings};
use super::tagged::tagged;
use super::{CURSORS_MAX, Durability, FILES_MAX, MENTIONS_MAX, UIDS_MAX};

tagged! {
    ['de: 'a]
    /// A frame from client to server.
    pub enum ClientFrame<'a> {
        /// Opens the session; the first frame.
        Connect(Connect<'a>) = "connect",
        /// Are you there?
        Ping(Ping) = "ping",
        /// I am here.
        Pong(Pong) = "pong",
        /// A message.
        Send(Send<'a>) = "send",
        /// Messages arrived.
        Receipt(Receipt<'a>) = "receipt",
        /// What changed?
        Sync(Sync<'a>) = "sync",
        /// Stored messages by seq.
        History(History<'a>) = "history",
        /// Read up to here.
        Read(Read<'a>) = "read",
        /// This many are unread.
        SetUnread(SetUnread<'a>) = "set_unread",
        /// Take the conversation off my list.
        DeleteConversation(DeleteConversation<'a>) = "delete_conversation",
        /// Why is this unread?
        ExplainUnread(ExplainUnread<'a>) = "explain_unread",
        /// Typing, and the like.
        Signal(Signal<'a>) = "signal",
        /// Who is online?
        Presence(Presence<'a>) = "presence",
        /// Take a message back.
        Revoke(Revoke<'a>) = "revoke",
        /// Say something else instead.
        Edit(Edit<'a>) = "edit",
        /// Like it, or not.
        React(React<'a>) = "react",
        /// Which messages changed?
        Changes(Changes<'a>) = "changes",
        /// Who has read it?
        ReadBy(ReadBy<'a>) = "read_by",
        /// Where was that said?
        Search(Search<'a>) = "search",
        /// Pin, mute, accept.
        Flags(Flags<'a>) = "flags",
        /// A contact, a blocked user.
        Relation(Relation<'a>) = "relation",
        /// Who is a contact, who is blocked?
        Relations(Relations) = "relations",
        /// About strangers.
        Settings(Settings) = "settings",
        /// Make a group.
        Group(Group<'a>) = "group",
        /// A group's name, icon, description.
        Profile(Profile<'a>) = "profile",
        /// Who is in it?
        Members(Members<'a>) = "members",
        /// Come in.
        Invite(Invite<'a>) = "invite",
        /// Go out.
        Expel(Expel<'a>) = "expel",
        /// What a member may do.
        Role(GiveRole<'a>) = "role",
        /// I go.
        Leave(Leave<'a>) = "leave",
    }
}

/// How far a client holds one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Highest seq it holds without a gap below; 0: none.
    #[serde(deserialize_with = "number::deserialize")]
    pub last_msg_seq: u64,
}

/// What the client is, for logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientInfo<'a> {
    /// Its name, at most 64 bytes.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its version, at most 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub version: Cow<'a, str>,
}

/// What a returning client holds; answered inside `connected` as a sync of native rules (design.md section 5).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resume<'a> {
    /// Highest version it has seen; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Its channels. At most [`CURSORS_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, CURSORS_MAX>")]
    pub cursors: Vec<Cursor<'a>>,
    /// Newest messages wanted for each row; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub msg_count: i64,
    /// Rows wanted in one answer; 0: the server's page. The rest is fetched with `sync` and `page_after`.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub rows_max: u32,
    /// Only rows with unread messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only_unread: bool,
}

/// The first frame. Answered by `connected` or by a close.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connect<'a> {
    /// The credential: a user's token, a JWT, or an API key.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// The user; needed where the credential does not name one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Cow<'a, str>>,
    /// Names this device; a second connection with the same one replaces the first. Empty: none.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub device_id: Cow<'a, str>,
    /// Kind of device: 0 app, 1 web, 2 pc.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub device_flag: u8,
    /// What the client is.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo<'a>>,
    /// What it holds already; absent: no inline sync.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume<'a>>,
}

/// Sends a message. Answered by `ack` or `refused`; acks of a channel come in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Send<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The sender's name for the message: a retry with the same one gets the first outcome. Empty: no dedupe.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub client_msg_no: Cow<'a, str>,
    /// The content, never looked into. MessagePack bin, JSON base64.
    #[serde(borrow, serialize_with = "bytes::serialize", deserialize_with = "bytes::borrowed")]
    pub payload: Cow<'a, [u8]>,
    /// Counts as unread.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub red_dot: bool,
    /// Delivered to who is online and never stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_persist: bool,
    /// A command: stored and delivered, not a conversation's message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sync_once: bool,
    /// Third parties' byte, given back verbatim.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub setting: u8,
    /// Topic; empty: none.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub topic: Cow<'a, str>,
    /// Seconds until it expires; 0: never.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub expire: u32,
    /// How sure the ack has to be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub durability: Durability,
    /// message_id of the message it answers or quotes; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub reply_to: u64,
    /// Users it mentions. At most [`MENTIONS_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, MENTIONS_MAX>")]
    pub mentions: Vec<Cow<'a, str>>,
    /// It mentions every member.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mention_all: bool,
    /// Files it carries. At most [`FILES_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, FILES_MAX>")]
    pub files: Vec<Cow<'a, str>>,
}

impl Default for Send<'_> {
    /// Every field at what its absence means; the ones without a default empty.
    fn default() -> Self {
        Self {
            client_seq: 0,
            channel_id: Cow::Borrowed(""),
            channel_type: 0,
            client_msg_no: Cow::Borrowed(""),
            payload: Cow::Borrowed(&[]),
            red_dot: true,
            no_persist: false,
            sync_once: false,
            setting: 0,
            topic: Cow::Borrowed(""),
            expire: 0,
            durability: Durability::Disk,
            reply_to: 0,
            mentions: Vec::new(),
            mention_all: false,
            files: Vec::new(),
        }
    }
}

/// Everything up to here has arrived. Cumulative, no reply, never refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Highest seq received without a gap below.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
}

/// Asks what changed. Answered by `synced`. Deleted and lost conversations are always listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sync<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Highest version the client has seen; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Cursors in WuKongIM's grammar, `channel_id:channel_type:seq|…`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub last_msg_seqs: Option<Cow<'a, str>>,
    /// Cursors as a list; both may be given. At most [`CURSORS_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, CURSORS_MAX>")]
    pub cursors: Vec<Cursor<'a>>,
    /// Newest messages wanted for each row; 0: none. Negative is refused.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub msg_count: i64,
    /// Only rows with unread messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only_unread: bool,
    /// Where the page before ended, as it was given.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub page_after: Option<Cow<'a, str>>,
    /// Rows wanted in one answer; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub rows_max: u32,
}

/// Asks for stored messages by seq. Answered by `messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Lowest seq wanted; 0: from the first.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub first_seq: u64,
    /// Highest seq wanted; 0: up to the head.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub last_seq: u64,
    /// Most messages wanted; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
    /// The newest of the range, newest first; else the oldest, ascending.
    #[serde(default, skip_serializing_if = "is_default")]
    pub newest_first: bool,
}

/// Puts the read position. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Highest seq that was read; above the head means the head.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
}

/// Puts the read position so that exactly this many countable messages follow. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetUnread<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Wanted number; 0 clears, negative is refused.
    #[serde(deserialize_with = "number::deserialize")]
    pub unread: i64,
}

/// Removes the conversation from this user's list. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteConversation<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
}

/// Asks what is counted as unread and why the rest is not. Answered by `explained`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainUnread<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Most messages explained; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
}

/// Something of the moment for who is online in a channel: never stored, no reply unless refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal<'a> {
    /// Named by a refusal; 0: none wanted.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// `typing`, or another name of at most 32 bytes.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Opaque bytes, at most 1 KiB. MessagePack bin, JSON base64.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::borrowed"
    )]
    pub data: Cow<'a, [u8]>,
}

/// Asks who is online, and with `watch` for `presence` events until the connection ends. Answered by `peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Users who share a channel with the asker. At most [`UIDS_MAX`].
    #[serde(borrow, deserialize_with = "bounded::<_, _, UIDS_MAX>")]
    pub uids: Vec<Cow<'a, str>>,
    /// Tell changes too; replaces what was watched before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub watch: bool,
}

/// Asks for a `pong`; also keeps the connection alive. Either side may.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ping {}

/// The answer to `ping`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pong {}
