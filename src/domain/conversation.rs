//! One user's view of a channel: floors, unread, and what a sync must show (design.md sections 4 and 5).

use protocol::ids::Version;

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

    /// The latest version of this user's own changes to the conversation.
    #[must_use]
    pub fn changed_version(&self) -> Version {
        self.read_version.max(self.delete_version).max(self.join_version).max(self.leave_version)
    }
}
