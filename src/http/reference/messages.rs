//! Sending.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::ids::{ChannelKey, TOPIC_BYTES_MAX, Uid};
use protocol::wukong::Setting;
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{at_most, wire};
use crate::domain::channel::Standing;
use crate::domain::message::{Draft, Durability, MessageFlags};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::http::HttpState;
use crate::http::dialects::client_msg_no;
use crate::http::envelope::ErrorBody;
use crate::http::extract::{Acting, Auth, Body, Needs};
use crate::http::message::{extras_of, payload_of};
use crate::http::names::{channel_seen_by, some_users_of};
use crate::http::problem::Problem;
use crate::hub::Sent;
use crate::voices;

/// Users one `/message/sendbatch` may name.
const BATCH_MAX: usize = 10_000;
/// Messages of a batch that are on their way at once: as many as share a lot of the log.
const BATCH_IN_FLIGHT_MAX: usize = 256;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new().routes(routes!(message_send)).routes(routes!(message_sendbatch))
}

/// As whom a message is sent: a back end's sends are held to what the configuration says.
fn standing_of(state: &HttpState, acting: &Acting) -> Standing {
    match acting.standing() {
        Standing::Trusted if state.wukong.api_send_checks => Standing::Checked,
        standing => standing,
    }
}

/// Sends a message.
///
/// Answered when it is on disk. A repeat of the same `client_msg_no` gets the first outcome; with another payload it is a
/// 409. What the channel's rules refuse is answered with HTTP 200 and the reason in `status` and `reason`, as WuKongIM's
/// callers expect it; everything else has its HTTP status. With `subscribers` and without a channel a command goes to exactly
/// these users. Needs an API key with the scope send, or the sender's own
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
    let (field, named) = match body.from_uid.is_empty() {
        true => ("sender_uid", &body.sender_uid),
        false => ("from_uid", &body.from_uid),
    };
    let named = if named.is_empty() && auth.is_key() { SYSTEM_UID } else { named };
    let acting = auth.acting_for(&state, field, named, Needs::Send).await?;
    let standing = standing_of(&state, &acting);
    let (client_msg_no, is_stream) = (body.client_msg_no.clone(), body.is_stream);
    let draft = match body.subscribers.is_empty() {
        true => draft_of(acting.uid().clone(), body)?,
        false => draft_to_set(&state, &acting, body).await?,
    };
    let streamed = is_stream.then(|| (draft.channel.clone(), draft.from_uid.clone()));
    match state.hub.send(draft, standing).await {
        Ok(sent) => {
            state.metrics.acks.inc();
            if let Some((key, from_uid)) = streamed {
                state.hub.note_stream(key, from_uid, sent.client_msg_no.clone());
            }
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

/// A command to a set of users: what section 5.1 calls `subscribers`, with the rules of v2 and v3. The set has a channel of its
/// own, so that the same users share one order.
async fn draft_to_set(state: &HttpState, acting: &Acting, body: wire::MessageSend) -> Result<Draft, Problem> {
    if !matches!(acting, Acting::Trusted(_)) {
        return Err(Refusal::Forbidden { action: "send to a set of users: it needs an API key" }.into());
    }
    if !body.channel_id.is_empty() {
        return Err(Refusal::invalid("channel_id", "is given beside subscribers: give one").into());
    }
    if !(body.header.sync_once || body.sync_once) {
        return Err(Refusal::invalid("header.sync_once", "is 0: only commands go to subscribers").into());
    }
    at_most("subscribers", &body.subscribers, BATCH_MAX)?;
    let uids = some_users_of("subscribers", &body.subscribers)?;
    let channel = crate::domain::channel::command_channel(&uids);
    let draft = draft_to(acting.uid().clone(), channel, body)?;
    // Only for a message that is in order otherwise.
    state.hub.command_channel(uids).await?;
    Ok(draft)
}

fn draft_of(from_uid: Uid, body: wire::MessageSend) -> Result<Draft, Problem> {
    let channel = channel_seen_by(&from_uid, &body.channel_id, body.channel_type);
    draft_to(from_uid, channel?, body)
}

fn draft_to(from_uid: Uid, channel: ChannelKey, body: wire::MessageSend) -> Result<Draft, Problem> {
    if !body.stream_no.is_empty() {
        return Err(Refusal::invalid("stream_no", "is not offered").into());
    }
    let payload = payload_of(&body.payload)?;
    let extras = extras_of(&Namespace::of(&from_uid), body.reply_to, &body.mentions, body.mention_all, &body.files)?;
    if body.topic.len() > TOPIC_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "topic", bytes: body.topic.len(), max: TOPIC_BYTES_MAX }.into());
    }
    Ok(Draft {
        channel,
        from_uid,
        client_msg_no: client_msg_no("client_msg_no", &body.client_msg_no)?,
        flags: MessageFlags {
            no_persist: body.header.no_persist || body.no_persist,
            red_dot: body.header.red_dot,
            sync_once: body.header.sync_once || body.sync_once,
        },
        setting: body.setting | if body.is_stream { Setting::STREAM.0 } else { 0 },
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

/// Sends one message to each of many users.
///
/// Answered when all are on disk. Who could not be written to, because it is no uid or a rule refuses it, is in `fail_uids`, why
/// at the same place of `reason`. Needs an API key with the scope send, or the sender's own credential.
#[utoipa::path(
    post, path = "/message/sendbatch", tag = "messages", request_body = wire::MessageSendBatch,
    responses((status = 200, body = wire::MessageBatchSent), (status = "default", body = ErrorBody))
)]
async fn message_sendbatch(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageSendBatch>,
) -> Result<Json<wire::MessageBatchSent>, Problem> {
    let acting = auth.acting_for(&state, "from_uid", &body.from_uid, Needs::Send).await?;
    let (from_uid, standing) = (acting.uid().clone(), standing_of(&state, &acting));
    at_most("subscribers", &body.subscribers, BATCH_MAX)?;
    if body.subscribers.is_empty() {
        return Err(Refusal::invalid("subscribers", "is needed").into());
    }
    let payload = payload_of(&body.payload)?;
    let flags = MessageFlags {
        no_persist: body.header.no_persist,
        red_dot: body.header.red_dot,
        sync_once: body.header.sync_once,
    };
    let draft = |to: &Uid| Draft {
        channel: ChannelKey::person(&from_uid, to),
        from_uid: from_uid.clone(),
        client_msg_no: None,
        flags,
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: payload.clone(),
        extras: None,
        durability: Durability::Disk,
    };
    let mut failed: Vec<(usize, String)> = Vec::new();
    let (mut sending, mut named) = (JoinSet::new(), HashSet::new());
    for (at, to) in body.subscribers.iter().enumerate() {
        let to = match Uid::new(to) {
            Ok(to) => to,
            // One that is none holds up nobody else's message (v2).
            Err(error) => {
                failed.push((at, error.to_string()));
                continue;
            }
        };
        if !named.insert(to.clone()) {
            continue;
        }
        if sending.len() >= BATCH_IN_FLIGHT_MAX
            && let Some(sent) = sending.join_next().await
        {
            note_failed(sent, &mut failed);
        }
        let (hub, draft) = (state.hub.clone(), draft(&to));
        sending.spawn(async move { (at, hub.send(draft, standing).await) });
    }
    while let Some(sent) = sending.join_next().await {
        note_failed(sent, &mut failed);
    }
    failed.sort_unstable();
    let (fail_uids, reason) = failed.into_iter().map(|(at, reason)| (body.subscribers[at].clone(), reason)).unzip();
    Ok(Json(wire::MessageBatchSent { fail_uids, reason }))
}

type BatchSent = Result<(usize, Result<Sent, Refusal>), tokio::task::JoinError>;

fn note_failed(sent: BatchSent, failed: &mut Vec<(usize, String)>) {
    match sent {
        Ok((_, Ok(_))) => {}
        Ok((at, Err(refusal))) => failed.push((at, refusal.to_string())),
        Err(error) => tracing::error!(%error, "a send of a batch panicked"),
    }
}

#[cfg(test)]
mod tests;
