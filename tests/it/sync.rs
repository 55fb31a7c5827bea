//! Proves design.md sections 4 and 5 over the socket: full answers and increments, resume inside `connect`, pages, unknown
//! versions, deletions, read positions on two devices with the events that tell them, and the explanation of unread.

use protocol::native::{
    ClientFrame, DeleteConversation, Encoding, Event, ExplainUnread, Read, Resume, ServerFrame, SetUnread,
};

use crate::harness::{Client, Server, cursor};

async fn chatter(server: &Server, channels: u64, each: u64) {
    let mut a = server.connect("a").await;
    for n in 0..channels {
        let channel = format!("g{n}");
        server.group(&channel, &["a", "b"]).await;
        for m in 1..=each {
            a.say(&channel, 2, m.to_string().as_bytes()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_show_what_changed_and_nothing_else() {
    let server = Server::on_disk().await;
    chatter(&server, 5, 3).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let full = b.sync(|s| s.msg_count = 2).await.expect("synced");
    let ids: Vec<&str> = full.rows.iter().map(|row| &*row.channel_id).collect();
    assert_eq!(ids, ["g4", "g3", "g2", "g1", "g0"], "by their last message, newest first");
    for row in &full.rows {
        assert_eq!((row.unread, row.last_msg_seq, row.first_seq, row.complete), (3, 3, 2, false));
        assert_eq!(row.recents.iter().map(|m| m.message_seq).collect::<Vec<_>>(), [3, 2], "newest first");
    }
    let none = b.sync(|s| s.version = full.version).await.expect("synced");
    assert!(none.rows.is_empty() && !none.more && !none.reset);
    a.say("g2", 2, b"new").await;
    a.say("b", 1, b"first of a pair").await;
    let delta = b
        .sync(|s| {
            s.version = full.version;
            s.msg_count = 10;
            s.cursors = vec![cursor("g2", 2, 3), cursor("g1", 2, 1), cursor("nothing", 2, 7)];
        })
        .await
        .expect("synced");
    let rows: Vec<(&str, u64, usize)> =
        delta.rows.iter().map(|row| (&*row.channel_id, row.unread, row.recents.len())).collect();
    assert_eq!(rows, [("a", 1, 1), ("g2", 4, 1), ("g1", 3, 2)], "changed, and those above a cursor");
    // The text form says the same.
    let text = b
        .sync(|s| {
            s.version = delta.version;
            s.msg_count = 10;
            s.last_msg_seqs = Some("g1:2:1|a:1:0".into());
        })
        .await
        .expect("synced");
    let rows: Vec<(&str, usize)> = text.rows.iter().map(|row| (&*row.channel_id, row.recents.len())).collect();
    assert_eq!(rows, [("a", 1), ("g1", 2)]);
    let refused = b.sync(|s| s.last_msg_seqs = Some("garbage".into())).await.expect_err("refused");
    assert_eq!(refused.field.as_deref(), Some("last_msg_seqs"));
    let refused = b.sync(|s| s.msg_count = -1).await.expect_err("refused");
    assert_eq!(refused.field.as_deref(), Some("msg_count"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_resumes_in_one_round_trip_and_survives_a_restart() {
    let server = Server::on_disk().await;
    chatter(&server, 3, 1).await;
    let mut b = server.connect("b").await;
    let full = b.sync(|_| {}).await.expect("synced");
    drop(b);
    let server = server.restart().await;
    let mut a = server.connect("a").await;
    a.say("g1", 2, b"while away").await;
    let token = server.user("b").await;
    let resume = Resume { version: full.version, msg_count: 5, cursors: vec![cursor("g1", 2, 1)], ..Resume::default() };
    let mut b = Client::connect(&server, &token, Encoding::Json, |c| c.resume = Some(resume)).await;
    let synced = b.connected.clone().and_then(|c| c.synced).expect("resumed");
    assert_eq!(synced.rows.len(), 1);
    assert_eq!((&*synced.rows[0].channel_id, synced.rows[0].recents.len(), synced.rows[0].unread), ("g1", 1, 2));
    a.say("g1", 2, b"live").await;
    assert_eq!(b.delivered().await, [("g1".to_owned(), 3, b"live".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_together_are_the_whole_and_lose_nothing_that_moves() {
    let server = Server::on_disk().await;
    chatter(&server, 7, 2).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let mut seen: Vec<(String, u64)> = Vec::new();
    let first = b.sync(|s| s.rows_max = 3).await.expect("synced");
    assert!(first.more);
    seen.extend(first.rows.iter().map(|row| (row.channel_id.to_string(), row.unread)));
    // A row of a later page moves to the front.
    a.say("g0", 2, b"moves").await;
    assert_eq!(b.delivered().await.len(), 1);
    let mut after = first.page_after.clone();
    let last_version = loop {
        let page = b
            .sync(|s| {
                s.rows_max = 3;
                s.page_after = after.clone();
            })
            .await
            .expect("synced");
        seen.extend(page.rows.iter().map(|row| (row.channel_id.to_string(), row.unread)));
        if !page.more {
            break page.version;
        }
        after = page.page_after;
    };
    let unread_of = |id: &str| seen.iter().rev().find(|(seen, _)| seen == id).map(|(_, unread)| *unread);
    for n in 1..7 {
        assert_eq!(unread_of(&format!("g{n}")), Some(2), "g{n} in {seen:?}");
    }
    assert_eq!(unread_of("g0"), Some(3), "the row that moved is in a page with all its unread: {seen:?}");
    let refused = b.sync(|s| s.page_after = Some("nonsense".into())).await.expect_err("refused");
    assert_eq!(refused.field.as_deref(), Some("page_after"));
    // Nothing moved behind the version of the pages but what was delivered.
    let delta = b.sync(|s| s.version = last_version).await.expect("synced");
    assert!(delta.rows.iter().all(|row| row.channel_id == "g0"), "{delta:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_answered_with_everything_and_said() {
    let server = Server::on_disk().await;
    chatter(&server, 2, 1).await;
    let mut b = server.connect("b").await;
    let known = b.sync(|_| {}).await.expect("synced").version;
    for version in [known + 1_000_000_000, (1 << 53) - 1, u64::MAX] {
        let synced = b
            .sync(|s| {
                s.version = version;
                s.cursors = vec![cursor("g0", 2, 1)];
                s.msg_count = 1;
            })
            .await
            .expect("synced");
        assert!(synced.reset, "{version}");
        assert_eq!(synced.rows.len(), 2);
        assert!(synced.rows.iter().all(|row| row.recents.len() == 1), "cursors are ignored");
        assert!(synced.version < version);
    }
    let above = b.sync(|s| {
        s.version = known;
        s.cursors = vec![cursor("g0", 2, 99)];
    });
    let above = above.await.expect("synced");
    assert!(above.rows.len() == 1 && above.rows[0].reset, "a cursor above the head is told");
}

async fn conversation(client: &mut Client) -> (String, u64, u64, u64, bool) {
    client
        .event(|event| match event {
            Event::Conversation(c) => {
                Some((c.channel_id.to_string(), c.unread, c.read_to_msg_seq, c.last_msg_seq, c.is_deleted))
            }
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_agree_on_what_is_unread() {
    let server = Server::on_disk().await;
    let mut a = server.connect("a").await;
    let mut phone = server.connect("b").await;
    let mut laptop = server.connect("b").await;
    for n in 1..=5_u64 {
        a.say("b", 1, n.to_string().as_bytes()).await;
    }
    let start = laptop.sync(|_| {}).await.expect("synced");
    assert_eq!(start.rows[0].unread, 5);
    let channel = || "a".into();
    let client_seq = phone.seq();
    let read = Read { client_seq, channel_id: channel(), channel_type: 1, message_seq: 2 };
    let done = phone.ask_done(client_seq, ClientFrame::Read(read)).await.expect("done");
    assert_eq!((done.unread, done.read_to_msg_seq), (Some(3), Some(2)));
    for device in [&mut laptop, &mut phone] {
        assert_eq!(conversation(device).await, ("a".into(), 3, 2, 5, false));
    }
    // Up, down, more than there are, below zero.
    for (wanted, unread, read_to) in [(4, 4, 1), (1, 1, 4), (0, 0, 5), (99, 5, 0), (2, 2, 3)] {
        let client_seq = laptop.seq();
        let set = SetUnread { client_seq, channel_id: channel(), channel_type: 1, unread: wanted };
        let done = laptop.ask_done(client_seq, ClientFrame::SetUnread(set)).await.expect("done");
        assert_eq!((done.unread, done.read_to_msg_seq), (Some(unread), Some(read_to)), "set to {wanted}");
        assert_eq!(conversation(&mut phone).await, ("a".into(), unread, read_to, 5, false));
        let row = phone.sync(|s| s.version = start.version).await.expect("synced").rows[0].clone();
        assert_eq!((row.unread, row.read_to_msg_seq), (unread, read_to));
    }
    let client_seq = laptop.seq();
    let set = SetUnread { client_seq, channel_id: channel(), channel_type: 1, unread: -1 };
    let refused = laptop.ask_done(client_seq, ClientFrame::SetUnread(set)).await.expect_err("refused");
    assert_eq!((&*refused.code, refused.field.as_deref()), ("invalid", Some("unread")));
    // One's own message reads everything; marking as unread works below it too.
    phone.say("a", 1, b"answer").await;
    assert_eq!(laptop.sync(|_| {}).await.expect("synced").rows[0].unread, 0);
    let client_seq = laptop.seq();
    let set = SetUnread { client_seq, channel_id: channel(), channel_type: 1, unread: 2 };
    let done = laptop.ask_done(client_seq, ClientFrame::SetUnread(set)).await.expect("done");
    assert_eq!((done.unread, done.read_to_msg_seq), (Some(2), Some(3)));
    // And explains itself.
    let client_seq = laptop.seq();
    let explain = ExplainUnread { client_seq, channel_id: channel(), channel_type: 1, limit: 0 };
    laptop.send(&ClientFrame::ExplainUnread(explain)).await;
    let explained = laptop
        .expect(|frame| match frame {
            ServerFrame::Explained(explained) if explained.client_seq == client_seq => Some(explained.clone()),
            _ => None,
        })
        .await;
    assert_eq!((explained.unread, explained.head_seq, explained.read_to_msg_seq), (2, 6, 3));
    assert_eq!(explained.counted, [5, 4]);
    let why: Vec<(u64, &str)> = explained.not_counted.iter().map(|n| (n.message_seq, &*n.reason)).collect();
    assert_eq!(why, [(6, "own"), (3, "read"), (2, "read"), (1, "read")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_reaches_other_devices_and_a_later_message_revives() {
    let server = Server::on_disk().await;
    let mut a = server.connect("a").await;
    let mut phone = server.connect("b").await;
    let mut laptop = server.connect("b").await;
    a.say("b", 1, b"1").await;
    a.say("b", 1, b"2").await;
    let start = laptop.sync(|_| {}).await.expect("synced");
    let client_seq = phone.seq();
    let delete = DeleteConversation { client_seq, channel_id: "a".into(), channel_type: 1 };
    phone.ask_done(client_seq, ClientFrame::DeleteConversation(delete)).await.expect("done");
    assert_eq!(conversation(&mut laptop).await, ("a".into(), 0, 2, 2, true));
    let delta = laptop.sync(|s| s.version = start.version).await.expect("synced");
    let [row] = &delta.rows[..] else { panic!("{delta:?}") };
    assert!(row.is_deleted && row.unread == 0 && row.recents.is_empty());
    assert!(laptop.sync(|_| {}).await.expect("synced").rows.is_empty(), "never in a full answer");
    a.say("b", 1, b"3").await;
    let revived = laptop
        .sync(|s| {
            s.version = delta.version;
            s.msg_count = 10;
        })
        .await
        .expect("synced");
    let [row] = &revived.rows[..] else { panic!("{revived:?}") };
    assert_eq!((row.unread, row.last_msg_seq, row.is_deleted), (1, 3, false));
    assert_eq!(row.recents.iter().map(|m| m.message_seq).collect::<Vec<_>>(), [3]);
    let server = server.restart().await;
    let mut phone = server.connect("b").await;
    let full = phone.sync(|s| s.msg_count = 10).await.expect("synced");
    assert_eq!((full.rows.len(), full.rows[0].unread, full.rows[0].recents.len()), (1, 1, 1));
    // The others' view is theirs.
    let mut a = server.connect("a").await;
    assert_eq!(a.sync(|s| s.msg_count = 10).await.expect("synced").rows[0].recents.len(), 3);
}
