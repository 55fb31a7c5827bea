//! What moves unread: setUnread, read, clearUnread, delete, each as a plan to commit; and what explains it.

use protocol::ids::{ChannelKey, Uid, Version};

use super::{Standing, floor_of, refuse, standing, unread_of};
use crate::domain::conversation::{ConversationState, LastOwn, Verdict, is_note_to_self, judge};
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, Commit, Record, SeqRange, Store, StoreError};

/// Most messages [`explain_unread`] judges.
pub const EXPLAIN_LIMIT_MAX: usize = 1_000;
/// Bytes one read of an explanation may hold; payloads are read along and dropped.
const EXPLAIN_BYTES_MAX: usize = 1024 * 1024;

/// A change worked out but not made.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What to commit; `None`: it already is so, or there is nothing it could change. Answer success either way.
    pub commit: Option<Commit>,
    /// Unread once it is committed.
    pub unread: u64,
    /// The read position then: messages up to here do not count.
    pub read_seq: u64,
    /// Head that `unread` was counted at; 0: no message.
    pub head_seq: u64,
}

impl Planned {
    fn nothing() -> Self {
        Self { commit: None, unread: 0, read_seq: 0, head_seq: 0 }
    }
}

/// A member's conversation with what every plan needs.
struct Subject {
    info: Box<ChannelInfo>,
    state: ConversationState,
    floor: u64,
}

/// `None`: a conversation nobody has begun, where every number is 0.
fn subject(store: &dyn Store, uid: &Uid, key: &ChannelKey) -> Result<Option<Subject>, Refusal> {
    match standing(store, uid, key).map_err(refuse)? {
        Standing::Member { info, state } => {
            let (floor, _) = floor_of(store, info.channel, uid, &state).map_err(refuse)?;
            Ok(Some(Subject { info, state, floor }))
        }
        Standing::Unborn => Ok(None),
        Standing::Outside => Err(Refusal::NotMember),
    }
}

impl Subject {
    /// Moves the read position to `seq`, when it is not there yet. Behind it unread then, and the head it was
    /// counted at: above the subject's own when a message came in between.
    fn read_to(&self, uid: &Uid, seq: u64, (unread, head_seq): (u64, u64)) -> Planned {
        let record = Record::ReadPosition { channel: self.info.channel, uid: uid.clone(), seq };
        Planned { commit: (seq != self.floor).then(|| record.into()), unread, read_seq: seq, head_seq }
    }
}

/// Puts the read position so that exactly `unread` countable messages follow; where fewer exist, all of them, which
/// [`Planned::unread`] tells. Works upward too, also below one's own message. A conversation nobody has begun is left as it
/// is: success with 0. Six rows at most.
///
/// # Errors
/// `Invalid` for a negative number; `NotMember` where the user is none or there is no such group.
pub fn plan_set_unread(store: &dyn Store, uid: &Uid, key: &ChannelKey, unread: i64) -> Result<Planned, Refusal> {
    let Ok(wanted) = u64::try_from(unread) else {
        return Err(Refusal::invalid("unread", "must not be negative"));
    };
    let Some(subject) = subject(store, uid, key)? else { return Ok(Planned::nothing()) };
    if wanted == 0 || is_note_to_self(key) {
        let head_seq = subject.info.head_seq;
        return Ok(subject.read_to(uid, head_seq.max(subject.floor), (0, head_seq)));
    }
    let floor_min = subject.state.delete_floor.max(subject.state.join_floor);
    let (seq, unread, head_seq) =
        store.position_for_unread(subject.info.channel, uid, wanted, floor_min).map_err(refuse)?;
    Ok(subject.read_to(uid, seq, (unread, head_seq)))
}

/// Marks as read up to `seq`, at most up to head; never moves backwards ([`plan_set_unread`] does).
///
/// # Errors
/// `NotMember` where the user is none or there is no such group.
pub fn plan_read(store: &dyn Store, uid: &Uid, key: &ChannelKey, seq: u64) -> Result<Planned, Refusal> {
    let Some(subject) = subject(store, uid, key)? else { return Ok(Planned::nothing()) };
    let seq = seq.min(subject.info.head_seq).max(subject.floor);
    let (channel, head_seq) = (subject.info.channel, subject.info.head_seq);
    let counted = unread_of(store, channel, key, uid, seq, head_seq).map_err(refuse)?;
    Ok(subject.read_to(uid, seq, counted))
}

/// clearUnread: everything up to head is read (wukongim-http.md 6.3). One that names a message is [`plan_read`].
///
/// # Errors
/// `NotMember` where the user is none or there is no such group.
pub fn plan_clear_unread(store: &dyn Store, uid: &Uid, key: &ChannelKey) -> Result<Planned, Refusal> {
    plan_set_unread(store, uid, key, 0)
}

/// Deletes the conversation from the user's view: the delete floor goes to head. What the user has not, or already deleted,
/// is left as it is and answered with success, whatever the channel (wukongim-http.md 6.4).
///
/// # Errors
/// Unavailable or internal when the store cannot answer.
pub fn plan_delete(store: &dyn Store, uid: &Uid, key: &ChannelKey) -> Result<Planned, Refusal> {
    let Standing::Member { info, state } = standing(store, uid, key).map_err(refuse)? else {
        return Ok(Planned::nothing());
    };
    let head_seq = info.head_seq;
    let record = Record::ConversationDeleted { channel: info.channel, uid: uid.clone(), delete_floor: head_seq };
    let commit = (head_seq > state.delete_floor).then(|| record.into());
    Ok(Planned { commit, unread: 0, read_seq: head_seq.max(state.delete_floor), head_seq })
}

/// Which of the two decides the read position: the later by version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// Neither was ever there.
    Nothing,
    /// setUnread, clearUnread or read.
    Explicit,
    /// The user's own last message.
    OwnMessage,
}

/// One message and what unread makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Its seq.
    pub seq: u64,
    /// Its sender.
    pub from_uid: Uid,
    /// Counted, or why not.
    pub verdict: Verdict,
}

/// An unread number taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadExplained {
    /// The number every dialect shows.
    pub unread: u64,
    /// Head it holds for; 0: no message.
    pub head_seq: u64,
    /// Messages at or below do not count: the largest of the three below.
    pub floor: u64,
    /// Where the user has read to.
    pub read_seq: u64,
    /// What decided `read_seq`.
    pub read_by: ReadBy,
    /// The explicit position and its version, also when the own message is later.
    pub explicit_read: (u64, Version),
    /// The own last message and its version, also when the explicit position is later.
    pub own_message: (u64, Version),
    /// Messages up to here were deleted from the user's view.
    pub delete_floor: u64,
    /// Messages up to here came before the user joined.
    pub join_floor: u64,
    /// The newest messages, newest first, each judged.
    pub judged: Vec<Judged>,
    /// Whether older messages were left out; those at or below `floor` are all uncounted.
    pub more: bool,
}

impl UnreadExplained {
    fn nothing() -> Self {
        Self::of(&ConversationState::default(), LastOwn::default())
    }

    fn of(state: &ConversationState, own: LastOwn) -> Self {
        let own_is_later = own.version > state.read_version;
        Self {
            unread: 0,
            head_seq: 0,
            floor: state.unread_floor(own),
            read_seq: state.read_position(own),
            read_by: match own_is_later {
                true => ReadBy::OwnMessage,
                false if state.read_version > Version::ZERO => ReadBy::Explicit,
                false => ReadBy::Nothing,
            },
            explicit_read: (state.read_seq, state.read_version),
            own_message: (own.seq, own.version),
            delete_floor: state.delete_floor,
            join_floor: state.join_floor,
            judged: Vec::new(),
            more: false,
        }
    }
}

/// Explains a user's unread number: its floors, and the newest messages with what each counts for. `limit` messages at most,
/// 0 meaning 100, capped at [`EXPLAIN_LIMIT_MAX`].
///
/// # Errors
/// `NotMember` where the user is none or there is no such group.
pub fn explain_unread(
    store: &dyn Store,
    uid: &Uid,
    key: &ChannelKey,
    limit: usize,
) -> Result<UnreadExplained, Refusal> {
    let (info, state) = match standing(store, uid, key).map_err(refuse)? {
        Standing::Member { info, state } => (info, state),
        Standing::Unborn => return Ok(UnreadExplained::nothing()),
        Standing::Outside => return Err(Refusal::NotMember),
    };
    let (floor, own) = floor_of(store, info.channel, uid, &state).map_err(refuse)?;
    let (unread, head_seq) = unread_of(store, info.channel, key, uid, floor, info.head_seq).map_err(refuse)?;
    let limit = if limit == 0 { 100 } else { limit.min(EXPLAIN_LIMIT_MAX) };
    let judged = judge_newest(store, info.channel, uid, &state, own, head_seq, limit).map_err(refuse)?;
    let more = judged.last().is_some_and(|oldest| oldest.seq > 1);
    Ok(UnreadExplained { unread, head_seq, judged, more, ..UnreadExplained::of(&state, own) })
}

fn judge_newest(
    store: &dyn Store,
    channel: ChannelNo,
    uid: &Uid,
    state: &ConversationState,
    own: LastOwn,
    head_seq: u64,
    limit: usize,
) -> Result<Vec<Judged>, StoreError> {
    let mut judged: Vec<Judged> = Vec::new();
    let mut last = head_seq;
    while last > 0 && judged.len() < limit {
        let limit = limit - judged.len();
        let range = SeqRange { first: 1, last, limit, bytes_max: EXPLAIN_BYTES_MAX, newest_first: true };
        let messages = store.messages(channel, range)?;
        let Some(oldest) = messages.last() else { break };
        last = oldest.message_seq.get() - 1;
        judged.extend(messages.iter().map(|message| Judged {
            seq: message.message_seq.get(),
            from_uid: message.from_uid.clone(),
            verdict: judge(message, uid, state, own),
        }));
    }
    Ok(judged)
}
