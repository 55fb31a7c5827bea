//! Who calls a route whose document names no user: a user with an own credential, or a back end with an API key that says
//! for whom in the header `x-chinwag-uid`. And the name a caller gives a send.
//!
//! A back end that acts for a user is held to everything the user is: it reads what the user may read and sends what the
//! user may send.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use protocol::ids::{ClientMsgNo, Uid};

use super::HttpState;
use super::extract::{Auth, Needs};
use super::problem::Problem;
use crate::domain::refusal::Refusal;
use crate::hub::Reader;

/// The header in which an API key says for which user it acts.
pub const UID_HEADER: &str = "x-chinwag-uid";
/// The header that names a send: the dedupe key, as client_msg_no elsewhere.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// Reads need the scope read, everything else the scope send.
fn needed_by(method: &Method) -> Needs {
    if *method == Method::GET || *method == Method::HEAD { Needs::Read } else { Needs::Send }
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Problem::malformed(name, "is not UTF-8"))?;
            Ok(Some(text.trim()).filter(|text| !text.is_empty()))
        }
    }
}

/// A user, by an own credential or by a key that names the user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub uid: Uid,
    /// Whether what is listed becomes read: not by a key that may only read.
    pub marks_read: bool,
}

impl Caller {
    /// For questions to the hub.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::User(self.uid.clone())
    }
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let auth = Auth::from_request_parts(parts, state).await?;
        let named = header(&parts.headers, UID_HEADER)?.unwrap_or_default();
        let acting = auth.acting_for(state, UID_HEADER, named, needed_by(&parts.method)).await?;
        let marks_read = auth.acting_for(state, UID_HEADER, named, Needs::Send).await.is_ok();
        Ok(Self { uid: acting.uid().clone(), marks_read })
    }
}

/// A [`Caller`], or a back end that acts for nobody: a key without the header.
#[derive(Debug, Clone)]
pub struct Party {
    /// The user; `None`: a back end.
    pub uid: Option<Uid>,
}

impl Party {
    /// For questions to the hub.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.uid.clone().map_or(Reader::Trusted, Reader::User)
    }
}

impl FromRequestParts<Arc<HttpState>> for Party {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let auth = Auth::from_request_parts(parts, state).await?;
        let needs = needed_by(&parts.method);
        let named = header(&parts.headers, UID_HEADER)?;
        if named.is_none() && auth.key_with(needs).is_ok() {
            return Ok(Self { uid: None });
        }
        let acting = auth.acting_for(state, UID_HEADER, named.unwrap_or_default(), needs).await?;
        Ok(Self { uid: Some(acting.uid().clone()) })
    }
}

/// The header `Idempotency-Key`: a repeat of it by the same sender in the same channel gets the first outcome.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<ClientMsgNo>);

impl FromRequestParts<Arc<HttpState>> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<HttpState>) -> Result<Self, Problem> {
        let Some(text) = header(&parts.headers, IDEMPOTENCY_HEADER)? else { return Ok(Self(None)) };
        let name = ClientMsgNo::new(text).map_err(|e| Refusal::invalid(IDEMPOTENCY_HEADER, e))?;
        Ok(Self(Some(name)))
    }
}
