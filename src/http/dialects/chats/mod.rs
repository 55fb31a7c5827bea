//! The `chats` dialect: chats, groups and messages under `/chats`.
//!
//! Source: the document `chats.txt`. Owns its paths, shapes and conversions; who may do what, unread and order are the hub's.
//! Who calls: a user with an own token in the header `token`, or a back end with an API key that names the user in
//! `x-chinwag-uid`.
//!
//! Where the document leaves a choice: a target may be named in several ways as long as all mean one chat; `userUUIDs` make a
//! new group each time, but one per `Idempotency-Key`; ids are texts; times are Unix milliseconds; a page of messages is the
//! newest of its range, oldest first; listing a page that holds the chat's last message marks the chat as read, for the
//! document has no call that would. Every answer has `code`, which is also its HTTP status.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageId, Uid, Version};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::channel::{ChannelProfile, Role, Standing, chat_id, named_set_id, set_id};
use crate::domain::content::Content;
use crate::domain::message::{Draft, Durability, Extras, Message, MessageFlags, Reaction};
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::caller::AsUser;
use crate::http::dialects::{IdempotencyKey, one_target};
use crate::http::envelope::{Envelope, with_headers_of};
use crate::http::extract::Body;
use crate::http::files::{Attached, file_ids};
use crate::http::loose::Merged;
use crate::http::names::{some_users_of, users_of};
use crate::http::pages::{self, SeqWindow};
use crate::http::problem::Problem;
use crate::hub::chats::{CHATS_MAX, ChatRow, ChatsQuery};
use crate::hub::groups::NewGroup;

mod wire;

/// Kinds of messages the document knows.
const KINDS: [&str; 5] = ["text", "docId", "link", "location", "profileId"];
/// Messages of a page when the request does not say.
const LIMIT_DEFAULT: u64 = 50;
/// Most messages of a page.
const LIMIT_MAX: u64 = 200;

/// The routes of this document.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(send, list))
        .routes(routes!(edit, revoke))
        .routes(routes!(new_group))
        .routes(routes!(group, change_group))
        .routes(routes!(add_users))
        .routes(routes!(set_role, remove_user))
        .routes(routes!(chats))
}

/// Speaks `wire::Failed`.
#[derive(Debug, Clone, Copy)]
pub struct Voice;

impl Envelope for Voice {
    fn problem(&self, problem: &Problem, request_id: &str) -> Response {
        let status = problem.status();
        let body = wire::Failed {
            code: problem.voice().chats(),
            error: problem.code(),
            message: problem.text(),
            field: problem.field().map(str::to_owned),
            retry_after_ms: problem.retry_after_ms(),
            request_id: request_id.to_owned(),
        };
        with_headers_of(problem, (status, Json(body)).into_response())
    }
}

/// Sends a message.
///
/// To a chat (`chatId`), to a user (`userUUID`: the private chat of both, made by its first message), to users
/// (`userUUIDs`: a new group of them and the sender) or to a group (`groupUUID`). Answered when it is on disk. A repeat with
/// the same `Idempotency-Key` gets the first answer; with another message it is a 409.
#[utoipa::path(
    post, path = "/chats/messages", tag = "chats", request_body = wire::Send,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's name for this message")),
    responses((status = 200, body = wire::Sent), (status = "default", body = wire::Failed))
)]
async fn send(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    name: IdempotencyKey,
    Body(body): Body<wire::Send>,
) -> Result<Json<wire::Sent>, Problem> {
    let said = body.message.as_ref().ok_or_else(|| Refusal::invalid("message", "is needed"))?;
    let extras = extras_of(said)?;
    let content = content_of(said, None, extras.is_some())?;
    let name = name.into_inner();
    let channel = target_of(&state, &caller, name.as_ref(), &body).await?;
    let draft = Draft {
        channel: channel.clone(),
        from_uid: caller.uid,
        client_msg_no: name,
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: content.encode(extras.as_deref()),
        extras,
        durability: Durability::Disk,
    };
    let sent = state.hub.send(draft, Standing::Client).await?;
    state.metrics.acks.inc();
    Ok(Json(wire::Sent { code: 200, id: sent.message_id.to_string(), chat_id: chat_id(&channel) }))
}

/// What a request says, checked. `kind`: what it is when the request does not say.
fn content_of(said: &wire::Said, kind: Option<&str>, has_extras: bool) -> Result<Content, Problem> {
    let kind = said.kind.as_deref().or(kind).ok_or_else(|| Problem::malformed("message.type", "is needed"))?;
    if said.kind.is_some() && !KINDS.contains(&kind) {
        let known = KINDS.join(", ");
        return Err(Problem::malformed("message.type", format_args!("is {kind:?}, not one of {known}")));
    }
    let body = said.content.clone().filter(|content| content.as_str() != Some(""));
    match body {
        Some(body) => Ok(Content { kind: kind.to_owned(), body, subject: None }),
        None if has_extras && !said.files.is_empty() => {
            Ok(Content { kind: kind.to_owned(), body: Value::String(String::new()), subject: None })
        }
        None => Err(Problem::malformed("message.content", "is needed, or files")),
    }
}

fn extras_of(said: &wire::Said) -> Result<Option<Box<Extras>>, Problem> {
    let extras = Extras {
        reply_to: said.reply_to,
        mentions: users_of("message.mentions", &said.mentions)?,
        mention_all: false,
        files: file_ids("message.files", &said.files)?,
    };
    Ok(extras.boxed())
}

/// The one channel a send names, made when it names users.
async fn target_of(
    state: &HttpState,
    caller: &AsUser,
    name: Option<&ClientMsgNo>,
    body: &wire::Send,
) -> Result<ChannelKey, Problem> {
    let mut named = Vec::with_capacity(5);
    let chat = match &body.chat_id {
        Some(id) => Some(state.hub.resolve_chat(caller.reader(), id).await?),
        None => None,
    };
    named.push(("chatId", chat));
    for (field, user) in [("userUUID", &body.user_uuid), ("userId", &body.user_id)] {
        let Some(user) = user else { continue };
        let peer = Uid::new(user).map_err(|e| Refusal::invalid(field, e))?;
        state.hub.require_known(vec![peer.clone()]).await?;
        named.push((field, Some(ChannelKey::person(&caller.uid, &peer))));
    }
    for (field, id) in [("groupUUID", &body.group_uuid), ("groupId", &body.group_id)] {
        let Some(id) = id else { continue };
        named.push((field, Some(group_key(state, caller, id).await?)));
    }
    let sets = [("userUUIDs", &body.user_uuids), ("userIds", &body.user_ids)];
    let mut sets = sets.into_iter().filter(|(_, users)| !users.is_empty());
    let Some((field, users)) = sets.next() else {
        if named.iter().all(|(_, key)| key.is_none()) {
            return Err(Refusal::invalid("chatId", "is needed, or one of userUUID, userUUIDs and groupUUID").into());
        }
        return one_target(&named);
    };
    let users = users_of(field, users)?;
    let set = set_with(&users, &caller.uid);
    if let Some((other, others)) = sets.next()
        && set_with(&users_of(other, others)?, &caller.uid) != set
    {
        return Err(Refusal::invalid(field, format_args!("and {other} name different users")).into());
    }
    state.hub.require_known(users.clone()).await?;
    let Some((by, _)) = named.iter().find(|(_, key)| key.is_some()) else {
        return Ok(state.hub.create_group(discussion_of(caller, name, &users)).await?);
    };
    let key = one_target(&named)?;
    let members: Vec<Uid> = match key.pair() {
        Some((a, b)) => vec![a, b],
        None => state.hub.members(caller.reader(), key.clone()).await?.into_iter().map(|(uid, _)| uid).collect(),
    };
    if set_id(&members) != set {
        return Err(Refusal::invalid(by, format_args!("and {field} name different chats")).into());
    }
    Ok(key)
}

/// Names the set of these users and one more.
fn set_with(users: &[Uid], one: &Uid) -> String {
    let all: Vec<Uid> = users.iter().chain([one]).cloned().collect();
    set_id(&all)
}

/// The group that a send to users makes: a new one, or that of the request's name.
fn discussion_of(caller: &AsUser, name: Option<&ClientMsgNo>, users: &[Uid]) -> NewGroup {
    NewGroup {
        channel_id: name.map(|name| named_set_id(&caller.uid, name, users)),
        owner: Some(caller.uid.clone()),
        members: users.to_vec(),
        profile: ChannelProfile::default(),
    }
}

/// The group with this id.
async fn group_key(state: &HttpState, caller: &AsUser, id: &str) -> Result<ChannelKey, Refusal> {
    let key = state.hub.resolve_chat(caller.reader(), id).await?;
    if key.channel_type() == ChannelType::Group { Ok(key) } else { Err(Refusal::NotFound { what: "group" }) }
}

/// Lists messages of a chat.
///
/// The newest of the range that were not skipped, oldest first. With `endAt` in the past the range stands still, so pages
/// by `skip` neither repeat nor miss a message while new ones come. A page that holds the chat's last message marks the chat
/// as read.
#[utoipa::path(
    get, path = "/chats/messages", tag = "chats", params(wire::List),
    request_body(content = Option<wire::List>, description = "The same fields, as the document has them; the query wins"),
    responses((status = 200, body = wire::Page), (status = "default", body = wire::Failed))
)]
async fn list(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Merged(query): Merged<wire::List>,
) -> Result<Json<wire::Page>, Problem> {
    let id = query.chat_id.as_deref().ok_or_else(|| Refusal::invalid("chatId", "is needed"))?;
    if let (Some(start), Some(end)) = (query.start_at, query.end_at)
        && start > end
    {
        return Err(Refusal::invalid("startAt", "is after endAt").into());
    }
    let (limit, skip) = (query.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX), query.skip.unwrap_or(0));
    let key = state.hub.resolve_chat(caller.reader(), id).await?;
    let span = state.hub.span(caller.reader(), key.clone(), query.start_at, query.end_at).await?;
    let last = span.last.saturating_sub(skip);
    let first = span.first.max((last + 1).saturating_sub(limit));
    let wanted = SeqWindow { first, last, limit: usize::MAX, newest_first: true };
    let mut found = pages::read(&state.hub, caller.reader(), &key, wanted).await?;
    found.messages.reverse();
    let attached = Attached::to(&state.hub, &found.messages).await?;
    let chat = chat_id(&key);
    let page = wire::Page {
        code: 200,
        messages: found.messages.iter().map(|message| message_of(&chat, message, &attached)).collect(),
        meta: wire::PageMeta {
            limit,
            skip,
            start_at: query.start_at,
            end_at: query.end_at,
            total: span.count(),
            has_more: first <= last && first > span.first,
        },
    };
    if caller.marks_read && found.head_seq > 0 {
        state.hub.read(caller.uid, key, found.head_seq).await?;
    }
    Ok(Json(page))
}

/// Edits a message.
///
/// Its sender may, for some time (`messages.edit_within_s`). What it refers to stays unless the request says anew.
#[utoipa::path(
    patch, path = "/chats/messages/{id}", tag = "chats", request_body = wire::Edit,
    params(("id" = String, Path, description = "The message")),
    responses((status = 200, body = wire::Changed), (status = "default", body = wire::Failed))
)]
async fn edit(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
    Body(body): Body<wire::Edit>,
) -> Result<Json<wire::Changed>, Problem> {
    let said = body.message.as_ref().ok_or_else(|| Refusal::invalid("message", "is needed"))?;
    let before = state.hub.message(caller.reader(), message_id(&id)?).await?;
    let extras = extras_of(said)?.or_else(|| before.extras.clone());
    let content = content_of(said, Some(&Content::decode(&before.payload).kind), extras.is_some())?;
    let (key, seq) = (before.channel.clone(), before.message_seq.get());
    state.hub.edit(caller.reader(), key, seq, content.encode(extras.as_deref()), extras).await?;
    changed(&state, &caller, before.message_id).await
}

/// Takes a message back.
///
/// Its sender may, for some time (`messages.revoke_within_s`), an admin of the group any time. Its number stays, what it
/// said is gone.
#[utoipa::path(
    delete, path = "/chats/messages/{id}", tag = "chats", params(("id" = String, Path, description = "The message")),
    responses((status = 200, body = wire::Changed), (status = "default", body = wire::Failed))
)]
async fn revoke(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
) -> Result<Json<wire::Changed>, Problem> {
    let before = state.hub.message(caller.reader(), message_id(&id)?).await?;
    state.hub.revoke(caller.reader(), before.channel, before.message_seq.get()).await?;
    changed(&state, &caller, before.message_id).await
}

/// A message as it is now.
async fn changed(state: &HttpState, caller: &AsUser, id: MessageId) -> Result<Json<wire::Changed>, Problem> {
    let message = state.hub.message(caller.reader(), id).await?;
    let attached = Attached::to(&state.hub, [&message]).await?;
    Ok(Json(wire::Changed { code: 200, message: message_of(&chat_id(&message.channel), &message, &attached) }))
}

/// Makes a group.
///
/// Of these users and the caller, who becomes its owner. A repeat with the same `Idempotency-Key` and users gets the same
/// group.
#[utoipa::path(
    post, path = "/chats/groups", tag = "chats", request_body = wire::NewGroup,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's name for this group")),
    responses((status = 200, body = wire::Group), (status = "default", body = wire::Failed))
)]
async fn new_group(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    name: IdempotencyKey,
    Body(body): Body<wire::NewGroup>,
) -> Result<Json<wire::Group>, Problem> {
    let users = users_of("users", &body.users)?;
    state.hub.require_known(users.clone()).await?;
    let profile = ChannelProfile {
        name: body.name.unwrap_or_default(),
        icon: body.icon.unwrap_or_default(),
        description: body.desc.unwrap_or_default(),
        ..ChannelProfile::default()
    };
    let key = state
        .hub
        .create_group(NewGroup { profile, ..discussion_of(&caller, name.into_inner().as_ref(), &users) })
        .await?;
    shown_group(&state, &caller, key).await
}

/// Shows a group.
///
/// To its members.
#[utoipa::path(
    get, path = "/chats/groups/{id}", tag = "chats", params(("id" = String, Path, description = "The group")),
    responses((status = 200, body = wire::Group), (status = "default", body = wire::Failed))
)]
async fn group(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
) -> Result<Json<wire::Group>, Problem> {
    let key = group_key(&state, &caller, &id).await?;
    shown_group(&state, &caller, key).await
}

/// Changes a group's name, icon or description.
///
/// An admin of it may. What is absent stays.
#[utoipa::path(
    patch, path = "/chats/groups/{id}", tag = "chats", request_body = wire::GroupChange,
    params(("id" = String, Path, description = "The group")),
    responses((status = 200, body = wire::Group), (status = "default", body = wire::Failed))
)]
async fn change_group(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
    Body(body): Body<wire::GroupChange>,
) -> Result<Json<wire::Group>, Problem> {
    let key = group_key(&state, &caller, &id).await?;
    let mut profile = state.hub.profile(caller.reader(), key.clone()).await?;
    let fields =
        [(&mut profile.name, body.name), (&mut profile.icon, body.icon), (&mut profile.description, body.desc)];
    for (field, given) in fields {
        if let Some(given) = given {
            *field = given;
        }
    }
    state.hub.put_profile(caller.reader(), key.clone(), profile).await?;
    shown_group(&state, &caller, key).await
}

/// Adds users to a group.
///
/// An admin of it may; in a group without any, each member.
#[utoipa::path(
    post, path = "/chats/groups/{id}/users", tag = "chats", request_body = wire::Users,
    params(("id" = String, Path, description = "The group")),
    responses((status = 200, body = wire::Group), (status = "default", body = wire::Failed))
)]
async fn add_users(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
    Body(body): Body<wire::Users>,
) -> Result<Json<wire::Group>, Problem> {
    let users = some_users_of("users", &body.users)?;
    let key = group_key(&state, &caller, &id).await?;
    state.hub.require_known(users.clone()).await?;
    state.hub.invite(caller.reader(), key.clone(), users).await?;
    shown_group(&state, &caller, key).await
}

/// Says what a member of a group may do.
///
/// The owner may. Who gives ownership away becomes an admin.
#[utoipa::path(
    put, path = "/chats/groups/{id}/users/{userId}", tag = "chats", request_body = wire::RoleChange,
    params(("id" = String, Path, description = "The group"), ("userId" = String, Path, description = "The member")),
    responses((status = 200, body = wire::Group), (status = "default", body = wire::Failed))
)]
async fn set_role(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path((id, user)): Path<(String, String)>,
    Body(body): Body<wire::RoleChange>,
) -> Result<Json<wire::Group>, Problem> {
    let role = body.role.as_deref().and_then(Role::from_code);
    let role = role.ok_or_else(|| Refusal::invalid("role", "is needed: member, admin or owner"))?;
    let user = Uid::new(&user).map_err(|e| Refusal::invalid("userId", e))?;
    let key = group_key(&state, &caller, &id).await?;
    state.hub.set_role(caller.reader(), key.clone(), user, role).await?;
    shown_group(&state, &caller, key).await
}

/// Removes a user from a group.
///
/// Everybody may leave; an admin may remove members, the owner admins too.
#[utoipa::path(
    delete, path = "/chats/groups/{id}/users/{userId}", tag = "chats",
    params(("id" = String, Path, description = "The group"), ("userId" = String, Path, description = "The member")),
    responses((status = 200, body = wire::Done), (status = "default", body = wire::Failed))
)]
async fn remove_user(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<wire::Done>, Problem> {
    let user = Uid::new(&user).map_err(|e| Refusal::invalid("userId", e))?;
    let key = group_key(&state, &caller, &id).await?;
    if user == caller.uid {
        state.hub.leave_group(user, key).await?;
    } else {
        state.hub.expel(caller.reader(), key, vec![user]).await?;
    }
    Ok(Json(wire::Done { code: 200 }))
}

async fn shown_group(state: &HttpState, caller: &AsUser, key: ChannelKey) -> Result<Json<wire::Group>, Problem> {
    let members = state.hub.members(caller.reader(), key.clone()).await?;
    let profile = state.hub.profile(caller.reader(), key.clone()).await?;
    let id = chat_id(&key);
    let roles = members.iter().filter(|(_, membership)| membership.role != Role::Member);
    Ok(Json(wire::Group {
        code: 200,
        group_id: id.clone(),
        chat_id: id.clone(),
        id,
        kind: key.channel_type().to_wire(),
        name: profile.name,
        icon: profile.icon,
        desc: profile.description,
        roles: roles
            .map(|(uid, membership)| wire::UserRole { user_id: uid.to_string(), role: membership.role.code() })
            .collect(),
        users: members.iter().map(|(uid, _)| uid.to_string()).collect(),
    }))
}

/// Lists the caller's chats.
///
/// Pinned ones first, then the latest activity first; `unRead` is the caller's.
#[utoipa::path(
    get, path = "/chats", tag = "chats", params(wire::ListChats),
    responses((status = 200, body = wire::Chats), (status = "default", body = wire::Failed))
)]
async fn chats(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Merged(query): Merged<wire::ListChats>,
) -> Result<Json<wire::Chats>, Problem> {
    let limit = query.limit.unwrap_or(u64::MAX).min(CHATS_MAX as u64);
    let skip = query.skip.unwrap_or(0);
    let asked = ChatsQuery {
        with_empty: true,
        requests: false,
        skip: usize::try_from(skip).unwrap_or(usize::MAX),
        limit: usize::try_from(limit).unwrap_or(CHATS_MAX),
    };
    let rows = state.hub.chats(caller.uid.clone(), asked).await?;
    let attached = Attached::to(&state.hub, rows.iter().filter_map(|row| row.last_message.as_ref())).await?;
    let has_more = rows.len() as u64 == limit;
    let chats = rows.iter().map(|row| chat_of(&caller.uid, row, &attached)).collect();
    Ok(Json(wire::Chats { code: 200, chats, meta: wire::ChatsMeta { limit, skip, has_more } }))
}

fn chat_of(uid: &Uid, row: &ChatRow, attached: &Attached) -> wire::Chat {
    let profile = row.profile.clone().unwrap_or_default();
    let is_private = row.key.channel_type() == ChannelType::Person;
    wire::Chat {
        id: row.chat_id.clone(),
        chat_id: row.chat_id.clone(),
        kind: row.key.channel_type().to_wire(),
        name: profile.name,
        icon: profile.icon,
        desc: profile.description,
        group_id: (!is_private).then(|| row.chat_id.clone()),
        user_uuid: is_private.then(|| row.key.id_for(uid.as_str()).to_owned()),
        user_ids: row.members.iter().map(Uid::to_string).collect(),
        un_read: row.unread,
        mentions: row.mentions,
        pinned: row.flags.pinned,
        muted: row.flags.muted,
        updated_at: row.activity_ms,
        created_at: row.created_ms,
        last_message: match &row.last_message {
            Some(message) => wire::LastMessage::Some(Box::new(message_of(&row.chat_id, message, attached))),
            None => wire::LastMessage::None {},
        },
    }
}

fn message_of(chat_id: &str, message: &Message, attached: &Attached) -> wire::Message {
    let content = Content::decode(&message.payload);
    let state = message.state.code();
    let extras = message.extras.as_deref();
    wire::Message {
        id: message.message_id.to_string(),
        chat_id: chat_id.to_owned(),
        kind: content.kind,
        content: if state.is_some() { Value::Null } else { content.body },
        from: message.from_uid.to_string(),
        created_at: message.timestamp_ms(),
        seq: message.message_seq.get(),
        reply_to: extras.and_then(|extras| extras.reply_to).map(|id| id.to_string()),
        mentions: extras.map(|extras| extras.mentions.iter().map(Uid::to_string).collect()).unwrap_or_default(),
        files: attached.of(message),
        likes: message.reacted_with(Reaction::Like),
        dislikes: message.reacted_with(Reaction::Dislike),
        edited_at: (message.edited > Version::ZERO).then(|| message.edited.unix_ms()),
        state,
    }
}

/// What is no number names no message.
fn message_id(text: &str) -> Result<MessageId, Refusal> {
    text.parse().map(Version::new).map_err(|_| Refusal::NotFound { what: "message" })
}

#[cfg(test)]
mod tests;
