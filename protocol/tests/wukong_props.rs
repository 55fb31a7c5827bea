//! Proves that whatever can be said survives every version and spelling, and that streams are cut alike however they arrive.
//! What was never said by anybody is `fuzz.rs`'s. Seeds are printed.

use chinwag_protocol::jsonrpc::{self, Spelling};
use chinwag_protocol::wukong::*;

mod dice;

use dice::{Dice, cipher};

/// A packet that this version can say: fields it has no place for are at their default.
fn packet(dice: &mut Dice, version: Version) -> Packet<'static> {
    let seq = |dice: &mut Dice| dice.number().min(version.seq_max());
    let setting = Setting(dice.roll() as u8);
    let streams = version.has_stream() && setting.has(Setting::STREAM);
    let topic = if setting.has(Setting::TOPIC) { dice.text() } else { "".into() };
    let expire = if version.has_expire() { dice.number() as u32 } else { 0 };
    match Kind::ALL[dice.below(12)] {
        Kind::Connect => Packet::Connect(Connect {
            version: dice.roll() as u8,
            device_flag: dice.roll() as u8,
            device_id: dice.text(),
            uid: dice.text(),
            token: dice.text(),
            client_timestamp: dice.number() as i64,
            client_key: dice.text(),
        }),
        Kind::ConnAck => Packet::ConnAck(ConnAck {
            server_version: version.is_told().then_some(version.get()),
            time_diff: dice.number() as i64,
            reason: Reason(dice.roll() as u8),
            server_key: dice.text(),
            salt: dice.text(),
            node_id: if version.has_node_id() { dice.number() } else { 0 },
        }),
        Kind::Send => Packet::Send(Send {
            flags: dice.flags(),
            setting,
            client_seq: dice.number() as u32,
            client_msg_no: dice.text(),
            stream_no: if streams { dice.text() } else { "".into() },
            channel_id: dice.text(),
            channel_type: dice.roll() as u8,
            expire,
            msg_key: dice.text(),
            topic,
            payload: dice.bytes(300).into(),
        }),
        Kind::SendAck => Packet::SendAck(SendAck {
            flags: dice.flags(),
            message_id: dice.number() as i64,
            client_seq: dice.number() as u32,
            message_seq: seq(dice),
            reason: Reason(dice.roll() as u8),
            client_msg_no: dice.text(),
        }),
        Kind::Recv => Packet::Recv(Recv {
            flags: dice.flags(),
            setting,
            msg_key: dice.text(),
            from_uid: dice.text(),
            channel_id: dice.text(),
            channel_type: dice.roll() as u8,
            expire,
            client_msg_no: dice.text(),
            stream: if streams {
                Stream { flag: dice.roll() as u8, no: dice.text(), id: dice.number() }
            } else {
                Stream::default()
            },
            message_id: dice.number() as i64,
            message_seq: seq(dice),
            timestamp: dice.number() as i32,
            topic,
            payload: dice.bytes(300).into(),
        }),
        Kind::RecvAck => {
            Packet::RecvAck(RecvAck { flags: dice.flags(), message_id: dice.number() as i64, message_seq: seq(dice) })
        }
        Kind::Ping => Packet::Ping,
        Kind::Pong => Packet::Pong,
        Kind::Disconnect => Packet::Disconnect(Disconnect { reason: Reason(dice.roll() as u8), text: dice.text() }),
        Kind::Sub => Packet::Sub(Sub {
            setting,
            sub_no: dice.text(),
            channel_id: dice.text(),
            channel_type: dice.roll() as u8,
            action: dice.roll() as u8,
            param: dice.text(),
        }),
        Kind::SubAck => Packet::SubAck(SubAck {
            sub_no: dice.text(),
            channel_id: dice.text(),
            channel_type: dice.roll() as u8,
            action: dice.roll() as u8,
            reason: Reason(dice.roll() as u8),
        }),
        Kind::Event => Packet::Event(Event {
            id: dice.text(),
            event_type: dice.text(),
            timestamp: dice.number() as i64,
            data: dice.bytes(300).into(),
        }),
    }
}

fn any_version(dice: &mut Dice) -> Version {
    Version::negotiate(dice.below(7) as u8)
}

#[test]
fn packets_survive_every_version_and_every_cut() {
    let mut dice = Dice::new("round trip");
    for _ in 0..3_000 {
        let version = any_version(&mut dice);
        let sent: Vec<_> = (0..dice.below(6)).map(|_| packet(&mut dice, version)).collect();
        let mut stream = Vec::new();
        for packet in &sent {
            encode(version, packet, &mut stream).expect("can be said");
        }
        let mut cutter = Cutter::new(BODY_BYTES_MAX);
        let mut left = stream.as_slice();
        let mut count = 0;
        while !left.is_empty() {
            let most = [1, 3, 40, 2_000][dice.below(4)];
            let (mut piece, rest) = left.split_at(left.len().min(1 + dice.below(most)));
            left = rest;
            while let Some(raw) = cutter.next(&mut piece).expect("well formed") {
                assert_eq!(decode(version, &raw).expect("well formed"), sent[count]);
                count += 1;
            }
            assert!(cutter.allocated_bytes() <= stream.len().max(HEAD_BYTES_MAX));
        }
        assert_eq!((count, cutter.held_bytes()), (sent.len(), 0));
    }
}

#[test]
fn a_cutter_holds_what_came_and_never_more_than_the_limit() {
    // A megabyte is claimed, a few bytes come.
    let mut claimed = vec![0x30];
    encode_length(BODY_BYTES_MAX, &mut claimed);
    let mut cutter = Cutter::new(BODY_BYTES_MAX);
    assert_eq!(cutter.next(&mut [&claimed[..], &[0; 20]].concat().as_slice()), Ok(None));
    assert!(cutter.allocated_bytes() < 64, "{}", cutter.allocated_bytes());
    for _ in 0..BODY_BYTES_MAX / 1_000 {
        assert_eq!(cutter.next(&mut [0; 1_000].as_slice()), Ok(None));
        assert!(cutter.allocated_bytes() <= BODY_BYTES_MAX + HEAD_BYTES_MAX);
    }
    let end = [0; 1_000];
    let mut piece = end.as_slice();
    let raw = cutter.next(&mut piece).expect("well formed").expect("complete");
    assert_eq!(raw.body.len(), BODY_BYTES_MAX);
    assert_eq!(piece.len(), 1_000 - (BODY_BYTES_MAX % 1_000 - 20));
    assert_eq!(cutter.next(&mut [0x30].as_slice()), Ok(None));
    assert!(cutter.allocated_bytes() < 64, "given back after a large packet: {}", cutter.allocated_bytes());
    // One byte more is refused before anything is held, and stays refused.
    let mut beyond = vec![0x30];
    encode_length(101, &mut beyond);
    for pieces in [vec![&beyond[..]], beyond.chunks(1).collect()] {
        let mut cutter = Cutter::new(100);
        assert!(pieces.into_iter().any(|mut piece| cutter.next(&mut piece).is_err()));
        assert!(cutter.next(&mut beyond.as_slice()).is_err());
        assert!(cutter.allocated_bytes() <= HEAD_BYTES_MAX);
    }
}

#[test]
fn what_cannot_be_said_is_refused_and_leaves_the_buffer() {
    let mut out = b"kept".to_vec();
    let old = Version::negotiate(5);
    for (packet, error) in [
        (
            Packet::RecvAck(RecvAck { message_seq: 1 << 32, ..RecvAck::default() }),
            PacketError::SeqTooWide { seq: 1 << 32 },
        ),
        (
            Packet::Disconnect(Disconnect { text: "x".repeat(STR_BYTES_MAX + 1).into(), ..Disconnect::default() }),
            PacketError::StringTooLong { field: "text", bytes: STR_BYTES_MAX + 1, max: STR_BYTES_MAX },
        ),
        (
            Packet::Event(Event { data: vec![0; BODY_BYTES_MAX - 11].into(), ..Event::default() }),
            PacketError::TooLarge { bytes: BODY_BYTES_MAX + 1, max: BODY_BYTES_MAX },
        ),
        (Packet::Unknown { number: 13 }, PacketError::NotWritten { number: 13 }),
    ] {
        assert_eq!(encode(old, &packet, &mut out), Err(error));
        assert_eq!(out, b"kept");
    }
    let high = Recv { message_seq: 1 << 32, ..Recv::default() };
    assert_eq!(PreparedRecv::new(old, &high).map(drop), Err(PacketError::SeqTooWide { seq: 1 << 32 }));
    assert!(PreparedRecv::new(Version::LATEST, &high).is_ok());
    let raw = |bytes: &'static [u8]| cut(bytes, BODY_BYTES_MAX).expect("well formed").expect("complete");
    let truncated = PacketError::Truncated { field: "text", offset: 3, need: 5, have: 1 };
    assert_eq!(decode(old, &raw(b"\x90\x04\x0c\x00\x05a")), Err(truncated));
    assert_eq!(decode(old, &raw(b"\x90\x04\x0c\x00\x01\xff")), Err(PacketError::NotUtf8 { field: "text", offset: 3 }));
    let long = PacketError::StringTooLong { field: "text", bytes: 0x8000, max: STR_BYTES_MAX };
    assert_eq!(decode(old, &raw(b"\x90\x03\x0c\x80\x00")), Err(long));
    assert_eq!(decode(old, &raw(b"\xd0\x01\x00")), Ok(Packet::Unknown { number: 13 }));
}

#[test]
fn sealed_messages_open_for_their_receiver_and_nobody_else() {
    let mut dice = Dice::new("seal");
    let (mine, theirs) = cipher(&mut dice);
    let (other, _) = cipher(&mut dice);
    for round in 0..600 {
        let version = any_version(&mut dice);
        let length = [round, dice.below(2_000), 40_000][dice.below(3)];
        let clear: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
        let message = Recv {
            flags: dice.flags(),
            setting: Setting(dice.roll() as u8),
            from_uid: dice.text(),
            channel_id: dice.text(),
            channel_type: dice.roll() as u8,
            expire: if version.has_expire() { dice.number() as u32 } else { 0 },
            client_msg_no: dice.text(),
            message_id: dice.number() as i64,
            message_seq: dice.number().min(version.seq_max()),
            timestamp: dice.number() as i32,
            topic: dice.text(),
            payload: clear.clone().into(),
            ..Recv::default()
        };
        let prepared = PreparedRecv::new(version, &message).expect("can be said");
        let mut sealed = Vec::with_capacity(prepared.sealed_bytes());
        let room = sealed.as_ptr();
        prepared.seal(&mine, &mut sealed);
        assert_eq!((sealed.len(), sealed.as_ptr()), (prepared.sealed_bytes(), room), "not moved: the room was exact");
        let raw = cut(&sealed, BODY_BYTES_MAX).expect("well formed").expect("complete");
        let Ok(Packet::Recv(got)) = decode(version, &raw) else { panic!("a RECV") };
        let mut opened = Vec::new();
        theirs.open_recv(&got, &mut opened).expect("ours");
        assert_eq!(opened, clear);
        assert_eq!(other.open_recv(&got, &mut opened), Err(OpenError::MsgKey));
        let topic = !message.topic.is_empty() || message.setting.has(Setting::TOPIC);
        assert!(!got.setting.has(Setting::NO_ENCRYPT) && got.setting.has(Setting::TOPIC) == topic);
        assert!(version.get() >= 5 || got.setting.0 & 6 == 0, "no stream is announced");
        // Equal in everything but payload, msg_key and the bits set right.
        let expected = Recv {
            setting: got.setting,
            msg_key: got.msg_key.clone(),
            payload: got.payload.clone(),
            ..message.clone()
        };
        assert_eq!(got, expected);
        let mut plain = Vec::new();
        prepared.plain(&mut plain);
        assert_eq!(plain.len(), prepared.plain_bytes());
        let raw = cut(&plain, BODY_BYTES_MAX).expect("well formed").expect("complete");
        let unsealed = Recv { setting: got.setting, ..message };
        assert_eq!(decode(version, &raw), Ok(Packet::Recv(unsealed)));

        let mut send =
            Send { client_seq: round as u32, client_msg_no: dice.text(), channel_id: dice.text(), ..Send::default() };
        let mut wire = Vec::new();
        theirs.encrypt(&clear, &mut wire);
        send.payload = wire.into();
        let key = theirs.send_key(&send);
        send.msg_key = std::str::from_utf8(&key).expect("hex").into();
        opened.clear();
        mine.open_send(&send, &mut opened).expect("theirs");
        assert_eq!(opened, clear);
        send.client_seq ^= 1;
        assert_eq!(mine.open_send(&send, &mut opened), Err(OpenError::MsgKey));
        assert_eq!(opened, clear, "left as it was");
    }
}

#[test]
fn weak_and_wrong_keys_are_refused() {
    let server = ServerSecret::from_random([7; 32]);
    let good = ServerSecret::from_random([8; 32]).public_key();
    let salt = "aBcDeFgHiJkLmNoP";
    let agree = |key: &str, salt: &str| server.agree(key, salt).map(drop);
    assert_eq!(agree(&good, salt), Ok(()));
    assert_eq!(agree("", salt), Err(KeyError::Empty));
    assert_eq!(agree("AAAA", salt), Err(KeyError::Malformed));
    assert_eq!(agree(&good[..43], salt), Err(KeyError::Malformed));
    assert_eq!(agree(&"A".repeat(4_000), salt), Err(KeyError::Malformed));
    assert_eq!(agree("not base64", salt), Err(KeyError::Malformed));
    assert_eq!(agree(&format!("{}=", "A".repeat(43)), salt), Err(KeyError::Weak));
    assert_eq!(agree(&good, "short"), Err(KeyError::Salt { bytes: 5 }));
}

#[test]
fn texts_survive_every_spelling() {
    let mut dice = Dice::new("texts");
    let mut out = Vec::new();
    let mut count = 0;
    while count < 2_000 {
        let packet = match packet(&mut dice, Version::LATEST) {
            // What JSON-RPC does not carry.
            Packet::Send(send) => {
                let topic = if send.topic.is_empty() { Setting::default() } else { Setting::TOPIC };
                let kept = Setting(send.setting.0 & (Setting::RECEIPT | Setting::SIGNAL | Setting::STREAM).0) | topic;
                Packet::Send(Send { client_seq: 0, setting: kept, ..send })
            }
            packet @ (Packet::Connect(_) | Packet::RecvAck(_) | Packet::Ping | Packet::Disconnect(_)) => packet,
            _ => continue,
        };
        count += 1;
        for spelling in [Spelling::Camel, Spelling::Snake, Spelling::Both] {
            out.clear();
            jsonrpc::encode_client(spelling, Some("7"), &packet, &mut out).expect("can be said");
            let read = jsonrpc::decode_client(&out).expect("well formed");
            assert_eq!(read.id.as_deref(), Some("7"));
            // Four letters of base64 may be JSON text too, which wins (wukongim-wire.md 11).
            let short = matches!(&packet, Packet::Send(send) if send.payload.len() < 12);
            if short {
                assert_eq!(read.packet.kind(), packet.kind());
            } else {
                assert_eq!(read.packet, packet, "{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
