//! What a list costs, and what belongs in it.

use bytes::Bytes;
use protocol::ids::{ClientMsgNo, MessageSeq};

use super::*;
use crate::domain::message::MessageFlags;
use crate::store::memory::MemoryStore;
use crate::store::{Commit, MessageRecord, Record};

fn uid(text: &str) -> Uid {
    Uid::new(text).expect("valid uid")
}

fn commit(store: &MemoryStore, record: Record) {
    store.commit(&[Commit::from(record)], &mut |_| {}).expect("commits");
}

fn joined(store: &MemoryStore, id: &str, messages: u64, command: bool) -> ChannelNo {
    let channel = store.reserve_channel_no();
    let key = ChannelKey::named(id, ChannelType::Group).expect("valid");
    commit(store, Record::ChannelCreated { channel, key });
    commit(store, Record::MembersAdded { channel, join_floor: 0, uids: vec![uid("ann"), uid("bob")] });
    for seq in 1..=messages {
        commit(
            store,
            Record::Message(MessageRecord {
                channel,
                message_seq: MessageSeq::new(seq).expect("not zero"),
                from_uid: uid("bob"),
                client_msg_no: ClientMsgNo::new(&format!("no-{seq}")).expect("valid"),
                flags: MessageFlags { red_dot: true, sync_once: command, no_persist: false },
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::new(),
                extras: None,
            }),
        );
    }
    channel
}

fn query(with_empty: bool, skip: usize, limit: usize) -> ChatsQuery {
    ChatsQuery { with_empty, requests: false, skip, limit }
}

#[test]
fn a_list_costs_its_page_and_a_look_at_each_channel() {
    let store = MemoryStore::new();
    for n in 0..200 {
        joined(&store, &format!("g{n}"), 2, false);
    }
    for (skip, limit, rows) in [(0, 10, 10), (150, 10, 10), (195, 10, 5), (0, 0, 0), (500, 10, 0)] {
        let before = store.read_counts();
        let page = list(&store, &uid("ann"), &query(false, skip, limit)).expect("lists");
        let after = store.read_counts();
        assert_eq!(page.len(), rows, "{skip} {limit}");
        let (view, log) = (after.view - before.view, after.log - before.log);
        let rows = rows as u64;
        assert!(view <= 1 + 2 * 200 + rows * 6 && log == rows, "{skip} {limit}: {view} view, {log} log");
    }
}

#[test]
fn pages_together_are_the_list() {
    let store = MemoryStore::new();
    for n in 0..25 {
        let channel = joined(&store, &format!("g{n}"), 1, false);
        if n % 7 == 0 {
            let flags = ConversationFlags { pinned: true, ..ConversationFlags::default() };
            commit(&store, Record::ConversationFlags { channel, uid: uid("ann"), flags });
        }
    }
    let whole = list(&store, &uid("ann"), &query(false, 0, 100)).expect("lists");
    assert!(whole[..4].iter().all(|row| row.flags.pinned) && whole[4..].iter().all(|row| !row.flags.pinned));
    assert!(whole[..4].is_sorted_by_key(|row| std::cmp::Reverse(row.activity_ms)));
    let mut together = Vec::new();
    for page in 0..9 {
        together.extend(list(&store, &uid("ann"), &query(false, page * 3, 3)).expect("lists"));
    }
    assert_eq!(together, whole);
}

#[test]
fn what_is_listed() {
    let store = MemoryStore::new();
    joined(&store, "written", 1, false);
    joined(&store, "empty", 0, false);
    joined(&store, "commands", 2, true);
    let left = joined(&store, "left", 1, false);
    commit(&store, Record::MembersRemoved { channel: left, delete_floor: 1, uids: vec![uid("ann")] });
    let again = joined(&store, "again", 1, false);
    commit(&store, Record::MembersRemoved { channel: again, delete_floor: 1, uids: vec![uid("ann")] });
    commit(&store, Record::MembersAdded { channel: again, join_floor: 1, uids: vec![uid("ann")] });
    let deleted = joined(&store, "deleted", 1, false);
    commit(&store, Record::ConversationDeleted { channel: deleted, uid: uid("ann"), delete_floor: 1 });
    for (with_empty, expected) in [(false, vec!["written"]), (true, vec!["again", "commands", "empty", "written"])] {
        let rows = list(&store, &uid("ann"), &query(with_empty, 0, 100)).expect("lists");
        let ids: Vec<&str> = rows.iter().map(|row| row.key.channel_id()).collect();
        assert_eq!(ids, expected, "with empty: {with_empty}");
        assert!(rows.iter().all(|row| row.last_message.is_some() == (row.key.channel_id() == "written")));
    }
    assert_eq!(totals(&store, &uid("ann")).expect("counts"), (1, 0));
}

#[test]
fn a_damaged_last_message_is_shown_as_one() {
    let store = MemoryStore::new();
    let channel = joined(&store, "g", 3, false);
    assert!(store.damage_message(channel, 3));
    let rows = list(&store, &uid("ann"), &query(false, 0, 1)).expect("lists");
    let last = rows[0].last_message.as_ref().expect("its place is known");
    assert_eq!((last.message_seq.get(), last.state), (3, crate::domain::message::MessageState::Damaged));
    assert_eq!(rows[0].unread, 3);
}
