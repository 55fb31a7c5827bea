//! Proves: a connection with too much in flight is read on later and loses nothing; groups have a largest size; what is
//! refused for being too much says when to try again where that can help.

use std::time::Duration;

use protocol::native::{ClientFrame, Encoding, Ping};
use tokio::io::AsyncWriteExt;

use crate::harness::{Server, group, until};
use crate::raw::{Raw, connect, message};

#[tokio::test(flavor = "multi_thread")]
async fn the_in_flight_cap_pauses_reading_and_goes_on() {
    let (server, store) = Server::on_shared_memory(|c| c.limits.in_flight_max = 16).await;
    server.group("g", &["a"]).await;
    let mut a = server.connect("a").await;
    a.say("g", 2, b"warm").await;
    store.hold_commits();
    let mut seqs = Vec::new();
    for n in 0..200_u64 {
        let payload = n.to_string();
        let send = a.message("g", 2, payload.as_bytes());
        seqs.push(send.client_seq);
        a.feed(&ClientFrame::Send(send)).await;
    }
    a.flush().await;
    until("sixteen are taken", || server.app.hub().pending() == 16).await;
    // A ping behind them is not read, so nothing answers it while they are held.
    a.send(&ClientFrame::Ping(Ping {})).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), a.receive()).await.is_err());
    assert_eq!(server.app.hub().pending(), 16);
    store.release_commits();
    for (i, seq) in seqs.into_iter().enumerate() {
        assert_eq!(a.outcome(seq).await.expect("acked").message_seq, i as u64 + 2);
    }
}

/// A client that only writes: its answers fill their bound, the server stops reading, and goes on once it reads.
#[tokio::test(flavor = "multi_thread")]
async fn answers_nobody_reads_stop_the_reading() {
    let server = Server::on_memory_with(|c| c.outbox.control_bytes_max = 64 * 1024).await;
    let token = server.user("a").await;
    let json = Encoding::Json;
    let mut raw = Raw::upgraded(&server, Some(json.subprotocol())).await;
    socket2::SockRef::from(&raw.stream).set_recv_buffer_size(8 * 1024).expect("receive buffer");
    raw.write(&message(json, &connect(&token))).await;
    raw.next(json).await.expect("connected");
    let ping = message(json, &ClientFrame::Ping(Ping {}));
    let many: Vec<u8> = ping.iter().copied().cycle().take(ping.len() * 10_000).collect();
    let mut rounds = 0_u64;
    // The socket takes no more once the server stopped reading: all buffers together are a few megabytes.
    while tokio::time::timeout(Duration::from_millis(500), raw.stream.write_all(&many)).await.is_ok() {
        rounds += 1;
        assert!(rounds < 500, "the server reads on and on");
    }
    let mut pongs = 0;
    while pongs < rounds * 10_000 {
        assert!(matches!(raw.next(json).await, Some(protocol::native::ServerFrame::Pong(_))));
        pongs += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_a_largest_size() {
    let server = Server::on_memory_with(|c| c.limits.group.members_max = 3).await;
    server.group("g", &["a", "b", "c"]).await;
    let hub = server.app.hub().clone();
    let refused = hub.add_members(group("g"), vec![server.uid("d")], false).await.expect_err("refused");
    assert_eq!((refused.code(), refused.retry_after_ms()), ("too_many", None));
    hub.add_members(group("g"), vec![server.uid("a")], false).await.expect("a member already");
    hub.remove_members(group("g"), vec![server.uid("c")]).await.expect("removed");
    hub.add_members(group("g"), vec![server.uid("d")], false).await.expect("room again");
    hub.add_members(group("g"), vec![server.uid("x"), server.uid("y")], true).await.expect("replaced");
    let mut x = server.connect("x").await;
    let mut a = server.connect("a").await;
    x.say("g", 2, b"in").await;
    let send = a.message("g", 2, b"out");
    assert_eq!(a.ask_send(send).await.expect_err("refused").code, "not_member");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_takes_no_more_than_its_type_may_have_in_flight() {
    let (server, store) = Server::on_shared_memory(|c| c.limits.group.in_flight_max = 2).await;
    server.group("g", &["a"]).await;
    server.user("b").await;
    let mut a = server.connect("a").await;
    a.say("g", 2, b"warm").await;
    a.say("b", 1, b"warm").await;
    store.hold_commits();
    let mut taken = Vec::new();
    for (channel_id, channel_type) in [("g", 2), ("g", 2), ("b", 1), ("b", 1), ("b", 1)] {
        let send = a.message(channel_id, channel_type, b"x");
        taken.push(send.client_seq);
        a.send(&ClientFrame::Send(send)).await;
    }
    until("all five are taken", || server.app.hub().pending() == 5).await;
    let send = a.message("g", 2, b"one too many");
    let refused = a.ask_send(send).await.expect_err("refused");
    assert_eq!((&*refused.code, refused.retry_after_ms.is_some()), ("busy", true));
    store.release_commits();
    for client_seq in taken {
        a.outcome(client_seq).await.expect("acked");
    }
    assert_eq!(a.say("g", 2, b"room again").await.message_seq, 4);
}
