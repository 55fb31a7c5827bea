//! Frames about messages, people and groups.

use chinwag_protocol::native::*;

use super::{FILE, VERSION};

pub(super) fn client_messages() -> Vec<(&'static str, ClientFrame<'static>)> {
    let (channel_id, channel_type, message_seq) = ("crew", 2, 20);
    let search = |text: &'static str| Search {
        client_seq: 15,
        channel_id: channel_id.into(),
        channel_type,
        text: text.into(),
        first_seq: 0,
        last_seq: 0,
        limit: 0,
        oldest_first: false,
    };
    let react = |reaction| {
        ClientFrame::React(React { client_seq: 12, channel_id: channel_id.into(), channel_type, message_seq, reaction })
    };
    vec![
        (
            "full",
            ClientFrame::Revoke(Revoke { client_seq: 10, channel_id: channel_id.into(), channel_type, message_seq }),
        ),
        (
            "full",
            ClientFrame::Edit(Edit {
                client_seq: 11,
                channel_id: channel_id.into(),
                channel_type,
                message_seq,
                payload: b"hello".as_slice().into(),
                reply_to: VERSION,
                mentions: vec!["bob".into(), "zoë".into()],
                mention_all: true,
                files: vec![FILE.into()],
            }),
        ),
        (
            "minimal",
            ClientFrame::Edit(Edit {
                client_seq: 11,
                channel_id: "bob".into(),
                channel_type: 1,
                message_seq: 18,
                payload: b"hello".as_slice().into(),
                reply_to: 0,
                mentions: vec![],
                mention_all: false,
                files: vec![],
            }),
        ),
        ("like", react(Reaction::Like)),
        ("dislike", react(Reaction::Dislike)),
        ("none", react(Reaction::None)),
        (
            "full",
            ClientFrame::Changes(Changes {
                client_seq: 13,
                channel_id: channel_id.into(),
                channel_type,
                since: VERSION,
                limit: 100,
            }),
        ),
        (
            "minimal",
            ClientFrame::Changes(Changes {
                client_seq: 13,
                channel_id: channel_id.into(),
                channel_type,
                since: 0,
                limit: 0,
            }),
        ),
        (
            "full",
            ClientFrame::ReadBy(ReadBy {
                client_seq: 14,
                channel_id: channel_id.into(),
                channel_type,
                message_seq,
                limit: 2,
            }),
        ),
        (
            "full",
            ClientFrame::Search(Search { first_seq: 1, last_seq: 89, limit: 20, oldest_first: true, ..search("çay") }),
        ),
        ("minimal", ClientFrame::Search(search("100%"))),
    ]
}

pub(super) fn client_people() -> Vec<(&'static str, ClientFrame<'static>)> {
    vec![
        (
            "full",
            ClientFrame::Flags(Flags {
                client_seq: 16,
                channel_id: "bob".into(),
                channel_type: 1,
                pinned: Some(true),
                muted: Some(false),
                accepted: Some(true),
            }),
        ),
        (
            "one",
            ClientFrame::Flags(Flags {
                client_seq: 16,
                channel_id: "bob".into(),
                channel_type: 1,
                pinned: None,
                muted: Some(true),
                accepted: None,
            }),
        ),
        (
            "full",
            ClientFrame::Relation(Relation {
                client_seq: 17,
                uid: "mallory".into(),
                contact: Some(false),
                blocked: Some(true),
            }),
        ),
        ("full", ClientFrame::Relations(Relations { client_seq: 18 })),
        ("full", ClientFrame::Settings(Settings { client_seq: 19, strangers: Some(Strangers::Quarantine) })),
        ("ask", ClientFrame::Settings(Settings { client_seq: 19, strangers: None })),
    ]
}

pub(super) fn client_groups() -> Vec<(&'static str, ClientFrame<'static>)> {
    let (channel_id, channel_type) = ("crew", 2);
    let uids = || vec!["bob".into(), "zoë".into()];
    let profile = || Profile {
        client_seq: 21,
        channel_id: channel_id.into(),
        channel_type,
        name: None,
        icon: None,
        description: None,
    };
    vec![
        (
            "full",
            ClientFrame::Group(Group {
                client_seq: 20,
                name: "The crew".into(),
                icon: "https://example.org/crew.png".into(),
                description: "Who sails".into(),
                members: uids(),
            }),
        ),
        (
            "minimal",
            ClientFrame::Group(Group {
                client_seq: 20,
                name: "".into(),
                icon: "".into(),
                description: "".into(),
                members: vec![],
            }),
        ),
        (
            "full",
            ClientFrame::Profile(Profile {
                name: Some("The crew".into()),
                icon: Some(FILE.into()),
                description: Some("".into()),
                ..profile()
            }),
        ),
        ("ask", ClientFrame::Profile(profile())),
        (
            "full",
            ClientFrame::Members(Members {
                client_seq: 22,
                channel_id: channel_id.into(),
                channel_type,
                skip: 3,
                limit: 100,
            }),
        ),
        (
            "full",
            ClientFrame::Invite(Invite { client_seq: 23, channel_id: channel_id.into(), channel_type, uids: uids() }),
        ),
        (
            "full",
            ClientFrame::Expel(Expel { client_seq: 24, channel_id: channel_id.into(), channel_type, uids: uids() }),
        ),
        (
            "full",
            ClientFrame::Role(GiveRole {
                client_seq: 25,
                channel_id: channel_id.into(),
                channel_type,
                uid: "bob".into(),
                role: Role::Admin,
            }),
        ),
        ("full", ClientFrame::Leave(Leave { client_seq: 26, channel_id: channel_id.into(), channel_type })),
    ]
}

pub(super) fn edited() -> MessageEvent<'static> {
    MessageEvent {
        what: MessageChange::Edited,
        payload: b"hello".as_slice().into(),
        reply_to: VERSION,
        mentions: vec!["bob".into(), "zoë".into()],
        mention_all: true,
        files: vec![FILE.into()],
        ..reacted(Reaction::None)
    }
}

pub(super) fn lanes() -> Vec<LaneItem<'static>> {
    let lane = |key: &'static str, status| LaneItem {
        event_key: key.into(),
        status,
        msg_event_seq: 3,
        event_id: "e-3".into(),
        visibility: Visibility::Public,
        end_reason: 0,
        error: "".into(),
        snapshot: br#"{"kind":"text","text":"Hello"}"#.as_slice().into(),
    };
    let bare =
        LaneItem { msg_event_seq: 0, event_id: "".into(), snapshot: vec![].into(), ..lane("main", LaneStatus::Open) };
    let over = LaneItem {
        visibility: Visibility::Private,
        end_reason: 4,
        error: "timeout".into(),
        ..lane("thoughts", LaneStatus::Error)
    };
    let restricted = LaneItem { visibility: Visibility::Restricted, ..lane("cost", LaneStatus::Cancelled) };
    vec![bare, over, restricted, lane("plan", LaneStatus::Closed)]
}

pub(super) fn streamed(version: u64) -> StreamEvent<'static> {
    let delta = StreamEvent {
        channel_id: "crew".into(),
        channel_type: 2,
        message_seq: 20,
        message_id: VERSION,
        version,
        event_id: "e-1".into(),
        event_type: "stream.delta".into(),
        event_key: "main".into(),
        msg_event_seq: 0,
        status: LaneStatus::Open,
        visibility: Visibility::Public,
        occurred_at: 0,
        payload: br#"{"kind":"text","delta":"Hel"}"#.as_slice().into(),
        snapshot: vec![].into(),
    };
    if version == 0 {
        return delta;
    }
    StreamEvent {
        event_id: "e-3".into(),
        event_type: "stream.close".into(),
        msg_event_seq: 1,
        status: LaneStatus::Closed,
        visibility: Visibility::Private,
        occurred_at: VERSION / 1_000,
        payload: vec![].into(),
        snapshot: br#"{"kind":"text","text":"Hello"}"#.as_slice().into(),
        ..delta
    }
}

pub(super) fn reacted(reaction: Reaction) -> MessageEvent<'static> {
    MessageEvent {
        channel_id: "crew".into(),
        channel_type: 2,
        message_seq: 20,
        version: VERSION + 14,
        what: MessageChange::Reacted,
        by: "alice".into(),
        payload: vec![].into(),
        reply_to: 0,
        mentions: vec![],
        mention_all: false,
        files: vec![],
        reaction,
    }
}
