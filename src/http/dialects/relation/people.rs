//! `settings`, `contacts/…`: what a user decides about strangers and about others.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::caller::Caller;
use super::done;
use super::wire::{self, Answer, Refused};
use crate::domain::user::{Strangers, UserSettings};
use crate::http::HttpState;
use crate::http::extract::{Body, Needs, QueryOrBody};
use crate::http::problem::Problem;
use crate::hub::people::RelationChange;

/// What becomes of first messages of strangers.
#[utoipa::path(
    get, path = "/api/v1/settings", tag = "relation", params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Settings>), (status = "default", body = Refused))
)]
pub async fn settings(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::Own>,
) -> Result<Json<Answer<wire::Settings>>, Problem> {
    let actor = caller.acts(&state, &asked.from_relation_id, Needs::Read)?;
    let settings = state.hub.user_settings(actor.uid).await?;
    Ok(done(wire::Settings { strangers: settings.strangers.code().to_owned() }))
}

/// Decides what becomes of first messages of strangers.
///
/// `allow` lets them in, `quarantine` makes them message requests, `block` refuses them with 13301. A stranger is who is no
/// contact, and to whom the user never wrote.
#[utoipa::path(
    post, path = "/api/v1/settings", tag = "relation", request_body = wire::SettingsChange,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Settings>), (status = "default", body = Refused))
)]
pub async fn change_settings(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::SettingsChange>,
) -> Result<Json<Answer<wire::Settings>>, Problem> {
    let actor = caller.acts(&state, &body.from_relation_id, Needs::Send)?;
    let Some(strangers) = Strangers::from_code(&body.strangers.to_lowercase()) else {
        return Err(Problem::malformed("strangers", "is not allow, quarantine or block"));
    };
    state.hub.put_user_settings(actor.uid, UserSettings { strangers }).await?;
    Ok(done(wire::Settings { strangers: strangers.code().to_owned() }))
}

/// Contacts and blocked users.
#[utoipa::path(
    post, path = "/api/v1/contacts/list", tag = "relation", request_body = wire::Own,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Relations>), (status = "default", body = Refused))
)]
pub async fn contacts(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    QueryOrBody(asked): QueryOrBody<wire::Own>,
) -> Result<Json<Answer<wire::Relations>>, Problem> {
    let actor = caller.acts(&state, &asked.from_relation_id, Needs::Read)?;
    let relations = state.hub.relations(actor.uid).await?;
    let users = relations.into_iter().map(|(uid, relation)| wire::Relation {
        relation_id: uid.bare().to_owned(),
        contact: relation.contact,
        blocked: relation.blocked,
    });
    Ok(done(wire::Relations { users: users.collect() }))
}

async fn change(
    state: &HttpState,
    caller: &Caller,
    body: &wire::Peer,
    change: RelationChange,
) -> Result<Json<Answer<wire::Relation>>, Problem> {
    let actor = caller.acts(state, &body.from_relation_id, Needs::Send)?;
    let peer = actor.peer("relationId", &body.relation_id)?;
    state.hub.require_known(vec![peer.clone()]).await?;
    if peer == actor.uid {
        return Err(Problem::malformed("relationId", "is one's own"));
    }
    let relation_id = peer.bare().to_owned();
    let now = state.hub.put_relation(actor.uid, peer, change).await?;
    Ok(done(wire::Relation { relation_id, contact: now.contact, blocked: now.blocked }))
}

/// Makes a user a contact: never a stranger.
#[utoipa::path(
    post, path = "/api/v1/contacts/add", tag = "relation", request_body = wire::Peer,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Relation>), (status = "default", body = Refused))
)]
pub async fn add(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Peer>,
) -> Result<Json<Answer<wire::Relation>>, Problem> {
    change(&state, &caller, &body, RelationChange { contact: Some(true), blocked: None }).await
}

/// Takes a user off the contacts.
#[utoipa::path(
    post, path = "/api/v1/contacts/remove", tag = "relation", request_body = wire::Peer,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Relation>), (status = "default", body = Refused))
)]
pub async fn remove(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Peer>,
) -> Result<Json<Answer<wire::Relation>>, Problem> {
    change(&state, &caller, &body, RelationChange { contact: Some(false), blocked: None }).await
}

/// Blocks a user: may not write to the caller any more.
#[utoipa::path(
    post, path = "/api/v1/contacts/block", tag = "relation", request_body = wire::Peer,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Relation>), (status = "default", body = Refused))
)]
pub async fn block(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Peer>,
) -> Result<Json<Answer<wire::Relation>>, Problem> {
    change(&state, &caller, &body, RelationChange { contact: None, blocked: Some(true) }).await
}

/// Lets a blocked user write again.
#[utoipa::path(
    post, path = "/api/v1/contacts/unblock", tag = "relation", request_body = wire::Peer,
    params(("ApiKey" = String, Header)),
    responses((status = 200, body = Answer<wire::Relation>), (status = "default", body = Refused))
)]
pub async fn unblock(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::Peer>,
) -> Result<Json<Answer<wire::Relation>>, Problem> {
    change(&state, &caller, &body, RelationChange { contact: None, blocked: Some(false) }).await
}
