//! WKProto sessions, on WebSockets and on the TCP listener: what WuKongIM's clients say and what they are told.
//!
//! Owns the session's keys and version, how its outbox becomes packets (here), how its packets become the hub's verbs
//! ([`intake`]) and how it begins ([`connect`]). The packets themselves are `protocol::wukong`'s. Source: wukongim-wire.md
//! part A.
//!
//! Invariants: one packet per WebSocket message outwards; what a client of the session's version cannot read is never
//! written; a session's own sends are told by their SENDACK only.

use std::cell::{Cell, RefCell};

use protocol::close::CloseReason;
use protocol::ids::{ChannelType, Uid};
use protocol::wukong::{
    Cipher, Disconnect, Event, Flags, Packet, PreparedRecv, Reason, Recv, SendAck, Setting, Version, encode,
};
use slab::Slab;

use super::native::Viewer;
use super::websocket::{Opcode, append_frame, close_frame, writer};
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::hub::delivery::{Delivered, Delivery, Happening, Side};
use crate::hub::outbox::{Control, Live};
use crate::hub::shard::side_of;
use crate::voices;

pub(super) mod commands;
pub(super) mod connect;
mod intake;
mod keys;

use commands::Commands;
pub(super) use intake::{Intake, draft_of};
pub(super) use keys::KeyRing;

/// The first version whose clients know EVENT.
const EVENT_VERSION_MIN: u8 = 5;
/// Where the bytes of an event are shared: native has 0 and 1, JSON-RPC 2.
const EVENT_FRAMED: usize = 3;
/// As [`EVENT_FRAMED`], on the port without WebSockets.
const EVENT_BARE: usize = 4;
/// The bit of redDot in a packet's first byte.
const RED_DOT: u8 = 2;

/// What both halves of a WKProto session know.
pub(super) struct Session {
    version: Version,
    /// `None`: encryption is off.
    cipher: Option<Cipher>,
    /// Packets travel in WebSocket messages.
    framed: bool,
    /// When CONNACK was made, Unix milliseconds, until the client has shown that it read it.
    unread_connack_ms: Cell<Option<u64>>,
    /// Sends whose SENDACK names them, by the number the hub knows them under. Empty before version 6.
    named: RefCell<Slab<Named>>,
    /// Of a master device, whose acknowledgements of commands count for the user.
    commands: Option<Commands>,
    /// Messages of the built-in system user name no sender.
    blank_system: bool,
}

/// What SENDACK repeats of a SEND (wukongim-wire.md 2, SENDACK).
struct Named {
    client_seq: u32,
    client_msg_no: Box<str>,
}

impl Session {
    fn new(version: Version, cipher: Option<Cipher>, framed: bool, now_ms: u64) -> Self {
        let named = RefCell::new(Slab::new());
        Self {
            version,
            cipher,
            framed,
            unread_connack_ms: Cell::new(Some(now_ms)),
            named,
            commands: None,
            blank_system: false,
        }
    }

    /// The version agreed on.
    pub fn version(&self) -> u8 {
        self.version.get()
    }

    /// The number under which the hub answers a SEND.
    fn remember(&self, client_seq: u32, client_msg_no: &str) -> u64 {
        if !self.version.has_wide_seq() {
            return client_seq.into();
        }
        self.named.borrow_mut().insert(Named { client_seq, client_msg_no: client_msg_no.into() }) as u64
    }

    fn recall(&self, number: u64) -> Named {
        let client_seq = number as u32;
        if !self.version.has_wide_seq() {
            return Named { client_seq, client_msg_no: Box::default() };
        }
        let known = self.named.borrow_mut().try_remove(number as usize);
        known.unwrap_or(Named { client_seq, client_msg_no: Box::default() })
    }

    /// Appends an answer.
    ///
    /// # Errors
    /// What happened has no packet: the session ends so that its client syncs.
    pub fn append_control(&self, control: Control, out: &mut Vec<u8>) -> Result<(), CloseReason> {
        let (number, message_id, message_seq, reason) = match control {
            Control::Raw(bytes) | Control::Answer(bytes) => {
                out.extend_from_slice(&bytes);
                return Ok(());
            }
            Control::Ack { client_seq, message_id, message_seq, .. } => {
                (client_seq, wire_id(message_id.get()), message_seq, Reason::SUCCESS)
            }
            // The session ends at once, and a SEND without an answer is repeated behind the next CONNACK. The SDKs take any
            // other reason than success for the last word, and the message would be lost to its writer.
            Control::Refused { client_seq: Some(number), refusal: Refusal::Draining { .. } } => {
                self.recall(number);
                return Ok(());
            }
            Control::Refused { client_seq: Some(client_seq), refusal } => (client_seq, 0, 0, reason_of(&refusal)),
            Control::Gap { .. } | Control::Resync { .. } => return Err(CloseReason::Slow),
            // Nothing such is ever asked here.
            Control::Refused { client_seq: None, .. }
            | Control::Done { .. }
            | Control::Synced { .. }
            | Control::Messages { .. }
            | Control::Explained { .. }
            | Control::Peers { .. } => return Ok(()),
        };
        let Named { client_seq, client_msg_no } = self.recall(number);
        let ack = SendAck {
            flags: Flags::default(),
            message_id,
            client_seq,
            message_seq,
            reason,
            client_msg_no: (&*client_msg_no).into(),
        };
        if message_seq > self.version.seq_max() {
            // Stored, but behind what this version can name (wukongim-wire.md part D, 14).
            let ack = SendAck { message_seq: 0, reason: Reason::PROTOCOL_UPGRADE_REQUIRED, ..ack };
            self.append(&Packet::SendAck(ack), out);
        } else {
            self.append(&Packet::SendAck(ack), out);
        }
        Ok(())
    }

    /// Appends a packet as it travels. What cannot be encoded is a defect; it is logged and left out.
    fn append(&self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let encoded = if self.framed {
            append_frame(Opcode::Binary, out, |out| encode(self.version, packet, out))
        } else {
            encode(self.version, packet, out)
        };
        if let Err(error) = encoded {
            tracing::error!(%error, "a packet cannot be encoded");
        }
    }

    /// Appends a live entry, messages sealed for this session. Of what is neither a message nor an event of one WuKongIM's
    /// clients know no form.
    pub fn append_live(&self, viewer: &Viewer, live: &Live, out: &mut Vec<u8>) {
        let delivery = match live {
            Live::Delivery(delivery) => delivery,
            Live::Happening(happening) => return self.append_happening(viewer, happening, out),
            Live::Change(_) | Live::Signal(_) | Live::Presence(_) => return,
        };
        let side = side_of(&delivery.key, &viewer.uid);
        let make = || Recvs::of(self.version, delivery, side, self.blank_system);
        let recvs: &Recvs = delivery.prepared(self.version.recv_layout(), side, make);
        for (message, recv) in delivery.messages.iter().zip(&recvs.0) {
            let Some(recv) = recv else { continue };
            if self.framed {
                let bytes = if self.cipher.is_some() { recv.sealed_bytes() } else { recv.plain_bytes() };
                let (head, head_bytes) = writer::head(Opcode::Binary, bytes);
                out.extend_from_slice(&head[..head_bytes]);
            }
            let first = out.len();
            match &self.cipher {
                Some(cipher) => recv.seal(cipher, out),
                None => recv.plain(out),
            }
            // One's own message, sent from another device, is no news (wukongim-wire.md 3.9). The bit is not signed.
            if message.from_uid == viewer.uid {
                out[first] &= !RED_DOT;
            }
        }
    }

    /// Whether its client knows EVENT: before version 5 none does, and the one from npm would drop the connection
    /// (wukongim-wire.md part D, 16).
    pub fn tells_streams(&self) -> bool {
        self.version.get() >= EVENT_VERSION_MIN
    }

    /// EVENT is never encrypted, so that all sessions on a side share its bytes.
    fn append_happening(&self, viewer: &Viewer, happening: &Happening, out: &mut Vec<u8>) {
        if !self.tells_streams() {
            return;
        }
        let side = side_of(&happening.base.key, &viewer.uid);
        let kind = if self.framed { EVENT_FRAMED } else { EVENT_BARE };
        let bytes = happening.encoded(kind, side, || {
            let mut bytes = Vec::with_capacity(happening.bytes() * 2);
            self.append(&Packet::Event(event_of(happening, &viewer.uid)), &mut bytes);
            bytes.into()
        });
        out.extend_from_slice(&bytes);
    }

    /// The last words: DISCONNECT where the client shall stay away, and the WebSocket close.
    pub fn closing(&self, reason: CloseReason) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(text) = kick_text(reason) {
            let disconnect = Disconnect { reason: Reason::CONNECT_KICK, text: text.into() };
            self.append(&Packet::Disconnect(disconnect), &mut out);
        }
        if self.framed {
            out.extend_from_slice(&close_frame(reason.number(), reason.text()));
        }
        out
    }
}

/// Messages of a delivery, prepared for one RECV layout and side; `None` for one the layout cannot say.
struct Recvs(Vec<Option<PreparedRecv>>);

impl Recvs {
    fn of(version: Version, delivery: &Delivery, side: Side, blank_system: bool) -> Self {
        let channel = (delivery.id_for(side), delivery.key.channel_type());
        let prepared = delivery.messages.iter().map(|message| {
            let recv = recv_of(message, channel, blank_system);
            PreparedRecv::new(version, &recv)
                .inspect_err(|error| tracing::warn!(%error, "a message has no RECV of this version"))
                .ok()
        });
        Self(prepared.collect())
    }
}

/// What happened to a stream as WuKongIM's clients get it (wukongim-http.md 5.6): each side of a pair sees the other as the
/// channel, as in its messages.
pub(super) fn event_of<'a>(happening: &'a Happening, viewer: &Uid) -> Event<'a> {
    let (base, lane) = (&happening.base, &happening.lane);
    let mut data = serde_json::json!({
        "client_msg_no": base.client_msg_no.as_str(),
        "channel_id": base.key.id_for(viewer.as_str()),
        "channel_type": base.key.channel_type().to_wire(),
        "from_uid": base.from_uid.bare(),
        "message_id": base.message_id.get(),
        "event_key": lane.key,
        "msg_event_seq": lane.seq,
        "stream_status": lane.status.code(),
        "visibility": lane.visibility.code(),
    });
    if let Ok(payload) = serde_json::from_slice::<serde_json::Value>(&happening.payload) {
        data["payload"] = payload;
    }
    Event {
        id: happening.event_id.as_str().into(),
        event_type: happening.given_type.as_str().into(),
        timestamp: i64::try_from(happening.occurred_at_ms).unwrap_or(i64::MAX),
        data: data.to_string().into_bytes().into(),
    }
}

/// A message as WuKongIM's clients get it, in a channel as they know it. With `blank_system` the built-in system user is
/// nobody, and nobody's person channel has no name (`wukong.blank_system_uid`; wukongim-wire.md part D, 13).
pub(super) fn recv_of<'a>(
    message: &'a Delivered,
    (channel_id, channel_type): (&'a str, ChannelType),
    blank_system: bool,
) -> Recv<'a> {
    let from_uid = message.from_uid.bare();
    let (from_uid, channel_id) = match blank_system && from_uid == SYSTEM_UID {
        true if channel_type == ChannelType::Person => ("", ""),
        true => ("", channel_id),
        false => (from_uid, channel_id),
    };
    Recv {
        flags: Flags {
            dup: false,
            sync_once: message.flags.sync_once,
            red_dot: message.flags.red_dot,
            no_persist: message.flags.no_persist,
        },
        setting: Setting(message.setting),
        from_uid: from_uid.into(),
        channel_id: channel_id.into(),
        channel_type: channel_type.to_wire(),
        expire: message.expire_s,
        client_msg_no: message.client_msg_no.as_str().into(),
        message_id: wire_id(message.message_id.get()),
        message_seq: message.message_seq,
        timestamp: i32::try_from(message.timestamp_ms / 1_000).unwrap_or(i32::MAX),
        topic: message.topic.as_str().into(),
        payload: (&*message.payload).into(),
        ..Recv::default()
    }
}

/// A message_id on the wire; ours stay below 2^53.
pub(super) fn wire_id(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// The reason code of a refusal.
pub(super) fn reason_of(refusal: &Refusal) -> Reason {
    Reason(voices::of(refusal).wukong_reason)
}

/// What DISCONNECT says of a close after which the client shall not come back by itself; `None`: it is closed without, and
/// connects again. So is an old connection of the same device, whose client is the new one (wukongim-wire.md 3.8).
pub(super) fn kick_text(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::OtherDevice | CloseReason::CredentialExpired => Some("login in other device"),
        CloseReason::KickedByAdmin => Some("server kick"),
        CloseReason::Normal
        | CloseReason::ProtocolError
        | CloseReason::NotUtf8
        | CloseReason::TooLarge
        | CloseReason::Internal
        | CloseReason::Draining
        | CloseReason::ConnectExpected
        | CloseReason::BadCredential
        | CloseReason::SameDevice
        | CloseReason::IdleTimeout
        | CloseReason::ConnectTimeout
        | CloseReason::Slow
        | CloseReason::TooManyConnections
        | CloseReason::UnsupportedProtocol => None,
    }
}
