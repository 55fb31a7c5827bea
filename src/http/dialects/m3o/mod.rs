//! The `m3o` dialect: Micro's chat service under `/chat`.
//!
//! Source: the document `m3o.txt` (the service's README); what its code adds to the page is CHECKLIST E1 to E14. Owns paths,
//! shapes and conversions; every rule is the hub's and the domain's. Who calls: a back end with an API key for any user of its
//! namespace, or a user with an own token as oneself.
//!
//! Quirks kept: methods are `New`, `Send` and `History` in that case; a message is answered with `{}`; bodies are JSON whatever
//! their type says, because the page's curl lines send a form type; `/chat/Send` with nothing but a chat answers the history,
//! because the page prints that call for it. The page's call to send lacks the chat and is answered
//! `chat.Send.MissingChatID`. A chat of two users is their person chat; every other set, one user alone too, is a group whose
//! id is made of its users, so the same users always get the same chat. `micro-namespace` names the tenant whose users and
//! chats a request speaks of: see [`crate::domain::namespace`].

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::ids::{ChannelKey, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::channel::{ChannelProfile, chat_id, set_id};
use crate::domain::content::Content;
use crate::domain::message::{Draft, Durability, MessageFlags, MessageState};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::dialects::IdempotencyKey;
use crate::http::envelope::{Envelope, with_headers_of};
use crate::http::extract::{Auth, Body, Needs};
use crate::http::problem::Problem;
use crate::hub::Reader;
use crate::hub::conversations::HistoryQuery;
use crate::hub::groups::NewGroup;

pub mod wire;

/// Messages of a page when the request does not say: what the original answers at most.
const LIMIT_DEFAULT: usize = 50;
/// Most messages of a page.
const LIMIT_MAX: usize = 1_000;
/// Payload bytes of a page, about.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is wrong with a field that is not there: `Missing…` in the error's id.
const MISSING: &str = "is needed";

/// The routes of this document.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new().routes(routes!(new)).routes(routes!(send)).routes(routes!(history))
}

/// Speaks [`wire::Error`].
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    method: &'static str,
}

static NEW: Voice = Voice { method: "chat.New" };
static SEND: Voice = Voice { method: "chat.Send" };
static HISTORY: Voice = Voice { method: "chat.History" };
static OTHER: Voice = Voice { method: "chat" };

/// The voice of a path of this dialect.
#[must_use]
pub fn voice_of(path: &str) -> &'static Voice {
    match path {
        "/chat/New" => &NEW,
        "/chat/Send" => &SEND,
        "/chat/History" => &HISTORY,
        _ => &OTHER,
    }
}

impl Voice {
    fn error(self, problem: &Problem) -> wire::Error {
        let said = problem.voice().m3o;
        let reason = match problem {
            Problem::Malformed { reason, .. } | Problem::Refused(Refusal::Invalid { reason, .. }) => reason,
            _ => "",
        };
        let what = match (reason, problem.field().and_then(name_of)) {
            ("", _) | (_, None) => said.id.to_owned(),
            (MISSING, Some(name)) => format!("Missing{name}"),
            (_, Some(name)) => format!("Invalid{name}"),
        };
        let status = StatusCode::from_u16(said.code).ok().and_then(|status| status.canonical_reason());
        wire::Error {
            id: format!("{}.{what}", self.method),
            code: said.code,
            detail: problem.text(),
            status: status.unwrap_or_default().to_owned(),
        }
    }
}

/// What Micro's errors call a field.
fn name_of(field: &str) -> Option<&'static str> {
    Some(match field.split('[').next().unwrap_or_default() {
        "user_ids" => "UserIDs",
        "user_id" => "UserID",
        "chat_id" => "ChatID",
        "client_id" => "ClientID",
        "subject" => "Subject",
        "text" => "Text",
        "limit" => "Limit",
        "before" => "Before",
        "namespace" | "micro-namespace" => "Namespace",
        _ => return None,
    })
}

impl Envelope for Voice {
    fn problem(&self, problem: &Problem, _request_id: &str) -> Response {
        let error = self.error(problem);
        let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        with_headers_of(problem, (status, Json(error)).into_response())
    }
}

fn missing(field: &str) -> Problem {
    Problem::malformed(field, MISSING)
}

/// Finds or makes the chat of these users.
///
/// The same users get the same chat, whatever their order and however often they are named. Needs an API key with the scope
/// send, or a user's own token.
#[utoipa::path(
    post, path = "/chat/New", tag = "m3o", request_body = wire::New,
    params(("micro-namespace" = Option<String>, Header, description = "The tenant")),
    responses((status = 200, body = wire::Created), (status = "default", body = wire::Error))
)]
async fn new(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    headers: HeaderMap,
    Body(body): Body<wire::New>,
) -> Result<Json<wire::Created>, Problem> {
    let caller = match auth.key_in(&headers, Needs::Send) {
        Ok(namespace) => (namespace, None),
        Err(problem) if auth.is_key() => return Err(problem),
        Err(_) => {
            let uid = auth.acting_in(&state, &headers, "user_ids", "", Needs::Send)?.uid().clone();
            (Namespace::of(&uid), Some(uid))
        }
    };
    let (namespace, own) = caller;
    if body.user_ids.is_empty() {
        return Err(missing("user_ids"));
    }
    let mut users: BTreeSet<Uid> = own.into_iter().collect();
    for (i, text) in body.user_ids.iter().enumerate() {
        let uid = namespace.uid(text).map_err(|e| Problem::malformed(format!("user_ids[{i}]"), e))?;
        users.insert(uid);
    }
    let users: Vec<Uid> = users.into_iter().collect();
    let key = match users.as_slice() {
        [one, other] => {
            let key = ChannelKey::person(one, other);
            // Nothing is written yet, but its id must be known from now on.
            state.hub.put_channel(key.clone(), None, Vec::new(), false).await?;
            key
        }
        users => {
            let channel_id = Some(namespace.channel_id(&set_id(users)));
            let (members, profile) = (users.to_vec(), ChannelProfile::default());
            state.hub.create_group(NewGroup { channel_id, owner: None, members, profile }).await?
        }
    };
    Ok(Json(wire::Created { chat_id: chat_id(&key) }))
}

/// Sends a message.
///
/// Answered when it is on disk. Repeating `client_id` is answered the same and stores nothing; with another text it is a 409.
/// Needs an API key with the scope send, or the sender's own token.
#[utoipa::path(
    post, path = "/chat/Send", tag = "m3o", request_body = wire::Send,
    params(
        ("micro-namespace" = Option<String>, Header, description = "The tenant"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same as client_id"),
    ),
    responses((status = 200, body = wire::SendAnswer), (status = "default", body = wire::Error))
)]
async fn send(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    headers: HeaderMap,
    idempotency_key: IdempotencyKey,
    Body(body): Body<wire::Send>,
) -> Result<Json<wire::SendAnswer>, Problem> {
    if body.is_history() {
        let asked = wire::History { chat_id: body.chat_id, ..wire::History::default() };
        return page(&state, &auth, &headers, asked).await.map(|page| Json(wire::SendAnswer::History(page)));
    }
    if body.chat_id.is_empty() {
        return Err(missing("chat_id"));
    }
    if body.user_id.is_empty() && auth.is_key() {
        return Err(missing("user_id"));
    }
    if body.text.is_empty() {
        return Err(missing("text"));
    }
    let acting = auth.acting_in(&state, &headers, "user_id", &body.user_id, Needs::Send)?;
    let uid = acting.uid().clone();
    let channel = chat_of_member(&state, &uid, &body.chat_id).await?;
    let subject = (!body.subject.is_empty()).then_some(body.subject);
    let draft = Draft {
        payload: Content { subject, ..Content::text(body.text) }.encode(None),
        channel,
        from_uid: uid,
        client_msg_no: idempotency_key.or_field("client_id", &body.client_id)?,
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        extras: None,
        durability: Durability::Disk,
    };
    state.hub.send(draft, acting.standing()).await.map_err(|refusal| match refusal {
        Refusal::TooLarge { field: "payload", bytes, max } => Refusal::TooLarge { field: "text", bytes, max },
        other => other,
    })?;
    state.metrics.acks.inc();
    Ok(Json(wire::SendAnswer::Sent(wire::Sent {})))
}

/// The chat of a member. What lies in another namespace is not there.
async fn chat_of_member(state: &HttpState, uid: &Uid, chat_id: &str) -> Result<ChannelKey, Problem> {
    match state.hub.resolve_chat(Reader::User(uid.clone()), chat_id).await {
        Err(Refusal::NotMember) => {
            chat_in(state, &Namespace::of(uid), chat_id).await?;
            Err(Refusal::NotMember.into())
        }
        resolved => Ok(resolved?),
    }
}

/// The chat of a back end. What lies in another namespace is not there.
async fn chat_in(state: &HttpState, namespace: &Namespace, chat_id: &str) -> Result<ChannelKey, Problem> {
    let key = state.hub.resolve_chat(Reader::Trusted, chat_id).await?;
    if namespace.holds(&key) { Ok(key) } else { Err(Refusal::ChannelNotFound.into()) }
}

/// The newest messages of a chat, oldest first.
///
/// Marks nothing as read. Needs an API key with the scope read, or the token of a member.
#[utoipa::path(
    post, path = "/chat/History", tag = "m3o", request_body = wire::History,
    params(("micro-namespace" = Option<String>, Header, description = "The tenant")),
    responses((status = 200, body = wire::Page), (status = "default", body = wire::Error))
)]
async fn history(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    headers: HeaderMap,
    Body(body): Body<wire::History>,
) -> Result<Json<wire::Page>, Problem> {
    page(&state, &auth, &headers, body).await.map(Json)
}

async fn page(
    state: &HttpState,
    auth: &Auth,
    headers: &HeaderMap,
    asked: wire::History,
) -> Result<wire::Page, Problem> {
    if asked.chat_id.is_empty() {
        return Err(missing("chat_id"));
    }
    let (reader, key) = if auth.is_key() && asked.user_id.is_empty() {
        let namespace = auth.key_in(headers, Needs::Read)?;
        (Reader::Trusted, chat_in(state, &namespace, &asked.chat_id).await?)
    } else {
        let uid = auth.acting_in(state, headers, "user_id", &asked.user_id, Needs::Read)?.uid().clone();
        let key = chat_of_member(state, &uid, &asked.chat_id).await?;
        (Reader::User(uid), key)
    };
    let last = match asked.before {
        None => 0,
        Some(before) => match state.hub.message(reader.clone(), before).await {
            Ok(message) if message.channel != key => {
                return Err(Problem::malformed("before", "names no message of this chat"));
            }
            // Nothing lies before the first one, and a last seq of 0 would mean head.
            Ok(message) if message.message_seq.get() == 1 => {
                return Ok(wire::Page { messages: Vec::new(), more: false });
            }
            Ok(message) => message.message_seq.get() - 1,
            Err(Refusal::NotFound { .. }) => {
                return Err(Problem::malformed("before", "names no message of this chat"));
            }
            Err(refusal) => return Err(refusal.into()),
        },
    };
    let limit = if asked.limit == 0 { LIMIT_DEFAULT } else { (asked.limit as usize).min(LIMIT_MAX) };
    let query = HistoryQuery { first: 0, last, limit, bytes_max: PAGE_BYTES_MAX, newest_first: true };
    let found = state.hub.history(reader, key, query).await?;
    let messages = found.messages.iter().rev().filter(|message| !message.flags.sync_once).map(shown).collect();
    Ok(wire::Page { messages, more: found.more })
}

/// A message as this dialect shows it.
fn shown(message: &crate::domain::message::Message) -> wire::Message {
    let content = Content::decode(&message.payload);
    let state = match message.state {
        MessageState::Live => None,
        MessageState::Expired => Some("expired"),
        MessageState::Revoked => Some("revoked"),
        MessageState::Damaged => Some("damaged"),
    };
    wire::Message {
        id: message.message_id.to_string(),
        client_id: message.client_msg_no.as_str().to_owned(),
        chat_id: chat_id(&message.channel),
        user_id: message.from_uid.bare().to_owned(),
        text: content.body_text(),
        subject: content.subject.unwrap_or_default(),
        sent_at: message.timestamp_ms() / 1_000,
        state: state.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
