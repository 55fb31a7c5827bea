//! JSON of the conversation routes beside the document's (wukongim-http.md 6.5, 6.6).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::extract::{flag, null_is_zero};
use crate::http::message::MessageBody;

/// A channel and how far its reader has it.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelFrom {
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Only messages above it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub last_msg_seq: u64,
}

/// `POST /conversation/syncMessages`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SyncMessages {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// Channels, at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channels: Vec<ChannelFrom>,
    /// Messages per channel; 0 means 15, at most `conversation.msg_count_max`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub msg_count: i64,
    /// 0 or 1. Ignored: the newest messages come, newest first, as in WuKongIM v1.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    #[expect(dead_code, reason = "read so that it is checked")]
    pub order_by_last: bool,
}

/// A channel's messages in the answer of `POST /conversation/syncMessages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChannelMessages {
    /// Echoed.
    pub channel_id: String,
    /// Echoed.
    pub channel_type: u8,
    /// Newest first.
    pub messages: Vec<MessageBody>,
    /// Seq of the user's own last message; 0: none.
    pub user_last_msg_seq: u64,
}

/// `POST /conversation/channels`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct OwnChannels {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
pub struct ConversationChannel {
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// `POST /conversation/syncByChannels`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SyncByChannels {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// Channels, at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channels: Vec<ConversationChannel>,
    /// Messages per channel; 0 means 15, at most `conversation.msg_count_max`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub msg_count: i64,
}

/// `GET /conversations`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConversationsQuery {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
}

/// A conversation of `GET /conversations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConversationOfV1 {
    /// The channel as the user knows it.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// How many messages are unread.
    pub unread: u64,
    /// Of the last message, Unix seconds.
    pub timestamp: u64,
    /// The last message.
    pub last_message: Option<MessageBody>,
}

/// `POST /conversation/list`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ConversationListQuery {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// `next_cursor` of the page before; empty: the first.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub cursor: String,
    /// 0 means 100; at most 200.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// `coverage` of the last list that was read to its end: only what changed since is answered. 0: everything.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub completed_coverage: u64,
}

/// `POST /conversation/retry`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ConversationRetry {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// Channels, at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channels: Vec<ConversationChannel>,
}

/// `POST /conversations/activate`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ConversationActivation {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// A conversation of v3's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedConversation {
    /// The channel as the user knows it.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Of the last message, Unix milliseconds.
    pub active_at: u64,
    /// Messages up to here are read.
    pub read_seq: u64,
    /// Messages up to here were deleted from the user's view.
    pub deleted_to_seq: u64,
    /// How many messages are unread.
    pub unread: u64,
    /// The last message; `null`: none.
    pub last_message: Option<ListedMessage>,
}

/// The last message of a conversation of v3's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedMessage {
    /// Its id.
    pub message_id: u64,
    /// Its id as text.
    pub message_idstr: String,
    /// Its place in the channel.
    pub message_seq: u64,
    /// The sender.
    pub from_uid: String,
    /// The sender's name for it.
    pub client_msg_no: String,
    /// Unix milliseconds.
    pub server_timestamp_ms: u64,
    /// Standard base64 of the content.
    pub payload: String,
}

/// The answer of `POST /conversation/list` and `POST /conversation/retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConversationList {
    /// The last written first.
    pub conversations: Vec<ListedConversation>,
    /// Deleted or left since `completed_coverage`.
    pub deletes: Vec<ConversationChannel>,
    /// Always empty: what cannot be read fails the request.
    pub unresolved: Vec<ConversationChannel>,
    /// For the next page; empty: there is none.
    pub next_cursor: String,
    /// Whether this was the last page.
    pub done: bool,
    /// What the list is at.
    pub coverage: u64,
    /// Always 0: deletions are kept.
    pub tombstones_retained_since: u64,
    /// `completed_coverage` was none of ours: everything is answered, and what the client has is to be dropped.
    pub reset_required: bool,
}
