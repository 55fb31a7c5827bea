//! What users decide: about strangers, contacts, blocked users, and about their own conversations.

use protocol::ids::{ChannelKey, Uid, Version};

use super::Hub;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Relation, UserSettings};

/// A change of a conversation's flags; `None` leaves a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlagsChange {
    /// Keep it on top.
    pub pinned: Option<bool>,
    /// No notifications.
    pub muted: Option<bool>,
    /// `true` accepts a message request: the peer is no stranger any more.
    pub accepted: Option<bool>,
}

/// A change of a relation; `None` leaves a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelationChange {
    /// Make or unmake a contact.
    pub contact: Option<bool>,
    /// Block or unblock.
    pub blocked: Option<bool>,
}

impl Hub {
    /// Whether every one of these users is known (design.md section 2, Users).
    ///
    /// # Errors
    /// `NotFound { what: "user" }`, the store.
    pub async fn require_known(&self, uids: Vec<Uid>) -> Result<(), Refusal> {
        let _ = uids;
        Err(Refusal::Internal)
    }

    /// Makes a user known without a token; a known one is fine.
    ///
    /// # Errors
    /// The store.
    pub async fn create_user(&self, uid: Uid) -> Result<(), Refusal> {
        let _ = uid;
        Err(Refusal::Internal)
    }

    /// A user's settings.
    ///
    /// # Errors
    /// The store.
    pub async fn user_settings(&self, uid: Uid) -> Result<UserSettings, Refusal> {
        let _ = uid;
        Err(Refusal::Internal)
    }

    /// Replaces a user's settings.
    ///
    /// # Errors
    /// The store.
    pub async fn put_user_settings(&self, uid: Uid, settings: UserSettings) -> Result<(), Refusal> {
        let _ = (uid, settings);
        Err(Refusal::Internal)
    }

    /// Everybody who is anything to a user.
    ///
    /// # Errors
    /// The store.
    pub async fn relations(&self, uid: Uid) -> Result<Vec<(Uid, Relation)>, Refusal> {
        let _ = uid;
        Err(Refusal::Internal)
    }

    /// Changes what `peer` is to `uid`; answers what it is now.
    ///
    /// # Errors
    /// `Invalid` about oneself, `TooMany` relations, the store.
    pub async fn put_relation(&self, uid: Uid, peer: Uid, change: RelationChange) -> Result<Relation, Refusal> {
        let _ = (uid, peer, change);
        Err(Refusal::Internal)
    }

    /// Changes a conversation's flags; other devices learn of it.
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn set_flags(&self, uid: Uid, key: ChannelKey, change: FlagsChange) -> Result<Version, Refusal> {
        let _ = (uid, key, change);
        Err(Refusal::Internal)
    }
}
