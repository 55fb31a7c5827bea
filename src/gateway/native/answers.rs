//! Answers to requests about messages, people and groups, written as soon as they are known.

use std::borrow::Cow;

use bytes::Bytes;
use protocol::ids::{ChannelKey, Uid, Version};
use protocol::native::{
    self, ChangedItem, ChangesPage, Done, Encoding, MemberItem, MembersList, Messages, ProfileNow, Readers,
    RelationItem, RelationsList, ServerFrame, SettingsNow,
};

use super::{frame, stored_item};
use crate::domain::channel::{ChannelProfile, Membership, Role};
use crate::domain::user::{Relation, Strangers, UserSettings};
use crate::hub::MessageChanges;
use crate::hub::messages::{ReadBy, SearchPage};

/// Payload bytes of one page of a search; what lies beyond is left to the next page.
pub const SEARCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Who asked what, for the answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The session's encoding.
    pub encoding: Encoding,
    /// The session's user.
    pub uid: Uid,
    /// The request's number.
    pub client_seq: u64,
}

impl Asked {
    /// `done`; a zero version: events tell it.
    pub fn done(&self, version: Version) -> Bytes {
        let done = Done { client_seq: self.client_seq, version: version.get(), unread: None, read_to_msg_seq: None };
        frame(self.encoding, &ServerFrame::Done(done))
    }

    /// `changes`.
    pub fn changes(&self, key: &ChannelKey, found: &MessageChanges) -> Bytes {
        let items = found.changes.iter();
        let page = ChangesPage {
            client_seq: self.client_seq,
            channel_id: key.id_for(self.uid.as_str()).into(),
            channel_type: key.channel_type().to_wire(),
            items: items.map(|(seq, version)| ChangedItem { message_seq: *seq, version: version.get() }).collect(),
            more: found.more,
        };
        frame(self.encoding, &ServerFrame::Changes(page))
    }

    /// `readers`.
    pub fn readers(&self, key: &ChannelKey, message_seq: u64, read_by: &ReadBy) -> Bytes {
        let readers = Readers {
            client_seq: self.client_seq,
            channel_id: key.id_for(self.uid.as_str()).into(),
            channel_type: key.channel_type().to_wire(),
            message_seq,
            uids: read_by.uids.iter().map(|uid| uid.bare().into()).collect(),
            of: read_by.of,
            more: read_by.more,
        };
        frame(self.encoding, &ServerFrame::Readers(readers))
    }

    /// `messages`, of a search.
    pub fn found(&self, key: &ChannelKey, mut page: SearchPage, oldest_first: bool) -> Bytes {
        cut(&mut page, oldest_first, SEARCH_BYTES_MAX);
        let messages = Messages {
            client_seq: self.client_seq,
            channel_id: key.id_for(self.uid.as_str()).into(),
            channel_type: key.channel_type().to_wire(),
            messages: page.messages.iter().map(|message| stored_item(self.uid.as_str(), message)).collect(),
            more: page.resume.is_some(),
            head_seq: page.head_seq,
            resume: page.resume,
        };
        frame(self.encoding, &ServerFrame::Messages(messages))
    }

    /// `relations`.
    pub fn relations(&self, relations: &[(Uid, Relation)]) -> Bytes {
        fn item((uid, relation): &(Uid, Relation)) -> RelationItem<'_> {
            RelationItem { uid: Cow::Borrowed(uid.bare()), contact: relation.contact, blocked: relation.blocked }
        }
        let list = RelationsList { client_seq: self.client_seq, relations: relations.iter().map(item).collect() };
        frame(self.encoding, &ServerFrame::Relations(list))
    }

    /// `settings`.
    pub fn settings(&self, settings: UserSettings) -> Bytes {
        let strangers = match settings.strangers {
            Strangers::Allow => native::Strangers::Allow,
            Strangers::Quarantine => native::Strangers::Quarantine,
            Strangers::Block => native::Strangers::Block,
        };
        frame(self.encoding, &ServerFrame::Settings(SettingsNow { client_seq: self.client_seq, strangers }))
    }

    /// `profile`.
    pub fn profile(&self, key: &ChannelKey, profile: &ChannelProfile) -> Bytes {
        let now = ProfileNow {
            client_seq: self.client_seq,
            channel_id: key.id_for(self.uid.as_str()).into(),
            channel_type: key.channel_type().to_wire(),
            name: profile.name.as_str().into(),
            icon: profile.icon.as_str().into(),
            description: profile.description.as_str().into(),
            creator: profile.creator.as_ref().map_or("", Uid::bare).into(),
        };
        frame(self.encoding, &ServerFrame::Profile(now))
    }

    /// `members`: those behind `skip`, at most `limit`.
    pub fn members(&self, key: &ChannelKey, all: &[(Uid, Membership)], skip: usize, limit: usize) -> Bytes {
        let shown = all.iter().skip(skip).take(limit);
        let list = MembersList {
            client_seq: self.client_seq,
            channel_id: key.id_for(self.uid.as_str()).into(),
            channel_type: key.channel_type().to_wire(),
            members: shown.map(|(uid, membership)| member_item(uid, membership.role)).collect(),
            of: all.len() as u64,
            more: skip.saturating_add(limit) < all.len(),
        };
        frame(self.encoding, &ServerFrame::Members(list))
    }
}

/// A member with its role.
pub(super) fn member_item(uid: &Uid, role: Role) -> MemberItem<'_> {
    let role = match role {
        Role::Member => native::Role::Member,
        Role::Admin => native::Role::Admin,
        Role::Owner => native::Role::Owner,
    };
    MemberItem { uid: uid.bare().into(), role }
}

/// Leaves out what would make a page too large; the first message always stays, so that every page goes on.
fn cut(page: &mut SearchPage, oldest_first: bool, bytes_max: usize) {
    let mut bytes = 0;
    let fits = page.messages.iter().take_while(|message| {
        let first = bytes == 0;
        bytes += message.content_bytes().max(1);
        first || bytes <= bytes_max
    });
    let fitting = fits.count();
    if fitting < page.messages.len() {
        page.messages.truncate(fitting);
        let last = page.messages.last().map_or(0, |message| message.message_seq.get());
        page.resume = Some(if oldest_first { last + 1 } else { last.saturating_sub(1) });
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq};

    use super::*;
    use crate::domain::message::{Message, MessageFlags, MessageState};

    fn message(seq: u64, bytes: usize) -> Message {
        let uid = Uid::from_stored("alice");
        Message {
            channel: ChannelKey::person(&uid, &uid),
            message_seq: MessageSeq::new(seq).expect("from 1"),
            message_id: Version::new(seq),
            from_uid: uid,
            client_msg_no: ClientMsgNo::from_stored("n"),
            flags: MessageFlags::default(),
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: vec![b'x'; bytes].into(),
            extras: None,
            edited: Version::ZERO,
            reactions: Vec::new(),
            lanes: Vec::new(),
            state: MessageState::Live,
        }
    }

    #[test]
    fn a_page_too_large_is_cut_and_says_where_it_goes_on() {
        for (seqs, oldest_first, bytes_max, kept, resume) in [
            ([9, 7, 4], false, 300, 3, Some(2)),
            ([9, 7, 4], false, 200, 2, Some(6)),
            ([9, 7, 4], false, 1, 1, Some(8)),
            ([4, 7, 9], true, 250, 2, Some(8)),
            ([4, 7, 9], true, 1, 1, Some(5)),
        ] {
            let messages = seqs.iter().map(|seq| message(*seq, 100)).collect();
            let mut page = SearchPage { messages, resume: Some(2), head_seq: 9 };
            cut(&mut page, oldest_first, bytes_max);
            assert_eq!((page.messages.len(), page.resume), (kept, resume), "{seqs:?} {bytes_max}");
        }
    }
}
