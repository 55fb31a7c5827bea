//! Users: tokens, devices, who is online, and the system users who may write to anybody.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::ids::{DeviceFlag, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Admin, Answer, Watcher, done, wire};
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::domain::user::is_built_in;
use crate::http::HttpState;
use crate::http::envelope::{DONE, Done, ErrorBody};
use crate::http::extract::{Auth, Body, Needs};
use crate::http::names::users_of;
use crate::http::problem::Problem;
use crate::voices;

/// Most uids in one question about who is online.
const ONLINE_UIDS_MAX: usize = 10_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(user_token))
        .routes(routes!(device_quit))
        .routes(routes!(online_status))
        .routes(routes!(system_users))
        .routes(routes!(system_users_add))
        .routes(routes!(system_users_remove))
        .routes(routes!(system_users_add_to_cache))
        .routes(routes!(system_users_remove_from_cache))
}

/// Sets a user's token.
///
/// The token replaces the one of (uid, device_flag). With device_level 1 connections of that device kind are closed. A user
/// whose own channel is banned gets none: HTTP 200 with the reason 19 in `status`. The header `micro-namespace`, or a key bound to a namespace, makes it a user of that namespace. Needs an API key with the
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
    if is_built_in(&uid) {
        return Err(Refusal::invalid("uid", "is the system user, who has no token").into());
    }
    if state.hub.is_banned(&uid)? {
        return Ok(Json(Done { status: u16::from(voices::of(&Refusal::ChannelBanned).wukong_reason) }));
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
    Body(uids): Body<Option<Vec<String>>>,
) -> Result<Json<Vec<wire::Online>>, Problem> {
    let uids = uids.unwrap_or_default();
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

/// The system users.
///
/// Without the built-in one, `____system`. Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/user/systemuids", tag = "users",
    responses((status = 200, body = Vec<String>), (status = "default", body = ErrorBody))
)]
async fn system_users(watcher: Watcher) -> Json<Vec<String>> {
    Json(watcher.0.hub.system_users().iter().map(|uid| uid.as_str().to_owned()).collect())
}

async fn set_system_users(admin: &Admin, body: &wire::Uids, on: bool) -> Answer {
    admin.hub().set_system_users(users_of("uids", &body.uids)?, on).await?;
    done()
}

/// Makes users system users.
///
/// They may write to anybody, and only ban and disband stop them. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/user/systemuids_add", tag = "users", request_body = wire::Uids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn system_users_add(admin: Admin, Body(body): Body<wire::Uids>) -> Answer {
    set_system_users(&admin, &body, true).await
}

/// Makes system users ordinary ones again.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/user/systemuids_remove", tag = "users", request_body = wire::Uids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn system_users_remove(admin: Admin, Body(body): Body<wire::Uids>) -> Answer {
    set_system_users(&admin, &body, false).await
}

/// As `/user/systemuids_add`.
///
/// What WuKongIM's nodes tell each other; here there is no cache beside the store. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/user/systemuids_add_to_cache", tag = "users", request_body = wire::Uids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn system_users_add_to_cache(admin: Admin, Body(body): Body<wire::Uids>) -> Answer {
    set_system_users(&admin, &body, true).await
}

/// As `/user/systemuids_remove`.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/user/systemuids_remove_from_cache", tag = "users", request_body = wire::Uids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn system_users_remove_from_cache(admin: Admin, Body(body): Body<wire::Uids>) -> Answer {
    set_system_users(&admin, &body, false).await
}
