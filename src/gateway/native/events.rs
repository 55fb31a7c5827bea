//! Changes of others, and of this user's other devices, as events.

use protocol::native::{ConversationEvent, Event, MemberEvent, ResyncEvent, ServerFrame};

use super::Viewer;
use crate::hub::delivery::{Change, ConversationChange};

/// A change as this viewer is to learn of it; `None`: not at all.
pub(super) fn change_frame<'a>(change: &'a Change, viewer: &Viewer) -> Option<ServerFrame<'a>> {
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
        Change::Conversation { key, version, what, .. } => {
            let (read_to_msg_seq, unread, last_msg_seq, is_deleted) = match what {
                ConversationChange::Read { read_to_msg_seq, unread, head_seq } => {
                    (*read_to_msg_seq, *unread, *head_seq, false)
                }
                ConversationChange::Deleted { delete_floor } => (*delete_floor, 0, *delete_floor, true),
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
