//! `message/…`: send, list, read, count.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::ids::{ChannelKey, MessageId};

use super::caller::{Actor, Caller};
use super::wire::{self, Answer, Refused};
use super::{channel_uuid, done};
use crate::domain::content::{Content, KIND_TEXT};
use crate::domain::message::{Draft, Durability, Extras, Message, MessageFlags, MessageState};
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::dialects::IdempotencyKey;
use crate::http::extract::{Body, Needs, QueryOrBody};
use crate::http::problem::Problem;
use crate::hub::Reader;
use crate::hub::conversations::HistoryQuery;

/// The type only back ends may send.
const KIND_SYS: &str = "sys";
/// Longest type, in bytes.
const KIND_BYTES_MAX: usize = 64;
/// Messages of a page when the request does not say.
const LIMIT_DEFAULT: usize = 20;
/// Most messages of a page.
const LIMIT_MAX: usize = 200;
/// Payload bytes of a page, about.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Sends a message.
///
/// Answered when it is on disk. Repeating `sendUuid` answers the first outcome; with another content it is 13111. Mentions of
/// who is no member are dropped; a `quoteId` that names no message of the chat is 10112.
#[utoipa::path(
    post, path = "/api/v1/message/send", tag = "relation", request_body = wire::Send,
    params(("ApiKey" = String, Header), ("Idempotency-Key" = Option<String>, Header, description = "The same as sendUuid")),
    responses((status = 200, body = Answer<wire::Sent>), (status = "default", body = Refused))
)]
pub async fn send(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    idempotency_key: IdempotencyKey,
    Body(body): Body<wire::Send>,
) -> Result<Json<Answer<wire::Sent>>, Problem> {
    let actor = caller.acts_or_system(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, &body.to_relation_id).await?;
    let standing = actor.standing;
    let draft = draft_of(&actor, key.clone(), idempotency_key, body)?;
    let sent = state.hub.send(draft, standing).await.map_err(in_words_of_the_document)?;
    state.metrics.acks.inc();
    Ok(done(wire::Sent { channel_uuid: channel_uuid(&key), id: sent.message_id.to_string() }))
}

/// Type, content and what the message refers to, after the chat is known.
fn draft_of(
    actor: &Actor,
    channel: ChannelKey,
    idempotency_key: IdempotencyKey,
    body: wire::Send,
) -> Result<Draft, Problem> {
    let kind = kind_of(&body.kind)?;
    if kind == KIND_SYS && actor.reader != Reader::Trusted {
        return Err(Refusal::Forbidden { action: "send messages of the type sys: back ends may" }.into());
    }
    if body.content.is_empty() {
        return Err(Problem::malformed("content", "is needed"));
    }
    let mentions = actor.peers("mentionedUser", &body.mentioned_user)?;
    let extras = Extras { reply_to: body.quote_id, mentions, ..Extras::default() };
    let content = Content { kind, body: body.content.into(), subject: None };
    Ok(Draft {
        payload: content.encode(Some(&extras)),
        extras: extras.boxed(),
        channel,
        from_uid: actor.uid.clone(),
        client_msg_no: idempotency_key.or_field("sendUuid", &body.send_uuid)?,
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        durability: Durability::Disk,
    })
}

/// The type in lower case: any case means the same (the document's table has `text`, its example `TEXT`).
pub(super) fn kind_of(given: &str) -> Result<String, Problem> {
    let kind = given.trim().to_lowercase();
    if kind.len() > KIND_BYTES_MAX || kind.chars().any(char::is_control) {
        return Err(Problem::malformed(
            "type",
            format_args!("is a word of at most {KIND_BYTES_MAX} bytes without control characters"),
        ));
    }
    Ok(if kind.is_empty() { KIND_TEXT.to_owned() } else { kind })
}

/// The hub's names of fields as this document calls them.
fn in_words_of_the_document(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Invalid { field: "reply_to", reason } => Problem::malformed("quoteId", reason),
        Refusal::Invalid { field: "mentions", reason } => Problem::malformed("mentionedUser", reason),
        Refusal::TooLarge { field: "payload", bytes, max } => Refusal::TooLarge { field: "content", bytes, max }.into(),
        Refusal::TooMany { what: "mentions", max } => Refusal::TooMany { what: "users in mentionedUser", max }.into(),
        other => other.into(),
    }
}

/// A message as this dialect shows it.
pub(super) fn shown(message: &Message) -> wire::Message {
    let content = Content::decode(&message.payload);
    let extras = message.extras.as_deref();
    let state = match message.state {
        MessageState::Live => None,
        MessageState::Expired => Some("expired"),
        MessageState::Revoked => Some("revoked"),
        MessageState::Damaged => Some("damaged"),
    };
    wire::Message {
        id: message.message_id.to_string(),
        channel_uuid: channel_uuid(&message.channel),
        seq: message.message_seq.get(),
        from_relation_id: message.from_uid.bare().to_owned(),
        content: content.body_text(),
        kind: content.kind,
        send_uuid: message.client_msg_no.as_str().to_owned(),
        quote_id: extras.and_then(|extras| extras.reply_to).map(|id| id.to_string()),
        mentioned_user: extras
            .map(|e| e.mentions.iter().map(|uid| uid.bare().to_owned()).collect())
            .unwrap_or_default(),
        create_at: message.timestamp_ms(),
        state: state.map(str::to_owned),
    }
}

/// A page of a chat's messages, newest first.
///
/// `maxCreateAt` includes messages of that millisecond; `beforeId` goes on exactly behind the last of a page. Marks nothing as
/// read.
#[utoipa::path(
    post, path = "/api/v1/message/list", tag = "relation", request_body = wire::List,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Page>), (status = "default", body = Refused))
)]
pub async fn list(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::List>,
) -> Result<Json<Answer<wire::Page>>, Problem> {
    let actor = caller.acts(&state, &asked.from_relation_id, Needs::Read)?;
    let key = actor.chat(&state, &asked.channel_uuid, &asked.to_relation_id).await?;
    let mut last = u64::MAX;
    if let Some(ms) = asked.max_create_at {
        let until = Some(ms.saturating_add(1));
        last = state.hub.span(actor.reader.clone(), key.clone(), None, until).await?.last;
    }
    if let Some(id) = asked.before_id {
        last = last.min(seq_of(&state, &actor.reader, &key, "beforeId", id).await? - 1);
    }
    if last == 0 {
        return Ok(done(wire::Page { messages: Vec::new(), has_more: false }));
    }
    let query = HistoryQuery {
        first: 0,
        last,
        limit: match asked.limit as usize {
            0 => LIMIT_DEFAULT,
            limit => limit.min(LIMIT_MAX),
        },
        bytes_max: PAGE_BYTES_MAX,
        newest_first: true,
    };
    let page = state.hub.history(actor.reader, key, query).await?;
    let messages = page.messages.iter().filter(|message| !message.flags.sync_once).map(shown).collect();
    Ok(done(wire::Page { messages, has_more: page.more }))
}

/// The place of a message of this chat.
async fn seq_of(
    state: &HttpState,
    reader: &Reader,
    key: &ChannelKey,
    field: &str,
    id: MessageId,
) -> Result<u64, Problem> {
    match state.hub.message(reader.clone(), id).await {
        Ok(message) if message.channel == *key => Ok(message.message_seq.get()),
        Ok(_) | Err(Refusal::NotFound { .. }) => Err(Problem::malformed(field, "names no message of this chat")),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Marks a chat as read, up to a message or all of it.
#[utoipa::path(
    post, path = "/api/v1/message/read", tag = "relation", request_body = wire::Read,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Unread>), (status = "default", body = Refused))
)]
pub async fn read(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Read>,
) -> Result<Json<Answer<wire::Unread>>, Problem> {
    let actor = caller.acts(&state, &body.from_relation_id, Needs::Send)?;
    let key = actor.chat(&state, &body.channel_uuid, &body.to_relation_id).await?;
    match body.message_id {
        None => state.hub.clear_unread(actor.uid.clone(), key.clone()).await?,
        Some(id) => {
            let seq = seq_of(&state, &actor.reader, &key, "messageId", id).await?;
            state.hub.read(actor.uid.clone(), key.clone(), seq).await?
        }
    };
    unread_in(&state, actor, key).await
}

/// How much is unread: of one chat, or of all but muted ones and requests.
#[utoipa::path(
    post, path = "/api/v1/message/unreadCount", tag = "relation", request_body = wire::ChatName,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Unread>), (status = "default", body = Refused))
)]
pub async fn unread_count(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::ChatName>,
) -> Result<Json<Answer<wire::Unread>>, Problem> {
    let actor = caller.acts(&state, &asked.from_relation_id, Needs::Read)?;
    if asked.channel_uuid.is_empty() && asked.to_relation_id.is_empty() {
        let (unread_count, mentions_count) = state.hub.unread_totals(actor.uid).await?;
        return Ok(done(wire::Unread { unread_count, mentions_count }));
    }
    let key = actor.chat(&state, &asked.channel_uuid, &asked.to_relation_id).await?;
    unread_in(&state, actor, key).await
}

async fn unread_in(state: &HttpState, actor: Actor, key: ChannelKey) -> Result<Json<Answer<wire::Unread>>, Problem> {
    let row = state.hub.chat(actor.uid, key).await?;
    Ok(done(wire::Unread { unread_count: row.unread, mentions_count: row.mentions }))
}
