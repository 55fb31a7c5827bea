//! Proves: what happens to a streamed message reaches who is online, in order and behind the message: EVENT for WKProto 5 and
//! 6, `event` over JSON-RPC, `stream` on the native wire, nothing for older clients; each side of a pair sees its peer as the
//! channel; private lanes reach the sender only.

use protocol::native::{Event, LaneStatus, ServerFrame, StreamEvent};
use serde_json::{Value, json};

use super::client::{Got, Way, Wk};
use super::rpc::Rpc;
use crate::harness::Server;
use crate::http::Caller;
use crate::http_wukong_events::base;

/// id, type, and what it says of the lane.
type Said = (String, String, Value);

async fn event(wk: &mut Wk) -> (i64, Said) {
    wk.expect(|got| match got {
        Got::Event { id, event_type, timestamp, data } => {
            let data = serde_json::from_slice(data).expect("JSON");
            Some((*timestamp, (id.clone(), event_type.clone(), data)))
        }
        _ => None,
    })
    .await
}

async fn stream(native: &mut crate::harness::Client) -> StreamEvent<'static> {
    native
        .event(|event| match event {
            Event::Stream(event) => Some(event.clone()),
            _ => None,
        })
        .await
}

fn body(channel_id: &str, channel_type: u8, name: &str, id: &str, event_type: &str, payload: Value) -> Value {
    json!({
        "channel_id": channel_id, "channel_type": channel_type, "from_uid": "bot", "client_msg_no": name,
        "event_id": id, "event_type": event_type, "payload": payload, "occurred_at": 1_700_000_000_000_u64,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_seen_by_who_can_read_it() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let uids = ["bot", "v2", "v3", "v4", "v5", "v5tcp", "v6", "rpc", "native"];
    server.group("g", &uids).await;
    let mut old = Vec::new();
    for (version, way) in [(2, Way::WebSocket), (3, Way::Tcp), (4, Way::WebSocket)] {
        old.push(Wk::connect(&server, version, way, &format!("v{version}")).await);
    }
    let mut new = Vec::new();
    for (version, way, uid) in [(5, Way::WebSocket, "v5"), (5, Way::Tcp, "v5tcp"), (6, Way::WebSocket, "v6")] {
        new.push(Wk::connect(&server, version, way, uid).await);
    }
    let mut rpc = Rpc::connect(&server, "rpc", 0x81).await;
    let mut native = server.connect("native").await;

    let sent = base(&root, "bot", "g", 2, "m1").await;
    let said = [
        ("e1", "stream.delta", json!({"kind": "text", "delta": "Hel"})),
        ("e2", "Stream.Delta", json!({"kind": "text", "delta": "lo"})),
        ("e3", "stream.close", json!({"end_reason": 0})),
        ("e4", "stream.finish", Value::Null),
    ];
    for (id, event_type, payload) in &said {
        root.done("/message/event", body("g", 2, "m1", id, event_type, payload.clone())).await;
    }
    // A repeat is not told again.
    root.done("/message/event", body("g", 2, "m1", "e4", "stream.finish", Value::Null)).await;
    root.send("bot", "g", 2, "behind").await;

    let data = |at: usize| {
        let keys = ["main", "main", "main", "__finish__"];
        let (seqs, status) = ([0, 0, 1, 2], ["open", "open", "closed", "closed"]);
        let mut data = json!({
            "client_msg_no": "m1", "channel_id": "g", "channel_type": 2, "from_uid": "bot",
            "message_id": sent["message_id"], "event_key": keys[at], "msg_event_seq": seqs[at],
            "stream_status": status[at], "visibility": "public",
        });
        if !said[at].2.is_null() {
            data["payload"] = said[at].2.clone();
        }
        data
    };
    for wk in &mut new {
        // In order with the messages: nothing is kept aside.
        let mut order = Vec::new();
        while order.len() < 2 + said.len() {
            order.push(match wk.receive().await.expect("a packet") {
                Got::Recv(message) => (message.client_msg_no, String::new(), Value::Null),
                Got::Event { id, event_type, timestamp, data } => {
                    assert_eq!(timestamp, 1_700_000_000_000);
                    (id, event_type, serde_json::from_slice(&data).expect("JSON"))
                }
                other => panic!("neither: {other:?}"),
            });
        }
        assert_eq!(order[0].0, "m1");
        assert!(order[5].1.is_empty());
        for (at, (id, event_type, _)) in said.iter().enumerate() {
            assert_eq!(order[at + 1], ((*id).to_owned(), (*event_type).to_owned(), data(at)));
        }
        assert_eq!(wk.pending().await, []);
    }
    for wk in &mut old {
        assert_eq!(wk.recv().await.client_msg_no, "m1");
        assert_eq!(wk.recv().await.payload, b"behind", "{:?}", wk.version);
        assert_eq!(wk.pending().await, [], "{:?}", wk.version);
    }
    assert_eq!(rpc.next().await["params"]["clientMsgNo"], "m1");
    for (at, (id, event_type, _)) in said.iter().enumerate() {
        let notice = rpc.next().await;
        assert_eq!((&notice["method"], notice.get("id")), (&json!("event"), None));
        let params = &notice["params"];
        assert_eq!((&params["id"], &params["type"]), (&json!(id), &json!(event_type)));
        assert_eq!(params["timestamp"], 1_700_000_000_000_u64);
        let told: Value = serde_json::from_str(params["data"].as_str().expect("a text")).expect("JSON");
        assert_eq!(told, data(at));
    }
    assert_eq!(rpc.next().await["method"], "recv");

    let delivered = native.deliver().await;
    assert_eq!((&*delivered.messages[0].client_msg_no, delivered.messages[0].setting), ("m1", 2));
    let mut version = 0;
    for (at, (id, event_type, payload)) in said.iter().enumerate() {
        let event = stream(&mut native).await;
        assert_eq!((&*event.channel_id, event.channel_type, event.message_seq), ("g", 2, 1));
        assert_eq!((&*event.event_id, &*event.event_type), (*id, *event_type));
        let bytes = if payload.is_null() { String::new() } else { payload.to_string() };
        assert_eq!(&*event.payload, bytes.as_bytes());
        match at {
            0 | 1 => assert_eq!((event.version, event.snapshot.len(), event.status), (0, 0, LaneStatus::Open)),
            2 => assert_eq!(&*event.snapshot, br#"{"kind":"text","text":"Hello"}"#, "what is over comes whole"),
            _ => assert!(event.version > version),
        }
        version = event.version;
    }
    // What is stored is in every page of the native wire too.
    let page = native.whole_history("g", 2, 1, 0).await;
    let lanes: Vec<_> = page[0].lanes.iter().map(|lane| (&*lane.event_key, lane.status, lane.msg_event_seq)).collect();
    assert_eq!(lanes, [("main", LaneStatus::Closed, 1), ("__finish__", LaneStatus::Closed, 2)]);
    assert_eq!(&*page[0].lanes[0].snapshot, br#"{"kind":"text","text":"Hello"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_a_pair_sees_the_other_as_the_channel() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let mut bot = Wk::connect(&server, 5, Way::Tcp, "bot").await;
    let mut user = Wk::connect(&server, 6, Way::WebSocket, "user").await;
    let mut rpc = Rpc::connect(&server, "rpcuser", 0x81).await;
    base(&root, "bot", "user", 1, "m1").await;
    assert_eq!((&*bot.recv().await.channel_id, &*user.recv().await.channel_id), ("user", "bot"));
    let hello = json!({"kind": "text", "delta": "hello"});
    root.done("/message/event", body("user", 1, "m1", "e1", "stream.delta", hello.clone())).await;
    for (wk, peer) in [(&mut bot, "user"), (&mut user, "bot")] {
        let (_, (id, _, data)) = event(wk).await;
        assert_eq!((&*id, &data["channel_id"], &data["from_uid"]), ("e1", &json!(peer), &json!("bot")));
    }
    base(&root, "bot", "rpcuser", 1, "m2").await;
    root.done("/message/event", body("rpcuser", 1, "m2", "e1", "stream.close", hello)).await;
    assert_eq!(rpc.next().await["params"]["channelId"], "bot");
    let data = rpc.next().await["params"]["data"].clone();
    let data: Value = serde_json::from_str(data.as_str().expect("a text")).expect("JSON");
    assert_eq!((&data["channel_id"], &data["stream_status"]), (&json!("bot"), &json!("closed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_lanes_are_told_to_the_sender_only() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    server.group("g", &["bot", "alice", "native"]).await;
    let mut bot = Wk::connect(&server, 5, Way::WebSocket, "bot").await;
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    let mut native = server.connect("native").await;
    base(&root, "bot", "g", 2, "m1").await;
    let text = |delta: &str| json!({"kind": "text", "delta": delta});
    for (id, event_type, key, visibility) in [
        ("t1", "stream.delta", "thoughts", "private"),
        ("t2", "stream.close", "thoughts", ""),
        ("c1", "stream.snapshot", "cost", "restricted"),
        ("e1", "stream.delta", "main", "public"),
    ] {
        let mut event = body("g", 2, "m1", id, event_type, text(key));
        (event["event_key"], event["visibility"]) = (key.into(), visibility.into());
        root.done("/message/event", event).await;
    }
    for expected in ["t1", "t2", "c1", "e1"] {
        assert_eq!(event(&mut bot).await.1.0, expected);
    }
    assert_eq!(event(&mut alice).await.1.0, "e1");
    assert_eq!(&*stream(&mut native).await.event_id, "e1");
    root.done("/message/event", body("g", 2, "m1", "f", "stream.finish", Value::Null)).await;
    assert_eq!((event(&mut alice).await.1.0, event(&mut bot).await.1.0), ("f".to_owned(), "f".to_owned()));
    assert!(native.whole_history("g", 2, 1, 0).await[0].lanes.iter().all(|lane| lane.event_key != "thoughts"));
    assert!(!alice.pending().await.iter().any(|got| matches!(got, Got::Event { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_and_who_was_away_has_it_all() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    server.group("g", &["bot", "native"]).await;
    base(&root, "bot", "g", 2, "m1").await;
    let mut native = server.connect("native").await;
    let synced = native.sync(|_| {}).await.expect("synced");
    let text = |delta: &str| json!({"kind": "text", "delta": delta});
    root.done("/message/event", body("g", 2, "m1", "e1", "stream.delta", text("Hel"))).await;
    assert_eq!(&*stream(&mut native).await.event_id, "e1");
    drop(native);
    root.done("/message/event", body("g", 2, "m1", "e2", "stream.delta", text("lo"))).await;
    root.done("/message/event", body("g", 2, "m1", "e3", "stream.close", Value::Null)).await;
    // Its row says which message changed, as for an edit.
    let mut native = server.connect("native").await;
    let again = native.sync(|sync| sync.version = synced.version).await.expect("synced");
    let row = again.rows.iter().find(|row| row.channel_id == "g").expect("the channel changed");
    assert_eq!(row.changed, [1]);
    let page = native.whole_history("g", 2, 1, 0).await;
    assert_eq!(&*page[0].lanes[0].snapshot, br#"{"kind":"text","text":"Hello"}"#);
    let frames = native.pending().await;
    assert!(!frames.iter().any(|frame| matches!(frame, ServerFrame::Event(Event::Stream(_)))), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_never_comes_before_its_message() {
    use chinwag::domain::channel::Standing;
    use chinwag::domain::event::NewEvent;
    use chinwag::domain::message::{Draft, Durability, MessageFlags};
    use chinwag::hub::Reader;
    use chinwag::hub::messages::events::Sending;
    use chinwag::hub::streams::Name;

    const MESSAGES: usize = 300;
    let server = Server::on_memory().await;
    server.group("g", &["bot", "r0", "r1", "r2", "r3"]).await;
    let mut readers = Vec::new();
    for n in 0..4 {
        // Of both shards, most likely.
        readers.push(Wk::connect(&server, 6, Way::Tcp, &format!("r{n}")).await);
    }
    let (hub, bot, key) = (server.app.hub(), server.uid("bot"), crate::harness::group("g"));
    for n in 0..MESSAGES {
        let draft = Draft {
            channel: key.clone(),
            from_uid: bot.clone(),
            client_msg_no: None,
            flags: MessageFlags::default(),
            setting: 2,
            topic: String::new(),
            expire_s: 0,
            payload: b"x".as_slice().into(),
            extras: None,
            durability: Durability::Disk,
        };
        let sent = hub.send(draft, Standing::Trusted).await.expect("sent");
        let to = Name { key: key.clone(), from_uid: Some(bot.clone()), client_msg_no: sent.client_msg_no };
        for (step, event_type) in ["stream.delta", "agent.step", "stream.delta", "stream.close"].iter().enumerate() {
            let id = format!("{n}.{step}");
            let event = NewEvent::new((&id, event_type, ""), "", 1, bytes::Bytes::new()).expect("an event");
            let sending = Sending { actor: Reader::Trusted, to: to.clone() };
            hub.message_event(sending, event).await.expect("taken");
        }
        // Read as it comes: who is behind loses deltas.
        let expected = [n.to_string(), format!("{n}.0"), format!("{n}.1"), format!("{n}.2"), format!("{n}.3")];
        for reader in &mut readers {
            let mut came = Vec::new();
            while came.len() < expected.len() {
                came.push(match reader.receive().await.expect("a packet") {
                    Got::Recv(message) => format!("{}", message.message_seq - 1),
                    Got::Event { id, .. } => id,
                    other => panic!("neither: {other:?}"),
                });
            }
            assert_eq!(came, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_one_message_keep_its_numbers() {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let server = Server::on_disk().await;
    let root = std::sync::Arc::new(Caller::root(&server));
    server.group("g", &["bot", "reader"]).await;
    let mut reader = Wk::connect(&server, 6, Way::Tcp, "reader").await;
    base(&root, "bot", "g", 2, "m1").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let root = root.clone();
        writers.spawn(async move {
            for n in 0..EACH {
                let (id, key) = (format!("{writer}.{n}"), format!("k{writer}"));
                let event_type = if n % 5 == 4 { "agent.step" } else { "stream.delta" };
                let text = json!({"kind": "text", "delta": format!("{n},")});
                let mut event = body("g", 2, "m1", &id, event_type, text);
                event["event_key"] = key.into();
                root.done("/message/event", event).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer");
    }
    root.done("/message/event", body("g", 2, "m1", "f", "stream.finish", Value::Null)).await;
    let mut seen: Vec<Vec<String>> = vec![Vec::new(); WRITERS];
    let mut numbers = Vec::new();
    loop {
        let (_, (id, event_type, data)) = event(&mut reader).await;
        if event_type != "stream.delta" {
            numbers.push(data["msg_event_seq"].as_u64().expect("a number"));
        }
        if id == "f" {
            break;
        }
        let (writer, n) = id.split_once('.').expect("a name");
        seen[writer.parse::<usize>().expect("a number")].push(n.to_owned());
    }
    let all: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
    assert!(seen.iter().all(|seen| *seen == all), "in order, each once: {seen:?}");
    // Every stored event has the next number; the end closes the lanes first.
    let stored = (WRITERS * EACH / 5) as u64;
    let expected: Vec<u64> = (1..=stored).chain([stored + WRITERS as u64 + 1]).collect();
    assert_eq!(numbers, expected);
    let body = json!({"login_uid": "reader", "channel_id": "g", "channel_type": 2, "limit": 9});
    let meta = root.done("/channel/messagesync", body).await["messages"][0]["event_meta"].clone();
    let deltas: String = (0..EACH).filter(|n| n % 5 != 4).map(|n| format!("{n},")).collect();
    for lane in meta["events"].as_array().expect("lanes") {
        assert_eq!((&lane["snapshot"]["text"], &lane["status"]), (&json!(deltas), &json!("closed")));
    }
}
