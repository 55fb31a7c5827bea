//! What becomes of stored messages: revoke, edit, reactions, who read them, and the search for them.
//!
//! None of it depends on numbering, so it goes past the lanes: planned on a blocking thread, committed by the committer.
//! Who may what is `domain::channel`'s.

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, MessageId, Uid, Version};

use super::conversations::{Standing as Stands, floor_of, readable, refuse, standing};
use super::drafts::{self, Place, Received};
use super::{Hub, Reader};
use crate::clock;
use crate::domain::channel::{
    Actor, ChannelSettings, Role, Standing, Target, authorise_edit, authorise_revoke, authorise_send,
};
use crate::domain::content::fold;
use crate::domain::message::{Extras, Message, MessageState, Reaction};
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, Commit, MessageChanges, Record, SearchQuery, SeqRange, Store};

/// Messages of a page of search when the request names no limit.
pub const SEARCH_LIMIT_DEFAULT: usize = 50;
/// Most messages of a page of search.
pub const SEARCH_LIMIT_MAX: usize = 200;

/// Longest text to search for, in characters.
pub const SEARCH_TEXT_CHARS_MAX: usize = 256;
/// Changes of messages in one answer at most.
pub const MESSAGE_CHANGES_MAX: usize = 10_000;
/// Members whose read position is looked at for one answer, two rows each.
const READ_BY_LOOKED_AT_MAX: usize = 10_000;
/// Texts one step of a search reads at most.
const SEARCH_SCAN_MAX: usize = 10_000;
/// Seqs that one step of a search from the oldest looks through: all its hits are held at once.
const SEARCH_WINDOW: u64 = 512;
/// Such steps in one request.
const SEARCH_WINDOWS_MAX: usize = 64;

/// Limits of what may become of messages.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// How long a sender may revoke, seconds.
    pub revoke_within_s: u64,
    /// How long a sender may edit, seconds.
    pub edit_within_s: u64,
    /// Users with a reaction to one message.
    pub reactions_max: usize,
    /// Only contacts may write to users, and so change what they wrote to them.
    pub contacts_only: bool,
}

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
    /// There are more readers than asked for, or members that were not looked at.
    pub more: bool,
}

/// A message somebody wants to change.
struct Subject {
    channel: ChannelNo,
    settings: ChannelSettings,
    has_allow_list: bool,
    actor: Actor,
    message: Message,
}

/// Four rows and one log read.
fn subject(store: &dyn Store, reader: &Reader, key: &ChannelKey, message_seq: u64) -> Result<Subject, Refusal> {
    let unknown = Refusal::NotFound { what: "message" };
    let Some((info, _)) = readable(store, reader, key)? else { return Err(unknown) };
    let actor = match reader {
        Reader::Trusted => Actor::Trusted,
        Reader::User(uid) => {
            let membership = store.membership(info.channel, uid).map_err(refuse)?;
            Actor::Member(membership.ok_or(Refusal::NotMember)?.role)
        }
    };
    let message = message_at(store, &info, message_seq)?.ok_or(unknown)?;
    let has_allow_list = info.allowed_count > 0;
    Ok(Subject { channel: info.channel, settings: info.settings, has_allow_list, actor, message })
}

fn message_at(store: &dyn Store, info: &ChannelInfo, seq: u64) -> Result<Option<Message>, Refusal> {
    if seq == 0 || seq > info.head_seq {
        return Ok(None);
    }
    let range = SeqRange { first: seq, last: seq, limit: 1, bytes_max: usize::MAX, newest_first: false };
    Ok(store.messages(info.channel, range).map_err(refuse)?.pop())
}

impl Subject {
    fn is_of(&self, reader: &Reader) -> bool {
        matches!(reader, Reader::User(uid) if *uid == self.message.from_uid)
    }

    fn age_s(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.message.timestamp_ms()) / 1_000
    }

    fn require_live(&self) -> Result<(), Refusal> {
        match self.message.state {
            MessageState::Live => Ok(()),
            MessageState::Expired | MessageState::Revoked | MessageState::Damaged => Err(Refusal::MessageGone),
        }
    }

    /// Who may not write here any more may not change what was written either, but take it back.
    fn require_writable(
        &self,
        store: &dyn Store,
        reader: &Reader,
        key: &ChannelKey,
        contacts_only: bool,
    ) -> Result<(), Refusal> {
        let Reader::User(uid) = reader else { return Ok(()) };
        let sender = drafts::sender(store, key.channel_type(), Some(self.channel), uid).map_err(refuse)?;
        let target = Target {
            channel_type: key.channel_type(),
            exists: true,
            settings: &self.settings,
            has_allow_list: self.has_allow_list,
        };
        authorise_send(target, sender, Standing::Client)?;
        // As for sends, nothing that the other user decided holds for a system user.
        if sender.is_system {
            return Ok(());
        }
        received(store, key, Some(self.channel), uid, contacts_only)?.verdict(Standing::Client)
    }
}

/// What the other user of a person channel lets this one do.
fn received(
    store: &dyn Store,
    key: &ChannelKey,
    channel: Option<ChannelNo>,
    uid: &Uid,
    contacts_only: bool,
) -> Result<Received, Refusal> {
    match key.pair() {
        Some((a, b)) if a != b => {
            let peer = if a == *uid { b } else { a };
            drafts::receive(store, channel, (&peer, uid), false, contacts_only).map_err(refuse)
        }
        _ => Ok(Received::OPEN),
    }
}

fn plan_revoke(
    store: &dyn Store,
    actor: &Reader,
    key: &ChannelKey,
    seq: u64,
    now_ms: u64,
    limits: MessageLimits,
) -> Result<Option<Commit>, Refusal> {
    let subject = subject(store, actor, key, seq)?;
    let is_own = subject.is_of(actor);
    match subject.message.state {
        MessageState::Revoked => return Ok(None),
        MessageState::Expired | MessageState::Damaged => return Err(Refusal::MessageGone),
        MessageState::Live => {}
    }
    // A pair has no admins, whatever its rows say.
    let actor_there = match (key.channel_type(), subject.actor) {
        (ChannelType::Person, Actor::Member(_)) => Actor::Member(Role::Member),
        (_, actor) => actor,
    };
    authorise_revoke(actor_there, is_own, subject.age_s(now_ms), limits.revoke_within_s)?;
    let by = match actor {
        Reader::User(uid) => Some(uid.clone()),
        Reader::Trusted => None,
    };
    Ok(Some(Record::MessageRevoked { channel: subject.channel, seq, by }.into()))
}

/// What a message is to say from now on.
struct Edit {
    payload: Bytes,
    extras: Option<Box<Extras>>,
}

fn plan_edit(
    store: &dyn Store,
    actor: &Reader,
    key: &ChannelKey,
    seq: u64,
    edit: Edit,
    now_ms: u64,
    limits: MessageLimits,
) -> Result<Option<Commit>, Refusal> {
    let subject = subject(store, actor, key, seq)?;
    authorise_edit(subject.actor, subject.is_of(actor), subject.age_s(now_ms), limits.edit_within_s)?;
    subject.require_live()?;
    subject.require_writable(store, actor, key, limits.contacts_only)?;
    let (standing, by) = match actor {
        Reader::User(uid) => (Standing::Client, Some(uid.clone())),
        Reader::Trusted => (Standing::Trusted, None),
    };
    let Subject { channel, message, .. } = subject;
    let held = message.extras.as_ref().map_or(&[][..], |extras| &extras.files);
    let place = Place { key, channel: Some(channel), from_uid: &message.from_uid, standing };
    let extras = match edit.extras {
        Some(extras) => drafts::check_extras(store, place, &extras, held).map_err(refuse)??,
        None => None,
    };
    if message.payload == edit.payload && message.extras == extras {
        return Ok(None);
    }
    Ok(Some(Record::MessageEdited { channel, seq, by, payload: edit.payload, extras }.into()))
}

fn plan_react(
    store: &dyn Store,
    uid: &Uid,
    key: &ChannelKey,
    seq: u64,
    reaction: Option<Reaction>,
    limits: MessageLimits,
) -> Result<Option<Commit>, Refusal> {
    let actor = Reader::User(uid.clone());
    let subject = subject(store, &actor, key, seq)?;
    subject.require_live()?;
    let reactions = &subject.message.reactions;
    let before = reactions.iter().find(|reacted| reacted.uid == *uid).map(|reacted| reacted.reaction);
    if before == reaction {
        return Ok(None);
    }
    if reaction.is_some() {
        // Taking a reaction back is open to whoever may still read it.
        subject.require_writable(store, &actor, key, limits.contacts_only)?;
        if before.is_none() && reactions.len() >= limits.reactions_max {
            return Err(Refusal::TooMany { what: "reactions", max: limits.reactions_max });
        }
    }
    Ok(Some(Record::MessageReacted { channel: subject.channel, seq, uid: uid.clone(), reaction }.into()))
}

fn find_read_by(
    store: &dyn Store,
    reader: &Reader,
    key: &ChannelKey,
    seq: u64,
    limit: usize,
) -> Result<ReadBy, Refusal> {
    let Subject { channel, message, .. } = subject(store, reader, key, seq)?;
    let mut members = store.members(channel).map_err(refuse)?;
    members.retain(|uid| *uid != message.from_uid);
    members.sort_unstable();
    let mut found = ReadBy { of: members.len() as u64, ..ReadBy::default() };
    for (looked_at, uid) in members.into_iter().enumerate() {
        if looked_at >= READ_BY_LOOKED_AT_MAX {
            found.more = true;
            break;
        }
        let Some(state) = store.conversation_state(channel, &uid).map_err(refuse)? else { continue };
        let (_, own) = floor_of(store, channel, &uid, &state).map_err(refuse)?;
        if state.read_position(own) < seq {
            continue;
        }
        if found.uids.len() >= limit {
            found.more = true;
            break;
        }
        found.uids.push(uid);
    }
    Ok(found)
}

/// Finds the newest of a range, or, window by window, the oldest.
fn find(store: &dyn Store, info: &ChannelInfo, pattern: String, search: &Search) -> Result<SearchPage, Refusal> {
    let head_seq = info.head_seq;
    let first = search.first.max(1);
    let last = if search.last == 0 { head_seq } else { search.last.min(head_seq) };
    let limit = if search.limit == 0 { SEARCH_LIMIT_DEFAULT } else { search.limit.min(SEARCH_LIMIT_MAX) };
    let mut page = SearchPage { head_seq, ..SearchPage::default() };
    if first > last {
        return Ok(page);
    }
    if search.newest_first {
        let query = SearchQuery { pattern, first, last, limit, scan_max: SEARCH_SCAN_MAX };
        let found = store.search(info.channel, &query).map_err(refuse)?;
        page.messages = found.messages;
        page.resume = found.resume;
        return Ok(page);
    }
    let mut at = first;
    for _ in 0..SEARCH_WINDOWS_MAX {
        let end = last.min(at.saturating_add(SEARCH_WINDOW - 1));
        let window = SEARCH_WINDOW as usize;
        let query = SearchQuery { pattern: pattern.clone(), first: at, last: end, limit: window, scan_max: window };
        let found = store.search(info.channel, &query).map_err(refuse)?;
        for message in found.messages.into_iter().rev() {
            if page.messages.len() >= limit {
                page.resume = Some(message.message_seq.get());
                return Ok(page);
            }
            page.messages.push(message);
        }
        at = end + 1;
        if at > last {
            return Ok(page);
        }
    }
    page.resume = Some(at);
    Ok(page)
}

impl Hub {
    /// Commits what was planned about a channel; the version of now where nothing has to change.
    async fn change_message(
        &self,
        key: ChannelKey,
        plan: impl FnOnce(&dyn Store, &ChannelKey) -> Result<Option<Commit>, Refusal> + Send + 'static,
    ) -> Result<Version, Refusal> {
        self.refuse_draining()?;
        let asked = key.clone();
        match self.ask(move |store| plan(store, &asked)).await? {
            Some(commit) => self.commit(Some(key), commit, (0, 0)).await,
            None => Ok(self.shared.store.version()),
        }
    }

    /// A message by its id.
    ///
    /// # Errors
    /// `NotFound` (also where the reader is no member of its channel: not told apart), the store.
    pub async fn message(&self, reader: Reader, message_id: MessageId) -> Result<Message, Refusal> {
        self.ask(move |store| {
            let unknown = Refusal::NotFound { what: "message" };
            let message = store.message_by_id(message_id).map_err(refuse)?.ok_or_else(|| unknown.clone())?;
            if let Reader::User(uid) = &reader
                && !matches!(standing(store, uid, &message.channel).map_err(refuse)?, Stands::Member { .. })
            {
                return Err(unknown);
            }
            Ok(message)
        })
        .await
    }

    /// Takes a message back: by its sender within `messages.revoke_within_s`, by an admin of the group or a back end any
    /// time. Revoking what is revoked is success.
    ///
    /// # Errors
    /// `NotMember`, `ChannelNotFound` (trusted), `NotFound`, `Forbidden` (another's message), `TooLate`, `MessageGone` (it
    /// has expired or is damaged), the store.
    pub async fn revoke(&self, actor: Reader, key: ChannelKey, message_seq: u64) -> Result<Version, Refusal> {
        let (now_ms, limits) = (clock::now_ms(), self.shared.limits.messages);
        self.change_message(key, move |store, key| plan_revoke(store, &actor, key, message_seq, now_ms, limits)).await
    }

    /// Replaces what a message says: by its sender within `messages.edit_within_s`, by a back end any time.
    ///
    /// # Errors
    /// As [`Hub::revoke`]; `MessageGone` (revoked too); `TooLarge`; what is wrong with the extras; what a send would be
    /// refused for (`Blocked`, `StrangerRefused`, `ChannelBanned`).
    pub async fn edit(
        &self,
        actor: Reader,
        key: ChannelKey,
        message_seq: u64,
        payload: Bytes,
        extras: Option<Box<Extras>>,
    ) -> Result<Version, Refusal> {
        let max = self.shared.limits.of(key.channel_type()).payload_bytes_max;
        if payload.len() > max {
            return Err(Refusal::TooLarge { field: "payload", bytes: payload.len(), max });
        }
        let (now_ms, limits) = (clock::now_ms(), self.shared.limits.messages);
        let edit = Edit { payload, extras };
        self.change_message(key, move |store, key| plan_edit(store, &actor, key, message_seq, edit, now_ms, limits))
            .await
    }

    /// Sets a user's reaction to a message; `None` takes it away. Setting what is set is success and changes nothing.
    ///
    /// # Errors
    /// `NotMember`, `NotFound`, `MessageGone`, `TooMany` (`messages.reactions_max`), what a send would be refused for (but
    /// when taking it away), the store.
    pub async fn react(
        &self,
        uid: Uid,
        key: ChannelKey,
        message_seq: u64,
        reaction: Option<Reaction>,
    ) -> Result<Version, Refusal> {
        let limits = self.shared.limits.messages;
        self.change_message(key, move |store, key| plan_react(store, &uid, key, message_seq, reaction, limits)).await
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
        self.ask(move |store| {
            let Some((info, _)) = readable(store, &reader, &key)? else { return Ok(MessageChanges::default()) };
            if info.changed_version <= since {
                return Ok(MessageChanges::default());
            }
            store.message_changes(info.channel, since, max.min(MESSAGE_CHANGES_MAX)).map_err(refuse)
        })
        .await
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
        self.ask(move |store| find_read_by(store, &reader, &key, message_seq, limit)).await
    }

    /// Searches one channel for a substring, after folding.
    ///
    /// # Errors
    /// `Invalid` (an empty text, one over 256 characters), `NotMember`, the store.
    pub async fn search(&self, reader: Reader, key: ChannelKey, search: Search) -> Result<SearchPage, Refusal> {
        if search.text.chars().count() > SEARCH_TEXT_CHARS_MAX {
            let reason = format!("has more than {SEARCH_TEXT_CHARS_MAX} characters");
            return Err(Refusal::invalid("text", reason));
        }
        let pattern = fold(&search.text);
        if pattern.is_empty() {
            return Err(Refusal::invalid("text", "is empty"));
        }
        self.ask(move |store| match readable(store, &reader, &key)? {
            Some((info, _)) => find(store, &info, pattern, &search),
            None => Ok(SearchPage::default()),
        })
        .await
    }
}
