//! Proves stored-once: a retry under the same name gets the first outcome while the first is in flight, after its ack, after
//! a restart and behind 20,000 newer messages; another payload is a conflict; another sender's name is another message; and
//! a message that failed may be sent again under its name.

use chinwag::domain::refusal::ErrorKind;
use protocol::native::{ClientFrame, Encoding};

use crate::harness::{Client, Server, group, until};

async fn named(client: &mut Client, name: &str, payload: &[u8]) -> Result<(u64, u64, bool), (String, Option<u32>)> {
    let mut send = client.message("g", 2, payload);
    send.client_msg_no = name.into();
    match client.ask_send(send).await {
        Ok(ack) => Ok((ack.message_id, ack.message_seq, ack.duplicate)),
        Err(refused) => Err((refused.code.into_owned(), refused.retry_after_ms)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_however_late_gets_the_first_outcome() {
    let server = Server::on_disk().await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let (id, seq, duplicate) = named(&mut a, "one", b"payload").await.expect("acked");
    assert_eq!((seq, duplicate), (1, false));
    assert_eq!(named(&mut a, "one", b"payload").await, Ok((id, 1, true)));
    assert_eq!(named(&mut a, "one", b"other").await, Err(("client_msg_no_conflict".into(), None)));
    let (other_id, other_seq, duplicate) = named(&mut b, "one", b"payload").await.expect("acked");
    assert!(other_id > id);
    assert_eq!((other_seq, duplicate), (2, false), "the same name of another sender");
    // From another device of the same user it is the same message.
    let token = server.user("a").await;
    let mut tablet = Client::connect(&server, &token, Encoding::Json, |_| {}).await;
    assert_eq!(named(&mut tablet, "one", b"payload").await, Ok((id, 1, true)));
    let server = server.restart().await;
    let mut a = server.connect("a").await;
    assert_eq!(named(&mut a, "one", b"payload").await, Ok((id, 1, true)));
    assert_eq!(named(&mut a, "one", b"other").await, Err(("client_msg_no_conflict".into(), None)));
    // Far behind the head, and once more after a restart.
    const NEWER: u64 = 20_000;
    let mut last = 0;
    for n in 0..NEWER {
        let name = format!("newer{n}");
        let mut send = a.message("g", 2, b"x");
        send.client_msg_no = name.as_str().into();
        last = send.client_seq;
        a.feed(&ClientFrame::Send(send)).await;
        if n % 2_000 == 1_999 {
            a.flush().await;
            a.outcome(last).await.expect("acked");
        }
    }
    assert_eq!(a.outcome(last - 1).await.expect("acked").message_seq, NEWER + 1);
    assert_eq!(named(&mut a, "one", b"payload").await, Ok((id, 1, true)));
    let server = server.restart().await;
    let mut a = server.connect("a").await;
    assert_eq!(named(&mut a, "one", b"payload").await, Ok((id, 1, true)));
    assert_eq!(named(&mut a, "one", b"other").await, Err(("client_msg_no_conflict".into(), None)));
    let (_, seq, duplicate) = named(&mut a, "new", b"payload").await.expect("acked");
    assert_eq!((seq, duplicate), (NEWER + 3, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_in_flight_waits_for_the_first() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    let token = server.user("a").await;
    let mut second = Client::connect(&server, &token, Encoding::MessagePack, |_| {}).await;
    store.hold_commits();
    let mut send = a.message("g", 2, b"payload");
    send.client_msg_no = "one".into();
    let first_seq = send.client_seq;
    a.send(&ClientFrame::Send(send)).await;
    until("the first is in flight", || store.commits_held() > 0).await;
    let mut retry = second.message("g", 2, b"payload");
    retry.client_msg_no = "one".into();
    let retry_seq = retry.client_seq;
    second.send(&ClientFrame::Send(retry)).await;
    let mut conflict = second.message("g", 2, b"other");
    conflict.client_msg_no = "one".into();
    assert_eq!(second.ask_send(conflict).await.expect_err("refused").code, "client_msg_no_conflict");
    store.release_commits();
    let first = a.outcome(first_seq).await.expect("acked");
    let again = second.outcome(retry_seq).await.expect("acked");
    assert_eq!((first.message_id, first.message_seq), (again.message_id, again.message_seq));
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(b.delivered().await.len(), 1);
    assert_eq!(b.whole_history("g", 2, 1, 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_refused_with_a_time_and_may_be_sent_again() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    server.group("g", &["a", "b"]).await;
    let mut a = server.connect("a").await;
    let mut b = server.connect("b").await;
    named(&mut a, "zero", b"0").await.expect("acked");
    // The failing lot, those numbered behind it, and a repeat that waits for one of them.
    store.hold_commits();
    let mut waiting = Vec::new();
    for (name, payload) in [("one", b"1"), ("two", b"2"), ("three", b"3"), ("two", b"2")] {
        let mut send = a.message("g", 2, payload);
        send.client_msg_no = name.into();
        waiting.push(send.client_seq);
        a.send(&ClientFrame::Send(send)).await;
        until("it is in flight", || store.commits_held() > 0).await;
    }
    a.pending().await;
    store.fail_next_commit(ErrorKind::Unavailable);
    store.release_commits();
    for client_seq in waiting {
        let refused = a.outcome(client_seq).await.expect_err("refused");
        assert_eq!(refused.code, "store_unavailable");
        assert!(refused.retry_after_ms.is_some());
    }
    for (name, payload, seq) in [("one", b"1", 2), ("two", b"2", 3), ("three", b"3", 4)] {
        let (_, got, duplicate) = named(&mut a, name, payload).await.expect("acked");
        assert_eq!((got, duplicate), (seq, false));
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(b.delivered().await.into_iter().map(|(_, seq, payload)| (seq, payload)));
    }
    assert_eq!(seen, [(1, b"0".to_vec()), (2, b"1".to_vec()), (3, b"2".to_vec()), (4, b"3".to_vec())]);
    // A change of the channel that fails is told too, and works later.
    store.fail_next_commit(ErrorKind::Unavailable);
    let hub = server.app.hub().clone();
    assert!(hub.add_members(group("g"), vec![server.uid("c")], false).await.is_err());
    hub.add_members(group("g"), vec![server.uid("c")], false).await.expect("added");
    named(&mut a, "four", b"4").await.expect("acked");
}
