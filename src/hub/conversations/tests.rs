//! Tables for each rule of sections 4 and 5, costs by counting reads, and (`props`) random histories against a recount and a
//! model client. `World` is a store with the little a hub does before it commits.

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid, Version};
use protocol::sync::{Cursor, Cursors};

use super::*;
use crate::domain::conversation::Verdict;
use crate::domain::message::{MessageFlags, MessageState};
use crate::store::memory::MemoryStore;
use crate::store::{Commit, MessageRecord, Record};

mod props;

const DAY_MS: u64 = 86_400_000;

fn uid(text: &str) -> Uid {
    Uid::new(text).expect("valid uid")
}

fn group(id: &str) -> ChannelKey {
    ChannelKey::named(id, ChannelType::Group).expect("valid id")
}

fn pair(a: &str, b: &str) -> ChannelKey {
    ChannelKey::person(&uid(a), &uid(b))
}

/// What is special about a message.
#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    silent: bool,
    command: bool,
    bytes: usize,
}

struct World {
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        Self { store: MemoryStore::new() }
    }

    fn commit(&self, commit: Commit) -> Version {
        self.store.commit(&[commit], &mut |_| {}).expect("commits")[0]
    }

    fn channel(&self, key: &ChannelKey) -> ChannelNo {
        if let Some(channel) = self.store.channel_no(key).expect("reads") {
            return channel;
        }
        let channel = self.store.reserve_channel_no();
        self.commit(Record::ChannelCreated { channel, key: key.clone() }.into());
        channel
    }

    fn head(&self, channel: ChannelNo) -> u64 {
        self.store.channel(channel).expect("reads").expect("exists").head_seq
    }

    fn join(&self, key: &ChannelKey, uids: &[&str]) {
        let channel = self.channel(key);
        let join_floor = self.head(channel);
        let uids = uids.iter().map(|text| uid(text)).collect();
        self.commit(Record::MembersAdded { channel, join_floor, uids }.into());
    }

    fn leave(&self, key: &ChannelKey, who: &str) {
        let channel = self.channel(key);
        let delete_floor = self.head(channel);
        self.commit(Record::MembersRemoved { channel, delete_floor, uids: vec![uid(who)] }.into());
    }

    fn expire(&self, key: &ChannelKey, seq: u64) {
        let channel = self.channel(key);
        self.commit(Record::MessagesExpired { channel, seqs: vec![seq] }.into());
    }

    fn say_as(&self, key: &ChannelKey, from: &str, kind: Kind) -> u64 {
        let channel = self.channel(key);
        let seq = self.head(channel) + 1;
        let record = MessageRecord {
            extras: None,
            channel,
            message_seq: MessageSeq::new(seq).expect("not zero"),
            from_uid: uid(from),
            client_msg_no: ClientMsgNo::new(&format!("no-{seq}")).expect("valid"),
            flags: MessageFlags { no_persist: false, red_dot: !kind.silent, sync_once: kind.command },
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: Bytes::from(vec![b'x'; kind.bytes]),
        };
        self.commit(Record::Message(record).into());
        seq
    }

    fn say(&self, key: &ChannelKey, from: &str) -> u64 {
        self.say_as(key, from, Kind::default())
    }

    fn carry_out(&self, plan: Result<Planned, Refusal>) -> Planned {
        let plan = plan.expect("planned");
        if let Some(commit) = plan.commit.clone() {
            self.commit(commit);
        }
        plan
    }

    fn set_unread(&self, key: &ChannelKey, who: &str, unread: i64) -> Planned {
        self.carry_out(plan_set_unread(&self.store, &uid(who), key, unread))
    }

    fn delete(&self, key: &ChannelKey, who: &str) -> Planned {
        self.carry_out(plan_delete(&self.store, &uid(who), key))
    }

    fn sync(&self, request: &SyncRequest) -> SyncAnswer {
        sync(&self.store, request).expect("syncs")
    }

    fn full(&self, who: &str) -> SyncAnswer {
        self.sync(&SyncRequest::full(uid(who), 20))
    }

    fn unread(&self, key: &ChannelKey, who: &str) -> u64 {
        self.full(who).rows.iter().find(|row| row.channel == *key).map_or(0, |row| row.unread)
    }
}

fn since(who: &str, version: Version) -> SyncRequest {
    SyncRequest { version, ..SyncRequest::full(uid(who), 20) }
}

fn with_cursors(request: SyncRequest, text: &str) -> SyncRequest {
    SyncRequest { cursors: Some(Cursors::Text(text.into())), ..request }
}

fn seqs(messages: &[crate::domain::message::Message]) -> Vec<u64> {
    messages.iter().map(|m| m.message_seq.get()).collect()
}

fn ids(answer: &SyncAnswer, who: &str) -> Vec<String> {
    answer.rows.iter().map(|row| row.channel.id_for(who).to_owned()).collect()
}

#[test]
fn a_first_sync_shows_what_was_said() {
    let world = World::new();
    world.join(&group("g"), &["alice", "bob"]);
    assert!(world.full("alice").rows.is_empty(), "a conversation without a message is never listed");
    world.say(&pair("alice", "bob"), "bob");
    world.say(&group("g"), "bob");
    world.say(&group("g"), "alice");
    world.say(&group("g"), "bob");
    let answer = world.full("alice");
    assert_eq!(ids(&answer, "alice"), ["g", "bob"]);
    assert_eq!((answer.reset, answer.more, answer.version), (false, None, world.store.version()));
    let row = &answer.rows[0];
    assert_eq!((row.unread, row.last_msg_seq, row.read_to_msg_seq), (1, 3, 2));
    assert_eq!((row.last_client_msg_no.as_str(), row.is_deleted, row.reset), ("no-3", false, false));
    assert_eq!((seqs(&row.recents), row.complete, row.first_seq), (vec![3, 2, 1], true, 1));
    assert_eq!(row.timestamp_s, row.recents[0].timestamp_ms() / 1_000);
    assert_eq!(row.version, answer.version, "the last change was this row's");
    assert_eq!(ids(&world.full("bob"), "bob"), ["g", "alice"]);
    assert_eq!(world.unread(&group("g"), "bob"), 0, "an own message reads what came before");
    assert!(world.full("stranger").rows.is_empty());
}

#[test]
fn a_note_to_oneself_is_never_unread() {
    let world = World::new();
    let note = pair("alice", "alice");
    world.say(&note, "alice");
    let row = &world.full("alice").rows[0];
    assert_eq!((row.channel.id_for("alice"), row.unread), ("alice", 0));
    assert_eq!(world.set_unread(&note, "alice", 3).unread, 0);
    assert_eq!(world.full("alice").rows[0].unread, 0);
}

#[test]
fn set_unread_is_exact_in_both_directions() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice", "bob"]);
    for from in ["bob", "bob", "alice", "bob", "bob"] {
        world.say(&key, from);
    }
    world.say_as(&key, "bob", Kind { silent: true, ..Kind::default() });
    // Countable for alice: 1, 2, 4, 5.
    for (wanted, unread, read_seq, head) in
        [(0, 0, 6, 6), (1, 1, 4, 6), (2, 2, 3, 6), (3, 3, 1, 6), (4, 4, 0, 6), (9, 4, 0, 6), (0, 0, 6, 6)]
    {
        let before = world.store.version();
        let plan = world.set_unread(&key, "alice", wanted);
        assert_eq!((plan.unread, plan.read_seq, plan.head_seq), (unread, read_seq, head), "setUnread {wanted}");
        assert_eq!(world.unread(&key, "alice"), unread, "setUnread {wanted}");
        if plan.commit.is_some() {
            let rows = world.sync(&since("alice", before)).rows;
            assert_eq!(rows.len(), 1, "other devices learn of setUnread {wanted}");
            assert_eq!(rows[0].unread, unread);
        }
        assert!(world.set_unread(&key, "alice", wanted).commit.is_none(), "again changes nothing");
    }
    assert_eq!(world.unread(&key, "bob"), 0);
    world.set_unread(&key, "alice", 2);
    world.say(&key, "bob");
    assert_eq!(world.unread(&key, "alice"), 3, "what comes after counts on top");
    world.say(&key, "alice");
    assert_eq!(world.unread(&key, "alice"), 0, "an own later message reads all");
}

#[test]
fn positions_refuse_and_ignore_what_is_not_there() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["bob"]);
    world.say(&key, "bob");
    let (store, alice) = (&world.store, uid("alice"));
    let negative = plan_set_unread(store, &uid("bob"), &key, -1).expect_err("negative");
    assert_eq!(negative.field(), Some("unread"));
    for key in [&key, &group("nowhere")] {
        assert_eq!(plan_set_unread(store, &alice, key, 1).expect_err("outside"), Refusal::NotMember);
        assert_eq!(plan_read(store, &alice, key, 1).expect_err("outside"), Refusal::NotMember);
        assert_eq!(plan_clear_unread(store, &alice, key).expect_err("outside"), Refusal::NotMember);
        assert_eq!(explain_unread(store, &alice, key, 1).expect_err("outside"), Refusal::NotMember);
        assert!(plan_delete(store, &alice, key).expect("always fine").commit.is_none());
    }
    let unborn = pair("alice", "bob");
    for plan in [
        plan_set_unread(store, &alice, &unborn, 5),
        plan_read(store, &alice, &unborn, 5),
        plan_clear_unread(store, &alice, &unborn),
        plan_delete(store, &alice, &unborn),
    ] {
        let plan = plan.expect("fine");
        assert!((plan.commit.is_none(), plan.unread) == (true, 0), "nobody has begun it");
    }
    // A member of an empty group: no underflow, and later messages count.
    let empty = group("empty");
    world.join(&empty, &["alice"]);
    for wanted in [0, 1, i64::MAX] {
        assert_eq!(world.set_unread(&empty, "alice", wanted).unread, 0);
    }
    world.say(&empty, "bob");
    assert_eq!(world.unread(&empty, "alice"), 1);
}

#[test]
fn reading_goes_forward_only_and_at_most_to_head() {
    let world = World::new();
    let key = pair("alice", "bob");
    for _ in 0..5 {
        world.say(&key, "bob");
    }
    let read = |seq| world.carry_out(plan_read(&world.store, &uid("alice"), &key, seq));
    for (seq, unread, read_seq, commits) in
        [(2, 3, 2, true), (1, 3, 2, false), (2, 3, 2, false), (4, 1, 4, true), (u64::MAX, 0, 5, true), (9, 0, 5, false)]
    {
        let plan = read(seq);
        assert_eq!((plan.unread, plan.read_seq, plan.commit.is_some()), (unread, read_seq, commits), "read {seq}");
        assert_eq!(world.unread(&key, "alice"), unread);
    }
    world.say(&key, "bob");
    assert_eq!(world.unread(&key, "alice"), 1, "reading beyond head read nothing ahead");
    world.carry_out(plan_clear_unread(&world.store, &uid("alice"), &key));
    assert_eq!(world.unread(&key, "alice"), 0);
}

#[test]
fn a_deleted_conversation_is_a_tombstone_until_a_message_revives_it() {
    let world = World::new();
    let key = pair("alice", "bob");
    world.say(&key, "bob");
    world.say(&key, "bob");
    let before = world.store.version();
    assert!(world.delete(&key, "alice").commit.is_some());
    assert!(world.delete(&key, "alice").commit.is_none(), "deleting twice changes nothing");
    assert!(world.full("alice").rows.is_empty());
    assert!(world.sync(&SyncRequest { with_deleted: true, ..SyncRequest::full(uid("alice"), 9) }).rows.is_empty());
    assert!(world.sync(&since("alice", before)).rows.is_empty(), "old clients are not shown tombstones");
    let told = world.sync(&SyncRequest { with_deleted: true, ..since("alice", before) });
    let row = &told.rows[0];
    assert_eq!((row.is_deleted, row.unread, row.last_msg_seq, row.recents.len()), (true, 0, 2, 0));
    assert_eq!(row.version, told.version);
    assert!(world.sync(&SyncRequest { with_deleted: true, ..since("alice", told.version) }).rows.is_empty());
    assert_eq!(world.full("bob").rows[0].recents.len(), 2, "the other side is untouched");
    assert_eq!(world.set_unread(&key, "alice", 2).unread, 0, "what was deleted does not come back as unread");
    world.say(&key, "bob");
    let row = &world.full("alice").rows[0];
    assert_eq!((row.unread, seqs(&row.recents), row.complete, row.is_deleted), (1, vec![3], true, false));
    let page = history(&world.store, Asker::User(&uid("alice")), &key, newest(10)).expect("member");
    assert_eq!(seqs(&page.messages), [3, 2, 1], "history keeps all");
}

#[test]
fn lost_membership_is_told_once_and_rejoining_begins_anew() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice", "bob"]);
    world.say(&key, "bob");
    let before = world.store.version();
    world.leave(&key, "alice");
    let left_at = world.store.version();
    world.say(&key, "bob");
    assert!(world.full("alice").rows.is_empty());
    let told = world.sync(&SyncRequest { with_deleted: true, ..since("alice", before) });
    assert_eq!((told.rows.len(), told.rows[0].is_deleted, told.rows[0].version), (1, true, left_at));
    world.say(&key, "bob");
    let later = world.sync(&SyncRequest { with_deleted: true, ..since("alice", told.version) });
    assert!(later.rows.is_empty(), "who left does not learn that others go on");
    let asked = history(&world.store, Asker::User(&uid("alice")), &key, newest(10));
    assert_eq!(asked.expect_err("left"), Refusal::NotMember);
    world.join(&key, &["alice"]);
    let row = &world.full("alice").rows[0];
    assert_eq!((row.unread, seqs(&row.recents)), (0, vec![3, 2]), "joining late hides nothing and counts nothing");
    world.say(&key, "bob");
    assert_eq!(world.unread(&key, "alice"), 1);
}

#[test]
fn commands_are_neither_shown_nor_counted() {
    let world = World::new();
    let key = pair("alice", "bob");
    let command = Kind { command: true, ..Kind::default() };
    world.say_as(&key, "bob", command);
    assert!(world.full("alice").rows.is_empty(), "commands alone make no conversation");
    world.say(&key, "bob");
    for _ in 0..200 {
        world.say_as(&key, "bob", command);
    }
    let row = &world.full("alice").rows[0];
    assert_eq!((row.unread, row.last_msg_seq, seqs(&row.recents), row.complete), (1, 2, vec![2], true));
    assert_eq!(row.last_client_msg_no, "no-2");
    let held = with_cursors(SyncRequest::full(uid("alice"), 20), "bob:1:2");
    assert!(world.sync(&held).rows.is_empty(), "the client has the last message");
    world.delete(&key, "alice");
    let before = world.store.version();
    world.say_as(&key, "bob", command);
    assert!(world.full("alice").rows.is_empty(), "a command revives nothing");
    assert!(world.sync(&SyncRequest { with_deleted: true, ..since("alice", before) }).rows.is_empty());
}

#[test]
fn looking_back_past_commands_is_bounded() {
    let world = World::new();
    let key = pair("alice", "bob");
    world.say(&key, "bob");
    for _ in 0..LOOK_BACK_MAX + 200 {
        world.say_as(&key, "bob", Kind { command: true, ..Kind::default() });
    }
    let before = world.store.read_counts().log;
    let row = &world.full("alice").rows[0];
    assert!(world.store.read_counts().log - before < 30);
    assert_eq!((row.unread, row.complete, row.last_client_msg_no.as_str()), (1, false, ""));
    assert!(row.last_msg_seq >= 1 && row.last_msg_seq < 202, "{}", row.last_msg_seq);
}

#[test]
fn msg_count_and_cursors_trim_recents() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice", "bob"]);
    for _ in 0..10 {
        world.say(&key, "bob");
    }
    for (msg_count, cursor, expected, complete, first_seq) in [
        (0, None, vec![], false, 0),
        (0, Some(9), vec![], false, 0),
        (3, None, vec![10, 9, 8], false, 8),
        (3, Some(7), vec![10, 9, 8], true, 8),
        (3, Some(6), vec![10, 9, 8], false, 8),
        (20, Some(0), vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1], true, 1),
        (20, Some(9), vec![10], true, 10),
        (1_000_000, Some(8), vec![10, 9], true, 9),
    ] {
        let request = SyncRequest::full(uid("alice"), msg_count);
        let request = match cursor {
            Some(cursor) => with_cursors(request, &format!("g:2:{cursor}")),
            None => request,
        };
        let row = &world.sync(&request).rows[0];
        assert_eq!(seqs(&row.recents), expected, "{msg_count} above {cursor:?}");
        assert_eq!((row.complete, row.first_seq), (complete, first_seq), "{msg_count} above {cursor:?}");
        assert_eq!((row.last_msg_seq, row.unread), (10, 10));
    }
    assert_eq!(SyncRequest::msg_count_of(-1).expect_err("negative").field(), Some("msg_count"));
    for (wire, count) in [(0, 0), (20, 20), (1_000, 1_000), (1_001, 1_000), (i64::MAX, 1_000)] {
        assert_eq!(SyncRequest::msg_count_of(wire), Ok(count));
    }
}

#[test]
fn cursors_choose_rows() {
    let world = World::new();
    for id in ["g", "h", "i"] {
        world.join(&group(id), &["alice", "bob"]);
        world.say(&group(id), "bob");
        world.say(&group(id), "bob");
    }
    let now = world.store.version();
    let listed = |request: SyncRequest| {
        let mut listed = ids(&world.sync(&request), "alice");
        listed.sort();
        listed
    };
    let full = || SyncRequest::full(uid("alice"), 20);
    assert_eq!(listed(with_cursors(full(), "g:2:2|h:2:1")), ["h", "i"], "all but those at head");
    assert_eq!(listed(with_cursors(full(), "g:2:1|g:2:2")), ["h", "i"], "the larger of two counts");
    assert_eq!(listed(with_cursors(full(), "g:2:2|nowhere:2:7|x:9:1|a@b:1:3")), ["h", "i"], "unknown ones are ignored");
    assert_eq!(listed(with_cursors(full(), "")), ["g", "h", "i"], "an empty text is none");
    assert!(listed(since("alice", now)).is_empty());
    assert_eq!(listed(with_cursors(since("alice", now), "g:2:2|h:2:1|i:2:0")), ["h", "i"]);
    world.set_unread(&group("g"), "alice", 1);
    let request = with_cursors(since("alice", now), "g:2:2|h:2:2");
    let answer = world.sync(&request);
    assert_eq!(ids(&answer, "alice"), ["g"], "a changed row comes though its cursor is at head");
    assert_eq!((answer.rows[0].recents.len(), answer.rows[0].complete, answer.rows[0].unread), (0, true, 1));
    let list = Cursors::List(vec![Cursor { channel_id: "h".into(), channel_type: 2, last_msg_seq: 2 }]);
    assert_eq!(listed(SyncRequest { cursors: Some(list), ..full() }), ["g", "i"]);
    for (text, part) in [("g:2:x", "g:2:x"), ("g:2:1|oops", "oops")] {
        let refusal = sync(&world.store, &with_cursors(full(), text)).expect_err("malformed");
        assert_eq!(refusal.field(), Some("last_msg_seqs"));
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
    let nameless = Cursors::List(vec![Cursor { channel_id: String::new(), channel_type: 2, last_msg_seq: 2 }]);
    assert!(sync(&world.store, &SyncRequest { cursors: Some(nameless), ..full() }).is_err());
}

#[test]
fn cursors_name_pairs_by_peer_and_service_channels_by_their_bar() {
    let world = World::new();
    let service = ChannelKey::named("alice|shop", ChannelType::CustomerService).expect("valid");
    world.say(&pair("alice", "bob"), "bob");
    world.say(&service, "agent");
    let odd = ChannelKey::named("bob:1:1|shop", ChannelType::Group).expect("valid");
    let full = || SyncRequest::full(uid("alice"), 20);
    let text = "bob:1:1|alice|shop:3:1";
    assert!(world.sync(&with_cursors(full(), text)).rows.is_empty(), "the visitor is a member");
    let canonical = format!("{}:1:1", pair("alice", "bob").channel_id());
    assert_eq!(ids(&world.sync(&with_cursors(full(), &canonical)), "alice"), ["alice|shop"]);
    world.join(&odd, &["alice"]);
    world.say(&odd, "bob");
    let listed = ids(&world.sync(&with_cursors(full(), "bob:1:1|shop:2:1")), "alice");
    assert_eq!(listed, ["alice|shop", "bob"], "the join names a group of alice's and wins");
}

#[test]
fn a_cursor_above_head_is_answered_as_head_with_reset() {
    let world = World::new();
    let key = pair("alice", "bob");
    world.say(&key, "bob");
    let now = world.store.version();
    for request in [SyncRequest::full(uid("alice"), 20), since("alice", now)] {
        let answer = world.sync(&with_cursors(request, "bob:1:7"));
        let row = &answer.rows[0];
        assert_eq!((row.reset, row.recents.len(), row.last_msg_seq, row.complete), (true, 0, 1, true));
        assert!(!answer.reset);
    }
}

#[test]
fn an_unknown_version_is_answered_as_none_with_reset() {
    let world = World::new();
    let key = pair("alice", "bob");
    world.say(&key, "bob");
    let kept = world.store.version();
    world.say(&key, "bob");
    let ahead = Version::new(1_700_000_000_000_000_000);
    let until = world.store.version().plus(1_000_000);
    let check = |version: Version, reset: bool| {
        let answer = world.sync(&with_cursors(since("alice", version), "bob:1:2"));
        assert_eq!(answer.reset, reset, "{version}");
        if reset {
            assert_eq!(seqs(&answer.rows[0].recents), [2, 1], "cursors are ignored");
            assert!(!answer.rows[0].reset);
        }
    };
    check(ahead, true);
    check(Version::ZERO, false);
    world.commit(Record::Break { kept, until }.into());
    check(kept, false);
    check(kept.plus(1), true);
    check(until, true);
    check(world.store.version(), false);
}

#[test]
fn rows_are_ordered_by_their_last_message() {
    let world = World::new();
    world.store.set_clock_us(Some(1_700_000_000_000_000));
    let names = ["a", "b", "c", "d"];
    for id in names {
        world.join(&group(id), &["alice"]);
        world.say(&group(id), "bob");
    }
    world.set_unread(&group("a"), "alice", 0);
    assert_eq!(ids(&world.full("alice"), "alice"), ["d", "c", "b", "a"], "reading does not move a row");
    world.say(&group("b"), "bob");
    world.say_as(&group("c"), "bob", Kind { command: true, ..Kind::default() });
    assert_eq!(ids(&world.full("alice"), "alice"), ["b", "d", "c", "a"], "nor does a command");
}

#[test]
fn filters_of_the_reference() {
    let world = World::new();
    world.join(&group("g"), &["alice"]);
    world.say(&group("g"), "bob");
    world.say(&pair("alice", "bob"), "bob");
    world.set_unread(&group("g"), "alice", 0);
    let full = || SyncRequest::full(uid("alice"), 20);
    let only_unread = SyncRequest { only_unread: true, ..full() };
    assert_eq!(ids(&world.sync(&only_unread), "alice"), ["bob"]);
    assert_eq!(ids(&world.sync(&with_cursors(only_unread, "g:2:0")), "alice"), ["bob", "g"], "a named one comes");
    let excluded = SyncRequest { exclude_channel_types: vec![ChannelType::Person], ..full() };
    assert_eq!(ids(&world.sync(&excluded), "alice"), ["g"]);
    assert_eq!(ids(&world.sync(&with_cursors(excluded, "bob:1:0")), "alice"), ["bob", "g"], "a named one comes");
}

#[test]
fn pages_hold_every_row_once() {
    let world = World::new();
    for number in 0..25 {
        let key = group(&format!("g{number}"));
        world.join(&key, &["alice"]);
        world.say(&key, "bob");
    }
    let all = ids(&world.full("alice"), "alice");
    let (mut paged, mut after, mut version) = (Vec::new(), None, None);
    loop {
        let page = Page::Rows { after, rows_max: 10 };
        let answer = world.sync(&SyncRequest { page, ..SyncRequest::full(uid("alice"), 1) });
        assert_eq!(*version.get_or_insert(answer.version), answer.version, "all pages are at the first one's version");
        assert!(answer.rows.len() <= 10 && answer.rows.iter().all(|row| row.version <= answer.version));
        paged.extend(ids(&answer, "alice"));
        // A change between pages belongs to the deltas behind the first page's version.
        world.say(&group("g0"), "bob");
        after = answer.more;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged.len(), all.len() - usize::from(!paged.contains(&"g0".to_owned())));
    let delta = world.sync(&since("alice", version.expect("one page")));
    assert_eq!(ids(&delta, "alice"), ["g0"]);
    let numbered = |page, page_size| {
        let page = Page::Number { page, page_size };
        ids(&world.sync(&SyncRequest { page, ..SyncRequest::full(uid("alice"), 1) }), "alice")
    };
    let all = ids(&world.full("alice"), "alice");
    assert_eq!([numbered(1, 10), numbered(2, 10), numbered(3, 10)].concat(), all);
    assert!(numbered(4, 10).is_empty() && numbered(usize::MAX, usize::MAX).is_empty());
    for page in [Page::Rows { after: None, rows_max: 0 }, Page::Number { page: 1, page_size: 0 }] {
        assert!(sync(&world.store, &SyncRequest { page, ..SyncRequest::full(uid("alice"), 1) }).is_err());
    }
    // Chunks of one plan, as a streaming edge reads them.
    let mut plan = SyncPlan::new(&world.store, &SyncRequest::full(uid("alice"), 1)).expect("plans");
    let mut streamed = Vec::new();
    while plan.remaining() > 0 {
        streamed.extend(plan.next_rows(&world.store, 7).expect("reads"));
    }
    assert_eq!(streamed.len(), 25);
    assert!(plan.more().is_none());
}

#[test]
fn a_row_never_claims_a_version_behind_the_plan() {
    let world = World::new();
    let (first, second) = (pair("alice", "bob"), pair("alice", "eve"));
    world.say(&first, "bob");
    world.say(&second, "eve");
    let start = Version::new(1);
    let mut plan = SyncPlan::new(&world.store, &since("alice", start)).expect("plans");
    world.say(&first, "bob");
    world.say(&second, "eve");
    let rows = plan.next_rows(&world.store, 10).expect("reads");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!((row.last_msg_seq, row.unread), (2, 2), "a row may be newer");
        assert!(row.version <= plan.version(), "but a client that keeps the maximum steps over nothing");
    }
    assert_eq!(world.sync(&since("alice", plan.version())).rows.len(), 2);
}

#[test]
fn recents_are_bounded_in_bytes() {
    let world = World::new();
    for id in ["a", "b", "c"] {
        world.join(&group(id), &["alice"]);
        for _ in 0..3 {
            world.say_as(&group(id), "bob", Kind { bytes: 10_000, ..Kind::default() });
        }
    }
    let request = SyncRequest { recents_bytes_max: 45_000, ..SyncRequest::full(uid("alice"), 20) };
    let rows = world.sync(&request).rows;
    let shown: Vec<_> = rows.iter().map(|row| (seqs(&row.recents), row.complete, row.first_seq)).collect();
    assert_eq!(shown, [(vec![3, 2, 1], true, 1), (vec![3], false, 3), (vec![], false, 0)]);
    assert!(rows.iter().all(|row| row.last_msg_seq == 3 && row.last_client_msg_no == "no-3" && row.unread == 3));
}

#[test]
fn damaged_and_expired_messages_keep_their_place() {
    let world = World::new();
    let key = pair("alice", "bob");
    for _ in 0..3 {
        world.say_as(&key, "bob", Kind { bytes: 5, ..Kind::default() });
    }
    let channel = world.channel(&key);
    assert!(world.store.damage_message(channel, 3));
    let before = world.store.version();
    world.expire(&key, 1);
    let answer = world.sync(&since("alice", before));
    let row = &answer.rows[0];
    let states: Vec<_> = row.recents.iter().map(|m| (m.message_seq.get(), m.state, m.payload.len())).collect();
    let expected = [(3, MessageState::Damaged, 0), (2, MessageState::Live, 5), (1, MessageState::Expired, 0)];
    assert_eq!(states, expected);
    assert_eq!((row.unread, row.last_msg_seq), (2, 3), "an expired message does not count");
    assert!(
        row.timestamp_s.abs_diff(before.unix_ms() / 1_000) < DAY_MS / 1_000,
        "its time is known without its record"
    );
    let explained = explain_unread(&world.store, &uid("alice"), &key, 0).expect("explains");
    let verdicts: Vec<_> = explained.judged.iter().map(|judged| judged.verdict).collect();
    assert_eq!(verdicts, [Verdict::Damaged, Verdict::Counted, Verdict::Expired]);
}

#[test]
fn unread_explains_itself() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["bob"]);
    world.say(&key, "bob");
    world.say(&key, "bob");
    world.join(&key, &["alice"]);
    world.say(&key, "bob");
    world.say(&key, "alice");
    world.set_unread(&key, "alice", 0);
    world.say(&key, "bob");
    world.say_as(&key, "bob", Kind { silent: true, ..Kind::default() });
    world.say_as(&key, "bob", Kind { command: true, ..Kind::default() });
    let explained = explain_unread(&world.store, &uid("alice"), &key, 0).expect("explains");
    assert_eq!((explained.unread, explained.head_seq, explained.floor, explained.read_seq), (1, 7, 4, 4));
    assert_eq!((explained.join_floor, explained.delete_floor, explained.more), (2, 0, false));
    assert_eq!((explained.read_by, explained.own_message.0), (ReadBy::OwnMessage, 4), "setUnread had nothing to do");
    let verdicts: Vec<_> = explained.judged.iter().map(|judged| judged.verdict).collect();
    let (read, own) = (Verdict::Read, Verdict::Own);
    assert_eq!(verdicts, [Verdict::Command, Verdict::NoRedDot, Verdict::Counted, own, read, read, read]);
    world.set_unread(&key, "alice", 2);
    let explained = explain_unread(&world.store, &uid("alice"), &key, 4).expect("explains");
    assert_eq!((explained.unread, explained.read_by, explained.more), (2, ReadBy::Explicit, true));
    world.set_unread(&key, "alice", 9);
    let explained = explain_unread(&world.store, &uid("alice"), &key, 9).expect("explains");
    assert_eq!((explained.unread, explained.floor), (2, 2), "what came before joining never counts");
    let nothing = explain_unread(&world.store, &uid("alice"), &pair("alice", "bob"), 9).expect("unborn");
    assert_eq!((nothing.unread, nothing.read_by, nothing.judged.len()), (0, ReadBy::Nothing, 0));
}

fn newest(limit: usize) -> HistoryQuery {
    HistoryQuery { first: 0, last: 0, limit, bytes_max: 1 << 20, newest_first: true }
}

#[test]
fn history_pages_in_both_directions() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice"]);
    for _ in 0..10 {
        world.say_as(&key, "bob", Kind { bytes: 10, ..Kind::default() });
    }
    let alice = uid("alice");
    let query =
        |first, last, limit, newest_first| HistoryQuery { first, last, limit, bytes_max: 1 << 20, newest_first };
    for (query, expected, more) in [
        (query(0, 0, 3, true), vec![10, 9, 8], true),
        (query(0, 7, 3, true), vec![7, 6, 5], true),
        (query(6, 7, 3, true), vec![7, 6], false),
        (query(0, 3, 3, true), vec![3, 2, 1], false),
        (query(8, 0, 3, false), vec![8, 9, 10], false),
        (query(7, 0, 3, false), vec![7, 8, 9], true),
        (query(11, 0, 3, false), vec![], false),
        (query(9, u64::MAX, 0, false), vec![9, 10], false),
        (HistoryQuery { bytes_max: 25, ..query(1, 0, 9, false) }, vec![1, 2], true),
    ] {
        let page = history(&world.store, Asker::User(&alice), &key, query).expect("member");
        assert_eq!((seqs(&page.messages), page.more, page.head_seq), (expected, more, 10), "{query:?}");
    }
    for key in [&key, &group("nowhere")] {
        let refused = history(&world.store, Asker::User(&uid("eve")), key, newest(1));
        assert_eq!(refused.expect_err("outside"), Refusal::NotMember);
    }
    assert_eq!(history(&world.store, Asker::Trusted, &key, newest(1)).expect("trusted").messages.len(), 1);
    assert_eq!(history(&world.store, Asker::Trusted, &group("nowhere"), newest(1)).expect("trusted").head_seq, 0);
    assert_eq!(
        history(&world.store, Asker::User(&alice), &pair("alice", "bob"), newest(1)).expect("unborn").head_seq,
        0
    );
}

#[test]
fn message_sync_answers_as_the_reference() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice"]);
    for _ in 0..10 {
        world.say(&key, "bob");
    }
    let ask = |start_message_seq, end_message_seq, limit, towards_newer| {
        let numbers = MessageSync { start_message_seq, end_message_seq, limit, towards_newer };
        message_sync(&world.store, Asker::Trusted, &key, numbers, 1 << 20)
    };
    for (start, end, limit, newer, expected, more) in [
        (0, 0, 3, false, vec![8, 9, 10], true),
        (0, 0, 3, true, vec![8, 9, 10], true),
        (0, 0, 50, false, (1..=10).collect(), false),
        (0, 0, 10, false, (1..=10).collect(), true),
        (7, 0, 3, false, vec![5, 6, 7], true),
        (7, 5, 3, false, vec![6, 7], false),
        (7, 4, 3, false, vec![5, 6, 7], false),
        (7, 2, 3, false, vec![5, 6, 7], true),
        (5, 7, 3, false, vec![], false),
        (5, 0, 3, true, vec![5, 6, 7], true),
        (0, 4, 9, true, vec![1, 2, 3], false),
        (5, 8, 3, true, vec![5, 6, 7], false),
        (5, 9, 3, true, vec![5, 6, 7], true),
        (9, 3, 3, true, vec![], false),
        (11, 0, 3, true, vec![], false),
        (20, 0, 2, false, vec![9, 10], true),
    ] {
        let page = ask(start, end, limit, newer).expect("answers");
        let case = format!("start {start} end {end} limit {limit} newer {newer}");
        assert_eq!((seqs(&page.messages), page.more), (expected, more), "{case}");
    }
    assert_eq!(ask(0, 3, 3, false).expect_err("v1's 400").field(), Some("start_message_seq"));
    let numbers = MessageSync { start_message_seq: 9, end_message_seq: 3, limit: 1, towards_newer: true };
    let outside = message_sync(&world.store, Asker::User(&uid("eve")), &key, numbers, 1 << 20);
    assert_eq!(outside.expect_err("outside"), Refusal::NotMember, "also where the range is empty");
}

/// A user with `own` conversations of one message each, beside others' channels.
fn crowded(own: usize, others: usize) -> World {
    let world = World::new();
    for (prefix, who, count) in [("own", "alice", own), ("other", "bob", others)] {
        for number in 0..count {
            let key = group(&format!("{prefix}{number}"));
            world.join(&key, &[who]);
            world.say(&key, "carol");
        }
    }
    world
}

fn cost(world: &World, request: &SyncRequest) -> (usize, u64, u64) {
    let before = world.store.read_counts();
    let rows = world.sync(request).rows.len();
    let after = world.store.read_counts();
    (rows, after.view - before.view, after.log - before.log)
}

#[test]
fn nothing_changed_costs_a_constant_number_of_reads() {
    for own in [10, 400] {
        let world = crowded(own, 300);
        let now = world.store.version();
        assert_eq!(cost(&world, &since("alice", now)), (0, 1, 0));
        for number in 0..300 {
            world.say(&group(&format!("other{number}")), "carol");
        }
        let (rows, view, log) = cost(&world, &since("alice", now));
        assert!(rows == 0 && view <= 2 && log == 0, "{own} own channels: {rows} rows, {view} view, {log} log");
    }
}

#[test]
fn cost_is_the_number_of_changes() {
    let world = crowded(400, 300);
    let now = world.store.version();
    for number in 0..10 {
        for _ in 0..5 {
            world.say(&group(&format!("own{number}")), "carol");
        }
    }
    for number in 0..300 {
        world.say(&group(&format!("other{number}")), "carol");
    }
    let request = SyncRequest { msg_count: 1, ..since("alice", now) };
    let (rows, view, log) = cost(&world, &request);
    assert!(rows == 10 && view <= 2 + 10 * 7 && log == 10, "{rows} rows, {view} view, {log} log");
}

#[test]
fn a_full_answer_is_linear_and_cursors_cost_a_look_up_each() {
    let world = crowded(2_000, 0);
    let (rows, view, log) = cost(&world, &SyncRequest::full(uid("alice"), 1));
    assert!(rows == 2_000 && view <= 1 + 2_000 * 6 && log == 2_000, "{rows} rows, {view} view, {log} log");
    let list = (0..2_000).map(|n| Cursor { channel_id: format!("own{n}"), channel_type: 2, last_msg_seq: 1 }).collect();
    let request = SyncRequest { cursors: Some(Cursors::List(list)), ..since("alice", world.store.version()) };
    let (rows, view, log) = cost(&world, &request);
    assert!(rows == 0 && view <= 1 + 2_000 * 2 && log == 0, "{rows} rows, {view} view, {log} log");
    let text: Vec<_> = (0..2_000).map(|n| format!("own{n}:2:1")).collect();
    let request = with_cursors(since("alice", world.store.version()), &text.join("|"));
    let (rows, view, log) = cost(&world, &request);
    let joins = 1_024;
    assert!(rows == 0 && view <= 1 + 2_000 * 3 + joins && log == 0, "{rows} rows, {view} view, {log} log");
}

#[test]
fn a_store_that_cannot_answer_is_a_refusal_with_a_time() {
    let error = StoreError::io("read index page", "channel 7", std::io::Error::other("gone"));
    assert_eq!(refuse(error).retry_after_ms(), Some(STORE_RETRY_AFTER_MS));
    assert_eq!(refuse(StoreError::damaged("read index page", "channel 7")), Refusal::Internal);
}
