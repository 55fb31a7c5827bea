//! Proves that JSON-RPC is read as the Easy SDKs write it, in every spelling, and written as both SDKs that were run took
//! it: the frames of `wkproto-vectors.json`.

use chinwag_protocol::jsonrpc::*;
use chinwag_protocol::wukong::{
    ConnAck, Connect, Disconnect, Event, Flags, Packet, Reason, Recv, RecvAck, Send, SendAck, Setting,
};
use serde_json::{Value, json};

const RED: Flags = Flags { dup: false, sync_once: false, red_dot: true, no_persist: false };

fn vectors() -> Value {
    let all: Value =
        serde_json::from_str(include_str!("../../tests/vectors/wukong/wkproto-vectors.json")).expect("JSON");
    all["jsonrpc"].clone()
}

fn read(message: &Value) -> (Option<String>, Packet<'static>) {
    let text = message.to_string();
    let decoded = decode_client(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    // Packets borrow from the text, which ends here.
    let packet = match decoded.packet {
        Packet::Connect(c) => Packet::Connect(Connect {
            device_id: c.device_id.into_owned().into(),
            uid: c.uid.into_owned().into(),
            token: c.token.into_owned().into(),
            client_key: c.client_key.into_owned().into(),
            ..Connect {
                version: c.version,
                device_flag: c.device_flag,
                client_timestamp: c.client_timestamp,
                ..Default::default()
            }
        }),
        Packet::Send(s) => Packet::Send(Send {
            flags: s.flags,
            setting: s.setting,
            client_seq: s.client_seq,
            client_msg_no: s.client_msg_no.into_owned().into(),
            stream_no: s.stream_no.into_owned().into(),
            channel_id: s.channel_id.into_owned().into(),
            channel_type: s.channel_type,
            expire: s.expire,
            msg_key: s.msg_key.into_owned().into(),
            topic: s.topic.into_owned().into(),
            payload: s.payload.into_owned().into(),
        }),
        Packet::RecvAck(ack) => Packet::RecvAck(ack),
        Packet::Ping => Packet::Ping,
        other => panic!("{other:?}"),
    };
    (decoded.id.map(|id| id.into_owned()), packet)
}

#[test]
fn messages_of_the_sdks_are_read() {
    let vectors = vectors();
    let said = "{\"type\":1,\"content\":\"你好\"}";
    for sdk in ["client_easysdk_js_2_0_1", "client_easysdk_python_0_1_0"] {
        let messages = vectors[sdk].as_array().expect("a list");
        assert_eq!(messages.len(), 4, "a message of {sdk} has no test");
        for message in messages {
            let (id, packet) = read(message);
            assert_eq!(id.as_deref(), message["id"].as_str());
            let params = &message["params"];
            let text = |name: &str| params[name].as_str().expect("text").to_owned();
            let expected = match message["method"].as_str() {
                Some("connect") => Packet::Connect(Connect {
                    version: 0,
                    device_flag: u8::try_from(params["deviceFlag"].as_u64().expect("a number")).expect("small"),
                    device_id: text("deviceId").into(),
                    uid: "u1".into(),
                    token: "t1".into(),
                    client_timestamp: params["clientTimestamp"].as_i64().expect("a number"),
                    client_key: "".into(),
                }),
                Some("send") => Packet::Send(Send {
                    flags: RED,
                    client_msg_no: text("clientMsgNo").into(),
                    channel_id: "u2".into(),
                    channel_type: 1,
                    payload: said.as_bytes().into(),
                    ..Send::default()
                }),
                Some("recvack") => {
                    Packet::RecvAck(RecvAck { flags: RED, message_id: 1771234567890123456, message_seq: 1 })
                }
                Some("ping") => Packet::Ping,
                other => panic!("no test for {other:?}"),
            };
            assert_eq!(packet, expected);
        }
    }
}

/// Whether all of `part` is in `whole`, at any depth.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|found| holds(found, value)))
        }
        _ => whole == part,
    }
}

#[test]
fn answers_and_notices_are_those_both_sdks_take() {
    let vectors = vectors();
    let accepted = vectors["server_accepted_by_both"].as_array().expect("a list");
    let ours = [
        (
            Some("<echo>"),
            Packet::ConnAck(ConnAck {
                server_version: Some(5),
                reason: Reason::SUCCESS,
                node_id: 1,
                ..ConnAck::default()
            }),
        ),
        (Some("<echo>"), Packet::ConnAck(ConnAck { reason: Reason::AUTH_FAIL, ..ConnAck::default() })),
        (
            Some("<echo>"),
            Packet::SendAck(SendAck {
                message_id: 1771234567890123457,
                message_seq: 2,
                reason: Reason::SUCCESS,
                ..SendAck::default()
            }),
        ),
        (Some("<echo>"), Packet::SendAck(SendAck { reason: Reason::NOT_IN_WHITELIST, ..SendAck::default() })),
        (Some("<echo>"), Packet::Pong),
        (
            None,
            Packet::Recv(Recv {
                flags: RED,
                from_uid: "u2".into(),
                channel_id: "u2".into(),
                channel_type: 1,
                client_msg_no: "c1".into(),
                message_id: 1771234567890123456,
                message_seq: 1,
                timestamp: 1_700_000_000,
                payload: "{\"type\":1,\"content\":\"你好\"}".as_bytes().into(),
                ..Recv::default()
            }),
        ),
        (
            None,
            Packet::Event(Event {
                id: "evt-1".into(),
                event_type: "stream.delta".into(),
                timestamp: 1_700_000_000_000,
                data: b"{\"a\":1}".as_slice().into(),
            }),
        ),
        (None, Packet::Disconnect(Disconnect { reason: Reason::CONNECT_KICK, text: "login in other device".into() })),
    ];
    assert_eq!(accepted.len(), ours.len(), "a message has no test");
    for (accepted, (id, packet)) in accepted.iter().zip(ours) {
        let mut out = Vec::new();
        match id {
            Some(id) => encode_answer(id, &packet, &mut out).expect("an answer"),
            None => encode_notice(&packet, &mut out).expect("a notice"),
        }
        let written: Value = serde_json::from_slice(&out).expect("JSON");
        assert!(holds(&written, accepted), "{written} lacks something of {accepted}");
        // The SDKs tell messages apart by which of these keys are there.
        for key in ["id", "result", "error", "method"] {
            assert_eq!(written.get(key).is_some(), accepted.get(key).is_some(), "{key} of {written}");
        }
        if let Some(params) = written["params"].get("messageId") {
            assert_eq!(&written["params"]["message_id"], params);
            assert_eq!(written["params"]["header"]["red_dot"], true);
        }
        match decode_server(&out).expect("readable") {
            ServerMessage::Notice(read) => {
                let mut again = Vec::new();
                encode_notice(&read, &mut again).expect("a notice");
                assert_eq!(again, out);
            }
            ServerMessage::Answer { id, outcome } => {
                assert_eq!(id, "<echo>");
                match (&packet, outcome) {
                    (Packet::ConnAck(ack), Ok(answer)) => assert_eq!(&answer.connack().expect("a CONNACK"), ack),
                    (Packet::SendAck(ack), Ok(answer)) => assert_eq!(&answer.sendack().expect("a SENDACK"), ack),
                    (Packet::Pong, Ok(_)) => {}
                    (
                        Packet::ConnAck(ConnAck { reason, .. }) | Packet::SendAck(SendAck { reason, .. }),
                        Err(failure),
                    ) => {
                        assert_eq!(failure.code, i64::from(reason.0));
                        assert_eq!(failure.message, reason.name());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn both_spellings_are_read_and_camel_case_wins() {
    let (_, packet) = read(&json!({"jsonrpc": "2.0", "id": "1", "method": "send", "params": {
        "client_msg_no": "n", "channel_id": "g", "channel_type": 2, "msg_key": "k", "stream_no": "s", "topic": "t",
        "header": {"no_persist": true, "red_dot": true, "sync_once": true, "DUP": true}, "payload": "{\"a\": 1}"
    }}));
    let all = Flags { dup: true, sync_once: true, red_dot: true, no_persist: true };
    assert_eq!(
        packet,
        Packet::Send(Send {
            flags: all,
            setting: Setting::TOPIC,
            client_msg_no: "n".into(),
            stream_no: "s".into(),
            channel_id: "g".into(),
            channel_type: 2,
            msg_key: "k".into(),
            topic: "t".into(),
            payload: b"{\"a\": 1}".as_slice().into(),
            ..Send::default()
        })
    );
    for params in [
        r#"{"messageId":"1","message_id":"2","messageSeq":3,"message_seq":4}"#,
        r#"{"message_id":"2","messageId":"1","message_seq":4,"messageSeq":3}"#,
        r#"{"messageId":1,"message_id":null,"messageSeq":3}"#,
    ] {
        let text = format!(r#"{{"method":"recvack","params":{params}}}"#);
        let decoded = decode_client(text.as_bytes()).expect(params);
        let ack = RecvAck { flags: Flags::default(), message_id: 1, message_seq: 3 };
        assert_eq!(decoded, ClientMessage { id: None, packet: Packet::RecvAck(ack) });
    }
    let (_, packet) = read(&json!({"id": "1", "method": "connect", "params": {
        "uid": "u", "token": "t", "device_id": "d", "device_flag": 2, "client_timestamp": 9
    }}));
    let Packet::Connect(connect) = packet else { panic!("a CONNECT") };
    assert_eq!((&*connect.device_id, connect.device_flag, connect.client_timestamp), ("d", 2, 9));
}

#[test]
fn payloads_are_what_the_sdks_mean() {
    for (payload, expected) in [
        (r#"{"type":1, "content":"hi"}"#, Some(r#"{"type":1, "content":"hi"}"#)),
        (r#"[1,2]"#, Some("[1,2]")),
        ("12.50", Some("12.50")),
        ("true", Some("true")),
        ("null", Some("")),
        (r#""""#, Some("")),
        (r#""eyJhIjoxfQ==""#, Some(r#"{"a":1}"#)),
        (r#""{\"a\":\"ü\"}""#, Some(r#"{"a":"ü"}"#)),
        // Base64 too, but first of all JSON text: the order of version 3.
        (r#""1234""#, Some("1234")),
        (r#""true""#, Some("true")),
        (r#""hello there""#, None),
        (r#""eyJhIjoxfQ""#, None),
    ] {
        let text =
            format!(r#"{{"id":"7","method":"send","params":{{"channelId":"g","channelType":2,"payload":{payload}}}}}"#);
        match (decode_client(text.as_bytes()), expected) {
            (Ok(ClientMessage { packet: Packet::Send(send), .. }), Some(expected)) => {
                assert_eq!(String::from_utf8_lossy(&send.payload), expected, "{payload}");
            }
            (Err(RpcError::Request { id, reason }), None) => {
                assert_eq!(id.as_deref(), Some("7"));
                assert!(reason.starts_with("payload"), "{reason}");
            }
            other => panic!("{payload}: {other:?}"),
        }
    }
    for (payload, expected) in
        [(r#"{"a":1}"#, json!({"a": 1})), ("[1]", json!("WzFd")), ("{broken", json!("e2Jyb2tlbg==")), ("", json!(""))]
    {
        let mut out = Vec::new();
        let recv = Recv { payload: payload.as_bytes().into(), ..Recv::default() };
        encode_notice(&Packet::Recv(recv), &mut out).expect("a notice");
        let written: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(written["params"]["payload"], expected);
    }
}

#[test]
fn what_is_wrong_is_told_with_the_id_where_there_is_one() {
    let request = |text: &str| match decode_client(text.as_bytes()) {
        Err(RpcError::Request { id, reason }) => (id, reason),
        other => panic!("{text}: {other:?}"),
    };
    for (text, id, reason) in [
        (r#"{"id":"1","method":"fly"}"#, Some("1"), "unknown method \"fly\""),
        (r#"{"id":"1","method":"subscribe","params":{}}"#, Some("1"), "unknown method \"subscribe\""),
        (r#"{"id":"1"}"#, Some("1"), "method: is missing"),
        (r#"{"id":1,"method":"ping"}"#, None, "id: not a string"),
        (r#"{"method":"connect","params":{"uid":"u"}}"#, None, "id: is missing"),
        (r#"{"id":"1","method":"connect"}"#, Some("1"), "uid: is missing"),
        (r#"{"id":"1","method":"send","params":{"channelId":"c"}}"#, Some("1"), "channelType: is missing"),
        (r#"{"id":"1","method":"send","params":{"channel_type":300}}"#, Some("1"), "channel_type: "),
        (r#"{"method":"recvack","params":{"messageId":"x"}}"#, None, "messageId: "),
    ] {
        let (told, why) = request(text);
        assert_eq!(told.as_deref(), id, "{text}");
        assert!(why.starts_with(reason), "{text}: {why}");
    }
    let long = format!(r#"{{"id":"{}","method":"ping"}}"#, "x".repeat(ID_BYTES_MAX + 1));
    assert_eq!(request(&long).0, None);
    for text in ["", "[]", "7", "{", r#"{"jsonrpc":"1.0","method":"ping"}"#, r#"{"method":"ping"} {}"#] {
        assert!(matches!(decode_client(text.as_bytes()), Err(RpcError::Malformed { .. })), "{text}");
    }
    assert!(matches!(decode_client(b"{\"id\":\"\xff\"}"), Err(RpcError::Malformed { .. })));
    let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(decode_client(&large), Err(RpcError::TooLarge { .. })));
    let deep = format!(r#"{{"x":{}1{},"method":"ping"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode_client(deep.as_bytes()).is_ok(), "what is not looked at does not recurse");
}
