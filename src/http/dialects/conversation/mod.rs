//! The `conversation` dialect: WuKongIM's recent conversations over HTTP.
//!
//! Source: the document `conversation.txt` (WuKongIM, "最近会话"), its details in wukongim-http.md section 6 and the choices
//! of its section 15. Owns paths, shapes and conversions; unread, sync and deletion are the hub's. Who calls: a back end with
//! an API key for any user, or a user for oneself (CHECKLIST C14).
//!
//! Quirks kept: the sync has `conversation` in its path, the others `conversations`; success is a bare array or
//! `{"status":200}`; `readed_to_msg_seq` is spelt so. Additions are extra fields and headers only: `x-chinwag-version` is
//! what the answer is at, `x-chinwag-reset` says `1` when the request's version was none of ours.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::ids::{ChannelType, Uid, Version};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::conversation::Verdict;
use crate::domain::refusal::Refusal;
use crate::http::envelope::ErrorBody;
use crate::http::extract::{Auth, Body, Needs, QueryOrBody};
use crate::http::message::{Asker, MessageBody};
use crate::http::names::channel_seen_by;
use crate::http::problem::Problem;
use crate::http::{HttpState, RESET_HEADER, VERSION_HEADER};
use crate::hub::ConversationChanged;
use crate::hub::conversations::{Page, ReadBy, SyncAnswer, SyncRequest, SyncRow, UnreadExplained};

mod wire;

pub(in crate::http) use wire::Row as ConversationRow;

/// Rows of a page when the request does not say (wukongim-http.md 6.1).
const PAGE_SIZE_DEFAULT: usize = 100;
/// Most rows of a page.
const PAGE_SIZE_MAX: usize = 500;
/// Bytes of JSON that are put together before they are handed to the socket.
const CHUNK_BYTES: usize = 64 * 1024;

/// The routes of this document.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(sync))
        .routes(routes!(set_unread))
        .routes(routes!(clear_unread))
        .routes(routes!(delete))
        .routes(routes!(explain_get, explain_post))
}

/// Refuses everything while the feature is switched off (C1).
pub(in crate::http) fn feature_on(state: &HttpState) -> Result<(), Problem> {
    if state.conversation.on { Ok(()) } else { Err(Refusal::FeatureOff { key: "conversation.on" }.into()) }
}

/// A user's conversations, or what changed in them.
///
/// With `version` 0 everything; else every conversation that changed after it for any reason. With `last_msg_seqs` only
/// newer messages. The answer is a bare array, the newest conversation first, recents newest first. Needs an API key with
/// the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/sync", tag = "conversations", request_body = wire::Sync,
    responses(
        (status = 200, body = Vec<wire::Row>, headers(
            ("x-chinwag-version" = u64, description = "What the answer is at"),
            ("x-chinwag-reset" = u8, description = "1: the request's version was unknown, everything is answered"),
        )),
        (status = "default", body = ErrorBody),
    )
)]
async fn sync(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Sync>,
) -> Result<Response, Problem> {
    feature_on(&state)?;
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Read).await?;
    let uid = acting.uid().clone();
    let request = request_of(&state.conversation, uid.clone(), body)?;
    let mut answer = state.hub.sync(request).await?;
    state.hub.show_open_lanes(answer.rows.iter_mut().flat_map(|row| &mut row.recents));
    Ok(answer_of(uid, answer, state.wukong.blank_system_uid))
}

/// The document's request as the hub takes it.
fn request_of(limits: &crate::config::Conversation, uid: Uid, body: wire::Sync) -> Result<SyncRequest, Problem> {
    let Ok(version) = u64::try_from(body.version) else {
        return Err(Refusal::invalid("version", "must not be negative").into());
    };
    let msg_count = match body.msg_count {
        None => limits.msg_count_default,
        Some(count) => SyncRequest::msg_count_of(count)?.min(limits.msg_count_max),
    };
    // Types the server does not know exclude nothing.
    let excluded = body.exclude_channel_types.iter().filter_map(|t| ChannelType::from_wire(*t).ok());
    let page = match (body.page as usize, body.page_size as usize) {
        (0, _) => Page::All,
        (page, 0) => Page::Number { page, page_size: PAGE_SIZE_DEFAULT },
        (page, page_size) => Page::Number { page, page_size: page_size.min(PAGE_SIZE_MAX) },
    };
    Ok(SyncRequest {
        uid,
        version: Version::new(version),
        cursors: body.last_msg_seqs.filter(|cursors| !cursors.is_empty()),
        msg_count,
        recents_bytes_max: limits.recents_bytes_max,
        with_deleted: body.with_deleted,
        only_unread: body.only_unread,
        exclude_channel_types: excluded.collect(),
        page,
    })
}

/// The bare array, streamed: rows become JSON while the socket takes them, so an answer of 32 MiB of payloads is never in
/// memory a second time as base64.
fn answer_of(uid: Uid, answer: SyncAnswer, blank_system: bool) -> Response {
    let version = HeaderValue::from(answer.version.get());
    let reset = answer.reset;
    let rows = RowStream { uid, blank_system, rows: answer.rows.into_iter(), state: StreamState::Begin };
    let mut response = HttpBody::from_stream(rows).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VERSION_HEADER, version);
    headers.insert(RESET_HEADER, HeaderValue::from_static(if reset { "1" } else { "0" }));
    response
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamState {
    Begin,
    Rows,
    End,
}

/// The array as chunks of about [`CHUNK_BYTES`].
struct RowStream {
    uid: Uid,
    blank_system: bool,
    rows: std::vec::IntoIter<SyncRow>,
    state: StreamState,
}

impl RowStream {
    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.state == StreamState::End {
            return None;
        }
        let mut chunk = Vec::with_capacity(CHUNK_BYTES.min(256 * (self.rows.len() + 1)));
        if self.state == StreamState::Begin {
            chunk.push(b'[');
        }
        let asker = Asker { uid: self.uid.as_str(), blank_system: self.blank_system };
        while chunk.len() < CHUNK_BYTES {
            let Some(row) = self.rows.next() else {
                chunk.push(b']');
                self.state = StreamState::End;
                break;
            };
            if self.state == StreamState::Begin {
                self.state = StreamState::Rows;
            } else {
                chunk.push(b',');
            }
            // Plain structs with text keys always serialize into memory.
            let _ = serde_json::to_writer(&mut chunk, &row_of(asker, &row));
        }
        Some(Bytes::from(chunk))
    }
}

impl futures_core::Stream for RowStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.next_chunk().map(Ok))
    }
}

fn row_of(asker: Asker<'_>, row: &SyncRow) -> wire::Row {
    wire::Row {
        channel_id: row.channel.id_for(asker.uid).to_owned(),
        channel_type: row.channel.channel_type().to_wire(),
        unread: row.unread,
        timestamp: row.timestamp_s,
        last_msg_seq: row.last_msg_seq,
        last_client_msg_no: row.last_client_msg_no.clone(),
        offset_msg_seq: 0,
        readed_to_msg_seq: row.read_to_msg_seq,
        deleted_to_msg_seq: row.deleted_to_msg_seq,
        version: row.version.get(),
        recents: row.recents.iter().map(|message| MessageBody::seen_by(asker, message)).collect(),
        complete: u8::from(row.complete),
        first_msg_seq: row.first_seq,
        is_deleted: u8::from(row.is_deleted),
        reset: u8::from(row.reset),
    }
}

fn changed_of(changed: ConversationChanged) -> Json<wire::Changed> {
    Json(wire::Changed {
        status: 200,
        unread: changed.unread,
        version: changed.version.get(),
        readed_to_msg_seq: changed.read_to_msg_seq,
    })
}

/// Sets how many messages of a conversation are unread.
///
/// Exactly so many afterwards, or all there are; upwards too. The user's other devices learn of it. Needs an API key with
/// the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/conversations/setUnread", tag = "conversations", request_body = wire::SetUnread,
    responses((status = 200, body = wire::Changed), (status = "default", body = ErrorBody))
)]
async fn set_unread(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::SetUnread>,
) -> Result<Json<wire::Changed>, Problem> {
    feature_on(&state)?;
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Send).await?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    if body.unread < 0 {
        return Err(Refusal::invalid("unread", "must not be negative").into());
    }
    Ok(changed_of(state.hub.set_unread(acting.uid().clone(), key, body.unread).await?))
}

/// Marks a conversation as read.
///
/// Up to `message_seq`, or all of it. Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/conversations/clearUnread", tag = "conversations", request_body = wire::ClearUnread,
    responses((status = 200, body = wire::Changed), (status = "default", body = ErrorBody))
)]
async fn clear_unread(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ClearUnread>,
) -> Result<Json<wire::Changed>, Problem> {
    feature_on(&state)?;
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Send).await?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    let uid = acting.uid().clone();
    let changed = match body.message_seq {
        0 => state.hub.clear_unread(uid, key).await?,
        seq => state.hub.read(uid, key, seq).await?,
    };
    Ok(changed_of(changed))
}

/// Deletes a conversation from a user's view.
///
/// Messages stay for the others; a later one brings the conversation back with only what came after. Needs an API key with
/// the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/conversations/delete", tag = "conversations", request_body = wire::Delete,
    responses((status = 200, body = wire::Changed), (status = "default", body = ErrorBody))
)]
async fn delete(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Delete>,
) -> Result<Json<wire::Changed>, Problem> {
    feature_on(&state)?;
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Send).await?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    Ok(changed_of(state.hub.delete_conversation(acting.uid().clone(), key).await?))
}

/// Why a conversation has the unread number it has.
///
/// Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    get, path = "/conversation/unread/explain", tag = "conversations", params(wire::Explain),
    responses((status = 200, body = wire::Explained), (status = "default", body = ErrorBody))
)]
async fn explain_get(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    QueryOrBody(question): QueryOrBody<wire::Explain>,
) -> Result<Json<wire::Explained>, Problem> {
    explain(&state, &auth, question).await
}

/// Why a conversation has the unread number it has.
///
/// Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/unread/explain", tag = "conversations", request_body = wire::Explain,
    responses((status = 200, body = wire::Explained), (status = "default", body = ErrorBody))
)]
async fn explain_post(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(question): Body<wire::Explain>,
) -> Result<Json<wire::Explained>, Problem> {
    explain(&state, &auth, question).await
}

async fn explain(state: &HttpState, auth: &Auth, question: wire::Explain) -> Result<Json<wire::Explained>, Problem> {
    feature_on(state)?;
    let acting = auth.acting_for(state, "uid", &question.uid, Needs::Read).await?;
    let key = channel_seen_by(acting.uid(), &question.channel_id, question.channel_type)?;
    let explained = state.hub.explain_unread(acting.uid().clone(), key, question.limit as usize).await?;
    Ok(Json(explained_of(&explained)))
}

fn explained_of(explained: &UnreadExplained) -> wire::Explained {
    let judged = explained.judged.iter().map(|judged| wire::ExplainedMessage {
        message_seq: judged.seq,
        from_uid: judged.from_uid.as_str().to_owned(),
        counted: u8::from(judged.verdict == Verdict::Counted),
        verdict: judged.verdict.code(),
    });
    wire::Explained {
        status: 200,
        unread: explained.unread,
        head_msg_seq: explained.head_seq,
        floor_msg_seq: explained.floor,
        readed_to_msg_seq: explained.read_seq,
        read_by: match explained.read_by {
            ReadBy::Nothing => "nothing",
            ReadBy::Explicit => "explicit",
            ReadBy::OwnMessage => "own_message",
        },
        explicit_msg_seq: explained.explicit_read.0,
        explicit_version: explained.explicit_read.1.get(),
        own_msg_seq: explained.own_message.0,
        own_version: explained.own_message.1.get(),
        deleted_to_msg_seq: explained.delete_floor,
        joined_at_msg_seq: explained.join_floor,
        messages: judged.collect(),
        more: u8::from(explained.more),
    }
}

#[cfg(test)]
mod tests;
