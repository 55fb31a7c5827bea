//! Changes by others, and on this user's other devices, as events.

use std::borrow::Cow;

use protocol::ids::{ChannelKey, Uid, Version};
use protocol::native::{
    self, ChannelEvent, ConversationEvent, Event, FlagsEvent, LaneItem, MemberEvent, MessageEvent, ResyncEvent,
    ServerFrame, StreamEvent,
};

use super::Viewer;
use super::answers::member_item;
use crate::domain::event::{Lane, LaneStatus, Visibility};
use crate::domain::message::{Extras, Reaction};
use crate::hub::delivery::{Change, ChannelChange, ConversationChange, Happening, MessageChange};

/// A change as this viewer is to learn of it; `None`: not at all.
pub(super) fn change_frame<'a>(change: &'a Change, viewer: &Viewer) -> Option<ServerFrame<'a>> {
    let asker = viewer.uid.as_str();
    let event = match change {
        Change::Joined { key, version, uids, .. } => {
            let joined = own(uids, asker)?;
            Event::Member(MemberEvent { joined: vec![joined], ..member_event(key, *version, asker) })
        }
        Change::Left { key, version, uids, .. } => {
            let left = own(uids, asker)?;
            Event::Member(MemberEvent { left: vec![left], ..member_event(key, *version, asker) })
        }
        Change::Conversation { key, version, what, .. } => conversation_event(key, *version, what, asker),
        // What is over is fetched, not pushed: its sync row lists it.
        Change::MessagesChanged { .. } => Event::Resync(ResyncEvent { version: 0 }),
        Change::Happened(happening) => Event::Stream(stream_event(happening, &viewer.uid)),
        Change::MessageChanged { key, seq, version, what, .. } => {
            Event::Message(message_event(key, *seq, *version, what, asker))
        }
        Change::Channel { key, version, what, .. } => Event::Channel(channel_event(key, *version, what, asker)),
    };
    Some(ServerFrame::Event(event))
}

/// A session hears of its own user only; who else joined or left is for the member list.
fn own<'a>(uids: &'a [Uid], asker: &str) -> Option<Cow<'a, str>> {
    uids.iter().find(|uid| uid.as_str() == asker).map(|uid| Cow::Borrowed(uid.bare()))
}

fn member_event<'a>(key: &'a ChannelKey, version: Version, asker: &str) -> MemberEvent<'a> {
    MemberEvent {
        channel_id: key.id_for(asker).into(),
        channel_type: key.channel_type().to_wire(),
        version: version.get(),
        joined: Vec::new(),
        left: Vec::new(),
    }
}

fn conversation_event<'a>(key: &'a ChannelKey, version: Version, what: &ConversationChange, asker: &str) -> Event<'a> {
    let (channel_id, channel_type) = (key.id_for(asker).into(), key.channel_type().to_wire());
    let version = version.get();
    match what {
        ConversationChange::Read { read_to_msg_seq, unread, head_seq } => Event::Conversation(ConversationEvent {
            channel_id,
            channel_type,
            version,
            unread: *unread,
            read_to_msg_seq: *read_to_msg_seq,
            last_msg_seq: *head_seq,
            is_deleted: false,
        }),
        ConversationChange::Deleted { delete_floor } => Event::Conversation(ConversationEvent {
            channel_id,
            channel_type,
            version,
            unread: 0,
            read_to_msg_seq: *delete_floor,
            last_msg_seq: *delete_floor,
            is_deleted: true,
        }),
        ConversationChange::Flags { flags } => Event::Flags(FlagsEvent {
            channel_id,
            channel_type,
            version,
            pinned: flags.pinned,
            muted: flags.muted,
            request: flags.request,
        }),
    }
}

fn message_event<'a>(
    key: &'a ChannelKey,
    message_seq: u64,
    version: Version,
    what: &'a MessageChange,
    asker: &str,
) -> MessageEvent<'a> {
    let by_of = |by: &'a Option<Uid>| Cow::Borrowed(by.as_ref().map_or("", Uid::bare));
    let base = MessageEvent {
        channel_id: key.id_for(asker).into(),
        channel_type: key.channel_type().to_wire(),
        message_seq,
        version: version.get(),
        what: native::MessageChange::Revoked,
        by: Cow::Borrowed(""),
        payload: Cow::Borrowed(&[]),
        reply_to: 0,
        mentions: Vec::new(),
        mention_all: false,
        files: Vec::new(),
        reaction: native::Reaction::None,
    };
    match what {
        MessageChange::Revoked { by } => MessageEvent { by: by_of(by), ..base },
        MessageChange::Edited { by, payload, extras } => {
            let edited = MessageEvent {
                what: native::MessageChange::Edited,
                by: by_of(by),
                payload: Cow::Borrowed(payload),
                ..base
            };
            match extras.as_deref() {
                None => edited,
                Some(extras) => MessageEvent {
                    reply_to: reply_to(extras),
                    mentions: extras.mentions.iter().map(|uid| uid.bare().into()).collect(),
                    mention_all: extras.mention_all,
                    files: extras.files.iter().map(|file| file.as_str().into()).collect(),
                    ..edited
                },
            }
        }
        MessageChange::Reacted { uid, reaction } => MessageEvent {
            what: native::MessageChange::Reacted,
            by: uid.bare().into(),
            reaction: match reaction {
                None => native::Reaction::None,
                Some(Reaction::Like) => native::Reaction::Like,
                Some(Reaction::Dislike) => native::Reaction::Dislike,
            },
            ..base
        },
    }
}

/// What happened to a stream, as this viewer is to learn of it.
pub(super) fn stream_event<'a>(happening: &'a Happening, viewer: &Uid) -> StreamEvent<'a> {
    let (base, lane) = (&happening.base, &happening.lane);
    StreamEvent {
        channel_id: base.key.id_for(viewer.as_str()).to_owned().into(),
        channel_type: base.key.channel_type().to_wire(),
        message_seq: base.message_seq,
        message_id: base.message_id.get(),
        version: happening.version.get(),
        event_id: happening.event_id.as_str().into(),
        event_type: happening.given_type.as_str().into(),
        event_key: lane.key.as_str().into(),
        msg_event_seq: lane.seq,
        status: status_word(lane.status),
        visibility: visibility_word(lane.visibility),
        occurred_at: happening.occurred_at_ms,
        payload: Cow::Borrowed(&happening.payload),
        snapshot: Cow::Borrowed(&lane.snapshot),
    }
}

/// A lane of a stored message.
pub(super) fn lane_item(lane: &Lane) -> LaneItem<'_> {
    LaneItem {
        event_key: lane.key.as_str().into(),
        status: status_word(lane.status),
        msg_event_seq: lane.seq,
        event_id: lane.event_id.as_str().into(),
        visibility: visibility_word(lane.visibility),
        end_reason: lane.end_reason,
        error: lane.error.as_str().into(),
        snapshot: Cow::Borrowed(&lane.snapshot),
    }
}

fn status_word(status: LaneStatus) -> native::LaneStatus {
    match status {
        LaneStatus::Open => native::LaneStatus::Open,
        LaneStatus::Closed => native::LaneStatus::Closed,
        LaneStatus::Error => native::LaneStatus::Error,
        LaneStatus::Cancelled => native::LaneStatus::Cancelled,
    }
}

fn visibility_word(visibility: Visibility) -> native::Visibility {
    match visibility {
        Visibility::Public => native::Visibility::Public,
        Visibility::Private => native::Visibility::Private,
        Visibility::Restricted => native::Visibility::Restricted,
    }
}

fn reply_to(extras: &Extras) -> u64 {
    extras.reply_to.map_or(0, Version::get)
}

fn channel_event<'a>(key: &'a ChannelKey, version: Version, what: &'a ChannelChange, asker: &str) -> ChannelEvent<'a> {
    let base = ChannelEvent {
        channel_id: key.id_for(asker).into(),
        channel_type: key.channel_type().to_wire(),
        version: version.get(),
        name: None,
        icon: None,
        description: None,
        roles: Vec::new(),
    };
    match what {
        ChannelChange::Profile(profile) => ChannelEvent {
            name: Some(profile.name.as_str().into()),
            icon: Some(profile.icon.as_str().into()),
            description: Some(profile.description.as_str().into()),
            ..base
        },
        ChannelChange::Role { uid, role } => ChannelEvent { roles: vec![member_item(uid, *role)], ..base },
    }
}
