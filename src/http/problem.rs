//! What can be wrong with a request, before anybody has said how to say it.
//!
//! Owns [`Problem`] and its HTTP status. Refuses to know envelopes: a handler answers a problem, the middleware
//! `super::edge` gives it the voice of the request's dialect. Invariant: every answer that is no success carries a
//! `Problem` in its extensions until the edge has rendered it.

use axum::http::header::CONTENT_RANGE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::refusal::{ErrorKind, Refusal};

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The rules said no.
    Refused(Refusal),
    /// The body or query is not what the route takes.
    Malformed {
        /// Dotted path to the field; `body` for the whole.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body is larger than the limit.
    BodyTooLarge {
        /// The limit.
        max: usize,
    },
    /// The body ended early or was not sent in time.
    BodyBroken,
    /// The range asked for lies beyond the end.
    RangeNotSatisfiable {
        /// Bytes there are.
        size: u64,
    },
    /// No route has this path.
    NoSuchPath,
    /// The path has no such method.
    MethodNotAllowed,
    /// The request took longer than the limit.
    TimedOut,
    /// A handler panicked.
    Panicked,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Problem {
    /// A field of a body or query that is wrong.
    #[must_use]
    pub fn malformed(field: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { field: field.into(), reason: reason.to_string() }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => status_of(refusal.kind()),
            Self::Malformed { .. } | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable code; for refusals that of the native wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Malformed { .. } => "invalid",
            Self::BodyTooLarge { .. } => "too_large",
            Self::BodyBroken => "body_broken",
            Self::RangeNotSatisfiable { .. } => "range_not_satisfiable",
            Self::NoSuchPath => "no_such_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "internal",
        }
    }

    /// What the caller reads.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::Malformed { field, reason } => format!("{field}: {reason}"),
            Self::BodyTooLarge { max } => format!("the body is larger than {max} bytes"),
            Self::BodyBroken => "the body ended before it was complete".into(),
            Self::RangeNotSatisfiable { size } => format!("the range lies beyond the end, there are {size} bytes"),
            Self::NoSuchPath => "no such path, see /openapi.json".into(),
            Self::MethodNotAllowed => "this path does not take this method, see /openapi.json".into(),
            Self::TimedOut => "the request took too long; what it began may still be carried out".into(),
            Self::Panicked => "internal error".into(),
        }
    }

    /// The field it is about.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.field(),
            Self::Malformed { field, .. } => Some(field),
            Self::BodyTooLarge { .. } => Some("body"),
            _ => None,
        }
    }

    /// When to try again, for what time mends.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u32> {
        match self {
            Self::Refused(refusal) => refusal.retry_after_ms(),
            Self::TimedOut => Some(1_000),
            _ => None,
        }
    }
}

/// The HTTP status of a class of refusals.
#[must_use]
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    /// A bare status with the problem in the extensions; `super::edge` fills the body.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if let Self::RangeNotSatisfiable { size } = self
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}
