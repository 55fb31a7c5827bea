//! Texts to packets. The envelope is read once, parameters once more out of the same text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{MessageId, Text, either_spelling, payload};
use super::{ID_BYTES_MAX, MESSAGE_BYTES_MAX, RpcError};
use crate::wukong::{
    ConnAck, Connect, Disconnect, Event, Flags, Packet, Reason, Recv, RecvAck, Send, SendAck, Setting, Stream,
};

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// To be echoed in the answer; `None`: it wants none. Always there with `connect`.
    pub id: Option<Cow<'a, str>>,
    /// CONNECT, SEND (client_seq 0, payload in the clear), RECVACK, PING or DISCONNECT.
    pub packet: Packet<'a>,
}

/// What a server says. For clients, examples and tests.
#[derive(Debug, Clone)]
pub enum ServerMessage<'a> {
    /// The answer to a request.
    Answer {
        /// The request's id.
        id: Cow<'a, str>,
        /// What it asked for, or why not.
        outcome: Result<Answer<'a>, Failure>,
    },
    /// RECV (payload in the clear), EVENT or DISCONNECT.
    Notice(Packet<'a>),
}

/// A `result`: of what, only the asker knows.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a>(Option<&'a RawValue>);

/// An `error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Failure {
    /// A reason code; 0: the request could not be read.
    pub code: i64,
    /// For people.
    #[serde(default)]
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

either_spelling! { ConnectParams {
    version: u8 = "version",
    uid: Text<'a> = "uid",
    token: Text<'a> = "token",
    device_id: Text<'a> = "deviceId" | "device_id",
    device_flag: u8 = "deviceFlag" | "device_flag",
    client_timestamp: i64 = "clientTimestamp" | "client_timestamp",
    client_key: Text<'a> = "clientKey" | "client_key",
} }

either_spelling! { SendParams {
    header: Header<'a> = "header",
    setting: Settings<'a> = "setting",
    client_msg_no: Text<'a> = "clientMsgNo" | "client_msg_no",
    stream_no: Text<'a> = "streamNo" | "stream_no",
    channel_id: Text<'a> = "channelId" | "channel_id",
    channel_type: u8 = "channelType" | "channel_type",
    expire: u32 = "expire",
    msg_key: Text<'a> = "msgKey" | "msg_key",
    topic: Text<'a> = "topic",
    payload: &'a RawValue = "payload",
} }

either_spelling! { RecvParams {
    header: Header<'a> = "header",
    setting: Settings<'a> = "setting",
    message_id: MessageId = "messageId" | "message_id",
    message_seq: u64 = "messageSeq" | "message_seq",
    client_msg_no: Text<'a> = "clientMsgNo" | "client_msg_no",
    timestamp: i32 = "timestamp",
    channel_id: Text<'a> = "channelId" | "channel_id",
    channel_type: u8 = "channelType" | "channel_type",
    from_uid: Text<'a> = "fromUid" | "from_uid",
    expire: u32 = "expire",
    topic: Text<'a> = "topic",
    payload: &'a RawValue = "payload",
} }

either_spelling! { Acked {
    header: Header<'a> = "header",
    message_id: MessageId = "messageId" | "message_id",
    message_seq: u64 = "messageSeq" | "message_seq",
    reason: u8 = "reasonCode" | "reason_code",
} }

either_spelling! { Ended {
    reason: u8 = "reasonCode" | "reason_code",
    text: Text<'a> = "reason",
} }

either_spelling! { Connected {
    server_version: u8 = "serverVersion" | "server_version",
    server_key: Text<'a> = "serverKey" | "server_key",
    salt: Text<'a> = "salt",
    time_diff: i64 = "timeDiff" | "time_diff",
    reason: u8 = "reasonCode" | "reason_code",
    node_id: u64 = "nodeId" | "node_id",
} }

either_spelling! { Happened {
    id: Text<'a> = "id",
    event_type: Text<'a> = "type",
    timestamp: i64 = "timestamp",
    data: &'a RawValue = "data",
} }

either_spelling! { Header {
    no_persist: bool = "noPersist" | "no_persist",
    red_dot: bool = "redDot" | "red_dot",
    sync_once: bool = "syncOnce" | "sync_once",
    dup: bool = "dup" | "DUP",
} }

either_spelling! { Settings {
    receipt: bool = "receipt",
    signal: bool = "signal",
    stream: bool = "stream",
    topic: bool = "topic",
} }

/// Decodes a client's message. The opcode it came in says nothing (wukongim-wire.md 7).
///
/// # Errors
/// [`RpcError::Malformed`] and [`RpcError::TooLarge`] (close), [`RpcError::Request`] (answered, the connection stays).
pub fn decode_client(bytes: &[u8]) -> Result<ClientMessage<'_>, RpcError> {
    let envelope = envelope(bytes)?;
    let id = id(&envelope)?;
    match packet_of(&envelope, id.is_some()) {
        Ok(packet) => Ok(ClientMessage { id, packet }),
        Err(reason) => Err(RpcError::Request { id: id.map(Cow::into_owned), reason }),
    }
}

/// Decodes a server's message. For clients, examples and tests.
///
/// # Errors
/// [`RpcError::Malformed`], [`RpcError::TooLarge`], and [`RpcError::Request`] for a message of a known kind that cannot be
/// read.
pub fn decode_server(bytes: &[u8]) -> Result<ServerMessage<'_>, RpcError> {
    let envelope = envelope(bytes)?;
    let id = id(&envelope)?;
    let fault = |reason: String| RpcError::Request { id: None, reason };
    if let Some(id) = id {
        let outcome = match envelope.error {
            None => Ok(Answer(envelope.result)),
            Some(error) => Err(serde_json::from_str(error.get()).map_err(|error| fault(error.to_string()))?),
        };
        return Ok(ServerMessage::Answer { id, outcome });
    }
    let Text(method) = method(&envelope).map_err(fault)?;
    let params = envelope.params;
    let packet = match &*method {
        "recv" => read(params).and_then(recv),
        "event" => read(params).and_then(event),
        "disconnect" => read(params).map(disconnect),
        _ => Err(unknown(&method)),
    };
    packet.map(ServerMessage::Notice).map_err(fault)
}

impl Answer<'_> {
    /// As the answer to `connect`.
    ///
    /// # Errors
    /// [`RpcError::Request`].
    pub fn connack(&self) -> Result<ConnAck<'static>, RpcError> {
        let fields: Connected<'_> = read(self.0).map_err(|reason| RpcError::Request { id: None, reason })?;
        Ok(ConnAck {
            server_version: fields.server_version,
            time_diff: fields.time_diff.unwrap_or(0),
            reason: Reason(fields.reason.unwrap_or(0)),
            server_key: Cow::Owned(fields.server_key.unwrap_or_default().0.into_owned()),
            salt: Cow::Owned(fields.salt.unwrap_or_default().0.into_owned()),
            node_id: fields.node_id.unwrap_or(0),
        })
    }

    /// As the answer to `send`.
    ///
    /// # Errors
    /// [`RpcError::Request`].
    pub fn sendack(&self) -> Result<SendAck<'static>, RpcError> {
        let fields: Acked<'_> = read(self.0).map_err(|reason| RpcError::Request { id: None, reason })?;
        Ok(SendAck {
            flags: flags(fields.header),
            message_id: fields.message_id.map_or(0, |id| id.0),
            message_seq: fields.message_seq.unwrap_or(0),
            reason: Reason(fields.reason.unwrap_or(0)),
            ..SendAck::default()
        })
    }
}

fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, RpcError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(RpcError::TooLarge { bytes: bytes.len(), max: MESSAGE_BYTES_MAX });
    }
    let malformed = |reason: String| RpcError::Malformed { reason };
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    if !text.trim_ascii_start().starts_with('{') {
        // The library would also read an array as the fields in their order.
        return Err(malformed("not an object".to_owned()));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    match envelope.jsonrpc.map(RawValue::get) {
        None | Some("\"2.0\"") => Ok(envelope),
        Some(_) => Err(malformed("jsonrpc is not \"2.0\"".to_owned())),
    }
}

fn id<'a>(envelope: &Envelope<'a>) -> Result<Option<Cow<'a, str>>, RpcError> {
    let fault = |reason: &str| RpcError::Request { id: None, reason: reason.to_owned() };
    let Some(raw) = envelope.id else { return Ok(None) };
    let Text(id) = serde_json::from_str(raw.get()).map_err(|_| fault("id: not a string"))?;
    if id.len() > ID_BYTES_MAX {
        return Err(fault("id: longer than 128 bytes"));
    }
    Ok(Some(id))
}

fn method<'a>(envelope: &Envelope<'a>) -> Result<Text<'a>, String> {
    let raw = envelope.method.ok_or_else(|| "method: is missing".to_owned())?;
    serde_json::from_str(raw.get()).map_err(|_| "method: not a string".to_owned())
}

fn unknown(method: &str) -> String {
    let shown: String = method.chars().take(64).collect();
    format!("unknown method {shown:?}")
}

/// Parameters or a result; absent ones are an object without fields.
fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<T, String> {
    serde_json::from_str(raw.map_or("{}", RawValue::get)).map_err(|error| error.to_string())
}

fn packet_of<'a>(envelope: &Envelope<'a>, has_id: bool) -> Result<Packet<'a>, String> {
    let Text(method) = method(envelope)?;
    let params = envelope.params;
    match &*method {
        "connect" if !has_id => Err("id: is missing".to_owned()),
        "connect" => read(params).and_then(connect),
        "send" => read(params).and_then(send),
        "recvack" => read(params).and_then(recvack),
        // Its parameters mean nothing.
        "ping" => Ok(Packet::Ping),
        "disconnect" => read(params).map(disconnect),
        _ => Err(unknown(&method)),
    }
}

fn need<T>(field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("{field}: is missing"))
}

fn connect(fields: ConnectParams<'_>) -> Result<Packet<'_>, String> {
    Ok(Packet::Connect(Connect {
        version: fields.version.unwrap_or(0),
        device_flag: fields.device_flag.unwrap_or(0),
        device_id: fields.device_id.unwrap_or_default().0,
        uid: need("uid", fields.uid)?.0,
        token: fields.token.unwrap_or_default().0,
        client_timestamp: fields.client_timestamp.unwrap_or(0),
        client_key: fields.client_key.unwrap_or_default().0,
    }))
}

fn send(fields: SendParams<'_>) -> Result<Packet<'_>, String> {
    let topic = fields.topic.unwrap_or_default().0;
    Ok(Packet::Send(Send {
        flags: flags(fields.header),
        setting: setting(fields.setting, &topic),
        client_seq: 0,
        client_msg_no: fields.client_msg_no.unwrap_or_default().0,
        stream_no: fields.stream_no.unwrap_or_default().0,
        channel_id: need("channelId", fields.channel_id)?.0,
        channel_type: need("channelType", fields.channel_type)?,
        expire: fields.expire.unwrap_or(0),
        msg_key: fields.msg_key.unwrap_or_default().0,
        topic,
        payload: fields.payload.map_or(Ok(Cow::Borrowed(&[] as &[u8])), payload)?,
    }))
}

fn recvack(fields: Acked<'_>) -> Result<Packet<'_>, String> {
    Ok(Packet::RecvAck(RecvAck {
        flags: flags(fields.header),
        message_id: need("messageId", fields.message_id)?.0,
        message_seq: fields.message_seq.unwrap_or(0),
    }))
}

fn disconnect(fields: Ended<'_>) -> Packet<'_> {
    Packet::Disconnect(Disconnect {
        reason: Reason(fields.reason.unwrap_or(0)),
        text: fields.text.unwrap_or_default().0,
    })
}

fn recv(fields: RecvParams<'_>) -> Result<Packet<'_>, String> {
    let topic = fields.topic.unwrap_or_default().0;
    Ok(Packet::Recv(Recv {
        flags: flags(fields.header),
        setting: setting(fields.setting, &topic),
        msg_key: Cow::Borrowed(""),
        from_uid: fields.from_uid.unwrap_or_default().0,
        channel_id: need("channelId", fields.channel_id)?.0,
        channel_type: need("channelType", fields.channel_type)?,
        expire: fields.expire.unwrap_or(0),
        client_msg_no: fields.client_msg_no.unwrap_or_default().0,
        stream: Stream::default(),
        message_id: need("messageId", fields.message_id)?.0,
        message_seq: fields.message_seq.unwrap_or(0),
        timestamp: fields.timestamp.unwrap_or(0),
        topic,
        payload: fields.payload.map_or(Ok(Cow::Borrowed(&[] as &[u8])), payload)?,
    }))
}

fn event(fields: Happened<'_>) -> Result<Packet<'_>, String> {
    let data = match fields.data {
        None => Cow::Borrowed(&[] as &[u8]),
        Some(raw) if raw.get().starts_with('"') => {
            let text: Text<'_> = serde_json::from_str(raw.get()).map_err(|error| format!("data: {error}"))?;
            Cow::Owned(text.0.into_owned().into_bytes())
        }
        Some(raw) => Cow::Borrowed(raw.get().as_bytes()),
    };
    Ok(Packet::Event(Event {
        id: need("id", fields.id)?.0,
        event_type: need("type", fields.event_type)?.0,
        timestamp: fields.timestamp.unwrap_or(0),
        data,
    }))
}

fn flags(header: Option<Header<'_>>) -> Flags {
    let header = header.unwrap_or_default();
    Flags {
        dup: header.dup.unwrap_or(false),
        sync_once: header.sync_once.unwrap_or(false),
        red_dot: header.red_dot.unwrap_or(false),
        no_persist: header.no_persist.unwrap_or(false),
    }
}

/// The setting byte; a topic says itself that it is there.
fn setting(settings: Option<Settings<'_>>, topic: &str) -> Setting {
    let settings = settings.unwrap_or_default();
    [
        (settings.receipt, Setting::RECEIPT),
        (settings.signal, Setting::SIGNAL),
        (settings.stream, Setting::STREAM),
        (settings.topic, Setting::TOPIC),
        (Some(!topic.is_empty()), Setting::TOPIC),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted == Some(true))
    .fold(Setting::default(), |all, (_, bit)| all | bit)
}
