//! JSON of reading messages (wukongim-http.md 5.3, 5.4).

use protocol::ids::MessageId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::dialects::message_id;
use crate::http::envelope::Done;
use crate::http::extract::{flag, null_is_zero};
use crate::http::message::MessageBody;

/// Which messages of a channel a page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncRange {
    /// Inclusive; 0 with end 0: the newest.
    pub start_message_seq: u64,
    /// Exclusive; 0: none.
    pub end_message_seq: u64,
    /// 0 means 100; at most 10,000.
    pub limit: u32,
    /// Towards newer.
    pub pull_mode: bool,
    /// Without the contents of lanes.
    pub basic: bool,
}

fn is_basic(event_summary_mode: &str) -> bool {
    event_summary_mode.trim().eq_ignore_ascii_case("basic")
}

/// `POST /channel/messagesync`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSyncQuery {
    /// Who reads. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Inclusive; 0 with end 0: the newest.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub start_message_seq: u64,
    /// Exclusive; 0: none.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub end_message_seq: u64,
    /// 0 means 100; at most 10,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// 0: towards older, 1: towards newer.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub pull_mode: bool,
    /// `basic`: `event_meta` without snapshots; anything else: with.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_summary_mode: String,
    /// Left aside: `event_meta` is there where there were events.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    #[expect(dead_code, reason = "read so that it is checked")]
    pub include_event_meta: bool,
}

impl MessageSyncQuery {
    /// Which messages.
    pub fn range(&self) -> SyncRange {
        let &Self { start_message_seq, end_message_seq, limit, pull_mode, .. } = self;
        let basic = is_basic(&self.event_summary_mode);
        SyncRange { start_message_seq, end_message_seq, limit, pull_mode, basic }
    }
}

/// The answer of `POST /channel/messagesync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageSyncPage {
    /// Echoed.
    pub start_message_seq: u64,
    /// Echoed.
    pub end_message_seq: u64,
    /// 0 or 1. Whether the page is full and there may be more.
    pub more: u8,
    /// Ascending by message_seq.
    pub messages: Vec<crate::http::message::MessageBody>,
}

/// A page of `POST /channel/messagesyncbatch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSyncWanted {
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Inclusive; 0 with end 0: the newest.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub start_message_seq: u64,
    /// Exclusive; 0: none.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub end_message_seq: u64,
    /// 0 means 100; at most 10,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u32,
    /// 0: towards older, 1: towards newer.
    #[serde(default, deserialize_with = "flag")]
    #[schema(value_type = u8)]
    pub pull_mode: bool,
    /// `basic`: `event_meta` without snapshots; anything else: with.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub event_summary_mode: String,
}

impl MessageSyncWanted {
    /// Which messages.
    pub fn range(&self) -> SyncRange {
        let &Self { start_message_seq, end_message_seq, limit, pull_mode, .. } = self;
        let basic = is_basic(&self.event_summary_mode);
        SyncRange { start_message_seq, end_message_seq, limit, pull_mode, basic }
    }
}

/// `POST /channel/messagesyncbatch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageSyncBatch {
    /// Who reads. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// Pages, at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub items: Vec<MessageSyncWanted>,
}

/// A page in the answer of `POST /channel/messagesyncbatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageSyncItem {
    /// Echoed.
    pub channel_id: String,
    /// Echoed.
    pub channel_type: u8,
    /// Echoed.
    pub start_message_seq: u64,
    /// Echoed.
    pub end_message_seq: u64,
    /// 0 or 1. Whether the page is full and there may be more.
    pub more: u8,
    /// Ascending by message_seq.
    pub messages: Vec<MessageBody>,
    /// What is wrong with this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer of `POST /channel/messagesyncbatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageSyncPages {
    /// In the order asked for.
    pub items: Vec<MessageSyncItem>,
}

/// `GET /channel/max_message_seq` and `GET /channel/last_message`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LastMessageQuery {
    /// Who reads. With an API key or an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// The channel; for a person channel the peer's uid, or without `login_uid` its canonical id.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
}

/// The answer of `GET /channel/max_message_seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MaxMessageSeq {
    /// 0: none.
    pub message_seq: u64,
}

/// A message_id as number or text.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct MessageIdOrText(#[serde(deserialize_with = "message_id")] pub Option<MessageId>);

/// `POST /messages`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessagesWanted {
    /// Who reads. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// By seq.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_seqs: Vec<u64>,
    /// By id, as number or text.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub message_ids: Vec<MessageIdOrText>,
    /// By its sender's name for it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_nos: Vec<String>,
}

/// `POST /message`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageWanted {
    /// Who reads. With an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// The channel; for a person channel the peer's uid.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// By id, as number or text.
    #[serde(default, deserialize_with = "message_id")]
    #[schema(value_type = u64)]
    pub message_id: Option<MessageId>,
    /// By its sender's name for it, where there is no id.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_no: String,
}

/// `GET /message/byclientmsgno`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct NamedMessageQuery {
    /// Who reads. With an API key or an own credential: may be left out.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub login_uid: String,
    /// The channel; for a person channel the peer's uid, or without `login_uid` its canonical id.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub channel_type: u8,
    /// Its sender's name for it.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub client_msg_no: String,
}

/// A message, or `{"status":404}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum MessageFound {
    /// It.
    Message(Box<MessageBody>),
    /// There is none.
    None(Done),
}

impl From<Option<MessageBody>> for MessageFound {
    fn from(found: Option<MessageBody>) -> Self {
        match found {
            Some(message) => Self::Message(Box::new(message)),
            None => Self::None(Done { status: 404 }),
        }
    }
}
