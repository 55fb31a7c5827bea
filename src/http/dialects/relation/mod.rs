//! The `relation` dialect: RelationLabs' messages under `/api/v1`.
//!
//! Source: the document `relation.txt` (发消息, `POST api/v1/message/send`); the routes around it follow CHECKLIST D3, D11 and
//! D15 in the document's words. Owns paths, shapes and conversions; every rule is the hub's and the domain's. Who calls: an
//! application names itself in the header `ApiKey`, which opens nothing, and the bearer says on whose behalf: a user by an own
//! token, or a back end by an API key, which names the user in `fromRelationId` (for a send: or nobody, the system user).
//!
//! In which order a send is looked at: `ApiKey` (10102), bearer (10100, 10101), shape of the body (10112), who sends (10103),
//! the chat (10112 when none is named, 13108 when the sender is no member or there is none), then type and content (10103 for
//! `sys`, 10112), then the recipient's word (13301).
//!
//! Quirks kept: `code` is text; refusals have HTTP 200 unless `relation.http_errors`; ids are text, `quoteId` may be a number;
//! types are in any case and come back in lower case; chats are uuids without hyphens on the way out, with or without on the
//! way in. Reading routes answer GET with a query and POST with a body alike.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use protocol::ids::{ChannelKey, DeviceFlag};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::credentials::mint_user_token;
use crate::domain::channel::chat_id;
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::http::HttpState;
use crate::http::extract::{Auth, Body, Needs};
use crate::http::problem::Problem;
use crate::voices::RelationCode;

mod caller;
mod chats;
mod messages;
mod people;
mod voice;
pub mod wire;

use caller::Caller;
pub use voice::{IN_BODY, IN_STATUS};
use wire::{Answer, Refused};

/// The routes of this document.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(auth))
        .routes(routes!(messages::send))
        .routes(routes!(messages::list))
        .route("/api/v1/message/list", get(messages::list))
        .routes(routes!(messages::read))
        .routes(routes!(messages::unread_count))
        .route("/api/v1/message/unreadCount", get(messages::unread_count))
        .routes(routes!(chats::list))
        .route("/api/v1/chats/list", get(chats::list))
        .routes(routes!(chats::pin))
        .routes(routes!(chats::mute))
        .routes(routes!(chats::hide))
        .routes(routes!(chats::requests))
        .route("/api/v1/requests/list", get(chats::requests))
        .routes(routes!(chats::accept))
        .routes(routes!(chats::create_group))
        .routes(routes!(chats::members))
        .route("/api/v1/groups/members", get(chats::members))
        .routes(routes!(chats::invite))
        .routes(routes!(chats::remove))
        .routes(routes!(chats::leave))
        .routes(routes!(people::settings, people::change_settings))
        .routes(routes!(people::contacts))
        .route("/api/v1/contacts/list", get(people::contacts))
        .routes(routes!(people::add))
        .routes(routes!(people::remove))
        .routes(routes!(people::block))
        .routes(routes!(people::unblock))
}

/// The document's success.
fn done<T>(data: T) -> Json<Answer<T>> {
    let RelationCode { code, desc } = RelationCode::SUCCESS;
    Json(Answer { code: code.to_owned(), desc: desc.to_owned(), data: Some(data) })
}

/// A chat's id as this dialect writes it: 32 hexadecimal digits.
fn channel_uuid(key: &ChannelKey) -> String {
    chat_id(key).replace('-', "")
}

/// Fetches the token that all other calls carry.
///
/// With an API key of scope admin as bearer: a new token for the user named, which replaces the one of that kind of device.
/// With the user's own token: the facts of that token.
#[utoipa::path(
    post, path = "/api/v1/auth", tag = "relation", request_body = wire::Auth, params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Authed>), (status = "default", body = Refused))
)]
async fn auth(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Auth>,
) -> Result<Json<Answer<wire::Authed>>, Problem> {
    let actor = caller.acts_as(&state, "relationId", &body.relation_id, Needs::Admin)?;
    if actor.uid.bare() == SYSTEM_UID {
        return Err(Problem::malformed("relationId", "is the system user, who has no token"));
    }
    let relation_id = actor.uid.bare().to_owned();
    if let Auth::Known(Identity::User { device_flag, .. }) = &caller.auth {
        let (unified_auth_token, device_flag) = (caller.credential(), device_flag.0);
        return Ok(done(wire::Authed { unified_auth_token, relation_id, device_flag, created: false }));
    }
    if let Auth::Shared { .. } = &caller.auth {
        let (unified_auth_token, device_flag) = (caller.credential(), body.device_flag);
        return Ok(done(wire::Authed { unified_auth_token, relation_id, device_flag, created: false }));
    }
    let token = mint_user_token().map_err(|error| {
        tracing::error!(%error, "cannot make a token");
        Refusal::Internal
    })?;
    let hash = state.credentials.hash(&token);
    state.hub.set_token(actor.uid, DeviceFlag(body.device_flag), 0, hash).await?;
    Ok(done(wire::Authed { unified_auth_token: token, relation_id, device_flag: body.device_flag, created: true }))
}

#[cfg(test)]
mod tests;
