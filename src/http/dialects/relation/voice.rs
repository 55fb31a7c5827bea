//! How this dialect says no: `{code, desc, data: null}`, with HTTP 200 unless the configuration wants real statuses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{Nothing, Refused};
use crate::domain::refusal::Refusal;
use crate::http::envelope::Envelope;
use crate::http::problem::Problem;

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
        let (code, desc) = code_of(problem);
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
        let mut response = (status, Json(body)).into_response();
        if let Some(ms) = problem.retry_after_ms() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The code and what it means. 10112, 13108 and 13301 are the document's; 10100, 10101 and 10110 its service's (CHECKLIST
/// D3); the others continue their families: 101xx the call, 131xx the chat, 133xx the other user.
pub fn code_of(problem: &Problem) -> (&'static str, &'static str) {
    match problem {
        Problem::CredentialExpired => ("10100", "token expired"),
        Problem::ApplicationUnknown { given: false } => ("10103", "ApiKey missing"),
        Problem::ApplicationUnknown { given: true } => ("10104", "ApiKey error"),
        Problem::Malformed { .. } | Problem::BodyTooLarge { .. } | Problem::BodyBroken => ("10112", "parameter error"),
        Problem::NoSuchPath | Problem::MethodNotAllowed => ("10404", "no such interface"),
        Problem::TimedOut => ("10503", "service unavailable"),
        Problem::Panicked => ("10500", "internal error"),
        Problem::Refused(refusal) => code_of_refusal(refusal),
    }
}

fn code_of_refusal(refusal: &Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::CredentialMissing | Refusal::CredentialUnknown => ("10101", "token error"),
        Refusal::Forbidden { .. } => ("10105", "no permission"),
        Refusal::Busy { .. } => ("10110", "rate limit"),
        Refusal::Invalid { .. }
        | Refusal::TooLarge { .. }
        | Refusal::TooMany { .. }
        | Refusal::DurabilityNotOffered
        | Refusal::FeatureOff { .. } => ("10112", "parameter error"),
        Refusal::ClientMsgNoConflict { .. } => ("10113", "sendUuid used for another message"),
        Refusal::NotMember | Refusal::ChannelNotFound => ("13108", "Not the member of this group"),
        Refusal::MessageGone => ("13109", "message gone"),
        Refusal::TooLate { .. } => ("13110", "too late"),
        Refusal::ChannelBanned => ("13111", "group banned"),
        Refusal::ChannelDisbanded => ("13112", "group disbanded"),
        Refusal::SendBanned => ("13113", "sender banned"),
        Refusal::StrangerRefused => ("13301", "block stranger messages"),
        Refusal::Blocked => ("13302", "blocked by the other user"),
        Refusal::NotFound { .. } => ("13303", "not found"),
        Refusal::Draining { .. } | Refusal::StoreUnavailable { .. } => ("10503", "service unavailable"),
        Refusal::Internal => ("10500", "internal error"),
    }
}
