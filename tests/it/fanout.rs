//! Proves delivered-or-told for those who read: every session of every member but the sending one gets each message, also on
//! the sender's other devices; membership counts from its change on, whatever else is in flight; both ends of a pair, and
//! a pair of one, see a person channel from their own side.

use protocol::native::{ClientFrame, Encoding, ServerFrame};

use crate::harness::{Client, Server, group, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_device_hears_it_and_the_sending_session_does_not() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "b"]).await;
    let (token_a, token_b) = (server.user("a").await, server.user("b").await);
    let mut phone = Client::connect(&server, &token_a, Encoding::MessagePack, |c| c.device_id = "phone".into()).await;
    let mut laptop = Client::connect(&server, &token_a, Encoding::Json, |c| c.device_id = "laptop".into()).await;
    let mut b1 = Client::connect(&server, &token_b, Encoding::Json, |_| {}).await;
    let mut b2 = Client::connect(&server, &token_b, Encoding::MessagePack, |_| {}).await;
    for (channel_id, channel_type, seen_by_b) in [("g", 2, "g"), ("b", 1, "a")] {
        let ack = phone.say(channel_id, channel_type, b"hello").await;
        assert_eq!(laptop.delivered().await, [(channel_id.to_owned(), ack.message_seq, b"hello".to_vec())]);
        for b in [&mut b1, &mut b2] {
            assert_eq!(b.delivered().await, [(seen_by_b.to_owned(), ack.message_seq, b"hello".to_vec())]);
        }
    }
    // What follows its own messages proves that none of them came.
    b1.say("g", 2, b"from b").await;
    assert_eq!(phone.delivered().await, [("g".to_owned(), 2, b"from b".to_vec())]);
    // A back end's message in a user's name has no session of its own.
    let draft = chinwag::domain::message::Draft {
        extras: None,
        channel: group("g"),
        from_uid: server.uid("a"),
        client_msg_no: None,
        flags: chinwag::domain::message::MessageFlags { no_persist: false, red_dot: true, sync_once: false },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        durability: chinwag::domain::message::Durability::Disk,
        payload: b"by the back end".as_slice().into(),
    };
    server.app.hub().send(draft, chinwag::domain::channel::Standing::Trusted).await.expect("sent");
    assert_eq!(phone.delivered().await, [("g".to_owned(), 3, b"by the back end".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_to_oneself_reaches_the_other_devices_once_and_is_never_unread() {
    let server = Server::on_disk().await;
    let mut phone = server.connect("a").await;
    let mut laptop = server.connect("a").await;
    phone.say("a", 1, b"milk").await;
    assert_eq!(laptop.delivered().await, [("a".to_owned(), 1, b"milk".to_vec())]);
    laptop.say("a", 1, b"bread").await;
    assert_eq!(phone.delivered().await, [("a".to_owned(), 2, b"bread".to_vec())]);
    assert!(!laptop.pending().await.iter().any(|f| matches!(f, ServerFrame::Deliver(_))), "once");
    let synced = phone.sync(|s| s.msg_count = 5).await.expect("synced");
    assert_eq!((synced.rows.len(), synced.rows[0].unread, synced.rows[0].recents.len()), (1, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_counts_from_its_change_on() {
    let server = Server::on_disk().await;
    server.group("g", &["a"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let hub = server.app.hub().clone();
    a.say("g", 2, b"1").await;
    hub.add_members(group("g"), vec![server.uid("b")], false).await.expect("added");
    a.say("g", 2, b"2").await;
    hub.remove_members(group("g"), vec![server.uid("b")]).await.expect("removed");
    a.say("g", 2, b"3").await;
    let send = b.message("g", 2, b"no");
    assert_eq!(b.ask_send(send).await.expect_err("refused").code, "not_member");
    assert_eq!(b.history("g", 2, 1, 0).await.expect_err("refused").code, "not_member");
    hub.add_members(group("g"), vec![server.uid("b")], false).await.expect("added");
    a.say("g", 2, b"4").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(b.delivered().await.into_iter().map(|(_, seq, _)| seq));
    }
    assert_eq!(seen, [2, 4]);
    b.say("g", 2, b"5").await;
}

/// Messages and changes of the members that are committed in one lot keep their order.
#[tokio::test(flavor = "multi_thread")]
async fn membership_counts_from_its_change_on_within_one_lot() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    server.group("g", &["a", "leaver"]).await;
    server.group("other", &["a"]).await;
    let mut a = server.connect("a").await;
    let mut joiner = server.connect("joiner").await;
    let mut leaver = server.connect("leaver").await;
    a.say("g", 2, b"1").await;
    store.hold_commits();
    let held = a.message("other", 2, b"holds the committer");
    a.send(&ClientFrame::Send(held)).await;
    until("the committer waits", || store.commits_held() > 0).await;
    let send = a.message("g", 2, b"2");
    a.send(&ClientFrame::Send(send)).await;
    a.pending().await;
    let hub = server.app.hub().clone();
    let (joins, leaves) = (server.uid("joiner"), server.uid("leaver"));
    let pending = hub.pending();
    let change = tokio::spawn(async move {
        hub.add_members(group("g"), vec![joins], false).await.expect("added");
        hub.remove_members(group("g"), vec![leaves]).await.expect("removed");
    });
    let hub = server.app.hub().clone();
    until("the join is taken", || hub.pending() > pending).await;
    store.release_commits();
    change.await.expect("changed");
    a.say("g", 2, b"3").await;
    let mut seen = Vec::new();
    while seen.last() != Some(&3) {
        seen.extend(joiner.delivered().await.into_iter().map(|(_, seq, _)| seq));
    }
    assert_eq!(seen, [3], "nothing from before the joining");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(leaver.delivered().await.into_iter().map(|(_, seq, _)| seq));
    }
    assert_eq!(seen, [1, 2], "everything from before the leaving");
    let left = leaver.event(|event| match event {
        protocol::native::Event::Member(member) if !member.left.is_empty() => Some(member.left.len()),
        _ => None,
    });
    assert_eq!(left.await, 1);
}
