//! relation.txt field for field, and the shapes of the routes around it.

use protocol::ids::MessageId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::dialects::{message_id, millis, texts};
use crate::http::extract::null_is_zero;

/// What every answer looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer<T> {
    /// `"0"`: done. Everything else says why not; see docs/dialects.md.
    pub code: String,
    /// The same for people.
    pub desc: String,
    /// What was asked for; `null` where `code` is not `"0"`.
    pub data: Option<T>,
}

/// An answer that carries nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Nothing {}

/// The answer to what was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// Why, for programs.
    pub code: String,
    /// Why, for people: what the code means, and what is wrong here.
    pub desc: String,
    /// Always `null`.
    pub data: Option<Nothing>,
    /// The field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// The request's id, as in the header `x-request-id` and in the server's log.
    pub request_id: String,
}

/// `POST /api/v1/auth`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The user a token is wanted for. With the user's own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub relation_id: String,
    /// Kind of device the token is for: 0 app, 1 web, 2 pc. It replaces the user's token of that kind.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub device_flag: u8,
}

/// The answer of `POST /api/v1/auth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authed {
    /// The bearer of all other calls. A new one, or the one that was shown.
    pub unified_auth_token: String,
    /// Whose it is.
    pub relation_id: String,
    /// Kind of device it is for.
    pub device_flag: u8,
    /// Whether it was made by this call.
    pub created: bool,
}

/// `POST /api/v1/message/send`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// The chat, as 32 hexadecimal digits or hyphenated. It or `toRelationId` is needed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// The other user. Both given must agree: `channelUuid` wins where this user is its member.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub to_relation_id: String,
    /// `text` (also when left out), `card`, or a word of one's own, in any case; `sys` for back ends only.
    #[serde(default, rename = "type", deserialize_with = "null_is_zero")]
    pub kind: String,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub content: String,
    /// The client's name for it: a repeat gets the first outcome. Left out: the server makes one.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub send_uuid: String,
    /// The message it quotes, of the same chat, as string or number.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub quote_id: Option<MessageId>,
    /// Users it mentions.
    #[serde(default, deserialize_with = "texts")]
    pub mentioned_user: Vec<String>,
    /// For a back end with an API key as bearer: who sends. Left out: the system user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// `data` of `POST /api/v1/message/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The chat.
    pub channel_uuid: String,
    /// The message's id.
    pub id: String,
}

/// Names a chat.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatName {
    /// The chat. It or `toRelationId` is needed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// The other user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub to_relation_id: String,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// `/api/v1/message/list`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// The chat. It or `toRelationId` is needed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// The other user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub to_relation_id: String,
    /// Only messages of this moment or before, Unix milliseconds. Left out: the newest.
    #[serde(default, deserialize_with = "millis")]
    #[schema(value_type = Option<u64>)]
    pub max_create_at: Option<u64>,
    /// Only messages before this one: the exact way to the next page.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub before_id: Option<MessageId>,
    /// Most messages. Left out or 0: 20; more than 200 means 200.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Newest first.
    pub messages: Vec<Message>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Its chat.
    pub channel_uuid: String,
    /// Its place in the chat, from 1 without gaps.
    pub seq: u64,
    /// Its sender.
    pub from_relation_id: String,
    /// `text`, `sys`, `card` or another word, in lower case.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says; empty when `state` says why.
    pub content: String,
    /// The sender's name for it.
    pub send_uuid: String,
    /// The message it quotes.
    pub quote_id: Option<String>,
    /// Users it mentions.
    pub mentioned_user: Vec<String>,
    /// When it was stored, Unix milliseconds.
    pub create_at: u64,
    /// `revoked`, `expired` or `damaged`; absent for a message as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `POST /api/v1/message/read`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Read {
    /// The chat. It or `toRelationId` is needed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// The other user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub to_relation_id: String,
    /// Read up to this message; left out: all of it.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub message_id: Option<MessageId>,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// How much is unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    /// Messages.
    pub unread_count: u64,
    /// Those among them that mention the user.
    pub mentions_count: u64,
}

/// `/api/v1/chats/list`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chats {
    /// Most chats. Left out or 0: 100; more than 1,000 means 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// Chats passed over.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub skip: u32,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// A chat as its owner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Its id.
    pub channel_uuid: String,
    /// `person` or `group`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The other user of a person chat.
    pub to_relation_id: Option<String>,
    /// What its members call it.
    pub name: String,
    /// A link, or a file's id.
    pub icon: String,
    /// How many members.
    pub member_count: u64,
    /// Unread messages.
    pub unread_count: u64,
    /// Those among them that mention the user.
    pub mentions_count: u64,
    /// Kept on top.
    pub pinned: bool,
    /// No notifications.
    pub muted: bool,
    /// Its last message.
    pub last_message: Option<Message>,
    /// When something was last written, Unix milliseconds.
    pub update_at: u64,
}

/// Many chats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatList {
    /// Pinned ones first, then by last activity, newest first.
    pub chats: Vec<Chat>,
}

/// `POST /api/v1/chats/pin` and `POST /api/v1/chats/mute`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flag {
    /// The chat. It or `toRelationId` is needed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// The other user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub to_relation_id: String,
    /// `true` (also when left out) sets it, `false` takes it away.
    #[serde(default = "yes")]
    pub on: bool,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

fn yes() -> bool {
    true
}

/// `POST /api/v1/settings`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingsChange {
    /// What becomes of first messages of strangers: `allow`, `quarantine` (they come as requests) or `block` (13301).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub strangers: String,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// A user's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// `allow`, `quarantine` or `block`.
    pub strangers: String,
}

/// Names another user.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The other user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub relation_id: String,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// Names nobody.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// What another user is to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// The other user.
    pub relation_id: String,
    /// A contact: never a stranger.
    pub contact: bool,
    /// Blocked: may not write to the caller.
    pub blocked: bool,
}

/// Many users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Relations {
    /// By id.
    pub users: Vec<Relation>,
}

/// `POST /api/v1/groups/create`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupCreate {
    /// What members call it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub name: String,
    /// A link, or a file's id.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub icon: String,
    /// What it is for.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// Members beside the caller, who becomes its owner.
    #[serde(default, deserialize_with = "texts")]
    pub members: Vec<String>,
    /// For a back end with an API key as bearer: who owns it. Left out: nobody.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// `POST /api/v1/groups/invite` and `POST /api/v1/groups/remove`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupChange {
    /// The group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_uuid: String,
    /// Who comes or goes.
    #[serde(default, deserialize_with = "texts")]
    pub members: Vec<String>,
    /// For a back end with an API key as bearer: for whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub from_relation_id: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its id.
    pub channel_uuid: String,
    /// What members call it.
    pub name: String,
    /// A link, or a file's id.
    pub icon: String,
    /// What it is for.
    pub description: String,
    /// In the order of joining.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Who.
    pub relation_id: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
}
