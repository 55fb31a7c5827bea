//! Proves: a chat between WuKongIM's clients and native ones is one chat: ids, order, views, retries and refusals.

use protocol::native::{ClientFrame, ServerFrame};
use protocol::wukong::{Flags, Packet, Reason, Setting, Sub, Version};

use super::client::{Got, Hello, KINDS, Way, Wk, token};
use crate::harness::{PATIENCE, Server, group};

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_way_talks_with_native_and_with_each_other() {
    let server = Server::on_memory().await;
    let mut native = server.connect("native").await;
    for (version, way) in KINDS {
        let uid = format!("u{version}{way:?}");
        let mut client = Wk::connect(&server, version, way, &uid).await;
        // To native, by the peer's uid.
        let ack = client.send("n1", "native", 1, br#"{"type":1,"content":"hi"}"#).await;
        assert_eq!((ack.reason, ack.message_seq), (Reason::SUCCESS, 1), "{uid}");
        assert_eq!(&*ack.client_msg_no, if version == 6 { "n1" } else { "" });
        let deliver = native.deliver().await;
        assert_eq!((&*deliver.channel_id, deliver.channel_type), (uid.as_str(), 1));
        let item = &deliver.messages[0];
        assert_eq!(i64::try_from(item.message_id).expect("fits"), ack.message_id);
        assert_eq!((&*item.from_uid, &*item.client_msg_no, item.red_dot), (uid.as_str(), "n1", true));
        assert_eq!(&*item.payload, br#"{"type":1,"content":"hi"}"#);
        // From native, and from another session of the peer: seen as the peer's.
        let said = native.say(&uid, 1, b"answer").await;
        let message = client.recv().await;
        assert_eq!((&*message.from_uid, &*message.channel_id, message.message_seq), ("native", "native", 2));
        assert_eq!(message.message_id, i64::try_from(said.message_id).expect("fits"));
        assert_eq!(
            (i64::from(message.timestamp), &*message.payload),
            ((said.timestamp / 1_000) as i64, &b"answer"[..])
        );
        // In canonical form too.
        let canonical = protocol::ids::ChannelKey::person(&server.uid("native"), &server.uid(&uid));
        let ack = client.send("n2", canonical.channel_id(), 1, b"{}").await;
        assert_eq!((ack.reason, ack.message_seq), (Reason::SUCCESS, 3), "{uid}");
        assert_eq!(native.deliver().await.messages[0].message_seq, 3);
        // Its own sends are told by their answers only.
        assert_eq!(client.pending().await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_devices_of_the_sender_see_it_without_a_red_dot() {
    let server = Server::on_memory().await;
    server.group("g", &["alice", "bob"]).await;
    let alice_token = token(&server, "alice", 1, 0).await;
    for (version, way) in KINDS {
        let on = |device: &str| Hello { device_id: device.into(), ..Hello::new(version, way, "alice", &alice_token) };
        let mut phone = Wk::begin(&server, &on("phone")).await.expect("connects");
        let mut pad = Wk::begin(&server, &on("pad")).await.expect("connects");
        let mut bob = Wk::connect(&server, version, way, "bob").await;
        let mut said = Vec::new();
        for (to, channel_type, seen_by_pad, seen_by_bob) in [("bob", 1, "bob", "alice"), ("g", 2, "g", "g")] {
            let ack = phone.send("", to, channel_type, b"{}").await;
            assert_eq!(ack.reason, Reason::SUCCESS);
            said.push(ack.message_id);
            let (own, other) = (pad.recv().await, bob.recv().await);
            assert_eq!((&*own.channel_id, &*own.from_uid, own.flags.red_dot), (seen_by_pad, "alice", false));
            assert_eq!((&*other.channel_id, &*other.from_uid, other.flags.red_dot), (seen_by_bob, "alice", true));
            assert_eq!((own.message_id, own.message_seq), (other.message_id, other.message_seq));
        }
        // What was under way while it connected, a phone may hear beside finding it with a sync: of its own sends, never.
        let own = |got: &Got| matches!(got, Got::Recv(recv) if said.contains(&recv.message_id));
        assert!(!phone.pending().await.iter().any(own));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_a_master_device_has_is_taken() {
    let server = Server::on_memory().await;
    let hub = server.app.hub().clone();
    let queued = async |hub: &chinwag::hub::Hub| hub.commands(server.uid("bob"), 10).await.expect("commands").len();
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    // None is taken along that only a slave had.
    for (level, left) in [(1, [0, 0, 0]), (0, [1, 2, 3]), (1, [4, 5, 6])] {
        let token = token(&server, "bob", 1, level).await;
        let mut bob = Wk::begin(&server, &Hello::new(5, Way::Tcp, "bob", &token)).await.expect("connects");
        for (n, left) in left.into_iter().enumerate() {
            let mut command = alice.message(&format!("{n} of {left}"), "bob", 1, b"{}");
            command.flags.sync_once = true;
            let client_seq = command.client_seq;
            alice.say(&Packet::Send(command)).await;
            assert_eq!(alice.ack(client_seq).await.reason, Reason::SUCCESS);
            assert!(bob.recv().await.flags.sync_once);
            // What is not acknowledged by a master stays, so the count is that of the moment behind the acknowledgement.
            assert_eq!(bob.pending().await, []);
            if left == 0 {
                let begun = tokio::time::Instant::now();
                while queued(&hub).await > 0 {
                    assert!(begun.elapsed() < PATIENCE, "in vain waited for the queue to be empty");
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(queued(&hub).await, left);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_outcome_on_another_connection_too() {
    let server = Server::on_disk().await;
    let mut bob = Wk::connect(&server, 5, Way::WebSocket, "bob").await;
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    let first = alice.send("no-1", "bob", 1, b"{\"n\":1}").await;
    drop(alice);
    // The JavaScript SDK repeats in lexicographic order of its numbers, behind newer ones.
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    let later = alice.send("no-2", "bob", 1, b"{\"n\":2}").await;
    let again = alice.send("no-1", "bob", 1, b"{\"n\":1}").await;
    assert_eq!((again.message_id, again.message_seq), (first.message_id, 1));
    assert_eq!(later.message_seq, 2);
    // Another payload under the name is a conflict (reason 28), and nothing is delivered twice.
    let clash = alice.send("no-1", "bob", 1, b"{\"n\":3}").await;
    assert_eq!((clash.reason, clash.message_id, clash.message_seq), (Reason::IDEMPOTENCY_CONFLICT, 0, 0));
    assert_eq!((bob.recv().await.message_seq, bob.recv().await.message_seq), (1, 2));
    assert_eq!(bob.pending().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_messages_keep_their_order_both_ways() {
    const COUNT: u32 = 500;
    let server = Server::on_memory().await;
    for (version, way) in [(5, Way::WebSocket), (6, Way::Tcp), (2, Way::WebSocket)] {
        let (a, b) = (format!("a{version}"), format!("b{version}"));
        let mut alice = Wk::connect(&server, version, way, &a).await;
        let mut bob = Wk::connect(&server, version, way, &b).await;
        for number in 0..COUNT {
            let to_bob = alice.message(&format!("a{number}"), &b, 1, format!("{{\"a\":{number}}}").as_bytes());
            alice.say(&Packet::Send(to_bob)).await;
            let to_alice = bob.message(&format!("b{number}"), &a, 1, format!("{{\"b\":{number}}}").as_bytes());
            bob.say(&Packet::Send(to_alice)).await;
        }
        let mut seqs = Vec::new();
        for number in 0..COUNT {
            assert_eq!(alice.ack(number + 1).await.reason, Reason::SUCCESS);
            assert_eq!(bob.ack(number + 1).await.reason, Reason::SUCCESS);
            let (at_bob, at_alice) = (bob.recv().await, alice.recv().await);
            assert_eq!(String::from_utf8_lossy(&at_bob.payload), format!("{{\"a\":{number}}}"));
            assert_eq!(String::from_utf8_lossy(&at_alice.payload), format!("{{\"b\":{number}}}"));
            seqs.extend([at_bob.message_seq, at_alice.message_seq]);
        }
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=u64::from(COUNT) * 2).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_reasons_of_the_reference() {
    let server = Server::on_memory().await;
    server.group("theirs", &["bob"]).await;
    for (version, way) in KINDS {
        let mut alice = Wk::connect(&server, version, way, "alice").await;
        for (to, channel_type, reason) in [
            ("theirs", 2, Reason::SUBSCRIBER_NOT_EXIST),
            ("nowhere", 2, Reason::SUBSCRIBER_NOT_EXIST),
            ("bob@carol", 1, Reason::CHANNEL_ID_ERROR),
            ("", 1, Reason::CHANNEL_ID_ERROR),
            ("bob", 7, Reason::NOT_SUPPORT_CHANNEL_TYPE),
            ("bob", 0, Reason::NOT_SUPPORT_CHANNEL_TYPE),
        ] {
            let ack = alice.send("x", to, channel_type, b"{}").await;
            assert_eq!((ack.reason, ack.message_id, ack.message_seq), (reason, 0, 0), "{to} {channel_type}");
            assert_eq!(&*ack.client_msg_no, if version == 6 { "x" } else { "" });
        }
        let huge = vec![b'a'; 65 * 1024];
        assert_eq!(alice.send("y", "bob", 1, &huge).await.reason, Reason::PAYLOAD_DECODE_ERROR);
        // A msg_key that does not fit, once the client has shown that it has the session's key.
        assert_eq!(alice.send("z", "bob", 1, b"{}").await.reason, Reason::SUCCESS);
        let mut forged = alice.message("w", "bob", 1, b"{}");
        forged.msg_key = "00000000000000000000000000000000".into();
        let client_seq = forged.client_seq;
        alice.say(&Packet::Send(forged)).await;
        assert_eq!(alice.ack(client_seq).await.reason, Reason::PAYLOAD_DECODE_ERROR);
        // Data channels are not offered, and the connection stays.
        let sub = Sub { sub_no: "s".into(), channel_id: "data?k=v".into(), channel_type: 7, ..Sub::default() };
        alice.say(&Packet::Sub(sub)).await;
        let answered = alice.expect(|got| match got {
            Got::SubAck(ack) => Some((ack.reason, ack.channel_id.to_string())),
            _ => None,
        });
        assert_eq!(answered.await, (Reason::NOT_SUPPORT_CHANNEL_TYPE, "data".to_owned()));
        assert_eq!(alice.send("v", "bob", 1, b"{}").await.reason, Reason::SUCCESS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_is_pushed_with_seq_zero() {
    let server = Server::on_memory().await;
    for (version, way) in KINDS {
        let mut alice = Wk::connect(&server, version, way, "alice").await;
        let mut bob = Wk::connect(&server, version, way, "bob").await;
        let mut send = alice.message("", "bob", 1, b"{\"type\":99}");
        send.flags = Flags { no_persist: true, ..Flags::default() };
        let client_seq = send.client_seq;
        alice.say(&Packet::Send(send)).await;
        let ack = alice.ack(client_seq).await;
        assert_eq!((ack.reason, ack.message_seq), (Reason::SUCCESS, 0));
        let message = bob.recv().await;
        assert_eq!((message.message_seq, message.flags.no_persist), (0, true));
        assert_eq!(message.message_id, ack.message_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_and_setting_arrive_and_the_transports_bits_do_not() {
    let server = Server::on_memory().await;
    let mut v2 = Wk::connect(&server, 2, Way::WebSocket, "v2").await;
    let mut v5 = Wk::connect(&server, 5, Way::WebSocket, "v5").await;
    let mut v6 = Wk::connect(&server, 6, Way::Tcp, "v6").await;
    server.group("g", &["v2", "v5", "v6"]).await;
    let unsealed = protocol::wukong::Send {
        setting: Setting::RECEIPT | Setting::TOPIC | Setting::NO_ENCRYPT,
        client_seq: 77,
        channel_id: "g".into(),
        channel_type: 2,
        topic: "t".into(),
        expire: 3_600,
        payload: b"plain".to_vec().into(),
        ..protocol::wukong::Send::default()
    };
    // Version 6 may leave a payload unencrypted; before it the bit says nothing.
    v6.say(&Packet::Send(unsealed.clone())).await;
    assert_eq!(v6.ack(77).await.reason, Reason::SUCCESS);
    for client in [&mut v2, &mut v5] {
        let message = client.recv().await;
        assert_eq!(message.setting, Setting::RECEIPT | Setting::TOPIC);
        assert_eq!((&*message.topic, &*message.payload), ("t", &b"plain"[..]));
    }
    assert_eq!(v5.send("", "g", 2, b"{}").await.reason, Reason::SUCCESS);
    v5.say(&Packet::Send(unsealed)).await;
    assert_eq!(v5.ack(77).await.reason, Reason::PAYLOAD_DECODE_ERROR);
    // A stream bit of old versions is taken off with its fields.
    let mut send = v2.message("", "g", 2, b"streamed");
    send.setting = Setting::STREAM;
    send.stream_no = "no".into();
    let client_seq = send.client_seq;
    v2.say(&Packet::Send(send)).await;
    assert_eq!(v2.ack(client_seq).await.reason, Reason::SUCCESS);
    v6.recv().await;
    let message = v6.recv().await;
    assert_eq!((message.setting, &*message.payload), (Setting::default(), &b"streamed"[..]));
    assert_eq!(v2.version, Version::negotiate(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_signals_reach_native_sessions_only() {
    let server = Server::on_memory().await;
    server.group("g", &["native", "wk"]).await;
    let mut wk = Wk::connect(&server, 5, Way::WebSocket, "wk").await;
    let mut native = server.connect("native").await;
    let said = native.say("g", 2, b"{}").await;
    let client_seq = native.seq();
    let revoke =
        protocol::native::Revoke { client_seq, channel_id: "g".into(), channel_type: 2, message_seq: said.message_seq };
    native.ask_done(client_seq, ClientFrame::Revoke(revoke)).await.expect("revoked");
    let after = native.say("g", 2, b"{\"after\":1}").await;
    let seqs = [wk.recv().await.message_seq, wk.recv().await.message_seq];
    assert_eq!(seqs, [said.message_seq, after.message_seq]);
    assert_eq!(wk.pending().await, []);
    assert!(native.pending().await.iter().any(|frame| matches!(frame, ServerFrame::Event(_))));
    let _ = group("g");
}
