//! What users decide: about their own conversations, about others, about strangers.
//!
//! Each struct names the frame or event it is the body of.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::parts::{is_default, number, words};

words! {
    /// What becomes of a first message from a stranger.
    pub enum Strangers {
        /// It arrives like any other.
        Allow = "allow",
        /// It arrives as a message request.
        Quarantine = "quarantine",
        /// It is refused.
        Block = "block",
    }
}

/// `flags`: changes what this user decided about a conversation; an absent flag stays. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flags<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Keep it on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    /// No notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<bool>,
    /// `true`: accepts a message request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
}

/// `relation`: changes what another user is to this one; an absent side stays. Answered by `relations` with this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The other user.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// A contact is never a stranger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<bool>,
    /// Who is blocked cannot write to this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<bool>,
}

/// `relations`: asks for everybody who is a contact or blocked. Answered by `relations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relations {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
}

/// `settings`: changes this user's settings, an absent one stays; without any it only asks. Answered by `settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// About strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strangers: Option<Strangers>,
}

/// What one user is to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationItem<'a> {
    /// The other user.
    pub uid: Cow<'a, str>,
    /// A contact.
    #[serde(default, skip_serializing_if = "is_default")]
    pub contact: bool,
    /// Blocked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blocked: bool,
}

/// `relations`, the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationsList<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// Those asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub relations: Vec<RelationItem<'a>>,
}

/// `settings`, the answer: as they are now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsNow {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// About strangers.
    pub strangers: Strangers,
}

/// `flags`, an event: what this user decided about a conversation changed. Leaves `unread` as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagsEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Version of the change.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// Kept on top now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pinned: bool,
    /// Without notifications now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub muted: bool,
    /// A message request now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: bool,
}
