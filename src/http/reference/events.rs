//! Events of messages: streamed answers (wukongim-http.md 5.6). Which choices were made where WuKongIM's versions differ or
//! are silent is in docs/decisions/0021-message-events.md.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid};
use protocol::native::NUMBER_MAX;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::wire;
use crate::clock;
use crate::domain::event::{Lane, NewEvent};
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::http::HttpState;
use crate::http::dialects::client_msg_no;
use crate::http::envelope::ErrorBody;
use crate::http::extract::{Auth, Body, Needs};
use crate::http::message::snapshot_of;
use crate::http::names::{channel_by_name, channel_seen_by, channel_type_of};
use crate::http::problem::Problem;
use crate::hub::Reader;
use crate::hub::messages::events::Sending;
use crate::hub::streams::Name;

/// Events of a page when the request names no number, and most of them (WuKongIM's).
const SYNC_LIMITS: (usize, usize) = (200, 2_000);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new().routes(routes!(message_event)).routes(routes!(message_eventsync))
}

/// How a request names a message.
struct Named<'a> {
    channel_id: &'a str,
    channel_type: u8,
    from_uid: &'a str,
    client_msg_no: ClientMsgNo,
}

impl<'a> Named<'a> {
    fn new(
        channel_id: &'a str,
        channel_type: u8,
        from_uid: &'a str,
        client_msg_no_text: &str,
    ) -> Result<Self, Problem> {
        let channel_id = channel_id.trim();
        if channel_id.is_empty() {
            return Err(Refusal::invalid("channel_id", "is needed").into());
        }
        let name = client_msg_no("client_msg_no", client_msg_no_text.trim())?;
        let client_msg_no = name.ok_or_else(|| Refusal::invalid("client_msg_no", "is needed"))?;
        Ok(Self { channel_id, channel_type, from_uid: from_uid.trim(), client_msg_no })
    }

    fn name(&self, key: ChannelKey, from_uid: Option<Uid>) -> Name {
        Name { key, from_uid, client_msg_no: self.client_msg_no.clone() }
    }

    /// As a back end means it that does not say who sent the message: whoever sent one of this name to be streamed; else a
    /// pair by its canonical id, or the system user's.
    fn of_anybody(&self, state: &HttpState) -> Result<Name, Problem> {
        if let Some((key, from_uid)) = state.hub.noted_stream(&self.client_msg_no)
            && channel_seen_by(&from_uid, self.channel_id, self.channel_type).is_ok_and(|seen| seen == key)
        {
            return Ok(self.name(key, Some(from_uid)));
        }
        let channel_type = channel_type_of(self.channel_type)?;
        let key = match channel_type == ChannelType::Person && !self.channel_id.contains('@') {
            true => channel_seen_by(&Uid::from_stored(SYSTEM_UID), self.channel_id, self.channel_type)?,
            false => channel_by_name(self.channel_id, channel_type)?,
        };
        Ok(self.name(key, None))
    }

    /// Whom the request is by, and which message it means.
    async fn sending(&self, state: &HttpState, auth: &Auth, needs: Needs) -> Result<Sending, Problem> {
        if self.from_uid.is_empty() && auth.is_key() {
            auth.key_with(needs)?;
            return Ok(Sending { actor: Reader::Trusted, to: self.of_anybody(state)? });
        }
        let acting = auth.acting_for(state, "from_uid", self.from_uid, needs).await?;
        let from_uid = acting.uid().clone();
        let key = channel_seen_by(&from_uid, self.channel_id, self.channel_type)?;
        Ok(Sending { actor: acting.reader(), to: self.name(key, Some(from_uid)) })
    }

    /// As [`Named::sending`], for a reader, who may name another as the message's sender.
    async fn reading(&self, state: &HttpState, auth: &Auth) -> Result<Sending, Problem> {
        match self.sending(state, auth, Needs::Read).await {
            Err(Problem::Refused(Refusal::Forbidden { .. })) if !auth.is_key() => {}
            other => return other,
        }
        let own = auth.acting_for(state, "from_uid", "", Needs::Read).await?;
        let from_uid = Uid::new(self.from_uid).map_err(|e| Refusal::invalid("from_uid", e))?;
        // WuKongIM names a pair from its sender's side; a reader may as well name it as its messages do.
        let key = match self.channel_id == own.uid().as_str() {
            true => channel_seen_by(own.uid(), from_uid.as_str(), self.channel_type)?,
            false => channel_seen_by(own.uid(), self.channel_id, self.channel_type)?,
        };
        Ok(Sending { actor: own.reader(), to: self.name(key, Some(from_uid)) })
    }
}

/// Adds an event to a message.
///
/// A `stream.delta` is merged in memory and pushed; everything else is on disk when answered, with what deltas came to. Ending
/// types end their lane, `stream.finish` ends every lane that is open. A repeat, and what comes to a lane that is over,
/// changes nothing. Needs an API key with the scope send, or the credential of the message's sender.
#[utoipa::path(
    post, path = "/message/event", tag = "messages", request_body = wire::MessageEvent,
    responses((status = 200, body = wire::MessageEventTaken), (status = "default", body = ErrorBody))
)]
async fn message_event(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::MessageEvent>,
) -> Result<Json<wire::MessageEventTaken>, Problem> {
    let named = Named::new(&body.channel_id, body.channel_type, &body.from_uid, &body.client_msg_no)?;
    let occurred_at_ms = match u64::try_from(body.occurred_at) {
        Ok(0) => clock::now_ms(),
        Ok(ms) if ms <= NUMBER_MAX => ms,
        _ => return Err(Refusal::invalid("occurred_at", "is no time in Unix milliseconds").into()),
    };
    let payload = match &body.payload {
        Value::Null => Bytes::new(),
        payload => Bytes::from(payload.to_string()),
    };
    let words = (body.event_id.as_str(), body.event_type.as_str(), body.event_key.as_str());
    let event = NewEvent::new(words, &body.visibility, occurred_at_ms, payload)?;
    let sending = named.sending(&state, &auth, Needs::Send).await?;
    let client_msg_no = named.client_msg_no.as_str().to_owned();
    let taken = state.hub.message_event(sending, event).await?;
    let data = wire::MessageEventData {
        client_msg_no,
        event_key: taken.lane.key,
        event_id: taken.lane.event_id,
        msg_event_seq: taken.lane.seq,
        stream_status: taken.lane.status.code().to_owned(),
        channel_id: body.channel_id,
        channel_type: body.channel_type,
        from_uid: taken.from_uid.bare().to_owned(),
    };
    Ok(Json(wire::MessageEventTaken { status: 200, data }))
}

/// Stored events of a message.
///
/// Of each lane the last stored one, with what the lane came to; nothing of a message there is none of. Needs an API key with the
/// scope read, or the credential of a member.
#[utoipa::path(
    post, path = "/message/eventsync", tag = "messages", request_body = wire::EventSync,
    responses((status = 200, body = wire::EventSyncPage), (status = "default", body = ErrorBody))
)]
async fn message_eventsync(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::EventSync>,
) -> Result<Json<wire::EventSyncPage>, Problem> {
    let named = Named::new(&body.channel_id, body.channel_type, &body.from_uid, &body.client_msg_no)?;
    let reading = named.reading(&state, &auth).await?;
    let client_msg_no = named.client_msg_no.as_str().to_owned();
    // Nobody has an empty uid: who does not ask for them sees no lanes but public ones.
    let viewer = match (&reading.actor, body.include_private) {
        (Reader::Trusted, true) => None,
        (Reader::User(uid), true) => Some(uid.as_str().to_owned()),
        (_, false) => Some(String::new()),
    };
    let limit = match body.limit as usize {
        0 => SYNC_LIMITS.0,
        limit => limit.min(SYNC_LIMITS.1),
    };
    let from = body.from_msg_event_seq;
    let wanted = body.event_key.trim();
    let mut lanes = state.hub.message_lanes(reading, viewer).await?;
    lanes.retain(|lane| lane.seq > from && (wanted.is_empty() || lane.key == wanted));
    let more = u8::from(lanes.len() > limit);
    lanes.truncate(limit);
    let data = wire::EventSyncData {
        client_msg_no,
        from_msg_event_seq: from,
        next_msg_event_seq: lanes.last().map_or(from, |lane| lane.seq),
        more,
        events: lanes.into_iter().map(synced).collect(),
        filtered_by_event_key: body.event_key,
    };
    Ok(Json(wire::EventSyncPage { status: 200, data }))
}

fn synced(lane: Lane) -> wire::SyncedEvent {
    let payload = snapshot_of(&lane).unwrap_or_else(|| {
        let mut how = json!({"status": lane.status.code(), "end_reason": lane.end_reason});
        if !lane.error.is_empty() {
            how["error"] = lane.error.as_str().into();
        }
        how
    });
    wire::SyncedEvent {
        msg_event_seq: lane.seq,
        event_id: lane.event_id,
        event_key: lane.key,
        event_type: lane.event_type,
        visibility: lane.visibility.code().to_owned(),
        occurred_at: lane.occurred_at_ms,
        payload,
    }
}
