//! The lines of an export: one durable change each, as JSON.
//!
//! Owns the words and the checks of every field. Refuses to know files and their order (`export`, `merge`, `import`).
//!
//! A line has a `kind`, its time, and the fields of its kind. The time is `version` (a message's: `message_id`), or, in what
//! was not written by an export, `timestamp_ms`: then the import gives the version. The table of kinds is in
//! docs/export.md.
//!
//! Invariants: what `write` makes of a record `read` reads back to the same record; a field that is missing, of another
//! type, out of its range or not known is an error that names it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::ids::{
    ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, FileId, MessageSeq, TOPIC_BYTES_MAX, Uid, Version,
};
use serde_json::{Map, Value, json};

use super::manifest::hex;
use crate::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Role};
use crate::domain::conversation::ConversationFlags;
use crate::domain::event::{
    EVENT_ID_BYTES_MAX, EVENT_KEY_BYTES_MAX, EVENT_TYPE_BYTES_MAX, Lane, LaneStatus, Visibility,
};
use crate::domain::file::{FILE_NAME_BYTES_MAX, FileRecord};
use crate::domain::identity::Scopes;
use crate::domain::message::{Extras, FILES_MAX, MENTIONS_MAX, MessageFlags, Reaction};
use crate::domain::user::{Relation, Strangers, UserSettings};
use crate::store::{ApiKey, ChannelNo, MessageRecord, Record};

/// Longest text that is kept in one row: names of keys, aliases, types of files.
const TEXT_BYTES_MAX: usize = 255;

/// What a message that takes a hole's seq is called, before the seq.
pub(super) const HOLE_NAME: &str = "hole-";

/// A field that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadField {
    /// Its name.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl BadField {
    pub(super) fn new(field: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { field: field.into(), what: what.to_string() }
    }
}

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field \"{}\" {}", self.field, self.what)
    }
}

/// When a line's change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Exactly this version.
    Version(Version),
    /// At this time, Unix microseconds; the import gives the version.
    Time(u64),
}

impl Stamp {
    /// What lines are ordered by, Unix microseconds.
    #[must_use]
    pub fn key(self) -> u64 {
        match self {
            Self::Version(version) => version.get(),
            Self::Time(us) => us,
        }
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A change. Its channel number is that of the file's channel.
    Record(Record),
    /// A message that cannot be read any more, or that the source did not have: its seq stays taken.
    Hole {
        /// The seq.
        seq: u64,
    },
    /// The last line of a file.
    End {
        /// Lines before it.
        lines: u64,
    },
}

/// The line of a record, without its newline. Contents of messages that were taken back are in it, as in the log.
#[must_use]
pub fn write(version: Version, record: &Record) -> Value {
    let mut line = fields(record);
    line["version"] = json!(version.get());
    if let Record::Message(_) = record {
        line["message_id"] = json!(version.get());
        line["timestamp_ms"] = json!(version.unix_ms());
        if let Some(map) = line.as_object_mut() {
            map.remove("version");
        }
    }
    line
}

/// The line of a damaged message.
#[must_use]
pub fn write_hole(version: Version, seq: u64) -> Value {
    json!({"kind": "hole", "message_id": version.get(), "message_seq": seq})
}

fn texts<'a>(uids: impl IntoIterator<Item = &'a Uid>) -> Vec<&'a str> {
    uids.into_iter().map(Uid::as_str).collect()
}

fn or_null(uid: Option<&Uid>) -> Value {
    uid.map_or(Value::Null, |uid| json!(uid.as_str()))
}

fn extras_value(extras: Option<&Extras>) -> Value {
    let Some(extras) = extras else { return Value::Null };
    json!({
        "reply_to": extras.reply_to.map(Version::get), "mention_all": extras.mention_all,
        "mentions": texts(&extras.mentions), "files": extras.files.iter().map(FileId::as_str).collect::<Vec<_>>(),
    })
}

fn fields(record: &Record) -> Value {
    match record {
        Record::ChannelCreated { channel, key } => json!({
            "kind": "channel", "number": channel.0, "channel_id": key.channel_id(),
            "channel_type": key.channel_type().to_wire(),
        }),
        Record::ChannelSettings { settings, .. } => {
            let ChannelSettings { ban, disband, send_ban, large, allow_stranger } = settings;
            json!({
                "kind": "settings", "ban": ban, "disband": disband, "send_ban": send_ban, "large": large,
                "allow_stranger": allow_stranger,
            })
        }
        Record::Message(message) => json!({
            "kind": "message", "message_seq": message.message_seq.get(), "from_uid": message.from_uid.as_str(),
            "client_msg_no": message.client_msg_no.as_str(), "red_dot": message.flags.red_dot,
            "sync_once": message.flags.sync_once, "setting": message.setting, "topic": message.topic,
            "expire_s": message.expire_s, "payload": STANDARD.encode(&message.payload),
            "extras": extras_value(message.extras.as_deref()),
        }),
        Record::MembersAdded { join_floor, uids, .. } => {
            json!({"kind": "members_added", "join_floor": join_floor, "uids": texts(uids)})
        }
        Record::MembersRemoved { delete_floor, uids, .. } => {
            json!({"kind": "members_removed", "delete_floor": delete_floor, "uids": texts(uids)})
        }
        Record::ReadPosition { uid, seq, .. } => json!({"kind": "read", "uid": uid.as_str(), "message_seq": seq}),
        Record::ConversationDeleted { uid, delete_floor, .. } => {
            json!({"kind": "conversation_deleted", "uid": uid.as_str(), "delete_floor": delete_floor})
        }
        Record::MessagesExpired { seqs, .. } => json!({"kind": "expired", "message_seqs": seqs}),
        Record::UserCreated { uid } => json!({"kind": "user", "uid": uid.as_str()}),
        Record::UserToken { uid, device_flag, device_level, token } => json!({
            "kind": "token", "uid": uid.as_str(), "device_flag": device_flag.0, "device_level": device_level,
            "hash": token.as_ref().map(|token| hex(token)),
        }),
        Record::ApiKey(key) => json!({
            "kind": "api_key", "key_id": key.key_id, "name": key.name, "hash": hex(&key.secret),
            "admin": key.scopes.admin, "send": key.scopes.send, "read": key.scopes.read,
            "namespace": key.namespace, "revoked": key.revoked,
        }),
        Record::Alias { alias, .. } => json!({"kind": "alias", "alias": alias}),
        Record::MessageRevoked { seq, by, .. } => {
            json!({"kind": "revoked", "message_seq": seq, "by": or_null(by.as_ref())})
        }
        Record::MessageEdited { seq, by, payload, extras, .. } => json!({
            "kind": "edited", "message_seq": seq, "by": or_null(by.as_ref()), "payload": STANDARD.encode(payload),
            "extras": extras_value(extras.as_deref()),
        }),
        Record::MessageReacted { seq, uid, reaction, .. } => json!({
            "kind": "reacted", "message_seq": seq, "uid": uid.as_str(), "reaction": reaction.map(Reaction::code),
        }),
        Record::MessageEvent { seq, lane, .. } => json!({
            "kind": "event", "message_seq": seq, "lane": lane.number, "event_key": lane.key,
            "status": lane.status.code(), "msg_event_seq": lane.seq, "event_id": lane.event_id,
            "event_type": lane.event_type, "visibility": lane.visibility.code(),
            "occurred_at_ms": lane.occurred_at_ms, "end_reason": lane.end_reason, "error": lane.error,
            "snapshot": STANDARD.encode(&lane.snapshot),
        }),
        Record::MemberRole { uid, role, .. } => json!({"kind": "role", "uid": uid.as_str(), "role": role.code()}),
        Record::ChannelProfile { profile, .. } => json!({
            "kind": "profile", "name": profile.name, "icon": profile.icon, "description": profile.description,
            "project": profile.project, "creator": or_null(profile.creator.as_ref()),
        }),
        Record::ConversationFlags { uid, flags, .. } => {
            let ConversationFlags { pinned, muted, request, accepted } = flags;
            json!({
                "kind": "conversation_flags", "uid": uid.as_str(), "pinned": pinned, "muted": muted,
                "request": request, "accepted": accepted,
            })
        }
        Record::UserSettings { uid, settings } => {
            json!({"kind": "user_settings", "uid": uid.as_str(), "strangers": settings.strangers.code()})
        }
        Record::Relation { uid, peer, relation } => json!({
            "kind": "relation", "uid": uid.as_str(), "peer": peer.as_str(), "contact": relation.contact,
            "blocked": relation.blocked,
        }),
        Record::File(file) => json!({
            "kind": "file", "file_id": file.file_id.as_str(), "uploader": or_null(file.uploader.as_ref()),
            "name": file.name, "mime": file.mime, "size": file.size, "content": hex(&file.content),
        }),
        Record::FileRemoved { file_id } => json!({"kind": "file_removed", "file_id": file_id.as_str()}),
        Record::ChannelListed { list, on, uids, .. } => {
            json!({"kind": "listed", "list": list.code(), "on": on, "uids": texts(uids)})
        }
        Record::SystemUser { uid, on } => json!({"kind": "system_user", "uid": uid.as_str(), "on": on}),
        Record::CommandsRead { uid, position, message_id } => json!({
            "kind": "commands_read", "uid": uid.as_str(), "position": position, "last_message_id": message_id.get(),
        }),
        Record::AddressBlocked { address, on } => {
            json!({"kind": "address_blocked", "address": address.to_string(), "on": on})
        }
        Record::Break { kept, until } => json!({"kind": "break", "kept": kept.get(), "until": until.get()}),
    }
}

/// Reads a line of a file. `channel`: the number of the file's channel; `None`: it is the file's first line, which makes the
/// channel, or a file of the server.
///
/// # Errors
/// The field that is wrong; `kind` when the line has no place in such a file.
pub fn read(line: &str, channel: Option<ChannelNo>) -> Result<(Stamp, Line), BadField> {
    let value: Value =
        serde_json::from_str(line).map_err(|error| BadField::new("(the line)", format_args!("is no JSON: {error}")))?;
    let Value::Object(map) = value else { return Err(BadField::new("(the line)", "is no JSON object")) };
    let mut from = Fields { map };
    let kind = from.text("kind")?;
    if kind == "end" {
        let lines = from.number("lines")?;
        // What else an export says there is for readers.
        return Ok((Stamp::Version(Version::MAX), Line::End { lines }));
    }
    let stamp = from.stamp()?;
    let line = match channel {
        Some(channel) => from.of_channel(&kind, channel)?,
        None => Line::Record(from.of_server(&kind)?),
    };
    from.finish()?;
    Ok((stamp, line))
}

/// Takes fields out of a line; what is left at the end is unknown.
struct Fields {
    map: Map<String, Value>,
}

fn is_not(field: &str, what: &str) -> BadField {
    BadField::new(field, format_args!("is not {what}"))
}

impl Fields {
    fn some(&mut self, field: &str) -> Result<Value, BadField> {
        self.map.remove(field).ok_or_else(|| BadField::new(field, "is missing"))
    }

    fn or_none(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    fn finish(self) -> Result<(), BadField> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(field) => Err(BadField::new(field.as_str(), "is not known for this kind")),
        }
    }

    fn number(&mut self, field: &str) -> Result<u64, BadField> {
        self.some(field)?.as_u64().ok_or_else(|| is_not(field, "a whole number from 0"))
    }

    fn number_or(&mut self, field: &str, default: u64) -> Result<u64, BadField> {
        match self.or_none(field) {
            None => Ok(default),
            Some(value) => value.as_u64().ok_or_else(|| is_not(field, "a whole number from 0")),
        }
    }

    fn byte_or(&mut self, field: &str, default: u8) -> Result<u8, BadField> {
        u8::try_from(self.number_or(field, default.into())?).map_err(|_| is_not(field, "a number up to 255"))
    }

    fn bit(&mut self, field: &str) -> Result<bool, BadField> {
        match self.or_none(field) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| is_not(field, "true or false")),
        }
    }

    fn text(&mut self, field: &str) -> Result<String, BadField> {
        match self.some(field)? {
            Value::String(text) => Ok(text),
            _ => Err(is_not(field, "a text")),
        }
    }

    /// A text of at most so many bytes, empty when it is not there.
    fn text_up_to(&mut self, field: &str, max: usize) -> Result<String, BadField> {
        let text = match self.or_none(field) {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => return Err(is_not(field, "a text")),
        };
        if text.len() > max {
            return Err(BadField::new(field, format_args!("has {} bytes, at most {max} are allowed", text.len())));
        }
        Ok(text)
    }

    fn texts(&mut self, field: &str) -> Result<Vec<String>, BadField> {
        let not_texts = || is_not(field, "a list of texts");
        let Some(value) = self.or_none(field) else { return Ok(Vec::new()) };
        let Value::Array(values) = value else { return Err(not_texts()) };
        let text = |value| if let Value::String(text) = value { Ok(text) } else { Err(not_texts()) };
        values.into_iter().map(text).collect()
    }

    fn uid(&mut self, field: &str) -> Result<Uid, BadField> {
        uid(field, &self.text(field)?)
    }

    fn uid_or_none(&mut self, field: &str) -> Result<Option<Uid>, BadField> {
        match self.or_none(field) {
            None => Ok(None),
            Some(Value::String(text)) => uid(field, &text).map(Some),
            Some(_) => Err(is_not(field, "a text")),
        }
    }

    fn uids(&mut self, field: &str) -> Result<Vec<Uid>, BadField> {
        self.texts(field)?.iter().map(|text| uid(field, text)).collect()
    }

    fn bytes(&mut self, field: &str) -> Result<bytes::Bytes, BadField> {
        let text = self.text(field)?;
        STANDARD
            .decode(text)
            .map(Into::into)
            .map_err(|error| BadField::new(field, format_args!("is no base64: {error}")))
    }

    fn hash_or_none(&mut self, field: &str) -> Result<Option<[u8; 32]>, BadField> {
        let Some(value) = self.or_none(field) else { return Ok(None) };
        let hash = value.as_str().and_then(|text| blake3::Hash::from_hex(text).ok());
        hash.map(|hash| Some(*hash.as_bytes())).ok_or_else(|| is_not(field, "64 hexadecimal digits"))
    }

    fn hash(&mut self, field: &str) -> Result<[u8; 32], BadField> {
        self.hash_or_none(field)?.ok_or_else(|| BadField::new(field, "is missing"))
    }

    fn file_id(&mut self, field: &str) -> Result<FileId, BadField> {
        FileId::new(&self.text(field)?).map_err(|error| BadField::new(field, error))
    }

    fn seq(&mut self) -> Result<MessageSeq, BadField> {
        MessageSeq::new(self.number("message_seq")?).ok_or_else(|| is_not("message_seq", "a number from 1"))
    }

    fn version_of(&mut self, field: &str) -> Result<Option<Version>, BadField> {
        match self.number_or(field, 0)? {
            0 => Ok(None),
            number if number > Version::MAX.get() => Err(BadField::new(field, "is above 2^53 - 1")),
            number => Ok(Some(Version::new(number))),
        }
    }

    fn stamp(&mut self) -> Result<Stamp, BadField> {
        let (version, id) = (self.version_of("version")?, self.version_of("message_id")?);
        let time_ms = self.number_or("timestamp_ms", 0)?;
        if let Some(version) = version.or(id) {
            return Ok(Stamp::Version(version));
        }
        match time_ms.checked_mul(1_000).filter(|us| *us <= Version::MAX.get()) {
            Some(0) => Err(BadField::new("version", "is missing (or timestamp_ms)")),
            Some(us) => Ok(Stamp::Time(us)),
            None => Err(BadField::new("timestamp_ms", "lies after the year 2255")),
        }
    }

    fn extras(&mut self) -> Result<Option<Box<Extras>>, BadField> {
        let map = match self.or_none("extras") {
            None => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(is_not("extras", "an object")),
        };
        let mut from = Fields { map };
        let within = |error: BadField| BadField { field: format!("extras.{}", error.field), ..error };
        let mut read = || {
            let files = from.texts("files")?;
            let files = files.iter().map(|id| FileId::new(id).map_err(|error| BadField::new("files", error)));
            let extras = Extras {
                reply_to: from.version_of("reply_to")?,
                mention_all: from.bit("mention_all")?,
                files: files.collect::<Result<_, _>>()?,
                mentions: from.uids("mentions")?,
            };
            for (field, count, max) in
                [("mentions", extras.mentions.len(), MENTIONS_MAX), ("files", extras.files.len(), FILES_MAX)]
            {
                if count > max {
                    return Err(BadField::new(field, format_args!("has {count} entries, at most {max} are allowed")));
                }
            }
            Ok(extras)
        };
        let extras = read().map_err(within)?;
        from.finish().map_err(within)?;
        Ok(extras.boxed())
    }

    /// What lies in a channel's file.
    fn of_channel(&mut self, kind: &str, channel: ChannelNo) -> Result<Line, BadField> {
        let record = match kind {
            "hole" => return Ok(Line::Hole { seq: self.seq()?.get() }),
            "settings" => {
                let settings = ChannelSettings {
                    ban: self.bit("ban")?,
                    disband: self.bit("disband")?,
                    send_ban: self.bit("send_ban")?,
                    large: self.bit("large")?,
                    allow_stranger: self.bit("allow_stranger")?,
                };
                Record::ChannelSettings { channel, settings }
            }
            "message" => Record::Message(self.message(channel)?),
            "members_added" => {
                Record::MembersAdded { channel, join_floor: self.number_or("join_floor", 0)?, uids: self.uids("uids")? }
            }
            "members_removed" => Record::MembersRemoved {
                channel,
                delete_floor: self.number_or("delete_floor", 0)?,
                uids: self.uids("uids")?,
            },
            "listed" => {
                let list = self.text("list")?;
                let list = ChannelList::from_code(&list).ok_or_else(|| is_not("list", "deny or allow"))?;
                Record::ChannelListed { channel, list, on: self.bit("on")?, uids: self.uids("uids")? }
            }
            "read" => Record::ReadPosition { channel, uid: self.uid("uid")?, seq: self.number("message_seq")? },
            "conversation_deleted" => Record::ConversationDeleted {
                channel,
                uid: self.uid("uid")?,
                delete_floor: self.number("delete_floor")?,
            },
            "expired" => {
                let not_seqs = || is_not("message_seqs", "a list of rising numbers");
                let Value::Array(values) = self.some("message_seqs")? else { return Err(not_seqs()) };
                let seqs: Option<Vec<u64>> = values.iter().map(Value::as_u64).collect();
                let seqs = seqs.filter(|seqs| seqs.is_sorted()).ok_or_else(not_seqs)?;
                Record::MessagesExpired { channel, seqs }
            }
            "alias" => {
                let alias = self.text_up_to("alias", TEXT_BYTES_MAX)?;
                if alias.is_empty() {
                    return Err(BadField::new("alias", "is missing"));
                }
                Record::Alias { channel, alias }
            }
            "revoked" => {
                Record::MessageRevoked { channel, seq: self.number("message_seq")?, by: self.uid_or_none("by")? }
            }
            "edited" => Record::MessageEdited {
                channel,
                seq: self.number("message_seq")?,
                by: self.uid_or_none("by")?,
                payload: self.bytes("payload")?,
                extras: self.extras()?,
            },
            "reacted" => {
                let (seq, uid) = (self.number("message_seq")?, self.uid("uid")?);
                let reaction = match self.text_up_to("reaction", TEXT_BYTES_MAX)?.as_str() {
                    "" => None,
                    "like" => Some(Reaction::Like),
                    "dislike" => Some(Reaction::Dislike),
                    _ => return Err(is_not("reaction", "like, dislike or null")),
                };
                Record::MessageReacted { channel, seq, uid, reaction }
            }
            "event" => Record::MessageEvent { channel, seq: self.number("message_seq")?, lane: Box::new(self.lane()?) },
            "role" => {
                let (uid, role) = (self.uid("uid")?, self.text("role")?);
                let role = Role::from_code(&role).ok_or_else(|| is_not("role", "member, admin or owner"))?;
                Record::MemberRole { channel, uid, role }
            }
            "profile" => {
                let mut text = |field| self.text_up_to(field, usize::MAX);
                let profile = ChannelProfile {
                    name: text("name")?,
                    icon: text("icon")?,
                    description: text("description")?,
                    project: text("project")?,
                    creator: self.uid_or_none("creator")?,
                };
                profile.check().map_err(|refusal| BadField::new("name", format_args!("or another: {refusal}")))?;
                Record::ChannelProfile { channel, profile: Box::new(profile) }
            }
            "conversation_flags" => {
                let uid = self.uid("uid")?;
                let flags = ConversationFlags {
                    pinned: self.bit("pinned")?,
                    muted: self.bit("muted")?,
                    request: self.bit("request")?,
                    accepted: self.bit("accepted")?,
                };
                Record::ConversationFlags { channel, uid, flags }
            }
            other => {
                return Err(BadField::new("kind", format_args!("{other:?} has no place here in a channel's file")));
            }
        };
        Ok(Line::Record(record))
    }

    fn message(&mut self, channel: ChannelNo) -> Result<MessageRecord, BadField> {
        let (client_msg_no, from_uid) = (self.text("client_msg_no")?, self.text("from_uid")?);
        // What an import made of a hole is nobody's.
        let was_hole = from_uid.is_empty() && client_msg_no.starts_with(HOLE_NAME);
        Ok(MessageRecord {
            channel,
            message_seq: self.seq()?,
            from_uid: if was_hole { Uid::from_stored("") } else { uid("from_uid", &from_uid)? },
            client_msg_no: ClientMsgNo::new(&client_msg_no).map_err(|error| BadField::new("client_msg_no", error))?,
            flags: MessageFlags { no_persist: false, red_dot: self.bit("red_dot")?, sync_once: self.bit("sync_once")? },
            setting: self.byte_or("setting", 0)?,
            topic: self.text_up_to("topic", TOPIC_BYTES_MAX)?,
            expire_s: u32::try_from(self.number_or("expire_s", 0)?)
                .map_err(|_| is_not("expire_s", "a number below 2^32"))?,
            payload: self.bytes("payload")?,
            extras: self.extras()?,
        })
    }

    /// What lies in a file of the server, or makes a channel.
    fn of_server(&mut self, kind: &str) -> Result<Record, BadField> {
        Ok(match kind {
            "channel" => {
                let number = u32::try_from(self.number("number")?).map_err(|_| is_not("number", "below 2^32"))?;
                Record::ChannelCreated { channel: ChannelNo(number), key: self.key()? }
            }
            "user" => Record::UserCreated { uid: self.uid("uid")? },
            "token" => Record::UserToken {
                uid: self.uid("uid")?,
                device_flag: DeviceFlag(self.byte_or("device_flag", 0)?),
                device_level: self.byte_or("device_level", 0)?,
                token: self.hash_or_none("hash")?,
            },
            "api_key" => {
                let is_bound = self.map.get("namespace").is_some_and(|value| !value.is_null());
                let namespace = self.text_up_to("namespace", TEXT_BYTES_MAX)?;
                Record::ApiKey(ApiKey {
                    key_id: self.text_up_to("key_id", TEXT_BYTES_MAX)?,
                    name: self.text_up_to("name", TEXT_BYTES_MAX)?,
                    secret: self.hash("hash")?,
                    scopes: Scopes { admin: self.bit("admin")?, send: self.bit("send")?, read: self.bit("read")? },
                    namespace: is_bound.then_some(namespace),
                    revoked: self.bit("revoked")?,
                })
            }
            "user_settings" => {
                let (uid, strangers) = (self.uid("uid")?, self.text("strangers")?);
                let strangers = Strangers::from_code(&strangers)
                    .ok_or_else(|| is_not("strangers", "allow, quarantine or block"))?;
                Record::UserSettings { uid, settings: UserSettings { strangers } }
            }
            "relation" => Record::Relation {
                uid: self.uid("uid")?,
                peer: self.uid("peer")?,
                relation: Relation { contact: self.bit("contact")?, blocked: self.bit("blocked")? },
            },
            "file" => Record::File(Box::new(FileRecord {
                file_id: self.file_id("file_id")?,
                uploader: self.uid_or_none("uploader")?,
                name: self.text_up_to("name", FILE_NAME_BYTES_MAX)?,
                mime: self.text_up_to("mime", TEXT_BYTES_MAX)?,
                size: self.number("size")?,
                content: self.hash("content")?,
            })),
            "system_user" => Record::SystemUser { uid: self.uid("uid")?, on: self.bit("on")? },
            "commands_read" => Record::CommandsRead {
                uid: self.uid("uid")?,
                position: self.number("position")?,
                message_id: self.version_of("last_message_id")?.unwrap_or(Version::ZERO),
            },
            "address_blocked" => {
                let address = self.text("address")?.parse().map_err(|_| is_not("address", "an IP address"))?;
                Record::AddressBlocked { address, on: self.bit("on")? }
            }
            "file_removed" => Record::FileRemoved { file_id: self.file_id("file_id")? },
            "break" => {
                let field = |kept: Option<Version>| kept.unwrap_or(Version::ZERO);
                Record::Break { kept: field(self.version_of("kept")?), until: field(self.version_of("until")?) }
            }
            other => return Err(BadField::new("kind", format_args!("{other:?} has no place here"))),
        })
    }

    fn lane(&mut self) -> Result<Lane, BadField> {
        let (status, visibility) = (self.text("status")?, self.text_up_to("visibility", TEXT_BYTES_MAX)?);
        let visibility = if visibility.is_empty() { Visibility::default().code() } else { &visibility };
        let lane = Lane {
            number: self.byte_or("lane", 0)?,
            key: self.text_up_to("event_key", EVENT_KEY_BYTES_MAX)?,
            status: LaneStatus::from_code(&status)
                .ok_or_else(|| is_not("status", "open, closed, error or cancelled"))?,
            seq: self.number("msg_event_seq")?,
            event_id: self.text_up_to("event_id", EVENT_ID_BYTES_MAX)?,
            event_type: self.text_up_to("event_type", EVENT_TYPE_BYTES_MAX)?,
            visibility: Visibility::from_code(visibility)
                .ok_or_else(|| is_not("visibility", "public, private or restricted"))?,
            occurred_at_ms: self.number_or("occurred_at_ms", 0)?,
            end_reason: self.byte_or("end_reason", 0)?,
            error: self.text_up_to("error", usize::MAX)?,
            snapshot: self.bytes("snapshot")?,
        };
        if lane.key.is_empty() {
            return Err(BadField::new("event_key", "is missing"));
        }
        Ok(lane)
    }

    fn key(&mut self) -> Result<ChannelKey, BadField> {
        let id = self.text("channel_id")?;
        let of_type = ChannelType::from_wire(self.byte_or("channel_type", 0)?);
        let channel_type = of_type.map_err(|error| BadField::new("channel_type", error))?;
        let bad = |error| BadField::new("channel_id", error);
        if channel_type != ChannelType::Person {
            let stored = ChannelKey::from_stored(&id, channel_type);
            let bare = protocol::ids::bare_id(&id);
            return ChannelKey::named_in(stored.namespace(), bare, channel_type).map_err(bad);
        }
        let Some((a, b)) = id.split_once('@') else { return Err(is_not("channel_id", "uid@uid")) };
        let key = ChannelKey::person(&uid("channel_id", a)?, &uid("channel_id", b)?);
        match key.channel_id() == id {
            true => Ok(key),
            false => Err(BadField::new("channel_id", format_args!("must be written {:?}", key.channel_id()))),
        }
    }
}

/// A uid with or without its namespace.
fn uid(field: &str, text: &str) -> Result<Uid, BadField> {
    let stored = Uid::from_stored(text);
    Uid::in_namespace(stored.namespace(), stored.bare()).map_err(|error| BadField::new(field, error))
}

#[cfg(test)]
mod tests;
