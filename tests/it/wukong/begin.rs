//! Proves: who may connect, what a failure is told, and what ends a session: kicks, drains, silence.

use std::time::Duration;

use chinwag::domain::channel::ChannelSettings;
use protocol::ids::{ChannelKey, DeviceFlag};
use protocol::wukong::{Packet, Reason};

use super::client::{Hello, KINDS, Way, Wk, bytes_of, token};
use crate::harness::{Client, Server, until};
use crate::raw::{Raw, masked, upgrade_request};

/// How often a wrong credential was refused, in the metrics.
const REFUSED: &str = "chinwag_refusals_total{code=\"credential_unknown\"} ";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_is_told_and_leaves_nothing_behind() {
    let server = Server::on_memory().await;
    let good = token(&server, "alice", 1, 0).await;
    token(&server, "bob", 1, 0).await;
    for (version, way) in KINDS {
        let hello = Hello::new(version, way, "alice", &good);
        for wrong in [
            Hello { token: "wrong".into(), ..hello.clone() },
            Hello { token: String::new(), ..hello.clone() },
            Hello { uid: "bob".into(), ..hello.clone() },
            Hello { uid: String::new(), ..hello.clone() },
            Hello { uid: "a@b".into(), ..hello.clone() },
            // A token is of one device kind.
            Hello { device_flag: 0, ..hello.clone() },
            Hello { token: "x".repeat(5_000), ..hello.clone() },
        ] {
            let outcome = Wk::begin(&server, &wrong).await.err();
            assert_eq!(outcome, Some(Some(Reason::AUTH_FAIL)), "{wrong:?}");
        }
        let keyless = Hello { key: false, ..hello.clone() };
        let expected = if version == 6 { Reason::CLIENT_KEY_IS_EMPTY } else { Reason::AUTH_FAIL };
        assert_eq!(Wk::begin(&server, &keyless).await.err(), Some(Some(expected)));
        assert!(Wk::begin(&server, &hello).await.is_ok());
    }
    until("all have gone", || server.app.hub().metrics().connections.get() == 0).await;
    assert!(server.app.hub().online(&[server.uid("alice"), server.uid("bob")]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_does_not_get_in() {
    let server = Server::on_memory().await;
    let good = token(&server, "alice", 1, 0).await;
    let of_alice = || ChannelKey::person(&server.uid("alice"), &server.uid("alice"));
    for banned in [true, false] {
        let settings = ChannelSettings { ban: banned, ..ChannelSettings::default() };
        server.app.hub().put_channel(of_alice(), Some(settings), Vec::new(), false).await.expect("is put");
        for (version, way) in KINDS {
            let outcome = Wk::begin(&server, &Hello::new(version, way, "alice", &good)).await.err();
            assert_eq!(outcome, banned.then_some(Some(Reason::BAN)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_read_even_behind_early_sends() {
    let server = Server::on_memory().await;
    for way in [Way::WebSocket, Way::Tcp] {
        for _ in 0..20 {
            let mut client = Wk::open(&server, 5, way).await;
            let (connect, secret) = Hello::new(5, way, "alice", "wrong").packet();
            client.write(&connect).await;
            for number in 0..50 {
                let send = client.message(&number.to_string(), "bob", 1, &[b'x'; 2_000]);
                let bytes = bytes_of(client.version, &Packet::Send(send));
                let sent = if way == Way::WebSocket { masked(0x82, &bytes) } else { bytes };
                // It may have been closed already.
                if tokio::io::AsyncWriteExt::write_all(&mut client.raw.stream, &sent).await.is_err() {
                    break;
                }
            }
            assert_eq!(client.finish(&secret).await.err(), Some(Some(Reason::AUTH_FAIL)));
        }
    }
}

/// A close with unread bytes throws away what the peer's window had no room for, so the server reads on until its client has
/// had time to read. The window is filled by pongs here: on loopback what fits into it arrives whatever follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_waits_for_a_client_that_reads_late() {
    let server = Server::on_memory().await;
    let refused = || server.app.hub().metrics().render(&chinwag::store::StoreStats::default(), true);
    let count =
        |text: String| text.lines().find_map(|l| l.strip_prefix(REFUSED)?.trim().parse::<u64>().ok()).unwrap_or(0);
    let mut told = 0;
    // The server waits for a second, which a busy machine may take away from one of them.
    for attempt in 0..5 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the smallest there is");
        let stream = socket.connect(server.app.socket_addr()).await.expect("connects");
        let mut raw = Raw { stream, buffer: Vec::new() };
        raw.write(&upgrade_request(None)).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101"));
        let (connect, _) = Hello::new(5, Way::WebSocket, "alice", "wrong").packet();
        let pings = masked(0x89, &[b'x'; 125]).repeat(100);
        let late = masked(0x82, &vec![b'x'; 60_000]);
        raw.write(&[pings, masked(0x82, &connect), late].concat()).await;
        until("it is refused", || count(refused()) > attempt).await;
        // Time to close, for a server that would.
        let closed = until("it is closed", || server.app.hub().metrics().connections.get() == 0);
        let _ = tokio::time::timeout(Duration::from_millis(300), closed).await;
        while let Some((opcode, payload)) = raw.frame().await {
            if opcode == 2 {
                assert_eq!(payload[0] >> 4, 2, "CONNACK");
                told += 1;
            }
        }
        if told > 0 {
            return;
        }
    }
    panic!("none was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_token_checks_anybody_is_a_slave() {
    let server = Server::on_memory_with(|c| c.wukong.token_auth = false).await;
    let hello = |device: &str| Hello { device_id: device.into(), ..Hello::new(5, Way::WebSocket, "alice", "") };
    let mut one = Wk::begin(&server, &hello("one")).await.expect("connects");
    let mut two = Wk::begin(&server, &hello("two")).await.expect("connects");
    let empty = Wk::begin(&server, &Hello { uid: String::new(), ..hello("x") }).await;
    assert_eq!(empty.err(), Some(Some(Reason::AUTH_FAIL)));
    assert_eq!(one.send("", "bob", 1, b"{}").await.reason, Reason::SUCCESS);
    assert_eq!(two.recv().await.message_seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_payloads_travel_as_they_are() {
    let server = Server::on_memory_with(|c| c.wukong.encryption = false).await;
    let mut clients = Vec::new();
    for (version, way) in KINDS {
        let uid = format!("u{}", clients.len());
        let token = token(&server, &uid, 1, 0).await;
        let hello = Hello { key: version == 2, ..Hello::new(version, way, &uid, &token) };
        let client = Wk::begin(&server, &hello).await.expect("connects");
        assert!(client.cipher.is_none());
        clients.push(client);
    }
    server.group("g", &["u0", "u1", "u2", "u3", "u4", "u5"]).await;
    assert_eq!(clients[0].send("", "g", 2, b"not even {JSON}").await.reason, Reason::SUCCESS);
    for client in &mut clients[1..] {
        assert_eq!(client.recv().await.payload, b"not even {JSON}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kicks_follow_device_and_level() {
    let server = Server::on_memory().await;
    for way in [Way::WebSocket, Way::Tcp] {
        let uid = format!("u{way:?}");
        let slave = token(&server, &uid, 1, 0).await;
        let on = |device: &str, flag: u8, token: &str| Hello {
            device_id: device.into(),
            device_flag: flag,
            ..Hello::new(5, way, &uid, token)
        };
        let mut old = Wk::begin(&server, &on("phone", 1, &slave)).await.expect("connects");
        let mut stays = Wk::begin(&server, &on("pad", 1, &slave)).await.expect("connects");
        // The same device: closed without a word, and the other stays.
        let mut new = Wk::begin(&server, &on("phone", 1, &slave)).await.expect("connects");
        assert_eq!(old.ended().await, None);
        assert_eq!(new.send("", "x", 1, b"{}").await.reason, Reason::SUCCESS);
        stays.recv().await;
        // A master: all others of its kind are told to stay away. It is the token of another kind here, so that setting it
        // kicks nobody.
        let pc = token(&server, &uid, 2, 1).await;
        let mut first = Wk::begin(&server, &on("one", 2, &pc)).await.expect("connects");
        let _second = Wk::begin(&server, &on("two", 2, &pc)).await.expect("connects");
        assert_eq!(first.ended().await, Some((Reason::CONNECT_KICK, "login in other device".to_owned())));
        assert_eq!(stays.pending().await, []);
        // What a back end ends is told too.
        server.app.hub().remove_token(server.uid(&uid), DeviceFlag(1)).await.expect("removed");
        for client in [&mut new, &mut stays] {
            assert_eq!(client.ended().await, Some((Reason::CONNECT_KICK, "server kick".to_owned())));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_ends_native_sessions_of_its_kind_too() {
    let server = Server::on_memory().await;
    let token = token(&server, "alice", 1, 1).await;
    let mut native = Client::connect(&server, &token, protocol::native::Encoding::Json, |c| {
        c.device_flag = 1;
        c.device_id = "tab".into();
    })
    .await;
    let _master = Wk::begin(&server, &Hello::new(5, Way::WebSocket, "alice", &token)).await.expect("connects");
    let (closing, number) = native.ended().await;
    assert_eq!((&*closing.expect("told").reason, number), ("other_device", Some(4010)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_without_disconnect_so_that_clients_come_back() {
    let server = Server::on_memory().await;
    let mut socket = Wk::connect(&server, 5, Way::WebSocket, "a").await;
    let mut stream = Wk::connect(&server, 6, Way::Tcp, "b").await;
    let unready = Wk::open(&server, 5, Way::Tcp).await;
    let ended = tokio::spawn(async move {
        assert_eq!((socket.ended().await, socket.close_number), (None, Some(1012)));
        assert_eq!(stream.ended().await, None);
        drop(unready);
    });
    let report = server.app.drain().await;
    assert!(report.clean && report.sessions == 2, "{report}");
    ended.await.expect("ended as they should");
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_behind_the_beginning_of_a_drain_are_left_to_their_repeat() {
    let server = Server::on_memory().await;
    let mut clients = Vec::new();
    for (version, way) in KINDS {
        clients.push(Wk::connect(&server, version, way, "alice").await);
    }
    server.app.hub().begin_drain();
    for alice in &mut clients {
        let send = alice.message("n", "bob", 1, b"{}");
        alice.say(&Packet::Send(send)).await;
        assert_eq!(alice.pending().await, [], "a refusal would be the SDK's last word on the message: {:?}", alice.way);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_sockets_before_and_after_connack() {
    let server = Server::on_memory_with(|c| {
        c.session.connect_timeout_ms = 300;
        c.session.heartbeat_ms = 500;
        c.session.idle_timeout_ms = 1_500;
    })
    .await;
    for way in [Way::WebSocket, Way::Tcp] {
        let mut unready = Wk::open(&server, 5, way).await;
        unready.write(&[0x10]).await;
        unready.gone().await;
        let mut silent = Wk::connect(&server, 5, way, "silent").await;
        // It is asked nothing: the JavaScript SDKs lose packets behind a PING.
        assert_eq!(silent.ended().await, None);
        assert_eq!(silent.close_number, (way == Way::WebSocket).then_some(4005));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_connections_hold() {
    let server = Server::on_memory_with(|c| c.limits.connections_per_user_max = 2).await;
    let token = token(&server, "u", 1, 0).await;
    for way in [Way::WebSocket, Way::Tcp] {
        let hello = Hello::new(5, way, "u", &token);
        let _one = Wk::begin(&server, &hello).await.expect("connects");
        let _two = Wk::begin(&server, &hello).await.expect("connects");
        // Closed and not refused: a failure CONNACK would make the SDKs give up.
        assert_eq!(Wk::begin(&server, &hello).await.err(), Some(None));
        drop((_one, _two));
        let uid = server.uid("u");
        until("both are gone", || server.app.hub().online(std::slice::from_ref(&uid)).is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_namespace_see_bare_ids_only() {
    let server = Server::on_memory().await;
    let credentials = chinwag::credentials::Credentials::open(&server.config.data_dir).expect("credentials");
    let mut members = Vec::new();
    for uid in ["alice", "bob"] {
        let member = protocol::ids::Uid::in_namespace(Some("tenant"), uid).expect("a uid");
        let hash = credentials.hash(&format!("{uid}-of-tenant"));
        server.app.hub().set_token(member.clone(), DeviceFlag(1), 0, hash).await.expect("token is set");
        members.push(member);
    }
    let key = protocol::ids::ChannelKey::named_in(Some("tenant"), "g", protocol::ids::ChannelType::Group);
    server.app.hub().put_channel(key.expect("a key"), None, members, false).await.expect("group is made");
    // The same names outside of it are other users.
    let mut outside = Wk::connect(&server, 5, Way::WebSocket, "bob").await;
    for (version, way) in KINDS {
        let hello = |uid: &str| Hello::new(version, way, uid, &format!("{uid}-of-tenant"));
        let mut alice = Wk::begin(&server, &hello("alice")).await.expect("connects");
        let mut bob = Wk::begin(&server, &hello("bob")).await.expect("connects");
        for (to, channel_type, seen) in [("bob", 1, "alice"), ("g", 2, "g")] {
            assert_eq!(alice.send("", to, channel_type, b"{}").await.reason, Reason::SUCCESS);
            let message = bob.recv().await;
            assert_eq!((&*message.from_uid, &*message.channel_id), ("alice", seen));
        }
        let stranger = Hello { uid: "bob".into(), ..hello("alice") };
        assert_eq!(Wk::begin(&server, &stranger).await.err(), Some(Some(Reason::AUTH_FAIL)));
    }
    assert_eq!(outside.pending().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_key_connects_as_any_user_and_any_path_is_taken() {
    let server = Server::on_memory().await;
    let key = std::fs::read_to_string(server.config.data_dir.join("root.key")).expect("a root key");
    let hello = Hello::new(5, Way::WebSocket, "anybody", key.trim());
    let (connect, secret) = hello.packet();
    let mut client = Wk::open(&server, 5, Way::WebSocket).await;
    client.raw = crate::raw::Raw::open(&server).await;
    let request = String::from_utf8(crate::raw::upgrade_request(None)).expect("text");
    client.raw.write(request.replace("GET / ", "GET /ws?token=x ").as_bytes()).await;
    assert!(client.raw.head().await.starts_with("HTTP/1.1 101 "));
    client.write(&connect).await;
    client.finish(&secret).await.expect("CONNACK says success");
    assert_eq!(client.send("", "x", 1, b"{}").await.reason, Reason::SUCCESS);
}
