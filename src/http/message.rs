//! A message as WuKongIM's API shows it ("MessageResp", wukongim-http.md 1.1): one shape for every route that shows
//! messages, and the conversion from the domain's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::message::Message;

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
}

impl MessageBody {
    /// The message as `asker` sees it.
    #[must_use]
    pub fn seen_by(asker: &str, message: &Message) -> Self {
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
            from_uid: message.from_uid.as_str().to_owned(),
            channel_id: message.channel.id_for(asker).to_owned(),
            channel_type: message.channel.channel_type().to_wire(),
            topic: message.topic.clone(),
            expire: message.expire_s,
            timestamp: message.timestamp_ms() / 1_000,
            payload: STANDARD.encode(&message.payload),
            state: message.state.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq, Uid, Version};

    use super::*;
    use crate::domain::message::{MessageFlags, MessageState};

    #[test]
    fn a_message_has_the_shape_of_the_document() {
        let (alice, bob) = (Uid::from_stored("alice"), Uid::from_stored("bob"));
        let message = Message {
            extras: None,
            edited: Version::ZERO,
            reactions: Vec::new(),
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
        let gone = Message { state: MessageState::Expired, payload: Bytes::new(), topic: "t".into(), ..message };
        let json = serde_json::to_value(MessageBody::seen_by("bob", &gone)).expect("serializes");
        assert_eq!((&json["state"], &json["payload"], &json["topic"]), (&"expired".into(), &"".into(), &"t".into()));
    }
}
