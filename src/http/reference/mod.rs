//! WuKongIM's HTTP API: users, channels and their lists, messages, commands, conversations beside the document's, operations.
//!
//! Source: wukongim-http.md; where its versions differ, section 15's recommendation. Owns paths, shapes and conversions, and
//! the table of all routes WuKongIM ever had ([`table`]); the rules are the hub's and the domain's. Differences to WuKongIM on
//! purpose: a credential is needed unless `wukong.api_open` says otherwise; a refusal that is no reason code has its real HTTP
//! status; ids that are no strings and flags that are no 0 or 1 are refused; `/channel/delete` drops members and keeps messages
//! (section 15, 21). A file per noun, its JSON in `wire`.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use protocol::ids::{ChannelKey, ChannelType};
use utoipa_axum::router::OpenApiRouter;

use super::HttpState;
use super::envelope::{DONE, Done};
use super::extract::{Auth, Needs};
use super::names::{channel_by_name, channel_type_of};
use super::problem::Problem;
use crate::domain::refusal::Refusal;
use crate::hub::Hub;

mod channels;
mod commands;
mod conversations;
mod events;
mod lists;
mod lookups;
mod messages;
mod operations;
pub mod table;
#[cfg(test)]
mod tests;
mod users;
mod wire;

/// Payload bytes of one answer, about; a page cut by it says `more`.
const PAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Channels, or pages, in one request.
const CHANNELS_MAX: usize = 1_000;

/// The routes of this folder.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .merge(users::routes())
        .merge(channels::routes())
        .merge(lists::routes())
        .merge(messages::routes())
        .merge(lookups::routes())
        .merge(events::routes())
        .merge(commands::routes())
        .merge(conversations::routes())
        .merge(operations::routes())
        .merge(table::refused_routes())
}

/// Success without data.
type Answer = Result<Json<Done>, Problem>;

fn done() -> Answer {
    Ok(Json(DONE))
}

/// A caller with an API key of the scope admin: what most of these routes need.
struct Admin(Arc<HttpState>);

impl Admin {
    fn hub(&self) -> &Hub {
        &self.0.hub
    }
}

impl FromRequestParts<Arc<HttpState>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        Auth::from_request_parts(parts, state).await?.key_with(Needs::Admin)?;
        Ok(Self(state.clone()))
    }
}

/// A caller with an API key of the scope read.
struct Watcher(Arc<HttpState>);

impl FromRequestParts<Arc<HttpState>> for Watcher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        Auth::from_request_parts(parts, state).await?.key_with(Needs::Read)?;
        Ok(Self(state.clone()))
    }
}

/// A channel that has members: any but a person channel.
fn named_channel(channel_id: &str, channel_type: u8) -> Result<ChannelKey, Problem> {
    let channel_type = channel_type_of(channel_type)?;
    if channel_type == ChannelType::Person {
        return Err(Refusal::invalid("channel_type", "is person, whose members are its two").into());
    }
    Ok(channel_by_name(channel_id, channel_type)?)
}

/// Refuses a list that is too long to be worked off in one request.
fn at_most<T>(what: &'static str, list: &[T], max: usize) -> Result<(), Problem> {
    if list.len() > max { Err(Refusal::TooMany { what, max }.into()) } else { Ok(()) }
}
