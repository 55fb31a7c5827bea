//! Requests about messages, people and groups: each checks its frame at once and answers with one verb of the hub.
//!
//! A function here is called in the shard's turn and only checks; what it returns runs in a task of its own, so that no
//! read half waits for the store.

use bytes::Bytes;
use protocol::ids::{Uid, Version};
use protocol::native as wire;

use super::native::answers::Asked;
use super::native::{bad_id, channel_of, extras_of, uids_of};
use crate::domain::channel::{ChannelProfile, Role};
use crate::domain::message::Reaction;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Strangers, UserSettings};
use crate::hub::groups::NewGroup;
use crate::hub::messages::{SEARCH_LIMIT_MAX, Search};
use crate::hub::people::{FlagsChange, RelationChange};
use crate::hub::{Hub, Reader};

/// Items of a list when the request names no limit.
const LIST_LIMIT_DEFAULT: usize = 100;
/// Most items of a list.
const LIST_LIMIT_MAX: usize = 1_000;

/// An answer as the codec wrote it, or why there is none.
type Answer = Result<Bytes, Refusal>;

fn limit_of(wanted: u32) -> usize {
    match wanted {
        0 => LIST_LIMIT_DEFAULT,
        wanted => (wanted as usize).min(LIST_LIMIT_MAX),
    }
}

fn reader(asked: &Asked) -> Reader {
    Reader::User(asked.uid.clone())
}

fn owned(text: &Option<std::borrow::Cow<'_, str>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

pub(super) fn revoke(
    asked: Asked,
    hub: Hub,
    frame: &wire::Revoke<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let seq = frame.message_seq;
    Ok(async move { Ok(asked.done(hub.revoke(reader(&asked), key, seq).await?)) })
}

pub(super) fn edit(
    asked: Asked,
    hub: Hub,
    frame: &wire::Edit<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let extras = extras_of(frame.reply_to, &frame.mentions, frame.mention_all, &frame.files)?;
    // Copied once: the frame lies in a buffer that all connections share.
    let (seq, payload) = (frame.message_seq, Bytes::copy_from_slice(&frame.payload));
    Ok(async move { Ok(asked.done(hub.edit(reader(&asked), key, seq, payload, extras).await?)) })
}

pub(super) fn react(
    asked: Asked,
    hub: Hub,
    frame: &wire::React<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let seq = frame.message_seq;
    let reaction = match frame.reaction {
        wire::Reaction::None => None,
        wire::Reaction::Like => Some(Reaction::Like),
        wire::Reaction::Dislike => Some(Reaction::Dislike),
        wire::Reaction::Unknown => return Err(Refusal::invalid("reaction", "is not like, dislike or empty")),
    };
    Ok(async move { Ok(asked.done(hub.react(asked.uid.clone(), key, seq, reaction).await?)) })
}

pub(super) fn changes(
    asked: Asked,
    hub: Hub,
    frame: &wire::Changes<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let (since, max) = (Version::new(frame.since), limit_of(frame.limit));
    Ok(async move {
        let found = hub.message_changes(reader(&asked), key.clone(), since, max).await?;
        Ok(asked.changes(&key, &found))
    })
}

pub(super) fn read_by(
    asked: Asked,
    hub: Hub,
    frame: &wire::ReadBy<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let (seq, limit) = (frame.message_seq, limit_of(frame.limit));
    Ok(async move {
        let found = hub.read_by(reader(&asked), key.clone(), seq, limit).await?;
        Ok(asked.readers(&key, seq, &found))
    })
}

pub(super) fn search(
    asked: Asked,
    hub: Hub,
    frame: &wire::Search<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let oldest_first = frame.oldest_first;
    let search = Search {
        text: frame.text.clone().into_owned(),
        first: frame.first_seq,
        last: frame.last_seq,
        limit: (frame.limit as usize).min(SEARCH_LIMIT_MAX),
        newest_first: !oldest_first,
    };
    Ok(async move {
        let page = hub.search(reader(&asked), key.clone(), search).await?;
        Ok(asked.found(&key, page, oldest_first))
    })
}

pub(super) fn flags(
    asked: Asked,
    hub: Hub,
    frame: &wire::Flags<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let change = FlagsChange { pinned: frame.pinned, muted: frame.muted, accepted: frame.accepted };
    Ok(async move { Ok(asked.done(hub.set_flags(asked.uid.clone(), key, change).await?)) })
}

pub(super) fn relation(
    asked: Asked,
    hub: Hub,
    frame: &wire::Relation<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let peer = Uid::new(&frame.uid).map_err(bad_id("uid"))?;
    let change = RelationChange { contact: frame.contact, blocked: frame.blocked };
    Ok(async move {
        let now = hub.put_relation(asked.uid.clone(), peer.clone(), change).await?;
        Ok(asked.relations(&[(peer, now)]))
    })
}

pub(super) fn relations(
    asked: Asked,
    hub: Hub,
    _: &wire::Relations,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    Ok(async move { Ok(asked.relations(&hub.relations(asked.uid.clone()).await?)) })
}

pub(super) fn settings(
    asked: Asked,
    hub: Hub,
    frame: &wire::Settings,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let strangers = match frame.strangers {
        None => None,
        Some(wire::Strangers::Allow) => Some(Strangers::Allow),
        Some(wire::Strangers::Quarantine) => Some(Strangers::Quarantine),
        Some(wire::Strangers::Block) => Some(Strangers::Block),
        Some(wire::Strangers::Unknown) => {
            return Err(Refusal::invalid("strangers", "is not allow, quarantine or block"));
        }
    };
    Ok(async move {
        let settings = match strangers {
            None => hub.user_settings(asked.uid.clone()).await?,
            Some(strangers) => {
                let settings = UserSettings { strangers };
                hub.put_user_settings(asked.uid.clone(), settings).await?;
                settings
            }
        };
        Ok(asked.settings(settings))
    })
}

pub(super) fn group(
    asked: Asked,
    hub: Hub,
    frame: &wire::Group<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let members = match frame.members.as_slice() {
        [] => Vec::new(),
        members => uids_of("members", members)?,
    };
    let profile = ChannelProfile {
        name: frame.name.clone().into_owned(),
        icon: frame.icon.clone().into_owned(),
        description: frame.description.clone().into_owned(),
        creator: Some(asked.uid.clone()),
        ..ChannelProfile::default()
    };
    Ok(async move {
        let owner = Some(asked.uid.clone());
        let group = NewGroup { channel_id: None, owner, members, profile: profile.clone() };
        let key = hub.create_group(group).await?;
        Ok(asked.profile(&key, &profile))
    })
}

pub(super) fn profile(
    asked: Asked,
    hub: Hub,
    frame: &wire::Profile<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let (name, icon, description) = (owned(&frame.name), owned(&frame.icon), owned(&frame.description));
    Ok(async move {
        let mut profile = hub.profile(reader(&asked), key.clone()).await?;
        if name.is_some() || icon.is_some() || description.is_some() {
            profile.name = name.unwrap_or(profile.name);
            profile.icon = icon.unwrap_or(profile.icon);
            profile.description = description.unwrap_or(profile.description);
            hub.put_profile(reader(&asked), key.clone(), profile.clone()).await?;
        }
        Ok(asked.profile(&key, &profile))
    })
}

pub(super) fn members(
    asked: Asked,
    hub: Hub,
    frame: &wire::Members<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let (skip, limit) = (frame.skip as usize, limit_of(frame.limit));
    Ok(async move {
        let all = hub.members(reader(&asked), key.clone()).await?;
        Ok(asked.members(&key, &all, skip, limit))
    })
}

pub(super) fn invite(
    asked: Asked,
    hub: Hub,
    frame: &wire::Invite<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let uids = uids_of("uids", &frame.uids)?;
    Ok(async move {
        hub.invite(reader(&asked), key, uids).await?;
        Ok(asked.done(Version::ZERO))
    })
}

pub(super) fn expel(
    asked: Asked,
    hub: Hub,
    frame: &wire::Expel<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let uids = uids_of("uids", &frame.uids)?;
    Ok(async move {
        hub.expel(reader(&asked), key, uids).await?;
        Ok(asked.done(Version::ZERO))
    })
}

pub(super) fn role(
    asked: Asked,
    hub: Hub,
    frame: &wire::GiveRole<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    let member = Uid::new(&frame.uid).map_err(bad_id("uid"))?;
    let role = match frame.role {
        wire::Role::Member => Role::Member,
        wire::Role::Admin => Role::Admin,
        wire::Role::Owner => Role::Owner,
        wire::Role::Unknown => return Err(Refusal::invalid("role", "is not member, admin or owner")),
    };
    Ok(async move {
        hub.set_role(reader(&asked), key, member, role).await?;
        Ok(asked.done(Version::ZERO))
    })
}

pub(super) fn leave(
    asked: Asked,
    hub: Hub,
    frame: &wire::Leave<'_>,
) -> Result<impl Future<Output = Answer> + use<>, Refusal> {
    let key = channel_of(&asked.uid, &frame.channel_id, frame.channel_type)?;
    Ok(async move {
        hub.leave_group(asked.uid.clone(), key).await?;
        Ok(asked.done(Version::ZERO))
    })
}
