//! Native frames to the hub's words and back, by hand (style: wire structs stop at the edge).

use std::borrow::Cow;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::error::WireError;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, IdError, Uid, Version};
use protocol::native::{
    self, Ack, Closing, Connected, ConversationEvent, Done, Encoding, Event, Explained, Gap, Limits, MemberEvent,
    MessageItem, Messages, NotCounted, Peers, Ping, Pong, Refused, ResyncEvent, Row, ServerFrame, ServerInfo,
    SignalEvent, Synced, encode_ack, encode_deliver, encode_server,
};
use protocol::sync::{Cursor, Cursors};

use super::GatewayLimits;
use super::websocket::{self, Opcode, append_frame, close_frame, frame_with};
use crate::domain::conversation::Verdict;
use crate::domain::message::{Draft, Durability, Message, MessageFlags, MessageState};
use crate::domain::refusal::Refusal;
use crate::hub::ChannelNo;
use crate::hub::conversations::{Page, PageAfter, SyncAnswer, SyncRequest, SyncRow, UnreadExplained};
use crate::hub::delivery::{Change, ConversationChange, Delivered, Delivery, Side};
use crate::hub::outbox::{Control, Live, Peer};
use crate::hub::shard::side_of;

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
        Control::Raw(bytes) => {
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
                messages: page.messages.iter().map(stored_item).collect(),
                more: page.more,
                head_seq: page.head_seq,
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
                from_uid: signal.from_uid.as_str().into(),
                name: signal.name.as_str().into(),
                data: Cow::Borrowed(&signal.data),
            })),
        ),
        Live::Presence(peer) => frame(encoding, &ServerFrame::Event(Event::Presence(peer_item(peer)))),
    }
}

fn encode_delivery(encoding: Encoding, delivery: &Delivery, side: Side) -> Bytes {
    let channel_id = match (delivery.key.channel_type(), delivery.key.channel_id().split_once('@')) {
        (ChannelType::Person, Some((first, second))) => match side {
            Side::First => second,
            Side::Second => first,
        },
        _ => delivery.key.channel_id(),
    };
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
    MessageItem {
        message_seq: message.message_seq,
        message_id: message.message_id.get(),
        from_uid: message.from_uid.as_str().into(),
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
    }
}

fn stored_item(message: &Message) -> MessageItem<'_> {
    MessageItem {
        message_seq: message.message_seq.get(),
        message_id: message.message_id.get(),
        from_uid: message.from_uid.as_str().into(),
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
    }
}

fn peer_item(peer: &Peer) -> native::Peer<'_> {
    native::Peer {
        uid: peer.uid.as_str().into(),
        online: peer.online,
        last_seen_ms: (peer.last_seen_ms > 0).then_some(peer.last_seen_ms),
    }
}

fn change_frame<'a>(change: &'a Change, viewer: &Viewer) -> Option<ServerFrame<'a>> {
    let asker = viewer.uid.as_str();
    let event = match change {
        Change::Joined { key, version, uids, .. } | Change::Left { key, version, uids, .. } => {
            // A session hears of its own user only; who else joined is for the member list.
            let own = uids.iter().find(|uid| uid.as_str() == asker)?.as_str();
            let (joined, left) = match change {
                Change::Joined { .. } => (vec![own.into()], Vec::new()),
                _ => (Vec::new(), vec![own.into()]),
            };
            Event::Member(MemberEvent {
                channel_id: key.id_for(asker).into(),
                channel_type: key.channel_type().to_wire(),
                version: version.get(),
                joined,
                left,
            })
        }
        Change::Conversation { what: ConversationChange::Flags { .. }, .. }
        | Change::MessageChanged { .. }
        | Change::Channel { .. } => Event::Resync(ResyncEvent { version: 0 }),
        Change::Conversation { key, version, what, .. } => {
            let (read_to_msg_seq, unread, last_msg_seq, is_deleted) = match what {
                ConversationChange::Read { read_to_msg_seq, unread, head_seq } => {
                    (*read_to_msg_seq, *unread, *head_seq, false)
                }
                ConversationChange::Deleted { delete_floor } => (*delete_floor, 0, *delete_floor, true),
                ConversationChange::Flags { .. } => return None,
            };
            Event::Conversation(ConversationEvent {
                channel_id: key.id_for(asker).into(),
                channel_type: key.channel_type().to_wire(),
                version: version.get(),
                unread,
                read_to_msg_seq,
                last_msg_seq,
                is_deleted,
            })
        }
        // What a message became is fetched, not pushed: its sync row lists it.
        Change::MessagesChanged { .. } => Event::Resync(ResyncEvent { version: 0 }),
    };
    Some(ServerFrame::Event(event))
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
        changed: Vec::new(),
        recents: row.recents.iter().map(stored_item).collect(),
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

fn page_after_of(text: &str) -> Result<PageAfter, Refusal> {
    let bad = || Refusal::invalid("page_after", "is not what an answer gave");
    let mut parts = text.split('.');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(bad);
    let (version, order, channel) = (number()?, number()?, number()?);
    let channel = u32::try_from(channel).map_err(|_| bad())?;
    if parts.next().is_some() {
        return Err(bad());
    }
    Ok(PageAfter { version: Version::new(version), order: Version::new(order), channel: ChannelNo(channel) })
}

/// An id's fault as a refusal that names the field.
pub fn bad_id(field: &'static str) -> impl FnOnce(IdError) -> Refusal {
    move |error| Refusal::invalid(field, error)
}

/// The channel a client means.
///
/// # Errors
/// `Invalid`, naming channel_id or channel_type.
pub fn channel_of(asker: &Uid, channel_id: &str, channel_type: u8) -> Result<ChannelKey, Refusal> {
    let channel_type = ChannelType::from_wire(channel_type).map_err(bad_id("channel_type"))?;
    ChannelKey::seen_by(asker, channel_id, channel_type).map_err(bad_id("channel_id"))
}

/// A `send` as a draft. The payload is copied once: the frame lies in a buffer that all connections share.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn draft_of(from_uid: &Uid, send: &native::Send<'_>) -> Result<Draft, Refusal> {
    let channel = channel_of(from_uid, &send.channel_id, send.channel_type)?;
    let client_msg_no = match &*send.client_msg_no {
        "" => None,
        text => Some(ClientMsgNo::new(text).map_err(bad_id("client_msg_no"))?),
    };
    let durability = match send.durability {
        native::Durability::Memory => Durability::Memory,
        native::Durability::Disk => Durability::Disk,
        native::Durability::Replicated => Durability::Replicated,
        native::Durability::Unknown => return Err(Refusal::DurabilityNotOffered),
    };
    let flags = MessageFlags { no_persist: send.no_persist, red_dot: send.red_dot, sync_once: send.sync_once };
    Ok(Draft {
        channel,
        from_uid: from_uid.clone(),
        client_msg_no,
        flags,
        setting: send.setting,
        topic: send.topic.clone().into_owned(),
        expire_s: send.expire,
        payload: Bytes::copy_from_slice(&send.payload),
        extras: None,
        durability,
    })
}

/// What a client asks a sync for, from either frame that has it.
pub struct SyncAsked<'a> {
    /// Highest version it has seen.
    pub version: u64,
    /// Cursors as text.
    pub last_msg_seqs: Option<&'a str>,
    /// Cursors as a list.
    pub cursors: &'a [native::Cursor<'a>],
    /// Newest messages of a row.
    pub msg_count: i64,
    /// Only rows with unread.
    pub only_unread: bool,
    /// Where the page before ended.
    pub page_after: Option<&'a str>,
    /// Rows of a page; 0: the server's.
    pub rows_max: u32,
}

/// Bytes of recents in one native page: pages are many, so each stays small beside a socket's buffers.
const PAGE_RECENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A native sync: always with tombstones, always paged.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn sync_of(uid: &Uid, asked: &SyncAsked<'_>, limits: &GatewayLimits) -> Result<SyncRequest, Refusal> {
    let cursors = match (asked.last_msg_seqs, asked.cursors) {
        (Some(text), []) => Some(Cursors::Text(text.to_owned())),
        (Some(_), _) => return Err(Refusal::invalid("cursors", "cannot be given beside last_msg_seqs")),
        (None, []) => None,
        (None, list) => Some(Cursors::List(
            list.iter()
                .map(|cursor| Cursor {
                    channel_id: cursor.channel_id.clone().into_owned(),
                    channel_type: cursor.channel_type,
                    last_msg_seq: cursor.last_msg_seq,
                })
                .collect(),
        )),
    };
    let rows_max = match asked.rows_max as usize {
        0 => limits.rows_max,
        wanted => wanted.min(limits.rows_max),
    };
    Ok(SyncRequest {
        version: Version::new(asked.version),
        cursors,
        recents_bytes_max: PAGE_RECENTS_BYTES_MAX,
        with_deleted: true,
        only_unread: asked.only_unread,
        page: Page::Rows { after: asked.page_after.map(page_after_of).transpose()?, rows_max },
        ..SyncRequest::full(uid.clone(), SyncRequest::msg_count_of(asked.msg_count)?)
    })
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
        uid: uid.as_str().into(),
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
