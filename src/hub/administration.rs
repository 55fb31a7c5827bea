//! Changes of a channel: what a request means as records (wukongim-http.md section 4, recommendations 20 to 22; groups as
//! users make them). Who may what is `domain::channel`'s.

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, Uid};

use super::Reader;
use crate::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Role, alias_of, heir};
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, ChannelNo, Record, Store, StoreError};

mod lists;
mod members;

/// A change of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminOp {
    /// Creates or updates: settings when given, members added, or replaced when `reset`.
    Put {
        /// All settings; `None` leaves them.
        settings: Option<ChannelSettings>,
        /// Members to add.
        members: Vec<Uid>,
        /// Remove everybody else.
        reset: bool,
    },
    /// Takes members away. Who is none is skipped.
    RemoveMembers {
        /// Who.
        uids: Vec<Uid>,
    },
    /// Changes one of its lists. Who is on it already, or is not, is skipped.
    List {
        /// Which.
        list: ChannelList,
        /// How.
        how: ListChange,
        /// Whom.
        uids: Vec<Uid>,
    },
    /// Ends the channel: members go, messages stay, sends are refused until it is put again.
    Disband,
    /// Makes a group with everything it begins with. One that exists stays as it is.
    Create {
        /// Its owner, a member too.
        owner: Option<Uid>,
        /// Its members.
        members: Vec<Uid>,
        /// Its profile.
        profile: Box<ChannelProfile>,
    },
    /// Replaces the profile.
    Profile {
        /// Who asks.
        actor: Reader,
        /// All of it but the creator.
        profile: Box<ChannelProfile>,
    },
    /// Adds members. Who is one already stays as is.
    Invite {
        /// Who asks.
        actor: Reader,
        /// Whom.
        uids: Vec<Uid>,
    },
    /// Removes members. Who is none is skipped.
    Expel {
        /// Who asks.
        actor: Reader,
        /// Whom; oneself: leaves.
        uids: Vec<Uid>,
    },
    /// Sets what a member may do.
    Role {
        /// Who asks.
        actor: Reader,
        /// About whom.
        uid: Uid,
        /// The role.
        role: Role,
    },
}

/// What becomes of a list of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListChange {
    /// These are added.
    Add,
    /// These are taken off.
    Remove,
    /// These, and nobody else; nobody: the list is empty.
    Set,
}

impl AdminOp {
    /// About the bytes it takes while it waits.
    pub fn bytes(&self) -> usize {
        let names = |uids: &[Uid]| uids.iter().map(|uid| uid.as_str().len() + 16).sum::<usize>();
        64 + match self {
            Self::Put { members: uids, .. }
            | Self::RemoveMembers { uids }
            | Self::List { uids, .. }
            | Self::Create { members: uids, .. }
            | Self::Invite { uids, .. }
            | Self::Expel { uids, .. } => names(uids),
            Self::Disband | Self::Profile { .. } | Self::Role { .. } => 0,
        }
    }
}

/// The records that make a channel: its number and, where its chat id is not its own id, the alias that finds it.
pub fn created(channel: ChannelNo, key: &ChannelKey) -> impl Iterator<Item = Record> {
    std::iter::once(Record::ChannelCreated { channel, key: key.clone() }).chain(alias(channel, key))
}

/// The alias by which a channel's chat id finds it, where its own id is another.
pub fn alias(channel: ChannelNo, key: &ChannelKey) -> Option<Record> {
    alias_of(key).map(|alias| Record::Alias { alias, channel })
}

/// The record that keeps a group led when its owner is among those who go. As many rows as the members fill, only then.
fn succession(store: &dyn Store, channel: ChannelNo, leaving: &HashSet<&Uid>) -> Result<Option<Record>, StoreError> {
    let members = store.memberships(channel)?;
    if !members.iter().any(|(uid, membership)| membership.role == Role::Owner && leaving.contains(uid)) {
        return Ok(None);
    }
    let rest = members.iter().filter(|(uid, _)| !leaving.contains(uid));
    let heir = heir(rest.map(|(uid, membership)| (uid, membership.role)));
    Ok(heir.map(|uid| Record::MemberRole { channel, uid: uid.clone(), role: Role::Owner }))
}

/// The records of a change, in order; none when nothing changes. Blocking.
///
/// # Errors
/// The outer result is the store's; the inner one the rules': members of a person channel, too many members, a channel
/// that does not exist, an actor who may not.
pub fn plan_admin(
    store: &dyn Store,
    key: &ChannelKey,
    info: Option<&ChannelInfo>,
    head_seq: u64,
    op: &AdminOp,
    members_max: usize,
) -> Result<Result<Vec<Record>, Refusal>, StoreError> {
    let mut records = Vec::new();
    match op {
        AdminOp::Put { settings, members, reset } => {
            if key.channel_type() == ChannelType::Person && !members.is_empty() {
                return Ok(Err(Refusal::invalid("subscribers", "cannot be given for a person channel")));
            }
            let channel = match info {
                Some(info) => info.channel,
                None => {
                    let channel = store.reserve_channel_no();
                    records.extend(created(channel, key));
                    channel
                }
            };
            if let Some(settings) = settings
                && info.map(|i| i.settings).unwrap_or_default() != *settings
            {
                records.push(Record::ChannelSettings { channel, settings: *settings });
            }
            let wanted: HashSet<&Uid> = members.iter().collect();
            let mut removed = Vec::new();
            if *reset && info.is_some() {
                removed = store.members(channel)?;
                removed.retain(|uid| !wanted.contains(uid));
            }
            let mut added = Vec::new();
            let mut seen = HashSet::new();
            for uid in members {
                if seen.insert(uid) && (info.is_none() || store.membership(channel, uid)?.is_none()) {
                    added.push(uid.clone());
                }
            }
            let count = info.map_or(0, |i| i.member_count) as usize + added.len() - removed.len();
            if count > members_max && !added.is_empty() {
                return Ok(Err(Refusal::TooMany { what: "members", max: members_max }));
            }
            if !removed.is_empty() {
                records.extend(succession(store, channel, &removed.iter().collect())?);
                records.push(Record::MembersRemoved { channel, delete_floor: head_seq, uids: removed });
            }
            if !added.is_empty() {
                records.push(Record::MembersAdded { channel, join_floor: head_seq, uids: added });
            }
        }
        AdminOp::RemoveMembers { uids } => {
            let Some(info) = info else { return Ok(Err(Refusal::ChannelNotFound)) };
            let mut removed = Vec::new();
            let mut seen = HashSet::new();
            let mut owner_goes = false;
            for uid in uids {
                if seen.insert(uid)
                    && let Some(membership) = store.membership(info.channel, uid)?
                {
                    owner_goes |= membership.role == Role::Owner;
                    removed.push(uid.clone());
                }
            }
            if !removed.is_empty() {
                if owner_goes {
                    records.extend(succession(store, info.channel, &removed.iter().collect())?);
                }
                records.push(Record::MembersRemoved { channel: info.channel, delete_floor: head_seq, uids: removed });
            }
        }
        AdminOp::List { list, how, uids } => {
            return lists::plan_list(store, key, info, (*list, *how), uids, members_max);
        }
        AdminOp::Disband => {
            let Some(info) = info else { return Ok(Ok(records)) };
            let settings = ChannelSettings { disband: true, ..info.settings };
            if settings != info.settings {
                records.push(Record::ChannelSettings { channel: info.channel, settings });
            }
            let members = store.members(info.channel)?;
            if !members.is_empty() {
                records.push(Record::MembersRemoved { channel: info.channel, delete_floor: head_seq, uids: members });
            }
        }
        AdminOp::Create { owner, members, profile } => {
            if info.is_some() {
                return Ok(Ok(records));
            }
            return Ok(members::plan_create(store, key, owner.as_ref(), members, profile, members_max));
        }
        AdminOp::Profile { .. } | AdminOp::Invite { .. } | AdminOp::Expel { .. } | AdminOp::Role { .. } => {
            return members::plan_change(store, key, info, head_seq, op, members_max);
        }
    }
    Ok(Ok(records))
}
