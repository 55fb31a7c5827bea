//! The JSON of the threads document, field for field. Fields marked "extra" are ours; the document's clients do not look at
//! them. Times are Unix milliseconds.

use protocol::ids::Version;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::dialects::{message_id, texts};
use crate::http::files::File;
use crate::http::loose;

/// `GET …/threads/{threadId}/messages`, in the query or in a body; the query wins.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct List {
    /// Most messages: at least 1; 50 when absent, more than 200 mean 200.
    #[serde(default, deserialize_with = "loose::at_least_one")]
    pub limit: Option<u64>,
    /// A text that messages hold, whatever its case; no character of it has a meaning of its own.
    #[serde(default, deserialize_with = "loose::text")]
    pub search: Option<String>,
    /// A message of the thread: the latest ones sent before it.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub before: Option<Version>,
    /// A message of the thread: the first ones sent after it.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub after: Option<Version>,
}

/// `POST …/messages`: `thread` or `to`, `content` or `files`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// A thread that is there.
    #[serde(default, deserialize_with = "loose::text")]
    pub thread: Option<String>,
    /// A user: the personal thread of both, made by its first message.
    #[serde(default, deserialize_with = "loose::text")]
    pub to: Option<String>,
    /// The message it answers, of the same thread.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub reply_to: Option<Version>,
    /// Ids of uploaded files.
    #[serde(default, deserialize_with = "texts")]
    pub files: Vec<String>,
    /// What it says.
    #[serde(default, deserialize_with = "loose::text")]
    pub content: Option<String>,
    /// Extra: users it mentions.
    #[serde(default, deserialize_with = "texts")]
    pub mentions: Vec<String>,
}

/// The answer of a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sent {
    /// The message.
    pub message: ChatMessage,
    /// The thread, when this message made it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<ChatThread>,
}

/// A message as it is after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changed {
    /// The message.
    pub message: ChatMessage,
}

/// A thread as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatThread {
    /// The thread.
    #[serde(rename = "_id")]
    pub id: String,
    /// `personal`, `group` or `custom`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The project; present when `type` is `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its name; present when `type` is `custom`, and where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its users in order of joining, at most 1000.
    pub users: Vec<String>,
    /// When something was last sent, or it was made.
    pub activity: u64,
    /// When the caller last viewed it or wrote there; 0: never.
    pub access: u64,
    /// The last message; `null`: none.
    pub last_message: Option<ChatMessage>,
    /// Messages of others since the caller's last access: what is unread.
    pub new_activity_count: u64,
    /// When it was made.
    pub created_at: u64,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// Unique in the server.
    #[serde(rename = "_id")]
    pub id: String,
    /// Its thread.
    pub thread: String,
    /// Its sender.
    pub from: String,
    /// What it says; empty when `state` says why.
    pub content: String,
    /// Its files.
    pub files: Vec<File>,
    /// Users who like it, in the order in which they said so.
    pub likes: Vec<String>,
    /// Users who dislike it, in the order in which they said so.
    pub dislikes: Vec<String>,
    /// The message it answers.
    pub reply_to: Option<String>,
    /// When it was sent.
    pub created_at: u64,
    /// Extra: users it mentions. Absent: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// Extra: when it was last edited. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<u64>,
    /// Extra: `revoked`, `expired` or `damaged`. Absent: none of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
}

/// `POST …/threads`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct NewThread {
    /// `custom`, or `group` (an API key without a user only). Absent: `group` when `group` is given, else `custom`.
    #[serde(rename = "type", default, deserialize_with = "loose::text")]
    pub kind: Option<String>,
    /// Its name; needed for `custom`.
    #[serde(default, deserialize_with = "loose::text")]
    pub name: Option<String>,
    /// Its users, as a list or joined by commas; who makes it is one in any case.
    #[serde(default, deserialize_with = "texts")]
    pub users: Vec<String>,
    /// The project; needed for `group`. A project has one thread.
    #[serde(default, deserialize_with = "loose::text")]
    pub group: Option<String>,
}

/// `PATCH …/threads/{threadId}`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ThreadChange {
    /// Its name from now on. Needed.
    #[serde(default, deserialize_with = "loose::text")]
    pub name: Option<String>,
}

/// `POST …/threads/{threadId}/users`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Users {
    /// Users, as a list or joined by commas. Needed.
    #[serde(default, deserialize_with = "texts")]
    pub users: Vec<String>,
}

/// The users of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Members {
    /// In order of joining.
    pub users: Vec<String>,
}

/// `PATCH …/messages/{messageId}`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Edit {
    /// What it says from now on. Needed.
    #[serde(default, deserialize_with = "loose::text")]
    pub content: Option<String>,
}

/// What was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// The HTTP status again.
    pub status: u16,
    /// What is wrong, for programs: a stable word.
    pub code: &'static str,
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
