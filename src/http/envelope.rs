//! How a dialect says no. Tiny, because shared middleware must speak in that voice too: 404, 413, timeouts and panics come
//! out of the same envelope as refusals.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;

/// The voice of a dialect.
pub trait Envelope: Send + Sync + 'static {
    /// The answer to a request that was not carried out. The edge adds `x-request-id`.
    fn problem(&self, problem: &Problem, request_id: &str) -> Response;
}

/// The error body of WuKongIM's API and of the server's own routes: the union of WuKongIM's two forms (`{msg, status}` and
/// `{error}`, wukongim-http.md section 15, 2) with what a caller needs to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The HTTP status again.
    pub status: u16,
    /// What is wrong, for people.
    pub msg: String,
    /// The same as `msg`.
    pub error: String,
    /// What is wrong, for programs: a stable word.
    pub code: String,
    /// The field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// The request's id, as in the header `x-request-id` and in the server's log.
    pub request_id: String,
}

/// Speaks [`ErrorBody`].
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    /// With the status 400 whatever is wrong, as WuKongIM (`wukong.api_errors_400`).
    pub only_400: bool,
}

impl Envelope for Plain {
    fn problem(&self, problem: &Problem, request_id: &str) -> Response {
        let status = if self.only_400 { StatusCode::BAD_REQUEST } else { problem.status() };
        let text = problem.text();
        let body = ErrorBody {
            status: status.as_u16(),
            msg: text.clone(),
            error: text,
            code: problem.code().to_owned(),
            field: problem.field().map(str::to_owned),
            retry_after_ms: problem.retry_after_ms(),
            request_id: request_id.to_owned(),
        };
        with_headers_of(problem, (status, Json(body)).into_response())
    }
}

/// Adds the headers that HTTP itself wants beside a refusal, whatever the envelope: `Retry-After` and `WWW-Authenticate`.
#[must_use]
pub fn with_headers_of(problem: &Problem, mut response: Response) -> Response {
    if let Some(ms) = problem.retry_after_ms() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
    }
    if problem.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Success without data, as WuKongIM says it: `{"status":200}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// 200.
    pub status: u16,
}

/// `{"status":200}`.
pub const DONE: Done = Done { status: 200 };
