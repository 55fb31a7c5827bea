//! Chats as the dialects list them: a user's conversations with who is in them, and the one alias space of chat ids.

use protocol::ids::{ChannelKey, Uid, Version};

use super::{Hub, Reader};
use crate::domain::channel::ChannelProfile;
use crate::domain::conversation::ConversationFlags;
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;

/// One conversation of a user with what dialects show of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatRow {
    /// Its channel.
    pub key: ChannelKey,
    /// The id every dialect calls it by: [`crate::domain::channel::chat_id`].
    pub chat_id: String,
    /// Its profile; `None`: none was ever made.
    pub profile: Option<ChannelProfile>,
    /// Its members, in order of joining, at most [`MEMBERS_SHOWN_MAX`].
    pub members: Vec<Uid>,
    /// How many members there are.
    pub member_count: u64,
    /// Countable messages above the floor: the one unread.
    pub unread: u64,
    /// Messages above the floor that mention the user.
    pub mentions: u64,
    /// The last message that is not a command; `None`: there is none the user may see.
    pub last_message: Option<Message>,
    /// Seq of the channel's last message; 0: none.
    pub head_seq: u64,
    /// When it was created, Unix milliseconds.
    pub created_ms: u64,
    /// When something was last written, or it was created, Unix milliseconds.
    pub activity_ms: u64,
    /// When the user last read or wrote there, Unix milliseconds; 0: never.
    pub access_ms: u64,
    /// Messages up to here do not count as unread.
    pub read_to_msg_seq: u64,
    /// What the user decided about it.
    pub flags: ConversationFlags,
    /// A message request that was neither accepted nor answered.
    pub is_request: bool,
    /// Version of the row.
    pub version: Version,
}

/// Members listed in a row at most.
pub const MEMBERS_SHOWN_MAX: usize = 1_000;
/// Rows of a list at most.
pub const CHATS_MAX: usize = 1_000;

/// Which conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatsQuery {
    /// Groups nobody has written in yet come too.
    pub with_empty: bool,
    /// Message requests: only them (`true`), or everything else.
    pub requests: bool,
    /// Rows passed over.
    pub skip: usize,
    /// Most rows, at most [`CHATS_MAX`].
    pub limit: usize,
}

impl Hub {
    /// A user's conversations: pinned ones first, then by last activity, newest first. Costs what it shows, plus one scan of
    /// the user's packed list. Deleted and left ones do not come.
    ///
    /// # Errors
    /// The store.
    pub async fn chats(&self, uid: Uid, query: ChatsQuery) -> Result<Vec<ChatRow>, Refusal> {
        let _ = (uid, query);
        Err(Refusal::Internal)
    }

    /// One conversation, whether or not anything was written.
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn chat(&self, uid: Uid, key: ChannelKey) -> Result<ChatRow, Refusal> {
        let _ = (uid, key);
        Err(Refusal::Internal)
    }

    /// The channel a chat id (any spelling of a uuid) names, whatever wire it was begun on.
    ///
    /// # Errors
    /// `ChannelNotFound`; `NotMember` where the reader is a user and no member of it; the store.
    pub async fn resolve_chat(&self, reader: Reader, chat_id: &str) -> Result<ChannelKey, Refusal> {
        let _ = (reader, chat_id);
        Err(Refusal::Internal)
    }

    /// Marks a conversation as viewed: read up to head. Commits nothing when it was read up to head before (decision: a
    /// client that polls changes no version).
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn view_chat(&self, uid: Uid, key: ChannelKey) -> Result<(), Refusal> {
        let _ = (uid, key);
        Err(Refusal::Internal)
    }

    /// Unread and mentions of a user over all conversations but requests and muted ones.
    ///
    /// # Errors
    /// The store.
    pub async fn unread_totals(&self, uid: Uid) -> Result<(u64, u64), Refusal> {
        let _ = uid;
        Err(Refusal::Internal)
    }
}
