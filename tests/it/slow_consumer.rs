//! Proves: one reader that stalls costs nobody else a message; it is told what it missed as exact ranges and history fills
//! them; one that stalls for too long is closed as slow, also while its socket takes nothing; what a stalled one holds of
//! the server's memory is bounded.

use std::collections::BTreeSet;

use protocol::native::{Encoding, ServerFrame};

use crate::harness::{Client, Server, until};
use crate::raw::{Raw, connect, message};

async fn stalled(server: &Server, uid: &str) -> Raw {
    let token = server.user(uid).await;
    let mut raw = Raw::upgraded(server, Some(Encoding::MessagePack.subprotocol())).await;
    socket2::SockRef::from(&raw.stream).set_recv_buffer_size(8 * 1024).expect("receive buffer");
    raw.write(&message(Encoding::MessagePack, &connect(&token))).await;
    assert!(matches!(raw.next(Encoding::MessagePack).await, Some(ServerFrame::Connected(_))));
    raw
}

async fn seqs(client: &mut Client, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        seqs.extend(client.deliver().await.messages.iter().map(|m| m.message_seq));
    }
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_is_told_exactly_what_it_missed() {
    let server = Server::on_memory_with(|c| c.outbox.bytes_max = 64 * 1024).await;
    server.group("g", &["a", "b", "slow"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let mut slow = stalled(&server, "slow").await;
    const COUNT: u64 = 700;
    // In step with the healthy reader: four messages fill an outbox here, and a reader that the machine does not let run
    // would rightly be told a gap too.
    let mut seen = Vec::new();
    for _ in 1..=COUNT {
        a.say("g", 2, &[9; 16 * 1024]).await;
        seen.extend(seqs(&mut b, 1).await);
    }
    assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>(), "the others see everything");
    let waiting = server.app.hub().metrics().outbox_bytes.get();
    assert!(waiting <= 64 * 1024 + 64 * 1024, "{waiting} bytes wait for one stalled reader");
    // It reads again. One more message shows that it is live again; all ranges together are everything, once.
    let (mut delivered, mut missing) = (BTreeSet::new(), BTreeSet::new());
    let mut told_end = false;
    while !told_end || delivered.last() != Some(&(COUNT + 1)) {
        match slow.next(Encoding::MessagePack).await.expect("goes on") {
            ServerFrame::Deliver(deliver) => {
                for m in &deliver.messages {
                    assert!(delivered.insert(m.message_seq), "{} twice", m.message_seq);
                }
            }
            ServerFrame::Gap(gap) => {
                for seq in gap.first_missing_seq..=gap.head_seq {
                    assert!(missing.insert(seq), "{seq} told twice");
                }
            }
            _ => {}
        }
        if !told_end && delivered.len() + missing.len() == COUNT as usize {
            told_end = true;
            a.say("g", 2, b"last").await;
        }
    }
    assert!(!missing.is_empty(), "the test must overflow the outbox");
    assert!(delivered.is_disjoint(&missing));
    assert_eq!(delivered.len() + missing.len(), COUNT as usize + 1);
    let (first, last) = (*missing.first().expect("some"), *missing.last().expect("some"));
    let filled = b.whole_history("g", 2, first, last).await;
    assert_eq!(filled.iter().map(|m| m.message_seq).collect::<Vec<_>>(), (first..=last).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_too_long_is_closed_as_slow() {
    let server = Server::on_memory_with(|c| {
        c.outbox.bytes_max = 64 * 1024;
        c.outbox.slow_close_ms = 500;
    })
    .await;
    server.group("g", &["a", "slow"]).await;
    let mut a = server.connect("a").await;
    let _slow = stalled(&server, "slow").await;
    for _ in 0..400 {
        a.say("g", 2, &[9; 32 * 1024]).await;
    }
    let slow = server.uid("slow");
    until("the stalled session ends", || server.app.hub().online(std::slice::from_ref(&slow)).is_empty()).await;
    assert_eq!(server.app.hub().metrics().slow_closes.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_session_can_be_replaced_by_its_own_device() {
    let server = Server::on_memory_with(|c| c.outbox.bytes_max = 64 * 1024).await;
    server.group("g", &["a", "s"]).await;
    let mut a = server.connect("a").await;
    let token = server.user("s").await;
    let mut old = Raw::upgraded(&server, Some(Encoding::MessagePack.subprotocol())).await;
    let mut connect = connect(&token);
    if let protocol::native::ClientFrame::Connect(connect) = &mut connect {
        connect.device_id = "phone".into();
    }
    old.write(&message(Encoding::MessagePack, &connect)).await;
    assert!(matches!(old.next(Encoding::MessagePack).await, Some(ServerFrame::Connected(_))));
    for _ in 0..400 {
        a.say("g", 2, &[9; 32 * 1024]).await;
    }
    let mut new = Client::connect(&server, &token, Encoding::MessagePack, |c| c.device_id = "phone".into()).await;
    until("the old socket is given up", || server.app.hub().metrics().sessions.get() == 2).await;
    a.say("g", 2, b"for the new one").await;
    assert_eq!(new.delivered().await.len(), 1);
}
