//! The bytes of records: what lies in the log for each [`Record`], and the version of that format.
//!
//! Owns the numbers of record kinds and the layout of each kind's body. Refuses to know where a record lies, its version and
//! its checksum: those are the log's (`log::layout`).
//!
//! Invariants: a body is read only when its CRC was right, yet a decoder trusts nothing: every length is compared with what
//! is left before anything is allocated, a body must be used up exactly, and a kind or body format this build does not know
//! is [`RecordError::Newer`], never a guess.
//!
//! Body layout. `v` is a varint (LEB128, at most 10 bytes, unsigned), `s` a text (v length in bytes, then UTF-8), `b` bytes
//! (v length, then them), `u8` one byte, `n×u8` n bytes as they are.
//!
//! | number | kind | body, format 1 |
//! |---|---|---|
//! | 1 | message | v channel, v seq, s from_uid, s client_msg_no, u8 flags, u8 setting, s topic, v expire_s, b payload |
//! | 2 | channel created | v channel, u8 channel_type, s channel_id |
//! | 3 | channel settings | v channel, u8 bits |
//! | 4 | members added | v channel, v join_floor, v count, count × s uid |
//! | 5 | members removed | v channel, v delete_floor, v count, count × s uid |
//! | 6 | read position | v channel, s uid, v seq |
//! | 7 | conversation deleted | v channel, s uid, v delete_floor |
//! | 8 | messages expired | v channel, v count, v first seq, (count - 1) × v distance to the one before |
//! | 9 | user created | s uid |
//! | 10 | user token | s uid, u8 device_flag, u8 device_level, u8 has token, 32×u8 token when it has |
//! | 11 | API key | s key_id, s name, 32×u8 secret, u8 scopes, u8 revoked and has namespace, s namespace when it has |
//! | 12 | alias | v channel, s alias |
//! | 13 | break | v kept, v until |
//! | 14 | message revoked | v channel, v seq, s by (empty: a back end) |
//! | 15 | message edited | v channel, v seq, s by, x extras, b payload |
//! | 16 | message reacted | v channel, v seq, s uid, u8 reaction (0 none, 1 like, 2 dislike) |
//! | 17 | member role | v channel, s uid, u8 role |
//! | 18 | reserved: webhook position | |
//! | 19 | channel profile | v channel, s name, s icon, s description, s project, s creator (empty: a back end) |
//! | 20 | conversation flags | v channel, s uid, u8 bits (pinned, muted, request, accepted) |
//! | 21 | user settings | s uid, u8 strangers |
//! | 22 | relation | s uid, s peer, u8 bits (contact, blocked) |
//! | 23 | file | s file_id, s uploader (empty: a back end), s name, s mime, v size, 32×u8 content |
//! | 24 | file removed | s file_id |
//! | 25 | channel listed | v channel, u8 bits (allow list, on), v count, count × s uid |
//! | 26 | system user | s uid, u8 on |
//! | 27 | commands read | s uid, v position, v message_id |
//! | 28 | address blocked | s address, u8 on |
//! | 29 | message event | v channel, v seq, l lane |
//!
//! A message that refers to something is body format 2 of kind 1: as format 1, with `x extras` before the payload. One that
//! refers to nothing is always format 1. All other kinds have format 1 only.
//!
//! `x` extras: v reply_to (0 none), u8 bits (mention_all), v count, count × s mentioned uid, v count, count × s file_id.
//!
//! `l` lane: u8 number, s key, u8 status, v seq, s event_id, s event_type, u8 visibility, v occurred_at_ms, u8 end_reason,
//! s error, b snapshot.
//!
//! Kinds 1 to 8, 12, 14 to 17, 19, 20, 25 and 29 begin with the channel's number, so that a channel can be told from any of them.

use std::net::IpAddr;

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, FileId, MessageSeq, Uid, Version};

use super::{ApiKey, ChannelNo, MessageRecord, Record};
use crate::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Role};
use crate::domain::conversation::ConversationFlags;
use crate::domain::event::{Lane, LaneStatus, Visibility};
use crate::domain::file::FileRecord;
use crate::domain::identity::Scopes;
use crate::domain::message::{Extras, MessageFlags, Reaction};
use crate::domain::user::{Relation, Strangers, UserSettings};

/// Format of all bodies but those of messages with extras.
pub const BODY_FORMAT: u8 = 1;
/// Format of messages with extras. A reader refuses a higher one.
pub const BODY_FORMAT_EXTRAS: u8 = 2;

/// The kind of a record, as stored: one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// [`Record::Message`]
    Message = 1,
    /// [`Record::ChannelCreated`]
    ChannelCreated = 2,
    /// [`Record::ChannelSettings`]
    ChannelSettings = 3,
    /// [`Record::MembersAdded`]
    MembersAdded = 4,
    /// [`Record::MembersRemoved`]
    MembersRemoved = 5,
    /// [`Record::ReadPosition`]
    ReadPosition = 6,
    /// [`Record::ConversationDeleted`]
    ConversationDeleted = 7,
    /// [`Record::MessagesExpired`]
    MessagesExpired = 8,
    /// [`Record::UserCreated`]
    UserCreated = 9,
    /// [`Record::UserToken`]
    UserToken = 10,
    /// [`Record::ApiKey`]
    ApiKey = 11,
    /// [`Record::Alias`]
    Alias = 12,
    /// [`Record::Break`]
    Break = 13,
    /// [`Record::MessageRevoked`]
    MessageRevoked = 14,
    /// [`Record::MessageEdited`]
    MessageEdited = 15,
    /// [`Record::MessageReacted`]
    MessageReacted = 16,
    /// [`Record::MemberRole`]
    MemberRole = 17,
    /// [`Record::ChannelProfile`]
    ChannelProfile = 19,
    /// [`Record::ConversationFlags`]
    ConversationFlags = 20,
    /// [`Record::UserSettings`]
    UserSettings = 21,
    /// [`Record::Relation`]
    Relation = 22,
    /// [`Record::File`]
    File = 23,
    /// [`Record::FileRemoved`]
    FileRemoved = 24,
    /// [`Record::ChannelListed`]
    ChannelListed = 25,
    /// [`Record::SystemUser`]
    SystemUser = 26,
    /// [`Record::CommandsRead`]
    CommandsRead = 27,
    /// [`Record::AddressBlocked`]
    AddressBlocked = 28,
    /// [`Record::MessageEvent`]
    MessageEvent = 29,
}

/// Numbers given to kinds that later builds write; never to be used for anything else.
pub const RESERVED_KINDS: [(u8, &str); 1] = [(18, "webhook position")];

impl RecordKind {
    /// Reads the stored number; `None` for a kind this build does not know.
    #[must_use]
    pub fn from_stored(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::ChannelCreated,
            3 => Self::ChannelSettings,
            4 => Self::MembersAdded,
            5 => Self::MembersRemoved,
            6 => Self::ReadPosition,
            7 => Self::ConversationDeleted,
            8 => Self::MessagesExpired,
            9 => Self::UserCreated,
            10 => Self::UserToken,
            11 => Self::ApiKey,
            12 => Self::Alias,
            13 => Self::Break,
            14 => Self::MessageRevoked,
            15 => Self::MessageEdited,
            16 => Self::MessageReacted,
            17 => Self::MemberRole,
            19 => Self::ChannelProfile,
            20 => Self::ConversationFlags,
            21 => Self::UserSettings,
            22 => Self::Relation,
            23 => Self::File,
            24 => Self::FileRemoved,
            25 => Self::ChannelListed,
            26 => Self::SystemUser,
            27 => Self::CommandsRead,
            28 => Self::AddressBlocked,
            29 => Self::MessageEvent,
            _ => return None,
        })
    }

    /// The stored number.
    #[must_use]
    pub fn to_stored(self) -> u8 {
        self as u8
    }
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind or body format of a later build.
    #[error("newer data format: record kind {kind}, body format {format}")]
    Newer {
        /// Stored kind.
        kind: u8,
        /// Stored format.
        format: u8,
    },
    /// A field is not what it must be.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

impl Record {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::ChannelCreated { .. } => RecordKind::ChannelCreated,
            Self::ChannelSettings { .. } => RecordKind::ChannelSettings,
            Self::Message(_) => RecordKind::Message,
            Self::MembersAdded { .. } => RecordKind::MembersAdded,
            Self::MembersRemoved { .. } => RecordKind::MembersRemoved,
            Self::ReadPosition { .. } => RecordKind::ReadPosition,
            Self::ConversationDeleted { .. } => RecordKind::ConversationDeleted,
            Self::MessagesExpired { .. } => RecordKind::MessagesExpired,
            Self::UserCreated { .. } => RecordKind::UserCreated,
            Self::UserToken { .. } => RecordKind::UserToken,
            Self::ApiKey(_) => RecordKind::ApiKey,
            Self::Alias { .. } => RecordKind::Alias,
            Self::MessageRevoked { .. } => RecordKind::MessageRevoked,
            Self::MessageEdited { .. } => RecordKind::MessageEdited,
            Self::MessageReacted { .. } => RecordKind::MessageReacted,
            Self::MessageEvent { .. } => RecordKind::MessageEvent,
            Self::MemberRole { .. } => RecordKind::MemberRole,
            Self::ChannelProfile { .. } => RecordKind::ChannelProfile,
            Self::ConversationFlags { .. } => RecordKind::ConversationFlags,
            Self::UserSettings { .. } => RecordKind::UserSettings,
            Self::Relation { .. } => RecordKind::Relation,
            Self::File(_) => RecordKind::File,
            Self::FileRemoved { .. } => RecordKind::FileRemoved,
            Self::ChannelListed { .. } => RecordKind::ChannelListed,
            Self::SystemUser { .. } => RecordKind::SystemUser,
            Self::CommandsRead { .. } => RecordKind::CommandsRead,
            Self::AddressBlocked { .. } => RecordKind::AddressBlocked,
            Self::Break { .. } => RecordKind::Break,
        }
    }

    /// The channel it changes or names, for the kinds that have one.
    #[must_use]
    pub fn channel(&self) -> Option<ChannelNo> {
        match self {
            Self::Message(message) => Some(message.channel),
            Self::ChannelCreated { channel, .. }
            | Self::ChannelSettings { channel, .. }
            | Self::MembersAdded { channel, .. }
            | Self::MembersRemoved { channel, .. }
            | Self::ReadPosition { channel, .. }
            | Self::ConversationDeleted { channel, .. }
            | Self::MessagesExpired { channel, .. }
            | Self::MessageRevoked { channel, .. }
            | Self::MessageEdited { channel, .. }
            | Self::MessageReacted { channel, .. }
            | Self::MessageEvent { channel, .. }
            | Self::MemberRole { channel, .. }
            | Self::ChannelProfile { channel, .. }
            | Self::ConversationFlags { channel, .. }
            | Self::ChannelListed { channel, .. }
            | Self::Alias { channel, .. } => Some(*channel),
            Self::UserCreated { .. }
            | Self::UserToken { .. }
            | Self::ApiKey(_)
            | Self::UserSettings { .. }
            | Self::Relation { .. }
            | Self::File(_)
            | Self::FileRemoved { .. }
            | Self::SystemUser { .. }
            | Self::CommandsRead { .. }
            | Self::AddressBlocked { .. }
            | Self::Break { .. } => None,
        }
    }

    /// The message's seq; 0 when it is no message.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Message(message) => message.message_seq.get(),
            _ => 0,
        }
    }

    /// The format of its body.
    #[must_use]
    pub fn body_format(&self) -> u8 {
        match self {
            Self::Message(message) if message.extras.is_some() => BODY_FORMAT_EXTRAS,
            _ => BODY_FORMAT,
        }
    }

    /// Appends its body in [`Record::body_format`]. Never fails; lengths were limited where the values were made.
    pub fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(message) => encode_message(message, out),
            Self::ChannelCreated { channel, key } => {
                put_channel(out, *channel);
                out.push(key.channel_type().to_wire());
                put_text(out, key.channel_id());
            }
            Self::ChannelSettings { channel, settings } => {
                put_channel(out, *channel);
                out.push(bits([
                    settings.ban,
                    settings.disband,
                    settings.send_ban,
                    settings.large,
                    settings.allow_stranger,
                ]));
            }
            Self::MembersAdded { channel, join_floor: floor, uids }
            | Self::MembersRemoved { channel, delete_floor: floor, uids } => {
                put_channel(out, *channel);
                put_varint(out, *floor);
                put_uids(out, uids);
            }
            Self::ReadPosition { channel, uid, seq: number }
            | Self::ConversationDeleted { channel, uid, delete_floor: number } => {
                put_channel(out, *channel);
                put_text(out, uid.as_str());
                put_varint(out, *number);
            }
            Self::MessagesExpired { channel, seqs } => {
                put_channel(out, *channel);
                put_varint(out, seqs.len() as u64);
                let mut before = 0;
                for seq in seqs {
                    // Wrapping keeps the round trip exact even for a list that is not ascending.
                    put_varint(out, seq.wrapping_sub(before));
                    before = *seq;
                }
            }
            Self::UserCreated { uid } => put_text(out, uid.as_str()),
            Self::UserToken { uid, device_flag, device_level, token } => {
                put_text(out, uid.as_str());
                out.push(device_flag.0);
                out.push(*device_level);
                out.push(u8::from(token.is_some()));
                if let Some(token) = token {
                    out.extend_from_slice(token);
                }
            }
            Self::ApiKey(key) => {
                put_text(out, &key.key_id);
                put_text(out, &key.name);
                out.extend_from_slice(&key.secret);
                out.push(bits([key.scopes.admin, key.scopes.send, key.scopes.read]));
                out.push(bits([key.revoked, key.namespace.is_some()]));
                if let Some(namespace) = &key.namespace {
                    put_text(out, namespace);
                }
            }
            Self::Alias { alias, channel } => {
                put_channel(out, *channel);
                put_text(out, alias);
            }
            Self::MessageRevoked { channel, seq, by } => {
                put_channel(out, *channel);
                put_varint(out, *seq);
                put_text(out, by.as_ref().map_or("", Uid::as_str));
            }
            Self::MessageEdited { channel, seq, by, payload, extras } => {
                put_channel(out, *channel);
                put_varint(out, *seq);
                put_text(out, by.as_ref().map_or("", Uid::as_str));
                put_extras(out, extras.as_deref());
                put_bytes(out, payload);
            }
            Self::MessageReacted { channel, seq, uid, reaction } => {
                put_channel(out, *channel);
                put_varint(out, *seq);
                put_text(out, uid.as_str());
                out.push(reaction.map_or(0, |reaction| reaction as u8));
            }
            Self::MessageEvent { channel, seq, lane } => {
                put_channel(out, *channel);
                put_varint(out, *seq);
                put_lane(out, lane);
            }
            Self::MemberRole { channel, uid, role } => {
                put_channel(out, *channel);
                put_text(out, uid.as_str());
                out.push(*role as u8);
            }
            Self::ChannelProfile { channel, profile } => {
                put_channel(out, *channel);
                for text in [&profile.name, &profile.icon, &profile.description, &profile.project] {
                    put_text(out, text);
                }
                put_text(out, profile.creator.as_ref().map_or("", Uid::as_str));
            }
            Self::ConversationFlags { channel, uid, flags } => {
                put_channel(out, *channel);
                put_text(out, uid.as_str());
                out.push(bits([flags.pinned, flags.muted, flags.request, flags.accepted]));
            }
            Self::UserSettings { uid, settings } => {
                put_text(out, uid.as_str());
                out.push(settings.strangers as u8);
            }
            Self::Relation { uid, peer, relation } => {
                put_text(out, uid.as_str());
                put_text(out, peer.as_str());
                out.push(bits([relation.contact, relation.blocked]));
            }
            Self::File(file) => {
                put_text(out, file.file_id.as_str());
                put_text(out, file.uploader.as_ref().map_or("", Uid::as_str));
                put_text(out, &file.name);
                put_text(out, &file.mime);
                put_varint(out, file.size);
                out.extend_from_slice(&file.content);
            }
            Self::FileRemoved { file_id } => put_text(out, file_id.as_str()),
            Self::ChannelListed { channel, list, on, uids } => {
                put_channel(out, *channel);
                out.push(bits([*list == ChannelList::Allow, *on]));
                put_uids(out, uids);
            }
            Self::SystemUser { uid, on } => {
                put_text(out, uid.as_str());
                out.push(bits([*on]));
            }
            Self::CommandsRead { uid, position, message_id } => {
                put_text(out, uid.as_str());
                put_varint(out, *position);
                put_varint(out, message_id.get());
            }
            Self::AddressBlocked { address, on } => {
                put_text(out, &address.to_string());
                out.push(bits([*on]));
            }
            Self::Break { kept, until } => {
                put_varint(out, kept.get());
                put_varint(out, until.get());
            }
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`RecordError::Newer`] for a kind or format this build does not know, [`RecordError::Malformed`] for anything that
    /// [`Record::encode_body`] does not write.
    pub fn decode_body(kind: u8, format: u8, body: &[u8]) -> Result<Self, RecordError> {
        let with_extras = format == BODY_FORMAT_EXTRAS;
        let known = RecordKind::from_stored(kind)
            .filter(|kind| format == BODY_FORMAT || (with_extras && *kind == RecordKind::Message));
        let kind = known.ok_or(RecordError::Newer { kind, format })?;
        let mut from = Fields::new(body);
        let record = match kind {
            RecordKind::Message => Self::Message(decode_message(&mut from, with_extras)?),
            RecordKind::ChannelCreated => {
                let channel = from.channel()?;
                let channel_type = ChannelType::from_wire(from.byte()?)
                    .map_err(|_| RecordError::Malformed("channel type is not known"))?;
                Self::ChannelCreated { channel, key: ChannelKey::from_stored(from.text()?, channel_type) }
            }
            RecordKind::ChannelSettings => {
                let channel = from.channel()?;
                let [ban, disband, send_ban, large, allow_stranger] = from.bits()?;
                let settings = ChannelSettings { ban, disband, send_ban, large, allow_stranger };
                Self::ChannelSettings { channel, settings }
            }
            RecordKind::MembersAdded => {
                Self::MembersAdded { channel: from.channel()?, join_floor: from.varint()?, uids: from.uids()? }
            }
            RecordKind::MembersRemoved => {
                Self::MembersRemoved { channel: from.channel()?, delete_floor: from.varint()?, uids: from.uids()? }
            }
            RecordKind::ReadPosition => {
                Self::ReadPosition { channel: from.channel()?, uid: from.uid()?, seq: from.varint()? }
            }
            RecordKind::ConversationDeleted => {
                Self::ConversationDeleted { channel: from.channel()?, uid: from.uid()?, delete_floor: from.varint()? }
            }
            RecordKind::MessagesExpired => {
                let channel = from.channel()?;
                let count = from.count(1)?;
                let mut seqs = Vec::with_capacity(count);
                let mut before = 0_u64;
                for _ in 0..count {
                    before = before.wrapping_add(from.varint()?);
                    seqs.push(before);
                }
                Self::MessagesExpired { channel, seqs }
            }
            RecordKind::UserCreated => Self::UserCreated { uid: from.uid()? },
            RecordKind::UserToken => {
                let uid = from.uid()?;
                let device_flag = DeviceFlag(from.byte()?);
                let device_level = from.byte()?;
                let [has_token] = from.bits()?;
                let token = if has_token { Some(from.array()?) } else { None };
                Self::UserToken { uid, device_flag, device_level, token }
            }
            RecordKind::ApiKey => {
                let key_id = from.text()?.to_owned();
                let name = from.text()?.to_owned();
                let secret = from.array()?;
                let [admin, send, read] = from.bits()?;
                let [revoked, has_namespace] = from.bits()?;
                let namespace = if has_namespace { Some(from.text()?.to_owned()) } else { None };
                Self::ApiKey(ApiKey { key_id, name, secret, scopes: Scopes { admin, send, read }, namespace, revoked })
            }
            RecordKind::Alias => Self::Alias { channel: from.channel()?, alias: from.text()?.to_owned() },
            RecordKind::MessageRevoked => {
                Self::MessageRevoked { channel: from.channel()?, seq: from.varint()?, by: from.uid_or_none()? }
            }
            RecordKind::MessageEdited => Self::MessageEdited {
                channel: from.channel()?,
                seq: from.varint()?,
                by: from.uid_or_none()?,
                extras: from.extras()?.boxed(),
                payload: Bytes::copy_from_slice(from.bytes()?),
            },
            RecordKind::MessageReacted => Self::MessageReacted {
                channel: from.channel()?,
                seq: from.varint()?,
                uid: from.uid()?,
                reaction: match from.byte()? {
                    0 => None,
                    1 => Some(Reaction::Like),
                    2 => Some(Reaction::Dislike),
                    _ => return Err(RecordError::Malformed("reaction is not known")),
                },
            },
            RecordKind::MessageEvent => {
                Self::MessageEvent { channel: from.channel()?, seq: from.varint()?, lane: Box::new(from.lane()?) }
            }
            RecordKind::MemberRole => Self::MemberRole {
                channel: from.channel()?,
                uid: from.uid()?,
                role: Role::from_wire(from.byte()?).ok_or(RecordError::Malformed("role is not known"))?,
            },
            RecordKind::ChannelProfile => {
                let channel = from.channel()?;
                let profile = ChannelProfile {
                    name: from.text()?.to_owned(),
                    icon: from.text()?.to_owned(),
                    description: from.text()?.to_owned(),
                    project: from.text()?.to_owned(),
                    creator: from.uid_or_none()?,
                };
                Self::ChannelProfile { channel, profile: Box::new(profile) }
            }
            RecordKind::ConversationFlags => {
                let (channel, uid) = (from.channel()?, from.uid()?);
                let [pinned, muted, request, accepted] = from.bits()?;
                let flags = ConversationFlags { pinned, muted, request, accepted };
                Self::ConversationFlags { channel, uid, flags }
            }
            RecordKind::UserSettings => {
                let uid = from.uid()?;
                let strangers = Strangers::from_stored(from.byte()?);
                let strangers = strangers.ok_or(RecordError::Malformed("strangers is not known"))?;
                Self::UserSettings { uid, settings: UserSettings { strangers } }
            }
            RecordKind::Relation => {
                let (uid, peer) = (from.uid()?, from.uid()?);
                let [contact, blocked] = from.bits()?;
                Self::Relation { uid, peer, relation: Relation { contact, blocked } }
            }
            RecordKind::File => Self::File(Box::new(FileRecord {
                file_id: FileId::from_stored(from.text()?),
                uploader: from.uid_or_none()?,
                name: from.text()?.to_owned(),
                mime: from.text()?.to_owned(),
                size: from.varint()?,
                content: from.array()?,
            })),
            RecordKind::FileRemoved => Self::FileRemoved { file_id: FileId::from_stored(from.text()?) },
            RecordKind::ChannelListed => {
                let channel = from.channel()?;
                let [allow, on] = from.bits()?;
                let list = if allow { ChannelList::Allow } else { ChannelList::Deny };
                Self::ChannelListed { channel, list, on, uids: from.uids()? }
            }
            RecordKind::SystemUser => {
                let uid = from.uid()?;
                let [on] = from.bits()?;
                Self::SystemUser { uid, on }
            }
            RecordKind::CommandsRead => Self::CommandsRead {
                uid: from.uid()?,
                position: from.varint()?,
                message_id: Version::new(from.varint()?),
            },
            RecordKind::AddressBlocked => {
                let text = from.text()?;
                // Only the form that is written: one address has one encoding.
                let address = text.parse::<IpAddr>().ok().filter(|address| address.to_string() == text);
                let address = address.ok_or(RecordError::Malformed("address is none"))?;
                let [on] = from.bits()?;
                Self::AddressBlocked { address, on }
            }
            RecordKind::Break => {
                Self::Break { kept: Version::new(from.varint()?), until: Version::new(from.varint()?) }
            }
        };
        from.end()?;
        Ok(record)
    }
}

fn encode_message(message: &MessageRecord, out: &mut Vec<u8>) {
    put_channel(out, message.channel);
    put_varint(out, message.message_seq.get());
    put_text(out, message.from_uid.as_str());
    put_text(out, message.client_msg_no.as_str());
    out.push(bits([message.flags.no_persist, message.flags.red_dot, message.flags.sync_once]));
    out.push(message.setting);
    put_text(out, &message.topic);
    put_varint(out, u64::from(message.expire_s));
    if message.extras.is_some() {
        put_extras(out, message.extras.as_deref());
    }
    put_bytes(out, &message.payload);
}

fn put_extras(out: &mut Vec<u8>, extras: Option<&Extras>) {
    let none = Extras::default();
    let extras = extras.unwrap_or(&none);
    put_varint(out, extras.reply_to.map_or(0, Version::get));
    out.push(bits([extras.mention_all]));
    put_uids(out, &extras.mentions);
    put_varint(out, extras.files.len() as u64);
    for file_id in &extras.files {
        put_text(out, file_id.as_str());
    }
}

fn put_lane(out: &mut Vec<u8>, lane: &Lane) {
    out.push(lane.number);
    put_text(out, &lane.key);
    out.push(lane.status as u8);
    put_varint(out, lane.seq);
    put_text(out, &lane.event_id);
    put_text(out, &lane.event_type);
    out.push(lane.visibility as u8);
    put_varint(out, lane.occurred_at_ms);
    out.push(lane.end_reason);
    put_text(out, &lane.error);
    put_bytes(out, &lane.snapshot);
}

fn decode_message(from: &mut Fields<'_>, with_extras: bool) -> Result<MessageRecord, RecordError> {
    let channel = from.channel()?;
    let message_seq = MessageSeq::new(from.varint()?).ok_or(RecordError::Malformed("message_seq is 0"))?;
    let from_uid = from.uid()?;
    let client_msg_no = ClientMsgNo::from_stored(from.text()?);
    let [no_persist, red_dot, sync_once] = from.bits()?;
    let setting = from.byte()?;
    let topic = from.text()?.to_owned();
    let expire_s = u32::try_from(from.varint()?).map_err(|_| RecordError::Malformed("expire is over 32 bits"))?;
    let extras = match with_extras {
        true => Some(from.extras()?.boxed().ok_or(RecordError::Malformed("extras are empty"))?),
        false => None,
    };
    let payload = Bytes::copy_from_slice(from.bytes()?);
    let flags = MessageFlags { no_persist, red_dot, sync_once };
    Ok(MessageRecord {
        channel,
        message_seq,
        from_uid,
        client_msg_no,
        flags,
        setting,
        topic,
        expire_s,
        payload,
        extras,
    })
}

fn bits<const N: usize>(flags: [bool; N]) -> u8 {
    flags.iter().enumerate().fold(0, |byte, (i, &flag)| byte | (u8::from(flag) << i))
}

fn put_channel(out: &mut Vec<u8>, channel: ChannelNo) {
    put_varint(out, u64::from(channel.0));
}

fn put_uids(out: &mut Vec<u8>, uids: &[Uid]) {
    put_varint(out, uids.len() as u64);
    for uid in uids {
        put_text(out, uid.as_str());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an unsigned LEB128 number: 1 to 10 bytes.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes fields off the front of bytes; never reads beyond them and never allocates by a length it has not compared.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(RecordError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, RecordError> {
        let (&first, rest) = self.rest.split_first().ok_or(RecordError::Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(first)
    }

    /// The canonical form only, so that one value has one encoding.
    pub(crate) fn varint(&mut self) -> Result<u64, RecordError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(RecordError::Malformed("a number is over 64 bits"));
            }
            number |= part << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(RecordError::Malformed("a number is not in its shortest form"));
                }
                return Ok(number);
            }
        }
        Err(RecordError::Malformed("a number is over 10 bytes"))
    }

    /// A count of things that take at least `bytes_min` each, so it cannot ask for more memory than there are bytes.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, RecordError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / bytes_min => Ok(count),
            _ => Err(RecordError::Malformed("a count is larger than what follows")),
        }
    }

    pub(crate) fn channel(&mut self) -> Result<ChannelNo, RecordError> {
        let number = self.varint()?;
        u32::try_from(number).map(ChannelNo).map_err(|_| RecordError::Malformed("channel number is over 32 bits"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let count = self.count(1)?;
        self.take(count)
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RecordError::Malformed("text is not UTF-8"))
    }

    fn uid(&mut self) -> Result<Uid, RecordError> {
        Ok(Uid::from_stored(self.text()?))
    }

    /// An empty text stands for none.
    fn uid_or_none(&mut self) -> Result<Option<Uid>, RecordError> {
        let text = self.text()?;
        Ok((!text.is_empty()).then(|| Uid::from_stored(text)))
    }

    fn extras(&mut self) -> Result<Extras, RecordError> {
        let reply_to = self.varint()?;
        let [mention_all] = self.bits()?;
        let mentions = self.uids()?;
        let count = self.count(1)?;
        let mut files = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            files.push(FileId::from_stored(self.text()?));
        }
        Ok(Extras { reply_to: (reply_to > 0).then(|| Version::new(reply_to)), mentions, mention_all, files })
    }

    fn lane(&mut self) -> Result<Lane, RecordError> {
        Ok(Lane {
            number: self.byte()?,
            key: self.text()?.to_owned(),
            status: LaneStatus::from_stored(self.byte()?).ok_or(RecordError::Malformed("status is not known"))?,
            seq: self.varint()?,
            event_id: self.text()?.to_owned(),
            event_type: self.text()?.to_owned(),
            visibility: Visibility::from_stored(self.byte()?)
                .ok_or(RecordError::Malformed("visibility is not known"))?,
            occurred_at_ms: self.varint()?,
            end_reason: self.byte()?,
            error: self.text()?.to_owned(),
            snapshot: Bytes::copy_from_slice(self.bytes()?),
        })
    }

    fn uids(&mut self) -> Result<Vec<Uid>, RecordError> {
        let count = self.count(1)?;
        // A uid takes at least a byte on disk and 16 in memory; growing step by step keeps a lying count cheap.
        let mut uids = Vec::with_capacity(count.min(4_096));
        for _ in 0..count {
            uids.push(self.uid()?);
        }
        Ok(uids)
    }

    fn bits<const N: usize>(&mut self) -> Result<[bool; N], RecordError> {
        let byte = self.byte()?;
        if u32::from(byte) >= 1 << N {
            return Err(RecordError::Malformed("an unknown bit is set"));
        }
        Ok(std::array::from_fn(|i| byte & (1 << i) != 0))
    }

    pub(crate) fn end(&self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Malformed("bytes are left over")) }
    }
}

#[cfg(test)]
pub(super) mod tests;
