//! Proves: what a client writes is one stream of bytes, whatever the pieces: joined packets, split packets, early packets.

use protocol::wukong::{Packet, Reason};

use super::client::{Hello, KINDS, Way, Wk, bytes_of, token};
use crate::harness::Server;
use crate::raw::masked;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_one_by_one_are_a_session() {
    let server = Server::on_memory().await;
    for (version, way) in KINDS {
        let token = token(&server, "alice", 1, 0).await;
        let hello = Hello::new(version, way, "alice", &token);
        let mut alice = Wk::open(&server, version, way).await;
        let (connect, secret) = hello.packet();
        for byte in &connect {
            alice.write(&[*byte]).await;
        }
        alice.finish(&secret).await.expect("CONNACK says success");
        let mut bytes = Vec::new();
        for number in 0..3 {
            let send = alice.message(&format!("{number}"), "bob", 1, format!("{{\"n\":{number}}}").as_bytes());
            bytes.extend(bytes_of(alice.version, &Packet::Send(send)));
            bytes.push(0x70);
        }
        for byte in &bytes {
            alice.write(&[*byte]).await;
        }
        for number in 1..=3 {
            assert_eq!(alice.ack(number).await.reason, Reason::SUCCESS, "{version} {way:?}");
        }
        alice.pending().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joined_packets_are_told_apart_whatever_the_opcode() {
    let server = Server::on_memory().await;
    for (version, way) in KINDS {
        let mut bob = Wk::connect(&server, version, way, "bob").await;
        let mut alice = Wk::connect(&server, version, way, "alice").await;
        // Five in a message, and the sixth goes on in the next, as no SDK does but the reference allows.
        let mut bytes = Vec::new();
        for number in 0..6 {
            let send = alice.message("", "bob", 1, format!("{{\"n\":{number}}}").as_bytes());
            bytes.extend(bytes_of(alice.version, &Packet::Send(send)));
        }
        let (first, last) = bytes.split_at(bytes.len() - 20);
        alice.write(first).await;
        alice.write(last).await;
        for number in 0..6 {
            assert_eq!(alice.ack(number + 1).await.reason, Reason::SUCCESS);
            assert_eq!(String::from_utf8_lossy(&bob.recv().await.payload), format!("{{\"n\":{number}}}"));
        }
        if way == Way::WebSocket {
            // A PING in a text message; an empty message is nothing.
            alice.raw.write(&masked(0x81, &[0x70])).await;
            alice.raw.write(&masked(0x82, &[])).await;
            alice.expect(|got| (*got == super::client::Got::Pong).then_some(())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_sends_are_held_and_those_under_an_old_key_are_left_to_their_repeat() {
    let server = Server::on_memory().await;
    let token = token(&server, "alice", 1, 0).await;
    for (version, way) in KINDS {
        let mut bob = Wk::connect(&server, version, way, "bob").await;
        // The key of a connection before.
        let mut before = Wk::begin(&server, &Hello::new(version, way, "alice", &token)).await.expect("connects");
        let no = format!("{version}{way:?}");
        let stale = before.message(&no, "bob", 1, b"{\"stale\":1}");
        let mut alice = Wk::open(&server, version, way).await;
        let (connect, secret) = Hello::new(version, way, "alice", &token).packet();
        let mut bytes = connect;
        bytes.extend(bytes_of(alice.version, &Packet::Send(stale.clone())));
        bytes.push(0x70);
        alice.write(&bytes).await;
        alice.finish(&secret).await.expect("CONNACK comes first and says success");
        // Also what was on its way when CONNACK was.
        alice.say(&Packet::Send(stale.clone())).await;
        alice.expect(|got| (*got == super::client::Got::Pong).then_some(())).await;
        assert_eq!(alice.pending().await, [], "the early PING is answered, the SENDs are not");
        // The repeat, under the new key.
        let ack = alice.send(&no, "bob", 1, b"{\"stale\":1}").await;
        assert_eq!(ack.reason, Reason::SUCCESS);
        assert_eq!(bob.recv().await.payload, b"{\"stale\":1}");
        // From then on a key that does not fit is an error.
        alice.say(&Packet::Send(protocol::wukong::Send { client_seq: 99, ..stale })).await;
        assert_eq!(alice.ack(99).await.reason, Reason::PAYLOAD_DECODE_ERROR);
        assert_eq!(bob.pending().await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_sends_in_the_clear_are_handled_behind_connack() {
    let server = Server::on_memory_with(|c| c.wukong.encryption = false).await;
    let token = token(&server, "alice", 1, 0).await;
    for (version, way) in KINDS {
        let mut alice = Wk::open(&server, version, way).await;
        let (mut bytes, secret) = Hello::new(version, way, "alice", &token).packet();
        for _ in 0..100 {
            let send = alice.message("", "bob", 1, b"{}");
            bytes.extend(bytes_of(alice.version, &Packet::Send(send)));
        }
        alice.write(&bytes).await;
        alice.finish(&secret).await.expect("CONNACK comes first and says success");
        for number in 1..=100 {
            assert_eq!(alice.ack(number).await.reason, Reason::SUCCESS);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_in_flight_cap_holds_within_one_message_and_nothing_is_lost() {
    let server = Server::on_memory_with(|c| c.limits.in_flight_max = 3).await;
    for (version, way) in KINDS {
        let mut alice = Wk::connect(&server, version, way, "alice").await;
        let mut bytes = Vec::new();
        for _ in 0..200 {
            let send = alice.message("", "bob", 1, b"{}");
            bytes.extend(bytes_of(alice.version, &Packet::Send(send)));
        }
        alice.write(&bytes).await;
        let send = alice.message("", "bob", 1, b"{}");
        alice.say(&Packet::Send(send)).await;
        for number in 1..=201 {
            assert_eq!(alice.ack(number).await.reason, Reason::SUCCESS);
        }
    }
}
