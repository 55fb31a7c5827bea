//! Request and response: the HTTP API on its own listener.
//!
//! Owns routing, limits, request ids, authentication by header and the voices of errors ([`envelope`]). Knows the hub's
//! handle and the domain's words; refuses to know the store, sockets of the gateway, or a rule that two dialects share.
//! Invariants: every answer has an `x-request-id`; every answer that is no success, 404, 413 and 500 included, has the
//! envelope of its path; every route but those of [`ops`] that hold no data wants a credential.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};
use tracing::Instrument;
use utoipa_axum::router::OpenApiRouter;

use crate::config::Config;
use crate::credentials::{Credentials, RootKeySource};
use crate::hub::Hub;
use crate::metrics::Metrics;

pub mod admin;
pub mod dialects;
pub mod envelope;
pub mod extract;
pub mod message;
pub mod names;
pub mod ops;
pub mod problem;
pub mod reference;
mod server;

use envelope::{Envelope, Plain};
use problem::Problem;
pub use server::HttpServer;

/// The header that names a request, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The version a conversation/sync answered at.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("x-chinwag-version");
/// `1` when the version of a conversation/sync was not known and everything was answered.
pub const RESET_HEADER: HeaderName = HeaderName::from_static("x-chinwag-reset");
/// Longest request id taken from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What handlers work with.
pub struct HttpState {
    /// The hub.
    pub hub: Hub,
    /// Recognises credentials.
    pub credentials: Arc<Credentials>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    pub(crate) conversation: crate::config::Conversation,
    pub(crate) body_bytes_max: usize,
    pub(crate) connections_max: usize,
    request_timeout: Duration,
    pub(crate) data_dir: PathBuf,
    pub(crate) root_key: RootKeySource,
    /// The API's document as JSON, made once.
    pub(crate) document: bytes::Bytes,
}

impl HttpState {
    /// Takes its part of the settings by value.
    #[must_use]
    pub fn new(
        hub: Hub,
        credentials: Arc<Credentials>,
        metrics: Arc<Metrics>,
        config: &Config,
        root_key: RootKeySource,
    ) -> Self {
        Self {
            hub,
            credentials,
            metrics,
            conversation: config.conversation.clone(),
            body_bytes_max: config.http.body_bytes_max,
            connections_max: config.http.connections_max,
            request_timeout: Duration::from_millis(config.http.request_timeout_ms),
            data_dir: config.data_dir.clone(),
            root_key,
            document: openapi().to_json().map(bytes::Bytes::from).unwrap_or_default(),
        }
    }
}

/// All routes with their documentation. A dialect is one line here.
fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::with_openapi(ops::document())
        .merge(dialects::conversation::routes())
        .merge(reference::routes())
        .merge(admin::routes())
        .merge(ops::routes())
}

/// The API as a service.
pub fn router(state: Arc<HttpState>) -> Router {
    let (router, _) = routes().split_for_parts();
    under_edge(router, &state).with_state(state)
}

/// Puts routes under what holds for all requests.
fn under_edge(router: Router<Arc<HttpState>>, state: &Arc<HttpState>) -> Router<Arc<HttpState>> {
    router
        .fallback(async || Problem::NoSuchPath)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), edge))
        .layer(cors())
}

/// The document of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().split_for_parts().1
}

/// Browsers of any origin may call: what opens the API is a credential in a header, which no browser adds by itself
/// (wukongim-http.md section 1).
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
        .expose_headers(ExposeHeaders::list([REQUEST_ID, VERSION_HEADER, RESET_HEADER]))
        .max_age(Duration::from_secs(86_400))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("not a text"), "a handler panicked");
    Problem::Panicked.into_response()
}

/// The class of a path: the label of metrics, with few values.
fn class_of(path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "conversation" | "conversations" => "conversation",
        "user" => "user",
        "channel" => "channel",
        "message" => "message",
        "admin" => "admin",
        "health" | "healthz" | "readyz" | "metrics" | "openapi.json" | "docs" => "ops",
        _ => "unknown",
    }
}

/// The voice of a path. Every path speaks the same one until dialects with their own come.
fn voice_of(_path: &str) -> &'static dyn Envelope {
    &Plain
}

/// Everything that holds for all requests: id, span, time limit, the envelope of what failed, metrics.
async fn edge(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = request_id(&request);
    let path = request.uri().path();
    let (route, voice) = (class_of(path), voice_of(path));
    let span = tracing::info_span!(
        "request",
        request.id = request_id.to_str().unwrap_or_default(),
        method = %request.method(),
        route,
    );
    async {
        let mut response = match tokio::time::timeout(state.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::TimedOut.into_response(),
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            state.metrics.refused(problem.code());
            log_problem(&problem);
            let rendered = voice.problem(&problem, request_id.to_str().unwrap_or_default());
            // A 405 lists the methods there are.
            let allow = response.headers().get(axum::http::header::ALLOW).cloned();
            response = rendered;
            if let Some(allow) = allow {
                response.headers_mut().insert(axum::http::header::ALLOW, allow);
            }
        }
        let elapsed_ms = began.elapsed().as_secs_f64() * 1_000.0;
        state.metrics.http_answered(route, response.status().as_u16());
        state.metrics.http_ms.observe(elapsed_ms);
        tracing::debug!(status = response.status().as_u16(), elapsed_us = began.elapsed().as_micros(), "answered");
        response.headers_mut().insert(REQUEST_ID, request_id.clone());
        response
    }
    .instrument(span)
    .await
}

/// The caller's id when it is short and printable, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().simple().to_string();
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// A caller's mistake is worth a line only to who debugs; the server's own are for the operator. What says when to try again
/// was told once by whoever cannot work now, not once per request.
fn log_problem(problem: &Problem) {
    if problem.status().is_server_error() && problem.retry_after_ms().is_none() {
        tracing::warn!(code = problem.code(), text = problem.text(), "request failed");
    } else {
        tracing::debug!(code = problem.code(), text = problem.text(), "request refused");
    }
}

#[cfg(test)]
mod tests;
