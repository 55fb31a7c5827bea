//! Proves: what SDKs that no registry serves have written is taken from a real socket: the frames of `wkproto-vectors.json`
//! byte for byte, and JSON-RPC in the profiles of every Easy SDK (wukongim-wire.md sections 8 to 11).

use chinwag::credentials::Credentials;
use protocol::ids::DeviceFlag;
use protocol::wukong::{Cipher, Packet, Reason, Send, ServerSecret, Version, cut, decode};
use serde_json::{Value, json};

use super::client::{Got, Way, Wk};
use super::rpc::Rpc;
use crate::harness::Server;
use crate::raw::{Raw, masked};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/wukong/wkproto-vectors.json")).expect("vectors are JSON")
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hex");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// The vector of a client's packet.
fn frame<'a>(vectors: &'a Value, name: &str) -> &'a Value {
    let all = vectors["client_encoded"].as_array().expect("a list");
    all.iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"))
}

/// The user of the vectors, whose token is `t1`, in a group with the reader `u2`.
async fn set_the_scene(server: &Server) {
    let hash = Credentials::open(&server.config.data_dir).expect("credentials").hash("t1");
    for flag in 0..3 {
        server.app.hub().set_token(server.uid("u1"), DeviceFlag(flag), 0, hash).await.expect("token is set");
    }
    server.group("g1", &["u1", "u2"]).await;
}

/// A session begun with a CONNECT of the vectors.
async fn connected(server: &Server, vectors: &Value, name: &str) -> Wk {
    let connect = frame(vectors, name);
    let crypto = &vectors["crypto"];
    let seed = crypto["client_seed_ascii"].as_str().expect("text").as_bytes();
    let secret = ServerSecret::from_random(seed.try_into().expect("32 bytes"));
    assert_eq!(connect["fields"]["client_key"], secret.public_key().as_str());
    let version = connect["fields"]["version"].as_u64().expect("a number") as u8;
    let mut client = Wk::open(server, version, Way::WebSocket).await;
    client.write(&unhex(&connect["hex"])).await;
    client.finish(&secret).await.expect("CONNACK says success");
    client
}

/// The SENDs of each SDK, its version's CONNECT first.
const SESSIONS: [(&str, &[&str]); 2] = [
    ("connect_v2_web", &["send_person_v2"]),
    (
        "connect_v5_web",
        &[
            "send_person_v5",
            "send_group_utf8_v5",
            "send_receipt_topic_expire_v5",
            "send_nopersist_v5",
            "send_long_payload_v5",
        ],
    ),
];

/// Checks an answer and what the reader got against the fields of a SEND.
async fn arrived(client: &mut Wk, reader: &mut Wk, send: &Value, payload: &str) {
    let fields = &send["fields"];
    let ack = client.ack(fields["client_seq"].as_u64().expect("a number") as u32).await;
    assert_eq!(ack.reason, Reason::SUCCESS, "{fields}");
    let message = reader.recv().await;
    assert_eq!((message.message_id, message.message_seq), (ack.message_id, ack.message_seq), "{fields}");
    assert_eq!(String::from_utf8_lossy(&message.payload), payload);
    assert_eq!(fields["client_msg_no"], message.client_msg_no.as_str());
    assert_eq!((&*message.from_uid, &fields["channel_type"]), ("u1", &json!(message.channel_type)));
    assert_eq!(fields["flags"]["no_persist"], message.flags.no_persist);
    assert_eq!(fields["flags"]["red_dot"], message.flags.red_dot);
    assert_eq!(fields["topic"].as_str().unwrap_or_default(), message.topic);
    assert_eq!(fields["setting"], message.setting.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_the_javascript_sdks_are_taken_byte_for_byte() {
    let vectors = vectors();
    for (connect, sends) in SESSIONS {
        // Their payloads are under the keys of the vectors: without encryption they are handed on as they are.
        let server = Server::on_memory_with(|c| c.wukong.encryption = false).await;
        set_the_scene(&server).await;
        let mut reader = Wk::connect(&server, 5, Way::WebSocket, "u2").await;
        let mut client = connected(&server, &vectors, connect).await;
        for name in sends {
            let send = frame(&vectors, name);
            client.write(&unhex(&send["hex"])).await;
            let payload = send["fields"]["wire_payload_b64_text"].as_str().expect("text");
            arrived(&mut client, &mut reader, send, payload).await;
        }
        for name in ["recvack_v2", "recvack_v5", "recvack_flags_v5", "ping"] {
            client.write(&unhex(&frame(&vectors, name)["hex"])).await;
        }
        client.expect(|got| (*got == Got::Pong).then_some(())).await;
        if client.version == Version::negotiate(5) {
            client.write(&unhex(&frame(&vectors, "sub_v5")["hex"])).await;
            let refused = client.expect(|got| match got {
                Got::SubAck(ack) => Some((ack.sub_no.to_string(), ack.channel_id.to_string())),
                _ => None,
            });
            assert_eq!(refused.await, ("sub-1".to_owned(), "data1".to_owned()));
            client.write(&unhex(&frame(&vectors, "send_synconce_v5")["hex"])).await;
            client.ack(5).await;
        }
        assert_eq!(client.pending().await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_sends_in_one_message_are_five_messages_again_after_a_reconnect() {
    let vectors = vectors();
    let server = Server::on_memory_with(|c| c.wukong.encryption = false).await;
    set_the_scene(&server).await;
    let mut reader = Wk::connect(&server, 5, Way::WebSocket, "u2").await;
    let two = vectors["framing"].as_array().expect("a list").iter().find(|f| f["name"] == "two_send_in_one_ws_message");
    let mut bytes = unhex(&two.expect("a vector")["hex"]);
    for name in ["send_receipt_topic_expire_v5", "send_long_payload_v5", "ping"] {
        bytes.extend(unhex(&frame(&vectors, name)["hex"]));
    }
    let mut first = Vec::new();
    for round in 0..2 {
        let mut client = connected(&server, &vectors, "connect_v5_web").await;
        client.write(&bytes).await;
        let mut acks = Vec::new();
        for client_seq in [1, 258, 3, 6] {
            let ack = client.ack(client_seq).await;
            assert_eq!(ack.reason, Reason::SUCCESS);
            acks.push((ack.message_id, ack.message_seq));
        }
        client.expect(|got| (*got == Got::Pong).then_some(())).await;
        if round == 0 {
            // Two channels, whose messages come in no order of theirs.
            let mut read = Vec::new();
            for _ in &acks {
                let message = reader.recv().await;
                read.push((message.message_id, message.message_seq));
            }
            read.sort_unstable();
            let mut told = acks.clone();
            told.sort_unstable();
            assert_eq!(read, told);
            first = acks;
        } else {
            assert_eq!(acks, first, "a repeat gets the first outcome");
            assert_eq!(reader.pending().await, [], "and is delivered to nobody");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_javascript_sdks_agree_with_the_servers() {
    let vectors = vectors();
    let crypto = &vectors["crypto"];
    let key = crypto["aes_key_ascii"].as_str().expect("text").as_bytes().try_into().expect("16 bytes");
    let theirs = Cipher::new(key, crypto["salt"].as_str().expect("text")).expect("a salt");
    for (connect, sends) in SESSIONS {
        let server = Server::on_memory().await;
        set_the_scene(&server).await;
        let mut reader = Wk::connect(&server, 5, Way::WebSocket, "u2").await;
        let mut client = connected(&server, &vectors, connect).await;
        for name in sends {
            let vector = frame(&vectors, name);
            let bytes = unhex(&vector["hex"]);
            let raw = cut(&bytes, 1 << 20).expect("a packet").expect("a whole packet");
            let Packet::Send(send) = decode(client.version, &raw).expect("decodes") else { panic!("{name}") };
            let mut plain = Vec::new();
            theirs.open_send(&send, &mut plain).expect("sealed under the keys of the vectors");
            // As it stands it is under a key that is not the session's, and goes nowhere; then under the session's.
            client.write(&bytes).await;
            let sealed = client.seal(Send {
                flags: send.flags,
                setting: send.setting,
                client_seq: send.client_seq,
                client_msg_no: send.client_msg_no.to_string().into(),
                channel_id: send.channel_id.to_string().into(),
                channel_type: send.channel_type,
                expire: send.expire,
                topic: send.topic.to_string().into(),
                payload: plain.into(),
                ..Send::default()
            });
            client.say(&Packet::Send(sealed)).await;
            let fields = &vector["fields"];
            let ack = client.expect(|got| match got {
                Got::Ack(ack) if ack.reason == Reason::SUCCESS => Some(ack.clone()),
                Got::Ack(ack) => {
                    assert_eq!(ack.reason, Reason::PAYLOAD_DECODE_ERROR, "{fields}");
                    None
                }
                _ => None,
            });
            let ack = ack.await;
            let message = reader.recv().await;
            assert_eq!((message.message_id, message.message_seq), (ack.message_id, ack.message_seq));
            assert_eq!(fields["plaintext_utf8"], String::from_utf8_lossy(&message.payload).as_ref());
        }
        assert_eq!(reader.pending().await, []);
    }
}

/// What an Easy SDK writes, and what its messages are.
struct Profile {
    name: &'static str,
    /// First byte of its WebSocket frames.
    opcode: u8,
    connect: &'static str,
    send: &'static str,
    /// The content of what it sent.
    payload: &'static str,
    /// Written behind a message; nothing answers.
    recvack: &'static str,
    ping: &'static str,
}

const PROFILES: [Profile; 6] = [
    Profile {
        name: "EasySDK-JS 2",
        opcode: 0x81,
        connect: r#"{"method":"connect","params":{"uid":"u1","token":"t1","deviceId":"web_813db48f_1795300047537","deviceFlag":1,"clientTimestamp":1795300047537},"id":"44ae8e40-a6ae-410d-8843-67f549ded674"}"#,
        send: r#"{"method":"send","params":{"clientMsgNo":"c3b4c337","channelId":"g1","channelType":2,"payload":"eyJ0eXBlIjoxLCJjb250ZW50Ijoi5L2g5aW9In0=","header":{"redDot":true}},"id":"e8adbd60"}"#,
        payload: r#"{"type":1,"content":"你好"}"#,
        recvack: r#"{"method":"recvack","params":{"header":{"noPersist":false,"redDot":true,"syncOnce":false,"dup":false,"end":false},"messageId":"1771234567890123456","messageSeq":1}}"#,
        ping: r#"{"method":"ping","params":{},"id":"4efd58f2"}"#,
    },
    Profile {
        name: "EasySDK-JS 1: the payload is the object itself",
        opcode: 0x81,
        connect: r#"{"method":"connect","params":{"uid":"u1","token":"t1","deviceId":"web_1","deviceFlag":1,"clientTimestamp":1795300047537},"id":"1"}"#,
        send: r#"{"method":"send","params":{"clientMsgNo":"one","channelId":"g1","channelType":2,"payload":{"type":1,"content":"hi"},"header":{"redDot":true}},"id":"2"}"#,
        payload: r#"{"type":1,"content":"hi"}"#,
        recvack: r#"{"method":"recvack","params":{"messageId":"1771234567890123456","messageSeq":1}}"#,
        ping: r#"{"method":"ping","id":"3"}"#,
    },
    Profile {
        name: "EasySDK-Python 0.1: a list as payload",
        opcode: 0x81,
        connect: r#"{"id":"09e9411d","method":"connect","params":{"uid":"u1","token":"t1","deviceId":"python_c4aa","deviceFlag":2,"clientTimestamp":1795300050000}}"#,
        send: r#"{"id":"a77f217c","method":"send","params":{"channelId":"g1","channelType":2,"clientMsgNo":"py","payload":"WzEsMl0=","header":{"redDot":true}}}"#,
        payload: "[1,2]",
        recvack: r#"{"method":"recvack","params":{"header":{"redDot":true},"messageId":"1771234567890123456","messageSeq":1}}"#,
        ping: r#"{"id":"a8927b3e","method":"ping","params":{}}"#,
    },
    Profile {
        name: "iOS: JSON in binary messages, the payload is the object itself",
        opcode: 0x82,
        connect: r#"{"jsonrpc":"2.0","id":"A-1","method":"connect","params":{"version":1,"uid":"u1","token":"t1","deviceId":"ios","deviceFlag":0,"clientTimestamp":1795300047537,"clientKey":"","header":{}}}"#,
        send: r#"{"jsonrpc":"2.0","id":"A-2","method":"send","params":{"clientMsgNo":"ios","channelId":"g1","channelType":2,"payload":{"content":"hi \u4f60","type":1},"header":{"redDot":true,"noPersist":false,"syncOnce":false,"dup":false}}}"#,
        payload: r#"{"content":"hi \u4f60","type":1}"#,
        recvack: r#"{"jsonrpc":"2.0","method":"recvack","params":{"messageId":"1771234567890123456","messageSeq":1,"header":{"redDot":true}}}"#,
        ping: r#"{"jsonrpc":"2.0","id":"A-3","method":"ping","params":{}}"#,
    },
    Profile {
        name: "Android: snake_case, JSON text inside a string",
        opcode: 0x81,
        connect: r#"{"jsonrpc":"2.0","method":"connect","id":"d1","params":{"uid":"u1","token":"t1","device_id":"android","device_flag":0,"client_timestamp":1795300047537}}"#,
        send: r#"{"jsonrpc":"2.0","method":"send","id":"d2","params":{"client_msg_no":"droid","channel_id":"g1","channel_type":2,"payload":"{\"type\":1,\"content\":\"hi\"}","header":{"no_persist":false,"red_dot":true,"sync_once":false,"dup":false}}}"#,
        payload: r#"{"type":1,"content":"hi"}"#,
        recvack: r#"{"jsonrpc":"2.0","method":"recvack","params":{"message_id":"1771234567890123456","message_seq":1,"header":{"red_dot":true}}}"#,
        ping: r#"{"jsonrpc":"2.0","method":"ping","id":"d3"}"#,
    },
    Profile {
        name: "EasySDK-Rust 0.1 and wkcli: jsonrpc, base64",
        opcode: 0x81,
        connect: r#"{"jsonrpc":"2.0","id":"1","method":"connect","params":{"uid":"u1","token":"t1","deviceId":"cli","deviceFlag":0,"clientTimestamp":1795300047}}"#,
        send: r#"{"jsonrpc":"2.0","id":"2","method":"send","params":{"channelId":"g1","channelType":2,"clientMsgNo":"cli","payload":"aGk="}}"#,
        payload: "hi",
        recvack: r#"{"jsonrpc":"2.0","method":"recvack","params":{"messageId":"1771234567890123456","messageSeq":1}}"#,
        ping: r#"{"jsonrpc":"2.0","id":"3","method":"ping"}"#,
    },
];

/// What an answer must name its request by.
fn id_of(request: &str) -> Value {
    serde_json::from_str::<Value>(request).expect("JSON")["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_every_easy_sdk_is_taken_and_answered_as_it_reads() {
    let server = Server::on_memory().await;
    set_the_scene(&server).await;
    let mut reader = Wk::connect(&server, 5, Way::WebSocket, "u2").await;
    for Profile { name, opcode, connect, send, payload, recvack, ping } in PROFILES {
        let mut client = Rpc { raw: Raw::upgraded(&server, None).await };
        // `next` takes text messages only, whatever the client writes.
        client.raw.write(&masked(opcode, connect.as_bytes())).await;
        let answer = client.next().await;
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &id_of(connect)), "{name}");
        for (camel, snake) in [
            ("serverVersion", "server_version"),
            ("serverKey", "server_key"),
            ("timeDiff", "time_diff"),
            ("nodeId", "node_id"),
            ("reasonCode", "reason_code"),
            ("salt", "salt"),
        ] {
            let value = &answer["result"][camel];
            assert!(!value.is_null() && *value == answer["result"][snake], "{name}: {camel} in {answer}");
        }
        client.raw.write(&masked(opcode, send.as_bytes())).await;
        let answer = client.next().await;
        assert_eq!((&answer["id"], &answer["result"]["reasonCode"]), (&id_of(send), &json!(1)), "{name}: {answer}");
        let message = reader.recv().await;
        assert_eq!(String::from_utf8_lossy(&message.payload), payload, "{name}");
        assert_eq!(answer["result"]["messageId"], message.message_id.to_string(), "{name}");
        assert_eq!(answer["result"]["message_seq"], message.message_seq, "{name}");
        // An object comes as an object: iOS and Android read nothing else.
        reader.send("", "g1", 2, br#"{"type":1,"content":"back"}"#).await;
        let recv = client.next().await;
        assert!(recv.get("id").is_none(), "{name}: {recv}");
        let params = &recv["params"];
        assert_eq!((&recv["method"], &params["payload"]["content"]), (&json!("recv"), &json!("back")), "{name}");
        for (camel, snake) in [
            ("messageId", "message_id"),
            ("messageSeq", "message_seq"),
            ("clientMsgNo", "client_msg_no"),
            ("channelId", "channel_id"),
            ("channelType", "channel_type"),
            ("fromUid", "from_uid"),
        ] {
            assert!(!params[camel].is_null() && params[camel] == params[snake], "{name}: {camel} in {recv}");
        }
        client.raw.write(&masked(opcode, recvack.as_bytes())).await;
        client.raw.write(&masked(opcode, ping.as_bytes())).await;
        let pong = client.next().await;
        assert_eq!((&pong["id"], pong.get("result")), (&id_of(ping), Some(&Value::Null)), "{name}: {pong}");
        client.raw.write(&masked(opcode, br#"{"method":"disconnect","params":{"reasonCode":1}}"#)).await;
        assert_eq!(client.closed().await, Some(1000), "{name}");
    }
}
