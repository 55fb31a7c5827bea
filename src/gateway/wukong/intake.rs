//! A WKProto session's way in: a continuous stream of bytes to packets to the hub's verbs.
//!
//! Payloads of WebSocket messages are one stream, as TCP segments are: packets may be joined in one piece and split over
//! many (wukongim-wire.md 3.2). At the in-flight cap the rest of a piece waits here.

use std::rc::Rc;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::ids::{ClientMsgNo, Uid};
use protocol::wukong::{Cutter, OpenError, Packet, RawPacket, Reason, Send, Setting, Sub, SubAck, Version, decode};

use super::Session;
use super::commands::received;
use crate::domain::message::{Draft, Durability, MessageFlags};
use crate::domain::refusal::Refusal;
use crate::gateway::Context;
use crate::gateway::connection::Next;
use crate::gateway::native::{bad_id, channel_of};
use crate::gateway::seat::{Room, Seat};
use crate::hub::shard::Shard;

/// How long after CONNACK a SEND under a key of the connection before may still arrive: the JavaScript SDKs send what they
/// have queued before they read CONNACK, and again behind it (wukongim-wire.md 3.5).
const STALE_KEY_MS: u64 = 3_000;

/// Reads a session's packets.
pub(in crate::gateway) struct Intake {
    pub seat: Seat,
    session: Rc<Session>,
    cutter: Cutter,
    /// What came and waits for room.
    rest: Vec<u8>,
}

impl Intake {
    /// A session's intake. `early` is what came behind CONNECT, before its answer.
    pub fn new(seat: Seat, session: Rc<Session>, early: Vec<u8>, body_bytes_max: usize) -> Self {
        Self { seat, session, cutter: Cutter::new(body_bytes_max), rest: early }
    }

    /// Whether bytes wait here.
    pub fn holds(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Works off what waits here.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn go_on(&mut self, context: &Context, shard: &mut Shard) -> Result<Next, CloseReason> {
        let rest = std::mem::take(&mut self.rest);
        let mut piece = &rest[..];
        let next = self.take(context, shard, &mut piece)?;
        self.rest = piece.to_vec();
        Ok(next)
    }

    /// Works off the payload of a WebSocket message. What there is no room for is kept.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn message(&mut self, context: &Context, shard: &mut Shard, payload: &[u8]) -> Result<Next, CloseReason> {
        let mut piece = payload;
        let next = self.take(context, shard, &mut piece)?;
        self.rest.extend_from_slice(piece);
        Ok(next)
    }

    /// Works off a piece of the stream, which is advanced by what was used, as far as there is room.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn take(&mut self, context: &Context, shard: &mut Shard, piece: &mut &[u8]) -> Result<Next, CloseReason> {
        let Self { seat, session, cutter, .. } = self;
        loop {
            match seat.room(context, shard) {
                Room::Free => {}
                Room::Full if piece.is_empty() => return Ok(Next::Read),
                Room::Full => return Ok(Next::Pause),
                Room::Gone => return Ok(Next::End),
            }
            let raw = cutter.next(piece).map_err(|error| {
                tracing::debug!(session.id = seat.place.session.0, %error, "bytes refused");
                error.close_reason()
            })?;
            let Some(raw) = raw else { return Ok(Next::Read) };
            context.taken.packet();
            packet(context, shard, seat, session, &raw)?;
        }
    }
}

fn packet(
    context: &Context,
    shard: &mut Shard,
    seat: &Seat,
    session: &Rc<Session>,
    raw: &RawPacket<'_>,
) -> Result<(), CloseReason> {
    let packet = decode(session.version, raw).map_err(|error| {
        tracing::debug!(session.id = seat.place.session.0, %error, "packet refused");
        error.close_reason()
    })?;
    match packet {
        Packet::Send(send) => self::send(context, shard, seat, session, &send),
        Packet::Ping => tell(shard, seat, session, &Packet::Pong),
        // It shows that the client is there. What it has it says with its next sync: nothing is sent again by time. A stored
        // command that a master device has leaves the user's queue (wukongim-wire.md 3.9).
        Packet::RecvAck(ack) => {
            session.unread_connack_ms.set(None);
            received(context, seat, session.commands.as_ref(), &ack);
        }
        Packet::Sub(sub) => refuse_sub(shard, seat, session, &sub),
        Packet::Connect(_) => return Err(CloseReason::ConnectExpected),
        Packet::Disconnect(_) => return Err(CloseReason::Normal),
        // Types a server alone sends, and those nobody knows (wukongim-wire.md 6.6).
        Packet::ConnAck(_)
        | Packet::SendAck(_)
        | Packet::Recv(_)
        | Packet::Pong
        | Packet::SubAck(_)
        | Packet::Event(_)
        | Packet::Unknown { .. } => {}
    }
    Ok(())
}

fn tell(shard: &mut Shard, seat: &Seat, session: &Session, packet: &Packet<'_>) {
    let mut out = Vec::new();
    session.append(packet, &mut out);
    seat.tell(shard, out.into());
}

/// Data channels are not offered (wukongim-wire.md part D, 15).
fn refuse_sub(shard: &mut Shard, seat: &Seat, session: &Session, sub: &Sub<'_>) {
    let channel_id = sub.channel_id.split('?').next().unwrap_or_default();
    let ack = SubAck {
        sub_no: sub.sub_no.as_ref().into(),
        channel_id: channel_id.into(),
        channel_type: sub.channel_type,
        action: sub.action,
        reason: Reason::NOT_SUPPORT_CHANNEL_TYPE,
    };
    tell(shard, seat, session, &Packet::SubAck(ack));
}

fn send(context: &Context, shard: &mut Shard, seat: &Seat, session: &Session, send: &Send<'_>) {
    let payload = match open(context, session, send) {
        Ok(payload) => payload,
        Err(OpenError::MsgKey) if is_stale(session, shard.now_ms()) => {
            tracing::debug!(session.id = seat.place.session.0, "a send under an earlier key is left to its repeat");
            return;
        }
        Err(error) => {
            let number = session.remember(send.client_seq, &send.client_msg_no);
            return seat.refuse(context, shard, number, Refusal::invalid("payload", error));
        }
    };
    session.unread_connack_ms.set(None);
    context.hub.metrics().sends.inc();
    context.taken.message(payload.len());
    let number = session.remember(send.client_seq, &send.client_msg_no);
    let draft = draft_of(&seat.uid, session.version, send, payload);
    match draft.and_then(|draft| shard.shared().check_draft(&draft).map(|()| draft)) {
        Ok(draft) => seat.submit(shard, draft, number),
        Err(refusal) => seat.refuse(context, shard, number, refusal),
    }
}

/// Whether a SEND may be under the key of the client's connection before: it has not shown yet that it read CONNACK.
fn is_stale(session: &Session, now_ms: u64) -> bool {
    session.unread_connack_ms.get().is_some_and(|since| now_ms.saturating_sub(since) < STALE_KEY_MS)
}

/// The payload in the clear, in bytes of its own: the packet lies in a buffer that all connections share.
fn open(context: &Context, session: &Session, send: &Send<'_>) -> Result<Bytes, OpenError> {
    // Before version 6 the bit says nothing about the payload (wukongim-wire.md 4.5).
    let plain = session.version.has_wide_seq() && send.setting.has(Setting::NO_ENCRYPT);
    let Some(cipher) = session.cipher.as_ref().filter(|_| !plain) else {
        return Ok(Bytes::copy_from_slice(&send.payload));
    };
    let mut opened = context.opened.borrow_mut();
    opened.clear();
    cipher.open_send(send, &mut opened)?;
    Ok(Bytes::copy_from_slice(&opened))
}

/// A SEND as a draft, its payload in the clear.
///
/// # Errors
/// `Invalid`, naming the field.
pub(in crate::gateway) fn draft_of(
    from_uid: &Uid,
    version: Version,
    send: &Send<'_>,
    payload: Bytes,
) -> Result<Draft, Refusal> {
    let channel = channel_of(from_uid, &send.channel_id, send.channel_type)?;
    let client_msg_no = match &*send.client_msg_no {
        "" => None,
        text => Some(ClientMsgNo::new(text).map_err(bad_id("client_msg_no"))?),
    };
    // How this packet travelled is no property of the message.
    let mut setting = send.setting.without(Setting::NO_ENCRYPT);
    if version.has_stream() {
        setting = setting.without(Setting::STREAM);
    }
    Ok(Draft {
        channel,
        from_uid: from_uid.clone(),
        client_msg_no,
        flags: MessageFlags {
            no_persist: send.flags.no_persist,
            red_dot: send.flags.red_dot,
            sync_once: send.flags.sync_once,
        },
        setting: setting.0,
        topic: send.topic.clone().into_owned(),
        expire_s: send.expire,
        payload,
        extras: None,
        durability: Durability::Disk,
    })
}
