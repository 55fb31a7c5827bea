//! Proves: when a message's time is over it counts as unread no more, its payload is withheld everywhere, its seq stays
//! taken, and clients hear that something changed.

use chinwag::clock;
use protocol::native::{Event, MessageState};

use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_withheld_and_not_unread() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let mut send = a.message("g", 2, b"for a while");
    send.expire = 5;
    send.client_msg_no = "n".into();
    assert_eq!(a.ask_send(send).await.expect("acked").message_seq, 1);
    a.say("g", 2, b"for good").await;
    let before = b.sync(|s| s.msg_count = 5).await.expect("synced");
    assert_eq!(before.rows[0].unread, 2);
    assert_eq!(before.rows[0].recents[1].expire, 5);
    let hub = server.app.hub().clone();
    assert_eq!(hub.expire(clock::now_ms(), 10).await, Ok(0), "not before its time");
    assert_eq!(b.sync(|s| s.version = before.version).await.expect("synced").rows.len(), 0);
    assert_eq!(hub.expire(clock::now_ms() + 6_000, 10).await, Ok(1));
    b.event(|event| matches!(event, Event::Resync(_)).then_some(())).await;
    let after = b
        .sync(|s| {
            s.version = before.version;
            s.msg_count = 5;
        })
        .await
        .expect("synced");
    assert_eq!(after.rows.len(), 1, "a change all members see");
    assert_eq!((after.rows[0].unread, after.rows[0].last_msg_seq), (1, 2));
    for items in [&after.rows[0].recents[1..], &b.history("g", 2, 1, 1).await.expect("history").0] {
        let [item] = items else { panic!("{items:?}") };
        assert_eq!((item.message_seq, item.state, item.payload.len()), (1, MessageState::Expired, 0));
    }
    drop(hub);
    let server = server.restart().await;
    let mut b = server.connect("b").await;
    assert_eq!(b.sync(|_| {}).await.expect("synced").rows[0].unread, 1);
    assert_eq!(server.app.hub().expire(clock::now_ms() + 60_000, 10).await, Ok(0), "once");
    // Its name is still taken.
    let mut a = server.connect("a").await;
    let mut send = a.message("g", 2, b"for a while");
    send.client_msg_no = "n".into();
    let ack = a.ask_send(send).await.expect("acked");
    assert_eq!((ack.message_seq, ack.duplicate), (1, true));
}
