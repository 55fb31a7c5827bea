//! Packets to texts, appended to a buffer the caller reuses. A packet that is equal for many receivers is encoded once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::RpcError;
use super::fields::is_json;
use crate::wukong::{ConnAck, Connect, Flags, Packet, Reason, Recv, Send, SendAck, Setting};

/// How a client spells field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `channelId`: JavaScript, Python, iOS.
    Camel,
    /// `channel_id`: Android.
    Snake,
    /// Both, as a server writes.
    Both,
}

/// Appends the answer to a request: CONNACK, SENDACK or PONG. Any reason but success is an `error`, which is the only form
/// all SDKs take for one (wukongim-wire.md part D, 1).
///
/// # Errors
/// [`RpcError::NotWritten`] for other packets; `out` is then as it was.
pub fn encode_answer(id: &str, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), RpcError> {
    match packet {
        Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS => answer(id, out, |result| connack(ack, result)),
        Packet::SendAck(ack) if ack.reason == Reason::SUCCESS => answer(id, out, |result| sendack(ack, result)),
        Packet::ConnAck(ConnAck { reason, .. }) | Packet::SendAck(SendAck { reason, .. }) => {
            encode_refusal(Some(id), reason.0.into(), reason.name(), out);
        }
        Packet::Pong => {
            let mut object = Object::open(Spelling::Both, out);
            object.text("jsonrpc", "2.0");
            object.text("id", id);
            object.raw("result", b"null");
            object.close();
        }
        _ => return Err(RpcError::NotWritten { reason: "no answer" }),
    }
    Ok(())
}

/// Appends what a server says unasked: RECV (payload in the clear), EVENT or DISCONNECT.
///
/// # Errors
/// [`RpcError::NotWritten`] for other packets; `out` is then as it was.
pub fn encode_notice(packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), RpcError> {
    match packet {
        Packet::Recv(message) => call(Spelling::Both, None, "recv", out, |params| recv(message, params)),
        Packet::Event(event) => call(Spelling::Both, None, "event", out, |params| {
            params.object("header", |header| flags(Flags::default(), header));
            params.text("id", &event.id);
            params.text("type", &event.event_type);
            params.number("timestamp", event.timestamp);
            match std::str::from_utf8(&event.data) {
                Ok(data) => params.text("data", data),
                Err(_) => params.text("data", &STANDARD.encode(&event.data)),
            }
        }),
        Packet::Disconnect(end) => call(Spelling::Both, None, "disconnect", out, |params| {
            params.number("reasonCode", end.reason.0);
            params.text("reason", &end.text);
        }),
        _ => return Err(RpcError::NotWritten { reason: "no notice" }),
    }
    Ok(())
}

/// Appends an `error`: a reason code and its name, or 0 and what is wrong with the request. Without an id it is `null`.
pub fn encode_refusal(id: Option<&str>, code: i64, message: &str, out: &mut Vec<u8>) {
    let mut object = Object::open(Spelling::Camel, out);
    object.text("jsonrpc", "2.0");
    match id {
        Some(id) => object.text("id", id),
        None => object.raw("id", b"null"),
    }
    object.object("error", |error| {
        error.number("code", code);
        error.text("message", message);
    });
    object.close();
}

/// Appends a client's message: CONNECT, SEND (payload in the clear), RECVACK, PING or DISCONNECT. For clients, examples and
/// tests.
///
/// # Errors
/// [`RpcError::NotWritten`] for other packets; `out` is then as it was.
pub fn encode_client(
    spelling: Spelling,
    id: Option<&str>,
    packet: &Packet<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    match packet {
        Packet::Connect(body) => call(spelling, id, "connect", out, |params| connect(body, params)),
        Packet::Send(body) => call(spelling, id, "send", out, |params| send(body, params)),
        Packet::RecvAck(ack) => call(spelling, id, "recvack", out, |params| {
            params.object("header", |header| flags(ack.flags, header));
            params.text("messageId", itoa::Buffer::new().format(ack.message_id));
            params.number("messageSeq", ack.message_seq);
        }),
        Packet::Ping => call(spelling, id, "ping", out, |_| {}),
        Packet::Disconnect(end) => call(spelling, id, "disconnect", out, |params| {
            params.number("reasonCode", end.reason.0);
            params.text("reason", &end.text);
        }),
        _ => return Err(RpcError::NotWritten { reason: "no message of a client" }),
    }
    Ok(())
}

fn answer(id: &str, out: &mut Vec<u8>, result: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::open(Spelling::Both, out);
    object.text("jsonrpc", "2.0");
    object.text("id", id);
    object.object("result", result);
    object.close();
}

fn call(spelling: Spelling, id: Option<&str>, method: &str, out: &mut Vec<u8>, params: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::open(spelling, out);
    object.text("jsonrpc", "2.0");
    if let Some(id) = id {
        object.text("id", id);
    }
    object.text("method", method);
    object.object("params", params);
    object.close();
}

fn connack(ack: &ConnAck<'_>, result: &mut Object<'_>) {
    result.object("header", |header| flags(Flags::default(), header));
    result.number("serverVersion", ack.server_version.unwrap_or(0));
    result.text("serverKey", &ack.server_key);
    result.text("salt", &ack.salt);
    result.number("timeDiff", ack.time_diff);
    result.number("reasonCode", ack.reason.0);
    result.number("nodeId", ack.node_id);
}

fn sendack(ack: &SendAck<'_>, result: &mut Object<'_>) {
    result.object("header", |header| flags(ack.flags, header));
    result.text("messageId", itoa::Buffer::new().format(ack.message_id));
    result.number("messageSeq", ack.message_seq);
    result.number("reasonCode", ack.reason.0);
}

fn connect(connect: &Connect<'_>, params: &mut Object<'_>) {
    params.text("uid", &connect.uid);
    params.text("token", &connect.token);
    params.text("deviceId", &connect.device_id);
    params.number("deviceFlag", connect.device_flag);
    params.number("clientTimestamp", connect.client_timestamp);
    if connect.version > 0 {
        params.number("version", connect.version);
    }
    if !connect.client_key.is_empty() {
        params.text("clientKey", &connect.client_key);
    }
}

fn send(send: &Send<'_>, params: &mut Object<'_>) {
    params.text("clientMsgNo", &send.client_msg_no);
    params.text("channelId", &send.channel_id);
    params.number("channelType", send.channel_type);
    // What the SDKs do whatever the bytes are; base64 that reads as JSON text must not be taken for it.
    let text = STANDARD.encode(&send.payload);
    if is_json(text.as_bytes()) && is_json(&send.payload) {
        params.raw("payload", &send.payload);
    } else {
        params.text("payload", &text);
    }
    params.object("header", |header| flags(send.flags, header));
    setting(send.setting, params);
    if send.expire > 0 {
        params.number("expire", send.expire);
    }
    if !send.topic.is_empty() {
        params.text("topic", &send.topic);
    }
    if !send.stream_no.is_empty() {
        params.text("streamNo", &send.stream_no);
    }
    if !send.msg_key.is_empty() {
        params.text("msgKey", &send.msg_key);
    }
}

fn recv(recv: &Recv<'_>, params: &mut Object<'_>) {
    params.object("header", |header| flags(recv.flags, header));
    params.text("messageId", itoa::Buffer::new().format(recv.message_id));
    params.number("messageSeq", recv.message_seq);
    params.text("clientMsgNo", &recv.client_msg_no);
    params.number("timestamp", recv.timestamp);
    params.text("channelId", &recv.channel_id);
    params.number("channelType", recv.channel_type);
    params.text("fromUid", &recv.from_uid);
    params.number("expire", recv.expire);
    params.text("topic", &recv.topic);
    setting(recv.setting, params);
    if recv.payload.starts_with(b"{") && is_json(&recv.payload) {
        params.raw("payload", &recv.payload);
    } else {
        params.text("payload", &STANDARD.encode(&recv.payload));
    }
}

fn flags(flags: Flags, header: &mut Object<'_>) {
    header.boolean("noPersist", flags.no_persist);
    header.boolean("redDot", flags.red_dot);
    header.boolean("syncOnce", flags.sync_once);
    header.boolean("dup", flags.dup);
    header.boolean("end", false);
}

/// Left out when nothing is set.
fn setting(setting: Setting, params: &mut Object<'_>) {
    let bits = [
        ("receipt", Setting::RECEIPT),
        ("signal", Setting::SIGNAL),
        ("stream", Setting::STREAM),
        ("topic", Setting::TOPIC),
    ];
    if bits.iter().any(|(_, bit)| setting.has(*bit)) {
        params.object("setting", |object| {
            for (name, bit) in bits {
                object.boolean(name, setting.has(bit));
            }
        });
    }
}

/// An object that is being written. Names are given in camelCase.
struct Object<'o> {
    spelling: Spelling,
    first: bool,
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    fn open(spelling: Spelling, out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { spelling, first: true, out }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// Writes a field under its one or two names.
    fn field(&mut self, name: &str, value: impl Fn(&mut Vec<u8>)) {
        let two = name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !two || self.spelling != Spelling::Snake {
            self.comma();
            self.out.push(b'"');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"\":");
            value(self.out);
        }
        if two && self.spelling != Spelling::Camel {
            self.comma();
            self.out.push(b'"');
            for byte in name.bytes() {
                if byte.is_ascii_uppercase() {
                    self.out.push(b'_');
                }
                self.out.push(byte.to_ascii_lowercase());
            }
            self.out.extend_from_slice(b"\":");
            value(self.out);
        }
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    fn text(&mut self, name: &str, text: &str) {
        self.field(name, |out| serde_json::to_writer(out, text).expect("text into memory"));
    }

    fn number(&mut self, name: &str, number: impl itoa::Integer) {
        self.field(name, |out| out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()));
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.field(name, |out| out.extend_from_slice(json));
    }

    /// An object within, under a name of one word.
    fn object(&mut self, name: &str, fields: impl FnOnce(&mut Object<'_>)) {
        self.field(name, |_| {});
        let mut object = Object::open(self.spelling, self.out);
        fields(&mut object);
        object.close();
    }
}
