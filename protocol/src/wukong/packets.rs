//! The packets, as both ends see them. Fields stand in the order of the wire; widths are in the drawings of the structs,
//! conditions in brackets. Strings and payloads borrow from the bytes they were decoded from.

use std::borrow::Cow;

use super::words::{Flags, Kind, Reason, Setting};

/// A packet of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Client: first packet.
    Connect(Connect<'a>),
    /// Server: its answer.
    ConnAck(ConnAck<'a>),
    /// Client: a message.
    Send(Send<'a>),
    /// Server: its answer.
    SendAck(SendAck<'a>),
    /// Server: a message.
    Recv(Recv<'a>),
    /// Client: it has it.
    RecvAck(RecvAck),
    /// Client: is the server there?
    Ping,
    /// Server: it is.
    Pong,
    /// Server (in JSON-RPC also the client): the end.
    Disconnect(Disconnect<'a>),
    /// Client: a data channel, please.
    Sub(Sub<'a>),
    /// Server: its answer.
    SubAck(SubAck<'a>),
    /// Server: something happened.
    Event(Event<'a>),
    /// A packet of type 0 or 13 to 15: to be skipped once the session is authenticated (wukongim-wire.md 6.6). Not written.
    Unknown {
        /// The type.
        number: u8,
    },
}

impl Packet<'_> {
    /// Its type; `None` for one nobody knows.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Connect(_) => Kind::Connect,
            Self::ConnAck(_) => Kind::ConnAck,
            Self::Send(_) => Kind::Send,
            Self::SendAck(_) => Kind::SendAck,
            Self::Recv(_) => Kind::Recv,
            Self::RecvAck(_) => Kind::RecvAck,
            Self::Ping => Kind::Ping,
            Self::Pong => Kind::Pong,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Sub(_) => Kind::Sub,
            Self::SubAck(_) => Kind::SubAck,
            Self::Event(_) => Kind::Event,
            Self::Unknown { .. } => return None,
        })
    }
}

/// CONNECT.
///
/// ```text
/// u8 version · u8 device_flag · str device_id · str uid · str token · i64 client_timestamp · str client_key
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connect<'a> {
    /// The highest version the client speaks; 0: the latest.
    pub version: u8,
    /// 0 app, 1 web, 2 PC, 99 system.
    pub device_flag: u8,
    /// The device; web clients make a new one for every connection.
    pub device_id: Cow<'a, str>,
    /// The user.
    pub uid: Cow<'a, str>,
    /// What proves it.
    pub token: Cow<'a, str>,
    /// The client's clock in ms; some clients give seconds. Good for `time_diff` only.
    pub client_timestamp: i64,
    /// Standard base64 of its X25519 public key; empty without encryption.
    pub client_key: Cow<'a, str>,
}

/// CONNACK.
///
/// ```text
/// [u8 server_version — header bit 0] · i64 time_diff · u8 reason · str server_key · str salt · [u64 node_id — v4..]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck<'a> {
    /// The negotiated version. `Some` for sessions whose version [`super::Version::is_told`] only.
    pub server_version: Option<u8>,
    /// The server's clock less the client's, in ms.
    pub time_diff: i64,
    /// Success, or why not.
    pub reason: Reason,
    /// Standard base64 of the server's X25519 public key; empty without encryption.
    pub server_key: Cow<'a, str>,
    /// The IV of all payloads, 16 characters; empty without encryption.
    pub salt: Cow<'a, str>,
    /// The node; not on the wire before version 4.
    pub node_id: u64,
}

/// SEND.
///
/// ```text
/// u8 setting · u32 client_seq · str client_msg_no · [str stream_no — v2..4, bit 02] · str channel_id · u8 channel_type
/// · [u32 expire — v3..] · str msg_key · [str topic — bit 08] · rest payload
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Send<'a> {
    /// Header bits.
    pub flags: Flags,
    /// Options.
    pub setting: Setting,
    /// The client's number, echoed in SENDACK.
    pub client_seq: u32,
    /// The client's name for it, the dedupe key.
    pub client_msg_no: Cow<'a, str>,
    /// The stream it belongs to; empty when absent.
    pub stream_no: Cow<'a, str>,
    /// The channel: of a person channel the peer's uid or the canonical id of the pair.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Seconds it lives; 0: for good, or absent.
    pub expire: u32,
    /// 32 hex digits, see [`super::Cipher::send_key`]; empty without encryption.
    pub msg_key: Cow<'a, str>,
    /// The topic; empty when absent.
    pub topic: Cow<'a, str>,
    /// As it stands on the wire: under a cipher base64 text, see [`super::Cipher::open_send`].
    pub payload: Cow<'a, [u8]>,
}

/// SENDACK. The tail is written when it is not empty; sessions of version 6 need it, others skip it.
///
/// ```text
/// i64 message_id · u32 client_seq · u32|u64 message_seq · u8 reason · [str client_msg_no]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendAck<'a> {
    /// Header bits; no client looks.
    pub flags: Flags,
    /// The message; 0 when there is none.
    pub message_id: i64,
    /// The SEND's.
    pub client_seq: u32,
    /// Its position; 0 when it has none.
    pub message_seq: u64,
    /// Success, or why not.
    pub reason: Reason,
    /// The SEND's.
    pub client_msg_no: Cow<'a, str>,
}

/// RECV.
///
/// ```text
/// u8 setting · str msg_key · str from_uid · str channel_id · u8 channel_type · [u32 expire — v3..] · str client_msg_no
/// · [u8 stream_flag · str stream_no · u64 stream_id — v2..4, bit 02] · i64 message_id · u32|u64 message_seq
/// · i32 timestamp · [str topic — bit 08] · rest payload
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recv<'a> {
    /// Header bits.
    pub flags: Flags,
    /// Options.
    pub setting: Setting,
    /// 32 hex digits, see [`super::Cipher::recv_key`]; empty without encryption.
    pub msg_key: Cow<'a, str>,
    /// The sender.
    pub from_uid: Cow<'a, str>,
    /// The channel as the receiver sees it.
    pub channel_id: Cow<'a, str>,
    /// 1 person, 2 group, …
    pub channel_type: u8,
    /// Seconds it lives; 0: for good, or absent.
    pub expire: u32,
    /// The sender's name for it.
    pub client_msg_no: Cow<'a, str>,
    /// The stream it belongs to; all zero when absent.
    pub stream: Stream<'a>,
    /// The message.
    pub message_id: i64,
    /// Its position; 0: not stored.
    pub message_seq: u64,
    /// When it was stored, Unix seconds.
    pub timestamp: i32,
    /// The topic; empty when absent.
    pub topic: Cow<'a, str>,
    /// As it stands on the wire: under a cipher base64 text, see [`super::Cipher::open_recv`].
    pub payload: Cow<'a, [u8]>,
}

/// The stream fields of RECV in versions 2 to 4. The npm package of version 2 has others under another bit, so a server
/// sends none (wukongim-wire.md part D, 16).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream<'a> {
    /// 0 start, 1 going on, 2 end.
    pub flag: u8,
    /// The stream.
    pub no: Cow<'a, str>,
    /// Number within it.
    pub id: u64,
}

/// RECVACK.
///
/// ```text
/// i64 message_id · u32|u64 message_seq
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecvAck {
    /// Header bits, echoed from the RECV.
    pub flags: Flags,
    /// The message.
    pub message_id: i64,
    /// Its position.
    pub message_seq: u64,
}

/// DISCONNECT: `u8 reason · str text`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub text: Cow<'a, str>,
}

/// SUB. Never encrypted.
///
/// ```text
/// u8 setting · str sub_no · str channel_id · u8 channel_type · u8 action · str param
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sub<'a> {
    /// Options.
    pub setting: Setting,
    /// The client's name for the request.
    pub sub_no: Cow<'a, str>,
    /// The channel; may carry a query behind `?`.
    pub channel_id: Cow<'a, str>,
    /// 7: data.
    pub channel_type: u8,
    /// 0 subscribe, 1 unsubscribe.
    pub action: u8,
    /// JSON, or anything.
    pub param: Cow<'a, str>,
}

/// SUBACK.
///
/// ```text
/// str sub_no · str channel_id · u8 channel_type · u8 action · u8 reason
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubAck<'a> {
    /// The SUB's.
    pub sub_no: Cow<'a, str>,
    /// The SUB's, without its query.
    pub channel_id: Cow<'a, str>,
    /// The SUB's.
    pub channel_type: u8,
    /// The SUB's.
    pub action: u8,
    /// Success, or why not.
    pub reason: Reason,
}

/// EVENT. Never encrypted, never acknowledged, not for clients of version 2.
///
/// ```text
/// str id · str type · i64 timestamp · rest data
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event<'a> {
    /// Unique.
    pub id: Cow<'a, str>,
    /// What happened, such as `stream.delta`.
    pub event_type: Cow<'a, str>,
    /// When, Unix ms.
    pub timestamp: i64,
    /// JSON text: the JavaScript client throws on anything else.
    pub data: Cow<'a, [u8]>,
}
