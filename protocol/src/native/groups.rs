//! Groups as users make them: profile, members, roles.
//!
//! Each struct names the frame or event it is the body of.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::UIDS_MAX;
use super::parts::{bounded, is_default, number, words};

words! {
    /// What a member may do beyond writing. Each may do all the one before may.
    #[derive(Default)]
    pub enum Role {
        /// Write and read.
        #[default]
        Member = "member",
        /// Add and remove members, change the profile, take anybody's messages back.
        Admin = "admin",
        /// Give and take roles.
        Owner = "owner",
    }
}

/// `group`: makes a group with the asker as its owner. Answered by `profile`, which names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// What members call it; at most 255 bytes.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub name: Cow<'a, str>,
    /// A link or a file id; at most 1,024 bytes.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub icon: Cow<'a, str>,
    /// What it is for; at most 1,024 bytes.
    #[serde(borrow, default, skip_serializing_if = "is_default")]
    pub description: Cow<'a, str>,
    /// Members beside the asker. At most [`UIDS_MAX`]; more are invited.
    #[serde(borrow, default, skip_serializing_if = "is_default", deserialize_with = "bounded::<_, _, UIDS_MAX>")]
    pub members: Vec<Cow<'a, str>>,
}

/// `profile`: changes a group's profile, an absent field stays; without any it only asks. Answered by `profile`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// What members call it; at most 255 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// A link or a file id; at most 1,024 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<Cow<'a, str>>,
    /// What it is for; at most 1,024 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Cow<'a, str>>,
}

/// `members`: asks who is in a channel. Answered by `members`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Members<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Members passed over.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub skip: u32,
    /// Most members wanted; 0: the server's page.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub limit: u32,
}

/// `invite`: adds members to a group. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invite<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The group's id.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 2 group.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Who. At most [`UIDS_MAX`].
    #[serde(borrow, deserialize_with = "bounded::<_, _, UIDS_MAX>")]
    pub uids: Vec<Cow<'a, str>>,
}

/// `expel`: removes members from a group. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expel<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The group's id.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 2 group.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Who. At most [`UIDS_MAX`].
    #[serde(borrow, deserialize_with = "bounded::<_, _, UIDS_MAX>")]
    pub uids: Vec<Cow<'a, str>>,
}

/// `role`: gives a member a role. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GiveRole<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The group's id.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 2 group.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// The member.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The role.
    pub role: Role,
}

/// `leave`: leaves a group. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leave<'a> {
    /// The sender's number for this request, from 1 and growing, below 2^53; echoed in the reply.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The group's id.
    #[serde(borrow)]
    pub channel_id: Cow<'a, str>,
    /// 2 group.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
}

/// `profile`, the answer: how a channel presents itself now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileNow<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// What members call it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Cow<'a, str>,
    /// A link or a file id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub icon: Cow<'a, str>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: Cow<'a, str>,
    /// Who made it; empty: a back end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub creator: Cow<'a, str>,
}

/// A member and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberItem<'a> {
    /// The member.
    pub uid: Cow<'a, str>,
    /// Its role.
    #[serde(default, skip_serializing_if = "is_default")]
    pub role: Role,
}

/// `members`, the answer: in order of joining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembersList<'a> {
    /// The request's number.
    #[serde(deserialize_with = "number::safe")]
    pub client_seq: u64,
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Those asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub members: Vec<MemberItem<'a>>,
    /// How many members there are.
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "number::deserialize")]
    pub of: u64,
    /// There are more behind these.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: bool,
}

/// `channel`, an event: a group's profile or roles changed. What is absent stayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelEvent<'a> {
    /// The channel: a group's id, or for a person channel the peer's uid.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, 3 customer service.
    #[serde(deserialize_with = "number::deserialize")]
    pub channel_type: u8,
    /// Version of the change.
    #[serde(deserialize_with = "number::deserialize")]
    pub version: u64,
    /// What members call it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// Its icon now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<Cow<'a, str>>,
    /// Its description now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Cow<'a, str>>,
    /// Members whose role changed, with the role each has now.
    #[serde(default, skip_serializing_if = "is_default")]
    pub roles: Vec<MemberItem<'a>>,
}
