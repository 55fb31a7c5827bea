//! How this dialect says no: `{code, desc, data: null}`, with HTTP 200 unless the configuration wants real statuses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::wire::{Nothing, Refused};
use crate::http::envelope::{Envelope, with_headers_of};
use crate::http::problem::Problem;
use crate::voices::RelationCode;

/// Speaks [`Refused`].
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// `relation.http_errors`.
    pub http_errors: bool,
}

/// With HTTP 200 for everything a route answers.
pub static IN_BODY: Voice = Voice { http_errors: false };
/// With the status of the refusal.
pub static IN_STATUS: Voice = Voice { http_errors: true };

impl Envelope for Voice {
    fn problem(&self, problem: &Problem, request_id: &str) -> Response {
        let RelationCode { code, desc } = problem.voice().relation;
        let status = match problem {
            // What is no route of this API is HTTP's to refuse, whatever clients of the API expect.
            Problem::NoSuchPath | Problem::MethodNotAllowed => problem.status(),
            _ if self.http_errors => problem.status(),
            _ => StatusCode::OK,
        };
        let body = Refused {
            code: code.to_owned(),
            desc: format!("{desc}: {}", problem.text()),
            data: None::<Nothing>,
            field: problem.field().map(str::to_owned),
            retry_after_ms: problem.retry_after_ms(),
            request_id: request_id.to_owned(),
        };
        with_headers_of(problem, (status, Json(body)).into_response())
    }
}
