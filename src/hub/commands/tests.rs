//! The queue against a naive walk over everything, over random histories.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::ids::{ChannelType, ClientMsgNo, MessageSeq};

use super::*;
use crate::domain::message::MessageFlags;
use crate::store::memory::MemoryStore;
use crate::store::{Commit, MessageRecord};

#[derive(Debug, Clone)]
enum Step {
    Send { channel: usize, is_command: bool, bytes: usize },
    Join { channel: usize },
    Leave { channel: usize },
    Revoke { channel: usize, back: u64 },
    Take { count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4usize, any::<bool>(), 0..40usize)
            .prop_map(|(channel, is_command, bytes)| Step::Send { channel, is_command, bytes }),
        1 => (1..4usize).prop_map(|channel| Step::Join { channel }),
        1 => (1..4usize).prop_map(|channel| Step::Leave { channel }),
        1 => (0..4usize, 0..5u64).prop_map(|(channel, back)| Step::Revoke { channel, back }),
        2 => (0..6usize).prop_map(|count| Step::Take { count }),
    ]
}

fn commit(store: &MemoryStore, record: Record) {
    store.commit(&[Commit::from(record)], &mut |_| {}).expect("commit");
}

fn head(store: &MemoryStore, channel: ChannelNo) -> u64 {
    store.channel(channel).expect("read").map_or(0, |info| info.head_seq)
}

/// Every live command above the join floors, by looking at every message.
fn naive(store: &MemoryStore, uid: &Uid, taken: Version) -> Vec<Version> {
    let mut found = Vec::new();
    for channel in (0..4).map(ChannelNo) {
        let Some(membership) = store.membership(channel, uid).expect("read") else { continue };
        let range = SeqRange { first: 1, last: u64::MAX, limit: 100_000, bytes_max: usize::MAX, newest_first: false };
        let messages = store.messages(channel, range).expect("read");
        found.extend(messages.into_iter().filter(|message| {
            message.flags.sync_once
                && message.state == MessageState::Live
                && message.message_id > taken
                && message.message_seq.get() > membership.join_floor
        }));
    }
    let mut ids: Vec<Version> = found.iter().map(|message| message.message_id).collect();
    ids.sort_unstable();
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_what_a_naive_walk_finds(steps in proptest::collection::vec(step(), 1..120), max in 1..9usize) {
        let store = MemoryStore::new();
        let (uid, peer) = (Uid::from_stored("bob"), Uid::from_stored("alice"));
        let group = |n: u32| ChannelKey::named(&format!("g{n}"), ChannelType::Group).expect("id");
        for n in 0..4 {
            let key = if n == 0 { ChannelKey::person(&uid, &peer) } else { group(n) };
            let channel = store.reserve_channel_no();
            prop_assert_eq!(channel, ChannelNo(n));
            commit(&store, Record::ChannelCreated { channel, key });
        }
        let mut taken = Version::ZERO;
        let mut sent = 0;
        for step in steps {
            match step {
                Step::Send { channel, is_command, bytes } => {
                    let channel = ChannelNo(channel as u32);
                    sent += 1;
                    commit(&store, Record::Message(MessageRecord {
                        channel,
                        message_seq: MessageSeq::new(head(&store, channel) + 1).expect("seq"),
                        from_uid: peer.clone(),
                        client_msg_no: ClientMsgNo::from_stored(&format!("c{sent}")),
                        flags: MessageFlags { red_dot: true, sync_once: is_command, no_persist: false },
                        setting: 0,
                        topic: String::new(),
                        expire_s: 0,
                        payload: Bytes::from(vec![b'x'; bytes]),
                        extras: None,
                    }));
                }
                Step::Join { channel } => {
                    let channel = ChannelNo(channel as u32);
                    let join_floor = head(&store, channel);
                    commit(&store, Record::MembersAdded { channel, join_floor, uids: vec![uid.clone()] });
                }
                Step::Leave { channel } => {
                    let channel = ChannelNo(channel as u32);
                    let delete_floor = head(&store, channel);
                    commit(&store, Record::MembersRemoved { channel, delete_floor, uids: vec![uid.clone()] });
                }
                Step::Revoke { channel, back } => {
                    let channel = ChannelNo(channel as u32);
                    let seq = head(&store, channel).saturating_sub(back).max(1);
                    commit(&store, Record::MessageRevoked { channel, seq, by: None });
                }
                Step::Take { count } => {
                    if let Some(id) = naive(&store, &uid, taken).get(count) {
                        taken = *id;
                    }
                }
            }
            let found = after(&store, &uid, taken, max).expect("read");
            let found: Vec<Version> = found.iter().map(|message| message.message_id).collect();
            let mut expected = naive(&store, &uid, taken);
            expected.truncate(max);
            prop_assert_eq!(found, expected);
        }
    }
}
