//! What becomes of messages: frames to take them back, edit them, react to them, ask who read them and search for them.
//!
//! Each struct names the frame or event it is the body of. As everywhere on this wire: fields at their default are left
//! out, lists of a client are bounded while they are read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::parts::{bounded, bytes, is_default, number, words};
use super::{FILES_MAX, MENTIONS_MAX};

words! {
    /// A user's word on a message.
    #[derive(Default)]
    pub enum Reaction {
        /// None: takes away what was there.
        #[default]
        None = "",
        /// Likes it.
        Like = "like",
        /// Dislikes it.
        Dislike = "dislike",
    }
}

words! {
    /// What became of a message.
    pub enum MessageChange {
        /// It was taken back.
        Revoked = "revoked",
        /// It says something else now.
        Edited = "edited",
        /// Somebody reacted to it, or no longer does.
        Reacted = "reacted",
    }
}

/// `revoke`: takes a message back. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revoke<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
}

/// `edit`: replaces what a message says and refers to. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// The content from now on.
    #[serde(borrow, serialize_with = "bytes::serialize", deserialize_with = "bytes::borrowed")]
    pub payload: Cow<'a, [u8]>,
    /// The message it answers or quotes from now on; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub reply_to: u64,
    /// Users it mentions from now on. At most [`MENTIONS_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, MENTIONS_MAX>")]
    pub mentions: Vec<Cow<'a, str>>,
    /// It mentions every member from now on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mention_all: bool,
    /// Files it carries from now on. At most [`FILES_MAX`].
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, FILES_MAX>")]
    pub files: Vec<Cow<'a, str>>,
}

/// `react`: puts this user's reaction to a message. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct React<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// The reaction; `""` takes it away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reaction: Reaction,
}

/// `changes`: asks which messages of a channel changed. Answered by `changes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Only what changed after this version; 0: all that ever changed.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub since: u64,
    /// Most items wanted; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
}

/// `read_by`: asks who has read a message. Answered by `readers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadBy<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Most uids wanted; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
}

/// `search`: finds a text in a channel's messages. Answered by `messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// What to look for: any part of a text, upper and lower case alike. At most 256 characters.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
    /// Lowest seq looked at; 0: from the first.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub first_seq: u64,
    /// Highest seq looked at; 0: up to the head.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub last_seq: u64,
    /// Most messages wanted; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
    /// The oldest of the range, ascending; else the newest, newest first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oldest_first: bool,
}

/// A message that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedItem {
    /// Its position.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Version of its last change.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
}

/// `changes`, the answer: which messages changed, the latest change first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangesPage<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Each message once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub items: Vec<ChangedItem>,
    /// There are more; the oldest changes are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
}

/// `readers`: who has read a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readers<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Members who have read it, without its sender, ordered by uid.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uids: Vec<Cow<'a, str>>,
    /// How many members could have read it.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub of: u64,
    /// The limit cut the list.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
}

/// `message`, an event: a message changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// Version of the change.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// What became of it.
    pub what: MessageChange,
    /// Who did it; empty: a back end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: Cow<'a, str>,
    /// Edited: the content now.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub payload: Cow<'a, [u8]>,
    /// Edited: the message it answers or quotes now; 0: none.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub reply_to: u64,
    /// Edited: users it mentions now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mentions: Vec<Cow<'a, str>>,
    /// Edited: it mentions every member now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mention_all: bool,
    /// Edited: files it carries now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Vec<Cow<'a, str>>,
    /// Reacted: the reaction of `by` now; `""`: none any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reaction: Reaction,
}
