//! The administration of webhooks: endpoints, how far they were told, and what to do about it. The words of these routes are
//! Chinwag's, nobody else's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use protocol::ids::Version;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::envelope::ErrorBody;
use super::extract::{Auth, Body, Needs, null_is_zero};
use super::problem::Problem;
use crate::credentials::mint_secret;
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::webhook::endpoint::{EndpointSpec, Event};
use crate::webhook::{EndpointStatus, StreamStatus};

/// Most messages one request may skip.
const SKIP_MAX: usize = 10_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, remove))
        .routes(routes!(rewind))
        .routes(routes!(skip))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(dead, clear_dead))
}

/// One event of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookStream {
    /// `msg.notify`, `msg.offline` or `user.onlinestatus`.
    pub event: &'static str,
    /// Version (= message_id) of the last message that is done. Absent for `user.onlinestatus`, which is not of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Version of the log's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    /// Messages behind the position; changes that wait for `user.onlinestatus`.
    pub lag_messages: u64,
    /// `true`: there are more than were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lag_is_more: bool,
    /// Age of the first message behind the position, in milliseconds.
    pub lag_ms: u64,
    /// An operator stopped it.
    pub paused: bool,
    /// The position could not be read at the start, and why: nothing is told until a rewind says from where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Changes of sessions that were given up since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Calls since the start.
    pub attempts: u64,
    /// Calls that were not answered with 200.
    pub failures: u64,
    /// Messages or changes told since the start.
    pub told: u64,
    /// Why it does not get on. Absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<WebhookFailing>,
}

/// Why an endpoint does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookFailing {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Attempts in a row that failed.
    pub attempts: u32,
    /// The last reason.
    pub error: String,
    /// When it is tried again, Unix milliseconds.
    pub next_ms: u64,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookBody {
    /// What it is called; `config`: the configuration's.
    pub name: String,
    /// Where calls go; a query is not shown.
    pub url: String,
    /// What it is told of.
    pub events: Vec<&'static str>,
    /// Whether its calls are signed.
    pub signed: bool,
    /// The namespace it is told of.
    pub namespace: Option<String>,
    /// Each of its events.
    pub streams: Vec<WebhookStream>,
}

/// All endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookList {
    /// 200.
    pub status: u16,
    /// By name.
    pub webhooks: Vec<WebhookBody>,
}

/// One endpoint and, when it was made just now, its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookAnswer {
    /// 200.
    pub status: u16,
    /// The endpoint.
    #[serde(flatten)]
    pub webhook: WebhookBody,
    /// The signing key. It is shown now and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// What a new endpoint is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookCreate {
    /// What it is called: 1 to 40 of `a-z`, `0-9`, `-`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub name: String,
    /// `http://…` or `https://…`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub url: String,
    /// Some of `msg.notify`, `msg.offline`, `user.onlinestatus`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub events: Vec<String>,
    /// The key to sign calls with, 16 to 500 bytes. Absent: one is made.
    #[serde(default)]
    pub secret: Option<String>,
    /// The namespace it is told of. Absent: the default one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Messages above this version are told; 0: all that the log holds. Absent: what comes from now on.
    #[serde(default)]
    pub from_version: Option<u64>,
    /// Messages or lines per call. Absent, as for those below: what the configuration says.
    #[serde(default)]
    pub batch_max: Option<usize>,
    /// About the bytes of messages per call.
    #[serde(default)]
    pub batch_bytes_max: Option<usize>,
    /// Shortest time between calls that are not full.
    #[serde(default)]
    pub push_interval_ms: Option<u64>,
    /// Longest call.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Which of an endpoint's events.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookWhich {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
}

/// Where to move to.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookRewind {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
    /// Messages above this version are told, again if they were. 0: all that the log holds; above its end: none of them.
    pub version: u64,
}

/// What to leave out.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookSkip {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
    /// How many messages are not told, at most 10,000.
    pub messages: usize,
}

/// A message that an endpoint would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDead {
    /// `msg.notify` or `msg.offline`.
    pub event: &'static str,
    /// Its id, which is its version.
    pub message_id: u64,
    /// Its channel, as its sender knows it.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Its place there.
    pub message_seq: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one did not count.
    pub error: String,
    /// When it was parked, Unix milliseconds.
    pub parked_at_ms: u64,
}

/// What was parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDeadList {
    /// 200.
    pub status: u16,
    /// By event, oldest first.
    pub dead: Vec<WebhookDead>,
}

/// Nothing but that it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDone {
    /// 200.
    pub status: u16,
}

const DONE: Json<WebhookDone> = Json(WebhookDone { status: 200 });

fn stream(status: &StreamStatus) -> WebhookStream {
    let logged = status.logged.as_ref();
    WebhookStream {
        event: status.event.name(),
        position: logged.map(|logged| logged.position.get()),
        head: logged.map(|logged| logged.head.get()),
        lag_messages: logged.map_or(status.waiting, |logged| logged.lag_messages),
        lag_is_more: logged.is_some_and(|logged| logged.lag_is_more),
        lag_ms: logged.map_or(0, |logged| logged.lag_ms),
        paused: logged.is_some_and(|logged| logged.paused),
        lost: logged.and_then(|logged| logged.lost.clone()),
        dropped: logged.is_none().then_some(status.dropped),
        attempts: status.attempts,
        failures: status.failures,
        told: status.told,
        failing: status.failing.as_ref().map(|failing| WebhookFailing {
            since_ms: failing.since_ms,
            attempts: failing.attempts,
            error: failing.error.clone(),
            next_ms: failing.next_ms,
        }),
    }
}

fn shown(endpoint: &EndpointStatus) -> WebhookBody {
    let spec = &endpoint.spec;
    WebhookBody {
        name: spec.name.clone(),
        url: spec.shown_url(),
        events: spec.events.iter().map(|event| event.name()).collect(),
        signed: spec.secret.is_some(),
        namespace: spec.namespace.clone(),
        streams: endpoint.streams.iter().map(stream).collect(),
    }
}

fn event_of(name: Option<&str>) -> Result<Option<Event>, Refusal> {
    name.map(Event::of).transpose()
}

/// An endpoint tells of everything in a namespace, and of all endpoints: a key bound to one namespace sees none of it.
fn admin(auth: &Auth) -> Result<(), Problem> {
    auth.key_with(Needs::Admin)?;
    match auth {
        Auth::Known(Identity::Key { namespace: Some(_), .. }) => {
            Err(Refusal::Forbidden { action: "administer webhooks with a key bound to a namespace" }.into())
        }
        _ => Ok(()),
    }
}

/// The webhook endpoints, with how far each was told.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    get, path = "/admin/webhooks", tag = "admin",
    responses((status = 200, body = WebhookList), (status = "default", body = ErrorBody))
)]
async fn list(State(state): State<Arc<HttpState>>, auth: Auth) -> Result<Json<WebhookList>, Problem> {
    admin(&auth)?;
    let webhooks = state.webhooks.status().await?;
    Ok(Json(WebhookList { status: 200, webhooks: webhooks.iter().map(shown).collect() }))
}

/// Makes a webhook endpoint.
///
/// The answer holds the key its calls are signed with, this once. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    post, path = "/admin/webhooks", tag = "admin", request_body = WebhookCreate,
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn create(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<WebhookCreate>,
) -> Result<Json<WebhookAnswer>, Problem> {
    admin(&auth)?;
    let mut events = Vec::new();
    for name in &body.events {
        let event = Event::of(name)?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    let secret = match body.secret {
        Some(given) => given,
        None => mint_secret("webhook").map_err(|error| {
            tracing::error!(%error, "cannot make a signing key");
            Refusal::Internal
        })?,
    };
    let spec = EndpointSpec {
        name: body.name,
        url: body.url,
        events,
        secret: Some(secret.clone()),
        namespace: body.namespace,
        batch_max: body.batch_max,
        batch_bytes_max: body.batch_bytes_max,
        push_interval_ms: body.push_interval_ms,
        timeout_ms: body.timeout_ms,
    };
    let made = state.webhooks.create(spec, body.from_version.map(Version::new)).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&made), secret: Some(secret) }))
}

/// One webhook endpoint, with how far it was told.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    get, path = "/admin/webhooks/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn show(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
) -> Result<Json<WebhookAnswer>, Problem> {
    admin(&auth)?;
    let found = state.webhooks.status_of(&name).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&found), secret: None }))
}

/// Removes a webhook endpoint.
///
/// How far it was told and what was parked is forgotten. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    delete, path = "/admin/webhooks/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn remove(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    state.webhooks.remove(&name).await?;
    Ok(DONE)
}

/// Moves a webhook endpoint to a version, back or forth.
///
/// Messages above that version are told, again if they were. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/rewind", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookRewind,
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn rewind(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
    Body(body): Body<WebhookRewind>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    state.webhooks.seek(&name, event_of(body.event.as_deref())?, Version::new(body.version)).await?;
    Ok(DONE)
}

/// Leaves out the next messages of a webhook endpoint.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/skip", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookSkip,
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn skip(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
    Body(body): Body<WebhookSkip>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    if !(1..=SKIP_MAX).contains(&body.messages) {
        return Err(Refusal::invalid("messages", format_args!("is not 1 to {SKIP_MAX}; rewind leaves out more")).into());
    }
    state.webhooks.skip(&name, event_of(body.event.as_deref())?, body.messages).await?;
    Ok(DONE)
}

/// Stops telling a webhook endpoint.
///
/// Also over restarts. Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/pause", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookWhich,
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn pause(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
    Body(body): Body<WebhookWhich>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    state.webhooks.pause(&name, event_of(body.event.as_deref())?, true).await?;
    Ok(DONE)
}

/// Goes on telling a webhook endpoint, from where it stopped.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/resume", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookWhich,
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn resume(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
    Body(body): Body<WebhookWhich>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    state.webhooks.pause(&name, event_of(body.event.as_deref())?, false).await?;
    Ok(DONE)
}

/// Messages that a webhook endpoint would not take.
///
/// Only with `webhook.dead_after_attempts` is anything parked. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    get, path = "/admin/webhooks/{name}/dead", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookDeadList), (status = "default", body = ErrorBody))
)]
async fn dead(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
) -> Result<Json<WebhookDeadList>, Problem> {
    admin(&auth)?;
    let dead = state.webhooks.dead(&name).await?.into_iter().map(|(event, letter)| WebhookDead {
        event: event.name(),
        message_id: letter.message_id,
        channel_id: letter.channel_id,
        channel_type: letter.channel_type,
        message_seq: letter.message_seq,
        attempts: letter.attempts,
        error: letter.error,
        parked_at_ms: letter.parked_at_ms,
    });
    Ok(Json(WebhookDeadList { status: 200, dead: dead.collect() }))
}

/// Forgets the messages that a webhook endpoint would not take.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    delete, path = "/admin/webhooks/{name}/dead", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn clear_dead(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(name): Path<String>,
) -> Result<Json<WebhookDone>, Problem> {
    admin(&auth)?;
    state.webhooks.clear_dead(&name).await?;
    Ok(DONE)
}
