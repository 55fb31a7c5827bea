//! The store as a whole: what survives which end, and what a start does about a view that cannot be used.

use bytes::Bytes;
use protocol::ids::{ChannelType, MessageSeq};

use super::*;
use crate::domain::channel::ChannelSettings;
use crate::domain::identity::Scopes;
use crate::domain::message::{MessageFlags, MessageState, fingerprint};
use crate::store::{MessageRecord, Record};

mod altering;
mod bounds;

fn uid(text: &str) -> Uid {
    Uid::from_stored(text)
}

fn options(dir: &Path) -> StoreOptions {
    // Checkpoints happen when a test says so, and no search index loads rows whose reads a test counts.
    let search = SearchOptions { on: false, ..SearchOptions::default() };
    StoreOptions { checkpoint_interval: Duration::from_secs(3_600), search, ..StoreOptions::new(dir) }
}

fn open(dir: &Path) -> DurableStore {
    open_reporting(dir).0
}

fn open_reporting(dir: &Path) -> (DurableStore, OpenReport) {
    DurableStore::open(options(dir)).expect("store opens")
}

fn commit(store: &DurableStore, records: Vec<Record>) -> Vec<Version> {
    let lot: Vec<Commit> = records.into_iter().map(Commit::from).collect();
    let mut sealed = Vec::new();
    let versions = store.commit(&lot, &mut |versions| sealed = versions.to_vec()).expect("commit");
    assert_eq!(sealed, versions);
    versions
}

fn group(store: &DurableStore, id: &str) -> ChannelNo {
    let channel = store.reserve_channel_no();
    let key = ChannelKey::named(id, ChannelType::Group).expect("id");
    commit(store, vec![Record::ChannelCreated { channel, key }]);
    channel
}

fn person(store: &DurableStore, a: &str, b: &str) -> ChannelNo {
    let channel = store.reserve_channel_no();
    commit(store, vec![Record::ChannelCreated { channel, key: ChannelKey::person(&uid(a), &uid(b)) }]);
    channel
}

fn message(channel: ChannelNo, seq: u64, from: &str, red_dot: bool) -> Record {
    Record::Message(MessageRecord {
        extras: None,
        channel,
        message_seq: MessageSeq::new(seq).expect("seq"),
        from_uid: uid(from),
        client_msg_no: ClientMsgNo::from_stored(&format!("{from}-{seq}")),
        flags: MessageFlags { red_dot, ..MessageFlags::default() },
        setting: 7,
        topic: "t".into(),
        expire_s: 0,
        payload: Bytes::from(format!("payload {seq}")),
    })
}

/// Messages first..=last, in lots of 500.
fn send(store: &DurableStore, channel: ChannelNo, first: u64, last: u64, from: &dyn Fn(u64) -> String) {
    for start in (first..=last).step_by(500) {
        let records = (start..=last.min(start + 499)).map(|seq| message(channel, seq, &from(seq), true)).collect();
        commit(store, records);
    }
}

fn page(first: u64, last: u64, limit: usize, newest_first: bool) -> SeqRange {
    SeqRange { first, last, limit, bytes_max: usize::MAX, newest_first }
}

fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|m| m.message_seq.get()).collect()
}

/// A small history that touches every kind of record; returns what every read verb says about it.
fn history(store: &DurableStore) {
    let (ab, team) = (person(store, "alice", "bob"), group(store, "team"));
    let uids = ["alice", "bob", "carol"].map(uid).to_vec();
    commit(store, vec![Record::MembersAdded { channel: team, join_floor: 0, uids }]);
    send(store, ab, 1, 150, &|seq| if seq % 3 == 0 { "alice".into() } else { "bob".into() });
    send(store, team, 1, 40, &|seq| if seq % 2 == 0 { "carol".into() } else { "bob".into() });
    commit(
        store,
        vec![
            Record::ReadPosition { channel: ab, uid: uid("alice"), seq: 100 },
            Record::ConversationDeleted { channel: team, uid: uid("alice"), delete_floor: 12 },
            Record::MembersRemoved { channel: team, delete_floor: 40, uids: vec![uid("carol"), uid("dave")] },
            Record::ChannelSettings { channel: team, settings: ChannelSettings { ban: true, ..Default::default() } },
            Record::MessagesExpired { channel: ab, seqs: vec![5, 140] },
            Record::UserCreated { uid: uid("erin") },
            Record::UserToken { uid: uid("erin"), device_flag: DeviceFlag(0), device_level: 1, token: Some([1; 32]) },
            Record::UserToken { uid: uid("erin"), device_flag: DeviceFlag(0), device_level: 1, token: Some([2; 32]) },
            Record::UserToken { uid: uid("bob"), device_flag: DeviceFlag(1), device_level: 0, token: Some([2; 32]) },
            Record::ApiKey(ApiKey {
                key_id: "k".into(),
                name: "back end".into(),
                secret: [9; 32],
                scopes: Scopes { admin: true, ..Scopes::default() },
                namespace: Some("ns".into()),
                revoked: false,
            }),
            Record::Alias { alias: "uuid".into(), channel: ab },
        ],
    );
    altering::history(store, ab, team);
}

/// What the read verbs say about `history`, as text.
fn answers(store: &DurableStore) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let team = ChannelKey::named("team", ChannelType::Group).expect("id");
    for key in [ChannelKey::person(&uid("alice"), &uid("bob")), team] {
        let no = store.channel_no(&key).expect("read").expect("exists");
        let mut members = store.members(no).expect("read");
        members.sort();
        writeln!(text, "{:?} {members:?}", store.channel(no).expect("read")).expect("text");
        writeln!(text, "{:?}", store.messages(no, page(1, u64::MAX, 1_000, false)).expect("read")).expect("text");
        writeln!(text, "{:?}", store.digest(no, 33).expect("read")).expect("text");
        for who in ["alice", "bob", "carol", "dave", "erin"].map(uid) {
            let counts: Vec<_> = (0..160).map(|f| store.countable_after(no, &who, f).expect("read")).collect();
            writeln!(
                text,
                "{:?} {:?} {:?} {counts:?}",
                store.membership(no, &who).expect("read"),
                store.conversation_state(no, &who).expect("read"),
                store.last_own(no, &who).expect("read"),
            )
            .expect("text");
        }
    }
    for who in ["alice", "bob", "carol", "dave", "erin"].map(uid) {
        let mut channels = store.channels_of(&who).expect("read");
        channels.sort();
        let mut own = store.own_changes(&who, Version::ZERO).expect("read");
        own.sort();
        let known = store.user_known(&who).expect("read");
        writeln!(text, "{channels:?} {own:?} {known} {}", store.channel_count_of(&who).expect("read")).expect("text");
    }
    for token in [[1; 32], [2; 32]] {
        let mut owners = store.token_owners(&token).expect("read");
        owners.sort();
        writeln!(text, "{owners:?}").expect("text");
    }
    writeln!(text, "{:?} {:?}", store.api_keys(), store.alias("uuid").expect("read")).expect("text");
    text.push_str(&altering::answers(store));
    writeln!(text, "{:?} {:?}", store.recently_changed(Version::ZERO, 9), store.version()).expect("text");
    text
}

#[test]
fn everything_is_there_after_each_kind_of_end() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    history(&store);
    let before = answers(&store);
    assert!(before.contains("payload 150") && before.contains("Expired"));
    assert!(store.stats().dirty_rows > 0);
    // Killed: nothing of it is in the view.
    store.abandon();
    let (store, report) = open_reporting(dir.path());
    assert!(report.records_replayed > 200 && report.view_rebuilt.is_none(), "{report:?}");
    assert_eq!(answers(&store), before);
    // After a checkpoint, in the same process and after a kill.
    store.checkpoint().expect("checkpoint");
    assert_eq!((store.stats().dirty_rows, store.stats().log_bytes_since_checkpoint), (0, 0));
    assert_eq!(answers(&store), before);
    store.abandon();
    let (store, report) = open_reporting(dir.path());
    assert_eq!((report.records_replayed, &report.view_rebuilt), (0, &None));
    assert_eq!(answers(&store), before);
    // Closed, and opened twice.
    drop(store);
    drop(open(dir.path()));
    let (store, report) = open_reporting(dir.path());
    assert_eq!(report.records_replayed, 0);
    assert_eq!(answers(&store), before);
    // Something more on top of rows that come from sled.
    let ab = store.channel_no(&ChannelKey::person(&uid("alice"), &uid("bob"))).expect("read").expect("exists");
    send(&store, ab, 153, 300, &|_| "alice".into());
    let before = answers(&store);
    store.abandon();
    assert_eq!(answers(&open(dir.path())), before);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("dir");
    for entry in std::fs::read_dir(from).expect("dir") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

#[test]
fn half_a_checkpoint_is_replayed_to_the_same_answers() {
    for batches in 0..6 {
        let dir = tempfile::tempdir().expect("dir");
        let mut store = open(dir.path());
        let old = group(&store, "old");
        send(&store, old, 1, 300, &|seq| format!("u{}", seq % 40));
        store.checkpoint().expect("checkpoint");
        history(&store);
        // Many owners in many batches, pages and buckets, and users who are known because they have sent.
        let uids = (0..900).map(|n| uid(&format!("old-member-{n}"))).collect();
        commit(&store, vec![Record::MembersAdded { channel: old, join_floor: 300, uids }]);
        send(&store, old, 301, 900, &|seq| format!("u{}", seq % 50));
        let uids = (0..300).map(|n| uid(&format!("old-member-{n}"))).collect();
        commit(&store, vec![Record::MembersRemoved { channel: old, delete_floor: 900, uids }]);
        let check = |store: &DurableStore, when: &str| {
            let info = store.channel(old).expect("read").expect("exists");
            assert_eq!((info.member_count, info.head_seq), (600, 900), "{when}, {batches} batches");
            assert_eq!(store.members(old).expect("read").len(), 600);
            for n in [0, 7, 49] {
                let who = uid(&format!("u{n}"));
                let own = (1..=900u64).filter(|seq| seq % if *seq <= 300 { 40 } else { 50 } == n).count() as u64;
                assert_eq!(store.countable_after(old, &who, 0).expect("read").0, 900 - own, "{when} {who}");
                assert!(store.user_known(&who).expect("read"), "{when} {who}");
            }
            let member = uid("old-member-5");
            assert_eq!(store.own_changes(&member, Version::ZERO).expect("read"), vec![old]);
            assert_eq!(store.channel_count_of(&member).expect("read"), 1);
            assert!(!store.user_known(&member).expect("read"));
            assert!(store.user_known(&uid("old-member-800")).expect("read"));
        };
        check(&store, "before");
        let before = answers(&store);
        // Nobody puts it right meanwhile.
        store.stop();
        store.inner.view().fail_after_batches(batches);
        let failed = store.checkpoint().is_err();
        assert!(failed || batches > 3, "{batches}");
        // Memory still has everything, and nothing more is taken.
        check(&store, "after");
        assert_eq!(answers(&store), before);
        assert_eq!(store.commit(&[Record::UserCreated { uid: uid("x") }.into()], &mut |_| {}).is_err(), failed);
        store.abandon();
        let (store, report) = open_reporting(dir.path());
        assert_eq!(report.view_rebuilt, None);
        assert!(report.records_replayed > 800 || !failed);
        check(&store, "replayed");
        assert_eq!(answers(&store).lines().next(), before.lines().next());
        drop(store);
        check(&open(dir.path()), "reopened");
    }
}

#[test]
fn owners_written_at_different_moments_replay_to_the_same_answers() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    history(&store);
    let team = group(&store, "later");
    send(&store, team, 1, 10, &|_| "newcomer".into());
    let before = answers(&store);
    store.inner.view().checkpoint_channels_only().expect("checkpoint");
    // Users' changes on top of it, in channels that are written already.
    commit(&store, vec![Record::ReadPosition { channel: team, uid: uid("newcomer"), seq: 3 }]);
    store.abandon();
    let store = open(dir.path());
    assert!(store.user_known(&uid("newcomer")).expect("read"));
    assert_eq!(answers(&store).lines().take(10).collect::<Vec<_>>(), before.lines().take(10).collect::<Vec<_>>());
    assert_eq!(store.own_changes(&uid("newcomer"), Version::ZERO).expect("read"), vec![team]);
}

#[test]
fn commits_during_checkpoints_are_neither_lost_nor_doubled() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let channels: Vec<ChannelNo> = (0..20).map(|n| group(&store, &format!("g{n}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.checkpoint().expect("checkpoint");
            }
        });
        for round in 0..200u64 {
            let mut records: Vec<Record> =
                channels.iter().map(|no| message(*no, round + 1, &format!("u{}", round % 9), true)).collect();
            records.extend(channels.iter().map(|no| Record::MembersAdded {
                channel: *no,
                join_floor: round,
                uids: vec![uid(&format!("m{round}")), uid("everywhere")],
            }));
            records.push(Record::UserToken {
                uid: uid("everywhere"),
                device_flag: DeviceFlag(0),
                device_level: 0,
                token: Some([round as u8; 32]),
            });
            records.push(Record::Alias { alias: format!("a{round}"), channel: channels[0] });
            commit(&store, records);
        }
        done.store(true, Ordering::Release);
    });
    let check = |store: &DurableStore| {
        for no in &channels {
            let info = store.channel(*no).expect("read").expect("exists");
            assert_eq!((info.head_seq, info.member_count), (200, 201));
            let all = store.messages(*no, page(1, 200, 200, false)).expect("read");
            assert_eq!(seqs(&all), (1..=200).collect::<Vec<_>>());
            assert_eq!(store.countable_after(*no, &uid("u3"), 0).expect("read").0, 200 - 22);
        }
        assert_eq!(store.channel_count_of(&uid("everywhere")).expect("read"), 20);
        assert_eq!(store.own_changes(&uid("m77"), Version::ZERO).expect("read").len(), 20);
        for round in 0..200u64 {
            let owners = store.token_owners(&[round as u8; 32]).expect("read");
            assert_eq!(owners.len(), usize::from(round == 199), "token {round}");
            assert_eq!(store.alias(&format!("a{round}")).expect("read"), Some(channels[0]), "alias {round}");
        }
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    check(&store);
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn a_view_that_is_gone_is_made_again() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    history(&store);
    let before = answers(&store);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("view")).expect("remove");
    let (store, report) = open_reporting(dir.path());
    assert!(report.records_replayed > 200);
    assert_eq!(answers(&store), before);
}

#[test]
fn an_older_view_is_replayed_from_its_own_mark() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    history(&store);
    drop(store);
    let old = tempfile::tempdir().expect("dir");
    copy_dir(&dir.path().join("view"), old.path());
    let store = open(dir.path());
    let team = group(&store, "later");
    send(&store, team, 1, 100, &|_| "zoe".into());
    let before = answers(&store);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("view")).expect("remove");
    copy_dir(old.path(), &dir.path().join("view"));
    let (store, report) = open_reporting(dir.path());
    assert_eq!((report.records_replayed, report.view_rebuilt), (101, None));
    assert_eq!(answers(&store), before);
    assert!(store.user_known(&uid("zoe")).expect("read"));
}

#[test]
fn a_flipped_bit_anywhere_in_the_view_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    history(&store);
    for n in 0..400 {
        let no = group(&store, &format!("g{n}"));
        send(&store, no, 1, 5, &|seq| format!("user-{}", seq * n));
        if n % 100 == 0 {
            store.checkpoint().expect("checkpoint");
        }
    }
    let before = answers(&store);
    drop(store);
    let good = std::fs::read(dir.path().join("view/db")).expect("read");
    let used = good.iter().rposition(|&byte| byte != 0).expect("data");
    let mut noticed = 0;
    for step in 0..24 {
        let at = step * used / 24 + step % 7;
        let mut bad = good.clone();
        bad[at] ^= 1 << (step % 8);
        std::fs::write(dir.path().join("view/db"), bad).expect("write");
        let (store, report) = open_reporting(dir.path());
        noticed += u32::from(report.view_rebuilt.is_some() || report.records_replayed > 0);
        assert_eq!(answers(&store), before, "bit {} of byte {at}", step % 8);
        drop(store);
    }
    // sled mostly rolls back to an older state, which is a view like any other and replays from its mark; flips in pages
    // nobody needs any more change nothing.
    assert!(noticed > 12, "{noticed}");
    assert!(dir.path().join("view.bad-1").exists());
}

#[test]
fn a_row_that_is_missing_or_changed_is_noticed() {
    for (name, change) in [
        (
            "missing",
            &(|db: &sled::Db| db.remove([b'h', 0, 0, 0, 0]).map(|_| ())) as &dyn Fn(&sled::Db) -> sled::Result<()>,
        ),
        ("mark", &|db| db.remove(b"#m").map(|_| ())),
        ("sum", &|db| db.remove(b"#s").map(|_| ())),
        ("added", &|db| db.insert(b"tx", vec![1]).map(|_| ())),
        ("version", &|db| db.insert(b"uz", vec![1]).map(|_| ())),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path());
        history(&store);
        let before = answers(&store);
        drop(store);
        let db = rows_of(dir.path());
        change(&db).expect(name);
        db.flush().expect("flush");
        drop(db);
        let (store, report) = open_reporting(dir.path());
        assert!(report.records_replayed > 200, "{name} {report:?}");
        assert_eq!(answers(&store), before, "{name}");
    }
}

#[test]
fn a_second_process_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let error = DurableStore::open(options(dir.path())).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(store);
    std::fs::write(dir.path().join("format"), "2\n").expect("write");
    let error = DurableStore::open(options(dir.path())).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[test]
fn what_no_correct_caller_commits_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let bytes = store.stats().log_bytes;
    let same_name = ChannelKey::named("team", ChannelType::Group).expect("id");
    for bad in [
        vec![],
        vec![message(team, 2, "a", true)],
        vec![message(team, 1, "a", true), message(team, 1, "a", true)],
        vec![message(ChannelNo(77), 1, "a", true)],
        vec![Record::ReadPosition { channel: ChannelNo(77), uid: uid("a"), seq: 1 }],
        vec![Record::ChannelCreated { channel: store.reserve_channel_no(), key: same_name }],
    ] {
        let lot: Vec<Commit> = bad.into_iter().map(Commit::from).collect();
        let mut called = false;
        assert!(store.commit(&lot, &mut |_| called = true).is_err());
        assert!(!called);
    }
    assert_eq!(store.stats().log_bytes, bytes);
    commit(&store, vec![message(team, 1, "a", true)]);
}

#[test]
fn old_duplicates_are_found_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let from = |seq: u64| format!("u{}", seq % 7);
    for (first, last) in [(1, 9_000), (9_001, 24_000), (24_001, 30_000)] {
        send(&store, team, first, last, &from);
        store.checkpoint().expect("checkpoint");
    }
    let check = |store: &DurableStore| {
        for seq in (1..=30_000u64).step_by(611).chain([4_096, 4_097, 30_000]) {
            let (who, name) = (uid(&from(seq)), ClientMsgNo::from_stored(&format!("{}-{seq}", from(seq))));
            assert_eq!(store.probe(team, fingerprint(&who, &name)), Probe::Ask);
            let found = store.message_by_client_msg_no(team, &who, &name).expect("read").expect("found");
            assert_eq!((found.message_seq.get(), &found.payload[..]), (seq, format!("payload {seq}").as_bytes()));
        }
        for n in 0..2_000 {
            let name = ClientMsgNo::from_stored(&format!("never {n}"));
            if store.probe(team, fingerprint(&uid("u1"), &name)) == Probe::Ask {
                assert_eq!(store.message_by_client_msg_no(team, &uid("u1"), &name).expect("read"), None);
            }
        }
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    // Cold: nothing is known to be absent.
    assert_eq!(store.probe(team, 1), Probe::Ask);
    check(&store);
    // A checkpoint behind our back could put a new run, whose filter is not loaded, in the place of a warm one.
    store.checkpoint().expect("checkpoint");
    store.warm(team).expect("warm");
    let reads = store.read_counts();
    let absent = |n: u64| fingerprint(&uid("u2"), &ClientMsgNo::from_stored(&format!("absent {n}")));
    let asked = (0..10_000u64).filter(|n| store.probe(team, absent(*n)) == Probe::Ask).count();
    assert_eq!(store.read_counts(), reads, "probe does no I/O");
    assert!(asked < 100, "{asked} of 10000 false positives");
}

#[test]
fn a_new_channel_knows_its_fingerprints_without_reading() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    assert_eq!(store.probe(team, 5), Probe::Absent);
    send(&store, team, 1, 300, &|_| "a".into());
    assert_eq!(store.probe(team, 5), Probe::Absent);
    let stored = fingerprint(&uid("a"), &ClientMsgNo::from_stored("a-299"));
    assert_eq!(store.probe(team, stored), Probe::Ask);
    // A short channel is warm with its head row.
    let short = group(&store, "short");
    send(&store, short, 1, 64, &|_| "a".into());
    drop(store);
    let store = open(dir.path());
    store.channel(short).expect("read");
    assert_eq!(store.probe(short, 5), Probe::Absent);
}

#[test]
fn five_thousand_members_are_a_row_each_to_ask() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let name = |n: usize| uid(&format!("member-{n:05}-{}", "x".repeat(n % 80)));
    for start in (0..5_000).step_by(1_000) {
        let uids = (start..start + 1_000).map(name).collect();
        commit(&store, vec![Record::MembersAdded { channel: team, join_floor: 0, uids }]);
    }
    let check = |store: &DurableStore, gone: usize| {
        let info = store.channel(team).expect("read").expect("exists");
        assert_eq!(info.member_count, 5_000 - gone as u64);
        let mut members = store.members(team).expect("read");
        members.sort();
        let expected: Vec<Uid> = (gone..5_000).map(name).collect();
        assert_eq!(members.len(), expected.len());
        assert_eq!(members, {
            let mut e = expected;
            e.sort();
            e
        });
    };
    check(&store, 0);
    store.checkpoint().expect("checkpoint");
    check(&store, 0);
    commit(&store, vec![Record::MembersRemoved { channel: team, delete_floor: 0, uids: (0..700).map(name).collect() }]);
    check(&store, 700);
    store.abandon();
    let store = open(dir.path());
    check(&store, 700);
    drop(store);
    let store = open(dir.path());
    store.channel(team).expect("read");
    for n in (0..5_000).step_by(97) {
        let before = store.read_counts().view;
        assert_eq!(store.membership(team, &name(n)).expect("read").is_some(), n >= 700);
        assert!(store.read_counts().view - before <= 2);
        let before = store.read_counts().view;
        assert!(store.conversation_state(team, &name(n)).expect("read").is_some());
        assert!(store.read_counts().view - before <= 2);
    }
    check(&store, 700);
    drop(store);
    rows_are_small(dir.path());
}

/// The view's tree, once the sled of the store has let go of it.
fn rows_of(dir: &Path) -> sled::Db {
    let start = Instant::now();
    loop {
        match sled::open(dir.join("view")) {
            Ok(db) => return db,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::yield_now();
    }
}

/// No value is longer than 4 KiB, and sled keeps nothing outside of its file.
fn rows_are_small(dir: &Path) {
    let db = rows_of(dir);
    let mut rows = 0;
    for row in db.iter() {
        let (key, value) = row.expect("row");
        assert!(value.len() <= 4_096, "{} has {} bytes", key.escape_ascii(), value.len());
        assert!(value[0] == 4, "every value begins with its version");
        rows += 1;
    }
    assert!(rows > 0);
    let blobs = dir.join("view/blobs");
    let count = std::fs::read_dir(&blobs).map_or(0, |entries| entries.count());
    assert_eq!(count, 0, "blobs/ stays empty");
}

#[test]
fn a_million_unread_cost_a_few_reads() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let last = 60_000;
    send(&store, team, 1, last, &|seq| if seq % 5 == 0 { "own".into() } else { format!("u{}", seq % 50) });
    commit(&store, vec![Record::MessagesExpired { channel: team, seqs: (1..=last).step_by(15).collect() }]);
    let naive = |floor: u64| (floor + 1..=last).filter(|seq| seq % 5 != 0 && (seq - 1) % 15 != 0).count() as u64;
    let check = |store: &DurableStore| {
        for floor in [0, 1, 63, 64, 65, 16_383, 16_384, 30_000, 59_999, 60_000, 70_000] {
            let before = store.read_counts().view;
            assert_eq!(store.countable_after(team, &uid("own"), floor).expect("read"), (naive(floor), last));
            assert!(store.read_counts().view - before <= 8, "floor {floor}");
        }
        for unread in [1, 2, 100, 20_000, 44_000, 1_000_000] {
            let before = store.read_counts();
            let (position, count, head) = store.position_for_unread(team, &uid("own"), unread, 3).expect("read");
            let reads = store.read_counts();
            assert_eq!((count, head), (unread.min(naive(3)), last));
            assert_eq!(naive(position), count);
            assert!(position == 3 || naive(position + 1) < count, "the highest such position");
            assert!(reads.view - before.view <= 32, "{} reads", reads.view - before.view);
            assert_eq!(reads.log, before.log);
        }
    };
    check(&store);
    drop(store);
    check(&open(dir.path()));
    rows_are_small(dir.path());
}

#[test]
fn expired_messages_keep_their_seq_and_lose_their_payload() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let mut records = Vec::new();
    for seq in 1..=300 {
        let Record::Message(mut m) = message(team, seq, "a", true) else { unreachable!() };
        m.expire_s = if seq % 2 == 0 { 60 + seq as u32 } else { 0 };
        records.push(Record::Message(m));
    }
    let versions = commit(&store, records);
    let due_at = |seq: usize| versions[seq - 1].unix_ms() + (60 + seq as u64) * 1_000;
    let check = |store: &DurableStore, from: u64| {
        let due = store.expiry_due(due_at(100), 10).expect("read");
        assert_eq!(due, vec![(team, (from..=100).filter(|seq| seq % 2 == 0).collect::<Vec<_>>())]);
        assert_eq!(store.expiry_due(due_at(2) - 1, 10).expect("read"), vec![]);
    };
    check(&store, 2);
    store.checkpoint().expect("checkpoint");
    check(&store, 2);
    commit(
        &store,
        vec![Record::MessagesExpired {
            channel: team,
            seqs: (1..=50).map(|n| n * 2 - 50 * u64::from(n > 25)).collect(),
        }],
    );
    store.abandon();
    let store = open(dir.path());
    check(&store, 52);
    let (_, rest) = store.expiry_due(u64::MAX / 2, 10).expect("read").remove(0);
    commit(&store, vec![Record::MessagesExpired { channel: team, seqs: rest }]);
    assert_eq!(store.expiry_due(u64::MAX / 2, 10).expect("read"), vec![]);
    let messages = store.messages(team, page(1, 300, 300, true)).expect("read");
    assert_eq!(messages.len(), 300);
    for m in messages {
        let expired = m.message_seq.get() % 2 == 0;
        assert_eq!((m.state == MessageState::Expired, m.payload.is_empty()), (expired, expired));
    }
    assert_eq!(store.countable_after(team, &uid("b"), 0).expect("read").0, 150);
    assert_eq!(store.countable_after(team, &uid("a"), 0).expect("read").0, 0);
    // Minutes in which nothing is left have no rows.
    drop(store);
    let db = rows_of(dir.path());
    assert_eq!(db.scan_prefix(b"e").count(), 0);
}

#[test]
fn ranges_are_read_in_both_directions_and_within_their_limits() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    send(&store, team, 1, 500, &|_| "a".into());
    drop(store);
    let store = open(dir.path());
    assert_eq!(seqs(&store.messages(team, page(1, 5, 100, false)).expect("read")), vec![1, 2, 3, 4, 5]);
    assert_eq!(seqs(&store.messages(team, page(0, 900, 3, true)).expect("read")), vec![500, 499, 498]);
    assert_eq!(seqs(&store.messages(team, page(10, 20, 3, true)).expect("read")), vec![20, 19, 18]);
    assert_eq!(
        seqs(&store.messages(team, page(1, 500, 500, true)).expect("read")),
        (1..=500).rev().collect::<Vec<_>>()
    );
    assert_eq!(seqs(&store.messages(team, page(60, 300, 150, false)).expect("read")), (60..210).collect::<Vec<_>>());
    assert!(store.messages(team, page(501, 600, 9, false)).expect("read").is_empty());
    assert!(store.messages(team, page(9, 8, 9, false)).expect("read").is_empty());
    assert!(store.messages(team, page(1, 8, 0, false)).expect("read").is_empty());
    let short = SeqRange { bytes_max: 25, ..page(1, 500, 500, false) };
    assert_eq!(seqs(&store.messages(team, short).expect("read")), vec![1, 2]);
    let tiny = SeqRange { bytes_max: 0, ..page(1, 500, 500, true) };
    assert_eq!(seqs(&store.messages(team, tiny).expect("read")), vec![500]);
    // The newest one of a cold channel: its head row and one read of the log.
    let store = {
        drop(store);
        open(dir.path())
    };
    let before = store.read_counts();
    store.messages(team, page(1, u64::MAX, 1, true)).expect("read");
    let after = store.read_counts();
    assert_eq!((after.view - before.view, after.log - before.log), (1, 1));
    let id = store.messages(team, page(77, 77, 1, false)).expect("read")[0].message_id;
    assert_eq!(seqs(&store.message_by_id(id).expect("read").into_iter().collect::<Vec<_>>()), vec![77]);
    assert_eq!(store.message_by_id(Version::new(5)).expect("read"), None);
}

#[test]
fn a_user_of_many_conversations_is_a_few_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let count = 20_000u64;
    let mut since = Version::ZERO;
    for start in (0..count).step_by(1_000) {
        let records = (start..start + 1_000)
            .map(|n| Record::ChannelCreated {
                channel: store.reserve_channel_no(),
                key: ChannelKey::person(&uid("hub"), &uid(&format!("peer-{n}"))),
            })
            .collect();
        since = *commit(&store, records).last().expect("versions");
    }
    commit(
        &store,
        (0..10).map(|n| Record::ReadPosition { channel: ChannelNo(n * 999), uid: uid("hub"), seq: 0 }).collect(),
    );
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.channel_count_of(&uid("hub")).expect("read"), count);
    assert_eq!(store.read_counts().view, 1);
    let mut channels = store.channels_of(&uid("hub")).expect("read");
    assert_eq!(store.read_counts().view, 2, "one scan");
    channels.sort();
    assert_eq!(channels, (0..count as u32).map(ChannelNo).collect::<Vec<_>>());
    let before = store.read_counts().view;
    assert_eq!(store.own_changes(&uid("hub"), since).expect("read").len(), 10);
    assert!(store.read_counts().view - before <= 2);
    assert_eq!(store.own_changes(&uid("hub"), Version::ZERO).expect("read").len(), count as usize);
    assert_eq!(store.recently_changed(Version::ZERO, 5), Some(vec![]));
    // Reading the same few channels for ever does not grow the log of own changes for ever.
    for round in 0..60 {
        let records = (0..1_000)
            .map(|n| Record::ReadPosition { channel: ChannelNo(n % 50), uid: uid("peer-7"), seq: round })
            .collect();
        commit(&store, records);
        if round % 7 == 0 {
            store.checkpoint().expect("checkpoint");
        }
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.own_changes(&uid("peer-7"), Version::ZERO).expect("read").len(), 50);
    drop(store);
    let db = rows_of(dir.path());
    let pages = db.scan_prefix([b"y\x06".as_slice(), b"peer-7"].concat()).count();
    assert!(pages < 60, "{pages}");
    drop(db);
    rows_are_small(dir.path());
}

#[test]
fn versions_inside_a_break_are_not_known_and_never_given() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let kept = store.version();
    let until = Version::new(clock::now_us() + 5_000_000);
    commit(&store, vec![Record::Break { kept, until }]);
    let check = |store: &DurableStore| {
        assert_eq!(store.version_standing(kept), VersionStanding::Known);
        assert_eq!(store.version_standing(kept.plus(1)), VersionStanding::Unknown);
        assert_eq!(store.version_standing(until), VersionStanding::Unknown);
    };
    check(&store);
    let given = commit(&store, vec![message(team, 1, "a", true)])[0];
    assert!(given > until);
    assert_eq!(store.version_standing(given), VersionStanding::Known);
    drop(store);
    let store = open(dir.path());
    check(&store);
    assert!(commit(&store, vec![message(team, 2, "a", true)])[0] > given);
}

#[test]
fn a_small_cache_changes_no_answer() {
    let dir = tempfile::tempdir().expect("dir");
    let small = StoreOptions { cache_bytes_max: 20_000, ..options(dir.path()) };
    let (store, _) = DurableStore::open(small).expect("open");
    let channels: Vec<ChannelNo> = (0..300).map(|n| group(&store, &format!("g{n}"))).collect();
    for round in 0..4 {
        for channel in &channels {
            let seq = round * 30;
            let records = (seq + 1..=seq + 30).map(|seq| message(*channel, seq, "a", true)).collect();
            commit(&store, records);
        }
        store.checkpoint().expect("checkpoint");
        for channel in &channels {
            let info = store.channel(*channel).expect("read").expect("exists");
            assert_eq!(info.head_seq, (round + 1) * 30);
            assert_eq!(store.countable_after(*channel, &uid("b"), 10).expect("read").0, (round + 1) * 30 - 10);
        }
    }
}

#[test]
fn checkpoints_happen_by_themselves() {
    let dir = tempfile::tempdir().expect("dir");
    let eager = StoreOptions { checkpoint_log_bytes_max: 100_000, ..options(dir.path()) };
    let (store, _) = DurableStore::open(eager).expect("open");
    let team = group(&store, "team");
    send(&store, team, 1, 5_000, &|_| "a".into());
    let start = Instant::now();
    while store.stats().checkpoints == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "no checkpoint");
        std::thread::yield_now();
    }
    store.abandon();
    let (store, report) = open_reporting(dir.path());
    assert!(report.records_replayed < 5_000, "{report:?}");
    assert_eq!(store.channel(team).expect("read").expect("exists").head_seq, 5_000);
}
