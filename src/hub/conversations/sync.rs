//! `conversation/sync`: which rows a client must learn of, and each row as it stands (design.md section 5).
//!
//! A sync is planned first ([`SyncPlan::new`]: its version, then the rows in order, without a message read), then its rows are
//! read, all at once or chunk by chunk, so that an edge may stream a long answer or page it. A row may be newer than the
//! plan; its `version` never says so, because a client that keeps the maximum of the versions it saw must not step over
//! changes of rows that were chosen before.

use std::collections::{HashMap, HashSet};

use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid, Version};
use protocol::sync::{CursorRef, CursorText, Cursors, ResolveError, check_list};

use super::{floor_of, refuse, unread_of};
use crate::domain::conversation::{ChannelFacts, ConversationState, LastOwn, Presence, Since};
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, MessageChanges, SeqRange, Store, StoreError, VersionStanding};

/// Most recents of a row; the edges cap `msg_count` to it.
pub const MSG_COUNT_MAX: usize = 1_000;
/// Most bytes of recents in one answer; rows beyond it carry none.
pub const RECENTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many commands are passed over in search of a row's last message and recents. Where a channel ends in more, the row
/// stays listed, without naming its last message.
pub const LOOK_BACK_MAX: usize = 1_000;
/// Messages read at a time when looking back past commands.
const LOOK_BACK_PAGE: usize = 64;
/// Payload bytes of such a read; they are dropped.
const LOOK_BACK_BYTES_MAX: usize = 64 * 1024;
/// What a message weighs in an answer beside its payload and names.
const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// Up to how many changed channels are looked up one by one before the user's own list is read instead: one scan of packed
/// pages costs about as much, however many channels changed elsewhere.
const LOOK_UPS_MAX: usize = 16;
/// How often a row is read again because a message came in between. After that the count stands for the head it was taken
/// at, with a floor that may be one own message older; that message's delivery or delta corrects it.
const ROW_ATTEMPTS: usize = 4;

/// Changes of older messages that a row lists at most.
pub const CHANGED_MAX: usize = 100;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Whose conversations.
    pub uid: Uid,
    /// The largest version the client has; zero: everything.
    pub version: Version,
    /// What the client has of each channel. `None`, like no entry at all: not told.
    pub cursors: Option<Cursors>,
    /// Most recents of a row, at most [`MSG_COUNT_MAX`]; [`SyncRequest::msg_count_of`] checks the wire's number.
    pub msg_count: usize,
    /// Most bytes of recents in the answer; [`RECENTS_BYTES_MAX`] unless the wire bears less.
    pub recents_bytes_max: usize,
    /// Whether tombstones of deleted and left conversations come in increments.
    pub with_deleted: bool,
    /// Only rows with unread above 0; a channel named in the cursors comes anyway, and so do tombstones asked for.
    pub only_unread: bool,
    /// Types left out; a channel named in the cursors comes anyway.
    pub exclude_channel_types: Vec<ChannelType>,
    /// Which part of the rows.
    pub page: Page,
}

impl SyncRequest {
    /// Everything of a user, nothing left out: what edges start from.
    #[must_use]
    pub fn full(uid: Uid, msg_count: usize) -> Self {
        Self {
            uid,
            version: Version::ZERO,
            cursors: None,
            msg_count: msg_count.min(MSG_COUNT_MAX),
            recents_bytes_max: RECENTS_BYTES_MAX,
            with_deleted: false,
            only_unread: false,
            exclude_channel_types: Vec::new(),
            page: Page::All,
        }
    }

    /// Takes `msg_count` of the wire: capped.
    ///
    /// # Errors
    /// `Invalid` when negative.
    pub fn msg_count_of(wire: i64) -> Result<usize, Refusal> {
        match usize::try_from(wire) {
            Ok(count) => Ok(count.min(MSG_COUNT_MAX)),
            Err(_) if wire < 0 => Err(Refusal::invalid("msg_count", "must not be negative")),
            Err(_) => Ok(MSG_COUNT_MAX),
        }
    }
}

/// Which part of the rows an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Page {
    /// All of them.
    #[default]
    All,
    /// At most so many, behind a place an earlier answer ended at.
    Rows {
        /// [`SyncAnswer::more`] of the answer before; the request is otherwise repeated unchanged.
        after: Option<PageAfter>,
        /// At least 1.
        rows_max: usize,
    },
    /// The reference's `page` and `page_size` (wukongim-http.md 6.1). Numbers slice what was chosen without reading
    /// messages: a row dropped later (unread asked for, commands only) leaves its page shorter.
    Number {
        /// From 1.
        page: usize,
        /// At least 1.
        page_size: usize,
    },
}

/// Where a page ended. Opaque to clients; the numbers travel as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAfter {
    /// The version of the first page: the state all pages together are at. What changed since comes as live or delta.
    pub version: Version,
    /// Place of the last row: version of its last message …
    pub order: Version,
    /// … and its channel's number.
    pub channel: ChannelNo,
}

/// A state of a user's conversations, or the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    /// What the state is at: later changes have greater versions. Send it back next time.
    pub version: Version,
    /// The request's version was none of ours, so this is everything and the client drops what it has.
    pub reset: bool,
    /// By time of the last message, newest first; where a command came last, a row may lie before its place if the answer
    /// is one page of several.
    pub rows: Vec<SyncRow>,
    /// Where to go on, when there may be more rows.
    pub more: Option<PageAfter>,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRow {
    /// Its channel; `channel.id_for(uid)` is what the asker calls it.
    pub channel: ChannelKey,
    /// Countable messages above the floor.
    pub unread: u64,
    /// When its last message was committed, or it was deleted; Unix seconds.
    pub timestamp_s: u64,
    /// Seq of its last message that is not a command. Of a tombstone: messages up to here are gone.
    pub last_msg_seq: u64,
    /// That message's name; empty where it is not known (tombstones, damage, a channel ending in commands only).
    pub last_client_msg_no: String,
    /// The row's version, at most [`SyncAnswer::version`].
    pub version: Version,
    /// Messages up to here do not count as unread.
    pub read_to_msg_seq: u64,
    /// Messages up to here were deleted from the user's view: a client drops what it holds of them. It tells of a deletion
    /// also where a later message revived the conversation before the client asked.
    pub deleted_to_msg_seq: u64,
    /// The user deleted it or is no longer a member; nothing but `last_msg_seq` and `version` matters.
    pub is_deleted: bool,
    /// The client's cursor was above head: it drops what it has of this channel.
    pub reset: bool,
    /// Whether `recents` reach down to the cursor, or without one to the beginning of what the user may see here.
    pub complete: bool,
    /// Seq of the oldest of `recents`; 0: none.
    pub first_seq: u64,
    /// Newest first; above the cursor and the delete floor, without commands.
    pub recents: Vec<Message>,
    /// Messages revoked, edited, reacted to or expired after the version of the request, each once with the version of its
    /// last change, the latest first, at most [`CHANGED_MAX`]: a client fetches those it holds. Empty in a full answer.
    pub changed: Vec<(u64, Version)>,
    /// More were changed than `changed` lists: a client asks for the channel's changes after its version.
    pub changed_more: bool,
    /// Kept on top.
    pub pinned: bool,
    /// No notifications.
    pub muted: bool,
    /// A message request that was neither accepted nor answered.
    pub request: bool,
    /// Messages above the floor that mention the user.
    pub mentions: u64,
}

/// Answers a sync in one go.
///
/// # Errors
/// `Invalid` naming `last_msg_seqs` with the parts that do not parse, or a page of 0 rows; unavailable or internal when the
/// store cannot answer.
pub fn sync(store: &dyn Store, request: &SyncRequest) -> Result<SyncAnswer, Refusal> {
    let mut plan = SyncPlan::new(store, request)?;
    let rows_max = match request.page {
        Page::Rows { rows_max, .. } => rows_max,
        Page::All | Page::Number { .. } => usize::MAX,
    };
    let rows = plan.next_rows(store, rows_max)?;
    Ok(SyncAnswer { version: plan.version(), reset: plan.reset(), rows, more: plan.more() })
}

/// A sync whose rows are chosen and ordered but not read.
#[derive(Debug)]
pub struct SyncPlan {
    uid: Uid,
    version: Version,
    reset: bool,
    since: Since,
    msg_count: usize,
    recents_bytes_left: usize,
    only_unread: bool,
    chosen: std::vec::IntoIter<Chosen>,
    reached: Option<PageAfter>,
}

/// A row to read.
#[derive(Debug)]
struct Chosen {
    channel: ChannelNo,
    key: ChannelKey,
    facts: ChannelFacts,
    state: ConversationState,
    cursor: Option<u64>,
}

impl Chosen {
    /// The place in the answer; unique, since no two messages share a version.
    fn order(&self) -> (Version, ChannelNo) {
        let order = match self.state.presence(self.facts.head_seq) {
            Presence::Shown => self.facts.head_version,
            Presence::Gone | Presence::Never => self.state.changed_version(),
        };
        (order, self.channel)
    }
}

pub(in crate::hub) fn facts_of(info: &ChannelInfo) -> ChannelFacts {
    ChannelFacts { head_seq: info.head_seq, head_version: info.head_version, changed_version: info.changed_version }
}

impl SyncPlan {
    /// Chooses the rows. Reads in proportion to the rows chosen and the cursors given, plus at most one scan of the user's
    /// own channels; with version zero, to the user's channels.
    ///
    /// # Errors
    /// As [`sync`].
    pub fn new(store: &dyn Store, request: &SyncRequest) -> Result<Self, Refusal> {
        // clean-cut: whatever is read from here on is at this version or newer.
        let now = store.version();
        let reset =
            request.version > Version::ZERO && store.version_standing(request.version) == VersionStanding::Unknown;
        let version = if reset { Version::ZERO } else { request.version };
        let since = Since { version, with_deleted: request.with_deleted };
        // A malformed cursor is refused even where it would be ignored: the client has a defect either way.
        let cursors = match &request.cursors {
            Some(cursors) if !cursors.is_empty() => resolve(store, &request.uid, cursors)?,
            _ => HashMap::new(),
        };
        let cursors = if reset { HashMap::new() } else { cursors };
        let mut chosen = choose(store, request, since, &cursors).map_err(refuse)?;
        chosen.sort_unstable_by_key(|row| std::cmp::Reverse(row.order()));
        let mut plan = Self {
            uid: request.uid.clone(),
            version: now,
            reset,
            since,
            msg_count: request.msg_count.min(MSG_COUNT_MAX),
            recents_bytes_left: request.recents_bytes_max,
            only_unread: request.only_unread,
            chosen: Vec::new().into_iter(),
            reached: None,
        };
        match request.page {
            Page::All => {}
            Page::Rows { rows_max: 0, .. } => return Err(Refusal::invalid("rows_max", "must not be 0")),
            Page::Rows { after, .. } => {
                plan.version = after.map_or(now, |after| after.version.min(now));
                chosen = behind(chosen, plan.version, after);
            }
            Page::Number { page_size: 0, .. } => return Err(Refusal::invalid("page_size", "must not be 0")),
            Page::Number { page, page_size } => {
                let skipped = page.saturating_sub(1).saturating_mul(page_size).min(chosen.len());
                chosen.drain(..skipped);
                chosen.truncate(page_size);
            }
        }
        plan.chosen = chosen.into_iter();
        Ok(plan)
    }

    /// What the state is at.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the request's version was none of ours.
    #[must_use]
    pub fn reset(&self) -> bool {
        self.reset
    }

    /// How many rows are left to read, at most.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.chosen.len()
    }

    /// Where a later request goes on; `None` when nothing is left.
    #[must_use]
    pub fn more(&self) -> Option<PageAfter> {
        if self.chosen.len() == 0 { None } else { self.reached }
    }

    /// Gives the rows still to come a new allowance of bytes: for an edge that sends each chunk as an answer of its own.
    pub fn refill_recents(&mut self, bytes: usize) {
        self.recents_bytes_left = bytes;
    }

    /// Reads the next rows, at most `rows_max`; fewer only when nothing is left. Within them the order is by the time of
    /// the last message, ties by version, newest first. A handful of rows and, per row, one log read in the usual case.
    ///
    /// # Errors
    /// Unavailable or internal when the store cannot answer.
    pub fn next_rows(&mut self, store: &dyn Store, rows_max: usize) -> Result<Vec<SyncRow>, Refusal> {
        let mut rows: Vec<(Version, SyncRow)> = Vec::with_capacity(self.chosen.len().min(rows_max));
        while rows.len() < rows_max {
            let Some(chosen) = self.chosen.next() else { break };
            let (order, channel) = chosen.order();
            self.reached = Some(PageAfter { version: self.version, order, channel });
            rows.extend(self.read_row(store, chosen).map_err(refuse)?);
        }
        rows.sort_by_key(|(last, row)| std::cmp::Reverse((*last, row.version)));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// The row with the version of its last message, `None` when it turns out not to be one.
    fn read_row(&mut self, store: &dyn Store, chosen: Chosen) -> Result<Option<(Version, SyncRow)>, StoreError> {
        let Chosen { channel, key, mut facts, mut state, cursor } = chosen;
        let mut presence = state.presence(facts.head_seq);
        let (mut unread, mut floor, mut own) = (0, 0, LastOwn::default());
        for attempt in 1..=ROW_ATTEMPTS {
            if presence != Presence::Shown {
                break;
            }
            (floor, own) = floor_of(store, channel, &self.uid, &state)?;
            let counted_at;
            (unread, counted_at) = unread_of(store, channel, &key, &self.uid, floor, facts.head_seq)?;
            // A message stored in between may be the user's own and move the floor: only a count for the head the floor
            // was read at makes one row.
            if counted_at == facts.head_seq {
                break;
            }
            if attempt == ROW_ATTEMPTS {
                facts.head_seq = counted_at;
                break;
            }
            let (Some(info), Some(now)) = (store.channel(channel)?, store.conversation_state(channel, &self.uid)?)
            else {
                return Ok(None);
            };
            (facts, state) = (facts_of(&info), now);
            presence = state.presence(facts.head_seq);
        }
        let version = state.row_version(presence, &facts);
        if presence != Presence::Shown {
            return Ok(self.tombstone(key, &state, presence));
        }
        let is_named = cursor.is_some();
        if self.only_unread && unread == 0 && !is_named {
            return Ok(None);
        }
        let reset = cursor.is_some_and(|cursor| cursor > facts.head_seq);
        let held = cursor.unwrap_or(0).min(facts.head_seq);
        let tail = self.read_tail(store, channel, &facts, state.visible_floor(), held)?;
        let Some(last) = tail.last else { return Ok(self.tombstone(key, &state, Presence::Gone)) };
        let is_news = !self.since.is_full() && version > self.since.version;
        if is_named && !reset && !is_news && held >= last.seq {
            return Ok(None);
        }
        // Whoever begins anew holds nothing that could have changed.
        let asks = !self.since.is_full() && facts.changed_version > self.since.version;
        let changes = match asks {
            true => store.message_changes(channel, self.since.version, CHANGED_MAX)?,
            false => MessageChanges::default(),
        };
        let mentions = match floor < facts.head_seq {
            true => store.mentions_after(channel, &self.uid, floor)?,
            false => 0,
        };
        let row = SyncRow {
            channel: key,
            unread,
            timestamp_s: last.version.unix_ms() / 1_000,
            last_msg_seq: last.seq,
            last_client_msg_no: last.client_msg_no,
            version: version.min(self.version),
            read_to_msg_seq: floor,
            deleted_to_msg_seq: state.visible_floor(),
            is_deleted: false,
            reset,
            complete: tail.complete,
            first_seq: tail.recents.last().map_or(0, |message| message.message_seq.get()),
            recents: tail.recents,
            changed: changes.changes,
            changed_more: changes.more,
            pinned: state.flags.pinned,
            muted: state.flags.muted,
            request: state.is_request(own),
            mentions,
        };
        Ok(Some((last.version, row)))
    }

    /// A tombstone, where one may be sent: in an increment that asked for them, for what was there once and changed.
    fn tombstone(&self, key: ChannelKey, state: &ConversationState, presence: Presence) -> Option<(Version, SyncRow)> {
        let changed = state.changed_version();
        let was_there =
            presence == Presence::Gone && (state.delete_version > Version::ZERO || state.leave_version > Version::ZERO);
        if !was_there || self.since.is_full() || !self.since.with_deleted || changed <= self.since.version {
            return None;
        }
        let row = SyncRow {
            channel: key,
            unread: 0,
            timestamp_s: changed.unix_ms() / 1_000,
            last_msg_seq: state.delete_floor,
            last_client_msg_no: String::new(),
            version: changed.min(self.version),
            read_to_msg_seq: state.delete_floor,
            deleted_to_msg_seq: state.delete_floor,
            is_deleted: true,
            reset: false,
            complete: true,
            first_seq: 0,
            recents: Vec::new(),
            changed: Vec::new(),
            changed_more: false,
            pinned: state.flags.pinned,
            muted: state.flags.muted,
            request: false,
            mentions: 0,
        };
        Some((changed, row))
    }

    /// Reads a channel's end, newest first, down to what the row needs: its last message that is no command, and up to
    /// `msg_count` recents above `held`.
    fn read_tail(
        &mut self,
        store: &dyn Store,
        channel: ChannelNo,
        facts: &ChannelFacts,
        floor: u64,
        held: u64,
    ) -> Result<Tail, StoreError> {
        let low = floor.max(held);
        let mut tail = Tail { last: None, recents: Vec::new(), complete: false };
        let (mut next, mut commands) = (facts.head_seq, 0);
        let mut left_out = false;
        let mut passed = facts.head_version;
        while next > floor && commands < LOOK_BACK_MAX {
            let wanted = if left_out { 0 } else { self.msg_count - tail.recents.len() };
            let wanted = usize::try_from(next.saturating_sub(low)).unwrap_or(usize::MAX).min(wanted);
            if wanted == 0 && tail.last.is_some() {
                break;
            }
            let at_least = if commands > 0 { LOOK_BACK_PAGE } else { 1 };
            let bytes_max = if wanted > 0 { self.recents_bytes_left } else { LOOK_BACK_BYTES_MAX };
            let range =
                SeqRange { first: floor + 1, last: next, limit: wanted.max(at_least), bytes_max, newest_first: true };
            let messages = store.messages(channel, range)?;
            if messages.is_empty() {
                break;
            }
            for message in messages {
                let seq = message.message_seq.get();
                next = seq - 1;
                if message.message_id > Version::ZERO {
                    passed = message.message_id;
                }
                if message.flags.sync_once {
                    commands += 1;
                    continue;
                }
                tail.last.get_or_insert_with(|| LastMessage {
                    seq,
                    client_msg_no: ClientMsgNo::as_str(&message.client_msg_no).to_owned(),
                    version: passed,
                });
                if seq <= low {
                    continue;
                }
                let bytes = weight(&message);
                if left_out || tail.recents.len() >= self.msg_count {
                    left_out = true;
                } else if bytes > self.recents_bytes_left {
                    // Rows behind the first that did not fit carry none, however small their messages are.
                    self.recents_bytes_left = 0;
                    left_out = true;
                } else {
                    self.recents_bytes_left -= bytes;
                    tail.recents.push(message);
                }
            }
        }
        tail.complete = !left_out && next <= low;
        if tail.last.is_none() && next > floor {
            // Commands only, as far as was looked: something may lie at or below, so the row stays.
            tail.last = Some(LastMessage { seq: next, client_msg_no: String::new(), version: passed });
        }
        Ok(tail)
    }
}

/// The rows of a paged sync behind a place, in the order they are served: those that lie where they lay at `version`, newest
/// first, then those that have moved since, oldest first. A row that moves between two pages would else jump over the place
/// the first ended at, and the client would know nothing of it but the message that moved it. Oldest first, because one that
/// moves again only moves further ahead.
fn behind(chosen: Vec<Chosen>, version: Version, after: Option<PageAfter>) -> Vec<Chosen> {
    let (mut moved, mut rows): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|row| row.order().0 > version);
    moved.reverse();
    if let Some(after) = after {
        let place = (after.order, after.channel);
        if after.order > version {
            rows.clear();
            moved.retain(|row| row.order() > place);
        } else {
            rows.retain(|row| row.order() < place);
        }
    }
    rows.append(&mut moved);
    rows
}

/// What a message weighs in an answer.
fn weight(message: &Message) -> usize {
    MESSAGE_OVERHEAD_BYTES
        + message.content_bytes()
        + message.topic.len()
        + message.from_uid.as_str().len()
        + message.client_msg_no.as_str().len()
}

/// The end of a channel as a row shows it.
struct Tail {
    last: Option<LastMessage>,
    recents: Vec<Message>,
    complete: bool,
}

struct LastMessage {
    seq: u64,
    client_msg_no: String,
    /// Of the message; of the next newer one where its own record is damaged.
    version: Version,
}

/// The last message of a channel that is no command, looked for above `floor`, from `head_seq` down past at most
/// [`LOOK_BACK_MAX`] commands. Usually one read.
pub(in crate::hub) fn last_shown(
    store: &dyn Store,
    channel: ChannelNo,
    head_seq: u64,
    floor: u64,
) -> Result<Option<Message>, StoreError> {
    let (mut last, mut commands, mut limit) = (head_seq, 0, 1);
    while last > floor && commands < LOOK_BACK_MAX {
        let range = SeqRange { first: floor + 1, last, limit, bytes_max: LOOK_BACK_BYTES_MAX, newest_first: true };
        let messages = store.messages(channel, range)?;
        let Some(oldest) = messages.last() else { break };
        last = oldest.message_seq.get() - 1;
        commands += messages.len();
        if let Some(message) = messages.into_iter().find(|message| !message.flags.sync_once) {
            return Ok(Some(message));
        }
        limit = LOOK_BACK_PAGE;
    }
    Ok(None)
}

/// The channels to consider, with what is known of each, and which of them are due.
fn choose(
    store: &dyn Store,
    request: &SyncRequest,
    since: Since,
    cursors: &HashMap<ChannelNo, u64>,
) -> Result<Vec<Chosen>, StoreError> {
    let mut candidates = Candidates { store, uid: &request.uid, request, since, cursors, chosen: Vec::new() };
    if since.is_full() {
        for channel in store.channels_of(&request.uid)? {
            candidates.consider(channel)?;
        }
        return Ok(candidates.chosen);
    }
    let own_changes = store.own_changes(&request.uid, since.version)?;
    let changed = match store.recently_changed(since.version, LOOK_UPS_MAX) {
        Some(changed) => changed,
        None => store.changed_among(&store.channels_of(&request.uid)?, since.version),
    };
    let mut seen = HashSet::new();
    for channel in own_changes.into_iter().chain(changed) {
        if seen.insert(channel) {
            candidates.consider(channel)?;
        }
    }
    for (channel, cursor) in cursors {
        if !seen.contains(channel) {
            candidates.consider_unchanged(*channel, *cursor)?;
        }
    }
    Ok(candidates.chosen)
}

struct Candidates<'a> {
    store: &'a dyn Store,
    uid: &'a Uid,
    request: &'a SyncRequest,
    since: Since,
    cursors: &'a HashMap<ChannelNo, u64>,
    chosen: Vec<Chosen>,
}

impl Candidates<'_> {
    /// Two rows at most; one where the user has nothing to do with the channel.
    fn consider(&mut self, channel: ChannelNo) -> Result<(), StoreError> {
        let Some(state) = self.store.conversation_state(channel, self.uid)? else { return Ok(()) };
        let Some(info) = self.store.channel(channel)? else { return Ok(()) };
        self.judge(info, state);
        Ok(())
    }

    /// A channel that is asked about only because of its cursor: one row where the cursor is at head.
    fn consider_unchanged(&mut self, channel: ChannelNo, cursor: u64) -> Result<(), StoreError> {
        let Some(info) = self.store.channel(channel)? else { return Ok(()) };
        if info.head_seq != cursor
            && let Some(state) = self.store.conversation_state(channel, self.uid)?
        {
            self.judge(info, state);
        }
        Ok(())
    }

    fn judge(&mut self, info: ChannelInfo, state: ConversationState) {
        let (channel, facts) = (info.channel, facts_of(&info));
        let cursor = self.cursors.get(&channel).copied();
        let excluded = self.request.exclude_channel_types.contains(&info.key.channel_type());
        if state.is_due(&facts, self.since, cursor) && (!excluded || cursor.is_some()) {
            self.chosen.push(Chosen { channel, key: info.key, facts, state, cursor });
        }
    }
}

/// The channel a cursor names to this user, when there is one. One row at most.
fn named_by(store: &dyn Store, uid: &Uid, cursor: &CursorRef<'_>) -> Result<Option<ChannelNo>, StoreError> {
    let Ok(channel_type) = ChannelType::from_wire(cursor.channel_type) else { return Ok(None) };
    let Ok(key) = ChannelKey::seen_by(uid, cursor.channel_id, channel_type) else { return Ok(None) };
    store.channel_no(&key)
}

/// The cursors by channel, the largest of each. Unknown channels are ignored (CHECKLIST.md, C6).
fn resolve(store: &dyn Store, uid: &Uid, cursors: &Cursors) -> Result<HashMap<ChannelNo, u64>, Refusal> {
    let malformed = |error| Refusal::invalid("last_msg_seqs", error);
    let text;
    // What was looked up to tell readings apart is not looked up again.
    let mut named: HashMap<(&str, u8), Option<ChannelNo>> = HashMap::new();
    let entries: Vec<CursorRef<'_>> = match cursors {
        Cursors::List(list) => {
            check_list(list).map_err(malformed)?;
            list.iter().map(protocol::sync::Cursor::as_ref).collect()
        }
        Cursors::Text(given) => {
            text = CursorText::new(given);
            let asked = text.resolve(|entry| {
                let channel = named_by(store, uid, entry)?;
                named.insert((entry.channel_id, entry.channel_type), channel);
                match channel {
                    Some(channel) => Ok(store.conversation_state(channel, uid)?.is_some()),
                    None => Ok(false),
                }
            });
            asked.map_err(|error| match error {
                ResolveError::Malformed(error) => malformed(error),
                ResolveError::Asked(error) => refuse(error),
            })?
        }
    };
    let mut largest = HashMap::with_capacity(entries.len());
    for entry in entries {
        let channel = match named.get(&(entry.channel_id, entry.channel_type)) {
            Some(channel) => *channel,
            None => named_by(store, uid, &entry).map_err(refuse)?,
        };
        if let Some(channel) = channel {
            let held: &mut u64 = largest.entry(channel).or_default();
            *held = entry.last_msg_seq.max(*held);
        }
    }
    Ok(largest)
}
