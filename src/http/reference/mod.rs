//! WuKongIM's routes that a back end needs around conversations: users, channels, sending, history.
//!
//! Source: wukongim-http.md sections 1, 3, 4, 5 and 15; where its versions differ, section 15's recommendation. Owns paths,
//! shapes and conversions; the rules are the hub's and the domain's. Differences to WuKongIM on purpose: a credential is
//! always needed; a refusal that is no reason code has its real HTTP status; ids that are no strings and flags that are no 0
//! or 1 are refused; `/channel/delete` drops members and keeps messages (section 15, 21).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::ids::{ChannelKey, ChannelType, DeviceFlag, TOPIC_BYTES_MAX, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::dialects::client_msg_no;
use super::envelope::{DONE, Done, ErrorBody};
use super::extract::{Auth, Body, Needs};
use super::message::{MessageBody, extras_of, payload_of};
use super::names::{channel_by_name, channel_seen_by, channel_type_of, members_of};
use super::problem::Problem;
use crate::domain::channel::ChannelSettings;
use crate::domain::identity::Identity;
use crate::domain::message::{Draft, Durability, MessageFlags};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::hub::Sent;
use crate::hub::conversations::MessageSync;
use crate::voices;

mod wire;

/// Sends without a sender come from here (section 15, 5).
pub use crate::domain::user::SYSTEM_UID;
/// Payload bytes of one page of history, about; a page cut by it says `more`.
const PAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most uids in one question about who is online.
const ONLINE_UIDS_MAX: usize = 10_000;

/// The routes of this folder.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(user_token))
        .routes(routes!(device_quit))
        .routes(routes!(online_status))
        .routes(routes!(channel))
        .routes(routes!(channel_info))
        .routes(routes!(channel_delete))
        .routes(routes!(subscriber_add))
        .routes(routes!(subscriber_remove))
        .routes(routes!(subscriber_remove_all))
        .routes(routes!(message_send))
        .routes(routes!(message_sync))
}

/// Sets a user's token.
///
/// The token replaces the one of (uid, device_flag). With device_level 1 connections of that device kind are closed. The
/// header `micro-namespace`, or a key bound to a namespace, makes it a user of that namespace. Needs an API key with the
/// scope admin, or the user's own credential.
#[utoipa::path(
    post, path = "/user/token", tag = "users", request_body = wire::UserToken,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn user_token(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    headers: HeaderMap,
    Body(body): Body<wire::UserToken>,
) -> Result<Json<Done>, Problem> {
    let acting = auth.acting_in(&state, &headers, "uid", &body.uid, Needs::Admin)?;
    if body.token.trim().is_empty() {
        return Err(Refusal::invalid("token", "is needed").into());
    }
    if body.token.len() > crate::credentials::CREDENTIAL_BYTES_MAX {
        let (bytes, max) = (body.token.len(), crate::credentials::CREDENTIAL_BYTES_MAX);
        return Err(Refusal::TooLarge { field: "token", bytes, max }.into());
    }
    if body.device_level > 1 {
        return Err(Refusal::invalid("device_level", "is 0 (slave) or 1 (master)").into());
    }
    let uid = acting.uid().clone();
    if uid.bare() == SYSTEM_UID {
        return Err(Refusal::invalid("uid", "is the system user, who has no token").into());
    }
    let token = state.credentials.hash(body.token.trim());
    state.hub.set_token(uid, DeviceFlag(body.device_flag), body.device_level, token).await?;
    Ok(Json(DONE))
}

/// Signs devices of a user out.
///
/// Their tokens stop working and their connections are closed. Needs an API key with the scope admin, or the user's own
/// credential.
#[utoipa::path(
    post, path = "/user/device_quit", tag = "users", request_body = wire::DeviceQuit,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn device_quit(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::DeviceQuit>,
) -> Result<Json<Done>, Problem> {
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Admin).await?;
    let flags: Vec<u8> = match body.device_flag {
        -1 => vec![0, 1, 2],
        flag => vec![u8::try_from(flag).map_err(|_| Refusal::invalid("device_flag", "is -1 or 0 to 255"))?],
    };
    for flag in flags {
        state.hub.remove_token(acting.uid().clone(), DeviceFlag(flag)).await?;
    }
    Ok(Json(DONE))
}

/// Who of these users is online.
///
/// One row per connection; users who are offline have none. Needs an API key with the scope read; a user may ask about
/// oneself.
#[utoipa::path(
    post, path = "/user/onlinestatus", tag = "users", request_body = Vec<String>,
    responses((status = 200, body = Vec<wire::Online>), (status = "default", body = ErrorBody))
)]
async fn online_status(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(uids): Body<Vec<String>>,
) -> Result<Json<Vec<wire::Online>>, Problem> {
    if uids.len() > ONLINE_UIDS_MAX {
        return Err(Refusal::TooMany { what: "uids", max: ONLINE_UIDS_MAX }.into());
    }
    let mut asked = Vec::with_capacity(uids.len());
    for (i, text) in uids.iter().enumerate() {
        asked.push(Uid::new(text).map_err(|e| Problem::malformed(format!("[{i}]"), e))?);
    }
    if let Auth::Known(Identity::User { uid, .. }) = &auth {
        if asked.iter().any(|a| a != uid) {
            return Err(Refusal::Forbidden { action: "ask who else is online" }.into());
        }
    } else {
        auth.key_with(Needs::Read)?;
    }
    let rows = state.hub.online(&asked).into_iter();
    Ok(Json(
        rows.map(|(uid, flag)| wire::Online { uid: uid.as_str().to_owned(), device_flag: flag.0, online: 1 }).collect(),
    ))
}

fn settings_of(body: &wire::Channel) -> ChannelSettings {
    ChannelSettings {
        ban: body.ban,
        disband: body.disband,
        send_ban: body.send_ban,
        large: body.large,
        allow_stranger: body.allow_stranger,
    }
}

/// Makes a channel or changes it.
///
/// The flags are overwritten by what is sent; subscribers are added, or replace the members with `reset` 1. Needs an API key
/// with the scope admin.
#[utoipa::path(
    post, path = "/channel", tag = "channels", request_body = wire::Channel,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Channel>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let channel_type = channel_type_of(body.channel_type)?;
    if channel_type == ChannelType::Person && (!body.subscribers.is_empty() || body.reset) {
        return Err(
            Refusal::invalid("subscribers", "cannot be set: the members of a person channel are its two").into()
        );
    }
    let key = channel_by_name(&body.channel_id, channel_type)?;
    let members = members_of(&body.subscribers)?;
    state.hub.put_channel(key, Some(settings_of(&body)), members, body.reset).await?;
    Ok(Json(DONE))
}

/// Changes a channel's flags.
///
/// As `/channel` without members. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/info", tag = "channels", request_body = wire::Channel,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_info(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Channel>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let key = channel_by_name(&body.channel_id, channel_type_of(body.channel_type)?)?;
    state.hub.put_channel(key, Some(settings_of(&body)), Vec::new(), false).await?;
    Ok(Json(DONE))
}

/// Disbands a channel.
///
/// Nobody can send to it any more and its members are gone; messages stay. `/channel` with `disband` 0 makes it anew. Needs
/// an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/delete", tag = "channels", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_delete(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ChannelName>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let channel_type = channel_type_of(body.channel_type)?;
    if channel_type == ChannelType::Person {
        return Err(Refusal::invalid("channel_type", "is person, which cannot be disbanded").into());
    }
    let key = channel_by_name(&body.channel_id, channel_type)?;
    state.hub.disband(key).await?;
    Ok(Json(DONE))
}

fn subscribers_of(body: &wire::Subscribers) -> Result<(ChannelKey, Vec<Uid>), Problem> {
    let channel_type = if body.channel_type == 0 { ChannelType::Group } else { channel_type_of(body.channel_type)? };
    if channel_type == ChannelType::Person {
        return Err(Refusal::invalid("channel_type", "is person, whose members are its two").into());
    }
    if body.temp_subscriber {
        return Err(Refusal::invalid("temp_subscriber", "is no longer supported").into());
    }
    if body.subscribers.is_empty() {
        return Err(Refusal::invalid("subscribers", "is empty").into());
    }
    Ok((channel_by_name(&body.channel_id, channel_type)?, members_of(&body.subscribers)?))
}

/// Adds members.
///
/// Makes the channel when there is none. Members who are there already stay as they are. Needs an API key with the scope
/// admin.
#[utoipa::path(
    post, path = "/channel/subscriber_add", tag = "channels", request_body = wire::Subscribers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_add(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Subscribers>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let (key, members) = subscribers_of(&body)?;
    state.hub.add_members(key, members, body.reset).await?;
    Ok(Json(DONE))
}

/// Removes members.
///
/// Their conversation with the channel is deleted and they receive nothing more. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/subscriber_remove", tag = "channels", request_body = wire::Subscribers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_remove(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::Subscribers>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let (key, members) = subscribers_of(&body)?;
    state.hub.remove_members(key, members).await?;
    Ok(Json(DONE))
}

/// Removes all members.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/subscriber_remove_all", tag = "channels", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_remove_all(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::ChannelName>,
) -> Result<Json<Done>, Problem> {
    auth.key_with(Needs::Admin)?;
    let channel_type = channel_type_of(body.channel_type)?;
    if channel_type == ChannelType::Person {
        return Err(Refusal::invalid("channel_type", "is person, whose members are its two").into());
    }
    let key = channel_by_name(&body.channel_id, channel_type)?;
    state.hub.put_channel(key, None, Vec::new(), true).await?;
    Ok(Json(DONE))
}

/// Sends a message.
///
/// Answered when it is on disk. A repeat of the same `client_msg_no` gets the first outcome; with another payload it is a
/// 409. What the channel's rules refuse is answered with HTTP 200 and the reason in `status` and `reason`, as WuKongIM's
/// callers expect it; everything else has its HTTP status. Needs an API key with the scope send, or the sender's own
/// credential.
#[utoipa::path(
    post, path = "/message/send", tag = "messages", request_body = wire::MessageSend,
    responses((status = 200, body = wire::MessageSent), (status = "default", body = ErrorBody))
)]
async fn message_send(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageSend>,
) -> Result<Json<wire::MessageSent>, Problem> {
    let is_key = matches!(&auth, Auth::Known(Identity::Key { .. }));
    let from = if body.from_uid.is_empty() && is_key { SYSTEM_UID } else { &body.from_uid };
    let acting = auth.acting_for(&state, "from_uid", from, Needs::Send).await?;
    let standing = acting.standing();
    let client_msg_no = body.client_msg_no.clone();
    let draft = draft_of(acting.uid().clone(), body)?;
    match state.hub.send(draft, standing).await {
        Ok(sent) => {
            state.metrics.acks.inc();
            Ok(Json(sent_body(&sent)))
        }
        Err(refusal) => match voices::of(&refusal).wukong_send_reason() {
            Some(reason) => {
                state.metrics.refused(refusal.code());
                Ok(Json(refused_body(&refusal, reason, client_msg_no)))
            }
            None => Err(refusal.into()),
        },
    }
}

fn draft_of(from_uid: Uid, body: wire::MessageSend) -> Result<Draft, Problem> {
    if !body.subscribers.is_empty() {
        return Err(Refusal::invalid("subscribers", "is not offered: send to a channel").into());
    }
    if !body.stream_no.is_empty() {
        return Err(Refusal::invalid("stream_no", "is not offered").into());
    }
    if body.is_stream {
        return Err(Refusal::invalid("is_stream", "is not offered").into());
    }
    let payload = payload_of(&body.payload)?;
    let extras = extras_of(&Namespace::of(&from_uid), body.reply_to, &body.mentions, body.mention_all, &body.files)?;
    if body.topic.len() > TOPIC_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "topic", bytes: body.topic.len(), max: TOPIC_BYTES_MAX }.into());
    }
    Ok(Draft {
        channel: channel_seen_by(&from_uid, &body.channel_id, body.channel_type)?,
        from_uid,
        client_msg_no: client_msg_no("client_msg_no", &body.client_msg_no)?,
        flags: MessageFlags {
            no_persist: body.header.no_persist,
            red_dot: body.header.red_dot,
            sync_once: body.header.sync_once,
        },
        setting: body.setting,
        topic: body.topic,
        expire_s: body.expire,
        payload,
        extras,
        durability: Durability::Disk,
    })
}

fn sent_body(sent: &Sent) -> wire::MessageSent {
    let message_seq = sent.message_seq.map_or(0, protocol::ids::MessageSeq::get);
    let data = wire::MessageSentData {
        message_id: sent.message_id.get(),
        message_idstr: sent.message_id.to_string(),
        client_msg_no: sent.client_msg_no.as_str().to_owned(),
        message_seq,
    };
    wire::MessageSent {
        status: 200,
        message_id: data.message_id,
        message_idstr: data.message_idstr.clone(),
        message_seq,
        client_msg_no: data.client_msg_no.clone(),
        reason: 1,
        duplicate: sent.duplicate,
        data: Some(data),
        code: None,
        msg: None,
        error: None,
    }
}

fn refused_body(refusal: &Refusal, reason: u8, client_msg_no: String) -> wire::MessageSent {
    let text = refusal.to_string();
    wire::MessageSent {
        status: u16::from(reason),
        data: None,
        message_id: 0,
        message_idstr: "0".into(),
        message_seq: 0,
        client_msg_no,
        reason,
        duplicate: false,
        code: Some(refusal.code().to_owned()),
        msg: Some(text.clone()),
        error: Some(text),
    }
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
    let uid = acting.uid();
    let key = channel_seen_by(uid, &body.channel_id, body.channel_type)?;
    let sync = MessageSync {
        start_message_seq: body.start_message_seq,
        end_message_seq: body.end_message_seq,
        limit: body.limit as usize,
        towards_newer: body.pull_mode,
    };
    let page = state.hub.message_sync(acting.reader(), key, sync, PAGE_BYTES_MAX).await?;
    Ok(Json(wire::MessageSyncPage {
        start_message_seq: body.start_message_seq,
        end_message_seq: body.end_message_seq,
        more: u8::from(page.more),
        messages: page.messages.iter().map(|m| MessageBody::seen_by(uid.as_str(), m)).collect(),
    }))
}

#[cfg(test)]
mod tests;
