//! Chats as the dialects list them: a user's conversations with who is in them, and the one alias space of chat ids.
//!
//! Knows the order of a list and what a row shows; every number in a row is `conversations`' (one-unread).

use protocol::ids::{ChannelKey, ChannelType, Uid, Version};

use super::conversations::{
    self, Standing, facts_of, floor_of, last_shown, members_by_name, plan_clear_unread, standing, unread_of,
};
use super::{Hub, Reader};
use crate::domain::channel::{ChannelProfile, chat_id};
use crate::domain::conversation::{ConversationFlags, ConversationState, LastOwn};
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, Store, StoreError};

/// How often a row is read again because a message came in between; after that its number stands for the head it was
/// counted at.
const ROW_ATTEMPTS: usize = 4;

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

impl ChatRow {
    /// A conversation nobody has begun.
    fn unborn(key: ChannelKey) -> Self {
        let members: Vec<Uid> = members_by_name(&key).into_iter().map(|(uid, _)| uid).collect();
        Self {
            chat_id: chat_id(&key),
            profile: None,
            member_count: members.len() as u64,
            members,
            unread: 0,
            mentions: 0,
            last_message: None,
            head_seq: 0,
            created_ms: 0,
            activity_ms: 0,
            access_ms: 0,
            read_to_msg_seq: 0,
            flags: ConversationFlags::default(),
            is_request: false,
            version: Version::ZERO,
            key,
        }
    }
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

/// A conversation that may be listed, with what its place depends on.
struct Candidate {
    info: ChannelInfo,
    state: ConversationState,
}

impl Candidate {
    /// When something was last written, or it was created.
    fn activity(&self) -> Version {
        self.info.head_version.max(self.info.created)
    }

    /// Whether it is listed at all: there is something to see, or, where that is asked for, there may come something. A
    /// group joined again after it was deleted or left is one nobody has written in since.
    fn is_listed(&self, with_empty: bool) -> bool {
        if !self.state.is_member() {
            return false;
        }
        let is_group = self.info.key.channel_type() != ChannelType::Person;
        let is_empty = self.state.join_version > self.state.delete_version;
        self.info.head_seq > self.state.visible_floor() || (with_empty && is_group && is_empty)
    }

    /// No read where no stranger ever asked.
    fn is_request(&self, store: &dyn Store, uid: &Uid) -> Result<bool, StoreError> {
        if !self.state.flags.request {
            return Ok(false);
        }
        Ok(self.state.is_request(store.last_own(self.info.channel, uid)?))
    }
}

fn candidate(store: &dyn Store, channel: ChannelNo, uid: &Uid) -> Result<Option<Candidate>, StoreError> {
    let Some(state) = store.conversation_state(channel, uid)? else { return Ok(None) };
    Ok(store.channel(channel)?.map(|info| Candidate { info, state }))
}

/// The rows of a list. See [`Hub::chats`].
fn list(store: &dyn Store, uid: &Uid, query: &ChatsQuery) -> Result<Vec<ChatRow>, StoreError> {
    let mut listed = Vec::new();
    for channel in store.channels_of(uid)? {
        if let Some(candidate) = candidate(store, channel, uid)?
            && candidate.is_listed(query.with_empty)
            && candidate.is_request(store, uid)? == query.requests
        {
            listed.push(candidate);
        }
    }
    let place = |row: &Candidate| (row.state.flags.pinned, row.activity(), row.info.channel);
    listed.sort_unstable_by_key(|row| std::cmp::Reverse(place(row)));
    let mut rows = Vec::new();
    for candidate in listed.into_iter().skip(query.skip) {
        if rows.len() >= query.limit.min(CHATS_MAX) {
            break;
        }
        let seen = candidate.info.head_seq > candidate.state.visible_floor();
        let row = row(store, uid, candidate)?;
        // Commands only: never a conversation, unless it is listed as one nobody has written in.
        if row.last_message.is_some() || !seen || (query.with_empty && row.key.channel_type() != ChannelType::Person) {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What is counted of one conversation, for one head.
struct Counted {
    unread: u64,
    floor: u64,
    own: LastOwn,
}

/// Counts, again when a message came in between: it may be the user's own and move the floor.
fn count(store: &dyn Store, uid: &Uid, candidate: &mut Candidate) -> Result<Counted, StoreError> {
    let channel = candidate.info.channel;
    for attempt in 1.. {
        let (floor, own) = floor_of(store, channel, uid, &candidate.state)?;
        let info = &candidate.info;
        let (unread, counted_at) = unread_of(store, channel, &info.key, uid, floor, info.head_seq)?;
        if counted_at == info.head_seq || attempt == ROW_ATTEMPTS {
            candidate.info.head_seq = counted_at;
            return Ok(Counted { unread, floor, own });
        }
        if let Some(now) = self::candidate(store, channel, uid)? {
            *candidate = now;
        }
    }
    Ok(Counted { unread: 0, floor: 0, own: LastOwn::default() })
}

fn mentions(store: &dyn Store, uid: &Uid, info: &ChannelInfo, floor: u64) -> Result<u64, StoreError> {
    if floor >= info.head_seq {
        return Ok(0);
    }
    store.mentions_after(info.channel, uid, floor)
}

/// A member's row: some ten rows and one log read, and as many rows as the members fill.
fn row(store: &dyn Store, uid: &Uid, mut candidate: Candidate) -> Result<ChatRow, StoreError> {
    let Counted { unread, floor, own } = count(store, uid, &mut candidate)?;
    let Candidate { info, state } = &candidate;
    let channel = info.channel;
    let last_message = last_shown(store, channel, info.head_seq, state.visible_floor())?;
    let members = store.memberships(channel)?.into_iter().map(|(uid, _)| uid).take(MEMBERS_SHOWN_MAX).collect();
    let is_request = state.is_request(own);
    let shown = facts_of(info).changed_version.max(info.created);
    Ok(ChatRow {
        chat_id: chat_id(&info.key),
        profile: store.profile(channel)?,
        members,
        member_count: info.member_count,
        unread,
        mentions: mentions(store, uid, info, floor)?,
        last_message,
        head_seq: info.head_seq,
        created_ms: info.created.unix_ms(),
        activity_ms: candidate.activity().unix_ms(),
        access_ms: state.accessed(own).unix_ms(),
        read_to_msg_seq: floor,
        flags: ConversationFlags { request: is_request, ..state.flags },
        is_request,
        version: state.changed_version().max(shown),
        key: info.key.clone(),
    })
}

/// The channel of a chat id. See [`Hub::resolve_chat`].
fn resolve(store: &dyn Store, reader: &Reader, asked: &str) -> Result<ChannelKey, Refusal> {
    let Ok(uuid) = uuid::Uuid::try_parse(asked) else { return Err(Refusal::ChannelNotFound) };
    let spelled = [uuid.hyphenated().to_string(), uuid.simple().to_string(), asked.to_owned()];
    let mut found = None;
    for channel_id in &spelled {
        let Ok(key) = ChannelKey::named(channel_id, ChannelType::Group) else { continue };
        found = store.channel_no(&key).map_err(conversations::refuse)?;
        if found.is_some() {
            break;
        }
    }
    if found.is_none() {
        found = store.alias(&spelled[0]).map_err(conversations::refuse)?;
    }
    let channel = found.ok_or(Refusal::ChannelNotFound)?;
    let info = store.channel(channel).map_err(conversations::refuse)?.ok_or(Refusal::ChannelNotFound)?;
    if let Reader::User(uid) = reader
        && store.membership(channel, uid).map_err(conversations::refuse)?.is_none()
    {
        return Err(Refusal::NotMember);
    }
    Ok(info.key)
}

/// Unread and mentions over a user's conversations. See [`Hub::unread_totals`].
fn totals(store: &dyn Store, uid: &Uid) -> Result<(u64, u64), StoreError> {
    let (mut unread, mut mentioned) = (0, 0);
    for channel in store.channels_of(uid)? {
        let Some(mut candidate) = candidate(store, channel, uid)? else { continue };
        if !candidate.is_listed(false) || candidate.state.flags.muted || candidate.is_request(store, uid)? {
            continue;
        }
        let counted = count(store, uid, &mut candidate)?;
        unread += counted.unread;
        mentioned += mentions(store, uid, &candidate.info, counted.floor)?;
    }
    Ok((unread, mentioned))
}

impl Hub {
    /// A user's conversations: pinned ones first, then by last activity, newest first. Costs what it shows, plus one scan of
    /// the user's packed list. Deleted and left ones do not come.
    ///
    /// # Errors
    /// The store.
    pub async fn chats(&self, uid: Uid, query: ChatsQuery) -> Result<Vec<ChatRow>, Refusal> {
        self.ask(move |store| list(store, &uid, &query).map_err(conversations::refuse)).await
    }

    /// One conversation, whether or not anything was written.
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn chat(&self, uid: Uid, key: ChannelKey) -> Result<ChatRow, Refusal> {
        self.ask(move |store| match standing(store, &uid, &key).map_err(conversations::refuse)? {
            Standing::Member { info, state } => {
                row(store, &uid, Candidate { info: *info, state }).map_err(conversations::refuse)
            }
            Standing::Unborn => Ok(ChatRow::unborn(key)),
            Standing::Outside => Err(Refusal::NotMember),
        })
        .await
    }

    /// The channel a chat id (any spelling of a uuid) names, whatever wire it was begun on.
    ///
    /// # Errors
    /// `ChannelNotFound`; `NotMember` where the reader is a user and no member of it; the store.
    pub async fn resolve_chat(&self, reader: Reader, chat_id: &str) -> Result<ChannelKey, Refusal> {
        let asked = chat_id.to_owned();
        self.ask(move |store| resolve(store, &reader, &asked)).await
    }

    /// Marks a conversation as viewed: read up to head. Commits nothing when it was read up to head before (decision: a
    /// client that polls changes no version).
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn view_chat(&self, uid: Uid, key: ChannelKey) -> Result<(), Refusal> {
        self.change_conversation(key, move |store, key| plan_clear_unread(store, &uid, key)).await.map(drop)
    }

    /// Unread and mentions of a user over all conversations but requests and muted ones.
    ///
    /// # Errors
    /// The store.
    pub async fn unread_totals(&self, uid: Uid) -> Result<(u64, u64), Refusal> {
        self.ask(move |store| totals(store, &uid).map_err(conversations::refuse)).await
    }
}

#[cfg(test)]
mod tests;
