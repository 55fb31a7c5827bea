//! What becomes of stored messages: revoke, edit, reactions, who read them, and the search for them.
//!
//! None of it depends on numbering, so it goes past the lanes: planned on a blocking thread, committed by the committer.

use bytes::Bytes;
use protocol::ids::{ChannelKey, MessageId, Uid, Version};

use super::{Hub, Reader};
use crate::domain::message::{Extras, Message, Reaction};
use crate::domain::refusal::Refusal;
use crate::store::MessageChanges;

/// Messages of a page of search when the request names no limit.
pub const SEARCH_LIMIT_DEFAULT: usize = 50;
/// Most messages of a page of search.
pub const SEARCH_LIMIT_MAX: usize = 200;

/// A search in one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What to look for, as typed; folded here.
    pub text: String,
    /// Lowest seq looked at; 0 means 1.
    pub first: u64,
    /// Highest seq looked at; 0 means head.
    pub last: u64,
    /// Most messages; 0 means [`SEARCH_LIMIT_DEFAULT`].
    pub limit: usize,
    /// `true`: the newest of the range. `false`: the oldest (for `after` of threads.txt).
    pub newest_first: bool,
}

/// A page of search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchPage {
    /// In the order asked for.
    pub messages: Vec<Message>,
    /// Where to go on, as `last` (newest first) or `first`; `None`: the range was looked at as a whole.
    pub resume: Option<u64>,
    /// The channel's last seq; 0: none.
    pub head_seq: u64,
}

/// Who has read a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadBy {
    /// Members whose read position is at or above it, its sender left out, ordered by uid.
    pub uids: Vec<Uid>,
    /// How many members could have read it (members now, without its sender).
    pub of: u64,
    /// There are more readers than asked for.
    pub more: bool,
}

impl Hub {
    /// A message by its id.
    ///
    /// # Errors
    /// `NotFound` (also where the reader is no member of its channel: not told apart), the store.
    pub async fn message(&self, reader: Reader, message_id: MessageId) -> Result<Message, Refusal> {
        let _ = (reader, message_id);
        Err(Refusal::Internal)
    }

    /// Takes a message back: by its sender within `messages.revoke_within_s`, by an admin of the group or a back end any
    /// time. Revoking what is revoked is success.
    ///
    /// # Errors
    /// `NotMember`, `NotFound`, `Forbidden` (another's message), `TooLate`, the store.
    pub async fn revoke(&self, actor: Reader, key: ChannelKey, message_seq: u64) -> Result<Version, Refusal> {
        let _ = (actor, key, message_seq);
        Err(Refusal::Internal)
    }

    /// Replaces what a message says: by its sender within `messages.edit_within_s`, by a back end any time.
    ///
    /// # Errors
    /// As [`Hub::revoke`]; `MessageGone`; `TooLarge`; what is wrong with the extras.
    pub async fn edit(
        &self,
        actor: Reader,
        key: ChannelKey,
        message_seq: u64,
        payload: Bytes,
        extras: Option<Box<Extras>>,
    ) -> Result<Version, Refusal> {
        let _ = (actor, key, message_seq, payload, extras);
        Err(Refusal::Internal)
    }

    /// Sets a user's reaction to a message; `None` takes it away. Setting what is set is success and changes nothing.
    ///
    /// # Errors
    /// `NotMember`, `NotFound`, `MessageGone`, `TooMany` (`messages.reactions_max`), the store.
    pub async fn react(
        &self,
        uid: Uid,
        key: ChannelKey,
        message_seq: u64,
        reaction: Option<Reaction>,
    ) -> Result<Version, Refusal> {
        let _ = (uid, key, message_seq, reaction);
        Err(Refusal::Internal)
    }

    /// What changed in messages of a channel after a version.
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn message_changes(
        &self,
        reader: Reader,
        key: ChannelKey,
        since: Version,
        max: usize,
    ) -> Result<MessageChanges, Refusal> {
        let _ = (reader, key, since, max);
        Err(Refusal::Internal)
    }

    /// Who has read a message, from read positions.
    ///
    /// # Errors
    /// `NotMember`, `NotFound`, the store.
    pub async fn read_by(
        &self,
        reader: Reader,
        key: ChannelKey,
        message_seq: u64,
        limit: usize,
    ) -> Result<ReadBy, Refusal> {
        let _ = (reader, key, message_seq, limit);
        Err(Refusal::Internal)
    }

    /// Searches one channel for a substring, after folding.
    ///
    /// # Errors
    /// `Invalid` (an empty text, one over 256 characters), `NotMember`, the store.
    pub async fn search(&self, reader: Reader, key: ChannelKey, search: Search) -> Result<SearchPage, Refusal> {
        let _ = (reader, key, search);
        Err(Refusal::Internal)
    }
}
