//! WuKongIM's JSON-RPC sessions: the text protocol of its Easy SDKs on the WebSocket port.
//!
//! Owns which request an answer belongs to and how an outbox becomes messages. The texts are `protocol::jsonrpc`'s, who may
//! connect and what a SEND means are the WKProto sessions'. Source: wukongim-wire.md part B. Invariants: one JSON value per
//! text message; nothing is said before the answer to `connect`; a failure is an `error`, never a `result`.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::jsonrpc::{RpcError, decode_client, encode_answer, encode_notice, encode_refusal};
use protocol::wukong::{Connect, Disconnect, Packet, Reason, SendAck, Version};
use slab::Slab;

use super::Context;
use super::native::Viewer;
use super::seat::Seat;
use super::websocket::{Opcode, append_frame, close_frame};
use super::wukong::commands::{Commands, received};
use super::wukong::connect::{Admitted, Denied, admit, connack};
use super::wukong::{draft_of, event_of, kick_text, reason_of, recv_of, wire_id};
use crate::domain::refusal::Refusal;
use crate::hub::delivery::{Delivered, Delivery, Happening, Side};
use crate::hub::outbox::{Control, Live};
use crate::hub::shard::{Shard, side_of};

/// The slot of a delivery's shared bytes: native has 0 and 1.
const WIRE_KIND: usize = 2;

/// What both halves of a session know.
pub(super) struct Session {
    /// The requests without an answer, by the number the hub knows them under. `None`: the client gave no id and wants no
    /// answer.
    asked: RefCell<Slab<Option<Box<str>>>>,
    /// Of a master device, whose acknowledgements of commands count for the user.
    commands: Option<Commands>,
    /// Messages of the built-in system user name no sender.
    blank_system: bool,
}

impl Session {
    /// A session on a device that is a master, or none; `blank_system`: the built-in system user is nobody.
    pub fn new(master: bool, blank_system: bool) -> Self {
        Self { asked: RefCell::default(), commands: master.then(Default::default), blank_system }
    }

    /// A live entry: bytes shared by all sessions that see it alike, or `None` when it was appended to `out`. Of what is
    /// neither a message nor an event of one the Easy SDKs know no form.
    pub fn live(&self, viewer: &Viewer, live: &Live, out: &mut Vec<u8>) -> Option<Bytes> {
        let delivery = match live {
            Live::Delivery(delivery) => delivery,
            Live::Happening(happening) => return Some(happened(viewer, happening)),
            Live::Change(_) | Live::Signal(_) | Live::Presence(_) => return Some(Bytes::new()),
        };
        let side = side_of(&delivery.key, &viewer.uid);
        let is_own = |message: &Delivered| message.from_uid == viewer.uid;
        if delivery.messages.iter().any(is_own) {
            // One's own message, sent from another device, is no news: these bytes are nobody else's.
            self.recvs(delivery, side, is_own, out);
            return None;
        }
        Some(delivery.encoded(WIRE_KIND, side, || {
            let mut bytes = Vec::with_capacity(delivery.bytes * 2);
            self.recvs(delivery, side, |_| false, &mut bytes);
            bytes.into()
        }))
    }

    fn recvs(&self, delivery: &Delivery, side: Side, is_own: impl Fn(&Delivered) -> bool, out: &mut Vec<u8>) {
        for message in &delivery.messages {
            let channel = (delivery.id_for(side), delivery.key.channel_type());
            let mut recv = recv_of(message, channel, self.blank_system);
            recv.flags.red_dot &= !is_own(message);
            append(out, |out| encode_notice(&Packet::Recv(recv), out));
        }
    }
}

/// A session's way in.
pub(super) struct Intake {
    pub seat: Seat,
    session: Rc<Session>,
}

/// A session that was admitted.
pub(super) struct Opened {
    /// Who.
    pub admitted: Admitted,
    /// The answer, as a frame.
    pub answer: Vec<u8>,
}

/// Takes the first message. The error is what the client is told before the end; `None`: nothing but the close.
pub(super) async fn open(context: &Rc<Context>, text: &[u8]) -> Result<Opened, (Option<Vec<u8>>, CloseReason)> {
    let message = match decode_client(text) {
        Ok(message) => message,
        Err(RpcError::Request { id, reason }) => {
            return Err((Some(refusal_frame(id.as_deref(), 0, &reason)), CloseReason::ConnectExpected));
        }
        Err(error) => return Err((None, error.close_reason().unwrap_or(CloseReason::ProtocolError))),
    };
    let (Packet::Connect(connect), Some(id)) = (&message.packet, &message.id) else {
        let told = refusal_frame(message.id.as_deref(), 0, "the first request must be connect");
        return Err((Some(told), CloseReason::ConnectExpected));
    };
    let answer = |reason| connect_answer(id, connect, reason);
    match admit(context, connect).await {
        Ok(admitted) => {
            context.hub.metrics().connects.inc();
            Ok(Opened { admitted, answer: answer(Reason::SUCCESS) })
        }
        Err(Denied::Answer(reason)) => Err((Some(answer(reason)), CloseReason::BadCredential)),
        Err(Denied::Close(reason)) => Err((None, reason)),
    }
}

fn connect_answer(id: &str, connect: &Connect<'_>, reason: Reason) -> Vec<u8> {
    let version = Version::negotiate(connect.version);
    let ack = connack(version, connect, reason, "", "");
    let mut out = Vec::new();
    append(&mut out, |out| encode_answer(id, &Packet::ConnAck(ack), out));
    out
}

fn refusal_frame(id: Option<&str>, code: i64, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, |out| {
        encode_refusal(id, code, message, out);
        Ok(())
    });
    out
}

/// Appends a text message. What cannot be encoded is a defect; it is logged and left out.
fn append(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), RpcError>) {
    if let Err(error) = append_frame(Opcode::Text, out, encode) {
        tracing::error!(%error, "a message cannot be encoded");
    }
}

impl Intake {
    pub fn new(seat: Seat, session: Rc<Session>) -> Self {
        Self { seat, session }
    }

    /// Works off one message.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn message(&self, context: &Context, shard: &mut Shard, text: &[u8]) -> Result<(), CloseReason> {
        let message = match decode_client(text) {
            Ok(message) => message,
            Err(RpcError::Request { id, reason }) => {
                self.seat.tell(shard, refusal_frame(id.as_deref(), 0, &reason).into());
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(session.id = self.seat.place.session.0, %error, "message refused");
                return Err(error.close_reason().unwrap_or(CloseReason::ProtocolError));
            }
        };
        match message.packet {
            Packet::Send(send) => {
                context.hub.metrics().sends.inc();
                context.taken.message(send.payload.len());
                let number = self.session.asked.borrow_mut().insert(message.id.map(|id| id.as_ref().into())) as u64;
                let payload = Bytes::copy_from_slice(&send.payload);
                let draft = draft_of(&self.seat.uid, Version::LATEST, &send, payload);
                match draft.and_then(|draft| shard.shared().check_draft(&draft).map(|()| draft)) {
                    Ok(draft) => self.seat.submit(shard, draft, number),
                    Err(refusal) => self.seat.refuse(context, shard, number, refusal),
                }
            }
            Packet::Ping => {
                if let Some(id) = &message.id {
                    let mut out = Vec::new();
                    append(&mut out, |out| encode_answer(id, &Packet::Pong, out));
                    self.seat.tell(shard, out.into());
                }
            }
            Packet::Connect(_) => return Err(CloseReason::ConnectExpected),
            Packet::Disconnect(_) => return Err(CloseReason::Normal),
            Packet::RecvAck(ack) => received(context, &self.seat, self.session.commands.as_ref(), &ack),
            // The decoder makes nothing else of a client's message.
            _ => {}
        }
        Ok(())
    }
}

impl Session {
    /// Appends an answer.
    ///
    /// # Errors
    /// What happened has no message: the session ends so that its client syncs.
    pub fn append_control(&self, control: Control, out: &mut Vec<u8>) -> Result<(), CloseReason> {
        let (number, ack) = match control {
            Control::Raw(bytes) | Control::Answer(bytes) => {
                out.extend_from_slice(&bytes);
                return Ok(());
            }
            Control::Ack { client_seq, message_id, message_seq, .. } => {
                let message_id = wire_id(message_id.get());
                (client_seq, SendAck { message_id, message_seq, reason: Reason::SUCCESS, ..SendAck::default() })
            }
            Control::Refused { client_seq: Some(client_seq), refusal } => (client_seq, refused(&refusal)),
            Control::Gap { .. } | Control::Resync { .. } => return Err(CloseReason::Slow),
            // Nothing such is ever asked here.
            Control::Refused { client_seq: None, .. }
            | Control::Done { .. }
            | Control::Synced { .. }
            | Control::Messages { .. }
            | Control::Explained { .. }
            | Control::Peers { .. } => return Ok(()),
        };
        if let Some(Some(id)) = self.asked.borrow_mut().try_remove(number as usize) {
            append(out, |out| encode_answer(&id, &Packet::SendAck(ack), out));
        }
        Ok(())
    }
}

fn refused(refusal: &Refusal) -> SendAck<'static> {
    SendAck { reason: reason_of(refusal), ..SendAck::default() }
}

fn happened(viewer: &Viewer, happening: &Happening) -> Bytes {
    let side = side_of(&happening.base.key, &viewer.uid);
    happening.encoded(WIRE_KIND, side, || {
        let mut bytes = Vec::with_capacity(happening.bytes() * 2);
        append(&mut bytes, |out| encode_notice(&Packet::Event(event_of(happening, &viewer.uid)), out));
        bytes.into()
    })
}

/// The last words: `disconnect` where the client shall stay away, and the WebSocket close.
pub(super) fn closing(reason: CloseReason) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(text) = kick_text(reason) {
        let disconnect = Disconnect { reason: Reason::CONNECT_KICK, text: text.into() };
        append(&mut out, |out| encode_notice(&Packet::Disconnect(disconnect), out));
    }
    out.extend_from_slice(&close_frame(reason.number(), reason.text()));
    out
}
