//! A message as WuKongIM's API shows it ("MessageResp", wukongim-http.md 1.1): one shape for every route that shows
//! messages, and the conversion from the domain's.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use protocol::ids::{FileId, MessageId};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::domain::message::{Extras, FILES_MAX, MENTIONS_MAX, Message, Reaction};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;

/// Standard base64 with or without padding.
const PAYLOAD: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Reads the content of a message.
///
/// # Errors
/// `Invalid`: no base64, or nothing in it.
pub fn payload_of(text: &str) -> Result<Bytes, Problem> {
    let payload = PAYLOAD.decode(text).map_err(|e| Refusal::invalid("payload", format_args!("is not base64: {e}")))?;
    if payload.is_empty() {
        return Err(Refusal::invalid("payload", "is needed").into());
    }
    Ok(Bytes::from(payload))
}

/// What a message refers to, as a request names it. Repeats collapse.
///
/// # Errors
/// `TooMany`, `Invalid` or `Malformed` naming the field.
pub fn extras_of(
    namespace: &Namespace,
    reply_to: Option<MessageId>,
    mentions: &[String],
    mention_all: bool,
    files: &[String],
) -> Result<Option<Box<Extras>>, Problem> {
    if mentions.len() > MENTIONS_MAX {
        return Err(Refusal::TooMany { what: "mentions", max: MENTIONS_MAX }.into());
    }
    if files.len() > FILES_MAX {
        return Err(Refusal::TooMany { what: "files", max: FILES_MAX }.into());
    }
    if reply_to.is_some_and(|id| id > MessageId::MAX) {
        return Err(Refusal::invalid("reply_to", "is not a message_id").into());
    }
    let reply_to = reply_to.filter(|id| *id > MessageId::ZERO);
    let mut extras = Extras { reply_to, mention_all, ..Extras::default() };
    for (i, text) in mentions.iter().enumerate() {
        let uid = namespace.uid(text).map_err(|e| Problem::malformed(format!("mentions[{i}]"), e))?;
        if !extras.mentions.contains(&uid) {
            extras.mentions.push(uid);
        }
    }
    for (i, text) in files.iter().enumerate() {
        let file = FileId::new(text).map_err(|e| Problem::malformed(format!("files[{i}]"), e))?;
        if !extras.files.contains(&file) {
            extras.files.push(file);
        }
    }
    Ok(extras.boxed())
}

/// The header flags, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeaderBody {
    /// Always 0 on a stored message.
    pub no_persist: u8,
    /// 1: counts as unread.
    pub red_dot: u8,
    /// 1: a command.
    pub sync_once: u8,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageBody {
    /// Flags.
    pub header: HeaderBody,
    /// Third parties' byte.
    pub setting: u8,
    /// Unique in the server, below 2^53.
    pub message_id: u64,
    /// The same as text.
    pub message_idstr: String,
    /// The sender's name for it.
    pub client_msg_no: String,
    /// Its place in the channel.
    pub message_seq: u64,
    /// The sender.
    pub from_uid: String,
    /// The channel as the asker knows it: the peer for a person channel.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Topic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Seconds until it expires; 0: never.
    pub expire: u32,
    /// Unix seconds.
    pub timestamp: u64,
    /// Standard base64 of the content; empty when `state` says why.
    pub payload: String,
    /// `expired`, `revoked` or `damaged`; absent for a message as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// message_id of the message it answers or quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<u64>,
    /// Users it mentions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// It mentions every member. Absent: it does not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mention_all: bool,
    /// Files it carries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Version of its last edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<u64>,
    /// Who likes it, in the order they said so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub likes: Vec<String>,
    /// Who dislikes it, in the order they said so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dislikes: Vec<String>,
}

impl MessageBody {
    /// The message as `asker` sees it.
    #[must_use]
    pub fn seen_by(asker: &str, message: &Message) -> Self {
        let extras = message.extras.as_deref();
        let reacted = |reaction: Reaction| {
            let of_kind = message.reactions.iter().filter(move |reacted| reacted.reaction == reaction);
            of_kind.map(|reacted| reacted.uid.bare().to_owned()).collect()
        };
        Self {
            header: HeaderBody {
                no_persist: u8::from(message.flags.no_persist),
                red_dot: u8::from(message.flags.red_dot),
                sync_once: u8::from(message.flags.sync_once),
            },
            setting: message.setting,
            message_id: message.message_id.get(),
            message_idstr: message.message_id.to_string(),
            client_msg_no: message.client_msg_no.as_str().to_owned(),
            message_seq: message.message_seq.get(),
            from_uid: message.from_uid.bare().to_owned(),
            channel_id: message.channel.id_for(asker).to_owned(),
            channel_type: message.channel.channel_type().to_wire(),
            topic: message.topic.clone(),
            expire: message.expire_s,
            timestamp: message.timestamp_ms() / 1_000,
            payload: STANDARD.encode(&message.payload),
            state: message.state.code(),
            reply_to: extras.and_then(|extras| extras.reply_to).map(MessageId::get),
            mentions: extras
                .map_or_else(Vec::new, |extras| extras.mentions.iter().map(|uid| uid.bare().to_owned()).collect()),
            mention_all: extras.is_some_and(|extras| extras.mention_all),
            files: extras.map_or_else(Vec::new, |extras| extras.files.iter().map(ToString::to_string).collect()),
            edited: (message.edited.get() > 0).then_some(message.edited.get()),
            likes: reacted(Reaction::Like),
            dislikes: reacted(Reaction::Dislike),
        }
    }
}

/// The message as its sender sees it, as JSON: the channel_id of a person channel is the receiver (wukongim-http.md section
/// 15, 35).
#[must_use]
pub fn to_sender(message: &Message) -> serde_json::Value {
    // A plain struct with text keys always becomes JSON.
    serde_json::to_value(MessageBody::seen_by(message.from_uid.as_str(), message)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq, Uid, Version};

    use super::*;
    use crate::domain::message::{MessageFlags, MessageState, Reacted};

    #[test]
    fn a_message_has_the_shape_of_the_document() {
        let (alice, bob) = (Uid::from_stored("alice"), Uid::from_stored("bob"));
        let message = Message {
            extras: None,
            edited: Version::ZERO,
            reactions: Vec::new(),
            lanes: Vec::new(),
            channel: ChannelKey::person(&alice, &bob),
            message_seq: MessageSeq::new(7).expect("not zero"),
            message_id: Version::new(1_657_611_272_123_456),
            from_uid: alice,
            client_msg_no: ClientMsgNo::from_stored("c1"),
            flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
            setting: 0x81,
            topic: String::new(),
            expire_s: 0,
            payload: Bytes::from_static(b"{\"type\":1}"),
            state: MessageState::Live,
        };
        let json = serde_json::to_value(MessageBody::seen_by("alice", &message)).expect("serializes");
        assert_eq!(
            json,
            serde_json::json!({
                "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
                "setting": 129,
                "message_id": 1_657_611_272_123_456_u64,
                "message_idstr": "1657611272123456",
                "client_msg_no": "c1",
                "message_seq": 7,
                "from_uid": "alice",
                "channel_id": "bob",
                "channel_type": 1,
                "expire": 0,
                "timestamp": 1_657_611_272,
                "payload": "eyJ0eXBlIjoxfQ==",
            })
        );
        assert_eq!(MessageBody::seen_by("bob", &message).channel_id, "alice");
        let talked_about = Message {
            extras: extras_of(
                &Namespace::DEFAULT,
                Some(MessageId::new(7)),
                &["bob".into(), "bob".into()],
                true,
                &["ab-1".into()],
            )
            .expect("valid"),
            edited: Version::new(9),
            reactions: vec![
                Reacted { uid: Uid::from_stored("eve"), reaction: Reaction::Dislike },
                Reacted { uid: Uid::from_stored("bob"), reaction: Reaction::Like },
            ],
            ..message.clone()
        };
        let json = serde_json::to_value(MessageBody::seen_by("alice", &talked_about)).expect("serializes");
        for (field, expected) in [
            ("reply_to", serde_json::json!(7)),
            ("mentions", serde_json::json!(["bob"])),
            ("mention_all", serde_json::json!(true)),
            ("files", serde_json::json!(["ab-1"])),
            ("edited", serde_json::json!(9)),
            ("likes", serde_json::json!(["bob"])),
            ("dislikes", serde_json::json!(["eve"])),
        ] {
            assert_eq!(json[field], expected, "{field}");
        }
        let gone = Message { state: MessageState::Expired, payload: Bytes::new(), topic: "t".into(), ..message };
        let json = serde_json::to_value(MessageBody::seen_by("bob", &gone)).expect("serializes");
        assert_eq!((&json["state"], &json["payload"], &json["topic"]), (&"expired".into(), &"".into(), &"t".into()));
    }
}
