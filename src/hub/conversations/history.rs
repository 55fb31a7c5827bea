//! Reading a channel's messages by seq: the native history, and the reference's `/channel/messagesync` over it.

use protocol::ids::{ChannelKey, Uid};

use super::{Standing, refuse, standing};
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::store::{SeqRange, Store, StoreError};

/// Messages of a page when the request names no limit.
pub const HISTORY_LIMIT_DEFAULT: usize = 100;
/// Most messages of a page; a larger limit means this (wukongim-http.md 5.3).
pub const HISTORY_LIMIT_MAX: usize = 10_000;

/// Who asks for messages.
#[derive(Debug, Clone, Copy)]
pub enum Asker<'a> {
    /// A user: must be a member now.
    User(&'a Uid),
    /// A back end with an API key: no membership is asked for (wukongim-http.md 5.3).
    Trusted,
}

/// Which messages. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Lowest seq; 0 means 1.
    pub first: u64,
    /// Highest seq; 0 means head.
    pub last: u64,
    /// Most messages; 0 means [`HISTORY_LIMIT_DEFAULT`], above [`HISTORY_LIMIT_MAX`] means that.
    pub limit: usize,
    /// Most payload bytes, about; one message comes in any case.
    pub bytes_max: usize,
    /// `true`: the newest of the range, newest first. `false`: the oldest, ascending.
    pub newest_first: bool,
}

/// A page of messages, every seq of its span in it: commands, expired and damaged ones too, each with its flags and state, so
/// that a reader can close a gap with it. Deleting a conversation hides nothing here (wukongim-http.md section 15, 15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub messages: Vec<Message>,
    /// Whether the range goes on behind the last of them.
    pub more: bool,
    /// The channel's last seq; 0: none.
    pub head_seq: u64,
}

impl HistoryPage {
    fn empty() -> Self {
        Self { messages: Vec::new(), more: false, head_seq: 0 }
    }
}

/// Messages of a channel. Three rows, then one page and one log read per run of neighbours.
///
/// # Errors
/// `NotMember` for a user who is not one, or where there is no such channel: not told apart. Unavailable or internal when
/// the store cannot answer. For a trusted asker a channel nobody made is empty.
pub fn history(
    store: &dyn Store,
    asker: Asker<'_>,
    key: &ChannelKey,
    query: HistoryQuery,
) -> Result<HistoryPage, Refusal> {
    let info = match asker {
        Asker::User(uid) => match standing(store, uid, key).map_err(refuse)? {
            Standing::Member { info, .. } => Some(*info),
            Standing::Unborn => None,
            Standing::Outside => return Err(Refusal::NotMember),
        },
        Asker::Trusted => trusted_info(store, key).map_err(refuse)?,
    };
    let Some(info) = info else { return Ok(HistoryPage::empty()) };
    let first = query.first.max(1);
    let last = if query.last == 0 { info.head_seq } else { query.last.min(info.head_seq) };
    if first > last {
        return Ok(HistoryPage { head_seq: info.head_seq, ..HistoryPage::empty() });
    }
    let limit = if query.limit == 0 { HISTORY_LIMIT_DEFAULT } else { query.limit.min(HISTORY_LIMIT_MAX) };
    let range = SeqRange { first, last, limit, bytes_max: query.bytes_max, newest_first: query.newest_first };
    let messages = store.messages(info.channel, range).map_err(refuse)?;
    // Seqs have no gaps, so where the page ends tells whether the range goes on.
    let more = messages.last().is_some_and(|reached| {
        let seq = reached.message_seq.get();
        if query.newest_first { seq > first } else { seq < last }
    });
    Ok(HistoryPage { messages, more, head_seq: info.head_seq })
}

fn trusted_info(store: &dyn Store, key: &ChannelKey) -> Result<Option<crate::store::ChannelInfo>, StoreError> {
    match store.channel_no(key)? {
        Some(channel) => store.channel(channel),
        None => Ok(None),
    }
}

/// The numbers of `/channel/messagesync` (wukongim-http.md 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageSync {
    /// Inclusive; 0 with `end_message_seq` 0: the newest.
    pub start_message_seq: u64,
    /// Exclusive; 0: none.
    pub end_message_seq: u64,
    /// 0 means [`HISTORY_LIMIT_DEFAULT`], above [`HISTORY_LIMIT_MAX`] means that.
    pub limit: usize,
    /// `pull_mode` 1: towards newer. 0: towards older.
    pub towards_newer: bool,
}

/// The answer of `/channel/messagesync`; the edge echoes start and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSyncPage {
    /// Ascending, in both modes.
    pub messages: Vec<Message>,
    /// As the reference computes it: the page is full and its outermost message does not touch the end. A page cut by bytes
    /// says so too.
    pub more: bool,
}

/// `/channel/messagesync` over [`history`]. `bytes_max` bounds the payload bytes of the answer.
///
/// # Errors
/// As [`history`]; and `start_message_seq` 0 with an end towards older (v1's 400), because it can only be a mistake.
pub fn message_sync(
    store: &dyn Store,
    asker: Asker<'_>,
    key: &ChannelKey,
    sync: MessageSync,
    bytes_max: usize,
) -> Result<MessageSyncPage, Refusal> {
    let MessageSync { start_message_seq: start, end_message_seq: end, towards_newer, .. } = sync;
    let limit = if sync.limit == 0 { HISTORY_LIMIT_DEFAULT } else { sync.limit.min(HISTORY_LIMIT_MAX) };
    let newest = start == 0 && end == 0;
    if start == 0 && end > 0 && !towards_newer {
        return Err(Refusal::invalid("start_message_seq", "must be given with end_message_seq when pull_mode is 0"));
    }
    let (first, last, newest_first) = if newest {
        (1, u64::MAX, true)
    } else if towards_newer {
        (start.max(1), if end == 0 { u64::MAX } else { end - 1 }, false)
    } else {
        (end.saturating_add(1), start, true)
    };
    let is_empty = first > last;
    // An empty range is asked as one beyond any head: the asker's standing is checked all the same.
    let (first, last) = if is_empty { (u64::MAX, u64::MAX) } else { (first, last) };
    let page = history(store, asker, key, HistoryQuery { first, last, limit, bytes_max, newest_first })?;
    let full = page.messages.len() == limit;
    let touches_end = page.messages.last().is_some_and(|outermost| {
        let seq = outermost.message_seq.get();
        end > 0 && if newest_first { seq == end + 1 } else { seq + 1 == end }
    });
    let mut messages = page.messages;
    if newest_first {
        messages.reverse();
    }
    let cut = !full && page.more;
    Ok(MessageSyncPage { messages, more: (full && !touches_end) || cut })
}
