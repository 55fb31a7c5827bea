//! Proves that whatever can be said survives every version and spelling, that streams are cut alike however they arrive,
//! and that no bytes, random or nearly right, make a codec panic or hold more than its limit. Seeds are printed.
//!
//! `CHINWAG_FUZZ_FRAMES` sets how many frames each codec gets, `CHINWAG_FUZZ_SEED` repeats a run.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use chinwag_protocol::jsonrpc::{self, Spelling};
use chinwag_protocol::wukong::*;
use serde_json::Value;

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// Of the environment's seed or a new one, which is printed.
    fn new(test: &str) -> Self {
        let given = std::env::var("CHINWAG_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(test));
        println!("{test}: CHINWAG_FUZZ_SEED={seed}");
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// Small ones, large ones and those at the edges.
    fn number(&mut self) -> u64 {
        let bits = self.below(64);
        match self.below(3) {
            0 => self.roll() >> bits,
            1 => (1 << bits) - 1,
            _ => 1 << bits,
        }
    }

    fn bytes(&mut self, end: usize) -> Vec<u8> {
        let length = self.below(end);
        (0..length).map(|_| self.roll() as u8).collect()
    }

    fn text(&mut self) -> Cow<'static, str> {
        const LETTERS: [char; 12] = ['a', 'Z', '0', '@', '"', '\\', '\n', '\u{0}', 'ü', '你', '😀', '{'];
        let length = if self.below(50) == 0 { 300 } else { self.below(12) };
        Cow::Owned((0..length).map(|_| LETTERS[self.below(LETTERS.len())]).collect())
    }

    fn flags(&mut self) -> Flags {
        Flags::from_bits(self.roll() as u8)
    }
}

fn frames() -> usize {
    std::env::var("CHINWAG_FUZZ_FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000)
}

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

fn cipher(dice: &mut Dice) -> (Cipher, Cipher) {
    let random = |dice: &mut Dice| -> [u8; 32] { std::array::from_fn(|_| dice.roll() as u8) };
    let (server, client) = (ServerSecret::from_random(random(dice)), ServerSecret::from_random(random(dice)));
    let salt = salt_of(random(dice)[..SALT_BYTES].try_into().expect("16 bytes"));
    assert!(salt.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    (
        server.agree(&client.public_key(), &salt).expect("a key"),
        client.agree(&server.public_key(), &salt).expect("a key"),
    )
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

/// Packets the clients wrote, to be damaged.
fn corpus() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let text = include_str!("../../tests/vectors/wukong/wkproto-vectors.json");
    let vectors: Value = serde_json::from_str(text).expect("JSON");
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    };
    let packets = ["client_encoded", "server_encoded", "spec_derived", "framing", "negative"]
        .into_iter()
        .flat_map(|group| vectors[group].as_array().expect("a list"))
        .filter_map(|vector| vector["hex"].as_str().map(unhex))
        .collect();
    let texts = ["client_easysdk_js_2_0_1", "client_easysdk_python_0_1_0", "server_accepted_by_both"]
        .into_iter()
        .flat_map(|group| vectors["jsonrpc"][group].as_array().expect("a list"))
        .map(|message| message.to_string().into_bytes())
        .collect();
    (packets, texts)
}

/// Every fourth time random bytes, else a sample with up to four wounds: a byte, a bit, bytes lost, doubled or put in.
fn damaged(dice: &mut Dice, corpus: &[Vec<u8>], frame: &mut Vec<u8>) {
    frame.clear();
    if dice.below(4) == 0 {
        let length = dice.below(80);
        frame.extend((0..length).map(|_| dice.roll() as u8));
        return;
    }
    frame.extend_from_slice(&corpus[dice.below(corpus.len())]);
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(frame.len());
        let end = (at + 1 + dice.below(16)).min(frame.len());
        match dice.below(5) {
            0 if at < frame.len() => frame[at] = dice.roll() as u8,
            1 if at < frame.len() => frame[at] ^= 1 << dice.below(8),
            2 if at < end => drop(frame.drain(at..end)),
            3 if at < end => frame.extend_from_within(at..end),
            _ => frame.insert(at, [0, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\\'][dice.below(8)]),
        }
    }
}

#[test]
fn a_million_damaged_packets_do_no_harm() {
    let mut dice = Dice::new("damaged packets");
    let (corpus, _) = corpus();
    let (cipher, _) = cipher(&mut dice);
    let (mut frame, mut opened, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let mut cutter = Cutter::new(4_096);
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..frames() {
        damaged(&mut dice, &corpus, &mut frame);
        let version = any_version(&mut dice);
        // Some packets go on where others ended, as on a connection that is not closed.
        let mut piece = frame.as_slice();
        loop {
            match cutter.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(raw)) => match decode(version, &raw) {
                    Err(_) => refused += 1,
                    Ok(packet) => {
                        decoded += 1;
                        if let Packet::Send(send) = &packet {
                            opened.clear();
                            let _ = cipher.decrypt(&send.payload, &mut opened);
                            assert!(opened.capacity() <= 8 * 4_096);
                        }
                        if packet.kind().is_some() {
                            again.clear();
                            encode(version, &packet, &mut again).expect("what was read can be written");
                            let raw = cut(&again, BODY_BYTES_MAX).expect("well formed").expect("complete");
                            assert_eq!(decode(version, &raw), Ok(packet));
                        }
                    }
                },
                Err(_) => {
                    refused += 1;
                    cutter = Cutter::new(4_096);
                    break;
                }
            }
        }
        assert!(cutter.allocated_bytes() <= 4_096 + HEAD_BYTES_MAX);
    }
    println!("{decoded} packets decoded, {refused} refused");
    assert!(decoded > frames() / 10 && refused > frames() / 10, "both ways are tried: {decoded}, {refused}");
}

#[test]
fn a_million_damaged_texts_do_no_harm() {
    let mut dice = Dice::new("damaged texts");
    let (_, corpus) = corpus();
    let (mut frame, mut again) = (Vec::new(), Vec::new());
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..frames() {
        damaged(&mut dice, &corpus, &mut frame);
        match jsonrpc::decode_client(&frame) {
            Err(_) => refused += 1,
            Ok(message) => {
                decoded += 1;
                again.clear();
                jsonrpc::encode_client(Spelling::Both, message.id.as_deref(), &message.packet, &mut again)
                    .expect("what was read can be written");
                assert!(jsonrpc::decode_client(&again).is_ok());
            }
        }
        if dice.below(8) == 0
            && let Ok(jsonrpc::ServerMessage::Answer { outcome: Ok(answer), .. }) = jsonrpc::decode_server(&frame)
        {
            let _ = (answer.connack(), answer.sendack());
        }
    }
    println!("{decoded} texts decoded, {refused} refused");
    assert!(decoded > frames() / 50 && refused > frames() / 10, "both ways are tried: {decoded}, {refused}");
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
