//! Proves that whatever can be said survives both encodings, and that no bytes, random or nearly right, make a decoder
//! panic or reserve what they only claim. Failing seeds are printed by proptest.

use std::borrow::Cow;

use chinwag_protocol::error::WireError;
use chinwag_protocol::native::*;
use proptest::prelude::*;

mod samples;

const ENCODINGS: [Encoding; 2] = [Encoding::MessagePack, Encoding::Json];

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "[\\PC\"\\\\\u{0}-\u{1f}]{0,12}".prop_map(Cow::Owned)
}

fn bytes() -> impl Strategy<Value = Cow<'static, [u8]>> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Cow::Owned)
}

/// Numbers at the edges of the encodings' widths, up to the largest JSON keeps.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..=NUMBER_MAX,
        (0..53_u32).prop_map(|bits| 1 << bits),
        (0..53_u32).prop_map(|bits| (1 << bits) - 1),
        Just(NUMBER_MAX)
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Memory), Just(Durability::Disk), Just(Durability::Replicated)]
}

fn state() -> impl Strategy<Value = MessageState> {
    prop_oneof![
        Just(MessageState::Live),
        Just(MessageState::Expired),
        Just(MessageState::Revoked),
        Just(MessageState::Damaged)
    ]
}

prop_compose! {
    fn send()(
        client_seq in number(), channel_id in text(), channel_type in any::<u8>(), client_msg_no in text(), payload in bytes(),
        flags in any::<(bool, bool, bool)>(), setting in any::<u8>(), topic in text(), expire in any::<u32>(), durability in durability(),
    ) -> Send<'static> {
        let (red_dot, no_persist, sync_once) = flags;
        Send { client_seq, channel_id, channel_type, client_msg_no, payload, red_dot, no_persist, sync_once, setting, topic, expire, durability }
    }
}

prop_compose! {
    fn cursor()(channel_id in text(), channel_type in any::<u8>(), last_msg_seq in any::<u64>()) -> Cursor<'static> {
        Cursor { channel_id, channel_type, last_msg_seq }
    }
}

prop_compose! {
    fn sync()(
        client_seq in number(), version in any::<u64>(), last_msg_seqs in prop::option::of(text()),
        cursors in prop::collection::vec(cursor(), 0..20), msg_count in any::<i64>(), only_unread in any::<bool>(),
        page_after in prop::option::of(text()), rows_max in any::<u32>(),
    ) -> Sync<'static> {
        Sync { client_seq, version, last_msg_seqs, cursors, msg_count, only_unread, page_after, rows_max }
    }
}

prop_compose! {
    fn item()(
        numbers in (number(), number(), number()), from_uid in text(), client_msg_no in text(), payload in bytes(),
        flags in any::<(bool, bool, bool)>(), setting in any::<u8>(), topic in text(), expire in any::<u32>(), state in state(),
    ) -> MessageItem<'static> {
        let (message_seq, message_id, timestamp) = numbers;
        let (red_dot, no_persist, sync_once) = flags;
        MessageItem { message_seq, message_id, from_uid, client_msg_no, timestamp, payload, red_dot, no_persist, sync_once, setting, topic, expire, state }
    }
}

prop_compose! {
    fn row()(
        channel in (text(), any::<u8>()), numbers in (number(), number(), number(), number(), number(), number(), number()),
        last_client_msg_no in text(), flags in any::<(bool, bool, bool)>(), changed in prop::collection::vec(number(), 0..4),
        recents in prop::collection::vec(item(), 0..4),
    ) -> Row<'static> {
        let (channel_id, channel_type) = channel;
        let (unread, timestamp, last_msg_seq, version, read_to_msg_seq, first_seq, deleted_to_msg_seq) = numbers;
        let (is_deleted, reset, complete) = flags;
        Row {
            channel_id, channel_type, unread, timestamp, last_msg_seq, last_client_msg_no, version, read_to_msg_seq,
            deleted_to_msg_seq, is_deleted, reset, complete, first_seq, changed, recents,
        }
    }
}

fn client_frame() -> impl Strategy<Value = ClientFrame<'static>> {
    prop_oneof![
        send().prop_map(ClientFrame::Send),
        sync().prop_map(ClientFrame::Sync),
        prop::sample::select(samples::client()).prop_map(|(_, frame)| frame),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame<'static>> {
    prop_oneof![
        (text(), any::<u8>(), prop::collection::vec(item(), 0..20)).prop_map(|(channel_id, channel_type, messages)| {
            ServerFrame::Deliver(Deliver { channel_id, channel_type, messages })
        }),
        (
            number(),
            number(),
            any::<bool>(),
            any::<bool>(),
            prop::option::of(text()),
            prop::collection::vec(row(), 0..5)
        )
            .prop_map(|(client_seq, version, reset, more, page_after, rows)| {
                ServerFrame::Synced(Synced { client_seq, version, reset, more, page_after, rows })
            }),
        prop::sample::select(samples::server()).prop_map(|(_, frame)| frame),
    ]
}

proptest! {
    #[test]
    fn client_frames_survive(frame in client_frame()) {
        for encoding in ENCODINGS {
            let mut out = b"before".to_vec();
            encode_client(encoding, &frame, &mut out).expect("encodes");
            let decoded = decode_client(encoding, &out[6..]);
            prop_assert_eq!(decoded.as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn server_frames_survive(frame in server_frame()) {
        for encoding in ENCODINGS {
            let mut out = Vec::new();
            encode_server(encoding, &frame, &mut out).expect("encodes");
            let decoded = decode_server(encoding, &out);
            prop_assert_eq!(decoded.as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for encoding in ENCODINGS {
            let _ = decode_client(encoding, &bytes);
            let _ = decode_server(encoding, &bytes);
        }
    }

    /// Nearly right bytes go deeper than random ones: a frame of which some bytes were changed, cut out or doubled.
    #[test]
    fn damaged_frames_never_panic(
        frame in client_frame(), answer in server_frame(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        for encoding in ENCODINGS {
            let (mut ask, mut reply) = (Vec::new(), Vec::new());
            encode_client(encoding, &frame, &mut ask).expect("encodes");
            encode_server(encoding, &answer, &mut reply).expect("encodes");
            for bytes in [&mut ask, &mut reply] {
                for (index, kind, byte) in &damage {
                    if bytes.is_empty() {
                        break;
                    }
                    let at = index.index(bytes.len());
                    match kind {
                        0 => bytes[at] = *byte,
                        1 => drop(bytes.remove(at)),
                        _ => bytes.insert(at, *byte),
                    }
                }
            }
            let _ = decode_client(encoding, &ask);
            let _ = decode_server(encoding, &reply);
        }
    }

    #[test]
    fn a_cut_frame_is_malformed(frame in client_frame(), cut in any::<prop::sample::Index>()) {
        for encoding in ENCODINGS {
            let mut out = Vec::new();
            encode_client(encoding, &frame, &mut out).expect("encodes");
            out.truncate(cut.index(out.len()));
            let error = decode_client(encoding, &out).expect_err("cut");
            prop_assert!(matches!(error, WireError::Malformed { .. }), "{}", error);
        }
    }

    #[test]
    fn numbers_may_come_as_whole_floats(number in 0..=NUMBER_MAX) {
        let frame = serde_json::json!({"receipt": {"channel_id": "g", "channel_type": 2.0, "message_seq": number as f64}});
        let bytes = rmp_serde::to_vec_named(&frame).expect("encodes");
        let decoded = decode_client(Encoding::MessagePack, &bytes);
        prop_assert_eq!(decoded, Ok(ClientFrame::Receipt(Receipt { channel_id: "g".into(), channel_type: 2, message_seq: number })));
    }
}

#[test]
fn a_fraction_or_a_negative_number_is_no_seq() {
    for number in ["1.5", "-1", "1e300", "null", "true", "18446744073709551616"] {
        let text = format!(r#"{{"receipt":{{"channel_id":"g","channel_type":2,"message_seq":{number}}}}}"#);
        let error = decode_client(Encoding::Json, text.as_bytes()).expect_err(number);
        assert!(matches!(&error, WireError::Field { field, .. } if field == "message_seq"), "{number}: {error:?}");
    }
}

#[test]
fn depth_is_bounded_in_both_encodings() {
    let nested = |levels: usize| {
        let json = format!(r#"{{"ping":{{"x":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels));
        let mut msgpack = b"\x81\xa4ping\x81\xa1x".to_vec();
        msgpack.extend(std::iter::repeat_n(0x91, levels - 1));
        msgpack.push(0x90);
        (json, msgpack)
    };
    let (json, msgpack) = nested(DEPTH_MAX - 2);
    assert!(decode_client(Encoding::Json, json.as_bytes()).is_ok());
    assert!(decode_client(Encoding::MessagePack, &msgpack).is_ok());
    for levels in [DEPTH_MAX - 1, DEPTH_MAX, 100, 100_000] {
        let (json, msgpack) = nested(levels);
        let too_deep = Err(WireError::TooDeep { max: DEPTH_MAX });
        assert_eq!(decode_client(Encoding::Json, json.as_bytes()), too_deep, "{levels}");
        assert_eq!(decode_client(Encoding::MessagePack, &msgpack), too_deep, "{levels}");
    }
    // Brackets in text are no nesting.
    let text = format!(r#"{{"ping":{{"x":"{}\"{}"}}}}"#, "[".repeat(50), "{".repeat(50));
    assert!(decode_client(Encoding::Json, text.as_bytes()).is_ok());
}

#[test]
fn lists_are_bounded() {
    for encoding in ENCODINGS {
        let presence = |count: usize| {
            let frame = Presence { client_seq: 1, uids: vec!["u".into(); count], watch: false };
            let mut out = Vec::new();
            encode_client(encoding, &ClientFrame::Presence(frame), &mut out).expect("encodes");
            decode_client(encoding, &out).map(|_| ())
        };
        assert_eq!(presence(UIDS_MAX), Ok(()));
        let error = presence(UIDS_MAX + 1).expect_err("too many");
        assert!(matches!(&error, WireError::Field { field, client_seq: Some(1), .. } if field == "uids"), "{error:?}");
    }
    // Lengths of four billion, in five bytes.
    for lie in [
        &b"\x81\xa8presence\x81\xa4uids\xdd\xff\xff\xff\xff"[..],
        b"\x81\xa4send\xdf\xff\xff\xff\xff",
        b"\x81\xa4send\x81\xa7payload\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ] {
        let error = decode_client(Encoding::MessagePack, lie).expect_err("a lie");
        assert!(matches!(error, WireError::Malformed { .. }), "{error:?}");
    }
}

#[test]
fn borrowed_where_it_can_be() {
    let mut out = Vec::new();
    encode_client(Encoding::MessagePack, &ClientFrame::Send(samples::send()), &mut out).expect("encodes");
    let Ok(ClientFrame::Send(send)) = decode_client(Encoding::MessagePack, &out) else { panic!("no send") };
    assert!(matches!(send.payload, Cow::Borrowed(_)) && matches!(send.channel_id, Cow::Borrowed(_)));
    let json = br#"{"send":{"client_seq":1,"channel_id":"bob","channel_type":1,"payload":"aGk="}}"#;
    let Ok(ClientFrame::Send(send)) = decode_client(Encoding::Json, json) else { panic!("no send") };
    assert!(matches!(send.channel_id, Cow::Borrowed(_)));
}

#[test]
fn the_first_byte_tells_the_wire() {
    assert_eq!(Encoding::sniff(0x81), Sniffed::Native(Encoding::MessagePack));
    assert_eq!(Encoding::sniff(0x9f), Sniffed::Native(Encoding::MessagePack));
    assert_eq!(Encoding::sniff(0xde), Sniffed::Native(Encoding::MessagePack));
    assert_eq!(Encoding::sniff(0x10), Sniffed::WuKong);
    assert_eq!(Encoding::sniff(b'{'), Sniffed::JsonRpc);
    assert_eq!(Encoding::sniff(0x00), Sniffed::Unknown);
    assert_eq!(Encoding::sniff(0xc0), Sniffed::Unknown);
    for encoding in ENCODINGS {
        assert_eq!(Encoding::from_subprotocol(encoding.subprotocol()), Some(encoding));
    }
}
