//! Pages of messages as dialects show them: commands are numbered like every message and never shown.

use protocol::ids::ChannelKey;

use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::hub::conversations::HistoryQuery;
use crate::hub::{Hub, Reader};

/// Payload bytes that are asked of the hub at once.
const BYTES_AT_ONCE_MAX: usize = 32 * 1024 * 1024;
/// Messages looked at for one page: bounds what a channel full of commands costs.
const LOOKED_AT_MAX: u64 = 10_000;

/// Messages to show. Bounds are inclusive; `first` above `last` is an empty range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqWindow {
    /// Lowest seq, at least 1.
    pub first: u64,
    /// Highest seq; above head means head.
    pub last: u64,
    /// Most messages shown.
    pub limit: usize,
    /// `true`: the newest of the range, newest first. `false`: the oldest, ascending.
    pub newest_first: bool,
}

/// Messages shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// In the order asked for, without commands.
    pub messages: Vec<Message>,
    /// The channel's last seq, when it lies in what was looked at; 0: it does not. What came since is not read by who sees
    /// this page.
    pub head_seq: u64,
}

/// Reads a page, and goes on until it is full or its range is at an end: a page cut by bytes or thinned by commands is filled
/// up.
///
/// # Errors
/// `NotMember`, the store.
pub async fn read(hub: &Hub, reader: Reader, key: &ChannelKey, window: SeqWindow) -> Result<Shown, Refusal> {
    let SeqWindow { mut first, mut last, limit, newest_first } = window;
    let mut shown = Shown::default();
    let mut looked_at = 0;
    while first <= last && shown.messages.len() < limit && looked_at < LOOKED_AT_MAX {
        let missing = limit.saturating_sub(shown.messages.len());
        let query = HistoryQuery { first, last, limit: missing, bytes_max: BYTES_AT_ONCE_MAX, newest_first };
        let page = hub.history(reader.clone(), key.clone(), query).await?;
        let Some(reached) = page.messages.last().map(|message| message.message_seq.get()) else { break };
        looked_at += page.messages.len() as u64;
        if page.messages.iter().any(|message| message.message_seq.get() == page.head_seq) {
            shown.head_seq = page.head_seq;
        }
        shown.messages.extend(page.messages.into_iter().filter(|message| !message.flags.sync_once));
        if !page.more {
            break;
        }
        if newest_first {
            last = reached - 1;
        } else {
            first = reached + 1;
        }
    }
    Ok(shown)
}
