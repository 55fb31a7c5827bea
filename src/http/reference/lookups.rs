//! Reading messages of a channel: pages, single messages, the last one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::ids::{ChannelKey, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{CHANNELS_MAX, PAGE_BYTES_MAX, at_most, wire};
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::dialects::client_msg_no;
use crate::http::envelope::ErrorBody;
use crate::http::extract::{Acting, Auth, Body, Needs, QueryOrBody};
use crate::http::message::MessageBody;
use crate::http::names::{channel_by_name, channel_seen_by, channel_type_of};
use crate::http::pages::{self, SeqWindow};
use crate::http::problem::Problem;
use crate::hub::Reader;
use crate::hub::conversations::{HistoryQuery, MessageSync};
use crate::hub::lookups::{LOOK_UPS_MAX, Wanted};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(message_sync))
        .routes(routes!(message_sync_batch))
        .routes(routes!(max_message_seq))
        .routes(routes!(last_message))
        .routes(routes!(messages))
        .routes(routes!(message))
        .routes(routes!(message_by_client_msg_no))
}

/// A channel as one route names it, and who reads it.
struct Read {
    reader: Reader,
    /// Whose view the answer shows; a back end that names nobody sees person channels by their canonical id.
    uid: Option<Uid>,
    key: ChannelKey,
}

impl Read {
    fn of(acting: &Acting, channel_id: &str, channel_type: u8) -> Result<Self, Problem> {
        let uid = acting.uid();
        let key = channel_seen_by(uid, channel_id, channel_type)?;
        Ok(Self { reader: acting.reader(), uid: Some(uid.clone()), key })
    }

    /// As [`Read::of`], for routes where a back end may name nobody.
    async fn of_anybody(
        state: &HttpState,
        auth: &Auth,
        login_uid: &str,
        (channel_id, channel_type): (&str, u8),
    ) -> Result<Self, Problem> {
        if login_uid.is_empty() && auth.is_key() {
            auth.key_with(Needs::Read)?;
            let key = channel_by_name(channel_id, channel_type_of(channel_type)?)?;
            return Ok(Self { reader: Reader::Trusted, uid: None, key });
        }
        let acting = auth.acting_for(state, "login_uid", login_uid, Needs::Read).await?;
        Self::of(&acting, channel_id, channel_type)
    }

    fn shown(&self, state: &HttpState, message: &Message) -> MessageBody {
        // Nobody has an empty uid: a pair is then shown by its canonical id.
        MessageBody::seen_by(state.asker(self.uid.as_ref().map_or("", Uid::as_str)), message)
    }

    async fn page(&self, state: &HttpState, range: wire::SyncRange, bytes: usize) -> Result<Page, Problem> {
        let sync = MessageSync {
            start_message_seq: range.start_message_seq,
            end_message_seq: range.end_message_seq,
            limit: range.limit as usize,
            towards_newer: range.pull_mode,
        };
        let mut page = state.hub.message_sync(self.reader.clone(), self.key.clone(), sync, bytes).await?;
        state.hub.show_open_lanes(&mut page.messages);
        let bytes = page.messages.iter().map(Message::content_bytes).sum();
        let shown = page.messages.iter().map(|message| self.shown(state, message));
        let messages = match range.basic {
            true => shown.map(MessageBody::without_snapshots).collect(),
            false => shown.collect(),
        };
        Ok(Page { messages, more: u8::from(page.more), bytes })
    }

    async fn look_up(&self, state: &HttpState, wanted: Vec<Wanted>) -> Result<Vec<MessageBody>, Problem> {
        let mut found = state.hub.look_up(self.reader.clone(), self.key.clone(), wanted).await?;
        state.hub.show_open_lanes(&mut found);
        Ok(found.iter().map(|message| self.shown(state, message)).collect())
    }

    async fn one(&self, state: &HttpState, wanted: Wanted) -> Result<Json<wire::MessageFound>, Problem> {
        Ok(Json(self.look_up(state, vec![wanted]).await?.pop().into()))
    }
}

struct Page {
    messages: Vec<MessageBody>,
    more: u8,
    /// Of payloads.
    bytes: usize,
}

/// A page of a channel's messages.
///
/// Ascending in both directions. start and end 0: the newest. pull_mode 0: seq ≤ start and > end, the newest of them;
/// 1: seq ≥ start and < end, the oldest of them. Needs an API key with the scope read, or the credential of a member.
#[utoipa::path(
    post, path = "/channel/messagesync", tag = "messages", request_body = wire::MessageSyncQuery,
    responses((status = 200, body = wire::MessageSyncPage), (status = "default", body = ErrorBody))
)]
async fn message_sync(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageSyncQuery>,
) -> Result<Json<wire::MessageSyncPage>, Problem> {
    let acting = auth.acting_for(&state, "login_uid", &body.login_uid, Needs::Read).await?;
    let read = Read::of(&acting, &body.channel_id, body.channel_type)?;
    let page = read.page(&state, body.range(), PAGE_BYTES_MAX).await?;
    Ok(Json(wire::MessageSyncPage {
        start_message_seq: body.start_message_seq,
        end_message_seq: body.end_message_seq,
        more: page.more,
        messages: page.messages,
    }))
}

/// Pages of several channels.
///
/// Each as `/channel/messagesync`; what is wrong with one stands in its `error`. Needs an API key with the scope read, or the
/// credential of a member.
#[utoipa::path(
    post, path = "/channel/messagesyncbatch", tag = "messages", request_body = wire::MessageSyncBatch,
    responses((status = 200, body = wire::MessageSyncPages), (status = "default", body = ErrorBody))
)]
async fn message_sync_batch(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageSyncBatch>,
) -> Result<Json<wire::MessageSyncPages>, Problem> {
    let acting = auth.acting_for(&state, "login_uid", &body.login_uid, Needs::Read).await?;
    at_most("items", &body.items, CHANNELS_MAX)?;
    let mut bytes_left = PAGE_BYTES_MAX;
    let mut items = Vec::with_capacity(body.items.len());
    for item in body.items {
        let page = match Read::of(&acting, &item.channel_id, item.channel_type) {
            // At least one message comes in any case, so every page goes on.
            Ok(read) => read.page(&state, item.range(), bytes_left).await,
            Err(problem) => Err(problem),
        };
        let (page, error) = match page {
            Ok(page) => (page, None),
            // What time mends is the whole request's to say.
            Err(problem) if problem.retry_after_ms().is_some() => return Err(problem),
            Err(problem) => (Page { messages: Vec::new(), more: 0, bytes: 0 }, Some(problem.text())),
        };
        bytes_left = bytes_left.saturating_sub(page.bytes);
        items.push(wire::MessageSyncItem {
            channel_id: item.channel_id,
            channel_type: item.channel_type,
            start_message_seq: item.start_message_seq,
            end_message_seq: item.end_message_seq,
            more: page.more,
            messages: page.messages,
            error,
        });
    }
    Ok(Json(wire::MessageSyncPages { items }))
}

/// Seq of a channel's last message.
///
/// 0: there is none. Needs an API key with the scope read (`login_uid` says whose peer a person channel is, else it is named by
/// its canonical id), or the credential of a member.
#[utoipa::path(
    get, path = "/channel/max_message_seq", tag = "messages", params(wire::LastMessageQuery),
    responses((status = 200, body = wire::MaxMessageSeq), (status = "default", body = ErrorBody))
)]
async fn max_message_seq(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    QueryOrBody(query): QueryOrBody<wire::LastMessageQuery>,
) -> Result<Json<wire::MaxMessageSeq>, Problem> {
    let named = (query.channel_id.as_str(), query.channel_type);
    let read = Read::of_anybody(&state, &auth, &query.login_uid, named).await?;
    let newest = HistoryQuery { first: 0, last: 0, limit: 1, bytes_max: 1, newest_first: true };
    let page = state.hub.history(read.reader, read.key, newest).await?;
    Ok(Json(wire::MaxMessageSeq { message_seq: page.head_seq }))
}

/// A channel's last message.
///
/// The last that is no command; `{"status":404}` with HTTP 200 when there is none. Needs an API key with the scope read, or the
/// credential of a member.
#[utoipa::path(
    get, path = "/channel/last_message", tag = "messages", params(wire::LastMessageQuery),
    responses((status = 200, body = wire::MessageFound), (status = "default", body = ErrorBody))
)]
async fn last_message(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    QueryOrBody(query): QueryOrBody<wire::LastMessageQuery>,
) -> Result<Json<wire::MessageFound>, Problem> {
    let named = (query.channel_id.as_str(), query.channel_type);
    let read = Read::of_anybody(&state, &auth, &query.login_uid, named).await?;
    let newest = SeqWindow { first: 1, last: u64::MAX, limit: 1, newest_first: true };
    let mut shown = pages::read(&state.hub, read.reader.clone(), &read.key, newest).await?;
    state.hub.show_open_lanes(&mut shown.messages);
    Ok(Json(shown.messages.first().map(|message| read.shown(&state, message)).into()))
}

/// Messages of a channel by seq, id or name.
///
/// In the order asked for: seqs, then ids, then names; who is not found is left out. A name is one of a member's or a system
/// user's message. At most 1,000. Needs an API key with the scope read (`login_uid` says whose peer a person channel is, else it
/// is named by its canonical id), or the credential of a member.
#[utoipa::path(
    post, path = "/messages", tag = "messages", request_body = wire::MessagesWanted,
    responses((status = 200, body = wire::MessageSyncPage), (status = "default", body = ErrorBody))
)]
async fn messages(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessagesWanted>,
) -> Result<Json<wire::MessageSyncPage>, Problem> {
    let named = (body.channel_id.as_str(), body.channel_type);
    let read = Read::of_anybody(&state, &auth, &body.login_uid, named).await?;
    let count = body.message_seqs.len() + body.message_ids.len() + body.client_msg_nos.len();
    if count > LOOK_UPS_MAX {
        return Err(Refusal::TooMany { what: "messages", max: LOOK_UPS_MAX }.into());
    }
    let mut wanted: Vec<Wanted> = body.message_seqs.into_iter().map(Wanted::Seq).collect();
    wanted.extend(body.message_ids.into_iter().filter_map(|id| id.0).map(Wanted::Id));
    for (i, name) in body.client_msg_nos.iter().enumerate() {
        let name = client_msg_no("client_msg_nos", name).map_err(|problem| match problem {
            Problem::Refused(Refusal::Invalid { reason, .. }) => {
                Problem::malformed(format!("client_msg_nos[{i}]"), reason)
            }
            other => other,
        })?;
        wanted.extend(name.map(Wanted::Name));
    }
    let messages = read.look_up(&state, wanted).await?;
    Ok(Json(wire::MessageSyncPage { start_message_seq: 0, end_message_seq: 0, more: 0, messages }))
}

/// A message of a channel by id or name.
///
/// `{"status":404}` with HTTP 200 when it is not found. Needs an API key with the scope read (`login_uid` says whose peer a person
/// channel is, else it is named by its canonical id), or the credential of a member.
#[utoipa::path(
    post, path = "/message", tag = "messages", request_body = wire::MessageWanted,
    responses((status = 200, body = wire::MessageFound), (status = "default", body = ErrorBody))
)]
async fn message(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageWanted>,
) -> Result<Json<wire::MessageFound>, Problem> {
    let named = (body.channel_id.as_str(), body.channel_type);
    let read = Read::of_anybody(&state, &auth, &body.login_uid, named).await?;
    let name = client_msg_no("client_msg_no", &body.client_msg_no)?;
    match (body.message_id, name) {
        (Some(id), _) => read.one(&state, Wanted::Id(id)).await,
        (None, Some(name)) => read.one(&state, Wanted::Name(name)).await,
        (None, None) => Err(Refusal::invalid("message_id", "or client_msg_no is needed").into()),
    }
}

/// A message of a channel by its sender's name for it.
///
/// `{"status":404}` with HTTP 200 when it is not found. Needs an API key with the scope read, or the credential of a member.
#[utoipa::path(
    get, path = "/message/byclientmsgno", tag = "messages", params(wire::NamedMessageQuery),
    responses((status = 200, body = wire::MessageFound), (status = "default", body = ErrorBody))
)]
async fn message_by_client_msg_no(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    QueryOrBody(query): QueryOrBody<wire::NamedMessageQuery>,
) -> Result<Json<wire::MessageFound>, Problem> {
    let named = (query.channel_id.as_str(), query.channel_type);
    let read = Read::of_anybody(&state, &auth, &query.login_uid, named).await?;
    match client_msg_no("client_msg_no", &query.client_msg_no)? {
        Some(name) => read.one(&state, Wanted::Name(name)).await,
        None => Err(Refusal::invalid("client_msg_no", "is needed").into()),
    }
}
