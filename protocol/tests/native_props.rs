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

fn texts() -> impl Strategy<Value = Vec<Cow<'static, str>>> {
    prop::collection::vec(text(), 0..4)
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
        refers in (number(), texts(), any::<bool>(), texts()),
    ) -> Send<'static> {
        let (red_dot, no_persist, sync_once) = flags;
        let (reply_to, mentions, mention_all, files) = refers;
        Send { client_seq, channel_id, channel_type, client_msg_no, payload, red_dot, no_persist, sync_once, setting, topic, expire, durability, reply_to, mentions, mention_all, files }
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
        refers in (number(), texts(), any::<bool>(), texts()), since in (number(), texts(), texts()),
    ) -> MessageItem<'static> {
        let (reply_to, mentions, mention_all, files) = refers;
        let (edited, likes, dislikes) = since;
        let (message_seq, message_id, timestamp) = numbers;
        let (red_dot, no_persist, sync_once) = flags;
        MessageItem { message_seq, message_id, from_uid, client_msg_no, timestamp, payload, red_dot, no_persist, sync_once, setting, topic, expire, state, reply_to, mentions, mention_all, files, edited, likes, dislikes, lanes: vec![] }
    }
}

prop_compose! {
    fn row()(
        channel in (text(), any::<u8>()), numbers in (number(), number(), number(), number(), number(), number(), number()),
        last_client_msg_no in text(), flags in any::<(bool, bool, bool)>(), own in any::<(bool, bool, bool, bool)>(),
        mentions in number(), changed in prop::collection::vec(number(), 0..4),
        recents in prop::collection::vec(item(), 0..4),
    ) -> Row<'static> {
        let (channel_id, channel_type) = channel;
        let (unread, timestamp, last_msg_seq, version, read_to_msg_seq, first_seq, deleted_to_msg_seq) = numbers;
        let (is_deleted, reset, complete) = flags;
        let (changed_more, pinned, muted, request) = own;
        Row {
            channel_id, channel_type, unread, timestamp, last_msg_seq, last_client_msg_no, version, read_to_msg_seq,
            deleted_to_msg_seq, is_deleted, reset, complete, first_seq, changed, changed_more, mentions, pinned, muted, request, recents,
        }
    }
}

fn reaction() -> impl Strategy<Value = Reaction> {
    prop_oneof![Just(Reaction::None), Just(Reaction::Like), Just(Reaction::Dislike)]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Member), Just(Role::Admin), Just(Role::Owner)]
}

prop_compose! {
    fn edit()(
        client_seq in number(), channel_id in text(), channel_type in any::<u8>(), message_seq in any::<u64>(), payload in bytes(),
        refers in (number(), texts(), any::<bool>(), texts()),
    ) -> Edit<'static> {
        let (reply_to, mentions, mention_all, files) = refers;
        Edit { client_seq, channel_id, channel_type, message_seq, payload, reply_to, mentions, mention_all, files }
    }
}

prop_compose! {
    fn search()(
        client_seq in number(), channel_id in text(), channel_type in any::<u8>(), text in text(), first_seq in any::<u64>(),
        last_seq in any::<u64>(), limit in any::<u32>(), oldest_first in any::<bool>(),
    ) -> Search<'static> {
        Search { client_seq, channel_id, channel_type, text, first_seq, last_seq, limit, oldest_first }
    }
}

prop_compose! {
    fn flags()(
        client_seq in number(), channel_id in text(), channel_type in any::<u8>(),
        flags in any::<(Option<bool>, Option<bool>, Option<bool>)>(),
    ) -> Flags<'static> {
        let (pinned, muted, accepted) = flags;
        Flags { client_seq, channel_id, channel_type, pinned, muted, accepted }
    }
}

prop_compose! {
    fn group()(client_seq in number(), texts in (text(), text(), text()), members in texts()) -> Group<'static> {
        let (name, icon, description) = texts;
        Group { client_seq, name, icon, description, members }
    }
}

prop_compose! {
    fn profile()(
        client_seq in number(), channel_id in text(), channel_type in any::<u8>(),
        texts in (prop::option::of(text()), prop::option::of(text()), prop::option::of(text())),
    ) -> Profile<'static> {
        let (name, icon, description) = texts;
        Profile { client_seq, channel_id, channel_type, name, icon, description }
    }
}

fn members() -> impl Strategy<Value = Vec<MemberItem<'static>>> {
    prop::collection::vec((text(), role()).prop_map(|(uid, role)| MemberItem { uid, role }), 0..20)
}

fn message_change() -> impl Strategy<Value = MessageChange> {
    prop_oneof![Just(MessageChange::Revoked), Just(MessageChange::Edited), Just(MessageChange::Reacted)]
}

prop_compose! {
    fn message_event()(
        channel in (text(), any::<u8>()), numbers in (number(), number()), what in message_change(), by in text(),
        payload in bytes(), refers in (number(), texts(), any::<bool>(), texts()), reaction in reaction(),
    ) -> MessageEvent<'static> {
        let ((channel_id, channel_type), (message_seq, version)) = (channel, numbers);
        let (reply_to, mentions, mention_all, files) = refers;
        MessageEvent {
            channel_id, channel_type, message_seq, version, what, by, payload, reply_to, mentions, mention_all, files, reaction,
        }
    }
}

prop_compose! {
    fn channel_event()(
        channel in (text(), any::<u8>()), version in number(), roles in members(),
        texts in (prop::option::of(text()), prop::option::of(text()), prop::option::of(text())),
    ) -> ChannelEvent<'static> {
        let ((channel_id, channel_type), (name, icon, description)) = (channel, texts);
        ChannelEvent { channel_id, channel_type, version, name, icon, description, roles }
    }
}

fn feature_answer() -> impl Strategy<Value = ServerFrame<'static>> {
    let item = |(message_seq, version)| ChangedItem { message_seq, version };
    let relation = |(uid, contact, blocked)| RelationItem { uid, contact, blocked };
    prop_oneof![
        message_event().prop_map(|event| ServerFrame::Event(Event::Message(event))),
        channel_event().prop_map(|event| ServerFrame::Event(Event::Channel(event))),
        (number(), text(), any::<u8>(), prop::collection::vec((number(), number()), 0..20), any::<bool>()).prop_map(
            move |(client_seq, channel_id, channel_type, items, more)| {
                let items = items.into_iter().map(item).collect();
                ServerFrame::Changes(ChangesPage { client_seq, channel_id, channel_type, items, more })
            }
        ),
        (number(), text(), any::<u8>(), number(), texts(), number(), any::<bool>()).prop_map(
            |(client_seq, channel_id, channel_type, message_seq, uids, of, more)| {
                ServerFrame::Readers(Readers { client_seq, channel_id, channel_type, message_seq, uids, of, more })
            }
        ),
        (number(), prop::collection::vec((text(), any::<bool>(), any::<bool>()), 0..20)).prop_map(
            move |(client_seq, relations)| {
                let relations = relations.into_iter().map(relation).collect();
                ServerFrame::Relations(RelationsList { client_seq, relations })
            }
        ),
        (number(), text(), any::<u8>(), members(), number(), any::<bool>()).prop_map(
            |(client_seq, channel_id, channel_type, members, of, more)| {
                ServerFrame::Members(MembersList { client_seq, channel_id, channel_type, members, of, more })
            }
        ),
    ]
}

fn client_frame() -> impl Strategy<Value = ClientFrame<'static>> {
    prop_oneof![
        send().prop_map(ClientFrame::Send),
        edit().prop_map(ClientFrame::Edit),
        search().prop_map(ClientFrame::Search),
        flags().prop_map(ClientFrame::Flags),
        group().prop_map(ClientFrame::Group),
        profile().prop_map(ClientFrame::Profile),
        (number(), text(), any::<u8>(), any::<u64>(), reaction()).prop_map(
            |(client_seq, channel_id, channel_type, message_seq, reaction)| {
                ClientFrame::React(React { client_seq, channel_id, channel_type, message_seq, reaction })
            }
        ),
        sync().prop_map(ClientFrame::Sync),
        prop::sample::select(samples::client()).prop_map(|(_, frame)| frame),
    ]
}

fn server_frame() -> impl Strategy<Value = ServerFrame<'static>> {
    prop_oneof![
        feature_answer(),
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
        type Build = fn(Vec<Cow<'static, str>>) -> ClientFrame<'static>;
        fn edit(mentions: Vec<Cow<'static, str>>, files: Vec<Cow<'static, str>>) -> ClientFrame<'static> {
            let (channel_id, payload) = ("g".into(), b"".as_slice().into());
            let (client_seq, channel_type, message_seq, reply_to, mention_all) = (1, 2, 1, 0, false);
            ClientFrame::Edit(Edit {
                client_seq,
                channel_id,
                channel_type,
                message_seq,
                payload,
                reply_to,
                mentions,
                mention_all,
                files,
            })
        }
        let lists: [(&str, usize, Build); 7] = [
            ("mentions", MENTIONS_MAX, |mentions| ClientFrame::Send(Send { mentions, ..samples::send() })),
            ("files", FILES_MAX, |files| ClientFrame::Send(Send { files, ..samples::send() })),
            ("mentions", MENTIONS_MAX, |mentions| edit(mentions, vec![])),
            ("files", FILES_MAX, |files| edit(vec![], files)),
            ("members", UIDS_MAX, |members| {
                let (name, icon, description) = ("".into(), "".into(), "".into());
                ClientFrame::Group(Group { client_seq: 1, name, icon, description, members })
            }),
            ("uids", UIDS_MAX, |uids| {
                ClientFrame::Invite(Invite { client_seq: 1, channel_id: "g".into(), channel_type: 2, uids })
            }),
            ("uids", UIDS_MAX, |uids| {
                ClientFrame::Expel(Expel { client_seq: 1, channel_id: "g".into(), channel_type: 2, uids })
            }),
        ];
        for (name, max, build) in lists {
            for (count, fits) in [(max, true), (max + 1, false)] {
                let mut out = Vec::new();
                let frame = build(vec!["u".into(); count]);
                encode_client(encoding, &frame, &mut out).expect("encodes");
                let decoded = decode_client(encoding, &out);
                let refused = matches!(&decoded, Err(WireError::Field { field, .. }) if field == name);
                assert_eq!((decoded.is_ok(), refused), (fits, !fits), "{} {name} {count}", frame.kind());
            }
        }
    }
    // Lengths of four billion, in five bytes.
    for lie in [
        &b"\x81\xa8presence\x81\xa4uids\xdd\xff\xff\xff\xff"[..],
        b"\x81\xa4send\xdf\xff\xff\xff\xff",
        b"\x81\xa4send\x81\xa8mentions\xdd\xff\xff\xff\xff",
        b"\x81\xa5group\x81\xa7members\xdd\xff\xff\xff\xff",
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
