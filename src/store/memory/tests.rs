//! That the model keeps the store's contract where the contract is easy to get wrong.

use bytes::Bytes;
use protocol::ids::{ChannelType, MessageSeq};

use super::*;
use crate::domain::message::{MessageFlags, fingerprint};
use crate::store::MessageRecord;

fn uid(text: &str) -> Uid {
    Uid::new(text).expect("valid uid")
}

fn group(id: &str) -> ChannelKey {
    ChannelKey::named(id, ChannelType::Group).expect("valid id")
}

fn commit(store: &MemoryStore, records: impl IntoIterator<Item = Record>) -> Version {
    let commit = Commit { records: records.into_iter().collect() };
    store.commit(&[commit], &mut |_| {}).expect("commit succeeds")[0]
}

fn create(store: &MemoryStore, key: ChannelKey, members: &[&str]) -> ChannelNo {
    let channel = store.reserve_channel_no();
    let uids = members.iter().map(|text| uid(text)).collect();
    let joined = Record::MembersAdded { channel, join_floor: 0, uids };
    commit(store, [Record::ChannelCreated { channel, key }, joined]);
    channel
}

fn message(channel: ChannelNo, seq: u64, from: &str) -> MessageRecord {
    MessageRecord {
        extras: None,
        channel,
        message_seq: MessageSeq::new(seq).expect("not zero"),
        from_uid: uid(from),
        client_msg_no: ClientMsgNo::new(&format!("no-{seq}")).expect("valid"),
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::from_static(b"hello"),
    }
}

fn say(store: &MemoryStore, channel: ChannelNo, seq: u64, from: &str) -> Version {
    commit(store, [Record::Message(message(channel, seq, from))])
}

fn seqs(store: &MemoryStore, channel: ChannelNo, range: SeqRange) -> Vec<u64> {
    store.messages(channel, range).expect("reads").iter().map(|m| m.message_seq.get()).collect()
}

#[test]
fn versions_follow_the_clock_and_grow_when_it_stands() {
    let store = MemoryStore::new();
    store.set_clock_us(Some(5_000));
    let channel = create(&store, group("g"), &["a"]);
    assert_eq!(store.version(), Version::new(5_001), "two records from 5000 on");
    assert_eq!(say(&store, channel, 1, "a"), Version::new(5_002));
    store.set_clock_us(Some(4_000));
    assert_eq!(say(&store, channel, 2, "a"), Version::new(5_003), "a clock set back changes nothing");
    store.set_clock_us(Some(9_000));
    assert_eq!(say(&store, channel, 3, "a"), Version::new(9_000));
    commit(&store, [Record::Break { kept: Version::new(5_000), until: Version::new(20_000) }]);
    assert_eq!(store.version(), Version::new(20_001), "the break itself lies above what it covers");
    assert_eq!(say(&store, channel, 4, "a"), Version::new(20_002));
    for (version, standing) in [
        (5_000, VersionStanding::Known),
        (5_001, VersionStanding::Unknown),
        (20_000, VersionStanding::Unknown),
        (20_001, VersionStanding::Known),
        (20_003, VersionStanding::Unknown),
    ] {
        assert_eq!(store.version_standing(Version::new(version)), standing, "{version}");
    }
}

#[test]
fn a_failed_commit_leaves_no_trace_but_its_versions_are_not_given_again() {
    let store = MemoryStore::new();
    store.set_clock_us(Some(1_000));
    let channel = create(&store, group("g"), &["a"]);
    let before = store.version();
    store.fail_next_commit(ErrorKind::Unavailable);
    let mut given = Vec::new();
    let lot = [Commit::from(Record::Message(message(channel, 1, "a")))];
    let error = store.commit(&lot, &mut |versions| given = versions.to_vec()).expect_err("fails");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(given.len(), 1, "sealed was called");
    assert_eq!(store.version(), before);
    assert_eq!(store.channel(channel).expect("reads").expect("exists").head_seq, 0);
    assert!(say(&store, channel, 1, "a") > given[0]);
}

#[test]
fn a_lot_with_a_gap_is_refused_as_a_whole() {
    let store = MemoryStore::new();
    let channel = create(&store, group("g"), &["a"]);
    let lot = [1, 3].map(|seq| Commit::from(Record::Message(message(channel, seq, "a"))));
    assert!(store.commit(&lot, &mut |_| {}).is_err());
    assert_eq!(store.channel(channel).expect("reads").expect("exists").head_seq, 0);
    assert!(store.commit(&[Commit::default()], &mut |_| {}).is_err(), "a commit has records");
}

#[test]
fn held_commits_are_not_seen_until_released() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let channel = create(&store, group("g"), &["a"]);
    store.hold_commits();
    let writer = {
        let store = std::sync::Arc::clone(&store);
        std::thread::spawn(move || say(&store, channel, 1, "a"))
    };
    while store.commits_held() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.channel(channel).expect("reads").expect("exists").head_seq, 0);
    store.release_commits();
    let version = writer.join().expect("writer");
    assert_eq!(store.version(), version);
}

#[test]
fn ranges_are_inclusive_and_bounded() {
    let store = MemoryStore::new();
    let channel = create(&store, group("g"), &["a"]);
    for seq in 1..=10 {
        say(&store, channel, seq, "a");
    }
    let range = |first, last, limit, bytes_max, newest_first| SeqRange { first, last, limit, bytes_max, newest_first };
    for (range, expected) in [
        (range(1, u64::MAX, 3, 1_000, true), vec![10, 9, 8]),
        (range(0, 4, 3, 1_000, false), vec![1, 2, 3]),
        (range(3, 4, 30, 1_000, true), vec![4, 3]),
        (range(1, 10, 30, 12, false), vec![1, 2]),
        (range(1, 10, 30, 0, true), vec![10]),
        (range(11, 20, 30, 1_000, true), vec![]),
        (range(5, 4, 30, 1_000, true), vec![]),
        (range(1, 10, 0, 1_000, true), vec![]),
    ] {
        assert_eq!(seqs(&store, channel, range), expected, "{range:?}");
    }
}

#[test]
fn counting_follows_the_rules_of_unread() {
    let store = MemoryStore::new();
    let channel = create(&store, group("g"), &["a", "b"]);
    for seq in 1..=9 {
        let mut record = message(channel, seq, if seq == 4 { "a" } else { "b" });
        record.flags.red_dot = seq != 5;
        record.flags.sync_once = seq == 6;
        record.expire_s = u32::from(seq == 7);
        commit(&store, [Record::Message(record)]);
    }
    let due = store.expiry_due(store.version().unix_ms() + 2_000, 10).expect("reads");
    assert_eq!(due, [(channel, vec![7])]);
    assert!(store.expiry_due(store.version().unix_ms() + 900, 10).expect("reads").is_empty());
    commit(&store, [Record::MessagesExpired { channel, seqs: vec![7] }]);
    assert!(store.expiry_due(u64::MAX, 10).expect("reads").is_empty(), "an expired message is due once");
    // Countable for a: 1, 2, 3, 8, 9.
    let a = uid("a");
    for (floor, count) in [(0, 5), (2, 3), (3, 2), (7, 2), (8, 1), (9, 0), (50, 0)] {
        assert_eq!(store.countable_after(channel, &a, floor).expect("reads"), (count, 9), "floor {floor}");
    }
    for (unread, floor_min, expected) in [
        (0, 0, (9, 0, 9)),
        (1, 0, (8, 1, 9)),
        (2, 0, (7, 2, 9)),
        (3, 0, (2, 3, 9)),
        (5, 0, (0, 5, 9)),
        (6, 0, (0, 5, 9)),
        (5, 2, (2, 3, 9)),
        (0, 9, (9, 0, 9)),
        (3, 9, (9, 0, 9)),
    ] {
        let found = store.position_for_unread(channel, &a, unread, floor_min).expect("reads");
        assert_eq!(found, expected, "{unread} above {floor_min}");
    }
    assert_eq!(store.last_own(channel, &a).expect("reads").seq, 4);
    let expired = store.messages(channel, SeqRange { first: 7, last: 7, limit: 1, bytes_max: 9, newest_first: false });
    let expired = &expired.expect("reads")[0];
    assert_eq!((expired.state, expired.payload.len()), (MessageState::Expired, 0));
}

#[test]
fn membership_keeps_the_first_join_and_leaving_deletes() {
    let store = MemoryStore::new();
    let channel = create(&store, group("g"), &["a"]);
    let a = uid("a");
    let first = store.membership(channel, &a).expect("reads").expect("member");
    commit(&store, [Record::MembersAdded { channel, join_floor: 7, uids: vec![a.clone()] }]);
    assert_eq!(store.membership(channel, &a).expect("reads"), Some(first));
    say(&store, channel, 1, "a");
    commit(&store, [Record::MembersRemoved { channel, delete_floor: 1, uids: vec![a.clone(), uid("stranger")] }]);
    assert_eq!(store.membership(channel, &a).expect("reads"), None);
    assert_eq!(store.conversation_state(channel, &uid("stranger")).expect("reads"), None);
    let left = store.conversation_state(channel, &a).expect("reads").expect("kept");
    assert_eq!((left.delete_floor, left.delete_version), (1, store.version()));
    commit(&store, [Record::MembersAdded { channel, join_floor: 1, uids: vec![a.clone()] }]);
    assert_eq!(store.membership(channel, &a).expect("reads").expect("member").join_floor, 1);
    assert_eq!(store.members(channel).expect("reads"), [a]);
}

#[test]
fn a_pair_and_a_visitor_are_members_from_the_start() {
    let store = MemoryStore::new();
    let pair = create(&store, ChannelKey::person(&uid("a"), &uid("b")), &[]);
    let service = create(&store, ChannelKey::named("v|shop", ChannelType::CustomerService).expect("valid"), &[]);
    assert_eq!(store.members(pair).expect("reads").len(), 2);
    assert_eq!(store.members(service).expect("reads"), [uid("v")]);
    assert_eq!(store.channels_of(&uid("b")).expect("reads"), [pair]);
    assert!(store.user_known(&uid("v")).expect("reads"));
    assert!(!store.user_known(&uid("shop")).expect("reads"));
}

#[test]
fn the_ring_forgets_and_says_so() {
    let store = MemoryStore::with_ring(2);
    let channels: Vec<_> = ["g", "h", "i"].map(|id| create(&store, group(id), &["a"])).into();
    let versions: Vec<_> = channels.iter().map(|channel| say(&store, *channel, 1, "a")).collect();
    assert_eq!(store.recently_changed(versions[2], 10), Some(vec![]));
    assert_eq!(store.recently_changed(versions[0], 10), Some(vec![channels[1], channels[2]]));
    assert_eq!(store.recently_changed(versions[0], 1), None, "more than asked for");
    let earlier = Version::new(versions[0].get() - 1);
    assert_eq!(store.recently_changed(earlier, 10), None, "the first change is forgotten");
    assert_eq!(store.changed_among(&channels, versions[0]), [channels[1], channels[2]]);
    let own = Record::ReadPosition { channel: channels[0], uid: uid("a"), seq: 1 };
    let since = store.version();
    commit(&store, [own]);
    assert_eq!(store.own_changes(&uid("a"), since).expect("reads"), [channels[0]]);
    assert_eq!(store.recently_changed(since, 10), Some(vec![]), "one user's change is nobody else's");
}

#[test]
fn names_ids_digests_and_damage() {
    let store = MemoryStore::new();
    let channel = create(&store, group("g"), &["a"]);
    let id = say(&store, channel, 1, "a");
    say(&store, channel, 2, "a");
    let (a, no) = (uid("a"), ClientMsgNo::new("no-1").expect("valid"));
    assert_eq!(store.probe(channel, fingerprint(&a, &no)), Probe::Ask);
    assert_eq!(store.probe(channel, fingerprint(&a, &ClientMsgNo::new("x").expect("valid"))), Probe::Absent);
    let found = store.message_by_client_msg_no(channel, &a, &no).expect("reads").expect("stored");
    assert_eq!((found.message_id, found.message_seq), (id, MessageSeq::FIRST));
    assert_eq!(store.message_by_id(id).expect("reads"), Some(found));
    let head = store.channel(channel).expect("reads").expect("exists");
    assert_eq!(store.digest(channel, 2).expect("reads"), Some(head.digest));
    assert_eq!(store.digest(channel, 0).expect("reads"), Some(Digest::default()));
    assert_eq!(store.digest(channel, 3).expect("reads"), None);
    assert!(store.damage_message(channel, 1) && !store.damage_message(channel, 3));
    let hole = &store.messages(channel, SeqRange { first: 1, last: 2, limit: 9, bytes_max: 99, newest_first: false });
    let hole = &hole.as_ref().expect("reads")[0];
    assert_eq!((hole.state, hole.payload.is_empty(), hole.message_seq.get()), (MessageState::Damaged, true, 1));
}

#[test]
fn credentials_are_replaced_and_taken_away() {
    let store = MemoryStore::new();
    let token = |token| Record::UserToken { uid: uid("a"), device_flag: DeviceFlag(1), device_level: 1, token };
    commit(&store, [token(Some([1; 32]))]);
    assert_eq!(store.token_owners(&[1; 32]).expect("reads"), [(uid("a"), DeviceFlag(1), 1)]);
    commit(&store, [token(Some([2; 32]))]);
    assert!(store.token_owners(&[1; 32]).expect("reads").is_empty());
    commit(&store, [token(None)]);
    assert!(store.token_owners(&[2; 32]).expect("reads").is_empty());
    assert!(!store.user_known(&uid("a")).expect("reads"));
    commit(&store, [Record::UserCreated { uid: uid("a") }]);
    assert!(store.user_known(&uid("a")).expect("reads"));
}
