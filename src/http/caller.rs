//! Who calls a route whose document names no user, as these routes take callers: a user ([`AsUser`]), or also a back end that
//! acts for nobody ([`Party`]).
//!
//! A back end that acts for a user is held to everything the user is: it reads what the user may read and sends what the
//! user may send.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use protocol::ids::Uid;

use super::HttpState;
use super::dialects::{ACTING_UID, Caller};
use super::extract::Needs;
use super::problem::Problem;
use crate::hub::Reader;

/// What a key must be allowed for: reads need the scope read, everything else the scope send.
fn needed_by(method: &Method) -> Needs {
    if *method == Method::GET || *method == Method::HEAD { Needs::Read } else { Needs::Send }
}

/// A user, by an own credential or by a key that names the user in `x-chinwag-uid`.
#[derive(Debug, Clone)]
pub struct AsUser {
    /// The user.
    pub uid: Uid,
    /// Whether what is listed becomes read: not by a key that may only read.
    pub marks_read: bool,
}

impl AsUser {
    /// For questions to the hub.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::User(self.uid.clone())
    }
}

impl FromRequestParts<Arc<HttpState>> for AsUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let needs = needed_by(&parts.method);
        let caller = Caller::from_request_parts(parts, state).await?;
        let uid = caller.uid(state, needs).await?;
        let marks_read = needs == Needs::Send || caller.uid(state, Needs::Send).await.is_ok();
        Ok(Self { uid, marks_read })
    }
}

/// An [`AsUser`], or a back end that acts for nobody: a key without `x-chinwag-uid`.
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
        let needs = needed_by(&parts.method);
        let caller = Caller::from_request_parts(parts, state).await?;
        if !parts.headers.contains_key(&ACTING_UID) && caller.auth().key_with(needs).is_ok() {
            return Ok(Self { uid: None });
        }
        Ok(Self { uid: Some(caller.uid(state, needs).await?) })
    }
}
