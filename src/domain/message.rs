//! A message: its flags, its names, its fingerprint and its leaf in the channel's digest.

use bytes::Bytes;
use protocol::ids::{ChannelKey, ClientMsgNo, FileId, MessageId, MessageSeq, Uid, Version};

use super::event::Lane;

/// How sure a sender wants to be before the ack (design.md section 1, ack-means-stored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// Numbered and in the lot being formed.
    Memory,
    /// fdatasync done.
    #[default]
    Disk,
    /// Refused on a single node.
    Replicated,
}

/// The three header flags (wukongim-http.md 8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageFlags {
    /// Delivered to who is online, never stored, consumes no message_seq.
    pub no_persist: bool,
    /// Counts as unread.
    pub red_dot: bool,
    /// A command: delivered and stored like any other here, never in conversations.
    pub sync_once: bool,
}

/// What a sender asked for, as the hub takes it from any wire.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where to.
    pub channel: ChannelKey,
    /// Who sends.
    pub from_uid: Uid,
    /// The sender's name for it; `None`: no dedupe, the server makes one.
    pub client_msg_no: Option<ClientMsgNo>,
    /// The header flags.
    pub flags: MessageFlags,
    /// Third parties' byte, stored and returned verbatim.
    pub setting: u8,
    /// Topic, empty for none.
    pub topic: String,
    /// Seconds until the message expires; 0: never.
    pub expire_s: u32,
    /// The content, never looked into.
    pub payload: Bytes,
    /// What it refers to; `None`: nothing.
    pub extras: Option<Box<Extras>>,
    /// Wanted durability of the ack.
    pub durability: Durability,
}

/// Most users a message may mention.
pub const MENTIONS_MAX: usize = 100;
/// Most files a message may carry.
pub const FILES_MAX: usize = 32;

/// What a message refers to besides its payload. An empty one is stored as none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// The message it answers or quotes, of the same channel.
    pub reply_to: Option<MessageId>,
    /// Users it mentions, each once, at most [`MENTIONS_MAX`].
    pub mentions: Vec<Uid>,
    /// It mentions every member.
    pub mention_all: bool,
    /// Files it carries, in order, at most [`FILES_MAX`].
    pub files: Vec<FileId>,
}

impl Extras {
    /// Whether it refers to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// About the bytes it takes in a queue and in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let mentions: usize = self.mentions.iter().map(|uid| uid.as_str().len() + 8).sum();
        16 + mentions + self.files.len() * 40
    }

    /// Boxed, or `None` when it refers to nothing.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Self>> {
        (!self.is_empty()).then(|| Box::new(self))
    }
}

/// A user's word on a message. A user has at most one per message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reaction {
    /// Likes it.
    Like = 1,
    /// Dislikes it.
    Dislike = 2,
}

impl Reaction {
    /// The stable word of wires and pages.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Like => "like",
            Self::Dislike => "dislike",
        }
    }
}

/// One user's reaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reacted {
    /// Who.
    pub uid: Uid,
    /// What.
    pub reaction: Reaction,
}

/// A stored message as readers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its channel.
    pub channel: ChannelKey,
    /// Its position in the channel.
    pub message_seq: MessageSeq,
    /// Its id: the version of its record. Its wall clock is [`Message::timestamp_ms`].
    pub message_id: MessageId,
    /// Its sender.
    pub from_uid: Uid,
    /// The sender's name for it.
    pub client_msg_no: ClientMsgNo,
    /// The header flags (`no_persist` is never set on a stored message).
    pub flags: MessageFlags,
    /// Third parties' byte.
    pub setting: u8,
    /// Topic, empty for none.
    pub topic: String,
    /// Seconds until it expires; 0: never.
    pub expire_s: u32,
    /// The content, as last edited; empty when `state` is not [`MessageState::Live`].
    pub payload: Bytes,
    /// What it refers to, as last edited; `None` when `state` is not [`MessageState::Live`].
    pub extras: Option<Box<Extras>>,
    /// Version of its last edit; zero: never edited.
    pub edited: Version,
    /// Reactions of users, in the order of each user's present one; empty when `state` is not [`MessageState::Live`].
    pub reactions: Vec<Reacted>,
    /// What its stored events came to, by number; empty when `state` is not [`MessageState::Live`].
    pub lanes: Vec<Lane>,
    /// Whether it can still be shown.
    pub state: MessageState,
}

impl Message {
    /// When it was committed, Unix milliseconds.
    #[must_use]
    pub fn timestamp_ms(&self) -> u64 {
        self.message_id.unix_ms()
    }

    /// Bytes of what it says: its payload and what its events came to.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.payload.len() + self.lanes.iter().map(Lane::bytes).sum::<usize>()
    }

    /// Users whose present reaction this is, in the order in which they gave it.
    #[must_use]
    pub fn reacted_with(&self, reaction: Reaction) -> Vec<String> {
        let of_kind = self.reactions.iter().filter(|reacted| reacted.reaction == reaction);
        of_kind.map(|reacted| reacted.uid.to_string()).collect()
    }
}

/// What became of a stored message. Its seq stays taken in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// As sent.
    Live,
    /// Its time is over; payload withheld.
    Expired,
    /// Taken back by its sender or an admin; payload withheld.
    Revoked,
    /// Its record is damaged on disk; fields but channel and seq are empty (store.md section 2).
    Damaged,
}

impl MessageState {
    /// The stable word of wires for why a message cannot be shown; `None`: it can.
    #[must_use]
    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Expired => Some("expired"),
            Self::Revoked => Some("revoked"),
            Self::Damaged => Some("damaged"),
        }
    }
}

/// 64-bit fingerprint of (from_uid, client_msg_no). A match is a candidate only, the log record decides.
#[must_use]
pub fn fingerprint(from_uid: &Uid, client_msg_no: &ClientMsgNo) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(from_uid.as_str().len() as u64).to_le_bytes());
    hasher.update(from_uid.as_str().as_bytes());
    hasher.update(client_msg_no.as_str().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A channel's digest: 16 bytes that name the exact prefix of messages a reader holds. All zero for no message.
pub type Digest = [u8; 16];

/// The digest after a message: H(previous, leaf), leaf = H(seq, message_id, from_uid, client_msg_no, H(payload)).
#[must_use]
pub fn chain_digest(
    previous: &Digest,
    message_seq: u64,
    message_id: MessageId,
    from_uid: &Uid,
    client_msg_no: &ClientMsgNo,
    payload: &[u8],
) -> Digest {
    let mut leaf = blake3::Hasher::new();
    leaf.update(&message_seq.to_le_bytes());
    leaf.update(&message_id.get().to_le_bytes());
    leaf.update(&(from_uid.as_str().len() as u64).to_le_bytes());
    leaf.update(from_uid.as_str().as_bytes());
    leaf.update(&(client_msg_no.as_str().len() as u64).to_le_bytes());
    leaf.update(client_msg_no.as_str().as_bytes());
    leaf.update(blake3::hash(payload).as_bytes());
    let mut chain = blake3::Hasher::new();
    chain.update(previous);
    chain.update(leaf.finalize().as_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&chain.finalize().as_bytes()[..16]);
    digest
}
