//! Groups as users make them: creating, profile, members and roles, with who asks.

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, Uid};

use super::{AdminOp, created, succession};
use crate::domain::channel::{
    Actor, ChannelProfile, Role, authorise_expel, authorise_invite, authorise_profile, authorise_role,
};
use crate::domain::refusal::Refusal;
use crate::hub::Reader;
use crate::store::{ChannelInfo, ChannelNo, Record, Store, StoreError};

/// What a plan answers: the outer result is the store's, the inner one the rules'.
type Plan = Result<Result<Vec<Record>, Refusal>, StoreError>;

/// A group that does not exist yet, as one commit. Members come before role and profile, so that they learn of both.
pub(super) fn plan_create(
    store: &dyn Store,
    key: &ChannelKey,
    owner: Option<&Uid>,
    members: &[Uid],
    profile: &ChannelProfile,
    members_max: usize,
) -> Result<Vec<Record>, Refusal> {
    let mut seen = HashSet::new();
    let uids: Vec<Uid> = owner.into_iter().chain(members).filter(|uid| seen.insert(*uid)).cloned().collect();
    if uids.len() > members_max {
        return Err(Refusal::TooMany { what: "members", max: members_max });
    }
    let channel = store.reserve_channel_no();
    let mut records: Vec<Record> = created(channel, key).collect();
    if !uids.is_empty() {
        records.push(Record::MembersAdded { channel, join_floor: 0, uids });
    }
    if let Some(owner) = owner {
        records.push(Record::MemberRole { channel, uid: owner.clone(), role: Role::Owner });
    }
    let profile = ChannelProfile { creator: owner.cloned().or_else(|| profile.creator.clone()), ..profile.clone() };
    records.push(Record::ChannelProfile { channel, profile: Box::new(profile) });
    Ok(records)
}

/// A change of a group somebody asks for.
pub(super) fn plan_change(
    store: &dyn Store,
    key: &ChannelKey,
    info: Option<&ChannelInfo>,
    head_seq: u64,
    op: &AdminOp,
    members_max: usize,
) -> Plan {
    if key.channel_type() == ChannelType::Person {
        return Ok(Err(Refusal::invalid("channel_type", "is not a group's")));
    }
    let (AdminOp::Profile { actor: asker, .. }
    | AdminOp::Invite { actor: asker, .. }
    | AdminOp::Expel { actor: asker, .. }
    | AdminOp::Role { actor: asker, .. }) = op
    else {
        return Ok(Err(Refusal::Internal));
    };
    let Some(info) = info else {
        return Ok(Err(match asker {
            Reader::User(_) => Refusal::NotMember,
            Reader::Trusted => Refusal::ChannelNotFound,
        }));
    };
    let channel = info.channel;
    let actor = actor_of(store, channel, asker)?;
    match op {
        AdminOp::Profile { profile, .. } => plan_profile(store, channel, actor, profile),
        AdminOp::Invite { uids, .. } => plan_invite(store, info, head_seq, actor, uids, members_max),
        AdminOp::Expel { uids, .. } => plan_expel(store, channel, head_seq, (asker, actor), uids),
        AdminOp::Role { uid, role, .. } => plan_role(store, channel, (asker, actor), uid, *role),
        AdminOp::Put { .. }
        | AdminOp::RemoveMembers { .. }
        | AdminOp::List { .. }
        | AdminOp::Disband
        | AdminOp::Create { .. } => Ok(Err(Refusal::Internal)),
    }
}

fn actor_of(store: &dyn Store, channel: ChannelNo, asker: &Reader) -> Result<Actor, StoreError> {
    Ok(match asker {
        Reader::Trusted => Actor::Trusted,
        Reader::User(uid) => match store.membership(channel, uid)? {
            Some(membership) => Actor::Member(membership.role),
            None => Actor::Outsider,
        },
    })
}

fn plan_profile(store: &dyn Store, channel: ChannelNo, actor: Actor, profile: &ChannelProfile) -> Plan {
    if let Err(refusal) = authorise_profile(actor) {
        return Ok(Err(refusal));
    }
    let before = store.profile(channel)?;
    let creator = before.as_ref().and_then(|before| before.creator.clone());
    let profile = ChannelProfile { creator, ..profile.clone() };
    if before.as_ref() == Some(&profile) {
        return Ok(Ok(Vec::new()));
    }
    Ok(Ok(vec![Record::ChannelProfile { channel, profile: Box::new(profile) }]))
}

fn plan_invite(
    store: &dyn Store,
    info: &ChannelInfo,
    head_seq: u64,
    actor: Actor,
    uids: &[Uid],
    members_max: usize,
) -> Plan {
    let channel = info.channel;
    // Who leads is asked only where it matters: it may read every member.
    let led = match actor {
        Actor::Member(Role::Member) => {
            store.memberships(channel)?.iter().any(|(_, membership)| membership.role >= Role::Admin)
        }
        _ => true,
    };
    if let Err(refusal) = authorise_invite(actor, led) {
        return Ok(Err(refusal));
    }
    let mut seen = HashSet::new();
    let mut added = Vec::new();
    for uid in uids {
        if seen.insert(uid) && store.membership(channel, uid)?.is_none() {
            added.push(uid.clone());
        }
    }
    if added.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    if info.member_count as usize + added.len() > members_max {
        return Ok(Err(Refusal::TooMany { what: "members", max: members_max }));
    }
    Ok(Ok(vec![Record::MembersAdded { channel, join_floor: head_seq, uids: added }]))
}

fn plan_expel(
    store: &dyn Store,
    channel: ChannelNo,
    head_seq: u64,
    (asker, actor): (&Reader, Actor),
    uids: &[Uid],
) -> Plan {
    if actor == Actor::Outsider {
        return Ok(Err(Refusal::NotMember));
    }
    let mut seen = HashSet::new();
    let mut removed = Vec::new();
    let mut owner_goes = false;
    for uid in uids {
        if !seen.insert(uid) {
            continue;
        }
        let about_oneself = matches!(asker, Reader::User(own) if own == uid);
        let Some(target) = store.membership(channel, uid)? else { continue };
        if !about_oneself && let Err(refusal) = authorise_expel(actor, target.role) {
            return Ok(Err(refusal));
        }
        owner_goes |= target.role == Role::Owner;
        removed.push(uid.clone());
    }
    let mut records = Vec::new();
    if removed.is_empty() {
        // Who may remove nobody learns so even where nobody was named who is a member.
        let own_only = uids.iter().all(|uid| matches!(asker, Reader::User(own) if own == uid));
        return Ok(match authorise_expel(actor, Role::Member) {
            Err(refusal) if !own_only => Err(refusal),
            _ => Ok(records),
        });
    }
    if owner_goes {
        records.extend(succession(store, channel, &removed.iter().collect())?);
    }
    records.push(Record::MembersRemoved { channel, delete_floor: head_seq, uids: removed });
    Ok(Ok(records))
}

fn plan_role(store: &dyn Store, channel: ChannelNo, (asker, actor): (&Reader, Actor), uid: &Uid, role: Role) -> Plan {
    let about_oneself = matches!(asker, Reader::User(own) if own == uid);
    if let Err(refusal) = authorise_role(actor, about_oneself, role) {
        return Ok(Err(refusal));
    }
    let Some(target) = store.membership(channel, uid)? else {
        return Ok(Err(Refusal::NotFound { what: "member" }));
    };
    if target.role == role {
        return Ok(Ok(Vec::new()));
    }
    let mut records = Vec::new();
    if role == Role::Owner {
        // One owner: whoever was it goes on as an admin.
        let before = store.memberships(channel)?.into_iter().filter(|(_, membership)| membership.role == Role::Owner);
        records.extend(before.map(|(uid, _)| Record::MemberRole { channel, uid, role: Role::Admin }));
    }
    records.push(Record::MemberRole { channel, uid: uid.clone(), role });
    Ok(Ok(records))
}
