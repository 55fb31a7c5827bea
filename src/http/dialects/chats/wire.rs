//! The JSON of the chats document, field for field. Fields marked "extra" are ours; the document's clients do not look at
//! them. Times are Unix milliseconds.

use protocol::ids::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::http::dialects::{message_id, millis, texts};
use crate::http::files::File;
use crate::http::loose;

/// `POST /chats/messages`: one target, named in any of its ways.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// A chat that is there.
    #[serde(default, deserialize_with = "loose::text")]
    pub chat_id: Option<String>,
    /// A user: the private chat of both, made by its first message.
    #[serde(rename = "userUUID", default, deserialize_with = "loose::text")]
    pub user_uuid: Option<String>,
    /// The same, as the document's tips call it.
    #[serde(default, deserialize_with = "loose::text")]
    pub user_id: Option<String>,
    /// Users, as a list or joined by commas: a new discussion group of them and the sender.
    #[serde(rename = "userUUIDs", default, deserialize_with = "texts")]
    pub user_uuids: Vec<String>,
    /// The same, as the document's tips call it.
    #[serde(default, deserialize_with = "texts")]
    pub user_ids: Vec<String>,
    /// A group that is there.
    #[serde(rename = "groupUUID", default, deserialize_with = "loose::text")]
    pub group_uuid: Option<String>,
    /// The same, as the document's tips call it.
    #[serde(default, deserialize_with = "loose::text")]
    pub group_id: Option<String>,
    /// What is said. Needed.
    pub message: Option<Said>,
}

/// What a message says.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// `text`, `docId`, `link`, `location` or `profileId`. Needed.
    #[serde(rename = "type", default, deserialize_with = "loose::text")]
    pub kind: Option<String>,
    /// A text or any JSON; readers get it as it was sent. Needed, unless there are files.
    pub content: Option<Value>,
    /// Extra: the message it answers, of the same chat.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub reply_to: Option<Version>,
    /// Extra: users it mentions, as a list or joined by commas.
    #[serde(default, deserialize_with = "texts")]
    pub mentions: Vec<String>,
    /// Extra: ids of uploaded files.
    #[serde(default, deserialize_with = "texts")]
    pub files: Vec<String>,
}

/// The answer of a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// 200.
    pub code: u16,
    /// The message.
    pub id: String,
    /// Its chat, also when this message made it.
    pub chat_id: String,
}

/// `GET /chats/messages`, in the query or in a body; the query wins.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct List {
    /// The chat. Needed.
    #[serde(default, deserialize_with = "loose::text")]
    #[param(required = true)]
    pub chat_id: Option<String>,
    /// Most messages: at least 1; 50 when absent, more than 200 mean 200.
    #[serde(default, deserialize_with = "loose::at_least_one")]
    pub limit: Option<u64>,
    /// Messages passed over, counted from the newest of the range.
    #[serde(default, deserialize_with = "loose::count")]
    pub skip: Option<u64>,
    /// Sent at this moment or later: Unix milliseconds or ISO 8601.
    #[serde(default, deserialize_with = "millis")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub start_at: Option<u64>,
    /// Sent before this moment: Unix milliseconds or ISO 8601.
    #[serde(default, deserialize_with = "millis")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub end_at: Option<u64>,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Page {
    /// 200.
    pub code: u16,
    /// The newest of the range that were not skipped, oldest first.
    pub messages: Vec<Message>,
    /// What was asked, as it was applied, and what there is.
    pub meta: PageMeta,
}

/// About a page of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageMeta {
    /// As applied.
    pub limit: u64,
    /// As applied.
    pub skip: u64,
    /// As applied, Unix milliseconds.
    pub start_at: Option<u64>,
    /// As applied, Unix milliseconds.
    pub end_at: Option<u64>,
    /// Messages of the range. Commands, which no page shows, are numbered too and count.
    pub total: u64,
    /// Whether there are older ones in the range.
    pub has_more: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Unique in the server.
    pub id: String,
    /// Its chat.
    pub chat_id: String,
    /// As it was sent; `text` for what other wires sent as plain text.
    #[serde(rename = "type")]
    pub kind: String,
    /// As it was sent or last edited: a text or JSON; `null` when `state` says why.
    pub content: Value,
    /// Its sender.
    pub from: String,
    /// When it was sent.
    pub created_at: u64,
    /// Extra: its number in the chat, from 1.
    pub seq: u64,
    /// Extra: the message it answers.
    pub reply_to: Option<String>,
    /// Extra: users it mentions.
    pub mentions: Vec<String>,
    /// Extra: its files.
    pub files: Vec<File>,
    /// Extra: users who like it.
    pub likes: Vec<String>,
    /// Extra: users who dislike it.
    pub dislikes: Vec<String>,
    /// Extra: when it was last edited. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<u64>,
    /// Extra: `revoked`, `expired` or `damaged`. Absent: none of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

/// The last message of a chat, or `{}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LastMessage {
    /// There is one.
    Some(Box<Message>),
    /// There is none: an empty object.
    None {},
}

/// `POST /chats/groups`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct NewGroup {
    /// Its members, as a list or joined by commas; who makes it is one in any case.
    #[serde(default, deserialize_with = "texts")]
    pub users: Vec<String>,
    /// What members call it.
    #[serde(default, deserialize_with = "loose::text")]
    pub name: Option<String>,
    /// A link or a file's id.
    #[serde(default, deserialize_with = "loose::text")]
    pub icon: Option<String>,
    /// What it is for.
    #[serde(default, deserialize_with = "loose::text")]
    pub desc: Option<String>,
}

/// `PATCH /chats/groups/{id}`: what is absent stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct GroupChange {
    /// What members call it.
    pub name: Option<String>,
    /// A link or a file's id.
    pub icon: Option<String>,
    /// What it is for.
    pub desc: Option<String>,
}

/// `POST /chats/groups/{id}/users`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Users {
    /// Users, as a list or joined by commas.
    #[serde(default, deserialize_with = "texts")]
    pub users: Vec<String>,
}

/// `PUT /chats/groups/{id}/users/{userId}`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RoleChange {
    /// `member`, `admin` or `owner`.
    #[serde(default, deserialize_with = "loose::text")]
    pub role: Option<String>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// 200.
    pub code: u16,
    /// The group.
    pub id: String,
    /// The same.
    pub group_id: String,
    /// The same: what messages are sent to.
    pub chat_id: String,
    /// 2: a group.
    #[serde(rename = "type")]
    pub kind: u8,
    /// What members call it.
    pub name: String,
    /// A link or a file's id.
    pub icon: String,
    /// What it is for.
    pub desc: String,
    /// Its members, in order of joining.
    pub users: Vec<String>,
    /// Extra: those of them who may do more than write.
    pub roles: Vec<UserRole>,
}

/// What a member may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserRole {
    /// The member.
    pub user_id: String,
    /// `admin` or `owner`.
    pub role: &'static str,
}

/// `GET /chats`, in the query or in a body; the query wins.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListChats {
    /// Most chats: at least 1; absent, or more than 1000: 1000.
    #[serde(default, deserialize_with = "loose::at_least_one")]
    pub limit: Option<u64>,
    /// Chats passed over.
    #[serde(default, deserialize_with = "loose::count")]
    pub skip: Option<u64>,
}

/// The caller's chats.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Chats {
    /// 200.
    pub code: u16,
    /// Pinned ones first, then the one with the latest activity first.
    pub chats: Vec<Chat>,
    /// What was asked, as it was applied.
    pub meta: ChatsMeta,
}

/// About a list of chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatsMeta {
    /// As applied.
    pub limit: u64,
    /// As applied.
    pub skip: u64,
    /// Whether there may be more.
    pub has_more: bool,
}

/// A chat as the caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// The chat.
    pub id: String,
    /// The same.
    pub chat_id: String,
    /// 1 private, 2 group, 3 customer service.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Of a group; empty: it has none.
    pub name: String,
    /// Of a group; empty: it has none.
    pub icon: String,
    /// Of a group; empty: it has none.
    pub desc: String,
    /// The group; `null` for a private chat.
    pub group_id: Option<String>,
    /// The other user of a private chat; `null` for a group.
    #[serde(rename = "userUUID")]
    pub user_uuid: Option<String>,
    /// Its users in order of joining, at most 1000.
    pub user_ids: Vec<String>,
    /// How many messages the caller has not read.
    pub un_read: u64,
    /// Extra: how many of them mention the caller.
    pub mentions: u64,
    /// Extra: the caller keeps it on top.
    pub pinned: bool,
    /// Extra: the caller wants no notifications.
    pub muted: bool,
    /// When something was last sent, or it was made.
    pub updated_at: u64,
    /// When it was made.
    pub created_at: u64,
    /// `{}` when nothing was sent.
    pub last_message: LastMessage,
}

/// `PATCH /chats/messages/{id}`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Edit {
    /// What it says from now on; its `type` stays when absent.
    pub message: Option<Said>,
}

/// Success with the message it is about.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Changed {
    /// 200.
    pub code: u16,
    /// As it is now.
    pub message: Message,
}

/// Success without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Done {
    /// 200.
    pub code: u16,
}

/// What was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// The HTTP status again.
    pub code: u16,
    /// What is wrong, for programs: a stable word.
    pub error: &'static str,
    /// What is wrong, for people.
    pub message: String,
    /// The field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// The request's id, as in the header `x-request-id` and in the server's log.
    pub request_id: String,
}
