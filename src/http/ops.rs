//! What operators and their tools ask: health, readiness, metrics, the API's own document.
//!
//! Invariant: what needs no credential here (health, readiness, the document) holds no data of users and no figures.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::envelope::ErrorBody;
use super::extract::{Auth, Needs};
use super::problem::Problem;

/// The routes of this file that need a router with documentation.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
        .routes(routes!(docs))
}

/// The head of the API's document.
#[must_use]
pub fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Chinwag")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Messages, conversations and users over HTTP. Every route but health, readiness and this document needs a \
             credential: an API key (any user, as far as its scopes go) or a user's own token. Errors have one shape, \
             `ErrorBody`. The live stream is a WebSocket, see docs/wire.md.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").build()))
        .build();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("token")));
    let components = ComponentsBuilder::new().security_scheme("bearer", bearer).security_scheme("token", token).build();
    let either =
        [SecurityRequirement::new::<_, _, &str>("bearer", []), SecurityRequirement::new::<_, _, &str>("token", [])];
    OpenApiBuilder::new().info(info).components(Some(components)).security(Some(either)).build()
}

/// Whether the process answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
    /// Why not, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether the process answers. WuKongIM v2's path of `/healthz`.
#[utoipa::path(get, path = "/health", tag = "operations", security(()), responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health { status: "ok", reason: None })
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses((status = 200, body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", reason: None })
}

/// Whether the server does its work: store open, committer alive, below its limits, not draining.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
async fn readyz(State(state): State<Arc<HttpState>>) -> Response {
    match state.hub.readiness() {
        Ok(()) => Json(Health { status: "ok", reason: None }).into_response(),
        Err(reason) => {
            let body = Json(Health { status: "not ready", reason: Some(reason.into_owned()) });
            (axum::http::StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Figures for Prometheus.
///
/// Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"), (status = "default", body = ErrorBody))
)]
async fn metrics(State(state): State<Arc<HttpState>>, auth: Auth) -> Result<Response, Problem> {
    auth.key_with(Needs::Read)?;
    state.webhooks.refresh_metrics().await;
    let text = state.metrics.render(&state.hub.store_stats(), state.hub.readiness().is_ok());
    let content_type = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    Ok((content_type, text).into_response())
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, body = Object, content_type = "application/json"))
)]
async fn openapi(State(state): State<Arc<HttpState>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.document.clone()).into_response()
}

/// A page for people who open the API in a browser.
#[utoipa::path(
    get, path = "/docs", tag = "operations", security(()),
    responses((status = 200, body = String, content_type = "text/html"))
)]
async fn docs() -> Html<&'static str> {
    Html(
        "<!doctype html><meta charset=utf-8><title>Chinwag</title><h1>Chinwag</h1>\
         <p>The routes of this server are described in <a href=openapi.json>openapi.json</a> (OpenAPI 3.1): open it with \
         any OpenAPI viewer. The WebSocket protocol is described in <code>docs/wire.md</code> of the sources.",
    )
}
