//! What becomes of messages, members, users and files after they were stored: bounds, costs, damage, and every kind of end.

use std::fmt::Write as _;

use super::*;
use crate::domain::channel::{PROFILE_DESCRIPTION_BYTES_MAX, PROFILE_ICON_BYTES_MAX, PROFILE_NAME_BYTES_MAX, Role};
use crate::domain::conversation::ConversationFlags;
use crate::domain::event::Lane;
use crate::domain::file::FileRecord;
use crate::domain::message::{Extras, Reacted, Reaction};
use crate::domain::user::Strangers;

fn file_id(n: u32) -> FileId {
    FileId::new(&format!("{n:08x}-0000-4000-8000-000000000000")).expect("id")
}

fn file(n: u32) -> Record {
    Record::File(Box::new(FileRecord {
        file_id: file_id(n),
        uploader: Some(uid("alice")),
        name: format!("{n}.png"),
        mime: "image/png".into(),
        size: u64::from(n),
        content: [n as u8; 32],
    }))
}

fn refers(mentions: &[&str], mention_all: bool, files: &[u32]) -> Option<Box<Extras>> {
    let mentions = mentions.iter().map(|text| uid(text)).collect();
    Extras { reply_to: None, mentions, mention_all, files: files.iter().map(|n| file_id(*n)).collect() }.boxed()
}

fn message_with(channel: ChannelNo, seq: u64, from: &str, extras: Option<Box<Extras>>) -> Record {
    let Record::Message(message) = message(channel, seq, from, true) else { unreachable!() };
    Record::Message(MessageRecord { extras, ..message })
}

fn edited(channel: ChannelNo, seq: u64, text: &str, extras: Option<Box<Extras>>) -> Record {
    Record::MessageEdited { channel, seq, by: None, payload: Bytes::from(text.to_owned()), extras }
}

fn revoked(channel: ChannelNo, seq: u64) -> Record {
    Record::MessageRevoked { channel, seq, by: None }
}

fn reacted(channel: ChannelNo, seq: u64, who: &str, reaction: Option<Reaction>) -> Record {
    Record::MessageReacted { channel, seq, uid: uid(who), reaction }
}

fn happened(channel: ChannelNo, seq: u64, number: u8, lane_seq: u64, snapshot: &str) -> Record {
    let lane = Lane {
        number,
        key: format!("k{number}"),
        seq: lane_seq,
        event_id: format!("e{lane_seq}"),
        event_type: "stream.snapshot".into(),
        snapshot: Bytes::from(snapshot.to_owned()),
        ..Lane::default()
    };
    Record::MessageEvent { channel, seq, lane: Box::new(lane) }
}

fn expired(channel: ChannelNo, seqs: &[u64]) -> Record {
    Record::MessagesExpired { channel, seqs: seqs.to_vec() }
}

/// Every kind of record that alters, in two channels with messages (150 and 40).
pub(super) fn history(store: &DurableStore, ab: ChannelNo, team: ChannelNo) {
    let profile = ChannelProfile { name: "Team".into(), creator: Some(uid("bob")), ..ChannelProfile::default() };
    commit(
        store,
        vec![
            message_with(ab, 151, "alice", refers(&["bob", "alice"], false, &[1, 2])),
            message_with(ab, 152, "bob", refers(&[], true, &[2])),
            message_with(team, 41, "bob", refers(&["alice", "bob"], true, &[])),
            message_with(team, 42, "bob", refers(&["alice", "erin"], false, &[3])),
            file(1),
            file(2),
            file(3),
            file(4),
            Record::FileRemoved { file_id: file_id(3) },
            revoked(ab, 7),
            revoked(ab, 5),
            expired(ab, &[7, 8]),
            edited(ab, 9, "payload edited", refers(&["alice"], false, &[4])),
            edited(ab, 9, "payload edited again", None),
            edited(ab, 151, "nobody", None),
            reacted(ab, 150, "alice", Some(Reaction::Like)),
            reacted(ab, 150, "bob", Some(Reaction::Dislike)),
            reacted(ab, 150, "alice", Some(Reaction::Dislike)),
            reacted(team, 3, "alice", Some(Reaction::Like)),
            reacted(team, 3, "alice", None),
            revoked(team, 42),
            happened(team, 4, 1, 1, "first"),
            happened(team, 4, 0, 2, "second"),
            happened(team, 4, 1, 3, "third"),
            happened(team, 42, 0, 1, "of a message that is over"),
            Record::MemberRole { channel: team, uid: uid("alice"), role: Role::Owner },
            Record::MemberRole { channel: team, uid: uid("carol"), role: Role::Admin },
            Record::ChannelProfile { channel: team, profile: Box::new(profile) },
            Record::ConversationFlags {
                channel: team,
                uid: uid("bob"),
                flags: ConversationFlags { pinned: true, accepted: true, ..ConversationFlags::default() },
            },
            Record::UserSettings { uid: uid("bob"), settings: UserSettings { strangers: Strangers::Block } },
            Record::Relation {
                uid: uid("bob"),
                peer: uid("erin"),
                relation: Relation { contact: true, blocked: true },
            },
        ],
    );
}

/// What the read verbs say about it, as text.
pub(super) fn answers(store: &DurableStore) -> String {
    let mut text = String::new();
    for no in [ChannelNo(0), ChannelNo(1), ChannelNo(2)] {
        writeln!(text, "{:?}", store.memberships(no).expect("read")).expect("text");
        writeln!(text, "{:?}", store.profile(no).expect("read")).expect("text");
        for max in [3, 1_000] {
            let changes = store.message_changes(no, Version::ZERO, max).expect("read");
            writeln!(text, "{changes:?}").expect("text");
        }
        for who in ["alice", "bob", "carol", "dave", "erin"].map(uid) {
            let mentions: Vec<u64> =
                [0, 41, 42, 150, 151, 152].map(|floor| store.mentions_after(no, &who, floor).expect("read")).to_vec();
            writeln!(text, "{mentions:?}").expect("text");
        }
    }
    for who in ["alice", "bob", "erin"].map(uid) {
        writeln!(text, "{:?}", store.user_settings(&who).expect("read")).expect("text");
        writeln!(text, "{:?}", store.relations(&who).expect("read")).expect("text");
    }
    for n in 1..5 {
        writeln!(text, "{:?}", store.file(&file_id(n)).expect("read")).expect("text");
        writeln!(text, "{:?}", store.file_references(&file_id(n), 9).expect("read")).expect("text");
    }
    let unused = store.unused_files(Version::new(u64::MAX >> 11), 9).expect("read");
    writeln!(text, "{unused:?} {:?}", store.has_content(&[3; 32]).expect("read")).expect("text");
    text
}

fn one(store: &DurableStore, channel: ChannelNo, seq: u64) -> Message {
    store.messages(channel, page(seq, seq, 1, false)).expect("read").remove(0)
}

#[test]
fn what_became_of_messages_is_what_readers_get() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    super::history(&store);
    let ab = store.channel_no(&ChannelKey::person(&uid("alice"), &uid("bob"))).expect("read").expect("exists");
    let check = |store: &DurableStore| {
        let states: Vec<MessageState> = [5, 7, 8, 9].map(|seq| one(store, ab, seq).state).to_vec();
        let (over, taken) = (MessageState::Expired, MessageState::Revoked);
        assert_eq!(states, [over, taken, over, MessageState::Live], "expired before stays expired");
        assert!(one(store, ab, 7).payload.is_empty());
        let ninth = one(store, ab, 9);
        assert_eq!((&ninth.payload[..], ninth.extras.is_none()), (b"payload edited again".as_slice(), true));
        assert!(ninth.edited > ninth.message_id);
        let expected = [("bob", Reaction::Dislike), ("alice", Reaction::Dislike)];
        let expected = expected.map(|(who, reaction)| Reacted { uid: uid(who), reaction });
        assert_eq!(one(store, ab, 150).reactions, expected, "a new word goes behind the others");
        let references = |n| store.file_references(&file_id(n), 9).expect("read");
        assert_eq!((references(1), references(2)), (vec![(ab, 151)], vec![(ab, 151), (ab, 152)]));
        assert_eq!(references(4), vec![(ab, 9)], "an edit that another edit replaced");
        assert!(store.file(&file_id(3)).expect("read").is_none());
        let mentions = |who| store.mentions_after(ab, &uid(who), 0).expect("read");
        assert_eq!((mentions("alice"), mentions("bob"), mentions("carol")), (1, 0, 1));
        // The latest of each message once: 9 was edited twice, 5 and 7 changed twice.
        let changes = store.message_changes(ab, Version::ZERO, 100).expect("read");
        let seqs: Vec<u64> = changes.changes.iter().map(|(seq, _)| *seq).collect();
        assert_eq!((seqs, changes.more), (vec![150, 151, 9, 7, 8, 5, 140], false));
        let since = changes.changes[2].1;
        let after = store.message_changes(ab, since, 100).expect("read");
        assert_eq!(after.changes, changes.changes[..2]);
    };
    check(&store);
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn half_a_checkpoint_of_altered_messages_is_replayed() {
    for batches in 0.. {
        let dir = tempfile::tempdir().expect("dir");
        let mut store = open(dir.path());
        super::history(&store);
        let team = ChannelNo(1);
        let all = |seq: u64| refers(&["alice", "dave"], seq.is_multiple_of(3), &[(seq % 5) as u32]);
        commit(&store, (43..=400).map(|seq| message_with(team, seq, "bob", all(seq))).collect());
        store.checkpoint().expect("checkpoint");
        // Full pages are written before the head: their bits are ahead of it when the rest fails.
        let mut records = Vec::new();
        for seq in (43..=400u64).step_by(2) {
            records.push(match seq % 14 {
                1 | 3 => revoked(team, seq),
                5 => edited(team, seq, "without", None),
                7 => edited(team, seq, "with", refers(&["erin"], false, &[9])),
                9 => expired(team, &[seq, seq + 1]),
                11 => happened(team, seq, (seq % 3) as u8, seq, "lane"),
                _ => reacted(team, seq, "dave", Some(Reaction::Like)),
            });
            if seq % 10 == 3 {
                records.push(edited(team, seq, "and later", refers(&["dave"], true, &[])));
                records.push(revoked(team, seq));
                records.push(expired(team, &[seq]));
            }
        }
        records.extend((401..=500).map(|seq| message_with(team, seq, "carol", all(seq))));
        records.extend((0..300).map(|n| reacted(team, 400, &format!("reader-{n}"), Some(Reaction::Like))));
        records.extend((10..400).map(file));
        commit(&store, records);
        let before = super::answers(&store);
        store.stop();
        store.inner.view().fail_after_batches(batches);
        let failed = store.checkpoint().is_err();
        assert_eq!(super::answers(&store), before, "memory after {batches} batches");
        store.abandon();
        let (store, report) = open_reporting(dir.path());
        assert_eq!(report.view_rebuilt, None);
        assert_eq!(super::answers(&store), before, "replayed after {batches} batches");
        drop(store);
        assert_eq!(super::answers(&open(dir.path())), before, "from rows, after {batches} batches");
        if !failed {
            assert!(batches >= 4, "files, index pages, owners, mark: {batches}");
            break;
        }
    }
}

#[test]
fn channels_written_before_users_and_files_replay_to_the_same_answers() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    super::history(&store);
    let before = super::answers(&store);
    store.inner.view().checkpoint_channels_only().expect("checkpoint");
    store.abandon();
    let store = open(dir.path());
    assert_eq!(super::answers(&store), before);
    // A removal is not undone by the upload that a replay tells again.
    commit(&store, vec![Record::FileRemoved { file_id: file_id(1) }, file(5)]);
    let before = answers(&store);
    store.checkpoint().expect("checkpoint");
    store.abandon();
    assert_eq!(answers(&open(dir.path())), before);
}

#[test]
fn a_message_with_ten_thousand_reactions_stays_in_small_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    send(&store, team, 1, 3, &|_| "a".into());
    let who = |n: u32| format!("reader-{n:05}-{}", "x".repeat(n as usize % 60));
    for start in (0..10_000).step_by(1_000) {
        let like = |n| reacted(team, 2, &who(n), Some(Reaction::Like));
        commit(&store, (start..start + 1_000).map(like).collect());
        store.checkpoint().expect("checkpoint");
    }
    // One changes the word, one takes it away, one says the same again.
    commit(
        &store,
        vec![
            reacted(team, 2, &who(17), Some(Reaction::Dislike)),
            reacted(team, 2, &who(18), None),
            reacted(team, 2, &who(19), Some(Reaction::Like)),
        ],
    );
    let mut expected: Vec<Reacted> = (0..10_000)
        .filter(|n| *n != 17 && *n != 18)
        .map(|n| Reacted { uid: uid(&who(n)), reaction: Reaction::Like })
        .collect();
    expected.push(Reacted { uid: uid(&who(17)), reaction: Reaction::Dislike });
    let check = |store: &DurableStore| {
        assert!(one(store, team, 2).reactions == expected);
        let changes = store.message_changes(team, Version::ZERO, 10).expect("read");
        assert_eq!(changes.changes.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    // Neighbours cost what they did before: the head row and one read of the log.
    drop(store);
    let store = open(dir.path());
    one(&store, team, 1);
    assert_eq!((store.read_counts().view, store.read_counts().log), (1, 1));
    one(&store, team, 2);
    assert!(store.read_counts().view < 1_000, "{}", store.read_counts().view);
    // One more reaction rewrites one bucket, not all of them.
    commit(&store, vec![reacted(team, 2, "one more", Some(Reaction::Like))]);
    drop(store);
    // A revoked message costs nothing for what it lost.
    let store = open(dir.path());
    commit(&store, vec![revoked(team, 2)]);
    let before = store.read_counts().view;
    assert!(one(&store, team, 2).reactions.is_empty());
    assert!(store.read_counts().view - before <= 2);
    drop(store);
    rows_are_small(dir.path());
}

#[test]
fn five_thousand_changes_cost_what_is_asked() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let quiet = group(&store, "quiet");
    send(&store, team, 1, 6_000, &|_| "a".into());
    send(&store, quiet, 1, 200, &|_| "a".into());
    let mut versions = Vec::new();
    for start in (1..=5_000u64).step_by(500) {
        let text = |seq: u64| edited(team, seq, &format!("edited {seq}"), None);
        versions.extend(commit(&store, (start..start + 500).map(text).collect()));
    }
    drop(store);
    let store = open(dir.path());
    let view = || store.read_counts().view;
    store.channel(team).expect("read");
    let before = view();
    let newest = store.message_changes(team, versions[4_989], 100).expect("read");
    assert_eq!(
        newest.changes.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        (4_991..=5_000).rev().collect::<Vec<_>>()
    );
    assert!(!newest.more && view() - before <= 2, "{} rows", view() - before);
    let before = view();
    let limited = store.message_changes(team, Version::ZERO, 300).expect("read");
    assert!(limited.more && limited.changes.len() == 300);
    assert!(view() - before <= 4, "{} rows", view() - before);
    let before = view();
    let all = store.message_changes(team, Version::ZERO, 10_000).expect("read");
    assert!(!all.more && all.changes.len() == 5_000);
    assert!(view() - before <= 30, "{} rows", view() - before);
    assert_eq!(&one(&store, team, 2_345).payload[..], b"edited 2345");
    assert_eq!(&one(&store, team, 5_001).payload[..], b"payload 5001");
    // Nothing ever changed: the head row and, for an older page, that page; nothing for the question itself.
    let before = store.read_counts();
    assert_eq!(seqs(&store.messages(quiet, page(1, 10, 10, false)).expect("read")).len(), 10);
    let after = store.read_counts();
    assert_eq!((after.view - before.view, after.log - before.log), (2, 1));
    assert_eq!(store.message_changes(quiet, Version::ZERO, 10).expect("read").changes, vec![]);
    assert_eq!(store.read_counts(), after);
    // The same few messages changing for ever do not grow the log of changes for ever.
    for round in 0..40 {
        let like = |n: u64| reacted(quiet, n % 20 + 1, &format!("r{round}"), Some(Reaction::Like));
        commit(&store, (0..500).map(like).collect());
        store.checkpoint().expect("checkpoint");
    }
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.message_changes(quiet, Version::ZERO, 100).expect("read").changes.len(), 20);
    drop(store);
    let db = rows_of(dir.path());
    let pages = db.scan_prefix([b'n', 0, 0, 0, quiet.0 as u8]).count();
    assert!(pages <= 8, "{pages}");
    drop(db);
    rows_are_small(dir.path());
}

#[test]
fn a_profile_of_maximum_size_and_a_name_of_maximum_size_fit() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, &"n".repeat(255));
    let full = ChannelProfile {
        name: "n".repeat(PROFILE_NAME_BYTES_MAX),
        icon: "i".repeat(PROFILE_ICON_BYTES_MAX),
        description: "d".repeat(PROFILE_DESCRIPTION_BYTES_MAX),
        // Edges bound it; the store takes any.
        project: "p".repeat(9_000),
        creator: Some(uid(&"u".repeat(120))),
    };
    let set = |profile: &ChannelProfile| {
        commit(&store, vec![Record::ChannelProfile { channel: team, profile: Box::new(profile.clone()) }]);
    };
    set(&full);
    // A head as full as it gets: a whole page, people, dead and mentioning seqs.
    let all = |seq: u64| refers(&[], seq.is_multiple_of(2), &[]);
    commit(&store, (1..=64).map(|seq| message_with(team, seq, &format!("user-{}", seq % 9), all(seq))).collect());
    commit(&store, (33..=64).map(|seq| revoked(team, seq)).collect());
    store.checkpoint().expect("checkpoint");
    assert_eq!(store.profile(team).expect("read").as_ref(), Some(&full));
    drop(store);
    rows_are_small(dir.path());
    let store = open(dir.path());
    assert_eq!(store.profile(team).expect("read").as_ref(), Some(&full));
    let short = ChannelProfile { name: "short".into(), ..ChannelProfile::default() };
    commit(&store, vec![Record::ChannelProfile { channel: team, profile: Box::new(short.clone()) }]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.profile(team).expect("read"), Some(short));
    assert_eq!(store.read_counts().view, 2);
    drop(store);
    let db = rows_of(dir.path());
    assert_eq!(db.scan_prefix(b"o").count(), 1, "parts of the longer one are gone");
}

#[test]
fn three_thousand_relations_are_a_row_each_to_ask() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let peer = |n: usize| uid(&format!("peer-{n:05}-{}", "x".repeat(n % 90)));
    let relate = |n: usize, contact, blocked| Record::Relation {
        uid: uid("hub"),
        peer: peer(n),
        relation: Relation { contact, blocked },
    };
    commit(&store, (0..3_000).map(|n| relate(n, n % 3 != 0, n % 3 == 0)).collect());
    drop(store);
    let store = open(dir.path());
    commit(&store, (0..500).map(|n| relate(n, false, false)).collect());
    let check = |store: &DurableStore| {
        let all = store.relations(&uid("hub")).expect("read");
        assert_eq!(all.len(), 2_500);
        assert!(all.is_sorted_by(|(a, _), (b, _)| a < b));
        for n in (0..3_000).step_by(41) {
            let before = store.read_counts().view;
            let relation = store.relation(&uid("hub"), &peer(n)).expect("read");
            assert_eq!((relation.contact, relation.blocked), (n >= 500 && n % 3 != 0, n >= 500 && n % 3 == 0));
            assert!(store.read_counts().view - before <= 2);
        }
    };
    check(&store);
    drop(store);
    check(&open(dir.path()));
    rows_are_small(dir.path());
}

#[test]
fn a_file_that_many_messages_carry_is_a_few_rows_to_ask() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    commit(&store, vec![file(1), file(2)]);
    let versions = commit(&store, vec![file(3)]);
    for start in (1..=300u64).step_by(100) {
        let carry = |seq: u64| message_with(team, seq, "a", refers(&[], false, &[1]));
        commit(&store, (start..start + 100).map(carry).collect());
        store.checkpoint().expect("checkpoint");
    }
    let check = |store: &DurableStore| {
        let references = |max| store.file_references(&file_id(1), max).expect("read");
        assert_eq!(references(1_000), (1..=300).map(|seq| (team, seq)).collect::<Vec<_>>());
        assert_eq!(references(70), (1..=70).map(|seq| (team, seq)).collect::<Vec<_>>());
        let unused: Vec<FileId> =
            store.unused_files(versions[0], 9).expect("read").into_iter().map(|info| info.record.file_id).collect();
        assert_eq!(unused, [file_id(2)]);
        let before = store.read_counts().view;
        assert!(store.file(&file_id(2)).expect("read").is_some());
        assert!(store.read_counts().view - before <= 1);
        assert!(store.has_content(&[2; 32]).expect("read") && !store.has_content(&[9; 32]).expect("read"));
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    check(&store);
    commit(&store, vec![Record::FileRemoved { file_id: file_id(2) }]);
    assert!(!store.has_content(&[2; 32]).expect("read"));
    drop(store);
    let db = rows_of(dir.path());
    assert_eq!(db.scan_prefix(b"d").count(), 2, "a removed file that nobody carries has no row");
    assert_eq!(db.scan_prefix(b"w").count(), 300 - 64);
    drop(db);
    rows_are_small(dir.path());
}

#[test]
fn a_view_of_the_former_row_format_is_set_aside_and_made_anew() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    super::history(&store);
    let before = super::answers(&store);
    drop(store);
    let db = rows_of(dir.path());
    let rows: Vec<_> = db.iter().map(|row| row.expect("row")).collect();
    for (key, value) in rows {
        let former = [&[2], &value[1..]].concat();
        db.insert(key, former).expect("insert");
    }
    db.flush().expect("flush");
    drop(db);
    let (store, report) = open_reporting(dir.path());
    let why = report.view_rebuilt.expect("rebuilt");
    assert!(why.contains("format 2") && why.contains("format 4"), "{why}");
    assert_eq!(report.view_set_aside, Some(dir.path().join("view.bad-1")));
    assert!(report.records_replayed > 200);
    assert_eq!(super::answers(&store), before);
    drop(store);
    let (store, report) = open_reporting(dir.path());
    assert_eq!((report.view_rebuilt, report.records_replayed), (None, 0));
    assert_eq!(super::answers(&store), before);
}

#[test]
fn a_message_whose_last_edit_is_damaged_is_a_hole() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    send(&store, team, 1, 3, &|_| "a".into());
    commit(&store, vec![edited(team, 2, "the words of the edit", refers(&["b"], false, &[]))]);
    assert_eq!(store.mentions_after(team, &uid("b"), 0).expect("read"), 1);
    let path = dir.path().join("log/0000000001.log");
    let mut bytes = std::fs::read(&path).expect("read");
    let at = bytes.windows(21).position(|words| words == b"the words of the edit").expect("there");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let states: Vec<MessageState> =
        store.messages(team, page(1, 3, 3, false)).expect("read").into_iter().map(|m| m.state).collect();
    assert_eq!(states, [MessageState::Live, MessageState::Damaged, MessageState::Live]);
    // It can still be edited again, or taken back.
    commit(&store, vec![edited(team, 2, "better words", None)]);
    assert_eq!(&one(&store, team, 2).payload[..], b"better words");
    commit(&store, vec![revoked(team, 2)]);
    assert_eq!(one(&store, team, 2).state, MessageState::Revoked);
    assert_eq!(store.countable_after(team, &uid("b"), 0).expect("read").0, 2);
    store.abandon();
}

#[test]
fn a_message_with_all_its_lanes_stays_in_small_rows_and_a_damaged_lane_is_a_hole() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    send(&store, team, 1, 3, &|_| "a".into());
    let text = |number: u8, seq: u64| format!("text {number}.{seq} {}", "x".repeat(4_000));
    // From the last to the first, each many times over.
    let mut records = Vec::new();
    for seq in 1..=20 {
        records.extend((0..32).rev().map(|number| happened(team, 2, number, seq, &text(number, seq))));
    }
    let records_of_lanes = records.len();
    commit(&store, records);
    commit(&store, vec![reacted(team, 2, "bob", Some(Reaction::Like)), edited(team, 2, "base", None)]);
    let check = |store: &DurableStore| {
        let found = one(store, team, 2);
        let lanes: Vec<_> = found.lanes.iter().map(|lane| (lane.number, lane.seq, lane.snapshot.clone())).collect();
        let expected: Vec<_> = (0..32).map(|number| (number, 20, Bytes::from(text(number, 20)))).collect();
        assert!(lanes == expected, "{records_of_lanes} records");
        assert_eq!((&found.payload[..], found.reactions.len()), (b"base".as_slice(), 1));
        let whole = SeqRange { first: 1, last: 3, limit: 3, bytes_max: 32 * 4_000, newest_first: false };
        assert_eq!(store.messages(team, whole).expect("read").len(), 1, "lanes weigh as payloads do");
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    check(&store);
    drop(store);
    let store = open(dir.path());
    let before = store.read_counts().log;
    check(&store);
    assert!(store.read_counts().log - before < 120, "a read per lane, and per message");
    // As it was sent: no lanes.
    let name = one(&store, team, 2).client_msg_no;
    let sent =
        store.message_by_client_msg_no(team, &one(&store, team, 2).from_uid, &name).expect("read").expect("there");
    assert!(sent.lanes.is_empty() && &sent.payload[..] != b"base");
    drop(store);
    rows_are_small(dir.path());
    let path = dir.path().join("log/0000000001.log");
    let mut bytes = std::fs::read(&path).expect("read");
    let at = bytes.windows(12).position(|words| words == b"text 7.20 xx").expect("there");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let store = open(dir.path());
    assert_eq!(one(&store, team, 2).state, MessageState::Damaged);
    commit(&store, vec![happened(team, 2, 7, 21, "told again")]);
    let found = one(&store, team, 2);
    assert_eq!((found.state, &found.lanes[7].snapshot[..]), (MessageState::Live, b"told again".as_slice()));
    commit(&store, vec![revoked(team, 2)]);
    assert!(one(&store, team, 2).lanes.is_empty());
    store.abandon();
}

#[test]
fn hundreds_of_mentions_are_counted_in_a_few_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(dir.path());
    let team = group(&store, "team");
    let last = 5_000u64;
    for start in (1..=last).step_by(500) {
        let named = |seq: u64| refers(&["bob", "carol"], seq.is_multiple_of(4), &[]);
        let from = |seq: u64| if seq.is_multiple_of(3) { "bob" } else { "alice" };
        commit(&store, (start..start + 500).map(|seq| message_with(team, seq, from(seq), named(seq))).collect());
    }
    commit(&store, (1..=last).step_by(7).map(|seq| revoked(team, seq)).collect());
    commit(&store, (2..=last).step_by(7).map(|seq| edited(team, seq, "nobody", None)).collect());
    let count = |who: &str, floor: u64| {
        let live = |seq: &u64| seq % 7 != 1 && seq % 7 != 2;
        let mentioned = |seq: &u64| match (who, seq.is_multiple_of(3)) {
            ("bob", own) => !own,
            ("alice", own) => own && seq.is_multiple_of(4),
            _ => true,
        };
        (floor + 1..=last).filter(live).filter(mentioned).count() as u64
    };
    let check = |store: &DurableStore| {
        for who in ["alice", "bob", "carol"] {
            for floor in [0, 1, 2_500, 4_990, 5_000, 9_000] {
                let before = store.read_counts().view;
                assert_eq!(store.mentions_after(team, &uid(who), floor).expect("read"), count(who, floor), "{who}");
                assert!(store.read_counts().view - before <= 8, "floor {floor}");
            }
        }
    };
    check(&store);
    store.abandon();
    let store = open(dir.path());
    check(&store);
    drop(store);
    check(&open(dir.path()));
    rows_are_small(dir.path());
}
