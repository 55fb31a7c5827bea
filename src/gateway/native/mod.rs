//! Native frames to the hub's words and back, by hand (style: wire structs stop at the edge).

use std::borrow::Cow;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::error::WireError;
use protocol::ids::{ChannelKey, Uid, Version};
use protocol::native::{
    self, Ack, Closing, Connected, Done, Encoding, Event, Explained, Gap, Limits, MessageItem, Messages, NotCounted,
    Peers, Ping, Pong, Refused, ResyncEvent, Row, ServerFrame, ServerInfo, SignalEvent, Synced, encode_ack,
    encode_deliver, encode_server,
};

use super::GatewayLimits;
use super::websocket::{self, Opcode, append_frame, close_frame, frame_with};
use crate::domain::conversation::Verdict;
use crate::domain::message::{Durability, Extras, Message, MessageState, Reaction};
use crate::domain::refusal::Refusal;
use crate::hub::conversations::{PageAfter, SyncAnswer, SyncRow, UnreadExplained};
use crate::hub::delivery::{Delivered, Delivery, Side};
use crate::hub::outbox::{Control, Live, Peer};
use crate::hub::shard::side_of;

pub mod answers;
mod events;
mod requests;
pub(super) mod session;

use events::{change_frame, lane_item, stream_event};
pub use requests::{SyncAsked, bad_id, channel_of, draft_of, extras_of, sync_of, uids_of};

/// Who looks: decides which channel_id a person channel shows.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The session's user.
    pub uid: Uid,
}

fn wire_kind(encoding: Encoding) -> usize {
    match encoding {
        Encoding::MessagePack => 0,
        Encoding::Json => 1,
    }
}

fn opcode(encoding: Encoding) -> Opcode {
    if encoding.is_text() { Opcode::Text } else { Opcode::Binary }
}

fn durability_word(durability: Durability) -> native::Durability {
    match durability {
        Durability::Memory => native::Durability::Memory,
        Durability::Disk => native::Durability::Disk,
        Durability::Replicated => native::Durability::Replicated,
    }
}

/// One server frame as a WebSocket frame. What cannot be encoded is a defect; it is logged and left out.
pub fn frame(encoding: Encoding, frame: &ServerFrame<'_>) -> Bytes {
    let mut scratch = Vec::new();
    frame_with(opcode(encoding), &mut scratch, |out| encode_server(encoding, frame, out)).unwrap_or_else(|error| {
        tracing::error!(%error, "a frame cannot be encoded");
        Bytes::new()
    })
}

/// A `ping` frame.
pub fn ping(encoding: Encoding) -> Bytes {
    frame(encoding, &ServerFrame::Ping(Ping {}))
}

/// A `pong` frame.
pub fn pong(encoding: Encoding) -> Bytes {
    frame(encoding, &ServerFrame::Pong(Pong {}))
}

/// The last words: a `closing` frame and the WebSocket close with the same number.
pub fn closing(encoding: Encoding, reason: CloseReason) -> Vec<u8> {
    let closing = Closing {
        code: reason.number(),
        reason: reason.as_str().into(),
        reconnect: reason.reconnect().into(),
        retry_after_ms: None,
    };
    let mut out = frame(encoding, &ServerFrame::Closing(closing)).to_vec();
    out.extend_from_slice(&close_frame(reason.number(), reason.text()));
    out
}

/// A refusal as a frame's body.
pub fn refused(client_seq: Option<u64>, refusal: &Refusal) -> Refused<'static> {
    Refused {
        client_seq: client_seq.unwrap_or(0),
        code: refusal.code().into(),
        text: refusal.to_string().into(),
        field: refusal.field().map(Into::into),
        retry_after_ms: refusal.retry_after_ms(),
    }
}

/// Bytes that were no request, answered while the connection stays.
pub fn wire_refused(encoding: Encoding, error: &WireError) -> Bytes {
    let field = match error {
        WireError::Field { field, .. } => Some(field.as_str().into()),
        _ => None,
    };
    let refused = Refused {
        client_seq: error.client_seq().unwrap_or(0),
        code: error.refused_code().unwrap_or("invalid").into(),
        text: error.to_string().into(),
        field,
        retry_after_ms: None,
    };
    frame(encoding, &ServerFrame::Refused(refused))
}

/// Appends a control entry as a WebSocket frame.
pub fn append_control(encoding: Encoding, viewer: &Viewer, control: Control, out: &mut Vec<u8>) {
    let asker = viewer.uid.as_str();
    let frame = match control {
        Control::Raw(bytes) | Control::Answer(bytes) => {
            out.extend_from_slice(&bytes);
            return;
        }
        Control::Ack { client_seq, client_msg_no, message_id, message_seq, timestamp_ms, level, duplicate } => {
            let ack = Ack {
                client_seq,
                client_msg_no: client_msg_no.as_ref().map_or(Cow::Borrowed(""), |no| Cow::Borrowed(no.as_str())),
                message_id: message_id.get(),
                message_seq,
                timestamp: timestamp_ms,
                level: durability_word(level),
                duplicate,
            };
            append(opcode(encoding), out, |out| encode_ack(encoding, &ack, out));
            return;
        }
        Control::Refused { client_seq, refusal } => ServerFrame::Refused(refused(client_seq, &refusal)),
        Control::Done { client_seq, version, unread, read_to_msg_seq } => ServerFrame::Done(Done {
            client_seq,
            version: version.get(),
            unread: Some(unread),
            read_to_msg_seq: Some(read_to_msg_seq),
        }),
        Control::Synced { client_seq, since, answer } => {
            let synced = synced(client_seq, since, asker, &answer);
            append(opcode(encoding), out, |out| encode_server(encoding, &ServerFrame::Synced(synced), out));
            return;
        }
        Control::Messages { client_seq, key, page } => {
            let messages = ServerFrame::Messages(Messages {
                client_seq,
                channel_id: key.id_for(asker).into(),
                channel_type: key.channel_type().to_wire(),
                messages: page.messages.iter().map(|message| stored_item(asker, message)).collect(),
                more: page.more,
                head_seq: page.head_seq,
                resume: None,
            });
            append(opcode(encoding), out, |out| encode_server(encoding, &messages, out));
            return;
        }
        Control::Explained { client_seq, key, explained } => {
            ServerFrame::Explained(explained_frame(client_seq, &key, asker, &explained))
        }
        Control::Peers { client_seq, peers } => {
            let peers = ServerFrame::Peers(Peers { client_seq, peers: peers.iter().map(peer_item).collect() });
            append(opcode(encoding), out, |out| encode_server(encoding, &peers, out));
            return;
        }
        Control::Gap { key, first_missing_seq, head_seq } => ServerFrame::Gap(Gap {
            channel_id: key.id_for(asker).to_owned().into(),
            channel_type: key.channel_type().to_wire(),
            first_missing_seq,
            head_seq,
        }),
        // Whatever was dropped lies behind what the client has seen, so it starts from its own version.
        Control::Resync { .. } => ServerFrame::Event(Event::Resync(ResyncEvent { version: 0 })),
    };
    append(opcode(encoding), out, |out| encode_server(encoding, &frame, out));
}

fn append<E: std::fmt::Display>(opcode: Opcode, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) {
    if let Err(error) = append_frame(opcode, out, encode) {
        tracing::error!(%error, "a frame cannot be encoded");
    }
}

/// A live entry as WebSocket frames, shared between all sessions that see it alike.
pub fn live(encoding: Encoding, viewer: &Viewer, live: &Live) -> Bytes {
    match live {
        Live::Delivery(delivery) => {
            let side = side_of(&delivery.key, &viewer.uid);
            delivery.encoded(wire_kind(encoding), side, || encode_delivery(encoding, delivery, side))
        }
        Live::Change(change) => change_frame(change, viewer).map_or_else(Bytes::new, |event| frame(encoding, &event)),
        Live::Signal(signal) => frame(
            encoding,
            &ServerFrame::Event(Event::Signal(SignalEvent {
                channel_id: signal.key.id_for(viewer.uid.as_str()).into(),
                channel_type: signal.key.channel_type().to_wire(),
                from_uid: signal.from_uid.bare().into(),
                name: signal.name.as_str().into(),
                data: Cow::Borrowed(&signal.data),
            })),
        ),
        Live::Presence(peer) => frame(encoding, &ServerFrame::Event(Event::Presence(peer_item(peer)))),
        Live::Happening(happening) => {
            let side = side_of(&happening.base.key, &viewer.uid);
            happening.encoded(wire_kind(encoding), side, || {
                frame(encoding, &ServerFrame::Event(Event::Stream(stream_event(happening, &viewer.uid))))
            })
        }
    }
}

fn encode_delivery(encoding: Encoding, delivery: &Delivery, side: Side) -> Bytes {
    let channel_id = delivery.id_for(side);
    let mut scratch = Vec::with_capacity(delivery.bytes + 64);
    let encoded = append_frame(opcode(encoding), &mut scratch, |out| {
        let messages = delivery.messages.iter().map(delivered_item);
        encode_deliver(encoding, channel_id, delivery.key.channel_type().to_wire(), messages, out)
    });
    if let Err(error) = encoded {
        tracing::error!(%error, "a delivery cannot be encoded");
    }
    Bytes::from(scratch)
}

fn delivered_item(message: &Delivered) -> MessageItem<'_> {
    let item = MessageItem {
        message_seq: message.message_seq,
        message_id: message.message_id.get(),
        from_uid: message.from_uid.bare().into(),
        client_msg_no: message.client_msg_no.as_str().into(),
        timestamp: message.timestamp_ms,
        payload: Cow::Borrowed(&message.payload),
        red_dot: message.flags.red_dot,
        no_persist: message.flags.no_persist,
        sync_once: message.flags.sync_once,
        setting: message.setting,
        topic: message.topic.as_str().into(),
        expire: message.expire_s,
        state: native::MessageState::Live,
        ..MessageItem::default()
    };
    with_extras(item, message.extras.as_deref())
}

fn stored_item<'a>(asker: &str, message: &'a Message) -> MessageItem<'a> {
    let shown = message.lanes.iter().filter(|lane| lane.is_shown_to(&message.from_uid, asker));
    let reacted = |reaction: Reaction| {
        let of_kind = message.reactions.iter().filter(move |reacted| reacted.reaction == reaction);
        of_kind.map(|reacted| Cow::Borrowed(reacted.uid.bare())).collect()
    };
    let item = MessageItem {
        message_seq: message.message_seq.get(),
        message_id: message.message_id.get(),
        from_uid: message.from_uid.bare().into(),
        client_msg_no: message.client_msg_no.as_str().into(),
        timestamp: message.timestamp_ms(),
        payload: Cow::Borrowed(&message.payload),
        red_dot: message.flags.red_dot,
        no_persist: false,
        sync_once: message.flags.sync_once,
        setting: message.setting,
        topic: message.topic.as_str().into(),
        expire: message.expire_s,
        state: match message.state {
            MessageState::Live => native::MessageState::Live,
            MessageState::Expired => native::MessageState::Expired,
            MessageState::Revoked => native::MessageState::Revoked,
            MessageState::Damaged => native::MessageState::Damaged,
        },
        edited: message.edited.get(),
        likes: reacted(Reaction::Like),
        dislikes: reacted(Reaction::Dislike),
        lanes: shown.map(lane_item).collect(),
        ..MessageItem::default()
    };
    with_extras(item, message.extras.as_deref())
}

fn with_extras<'a>(mut item: MessageItem<'a>, extras: Option<&'a Extras>) -> MessageItem<'a> {
    if let Some(extras) = extras {
        item.reply_to = extras.reply_to.map_or(0, Version::get);
        item.mentions = extras.mentions.iter().map(|uid| Cow::Borrowed(uid.bare())).collect();
        item.mention_all = extras.mention_all;
        item.files = extras.files.iter().map(|file| Cow::Borrowed(file.as_str())).collect();
    }
    item
}

fn peer_item(peer: &Peer) -> native::Peer<'_> {
    native::Peer {
        uid: peer.uid.bare().into(),
        online: peer.online,
        last_seen_ms: (peer.last_seen_ms > 0).then_some(peer.last_seen_ms),
    }
}

fn synced<'a>(client_seq: u64, since: Version, asker: &str, answer: &'a SyncAnswer) -> Synced<'a> {
    // Until the last page the client keeps the version it came with, so that an interrupted sync loses nothing.
    let version = match (&answer.more, answer.reset) {
        (None, _) => answer.version,
        (Some(_), true) => Version::ZERO,
        (Some(_), false) => since,
    };
    Synced {
        client_seq,
        version: version.get(),
        reset: answer.reset,
        more: answer.more.is_some(),
        page_after: answer.more.map(|after| page_after_text(&after).into()),
        rows: answer.rows.iter().map(|row| sync_row(asker, row)).collect(),
    }
}

fn sync_row<'a>(asker: &str, row: &'a SyncRow) -> Row<'a> {
    Row {
        channel_id: row.channel.id_for(asker).into(),
        channel_type: row.channel.channel_type().to_wire(),
        unread: row.unread,
        timestamp: row.timestamp_s * 1_000,
        last_msg_seq: row.last_msg_seq,
        last_client_msg_no: row.last_client_msg_no.as_str().into(),
        version: row.version.get(),
        read_to_msg_seq: row.read_to_msg_seq,
        deleted_to_msg_seq: row.deleted_to_msg_seq,
        is_deleted: row.is_deleted,
        reset: row.reset,
        complete: row.complete,
        first_seq: row.first_seq,
        changed: row.changed.iter().map(|(seq, _)| *seq).collect(),
        changed_more: row.changed_more,
        mentions: row.mentions,
        pinned: row.pinned,
        muted: row.muted,
        request: row.request,
        recents: row.recents.iter().map(|message| stored_item(asker, message)).collect(),
    }
}

fn explained_frame(client_seq: u64, key: &ChannelKey, asker: &str, explained: &UnreadExplained) -> Explained<'static> {
    let counted = explained.judged.iter().filter(|j| j.verdict == Verdict::Counted).map(|j| j.seq).collect();
    let not_counted = explained.judged.iter().filter(|j| j.verdict != Verdict::Counted);
    Explained {
        client_seq,
        channel_id: key.id_for(asker).to_owned().into(),
        channel_type: key.channel_type().to_wire(),
        unread: explained.unread,
        head_seq: explained.head_seq,
        read_to_msg_seq: explained.read_seq,
        delete_to_msg_seq: explained.delete_floor,
        join_to_msg_seq: explained.join_floor,
        counted,
        not_counted: not_counted.map(|j| NotCounted { message_seq: j.seq, reason: j.verdict.code().into() }).collect(),
        more: explained.more,
    }
}

/// A page's end as text: opaque to clients.
fn page_after_text(after: &PageAfter) -> String {
    format!("{}.{}.{}", after.version, after.order, after.channel.0)
}

/// The first frame of a session.
pub fn connected(
    encoding: Encoding,
    session_id: u64,
    uid: &Uid,
    version: Version,
    now_ms: u64,
    limits: &GatewayLimits,
    resumed: Option<(Version, &SyncAnswer)>,
) -> Bytes {
    let connected = Connected {
        session_id,
        uid: uid.bare().into(),
        namespace: uid.namespace().map(Into::into),
        server_time_ms: now_ms,
        version: version.get(),
        heartbeat_s: u32::try_from(limits.heartbeat_ms / 1_000).unwrap_or(u32::MAX).max(1),
        limits: Limits {
            frame_bytes_max: limits.frame_bytes_max as u64,
            payload_bytes_max: limits.payload_bytes_max as u64,
            in_flight_max: limits.in_flight_max,
            rows_max: limits.rows_max as u32,
            recents_max: crate::hub::conversations::MSG_COUNT_MAX as u32,
            history_max: limits.history_max as u32,
            cursors_max: native::CURSORS_MAX as u32,
            presence_uids_max: native::UIDS_MAX as u32,
            signal_bytes_max: native::SIGNAL_DATA_BYTES_MAX as u32,
        },
        durability: vec![native::Durability::Memory, native::Durability::Disk],
        server: ServerInfo { name: "chinwag".into(), version: env!("CARGO_PKG_VERSION").into() },
        synced: resumed.map(|(since, answer)| synced(0, since, uid.as_str(), answer)),
    };
    frame(encoding, &ServerFrame::Connected(connected))
}

/// A WebSocket pong.
pub fn websocket_pong(payload: &[u8]) -> Bytes {
    websocket::frame(Opcode::Pong, payload)
}
