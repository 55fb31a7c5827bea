//! Proves: bytes that are no protocol end their own connection and nothing else, and a client that does not read is closed.

use protocol::wukong::{Packet, Reason};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::client::{Got, Hello, KINDS, Way, Wk, bytes_of, token};
use crate::harness::{Server, until};
use crate::raw::{Raw, masked};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_leave_other_sessions_untouched() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::on_memory().await;
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    let mut bob = Wk::connect(&server, 6, Way::Tcp, "bob").await;
    let token = token(&server, "mallory", 1, 0).await;
    for round in 0..120 {
        let (version, way) = KINDS[round % KINDS.len()];
        let hello = Hello::new(version, way, "mallory", &token);
        let mut bytes = hello.packet().0;
        let mut mallory = Wk::open(&server, version, way).await;
        // Half of them behind a good CONNECT.
        if round % 2 == 0 {
            mallory.write(&bytes).await;
            let send = mallory.message("x", "alice", 1, b"{}");
            bytes = bytes_of(mallory.version, &Packet::Send(send));
        }
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        if round % 3 == 0 {
            let mut noise = vec![0; random.random_range(1..300)];
            random.fill_bytes(&mut noise);
            bytes.extend(noise);
        }
        mallory.write(&bytes).await;
        drop(mallory);
        if round % 10 == 0 {
            assert_eq!(alice.send("", "bob", 1, b"{}").await.reason, Reason::SUCCESS);
            assert_eq!(bob.recv().await.from_uid, "alice");
        }
    }
    until("only the two are left", || server.app.hub().metrics().sessions.get() == 2).await;
    // A change may leave a SEND as good as it was, by a bit of its header say: then it is mallory's message, and nobody else's.
    let others = |got: &Got| !matches!(got, Got::Recv(recv) if recv.from_uid == "mallory");
    assert!(!alice.pending().await.iter().any(others));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_leave_other_sessions_untouched() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = Server::on_memory().await;
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    let token = token(&server, "mallory", 1, 0).await;
    let connect = format!(
        r#"{{"method":"connect","id":"c","params":{{"uid":"mallory","token":"{token}","deviceFlag":1,"version":5}}}}"#
    );
    let send =
        r#"{"method":"send","id":"s","params":{"channelId":"alice","channelType":1,"payload":{"a":[1,{"b":2}]}}}"#;
    let deep = format!(r#"{{"method":"send","id":"d","params":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for round in 0..150 {
        let mut raw = Raw::upgraded(&server, None).await;
        let mut text = if round % 2 == 0 {
            raw.write(&masked(0x81, connect.as_bytes())).await;
            if round % 7 == 0 { deep.clone() } else { send.to_owned() }
        } else {
            connect.clone()
        }
        .into_bytes();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..text.len().min(200));
            text[at] = random.random_range(0x20..0x7f);
        }
        raw.write(&masked(if round % 3 == 0 { 0x82 } else { 0x81 }, &text)).await;
        if round % 10 == 0 {
            let own = alice.send("", "alice", 1, b"{}").await;
            assert_eq!(own.reason, Reason::SUCCESS);
        }
    }
    until("only one is left", || server.app.hub().metrics().sessions.get() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claimed_lengths_beyond_the_limit_end_it_at_once() {
    let server = Server::on_memory().await;
    for (version, way) in KINDS {
        // Before CONNECT 16 KiB are the limit, behind it the configured one, at most 1 MiB.
        let mut unready = Wk::open(&server, version, way).await;
        unready.write(&[0x10, 0x81, 0x80, 0x01]).await;
        unready.gone().await;
        let mut client = Wk::connect(&server, version, way, "u").await;
        client.write(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        assert_eq!(client.ended().await, None);
        assert_eq!(client.close_number, (way == Way::WebSocket).then_some(1009));
        // Nor a packet before CONNECT, or CONNECT twice.
        let mut unready = Wk::open(&server, version, way).await;
        unready.write(&[0x70]).await;
        unready.raw.rest().await;
        let mut client = Wk::connect(&server, version, way, "u").await;
        let again = Hello::new(version, way, "u", "token-of-u-1").packet().0;
        client.write(&again).await;
        client.gone().await;
        // Types nobody knows are skipped.
        let mut client = Wk::connect(&server, version, way, "u").await;
        client.write(&[0xd0, 1, 0, 0xe0, 0, 0xf0, 2, 9, 9, 0x80]).await;
        client.pending().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_too_slowly_is_closed_and_finds_all_in_the_log() {
    let server = Server::on_memory_with(|c| {
        c.limits.payload_bytes_max = 8 * 1024;
        c.outbox.bytes_max = 64 * 1024;
    })
    .await;
    server.group("g", &["slow", "fast", "sender"]).await;
    for way in [Way::WebSocket, Way::Tcp] {
        let mut slow = Wk::connect(&server, 5, way, "slow").await;
        let mut fast = Wk::connect(&server, 5, way, "fast").await;
        let mut sender = Wk::connect(&server, 5, way, "sender").await;
        let closed = server.app.hub().metrics().slow_closes.get();
        let payload = vec![b'x'; 6_000];
        let begun = tokio::time::Instant::now();
        let mut most_waiting = 0;
        while server.app.hub().metrics().slow_closes.get() == closed {
            assert!(begun.elapsed() < crate::harness::PATIENCE);
            most_waiting = most_waiting.max(server.app.hub().metrics().outbox_bytes.get());
            assert_eq!(sender.send("", "g", 2, &payload).await.reason, Reason::SUCCESS);
            fast.recv().await;
        }
        // Four times what a native session may have, as its wire has no notice of a gap; the other two have next to nothing.
        assert!((3 * 64 * 1024..5 * 64 * 1024).contains(&most_waiting), "{most_waiting} bytes");
        // What it had gets to it, then the end, without DISCONNECT: its client connects again and syncs.
        let mut last = None;
        while let Ok(Some(got)) = tokio::time::timeout(crate::harness::PATIENCE, next_or_torn(&mut slow)).await {
            if let super::client::Got::Recv(message) = got {
                assert!(last.is_none_or(|last| message.message_seq == last + 1), "no gap before the end");
                last = Some(message.message_seq);
            } else {
                panic!("{got:?}");
            }
        }
        assert!(last.is_some());
        assert_eq!(sender.send("", "g", 2, b"{}").await.reason, Reason::SUCCESS);
        fast.recv().await;
    }
}

/// The next packet; `None` at the end, which may lie inside of one.
async fn next_or_torn(client: &mut Wk) -> Option<super::client::Got> {
    match client.way {
        Way::WebSocket => client.receive().await,
        Way::Tcp => {
            while protocol::wukong::cut(&client.raw.buffer, 1 << 20).expect("a packet").is_none() {
                if !client.raw.more().await {
                    return None;
                }
            }
            client.receive().await
        }
    }
}
