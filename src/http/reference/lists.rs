//! Deny and allow lists: WuKongIM's black and white lists. A person's list is named by the user it belongs to, with channel_type
//! 1: who is denied is who the user blocks, who is allowed is who the user has as a contact.

use std::sync::Arc;

use axum::Json;
use protocol::ids::{ChannelType, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Admin, Answer, Watcher, done, wire};
use crate::domain::channel::ChannelList;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::envelope::{Done, ErrorBody};
use crate::http::extract::{Body, QueryOrBody};
use crate::http::names::{channel_by_name, channel_type_of, some_users_of, users_of};
use crate::http::problem::Problem;
use crate::hub::administration::ListChange;
use crate::hub::listings::ListOwner;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(blacklist_add))
        .routes(routes!(blacklist_set))
        .routes(routes!(blacklist_remove))
        .routes(routes!(blacklist_remove_all))
        .routes(routes!(whitelist_add))
        .routes(routes!(whitelist_set))
        .routes(routes!(whitelist_remove))
        .routes(routes!(whitelist_remove_all))
        .routes(routes!(whitelist))
}

fn owner_of(channel_id: &str, channel_type: u8) -> Result<ListOwner, Problem> {
    let channel_type = channel_type_of(channel_type)?;
    if channel_type == ChannelType::Person {
        let uid = Uid::new(channel_id).map_err(|error| Refusal::invalid("channel_id", error))?;
        return Ok(ListOwner::User(uid));
    }
    Ok(ListOwner::Channel(channel_by_name(channel_id, channel_type)?))
}

async fn change(admin: &Admin, list: ChannelList, how: ListChange, body: &wire::Listed) -> Answer {
    let owner = owner_of(&body.channel_id, body.channel_type)?;
    let uids = match how {
        ListChange::Set => users_of("uids", &body.uids)?,
        ListChange::Add | ListChange::Remove => some_users_of("uids", &body.uids)?,
    };
    admin.hub().change_list(owner, list, how, uids).await?;
    done()
}

async fn clear(admin: &Admin, list: ChannelList, body: &wire::ChannelName) -> Answer {
    let owner = owner_of(&body.channel_id, body.channel_type)?;
    admin.hub().change_list(owner, list, ListChange::Set, Vec::new()).await?;
    done()
}

/// Denies users.
///
/// They may not send to the channel; for a person (channel_type 1): they may not write to the user. Needs an API key with the
/// scope admin.
#[utoipa::path(
    post, path = "/channel/blacklist_add", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn blacklist_add(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Deny, ListChange::Add, &body).await
}

/// Denies these users and nobody else.
///
/// No users: the list is empty. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/blacklist_set", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn blacklist_set(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Deny, ListChange::Set, &body).await
}

/// Denies users no more.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/blacklist_remove", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn blacklist_remove(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Deny, ListChange::Remove, &body).await
}

/// Denies nobody any more.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/blacklist_remove_all", tag = "lists", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn blacklist_remove_all(admin: Admin, Body(body): Body<wire::ChannelName>) -> Answer {
    clear(&admin, ChannelList::Deny, &body).await
}

/// Allows users.
///
/// While anybody is on the list, only members on it may send; for a person (channel_type 1) it holds where
/// `wukong.whitelist_off_of_person` is off. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/whitelist_add", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn whitelist_add(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Allow, ListChange::Add, &body).await
}

/// Allows these users and nobody else.
///
/// No users: the list is empty, and everybody who may send otherwise may. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/whitelist_set", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn whitelist_set(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Allow, ListChange::Set, &body).await
}

/// Takes users off the allow list.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/whitelist_remove", tag = "lists", request_body = wire::Listed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn whitelist_remove(admin: Admin, Body(body): Body<wire::Listed>) -> Answer {
    change(&admin, ChannelList::Allow, ListChange::Remove, &body).await
}

/// Empties the allow list.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/whitelist_remove_all", tag = "lists", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn whitelist_remove_all(admin: Admin, Body(body): Body<wire::ChannelName>) -> Answer {
    clear(&admin, ChannelList::Allow, &body).await
}

/// Who is on the allow list.
///
/// Uids in order, as in WuKongIM v1. Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/channel/whitelist", tag = "lists", params(wire::ListedQuery),
    responses((status = 200, body = Vec<String>), (status = "default", body = ErrorBody))
)]
async fn whitelist(
    watcher: Watcher,
    QueryOrBody(query): QueryOrBody<wire::ListedQuery>,
) -> Result<Json<Vec<String>>, Problem> {
    let channel_type = if query.channel_type == 0 { ChannelType::Group.to_wire() } else { query.channel_type };
    let owner = owner_of(&query.channel_id, channel_type)?;
    let listed = watcher.0.hub.listed(owner, ChannelList::Allow).await?;
    Ok(Json(listed.iter().map(|uid| uid.as_str().to_owned()).collect()))
}
