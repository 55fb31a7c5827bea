//! The server's own routes about messages, people and groups: what the native wire offers, for back ends and for clients
//! without a socket.
//!
//! Owns paths, shapes and conversions; the rules are the hub's and the domain's. An API key acts for the user named in
//! `uid` and is trusted where the hub tells the two apart (a back end revokes any time); a user's own credential is bound by
//! every rule of a client.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use protocol::ids::{ChannelKey, ChannelType, Uid, Version, bare_id};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::HttpState;
use super::envelope::{DONE, Done, ErrorBody};
use super::extract::{Acting, Auth, Body, Needs};
use super::message::{MessageBody, extras_of, payload_of};
use super::names::{channel_seen_by, channel_type_of};
use super::problem::Problem;
use crate::domain::channel::{ChannelProfile, Role};
use crate::domain::message::{Message, Reaction};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Relation, Strangers, UserSettings};
use crate::hub::Reader;
use crate::hub::groups::NewGroup;
use crate::hub::messages::{SEARCH_LIMIT_MAX, Search};
use crate::hub::people::{FlagsChange, RelationChange};

mod wire;

/// Items of a list when the request names no limit.
const LIST_LIMIT_DEFAULT: usize = 100;
/// Most items of a list.
const LIST_LIMIT_MAX: usize = 1_000;
/// Most users in one request to add or remove members.
const UIDS_MAX: usize = 10_000;

/// The routes of this folder.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(message_revoke))
        .routes(routes!(message_edit))
        .routes(routes!(message_react))
        .routes(routes!(message_search))
        .routes(routes!(message_readers))
        .routes(routes!(message_changes))
        .routes(routes!(conversation_flags))
        .routes(routes!(user_settings))
        .routes(routes!(user_relation))
        .routes(routes!(user_relations))
        .routes(routes!(channel_create))
        .routes(routes!(channel_profile))
        .routes(routes!(channel_members))
        .routes(routes!(channel_invite))
        .routes(routes!(channel_expel))
        .routes(routes!(channel_role))
        .routes(routes!(channel_leave))
}

/// Who calls, and the header that may name a namespace.
struct Caller {
    auth: Auth,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        Ok(Self { auth: Auth::from_request_parts(parts, state).await?, headers: parts.headers.clone() })
    }
}

/// A channel as a request names it, and who looks at it.
struct Place {
    reader: Reader,
    /// Whose view names person channels; `None`: a back end's, which names pairs.
    viewer: Option<Uid>,
    namespace: Namespace,
    key: ChannelKey,
}

impl Place {
    fn channel_id(&self) -> String {
        match &self.viewer {
            Some(uid) => self.key.id_for(uid.as_str()).to_owned(),
            None => name_of(&self.key),
        }
    }

    fn message(&self, message: &Message) -> MessageBody {
        let viewer = self.viewer.as_ref().map_or("", Uid::as_str);
        MessageBody { channel_id: self.channel_id(), ..MessageBody::seen_by(viewer, message) }
    }
}

/// The stored id without its namespace; of a pair `a@b`.
fn name_of(key: &ChannelKey) -> String {
    match key.pair() {
        Some(_) => key.channel_id().split('@').map(bare_id).collect::<Vec<_>>().join("@"),
        None => bare_id(key.channel_id()).to_owned(),
    }
}

/// A channel as a back end names it: a person channel by its pair.
fn channel_in(namespace: &Namespace, channel_id: &str, channel_type: u8) -> Result<ChannelKey, Refusal> {
    let channel_type = channel_type_of(channel_type)?;
    let named = match (channel_type, channel_id.split_once('@')) {
        (ChannelType::Person, Some((a, b))) => {
            namespace.uid(a).and_then(|a| Ok(ChannelKey::person(&a, &namespace.uid(b)?)))
        }
        (ChannelType::Person, None) => return Err(Refusal::invalid("uid", "is needed, or a pair as channel_id")),
        _ => ChannelKey::named_in(namespace.name(), channel_id, channel_type),
    };
    named.map_err(|e| Refusal::invalid("channel_id", e))
}

impl Caller {
    /// The user the request acts for.
    fn acting(&self, state: &HttpState, uid: &str, needs: Needs) -> Result<Acting, Problem> {
        self.auth.acting_in(state, &self.headers, "uid", uid, needs)
    }

    /// The channel of a request that an API key may make without a user.
    fn place(&self, state: &HttpState, uid: &str, channel: (&str, u8), needs: Needs) -> Result<Place, Problem> {
        let (channel_id, channel_type) = channel;
        if uid.is_empty() && self.auth.is_key() {
            let namespace = self.auth.key_in(&self.headers, needs)?;
            let key = channel_in(&namespace, channel_id, channel_type)?;
            return Ok(Place { reader: Reader::Trusted, viewer: None, namespace, key });
        }
        let acting = self.acting(state, uid, needs)?;
        let key = channel_seen_by(acting.uid(), channel_id, channel_type)?;
        let namespace = Namespace::of(acting.uid());
        Ok(Place { reader: acting.reader(), viewer: Some(acting.uid().clone()), namespace, key })
    }
}

fn limit_of(wanted: u32) -> usize {
    match wanted {
        0 => LIST_LIMIT_DEFAULT,
        wanted => (wanted as usize).min(LIST_LIMIT_MAX),
    }
}

fn versioned(version: Version) -> Json<wire::Versioned> {
    Json(wire::Versioned { status: 200, version: version.get() })
}

fn uids_of(namespace: &Namespace, subscribers: &[String]) -> Result<Vec<Uid>, Problem> {
    if subscribers.len() > UIDS_MAX {
        return Err(Refusal::TooMany { what: "subscribers", max: UIDS_MAX }.into());
    }
    let uid = |(i, text): (usize, &String)| {
        namespace.uid(text).map_err(|e| Problem::malformed(format!("subscribers[{i}]"), e))
    };
    subscribers.iter().enumerate().map(uid).collect()
}

fn some_uids_of(namespace: &Namespace, subscribers: &[String]) -> Result<Vec<Uid>, Problem> {
    if subscribers.is_empty() {
        return Err(Refusal::invalid("subscribers", "is empty").into());
    }
    uids_of(namespace, subscribers)
}

/// Takes a message back.
///
/// Its place stays, its content is gone for everybody. Revoking what is revoked is success. With an API key (scope send):
/// any time; with the sender's own credential: within the configured time; with an admin's of the group: any time.
#[utoipa::path(
    post, path = "/message/revoke", tag = "messages", request_body = wire::MessageName,
    responses((status = 200, body = wire::Versioned), (status = "default", body = ErrorBody))
)]
async fn message_revoke(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageName>,
) -> Result<Json<wire::Versioned>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Send)?;
    Ok(versioned(state.hub.revoke(place.reader, place.key, body.message_seq).await?))
}

/// Replaces what a message says and refers to, as a whole.
///
/// With an API key (scope send): any time; with the sender's own credential: within the configured time.
#[utoipa::path(
    post, path = "/message/edit", tag = "messages", request_body = wire::MessageEdit,
    responses((status = 200, body = wire::Versioned), (status = "default", body = ErrorBody))
)]
async fn message_edit(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageEdit>,
) -> Result<Json<wire::Versioned>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Send)?;
    let payload = payload_of(&body.payload)?;
    let extras = extras_of(&place.namespace, body.reply_to, &body.mentions, body.mention_all, &body.files)?;
    Ok(versioned(state.hub.edit(place.reader, place.key, body.message_seq, payload, extras).await?))
}

/// Puts a user's reaction to a message, or takes it away.
///
/// Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/message/react", tag = "messages", request_body = wire::MessageReact,
    responses((status = 200, body = wire::Versioned), (status = "default", body = ErrorBody))
)]
async fn message_react(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageReact>,
) -> Result<Json<wire::Versioned>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Send)?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    let reaction = match body.reaction.as_str() {
        "" => None,
        "like" => Some(Reaction::Like),
        "dislike" => Some(Reaction::Dislike),
        _ => return Err(Refusal::invalid("reaction", "is not like, dislike or empty").into()),
    };
    Ok(versioned(state.hub.react(acting.uid().clone(), key, body.message_seq, reaction).await?))
}

/// Finds a text in a channel's messages.
///
/// Any part of a text, whatever the case of letters; no character is special. Needs an API key with the scope read, or the
/// credential of a member.
#[utoipa::path(
    post, path = "/message/search", tag = "messages", request_body = wire::MessageSearch,
    responses((status = 200, body = wire::MessagesFound), (status = "default", body = ErrorBody))
)]
async fn message_search(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageSearch>,
) -> Result<Json<wire::MessagesFound>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Read)?;
    let search = Search {
        text: body.text,
        first: body.start_message_seq,
        last: body.end_message_seq,
        limit: (body.limit as usize).min(SEARCH_LIMIT_MAX),
        newest_first: !body.oldest_first,
    };
    let page = state.hub.search(place.reader.clone(), place.key.clone(), search).await?;
    Ok(Json(wire::MessagesFound {
        messages: page.messages.iter().map(|message| place.message(message)).collect(),
        resume: page.resume,
        head_seq: page.head_seq,
    }))
}

/// Who has read a message, told by read positions.
///
/// Needs an API key with the scope read, or the credential of a member.
#[utoipa::path(
    post, path = "/message/readers", tag = "messages", request_body = wire::MessageName,
    responses((status = 200, body = wire::MessageReaders), (status = "default", body = ErrorBody))
)]
async fn message_readers(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageName>,
) -> Result<Json<wire::MessageReaders>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Read)?;
    let read_by = state.hub.read_by(place.reader, place.key, body.message_seq, limit_of(body.limit)).await?;
    Ok(Json(wire::MessageReaders {
        uids: read_by.uids.iter().map(|uid| uid.bare().to_owned()).collect(),
        of: read_by.of,
        more: read_by.more,
    }))
}

/// Which messages of a channel were revoked, edited, reacted to or expired after a version.
///
/// Needs an API key with the scope read, or the credential of a member.
#[utoipa::path(
    post, path = "/message/changes", tag = "messages", request_body = wire::MessageChangesQuery,
    responses((status = 200, body = wire::MessageChangesPage), (status = "default", body = ErrorBody))
)]
async fn message_changes(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::MessageChangesQuery>,
) -> Result<Json<wire::MessageChangesPage>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Read)?;
    let (since, max) = (Version::new(body.version), limit_of(body.limit));
    let found = state.hub.message_changes(place.reader, place.key, since, max).await?;
    let item = |(seq, version): (u64, Version)| wire::ChangedMessage { message_seq: seq, version: version.get() };
    Ok(Json(wire::MessageChangesPage { items: found.changes.into_iter().map(item).collect(), more: found.more }))
}

/// Pins or mutes a conversation, or accepts a message request.
///
/// Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/conversation/flags", tag = "conversations", request_body = wire::ConversationFlags,
    responses((status = 200, body = wire::Versioned), (status = "default", body = ErrorBody))
)]
async fn conversation_flags(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ConversationFlags>,
) -> Result<Json<wire::Versioned>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Send)?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    let change = FlagsChange { pinned: body.pinned, muted: body.muted, accepted: body.accepted };
    Ok(versioned(state.hub.set_flags(acting.uid().clone(), key, change).await?))
}

/// Changes or asks for a user's settings.
///
/// Needs an API key with the scope send (to ask: read), or the user's own credential.
#[utoipa::path(
    post, path = "/user/settings", tag = "users", request_body = wire::UserSettings,
    responses((status = 200, body = wire::UserSettingsNow), (status = "default", body = ErrorBody))
)]
async fn user_settings(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::UserSettings>,
) -> Result<Json<wire::UserSettingsNow>, Problem> {
    let needs = if body.strangers.is_some() { Needs::Send } else { Needs::Read };
    let acting = caller.acting(&state, &body.uid, needs)?;
    let uid = acting.uid().clone();
    let settings = match &body.strangers {
        None => state.hub.user_settings(uid).await?,
        Some(code) => {
            let unknown = || Refusal::invalid("strangers", "is not allow, quarantine or block");
            let settings = UserSettings { strangers: Strangers::from_code(code).ok_or_else(unknown)? };
            state.hub.put_user_settings(uid, settings).await?;
            settings
        }
    };
    Ok(Json(wire::UserSettingsNow { strangers: settings.strangers.code() }))
}

fn relation_now(peer: &Uid, relation: Relation) -> wire::RelationNow {
    wire::RelationNow { peer: peer.bare().to_owned(), contact: relation.contact, blocked: relation.blocked }
}

/// Makes another user a contact of a user, or blocks it.
///
/// One-sided: nobody is told. Needs an API key with the scope send, or the user's own credential.
#[utoipa::path(
    post, path = "/user/relation", tag = "users", request_body = wire::UserRelation,
    responses((status = 200, body = wire::RelationNow), (status = "default", body = ErrorBody))
)]
async fn user_relation(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::UserRelation>,
) -> Result<Json<wire::RelationNow>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Send)?;
    let peer = Namespace::of(acting.uid()).uid(&body.peer).map_err(|e| Refusal::invalid("peer", e))?;
    let change = RelationChange { contact: body.contact, blocked: body.blocked };
    let now = state.hub.put_relation(acting.uid().clone(), peer.clone(), change).await?;
    Ok(Json(relation_now(&peer, now)))
}

/// Contacts and blocked users of a user.
///
/// Needs an API key with the scope read, or the user's own credential.
#[utoipa::path(
    post, path = "/user/relations", tag = "users", request_body = wire::UserRelations,
    responses((status = 200, body = Vec<wire::RelationNow>), (status = "default", body = ErrorBody))
)]
async fn user_relations(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::UserRelations>,
) -> Result<Json<Vec<wire::RelationNow>>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Read)?;
    let relations = state.hub.relations(acting.uid().clone()).await?;
    Ok(Json(relations.iter().map(|(peer, relation)| relation_now(peer, *relation)).collect()))
}

fn profile_now(
    channel_id: String,
    channel_type: ChannelType,
    profile: ChannelProfile,
) -> Json<wire::ChannelProfileNow> {
    Json(wire::ChannelProfileNow {
        channel_id,
        channel_type: channel_type.to_wire(),
        name: profile.name,
        icon: profile.icon,
        description: profile.description,
        creator: profile.creator.map_or_else(String::new, |uid| uid.bare().to_owned()),
    })
}

/// Makes a group with an owner.
///
/// Its id is a new uuid. Needs an API key with the scope admin, or the owner's own credential.
#[utoipa::path(
    post, path = "/channel/create", tag = "channels", request_body = wire::GroupCreate,
    responses((status = 200, body = wire::ChannelProfileNow), (status = "default", body = ErrorBody))
)]
async fn channel_create(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::GroupCreate>,
) -> Result<Json<wire::ChannelProfileNow>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Admin)?;
    let owner = acting.uid().clone();
    let namespace = Namespace::of(&owner);
    let members = uids_of(&namespace, &body.subscribers)?;
    let profile = ChannelProfile {
        name: body.name,
        icon: body.icon,
        description: body.description,
        creator: Some(owner.clone()),
        ..ChannelProfile::default()
    };
    // A group of a namespace is named in it; elsewhere the hub makes the name.
    let channel_id = namespace.name().map(|_| namespace.channel_id(&uuid::Uuid::new_v4().to_string()));
    let group = NewGroup { channel_id, owner: Some(owner), members, profile: profile.clone() };
    let key = state.hub.create_group(group).await?;
    Ok(profile_now(name_of(&key), key.channel_type(), profile))
}

/// Changes or asks for a channel's profile.
///
/// To ask: an API key with the scope read, or the credential of a member. To change: the scope admin, or the credential of
/// an admin of the group.
#[utoipa::path(
    post, path = "/channel/profile", tag = "channels", request_body = wire::ChannelProfile,
    responses((status = 200, body = wire::ChannelProfileNow), (status = "default", body = ErrorBody))
)]
async fn channel_profile(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelProfile>,
) -> Result<Json<wire::ChannelProfileNow>, Problem> {
    let changes = body.name.is_some() || body.icon.is_some() || body.description.is_some();
    let needs = if changes { Needs::Admin } else { Needs::Read };
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, needs)?;
    let mut profile = state.hub.profile(place.reader.clone(), place.key.clone()).await?;
    if changes {
        profile.name = body.name.unwrap_or(profile.name);
        profile.icon = body.icon.unwrap_or(profile.icon);
        profile.description = body.description.unwrap_or(profile.description);
        state.hub.put_profile(place.reader.clone(), place.key.clone(), profile.clone()).await?;
    }
    Ok(profile_now(place.channel_id(), place.key.channel_type(), profile))
}

/// Who is in a channel, and what each may do.
///
/// Needs an API key with the scope read, or the credential of a member.
#[utoipa::path(
    post, path = "/channel/members", tag = "channels", request_body = wire::ChannelMembers,
    responses((status = 200, body = wire::MembersPage), (status = "default", body = ErrorBody))
)]
async fn channel_members(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelMembers>,
) -> Result<Json<wire::MembersPage>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Read)?;
    let all = state.hub.members(place.reader, place.key).await?;
    let (skip, limit) = (body.skip as usize, limit_of(body.limit));
    let shown = all.iter().skip(skip).take(limit);
    Ok(Json(wire::MembersPage {
        members: shown
            .map(|(uid, membership)| wire::Member { uid: uid.bare().to_owned(), role: membership.role.code() })
            .collect(),
        of: all.len() as u64,
        more: skip.saturating_add(limit) < all.len(),
    }))
}

/// Adds members to a group.
///
/// Needs an API key with the scope admin, or the credential of an admin of the group.
#[utoipa::path(
    post, path = "/channel/invite", tag = "channels", request_body = wire::ChannelUids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_invite(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelUids>,
) -> Result<Json<Done>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Admin)?;
    let uids = some_uids_of(&place.namespace, &body.subscribers)?;
    state.hub.invite(place.reader, place.key, uids).await?;
    Ok(Json(DONE))
}

/// Removes members from a group.
///
/// Needs an API key with the scope admin, or the credential of an admin of the group.
#[utoipa::path(
    post, path = "/channel/expel", tag = "channels", request_body = wire::ChannelUids,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_expel(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelUids>,
) -> Result<Json<Done>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Admin)?;
    let uids = some_uids_of(&place.namespace, &body.subscribers)?;
    state.hub.expel(place.reader, place.key, uids).await?;
    Ok(Json(DONE))
}

/// Gives a member of a group a role.
///
/// Needs an API key with the scope admin, or the owner's credential. Giving `owner` away makes the giver an admin.
#[utoipa::path(
    post, path = "/channel/role", tag = "channels", request_body = wire::ChannelRole,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_role(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelRole>,
) -> Result<Json<Done>, Problem> {
    let channel = (body.channel_id.as_str(), body.channel_type);
    let place = caller.place(&state, &body.uid, channel, Needs::Admin)?;
    let member = place.namespace.uid(&body.member).map_err(|e| Refusal::invalid("member", e))?;
    let Some(role) = Role::from_code(&body.role) else {
        return Err(Refusal::invalid("role", "is not member, admin or owner").into());
    };
    state.hub.set_role(place.reader, place.key, member, role).await?;
    Ok(Json(DONE))
}

/// Leaves a group.
///
/// An owner's place goes to the oldest admin, else to the oldest member. Needs an API key with the scope admin, or the
/// member's own credential.
#[utoipa::path(
    post, path = "/channel/leave", tag = "channels", request_body = wire::ChannelMembers,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn channel_leave(
    State(state): State<Arc<HttpState>>,
    caller: Caller,
    Body(body): Body<wire::ChannelMembers>,
) -> Result<Json<Done>, Problem> {
    let acting = caller.acting(&state, &body.uid, Needs::Admin)?;
    let key = channel_seen_by(acting.uid(), &body.channel_id, body.channel_type)?;
    state.hub.leave_group(acting.uid().clone(), key).await?;
    Ok(Json(DONE))
}
