//! Conversations beside the document's routes: WuKongIM v1's and v2's siblings of the sync, and v3's list. The document's own
//! are `dialects::conversation`'s.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::ids::{ChannelKey, Uid, Version};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, CHANNELS_MAX, PAGE_BYTES_MAX, at_most, done, wire};
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::dialects::conversation::{ConversationRow, feature_on};
use crate::http::envelope::{Done, ErrorBody};
use crate::http::extract::{Auth, Body, Needs, QueryOrBody};
use crate::http::message::{Asker, MessageBody};
use crate::http::names::channel_seen_by;
use crate::http::pages::{self, SeqWindow};
use crate::http::problem::Problem;
use crate::hub::chats::ChatRow;
use crate::hub::conversations::{Page, PageAfter, SyncRequest, SyncRow};
use crate::hub::lookups::OwnView;
use crate::hub::{ChannelNo, Reader};

/// Messages per channel when the request names no number (WuKongIM v1's).
const MSG_COUNT_DEFAULT: usize = 15;
/// Conversations of a page of v3's list when the request names no number.
const LIST_LIMIT_DEFAULT: usize = 100;
/// Most conversations of a page of v3's list.
const LIST_LIMIT_MAX: usize = 200;
/// First byte of a cursor of v3's list.
const CURSOR_FORMAT: u8 = 1;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(sync_messages))
        .routes(routes!(own_channels))
        .routes(routes!(sync_by_channels))
        .routes(routes!(conversations))
        .routes(routes!(list))
        .routes(routes!(retry))
        .routes(routes!(activate))
}

/// Whose conversations, after the feature and the caller were checked.
async fn user(state: &HttpState, auth: &Auth, uid: &str, needs: Needs) -> Result<Uid, Problem> {
    feature_on(state)?;
    Ok(auth.acting_for(state, "uid", uid, needs).await?.uid().clone())
}

fn count_of(state: &HttpState, wire: i64) -> Result<usize, Problem> {
    match SyncRequest::msg_count_of(wire)? {
        0 => Ok(MSG_COUNT_DEFAULT),
        count => Ok(count.min(state.conversation.msg_count_max)),
    }
}

/// What is answered of one channel, where its reader is a member.
struct Recents {
    view: OwnView,
    /// Newest first.
    messages: Vec<Message>,
}

/// The newest messages of a channel that the user has not deleted, above `floor`; nothing for who is no member. `bytes_left`
/// bounds the payloads of a whole answer.
async fn recents(
    state: &HttpState,
    uid: &Uid,
    key: &ChannelKey,
    (floor, limit): (u64, usize),
    bytes_left: &mut usize,
) -> Result<Recents, Problem> {
    let view = match state.hub.own_view(uid.clone(), key.clone()).await {
        Ok(view) => view,
        Err(Refusal::NotMember) => return Ok(Recents { view: OwnView::default(), messages: Vec::new() }),
        Err(refusal) => return Err(refusal.into()),
    };
    let first = floor.max(view.deleted_to).saturating_add(1);
    let mut messages = Vec::new();
    if *bytes_left > 0 {
        let window = SeqWindow { first, last: u64::MAX, limit, newest_first: true };
        messages = pages::read(&state.hub, Reader::User(uid.clone()), key, window).await?.messages;
    }
    state.hub.show_open_lanes(&mut messages);
    let bytes: usize = messages.iter().map(Message::content_bytes).sum();
    *bytes_left = bytes_left.saturating_sub(bytes);
    Ok(Recents { view, messages })
}

/// The newest messages of several channels.
///
/// Of each the newest `msg_count` above `last_msg_seq`, newest first. Needs an API key with the scope read, or the user's own
/// credential.
#[utoipa::path(
    post, path = "/conversation/syncMessages", tag = "conversations", request_body = wire::SyncMessages,
    responses((status = 200, body = Vec<wire::ChannelMessages>), (status = "default", body = ErrorBody))
)]
async fn sync_messages(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::SyncMessages>,
) -> Result<Json<Vec<wire::ChannelMessages>>, Problem> {
    let uid = user(&state, &auth, &body.uid, Needs::Read).await?;
    at_most("channels", &body.channels, CHANNELS_MAX)?;
    let count = count_of(&state, body.msg_count)?;
    let mut bytes_left = PAGE_BYTES_MAX;
    let asker = state.asker(uid.as_str());
    let mut answer = Vec::with_capacity(body.channels.len());
    for (i, wanted) in body.channels.into_iter().enumerate() {
        let key = channel_at(i, &uid, &wanted.channel_id, wanted.channel_type)?;
        let found = recents(&state, &uid, &key, (wanted.last_msg_seq, count), &mut bytes_left).await?;
        answer.push(wire::ChannelMessages {
            channel_id: wanted.channel_id,
            channel_type: wanted.channel_type,
            messages: found.messages.iter().map(|message| MessageBody::seen_by(asker, message)).collect(),
            user_last_msg_seq: found.view.own_seq,
        });
    }
    Ok(Json(answer))
}

/// Reads a channel of a list; the error says which entry.
fn channel_at(i: usize, uid: &Uid, channel_id: &str, channel_type: u8) -> Result<ChannelKey, Problem> {
    channel_seen_by(uid, channel_id, channel_type).map_err(|refusal| match refusal {
        Refusal::Invalid { field, reason } => Problem::malformed(format!("channels[{i}].{field}"), reason),
        other => other.into(),
    })
}

async fn all(state: &HttpState, uid: Uid, msg_count: usize) -> Result<Vec<SyncRow>, Problem> {
    let request =
        SyncRequest { recents_bytes_max: state.conversation.recents_bytes_max, ..SyncRequest::full(uid, msg_count) };
    let mut rows = state.hub.sync(request).await?.rows;
    state.hub.show_open_lanes(rows.iter_mut().flat_map(|row| &mut row.recents));
    Ok(rows)
}

/// The channels of a user's conversations.
///
/// Person channels by their canonical id, as in WuKongIM v2. Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/channels", tag = "conversations", request_body = wire::OwnChannels,
    responses((status = 200, body = Vec<wire::ConversationChannel>), (status = "default", body = ErrorBody))
)]
async fn own_channels(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::OwnChannels>,
) -> Result<Json<Vec<wire::ConversationChannel>>, Problem> {
    let uid = user(&state, &auth, &body.uid, Needs::Read).await?;
    let channels = all(&state, uid, 0).await?.into_iter().map(|row| wire::ConversationChannel {
        channel_id: row.channel.channel_id().to_owned(),
        channel_type: row.channel.channel_type().to_wire(),
    });
    Ok(Json(channels.collect()))
}

/// Conversations by their channels.
///
/// One row for each channel asked for, in that order, also where there is no message or the user is no member. Needs an API key
/// with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/syncByChannels", tag = "conversations", request_body = wire::SyncByChannels,
    responses((status = 200, body = Vec<ConversationRow>), (status = "default", body = ErrorBody))
)]
async fn sync_by_channels(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::SyncByChannels>,
) -> Result<Json<Vec<ConversationRow>>, Problem> {
    let uid = user(&state, &auth, &body.uid, Needs::Read).await?;
    if body.channels.is_empty() {
        return Err(Refusal::invalid("channels", "is needed").into());
    }
    at_most("channels", &body.channels, CHANNELS_MAX)?;
    let count = count_of(&state, body.msg_count)?;
    let mut bytes_left = PAGE_BYTES_MAX;
    let mut rows = Vec::with_capacity(body.channels.len());
    for (i, wanted) in body.channels.iter().enumerate() {
        let key = channel_at(i, &uid, &wanted.channel_id, wanted.channel_type)?;
        let found = recents(&state, &uid, &key, (0, count), &mut bytes_left).await?;
        let row = member_row(&state, &uid, &key).await?;
        rows.push(row_of(state.asker(uid.as_str()), &key, row.as_ref(), &found, count));
    }
    Ok(Json(rows))
}

/// A conversation; `None` for who is no member.
async fn member_row(state: &HttpState, uid: &Uid, key: &ChannelKey) -> Result<Option<ChatRow>, Problem> {
    match state.hub.chat(uid.clone(), key.clone()).await {
        Ok(row) => Ok(Some(row)),
        Err(Refusal::NotMember) => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

fn row_of(asker: Asker<'_>, key: &ChannelKey, row: Option<&ChatRow>, found: &Recents, count: usize) -> ConversationRow {
    let newest = found.messages.first();
    let first = found.messages.last().map_or(0, |message| message.message_seq.get());
    ConversationRow {
        channel_id: key.id_for(asker.uid).to_owned(),
        channel_type: key.channel_type().to_wire(),
        unread: row.map_or(0, |row| row.unread),
        timestamp: newest.map_or(0, |message| message.timestamp_ms() / 1_000),
        last_msg_seq: newest.map_or(0, |message| message.message_seq.get()),
        last_client_msg_no: newest.map_or_else(String::new, |message| message.client_msg_no.as_str().to_owned()),
        offset_msg_seq: 0,
        readed_to_msg_seq: row.map_or(0, |row| row.read_to_msg_seq),
        deleted_to_msg_seq: found.view.deleted_to,
        version: row.map_or(0, |row| row.version.get()),
        recents: found.messages.iter().map(|message| MessageBody::seen_by(asker, message)).collect(),
        complete: u8::from(found.messages.len() < count || first <= found.view.deleted_to + 1),
        first_msg_seq: first,
        is_deleted: 0,
        reset: 0,
    }
}

/// A user's conversations as WuKongIM v1 lists them.
///
/// The last written first. Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    get, path = "/conversations", tag = "conversations", params(wire::ConversationsQuery),
    responses((status = 200, body = Vec<wire::ConversationOfV1>), (status = "default", body = ErrorBody))
)]
async fn conversations(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    QueryOrBody(query): QueryOrBody<wire::ConversationsQuery>,
) -> Result<Json<Vec<wire::ConversationOfV1>>, Problem> {
    let uid = user(&state, &auth, &query.uid, Needs::Read).await?;
    let rows = all(&state, uid.clone(), 1).await?.into_iter().map(|row| wire::ConversationOfV1 {
        channel_id: row.channel.id_for(uid.as_str()).to_owned(),
        channel_type: row.channel.channel_type().to_wire(),
        unread: row.unread,
        timestamp: row.timestamp_s,
        last_message: row.recents.first().map(|message| MessageBody::seen_by(state.asker(uid.as_str()), message)),
    });
    Ok(Json(rows.collect()))
}

/// Where a page of v3's list ended: what the list began at, and the place.
fn cursor_of(since: Version, after: PageAfter) -> String {
    let mut bytes = vec![CURSOR_FORMAT];
    for number in [since.get(), after.version.get(), after.order.get(), u64::from(after.channel.0)] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Option<(Version, PageAfter)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (format, numbers) = bytes.split_first()?;
    let numbers: [u8; 32] = numbers.try_into().ok()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let number = |at: usize| numbers.get(at).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let channel = ChannelNo(u32::try_from(number(3)).ok()?);
    let [since, version, order] = [0, 1, 2].map(|at| Version::new(number(at)));
    (*format == CURSOR_FORMAT).then_some((since, PageAfter { version, order, channel }))
}

fn listed_message(message: &Message) -> wire::ListedMessage {
    wire::ListedMessage {
        message_id: message.message_id.get(),
        message_idstr: message.message_id.to_string(),
        message_seq: message.message_seq.get(),
        from_uid: message.from_uid.bare().to_owned(),
        client_msg_no: message.client_msg_no.as_str().to_owned(),
        server_timestamp_ms: message.timestamp_ms(),
        payload: STANDARD.encode(&message.payload),
    }
}

fn channel_of(uid: &Uid, key: &ChannelKey) -> wire::ConversationChannel {
    let channel_id = key.id_for(uid.as_str()).to_owned();
    wire::ConversationChannel { channel_id, channel_type: key.channel_type().to_wire() }
}

/// A user's conversations in pages, or what changed in them.
///
/// The last written first. A client that read a list to its end sends its `coverage` back as `completed_coverage` and gets what
/// changed since, deletions included. Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/list", tag = "conversations", request_body = wire::ConversationListQuery,
    responses((status = 200, body = wire::ConversationList), (status = "default", body = ErrorBody))
)]
async fn list(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ConversationListQuery>,
) -> Result<Json<wire::ConversationList>, Problem> {
    let uid = user(&state, &auth, &body.uid, Needs::Read).await?;
    let (since, after) = match body.cursor.as_str() {
        "" => (Version::new(body.completed_coverage), None),
        cursor => {
            let (since, after) = read_cursor(cursor).ok_or_else(|| Refusal::invalid("cursor", "is none of ours"))?;
            (since, Some(after))
        }
    };
    let rows_max = match body.limit as usize {
        0 => LIST_LIMIT_DEFAULT,
        limit => limit.min(LIST_LIMIT_MAX),
    };
    let request = SyncRequest {
        version: since,
        with_deleted: since > Version::ZERO,
        page: Page::Rows { after, rows_max },
        recents_bytes_max: state.conversation.recents_bytes_max,
        ..SyncRequest::full(uid.clone(), 1)
    };
    let answer = state.hub.sync(request).await?;
    let (gone, shown): (Vec<&SyncRow>, Vec<&SyncRow>) = answer.rows.iter().partition(|row| row.is_deleted);
    let conversations = shown.into_iter().map(|row| wire::ListedConversation {
        channel_id: row.channel.id_for(uid.as_str()).to_owned(),
        channel_type: row.channel.channel_type().to_wire(),
        active_at: row.recents.first().map_or(row.timestamp_s * 1_000, Message::timestamp_ms),
        read_seq: row.read_to_msg_seq,
        deleted_to_seq: row.deleted_to_msg_seq,
        unread: row.unread,
        last_message: row.recents.first().map(listed_message),
    });
    Ok(Json(wire::ConversationList {
        conversations: conversations.collect(),
        deletes: gone.into_iter().map(|row| channel_of(&uid, &row.channel)).collect(),
        unresolved: Vec::new(),
        next_cursor: answer.more.map_or_else(String::new, |after| cursor_of(since, after)),
        done: answer.more.is_none(),
        coverage: answer.version.get(),
        tombstones_retained_since: 0,
        reset_required: answer.reset,
    }))
}

/// Conversations of v3's list by their channels.
///
/// A channel the user is no member of is among `deletes`. Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/retry", tag = "conversations", request_body = wire::ConversationRetry,
    responses((status = 200, body = wire::ConversationList), (status = "default", body = ErrorBody))
)]
async fn retry(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ConversationRetry>,
) -> Result<Json<wire::ConversationList>, Problem> {
    let uid = user(&state, &auth, &body.uid, Needs::Read).await?;
    at_most("channels", &body.channels, CHANNELS_MAX)?;
    // Taken first: what changes from here on is news to the next list.
    let coverage = state.hub.version().get();
    let (mut conversations, mut deletes) = (Vec::new(), Vec::new());
    for (i, wanted) in body.channels.iter().enumerate() {
        let key = channel_at(i, &uid, &wanted.channel_id, wanted.channel_type)?;
        let Some(row) = member_row(&state, &uid, &key).await? else {
            deletes.push(channel_of(&uid, &key));
            continue;
        };
        let view = state.hub.own_view(uid.clone(), key.clone()).await?;
        let last = row.last_message.as_ref();
        conversations.push(wire::ListedConversation {
            channel_id: key.id_for(uid.as_str()).to_owned(),
            channel_type: key.channel_type().to_wire(),
            active_at: last.map_or(row.activity_ms, Message::timestamp_ms),
            read_seq: row.read_to_msg_seq,
            deleted_to_seq: view.deleted_to,
            unread: row.unread,
            last_message: last.map(listed_message),
        });
    }
    Ok(Json(wire::ConversationList {
        conversations,
        deletes,
        unresolved: Vec::new(),
        next_cursor: String::new(),
        done: true,
        coverage,
        tombstones_retained_since: 0,
        reset_required: false,
    }))
}

/// Accepts that a user looks at a conversation.
///
/// In WuKongIM v3 it moves the conversation up; here what was written last is up, so that nothing changes. Needs an API key with
/// the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/conversations/activate", tag = "conversations", request_body = wire::ConversationActivation,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn activate(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ConversationActivation>,
) -> Answer {
    let uid = user(&state, &auth, &body.uid, Needs::Send).await?;
    channel_seen_by(&uid, &body.channel_id, body.channel_type)?;
    done()
}
