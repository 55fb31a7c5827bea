//! Proves: a drain answers every send that is in flight, tells each session why it ends, reports its counts, is not held up
//! by sockets without a session or by readers that stalled, and loses nothing that was acked.

use std::time::{Duration, Instant};

use protocol::native::{ClientFrame, Encoding, ServerFrame};
use tokio::net::TcpStream;

use crate::harness::{Server, group, start_again};
use crate::raw::{Raw, connect, message};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_told_and_counted() {
    let server = Server::on_disk().await;
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(server.connect(&format!("u{n}")).await);
    }
    let report = server.app.drain().await;
    assert!(report.clean, "{report}");
    assert_eq!((report.sessions, report.sessions_closed, report.drafts_left), (5, 5, 0));
    for client in &mut clients {
        let (closing, number) = client.ended().await;
        let closing = closing.expect("a closing frame");
        assert_eq!((&*closing.reason, closing.code, number), ("draining", 1012, Some(1012)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_has_an_outcome_and_what_was_acked_is_there_afterwards() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    const SENDS: u64 = 3_000;
    for n in 1..=SENDS {
        let payload = n.to_string();
        let send = a.message("g", 2, payload.as_bytes());
        a.feed(&ClientFrame::Send(send)).await;
    }
    a.flush().await;
    let Server { app, dir, config } = server;
    // In the midst of it.
    let first = a.receive().await.expect("something comes");
    let drained = tokio::spawn(app.drain());
    let (mut acked, mut refused) = (Vec::new(), 0);
    let mut closing = None;
    let mut next = Some(first);
    while let Some(frame) = next {
        match frame {
            ServerFrame::Ack(ack) => acked.push((ack.client_seq, ack.message_seq)),
            ServerFrame::Refused(no) => {
                assert_eq!(no.code, "draining");
                assert!(no.retry_after_ms.is_some());
                refused += 1;
            }
            ServerFrame::Closing(frame) => closing = Some(frame),
            _ => {}
        }
        next = a.receive().await;
    }
    let report = drained.await.expect("drain ends");
    assert!(report.clean, "{report}");
    assert_eq!(closing.expect("told").reason, "draining");
    assert_eq!(acked.len() as u64 + refused, SENDS, "each send has an outcome");
    let app = start_again(&config).await;
    let server = Server { app, dir, config };
    let mut b = server.connect("b").await;
    let stored = b.whole_history("g", 2, 1, 0).await;
    assert_eq!(stored.len(), acked.len(), "stored and acked are the same");
    for (client_seq, message_seq) in acked {
        assert_eq!(stored[message_seq as usize - 1].payload, client_seq.to_string().as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_silent_socket_nor_a_stalled_reader_holds_it_up() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "stalled"]).await;
    let _silent = TcpStream::connect(server.app.socket_addr()).await.expect("connects");
    let _upgraded = Raw::upgraded(&server, None).await;
    let token = server.user("stalled").await;
    let mut stalled = Raw::upgraded(&server, Some(Encoding::MessagePack.subprotocol())).await;
    stalled.write(&message(Encoding::MessagePack, &connect(&token))).await;
    let mut a = server.connect("a").await;
    // More than any socket buffer takes.
    for _ in 0..400 {
        let payload = vec![7; 60_000];
        a.say("g", 2, &payload).await;
    }
    let begun = Instant::now();
    let report = server.app.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "took {:?}", begun.elapsed());
    assert_eq!(report.sessions, 2);
    assert_eq!(a.ended().await.1, Some(1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_work_is_refused_as_draining() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    server.group("g", &["a"]).await;
    let mut a = server.connect("a").await;
    // One send that cannot end yet keeps the drain open.
    store.hold_commits();
    let held = a.message("g", 2, b"held");
    let held_seq = held.client_seq;
    a.send(&ClientFrame::Send(held)).await;
    crate::harness::until("the commit is held", || store.commits_held() > 0).await;
    server.app.hub().begin_drain();
    let late = a.message("g", 2, b"late");
    let refused = a.ask_send(late).await.expect_err("refused");
    assert_eq!(refused.code, "draining");
    let hub = server.app.hub().clone();
    let refused = hub.add_members(group("g"), vec![server.uid("b")], false).await.expect_err("refused");
    assert_eq!(refused.code(), "draining");
    store.release_commits();
    assert!(server.app.drain().await.clean);
    assert_eq!(a.outcome(held_seq).await.expect("acked").message_seq, 1);
}
