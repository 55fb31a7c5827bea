//! Groups as users make them: profile, roles, inviting, leaving, removing.
//!
//! Rules of who may do what are `domain::channel`'s; changes go through the channel's lane like a back end's.

use protocol::ids::{CHANNEL_ID_BYTES_MAX, ChannelKey, ChannelType, NAMESPACE_SEPARATOR, Uid};

use super::administration::AdminOp;
use super::conversations::{self, readable};
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
    /// Its profile; `creator` is the owner, where there is one.
    pub profile: ChannelProfile,
}

/// The key of a group an edge names, with or without its namespace.
fn group_key(channel_id: &str) -> Result<ChannelKey, Refusal> {
    let bare = channel_id.split_once(NAMESPACE_SEPARATOR).map_or(channel_id, |(_, bare)| bare);
    let checked = ChannelKey::named(bare, ChannelType::Group);
    checked.map_err(|error| Refusal::invalid("channel_id", error))?;
    if channel_id.len() > CHANNEL_ID_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "channel_id", bytes: channel_id.len(), max: CHANNEL_ID_BYTES_MAX });
    }
    Ok(ChannelKey::from_stored(channel_id, ChannelType::Group))
}

impl Hub {
    /// Makes a group. Stores no message.
    ///
    /// # Errors
    /// `Invalid` naming a field of the profile or the id, `TooLarge` likewise, `TooMany` members, the store.
    pub async fn create_group(&self, group: NewGroup) -> Result<ChannelKey, Refusal> {
        let NewGroup { channel_id, owner, members, profile } = group;
        let channel_id = channel_id.unwrap_or_else(|| uuid::Uuid::new_v4().hyphenated().to_string());
        let key = group_key(&channel_id)?;
        profile.check()?;
        let op = AdminOp::Create { owner, members, profile: Box::new(profile) };
        self.administer(key.clone(), op).await?;
        Ok(key)
    }

    /// A channel's profile; the default when it has none.
    ///
    /// # Errors
    /// `NotMember`, `ChannelNotFound` (trusted), the store.
    pub async fn profile(&self, reader: Reader, key: ChannelKey) -> Result<ChannelProfile, Refusal> {
        self.ask(move |store| {
            let Some((info, _)) = readable(store, &reader, &key)? else { return Ok(ChannelProfile::default()) };
            Ok(store.profile(info.channel).map_err(conversations::refuse)?.unwrap_or_default())
        })
        .await
    }

    /// Replaces a group's profile: an admin of it, or a back end. `creator` stays what it was.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, `TooLarge` naming the field, the store.
    pub async fn put_profile(&self, actor: Reader, key: ChannelKey, profile: ChannelProfile) -> Result<(), Refusal> {
        profile.check()?;
        self.administer(key, AdminOp::Profile { actor, profile: Box::new(profile) }).await.map(drop)
    }

    /// The members of a channel, in order of joining.
    ///
    /// # Errors
    /// `NotMember`, `ChannelNotFound` (trusted), the store.
    pub async fn members(&self, reader: Reader, key: ChannelKey) -> Result<Vec<(Uid, Membership)>, Refusal> {
        self.ask(move |store| match readable(store, &reader, &key)? {
            Some((info, _)) => store.memberships(info.channel).map_err(conversations::refuse),
            None => Ok(conversations::members_by_name(&key)),
        })
        .await
    }

    /// Adds members: an admin of the group, or a back end; in a group without owner and admins, any member.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, `TooMany`, the store.
    pub async fn invite(&self, actor: Reader, key: ChannelKey, uids: Vec<Uid>) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Invite { actor, uids }).await.map(drop)
    }

    /// Removes members: an admin those below, the owner anybody, a back end anybody. Oneself: leaves. Who is no member is
    /// skipped; where one may not be removed, nobody is.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`, `ChannelNotFound` (trusted), the store.
    pub async fn expel(&self, actor: Reader, key: ChannelKey, uids: Vec<Uid>) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Expel { actor, uids }).await.map(drop)
    }

    /// Leaves a group. An owner who leaves passes ownership to the oldest admin, else to the oldest member.
    ///
    /// # Errors
    /// `NotMember`, `Invalid` for a person channel, the store.
    pub async fn leave_group(&self, uid: Uid, key: ChannelKey) -> Result<(), Refusal> {
        let op = AdminOp::Expel { actor: Reader::User(uid.clone()), uids: vec![uid] };
        self.administer(key, op).await.map(drop)
    }

    /// Sets what a member may do: the owner, or a back end. Giving ownership away makes the giver an admin.
    ///
    /// # Errors
    /// `NotMember` (actor), `NotFound` (the member), `Forbidden`, `Invalid` (an owner laying it down), the store.
    pub async fn set_role(&self, actor: Reader, key: ChannelKey, uid: Uid, role: Role) -> Result<(), Refusal> {
        self.administer(key, AdminOp::Role { actor, uid, role }).await.map(drop)
    }
}
