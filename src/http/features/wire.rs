//! JSON of the server's own routes about messages, people and groups.
//!
//! Missing fields and `null` are the zero value; flags are JSON booleans, ids are strings. Where `uid` is not said to be
//! another's it names whom an API key acts for; a user's own credential may leave it out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::extract::null_is_zero;
use crate::http::message::{MessageBody, message_id};

/// `POST /message/revoke` and `POST /message/readers` (which alone looks at `limit`).
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageName {
    /// Whom an API key acts for; it may be left out with the id of a group or of a pair (`a@b`).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// The message's place in the channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_seq: u64,
    /// Most readers in the answer; 0 means 100, at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
}

/// `POST /message/edit`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageEdit {
    /// Whom an API key acts for; it may be left out with the id of a group or of a pair (`a@b`).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// The message's place in the channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_seq: u64,
    /// Standard base64 of the content from now on.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub payload: String,
    /// message_id of the message it answers or quotes from now on, as number or text.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = u64)]
    pub reply_to: u64,
    /// Members it mentions from now on, at most 100.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub mentions: Vec<String>,
    /// It mentions every member from now on.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub mention_all: bool,
    /// Ids of uploaded files it carries from now on, at most 32.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub files: Vec<String>,
}

/// `POST /message/react`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageReact {
    /// Whose reaction. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// The message's place in the channel.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_seq: u64,
    /// `like`, `dislike`, or empty: takes it away.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub reaction: String,
}

/// `POST /message/search`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSearch {
    /// Whom an API key acts for; it may be left out with the id of a group or of a pair (`a@b`).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// What to look for, at most 256 characters; case does not matter.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub text: String,
    /// Lowest seq looked at; 0: from the first.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub start_message_seq: u64,
    /// Highest seq looked at; 0: up to the head.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub end_message_seq: u64,
    /// 0 means 50; at most 200.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// The oldest of the range first; else the newest.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub oldest_first: bool,
}

/// The answer of `POST /message/search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessagesFound {
    /// In the order asked for.
    pub messages: Vec<MessageBody>,
    /// The range was not looked at as a whole: go on with this as `end_message_seq`, or as `start_message_seq` with
    /// `oldest_first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<u64>,
    /// The channel's last seq; 0: none.
    pub head_seq: u64,
}

/// The answer of `POST /message/readers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageReaders {
    /// Members who have read it, without its sender, ordered.
    pub uids: Vec<String>,
    /// How many could have.
    pub of: u64,
    /// There are more.
    pub more: bool,
}

/// `POST /message/changes`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageChangesQuery {
    /// Whom an API key acts for; it may be left out with the id of a group or of a pair (`a@b`).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Only what changed after this version; 0: all that ever changed.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub version: u64,
    /// 0 means 100; at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
}

/// A message that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChangedMessage {
    /// Its place in the channel.
    pub message_seq: u64,
    /// Version of its last change.
    pub version: u64,
}

/// The answer of `POST /message/changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageChangesPage {
    /// Each message once, the latest change first.
    pub items: Vec<ChangedMessage>,
    /// There are more; the oldest changes are left out.
    pub more: bool,
}

/// A change that has a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Versioned {
    /// 200.
    pub status: u16,
    /// The change's version.
    pub version: u64,
}

/// `POST /conversation/flags`. An absent flag stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ConversationFlags {
    /// Whose conversation. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Keep it on top.
    #[serde(default)]
    pub pinned: Option<bool>,
    /// No notifications; unread is counted all the same.
    #[serde(default)]
    pub muted: Option<bool>,
    /// `true`: accept a message request.
    #[serde(default)]
    pub accepted: Option<bool>,
}

/// `POST /user/settings`. Without `strangers` it only asks.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct UserSettings {
    /// Whose. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// First messages of strangers: `allow`, `quarantine` (a message request) or `block`.
    #[serde(default)]
    pub strangers: Option<String>,
}

/// The answer of `POST /user/settings`: as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UserSettingsNow {
    /// `allow`, `quarantine` or `block`.
    pub strangers: &'static str,
}

/// `POST /user/relation`. An absent side stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct UserRelation {
    /// Who decides. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// About whom.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub peer: String,
    /// A contact is never a stranger.
    #[serde(default)]
    pub contact: Option<bool>,
    /// Who is blocked cannot write to `uid`.
    #[serde(default)]
    pub blocked: Option<bool>,
}

/// `POST /user/relations`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct UserRelations {
    /// Whose. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
}

/// What one user is to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RelationNow {
    /// The other user.
    pub peer: String,
    /// A contact.
    pub contact: bool,
    /// Blocked.
    pub blocked: bool,
}

/// `POST /channel/create`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct GroupCreate {
    /// The owner. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// What members call it; at most 255 bytes.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub name: String,
    /// A link or a file's id; at most 1,024 bytes.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub icon: String,
    /// What it is for; at most 1,024 bytes.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
    /// Members beside the owner.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
}

/// `POST /channel/profile`. Without a field to change it only asks.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelProfile {
    /// Whom an API key acts for; it may be left out with the id of a group or of a pair (`a@b`).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// What members call it; at most 255 bytes. Absent: as before.
    #[serde(default)]
    pub name: Option<String>,
    /// A link or a file's id; at most 1,024 bytes. Absent: as before.
    #[serde(default)]
    pub icon: Option<String>,
    /// What it is for; at most 1,024 bytes. Absent: as before.
    #[serde(default)]
    pub description: Option<String>,
}

/// The answer of `POST /channel/create` and `POST /channel/profile`: as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChannelProfileNow {
    /// The channel; for a person channel the peer's uid.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// What members call it.
    pub name: String,
    /// A link or a file's id.
    pub icon: String,
    /// What it is for.
    pub description: String,
    /// Who made it; empty: a back end.
    pub creator: String,
}

/// `POST /channel/members` and `POST /channel/leave` (which looks at the first three).
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelMembers {
    /// Whom an API key acts for. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Members passed over.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub skip: u32,
    /// 0 means 100; at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    /// The member.
    pub uid: String,
    /// `member`, `admin` or `owner`.
    pub role: &'static str,
}

/// The answer of `POST /channel/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MembersPage {
    /// In order of joining.
    pub members: Vec<Member>,
    /// How many there are.
    pub of: u64,
    /// There are more behind these.
    pub more: bool,
}

/// `POST /channel/invite` and `POST /channel/expel`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelUids {
    /// Whom an API key acts for; it may be left out with the id of a group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 2, group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Who.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subscribers: Vec<String>,
}

/// `POST /channel/role`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChannelRole {
    /// Whom an API key acts for; it may be left out with the id of a group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// The group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 2, group.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// The member who gets the role.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub member: String,
    /// `member`, `admin` or `owner`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub role: String,
}
