//! m3o.txt field for field. The command line prints the same shapes (`chinwag chat`).

use protocol::ids::MessageId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::dialects::{message_id, texts};
use crate::http::extract::null_is_zero;

/// `POST /chat/New`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct New {
    /// The users, as an array or as one text with commas, in any order. With a user's own token that user is always one of
    /// them.
    #[serde(default, deserialize_with = "texts")]
    pub user_ids: Vec<String>,
}

/// The answer of `POST /chat/New`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Created {
    /// The chat of these users: always the same one for the same users.
    pub chat_id: String,
}

/// `POST /chat/Send`. With nothing but `chat_id` it is answered as `/chat/History`, as the page prints it.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Send {
    /// The chat.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub chat_id: String,
    /// Who sends; a member. With a user's own token: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub user_id: String,
    /// What it is about.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub subject: String,
    /// What it says.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub text: String,
    /// The client's name for it, unique per chat and user: makes a retry safe. Left out: the server makes one.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_id: String,
}

impl Send {
    /// The page's literal call for the history: a chat and nothing else.
    #[must_use]
    pub fn is_history(&self) -> bool {
        let others = [&self.user_id, &self.subject, &self.text, &self.client_id];
        !self.chat_id.is_empty() && others.iter().all(|text| text.is_empty())
    }
}

/// What `/chat/Send` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SendAnswer {
    /// To the page's literal call for the history.
    History(Page),
    /// To a message: it is on disk.
    Sent(Sent),
}

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Sent {}

/// `POST /chat/History`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct History {
    /// The chat.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub chat_id: String,
    /// For a back end: read as this user, who must be a member. Left out: as the back end.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub user_id: String,
    /// Most messages. Left out or 0: 50; more than 1,000 means 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// Only messages before this one: the way to older pages.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = Option<String>)]
    pub before: Option<MessageId>,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// The newest ones, oldest first.
    pub messages: Vec<Message>,
    /// Present where there are older ones: ask again with the first id as `before`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// The sender's name for it.
    pub client_id: String,
    /// Its chat.
    pub chat_id: String,
    /// Its sender.
    pub user_id: String,
    /// What it is about; empty: nothing was said.
    pub subject: String,
    /// What it says; empty when `state` says why.
    pub text: String,
    /// When it was stored, Unix seconds.
    pub sent_at: u64,
    /// `revoked`, `expired` or `damaged`; absent for a message as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Micro's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Error {
    /// The method and what is wrong: `chat.Send.MissingText`.
    pub id: String,
    /// The HTTP status again.
    pub code: u16,
    /// What is wrong, for people.
    pub detail: String,
    /// What the HTTP status is called.
    pub status: String,
}
