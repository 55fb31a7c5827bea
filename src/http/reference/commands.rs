//! Commands (`sync_once` messages) that a user has not taken yet: WuKongIM v1's queue per user.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, done, wire};
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::envelope::{Done, ErrorBody};
use crate::http::extract::{Auth, Body, Needs};
use crate::http::message::MessageBody;
use crate::http::names::channel_seen_by;
use crate::http::problem::Problem;
use crate::hub::commands::COMMANDS_MAX;

/// Commands of an answer when the request names no limit (WuKongIM v2's).
const LIMIT_DEFAULT: usize = 200;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(command_sync))
        .routes(routes!(command_ack))
        .routes(routes!(command_bind))
        .routes(routes!(command_unbind))
}

/// A user's commands that were not taken yet.
///
/// The oldest first; `message_seq` is the place in the user's queue, to be sent back with `/message/syncack`. Needs an API key
/// with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/message/sync", tag = "commands", request_body = wire::CommandSync,
    responses((status = 200, body = Vec<MessageBody>), (status = "default", body = ErrorBody))
)]
async fn command_sync(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::CommandSync>,
) -> Result<Json<Vec<MessageBody>>, Problem> {
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Read).await?;
    let limit = match usize::try_from(body.limit) {
        Ok(0) => LIMIT_DEFAULT,
        Ok(limit) => limit.min(COMMANDS_MAX),
        Err(_) if body.limit < 0 => return Err(Refusal::invalid("limit", "must not be negative").into()),
        Err(_) => COMMANDS_MAX,
    };
    let uid = acting.uid();
    let commands = state.hub.commands(uid.clone(), limit).await?;
    let shown = commands.iter().map(|command| MessageBody {
        message_seq: command.position,
        ..MessageBody::seen_by(state.asker(uid.as_str()), &command.message)
    });
    Ok(Json(shown.collect()))
}

/// Marks commands as taken.
///
/// Up to the place `last_message_seq` of the user's queue: they are not answered again. Needs an API key with the scope send, or
/// the user's own credential.
#[utoipa::path(
    post, path = "/message/syncack", tag = "commands", request_body = wire::CommandAck,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn command_ack(State(state): State<Arc<HttpState>>, auth: Auth, Body(body): Body<wire::CommandAck>) -> Answer {
    let acting = auth.acting_for(&state, "uid", &body.uid, Needs::Send).await?;
    if body.last_message_seq == 0 {
        return Err(Refusal::invalid("last_message_seq", "is needed").into());
    }
    state.hub.take_commands(acting.uid().clone(), body.last_message_seq).await?;
    done()
}

async fn checked(state: &HttpState, auth: &Auth, body: &wire::CommandBinding) -> Answer {
    let acting = auth.acting_for(state, "uid", &body.uid, Needs::Send).await?;
    channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    done()
}

/// Accepts that a user takes commands of a channel.
///
/// WuKongIM v3 answers commands of bound channels only; here a member's queue holds those of every channel, so that nothing has
/// to be bound. Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/message/cmd/bind", tag = "commands", request_body = wire::CommandBinding,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn command_bind(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::CommandBinding>,
) -> Answer {
    checked(&state, &auth, &body).await
}

/// Accepts that a user takes no commands of a channel.
///
/// As `/message/cmd/bind`: it changes nothing. Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/message/cmd/unbind", tag = "commands", request_body = wire::CommandBinding,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn command_unbind(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<wire::CommandBinding>,
) -> Answer {
    checked(&state, &auth, &body).await
}
