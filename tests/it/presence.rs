//! Proves: who shares a channel may see a user come and go and strangers may not; signals reach the members who are online,
//! never the sender's own session, and are not stored.

use protocol::native::{ClientFrame, Encoding, Event, Peer, Presence, ServerFrame, Signal};

use crate::harness::{Client, Server};

async fn peers(client: &mut Client, uids: &[&str], watch: bool) -> Vec<Peer<'static>> {
    let client_seq = client.seq();
    let uids = uids.iter().map(|uid| (*uid).into()).collect();
    client.send(&ClientFrame::Presence(Presence { client_seq, uids, watch })).await;
    client
        .expect(|frame| match frame {
            ServerFrame::Peers(peers) if peers.client_seq == client_seq => Some(peers.peers.clone()),
            _ => None,
        })
        .await
}

async fn presence(client: &mut Client) -> (String, bool, bool) {
    client
        .event(|event| match event {
            Event::Presence(peer) => Some((peer.uid.to_string(), peer.online, peer.last_seen_ms.is_some())),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_come_and_go_and_strangers_are_left_out() {
    let server = Server::on_memory().await;
    server.group("g", &["a", "in-group"]).await;
    let mut a = server.connect("a").await;
    a.say("friend", 1, b"hi").await;
    let _stranger = server.connect("stranger").await;
    let seen = peers(&mut a, &["in-group", "friend", "stranger", "nobody", "a"], true).await;
    let seen: Vec<(&str, bool)> = seen.iter().map(|peer| (&*peer.uid, peer.online)).collect();
    assert_eq!(seen, [("in-group", false), ("friend", false), ("a", true)]);
    let friend = server.connect("friend").await;
    assert_eq!(presence(&mut a).await, ("friend".into(), true, false));
    // A second device is no news, and the user is there until the last one is gone.
    let second = server.connect("friend").await;
    drop(friend);
    let in_group = server.connect("in-group").await;
    assert_eq!(presence(&mut a).await, ("in-group".into(), true, false));
    drop(second);
    assert_eq!(presence(&mut a).await, ("friend".into(), false, true));
    let now = peers(&mut a, &["friend"], false).await;
    assert!(!now[0].online && now[0].last_seen_ms.is_some());
    // A new list replaces the old one.
    assert!(peers(&mut a, &["in-group"], true).await[0].online);
    let _friend = server.connect("friend").await;
    drop(in_group);
    assert_eq!(presence(&mut a).await, ("in-group".into(), false, true));
    let strange =
        |frame: &ServerFrame<'_>| matches!(frame, ServerFrame::Event(Event::Presence(p)) if p.uid != "in-group");
    assert!(!a.pending().await.iter().any(strange));
    let client_seq = a.seq();
    let uids = vec!["not a & uid".into()];
    a.send(&ClientFrame::Presence(Presence { client_seq, uids, watch: false })).await;
    assert_eq!(a.outcome(client_seq).await.expect_err("refused").field.as_deref(), Some("uids"));
}

fn typing(client_seq: u64, channel_id: &str, channel_type: u8) -> ClientFrame<'_> {
    ClientFrame::Signal(Signal {
        client_seq,
        channel_id: channel_id.into(),
        channel_type,
        name: "typing".into(),
        data: b"..."[..].into(),
    })
}

async fn signal(client: &mut Client) -> (String, String, String) {
    client
        .event(|event| match event {
            Event::Signal(s) => Some((s.channel_id.to_string(), s.from_uid.to_string(), s.name.to_string())),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_reaches_the_members_who_are_online() {
    let server = Server::on_memory().await;
    server.group("g", &["a", "b"]).await;
    let token = server.user("a").await;
    let mut a = Client::connect(&server, &token, Encoding::Json, |_| {}).await;
    let mut a2 = server.connect("a").await;
    let mut b = server.connect("b").await;
    let mut eve = server.connect("eve").await;
    a.send(&typing(0, "g", 2)).await;
    assert_eq!(signal(&mut b).await, ("g".into(), "a".into(), "typing".into()));
    assert_eq!(signal(&mut a2).await, ("g".into(), "a".into(), "typing".into()));
    // To a person, before any message was sent.
    a.send(&typing(0, "b", 1)).await;
    assert_eq!(signal(&mut b).await, ("a".into(), "a".into(), "typing".into()));
    // A stranger's is refused, when it wants to know.
    let client_seq = eve.seq();
    eve.send(&typing(client_seq, "g", 2)).await;
    assert_eq!(eve.outcome(client_seq).await.expect_err("refused").code, "not_member");
    let client_seq = a.seq();
    let long = "n".repeat(33);
    let mut frame = typing(client_seq, "g", 2);
    if let ClientFrame::Signal(signal) = &mut frame {
        signal.name = long.into();
    }
    a.send(&frame).await;
    assert_eq!(a.outcome(client_seq).await.expect_err("refused").field.as_deref(), Some("name"));
    // What comes behind shows what did not come.
    b.say("g", 2, b"first stored").await;
    a.delivered().await;
    let own = |frame: &ServerFrame<'_>| matches!(frame, ServerFrame::Event(Event::Signal(_)));
    assert!(!a.pending().await.iter().any(own));
    assert!(!eve.pending().await.iter().any(own));
    assert_eq!(b.whole_history("g", 2, 1, 0).await.len(), 1);
}
