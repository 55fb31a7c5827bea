//! Proves: a send is acked with its seq and id, delivered to the peer in order and once, in both encodings.

use protocol::ids::ChannelKey;
use protocol::ids::ChannelType;
use protocol::native::{ClientFrame, Encoding, ServerFrame};

use crate::harness::{Client, Server};

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
    let group = ChannelKey::named("g", ChannelType::Group).expect("key");
    let members = ["a", "b", "c"].map(|uid| server.uid(uid)).to_vec();
    let mut a = server.connect("a").await;
    server.app.hub().put_channel(group, None, members, false).await.expect("group is made");
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
    let send = eve.message("g", 2, b"let me in");
    eve.send(&ClientFrame::Send(send)).await;
    let code = eve
        .expect(|frame| match frame {
            ServerFrame::Refused(refused) => Some(refused.code.to_string()),
            _ => None,
        })
        .await;
    assert_eq!(code, "not_member");
}
