//! Streamed answers: what a message's lanes came to, and what happens to them.
//!
//! As everywhere on this wire: fields at their default are left out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::parts::{bytes, is_default, number, words};

words! {
    /// How a lane stands.
    #[derive(Default)]
    pub enum LaneStatus {
        /// More may come.
        #[default]
        Open = "open",
        /// Complete.
        Closed = "closed",
        /// Ended by an error.
        Error = "error",
        /// Ended before it was complete.
        Cancelled = "cancelled",
    }
}

words! {
    /// Who sees a lane.
    #[derive(Default)]
    pub enum Visibility {
        /// Every member.
        #[default]
        Public = "public",
        /// The message's sender.
        Private = "private",
        /// The message's sender.
        Restricted = "restricted",
    }
}

/// A lane of a stored message, as far as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneItem<'a> {
    /// Its name.
    pub event_key: Cow<'a, str>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: LaneStatus,
    /// Number of its last stored event, in the order of the message's events.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub msg_event_seq: u64,
    /// Its last stored event.
    #[serde(default, skip_serializing_if = "is_default")]
    pub event_id: Cow<'a, str>,
    /// Who sees it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,
    /// Why it ended, as its sender numbers reasons.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub end_reason: u8,
    /// The error it ended with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub error: Cow<'a, str>,
    /// The merged content, JSON text.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub snapshot: Cow<'a, [u8]>,
}

/// `stream`, an event: something happened to a lane of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The message.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_seq: u64,
    /// The message's id.
    #[serde(deserialize_with = "number::deserialize")]
    pub message_id: u64,
    /// Version of the change; 0: it is not stored.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub version: u64,
    /// The event's name: the same twice is the same event.
    pub event_id: Cow<'a, str>,
    /// Its type.
    pub event_type: Cow<'a, str>,
    /// The lane.
    pub event_key: Cow<'a, str>,
    /// Number of the lane's last stored event.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub msg_event_seq: u64,
    /// How the lane stands.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: LaneStatus,
    /// Who sees the lane.
    #[serde(default, skip_serializing_if = "is_default")]
    pub visibility: Visibility,
    /// When it happened, Unix milliseconds, as its sender says.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub occurred_at: u64,
    /// What the event says, JSON text.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub payload: Cow<'a, [u8]>,
    /// Of a stored event: what the lane came to, JSON text.
    #[serde(
        default,
        skip_serializing_if = "is_default",
        serialize_with = "bytes::serialize",
        deserialize_with = "bytes::owned"
    )]
    pub snapshot: Cow<'a, [u8]>,
}
