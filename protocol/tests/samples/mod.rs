//! One or more examples of every frame: with every field set, and with as few as possible. The golden vectors, the
//! round trips and the damage tests all start from these.

#![allow(dead_code, reason = "every test binary uses its part")]

use chinwag_protocol::close::CloseReason;
use chinwag_protocol::native::*;

mod features;

use features::{client_groups, client_messages, client_people, edited, lanes, reacted, streamed};

const VERSION: u64 = 1_790_000_000_123_456;
const FILE: &str = "5f0c2f6e-3f0e-4c9e-8d39-5a1f2f8f1a10";

/// (name, frame), the name being unique within its kind.
pub fn client() -> Vec<(&'static str, ClientFrame<'static>)> {
    let cursor = |channel_id: &'static str, channel_type, last_msg_seq| Cursor {
        channel_id: channel_id.into(),
        channel_type,
        last_msg_seq,
    };
    vec![
        (
            "full",
            ClientFrame::Connect(Connect {
                token: "t0k3n".into(),
                uid: Some("alice".into()),
                device_id: "3f9a".into(),
                device_flag: 1,
                client: Some(ClientInfo { name: "chat".into(), version: "0.1.0".into() }),
                resume: Some(Resume {
                    version: VERSION,
                    cursors: vec![cursor("bob", 1, 17), cursor("crew", 2, 300)],
                    msg_count: 20,
                    rows_max: 100,
                    only_unread: true,
                }),
            }),
        ),
        (
            "minimal",
            ClientFrame::Connect(Connect {
                token: "t0k3n".into(),
                uid: None,
                device_id: "".into(),
                device_flag: 0,
                client: None,
                resume: None,
            }),
        ),
        ("minimal", ClientFrame::Ping(Ping {})),
        ("minimal", ClientFrame::Pong(Pong {})),
        (
            "full",
            ClientFrame::Send(Send {
                client_seq: 70_000,
                channel_id: "crew".into(),
                channel_type: 2,
                client_msg_no: "0b1f7a52-6f4e-4f5c-9a5e-1f0f5c9f7d11".into(),
                payload: b"\x00\xff hello".as_slice().into(),
                red_dot: false,
                no_persist: true,
                sync_once: true,
                setting: 160,
                topic: "news".into(),
                expire: 86_400,
                durability: Durability::Replicated,
                ..Send::default()
            }),
        ),
        ("minimal", ClientFrame::Send(send())),
        (
            "refers",
            ClientFrame::Send(Send {
                reply_to: VERSION,
                mentions: vec!["bob".into(), "zoë".into()],
                mention_all: true,
                files: vec![FILE.into()],
                ..send()
            }),
        ),
        ("full", ClientFrame::Receipt(Receipt { channel_id: "bob".into(), channel_type: 1, message_seq: 18 })),
        (
            "full",
            ClientFrame::Sync(Sync {
                client_seq: 2,
                version: VERSION,
                last_msg_seqs: Some("bob:1:17|crew:2:300".into()),
                cursors: vec![cursor("bob", 1, 17)],
                msg_count: 20,
                only_unread: true,
                page_after: Some("p1".into()),
                rows_max: 50,
            }),
        ),
        (
            "minimal",
            ClientFrame::Sync(Sync {
                client_seq: 2,
                version: 0,
                last_msg_seqs: None,
                cursors: vec![],
                msg_count: 0,
                only_unread: false,
                page_after: None,
                rows_max: 0,
            }),
        ),
        (
            "negative_msg_count",
            ClientFrame::Sync(Sync {
                client_seq: 2,
                version: 0,
                last_msg_seqs: None,
                cursors: vec![],
                msg_count: -1,
                only_unread: false,
                page_after: None,
                rows_max: 0,
            }),
        ),
        (
            "full",
            ClientFrame::History(History {
                client_seq: 3,
                channel_id: "crew".into(),
                channel_type: 2,
                first_seq: 1,
                last_seq: 300,
                limit: 50,
                newest_first: true,
            }),
        ),
        (
            "minimal",
            ClientFrame::History(History {
                client_seq: 3,
                channel_id: "crew".into(),
                channel_type: 2,
                first_seq: 0,
                last_seq: 0,
                limit: 0,
                newest_first: false,
            }),
        ),
        ("full", ClientFrame::Read(Read { client_seq: 4, channel_id: "bob".into(), channel_type: 1, message_seq: 18 })),
        (
            "full",
            ClientFrame::SetUnread(SetUnread { client_seq: 5, channel_id: "bob".into(), channel_type: 1, unread: 3 }),
        ),
        (
            "full",
            ClientFrame::DeleteConversation(DeleteConversation {
                client_seq: 6,
                channel_id: "bob".into(),
                channel_type: 1,
            }),
        ),
        (
            "full",
            ClientFrame::ExplainUnread(ExplainUnread {
                client_seq: 7,
                channel_id: "bob".into(),
                channel_type: 1,
                limit: 10,
            }),
        ),
        (
            "full",
            ClientFrame::Signal(Signal {
                client_seq: 8,
                channel_id: "bob".into(),
                channel_type: 1,
                name: "cursor".into(),
                data: vec![1, 2, 3].into(),
            }),
        ),
        (
            "minimal",
            ClientFrame::Signal(Signal {
                client_seq: 0,
                channel_id: "bob".into(),
                channel_type: 1,
                name: "typing".into(),
                data: vec![].into(),
            }),
        ),
        (
            "full",
            ClientFrame::Presence(Presence { client_seq: 9, uids: vec!["bob".into(), "zoë".into()], watch: true }),
        ),
    ]
    .into_iter()
    .chain(client_messages())
    .chain(client_people())
    .chain(client_groups())
    .collect()
}

/// The smallest send.
pub fn send() -> Send<'static> {
    Send {
        client_seq: 1,
        channel_id: "bob".into(),
        channel_type: 1,
        payload: b"hi".as_slice().into(),
        ..Send::default()
    }
}

/// The smallest message.
pub fn item() -> MessageItem<'static> {
    MessageItem {
        message_seq: 18,
        message_id: VERSION,
        from_uid: "alice".into(),
        client_msg_no: "c-1".into(),
        timestamp: VERSION / 1_000,
        payload: b"hi".as_slice().into(),
        ..MessageItem::default()
    }
}

/// A message of which much is to be said.
fn discussed_item() -> MessageItem<'static> {
    MessageItem {
        message_seq: 20,
        reply_to: VERSION,
        mentions: vec!["bob".into(), "zoë".into()],
        mention_all: true,
        files: vec![FILE.into()],
        edited: VERSION + 14,
        likes: vec!["bob".into(), "carol".into()],
        dislikes: vec!["zoë".into()],
        lanes: lanes(),
        ..item()
    }
}

fn full_item() -> MessageItem<'static> {
    MessageItem {
        message_seq: 0,
        red_dot: false,
        no_persist: true,
        sync_once: true,
        setting: 160,
        topic: "news".into(),
        expire: 86_400,
        ..item()
    }
}

fn revoked_item() -> MessageItem<'static> {
    MessageItem { message_seq: 19, payload: vec![].into(), state: MessageState::Revoked, ..item() }
}

fn row() -> Row<'static> {
    Row {
        channel_id: "bob".into(),
        channel_type: 1,
        unread: 2,
        timestamp: VERSION / 1_000,
        last_msg_seq: 19,
        last_client_msg_no: "c-2".into(),
        version: VERSION + 7,
        read_to_msg_seq: 17,
        deleted_to_msg_seq: 0,
        is_deleted: false,
        reset: false,
        complete: true,
        first_seq: 18,
        changed: vec![],
        changed_more: false,
        mentions: 0,
        pinned: false,
        muted: false,
        request: false,
        recents: vec![revoked_item(), item()],
    }
}

fn gone_row() -> Row<'static> {
    Row {
        channel_id: "crew".into(),
        channel_type: 2,
        unread: 0,
        timestamp: 0,
        last_msg_seq: 0,
        last_client_msg_no: "".into(),
        version: VERSION + 9,
        read_to_msg_seq: 0,
        deleted_to_msg_seq: 0,
        is_deleted: true,
        reset: false,
        complete: true,
        first_seq: 0,
        changed: vec![],
        changed_more: false,
        mentions: 0,
        pinned: false,
        muted: false,
        request: false,
        recents: vec![],
    }
}

fn synced() -> Synced<'static> {
    Synced {
        client_seq: 2,
        version: VERSION + 9,
        reset: false,
        more: false,
        page_after: None,
        rows: vec![row(), gone_row()],
    }
}

/// (name, frame), the name being unique within its kind.
pub fn server() -> Vec<(&'static str, ServerFrame<'static>)> {
    let closing = |reason: CloseReason, retry_after_ms| {
        ServerFrame::Closing(Closing {
            code: reason.number(),
            reason: reason.as_str().into(),
            reconnect: reason.reconnect().into(),
            retry_after_ms,
        })
    };
    vec![
        (
            "full",
            ServerFrame::Connected(Connected {
                session_id: 42,
                uid: "alice".into(),
                namespace: None,
                server_time_ms: VERSION / 1_000,
                version: VERSION,
                heartbeat_s: 30,
                limits: Limits {
                    frame_bytes_max: 1 << 20,
                    payload_bytes_max: 65_536,
                    in_flight_max: 256,
                    rows_max: 200,
                    recents_max: 1_000,
                    history_max: 1_000,
                    cursors_max: 100_000,
                    presence_uids_max: 1_000,
                    signal_bytes_max: 1_024,
                },
                durability: vec![Durability::Memory, Durability::Disk],
                server: ServerInfo { name: "chinwag".into(), version: "0.1.0".into() },
                synced: Some(Synced { client_seq: 0, ..synced() }),
            }),
        ),
        (
            "no_resume",
            ServerFrame::Connected(Connected {
                session_id: 42,
                uid: "alice".into(),
                namespace: None,
                server_time_ms: VERSION / 1_000,
                version: VERSION,
                heartbeat_s: 30,
                limits: Limits { frame_bytes_max: 1 << 20, ..Limits::default() },
                durability: vec![Durability::Disk],
                server: ServerInfo { name: "chinwag".into(), version: "0.1.0".into() },
                synced: None,
            }),
        ),
        ("minimal", ServerFrame::Ping(Ping {})),
        ("minimal", ServerFrame::Pong(Pong {})),
        ("full", ServerFrame::Ack(Ack { duplicate: true, ..ack() })),
        ("minimal", ServerFrame::Ack(ack())),
        (
            "full",
            ServerFrame::Refused(Refused {
                client_seq: 3,
                code: "invalid".into(),
                text: "unread is negative".into(),
                field: Some("unread".into()),
                retry_after_ms: None,
            }),
        ),
        (
            "busy",
            ServerFrame::Refused(Refused {
                client_seq: 4,
                code: "busy".into(),
                text: "too much at once".into(),
                field: None,
                retry_after_ms: Some(250),
            }),
        ),
        (
            "full",
            ServerFrame::Deliver(Deliver {
                channel_id: "alice".into(),
                channel_type: 1,
                messages: vec![item(), revoked_item(), full_item()],
            }),
        ),
        (
            "minimal",
            ServerFrame::Deliver(Deliver { channel_id: "alice".into(), channel_type: 1, messages: vec![item()] }),
        ),
        (
            "refers",
            ServerFrame::Deliver(Deliver {
                channel_id: "crew".into(),
                channel_type: 2,
                messages: vec![MessageItem {
                    edited: 0,
                    likes: vec![],
                    dislikes: vec![],
                    lanes: vec![],
                    ..discussed_item()
                }],
            }),
        ),
        (
            "full",
            ServerFrame::Gap(Gap {
                channel_id: "crew".into(),
                channel_type: 2,
                first_missing_seq: 301,
                head_seq: 5_000,
            }),
        ),
        (
            "signal",
            ServerFrame::Event(Event::Signal(SignalEvent {
                channel_id: "alice".into(),
                channel_type: 1,
                from_uid: "alice".into(),
                name: "typing".into(),
                data: vec![].into(),
            })),
        ),
        (
            "presence",
            ServerFrame::Event(Event::Presence(Peer {
                uid: "bob".into(),
                online: false,
                last_seen_ms: Some(VERSION / 1_000),
            })),
        ),
        (
            "conversation",
            ServerFrame::Event(Event::Conversation(ConversationEvent {
                channel_id: "bob".into(),
                channel_type: 1,
                version: VERSION + 10,
                unread: 0,
                read_to_msg_seq: 19,
                last_msg_seq: 19,
                is_deleted: false,
            })),
        ),
        (
            "member",
            ServerFrame::Event(Event::Member(MemberEvent {
                channel_id: "crew".into(),
                channel_type: 2,
                version: VERSION + 11,
                joined: vec!["carol".into()],
                left: vec!["dave".into(), "erin".into()],
            })),
        ),
        ("message_edited", ServerFrame::Event(Event::Message(edited()))),
        ("stream_delta", ServerFrame::Event(Event::Stream(streamed(0)))),
        ("stream_stored", ServerFrame::Event(Event::Stream(streamed(VERSION + 15)))),
        (
            "message_revoked",
            ServerFrame::Event(Event::Message(MessageEvent {
                what: MessageChange::Revoked,
                by: "".into(),
                ..reacted(Reaction::None)
            })),
        ),
        ("message_liked", ServerFrame::Event(Event::Message(reacted(Reaction::Like)))),
        ("message_unliked", ServerFrame::Event(Event::Message(reacted(Reaction::None)))),
        (
            "flags",
            ServerFrame::Event(Event::Flags(FlagsEvent {
                channel_id: "bob".into(),
                channel_type: 1,
                version: VERSION + 15,
                pinned: true,
                muted: true,
                request: true,
            })),
        ),
        (
            "channel",
            ServerFrame::Event(Event::Channel(ChannelEvent {
                channel_id: "crew".into(),
                channel_type: 2,
                version: VERSION + 16,
                name: Some("The crew".into()),
                icon: Some(FILE.into()),
                description: Some("".into()),
                roles: vec![MemberItem { uid: "bob".into(), role: Role::Admin }],
            })),
        ),
        ("resync", ServerFrame::Event(Event::Resync(ResyncEvent { version: VERSION }))),
        (
            "full",
            ServerFrame::Synced(Synced {
                reset: true,
                more: true,
                page_after: Some("p1".into()),
                rows: vec![Row { reset: true, complete: false, changed: vec![3, 5], ..row() }, gone_row()],
                ..synced()
            }),
        ),
        (
            "flags",
            ServerFrame::Synced(Synced {
                rows: vec![Row {
                    changed: vec![12],
                    changed_more: true,
                    mentions: 1,
                    pinned: true,
                    muted: true,
                    request: true,
                    recents: vec![discussed_item()],
                    ..row()
                }],
                ..synced()
            }),
        ),
        ("nothing_changed", ServerFrame::Synced(Synced { rows: vec![], ..synced() })),
        (
            "full",
            ServerFrame::Messages(Messages {
                client_seq: 3,
                channel_id: "bob".into(),
                channel_type: 1,
                messages: vec![item(), revoked_item()],
                more: true,
                head_seq: 19,
                resume: None,
            }),
        ),
        (
            "found",
            ServerFrame::Messages(Messages {
                client_seq: 15,
                channel_id: "crew".into(),
                channel_type: 2,
                messages: vec![discussed_item()],
                more: true,
                head_seq: 90_000,
                resume: Some(17),
            }),
        ),
        (
            "full",
            ServerFrame::Done(Done {
                client_seq: 5,
                version: VERSION + 12,
                unread: Some(0),
                read_to_msg_seq: Some(19),
            }),
        ),
        (
            "minimal",
            ServerFrame::Done(Done { client_seq: 6, version: VERSION + 13, unread: None, read_to_msg_seq: None }),
        ),
        ("by_events", ServerFrame::Done(Done { client_seq: 23, version: 0, unread: None, read_to_msg_seq: None })),
        (
            "full",
            ServerFrame::Explained(Explained {
                client_seq: 7,
                channel_id: "bob".into(),
                channel_type: 1,
                unread: 1,
                head_seq: 19,
                read_to_msg_seq: 17,
                delete_to_msg_seq: 4,
                join_to_msg_seq: 2,
                counted: vec![18],
                not_counted: vec![NotCounted { message_seq: 19, reason: "revoked".into() }],
                more: true,
            }),
        ),
        (
            "full",
            ServerFrame::Peers(Peers {
                client_seq: 9,
                peers: vec![
                    Peer { uid: "bob".into(), online: true, last_seen_ms: None },
                    Peer { uid: "zoë".into(), online: false, last_seen_ms: Some(VERSION / 1_000) },
                ],
            }),
        ),
        (
            "full",
            ServerFrame::Changes(ChangesPage {
                client_seq: 13,
                channel_id: "crew".into(),
                channel_type: 2,
                items: vec![
                    ChangedItem { message_seq: 20, version: VERSION + 14 },
                    ChangedItem { message_seq: 3, version: VERSION + 2 },
                ],
                more: true,
            }),
        ),
        (
            "nothing_changed",
            ServerFrame::Changes(ChangesPage {
                client_seq: 13,
                channel_id: "crew".into(),
                channel_type: 2,
                items: vec![],
                more: false,
            }),
        ),
        (
            "full",
            ServerFrame::Readers(Readers {
                client_seq: 14,
                channel_id: "crew".into(),
                channel_type: 2,
                message_seq: 20,
                uids: vec!["bob".into(), "zoë".into()],
                of: 4,
                more: true,
            }),
        ),
        (
            "full",
            ServerFrame::Relations(RelationsList {
                client_seq: 18,
                relations: vec![
                    RelationItem { uid: "bob".into(), contact: true, blocked: false },
                    RelationItem { uid: "mallory".into(), contact: false, blocked: true },
                ],
            }),
        ),
        ("full", ServerFrame::Settings(SettingsNow { client_seq: 19, strangers: Strangers::Quarantine })),
        (
            "full",
            ServerFrame::Profile(ProfileNow {
                client_seq: 20,
                channel_id: FILE.into(),
                channel_type: 2,
                name: "The crew".into(),
                icon: "https://example.org/crew.png".into(),
                description: "Who sails".into(),
                creator: "alice".into(),
            }),
        ),
        (
            "minimal",
            ServerFrame::Profile(ProfileNow {
                client_seq: 20,
                channel_id: "crew".into(),
                channel_type: 2,
                name: "".into(),
                icon: "".into(),
                description: "".into(),
                creator: "".into(),
            }),
        ),
        (
            "full",
            ServerFrame::Members(MembersList {
                client_seq: 22,
                channel_id: "crew".into(),
                channel_type: 2,
                members: vec![
                    MemberItem { uid: "alice".into(), role: Role::Owner },
                    MemberItem { uid: "bob".into(), role: Role::Admin },
                    MemberItem { uid: "zoë".into(), role: Role::Member },
                ],
                of: 12,
                more: true,
            }),
        ),
        ("draining", closing(CloseReason::Draining, Some(1_000))),
        ("same_device", closing(CloseReason::SameDevice, None)),
    ]
}

/// An ack without anything optional.
pub fn ack() -> Ack<'static> {
    Ack {
        client_seq: 1,
        client_msg_no: "c-1".into(),
        message_id: VERSION,
        message_seq: 18,
        timestamp: VERSION / 1_000,
        level: Durability::Disk,
        duplicate: false,
    }
}
