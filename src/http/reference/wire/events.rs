//! JSON of events of messages (wukongim-http.md 5.6).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::extract::{flag, null_is_zero};

/// `POST /message/event`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageEvent {
    /// The channel; for a person channel the sender's peer.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Who sent the message. With an API key, empty: who sent it with `is_stream`, else a member or a system user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_uid: String,
    /// Left aside: the name finds the message.
    #[serde(default, deserialize_with = "crate::http::dialects::message_id")]
    #[schema(value_type = u64)]
    #[expect(dead_code, reason = "read so that it is checked")]
    pub message_id: Option<protocol::ids::MessageId>,
    /// The message, by its sender's name for it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_no: String,
    /// The event's name: repeated, it changes nothing. At most 128 bytes.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_id: String,
    /// `stream.delta`, `stream.snapshot`, `stream.close`, `stream.error`, `stream.cancel`, `stream.finish`, in any case;
    /// anything else is told and numbered and changes no content. At most 64 bytes.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_type: String,
    /// The lane; empty means `main`. At most 128 bytes, 31 lanes per message. That of `stream.finish` is `__finish__`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_key: String,
    /// `public`, `private` or `restricted`: who sees the lane from now on; empty: who saw it, at first everybody. A lane that
    /// is not public is pushed and shown to the message's sender only.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub visibility: String,
    /// When it happened, Unix milliseconds; 0: now.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub occurred_at: i64,
    /// What it says, any JSON, at most as many bytes as a message.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub payload: Value,
    /// Left aside.
    #[serde(default)]
    #[schema(value_type = Object)]
    #[expect(dead_code, reason = "known, so that the document has it")]
    pub headers: Value,
}

/// The answer of `POST /message/event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageEventTaken {
    /// 200.
    pub status: u16,
    /// What became of it.
    pub data: MessageEventData,
}

/// `data` of [`MessageEventTaken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageEventData {
    /// Echoed.
    pub client_msg_no: String,
    /// The lane.
    pub event_key: String,
    /// The lane's last event: this one, or the one that ended the lane before.
    pub event_id: String,
    /// Number of the lane's last stored event, in the order of the message's events; 0: none is stored.
    pub msg_event_seq: u64,
    /// `open`, `closed`, `error` or `cancelled`.
    pub stream_status: String,
    /// Echoed.
    pub channel_id: String,
    /// Echoed.
    pub channel_type: u8,
    /// Who sent the message.
    pub from_uid: String,
}

/// `POST /message/eventsync`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct EventSync {
    /// The channel; for a person channel the sender's peer, or its canonical id.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Who sent the message. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_uid: String,
    /// The message, by its sender's name for it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_no: String,
    /// Only this lane; empty: all.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_key: String,
    /// Only what comes behind this number.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_msg_event_seq: u64,
    /// 0 means 200; at most 2,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// 0 or 1. Lanes that are not public too: with an API key, or for the message's sender.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub include_private: bool,
}

/// The answer of `POST /message/eventsync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventSyncPage {
    /// 200.
    pub status: u16,
    /// The page.
    pub data: EventSyncData,
}

/// `data` of [`EventSyncPage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventSyncData {
    /// Echoed.
    pub client_msg_no: String,
    /// Echoed.
    pub from_msg_event_seq: u64,
    /// Ask on with it.
    pub next_msg_event_seq: u64,
    /// 0 or 1. Whether there is more.
    pub more: u8,
    /// Of each lane its last stored event, with what the lane came to; ascending by number.
    pub events: Vec<SyncedEvent>,
    /// Echoed.
    pub filtered_by_event_key: String,
}

/// The last stored event of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SyncedEvent {
    /// Its number.
    pub msg_event_seq: u64,
    /// Its name.
    pub event_id: String,
    /// The lane.
    pub event_key: String,
    /// Its type, in lower case.
    pub event_type: String,
    /// Who sees the lane.
    pub visibility: String,
    /// When it happened, Unix milliseconds.
    pub occurred_at: u64,
    /// The lane's content; of one without, `{status, end_reason, error?}`.
    #[schema(value_type = Object)]
    pub payload: Value,
}
