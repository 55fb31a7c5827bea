//! The administration of webhooks: endpoints, how far they were told, and what to do about it. The words of these routes are
//! Chinwag's, nobody else's.
//!
//! Every route has one shape: the extractor `Hooks` or `Hook` has let the caller in, the room's verb does it, [`wire`] shows what
//! came of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use protocol::ids::Version;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::envelope::ErrorBody;
use super::extract::{Auth, Body, Needs};
use super::problem::Problem;
use crate::clock;
use crate::credentials::mint_secret;
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::webhook::Webhooks;
use crate::webhook::endpoint::{Change, EndpointSpec, Event};

pub mod wire;

use wire::{
    WebhookAnswer, WebhookCreate, WebhookDeadList, WebhookDone, WebhookEdit, WebhookList, WebhookRewind, WebhookRotate,
    WebhookSkip, WebhookWhich, dead, shown,
};

/// Most messages one request may skip.
const SKIP_MAX: usize = 10_000;
/// How long a signing key that is replaced signs too, when the request does not say.
const OVERLAP_MS: u64 = 24 * 60 * 60 * 1_000;
/// The longest it may.
const OVERLAP_MS_MAX: u64 = 30 * OVERLAP_MS;

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, edit, remove))
        .routes(routes!(rotate))
        .routes(routes!(retire))
        .routes(routes!(rewind))
        .routes(routes!(skip))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(parked, clear_parked))
}

type Answer<T> = Result<Json<T>, Problem>;

const DONE: Json<WebhookDone> = Json(WebhookDone { status: 200 });

/// The webhooks, for who may administer them: an endpoint tells of everything in a namespace, and the list of all endpoints,
/// so a key bound to one namespace sees none of it.
struct Hooks(Webhooks);

impl FromRequestParts<Arc<HttpState>> for Hooks {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let auth = Auth::from_request_parts(parts, state).await?;
        auth.key_with(Needs::Admin)?;
        if let Auth::Known(Identity::Key { namespace: Some(_), .. }) = auth {
            return Err(Refusal::Forbidden { action: "administer webhooks with a key bound to a namespace" }.into());
        }
        Ok(Self(state.webhooks.clone()))
    }
}

/// As [`Hooks`], with the endpoint that the path names, which may be none.
struct Hook {
    all: Webhooks,
    name: String,
}

impl FromRequestParts<Arc<HttpState>> for Hook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let Hooks(all) = Hooks::from_request_parts(parts, state).await?;
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| Refusal::NotFound { what: "webhook endpoint" })?;
        Ok(Self { all, name })
    }
}

fn event_of(name: Option<&str>) -> Result<Option<Event>, Refusal> {
    name.map(Event::of).transpose()
}

/// Events by their names, each once.
fn events_of(names: &[String]) -> Result<Vec<Event>, Refusal> {
    let mut events = Vec::new();
    for name in names {
        let event = Event::of(name)?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    Ok(events)
}

/// The key that was given, or a new one.
fn key_or_new(given: Option<String>) -> Result<String, Refusal> {
    given.map_or_else(|| mint_secret("webhook"), Ok).map_err(|error| {
        tracing::error!(%error, "cannot make a signing key");
        Refusal::Internal
    })
}

/// The webhook endpoints, with how far each was told.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    get, path = "/admin/webhooks", tag = "admin",
    responses((status = 200, body = WebhookList), (status = "default", body = ErrorBody))
)]
async fn list(Hooks(all): Hooks) -> Answer<WebhookList> {
    let webhooks = all.status().await?;
    Ok(Json(WebhookList { status: 200, webhooks: webhooks.iter().map(shown).collect() }))
}

/// Makes a webhook endpoint.
///
/// The answer holds the key its calls are signed with, this once. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    post, path = "/admin/webhooks", tag = "admin",
    request_body = WebhookCreate,
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn create(Hooks(all): Hooks, Body(body): Body<WebhookCreate>) -> Answer<WebhookAnswer> {
    let secret = key_or_new(body.secret)?;
    let spec = EndpointSpec {
        name: body.name,
        url: body.url,
        events: events_of(&body.events)?,
        secret: Some(secret.clone()),
        old_keys: Vec::new(),
        namespace: body.namespace,
        batch_max: body.batch_max,
        batch_bytes_max: body.batch_bytes_max,
        push_interval_ms: body.push_interval_ms,
        timeout_ms: body.timeout_ms,
    };
    let made = all.create(spec, body.from_version.map(Version::new)).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&made), secret: Some(secret) }))
}

/// One webhook endpoint, with how far it was told.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    get, path = "/admin/webhooks/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn show(hook: Hook) -> Answer<WebhookAnswer> {
    let found = hook.all.status_of(&hook.name).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&found), secret: None }))
}

/// Changes a webhook endpoint, which keeps its positions.
///
/// What the body does not name stays as it is. The next call is made as changed, at once where the last one failed. Needs an
/// API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    patch, path = "/admin/webhooks/{name}", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookEdit,
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn edit(hook: Hook, Body(body): Body<WebhookEdit>) -> Answer<WebhookAnswer> {
    let change = Change {
        url: body.url,
        events: body.events.as_deref().map(events_of).transpose()?,
        batch_max: body.batch_max,
        batch_bytes_max: body.batch_bytes_max,
        push_interval_ms: body.push_interval_ms,
        timeout_ms: body.timeout_ms,
    };
    let changed = hook.all.change(&hook.name, change, body.from_version.map(Version::new)).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&changed), secret: None }))
}

/// Removes a webhook endpoint.
///
/// How far it was told and what was parked is forgotten. Needs an API key with the scope admin that is bound to no
/// namespace.
#[utoipa::path(
    delete, path = "/admin/webhooks/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn remove(hook: Hook) -> Answer<WebhookDone> {
    hook.all.remove(&hook.name).await?;
    Ok(DONE)
}

/// Signs the calls of a webhook endpoint with a new key.
///
/// The answer holds it, this once. The present key signs too for `overlap_ms`: calls then have a signature of each, and a
/// receiver that knows either takes them. Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/rotate", tag = "admin", params(("name" = String, Path)),
    request_body = WebhookRotate,
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn rotate(hook: Hook, Body(body): Body<WebhookRotate>) -> Answer<WebhookAnswer> {
    let overlap_ms = body.overlap_ms.unwrap_or(OVERLAP_MS);
    if overlap_ms > OVERLAP_MS_MAX {
        return Err(Refusal::invalid("overlap_ms", format_args!("is not 0 to {OVERLAP_MS_MAX}")).into());
    }
    let secret = key_or_new(body.secret)?;
    let rotated = hook.all.rotate(&hook.name, secret.clone(), clock::now_ms() + overlap_ms).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&rotated), secret: Some(secret) }))
}

/// Ends the time of the older keys of a webhook endpoint: the present one alone signs.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    post, path = "/admin/webhooks/{name}/retire", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ErrorBody))
)]
async fn retire(hook: Hook) -> Answer<WebhookAnswer> {
    let retired = hook.all.retire(&hook.name).await?;
    Ok(Json(WebhookAnswer { status: 200, webhook: shown(&retired), secret: None }))
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
async fn rewind(hook: Hook, Body(body): Body<WebhookRewind>) -> Answer<WebhookDone> {
    hook.all.seek(&hook.name, event_of(body.event.as_deref())?, Version::new(body.version)).await?;
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
async fn skip(hook: Hook, Body(body): Body<WebhookSkip>) -> Answer<WebhookDone> {
    if !(1..=SKIP_MAX).contains(&body.messages) {
        return Err(Refusal::invalid("messages", format_args!("is not 1 to {SKIP_MAX}; rewind leaves out more")).into());
    }
    hook.all.skip(&hook.name, event_of(body.event.as_deref())?, body.messages).await?;
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
async fn pause(hook: Hook, Body(body): Body<WebhookWhich>) -> Answer<WebhookDone> {
    hook.all.pause(&hook.name, event_of(body.event.as_deref())?, true).await?;
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
async fn resume(hook: Hook, Body(body): Body<WebhookWhich>) -> Answer<WebhookDone> {
    hook.all.pause(&hook.name, event_of(body.event.as_deref())?, false).await?;
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
async fn parked(hook: Hook) -> Answer<WebhookDeadList> {
    let parked = hook.all.dead(&hook.name).await?;
    Ok(Json(WebhookDeadList { status: 200, dead: parked.into_iter().map(dead).collect() }))
}

/// Forgets the messages that a webhook endpoint would not take.
///
/// Needs an API key with the scope admin that is bound to no namespace.
#[utoipa::path(
    delete, path = "/admin/webhooks/{name}/dead", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = WebhookDone), (status = "default", body = ErrorBody))
)]
async fn clear_parked(hook: Hook) -> Answer<WebhookDone> {
    hook.all.clear_dead(&hook.name).await?;
    Ok(DONE)
}
