//! Proves: JSON-RPC sessions on the WebSocket port, in the forms both SDK families take.

use protocol::jsonrpc::{ServerMessage, Spelling, decode_server, encode_client};
use protocol::wukong::{Connect, Packet, Reason, Send};
use serde_json::{Value, json};

use super::client::{Way, Wk, token};
use crate::harness::{PATIENCE, Server};
use crate::raw::{Raw, masked};

pub struct Rpc {
    pub raw: Raw,
}

impl Rpc {
    pub async fn connect(server: &Server, uid: &str, opcode: u8) -> Self {
        let token = token(server, uid, 1, 0).await;
        Self::with(server, uid, &token, opcode).await
    }

    /// With a token of one's own.
    pub async fn with(server: &Server, uid: &str, token: &str, opcode: u8) -> Self {
        let mut rpc = Self { raw: Raw::upgraded(server, None).await };
        let connect = json!({"method": "connect", "id": "c1", "params": {"uid": uid, "token": token, "deviceFlag": 1,
            "deviceId": "d", "clientTimestamp": 1_700_000_000_000_u64}});
        rpc.raw.write(&masked(opcode, connect.to_string().as_bytes())).await;
        let answer = rpc.next().await;
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!((&answer["id"], &answer["result"]["reasonCode"]), (&json!("c1"), &json!(1)), "{answer}");
        for field in ["serverVersion", "serverKey", "salt", "timeDiff", "nodeId", "server_version", "node_id"] {
            assert!(!answer["result"][field].is_null(), "{field}: {answer}");
        }
        rpc
    }

    pub async fn say(&mut self, message: &Value) {
        self.raw.write(&masked(0x81, message.to_string().as_bytes())).await;
    }

    pub async fn ask(&mut self, message: &Value) -> Value {
        self.say(message).await;
        self.next().await
    }

    /// The next message: JSON in a text frame, always.
    pub async fn next(&mut self) -> Value {
        let (opcode, payload) = self.raw.frame().await.expect("a message before the end");
        assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&payload));
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// The number of the close.
    pub async fn closed(&mut self) -> Option<u16> {
        match self.raw.frame().await {
            Some((8, payload)) => payload.first_chunk().map(|number| u16::from_be_bytes(*number)),
            other => panic!("a close was expected: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_a_master_device_has_is_taken() {
    let server = Server::on_memory().await;
    let hub = server.app.hub().clone();
    let queued = async || hub.commands(server.uid("bob"), 10).await.expect("commands").len();
    let mut alice = Wk::connect(&server, 5, Way::WebSocket, "alice").await;
    for (level, left) in [(1, 0), (0, 1), (1, 2)] {
        let token = token(&server, "bob", 1, level).await;
        let mut bob = Rpc::with(&server, "bob", &token, 0x81).await;
        let mut command = alice.message(&format!("to {level} {left}"), "bob", 1, b"{}");
        command.flags.sync_once = true;
        let client_seq = command.client_seq;
        alice.say(&Packet::Send(command)).await;
        assert_eq!(alice.ack(client_seq).await.reason, Reason::SUCCESS);
        let recv = bob.next().await;
        let params = &recv["params"];
        assert_eq!(params["header"]["syncOnce"], true, "{recv}");
        // The acknowledgement of an ordinary message takes none.
        bob.say(&json!({"method": "recvack", "params": {"messageId": params["messageId"], "messageSeq": 1}})).await;
        bob.ask(&json!({"method": "ping", "id": "p1"})).await;
        assert_eq!(queued().await, left.max(1));
        let ack =
            json!({"header": params["header"], "messageId": params["messageId"], "messageSeq": params["messageSeq"]});
        bob.say(&json!({"method": "recvack", "params": ack})).await;
        bob.ask(&json!({"method": "ping", "id": "p2"})).await;
        // What a slave had stays in the queue, and what a master acknowledges takes none along.
        let begun = tokio::time::Instant::now();
        while queued().await != left {
            assert!(begun.elapsed() < PATIENCE, "level {level}: {} are queued", queued().await);
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_json_and_native_are_one_chat() {
    let server = Server::on_memory().await;
    server.group("g", &["rpc", "wk", "native"]).await;
    let mut wk = Wk::connect(&server, 5, Way::Tcp, "wk").await;
    let mut native = server.connect("native").await;
    // iOS says it in binary messages.
    for opcode in [0x81, 0x82] {
        let mut rpc = Rpc::connect(&server, "rpc", opcode).await;
        let answer = rpc
            .ask(&json!({"method": "send", "id": "s1", "params": {"channelId": "g", "channelType": 2,
                "clientMsgNo": format!("n{opcode}"), "payload": {"type": 1, "content": "hi"}, "header": {"redDot": true}}}))
            .await;
        assert_eq!((&answer["id"], &answer["result"]["reasonCode"]), (&json!("s1"), &json!(1)), "{answer}");
        assert!(answer.get("error").is_none());
        let id = answer["result"]["messageId"].as_str().expect("decimal text").parse::<i64>().expect("decimal");
        let seq = answer["result"]["messageSeq"].as_u64().expect("a number");
        let at_wk = wk.recv().await;
        assert_eq!((at_wk.message_id, at_wk.message_seq, &*at_wk.from_uid), (id, seq, "rpc"));
        assert_eq!(serde_json::from_slice::<Value>(&at_wk.payload).expect("JSON"), json!({"type": 1, "content": "hi"}));
        assert!(at_wk.flags.red_dot);
        assert_eq!(native.deliver().await.messages[0].message_seq, seq);
        // Towards it: an object as an object, anything else as base64.
        wk.send("", "g", 2, br#"{"type":2}"#).await;
        native.deliver().await;
        native.say("g", 2, b"bytes").await;
        wk.recv().await;
        let (first, second) = (rpc.next().await, rpc.next().await);
        for recv in [&first, &second] {
            assert_eq!(recv["method"], "recv");
            assert!(recv.get("id").is_none(), "the SDKs drop a notice with an id");
            for flag in ["noPersist", "redDot", "syncOnce", "dup", "end"] {
                assert!(recv["params"]["header"][flag].is_boolean(), "{recv}");
            }
            assert!(recv["params"]["messageId"].is_string() && recv["params"]["message_id"].is_string());
            assert_eq!((&recv["params"]["channelId"], &recv["params"]["channel_type"]), (&json!("g"), &json!(2)));
        }
        assert_eq!((&first["params"]["payload"], &first["params"]["fromUid"]), (&json!({"type": 2}), &json!("wk")));
        assert_eq!(
            (&second["params"]["payload"], &second["params"]["from_uid"]),
            (&json!("Ynl0ZXM="), &json!("native"))
        );
        rpc.say(&json!({"method": "recvack", "params": {"messageId": first["params"]["messageId"], "messageSeq": 2}}))
            .await;
        let pong = rpc.ask(&json!({"method": "ping", "id": "p"})).await;
        assert_eq!(pong, json!({"jsonrpc": "2.0", "id": "p", "result": null}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_errors_with_the_reason() {
    let server = Server::on_memory().await;
    for (params, code) in
        [(json!({"uid": "u", "token": "wrong"}), 2), (json!({"uid": "u"}), 2), (json!({"uid": "", "token": ""}), 2)]
    {
        let mut rpc = Rpc { raw: Raw::upgraded(&server, None).await };
        let answer = rpc.ask(&json!({"jsonrpc": "2.0", "method": "connect", "id": "c", "params": params})).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("c"), &json!(code)), "{answer}");
        assert_eq!(answer["error"]["message"], "ReasonAuthFail");
        assert!(answer.get("result").is_none());
        assert_eq!(rpc.closed().await, Some(4001));
    }
    let mut rpc = Rpc::connect(&server, "u", 0x81).await;
    let send = |channel: &str, kind: u8| json!({"method": "send", "id": "s", "params": {"channelId": channel, "channelType": kind, "payload": "e30="}});
    for (channel, kind, code) in [("nowhere", 2, 3), ("a@b", 1, 16), ("x", 9, 23)] {
        let answer = rpc.ask(&send(channel, kind)).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &json!("s")), "{answer}");
        assert!(answer.get("result").is_none());
    }
    // What cannot be read is answered with 0 and its field; the connection stays.
    let answer = rpc.ask(&json!({"method": "frobnicate", "id": "f"})).await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(0), &json!("f")), "{answer}");
    let answer = rpc.ask(&json!({"method": "send", "id": "f", "params": {"channelType": 1}})).await;
    assert!(answer["error"]["message"].as_str().expect("text").contains("channelId"), "{answer}");
    assert_eq!(rpc.ask(&json!({"method": "ping", "id": "p"})).await["result"], Value::Null);
    rpc.say(&json!({"method": "disconnect", "params": {"reasonCode": 1}})).await;
    assert_eq!(rpc.closed().await, Some(1000));
    // A first message that is no connect.
    let mut rpc = Rpc { raw: Raw::upgraded(&server, None).await };
    let answer = rpc.ask(&json!({"method": "ping", "id": "p"})).await;
    assert_eq!(answer["error"]["code"], 0);
    assert_eq!(rpc.closed().await, Some(4000));
    let mut rpc = Rpc { raw: Raw::upgraded(&server, None).await };
    rpc.raw.write(&masked(0x81, b" [1, 2]")).await;
    assert_eq!(rpc.closed().await, Some(1002));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spelling_of_android_is_read_and_requests_behind_connect_wait_for_its_answer() {
    let server = Server::on_memory().await;
    let token = token(&server, "droid", 0, 1).await;
    let mut bytes = Vec::new();
    let connect =
        Connect { uid: "droid".into(), token: token.clone().into(), device_id: "d".into(), ..Connect::default() };
    let send = Send {
        client_msg_no: "n".into(),
        channel_id: "droid".into(),
        channel_type: 1,
        payload: b"{\"type\":1}".to_vec().into(),
        ..Send::default()
    };
    for (id, packet) in [("c", Packet::Connect(connect)), ("s", Packet::Send(send))] {
        let mut text = b" \n".to_vec();
        encode_client(Spelling::Snake, Some(id), &packet, &mut text).expect("encodes");
        bytes.extend(masked(0x81, &text));
    }
    let mut rpc = Rpc { raw: Raw::upgraded(&server, None).await };
    rpc.raw.write(&bytes).await;
    for id in ["c", "s"] {
        let (_, payload) = rpc.raw.frame().await.expect("an answer");
        let Ok(ServerMessage::Answer { id: answered, outcome: Ok(answer) }) = decode_server(&payload) else {
            panic!("{}", String::from_utf8_lossy(&payload));
        };
        assert_eq!(answered, id);
        if id == "s" {
            assert_eq!(answer.sendack().expect("an answer to send").reason, Reason::SUCCESS);
        }
    }
    // A master on another device ends it with a word.
    let mut other = Rpc { raw: Raw::upgraded(&server, None).await };
    other
        .ask(&json!({"method": "connect", "id": "c", "params": {"uid": "droid", "token": token, "device_id": "e"}}))
        .await;
    let notice = rpc.next().await;
    assert_eq!((&notice["method"], &notice["params"]["reasonCode"]), (&json!("disconnect"), &json!(12)), "{notice}");
    assert!(notice.get("id").is_none());
    assert_eq!(rpc.closed().await, Some(4010));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_devices_see_ones_own_message_without_a_red_dot() {
    let server = Server::on_memory().await;
    let mut phone = Wk::connect(&server, 6, Way::Tcp, "alice").await;
    let mut pad = Rpc::connect(&server, "alice", 0x81).await;
    let mut bob = Rpc::connect(&server, "bob", 0x81).await;
    phone.send("", "bob", 1, b"{}").await;
    let (own, other) = (pad.next().await, bob.next().await);
    assert_eq!((&own["params"]["channelId"], &own["params"]["header"]["redDot"]), (&json!("bob"), &json!(false)));
    assert_eq!((&other["params"]["channelId"], &other["params"]["header"]["redDot"]), (&json!("alice"), &json!(true)));
}
