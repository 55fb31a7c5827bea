//! `chats/…`, `requests/…`, `groups/…`: a user's chats, message requests of strangers, groups.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::ids::ChannelType;

use super::caller::{Actor, Caller};
use super::messages::shown;
use super::wire::{self, Answer, Nothing, Refused};
use super::{channel_uuid, done};
use crate::domain::channel::ChannelProfile;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::extract::{Body, Needs, QueryOrBody};
use crate::http::problem::Problem;
use crate::hub::Reader;
use crate::hub::chats::{CHATS_MAX, ChatRow, ChatsQuery};
use crate::hub::groups::NewGroup;
use crate::hub::people::FlagsChange;

/// Chats of a page when the request does not say.
const LIMIT_DEFAULT: usize = 100;

/// The user's chats: pinned ones first, then by last activity, newest first.
#[utoipa::path(
    post, path = "/api/v1/chats/list", tag = "relation", request_body = wire::Chats,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::ChatList>), (status = "default", body = Refused))
)]
pub async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::Chats>,
) -> Result<Json<Answer<wire::ChatList>>, Problem> {
    rows(&state, &caller, &asked, false).await
}

/// First messages of strangers that wait to be accepted (`settings` with `quarantine`).
#[utoipa::path(
    post, path = "/api/v1/requests/list", tag = "relation", request_body = wire::Chats,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::ChatList>), (status = "default", body = Refused))
)]
pub async fn requests(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::Chats>,
) -> Result<Json<Answer<wire::ChatList>>, Problem> {
    rows(&state, &caller, &asked, true).await
}

async fn rows(
    state: &HttpState,
    caller: &Caller,
    asked: &wire::Chats,
    requests: bool,
) -> Result<Json<Answer<wire::ChatList>>, Problem> {
    let actor = caller.acts(state, &asked.from_relation_id, Needs::Read)?;
    let limit = if asked.limit == 0 { LIMIT_DEFAULT } else { (asked.limit as usize).min(CHATS_MAX) };
    let query = ChatsQuery { with_empty: true, requests, skip: asked.skip as usize, limit };
    let rows = state.hub.chats(actor.uid.clone(), query).await?;
    Ok(done(wire::ChatList { chats: rows.into_iter().map(|row| chat_of(&actor, row)).collect() }))
}

fn chat_of(actor: &Actor, row: ChatRow) -> wire::Chat {
    let is_person = row.key.channel_type() == ChannelType::Person;
    let profile = row.profile.unwrap_or_default();
    wire::Chat {
        channel_uuid: channel_uuid(&row.key),
        kind: if is_person { "person" } else { "group" }.to_owned(),
        to_relation_id: is_person.then(|| row.key.id_for(actor.uid.as_str()).to_owned()),
        name: profile.name,
        icon: profile.icon,
        member_count: row.member_count,
        unread_count: row.unread,
        mentions_count: row.mentions,
        pinned: row.flags.pinned,
        muted: row.flags.muted,
        last_message: row.last_message.as_ref().map(shown),
        update_at: row.activity_ms,
    }
}

async fn flag(
    state: &HttpState,
    caller: &Caller,
    body: &wire::Flag,
    change: FlagsChange,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts(state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(state, &body.channel_uuid, &body.to_relation_id).await?;
    state.hub.set_flags(actor.uid, key, change).await?;
    Ok(done(Nothing {}))
}

/// Keeps a chat on top of the list, or no longer.
#[utoipa::path(
    post, path = "/api/v1/chats/pin", tag = "relation", request_body = wire::Flag,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn pin(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Flag>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let change = FlagsChange { pinned: Some(body.on), ..FlagsChange::default() };
    flag(&state, &caller, &body, change).await
}

/// Silences a chat, or no longer. A muted chat counts in its own row, not in the totals.
#[utoipa::path(
    post, path = "/api/v1/chats/mute", tag = "relation", request_body = wire::Flag,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn mute(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Flag>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let change = FlagsChange { muted: Some(body.on), ..FlagsChange::default() };
    flag(&state, &caller, &body, change).await
}

/// Takes a chat off the user's list. Others keep theirs; a later message brings it back with what came after.
#[utoipa::path(
    post, path = "/api/v1/chats/hide", tag = "relation", request_body = wire::ChatName,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn hide(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChatName>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, &body.to_relation_id).await?;
    state.hub.delete_conversation(actor.uid, key).await?;
    Ok(done(Nothing {}))
}

/// Accepts a message request: its sender is no stranger any more.
#[utoipa::path(
    post, path = "/api/v1/requests/accept", tag = "relation", request_body = wire::ChatName,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn accept(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChatName>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, &body.to_relation_id).await?;
    let change = FlagsChange { accepted: Some(true), ..FlagsChange::default() };
    state.hub.set_flags(actor.uid, key, change).await?;
    Ok(done(Nothing {}))
}

/// Makes a group. Its maker is its owner; a back end that names nobody makes one without an owner.
#[utoipa::path(
    post, path = "/api/v1/groups/create", tag = "relation", request_body = wire::GroupCreate,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Group>), (status = "default", body = Refused))
)]
pub async fn create_group(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::GroupCreate>,
) -> Result<Json<Answer<wire::Group>>, Problem> {
    let actor = caller.acts_or_system(&state, &body.from_relation_id, Needs::Send)?;
    let owner = (!actor.is_system()).then(|| actor.uid.clone());
    let members = actor.peers("members", &body.members)?;
    state.hub.require_known(members.clone()).await?;
    let profile = ChannelProfile {
        name: body.name,
        icon: body.icon,
        description: body.description,
        project: String::new(),
        creator: owner.clone(),
    };
    let channel_id = actor.namespace.channel_id(&uuid::Uuid::new_v4().hyphenated().to_string());
    let group = NewGroup { channel_id: Some(channel_id), owner, members, profile };
    let key = state.hub.create_group(group).await?;
    group_of(&state, &Reader::Trusted, key).await
}

async fn group_of(
    state: &HttpState,
    reader: &Reader,
    key: protocol::ids::ChannelKey,
) -> Result<Json<Answer<wire::Group>>, Problem> {
    let members = state.hub.members(reader.clone(), key.clone()).await?;
    let profile = state.hub.profile(reader.clone(), key.clone()).await?;
    let member = |(uid, membership): (protocol::ids::Uid, crate::domain::channel::Membership)| wire::Member {
        relation_id: uid.bare().to_owned(),
        role: membership.role.code().to_owned(),
    };
    Ok(done(wire::Group {
        channel_uuid: channel_uuid(&key),
        name: profile.name,
        icon: profile.icon,
        description: profile.description,
        members: members.into_iter().map(member).collect(),
    }))
}

/// Who is in a chat, and how it presents itself.
#[utoipa::path(
    post, path = "/api/v1/groups/members", tag = "relation", request_body = wire::ChatName,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Group>), (status = "default", body = Refused))
)]
pub async fn members(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::ChatName>,
) -> Result<Json<Answer<wire::Group>>, Problem> {
    let actor = caller.acts_or_system(&state, &asked.from_relation_id, Needs::Read)?;
    let key = actor.chat(&state, &asked.channel_uuid, &asked.to_relation_id).await?;
    group_of(&state, &actor.reader, key).await
}

/// Adds members to a group: its owner and admins may, a back end may, and in a group without them any member.
#[utoipa::path(
    post, path = "/api/v1/groups/invite", tag = "relation", request_body = wire::GroupChange,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn invite(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::GroupChange>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts_or_system(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, "").await?;
    let members = actor.peers("members", &body.members)?;
    if members.is_empty() {
        return Err(Problem::malformed("members", "is needed"));
    }
    state.hub.require_known(members.clone()).await?;
    state.hub.invite(actor.reader, key, members).await?;
    Ok(done(Nothing {}))
}

/// Removes members of a group: its owner anybody, admins those below, a back end anybody.
#[utoipa::path(
    post, path = "/api/v1/groups/remove", tag = "relation", request_body = wire::GroupChange,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn remove(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::GroupChange>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts_or_system(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, "").await?;
    let members = actor.peers("members", &body.members)?;
    if members.is_empty() {
        return Err(Problem::malformed("members", "is needed"));
    }
    state.hub.expel(actor.reader, key, members).await?;
    Ok(done(Nothing {}))
}

/// Leaves a group.
#[utoipa::path(
    post, path = "/api/v1/groups/leave", tag = "relation", request_body = wire::ChatName,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<Nothing>), (status = "default", body = Refused))
)]
pub async fn leave(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChatName>,
) -> Result<Json<Answer<Nothing>>, Problem> {
    let actor = caller.acts(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, "").await?;
    if key.channel_type() == ChannelType::Person {
        return Err(Refusal::invalid("channelUuid", "is a person chat, which nobody leaves: hide it").into());
    }
    state.hub.leave_group(actor.uid, key).await?;
    Ok(done(Nothing {}))
}
