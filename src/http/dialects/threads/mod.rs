//! The `threads` dialect: chat threads and their messages under `/api/v1/chat`.
//!
//! Source: the document `threads.txt` (Cubicl, "Mesajlaşma"). Owns its paths, shapes and conversions; who may do what, unread
//! and order are the hub's. Who calls: a user with `Authorization: Bearer`, or a back end with an API key that names the
//! user in `x-chinwag-uid`; a key without it makes and fills the threads of projects.
//!
//! Where the document leaves a choice: lists of messages are ascending, with `before` the latest before it, with `after` the
//! first after it, with both the first of what lies between; the parameters it calls path parameters are query parameters;
//! listing a page that holds the thread's last message (without `before` and `search`) sets `access`; a send answers the
//! message itself. What the document speaks of without a call for it (making threads, liking, editing) has one here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use protocol::ids::{ChannelKey, ChannelType, MessageId, MessageSeq, Uid, Version};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::channel::{ChannelProfile, Standing, chat_id, named_set_id, project_id};
use crate::domain::content::Content;
use crate::domain::message::{Draft, Durability, Extras, Message, MessageFlags, MessageState, Reaction};
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::caller::{AsUser, Party};
use crate::http::dialects::{IdempotencyKey, one_target};
use crate::http::envelope::{Envelope, with_headers_of};
use crate::http::extract::Body;
use crate::http::files::{Attached, file_ids};
use crate::http::loose::Merged;
use crate::http::names::{some_users_of, users_of};
use crate::http::pages::{self, SeqWindow};
use crate::http::problem::Problem;
use crate::hub::Sent;
use crate::hub::chats::{CHATS_MAX, ChatRow, ChatsQuery};
use crate::hub::groups::NewGroup;
use crate::hub::messages::Search;

mod wire;

/// Messages of a page when the request does not say.
const LIMIT_DEFAULT: u64 = 50;
/// Most messages of a page.
const LIMIT_MAX: u64 = 200;
/// Searches of a bounded range put together for one page.
const SEARCHES_MAX: usize = 16;
/// On a page of a search that stopped before its range was looked at as a whole: the message to go on from, as `before` or
/// `after`.
pub const RESUME_HEADER: HeaderName = HeaderName::from_static("x-chinwag-search-resume");

/// The routes of this document.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(threads, new_thread))
        .routes(routes!(thread, change_thread))
        .routes(routes!(access))
        .routes(routes!(add_users))
        .routes(routes!(remove_user))
        .routes(routes!(list))
        .routes(routes!(send))
        .routes(routes!(message, edit, revoke))
        .routes(routes!(like, like_by_post, unlike))
        .routes(routes!(dislike, dislike_by_post, undislike))
}

/// Speaks `wire::Failed`.
#[derive(Debug, Clone, Copy)]
pub struct Voice;

impl Envelope for Voice {
    fn problem(&self, problem: &Problem, request_id: &str) -> Response {
        let status = problem.status();
        let body = wire::Failed {
            status: status.as_u16(),
            code: problem.code(),
            message: problem.text(),
            field: problem.field().map(str::to_owned),
            retry_after_ms: problem.retry_after_ms(),
            request_id: request_id.to_owned(),
        };
        with_headers_of(problem, (status, Json(body)).into_response())
    }
}

/// Lists the caller's threads.
///
/// The latest activity first, at most 1000.
#[utoipa::path(
    get, path = "/api/v1/chat/threads", tag = "threads",
    responses((status = 200, body = Vec<wire::ChatThread>), (status = "default", body = wire::Failed))
)]
async fn threads(State(state): State<Arc<HttpState>>, caller: AsUser) -> Result<Json<Vec<wire::ChatThread>>, Problem> {
    let query = ChatsQuery { with_empty: true, requests: false, skip: 0, limit: CHATS_MAX };
    let mut rows = state.hub.chats(caller.uid, query).await?;
    // This list knows no pinned threads.
    rows.sort_by_key(|row| std::cmp::Reverse(row.activity_ms));
    let attached = Attached::to(&state.hub, rows.iter().filter_map(|row| row.last_message.as_ref())).await?;
    Ok(Json(rows.iter().map(|row| thread_of(row, &attached)).collect()))
}

/// Shows a thread.
///
/// As the list does, and without viewing it.
#[utoipa::path(
    get, path = "/api/v1/chat/threads/{threadId}", tag = "threads",
    params(("threadId" = String, Path, description = "The thread")),
    responses((status = 200, body = wire::ChatThread), (status = "default", body = wire::Failed))
)]
async fn thread(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
) -> Result<Json<wire::ChatThread>, Problem> {
    let key = state.hub.resolve_chat(caller.reader(), &id).await?;
    Ok(Json(shown_thread(&state, caller.uid, key).await?))
}

/// Views a thread.
///
/// Sets `access` and reads everything, as listing its last message does.
#[utoipa::path(
    post, path = "/api/v1/chat/threads/{threadId}/access", tag = "threads",
    params(("threadId" = String, Path, description = "The thread")),
    responses((status = 200, body = wire::ChatThread), (status = "default", body = wire::Failed))
)]
async fn access(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
) -> Result<Json<wire::ChatThread>, Problem> {
    let key = state.hub.resolve_chat(caller.reader(), &id).await?;
    state.hub.view_chat(caller.uid.clone(), key.clone()).await?;
    Ok(Json(shown_thread(&state, caller.uid, key).await?))
}

async fn shown_thread(state: &HttpState, uid: Uid, key: ChannelKey) -> Result<wire::ChatThread, Refusal> {
    let row = state.hub.chat(uid, key).await?;
    let attached = Attached::to(&state.hub, &row.last_message).await?;
    Ok(thread_of(&row, &attached))
}

/// Makes a thread.
///
/// `custom`: of the caller, who becomes its owner, and `users`. `group`: the one thread of a project, for its members; an
/// API key makes it, and making it again answers the one that is there. A personal thread is made by its first message.
#[utoipa::path(
    post, path = "/api/v1/chat/threads", tag = "threads", request_body = wire::NewThread,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's name for this thread")),
    responses((status = 200, body = wire::ChatThread), (status = "default", body = wire::Failed))
)]
async fn new_thread(
    State(state): State<Arc<HttpState>>,
    party: Party,
    name: IdempotencyKey,
    Body(body): Body<wire::NewThread>,
) -> Result<Json<wire::ChatThread>, Problem> {
    let users = users_of("users", &body.users)?;
    let kind = body.kind.as_deref().unwrap_or(if body.group.is_some() { "group" } else { "custom" });
    let (channel_id, project) = match (kind, body.group) {
        ("custom", Some(_)) => return Err(Refusal::invalid("group", "is for threads of the type group").into()),
        ("custom", None) if body.name.is_none() => return Err(Refusal::invalid("name", "is needed").into()),
        ("custom", None) => {
            let named = party.uid.as_ref().zip(name.into_inner());
            (named.map(|(owner, name)| named_set_id(owner, &name, &users)), String::new())
        }
        ("group", None) => return Err(Refusal::invalid("group", "is needed").into()),
        ("group", Some(_)) if party.uid.is_some() => {
            return Err(Refusal::Forbidden { action: "make the thread of a project: it needs an API key" }.into());
        }
        ("group", Some(project)) => (Some(project_id(&project)), project),
        ("personal", _) => {
            return Err(Refusal::invalid("type", "is made by its first message: send one with `to`").into());
        }
        _ => return Err(Refusal::invalid("type", "is not custom or group").into()),
    };
    let first = users.first().cloned();
    let Some(shown_to) = party.uid.clone().or(first) else {
        return Err(Refusal::invalid("users", "is needed").into());
    };
    state.hub.require_known(users.clone()).await?;
    let profile = ChannelProfile { name: body.name.unwrap_or_default(), project, ..ChannelProfile::default() };
    let group = NewGroup { channel_id, owner: party.uid, members: users, profile };
    let key = state.hub.create_group(group).await?;
    Ok(Json(shown_thread(&state, shown_to, key).await?))
}

/// Renames a thread.
///
/// An admin of it may, or a back end.
#[utoipa::path(
    patch, path = "/api/v1/chat/threads/{threadId}", tag = "threads", request_body = wire::ThreadChange,
    params(("threadId" = String, Path, description = "The thread")),
    responses((status = 200, body = wire::Members), (status = "default", body = wire::Failed))
)]
async fn change_thread(
    State(state): State<Arc<HttpState>>,
    party: Party,
    Path(id): Path<String>,
    Body(body): Body<wire::ThreadChange>,
) -> Result<Json<wire::Members>, Problem> {
    let name = body.name.ok_or_else(|| Refusal::invalid("name", "is needed"))?;
    let key = group_key(&state, &party, &id).await?;
    let profile = state.hub.profile(party.reader(), key.clone()).await?;
    state.hub.put_profile(party.reader(), key.clone(), ChannelProfile { name, ..profile }).await?;
    members(&state, &party, key).await
}

/// Adds users to a thread.
///
/// An admin of it may, or a back end; in a thread without any admin, each member.
#[utoipa::path(
    post, path = "/api/v1/chat/threads/{threadId}/users", tag = "threads", request_body = wire::Users,
    params(("threadId" = String, Path, description = "The thread")),
    responses((status = 200, body = wire::Members), (status = "default", body = wire::Failed))
)]
async fn add_users(
    State(state): State<Arc<HttpState>>,
    party: Party,
    Path(id): Path<String>,
    Body(body): Body<wire::Users>,
) -> Result<Json<wire::Members>, Problem> {
    let users = some_users_of("users", &body.users)?;
    let key = group_key(&state, &party, &id).await?;
    state.hub.require_known(users.clone()).await?;
    state.hub.invite(party.reader(), key.clone(), users).await?;
    members(&state, &party, key).await
}

/// Removes a user from a thread.
///
/// Everybody may leave; an admin may remove members, the owner admins too, a back end anybody.
#[utoipa::path(
    delete, path = "/api/v1/chat/threads/{threadId}/users/{userId}", tag = "threads",
    params(("threadId" = String, Path, description = "The thread"), ("userId" = String, Path, description = "The user")),
    responses((status = 200, body = wire::Members), (status = "default", body = wire::Failed))
)]
async fn remove_user(
    State(state): State<Arc<HttpState>>,
    party: Party,
    Path((id, user)): Path<(String, String)>,
) -> Result<Json<wire::Members>, Problem> {
    let user = Uid::new(&user).map_err(|e| Refusal::invalid("userId", e))?;
    let key = group_key(&state, &party, &id).await?;
    if party.uid.as_ref() == Some(&user) {
        state.hub.leave_group(user, key).await?;
        // Who left may not see who is left.
        return Ok(Json(wire::Members { users: Vec::new() }));
    }
    state.hub.expel(party.reader(), key.clone(), vec![user]).await?;
    members(&state, &party, key).await
}

async fn members(state: &HttpState, party: &Party, key: ChannelKey) -> Result<Json<wire::Members>, Problem> {
    let members = state.hub.members(party.reader(), key).await?;
    Ok(Json(wire::Members { users: members.iter().map(|(uid, _)| uid.to_string()).collect() }))
}

/// The thread with this id, which is no personal one.
async fn group_key(state: &HttpState, party: &Party, id: &str) -> Result<ChannelKey, Refusal> {
    let key = state.hub.resolve_chat(party.reader(), id).await?;
    if key.channel_type() == ChannelType::Person {
        return Err(Refusal::invalid("threadId", "is a personal thread: its users and name do not change"));
    }
    Ok(key)
}

/// Lists messages of a thread.
///
/// Ascending. The latest; with `before` the latest sent before that message; with `after` the first sent after it; with
/// both the first between them. With `search` only messages that hold the text, whatever its case; a page of a search that
/// stopped early names in `x-chinwag-search-resume` the message to go on from. A page that holds the thread's last message
/// sets `access`, unless it was asked with `before` or `search`.
#[utoipa::path(
    get, path = "/api/v1/chat/threads/{threadId}/messages", tag = "threads",
    params(("threadId" = String, Path, description = "The thread"), wire::List),
    responses((status = 200, body = Vec<wire::ChatMessage>), (status = "default", body = wire::Failed))
)]
async fn list(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
    Merged(query): Merged<wire::List>,
) -> Result<(HeaderMap, Json<Vec<wire::ChatMessage>>), Problem> {
    let key = state.hub.resolve_chat(caller.reader(), &id).await?;
    let limit = usize::try_from(query.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)).unwrap_or(0);
    let after = place_of(&state, &caller, &key, "after", query.after).await?;
    let before = place_of(&state, &caller, &key, "before", query.before).await?;
    let window = SeqWindow {
        first: after.map_or(1, |seq| seq + 1),
        last: before.map_or(u64::MAX, |seq| seq - 1),
        limit,
        newest_first: after.is_none(),
    };
    let mut headers = HeaderMap::new();
    let mut messages = match query.search {
        None => {
            let shown = pages::read(&state.hub, caller.reader(), &key, window).await?;
            if caller.marks_read && before.is_none() && shown.head_seq > 0 {
                state.hub.read(caller.uid.clone(), key.clone(), shown.head_seq).await?;
            }
            shown.messages
        }
        Some(text) => {
            let (found, resume) = search(&state, &caller, &key, text, window).await?;
            if let Some(id) = resume
                && let Ok(value) = HeaderValue::try_from(id.to_string())
            {
                headers.insert(RESUME_HEADER, value);
            }
            found
        }
    };
    if window.newest_first {
        messages.reverse();
    }
    let attached = Attached::to(&state.hub, &messages).await?;
    let thread = chat_id(&key);
    Ok((headers, Json(messages.iter().map(|message| message_of(&thread, message, &attached)).collect())))
}

/// The seq of a message that a page begins or ends at.
async fn place_of(
    state: &HttpState,
    caller: &AsUser,
    key: &ChannelKey,
    field: &'static str,
    id: Option<MessageId>,
) -> Result<Option<u64>, Problem> {
    let Some(id) = id else { return Ok(None) };
    let message = state.hub.message(caller.reader(), id).await?;
    if message.channel != *key {
        return Err(Refusal::invalid(field, "is a message of another thread").into());
    }
    Ok(Some(message.message_seq.get()))
}

/// Searches of one window until its page is full; the message to go on from when it was not looked at as a whole.
async fn search(
    state: &HttpState,
    caller: &AsUser,
    key: &ChannelKey,
    text: String,
    window: SeqWindow,
) -> Result<(Vec<Message>, Option<MessageId>), Problem> {
    let SeqWindow { mut first, mut last, limit, newest_first } = window;
    let mut found = Vec::new();
    for _ in 0..SEARCHES_MAX {
        if first > last {
            return Ok((found, None));
        }
        let asked = Search { text: text.clone(), first, last, limit: limit - found.len(), newest_first };
        let page = state.hub.search(caller.reader(), key.clone(), asked).await?;
        found.extend(page.messages.into_iter().filter(|message| !message.flags.sync_once));
        let Some(resume) = page.resume else { return Ok((found, None)) };
        if newest_first {
            last = resume;
        } else {
            first = resume;
        }
        if found.len() >= limit {
            // A full page goes on from its outermost message, as any other.
            return Ok((found, None));
        }
    }
    // The message beside where it stopped, on the side that was looked at.
    let beside = if newest_first { last.saturating_add(1) } else { first.saturating_sub(1) };
    let beside = SeqWindow { first: beside, last: beside, limit: 1, newest_first };
    let page = pages::read(&state.hub, caller.reader(), key, beside).await?;
    Ok((found, page.messages.first().map(|message| message.message_id)))
}

/// Sends a message.
///
/// To a thread, or to a user (`to`): the personal thread of both, made by its first message, whose answer has `thread`.
/// Answered when it is on disk. A repeat with the same `Idempotency-Key` gets the first outcome; with another content it is
/// a 409.
#[utoipa::path(
    post, path = "/api/v1/chat/messages", tag = "threads", request_body = wire::Send,
    params(("Idempotency-Key" = Option<String>, Header, description = "The caller's name for this message")),
    responses((status = 200, body = wire::Sent), (status = "default", body = wire::Failed))
)]
async fn send(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    name: IdempotencyKey,
    Body(body): Body<wire::Send>,
) -> Result<Json<wire::Sent>, Problem> {
    let extras = Extras {
        reply_to: body.reply_to,
        mentions: users_of("mentions", &body.mentions)?,
        mention_all: false,
        files: file_ids("files", &body.files)?,
    };
    if body.content.is_none() && extras.files.is_empty() {
        return Err(Refusal::invalid("content", "is needed, or files").into());
    }
    let channel = target_of(&state, &caller, &body).await?;
    let extras = extras.boxed();
    let draft = Draft {
        channel,
        from_uid: caller.uid.clone(),
        client_msg_no: name.into_inner(),
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Content::text(body.content.unwrap_or_default()).encode(extras.as_deref()),
        extras,
        durability: Durability::Disk,
    };
    let sent = state.hub.send(draft.clone(), Standing::Client).await?;
    state.metrics.acks.inc();
    let is_first = sent.message_seq == Some(MessageSeq::FIRST) && draft.channel.channel_type() == ChannelType::Person;
    let thread = match is_first {
        true => Some(shown_thread(&state, caller.uid.clone(), draft.channel.clone()).await?),
        false => None,
    };
    let message = match sent.duplicate {
        // What the first outcome has become since.
        true => state.hub.message(caller.reader(), sent.message_id).await?,
        false => stored(draft, &sent),
    };
    let attached = Attached::to(&state.hub, [&message]).await?;
    Ok(Json(wire::Sent { message: message_of(&chat_id(&message.channel), &message, &attached), thread }))
}

/// The message that a draft has become.
fn stored(draft: Draft, sent: &Sent) -> Message {
    Message {
        channel: draft.channel,
        message_seq: sent.message_seq.unwrap_or(MessageSeq::FIRST),
        message_id: sent.message_id,
        from_uid: draft.from_uid,
        client_msg_no: sent.client_msg_no.clone(),
        flags: draft.flags,
        setting: draft.setting,
        topic: draft.topic,
        expire_s: draft.expire_s,
        payload: draft.payload,
        extras: draft.extras,
        edited: Version::ZERO,
        reactions: Vec::new(),
        lanes: Vec::new(),
        state: MessageState::Live,
    }
}

/// The one channel a send names.
async fn target_of(state: &HttpState, caller: &AsUser, body: &wire::Send) -> Result<ChannelKey, Problem> {
    let thread = match &body.thread {
        Some(id) => Some(state.hub.resolve_chat(caller.reader(), id).await?),
        None => None,
    };
    let personal = match &body.to {
        Some(user) => {
            let peer = Uid::new(user).map_err(|e| Refusal::invalid("to", e))?;
            state.hub.require_known(vec![peer.clone()]).await?;
            Some(ChannelKey::person(&caller.uid, &peer))
        }
        None => None,
    };
    one_target(&[("thread", thread), ("to", personal)])
}

/// Shows a message.
///
/// To members of its thread.
#[utoipa::path(
    get, path = "/api/v1/chat/messages/{messageId}", tag = "threads",
    params(("messageId" = String, Path, description = "The message")),
    responses((status = 200, body = wire::ChatMessage), (status = "default", body = wire::Failed))
)]
async fn message(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
) -> Result<Json<wire::ChatMessage>, Problem> {
    let Json(changed) = changed(&state, &caller, message_id(&id)?).await?;
    Ok(Json(changed.message))
}

/// Edits a message.
///
/// Its sender may, for some time (`messages.edit_within_s`). What it refers to stays.
#[utoipa::path(
    patch, path = "/api/v1/chat/messages/{messageId}", tag = "threads", request_body = wire::Edit,
    params(("messageId" = String, Path, description = "The message")),
    responses((status = 200, body = wire::Changed), (status = "default", body = wire::Failed))
)]
async fn edit(
    State(state): State<Arc<HttpState>>,
    caller: AsUser,
    Path(id): Path<String>,
    Body(body): Body<wire::Edit>,
) -> Result<Json<wire::Changed>, Problem> {
    let text = body.content.ok_or_else(|| Refusal::invalid("content", "is needed"))?;
    let before = state.hub.message(caller.reader(), message_id(&id)?).await?;
    let payload = Content::text(text).encode(before.extras.as_deref());
    let (key, seq) = (before.channel, before.message_seq.get());
    state.hub.edit(caller.reader(), key, seq, payload, before.extras).await?;
    changed(&state, &caller, before.message_id).await
}

/// Takes a message back.
///
/// Its sender may, for some time (`messages.revoke_within_s`), an admin of the thread any time.
#[utoipa::path(
    delete, path = "/api/v1/chat/messages/{messageId}", tag = "threads",
    params(("messageId" = String, Path, description = "The message")),
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

macro_rules! reaction_routes {
    ($($(#[$doc:meta])* $name:ident: $method:ident $path:literal, $operation:literal, $reaction:expr, $set:expr;)*) => {
        $(
            $(#[$doc])*
            #[utoipa::path(
                $method, path = $path, tag = "threads", operation_id = $operation,
                params(("messageId" = String, Path, description = "The message")),
                responses((status = 200, body = wire::Changed), (status = "default", body = wire::Failed))
            )]
            async fn $name(
                State(state): State<Arc<HttpState>>,
                caller: AsUser,
                Path(id): Path<String>,
            ) -> Result<Json<wire::Changed>, Problem> {
                react(&state, &caller, &id, $reaction, $set).await
            }
        )*
    };
}

reaction_routes! {
    /// Likes a message.
    ///
    /// A dislike of the caller goes. Liking again changes nothing.
    like: put "/api/v1/chat/messages/{messageId}/like", "like", Reaction::Like, true;
    /// Likes a message.
    ///
    /// As PUT.
    like_by_post: post "/api/v1/chat/messages/{messageId}/like", "like_by_post", Reaction::Like, true;
    /// Takes a like back.
    ///
    /// Where there is none nothing changes.
    unlike: delete "/api/v1/chat/messages/{messageId}/like", "unlike", Reaction::Like, false;
    /// Dislikes a message.
    ///
    /// A like of the caller goes. Disliking again changes nothing.
    dislike: put "/api/v1/chat/messages/{messageId}/dislike", "dislike", Reaction::Dislike, true;
    /// Dislikes a message.
    ///
    /// As PUT.
    dislike_by_post: post "/api/v1/chat/messages/{messageId}/dislike", "dislike_by_post", Reaction::Dislike, true;
    /// Takes a dislike back.
    ///
    /// Where there is none nothing changes.
    undislike: delete "/api/v1/chat/messages/{messageId}/dislike", "undislike", Reaction::Dislike, false;
}

async fn react(
    state: &HttpState,
    caller: &AsUser,
    id: &str,
    reaction: Reaction,
    set: bool,
) -> Result<Json<wire::Changed>, Problem> {
    let before = state.hub.message(caller.reader(), message_id(id)?).await?;
    let has = before.reactions.iter().any(|reacted| reacted.uid == caller.uid && reacted.reaction == reaction);
    // What is gone is refused by the hub, also where there is nothing to take away.
    if set || has || before.state != MessageState::Live {
        let wanted = set.then_some(reaction);
        state.hub.react(caller.uid.clone(), before.channel, before.message_seq.get(), wanted).await?;
    }
    changed(state, caller, before.message_id).await
}

/// A message as it is now.
async fn changed(state: &HttpState, caller: &AsUser, id: MessageId) -> Result<Json<wire::Changed>, Problem> {
    let message = state.hub.message(caller.reader(), id).await?;
    let attached = Attached::to(&state.hub, [&message]).await?;
    Ok(Json(wire::Changed { message: message_of(&chat_id(&message.channel), &message, &attached) }))
}

fn thread_of(row: &ChatRow, attached: &Attached) -> wire::ChatThread {
    let profile = row.profile.clone().unwrap_or_default();
    let (kind, group) = match (row.key.channel_type(), profile.project) {
        (ChannelType::Person, _) => ("personal", None),
        (_, project) if project.is_empty() => ("custom", None),
        (_, project) => ("group", Some(project)),
    };
    let name = match (profile.name.is_empty(), kind) {
        (false, _) => Some(profile.name),
        // The document wants one; a group that a back end made without goes by its own.
        (true, "custom") => Some(row.key.channel_id().to_owned()),
        (true, _) => None,
    };
    wire::ChatThread {
        id: row.chat_id.clone(),
        kind,
        group,
        name,
        users: row.members.iter().map(Uid::to_string).collect(),
        activity: row.activity_ms,
        access: row.access_ms,
        last_message: row.last_message.as_ref().map(|message| message_of(&row.chat_id, message, attached)),
        new_activity_count: row.unread,
        created_at: row.created_ms,
    }
}

fn message_of(thread: &str, message: &Message, attached: &Attached) -> wire::ChatMessage {
    let extras = message.extras.as_deref();
    wire::ChatMessage {
        id: message.message_id.to_string(),
        thread: thread.to_owned(),
        from: message.from_uid.to_string(),
        content: Content::decode(&message.payload).body_text(),
        files: attached.of(message),
        likes: message.reacted_with(Reaction::Like),
        dislikes: message.reacted_with(Reaction::Dislike),
        reply_to: extras.and_then(|extras| extras.reply_to).map(|id| id.to_string()),
        created_at: message.timestamp_ms(),
        mentions: extras.map(|extras| extras.mentions.iter().map(Uid::to_string).collect()).unwrap_or_default(),
        edited_at: (message.edited > Version::ZERO).then(|| message.edited.unix_ms()),
        state: message.state.code(),
    }
}

/// What is no number names no message.
fn message_id(text: &str) -> Result<MessageId, Refusal> {
    text.parse().map(Version::new).map_err(|_| Refusal::NotFound { what: "message" })
}

#[cfg(test)]
mod tests;
