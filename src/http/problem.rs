//! What can be wrong with a request, before anybody has said how to say it.
//!
//! Owns [`Problem`]; how it is said is a row of [`crate::voices`]. Refuses to know envelopes: a handler answers a problem, the middleware
//! `super::edge` gives it the voice of the request's dialect. Invariant: every answer that is no success carries a
//! `Problem` in its extensions until the edge has rendered it.

use axum::http::header::CONTENT_RANGE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::domain::refusal::Refusal;
use crate::voices::{self, Voice};

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
    /// The credential opens nothing, and says of itself that its time is over.
    CredentialExpired,
    /// The header that names the application (`ApiKey` of relation.txt) is missing, or names none.
    ApplicationUnknown {
        /// Whether there was one.
        given: bool,
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
    /// A route of WuKongIM's that this server does not have.
    NotSupported {
        /// Why, or what to use instead.
        note: &'static str,
    },
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

    /// How every dialect says it.
    #[must_use]
    pub fn voice(&self) -> Voice {
        match self {
            Self::Refused(refusal) => voices::of(refusal),
            Self::Malformed { .. } => voices::MALFORMED,
            Self::CredentialExpired => voices::CREDENTIAL_EXPIRED,
            Self::ApplicationUnknown { .. } => voices::APPLICATION_UNKNOWN,
            Self::BodyTooLarge { .. } => voices::BODY_TOO_LARGE,
            Self::BodyBroken => voices::BODY_BROKEN,
            Self::RangeNotSatisfiable { .. } => voices::RANGE_NOT_SATISFIABLE,
            Self::NoSuchPath => voices::NO_SUCH_PATH,
            Self::MethodNotAllowed => voices::METHOD_NOT_ALLOWED,
            Self::NotSupported { .. } => voices::NOT_SUPPORTED,
            Self::TimedOut => voices::TIMED_OUT,
            Self::Panicked => voices::INTERNAL,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        // Every status of the table is one; a test looks at all of them.
        StatusCode::from_u16(self.voice().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The stable code; for refusals that of the native wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.voice().native
    }

    /// What the caller reads.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::Malformed { field, reason } => format!("{field}: {reason}"),
            Self::CredentialExpired => "the credential has expired".into(),
            Self::ApplicationUnknown { given: false } => "the header ApiKey is needed".into(),
            Self::ApplicationUnknown { given: true } => "the ApiKey is not known".into(),
            Self::BodyTooLarge { max } => format!("the body is larger than {max} bytes"),
            Self::BodyBroken => "the body ended before it was complete".into(),
            Self::RangeNotSatisfiable { size } => format!("the range lies beyond the end, there are {size} bytes"),
            Self::NoSuchPath => "no such path, see /openapi.json".into(),
            Self::MethodNotAllowed => "this path does not take this method, see /openapi.json".into(),
            Self::NotSupported { note } => format!("not supported by this server: {note}"),
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
