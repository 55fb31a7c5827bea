//! Who calls: the application by its `ApiKey`, the user by the bearer, and the two together.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::ids::{ChannelKey, Uid};

use crate::domain::channel::{Standing, chat_id};
use crate::domain::identity::Identity;
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::http::HttpState;
use crate::http::extract::{Auth, Needs, credential};
use crate::http::problem::Problem;
use crate::hub::Reader;

/// The header that names the application.
const API_KEY: &str = "apikey";
/// The field that names the user a back end acts for.
const FROM: &str = "fromRelationId";

/// A request of a known application with a known bearer. The application is looked at first.
pub struct Caller {
    pub(super) auth: Auth,
    headers: HeaderMap,
    /// The namespace the application's key is bound to.
    namespace: Option<String>,
}

/// On whose behalf a route runs.
pub struct Actor {
    /// The user.
    pub uid: Uid,
    /// How the user reads.
    pub reader: Reader,
    /// How the user sends.
    pub standing: Standing,
    /// Where all other ids of the request lie.
    pub namespace: Namespace,
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let namespace = application(&parts.headers, state)?;
        match Auth::from_request_parts(parts, state).await {
            Ok(auth) => Ok(Self { auth, headers: parts.headers.clone(), namespace }),
            Err(Problem::Refused(Refusal::CredentialUnknown)) if is_expired(&parts.headers) => {
                Err(Problem::CredentialExpired)
            }
            // A header that holds no bearer is a wrong token to this document, not a wrong parameter.
            Err(Problem::Malformed { field, .. }) if field == "authorization" => Err(Refusal::CredentialUnknown.into()),
            Err(problem) => Err(problem),
        }
    }
}

/// The namespace of the key in the header `ApiKey`: any stored key that was not revoked, whatever its scopes. It opens
/// nothing by itself.
fn application(headers: &HeaderMap, state: &HttpState) -> Result<Option<String>, Problem> {
    let text = headers.get(API_KEY).map(|value| value.to_str().unwrap_or("\u{0}").trim()).unwrap_or_default();
    if text.is_empty() {
        return Err(Problem::ApplicationUnknown { given: false });
    }
    let found = state.hub.api_key(&state.credentials.hash(text)).filter(|key| !key.revoked);
    found.map(|key| key.namespace).ok_or(Problem::ApplicationUnknown { given: true })
}

/// Whether a bearer that opens nothing says of itself that its time is over: the claim `exp` of a JWT. It is not verified,
/// and need not be: it only chooses between two ways to say no, and "expired" makes a client fetch a new one.
fn is_expired(headers: &HeaderMap) -> bool {
    let bearer = headers.get(axum::http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((_, token)) = bearer.and_then(|bearer| bearer.trim().split_once(' ')) else { return false };
    expired_at(token.trim()).is_some_and(|exp_s| exp_s <= crate::clock::now_ms() / 1_000)
}

/// The claim `exp` of what looks like a JWT, Unix seconds.
pub(super) fn expired_at(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("exp")?.as_u64()
}

impl Caller {
    /// The user the request is for: the bearer's own, or whom a back end names in `fromRelationId`.
    ///
    /// # Errors
    /// As [`Caller::acts_as`].
    pub fn acts(&self, state: &HttpState, named: &str, needs: Needs) -> Result<Actor, Problem> {
        self.acts_as(state, FROM, named, needs)
    }

    /// As [`Caller::acts`] where another field names the user.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`, as [`Auth::acting_in`]; `CredentialUnknown` where bearer and application are of different
    /// namespaces.
    pub fn acts_as(&self, state: &HttpState, field: &'static str, named: &str, needs: Needs) -> Result<Actor, Problem> {
        let acting = self.auth.acting_in(state, &self.headers, field, named, needs)?;
        let (uid, reader, standing) = (acting.uid().clone(), acting.reader(), acting.standing());
        if self.namespace.as_deref().is_some_and(|bound| uid.namespace() != Some(bound)) {
            return Err(Refusal::CredentialUnknown.into());
        }
        let namespace = Namespace::of(&uid);
        Ok(Actor { uid, reader, standing, namespace })
    }

    /// The bearer as it was shown.
    pub(super) fn credential(&self) -> String {
        credential(&self.headers).ok().flatten().unwrap_or_default().to_owned()
    }

    /// As [`Caller::acts`]; a back end that names nobody acts as the system user.
    ///
    /// # Errors
    /// As [`Caller::acts`].
    pub fn acts_or_system(&self, state: &HttpState, named: &str, needs: Needs) -> Result<Actor, Problem> {
        let is_key = matches!(&self.auth, Auth::Known(Identity::Key { .. }));
        self.acts(state, if named.is_empty() && is_key { SYSTEM_UID } else { named }, needs)
    }
}

impl Actor {
    /// Whether a back end acts for nobody.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.reader == Reader::Trusted && self.uid.bare() == SYSTEM_UID
    }

    /// Another user of the same namespace.
    ///
    /// # Errors
    /// `Malformed` naming the field.
    pub fn peer(&self, field: &str, text: &str) -> Result<Uid, Problem> {
        if text.is_empty() {
            return Err(Problem::malformed(field, "is needed"));
        }
        self.namespace.uid(text).map_err(|e| Problem::malformed(field, e))
    }

    /// Other users, each once, in the order given.
    ///
    /// # Errors
    /// `Malformed` naming the entry.
    pub fn peers(&self, field: &str, texts: &[String]) -> Result<Vec<Uid>, Problem> {
        let mut seen = std::collections::HashSet::with_capacity(texts.len());
        let mut uids = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            let uid = self.peer(&format!("{field}[{i}]"), text)?;
            if seen.insert(uid.clone()) {
                uids.push(uid);
            }
        }
        Ok(uids)
    }

    /// The chat that `channelUuid` and `toRelationId` mean together; the actor is its member, or trusted.
    ///
    /// One of them is enough. Both must agree: `channelUuid` wins where the other user is its member.
    ///
    /// # Errors
    /// `Malformed` (none given, no uuid, no agreement), `NotMember` and `ChannelNotFound` (both 13108), `NotFound` (no such
    /// user), the store.
    pub async fn chat(&self, state: &HttpState, channel_uuid: &str, to: &str) -> Result<ChannelKey, Problem> {
        let (channel_uuid, to) = (channel_uuid.trim(), to.trim());
        if channel_uuid.is_empty() && to.is_empty() {
            return Err(Problem::malformed("channelUuid", "and toRelationId are both empty, one of them is needed"));
        }
        let pair = match to {
            "" => None,
            to => {
                let peer = self.peer("toRelationId", to)?;
                Some((ChannelKey::person(&self.uid, &peer), peer))
            }
        };
        if channel_uuid.is_empty() {
            let Some((key, peer)) = pair else { return Err(Refusal::Internal.into()) };
            state.hub.require_known(vec![peer]).await?;
            return Ok(key);
        }
        let uuid = uuid::Uuid::try_parse(channel_uuid)
            .map_err(|_| Problem::malformed("channelUuid", "is not a uuid"))?
            .hyphenated()
            .to_string();
        if let Some((key, peer)) = &pair
            && chat_id(key) == uuid
        {
            // The pair's own chat, begun or not.
            state.hub.require_known(vec![peer.clone()]).await?;
            return Ok(key.clone());
        }
        let key = state.hub.resolve_chat(self.reader.clone(), &uuid).await?;
        if !self.namespace.holds(&key) {
            return Err(Refusal::NotMember.into());
        }
        if let Some((_, peer)) = pair {
            match state.hub.resolve_chat(Reader::User(peer), &uuid).await {
                Ok(_) => {}
                Err(Refusal::NotMember | Refusal::ChannelNotFound) => {
                    return Err(Problem::malformed("toRelationId", "is no member of channelUuid"));
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(key)
    }
}
