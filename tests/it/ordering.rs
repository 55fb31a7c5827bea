//! Proves one-order: with many senders at once, on several shards, every member of a group sees 1, 2, 3 … without a gap or a
//! repeat, each sender's messages in the order it sent them, live, in history and after a restart; and acks of a channel
//! come in its order.

use std::collections::HashMap;

use protocol::native::{ClientFrame, ServerFrame};

use crate::harness::{Client, Server};

const SENDERS: usize = 6;
const EACH: usize = 150;
const GROUPS: usize = 3;

/// Checks one channel's messages as (seq, payload "sender.number").
fn check(messages: &[(u64, String)]) {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (i, (seq, payload)) in messages.iter().enumerate() {
        assert_eq!(*seq, i as u64 + 1, "no gap, no repeat");
        let (sender, number) = payload.split_once('.').expect("payload");
        let number: usize = number.parse().expect("number");
        let before = last.insert(sender, number);
        assert!(before.is_none_or(|before| before < number), "{sender}: {before:?} before {number}");
    }
}

async fn collect(client: &mut Client) -> HashMap<String, Vec<(u64, String)>> {
    let mut seen: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    let mut count = 0;
    while count < SENDERS * EACH * GROUPS {
        for (channel, seq, payload) in client.delivered().await {
            seen.entry(channel).or_default().push((seq, String::from_utf8(payload).expect("text")));
            count += 1;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_sees_one_order() {
    let server = Server::on_disk_with(|c| c.shards = 2).await;
    let names: Vec<String> = (0..SENDERS).map(|n| format!("s{n}")).collect();
    let mut members: Vec<&str> = names.iter().map(String::as_str).collect();
    members.extend(["r1", "r2"]);
    for group in 0..GROUPS {
        server.group(&format!("g{group}"), &members).await;
    }
    let mut readers = Vec::new();
    for name in ["r1", "r2"] {
        let mut reader = server.connect(name).await;
        readers.push(tokio::spawn(async move { collect(&mut reader).await }));
    }
    let mut senders = Vec::new();
    for name in names {
        let mut client = server.connect(&name).await;
        senders.push(tokio::spawn(async move {
            let mut channel_of = HashMap::new();
            for number in 0..EACH {
                for group in 0..GROUPS {
                    let (channel, payload) = (format!("g{group}"), format!("{name}.{number}"));
                    let send = client.message(&channel, 2, payload.as_bytes());
                    channel_of.insert(send.client_seq, group);
                    client.feed(&ClientFrame::Send(send)).await;
                }
            }
            client.flush().await;
            let mut last = [(0, 0); GROUPS];
            let mut acks = 0;
            while acks < EACH * GROUPS {
                match client.next().await {
                    ServerFrame::Ack(ack) => {
                        let last = &mut last[channel_of[&ack.client_seq]];
                        assert!(ack.client_seq > last.0 && ack.message_seq > last.1, "acks of a channel in its order");
                        *last = (ack.client_seq, ack.message_seq);
                        acks += 1;
                    }
                    ServerFrame::Deliver(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for sender in senders {
        sender.await.expect("sender");
    }
    let mut views = Vec::new();
    for reader in readers {
        let seen = reader.await.expect("reader");
        seen.values().for_each(|messages| check(messages));
        views.push(seen);
    }
    assert_eq!(views[0], views[1], "one order for all");
    let server = server.restart().await;
    let mut r1 = server.connect("r1").await;
    for group in 0..GROUPS {
        let channel = format!("g{group}");
        let history = r1.whole_history(&channel, 2, 1, 0).await;
        let history: Vec<(u64, String)> =
            history.iter().map(|m| (m.message_seq, String::from_utf8(m.payload.to_vec()).expect("text"))).collect();
        assert_eq!(&history, &views[0][&channel], "and in history after a restart");
    }
}
