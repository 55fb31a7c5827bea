//! JSON of WuKongIM's routes around conversations, field for field (wukongim-http.md sections 1, 3, 4, 5).
//!
//! Missing fields and `null` are the zero value, flags are the numbers 0 and 1, ids are strings and nothing else.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::extract::{flag, null_is_zero};

mod conversations;
mod events;
mod lookups;
mod operations;

pub use conversations::*;
pub use events::*;
pub use lookups::*;
pub use operations::*;

/// `POST /user/token`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct UserToken {
    /// The user. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The token, opaque to the server; it replaces the one of (uid, device_flag).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub token: String,
    /// 0 app, 1 web, 2 pc; other values are kept.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub device_flag: u8,
    /// 0 slave, 1 master: connections of the same device_flag are closed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub device_level: u8,
}

/// `POST /user/device_quit`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct DeviceQuit {
    /// The user. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// -1: app, web and pc.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub device_flag: i16,
}

/// A row of `POST /user/onlinestatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Online {
    /// The user.
    pub uid: String,
    /// The device kind of this connection.
    pub device_flag: u8,
    /// Always 1.
    pub online: u8,
}

/// `POST /channel` and `POST /channel/info` (which ignores `subscribers` and `reset`).
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Channel {
    /// The channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// 0 or 1. Stored only.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub large: bool,
    /// 0 or 1. Nobody may send; on a user's own channel: nobody may write to this user.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub ban: bool,
    /// 0 or 1. Ended.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub disband: bool,
    /// 0 or 1. On a user's own channel: this user may not send anywhere.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub send_ban: bool,
    /// 0 or 1. On a user's own channel: strangers may write to this user where `wukong.whitelist_off_of_person` is off.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub allow_stranger: bool,
    /// 0 or 1. 1: `subscribers` replace the members; 0: they are added.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub reset: bool,
    /// Members.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
}

/// `POST /channel/delete` and `POST /channel/subscriber_remove_all`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelName {
    /// The channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// `POST /channel/subscriber_add` and `POST /channel/subscriber_remove` (which ignores `reset`).
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Subscribers {
    /// The channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 0 means 2, group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// 0 or 1. 1: `subscribers` replace the members.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub reset: bool,
    /// 1 is refused: no longer supported (as in WuKongIM v2).
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub temp_subscriber: bool,
    /// Who.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
}

/// The header flags of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Header {
    /// 0 or 1. Not stored, delivered to who is online.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub no_persist: bool,
    /// 0 or 1. Counts as unread.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub red_dot: bool,
    /// 0 or 1. A command: never in conversations.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub sync_once: bool,
}

/// `POST /message/send`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSend {
    /// Flags.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub header: Header,
    /// The sender's name for the message: a repeat gets the first outcome. Empty: the server makes one.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_no: String,
    /// The sender. With an API key, empty: the system user. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_uid: String,
    /// WuKongIM v3's name of `from_uid`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub sender_uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// 0 or 1. As `header.no_persist`, where WuKongIM v3 has it.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub no_persist: bool,
    /// 0 or 1. As `header.sync_once`, where WuKongIM v3 has it.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub sync_once: bool,
    /// Seconds until it expires; 0: never.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub expire: u32,
    /// Standard base64 of the content.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub payload: String,
    /// Third parties' byte, returned verbatim.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub setting: u8,
    /// Topic.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub topic: String,
    /// message_id of the message of this channel it answers or quotes, as number or text. Not of WuKongIM, as the next three.
    #[serde(default, deserialize_with = "crate::http::dialects::message_id")]
    #[schema(value_type = u64)]
    pub reply_to: Option<protocol::ids::MessageId>,
    /// Members it mentions, at most 100.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub mentions: Vec<String>,
    /// It mentions every member.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub mention_all: bool,
    /// Ids of uploaded files it carries, at most 32.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub files: Vec<String>,
    /// Sends a command (`sync_once`) to exactly these users, with an API key and without a channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
    /// Streams of WuKongIM v1 are not supported: must be empty.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub stream_no: String,
    /// 0 or 1. Events follow (`/message/event`): sets bit 2 of `setting`.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub is_stream: bool,
}

/// The answer of `POST /message/send`: the union of WuKongIM's three forms (section 15, 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageSent {
    /// 200, or on refusal the reason.
    pub status: u16,
    /// WuKongIM v1 and v2 look here. Absent on refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<MessageSentData>,
    /// Its id; 0 on refusal.
    pub message_id: u64,
    /// Its id as text.
    pub message_idstr: String,
    /// Its place in the channel; 0 when not stored.
    pub message_seq: u64,
    /// Its name.
    pub client_msg_no: String,
    /// 1, or why not.
    pub reason: u8,
    /// Whether this is the outcome of an earlier send of the same name.
    pub duplicate: bool,
    /// On refusal: a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// On refusal: why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    /// The same as `msg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `data` of [`MessageSent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageSentData {
    /// Its id.
    pub message_id: u64,
    /// Its id as text.
    pub message_idstr: String,
    /// Its name.
    pub client_msg_no: String,
    /// Its place in the channel; 0 when not stored.
    pub message_seq: u64,
}

/// `POST /message/sendbatch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSendBatch {
    /// Flags.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub header: Header,
    /// The sender. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_uid: String,
    /// Who gets it, each in an own conversation; at most 10,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
    /// Standard base64 of the content.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub payload: String,
}

/// The answer of `POST /message/sendbatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageBatchSent {
    /// Who could not be written to.
    pub fail_uids: Vec<String>,
    /// Why not, at the same places.
    pub reason: Vec<String>,
}

/// `POST /user/systemuids_add` and its siblings.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Uids {
    /// Whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uids: Vec<String>,
}

/// `POST /tmpchannel/subscriber_set`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct TemporarySubscribers {
    /// The channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// Whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uids: Vec<String>,
}

/// `POST /channel/blacklist_add` and its siblings.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Listed {
    /// The channel; for a person the uid whose list it is.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uids: Vec<String>,
}

/// `GET /channel/whitelist`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListedQuery {
    /// The channel; for a person the uid whose list it is.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service; 0 means 2.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// `POST /message/sync`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CommandSync {
    /// Whose commands. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// Ignored, as in WuKongIM v2: the server knows what was taken.
    #[serde(default, deserialize_with = "null_is_zero")]
    #[expect(dead_code, reason = "read so that it is checked")]
    pub message_seq: u64,
    /// 0 means 200; at most 10,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: i64,
}

/// `POST /message/syncack`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CommandAck {
    /// Whose commands. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// `message_seq` of the last command taken.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub last_message_seq: u64,
}

/// `POST /message/cmd/bind` and `POST /message/cmd/unbind`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct CommandBinding {
    /// Who. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}
