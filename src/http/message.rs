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
use crate::domain::event::{KEY_DEFAULT, KEY_FINISH, Lane};
use crate::domain::message::{Extras, FILES_MAX, MENTIONS_MAX, Message, Reaction};
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;

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
    /// 1: the lane `main` of its stream is over. As the three below: what clients show that know nothing of lanes.
    #[serde(skip_serializing_if = "is_zero")]
    pub end: u8,
    /// Why it ended, as its sender numbers reasons.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_reason: u8,
    /// The error it ended with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Standard base64 of its text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_data: String,
    /// What its events came to; absent: there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_meta: Option<EventMeta>,
    /// What to ask `/message/eventsync` for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_sync_hint: Option<EventSyncHint>,
}

fn is_zero(number: &impl PartialEq<u8>) -> bool {
    *number == 0
}

/// What a message's events came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventMeta {
    /// Always true.
    pub has_events: bool,
    /// `stream.finish` came.
    pub completed: bool,
    /// The same as `last_msg_event_seq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_version: Option<u64>,
    /// Number of the last stored event of the lanes shown; absent: none is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_msg_event_seq: Option<u64>,
    /// How many lanes are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_count: Option<usize>,
    /// How many of them are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_event_count: Option<usize>,
    /// The lanes, ordered by key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventKeyMeta>,
}

/// What a lane's events came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventKeyMeta {
    /// The lane.
    pub event_key: String,
    /// `open`, `closed`, `error` or `cancelled`.
    pub status: String,
    /// Number of its last stored event; absent: none is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_msg_event_seq: Option<u64>,
    /// The merged content.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub snapshot: Option<serde_json::Value>,
    /// Why it ended, as its sender numbers reasons; absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<u8>,
    /// The error it ended with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What to ask `/message/eventsync` for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventSyncHint {
    /// The message.
    pub client_msg_no: String,
    /// Always 0.
    pub from_msg_event_seq: u64,
}

/// A snapshot as JSON; what is none, as text.
#[must_use]
pub fn snapshot_of(lane: &Lane) -> Option<serde_json::Value> {
    let as_text = |_| String::from_utf8_lossy(&lane.snapshot).into_owned().into();
    (!lane.snapshot.is_empty()).then(|| serde_json::from_slice(&lane.snapshot).unwrap_or_else(as_text))
}

fn event_meta(lanes: &[&Lane]) -> Option<EventMeta> {
    if lanes.is_empty() {
        return None;
    }
    let some = |number: usize| (number > 0).then_some(number);
    let seq_of = |lane: &Lane| (lane.seq > 0).then_some(lane.seq);
    let mut shown: Vec<&Lane> = lanes.iter().copied().filter(|lane| lane.key != KEY_FINISH).collect();
    shown.sort_by(|a, b| a.key.cmp(&b.key));
    let last = shown.iter().filter_map(|lane| seq_of(lane)).max();
    let events = shown.iter().map(|lane| EventKeyMeta {
        event_key: lane.key.clone(),
        status: lane.status.code().to_owned(),
        last_msg_event_seq: seq_of(lane),
        snapshot: snapshot_of(lane),
        end_reason: (lane.end_reason > 0).then_some(lane.end_reason),
        error: lane.error.clone(),
    });
    Some(EventMeta {
        has_events: true,
        completed: shown.len() < lanes.len(),
        event_version: last,
        last_msg_event_seq: last,
        event_count: some(shown.len()),
        open_event_count: some(shown.iter().filter(|lane| !lane.status.is_over()).count()),
        events: events.collect(),
    })
}

/// Who a message is shown to.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The user; of a back end that names none, empty.
    pub uid: &'a str,
    /// Messages of the built-in system user name no sender.
    pub blank_system: bool,
}

impl<'a> From<&'a str> for Asker<'a> {
    fn from(uid: &'a str) -> Self {
        Self { uid, blank_system: false }
    }
}

impl MessageBody {
    /// The message as `asker` sees it.
    #[must_use]
    pub fn seen_by<'a>(asker: impl Into<Asker<'a>>, message: &Message) -> Self {
        let Asker { uid: asker, blank_system } = asker.into();
        let from_uid = message.from_uid.bare();
        let from_uid = if blank_system && from_uid == SYSTEM_UID { "" } else { from_uid };
        let extras = message.extras.as_deref();
        let reacted = |reaction: Reaction| {
            let of_kind = message.reactions.iter().filter(move |reacted| reacted.reaction == reaction);
            of_kind.map(|reacted| reacted.uid.bare().to_owned()).collect()
        };
        let lanes: Vec<&Lane> =
            message.lanes.iter().filter(|lane| lane.is_shown_to(&message.from_uid, asker)).collect();
        let main = lanes.iter().find(|lane| lane.key == KEY_DEFAULT);
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
            from_uid: from_uid.to_owned(),
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
            end: u8::from(main.is_some_and(|lane| lane.status.is_over())),
            end_reason: main.map_or(0, |lane| lane.end_reason),
            error: main.map_or_else(String::new, |lane| lane.error.clone()),
            stream_data: main.map_or_else(String::new, |lane| STANDARD.encode(lane.plain())),
            event_sync_hint: (!lanes.is_empty()).then(|| EventSyncHint {
                client_msg_no: message.client_msg_no.as_str().to_owned(),
                from_msg_event_seq: 0,
            }),
            event_meta: event_meta(&lanes),
        }
    }

    /// The message without the contents of its lanes: `event_summary_mode` basic.
    #[must_use]
    pub fn without_snapshots(mut self) -> Self {
        for lane in self.event_meta.iter_mut().flat_map(|meta| &mut meta.events) {
            lane.snapshot = None;
        }
        self
    }
}

/// The message as its sender sees it, as JSON: the channel_id of a person channel is the receiver (wukongim-http.md section
/// 15, 35). Without what its events came to: webhooks tell of messages.
#[must_use]
pub fn to_sender(message: &Message) -> serde_json::Value {
    of_sender(message, false)
}

/// As [`to_sender`], and nobody is named where the built-in system user is the sender (`wukong.blank_system_uid`).
#[must_use]
pub fn to_sender_or_blank(message: &Message) -> serde_json::Value {
    of_sender(message, true)
}

fn of_sender(message: &Message, blank_system: bool) -> serde_json::Value {
    let bare;
    let message = match message.lanes.is_empty() {
        true => message,
        false => {
            bare = Message { lanes: Vec::new(), ..message.clone() };
            &bare
        }
    };
    // A plain struct with text keys always becomes JSON.
    serde_json::to_value(MessageBody::seen_by(Asker { uid: message.from_uid.as_str(), blank_system }, message))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq, Uid, Version};

    use super::*;
    use crate::domain::event::{LaneStatus, Visibility};
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
        let lane = |key: &str, status, seq, visibility, snapshot: &'static str| Lane {
            key: key.into(),
            status,
            seq,
            visibility,
            snapshot: Bytes::from_static(snapshot.as_bytes()),
            ..Lane::default()
        };
        let (open, closed, error) = (LaneStatus::Open, LaneStatus::Closed, LaneStatus::Error);
        let (public, private) = (Visibility::Public, Visibility::Private);
        let text = r#"{"kind":"text","text":"Hi"}"#;
        let main = Lane { end_reason: 2, error: "late".into(), ..lane("main", error, 3, public, text) };
        let lanes = vec![
            main,
            lane("thoughts", closed, 4, private, r#"{"kind":"note"}"#),
            lane("also", open, 0, public, "no JSON"),
            lane(KEY_FINISH, closed, 5, public, ""),
        ];
        let streamed = Message { lanes, ..message.clone() };
        let shown = |body: MessageBody| serde_json::to_value(body).expect("serializes");
        let json = shown(MessageBody::seen_by("bob", &streamed));
        let main = serde_json::json!({
            "event_key": "main", "status": "error", "last_msg_event_seq": 3, "snapshot": {"kind": "text", "text": "Hi"},
            "end_reason": 2, "error": "late",
        });
        let also = serde_json::json!({"event_key": "also", "status": "open", "snapshot": "no JSON"});
        for (field, expected) in [
            ("end", serde_json::json!(1)),
            ("end_reason", serde_json::json!(2)),
            ("error", serde_json::json!("late")),
            ("stream_data", serde_json::json!("SGk=")),
            ("event_sync_hint", serde_json::json!({"client_msg_no": "c1", "from_msg_event_seq": 0})),
            (
                "event_meta",
                serde_json::json!({
                    "has_events": true, "completed": true, "event_version": 3, "last_msg_event_seq": 3, "event_count": 2,
                    "open_event_count": 1, "events": [also, main],
                }),
            ),
        ] {
            assert_eq!(json[field], expected, "{field}");
        }
        // The sender sees the lanes that are the sender's alone.
        let json = shown(MessageBody::seen_by("alice", &streamed).without_snapshots());
        assert_eq!(json["event_meta"]["events"][2]["event_key"], "thoughts");
        assert!(json["event_meta"]["events"][1].get("snapshot").is_none());
        assert_eq!(to_sender(&streamed), shown(MessageBody::seen_by("alice", &message)), "webhooks tell of messages");
        let hidden = Message { lanes: vec![lane("main", open, 1, private, text)], ..message.clone() };
        assert_eq!(shown(MessageBody::seen_by("bob", &hidden)), shown(MessageBody::seen_by("bob", &message)));
        let gone = Message { state: MessageState::Expired, payload: Bytes::new(), topic: "t".into(), ..message };
        let json = serde_json::to_value(MessageBody::seen_by("bob", &gone)).expect("serializes");
        assert_eq!((&json["state"], &json["payload"], &json["topic"]), (&"expired".into(), &"".into(), &"t".into()));
    }
}
