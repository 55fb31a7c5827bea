//! WuKongIM's packets for the load tools: what a client of version 5 says and hears, over WebSocket and TCP.
//!
//! Owns how packets travel and a connection's keys. Every RECV can be opened, which proves the server's encryption; doing so
//! for each costs this tool more than it costs the server, see [`Keys`].

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use protocol::wukong::{
    self, Cipher, Connect, Flags, Packet, Reason, RecvAck, Send, SendAck, ServerSecret, Version, cut, decode,
};

use crate::raw::{push_frame, split_frame};

/// What the JavaScript SDK 1.3.5 speaks.
const VERSION: u8 = 5;
/// WebSocket opcode of a binary message.
const BINARY: u8 = 2;

/// What a tool speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Native frames in MessagePack.
    Native,
    /// WuKongIM's packets in WebSocket messages.
    Wukong,
    /// WuKongIM's packets as they are.
    WukongTcp,
}

impl Protocol {
    /// The URL of a server with the default settings.
    pub fn default_url(self) -> &'static str {
        match self {
            Self::Native | Self::Wukong => "ws://127.0.0.1:5200",
            Self::WukongTcp => "tcp://127.0.0.1:5100",
        }
    }

    /// The WebSocket subprotocol to ask for.
    pub fn subprotocol(self) -> Option<&'static str> {
        (self == Self::Native).then_some("chinwag.v1.msgpack")
    }

    /// Whether packets travel in WebSocket messages.
    fn is_framed(self) -> bool {
        self != Self::WukongTcp
    }
}

/// The tool's side of all connections' keys: one pair, as the server makes a new one for each, and so each has a key of its
/// own.
pub struct Keys {
    secret: ServerSecret,
    public: String,
    protocol: Protocol,
}

/// What the server says.
pub enum Said<'a> {
    /// CONNACK: the session is open, under this cipher.
    Open(Option<Cipher>),
    /// SENDACK.
    Ack(SendAck<'a>),
    /// RECV, as it travels.
    Recv(wukong::Recv<'a>),
    /// Anything else.
    Other,
}

impl Keys {
    /// Takes 32 random bytes.
    pub fn new(random: [u8; 32], protocol: Protocol) -> Self {
        let secret = ServerSecret::from_random(random);
        Self { public: secret.public_key(), secret, protocol }
    }

    /// Appends a packet as it travels.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn push(&self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<()> {
        let version = Version::negotiate(VERSION);
        if !self.protocol.is_framed() {
            return Ok(wukong::encode(version, packet, out)?);
        }
        let mut body = Vec::with_capacity(256);
        wukong::encode(version, packet, &mut body)?;
        push_frame(out, BINARY, &body);
        Ok(())
    }

    /// Appends CONNECT.
    ///
    /// # Errors
    /// A name is too long.
    pub fn connect(&self, uid: &str, token: &str, out: &mut Vec<u8>) -> Result<()> {
        let connect = Connect {
            version: VERSION,
            device_id: "load".into(),
            uid: uid.into(),
            token: token.into(),
            client_key: self.public.as_str().into(),
            ..Connect::default()
        };
        self.push(&Packet::Connect(connect), out)
    }

    /// Appends a SEND of a group message that counts as unread.
    ///
    /// # Errors
    /// The payload is too large.
    pub fn send(
        &self,
        cipher: Option<&Cipher>,
        client_seq: u32,
        msg_no: &str,
        group: &str,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut send = Send {
            flags: Flags { red_dot: true, ..Flags::default() },
            client_seq,
            client_msg_no: msg_no.into(),
            channel_id: group.into(),
            channel_type: 2,
            payload: payload.into(),
            ..Send::default()
        };
        let key;
        if let Some(cipher) = cipher {
            let mut wire = Vec::with_capacity(Cipher::wire_bytes(payload.len()));
            cipher.encrypt(payload, &mut wire);
            send.payload = wire.into();
            key = cipher.send_key(&send);
            send.msg_key = String::from_utf8_lossy(&key);
        }
        self.push(&Packet::Send(send), out)
    }

    /// Appends RECVACK of a stored message.
    ///
    /// # Errors
    /// Its position is beyond 32 bits.
    pub fn recvack(&self, recv: &wukong::Recv<'_>, out: &mut Vec<u8>) -> Result<()> {
        let ack = RecvAck { flags: recv.flags, message_id: recv.message_id, message_seq: recv.message_seq };
        self.push(&Packet::RecvAck(ack), out)
    }

    /// The next packet at the front of `bytes` and how many of them it took; `None`: it is not whole.
    ///
    /// # Errors
    /// The bytes are none, the server refuses the connection, or it ends it.
    pub fn next<'a>(&self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Option<(Said<'a>, usize)>> {
        let (packet, used) = if self.protocol.is_framed() {
            let Some((frame, rest)) = split_frame(bytes)? else { return Ok(None) };
            let used = bytes.len() - rest.len();
            match frame.opcode {
                BINARY => (frame.payload, used),
                8 => bail!("closed: {:?}", frame.close_reason()),
                9 => {
                    push_frame(out, 10, frame.payload);
                    return Ok(Some((Said::Other, used)));
                }
                10 => return Ok(Some((Said::Other, used))),
                other => bail!("a frame with opcode {other}"),
            }
        } else {
            (bytes, 0)
        };
        let Some(raw) = cut(packet, wukong::BODY_BYTES_MAX)? else {
            ensure!(!self.protocol.is_framed(), "a message holds a part of a packet");
            return Ok(None);
        };
        ensure!(!self.protocol.is_framed() || raw.bytes == packet.len(), "a message holds more than a packet");
        let used = if self.protocol.is_framed() { used } else { raw.bytes };
        let said = match decode(Version::negotiate(VERSION), &raw)? {
            Packet::ConnAck(ack) => {
                ensure!(ack.reason == Reason::SUCCESS, "CONNACK says {}", ack.reason.name());
                let encrypted = !ack.server_key.is_empty();
                Said::Open(encrypted.then(|| self.secret.agree(&ack.server_key, &ack.salt)).transpose()?)
            }
            Packet::SendAck(ack) => Said::Ack(ack),
            Packet::Recv(recv) => Said::Recv(recv),
            Packet::Disconnect(end) => bail!("DISCONNECT: {} {}", end.reason.name(), end.text),
            _ => Said::Other,
        };
        Ok(Some((said, used)))
    }
}

/// Whether the server asks for patience.
pub fn is_busy(reason: Reason) -> bool {
    reason == Reason::RATE_LIMIT || reason == Reason::SYSTEM_ERROR
}
