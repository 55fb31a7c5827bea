//! Request and response: the HTTP API on its own listener.
//!
//! Owns routing, limits, request ids, authentication by header and the voices of errors ([`envelope`]). Knows the hub's
//! handle and the domain's words; refuses to know the store, sockets of the gateway, or a rule that two dialects share.
//! Invariants: every answer has an `x-request-id`; every answer that is no success, 404, 413 and 500 included, has the
//! envelope of its path; every route but those of [`ops`] that hold no data wants a credential.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
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
use crate::proxies::Proxies;
use crate::webhook::Webhooks;

pub mod admin;
pub mod caller;
pub mod dialects;
mod document;
pub mod envelope;
pub mod extract;
pub mod features;
pub mod files;
pub mod loose;
pub mod message;
pub mod names;
pub mod ops;
pub mod pages;
pub mod problem;
pub mod reference;
mod server;
pub mod webhooks;

use envelope::{Envelope, Plain};
use problem::Problem;
pub use server::HttpServer;

/// The header that names a request, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The version a conversation/sync answered at.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("x-chinwag-version");
/// `1` when the version of a conversation/sync was not known and everything was answered.
pub const RESET_HEADER: HeaderName = HeaderName::from_static("x-chinwag-reset");
/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

/// Longest request id taken from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// How many times `http.request_timeout_ms` an upload may take: an hour by default.
const UPLOAD_TIMEOUTS_MAX: u32 = 120;

/// What handlers work with.
pub struct HttpState {
    /// The hub.
    pub hub: Hub,
    /// Recognises credentials.
    pub credentials: Arc<Credentials>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Endpoints that are told.
    pub(crate) webhooks: Webhooks,
    pub(crate) conversation: crate::config::Conversation,
    pub(crate) wukong: crate::config::Wukong,
    pub(crate) external: crate::config::External,
    /// Where sockets listen.
    pub(crate) socket_addr: SocketAddr,
    /// Whose word about a caller's address is taken.
    pub(crate) proxies: Proxies,
    /// Where this API is configured to listen.
    pub(crate) http_addr: SocketAddr,
    /// When the server began.
    pub(crate) began: Instant,
    pub(crate) body_bytes_max: usize,
    pub(crate) connections_max: usize,
    request_timeout: Duration,
    relation_http_errors: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) root_key: RootKeySource,
    /// The API's document as JSON, made once.
    pub(crate) document: bytes::Bytes,
}

impl HttpState {
    /// Who WuKongIM's routes show messages to.
    pub(crate) fn asker<'a>(&self, uid: &'a str) -> message::Asker<'a> {
        message::Asker { uid, blank_system: self.wukong.blank_system_uid }
    }

    /// Takes its part of the settings by value.
    #[must_use]
    pub fn new(
        hub: Hub,
        credentials: Arc<Credentials>,
        metrics: Arc<Metrics>,
        webhooks: Webhooks,
        config: &Config,
        root_key: RootKeySource,
    ) -> Self {
        Self {
            hub,
            credentials,
            metrics,
            webhooks,
            conversation: config.conversation.clone(),
            wukong: config.wukong.clone(),
            external: config.external.clone(),
            socket_addr: config.listen.socket,
            // Settings that were checked hold a list that can be read; of any other nobody is trusted.
            proxies: config.listen.proxies().unwrap_or_default(),
            http_addr: config.listen.http,
            began: Instant::now(),
            body_bytes_max: config.http.body_bytes_max,
            connections_max: config.http.connections_max,
            request_timeout: Duration::from_millis(config.http.request_timeout_ms),
            relation_http_errors: config.relation.http_errors,
            data_dir: config.data_dir.clone(),
            root_key,
            document: bytes::Bytes::from(openapi().to_string()),
        }
    }
}

/// The parts of the API with their documentation, dialects with the name that their schemas carry. A dialect is one line
/// here.
fn parts() -> [(&'static str, OpenApiRouter<Arc<HttpState>>); 11] {
    [
        ("chats", dialects::chats::routes()),
        ("m3o", dialects::m3o::routes()),
        ("relation", dialects::relation::routes()),
        ("threads", dialects::threads::routes()),
        ("", dialects::conversation::routes()),
        ("", reference::routes()),
        ("", features::routes()),
        ("", files::routes()),
        ("", admin::routes()),
        ("", webhooks::routes()),
        ("", ops::routes()),
    ]
}

/// All routes.
fn routes() -> Router<Arc<HttpState>> {
    parts().into_iter().fold(Router::new(), |all, (_, part)| all.merge(Router::from(part)))
}

/// The API as a service.
pub fn router(state: Arc<HttpState>) -> Router {
    under_edge(routes(), &state).with_state(state)
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

/// The document of the API, as JSON.
#[must_use]
pub fn openapi() -> serde_json::Value {
    let parts = parts();
    document::of_parts(&ops::document(), parts.iter().map(|(dialect, part)| (*dialect, part.get_openapi())))
}

/// Browsers of any origin may call: what opens the API is a credential in a header, which no browser adds by itself
/// (wukongim-http.md section 1).
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods(AllowMethods::list([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]))
        .expose_headers(ExposeHeaders::list([
            REQUEST_ID,
            VERSION_HEADER,
            RESET_HEADER,
            header::CONTENT_RANGE,
            header::CONTENT_DISPOSITION,
            header::ETAG,
        ]))
        .max_age(Duration::from_secs(86_400))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("not a text"), "a handler panicked");
    Problem::Panicked.into_response()
}

/// The class of a path: the label of metrics, with few values.
fn class_of(path: &str) -> &'static str {
    let mut parts = path.trim_start_matches('/').split('/');
    match parts.next().unwrap_or_default() {
        "api" => match (parts.next(), parts.next()) {
            (Some("v1"), Some("chat")) => "threads",
            (Some("v1"), Some("files")) => "files",
            (Some("v1"), Some("auth" | "message" | "chats" | "requests" | "groups" | "settings" | "contacts")) => {
                "relation"
            }
            _ => "unknown",
        },
        "chats" => "chats",
        "chat" => "m3o",
        "conversation" | "conversations" => "conversation",
        "user" => "user",
        "channel" | "tmpchannel" => "channel",
        "message" | "messages" | "streammessage" => "message",
        "route" | "varz" | "connz" | "conn" | "system" => "wukong",
        "admin" => "admin",
        "health" | "healthz" | "readyz" | "metrics" | "openapi.json" | "docs" => "ops",
        _ => "unknown",
    }
}

/// The voice of a path, by its class.
fn voice_of(state: &HttpState, class: &str, path: &str) -> &'static dyn Envelope {
    match class {
        "chats" => &dialects::chats::Voice,
        "threads" => &dialects::threads::Voice,
        "m3o" => dialects::m3o::voice_of(path),
        "relation" if state.relation_http_errors => &dialects::relation::IN_STATUS,
        "relation" => &dialects::relation::IN_BODY,
        _ if state.wukong.api_errors_400 && reference::table::is_theirs(path) => &Plain { only_400: true },
        _ => &Plain { only_400: false },
    }
}

/// Everything that holds for all requests: id, span, time limit, the envelope of what failed, metrics.
async fn edge(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = request_id(&request);
    let path = request.uri().path();
    let route = class_of(path);
    let voice = voice_of(&state, route, path);
    // An upload takes as long as its bytes do; its handler bounds their silence instead.
    let is_upload = route == "files" && request.method() == Method::POST;
    let timeout = if is_upload { state.request_timeout * UPLOAD_TIMEOUTS_MAX } else { state.request_timeout };
    let span = tracing::info_span!(
        "request",
        request.id = request_id.to_str().unwrap_or_default(),
        method = %request.method(),
        route,
    );
    async {
        let mut response = if is_blocked(&state, &request) {
            // As WuKongIM answers it: nothing but the status.
            StatusCode::FORBIDDEN.into_response()
        } else {
            match tokio::time::timeout(timeout, next.run(request)).await {
                Ok(response) => response,
                Err(_) => Problem::TimedOut.into_response(),
            }
        };
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            state.metrics.refused(problem.code());
            log_problem(&problem);
            let rendered = voice.problem(&problem, request_id.to_str().unwrap_or_default());
            // A 405 lists the methods there are, a 416 says how much there is.
            let kept = [header::ALLOW, header::CONTENT_RANGE].map(|name| (response.headers_mut().remove(&name), name));
            response = rendered;
            for (value, name) in kept {
                if let Some(value) = value {
                    response.headers_mut().insert(name, value);
                }
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

/// Whether a trusted proxy says that the request comes from a blocked address. The peer's own address was looked at when its
/// connection was accepted.
fn is_blocked(state: &HttpState, request: &Request) -> bool {
    let Some(Peer(peer)) = request.extensions().get().copied() else { return false };
    let values = request.headers().get_all("x-forwarded-for");
    let client = state.proxies.client_of(peer, values.iter().map(HeaderValue::as_bytes));
    client != peer && state.hub.is_address_blocked(client)
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
