//! The server's own administration: API keys. The words of these routes are Chinwag's, nobody else's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::envelope::ErrorBody;
use super::extract::{Auth, Body, Needs, null_is_zero};
use super::problem::Problem;
use crate::credentials::{CredentialError, mint_api_key, mint_secret};
use crate::domain::identity::Scopes;
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::hub::{ApiKey, ROOT_KEY_ID};

/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 200;
/// Most keys. Every key is looked at for each request, and a back end needs a handful.
pub const KEYS_MAX: usize = 1_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(rotate)).routes(routes!(revoke))
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyBody {
    /// Public id.
    pub key_id: String,
    /// What a person calls it.
    pub name: String,
    /// `admin`, `send`, `read`.
    pub scopes: Vec<String>,
    /// The only namespace it may name.
    pub namespace: Option<String>,
    /// A revoked key opens nothing.
    pub revoked: bool,
}

/// A key and, this once, its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// 200.
    pub status: u16,
    /// The key.
    #[serde(flatten)]
    pub listed: KeyBody,
    /// The credential. It is shown now and never again.
    pub key: String,
}

/// All keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// 200.
    pub status: u16,
    /// By id; the root key first.
    pub keys: Vec<KeyBody>,
}

/// What a new key is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct KeyCreate {
    /// What a person calls it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub name: String,
    /// At least one of `admin` (users, channels, keys, and all of the others), `send` (act for any user), `read` (read for
    /// any user).
    #[serde(default, deserialize_with = "null_is_zero")]
    pub scopes: Vec<String>,
    /// Binds the key to a namespace.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// The words of scopes.
#[must_use]
pub fn scope_words(scopes: Scopes) -> Vec<String> {
    let words = [(scopes.admin, "admin"), (scopes.send, "send"), (scopes.read, "read")];
    words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word.to_owned()).collect()
}

/// Reads the words of scopes.
///
/// # Errors
/// `Invalid`: none given, or an unknown word.
pub fn scopes_of(words: &[String]) -> Result<Scopes, Refusal> {
    let mut scopes = Scopes::default();
    for word in words {
        match word.as_str() {
            "admin" => scopes.admin = true,
            "send" => scopes.send = true,
            "read" => scopes.read = true,
            other => return Err(Refusal::invalid("scopes", format_args!("holds {other:?}, not admin, send or read"))),
        }
    }
    if scopes == Scopes::default() {
        return Err(Refusal::invalid("scopes", "is empty: a key needs admin, send or read"));
    }
    Ok(scopes)
}

/// Checks what a new key is to be.
///
/// # Errors
/// `Invalid` or `TooLarge` naming the field.
pub fn check_new_key(name: &str, words: &[String], namespace: Option<&str>) -> Result<Scopes, Refusal> {
    if name.trim().is_empty() {
        return Err(Refusal::invalid("name", "is needed"));
    }
    if name.len() > KEY_NAME_BYTES_MAX {
        return Err(Refusal::TooLarge { field: "name", bytes: name.len(), max: KEY_NAME_BYTES_MAX });
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::invalid("name", "holds a control character"));
    }
    if let Some(namespace) = namespace {
        Namespace::new(namespace)?;
    }
    scopes_of(words)
}

/// A key without its secret.
#[must_use]
pub fn listed(key: &ApiKey) -> KeyBody {
    KeyBody {
        key_id: key.key_id.clone(),
        name: key.name.clone(),
        scopes: scope_words(key.scopes),
        namespace: key.namespace.clone(),
        revoked: key.revoked,
    }
}

/// A failed mint or secret file is the operator's to see, not the caller's.
fn internal(error: CredentialError) -> Refusal {
    match error {
        CredentialError::Refused(refusal) => refusal,
        other => {
            tracing::error!(error = %other, cause = ?std::error::Error::source(&other), "cannot make a credential");
            Refusal::Internal
        }
    }
}

/// The API keys, revoked ones too, without their secrets.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    get, path = "/admin/keys", tag = "admin",
    responses((status = 200, body = KeyList), (status = "default", body = ErrorBody))
)]
async fn list(State(state): State<Arc<HttpState>>, auth: Auth) -> Result<Json<KeyList>, Problem> {
    auth.key_with(Needs::Admin)?;
    let mut keys = state.hub.api_keys();
    keys.sort_by(|a, b| (a.key_id != ROOT_KEY_ID, &a.key_id).cmp(&(b.key_id != ROOT_KEY_ID, &b.key_id)));
    Ok(Json(KeyList { status: 200, keys: keys.iter().map(listed).collect() }))
}

/// Makes an API key.
///
/// The answer holds the credential, this once. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/admin/keys", tag = "admin", request_body = KeyCreate,
    responses((status = 200, body = KeyMade), (status = "default", body = ErrorBody))
)]
async fn create(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Body(body): Body<KeyCreate>,
) -> Result<Json<KeyMade>, Problem> {
    auth.key_with(Needs::Admin)?;
    let scopes = check_new_key(&body.name, &body.scopes, body.namespace.as_deref())?;
    if state.hub.api_keys().len() >= KEYS_MAX {
        return Err(Refusal::TooMany { what: "API keys", max: KEYS_MAX }.into());
    }
    let minted = mint_api_key().map_err(internal)?;
    let key = ApiKey {
        secret: state.credentials.hash(&minted.text),
        key_id: minted.key_id,
        name: body.name,
        scopes,
        namespace: body.namespace,
        revoked: false,
    };
    let answer = KeyMade { status: 200, listed: listed(&key), key: minted.text };
    state.hub.put_key(key).await?;
    Ok(Json(answer))
}

fn existing(state: &HttpState, key_id: &str) -> Result<ApiKey, Problem> {
    let found = state.hub.api_keys().into_iter().find(|key| key.key_id == key_id);
    found.ok_or_else(|| Refusal::NotFound { what: "API key" }.into())
}

/// Gives an API key a new secret.
///
/// The old one stops working at once. The root key's new secret is also written to the data directory. Needs an API key
/// with the scope admin.
#[utoipa::path(
    post, path = "/admin/keys/{key_id}/rotate", tag = "admin", params(("key_id" = String, Path)),
    responses((status = 200, body = KeyMade), (status = "default", body = ErrorBody))
)]
async fn rotate(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(key_id): Path<String>,
) -> Result<Json<KeyMade>, Problem> {
    auth.key_with(Needs::Admin)?;
    let mut key = existing(&state, &key_id)?;
    if key.revoked {
        return Err(Refusal::invalid("key_id", "is revoked: make a new key").into());
    }
    if key_id == ROOT_KEY_ID {
        if !state.root_key.is_ours() {
            return Err(
                Refusal::invalid("key_id", "is the root key, which the configuration gives: change it there").into()
            );
        }
        let text = state.credentials.rotate_root(&state.data_dir, &state.hub).await.map_err(internal)?;
        return Ok(Json(KeyMade { status: 200, listed: listed(&key), key: text }));
    }
    let text = mint_secret(&key_id).map_err(internal)?;
    key.secret = state.credentials.hash(&text);
    let answer = KeyMade { status: 200, listed: listed(&key), key: text };
    state.hub.put_key(key).await?;
    Ok(Json(answer))
}

/// Takes an API key's power away.
///
/// It stays listed. The root key cannot be revoked, only rotated. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/admin/keys/{key_id}/revoke", tag = "admin", params(("key_id" = String, Path)),
    responses((status = 200, body = KeyList), (status = "default", body = ErrorBody))
)]
async fn revoke(
    State(state): State<Arc<HttpState>>,
    auth: Auth,
    Path(key_id): Path<String>,
) -> Result<Json<KeyList>, Problem> {
    auth.key_with(Needs::Admin)?;
    if key_id == ROOT_KEY_ID {
        return Err(Refusal::invalid("key_id", "is the root key, which can only be rotated").into());
    }
    let key = ApiKey { revoked: true, ..existing(&state, &key_id)? };
    let answer = KeyList { status: 200, keys: vec![listed(&key)] };
    state.hub.put_key(key).await?;
    Ok(Json(answer))
}
