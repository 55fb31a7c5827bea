//! Proves that packets, keys and seals are those of WuKongIM's own clients: every vector of `wkproto-vectors.json`, whose
//! client packets are what the SDKs wrote and whose server packets the SDKs read.

use std::borrow::Cow;

use chinwag_protocol::ids::{ChannelKey, Uid};
use chinwag_protocol::wukong::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/wukong/wkproto-vectors.json")).expect("vectors are JSON")
}

fn list<'a>(vectors: &'a Value, name: &str, count: usize) -> &'a [Value] {
    let list = vectors[name].as_array().unwrap_or_else(|| panic!("{name} is a list"));
    assert_eq!(list.len(), count, "a vector of {name} has no test");
    list
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// Numbers are given as numbers or, where JSON would bend them, as text.
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| text(value).parse().expect("a number"))
}

fn small(value: &Value) -> u8 {
    u8::try_from(number(value)).expect("a byte")
}

fn string(value: &Value) -> Cow<'static, str> {
    Cow::Owned(value.as_str().unwrap_or_default().to_owned())
}

fn cipher(vectors: &Value) -> Cipher {
    let crypto = &vectors["crypto"];
    let key = text(&crypto["aes_key_ascii"]).as_bytes().try_into().expect("16 bytes");
    Cipher::new(key, text(&crypto["salt"])).expect("a salt")
}

/// One version is named in words: a client that was never told a version, which writes the layout of version 2.
fn version(vector: &Value) -> Version {
    Version::negotiate(vector["proto_version"].as_u64().map_or(2, |version| u8::try_from(version).expect("a byte")))
}

/// As the fields say; vectors derived from the layout leave them to the first byte.
fn flags(vector: &Value) -> Flags {
    let Some(flags) = vector["fields"].get("flags") else {
        return Flags::from_bits(unhex(text(&vector["hex"]))[0] & 15);
    };
    let flag = |name: &str| flags[name].as_bool().unwrap_or(false);
    Flags { dup: flag("dup"), sync_once: flag("sync_once"), red_dot: flag("red_dot"), no_persist: flag("no_persist") }
}

fn payload(fields: &Value) -> Cow<'static, [u8]> {
    let field = fields.get("wire_payload_b64_text").unwrap_or(&fields["plaintext_utf8"]);
    Cow::Owned(text(field).as_bytes().to_vec())
}

/// The packet the fields of a vector describe.
fn described(vector: &Value) -> Packet<'static> {
    let fields = &vector["fields"];
    match text(&vector["packet"]) {
        "CONNECT" => Packet::Connect(Connect {
            version: small(&fields["version"]),
            device_flag: small(&fields["device_flag"]),
            device_id: string(&fields["device_id"]),
            uid: string(&fields["uid"]),
            token: string(&fields["token"]),
            client_timestamp: number(&fields["client_timestamp"]),
            client_key: string(&fields["client_key"]),
        }),
        "CONNACK" => Packet::ConnAck(ConnAck {
            server_version: fields.get("server_version").map(small),
            time_diff: number(&fields["time_diff"]),
            reason: Reason(small(&fields["reason_code"])),
            server_key: string(&fields["server_key"]),
            salt: string(&fields["salt"]),
            node_id: fields["node_id"].as_u64().unwrap_or(0),
        }),
        "SEND" => Packet::Send(Send {
            flags: flags(vector),
            setting: Setting(small(&fields["setting"])),
            client_seq: u32::try_from(number(&fields["client_seq"])).expect("32 bits"),
            client_msg_no: string(&fields["client_msg_no"]),
            stream_no: string(&fields["stream_no"]),
            channel_id: string(&fields["channel_id"]),
            channel_type: small(&fields["channel_type"]),
            expire: u32::try_from(fields["expire"].as_u64().unwrap_or(0)).expect("32 bits"),
            msg_key: string(&fields["msg_key"]),
            topic: string(&fields["topic"]),
            payload: payload(fields),
        }),
        "SENDACK" => Packet::SendAck(SendAck {
            flags: Flags::default(),
            message_id: number(&fields["message_id"]),
            client_seq: u32::try_from(number(&fields["client_seq"])).expect("32 bits"),
            message_seq: u64::try_from(number(&fields["message_seq"])).expect("positive"),
            reason: Reason(small(&fields["reason_code"])),
            client_msg_no: string(&fields["client_msg_no"]),
        }),
        "RECV" => Packet::Recv(recv(vector)),
        "RECVACK" => Packet::RecvAck(RecvAck {
            flags: flags(vector),
            message_id: number(&fields["message_id"]),
            message_seq: u64::try_from(number(&fields["message_seq"])).expect("positive"),
        }),
        "PING" => Packet::Ping,
        "PONG" => Packet::Pong,
        "DISCONNECT" => Packet::Disconnect(Disconnect {
            reason: Reason(small(&fields["reason_code"])),
            text: string(&fields["reason"]),
        }),
        "SUB" => Packet::Sub(Sub {
            setting: Setting(small(&fields["setting"])),
            sub_no: string(&fields["sub_no"]),
            channel_id: string(&fields["channel_id"]),
            channel_type: small(&fields["channel_type"]),
            action: small(&fields["action"]),
            param: string(&fields["param"]),
        }),
        "SUBACK" => Packet::SubAck(SubAck {
            sub_no: string(&fields["sub_no"]),
            channel_id: string(&fields["channel_id"]),
            channel_type: small(&fields["channel_type"]),
            action: small(&fields["action"]),
            reason: Reason(small(&fields["reason_code"])),
        }),
        "EVENT" => Packet::Event(Event {
            id: string(&fields["id"]),
            event_type: string(&fields["type"]),
            timestamp: number(&fields["timestamp"]),
            data: Cow::Owned(text(&fields["data_utf8"]).as_bytes().to_vec()),
        }),
        other => panic!("no packet {other}"),
    }
}

fn recv(vector: &Value) -> Recv<'static> {
    let fields = &vector["fields"];
    Recv {
        flags: flags(vector),
        setting: Setting(small(&fields["setting"])),
        msg_key: string(&fields["msg_key"]),
        from_uid: string(&fields["from_uid"]),
        channel_id: string(&fields["channel_id"]),
        channel_type: small(&fields["channel_type"]),
        expire: u32::try_from(fields["expire"].as_u64().unwrap_or(0)).expect("32 bits"),
        client_msg_no: string(&fields["client_msg_no"]),
        stream: Stream::default(),
        message_id: number(&fields["message_id"]),
        message_seq: u64::try_from(number(&fields["message_seq"])).expect("positive"),
        timestamp: i32::try_from(number(&fields["timestamp"])).expect("32 bits"),
        topic: string(&fields["topic"]),
        payload: payload(fields),
    }
}

fn whole(bytes: &[u8]) -> RawPacket<'_> {
    let raw = cut(bytes, BODY_BYTES_MAX).expect("well formed").expect("complete");
    assert_eq!(raw.bytes, bytes.len(), "one packet");
    raw
}

#[test]
fn every_packet_is_read_and_written_as_the_clients_do() {
    let vectors = vectors();
    let cipher = cipher(&vectors);
    let groups = [("client_encoded", 16), ("server_encoded", 17), ("spec_derived", 7)];
    for vector in groups.iter().flat_map(|(name, count)| list(&vectors, name, *count)) {
        let (name, bytes, version) = (text(&vector["name"]), unhex(text(&vector["hex"])), version(vector));
        let described = described(vector);
        assert_eq!(decode(version, &whole(&bytes)).expect(name), described, "{name}");
        let mut written = Vec::new();
        encode(version, &described, &mut written).expect(name);
        assert_eq!(written, bytes, "{name}");

        let fields = &vector["fields"];
        let plain = fields["plaintext_utf8"].as_str().unwrap_or_default();
        let mut opened = Vec::new();
        match &described {
            Packet::Send(send) if !send.setting.has(Setting::NO_ENCRYPT) => {
                cipher.open_send(send, &mut opened).expect(name);
                assert_eq!(opened, plain.as_bytes(), "{name}");
            }
            Packet::Recv(recv) => {
                cipher.open_recv(recv, &mut opened).expect(name);
                assert_eq!(opened, plain.as_bytes(), "{name}");
                let clear = Recv { payload: plain.as_bytes().into(), ..recv.clone() };
                let prepared = PreparedRecv::new(version, &clear).expect(name);
                let mut sealed = Vec::new();
                prepared.seal(&cipher, &mut sealed);
                assert_eq!(sealed, bytes, "{name}, sealed");
                assert_eq!(sealed.len(), prepared.sealed_bytes(), "{name}");
            }
            _ => {}
        }
    }
}

#[test]
fn keys_are_agreed_on_as_the_clients_do() {
    let vectors = vectors();
    let crypto = &vectors["crypto"];
    let seed = |bytes: &[u8]| ServerSecret::from_random(bytes.try_into().expect("32 bytes"));
    let client = seed(text(&crypto["client_seed_ascii"]).as_bytes());
    let server = seed(&unhex(text(&crypto["server_seed_hex"])));
    assert_eq!(client.public_key(), text(&crypto["client_key_b64"]));
    assert_eq!(server.public_key(), text(&crypto["server_key_b64"]));
    let salt = text(&crypto["salt"]);
    let expected = cipher(&vectors);
    for agreed in [
        server.agree(text(&crypto["client_key_b64"]), salt).expect("a key"),
        client.agree(text(&crypto["server_key_b64"]), salt).expect("a key"),
        // Clients cut a longer salt.
        server.agree(text(&crypto["client_key_b64"]), &format!("{salt}zzz")).expect("a key"),
    ] {
        for sample in list(&vectors, "aes_samples", 5) {
            let (plain, wire) = (unhex(text(&sample["plaintext_hex"])), text(&sample["wire_payload_b64_text"]));
            assert_eq!(plain, text(&sample["plaintext_utf8"]).as_bytes());
            for cipher in [&agreed, &expected] {
                let (mut made, mut opened) = (Vec::new(), Vec::new());
                cipher.encrypt(&plain, &mut made);
                assert_eq!(std::str::from_utf8(&made), Ok(wire));
                assert_eq!(made.len(), Cipher::wire_bytes(plain.len()));
                cipher.decrypt(wire.as_bytes(), &mut opened).expect("whole");
                assert_eq!(opened, plain);
            }
        }
    }
}

#[test]
fn lengths_are_those_of_the_clients() {
    for vector in list(&vectors(), "variable_length", 11) {
        let (value, expected) = (vector["value"].as_u64().expect("a number"), unhex(text(&vector["hex"])));
        let mut written = Vec::new();
        encode_length(usize::try_from(value).expect("fits"), &mut written);
        assert_eq!(written, expected, "{value}");
        let mut packet = vec![0x30];
        packet.extend(&expected);
        match vector["decoded"].as_u64() {
            // No byte at all: the head is not complete.
            None => assert_eq!(cut(&packet, BODY_BYTES_MAX), Ok(None)),
            Some(decoded) => {
                let length = usize::try_from(decoded).expect("fits");
                packet.resize(packet.len() + length, 0);
                let raw = cut(&packet, usize::MAX).expect("well formed").expect("complete");
                assert_eq!((raw.body.len(), raw.bytes), (length, packet.len()));
                assert_eq!(cut(&packet[..packet.len() - 1], usize::MAX), Ok(None));
                let limited = cut(&packet, BODY_BYTES_MAX);
                assert_eq!(limited.is_err(), length > BODY_BYTES_MAX, "{length}");
            }
        }
    }
}

#[test]
fn packets_are_cut_wherever_they_were_joined_or_split() {
    let vectors = vectors();
    let hex_of = |name: &str| {
        let all = ["client_encoded", "server_encoded"].map(|group| vectors[group].as_array().expect("a list"));
        let found = all.into_iter().flatten().find(|vector| vector["name"] == name);
        unhex(text(&found.unwrap_or_else(|| panic!("no vector {name}"))["hex"]))
    };
    for vector in list(&vectors, "framing", 4) {
        let name = text(&vector["name"]);
        let parts: Vec<Vec<u8>> = match vector["hex_parts"].as_array() {
            Some(parts) => parts.iter().map(|part| unhex(text(part))).collect(),
            None => vec![unhex(text(&vector["hex"]))],
        };
        let expected: Vec<Vec<u8>> =
            vector["packets"].as_array().expect("a list").iter().map(|name| hex_of(text(name))).collect();
        let stream = parts.concat();
        let every_split = (0..=stream.len()).map(|at| vec![stream[..at].to_vec(), stream[at..].to_vec()]);
        let single = stream.iter().map(|byte| vec![*byte]).collect();
        for pieces in every_split.chain([parts, single]) {
            let mut cutter = Cutter::new(BODY_BYTES_MAX);
            let mut seen = Vec::new();
            for piece in &pieces {
                let mut piece = piece.as_slice();
                while let Some(raw) = cutter.next(&mut piece).expect(name) {
                    seen.push((raw.first, raw.body.to_vec()));
                }
                assert!(piece.is_empty(), "{name}");
            }
            let expected: Vec<_> = expected.iter().map(|bytes| (bytes[0], whole(bytes).body.to_vec())).collect();
            assert_eq!(seen, expected, "{name}");
            assert_eq!(cutter.held_bytes(), 0, "{name}");
        }
    }
}

#[test]
fn what_is_wrong_is_told() {
    let vectors = vectors();
    let cipher = cipher(&vectors);
    for vector in list(&vectors, "negative", 3) {
        let bytes = unhex(text(&vector["hex"]));
        match text(&vector["name"]) {
            "tampered_send_payload" => {
                let Ok(Packet::Send(send)) = decode(Version::negotiate(5), &whole(&bytes)) else { panic!("a SEND") };
                let mut opened = b"kept".to_vec();
                assert_eq!(cipher.open_send(&send, &mut opened), Err(OpenError::MsgKey));
                assert_eq!(opened, b"kept");
            }
            "length_longer_than_4_bytes" => {
                assert!(matches!(cut(&bytes, BODY_BYTES_MAX), Err(PacketError::TooLarge { .. })));
                assert_eq!(cut(&bytes, usize::MAX), Err(PacketError::LengthTooWide));
            }
            "send_before_connect" => {
                // Which packet may come first is the session's rule; here it is told apart.
                assert_eq!(Kind::from_number(whole(&bytes).number()), Some(Kind::Send));
            }
            other => panic!("no test for {other}"),
        }
    }
}

#[test]
fn person_channels_are_those_of_version_3() {
    for vector in list(&vectors(), "person_channel", 10) {
        let uid = |name: &str| Uid::new(text(&vector[name])).expect("a uid");
        let (from, to) = (uid("from"), uid("to"));
        assert_eq!(ChannelKey::person(&from, &to).channel_id(), text(&vector["fake_channel_id_v3"]));
        assert_eq!(
            u64::from(crc32fast::hash(from.as_str().as_bytes())),
            vector["crc32_from"].as_u64().expect("a number")
        );
    }
}
