//! Groups as users make them: profile, roles, inviting, leaving, removing.
//!
//! Rules of who may do what are `domain::channel`'s; changes go through the channel's lane like a back end's.

use protocol::ids::{ChannelKey, Uid};

use super::{Hub, Reader};
use crate::domain::channel::{ChannelProfile, Membership, Role};
use crate::domain::refusal::Refusal;

/// A group to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewGroup {
    /// Its channel id; `None`: a new uuid. With the id of a group that exists the group stays as it is, and its members
    /// and profile too.
    pub channel_id: Option<String>,
    /// Becomes its owner and a member; `None`: made by a back end, without an owner.
    pub owner: Option<Uid>,
    /// Its members; repeats collapse.
    pub members: Vec<Uid>,
    /// Its profile.
    pub profile: ChannelProfile,
}

impl Hub {
    /// Makes a group. Stores no message.
    ///
    /// # Errors
    /// `Invalid` naming a field of the profile or the id, `TooMany` members, the store.
    pub async fn create_group(&self, group: NewGroup) -> Result<ChannelKey, Refusal> {
        let _ = group;
        Err(Refusal::Internal)
    }

    /// A channel's profile; the default when it has none.
    ///
    /// # Errors
    /// `NotMember`, `ChannelNotFound` (trusted), the store.
    pub async fn profile(&self, reader: Reader, key: ChannelKey) -> Result<ChannelProfile, Refusal> {
        let _ = (reader, key);
        Err(Refusal::Internal)
    }

    /// Replaces a group's profile: an admin of it, or a back end. `creator` stays what it was.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, `TooLarge` naming the field, the store.
    pub async fn put_profile(&self, actor: Reader, key: ChannelKey, profile: ChannelProfile) -> Result<(), Refusal> {
        let _ = (actor, key, profile);
        Err(Refusal::Internal)
    }

    /// The members of a channel, in order of joining.
    ///
    /// # Errors
    /// `NotMember`, `ChannelNotFound` (trusted), the store.
    pub async fn members(&self, reader: Reader, key: ChannelKey) -> Result<Vec<(Uid, Membership)>, Refusal> {
        let _ = (reader, key);
        Err(Refusal::Internal)
    }

    /// Adds members: an admin of the group, or a back end; in a group without owner and admins, any member.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, `TooMany`, the store.
    pub async fn invite(&self, actor: Reader, key: ChannelKey, uids: Vec<Uid>) -> Result<(), Refusal> {
        let _ = (actor, key, uids);
        Err(Refusal::Internal)
    }

    /// Removes members: an admin those below, the owner anybody, a back end anybody.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, the store.
    pub async fn expel(&self, actor: Reader, key: ChannelKey, uids: Vec<Uid>) -> Result<(), Refusal> {
        let _ = (actor, key, uids);
        Err(Refusal::Internal)
    }

    /// Leaves a group. An owner who leaves passes ownership to the oldest admin, else to the oldest member.
    ///
    /// # Errors
    /// `NotMember`, `Invalid` for a person channel, the store.
    pub async fn leave_group(&self, uid: Uid, key: ChannelKey) -> Result<(), Refusal> {
        let _ = (uid, key);
        Err(Refusal::Internal)
    }

    /// Sets what a member may do: the owner, or a back end. Giving ownership away makes the giver an admin.
    ///
    /// # Errors
    /// `NotMember` (actor), `NotFound` (the member), `Forbidden`, the store.
    pub async fn set_role(&self, actor: Reader, key: ChannelKey, uid: Uid, role: Role) -> Result<(), Refusal> {
        let _ = (actor, key, uid, role);
        Err(Refusal::Internal)
    }
}
