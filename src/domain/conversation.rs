//! One user's view of a channel: floors, unread, and what a sync must show (design.md sections 4 and 5).

use protocol::ids::{ChannelKey, Uid, Version};

use super::message::{Message, MessageState};

/// What is stored of one user in one channel. Seqs are 0 for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConversationState {
    /// Last explicit read position, and the version that set it.
    pub read_seq: u64,
    /// Version of the explicit read position; zero when there is none.
    pub read_version: Version,
    /// Messages up to here were deleted from this user's view.
    pub delete_floor: u64,
    /// Version of the deletion; zero when there is none.
    pub delete_version: Version,
    /// Messages up to here came before the user joined.
    pub join_floor: u64,
    /// Version of joining (for person channels: of the channel's creation); zero when never a member.
    pub join_version: Version,
    /// Version of leaving or being removed; zero when not left. Later than `join_version` means: not a member.
    pub leave_version: Version,
    /// What the user decided about the conversation.
    pub flags: ConversationFlags,
    /// Version of the flags; zero: never set.
    pub flags_version: Version,
}

/// What a user decided about a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConversationFlags {
    /// Kept on top of the list.
    pub pinned: bool,
    /// No notifications; unread is counted all the same.
    pub muted: bool,
    /// A message request of a stranger that was neither accepted nor answered.
    pub request: bool,
    /// The user accepted it as a message request: the peer is no stranger any more.
    pub accepted: bool,
}

/// The user's own last stored message in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastOwn {
    /// Its seq; 0: none.
    pub seq: u64,
    /// Its version.
    pub version: Version,
}

impl ConversationState {
    /// Whether the user is a member now.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.join_version > self.leave_version
    }

    /// The read position: the later by version of the explicit one and the user's own last message.
    #[must_use]
    pub fn read_position(&self, own: LastOwn) -> u64 {
        if own.version > self.read_version { own.seq } else { self.read_seq }
    }

    /// Messages with seq above this are candidates for unread.
    #[must_use]
    pub fn unread_floor(&self, own: LastOwn) -> u64 {
        self.read_position(own).max(self.delete_floor).max(self.join_floor)
    }

    /// Messages with seq above this are in the user's conversation. Joining late hides nothing (wukongim-http.md
    /// section 15, 23); it only keeps what came before from being unread.
    #[must_use]
    pub fn visible_floor(&self) -> u64 {
        self.delete_floor
    }

    /// Whether it is a message request now: answering it accepts it.
    #[must_use]
    pub fn is_request(&self, own: LastOwn) -> bool {
        self.flags.request && own.seq == 0
    }

    /// When the user last read it or wrote in it; zero: never. `access` of threads.txt.
    #[must_use]
    pub fn accessed(&self, own: LastOwn) -> Version {
        self.read_version.max(own.version)
    }

    /// The latest version of this user's own changes to the conversation.
    #[must_use]
    pub fn changed_version(&self) -> Version {
        let floors = self.read_version.max(self.delete_version).max(self.join_version);
        floors.max(self.leave_version).max(self.flags_version)
    }
}

/// Whether the channel is a user's note to self: nothing in it is ever unread (design.md section 7).
#[must_use]
pub fn is_note_to_self(channel: &ChannelKey) -> bool {
    channel.pair().is_some_and(|(a, b)| a == b)
}

/// Why a message is counted as unread for a user, or why not. The first reason that holds is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Counted.
    Counted,
    /// Sent by this user.
    Own,
    /// A command (`sync_once`): never in conversations.
    Command,
    /// Sent with `red_dot` 0.
    NoRedDot,
    /// Its time is over.
    Expired,
    /// Taken back.
    Revoked,
    /// At or below the read position.
    Read,
    /// At or below the delete floor.
    Deleted,
    /// Before the user joined.
    BeforeJoining,
    /// Its record is damaged. The count is kept apart from the record and still right; which way this one went is not told.
    Damaged,
}

impl Verdict {
    /// The stable word of the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Own => "own",
            Self::Command => "command",
            Self::NoRedDot => "no_red_dot",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Read => "read",
            Self::Deleted => "deleted",
            Self::BeforeJoining => "before_joining",
            Self::Damaged => "damaged",
        }
    }
}

/// Judges one message for one user: the rule behind unread (design.md section 4), message by message.
#[must_use]
pub fn judge(message: &Message, uid: &Uid, state: &ConversationState, own: LastOwn) -> Verdict {
    let seq = message.message_seq.get();
    if seq <= state.delete_floor {
        return Verdict::Deleted;
    }
    if seq <= state.read_position(own) {
        return if message.from_uid == *uid { Verdict::Own } else { Verdict::Read };
    }
    if seq <= state.join_floor {
        return Verdict::BeforeJoining;
    }
    match message.state {
        MessageState::Damaged => Verdict::Damaged,
        MessageState::Revoked => Verdict::Revoked,
        MessageState::Expired => Verdict::Expired,
        MessageState::Live if message.from_uid == *uid => Verdict::Own,
        MessageState::Live if message.flags.sync_once => Verdict::Command,
        MessageState::Live if !message.flags.red_dot => Verdict::NoRedDot,
        MessageState::Live => Verdict::Counted,
    }
}

/// A channel as far as a conversation row depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Seq of its last message; 0: none.
    pub head_seq: u64,
    /// Version of its last message; zero: none.
    pub head_version: Version,
    /// Version of the last change in it that all members see.
    pub changed_version: Version,
}

/// What a conversation is to its user, as far as floors tell. Whether anything in `Shown` can be seen (and is not a
/// command only) is known once messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There are messages above the delete floor, and the user is a member.
    Shown,
    /// The user deleted it, left or was removed: a tombstone in increments.
    Gone,
    /// The user never saw anything of it.
    Never,
}

/// What a sync asks for, as far as the choice of rows depends on it (design.md section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Zero: everything.
    pub version: Version,
    /// Whether tombstones are wanted. They never come in a full answer.
    pub with_deleted: bool,
}

impl Since {
    /// Whether this asks for everything.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.version == Version::ZERO
    }
}

impl ConversationState {
    /// What the conversation is to its user.
    #[must_use]
    pub fn presence(&self, head_seq: u64) -> Presence {
        if self.is_member() && head_seq > self.visible_floor() {
            Presence::Shown
        } else if self.delete_version > Version::ZERO || self.leave_version > Version::ZERO {
            Presence::Gone
        } else {
            Presence::Never
        }
    }

    /// Version of the row: the later of what all members see and the user's own changes. Who is gone sees the own only.
    #[must_use]
    pub fn row_version(&self, presence: Presence, facts: &ChannelFacts) -> Version {
        match presence {
            Presence::Shown => self.changed_version().max(facts.changed_version),
            Presence::Gone | Presence::Never => self.changed_version(),
        }
    }

    /// Whether a sync must consider the row; `cursor` is the last seq the client has, where it said so. A cursor above head
    /// is always answered, since its row carries `reset`.
    #[must_use]
    pub fn is_due(&self, facts: &ChannelFacts, since: Since, cursor: Option<u64>) -> bool {
        let presence = self.presence(facts.head_seq);
        let changed = self.row_version(presence, facts) > since.version;
        match presence {
            Presence::Shown if since.is_full() => cursor != Some(facts.head_seq),
            Presence::Shown => changed || cursor.is_some_and(|cursor| cursor != facts.head_seq),
            Presence::Gone => changed && since.with_deleted && !since.is_full(),
            Presence::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(number: u64) -> Version {
        Version::new(number)
    }

    const JOINED: ConversationState = ConversationState {
        read_seq: 0,
        read_version: Version::ZERO,
        delete_floor: 0,
        delete_version: Version::ZERO,
        join_floor: 0,
        join_version: Version::MAX,
        leave_version: Version::ZERO,
        flags: ConversationFlags { pinned: false, muted: false, request: false, accepted: false },
        flags_version: Version::ZERO,
    };

    #[test]
    fn the_read_position_is_the_later_not_the_larger() {
        let state = ConversationState { read_seq: 3, read_version: v(20), join_version: v(1), ..JOINED };
        for (own, expected) in [((0, 0), 3), ((9, 10), 3), ((9, 30), 9), ((2, 30), 2)] {
            let own = LastOwn { seq: own.0, version: v(own.1) };
            assert_eq!(state.read_position(own), expected, "{own:?}");
        }
    }

    #[test]
    fn presence_follows_floors_and_membership() {
        let joined = ConversationState { join_version: v(10), ..JOINED };
        let deleted = ConversationState { delete_floor: 5, delete_version: v(20), ..joined };
        let left = ConversationState { leave_version: v(30), ..joined };
        let back = ConversationState { delete_floor: 5, delete_version: v(30), join_version: v(40), ..left };
        let stranger = ConversationState { read_seq: 1, read_version: v(9), join_version: Version::ZERO, ..JOINED };
        for (state, head, expected) in [
            (joined, 0, Presence::Never),
            (joined, 1, Presence::Shown),
            (deleted, 5, Presence::Gone),
            (deleted, 6, Presence::Shown),
            (left, 9, Presence::Gone),
            (back, 5, Presence::Gone),
            (back, 6, Presence::Shown),
            (stranger, 6, Presence::Never),
        ] {
            assert_eq!(state.presence(head), expected, "{state:?} at {head}");
        }
    }

    #[test]
    fn rows_are_due_as_design_section_5_says() {
        let facts = ChannelFacts { head_seq: 7, head_version: v(50), changed_version: v(60) };
        let shown = ConversationState { join_version: v(10), read_version: v(55), ..JOINED };
        let deleted = ConversationState { delete_floor: 7, delete_version: v(70), ..shown };
        let left = ConversationState { leave_version: v(70), ..shown };
        for (state, since, with_deleted, cursor, expected) in [
            (shown, 0, false, None, true),
            (shown, 0, false, Some(6), true),
            (shown, 0, false, Some(7), false),
            (shown, 0, false, Some(8), true),
            (shown, 59, false, None, true),
            (shown, 60, false, None, false),
            (shown, 60, false, Some(6), true),
            (shown, 60, false, Some(7), false),
            (shown, 60, false, Some(9), true),
            (shown, 59, false, Some(7), true),
            (deleted, 0, true, None, false),
            (deleted, 69, true, None, true),
            (deleted, 69, false, None, false),
            (deleted, 70, true, None, false),
            (left, 69, true, None, true),
            (left, 70, true, Some(1), false),
        ] {
            let since = Since { version: v(since), with_deleted };
            assert_eq!(state.is_due(&facts, since, cursor), expected, "{since:?} cursor {cursor:?}");
        }
    }

    #[test]
    fn who_left_does_not_learn_that_the_channel_goes_on() {
        let left = ConversationState { join_version: v(10), leave_version: v(20), ..JOINED };
        let facts = ChannelFacts { head_seq: 7, head_version: v(50), changed_version: v(60) };
        assert_eq!(left.row_version(left.presence(7), &facts), v(20));
    }
}
