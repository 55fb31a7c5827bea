//! Proves: how a connection begins and ends. Every way to begin wrongly is answered with the close the catalogue names, no
//! way of cutting bytes matters, and nothing a socket does leaves a session behind.

use std::time::Duration;

use protocol::native::{ClientFrame, Encoding, Ping, ServerFrame};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{Client, PATIENCE, Server, until};
use crate::http::Caller;
use crate::raw::{Raw, connect, masked, message, upgrade_request};

const MP: Encoding = Encoding::MessagePack;

async fn first(server: &Server, encoding: Encoding, bytes: &[u8]) -> (Option<String>, Option<u16>) {
    let mut raw = Raw::upgraded(server, Some(encoding.subprotocol())).await;
    raw.write(bytes).await;
    raw.closing(encoding).await
}

fn named(reason: &str, number: u16) -> (Option<String>, Option<u16>) {
    (Some(reason.to_owned()), Some(number))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_beginnings_are_told_why() {
    let server = Server::on_memory().await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    let as_uid = |uid: &'static str| {
        let mut frame = connect(&alice);
        if let ClientFrame::Connect(connect) = &mut frame {
            connect.uid = Some(uid.into());
        }
        message(MP, &frame)
    };
    assert_eq!(first(&server, MP, &message(MP, &connect(""))).await, named("bad_credential", 4001));
    assert_eq!(first(&server, MP, &message(MP, &connect("nonsense"))).await, named("bad_credential", 4001));
    assert_eq!(first(&server, MP, &as_uid("bob")).await, named("bad_credential", 4001));
    assert_eq!(first(&server, MP, &message(MP, &ClientFrame::Ping(Ping {}))).await, named("connect_expected", 4000));
    let unknown = masked(0x81, br#"{"frobnicate":{"client_seq":1}}"#);
    assert_eq!(first(&server, Encoding::Json, &unknown).await, named("connect_expected", 4000));
    assert_eq!(first(&server, Encoding::Json, &masked(0x81, b"hello")).await, named("protocol_error", 1002));
    assert_eq!(first(&server, Encoding::Json, &masked(0x82, b"{}")).await, named("protocol_error", 1002));
    // Not masked, a reserved bit, a control frame that is fragmented.
    assert_eq!(first(&server, MP, &[0x82, 0x01, 0x80]).await.1, Some(1002));
    assert_eq!(first(&server, MP, &masked(0xc2, b"x")).await.1, Some(1002));
    assert_eq!(first(&server, MP, &masked(0x09, b"x")).await.1, Some(1002));
    assert_eq!(server.app.hub().metrics().sessions.get(), 0);
    assert!(server.app.hub().online(&[server.uid("alice"), server.uid("bob")]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_gets_in_nowhere() {
    let server = Server::on_memory().await;
    let token = server.user("alice").await;
    let (root, alice) = (Caller::root(&server), Caller::with(&server, &token));
    let ban = async |ban: u8| {
        root.done("/channel/info", json!({"channel_id": "alice", "channel_type": 1, "ban": ban})).await;
    };
    let mut there = Client::connect(&server, &token, MP, |_| {}).await;
    let read = async |who: &Caller| who.post("/conversation/sync", json!({"uid": "alice"})).await;
    assert_eq!(read(&alice).await.status, 200);
    ban(1).await;
    for encoding in [MP, Encoding::Json] {
        let mut raw = Raw::upgraded(&server, Some(encoding.subprotocol())).await;
        raw.write(&message(encoding, &connect(&token))).await;
        match raw.next(encoding).await {
            Some(ServerFrame::Refused(refused)) => assert_eq!(refused.code, "user_banned"),
            other => panic!("a refusal was expected: {other:?}"),
        }
        assert_eq!(raw.closing(encoding).await, named("bad_credential", 4001));
    }
    // Nor as whom a back end names there.
    let as_alice = ClientFrame::Connect(protocol::native::Connect {
        token: root.credential().to_owned().into(),
        uid: Some("alice".into()),
        ..match connect("") {
            ClientFrame::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(first(&server, MP, &message(MP, &as_alice)).await, named("bad_credential", 4001));
    let refused = read(&alice).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (403, &json!("user_banned")), "{}", refused.json);
    assert_eq!(read(&root).await.status, 200, "a back end reads for whom it likes");
    let as_user = alice.raw("GET", "/chats", &[("token", &token)], "").await;
    assert_eq!(as_user.status, 403, "in every dialect");
    // Who is there stays: WuKongIM asks at the beginning too.
    there.say("bob", 1, b"still here").await;
    ban(0).await;
    assert_eq!(read(&alice).await.status, 200);
    Client::connect(&server, &token, MP, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connect_in_time_is_told_so() {
    let server = Server::on_memory_with(|c| c.session.connect_timeout_ms = 300).await;
    let mut raw = Raw::upgraded(&server, Some(MP.subprotocol())).await;
    assert_eq!(raw.closing(MP).await, named("connect_timeout", 4006));
    // Without even a request nothing can be said.
    let mut silent = Raw::open(&server).await;
    silent.rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_silent_is_asked_and_then_closed() {
    let server = Server::on_memory_with(|c| {
        c.session.heartbeat_ms = 500;
        c.session.idle_timeout_ms = 2_500;
    })
    .await;
    let mut silent = server.connect("silent").await;
    let mut talking = server.connect("talking").await;
    silent.expect(|f| matches!(f, ServerFrame::Ping(_)).then_some(())).await;
    let ended = tokio::spawn(async move { silent.ended().await });
    let begun = tokio::time::Instant::now();
    while !ended.is_finished() {
        assert!(begun.elapsed() < PATIENCE);
        talking.send(&ClientFrame::Ping(Ping {})).await;
        talking.expect(|f| matches!(f, ServerFrame::Pong(_)).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (closing, number) = ended.await.expect("ended");
    assert_eq!((&*closing.expect("told").reason, number), ("idle_timeout", Some(4005)));
    talking.say("talking", 1, b"still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_device_replaces_and_others_do_not() {
    let server = Server::on_memory().await;
    let token = server.user("u").await;
    let on = |device: &'static str, flag: u8| {
        let (server, token) = (&server, &token);
        async move {
            Client::connect(server, token, MP, |c| {
                c.device_id = device.into();
                c.device_flag = flag;
            })
            .await
        }
    };
    let mut old = on("phone", 0).await;
    let mut web = on("phone", 1).await;
    let mut unnamed = on("", 0).await;
    let mut unnamed_too = on("", 0).await;
    let mut new = on("phone", 0).await;
    let (closing, number) = old.ended().await;
    let closing = closing.expect("told");
    assert_eq!((&*closing.reason, number), ("same_device", Some(4003)));
    assert_eq!(closing.reconnect, protocol::native::ReconnectWord::Never);
    for client in [&mut web, &mut unnamed, &mut unnamed_too, &mut new] {
        client.say("u", 1, b"here").await;
    }
    until("four sessions are left", || server.app.hub().metrics().sessions.get() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_refused() {
    let server = Server::on_memory_with(|c| c.limits.connections_per_user_max = 2).await;
    let token = server.user("u").await;
    let _one = Client::connect(&server, &token, MP, |_| {}).await;
    let two = Client::connect(&server, &token, MP, |_| {}).await;
    assert_eq!(first(&server, MP, &message(MP, &connect(&token))).await, named("too_many_connections", 4008));
    drop(two);
    let uid = server.uid("u");
    until("the second is gone", || server.app.hub().online(std::slice::from_ref(&uid)).len() == 1).await;
    let _again = Client::connect(&server, &token, MP, |_| {}).await;

    let server = Server::on_memory_with(|c| c.limits.connections_max = 2).await;
    let token = server.user("u").await;
    let _one = Client::connect(&server, &token, MP, |_| {}).await;
    let _two = Client::connect(&server, &token, MP, |_| {}).await;
    assert_eq!(first(&server, MP, &[]).await, named("too_many_connections", 4008));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_the_protocol_is_closed_and_one_that_errs_is_answered() {
    let server = Server::on_memory_with(|c| c.limits.frame_bytes_max = 128 * 1024).await;
    let token = server.user("u").await;
    let open = || async {
        let mut raw = Raw::upgraded(&server, Some(Encoding::Json.subprotocol())).await;
        raw.write(&message(Encoding::Json, &connect(&token))).await;
        assert!(matches!(raw.next(Encoding::Json).await, Some(ServerFrame::Connected(_))));
        raw
    };
    let mut raw = open().await;
    raw.write(&masked(0x81, br#"{"frobnicate":{"client_seq":7}}"#)).await;
    raw.write(&masked(0x81, br#"{"send":{"client_seq":8,"channel_type":1,"payload":""}}"#)).await;
    raw.write(&masked(0x81, br#"{"send":{"client_seq":9,"channel_id":"bob","channel_type":1,"payload":5}}"#)).await;
    raw.write(&masked(0x81, br#"{"set_unread":{"client_seq":10,"channel_id":"bob","channel_type":1,"unread":-1}}"#))
        .await;
    let mut answers = Vec::new();
    while answers.len() < 4 {
        if let Some(ServerFrame::Refused(refused)) = raw.next(Encoding::Json).await {
            answers.push((refused.client_seq, refused.code.into_owned(), refused.field.map(|f| f.into_owned())));
        }
    }
    answers.sort();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(answers[0], (7, "unknown_frame".into(), None));
    assert_eq!(answers[1], (8, "invalid".into(), some("channel_id")));
    assert_eq!(answers[2], (9, "invalid".into(), some("payload")));
    assert_eq!(answers[3], (10, "invalid".into(), some("unread")));
    // A second connect ends it.
    raw.write(&message(Encoding::Json, &connect(&token))).await;
    assert_eq!(raw.closing(Encoding::Json).await, named("connect_expected", 4000));

    let mut raw = open().await;
    raw.write(&masked(0x81, b"{\"ping\":{}} and more")).await;
    assert_eq!(raw.closing(Encoding::Json).await, named("protocol_error", 1002));

    let mut raw = open().await;
    let _ = raw.stream.write_all(&masked(0x81, &vec![b' '; 200 * 1024])).await;
    assert_eq!(raw.closing(Encoding::Json).await, named("too_large", 1009));

    let mut raw = open().await;
    raw.write(&masked(0x88, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.closing(Encoding::Json).await.1, Some(1000));
    until("all are gone", || server.app.hub().metrics().sessions.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subprotocol_or_the_first_byte_decides() {
    let server = Server::on_memory().await;
    let token = server.user("u").await;
    // Without one: MessagePack by its first byte.
    let mut raw = Raw::upgraded(&server, None).await;
    raw.write(&message(MP, &connect(&token))).await;
    assert!(matches!(raw.next(MP).await, Some(ServerFrame::Connected(_))));
    // JSON needs its subprotocol.
    let mut raw = Raw::upgraded(&server, None).await;
    raw.write(&message(Encoding::Json, &connect(&token))).await;
    assert_eq!(raw.closing(Encoding::Json).await, named("unsupported_protocol", 4009));
    // WuKongIM's clients have no word for a close: a CONNECT that is none, then what nobody speaks.
    let mut raw = Raw::upgraded(&server, None).await;
    raw.write(&masked(0x82, &[0x10, 0x01, 0x05])).await;
    assert_eq!(raw.closing(MP).await, (None, Some(1002)));
    let mut raw = Raw::upgraded(&server, None).await;
    raw.write(&masked(0x82, &[0x70])).await;
    assert_eq!(raw.closing(MP).await, named("unsupported_protocol", 4009));
    // The first known of a list is chosen; only unknown ones of ours are refused.
    let mut raw = Raw::open(&server).await;
    raw.write(&upgrade_request(Some("graphql-ws, chinwag.v1.json, chinwag.v1.msgpack"))).await;
    assert!(raw.head().await.contains("Sec-WebSocket-Protocol: chinwag.v1.json\r\n"));
    let mut raw = Raw::open(&server).await;
    raw.write(&upgrade_request(Some("chinwag.v9.msgpack"))).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_point_http_at_the_port_get_an_answer() {
    let server = Server::on_memory().await;
    for (request, status, says) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "426", "WebSocket"),
        ("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", "404", "HTTP API"),
        ("POST /message/send HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "405", "HTTP API"),
        ("\x16\x03\x01 a TLS hello\r\n\r\n", "400", "wss://"),
    ] {
        let mut raw = Raw::open(&server).await;
        raw.write(request.as_bytes()).await;
        let answer = String::from_utf8(raw.rest().await).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(says), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_bytes_are_cut_does_not_matter() {
    let server = Server::on_memory().await;
    let token = server.user("u").await;
    let json = Encoding::Json;
    let send = ClientFrame::Send(protocol::native::Send {
        client_seq: 1,
        channel_id: "u".into(),
        channel_type: 1,
        client_msg_no: "n".into(),
        payload: b"hi"[..].into(),
        ..protocol::native::Send::default()
    });
    // All in one packet: the frames stand behind the request head.
    let mut all = upgrade_request(Some(json.subprotocol()));
    all.extend(message(json, &connect(&token)));
    all.extend(message(json, &send));
    let mut raw = Raw::open(&server).await;
    raw.write(&all).await;
    raw.head().await;
    assert!(matches!(raw.next(json).await, Some(ServerFrame::Connected(_))));
    assert!(matches!(raw.next(json).await, Some(ServerFrame::Ack(ack)) if ack.message_seq == 1));
    // Byte by byte.
    let mut raw = Raw::open(&server).await;
    for byte in &all {
        raw.write(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    raw.head().await;
    assert!(matches!(raw.next(json).await, Some(ServerFrame::Connected(_))));
    assert!(matches!(raw.next(json).await, Some(ServerFrame::Ack(ack)) if ack.duplicate));
    // The connect as fragments with a ping between them.
    let mut payload = Vec::new();
    protocol::native::encode_client(json, &connect(&token), &mut payload).expect("encodes");
    let (head, rest) = payload.split_at(10);
    let mut raw = Raw::upgraded(&server, Some(json.subprotocol())).await;
    raw.write(&masked(0x01, head)).await;
    raw.write(&masked(0x89, b"ping")).await;
    assert_eq!(raw.frame().await, Some((10, b"ping".to_vec())));
    raw.write(&masked(0x80, rest)).await;
    assert!(matches!(raw.next(json).await, Some(ServerFrame::Connected(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_runs_out_of_time_leaves_no_session() {
    let server = Server::on_disk_with(|c| c.session.connect_timeout_ms = 150).await;
    let token = server.user("u").await;
    // Thousands of groups make the look-up of a session's channels long in a debug build; the time runs out in it or
    // before or behind it, and whatever happened, nobody is online once the socket is gone.
    for n in 0..40 {
        server.group(&format!("g{n}"), &["u"]).await;
    }
    let uid = server.uid("u");
    for delay_ms in [149_u64, 149, 148, 147, 146, 145, 144, 142, 140, 150] {
        let mut raw = Raw::upgraded(&server, Some(MP.subprotocol())).await;
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let _ = raw.stream.write_all(&message(MP, &connect(&token))).await;
        drop(raw);
    }
    until("nobody is online", || server.app.hub().online(std::slice::from_ref(&uid)).is_empty()).await;
    until("no connection is left", || server.app.hub().metrics().connections.get() == 0).await;
    assert!(server.app.hub().online(std::slice::from_ref(&uid)).is_empty());
}
