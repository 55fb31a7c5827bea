//! Proves: a send is acked with its seq and id, delivered to the peer in order and once, in both encodings; ten thousand
//! sends in one write are all acked, each channel's in their order; levels, flags and limits are what `docs/wire.md` says,
//! and what is refused names its field.

use std::collections::HashMap;

use protocol::native::{ClientFrame, Durability, Encoding, ServerFrame};

use crate::harness::{Client, Server, until};
use crate::raw::{Raw, connect, message};

#[tokio::test(flavor = "multi_thread")]
async fn two_users_talk_in_both_encodings() {
    let server = Server::on_disk().await;
    let mut alice = server.connect("alice").await;
    let token = server.user("bob").await;
    let mut bob = Client::connect(&server, &token, Encoding::Json, |_| {}).await;
    let ack = alice.say("bob", 1, b"hello").await;
    assert_eq!(ack.message_seq, 1);
    assert_eq!(bob.delivered().await, [("alice".to_owned(), 1, b"hello".to_vec())]);
    let ack = bob.say("alice", 1, "hi 😀".as_bytes()).await;
    assert_eq!(ack.message_seq, 2);
    assert_eq!(alice.delivered().await, [("bob".to_owned(), 2, "hi 😀".as_bytes().to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_hears_its_members_and_refuses_others() {
    let server = Server::on_disk().await;
    let mut a = server.connect("a").await;
    server.group("g", &["a", "b", "c"]).await;
    let mut b = server.connect("b").await;
    let mut c = server.connect("c").await;
    let mut eve = server.connect("eve").await;
    for n in 1..=50_u64 {
        let sender = if n % 2 == 0 { &mut a } else { &mut b };
        assert_eq!(sender.say("g", 2, n.to_string().as_bytes()).await.message_seq, n);
    }
    let mut seqs = Vec::new();
    while seqs.len() < 50 {
        seqs.extend(c.delivered().await.into_iter().map(|(_, seq, _)| seq));
    }
    assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    for channel in ["g", "never-made"] {
        let send = eve.message(channel, 2, b"let me in");
        assert_eq!(eve.ask_send(send).await.expect_err("refused").code, "not_member");
    }
}

/// Sends of one connection in one write: to channels whose lanes are warm, cold ones with a history, and new ones.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sends_in_one_write_are_all_acked_in_order() {
    const SENDS: u64 = 10_000;
    const CHANNELS: u64 = 100;
    let mp = Encoding::MessagePack;
    let server = Server::on_disk().await;
    let token = server.user("a").await;
    for n in 0..CHANNELS / 2 {
        server.group(&format!("c{n}"), &["a", "b"]).await;
    }
    let mut raw = Raw::upgraded(&server, Some(mp.subprotocol())).await;
    let mut bytes = message(mp, &connect(&token));
    for client_seq in 1..=SENDS {
        let channel = client_seq % CHANNELS;
        let (channel_id, channel_type) = (format!("c{channel}"), if channel < CHANNELS / 2 { 2 } else { 1 });
        bytes.extend(message(
            mp,
            &ClientFrame::Send(protocol::native::Send {
                client_seq,
                channel_id: channel_id.into(),
                channel_type,
                // Every other one is to be deduped, which may need a look-up.
                client_msg_no: if client_seq % 2 == 0 { format!("n{client_seq}").into() } else { "".into() },
                payload: client_seq.to_string().into_bytes().into(),
                ..protocol::native::Send::default()
            }),
        ));
    }
    let (mut read, mut write) = raw.stream.into_split();
    let writer = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.expect("the server reads on");
        write
    });
    let mut next_seq: HashMap<u64, (u64, u64)> = HashMap::new();
    let (mut acked, mut buffer) = (0, std::mem::take(&mut raw.buffer));
    let mut frames = FrameScan;
    while acked < SENDS {
        while let Some(payload) = frames.next(&mut buffer) {
            match protocol::native::decode_server(mp, &payload).expect("decodes") {
                ServerFrame::Ack(ack) => {
                    let last = next_seq.entry(ack.client_seq % CHANNELS).or_default();
                    assert_eq!(ack.message_seq, last.0 + 1);
                    assert!(ack.client_seq > last.1, "{} after {}", ack.client_seq, last.1);
                    assert_eq!(ack.client_msg_no.is_empty(), ack.client_seq % 2 == 0, "a made name is told");
                    *last = (ack.message_seq, ack.client_seq);
                    acked += 1;
                }
                ServerFrame::Connected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if acked < SENDS {
            let more = tokio::io::AsyncReadExt::read_buf(&mut read, &mut buffer);
            let read =
                tokio::time::timeout(crate::harness::PATIENCE, more).await.expect("acks in time").expect("reads");
            assert!(read > 0, "closed after {acked} acks");
        }
    }
    drop(writer.await.expect("writer"));
}

/// Cuts unmasked frames off a buffer.
struct FrameScan;

impl FrameScan {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
        let (from, to) = match *buffer.get(1)? {
            126 => (4, 4 + usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, 10 + u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize),
            len => (2, 2 + usize::from(len)),
        };
        let payload = buffer.get(from..to)?.to_vec();
        buffer.drain(..to);
        Some(payload)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_are_told_and_replicated_is_refused() {
    let server = Server::on_disk().await;
    let mut a = server.connect("a").await;
    for (durability, level) in [(Durability::Memory, Durability::Memory), (Durability::Disk, Durability::Disk)] {
        let mut send = a.message("b", 1, b"x");
        send.durability = durability;
        let ack = a.ask_send(send).await.expect("acked");
        assert_eq!((ack.level, ack.duplicate), (level, false));
    }
    let mut send = a.message("b", 1, b"x");
    send.durability = Durability::Replicated;
    assert_eq!(a.ask_send(send).await.expect_err("refused").code, "durability_not_offered");
    // Acked as memory or as disk, all that was numbered is stored.
    let stored = a.whole_history("b", 1, 1, 0).await;
    assert_eq!(stored.len(), 2);
    let offered = &a.connected.as_ref().expect("connected").durability;
    assert_eq!(offered, &[Durability::Memory, Durability::Disk]);
}

/// A kill cannot show it, the moment is too short: here the disk is held between the numbering and the writing.
#[tokio::test(flavor = "multi_thread")]
async fn an_ack_of_disk_waits_for_the_disk_and_one_of_memory_does_not() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    a.say("b", 1, b"first").await;
    b.delivered().await;
    for (durability, seq) in [(Durability::Disk, 2), (Durability::Memory, 3)] {
        store.hold_commits();
        let mut send = a.message("b", 1, b"x");
        send.durability = durability;
        let client_seq = send.client_seq;
        a.send(&ClientFrame::Send(send)).await;
        until("the lot is numbered", || store.commits_held() > 0).await;
        if durability == Durability::Memory {
            assert_eq!(a.outcome(client_seq).await.expect("acked").level, Durability::Memory);
        } else {
            assert!(!a.pending().await.iter().any(|f| matches!(f, ServerFrame::Ack(_))), "acked before it is stored");
        }
        // Nobody sees it before it is stored, whatever was acked.
        assert!(!b.pending().await.iter().any(|f| matches!(f, ServerFrame::Deliver(_))));
        assert_eq!(b.whole_history("a", 1, 1, 0).await.len() as u64, seq - 1);
        store.release_commits();
        if durability == Durability::Disk {
            assert_eq!(a.outcome(client_seq).await.expect("acked").message_seq, seq);
        }
        assert_eq!(b.delivered().await[0].1, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_their_field_and_store_nothing() {
    let server = Server::on_memory_with(|c| {
        c.limits.person.payload_bytes_max = 10;
        c.limits.group.payload_bytes_max = 20;
    })
    .await;
    server.group("g", &["a"]).await;
    let mut a = server.connect("a").await;
    let long_name = "n".repeat(129);
    let long_topic = "t".repeat(256);
    let mut cases = Vec::new();
    for (channel_id, channel_type, bytes, code, field) in [
        ("b", 1, 10, "", ""),
        ("b", 1, 11, "too_large", "payload"),
        ("g", 2, 20, "", ""),
        ("g", 2, 21, "too_large", "payload"),
        ("", 1, 1, "invalid", "channel_id"),
        ("a&b", 2, 1, "invalid", "channel_id"),
        ("a\u{7}", 1, 1, "invalid", "channel_id"),
        ("b", 77, 1, "invalid", "channel_type"),
        ("b", 0, 1, "invalid", "channel_type"),
    ] {
        cases.push((
            a.message(channel_id, channel_type, &[0; 32][..bytes]).payload.to_vec(),
            channel_id,
            channel_type,
            code,
            field,
        ));
    }
    for (payload, channel_id, channel_type, code, field) in cases {
        let send = a.message(channel_id, channel_type, &payload);
        match a.ask_send(send).await {
            Ok(_) => assert_eq!(code, "", "{channel_id} {channel_type} {}", payload.len()),
            Err(refused) => {
                assert_eq!(
                    (&*refused.code, refused.field.as_deref()),
                    (code, Some(field)),
                    "{channel_id} {channel_type} {}",
                    payload.len()
                );
                assert_eq!(refused.retry_after_ms, None);
            }
        }
    }
    let mut send = a.message("b", 1, b"x");
    send.client_msg_no = long_name.as_str().into();
    assert_eq!(a.ask_send(send).await.expect_err("refused").field.as_deref(), Some("client_msg_no"));
    let mut send = a.message("b", 1, b"x");
    send.topic = long_topic.as_str().into();
    assert_eq!(a.ask_send(send).await.expect_err("refused").field.as_deref(), Some("topic"));
    assert_eq!(a.whole_history("b", 1, 1, 0).await.len(), 1);
    assert_eq!(a.whole_history("g", 2, 1, 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_persisted_is_delivered_and_not_stored() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    for (channel_id, channel_type) in [("g", 2), ("b", 1)] {
        let mut send = a.message(channel_id, channel_type, b"now");
        send.no_persist = true;
        let ack = a.ask_send(send).await.expect("acked");
        assert_eq!((ack.message_seq, ack.level), (0, Durability::Memory));
        let now_ms = chinwag::clock::now_ms();
        assert!(ack.timestamp.abs_diff(now_ms) < 60_000, "an ack's time is the time: {}", ack.timestamp);
        assert!(!ack.client_msg_no.is_empty());
        let deliver = b.deliver().await;
        let [m] = &deliver.messages[..] else { panic!("{deliver:?}") };
        assert_eq!((m.message_seq, m.no_persist, &m.payload[..]), (0, true, &b"now"[..]));
        assert_eq!(m.message_id, ack.message_id);
        assert!(m.message_id < 1 << 53);
    }
    assert_eq!(a.whole_history("g", 2, 1, 0).await.len(), 0);
    assert_eq!(a.say("g", 2, b"stored").await.message_seq, 1);
    assert_eq!(a.say("b", 1, b"stored").await.message_seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stored_and_in_no_conversation() {
    let server = Server::on_disk().await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    a.say("b", 1, b"text").await;
    let mut send = a.message("b", 1, b"command");
    send.sync_once = true;
    send.setting = 9;
    send.topic = "t".into();
    assert_eq!(a.ask_send(send).await.expect("acked").message_seq, 2);
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(b.deliver().await.messages);
    }
    assert!(got[1].sync_once);
    assert_eq!((got[1].setting, &*got[1].topic), (9, "t"));
    let synced = b.sync(|s| s.msg_count = 10).await.expect("synced");
    let [row] = &synced.rows[..] else { panic!("{synced:?}") };
    assert_eq!((row.unread, row.last_msg_seq, row.recents.len()), (1, 1, 1));
    assert_eq!(b.whole_history("a", 1, 1, 0).await.len(), 2);
}
