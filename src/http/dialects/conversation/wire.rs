//! JSON of the conversation document, field for field, and of WuKongIM's additions to it (wukongim-http.md section 6).
//!
//! Missing fields and `null` are the zero value, flags are the numbers 0 and 1, ids are strings and nothing else. Fields
//! marked "extra" are ours; the document's clients do not look at them.

use protocol::sync::Cursors;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::extract::{flag, null_is_zero};
use crate::http::message::MessageBody;

/// `POST /conversation/sync`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Sync {
    /// Whose conversations. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The largest version the client has; 0: none.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub version: i64,
    /// `channel_id:channel_type:last_msg_seq` joined by `|`, or an array of `{channel_id, channel_type, last_msg_seq}`.
    #[serde(default)]
    #[schema(value_type = String, nullable)]
    pub last_msg_seqs: Option<Cursors>,
    /// Most recent messages per conversation; absent: `conversation.msg_count_default`; 0: none; at most
    /// `conversation.msg_count_max`.
    #[serde(default)]
    pub msg_count: Option<i64>,
    /// 0 or 1. 1: only conversations with unread messages.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub only_unread: bool,
    /// Channel types left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub exclude_channel_types: Vec<u8>,
    /// From 1; 0: no paging.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub page: u32,
    /// Rows of a page: 0 means 100, at most 500.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub page_size: u32,
    /// 0 or 1. Extra: 1 shows deleted and left conversations as rows with `is_deleted`, in increments.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub with_deleted: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Row {
    /// The channel as the asker knows it: the peer for a person channel.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// How many messages are unread.
    pub unread: u64,
    /// Of the last message, Unix seconds.
    pub timestamp: u64,
    /// Seq of the last message.
    pub last_msg_seq: u64,
    /// The sender's name for the last message.
    pub last_client_msg_no: String,
    /// Always 0, as in WuKongIM.
    pub offset_msg_seq: u64,
    /// Messages up to here are read.
    pub readed_to_msg_seq: u64,
    /// Extra: messages up to here were deleted from the asker's view; 0: none.
    pub deleted_to_msg_seq: u64,
    /// Of the row: keep the maximum and send it back.
    pub version: u64,
    /// The newest messages, newest first.
    pub recents: Vec<MessageBody>,
    /// Extra: 1 when `recents` reach down to the client's cursor, 0 when there are more below `first_msg_seq`.
    pub complete: u8,
    /// Extra: seq of the oldest of `recents`; 0: none.
    pub first_msg_seq: u64,
    /// Extra: 1 when the conversation was deleted or left. Absent otherwise.
    #[serde(skip_serializing_if = "is_zero")]
    pub is_deleted: u8,
    /// Extra: 1 when the client's cursor was above the channel's head. Absent otherwise.
    #[serde(skip_serializing_if = "is_zero")]
    pub reset: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(flag: &u8) -> bool {
    *flag == 0
}

/// `POST /conversations/setUnread`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SetUnread {
    /// Whose conversation. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// So many messages are unread afterwards, or all there are; 0: none.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub unread: i64,
}

/// `POST /conversations/clearUnread`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ClearUnread {
    /// Whose conversation. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Read at least to here; 0: everything.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_seq: u64,
}

/// `POST /conversations/delete`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Delete {
    /// Whose conversation. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// The answer of setUnread, clearUnread and delete: the reference's `{"status":200}` with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changed {
    /// 200.
    pub status: u16,
    /// Extra: unread messages now.
    pub unread: u64,
    /// Extra: the conversation's version now.
    pub version: u64,
    /// Extra: messages up to here are read.
    pub readed_to_msg_seq: u64,
}

/// `GET` and `POST /conversation/unread/explain`.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Explain {
    /// Whose conversation. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Newest messages to judge one by one; 0 means 100.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
}

/// An unread number taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Explained {
    /// 200.
    pub status: u16,
    /// The number every dialect shows.
    pub unread: u64,
    /// The last message it holds for.
    pub head_msg_seq: u64,
    /// Messages up to here do not count: the largest of read position, delete floor and join floor.
    pub floor_msg_seq: u64,
    /// Messages up to here are read.
    pub readed_to_msg_seq: u64,
    /// What decided that: `explicit`, `own_message` or `nothing`; the later by version wins.
    pub read_by: &'static str,
    /// Where setUnread, clearUnread or read put the position last.
    pub explicit_msg_seq: u64,
    /// And when.
    pub explicit_version: u64,
    /// The user's own last message.
    pub own_msg_seq: u64,
    /// And when.
    pub own_version: u64,
    /// Messages up to here were deleted from the user's view.
    pub deleted_to_msg_seq: u64,
    /// Messages up to here came before the user joined.
    pub joined_at_msg_seq: u64,
    /// The newest messages, newest first.
    pub messages: Vec<ExplainedMessage>,
    /// 1 when older messages were left out.
    pub more: u8,
}

/// One message and what unread makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExplainedMessage {
    /// Its place.
    pub message_seq: u64,
    /// Its sender.
    pub from_uid: String,
    /// 1: counted.
    pub counted: u8,
    /// `counted`, or why not.
    pub verdict: &'static str,
}
