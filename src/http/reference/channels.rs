//! Channels and their members.

use std::sync::Arc;

use protocol::ids::{ChannelKey, ChannelType, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Admin, Answer, done, named_channel, wire};
use crate::domain::channel::ChannelSettings;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::envelope::{Done, ErrorBody};
use crate::http::extract::Body;
use crate::http::names::{channel_by_name, channel_type_of, members_of, users_of};
use crate::http::problem::Problem;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(channel))
        .routes(routes!(channel_info))
        .routes(routes!(channel_delete))
        .routes(routes!(subscriber_add))
        .routes(routes!(subscriber_remove))
        .routes(routes!(subscriber_remove_all))
        .routes(routes!(temporary_subscribers))
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
async fn channel(admin: Admin, Body(body): Body<wire::Channel>) -> Answer {
    let channel_type = channel_type_of(body.channel_type)?;
    if channel_type == ChannelType::Person && (!body.subscribers.is_empty() || body.reset) {
        return Err(
            Refusal::invalid("subscribers", "cannot be set: the members of a person channel are its two").into()
        );
    }
    let key = channel_by_name(&body.channel_id, channel_type)?;
    let members = members_of(&body.subscribers)?;
    admin.hub().put_channel(key, Some(settings_of(&body)), members, body.reset).await?;
    done()
}

/// Changes a channel's flags.
///
/// As `/channel` without members. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/info", tag = "channels", request_body = wire::Channel,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_info(admin: Admin, Body(body): Body<wire::Channel>) -> Answer {
    let key = channel_by_name(&body.channel_id, channel_type_of(body.channel_type)?)?;
    admin.hub().put_channel(key, Some(settings_of(&body)), Vec::new(), false).await?;
    done()
}

/// Disbands a channel.
///
/// Nobody can send to it any more and its members are gone; messages stay. `/channel` with `disband` 0 makes it anew. Needs
/// an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/delete", tag = "channels", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_delete(admin: Admin, Body(body): Body<wire::ChannelName>) -> Answer {
    let key = named_channel(&body.channel_id, body.channel_type)?;
    admin.hub().disband(key).await?;
    done()
}

fn subscribers_of(body: &wire::Subscribers) -> Result<(ChannelKey, Vec<Uid>), Problem> {
    let channel_type = if body.channel_type == 0 { ChannelType::Group.to_wire() } else { body.channel_type };
    let key = named_channel(&body.channel_id, channel_type)?;
    if body.temp_subscriber {
        return Err(Refusal::invalid("temp_subscriber", "is no longer supported").into());
    }
    if body.subscribers.is_empty() {
        return Err(Refusal::invalid("subscribers", "is empty").into());
    }
    Ok((key, members_of(&body.subscribers)?))
}

/// Adds members.
///
/// Makes the channel when there is none. Members who are there already stay as they are. Needs an API key with the scope
/// admin.
#[utoipa::path(
    post, path = "/channel/subscriber_add", tag = "channels", request_body = wire::Subscribers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_add(admin: Admin, Body(body): Body<wire::Subscribers>) -> Answer {
    let (key, members) = subscribers_of(&body)?;
    admin.hub().add_members(key, members, body.reset).await?;
    done()
}

/// Removes members.
///
/// Their conversation with the channel is deleted and they receive nothing more. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/subscriber_remove", tag = "channels", request_body = wire::Subscribers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_remove(admin: Admin, Body(body): Body<wire::Subscribers>) -> Answer {
    let (key, members) = subscribers_of(&body)?;
    match admin.hub().remove_members(key, members).await {
        // As in WuKongIM, where an unknown channel is made in passing: nobody is a member afterwards.
        Ok(()) | Err(Refusal::ChannelNotFound) => done(),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Removes all members.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/channel/subscriber_remove_all", tag = "channels", request_body = wire::ChannelName,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn subscriber_remove_all(admin: Admin, Body(body): Body<wire::ChannelName>) -> Answer {
    let key = named_channel(&body.channel_id, body.channel_type)?;
    admin.hub().put_channel(key, None, Vec::new(), true).await?;
    done()
}

/// Sets who receives in a temporary channel.
///
/// These users are its members afterwards, and nobody else; nobody: it is empty. It is a group like any other here. Needs an
/// API key with the scope admin.
#[utoipa::path(
    post, path = "/tmpchannel/subscriber_set", tag = "channels", request_body = wire::TemporarySubscribers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn temporary_subscribers(admin: Admin, Body(body): Body<wire::TemporarySubscribers>) -> Answer {
    let key = channel_by_name(&body.channel_id, ChannelType::Group)?;
    admin.hub().put_channel(key, None, users_of("uids", &body.uids)?, true).await?;
    done()
}
