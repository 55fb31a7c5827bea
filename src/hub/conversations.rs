//! One user's view of the channels: history, `conversation/sync`, read positions, deletion, and the explanation of unread.
//!
//! Owns how these questions are put to the store; the rules are `domain::conversation`'s. Refuses to know wires, sessions and
//! envelopes: uids come from credentials checked before, ids are the core's own. Everything here is a plain function over
//! `&dyn Store` that may do I/O: call it on a blocking thread. Writes are planned, not made: the hub commits the plan, on the
//! channel's shard where one exists, so that nothing moves between plan and commit.
//!
//! Invariants: one-unread (every number comes from `countable_after` above `unread_floor`), clean-cut (a sync's version is
//! taken before anything else is read), cost-is-change.

use std::error::Error;

use protocol::ids::{ChannelKey, ChannelType, Uid, Version};

use super::Reader;
use crate::domain::channel::{Membership, Role};
use crate::domain::conversation::{ConversationState, LastOwn, is_note_to_self};
use crate::domain::refusal::{ErrorKind, Refusal};
use crate::store::{ChannelInfo, ChannelNo, Store, StoreError};

mod history;
mod positions;
mod span;
mod sync;

pub use history::{
    Asker, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, HistoryPage, HistoryQuery, MessageSync, MessageSyncPage, history,
    message_sync,
};
pub use positions::{
    EXPLAIN_LIMIT_MAX, Judged, Planned, ReadBy, UnreadExplained, explain_unread, plan_clear_unread, plan_delete,
    plan_read, plan_set_unread,
};
pub use span::{Span, span};
pub use sync::{
    CHANGED_MAX, LOOK_BACK_MAX, MSG_COUNT_MAX, Page, PageAfter, RECENTS_BYTES_MAX, SyncAnswer, SyncPlan, SyncRequest,
    SyncRow, sync,
};
pub(super) use sync::{facts_of, last_shown};

/// When a request is to be tried again after the store could not answer: long enough for a reload of state.
const STORE_RETRY_AFTER_MS: u32 = 1_000;

/// Turns a store's error into what a client may know, and logs its chain: the one place for read verbs of the hub.
pub(crate) fn refuse(error: StoreError) -> Refusal {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        chain.push_str(": ");
        chain.push_str(&found.to_string());
        cause = found.source();
    }
    tracing::error!(error.chain = %chain, "the store could not answer");
    match error.kind() {
        ErrorKind::Unavailable => Refusal::StoreUnavailable { retry_after_ms: STORE_RETRY_AFTER_MS },
        _ => Refusal::Internal,
    }
}

/// A channel as one user stands to it.
pub(super) enum Standing {
    /// The user is a member.
    Member { info: Box<ChannelInfo>, state: ConversationState },
    /// Nobody has written in it yet and the user is a member by its name: both of a pair, the visitor of a customer service
    /// channel.
    Unborn,
    /// Not a member, or no such channel: not told apart.
    Outside,
}

fn is_member_by_name(uid: &Uid, key: &ChannelKey) -> bool {
    match key.channel_type() {
        ChannelType::Person => key.is_pair_of(uid),
        ChannelType::CustomerService => key.visitor().is_some_and(|visitor| visitor == *uid),
        ChannelType::Group => false,
    }
}

/// Who is a member of a channel nobody has written in yet, by its name; `since` is zero.
pub(super) fn members_by_name(key: &ChannelKey) -> Vec<(Uid, Membership)> {
    let mut uids: Vec<Uid> = key.pair().into_iter().flat_map(|(a, b)| [a, b]).chain(key.visitor()).collect();
    uids.sort();
    uids.dedup();
    let membership = Membership { role: Role::Member, join_floor: 0, since: Version::ZERO };
    uids.into_iter().map(|uid| (uid, membership)).collect()
}

/// The channel as whoever asks may read it, with a user's own state; `None`: nobody has written in it yet, and the asker is
/// a member by its name. Three rows at most.
///
/// # Errors
/// `NotMember` for a user; `ChannelNotFound` for a back end; the store.
pub(super) fn readable(
    store: &dyn Store,
    reader: &Reader,
    key: &ChannelKey,
) -> Result<Option<(Box<ChannelInfo>, ConversationState)>, Refusal> {
    match reader {
        Reader::User(uid) => match standing(store, uid, key).map_err(refuse)? {
            Standing::Member { info, state } => Ok(Some((info, state))),
            Standing::Unborn => Ok(None),
            Standing::Outside => Err(Refusal::NotMember),
        },
        Reader::Trusted => {
            let channel = store.channel_no(key).map_err(refuse)?.ok_or(Refusal::ChannelNotFound)?;
            let info = store.channel(channel).map_err(refuse)?.ok_or(Refusal::ChannelNotFound)?;
            Ok(Some((Box::new(info), ConversationState::default())))
        }
    }
}

/// Three rows at most.
pub(super) fn standing(store: &dyn Store, uid: &Uid, key: &ChannelKey) -> Result<Standing, StoreError> {
    let Some(channel) = store.channel_no(key)? else {
        return Ok(if is_member_by_name(uid, key) { Standing::Unborn } else { Standing::Outside });
    };
    let (info, state) = (store.channel(channel)?, store.conversation_state(channel, uid)?);
    match (info, state) {
        (Some(info), Some(state)) if state.is_member() => Ok(Standing::Member { info: Box::new(info), state }),
        _ => Ok(Standing::Outside),
    }
}

/// Unread of a member, and the head it holds for. No read when everything up to `head_seq` is below the floor.
pub(super) fn unread_of(
    store: &dyn Store,
    channel: ChannelNo,
    key: &ChannelKey,
    uid: &Uid,
    floor: u64,
    head_seq: u64,
) -> Result<(u64, u64), StoreError> {
    if floor >= head_seq || is_note_to_self(key) {
        return Ok((0, head_seq));
    }
    store.countable_after(channel, uid, floor)
}

/// The user's floor now, with the read behind it.
pub(super) fn floor_of(
    store: &dyn Store,
    channel: ChannelNo,
    uid: &Uid,
    state: &ConversationState,
) -> Result<(u64, LastOwn), StoreError> {
    let own = store.last_own(channel, uid)?;
    Ok((state.unread_floor(own), own))
}

#[cfg(test)]
mod tests;
